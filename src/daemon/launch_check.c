/* SPDX-License-Identifier: Apache-2.0 */
/*
 * launch_check.c - whether aviary-spawn takes its options, before it becomes this process
 *
 * What disks, networks and control groups are called is aviary-spawn's to know. It would refuse a
 * wrong value too late for a message with the line of the file.
 */
#include "daemon/launch.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/path.h"
#include "base/banned.h"

#define WAIT_MS 10000

/* Puts the place of the option that the message names before it. */
static void add_origin(const struct daemon_config *c, struct av_err *err)
{
	const char *flag = strstr(err->message, "--");
	size_t n = flag ? strcspn(flag + 2, ": =") : 0;

	for (int i = 0; i < DAEMON_OPT_COUNT && flag; i++) {
		const char *name = daemon_opt_name((enum daemon_opt)i), *from = c->origin[i];

		if (strlen(name) == n && strncmp(flag + 2, name, n) == 0 && from &&
		    strncmp(from, "--", 2) != 0) {
			av_err_prefix(err, "%s", from);
			return;
		}
	}
}

/* What it writes on standard error, until it ends or the time is over. */
static void collect(int fd, char *text, size_t size)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};
	size_t n = 0;
	ssize_t got = 1;

	while (got > 0 && n + 1 < size && poll(&p, 1, WAIT_MS) > 0) {
		got = read(fd, text + n, size - 1 - n);
		n += got > 0 ? (size_t)got : 0;
	}
	text[n] = '\0';
	text[strcspn(text, "\n")] = '\0';
}

static int start(const char *program, char *const *argv, int err_fd, pid_t *ret_pid)
{
	posix_spawn_file_actions_t actions;
	int r = posix_spawn_file_actions_init(&actions);

	if (r != 0)
		return -r;
	r = posix_spawn_file_actions_adddup2(&actions, err_fd, STDERR_FILENO);
	if (r == 0)
		r = posix_spawn(ret_pid, program, &actions, NULL, argv, environ);
	(void)posix_spawn_file_actions_destroy(&actions);
	return -r;
}

static int ask(const char *program, char *const *argv, struct av_err *err)
{
	static const char prefix[] = "aviary-spawn: ";
	char text[sizeof(err->message)] = "";
	int p[2], status, r;
	pid_t pid = -1;

	if (pipe2(p, O_CLOEXEC) < 0)
		return av_err_sys(err, AV_ERR_INTERNAL, errno, "cannot make a pipe");
	r = start(program, argv, p[1], &pid);
	(void)close(p[1]);
	if (r == 0 && pid > 0) {
		collect(p[0], text, sizeof text);
		(void)kill(pid, SIGKILL); /* it has said all, or does not end */
		r = waitpid(pid, &status, 0) < 0 ? -errno : 0;
	}
	(void)close(p[0]);
	if (r < 0)
		return av_err_sys(err, AV_ERR_INTERNAL, r, "cannot start %s", program);
	if (text[0] == '\0')
		return 0;
	return av_err_set(err, AV_ERR_INVALID, "%s",
	    strncmp(text, prefix, strlen(prefix)) == 0 ? text + strlen(prefix) : text);
}

int daemon_launch_check(const struct daemon_config *c, struct av_err *err)
{
	char self[AV_PATH_MAX + 1], spawn[AV_PATH_MAX + 1], check[] = "--check";
	struct daemon_user user;
	char **argv = NULL, **with;
	size_t n = 0;
	int r;

	if ((r = daemon_launch_programs(c, spawn, self, err)) < 0 ||
	    (r = daemon_find_user(c, &user, err)) < 0 ||
	    (r = daemon_launch_argv(c, &user, spawn, self, &argv, err)) < 0) {
		add_origin(c, err);
		return r;
	}
	while (argv[n])
		n++;
	with = calloc(n + 2, sizeof *with);
	if (with) {
		with[0] = argv[0];
		with[1] = check;
		memcpy(with + 2, argv + 1, n * sizeof *with);
	}
	r = with ? ask(spawn, with, err) : av_err_set(err, AV_ERR_NO_MEMORY, "out of memory");
	free(with);
	daemon_launch_argv_free(argv);
	if (r < 0)
		add_origin(c, err);
	return r;
}
