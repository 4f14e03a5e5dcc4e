/* SPDX-License-Identifier: Apache-2.0 */
/*
 * reap.c - ends sandboxes of which no handle is left (see reap.h)
 *
 * Over the library's own interface. Two rounds: what is known by id is stopped, while creates
 * without an answer are asked for; then those that these had made are stopped. The first round has
 * half of the time at most, so that the second has some.
 */
#include "client/reap.h"

#include <aviary/sandbox.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"

#include "base/banned.h"

/* ---- settings ---- */

static int put(json_t *o, const char *name, const char *text)
{
	return text ? json_object_set_new(o, name, json_string(text)) : 0;
}

json_t *avc_settings_of(const aviary_client *c)
{
	const struct avc_credentials *cr = &c->credentials;
	json_t *o = json_object();

	if (o && put(o, "base_url", c->base_url) == 0 &&
	    put(o, "unix_socket", c->unix_socket) == 0 && put(o, "ca_file", c->ca_file) == 0 &&
	    put(o, "proxy", c->proxy) == 0 && put(o, "api_key", cr->api_key) == 0 &&
	    put(o, "session_token", cr->session_token) == 0 && put(o, "entity", cr->entity) == 0 &&
	    put(o, "project", cr->project) == 0)
		return o;
	avc_settings_free(o);
	return NULL;
}

static void wipe(json_t *settings, const char *name)
{
	const json_t *text = json_object_get(settings, name);

	/* The string is ours alone, and not looked at again. */
	if (text)
		explicit_bzero(
		    (void *)(uintptr_t)json_string_value(text), json_string_length(text));
}

void avc_settings_free(json_t *settings)
{
	if (!settings)
		return;
	wipe(settings, "api_key");
	wipe(settings, "session_token");
	json_decref(settings);
}

static const char *text_of(const json_t *o, const char *name)
{
	return json_string_value(json_object_get(o, name));
}

/* aviary_credentials_fn */
static int give_credentials(void *ctx, int refused, aviary_credentials *ret)
{
	const json_t *settings = ctx;

	if (refused)
		return AVIARY_E_UNAUTHORIZED; /* there are no others */
	ret->api_key = text_of(settings, "api_key");
	ret->session_token = text_of(settings, "session_token");
	ret->entity = text_of(settings, "entity");
	ret->project = text_of(settings, "project");
	return 0;
}

static aviary_client *client_of(json_t *settings, int64_t timeout_ms)
{
	aviary_client_options o = AVIARY_CLIENT_OPTIONS_INIT;
	aviary_client *c;

	o.flags = AVIARY_CLIENT_NO_ENV;
	o.base_url = text_of(settings, "base_url");
	o.unix_socket = text_of(settings, "unix_socket");
	o.ca_file = text_of(settings, "ca_file");
	o.proxy = text_of(settings, "proxy");
	o.credentials = give_credentials;
	o.credentials_ctx = settings;
	o.retry_budget_ms = timeout_ms;
	if (aviary_client_new(&c, &o) == 0)
		return c;
	aviary_client_free(c);
	return NULL;
}

/* ---- rounds ---- */

/* One sandbox that is being ended. */
struct victim {
	aviary_client *c;
	const json_t *what;
	int64_t grace_ms;
	bool *ended;
	aviary_op *op; /* a stop, or a create */
	bool creating;
};

static aviary_op *stop(aviary_client *c, const char *id, int64_t grace_ms)
{
	aviary_stop_options o = AVIARY_STOP_OPTIONS_INIT;
	aviary_sandbox *sb = aviary_sandbox_attach(c, id);
	aviary_op *op;

	if (!sb)
		return NULL;
	o.grace_ms = grace_ms;
	o.missing_ok = 1;
	op = aviary_sandbox_stop(sb, &o);
	aviary_sandbox_free(sb);
	return op;
}

