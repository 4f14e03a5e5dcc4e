/* SPDX-License-Identifier: Apache-2.0 */
/*
 * execute.c - POST /execute: code in, lines of output and results out
 *
 * Theory of operation
 *
 * The head of the answer leaves at once; the lines follow as the kernel has them (execute_lines.c).
 * Output is kept back for HOLD_MS when it does not end a line, so that what one print() writes in
 * two pieces is one line here, and so that a character is never cut. When the client goes away
 * before the end, what runs is interrupted and what waits does not run. A client that does not read
 * stops the code. "timeout_ms" runs from the request on: what runs then is interrupted, and when it
 * ignores that for GRACE_MS its kernel is restarted. Time for which the sandbox was frozen does not
 * count: a time-out that comes late waits a moment for the daemon to say so.
 *
 * The struct outlives its stream until its timer is closed.
 */
#include "agent/execute.h"

#include <errno.h>
#include <stdlib.h>

#include "agent/handlers.h"
#include "base/json.h"

#include "base/banned.h"

#define HOLD_MS        4
#define HOLD_BYTES     ((size_t)32 * 1024)
#define LATE_MS        50 /* a time-out that comes so late may be one of a frozen sandbox */
#define KEEPALIVE_MS   5000
#define GRACE_MS       5000
#define TIMEOUT_MAX_MS (365LL * 24 * 3600 * 1000)
#define PAIRS_MAX      AV_KERNEL_MESSAGE_MAX

struct execute {
	struct request *rq; /* NULL once the stream is closed */
	const struct execute_codec *codec;
	struct kernel_exec x;
	struct av_buf held[2]; /* stdout, stderr */
	uv_timer_t timer;      /* held output, else keep-alive */
	uv_timer_t deadline;   /* the time-out, later the grace */
	uint64_t due_ms;       /* loop time of the time-out */
	uint64_t frozen_ms;    /* of the agent, as far as due_ms knows */
	bool spared;           /* it came late */
	bool timed_out;
	uint32_t count;
};

/* What a request says; borrowed from the document. */
struct execute_request {
	const char *code, *context, *language, *shell;
	const json_t *envs;
	int64_t timeout_ms; /* 0: none */
	uint8_t flags;
};

static void on_timer(uv_timer_t *timer);
static void on_deadline(uv_timer_t *timer);

/* --- sending --- */

static void arm_timer(struct execute *e)
{
	bool held = e->held[0].n || e->held[1].n;

	if (held)
		uv_timer_start(&e->timer, on_timer, HOLD_MS, 0);
	else if (e->codec->keepalive.n)
		uv_timer_start(&e->timer, on_timer, KEEPALIVE_MS, 0);
	else
		uv_timer_stop(&e->timer);
}

static void send_ascii(struct execute *e, struct av_str line)
{
	AV_CLEANUP(av_buf_clear) struct av_buf out = AV_BUF_INIT(AV_AGENT_LINE_MAX * 3);

	if (av_json_write_ascii(&out, line) < 0)
		request_reset(e->rq, AV_HTTP2_INTERNAL_ERROR);
	else if (out.n)
		request_send(e->rq, out.p + out.off, out.n);
}

static void send_line(struct execute *e, struct av_buf *line)
{
	if (av_buf_error(line) == -EMSGSIZE) {
		av_buf_clear(line);
		e->codec->output(line, true,
		    AV_STR("[a result was left out: as JSON it has more than 16 MiB]\n"));
	}
	if (av_buf_error(line) < 0)
		request_reset(e->rq, AV_HTTP2_INTERNAL_ERROR);
	else if (e->codec->ascii)
		send_ascii(e, av_buf_str(line));
	else if (line->n)
		request_send(e->rq, line->p + line->off, line->n);
	e->x.full = request_is_full(e->rq);
}

/* all: the begun character too, as nothing follows. */
static void send_held(struct execute *e, int i, bool all)
{
	struct av_str text = av_buf_str(&e->held[i]);
	size_t tail = all ? 0 : av_utf8_incomplete_tail(text);

	text.n -= tail;
	if (text.n == 0)
		return;
	AV_CLEANUP(av_buf_clear) struct av_buf line = AV_BUF_INIT(AV_AGENT_LINE_MAX);
	e->codec->output(&line, i == 1, text);
	send_line(e, &line);
	av_buf_consume(&e->held[i], text.n);
	if (e->held[i].n == 0)
		av_buf_clear(&e->held[i]);
}

