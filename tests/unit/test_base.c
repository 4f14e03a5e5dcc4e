/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_base.c - the base library: text, numbers, buffers, paths, JSON, time, ids, maps
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/avtime.h"
#include "base/buf.h"
#include "base/codec.h"
#include "base/err.h"
#include "base/fd.h"
#include "base/ids.h"
#include "base/json.h"
#include "base/map.h"
#include "base/num.h"
#include "base/path.h"
#include "lib/tap.h"

static void test_err(void)
{
	struct av_err err = {0};
	is_int(
	    av_err_set(&err, AV_ERR_NOT_FOUND, "sandbox %d", 7), -ENOENT, "kind gives the errno");
	is_str(err.message, "sandbox 7", "message");
	av_err_prefix(&err, "delete");
	is_str(err.message, "delete: sandbox 7", "prefix");
	is_int(
	    av_err_sys(&err, AV_ERR_INTERNAL, -ENOSPC, "write"), -ENOSPC, "full disk is NO_SPACE");
	is_int(err.kind, AV_ERR_NO_SPACE, "kind of a full disk");
	is_int(av_err_http_status(AV_ERR_NO_SPACE), 507, "its HTTP status");
	for (int k = 1; k < AV_ERR_KIND_COUNT; k++)
		ok(av_err_from_code(av_err_code((enum av_err_kind)k)) != AV_ERR_NONE,
		    "code %s maps back", av_err_code((enum av_err_kind)k));
	is_int(av_err_set(NULL, AV_ERR_INVALID, "x"), -EINVAL, "err may be NULL");
}

static void test_str(void)
{
	struct av_str s = AV_STR("a=b=c"), head;
	ok(av_str_cut(&s, '=', &head) && av_str_eq_c(head, "a") && av_str_eq_c(s, "b=c"), "cut");
	ok(!av_str_cut(&s, ';', &head) && av_str_eq_c(head, "b=c") && s.n == 0, "cut without sep");
	ok(av_str_ieq(AV_STR("Host"), AV_STR("hOST")), "case folded");
	ok(av_str_eq_secret(AV_STR("abc"), AV_STR("abc")) &&
	        !av_str_eq_secret(AV_STR("abc"), AV_STR("abd")),
	    "secret comparison");
	is_avstr(av_str_trim(AV_STR(" \tx y\t ")), "x y", "trim");
	char small[4];
	is_int(av_str_copy(small, sizeof(small), AV_STR("abcd")), -ENAMETOOLONG, "copy too long");
	is_int(av_str_copy(small, sizeof(small), AV_STR("a\0b")), -EINVAL, "copy with NUL");
}

static void test_utf8(void)
{
	ok(av_utf8_valid(AV_STR("h\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80")), "1 to 4 bytes");
	static const char *const bad[] = {"\xc0\xaf", "\xe0\x80\x80", "\xed\xa0\x80",
	    "\xf4\x90\x80\x80", "\xff", "\x80", "\xe2\x82", "\xf8\x88\x80\x80\x80"};
	for (size_t i = 0; i < AV_ARRAY_LEN(bad); i++)
		ok(!av_utf8_valid(av_str_c(bad[i])), "bad UTF-8 %zu refused", i);
	is_int(av_utf8_incomplete_tail(AV_STR("a\xe2\x82")), 2, "two bytes of three");
	is_int(av_utf8_incomplete_tail(AV_STR("a\xe2\x82\xac")), 0, "whole character");
	is_int(av_utf8_incomplete_tail(AV_STR("a\x82\x82")), 0, "stray continuation");
	is_int(av_utf8_incomplete_tail(AV_STR("\xf0\x9f\x98")), 3, "three of four");
}

