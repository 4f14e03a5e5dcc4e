/* SPDX-License-Identifier: Apache-2.0 */
/*
 * events.c - aviary events: what happens to the team's sandboxes and templates, as it happens
 *
 * One WebSocket (client/socket.h). When it breaks, because the daemon is started anew or the
 * network is gone, another one is opened, which goes on behind the last event that was shown; what
 * was missed meanwhile comes first, or a line that says that something is missing.
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/buf.h"
#include "base/codec.h"
#include "base/json.h"
#include "cli/command.h"
#include "client/socket.h"

#include "base/banned.h"

#define PATH_MAX_BYTES ((size_t)8 * 1024)
#define AGAIN_S        1
#define AGAIN_MAX      300 /* tries in a row */

struct follow {
	struct cli *cli;
	const struct args *args;
	char last_id[64];
	bool connected, ended, closed_stdout;
	unsigned int failures; /* in a row */
};

/* ---- showing ---- */

static const char *text(const json_t *j, const char *object, const char *name)
{
	const char *s =
	    json_string_value(json_object_get(object ? json_object_get(j, object) : j, name));

	return s ? s : "";
}

/* "2026-08-21T20:00:22Z capsule.pause   sb...  by ci" */
static void show_event(const struct follow *f, const char *type, const json_t *data)
{
	const char *reason = text(data, "metadata", "reason"), *name = text(data, "actor", "name");
	const char *from = text(data, "metadata", "from"), *to = text(data, "metadata", "to");
	bool failed = strcmp(text(data, NULL, "outcome"), "error") == 0;

	fputs(cli_faint(f->cli), stdout);
	cli_print_safe(stdout, text(data, NULL, "timestamp"));
	fputs(cli_plain(f->cli), stdout);
	fputs("  ", stdout);
	fputs(failed ? cli_bad(f->cli) : "", stdout);
	cli_print_safe(stdout, type);
	fputs(failed ? cli_plain(f->cli) : "", stdout);
	printf("%*s", (int)(strlen(type) < 24 ? 24 - strlen(type) : 1), "");
	cli_print_safe(stdout, text(data, "resource", "id"));
	if (from[0])
		printf("  %s to %s", from, to);
	if (failed) {
		fputs("  failed: ", stdout);
		cli_print_safe(stdout, text(data, NULL, "error"));
	}
	if (reason[0]) {
		fputs("  ", stdout);
		cli_print_safe(stdout, reason);
	}
	if (name[0]) {
		fputs("  by ", stdout);
		cli_print_safe(stdout, name);
	}
	if (text(data, NULL, "message")[0]) {
		fputs("  ", stdout);
		cli_print_safe(stdout, text(data, NULL, "message"));
	}
	fputc('\n', stdout);
}

static void on_message(void *ctx, bool is_text, const uint8_t *p, size_t n)
{
	struct follow *f = ctx;
	AV_CLEANUP(av_json_decrefp)
	json_t *m = is_text ? av_json_parse_object(av_str_n((const char *)p, n), NULL) : NULL;
	const char *type = text(m, NULL, "type"), *id = text(m, NULL, "id");
	const json_t *data = json_object_get(m, "data");

	if (strlen(id) < sizeof(f->last_id) && id[0])
		memcpy(f->last_id, id, strlen(id) + 1);
	if (strcmp(type, "connected") == 0) {
		f->connected = true;
		f->failures = 0;
	} else if (strcmp(type, "error") == 0) {
		cli_warn("%s", text(m, NULL, "data"));
		f->ended = true;
	} else if (strcmp(type, "gap") == 0) {
		cli_warn("%s", text(data, NULL, "message"));
	} else if (strcmp(type, "end") == 0) {
		cli_warn("%s", text(data, NULL, "message"));
	} else if (f->cli->json) {
		json_dumpf(data, stdout, JSON_COMPACT);
		fputc('\n', stdout);
	} else if (json_is_object(data)) {
		show_event(f, type, data);
	}
	f->closed_stdout = fflush(stdout) != 0 || ferror(stdout);
}

static const struct av_socket_events events = {.on_message = on_message};

/* ---- the connection ---- */

static void add(struct av_buf *path, const char *name, const char *value)
{
	(void)av_buf_append_char(path, memchr(av_buf_str(path).p, '?', path->n) ? '&' : '?');
	(void)av_buf_printf(path, "%s=", name);
	(void)av_percent_encode(path, av_str_c(value), false);
}

