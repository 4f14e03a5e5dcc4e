/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sweeper.c - a process that lets mounts go
 */
#include "spawn/sweeper.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/fd.h"
#include "spawn/mounts.h"
#include "base/banned.h"

struct sweep {
	uint32_t stage; /* 0: none */
};

_Noreturn static void sweep_loop(int sock)
{
	struct sweep m;
	int fds[AV_FD_PASS_MAX];
	size_t n;
	/* Its own copy of the worker's descriptors would keep them open; the socket moves to 3. */
	if (dup2(sock, 3) < 0 || close_range(4, ~0u, 0) < 0)
		_exit(1);
	while (av_recv_fds(3, &m, sizeof(m), fds, &n, 0) == sizeof(m)) {
		for (size_t i = 0; i < n; i++)
			close(fds[i]);
		if (m.stage)
			mounts_unstage(m.stage);
	}
	_exit(0);
}

int sweeper_start(struct sweeper *s)
{
	int sv[2];
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sv) < 0)
		return -errno;
	pid_t pid = fork();
	if (pid == 0)
		sweep_loop(sv[1]);
	close(sv[1]);
	if (pid < 0) {
		int r = -errno;
		close(sv[0]);
		return r;
	}
	s->sock = sv[0];
	return 0;
}

void sweeper_stop(struct sweeper *s)
{
	av_close_fd(&s->sock);
}

/* False when it must be done here: no sweeper, or it has too much to do. */
static bool send_sweep(struct sweeper *s, const struct sweep *m, const int *fds, size_t n)
{
	return s->sock >= 0 &&
	       av_send_fds(s->sock, m, sizeof(*m), fds, n, MSG_NOSIGNAL | MSG_DONTWAIT) >= 0;
}

void sweeper_close(struct sweeper *s, int *fds, size_t n)
{
	const struct sweep m = {0};
	for (size_t i = 0; i < n; i += AV_FD_PASS_MAX)
		send_sweep(s, &m, fds + i, AV_MIN(n - i, (size_t)AV_FD_PASS_MAX));
	/* The last reference goes here or there, whoever is later. */
	for (size_t i = 0; i < n; i++)
		close(fds[i]);
}

void sweeper_unstage(struct sweeper *s, uint32_t stage)
{
	const struct sweep m = {.stage = stage};
	if (!send_sweep(s, &m, NULL, 0))
		mounts_unstage(stage);
}
