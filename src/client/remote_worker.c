/* SPDX-License-Identifier: Apache-2.0 */
/*
 * remote_worker.c - the side of a remote function that is in the sandbox (see remote.h)
 *
 * Theory of operation. aviary_worker_init, in the process that the agent started, reads the call
 * from stdin and forks. The child decodes the argument, runs the function and writes the encoded
 * result into a pipe; its stdout and stderr are pipes as well, its stdin is empty. The parent is
 * the supervisor: it reads the three, puts what comes into frames on the real stdout, waits for the
 * child by its pidfd, and says last how it ended. So output, result and crash come apart, whatever
 * the function does; what it leaves running keeps no pipe waiting, as after the child's end only
 * what is in the pipes already is taken.
 *
 * The child dies with the supervisor (PDEATHSIG), and both with the group that the daemon kills
 * when the call's time is over or the caller is gone. There is no wait here without that: the
 * daemon's time-out is the timer.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"
#include "client/remote.h"
#include "client/remote_wire.h"

#include "base/banned.h"

#define FIRST_FD  10 /* ours lie above what functions think is theirs */
#define N_STREAMS 3

struct worker {
	int in, out; /* the real stdin and stdout */
	struct avc_head head;
	char name[AVC_NAME_MAX + 1], build[AVC_NAME_MAX + 1];
	aviary_bytes argument;
	const aviary_function *fn;
	uint64_t read; /* of stdin */
	int result_fd; /* in the child */
};

/* ---- frames ---- */

static void send_frame(struct worker *w, enum avc_piece ch, const void *data, size_t n)
{
	uint8_t head[AVC_FRAME_HEAD];

	avc_frame_head(head, ch, n);
	if (av_write_full(w->out, head, sizeof(head)) < 0 || av_write_full(w->out, data, n) < 0)
		_exit(1); /* nobody listens any more; the child goes with us */
}

static void send_end(struct worker *w, const struct avc_end *e, const char *sentence)
{
	uint8_t body[AVC_END_SIZE + AVC_SENTENCE_MAX];
	size_t n = strnlen(sentence, AVC_SENTENCE_MAX);

	avc_end_write(body, e);
	memcpy(body + AVC_END_SIZE, sentence, n);
	send_frame(w, AVC_PIECE_END, body, AVC_END_SIZE + n);
}

static _Noreturn void refuse(struct worker *w, enum avc_outcome kind, const char *sentence)
{
	send_end(w, &(struct avc_end){.kind = kind}, sentence);
	_exit(0);
}

/* ---- the child ---- */

static void write_result(
    struct worker *w, enum avc_outcome kind, int returned, const void *data, size_t n)
{
	uint8_t head[AVC_RESULT_HEAD];

	avc_result_head(head, kind, returned, n);
	if (av_write_full(w->result_fd, head, sizeof(head)) < 0 ||
	    av_write_full(w->result_fd, data, n) < 0)
		_exit(1);
}

static void write_sentence(struct worker *w, enum avc_outcome kind, const char *sentence)
{
	write_result(w, kind, 0, sentence, strnlen(sentence, AVC_SENTENCE_MAX));
}

static const char *reason(int code, const char *why)
{
	return code == AVIARY_E_NO_MEMORY ? "there is no memory for it" : why;
}

static void write_value(struct worker *w, const void *out)
{
	aviary_bytes bytes = {0};
	const char *why;
	char text[100];
	int r = avc_value_encode(w->fn->out, out, w->head.result_max, &bytes, &why);

	if (r == AVIARY_E_TOO_LARGE) {
		(void)snprintf(text, sizeof(text), "it has %zu bytes", bytes.size);
		write_sentence(w, AVC_LARGE_RESULT, text);
	} else if (r < 0) {
		write_sentence(w, AVC_BAD_RESULT, reason(r, why));
	} else {
		write_result(w, AVC_RETURNED, 0, bytes.data, bytes.size);
	}
}

