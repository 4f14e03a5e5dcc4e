/* SPDX-License-Identifier: Apache-2.0 */
/*
 * calls.c - answers that somebody waits for: unary calls, and execs that are collected or left
 * alone
 */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>

#include "base/avtime.h"
#include "base/json.h"
#include "base/path.h"
#include "node/node_internal.h"
#include "proto/agent_api.h"

#include "base/banned.h"

#define PROCESSES_MAX        65536
#define PROCESSES_ANSWER_MAX (8UL * 1024 * 1024)

/* ---- unary calls ---- */

struct rpc {
	struct node_call call; /* first */
	struct conv conv;
	struct av_buf body;
	size_t max;
	int status;
	node_json_fn *fn;
	void *ctx;
};

static struct rpc *to_rpc(struct conv *c)
{
	return AV_CONTAINER_OF(c, struct rpc, conv);
}

static void rpc_on_response(struct conv *c, const struct av_http_head *head)
{
	to_rpc(c)->status = head->status;
}

static void rpc_on_data(struct conv *c, struct av_str data)
{
	struct rpc *r = to_rpc(c);
	struct av_err err;

	av_h2s_consume(c->h2s, data.n);
	if (av_buf_append_str(&r->body, data) < 0) {
		(void)av_err_set(&err, AV_ERR_AGENT,
		    "the sandbox's agent answers with more than %zu bytes", r->max);
		conv_abort(c, &err);
	}
}

static void rpc_on_complete(struct conv *c)
{
	struct rpc *r = to_rpc(c);
	AV_CLEANUP(av_json_decrefp) json_t *answer = NULL;
	struct av_err err;

	if (r->status != 200) {
		agent_error(&err, r->status, av_buf_str(&r->body));
		conv_fail(c, &err);
		return;
	}
	answer = av_json_parse_object(av_buf_str(&r->body), NULL);
	if (!answer) {
		(void)av_err_set(&err, AV_ERR_AGENT,
		    "the sandbox's agent answered with something that is no JSON object");
		conv_fail(c, &err);
		return;
	}
	conv_end(c, true);
	r->fn(r->ctx, answer, NULL);
}

static void rpc_fail(struct conv *c, const struct av_err *err)
{
	struct rpc *r = to_rpc(c);

	r->fn(r->ctx, NULL, err);
}

static void rpc_free(struct conv *c)
{
	struct rpc *r = to_rpc(c);

	av_buf_clear(&r->body);
	free(r);
}

static const struct conv_ops rpc_ops = {
    .on_response = rpc_on_response,
    .on_data = rpc_on_data,
    .on_complete = rpc_on_complete,
    .fail = rpc_fail,
    .free = rpc_free,
};

static void rpc_cancel(struct node_call *call)
{
	struct rpc *r = AV_CONTAINER_OF(call, struct rpc, call);

	conv_end(&r->conv, false);
}

static int rpc_open(struct node_sandbox *sb, const char *path, struct av_str body,
    const struct rpc *model, struct node_call **ret, struct av_err *err)
{
	const struct av_http_header headers[] = {
	    {AV_STR("content-type"), AV_STR(AV_AGENT_CT_JSON)},
	    {AV_STR("connect-protocol-version"), AV_STR("1")},
	};
	const struct av_h2s_request rq = {
	    .method = AV_STR("POST"),
	    .path = av_str_c(path),
	    .authority = AV_STR(AV_AGENT_AUTHORITY),
	    .headers = headers,
	    .n_headers = AV_ARRAY_LEN(headers),
	    .body = body,
	};
	struct rpc *r = calloc(1, sizeof(*r));
	int result;

	if (!r) {
		(void)av_err_set(err, AV_ERR_NO_MEMORY, "out of memory");
		return -ENOMEM;
	}
	*r = *model;
	r->call.cancel = rpc_cancel;
	av_buf_init(&r->body, r->max);
	result = conv_open(&r->conv, sb, LINK_INTERACTIVE, &rpc_ops, &rq, err);
	if (result < 0) {
		free(r);
		return result;
	}
	if (ret)
		*ret = &r->call;
	return 0;
}

