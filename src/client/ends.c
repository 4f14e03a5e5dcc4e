/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ends.c - where the bytes of a pipe come from and go to: memory, descriptors, callbacks
 *
 * A descriptor is duplicated. A regular file is read and written as it stands; everything else is
 * asked first (poll) and waited for with all that the client waits for. One that blocks stays as it
 * is for its other users: where poll says that it takes something, a pipe takes PIPE_PIECE bytes.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/fd.h"
#include "client/pipe.h"

#include "base/banned.h"

#define PIPE_PIECE ((size_t)PIPE_BUF)

/* ---- memory ---- */

struct memory {
	struct avc_end end; /* first */
	size_t n, at;
	char data[];
};

static int64_t memory_move(struct avc_end *e, void *p, size_t n)
{
	struct memory *m = AV_CONTAINER_OF(e, struct memory, end);

	n = AV_MIN(n, m->n - m->at);
	if (n)
		memcpy(p, m->data + m->at, n);
	m->at += n;
	return (int64_t)n;
}

static bool memory_rewind(struct avc_end *e)
{
	AV_CONTAINER_OF(e, struct memory, end)->at = 0;
	return true;
}

static void memory_free(struct avc_end *e)
{
	free(AV_CONTAINER_OF(e, struct memory, end));
}

struct avc_end *avc_end_memory(const void *data, size_t n)
{
	struct memory *m = n < PTRDIFF_MAX - sizeof(*m) ? malloc(sizeof(*m) + n) : NULL;

	if (!m)
		return NULL;
	*m = (struct memory){
	    .end = {.move = memory_move, .rewind = memory_rewind, .free = memory_free, .fd = -1},
	    .n = n};
	if (n)
		memcpy(m->data, data, n);
	return &m->end;
}

/* ---- descriptors ---- */

struct file {
	struct avc_end end; /* first; its fd is that of what is to be waited for */
	int fd;             /* owned */
	int error;          /* it was none: errno */
	bool regular;
	off_t start; /* -1: it has no place to go back to */
};

static int64_t refuse(struct avc_end *e, int error)
{
	(void)snprintf(e->why, sizeof(e->why), "descriptor: %s", strerror(error));
	return error == ENOSPC || error == EDQUOT ? AVIARY_E_NO_SPACE : AVIARY_E_LOCAL;
}

/* Whether it can be used without waiting. */
static bool is_ready(const struct file *f, short events)
{
	struct pollfd p = {.fd = f->fd, .events = events};

	return f->regular || poll(&p, 1, 0) != 0;
}

static int64_t file_read(struct avc_end *e, void *p, size_t n)
{
	struct file *f = AV_CONTAINER_OF(e, struct file, end);
	ssize_t r;

	if (f->error)
		return refuse(e, f->error);
	if (!is_ready(f, POLLIN))
		return AVC_LATER;
	do {
		r = read(f->fd, p, n);
	} while (r < 0 && errno == EINTR);
	if (r < 0)
		return errno == EAGAIN ? AVC_LATER : refuse(e, errno);
	return r;
}

/* The program's SIGPIPE is none of ours. */
static ssize_t write_quietly(int fd, const void *p, size_t n)
{
	const struct timespec now = {0};
	sigset_t set, old, pending;
	int error;
	ssize_t r = send(fd, p, n, MSG_NOSIGNAL | MSG_DONTWAIT);

	if (r >= 0 || errno != ENOTSOCK)
		return r;
	sigemptyset(&set);
	sigaddset(&set, SIGPIPE);
	sigpending(&pending);
	pthread_sigmask(SIG_BLOCK, &set, &old);
	r = write(fd, p, n);
	error = errno;
	if (r < 0 && error == EPIPE && !sigismember(&pending, SIGPIPE))
		while (sigtimedwait(&set, NULL, &now) < 0 && errno == EINTR)
			;
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	errno = error;
	return r;
}

