/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_frame.c - the binary agent codec, the Connect envelopes and the exit record
 */
#include "proto/frame.h"

#include <errno.h>

#include "base/num.h"
#include "lib/tap.h"
#include "proto/agent_api.h"
#include "proto/connect.h"

#include "base/banned.h"

struct run {
	struct av_buf log;
	enum av_frame_channel open; /* channel whose frame is half delivered */
	bool in_frame;
	int stop_after;
};

static int on_control(void *ctx, struct av_str payload)
{
	struct run *r = ctx;
	av_buf_printf(&r->log, "C(%.*s)", AV_STR_ARG(payload));
	return r->stop_after && --r->stop_after == 0;
}

static int on_data(void *ctx, enum av_frame_channel ch, const uint8_t *p, size_t n, bool last)
{
	struct run *r = ctx;
	if (!r->in_frame)
		av_buf_printf(&r->log, "%d(", ch);
	else if (ch != r->open)
		av_buf_append_c(&r->log, "CHANNEL");
	av_buf_append(&r->log, p, n);
	r->open = ch;
	r->in_frame = !last;
	if (last)
		av_buf_append_c(&r->log, ")");
	return r->stop_after && --r->stop_after == 0;
}

static const struct av_frame_events events = {on_control, on_data};

static void parse_frames(struct av_str s, size_t cut, struct av_buf *log)
{
	struct run r = {.log = AV_BUF_INIT(1 << 20)};
	struct av_frame_dec d;
	ssize_t n = 0;
	av_frame_dec_init(&d);
	for (size_t i = 0; i < s.n && n >= 0;) {
		size_t len = cut == SIZE_MAX ? 1 : i == 0 && cut ? cut : s.n - i;
		n = av_frame_dec_feed(&d, s.p + i, len, &events, &r);
		if (n >= 0 && (size_t)n != len)
			av_buf_append_c(&r.log, "SHORT");
		i += len;
	}
	if (n < 0)
		av_buf_printf(&r.log, "!%d", (int)-n);
	else if (!av_frame_dec_idle(&d))
		av_buf_append_c(&r.log, "...");
	av_buf_append_str(log, av_buf_str(&r.log));
	av_buf_clear(&r.log);
	av_frame_dec_clear(&d);
}

static void same_frames(struct av_str s, const char *want)
{
	size_t bad = 0;
	for (size_t cut = 0; cut <= s.n; cut++) {
		AV_CLEANUP(av_buf_clear) struct av_buf log = AV_BUF_INIT(1 << 20);
		parse_frames(s, cut == s.n ? SIZE_MAX : cut, &log);
		if (!av_str_eq_c(av_buf_str(&log), want) && bad++ == 0)
			diag("cut %zu: %.*s", cut, AV_STR_ARG(av_buf_str(&log)));
	}
	ok(bad == 0, "at every split: %s", want);
}

static void test_frames(void)
{
	AV_CLEANUP(av_buf_clear) struct av_buf b = AV_BUF_INIT(1 << 20);
	is_int(av_frame_write(&b, AV_FRAME_CONTROL, AV_STR("{\"a\":1}")), 0, "control");
	is_int(av_frame_write(&b, AV_FRAME_STDIN, AV_STR("abc")), 0, "stdin");
	is_int(av_frame_write(&b, AV_FRAME_STDIN, AV_STR("")), 0, "end of stdin");
	is_int(av_frame_write(&b, AV_FRAME_CONTROL, AV_STR("")), 0, "empty control");
	is_int(av_frame_write(&b, AV_FRAME_PTY, AV_STR("x")), 0, "pty");
	same_frames(av_buf_str(&b), "C({\"a\":1})1(abc)1()C()4(x)");
	same_frames(AV_STR("\0\0\0\1\5x"), "!71");
	same_frames(AV_STR("\0\1\0\1\2x"), "!90");
	same_frames(AV_STR("\0\4\0\1\0x"), "!90");
	same_frames(AV_STR("\xff\xff\xff\xff\1x"), "!90");
	same_frames(AV_STR("\0\0\0\2\2x"), "2(x...");
	same_frames(AV_STR("\0\0\0\2\0x"), "...");
	char *big = calloc(1, AV_FRAME_DATA_MAX + 1);
	av_buf_reset(&b);
	is_int(av_frame_write(&b, AV_FRAME_STDOUT, av_str_n(big, AV_FRAME_DATA_MAX)), 0, "largest");
	is_int(av_frame_write(&b, AV_FRAME_STDOUT, av_str_n(big, AV_FRAME_DATA_MAX + 1)), -EMSGSIZE,
	    "larger");
	free(big);
}