int node_rpc(struct node_sandbox *sb, const char *path, struct av_str body, size_t max_answer,
    node_json_fn *fn, void *ctx, struct node_call **ret, struct av_err *err)
{
	const struct rpc model = {.max = max_answer, .fn = fn, .ctx = ctx};

	return rpc_open(sb, path, body, &model, ret, err);
}

/* ---- processes ---- */

/* What waits for the answer of a unary call and translates it. */
struct translate {
	struct node_call call; /* first */
	struct node_call *inner;
	node_processes_fn *processes;
	node_count_fn *count;
	node_done_fn *done;
	void *ctx;
	bool quiet;
};

static void translate_cancel(struct node_call *call)
{
	struct translate *t = AV_CONTAINER_OF(call, struct translate, call);

	node_call_cancel(t->inner);
	free(t);
}

static int read_processes(
    const json_t *answer, struct node_process **ret, size_t *ret_n, struct av_err *err)
{
	const json_t *list = NULL, *item;
	struct node_process *v;
	size_t i;

	if (av_json_get_array(answer, "processes", PROCESSES_MAX, &list, err) < 0)
		return -EINVAL;
	v = calloc(json_array_size(list) + 1, sizeof(*v));
	if (!v)
		return av_err_set(err, AV_ERR_NO_MEMORY, "out of memory");
	json_array_foreach (list, i, item) {
		const json_t *config = json_object_get(item, "config");
		const json_t *args = json_object_get(config, "args");
		json_int_t pid = json_integer_value(json_object_get(item, "pid"));
		const char *cmd = json_string_value(json_object_get(config, "cmd"));
		const char *tag = json_string_value(json_object_get(item, "tag"));

		if (pid <= 0 || pid > UINT32_MAX || !cmd || (args && !json_is_array(args))) {
			free(v);
			return av_err_set(err, AV_ERR_AGENT, "a process without pid or command");
		}
		v[i] = (struct node_process){
		    .pid = (uint32_t)pid,
		    .cmd = cmd,
		    .tag = tag ? tag : "",
		    .args = args,
		};
	}
	*ret = v;
	*ret_n = json_array_size(list);
	return 0;
}

/* Those that were not started by the agent for itself. */
static size_t count_commands(const json_t *answer)
{
	const json_t *item;
	size_t n = 0, i;

	json_array_foreach (json_object_get(answer, "processes"), i, item)
		n += !json_is_true(json_object_get(item, "service"));
	return n;
}

static void on_process_list(void *ctx, const json_t *answer, const struct av_err *err)
{
	struct translate *t = ctx;
	struct node_process *v = NULL;
	struct av_err own;
	size_t n = 0;

	av_err_clear(&own);
	if (!err && read_processes(answer, &v, &n, &own) < 0) {
		own.kind = AV_ERR_AGENT;
		av_err_prefix(&own, "the sandbox's agent broke the protocol");
		err = &own;
	}
	if (t->count)
		t->count(t->ctx, err ? 0 : count_commands(answer), err);
	else
		t->processes(t->ctx, v, n, err);
	free(v);
	free(t);
}

static void on_signalled(void *ctx, const json_t *answer, const struct av_err *err)
{
	struct translate *t = ctx;

	(void)answer;
	t->done(t->ctx, err);
	free(t);
}

static int translate_rpc(struct node_sandbox *sb, struct translate *model, const char *path,
    struct av_str body, node_json_fn *fn, struct node_call **ret, struct av_err *err)
{
	struct translate *t = malloc(sizeof(*t));
	const struct rpc rpc = {
	    .max = PROCESSES_ANSWER_MAX, .fn = fn, .ctx = t, .conv.quiet = model->quiet};
	int r;

