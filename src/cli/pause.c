/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pause.c - aviary pause, aviary resume: let sandboxes sleep, and wake them
 */
#include <stdio.h>

#include "base/json.h"
#include "cli/command.h"

#include "base/banned.h"

#define TIMEOUT_MS (10 * 60 * 1000)

static int change_one(struct cli *cli, const char *what, const char *verb)
{
	AV_CLEANUP(av_json_decrefp) json_t *reply = NULL;
	char id[AV_ID_SIZE], path[128];
	/* The memory of a virtual machine goes to the disk. */
	struct cli_request request = {.method = "POST", .path = path, .timeout_ms = TIMEOUT_MS};
	struct av_err err = {0};

	if (cli_resolve(cli, what, id, &err) < 0)
		return cli_fail(cli, &err, what);
	(void)snprintf(path, sizeof(path), "/v1/sandboxes/%s/%s", id, verb);
	if (cli_request(cli, &request, &reply, &err) < 0)
		return cli_fail(cli, &err, what);
	if (cli->json)
		cli_print_json(cli, reply);
	else if (!cli->quiet)
		printf("%s\n", id);
	return 0;
}

static int change_all(struct cli *cli, const struct args *args, const char *verb)
{
	int status = cli_connect(cli);

	if (status)
		return status;
	for (size_t i = 0; i < args->n_operands; i++) {
		int r = change_one(cli, args->operands[i], verb);

		status = r ? r : status;
		if (cli->is_unreachable)
			break;
	}
	return status;
}

static int run_pause(struct cli *cli, const struct args *args)
{
	return change_all(cli, args, "pause");
}

static int run_resume(struct cli *cli, const struct args *args)
{
	return change_all(cli, args, "resume");
}

static const struct option_spec options[] = {
    {NULL, 0, OPTION_FLAG, NULL, NULL, COMPLETE_NONE},
};

const struct command command_pause = {
    .name = "pause",
    .usage = "SANDBOX…",
    .summary = "freeze sandboxes, with their memory and processes",
    .description = "Nothing in a paused sandbox runs; its memory and files stay as they are until "
                   "'aviary resume', also over a restart of aviaryd; the memory of a virtual "
                   "machine is kept on the disk meanwhile. What is attached to it stalls "
                   "and goes on then. The others given are paused even if one fails.",
    .options = options,
    .min_operands = 1,
    .max_operands = OPERANDS_ANY,
    .operand_completion = COMPLETE_SANDBOXES,
    .more_completion = COMPLETE_SANDBOXES,
    .run = run_pause,
};

const struct command command_resume = {
    .name = "resume",
    .usage = "SANDBOX…",
    .summary = "let paused sandboxes go on",
    .description = "Everything in the sandboxes goes on where it was when they were paused, by "
                   "'aviary pause' or because nobody used them (--idle-timeout).",
    .options = options,
    .min_operands = 1,
    .max_operands = OPERANDS_ANY,
    .operand_completion = COMPLETE_SANDBOXES,
    .more_completion = COMPLETE_SANDBOXES,
    .run = run_resume,
};
