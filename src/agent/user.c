/* SPDX-License-Identifier: Apache-2.0 */
/*
 * user.c - users and groups of the sandbox, read from its own /etc/passwd and /etc/group
 */
#include "agent/user.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/num.h"

#include "base/banned.h"

#define PASSWD_FIELDS 7
#define GROUP_FIELDS  4
/* (uid_t)-1 means "unchanged" to the system calls, so it can be nobody's. */
#define ID_MAX 0xfffffffeULL

/* Splits a line at ':' into exactly max fields; false if it has more or fewer. */
static bool split_line(struct av_str line, struct av_str *fields, size_t max)
{
	size_t n = 0;

	if (av_str_has_nul(line))
		return false;
	for (;;) {
		struct av_str head;
		bool more = av_str_cut(&line, ':', &head);

		if (n == max)
			return false;
		fields[n++] = head;
		if (!more)
			return n == max;
	}
}

static bool parse_id(struct av_str s, unsigned int *ret)
{
	uint64_t v;

	if (av_parse_u64(s, 0, ID_MAX, &v) < 0)
		return false;
	*ret = (unsigned int)v;
	return true;
}

static bool name_valid(struct av_str name)
{
	return name.n > 0 && name.n <= AGENT_USER_NAME_MAX && !av_str_has_nul(name) &&
	       av_str_chr(name, ':') < 0 && av_str_chr(name, '\n') < 0 && av_str_chr(name, '/') < 0;
}

/* Fills *ret from a line's fields; false if the line is not usable. */
static bool take_passwd_line(struct av_str line, struct agent_user *ret)
{
	struct av_str f[PASSWD_FIELDS];
	struct agent_user u = {.ngroups = 1};
	unsigned int uid, gid;

	if (!split_line(line, f, PASSWD_FIELDS) || !name_valid(f[0]))
		return false;
	if (!parse_id(f[2], &uid) || !parse_id(f[3], &gid))
		return false;
	if (av_str_copy(u.name, sizeof(u.name), f[0]) < 0)
		return false;
	if (f[5].n == 0 || f[5].p[0] != '/')
		f[5] = AV_STR("/");
	if (av_str_copy(u.home, sizeof(u.home), f[5]) < 0)
		return false;
	u.uid = uid;
	u.gid = gid;
	u.groups[0] = gid;
	*ret = u;
	return true;
}

int user_parse_passwd(struct av_str text, struct av_str name, struct agent_user *ret)
{
	unsigned int want = 0;
	bool numeric = parse_id(name, &want), found = false;
	struct agent_user by_id;

	if (!name_valid(name))
		return -EINVAL;
	for (bool more = true; more;) {
		struct agent_user u;
		struct av_str line, head, rest;

		more = av_str_cut(&text, '\n', &line);
		rest = line;
		av_str_cut(&rest, ':', &head);
		if (!av_str_eq(head, name) && (!numeric || found))
			continue;
		if (!take_passwd_line(line, &u))
			continue;
		if (av_str_eq(head, name)) {
			*ret = u;
			return 0;
		}
		if (u.uid == want) {
			by_id = u;
			found = true;
		}
	}
	if (!found)
		return -ENOENT;
	*ret = by_id;
	return 0;
}

static bool is_member(struct av_str members, struct av_str name)
{
	for (bool more = true; more;) {
		struct av_str m;

		more = av_str_cut(&members, ',', &m);
		if (av_str_eq(m, name))
			return true;
	}
	return false;
}

void user_parse_group(struct av_str text, struct agent_user *u)
{
	struct av_str name = av_str_c(u->name);

	for (bool more = true; more && u->ngroups < AGENT_USER_GROUPS_MAX;) {
		struct av_str line, f[GROUP_FIELDS];
		unsigned int gid;

		more = av_str_cut(&text, '\n', &line);
		if (!split_line(line, f, GROUP_FIELDS) || !parse_id(f[2], &gid))
			continue;
		if (gid != u->gid && is_member(f[3], name))
			u->groups[u->ngroups++] = gid;
	}
}

