/* SPDX-License-Identifier: Apache-2.0 */
/*
 * jupyter.c - Jupyter's kernel API on port 8888 of every sandbox: the REST part (see jupyter.h)
 *
 *   GET    /api                          version
 *   GET    /api/status
 *   GET    /api/kernelspecs
 *   GET    /api/kernels
 *   POST   /api/kernels                  {"name","path"}, optional → 201
 *   GET    /api/kernels/{id}
 *   DELETE /api/kernels/{id}             → 204
 *   POST   /api/kernels/{id}/interrupt   → 204
 *   POST   /api/kernels/{id}/restart
 *   GET    /api/kernels/{id}/channels    WebSocket
 */
#include "api/jupyter.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/avtime.h"
#include "base/json.h"
#include "control/sandbox.h"
#include "base/banned.h"

#define BODY_MAX   65536
#define ANSWER_MAX ((size_t)1 << 20)
#define ID_MAX     64

enum verb {
	VERB_LIST,
	VERB_STATUS,
	VERB_CREATE,
	VERB_GET,
	VERB_DELETE,
	VERB_INTERRUPT,
	VERB_RESTART,
	VERB_CHANNELS,
};

/* rq->state of a request that asks the agent. */
struct ask {
	struct api_request *rq;
	struct kernel_call *call; /* NULL once answered */
	enum verb verb;
	char id[ID_MAX + 1];
};

/* Names under which clients ask for a kernel of Python; the first is the default. */
static const struct {
	const char *name, *shown;
} specs[] = {{"python3", "Python 3"}, {"wrenn", "Python 3"}, {"python", "Python 3"}};

/* ---- answers ---- */

void jupyter_send_err(struct api_request *rq, const struct av_err *err)
{
	AV_CLEANUP(av_buf_clear) struct av_buf out = AV_BUF_INIT(ANSWER_MAX);

	(void)av_buf_append_c(&out, "{\"message\":");
	(void)av_json_write_str(&out, av_str_c(err->message));
	(void)av_buf_append_c(&out, ",\"reason\":null,\"error\":{\"code\":");
	(void)av_json_write_str(&out, av_str_c(av_err_code(err->kind)));
	(void)av_buf_append_c(&out, ",\"message\":");
	(void)av_json_write_str(&out, av_str_c(err->message));
	(void)av_buf_append_c(&out, "}}");
	api_send_json(rq, av_err_http_status(err->kind), &out);
}

/* Jupyter's words: starting, idle, busy. A kernel without a process starts with the next use. */
static const char *state_text(const char *state)
{
	return strcmp(state, "busy") == 0 || strcmp(state, "starting") == 0 ? state : "idle";
}

/* A kernel as Jupyter shows it; false when the agent's object is not one. */
static bool write_model(struct av_buf *out, const json_t *info)
{
	const char *id = "", *name = "", *state = "", *time = "";
	struct av_err err;

	if (!json_is_object(info) || av_json_get_str(info, "id", &id, &err) < 0 ||
	    av_json_get_str(info, "name", &name, &err) < 0 ||
	    av_json_get_str(info, "state", &state, &err) < 0 ||
	    av_json_get_str(info, "last_activity", &time, &err) < 0)
		return false;
	(void)av_buf_append_c(out, "{\"id\":");
	(void)av_json_write_str(out, av_str_c(id));
	(void)av_buf_append_c(out, ",\"name\":");
	(void)av_json_write_str(out, av_str_c(name[0] ? name : specs[0].name));
	(void)av_buf_append_c(out, ",\"last_activity\":");
	(void)av_json_write_str(out, av_str_c(time));
	(void)av_buf_append_c(out, ",\"execution_state\":");
	(void)av_json_write_str(out, av_str_c(state_text(state)));
	return av_buf_append_c(out, ",\"connections\":0}") == 0;
}

static void send_nonsense(struct api_request *rq)
{
	struct av_err err;

	(void)av_err_set(
	    &err, AV_ERR_AGENT, "the sandbox's agent described its kernels in a way nobody knows");
	jupyter_send_err(rq, &err);
}

