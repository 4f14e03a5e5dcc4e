/* SPDX-License-Identifier: Apache-2.0 */
/*
 * files.h - files and directories of a sandbox: read, write, stream, list, change, watch
 *
 * Every call starts the sandbox where that was not done and waits until it runs. Paths that do not
 * begin with "/" start at the home of the user with whose rights it is done, "~" is that home; they
 * are bytes without NUL where contents move (read, write, upload, download, trees) and UTF-8
 * elsewhere. Errors are of AVIARY_GROUP_FILE where the file is what is wrong, and name it
 * (aviary_error.path).
 *
 * Bodies that stream take constant memory here (under 1 MiB each) and at every station between. A
 * transfer that breaks off is an error, always: a download has succeeded only when the server said
 * how much there is and all of it came. What was begun is repeated after a failure that passes only
 * when nothing was given out yet and what is to be sent can be had from its beginning again: memory
 * and regular files.
 *
 * Calls with _sync wait for the same operation and give its result; they fill *error (may be NULL).
 */
#ifndef AVIARY_FILES_H
#define AVIARY_FILES_H

#include <aviary/models.h>
#include <aviary/sandbox.h>

AVIARY_BEGIN_DECLS

/* A file or directory of this machine that a tree leaves out; see on_left_out. */
typedef void aviary_left_out_fn(void *ctx, const char *path);

/* How a call is done; may be NULL everywhere. Each call says in its name what it looks at. */
typedef struct aviary_file_options {
	size_t struct_size;
	const char *user; /* with whose rights; default: the sandbox's */
	/* Of the request, once the sandbox runs. Default: of calls the client's request time-out,
	 * of transfers none. */
	int64_t timeout_ms;
	/* Of transfers: AVIARY_E_TIMEOUT when neither side moved a byte for so long while it was
	 * not we who were waited for. Default: the client's request time-out; -1: none. */
	int64_t idle_timeout_ms;
	/* read: more is AVIARY_E_TOO_LARGE; default 64 MiB, at most 255 MiB. tree_download: bytes
	 * of contents; default: no limit. */
	uint64_t max_bytes;
	unsigned depth; /* list: levels below the directory; default 1 */
	int recursive;  /* chmod, chown, watch: also what is below */
	int missing_ok; /* remove: what is not there is removed */
	/* tree_upload, tree_download: called for each socket, pipe and device, which are left out;
	 * from where operations are driven. */
	aviary_left_out_fn *on_left_out;
	void *on_left_out_ctx;
} aviary_file_options;
#define AVIARY_FILE_OPTIONS_INIT                                                                   \
	{                                                                                          \
		sizeof(aviary_file_options), 0, 0, 0, 0, 0, 0, 0, 0, 0                             \
	}

/* ---- whole files ---- */

/* Reads a file into memory. Result: aviary_text of models.h, its n bytes, whatever they are, with a
 * NUL behind them that does not count. */
AVIARY_API aviary_op *aviary_file_read(
    aviary_sandbox *sb, const char *path, const aviary_file_options *options);
AVIARY_API aviary_text *aviary_file_read_sync(
    aviary_sandbox *sb, const char *path, const aviary_file_options *options, aviary_error *error);
/* Writes size bytes (copied). Parents are made, a file that is there is replaced; one that was not
 * gets mode 0644. Half a file never stays behind. */
AVIARY_API aviary_op *aviary_file_write(aviary_sandbox *sb, const char *path, const void *data,
    size_t size, const aviary_file_options *options);
AVIARY_API int aviary_file_write_sync(aviary_sandbox *sb, const char *path, const void *data,
    size_t size, const aviary_file_options *options, aviary_error *error);

/* ---- streams ----
 *
 * Callbacks run from where operations are driven, one at a time for a transfer, and may call
 * everything that does not wait, also aviary_op_cancel of their own operation. None runs any more
 * when it is done: what is cancelled while one runs is done when that has returned.
 *
 * A descriptor is duplicated, so it may be closed after the call. Its position moves. Regular files
 * are read and written as they stand; pipes, sockets and terminals are waited for, and may block or
 * not. A failure here is AVIARY_E_LOCAL (AVIARY_E_NO_SPACE for a full disk).
 */

/* Up to n bytes into buf: how many, 0 at the end, AVIARY_E_AGAIN: not now, until
 * aviary_transfer_resume. Another code ends the operation with it, other negative numbers with
 * AVIARY_E_CANCELED. */
typedef int64_t aviary_read_fn(void *ctx, void *buf, size_t n);
/* Takes of n bytes: how many (fewer: the rest comes after aviary_transfer_resume), AVIARY_E_AGAIN:
 * none now; others as above. */
typedef int64_t aviary_write_fn(void *ctx, const void *data, size_t n);

