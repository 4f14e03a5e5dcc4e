/* SPDX-License-Identifier: Apache-2.0 */
/*
 * entry.h - what is said of one file: EntryInfo of filesystem.Filesystem
 *
 * A link has the type and the mode of what it leads to, as clients of this protocol expect, and
 * says where that is; one that leads nowhere has no type. Names of users and groups are those of
 * the sandbox.
 */
#pragma once

#include <stdint.h>
#include <sys/stat.h>

#include "agent/user.h"
#include "base/buf.h"
#include "base/path.h"

/* Texts of the sandbox's passwd and group files and the names last looked up. All zeros is valid;
 * read at first use. */
struct entry_names {
	bool loaded;
	char *passwd, *group; /* owned; NULL when they cannot be read */
	size_t passwd_n, group_n;
	struct {
		bool known;
		unsigned int id;
		char name[AGENT_USER_NAME_MAX + 1];
	} user, grp;
};
void entry_names_clear(struct entry_names *n);
/* Both borrowed until the next call. */
const char *entry_user(struct entry_names *n, uid_t uid);
const char *entry_group(struct entry_names *n, gid_t gid);

struct entry {
	struct stat st;     /* of the entry itself */
	struct stat target; /* of what it leads to; as st when it is no link */
	bool dangling;
	char link[AV_PATH_MAX + 1]; /* where a link leads, resolved; its text when dangling; "" */
};

/* Looks at name in dirfd (or at the absolute path) without following it, as the user whose ids the
 * thread has. -errno. */
int entry_look(int dirfd, const char *name, struct entry *ret) AV_MUST_CHECK;
/* Appends {"name":...,"type":"FILE_TYPE_FILE","path":...,...}. path is what the caller calls it. */
int entry_write(
    struct av_buf *out, const struct entry *e, struct av_str path, struct entry_names *names);
