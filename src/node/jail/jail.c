/* SPDX-License-Identifier: Apache-2.0 */
/*
 * jail.c - the jail driver: requests to the worker of aviary-spawn, pipelined over one socket
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
#include "node/jail/jail.h"

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
#include "node/jail/jail_internal.h"
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
#define LIST_PAGES_MAX   4096

/* ---- ends of requests ---- */

static void req_free(struct jail_req *r)
{
	av_list_remove(&r->link);
	free(r->ids);
	free(r);
}

/* First of the list, taken out of it; NULL when it is empty. */
static struct jail_req *req_pop(struct av_list *l)
{
	struct av_list *n = l->next;

	if (n == l)
		return NULL;
	l->next = n->next;
	n->next->prev = l;
	n->next = n->prev = n;
	return AV_CONTAINER_OF(n, struct jail_req, link);
}

static void req_fail(struct jail_req *r, const struct av_err *err)
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
	req_free(r);
}

static const char *op_text(uint32_t op)
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

enum av_err_kind jail_error_kind(uint32_t op, int eno)
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

static void reply_error(const struct jail_req *r, const struct spawn_reply *rep, struct av_err *err)
{
	char text[sizeof(rep->text) + 1];

	memcpy(text, rep->text, sizeof(rep->text));
	text[sizeof(rep->text)] = '\0';
	(void)av_err_set(err, jail_error_kind(r->wire.op, rep->error), "cannot %s: %s",
	    op_text(r->wire.op), text[0] ? text : strerror(rep->error));
}

/* ---- replies ---- */

static void reply_alive(
    struct jail *j, struct jail_req *r, const struct spawn_reply *rep, int *pidfd)
{
	struct driver_evidence ev = {0};
	struct av_err err;

	if (*pidfd < 0) {
		(void)av_err_set(&err, AV_ERR_INTERNAL, "the worker's reply came without a pidfd");
		req_fail(r, &err);
		return;
	}
	if (r->wire.op == SPAWN_CREATE) {
		ev.pid = rep->u.create.pid;
		ev.start_ticks = rep->u.create.start_ticks;
		ev.pidns_inode = rep->u.create.pidns_ino;
		av_hist_add(&j->stats.helper, rep->u.create.worker_us * 1000LL);
		av_hist_add(&j->stats.child, rep->u.create.child_us * 1000LL);
	} else {
		ev.pid = r->wire.u.adopt.pid;
		ev.start_ticks = r->wire.u.adopt.start_ticks;
		ev.pidns_inode = r->wire.u.adopt.pidns_ino;
	}
	memcpy(ev.boot_id, j->caps.boot_id, sizeof(ev.boot_id));
	r->fn.alive(r->ctx, &ev, AV_TAKE_FD(*pidfd), NULL);
	req_free(r);
}

static void reply_status(struct jail_req *r, const struct spawn_inspect_reply *in)
{
	struct driver_status st = {
	    .alive = (in->state & SPAWN_STATE_ALIVE) != 0,
	    .frozen = (in->state & SPAWN_STATE_FROZEN) != 0,
	    .oom_kills = in->oom_kills,
	    .memory_bytes = in->memory_bytes,
	    .memory_peak_bytes = in->memory_peak_bytes,
	    .pids = in->pids,
	    .cpu_usec = in->cpu_usec,
	    .disk_used_bytes = in->disk_used_bytes,
	    .disk_limit_bytes = in->disk_limit_bytes,
	    .exit_record_len = AV_MIN((size_t)in->exit_bytes, sizeof(in->exit_record)),
	};

	static_assert(sizeof(in->exit_record) == DRIVER_EXIT_RECORD_MAX, "same size on both sides");
	memcpy(st.exit_record, in->exit_record, sizeof(st.exit_record));
	r->fn.status(r->ctx, &st, NULL);
	req_free(r);
}

/* Before all that waits: it was asked for earlier. */
static void requeue(struct jail *j, struct jail_req *r)
{
	av_list_remove(&r->link);
	av_list_append(j->waiting.next, &r->link);
	r->since_ms = av_loop_now_ms(j->loop);
	av_defer_start(&j->pump, j->loop);
}

