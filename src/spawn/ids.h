/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ids.h - which range of user ids belongs to which sandbox, and acting with its first id
 *
 * Slot n owns the ids SPAWN_UID_BASE + n * 65536 up to the next slot's. Slot 0 is Aviary's own.
 * The table is memory only: at start the worker marks what the disk areas say (their owner is the
 * first id of the range).
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "spawn/options.h"

struct ids {
	uint8_t used[SPAWN_SLOTS / 8];
	uint32_t
	    next; /* where to look first, so that a freed range rests before it is used again */
	bool
	    rootless; /* one id only: every range is the caller's own, enter and leave do nothing */
	bool shared;  /* overlay path `shifted`: slots count sandboxes, all use the ids of slot 1 */
};

/* Keeps the capabilities across changes of id (SECBIT_NO_SETUID_FIXUP). first: the slot to begin
 * with, modulo their number; instances on one machine should differ in it. -errno. */
int ids_init(struct ids *ids, bool rootless, bool shared, uint32_t first);
/* -EAGAIN when all are taken. */
int ids_take(struct ids *ids, uint32_t *ret_slot);
void ids_mark(struct ids *ids, uint32_t slot);
void ids_release(struct ids *ids, uint32_t slot);
/* First id of the slot's range; 0 when rootless. */
uid_t ids_base(const struct ids *ids, uint32_t slot);
/* The slot whose range begins at uid, or 0. */
uint32_t ids_slot_of(const struct ids *ids, uid_t uid);

/* Effective and file system ids become the first of the slot's range; capabilities stay. Then the
 * kernel charges what is made (user namespaces, inotify instances below them) to that id and not to
 * root, and overlayfs finds its work directory's owner mapped. -errno, nothing changed. */
int ids_enter(const struct ids *ids, uint32_t slot);
/* Back to root. Aborts if the kernel refuses: going on with wrong ids would be worse. */
void ids_leave(const struct ids *ids);
