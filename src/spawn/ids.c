/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ids.c - ranges of user ids
 */
#include "spawn/ids.h"

#include <errno.h>
#include <linux/securebits.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "base/banned.h"

int ids_init(struct ids *ids, bool rootless, bool shared, uint32_t first)
{
	*ids = (struct ids){.next = first % SPAWN_SLOTS, .rootless = rootless, .shared = shared};
	ids_mark(ids, 0);
	if (rootless)
		return 0;
	return prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP, 0, 0, 0) < 0 ? -errno : 0;
}

void ids_mark(struct ids *ids, uint32_t slot)
{
	if (slot < SPAWN_SLOTS)
		ids->used[slot / 8] |= (uint8_t)(1u << (slot % 8));
}

void ids_release(struct ids *ids, uint32_t slot)
{
	if (slot > 0 && slot < SPAWN_SLOTS)
		ids->used[slot / 8] &= (uint8_t) ~(1u << (slot % 8));
}

int ids_take(struct ids *ids, uint32_t *ret_slot)
{
	for (uint32_t i = 0; i < SPAWN_SLOTS; i++) {
		uint32_t slot = (ids->next + i) % SPAWN_SLOTS;
		if (ids->used[slot / 8] & (1u << (slot % 8)))
			continue;
		ids_mark(ids, slot);
		ids->next = (slot + 1) % SPAWN_SLOTS;
		*ret_slot = slot;
		return 0;
	}
	return -EAGAIN;
}

uid_t ids_base(const struct ids *ids, uint32_t slot)
{
	if (ids->rootless)
		return 0;
	return SPAWN_UID_BASE + (ids->shared ? 1 : slot) * SPAWN_UID_COUNT;
}

uint32_t ids_slot_of(const struct ids *ids, uid_t uid)
{
	if (ids->rootless || ids->shared || uid < SPAWN_UID_BASE)
		return 0;
	uint32_t slot = (uid - SPAWN_UID_BASE) / SPAWN_UID_COUNT;
	return slot < SPAWN_SLOTS ? slot : 0;
}

int ids_enter(const struct ids *ids, uint32_t slot)
{
	if (ids->rootless)
		return 0;
	uid_t id = ids_base(ids, slot);
	if (setresgid((gid_t)-1, id, (gid_t)-1) < 0)
		return -errno;
	if (setresuid((uid_t)-1, id, (uid_t)-1) < 0) {
		int r = -errno;
		ids_leave(ids);
		return r;
	}
	return 0;
}

void ids_leave(const struct ids *ids)
{
	if (ids->rootless)
		return;
	if (setresuid((uid_t)-1, 0, (uid_t)-1) < 0 || setresgid((gid_t)-1, 0, (gid_t)-1) < 0)
		abort();
}
