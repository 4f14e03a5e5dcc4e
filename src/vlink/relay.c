/* SPDX-License-Identifier: Apache-2.0 */
/*
 * relay.c - a stream socket carried over a virtio port
 *
 * From the stream: one readv puts the bytes where the records will have them, with gaps for their
 * heads and types, and one write sends all of them. To the stream: the payloads of what one read
 * brought go out by one writev, from where they stand. While a payload waits for the stream, or
 * bytes wait for the port, the other side is not read.
 */
#include "vlink/relay.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/fd.h"
#include "vlink/device_internal.h"

#include "base/banned.h"

#define PAYLOADS       64
#define FILLS_PER_TURN 4
/* The stream's other end is gone and the port does not take what came before: so long it may. */
#define LINGER_MS 1000

/* The stream of one connection: apart, as libuv lets go of it later than we do. */
struct stream {
	uv_poll_t poll;
	struct vlink_relay *relay; /* NULL: over */
	int fd;
	int events;
};

struct vlink_relay {
	struct device dev;
	const struct vlink_relay_ops *ops;
	void *ctx;
	uv_timer_t linger;
	bool lingering, linger_closed, dev_closed;
	struct stream *stream;           /* owned; NULL: no connection */
	struct iovec payloads[PAYLOADS]; /* for the stream, in the device's buffer */
	int first, count;
	enum av_vlink_event then; /* comes when they are written; NEED_MORE: nothing */
	uint64_t to_port, from_port;
};

static void on_stream(uv_poll_t *poll, int status, int events);
static void pump(struct vlink_relay *r);

static struct vlink_relay *relay_of(struct device *d)
{
	return AV_CONTAINER_OF(d, struct vlink_relay, dev);
}

/* --- the stream --- */

static void on_stream_closed(uv_handle_t *h)
{
	free(AV_CONTAINER_OF(h, struct stream, poll));
}

static int stream_open(struct vlink_relay *r, int fd)
{
	struct stream *s = calloc(1, sizeof(*s));
	int e;

	if (!s)
		return -ENOMEM;
	*s = (struct stream){.relay = r, .fd = fd};
	e = uv_poll_init(r->dev.poll.loop, &s->poll, fd);
	if (e < 0) {
		free(s);
		return e;
	}
	r->stream = s;
	return 0;
}

/* What waits for it goes with it. */
static void stream_close(struct vlink_relay *r)
{
	struct stream *s = AV_TAKE_PTR(r->stream);

	r->first = r->count = 0;
	r->then = AV_VLINK_NEED_MORE;
	r->lingering = false;
	uv_timer_stop(&r->linger);
	if (!s)
		return;
	s->relay = NULL;
	uv_poll_stop(&s->poll);
	uv_close((uv_handle_t *)&s->poll, on_stream_closed);
	av_close_fd(&s->fd);
}

static void stream_watch(struct vlink_relay *r)
{
	struct stream *s = r->stream;
	int events = 0;

	if (!s)
		return;
	if (!r->dev.out_n)
		events |= UV_READABLE;
	else if (!r->lingering)
		events |= UV_DISCONNECT;
	if (r->first < r->count)
		events |= UV_WRITABLE;
	if (events == s->events)
		return;
	s->events = events;
	if (events)
		uv_poll_start(&s->poll, events, on_stream);
	else
		uv_poll_stop(&s->poll);
}

/* Nothing of the connection is held any more. The next RESET may have been read already. */
static void release(struct vlink_relay *r)
{
	stream_close(r);
	device_want(&r->dev, true);
	device_look_again(&r->dev);
}

/* The connection is over for us; the relay is free for another. Called from the loop only. */
static void finish(struct vlink_relay *r, int why)
{
	release(r);
	if (r->dev.role == AV_VLINK_OUTSIDE && r->ops->on_idle)
		r->ops->on_idle(r->ctx, r, why);
}

/* Our socket ended: the other side is told behind what it was sent. */
static void stream_ended(struct vlink_relay *r)
{
	device_end(&r->dev);
	device_flush(&r->dev);
	finish(r, 0);
}

static void on_linger(uv_timer_t *timer)
{
	stream_ended(timer->data);
}

/* --- from the stream to the port --- */

/* readv into the places of the payloads of up to DEVICE_RECORDS records. */
static ssize_t read_payloads(int fd, uint8_t *p, size_t room)
{
	struct iovec iov[DEVICE_RECORDS];
	size_t i;

	for (i = 0; i < DEVICE_RECORDS && room > AV_VLINK_OVERHEAD; i++) {
		size_t n = AV_MIN(room - AV_VLINK_OVERHEAD, AV_VLINK_PAYLOAD_MAX);

		iov[i] = (struct iovec){.iov_base = p + AV_VLINK_HEAD, .iov_len = n};
		p += n + AV_VLINK_OVERHEAD;
		room -= n + AV_VLINK_OVERHEAD;
	}
	return readv(fd, iov, (int)i);
}

