/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sweeper.c - a process that lets mounts go
 */
#include "spawn/sweeper.h"

#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/avtime.h"
#include "base/fd.h"
#include "spawn/mounts.h"
#include "spawn/net.h"
#include "base/banned.h"

struct sweep {
	uint32_t stage;   /* 0: none */
	uint32_t address; /* 0: none */
};

#define FORGET_MAX 256
#define FORGET_MS  1000

struct forgetting {
	uint32_t addresses[FORGET_MAX];
	size_t n;
	int64_t due_ns;
};

static void forget_all(struct forgetting *f)
{
	if (f->n)
		net_forget(f->addresses, f->n);
	f->n = 0;
}

static void forget_later(struct forgetting *f, uint32_t address)
{
	if (f->n == 0)
		f->due_ns = av_mono_ns() + FORGET_MS * AV_NS_PER_MS;
	f->addresses[f->n++] = address;
	if (f->n == FORGET_MAX)
		forget_all(f);
}

/* Until there is a message, or the socket's end. */
static void wait_for_message(struct forgetting *f)
{
	struct pollfd p = {.fd = 3, .events = POLLIN};
	while (f->n) {
		int64_t left = f->due_ns - av_mono_ns();
		if (left > 0 && poll(&p, 1, (int)(left / AV_NS_PER_MS) + 1) != 0)
			return;
		forget_all(f);
	}
}

_Noreturn static void sweep_loop(int sock)
{
	struct sweep m;
	struct forgetting f = {.n = 0};
	int fds[AV_FD_PASS_MAX];
	size_t n;
	/* Its own copy of the worker's descriptors would keep them open; the socket moves to 3. */
	if (dup2(sock, 3) < 0 || close_range(4, ~0u, 0) < 0)
		_exit(1);
	while (wait_for_message(&f), av_recv_fds(3, &m, sizeof(m), fds, &n, 0) == sizeof(m)) {
		for (size_t i = 0; i < n; i++)
			close(fds[i]);
		if (m.stage)
			mounts_unstage(m.stage);
		if (m.address)
			forget_later(&f, m.address);
	}
	forget_all(&f);
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

void sweeper_forget(struct sweeper *s, uint32_t address)
{
	const struct sweep m = {.address = address};
	if (!send_sweep(s, &m, NULL, 0))
		net_forget(&address, 1);
}

void sweeper_unstage(struct sweeper *s, uint32_t stage)
{
	const struct sweep m = {.stage = stage};
	if (!send_sweep(s, &m, NULL, 0))
		mounts_unstage(stage);
}
