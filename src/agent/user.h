/* SPDX-License-Identifier: Apache-2.0 */
/*
 * user.h - users and groups of the sandbox, read from its own /etc/passwd and /etc/group
 *
 * The agent is static, so it has no NSS; and the files belong to whoever is root inside, so their
 * content is hostile: both are read whole with a ceiling, every field is checked, and a line that
 * does not parse is skipped.
 */
#pragma once

#include <sys/types.h>

#include "base/err.h"
#include "base/str.h"

#define AGENT_USER_NAME_MAX   64
#define AGENT_USER_GROUPS_MAX 64
#define AGENT_USER_HOME_MAX   1024
#define AGENT_USER_FILE_MAX   ((size_t)1024 * 1024) /* ceiling of either file, bytes */

struct agent_user {
	char name[AGENT_USER_NAME_MAX + 1];
	uid_t uid;
	gid_t gid;
	char home[AGENT_USER_HOME_MAX + 1];  /* absolute */
	gid_t groups[AGENT_USER_GROUPS_MAX]; /* supplementary; gid is the first */
	size_t ngroups;
};

/* Finds the user called name in the text of a passwd file; when there is none and name is a decimal
 * number, the first line with that uid. Fills all but the groups, of which there is only gid.
 * -ENOENT when nothing fits, -EINVAL for a name no passwd file can hold. */
int user_parse_passwd(struct av_str text, struct av_str name, struct agent_user *ret);
/* Adds to u->groups every group of the text that lists u->name as a member, up to the maximum. */
void user_parse_group(struct av_str text, struct agent_user *u);
/* The name of the user with this uid in the text of a passwd file, or of the group with this gid in
 * that of a group file (same position in both); dst gets it, or the number when there is none. */
void user_name_of(struct av_str text, unsigned int id, char *dst, size_t size);

/* Looks name up in /etc/passwd and /etc/group. A number that no line carries is taken as uid and
 * gid with home "/"; without any passwd file "root" is uid 0 with home /root. Reads two small files
 * (blocking, regular files only). AV_ERR_UNAUTHORIZED "invalid username: '...'" when unknown. */
int user_lookup(struct av_str name, struct agent_user *ret, struct av_err *err);
/* The number of the group called name in /etc/group, or name itself when it is a number. Blocking
 * as above. AV_ERR_INVALID. */
int user_group_id(struct av_str name, gid_t *ret, struct av_err *err);
/* The whole of one of those files, at most AGENT_USER_FILE_MAX bytes; *ret_text is the caller's.
 * -errno. */
int user_read_file(const char *path, char **ret_text, size_t *ret_n);
