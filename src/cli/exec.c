/* SPDX-License-Identifier: Apache-2.0 */
/*
 * exec.c - aviary exec: run a command in a sandbox that is there
 */
#include <errno.h>
#include <stdio.h>

#include "base/json.h"
#include "cli/options.h"
#include "cli/remote.h"
#include "cli/session.h"

#include "base/banned.h"

/* As the shell has it where it was the command that could not be started. */
static int start_error(
    struct cli *cli, const struct args *args, const char *id, const struct av_err *err)
{
	enum av_err_kind kind = err->kind;
	int status;

	if (kind == AV_ERR_NOT_FOUND && !remote_is_running(cli, id))
		return cli_fail(cli, err, args->operands[0]);
	status = cli_fail(cli, err, NULL);
	return kind == AV_ERR_NOT_FOUND   ? EXIT_NOT_FOUND
	       : kind == AV_ERR_FORBIDDEN ? EXIT_NOT_EXECUTABLE
	                                  : status;
}

/* Starts it and comes back: output goes to the ring that 'aviary logs' shows. */
static int run_in_background(struct cli *cli, const struct args *args, const char *id, json_t *envs)
{
	struct av_err err = {0};
	AV_CLEANUP(av_json_decrefp) json_t *reply = NULL;
	AV_CLEANUP(av_json_decrefp)
	json_t *body = json_pack("{s:s, s:b, s:s?, s:s?, s:s?}", "cmd", args->operands[1],
	    "background", 1, "cwd", args_text(args, "workdir"), "user", args_text(args, "user"),
	    "tag", args_text(args, "tag"));
	json_t *list = json_array();
	for (size_t i = 2; i < args->n_operands; i++)
		json_array_append_new(list, json_string(args->operands[i]));
	if (!body || json_object_set_new(body, "args", list) < 0)
		return cli_usage_error(cli, "the command is not valid UTF-8");
	if (envs)
		json_object_set(body, "envs", envs);
	if (cli_call(cli, "POST", body, &reply, &err, "/v1/sandboxes/%s/exec", id) < 0)
		return start_error(cli, args, id, &err);
	if (cli->json) {
		cli_print_json(cli, reply);
		return 0;
	}
	const char *tag = json_string_value(json_object_get(reply, "tag"));
	printf("%lld", (long long)json_integer_value(json_object_get(reply, "pid")));
	if (tag && tag[0]) {
		putchar(' ');
		cli_print_safe(stdout, tag);
	}
	putchar('\n');
	return 0;
}

static int run_attached(struct cli *cli, const struct args *args, const char *id, json_t *envs)
{
	const struct session_command command = {
	    .argv = args->operands + 1,
	    .argc = args->n_operands - 1,
	    .envs = envs,
	    .tag = args_text(args, "tag"),
	};
	return session_exec(cli, args, id, args->operands[0], &command);
}

static int run(struct cli *cli, const struct args *args)
{
	struct av_err err = {0};
	char id[AV_ID_SIZE];
	AV_CLEANUP(av_json_decrefp) json_t *envs = NULL;
	bool background = args_flag(args, "detach");
	if (background && (args_flag(args, "interactive") || args_flag(args, "tty") ||
	                      args_text(args, "timeout")))
		return cli_usage_error(cli, "--detach excludes --interactive, --tty and --timeout");
	if (options_envs(args, &envs, &err) < 0)
		return cli_usage_error(cli, "%s", err.message);
	int status = cli_connect(cli);
	if (status)
		return status;
	if (cli_resolve(cli, args->operands[0], id, &err) < 0)
		return cli_fail(cli, &err, NULL);
	return background ? run_in_background(cli, args, id, envs)
	                  : run_attached(cli, args, id, envs);
}

static const struct option_spec options[] = {
    OPTIONS_EXEC,
    {"detach", 'd', OPTION_FLAG, NULL, "run in the background; print its pid and tag",
        COMPLETE_NONE},
    {"tag", 0, OPTION_TEXT, "NAME", "a name for the process, for 'aviary logs'", COMPLETE_NONE},
    OPTIONS_END,
};

static const char *const examples[] = {
    "aviary exec work -- make -j2\tin the sandbox named 'work'",
    "aviary exec -it sb4f bash\ta shell; the id may be abbreviated",
    "aviary exec -d --tag web work python3 -m http.server 8000\tin the background",
    "aviary logs -f work web\tand what it prints",
    NULL,
};

const struct command command_exec = {
    .name = "exec",
    .usage = "SANDBOX [--] COMMAND [ARGUMENT…]",
    .summary = "run a command in a sandbox that is there",
    .description = "Runs the command with its output shown as it comes and exits as the command "
                   "did. When this program ends, so does the command; with --detach it stays. With "
                   "--json the output comes at the end, in an object with how it ended.",
    .examples = examples,
    .exits = program_exits,
    .see = "run sh ps logs",
    .options = options,
    .min_operands = 2,
    .max_operands = OPERANDS_ANY,
    .options_end_after = 2,
    .operand_completion = COMPLETE_SANDBOXES,
    .more_completion = COMPLETE_PROGRAMS,
    .run = run,
};
