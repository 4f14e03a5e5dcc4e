/* SPDX-License-Identifier: Apache-2.0 */
/*
 * layer_untar.c - members of an archive that layer_tar.c wrote become a tree (see layer_tar.h)
 */
#include "spawn/layer_tar.h"

#include <errno.h>
#include <fcntl.h>
#include <sodium/crypto_generichash_blake2b.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/fd.h"
#include "base/num.h"
#include "base/path.h"
#include "base/banned.h"

#define IN_SIZE   65536
#define LINKS_DIR LAYER_LINKS_DIR
#define OPEN_DIR  (O_RDONLY | O_DIRECTORY)
#define DEPTH_MAX (LAYER_DEPTH_MAX + 2)

struct header {
	char name[100], mode[8], uid[8], gid[8], size[12], mtime[12], checksum[8], type, link[100],
	    magic[6], version[2], user[32], group[32], major[8], minor[8], prefix[155], unused[12];
};
static_assert(sizeof(struct header) == TAR_BLOCK, "as POSIX has it");

struct tar_in {
	int fd;
	size_t at, n; /* of in */
	uint64_t left, padding;
	bool ended; /* earlier than it may */
	crypto_generichash_blake2b_state hash, before;
	struct av_buf meta, path, link, xattrs;
	char in[IN_SIZE];
};

/* ---- bytes ---- */

struct tar_in *tar_in_new(int fd)
{
	struct tar_in *t = calloc(1, sizeof(*t));

	if (!t)
		return NULL;
	t->fd = fd;
	crypto_generichash_blake2b_init(&t->hash, NULL, 0, LAYER_HASH_SIZE);
	av_buf_init(&t->meta, TAR_META_MAX + 1);
	av_buf_init(&t->path, TAR_META_MAX);
	av_buf_init(&t->link, TAR_META_MAX);
	av_buf_init(&t->xattrs, 2 * TAR_META_MAX);
	return t;
}

void tar_in_free(struct tar_in *t)
{
	if (!t)
		return;
	av_buf_clear(&t->meta);
	av_buf_clear(&t->path);
	av_buf_clear(&t->link);
	av_buf_clear(&t->xattrs);
	free(t);
}

static int torn(struct av_err *err)
{
	(void)av_err_set(
	    err, AV_ERR_CHECKSUM, "the backup ends too early: it is torn, take another one");
	return -EBADMSG;
}

static int foreign(struct av_err *err, const char *what)
{
	(void)av_err_set(
	    err, AV_ERR_CHECKSUM, "this is no backup of Aviary, or a damaged one (%s)", what);
	return -EBADMSG;
}

int tar_in_bad(const struct tar_in *t, const char *what, struct av_err *err)
{
	return t->ended ? torn(err) : foreign(err, what);
}

/* Exactly size bytes, hashed. */
static int get(struct tar_in *t, void *p, size_t size, struct av_err *err)
{
	char *to = p;

	while (size > 0) {
		if (t->at == t->n) {
			ssize_t n = read(t->fd, t->in, sizeof(t->in));

			if (n < 0 && errno == EINTR)
				continue;
			if (n < 0)
				return av_err_sys(
				    err, AV_ERR_INTERNAL, errno, "cannot read the backup");
			t->ended = n == 0;
			if (n == 0)
				return torn(err);
			t->at = 0;
			t->n = (size_t)n;
		}
		size_t part = AV_MIN(size, t->n - t->at);
		memcpy(to, t->in + t->at, part);
		crypto_generichash_blake2b_update(&t->hash, (const uint8_t *)t->in + t->at, part);
		t->at += part;
		to += part;
		size -= part;
	}
	return 0;
}

static int skip(struct tar_in *t, uint64_t size, struct av_err *err)
{
	char block[4096];

	while (size > 0) {
		size_t part = (size_t)AV_MIN(size, (uint64_t)sizeof(block));
		int r = get(t, block, part, err);

		if (r < 0)
			return r;
		size -= part;
	}
	return 0;
}

ssize_t tar_in_read(struct tar_in *t, void *p, size_t size)
{
	size_t part = (size_t)AV_MIN((uint64_t)size, t->left);
	int r = part ? get(t, p, part, NULL) : 0;

	if (r < 0)
		return r;
	t->left -= part;
	return (ssize_t)part;
}

void tar_in_hash_before(const struct tar_in *t, uint8_t ret[static LAYER_HASH_SIZE])
{
	crypto_generichash_blake2b_state copy = t->before;

	crypto_generichash_blake2b_final(&copy, ret, LAYER_HASH_SIZE);
}