static void send_list(struct api_request *rq, const json_t *answer)
{
	AV_CLEANUP(av_buf_clear) struct av_buf out = AV_BUF_INIT(ANSWER_MAX);
	const json_t *list = json_object_get(answer, "list"), *info;
	size_t i;

	(void)av_buf_append_char(&out, '[');
	json_array_foreach (list, i, info) {
		if (i)
			(void)av_buf_append_char(&out, ',');
		if (!write_model(&out, info)) {
			send_nonsense(rq);
			return;
		}
	}
	(void)av_buf_append_char(&out, ']');
	api_send_json(rq, 200, &out);
}

static void send_status(struct api_request *rq, const json_t *answer)
{
	AV_CLEANUP(av_buf_clear) struct av_buf out = AV_BUF_INIT(1024);
	char now[32];

	av_rfc3339_ms(av_real_ms(), now);
	(void)av_buf_printf(&out,
	    "{\"connections\":0,\"kernels\":%zu,\"last_activity\":\"%s\",\"started\":\"%s\"}",
	    json_array_size(json_object_get(answer, "list")), now, now);
	api_send_json(rq, 200, &out);
}

static void send_model(struct api_request *rq, int status, const json_t *info)
{
	AV_CLEANUP(av_buf_clear) struct av_buf out = AV_BUF_INIT(ANSWER_MAX);

	if (write_model(&out, info))
		api_send_json(rq, status, &out);
	else
		send_nonsense(rq);
}

/* ---- asking the agent ---- */

static void ask_gone(struct api_request *rq, int status)
{
	struct ask *a = rq->state;

	(void)status;
	kernel_call_cancel(a->call);
	free(a);
}

static int ask_open(
    struct ask *a, const char *method, const char *path, struct av_str body, struct av_err *err);

static void on_answer(void *ctx, const json_t *answer, const struct av_err *err)
{
	struct ask *a = ctx;
	struct api_request *rq = a->rq;
	char id[ID_MAX + 1], path[ID_MAX + 8];
	struct av_err e;

	a->call = NULL;
	if (err) {
		jupyter_send_err(rq, err);
		return;
	}
	switch (a->verb) {
	case VERB_LIST:
		send_list(rq, answer);
		break;
	case VERB_STATUS:
		send_status(rq, answer);
		break;
	case VERB_CREATE:
		send_model(rq, 201, answer);
		break;
	case VERB_GET:
		send_model(rq, 200, answer);
		break;
	case VERB_DELETE:
	case VERB_INTERRUPT:
		api_send_empty(rq, 204);
		break;
	case VERB_RESTART:
		(void)snprintf(path, sizeof(path), "/%s", a->id);
		a->verb = VERB_GET;
		if (ask_open(a, "GET", path, AV_STR(""), &e) < 0)
			jupyter_send_err(rq, &e);
		break;
	case VERB_CHANNELS:
		memcpy(id, a->id, sizeof(id));
		jupyter_channels(rq, id, answer);
		break;
	}
}

static int ask_open(
    struct ask *a, const char *method, const char *path, struct av_str body, struct av_err *err)
{
	return kernel_call_open(
	    a->rq->api, &a->rq->actor, a->rq->id, method, path, body, on_answer, a, &a->call, err);
}

/* id may be NULL; suffix "" or "/verb". */
static void ask(struct api_request *rq, enum verb verb, const char *method, const char *id,
    const char *suffix, struct av_str body)
{
	struct ask *a = calloc(1, sizeof(*a));
	char path[ID_MAX + 32];
	struct av_err err;

	if (!a) {
		(void)av_err_set(&err, AV_ERR_NO_MEMORY, "no memory for the request");
		jupyter_send_err(rq, &err);
		return;
	}
	a->rq = rq;
	a->verb = verb;
	(void)snprintf(a->id, sizeof(a->id), "%s", id ? id : "");
	(void)snprintf(path, sizeof(path), "%s%s%s", id ? "/" : "", id ? id : "", suffix);
	if (ask_open(a, method, path, body, &err) < 0) {
		free(a);
		jupyter_send_err(rq, &err);
		return;
	}
	rq->state = a;
	rq->on_gone = ask_gone;
}

