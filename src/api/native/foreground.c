/* SPDX-License-Identifier: Apache-2.0 */
/*
 * foreground.c - run a command, collect its output, answer with both
 *
 * A foreground exec belongs to its request: when the client goes away the process group is killed.
 * One that ran out of time is killed likewise and answered with 504. Its error code is agent_error
 * with "reason":"timeout", because that is the code by which existing clients of this dialect know
 * a timed-out command (they map codes, not statuses); what the command printed comes with it.
 *
 * Output is kept up to a limit for each command and one for all together; what is more is read and
 * thrown away, and the answer says so: the command runs to its end in any case. A long answer is
 * turned into JSON and sent in pieces, one for each turn of the loop and at the pace of the client,
 * so that 16 MiB of output delay nobody else. A short one, the usual case, is sent at once.
 *
 * Both outputs are base64 when either is not UTF-8, or when escaping (of control characters,
 * mostly) would make long text longer than base64 does.
 */
#include "api/native/foreground.h"

#include <inttypes.h>
#include <stdlib.h>

#include "base/avtime.h"
#include "base/codec.h"
#include "net/loop.h"
#include "base/banned.h"

#define PIECE_BYTES    ((size_t)48 << 10) /* a multiple of 3: base64 of pieces can be joined */
#define AT_ONCE_BYTES  ((size_t)32 << 10) /* answers up to this are sent whole */
#define PIECE_JSON_MAX ((size_t)1 << 20)
#define SHORT_TEXT     ((size_t)1 << 20) /* text up to this stays text, however it must be escaped */

/* rq->state of a foreground exec. */
struct foreground {
	struct api_request *rq;
	struct node_exec *exec; /* NULL after its end */
	int64_t start_ns;
	size_t counted;        /* of ours in api->collected_bytes */
	struct av_timer timer; /* next piece */
	struct foreground_answer answer;
};

/* ---- the answer's text ---- */

static size_t escaped_bytes(struct av_str s)
{
	size_t n = s.n;

	for (size_t i = 0; i < s.n; i++) {
		unsigned char c = (unsigned char)s.p[i];

		if (c < 0x20)
			n += c == '\n' || c == '\t' || c == '\r' || c == '\b' || c == '\f' ? 1 : 5;
		else if (c == '"' || c == '\\')
			n++;
	}
	return n;
}

/* Looks at what is new, so that nothing is left to do for 16 MiB at once in the end. */
static void check_new(struct foreground_output *o)
{
	struct av_str s = av_buf_str(&o->kept);

	s = av_str_n(s.p + o->checked, s.n - o->checked);
	s.n -= av_utf8_incomplete_tail(s);
	if (o->binary || s.n == 0)
		return;
	o->binary = !av_utf8_valid(s);
	o->escaped += escaped_bytes(s);
	o->checked += s.n;
}

size_t foreground_output_add(struct foreground_output *o, struct av_str data, size_t room)
{
	if (o->truncated)
		return 0;
	if (data.n > room) {
		data.n = room;
		o->truncated = true;
	}
	if (av_buf_append_str(&o->kept, data) < 0) {
		o->truncated = true;
		return 0;
	}
	check_new(o);
	return data.n;
}

static bool stays_text(const struct foreground_output *o)
{
	return !o->binary && (o->kept.n <= SHORT_TEXT || o->escaped <= AV_BASE64_LEN(o->kept.n));
}

void foreground_answer_begin(struct foreground_answer *a)
{
	struct foreground_output *both[] = {&a->out, &a->err};

	for (size_t i = 0; i < AV_ARRAY_LEN(both); i++) {
		/* A cut in the middle of a character is no reason to call text binary. */
		if (both[i]->truncated && !both[i]->binary)
			both[i]->kept.n = both[i]->checked;
		else if (both[i]->checked < both[i]->kept.n)
			both[i]->binary = true;
	}
	a->out.base64 = a->err.base64 = !stays_text(&a->out) || !stays_text(&a->err);
	a->part = PART_HEAD;
}

