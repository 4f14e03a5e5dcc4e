/* SPDX-License-Identifier: Apache-2.0 */
/*
 * template.h - the layers of a template, kept open
 *
 * `host` follows the machine: before it is used its fingerprint is compared (at most once a
 * second), and when that has changed a forked child makes the new generation while creates of it
 * wait. `vmhost` is the same for virtual machines: QEMU and what it needs come from it, but nothing
 * that was made on it depends on what they are. `empty` has nothing but mount points, for building.
 * All others lie on the disk as template_meta.h says.
 *
 * What is promised about a layer on the disk: its record is sealed and the seal is compared with
 * what the control plane remembers, at each use. A layer in the btrfs image is a read-only
 * subvolume, whose generation is sealed too: every change made through the file system moves it,
 * and btrfs's own checksums tell, at reading, what the disk below did; so as long as it is the
 * sealed one its files are not read. Otherwise, and for layers that were copied, the files are
 * compared with their checksum at the first use after the worker's start, by a forked child while
 * creates of it wait, and again whenever the cheap mark has changed: inode and times of the record
 * and of the layer's top directories. A change deep inside of a copied layer is noticed after the
 * next start.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/list.h"
#include "base/macros.h"
#include "spawn/chore.h"
#include "spawn/host_template.h"
#include "spawn/ids.h"
#include "spawn/loop.h"
#include "spawn/mounts.h"
#include "spawn/template_meta.h"

struct disk;

struct template_store {
	struct loop *loop;           /* borrowed */
	const struct mounts *mounts; /* borrowed */
	struct disk *disk;           /* borrowed */
	int dir_fd;                  /* owned: <state>/templates */
	int empty_fd;                /* owned: the layer of `empty` */
	uid_t id_base;               /* inside's root has this id in layers */
	struct host_template_options host_options;
	struct host_template host;
	int usr_fd;         /* owned: the host's /usr in the worker's tree */
	int64_t checked_ns; /* when the fingerprint was compared */
	int maker_pidfd;    /* owned: the child that makes a generation; -1: none */
	int64_t maker_since_ns;
	struct loop_source maker;
	bool unchecked;         /* for tests: files are not compared */
	struct av_list waiters; /* struct template_waiter, for the maker */
	struct av_list kept;    /* struct template_kept, used longest ago first */
	size_t n_kept;
};
#define TEMPLATE_STORE_INIT                                                                        \
	((struct template_store){.dir_fd = -1,                                                     \
	    .empty_fd = -1,                                                                        \
	    .host = HOST_TEMPLATE_INIT,                                                            \
	    .usr_fd = -1,                                                                          \
	    .maker_pidfd = -1})

/* Embedded in who waits; its owner may remove the node at any time. */
struct template_waiter {
	struct av_list node;
	void (*on_made)(void *ctx, int result, const struct av_err *err);
	void *ctx;
};

/* Opens template host if there is one, makes `empty`, removes what was being made or removed when
 * the last worker died. */
int template_init(struct template_store *t, struct loop *loop, const struct mounts *m,
    struct disk *disk, uid_t id_shift, struct av_err *err) AV_MUST_CHECK;
/* Begins to make template host if it is missing or no longer fits, so that the first create waits
 * for it less. */
int template_refresh(struct template_store *t, struct av_err *err) AV_MUST_CHECK;
void template_clear(struct template_store *t);

struct template_layers {
	struct mounts_layers root, usr;
	bool has_usr;
	bool is_vm;                    /* for aviary-vm only */
	uint32_t depth;                /* layers above the bottom */
	uint8_t seal[LAYER_HASH_SIZE]; /* of the template; zero for host, vmhost and empty */
	/* With is_vm: the upper-most of its layers that holds an image; id empty when none does. */
	struct template_image {
		char id[TEMPLATE_ID_SIZE];
		uint8_t seal[LAYER_HASH_SIZE];
		uint32_t depth;
	} image;
	struct av_list *pending; /* with -EAGAIN: where template_wait() waits */
};
/* Layers of the template (borrowed; those of three templates are open at once for sure). seal: as
 * the control plane remembers it, all zero for no opinion. -EAGAIN: being made or compared,
 * template_wait() says when; -ENOENT: no such template; -EBADMSG: it is not what it was, in a
 * sentence with "checksum error"; -ESTALE: it stands on a host that has changed. */
int template_layers(struct template_store *t, const char *id,
    const uint8_t seal[static LAYER_HASH_SIZE], struct template_layers *ret,
    struct av_err *err) AV_MUST_CHECK;
/* Calls on_made once when what pending stands for has ended; result 0 or -errno with err. */
void template_wait(struct av_list *pending, struct template_waiter *w);

/* ---- template_kept.c: those on the disk ---- */

struct template_kept;
/* One layer, verified. -EAGAIN with *ret_pending. */
int template_kept_get(struct template_store *t, const char *id,
    const uint8_t seal[static LAYER_HASH_SIZE], const struct template_kept **ret,
    struct av_list **ret_pending, struct av_err *err) AV_MUST_CHECK;
struct template_kept {
	struct av_list node;
	struct template_store *t;
	struct template_meta meta;
	int dir_fd, root_fd, usr_fd; /* owned; usr_fd -1: none */
	bool verified;
	struct template_mark {
		uint64_t inode, generation;
		int64_t times[3][2]; /* of the record, root and usr: seconds and nanoseconds */
	} mark;
	struct chore check;
	struct av_list waiters;
};
void template_kept_clear(struct template_store *t);
/* It is being removed: what is open of it would keep its blocks on the disk. */
void template_kept_forget(struct template_store *t, const char *id);

/* ---- template_disk.c: making and removing them ---- */

bool template_exists(const struct template_store *t, const char *id);
/* Out of sight now, files freed in disk_step(). 0 also when there is none. -EBUSY: another template
 * stands on it. No sandbox may use it. */
int template_delete(struct template_store *t, const char *id, struct av_err *err) AV_MUST_CHECK;
/* Removes what the layer of a finished template was copied together in. */
void template_settle(struct template_store *t, const char *id);
/* Removes what a snapshot that did not end left. */
void template_discard(struct template_store *t, const char *id);
/* At start. */
void template_sweep(struct template_store *t);
/* Calls on_id for each complete one; non-zero ends it and is returned. */
int template_list(const struct template_store *t, int (*on_id)(void *ctx, const char *id),
    void *ctx) AV_MUST_CHECK;
