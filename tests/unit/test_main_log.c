/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_main_log.c - the log of a main command: entries on the wire, lines in the agent's ring
 */
#include <errno.h>

#include "agent/main_log.h"
#include "base/buf.h"
#include "base/num.h"
#include "lib/tap.h"

#include "base/banned.h"

/* What a reader has seen, as text: bytes with their newlines. */
struct seen {
	struct av_buf text;
	size_t entries, gaps;
	uint64_t dropped, first, next;
	bool ended, in_order;
	struct av_mainlog_entry end;
};

static bool on_entry(void *ctx, const struct av_mainlog_entry *e)
{
	struct seen *s = ctx;

	if (e->kind == AV_MAINLOG_END) {
		s->ended = true;
		s->end = *e;
		return true;
	}
	if (e->kind == AV_MAINLOG_GAP) {
		s->gaps++;
		s->dropped += e->dropped;
		s->next = e->offset;
		return true;
	}
	if (!s->entries++)
		s->first = e->offset;
	else
		s->in_order = s->in_order && e->offset == s->next;
	s->next = e->offset + 1;
	(void)av_buf_append_str(&s->text, e->data);
	if (!(e->flags & AV_MAINLOG_OPEN))
		(void)av_buf_append_char(&s->text, '\n');
	return true;
}

static void seen_init(struct seen *s)
{
	*s = (struct seen){.text = AV_BUF_INIT(64 << 20), .in_order = true};
}

/* All from the cursor on, through the decoder in pieces of `piece` bytes. */
static void read_all(
    const struct main_log *l, struct main_log_cursor *c, size_t piece, struct seen *s)
{
	static char buf[MAIN_LOG_READ_MIN];
	struct av_mainlog_dec d;
	struct av_err err;
	size_t n;
	int r = 0;

	av_mainlog_dec_init(&d);
	while (r == 0 && (n = main_log_read(l, c, buf, sizeof(buf))) > 0)
		for (size_t i = 0; r == 0 && i < n; i += piece)
			r = av_mainlog_feed(&d, av_str_n(buf + i, n - i < piece ? n - i : piece),
			    on_entry, s, &err);
	if (r < 0 || !av_mainlog_dec_idle(&d))
		ok(false, "what the ring gives is well-formed: %s", err.message);
	av_mainlog_dec_clear(&d);
}

static struct seen read_range(const struct main_log *l, struct main_log_range range)
{
	struct main_log_cursor c;
	struct seen s;

	seen_init(&s);
	main_log_seek(l, &c, &range);
	read_all(l, &c, 4096, &s);
	return s;
}

static const struct main_log_range everything = {.tail = UINT64_MAX, .since_us = INT64_MIN};

static bool text_is(struct seen *s, const char *want)
{
	bool same = av_str_eq_c(av_buf_str(&s->text), want);

	if (!same)
		printf("# got %.*s\n", AV_STR_ARG(av_buf_str(&s->text)));
	av_buf_clear(&s->text);
	return same;
}

static void append(struct main_log *l, uint8_t stream, const char *text, int64_t at)
{
	main_log_append(l, stream, text, strlen(text), at);
}

/* ---- lines ---- */

