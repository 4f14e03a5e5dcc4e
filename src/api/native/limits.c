/* SPDX-License-Identifier: Apache-2.0 */
/*
 * limits.c - GET /v1/limits: every bound that holds for who asks, with what is used of it
 */
#include "api/native/native.h"

#include <stdio.h>

#include "api/events.h"
#include "api/native/shapes.h"
#include "api/request.h"
#include "control/quota.h"
#include "base/banned.h"

#define ANSWER_MAX ((size_t)64 << 10)

struct listing {
	struct av_buf out;
	size_t n;
};

static void write_limit(void *ctx, const struct control_limit *l)
{
	struct listing *list = ctx;
	struct av_str unit = av_str_trim(av_str_c(l->unit));

	(void)av_buf_printf(&list->out,
	    "%s{\"name\":\"%s\",\"of\":\"%s\",\"value\":%.15g,\"used\":", list->n++ ? "," : "",
	    l->name, l->of, l->value);
	if (l->used < 0)
		(void)av_buf_append_c(&list->out, "null");
	else
		(void)av_buf_printf(&list->out, "%.15g", l->used);
	(void)av_buf_printf(
	    &list->out, ",\"unit\":\"%.*s\",\"origin\":\"%s\"}", AV_STR_ARG(unit), l->origin);
}

/* The body that a route takes at most. */
static void write_body(struct listing *list, enum api_route_id id, const char *name)
{
	const struct control_limit l = {.name = name,
	    .unit = "bytes",
	    .of = "request",
	    .origin = "server",
	    .value = (double)api_routes[id].limit,
	    .used = -1};

	write_limit(list, &l);
}

void native_limits(struct api_request *rq)
{
	struct listing list = {.out = AV_BUF_INIT(ANSWER_MAX)};
	const struct control_limit streams = {.name = "event_streams",
	    .unit = "",
	    .of = "team",
	    .origin = "server",
	    .value = EVENTS_STREAMS_TEAM,
	    .used = -1};

	(void)av_buf_printf(&list.out, "{\"team_id\":\"%s\",\"limits\":[", rq->actor.team_id);
	control_limits_each(rq->api->control, &rq->actor, write_limit, &list);
	write_limit(&list, &streams);
	write_body(&list, API_ROUTE_SANDBOX_CREATE, "create_body");
	write_body(&list, API_ROUTE_EXEC, "exec_body");
	write_body(&list, API_ROUTE_RUN_CODE, "run_code_body");
	write_body(&list, API_ROUTE_FILE_WRITE, "file_write_body");
	(void)av_buf_append_c(&list.out, "]}");
	api_send_json(rq, 200, &list.out);
	av_buf_clear(&list.out);
}