static int make_path(struct follow *f, struct av_buf *path, struct av_err *err)
{
	const char *value;
	char id[AV_ID_SIZE];
	size_t pos = 0;

	(void)av_buf_append_c(path, "/v1/events");
	while ((value = args_next(f->args, "event", &pos)))
		add(path, "event", value);
	for (size_t i = 0; i < f->args->n_operands; i++) {
		/* Those that are gone have no name any more, and may yet be asked for. */
		if (av_id_valid(av_str_c(f->args->operands[i]), AV_ID_SANDBOX)) {
			add(path, "sandbox_id", f->args->operands[i]);
			continue;
		}
		if (cli_resolve(f->cli, f->args->operands[i], id, err) < 0)
			return -av_err_errno(err->kind);
		add(path, "sandbox_id", id);
	}
	return av_buf_error(path) < 0 ? av_err_set(err, AV_ERR_INVALID, "too many filters") : 0;
}

/* 0: it was closed; else *err says how it broke. */
static int follow_socket(struct follow *f, struct av_socket *s, struct av_err *err)
{
	int r = 0;

	while (r == 0 && !cli_caught_signal() && !f->closed_stdout) {
		struct pollfd p = {.fd = av_socket_fd(s),
		    .events = (short)(POLLIN | (av_socket_wants_write(s) ? POLLOUT : 0))};

		if (!av_socket_has_pending(s) && poll(&p, 1, -1) < 0 && errno != EINTR)
			return av_err_sys(err, AV_ERR_INTERNAL, errno, "poll");
		r = av_socket_step(s, true, err);
	}
	return r < 0 ? r : 0;
}

/* Whether it is worth another try: the daemon may be starting. */
static bool may_come_back(const struct av_err *err)
{
	return err->kind == AV_ERR_UNAVAILABLE || err->kind == AV_ERR_UPSTREAM ||
	       err->kind == AV_ERR_REQUEST_TIMEOUT;
}

static int once(struct follow *f, const struct av_buf *filters, struct av_err *err)
{
	AV_CLEANUP(av_buf_clear) struct av_buf path = AV_BUF_INIT(PATH_MAX_BYTES);
	struct av_socket *s = NULL;
	int r;

	(void)av_buf_append_str(&path, av_buf_str(filters));
	if (f->last_id[0])
		add(&path, "last_event_id", f->last_id);
	if (!av_buf_cstr(&path))
		return av_err_set(err, AV_ERR_NO_MEMORY, "out of memory");
	r = av_socket_open(f->cli->client, av_buf_cstr(&path), NULL, &events, f, &s, err);
	if (r < 0)
		return r;
	r = follow_socket(f, s, err);
	av_socket_free(s);
	return r;
}

static int run(struct cli *cli, const struct args *args)
{
	AV_CLEANUP(av_buf_clear) struct av_buf filters = AV_BUF_INIT(PATH_MAX_BYTES);
	struct follow f = {.cli = cli, .args = args};
	struct av_err err = {0};
	int status = cli_connect(cli), r;

	if (status)
		return status;
	if (make_path(&f, &filters, &err) < 0)
		return cli_fail(cli, &err, NULL);
	cli_catch_signals();
	for (;;) {
		av_err_clear(&err);
		r = once(&f, &filters, &err);
		if (cli_caught_signal())
			return EXIT_SIGNAL + cli_caught_signal();
		if (f.closed_stdout || f.ended)
			return EXIT_PLATFORM;
		/* The first time nothing is waited for: the address may be wrong. */
		if (r < 0 && (!f.connected || !may_come_back(&err) || ++f.failures > AGAIN_MAX))
			return cli_fail(cli, &err, NULL);
		(void)nanosleep(&(struct timespec){.tv_sec = AGAIN_S}, NULL);
		if (cli_caught_signal())
			return EXIT_SIGNAL + cli_caught_signal();
	}
}

static const struct option_spec options[] = {
    {"event", 'e', OPTION_LIST, "NAME", "only these, as capsule.destroy", COMPLETE_NONE},
    {NULL, 0, OPTION_FLAG, NULL, NULL, COMPLETE_NONE},
};

static const char *const examples[] = {"aviary events\tall of your team",
    "aviary events --json -e capsule.destroy\tends, one object a line", NULL};

const struct command command_events = {
    .name = "events",
    .usage = "[SANDBOX…]",
    .summary = "show what happens, as it happens",
    .description = "Shows what happens to the sandboxes and templates of your team until it is "
                   "interrupted: all, or only to the "
                   "sandboxes named. When the daemon is started anew it goes on where it was, and "
                   "says when something is missing.",
    .examples = examples,
    .options = options,
    .min_operands = 0,
    .max_operands = 16,
    .operand_completion = COMPLETE_SANDBOXES,
    .run = run,
};
