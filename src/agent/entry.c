/* SPDX-License-Identifier: Apache-2.0 */
/*
 * entry.c - what is said of one file: EntryInfo of filesystem.Filesystem
 */
#include "agent/entry.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <unistd.h>

#include "agent/fsop.h"
#include "base/avtime.h"
#include "base/fd.h"
#include "base/json.h"

#include "base/banned.h"

/* --- names --- */

void entry_names_clear(struct entry_names *n)
{
	free(n->passwd);
	free(n->group);
	*n = (struct entry_names){0};
}

static void load(struct entry_names *n)
{
	if (n->loaded)
		return;
	n->loaded = true;
	(void)user_read_file("/etc/passwd", &n->passwd, &n->passwd_n);
	(void)user_read_file("/etc/group", &n->group, &n->group_n);
}

const char *entry_user(struct entry_names *n, uid_t uid)
{
	load(n);
	if (!n->user.known || n->user.id != uid)
		user_name_of(
		    av_str_n(n->passwd, n->passwd_n), uid, n->user.name, sizeof(n->user.name));
	n->user.known = true;
	n->user.id = uid;
	return n->user.name;
}

const char *entry_group(struct entry_names *n, gid_t gid)
{
	load(n);
	if (!n->grp.known || n->grp.id != gid)
		user_name_of(av_str_n(n->group, n->group_n), gid, n->grp.name, sizeof(n->grp.name));
	n->grp.known = true;
	n->grp.id = gid;
	return n->grp.name;
}

/* --- looking --- */

static int read_link(int fd, char dst[static AV_PATH_MAX + 1])
{
	ssize_t n = readlinkat(fd, "", dst, AV_PATH_MAX);

	if (n < 0)
		return -errno;
	dst[n] = '\0';
	return 0;
}

/* What the link leads to. Following it is one look-up, and the kernel says where it ended. */
static void look_at_target(int dirfd, const char *name, struct entry *e)
{
	char path[FSOP_FD_PATH_SIZE];
	AV_CLEANUP(av_closep) int fd = fsop_openat(dirfd, name, O_PATH, 0);
	ssize_t n;

	e->dangling = true;
	if (fd < 0 || fstat(fd, &e->target) < 0)
		return;
	n = readlink(fsop_fd_path(fd, path), e->link, AV_PATH_MAX);
	if (n < 0)
		return;
	e->link[n] = '\0';
	e->dangling = false;
}

int entry_look(int dirfd, const char *name, struct entry *e)
{
	AV_CLEANUP(av_closep) int fd = -1;
	int r;

	e->link[0] = '\0';
	e->dangling = false;
	/* Most are names in a listed directory and no links: one call. */
	if (!strchr(name, '/') && fstatat(dirfd, name, &e->st, AT_SYMLINK_NOFOLLOW) == 0 &&
	    !S_ISLNK(e->st.st_mode)) {
		e->target = e->st;
		return 0;
	}
	fd = fsop_openat(dirfd, name, O_PATH | O_NOFOLLOW, 0);
	if (fd < 0)
		return fd;
	if (fstat(fd, &e->st) < 0)
		return -errno;
	e->target = e->st;
	if (!S_ISLNK(e->st.st_mode))
		return 0;
	r = read_link(fd, e->link);
	if (r == 0)
		look_at_target(dirfd, name, e);
	return r;
}

/* --- saying --- */

static const char *type_name(const struct entry *e)
{
	if (!e->dangling && S_ISREG(e->target.st_mode))
		return "FILE_TYPE_FILE";
	if (!e->dangling && S_ISDIR(e->target.st_mode))
		return "FILE_TYPE_DIRECTORY";
	return "FILE_TYPE_UNSPECIFIED";
}

/* As Go's fs.FileMode writes it: letters for what is special, then rwxrwxrwx. */
static void permissions(mode_t mode, char dst[static 16])
{
	static const char bits[] = "rwxrwxrwx";
	char *p = dst;

	switch (mode & S_IFMT) {
	case S_IFDIR:
		*p++ = 'd';
		break;
	case S_IFLNK:
		*p++ = 'L';
		break;
	case S_IFBLK:
		*p++ = 'D';
		break;
	case S_IFCHR:
		*p++ = 'D';
		*p++ = 'c';
		break;
	case S_IFIFO:
		*p++ = 'p';
		break;
	case S_IFSOCK:
		*p++ = 'S';
		break;
	default:
		break;
	}
	if (mode & S_ISUID)
		*p++ = 'u';
	if (mode & S_ISGID)
		*p++ = 'g';
	if (mode & S_ISVTX)
		*p++ = 't';
	if (p == dst)
		*p++ = '-';
	for (int i = 0; i < 9; i++)
		*p++ = mode & (0400u >> i) ? bits[i] : '-';
	*p = '\0';
}

int entry_write(
    struct av_buf *out, const struct entry *e, struct av_str path, struct entry_names *names)
{
	char text[16], time[32];

	permissions(e->st.st_mode, text);
	av_rfc3339_ms(e->st.st_mtim.tv_sec * 1000LL + e->st.st_mtim.tv_nsec / AV_NS_PER_MS, time);
	av_buf_append_c(out, "{\"name\":");
	av_json_write_str(out, av_path_base(path));
	av_buf_printf(out, ",\"type\":\"%s\",\"path\":", type_name(e));
	av_json_write_str(out, path);
	av_buf_printf(out, ",\"size\":\"%lld\",\"mode\":%u,\"permissions\":\"%s\",\"owner\":",
	    (long long)e->st.st_size, (unsigned int)e->target.st_mode & 07777, text);
	av_json_write_str(out, av_str_c(entry_user(names, e->st.st_uid)));
	av_buf_append_c(out, ",\"group\":");
	av_json_write_str(out, av_str_c(entry_group(names, e->st.st_gid)));
	av_buf_printf(out, ",\"modifiedTime\":\"%s\"", time);
	if (S_ISLNK(e->st.st_mode)) {
		av_buf_append_c(out, ",\"symlinkTarget\":");
		av_json_write_str(out, av_str_c(e->link));
	}
	return av_buf_append_char(out, '}');
}