/* ---- what needs no agent ---- */

static void send_version(struct api_request *rq)
{
	AV_CLEANUP(av_buf_clear) struct av_buf out = AV_BUF_INIT(256);

	(void)av_buf_append_c(&out, "{\"version\":");
	(void)av_json_write_str(&out, av_str_c(rq->api->version));
	(void)av_buf_append_c(&out, ",\"implementation\":\"aviary\"}");
	api_send_json(rq, 200, &out);
}

static void send_specs(struct api_request *rq)
{
	AV_CLEANUP(av_buf_clear) struct av_buf out = AV_BUF_INIT(4096);

	(void)av_buf_printf(&out, "{\"default\":\"%s\",\"kernelspecs\":{", specs[0].name);
	for (size_t i = 0; i < AV_ARRAY_LEN(specs); i++)
		(void)av_buf_printf(&out,
		    "%s\"%s\":{\"name\":\"%s\",\"resources\":{},\"spec\":{\"argv\":[],\"env\":{},"
		    "\"display_name\":\"%s\",\"language\":\"python\",\"interrupt_mode\":"
		    "\"message\",\"metadata\":{}}}",
		    i ? "," : "", specs[i].name, specs[i].name, specs[i].shown);
	(void)av_buf_append_c(&out, "}}");
	api_send_json(rq, 200, &out);
}

static int check_spec(const char *name, struct av_err *err)
{
	for (size_t i = 0; i < AV_ARRAY_LEN(specs); i++)
		if (strcmp(name, specs[i].name) == 0)
			return 0;
	/* 4xx: clients of this API try again and again after 5xx. */
	return av_err_set(err, AV_ERR_NOT_FOUND,
	    "there is no kernel '%.64s' here; GET /api/kernelspecs lists what there is", name);
}

/* {"name","path"}: what to start, and where. */
static int create_request(struct av_str body, struct av_buf *out, struct av_err *err)
{
	AV_CLEANUP(av_json_decrefp) json_t *j = NULL;
	const char *name = "python3", *path = "";
	int r;

	j = av_json_parse_object(av_str_trim(body).n ? body : AV_STR("{}"), err);
	if (!j)
		return -EINVAL;
	if ((r = av_json_get_str(j, "name", &name, err)) < 0 ||
	    (r = av_json_get_str(j, "path", &path, err)) < 0 || (r = check_spec(name, err)) < 0)
		return r;
	(void)av_buf_append_c(out, "{\"name\":");
	(void)av_json_write_str(out, av_str_c(name));
	(void)av_buf_append_c(out, ",\"cwd\":");
	(void)av_json_write_str(out, av_str_c(path));
	if (av_buf_append_char(out, '}') < 0)
		return av_err_set(err, AV_ERR_INVALID, "name and path are too long");
	return 0;
}

static void on_create_body(void *ctx, struct av_req *req, struct av_str body)
{
	AV_CLEANUP(av_buf_clear) struct av_buf out = AV_BUF_INIT((size_t)BODY_MAX - 1024);
	struct api_request *rq = ctx;
	struct av_err err;

	(void)req;
	if (create_request(body, &out, &err) < 0)
		jupyter_send_err(rq, &err);
	else
		ask(rq, VERB_CREATE, "POST", NULL, "", av_buf_str(&out));
}

/* ---- routes ---- */

static bool is_kernel_id(struct av_str s)
{
	for (size_t i = 0; i < s.n; i++)
		if (!((s.p[i] >= '0' && s.p[i] <= '9') || (s.p[i] >= 'a' && s.p[i] <= 'f') ||
		        s.p[i] == '-'))
			return false;
	return s.n > 0 && s.n <= ID_MAX;
}

