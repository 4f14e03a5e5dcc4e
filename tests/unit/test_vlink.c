/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_vlink.c - connections on a port: from whatever is in the stream, a RESET makes a new one
 */
#include "proto/vlink.h"

#include <stdlib.h>

#include "base/buf.h"
#include "base/ids.h"
#include "lib/tap.h"

#include "base/banned.h"

#define STREAM_MAX ((size_t)4 << 20)
#define HISTORIES  150
#define SESSIONS   5

static uint64_t seed = 88172645463325252u;

static uint64_t rnd(uint64_t below)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return (seed >> 11) % below;
}

/* --- what is written --- */

static void add_reset(struct av_buf *b, uint8_t nonce_byte)
{
	uint8_t nonce[AV_VLINK_NONCE_SIZE];
	char *p = NULL;

	memset(nonce, nonce_byte, sizeof(nonce));
	if (av_buf_reserve(b, AV_VLINK_RESET_SIZE, &p) < 0 || !p)
		abort();
	av_vlink_put_reset((uint8_t *)p, nonce);
	av_buf_commit(b, AV_VLINK_RESET_SIZE);
}

static void add_echo(struct av_buf *b, uint8_t nonce_byte)
{
	uint8_t nonce[AV_VLINK_NONCE_SIZE], echo[AV_VLINK_ECHO_SIZE];

	memset(nonce, nonce_byte, sizeof(nonce));
	av_vlink_put_echo(echo, nonce);
	if (av_buf_append(b, echo, sizeof(echo)) < 0)
		abort();
}

static void add_record(struct av_buf *b, struct av_str payload, enum av_vlink_type type)
{
	char *p = NULL;

	if (av_buf_reserve(b, payload.n + AV_VLINK_OVERHEAD, &p) < 0 || !p)
		abort();
	if (payload.n)
		memcpy(p + AV_VLINK_HEAD, payload.p, payload.n);
	av_vlink_seal((uint8_t *)p, payload.n, type);
	av_buf_commit(b, payload.n + AV_VLINK_OVERHEAD);
}

/* --- what is read --- */

struct reader {
	struct av_vlink_in in;
	struct av_buf left;                /* not used yet, as a port's buffer */
	struct av_buf log;                 /* B<nonce> D<length> C X */
	struct av_buf data;                /* payload since the last begin */
	uint8_t last[AV_VLINK_NONCE_SIZE]; /* of it */
	bool stuck;
};

static void reader_init(struct reader *r, enum av_vlink_role role)
{
	*r = (struct reader){.left = AV_BUF_INIT(STREAM_MAX),
	    .log = AV_BUF_INIT(STREAM_MAX),
	    .data = AV_BUF_INIT(STREAM_MAX)};
	av_vlink_in_init(&r->in, role);
}

static void reader_clear(struct reader *r)
{
	av_buf_clear(&r->left);
	av_buf_clear(&r->log);
	av_buf_clear(&r->data);
}

static void read_event(struct reader *r, enum av_vlink_event e, struct av_str payload)
{
	switch (e) {
	case AV_VLINK_ON_BEGIN:
		memcpy(r->last, r->in.nonce, sizeof(r->last));
		av_buf_reset(&r->data);
		av_buf_printf(&r->log, "B%d ", r->last[0]);
		break;
	case AV_VLINK_ON_DATA:
		av_buf_append_str(&r->data, payload);
		av_buf_printf(&r->log, "D%zu ", payload.n);
		break;
	case AV_VLINK_ON_CLOSE:
		av_buf_append_c(&r->log, "C ");
		break;
	case AV_VLINK_ON_BROKEN:
		av_buf_append_c(&r->log, "X ");
		break;
	case AV_VLINK_NEED_MORE:
		break;
	}
}

static void reader_feed(struct reader *r, struct av_str s)
{
	enum av_vlink_event e;
	struct av_str payload = {0};
	size_t used;

	if (av_buf_append_str(&r->left, s) < 0)
		abort();
	do {
		used = 0;
		e = av_vlink_next(&r->in, av_buf_str(&r->left), &used, &payload);
		if (used > r->left.n)
			abort();
		read_event(r, e, payload);
		av_buf_consume(&r->left, used);
	} while (e != AV_VLINK_NEED_MORE);
	r->stuck |= r->left.n >= AV_VLINK_RECORD_MAX;
}

