/* SPDX-License-Identifier: Apache-2.0 */
/*
 * layer_tar.c - a tree that a guest made becomes members of a tar archive (see layer_tar.h)
 */
#include "spawn/layer_tar.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/fd.h"
#include "base/path.h"
#include "base/banned.h"

#define OUT_SIZE        65536
#define XATTR_LIST_MAX  65536
#define XATTR_VALUE_MAX 65536
#define OCTAL_7         07777777
#define OCTAL_11        077777777777

struct tar_out {
	int fd;
	size_t n;
	unsigned int depth;
	struct av_buf meta; /* pax records of a member */
	struct av_buf path; /* of the member */
	struct av_buf map;  /* of a sparse file */
	const char *links;
	uint64_t *linked; /* owned: inodes with several names that were written; a hash table */
	size_t n_linked, cap_linked;
	char out[OUT_SIZE];
	char list[XATTR_LIST_MAX];
	char value[XATTR_VALUE_MAX];
	char link[AV_PATH_MAX + 1];
};

struct header {
	char name[100], mode[8], uid[8], gid[8], size[12], mtime[12], checksum[8], type, link[100],
	    magic[6], version[2], user[32], group[32], major[8], minor[8], prefix[155], unused[12];
};
static_assert(sizeof(struct header) == TAR_BLOCK, "as POSIX has it");

struct member {
	char type;
	const struct stat *st;
	const char *link; /* of links */
	uint64_t size;    /* of what follows */
	bool bare;        /* a directory before its entries */
	bool end;         /* and after them */
	uint64_t real;    /* with map: the file's size */
	bool sparse;
};

struct tar_out *tar_out_new(int fd)
{
	struct tar_out *t = calloc(1, sizeof(*t));

	if (!t)
		return NULL;
	t->fd = fd;
	av_buf_init(&t->meta, TAR_META_MAX);
	av_buf_init(&t->path, TAR_META_MAX / 2);
	av_buf_init(&t->map, TAR_EXTENTS_MAX * 44);
	return t;
}

void tar_out_free(struct tar_out *t)
{
	if (!t)
		return;
	av_buf_clear(&t->meta);
	av_buf_clear(&t->path);
	av_buf_clear(&t->map);
	free(t->linked);
	free(t);
}

/* ---- bytes ---- */

int tar_out_flush(struct tar_out *t)
{
	int r = t->n ? av_write_full(t->fd, t->out, t->n) : 0;

	t->n = 0;
	return r;
}

static int put(struct tar_out *t, const void *p, size_t n)
{
	const char *from = p;

	while (n > 0) {
		size_t part = AV_MIN(n, sizeof(t->out) - t->n);
		int r;

		memcpy(t->out + t->n, from, part);
		t->n += part;
		from += part;
		n -= part;
		if (t->n == sizeof(t->out) && (r = tar_out_flush(t)) < 0)
			return r;
	}
	return 0;
}

static int pad(struct tar_out *t, uint64_t size)
{
	static const char zeros[TAR_BLOCK];

	return put(t, zeros, (size_t)(-size % TAR_BLOCK));
}

/* ---- headers ---- */

static void octal(char *field, size_t size, uint64_t n)
{
	field[size - 1] = '\0';
	for (size_t i = size - 1; i > 0; i--, n /= 8)
		field[i - 1] = (char)('0' + n % 8);
}

static void finish_header(struct header *h)
{
	unsigned int sum = 0;

	memcpy(h->magic, "ustar", 6);
	memcpy(h->version, "00", 2);
	memset(h->checksum, ' ', sizeof(h->checksum));
	for (size_t i = 0; i < sizeof(*h); i++)
		sum += ((const uint8_t *)h)[i];
	octal(h->checksum, 7, sum);
	h->checksum[7] = ' ';
}

/* "<length> <key>=<value>\n", the length counting itself. */
static void record(struct av_buf *b, const char *key, const void *value, size_t n)
{
	size_t rest = strlen(key) + n + 3, length = rest + 1;
	char digits[24];

	for (int i = 0; i < 3; i++)
		length = rest + (size_t)snprintf(digits, sizeof(digits), "%zu", length);
	(void)av_buf_printf(b, "%zu %s=", length, key);
	(void)av_buf_append(b, value, n);
	(void)av_buf_append_char(b, '\n');
}