/* ---- headers ---- */

static int octal(const char *field, size_t size, uint64_t *ret)
{
	uint64_t n = 0;
	size_t i = 0;

	for (; i < size && field[i] >= '0' && field[i] <= '7'; i++)
		n = n * 8 + (uint64_t)(field[i] - '0');
	if (i == 0 || (i < size && field[i] != '\0' && field[i] != ' '))
		return -EINVAL;
	*ret = n;
	return 0;
}

static bool checksum_ok(const struct header *h)
{
	uint64_t want = 0, sum = 0;

	for (size_t i = 0; i < sizeof(*h); i++) {
		bool own = i >= offsetof(struct header, checksum) &&
		           i < offsetof(struct header, checksum) + sizeof(h->checksum);

		sum += own ? (uint64_t)' ' : ((const uint8_t *)h)[i];
	}
	return octal(h->checksum, sizeof(h->checksum), &want) == 0 && want == sum &&
	       memcmp(h->magic, "ustar", 6) == 0;
}

static int take_header(struct tar_in *t, const struct header *h, struct tar_member *m)
{
	uint64_t mode = 0, uid = 0, gid = 0, size = 0, mtime = 0, dev[2] = {0};

	if (octal(h->mode, sizeof(h->mode), &mode) < 0 || octal(h->uid, sizeof(h->uid), &uid) < 0 ||
	    octal(h->gid, sizeof(h->gid), &gid) < 0 || octal(h->size, sizeof(h->size), &size) < 0 ||
	    octal(h->mtime, sizeof(h->mtime), &mtime) < 0)
		return -EINVAL;
	if (h->type == '3' && (octal(h->major, sizeof(h->major), &dev[0]) < 0 ||
	                          octal(h->minor, sizeof(h->minor), &dev[1]) < 0))
		return -EINVAL;
	*m = (struct tar_member){
	    .type = h->type,
	    .mode = (uint32_t)mode & 07777,
	    .uid = (uint32_t)uid,
	    .gid = (uint32_t)gid,
	    .major = (uint32_t)dev[0],
	    .minor = (uint32_t)dev[1],
	    .size = size,
	    .mtime.tv_sec = (time_t)mtime,
	};
	av_buf_reset(&t->path);
	av_buf_reset(&t->link);
	(void)av_buf_append(&t->path, h->name, strnlen(h->name, sizeof(h->name)));
	(void)av_buf_append(&t->link, h->link, strnlen(h->link, sizeof(h->link)));
	return 0;
}

/* ---- pax records ---- */

static int parse_mtime(struct av_str v, struct timespec *ret)
{
	bool below = v.n > 0 && v.p[0] == '-';
	const char *dot = memchr(v.p, '.', v.n);
	uint64_t s, ns;

	if (!dot || (size_t)(v.p + v.n - dot) != 10)
		return -EINVAL;
	struct av_str whole = av_str_n(v.p + below, (size_t)(dot - v.p) - below);
	if (av_parse_u64(whole, 0, (uint64_t)INT64_MAX, &s) < 0)
		return -EINVAL;
	/* Leading zeros, which the parser of numbers takes for a mistake. */
	ns = 0;
	for (const char *p = dot + 1; p < v.p + v.n; p++) {
		if (*p < '0' || *p > '9')
			return -EINVAL;
		ns = ns * 10 + (uint64_t)(*p - '0');
	}
	ret->tv_sec = below ? -(int64_t)s - (ns > 0) : (int64_t)s;
	ret->tv_nsec = (long)(below && ns ? 1000000000 - ns : ns);
	return 0;
}

static int take_xattr(struct tar_in *t, struct av_str name, struct av_str value)
{
	for (size_t i = 0; i < name.n; i++) {
		uint64_t byte = 0;

		if (name.p[i] ==
		    '\0') /* it would end the name early, and what follows be a length */
			return -EINVAL;
		if (name.p[i] != '%') {
			(void)av_buf_append_char(&t->xattrs, name.p[i]);
			continue;
		}
		if (i + 2 >= name.n ||
		    av_parse_hex_u64(av_str_n(name.p + i + 1, 2), 255, &byte) < 0 || byte == 0)
			return -EINVAL;
		(void)av_buf_append_char(&t->xattrs, (char)byte);
		i += 2;
	}
	(void)av_buf_append_char(&t->xattrs, '\0');
	(void)av_buf_append(&t->xattrs, &value.n, sizeof(value.n));
	(void)av_buf_append_str(&t->xattrs, value);
	return av_buf_error(&t->xattrs);
}