	if (!t)
		return av_err_set(err, AV_ERR_NO_MEMORY, "out of memory");
	*t = *model;
	t->call.cancel = translate_cancel;
	r = rpc_open(sb, path, body, &rpc, &t->inner, err);
	if (r < 0) {
		free(t);
		return r;
	}
	if (ret)
		*ret = &t->call;
	return 0;
}

int node_processes(struct node_sandbox *sb, node_processes_fn *fn, void *ctx,
    struct node_call **ret, struct av_err *err)
{
	struct translate model = {.processes = fn, .ctx = ctx};

	return translate_rpc(
	    sb, &model, AV_AGENT_PATH_LIST, AV_STR("{}"), on_process_list, ret, err);
}

int node_count_processes(struct node_sandbox *sb, node_count_fn *fn, void *ctx,
    struct node_call **ret, struct av_err *err)
{
	struct translate model = {.count = fn, .ctx = ctx, .quiet = true};

	return translate_rpc(
	    sb, &model, AV_AGENT_PATH_LIST, AV_STR("{}"), on_process_list, ret, err);
}

static void on_told(void *ctx, const json_t *answer, const struct av_err *err)
{
	(void)ctx;
	(void)answer;
	(void)err; /* an older agent does not know it */
}

void node_tell_thaw(struct node_sandbox *sb, int64_t frozen_ms)
{
	const struct rpc rpc = {.max = 4096, .fn = on_told, .conv.quiet = true};
	char body[64];

	if (av_path_printf(body, sizeof(body), "{\"frozen_ms\":%lld}", (long long)frozen_ms) == 0)
		(void)rpc_open(sb, AV_AGENT_PATH_THAWED, av_str_c(body), &rpc, NULL, NULL);
}

int node_process_signal(struct node_sandbox *sb, const struct node_selector *sel, int signo,
    node_done_fn *fn, void *ctx, struct node_call **ret, struct av_err *err)
{
	struct translate model = {.done = fn, .ctx = ctx};
	struct av_buf b = AV_BUF_INIT(8192);
	int r;

	if (signo != SIGKILL && signo != SIGTERM)
		return av_err_set(
		    err, AV_ERR_INVALID, "only SIGKILL and SIGTERM can be sent to a process");
	(void)av_buf_append_c(&b, "{\"process\":{");
	if (sel->pid) {
		(void)av_buf_printf(&b, "\"pid\":%u", sel->pid);
	} else {
		(void)av_buf_append_c(&b, "\"tag\":");
		(void)av_json_write_str(&b, av_str_c(sel->tag));
	}
	(void)av_buf_printf(&b, "},\"signal\":\"%s\",\"scope\":\"group\"}",
	    signo == SIGKILL ? "SIGNAL_SIGKILL" : "SIGNAL_SIGTERM");
	if (av_buf_error(&b))
		r = av_err_set(err, AV_ERR_INVALID, "the tag is too long");
	else
		r = translate_rpc(
		    sb, &model, AV_AGENT_PATH_SIGNAL, av_buf_str(&b), on_signalled, ret, err);
	av_buf_clear(&b);
	return r;
}

int node_warm_kernel(struct node_sandbox *sb, node_done_fn *fn, void *ctx, struct node_call **ret,
    struct av_err *err)
{
	struct translate model = {.done = fn, .ctx = ctx};

	return translate_rpc(
	    sb, &model, AV_AGENT_PATH_WARM, AV_STR("{\"wait\":true}"), on_signalled, ret, err);
}

/* ---- execs that are collected, or left alone ---- */

struct collect {
	struct node_call call; /* first */
	struct node_exec *exec;
	struct av_buf out, err_out;
	bool out_truncated, err_truncated;
	int64_t begun_ns;
	node_exec_result_fn *on_result;
	node_exec_started_fn *on_started;
	void *ctx;
};

static void collect_free(struct collect *c)
{
	av_buf_clear(&c->out);
	av_buf_clear(&c->err_out);
	free(c);
}

