/* SPDX-License-Identifier: Apache-2.0 */
/*
 * logs.c - aviary logs: output of a background process
 */
#include <errno.h>
#include <stdio.h>

#include "base/json.h"
#include "cli/command.h"
#include "cli/session.h"

#include "base/banned.h"

/* The one process of the sandbox, as text for a selector; fails when there is none or a choice. */
static int only_process(
    struct cli *cli, const char *id, char *ret_selector, size_t size, struct av_err *err)
{
	AV_CLEANUP(av_json_decrefp) json_t *reply = NULL;
	int r = cli_call(cli, "GET", NULL, &reply, err, "/v1/sandboxes/%s/processes", id);
	if (r < 0)
		return r;
	const json_t *list = json_object_get(reply, "processes");
	size_t n = json_array_size(list);
	if (n == 0)
		return av_err_set(err, AV_ERR_NOT_FOUND,
		    "no process runs there; name one that ended in the last 30 seconds by pid or "
		    "tag");
	if (n > 1)
		return av_err_set(err, AV_ERR_INVALID,
		    "%zu processes run there; name one by pid or tag ('aviary ps' lists them)", n);
	snprintf(ret_selector, size, "%lld",
	    (long long)json_integer_value(json_object_get(json_array_get(list, 0), "pid")));
	return 0;
}

static int run(struct cli *cli, const struct args *args)
{
	struct av_err err = {0};
	char id[AV_ID_SIZE], only[32];
	const char *selector = args->n_operands > 1 ? args->operands[1] : only;
	bool follow = args_flag(args, "follow");
	struct av_exec *exec = NULL;
	struct session_options so = {.reads_stdin = false};

	int status = cli_connect(cli);
	if (status)
		return status;
	if (cli_resolve(cli, args->operands[0], id, &err) < 0 ||
	    (args->n_operands < 2 && only_process(cli, id, only, sizeof(only), &err) < 0))
		return cli_fail(cli, &err, args->operands[0]);
	struct session *s = session_new(&so);
	if (!s)
		return EXIT_PLATFORM;
	if (av_exec_attach(
	        cli->client, id, selector, true, follow, &session_events, s, &exec, &err) < 0) {
		status = cli_fail(cli, &err, args->operands[0]);
	} else {
		status = session_run(s, cli, exec);
		/* How the process ended is not how showing its output ended. */
		status = session_has_end(s) ? 0 : status;
	}
	session_free(s);
	return status;
}

static const struct option_spec options[] = {
    {"follow", 'f', OPTION_FLAG, NULL, "go on until the process ends", COMPLETE_NONE},
    {NULL, 0, OPTION_FLAG, NULL, NULL, COMPLETE_NONE},
};

const struct command command_logs = {
    .name = "logs",
    .usage = "SANDBOX [PID|TAG]",
    .summary = "show the output of a background process",
    .description =
        "Shows what a process started with 'aviary exec -d' printed: the newest part (one "
        "MiB), with what is missing counted. PID or TAG may be left out when one process runs. A "
        "process that ended is remembered for 30 seconds.",
    .options = options,
    .min_operands = 1,
    .max_operands = 2,
    .operand_completion = COMPLETE_SANDBOXES,
    .run = run,
};
