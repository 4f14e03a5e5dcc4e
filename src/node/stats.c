/* SPDX-License-Identifier: Apache-2.0 */
/*
 * stats.c - what the node counts, for /metrics
 */
#include <errno.h>

#include "node/node_internal.h"

#include "base/banned.h"

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
	if (n->driver->ops->stats)
		n->driver->ops->stats(n->driver, &ret->driver);
}

int node_helper(struct node *n, driver_helper_fn *fn, void *ctx)
{
	if (!n->driver->ops->helper)
		return -EOPNOTSUPP;
	return n->closing ? -ENOMEM : n->driver->ops->helper(n->driver, fn, ctx);
}
