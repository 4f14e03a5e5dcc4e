/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tar_get.c - GET /files/tar: a directory and what is in it, as a tar archive
 *
 * Theory of operation. A thread of the pool walks (walk.h, names sorted, so that the same tree
 * gives the same archive) and fills a block of BLOCK_BYTES with headers and contents; the loop
 * sends it without a copy and asks for the next while fewer than AHEAD_BYTES wait. Memory does not
 * depend on the tree.
 *
 * Names begin with "./"; the first entry is the directory. Files, directories and symbolic links
 * are packed; hard links become files of their own; sockets, pipes and devices are left out, as is
 * what is inside of procfs and sysfs. A file that grows meanwhile is cut at the size in its header,
 * one that shrinks is filled up with zeros, one that vanishes is left out. What the user may not
 * read ends the archive: in the first block with an error, later with a reset.
 *
 * States: opening → sending (a block may be under way) → closed. The struct lives as long as the
 * stream or a job of the pool needs it.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "agent/entry.h"
#include "agent/fsjob.h"
#include "agent/fsop.h"
#include "agent/handlers.h"
#include "agent/memory.h"
#include "base/avtime.h"
#include "base/fd.h"
#include "proto/tar.h"

#include "base/banned.h"

#define BLOCK_BYTES ((size_t)256 * 1024)
#define AHEAD_BYTES ((size_t)512 * 1024)
#define HEAD_BYTES  ((size_t)64 * 1024) /* headers of one entry, and the end */

struct tar_get {
	struct request *rq; /* NULL once the stream is closed */
	uv_work_t work;
	bool working;
	bool begun; /* the response has its head */
	struct agent_user user;
	char path[AV_PATH_MAX + 1];
	/* The job's while working: */
	bool opened, ended, done;
	struct walk walk;
	struct entry_names names;
	dev_t dev;          /* of the root */
	struct av_buf head; /* headers that wait for a block */
	int file;           /* whose content is due, or -1 */
	uint64_t left;      /* of it */
	size_t pad;         /* zeros behind it */
	struct av_http2_block *block;
	int error;
	struct av_err err;
};

static void get_free(struct tar_get *t, struct agent *a)
{
	if (t->opened)
		walk_close(&t->walk);
	entry_names_clear(&t->names);
	av_buf_clear(&t->head);
	av_close_fd(&t->file);
	if (t->block)
		av_http2_block_unref(t->block);
	memory_trim_later(a);
	fsjob_leave(a, t);
}

/* --- on a thread of the pool --- */

static int explain(struct tar_get *t, int error, struct av_str below)
{
	char path[AV_PATH_MAX + 1];

	if (error == -E2BIG ||
	    av_path_printf(path, sizeof(path), "%s/%.*s", t->path, AV_STR_ARG(below)) < 0)
		return fsop_explain(error, t->path, &t->err);
	return fsop_explain(error, path, &t->err);
}

static int put_header(struct tar_get *t, enum av_tar_type type, const struct stat *st,
    struct av_str below, const char *link)
{
	char path[AV_PATH_MAX + 1];
	const struct av_tar_entry e = {
	    .type = type,
	    .path = path,
	    .link = link,
	    .size = type == AV_TAR_FILE ? (uint64_t)st->st_size : 0,
	    .mode = (uint32_t)st->st_mode & 07777,
	    .mtime = st->st_mtim.tv_sec,
	    .uid = st->st_uid,
	    .gid = st->st_gid,
	    .user = entry_user(&t->names, st->st_uid),
	    .group = entry_group(&t->names, st->st_gid),
	};
	bool slash = type == AV_TAR_DIR && below.n;

	if (av_path_printf(path, sizeof(path), "./%.*s%s", AV_STR_ARG(below), slash ? "/" : "") < 0)
		return explain(t, -ENAMETOOLONG, below);
	if (av_tar_write(&t->head, &e) < 0)
		return av_err_set(
		    &t->err, AV_ERR_NO_MEMORY, "out of memory in the sandbox's agent");
	return 0;
}

