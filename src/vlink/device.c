/* SPDX-License-Identifier: Apache-2.0 */
/*
 * device.c - descriptor, buffers and codec of one port
 */
#include "vlink/device_internal.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/ids.h"

#include "base/banned.h"

#define READS_PER_TURN 4
#define AGAIN_MS       50
/* What the guest's driver gives for one read: its buffers are pages. */
#define CHAR_PIECE  ((size_t)4096)
#define CHAR_PIECES 20

static void on_poll(uv_poll_t *poll, int status, int events);

/* --- what is waited for --- */

static void watch(struct device *d)
{
	bool idle = d->role == AV_VLINK_OUTSIDE && !device_connected(d);
	int events = 0;

	if (d->closing || d->failed)
		return;
	if (d->wanted && !idle)
		events |= UV_READABLE;
	else if (!d->is_char)
		events |= UV_DISCONNECT;
	if (d->blocked)
		events |= UV_WRITABLE;
	if (d->away)
		events = 0;
	if (events == d->events)
		return;
	d->events = events;
	if (events)
		uv_poll_start(&d->poll, events, on_poll);
	else
		uv_poll_stop(&d->poll);
}

static void on_again(uv_timer_t *timer)
{
	struct device *d = timer->data;
	struct pollfd p = {.fd = d->fd, .events = POLLIN | POLLOUT};

	if (d->failed) {
		d->hooks->on_failed(d, d->failed);
		return;
	}
	if (d->look && d->wanted) {
		d->look = false;
		d->hooks->on_input(d);
		if (d->closing || d->failed)
			return;
	}
	if (!d->away)
		return;
	if (poll(&p, 1, 0) == 1 && (p.revents & POLLHUP) && !(p.revents & POLLIN)) {
		uv_timer_start(&d->again, on_again, AGAIN_MS, 0);
		return;
	}
	d->away = false;
	watch(d);
}

void device_look_again(struct device *d)
{
	if (!d->in_n || d->failed || d->closing)
		return;
	d->look = true;
	uv_timer_start(&d->again, on_again, 0, 0);
}

static void go_away(struct device *d)
{
	d->away = true;
	uv_timer_start(&d->again, on_again, AGAIN_MS, 0);
	watch(d);
}

/* Told from the loop, so that nobody is called back from within a call. */
static void fail(struct device *d, int why)
{
	if (d->failed || d->closing)
		return;
	d->failed = why;
	d->events = 0;
	uv_poll_stop(&d->poll);
	uv_timer_stop(&d->echo);
	uv_timer_start(&d->again, on_again, 0, 0);
}

/* --- buffers --- */

static bool make_buffer(uint8_t **p, size_t size)
{
	if (!*p)
		*p = malloc(size);
	return *p != NULL;
}

static void drop_out(struct device *d)
{
	if (!d->out_n && !device_connected(d))
		free(AV_TAKE_PTR(d->out_p));
}

/* Only where no callback can hold a payload, and the user says that it holds none. */
static void drop_in(struct device *d)
{
	if (!d->in_n && d->wanted && !device_connected(d))
		free(AV_TAKE_PTR(d->in_p));
}

uint8_t *device_room(struct device *d, size_t *ret_n)
{
	if (!make_buffer(&d->out_p, DEVICE_OUT_SIZE))
		return NULL;
	if (!d->out_n)
		d->out_off = 0;
	*ret_n = DEVICE_OUT_SIZE - d->out_off - d->out_n;
	*ret_n -= AV_MIN(*ret_n, AV_VLINK_OVERHEAD);
	return d->out_p + d->out_off + d->out_n;
}

void device_commit(struct device *d, size_t n)
{
	assert(d->out_off + d->out_n + n <= DEVICE_OUT_SIZE);
	d->out_n += n;
}

static ssize_t write_some(struct device *d, const void *p, size_t n)
{
	return d->is_char ? write(d->fd, p, n) : send(d->fd, p, n, MSG_NOSIGNAL);
}

