/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tree_send.c - a local directory as a tar stream
 *
 * GNU tar format: long names and large files in a form that GNU tar and busybox both read. Owners
 * are not sent: the files belong to whoever unpacks them.
 */
#include "cli/tree.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/fd.h"
#include "cli/cli.h"

#include "base/banned.h"

struct sender {
	struct av_tree *tree;
	struct progress *progress;
	struct av_err *err;
	bool failed; /* in the transfer: *err is set */
};

static la_ssize_t on_write(struct archive *a, void *ctx, const void *p, size_t n)
{
	struct sender *s = ctx;
	if (av_tree_write(s->tree, p, n, s->err) < 0) {
		s->failed = true;
		archive_set_error(a, EPIPE, "the stream ended");
		return -1;
	}
	progress_add(s->progress, n);
	return (la_ssize_t)n;
}

static int fail(const struct sender *s, struct archive *a, const char *path)
{
	if (s->failed)
		return -EPIPE;
	return av_err_set(s->err, AV_ERR_INTERNAL, "%s: %s", path,
	    archive_error_string(a) ? archive_error_string(a) : "cannot be read");
}

/* Exactly as many bytes as the header said: a file that shrinks meanwhile is filled up. */
static int send_content(const struct sender *s, struct archive *tar, const char *path, int64_t size)
{
	static char p[256 * 1024];
	AV_CLEANUP(av_closep) int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0)
		return av_err_sys(s->err, AV_ERR_INTERNAL, errno, "%s", path);
	while (size > 0) {
		size_t want = (size_t)AV_MIN(size, (int64_t)sizeof(p));
		ssize_t n = read(fd, p, want);
		if (n < 0)
			return av_err_sys(s->err, AV_ERR_INTERNAL, errno, "%s", path);
		if (n == 0) {
			memset(p, 0, want);
			n = (ssize_t)want;
		}
		if (archive_write_data(tar, p, (size_t)n) < 0)
			return fail(s, tar, path);
		size -= n;
	}
	return 0;
}

static int send_entry(
    const struct sender *s, struct archive *tar, struct archive_entry *e, size_t root_length)
{
	AV_CLEANUP(av_buf_clear) struct av_buf name = AV_BUF_INIT(64 * AV_KIB);
	AV_CLEANUP(av_freep) char *path = av_str_dup(av_str_c(archive_entry_sourcepath(e)));
	mode_t type = archive_entry_filetype(e);
	if (!path)
		return av_err_sys(s->err, AV_ERR_NO_MEMORY, ENOMEM, "copy");
	if (type != AE_IFREG && type != AE_IFDIR && type != AE_IFLNK) {
		cli_warn("%s: left out, as it is neither a file nor a directory nor a link", path);
		return 0;
	}
	av_buf_printf(&name, ".%s%s", path[root_length] && path[root_length] != '/' ? "/" : "",
	    path + root_length);
	if (av_buf_error(&name))
		return av_err_set(s->err, AV_ERR_INVALID, "%s: the path is too long", path);
	archive_entry_set_pathname(e, av_buf_cstr(&name));
	archive_entry_set_uid(e, 0);
	archive_entry_set_gid(e, 0);
	archive_entry_set_uname(e, NULL);
	archive_entry_set_gname(e, NULL);
	archive_entry_set_hardlink(e, NULL);
	if (type != AE_IFREG)
		archive_entry_set_size(e, 0);
	if (archive_write_header(tar, e) < ARCHIVE_WARN)
		return fail(s, tar, path);
	return type == AE_IFREG ? send_content(s, tar, path, archive_entry_size(e)) : 0;
}

static int send_all(
    const struct sender *s, struct archive *disk, struct archive *tar, const char *path)
{
	struct archive_entry *e = archive_entry_new2(disk);
	if (!e)
		return av_err_sys(s->err, AV_ERR_NO_MEMORY, ENOMEM, "copy");
	int r = 0;
	for (;;) {
		archive_entry_clear(e);
		int a = archive_read_next_header2(disk, e);
		if (a == ARCHIVE_EOF)
			break;
		if (a < ARCHIVE_WARN && (r = fail(s, disk, path)) < 0)
			break;
		archive_read_disk_descend(disk);
		if ((r = send_entry(s, tar, e, strlen(path))) < 0)
			break;
	}
	archive_entry_free(e);
	if (r == 0 && archive_write_close(tar) != ARCHIVE_OK)
		r = fail(s, tar, path);
	return r;
}

int tree_send(const char *path, struct av_tree *tree, struct progress *progress, struct av_err *err)
{
	struct sender s = {.tree = tree, .progress = progress, .err = err};
	struct archive *disk = archive_read_disk_new(), *tar = archive_write_new();
	int r;
	if (!disk || !tar) {
		r = av_err_sys(err, AV_ERR_NO_MEMORY, ENOMEM, "copy");
	} else {
		archive_read_disk_set_symlink_physical(disk);
		archive_read_disk_set_behavior(
		    disk, ARCHIVE_READDISK_NO_XATTR | ARCHIVE_READDISK_NO_ACL |
		              ARCHIVE_READDISK_NO_FFLAGS | ARCHIVE_READDISK_NO_SPARSE);
		archive_write_set_format_gnutar(tar);
		archive_write_set_bytes_per_block(tar, 64 * 1024);
		archive_write_set_bytes_in_last_block(tar, 512);
		if (archive_read_disk_open(disk, path) != ARCHIVE_OK)
			r = fail(&s, disk, path);
		else if (archive_write_open(tar, &s, NULL, on_write, NULL) != ARCHIVE_OK)
			r = fail(&s, tar, path);
		else
			r = send_all(&s, disk, tar, path);
	}
	archive_read_free(disk);
	archive_write_free(tar);
	return r;
}
