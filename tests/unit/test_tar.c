/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_tar.c - tar archives: what is written comes back, and what is malformed is named
 */
#include <errno.h>

#include "proto/tar.h"

#include "lib/tap.h"

struct seen {
	struct av_tar_entry e;
	char path[AV_PATH_MAX + 1], link[AV_PATH_MAX + 1];
	int entries, ends;
	uint64_t bytes;
};

static int on_entry(void *ctx, const struct av_tar_entry *e)
{
	struct seen *s = ctx;

	s->e = *e;
	snprintf(s->path, sizeof(s->path), "%s", e->path);
	snprintf(s->link, sizeof(s->link), "%s", e->link);
	s->entries++;
	return 0;
}

static int on_data(void *ctx, const void *p, size_t n)
{
	struct seen *s = ctx;

	(void)p;
	s->bytes += n;
	return 0;
}

static int on_entry_end(void *ctx)
{
	struct seen *s = ctx;

	s->ends++;
	return 0;
}

static const struct av_tar_events events = {on_entry, on_data, on_entry_end};

/* Decodes in pieces of that many bytes. */
static int decode(struct av_str s, size_t piece, struct seen *seen, struct av_err *err)
{
	struct av_tar_dec d;
	int r = 0;

	*seen = (struct seen){0};
	av_err_clear(err);
	av_tar_dec_init(&d);
	for (size_t i = 0; r == 0 && i < s.n; i += piece)
		r = av_tar_dec_feed(&d, s.p + i, AV_MIN(piece, s.n - i), &events, seen, err);
	if (r == 0)
		r = av_tar_dec_finish(&d, err);
	av_tar_dec_clear(&d);
	return r;
}

static void check_round_trip(const struct av_tar_entry *e, const char *what)
{
	AV_CLEANUP(av_buf_clear) struct av_buf b = AV_BUF_INIT(1 << 20);
	static const size_t pieces[] = {1, 7, 512, 1 << 20};
	struct seen s;
	struct av_err err;

	is_int(av_tar_write(&b, e), 0, what);
	for (uint64_t i = 0; i < e->size + av_tar_padding(e->size); i++)
		av_buf_append_char(&b, i < e->size ? 'x' : '\0');
	is_int(av_tar_write_end(&b), 0, "end");
	is_int(b.n % AV_TAR_BLOCK, 0, "whole blocks");
	for (size_t i = 0; i < AV_ARRAY_LEN(pieces); i++) {
		int r = decode(av_buf_str(&b), pieces[i], &s, &err);

		ok(r == 0 && s.entries == 1 && s.ends == 1 && s.bytes == e->size &&
		        s.e.type == e->type && s.e.mode == e->mode && s.e.mtime == e->mtime &&
		        strcmp(s.path, e->path) == 0 && strcmp(s.link, e->link) == 0,
		    "%s: comes back in pieces of %zu (%s)", what, pieces[i], err.message);
	}
}

static void test_round_trips(void)
{
	char path[AV_PATH_MAX + 1];
	struct av_tar_entry e = {.path = "a", .link = "", .size = 513, .mode = 0644, .mtime = 1};

	check_round_trip(&e, "a file");
	e.mtime = -5;
	check_round_trip(&e, "before 1970");
	e.mtime = 1LL << 40;
	e.uid = e.gid = UINT32_MAX;
	check_round_trip(&e, "large numbers");
	for (size_t n = 95; n < 105; n++) {
		memset(path, 'p', n);
		path[n] = '\0';
		e.path = path;
		check_round_trip(&e, "around what fits");
	}
	memset(path, 'q', AV_PATH_MAX);
	path[AV_PATH_MAX] = '\0';
	check_round_trip(&e, "the longest path");
	e = (struct av_tar_entry){.type = AV_TAR_SYMLINK, .path = "l", .link = path, .mode = 0777};
	check_round_trip(&e, "the longest link");
	e = (struct av_tar_entry){.type = AV_TAR_DIR, .path = "d\n=1/", .link = "", .mode = 01777};
	check_round_trip(&e, "a directory");
	e = (struct av_tar_entry){
	    .type = AV_TAR_HARDLINK, .path = "\xc3\xbc", .link = "\xff", .mode = 0};
	check_round_trip(&e, "bytes that are not ASCII, nor UTF-8");
	e.type = AV_TAR_OTHER;
	AV_CLEANUP(av_buf_clear) struct av_buf b = AV_BUF_INIT(4096);
	is_int(av_tar_write(&b, &e), -EINVAL, "devices are not written");
}

/* One header with one field replaced and its sum made right. */
static void check_field(
    size_t at, const char *bytes, size_t n, enum av_err_kind kind, const char *says)
{
	AV_CLEANUP(av_buf_clear) struct av_buf b = AV_BUF_INIT(4096);
	const struct av_tar_entry e = {.path = "f", .link = "t", .mode = 0644};
	struct seen s;
	struct av_err err;
	unsigned int sum = 0;
	int r;

	if (av_tar_write(&b, &e) < 0 || av_tar_write_end(&b) < 0)
		abort();
	memcpy(b.p + b.off + at, bytes, n);
	memset(b.p + b.off + 148, ' ', 8);
	for (size_t i = 0; i < AV_TAR_BLOCK; i++)
		sum += (unsigned char)b.p[b.off + i];
	snprintf(b.p + b.off + 148, 8, "%06o", sum);
	r = decode(av_buf_str(&b), 4096, &s, &err);
	if (kind == AV_ERR_NONE)
		ok(r == 0 && s.entries == 1, "%s: %s", says, err.message);
	else
		ok(r == -EINVAL && err.kind == kind && strstr(err.message, says), "%s: %s", says,
		    err.message);
}

static void test_headers(void)
{
	check_field(156, "S", 1, AV_ERR_UNSUPPORTED, "sparse");
	check_field(156, "M", 1, AV_ERR_UNSUPPORTED, "volumes");
	check_field(156, "Z", 1, AV_ERR_UNSUPPORTED, "not known");
	check_field(156, "2", 1, AV_ERR_NONE, "a link");
	check_field(156, "3", 1, AV_ERR_NONE, "a device");
	check_field(157, "\0", 1, AV_ERR_NONE, "no target, but no link either");
	check_field(156, "1\0", 2, AV_ERR_INVALID, "without a target");
	check_field(0, "\0", 1, AV_ERR_INVALID, "empty name");
	check_field(100, "9999999", 7, AV_ERR_INVALID, "bad number");
	check_field(124, "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", 12, AV_ERR_INVALID,
	    "content where there can be none");
	check_field(124, "\x80\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", 12, AV_ERR_INVALID,
	    "bad size");
	check_field(136, "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xfe", 12, AV_ERR_NONE,
	    "a time before 1970 in base 256");
	check_field(257, "ustar  ", 8, AV_ERR_NONE, "GNU's magic");
	check_field(257, "\0\0\0\0\0\0\0\0", 8, AV_ERR_NONE, "v7");
}

int main(void)
{
	test_round_trips();
	test_headers();
	return tap_done();
}
