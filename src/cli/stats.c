/* SPDX-License-Identifier: Apache-2.0 */
/*
 * stats.c - aviary stats, aviary top: what sandboxes use, once or as it changes
 *
 * Theory of operation of top. One loop waits for the library, the keyboard, signals and the time of
 * the next round. A round that is still under way when the next one is due is waited for, so a slow
 * daemon is asked less often. A round that failed is told in the first line and tried again: a
 * daemon that is started anew comes back by itself. Where standard output is no terminal, tables
 * (or with --json one array a line) follow each other.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/avtime.h"
#include "base/json.h"
#include "base/num.h"
#include "cli/command.h"
#include "cli/terminal.h"
#include "cli/usage.h"

#include "base/banned.h"

#define SAMPLE_MS    500 /* between the two looks of stats: processor time is a counter */
#define INTERVAL_MS  2000
#define INTERVAL_MIN 200
#define FRAME_MAX    (1024 * 1024)

/* ---- what is common ---- */

/* The ids of the sandboxes named; 0, or the exit status. */
static int resolve_all(
    struct cli *cli, const struct args *args, char (**ret)[AV_ID_SIZE], size_t *ret_n)
{
	struct av_err err = {0};
	char(*ids)[AV_ID_SIZE];

	if (args->n_operands == 0)
		return 0;
	ids = calloc(args->n_operands, sizeof(*ids));
	if (!ids)
		return EXIT_PLATFORM;
	for (size_t i = 0; i < args->n_operands; i++)
		if (cli_resolve(cli, args->operands[i], ids[i], &err) < 0) {
			free(ids);
			return cli_fail(cli, &err, args->operands[i]);
		}
	*ret = ids;
	*ret_n = args->n_operands;
	return 0;
}

static void print_json(struct cli *cli, const struct usages *u)
{
	AV_CLEANUP(av_json_decrefp) json_t *all = usages_json(u);

	if (all)
		cli_print_json(cli, all);
}

static void print_table(struct cli *cli, const struct usages *u)
{
	AV_CLEANUP(av_buf_clear) struct av_buf out = AV_BUF_INIT(FRAME_MAX);
	unsigned cols = 0, rows;

	if (cli->out_is_tty)
		terminal_size(&cols, &rows);
	(void)av_buf_append_c(&out, cli_bold(cli));
	usage_row(NULL, cols ? cols : SIZE_MAX, &out);
	(void)av_buf_printf(&out, "%s\n", cli_plain(cli));
	for (size_t i = 0; i < u->n; i++) {
		usage_row(&u->items[i], cols ? cols : SIZE_MAX, &out);
		(void)av_buf_append_c(&out, "\n");
	}
	if (u->n_more)
		(void)av_buf_printf(&out, "and %zu more\n", u->n_more);
	fwrite(av_buf_str(&out).p, 1, av_buf_str(&out).n, stdout);
}

/* ---- stats ---- */

static void pause_ms(long ms)
{
	struct timespec t = {ms / 1000, ms % 1000 * 1000000};

	(void)nanosleep(&t, NULL); /* a signal makes it shorter, which is well */
}

static int show_once(struct cli *cli, struct usages *u, const char *sort)
{
	struct av_err err = {0};
	int r = usages_get(u, cli, &err);

	if (r == 0 && u->n > 0) {
		pause_ms(SAMPLE_MS);
		r = cli_is_interrupted() ? -ECANCELED : usages_get(u, cli, &err);
	}
	if (cli_is_interrupted())
		return EXIT_SIGNAL + cli_caught_signal();
	if (r < 0)
		return cli_fail(cli, &err, NULL);
	usages_sort(u, sort);
	if (cli->json)
		print_json(cli, u);
	else if (u->n == 0 && cli->out_is_tty && u->n_only == 0)
		printf("no sandboxes; 'aviary create' makes one\n");
	else
		print_table(cli, u);
	return 0;
}