/* What said "not now" is asked again. From any thread that may use the client; nothing for
 * operations that are no transfers, or done. */
AVIARY_API void aviary_transfer_resume(aviary_op *op);
/* Bytes that were moved so far, and of how many (-1: not known). Either pointer may be NULL. */
AVIARY_API void aviary_transfer_progress(
    const aviary_op *op, int64_t *ret_done, int64_t *ret_total);

/* Writes a file, as aviary_file_write does. size: how many bytes come, -1: not known; fewer or more
 * than announced is AVIARY_E_INVALID or left in the source. upload_fd finds out by itself. */
AVIARY_API aviary_op *aviary_file_upload(aviary_sandbox *sb, const char *path, aviary_read_fn *fn,
    void *ctx, int64_t size, const aviary_file_options *options);
AVIARY_API aviary_op *aviary_file_upload_fd(
    aviary_sandbox *sb, const char *path, int fd, const aviary_file_options *options);
/* Reads one. When the operation fails, what came until then is a part. */
AVIARY_API aviary_op *aviary_file_download(aviary_sandbox *sb, const char *path,
    aviary_write_fn *fn, void *ctx, const aviary_file_options *options);
AVIARY_API aviary_op *aviary_file_download_fd(
    aviary_sandbox *sb, const char *path, int fd, const aviary_file_options *options);
AVIARY_API int aviary_file_upload_fd_sync(aviary_sandbox *sb, const char *path, int fd,
    const aviary_file_options *options, aviary_error *error);
AVIARY_API int aviary_file_download_fd_sync(aviary_sandbox *sb, const char *path, int fd,
    const aviary_file_options *options, aviary_error *error);

/* ---- what is there ---- */

/* Results are aviary_entry (stat, mkdir, move) and aviary_entries (list) of models.h. A link has
 * the type and mode of what it leads to; one that leads nowhere is AVIARY_FILE_TYPE_SYMLINK. Pipes,
 * sockets and devices are AVIARY_FILE_TYPE_FILE, and permissions begins with their letter.
 * modified_at is seconds since 1970. */

/* Result: aviary_entry. */
AVIARY_API aviary_op *aviary_file_stat(
    aviary_sandbox *sb, const char *path, const aviary_file_options *options);
AVIARY_API aviary_entry *aviary_file_stat_sync(
    aviary_sandbox *sb, const char *path, const aviary_file_options *options, aviary_error *error);
/* The same, but what is not there is no error: then there is no result. The twin: 1, 0, or a code.
 */
AVIARY_API aviary_op *aviary_file_exists(
    aviary_sandbox *sb, const char *path, const aviary_file_options *options);
AVIARY_API int aviary_file_exists_sync(
    aviary_sandbox *sb, const char *path, const aviary_file_options *options, aviary_error *error);
/* What is in a directory, to options->depth; names sorted by their bytes, a directory before what
 * is in it. Links are not followed, except path itself. Result: aviary_entries. */
AVIARY_API aviary_op *aviary_file_list(
    aviary_sandbox *sb, const char *path, const aviary_file_options *options);
AVIARY_API aviary_entries *aviary_file_list_sync(
    aviary_sandbox *sb, const char *path, const aviary_file_options *options, aviary_error *error);

/* ---- changes ---- */

/* Makes a directory with its parents. One that is there: AVIARY_E_FILE_EXISTS. Result:
 * aviary_entry. */
AVIARY_API aviary_op *aviary_file_mkdir(
    aviary_sandbox *sb, const char *path, const aviary_file_options *options);
/* Moves or renames, within one file system; parents are made, a file that is there is replaced.
 * Result: aviary_entry, of its new place. */
AVIARY_API aviary_op *aviary_file_move(
    aviary_sandbox *sb, const char *from, const char *to, const aviary_file_options *options);
/* Removes a file, or a directory with all that is in it. */
AVIARY_API aviary_op *aviary_file_remove(
    aviary_sandbox *sb, const char *path, const aviary_file_options *options);
/* mode: at most 07777. */
AVIARY_API aviary_op *aviary_file_chmod(
    aviary_sandbox *sb, const char *path, unsigned mode, const aviary_file_options *options);
/* Names or numbers of the sandbox; NULL: as it is. */
AVIARY_API aviary_op *aviary_file_chown(aviary_sandbox *sb, const char *path, const char *owner,
    const char *group, const aviary_file_options *options);
AVIARY_API int aviary_file_mkdir_sync(
    aviary_sandbox *sb, const char *path, const aviary_file_options *options, aviary_error *error);
AVIARY_API int aviary_file_move_sync(aviary_sandbox *sb, const char *from, const char *to,
    const aviary_file_options *options, aviary_error *error);