static int take_text(struct av_buf *b, struct av_str v)
{
	if (memchr(v.p, '\0', v.n))
		return -EINVAL;
	av_buf_reset(b);
	return av_buf_append_str(b, v);
}

static int take_number(struct av_str v, uint64_t max, uint64_t *ret)
{
	return av_parse_u64(v, 0, max, ret);
}

static int take_record(struct tar_in *t, struct tar_member *m, struct av_str key, struct av_str v)
{
	static const char xattr[] = "SCHILY.xattr.";
	uint64_t n = 0;
	int r = 0;

	if (key.n > strlen(xattr) && memcmp(key.p, xattr, strlen(xattr)) == 0)
		return take_xattr(t, av_str_n(key.p + strlen(xattr), key.n - strlen(xattr)), v);
	if (av_str_eq_c(key, "path") || av_str_eq_c(key, "GNU.sparse.name"))
		return take_text(&t->path, v);
	if (av_str_eq_c(key, "linkpath"))
		return take_text(&t->link, v);
	if (av_str_eq_c(key, "mtime"))
		return parse_mtime(v, &m->mtime);
	if (av_str_eq_c(key, "size"))
		return take_number(v, INT64_MAX, &m->size);
	if (av_str_eq_c(key, "GNU.sparse.realsize"))
		return take_number(v, INT64_MAX, &m->real_size);
	if (av_str_eq_c(key, "uid")) {
		r = take_number(v, UINT32_MAX - 1, &n);
		m->uid = (uint32_t)n;
	} else if (av_str_eq_c(key, "gid")) {
		r = take_number(v, UINT32_MAX - 1, &n);
		m->gid = (uint32_t)n;
	} else if (av_str_eq_c(key, "AVIARY.end")) {
		m->end = true;
	} else if (av_str_eq_c(key, "AVIARY.type")) {
		m->socket = av_str_eq_c(v, "socket");
		r = m->socket ? 0 : -EINVAL;
	} else if (av_str_eq_c(key, "GNU.sparse.major")) {
		m->sparse = av_str_eq_c(v, "1");
		r = m->sparse ? 0 : -EINVAL;
	} else if (!av_str_eq_c(key, "GNU.sparse.minor")) {
		return -EINVAL;
	}
	return r;
}

static int take_records(struct tar_in *t, struct tar_member *m)
{
	struct av_str rest = av_buf_str(&t->meta);

	while (rest.n > 0) {
		const char *space = memchr(rest.p, ' ', AV_MIN(rest.n, (size_t)12));
		uint64_t length;

		if (!space || av_parse_u64(av_str_n(rest.p, (size_t)(space - rest.p)), 5, rest.n,
		                  &length) < 0)
			return -EINVAL;
		size_t head = (size_t)(space - rest.p) + 1;
		if (length <= head || rest.p[length - 1] != '\n')
			return -EINVAL;
		struct av_str body = av_str_n(rest.p + head, (size_t)length - head - 1);
		const char *is = memchr(body.p, '=', body.n);
		int r = !is ? -EINVAL
		            : take_record(t, m, av_str_n(body.p, (size_t)(is - body.p)),
		                  av_str_n(is + 1, (size_t)(body.p + body.n - is - 1)));
		if (r < 0)
			return r;
		rest = av_str_n(rest.p + length, rest.n - (size_t)length);
	}
	return 0;
}

static int read_records(struct tar_in *t, const struct header *x, struct av_err *err)
{
	uint64_t size;
	char *p;

	if (octal(x->size, sizeof(x->size), &size) < 0 || size == 0 || size > TAR_META_MAX)
		return foreign(err, "a header of impossible size");
	av_buf_reset(&t->meta);
	if (av_buf_reserve(&t->meta, (size_t)size, &p) < 0)
		return av_err_set(err, AV_ERR_NO_MEMORY, "out of memory");
	int r = get(t, p, (size_t)size, err);
	if (r < 0)
		return r;
	av_buf_commit(&t->meta, (size_t)size);
	return skip(t, -size % TAR_BLOCK, err);
}

static bool is_zero(const struct header *h)
{
	static const struct header zero;

	return memcmp(h, &zero, sizeof(zero)) == 0;
}

