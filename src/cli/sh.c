/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sh.c - aviary sh: a terminal in a sandbox
 *
 * Theory of operation. One loop waits for the terminal, the library and signals. Nothing is read
 * from the sandbox while output waits for this terminal, and nothing from the keyboard while input
 * waits for the sandbox, so nothing grows. The shell is started detached: it lives on when this
 * connection breaks (then it is taken up again by its tag, as long as the library tries) and when
 * its user detaches. Only a terminal that goes away (SIGHUP) ends it, as it would end a local one,
 * unless --keep says otherwise.
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
#include "base/buf.h"
#include "base/fd.h"
#include "base/json.h"
#include "cli/command.h"
#include "cli/detach.h"
#include "cli/options.h"
#include "cli/terminal.h"

#include "base/banned.h"

#define DETACH_KEYS  "ctrl-p,ctrl-q"
#define PIECE        16384
#define ENVS_MAX     256
#define HANGUP_MS    2000
#define RECONNECT_MS 60000
#define BETWEEN_MS   500
#define CTRL_C       3
#define RETRY_MS     50 /* how soon input that the sandbox had no room for is offered again */

/* What a program may have switched on in our terminal: another screen, mouse, pasting, colours. */
static const char calm_down[] = "\033[?1049l\033[?1000l\033[?1002l\033[?1003l\033[?1006l\033[?"
                                "2004l\033[?25h\033[?1l\033>\033[0m";

enum end { GOES_ON, OVER, DETACHED, INTERRUPTED, BROKEN };

struct shell {
	struct cli *cli;
	aviary_sandbox *sb;
	aviary_process *p;
	struct detach_keys keys;
	struct av_buf in, out; /* what waits */
	bool input_open, input_ended, was_connected;
	int signal_fd, signal;
	char tag[128];
};

/* ---- one turn ---- */

static enum end take_keys(struct shell *s)
{
	char piece[PIECE];
	ssize_t n = read(STDIN_FILENO, piece, sizeof(piece));

	if (n < 0)
		return errno == EINTR || errno == EAGAIN ? GOES_ON : INTERRUPTED;
	if (n == 0) {
		s->signal = SIGHUP; /* the terminal is gone */
		return INTERRUPTED;
	}
	return detach_keys_filter(&s->keys, piece, (size_t)n, &s->in) ? DETACHED : GOES_ON;
}

static void give_input(struct shell *s)
{
	struct av_str in = av_buf_str(&s->in);
	int64_t n = in.n ? aviary_process_write(s->p, in.p, in.n, 0) : 0;

	if (n > 0)
		av_buf_consume(&s->in, (size_t)n);
	else if (n < 0 && n != AVIARY_E_AGAIN)
		av_buf_consume(&s->in, in.n); /* it takes no more: its end is on the way */
}

static enum end take_output(struct shell *s)
{
	char piece[PIECE];
	int64_t n;

	if (av_buf_str(&s->out).n > 0)
		return GOES_ON;
	n = aviary_process_read(s->p, AVIARY_STDOUT, piece, sizeof(piece), 0);
	if (n > 0)
		return av_buf_append(&s->out, piece, (size_t)n) < 0 ? BROKEN : GOES_ON;
	if (n == AVIARY_E_AGAIN)
		return GOES_ON;
	return n == 0 ? OVER : BROKEN;
}

static enum end show_output(struct shell *s)
{
	struct av_str out = av_buf_str(&s->out);
	ssize_t n = out.n ? write(STDOUT_FILENO, out.p, AV_MIN(out.n, (size_t)4096)) : 0;

	if (n > 0)
		av_buf_consume(&s->out, (size_t)n);
	if (n >= 0 || errno == EINTR || errno == EAGAIN)
		return GOES_ON;
	s->signal = SIGHUP;
	return INTERRUPTED;
}

static enum end take_signal(struct shell *s)
{
	unsigned cols, rows;
	int sig = terminal_next_signal(s->signal_fd);

	if (sig == SIGWINCH) {
		terminal_size(&cols, &rows);
		(void)aviary_process_resize(s->p, cols, rows);
	} else if (sig) {
		s->signal = sig;
		return INTERRUPTED;
	}
	return GOES_ON;
}

static enum end turn(struct shell *s)
{
	enum { LIBRARY, SIGNALS, KEYS, SCREEN, COUNT };
	bool has_out = av_buf_str(&s->out).n > 0, has_in = av_buf_str(&s->in).n > 0;
	struct pollfd p[COUNT] = {
	    [LIBRARY] = {.fd = aviary_client_fd(s->cli->client), .events = POLLIN},
	    [SIGNALS] = {.fd = s->signal_fd, .events = POLLIN},
	    [KEYS] = {.fd = has_in ? -1 : STDIN_FILENO, .events = POLLIN},
	    [SCREEN] = {.fd = has_out ? STDOUT_FILENO : -1, .events = POLLOUT},
	};
	int timeout = aviary_client_timeout(s->cli->client);
	enum end end = GOES_ON;