static void write_head(const struct foreground_answer *a, struct av_buf *out)
{
	if (a->end.timed_out) {
		(void)av_buf_printf(out,
		    "{\"error\":{\"code\":\"agent_error\",\"reason\":\"timeout\",\"message\":\"the "
		    "command was "
		    "killed with its process group after %" PRId64
		    " ms because its timeout had passed; give a longer timeout_sec, or 0 for "
		    "none\"},"
		    "\"timed_out\":true,",
		    a->duration_ms);
	} else {
		(void)av_buf_append_char(out, '{');
	}
	(void)av_buf_printf(out, "\"sandbox_id\":\"%s\",\"cmd\":", a->sandbox_id);
	(void)av_json_write_str(out, av_str_c(a->cmd));
	(void)av_buf_append_c(out, ",\"stdout\":\"");
}

static void write_tail(const struct foreground_answer *a, struct av_buf *out)
{
	(void)av_buf_printf(out, "\",\"encoding\":\"%s\"", a->out.base64 ? "base64" : "utf-8");
	if (a->out.truncated)
		(void)av_buf_append_c(out, ",\"stdout_truncated\":true");
	if (a->err.truncated)
		(void)av_buf_append_c(out, ",\"stderr_truncated\":true");
	(void)av_buf_printf(out, ",\"exit_code\":%d", a->end.exit_code);
	if (a->end.signal)
		(void)av_buf_printf(out, ",\"signal\":%d", a->end.signal);
	if (a->end.oom_killed)
		(void)av_buf_append_c(out, ",\"oom_killed\":true");
	if (a->end.core_dumped)
		(void)av_buf_append_c(out, ",\"core_dumped\":true");
	(void)av_buf_printf(out, ",\"duration_ms\":%" PRId64 "}", a->duration_ms);
}

/* True when all of it is written. */
static bool write_piece(struct foreground_output *o, struct av_buf *out)
{
	AV_CLEANUP(av_buf_clear) struct av_buf quoted = AV_BUF_INIT(PIECE_JSON_MAX);
	struct av_str rest = av_buf_str(&o->kept), s;

	rest.p += o->done;
	rest.n -= o->done;
	s = av_str_n(rest.p, AV_MIN(rest.n, (size_t)PIECE_BYTES));
	if (o->base64) {
		(void)av_base64_encode(out, s.p, s.n);
	} else {
		if (s.n < rest.n)
			s.n -= av_utf8_incomplete_tail(s);
		if (av_json_write_str(&quoted, s) == 0) {
			struct av_str q = av_buf_str(&quoted);

			(void)av_buf_append(out, q.p + 1, q.n - 2);
		} else {
			out->error = av_buf_error(&quoted);
		}
	}
	o->done += s.n;
	return s.n == rest.n;
}

bool foreground_answer_next(struct foreground_answer *a, struct av_buf *out)
{
	switch (a->part) {
	case PART_HEAD:
		write_head(a, out);
		a->part = PART_STDOUT;
		return true;
	case PART_STDOUT:
		if (write_piece(&a->out, out))
			a->part = PART_BETWEEN;
		return true;
	case PART_BETWEEN:
		(void)av_buf_append_c(out, "\",\"stderr\":\"");
		a->part = PART_STDERR;
		return true;
	case PART_STDERR:
		if (write_piece(&a->err, out))
			a->part = PART_TAIL;
		return true;
	case PART_TAIL:
		write_tail(a, out);
		a->part = PART_DONE;
		return false;
	case PART_DONE:
		break;
	}
	return false;
}

/* ---- sending it ---- */

static int answer_status(const struct foreground *f)
{
	return f->answer.end.timed_out ? av_err_http_status(AV_ERR_EXEC_TIMEOUT) : 200;
}

static void send_whole(struct foreground *f)
{
	AV_CLEANUP(av_buf_clear) struct av_buf out = AV_BUF_INIT(2 * PIECE_JSON_MAX);

	while (foreground_answer_next(&f->answer, &out))
		;
	api_send_json(f->rq, answer_status(f), &out);
}

