/* SPDX-License-Identifier: Apache-2.0 */
/*
 * copy.c - copies of large sparse files
 */
#include "vm/copy.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/banned.h"

#define CHUNK       (8 * AV_MIB)
#define PAGE        4096
#define PUNCH_LEAST (64 * AV_KIB)

/* ---- copying ---- */

struct copy {
	int from, to;
	char *buf; /* owned, AV_MIB; made when it is needed */
	uint64_t bytes;
};

/* By hand, where the kernel does not copy between the two files. */
static ssize_t copy_bytes(struct copy *c, off_t at, size_t want)
{
	if (!c->buf && !(c->buf = malloc(AV_MIB))) {
		errno = ENOMEM;
		return -1;
	}
	ssize_t n = pread(c->from, c->buf, AV_MIN(want, (size_t)AV_MIB), at);
	for (ssize_t done = 0; done < n;) {
		ssize_t put = pwrite(c->to, c->buf + done, (size_t)(n - done), at + done);
		if (put < 0 && errno != EINTR)
			return -1;
		done += AV_MAX(put, (ssize_t)0);
	}
	return n;
}

static bool cannot_copy_here(int error)
{
	return error == EXDEV || error == EOPNOTSUPP || error == EINVAL || error == ENOSYS;
}

static int copy_range(struct copy *c, off_t at, off_t end)
{
	while (at < end) {
		off_t in = at, out = at;
		size_t want = (size_t)AV_MIN(end - at, (off_t)CHUNK);
		ssize_t n = copy_file_range(c->from, &in, c->to, &out, want, 0);
		if (n < 0 && cannot_copy_here(errno))
			n = copy_bytes(c, at, want);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			return 0; /* it ended earlier than it said */
		at += n;
		c->bytes += (uint64_t)n;
	}
	return 0;
}

static int copy_data(struct copy *c, off_t size)
{
	for (off_t at = 0; at < size;) {
		off_t data = lseek(c->from, at, SEEK_DATA);
		if (data < 0 && errno == ENXIO)
			break;
		off_t hole = data < 0 ? data : lseek(c->from, data, SEEK_HOLE);
		if (hole < 0)
			return -errno;
		int r = copy_range(c, data, AV_MIN(hole, size));
		if (r < 0)
			return r;
		at = hole;
	}
	return ftruncate(c->to, size) < 0 ? -errno : 0;
}

int vm_copy_fd(int from, const char *from_name, int to, const char *to_name, struct vm_copied *ret,
    struct av_err *err)
{
	struct stat st;
	if (fstat(from, &st) < 0)
		return av_err_sys(err, AV_ERR_INTERNAL, errno, "\"%s\" cannot be read", from_name);
	if (!S_ISREG(st.st_mode))
		return av_err_set(
		    err, AV_ERR_INVALID, "\"%s\" is not a file that could be copied", from_name);
	struct copy c = {.from = from, .to = to};
	bool shared = st.st_size > 0 && ioctl(to, FICLONE, from) == 0;
	int r = shared ? 0 : copy_data(&c, st.st_size);
	free(c.buf);
	if (r < 0)
		return av_err_sys(err, AV_ERR_INTERNAL, r, "\"%s\" cannot be copied to \"%s\"",
		    from_name, to_name);
	if (ret)
		*ret = (struct vm_copied){
		    .shared = shared, .size_bytes = (uint64_t)st.st_size, .bytes = c.bytes};
	return 0;
}

int vm_copy(const char *from, const char *to, struct vm_copied *ret, struct av_err *err)
{
	AV_CLEANUP(av_closep) int in = open(from, O_RDONLY | O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC);
	if (in < 0)
		return av_err_sys(err, errno == ENOENT ? AV_ERR_NOT_FOUND : AV_ERR_INTERNAL, errno,
		    "\"%s\" cannot be opened to be copied", from);
	AV_CLEANUP(av_closep)
	int out = open(to, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (out < 0)
		return av_err_sys(err, errno == EEXIST ? AV_ERR_CONFLICT : AV_ERR_INTERNAL, errno,
		    "\"%s\" cannot be made as a copy of \"%s\"", to, from);
	int r = vm_copy_fd(in, from, out, to, ret, err);
	if (r < 0)
		(void)unlink(to);
	return r;
}

/* ---- blocks that are all zero ---- */

struct punch {
	int fd;
	off_t run, end; /* zeros that were seen, not yet freed */
	uint64_t bytes;
};

static bool is_zero(const char *p, size_t n)
{
	return n == 0 || (p[0] == 0 && memcmp(p, p + 1, n - 1) == 0);
}

static int punch_run(struct punch *p)
{
	off_t n = p->end - p->run;
	if (n < PUNCH_LEAST)
		return 0;
	if (fallocate(p->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, p->run, n) < 0)
		return errno == EOPNOTSUPP ? 0 : -errno;
	p->bytes += (uint64_t)n;
	return 0;
}

static int look_at(struct punch *p, const char *buf, off_t at, size_t n)
{
	for (size_t i = 0; i < n; i += PAGE) {
		size_t piece = AV_MIN((size_t)PAGE, n - i);
		off_t here = at + (off_t)i;
		if (is_zero(buf + i, piece)) {
			if (p->end != here)
				p->run = here;
			p->end = here + (off_t)piece;
			continue;
		}
		int r = p->end == here ? punch_run(p) : 0;
		p->run = p->end = 0;
		if (r < 0)
			return r;
	}
	return 0;
}

/* Where a hole begins, what was seen before it ends. */
static int punch_data(struct punch *p, char *buf, off_t data, off_t hole)
{
	/* File systems speak of blocks, which may be smaller than ours. */
	data -= data % PAGE;
	p->run = p->end = 0;
	while (data < hole) {
		ssize_t n = pread(p->fd, buf, AV_MIB, data);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : 0;
		int r = look_at(p, buf, data, (size_t)AV_MIN((off_t)n, hole - data));
		if (r < 0)
			return r;
		data += n;
	}
	return punch_run(p);
}

static int punch_all(struct punch *p, char *buf)
{
	for (off_t at = 0;;) {
		off_t data = lseek(p->fd, at, SEEK_DATA);
		if (data < 0)
			return errno == ENXIO ? 0 : -errno;
		off_t hole = lseek(p->fd, data, SEEK_HOLE);
		if (hole < 0)
			return -errno;
		int r = punch_data(p, buf, data, hole);
		if (r < 0)
			return r;
		at = hole;
	}
}

int vm_punch_zeros(const char *path, uint64_t *ret_bytes, struct av_err *err)
{
	AV_CLEANUP(av_closep) int fd = open(path, O_RDWR | O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return av_err_sys(err, errno == ENOENT ? AV_ERR_NOT_FOUND : AV_ERR_INTERNAL, errno,
		    "\"%s\" cannot be opened to free what is zero in it", path);
	AV_CLEANUP(av_freep) char *buf = malloc(AV_MIB);
	if (!buf)
		return av_err_sys(err, AV_ERR_INTERNAL, ENOMEM, "\"%s\" cannot be read", path);
	struct punch p = {.fd = fd};
	int r = punch_all(&p, buf);
	if (r < 0)
		return av_err_sys(
		    err, AV_ERR_INTERNAL, r, "what is zero in \"%s\" cannot be freed", path);
	if (ret_bytes)
		*ret_bytes = p.bytes;
	return 0;
}
