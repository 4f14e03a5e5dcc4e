/* SPDX-License-Identifier: Apache-2.0 */
/*
 * stub_agent.c - stands in for aviary-agent where a test is about aviary-spawn only
 *
 * PID 1 of a jail: reaps, and gives every connection to its socket a shell. Static and without
 * dependencies, so that what such a test measures is the jail.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

static void run_shell(int c)
{
	char sh[] = "sh", path[] = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin";
	char *argv[] = {sh, NULL}, *envp[] = {path, NULL};
	signal(SIGCHLD, SIG_DFL);
	for (int fd = 0; fd <= 2; fd++)
		dup2(c, fd);
	close_range(3, ~0u, 0);
	execve("/usr/bin/sh", argv, envp);
	_exit(127);
}

int main(void)
{
	prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
	signal(SIGCHLD, SIG_IGN);
	for (;;) {
		/* The listener is non-blocking, as the real agent wants it. */
		struct pollfd p = {.fd = 3, .events = POLLIN};
		poll(&p, 1, -1);
		int c = accept4(3, NULL, NULL, SOCK_CLOEXEC);
		if (c < 0)
			continue;
		if (fork() == 0)
			run_shell(c);
		close(c);
	}
}
