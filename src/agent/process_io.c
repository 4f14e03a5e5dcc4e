/* SPDX-License-Identifier: Apache-2.0 */
/*
 * process_io.c - input and output of one process: pipes, readers, replay
 */
#include "agent/process.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "agent/process_internal.h"
#include "base/fd.h"

#include "base/banned.h"

#define READS_PER_TURN 4
#define PIPE_BYTES     (256 * 1024) /* of an output that fills its pipe */

/* --- outputs --- */

bool process_outputs_open(const struct process *p)
{
	return p->out[0].fd >= 0 || p->out[1].fd >= 0;
}

static void on_output_closed(uv_handle_t *h)
{
	struct process_output *o = AV_CONTAINER_OF(h, struct process_output, poll);

	process_handle_closed(o->process);
}

static void close_output(struct process_output *o)
{
	if (o->fd < 0)
		return;
	uv_poll_stop(&o->poll);
	av_close_fd(&o->fd);
	uv_close((uv_handle_t *)&o->poll, on_output_closed);
}

/* Readers that take part in flow control; *ret_all_ready is false if one of them is full or still
 * replays. */
static bool followed(const struct process *p, bool *ret_all_ready)
{
	const struct process_sub *sub;
	bool any = false;

	*ret_all_ready = true;
	AV_LIST_FOREACH(sub, &p->subs, const struct process_sub, node)
	{
		if (!sub->follow)
			continue;
		any = true;
		if (sub->full || sub->replay)
			*ret_all_ready = false;
	}
	return any;
}

static void deliver(struct process *p, uint8_t channel, const char *data, size_t n)
{
	struct process_sub *sub;
	bool ready, any = followed(p, &ready);

	if (!any || p->ring.cap || p->ring.dropped)
		ring_append(&p->ring, channel, data, n);
	AV_LIST_FOREACH(sub, &p->subs, struct process_sub, node)
	if (sub->follow && !sub->replay)
		sub->ops->on_output(sub, channel, data, n);
}

/* A program that fills its pipe is waiting for us: with a larger one both run longer without the
 * other. Costs memory of the sandbox while it is full; the kernel refuses when the user has too
 * much of it in pipes. */
static void grow_pipe(struct process_output *o)
{
	if (o->grown || o->process->pty)
		return;
	o->grown = true;
	(void)fcntl(o->fd, F_SETPIPE_SZ, PIPE_BYTES);
}

/* False when the output is at its end. *ret_more: there is more than fitted into one chunk. */
static bool read_output(struct process_output *o, bool *ret_more)
{
	struct process *p = o->process;
	size_t want = p->pty ? PROCESS_CHUNK_PTY : PROCESS_CHUNK_PIPE;
	char *buf = p->table->read_buf;
	ssize_t n;

	if (o->limited)
		want = AV_MIN(want, o->left);
	n = want ? read(o->fd, buf, want) : 0;
	if (n < 0 && (errno == EINTR || (errno == EAGAIN && !o->limited)))
		return true;
	/* EIO is how a terminal says that its last user has gone. */
	if (n <= 0)
		return false;
	if (o->limited)
		o->left -= (size_t)n;
	*ret_more = (size_t)n == want;
	if ((size_t)n == PROCESS_CHUNK_PIPE)
		grow_pipe(o);
	deliver(p, o->channel, buf, (size_t)n);
	return !(o->limited && o->left == 0);
}

static void on_output(uv_poll_t *poll, int status, int events)
{
	struct process_output *o = AV_CONTAINER_OF(poll, struct process_output, poll);
	struct process *p = o->process;

	(void)events;
	for (int i = 0; i < READS_PER_TURN; i++) {
		bool more = false;

		if (status < 0 || !read_output(o, &more)) {
			close_output(o);
			process_check_end(p);
			return;
		}
		process_update_reading(p);
		if (!more || o->fd < 0 || !o->reading)
			return;
	}
}

void process_update_reading(struct process *p)
{
	bool ready;

	followed(p, &ready);
	for (int i = 0; i < 2; i++) {
		struct process_output *o = &p->out[i];

		if (o->fd < 0 || o->reading == ready)
			continue;
		o->reading = ready;
		/* Neither can fail: the handle is open and the events are valid. */
		if (ready)
			uv_poll_start(&o->poll, UV_READABLE, on_output);
		else
			uv_poll_stop(&o->poll);
	}
}