static int open_root(struct tar_get *t)
{
	int fd = fsop_openat(AT_FDCWD, t->path, O_RDONLY | O_DIRECTORY, 0);
	struct stat st = {0};
	int r;

	if (fd == -ENOTDIR)
		return av_err_set(
		    &t->err, AV_ERR_INVALID, "path is not a directory: %.300s", t->path);
	if (fd < 0)
		return fsop_explain(fd, t->path, &t->err);
	if (fsop_is_control(fd)) {
		close(fd);
		return av_err_set(
		    &t->err, AV_ERR_INVALID, "path '%.300s' is on procfs or sysfs", t->path);
	}
	r = walk_open(&t->walk, fd, WALK_SORTED);
	t->opened = r == 0;
	if (r == 0 && fstat(walk_root(&t->walk), &st) < 0)
		r = -errno;
	if (r < 0)
		return fsop_explain(r, t->path, &t->err);
	t->dev = st.st_dev;
	return put_header(t, AV_TAR_DIR, &st, AV_STR(""), "");
}

/* A regular file by the descriptor that will be read: what its header says is what was opened. */
static int begin_file(struct tar_get *t, const struct walk_item *it)
{
	AV_CLEANUP(av_closep) int fd = fsop_openat(it->dirfd, it->name, O_RDONLY | O_NOFOLLOW, 0);
	struct stat st;
	int r;

	if (fd < 0 || fstat(fd, &st) < 0) {
		r = fd < 0 ? fd : -errno;
		return r == -ENOENT || r == -ELOOP ? 0 : explain(t, r, it->path);
	}
	if (!S_ISREG(st.st_mode))
		return 0;
	r = put_header(t, AV_TAR_FILE, &st, it->path, "");
	if (r < 0)
		return r;
	t->file = AV_TAKE_FD(fd);
	t->left = (uint64_t)st.st_size;
	t->pad = av_tar_padding(t->left);
	return 0;
}

static int put_link(struct tar_get *t, const struct walk_item *it, const struct stat *st)
{
	char target[AV_PATH_MAX + 1];
	ssize_t n = readlinkat(it->dirfd, it->name, target, AV_PATH_MAX);

	if (n <= 0)
		return 0; /* it vanished, or was replaced */
	target[n] = '\0';
	return put_header(t, AV_TAR_SYMLINK, st, it->path, target);
}

static int put_dir(struct tar_get *t, const struct walk_item *it, const struct stat *st)
{
	int r = put_header(t, AV_TAR_DIR, st, it->path, "");

	if (r < 0)
		return r;
	if (st->st_dev != t->dev) {
		AV_CLEANUP(av_closep)
		int fd = fsop_openat(it->dirfd, it->name, O_PATH | O_DIRECTORY | O_NOFOLLOW, 0);

		if (fd < 0 || fsop_is_control(fd))
			return 0;
	}
	r = walk_enter(&t->walk);
	if (r == -ENOENT || r == -ENOTDIR)
		return 0;
	return r < 0 ? explain(t, r, it->path) : 0;
}