/* In pieces; the sizes change with every call. */
static void reader_feed_pieces(struct reader *r, struct av_str s)
{
	static const size_t most[] = {1, 7, 64, 4096, 65536};
	size_t max = most[rnd(AV_ARRAY_LEN(most))];

	if (max < 64 && s.n > 60000)
		max = 4096;
	for (size_t i = 0; i < s.n;) {
		size_t n = AV_MIN(1 + (size_t)rnd(max), s.n - i);

		reader_feed(r, av_str_n(s.p + i, n));
		i += n;
	}
}

/* --- tests --- */

static void test_plain(void)
{
	AV_CLEANUP(av_buf_clear) struct av_buf b = AV_BUF_INIT(STREAM_MAX);
	struct reader r;

	reader_init(&r, AV_VLINK_INSIDE);
	add_reset(&b, 7);
	add_record(&b, AV_STR("abc"), AV_VLINK_DATA);
	add_record(&b, AV_STR("d"), AV_VLINK_DATA);
	add_record(&b, AV_STR(""), AV_VLINK_CLOSE);
	add_record(&b, AV_STR("late"), AV_VLINK_DATA);
	is_int(b.n, AV_VLINK_PADDING + 23 + 6 + 4 + 3 + 7, "sizes");
	reader_feed(&r, av_buf_str(&b));
	is_avstr(av_buf_str(&r.log), "B7 D3 D1 C ", "begin, data, close, and nothing after it");
	is_avstr(av_buf_str(&r.data), "abcd", "the data");
	reader_feed(&r, av_buf_str(&b));
	is_avstr(av_buf_str(&r.log), "B7 D3 D1 C B7 D3 D1 C ", "the next one");
	reader_clear(&r);

	reader_init(&r, AV_VLINK_OUTSIDE);
	av_buf_reset(&b);
	add_echo(&b, 9);
	add_record(&b, AV_STR("x"), AV_VLINK_DATA);
	reader_feed(&r, av_buf_str(&b));
	is_avstr(av_buf_str(&r.log), "", "outside, nothing begins by itself");
	av_vlink_in_begin(
	    &r.in, (const uint8_t *)"\11\11\11\11\11\11\11\11\11\11\11\11\11\11\11\11");
	reader_feed(&r, av_buf_str(&b));
	is_avstr(av_buf_str(&r.log), "B9 D1 ", "but with its echo");
	av_vlink_in_end(&r.in);
	reader_feed(&r, av_buf_str(&b));
	is_avstr(av_buf_str(&r.log), "B9 D1 ", "and ends");
	reader_clear(&r);
}

/* What is no record ends the connection. */
static void test_broken(void)
{
	static const struct {
		struct av_str bytes;
		const char *what;
	} bad[] = {
	    {AV_STR("\1\0x\0"), "type 0"},
	    {AV_STR("\1\0x\5"), "an unknown type"},
	    {AV_STR("\0\0\3"), "DATA without bytes"},
	    {AV_STR("\1\0x\4"), "CLOSE with bytes"},
	    {AV_STR("\1\100"), "a length over the maximum"},
	    {AV_STR("\24\0AVL1nnnnnnnnnnnnnnnn\1"), "RESET without its padding"},
	    {AV_STR("\24\0AVL1nnnnnnnnnnnnnnnn\2"), "ECHO"},
	};

	for (size_t i = 0; i < AV_ARRAY_LEN(bad); i++) {
		AV_CLEANUP(av_buf_clear) struct av_buf b = AV_BUF_INIT(STREAM_MAX);
		struct reader r;

		reader_init(&r, AV_VLINK_INSIDE);
		add_reset(&b, 1);
		av_buf_append_str(&b, bad[i].bytes);
		add_record(&b, AV_STR("y"), AV_VLINK_DATA);
		add_reset(&b, 2);
		add_record(&b, AV_STR("z"), AV_VLINK_DATA);
		reader_feed(&r, av_buf_str(&b));
		is_avstr(av_buf_str(&r.log), "B1 X B2 D1 ", bad[i].what);
		reader_clear(&r);
	}
}

