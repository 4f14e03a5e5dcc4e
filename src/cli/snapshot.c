/* SPDX-License-Identifier: Apache-2.0 */
/*
 * snapshot.c - aviary snapshot: a sandbox becomes a template
 */
#include <stdio.h>

#include "base/json.h"
#include "cli/command.h"

#include "base/banned.h"

#define TIMEOUT_MS (15 * 60 * 1000)

static int run(struct cli *cli, const struct args *args)
{
	struct av_err err = {0};
	char id[AV_ID_SIZE];
	AV_CLEANUP(av_json_decrefp) json_t *body = json_object();
	AV_CLEANUP(av_json_decrefp) json_t *made = NULL;
	int status = cli_connect(cli);
	if (status)
		return status;
	cli_catch_signals();
	if (cli_resolve(cli, args->operands[0], id, &err) < 0)
		return cli_fail(cli, &err, args->operands[0]);
	json_object_set_new(body, "sandbox_id", json_string(id));
	if (args->n_operands > 1)
		json_object_set_new(body, "name", json_string(args->operands[1]));
	if (args_flag(args, "stop"))
		json_object_set_new(body, "stop", json_true());
	const struct av_client_request request = {
	    .method = "POST",
	    .path = args_flag(args, "overwrite") ? "/v1/snapshots?overwrite=true" : "/v1/snapshots",
	    .body = body,
	    .timeout_ms = TIMEOUT_MS,
	};
	if (av_client_call(cli->client, &request, &made, &err) < 0)
		return cli_fail(cli, &err, args->operands[0]);
	if (!args_flag(args, "stop") && args_flag(args, "resume") &&
	    cli_call(cli, "POST", NULL, NULL, &err, "/v1/sandboxes/%s/resume", id) < 0)
		return cli_fail(cli, &err, args->operands[0]);
	cli_print_reply(cli, made, "name");
	if (!cli->json && cli->out_is_tty && !args_flag(args, "stop") && !args_flag(args, "resume"))
		fprintf(stderr, "the sandbox is paused: a request resumes it\n");
	return 0;
}

static const struct option_spec options[] = {
    {"overwrite", 0, OPTION_FLAG, NULL, "replace an own template of that name", COMPLETE_NONE},
    {"resume", 0, OPTION_FLAG, NULL, "let the sandbox go on afterwards", COMPLETE_NONE},
    {"stop", 0, OPTION_FLAG, NULL, "kill it first, and delete it afterwards", COMPLETE_NONE},
    {NULL, 0, OPTION_FLAG, NULL, NULL, COMPLETE_NONE},
};

static const char *const examples[] = {
    "aviary snapshot work my-setup --resume\tkeep what is installed in 'work' for new sandboxes",
    "aviary create --template my-setup\tone of those",
    NULL,
};

const struct command command_snapshot = {
    .name = "snapshot",
    .usage = "SANDBOX [NAME]",
    .summary = "make a template of a sandbox's files",
    .description = "Takes the files of a sandbox, as they are now, as a template that any number "
                   "of sandboxes can be made from, and prints its name. Processes and memory are "
                   "not part of it. The sandbox is paused for it and stays paused.",
    .examples = examples,
    .options = options,
    .min_operands = 1,
    .max_operands = 2,
    .operand_completion = COMPLETE_SANDBOXES,
    .run = run,
};
