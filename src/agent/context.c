/* SPDX-License-Identifier: Apache-2.0 */
/*
 * context.c - /contexts: kernels made, listed, restarted, interrupted, deleted
 *
 *   GET    /contexts                  [{"id","language","cwd","state","execution_count",...}]
 *   POST   /contexts                  {"language","cwd","user","name","shell"}, all optional → one
 * of these POST   /contexts/warm             the same, and "wait": a spare kernel for the next that
 * fits GET    /contexts/{id} POST   /contexts/{id}/restart     → null POST /contexts/{id}/interrupt
 * → null DELETE /contexts/{id}             → null
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "agent/handlers.h"
#include "agent/kernel.h"
#include "base/avtime.h"
#include "base/json.h"

#include "base/banned.h"

#define ANSWER_MAX ((size_t)1024 * 1024)
#define WAIT_MS    5 /* between two looks at a spare */

static void write_kernel(struct av_buf *out, const struct kernel *k)
{
	char time[32];

	av_rfc3339_ms(kernel_last_activity_ms(k), time);
	(void)av_buf_printf(
	    out, "{\"id\":\"%s\",\"language\":\"%s\",\"cwd\":", kernel_id(k), kernel_language(k));
	(void)av_json_write_str(out, av_str_c(kernel_cwd(k)));
	(void)av_buf_append_c(out, ",\"name\":");
	(void)av_json_write_str(out, av_str_c(kernel_name(k)));
	(void)av_buf_printf(out,
	    ",\"state\":\"%s\",\"execution_count\":%" PRIu32 ",\"last_activity\":\"%s\""
	    ",\"interpreter\":",
	    kernel_state_text(kernel_state(k)), kernel_count(k), time);
	(void)av_json_write_str(out, av_str_c(kernel_banner(k)));
	(void)av_buf_append_char(out, '}');
}

static void reply_json(struct request *rq, struct av_buf *out)
{
	if (av_buf_error(out) < 0)
		request_fail(rq, 503, "out of memory in the sandbox's agent");
	else
		request_reply(rq, 200, AV_AGENT_CT_JSON, av_buf_str(out));
}

static void reply_kernel(struct request *rq, const struct kernel *k)
{
	AV_CLEANUP(av_buf_clear) struct av_buf out = AV_BUF_INIT(ANSWER_MAX);

	write_kernel(&out, k);
	reply_json(rq, &out);
}

void context_list(struct request *rq)
{
	AV_CLEANUP(av_buf_clear) struct av_buf out = AV_BUF_INIT(ANSWER_MAX);
	struct kernel *k = NULL;

	(void)av_buf_append_char(&out, '[');
	while ((k = kernel_next(&rq->agent->kernels, k))) {
		if (out.n > 1)
			(void)av_buf_append_char(&out, ',');
		write_kernel(&out, k);
	}
	(void)av_buf_append_char(&out, ']');
	reply_json(rq, &out);
}

/* Strings borrowed from the document; an empty body is an empty object. */
static json_t *parse_params(
    struct av_str body, struct kernel_params *ret, bool *ret_wait, struct av_err *err)
{
	json_t *json = av_json_parse_object(av_str_trim(body).n ? body : AV_STR("{}"), err);
	struct kernel_params p = {0};

	if (!json)
		return NULL;
	if (av_json_get_str(json, "language", &p.language, err) < 0 ||
	    av_json_get_str(json, "cwd", &p.cwd, err) < 0 ||
	    av_json_get_str(json, "user", &p.user, err) < 0 ||
	    av_json_get_str(json, "name", &p.name, err) < 0 ||
	    av_json_get_str(json, "shell", &p.shell, err) < 0 ||
	    av_json_get_bool(json, "wait", ret_wait, err) < 0) {
		json_decref(json);
		return NULL;
	}
	*ret = p;
	return json;
}

void context_create(struct request *rq, struct av_str body)
{
	AV_CLEANUP(av_json_decrefp) json_t *json = NULL;
	struct kernel_params params;
	struct kernel *k = NULL;
	struct av_err err = {0};
	bool wait = false;

	json = parse_params(body, &params, &wait, &err);
	if (!json || kernel_create(&rq->agent->kernels, &params, &k, &err) < 0) {
		request_fail_err(rq, &err);
		return;
	}
	if (kernel_start(k, &err) < 0) {
		kernel_delete(k);
		request_fail_err(rq, &err);
		return;
	}
	reply_kernel(rq, k);
}

/* --- a spare, waited for --- */

struct warm {
	uv_timer_t timer;
	struct request *rq; /* NULL once the stream is closed */
};

