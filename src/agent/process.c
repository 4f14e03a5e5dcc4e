/* SPDX-License-Identifier: Apache-2.0 */
/*
 * process.c - life of the processes that clients started: start, find, signal, end
 */
#include "agent/process.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include "agent/process_internal.h"
#include "base/fd.h"
#include "base/num.h"

#include "base/banned.h"

/* As Go's syscall.Signal prints them, which is what E2B's clients see. */
static const char *const signal_texts[] = {
    [1] = "hangup",
    [2] = "interrupt",
    [3] = "quit",
    [4] = "illegal instruction",
    [5] = "trace/breakpoint trap",
    [6] = "aborted",
    [7] = "bus error",
    [8] = "floating point exception",
    [9] = "killed",
    [10] = "user defined signal 1",
    [11] = "segmentation fault",
    [12] = "user defined signal 2",
    [13] = "broken pipe",
    [14] = "alarm clock",
    [15] = "terminated",
};

static const char *const signal_names[] = {
    [1] = "HUP",
    [2] = "INT",
    [3] = "QUIT",
    [4] = "ILL",
    [5] = "TRAP",
    [6] = "ABRT",
    [7] = "BUS",
    [8] = "FPE",
    [9] = "KILL",
    [10] = "USR1",
    [11] = "SEGV",
    [12] = "USR2",
    [13] = "PIPE",
    [14] = "ALRM",
    [15] = "TERM",
    [17] = "CHLD",
    [18] = "CONT",
    [19] = "STOP",
    [20] = "TSTP",
    [21] = "TTIN",
    [22] = "TTOU",
    [23] = "URG",
    [24] = "XCPU",
    [25] = "XFSZ",
    [26] = "VTALRM",
    [27] = "PROF",
    [28] = "WINCH",
    [29] = "IO",
    [30] = "PWR",
    [31] = "SYS",
};

int process_signal_number(struct av_str name)
{
	uint64_t n;

	if (av_parse_u64(name, 1, 64, &n) == 0)
		return (int)n;
	if (av_str_starts(name, AV_STR("SIGNAL_")))
		name = av_str_n(name.p + 7, name.n - 7);
	if (av_str_starts(name, AV_STR("SIG")))
		name = av_str_n(name.p + 3, name.n - 3);
	for (size_t i = 1; i < AV_ARRAY_LEN(signal_names); i++)
		if (signal_names[i] && av_str_eq_c(name, signal_names[i]))
			return (int)i;
	return -EINVAL;
}

/* --- the table --- */

static void on_linger(uv_timer_t *timer);

