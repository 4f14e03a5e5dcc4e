/* SPDX-License-Identifier: Apache-2.0 */
/*
 * session.c - standard input, output, error and signals against a process in a sandbox
 *
 * One poll loop over the stream, the standard descriptors and a signalfd. Nothing is read from the
 * stream while output waits to be written, so a slow reader here slows the process there and memory
 * stays bounded. The standard descriptors are not made non-blocking (they are shared with whoever
 * started us): they are written when poll says so, in pieces that a ready pipe takes whole.
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
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/fd.h"
#include "base/json.h"

#include "base/banned.h"

#define OUTPUT_MAX (16 * AV_MIB) /* ceiling of what waits: far above what one step can bring */
#define INPUT_MARK (256 * 1024)  /* stop reading input above this much waiting */
#define READ_SIZE  (64 * 1024)
#define PIPE_PIECE 4096 /* a pipe that polls writable takes this without blocking */
#define FILE_PIECE (1024 * 1024)

struct output {
	int fd;
	size_t piece;
	struct av_buf waiting;
	int error; /* errno of a write that failed */
};

struct session {
	struct session_options options;
	struct output out, err;
	bool input_open;
	int signal_fd;
	int interrupts; /* INT, TERM and HUP seen */
	int last_interrupt;
	struct av_exec_end end;
	bool has_end;
	uint64_t dropped;
};

/* The terminal as it was; restored by atexit too, hence not in the session. */
static struct {
	bool is_raw;
	struct termios saved;
} terminal;

static void terminal_restore(void)
{
	if (terminal.is_raw)
		tcsetattr(STDIN_FILENO, TCSANOW, &terminal.saved);
	terminal.is_raw = false;
}

static void terminal_make_raw(void)
{
	static bool registered;
	if (tcgetattr(STDIN_FILENO, &terminal.saved) < 0)
		return;
	if (!registered)
		registered = atexit(terminal_restore) == 0;
	struct termios raw = terminal.saved;
	cfmakeraw(&raw);
	terminal.is_raw = tcsetattr(STDIN_FILENO, TCSANOW, &raw) == 0;
}

void session_window(uint16_t *ret_cols, uint16_t *ret_rows)
{
	struct winsize w = {0};
	*ret_cols = 80;
	*ret_rows = 24;
	for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
		if (ioctl(fd, TIOCGWINSZ, &w) == 0 && w.ws_col && w.ws_row) {
			*ret_cols = w.ws_col;
			*ret_rows = w.ws_row;
			return;
		}
}

static void output_init(struct output *o, int fd)
{
	struct stat st;
	*o = (struct output){.fd = fd, .piece = PIPE_PIECE, .waiting = AV_BUF_INIT(OUTPUT_MAX)};
	if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode))
		o->piece = FILE_PIECE;
}

struct session *session_new(const struct session_options *options)
{
	struct session *s = calloc(1, sizeof(*s));
	if (!s)
		return NULL;
	s->options = *options;
	s->signal_fd = -1;
	output_init(&s->out, STDOUT_FILENO);
	output_init(&s->err, STDERR_FILENO);
	return s;
}

void session_free(struct session *s)
{
	if (!s)
		return;
	av_buf_clear(&s->out.waiting);
	av_buf_clear(&s->err.waiting);
	av_close_fd(&s->signal_fd);
	free(s);
}

static void on_output(void *ctx, enum av_exec_channel channel, const char *p, size_t n)
{
	struct session *s = ctx;
	struct output *o = channel == AV_EXEC_STDERR ? &s->err : &s->out;
	if (!o->error && av_buf_append(&o->waiting, p, n) < 0)
		o->error = ENOMEM;
}

static void on_gap(void *ctx, uint64_t dropped_bytes)
{
	struct session *s = ctx;
	s->dropped += dropped_bytes;
}

static void on_end(void *ctx, const struct av_exec_end *end)
{
	struct session *s = ctx;
	s->end = *end;
	s->has_end = true;
}

const struct av_exec_events session_events = {
    .on_output = on_output,
    .on_gap = on_gap,
    .on_end = on_end,
};

static void output_write(struct output *o)
{
	struct av_str s = av_buf_str(&o->waiting);
	ssize_t n = write(o->fd, s.p, AV_MIN(s.n, o->piece));
	if (n >= 0) {
		av_buf_consume(&o->waiting, (size_t)n);
	} else if (errno != EAGAIN && errno != EINTR) {
		o->error = errno;
		av_buf_reset(&o->waiting);
	}
}

