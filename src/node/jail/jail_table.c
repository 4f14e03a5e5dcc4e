/* SPDX-License-Identifier: Apache-2.0 */
/*
 * jail_table.c - what the node asks of the jail driver, as requests for the worker (see jail.c)
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/avtime.h"
#include "base/fd.h"
#include "base/path.h"
#include "node/jail/jail_internal.h"

#include "base/banned.h"

static struct jail_req *req_new(struct jail *j, uint32_t op, const char *id, void *ctx)
{
	struct jail_req *r = j->on_closed ? NULL : calloc(1, sizeof(*r));

	if (!r)
		return NULL;
	r->wire.op = op;
	r->ctx = ctx;
	r->since_ms = av_loop_now_ms(j->loop);
	r->queued_ns = av_mono_ns();
	static_assert(AV_ID_SIZE <= SPAWN_ID_SIZE, "an id fits");
	if (av_str_copy(r->wire.id, sizeof(r->wire.id), av_str_c(id)) < 0)
		r->wire.id[0] = '\0'; /* the worker refuses it */
	av_list_append(&j->waiting, &r->link);
	av_defer_start(&j->pump, j->loop);
	return r;
}

static bool jail_is_ready(struct driver *d)
{
	return to_jail(d)->ready;
}

static const struct driver_caps *jail_caps(struct driver *d)
{
	return &to_jail(d)->caps;
}

static int jail_create(
    struct driver *d, const struct driver_spec *spec, driver_alive_fn *fn, void *ctx)
{
	struct jail_req *r;

	assert(spec);
	r = req_new(to_jail(d), SPAWN_CREATE, spec->id, ctx);
	if (!r)
		return -ENOMEM;
	r->fn.alive = fn;
	if (av_str_copy(
	        r->wire.u.create.template_id, SPAWN_TEMPLATE_SIZE, av_str_c(spec->template_id)) < 0)
		r->wire.u.create.template_id[0] = '\0';
	static_assert(sizeof(spec->template_seal) == SPAWN_SEAL_SIZE, "same size on both sides");
	memcpy(r->wire.u.create.template_seal, spec->template_seal, SPAWN_SEAL_SIZE);
	r->wire.u.create.memory_bytes = spec->memory_bytes;
	r->wire.u.create.disk_bytes = spec->disk_bytes;
	r->wire.u.create.cpu_milli = spec->cpu_milli;
	r->wire.u.create.pids_max = spec->pids_max;
	r->wire.u.create.flags = (spec->sudo ? 0u : SPAWN_CREATE_NO_SUDO) |
	                         (spec->internet ? SPAWN_CREATE_INTERNET : 0u);
	return 0;
}

static int jail_simple(struct driver *d, uint32_t op, const char *id, driver_done_fn *fn, void *ctx)
{
	struct jail_req *r = req_new(to_jail(d), op, id, ctx);

	if (!r)
		return -ENOMEM;
	r->fn.done = fn;
	return 0;
}

static int jail_destroy(struct driver *d, const char *id, driver_done_fn *fn, void *ctx)
{
	return jail_simple(d, SPAWN_DESTROY, id, fn, ctx);
}

static int jail_freeze(struct driver *d, const char *id, driver_done_fn *fn, void *ctx)
{
	return jail_simple(d, SPAWN_FREEZE, id, fn, ctx);
}

static int jail_thaw(struct driver *d, const char *id, driver_done_fn *fn, void *ctx)
{
	return jail_simple(d, SPAWN_THAW, id, fn, ctx);
}

static int jail_adopt(struct driver *d, const char *id, const struct driver_evidence *ev,
    driver_alive_fn *fn, void *ctx)
{
	struct jail_req *r = req_new(to_jail(d), SPAWN_ADOPT, id, ctx);

	if (!r)
		return -ENOMEM;
	r->fn.alive = fn;
	r->wire.u.adopt.pid = (int32_t)ev->pid;
	r->wire.u.adopt.start_ticks = ev->start_ticks;
	r->wire.u.adopt.pidns_ino = ev->pidns_inode;
	memcpy(r->boot_id, ev->boot_id, sizeof(r->boot_id));
	return 0;
}

static int jail_inspect(struct driver *d, const char *id, driver_status_fn *fn, void *ctx)
{
	struct jail_req *r = req_new(to_jail(d), SPAWN_INSPECT, id, ctx);

	if (!r)
		return -ENOMEM;
	r->fn.status = fn;
	return 0;
}

static int jail_list(struct driver *d, driver_list_fn *fn, void *ctx)
{
	struct jail_req *r = req_new(to_jail(d), SPAWN_LIST, "", ctx);

	if (!r)
		return -ENOMEM;
	r->fn.list = fn;
	return 0;
}

static int jail_sample(struct driver *d, driver_samples_fn *fn, void *ctx)
{
	struct jail_req *r = req_new(to_jail(d), SPAWN_SAMPLE, "", ctx);

	if (!r)
		return -ENOMEM;
	r->fn.samples = fn;
	r->wire.u.sample.tick = to_jail(d)->tick++;
	return 0;
}