static void collect_cancel(struct node_call *call)
{
	struct collect *c = AV_CONTAINER_OF(call, struct collect, call);

	node_exec_cancel(c->exec);
	collect_free(c);
}

static void keep(struct av_buf *b, bool *truncated, struct av_str data)
{
	size_t room = b->max - b->n;

	if (*truncated)
		return;
	if (data.n > room)
		*truncated = true;
	if (av_buf_append_str(b, av_str_n(data.p, AV_MIN(data.n, room))) < 0)
		*truncated = true; /* out of memory: what is there is kept */
}

static void collect_output(void *ctx, enum node_channel channel, struct av_str data)
{
	struct collect *c = ctx;

	if (channel == NODE_CH_STDERR)
		keep(&c->err_out, &c->err_truncated, data);
	else
		keep(&c->out, &c->out_truncated, data);
}

static void collect_end(void *ctx, const struct node_exec_end *end, const struct av_err *err)
{
	struct collect *c = ctx;
	struct node_exec_result result = {
	    .out = av_buf_str(&c->out),
	    .err_out = av_buf_str(&c->err_out),
	    .out_truncated = c->out_truncated,
	    .err_truncated = c->err_truncated,
	    .duration_ms = (av_mono_ns() - c->begun_ns) / AV_NS_PER_MS,
	};

	if (end)
		result.end = *end;
	c->on_result(c->ctx, end ? &result : NULL, err);
	collect_free(c);
}

static const struct node_exec_events collect_events = {
    .on_output = collect_output,
    .on_end = collect_end,
};

/* It runs: we leave, and it lives on. */
static void background_start(void *ctx, uint32_t pid, const char *tag)
{
	struct collect *c = ctx;

	c->on_started(c->ctx, pid, tag, NULL);
	node_exec_cancel(c->exec);
	collect_free(c);
}

static void background_end(void *ctx, const struct node_exec_end *end, const struct av_err *err)
{
	struct collect *c = ctx;
	struct av_err own;

	(void)end;
	if (!err) {
		(void)av_err_set(&own, AV_ERR_AGENT,
		    "the sandbox's agent ended the process without starting it");
		err = &own;
	}
	c->on_started(c->ctx, 0, "", err);
	collect_free(c);
}

static const struct node_exec_events background_events = {
    .on_start = background_start,
    .on_end = background_end,
};

static int collect_open(struct node_sandbox *sb, const struct node_exec_spec *spec,
    struct collect *model, const struct node_exec_events *ev, struct node_call **ret,
    struct av_err *err)
{
	struct collect *c = malloc(sizeof(*c));
	int r;

	if (!c)
		return av_err_set(err, AV_ERR_NO_MEMORY, "out of memory");
	*c = *model;
	c->call.cancel = collect_cancel;
	c->begun_ns = av_mono_ns();
	av_buf_init(&c->out, sb->node->collect_max);
	av_buf_init(&c->err_out, sb->node->collect_max);
	r = node_exec_open(sb, spec, ev, c, &c->exec, err);
	if (r < 0) {
		free(c);
		return r;
	}
	if (ret)
		*ret = &c->call;
	return 0;
}

int node_exec_collect(struct node_sandbox *sb, const struct node_exec_spec *spec,
    node_exec_result_fn *fn, void *ctx, struct node_call **ret, struct av_err *err)
{
	struct collect model = {.on_result = fn, .ctx = ctx};

	return collect_open(sb, spec, &model, &collect_events, ret, err);
}

int node_exec_background(struct node_sandbox *sb, const struct node_exec_spec *spec,
    node_exec_started_fn *fn, void *ctx, struct node_call **ret, struct av_err *err)
{
	struct node_exec_spec kept = *spec;
	struct collect model = {.on_started = fn, .ctx = ctx};

	kept.keep_on_detach = kept.unattended = true;
	return collect_open(sb, &kept, &model, &background_events, ret, err);
}
