/* SPDX-License-Identifier: Apache-2.0 */
/*
 * session.c - standard input, output, error and signals against a process in a sandbox
 *
 * One poll loop over the library's descriptor, the standard descriptors and a signalfd. Output is
 * looked at where the library keeps it and taken when it was written here, so a slow reader here
 * slows the process there, and memory stays bounded. The standard descriptors are not made
 * non-blocking (they are shared with whoever started us): they are written when poll says so, in
 * pieces that a ready pipe takes whole.
 *
 * Signals are forwarded to the process group. A third INT, TERM or HUP kills it: a program that
 * ignores them must not hold its user. With a PTY the terminal is raw, Ctrl-C is a byte, and the
 * PTY's own discipline makes the signal. The terminal is restored at every exit, also by exit(3).
 */
#include "cli/session.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/codec.h"
#include "base/fd.h"
#include "base/json.h"
#include "cli/options.h"
#include "cli/terminal.h"

#include "base/banned.h"

#define READ_SIZE  (64 * 1024)
#define PIPE_PIECE 4096 /* a pipe that polls writable takes this without blocking */
#define FILE_PIECE (1024 * 1024)

struct output {
	enum aviary_channel channel;
	int fd;
	size_t piece;
	const char *p; /* the library's: what waits to be written */
	size_t n;
	bool is_over;
	int error; /* errno of a write that failed: what comes is dropped */
};

struct session {
	struct cli *cli;
	const struct session_options *options;
	aviary_process *process; /* borrowed */
	struct output out, err;
	bool input_open;
	char input[READ_SIZE]; /* what the process has not taken yet */
	size_t input_off, input_n;
	int signal_fd;
	int interrupts; /* INT, TERM and HUP seen */
	int last_interrupt;
	bool is_left; /* a signal ended the session */
};

/* ---- output ---- */

static void output_init(struct output *o, enum aviary_channel channel, int fd)
{
	struct stat st;

	*o = (struct output){.channel = channel, .fd = fd, .piece = PIPE_PIECE};
	if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode))
		o->piece = FILE_PIECE;
}

/* What there is; drives the client. */
static void output_look(struct session *s, struct output *o)
{
	const void *p = NULL;
	int64_t n;

	if (s->options->collects) {
		o->is_over = aviary_op_is_done(aviary_process_op(s->process));
		return;
	}
	do {
		n = aviary_process_peek(s->process, o->channel, &p, 0);
		if (n > 0 && o->error)
			(void)aviary_process_consume(s->process, o->channel, (size_t)n);
	} while (n > 0 && o->error);
	o->p = p;
	o->n = n > 0 ? (size_t)n : 0;
	/* A code is the operation's, which tells it. */
	o->is_over = n <= 0 && n != AVIARY_E_AGAIN;
}

static bool is_writable(int fd)
{
	struct pollfd p = {.fd = fd, .events = POLLOUT};

	return poll(&p, 1, 0) == 1;
}

/* As much as can be written now. */
static void output_write(struct session *s, struct output *o)
{
	size_t done = 0;

	while (done < o->n && (done == 0 || is_writable(o->fd))) {
		ssize_t n = write(o->fd, o->p + done, AV_MIN(o->n - done, o->piece));

		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			break;
		if (n < 0) {
			o->error = errno;
			done = o->n;
		} else {
			done += (size_t)n;
		}
	}
	(void)aviary_process_consume(s->process, o->channel, done);
	o->n = 0;
}

/* ---- input ---- */

static int input_give(struct session *s)
{
	int64_t n = s->input_n
	                ? aviary_process_write(s->process, s->input + s->input_off, s->input_n, 0)
	                : 0;

	if (n > 0) {
		s->input_off += (size_t)n;
		s->input_n -= (size_t)n;
	}
	/* A program that ends before it read its input is no failure. */
	if (n < 0 && n != AVIARY_E_AGAIN) {
		s->input_open = false;
		s->input_n = 0;
	}
	return 0;
}

static void input_read(struct session *s)
{
	ssize_t n = read(STDIN_FILENO, s->input, sizeof(s->input));

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	s->input_off = 0;
	s->input_n = n > 0 ? (size_t)n : 0;
	if (n <= 0) {
		s->input_open = false;
		if (s->options->has_tty) /* which ends its input by a character */
			s->input[s->input_n++] = '\004';
		else
			(void)aviary_process_close_stdin(s->process);
	}
	(void)input_give(s);
}

/* ---- signals ---- */

static const char *signal_name(int sig)
{
	switch (sig) {
	case SIGINT:
		return "SIGINT";
	case SIGTERM:
		return "SIGTERM";
	case SIGHUP:
		return "SIGHUP";
	case SIGQUIT:
		return "SIGQUIT";
	case SIGUSR1:
		return "SIGUSR1";
	case SIGUSR2:
		return "SIGUSR2";
	default:
		return NULL;
	}
}

