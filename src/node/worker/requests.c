/* SPDX-License-Identifier: Apache-2.0 */
/*
 * requests.c - what drivers ask for, as requests for the worker (see worker.c)
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/avtime.h"
#include "base/fd.h"
#include "base/path.h"
#include "node/worker/worker_internal.h"

#include "base/banned.h"

static struct worker_req *req_new(struct worker *w, uint32_t op, const char *id, void *ctx)
{
	struct worker_req *r = w->on_closed ? NULL : calloc(1, sizeof(*r));

	if (!r)
		return NULL;
	r->wire.op = op;
	r->ctx = ctx;
	r->since_ms = av_loop_now_ms(w->loop);
	r->queued_ns = av_mono_ns();
	static_assert(AV_ID_SIZE <= SPAWN_ID_SIZE, "an id fits");
	if (av_str_copy(r->wire.id, sizeof(r->wire.id), av_str_c(id)) < 0)
		r->wire.id[0] = '\0'; /* the worker refuses it */
	av_list_append(&w->waiting, &r->link);
	av_defer_start(&w->pump, w->loop);
	return r;
}

bool worker_is_ready(const struct worker *w)
{
	return w->ready;
}

const struct driver_caps *worker_caps(const struct worker *w)
{
	return &w->caps;
}

const struct worker_vm *worker_vm(const struct worker *w)
{
	return &w->vm;
}

void worker_fill_create(struct spawn_create *dst, const struct driver_spec *spec)
{
	*dst = (struct spawn_create){
	    .memory_bytes = spec->memory_bytes,
	    .disk_bytes = spec->disk_bytes,
	    .cpu_milli = spec->cpu_milli,
	    .pids_max = spec->pids_max,
	    .flags = (spec->sudo ? 0u : (uint32_t)SPAWN_CREATE_NO_SUDO) |
	             (spec->internet ? (uint32_t)SPAWN_CREATE_INTERNET : 0u),
	};
	if (av_str_copy(dst->template_id, SPAWN_TEMPLATE_SIZE, av_str_c(spec->template_id)) < 0)
		dst->template_id[0] = '\0'; /* the worker refuses it */
	static_assert(sizeof(spec->template_seal) == SPAWN_SEAL_SIZE, "same size on both sides");
	memcpy(dst->template_seal, spec->template_seal, SPAWN_SEAL_SIZE);
}

int worker_create(struct worker *w, const char *id, const struct spawn_create *create,
    driver_alive_fn *fn, void *ctx)
{
	struct worker_req *r = req_new(w, SPAWN_CREATE, id, ctx);

	if (!r)
		return -ENOMEM;
	r->fn.alive = fn;
	r->wire.u.create = *create;
	return 0;
}

static int simple(struct worker *w, uint32_t op, const char *id, driver_done_fn *fn, void *ctx)
{
	struct worker_req *r = req_new(w, op, id, ctx);

	if (!r)
		return -ENOMEM;
	r->fn.done = fn;
	return 0;
}

int worker_destroy(struct worker *w, const char *id, driver_done_fn *fn, void *ctx)
{
	return simple(w, SPAWN_DESTROY, id, fn, ctx);
}

int worker_freeze(struct worker *w, const char *id, driver_done_fn *fn, void *ctx)
{
	return simple(w, SPAWN_FREEZE, id, fn, ctx);
}

int worker_thaw(struct worker *w, const char *id, driver_done_fn *fn, void *ctx)
{
	return simple(w, SPAWN_THAW, id, fn, ctx);
}

int worker_adopt(struct worker *w, const char *id, const struct driver_evidence *ev,
    driver_alive_fn *fn, void *ctx)
{
	struct worker_req *r = req_new(w, SPAWN_ADOPT, id, ctx);

	if (!r)
		return -ENOMEM;
	r->fn.alive = fn;
	r->wire.u.adopt.pid = (int32_t)ev->pid;
	r->wire.u.adopt.start_ticks = ev->start_ticks;
	r->wire.u.adopt.pidns_ino = ev->pidns_inode;
	memcpy(r->boot_id, ev->boot_id, sizeof(r->boot_id));
	return 0;
}

int worker_inspect(struct worker *w, const char *id, driver_status_fn *fn, void *ctx)
{
	struct worker_req *r = req_new(w, SPAWN_INSPECT, id, ctx);

	if (!r)
		return -ENOMEM;
	r->fn.status = fn;
	return 0;
}

int worker_list(struct worker *w, driver_list_fn *fn, void *ctx)
{
	struct worker_req *r = req_new(w, SPAWN_LIST, "", ctx);

	if (!r)
		return -ENOMEM;
	r->fn.list = fn;
	return 0;
}