static int input_read(struct session *s, struct av_exec *exec)
{
	char p[READ_SIZE];
	ssize_t n = read(STDIN_FILENO, p, sizeof(p));
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return 0;
	if (n > 0)
		return av_exec_write(exec, p, (size_t)n);
	s->input_open = false;
	/* A terminal ends its input by a character. */
	return s->options.has_tty ? av_exec_write(exec, "\004", 1) : av_exec_close_stdin(exec);
}

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

/* 1 when the session should end now. */
static int take_signal(struct session *s, struct av_exec *exec)
{
	struct signalfd_siginfo si;
	if (read(s->signal_fd, &si, sizeof(si)) != (ssize_t)sizeof(si))
		return 0;
	int sig = (int)si.ssi_signo;
	if (sig == SIGWINCH) {
		uint16_t cols, rows;
		session_window(&cols, &rows);
		return s->options.has_tty ? av_exec_resize(exec, cols, rows) : 0;
	}
	bool is_interrupt = sig == SIGINT || sig == SIGTERM || sig == SIGHUP || sig == SIGQUIT;
	s->interrupts += is_interrupt;
	if (is_interrupt)
		s->last_interrupt = sig;
	if (!s->options.forwards_signals)
		return is_interrupt;
	if (s->interrupts >= 3) {
		av_exec_signal(exec, "SIGKILL", true);
		av_exec_step(exec, false, NULL, NULL);
		return 1;
	}
	const char *name = signal_name(sig);
	if (!name)
		return 0;
	if (s->interrupts == 2)
		cli_warn("the program goes on after %s; once more kills it", name);
	return av_exec_signal(exec, name, true);
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

static bool is_waiting(const struct session *s)
{
	return s->out.waiting.n > 0 || s->err.waiting.n > 0;
}

/* One turn: 0 go on, 1 over, negative broken (*err). */
static int turn(
    struct session *s, struct av_exec *exec, bool *over, struct av_err *err, int *exit_code)
{
	enum { STREAM, SIGNALS, INPUT, OUTPUT, ERROR, COUNT };
	bool may_read = !is_waiting(s) && !*over;
	bool takes_input = s->input_open && av_exec_buffered(exec) < INPUT_MARK && !*over;
	struct pollfd p[COUNT] = {
	    [STREAM] = {.fd = av_exec_fd(exec),
	        .events =
	            (short)((may_read ? POLLIN : 0) | (av_exec_wants_write(exec) ? POLLOUT : 0))},
	    [SIGNALS] = {.fd = s->signal_fd, .events = POLLIN},
	    [INPUT] = {.fd = takes_input ? STDIN_FILENO : -1, .events = POLLIN},
	    [OUTPUT] = {.fd = s->out.waiting.n ? s->out.fd : -1, .events = POLLOUT},
	    [ERROR] = {.fd = s->err.waiting.n ? s->err.fd : -1, .events = POLLOUT},
	};
	/* A stream that nobody reads reports errors all the same: leave it out. */
	if (!p[STREAM].events)
		p[STREAM].fd = -1;
	bool pending = may_read && av_exec_has_pending(exec);
	if (poll(p, COUNT, pending ? 0 : -1) < 0)
		return errno == EINTR ? 0 : av_err_sys(err, AV_ERR_INTERNAL, errno, "poll");
	int r = 0;
	if (p[SIGNALS].revents && (r = take_signal(s, exec)))
		return r < 0 ? av_err_sys(err, AV_ERR_UNAVAILABLE, r, "stream") : 1;
	if (p[OUTPUT].revents)
		output_write(&s->out);
	if (p[ERROR].revents)
		output_write(&s->err);
	if (s->out.error)
		return 1;
	if (p[INPUT].revents && (r = input_read(s, exec)) < 0 && r != -EPIPE)
		return av_err_sys(err, AV_ERR_INTERNAL, r, "standard input");
	if (!*over && (p[STREAM].revents || pending || av_exec_wants_write(exec))) {
		r = av_exec_step(exec, may_read, exit_code, err);
		if (r < 0)
			return r;
		*over = r == 1;
	}
	return *over && !is_waiting(s);
}

bool session_has_end(const struct session *s)
{
	return s->has_end;
}

static void drain(struct session *s)
{
	while (s->out.waiting.n > 0 && !s->out.error)
		output_write(&s->out);
	while (s->err.waiting.n > 0 && !s->err.error)
		output_write(&s->err);
}

int session_start_error(struct cli *cli, const struct av_err *err)
{
	int status = cli_fail(cli, err, NULL);
	if (err->kind == AV_ERR_NOT_FOUND)
		return EXIT_NOT_FOUND;
	if (err->kind == AV_ERR_FORBIDDEN)
		return EXIT_NOT_EXECUTABLE;
	return status;
}

/* The limit is worth a question: it is what the reader will change. */
static void warn_oom(const struct session *s, struct cli *cli)
{
	AV_CLEANUP(av_json_decrefp) json_t *sandbox = NULL;
	struct av_err err = {0};
	long long mib = 0;
	if (s->options.sandbox &&
	    cli_call(cli, "GET", NULL, &sandbox, &err, "/v1/sandboxes/%s", s->options.sandbox) == 0)
		mib = json_integer_value(json_object_get(sandbox, "memory_mb"));
	if (mib > 0)
		cli_warn(
		    "the program was killed: the sandbox is out of memory (%lld MiB); use --memory",
		    mib);
	else
		cli_warn("the program was killed: the sandbox is out of memory; use --memory");
}

static int status_of_end(const struct session *s, struct cli *cli)
{
	if (s->end.oom_killed)
		warn_oom(s, cli);
	if (s->end.timed_out) {
		cli_warn("the program was killed: its --timeout is over");
		return EXIT_TIMEOUT;
	}
	if (s->end.exited)
		return s->end.exit_code & 0xff;
	if (s->end.signal > 0)
		return EXIT_SIGNAL + s->end.signal;
	if (s->end.error[0])
		cli_warn("%s", s->end.error);
	return EXIT_PLATFORM;
}

int session_run(struct session *s, struct cli *cli, struct av_exec *exec)
{
	struct av_err err = {0};
	bool over = false;
	int exit_code = 0;
	sigset_t old;
	int r = signals_take(s, &old);
	s->input_open = s->options.reads_stdin;
	if (s->options.has_tty && s->options.reads_stdin && isatty(STDIN_FILENO))
		terminal_make_raw();
	while (r == 0)
		r = turn(s, exec, &over, &err, &exit_code);
	if (r < 0)
		drain(s);
	av_exec_free(exec);
	terminal_restore();
	/* Those that are still pending are for what comes next (deleting), which notes them. */
	sigprocmask(SIG_SETMASK, &old, NULL);

	if (s->dropped > 0)
		cli_warn("%llu bytes of output are missing: nobody read them in time",
		    (unsigned long long)s->dropped);
	if (r < 0) {
		int status = cli_fail(cli, &err, NULL);
		return exit_code ? exit_code : status;
	}
	if (s->out.error && s->out.error != EPIPE) {
		cli_warn("standard output: %s", strerror(s->out.error));
		return EXIT_PLATFORM;
	}
	if (s->has_end)
		return status_of_end(s, cli);
	if (s->out.error)
		return EXIT_SIGNAL + SIGPIPE;
	return s->last_interrupt ? EXIT_SIGNAL + s->last_interrupt : 0;
}

int session_exec(struct cli *cli, const struct args *args, const char *sandbox,
    struct av_exec_options *eo, const char *typed_id)
{
	const struct session_options options = {
	    .reads_stdin = args_flag(args, "interactive"),
	    .has_tty = args_flag(args, "tty"),
	    .forwards_signals = true,
	    .sandbox = sandbox,
	};
	struct av_err err = {0};
	struct av_exec *exec = NULL;
	eo->cwd = args_text(args, "workdir");
	eo->user = args_text(args, "user");
	eo->timeout_ms = (int64_t)args_duration_ms(args, "timeout", 0);
	eo->has_stdin = options.reads_stdin;
	eo->has_pty = options.has_tty;
	eo->kill_on_detach = true;
	session_window(&eo->cols, &eo->rows);
	struct session *s = session_new(&options);
	if (!s) {
		av_err_sys(&err, AV_ERR_NO_MEMORY, ENOMEM, "session");
		return cli_fail(cli, &err, NULL);
	}
	int status;
	if (av_exec_start(cli->client, sandbox, eo, &session_events, s, &exec, &err) < 0)
		status = cli_fail(cli, &err, typed_id);
	else
		status = session_run(s, cli, exec);
	session_free(s);
	return status;
}