static void send_all_held(struct execute *e)
{
	send_held(e, 0, true);
	send_held(e, 1, true);
}

static void on_timer(uv_timer_t *timer)
{
	struct execute *e = AV_CONTAINER_OF(timer, struct execute, timer);
	bool held = e->held[0].n || e->held[1].n;

	if (!e->rq)
		return;
	if (held) {
		send_all_held(e);
	} else {
		request_send(e->rq, e->codec->keepalive.p, e->codec->keepalive.n);
	}
	arm_timer(e);
}

/* --- from the kernel --- */

static void on_output(struct kernel_exec *x, bool is_stderr, struct av_str data)
{
	struct execute *e = AV_CONTAINER_OF(x, struct execute, x);
	struct av_buf *held = &e->held[is_stderr];

	while (data.n) {
		size_t n = AV_MIN(data.n, HOLD_BYTES);

		if (av_buf_append(held, data.p, n) < 0) {
			request_reset(e->rq, AV_HTTP2_INTERNAL_ERROR);
			return;
		}
		data = av_str_n(data.p + n, data.n - n);
		if (held->n >= HOLD_BYTES || held->p[held->off + held->n - 1] == '\n')
			send_held(e, is_stderr, false);
	}
	arm_timer(e);
}

static void on_message(struct kernel_exec *x, const struct av_kernel_message *m)
{
	struct execute *e = AV_CONTAINER_OF(x, struct execute, x);
	AV_CLEANUP(av_buf_clear) struct av_buf line = AV_BUF_INIT(AV_AGENT_LINE_MAX);

	if (m->type == AV_KERNEL_ACCEPTED)
		e->count = m->count;
	send_all_held(e);
	e->codec->message(&line, m, kernel_id(x->kernel), e->count);
	send_line(e, &line);
	arm_timer(e);
}

static void on_kernel_end(struct kernel_exec *x, const struct kernel_outcome *o)
{
	struct execute *e = AV_CONTAINER_OF(x, struct execute, x);
	AV_CLEANUP(av_buf_clear) struct av_buf line = AV_BUF_INIT(AV_AGENT_LINE_MAX);

	if (!e->rq)
		return;
	send_all_held(e);
	e->codec->end(&line, o, e->timed_out);
	send_line(e, &line);
	uv_timer_stop(&e->timer);
	uv_timer_stop(&e->deadline);
	request_finish_all(e->rq);
}

static const struct kernel_exec_ops exec_ops = {
    .on_output = on_output, .on_message = on_message, .on_end = on_kernel_end};

/* --- the stream --- */

static void stream_body(struct request *rq, const uint8_t *p, size_t n)
{
	(void)p;
	request_consume(rq, n);
}

static void stream_drain(struct request *rq)
{
	struct execute *e = rq->data;

	if (!request_is_full(rq))
		kernel_exec_ready(&e->x);
}

/* --- too late --- */

static void on_grace(uv_timer_t *timer)
{
	struct execute *e = AV_CONTAINER_OF(timer, struct execute, deadline);
	struct av_err err;

	/* Its failure to start again is told to whoever comes next. */
	if (e->x.kernel)
		(void)kernel_restart(e->x.kernel, &err);
}

/* True if the time-out is not due yet, or perhaps not. */
static bool is_early(struct execute *e)
{
	uint64_t now = uv_now(e->deadline.loop), frozen = e->rq->agent->frozen_ms - e->frozen_ms;
	bool late = now > e->due_ms + LATE_MS && !e->spared;

	e->spared = late;
	e->frozen_ms += frozen;
	e->due_ms += frozen;
	if (!late && now >= e->due_ms)
		return false;
	uv_timer_start(&e->deadline, on_deadline, late ? TIMEOUT_NEWS_MS : e->due_ms - now, 0);
	return true;
}

static void on_deadline(uv_timer_t *timer)
{
	struct execute *e = AV_CONTAINER_OF(timer, struct execute, deadline);
	struct kernel *k = e->x.kernel;

	if (!k || !e->rq || is_early(e))
		return;
	e->timed_out = true;
	if (!kernel_exec_runs(&e->x)) {
		kernel_cancel(&e->x);
		on_kernel_end(
		    &e->x, &(struct kernel_outcome){.end = KERNEL_FAILED,
		               .message = "the time was over before the kernel was free or ready"});
		return;
	}
	kernel_interrupt(k);
	uv_timer_start(&e->deadline, on_grace, GRACE_MS, 0);
}