void device_flush(struct device *d)
{
	ssize_t n;

	while (d->out_n && !d->failed && !d->closing && !d->blocked) {
		n = write_some(d, d->out_p + d->out_off, d->out_n);
		if (n > 0) {
			d->out_off += (size_t)n;
			d->out_n -= (size_t)n;
		} else if (n == 0 || errno == EAGAIN) {
			d->blocked = true;
		} else if (errno != EINTR) {
			fail(d, -errno);
		}
	}
	drop_out(d);
	watch(d);
}

/* --- connections --- */

static void on_echo_timer(uv_timer_t *timer)
{
	struct device *d = timer->data;

	if (d->in.state != AV_VLINK_WAITING)
		return;
	device_forget(d);
	d->hooks->on_late(d);
}

int device_begin(struct device *d, uint64_t timeout_ms)
{
	uint8_t nonce[AV_VLINK_NONCE_SIZE];

	if (d->failed)
		return d->failed;
	if (!make_buffer(&d->out_p, DEVICE_OUT_SIZE))
		return -ENOMEM;
	av_random(nonce, sizeof(nonce));
	av_vlink_put_reset(d->out_p, nonce);
	d->out_off = 0;
	d->out_n = AV_VLINK_RESET_SIZE;
	/* What was read of the connection before is discarded with the rest of it. */
	av_vlink_in_begin(&d->in, nonce);
	uv_timer_start(&d->echo, on_echo_timer, timeout_ms, 0);
	watch(d);
	return 0;
}

int device_echo(struct device *d)
{
	if (!make_buffer(&d->out_p, DEVICE_OUT_SIZE))
		return -ENOMEM;
	av_vlink_put_echo(d->out_p, d->in.nonce);
	d->out_off = 0;
	d->out_n = AV_VLINK_ECHO_SIZE;
	return 0;
}

static void disconnect(struct device *d)
{
	av_vlink_in_end(&d->in);
	uv_timer_stop(&d->echo);
	if (d->role == AV_VLINK_OUTSIDE)
		d->in_n = 0;
	drop_out(d);
	watch(d);
}

void device_forget(struct device *d)
{
	d->out_n = 0;
	disconnect(d);
}

void device_end(struct device *d)
{
	if (!device_connected(d))
		return;
	if (d->out_p) {
		if (!d->out_n)
			d->out_off = 0;
		av_vlink_seal(d->out_p + d->out_off + d->out_n, 0, AV_VLINK_CLOSE);
		device_commit(d, AV_VLINK_OVERHEAD);
	}
	disconnect(d);
}

/* --- reading --- */

void device_want(struct device *d, bool wanted)
{
	d->wanted = wanted;
	watch(d);
}

enum av_vlink_event device_next(struct device *d, struct av_str *ret_payload)
{
	struct av_str bytes = {.p = (const char *)d->in_p + d->in_off, .n = d->in_n};
	enum av_vlink_event e;
	size_t used = 0;

	if (!d->in_n)
		return AV_VLINK_NEED_MORE;
	e = av_vlink_next(&d->in, bytes, &used, ret_payload);
	d->in_off += used;
	d->in_n -= used;
	if (e == AV_VLINK_ON_BEGIN)
		uv_timer_stop(&d->echo);
	return e;
}

/* Room for at least one record, and nobody holds a payload any more. */
static void compact(struct device *d)
{
	if (d->in_off && d->in_n)
		memmove(d->in_p, d->in_p + d->in_off, d->in_n);
	d->in_off = 0;
}

/* The device inside gives one page for each read; readv asks it once for each piece. */
static ssize_t read_pieces(struct device *d, uint8_t *p, size_t n)
{
	struct iovec iov[CHAR_PIECES];
	int pieces = 0;

	for (size_t i = 0; i < n && pieces < CHAR_PIECES; pieces++) {
		size_t k = AV_MIN(n - i, CHAR_PIECE);

		iov[pieces] = (struct iovec){.iov_base = p + i, .iov_len = k};
		i += k;
	}
	return readv(d->fd, iov, pieces);
}