static void refuse_method(struct api_request *rq, const char *allowed)
{
	struct av_err err;

	(void)av_err_set(&err, AV_ERR_METHOD_NOT_ALLOWED,
	    "method %.*s is not served here; allowed: %s",
	    (int)AV_MIN(av_req_head(rq->req)->method.n, (size_t)32), av_req_head(rq->req)->method.p,
	    allowed);
	jupyter_send_err(rq, &err);
}

static void refuse_path(struct api_request *rq)
{
	struct av_str path = av_req_path(rq->req);
	struct av_err err;

	(void)av_err_set(&err, AV_ERR_NOT_FOUND,
	    "nothing is served at %.*s; a Jupyter server of your own answers on port %d when the "
	    "sandbox has metadata \"%s\": \"off\"",
	    (int)AV_MIN(path.n, (size_t)200), path.p, JUPYTER_PORT, JUPYTER_METADATA);
	jupyter_send_err(rq, &err);
}

/* /api/kernels/{id}, with what follows. */
static void one_kernel(struct api_request *rq, struct av_str method, struct av_str rest)
{
	static const struct {
		const char *method, *suffix, *agent_method, *agent_suffix;
		enum verb verb;
	} table[] = {
	    {"GET", "", "GET", "", VERB_GET},
	    {"DELETE", "", "DELETE", "", VERB_DELETE},
	    {"POST", "interrupt", "POST", "/interrupt", VERB_INTERRUPT},
	    {"POST", "restart", "POST", "/restart", VERB_RESTART},
	    {"GET", "channels", "GET", "", VERB_CHANNELS},
	};
	const char *allowed = NULL;
	struct av_str suffix = rest, part;
	char id[ID_MAX + 1];

	(void)av_str_cut(&suffix, '/', &part);
	if (!is_kernel_id(part) || av_str_copy(id, sizeof(id), part) < 0) {
		refuse_path(rq);
		return;
	}
	for (size_t i = 0; i < AV_ARRAY_LEN(table); i++) {
		if (!av_str_eq_c(suffix, table[i].suffix))
			continue;
		if (av_str_eq_c(method, table[i].method)) {
			ask(rq, table[i].verb, table[i].agent_method, id, table[i].agent_suffix,
			    AV_STR(""));
			return;
		}
		allowed = suffix.n ? table[i].method : "GET, DELETE";
	}
	if (allowed)
		refuse_method(rq, allowed);
	else
		refuse_path(rq);
}

static void all_kernels(struct api_request *rq, struct av_str method)
{
	if (av_str_eq_c(method, "GET"))
		ask(rq, VERB_LIST, "GET", NULL, "", AV_STR(""));
	else if (av_str_eq_c(method, "POST"))
		av_req_body_collect(rq->req, BODY_MAX / 8, on_create_body);
	else
		refuse_method(rq, "GET, POST");
}

bool jupyter_handle(struct api_request *rq)
{
	struct av_str method = av_req_head(rq->req)->method, path = av_req_path(rq->req);
	bool get = av_str_eq_c(method, "GET");
	struct av_str prefix = AV_STR("/api/kernels/");

	if (!av_str_eq_c(path, "/api") && !av_str_starts(path, AV_STR("/api/")))
		return false;
	if (control_has_metadata(rq->api->control, &rq->actor, rq->id, JUPYTER_METADATA, "off"))
		return false;
	if (av_str_ends(path, AV_STR("/")))
		path.n--;
	if (av_str_eq_c(path, "/api/kernels"))
		all_kernels(rq, method);
	else if (av_str_starts(path, prefix))
		one_kernel(rq, method, av_str_n(path.p + prefix.n, path.n - prefix.n));
	else if (av_str_eq_c(path, "/api") && get)
		send_version(rq);
	else if (av_str_eq_c(path, "/api/status") && get)
		ask(rq, VERB_STATUS, "GET", NULL, "", AV_STR(""));
	else if (av_str_eq_c(path, "/api/kernelspecs") && get)
		send_specs(rq);
	else
		refuse_path(rq);
	return true;
}
