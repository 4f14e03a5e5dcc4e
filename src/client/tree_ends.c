/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tree_ends.c - directories of this machine as ends of a pipe: packed as they are sent, unpacked as
 * they come
 *
 * What is packed belongs to this machine and may change meanwhile: a file that grows is cut at the
 * size in its header, one that shrinks is filled up with zeros, one that vanishes is left out. What
 * is unpacked was written by a sandbox, an enemy: see tree/unpack.h.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "client/tree_ends.h"
#include "tree/unpack.h"
#include "tree/walk.h"

#include "base/banned.h"

#define HEAD_BYTES ((size_t)64 << 10)

static int64_t refuse(struct avc_end *e, int error, const char *path)
{
	(void)snprintf(e->why, sizeof(e->why), "%.250s: %s", path, strerror(error));
	return error == ENOSPC || error == EDQUOT ? AVIARY_E_NO_SPACE
	       : error == ENOMEM                  ? AVIARY_E_NO_MEMORY
	                                          : AVIARY_E_LOCAL;
}

/* ---- packing ---- */

struct pack {
	struct avc_end end; /* first */
	struct avc_tree_counts *counts;
	aviary_left_out_fn *on_left_out;
	void *ctx;
	struct walk walk;
	struct av_buf head; /* headers that wait */
	int file;           /* whose content is due, or -1 */
	uint64_t left;
	size_t pad;
	bool ended;
	char root[]; /* for messages */
};

static int64_t pack_error(struct pack *p, int error, const char *path)
{
	char text[AV_PATH_MAX + 1];

	if (error == E2BIG) {
		(void)snprintf(p->end.why, sizeof(p->end.why),
		    "%.200s: over %d levels, or more names in its directories than can be held; "
		    "send its parts one by one",
		    p->root, WALK_DEPTH_MAX);
		return AVIARY_E_TOO_LARGE;
	}
	(void)snprintf(text, sizeof(text), "%.200s/%.3000s", p->root, path);
	return refuse(&p->end, error, text);
}

static int write_header(struct pack *p, const char *path, const struct stat *st, const char *link)
{
	AV_CLEANUP(av_buf_clear) struct av_buf name = AV_BUF_INIT((size_t)AV_PATH_MAX + 8);
	bool is_dir = S_ISDIR(st->st_mode), is_file = S_ISREG(st->st_mode);
	struct av_tar_entry e = {
	    .type = is_dir    ? AV_TAR_DIR
	            : is_file ? AV_TAR_FILE
	                      : AV_TAR_SYMLINK,
	    .link = link,
	    .size = is_file ? (uint64_t)st->st_size : 0,
	    .mode = (uint32_t)st->st_mode & 07777,
	    .mtime = st->st_mtim.tv_sec,
	};

	(void)av_buf_printf(&name, "./%s%s", path, is_dir && *path ? "/" : "");
	e.path = av_buf_cstr(&name);
	if (!e.path)
		return av_buf_error(&name) == -ENOMEM ? -ENOMEM : -ENAMETOOLONG;
	p->counts->entries++;
	p->counts->bytes += (int64_t)e.size;
	return av_tar_write(&p->head, &e);
}

static int pack_link(struct pack *p, const struct walk_item *it, const struct stat *st)
{
	char target[AV_PATH_MAX + 1];
	ssize_t n = readlinkat(it->dirfd, it->name, target, sizeof(target) - 1);

	if (n < 0)
		return -errno;
	target[n] = '\0';
	return write_header(p, it->path.p, st, target);
}