static int64_t file_write(struct avc_end *e, void *p, size_t n)
{
	struct file *f = AV_CONTAINER_OF(e, struct file, end);
	size_t done = 0;

	if (f->error)
		return refuse(e, f->error);
	while (done < n && is_ready(f, POLLOUT)) {
		size_t piece = f->regular ? n - done : AV_MIN(n - done, PIPE_PIECE);
		const char *at = (const char *)p + done;
		ssize_t r = f->regular ? write(f->fd, at, piece) : write_quietly(f->fd, at, piece);

		if (r < 0 && errno == EINTR)
			continue;
		if (r < 0 && errno == EAGAIN)
			break;
		if (r < 0)
			return refuse(e, errno);
		done += (size_t)r;
	}
	return done ? (int64_t)done : AVC_LATER;
}

static bool file_rewind(struct avc_end *e)
{
	const struct file *f = AV_CONTAINER_OF(e, struct file, end);

	return f->start >= 0 && lseek(f->fd, f->start, SEEK_SET) == f->start;
}

static void file_free(struct avc_end *e)
{
	struct file *f = AV_CONTAINER_OF(e, struct file, end);

	av_close_fd(&f->fd);
	free(f);
}

static struct file *file_new(int fd, struct stat *st)
{
	struct file *f = calloc(1, sizeof(*f));

	if (!f)
		return NULL;
	f->end.free = file_free;
	f->end.fd = -1;
	f->start = -1;
	f->fd = fcntl(fd, F_DUPFD_CLOEXEC, 3);
	if (f->fd < 0 || fstat(f->fd, st) < 0) {
		f->error = errno;
		return f;
	}
	f->regular = S_ISREG(st->st_mode);
	f->end.fd = f->regular ? -1 : f->fd;
	f->start = f->regular ? lseek(f->fd, 0, SEEK_CUR) : -1;
	return f;
}

struct avc_end *avc_end_fd_source(int fd, int64_t *ret_size)
{
	struct stat st;
	struct file *f = file_new(fd, &st);

	*ret_size = -1;
	if (!f)
		return NULL;
	f->end.move = file_read;
	f->end.rewind = file_rewind;
	/* Files of procfs say that they are empty. */
	if (!f->error && f->regular && f->start >= 0 && st.st_size > 0)
		*ret_size = st.st_size > f->start ? st.st_size - f->start : 0;
	return &f->end;
}

struct avc_end *avc_end_fd_sink(int fd)
{
	struct stat st;
	struct file *f = file_new(fd, &st);

	if (!f)
		return NULL;
	f->end.move = file_write;
	return &f->end;
}

/* ---- callbacks ---- */

struct callback {
	struct avc_end end; /* first */
	int64_t (*read)(void *ctx, void *p, size_t n);
	int64_t (*write)(void *ctx, const void *p, size_t n);
	void *ctx;
};

static int64_t callback_move(struct avc_end *e, void *p, size_t n)
{
	struct callback *cb = AV_CONTAINER_OF(e, struct callback, end);
	int64_t r = cb->read ? cb->read(cb->ctx, p, n) : cb->write(cb->ctx, p, n);

	if (r >= 0 && (uint64_t)r <= n)
		return r;
	if (r > 0) {
		(void)snprintf(e->why, sizeof(e->why),
		    "the callback says %lld bytes where there are %zu", (long long)r, n);
		return AVIARY_E_INVALID;
	}
	if (r == AVIARY_E_AGAIN)
		return AVC_LATER;
	(void)snprintf(e->why, sizeof(e->why), "the callback ended it");
	return r <= -0x0100 && r >= -0xffff ? r : AVIARY_E_CANCELED;
}

static void callback_free(struct avc_end *e)
{
	free(AV_CONTAINER_OF(e, struct callback, end));
}

static struct callback *callback_new(void *ctx)
{
	struct callback *cb = calloc(1, sizeof(*cb));

	if (!cb)
		return NULL;
	cb->end = (struct avc_end){.move = callback_move, .free = callback_free, .fd = -1};
	cb->ctx = ctx;
	return cb;
}

struct avc_end *avc_end_reader(int64_t (*fn)(void *ctx, void *p, size_t n), void *ctx)
{
	struct callback *cb = callback_new(ctx);

	if (!cb)
		return NULL;
	cb->read = fn;
	return &cb->end;
}

struct avc_end *avc_end_writer(int64_t (*fn)(void *ctx, const void *p, size_t n), void *ctx)
{
	struct callback *cb = callback_new(ctx);

	if (!cb)
		return NULL;
	cb->write = fn;
	return &cb->end;
}
