/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fake_driver.h - a driver for unit tests: sandboxes are child processes that only sleep
 *
 * The "machine" outlives the driver object, so that a test can let a daemon end and start another
 * one. Requests are answered in order from a timer, never from inside the call; `hold` keeps them.
 */
#pragma once

#include <errno.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/list.h"
#include "net/loop.h"
#include "node/driver.h"
#include "node/node.h"

struct fake_box {
	struct av_list link;
	char id[AV_ID_SIZE];
	pid_t pid;
	uint64_t oom_kills;
	bool frozen, held;
	struct driver_spec spec;
};

struct fake_machine {
	struct av_list boxes;
	char boot_id[DRIVER_BOOT_ID_SIZE];
	bool hold; /* answer nothing */
	enum av_err_kind fail_create, fail_destroy, fail_freeze, fail_thaw;
	enum av_err_kind fail_snapshot;
	int created, destroyed, adopted;
	char templates[16][AV_ID_SIZE]; /* ids that are there; "": a free place */
	bool no_vm;                     /* isolation vm is not available */
	int taken;                      /* held ones that were let go */
	struct driver_making making;    /* percent 0: nothing is being made */
	struct driver_spec last_spec;   /* of the last create */
};

enum fake_op {
	FAKE_CREATE,
	FAKE_DESTROY,
	FAKE_ADOPT,
	FAKE_INSPECT,
	FAKE_LIST,
	FAKE_FREEZE,
	FAKE_THAW,
	FAKE_SNAPSHOT,
	FAKE_TEMPLATE_DELETE,
	FAKE_TEMPLATE_LIST,
	FAKE_HOLD,
	FAKE_TAKE
};

struct fake_req {
	struct av_list link;
	enum fake_op op;
	char id[AV_ID_SIZE];
	struct driver_spec spec;
	struct driver_evidence ev;
	union {
		driver_alive_fn *alive;
		driver_done_fn *done;
		driver_status_fn *status;
		driver_list_fn *list;
		driver_snapshot_fn *snapshot;
	} fn;
	char template_id[AV_ID_SIZE];
	void *ctx;
};

struct fake_driver {
	struct driver base;
	struct fake_machine *m;
	struct av_timer timer;
	struct av_list reqs;
	bool ready, was_ready;
	struct driver_caps caps;
	void (*on_closed)(void *ctx);
	void *on_closed_ctx;
	int (*connect)(const char *id); /* an agent, or NULL */
};

static inline struct fake_driver *fake_of(struct driver *d)
{
	return AV_CONTAINER_OF(d, struct fake_driver, base);
}

static inline struct fake_box *fake_find(struct fake_machine *m, const char *id)
{
	struct fake_box *b;

	AV_LIST_FOREACH(b, &m->boxes, struct fake_box, link)
	if (strcmp(b->id, id) == 0)
		return b;
	return NULL;
}

static inline void fake_box_free(struct fake_box *b)
{
	(void)kill(b->pid, SIGKILL);
	(void)waitpid(b->pid, NULL, 0);
	av_list_remove(&b->link);
	free(b);
}

