/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fuzz_tar.c - tar archives: pieces change nothing, and what is decoded survives being written
 * again
 */
#include "proto/tar.h"

#include <errno.h>

#include "fuzz.h"

#include "base/banned.h"

struct run {
	struct av_buf events; /* all that was told, as text */
	struct av_buf again;  /* the same entries, written */
	uint64_t left;        /* content that is still due */
	bool open, copy;
};

static int on_entry(void *ctx, const struct av_tar_entry *e)
{
	struct run *r = ctx;
	struct av_tar_entry copy = *e;

	FUZZ_CHECK(!r->open);
	FUZZ_CHECK(e->path[0] && strlen(e->path) <= AV_PATH_MAX && strlen(e->link) <= AV_PATH_MAX);
	FUZZ_CHECK(e->mode <= 07777 && (e->size == 0 || e->type == AV_TAR_FILE));
	FUZZ_CHECK((e->type == AV_TAR_SYMLINK || e->type == AV_TAR_HARDLINK) == (e->link[0] != 0));
	r->open = true;
	r->left = e->size;
	av_buf_printf(&r->events, "%d %s %s %llu %o %lld\n", (int)e->type, e->path, e->link,
	    (unsigned long long)e->size, e->mode, (long long)e->mtime);
	copy.size = 0;
	if (r->copy && e->type != AV_TAR_OTHER && av_tar_write(&r->again, &copy) < 0)
		return -ENOMEM;
	return 0;
}

static int on_data(void *ctx, const void *p, size_t n)
{
	struct run *r = ctx;

	(void)p;
	FUZZ_CHECK(r->open && n <= r->left);
	r->left -= n;
	return 0;
}

static int on_entry_end(void *ctx)
{
	struct run *r = ctx;

	FUZZ_CHECK(r->open && r->left == 0);
	r->open = false;
	return 0;
}

static const struct av_tar_events events = {on_entry, on_data, on_entry_end};

static int decode(struct run *r, const uint8_t *data, size_t n, int shape, uint64_t *ret_entries)
{
	struct av_tar_dec d;
	struct av_err err = {0};
	int x = 0;

	av_tar_dec_init(&d);
	for (size_t i = 0, k = 0; x == 0 && i < n; k++) {
		size_t piece = shape < 0 ? n : fuzz_piece((uint8_t)shape, k, n - i);

		x = av_tar_dec_feed(&d, data + i, piece, &events, r, &err);
		i += piece;
	}
	FUZZ_CHECK(x == 0 || err.message[0]);
	if (x == 0 && av_tar_dec_finish(&d, &err) < 0)
		x = -1;
	*ret_entries = d.entries;
	av_tar_dec_clear(&d);
	return x;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	struct run whole = {
	    .copy = true, .events = AV_BUF_INIT(1 << 24), .again = AV_BUF_INIT(1 << 24)};
	struct run pieces = {.events = AV_BUF_INIT(1 << 24), .again = AV_BUF_INIT(1 << 24)};
	struct run second = {.events = AV_BUF_INIT(1 << 24), .again = AV_BUF_INIT(1 << 24)};
	uint64_t a, b, c;

	if (n < 1)
		return 0;
	int x = decode(&whole, data + 1, n - 1, -1, &a);
	int y = decode(&pieces, data + 1, n - 1, data[0], &b);
	FUZZ_CHECK(x == y && a == b);
	FUZZ_CHECK(av_str_eq(av_buf_str(&whole.events), av_buf_str(&pieces.events)));
	if (x == 0 && av_tar_write_end(&whole.again) == 0) {
		struct av_str s = av_buf_str(&whole.again);
		FUZZ_CHECK(decode(&second, (const uint8_t *)s.p, s.n, -1, &c) == 0 && c <= a);
	}
	av_buf_clear(&whole.events);
	av_buf_clear(&whole.again);
	av_buf_clear(&pieces.events);
	av_buf_clear(&pieces.again);
	av_buf_clear(&second.events);
	av_buf_clear(&second.again);
	return 0;
}
