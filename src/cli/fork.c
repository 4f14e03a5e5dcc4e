/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fork.c - aviary fork: copies of a running virtual machine
 */
#include <stdio.h>
#include <string.h>

#include "base/json.h"
#include "cli/command.h"

#include "base/banned.h"

#define TIMEOUT_MS (10 * 60 * 1000)

static int print_copies(struct cli *cli, const json_t *reply)
{
	const json_t *o;
	int status = 0;
	size_t i;

	json_array_foreach (reply, i, o) {
		const json_t *error = json_object_get(o, "error");

		if (error) {
			struct av_err err = {0};

			(void)av_err_set(&err, av_err_from_code(cli_text(error, "code")), "%s",
			    cli_text(error, "message"));
			status = cli_fail(cli, &err, NULL);
		} else if (!cli->json) {
			cli_print_safe(stdout, cli_text(json_object_get(o, "sandbox"), "id"));
			putchar('\n');
		}
	}
	if (cli->json)
		cli_print_json(cli, reply);
	return status;
}

static int run(struct cli *cli, const struct args *args)
{
	AV_CLEANUP(av_json_decrefp) json_t *body = json_object();
	AV_CLEANUP(av_json_decrefp) json_t *reply = NULL;
	struct cli_request request = {.method = "POST", .body = body, .timeout_ms = TIMEOUT_MS};
	const char *what = args->operands[0];
	char id[AV_ID_SIZE], path[128];
	struct av_err err = {0};
	int status = cli_connect(cli);

	if (status)
		return status;
	if (args_text(args, "count"))
		json_object_set_new(
		    body, "count", json_integer((json_int_t)args_number(args, "count", 1)));
	if (args_text(args, "idle-timeout"))
		json_object_set_new(body, "timeout_sec",
		    json_real((double)args_duration_ms(args, "idle-timeout", 0) / 1000));
	if (cli_resolve(cli, what, id, &err) < 0)
		return cli_fail(cli, &err, what);
	(void)snprintf(path, sizeof(path), "/v1/sandboxes/%s/fork", id);
	request.path = path;
	cli->waiting = "saving its memory and making copies";
	if (cli_request(cli, &request, &reply, &err) < 0)
		return cli_fail(cli, &err, what);
	return print_copies(cli, reply);
}

static const struct option_spec options[] = {
    {"count", 'n', OPTION_NUMBER, "N", "how many copies, to 100 (default: 1)", COMPLETE_NONE},
    {"idle-timeout", 0, OPTION_DURATION, "TIME",
        "theirs, when unused for so long (default: as the source's)", COMPLETE_NONE},
    {NULL, 0, OPTION_FLAG, NULL, NULL, COMPLETE_NONE},
};

static const char *const examples[] = {
    "aviary fork work\tone more that goes on where 'work' is",
    "aviary fork -n 8 work\teight of them",
    NULL,
};

const struct command command_fork = {
    .name = "fork",
    .usage = "SANDBOX",
    .summary = "make copies of a running virtual machine",
    .description = "New sandboxes go on where it is, with its memory, processes and files, each "
                   "with an id, addresses and random numbers of its own; their ids are printed. It "
                   "runs on. They have its labels without its name. Only sandboxes with "
                   "--isolation vm can be forked.",
    .see = "vm snapshot create",
    .examples = examples,
    .options = options,
    .min_operands = 1,
    .max_operands = 1,
    .operand_completion = COMPLETE_SANDBOXES,
    .run = run,
};