static void test_num(void)
{
	uint64_t u = 7;
	int64_t i = 7;
	struct av_err err = {0};
	is_int(av_parse_u64(AV_STR("18446744073709551615"), 0, UINT64_MAX, &u), 0, "largest u64");
	ok(u == UINT64_MAX, "its value");
	is_int(
	    av_parse_u64(AV_STR("18446744073709551616"), 0, UINT64_MAX, &u), -ERANGE, "one more");
	is_int(av_parse_u64(AV_STR(""), 0, 9, &u), -EINVAL, "empty");
	is_int(av_parse_u64(AV_STR("+1"), 0, 9, &u), -EINVAL, "plus sign");
	is_int(av_parse_u64(AV_STR(" 1"), 0, 9, &u), -EINVAL, "space");
	is_int(
	    av_parse_i64(AV_STR("-9223372036854775808"), INT64_MIN, INT64_MAX, &i), 0, "INT64_MIN");
	ok(i == INT64_MIN, "its value");
	is_int(av_parse_i64(AV_STR("-9223372036854775809"), INT64_MIN, INT64_MAX, &i), -ERANGE,
	    "one less");
	is_int(av_parse_size(AV_STR("1.5GiB"), &u, &err), 0, "1.5GiB");
	is_int(u, 1610612736, "its bytes");
	is_int(av_parse_size(AV_STR("512M"), &u, &err), 0, "512M");
	is_int(u, 512 << 20, "its bytes");
	is_int(av_parse_size(AV_STR("x"), &u, &err), -EINVAL, "not a size");
	ok(strstr(err.message, "512M"), "the error shows the form");
	is_int(av_parse_size(AV_STR("99999999999999T"), &u, &err), -EINVAL, "overflowing size");
	is_int(av_parse_duration_ms(AV_STR("1.5s"), &u, &err), 0, "1.5s");
	is_int(u, 1500, "in ms");
	is_int(av_parse_duration_ms(AV_STR("250ms"), &u, &err), 0, "250ms");
	is_int(u, 250, "in ms");
	is_int(av_parse_milli(AV_STR("0.25"), 10000, &u), 0, "quarter");
	is_int(u, 250, "in thousandths");
	is_int(av_parse_hex_u64(AV_STR("fF"), 255, &u), 0, "hex");
	char text[24];
	is_str(av_format_size(1536, text), "1.5 KiB", "size for people");
}

static void test_buf(void)
{
	struct av_buf b = AV_BUF_INIT(1000);
	for (int i = 0; i < 100; i++)
		av_buf_printf(&b, "%d,", i % 10);
	is_int(b.n, 200, "appended");
	av_buf_consume(&b, 150);
	is_int(b.n, 50, "consumed");
	ok(av_buf_cstr(&b) && av_buf_cstr(&b)[49] == ',' && av_buf_cstr(&b)[50] == '\0',
	    "C string");
	char big[2000] = {0};
	is_int(av_buf_append(&b, big, sizeof(big)), -EMSGSIZE, "ceiling");
	is_int(av_buf_append(&b, "x", 1), -EMSGSIZE, "sticky");
	av_buf_reset(&b);
	is_int(av_buf_append(&b, big, 1000), 0, "exactly the ceiling");
	av_buf_clear(&b);
}

static void test_codec(void)
{
	struct av_buf b = AV_BUF_INIT(1 << 20);
	static const char *const pairs[][2] = {{"", ""}, {"f", "Zg=="}, {"fo", "Zm8="},
	    {"foo", "Zm9v"}, {"foob", "Zm9vYg=="}, {"fooba", "Zm9vYmE="}, {"foobar", "Zm9vYmFy"}};
	for (size_t i = 0; i < AV_ARRAY_LEN(pairs); i++) {
		av_buf_reset(&b);
		av_base64_encode(&b, pairs[i][0], strlen(pairs[i][0]));
		is_avstr(av_buf_str(&b), pairs[i][1], "base64 encode (RFC 4648)");
		av_buf_reset(&b);
		is_int(av_base64_decode(&b, av_str_c(pairs[i][1])), 0, "base64 decode");
		is_avstr(av_buf_str(&b), pairs[i][0], "round trip");
	}
	static const char *const bad[] = {
	    "Zg", "Zg=", "Zh==", "Z===", "====", "Zg==Zg==", "Zm9 ", "Zm8=x"};
	for (size_t i = 0; i < AV_ARRAY_LEN(bad); i++) {
		av_buf_reset(&b);
		is_int(av_base64_decode(&b, av_str_c(bad[i])), -EINVAL, bad[i]);
		is_int(b.n, 0, "nothing appended");
	}
	av_buf_reset(&b);
	is_int(av_percent_decode(&b, AV_STR("a%2Fb%00+c"), false), 0, "percent");
	is_bytes(av_buf_str(&b), av_str_n("a/b\0+c", 6), "decoded");
	is_int(av_percent_decode(&b, AV_STR("%2"), false), -EINVAL, "cut escape");
	is_int(av_percent_decode(&b, AV_STR("%zz"), false), -EINVAL, "bad escape");
	av_buf_reset(&b);
	av_percent_encode(&b, AV_STR("a/b c\xff"), true);
	is_avstr(av_buf_str(&b), "a/b%20c%FF", "encoded");
	char hex[5];
	av_hex_encode(hex, "\x0f\xa0", 2);
	is_str(hex, "0fa0", "hex");
	av_buf_clear(&b);
}

