/* SPDX-License-Identifier: Apache-2.0 */
/*
 * jupyter_channels.c - the WebSocket of a kernel: requests in, messages out (see jupyter.h)
 *
 * Order for an execution, all with the request's header as parent_header: iopub status "busy",
 * execute_input, stream, results and errors as they come, then shell execute_reply, and iopub
 * status "idle", which ends it. When the process dies, the kernel is restarted or the sandbox ends,
 * an error message says so before the reply.
 */
#include "api/jupyter.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "api/native/foreground.h"
#include "base/avtime.h"
#include "base/codec.h"
#include "base/ids.h"
#include "base/json.h"
#include "base/list.h"
#include "net/wsock.h"
#include "proto/agent_api.h"
#include "proto/ws.h"
#include "base/banned.h"

#define MESSAGE_MAX   (AV_AGENT_LINE_MAX + ((size_t)1 << 20))
#define ERROR_MAX     ((size_t)8 << 20) /* content of an error that is repeated in the reply */
#define KERNEL_ID_MAX 64
#define INFO_MAX      256

struct channels {
	struct api *api;
	struct av_wsock *ws; /* NULL after on_close */
	struct control_actor actor;
	char id[AV_ID_SIZE], kernel_id[KERNEL_ID_MAX + 1];
	char session[2 * 16 + 1]; /* of our messages */
	uint64_t messages;
	char interpreter[INFO_MAX]; /* "python 3.11.2" */
	struct av_list runs;        /* of struct run */
	size_t n_runs;
	bool paused; /* the client must catch up */
};

/* One execution of this socket, or one call for it. */
struct run {
	struct av_list node;
	struct channels *c;
	struct av_jupyter_request request;
	struct kernel_run *run;   /* EXECUTE */
	struct kernel_call *call; /* INTERRUPT, SHUTDOWN */
	struct av_buf error;      /* content of the error, for the reply */
	size_t counted;           /* of it, in api->collected_bytes */
	uint32_t count;
};

/* ---- sending ---- */

static void send_message(struct channels *c, const struct av_jupyter_request *rq,
    const char *channel, const char *type, struct av_str content)
{
	AV_CLEANUP(av_buf_clear) struct av_buf out = AV_BUF_INIT(MESSAGE_MAX);
	char msg_id[sizeof(c->session) + 24], now[32];
	struct run *r;

	if (!c->ws)
		return;
	av_rfc3339_ms(av_real_ms(), now);
	(void)snprintf(msg_id, sizeof(msg_id), "%s_%" PRIu64, c->session, ++c->messages);
	(void)av_jupyter_write(&out, &(struct av_jupyter_message){.channel = channel,
	                                 .type = type,
	                                 .msg_id = av_str_c(msg_id),
	                                 .session = av_str_c(c->session),
	                                 .date = now,
	                                 .parent = av_str_c(rq->header),
	                                 .content = content});
	if (av_buf_error(&out) < 0) {
		av_wsock_abort(c->ws);
		return;
	}
	if (av_wsock_send(c->ws, true, av_buf_str(&out)) <= 0 || c->paused)
		return;
	c->paused = true;
	AV_LIST_FOREACH(r, &c->runs, struct run, node)
	if (r->run)
		kernel_run_pause(r->run, true);
}

static void send_status(struct channels *c, const struct av_jupyter_request *rq, bool busy)
{
	send_message(c, rq, "iopub", "status",
	    busy ? AV_STR("{\"execution_state\":\"busy\"}")
	         : AV_STR("{\"execution_state\":\"idle\"}"));
}

static const char *reply_channel(const struct av_jupyter_request *rq)
{
	return rq->on_control ? "control" : "shell";
}

static void send_reply(
    struct channels *c, const struct av_jupyter_request *rq, struct av_str content)
{
	send_message(c, rq, reply_channel(rq), av_jupyter_reply_type(rq->type), content);
}

/* ---- runs ---- */

static void forget_error(struct run *r)
{
	r->c->api->collected_bytes -= r->counted;
	r->counted = 0;
	av_buf_clear(&r->error);
}

/* Without room among all that is collected, the reply says no more than that there was one. */
static void keep_error(struct run *r, struct av_str content)
{
	size_t *total = &r->c->api->collected_bytes;

	forget_error(r);
	if (content.n > FOREGROUND_TOTAL_MAX - *total || av_buf_append_str(&r->error, content) < 0)
		return;
	r->counted = content.n;
	*total += content.n;
}

