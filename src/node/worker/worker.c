/* SPDX-License-Identifier: Apache-2.0 */
/*
 * worker.c - requests to the worker of aviary-spawn, pipelined over one socket
 *
 * Theory of operation. A request waits in `waiting` until the connection is up, has said HELLO and
 * has room in its pipeline; then it moves to `sent` until the reply with its number comes. Nothing
 * is done inside the caller's call: a deferred call pumps the queue, so that callbacks never nest.
 *
 * The worker may die at any moment (its supervisor starts another, which takes over the listening
 * socket). Then what was sent and may be said twice (everything but CREATE) goes back to `waiting`
 * and is said to the next worker, at most TRIES_MAX times, as a request could be what kills it. A
 * CREATE that was sent ends with UNAVAILABLE: it may or may not have left something, and only a
 * DESTROY of that id makes it safe to try again. A worker that answers nothing for REPLY_TIMEOUT_MS
 * counts as dead.
 *
 * States: disconnected (retry timer runs) -> connected (HELLO sent) -> ready -> disconnected ...;
 * closing from any.
 */
#include "node/worker/worker.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/avtime.h"
#include "base/buf.h"
#include "base/fd.h"
#include "base/list.h"
#include "base/path.h"
#include "net/loop.h"
#include "node/worker/worker_internal.h"
#include "spawn/wire.h"

#include "base/banned.h"

#define RETRY_FIRST_MS   20u
#define RETRY_MAX_MS     500u
#define CHECK_MS         1000
#define WAIT_TIMEOUT_MS  10000 /* without a worker */
#define REPLY_TIMEOUT_MS 30000
#define SLOW_TIMEOUT_MS  900000 /* while a snapshot is under way, or a template may be compared */
#define PREPARING_MS     100    /* between looks whether the worker still prepares itself */
#define TRIES_MAX        3

/* ---- ends of requests ---- */

void worker_req_free(struct worker_req *r)
{
	av_list_remove(&r->link);
	free(r->ids);
	free(r);
}

/* First of the list, taken out of it; NULL when it is empty. */
static struct worker_req *req_pop(struct av_list *l)
{
	struct av_list *n = l->next;

	if (n == l)
		return NULL;
	l->next = n->next;
	n->next->prev = l;
	n->next = n->prev = n;
	return AV_CONTAINER_OF(n, struct worker_req, link);
}

void worker_req_fail(struct worker_req *r, const struct av_err *err)
{
	switch (r->wire.op) {
	case SPAWN_CREATE:
	case SPAWN_ADOPT:
		r->fn.alive(r->ctx, NULL, -1, err);
		break;
	case SPAWN_INSPECT:
		r->fn.status(r->ctx, NULL, err);
		break;
	case SPAWN_LIST:
	case SPAWN_TEMPLATE_LIST:
		r->fn.list(r->ctx, NULL, 0, err);
		break;
	case SPAWN_SNAPSHOT:
		r->fn.snapshot(r->ctx, NULL, err);
		break;
	case SPAWN_SAMPLE:
		r->fn.samples(r->ctx, 0, NULL, 0, false, err);
		break;
	case SPAWN_STATS:
		r->fn.helper(r->ctx, NULL, err);
		break;
	case SPAWN_TEMPLATE_EXPORT:
		r->fn.stream(r->ctx, -1, err);
		break;
	default:
		r->fn.done(r->ctx, err);
		break;
	}
	worker_req_free(r);
}

const char *worker_op_text(uint32_t op)
{
	static const char *const names[] = {
	    [SPAWN_HELLO] = "greet the worker",
	    [SPAWN_CREATE] = "create the sandbox",
	    [SPAWN_DESTROY] = "destroy the sandbox",
	    [SPAWN_ADOPT] = "adopt the sandbox",
	    [SPAWN_INSPECT] = "inspect the sandbox",
	    [SPAWN_LIST] = "list sandboxes",
	    [SPAWN_FREEZE] = "freeze the sandbox",
	    [SPAWN_THAW] = "thaw the sandbox",
	    [SPAWN_SNAPSHOT] = "take a snapshot of the sandbox",
	    [SPAWN_TEMPLATE_DELETE] = "remove the template",
	    [SPAWN_TEMPLATE_LIST] = "list templates",
	    [SPAWN_TEMPLATE_EXPORT] = "read the template",
	    [SPAWN_SAMPLE] = "read what sandboxes use",
	    [SPAWN_STATS] = "ask the worker about itself",
	};

	return op < AV_ARRAY_LEN(names) && names[op] ? names[op] : "do this";
}

