/* SPDX-License-Identifier: Apache-2.0 */
/*
 * process_io.c - a process's output and input (see client/process.h)
 */
#include "client/process.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "base/json.h"

#include "base/banned.h"

/* ---- output, as it comes ---- */

static size_t unread(const struct avc_output *o)
{
	return o->front.n + o->fresh.n;
}

static bool is_full(const aviary_process *p)
{
	if (p->held)
		return true;
	for (size_t i = 0; i < AVC_CHANNELS; i++)
		if (unread(&p->outputs[i]) > (p->lines ? AVC_LINE_MAX : AVC_OUTPUT_MARK))
			return true;
	return false;
}

void avc_process_balance(aviary_process *p)
{
	if (p->stream && !p->ended && !p->detaching)
		avc_stream_pause(p->stream, is_full(p));
}

static int keep(aviary_process *p, struct avc_output *o, const char *data, size_t n)
{
	size_t room = p->collect_max - o->kept.n;

	if (n > room)
		o->truncated = true;
	return av_buf_append(&o->kept, data, AV_MIN(n, room));
}

/* Without the lock meanwhile. */
static void call(aviary_process *p, enum aviary_channel ch, const char *data, size_t n)
{
	aviary_output_fn *fn = p->on_output;
	void *ctx = p->on_output_ctx;
	unsigned before = p->resumes;
	int hold;

	p->calling = true;
	avc_unlock(p->c);
	hold = fn(ctx, p, ch, data, n);
	avc_lock(p->c);
	p->calling = false;
	/* Somebody may have said go on before it had returned. */
	if (hold && p->resumes == before)
		p->held = true;
	if (p->freed)
		pthread_cond_broadcast(&p->c->changed);
}

int avc_process_output(aviary_process *p, enum aviary_channel ch, const char *data, size_t n)
{
	bool collects = (p->flags & AVIARY_EXEC_COLLECT) != 0;
	struct avc_output *o = &p->outputs[ch];

	if (collects && keep(p, o, data, n) < 0)
		return -ENOMEM;
	if (p->on_output && !p->held && unread(o) == 0) {
		call(p, ch, data, n);
		return 0;
	}
	if (!p->on_output && ((collects && !o->read) || p->detaching))
		return 0;
	return av_buf_append(&o->fresh, data, n) < 0 ? -ENOMEM : 0;
}

static void deliver(aviary_process *p, enum aviary_channel ch, struct av_buf *from)
{
	struct av_buf b = *from;

	if (!p->on_output || p->held || b.n == 0)
		return;
	*from = AV_BUF_INIT(b.max);
	call(p, ch, b.p + b.off, b.n);
	av_buf_clear(&b);
}

void avc_process_on_deliver(struct avc_timer *t)
{
	aviary_process *p = AV_CONTAINER_OF(t, aviary_process, deliver);

	avc_process_pin(p);
	for (size_t i = 0; i < AVC_CHANNELS; i++) {
		deliver(p, (enum aviary_channel)i, &p->outputs[i].front);
		deliver(p, (enum aviary_channel)i, &p->outputs[i].fresh);
	}
	avc_process_balance(p);
	avc_process_settle(p);
	avc_process_unpin(p);
}

void aviary_process_on_output(aviary_process *p, aviary_output_fn *fn, void *ctx)
{
	if (!p->c)
		return;
	avc_lock(p->c);
	for (size_t i = 0; fn && (p->flags & AVIARY_EXEC_COLLECT) && i < AVC_CHANNELS; i++) {
		struct avc_output *o = &p->outputs[i];

		if (!o->read && !p->on_output &&
		    av_buf_append_str(&o->fresh, av_buf_str(&o->kept)) < 0)
			o->truncated = true;
		o->read = true;
	}
	p->on_output = fn;
	p->on_output_ctx = ctx;
	p->held = false;
	/* With the next round of driving: what has come by now, or the end that waited for fn. */
	avc_timer_start(p->c, &p->deliver, 0);
	avc_unlock(p->c);
}

void aviary_process_resume(aviary_process *p)
{
	if (!p->c)
		return;
	avc_lock(p->c);
	p->held = false;
	p->resumes++;
	avc_timer_start(p->c, &p->deliver, 0);
	avc_unlock(p->c);
}

/* ---- reading ---- */

/* With the lock: until ready says so (1, or a code), or the time is over. 0, or a code. */
static int wait_until(aviary_process *p, int (*ready)(aviary_process *p, enum aviary_channel ch),
    enum aviary_channel ch, int64_t end_ms)
{
	bool driven = false;
	int r;

	while ((r = ready(p, ch)) == 0) {
		r = avc_drive_until(p->c, end_ms, &driven);
		if (r < 0)
			return r;
	}
	return r < 0 ? r : 0;
}

/* After the last byte: 0, or why there are no more. */
static int at_end(const aviary_process *p)
{
	return p->has_result ? 0 : p->op->code;
}