static void test_frame_stop(void)
{
	AV_CLEANUP(av_buf_clear) struct av_buf b = AV_BUF_INIT(4096);
	struct run r = {.log = AV_BUF_INIT(4096), .stop_after = 1};
	struct av_frame_dec d;
	av_frame_dec_init(&d);
	is_int(av_frame_write(&b, AV_FRAME_CONTROL, AV_STR("{}")), 0, "control");
	is_int(av_frame_write(&b, AV_FRAME_STDIN, AV_STR("abc")), 0, "stdin");
	struct av_str s = av_buf_str(&b);
	is_int(av_frame_dec_feed(&d, s.p, s.n, &events, &r), 7, "stops behind the first");
	is_int(av_frame_dec_feed(&d, s.p + 7, s.n - 7, &events, &r), 8, "and goes on");
	is_avstr(av_buf_str(&r.log), "C({})1(abc)", "both");
	av_frame_dec_clear(&d);
	av_buf_clear(&r.log);
}

struct crun {
	struct av_buf log;
};

static int on_message(void *ctx, bool end, struct av_str payload)
{
	struct crun *r = ctx;
	av_buf_printf(&r->log, "%s(%.*s)", end ? "E" : "M", AV_STR_ARG(payload));
	return av_str_eq_c(payload, "stop");
}

static void same_messages(struct av_str s, const char *want)
{
	size_t bad = 0;
	for (size_t cut = 0; cut <= s.n; cut++) {
		struct crun r = {.log = AV_BUF_INIT(65536)};
		struct av_connect_dec d;
		ssize_t n = 0;
		av_connect_dec_init(&d, 64);
		for (size_t i = 0; i < s.n && n >= 0;) {
			size_t len = cut == s.n ? 1 : i == 0 && cut ? cut : s.n - i;
			n = av_connect_dec_feed(&d, s.p + i, len, on_message, &r);
			if (n >= 0 && (size_t)n != len)
				av_buf_append_c(&r.log, "SHORT");
			i += len;
		}
		if (n < 0)
			av_buf_printf(&r.log, "!%d", (int)-n);
		else if (!av_connect_dec_idle(&d))
			av_buf_append_c(&r.log, "...");
		if (!av_str_eq_c(av_buf_str(&r.log), want) && bad++ == 0)
			diag("cut %zu: %.*s", cut, AV_STR_ARG(av_buf_str(&r.log)));
		av_buf_clear(&r.log);
		av_connect_dec_clear(&d);
	}
	ok(bad == 0, "at every split: %s", want);
}

static void test_connect(void)
{
	AV_CLEANUP(av_buf_clear) struct av_buf b = AV_BUF_INIT(4096);
	is_int(
	    av_connect_write(&b, 0, AV_STR("{\"event\":{\"start\":{\"pid\":7}}}")), 0, "message");
	is_int(av_connect_write_end(&b, AV_CONNECT_OK, AV_STR("")), 0, "end");
	is_bytes(av_buf_str(&b),
	    AV_STR("\0\0\0\0\x1d{\"event\":{\"start\":{\"pid\":7}}}\2\0\0\0\2{}"), "bytes");
	same_messages(av_buf_str(&b), "M({\"event\":{\"start\":{\"pid\":7}}})E({})");
	av_buf_reset(&b);
	is_int(av_connect_write_end(&b, AV_CONNECT_NOT_FOUND, AV_STR("no \"x\"")), 0, "error");
	same_messages(
	    av_buf_str(&b), "E({\"error\":{\"code\":\"not_found\",\"message\":\"no \\\"x\\\"\"}})");
	av_buf_reset(&b);
	is_int(av_connect_write_error(&b, AV_CONNECT_INTERNAL, AV_STR("m\xff")), 0, "unary error");
	is_avstr(av_buf_str(&b), "{\"code\":\"internal\",\"message\":\"m\xef\xbf\xbd\"}", "JSON");
	same_messages(AV_STR("\1\0\0\0\1x"), "!71");
	same_messages(AV_STR("\4\0\0\0\1x"), "!71");
	same_messages(AV_STR("\0\0\0\0\x41x"), "!90");
	same_messages(AV_STR("\0\xff\xff\xff\xff"), "!90");
	same_messages(AV_STR("\2\0\0\0\2{}\0\0\0\0\0"), "E({})!71");
	same_messages(AV_STR("\0\0\0\0\2x"), "...");
	same_messages(AV_STR("\0\0\0\0"), "...");
	struct crun r = {.log = AV_BUF_INIT(4096)};
	struct av_connect_dec d;
	av_connect_dec_init(&d, 64);
	is_int(
	    av_connect_dec_feed(&d, "\0\0\0\0\4stop\0\0\0\0\1x", 15, on_message, &r), 9, "stops");
	is_int(av_connect_dec_feed(&d, "\0\0\0\0\1x", 6, on_message, &r), 6, "and goes on");
	is_avstr(av_buf_str(&r.log), "M(stop)M(x)", "both");
	av_buf_clear(&r.log);
	av_connect_dec_clear(&d);
}

