/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tar.c - tar archives as a stream: headers out, entries in; no I/O
 *
 * Field layout: POSIX.1-2017, pax, "ustar Interchange Format"; GNU's additions: the tar manual,
 * "Basic Tar Format".
 */
#include "proto/tar.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

#include "base/num.h"

#include "base/banned.h"

/* Every field is bytes, so there is no padding and no order to mind. */
struct header {
	char name[100], mode[8], uid[8], gid[8], size[12], mtime[12], sum[8], type, link[100],
	    magic[6], version[2], user[32], group[32], major[8], minor[8], prefix[155], pad[12];
};
static_assert(sizeof(struct header) == AV_TAR_BLOCK, "a header is one block");

#define OCTAL_7_MAX  07777777LL
#define OCTAL_11_MAX 077777777777LL
#define PAX_NAME     "PaxHeaders/entry"

/* --- writing --- */

static void put_octal(char *field, size_t size, uint64_t v)
{
	for (size_t i = size - 1; i-- > 0; v >>= 3)
		field[i] = (char)('0' + (v & 7));
	field[size - 1] = '\0';
}

static unsigned int checksum(const struct header *h, bool is_signed)
{
	const uint8_t *p = (const uint8_t *)h;
	unsigned int sum = 0;

	for (size_t i = 0; i < sizeof(*h); i++) {
		bool in_sum = i >= offsetof(struct header, sum) &&
		              i < offsetof(struct header, sum) + sizeof(h->sum);
		int v = in_sum ? ' ' : is_signed ? (int8_t)p[i] : p[i];

		sum += (unsigned int)v;
	}
	return sum;
}

static int put_header(struct av_buf *out, struct header *h)
{
	memcpy(h->magic, "ustar", 6);
	memcpy(h->version, "00", 2);
	put_octal(h->sum, 7, checksum(h, false));
	h->sum[7] = ' ';
	return av_buf_append(out, h, sizeof(*h));
}

static size_t digits(size_t n)
{
	size_t d = 1;

	for (; n >= 10; n /= 10)
		d++;
	return d;
}

/* "LENGTH key=value\n", where LENGTH counts itself. */
static void put_record(struct av_buf *b, const char *key, const char *value)
{
	size_t rest = strlen(key) + strlen(value) + 3, n = rest + digits(rest);

	if (digits(n) > digits(rest))
		n++;
	av_buf_printf(b, "%zu %s=", n, key);
	av_buf_append_c(b, value);
	av_buf_append_char(b, '\n');
}

static void put_number_record(struct av_buf *b, const char *key, int64_t v)
{
	char text[24];

	snprintf(text, sizeof(text), "%" PRId64, v);
	put_record(b, key, text);
}

static bool is_ascii(const char *s)
{
	for (; *s; s++)
		if ((unsigned char)*s >= 0x80)
			return false;
	return true;
}

/* A text that ustar can hold (no NUL is needed when it fills the field). */
static bool fits(const char *s, size_t size)
{
	return strlen(s) <= size && is_ascii(s);
}

static int put_pax(struct av_buf *out, const struct av_buf *records)
{
	static const char zeros[AV_TAR_BLOCK];
	struct header h = {.name = PAX_NAME, .type = 'x'};

	put_octal(h.mode, sizeof(h.mode), 0644);
	put_octal(h.uid, sizeof(h.uid), 0);
	put_octal(h.gid, sizeof(h.gid), 0);
	put_octal(h.size, sizeof(h.size), records->n);
	put_octal(h.mtime, sizeof(h.mtime), 0);
	put_header(out, &h);
	av_buf_append_str(out, av_buf_str(records));
	return av_buf_append(out, zeros, av_tar_padding(records->n));
}

static void put_text(char *field, size_t size, const char *s)
{
	size_t n = strlen(s);

	memcpy(field, s, n < size ? n : size);
}

static void collect_records(struct av_buf *b, const struct av_tar_entry *e)
{
	if (!fits(e->path, sizeof(((struct header *)0)->name)))
		put_record(b, "path", e->path);
	if (!fits(e->link, sizeof(((struct header *)0)->link)))
		put_record(b, "linkpath", e->link);
	if (e->size > OCTAL_11_MAX)
		put_number_record(b, "size", (int64_t)e->size);
	if (e->mtime < 0 || e->mtime > OCTAL_11_MAX)
		put_number_record(b, "mtime", e->mtime);
	if (e->uid > OCTAL_7_MAX)
		put_number_record(b, "uid", e->uid);
	if (e->gid > OCTAL_7_MAX)
		put_number_record(b, "gid", e->gid);
}

