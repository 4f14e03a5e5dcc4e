/* SPDX-License-Identifier: Apache-2.0 */
/*
 * unpack.h - a hostile tar archive made into files below one directory, blocking
 *
 * Theory of operation. Attackers: who made the archive, and processes that rename and link below
 * the directory meanwhile. In a sandbox the agent unpacks what a client sends; on the machine of a
 * client libaviary unpacks what a sandbox sends. Defences:
 *   - Names are relative without "..", and every directory on the way is opened with
 *     RESOLVE_BENEATH from the one directory that was opened first: links inside of it work,
 * whatever leads out of it is refused by the kernel in the same step, and a race changes nothing.
 * Where the kernel has no openat2, part by part and through no link at all.
 *   - The last part of a name is never followed: what stands there is unlinked and made anew, so
 *     that no file that exists is written through a link. Directories that exist stay.
 *   - Hard links may only name what is below the directory.
 *   - Devices and FIFOs are left out and counted. Set-user-ID and set-group-ID bits are dropped.
 *   - All is done with the rights of the calling thread, to whose user the files belong.
 *
 * Memory: the decoder's, one descriptor for the file being written and two for directories, and
 * modes and times of directories, which are set last: at most UNPACK_LATER_MAX bytes of them; the
 * modes of those that do not fit are set at once and their times not.
 *
 * An archive that is refused in the middle leaves what was unpacked so far, but no half file.
 */
#pragma once

#include <stdbool.h>

#include "proto/tar.h"

#define UNPACK_LATER_MAX ((size_t)8 * 1024 * 1024)

struct unpack_options {
	/* Says in words what a system call answered of a path; sets *err, returns the -errno. */
	int (*explain)(int error, const char *path, struct av_err *err);
	/* Directories can be entered and changed by their owner, whatever the archive says. */
	bool keep_access;
	void (*on_left_out)(void *ctx, const char *name); /* a device or FIFO; may be NULL */
	void *ctx;
};

struct unpack {
	struct av_tar_dec dec;
	int dest;   /* the directory */
	int parent; /* of the last entry */
	char parent_path[AV_PATH_MAX + 1];
	int file;                   /* being written, or -1 */
	char name[AV_PATH_MAX + 1]; /* of the entry, cleaned */
	uint32_t mode;
	int64_t mtime;
	struct av_buf later;
	uint64_t entries, bytes, skipped;
	struct av_err *err; /* of the call under way */
	struct unpack_options o;
};

/* dest: the directory, open for reading; taken over. -1: only for unpack_close(). */
void unpack_init(struct unpack *u, int dest, const struct unpack_options *options);
/* The next bytes of the archive. */
int unpack_feed(struct unpack *u, const void *p, size_t n, struct av_err *err);
/* The archive is complete, or not: checks it. */
int unpack_end(struct unpack *u, struct av_err *err);
/* Sets modes and times of some directories; 1: call again, 0: all is done. */
int unpack_settle(struct unpack *u);
/* Closes, and removes a file that is half written. */
void unpack_close(struct unpack *u);
