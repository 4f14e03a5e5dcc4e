/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cli.c - messages, output, signals: what all commands share
 */
#include "cli/cli.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/json.h"
#include "base/path.h"
#include "cli/command.h"

#include "base/banned.h"

/* What a signal handler can reach; everything else hangs on struct cli. */
static volatile sig_atomic_t caught_signal;
static volatile sig_atomic_t caught_count;
static bool signals_held;

static void on_signal(int sig)
{
	if (++caught_count >= 3)
		_exit(EXIT_SIGNAL + sig);
	if (!caught_signal)
		caught_signal = sig;
}

void cli_hold_signals(void)
{
	signals_held = true;
}

void cli_unhold_signals(void)
{
	signals_held = false;
}

void cli_catch_signals(void)
{
	struct sigaction sa = {.sa_handler = on_signal};
	sigaction(SIGINT, &sa, NULL);
	sigaction(SIGTERM, &sa, NULL);
	sigaction(SIGHUP, &sa, NULL);
}

int cli_caught_signal(void)
{
	return caught_signal;
}

bool cli_is_interrupted(void)
{
	return caught_signal != 0 && !signals_held;
}

/* In place. kept: control characters that stay. */
static void make_safe(char *text, const char *kept)
{
	char *to = text;

	for (const char *p = text; *p; p++) {
		size_t n = strchr(kept, *p) ? 0 : cli_control_size(p);

		*to++ = n ? '?' : *p;
		p += n > 1;
	}
	*to = '\0';
}

void cli_make_safe(char *text)
{
	make_safe(text, "");
}

/* A message is one write: standard error has no buffer, and others write to it, too. */
void cli_warn(const char *fmt, ...)
{
	char text[1024];
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	make_safe(text, "\n\t");
	fprintf(stderr, "aviary: %s\n", text);
}

int cli_usage_error(const struct cli *cli, const char *fmt, ...)
{
	char text[512];
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	make_safe(text, "\n\t");
	fprintf(stderr, "aviary %s: %s; see 'aviary %s --help'\n", cli->args->command->name, text,
	    cli->args->command->name);
	return EXIT_USAGE;
}

static void say_how_to_start(const struct cli *cli)
{
	char daemon[4096];
	if (cli_find_program("aviaryd", "daemon", daemon, sizeof(daemon)) < 0)
		cli_warn("no daemon at %s; start one with 'aviaryd', or name another with --url",
		    cli->url);
	else
		cli_warn("no daemon at %s; start one with '%s &', or name another with --url",
		    cli->url, daemon);
}

int cli_fail(const struct cli *cli, const struct av_err *err, const char *what)
{
	if (cli->is_unreachable && err->kind == AV_ERR_UNAVAILABLE)
		say_how_to_start(cli);
	else if (err->kind == AV_ERR_CANCELED && caught_signal)
		return EXIT_SIGNAL + caught_signal;
	else if (what)
		cli_warn("%s: %s", what, err->message);
	else
		cli_warn("%s", err->message);
	int status = av_err_exit_status(err->kind);
	return status ? status : EXIT_PLATFORM;
}

void cli_print_safe(FILE *f, const char *text)
{
	for (const char *p = text; *p; p++) {
		size_t n = *p == '\n' || *p == '\t' ? 0 : cli_control_size(p);

		fputc(n ? '?' : *p, f);
		p += n > 1;
	}
}

void cli_print_json(const struct cli *cli, const json_t *j)
{
	if (cli->out_is_tty)
		json_dumpf(j, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(15));
	else if (cli_is_answer(cli, j))
		fputs(aviary_op_body(cli->answer, NULL), stdout);
	else
		json_dumpf(j, stdout, JSON_COMPACT | JSON_REAL_PRECISION(15));
	putchar('\n');
}

const char *cli_text(const json_t *o, const char *field)
{
	const char *s = json_string_value(json_object_get(o, field));

	return s && s[0] ? s : "-";
}