/* True: the session should end now. */
static bool take_signal(struct session *s)
{
	struct signalfd_siginfo si;
	unsigned cols, rows;
	const char *name;

	if (read(s->signal_fd, &si, sizeof(si)) != (ssize_t)sizeof(si))
		return false;
	int sig = (int)si.ssi_signo;
	if (sig == SIGWINCH) {
		terminal_size(&cols, &rows);
		if (s->options->has_tty)
			(void)aviary_process_resize(s->process, cols, rows);
		return false;
	}
	bool is_interrupt = sig == SIGINT || sig == SIGTERM || sig == SIGHUP || sig == SIGQUIT;
	s->interrupts += is_interrupt;
	if (is_interrupt)
		s->last_interrupt = sig;
	if (!s->options->forwards_signals)
		return is_interrupt;
	/* Nobody to forward it to yet, or somebody who does not listen. */
	if (is_interrupt && (s->interrupts >= 3 || aviary_process_pid(s->process) == 0)) {
		aviary_op_cancel(aviary_process_op(s->process));
		return true;
	}
	name = signal_name(sig);
	if (!name)
		return false;
	if (s->interrupts == 2)
		cli_warn("the program goes on after %s; once more kills it", name);
	(void)aviary_process_signal(s->process, name);
	return false;
}

/* Blocks the signals that the signalfd brings; *ret_old is the mask to restore. */
static int signals_take(struct session *s, sigset_t *ret_old)
{
	sigset_t set;
	sigemptyset(&set);
	static const int list[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2, SIGWINCH};
	for (size_t i = 0; i < AV_ARRAY_LEN(list); i++)
		sigaddset(&set, list[i]);
	sigprocmask(SIG_BLOCK, &set, ret_old);
	s->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	return s->signal_fd < 0 ? -errno : 0;
}

/* ---- the loop ---- */

/* One turn. True: it is over. */
static bool turn(struct session *s)
{
	enum { LIBRARY, SIGNALS, INPUT, OUTPUT, ERROR, COUNT };
	aviary_client *c = s->cli->client;

	output_look(s, &s->out);
	output_look(s, &s->err);
	if (s->out.error || (s->out.is_over && s->err.is_over))
		return true;
	struct pollfd p[COUNT] = {
	    [LIBRARY] = {.fd = aviary_client_fd(c), .events = POLLIN},
	    [SIGNALS] = {.fd = s->signal_fd, .events = POLLIN},
	    [INPUT] = {.fd = s->input_open && !s->input_n ? STDIN_FILENO : -1, .events = POLLIN},
	    [OUTPUT] = {.fd = s->out.n ? s->out.fd : -1, .events = POLLOUT},
	    [ERROR] = {.fd = s->err.n ? s->err.fd : -1, .events = POLLOUT},
	};
	if (poll(p, COUNT, aviary_client_timeout(c)) < 0 && errno != EINTR)
		return true;
	if (p[SIGNALS].revents && take_signal(s)) {
		s->is_left = true;
		return true;
	}
	if (p[OUTPUT].revents)
		output_write(s, &s->out);
	if (p[ERROR].revents)
		output_write(s, &s->err);
	(void)aviary_client_dispatch(c, 0);
	if (p[INPUT].revents)
		input_read(s);
	else
		(void)input_give(s);
	return false;
}

/* ---- how it ended ---- */

/* The limit is worth a question: it is what the reader will change. */
static void warn_oom(struct session *s)
{
	AV_CLEANUP(av_json_decrefp) json_t *sandbox = NULL;
	struct av_err err = {0};
	long long mib = 0;

	if (cli_call(
	        s->cli, "GET", NULL, &sandbox, &err, "/v1/sandboxes/%s", s->options->sandbox) == 0)
		mib = json_integer_value(json_object_get(sandbox, "memory_mb"));
	if (mib > 0)
		cli_warn(
		    "the program was killed: the sandbox is out of memory (%lld MiB); use --memory",
		    mib);
	else
		cli_warn("the program was killed: the sandbox is out of memory; use --memory");
}

/* As text where both outputs are that, else both in base64. */
static json_t *output_json(const char *p, size_t n, bool as_text)
{
	AV_CLEANUP(av_buf_clear) struct av_buf b = AV_BUF_INIT(n / 3 * 4 + 16);

	if (as_text)
		return json_stringn(p, n);
	if (av_base64_encode(&b, p, n) < 0)
		return NULL;
	return json_stringn(av_buf_str(&b).p ? av_buf_str(&b).p : "", b.n);
}

static void print_result(struct session *s, const aviary_exec_result *r)
{
	bool as_text = av_utf8_valid(av_str_n(r->out, r->out_size)) &&
	               av_utf8_valid(av_str_n(r->err, r->err_size));
	AV_CLEANUP(av_json_decrefp)
	json_t *j = json_pack("{s:s, s:i, s:i, s:b, s:b, s:b, s:I, s:s, s:o*, s:o*, s:b, s:b}",
	    "sandbox_id", s->options->sandbox, "exit_code", r->exit_code, "signal", r->signal,
	    "timed_out", r->timed_out, "oom_killed", r->oom_killed, "core_dumped", r->core_dumped,
	    "duration_ms", (json_int_t)r->duration_ms, "encoding", as_text ? "utf-8" : "base64",
	    "stdout", output_json(r->out, r->out_size, as_text), "stderr",
	    output_json(r->err, r->err_size, as_text), "stdout_truncated", r->out_truncated,
	    "stderr_truncated", r->err_truncated);

	if (j)
		cli_print_json(s->cli, j);
	else
		cli_warn("out of memory");
}

