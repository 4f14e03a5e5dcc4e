/* SPDX-License-Identifier: Apache-2.0 */
/*
 * system.c - health and readiness: what probes ask, without a key
 */
#include "api/native/native.h"

#include "api/request.h"
#include "base/banned.h"

void native_health(struct api_request *rq)
{
	AV_CLEANUP(av_buf_clear) struct av_buf out = AV_BUF_INIT(1024);

	(void)av_buf_append_c(&out, "{\"status\":\"ok\",\"version\":");
	(void)av_json_write_str(&out, av_str_c(rq->api->version));
	(void)av_buf_append_char(&out, '}');
	api_send_json(rq, 200, &out);
}

void native_ready(struct api_request *rq)
{
	AV_CLEANUP(av_buf_clear) struct av_buf out = AV_BUF_INIT(4096);
	const char *why = "";
	struct av_err err;

	if (!control_is_ready(rq->api->control, &why)) {
		(void)av_err_set(&err, AV_ERR_UNAVAILABLE, "not ready: %s", why);
		api_send_err(rq, &err);
		return;
	}
	(void)av_buf_append_c(&out, "{\"status\":\"ready\",\"isolation\":");
	(void)av_json_write_str(&out, av_str_c(control_isolation(rq->api->control)));
	(void)av_buf_append_c(&out, ",\"detail\":");
	(void)av_json_write_str(&out, av_str_c(control_isolation_detail(rq->api->control)));
	(void)av_buf_append_char(&out, '}');
	api_send_json(rq, 200, &out);
}
