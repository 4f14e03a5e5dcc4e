/* SPDX-License-Identifier: Apache-2.0 */
/*
 * rm.c - aviary rm: end sandboxes
 */
#include <stdio.h>

#include "base/json.h"
#include "cli/command.h"

#include "base/banned.h"

static int delete_one(struct cli *cli, const char *what)
{
	struct av_err err = {0};
	char id[AV_ID_SIZE];
	if (cli_resolve(cli, what, id, &err) < 0 ||
	    cli_call(cli, "DELETE", NULL, NULL, &err, "/v1/sandboxes/%s", id) < 0)
		return cli_fail(cli, &err, what);
	cli_print_done(cli, "id", id);
	return 0;
}

static int delete_all(struct cli *cli)
{
	struct av_err err = {0};
	AV_CLEANUP(av_json_decrefp) json_t *list = NULL;
	if (cli_call(cli, "GET", NULL, &list, &err, "/v1/sandboxes") < 0)
		return cli_fail(cli, &err, NULL);
	int status = 0;
	size_t i;
	const json_t *sandbox;
	json_array_foreach (list, i, sandbox) {
		const char *id = json_string_value(json_object_get(sandbox, "id"));
		int r = id ? delete_one(cli, id) : 0;
		status = r ? r : status;
	}
	return status;
}

static int run(struct cli *cli, const struct args *args)
{
	bool all = args_flag(args, "all");
	if (all && args->n_operands > 0)
		return cli_usage_error(cli, "--all and ids exclude each other");
	if (!all && args->n_operands == 0)
		return cli_usage_error(cli, "which sandboxes? Give ids, names, or --all");
	int status = cli_connect(cli);
	if (status)
		return status;
	if (all)
		return delete_all(cli);
	for (size_t i = 0; i < args->n_operands; i++) {
		int r = delete_one(cli, args->operands[i]);
		status = r ? r : status;
		if (cli->is_unreachable)
			break;
	}
	return status;
}

static const struct option_spec options[] = {
    {"all", 'a', OPTION_FLAG, NULL, "all of them", COMPLETE_NONE},
    {NULL, 0, OPTION_FLAG, NULL, NULL, COMPLETE_NONE},
};

const struct command command_rm = {
    .name = "rm",
    .usage = "[SANDBOX…]",
    .summary = "end sandboxes, with all that is in them",
    .description =
        "Kills the processes of the sandboxes and deletes their files. It works in "
        "every state of a sandbox. The other sandboxes given are deleted even if one fails.",
    .options = options,
    .max_operands = OPERANDS_ANY,
    .operand_completion = COMPLETE_SANDBOXES,
    .more_completion = COMPLETE_SANDBOXES,
    .run = run,
};
