/* SPDX-License-Identifier: Apache-2.0 */
/*
 * exec_frames.c - Start and Connect in the binary codec (proto/frame.h)
 *
 * Agent's CONTROL messages: {"start":{"pid","tag"?}}, {"gap":{"dropped"}}, {"end":{...}} and
 * {"error":{"code","message","exitCode"?}}; codes are those of base/errors.def. A killed process
 * has exitCode 128 + signal, exited false. The stream of a Connect without following ends without
 * an end message if the process still runs.
 */
#include <errno.h>
#include <signal.h>

#include "agent/exec.h"
#include "agent/process_rpc.h"
#include "base/json.h"
#include "proto/agent_api.h"

#include "base/banned.h"

#define CONTROL_MAX 8192

static void send_control(struct exec *e, struct av_buf *json)
{
	uint8_t head[AV_FRAME_HEADER];

	if (av_buf_error(json) < 0) {
		if (e->rq)
			request_reset(e->rq, AV_HTTP2_INTERNAL_ERROR);
		return;
	}
	av_frame_header(head, AV_FRAME_CONTROL, json->n);
	exec_send(e, head, sizeof(head));
	exec_send(e, av_buf_str(json).p, json->n);
}

static void frames_start(struct exec *e, const struct process *p)
{
	AV_CLEANUP(av_buf_clear) struct av_buf out = AV_BUF_INIT(CONTROL_MAX);

	av_buf_printf(&out, "{\"start\":{\"pid\":%d", (int)process_pid(p));
	if (process_tag(p)) {
		av_buf_append_c(&out, ",\"tag\":");
		av_json_write_str(&out, av_str_c(process_tag(p)));
	}
	av_buf_append_c(&out, "}}");
	send_control(e, &out);
}

static void frames_output(struct exec *e, uint8_t channel, const char *p, size_t n)
{
	uint8_t head[AV_FRAME_HEADER];

	static_assert(PROCESS_CHUNK_PIPE <= AV_FRAME_DATA_MAX, "a chunk fits a frame");
	static_assert((int)PROCESS_STDOUT == AV_FRAME_STDOUT &&
	                  (int)PROCESS_STDERR == AV_FRAME_STDERR &&
	                  (int)PROCESS_PTY == AV_FRAME_PTY,
	    "channels are numbered alike");
	av_frame_header(head, (enum av_frame_channel)channel, n);
	exec_send(e, head, sizeof(head));
	exec_send(e, p, n);
}

static void frames_gap(struct exec *e, uint64_t dropped)
{
	AV_CLEANUP(av_buf_clear) struct av_buf out = AV_BUF_INIT(CONTROL_MAX);

	av_buf_printf(&out, "{\"gap\":{\"dropped\":%llu}}", (unsigned long long)dropped);
	send_control(e, &out);
}

static void frames_end(struct exec *e, const struct process_end *end)
{
	AV_CLEANUP(av_buf_clear) struct av_buf out = AV_BUF_INIT(CONTROL_MAX);

	if (!end)
		return;
	av_buf_printf(&out,
	    "{\"end\":{\"exitCode\":%d,\"exited\":%s,\"signal\":%d,\"coreDumped\":%s,\"status\":\"%"
	    "s\","
	    "\"timedOut\":%s",
	    end->exited ? end->exit_code : 128 + end->signal, end->exited ? "true" : "false",
	    end->signal, end->core_dumped ? "true" : "false", end->status,
	    end->timed_out ? "true" : "false");
	if (end->gave_up)
		av_buf_append_c(
		    &out, ",\"error\":\"the process was killed but has not ended yet\"");
	else if (!end->exited || end->exit_code)
		av_buf_printf(&out, ",\"error\":\"%s\"", end->status);
	av_buf_append_c(&out, "}}");
	send_control(e, &out);
}

static void frames_error(
    struct exec *e, const struct av_err *err, const struct spawn_failure *failure)
{
	AV_CLEANUP(av_buf_clear) struct av_buf out = AV_BUF_INIT(CONTROL_MAX);

