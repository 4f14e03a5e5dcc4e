/* SPDX-License-Identifier: Apache-2.0 */
/*
 * host_internal.h - shared by host_template.c, host_skeleton.c, host_accounts.c, host_copy.c,
 * host_mask.c and their test
 */
#pragma once

#include <stdbool.h>
#include <sys/stat.h>
#include <sys/types.h>

#include "base/buf.h"
#include "base/str.h"
#include "spawn/host_template.h"

#define HOST_USER    "user"
#define HOST_USER_ID 1000
#define HOST_NAME    "sandbox" /* in /etc/hosts and /etc/hostname of the skeleton */

/* One run of the generator. */
struct host_gen {
	int host; /* borrowed; the host's root */
	int root; /* borrowed; root/ of the new generation */
	int mask; /* borrowed; usr-mask/ of the new generation */
	struct host_template_options opt;
};

/* host_copy.c. Paths are relative to g->host or g->root, without a leading slash. 0 or -errno. */

/* openat2 below the host's root: links of the host, also absolute ones, stay inside. */
int host_open(const struct host_gen *g, const char *path, int flags);
/* Owner (shifted; ignored when rootless) and mode of a descriptor. */
int host_own(const struct host_gen *g, int fd, uid_t uid, gid_t gid, mode_t mode);
int host_mkdir(const struct host_gen *g, const char *path, uid_t owner, mode_t mode);
int host_write(
    const struct host_gen *g, const char *path, struct av_str text, gid_t group, mode_t mode);
int host_symlink(const struct host_gen *g, const char *target, const char *path);
/* Copies <path> of the host to the same place: a regular file or link, or a directory with all that
 * is below. Leaves out what not everybody may read, what is neither file, directory nor link, and
 * files with secrets inside (host_text_has_secret). 0 also when there is nothing. */
int host_copy(const struct host_gen *g, const char *path);
/* As host_copy for one file, to another place, whatever it contains. */
int host_copy_data(const struct host_gen *g, const char *from, const char *to);
/* A private key, or a URL with a password or token before its host. Pure. */
bool host_text_has_secret(struct av_str text);

/* host_accounts.c. Text in, text out; pure. */

/* passwd(5) and group(5) for inside: system accounts of the host (ids below 1000, and nobody), and
 * HOST_USER. Members are dropped; HOST_USER is put into group sudo or wheel. */
int host_make_passwd(struct av_str host_passwd, struct av_buf *out);
int host_make_group(struct av_str host_group, struct av_buf *out);
/* shadow(5) and gshadow(5) for a passwd or group made by the above: every password locked. */
int host_make_shadow(struct av_str passwd, struct av_buf *out);
int host_make_gshadow(struct av_str group, struct av_buf *out);
/* The id of a group in group(5) text, or -1. */
long host_group_id(struct av_str group, const char *name);

/* host_skeleton.c: fills root/. */
int host_skeleton_make(const struct host_gen *g, struct av_err *err);
/* host_mask.c: fills usr-mask/ with whiteouts; the number of files looked at and masked. */
int host_mask_make(const struct host_gen *g, unsigned *ret_seen, unsigned *ret_masked);
/* Whether something of this mode below /usr is hidden from sandboxes. Pure. */
bool host_mask_hides(mode_t mode);