static void record_text(struct av_buf *b, const char *key, const char *value)
{
	record(b, key, value, strlen(value));
}

static void record_number(struct av_buf *b, const char *key, uint64_t n)
{
	char digits[24];

	(void)snprintf(digits, sizeof(digits), "%" PRIu64, n);
	record_text(b, key, digits);
}

static void record_mtime(struct av_buf *b, const struct timespec *ts)
{
	char text[48];
	bool below = ts->tv_sec < 0;
	/* -1.25 s is -2 s and 750,000,000 ns. */
	bool carry = below && ts->tv_nsec > 0;
	unsigned long long s = below ? 0ULL - (unsigned long long)(ts->tv_sec + carry)
	                             : (unsigned long long)ts->tv_sec;
	long ns = carry ? 1000000000L - ts->tv_nsec : ts->tv_nsec;

	(void)snprintf(text, sizeof(text), "%s%llu.%09ld", below ? "-" : "", s, ns);
	record_text(b, "mtime", text);
}

/* '=' would end the key. */
static void record_xattr(struct av_buf *b, const char *name, const char *value, size_t n)
{
	AV_CLEANUP(av_buf_clear) struct av_buf key = AV_BUF_INIT(4096);

	(void)av_buf_append_c(&key, "SCHILY.xattr.");
	for (const char *p = name; *p; p++) {
		if (*p == '=' || *p == '%')
			(void)av_buf_printf(&key, "%%%02X", (unsigned int)*p);
		else
			(void)av_buf_append_char(&key, *p);
	}
	if (av_buf_cstr(&key))
		record(b, av_buf_cstr(&key), value, n);
}

/* Every attribute of an open file, whatever it is for: the checksum of the layer has it, too. */
static int add_xattrs(struct tar_out *t, int fd)
{
	ssize_t n = flistxattr(fd, t->list, sizeof(t->list));

	if (n < 0)
		return errno == EOPNOTSUPP ? 0 : -errno;
	for (ssize_t at = 0; at < n;) {
		const char *name = t->list + at;
		ssize_t v = fgetxattr(fd, name, t->value, sizeof(t->value));

		at += (ssize_t)strnlen(name, (size_t)(n - at)) + 1;
		if (v < 0)
			return -errno;
		record_xattr(&t->meta, name, t->value, (size_t)v);
	}
	return 0;
}

static void describe(struct tar_out *t, const struct member *m, struct header *h)
{
	const char *path = av_buf_cstr(&t->path);
	const struct stat *st = m->st;
	size_t n = path ? strlen(path) : 0;

	/* Zeros fill what is shorter; what is longer is in a record. */
	memcpy(h->name, path ? path : "", AV_MIN(n, sizeof(h->name) - 1));
	if (n >= sizeof(h->name) && !m->sparse)
		record_text(&t->meta, "path", path);
	if (m->link) {
		memcpy(h->link, m->link, strnlen(m->link, sizeof(h->link) - 1));
		if (strlen(m->link) >= sizeof(h->link))
			record_text(&t->meta, "linkpath", m->link);
	}
	octal(h->mode, sizeof(h->mode), m->bare ? 0700 : st->st_mode & 07777);
	octal(h->uid, sizeof(h->uid), AV_MIN(st->st_uid, (uid_t)OCTAL_7));
	octal(h->gid, sizeof(h->gid), AV_MIN(st->st_gid, (gid_t)OCTAL_7));
	if (st->st_uid > OCTAL_7)
		record_number(&t->meta, "uid", st->st_uid);
	if (st->st_gid > OCTAL_7)
		record_number(&t->meta, "gid", st->st_gid);
	octal(h->size, sizeof(h->size), AV_MIN(m->size, (uint64_t)OCTAL_11));
	if (m->size > OCTAL_11)
		record_number(&t->meta, "size", m->size);
	octal(h->mtime, sizeof(h->mtime),
	    st->st_mtim.tv_sec < 0 ? 0 : AV_MIN((uint64_t)st->st_mtim.tv_sec, (uint64_t)OCTAL_11));
	if (!m->bare && (st->st_mtim.tv_nsec || st->st_mtim.tv_sec < 0))
		record_mtime(&t->meta, &st->st_mtim);
	octal(h->major, sizeof(h->major), 0);
	octal(h->minor, sizeof(h->minor), 0);
	h->type = m->type;
	if (m->end)
		record_text(&t->meta, "AVIARY.end", "1");
	if (m->sparse) {
		record_text(&t->meta, "GNU.sparse.major", "1");
		record_text(&t->meta, "GNU.sparse.minor", "0");
		record_text(&t->meta, "GNU.sparse.name", path ? path : "");
		record_number(&t->meta, "GNU.sparse.realsize", m->real);
	}
}

