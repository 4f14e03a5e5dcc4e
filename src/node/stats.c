/* SPDX-License-Identifier: Apache-2.0 */
/*
 * stats.c - what the node counts, for /metrics
 */
#include <errno.h>

#include "node/node_internal.h"

#include "base/banned.h"

static void add_driver(struct driver_stats *sum, struct driver *d)
{
	struct driver_stats s = {0};

	if (!d->ops->stats)
		return;
	d->ops->stats(d, &s);
	sum->waiting += s.waiting;
	sum->sent += s.sent;
	sum->sent_max += s.sent_max;
	sum->reconnects += s.reconnects;
	av_hist_merge(&sum->queue, &s.queue);
	av_hist_merge(&sum->helper, &s.helper);
	av_hist_merge(&sum->child, &s.child);
}

void node_get_stats(const struct node *n, struct node_stats *ret)
{
	const struct node_sandbox *sb;
	size_t pos = 0;

	*ret = n->stats;
	ret->sandboxes = n->sandboxes.n;
	ret->requests = n->n_wraps;
	ret->tunnels_max = TUNNELS_MAX;
	while ((sb = av_map_next(&n->sandboxes, &pos))) {
		for (size_t i = 0; i < LINK_COUNT; i++)
			ret->connections += sb->links[i].conn != NULL;
		ret->conversations += sb->n_convs;
		ret->tunnels += sb->n_tunnels;
	}
	for (size_t i = 0; i < n->n_drivers; i++)
		add_driver(&ret->driver, n->drivers[i]);
}
