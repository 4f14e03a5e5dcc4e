/* SPDX-License-Identifier: Apache-2.0 */
/*
 * code.c - aviary code: run code in a sandbox's kernel, from a file, standard input or a prompt
 *
 * Theory of operation. Each piece of code is one request; variables live on in the kernel. Output
 * is shown as it comes, results when they come: pictures in the terminal where it can (pictures.h).
 * A signal ends the request, which interrupts the code; at the prompt Ctrl-C forgets the line.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/fd.h"
#include "base/json.h"
#include "cli/command.h"
#include "cli/lineedit.h"
#include "cli/options.h"
#include "cli/pictures.h"
#include "cli/pyinput.h"

#include "base/banned.h"

#define CODE_MAX (4 * AV_MIB) /* the daemon's bound */
#define LOOK_MS  50
#define ENVS_MAX 256

static volatile sig_atomic_t interrupted;

static void on_signal(int sig)
{
	interrupted = sig;
}

struct code {
	struct cli *cli;
	const struct args *args;
	char id[AV_ID_SIZE];
	aviary_sandbox *sb;
	json_t *envs; /* owned */
	struct pictures pictures;
	int shown; /* the exit status that showing a result failed with */
};

/* ---- what comes back ---- */

static void on_output(void *ctx, enum aviary_channel ch, const char *text, size_t n)
{
	(void)ctx;
	/* In the order in which it came, also where both are one terminal. */
	if (ch == AVIARY_STDERR)
		fflush(stdout);
	fwrite(text, 1, n, ch == AVIARY_STDERR ? stderr : stdout);
	if (ch != AVIARY_STDERR)
		fflush(stdout);
}

/* A picture, or text; what is neither is named. */
static void on_value(void *ctx, const aviary_code_value *value)
{
	struct code *c = ctx;
	struct av_err err = {0};
	int r = pictures_show(&c->pictures, value, &err);

	if (r < 0) {
		c->shown = cli_fail(c->cli, &err, NULL);
	} else if (r == 0 && aviary_code_find(value, "text/plain")) {
		fputs(value->text, stdout);
		putchar('\n');
	} else if (r == 0) {
		for (size_t i = 0; i < value->n; i++) {
			putchar('[');
			cli_print_safe(stdout, value->items[i].mime);
			puts("]");
		}
	}
	fflush(stdout);
}

/* A line of a traceback may be coloured, which is for terminals only. */
static void print_plain(const char *s, bool color)
{
	for (; *s; s++) {
		if (*s == '\033' && !color) {
			s += strcspn(s, "m");
			if (!*s)
				break;
			continue;
		}
		fputc(*s, stderr);
	}
	fputc('\n', stderr);
}

static void print_traceback(const struct code *c, const aviary_code_result *r)
{
	fflush(stdout);
	for (size_t i = 0; i < r->traceback.n; i++)
		print_plain(r->traceback.items[i], c->cli->color && c->cli->err_is_tty);
	if (r->traceback.n == 0)
		fprintf(stderr, "%s: %s\n", r->error_name, r->error_value);
}

/* The exit status for how the code ended. */
static int status_of_end(const char *status, const char *message)
{
	if (strcmp(status, "ok") == 0)
		return 0;
	if (strcmp(status, "error") == 0)
		return 1;
	if (strcmp(status, "timeout") == 0) {
		cli_warn("the code was interrupted: its --timeout is over");
		return EXIT_TIMEOUT;
	}
	cli_warn("%s", message[0] ? message : status);
	return strcmp(status, "oom") == 0 ? EXIT_SIGNAL + SIGKILL : EXIT_PLATFORM;
}

/* Waits; a signal ends the request, which interrupts the code. */
static int wait_for(struct code *c, aviary_op *op, struct av_err *err)
{
	int r;

	while ((r = aviary_op_wait(op, LOOK_MS)) == AVIARY_E_AGAIN)
		if (interrupted)
			aviary_op_cancel(op);
	return r < 0 ? cli_error(c->cli, aviary_op_error(op), err) : 0;
}

