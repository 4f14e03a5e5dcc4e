/* SPDX-License-Identifier: Apache-2.0 */
/*
 * logs.c - aviary logs: what the main command of a sandbox printed, or a background process
 *
 * The main command's log is the daemon's, line by line with times, also after the end. When the
 * connection breaks while it is followed, it is asked for again behind the last line. A background
 * process has a ring of its newest output in the sandbox, which is shown as it came.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/avtime.h"
#include "base/buf.h"
#include "base/codec.h"
#include "base/json.h"
#include "base/num.h"
#include "cli/command.h"
#include "cli/session.h"

#include "base/banned.h"

#define RECONNECT_MS 60000
#define BETWEEN_MS   500
#define PREFIX_MIN   6 /* of an id that has ended: fewer characters fit too many */

/* ---- the main command ---- */

struct show {
	struct cli *cli;
	bool times;
	int64_t next_offset; /* behind the last line */
	bool open[2];        /* the last line of stdout and stderr had no newline */
};

static void put_json(const struct show *s, const aviary_log_entry *line)
{
	AV_CLEANUP(av_json_decrefp) json_t *o = json_object();
	AV_CLEANUP(av_buf_clear) struct av_buf base64 = AV_BUF_INIT(2 * AV_MIB);
	json_t *text;

	(void)s;
	if (line->kind == AVIARY_LOG_GAP) {
		json_object_set_new(o, "dropped", json_integer(line->dropped));
	} else if (line->kind == AVIARY_LOG_END) {
		if (line->has_exit_code)
			json_object_set_new(o, "exit_code", json_integer(line->exit_code));
		if (line->reason[0])
			json_object_set_new(o, "reason", json_string(line->reason));
	} else {
		json_object_set_new(o, "offset", json_integer(line->offset));
		json_object_set_new(o, "time", json_string(line->time));
		json_object_set_new(
		    o, "stream", json_string(line->channel == AVIARY_STDERR ? "stderr" : "stdout"));
		text = json_stringn(line->text, line->size);
		if (text)
			json_object_set_new(o, "text", text);
		else if (av_base64_encode(&base64, line->text, line->size) == 0)
			json_object_set_new(o, "base64", json_string(av_buf_cstr(&base64)));
		if (line->partial)
			json_object_set_new(o, "partial", json_true());
	}
	json_dumpf(o, stdout, JSON_COMPACT);
	putchar('\n');
}

static void put_text(struct show *s, const aviary_log_entry *line)
{
	bool is_err = line->channel == AVIARY_STDERR;
	FILE *f = is_err ? stderr : stdout;

	if (line->kind == AVIARY_LOG_GAP) {
		fflush(stdout);
		cli_warn("%lld lines are missing: the log keeps the newest part",
		    (long long)line->dropped);
		return;
	}
	if (line->kind == AVIARY_LOG_END)
		return;
	if (s->times && !line->continued)
		fprintf(f, "%s%s%s ", is_err ? "" : cli_faint(s->cli), line->time,
		    is_err ? "" : cli_plain(s->cli));
	fwrite(line->text, 1, line->size, f);
	if (!line->partial)
		fputc('\n', f);
	s->open[is_err] = line->partial;
}

static int on_line(void *ctx, const aviary_log_entry *line)
{
	struct show *s = ctx;

	if (line->kind == AVIARY_LOG_LINE)
		s->next_offset = line->offset + 1;
	if (s->cli->json)
		put_json(s, line);
	else
		put_text(s, line);
	/* A reader that went away ends it; main tells what a failure to write was. */
	return fflush(stdout) != 0 || ferror(stdout) ? AVIARY_E_LOCAL : 0;
}

static bool is_of_the_way(int code)
{
	return aviary_error_is(code, AVIARY_GROUP_TRANSPORT) || code == AVIARY_E_UNAVAILABLE;
}

/* What a pause is for: a network, or a daemon that is started anew. */
static void pause_between(void)
{
	struct timespec t = {0, BETWEEN_MS * 1000000L};

	(void)nanosleep(&t, NULL); /* a signal ends it, which is looked at then */
}