/* With what add_xattrs() and others put into t->meta before. */
static int put_member(struct tar_out *t, const struct member *m)
{
	struct header h = {0}, x = {.type = 'x'};
	int r = 0;

	describe(t, m, &h);
	finish_header(&h);
	/* Of the path or of the attributes there is more than anybody should read back. */
	if (av_buf_error(&t->meta) || av_buf_error(&t->path))
		r = av_buf_error(&t->meta) == -ENOMEM ? -ENOMEM : -E2BIG;
	if (r == 0 && t->meta.n) {
		memcpy(x.name, "aviary.pax", 10);
		octal(x.mode, sizeof(x.mode), 0600);
		octal(x.uid, sizeof(x.uid), 0);
		octal(x.gid, sizeof(x.gid), 0);
		octal(x.mtime, sizeof(x.mtime), 0);
		octal(x.size, sizeof(x.size), t->meta.n);
		finish_header(&x);
		r = put(t, &x, sizeof(x));
		if (r == 0)
			r = put(t, av_buf_str(&t->meta).p, t->meta.n);
		if (r == 0)
			r = pad(t, t->meta.n);
	}
	av_buf_reset(&t->meta);
	return r < 0 ? r : put(t, &h, sizeof(h));
}

int tar_out_file(struct tar_out *t, const char *path, const void *bytes, size_t size)
{
	const struct stat st = {.st_mode = S_IFREG | 0600};
	const struct member m = {.type = '0', .st = &st, .size = size};

	av_buf_reset(&t->path);
	(void)av_buf_append_c(&t->path, path);
	int r = put_member(t, &m);
	if (r == 0)
		r = put(t, bytes, size);
	return r < 0 ? r : pad(t, size);
}

/* ---- content of files ---- */

static int put_range(struct tar_out *t, int fd, uint64_t at, uint64_t end)
{
	while (at < end) {
		ssize_t n = pread(
		    fd, t->value, (size_t)AV_MIN(end - at, (uint64_t)sizeof(t->value)), (off_t)at);
		int r;

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -ESTALE; /* shorter than it said */
		if ((r = put(t, t->value, (size_t)n)) < 0)
			return r;
		at += (uint64_t)n;
	}
	return 0;
}

/* Where there is data at or after `at`, up to the file's size; false: nowhere. */
static int next_data(int fd, uint64_t at, uint64_t size, uint64_t *ret_from, uint64_t *ret_to)
{
	off_t data = at < size ? lseek(fd, (off_t)at, SEEK_DATA) : -1;
	off_t hole;

	if (at >= size || (data < 0 && errno == ENXIO))
		return 0;
	if (data < 0)
		return -errno;
	hole = lseek(fd, data, SEEK_HOLE);
	if (hole < 0)
		return -errno;
	*ret_from = (uint64_t)data;
	*ret_to = AV_MIN((uint64_t)hole, size);
	return *ret_from < size ? 1 : 0;
}

/* Fills t->map; *ret_data: bytes of data. */
static int make_map(struct tar_out *t, int fd, uint64_t size, uint64_t *ret_data, size_t *ret_n)
{
	uint64_t from = 0, to = 0, data = 0;
	size_t n = 0;
	int r;

	av_buf_reset(&t->map);
	while ((r = next_data(fd, to, size, &from, &to)) > 0) {
		if (n++ == TAR_EXTENTS_MAX)
			return -E2BIG;
		data += to - from;
		(void)av_buf_printf(&t->map, "%" PRIu64 "\n%" PRIu64 "\n", from, to - from);
	}
	if (r == 0 && (n == 0 || to < size)) {
		n++;
		(void)av_buf_printf(&t->map, "%" PRIu64 "\n0\n", size);
	}
	*ret_data = data;
	*ret_n = n;
	return r < 0 ? r : av_buf_error(&t->map);
}