static int failed(struct code *c, const struct av_err *err)
{
	return interrupted ? EXIT_SIGNAL + interrupted
	                   : cli_fail(c->cli, err, c->args->operands[0]);
}

/* ---- one piece ---- */

static int run_shown(struct code *c, const char *text)
{
	aviary_code_options o = AVIARY_CODE_OPTIONS_INIT;
	aviary_pair envs[ENVS_MAX];
	aviary_code_result *result;
	struct av_err err = {0};
	const char *name;
	json_t *value;
	int status;

	json_object_foreach (c->envs, name, value)
		envs[o.envs.n++] = (aviary_pair){name, json_string_value(value)};
	o.envs.items = envs;
	o.context = args_text(c->args, "kernel");
	o.language = args_text(c->args, "language");
	o.timeout_ms = (int64_t)args_duration_ms(c->args, "timeout", 0);
	o.timeout_ms = o.timeout_ms ? o.timeout_ms : -1;
	o.collect_max = 1; /* it is shown, not kept */
	o.on_output = on_output;
	o.on_value = on_value;
	o.ctx = c;
	c->shown = 0;
	aviary_op *op = aviary_sandbox_run_code(c->sb, text, &o);
	int r = wait_for(c, op, &err);
	result = r < 0 ? NULL : aviary_op_take_code_result(op);
	if (!result) {
		status = failed(c, &err);
	} else {
		if (result->status == AVIARY_CODE_ERROR)
			print_traceback(c, result);
		status = status_of_end(result->status_text, result->message);
		status = status ? status : c->shown;
	}
	aviary_code_result_free(result);
	aviary_op_free(op);
	return status;
}

static json_t *make_body(const struct code *c, const char *text, struct av_err *err)
{
	json_t *body = json_object(), *code = json_string(text);
	const char *language = args_text(c->args, "language"),
	           *kernel = args_text(c->args, "kernel");

	if (!code) {
		json_decref(body);
		av_err_set(err, AV_ERR_INVALID, "the code is not UTF-8");
		return NULL;
	}
	json_object_set_new(body, "code", code);
	json_object_set_new(
	    body, "timeout_sec", json_real((double)args_duration_ms(c->args, "timeout", 0) / 1000));
	if (language)
		json_object_set_new(body, "language", json_string(language));
	if (kernel)
		json_object_set_new(body, "kernel_id", json_string(kernel));
	if (c->envs)
		json_object_set(body, "envs", c->envs);
	return body;
}

/* The daemon's answer as it is. */
static int run_json(struct code *c, const char *text)
{
	AV_CLEANUP(av_json_decrefp) json_t *body = NULL;
	AV_CLEANUP(av_json_decrefp) json_t *answer = NULL;
	aviary_request rq = AVIARY_REQUEST_INIT;
	struct av_err err = {0};
	char path[AV_ID_SIZE + 40], *dump;
	const char *message;
	int status;
	size_t n;

	body = make_body(c, text, &err);
	dump = body ? json_dumps(body, JSON_COMPACT) : NULL;
	if (!dump)
		return cli_fail(c->cli, &err, NULL);
	snprintf(path, sizeof(path), "/v1/sandboxes/%s/run_code", c->id);
	rq.method = "POST";
	rq.path = path;
	rq.body = dump;
	rq.timeout_ms = -1;
	aviary_op *op = aviary_client_request(c->cli->client, &rq);
	free(dump);
	if (wait_for(c, op, &err) < 0) {
		status = failed(c, &err);
	} else {
		const char *reply = aviary_op_body(op, &n);
		answer = json_loadb(reply, n, JSON_ALLOW_NUL, NULL);
		message = json_string_value(json_object_get(answer, "message"));
		cli_print_json(c->cli, answer);
		status = status_of_end(cli_text(answer, "status"), message ? message : "");
	}
	aviary_op_free(op);
	return status;
}

