/* SPDX-License-Identifier: Apache-2.0 */
/*
 * child.c - processes that this program starts, and the end of what they said (see child.h)
 */
#include "vm/child.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "base/fd.h"
#include "vm/qmp.h"

#include "base/banned.h"

#define FDS_FROM     64 /* where descriptors are put before they become 3, 4, … */
#define DRAIN_READS  64 /* of 4 KiB, at most, when a child has ended */
#define PRIVATE_EXIT 127

struct child {
	struct av_list node;
	pid_t pid;
	bool freed;
	struct tail words;
	const struct child_ops *ops;
	void *ctx;
};

/* --- tails --- */

static void keep(struct tail *t, const char *p, size_t n)
{
	if (n > sizeof(t->text)) {
		p += n - sizeof(t->text);
		n = sizeof(t->text);
	}
	if (t->n + n > sizeof(t->text)) {
		size_t drop = t->n + n - sizeof(t->text);

		memmove(t->text, t->text + drop, t->n - drop);
		t->n -= drop;
	}
	memcpy(t->text + t->n, p, n);
	t->n += n;
}

/* False: nothing more for now. */
static bool take(struct tail *t)
{
	char buf[4096];
	ssize_t n;

	if (t->ended || t->fd < 0)
		return false;
	do {
		n = read(t->fd, buf, sizeof(buf));
	} while (n < 0 && errno == EINTR);
	if (n > 0) {
		keep(t, buf, (size_t)n);
		return true;
	}
	if (n == 0 || errno != EAGAIN) {
		t->ended = true;
		uv_poll_stop(&t->poll);
	}
	return false;
}

static void on_tail(uv_poll_t *poll, int status, int events)
{
	struct tail *t = poll->data;

	(void)status;
	(void)events;
	take(t);
}

int tail_open(struct tail *t, uv_loop_t *loop, int fd)
{
	int r = av_set_nonblock(fd, true);

	*t = (struct tail){.fd = -1};
	if (r == 0)
		r = uv_poll_init(loop, &t->poll, fd);
	if (r < 0)
		return r;
	t->fd = fd;
	t->poll.data = t;
	uv_poll_start(&t->poll, UV_READABLE, on_tail);
	return 0;
}

void tail_drain(struct tail *t)
{
	for (int i = 0; i < DRAIN_READS && take(t); i++)
		;
}

void tail_close(struct tail *t, uv_close_cb on_closed)
{
	uv_close((uv_handle_t *)&t->poll, on_closed);
	av_close_fd(&t->fd);
}

/* Copies a piece, without what stands at its ends. */
static void piece(char *dst, size_t size, const char *p, size_t n)
{
	char text[512];

	while (n && (unsigned char)*p <= ' ')
		p++, n--;
	while (n && (unsigned char)p[n - 1] <= ' ')
		n--;
	n = AV_MIN(n, sizeof(text) - 1);
	for (size_t i = 0; i < n; i++)
		text[i] = p[i] ? p[i] : '?';
	text[n] = '\0';
	qmp_printable(dst, size, text);
}

void tail_line(const struct tail *t, char *dst, size_t size)
{
	size_t end = t->n, from;

	while (end && (unsigned char)t->text[end - 1] <= ' ')
		end--;
	for (from = end; from && t->text[from - 1] != '\n'; from--)
		;
	piece(dst, size, t->text + from, end - from);
}

bool tail_find(const struct tail *t, const char *what, char *dst, size_t size)
{
	size_t n = strlen(what);

	dst[0] = '\0';
	for (size_t at = t->n < n ? 0 : t->n - n + 1; at--;) {
		const char *eol;

		if (memcmp(t->text + at, what, n) != 0)
			continue;
		eol = memchr(t->text + at, '\n', t->n - at);
		piece(dst, size, t->text + at, eol ? (size_t)(eol - (t->text + at)) : t->n - at);
		return true;
	}
	return false;
}

/* --- children --- */

void children_init(struct children *all, uv_loop_t *loop)
{
	all->loop = loop;
	av_list_init(&all->list);
}