static void jail_stats(struct driver *d, struct driver_stats *ret)
{
	const struct jail *j = to_jail(d);

	*ret = j->stats;
	ret->sent = j->n_sent;
	ret->sent_max = JAIL_PIPELINE_MAX;
	for (const struct av_list *p = j->waiting.next; p != &j->waiting; p = p->next)
		ret->waiting++;
}

static int jail_helper(struct driver *d, driver_helper_fn *fn, void *ctx)
{
	struct jail_req *r = req_new(to_jail(d), SPAWN_STATS, "", ctx);

	if (!r)
		return -ENOMEM;
	r->fn.helper = fn;
	return 0;
}

static int set_template(struct jail_req *r, const char *id)
{
	return av_str_copy(r->wire.u.template.template_id, SPAWN_TEMPLATE_SIZE, av_str_c(id));
}

static int jail_snapshot(struct driver *d, const char *id, const char *template_id, bool stop,
    driver_snapshot_fn *fn, void *ctx)
{
	struct jail_req *r = req_new(to_jail(d), SPAWN_SNAPSHOT, id, ctx);

	if (!r)
		return -ENOMEM;
	r->fn.snapshot = fn;
	if (set_template(r, template_id) < 0)
		r->wire.id[0] = '\0'; /* the worker refuses it */
	r->wire.u.template.flags = stop ? (uint32_t)SPAWN_SNAPSHOT_KILL : 0;
	return 0;
}

static int jail_template_delete(
    struct driver *d, const char *template_id, driver_done_fn *fn, void *ctx)
{
	struct jail_req *r = req_new(to_jail(d), SPAWN_TEMPLATE_DELETE, "", ctx);

	if (!r)
		return -ENOMEM;
	r->fn.done = fn;
	if (set_template(r, template_id) < 0)
		r->wire.u.template.template_id[0] = '\0'; /* the worker refuses it */
	return 0;
}

static int jail_template_list(struct driver *d, driver_list_fn *fn, void *ctx)
{
	struct jail_req *r = req_new(to_jail(d), SPAWN_TEMPLATE_LIST, "", ctx);

	if (!r)
		return -ENOMEM;
	r->fn.list = fn;
	return 0;
}

static int jail_template_export(
    struct driver *d, const char *template_id, driver_stream_fn *fn, void *ctx)
{
	struct jail_req *r = req_new(to_jail(d), SPAWN_TEMPLATE_EXPORT, "", ctx);

	if (!r)
		return -ENOMEM;
	r->fn.stream = fn;
	if (set_template(r, template_id) < 0)
		r->wire.u.template.template_id[0] = '\0'; /* the worker refuses it */
	return 0;
}

static int jail_export_end(const void *bytes, struct av_err *err)
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
	return av_err_set(err, jail_error_kind(SPAWN_TEMPLATE_EXPORT, end.error), "%s",
	    end.text[0] ? end.text : strerror(end.error));
}

static int jail_agent_connect(struct driver *d, const char *id, int *ret_fd, struct av_err *err)
{
	const struct jail *j = to_jail(d);
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	AV_CLEANUP(av_closep) int fd = -1;

	if (av_path_printf(
	        addr.sun_path, sizeof(addr.sun_path), "%s/%s/agent.sock", j->run_dir, id) < 0)
		return av_err_set(
		    err, AV_ERR_INTERNAL, "the path of the agent's socket is too long");
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return av_err_sys(err, AV_ERR_INTERNAL, errno, "cannot make a socket");
	/* A unix socket connects at once or not at all: EAGAIN means that its queue is full. */
	if (connect(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0)
		return av_err_sys(err, AV_ERR_AGENT, errno,
		    errno == EAGAIN ? "the sandbox's agent does not take connections"
		                    : "cannot connect to the sandbox's agent");
	*ret_fd = AV_TAKE_FD(fd);
	return 0;
}

static void jail_close(struct driver *d, void (*on_closed)(void *ctx), void *ctx)
{
	struct jail *j = to_jail(d);

	j->on_closed = on_closed;
	j->on_closed_ctx = ctx;
	j->base.on_ready = NULL;
	av_defer_start(&j->pump, j->loop);
}

const struct driver_ops jail_table = {
    .isolation = "jail",
    .is_ready = jail_is_ready,
    .caps = jail_caps,
    .create = jail_create,
    .destroy = jail_destroy,
    .adopt = jail_adopt,
    .inspect = jail_inspect,
    .list = jail_list,
    .sample = jail_sample,
    .stats = jail_stats,
    .helper = jail_helper,
    .freeze = jail_freeze,
    .thaw = jail_thaw,
    .snapshot = jail_snapshot,
    .template_delete = jail_template_delete,
    .template_list = jail_template_list,
    .template_export = jail_template_export,
    .export_end = jail_export_end,
    .agent_connect = jail_agent_connect,
    .close = jail_close,
};