static _Noreturn void be_child(struct worker *w)
{
	const char *why = "";
	void *in = NULL, *out = calloc(1, w->fn->out->size ? w->fn->out->size : 1);
	int r = out ? avc_value_decode(w->fn->in, w->argument.data, w->argument.size, &in, &why)
	            : AVIARY_E_NO_MEMORY;

	aviary_bytes_clear(&w->argument);
	if (r < 0) {
		write_sentence(w, AVC_BAD_ARGUMENT, reason(r, why));
		_exit(0);
	}
	r = w->fn->call(in, out);
	if (r == 0)
		write_value(w, out);
	else
		write_result(w, AVC_RETURNED, r, NULL, 0);
	(void)fflush(NULL);
	_exit(0);
}

/* ---- the supervisor ---- */

struct stream {
	int fd;
	enum avc_piece ch;
};

/* Up to max bytes; false: there is nothing more to come, or not now. */
static bool forward(struct worker *w, struct stream *s, size_t max)
{
	char data[AVC_FRAME_MAX];
	ssize_t n = s->fd < 0 ? 0 : read(s->fd, data, AV_MIN(max, sizeof(data)));

	if (n > 0) {
		send_frame(w, s->ch, data, (size_t)n);
		return true;
	}
	if (n == 0 || (errno != EAGAIN && errno != EINTR))
		av_close_fd(&s->fd);
	return false;
}

/* What the child wrote before it ended, and no more: whoever it left behind may write for ever. */
static void drain(struct worker *w, struct stream *s)
{
	int left = s->fd < 0 ? 0 : fcntl(s->fd, F_GETPIPE_SZ);

	for (; left > 0 && forward(w, s, AVC_FRAME_MAX); left -= AVC_FRAME_MAX / 16)
		continue;
}

static void watch(struct worker *w, struct stream *streams, int pidfd)
{
	for (;;) {
		struct pollfd p[N_STREAMS + 1] = {{.fd = pidfd, .events = POLLIN}};

		for (size_t i = 0; i < N_STREAMS; i++)
			p[i + 1] = (struct pollfd){.fd = streams[i].fd, .events = POLLIN};
		if (poll(p, N_STREAMS + 1, -1) < 0 && errno != EINTR)
			_exit(1);
		for (size_t i = 0; i < N_STREAMS; i++)
			if (p[i + 1].revents)
				(void)forward(w, &streams[i], AVC_FRAME_MAX);
		if (p[0].revents)
			return;
	}
}

static _Noreturn void supervise(struct worker *w, struct stream *streams, pid_t pid)
{
	struct avc_end e = {.kind = AVC_RETURNED};
	int pidfd = av_pidfd_open(pid), status;
	struct rusage use;

	if (pidfd < 0)
		refuse(w, AVC_WORKER_FAILED, "the sandbox's kernel has no pidfd_open");
	watch(w, streams, pidfd);
	for (size_t i = 0; i < N_STREAMS; i++)
		drain(w, &streams[i]);
	while (wait4(pid, &status, 0, &use) < 0)
		if (errno != EINTR)
			refuse(w, AVC_WORKER_FAILED, strerror(errno));
	e.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : 0;
	e.signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
	e.core_dumped = WIFSIGNALED(status) && WCOREDUMP(status);
	e.cpu_us = (uint64_t)(use.ru_utime.tv_sec + use.ru_stime.tv_sec) * 1000000 +
	           (uint64_t)(use.ru_utime.tv_usec + use.ru_stime.tv_usec);
	e.memory_bytes = (uint64_t)use.ru_maxrss * 1024;
	send_end(w, &e, "");
	_exit(0);
}

/* Pipes for the child: [0] ours, [1] its. */
static int make_pipes(int pipes[N_STREAMS][2])
{
	for (size_t i = 0; i < N_STREAMS; i++) {
		int p[2];

		if (pipe2(p, O_CLOEXEC) < 0)
			return -errno;
		for (size_t k = 0; k < 2; k++) {
			pipes[i][k] = fcntl(p[k], F_DUPFD_CLOEXEC, FIRST_FD);
			close(p[k]);
			if (pipes[i][k] < 0)
				return -errno;
		}
		if (av_set_nonblock(pipes[i][0], true) < 0)
			return -errno;
	}
	return 0;
}