void user_name_of(struct av_str text, unsigned int id, char *dst, size_t size)
{
	for (bool more = true; more;) {
		struct av_str line, name, pw, num;
		unsigned int v;

		more = av_str_cut(&text, '\n', &line);
		av_str_cut(&line, ':', &name);
		av_str_cut(&line, ':', &pw);
		av_str_cut(&line, ':', &num);
		if (!parse_id(num, &v) || v != id || !name_valid(name) || !av_utf8_valid(name))
			continue;
		if (av_str_copy(dst, size, name) == 0)
			return;
	}
	snprintf(dst, size, "%u", id);
}

/* A FIFO or device put there must not make PID 1 wait, hence O_NONBLOCK and the look at its type.
 */
int user_read_file(const char *path, char **ret_text, size_t *ret_n)
{
	AV_CLEANUP(av_closep) int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	AV_CLEANUP(av_freep) char *text = NULL;
	struct stat st;
	ssize_t n;

	if (fd < 0)
		return -errno;
	if (fstat(fd, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode))
		return -EINVAL;
	if ((uint64_t)st.st_size > AGENT_USER_FILE_MAX)
		return -EFBIG;
	text = malloc((size_t)st.st_size + 1);
	if (!text)
		return -ENOMEM;
	n = av_read_full(fd, text, (size_t)st.st_size);
	if (n < 0)
		return (int)n;
	*ret_text = AV_TAKE_PTR(text);
	*ret_n = (size_t)n;
	return 0;
}

int user_group_id(struct av_str name, gid_t *ret, struct av_err *err)
{
	AV_CLEANUP(av_freep) char *group = NULL;
	struct av_str text = AV_STR("");
	unsigned int gid;
	size_t n = 0;

	if (user_read_file("/etc/group", &group, &n) == 0)
		text = av_str_n(group, n);
	for (bool more = true; more;) {
		struct av_str line, f[GROUP_FIELDS];

		more = av_str_cut(&text, '\n', &line);
		if (split_line(line, f, GROUP_FIELDS) && av_str_eq(f[0], name) &&
		    parse_id(f[2], &gid)) {
			*ret = gid;
			return 0;
		}
	}
	if (parse_id(name, &gid)) {
		*ret = gid;
		return 0;
	}
	return av_err_set(err, AV_ERR_INVALID, "the sandbox has no group '%.*s'", AV_STR_ARG(name));
}

/* What to believe when the files do not know the name. */
static int fallback_user(struct av_str name, struct agent_user *ret)
{
	struct agent_user u = {.home = "/", .ngroups = 1};
	unsigned int id;

	if (av_str_eq_c(name, "root"))
		memcpy(u.home, "/root", sizeof("/root"));
	else if (parse_id(name, &id))
		u.uid = u.gid = u.groups[0] = id;
	else
		return -ENOENT;
	if (av_str_copy(u.name, sizeof(u.name), name) < 0)
		return -ENOENT;
	*ret = u;
	return 0;
}

int user_lookup(struct av_str name, struct agent_user *ret, struct av_err *err)
{
	AV_CLEANUP(av_freep) char *passwd = NULL;
	AV_CLEANUP(av_freep) char *group = NULL;
	struct agent_user u;
	size_t n = 0;
	int r = -ENOENT;

	if (name_valid(name)) {
		if (user_read_file("/etc/passwd", &passwd, &n) == 0)
			r = user_parse_passwd(av_str_n(passwd, n), name, &u);
		if (r < 0)
			r = fallback_user(name, &u);
	}
	if (r < 0)
		return av_err_set(
		    err, AV_ERR_UNAUTHORIZED, "invalid username: '%.*s'", AV_STR_ARG(name));
	if (user_read_file("/etc/group", &group, &n) == 0)
		user_parse_group(av_str_n(group, n), &u);
	*ret = u;
	return 0;
}
