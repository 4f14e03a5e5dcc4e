/* SPDX-License-Identifier: Apache-2.0 */
/*
 * replies.c - what the worker of aviary-spawn answered, for those who asked (see worker.c)
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/fd.h"
#include "node/worker/worker_internal.h"

#include "base/banned.h"

#define LIST_PAGES_MAX 4096

static void reply_error(
    const struct worker_req *r, const struct spawn_reply *rep, struct av_err *err)
{
	char text[sizeof(rep->text) + 1];

	memcpy(text, rep->text, sizeof(rep->text));
	text[sizeof(rep->text)] = '\0';
	(void)av_err_set(err, worker_error_kind(r->wire.op, rep->error), "cannot %s: %s",
	    worker_op_text(r->wire.op), text[0] ? text : strerror(rep->error));
}

static void reply_alive(
    struct worker *w, struct worker_req *r, const struct spawn_reply *rep, int *pidfd)
{
	struct driver_evidence ev = {0};
	struct av_err err;

	if (*pidfd < 0) {
		(void)av_err_set(&err, AV_ERR_INTERNAL, "the worker's reply came without a pidfd");
		worker_req_fail(r, &err);
		return;
	}
	if (r->wire.op == SPAWN_CREATE) {
		ev.pid = rep->u.create.pid;
		ev.start_ticks = rep->u.create.start_ticks;
		ev.pidns_inode = rep->u.create.pidns_ino;
		ev.slot = rep->u.create.slot;
		av_hist_add(&w->stats.helper, rep->u.create.worker_us * 1000LL);
		av_hist_add(&w->stats.child, rep->u.create.child_us * 1000LL);
	} else {
		ev.pid = r->wire.u.adopt.pid;
		ev.start_ticks = r->wire.u.adopt.start_ticks;
		ev.pidns_inode = r->wire.u.adopt.pidns_ino;
		ev.slot = rep->u.create.slot;
	}
	memcpy(ev.boot_id, w->caps.boot_id, sizeof(ev.boot_id));
	r->fn.alive(r->ctx, &ev, AV_TAKE_FD(*pidfd), NULL);
	worker_req_free(r);
}

static void reply_status(struct worker_req *r, const struct spawn_inspect_reply *in)
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
	worker_req_free(r);
}

static bool is_wanted(const struct worker_req *r, struct av_str id)
{
	if (r->wire.op == SPAWN_LIST)
		return av_id_valid(id, AV_ID_SANDBOX);
	return av_id_valid(id, AV_ID_TEMPLATE) || (r->with_vm && av_id_valid(id, AV_ID_VM_LAYER));
}

static int gather_ids(struct worker_req *r, const struct spawn_list_reply *l)
{
	size_t count = AV_MIN((size_t)l->count, (size_t)SPAWN_LIST_MAX);
	char(*v)[AV_ID_SIZE] = reallocarray(r->ids, r->n_ids + count + 1, sizeof(*v));

	if (!v)
		return -ENOMEM;
	r->ids = v;
	for (size_t i = 0; i < count; i++) {
		struct av_str id =
		    av_str_n(l->entries[i].id, strnlen(l->entries[i].id, SPAWN_ID_SIZE));

		if (is_wanted(r, id) && av_str_copy(v[r->n_ids], AV_ID_SIZE, id) == 0)
			r->n_ids++;
	}
	return 0;
}

static void reply_list(struct worker *w, struct worker_req *r, const struct spawn_list_reply *l)
{
	struct av_err err;

	if (gather_ids(r, l) < 0) {
		(void)av_err_set(&err, AV_ERR_NO_MEMORY, "out of memory");
		worker_req_fail(r, &err);
		return;
	}
	if (l->more && l->count > 0 && l->count <= SPAWN_LIST_MAX && ++r->pages < LIST_PAGES_MAX) {
		memcpy(r->wire.u.after, l->entries[l->count - 1].id, SPAWN_ID_SIZE);
		r->wire.u.after[SPAWN_ID_SIZE - 1] = '\0';
		r->tries = 0;
		worker_requeue(w, r);
		return;
	}
	r->fn.list(r->ctx, r->ids, r->n_ids, NULL);
	worker_req_free(r);
}

static void reply_samples(
    struct worker *w, struct worker_req *r, const struct spawn_sample_reply *s)
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
		worker_req_free(r);
		return;
	}
	r->wire.u.sample.after = s->next;
	r->tries = 0;
	/* Behind what waits: whoever creates or deletes goes first. */
	av_list_remove(&r->link);
	av_list_append(&w->waiting, &r->link);
	r->since_ms = av_loop_now_ms(w->loop);
	av_defer_start(&w->pump, w->loop);
}

static void reply_snapshot(struct worker_req *r, const struct spawn_snapshot_reply *in)
{
	struct driver_snapshot s = {.bytes = in->bytes, .entries = in->entries, .depth = in->depth};

	static_assert(sizeof(s.seal) == sizeof(in->seal), "same size on both sides");
	static_assert(sizeof(s.parent) == sizeof(in->parent), "same size on both sides");
	static_assert(sizeof(s.host_fingerprint) == sizeof(in->host_fingerprint), "as well");
	memcpy(s.seal, in->seal, sizeof(s.seal));
	memcpy(s.parent, in->parent, sizeof(s.parent) - 1);
	memcpy(s.host_fingerprint, in->host_fingerprint, sizeof(s.host_fingerprint) - 1);
	r->fn.snapshot(r->ctx, &s, NULL);
	worker_req_free(r);
}

static void reply_stats(struct worker_req *r, const struct spawn_stats_reply *in)
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
	worker_req_free(r);
}

static void reply_stream(struct worker_req *r, int *fd)
{
	struct av_err err;

	if (*fd < 0 || av_set_nonblock(*fd, true) < 0) {
		(void)av_err_set(&err, AV_ERR_INTERNAL, "the worker's reply came without a pipe");
		worker_req_fail(r, &err);
		return;
	}
	r->fn.stream(r->ctx, AV_TAKE_FD(*fd), NULL);
	worker_req_free(r);
}

void worker_dispatch(struct worker *w, const struct spawn_reply *rep, int *fd)
{
	struct worker_req *r, *found = NULL;
	struct av_err err;

	AV_LIST_FOREACH(r, &w->sent, struct worker_req, link)
	if (r->wire.seq == rep->seq) {
		found = r;
		break;
	}
	if (!found)
		return;
	r = found;
	w->n_sent--;
	if (rep->error) {
		reply_error(r, rep, &err);
		worker_req_fail(r, &err);
		return;
	}
	switch (r->wire.op) {
	case SPAWN_CREATE:
	case SPAWN_ADOPT:
		reply_alive(w, r, rep, fd);
		break;
	case SPAWN_INSPECT:
		reply_status(r, &rep->u.inspect);
		break;
	case SPAWN_SNAPSHOT:
		reply_snapshot(r, &rep->u.snapshot);
		break;
	case SPAWN_LIST:
	case SPAWN_TEMPLATE_LIST:
		reply_list(w, r, &rep->u.list);
		break;
	case SPAWN_SAMPLE:
		reply_samples(w, r, &rep->u.sample);
		break;
	case SPAWN_STATS:
		reply_stats(r, &rep->u.stats);
		break;
	case SPAWN_TEMPLATE_EXPORT:
		reply_stream(r, fd);
		break;
	default:
		r->fn.done(r->ctx, NULL);
		worker_req_free(r);
		break;
	}
}
