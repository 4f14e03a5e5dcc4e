/* SPDX-License-Identifier: Apache-2.0 */
/*
 * stats.c - STATS: what the worker uses and has to do
 */
#include <string.h>

#include "base/self.h"
#include "spawn/sandbox.h"
#include "base/banned.h"

void sandbox_stats(struct spawner *sp, struct spawn_stats_reply *ret)
{
	const struct sandbox *s;
	struct av_self self;

	av_self_read(sp->mounts.proc_fd, &self);
	if (!sp->start_ms)
		sp->start_ms = av_self_start_ms(&self);
	*ret = (struct spawn_stats_reply){
	    .resident_bytes = self.resident_bytes,
	    .cpu_usec = self.cpu_usec,
	    .open_fds = self.open_fds,
	    .max_fds = self.max_fds,
	    .start_ms = sp->start_ms,
	    .disk_free_bytes = disk_free_bytes(sp->disk),
	    .sandboxes = (uint32_t)sp->sandboxes.n,
	    .slots_max = SPAWN_SLOTS,
	    .trash = disk_trash_count(sp->disk),
	};
	AV_LIST_FOREACH(s, &sp->numbered, const struct sandbox, numbered)
	{
		ret->creating += s->state == SANDBOX_CREATING;
		ret->destroying += s->state == SANDBOX_DESTROYING;
		ret->snapshotting += s->state == SANDBOX_SNAPSHOTTING;
		ret->freezing += s->state == SANDBOX_FREEZING;
	}
}