static int put_sparse(struct tar_out *t, int fd, const struct stat *st)
{
	uint64_t data = 0, from = 0, to = 0, size = (uint64_t)st->st_size;
	size_t n = 0, map_size;
	char count[24];
	int r = make_map(t, fd, size, &data, &n);

	if (r < 0)
		return r;
	(void)snprintf(count, sizeof(count), "%zu\n", n);
	map_size = strlen(count) + t->map.n;
	map_size += -map_size % TAR_BLOCK;
	const struct member m = {
	    .type = '0', .st = st, .size = map_size + data, .sparse = true, .real = size};
	r = put_member(t, &m);
	if (r == 0)
		r = put(t, count, strlen(count));
	if (r == 0)
		r = put(t, av_buf_str(&t->map).p, t->map.n);
	if (r == 0)
		r = pad(t, strlen(count) + t->map.n);
	uint64_t put_bytes = 0;
	while (r == 0 && (r = next_data(fd, to, size, &from, &to)) > 0) {
		put_bytes += to - from;
		r = put_bytes > data ? -ESTALE : put_range(t, fd, from, to);
	}
	if (r == 0 && put_bytes != data)
		r = -ESTALE;
	return r < 0 ? r : pad(t, data);
}

static int put_content(struct tar_out *t, int fd, const struct stat *st)
{
	uint64_t from = 0, to = 0, size = (uint64_t)st->st_size;
	int r = size ? next_data(fd, 0, size, &from, &to) : 0;

	if (r < 0)
		return r;
	if (size && (r == 0 || from != 0 || to != size))
		return put_sparse(t, fd, st);
	const struct member m = {.type = '0', .st = st, .size = size};
	r = put_member(t, &m);
	if (r == 0)
		r = put_range(t, fd, 0, size);
	return r < 0 ? r : pad(t, size);
}

/* ---- files with several names ---- */

static size_t slot_of(const struct tar_out *t, uint64_t inode)
{
	size_t at = (size_t)(inode * 0x9e3779b97f4a7c15ULL) & (t->cap_linked - 1);

	while (t->linked[at] && t->linked[at] != inode)
		at = (at + 1) & (t->cap_linked - 1);
	return at;
}

static int grow_linked(struct tar_out *t)
{
	size_t old = t->cap_linked;
	uint64_t *before = t->linked;

	if (t->n_linked >= TAR_LINKED_MAX)
		return -E2BIG;
	t->linked = calloc(old ? 2 * old : 1024, sizeof(*t->linked));
	if (!t->linked) {
		t->linked = before;
		return -ENOMEM;
	}
	t->cap_linked = old ? 2 * old : 1024;
	for (size_t i = 0; i < old; i++)
		if (before[i])
			t->linked[slot_of(t, before[i])] = before[i];
	free(before);
	return 0;
}

/* 1: it was written before; 0: it is to be written now. */
static int seen_before(struct tar_out *t, uint64_t inode)
{
	int r = 2 * t->n_linked >= t->cap_linked ? grow_linked(t) : 0;
	size_t at;

	if (r < 0)
		return r;
	at = slot_of(t, inode);
	if (t->linked[at])
		return 1;
	t->linked[at] = inode;
	t->n_linked++;
	return 0;
}

/* ---- entries ---- */

static int put_dir(struct tar_out *t, int fd);

static int open_entry(int dirfd, const char *name, const struct stat *st, int flags)
{
	AV_CLEANUP(av_closep) int fd = layer_open(dirfd, name, O_RDONLY | O_NONBLOCK | flags);
	struct stat now;

	if (fd < 0)
		return fd;
	if (fstat(fd, &now) < 0)
		return -errno;
	if (now.st_ino != st->st_ino || now.st_mode != st->st_mode || now.st_size != st->st_size)
		return -ESTALE;
	return AV_TAKE_FD(fd);
}