/* Says which ones are gone since they were named. */
static int check_missing(const struct usages *u, const struct args *args)
{
	int status = 0;

	for (size_t i = 0; i < u->n_only; i++) {
		bool is_there = false;

		for (size_t k = 0; k < u->n; k++)
			is_there = is_there || strcmp(u->items[k].id, u->only[i]) == 0;
		if (!is_there) {
			cli_warn("%s: it is not there any more", args->operands[i]);
			status = EXIT_PLATFORM;
		}
	}
	return status;
}

static int run_stats(struct cli *cli, const struct args *args)
{
	const char *sort = args_text(args, "sort");
	char(*ids)[AV_ID_SIZE] = NULL;
	struct usages u = {0};
	int status;

	if (!usages_sort(&u, sort ? sort : "cpu"))
		return cli_usage_error(
		    cli, "--sort %s: there is cpu, memory, disk, processes, name, age", sort);
	status = cli_connect(cli);
	if (status)
		return status;
	cli_catch_signals();
	status = resolve_all(cli, args, &ids, &u.n_only);
	u.only = ids;
	status = status ? status : show_once(cli, &u, sort ? sort : "cpu");
	status = status ? status : check_missing(&u, args);
	usages_clear(&u);
	free(ids);
	return status;
}

/* ---- top ---- */

struct top {
	struct cli *cli;
	struct usages u;
	const char *sort;
	int64_t interval_ms, due_ms;
	uint64_t rounds; /* still to be shown; 0: without end */
	bool is_asking, quit;
	int signal_fd, signal;
	char failed[480]; /* why the last round did, "" */
};

static int64_t now_ms(void)
{
	return av_mono_ns() / 1000000;
}

static void put_line(struct av_buf *out, const char *text, unsigned cols)
{
	size_t width = 0, n = 0;

	for (; text[n]; n++) {
		width += ((unsigned char)text[n] & 0xc0) != 0x80;
		if (width > cols)
			break;
	}
	(void)av_buf_append(out, text, n);
	(void)av_buf_append_c(out, "\033[K\n");
}

static void put_summary(const struct top *t, struct av_buf *out, unsigned cols)
{
	double cpu = 0;
	int64_t mem = 0;
	size_t running = 0;
	char size[24], line[512];

	for (size_t i = 0; i < t->u.n; i++) {
		const struct usage *x = &t->u.items[i];

		running += strcmp(x->status, "running") == 0;
		cpu += x->cpu_percent > 0 ? x->cpu_percent : 0;
		mem += x->mem > 0 ? x->mem : 0;
	}
	snprintf(line, sizeof(line), "%zu sandboxes, %zu running   CPU %.1f%%   memory %s   %s",
	    t->u.n + t->u.n_more, running, cpu, av_format_size((uint64_t)mem, size), t->cli->url);
	put_line(out, line, cols);
	if (t->failed[0])
		snprintf(line, sizeof(line), "%.200s; trying again", t->failed);
	else
		snprintf(line, sizeof(line),
		    "by %s   c cpu  m memory  d disk  p processes  n name  a age   q quit",
		    t->sort);
	put_line(out, line, cols);
}

static void draw(const struct top *t)
{
	AV_CLEANUP(av_buf_clear) struct av_buf out = AV_BUF_INIT(FRAME_MAX);
	unsigned cols, rows;
	size_t shown;

	terminal_size(&cols, &rows);
	(void)av_buf_append_c(&out, "\033[H");
	put_summary(t, &out, cols);
	(void)av_buf_append_c(&out, cli_bold(t->cli));
	usage_row(NULL, cols, &out);
	(void)av_buf_printf(&out, "%s\033[K", cli_plain(t->cli));
	shown = rows > 3 ? AV_MIN(t->u.n, (size_t)rows - 3) : 0;
	for (size_t i = 0; i < shown; i++) {
		(void)av_buf_append_c(&out, "\n");
		usage_row(&t->u.items[i], cols, &out);
		(void)av_buf_append_c(&out, "\033[K");
	}
	(void)av_buf_append_c(&out, "\033[J");
	fwrite(av_buf_str(&out).p, 1, av_buf_str(&out).n, stdout);
	fflush(stdout);
}