static void test_path(void)
{
	static const char *const cases[][2] = {{"/", "/"}, {"a", "/home/a"},
	    {"./a//b/", "/home/a/b"}, {"../../..", "/"}, {"/a/../../b", "/b"}, {"/a/./b/..", "/a"},
	    {"..", "/"}, {"a/..", "/home"}};
	struct av_buf b = AV_BUF_INIT(8192);
	struct av_err err = {0};
	for (size_t i = 0; i < AV_ARRAY_LEN(cases); i++) {
		av_buf_reset(&b);
		is_int(av_path_clean(&b, AV_STR("/home"), av_str_c(cases[i][0]), &err), 0,
		    cases[i][0]);
		is_avstr(av_buf_str(&b), cases[i][1], "cleaned");
	}
	av_buf_reset(&b);
	is_int(av_path_clean(&b, AV_STR("/"), AV_STR(""), &err), -EINVAL, "empty path");
	is_int(av_path_clean(&b, AV_STR("/"), AV_STR("a\0b"), &err), -EINVAL, "NUL");
	ok(strstr(err.message, "\\x00"), "the error shows it");
	char longname[300];
	memset(longname, 'x', sizeof(longname));
	is_int(av_path_clean(&b, AV_STR("/"), av_str_n(longname, 256), &err), -EINVAL, "long name");
	is_int(av_path_clean(&b, AV_STR("/"), av_str_n(longname, 255), &err), 0, "255 is allowed");
	is_avstr(av_path_base(AV_STR("/a/b/")), "b", "base");
	is_avstr(av_path_base(AV_STR("/")), "/", "base of root");
	is_avstr(av_path_dir(AV_STR("/a/b/")), "/a", "dir");
	is_avstr(av_path_dir(AV_STR("/a")), "/", "dir under root");
	is_avstr(av_path_dir(AV_STR("a")), ".", "dir of a bare name");
	av_buf_clear(&b);
}

static void test_json(void)
{
	struct av_err err = {0};
	AV_CLEANUP(av_json_decrefp)
	json_t *j = av_json_parse_object(
	    AV_STR("{\"s\":\"x\",\"n\":5,\"neg\":-1,\"b\":true,\"nul\":null,\"t\":1.5,"
	           "\"m\":{\"a\":\"b\"},\"bad\":{\"a\":1},\"l\":[\"p\",\"q\"]}"),
	    &err);
	ok(j, "parsed");
	const char *s = "default";
	int64_t n = 42;
	bool flag = false;
	is_int(av_json_get_str(j, "s", &s, &err), 0, "string");
	is_str(s, "x", "its value");
	is_int(av_json_get_i64(j, "absent", 0, 9, &n, &err), 0, "absent");
	is_int(n, 42, "keeps the default");
	is_int(av_json_get_i64(j, "nul", 0, 9, &n, &err), 0, "null is absent");
	is_int(av_json_get_i64(j, "neg", 0, 9, &n, &err), -EINVAL, "below range");
	is_str(err.message, "\"neg\" is -1; allowed is 0 to 9", "names field, value, range");
	is_int(av_json_get_i64(j, "t", 0, 9, &n, &err), -EINVAL, "1.5 is no whole number");
	is_int(av_json_get_seconds_ms(j, "t", 9000, &n, &err), 0, "but seconds");
	is_int(n, 1500, "in ms");
	is_int(av_json_get_bool(j, "n", &flag, &err), -EINVAL, "5 is no boolean");
	const json_t *m = NULL;
	is_int(av_json_get_str_map(j, "m", 4, &m, &err), 0, "string map");
	is_int(av_json_get_str_map(j, "bad", 4, &m, &err), -EINVAL, "map with a number");
	is_int(av_json_get_str_array(j, "l", 1, &m, &err), -EINVAL, "too many items");
	struct av_str bad[] = {AV_STR("{"), AV_STR("[]"), AV_STR("{\"a\":1,\"a\":2}"), AV_STR(""),
	    AV_STR("{\"a\":NaN}"), AV_STR("{\"a\":\"\xff\"}"), AV_STR("{\"a\":\"x\\u0000y\"}"),
	    AV_STR("{} x"), AV_STR("{\"a\":1e999}")};
	for (size_t i = 0; i < AV_ARRAY_LEN(bad); i++)
		ok(!av_json_parse_object(bad[i], &err) && err.kind == AV_ERR_INVALID,
		    "malformed %zu: %s", i, err.message);
	char deep[2000];
	memset(deep, '[', sizeof(deep));
	ok(!av_json_parse_object(av_str_n(deep, sizeof(deep)), &err) &&
	        strstr(err.message, "nested"),
	    "depth is bounded");
	struct av_buf b = AV_BUF_INIT(1000);
	av_json_write_str(&b, AV_STR("a\"\\\n\x1b\xff\xc3\xa9"));
	is_avstr(av_buf_str(&b), "\"a\\\"\\\\\\n\\u001b\xef\xbf\xbd\xc3\xa9\"", "escaped");
	av_buf_clear(&b);
}