/* The exit status. */
static int run_piece(struct code *c, const char *text)
{
	return c->cli->json ? run_json(c, text) : run_shown(c, text);
}

/* ---- where it comes from ---- */

static int run_file(struct code *c, const char *path)
{
	AV_CLEANUP(av_buf_clear) struct av_buf text = AV_BUF_INIT(CODE_MAX);
	AV_CLEANUP(av_closep) int fd = -1;
	bool is_stdin = !path || strcmp(path, "-") == 0;
	ssize_t n = 1;
	int r = 0;

	if (!is_stdin && (fd = open(path, O_RDONLY | O_CLOEXEC)) < 0) {
		cli_warn("%s: %s", path, strerror(errno));
		return EXIT_PLATFORM;
	}
	while (n > 0 && r == 0) {
		char piece[65536];

		n = read(is_stdin ? STDIN_FILENO : fd, piece, sizeof(piece));
		if (n < 0 && errno == EINTR && !interrupted)
			n = 1;
		else if (n > 0)
			r = av_buf_append(&text, piece, (size_t)n);
	}
	if (interrupted)
		return EXIT_SIGNAL + interrupted;
	if (n < 0 || r < 0) {
		cli_warn("%s: %s", is_stdin ? "standard input" : path,
		    n < 0 ? strerror(errno)
		          : "more than 4 MiB of code; copy a file in and import it");
		return EXIT_PLATFORM;
	}
	if (memchr(av_buf_str(&text).p, '\0', av_buf_str(&text).n)) {
		cli_warn("%s: there is a NUL in the code", is_stdin ? "standard input" : path);
		return EXIT_PLATFORM;
	}
	return run_piece(c, av_buf_cstr(&text));
}

/* Reads a whole statement into text: 1; 0 at the end; -EINTR after Ctrl-C. */
static int read_statement(struct lineedit *e, struct av_buf *text)
{
	av_buf_reset(text);
	do {
		int r;
		const char *line = lineedit_read(e, av_buf_str(text).n ? "... " : ">>> ", &r);

		if (!line)
			return interrupted ? -EINTR : r;
		if (!strchr(" \t\r\n", line[0]) || av_buf_str(text).n > 0 ||
		    line[strspn(line, " \t\r\n")])
			(void)av_buf_append_c(text, line);
	} while (av_buf_str(text).n > 0 && !pyinput_is_whole(av_buf_cstr(text)));
	return 1;
}

static int prompt(struct code *c)
{
	AV_CLEANUP(av_buf_clear) struct av_buf text = AV_BUF_INIT(CODE_MAX);
	struct lineedit *e = lineedit_new();
	int r, status = 0;

	if (!e) {
		cli_warn(
		    "there is no prompt on this terminal, or without libedit (install libedit2); "
		    "give a FILE, or '-'");
		return EXIT_PLATFORM;
	}
	while ((r = read_statement(e, &text)) != 0) {
		int sig = interrupted;

		interrupted = 0;
		if (r < 0 && sig != SIGINT) {
			status = EXIT_SIGNAL + sig;
			break;
		}
		if (r < 0 || av_buf_str(&text).n == 0) {
			if (r < 0)
				putchar('\n');
			continue;
		}
		lineedit_remember(e, av_buf_cstr(&text));
		(void)run_piece(c, av_buf_cstr(&text));
		if (interrupted && interrupted != SIGINT) {
			status = EXIT_SIGNAL + interrupted;
			break;
		}
		if (interrupted)
			fputs("interrupted\n", stderr);
		interrupted = 0;
		fflush(stdout);
	}
	if (status == 0)
		putchar('\n');
	lineedit_free(e);
	return status;
}

