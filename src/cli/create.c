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

static int run(struct cli *cli, const struct args *args)
{
	struct av_err err = {0};
	char id[AV_ID_SIZE];
	AV_CLEANUP(av_json_decrefp) json_t *body = options_sandbox_body(args, &err);
	AV_CLEANUP(av_json_decrefp) json_t *envs = NULL;
	AV_CLEANUP(av_json_decrefp) json_t *sandbox = NULL;
	if (!body || options_envs(args, &envs, &err) < 0 || add_rest(args, body, &err) < 0)
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
	if (!args_flag(args, "quiet") && cli->out_is_tty)
		fprintf(stderr, "try: aviary exec -it %.8s bash\n", id);
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
    {"quiet", 'q', OPTION_FLAG, NULL, "print the id and nothing else", COMPLETE_NONE},
    OPTIONS_END,
};

static const char *const examples[] = {
    "aviary create --name work --memory 2G --cpus 2\ta sandbox called 'work'",
    "id=$(aviary create -q --lifetime 1h)\tone for a script, gone after an hour at the latest",
    NULL,
};

const struct command command_create = {
    .name = "create",
    .usage = "",
    .summary = "make a sandbox that stays until 'aviary rm'",
    .description = "Makes a sandbox and prints its id. It stays, with its files and processes, "
                   "until 'aviary rm', its time-out, or its end.",
    .examples = examples,
    .options = options,
    .run = run,
};