static int put_file(struct tar_out *t, int dirfd, const char *name, const struct stat *st)
{
	AV_CLEANUP(av_buf_clear) struct av_buf own = AV_BUF_INIT(TAR_META_MAX);
	char target[192];
	bool several = st->st_nlink > 1;
	int r = several ? seen_before(t, st->st_ino) : 0;

	if (r < 0)
		return r;
	if (several && av_path_printf(target, sizeof(target), "%s/%llx", t->links,
	                   (unsigned long long)st->st_ino) < 0)
		return -ENAMETOOLONG;
	if (r == 0) {
		AV_CLEANUP(av_closep) int fd = open_entry(dirfd, name, st, 0);
		if (fd < 0)
			return fd;
		if (several) {
			(void)av_buf_append_str(&own, av_buf_str(&t->path));
			av_buf_reset(&t->path);
			(void)av_buf_append_c(&t->path, target);
		}
		r = add_xattrs(t, fd);
		if (r == 0)
			r = put_content(t, fd, st);
		if (r < 0 || !several)
			return r;
		av_buf_reset(&t->path);
		(void)av_buf_append_str(&t->path, av_buf_str(&own));
		if (av_buf_error(&own))
			return av_buf_error(&own);
	}
	const struct stat plain = {.st_mode = st->st_mode};
	return put_member(t, &(struct member){.type = '1', .st = &plain, .link = target});
}

static int put_link(struct tar_out *t, int dirfd, const char *name, const struct stat *st)
{
	ssize_t n = readlinkat(dirfd, name, t->link, sizeof(t->link) - 1);

	if (n < 0)
		return -errno;
	t->link[n] = '\0';
	return put_member(t, &(struct member){.type = '2', .st = st, .link = t->link});
}

static int put_other(struct tar_out *t, const struct stat *st)
{
	struct member m = {.type = '6', .st = st};

	if (S_ISCHR(st->st_mode) && st->st_rdev == makedev(0, 0)) {
		m.type = '3';
	} else if (S_ISSOCK(st->st_mode)) {
		m.type = '0';
		record_text(&t->meta, "AVIARY.type", "socket");
	} else if (!S_ISFIFO(st->st_mode)) {
		return -EMEDIUMTYPE; /* no guest can have made it */
	}
	return put_member(t, &m);
}

static int put_entry(struct tar_out *t, int dirfd, const char *name)
{
	struct stat st;

	if (fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return -errno;
	if (S_ISREG(st.st_mode))
		return put_file(t, dirfd, name, &st);
	if (S_ISLNK(st.st_mode))
		return put_link(t, dirfd, name, &st);
	if (!S_ISDIR(st.st_mode))
		return put_other(t, &st);
	AV_CLEANUP(av_closep) int fd = open_entry(dirfd, name, &st, O_DIRECTORY);
	return fd < 0 ? fd : put_dir(t, fd);
}

static int put_entries(struct tar_out *t, DIR *dir, int fd)
{
	size_t length = t->path.n;
	const struct dirent *e;
	int r = 0;

	while (r == 0 && (e = readdir(dir))) {
		if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
			continue;
		(void)av_buf_append_char(&t->path, '/');
		(void)av_buf_append_c(&t->path, e->d_name);
		r = put_entry(t, fd, e->d_name);
		t->path.n = length;
	}
	return r;
}

static int put_dir(struct tar_out *t, int fd)
{
	struct stat st;
	int r, copy = fcntl(fd, F_DUPFD_CLOEXEC, 3);
	DIR *dir = copy < 0 || t->depth == LAYER_DEPTH_MAX ? NULL : fdopendir(copy);

	if (!dir) {
		r = t->depth == LAYER_DEPTH_MAX ? -ELOOP : -errno;
		av_close_fd(&copy);
		return r;
	}
	t->depth++;
	rewinddir(dir);
	r = fstat(fd, &st) < 0
	        ? -errno
	        : put_member(t, &(struct member){.type = '5', .st = &st, .bare = true});
	if (r == 0)
		r = put_entries(t, dir, fd);
	closedir(dir);
	t->depth--;
	if (r == 0)
		r = add_xattrs(t, fd);
	return r < 0 ? r : put_member(t, &(struct member){.type = '5', .st = &st, .end = true});
}

int tar_out_tree(struct tar_out *t, int dirfd, const char *path, const char *links)
{
	av_buf_reset(&t->path);
	(void)av_buf_append_c(&t->path, path);
	t->links = links;
	return put_dir(t, dirfd);
}
