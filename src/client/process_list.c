/* SPDX-License-Identifier: Apache-2.0 */
/*
 * process_list.c - the processes of a sandbox: which there are, and signals to them by name
 */
#include <aviary/process.h>
#include <aviary/resources.h>

#include <string.h>

#include "base/codec.h"
#include "client/call.h"

#include "base/banned.h"

#define PATH_MAX_BYTES ((size_t)4 << 10)

aviary_op *aviary_sandbox_processes(aviary_sandbox *sb)
{
	if (!aviary_sandbox_id(sb)[0])
		return avc_op_failed(
		    sb->c, AVIARY_E_SANDBOX_NOT_RUNNING, "the sandbox was not started yet");
	return aviary_processes_list(sb->c, sb->id);
}

/* ---- signals ---- */

/* The server's not_found may be about either. */
static int take_kill(aviary_op *op, const struct avc_reply *reply, void *ctx)
{
	(void)ctx;
	if (reply->code != AVIARY_E_SANDBOX_NOT_FOUND || strstr(reply->error->message, op->sb->id))
		return reply->code;
	return AVIARY_E_EXEC_NOT_FOUND;
}

aviary_op *aviary_sandbox_kill(aviary_sandbox *sb, const char *selector, const char *signal)
{
	AV_CLEANUP(av_buf_clear) struct av_buf path = AV_BUF_INIT(PATH_MAX_BYTES);

	(void)av_buf_append_c(&path, "/processes/");
	(void)av_percent_encode(&path, av_str_c(selector), false);
	(void)av_buf_append_c(&path, "?signal=");
	(void)av_percent_encode(&path, av_str_c(signal ? signal : "SIGKILL"), false);
	if (!av_buf_cstr(&path))
		return avc_op_failed(sb->c, AVIARY_E_INVALID, "the tag is too long");
	return avc_call(sb->c,
	    &(struct avc_call_spec){
	        .method = "DELETE", .path = av_buf_cstr(&path), .sb = sb, .take = take_kill});
}

int aviary_sandbox_kill_sync(
    aviary_sandbox *sb, const char *selector, const char *signal, aviary_error *error)
{
	return aviary_await(aviary_sandbox_kill(sb, selector, signal), error);
}
