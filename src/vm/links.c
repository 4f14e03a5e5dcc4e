/* SPDX-License-Identifier: Apache-2.0 */
/*
 * links.c - connections to agent.sock, each carried to the guest's agent over a link of its own
 */
#include "vm/links.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>

#include "base/fd.h"
#include "vlink/relay.h"

#include "base/banned.h"

/* For the guest's agent to answer the reset of its link: a guest that is busy on a slow machine. */
#define ANSWER_MS 20000

struct links {
	uv_poll_t poll;
	int listener;
	bool running, watching;
	struct vlink_relay *relays[AV_GUEST_LINKS];
};

static void watch(struct links *l);

static struct vlink_relay *free_relay(struct links *l)
{
	for (int i = 0; i < AV_GUEST_LINKS; i++)
		if (l->relays[i] && !vlink_relay_busy(l->relays[i]))
			return l->relays[i];
	return NULL;
}

static void on_idle(void *ctx, struct vlink_relay *r, int why)
{
	(void)r;
	(void)why;
	watch(ctx);
}

static void on_gone(void *ctx, struct vlink_relay *r, int why)
{
	struct links *l = ctx;

	(void)why;
	for (int i = 0; i < AV_GUEST_LINKS; i++)
		if (l->relays[i] == r)
			l->relays[i] = NULL;
	vlink_relay_close(r);
	watch(l);
}

static const struct vlink_relay_ops relay_ops = {.on_idle = on_idle, .on_gone = on_gone};

static void on_listener(uv_poll_t *poll, int status, int events)
{
	struct links *l = poll->data;
	struct vlink_relay *r = free_relay(l);
	int fd;

	(void)status;
	(void)events;
	if (r && l->running) {
		fd = accept4(l->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
		if (fd >= 0 && vlink_relay_connect(r, fd, ANSWER_MS) < 0)
			av_close_fd(&fd);
	}
	watch(l);
}

static void watch(struct links *l)
{
	bool want = l->running && free_relay(l);

	if (want && !l->watching)
		uv_poll_start(&l->poll, UV_READABLE, on_listener);
	else if (!want && l->watching)
		uv_poll_stop(&l->poll);
	l->watching = want;
}

int links_new(uv_loop_t *loop, int listener, struct links **ret)
{
	struct links *l = calloc(1, sizeof(*l));
	int r = l ? av_set_nonblock(listener, true) : -ENOMEM;

	if (r == 0)
		r = uv_poll_init(loop, &l->poll, listener);
	if (r < 0) {
		free(l);
		return r;
	}
	l->poll.data = l;
	l->listener = listener;
	*ret = l;
	return 0;
}

int links_open(struct links *l, const int fds[static AV_GUEST_LINKS])
{
	int r = 0;

	links_shut(l);
	for (int i = 0; i < AV_GUEST_LINKS; i++) {
		int fd = fds[i];

		if (r == 0)
			r = vlink_relay_open(
			    l->poll.loop, fd, AV_VLINK_OUTSIDE, &relay_ops, l, &l->relays[i]);
		if (r < 0)
			av_close_fd(&fd);
	}
	watch(l);
	return r;
}

void links_run(struct links *l, bool on)
{
	l->running = on;
	watch(l);
}

void links_shut(struct links *l)
{
	for (int i = 0; i < AV_GUEST_LINKS; i++) {
		vlink_relay_close(l->relays[i]);
		l->relays[i] = NULL;
	}
	watch(l);
}