static void show(struct top *t, bool on_screen)
{
	usages_sort(&t->u, t->sort);
	if (on_screen)
		draw(t);
	else if (t->cli->json)
		print_json(t->cli, &t->u);
	else {
		print_table(t->cli, &t->u);
		putchar('\n');
	}
	if (fflush(stdout) != 0)
		t->quit = true;
}

static void take_key(struct top *t)
{
	static const struct {
		char key;
		const char *sort;
	} keys[] = {{'c', "cpu"}, {'m', "memory"}, {'d', "disk"}, {'p', "processes"}, {'n', "name"},
	    {'a', "age"}};
	char key[16];
	ssize_t n = read(STDIN_FILENO, key, sizeof(key));

	if (n == 0)
		t->quit = true;
	for (ssize_t i = 0; i < n; i++) {
		if (key[i] == 'q' || key[i] == 'Q' || key[i] == 4)
			t->quit = true;
		for (size_t k = 0; k < AV_ARRAY_LEN(keys); k++)
			if (keys[k].key == key[i])
				t->sort = keys[k].sort;
	}
	show(t, true);
}

/* A round begins when it is due; a complete one is shown. */
static int go_on(struct top *t, bool on_screen, struct av_err *err)
{
	int r = 0;

	if (!t->is_asking && now_ms() >= t->due_ms) {
		r = usages_ask(&t->u, t->cli);
		t->is_asking = r == 0;
		t->due_ms = now_ms() + t->interval_ms;
	}
	if (t->is_asking)
		r = usages_take(&t->u, t->cli, err);
	if (r == 0)
		return 0;
	t->is_asking = false;
	if (r < 0 && !on_screen)
		return r;
	t->failed[0] = '\0';
	if (r < 0)
		snprintf(t->failed, sizeof(t->failed), "%s", err->message);
	cli_make_safe(t->failed);
	show(t, on_screen);
	if (t->rounds > 0 && r > 0 && --t->rounds == 0)
		t->quit = true;
	return 0;
}

static int turn(struct top *t, bool on_screen, struct av_err *err)
{
	struct pollfd p[] = {
	    {.fd = aviary_client_fd(t->cli->client), .events = POLLIN},
	    {.fd = t->signal_fd, .events = POLLIN},
	    {.fd = on_screen ? STDIN_FILENO : -1, .events = POLLIN},
	};
	int timeout = aviary_client_timeout(t->cli->client);
	int64_t left = AV_MAX(t->due_ms - now_ms(), (int64_t)0);

	if (!t->is_asking && (timeout < 0 || left < timeout))
		timeout = (int)AV_MIN(left, (int64_t)3600000);
	if (poll(p, AV_ARRAY_LEN(p), timeout) < 0 && errno != EINTR)
		return av_err_sys(err, AV_ERR_INTERNAL, errno, "poll");
	(void)aviary_client_dispatch(t->cli->client, 0);
	if (p[1].revents) {
		int sig = terminal_next_signal(t->signal_fd);

		if (sig == SIGWINCH && on_screen)
			show(t, true);
		else if (sig && sig != SIGWINCH)
			t->signal = sig;
	}
	if (p[2].revents)
		take_key(t);
	return go_on(t, on_screen, err);
}

static int watch(struct top *t)
{
	bool on_screen = t->cli->out_is_tty && !t->cli->json && isatty(STDIN_FILENO);
	struct av_err err = {0};
	sigset_t old;
	int r;

	/* The first round is for the counters, and tells at once what is wrong. */
	r = usages_get(&t->u, t->cli, &err);
	if (r < 0)
		return cli_fail(t->cli, &err, NULL);
	t->due_ms = now_ms() + SAMPLE_MS;
	t->signal_fd = terminal_signals(&old);
	r = t->signal_fd < 0 ? t->signal_fd : on_screen ? terminal_take_screen() : 0;
	if (r < 0) {
		cli_warn("the terminal: %s", strerror(-r));
		return EXIT_PLATFORM;
	}
	if (on_screen)
		show(t, true);
	while (r == 0 && !t->quit && !t->signal)
		r = turn(t, on_screen, &err);
	if (on_screen)
		terminal_restore();
	close(t->signal_fd);
	sigprocmask(SIG_SETMASK, &old, NULL);
	if (r < 0)
		return cli_fail(t->cli, &err, NULL);
	/* Ctrl-C is how most people leave a screen: that is no failure. */
	return t->signal && !(on_screen && t->signal == SIGINT) ? EXIT_SIGNAL + t->signal : 0;
}