/* In the child. */
_Noreturn static void become(
    const struct child_spec *spec, const int *fds, int null, int out, pid_t parent)
{
	sigset_t none;

	setpgid(0, 0);
	if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 || getppid() != parent)
		_exit(PRIVATE_EXIT);
	/* Otherwise the translation buffer of QEMU is made of pages of 2 MiB, which are cleared at
	 * its start: 3 ms and as many MiB for nothing. */
	prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0);
	if (dup2(null, 0) < 0 || dup2(out, 1) < 0 || dup2(out, 2) < 0)
		_exit(PRIVATE_EXIT);
	for (size_t i = 0; i < spec->n_fds; i++)
		if (dup2(fds[i], 3 + (int)i) < 0)
			_exit(PRIVATE_EXIT);
	av_close_range_from(3 + (unsigned)spec->n_fds);
	signal(SIGPIPE, SIG_DFL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	if (!spec->argv)
		_exit(spec->run(spec->arg));
	/* exec does not change them (environ and argv of POSIX are not const for history's sake) */
	execve(spec->argv[0], (char *const *)(uintptr_t)spec->argv,
	    (char *const *)(uintptr_t)spec->env);
	_exit(PRIVATE_EXIT);
}

struct sources {
	int null, out[2];
	int fds[CHILD_FDS_MAX];
};

static void sources_close(struct sources *s)
{
	av_close_fd(&s->null);
	av_close_fd(&s->out[0]);
	av_close_fd(&s->out[1]);
	for (size_t i = 0; i < CHILD_FDS_MAX; i++)
		av_close_fd(&s->fds[i]);
}

/* All descriptors that the child takes from are beyond those that it takes. */
static int sources_open(struct sources *s, const struct child_spec *spec)
{
	int r = 0;

	s->null = open("/dev/null", O_RDWR | O_CLOEXEC);
	if (s->null < 0 || pipe2(s->out, O_CLOEXEC) < 0)
		r = -errno;
	for (size_t i = 0; r == 0 && i < spec->n_fds; i++) {
		s->fds[i] = fcntl(spec->fds[i], F_DUPFD_CLOEXEC, FDS_FROM);
		if (s->fds[i] < 0)
			r = -errno;
	}
	return r;
}

int child_start(struct children *all, const struct child_spec *spec, const struct child_ops *ops,
    void *ctx, struct child **ret)
{
	struct sources s = {.null = -1, .out = {-1, -1}};
	struct child *c = calloc(1, sizeof(*c));
	pid_t parent = getpid();
	int r;

	for (size_t i = 0; i < CHILD_FDS_MAX; i++)
		s.fds[i] = -1;
	assert(spec->n_fds <= CHILD_FDS_MAX);
	r = c ? sources_open(&s, spec) : -ENOMEM;
	if (r == 0)
		r = tail_open(&c->words, all->loop, s.out[0]);
	if (r < 0) {
		sources_close(&s);
		free(c);
		return r;
	}
	s.out[0] = -1;
	c->words.poll.data = &c->words;
	c->ops = ops;
	c->ctx = ctx;
	av_list_init(&c->node);
	c->pid = fork();
	if (c->pid == 0)
		become(spec, s.fds, s.null, s.out[1], parent);
	r = c->pid < 0 ? -errno : 0;
	sources_close(&s);
	if (r < 0) {
		c->pid = 0;
		child_free(c);
		return r;
	}
	setpgid(c->pid, c->pid);
	av_list_append(&all->list, &c->node);
	*ret = c;
	return 0;
}

bool children_reaped(struct children *all, pid_t pid, int status)
{
	struct child *c;

	AV_LIST_FOREACH(c, &all->list, struct child, node)
	{
		if (c->pid != pid)
			continue;
		c->pid = 0;
		av_list_remove(&c->node);
		tail_drain(&c->words);
		c->ops->on_exit(c->ctx, status);
		return true;
	}
	return false;
}

pid_t child_pid(const struct child *c)
{
	return c->pid;
}

void child_kill(struct child *c)
{
	if (c->pid > 0) {
		kill(-c->pid, SIGKILL);
		kill(c->pid, SIGKILL);
	}
}

static void on_child_closed(uv_handle_t *handle)
{
	struct tail *t = handle->data;

	free(AV_CONTAINER_OF(t, struct child, words));
}

void child_free(struct child *c)
{
	if (!c || c->freed)
		return;
	c->freed = true;
	child_kill(c);
	av_list_remove(&c->node);
	tail_close(&c->words, on_child_closed);
}

const struct tail *child_words(struct child *c)
{
	tail_drain(&c->words);
	return &c->words;
}
