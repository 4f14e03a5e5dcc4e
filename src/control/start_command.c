/* SPDX-License-Identifier: Apache-2.0 */
/*
 * start_command.c - what a template wants to run in each sandbox that is made from it
 *
 * It is started once, when the create is recorded and answered, also in a sandbox that was ready
 * ahead of time: nobody waits for it, and whether it can be started changes nothing about the
 * sandbox. It is a background process like any other, by the shell, with the template's user,
 * directory and environment and the sandbox's own: it is in the list of processes with a tag, it
 * can be attached to and killed, and while it runs the sandbox is in use. A restart of the daemon
 * does not start it again; one that dies between record and start has not started it.
 */
#include <stdlib.h>

#include "control/control_internal.h"
#include "control/exec.h"
#include "control/templates_internal.h"
#include "base/json.h"
#include "base/log.h"

#include "base/banned.h"

static void cannot(const char *id, const struct av_err *err)
{
	av_log(AV_LOG_WARN, "cannot run the start command of the template", "id", id, "error",
	    err->message, NULL);
}

/* ctx: the sandbox's id, owned. */
static void on_started(void *ctx, uint32_t pid, const char *tag, const struct av_err *err)
{
	(void)pid;
	(void)tag;
	/* A sandbox that was deleted meanwhile, or a daemon that stops, is no failure. */
	if (err && err->kind != AV_ERR_NOT_FOUND && err->kind != AV_ERR_CANCELED &&
	    err->kind != AV_ERR_INVALID_STATE)
		cannot(ctx, err);
	free(ctx);
}

void start_command_run(struct control *c, const struct store_sandbox *rec)
{
	const struct template *t = template_by_id(c, rec->template_id);
	struct node_sandbox *handle = node_find(c->node, rec->id);
	struct av_err err;

	if (!t || !t->rec.start_command[0] || !handle)
		return;
	AV_CLEANUP(av_json_decrefp) json_t *args = json_pack("[ss]", "-c", t->rec.start_command);
	const struct node_exec_spec spec = {
	    .cmd = "/bin/sh", .args = args, .tag = CONTROL_START_COMMAND_TAG};
	char *id = av_str_dup(av_str_c(rec->id));
	int r;

	if (args && id)
		r = node_exec_background(handle, &spec, on_started, id, NULL, &err);
	else
		r = av_err_set(&err, AV_ERR_NO_MEMORY, "out of memory");
	if (r < 0) {
		cannot(rec->id, &err);
		free(id);
	}
}