static _Noreturn void start(struct worker *w)
{
	int pipes[N_STREAMS][2] = {{-1, -1}, {-1, -1}, {-1, -1}};
	pid_t supervisor = getpid(), pid;
	int r = make_pipes(pipes);

	pid = r < 0 ? -1 : fork();
	if (pid < 0)
		refuse(w, AVC_WORKER_FAILED, strerror(r < 0 ? -r : errno));
	if (pid == 0) {
		if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 || getppid() != supervisor ||
		    dup2(pipes[0][1], STDOUT_FILENO) < 0 || dup2(pipes[1][1], STDERR_FILENO) < 0)
			_exit(1);
		w->result_fd = pipes[2][1];
		close(w->in);
		close(w->out);
		for (size_t i = 0; i < N_STREAMS; i++) {
			close(pipes[i][0]);
			if (i < 2)
				close(pipes[i][1]);
		}
		be_child(w);
	}
	aviary_bytes_clear(&w->argument);
	for (size_t i = 0; i < N_STREAMS; i++)
		close(pipes[i][1]);
	supervise(w,
	    (struct stream[N_STREAMS]){{pipes[0][0], AVC_PIECE_OUT}, {pipes[1][0], AVC_PIECE_ERR},
	        {pipes[2][0], AVC_PIECE_RESULT}},
	    pid);
}

/* ---- the call ---- */

/* Asks for more where a piece ends. */
static bool read_exactly(struct worker *w, void *p, size_t n)
{
	char *at = p;

	while (n > 0) {
		size_t piece = AV_MIN(n, AVC_INPUT_PIECE - (size_t)(w->read % AVC_INPUT_PIECE));

		if (av_read_full(w->in, at, piece) != (ssize_t)piece)
			return false;
		w->read += piece;
		at += piece;
		n -= piece;
		if (w->read % AVC_INPUT_PIECE == 0)
			send_frame(w, AVC_PIECE_MORE, NULL, 0);
	}
	return true;
}

static void read_call(struct worker *w)
{
	uint8_t head[AVC_HEAD_SIZE];
	void *at;

	if (!read_exactly(w, head, sizeof(head)) || avc_head_read(head, &w->head) < 0 ||
	    !read_exactly(w, w->name, w->head.name_size) ||
	    !read_exactly(w, w->build, w->head.build_size))
		refuse(w, AVC_WORKER_FAILED, "the call did not arrive, or is of another version");
	if (aviary_bytes_grow(&w->argument, w->head.argument_size, &at) < 0)
		refuse(w, AVC_WORKER_FAILED, "there is no memory for the argument");
	if (!read_exactly(w, at, w->head.argument_size))
		refuse(w, AVC_WORKER_FAILED, "the argument did not arrive");
}

static void check_call(struct worker *w)
{
	char build[AVC_BUILD_SIZE];

	avc_build_id(build);
	if (strcmp(build, w->build) != 0)
		refuse(w, AVC_OTHER_BUILD, build);
	w->fn = avc_function_find(w->name, NULL);
	if (!w->fn)
		refuse(w, AVC_NO_FUNCTION, "");
	if (avc_function_layout(w->fn) != w->head.layout)
		refuse(w, AVC_OTHER_TYPES, "");
}

/* The caller has emptied what a template may have set, which is for the template's own loader. */
static void unset_empty(const char *name)
{
	const char *value = getenv(name);

	if (value && !*value)
		(void)unsetenv(name);
}

void aviary_worker_init(int argc, char **argv)
{
	/* Not of whoever starts a set-user-ID program that has remote functions. */
	const char *version = secure_getenv(AVC_WORKER_ENV);
	struct worker w = {0};
	int null;

	(void)argc, (void)argv;
	if (!version)
		return;
	/* What the function starts is no worker. */
	(void)unsetenv(AVC_WORKER_ENV);
	unset_empty("LD_PRELOAD");
	unset_empty("LD_LIBRARY_PATH");
	w.in = fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, FIRST_FD);
	w.out = fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, FIRST_FD);
	null = open("/dev/null", O_RDWR | O_CLOEXEC);
	if (w.in < 0 || w.out < 0 || null < 0 || dup2(null, STDIN_FILENO) < 0)
		_exit(125);
	close(null);
	if (av_write_full(w.out, AVC_WORKER_MAGIC, AVC_MAGIC_SIZE) < 0)
		_exit(125);
	read_call(&w);
	check_call(&w);
	start(&w);
}
