/* SPDX-License-Identifier: Apache-2.0 */
/*
 * audit.c - aviary audit: who changed what
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/avtime.h"
#include "base/codec.h"
#include "base/json.h"
#include "base/num.h"
#include "cli/command.h"

#include "base/banned.h"

#define PAGE_MAX  200
#define SHOWN     50
#define FOLLOW_US (1000 * 1000)
#define FIND_MAX  10000 /* records at most, looking for the one shown last */

static const char *text_of(const json_t *o, const char *field)
{
	const char *s = json_string_value(json_object_get(o, field));
	return s ? s : "";
}

static void add_parameter(struct av_buf *path, const char *name, const char *value)
{
	(void)av_buf_printf(path, "%c%s=", strchr(av_buf_cstr(path), '?') ? '&' : '?', name);
	(void)av_percent_encode(path, av_str_c(value), false);
}

/* "2h", or a moment as the daemon shows them. */
static int add_time(
    struct cli *cli, struct av_buf *path, const struct args *args, const char *option)
{
	const char *text = args_text(args, option);
	struct av_err err;
	int64_t real_ms;
	uint64_t ms;
	char at[32];

	if (!text)
		return 0;
	if (av_rfc3339_parse(av_str_c(text), &real_ms) == 0) {
		add_parameter(path, option, text);
		return 0;
	}
	if (av_parse_duration_ms(av_str_c(text), &ms, &err) < 0 || ms > INT64_MAX / 2)
		return cli_usage_error(cli,
		    "--%s %s? Give a time ago, as 2h, or a moment, as 2026-08-21T20:00:00Z", option,
		    text);
	av_rfc3339_ms(av_real_ms() - (int64_t)ms, at);
	add_parameter(path, option, at);
	return 0;
}

/* base?filters; the exit status for what is wrong, or 0. */
static int make_path(
    struct cli *cli, const struct args *args, const char *tail, struct av_buf *path)
{
	static const struct {
		const char *option, *parameter;
	} texts[] = {{"type", "resource_type"}, {"action", "action"}, {"resource", "resource_id"},
	    {"actor", "actor"}, {"status", "status"}};
	int status;

	(void)av_buf_printf(
	    path, "/v1/%saudit-logs%s", args_flag(args, "all-teams") ? "admin/" : "", tail);
	for (size_t i = 0; i < AV_ARRAY_LEN(texts); i++)
		if (args_text(args, texts[i].option) && !av_buf_error(path))
			add_parameter(path, texts[i].parameter, args_text(args, texts[i].option));
	if (av_buf_error(path))
		return cli_usage_error(cli, "the options are too long together");
	status = add_time(cli, path, args, "since");
	return status ? status : add_time(cli, path, args, "until");
}

/* ---- showing ---- */

static void show_record(struct cli *cli, const json_t *o)
{
	const char *status = text_of(o, "status"), *who = text_of(o, "actor_name");
	bool good = strcmp(status, "success") == 0;

	if (cli->json) {
		cli_print_json(cli, o);
		return;
	}
	if (!who[0])
		who = text_of(o, "actor_id")[0] ? text_of(o, "actor_id") : text_of(o, "actor_type");
	cli_print_safe(stdout, text_of(o, "created_at"));
	printf("  %s%-7s%s ", good ? "" : cli_bad(cli), status, good ? "" : cli_plain(cli));
	printf("%-3.0d ", (int)json_integer_value(json_object_get(o, "http_status")));
	cli_print_safe(stdout, text_of(o, "action"));
	printf("%*s ",
	    (int)(strlen(text_of(o, "action")) < 20 ? 20 - strlen(text_of(o, "action")) : 0), "");
	cli_print_safe(stdout, text_of(o, "resource_id")[0] ? text_of(o, "resource_id") : "-");
	fputs("  ", stdout);
	cli_print_safe(stdout, who);
	if (text_of(o, "user_name")[0]) {
		fputs(" of ", stdout);
		cli_print_safe(stdout, text_of(o, "user_name"));
	}
	putchar('\n');
}

/* Newest records first, up to n of them or down to the one called `last` (empty: none). */
static int gather(
    struct cli *cli, const char *path, size_t n, const char *last, json_t *ret, struct av_err *err)
{
	char before[64] = "";

	for (;;) {
		AV_CLEANUP(av_json_decrefp) json_t *page = NULL;
		AV_CLEANUP(av_buf_clear) struct av_buf url = AV_BUF_INIT(65536);
		json_t *o;
		size_t i;
		int r;

		(void)av_buf_append_c(&url, path);
		if (before[0])
			add_parameter(&url, "before_id", before);
		if (!av_buf_error(&url))
			add_parameter(&url, "limit", n < PAGE_MAX ? "50" : "200");
		const struct cli_request request = {.method = "GET", .path = av_buf_cstr(&url)};
		if (!request.path)
			return av_err_set(err, AV_ERR_NO_MEMORY, "out of memory");
		r = cli_request(cli, &request, &page, err);
		if (r < 0)
			return r;
		json_array_foreach (json_object_get(page, "items"), i, o) {
			if (json_array_size(ret) >= n || strcmp(text_of(o, "id"), last) == 0)
				return 0;
			if (json_array_append(ret, o) < 0)
				return av_err_set(err, AV_ERR_NO_MEMORY, "out of memory");
		}
		if (!text_of(page, "next_before_id")[0] || cli_caught_signal())
			return 0;
		snprintf(before, sizeof(before), "%s", text_of(page, "next_before_id"));
	}
}