static int run(struct cli *cli, const struct args *args)
{
	struct code c = {.cli = cli, .args = args};
	const char *file = args->n_operands > 1 ? args->operands[1] : NULL;
	const char *text = args_text(args, "command");
	struct sigaction sa = {.sa_handler = on_signal};
	struct av_err err = {0};
	int status;

	if (text && file)
		return cli_usage_error(cli, "--command and FILE exclude each other");
	if (args_text(args, "images") && args_flag(args, "no-images"))
		return cli_usage_error(cli, "--images and --no-images exclude each other");
	status = cli_connect(cli);
	if (status)
		return status;
	if (options_envs(args, &c.envs, &err) < 0)
		return cli_usage_error(cli, "%s", err.message);
	if (json_object_size(c.envs) > ENVS_MAX)
		return cli_usage_error(cli, "--env: at most %d variables", ENVS_MAX);
	if (cli_resolve(cli, args->operands[0], c.id, &err) < 0) {
		status = cli_fail(cli, &err, args->operands[0]);
	} else if (!(c.sb = aviary_sandbox_attach(cli->client, c.id))) {
		status = EXIT_PLATFORM;
	} else {
		sigaction(SIGINT, &sa, NULL);
		sigaction(SIGTERM, &sa, NULL);
		sigaction(SIGHUP, &sa, NULL);
		pictures_init(
		    &c.pictures, cli, args_text(args, "images"), args_flag(args, "no-images"));
		if (text)
			status = run_piece(&c, text);
		else if (!file && isatty(STDIN_FILENO) && cli->out_is_tty)
			status = prompt(&c);
		else
			status = run_file(&c, file);
	}
	aviary_sandbox_free(c.sb);
	json_decref(c.envs);
	return status;
}

static const struct option_spec options[] = {
    {"command", 'c', OPTION_TEXT, "CODE", "run this", COMPLETE_NONE},
    {"timeout", 0, OPTION_DURATION, "TIME",
        "interrupt code that takes longer than 30s, 5m, … and exit with 124 (default: never)",
        COMPLETE_NONE},
    {"images", 0, OPTION_TEXT, "DIR", "write pictures and other files there", COMPLETE_FILES},
    {"no-images", 0, OPTION_FLAG, NULL, "show the text of results only", COMPLETE_NONE},
    {"env", 'e', OPTION_LIST, "NAME[=VALUE]",
        "set a variable, or pass on the one of this shell; may be repeated", COMPLETE_NONE},
    {"kernel", 0, OPTION_TEXT, "ID", "in this kernel (default: the sandbox's first)",
        COMPLETE_NONE},
    {"language", 0, OPTION_TEXT, "NAME", "python, which is what there is", COMPLETE_NONE},
    {NULL, 0, OPTION_FLAG, NULL, NULL, COMPLETE_NONE},
};

static const char *const examples[] = {
    "aviary code work\ta prompt; variables stay when it is left",
    "aviary code work -c '1 + 1'\tone line",
    "aviary code work plot.py --images ./figures\ta file, and its figures as files",
    "echo 'print(40 + 2)' | aviary code work\tfrom standard input",
    NULL,
};

static const char *const exits[] = {
    "1\tthe code raised an exception, whose traceback is on standard error",
    "124\tits --timeout was over",
    "137\tthe sandbox was out of memory; variables are lost",
    NULL,
};

const struct command command_code = {
    .name = "code",
    .usage = "SANDBOX [FILE|-]",
    .summary = "run code in a sandbox, variables and figures included",
    .description =
        "Runs Python in an interpreter that lives on in the sandbox: what one call defines the "
        "next one knows. Without a FILE it reads standard input; on a terminal it is a prompt with "
        "editing and history, which Ctrl-D leaves, and Ctrl-C interrupts what runs.\n"
        "Figures and other pictures are shown in terminals that can (kitty, Ghostty, WezTerm, "
        "iTerm2), and are written to files elsewhere, whose names are printed. With --json the "
        "daemon's answer is printed as it is, in base64 what is no text.",
    .examples = examples,
    .exits = exits,
    .see = "exec sh cp",
    .options = options,
    .min_operands = 1,
    .max_operands = 2,
    .operand_completion = COMPLETE_SANDBOXES,
    .more_completion = COMPLETE_FILES,
    .run = run,
};