bool cli_print_rows(const struct cli *cli, const json_t *rows, const char *field)
{
	const json_t *row;
	size_t i;

	if (cli->json) {
		cli_print_json(cli, rows);
		return true;
	}
	if (!cli->quiet)
		return false;
	json_array_foreach (rows, i, row) {
		const json_t *v = json_object_get(row, field);

		if (json_is_integer(v))
			printf("%" JSON_INTEGER_FORMAT, json_integer_value(v));
		else
			cli_print_safe(stdout, cli_text(row, field));
		putchar('\n');
	}
	return true;
}

void cli_print_done(const struct cli *cli, const char *field, const char *text)
{
	AV_CLEANUP(av_json_decrefp) json_t *j = cli->json ? json_pack("{s:s}", field, text) : NULL;

	if (cli->json)
		cli_print_json(cli, j);
	else if (!cli->quiet)
		puts(text);
}

void cli_print_reply(const struct cli *cli, const json_t *reply, const char *field)
{
	const char *text = json_string_value(json_object_get(reply, field));

	if (cli->json) {
		cli_print_json(cli, reply);
		return;
	}
	cli_print_safe(stdout, text ? text : "");
	putchar('\n');
}

const char *cli_good(const struct cli *cli)
{
	return cli->color ? "\033[32m" : "";
}

const char *cli_bad(const struct cli *cli)
{
	return cli->color ? "\033[31m" : "";
}

const char *cli_faint(const struct cli *cli)
{
	return cli->color ? "\033[2m" : "";
}

const char *cli_bold(const struct cli *cli)
{
	return cli->color ? "\033[1m" : "";
}

const char *cli_plain(const struct cli *cli)
{
	return cli->color ? "\033[0m" : "";
}

int cli_own_dir(char *ret_path, size_t size)
{
	char exe[4096];
	ssize_t n = readlink("/proc/self/exe", exe, sizeof(exe) - 1);
	if (n < 0)
		return -errno;
	struct av_str dir = av_path_dir(av_str_n(exe, (size_t)n));
	return av_str_copy(ret_path, size, dir);
}

int cli_find_program(const char *name, const char *build_folder, char *ret_path, size_t size)
{
	char dir[4096], path[8192];
	int r = cli_own_dir(dir, sizeof(dir));
	if (r < 0)
		return r;
	const char *folders[] = {
	    ".", "../libexec/aviary", "../lib/aviary", "../sbin", build_folder};
	for (size_t i = 0; i < AV_ARRAY_LEN(folders); i++) {
		/* The build tree keeps this program in src/cli: its neighbours are ../daemon etc.
		 */
		if (i + 1 == AV_ARRAY_LEN(folders))
			r = av_path_printf(
			    path, sizeof(path), "%s/../%s/%s", dir, build_folder, name);
		else
			r = av_path_printf(path, sizeof(path), "%s/%s/%s", dir, folders[i], name);
		if (r < 0)
			return r;
		char *real = access(path, X_OK) == 0 ? realpath(path, NULL) : NULL;
		if (!real)
			continue;
		r = av_str_copy(ret_path, size, av_str_c(real));
		free(real);
		return r;
	}
	return -ENOENT;
}

int cli_credentials_path(int i, char *path, size_t size)
{
	const char *own = getenv("AVIARY_CONFIG_DIR"), *xdg = getenv("XDG_CONFIG_HOME");
	const char *home = getenv("HOME");
	if (i == 1 && !(own && own[0]))
		return av_path_printf(path, size, "/etc/aviary/credentials.json");
	if (i > 0)
		return -ENOENT;
	if (own && own[0])
		return av_path_printf(path, size, "%s/credentials.json", own);
	if (xdg && xdg[0])
		return av_path_printf(path, size, "%s/aviary/credentials.json", xdg);
	if (home && home[0])
		return av_path_printf(path, size, "%s/.config/aviary/credentials.json", home);
	return -ENOENT;
}
