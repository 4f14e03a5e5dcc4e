/* SPDX-License-Identifier: Apache-2.0 */
/*
 * events.c - aviary events: what happens to the team's sandboxes and templates, as it happens
 *
 * The library follows (aviary/events.h): when the daemon is started anew or the network is gone, it
 * goes on behind the last event that was shown; what was missed meanwhile comes first, or a line
 * that says that something is missing.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/avtime.h"
#include "cli/command.h"

#include "base/banned.h"

#define LOOK_MS  100 /* how often it is looked for signals */
#define LIST_MAX 64

struct filters {
	const char *names[LIST_MAX], *sandboxes[LIST_MAX];
	char ids[LIST_MAX][AV_ID_SIZE];
	size_t n_names, n_sandboxes;
};

/* ---- showing ---- */

static const char *pair(const aviary_pairs *v, const char *name)
{
	for (size_t i = 0; i < v->n; i++)
		if (strcmp(v->items[i].name, name) == 0)
			return v->items[i].value;
	return "";
}

static void print_part(const char *before, const char *text)
{
	if (!text || !text[0])
		return;
	fputs(before, stdout);
	cli_print_safe(stdout, text);
}

/* "2026-08-21T20:00:22.123Z  capsule.pause   sb...  by ci" */
static void show_event(const struct cli *cli, const aviary_event *e)
{
	const char *name = e->event_text ? e->event_text : "", *from = pair(&e->metadata, "from");
	bool failed = e->outcome == AVIARY_EVENT_OUTCOME_ERROR;
	char at[32];

	av_rfc3339_ms(e->timestamp, at);
	printf("%s%s%s  %s", cli_faint(cli), at, cli_plain(cli), failed ? cli_bad(cli) : "");
	cli_print_safe(stdout, name);
	printf("%s%*s", failed ? cli_plain(cli) : "",
	    (int)(strlen(name) < 24 ? 24 - strlen(name) : 1), "");
	print_part("", e->resource ? e->resource->id : "");
	if (from[0]) {
		print_part("  ", from);
		print_part(" to ", pair(&e->metadata, "to"));
	}
	if (failed)
		print_part("  failed: ", e->error);
	print_part("  ", pair(&e->metadata, "reason"));
	print_part("  by ", e->actor ? e->actor->name : "");
	print_part("  ", e->message);
	putchar('\n');
}

static void show(const struct cli *cli, const aviary_news *news)
{
	if (!news->event)
		cli_warn("%s", news->message);
	else if (cli->json)
		puts(news->json);
	else
		show_event(cli, news->event);
}

/* ---- following ---- */

static int take_filters(
    struct cli *cli, const struct args *args, struct filters *f, struct av_err *err)
{
	const char *value;
	size_t pos = 0;

	while ((value = args_next(args, "event", &pos))) {
		if (f->n_names == LIST_MAX)
			return av_err_set(err, AV_ERR_INVALID, "--event: at most %d", LIST_MAX);
		f->names[f->n_names++] = value;
	}
	for (size_t i = 0; i < args->n_operands && i < LIST_MAX; i++) {
		/* Those that are gone have no name any more, and may yet be asked for. */
		int r = av_id_valid(av_str_c(args->operands[i]), AV_ID_SANDBOX)
		            ? av_str_copy(f->ids[i], AV_ID_SIZE, av_str_c(args->operands[i]))
		            : cli_resolve(cli, args->operands[i], f->ids[i], err);

		if (r < 0)
			return r;
		f->sandboxes[f->n_sandboxes++] = f->ids[i];
	}
	return 0;
}

static int follow(struct cli *cli, aviary_events *events)
{
	struct av_err err = {0};
	const aviary_news *news;
	int r = AVIARY_E_AGAIN;

	while ((r == 1 || r == AVIARY_E_AGAIN) && !cli_is_interrupted() && !ferror(stdout)) {
		r = aviary_events_next(events, &news, LOOK_MS);
		if (r == 1) {
			show(cli, news);
			fflush(stdout);
		}
	}
	if (cli_is_interrupted())
		return EXIT_SIGNAL + cli_caught_signal();
	if (ferror(stdout))
		return EXIT_PLATFORM;
	(void)cli_error(cli, aviary_op_error(aviary_events_op(events)), &err);
	return cli_fail(cli, &err, NULL);
}

static int run(struct cli *cli, const struct args *args)
{
	aviary_events_options o = AVIARY_EVENTS_OPTIONS_INIT;
	struct filters f = {.n_names = 0};
	struct av_err err = {0};
	int status = cli_connect(cli);
	aviary_events *events;

	if (status)
		return status;
	if (take_filters(cli, args, &f, &err) < 0)
		return cli_fail(cli, &err, NULL);
	o.names = (aviary_strings){f.names, f.n_names};
	o.sandbox_ids = (aviary_strings){f.sandboxes, f.n_sandboxes};
	cli_catch_signals();
	events = aviary_client_events(cli->client, &o);
	if (!events) {
		(void)av_err_set(&err, AV_ERR_NO_MEMORY, "out of memory");
		return cli_fail(cli, &err, NULL);
	}
	status = follow(cli, events);
	aviary_events_free(events);
	return status;
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
    .more_completion = COMPLETE_SANDBOXES,
    .run = run,
};
