/* SPDX-License-Identifier: Apache-2.0 */
/* shell.h - what the first processes of these tests' jails have in common */
#pragma once

#include <signal.h>
#include <unistd.h>

/* In a child: a shell that talks over c and keeps the descriptors up to last. Does not return. */
static inline void shell_run(int c, unsigned last)
{
	char sh[] = "sh", path[] = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin";
	char *argv[] = {sh, NULL}, *envp[] = {path, NULL};

	signal(SIGCHLD, SIG_DFL);
	for (int fd = 0; fd <= 2; fd++)
		dup2(c, fd);
	close_range(last + 1, ~0u, 0);
	execve("/usr/bin/sh", argv, envp);
	_exit(127);
}