int av_tar_write(struct av_buf *out, const struct av_tar_entry *e)
{
	static const char types[] = {[AV_TAR_FILE] = '0',
	    [AV_TAR_DIR] = '5',
	    [AV_TAR_SYMLINK] = '2',
	    [AV_TAR_HARDLINK] = '1'};
	AV_CLEANUP(av_buf_clear) struct av_buf records = AV_BUF_INIT(AV_TAR_META_MAX);
	struct header h = {0};

	if (e->type == AV_TAR_OTHER || !e->path[0])
		return -EINVAL;
	collect_records(&records, e);
	if (av_buf_error(&records) < 0)
		return av_buf_error(&records);
	if (records.n)
		put_pax(out, &records);
	h.type = types[e->type];
	put_text(h.name, sizeof(h.name), e->path);
	put_text(h.link, sizeof(h.link), e->link);
	put_octal(h.mode, sizeof(h.mode), e->mode & 07777);
	put_octal(h.uid, sizeof(h.uid), e->uid > OCTAL_7_MAX ? 0 : e->uid);
	put_octal(h.gid, sizeof(h.gid), e->gid > OCTAL_7_MAX ? 0 : e->gid);
	put_octal(h.size, sizeof(h.size), e->size > OCTAL_11_MAX ? 0 : e->size);
	put_octal(h.mtime, sizeof(h.mtime),
	    e->mtime < 0 || e->mtime > OCTAL_11_MAX ? 0 : (uint64_t)e->mtime);
	if (e->user && strlen(e->user) < sizeof(h.user))
		put_text(h.user, sizeof(h.user), e->user);
	if (e->group && strlen(e->group) < sizeof(h.group))
		put_text(h.group, sizeof(h.group), e->group);
	return put_header(out, &h);
}

int av_tar_write_end(struct av_buf *out)
{
	static const char zeros[2 * AV_TAR_BLOCK];

	return av_buf_append(out, zeros, sizeof(zeros));
}

/* --- reading --- */

enum { HEADER, META, CONTENT, PADDING, END };

static int bad(const struct av_tar_dec *d, struct av_err *err, const char *what)
{
	return av_err_set(err, AV_ERR_INVALID, "tar entry %" PRIu64 ": %s", d->entries + 1, what);
}

static int refuse(const struct av_tar_dec *d, struct av_err *err, const char *what)
{
	(void)av_err_set(
	    err, AV_ERR_UNSUPPORTED, "tar entry %" PRIu64 ": %s", d->entries + 1, what);
	return -EINVAL;
}

/* GNU's numbers: the first bit is set, the rest is a two's complement number. */
static int get_base256(const uint8_t *p, size_t size, int64_t *ret)
{
	int64_t v = p[0] & 0x40 ? (int64_t)(p[0] & 0x7f) - 0x80 : p[0] & 0x7f;

	for (size_t i = 1; i < size; i++)
		if (__builtin_mul_overflow(v, 256, &v) || __builtin_add_overflow(v, p[i], &v))
			return -EINVAL;
	*ret = v;
	return 0;
}

/* Octal digits with blanks before and a blank or NUL behind, or GNU's base 256. */
static int get_number(const char *field, size_t size, int64_t *ret)
{
	const uint8_t *p = (const uint8_t *)field;
	uint64_t v = 0;
	size_t i = 0;

	if (p[0] & 0x80)
		return get_base256(p, size, ret);
	while (i < size && p[i] == ' ')
		i++;
	for (; i < size && p[i] >= '0' && p[i] <= '7'; i++)
		v = v << 3 | (uint64_t)(p[i] - '0');
	if (i < size && p[i] != ' ' && p[i] != '\0')
		return -EINVAL;
	*ret = (int64_t)v;
	return 0;
}

static size_t field_len(const char *field, size_t size)
{
	return strnlen(field, size);
}

/* A path of a pax or GNU header. */
static int take_path(struct av_tar_dec *d, char *dst, struct av_str s, struct av_err *err)
{
	if (s.n == 0 || av_str_copy(dst, AV_PATH_MAX + 1, s) < 0)
		return bad(d, err, "a path that is empty, over 4095 bytes or has a NUL byte");
	return 0;
}

/* Seconds, perhaps with a fraction, which is dropped. */
static bool take_mtime(struct av_str s, int64_t *ret)
{
	struct av_str whole;

	av_str_cut(&s, '.', &whole);
	return av_parse_i64(whole, INT64_MIN / 2, INT64_MAX / 2, ret) == 0;
}

static int take_record(
    struct av_tar_dec *d, struct av_str key, struct av_str value, struct av_err *err)
{
	if (av_str_eq_c(key, "path"))
		return take_path(d, d->path, value, err);
	if (av_str_eq_c(key, "linkpath"))
		return take_path(d, d->link, value, err);
	if (av_str_eq_c(key, "size")) {
		d->has_size = true;
		if (av_parse_u64(value, 0, INT64_MAX, &d->size) < 0)
			return bad(d, err, "a pax header with a bad size");
	}
	if (av_str_eq_c(key, "mtime"))
		d->has_mtime = take_mtime(value, &d->mtime);
	if (av_str_starts(key, AV_STR("GNU.sparse.")))
		return refuse(d, err, "a sparse file; pack it without --sparse");
	return 0;
}