/* A record torn anywhere is never delivered, and the next connection begins. */
static void test_torn(void)
{
	static const size_t lengths[] = {1, 2, 3, 20, 255, 256, 257, 16128, 16383, 16384};
	AV_CLEANUP(av_buf_clear) struct av_buf record = AV_BUF_INIT(STREAM_MAX);
	size_t cuts = 0, bad = 0;
	char *payload = malloc(AV_VLINK_PAYLOAD_MAX);

	for (size_t k = 0; payload && k < AV_ARRAY_LEN(lengths) * 2; k++) {
		size_t n = lengths[k / 2];

		memset(payload, k % 2 ? 0 : 'q', n);
		av_buf_reset(&record);
		add_record(&record, av_str_n(payload, n), AV_VLINK_DATA);
		for (size_t cut = 0; cut < record.n;
		     cut += n < 300 || cut < 4 || record.n - cut < 5 ? 1 : record.n / 4 - 1) {
			AV_CLEANUP(av_buf_clear) struct av_buf b = AV_BUF_INIT(STREAM_MAX);
			struct reader r;

			reader_init(&r, AV_VLINK_INSIDE);
			add_reset(&b, 1);
			av_buf_append(&b, av_buf_str(&record).p, cut);
			add_reset(&b, 2);
			add_record(&b, AV_STR("new"), AV_VLINK_DATA);
			reader_feed_pieces(&r, av_buf_str(&b));
			bad += !av_str_eq_c(av_buf_str(&r.log), "B1 X B2 D3 ") || r.stuck;
			cuts++;
			reader_clear(&r);
		}
	}
	free(payload);
	ok(bad == 0 && cuts > 1000, "%zu torn records, %zu of them wrong", cuts, bad);
}

/* The greeting itself torn, with what of it looks like zeros. */
static void test_torn_reset(void)
{
	size_t bad = 0;

	for (size_t cut = 0; cut < AV_VLINK_RESET_SIZE;
	     cut += cut < AV_VLINK_PADDING - 4 ? 997 : 1) {
		AV_CLEANUP(av_buf_clear) struct av_buf b = AV_BUF_INIT(STREAM_MAX);
		struct reader r;

		reader_init(&r, AV_VLINK_INSIDE);
		add_reset(&b, cut % 2 ? 0 : 1); /* a nonce of zeros too */
		b.n = cut;
		add_reset(&b, 2);
		add_record(&b, AV_STR("new"), AV_VLINK_DATA);
		reader_feed_pieces(&r, av_buf_str(&b));
		bad += !av_str_eq_c(av_buf_str(&r.log), "B2 D3 ");
		reader_clear(&r);
	}
	ok(bad == 0, "a torn RESET begins nothing (%zu did)", bad);
}

/* A payload for whom it would be good to be something else: padding and a RESET, records, zeros. */
static void nasty_payload(struct av_buf *b)
{
	size_t n = 1 + (size_t)rnd(rnd(4) ? 600 : AV_VLINK_PAYLOAD_MAX);
	uint64_t kind = rnd(6);
	char *p = NULL;

	av_buf_reset(b);
	if (av_buf_reserve(b, AV_VLINK_PAYLOAD_MAX, &p) < 0 || !p)
		abort();
	memset(p, 0, AV_VLINK_PAYLOAD_MAX);
	if (kind == 0)
		n = AV_VLINK_PAYLOAD_MAX;
	if (kind == 1 && n > AV_VLINK_ECHO_SIZE)
		av_vlink_put_echo((uint8_t *)p + n - AV_VLINK_ECHO_SIZE, (const uint8_t *)p);
	if (kind == 2 && n > AV_VLINK_ECHO_SIZE) {
		/* As much of the padding as a record can hold, and a RESET right behind it. */
		n = AV_VLINK_PAYLOAD_MAX;
		av_vlink_put_echo((uint8_t *)p + n - AV_VLINK_ECHO_SIZE, (const uint8_t *)p);
		p[n - 1] = AV_VLINK_RESET;
	}
	if (kind == 3)
		for (size_t i = 0; i < n; i++)
			p[i] = (char)rnd(256);
	if (kind == 4)
		for (size_t i = 0; i < n; i++)
			p[i] = (char)rnd(5);
	av_buf_commit(b, n);
}

/* One session: RESET i, records; cut at random. *ret_payload: all that was sent in it. */
static void add_session(struct av_buf *stream, uint8_t i, struct av_buf *ret_payload)
{
	AV_CLEANUP(av_buf_clear) struct av_buf s = AV_BUF_INIT(STREAM_MAX);
	AV_CLEANUP(av_buf_clear) struct av_buf payload = AV_BUF_INIT(AV_VLINK_PAYLOAD_MAX);
	size_t records = (size_t)rnd(6);

	add_reset(&s, i);
	for (size_t k = 0; k < records; k++) {
		nasty_payload(&payload);
		add_record(&s, av_buf_str(&payload), AV_VLINK_DATA);
		av_buf_append_str(ret_payload, av_buf_str(&payload));
	}
	if (rnd(3) == 0)
		add_record(&s, AV_STR(""), AV_VLINK_CLOSE);
	if (rnd(4))
		s.n = (size_t)rnd(s.n + 1);
	av_buf_append_str(stream, av_buf_str(&s));
}

