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
 * thrown away, and the answer says so: the command runs to its end in any case. The answer goes out
 * in pieces (api/pieces.h), so that 16 MiB of output delay nobody else.
 *
 * Both outputs are base64 when either is not UTF-8, or when escaping (of control characters,
 * mostly) would make long text longer than base64 does.
 */
#include "api/native/foreground.h"

#include <inttypes.h>
#include <stdlib.h>

#include "base/avtime.h"
#include "base/codec.h"
#include "base/banned.h"

#define SHORT_TEXT ((size_t)1 << 20)  /* text up to this stays text, however it must be escaped */
#define HEAD_MAX   ((size_t)16 << 20) /* the command is in it */
#define TAIL_MAX   ((size_t)1 << 10)

/* rq->state of a foreground exec. */
struct foreground {
	struct api_request *rq;
	struct node_exec *exec; /* NULL after its end */
	int64_t start_ns;
	size_t counted; /* of ours in api->collected_bytes */
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

static void write_tail(const struct foreground_answer *a, bool base64, struct av_buf *out)
{
	(void)av_buf_printf(out, "\",\"encoding\":\"%s\"", base64 ? "base64" : "utf-8");
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

int foreground_answer_begin(struct foreground_answer *a)
{
	struct foreground_output *both[] = {&a->out, &a->err};
	enum api_part_as as;

	for (size_t i = 0; i < AV_ARRAY_LEN(both); i++) {
		/* A cut in the middle of a character is no reason to call text binary. */
		if (both[i]->truncated && !both[i]->binary)
			both[i]->kept.n = both[i]->checked;
		else if (both[i]->checked < both[i]->kept.n)
			both[i]->binary = true;
	}
	as = stays_text(&a->out) && stays_text(&a->err) ? API_PART_TEXT : API_PART_BASE64;
	av_buf_init(&a->head, HEAD_MAX);
	av_buf_init(&a->tail, TAIL_MAX);
	write_head(a, &a->head);
	write_tail(a, as == API_PART_BASE64, &a->tail);
	api_pieces_add(&a->pieces, API_PART_RAW, av_buf_str(&a->head));
	api_pieces_add(&a->pieces, as, av_buf_str(&a->out.kept));
	api_pieces_add(&a->pieces, API_PART_RAW, AV_STR("\",\"stderr\":\""));
	api_pieces_add(&a->pieces, as, av_buf_str(&a->err.kept));
	api_pieces_add(&a->pieces, API_PART_RAW, av_buf_str(&a->tail));
	return av_buf_error(&a->head) < 0 ? av_buf_error(&a->head) : av_buf_error(&a->tail);
}

void foreground_answer_clear(struct foreground_answer *a)
{
	api_pieces_stop(&a->pieces);
	av_buf_clear(&a->out.kept);
	av_buf_clear(&a->err.kept);
	av_buf_clear(&a->head);
	av_buf_clear(&a->tail);
}

/* ---- collecting ---- */

static void foreground_gone(struct api_request *rq, int status)
{
	struct foreground *f = rq->state;

	(void)status;
	if (f->exec)
		node_exec_cancel(f->exec);
	rq->api->collected_bytes -= f->counted;
	foreground_answer_clear(&f->answer);
	free(f);
}

static void foreground_drain(struct api_request *rq)
{
	struct foreground *f = rq->state;

	api_pieces_drain(&f->answer.pieces);
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

static int answer_status(const struct foreground_answer *a)
{
	return a->end.timed_out ? av_err_http_status(AV_ERR_EXEC_TIMEOUT) : 200;
}

static void on_end(void *ctx, const struct node_exec_end *end, const struct av_err *err)
{
	struct foreground *f = ctx;
	struct foreground_answer *a = &f->answer;
	struct av_err no_memory;

	f->exec = NULL;
	if (err) {
		api_send_err(f->rq, err);
		return;
	}
	a->end = *end;
	a->duration_ms = (av_mono_ns() - f->start_ns) / AV_NS_PER_MS;
	if (foreground_answer_begin(a) < 0) {
		(void)av_err_set(&no_memory, AV_ERR_NO_MEMORY, "no memory for the answer");
		api_send_err(f->rq, &no_memory);
		return;
	}
	api_pieces_send(&a->pieces, f->rq, answer_status(a));
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
	rq->on_drain = foreground_drain;
	return 0;
}
