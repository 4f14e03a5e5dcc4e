/* SPDX-License-Identifier: Apache-2.0 */
/*
 * jail.c - the jail driver: what the node asks, as requests for the worker of aviary-spawn
 */
#include "node/jail/jail.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>

#include "base/macros.h"
#include "node/worker/worker.h"

#include "base/banned.h"

struct jail {
	struct driver base;
	struct worker *worker; /* owned */
	void (*on_closed)(void *ctx);
	void *on_closed_ctx;
};

static struct worker *of(struct driver *d)
{
	return AV_CONTAINER_OF(d, struct jail, base)->worker;
}

static bool jail_is_ready(struct driver *d)
{
	return worker_is_ready(of(d));
}

static const struct driver_caps *jail_caps(struct driver *d)
{
	return worker_caps(of(d));
}

static int jail_create(
    struct driver *d, const struct driver_spec *spec, driver_alive_fn *fn, void *ctx)
{
	struct spawn_create create;

	worker_fill_create(&create, spec);
	return worker_create(of(d), spec->id, &create, fn, ctx);
}

static int jail_destroy(struct driver *d, const char *id, driver_done_fn *fn, void *ctx)
{
	return worker_destroy(of(d), id, fn, ctx);
}

static int jail_freeze(struct driver *d, const char *id, driver_done_fn *fn, void *ctx)
{
	return worker_freeze(of(d), id, fn, ctx);
}

static int jail_thaw(struct driver *d, const char *id, driver_done_fn *fn, void *ctx)
{
	return worker_thaw(of(d), id, fn, ctx);
}

static int jail_adopt(struct driver *d, const char *id, const struct driver_evidence *ev,
    driver_alive_fn *fn, void *ctx)
{
	return worker_adopt(of(d), id, ev, fn, ctx);
}

static int jail_inspect(struct driver *d, const char *id, driver_status_fn *fn, void *ctx)
{
	return worker_inspect(of(d), id, fn, ctx);
}

static int jail_list(struct driver *d, driver_list_fn *fn, void *ctx)
{
	return worker_list(of(d), fn, ctx);
}

static int jail_sample(struct driver *d, driver_samples_fn *fn, void *ctx)
{
	return worker_sample(of(d), fn, ctx);
}

static void jail_stats(struct driver *d, struct driver_stats *ret)
{
	worker_stats(of(d), ret);
}

static int jail_helper(struct driver *d, driver_helper_fn *fn, void *ctx)
{
	return worker_helper(of(d), fn, ctx);
}

static int jail_snapshot(struct driver *d, const char *id, const char *template_id, bool stop,
    driver_snapshot_fn *fn, void *ctx)
{
	return worker_snapshot(
	    of(d), id, template_id, stop ? (uint32_t)SPAWN_SNAPSHOT_KILL : 0, 0, fn, ctx);
}

static int jail_template_delete(
    struct driver *d, const char *template_id, driver_done_fn *fn, void *ctx)
{
	return worker_template_delete(of(d), template_id, fn, ctx);
}

static int jail_template_list(struct driver *d, driver_list_fn *fn, void *ctx)
{
	return worker_template_list(of(d), false, fn, ctx);
}

static int jail_template_export(
    struct driver *d, const char *template_id, driver_stream_fn *fn, void *ctx)
{
	return worker_template_export(of(d), template_id, fn, ctx);
}

static int jail_agent_connect(struct driver *d, const char *id, int *ret_fd, struct av_err *err)
{
	return worker_connect(
	    of(d), id, "agent.sock", SOCK_STREAM, "the sandbox's agent", ret_fd, err);
}

static void on_worker_closed(void *ctx)
{
	struct jail *j = ctx;
	void (*on_closed)(void *c) = j->on_closed;
	void *closed_ctx = j->on_closed_ctx;

	free(j);
	on_closed(closed_ctx);
}

static void jail_close(struct driver *d, void (*on_closed)(void *ctx), void *ctx)
{
	struct jail *j = AV_CONTAINER_OF(d, struct jail, base);

	j->on_closed = on_closed;
	j->on_closed_ctx = ctx;
	j->base.on_ready = NULL;
	worker_close(j->worker, on_worker_closed, j);
}

static const struct driver_ops table = {
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
    .export_end = worker_export_end,
    .agent_connect = jail_agent_connect,
    .close = jail_close,
};

static void on_worker_ready(void *ctx)
{
	struct jail *j = ctx;

	if (j->base.on_ready)
		j->base.on_ready(j->base.on_ready_ctx);
}

int jail_driver_new(const struct jail_config *config, struct driver **ret, struct av_err *err)
{
	struct jail *j = calloc(1, sizeof(*j));
	const struct worker_config wc = {
	    .loop = config->loop,
	    .spawn_socket = config->spawn_socket,
	    .run_dir = config->run_dir,
	    .on_ready = on_worker_ready,
	    .ctx = j,
	};
	int r;

	if (!j)
		return av_err_set(err, AV_ERR_NO_MEMORY, "out of memory");
	r = worker_new(&wc, &j->worker, err);
	if (r < 0) {
		free(j);
		return r;
	}
	j->base.ops = &table;
	*ret = &j->base;
	return 0;
}