static int gather_ids(struct jail_req *r, const struct spawn_list_reply *l)
{
	size_t count = AV_MIN((size_t)l->count, (size_t)SPAWN_LIST_MAX);
	char(*v)[AV_ID_SIZE] = reallocarray(r->ids, r->n_ids + count + 1, sizeof(*v));

	const char *prefix = r->wire.op == SPAWN_TEMPLATE_LIST ? AV_ID_TEMPLATE : AV_ID_SANDBOX;

	if (!v)
		return -ENOMEM;
	r->ids = v;
	for (size_t i = 0; i < count; i++) {
		struct av_str id =
		    av_str_n(l->entries[i].id, strnlen(l->entries[i].id, SPAWN_ID_SIZE));

		if (av_id_valid(id, prefix) && av_str_copy(v[r->n_ids], AV_ID_SIZE, id) == 0)
			r->n_ids++;
	}
	return 0;
}

static void reply_list(struct jail *j, struct jail_req *r, const struct spawn_list_reply *l)
{
	struct av_err err;

	if (gather_ids(r, l) < 0) {
		(void)av_err_set(&err, AV_ERR_NO_MEMORY, "out of memory");
		req_fail(r, &err);
		return;
	}
	if (l->more && l->count > 0 && l->count <= SPAWN_LIST_MAX && ++r->pages < LIST_PAGES_MAX) {
		memcpy(r->wire.u.after, l->entries[l->count - 1].id, SPAWN_ID_SIZE);
		r->wire.u.after[SPAWN_ID_SIZE - 1] = '\0';
		r->tries = 0;
		requeue(j, r);
		return;
	}
	r->fn.list(r->ctx, r->ids, r->n_ids, NULL);
	req_free(r);
}

static void reply_samples(struct jail *j, struct jail_req *r, const struct spawn_sample_reply *s)
{
	struct driver_sample v[SPAWN_SAMPLE_MAX];
	uint32_t count = AV_MIN(s->count, (uint32_t)SPAWN_SAMPLE_MAX);
	bool more = s->next > r->wire.u.sample.after;
	size_t n = 0;

	for (uint32_t i = 0; i < count; i++) {
		const struct spawn_sample *e = &s->entries[i];
		struct av_str id = av_str_n(e->id, strnlen(e->id, SPAWN_ID_SIZE));

		v[n] = (struct driver_sample){
		    .has_cpu = (e->flags & SPAWN_SAMPLED_CPU) != 0,
		    .has_memory = (e->flags & SPAWN_SAMPLED_MEMORY) != 0,
		    .has_disk = (e->flags & SPAWN_SAMPLED_DISK) != 0,
		    .cpu_usec = e->cpu_usec,
		    .memory_bytes = e->memory_bytes,
		    .disk_used_bytes = e->disk_used_bytes,
		};
		if (av_id_valid(id, AV_ID_SANDBOX) && av_str_copy(v[n].id, AV_ID_SIZE, id) == 0)
			n++;
	}
	r->fn.samples(r->ctx, s->mono_ns, v, n, more, NULL);
	if (!more) {
		req_free(r);
		return;
	}
	r->wire.u.sample.after = s->next;
	r->tries = 0;
	/* Behind what waits: whoever creates or deletes goes first. */
	av_list_remove(&r->link);
	av_list_append(&j->waiting, &r->link);
	r->since_ms = av_loop_now_ms(j->loop);
	av_defer_start(&j->pump, j->loop);
}

static void reply_snapshot(struct jail_req *r, const struct spawn_snapshot_reply *in)
{
	struct driver_snapshot s = {.bytes = in->bytes, .entries = in->entries, .depth = in->depth};

	static_assert(sizeof(s.seal) == sizeof(in->seal), "same size on both sides");
	static_assert(sizeof(s.parent) == sizeof(in->parent), "same size on both sides");
	static_assert(sizeof(s.host_fingerprint) == sizeof(in->host_fingerprint), "as well");
	memcpy(s.seal, in->seal, sizeof(s.seal));
	memcpy(s.parent, in->parent, sizeof(s.parent) - 1);
	memcpy(s.host_fingerprint, in->host_fingerprint, sizeof(s.host_fingerprint) - 1);
	r->fn.snapshot(r->ctx, &s, NULL);
	req_free(r);
}

