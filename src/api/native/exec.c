/* SPDX-License-Identifier: Apache-2.0 */
/*
 * exec.c - foreground and background exec, list of processes, signals
 *
 * A foreground exec belongs to its request: when the client goes away the process group is killed.
 * One that ran out of time is killed likewise and answered with 504. Its error code is agent_error
 * with "reason":"timeout", because that is the code by which existing clients of this dialect know
 * a timed-out command (they map codes, not statuses); what the command printed comes with it.
 */
#include "api/native/native.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>

#include "api/native/foreground.h"
#include "api/native/shapes.h"
#include "api/request.h"
#include "base/banned.h"

#define EXEC_TIMEOUT_DEFAULT_MS 30000
#define PROCESSES_JSON_MAX      ((size_t)16 << 20)

static void on_started(void *ctx, uint32_t pid, const char *tag, const struct av_err *err)
{
	AV_CLEANUP(av_buf_clear) struct av_buf out = AV_BUF_INIT(PROCESSES_JSON_MAX);
	struct api_request *rq = ctx;

	rq->call = NULL;
	if (err) {
		api_send_err(rq, err);
		return;
	}
	(void)av_buf_printf(&out, "{\"sandbox_id\":\"%s\",\"cmd\":", rq->id);
	(void)av_json_write_str(
	    &out, av_str_c(json_string_value(json_object_get(rq->body, "cmd"))));
	(void)av_buf_printf(&out, ",\"pid\":%" PRIu32 ",\"tag\":", pid);
	(void)av_json_write_str(&out, av_str_c(tag));
	(void)av_buf_append_char(&out, '}');
	api_send_json(rq, 202, &out);
}

/* Everybody can address a background process: one without a tag gets a random one. */
static int start_background(struct api_request *rq, struct node_exec_spec *spec, struct av_err *err)
{
	char tag[NATIVE_TAG_SIZE];

	if (!spec->tag || !spec->tag[0]) {
		native_random_tag(tag, "proc");
		spec->tag = tag;
	}
	spec->keep_on_detach = true;
	return control_exec_background(
	    rq->api->control, &rq->actor, rq->id, spec, on_started, rq, &rq->call, err);
}

void native_exec(struct api_request *rq)
{
	struct node_exec_spec spec = {0};
	bool background = false;
	struct av_err err;
	int r;

	if ((r = av_json_get_bool(rq->body, "background", &background, &err)) == 0)
		r = native_parse_exec(
		    rq->body, background ? 0 : EXEC_TIMEOUT_DEFAULT_MS, &spec, &err);
	if (r == 0 && background)
		r = start_background(rq, &spec, &err);
	else if (r == 0)
		r = native_exec_foreground(rq, &spec, &err);
	if (r < 0)
		api_send_err(rq, &err);
}

static void on_processes(
    void *ctx, const struct node_process *v, size_t n, const struct av_err *err)
{
	AV_CLEANUP(av_buf_clear) struct av_buf out = AV_BUF_INIT(PROCESSES_JSON_MAX);
	struct api_request *rq = ctx;

	rq->call = NULL;
	if (err) {
		api_send_err(rq, err);
		return;
	}
	(void)native_write_processes(&out, v, n);
	api_send_json(rq, 200, &out);
}

void native_process_list(struct api_request *rq)
{
	struct av_err err;

	if (control_processes(
	        rq->api->control, &rq->actor, rq->id, on_processes, rq, &rq->call, &err) < 0)
		api_send_err(rq, &err);
}

static int parse_signal(const struct api_request *rq, int *ret_signo, struct av_err *err)
{
	AV_CLEANUP(av_buf_clear) struct av_buf text = AV_BUF_INIT(64);
	int r = api_query(rq, "signal", &text, err);

	if (r == -ENOENT || (r == 0 && av_str_eq_c(av_buf_str(&text), "SIGKILL")))
		*ret_signo = SIGKILL;
	else if (r < 0)
		return r;
	else if (av_str_eq_c(av_buf_str(&text), "SIGTERM"))
		*ret_signo = SIGTERM;
	else
		return av_err_set(err, AV_ERR_INVALID,
		    "query parameter 'signal' must be SIGKILL (the default) or SIGTERM");
	return 0;
}

void native_process_kill(struct api_request *rq)
{
	struct node_selector sel = native_parse_selector(api_param(rq, "selector"));
	struct av_err err;
	int signo = 0;

	if (parse_signal(rq, &signo, &err) < 0 ||
	    control_process_signal(rq->api->control, &rq->actor, rq->id, &sel, signo, api_on_done,
	        rq, &rq->call, &err) < 0)
		api_send_err(rq, &err);
}