static void test_lines(void)
{
	struct main_log l;
	struct seen s;

	main_log_init(&l, AV_MAINLOG_MIN);
	s = read_range(&l, everything);
	ok(s.entries == 0 && s.gaps == 0, "an empty one");
	append(&l, AV_MAINLOG_OUT, "one\ntw", 10);
	append(&l, AV_MAINLOG_ERR, "other\n\n", 20);
	append(&l, AV_MAINLOG_OUT, "o\n", 30);
	is_int((long long)l.next, 4, "four lines");
	s = read_range(&l, everything);
	ok(text_is(&s, "one\nother\n\ntwo\n"), "in the order of their ends");
	append(&l, AV_MAINLOG_OUT, "par", 40);
	ok(main_log_is_pending(&l), "a part waits");
	main_log_flush(&l, 39);
	is_int((long long)l.next, 4, "not for long enough");
	main_log_flush(&l, 40);
	append(&l, AV_MAINLOG_OUT, "tial\n", 50);
	s = read_range(&l, everything);
	ok(s.entries == 6 && text_is(&s, "one\nother\n\ntwo\npartial\n"), "parts make one line");
	s = read_range(&l, (struct main_log_range){.tail = 1, .since_us = INT64_MIN});
	ok(s.entries == 2 && text_is(&s, "partial\n"), "the last line has both parts");
	s = read_range(&l, (struct main_log_range){.tail = 0, .since_us = INT64_MIN});
	ok(text_is(&s, ""), "none");
	s = read_range(&l, (struct main_log_range){.tail = UINT64_MAX, .since_us = 40});
	ok(text_is(&s, "partial\n"), "since a time");
	s = read_range(
	    &l, (struct main_log_range){.from = 3, .tail = UINT64_MAX, .since_us = INT64_MIN});
	ok(s.first == 3 && text_is(&s, "two\npartial\n"), "from an offset");
	s = read_range(
	    &l, (struct main_log_range){.from = 99, .tail = UINT64_MAX, .since_us = INT64_MIN});
	ok(s.gaps == 0 && text_is(&s, ""), "from the future");
	main_log_clear(&l);
}

static void test_long_lines(void)
{
	static char line[3 * AV_MAINLOG_LINE_MAX + 8];
	struct main_log l;
	struct seen s;

	main_log_init(&l, AV_MAINLOG_MAX);
	for (size_t n = AV_MAINLOG_LINE_MAX - 1; n <= AV_MAINLOG_LINE_MAX + 1; n++)
		for (size_t first = 0; first <= n + 1; first += n / 3) {
			uint64_t before = l.next;

			memset(line, 'x', n);
			line[n] = '\n';
			main_log_append(&l, AV_MAINLOG_OUT, line, first, 1);
			main_log_append(&l, AV_MAINLOG_OUT, line + first, n + 1 - first, 2);
			s = read_range(
			    &l, (struct main_log_range){
			            .from = before, .tail = UINT64_MAX, .since_us = INT64_MIN});
			ok(s.text.n == n + 1 && memcmp(s.text.p, line, n + 1) == 0,
			    "%zu bytes, cut after %zu", n, first);
			av_buf_clear(&s.text);
		}
	memset(line, 'y', sizeof(line));
	main_log_append(&l, AV_MAINLOG_ERR, line, sizeof(line), 3);
	main_log_flush(&l, INT64_MAX);
	s = read_range(&l, (struct main_log_range){.tail = 1, .since_us = INT64_MIN});
	ok(s.entries == 4 && s.text.n == sizeof(line), "a line without an end, in four parts");
	av_buf_clear(&s.text);
	main_log_clear(&l);
}

/* ---- the ring ---- */

/* Random lines against a plain model; readers at random places see a suffix and count what they
 * missed. */
static void test_ring(void)
{
	struct main_log l;
	struct main_log_cursor slow;
	struct seen s;
	uint64_t seed = 1, written = 0;
	bool all_good = true;

	main_log_init(&l, AV_MAINLOG_MIN);
	main_log_seek_end(&l, &slow);
	seen_init(&s);
	for (int i = 0; i < 60000; i++) {
		char line[600];
		size_t n;

		seed = seed * 6364136223846793005ULL + 1442695040888963407ULL;
		n = (size_t)(seed >> 40) % ((seed >> 33) % 50 == 0 ? sizeof(line) - 1 : 12);
		memset(line, 'a' + i % 26, n);
		line[n] = '\n';
		main_log_append(&l, i % 2 ? AV_MAINLOG_OUT : AV_MAINLOG_ERR, line, n + 1, i);
		written++;
		if ((seed >> 20) % 997 == 0) {
			uint64_t had = s.entries + s.dropped;

			read_all(&l, &slow, 1 + (size_t)(seed >> 50) % 100, &s);
			all_good = all_good && s.entries + s.dropped == written &&
			           s.next == written && had <= written;
		}
	}
	ok(all_good && s.gaps > 3, "a slow reader gets or counts every line (%zu gaps)", s.gaps);
	av_buf_clear(&s.text);
	ok(l.cap <= AV_MAINLOG_MIN && l.used <= l.cap, "it stays within its bound");
	s = read_range(&l, everything);
	ok(s.in_order && s.dropped + s.entries == written && s.first == s.dropped, "a new one too");
	av_buf_clear(&s.text);
	s = read_range(&l, (struct main_log_range){.tail = 17, .since_us = INT64_MIN});
	ok(s.entries == 17 && s.gaps == 0 && s.next == written, "the last lines of a full ring");
	av_buf_clear(&s.text);
	main_log_clear(&l);
}