static void reply_stats(struct jail_req *r, const struct spawn_stats_reply *in)
{
	const struct driver_helper h = {
	    .resident_bytes = in->resident_bytes,
	    .cpu_usec = in->cpu_usec,
	    .open_fds = in->open_fds,
	    .max_fds = in->max_fds,
	    .start_ms = in->start_ms,
	    .sandboxes = in->sandboxes,
	    .sandboxes_max = in->slots_max,
	    .creating = in->creating,
	    .destroying = in->destroying,
	    .snapshotting = in->snapshotting,
	    .freezing = in->freezing,
	    .jobs = in->jobs ? in->jobs - 1 : 0, /* without the question */
	    .jobs_max = SPAWN_PIPELINE_MAX,
	    .trash = in->trash,
	    .disk_free_bytes = in->disk_free_bytes,
	};

	r->fn.helper(r->ctx, &h, NULL);
	req_free(r);
}

static void reply_stream(struct jail_req *r, int *fd)
{
	struct av_err err;

	if (*fd < 0 || av_set_nonblock(*fd, true) < 0) {
		(void)av_err_set(&err, AV_ERR_INTERNAL, "the worker's reply came without a pipe");
		req_fail(r, &err);
		return;
	}
	r->fn.stream(r->ctx, AV_TAKE_FD(*fd), NULL);
	req_free(r);
}

static void reply_dispatch(struct jail *j, const struct spawn_reply *rep, int *fd)
{
	struct jail_req *r, *found = NULL;
	struct av_err err;

	AV_LIST_FOREACH(r, &j->sent, struct jail_req, link)
	if (r->wire.seq == rep->seq) {
		found = r;
		break;
	}
	if (!found)
		return;
	r = found;
	j->n_sent--;
	if (rep->error) {
		reply_error(r, rep, &err);
		req_fail(r, &err);
		return;
	}
	switch (r->wire.op) {
	case SPAWN_CREATE:
	case SPAWN_ADOPT:
		reply_alive(j, r, rep, fd);
		break;
	case SPAWN_INSPECT:
		reply_status(r, &rep->u.inspect);
		break;
	case SPAWN_SNAPSHOT:
		reply_snapshot(r, &rep->u.snapshot);
		break;
	case SPAWN_LIST:
	case SPAWN_TEMPLATE_LIST:
		reply_list(j, r, &rep->u.list);
		break;
	case SPAWN_SAMPLE:
		reply_samples(j, r, &rep->u.sample);
		break;
	case SPAWN_STATS:
		reply_stats(r, &rep->u.stats);
		break;
	case SPAWN_TEMPLATE_EXPORT:
		reply_stream(r, fd);
		break;
	default:
		r->fn.done(r->ctx, NULL);
		req_free(r);
		break;
	}
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

static void take_caps(struct jail *j, const struct spawn_hello_reply *h)
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
	j->caps = c;
}

static void disconnect(struct jail *j);

static void reply_hello(struct jail *j, const struct spawn_reply *rep)
{
	if (rep->error || rep->u.hello.protocol != SPAWN_PROTOCOL) {
		disconnect(j);
		return;
	}
	take_caps(j, &rep->u.hello);
	if (j->caps.preparing)
		av_timer_start(&j->again, PREPARING_MS);
	if (j->ready)
		return;
	j->ready = true;
	j->retry_ms = RETRY_FIRST_MS;
	av_defer_start(&j->pump, j->loop);
	if (j->base.on_ready)
		j->base.on_ready(j->base.on_ready_ctx);
}

/* ---- connection ---- */

static void close_socket(struct jail *j)
{
	av_watch_free(AV_TAKE_PTR(j->watch));
	av_close_fd(&j->fd);
	av_timer_stop(&j->again);
	j->ready = false;
}

/* The worker is gone: answers what cannot be said again, keeps the rest for the next one. */
static void disconnect(struct jail *j)
{
	struct av_list lost;
	struct jail_req *r;
	struct av_err err;

	j->stats.reconnects += j->ready;
	close_socket(j);
	av_list_init(&lost);
	while (!av_list_empty(&j->sent)) {
		r = AV_CONTAINER_OF(j->sent.prev, struct jail_req, link);
		av_list_remove(&r->link);
		if (r->wire.op == SPAWN_CREATE || r->wire.op == SPAWN_SNAPSHOT ||
		    r->tries >= TRIES_MAX)
			av_list_append(lost.next, &r->link);
		else
			requeue(j, r);
	}
	j->n_sent = 0;
	av_timer_start(&j->retry, j->retry_ms);
	j->retry_ms = AV_MIN(j->retry_ms * 2, RETRY_MAX_MS);
	while ((r = req_pop(&lost))) {
		(void)av_err_set(&err, AV_ERR_UNAVAILABLE,
		    "cannot %s: the aviary-spawn worker died meanwhile; it is started again, so "
		    "try "
		    "again",
		    op_text(r->wire.op));
		req_fail(r, &err);
	}
}