static int check_member(const struct tar_in *t, const struct tar_member *m, struct av_err *err)
{
	bool file = m->type == '0';

	if (!strchr("012356", m->type) || m->type == '\0')
		return foreign(err, "a member of an unknown type");
	if ((!file && (m->size || m->sparse || m->socket)) || (m->socket && m->size) ||
	    (m->end && m->type != '5'))
		return foreign(err, "a member with content that it cannot have");
	if ((m->type == '1' || m->type == '2') && t->link.n == 0)
		return foreign(err, "a link to nowhere");
	return t->path.n ? 0 : foreign(err, "a member without a name");
}

int tar_in_next(struct tar_in *t, struct tar_member *ret, struct av_err *err)
{
	struct header h = {0};
	struct tar_member m;
	int r = skip(t, t->left + t->padding, err);

	t->left = t->padding = 0;
	t->before = t->hash;
	av_buf_reset(&t->meta);
	av_buf_reset(&t->xattrs);
	if (r == 0)
		r = get(t, &h, sizeof(h), err);
	if (r == 0 && is_zero(&h))
		return 0;
	if (r == 0 && !checksum_ok(&h))
		r = foreign(err, "a header that is none");
	if (r == 0 && h.type == 'x') {
		r = read_records(t, &h, err);
		if (r == 0)
			r = get(t, &h, sizeof(h), err);
		if (r == 0 && !checksum_ok(&h))
			r = foreign(err, "a header that is none");
	}
	if (r < 0)
		return r;
	if (take_header(t, &h, &m) < 0 || take_records(t, &m) < 0)
		return foreign(err, "a header with impossible values");
	r = check_member(t, &m, err);
	if (r < 0)
		return r;
	m.path = av_buf_cstr(&t->path);
	m.link = av_buf_cstr(&t->link);
	m.xattrs = av_buf_str(&t->xattrs).p;
	m.xattrs_size = t->xattrs.n;
	if (!m.path || !m.link)
		return av_err_set(err, AV_ERR_NO_MEMORY, "out of memory");
	if (!m.sparse)
		m.real_size = m.size;
	t->left = m.size;
	t->padding = -m.size % TAR_BLOCK;
	*ret = m;
	return 1;
}

/* ---- making files ---- */

struct untar {
	const char *prefix;
	bool rootless;
	struct av_buf path; /* of the directory that is open, as members have it */
	size_t depth;
	int top;                   /* borrowed */
	int links;                 /* owned; -1: there are none */
	int fds[DEPTH_MAX];        /* owned: directories that are open, outermost first */
	size_t lengths[DEPTH_MAX]; /* of path, before each */
	char block[65536];
};

struct untar *untar_new(int top, const char *prefix, bool rootless)
{
	struct untar *u = calloc(1, sizeof(*u));

	if (!u)
		return NULL;
	u->top = top;
	u->links = -1;
	u->rootless = rootless;
	u->prefix = prefix;
	av_buf_init(&u->path, TAR_META_MAX);
	(void)av_buf_append_c(&u->path, prefix);
	return u;
}

void untar_free(struct untar *u)
{
	if (!u)
		return;
	for (size_t i = 0; i < u->depth; i++)
		av_close_fd(&u->fds[i]);
	av_close_fd(&u->links);
	av_buf_clear(&u->path);
	free(u);
}

static int here(const struct untar *u)
{
	return u->depth ? u->fds[u->depth - 1] : u->top;
}

static int cannot(struct av_err *err, int r, const char *path)
{
	return av_err_sys(err, r == -ENOSPC || r == -EDQUOT ? AV_ERR_NO_SPACE : AV_ERR_INTERNAL, r,
	    "cannot restore %.200s", path);
}

/* The member's name, if it lies directly in the directory that is open. */
static const char *own_name(const struct untar *u, const char *path)
{
	struct av_str dir = av_buf_str(&u->path);
	const char *name = path + dir.n + 1;

	if (strncmp(path, dir.p, dir.n) != 0 || path[dir.n] != '/')
		return NULL;
	return name[0] && strlen(name) <= AV_NAME_MAX && !strchr(name, '/') &&
	               strcmp(name, ".") != 0 && strcmp(name, "..") != 0
	           ? name
	           : NULL;
}

/* Of a path <prefix>/links/<inode>: the inode; else NULL. */
static const char *link_name(const struct untar *u, const char *path)
{
	size_t n = strlen(u->prefix);

	if (strncmp(path, u->prefix, n) != 0 || strncmp(path + n, "/" LINKS_DIR "/", 7) != 0)
		return NULL;
	const char *name = path + n + 7;
	return name[0] && strlen(name) <= 16 && strspn(name, "0123456789abcdef") == strlen(name)
	           ? name
	           : NULL;
}