static void test_codes(void)
{
	/* The table of the protocol page. */
	static const struct {
		const char *name;
		int http;
	} codes[] = {{"canceled", 499}, {"unknown", 500}, {"invalid_argument", 400},
	    {"deadline_exceeded", 504}, {"not_found", 404}, {"already_exists", 409},
	    {"permission_denied", 403}, {"resource_exhausted", 429}, {"failed_precondition", 400},
	    {"aborted", 409}, {"out_of_range", 400}, {"unimplemented", 501}, {"internal", 500},
	    {"unavailable", 503}, {"data_loss", 500}, {"unauthenticated", 401}};
	is_int(AV_ARRAY_LEN(codes), AV_CONNECT_CODE_COUNT - 1, "all codes");
	for (size_t i = 0; i < AV_ARRAY_LEN(codes); i++) {
		enum av_connect_code c = av_connect_code_from_name(av_str_c(codes[i].name));
		is_str(av_connect_code_name(c), codes[i].name, codes[i].name);
		is_int(av_connect_http_status(c), codes[i].http, "status");
		ok(av_connect_code_to_err(c) != AV_ERR_NONE, "kind");
	}
	is_int(
	    av_connect_code_from_name(AV_STR("ok")), AV_CONNECT_UNKNOWN, "\"ok\" is no error code");
	is_int(av_connect_code_from_http(502), AV_CONNECT_UNAVAILABLE, "502");
	is_int(av_connect_code_from_http(404), AV_CONNECT_UNIMPLEMENTED, "404");
	for (int k = 1; k < AV_ERR_KIND_COUNT; k++)
		if (av_connect_code_from_err((enum av_err_kind)k) == AV_CONNECT_OK)
			ok(false, "kind %d has a code", k);
	is_int(av_connect_code_to_err(av_connect_code_from_err(AV_ERR_NOT_FOUND)), AV_ERR_NOT_FOUND,
	    "there and back");
}

static void test_exit_record(void)
{
	uint8_t b[AV_EXIT_RECORD_SIZE];
	struct av_exit_record r;
	av_exit_record_encode(b, AV_EXIT_FATAL, 7, 0x123456789aULL, "why\x1b[0m");
	is_int(av_exit_record_decode(b, sizeof(b), &r), 0, "decodes");
	is_int(r.reason, AV_EXIT_FATAL, "reason");
	is_int(r.code, 7, "code");
	ok(r.real_ms == 0x123456789aULL, "time");
	is_str(r.text, "why?[0m", "text made printable");
	is_int(av_exit_record_decode(b, 0, &r), -ENODATA, "nothing written");
	is_int(av_exit_record_decode(b, 63, &r), -EINVAL, "short");
	b[7] = 99;
	is_int(av_exit_record_decode(b, sizeof(b), &r), -EINVAL, "unknown reason");
	b[7] = 1;
	b[0] = 'B';
	is_int(av_exit_record_decode(b, sizeof(b), &r), -EINVAL, "other magic");
	av_exit_record_encode(
	    b, AV_EXIT_STOPPED, 0, 0, "0123456789012345678901234567890123456789 and more");
	is_int(av_exit_record_decode(b, sizeof(b), &r), 0, "long text");
	is_int(strlen(r.text), AV_EXIT_RECORD_TEXT, "is cut");
}

int main(void)
{
	test_frames();
	test_frame_stop();
	test_connect();
	test_codes();
	test_exit_record();
	return tap_done();
}
