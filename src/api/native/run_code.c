/* SPDX-License-Identifier: Apache-2.0 */
/*
 * run_code.c - POST /v1/sandboxes/{id}/run_code: code in, what it did out
 *
 * Two answers: one JSON object when all is over, or, with "stream": true, a line of JSON for each
 * event, as it comes, and one that begins with "type":"finished" at the end. An error of the code
 * is an answer, not a failure: the status is 200. A client that goes away interrupts the code.
 *
 * Of the collected answer at most RUN_TEXT_MAX bytes of each output and RUN_RESULTS_MAX of results
 * are kept, and of all answers together, those of exec included, FOREGROUND_TOTAL_MAX; "truncated"
 * says that there was more, and the code runs on to its end in any case. It goes out in pieces
 * (api/pieces.h).
 */
#include "api/native/native.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "api/kernel_run.h"
#include "api/native/foreground.h"
#include "api/pieces.h"
#include "api/request.h"
#include "base/avtime.h"
#include "base/json.h"
#include "proto/agent_api.h"
#include "base/banned.h"

#define TIMEOUT_DEFAULT_MS 30000
#define TIMEOUT_MAX_MS     (365LL * 24 * 3600 * 1000)
#define ENVS_MAX           256
#define RUN_TEXT_MAX       ((size_t)4 << 20)
#define RUN_RESULTS_MAX    ((size_t)16 << 20)
#define ERROR_MAX          ((size_t)8 << 20)
#define STREAM_LINE_MAX    ((size_t)64 * 1024) /* a "stream" of the agent that is read here */
#define EDGE_MAX           ((size_t)16 << 10)  /* what is before and after the outputs */
#define KERNEL_ID_MAX      64

/* rq->state */
struct run_code {
	struct api_request *rq;
	struct kernel_run *run; /* NULL once over */
	bool stream;
	int64_t start_ns;
	char kernel_id[KERNEL_ID_MAX + 1];
	uint32_t count;
	struct av_buf text[2]; /* stdout, stderr */
	struct av_buf results; /* members of the array, with commas between */
	struct av_buf error;   /* content of the last one */
	size_t counted;        /* of these, in api->collected_bytes */
	bool truncated;
	struct av_buf head, tail; /* of the answer, once it is begun */
	struct api_pieces pieces;
};

static void run_gone(struct api_request *rq, int status)
{
	struct run_code *c = rq->state;

	(void)status;
	if (c->run)
		kernel_run_cancel(c->run);
	rq->api->collected_bytes -= c->counted;
	api_pieces_stop(&c->pieces);
	av_buf_clear(&c->text[0]);
	av_buf_clear(&c->text[1]);
	av_buf_clear(&c->results);
	av_buf_clear(&c->error);
	av_buf_clear(&c->head);
	av_buf_clear(&c->tail);
	free(c);
}

static void run_drain(struct api_request *rq)
{
	struct run_code *c = rq->state;

	if (c->run)
		kernel_run_pause(c->run, false);
	else
		api_pieces_drain(&c->pieces);
}

/* ---- events, collected ---- */

/* What may still be appended, by its own bound and that of all together. */
static size_t room_in(const struct run_code *c, const struct av_buf *to)
{
	return AV_MIN(to->max - to->n, FOREGROUND_TOTAL_MAX - c->rq->api->collected_bytes);
}

/* After each event, whether it added or cleared. */
static void recount(struct run_code *c)
{
	size_t n = c->text[0].n + c->text[1].n + c->results.n + c->error.n;

	c->rq->api->collected_bytes += n - c->counted;
	c->counted = n;
}

/* Appends all or nothing. */
static void keep(struct run_code *c, struct av_buf *to, struct av_str data)
{
	if (data.n > room_in(c, to))
		c->truncated = true;
	else if (av_buf_append_str(to, data) < 0)
		c->truncated = true;
}

