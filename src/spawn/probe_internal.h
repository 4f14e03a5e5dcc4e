/* SPDX-License-Identifier: Apache-2.0 */
/*
 * probe_internal.h - shared by probe.c, probe_disk.c, probe_net.c, probe_try.c and probe_vm.c
 */
#pragma once

#include <sys/types.h>

#include "base/macros.h"
#include "spawn/probe.h"

/* What a child of its own user namespace managed to do, as bits. */
enum probe_did {
	DID_USERNS = 1 << 0,  /* made a user namespace and wrote its id map */
	DID_MOUNT = 1 << 1,   /* mounted a tmpfs there: it has real capabilities inside */
	DID_OVERLAY = 1 << 2, /* mounted an overlay */
	DID_PROC = 1 << 3,    /* mounted a fresh proc in its own pid namespace */
};

/* probe_try.c */
/* Forks a child that becomes uid (if not (uid_t)-1), makes namespaces and tries. Never more than
 * five seconds. The bits of what worked; 0 also when there was no child. */
unsigned probe_try_userns(uid_t uid);
/* As root without a user namespace: whether an overlay can be mounted. */
bool probe_try_overlay(void);

/* probe.c */
/* Adds a fact; found, reason and cure are printf formats' results, "" for none. */
struct probe_fact *probe_add(
    struct probe *p, const char *name, const char *what, enum probe_state state);
void probe_say(char *dst, size_t size, const char *fmt, ...) AV_PRINTF(3, 4);
#define PROBE_FOUND(f, ...)  probe_say((f)->found, sizeof((f)->found), __VA_ARGS__)
#define PROBE_REASON(f, ...) probe_say((f)->reason, sizeof((f)->reason), __VA_ARGS__)
#define PROBE_CURE(f, ...)   probe_say((f)->cure, sizeof((f)->cure), __VA_ARGS__)
/* A file that begins with a number; -1 when there is none. */
long probe_read_number(const char *path);
bool probe_has_filesystem(const char *name);

/* probe_net.c: after devices, whose TUN it looks at. */
void probe_net(struct probe *p);

/* probe_vm.c: what virtual machines need. */
void probe_vm(struct probe *p);

/* probe_disk.c: facts about limiting disks in the state directory's file system. */
void probe_disk(struct probe *p, const char *state_dir);