/* From now on somebody reads: what is kept by now comes first. */
static int begin_reading(aviary_process *p, enum aviary_channel ch)
{
	struct avc_output *o = &p->outputs[ch];

	if (!(p->flags & AVIARY_EXEC_COLLECT) || o->read)
		return 0;
	if (av_buf_append_str(&o->front, av_buf_str(&o->kept)) < 0) {
		av_buf_reset(&o->front);
		return AVIARY_E_NO_MEMORY;
	}
	o->read = true;
	return 0;
}

/* What came becomes what is looked at, when that is used up. */
static void turn_over(struct avc_output *o)
{
	struct av_buf old = o->front;

	if (old.n || !o->fresh.n)
		return;
	o->front = o->fresh;
	o->scanned = 0;
	av_buf_reset(&old);
	o->fresh = old;
}

static int has_output(aviary_process *p, enum aviary_channel ch)
{
	turn_over(&p->outputs[ch]);
	return p->outputs[ch].front.n > 0 || avc_op_done(p->op);
}

static void take_front(aviary_process *p, struct avc_output *o, size_t n)
{
	av_buf_consume(&o->front, n);
	o->scanned -= AV_MIN(o->scanned, n);
	avc_process_balance(p);
}

/* With the lock: how many bytes are there; 0 at the end; or a code. */
static int64_t wait_for_output(aviary_process *p, enum aviary_channel ch, int64_t timeout_ms)
{
	const struct av_buf *front = &p->outputs[ch == AVIARY_STDERR].front;
	int r = begin_reading(p, ch);

	if (r == 0)
		r = wait_until(p, has_output, ch, avc_deadline(timeout_ms));
	if (r < 0)
		return r;
	return front->n > 0 ? (int64_t)front->n : at_end(p);
}

int64_t aviary_process_read(
    aviary_process *p, enum aviary_channel ch, void *buf, size_t n, int64_t timeout_ms)
{
	struct avc_output *o;
	int64_t r;

	if (!p->c)
		return AVIARY_E_NO_MEMORY;
	o = &p->outputs[ch == AVIARY_STDERR];
	avc_lock(p->c);
	r = wait_for_output(p, ch, timeout_ms);
	if (r > 0) {
		n = AV_MIN(n, (size_t)r);
		if (n)
			memcpy(buf, o->front.p + o->front.off, n);
		take_front(p, o, n);
		r = (int64_t)n;
	}
	avc_unlock(p->c);
	return r;
}

int64_t aviary_process_peek(
    aviary_process *p, enum aviary_channel ch, const void **ret, int64_t timeout_ms)
{
	struct avc_output *o;
	int64_t r;

	if (!p->c)
		return AVIARY_E_NO_MEMORY;
	o = &p->outputs[ch == AVIARY_STDERR];
	avc_lock(p->c);
	r = wait_for_output(p, ch, timeout_ms);
	if (r > 0)
		*ret = o->front.p + o->front.off;
	avc_unlock(p->c);
	return r;
}

int aviary_process_consume(aviary_process *p, enum aviary_channel ch, size_t n)
{
	struct avc_output *o;
	int r = AVIARY_E_INVALID;

	if (!p->c)
		return AVIARY_E_NO_MEMORY;
	o = &p->outputs[ch == AVIARY_STDERR];
	avc_lock(p->c);
	if (n <= o->front.n) {
		take_front(p, o, n);
		r = AVIARY_OK;
	}
	avc_unlock(p->c);
	return r;
}

/* The length of the line at front, its newline included; 0: there is none yet. */
static size_t find_line(struct avc_output *o)
{
	const char *from = o->front.p + o->front.off;
	const char *end = o->front.n > o->scanned
	                      ? memchr(from + o->scanned, '\n', o->front.n - o->scanned)
	                      : NULL;

	o->scanned = end ? (size_t)(end - from) : o->front.n;
	return end ? (size_t)(end - from) + 1 : 0;
}

static int has_line(aviary_process *p, enum aviary_channel ch)
{
	struct avc_output *o = &p->outputs[ch];

	turn_over(o);
	if (find_line(o))
		return 1;
	if (o->fresh.n && o->front.n <= AVC_LINE_MAX) {
		if (av_buf_append_str(&o->front, av_buf_str(&o->fresh)) < 0)
			return AVIARY_E_NO_MEMORY;
		av_buf_reset(&o->fresh);
		if (find_line(o))
			return 1;
	}
	return o->front.n > AVC_LINE_MAX || avc_op_done(p->op);
}

static int64_t give_line(aviary_process *p, struct avc_output *o, size_t n, const char **ret)
{
	const char *text;

	av_buf_reset(&o->line);
	if (av_buf_append(&o->line, o->front.p + o->front.off, n) < 0 ||
	    !(text = av_buf_cstr(&o->line)))
		return AVIARY_E_NO_MEMORY;
	take_front(p, o, n);
	*ret = text;
	return (int64_t)n;
}

