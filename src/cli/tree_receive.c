/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tree_receive.c - a tar stream that a sandbox wrote, made into files of this machine
 *
 * The stream is hostile. It may name "../../etc/passwd" or "/etc/passwd", make a link "a -> /etc"
 * and then a file "a/passwd", hard-link to files outside, make set-uid programs and devices. So:
 *   - we work inside the target directory, with relative names only; libarchive refuses absolute
 *     names and "..", and never goes through a symbolic link: one that stands in the way is
 * replaced by a directory, one in the target of a hard link is an error;
 *   - what is there already is unlinked first, never written through;
 *   - only files, directories, symbolic links and hard links are made, the rest is left out;
 *   - of the modes only rwx are taken; owners, ACLs, attributes and flags are not.
 */
#include "cli/tree.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "cli/cli.h"

#include "base/banned.h"

#define EXTRACT_FLAGS                                                                              \
	(ARCHIVE_EXTRACT_PERM | ARCHIVE_EXTRACT_TIME | ARCHIVE_EXTRACT_UNLINK |                    \
	    ARCHIVE_EXTRACT_SECURE_SYMLINKS | ARCHIVE_EXTRACT_SECURE_NODOTDOT |                    \
	    ARCHIVE_EXTRACT_SECURE_NOABSOLUTEPATHS)

struct receiver {
	struct av_tree *tree;
	struct progress *progress;
	struct av_err *err;
	bool failed; /* in the transfer: *err is set */
};

static la_ssize_t on_read(struct archive *a, void *ctx, const void **ret)
{
	struct receiver *r = ctx;
	const char *p = NULL;
	ssize_t n = av_tree_read(r->tree, &p, r->err);
	if (n < 0) {
		r->failed = true;
		archive_set_error(a, EPIPE, "the stream ended");
		return -1;
	}
	progress_add(r->progress, (uint64_t)n);
	*ret = p;
	return n;
}

static int fail(const struct receiver *r, struct archive *a, const char *name)
{
	if (r->failed)
		return -EPIPE;
	return av_err_set(r->err, AV_ERR_INTERNAL, "%s: %s", name,
	    archive_error_string(a) ? archive_error_string(a) : "cannot be unpacked");
}

static int copy_content(
    const struct receiver *r, struct archive *tar, struct archive *disk, const char *name)
{
	const void *p;
	size_t n;
	la_int64_t offset;
	for (;;) {
		int a = archive_read_data_block(tar, &p, &n, &offset);
		if (a == ARCHIVE_EOF)
			return 0;
		if (a < ARCHIVE_WARN)
			return fail(r, tar, name);
		if (archive_write_data_block(disk, p, n, offset) < ARCHIVE_WARN)
			return fail(r, disk, name);
	}
}

static int receive_entry(
    const struct receiver *r, struct archive *tar, struct archive *disk, struct archive_entry *e)
{
	mode_t type = archive_entry_filetype(e);
	const char *name = archive_entry_pathname(e);
	if (!name)
		return av_err_set(r->err, AV_ERR_AGENT, "the sandbox sent a name that is none");
	bool is_link = archive_entry_hardlink(e) != NULL;
	if (!is_link && type != AE_IFREG && type != AE_IFDIR && type != AE_IFLNK) {
		cli_warn("%s: left out, as it is neither a file nor a directory nor a link", name);
		return 0;
	}
	/* The caller of this program must be able to enter and remove what a sandbox made. */
	archive_entry_set_perm(e, (archive_entry_perm(e) & 0777) | (type == AE_IFDIR ? 0700 : 0));
	archive_entry_acl_clear(e);
	archive_entry_xattr_clear(e);
	archive_entry_set_fflags(e, 0, 0);
	if (archive_write_header(disk, e) < ARCHIVE_WARN)
		return fail(r, disk, name);
	int s = archive_entry_size(e) > 0 ? copy_content(r, tar, disk, name) : 0;
	if (s == 0 && archive_write_finish_entry(disk) < ARCHIVE_WARN)
		s = fail(r, disk, name);
	return s;
}

static int receive_all(const struct receiver *r, struct archive *tar, struct archive *disk)
{
	for (;;) {
		struct archive_entry *e;
		int a = archive_read_next_header(tar, &e);
		if (a == ARCHIVE_EOF)
			break;
		if (a < ARCHIVE_WARN)
			return fail(r, tar, "the stream from the sandbox");
		int s = receive_entry(r, tar, disk, e);
		if (s < 0)
			return s;
	}
	return archive_write_close(disk) < ARCHIVE_WARN ? fail(r, disk, "the directory") : 0;
}

int tree_receive(
    struct av_tree *tree, const char *path, struct progress *progress, struct av_err *err)
{
	struct receiver r = {.tree = tree, .progress = progress, .err = err};
	AV_CLEANUP(av_closep) int before = open(".", O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (before < 0 || chdir(path) < 0)
		return av_err_sys(err, AV_ERR_INTERNAL, errno, "%s", path);
	struct archive *tar = archive_read_new(), *disk = archive_write_disk_new();
	int s;
	if (!tar || !disk) {
		s = av_err_sys(err, AV_ERR_NO_MEMORY, ENOMEM, "copy");
	} else {
		archive_read_support_format_tar(tar);
		archive_write_disk_set_options(disk, EXTRACT_FLAGS);
		if (archive_read_open(tar, &r, NULL, on_read, NULL) != ARCHIVE_OK)
			s = fail(&r, tar, "the stream from the sandbox");
		else
			s = receive_all(&r, tar, disk);
	}
	archive_read_free(tar);
	archive_write_free(disk);
	if (fchdir(before) < 0 && s == 0)
		s = av_err_sys(err, AV_ERR_INTERNAL, errno, "working directory");
	return s;
}