static int show_main(
    struct cli *cli, const struct args *args, aviary_sandbox *sb, const char *typed)
{
	struct show s = {.cli = cli, .times = args_flag(args, "timestamps")};
	aviary_logs_options o = AVIARY_LOGS_OPTIONS_INIT;
	int64_t give_up_ms = 0;
	char since[40];
	int code, r;

	o.follow = args_flag(args, "follow");
	o.has_tail = args_text(args, "tail") != NULL;
	o.tail = (int64_t)args_number(args, "tail", 0);
	o.since = args_text(args, "since");
	o.stream = args_text(args, "stream");
	cli->has_own_progress = true;
	do {
		struct av_err err = {0};
		int64_t before = s.next_offset;
		aviary_op *op = aviary_sandbox_logs(sb, &o, on_line, &s);

		r = cli_wait(cli, op, &err);
		code = aviary_op_code(op);
		aviary_op_free(op);
		if (r == 0 || code == AVIARY_E_LOCAL)
			break;
		if (!o.follow || !is_of_the_way(code) || cli_is_interrupted() ||
		    (s.next_offset == 0 && give_up_ms == 0))
			return cli_fail(cli, &err, typed);
		if (s.next_offset != before || give_up_ms == 0)
			give_up_ms = av_mono_ns() / 1000000 + RECONNECT_MS;
		if (av_mono_ns() / 1000000 > give_up_ms)
			return cli_fail(cli, &err, typed);
		o.has_tail = 0;
		snprintf(since, sizeof(since), "offset:%lld", (long long)s.next_offset);
		o.since = since;
		pause_between();
	} while (!cli_is_interrupted());
	if (s.open[0] && cli->out_is_tty && !cli->json)
		putchar('\n');
	return cli_is_interrupted() ? EXIT_SIGNAL + cli_caught_signal() : 0;
}

/* ---- a background process ---- */

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
		    "it has no main command, and no process runs there; name one that ended in the "
		    "last 30 seconds by pid or tag");
	if (n > 1)
		return av_err_set(err, AV_ERR_INVALID,
		    "it has no main command, and %zu processes run there; name one by pid or tag "
		    "('aviary ps' lists them)",
		    n);
	snprintf(ret_selector, size, "%lld",
	    (long long)json_integer_value(json_object_get(json_array_get(list, 0), "pid")));
	return 0;
}

static int show_process(
    struct cli *cli, const struct args *args, aviary_sandbox *sb, const char *selector)
{
	const struct session_options so = {
	    .sandbox = aviary_sandbox_id(sb), .typed = args->operands[0]};
	static const char *const of_main[] = {"tail", "since", "stream"};
	aviary_exec_options o = AVIARY_EXEC_OPTIONS_INIT;

	for (size_t i = 0; i < AV_ARRAY_LEN(of_main); i++)
		if (args_text(args, of_main[i]))
			return cli_usage_error(
			    cli, "--%s is for the log of a main command", of_main[i]);
	if (args_flag(args, "timestamps"))
		return cli_usage_error(cli, "--timestamps is for the log of a main command");
	if (!args_flag(args, "follow"))
		o.flags = AVIARY_EXEC_NO_FOLLOW;
	return session_run(cli, aviary_sandbox_connect_with(sb, selector, &o), &so);
}

/* ---- which ---- */

/* As cli_resolve, but the newest of those that have ended is meant as well. */
static int resolve(
    struct cli *cli, const char *what, char ret_id[static AV_ID_SIZE], struct av_err *err)
{
	AV_CLEANUP(av_json_decrefp) json_t *list = NULL;
	int r = cli_resolve(cli, what, ret_id, err);
	const json_t *o;
	size_t i;

