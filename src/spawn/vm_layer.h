/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vm_layer.h - what of a virtual machine's files becomes a layer
 *
 * Theory of operation. aviary-vm, and whoever broke out of a guest into its QEMU, may write what it
 * likes into the upper layer of its sandbox. A layer made of it outlives the sandbox and is seen by
 * others, so nothing is taken over but bytes of regular files: directories are made anew with names
 * from here or of a narrow alphabet, owners and modes are ours, there are no links, attributes,
 * whiteouts or set-uid bits. What may be there (vm/vm_wire.h):
 *
 *   vm/image/<file>       any, up to VM_LAYER_FILES_MAX
 *   vm/saves/<n>/<file>   the same; with `save`, that one only and the four files it must have
 *   vm/current            written here with `save`, else taken over
 *
 * vm/run and everything else stays behind. Holes stay holes; blocks are shared where the file
 * system can. Blocking; for forked children.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"
#include "base/macros.h"

#define VM_LAYER_FILES_MAX 16 /* in a directory */
#define VM_LAYER_SAVES_MAX 16

struct vm_layer_options {
	uint32_t save;          /* 0: image and all saves */
	bool rootless;          /* one id: owners are not set */
	uid_t owner;            /* of root inside */
	int (*room)(void *ctx); /* asked again and again; not 0 ends it with that */
	void *ctx;
};

/* from: the root of the upper layer, to: an empty directory, the root of the new one. Both are open
 * for reading. -ENODATA with err: there is nothing that a machine could go on from. Other -errno
 * leave err as it was. */
int vm_layer_take(int from, int to, const struct vm_layer_options *opt, bool *ret_has_image,
    struct av_err *err) AV_MUST_CHECK;