enum av_err_kind worker_error_kind(uint32_t op, int eno)
{
	switch (eno) {
	case ENOENT:
		return AV_ERR_NOT_FOUND;
	case ESTALE:
		return AV_ERR_INVALID_STATE;
	case ECANCELED:
		return AV_ERR_CANCELED;
	case EBADMSG:
		return AV_ERR_CHECKSUM;
	case EBUSY:
		return AV_ERR_INVALID_STATE;
	case EEXIST:
		return AV_ERR_CONFLICT;
	case EUSERS:
		return AV_ERR_QUOTA;
	case ENOMEM:
		return AV_ERR_NO_MEMORY;
	case ENOSPC:
	case EDQUOT:
		return AV_ERR_NO_SPACE;
	case EOPNOTSUPP:
		return AV_ERR_UNSUPPORTED;
	case EINVAL:
		return op == SPAWN_CREATE ? AV_ERR_INVALID : AV_ERR_INTERNAL;
	default:
		return AV_ERR_INTERNAL;
	}
}

/* Before all that waits: it was asked for earlier. */
void worker_requeue(struct worker *w, struct worker_req *r)
{
	av_list_remove(&r->link);
	av_list_append(w->waiting.next, &r->link);
	r->since_ms = av_loop_now_ms(w->loop);
	av_defer_start(&w->pump, w->loop);
}

/* ---- HELLO ---- */

static void describe(const struct spawn_hello_reply *h, char *dst, size_t size)
{
	static const char *const overlays[] = {"?", "by descriptor", "by name", "shifted"};
	static const char *const cgroups[] = {"none", "v1", "v2", "v1 and v2"};
	static const char *const disks[] = {"none", "quota", "btrfs image", "loop images", "tmpfs"};

	if (av_path_printf(dst, size, "%s, cgroups %s, overlay %s, disk limit %s%s",
	        h->isolation == SPAWN_ISOLATION_ROOTLESS ? "rootless" : "root",
	        h->cgroup < AV_ARRAY_LEN(cgroups) ? cgroups[h->cgroup] : "?",
	        h->overlay < AV_ARRAY_LEN(overlays) ? overlays[h->overlay] : "?",
	        h->disk < AV_ARRAY_LEN(disks) ? disks[h->disk] : "?",
	        h->can & SPAWN_CAN_SECCOMP ? "" : ", seccomp OFF") < 0)
		dst[0] = '\0';
}

static void take_vm(struct worker_vm *v, const struct spawn_hello_reply *h)
{
	*v = (struct worker_vm){
	    .can = (h->can & SPAWN_CAN_VM) != 0, .can_kvm = (h->can & SPAWN_CAN_KVM) != 0};
	static_assert(sizeof(v->no_vm) == sizeof(h->no_vm), "same size on both sides");
	static_assert(sizeof(v->no_kvm) == sizeof(h->no_kvm), "same size on both sides");
	memcpy(v->no_vm, h->no_vm, sizeof(v->no_vm) - 1);
	memcpy(v->no_kvm, h->no_kvm, sizeof(v->no_kvm) - 1);
	static_assert(sizeof(v->environment) == sizeof(h->vm_environment), "as well");
	memcpy(v->environment, h->vm_environment, sizeof(v->environment));
}