static int set_xattrs(int fd, const struct tar_member *m)
{
	const char *p = m->xattrs, *end = p + m->xattrs_size;

	while (p < end) {
		const char *name = p;
		size_t size;

		p += strlen(name) + 1;
		memcpy(&size, p, sizeof(size));
		p += sizeof(size);
		if (fsetxattr(fd, name, p, size, 0) < 0)
			return -errno;
		p += size;
	}
	return 0;
}

/* Owner before mode and attributes: a change of owner takes set-uid bits and capabilities away. */
static int finish_fd(const struct untar *u, int fd, const struct tar_member *m)
{
	const struct timespec times[] = {m->mtime, m->mtime};

	if (!u->rootless && fchown(fd, m->uid, m->gid) < 0)
		return -errno;
	if (fchmod(fd, m->mode) < 0)
		return -errno;
	int r = set_xattrs(fd, m);
	return r < 0 ? r : futimens(fd, times) < 0 ? -errno : 0;
}

static int finish_name(const struct untar *u, int dir, const char *name, const struct tar_member *m)
{
	const struct timespec times[] = {m->mtime, m->mtime};

	if (!u->rootless && fchownat(dir, name, m->uid, m->gid, AT_SYMLINK_NOFOLLOW) < 0)
		return -errno;
	/* The name was made here a moment ago, in a directory that nobody else reaches. */
	if (m->type != '2' && fchmodat(dir, name, m->mode, 0) < 0)
		return -errno;
	return utimensat(dir, name, times, AT_SYMLINK_NOFOLLOW) < 0 ? -errno : 0;
}

static int write_at(int fd, const char *p, size_t n, uint64_t at)
{
	while (n > 0) {
		ssize_t put = pwrite(fd, p, n, (off_t)at);

		if (put < 0 && errno == EINTR)
			continue;
		if (put < 0)
			return -errno;
		p += put;
		n -= (size_t)put;
		at += (uint64_t)put;
	}
	return 0;
}

static int write_range(struct untar *u, struct tar_in *t, int fd, uint64_t at, uint64_t size)
{
	while (size > 0) {
		ssize_t n =
		    tar_in_read(t, u->block, (size_t)AV_MIN(size, (uint64_t)sizeof(u->block)));
		int r = n > 0 ? write_at(fd, u->block, (size_t)n, at) : n < 0 ? (int)n : -EBADMSG;

		if (r < 0)
			return r;
		at += (uint64_t)n;
		size -= (uint64_t)n;
	}
	return 0;
}

/* One decimal line of a sparse file's map; *used counts its bytes. */
static int map_line(struct tar_in *t, uint64_t *used, uint64_t *ret)
{
	char digits[24] = "";
	size_t n = 0;

	for (; n < sizeof(digits); n++) {
		ssize_t r = tar_in_read(t, &digits[n], 1);

		if (r != 1)
			return r < 0 ? (int)r : -EBADMSG;
		++*used;
		if (digits[n] == '\n')
			break;
	}
	return n == sizeof(digits) ||
	               av_parse_u64(av_str_n(digits, n), 0, (uint64_t)INT64_MAX, ret) < 0
	           ? -EBADMSG
	           : 0;
}

static int read_map(struct untar *u, struct tar_in *t, uint64_t **ret, size_t *ret_n)
{
	uint64_t n = 0, used = 0;
	int r = map_line(t, &used, &n);

	if (r == 0 && (n == 0 || n > TAR_EXTENTS_MAX + 1))
		r = -EBADMSG;
	uint64_t *map = r < 0 ? NULL : calloc((size_t)n, 2 * sizeof(*map));
	if (r == 0 && !map)
		r = -ENOMEM;
	for (size_t i = 0; r == 0 && i < 2 * n; i++)
		r = map_line(t, &used, &map[i]);
	size_t rest = (size_t)(-used % TAR_BLOCK);
	if (r == 0 && tar_in_read(t, u->block, rest) != (ssize_t)rest)
		r = -EBADMSG;
	if (r < 0) {
		free(map);
		return r;
	}
	*ret = map;
	*ret_n = (size_t)n;
	return 0;
}