static inline struct fake_box *fake_box_new(struct fake_machine *m, const char *id)
{
	struct fake_box *b = calloc(1, sizeof(*b));

	memcpy(b->id, id, AV_ID_SIZE);
	b->pid = fork();
	if (b->pid == 0) {
		(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
		for (;;)
			(void)pause();
	}
	av_list_append(&m->boxes, &b->link);
	return b;
}

static inline struct fake_req *fake_req(
    struct driver *d, enum fake_op op, const char *id, void *ctx)
{
	struct fake_driver *f = fake_of(d);
	struct fake_req *r = calloc(1, sizeof(*r));

	r->op = op;
	r->ctx = ctx;
	memcpy(r->id, id, strnlen(id, AV_ID_LEN));
	av_list_append(&f->reqs, &r->link);
	av_timer_start(&f->timer, 0);
	return r;
}

static inline bool fake_is_ready(struct driver *d)
{
	return fake_of(d)->ready;
}

static inline const struct driver_caps *fake_caps(struct driver *d)
{
	return &fake_of(d)->caps;
}

static inline int fake_create(
    struct driver *d, const struct driver_spec *spec, driver_alive_fn *fn, void *ctx)
{
	struct fake_req *r = fake_req(d, FAKE_CREATE, spec->id, ctx);

	r->spec = *spec;
	r->fn.alive = fn;
	return 0;
}

static inline int fake_destroy(struct driver *d, const char *id, driver_done_fn *fn, void *ctx)
{
	fake_req(d, FAKE_DESTROY, id, ctx)->fn.done = fn;
	return 0;
}

static inline int fake_adopt(struct driver *d, const char *id, const struct driver_evidence *ev,
    driver_alive_fn *fn, void *ctx)
{
	struct fake_req *r = fake_req(d, FAKE_ADOPT, id, ctx);

	r->ev = *ev;
	r->fn.alive = fn;
	return 0;
}

static inline int fake_inspect(struct driver *d, const char *id, driver_status_fn *fn, void *ctx)
{
	fake_req(d, FAKE_INSPECT, id, ctx)->fn.status = fn;
	return 0;
}

static inline int fake_list(struct driver *d, driver_list_fn *fn, void *ctx)
{
	fake_req(d, FAKE_LIST, "", ctx)->fn.list = fn;
	return 0;
}

static inline bool fake_is_vm(const struct fake_driver *f)
{
	return strcmp(f->base.ops->isolation, "vm") == 0;
}

/* Boxes are of who made them; what an earlier driver made says its isolation too. */
static inline bool fake_has(struct driver *d, const char *id)
{
	const struct fake_box *b = fake_find(fake_of(d)->m, id);

	return b && (strcmp(b->spec.isolation, "vm") == 0) == fake_is_vm(fake_of(d));
}

static inline void fake_about(struct driver *d, struct driver_about *ret)
{
	if (!fake_of(d)->m->no_vm) {
		memcpy(ret->accelerator, "tcg", 4);
		return;
	}
	ret->available = false;
	(void)snprintf(ret->reason, sizeof(ret->reason),
	    "qemu-system-x86_64 is not installed: apt-get install qemu-system-x86");
}

static inline size_t fake_makings(struct driver *d, struct driver_making *v, size_t max)
{
	if (!fake_of(d)->m->making.percent || max == 0)
		return 0;
	*v = fake_of(d)->m->making;
	return 1;
}

static inline int fake_hold(struct driver *d, const char *id, driver_done_fn *fn, void *ctx)
{
	fake_req(d, FAKE_HOLD, id, ctx)->fn.done = fn;
	return 0;
}

static inline int fake_take(struct driver *d, const char *id, driver_done_fn *fn, void *ctx)
{
	fake_req(d, FAKE_TAKE, id, ctx)->fn.done = fn;
	return 0;
}

static inline int fake_freeze(struct driver *d, const char *id, driver_done_fn *fn, void *ctx)
{
	fake_req(d, FAKE_FREEZE, id, ctx)->fn.done = fn;
	return 0;
}

static inline int fake_thaw(struct driver *d, const char *id, driver_done_fn *fn, void *ctx)
{
	fake_req(d, FAKE_THAW, id, ctx)->fn.done = fn;
	return 0;
}

static inline int fake_snapshot(struct driver *d, const char *id, const char *template_id,
    bool stop, driver_snapshot_fn *fn, void *ctx)
{
	struct fake_req *r = fake_req(d, FAKE_SNAPSHOT, id, ctx);

	(void)stop;
	memcpy(r->template_id, template_id, strnlen(template_id, AV_ID_LEN));
	r->fn.snapshot = fn;
	return 0;
}

static inline int fake_template_delete(
    struct driver *d, const char *template_id, driver_done_fn *fn, void *ctx)
{
	struct fake_req *r = fake_req(d, FAKE_TEMPLATE_DELETE, "", ctx);

	memcpy(r->template_id, template_id, strnlen(template_id, AV_ID_LEN));
	r->fn.done = fn;
	return 0;
}

static inline int fake_template_list(struct driver *d, driver_list_fn *fn, void *ctx)
{
	fake_req(d, FAKE_TEMPLATE_LIST, "", ctx)->fn.list = fn;
	return 0;
}

static inline int fake_agent_connect(
    struct driver *d, const char *id, int *ret_fd, struct av_err *err)
{
	struct fake_driver *f = fake_of(d);
	int fd = f->connect ? f->connect(id) : -1;

	if (fd < 0)
		return av_err_set(err, AV_ERR_AGENT, "no agent here");
	*ret_fd = fd;
	return 0;
}

static inline void fake_close(struct driver *d, void (*on_closed)(void *ctx), void *ctx)
{
	struct fake_driver *f = fake_of(d);

	f->on_closed = on_closed;
	f->on_closed_ctx = ctx;
	av_timer_start(&f->timer, 0);
}

static inline void fake_alive(struct fake_driver *f, struct fake_req *r, struct fake_box *b)
{
	struct driver_evidence ev = {.pid = b->pid, .start_ticks = (uint64_t)b->pid};

	memcpy(ev.boot_id, f->m->boot_id, sizeof(ev.boot_id));
	r->fn.alive(r->ctx, &ev, av_pidfd_open(b->pid), NULL);
}

static inline void fake_answer_list(struct fake_driver *f, struct fake_req *r)
{
	char(*ids)[AV_ID_SIZE] = calloc(4096, sizeof(*ids));
	struct fake_box *b;
	size_t n = 0;

	AV_LIST_FOREACH(b, &f->m->boxes, struct fake_box, link)
	memcpy(ids[n++], b->id, AV_ID_SIZE);
	r->fn.list(r->ctx, (const char(*)[AV_ID_SIZE])ids, n, NULL);
	free(ids);
}

static inline void fake_answer_freezer(struct fake_driver *f, struct fake_req *r)
{
	enum av_err_kind fail = r->op == FAKE_FREEZE ? f->m->fail_freeze : f->m->fail_thaw;
	struct fake_box *b = fake_find(f->m, r->id);
	struct av_err err;

	if (fail || !b) {
		(void)av_err_set(&err, fail ? fail : AV_ERR_NOT_FOUND, "made to fail");
		r->fn.done(r->ctx, &err);
		return;
	}
	b->frozen = r->op == FAKE_FREEZE;
	r->fn.done(r->ctx, NULL);
}

static inline char *fake_template(struct fake_machine *m, const char *id)
{
	for (size_t i = 0; i < AV_ARRAY_LEN(m->templates); i++)
		if (strcmp(m->templates[i], id) == 0)
			return m->templates[i];
	return NULL;
}

static inline void fake_answer_snapshot(struct fake_driver *f, struct fake_req *r)
{
	struct driver_snapshot snap = {.seal = {1}, .parent = "host", .bytes = 4096, .depth = 1};
	struct fake_box *b = fake_find(f->m, r->id);
	char *place = fake_template(f->m, "");
	struct av_err err;

	if (f->m->fail_snapshot || !b || !place) {
		(void)av_err_set(&err, f->m->fail_snapshot ? f->m->fail_snapshot : AV_ERR_NOT_FOUND,
		    "made to fail");
		r->fn.snapshot(r->ctx, NULL, &err);
		return;
	}
	if (fake_is_vm(f)) {
		snap.memory_bytes = b->spec.memory_bytes;
		snap.vcpus = (b->spec.cpu_milli + 999) / 1000;
	}
	if (strcmp(b->spec.template_id, "host") != 0)
		memcpy(snap.parent, b->spec.template_id, sizeof(snap.parent));
	memcpy(place, r->template_id, AV_ID_SIZE);
	memcpy(snap.seal + 1, place, 8);
	r->fn.snapshot(r->ctx, &snap, NULL);
}

static inline void fake_answer_templates(struct fake_driver *f, struct fake_req *r)
{
	char ids[16][AV_ID_SIZE];
	size_t n = 0;

	for (size_t i = 0; i < AV_ARRAY_LEN(f->m->templates); i++)
		if (f->m->templates[i][0])
			memcpy(ids[n++], f->m->templates[i], AV_ID_SIZE);
	r->fn.list(r->ctx, (const char(*)[AV_ID_SIZE])ids, n, NULL);
}

static inline void fake_answer(struct fake_driver *f, struct fake_req *r)
{
	struct fake_box *b = fake_find(f->m, r->id);
	struct driver_status st = {0};
	struct av_err err;

	switch (r->op) {
	case FAKE_CREATE:
		if (f->m->fail_create) {
			(void)av_err_set(&err, f->m->fail_create, "made to fail");
			r->fn.alive(r->ctx, NULL, -1, &err);
			break;
		}
		f->m->created++;
		b = fake_box_new(f->m, r->id);
		b->spec = f->m->last_spec = r->spec;
		fake_alive(f, r, b);
		break;
	case FAKE_DESTROY:
		if (f->m->fail_destroy) {
			(void)av_err_set(&err, f->m->fail_destroy, "made to fail");
			r->fn.done(r->ctx, &err);
			break;
		}
		if (b) {
			fake_box_free(b);
			f->m->destroyed++;
		}
		r->fn.done(r->ctx, NULL);
		break;
	case FAKE_ADOPT:
		if (!b || b->pid != r->ev.pid || kill(b->pid, 0) < 0) {
			(void)av_err_set(&err, AV_ERR_NOT_FOUND, "it is gone");
			r->fn.alive(r->ctx, NULL, -1, &err);
			break;
		}
		f->m->adopted++;
		fake_alive(f, r, b);
		break;
	case FAKE_INSPECT:
		st.oom_kills = b ? b->oom_kills : 0;
		st.frozen = b && b->frozen;
		if (!b)
			(void)av_err_set(&err, AV_ERR_NOT_FOUND, "nothing there");
		r->fn.status(r->ctx, b ? &st : NULL, b ? NULL : &err);
		break;
	case FAKE_LIST:
		fake_answer_list(f, r);
		break;
	case FAKE_FREEZE:
	case FAKE_THAW:
		fake_answer_freezer(f, r);
		break;
	case FAKE_SNAPSHOT:
		fake_answer_snapshot(f, r);
		break;
	case FAKE_TEMPLATE_DELETE:
		if (fake_template(f->m, r->template_id))
			fake_template(f->m, r->template_id)[0] = '\0';
		r->fn.done(r->ctx, NULL);
		break;
	case FAKE_TEMPLATE_LIST:
		fake_answer_templates(f, r);
		break;
	case FAKE_HOLD:
	case FAKE_TAKE:
		if (!b)
			(void)av_err_set(&err, AV_ERR_NOT_FOUND, "nothing there");
		else
			b->held = r->op == FAKE_HOLD;
		f->m->taken += b && !b->held;
		r->fn.done(r->ctx, b ? NULL : &err);
		break;
	}
}

static inline void fake_cancel_all(struct fake_driver *f)
{
	struct fake_req *r;
	struct av_err err;

	(void)av_err_set(&err, AV_ERR_CANCELED, "closing");
	while ((r = AV_LIST_FIRST(&f->reqs, struct fake_req, link))) {
		av_list_remove(&r->link);
		if (r->op == FAKE_CREATE || r->op == FAKE_ADOPT)
			r->fn.alive(r->ctx, NULL, -1, &err);
		else if (r->op == FAKE_SNAPSHOT)
			r->fn.snapshot(r->ctx, NULL, &err);
		else if (r->op == FAKE_DESTROY || r->op == FAKE_FREEZE || r->op == FAKE_THAW ||
		         r->op == FAKE_TEMPLATE_DELETE || r->op == FAKE_HOLD || r->op == FAKE_TAKE)
			r->fn.done(r->ctx, &err);
		else if (r->op == FAKE_INSPECT)
			r->fn.status(r->ctx, NULL, &err);
		else
			r->fn.list(r->ctx, NULL, 0, &err);
		free(r);
	}
}

static inline void fake_on_timer(void *ctx)
{
	struct fake_driver *f = ctx;
	struct fake_req *r;

	if (f->on_closed) {
		void (*on_closed)(void *c) = f->on_closed;
		void *closed_ctx = f->on_closed_ctx;

		fake_cancel_all(f);
		av_timer_stop(&f->timer);
		free(f);
		on_closed(closed_ctx);
		return;
	}
	if (f->ready && !f->was_ready) {
		f->was_ready = true;
		if (f->base.on_ready)
			f->base.on_ready(f->base.on_ready_ctx);
	}
	if (f->m->hold || !f->ready)
		return;
	r = AV_LIST_FIRST(&f->reqs, struct fake_req, link);
	if (!r)
		return;
	av_list_remove(&r->link);
	av_timer_start(&f->timer, 0);
	fake_answer(f, r);
	free(r);
}

static const struct driver_ops fake_ops = {
    .isolation = "jail",
    .is_ready = fake_is_ready,
    .caps = fake_caps,
    .create = fake_create,
    .destroy = fake_destroy,
    .adopt = fake_adopt,
    .inspect = fake_inspect,
    .list = fake_list,
    .freeze = fake_freeze,
    .thaw = fake_thaw,
    .snapshot = fake_snapshot,
    .template_delete = fake_template_delete,
    .template_list = fake_template_list,
    .agent_connect = fake_agent_connect,
    .close = fake_close,
};

static const struct driver_ops fake_vm_ops = {
    .isolation = "vm",
    .is_ready = fake_is_ready,
    .caps = fake_caps,
    .about = fake_about,
    .has = fake_has,
    .create = fake_create,
    .hold = fake_hold,
    .take = fake_take,
    .makings = fake_makings,
    .destroy = fake_destroy,
    .adopt = fake_adopt,
    .inspect = fake_inspect,
    .list = fake_list,
    .freeze = fake_freeze,
    .thaw = fake_thaw,
    .snapshot = fake_snapshot,
    .agent_connect = fake_agent_connect,
    .close = fake_close,
};

static inline void fake_machine_init(struct fake_machine *m, const char *boot_id)
{
	memset(m, 0, sizeof(*m));
	av_list_init(&m->boxes);
	memcpy(m->boot_id, boot_id, strlen(boot_id));
}

static inline void fake_machine_clear(struct fake_machine *m)
{
	struct fake_box *b;

	while ((b = AV_LIST_FIRST(&m->boxes, struct fake_box, link)))
		fake_box_free(b);
}

/* Goes on after hold or ready was changed. */
static inline void fake_kick(struct fake_driver *f)
{
	av_timer_start(&f->timer, 0);
}

static inline struct fake_driver *fake_driver_new(struct av_loop *loop, struct fake_machine *m)
{
	struct fake_driver *f = calloc(1, sizeof(*f));

	f->base.ops = &fake_ops;
	f->m = m;
	f->ready = true;
	f->caps.flags = DRIVER_FREEZE;
	f->caps.host_cpus = 4;
	f->caps.host_memory_bytes = 8ULL << 30;
	memcpy(f->caps.boot_id, m->boot_id, sizeof(m->boot_id));
	av_list_init(&f->reqs);
	av_timer_init(&f->timer, loop, fake_on_timer, f);
	av_timer_start(&f->timer, 0);
	return f;
}

/* Machines with a kernel of their own, on the same machine. */
static inline struct fake_driver *fake_vm_driver_new(struct av_loop *loop, struct fake_machine *m)
{
	struct fake_driver *f = fake_driver_new(loop, m);

	f->base.ops = &fake_vm_ops;
	f->caps.flags |= DRIVER_MEMORY_SNAPSHOT;
	return f;
}