static int pack_file(struct pack *p, const struct walk_item *it)
{
	AV_CLEANUP(av_closep)
	int fd =
	    openat(it->dirfd, it->name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	struct stat st;
	int r;

	if (fd < 0 || fstat(fd, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode))
		return -ENOENT; /* it is another by now */
	r = write_header(p, it->path.p, &st, "");
	if (r < 0)
		return r;
	p->left = (uint64_t)st.st_size;
	p->pad = av_tar_padding(p->left);
	p->file = AV_TAKE_FD(fd);
	return 0;
}

static int pack_item(struct pack *p, const struct walk_item *it)
{
	struct stat st;
	int r;

	if (fstatat(it->dirfd, it->name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return -errno;
	if (S_ISLNK(st.st_mode))
		return pack_link(p, it, &st);
	if (S_ISREG(st.st_mode))
		return pack_file(p, it);
	if (!S_ISDIR(st.st_mode)) {
		p->counts->left_out++;
		if (p->on_left_out)
			p->on_left_out(p->ctx, it->path.p);
		return 0;
	}
	r = write_header(p, it->path.p, &st, "");
	return r < 0 ? r : walk_enter(&p->walk);
}

/* The next entry, or the end of the archive. 0 or a code. */
static int64_t pack_next(struct pack *p)
{
	char path[AV_PATH_MAX + 1];
	struct walk_item it;
	int r = walk_next(&p->walk, &it);

	if (r < 0)
		return pack_error(p, -r, "");
	if (r == 0) {
		p->ended = true;
		return av_tar_write_end(&p->head) < 0 ? AVIARY_E_NO_MEMORY : 0;
	}
	if (it.leave)
		return 0;
	(void)snprintf(path, sizeof(path), "%.*s", AV_STR_ARG(it.path));
	it.path = av_str_c(path);
	r = pack_item(p, &it);
	return r == 0 || r == -ENOENT ? 0 : pack_error(p, -r, path);
}

/* Content of the file under way. */
static int64_t pack_content(struct pack *p, char *at, size_t n)
{
	ssize_t r;

	n = (size_t)AV_MIN((uint64_t)n, p->left);
	do {
		r = read(p->file, at, n);
	} while (r < 0 && errno == EINTR);
	if (r < 0)
		return refuse(&p->end, errno, p->root);
	if (r == 0) {
		memset(at, 0, n);
		r = (ssize_t)n;
	}
	p->left -= (uint64_t)r;
	if (p->left == 0)
		av_close_fd(&p->file);
	return r;
}

static int64_t pack_move(struct avc_end *e, void *to, size_t n)
{
	struct pack *p = AV_CONTAINER_OF(e, struct pack, end);
	size_t done = 0;

	while (done < n) {
		char *at = (char *)to + done;
		int64_t r;

		if (p->head.n) {
			r = (int64_t)AV_MIN(n - done, p->head.n);
			memcpy(at, p->head.p + p->head.off, (size_t)r);
			av_buf_consume(&p->head, (size_t)r);
		} else if (p->file >= 0 && p->left) {
			r = pack_content(p, at, n - done);
		} else if (p->pad) {
			r = (int64_t)AV_MIN(n - done, p->pad);
			memset(at, 0, (size_t)r);
			p->pad -= (size_t)r;
		} else if (p->ended) {
			break;
		} else {
			av_close_fd(&p->file);
			r = pack_next(p);
		}
		if (r < 0)
			return r;
		done += (size_t)r;
	}
	return (int64_t)done;
}

static void pack_free(struct avc_end *e)
{
	struct pack *p = AV_CONTAINER_OF(e, struct pack, end);

	av_close_fd(&p->file);
	walk_close(&p->walk);
	av_buf_clear(&p->head);
	free(p);
}

struct avc_end *avc_end_pack(
    int fd, const char *path, struct avc_tree_counts *counts, const aviary_file_options *o)
{
	size_t n = strlen(path) + 1;
	struct pack *p = calloc(1, sizeof(*p) + n);
	struct stat st;

	if (!p) {
		close(fd);
		return NULL;
	}
	p->end = (struct avc_end){.move = pack_move, .free = pack_free, .fd = -1};
	p->counts = counts;
	p->on_left_out = o->on_left_out;
	p->ctx = o->on_left_out_ctx;
	p->file = -1;
	memcpy(p->root, path, n);
	av_buf_init(&p->head, HEAD_BYTES);
	if (fstat(fd, &st) < 0 || walk_open(&p->walk, fd, WALK_SORTED) < 0 ||
	    write_header(p, "", &st, "") < 0) {
		pack_free(&p->end);
		return NULL;
	}
	return &p->end;
}

/* ---- unpacking ---- */

struct unpacking {
	struct avc_end end; /* first */
	struct avc_tree_counts *counts;
	aviary_left_out_fn *on_left_out;
	void *ctx;
	uint64_t max_bytes; /* 0: none */
	int parent;         /* where the directory is to be made; -1: it is open */
	bool open, complete;
	struct unpack unpack;
	char name[];
};

static int explain(int error, const char *path, struct av_err *err)
{
	error = error < 0 ? -error : error;
	if (error == ENOSPC || error == EDQUOT)
		return av_err_sys(err, AV_ERR_NO_SPACE, error, "%.300s", path);
	if (error == ENOMEM)
		return av_err_sys(err, AV_ERR_NO_MEMORY, error, "%.300s", path);
	return av_err_sys(err, AV_ERR_INTERNAL, error, "%.300s", path);
}

static int64_t unpack_refuse(struct unpacking *u, const struct av_err *err)
{
	(void)snprintf(u->end.why, sizeof(u->end.why), "%.390s", err->message);
	switch (err->kind) {
	case AV_ERR_NO_SPACE:
		return AVIARY_E_NO_SPACE;
	case AV_ERR_NO_MEMORY:
		return AVIARY_E_NO_MEMORY;
	case AV_ERR_INTERNAL:
		return AVIARY_E_LOCAL;
	default: /* of the archive */
		return AVIARY_E_PROTOCOL;
	}
}

static void on_left_out(void *ctx, const char *name)
{
	struct unpacking *u = ctx;

	if (u->on_left_out)
		u->on_left_out(u->ctx, name);
}

/* Made when the sandbox has something to say, so that a directory that it does not have leaves
 * none here. */
static int64_t unpack_begin(struct unpacking *u)
{
	const struct unpack_options options = {
	    .explain = explain, .keep_access = true, .on_left_out = on_left_out, .ctx = u};
	int fd = u->parent;

	if (u->name[0]) {
		if (mkdirat(u->parent, u->name, 0777) < 0 && errno != EEXIST)
			return refuse(&u->end, errno, u->name);
		fd = openat(u->parent, u->name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		if (fd < 0)
			return refuse(&u->end, errno, u->name);
		close(u->parent);
	}
	u->parent = -1;
	unpack_init(&u->unpack, fd, &options);
	u->open = true;
	return 0;
}

static int64_t unpack_move(struct avc_end *e, void *p, size_t n)
{
	struct unpacking *u = AV_CONTAINER_OF(e, struct unpacking, end);
	int64_t r = u->open ? 0 : unpack_begin(u);
	struct av_err err = {0};

	if (r < 0)
		return r;
	if (unpack_feed(&u->unpack, p, n, &err) < 0)
		return unpack_refuse(u, &err);
	if (u->max_bytes && u->unpack.bytes > u->max_bytes) {
		(void)snprintf(e->why, sizeof(e->why), "the files have more than %llu bytes",
		    (unsigned long long)u->max_bytes);
		return AVIARY_E_TOO_LARGE;
	}
	return (int64_t)n;
}

static int unpack_finish(struct avc_end *e)
{
	struct unpacking *u = AV_CONTAINER_OF(e, struct unpacking, end);
	int64_t r = u->open ? 0 : unpack_begin(u);
	struct av_err err = {0};

	if (r == 0 && !u->complete && unpack_end(&u->unpack, &err) < 0)
		r = unpack_refuse(u, &err);
	if (r < 0)
		return (int)r;
	u->complete = true;
	if (unpack_settle(&u->unpack))
		return AVC_LATER;
	u->counts->entries = (int64_t)u->unpack.entries;
	u->counts->bytes = (int64_t)u->unpack.bytes;
	u->counts->left_out = (int64_t)u->unpack.skipped;
	return 0;
}

static void unpack_free(struct avc_end *e)
{
	struct unpacking *u = AV_CONTAINER_OF(e, struct unpacking, end);

	if (u->open)
		unpack_close(&u->unpack);
	av_close_fd(&u->parent);
	free(u);
}

struct avc_end *avc_end_unpack(
    int fd, const char *name, struct avc_tree_counts *counts, const aviary_file_options *o)
{
	size_t n = strlen(name) + 1;
	struct unpacking *u = calloc(1, sizeof(*u) + n);

	if (!u) {
		close(fd);
		return NULL;
	}
	u->end = (struct avc_end){
	    .move = unpack_move, .finish = unpack_finish, .free = unpack_free, .fd = -1};
	u->counts = counts;
	u->on_left_out = o->on_left_out;
	u->ctx = o->on_left_out_ctx;
	u->max_bytes = o->max_bytes;
	u->parent = fd;
	memcpy(u->name, name, n);
	return &u->end;
}