/* n payload bytes were read by read_payloads: makes records of them. Returns the bytes of those. */
static size_t seal_payloads(uint8_t *p, size_t n)
{
	size_t done = 0;

	while (n) {
		size_t k = AV_MIN(n, AV_VLINK_PAYLOAD_MAX);

		av_vlink_seal(p + done, k, AV_VLINK_DATA);
		done += k + AV_VLINK_OVERHEAD;
		n -= k;
	}
	return done;
}

/* Fills the port's buffer. > 0: bytes; 0: the stream's end; -errno. */
static ssize_t fill(struct vlink_relay *r)
{
	size_t room;
	uint8_t *p = device_room(&r->dev, &room);
	ssize_t n;

	if (!p)
		return -EAGAIN;
	n = read_payloads(r->stream->fd, p, room);
	if (n < 0)
		return errno == EINTR ? -EAGAIN : -errno;
	if (n == 0)
		return 0;
	device_commit(&r->dev, seal_payloads(p, (size_t)n));
	r->to_port += (uint64_t)n;
	return n;
}

static void from_stream(struct vlink_relay *r)
{
	ssize_t n;

	for (int i = 0; i < FILLS_PER_TURN && !r->dev.out_n; i++) {
		n = fill(r);
		if (n == -EAGAIN)
			break;
		if (n <= 0) {
			stream_ended(r);
			return;
		}
		device_flush(&r->dev);
		if ((size_t)n < VLINK_BUFFER)
			break;
	}
	stream_watch(r);
}

/* --- from the port to the stream --- */

/* Writes the payloads that wait. 1: all of them; 0: the stream takes no more; -errno: it is over.
 */
static int write_payloads(struct vlink_relay *r)
{
	ssize_t n;

	while (r->first < r->count) {
		struct msghdr m = {
		    .msg_iov = r->payloads + r->first, .msg_iovlen = (size_t)(r->count - r->first)};

		n = sendmsg(r->stream->fd, &m, MSG_NOSIGNAL);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return errno == EAGAIN ? 0 : -errno;
		r->from_port += (uint64_t)n;
		for (size_t left = (size_t)n; left;) {
			struct iovec *v = &r->payloads[r->first];
			size_t k = AV_MIN(left, v->iov_len);

			v->iov_base = (char *)v->iov_base + k;
			v->iov_len -= k;
			left -= k;
			r->first += v->iov_len == 0;
		}
	}
	r->first = r->count = 0;
	return 1;
}

/* Takes payloads from the device, up to what is something else. */
static void gather(struct vlink_relay *r)
{
	struct av_str payload;
	enum av_vlink_event e;

	while (r->count < PAYLOADS) {
		e = device_next(&r->dev, &payload);
		if (e != AV_VLINK_ON_DATA) {
			r->then = e;
			return;
		}
		/* Nobody reads it when our socket ended just now. */
		if (!r->stream)
			continue;
		r->payloads[r->count++] =
		    (struct iovec){.iov_base = (void *)(uintptr_t)payload.p, .iov_len = payload.n};
	}
}

/* Inside: a pair of sockets for the connection that began. When that cannot be it ends at once. */
static void begin_inside(struct vlink_relay *r)
{
	int fds[2] = {-1, -1};
	int e = device_echo(&r->dev);

	if (e < 0) {
		device_forget(&r->dev);
		return;
	}
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds) < 0)
		e = -errno;
	if (e == 0)
		e = stream_open(r, fds[0]);
	if (e < 0) {
		av_close_fd(&fds[0]);
		av_close_fd(&fds[1]);
		device_end(&r->dev);
	}
	device_flush(&r->dev);
	stream_watch(r);
	if (e == 0)
		r->ops->on_connection(r->ctx, fds[1]);
}

static void carry_out(struct vlink_relay *r, enum av_vlink_event e)
{
	if (e == AV_VLINK_ON_BEGIN) {
		if (r->dev.role == AV_VLINK_INSIDE) {
			stream_close(r);
			begin_inside(r);
		}
		return;
	}
	device_forget(&r->dev);
	if (r->stream)
		finish(r, e == AV_VLINK_ON_CLOSE ? 0 : -EPROTO);
}