/* Bytes of any kind for a reader in any state, as a restore leaves them. */
static void add_rubbish(struct av_buf *stream, struct reader *r)
{
	size_t n = (size_t)rnd(40000);

	for (size_t i = 0; i < n; i++)
		av_buf_append_char(stream, (char)(rnd(3) ? rnd(256) : 0));
	r->in.state = rnd(2) ? AV_VLINK_OPEN : AV_VLINK_LOST;
	r->in.run = (size_t)rnd(2 * AV_VLINK_PADDING);
}

/* Several connections of which each lost its end somewhere, after bytes that nobody knows. */
static bool one_history(void)
{
	AV_CLEANUP(av_buf_clear) struct av_buf stream = AV_BUF_INIT(STREAM_MAX);
	AV_CLEANUP(av_buf_clear) struct av_buf sent = AV_BUF_INIT(STREAM_MAX);
	size_t sessions = (size_t)rnd(SESSIONS);
	struct reader r;
	bool good = true;

	reader_init(&r, AV_VLINK_INSIDE);
	if (rnd(2))
		add_rubbish(&stream, &r);
	reader_feed_pieces(&r, av_buf_str(&stream));
	for (size_t i = 1; i <= sessions; i++) {
		av_buf_reset(&stream);
		av_buf_reset(&sent);
		av_buf_reset(&r.data);
		add_session(&stream, (uint8_t)i, &sent);
		reader_feed_pieces(&r, av_buf_str(&stream));
		/* Nothing but a beginning of what was sent. */
		good = good && av_str_starts(av_buf_str(&sent), av_buf_str(&r.data));
		good = good && (!r.data.n || r.last[0] == i);
	}
	av_buf_reset(&stream);
	av_buf_reset(&r.log);
	add_reset(&stream, 99);
	add_record(&stream, AV_STR("after all"), AV_VLINK_DATA);
	reader_feed_pieces(&r, av_buf_str(&stream));
	good = good && r.last[0] == 99 && av_str_eq_c(av_buf_str(&r.data), "after all") && !r.stuck;
	good = good && av_str_ends(av_buf_str(&r.log), AV_STR("B99 D9 "));
	if (!good)
		diag("log of the end: %.*s", AV_STR_ARG(av_buf_str(&r.log)));
	reader_clear(&r);
	return good;
}

static void test_histories(void)
{
	size_t bad = 0;

	for (int i = 0; i < HISTORIES; i++)
		bad += !one_history();
	ok(bad == 0, "%d histories, %zu wrong", HISTORIES, bad);
}

/* The outside finds its echo behind anything, other echoes and beginnings of its own included. */
static void test_echo_anywhere(void)
{
	size_t bad = 0;

	for (int i = 0; i < 300; i++) {
		AV_CLEANUP(av_buf_clear) struct av_buf b = AV_BUF_INIT(STREAM_MAX);
		uint8_t nonce[AV_VLINK_NONCE_SIZE], echo[AV_VLINK_ECHO_SIZE];
		size_t n = (size_t)rnd(30);
		struct reader r;

		/* Nonces that repeat the beginning of an echo are the hard ones to look for. */
		av_random(nonce, sizeof(nonce));
		if (i % 2)
			memcpy(nonce, "\24\0AVL1\24\0AVL1\24\0AVL1", sizeof(nonce));
		reader_init(&r, AV_VLINK_OUTSIDE);
		av_vlink_in_begin(&r.in, nonce);
		av_vlink_put_echo(echo, nonce);
		for (size_t k = 0; k < n; k++) {
			if (rnd(3) == 0)
				add_echo(&b, (uint8_t)k);
			av_buf_append(&b, echo, (size_t)rnd(sizeof(echo)));
			if (rnd(3) == 0)
				av_buf_append_char(&b, (char)rnd(256));
		}
		av_buf_append(&b, echo, sizeof(echo));
		add_record(&b, AV_STR("data"), AV_VLINK_DATA);
		reader_feed_pieces(&r, av_buf_str(&b));
		bad += !av_str_eq_c(av_buf_str(&r.data), "data") ||
		       !av_str_ends(av_buf_str(&r.log), AV_STR("D4 ")) || r.log.p[0] != 'B' ||
		       memcmp(r.last, nonce, sizeof(nonce)) != 0;
		reader_clear(&r);
	}
	ok(bad == 0, "echoes behind anything (%zu missed)", bad);
}

int main(void)
{
	test_plain();
	test_broken();
	test_torn();
	test_torn_reset();
	test_histories();
	test_echo_anywhere();
	return tap_done();
}