static void run_free(struct run *r)
{
	av_list_remove(&r->node);
	r->c->n_runs--;
	if (r->run)
		kernel_run_cancel(r->run);
	kernel_call_cancel(r->call);
	av_jupyter_request_clear(&r->request);
	forget_error(r);
	free(r);
}

/* Takes the request over. NULL: it was answered (too many, no memory). */
static struct run *run_new(struct channels *c, struct av_jupyter_request *rq, struct av_err *err)
{
	struct run *r;

	if (c->n_runs >= JUPYTER_RUNS_MAX) {
		(void)av_err_set(err, AV_ERR_RATE_LIMITED,
		    "%d requests of this socket wait already", JUPYTER_RUNS_MAX);
		return NULL;
	}
	r = calloc(1, sizeof(*r));
	if (!r) {
		(void)av_err_set(err, AV_ERR_NO_MEMORY, "no memory for the request");
		return NULL;
	}
	r->c = c;
	r->request = *rq;
	*rq = (struct av_jupyter_request){0};
	av_buf_init(&r->error, ERROR_MAX);
	av_list_init(&r->node);
	av_list_append(&c->runs, &r->node);
	c->n_runs++;
	return r;
}

static void send_input(struct run *r, struct av_str content)
{
	AV_CLEANUP(av_buf_clear) struct av_buf out = AV_BUF_INIT(MESSAGE_MAX);
	AV_CLEANUP(av_json_decrefp) json_t *j = NULL;
	int64_t count = 0;

	if (content.n <= 1024)
		j = av_json_parse_object(content, NULL);
	(void)av_json_get_i64(j, "execution_count", 0, UINT32_MAX, &count, NULL);
	r->count = (uint32_t)count;
	if (r->request.silent)
		return;
	(void)av_buf_append_c(&out, "{\"code\":");
	(void)av_json_write_str(&out, av_str_c(r->request.code));
	(void)av_buf_printf(&out, ",\"execution_count\":%" PRIu32 "}", r->count);
	send_message(r->c, &r->request, "iopub", "execute_input", av_buf_str(&out));
}

static void on_line(void *ctx, enum av_jupyter_line type, struct av_str content)
{
	struct run *r = ctx;

	if (type == AV_JUPYTER_LINE_INPUT) {
		send_input(r, content);
		return;
	}
	if (type == AV_JUPYTER_LINE_ERROR)
		keep_error(r, content);
	send_message(r->c, &r->request, "iopub", av_jupyter_line_text(type), content);
}

/* An error of ours, as the code's own would look. */
static void send_error(struct run *r, const char *name, const char *value)
{
	AV_CLEANUP(av_buf_clear) struct av_buf text = AV_BUF_INIT(4096);

	forget_error(r);
	(void)av_buf_append_c(&r->error, "{\"ename\":");
	(void)av_json_write_str(&r->error, av_str_c(name));
	(void)av_buf_append_c(&r->error, ",\"evalue\":");
	(void)av_json_write_str(&r->error, av_str_c(value));
	(void)av_buf_append_c(&r->error, ",\"traceback\":[");
	(void)av_buf_printf(&text, "%s: %s", name, value);
	(void)av_json_write_str(&r->error, av_buf_str(&text));
	(void)av_buf_append_c(&r->error, "]}");
	send_message(r->c, &r->request, "iopub", "error", av_buf_str(&r->error));
}

static void send_execute_reply(struct run *r, bool ok)
{
	AV_CLEANUP(av_buf_clear) struct av_buf out = AV_BUF_INIT(ERROR_MAX + 1024);
	char head[128];

	(void)snprintf(head, sizeof(head),
	    "{\"status\":\"%s\",\"execution_count\":%" PRIu32
	    ",\"user_expressions\":{},\"payload\":[]",
	    ok ? "ok" : "error", r->count);
	if (ok || av_buf_error(&r->error) < 0 || r->error.n == 0) {
		(void)av_buf_append_c(&out, head);
		(void)av_buf_append_char(&out, '}');
	} else {
		(void)av_jupyter_join(&out, av_str_c(head), av_buf_str(&r->error));
	}
	send_reply(r->c, &r->request, av_buf_str(&out));
}

static const char *error_name(const struct kernel_run_end *end)
{
	if (strcmp(end->status, "died") == 0)
		return end->oom_killed ? "OutOfMemory" : "KernelDied";
	if (strcmp(end->status, "restarted") == 0)
		return "KernelRestarted";
	if (strcmp(end->status, "deleted") == 0)
		return "KernelDeleted";
	return "KernelFailed";
}