static void on_deadline_closed(uv_handle_t *h)
{
	struct execute *e = AV_CONTAINER_OF((uv_timer_t *)h, struct execute, deadline);

	av_buf_clear(&e->held[0]);
	av_buf_clear(&e->held[1]);
	free(e);
}

/* Then nothing refers to it. */
static void on_timer_closed(uv_handle_t *h)
{
	struct execute *e = AV_CONTAINER_OF((uv_timer_t *)h, struct execute, timer);

	uv_close((uv_handle_t *)&e->deadline, on_deadline_closed);
}

static void stream_close(struct request *rq, uint32_t error)
{
	struct execute *e = rq->data;

	(void)error;
	e->rq = NULL;
	kernel_cancel(&e->x);
	uv_close((uv_handle_t *)&e->timer, on_timer_closed);
}

static const struct request_ops stream_ops = {
    .on_body = stream_body, .on_drain = stream_drain, .on_close = stream_close};

/* --- the request --- */

static int parse_formats(const json_t *body, uint8_t *flags, struct av_err *err)
{
	const json_t *formats = NULL;
	int r = av_json_get_str_array(body, "figure_formats", 2, &formats, err);

	for (size_t i = 0; r == 0 && i < json_array_size(formats); i++) {
		const char *name = json_string_value(json_array_get(formats, i));

		if (strcmp(name, "png") == 0)
			*flags |= AV_KERNEL_PNG;
		else if (strcmp(name, "svg") == 0)
			*flags |= AV_KERNEL_SVG;
		else
			r = av_err_set(err, AV_ERR_INVALID,
			    "figure_formats holds '%.32s'; allowed are png and svg", name);
	}
	return r;
}

static int parse(const json_t *body, struct execute_request *q, struct av_err *err)
{
	bool store = true, silent = false;
	int r;

	*q = (struct execute_request){.context = "", .language = "", .shell = ""};
	if ((r = av_json_get_str(body, "code", &q->code, err)) < 0 ||
	    (r = av_json_get_str(body, "context_id", &q->context, err)) < 0 ||
	    (r = av_json_get_str(body, "language", &q->language, err)) < 0 ||
	    (r = av_json_get_str(body, "shell", &q->shell, err)) < 0 ||
	    (r = av_json_get_str_map(body, "env_vars", ENV_VARS_MAX, &q->envs, err)) < 0 ||
	    (r = av_json_get_i64(body, "timeout_ms", 0, TIMEOUT_MAX_MS, &q->timeout_ms, err)) < 0 ||
	    (r = av_json_get_bool(body, "silent", &silent, err)) < 0 ||
	    (r = av_json_get_bool(body, "store_history", &store, err)) < 0 ||
	    (r = parse_formats(body, &q->flags, err)) < 0)
		return r;
	if (!q->code)
		return av_err_set(err, AV_ERR_INVALID, "'code' is missing: the text to run");
	if (strlen(q->code) > KERNEL_CODE_MAX)
		return av_err_set(err, AV_ERR_TOO_LARGE,
		    "the code has %zu bytes; at most %zu run at once: write it to a file",
		    strlen(q->code), KERNEL_CODE_MAX);
	if (q->context[0] && q->language[0])
		return av_err_set(err, AV_ERR_INVALID,
		    "'context_id' and 'language' are both given; a context has its language");
	q->flags |=
	    (uint8_t)((store && !silent ? AV_KERNEL_STORE : 0) | (silent ? AV_KERNEL_SILENT : 0));
	return 0;
}

static int make_pairs(const json_t *envs, struct av_buf *out, struct av_err *err)
{
	json_t *vars = (json_t *)(uintptr_t)envs, *value; /* iterators take no const */
	const char *key;

	json_object_foreach (vars, key, value) {
		if (!key[0] || strchr(key, '='))
			return av_err_set(err, AV_ERR_INVALID,
			    "environment variable name '%s' is empty or contains '='", key);
		(void)av_buf_append(out, key, strlen(key) + 1);
		(void)av_buf_append(out, json_string_value(value), json_string_length(value) + 1);
	}
	if (av_buf_error(out) < 0)
		return av_err_set(
		    err, AV_ERR_TOO_LARGE, "env_vars have more than %zu bytes", PAIRS_MAX);
	return 0;
}

