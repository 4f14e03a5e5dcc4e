/* SPDX-License-Identifier: Apache-2.0 */
/*
 * attack.h - what the escape programs share
 *
 * Each program is uploaded into a sandbox and tries there, as its root, what an attacker would; a
 * check is "ok" when the attempt failed as it must. Among the first arguments `noseccomp` says that
 * the system call filter is off: what is refused then must be refused by something else; `vm` that
 * the place is that of a QEMU (t53_vm_jail.c), where less is there and less is allowed.
 */
#pragma once

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/tap.h"

static bool attack_seccomp_off_, attack_in_vm_;

__attribute__((unused)) static void attack_init(int argc, char **argv)
{
	for (int i = 1; i < argc && i <= 2; i++) {
		attack_seccomp_off_ |= strcmp(argv[i], "noseccomp") == 0;
		attack_in_vm_ |= strcmp(argv[i], "vm") == 0;
	}
}

/* A raw system call must fail, and not because it is unknown to the test: r is its result. */
__attribute__((unused)) static bool attack_refused_(
    long r, int eno, const char *what, const char *file, int line)
{
	bool good = tap_check_(r < 0, file, line, "%s is refused", what);
	if (good)
		printf("#   %s\n", strerror(eno));
	else
		printf("#   it returned %ld\n", r);
	return good;
}
#define refused(call, what)                                                                        \
	({                                                                                         \
		errno = 0;                                                                         \
		long r_ = (long)(call);                                                            \
		attack_refused_(r_, errno, (what), __FILE__, __LINE__);                            \
	})
/* Refused with EPERM, EACCES or ENOSYS: by policy, not because an argument was wrong. */
#define denied(call, what)                                                                         \
	({                                                                                         \
		errno = 0;                                                                         \
		long r_ = (long)(call);                                                            \
		int e_ = errno;                                                                    \
		bool g_ = tap_check_(r_ < 0 && (e_ == EPERM || e_ == EACCES || e_ == ENOSYS),      \
		    __FILE__, __LINE__, "%s is denied", (what));                                   \
		if (!g_)                                                                           \
			printf("#   returned %ld, errno %d (%s)\n", r_, e_, strerror(e_));         \
		g_;                                                                                \
	})

/* The file cannot be opened with these flags. */
__attribute__((unused)) static void cannot_open(const char *path, int flags)
{
	int fd = open(path, flags | O_CLOEXEC | O_NONBLOCK);
	ok(fd < 0, "%s cannot be opened (%s)", path,
	    (flags & O_ACCMODE) == O_RDONLY ? "reading" : "writing");
	if (fd >= 0)
		close(fd);
	else
		printf("#   %s\n", strerror(errno));
}

/* Either it cannot be opened, or nothing comes out, or nothing can be written. */
__attribute__((unused)) static void yields_nothing(const char *path)
{
	char byte[16];
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	ssize_t n = fd < 0 ? -1 : read(fd, byte, sizeof(byte));
	ok(n <= 0, "%s yields nothing", path);
	if (fd >= 0)
		close(fd);
}

/* Runs fn in a child; returns its wait status. */
__attribute__((unused)) static int in_child(int (*fn)(void))
{
	fflush(stdout);
	pid_t pid = fork();
	if (pid == 0)
		_exit(fn());
	int status = -1;
	waitpid(pid, &status, 0);
	return status;
}