static void test_time(void)
{
	int64_t ms = 0;
	char text[32];
	is_int(av_rfc3339_parse(AV_STR("2026-08-21T20:00:22.123456Z"), &ms), 0, "fraction");
	av_rfc3339_ms(ms, text);
	is_str(text, "2026-08-21T20:00:22.123Z", "round trip");
	is_int(av_rfc3339_parse(AV_STR("2024-02-29T00:00:00+02:00"), &ms), 0, "leap day, offset");
	av_rfc3339_ms(ms, text);
	is_str(text, "2024-02-28T22:00:00.000Z", "in UTC");
	static const char *const bad[] = {"", "2026-02-29T00:00:00Z", "2026-13-01T00:00:00Z",
	    "2026-01-01T24:00:00Z", "2026-01-01T00:00:00", "2026-01-01T00:00:00.Z",
	    "2026-01-01T00:00:00Zx", "2026-01-01"};
	for (size_t i = 0; i < AV_ARRAY_LEN(bad); i++)
		is_int(av_rfc3339_parse(av_str_c(bad[i]), &ms), -EINVAL, bad[i]);
}

static void test_ids(void)
{
	char a[AV_ID_SIZE], b[AV_ID_SIZE];
	av_id_make(a, AV_ID_SANDBOX);
	av_id_make(b, AV_ID_SANDBOX);
	ok(av_id_valid(av_str_c(a), AV_ID_SANDBOX), "%s is valid", a);
	ok(strcmp(a, b) != 0, "two differ");
	ok(!av_id_valid(av_str_c(a), AV_ID_KEY), "wrong prefix");
	a[5] = 'A';
	ok(!av_id_valid(av_str_c(a), AV_ID_SANDBOX), "upper case");
	ok(!av_id_valid(AV_STR("sb"), AV_ID_SANDBOX), "short");
}

static void test_map(void)
{
	static char keys[5000][AV_ID_SIZE];
	struct av_map m;
	av_map_init(&m);
	bool good = true;
	for (size_t i = 0; i < 5000; i++) {
		av_id_make(keys[i], "xx");
		good &= av_map_put(&m, av_str_c(keys[i]), keys[i]) == 0;
	}
	ok(good, "5000 put");
	is_int(av_map_put(&m, av_str_c(keys[7]), keys[7]), -EEXIST, "twice");
	for (size_t i = 0; i < 5000; i += 2)
		good &= av_map_remove(&m, av_str_c(keys[i])) == keys[i];
	for (size_t i = 0; i < 5000; i++)
		good &= (av_map_get(&m, av_str_c(keys[i])) != NULL) == (i % 2 == 1);
	ok(good, "removed ones are gone, others stay");
	size_t pos = 0, n = 0;
	while (av_map_next(&m, &pos))
		n++;
	is_int(n, 2500, "iteration");
	for (int round = 0; round < 100000; round++) {
		char key[AV_ID_SIZE];
		memcpy(key, keys[0], sizeof(key));
		good &= av_map_put(&m, av_str_c(key), key) == 0 &&
		        av_map_remove(&m, av_str_c(key)) == key;
	}
	ok(good && m.cap < 50000, "tombstones do not grow the table");
	av_map_clear(&m);
}

static void test_fd(void)
{
	int pair[2], fds[AV_FD_PASS_MAX], pipefd[2];
	size_t nfds = 0;
	char byte;
	ok(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) == 0 && pipe(pipefd) == 0,
	    "sockets");
	is_int(av_send_fds(pair[0], "hi", 2, pipefd, 1, 0), 2, "sent");
	char small[1];
	is_int(av_recv_fds(pair[1], small, 1, fds, &nfds, 0), -EMSGSIZE, "truncated is refused");
	is_int(av_send_fds(pair[0], "hi", 2, pipefd, 1, 0), 2, "sent again");
	char two[2];
	is_int(av_recv_fds(pair[1], two, 2, fds, &nfds, 0), 2, "received");
	is_int(nfds, 1, "one descriptor");
	ok((fcntl(fds[0], F_GETFD) & FD_CLOEXEC) != 0, "close-on-exec");
	is_int(av_write_full(pipefd[1], "x", 1), 0, "write");
	is_int(av_read_full(fds[0], &byte, 1), 1, "read through it");
	for (size_t i = 0; i < 2; i++) {
		close(pair[i]);
		close(pipefd[i]);
	}
	close(fds[0]);
	char text[16];
	is_int(av_read_file_at(AT_FDCWD, "/proc/self/status", text, sizeof(text)), -EFBIG,
	    "larger than the buffer");
}