static int find_kernel(
    struct agent *a, const struct execute_request *q, struct kernel **ret, struct av_err *err)
{
	struct kernel_params params = {.language = q->language, .shell = q->shell};
	struct kernel *k =
	    q->context[0] ? kernel_find(&a->kernels, av_str_c(q->context))
	                  : kernel_default(&a->kernels, av_str_c(q->language), av_str_c(q->shell));

	if (!k && q->context[0])
		return av_err_set(err, AV_ERR_NOT_FOUND, "Context %.64s not found", q->context);
	*ret = k;
	return k ? 0 : kernel_create(&a->kernels, &params, ret, err);
}

/* E2B's clients want the bare text. */
static void refuse(struct request *rq, const struct execute_codec *codec, const struct av_err *err)
{
	if (codec == &execute_codec_e2b)
		request_reply(rq, av_err_http_status(err->kind), "text/plain; charset=utf-8",
		    av_str_c(err->message));
	else
		request_fail_err(rq, err);
}

static struct execute *new_execute(struct request *rq, const struct execute_codec *codec)
{
	struct execute *e = calloc(1, sizeof(*e));

	if (!e)
		return NULL;
	*e = (struct execute){.rq = rq, .codec = codec, .x = {.ops = &exec_ops}};
	av_list_init(&e->x.node);
	av_buf_init(&e->held[0], HOLD_BYTES * 2);
	av_buf_init(&e->held[1], HOLD_BYTES * 2);
	uv_timer_init(&rq->agent->loop, &e->timer);
	uv_timer_init(&rq->agent->loop, &e->deadline);
	return e;
}

static bool begin(struct request *rq, const struct execute_codec *codec)
{
	struct av_http_head head;
	bool ok;

	av_http_head_response(&head, 200);
	ok = av_http_head_add_c(&head, "content-type", codec->content_type) == 0 &&
	     request_begin(rq, &head);
	av_http_head_clear(&head);
	return ok;
}

static int run(
    struct request *rq, const struct execute_codec *codec, struct av_str body, struct av_err *err)
{
	AV_CLEANUP(av_json_decrefp) json_t *json = av_json_parse_object(body, err);
	AV_CLEANUP(av_buf_clear) struct av_buf pairs = AV_BUF_INIT(PAIRS_MAX);
	struct execute_request q;
	struct kernel *k = NULL;
	struct execute *e;
	int r;

	if (!json)
		return -EINVAL;
	if ((r = parse(json, &q, err)) < 0 || (r = make_pairs(q.envs, &pairs, err)) < 0 ||
	    (r = find_kernel(rq->agent, &q, &k, err)) < 0)
		return r;
	e = new_execute(rq, codec);
	if (!e)
		return av_err_set(err, AV_ERR_NO_MEMORY, "out of memory in the sandbox's agent");
	/* The code is copied, and the end may come from within: the request must be ready for it.
	 */
	rq->data = e;
	rq->ops = &stream_ops;
	if (!begin(rq, codec))
		return 0;
	r = kernel_execute(
	    k, &e->x, q.flags | codec->flags, av_str_c(q.code), av_buf_str(&pairs), err);
	if (r < 0)
		on_kernel_end(
		    &e->x, &(struct kernel_outcome){.end = KERNEL_FAILED, .message = err->message});
	if (!e->x.kernel)
		return 0;
	arm_timer(e);
	if (q.timeout_ms) {
		uv_update_time(&rq->agent->loop);
		e->due_ms = uv_now(&rq->agent->loop) + (uint64_t)q.timeout_ms + 1;
		e->frozen_ms = rq->agent->frozen_ms;
		uv_timer_start(&e->deadline, on_deadline, (uint64_t)q.timeout_ms + 1, 0);
	}
	return 0;
}

void execute_post(struct request *rq, struct av_str body)
{
	const struct av_str *accept = av_http_head_get(&rq->head, "accept");
	const struct execute_codec *codec =
	    accept && av_str_eq_c(*accept, execute_codec_aviary.content_type)
	        ? &execute_codec_aviary
	        : &execute_codec_e2b;
	struct av_err err = {0};

	if (run(rq, codec, body, &err) < 0)
		refuse(rq, codec, &err);
}