/* One packet. False: the connection is over (or nothing is left: *ret_again). */
static bool read_reply(struct jail *j, bool *ret_again)
{
	struct spawn_reply rep;
	int fds[AV_FD_PASS_MAX];
	size_t nfds = 0;
	ssize_t n = av_recv_fds(j->fd, &rep, sizeof(rep), fds, &nfds, MSG_DONTWAIT);
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
		reply_hello(j, &rep);
	else
		reply_dispatch(j, &rep, &fd);
	return true;
}

static void send_waiting(struct jail *j);

static void on_socket(void *ctx, int events)
{
	struct jail *j = ctx;
	bool again = false;

	if (events & AV_WATCH_READ) {
		/* A callback may close the driver or lose the connection: fd tells. */
		for (int i = 0; i < 32 && j->fd >= 0; i++)
			if (!read_reply(j, &again)) {
				if (!again && j->fd >= 0)
					disconnect(j);
				break;
			}
	}
	if (j->fd >= 0 && j->ready)
		send_waiting(j);
}

static bool send_hello(struct jail *j)
{
	struct spawn_request rq = {.op = SPAWN_HELLO, .seq = ++j->next_seq};

	rq.u.protocol = SPAWN_PROTOCOL;
	j->hello_since_ms = av_loop_now_ms(j->loop);
	return send(j->fd, &rq, sizeof(rq), MSG_DONTWAIT | MSG_NOSIGNAL) == (ssize_t)sizeof(rq);
}

static bool connect_worker(struct jail *j)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};

	memcpy(addr.sun_path, j->socket_path, sizeof(addr.sun_path));
	j->fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (j->fd < 0)
		return false;
	if (connect(j->fd, (struct sockaddr *)&addr, sizeof(addr)) < 0)
		return false;
	if (av_watch_new(j->loop, j->fd, on_socket, j, &j->watch) < 0 ||
	    av_watch_set(j->watch, AV_WATCH_READ) < 0)
		return false;
	return send_hello(j);
}

static void on_retry(void *ctx)
{
	struct jail *j = ctx;

	if (j->fd < 0 && !connect_worker(j))
		disconnect(j);
}

/* The worker was not done preparing itself. */
static void on_again(void *ctx)
{
	struct jail *j = ctx;

	if (j->ready && !send_hello(j))
		av_timer_start(&j->again, PREPARING_MS);
}

/* ---- sending ---- */

/* Adoption needs no worker when the host was restarted since: nothing is left. */
static bool adopt_is_void(struct jail *j, struct jail_req *r)
{
	struct av_err err;

	if (r->wire.op != SPAWN_ADOPT || strcmp(r->boot_id, j->caps.boot_id) == 0)
		return false;
	(void)av_err_set(&err, AV_ERR_NOT_FOUND, "the host was restarted since the sandbox ran");
	req_fail(r, &err);
	return true;
}

/* 1: sent, -EAGAIN: later, other: the connection is over. */
static int send_one(struct jail *j, struct jail_req *r)
{
	if (++j->next_seq == 0)
		j->next_seq = 1;
	r->wire.seq = j->next_seq;
	if (send(j->fd, &r->wire, sizeof(r->wire), MSG_DONTWAIT | MSG_NOSIGNAL) !=
	    (ssize_t)sizeof(r->wire))
		return errno == EINTR || errno == ENOBUFS ? -EAGAIN : -errno;
	if (r->wire.op == SPAWN_CREATE)
		av_hist_add(&j->stats.queue, av_mono_ns() - r->queued_ns);
	av_list_append(&j->sent, &r->link);
	j->n_sent++;
	r->tries++;
	r->since_ms = av_loop_now_ms(j->loop);
	return 1;
}

static void send_waiting(struct jail *j)
{
	struct jail_req *r;
	int sent = 1;

	while (
	    sent == 1 && j->ready && j->n_sent < JAIL_PIPELINE_MAX && (r = req_pop(&j->waiting))) {
		if (adopt_is_void(j, r))
			continue;
		sent = send_one(j, r);
		if (sent != 1) /* back to the front */
			av_list_append(j->waiting.next, &r->link);
	}
	if (sent == 1 || sent == -EAGAIN) {
		int events = AV_WATCH_READ | (sent == 1 ? 0 : AV_WATCH_WRITE);

		sent = j->watch ? av_watch_set(j->watch, events) : 0;
	}
	if (sent < 0)
		disconnect(j);
}

