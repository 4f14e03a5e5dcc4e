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

#include "shell.h"

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
			shell_run(c, 2);
		close(c);
	}
}
