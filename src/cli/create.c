/* SPDX-License-Identifier: Apache-2.0 */
/*
 * create.c - aviary create: a sandbox that stays
 */
#include <stdio.h>
#include <string.h>

#include "base/json.h"
#include "base/num.h"
#include "cli/options.h"

#include "base/banned.h"

static json_t *seconds_of(const struct args *args, const char *option)
{
	return json_integer((json_int_t)((args_duration_ms(args, option, 0) + 999) / 1000));
}

/* How long it stays, and who may reach it. */
static int add_rest(const struct args *args, json_t *body, struct av_err *err)
{
	const char *on_timeout = args_text(args, "on-timeout"), *text;
	AV_CLEANUP(av_json_decrefp) json_t *ports = json_array();
	size_t pos = 0;
	if (args_text(args, "idle-timeout"))
		json_object_set_new(body, "timeout_sec", seconds_of(args, "idle-timeout"));
	if (args_text(args, "lifetime"))
		json_object_set_new(body, "max_lifetime_sec", seconds_of(args, "lifetime"));
	if (on_timeout && strcmp(on_timeout, "pause") != 0 && strcmp(on_timeout, "delete") != 0)
		return av_err_set(err, AV_ERR_INVALID,
		    "--on-timeout %s: it must be 'pause' or 'delete'", on_timeout);
	if (on_timeout)
		json_object_set_new(body, "on_timeout", json_string(on_timeout));
	if (args_flag(args, "auto-resume"))
		json_object_set_new(body, "auto_resume", json_true());
	while ((text = args_next(args, "public-port", &pos))) {
		uint64_t port;
		if (av_parse_u64(av_str_c(text), 1, 65535, &port) < 0)
			return av_err_set(err, AV_ERR_INVALID,
			    "--public-port %s: a port is a number from 1 to 65535", text);
		json_array_append_new(ports, json_integer((json_int_t)port));
	}
	if (json_array_size(ports) > 0)
		json_object_set(body, "public_ports", ports);
	return 0;
}

/* The main command, and what its end does. */
static int add_command(const struct args *args, json_t *body, struct av_err *err)
{
	static const char *const of_command[] = {"workdir", "user", "on-exit"};
	static const char *const members[] = {"workdir", "user", "on_exit"};
	json_t *command;

	for (size_t i = 0; i < AV_ARRAY_LEN(of_command); i++) {
		const char *text = args_text(args, of_command[i]);

		if (text && args->n_operands == 0)
			return av_err_set(
			    err, AV_ERR_INVALID, "--%s is for a COMMAND", of_command[i]);
		if (text && json_object_set_new(body, members[i], json_string(text)) < 0)
			return av_err_set(err, AV_ERR_INVALID, "--%s is not UTF-8", of_command[i]);
	}
	if (args->n_operands == 0)
		return 0;
	command = json_array();
	for (size_t i = 0; i < args->n_operands; i++)
		if (json_array_append_new(command, json_string(args->operands[i])) < 0) {
			json_decref(command);
			return av_err_set(
			    err, AV_ERR_INVALID, "argument %zu of the command is not UTF-8", i + 1);
		}
	json_object_set_new(body, "command", command);
	return 0;
}

static int run(struct cli *cli, const struct args *args)
{
	struct av_err err = {0};
	char id[AV_ID_SIZE];
	AV_CLEANUP(av_json_decrefp) json_t *body = options_sandbox_body(args, &err);
	AV_CLEANUP(av_json_decrefp) json_t *envs = NULL;
	AV_CLEANUP(av_json_decrefp) json_t *sandbox = NULL;
	if (!body || options_envs(args, &envs, &err) < 0 || add_rest(args, body, &err) < 0 ||
	    add_command(args, body, &err) < 0)
		return cli_usage_error(cli, "%s", err.message);
	if (envs)
		json_object_set(body, "envs", envs);

	int status = cli_connect(cli);
	if (status)
		return status;
	cli_catch_signals();
	if (options_create_sandbox(cli, body, id, &sandbox, &err) < 0)
		return cli_fail(cli, &err, NULL);
	if (cli_caught_signal()) {
		/* Nobody waits for the id any more. */
		cli_hold_signals();
		if (cli_call(cli, "DELETE", NULL, NULL, &err, "/v1/sandboxes/%s", id) < 0)
			cli_warn("the sandbox %s is left behind: %s", id, err.message);
		return EXIT_SIGNAL + cli_caught_signal();
	}
	if (cli->json) {
		cli_print_json(cli, sandbox);
		return 0;
	}
	printf("%s\n", id);
	if (!cli->quiet && cli->out_is_tty)
		fprintf(stderr,
		    args->n_operands ? "try: aviary logs -f %.8s\n" : "try: aviary sh %.8s\n", id);
	return 0;
}

static const struct option_spec options[] = {
    OPTIONS_SANDBOX,
    {"env", 'e', OPTION_LIST, "NAME[=VALUE]",
        "a variable for every program inside; may be repeated", COMPLETE_NONE},
    {"idle-timeout", 0, OPTION_DURATION, "TIME", "pause it when unused for so long", COMPLETE_NONE},
    {"on-timeout", 0, OPTION_TEXT, "pause|delete", "what --idle-timeout does (default: pause)",
        COMPLETE_NONE},
    {"auto-resume", 0, OPTION_FLAG, NULL, "requests resume it when it is paused", COMPLETE_NONE},
    {"public-port", 0, OPTION_LIST, "PORT", "let everybody reach that port; may be repeated",
        COMPLETE_NONE},
    {"lifetime", 0, OPTION_DURATION, "TIME", "end it after so long in any case", COMPLETE_NONE},
    {"workdir", 'w', OPTION_TEXT, "DIR", "where COMMAND starts", COMPLETE_NONE},
    {"user", 'u', OPTION_TEXT, "NAME", "who runs COMMAND", COMPLETE_NONE},
    {"on-exit", 0, OPTION_TEXT, "stop|keep",
        "what the end of COMMAND does to the sandbox (default: stop)", COMPLETE_NONE},
    OPTIONS_END,
};

static const char *const examples[] = {
    "aviary create --name work --memory 2G --cpus 2\ta sandbox called 'work'",
    "id=$(aviary create -q --lifetime 1h)\tone for a script, gone after an hour at the latest",
    "aviary create --name web -- python3 -m http.server\tone that serves, until 'aviary stop'",
    NULL,
};

const struct command command_create = {
    .name = "create",
    .usage = "[--] [COMMAND [ARGUMENT…]]",
    .summary = "make a sandbox that stays until 'aviary rm'",
    .description = "Makes a sandbox and prints its id. It stays, with its files and processes, "
                   "until 'aviary rm', its time-out, or its end.\n"
                   "COMMAND is its main command: it is started with it, its output is kept "
                   "('aviary logs'), 'aviary stop' gives it time to end, and its end is the "
                   "sandbox's, unless --on-exit says otherwise.",
    .see = "run sh exec logs stop rm",
    .examples = examples,
    .options = options,
    .max_operands = OPERANDS_ANY,
    .options_end_after = 1,
    .operand_completion = COMPLETE_PROGRAMS,
    .more_completion = COMPLETE_FILES,
    .run = run,
};