static void take_caps(struct worker *w, const struct spawn_hello_reply *h)
{
	static const struct {
		uint32_t can, flag;
	} map[] = {
	    {SPAWN_CAN_MEMORY, DRIVER_LIMIT_MEMORY},
	    {SPAWN_CAN_CPU, DRIVER_LIMIT_CPU},
	    {SPAWN_CAN_PIDS, DRIVER_LIMIT_PIDS},
	    {SPAWN_CAN_DISK, DRIVER_LIMIT_DISK},
	    {SPAWN_CAN_FREEZE, DRIVER_FREEZE},
	    {SPAWN_CAN_SUDO, DRIVER_SUDO},
	    {SPAWN_CAN_INTERNET, DRIVER_INTERNET},
	};
	struct driver_caps c = {
	    .disk_default_bytes = h->disk_default_bytes,
	    .host_cpus = (uint32_t)AV_MAX(sysconf(_SC_NPROCESSORS_ONLN), 1L),
	    .host_memory_bytes =
	        (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE),
	};

	for (size_t i = 0; i < AV_ARRAY_LEN(map); i++)
		if (h->can & map[i].can)
			c.flags |= map[i].flag;
	if (h->isolation == SPAWN_ISOLATION_ROOTLESS)
		c.flags |= DRIVER_ROOTLESS;
	static_assert(sizeof(c.boot_id) == sizeof(h->boot_id), "same size on both sides");
	memcpy(c.boot_id, h->boot_id, sizeof(c.boot_id) - 1);
	describe(h, c.detail, sizeof(c.detail));
	static_assert(sizeof(c.no_internet) == sizeof(h->no_internet), "same size on both sides");
	memcpy(c.no_internet, h->no_internet, sizeof(c.no_internet) - 1);
	c.preparing = h->preparing != 0;
	w->caps = c;
	take_vm(&w->vm, h);
}

static void disconnect(struct worker *w);

static void reply_hello(struct worker *w, const struct spawn_reply *rep)
{
	if (rep->error || rep->u.hello.protocol != SPAWN_PROTOCOL) {
		disconnect(w);
		return;
	}
	take_caps(w, &rep->u.hello);
	if (w->caps.preparing)
		av_timer_start(&w->again, PREPARING_MS);
	if (w->ready)
		return;
	w->ready = true;
	w->retry_ms = RETRY_FIRST_MS;
	av_defer_start(&w->pump, w->loop);
	w->on_ready(w->on_ready_ctx);
}

/* ---- connection ---- */

static void close_socket(struct worker *w)
{
	av_watch_free(AV_TAKE_PTR(w->watch));
	av_close_fd(&w->fd);
	av_timer_stop(&w->again);
	w->ready = false;
}

/* The worker is gone: answers what cannot be said again, keeps the rest for the next one. */
static void disconnect(struct worker *w)
{
	struct av_list lost;
	struct worker_req *r;
	struct av_err err;

	w->stats.reconnects += w->ready;
	close_socket(w);
	av_list_init(&lost);
	while (!av_list_empty(&w->sent)) {
		r = AV_CONTAINER_OF(w->sent.prev, struct worker_req, link);
		av_list_remove(&r->link);
		if (r->wire.op == SPAWN_CREATE || r->wire.op == SPAWN_SNAPSHOT ||
		    r->tries >= TRIES_MAX)
			av_list_append(lost.next, &r->link);
		else
			worker_requeue(w, r);
	}
	w->n_sent = 0;
	av_timer_start(&w->retry, w->retry_ms);
	w->retry_ms = AV_MIN(w->retry_ms * 2, RETRY_MAX_MS);
	while ((r = req_pop(&lost))) {
		(void)av_err_set(&err, AV_ERR_UNAVAILABLE,
		    "cannot %s: the aviary-spawn worker died meanwhile; it is started again, so "
		    "try "
		    "again",
		    worker_op_text(r->wire.op));
		worker_req_fail(r, &err);
	}
}

/* One packet. False: the connection is over (or nothing is left: *ret_again). */
static bool read_reply(struct worker *w, bool *ret_again)
{
	struct spawn_reply rep;
	int fds[AV_FD_PASS_MAX];
	size_t nfds = 0;
	ssize_t n = av_recv_fds(w->fd, &rep, sizeof(rep), fds, &nfds, MSG_DONTWAIT);
	AV_CLEANUP(av_closep) int fd = -1;

	*ret_again = false;
	if (n < 0 && (n == -EAGAIN || n == -EINTR)) {
		*ret_again = true;
		return false;
	}
	for (size_t i = 0; n >= 0 && i < nfds; i++) {
		if (i == 0)
			fd = fds[0];
		else
			av_close_fd(&fds[i]);
	}
	if (n != (ssize_t)sizeof(rep))
		return false;
	if (rep.op == SPAWN_HELLO && rep.seq == 0)
		return false;
	if (rep.op == SPAWN_HELLO)
		reply_hello(w, &rep);
	else
		worker_dispatch(w, &rep, &fd);
	return true;
}