static int write_sparse(struct untar *u, struct tar_in *t, int fd, const struct tar_member *m)
{
	uint64_t *map = NULL, last = 0;
	size_t n = 0;
	int r = read_map(u, t, &map, &n);

	for (size_t i = 0; r == 0 && i < n; i++) {
		uint64_t at = map[2 * i], size = map[2 * i + 1];

		if (at < last || at > m->real_size || size > m->real_size - at)
			r = -EBADMSG;
		else
			r = write_range(u, t, fd, at, size);
		last = at + size;
	}
	free(map);
	return r == 0 && ftruncate(fd, (off_t)m->real_size) < 0 ? -errno : r;
}

static int make_file(
    struct untar *u, struct tar_in *t, int dir, const char *name, const struct tar_member *m)
{
	AV_CLEANUP(av_closep)
	int fd = openat(dir, name, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0)
		return -errno;
	int r = m->sparse ? write_sparse(u, t, fd, m) : write_range(u, t, fd, 0, m->size);
	return r < 0 ? r : finish_fd(u, fd, m);
}

static int make_node(const struct untar *u, int dir, const char *name, const struct tar_member *m)
{
	mode_t type = m->type == '3' ? S_IFCHR : m->type == '6' ? S_IFIFO : S_IFSOCK;

	if (m->type == '3' && (m->major || m->minor))
		return -EBADMSG;
	if (mknodat(dir, name, type | 0600, makedev(0, 0)) < 0)
		return -errno;
	return finish_name(u, dir, name, m);
}

static int open_links(struct untar *u)
{
	if (u->links >= 0)
		return 0;
	if (mkdirat(u->top, LINKS_DIR, 0700) < 0)
		return -errno;
	int fd = layer_open(u->top, LINKS_DIR, OPEN_DIR);
	if (fd < 0)
		return fd;
	u->links = fd;
	return 0;
}

static int begin_dir(struct untar *u, const char *name)
{
	int dir = here(u);

	if (u->depth == DEPTH_MAX)
		return -ELOOP;
	if (mkdirat(dir, name, 0700) < 0)
		return -errno;
	int fd = layer_open(dir, name, OPEN_DIR);
	if (fd < 0)
		return fd;
	u->lengths[u->depth] = u->path.n;
	u->fds[u->depth++] = fd;
	(void)av_buf_append_char(&u->path, '/');
	return av_buf_append_c(&u->path, name);
}

static int end_dir(struct untar *u, const struct tar_member *m)
{
	if (u->depth == 0 || !av_str_eq_c(av_buf_str(&u->path), m->path))
		return -EBADMSG;
	int r = finish_fd(u, here(u), m);
	av_close_fd(&u->fds[--u->depth]);
	u->path.n = u->lengths[u->depth];
	return r;
}

static int make_member(struct untar *u, struct tar_in *t, const struct tar_member *m)
{
	const char *linked = link_name(u, m->path);
	const char *name = own_name(u, m->path);
	int r;

	if (linked && m->type == '0') {
		r = open_links(u);
		return r < 0 ? r : make_file(u, t, u->links, linked, m);
	}
	if (m->end)
		return end_dir(u, m);
	/* The only names at the top are those of directories of ours. */
	if (!name || linked || (u->depth == 0 && m->type != '5'))
		return -EBADMSG;
	switch (m->type) {
	case '0':
		return m->socket ? make_node(u, here(u), name, m)
		                 : make_file(u, t, here(u), name, m);
	case '1':
		linked = link_name(u, m->link);
		if (!linked || u->links < 0)
			return -EBADMSG;
		return linkat(u->links, linked, here(u), name, 0) < 0 ? -errno : 0;
	case '2':
		if (symlinkat(m->link, here(u), name) < 0)
			return -errno;
		return finish_name(u, here(u), name, m);
	case '5':
		return begin_dir(u, name);
	default:
		return make_node(u, here(u), name, m);
	}
}

int untar_member(struct untar *u, struct tar_in *t, const struct tar_member *m, struct av_err *err)
{
	int r = make_member(u, t, m);

	if (r == -EBADMSG)
		return tar_in_bad(t, "a member in an impossible place", err);
	return r < 0 ? cannot(err, r, m->path) : 0;
}

int untar_finish(struct untar *u, struct av_err *err)
{
	if (u->depth)
		return foreign(err, "a directory without an end");
	if (u->links < 0)
		return 0;
	int r = layer_remove_links(u->top, u->links);
	return r < 0 ? cannot(err, r, u->prefix) : 0;
}