static void keep_text(struct run_code *c, struct av_str content)
{
	AV_CLEANUP(av_json_decrefp) json_t *j = NULL;
	const char *name = "", *text = "";
	struct av_err err;
	struct av_buf *to;
	struct av_str s;

	if (content.n <= STREAM_LINE_MAX * 8)
		j = av_json_parse_object(content, &err);
	if (!j || av_json_get_str(j, "name", &name, &err) < 0 ||
	    av_json_get_str(j, "text", &text, &err) < 0) {
		c->truncated = true;
		return;
	}
	to = &c->text[strcmp(name, "stderr") == 0];
	s = av_str_c(text);
	/* What fits, up to a whole character. */
	if (s.n > room_in(c, to)) {
		s.n = room_in(c, to);
		s.n -= av_utf8_incomplete_tail(s);
		c->truncated = true;
	}
	keep(c, to, s);
}

static void keep_result(struct run_code *c, bool is_main, struct av_str content)
{
	struct av_str head =
	    is_main ? AV_STR("{\"is_main_result\":true") : AV_STR("{\"is_main_result\":false");

	if (content.n + head.n + 2 > room_in(c, &c->results)) {
		c->truncated = true;
		return;
	}
	if (c->results.n)
		(void)av_buf_append_char(&c->results, ',');
	(void)av_jupyter_join(&c->results, head, content);
}

static void keep_input(struct run_code *c, struct av_str content)
{
	AV_CLEANUP(av_json_decrefp) json_t *j = NULL;
	const char *id = "";
	int64_t count = 0;
	struct av_err err;

	if (content.n <= 1024)
		j = av_json_parse_object(content, &err);
	if (!j || av_json_get_i64(j, "execution_count", 0, UINT32_MAX, &count, &err) < 0 ||
	    av_json_get_str(j, "context_id", &id, &err) < 0 ||
	    av_str_copy(c->kernel_id, sizeof(c->kernel_id), av_str_c(id)) < 0)
		return;
	c->count = (uint32_t)count;
}

static void collect(struct run_code *c, enum av_jupyter_line type, struct av_str content)
{
	switch (type) {
	case AV_JUPYTER_LINE_STREAM:
		keep_text(c, content);
		break;
	case AV_JUPYTER_LINE_RESULT:
		keep_result(c, true, content);
		break;
	case AV_JUPYTER_LINE_DISPLAY:
	case AV_JUPYTER_LINE_UPDATE:
		keep_result(c, false, content);
		break;
	case AV_JUPYTER_LINE_ERROR:
		av_buf_clear(&c->error);
		recount(c);
		keep(c, &c->error, content);
		break;
	case AV_JUPYTER_LINE_CLEAR:
		av_buf_clear(&c->text[0]);
		av_buf_clear(&c->text[1]);
		av_buf_clear(&c->results);
		break;
	default:
		break;
	}
	recount(c);
}

/* ---- events, streamed ---- */

static void stream_out(struct run_code *c, const struct av_buf *line)
{
	int r = av_buf_error(line);

	if (r == 0)
		r = av_res_write(c->rq->req, av_buf_str(line));
	if (r > 0 && c->run)
		kernel_run_pause(c->run, true);
	else if (r < 0)
		av_res_abort(c->rq->req); /* on_gone follows from the loop */
}

static void stream_event(struct run_code *c, enum av_jupyter_line type, struct av_str content)
{
	AV_CLEANUP(av_buf_clear) struct av_buf line = AV_BUF_INIT(AV_AGENT_LINE_MAX + 256);
	AV_CLEANUP(av_buf_clear) struct av_buf head = AV_BUF_INIT(128);

	(void)av_buf_printf(&head, "{\"type\":\"%s\"", av_jupyter_line_text(type));
	(void)av_jupyter_join(&line, av_buf_str(&head), content);
	(void)av_buf_append_char(&line, '\n');
	stream_out(c, &line);
}