static aviary_op *create_again(const struct victim *v)
{
	aviary_request q = AVIARY_REQUEST_INIT;

	q.method = "POST";
	q.path = "/v1/sandboxes";
	q.idempotency_key = text_of(v->what, "key");
	q.body = text_of(v->what, "body");
	return q.idempotency_key && q.body && *q.body ? aviary_client_request(v->c, &q) : NULL;
}

static void begin(struct victim *v)
{
	const char *id = text_of(v->what, "id");

	if (!v->c)
		return;
	v->creating = !id;
	v->op = id ? stop(v->c, id, v->grace_ms) : create_again(v);
}

static void wait_for(struct victim *victims, size_t n, int64_t timeout_ms)
{
	aviary_op **ops = calloc(n ? n : 1, sizeof(aviary_op *));
	size_t open = 0;

	for (size_t i = 0; ops && i < n; i++)
		if (victims[i].op)
			ops[open++] = victims[i].op;
	if (open)
		(void)aviary_wait(ops, open, 0, timeout_ms);
	free(ops);
}

/* What a create has answered: stop it, or nothing was made. */
static void second_round(struct victim *v)
{
	AV_CLEANUP(av_json_decrefp) json_t *j = NULL;
	size_t size;
	const char *body;

	if (!v->op || !v->creating || !aviary_op_is_done(v->op))
		return;
	body = aviary_op_body(v->op, &size);
	if (aviary_op_code(v->op) == 0)
		j = av_json_parse_object(av_str_n(body, size), NULL);
	else if (aviary_op_error(v->op)->http_status >= 400 &&
	         aviary_op_error(v->op)->http_status < 500)
		*v->ended = true;
	aviary_op_free(AV_TAKE_PTR(v->op));
	v->creating = false;
	if (j && text_of(j, "id"))
		v->op = stop(v->c, text_of(j, "id"), v->grace_ms);
}

static void finish(struct victim *v)
{
	if (v->op && !v->creating && aviary_op_is_done(v->op) && aviary_op_code(v->op) == 0)
		*v->ended = true;
	aviary_op_free(v->op);
}

/* The clients of the jobs, and a victim for each sandbox. */
static struct victim *gather(
    struct avc_reap_job *jobs, size_t n, int64_t timeout_ms, aviary_client **clients, size_t *ret_n)
{
	struct victim *victims;
	size_t count = 0;

	for (size_t i = 0; i < n; i++)
		count += json_array_size(jobs[i].sandboxes);
	victims = calloc(count ? count : 1, sizeof(*victims));
	if (!victims)
		return NULL;
	*ret_n = 0;
	for (size_t i = 0; i < n; i++) {
		size_t k;
		const json_t *what;

		if (!json_array_size(jobs[i].sandboxes))
			continue;
		clients[i] = client_of(jobs[i].settings, timeout_ms);
		json_array_foreach (jobs[i].sandboxes, k, what)
			victims[(*ret_n)++] = (struct victim){.c = clients[i],
			    .what = what,
			    .grace_ms = jobs[i].grace_ms,
			    .ended = &jobs[i].ended[k]};
	}
	return victims;
}

void avc_reap(struct avc_reap_job *jobs, size_t n, int64_t timeout_ms)
{
	aviary_client **clients = calloc(n ? n : 1, sizeof(aviary_client *));
	int64_t end_ms = avc_now_ms() + timeout_ms;
	struct victim *victims = NULL;
	bool creating = false;
	size_t count = 0;

	if (clients)
		victims = gather(jobs, n, timeout_ms, clients, &count);
	for (size_t i = 0; victims && i < count; i++) {
		begin(&victims[i]);
		creating = creating || victims[i].creating;
	}
	if (victims)
		wait_for(victims, count, creating ? timeout_ms / 2 : timeout_ms);
	for (size_t i = 0; victims && i < count; i++)
		second_round(&victims[i]);
	if (victims && creating)
		wait_for(victims, count, AV_MAX(end_ms - avc_now_ms(), (int64_t)0));
	for (size_t i = 0; victims && i < count; i++)
		finish(&victims[i]);
	for (size_t i = 0; clients && i < n; i++)
		aviary_client_free(clients[i]);
	free(victims);
	free(clients);
}