	av_buf_printf(&out, "{\"error\":{\"code\":\"%s\",\"message\":", av_err_code(err->kind));
	av_json_write_str(&out, av_str_c(err->message));
	if (failure)
		av_buf_printf(&out, ",\"exitCode\":%d", failure->exit_code);
	av_buf_append_c(&out, "}}");
	send_control(e, &out);
}

/* --- the client's frames --- */

static int control_resize(struct exec *e, const json_t *j, struct av_err *err)
{
	const json_t *size = NULL;
	int64_t cols = 0, rows = 0;
	int r;

	if ((r = av_json_get_object(j, "resize", &size, err)) < 0 || !size)
		return r;
	if ((r = av_json_get_i64(size, "cols", 0, UINT16_MAX, &cols, err)) < 0 ||
	    (r = av_json_get_i64(size, "rows", 0, UINT16_MAX, &rows, err)) < 0)
		return r;
	/* Without a terminal, or with a process that has gone, there is nothing to resize. */
	if (e->process)
		process_resize(e->process, (uint16_t)cols, (uint16_t)rows);
	return 0;
}

static int control_signal(struct exec *e, const json_t *j, struct av_err *err)
{
	const char *name = NULL, *scope = "process";
	int sig, r;

	if ((r = av_json_get_str(j, "signal", &name, err)) < 0 || !name ||
	    (r = av_json_get_str(j, "scope", &scope, err)) < 0)
		return r;
	sig = process_signal_number(av_str_c(name));
	if (sig < 0)
		return av_err_set(err, AV_ERR_INVALID, "signal '%s' is not known", name);
	/* A process that has just ended is not an error: the end message is under way. */
	if (e->process)
		process_signal(e->process, sig, av_str_eq_c(AV_STR("group"), scope));
	return 0;
}

static int on_control(void *ctx, struct av_str payload)
{
	AV_CLEANUP(av_json_decrefp) json_t *j = NULL;
	struct exec *e = ctx;
	struct av_err err = {0};

	if (!e->opened) {
		exec_first_message(e, payload);
		return 0;
	}
	if (e->finished)
		return 0;
	j = av_json_parse_object(payload, &err);
	if (!j || control_resize(e, j, &err) < 0 || control_signal(e, j, &err) < 0)
		return -EINVAL;
	return 0;
}

static int on_data(void *ctx, enum av_frame_channel ch, const uint8_t *p, size_t n, bool last)
{
	struct exec *e = ctx;

	if (!e->opened || (ch != AV_FRAME_STDIN && ch != AV_FRAME_PTY))
		return -EPROTO;
	if (!e->process)
		return 0;
	if (n == 0 && last && ch == AV_FRAME_STDIN)
		process_close_stdin(e->process);
	else
		exec_input(e, p, n);
	return 0;
}

static const struct av_frame_events frame_events = {.on_control = on_control, .on_data = on_data};

static int frames_feed(struct exec *e, const uint8_t *p, size_t n, struct av_err *err)
{
	ssize_t r = av_frame_dec_feed(&e->dec.frames, p, n, &frame_events, e);

	if (r == -EMSGSIZE)
		return av_err_set(err, AV_ERR_TOO_LARGE,
		    "a frame is larger than allowed (control %d, data %d bytes)",
		    AV_FRAME_CONTROL_MAX, AV_FRAME_DATA_MAX);
	if (r == -EINVAL)
		return av_err_set(
		    err, AV_ERR_INVALID, "a control frame is not a known JSON message");
	if (r < 0)
		return av_err_set(err, AV_ERR_INVALID,
		    "the request is not a sequence of frames that begins with a control frame");
	return 0;
}

static bool frames_idle(const struct exec *e)
{
	return av_frame_dec_idle(&e->dec.frames);
}

const struct exec_codec exec_codec_frames = {
    .content_type = AV_AGENT_CT_FRAMES,
    .start = frames_start,
    .output = frames_output,
    .gap = frames_gap,
    .end = frames_end,
    .error = frames_error,
    .feed = frames_feed,
    .idle = frames_idle,
};