static int run_top(struct cli *cli, const struct args *args)
{
	const char *sort = args_text(args, "sort");
	char(*ids)[AV_ID_SIZE] = NULL;
	struct top t = {.cli = cli,
	    .sort = sort ? sort : "cpu",
	    .rounds = args_number(args, "rounds", 0),
	    .interval_ms = (int64_t)args_duration_ms(args, "interval", INTERVAL_MS)};
	int status;

	if (!usages_sort(&t.u, t.sort))
		return cli_usage_error(
		    cli, "--sort %s: there is cpu, memory, disk, processes, name, age", sort);
	if (t.interval_ms < INTERVAL_MIN)
		return cli_usage_error(cli, "--interval: at least %d ms", INTERVAL_MIN);
	status = cli_connect(cli);
	if (status)
		return status;
	status = resolve_all(cli, args, &ids, &t.u.n_only);
	t.u.only = ids;
	status = status ? status : watch(&t);
	usages_clear(&t.u);
	free(ids);
	return status;
}

#define OPTION_SORT                                                                                \
	{                                                                                          \
		"sort", 0, OPTION_TEXT, "cpu|memory|disk|processes|name|age",                      \
		    "what comes first (default: cpu)", COMPLETE_NONE                               \
	}

static const struct option_spec stats_options[] = {
    OPTION_SORT,
    {NULL, 0, OPTION_FLAG, NULL, NULL, COMPLETE_NONE},
};

static const char *const stats_examples[] = {
    "aviary stats\tall of them, the busiest first",
    "aviary stats --json work\tnumbers of one, for a script",
    NULL,
};

const struct command command_stats = {
    .name = "stats",
    .usage = "[SANDBOX…]",
    .summary = "show what sandboxes use, once",
    .description =
        "Looks twice within half a second and shows what each sandbox uses of its limits: "
        "processor time (100 is one processor), memory, disk, and how many processes it has. '-' "
        "is what does not run or cannot be told.",
    .examples = stats_examples,
    .see = "top ls",
    .options = stats_options,
    .max_operands = OPERANDS_ANY,
    .operand_completion = COMPLETE_SANDBOXES,
    .more_completion = COMPLETE_SANDBOXES,
    .run = run_stats,
};

static const struct option_spec top_options[] = {
    OPTION_SORT,
    {"interval", 'i', OPTION_DURATION, "TIME", "between two looks (default: 2s)", COMPLETE_NONE},
    {"rounds", 'n', OPTION_NUMBER, "N", "end after so many", COMPLETE_NONE},
    {NULL, 0, OPTION_FLAG, NULL, NULL, COMPLETE_NONE},
};

static const char *const top_examples[] = {
    "aviary top\tuntil q",
    "aviary top --json --interval 10s >>use.jsonl\tan array a line, for later",
    NULL,
};

const struct command command_top = {
    .name = "top",
    .usage = "[SANDBOX…]",
    .summary = "watch what sandboxes use",
    .description =
        "A table that follows what sandboxes use, as 'aviary stats' shows it once. Keys: c, m, "
        "d, p, n, a order it by processor, memory, disk, processes, name and age; q quits. In a "
        "pipe the tables follow each other, with --json one array a line.",
    .examples = top_examples,
    .see = "stats ls",
    .options = top_options,
    .max_operands = OPERANDS_ANY,
    .operand_completion = COMPLETE_SANDBOXES,
    .more_completion = COMPLETE_SANDBOXES,
    .run = run_top,
};