int worker_sample(struct worker *w, driver_samples_fn *fn, void *ctx)
{
	struct worker_req *r = req_new(w, SPAWN_SAMPLE, "", ctx);

	if (!r)
		return -ENOMEM;
	r->fn.samples = fn;
	r->wire.u.sample.tick = w->tick++;
	return 0;
}

void worker_stats(const struct worker *w, struct driver_stats *ret)
{
	*ret = w->stats;
	ret->sent = w->n_sent;
	ret->sent_max = WORKER_PIPELINE_MAX;
	for (const struct av_list *p = w->waiting.next; p != &w->waiting; p = p->next)
		ret->waiting++;
}

int worker_helper(struct worker *w, driver_helper_fn *fn, void *ctx)
{
	struct worker_req *r = req_new(w, SPAWN_STATS, "", ctx);

	if (!r)
		return -ENOMEM;
	r->fn.helper = fn;
	return 0;
}

static int set_template(struct worker_req *r, const char *id)
{
	return av_str_copy(r->wire.u.template.template_id, SPAWN_TEMPLATE_SIZE, av_str_c(id));
}

int worker_snapshot(struct worker *w, const char *id, const char *template_id, uint32_t flags,
    uint32_t save, driver_snapshot_fn *fn, void *ctx)
{
	struct worker_req *r = req_new(w, SPAWN_SNAPSHOT, id, ctx);

	if (!r)
		return -ENOMEM;
	r->fn.snapshot = fn;
	if (set_template(r, template_id) < 0)
		r->wire.id[0] = '\0'; /* the worker refuses it */
	r->wire.u.template.flags = flags;
	r->wire.u.template.save = save;
	return 0;
}

int worker_template_delete(struct worker *w, const char *template_id, driver_done_fn *fn, void *ctx)
{
	struct worker_req *r = req_new(w, SPAWN_TEMPLATE_DELETE, "", ctx);

	if (!r)
		return -ENOMEM;
	r->fn.done = fn;
	if (set_template(r, template_id) < 0)
		r->wire.u.template.template_id[0] = '\0'; /* the worker refuses it */
	return 0;
}

int worker_template_list(struct worker *w, bool with_vm, driver_list_fn *fn, void *ctx)
{
	struct worker_req *r = req_new(w, SPAWN_TEMPLATE_LIST, "", ctx);

	if (!r)
		return -ENOMEM;
	r->fn.list = fn;
	r->with_vm = with_vm;
	return 0;
}

int worker_template_export(
    struct worker *w, const char *template_id, driver_stream_fn *fn, void *ctx)
{
	struct worker_req *r = req_new(w, SPAWN_TEMPLATE_EXPORT, "", ctx);

	if (!r)
		return -ENOMEM;
	r->fn.stream = fn;
	if (set_template(r, template_id) < 0)
		r->wire.u.template.template_id[0] = '\0'; /* the worker refuses it */
	return 0;
}

int worker_export_end(const void *bytes, struct av_err *err)
{
	struct spawn_export_end end;

	static_assert(sizeof(end) == DRIVER_EXPORT_END, "the same size on both sides");
	memcpy(&end, bytes, sizeof(end));
	if (memcmp(end.magic, SPAWN_EXPORT_MAGIC, sizeof(end.magic)) != 0)
		return av_err_set(
		    err, AV_ERR_INTERNAL, "the worker died while it read a template: try again");
	if (end.error == 0)
		return 0;
	end.text[sizeof(end.text) - 1] = '\0';
	return av_err_set(err, worker_error_kind(SPAWN_TEMPLATE_EXPORT, end.error), "%s",
	    end.text[0] ? end.text : strerror(end.error));
}

int worker_connect(const struct worker *w, const char *id, const char *name, int type,
    const char *who, int *ret_fd, struct av_err *err)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	AV_CLEANUP(av_closep) int fd = -1;

	if (av_path_printf(addr.sun_path, sizeof(addr.sun_path), "%s/%s/%s", w->run_dir, id, name) <
	    0)
		return av_err_set(
		    err, AV_ERR_INTERNAL, "the path of the socket of %s is too long", who);
	fd = socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return av_err_sys(err, AV_ERR_INTERNAL, errno, "cannot make a socket");
	/* A unix socket connects at once or not at all: EAGAIN means that its queue is full. */
	if (connect(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0)
		return av_err_sys(err, AV_ERR_AGENT, errno,
		    errno == EAGAIN ? "%s does not take connections" : "cannot connect to %s", who);
	*ret_fd = AV_TAKE_FD(fd);
	return 0;
}

void worker_close(struct worker *w, void (*on_closed)(void *ctx), void *ctx)
{
	w->on_closed = on_closed;
	w->on_closed_ctx = ctx;
	av_defer_start(&w->pump, w->loop);
}
