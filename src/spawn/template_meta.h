/* SPDX-License-Identifier: Apache-2.0 */
/*
 * template_meta.h - what is written about a template, and where its layers lie
 *
 *   <state>/templates/<id>/meta        struct template_meta
 *   <state>/templates/<id>/layer/      the layer, when it was copied: root/ and usr/
 *   <state>/disk.img:/.layers/<id>/    the layer, when it is a snapshot of a btrfs area: fs/root
 *                                      and fs/usr in it
 *   <state>/templates/new-<id>/        under construction
 *
 * Of a virtual machine the layer has root/vm/image/ or root/vm/saves/ (vm_layer.h), and what it
 * stands on is at most the one with its image: a save is whole, so that saves of saves do not pile
 * up.
 *
 * A template is one layer of its own on top of those of its parent. A directory gets its final name
 * as the last step of making it, and loses it as the first step of removing it, so that whatever
 * has a final name is complete; template_sweep() removes the rest at start.
 *
 * The record is a struct of fixed size and not a text: root reads it, and there is nothing to
 * parse. Its seal is BLAKE2b-256 over all that comes before it, and takes in the layer's checksum
 * and the parent's seal. The control plane keeps the seal in its own database and names it at every
 * use: a template of somebody else, or an older one, put in its place does not fit.
 *
 * Templates outlive upgrades: another layout takes another version, and those of before are still
 * read. Version 1 had no generation. Version 3 is that of a template that came out of a backup: its
 * layer lies elsewhere than before, so that its seal is another one, and it keeps the seal by which
 * the control plane and other templates know it as its identity.
 */
#pragma once

#include <assert.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/ids.h"
#include "base/macros.h"
#include "spawn/layer.h"

#define TEMPLATE_ID_EMPTY  "empty"
#define TEMPLATE_ID_VMHOST "vmhost" /* what virtual machines stand on */
#define TEMPLATE_ID_SIZE   64
#define TEMPLATE_DEPTH_MAX 24 /* layers above the bottom one */
#define TEMPLATE_VERSION   2
#define TEMPLATE_RESTORED  3 /* the version of one from a backup */
#define TEMPLATE_META_NAME "meta"
#define TEMPLATE_LAYER_DIR "layer"
#define TEMPLATE_NEW       "new-"

enum {
	TEMPLATE_ON_HOST = 1 << 0,  /* the lowest layers are those of template host */
	TEMPLATE_IN_IMAGE = 1 << 1, /* the layer is a subvolume of the btrfs image */
	TEMPLATE_ROOTLESS = 1 << 2, /* made without root: all files are the user's own */
	TEMPLATE_VM = 1 << 3,       /* on TEMPLATE_ID_VMHOST; the layer has root/vm/ only */
	TEMPLATE_VM_IMAGE = 1 << 4, /* with it: there is a root/vm/image/ */
};

struct template_meta {
	char magic[8];
	uint32_t version;
	uint32_t flags;
	uint32_t id_base; /* files of root inside have this id on disk */
	uint32_t depth;   /* layers above the bottom, this one counted */
	char id[TEMPLATE_ID_SIZE];
	char parent[TEMPLATE_ID_SIZE]; /* "host", "empty", "vmhost" or an id */
	char host_fingerprint[32];     /* with TEMPLATE_ON_HOST */
	uint64_t bytes, entries;
	int64_t created_ms;
	uint64_t
	    generation; /* of the subvolume as it was sealed (TEMPLATE_IN_IMAGE); 0: not known */
	uint8_t content[LAYER_HASH_SIZE];
	uint8_t parent_seal[LAYER_HASH_SIZE];
	uint8_t seal[LAYER_HASH_SIZE];
	uint8_t identity[LAYER_HASH_SIZE]; /* by which it is known: the seal it was made with */
};
static_assert(sizeof(struct template_meta) == 344, "no padding; another size is another version");

/* "tp" or "vm" and 25 of [0-9a-z]. */
bool template_id_ok(const char *id);
/* "vm…" */
bool template_id_is_vm(const char *id);
/* Fills magic, version, seal and identity. */
void template_meta_seal(struct template_meta *m);
/* The same for one from a backup, whose layer lies as flags and generation say; its identity
 * stays. */
void template_meta_seal_restored(struct template_meta *m);
/* A record as bytes, whatever its version: how many of the struct are written. */
size_t template_meta_size(uint32_t version);
/* As template_meta_read(), of size bytes. */
int template_meta_parse(const void *bytes, size_t size, const char *id, struct template_meta *ret,
    struct av_err *err) AV_MUST_CHECK;
/* dirfd: directory of the template. Refuses a link, another size, owner or version, a wrong seal
 * and another id: -EBADMSG with a sentence. -ENOENT. A record of an earlier version comes in
 * today's layout, with the version and the seal that it was written with. */
int template_meta_read(
    int dirfd, const char *id, struct template_meta *ret, struct av_err *err) AV_MUST_CHECK;
int template_meta_write(int dirfd, const struct template_meta *m) AV_MUST_CHECK;
/* Of both halves of a layer. */
void template_content(
    const struct layer_sum *root, const struct layer_sum *usr, uint8_t ret[static LAYER_HASH_SIZE]);
bool template_seal_empty(const uint8_t seal[static LAYER_HASH_SIZE]);
