/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kernel_driver.c - the process behind a kernel: start, socket, end
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "agent/kernel_drivers.h"
#include "agent/kernel_internal.h"
#include "agent/memory.h"
#include "agent/request.h"
#include "base/fd.h"
#include "base/json.h"

#include "base/banned.h"

#define OUT_MAX     (KERNEL_CODE_MAX * 3)
#define READ_BYTES  ((size_t)64 * 1024)
#define EOF_WAIT_MS 2000
#define LAST_READS  64 /* of READ_BYTES, after the end of the process */

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U
#endif

static void on_poll(uv_poll_t *poll, int status, int events);
static void on_last_turn(uv_timer_t *timer);

/* --- end --- */

static void on_handle_closed(struct kernel_driver *d)
{
	if (--d->open_handles > 0)
		return;
	av_kernel_dec_clear(&d->dec);
	av_buf_clear(&d->out);
	free(d);
}

static void on_poll_closed(uv_handle_t *h)
{
	on_handle_closed(AV_CONTAINER_OF(h, struct kernel_driver, poll));
}

static void on_timer_closed(uv_handle_t *h)
{
	on_handle_closed(AV_CONTAINER_OF(h, struct kernel_driver, timer));
}

static void close_channel(struct kernel_driver *d)
{
	if (d->fd < 0)
		return;
	uv_poll_stop(&d->poll);
	av_close_fd(&d->fd);
	uv_close((uv_handle_t *)&d->poll, on_poll_closed);
}

void driver_let_go(struct kernel_driver *d)
{
	struct kernel *k = d->kernel;

	if (!k)
		return;
	d->kernel = NULL;
	k->driver = NULL;
	if (d->process) {
		process_detach(&d->sub);
		process_signal(d->process, SIGKILL, true);
		d->process = NULL;
	}
	close_channel(d);
	uv_timer_stop(&d->timer);
	uv_close((uv_handle_t *)&d->timer, on_timer_closed);
	/* It may have held much. */
	memory_trim_later(k->table->agent);
}

/* Tells the kernel, which is cold from here on. */
static void gone(struct kernel_driver *d, const struct process_end *end, const char *why)
{
	struct kernel *k = d->kernel;

	if (!k)
		return;
	driver_let_go(d);
	kernel_on_gone(k, end, why);
}

static void on_timer(uv_timer_t *timer)
{
	struct kernel_driver *d = AV_CONTAINER_OF(timer, struct kernel_driver, timer);

	gone(d, NULL,
	    d->eof ? "it closed its connection to the agent" : "it was not ready within 60 s");
}

/* --- the socket --- */

static int on_payload(void *ctx, uint8_t type, struct av_str payload)
{
	struct kernel_driver *d = ctx;
	struct av_kernel_message m;
	int r = av_kernel_parse(type, payload, &m);

	if (r < 0)
		return r;
	/* What was printed before the message comes before it. */
	if (d->process)
		process_drain(d->process);
	if (m.type == AV_KERNEL_READY)
		uv_timer_stop(&d->timer);
	r = d->kernel ? kernel_on_message(d->kernel, &m) : 1;
	return r < 0 || d->kernel ? r : 1;
}

/* True while there may be more to read at once. */
static bool read_channel(struct kernel_driver *d)
{
	static char buf[READ_BYTES];
	ssize_t n, r;

	n = read(d->fd, buf, sizeof(buf));
	if (n < 0 && (errno == EINTR || errno == EAGAIN))
		return false;
	if (n <= 0) {
		d->eof = true;
		return false;
	}
	/* on_payload() stops it only when the driver was let go. */
	r = av_kernel_dec_feed(&d->dec, buf, (size_t)n, on_payload, d);
	if (r < 0)
		gone(d, NULL,
		    r == -EMSGSIZE ? "it sent a message over 8 MiB"
		                   : "it broke the protocol with the agent");
	return r >= 0 && d->kernel && (size_t)n == sizeof(buf);
}

