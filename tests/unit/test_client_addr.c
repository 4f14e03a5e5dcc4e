/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_client_addr.c - under which address a client is counted, and whom one believes about it
 */
#include "api/client_addr.h"

#include "lib/tap.h"
#include "base/banned.h"

static struct trusted_proxies trusted;

/* headers: name, value, ... */
static const char *addr(const char *peer, const char *const *headers)
{
	static char text[CLIENT_ADDR_SIZE];
	struct av_http_head head;

	av_http_head_init(&head);
	for (size_t i = 0; headers && headers[i]; i += 2)
		if (av_http_head_add_c(&head, headers[i], headers[i + 1]) < 0)
			abort();
	client_addr(&trusted, peer, &head, text);
	av_http_head_clear(&head);
	return text;
}

#define FROM(peer, ...) addr(peer, (const char *const[]){__VA_ARGS__ __VA_OPT__(, ) NULL})

static void test_without_a_proxy(void)
{
	(void)trusted_proxies_parse(NULL, &trusted, NULL);
	is_str(FROM("192.0.2.1:4711"), "192.0.2.1", "IPv4");
	is_str(FROM("[2001:db8:1:2:3:4:5:6]:80"), "2001:db8:1:2::", "a network of IPv6");
	is_str(FROM("[::ffff:192.0.2.1]:80"), "192.0.2.1", "IPv4 as IPv6");
	is_str(FROM("unix:pid=1,uid=0"), "local", "a unix socket");
	is_str(
	    FROM("192.0.2.1:1", "x-forwarded-for", "6.6.6.6"), "192.0.2.1", "nobody is believed");
	is_str(FROM("127.0.0.1:1", "forwarded", "for=6.6.6.6"), "127.0.0.1", "nor loopback");
}

static void test_behind_proxies(void)
{
	is_int(trusted_proxies_parse("127.0.0.1, 10.0.0.0/8,fd00::/8", &trusted, NULL), 0, "three");
	is_str(
	    FROM("127.0.0.1:1", "x-forwarded-for", "192.0.2.9"), "192.0.2.9", "as the proxy says");
	is_str(FROM("127.0.0.1:1", "x-forwarded-for", "6.6.6.6, 192.0.2.9"), "192.0.2.9",
	    "not as the client says");
	is_str(FROM("127.0.0.1:1", "x-forwarded-for", "6.6.6.6,192.0.2.9, 10.1.2.3"), "192.0.2.9",
	    "through two of them");
	is_str(FROM("127.0.0.1:1", "x-forwarded-for", "6.6.6.6", "x-forwarded-for", "192.0.2.9"),
	    "192.0.2.9", "two headers are one list");
	is_str(FROM("127.0.0.1:1", "x-forwarded-for", "6.6.6.6, nonsense"), "127.0.0.1",
	    "nothing behind what cannot be read");
	is_str(FROM("127.0.0.1:1"), "127.0.0.1", "a proxy that says nothing");
	is_str(FROM("127.0.0.1:1", "x-forwarded-for", "10.0.0.1,10.0.0.2"), "10.0.0.1",
	    "proxies all the way");
	is_str(FROM("[fd00::1]:1", "forwarded",
	           "for=6.6.6.6, for=\"[2001:db8::7]:443\";proto=https;by=10.0.0.1"),
	    "2001:db8::", "Forwarded");
	is_str(FROM("127.0.0.1:1", "forwarded", "For=192.0.2.9:80;host=x", "x-forwarded-for",
	           "6.6.6.6"),
	    "192.0.2.9", "Forwarded comes first");
	is_str(FROM("127.0.0.1:1", "forwarded", "for=unknown"), "127.0.0.1", "unknown");
	is_str(
	    FROM("11.0.0.1:1", "x-forwarded-for", "6.6.6.6"), "11.0.0.1", "outside of the range");
}

static void test_ranges(void)
{
	static const char *const wrong[] = {"x", "1.2.3", "1.2.3.4/33", "::/129", "1.2.3.4/", "/8",
	    "1.2.3.4/-1", "localhost", "1.2.3.4 5.6.7.8"};
	struct av_err err;
	char many[TRUSTED_PROXIES_MAX * 10 + 64] = "";

	for (size_t i = 0; i < AV_ARRAY_LEN(wrong); i++)
		ok(trusted_proxies_parse(wrong[i], &trusted, &err) < 0 &&
		        strstr(err.message, "trusted-proxies"),
		    "%s", wrong[i]);
	for (int i = 0; i <= TRUSTED_PROXIES_MAX; i++)
		(void)snprintf(many + strlen(many), sizeof(many) - strlen(many), "1.2.3.4,");
	ok(trusted_proxies_parse(many, &trusted, &err) < 0, "too many");
	is_int(trusted_proxies_parse("0.0.0.0/0", &trusted, &err), 0, "all of IPv4");
	is_str(FROM("9.9.9.9:1", "x-forwarded-for", "2001:db8::1"), "2001:db8::", "is that");
	is_int(trusted_proxies_parse("192.0.2.128/25", &trusted, &err), 0, "half of a byte");
	is_str(FROM("192.0.2.129:1", "x-forwarded-for", "1.1.1.1"), "1.1.1.1", "in it");
	is_str(FROM("192.0.2.127:1", "x-forwarded-for", "1.1.1.1"), "192.0.2.127", "beside it");
}

int main(void)
{
	test_without_a_proxy();
	test_behind_proxies();
	test_ranges();
	return tap_done();
}
