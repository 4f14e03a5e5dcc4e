/* SPDX-License-Identifier: Apache-2.0 */
/*
 * run.c - aviary run: create, run one command with live output, delete
 *
 * The sandbox is deleted however the command ends, also by signals; a signal during the creation
 * takes effect after it, so that nothing is left behind. Should this program itself be killed, the
 * process inside ends with its stream, and the daemon deletes the sandbox when it was not used for
 * LEFT_BEHIND_S seconds.
 */
#include <errno.h>
#include <stdio.h>
#include <unistd.h>

#include "base/json.h"
#include "cli/options.h"
#include "cli/session.h"

#include "base/banned.h"

#define LEFT_BEHIND_S 60

/* Runs the command in the sandbox; the exit status. */
static int run_inside(struct cli *cli, const struct args *args, const char *id, json_t *envs)
{
	const struct session_command command = {
	    .argv = args->operands,
	    .argc = args->n_operands,
	    .envs = envs,
	};
	return session_exec(cli, args, id, NULL, &command);
}

static int run(struct cli *cli, const struct args *args)
{
	struct av_err err = {0};
	char id[AV_ID_SIZE];
	AV_CLEANUP(av_json_decrefp) json_t *envs = NULL;
	AV_CLEANUP(av_json_decrefp) json_t *body = options_sandbox_body(args, &err);
	if (!body || options_envs(args, &envs, &err) < 0)
		return cli_usage_error(cli, "%s", err.message);
	if (!args_flag(args, "keep")) {
		json_object_set_new(body, "timeout_sec", json_integer(LEFT_BEHIND_S));
		json_object_set_new(body, "on_timeout", json_string("delete"));
	}
	int status = cli_connect(cli);
	if (status)
		return status;

	cli_catch_signals();
	if (options_create_sandbox(cli, body, id, NULL, &err) < 0)
		return cli_fail(cli, &err, NULL);
	status = cli_caught_signal() ? EXIT_SIGNAL + cli_caught_signal()
	                             : run_inside(cli, args, id, envs);
	if (args_flag(args, "keep")) {
		fprintf(stderr, "aviary: kept %s; end it with 'aviary rm %.8s'\n", id, id);
		return status;
	}
	cli_hold_signals();
	if (cli_call(cli, "DELETE", NULL, NULL, &err, "/v1/sandboxes/%s", id) < 0) {
		av_err_prefix(&err, "the sandbox %s is left behind", id);
		int failed = cli_fail(cli, &err, NULL);
		return status ? status : failed;
	}
	return status;
}

static const struct option_spec options[] = {
    OPTIONS_EXEC,
    {"keep", 0, OPTION_FLAG, NULL, "do not delete the sandbox afterwards", COMPLETE_NONE},
    OPTIONS_SANDBOX,
    OPTIONS_END,
};

static const char *const examples[] = {
    "aviary run -- sh -c 'id; ls /'\ta look around",
    "aviary run -it bash\ta shell in a fresh sandbox",
    "aviary run --memory 512M --cpus 1 --timeout 30s -- python3 -c 'print(6 * 7)'\twith limits",
    "generate | aviary run -i -- python3 -\ta program from standard input",
    NULL,
};

const struct command command_run = {
    .name = "run",
    .usage = "[--] COMMAND [ARGUMENT…]",
    .summary = "run one command in a fresh sandbox",
    .description =
        "Makes a sandbox, runs the command in it with its output shown as it comes, "
        "deletes the sandbox, and exits as the command did. Signals (Ctrl-C) go to the command; "
        "the third one kills it.\n"
        "The sandbox is deleted also when the run is interrupted; should aviary itself be killed, "
        "a "
        "minute later. With --json the output comes at the end, in an object with how it ended.",
    .examples = examples,
    .exits = program_exits,
    .see = "exec sh create",
    .options = options,
    .min_operands = 1,
    .max_operands = OPERANDS_ANY,
    .options_end_after = 1,
    .operand_completion = COMPLETE_PROGRAMS,
    .more_completion = COMPLETE_FILES,
    .run = run,
};
