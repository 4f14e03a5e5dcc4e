/* SPDX-License-Identifier: Apache-2.0 */
/*
 * stop.c - aviary stop: let sandboxes end in order
 *
 * All that are named are stopped at once, as each may take as long as its grace; what came of each
 * is told in the order in which they were named.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "cli/command.h"

#include "base/banned.h"

#define GRACE_MAX_MS 600000
/* What the daemon may take beyond the grace; longer where a snapshot is made. */
#define SLACK_MS          60000
#define SLACK_SNAPSHOT_MS (15 * 60000)

struct stop {
	char id[AV_ID_SIZE];
	aviary_op *op; /* owned; NULL: it was not even asked for */
};

static aviary_op *ask(struct cli *cli, const struct args *args, const char *id, struct av_err *err)
{
	aviary_request rq = AVIARY_REQUEST_INIT;
	int64_t grace_ms = (int64_t)args_duration_ms(args, "grace", 10000);
	const char *snapshot = args_text(args, "snapshot");
	AV_CLEANUP(av_json_decrefp) json_t *body = json_object();
	AV_CLEANUP(av_freep) char *text = NULL;
	char path[AV_ID_SIZE + 40];

	json_object_set_new(body, "grace_sec", json_real((double)grace_ms / 1000));
	if (snapshot && json_object_set_new(body, "snapshot", json_string(snapshot)) < 0) {
		av_err_set(err, AV_ERR_INVALID, "--snapshot: the name is not UTF-8");
		return NULL;
	}
	text = json_dumps(body, JSON_COMPACT);
	if (!text) {
		av_err_sys(err, AV_ERR_NO_MEMORY, ENOMEM, "the request");
		return NULL;
	}
	snprintf(path, sizeof(path), "/v1/sandboxes/%s/stop", id);
	rq.method = "POST";
	rq.path = path;
	rq.body = text;
	rq.timeout_ms = grace_ms + (snapshot ? SLACK_SNAPSHOT_MS : SLACK_MS);
	return aviary_client_request(cli->client, &rq);
}

static bool is_missing(int code)
{
	return code == AVIARY_E_SANDBOX_NOT_FOUND || code == AVIARY_E_NOT_FOUND;
}

static void tell(struct cli *cli, const struct stop *s, const char *typed)
{
	size_t n;
	const char *body = aviary_op_body(s->op, &n);
	AV_CLEANUP(av_json_decrefp) json_t *result = json_loadb(body, n, 0, NULL);
	const char *snapshot = json_string_value(json_object_get(result, "snapshot"));

	if (cli->json) {
		cli_print_json(cli, result);
		return;
	}
	if (json_is_true(json_object_get(result, "grace_exceeded")))
		cli_warn("%s: killed, as its command went on after the time it was given (--grace)",
		    typed);
	if (!cli->quiet)
		printf("%s\n", s->id);
	if (snapshot && !cli->quiet && cli->err_is_tty)
		fprintf(stderr, "its files are template %s\n", snapshot);
}

static int stop_all(struct cli *cli, const struct args *args, struct stop *all)
{
	bool missing_ok = args_flag(args, "missing-ok");
	int status = 0, r;

	for (size_t i = 0; i < args->n_operands; i++) {
		struct av_err err = {0};

		if (cli_resolve(cli, args->operands[i], all[i].id, &err) < 0 ||
		    !(all[i].op = ask(cli, args, all[i].id, &err))) {
			if (missing_ok && err.kind == AV_ERR_NOT_FOUND)
				continue;
			status = cli_fail(cli, &err, args->operands[i]);
			if (cli->is_unreachable)
				return status;
		}
	}
	cli->waiting = "waiting for its end";
	for (size_t i = 0; i < args->n_operands; i++) {
		struct av_err err = {0};

		if (!all[i].op)
			continue;
		r = cli_wait(cli, all[i].op, &err);
		if (r == 0)
			tell(cli, &all[i], args->operands[i]);
		else if (!missing_ok || !is_missing(aviary_op_code(all[i].op)))
			status = cli_fail(cli, &err, args->operands[i]);
	}
	return status;
}

static int run(struct cli *cli, const struct args *args)
{
	struct stop *all;
	int status;

	if (args_duration_ms(args, "grace", 0) > GRACE_MAX_MS)
		return cli_usage_error(cli, "--grace: at most %d s", GRACE_MAX_MS / 1000);
	if (args_text(args, "snapshot") && args->n_operands > 1)
		return cli_usage_error(
		    cli, "--snapshot names one template: stop one sandbox with it");
	status = cli_connect(cli);
	if (status)
		return status;
	cli_catch_signals();
	all = calloc(args->n_operands, sizeof(*all));
	status = all ? stop_all(cli, args, all) : EXIT_PLATFORM;
	for (size_t i = 0; all && i < args->n_operands; i++)
		aviary_op_free(all[i].op);
	free(all);
	return status;
}

static const struct option_spec options[] = {
    {"grace", 'g', OPTION_DURATION, "TIME",
        "how long its command may take after SIGTERM (default: 10s; at most 10m)", COMPLETE_NONE},
    {"snapshot", 0, OPTION_TEXT, "NAME", "make a template of its files then", COMPLETE_NONE},
    {"missing-ok", 0, OPTION_FLAG, NULL, "one that is not there is no error", COMPLETE_NONE},
    {NULL, 0, OPTION_FLAG, NULL, NULL, COMPLETE_NONE},
};

static const char *const examples[] = {
    "aviary stop work\tits command gets SIGTERM and 10 seconds",
    "aviary stop --grace 1m --snapshot done work\tand its files are kept",
    NULL,
};

const struct command command_stop = {
    .name = "stop",
    .usage = "SANDBOX…",
    .summary = "let sandboxes end in order",
    .description =
        "Sends SIGTERM to the main command of each sandbox, waits until it is over or --grace has "
        "passed, and ends the sandbox. Several are stopped at once, and the others given also if "
        "one fails. Logs of the main command and its exit status can be had afterwards; 'aviary "
        "rm' ends sandboxes at once.",
    .examples = examples,
    .see = "rm pause logs snapshot",
    .options = options,
    .min_operands = 1,
    .max_operands = OPERANDS_ANY,
    .operand_completion = COMPLETE_SANDBOXES,
    .more_completion = COMPLETE_SANDBOXES,
    .run = run,
};