static void reply_warm(struct request *rq)
{
	const struct kernel *k = rq->agent->kernels.spare;

	if (k)
		reply_kernel(rq, k);
	else
		request_fail(rq, 502,
		    "the kernel ended before it was ready; see what its interpreter says in the "
		    "sandbox");
}

static void on_warm_closed(uv_handle_t *h)
{
	free(AV_CONTAINER_OF((uv_timer_t *)h, struct warm, timer));
}

static void warm_body(struct request *rq, const uint8_t *p, size_t n)
{
	(void)p;
	request_consume(rq, n);
}

static void warm_close(struct request *rq, uint32_t error)
{
	struct warm *w = rq->data;

	(void)error;
	w->rq = NULL;
	uv_close((uv_handle_t *)&w->timer, on_warm_closed);
}

static const struct request_ops warm_ops = {.on_body = warm_body, .on_close = warm_close};

/* The kernel's own time-out ends this at the latest. */
static void on_warm_timer(uv_timer_t *timer)
{
	struct warm *w = AV_CONTAINER_OF(timer, struct warm, timer);
	struct request *rq = w->rq;

	if (!rq || !kernel_spare_ready(&rq->agent->kernels))
		return;
	w->rq = NULL;
	uv_close((uv_handle_t *)&w->timer, on_warm_closed);
	reply_warm(rq); /* replaces the request's ops */
}

void context_warm(struct request *rq, struct av_str body)
{
	AV_CLEANUP(av_json_decrefp) json_t *json = NULL;
	struct kernel_params params;
	struct av_err err = {0};
	bool wait = false;
	struct warm *w;

	json = parse_params(body, &params, &wait, &err);
	if (!json || kernel_warm(&rq->agent->kernels, &params, &err) < 0) {
		request_fail_err(rq, &err);
		return;
	}
	if (!wait || kernel_spare_ready(&rq->agent->kernels)) {
		reply_warm(rq);
		return;
	}
	w = calloc(1, sizeof(*w));
	if (!w) {
		request_fail(rq, 503, "out of memory in the sandbox's agent");
		return;
	}
	w->rq = rq;
	uv_timer_init(&rq->agent->loop, &w->timer);
	uv_timer_start(&w->timer, on_warm_timer, WAIT_MS, WAIT_MS);
	rq->data = w;
	rq->ops = &warm_ops;
}

/* --- one of them --- */

/* Cuts "/contexts/{id}[/verb]"; answers 404 itself. */
static struct kernel *find(struct request *rq, struct av_str *ret_verb)
{
	struct av_str rest = rq->path, id;
	struct kernel *k;

	rest = av_str_n(rest.p + strlen(AV_AGENT_PATH_CONTEXTS "/"),
	    rest.n - strlen(AV_AGENT_PATH_CONTEXTS "/"));
	*ret_verb = AV_STR("");
	if (av_str_cut(&rest, '/', &id))
		*ret_verb = rest;
	k = kernel_find(&rq->agent->kernels, id);
	if (!k)
		request_fail(
		    rq, 404, "Context %.*s not found", (int)AV_MIN(id.n, (size_t)64), id.p);
	return k;
}

void context_get(struct request *rq)
{
	struct av_str verb;
	const struct kernel *k = find(rq, &verb);

	if (k && verb.n)
		request_fail(rq, 404, "the agent has no route %.*s", AV_STR_ARG(rq->path));
	else if (k)
		reply_kernel(rq, k);
}

void context_verb(struct request *rq)
{
	struct av_str verb;
	struct kernel *k = find(rq, &verb);
	struct av_err err = {0};

	if (!k)
		return;
	if (av_str_eq_c(verb, "interrupt")) {
		kernel_interrupt(k);
	} else if (!av_str_eq_c(verb, "restart")) {
		request_fail(rq, 404, "a context knows restart and interrupt, not '%.*s'",
		    (int)AV_MIN(verb.n, (size_t)64), verb.p);
		return;
	} else if (kernel_restart(k, &err) < 0) {
		request_fail_err(rq, &err);
		return;
	}
	request_reply(rq, 200, AV_AGENT_CT_JSON, AV_STR("null"));
}

void context_delete(struct request *rq)
{
	struct av_str verb;
	struct kernel *k = find(rq, &verb);

	if (!k)
		return;
	if (verb.n) {
		request_fail(rq, 404, "the agent has no route %.*s", AV_STR_ARG(rq->path));
		return;
	}
	kernel_delete(k);
	request_reply(rq, 200, AV_AGENT_CT_JSON, AV_STR("null"));
}