static int next_entry(struct tar_get *t)
{
	struct walk_item it;
	struct stat st;
	int r = walk_next(&t->walk, &it);

	if (r < 0)
		return explain(t, r, av_str_c(t->walk.path));
	if (r == 0) {
		t->ended = true;
		return av_tar_write_end(&t->head) < 0 ? av_err_set(&t->err, AV_ERR_NO_MEMORY,
		                                            "out of memory in the sandbox's agent")
		                                      : 0;
	}
	if (it.leave || fstatat(it.dirfd, it.name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return 0;
	if (S_ISDIR(st.st_mode))
		return put_dir(t, &it, &st);
	if (S_ISLNK(st.st_mode))
		return put_link(t, &it, &st);
	return S_ISREG(st.st_mode) ? begin_file(t, &it) : 0;
}

/* Content, and zeros where there is less than was said. */
static int put_content(struct tar_get *t, struct av_http2_block *b)
{
	size_t want = (size_t)AV_MIN(t->left, (uint64_t)(b->cap - b->n));
	ssize_t n = av_read_full(t->file, b->data + b->n, want);

	if (n < 0)
		return fsop_explain((int)n, t->path, &t->err);
	memset(b->data + b->n + n, 0, want - (size_t)n);
	b->n += (uint32_t)want;
	t->left -= want;
	if (t->left == 0)
		av_close_fd(&t->file);
	return 0;
}

static int fill_block(struct tar_get *t, struct av_http2_block *b)
{
	int64_t until = av_mono_ns() + WALK_SLICE_NS;
	int r = 0;

	while (r == 0 && b->n < b->cap && !t->done) {
		size_t room = b->cap - b->n;

		if (t->head.n) {
			size_t n = AV_MIN(room, t->head.n);

			memcpy(b->data + b->n, av_buf_str(&t->head).p, n);
			b->n += (uint32_t)n;
			av_buf_consume(&t->head, n);
		} else if (t->file >= 0 && t->left) {
			r = put_content(t, b);
		} else if (t->pad) {
			size_t n = AV_MIN(room, t->pad);

			memset(b->data + b->n, 0, n);
			b->n += (uint32_t)n;
			t->pad -= n;
		} else if (t->ended) {
			t->done = true;
		} else {
			av_close_fd(&t->file); /* an empty one */
			r = next_entry(t);
		}
		if (b->n && av_mono_ns() > until)
			break;
	}
	return r;
}

static void work_block(uv_work_t *work)
{
	struct tar_get *t = AV_CONTAINER_OF(work, struct tar_get, work);
	int r = fsop_become(&t->user);

	t->block = av_http2_block_new(BLOCK_BYTES);
	if (r < 0)
		t->error = fsop_explain(r, t->path, &t->err);
	else if (!t->block)
		t->error =
		    av_err_set(&t->err, AV_ERR_NO_MEMORY, "out of memory in the sandbox's agent");
	else if (!t->opened)
		t->error = open_root(t);
	if (t->error == 0)
		t->error = fill_block(t, t->block);
	fsop_become_self();
}

/* --- on the loop --- */

static void after_block(uv_work_t *work, int status);

static void next_block(struct tar_get *t)
{
	if (t->working || t->done || av_http2_buffered(t->rq->stream) > AHEAD_BYTES)
		return;
	t->working = true;
	if (uv_queue_work(&t->rq->agent->loop, &t->work, work_block, after_block) < 0) {
		t->working = false;
		request_reset(t->rq, AV_HTTP2_INTERNAL_ERROR);
	}
}

static bool begin(struct tar_get *t)
{
	struct av_http_head head;
	bool good;

	if (t->begun)
		return true;
	t->begun = true;
	av_http_head_response(&head, 200);
	good = av_http_head_add_c(&head, "content-type", "application/x-tar") == 0 &&
	       request_begin(t->rq, &head);
	av_http_head_clear(&head);
	if (!good)
		request_reset(t->rq, AV_HTTP2_INTERNAL_ERROR);
	return good;
}

/* True when there is more to come. */
static bool send_block(struct tar_get *t)
{
	struct av_http2_block *b = AV_TAKE_PTR(t->block);

	if (t->error < 0) {
		if (b)
			av_http2_block_unref(b);
		if (t->begun)
			request_reset(t->rq, AV_HTTP2_INTERNAL_ERROR);
		else
			request_fail_err(t->rq, &t->err);
		return false;
	}
	if (!begin(t)) {
		av_http2_block_unref(b);
		return false;
	}
	if (b->n == 0)
		av_http2_block_unref(b);
	else if (!request_send_block(t->rq, b))
		return false;
	if (t->done)
		request_finish_all(t->rq);
	return !t->done;
}

static void after_block(uv_work_t *work, int status)
{
	struct tar_get *t = AV_CONTAINER_OF(work, struct tar_get, work);
	struct agent *a = AV_CONTAINER_OF(work->loop, struct agent, loop);

	(void)status;
	t->working = false;
	if (t->rq && send_block(t)) {
		next_block(t);
		return;
	}
	if (t->rq) {
		struct request *rq = AV_TAKE_PTR(t->rq);

		rq->data = NULL;
		request_ignore_rest(rq);
	}
	get_free(t, a);
}

static void get_body(struct request *rq, const uint8_t *p, size_t n)
{
	(void)p;
	request_consume(rq, n);
}

static void get_drain(struct request *rq)
{
	next_block(rq->data);
}

static void get_close(struct request *rq, uint32_t error)
{
	struct tar_get *t = rq->data;

	(void)error;
	t->rq = NULL;
	if (!t->working)
		get_free(t, rq->agent);
}

static const struct request_ops get_ops = {
    .on_body = get_body, .on_drain = get_drain, .on_close = get_close};

void tar_get(struct request *rq)
{
	struct tar_get *t = fsjob_place_http(rq, sizeof(*t));

	if (!t)
		return;
	t->rq = rq;
	t->file = -1;
	av_buf_init(&t->head, HEAD_BYTES);
	if (!fs_query_target(rq, &t->user, t->path)) {
		get_free(t, rq->agent);
		return;
	}
	rq->data = t;
	rq->ops = &get_ops;
	next_block(t);
}