static void on_line(void *ctx, enum av_jupyter_line type, struct av_str content)
{
	struct run_code *c = ctx;

	if (type == AV_JUPYTER_LINE_INPUT)
		keep_input(c, content);
	if (c->stream)
		stream_event(c, type, content);
	else
		collect(c, type, content);
}

/* ---- the end ---- */

static void write_end(
    const struct run_code *c, const struct kernel_run_end *end, struct av_buf *out)
{
	const char *status = end->timed_out ? "timeout" : end->oom_killed ? "oom" : end->status;

	(void)av_buf_append_c(out, "\"status\":");
	(void)av_json_write_str(out, av_str_c(status));
	(void)av_buf_printf(out,
	    ",\"execution_count\":%" PRIu32 ",\"kernel_id\":", end->count ? end->count : c->count);
	(void)av_json_write_str(out, av_str_c(c->kernel_id));
	if (end->message[0]) {
		(void)av_buf_append_c(out, ",\"message\":");
		(void)av_json_write_str(out, av_str_c(end->message));
	}
	(void)av_buf_printf(out, ",\"duration_ms\":%" PRId64,
	    (int64_t)((av_mono_ns() - c->start_ns) / AV_NS_PER_MS));
}

static int begin_answer(struct run_code *c, const struct kernel_run_end *end)
{
	struct api_pieces *p = &c->pieces;

	(void)av_buf_printf(&c->head, "{\"sandbox_id\":\"%s\",", c->rq->id);
	write_end(c, end, &c->head);
	(void)av_buf_append_c(&c->head, ",\"stdout\":\"");
	(void)av_buf_printf(&c->tail, ",\"truncated\":%s}", c->truncated ? "true" : "false");
	api_pieces_add(p, API_PART_RAW, av_buf_str(&c->head));
	api_pieces_add(p, API_PART_TEXT, av_buf_str(&c->text[0]));
	api_pieces_add(p, API_PART_RAW, AV_STR("\",\"stderr\":\""));
	api_pieces_add(p, API_PART_TEXT, av_buf_str(&c->text[1]));
	api_pieces_add(p, API_PART_RAW, AV_STR("\",\"results\":["));
	api_pieces_add(p, API_PART_RAW, av_buf_str(&c->results));
	api_pieces_add(p, API_PART_RAW, AV_STR("],\"error\":"));
	api_pieces_add(p, API_PART_RAW, c->error.n ? av_buf_str(&c->error) : AV_STR("null"));
	api_pieces_add(p, API_PART_RAW, av_buf_str(&c->tail));
	return av_buf_error(&c->head) < 0 ? av_buf_error(&c->head) : av_buf_error(&c->tail);
}

static void send_answer(struct run_code *c, const struct kernel_run_end *end)
{
	struct av_err err;

	if (begin_answer(c, end) < 0) {
		(void)av_err_set(&err, AV_ERR_NO_MEMORY, "no memory for the answer");
		api_send_err(c->rq, &err);
		return;
	}
	api_pieces_send(&c->pieces, c->rq, 200);
}

static void stream_error(struct run_code *c, const struct av_err *err)
{
	AV_CLEANUP(av_buf_clear) struct av_buf line = AV_BUF_INIT(8192);

	(void)av_buf_append_c(&line, "{\"type\":\"finished\",\"status\":\"failed\",\"message\":");
	(void)av_json_write_str(&line, av_str_c(err->message));
	(void)av_buf_append_c(&line, ",\"code\":");
	(void)av_json_write_str(&line, av_str_c(av_err_code(err->kind)));
	(void)av_buf_append_c(&line, "}\n");
	stream_out(c, &line);
}

static void stream_end(
    struct run_code *c, const struct kernel_run_end *end, const struct av_err *err)
{
	AV_CLEANUP(av_buf_clear) struct av_buf line = AV_BUF_INIT(8192);

	if (err) {
		stream_error(c, err);
	} else {
		(void)av_buf_append_c(&line, "{\"type\":\"finished\",");
		write_end(c, end, &line);
		(void)av_buf_append_c(&line, "}\n");
		stream_out(c, &line);
	}
	(void)av_res_end(c->rq->req);
}