int64_t aviary_process_read_line(
    aviary_process *p, enum aviary_channel ch, const char **ret, int64_t timeout_ms)
{
	struct avc_output *o;
	int64_t r;
	size_t n;

	if (!p->c)
		return AVIARY_E_NO_MEMORY;
	o = &p->outputs[ch == AVIARY_STDERR];
	avc_lock(p->c);
	p->lines = true;
	avc_process_balance(p);
	r = begin_reading(p, ch);
	if (r == 0)
		r = wait_until(p, has_line, ch, avc_deadline(timeout_ms));
	if (r == 0) {
		n = find_line(o);
		if (n == 0 && o->front.n <= AVC_LINE_MAX)
			n = o->front.n; /* the last one */
		if (n > AVC_LINE_MAX + 1 || (n == 0 && o->front.n > 0))
			r = AVIARY_E_TOO_LARGE;
		else
			r = n ? give_line(p, o, n, ret) : at_end(p);
	}
	avc_unlock(p->c);
	return r;
}

/* ---- input and control ---- */

static int code_of_send(int r)
{
	return r == 0 ? AVIARY_OK : r == -EPIPE ? AVIARY_E_STATE : AVIARY_E_NO_MEMORY;
}

static bool has_input(const aviary_process *p)
{
	return (p->flags & (AVIARY_EXEC_STDIN | AVIARY_EXEC_PTY)) && !p->stdin_closed &&
	       !p->ended && !p->detaching && !avc_op_done(p->op);
}

static int takes_input(aviary_process *p, enum aviary_channel ch)
{
	(void)ch;
	return !has_input(p) ||
	       (p->stream && !p->first && avc_stream_buffered(p->stream) < AVC_INPUT_MARK);
}

int64_t aviary_process_write(aviary_process *p, const void *data, size_t n, int64_t timeout_ms)
{
	enum av_frame_channel ch = p->flags & AVIARY_EXEC_PTY ? AV_FRAME_PTY : AV_FRAME_STDIN;
	int64_t end_ms = avc_deadline(timeout_ms);
	const char *at = data;
	size_t left = n;
	int r = 0;

	if (!p->c)
		return AVIARY_E_NO_MEMORY;
	avc_lock(p->c);
	while (left > 0 && r == 0) {
		size_t piece = AV_MIN(left, (size_t)AV_FRAME_DATA_MAX);

		r = wait_until(p, takes_input, AVIARY_STDOUT, end_ms);
		if (r == 0 && !has_input(p))
			r = AVIARY_E_EXEC_STDIN;
		if (r == 0) {
			r = code_of_send(avc_process_send(p, ch, av_str_n(at, piece)));
			r = r == AVIARY_E_STATE ? AVIARY_E_EXEC_STDIN : r;
		}
		if (r == 0) {
			at += piece;
			left -= piece;
		}
	}
	avc_unlock(p->c);
	return left < n ? (int64_t)(n - left) : r;
}

int aviary_process_close_stdin(aviary_process *p)
{
	int r = AVIARY_OK;

	if (!p->c)
		return AVIARY_E_NO_MEMORY;
	avc_lock(p->c);
	if (has_input(p)) {
		r = code_of_send(avc_process_send(p, AV_FRAME_STDIN, AV_STR("")));
		p->stdin_closed = r == AVIARY_OK;
	}
	avc_unlock(p->c);
	return r;
}

/* Steals j. */
static int send_control(aviary_process *p, json_t *j)
{
	AV_CLEANUP(av_buf_clear) struct av_buf body = AV_BUF_INIT(AV_FRAME_CONTROL_MAX);
	int r = j ? av_json_dump(&body, j) : -ENOMEM;

	json_decref(j);
	if (r < 0)
		return AVIARY_E_NO_MEMORY;
	avc_lock(p->c);
	r = code_of_send(avc_process_send(p, AV_FRAME_CONTROL, av_buf_str(&body)));
	avc_unlock(p->c);
	return r;
}

/* A name that is none would end the stream. */
static bool is_signal(const char *name)
{
	const char *known;

	for (int i = 1; i < NSIG; i++)
		if ((known = sigabbrev_np(i)) && strcmp(name, known) == 0)
			return true;
	return false;
}

int aviary_process_signal(aviary_process *p, const char *name)
{
	const char *rest = strncmp(name, "SIG", 3) == 0 ? name + 3 : name;
	char full[32];

	if (!p->c)
		return AVIARY_E_NO_MEMORY;
	if (!is_signal(rest))
		return AVIARY_E_INVALID;
	(void)snprintf(full, sizeof(full), "SIG%s", rest);
	return send_control(p, json_pack("{s:s, s:s}", "signal", full, "scope", "group"));
}

int aviary_process_resize(aviary_process *p, unsigned cols, unsigned rows)
{
	if (!p->c)
		return AVIARY_E_NO_MEMORY;
	if (cols == 0 || rows == 0 || cols > UINT16_MAX || rows > UINT16_MAX)
		return AVIARY_E_INVALID;
	return send_control(
	    p, json_pack("{s:{s:i, s:i}}", "resize", "cols", (int)cols, "rows", (int)rows));
}
