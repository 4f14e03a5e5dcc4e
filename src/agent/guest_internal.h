/* SPDX-License-Identifier: Apache-2.0 */
/*
 * guest_internal.h - pieces of the agent in a virtual machine; for guest*.c and nobody else
 */
#pragma once

#include "agent/agent.h"
#include "agent/guest.h"
#include "agent/ports.h"
#include "proto/guest.h"

/* --- mounts (guest_mount.c). All return 0 or a descriptor, or -errno --- */

struct guest_option {
	const char *key, *value; /* value NULL: a flag. "source" comes first */
};
/* A new file system, not attached yet. options end with a NULL key, or NULL. */
int guest_mount_new(const char *fs, const struct guest_option *options, unsigned int attrs);
/* The same, attached on the directory `name` of dirfd, which is made if it is missing. No component
 * may be a link. */
int guest_mount_at(int dirfd, const char *name, const char *fs, const struct guest_option *options,
    unsigned int attrs);
/* Attaches mnt (borrowed) there. */
int guest_attach(int mnt, int dirfd, const char *name);
/* The directory `name` of dirfd, made if it is missing; never through a link. */
int guest_open_dir(int dirfd, const char *name);

/* --- from the kernel's start to the new root (guest_boot.c, guest_root.c) --- */

/* Ends the machine: what failed goes to the console. */
_Noreturn void guest_fatal(const char *what, int error);
/* Mounts in the new root, which is the working directory: /proc, /sys, /dev, /run. Names the step
 * that failed. */
int guest_fill_root(int root, const char **ret_step);

/* --- control groups (guest_cgroup.c) --- */

struct guest_cgroup {
	int box_fd;  /* directory of the group of everything that users start */
	int user_fd; /* cgroup.procs of the group that new processes go to */
	bool frozen;
};
#define GUEST_CGROUP_INIT ((struct guest_cgroup){.box_fd = -1, .user_fd = -1})
/* Makes the groups, and takes the control group namespace in which /sys/fs/cgroup is `box`. Before
 * that is mounted, and before there are threads. */
int guest_cgroup_make(struct guest_cgroup *c);
/* Begins to freeze, or to thaw. */
int guest_cgroup_freeze(struct guest_cgroup *c, bool on);
/* 1: all stand still (on) or may run; 0: not yet; -errno. Never blocks. */
int guest_cgroup_is(const struct guest_cgroup *c, bool frozen);
/* All processes together; 0: no limit. */
int guest_cgroup_pids_max(const struct guest_cgroup *c, uint32_t max);

/* --- what the kernel has killed for memory (guest_kills.c) --- */

struct guest_kills {
	int vmstat_fd;   /* -1: cannot be read */
	uint64_t before; /* of who the guest was before */
};
/* Once /proc is there, and before users could put another one in its place. */
void guest_kills_open(struct guest_kills *k);
/* How many since the last forget, at most UINT32_MAX; 0 where it cannot be read. Does not block. */
uint32_t guest_kills(const struct guest_kills *k);
void guest_kills_forget(struct guest_kills *k);

/* --- who the guest is (guest_identity.c, guest_net.c) --- */

struct guest_self {
	int root_fd;    /* of the new root, from where the files of /etc are found */
	int disk_fd;    /* the writable file system */
	int boot_id_fd; /* file that lies over /proc/sys/kernel/random/boot_id, or -1 */
	char id[AV_ID_SIZE];
	uint8_t machine_id[16];
	uint32_t pids_max;
	bool named; /* has been given an identity before */
};
#define GUEST_DEFAULT_NAME "aviary" /* host name of nobody */
/* Takes an identity, but for the size of its disk, and reads back what has become of it: the
 * answer. Blocks for some ms. */
void guest_identity_take(struct guest_self *self, const struct guest_cgroup *cgroup,
    const struct av_guest_identity *id, struct av_guest_confirm *ret);
/* Does what an identity will do, if there was none yet: so that it takes less time then. */
void guest_identity_rehearse(const struct guest_self *self);
/* The writable file system grows to what its device has become; it is larger already: 0. Blocks for
 * up to some seconds; any thread. */
int guest_disk_grow(int disk_fd, uint64_t bytes);
/* Random boot id, until an identity brings another one. */
void guest_identity_prepare(struct guest_self *self);

/* MAC, address, route, link up or down. *ret_what names the step that failed. Nothing is touched if
 * all is as wanted. Without internet and without an interface there is nothing to do. */
int guest_net_apply(const struct av_guest_identity *id, const char **ret_what);
/* What the interface has; zeros where there is none. */
void guest_net_read(uint8_t mac[static 6], uint32_t *ret_address);
/* Once, at boot: loopback up, and no address of IPv6 for the interface, as in a jail. */
int guest_net_prepare(void);

/* --- the whole --- */

struct guest {
	struct agent *agent; /* borrowed; NULL before guest_open */
	struct guest_self self;
	struct guest_cgroup cgroup;
	struct guest_kills kills;
	uint32_t kills_told;
	struct ports *ports;        /* owned */
	struct vlink_port *control; /* owned */
	uv_timer_t timer;           /* of what is being waited for */
	enum { GUEST_IDLE, GUEST_FREEZING, GUEST_THAWING, GUEST_WARMING, GUEST_ENDING } doing;
	uint32_t seq;         /* of the message that is being carried out */
	uint64_t deadline_ms; /* loop time */
	pid_t warm_pid;
	uv_work_t growth;
	uint64_t disk_bytes;    /* of the last identity */
	uint64_t growing_bytes; /* what it grows to now; 0: it does not */
	uint64_t grown_bytes;   /* what it is known to have */
};