static void write_channel(struct kernel_driver *d)
{
	while (d->out.n) {
		ssize_t n = send(d->fd, d->out.p + d->out.off, d->out.n, MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			break;
		if (n < 0) { /* it has gone; the end says more */
			av_buf_clear(&d->out);
			return;
		}
		av_buf_consume(&d->out, (size_t)n);
	}
	if (d->out.n == 0)
		av_buf_clear(&d->out);
}

void driver_update(struct kernel_driver *d)
{
	int events;

	if (d->fd < 0 || !d->kernel)
		return;
	if (d->ended) {
		if (!kernel_is_full(d->kernel) && !uv_is_active((uv_handle_t *)&d->timer))
			uv_timer_start(&d->timer, on_last_turn, 0, 0);
		return;
	}
	events = (d->eof || kernel_is_full(d->kernel) ? 0 : UV_READABLE) |
	         (d->out.n && !d->eof ? UV_WRITABLE : 0);
	if (events == d->events)
		return;
	d->events = events;
	if (events)
		uv_poll_start(&d->poll, events, on_poll);
	else
		uv_poll_stop(&d->poll);
}

static void on_poll(uv_poll_t *poll, int status, int events)
{
	struct kernel_driver *d = AV_CONTAINER_OF(poll, struct kernel_driver, poll);

	if (status < 0) {
		gone(d, NULL, "its connection to the agent broke");
		return;
	}
	if (events & UV_WRITABLE)
		write_channel(d);
	if (events & UV_READABLE)
		read_channel(d);
	if (!d->kernel)
		return;
	/* The process is about to end and will say how. */
	if (d->eof)
		uv_timer_start(&d->timer, on_timer, EOF_WAIT_MS, 0);
	/* An execution that was full may just have ended: its reader says nothing any more. */
	if (kernel_is_full(d->kernel))
		driver_update(d);
	else
		driver_ready(d);
}

int driver_send(struct kernel_driver *d, struct av_str data)
{
	int r = av_buf_append_str(&d->out, data);

	if (r < 0)
		return r;
	write_channel(d);
	driver_update(d);
	return 0;
}

void driver_ready(struct kernel_driver *d)
{
	driver_update(d);
	if (d->process)
		process_sub_ready(&d->sub);
}

void driver_interrupt(struct kernel_driver *d)
{
	if (d->process)
		process_signal(d->process, SIGINT, true);
}

/* --- the process --- */

static void on_output(struct process_sub *sub, uint8_t channel, const char *p, size_t n)
{
	struct kernel_driver *d = AV_CONTAINER_OF(sub, struct kernel_driver, sub);

	if (d->kernel)
		kernel_on_output(d->kernel, channel == PROCESS_STDERR, av_str_n(p, n));
	if (d->kernel) {
		sub->full = kernel_is_full(d->kernel);
		driver_update(d);
	}
}

static void on_gap(struct process_sub *sub, uint64_t dropped)
{
	(void)sub;
	(void)dropped;
}

/* Reads of what it said last, a piece in each turn of the loop while the reader has room: no more
 * than a socket holds, as a child that it left behind may have the other end and go on. */
static void on_last_turn(uv_timer_t *timer)
{
	struct kernel_driver *d = AV_CONTAINER_OF(timer, struct kernel_driver, timer);

	if (kernel_is_full(d->kernel))
		return;
	if (d->last_reads < LAST_READS && read_channel(d)) {
		d->last_reads++;
		driver_update(d);
	} else {
		gone(d, &d->end, NULL);
	}
}

static void on_process_end(struct process_sub *sub, const struct process_end *end)
{
	struct kernel_driver *d = AV_CONTAINER_OF(sub, struct kernel_driver, sub);

	d->process = NULL;
	/* Between executions nobody listens; and who comes next must not meet a dead process. */
	if (!d->kernel || d->fd < 0 || !kernel_listens(d->kernel)) {
		gone(d, end, NULL);
		return;
	}
	d->ended = true;
	d->end = *end;
	uv_poll_stop(&d->poll);
	uv_timer_stop(&d->timer);
	driver_update(d);
}

static const struct process_sub_ops sub_ops = {
    .on_output = on_output, .on_gap = on_gap, .on_end = on_process_end};

/* A file in memory with the source, to be read once from its beginning. */
static int source_fd(struct av_str source)
{
	int fd = memfd_create("kernel", MFD_CLOEXEC | MFD_NOEXEC_SEAL), r;

	if (fd < 0 && errno == EINVAL) /* before Linux 6.3 */
		fd = memfd_create("kernel", MFD_CLOEXEC);
	if (fd < 0)
		return -errno;
	r = av_write_full(fd, source.p, source.n);
	if (r == 0 && lseek(fd, 0, SEEK_SET) < 0)
		r = -errno;
	if (r < 0)
		av_close_fd(&fd);
	return r < 0 ? r : fd;
}

/* What the list of processes shows. */
static int make_config(char *const *argv, struct av_buf *out)
{
	AV_CLEANUP(av_json_decrefp)
	json_t *config = json_pack("{s:s, s:[s]}", "cmd", argv[0], "args", "(kernel)");

	return config ? av_json_dump(out, config) : -ENOMEM;
}

struct start {
	int source, ours, theirs; /* -1 or owned */
	struct env env;
	struct av_buf config;
};

static void start_clear(struct start *s)
{
	av_close_fd(&s->source);
	av_close_fd(&s->ours);
	av_close_fd(&s->theirs);
	env_clear(&s->env);
	av_buf_clear(&s->config);
}

static int prepare(
    struct kernel *k, const struct agent_user *user, struct start *s, struct av_err *err)
{
	int pair[2], r;

	r = agent_make_env(k->table->agent, user, NULL, &s->env, err);
	if (r < 0)
		return r;
	if (env_set(&s->env, "AVIARY_KERNEL_SHELL", k->shell) < 0 ||
	    make_config(k->language->argv, &s->config) < 0)
		return av_err_set(err, AV_ERR_NO_MEMORY, "out of memory in the sandbox's agent");
	s->source = source_fd(*k->language->source);
	if (s->source < 0)
		return av_err_sys(err, AV_ERR_INTERNAL, s->source, "source of the kernel");
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
		return av_err_sys(err, AV_ERR_INTERNAL, errno, "socket of the kernel");
	s->ours = pair[0];
	s->theirs = pair[1];
	return 0;
}

/* Hands the descriptor over; the driver belongs to the kernel from here on. */
static int watch(struct kernel *k, struct kernel_driver *d, int *fd, struct av_err *err)
{
	uv_loop_t *loop = &k->table->agent->loop;
	int r = uv_poll_init(loop, &d->poll, *fd);

	if (r < 0)
		return av_err_sys(err, AV_ERR_INTERNAL, r, "cannot watch the socket of the kernel");
	d->fd = AV_TAKE_FD(*fd);
	uv_timer_init(loop, &d->timer);
	d->open_handles = 2;
	d->kernel = k;
	k->driver = d;
	uv_timer_start(&d->timer, on_timer, KERNEL_START_MS, 0);
	driver_update(d);
	return 0;
}

int driver_start(struct kernel *k, struct av_err *err)
{
	AV_CLEANUP(start_clear)
	struct start s = {.source = -1, .ours = -1, .theirs = -1, .config = AV_BUF_INIT(1024)};
	struct agent *a = k->table->agent;
	char tag[KERNEL_ID_SIZE + 8], cwd[AV_PATH_MAX + 1];
	struct spawn_failure failure = {0};
	struct process_params params;
	struct kernel_driver *d;
	struct agent_user user;
	int r;

	env_init(&s.env);
	if ((r = agent_find_user(a, k->user, &user, err)) < 0 ||
	    (r = agent_find_cwd(a, &user, k->cwd_default ? "" : k->cwd, cwd, err)) < 0 ||
	    (r = prepare(k, &user, &s, err)) < 0)
		return r;
	d = calloc(1, sizeof(*d));
	if (!d)
		return av_err_set(err, AV_ERR_NO_MEMORY, "out of memory in the sandbox's agent");
	d->fd = -1;
	d->sub.ops = &sub_ops;
	d->sub.follow = true;
	av_list_init(&d->sub.node);
	av_kernel_dec_init(&d->dec);
	av_buf_init(&d->out, OUT_MAX);
	r = watch(k, d, &s.ours, err);
	if (r < 0) {
		free(d);
		return r;
	}
	snprintf(tag, sizeof(tag), "kernel-%s", k->id);
	params = (struct process_params){.argv = k->language->argv,
	    .envp = s.env.v,
	    .cwd = cwd,
	    .user = &user,
	    .tag = tag,
	    .is_service = true,
	    .config = av_buf_str(&s.config),
	    .stdin_fd = s.source,
	    .channel_fd = s.theirs,
	    .kill_group = true,
	    .end_at_exit = true};
	r = process_start(&a->processes, &params, &d->sub, &d->process, &failure, err);
	if (r < 0) {
		driver_let_go(d);
		return r;
	}
	k->settings = a->settings.generation;
	process_sub_ready(&d->sub);
	return 0;
}