static void on_run_end(void *ctx, const struct kernel_run_end *end, const struct av_err *err)
{
	struct run *r = ctx;
	bool ok = !err && strcmp(end->status, "ok") == 0;

	r->run = NULL;
	if (err)
		send_error(r, "SandboxError", err->message);
	else if (!ok && strcmp(end->status, "error") != 0)
		send_error(r, error_name(end), end->message);
	if (!err && end->count)
		r->count = end->count;
	send_execute_reply(r, ok);
	send_status(r->c, &r->request, false);
	run_free(r);
}

static const struct kernel_run_events run_events = {.on_line = on_line, .on_end = on_run_end};

/* Busy was said. */
static void begin_execute(struct run *r)
{
	const struct kernel_run_spec spec = {
	    .code = r->request.code,
	    .kernel_id = r->c->kernel_id,
	    .silent = r->request.silent,
	    .no_store = !r->request.store,
	};
	struct av_err err;

	if (kernel_run_open(
	        r->c->api, &r->c->actor, r->c->id, &spec, &run_events, r, &r->run, &err) < 0)
		on_run_end(r, NULL, &err);
	else if (r->c->paused)
		kernel_run_pause(r->run, true);
}

static void on_call(void *ctx, const json_t *answer, const struct av_err *err)
{
	AV_CLEANUP(av_buf_clear) struct av_buf out = AV_BUF_INIT(4096);
	struct run *r = ctx;

	(void)answer;
	r->call = NULL;
	(void)av_buf_append_c(&out, err ? "{\"status\":\"error\",\"ename\":\"SandboxError\","
	                                  "\"traceback\":[],\"evalue\":"
	                                : "{\"status\":\"ok\",\"restart\":");
	if (err)
		(void)av_json_write_str(&out, av_str_c(err->message));
	else
		(void)av_buf_append_c(&out, r->request.restart ? "true" : "false");
	(void)av_buf_append_char(&out, '}');
	send_reply(r->c, &r->request, av_buf_str(&out));
	send_status(r->c, &r->request, false);
	run_free(r);
}

static void begin_call(struct run *r)
{
	bool interrupt = r->request.type == AV_JUPYTER_INTERRUPT;
	char path[KERNEL_ID_MAX + 16];
	struct av_err err;

	(void)snprintf(path, sizeof(path), "/%s%s", r->c->kernel_id,
	    interrupt            ? "/interrupt"
	    : r->request.restart ? "/restart"
	                         : "");
	if (kernel_call_open(r->c->api, &r->c->actor, r->c->id,
	        interrupt || r->request.restart ? "POST" : "DELETE", path, AV_STR(""), on_call, r,
	        &r->call, &err) < 0)
		on_call(r, NULL, &err);
}

/* ---- requests that are answered here ---- */

static void write_kernel_info(const struct channels *c, struct av_buf *out)
{
	struct av_str version = av_str_c(c->interpreter), word, language = AV_STR("python");

	/* "python 3.11.2, ipython 8.5.0" */
	if (av_str_cut(&version, ' ', &word))
		language = word;
	(void)av_str_cut(&version, ',', &word);
	(void)av_buf_append_c(out, "{\"status\":\"ok\",\"protocol_version\":\"" AV_JUPYTER_PROTOCOL
	                           "\",\"implementation\":\"aviary\",\"implementation_version\":");
	(void)av_json_write_str(out, av_str_c(c->api->version));
	(void)av_buf_append_c(out, ",\"language_info\":{\"name\":");
	(void)av_json_write_str(out, language);
	(void)av_buf_append_c(out, ",\"version\":");
	(void)av_json_write_str(out, word.n ? word : AV_STR("3"));
	(void)av_buf_append_c(out,
	    ",\"mimetype\":\"text/x-python\",\"file_extension\":\".py\",\"pygments_lexer\":"
	    "\"ipython3\",\"codemirror_mode\":{\"name\":\"ipython\",\"version\":3},"
	    "\"nbconvert_exporter\":\"python\"},\"banner\":");
	(void)av_json_write_str(out, av_str_c(c->interpreter));
	(void)av_buf_append_c(out, ",\"help_links\":[],\"debugger\":false}");
}

