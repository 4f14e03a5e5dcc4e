/* SPDX-License-Identifier: Apache-2.0 */
/*
 * port.c - one virtio port on a libuv loop: records as messages
 */
#include "vlink/port.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "vlink/device_internal.h"

#include "base/banned.h"

struct vlink_port {
	struct device dev;
	const struct vlink_port_ops *ops; /* NULL: closed */
	void *ctx;
	bool want_drain;
};

static struct vlink_port *port_of(struct device *d)
{
	return AV_CONTAINER_OF(d, struct vlink_port, dev);
}

static void began(struct vlink_port *p)
{
	if (p->dev.role == AV_VLINK_INSIDE) {
		/* Without memory for the echo nobody answers, and the outside tries again. */
		if (device_echo(&p->dev) < 0) {
			device_forget(&p->dev);
			return;
		}
		device_flush(&p->dev);
	}
	p->ops->on_begin(p->ctx);
}

static void on_input(struct device *d)
{
	struct vlink_port *p = port_of(d);
	enum av_vlink_event e;
	struct av_str payload;

	while (!d->closing && (e = device_next(d, &payload)) != AV_VLINK_NEED_MORE) {
		if (e == AV_VLINK_ON_BEGIN) {
			began(p);
		} else if (e == AV_VLINK_ON_DATA) {
			p->ops->on_record(p->ctx, payload);
		} else {
			device_forget(d);
			p->ops->on_end(p->ctx, e == AV_VLINK_ON_CLOSE ? 0 : -EPROTO);
		}
	}
	if (!d->closing)
		device_want(d, true);
}

static void on_writable(struct device *d)
{
	struct vlink_port *p = port_of(d);

	if (!p->want_drain)
		return;
	p->want_drain = false;
	if (p->ops->on_drain)
		p->ops->on_drain(p->ctx);
}

static void on_late(struct device *d)
{
	port_of(d)->ops->on_end(port_of(d)->ctx, -ETIMEDOUT);
}

static void on_failed(struct device *d, int why)
{
	port_of(d)->ops->on_end(port_of(d)->ctx, why);
}

static void on_closed(struct device *d)
{
	free(port_of(d));
}

static const struct device_hooks hooks = {on_input, on_writable, on_late, on_failed, on_closed};

int vlink_port_open(uv_loop_t *loop, int fd, enum av_vlink_role role,
    const struct vlink_port_ops *ops, void *ctx, struct vlink_port **ret)
{
	struct vlink_port *p = calloc(1, sizeof(*p));
	int r;

	if (!p)
		return -ENOMEM;
	p->ops = ops;
	p->ctx = ctx;
	r = device_open(&p->dev, loop, fd, role, &hooks);
	if (r < 0) {
		free(p);
		return r;
	}
	*ret = p;
	return 0;
}

void vlink_port_close(struct vlink_port *p)
{
	if (p)
		device_close(&p->dev);
}

int vlink_port_begin(struct vlink_port *p, uint64_t timeout_ms)
{
	int r = device_begin(&p->dev, timeout_ms);

	if (r == 0)
		device_flush(&p->dev);
	return r;
}

void vlink_port_end(struct vlink_port *p)
{
	device_end(&p->dev);
	device_flush(&p->dev);
}

bool vlink_port_connected(const struct vlink_port *p)
{
	return device_connected(&p->dev);
}

int vlink_port_send(struct vlink_port *p, struct av_str payload)
{
	uint8_t *dst;
	size_t room;

	assert(payload.n > 0 && payload.n <= AV_VLINK_PAYLOAD_MAX);
	if (p->dev.failed || !device_connected(&p->dev))
		return -ENOTCONN;
	dst = device_room(&p->dev, &room);
	if (!dst)
		return -ENOMEM;
	if (room < payload.n + AV_VLINK_OVERHEAD) {
		p->want_drain = true;
		return -EAGAIN;
	}
	memcpy(dst + AV_VLINK_HEAD, payload.p, payload.n);
	av_vlink_seal(dst, payload.n, AV_VLINK_DATA);
	device_commit(&p->dev, payload.n + AV_VLINK_OVERHEAD);
	device_flush(&p->dev);
	return 0;
}