	if (r == 0 || err->kind != AV_ERR_NOT_FOUND)
		return r;
	if (cli_call(cli, "GET", NULL, &list, err, "/v1/sandboxes?status=all") < 0)
		return -EIO;
	json_array_foreach (list, i, o) {
		const char *id = cli_text(o, "id");
		bool is_name = strcmp(cli_text(json_object_get(o, "metadata"), "name"), what) == 0;

		if ((is_name ||
		        (strlen(what) >= PREFIX_MIN && strncmp(id, what, strlen(what)) == 0)) &&
		    av_id_valid(av_str_c(id), AV_ID_SANDBOX))
			return av_str_copy(ret_id, AV_ID_SIZE, av_str_c(id));
	}
	return av_err_set(
	    err, AV_ERR_NOT_FOUND, "there is no sandbox '%s'; 'aviary ls --all' lists them", what);
}

static int has_main_command(struct cli *cli, const char *id, bool *ret, struct av_err *err)
{
	AV_CLEANUP(av_json_decrefp) json_t *sandbox = NULL;
	int r = cli_call(cli, "GET", NULL, &sandbox, err, "/v1/sandboxes/%s", id);

	*ret = r == 0 && json_object_get(sandbox, "command");
	return r;
}

static int run(struct cli *cli, const struct args *args)
{
	const char *typed = args->operands[0], *stream = args_text(args, "stream");
	const char *selector = args->n_operands > 1 ? args->operands[1] : NULL;
	struct av_err err = {0};
	char id[AV_ID_SIZE], only[32];
	bool is_main = false;
	int status;

	if (stream && strcmp(stream, "stdout") != 0 && strcmp(stream, "stderr") != 0)
		return cli_usage_error(cli, "--stream %s: stdout or stderr", stream);
	status = cli_connect(cli);
	if (status)
		return status;
	if (resolve(cli, typed, id, &err) < 0 ||
	    (!selector && has_main_command(cli, id, &is_main, &err) < 0) ||
	    (!selector && !is_main && only_process(cli, id, only, sizeof(only), &err) < 0))
		return cli_fail(cli, &err, typed);
	aviary_sandbox *sb = aviary_sandbox_attach(cli->client, id);
	if (!sb) {
		(void)av_err_sys(&err, AV_ERR_NO_MEMORY, ENOMEM, "the sandbox");
		return cli_fail(cli, &err, NULL);
	}
	if (is_main) {
		cli_catch_signals();
		status = show_main(cli, args, sb, typed);
	} else {
		status = show_process(cli, args, sb, selector ? selector : only);
	}
	aviary_sandbox_free(sb);
	return status;
}

static const struct option_spec options[] = {
    {"follow", 'f', OPTION_FLAG, NULL, "go on until the command or process ends", COMPLETE_NONE},
    {"tail", 'n', OPTION_NUMBER, "N", "only the last N lines of what there is", COMPLETE_NONE},
    {"since", 0, OPTION_TEXT, "TIME",
        "not older than 15m, 2h, 2026-08-21T20:00:00Z, or from line offset:N on", COMPLETE_NONE},
    {"timestamps", 't', OPTION_FLAG, NULL, "the time before each line", COMPLETE_NONE},
    {"stream", 0, OPTION_TEXT, "stdout|stderr", "only this one", COMPLETE_NONE},
    {NULL, 0, OPTION_FLAG, NULL, NULL, COMPLETE_NONE},
};

static const char *const examples[] = {
    "aviary logs -f work\twhat its main command prints, until it ends",
    "aviary logs -t --since 15m work\twith times",
    "aviary logs work build\tof the background process with that tag",
    NULL,
};

const struct command command_logs = {
    .name = "logs",
    .usage = "SANDBOX [PID|TAG]",
    .summary = "show what a sandbox's main command printed, or a background process",
    .description =
        "Shows the log of the main command: lines of standard output and standard error go where "
        "they went there. The daemon keeps the newest part of it (one MiB), also when the sandbox "
        "has ended; what is missing is said. With --json a line is an object.\n"
        "With PID or TAG, and in a sandbox without a main command, it is the output of a process "
        "that 'aviary exec -d' started: the newest MiB. One that ended is remembered for 30 "
        "seconds. Of the options only --follow is for those.",
    .examples = examples,
    .see = "create exec ps events",
    .options = options,
    .min_operands = 1,
    .max_operands = 2,
    .operand_completion = COMPLETE_SANDBOXES,
    .run = run,
};
