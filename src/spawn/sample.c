/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sample.c - SAMPLE: CPU time, memory and disk of many sandboxes in one packet
 *
 * Theory of operation. Sandboxes carry numbers in the order in which they came into the table, and
 * a page goes on after the number that the last one ended with: what comes or goes between two
 * pages neither hides nor repeats another one. The place of the last page is remembered, so that
 * going through n sandboxes costs n steps; another order of questions only costs a search.
 *
 * What is read also says who is busy (confine.h).
 *
 * Descriptors stay open as long as the limit of open files is far away; beyond, they are opened for
 * each sample. Disks are read in turns, a part of them with each tick.
 */
#include "spawn/sandbox.h"

#include <string.h>

#include "base/avtime.h"
#include "base/banned.h"

#define FILES_SPARE 512 /* creates and connections need some */

void sample_add(struct sandbox *s)
{
	struct spawner *sp = s->sp;
	s->number = ++sp->last_number;
	av_list_append(&sp->numbered, &s->numbered);
	if (!sp->sample_at && sp->sample_after)
		sp->sample_at = s;
}

static struct sandbox *after(struct sandbox *s)
{
	struct av_list *next = s->numbered.next;
	return next == &s->sp->numbered ? NULL : AV_CONTAINER_OF(next, struct sandbox, numbered);
}

void sample_remove(struct sandbox *s)
{
	if (s->sp->sample_at == s)
		s->sp->sample_at = after(s);
	av_list_remove(&s->numbered);
	cgroup_reader_close(&s->reader);
	confine_forget(&s->sp->confine, &s->confined);
}

static struct sandbox *first_after(struct spawner *sp, uint64_t number)
{
	struct sandbox *s;
	if (number && number == sp->sample_after)
		return sp->sample_at;
	AV_LIST_FOREACH(s, &sp->numbered, struct sandbox, numbered)
	if (s->number > number)
		return s;
	return NULL;
}

static bool read_one(struct sandbox *s, uint32_t tick, struct spawn_sample *e)
{
	struct spawner *sp = s->sp;
	struct cgroup_sample cg;

	*e = (struct spawn_sample){0};
	if (cgroups_sample(sp->cgroups, s->id, &s->reader, &cg) == 0) {
		e->cpu_usec = cg.cpu_usec;
		e->memory_bytes = cg.memory_bytes;
		if (cg.has_cpu)
			confine_note(&sp->confine, s->id, &s->confined, cg.cpu_usec, av_mono_ns());
		e->flags = (cg.has_cpu ? (uint32_t)SPAWN_SAMPLED_CPU : 0) |
		           (cg.has_memory ? (uint32_t)SPAWN_SAMPLED_MEMORY : 0);
	}
	if (!e->flags || 3 * sp->sandboxes.n + FILES_SPARE > sp->files_max)
		cgroup_reader_close(&s->reader);
	if (!s->disk_known || (s->number + tick) % SPAWN_SAMPLE_DISK_TICKS == 0)
		s->disk_known = disk_sample(sp->disk, s->id, &s->disk_used_bytes) == 0;
	if (s->disk_known) {
		e->disk_used_bytes = s->disk_used_bytes;
		e->flags |= SPAWN_SAMPLED_DISK;
	}
	memcpy(e->id, s->id, sizeof(s->id));
	return e->flags != 0;
}

void sandbox_sample(
    struct spawner *sp, const struct spawn_sample_request *q, struct spawn_sample_reply *ret)
{
	struct sandbox *s = first_after(sp, q->after);
	uint64_t last = q->after;

	static_assert(sizeof(s->id) <= sizeof(ret->entries[0].id), "an id fits");
	ret->mono_ns = av_mono_ns();
	for (; s && ret->count < SPAWN_SAMPLE_MAX; s = after(s)) {
		last = s->number;
		if (s->pidfd >= 0 && s->state == SANDBOX_IDLE &&
		    read_one(s, q->tick, &ret->entries[ret->count]))
			ret->count++;
	}
	sp->sample_at = s;
	sp->sample_after = last;
	ret->next = s ? last : 0;
}