/* One piece; the next with the next turn of the loop, or when the client has read. */
static void send_piece(void *ctx)
{
	AV_CLEANUP(av_buf_clear) struct av_buf out = AV_BUF_INIT(PIECE_JSON_MAX);
	struct foreground *f = ctx;
	bool more = foreground_answer_next(&f->answer, &out);
	int r = av_buf_error(&out);

	if (r == 0)
		r = av_res_write(f->rq->req, av_buf_str(&out));
	if (r < 0)
		av_res_abort(f->rq->req);
	else if (!more)
		(void)av_res_end(f->rq->req);
	else if (r == 0)
		av_timer_start(&f->timer, 0);
}

static void foreground_drain(struct api_request *rq)
{
	send_piece(rq->state);
}

static void send_in_pieces(struct foreground *f)
{
	const struct av_http_header type = {
	    .name = AV_STR("content-type"), .value = AV_STR("application/json")};

	f->rq->on_drain = foreground_drain;
	api_started(f->rq, answer_status(f));
	if (av_res_start(f->rq->req, answer_status(f), &type, 1, -1) == 0)
		send_piece(f);
}

/* ---- collecting ---- */

static void foreground_gone(struct api_request *rq, int status)
{
	struct foreground *f = rq->state;

	(void)status;
	av_timer_stop(&f->timer);
	if (f->exec)
		node_exec_cancel(f->exec);
	rq->api->collected_bytes -= f->counted;
	av_buf_clear(&f->answer.out.kept);
	av_buf_clear(&f->answer.err.kept);
	free(f);
}

static void on_output(void *ctx, enum node_channel channel, struct av_str data)
{
	struct foreground *f = ctx;
	struct foreground_output *o = channel == NODE_CH_STDERR ? &f->answer.err : &f->answer.out;
	size_t *total = &f->rq->api->collected_bytes, room = FOREGROUND_OUTPUT_MAX - o->kept.n, n;

	if (room > FOREGROUND_TOTAL_MAX - *total)
		room = FOREGROUND_TOTAL_MAX - *total;
	n = foreground_output_add(o, data, room);
	f->counted += n;
	*total += n;
}

static void on_end(void *ctx, const struct node_exec_end *end, const struct av_err *err)
{
	struct foreground *f = ctx;
	struct foreground_answer *a = &f->answer;

	f->exec = NULL;
	if (err) {
		api_send_err(f->rq, err);
		return;
	}
	a->end = *end;
	a->duration_ms = (av_mono_ns() - f->start_ns) / AV_NS_PER_MS;
	foreground_answer_begin(a);
	if (a->out.kept.n + a->err.kept.n <= AT_ONCE_BYTES)
		send_whole(f);
	else
		send_in_pieces(f);
}

static const struct node_exec_events foreground_events = {.on_output = on_output, .on_end = on_end};

int native_exec_foreground(
    struct api_request *rq, const struct node_exec_spec *spec, struct av_err *err)
{
	struct foreground *f = calloc(1, sizeof *f);
	int r;

	if (!f)
		return av_err_set(err, AV_ERR_NO_MEMORY, "out of memory");
	f->rq = rq;
	f->start_ns = av_mono_ns();
	av_buf_init(&f->answer.out.kept, FOREGROUND_OUTPUT_MAX);
	av_buf_init(&f->answer.err.kept, FOREGROUND_OUTPUT_MAX);
	av_timer_init(&f->timer, rq->api->loop, send_piece, f);
	f->answer.sandbox_id = rq->id;
	f->answer.cmd = json_string_value(json_object_get(rq->body, "cmd"));
	r = control_exec_stream(
	    rq->api->control, &rq->actor, rq->id, spec, &foreground_events, f, &f->exec, err);
	if (r < 0) {
		free(f);
		return r;
	}
	rq->state = f;
	rq->on_gone = foreground_gone;
	return 0;
}