static int take_pax(struct av_tar_dec *d, struct av_str s, struct av_err *err)
{
	while (s.n) {
		struct av_str rest = s, length, record, key;
		uint64_t n;
		int r;

		if (!av_str_cut(&rest, ' ', &length) ||
		    av_parse_u64(length, length.n + 3, s.n, &n) < 0 || s.p[n - 1] != '\n')
			return bad(d, err, "a malformed pax header");
		record = av_str_n(s.p + length.n + 1, (size_t)n - length.n - 2);
		if (!av_str_cut(&record, '=', &key))
			return bad(d, err, "a malformed pax header");
		r = take_record(d, key, record, err);
		if (r < 0)
			return r;
		s = av_str_n(s.p + n, s.n - (size_t)n);
	}
	return 0;
}

static int take_meta(struct av_tar_dec *d, struct av_err *err)
{
	struct av_str s = av_buf_str(&d->meta);
	int r = 0;

	switch (d->meta_type) {
	case 'L':
	case 'K':
		r = take_path(d, d->meta_type == 'L' ? d->path : d->link,
		    av_str_n(s.p, field_len(s.p, s.n)), err);
		break;
	case 'x':
		r = take_pax(d, s, err);
		break;
	default: /* a global header or volume label says nothing that we use */
		break;
	}
	av_buf_clear(&d->meta);
	return r;
}

static void forget_meta(struct av_tar_dec *d)
{
	d->path[0] = d->link[0] = '\0';
	d->has_size = d->has_mtime = false;
}

static int find_path(struct av_tar_dec *d, const struct header *h, struct av_err *err)
{
	size_t prefix = memcmp(h->magic,
	                    "ustar\0"
	                    "00",
	                    8) == 0
	                    ? field_len(h->prefix, sizeof(h->prefix))
	                    : 0;

	if (!d->path[0])
		snprintf(d->path, sizeof(d->path), "%.*s%s%.*s", (int)prefix, h->prefix,
		    prefix ? "/" : "", (int)sizeof(h->name), h->name);
	if (!d->link[0])
		snprintf(d->link, sizeof(d->link), "%.*s", (int)sizeof(h->link), h->link);
	return d->path[0] ? 0 : bad(d, err, "an empty name");
}

static int find_type(
    struct av_tar_dec *d, const struct header *h, enum av_tar_type *ret, struct av_err *err)
{
	switch (h->type) {
	case '0':
	case '\0':
	case '7':
		*ret = AV_TAR_FILE;
		return 0;
	case '1':
		*ret = AV_TAR_HARDLINK;
		return 0;
	case '2':
		*ret = AV_TAR_SYMLINK;
		return 0;
	case '5':
		*ret = AV_TAR_DIR;
		return 0;
	case '3':
	case '4':
	case '6':
		*ret = AV_TAR_OTHER;
		return 0;
	case 'S':
		return refuse(d, err, "a sparse file; pack it without --sparse");
	case 'M':
		return refuse(d, err, "an archive of several volumes");
	default:
		return refuse(d, err, "a type that is not known");
	}
}

static int begin_meta(struct av_tar_dec *d, char type, int64_t size, struct av_err *err)
{
	if (size < 0 || (uint64_t)size > AV_TAR_META_MAX)
		return bad(d, err, "an extended header over 128 KiB");
	d->meta_type = type;
	d->left = (uint64_t)size;
	d->skip = av_tar_padding(d->left);
	d->state = META;
	return 0;
}

static int begin_entry(struct av_tar_dec *d, const struct header *h, int64_t size,
    const struct av_tar_events *ev, void *ctx, struct av_err *err)
{
	struct av_tar_entry e = {.path = d->path, .link = d->link};
	int64_t mode, mtime;
	int r;

	if ((r = find_path(d, h, err)) < 0 || (r = find_type(d, h, &e.type, err)) < 0)
		return r;
	if (get_number(h->mode, sizeof(h->mode), &mode) < 0 ||
	    get_number(h->mtime, sizeof(h->mtime), &mtime) < 0)
		return bad(d, err, "a bad number in the header");
	if (e.type == AV_TAR_SYMLINK || e.type == AV_TAR_HARDLINK) {
		if (!e.link[0])
			return bad(d, err, "a link without a target");
	} else {
		d->link[0] = '\0';
	}
	if (d->has_size)
		size = (int64_t)d->size;
	/* Old archives tell a directory by its name only. */
	if (e.type == AV_TAR_FILE && size == 0 && av_str_ends(av_str_c(d->path), AV_STR("/")))
		e.type = AV_TAR_DIR;
	/* Of a directory the size is a hint, of which nothing follows. */
	if (e.type == AV_TAR_DIR)
		size = 0;
	if (size < 0 || (size && e.type != AV_TAR_FILE))
		return bad(d, err, "content where there can be none");
	e.size = (uint64_t)size;
	e.mode = (uint32_t)mode & 07777;
	e.mtime = d->has_mtime ? d->mtime : mtime;
	d->left = e.size;
	d->skip = av_tar_padding(e.size);
	d->state = CONTENT;
	r = ev->on_entry(ctx, &e);
	forget_meta(d);
	d->entries++;
	return r;
}