	if (has_in && (timeout < 0 || timeout > RETRY_MS))
		timeout = RETRY_MS;
	if (poll(p, COUNT, timeout) < 0 && errno != EINTR)
		return BROKEN;
	if (p[SIGNALS].revents)
		end = take_signal(s);
	if (end == GOES_ON && p[SCREEN].revents)
		end = show_output(s);
	if (end == GOES_ON && p[KEYS].revents)
		end = take_keys(s);
	(void)aviary_client_dispatch(s->cli->client, 0);
	give_input(s);
	return end;
}

/* Until it ends, one way or the other. */
static enum end attend(struct shell *s)
{
	enum end end = GOES_ON;

	while (end == GOES_ON) {
		end = take_output(s);
		/* What was printed is shown before its end is told. */
		if (end == GOES_ON &&
		    (av_buf_str(&s->out).n == 0 || !aviary_op_is_done(aviary_process_op(s->p))))
			end = turn(s);
		else if (end == GOES_ON)
			end = show_output(s);
	}
	return end;
}

/* ---- from beginning to end ---- */

/* Waits until it runs; says why not. */
static int wait_started(struct shell *s, const char *what)
{
	struct av_err err = {0};
	aviary_op *op = aviary_process_started(s->p);
	int r = cli_wait(s->cli, op, &err), code = aviary_op_code(op), status = 0;
	const char *tag = aviary_process_tag(s->p);

	if (r < 0)
		status = cli_fail(s->cli, &err, what);
	if (code == AVIARY_E_EXEC_NOT_FOUND && !s->was_connected)
		status = EXIT_NOT_FOUND;
	else if (code == AVIARY_E_EXEC_NOT_EXECUTABLE)
		status = EXIT_NOT_EXECUTABLE;
	if (tag[0])
		snprintf(s->tag, sizeof(s->tag), "%s", tag);
	else
		snprintf(s->tag, sizeof(s->tag), "%lld", (long long)aviary_process_pid(s->p));
	aviary_op_free(op);
	return status;
}

static aviary_process *connect_to(struct shell *s)
{
	aviary_exec_options o = AVIARY_EXEC_OPTIONS_INIT;

	o.flags = AVIARY_EXEC_MERGE;
	terminal_size(&o.cols, &o.rows);
	return aviary_sandbox_connect_with(s->sb, s->tag, &o);
}

/* What may be over in a moment: a network, a daemon that is started anew. */
static bool is_of_the_way(int code)
{
	return aviary_error_is(code, AVIARY_GROUP_TRANSPORT) || code == AVIARY_E_UNAVAILABLE ||
	       code == AVIARY_E_TIMEOUT;
}

/* While there is nothing to type to: Ctrl-C, or a signal. */
static bool wants_to_leave(struct shell *s)
{
	struct pollfd p = {.fd = STDIN_FILENO, .events = POLLIN};
	char piece[64];

	if (take_signal(s) == INTERRUPTED)
		return true;
	if (poll(&p, 1, 0) > 0) {
		ssize_t n = read(STDIN_FILENO, piece, sizeof(piece));
		if (n <= 0)
			s->signal = SIGHUP;
		else if (memchr(piece, CTRL_C, (size_t)n))
			s->signal = SIGINT;
	}
	return s->signal != 0;
}

/* Between two tries. True: give up. */
static bool wait_a_while(struct shell *s)
{
	for (int ms = 0; ms < BETWEEN_MS; ms += RETRY_MS) {
		struct timespec t = {0, RETRY_MS * 1000000L};

		if (wants_to_leave(s))
			return true;
		(void)nanosleep(&t, NULL);
	}
	return false;
}

static void say(const char *text)
{
	ssize_t n = write(STDERR_FILENO, text, strlen(text));
	(void)n;
}

/* The connection broke: the shell lives, so it is taken up again. Ctrl-C gives up. */
static bool reconnect(struct shell *s)
{
	int64_t give_up_ms = av_mono_ns() / 1000000 + RECONNECT_MS;
	int code = AVIARY_E_BROKEN;

	if (!is_of_the_way(aviary_op_code(aviary_process_op(s->p))))
		return false;
	say("\r\n[aviary: the connection broke; connecting again]\r\n");
	while (is_of_the_way(code) && av_mono_ns() / 1000000 < give_up_ms) {
		aviary_op *op;

		aviary_process_free(s->p);
		s->p = connect_to(s);
		s->was_connected = true;
		op = aviary_process_started(s->p);
		while ((code = aviary_op_code(op)) == AVIARY_E_AGAIN && !wants_to_leave(s))
			(void)aviary_client_dispatch(s->cli->client, RETRY_MS);
		aviary_op_free(op);
		if (s->signal)
			return false;
		if (is_of_the_way(code) && wait_a_while(s))
			return false;
	}
	return code == 0;
}