void process_outputs_limit(struct process *p)
{
	for (int i = 0; i < 2; i++) {
		struct process_output *o = &p->out[i];
		int pending = 0;

		if (o->fd < 0 || o->limited)
			continue;
		o->limited = true;
		if (ioctl(o->fd, FIONREAD, &pending) < 0 || pending < 0)
			pending = 0;
		o->left = (size_t)pending;
		if (o->left == 0)
			close_output(o);
	}
	process_check_end(p);
}

void process_drain(struct process *p)
{
	for (int i = 0; i < 2; i++) {
		struct process_output *o = &p->out[i];
		int pending = 0;

		if (o->fd < 0 || ioctl(o->fd, FIONREAD, &pending) < 0)
			continue;
		while (pending > 0 && o->fd >= 0) {
			ssize_t n = read(
			    o->fd, p->table->read_buf, AV_MIN((size_t)pending, PROCESS_CHUNK_PIPE));

			if (n <= 0)
				break;
			if (o->limited)
				o->left -= AV_MIN((size_t)n, o->left);
			pending -= (int)n;
			deliver(p, o->channel, p->table->read_buf, (size_t)n);
		}
	}
	process_update_reading(p);
}

/* --- readers --- */

void process_attach(struct process *p, struct process_sub *sub)
{
	sub->process = p;
	sub->cursor = (struct ring_cursor){0};
	if (p->ring.cap == 0 && p->ring.dropped == 0)
		sub->replay = false;
	/* Until it says that it is set up. */
	sub->full = true;
	av_list_append(&p->subs, &sub->node);
	process_update_reading(p);
}

void process_detach(struct process_sub *sub)
{
	struct process *p = sub->process;

	if (!p)
		return;
	av_list_remove(&sub->node);
	sub->process = NULL;
	if (!p->ended)
		process_update_reading(p);
}

/* Sends from the ring until the reader is full or has all of it. */
static void replay(struct process_sub *sub)
{
	struct process *p = sub->process;
	char record[RING_RECORD_MAX];

	while (sub->process == p && sub->replay && !sub->full) {
		uint8_t channel = 0;
		uint64_t n = 0;

		switch (ring_read(&p->ring, &sub->cursor, &channel, record, &n)) {
		case RING_GAP:
			sub->ops->on_gap(sub, n);
			break;
		case RING_RECORD:
			sub->ops->on_output(sub, channel, record, (size_t)n);
			break;
		case RING_END:
			sub->replay = false;
			break;
		}
	}
}

void process_pump(struct process_sub *sub)
{
	struct process *p = sub->process;

	replay(sub);
	if (sub->process != p || sub->full || sub->replay)
		return;
	if (p->ended || !sub->follow) {
		p->seen = p->seen || p->ended;
		process_detach(sub);
		sub->ops->on_end(sub, process_ended(p));
	}
}

void process_sub_ready(struct process_sub *sub)
{
	struct process *p = sub->process;

	if (!p || !sub->full)
		return;
	sub->full = false;
	process_pump(sub);
	if (sub->process == p)
		process_update_reading(p);
}

/* --- input --- */

static void on_input_closed(uv_handle_t *h)
{
	process_handle_closed(AV_CONTAINER_OF(h, struct process, in.poll));
}

static void close_input(struct process *p)
{
	if (p->in.fd < 0)
		return;
	uv_poll_stop(&p->in.poll);
	av_close_fd(&p->in.fd);
	uv_close((uv_handle_t *)&p->in.poll, on_input_closed);
}

static void answer_chunk(struct input_chunk *c, int status)
{
	process_written_fn *fn = c->fn;
	void *ctx = c->ctx;
	size_t n = c->answer;

	av_list_remove(&c->node);
	free(c);
	if (fn)
		fn(ctx, n, status);
}

void process_input_drop(struct process *p)
{
	struct input_chunk *c;

	close_input(p);
	/* The answers cannot lead to new chunks any more. */
	AV_LIST_FOREACH(c, &p->in.queue, struct input_chunk, node)
	answer_chunk(c, -EPIPE);
}

static void on_input(uv_poll_t *poll, int status, int events);

/* True when all of the chunk was taken; *ret_failed when the pipe takes no more at all. */
static bool write_chunk(struct process *p, struct input_chunk *c, bool *ret_failed)
{
	ssize_t n;

	do {
		n = c->n > c->off ? write(p->in.fd, c->data + c->off, c->n - c->off) : 0;
	} while (n < 0 && errno == EINTR);
	*ret_failed = n < 0 && errno != EAGAIN;
	if (n > 0)
		c->off += (size_t)n;
	return c->off == c->n;
}