static bool all_zero(const uint8_t *p, size_t n)
{
	return p[0] == 0 && memcmp(p, p + 1, n - 1) == 0;
}

static int on_block(
    struct av_tar_dec *d, const struct av_tar_events *ev, void *ctx, struct av_err *err)
{
	struct header h;
	int64_t sum, size;

	memcpy(&h, d->block, sizeof(h));
	if (all_zero(d->block, sizeof(d->block))) {
		d->state = END;
		return 0;
	}
	if (d->entries == 0 && d->block[0] == 0x1f && d->block[1] == 0x8b)
		return refuse(d, err, "the archive is compressed with gzip; send plain tar");
	if (get_number(h.sum, sizeof(h.sum), &sum) < 0 ||
	    (sum != checksum(&h, false) && sum != (int)checksum(&h, true)))
		return bad(d, err, "this is no tar header, or a damaged one");
	if (get_number(h.size, sizeof(h.size), &size) < 0)
		return bad(d, err, "a bad size in the header");
	if (h.type && strchr("LKxgV", h.type))
		return begin_meta(d, h.type, size, err);
	return begin_entry(d, &h, size, ev, ctx, err);
}

void av_tar_dec_init(struct av_tar_dec *d)
{
	memset(d, 0, sizeof(*d));
	av_buf_init(&d->meta, AV_TAR_META_MAX);
}

void av_tar_dec_clear(struct av_tar_dec *d)
{
	av_buf_clear(&d->meta);
	av_tar_dec_init(d);
}

/* What has ended when left is 0. */
static int end_of_part(
    struct av_tar_dec *d, const struct av_tar_events *ev, void *ctx, struct av_err *err)
{
	int r = d->state == META ? take_meta(d, err) : ev->on_entry_end(ctx);

	d->state = d->skip ? PADDING : HEADER;
	return r;
}

/* Takes a piece of p; how much, or -errno. */
static ssize_t take(struct av_tar_dec *d, const uint8_t *p, size_t n,
    const struct av_tar_events *ev, void *ctx, struct av_err *err)
{
	size_t k;
	int r = 0;

	switch (d->state) {
	case HEADER:
		k = AV_MIN(n, sizeof(d->block) - d->block_n);
		memcpy(d->block + d->block_n, p, k);
		d->block_n += k;
		if (d->block_n == sizeof(d->block)) {
			d->block_n = 0;
			r = on_block(d, ev, ctx, err);
		}
		break;
	case META:
	case CONTENT:
		k = (size_t)AV_MIN((uint64_t)n, d->left);
		d->left -= k;
		if (d->state == CONTENT)
			r = ev->on_data(ctx, p, k);
		else if (av_buf_append(&d->meta, p, k) < 0)
			r = av_err_set(err, AV_ERR_NO_MEMORY, "no memory for a tar header");
		break;
	case PADDING:
		k = AV_MIN(n, d->skip);
		d->skip -= k;
		if (d->skip == 0)
			d->state = HEADER;
		break;
	default:
		k = n;
		break;
	}
	if (r == 0 && (d->state == META || d->state == CONTENT) && d->left == 0)
		r = end_of_part(d, ev, ctx, err);
	return r < 0 ? r : (ssize_t)k;
}

int av_tar_dec_feed(struct av_tar_dec *d, const void *data, size_t n,
    const struct av_tar_events *events, void *ctx, struct av_err *err)
{
	const uint8_t *p = data;

	while (n) {
		ssize_t k = take(d, p, n, events, ctx, err);

		if (k < 0)
			return (int)k;
		p += k;
		n -= (size_t)k;
	}
	return 0;
}

int av_tar_dec_finish(const struct av_tar_dec *d, struct av_err *err)
{
	if (d->state == END)
		return 0;
	if (d->entries == 0)
		return av_err_set(err, AV_ERR_INVALID,
		    "this is no tar archive: it ends before its first header is complete");
	return av_err_set(err, AV_ERR_INVALID,
	    "the tar archive is cut off after %" PRIu64 " entries: its end mark is missing",
	    d->entries);
}
