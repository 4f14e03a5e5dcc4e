/* SPDX-License-Identifier: Apache-2.0 */
/*
 * unpack.c - the whole of a file, decompressed by this machine's xz, zstd or gzip
 */
#include "vm/unpack.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/avtime.h"
#include "base/fd.h"

#include "base/banned.h"

#define CHUNK         ((size_t)64 * 1024)
#define EXIT_NO_START 126

static const struct {
	const char *name;
	const char *paths[3];
} programs[] = {
    [UNPACK_XZ] = {"xz", {"/usr/bin/xz", "/bin/xz", NULL}},
    [UNPACK_ZSTD] = {"zstd", {"/usr/bin/zstd", "/bin/zstd", NULL}},
    [UNPACK_GZIP] = {"gzip", {"/usr/bin/gzip", "/bin/gzip", NULL}},
};

/* Async-signal-safe only, as the caller may have threads after all. */
_Noreturn static void run_child(enum unpack_format format, int in, int out)
{
	static char options[] = "-dc";
	char name[8] = "", *const argv[] = {name, options, NULL}, *const envp[] = {NULL};
	int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
	sigset_t none;

	memcpy(name, programs[format].name, strlen(programs[format].name));

	sigemptyset(&none);
	if (sigprocmask(SIG_SETMASK, &none, NULL) < 0 || dup2(in, 0) < 0 || dup2(out, 1) < 0 ||
	    (null >= 0 && dup2(null, 2) < 0) || av_close_range_from(3) < 0)
		_exit(EXIT_NO_START);
	for (size_t i = 0; programs[format].paths[i]; i++)
		execve(programs[format].paths[i], argv, envp);
	_exit(EXIT_NO_START);
}

static int too_large(const struct av_buf *out, struct av_err *err)
{
	return av_err_set(
	    err, AV_ERR_TOO_LARGE, "larger than %zu KiB when unpacked", out->max >> 10);
}

static int64_t now_ms(void)
{
	return av_mono_ns() / 1000000;
}

/* Until end of file or the deadline (now_ms; -1: none). */
static int read_all(int fd, struct av_buf *out, int64_t deadline_ms, struct av_err *err)
{
	for (;;) {
		struct pollfd p = {.fd = fd, .events = POLLIN};
		size_t room = AV_MIN(CHUNK, out->max - out->n);
		int64_t left = deadline_ms < 0 ? 0 : deadline_ms - now_ms();
		char *dst, one;
		ssize_t n;

		if (deadline_ms >= 0 && (left <= 0 || poll(&p, 1, (int)left) == 0))
			return av_err_set(err, AV_ERR_EXEC_TIMEOUT, "unpacking took more than %d s",
			    UNPACK_SECONDS);
		if (room && av_buf_reserve(out, room, &dst) < 0)
			return av_err_set(err, AV_ERR_NO_MEMORY, "out of memory");
		n = room ? read(fd, dst, room) : read(fd, &one, 1);
		if (n < 0 && (errno == EINTR || errno == EAGAIN))
			continue;
		if (n < 0)
			return av_err_sys(err, AV_ERR_INTERNAL, errno, "cannot be read");
		if (n == 0)
			return 0;
		if (!room)
			return too_large(out, err);
		av_buf_commit(out, (size_t)n);
	}
}

static int reap(pid_t pid, int pidfd, bool kill_it)
{
	int status = 0;

	if (kill_it)
		av_pidfd_send_signal(pidfd, SIGKILL);
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return -1;
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static int unpack_by_program(
    int fd, enum unpack_format format, struct av_buf *out, struct av_err *err)
{
	AV_CLEANUP(av_closep) int from = -1, to = -1, pidfd = -1;
	int pipefd[2], r, status;
	pid_t pid;

	if (pipe2(pipefd, O_CLOEXEC) < 0)
		return av_err_sys(err, AV_ERR_INTERNAL, errno, "cannot make a pipe");
	from = pipefd[0];
	to = pipefd[1];
	pid = fork();
	if (pid == 0)
		run_child(format, fd, to);
	if (pid < 0)
		return av_err_sys(
		    err, AV_ERR_INTERNAL, errno, "cannot start %s", programs[format].name);
	pidfd = av_pidfd_open(pid);
	av_close_fd(&to);
	r = read_all(from, out, now_ms() + UNPACK_SECONDS * 1000, err);
	status = reap(pid, pidfd, r < 0);
	if (r < 0)
		return r;
	if (status == EXIT_NO_START)
		return av_err_set(err, AV_ERR_NOT_FOUND,
		    "compressed by %s, which this machine does not have: install it",
		    programs[format].name);
	if (status != 0)
		return av_err_set(
		    err, AV_ERR_INVALID, "%s cannot unpack it", programs[format].name);
	return 0;
}

int unpack(int fd, enum unpack_format format, struct av_buf *out, struct av_err *err)
{
	if (format == UNPACK_PLAIN)
		return read_all(fd, out, -1, err);
	return unpack_by_program(fd, format, out, err);
}