static void finish_close(struct jail *j)
{
	void (*on_closed)(void *ctx) = j->on_closed;
	void *ctx = j->on_closed_ctx;
	struct jail_req *r;
	struct av_err err;

	close_socket(j);
	av_timer_stop(&j->retry);
	av_timer_stop(&j->check);
	(void)av_err_set(&err, AV_ERR_CANCELED, "Aviary is shutting down");
	while ((r = req_pop(&j->sent)))
		req_fail(r, &err);
	while ((r = req_pop(&j->waiting)))
		req_fail(r, &err);
	av_defer_stop(&j->pump);
	free(j);
	on_closed(ctx);
}

static void on_pump(void *ctx)
{
	struct jail *j = ctx;

	if (j->on_closed) {
		finish_close(j);
		return;
	}
	if (j->ready)
		send_waiting(j);
	if (!av_timer_active(&j->check) &&
	    (!av_list_empty(&j->waiting) || !av_list_empty(&j->sent)))
		av_timer_start(&j->check, CHECK_MS);
}

/* How long the worker may be silent. What waits behind a copy of a disk on the same sandbox waits
 * as long, and so does what waits for template host. */
static uint64_t patience_ms(const struct jail *j)
{
	const struct jail_req *r;

	if (j->caps.preparing)
		return SLOW_TIMEOUT_MS;
	AV_LIST_FOREACH(r, &j->sent, const struct jail_req, link)
	if (r->wire.op == SPAWN_SNAPSHOT ||
	    (r->wire.op == SPAWN_CREATE &&
	        av_id_valid(av_str_c(r->wire.u.create.template_id), AV_ID_TEMPLATE)))
		return SLOW_TIMEOUT_MS;
	return REPLY_TIMEOUT_MS;
}

/* Once a second while something is under way. */
static void on_check(void *ctx)
{
	struct jail *j = ctx;
	uint64_t now = av_loop_now_ms(j->loop);
	struct jail_req *r = AV_LIST_FIRST(&j->sent, struct jail_req, link);
	struct av_err err;

	if (j->fd >= 0 && ((r && now - r->since_ms > patience_ms(j)) ||
	                      (!j->ready && now - j->hello_since_ms > WAIT_TIMEOUT_MS)))
		disconnect(j);
	while (!j->ready && (r = AV_LIST_FIRST(&j->waiting, struct jail_req, link)) &&
	       now - r->since_ms > WAIT_TIMEOUT_MS) {
		(void)av_err_set(&err, AV_ERR_UNAVAILABLE,
		    "cannot %s: the aviary-spawn worker cannot be reached at %s",
		    op_text(r->wire.op), j->socket_path);
		req_fail(r, &err);
	}
	if (!av_list_empty(&j->waiting) || !av_list_empty(&j->sent))
		av_timer_start(&j->check, CHECK_MS);
}

int jail_driver_new(const struct jail_config *config, struct driver **ret, struct av_err *err)
{
	struct jail *j = calloc(1, sizeof(*j));

	if (!j)
		return av_err_set(err, AV_ERR_NO_MEMORY, "out of memory");
	if (av_str_copy(j->socket_path, sizeof(j->socket_path), av_str_c(config->spawn_socket)) <
	        0 ||
	    av_str_copy(j->run_dir, sizeof(j->run_dir), av_str_c(config->run_dir)) < 0) {
		free(j);
		return av_err_set(err, AV_ERR_INVALID,
		    "the run directory's path is too long for sockets: at most %zu characters: %s",
		    sizeof(j->run_dir) - 1, config->run_dir);
	}
	j->base.ops = &jail_table;
	j->loop = config->loop;
	j->fd = -1;
	j->retry_ms = RETRY_FIRST_MS;
	av_list_init(&j->waiting);
	av_list_init(&j->sent);
	av_timer_init(&j->retry, j->loop, on_retry, j);
	av_timer_init(&j->check, j->loop, on_check, j);
	av_timer_init(&j->again, j->loop, on_again, j);
	av_defer_init(&j->pump, on_pump, j);
	av_timer_start(&j->retry, 0);
	*ret = &j->base;
	return 0;
}