/* Prints, oldest first; last becomes the id of the newest. */
static int print_newest(
    struct cli *cli, const char *path, size_t n, char last[static AV_ID_SIZE], struct av_err *err)
{
	AV_CLEANUP(av_json_decrefp) json_t *v = json_array();
	int r = v ? gather(cli, path, n, last, v, err)
	          : av_err_set(err, AV_ERR_NO_MEMORY, "out of memory");

	if (r < 0)
		return r;
	for (size_t i = json_array_size(v); i > 0; i--)
		show_record(cli, json_array_get(v, i - 1));
	if (json_array_size(v))
		snprintf(last, AV_ID_SIZE, "%s", text_of(json_array_get(v, 0), "id"));
	fflush(stdout);
	return 0;
}

static int follow(struct cli *cli, const char *path, char *last)
{
	struct av_err err = {0};
	int r = 0;

	while (!cli_caught_signal() && r == 0) {
		usleep(FOLLOW_US);
		if (!cli_caught_signal())
			r = print_newest(cli, path, FIND_MAX, last, &err);
	}
	if (cli_caught_signal())
		return EXIT_SIGNAL + cli_caught_signal();
	return cli_fail(cli, &err, NULL);
}

/* aviary_write_fn */
static int64_t write_out(void *ctx, const void *p, size_t n)
{
	(void)ctx;
	return fwrite(p, 1, n, stdout) == n ? (int64_t)n : AVIARY_E_LOCAL;
}

static int run(struct cli *cli, const struct args *args)
{
	AV_CLEANUP(av_buf_clear) struct av_buf path = AV_BUF_INIT(32768);
	bool following = args_flag(args, "follow");
	bool whole = cli->json && !following;
	char last[AV_ID_SIZE] = "";
	struct av_err err = {0};
	int status = make_path(cli, args, whole ? "/export" : "", &path);

	if (status == 0)
		status = cli_connect(cli);
	if (status)
		return status;
	if (whole) {
		if (cli_transfer(cli,
		        aviary_client_download(
		            cli->client, av_buf_cstr(&path), write_out, NULL, NULL),
		        "reading", &err) < 0)
			return ferror(stdout) ? EXIT_PLATFORM : cli_fail(cli, &err, NULL);
		return fflush(stdout) == 0 ? 0 : EXIT_PLATFORM;
	}
	if (following)
		cli_catch_signals();
	if (print_newest(
	        cli, av_buf_cstr(&path), (size_t)args_number(args, "lines", SHOWN), last, &err) < 0)
		return cli_fail(cli, &err, NULL);
	return following ? follow(cli, av_buf_cstr(&path), last) : 0;
}

static const struct option_spec options[] = {
    {"follow", 'f', OPTION_FLAG, NULL, "go on with what happens, until interrupted", COMPLETE_NONE},
    {"lines", 'n', OPTION_NUMBER, "N", "the newest N (default: 50)", COMPLETE_NONE},
    {"since", 0, OPTION_TEXT, "TIME", "not older than 2h, or 2026-08-21T20:00:00Z", COMPLETE_NONE},
    {"until", 0, OPTION_TEXT, "TIME", "not newer than that", COMPLETE_NONE},
    {"action", 0, OPTION_TEXT, "NAME", "sandbox.create, or create of any kind", COMPLETE_NONE},
    {"type", 0, OPTION_TEXT, "KIND,…", "about sandbox, snapshot, key, …", COMPLETE_NONE},
    {"resource", 0, OPTION_TEXT, "ID", "about this one", COMPLETE_NONE},
    {"actor", 0, OPTION_TEXT, "WHO", "by this user or key: an id or a name", COMPLETE_NONE},
    {"status", 0, OPTION_TEXT, "WORD", "success, failure or unknown", COMPLETE_NONE},
    {"all-teams", 'A', OPTION_FLAG, NULL, "of all teams, for administrators", COMPLETE_NONE},
    {NULL, 0, OPTION_FLAG, NULL, NULL, COMPLETE_NONE},
};

const struct command command_audit = {
    .name = "audit",
    .usage = "",
    .summary = "show who changed what, and what came of it",
    .description =
        "Shows the newest records of the team's audit log, oldest first. With --json all that fit "
        "the options are printed, one JSON object a line.",
    .options = options,
    .run = run,
};