static int status_of_end(struct session *s, const aviary_exec_result *result)
{
	if (!s->options->forwards_signals)
		return 0; /* how the process ended is not how showing its output ended */
	if (s->options->collects)
		print_result(s, result);
	if (result->oom_killed)
		warn_oom(s);
	if (result->timed_out) {
		cli_warn("the program was killed: its --timeout is over");
		return EXIT_TIMEOUT;
	}
	return result->exit_code & 0xff;
}

static int status_of_failure(struct session *s)
{
	const aviary_error *e = aviary_op_error(aviary_process_op(s->process));
	bool is_program = aviary_error_is(e->code, AVIARY_GROUP_EXEC);
	struct av_err err = {0};
	int status;

	if (e->code == 0)
		return 0;
	(void)cli_error(s->cli, e, &err);
	status = cli_fail(
	    s->cli, &err, is_program || aviary_process_pid(s->process) ? NULL : s->options->typed);
	if (s->options->forwards_signals && e->code == AVIARY_E_EXEC_NOT_FOUND)
		return EXIT_NOT_FOUND;
	if (s->options->forwards_signals && e->code == AVIARY_E_EXEC_NOT_EXECUTABLE)
		return EXIT_NOT_EXECUTABLE;
	return status;
}

static int status_of(struct session *s)
{
	const aviary_exec_result *result = aviary_process_result(s->process);
	int64_t dropped = aviary_process_dropped(s->process);

	if (dropped > 0)
		cli_warn("%lld bytes of output are missing: nobody read them in time",
		    (long long)dropped);
	if (s->out.error && s->out.error != EPIPE) {
		cli_warn("standard output: %s", strerror(s->out.error));
		return EXIT_PLATFORM;
	}
	if (result)
		return status_of_end(s, result);
	if (s->out.error)
		return EXIT_SIGNAL + SIGPIPE;
	if (s->is_left)
		return EXIT_SIGNAL + s->last_interrupt;
	return status_of_failure(s);
}

int session_run(struct cli *cli, aviary_process *process, const struct session_options *options)
{
	struct session *s = calloc(1, sizeof(*s));
	struct av_err err = {0};
	sigset_t old;
	int status;

	if (!s || !process) {
		free(s);
		av_err_sys(&err, AV_ERR_NO_MEMORY, ENOMEM, "session");
		return cli_fail(cli, &err, NULL);
	}
	*s = (struct session){.cli = cli, .options = options, .process = process, .signal_fd = -1};
	output_init(&s->out, AVIARY_STDOUT, STDOUT_FILENO);
	output_init(&s->err, AVIARY_STDERR, STDERR_FILENO);
	s->input_open = options->reads_stdin;
	if (signals_take(s, &old) == 0) {
		if (options->has_tty && options->reads_stdin && isatty(STDIN_FILENO) &&
		    terminal_make_raw() < 0)
			cli_warn("the terminal cannot be made raw");
		while (!turn(s))
			;
		terminal_restore();
	}
	/* What is still pending is for what comes next (deleting), which notes it. */
	sigprocmask(SIG_SETMASK, &old, NULL);
	status = status_of(s);
	aviary_process_free(process);
	av_close_fd(&s->signal_fd);
	free(s);
	return status;
}

int session_exec(struct cli *cli, const struct args *args, const char *sandbox, const char *typed,
    const struct session_command *command)
{
	const struct session_options options = {
	    .reads_stdin = args_flag(args, "interactive"),
	    .has_tty = args_flag(args, "tty"),
	    .forwards_signals = true,
	    .collects = cli->json,
	    .sandbox = sandbox,
	    .typed = typed,
	};
	aviary_exec_options o = AVIARY_EXEC_OPTIONS_INIT;
	aviary_process *process = NULL;
	aviary_pair *envs = NULL;
	aviary_sandbox *sb;

	o.command = (aviary_strings){(const char *const *)command->argv, command->argc};
	o.envs.n = json_object_size(command->envs);
	o.cwd = args_text(args, "workdir");
	o.user = args_text(args, "user");
	o.tag = command->tag;
	o.timeout_ms = (int64_t)args_duration_ms(args, "timeout", 0);
	if (options.reads_stdin)
		o.flags |= AVIARY_EXEC_STDIN;
	if (options.has_tty)
		o.flags |= AVIARY_EXEC_PTY;
	if (options.collects)
		o.flags |= AVIARY_EXEC_COLLECT;
	terminal_size(&o.cols, &o.rows);
	sb = aviary_sandbox_attach_running(cli->client, sandbox);
	envs = options_env_pairs(command->envs);
	o.envs.items = envs;
	if (sb && envs)
		process = aviary_sandbox_exec(sb, &o);
	aviary_sandbox_free(sb);
	free(envs);
	return session_run(cli, process, &options);
}