static void on_end(void *ctx, const struct kernel_run_end *end, const struct av_err *err)
{
	struct run_code *c = ctx;

	c->run = NULL;
	if (c->stream) {
		stream_end(c, end, err);
	} else if (err) {
		api_send_err(c->rq, err);
	} else {
		send_answer(c, end);
	}
}

static const struct kernel_run_events run_events = {.on_line = on_line, .on_end = on_end};

/* ---- the request ---- */

static int parse(
    const json_t *body, struct kernel_run_spec *spec, bool *ret_stream, struct av_err *err)
{
	struct kernel_run_spec s = {.timeout_ms = TIMEOUT_DEFAULT_MS};
	bool store = true;
	int r;

	if ((r = av_json_get_str(body, "code", &s.code, err)) < 0 ||
	    (r = av_json_get_str(body, "kernel_id", &s.kernel_id, err)) < 0 ||
	    (r = av_json_get_str(body, "language", &s.language, err)) < 0 ||
	    (r = av_json_get_str(body, "shell", &s.shell, err)) < 0 ||
	    (r = av_json_get_str_map(body, "envs", ENVS_MAX, &s.envs, err)) < 0 ||
	    (r = av_json_get_str_array(body, "figure_formats", 2, &s.formats, err)) < 0 ||
	    (r = av_json_get_seconds_ms(body, "timeout_sec", TIMEOUT_MAX_MS, &s.timeout_ms, err)) <
	        0 ||
	    (r = av_json_get_bool(body, "silent", &s.silent, err)) < 0 ||
	    (r = av_json_get_bool(body, "store_history", &store, err)) < 0 ||
	    (r = av_json_get_bool(body, "stream", ret_stream, err)) < 0)
		return r;
	if (!s.code)
		return av_err_set(err, AV_ERR_INVALID, "'code' is missing: the text to run");
	s.no_store = !store;
	*spec = s;
	return 0;
}

static struct run_code *run_new(struct api_request *rq, bool stream)
{
	struct run_code *c = calloc(1, sizeof(*c));

	if (!c)
		return NULL;
	c->rq = rq;
	c->stream = stream;
	c->start_ns = av_mono_ns();
	av_buf_init(&c->text[0], RUN_TEXT_MAX);
	av_buf_init(&c->text[1], RUN_TEXT_MAX);
	av_buf_init(&c->results, RUN_RESULTS_MAX);
	av_buf_init(&c->error, ERROR_MAX);
	av_buf_init(&c->head, EDGE_MAX);
	av_buf_init(&c->tail, EDGE_MAX);
	return c;
}

static void start_stream(struct api_request *rq)
{
	const struct av_http_header headers[] = {
	    {.name = AV_STR("content-type"), .value = AV_STR("application/x-ndjson")},
	    {.name = AV_STR("cache-control"), .value = AV_STR("no-store")},
	};

	/* Code may think, and its reader may rest, for as long as they like. */
	av_res_set_write_timeout(rq->req, 0);
	api_started(rq, 200);
	(void)av_res_start(rq->req, 200, headers, AV_ARRAY_LEN(headers), -1);
}

void native_run_code(struct api_request *rq)
{
	struct kernel_run_spec spec;
	bool stream = false;
	struct run_code *c = NULL;
	struct av_err err;
	int r = parse(rq->body, &spec, &stream, &err);

	if (r == 0 && !(c = run_new(rq, stream)))
		r = av_err_set(&err, AV_ERR_NO_MEMORY, "out of memory");
	if (r == 0)
		r = kernel_run_open(
		    rq->api, &rq->actor, rq->id, &spec, &run_events, c, &c->run, &err);
	if (r < 0) {
		free(c);
		api_send_err(rq, &err);
		return;
	}
	rq->state = c;
	rq->on_gone = run_gone;
	rq->on_drain = run_drain;
	if (stream)
		start_stream(rq);
}