AVIARY_API int aviary_file_remove_sync(
    aviary_sandbox *sb, const char *path, const aviary_file_options *options, aviary_error *error);
AVIARY_API int aviary_file_chmod_sync(aviary_sandbox *sb, const char *path, unsigned mode,
    const aviary_file_options *options, aviary_error *error);
AVIARY_API int aviary_file_chown_sync(aviary_sandbox *sb, const char *path, const char *owner,
    const char *group, const aviary_file_options *options, aviary_error *error);

/* ---- directory trees ----
 *
 * As tar streams in constant memory. Files, directories and symbolic links with modes and times;
 * owners are those of who unpacks. Sockets, pipes and devices are left out.
 *
 * What a sandbox sends is taken for an enemy's: nothing is written outside of the target directory,
 * whatever names, links and types come, also when other programs change it meanwhile. Names that
 * are absolute, have "..", or go through a link that leads out are AVIARY_E_PROTOCOL; what stands
 * in the way of an entry is replaced and never written through, except directories, which stay.
 * Modes are rwx only, and directories stay accessible for their owner. Symbolic links are made as
 * they are: who follows them later, out of the directory, does so himself.
 *
 * When the operation fails, what was unpacked before stays, but no half file.
 */

typedef struct aviary_tree_result {
	int64_t entries, bytes; /* unpacked: all kinds, and contents of files */
	int64_t left_out;       /* on both sides */
} aviary_tree_result;
/* Result of tree_upload, tar_upload and tree_download. The taker frees it. */
AVIARY_API aviary_tree_result *aviary_op_take_tree_result(aviary_op *op);
AVIARY_API void aviary_tree_result_free(aviary_tree_result *result);

/* What is in the directory local of this machine goes into the directory path of the sandbox, which
 * is made with its parents when it is missing. */
AVIARY_API aviary_op *aviary_tree_upload(
    aviary_sandbox *sb, const char *local, const char *path, const aviary_file_options *options);
AVIARY_API aviary_tree_result *aviary_tree_upload_sync(aviary_sandbox *sb, const char *local,
    const char *path, const aviary_file_options *options, aviary_error *error);
/* What is in the directory path of the sandbox goes into the directory local, which is made when it
 * is missing (its parent is not). */
AVIARY_API aviary_op *aviary_tree_download(
    aviary_sandbox *sb, const char *path, const char *local, const aviary_file_options *options);
AVIARY_API aviary_tree_result *aviary_tree_download_sync(aviary_sandbox *sb, const char *path,
    const char *local, const aviary_file_options *options, aviary_error *error);

/* The archive itself, as it comes: uncompressed tar, names below path. What is downloaded is the
 * sandbox's word: unpack it with care. */
AVIARY_API aviary_op *aviary_tar_upload(aviary_sandbox *sb, const char *path, aviary_read_fn *fn,
    void *ctx, const aviary_file_options *options);
AVIARY_API aviary_op *aviary_tar_upload_fd(
    aviary_sandbox *sb, const char *path, int fd, const aviary_file_options *options);
AVIARY_API aviary_op *aviary_tar_download(aviary_sandbox *sb, const char *path, aviary_write_fn *fn,
    void *ctx, const aviary_file_options *options);
AVIARY_API aviary_op *aviary_tar_download_fd(
    aviary_sandbox *sb, const char *path, int fd, const aviary_file_options *options);

/* ---- URLs for others ---- */

/* Whoever has the URL may read that one file by GET (write 0) or write it by PUT, for lifetime_ms
 * (whole seconds, up to 7 days; 0: an hour). It cannot be taken back except with the sandbox.
 * Result: aviary_file_url of models.h. */
AVIARY_API aviary_op *aviary_file_sign(aviary_sandbox *sb, const char *path, int write,
    int64_t lifetime_ms, const aviary_file_options *options);
AVIARY_API aviary_file_url *aviary_file_sign_sync(aviary_sandbox *sb, const char *path, int write,
    int64_t lifetime_ms, const aviary_file_options *options, aviary_error *error);

/* ---- answers of any size ---- */

/* GET of any path of the API ("/v1/admin/backup", "/v1/audit-logs/export?since=..."), whose answer
 * comes as it is. path is percent-encoded; of options the time-outs count. AVIARY_E_BROKEN when it
 * breaks off: what came until then is a part. No result. */
AVIARY_API aviary_op *aviary_client_download(aviary_client *c, const char *path,
    aviary_write_fn *fn, void *ctx, const aviary_file_options *options);
AVIARY_API aviary_op *aviary_client_download_fd(
    aviary_client *c, const char *path, int fd, const aviary_file_options *options);
AVIARY_API int aviary_client_download_fd_sync(aviary_client *c, const char *path, int fd,
    const aviary_file_options *options, aviary_error *error);

AVIARY_END_DECLS
#endif