/* Writes what the pipe takes. */
static void flush_input(struct process *p)
{
	struct input_chunk *c;
	bool failed = false;

	AV_LIST_FOREACH(c, &p->in.queue, struct input_chunk, node)
	{
		failed = c->eof;
		if (c->eof || !write_chunk(p, c, &failed))
			break;
		answer_chunk(c, 0);
	}
	/* After the end of file there is nothing to be answered but its own chunk. */
	if (failed)
		process_input_drop(p);
	if (p->in.fd < 0 || p->in.polling == !av_list_empty(&p->in.queue))
		return;
	p->in.polling = !p->in.polling;
	if (p->in.polling)
		uv_poll_start(&p->in.poll, UV_WRITABLE, on_input);
	else
		uv_poll_stop(&p->in.poll);
}

static void on_input(uv_poll_t *poll, int status, int events)
{
	struct process *p = AV_CONTAINER_OF(poll, struct process, in.poll);

	(void)events;
	if (status < 0)
		process_input_drop(p);
	else
		flush_input(p);
}

/* head: the fields of the new chunk besides its bytes. */
static int queue_input(
    struct process *p, const void *data, size_t n, const struct input_chunk *head)
{
	struct input_chunk *c;
	size_t size;

	if (p->in.fd < 0 || p->in.eof_queued || p->reaped)
		return -EBADF;
	if (__builtin_add_overflow(sizeof(*c), n, &size))
		return -ENOMEM;
	c = malloc(size);
	if (!c)
		return -ENOMEM;
	*c = *head;
	c->n = n;
	if (n)
		memcpy(c->data, data, n);
	av_list_append(&p->in.queue, &c->node);
	p->in.eof_queued = c->eof;
	flush_input(p);
	return 0;
}

int process_write(struct process *p, const void *data, size_t n, process_written_fn *fn, void *ctx)
{
	ssize_t done = 0;

	/* Mostly the pipe has room and nothing is queued: then nothing need be copied. */
	if (p->in.fd >= 0 && !p->in.eof_queued && av_list_empty(&p->in.queue))
		done = write(p->in.fd, data, n);
	if (done < 0)
		done = 0;
	if ((size_t)done < n || p->in.fd < 0 || p->in.eof_queued)
		return queue_input(p, (const char *)data + done, n - (size_t)done,
		    &(struct input_chunk){.fn = fn, .ctx = ctx, .answer = n});
	if (fn)
		fn(ctx, n, 0);
	return 0;
}

void process_forget_writer(struct process *p, const void *ctx)
{
	struct input_chunk *c;

	AV_LIST_FOREACH(c, &p->in.queue, struct input_chunk, node)
	if (c->ctx == ctx)
		c->fn = NULL;
}

int process_close_stdin(struct process *p)
{
	if (p->pty)
		return -ENOTTY;
	return queue_input(p, NULL, 0, &(struct input_chunk){.eof = true});
}

/* --- all of it --- */

static int open_handle(struct process *p, uv_poll_t *poll, int fd)
{
	int r = uv_poll_init(p->table->loop, poll, fd);

	if (r == 0)
		p->open_handles++;
	return r;
}

int process_io_open(struct process *p, int in_fd, const int out_fd[2])
{
	int r = 0;

	if (!p->table->read_buf)
		p->table->read_buf = malloc(PROCESS_CHUNK_PIPE);
	if (!p->table->read_buf)
		r = -ENOMEM;
	for (int i = 0; i < 2; i++) {
		struct process_output *o = &p->out[i];
		int fd = out_fd[i];

		o->process = p;
		o->channel = p->pty ? PROCESS_PTY : (uint8_t)(PROCESS_STDOUT + i);
		if (fd < 0)
			continue;
		if (r == 0)
			r = open_handle(p, &o->poll, fd);
		if (r == 0)
			o->fd = fd;
		else
			av_close_fd(&fd);
	}
	if (in_fd >= 0 && r == 0)
		r = open_handle(p, &p->in.poll, in_fd);
	if (in_fd >= 0 && r == 0)
		p->in.fd = in_fd;
	else
		av_close_fd(&in_fd);
	if (r < 0)
		process_io_close(p);
	return r;
}

void process_io_close(struct process *p)
{
	close_output(&p->out[0]);
	close_output(&p->out[1]);
	process_input_drop(p);
}