static void send_waiting(struct worker *w);

static void on_socket(void *ctx, int events)
{
	struct worker *w = ctx;
	bool again = false;

	if (events & AV_WATCH_READ) {
		/* A callback may close the driver or lose the connection: fd tells. */
		for (int i = 0; i < 32 && w->fd >= 0; i++)
			if (!read_reply(w, &again)) {
				if (!again && w->fd >= 0)
					disconnect(w);
				break;
			}
	}
	if (w->fd >= 0 && w->ready)
		send_waiting(w);
}

static bool send_hello(struct worker *w)
{
	struct spawn_request rq = {.op = SPAWN_HELLO, .seq = ++w->next_seq};

	rq.u.protocol = SPAWN_PROTOCOL;
	w->hello_since_ms = av_loop_now_ms(w->loop);
	return send(w->fd, &rq, sizeof(rq), MSG_DONTWAIT | MSG_NOSIGNAL) == (ssize_t)sizeof(rq);
}

static bool connect_worker(struct worker *w)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};

	memcpy(addr.sun_path, w->socket_path, sizeof(addr.sun_path));
	w->fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (w->fd < 0)
		return false;
	if (connect(w->fd, (struct sockaddr *)&addr, sizeof(addr)) < 0)
		return false;
	if (av_watch_new(w->loop, w->fd, on_socket, w, &w->watch) < 0 ||
	    av_watch_set(w->watch, AV_WATCH_READ) < 0)
		return false;
	return send_hello(w);
}

static void on_retry(void *ctx)
{
	struct worker *w = ctx;

	if (w->fd < 0 && !connect_worker(w))
		disconnect(w);
}

/* The worker was not done preparing itself. */
static void on_again(void *ctx)
{
	struct worker *w = ctx;

	if (w->ready && !send_hello(w))
		av_timer_start(&w->again, PREPARING_MS);
}

/* ---- sending ---- */

/* Adoption needs no worker when the host was restarted since: nothing is left. */
static bool adopt_is_void(struct worker *w, struct worker_req *r)
{
	struct av_err err;

	if (r->wire.op != SPAWN_ADOPT || strcmp(r->boot_id, w->caps.boot_id) == 0)
		return false;
	(void)av_err_set(&err, AV_ERR_NOT_FOUND, "the host was restarted since the sandbox ran");
	worker_req_fail(r, &err);
	return true;
}

/* 1: sent, -EAGAIN: later, other: the connection is over. */
static int send_one(struct worker *w, struct worker_req *r)
{
	if (++w->next_seq == 0)
		w->next_seq = 1;
	r->wire.seq = w->next_seq;
	if (send(w->fd, &r->wire, sizeof(r->wire), MSG_DONTWAIT | MSG_NOSIGNAL) !=
	    (ssize_t)sizeof(r->wire))
		return errno == EINTR || errno == ENOBUFS ? -EAGAIN : -errno;
	if (r->wire.op == SPAWN_CREATE)
		av_hist_add(&w->stats.queue, av_mono_ns() - r->queued_ns);
	av_list_append(&w->sent, &r->link);
	w->n_sent++;
	r->tries++;
	r->since_ms = av_loop_now_ms(w->loop);
	return 1;
}

static void send_waiting(struct worker *w)
{
	struct worker_req *r;
	int sent = 1;

	while (sent == 1 && w->ready && w->n_sent < WORKER_PIPELINE_MAX &&
	       (r = req_pop(&w->waiting))) {
		if (adopt_is_void(w, r))
			continue;
		sent = send_one(w, r);
		if (sent != 1) /* back to the front */
			av_list_append(w->waiting.next, &r->link);
	}
	if (sent == 1 || sent == -EAGAIN) {
		int events = AV_WATCH_READ | (sent == 1 ? 0 : AV_WATCH_WRITE);

		sent = w->watch ? av_watch_set(w->watch, events) : 0;
	}
	if (sent < 0)
		disconnect(w);
}