/* What av_json_write_part() must write, character by character. */
static void escape_slowly(struct av_buf *out, struct av_str s)
{
	while (s.n) {
		unsigned char c = (unsigned char)s.p[0];
		size_t n = c < 0x80 ? 1 : av_utf8_char(s);
		if (c == '"' || c == '\\')
			av_buf_printf(out, "\\%c", c);
		else if (c == '\n' || c == '\t' || c == '\r')
			av_buf_printf(out, "\\%c", c == '\n' ? 'n' : c == '\t' ? 't' : 'r');
		else if (c < 0x20 || c == 0x7f)
			av_buf_printf(out, "\\u%04x", c);
		else if (n == 0)
			av_buf_append_c(out, "\xef\xbf\xbd");
		else
			av_buf_append(out, s.p, n);
		n = n ? n : 1;
		s = av_str_n(s.p + n, s.n - n);
	}
}

static bool escapes_alike(struct av_str s, size_t max)
{
	AV_CLEANUP(av_buf_clear) struct av_buf fast = AV_BUF_INIT(max);
	AV_CLEANUP(av_buf_clear) struct av_buf slow = AV_BUF_INIT(100000);
	escape_slowly(&slow, s);
	return av_json_write_part(&fast, s) == 0 && av_str_eq(av_buf_str(&fast), av_buf_str(&slow));
}

static bool is_standard(int fd)
{
	int flags = fcntl(fd, F_GETFD);

	return flags >= 0 && !(flags & FD_CLOEXEC);
}

/* In a child, as it is this program's own descriptors that are closed. */
static void test_standard_fds(void)
{
	int status = -1;
	pid_t pid = fork();

	if (pid == 0) {
		int next;

		close(0);
		close(2);
		if (av_fill_standard_fds() < 0 || av_fill_standard_fds() < 0)
			_exit(1);
		next = open("/", O_PATH | O_CLOEXEC);
		_exit(is_standard(0) && is_standard(1) && is_standard(2) && next > 2 ? 0 : 2);
	}
	ok(pid > 0 && waitpid(pid, &status, 0) == pid && status == 0,
	    "what is closed of 0, 1 and 2 is filled, for children too");
}

static void test_json_part(void)
{
	static const char *const chars[] = {"\"", "\\", "\n", "\x7f", "\x1f", "\x01", "\xc3\xa4",
	    "\xe2\x9c\x93", "\xf0\x9f\x8e\x88", "\xff", "\xe2\x9c", "\x80", "\xed\xa0\x80"};
	bool good = true;
	char text[4096];
	for (size_t k = 0; k < AV_ARRAY_LEN(chars); k++)
		for (size_t at = 0; at < 40; at++) {
			memset(text, 'a', sizeof(text));
			memcpy(text + at, chars[k], strlen(chars[k]));
			good = good && escapes_alike(av_str_n(text, 40 + k), 100000);
			/* At the border of the blocks in which it works. */
			memcpy(text + 1024 - at % 8, chars[k], strlen(chars[k]));
			good = good && escapes_alike(av_str_n(text, sizeof(text)), 100000);
		}
	ok(good, "every character at every place");
	for (size_t i = 0; i < sizeof(text); i++)
		text[i] = (char)(i * 2654435761u >> 13);
	ok(escapes_alike(av_str_n(text, sizeof(text)), 100000), "any bytes");
	memset(text, 1, sizeof(text));
	ok(escapes_alike(av_str_n(text, 1000), 6000), "a ceiling that is just enough");
	AV_CLEANUP(av_buf_clear) struct av_buf small = AV_BUF_INIT(5999);
	is_int(av_json_write_part(&small, av_str_n(text, 1000)), -EMSGSIZE, "one that is not");
}

int main(void)
{
	test_err();
	test_str();
	test_utf8();
	test_num();
	test_buf();
	test_codec();
	test_path();
	test_json();
	test_json_part();
	test_time();
	test_ids();
	test_map();
	test_fd();
	test_standard_fds();
	return tap_done();
}