/* Moves on until the device has nothing more, or the stream takes nothing more. */
static void pump(struct vlink_relay *r)
{
	enum av_vlink_event e;
	int w;

	while (!r->dev.closing) {
		w = r->stream ? write_payloads(r) : 1;
		if (w < 0) {
			stream_ended(r);
			continue;
		}
		if (w == 0) {
			device_want(&r->dev, false);
			break;
		}
		e = r->then;
		r->then = AV_VLINK_NEED_MORE;
		if (e != AV_VLINK_NEED_MORE) {
			carry_out(r, e);
			continue;
		}
		gather(r);
		if (!r->count && r->then == AV_VLINK_NEED_MORE) {
			device_want(&r->dev, true);
			break;
		}
	}
	if (!r->dev.closing)
		stream_watch(r);
}

/* --- events --- */

static void on_stream(uv_poll_t *poll, int status, int events)
{
	struct stream *s = AV_CONTAINER_OF(poll, struct stream, poll);
	struct vlink_relay *r = s->relay;

	if (!r)
		return;
	if (status < 0) {
		stream_ended(r);
		return;
	}
	if (events & UV_WRITABLE && r->first < r->count)
		pump(r);
	if (s->relay && events & UV_READABLE && !r->dev.out_n)
		from_stream(r);
	else if (s->relay && events & UV_DISCONNECT && r->dev.out_n && !r->lingering) {
		r->lingering = true;
		uv_timer_start(&r->linger, on_linger, LINGER_MS, 0);
		stream_watch(r);
	}
}

static void on_input(struct device *d)
{
	pump(relay_of(d));
}

static void on_writable(struct device *d)
{
	struct vlink_relay *r = relay_of(d);

	/* It moves: the time begins anew. */
	if (r->lingering)
		uv_timer_start(&r->linger, on_linger, LINGER_MS, 0);
	stream_watch(r);
}

static void on_late(struct device *d)
{
	finish(relay_of(d), -ETIMEDOUT);
}

static void on_failed(struct device *d, int why)
{
	struct vlink_relay *r = relay_of(d);

	stream_close(r);
	if (r->ops->on_gone)
		r->ops->on_gone(r->ctx, r, why);
}

static void free_when_closed(struct vlink_relay *r)
{
	if (r->dev_closed && r->linger_closed)
		free(r);
}

static void on_device_closed(struct device *d)
{
	relay_of(d)->dev_closed = true;
	free_when_closed(relay_of(d));
}

static void on_linger_closed(uv_handle_t *h)
{
	struct vlink_relay *r = h->data;

	r->linger_closed = true;
	free_when_closed(r);
}

static const struct device_hooks hooks = {
    on_input, on_writable, on_late, on_failed, on_device_closed};

int vlink_relay_open(uv_loop_t *loop, int port_fd, enum av_vlink_role role,
    const struct vlink_relay_ops *ops, void *ctx, struct vlink_relay **ret)
{
	struct vlink_relay *r = calloc(1, sizeof(*r));
	int e;

	if (!r)
		return -ENOMEM;
	r->ops = ops;
	r->ctx = ctx;
	e = device_open(&r->dev, loop, port_fd, role, &hooks);
	if (e < 0) {
		free(r);
		return e;
	}
	uv_timer_init(loop, &r->linger);
	r->linger.data = r;
	*ret = r;
	return 0;
}

void vlink_relay_close(struct vlink_relay *r)
{
	if (!r || r->dev.closing)
		return;
	stream_close(r);
	uv_close((uv_handle_t *)&r->linger, on_linger_closed);
	device_close(&r->dev);
}

int vlink_relay_connect(struct vlink_relay *r, int stream_fd, uint64_t timeout_ms)
{
	int e;

	assert(r->dev.role == AV_VLINK_OUTSIDE);
	if (r->stream)
		return -EBUSY;
	e = av_set_nonblock(stream_fd, true);
	if (e == 0)
		e = av_set_cloexec(stream_fd, true);
	if (e == 0)
		e = stream_open(r, stream_fd);
	if (e < 0)
		return e;
	e = device_begin(&r->dev, timeout_ms);
	if (e < 0) {
		r->stream->fd = -1;
		stream_close(r);
		return e;
	}
	device_want(&r->dev, true);
	/* Who connects has something to say, as a rule: it goes with the RESET. Its end, or an
	 * error, is found by the loop. */
	(void)fill(r);
	device_flush(&r->dev);
	stream_watch(r);
	return 0;
}

void vlink_relay_drop(struct vlink_relay *r)
{
	if (!device_connected(&r->dev) && !r->stream)
		return;
	device_end(&r->dev);
	device_flush(&r->dev);
	release(r);
}

bool vlink_relay_busy(const struct vlink_relay *r)
{
	return r->stream != NULL;
}

void vlink_relay_counts(const struct vlink_relay *r, uint64_t *ret_to_port, uint64_t *ret_from_port)
{
	*ret_to_port = r->to_port;
	*ret_from_port = r->from_port;
}