static void finish_close(struct worker *w)
{
	void (*on_closed)(void *ctx) = w->on_closed;
	void *ctx = w->on_closed_ctx;
	struct worker_req *r;
	struct av_err err;

	close_socket(w);
	av_timer_stop(&w->retry);
	av_timer_stop(&w->check);
	(void)av_err_set(&err, AV_ERR_CANCELED, "Aviary is shutting down");
	while ((r = req_pop(&w->sent)))
		worker_req_fail(r, &err);
	while ((r = req_pop(&w->waiting)))
		worker_req_fail(r, &err);
	av_defer_stop(&w->pump);
	free(w);
	on_closed(ctx);
}

static void on_pump(void *ctx)
{
	struct worker *w = ctx;

	if (w->on_closed) {
		finish_close(w);
		return;
	}
	if (w->ready)
		send_waiting(w);
	if (!av_timer_active(&w->check) &&
	    (!av_list_empty(&w->waiting) || !av_list_empty(&w->sent)))
		av_timer_start(&w->check, CHECK_MS);
}

/* How long the worker may be silent. What waits behind a copy of a disk on the same sandbox waits
 * as long, and so does what waits for template host. */
static uint64_t patience_ms(const struct worker *w)
{
	const struct worker_req *r;

	if (w->caps.preparing)
		return SLOW_TIMEOUT_MS;
	AV_LIST_FOREACH(r, &w->sent, const struct worker_req, link)
	if (r->wire.op == SPAWN_SNAPSHOT ||
	    (r->wire.op == SPAWN_CREATE &&
	        (r->wire.u.create.flags & SPAWN_CREATE_VM ||
	            av_id_valid(av_str_c(r->wire.u.create.template_id), AV_ID_TEMPLATE))))
		return SLOW_TIMEOUT_MS;
	return REPLY_TIMEOUT_MS;
}

/* Once a second while something is under way. */
static void on_check(void *ctx)
{
	struct worker *w = ctx;
	uint64_t now = av_loop_now_ms(w->loop);
	struct worker_req *r = AV_LIST_FIRST(&w->sent, struct worker_req, link);
	struct av_err err;

	if (w->fd >= 0 && ((r && now - r->since_ms > patience_ms(w)) ||
	                      (!w->ready && now - w->hello_since_ms > WAIT_TIMEOUT_MS)))
		disconnect(w);
	while (!w->ready && (r = AV_LIST_FIRST(&w->waiting, struct worker_req, link)) &&
	       now - r->since_ms > WAIT_TIMEOUT_MS) {
		(void)av_err_set(&err, AV_ERR_UNAVAILABLE,
		    "cannot %s: the aviary-spawn worker cannot be reached at %s",
		    worker_op_text(r->wire.op), w->socket_path);
		worker_req_fail(r, &err);
	}
	if (!av_list_empty(&w->waiting) || !av_list_empty(&w->sent))
		av_timer_start(&w->check, CHECK_MS);
}

int worker_new(const struct worker_config *config, struct worker **ret, struct av_err *err)
{
	struct worker *w = calloc(1, sizeof(*w));

	if (!w)
		return av_err_set(err, AV_ERR_NO_MEMORY, "out of memory");
	if (av_str_copy(w->socket_path, sizeof(w->socket_path), av_str_c(config->spawn_socket)) <
	        0 ||
	    av_str_copy(w->run_dir, sizeof(w->run_dir), av_str_c(config->run_dir)) < 0) {
		free(w);
		return av_err_set(err, AV_ERR_INVALID,
		    "the run directory's path is too long for sockets: at most %zu characters: %s",
		    sizeof(w->run_dir) - 1, config->run_dir);
	}
	w->loop = config->loop;
	w->on_ready = config->on_ready;
	w->on_ready_ctx = config->ctx;
	w->fd = -1;
	w->retry_ms = RETRY_FIRST_MS;
	av_list_init(&w->waiting);
	av_list_init(&w->sent);
	av_timer_init(&w->retry, w->loop, on_retry, w);
	av_timer_init(&w->check, w->loop, on_check, w);
	av_timer_init(&w->again, w->loop, on_again, w);
	av_defer_init(&w->pump, on_pump, w);
	av_timer_start(&w->retry, 0);
	*ret = w;
	return 0;
}
