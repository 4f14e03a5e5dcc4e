/* SPDX-License-Identifier: Apache-2.0 */
/*
 * host_template.h - template `host`: the machine's own /usr with a generated skeleton around it
 *
 * Layout under <state>/templates/host/:
 *
 *   current            symlink to the generation in use
 *   g-<fingerprint>/   one generation, never changed after it was renamed into place
 *     root/            lower layer of the root file system: /etc, /var, /home/user, links, mount
 * points usr-mask/        upper-most lower layer of /usr: whiteouts for what not everybody may read
 *     metadata.json    what the control plane shows: defaults and fingerprint
 *
 * The sandbox's /usr is an overlay of usr-mask/ over the host's /usr. Layers hold host ids 0 to
 * 65535 and are meant to be idmapped. Sandboxes keep the generation they started with; others than
 * the current one are removed by host_template_gc() when the caller says that none is in use.
 *
 * Single-threaded and blocking: a generation takes about a second. Nothing secret is copied: only
 * world-readable regular files and links of a fixed list, none with private keys or URL passwords.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"
#include "base/macros.h"

#define HOST_TEMPLATE_ID      "host"
#define HOST_TEMPLATE_FP_SIZE 17 /* 16 hexadecimal digits and NUL */

struct host_template {
	int root_fd;     /* owned; directory root/ of the generation */
	int usr_mask_fd; /* owned; directory usr-mask/ */
	char fingerprint[HOST_TEMPLATE_FP_SIZE];
};
#define HOST_TEMPLATE_INIT ((struct host_template){.root_fd = -1, .usr_mask_fd = -1})

/* In all of these host_rootfd is the host's root directory (O_PATH will do; paths are taken from it
 * without leaving it) and state_dirfd the state directory; templates/ is made in it. */

/* The fingerprint of the machine as it is now: some twenty stat calls, 50 microseconds. */
int host_template_fingerprint(int host_rootfd, char ret[static HOST_TEMPLATE_FP_SIZE]);
/* Opens the current generation without making one and without looking at the host: compare its
 * fingerprint. -ENOENT when there is none. The caller clears it. */
int host_template_open(
    int state_dirfd, struct host_template *ret, struct av_err *err) AV_MUST_CHECK;

struct host_template_options {
	bool rootless; /* owners cannot be set: all is the caller's */
	uid_t
	    id_shift; /* added to every owner: 0, or the first id of the one range of old kernels */
};
/* Makes the generation for the present fingerprint if it is missing and points `current` at it.
 * Atomic: killed at any point it leaves the old one in use. May run in a forked child while the
 * parent goes on with the old generation, then host_template_open(). */
int host_template_make(int host_rootfd, int state_dirfd, const struct host_template_options *opt,
    struct av_err *err) AV_MUST_CHECK;
/* Removes half-made generations and, if none_in_use, every one but the current. */
int host_template_gc(int state_dirfd, bool none_in_use);
void host_template_clear(struct host_template *t);
