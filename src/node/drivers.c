/* SPDX-License-Identifier: Apache-2.0 */
/*
 * drivers.c - which driver a sandbox is of, and what one driver is asked for all
 *
 * Theory of operation. Every isolation is a driver. Those of one machine stand on the same helper:
 * what is asked about the machine as a whole (which sandboxes there are, what they use, which
 * templates) is asked of the first alone. Whose a sandbox is says the node's table while it lives;
 * before and after, the driver that is making or keeping it; and what nobody knows, because an
 * earlier daemon made it, can be looked at and removed by the first.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "node/node_internal.h"

#include "base/banned.h"

struct driver *node_driver_for(const struct node *n, const char *isolation)
{
	if (!isolation[0])
		return n->drivers[0];
	for (size_t i = 0; i < n->n_drivers; i++)
		if (strcmp(n->drivers[i]->ops->isolation, isolation) == 0)
			return n->drivers[i];
	return NULL;
}

struct driver *node_driver_of(const struct node *n, const char *id)
{
	const struct node_sandbox *sb = av_map_get(&n->sandboxes, av_str_c(id));

	if (sb)
		return sb->driver;
	for (size_t i = 0; i < n->n_drivers; i++)
		if (n->drivers[i]->ops->has && n->drivers[i]->ops->has(n->drivers[i], id))
			return n->drivers[i];
	return n->drivers[0];
}

static void on_first_ready(void *ctx)
{
	struct node *n = ctx;

	if (n->events && !n->closing)
		n->events->on_ready(n->events_ctx);
}

void node_drivers_take(struct node *n, struct driver *const drivers[static NODE_DRIVERS_MAX])
{
	while (n->n_drivers < NODE_DRIVERS_MAX && drivers[n->n_drivers]) {
		n->drivers[n->n_drivers] = drivers[n->n_drivers];
		n->n_drivers++;
	}
	n->drivers[0]->on_ready = on_first_ready;
	n->drivers[0]->on_ready_ctx = n;
}

static void on_one_closed(void *ctx)
{
	struct node *n = ctx;

	if (--n->n_closing == 0)
		n->on_drivers_closed(n);
}

void node_drivers_close(struct node *n, void (*on_closed)(struct node *n))
{
	n->on_drivers_closed = on_closed;
	n->n_closing = n->n_drivers;
	for (size_t i = n->n_drivers; i-- > 0;)
		n->drivers[i]->ops->close(n->drivers[i], on_one_closed, n);
}

const char *node_isolation(const struct node *n)
{
	return n->drivers[0]->ops->isolation;
}

bool node_is_ready(const struct node *n)
{
	return n->drivers[0]->ops->is_ready(n->drivers[0]);
}

const struct driver_caps *node_caps(const struct node *n)
{
	return n->drivers[0]->ops->caps(n->drivers[0]);
}

const struct driver_caps *node_caps_of(const struct node *n, const char *isolation)
{
	struct driver *d = node_driver_for(n, isolation);

	return d ? d->ops->caps(d) : NULL;
}

size_t node_isolations(const struct node *n, struct driver_about v[static NODE_DRIVERS_MAX])
{
	for (size_t i = 0; i < n->n_drivers; i++) {
		struct driver *d = n->drivers[i];

		v[i] = (struct driver_about){.isolation = d->ops->isolation,
		    .available = true,
		    .ready = d->ops->is_ready(d)};
		if (d->ops->about)
			d->ops->about(d, &v[i]);
	}
	return n->n_drivers;
}

size_t node_makings(const struct node *n, struct driver_making *v, size_t max)
{
	size_t found = 0;

	for (size_t i = 0; i < n->n_drivers; i++) {
		struct driver *d = n->drivers[i];

		if (d->ops->makings)
			found += d->ops->makings(d, v + found, max - found);
	}
	return found;
}

/* ---- the machine as a whole ---- */

/* A list on its way. */
struct listing {
	struct node *node;
	driver_list_fn *fn;
	void *ctx;
};

static bool is_own(const struct node *n, const char *id)
{
	for (size_t i = 0; i < n->n_drivers; i++)
		if (n->drivers[i]->ops->is_own && n->drivers[i]->ops->is_own(n->drivers[i], id))
			return true;
	return false;
}

/* Without those that drivers made for themselves. */
static void on_list(void *ctx, const char (*ids)[AV_ID_SIZE], size_t n, const struct av_err *err)
{
	struct listing l = *(struct listing *)ctx;
	char(*v)[AV_ID_SIZE] = err ? NULL : calloc(n + 1, sizeof(*v));
	struct av_err no_memory;
	size_t left = 0;

	free(ctx);
	if (!err && !v) {
		(void)av_err_set(&no_memory, AV_ERR_NO_MEMORY, "out of memory");
		err = &no_memory;
	}
	for (size_t i = 0; !err && i < n; i++)
		if (!is_own(l.node, ids[i]))
			memcpy(v[left++], ids[i], AV_ID_SIZE);
	l.fn(l.ctx, v, left, err);
	free(v);
}

int node_list(struct node *n, driver_list_fn *fn, void *ctx)
{
	struct listing *l = calloc(1, sizeof(*l));
	int r;

	if (!l)
		return -ENOMEM;
	*l = (struct listing){.node = n, .fn = fn, .ctx = ctx};
	r = n->drivers[0]->ops->list(n->drivers[0], on_list, l);
	if (r < 0)
		free(l);
	return r;
}

int node_sample(struct node *n, driver_samples_fn *fn, void *ctx)
{
	struct driver *d = n->drivers[0];

	if (!d->ops->sample)
		return -EOPNOTSUPP;
	return n->closing ? -ENOMEM : d->ops->sample(d, fn, ctx);
}

int node_helper(struct node *n, driver_helper_fn *fn, void *ctx)
{
	struct driver *d = n->drivers[0];

	if (!d->ops->helper)
		return -EOPNOTSUPP;
	return n->closing ? -ENOMEM : d->ops->helper(d, fn, ctx);
}

/* ---- templates ---- */

int node_snapshot(struct node *n, const char *id, const char *template_id, bool stop,
    driver_snapshot_fn *fn, void *ctx)
{
	struct driver *d = node_driver_of(n, id);

	if (n->closing)
		return -ENOMEM;
	return d->ops->snapshot ? d->ops->snapshot(d, id, template_id, stop, fn, ctx) : -EOPNOTSUPP;
}

int node_template_delete(struct node *n, const char *template_id, node_done_fn *fn, void *ctx)
{
	struct driver *d = n->drivers[0];
	int r;

	if (n->closing)
		return -ENOMEM;
	r = d->ops->template_delete ? d->ops->template_delete(d, template_id, fn, ctx)
	                            : -EOPNOTSUPP;
	for (size_t i = 1; r == 0 && i < n->n_drivers; i++)
		if (n->drivers[i]->ops->template_gone)
			n->drivers[i]->ops->template_gone(n->drivers[i], template_id);
	return r;
}

int node_template_list(struct node *n, driver_list_fn *fn, void *ctx)
{
	struct driver *d = n->drivers[0];

	if (n->closing)
		return -ENOMEM;
	return d->ops->template_list ? d->ops->template_list(d, fn, ctx) : -EOPNOTSUPP;
}

int node_template_export(struct node *n, const char *template_id, driver_stream_fn *fn, void *ctx)
{
	struct driver *d = n->drivers[0];

	return d->ops->template_export ? d->ops->template_export(d, template_id, fn, ctx)
	                               : -EOPNOTSUPP;
}

int node_export_end(const struct node *n, const void *bytes, struct av_err *err)
{
	return n->drivers[0]->ops->export_end(bytes, err);
}