/* The user's terminal is gone, and so is who could end the shell. */
static void hang_up(struct shell *s)
{
	if (args_flag(s->cli->args, "keep")) {
		(void)aviary_process_detach(s->p);
		return;
	}
	(void)aviary_process_signal(s->p, "SIGHUP");
	(void)aviary_process_signal(s->p, "SIGCONT");
	if (aviary_op_wait(aviary_process_op(s->p), HANGUP_MS) == AVIARY_E_AGAIN) {
		(void)aviary_process_signal(s->p, "SIGKILL");
		(void)aviary_op_wait(aviary_process_op(s->p), HANGUP_MS);
	}
}

static int finish(struct shell *s, enum end end)
{
	const aviary_exec_result *result = aviary_process_result(s->p);
	const char *typed = s->cli->args->operands[0];
	struct av_err err = {0};

	if (s->cli->json) {
		AV_CLEANUP(av_json_decrefp)
		json_t *j = json_pack("{s:s, s:s, s:b}", "sandbox_id", aviary_sandbox_id(s->sb),
		    "tag", s->tag, "detached", end == DETACHED);
		if (j && result)
			json_object_set_new(j, "exit_code", json_integer(result->exit_code));
		cli_print_json(s->cli, j);
	}
	if (end == DETACHED) {
		cli_make_safe(s->tag); /* of whoever started it */
		if (!s->cli->json)
			fprintf(stderr, "detached; 'aviary sh %s --attach %s' comes back\n", typed,
			    s->tag);
		return 0;
	}
	if (end == BROKEN && (s->signal || is_of_the_way(aviary_op_code(aviary_process_op(s->p)))))
		cli_warn("what ran there goes on: 'aviary sh %s --attach %s' comes back to it",
		    typed, s->tag);
	if (s->signal)
		return EXIT_SIGNAL + s->signal;
	if (result) {
		if (result->oom_killed)
			cli_warn(
			    "the program was killed: the sandbox is out of memory; use --memory");
		return result->exit_code & 0xff;
	}
	(void)cli_error(s->cli, aviary_op_error(aviary_process_op(s->p)), &err);
	return cli_fail(s->cli, &err, typed);
}

static int attend_terminal(struct shell *s)
{
	enum end end = BROKEN;
	unsigned cols, rows;
	sigset_t old;
	int r;

	s->signal_fd = terminal_signals(&old);
	r = s->signal_fd < 0 ? s->signal_fd : terminal_make_raw();
	if (r < 0) {
		cli_warn("the terminal: %s", strerror(-r));
		return EXIT_PLATFORM;
	}
	/* It may have changed its size since it was told. */
	terminal_size(&cols, &rows);
	(void)aviary_process_resize(s->p, cols, rows);
	while ((end = attend(s)) == BROKEN && reconnect(s))
		;
	if (end == DETACHED)
		(void)aviary_process_detach(s->p);
	else if (end == INTERRUPTED)
		hang_up(s);
	if (end != OVER && end != INTERRUPTED)
		say(calm_down);
	terminal_restore();
	if (end == DETACHED) {
		say("\n");
		/* What was typed before is on its way still. */
		(void)aviary_op_wait(aviary_process_op(s->p), HANGUP_MS);
	}
	close(s->signal_fd);
	sigprocmask(SIG_SETMASK, &old, NULL);
	return finish(s, end);
}

static int start(struct shell *s, const struct args *args, struct av_err *err)
{
	aviary_exec_options o = AVIARY_EXEC_OPTIONS_INIT;
	AV_CLEANUP(av_json_decrefp) json_t *envs = NULL;
	const char *attach = args_text(args, "attach"), *term = getenv("TERM"), *name;
	aviary_pair pairs[ENVS_MAX + 1];
	size_t n = 0;
	json_t *value;

	if (attach) {
		s->was_connected = true;
		snprintf(s->tag, sizeof(s->tag), "%s", attach);
		s->p = connect_to(s);
		return 0;
	}
	if (options_envs(args, &envs, err) < 0)
		return -EINVAL;
	if (json_object_size(envs) > ENVS_MAX)
		return av_err_set(err, AV_ERR_INVALID, "--env: at most %d variables", ENVS_MAX);
	if (term && term[0] && !json_object_get(envs, "TERM"))
		pairs[n++] = (aviary_pair){"TERM", term};
	json_object_foreach (envs, name, value)
		pairs[n++] = (aviary_pair){name, json_string_value(value)};
	o.flags = AVIARY_EXEC_DETACH;
	o.command = (aviary_strings){(const char *const *)args->operands + 1, args->n_operands - 1};
	o.envs = (aviary_pairs){pairs, n};
	o.cwd = args_text(args, "workdir");
	o.user = args_text(args, "user");
	o.tag = args_text(args, "tag");
	terminal_size(&o.cols, &o.rows);
	s->p = aviary_sandbox_terminal(s->sb, &o);
	return 0;
}