/* ---- the wire ---- */

static int feed(const uint8_t *p, size_t n, struct seen *s)
{
	struct av_mainlog_dec d;
	struct av_err err = {0};
	int r;

	av_mainlog_dec_init(&d);
	seen_init(s);
	r = av_mainlog_feed(&d, av_str_n((const char *)p, n), on_entry, s, &err);
	if (r == -EPROTO && err.kind != AV_ERR_AGENT)
		r = -EIO;
	av_mainlog_dec_clear(&d);
	av_buf_clear(&s->text);
	return r;
}

static void test_hostile(void)
{
	const struct av_mainlog_entry end = {
	    .kind = AV_MAINLOG_END, .offset = 5, .time_us = 7, .exit_code = 137, .signal = 9};
	uint8_t good[2 * AV_MAINLOG_SMALL_MAX], bad[sizeof(good)];
	struct seen s;
	/* Place, value: each alone makes it wrong. */
	static const struct {
		size_t at;
		uint8_t value;
	} wrong[] = {{0, 0}, {0, 4}, {0, 255}, {2, 4}, {3, 1}, {4, 1}, {7, 9}, {8, 0x80},
	    {16, 0x80}, {AV_MAINLOG_HEAD, 1}, {AV_MAINLOG_HEAD + 2, 1}, {AV_MAINLOG_HEAD + 3, 1},
	    {AV_MAINLOG_HEAD + 7, 65}};

	(void)av_mainlog_put_small(good, &end);
	ok(feed(good, AV_MAINLOG_SMALL_MAX, &s) == 0 && s.ended && s.end.exit_code == 137 &&
	        s.end.signal == 9 && s.end.offset == 5 && s.end.time_us == 7,
	    "an end");
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		memcpy(bad, good, AV_MAINLOG_SMALL_MAX);
		bad[wrong[i].at] = wrong[i].value;
		is_int(feed(bad, AV_MAINLOG_SMALL_MAX, &s), -EPROTO, "something wrong with it");
	}
	(void)av_mainlog_put_small(good + AV_MAINLOG_SMALL_MAX, &end);
	is_int(feed(good, sizeof(good), &s), -EPROTO, "nothing follows an end");
	for (size_t n = 0; n < AV_MAINLOG_SMALL_MAX; n++)
		if (feed(good, n, &s) != 0 || s.ended)
			ok(false, "half an entry is none");
	memcpy(bad, good, AV_MAINLOG_SMALL_MAX);
	bad[0] = AV_MAINLOG_LINE;
	bad[1] = AV_MAINLOG_OUT;
	av_put_be32(bad + 4, AV_MAINLOG_LINE_MAX + 1);
	is_int(feed(bad, AV_MAINLOG_SMALL_MAX, &s), -EPROTO, "a line over the ceiling");
	bad[1] = 3;
	av_put_be32(bad + 4, 8);
	is_int(feed(bad, AV_MAINLOG_SMALL_MAX, &s), -EPROTO, "a stream that there is not");
}

int main(void)
{
	test_lines();
	test_long_lines();
	test_ring();
	test_hostile();
	return tap_done();
}