/* False: it is not one of them. */
static bool answer_here(struct channels *c, const struct av_jupyter_request *rq)
{
	AV_CLEANUP(av_buf_clear) struct av_buf out = AV_BUF_INIT(16384);

	switch (rq->type) {
	case AV_JUPYTER_KERNEL_INFO:
		write_kernel_info(c, &out);
		break;
	case AV_JUPYTER_COMPLETE:
		(void)av_buf_printf(&out,
		    "{\"status\":\"ok\",\"matches\":[],\"cursor_start\":%" PRId64
		    ",\"cursor_end\":%" PRId64 ",\"metadata\":{}}",
		    rq->cursor, rq->cursor);
		break;
	case AV_JUPYTER_INSPECT:
		(void)av_buf_append_c(
		    &out, "{\"status\":\"ok\",\"found\":false,\"data\":{},\"metadata\":{}}");
		break;
	case AV_JUPYTER_IS_COMPLETE:
		(void)av_buf_append_c(&out, "{\"status\":\"unknown\"}");
		break;
	case AV_JUPYTER_HISTORY:
		(void)av_buf_append_c(&out, "{\"status\":\"ok\",\"history\":[]}");
		break;
	case AV_JUPYTER_COMM_INFO:
		(void)av_buf_append_c(&out, "{\"status\":\"ok\",\"comms\":{}}");
		break;
	default:
		return false;
	}
	send_reply(c, rq, av_buf_str(&out));
	return true;
}

static void take_request(struct channels *c, struct av_jupyter_request *rq)
{
	struct av_err err;
	struct run *r;

	if (rq->type == AV_JUPYTER_OTHER)
		return;
	send_status(c, rq, true);
	if (answer_here(c, rq)) {
		send_status(c, rq, false);
		return;
	}
	r = run_new(c, rq, &err);
	if (!r) {
		send_reply(c, rq,
		    AV_STR("{\"status\":\"error\",\"ename\":\"TooManyRequests\",\"evalue\":"
		           "\"too many requests of this socket wait already\","
		           "\"traceback\":[\"TooManyRequests\"]}"));
		send_status(c, rq, false);
	} else if (r->request.type == AV_JUPYTER_EXECUTE) {
		begin_execute(r);
	} else {
		begin_call(r);
	}
}

/* ---- the socket ---- */

static void on_message(void *ctx, struct av_wsock *ws, bool text, struct av_str data)
{
	struct av_jupyter_request rq = {0};
	struct channels *c = ctx;
	struct av_err err;

	if (!text) {
		av_wsock_close(ws, AV_WS_CLOSE_UNSUPPORTED,
		    "text messages are expected; no subprotocol was chosen");
		return;
	}
	if (av_jupyter_parse(data, &rq, &err) < 0) {
		av_wsock_close(ws, AV_WS_CLOSE_POLICY, err.message);
		return;
	}
	take_request(c, &rq);
	av_jupyter_request_clear(&rq);
}

static void on_drain(void *ctx, struct av_wsock *ws)
{
	struct channels *c = ctx;
	struct run *r;

	(void)ws;
	c->paused = false;
	AV_LIST_FOREACH(r, &c->runs, struct run, node)
	if (r->run)
		kernel_run_pause(r->run, false);
}

static void on_close(void *ctx, struct av_wsock *ws, int code)
{
	struct channels *c = ctx;
	struct run *r;

	(void)ws;
	(void)code;
	c->ws = NULL;
	while ((r = AV_LIST_FIRST(&c->runs, struct run, node)))
		run_free(r);
	c->api->metrics.streams_open--;
	free(c);
}

static const struct av_wsock_handler handler = {
    .on_message = on_message, .on_drain = on_drain, .on_close = on_close};

void jupyter_channels(struct api_request *rq, const char *kernel_id, const json_t *info)
{
	const char *interpreter = json_string_value(json_object_get(info, "interpreter"));
	struct channels *c;
	uint8_t random[16];
	struct av_err err;

	if (!av_req_is_websocket(rq->req)) {
		(void)av_err_set(&err, AV_ERR_INVALID,
		    "this path speaks WebSocket; open it with a handshake (RFC 6455, version 13)");
		jupyter_send_err(rq, &err);
		return;
	}
	c = calloc(1, sizeof(*c));
	if (!c || av_req_upgrade_ws(rq->req, NULL, &handler, c, &c->ws) < 0) {
		free(c);
		(void)av_err_set(&err, AV_ERR_NO_MEMORY, "no memory for the session");
		jupyter_send_err(rq, &err);
		return;
	}
	c->api = rq->api;
	c->actor = rq->actor;
	av_list_init(&c->runs);
	(void)snprintf(c->id, sizeof(c->id), "%s", rq->id);
	(void)snprintf(c->kernel_id, sizeof(c->kernel_id), "%s", kernel_id);
	(void)snprintf(
	    c->interpreter, sizeof(c->interpreter), "%.200s", interpreter ? interpreter : "");
	av_random(random, sizeof(random));
	av_hex_encode(c->session, random, sizeof(random));
	c->api->metrics.streams_open++;
	rq->on_gone(rq, 0);
	api_request_release(rq);
}