static int run(struct cli *cli, const struct args *args)
{
	struct shell s = {.cli = cli, .in = AV_BUF_INIT(4 * PIECE), .out = AV_BUF_INIT(4 * PIECE)};
	const char *keys = args_text(args, "detach-keys");
	struct av_err err = {0};
	char id[AV_ID_SIZE];
	int status;

	if (!isatty(STDIN_FILENO))
		return cli_usage_error(cli,
		    "standard input is no terminal; 'aviary exec -i' takes what a pipe brings");
	if (args_text(args, "attach") && args->n_operands > 1)
		return cli_usage_error(
		    cli, "--attach goes on with a program that runs: no COMMAND");
	if (detach_keys_parse(&s.keys, keys ? keys : DETACH_KEYS, &err) < 0)
		return cli_usage_error(cli, "%s", err.message);
	status = cli_connect(cli);
	if (status)
		return status;
	if (cli_resolve(cli, args->operands[0], id, &err) < 0)
		return cli_fail(cli, &err, args->operands[0]);
	s.sb = aviary_sandbox_attach_running(cli->client, id);
	if (!s.sb)
		err.kind = AV_ERR_NO_MEMORY;
	if (!s.sb || start(&s, args, &err) < 0) {
		status = cli_fail(cli, &err, NULL);
	} else {
		status = wait_started(&s, args->operands[0]);
		status = status ? status : attend_terminal(&s);
	}
	aviary_process_free(s.p);
	aviary_sandbox_free(s.sb);
	av_buf_clear(&s.in);
	av_buf_clear(&s.out);
	return status;
}

static const struct option_spec options[] = {
    {"attach", 'a', OPTION_TEXT, "PROCESS",
        "go on with one that runs, named by pid or tag, instead of starting one", COMPLETE_NONE},
    {"detach-keys", 0, OPTION_TEXT, "KEYS",
        "leave it running and come back to this shell (default: " DETACH_KEYS
        "); none: nothing typed is special",
        COMPLETE_NONE},
    {"keep", 'k', OPTION_FLAG, NULL, "leave it running also when this terminal goes away",
        COMPLETE_NONE},
    {"tag", 0, OPTION_TEXT, "NAME", "a name for it, to come back to", COMPLETE_NONE},
    {"env", 'e', OPTION_LIST, "NAME[=VALUE]",
        "set a variable, or pass on the one of this shell; may be repeated", COMPLETE_NONE},
    {"workdir", 'w', OPTION_TEXT, "DIR", "directory to start in (default: the user's home)",
        COMPLETE_NONE},
    {"user", 'u', OPTION_TEXT, "NAME", "user inside (default: the template's)", COMPLETE_NONE},
    OPTIONS_END,
};

static const char *const examples[] = {
    "aviary sh work\ta shell in the sandbox named 'work'",
    "aviary sh work --tag build -- make -j2\ta program on a terminal",
    "aviary sh work --attach build\tback to it, from anywhere",
    NULL,
};

const struct command command_sh = {
    .name = "sh",
    .usage = "SANDBOX [--] [COMMAND [ARGUMENT…]]",
    .summary = "open a terminal in a sandbox",
    .description =
        "Runs the user's shell (bash where there is one), or the command, on a terminal of its "
        "size, and exits as it did. Every key is for the program inside, but Ctrl-P Ctrl-Q: that "
        "detaches, and what runs goes on; --attach comes back to it. Should the connection "
        "break, or the daemon be started anew, it is taken up again by itself.\n"
        "When this terminal is closed, what runs in it is hung up, as usual; with --keep it goes "
        "on. What is not attached keeps its newest MiB of output for whoever comes back.",
    .examples = examples,
    .exits = program_exits,
    .see = "run exec ps logs",
    .options = options,
    .min_operands = 1,
    .max_operands = OPERANDS_ANY,
    .options_end_after = 2,
    .operand_completion = COMPLETE_SANDBOXES,
    .more_completion = COMPLETE_PROGRAMS,
    .run = run,
};