int process_table_init(struct process_table *t, uv_loop_t *loop, size_t ring_bytes)
{
	int fd = open("/dev/null", O_RDWR | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	*t =
	    (struct process_table){.loop = loop, .ring_budget = {.max = ring_bytes}, .null_fd = fd};
	av_list_init(&t->live);
	av_list_init(&t->finished_seen);
	av_list_init(&t->finished_unseen);
	uv_timer_init(loop, &t->linger);
	t->linger.data = t;
	return 0;
}

static void free_process(struct process *p)
{
	ring_clear(&p->ring);
	free(p->tag);
	free(p->config);
	free(p);
}

void process_handle_closed(struct process *p)
{
	p->open_handles--;
	if (p->dying && p->open_handles == 0)
		free_process(p);
}

static void on_timer_closed(uv_handle_t *h)
{
	process_handle_closed(AV_CONTAINER_OF(h, struct process, timer));
}

/* Removes an ended process from memory. */
static void forget(struct process *p)
{
	struct process_sub *sub;

	/* Readers that still replay the ring are told the end now. */
	AV_LIST_FOREACH(sub, &p->subs, struct process_sub, node)
	{
		process_detach(sub);
		sub->ops->on_end(sub, &p->end);
	}
	av_list_remove(&p->node);
	p->table->nfinished--;
	p->dying = true;
	uv_close((uv_handle_t *)&p->timer, on_timer_closed);
}

static struct process *oldest_finished(struct process_table *t)
{
	struct process *a = AV_LIST_FIRST(&t->finished_seen, struct process, node);
	struct process *b = AV_LIST_FIRST(&t->finished_unseen, struct process, node);

	if (!a || !b)
		return a ? a : b;
	return a->finished_ms <= b->finished_ms ? a : b;
}

static void arm_linger(struct process_table *t)
{
	struct process *p = oldest_finished(t);
	uint64_t now = uv_now(t->loop), due;

	if (!p) {
		uv_timer_stop(&t->linger);
		return;
	}
	due = p->finished_ms + PROCESS_LINGER_MS;
	uv_timer_start(&t->linger, on_linger, due > now ? due - now : 0, 0);
}

static void on_linger(uv_timer_t *timer)
{
	struct process_table *t = timer->data;
	struct process *p;

	while ((p = oldest_finished(t)) && p->finished_ms + PROCESS_LINGER_MS <= uv_now(t->loop))
		forget(p);
	arm_linger(t);
}

static void make_room_for_finished(struct process_table *t)
{
	while (t->nfinished > PROCESS_FINISHED_MAX) {
		struct process *p = AV_LIST_FIRST(&t->finished_seen, struct process, node);

		if (!p)
			p = AV_LIST_FIRST(&t->finished_unseen, struct process, node);
		assert(p);
		forget(p);
	}
}

/* --- the end --- */

static void describe_end(struct process_end *e)
{
	const char *text = NULL, *core = e->core_dumped ? " (core dumped)" : "";

	if (e->exited) {
		snprintf(e->status, sizeof(e->status), "exit status %d", e->exit_code);
		return;
	}
	if (e->signal > 0 && (size_t)e->signal < AV_ARRAY_LEN(signal_texts))
		text = signal_texts[e->signal];
	if (text)
		snprintf(e->status, sizeof(e->status), "signal: %s%s", text, core);
	else
		snprintf(e->status, sizeof(e->status), "signal: signal %d%s", e->signal, core);
}

static void finish(struct process *p)
{
	struct process_table *t = p->table;
	struct process_sub *sub;

	p->ended = true;
	describe_end(&p->end);
	process_io_close(p);
	uv_timer_stop(&p->timer);
	av_list_remove(&p->node);
	t->nlive--;
	t->nfinished++;
	p->finished_ms = uv_now(t->loop);
	av_list_append(&t->finished_unseen, &p->node);
	AV_LIST_FOREACH(sub, &p->subs, struct process_sub, node)
	process_pump(sub);
	if (p->seen) {
		av_list_remove(&p->node);
		av_list_append(&t->finished_seen, &p->node);
	}
	make_room_for_finished(t);
	arm_linger(t);
}

void process_check_end(struct process *p)
{
	if (p->ended)
		return;
	if (p->end.gave_up || (p->reaped && !process_outputs_open(p)))
		finish(p);
}

void process_table_reaped(struct process_table *t, pid_t pid, int wait_status)
{
	struct process *p;

	AV_LIST_FOREACH(p, &t->live, struct process, node)
	{
		if (p->pid != pid || p->reaped)
			continue;
		p->reaped = true;
		p->end.exited = WIFEXITED(wait_status);
		if (p->end.exited)
			p->end.exit_code = WEXITSTATUS(wait_status);
		else
			p->end.signal = WTERMSIG(wait_status);
		p->end.core_dumped = !p->end.exited && WCOREDUMP(wait_status);
		process_input_drop(p);
		if (p->killed || p->end_at_exit)
			process_outputs_limit(p);
		process_check_end(p);
		return;
	}
}

/* The killed process does not die: the end is told without it. */
static void on_grace(uv_timer_t *timer)
{
	struct process *p = AV_CONTAINER_OF(timer, struct process, timer);

	if (p->reaped)
		return;
	p->end.signal = SIGKILL;
	p->end.gave_up = true;
	process_check_end(p);
}

/* Late means that nothing ran here: perhaps because the sandbox was frozen. The daemon says so
 * before it thaws it, but the timer may be looked at before its message. */
static void on_timeout(uv_timer_t *timer)
{
	struct process *p = AV_CONTAINER_OF(timer, struct process, timer);

	if (!p->spared && uv_now(timer->loop) > p->due_ms + TIMEOUT_LATE_MS) {
		p->spared = true;
		uv_timer_start(timer, on_timeout, TIMEOUT_NEWS_MS, 0);
		return;
	}
	p->due_ms = 0;
	p->end.timed_out = true;
	uv_timer_start(timer, on_grace, PROCESS_KILL_GRACE_MS, 0);
	process_kill(p);
}

/* --- start --- */

/* Both ends of the input and the outputs; -1 where there is none. */
struct pipes {
	int child[3];
	int in, out[2];
};

static void pipes_close(struct pipes *io)
{
	for (int i = 0; i < 3; i++) {
		/* One terminal may stand in all three places. */
		for (int j = i + 1; j < 3; j++)
			if (io->child[j] == io->child[i])
				io->child[j] = -1;
		av_close_fd(&io->child[i]);
	}
	av_close_fd(&io->in);
	av_close_fd(&io->out[0]);
	av_close_fd(&io->out[1]);
}

static int make_pipe(int *ret_read, int *ret_write)
{
	int fds[2];

	if (pipe2(fds, O_CLOEXEC) < 0)
		return -errno;
	*ret_read = fds[0];
	*ret_write = fds[1];
	return 0;
}

static int open_pipes(
    const struct process_table *t, const struct process_params *params, struct pipes *io)
{
	int given = params->stdin_fd ? params->stdin_fd : t->null_fd, r = 0;

	if (params->stdin_open && !params->stdin_fd)
		r = make_pipe(&io->child[0], &io->in);
	else
		io->child[0] = fcntl(given, F_DUPFD_CLOEXEC, 3);
	if (r == 0 && io->child[0] < 0)
		r = -errno;
	if (r == 0)
		r = make_pipe(&io->out[0], &io->child[1]);
	if (r == 0)
		r = make_pipe(&io->out[1], &io->child[2]);
	return r;
}

static int open_terminal(const struct process_params *params, struct pipes *io)
{
	struct winsize ws = {.ws_col = params->cols, .ws_row = params->rows};
	struct termios tio;
	int unlock = 0, slave;

	io->out[0] = open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (io->out[0] < 0 || ioctl(io->out[0], TIOCSPTLCK, &unlock) < 0)
		return -errno;
	/* TIOCGPTPEER (4.13) needs no path, so nothing mounted over /dev/pts can be in the way. */
	slave = ioctl(io->out[0], TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (slave < 0)
		return -errno;
	io->child[0] = io->child[1] = io->child[2] = slave;
	if (tcgetattr(slave, &tio) == 0) {
		tio.c_iflag |= IUTF8;
		tcsetattr(slave, TCSANOW, &tio);
	}
	/* The user must be able to open /dev/tty and /dev/pts/N again; where the ids cannot be
	 * changed, it owns it already. */
	if (fchown(slave, params->user->uid, (gid_t)-1) < 0 && errno != EPERM && errno != EINVAL)
		return -errno;
	if (ioctl(slave, TIOCSWINSZ, &ws) < 0)
		return -errno;
	io->in = fcntl(io->out[0], F_DUPFD_CLOEXEC, 3);
	return io->in < 0 ? -errno : 0;
}

static struct process *new_process(struct process_table *t, const struct process_params *params)
{
	struct process *p = calloc(1, sizeof(*p));

	if (!p)
		return NULL;
	p->config = av_str_dup(params->config);
	p->config_n = params->config.n;
	p->tag = params->tag ? av_str_dup(av_str_c(params->tag)) : NULL;
	if (!p->config || (params->tag && !p->tag)) {
		free(p->config);
		free(p->tag);
		free(p);
		return NULL;
	}
	p->table = t;
	p->pty = params->pty;
	p->kill_group = params->kill_group;
	p->end_at_exit = params->end_at_exit;
	p->is_service = params->is_service;
	p->in.fd = p->out[0].fd = p->out[1].fd = -1;
	av_list_init(&p->node);
	av_list_init(&p->subs);
	av_list_init(&p->in.queue);
	ring_init(&p->ring, &t->ring_budget, PROCESS_RING_BYTES);
	uv_timer_init(t->loop, &p->timer);
	p->open_handles = 1;
	return p;
}

static int spawn_with(const struct process_params *params, const struct pipes *io, pid_t *ret_pid,
    struct spawn_failure *ret_failure, struct av_err *err)
{
	struct spawn_params sp = {
	    .argv = params->argv,
	    .envp = params->envp,
	    .cwd = params->cwd,
	    .user = params->user,
	    .fds = {io->child[0], io->child[1], io->child[2]},
	    .channel_fd = params->channel_fd,
	    .controlling_tty = params->pty,
	};
	pid_t pid = spawn_process(&sp, ret_failure, err);

	if (pid < 0)
		return pid;
	*ret_pid = pid;
	return 0;
}

/* Kills what was just started, when there is no memory to look after it. */
static void abandon(struct process *p)
{
	if (p->pid > 0)
		kill(p->pid, SIGKILL);
	p->dying = true;
	uv_close((uv_handle_t *)&p->timer, on_timer_closed);
}

int process_start(struct process_table *t, const struct process_params *params,
    struct process_sub *sub, struct process **ret, struct spawn_failure *ret_failure,
    struct av_err *err)
{
	AV_CLEANUP(pipes_close) struct pipes io = {{-1, -1, -1}, -1, {-1, -1}};
	struct process *p;
	int fds[2], r;

	if (t->nlive >= PROCESS_LIVE_MAX)
		return av_err_set(err, AV_ERR_QUOTA,
		    "%d processes were started through the API and still run, which is the most; "
		    "end some",
		    PROCESS_LIVE_MAX);
	r = params->pty ? open_terminal(params, &io) : open_pipes(t, params, &io);
	if (r < 0)
		return av_err_sys(
		    err, AV_ERR_INTERNAL, r, "cannot open a %s", params->pty ? "terminal" : "pipe");
	p = new_process(t, params);
	if (!p)
		return av_err_set(err, AV_ERR_NO_MEMORY, "out of memory in the sandbox's agent");
	r = spawn_with(params, &io, &p->pid, ret_failure, err);
	if (r < 0) {
		abandon(p);
		return r;
	}
	fds[0] = AV_TAKE_FD(io.out[0]);
	fds[1] = AV_TAKE_FD(io.out[1]);
	r = process_io_open(p, AV_TAKE_FD(io.in), fds);
	if (r < 0) {
		abandon(p);
		return av_err_sys(err, AV_ERR_INTERNAL, r, "cannot watch a pipe");
	}
	av_list_append(&t->live, &p->node);
	t->nlive++;
	t->started++;
	if (params->timeout_ms) {
		/* The loop's clock is that of its last turn, in whole milliseconds: never too
		 * early. */
		uv_update_time(t->loop);
		uv_timer_start(&p->timer, on_timeout, params->timeout_ms + 1, 0);
		p->due_ms = uv_now(t->loop) + params->timeout_ms + 1;
	}
	if (sub)
		process_attach(p, sub);
	else
		process_update_reading(p);
	*ret = p;
	return 0;
}

void process_table_was_frozen(struct process_table *t, uint64_t frozen_ms)
{
	uint64_t now = uv_now(t->loop);
	struct process *p;

	AV_LIST_FOREACH(p, &t->live, struct process, node)
	{
		if (!p->due_ms || p->ended)
			continue;
		p->due_ms += frozen_ms;
		p->spared = false;
		uv_timer_start(&p->timer, on_timeout, p->due_ms > now ? p->due_ms - now : 0, 0);
	}
}

/* --- find and look --- */

/* The newest of a list that fits pid (if > 0) or tag. */
static struct process *find_in(struct av_list *list, pid_t pid, struct av_str tag)
{
	struct process *p, *found = NULL;

	AV_LIST_FOREACH(p, list, struct process, node)
	if (pid > 0 ? p->pid == pid : p->tag && av_str_eq_c(tag, p->tag))
		found = p;
	return found;
}

static struct process *find(struct process_table *t, pid_t pid, struct av_str tag)
{
	struct process *p = find_in(&t->live, pid, tag), *q;

	if (p)
		return p;
	p = find_in(&t->finished_unseen, pid, tag);
	q = find_in(&t->finished_seen, pid, tag);
	if (!p || !q)
		return p ? p : q;
	return p->finished_ms >= q->finished_ms ? p : q;
}

struct process *process_find_pid(struct process_table *t, pid_t pid)
{
	return pid > 0 ? find(t, pid, AV_STR("")) : NULL;
}

struct process *process_find_tag(struct process_table *t, struct av_str tag)
{
	return find(t, 0, tag);
}

struct process *process_next_live(struct process_table *t, struct process *p)
{
	struct av_list *n = p ? p->node.next : t->live.next;

	return n == &t->live ? NULL : AV_CONTAINER_OF(n, struct process, node);
}

pid_t process_pid(const struct process *p)
{
	return p->pid;
}

const char *process_tag(const struct process *p)
{
	return p->tag;
}

struct av_str process_config(const struct process *p)
{
	return av_str_n(p->config, p->config_n);
}

bool process_is_service(const struct process *p)
{
	return p->is_service;
}

bool process_is_pty(const struct process *p)
{
	return p->pty;
}

bool process_is_live(const struct process *p)
{
	return !p->ended;
}

const struct process_end *process_ended(const struct process *p)
{
	return p->ended ? &p->end : NULL;
}

/* --- signals and size --- */

int process_signal(struct process *p, int sig, bool group)
{
	int r = 0;

	if (p->ended)
		return -ESRCH;
	/* A reaped pid may be somebody else's by now; as a group id it is not while members live.
	 */
	if (group)
		r = kill(-p->pid, sig) < 0 ? -errno : 0;
	else if (!p->reaped)
		r = kill(p->pid, sig) < 0 ? -errno : 0;
	if (sig != SIGKILL && sig != SIGTERM)
		return p->reaped && !group ? -ESRCH : r;
	p->killed = true;
	if (p->reaped) {
		process_outputs_limit(p);
		return 0;
	}
	return r;
}

void process_kill(struct process *p)
{
	process_signal(p, SIGKILL, p->kill_group);
}

int process_resize(struct process *p, uint16_t cols, uint16_t rows)
{
	struct winsize ws = {.ws_col = cols, .ws_row = rows};

	if (!p->pty)
		return -ENOTTY;
	if (p->out[0].fd < 0)
		return -ESRCH;
	return ioctl(p->out[0].fd, TIOCSWINSZ, &ws) < 0 ? -errno : 0;
}
