/* SPDX-License-Identifier: Apache-2.0 */
/*
 * system.c - /health, /envs, /init
 */
#include <errno.h>
#include <stdlib.h>

#include "agent/handlers.h"
#include "agent/server.h"
#include "base/json.h"

#include "base/banned.h"

#define FROZEN_MAX_MS (10LL * 366 * 24 * 3600 * 1000)

#define ENVS_BYTES_MAX ((size_t)8 * 1024 * 1024)

void system_health(struct request *rq)
{
	AV_CLEANUP(av_buf_clear) struct av_buf out = AV_BUF_INIT(512);

	av_buf_printf(&out, "{\"agent_version\":\"%s\",\"protocol_version\":%d}", AVIARY_VERSION,
	    AV_AGENT_PROTOCOL_VERSION);
	request_reply(rq, 200, AV_AGENT_CT_JSON, av_buf_str(&out));
}

void system_envs(struct request *rq)
{
	AV_CLEANUP(av_buf_clear) struct av_buf out = AV_BUF_INIT(ENVS_BYTES_MAX);

	if (rq->agent->settings.envs)
		av_json_dump(&out, rq->agent->settings.envs);
	else
		av_buf_append_c(&out, "{}");
	if (av_buf_error(&out) < 0)
		request_fail(rq, 503, "out of memory in the sandbox's agent");
	else
		request_reply(rq, 200, AV_AGENT_CT_JSON, av_buf_str(&out));
}

/* Checks a whole /init before anything of it is taken over. */
static int parse_init(
    const json_t *j, const json_t **ret_envs, struct agent_settings *ret, struct av_err *err)
{
	const char *user = "", *workdir = "";
	AV_CLEANUP(av_buf_clear) struct av_buf clean = AV_BUF_INIT(AV_PATH_MAX);
	int r;

	if ((r = av_json_get_str_map(j, "envVars", 4096, ret_envs, err)) < 0 ||
	    (r = av_json_get_str(j, "defaultUser", &user, err)) < 0 ||
	    (r = av_json_get_str(j, "defaultWorkdir", &workdir, err)) < 0)
		return r;
	if (av_str_copy(ret->user, sizeof(ret->user), av_str_c(user)) < 0)
		return av_err_set(err, AV_ERR_INVALID, "defaultUser is longer than %d bytes",
		    AGENT_USER_NAME_MAX);
	if (workdir[0] == '\0')
		return 0;
	if (workdir[0] != '/')
		return av_err_set(
		    err, AV_ERR_INVALID, "defaultWorkdir '%s' is not absolute", workdir);
	r = av_path_clean(&clean, AV_STR("/"), av_str_c(workdir), err);
	if (r < 0)
		return r;
	return av_str_copy(ret->workdir, sizeof(ret->workdir), av_buf_str(&clean));
}

static bool same_settings(const struct agent_settings *a, const struct agent_settings *b)
{
	bool envs = a->envs && b->envs ? json_equal(a->envs, b->envs)
	                               : json_object_size(a->envs) == json_object_size(b->envs);

	return envs && strcmp(a->user, b->user) == 0 && strcmp(a->workdir, b->workdir) == 0;
}

void system_init(struct request *rq, struct av_str body)
{
	AV_CLEANUP(av_json_decrefp) json_t *j = NULL;
	struct agent_settings *new, *old = &rq->agent->settings;
	const json_t *envs = NULL;
	struct av_err err = {0};

	j = av_json_parse_object(body, &err);
	new = calloc(1, sizeof(*new));
	if (j && new &&parse_init(j, &envs, new, &err) == 0) {
		/* The new reference keeps the object alive when the document goes. */
		new->envs = envs ? json_incref((json_t *)(uintptr_t)envs) : NULL;
		/* The daemon says it again on every connection. */
		new->generation = old->generation + !same_settings(old, new);
		json_decref(old->envs);
		*old = *new;
		request_reply(rq, 204, NULL, AV_STR(""));
	} else if (err.kind != AV_ERR_NONE) {
		request_fail_err(rq, &err);
	} else {
		request_fail(rq, 503, "out of memory in the sandbox's agent");
	}
	free(new);
}

void system_thawed(struct request *rq, struct av_str body)
{
	AV_CLEANUP(av_json_decrefp) json_t *j = NULL;
	struct av_err err = {0};
	int64_t ms = 0;

	j = av_json_parse_object(body, &err);
	if (!j || av_json_get_i64(j, "frozen_ms", 0, FROZEN_MAX_MS, &ms, &err) < 0) {
		request_fail_err(rq, &err);
		return;
	}
	rq->agent->frozen_ms += (uint64_t)ms;
	process_table_was_frozen(&rq->agent->processes, (uint64_t)ms);
	request_reply(rq, 200, AV_AGENT_CT_JSON, AV_STR("{}"));
}