/* Whether it is worth trying again at once. */
static bool read_once(struct device *d)
{
	size_t room;
	ssize_t n;

	/* Without memory the bytes wait in the device. */
	if (!make_buffer(&d->in_p, DEVICE_IN_SIZE)) {
		go_away(d);
		return false;
	}
	compact(d);
	room = DEVICE_IN_SIZE - d->in_n;
	assert(room > 0);
	n = d->is_char ? read_pieces(d, d->in_p + d->in_n, room)
	               : read(d->fd, d->in_p + d->in_n, room);
	if (n < 0 && errno == EINTR)
		return true;
	if (n < 0 && errno == EAGAIN)
		return false;
	if (n < 0 || (n == 0 && !d->is_char)) {
		fail(d, n < 0 ? -errno : -EPIPE);
		return false;
	}
	if (n == 0) {
		go_away(d);
		return false;
	}
	d->in_n += (size_t)n;
	d->hooks->on_input(d);
	return (size_t)n == room;
}

static bool hung_up(const struct device *d)
{
	struct pollfd p = {.fd = d->fd, .events = POLLOUT};

	return poll(&p, 1, 0) == 1 && (p.revents & POLLHUP) && !(p.revents & POLLOUT);
}

static void write_more(struct device *d)
{
	d->blocked = false;
	device_flush(d);
	if (d->failed || d->closing)
		return;
	/* HUP looks like room for writing to the loop. */
	if (d->blocked && d->is_char && hung_up(d))
		go_away(d);
	if (!d->out_n)
		d->hooks->on_writable(d);
}

static void on_poll(uv_poll_t *poll, int status, int events)
{
	struct device *d = poll->data;

	if (status < 0 || (events & UV_DISCONNECT && !(events & UV_READABLE))) {
		fail(d, -EPIPE);
		return;
	}
	if (events & UV_WRITABLE && d->blocked)
		write_more(d);
	for (int i = 0; i < READS_PER_TURN && events & d->events & UV_READABLE; i++)
		if (d->closing || !read_once(d))
			break;
	drop_in(d);
}

/* --- life --- */

int device_open(struct device *d, uv_loop_t *loop, int fd, enum av_vlink_role role,
    const struct device_hooks *hooks)
{
	struct stat st;
	int r;

	if (fstat(fd, &st) < 0)
		return -errno;
	*d = (struct device){.hooks = hooks,
	    .role = role,
	    .fd = fd,
	    .is_char = S_ISCHR(st.st_mode),
	    .wanted = true,
	    .handles = 3};
	av_vlink_in_init(&d->in, role);
	r = av_set_cloexec(fd, true);
	if (r == 0)
		r = av_set_nonblock(fd, true);
	if (r == 0)
		r = uv_poll_init(loop, &d->poll, fd);
	if (r < 0)
		return r;
	uv_timer_init(loop, &d->echo);
	uv_timer_init(loop, &d->again);
	d->poll.data = d->echo.data = d->again.data = d;
	watch(d);
	return 0;
}

static void on_handle_closed(uv_handle_t *h)
{
	struct device *d = h->data;

	if (--d->handles)
		return;
	free(d->in_p);
	free(d->out_p);
	d->hooks->on_closed(d);
}

void device_close(struct device *d)
{
	if (d->closing)
		return;
	d->closing = true;
	uv_close((uv_handle_t *)&d->poll, on_handle_closed);
	uv_close((uv_handle_t *)&d->echo, on_handle_closed);
	uv_close((uv_handle_t *)&d->again, on_handle_closed);
	av_close_fd(&d->fd);
	d->in_n = d->out_n = 0;
}
