/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_net_config.c - addresses and ranges from an operator's words; the list of refused ranges
 */
#include "lib/tap.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "spawn/net_config.h"

static int address(const char *s, uint32_t *ret)
{
	return net_parse_address(av_str_c(s), ret);
}

static void addresses(void)
{
	uint32_t a = 7;
	static const char *const bad[] = {"", "1", "1.2.3", "1.2.3.4.5", "1.2.3.256", "01.2.3.4",
	    "1.2.3.0x4", "1.2.3.-4", " 1.2.3.4", "1.2.3.4 ", "1..2.3", "::1", "2130706433",
	    "1.2.3.4444"};
	for (size_t i = 0; i < AV_ARRAY_LEN(bad); i++)
		is_int(address(bad[i], &a), -EINVAL, bad[i]);
	ok(a == 7, "outputs are left alone on failure");
	ok(address("10.0.255.1", &a) == 0 && a == 0x0a00ff01u, "10.0.255.1");
	ok(address("255.255.255.255", &a) == 0 && a == UINT32_MAX, "the last");
	ok(address("0.0.0.0", &a) == 0 && a == 0, "the first");
}

static void ranges(void)
{
	struct nft_range r = {0};
	static const char *const bad[] = {
	    "10.0.0.1/8", "10.0.0.0/33", "10.0.0.0/0", "10.0.0.0/", "/8", "10.0.0.0/8/8", "10/8"};
	for (size_t i = 0; i < AV_ARRAY_LEN(bad); i++)
		is_int(net_parse_range(av_str_c(bad[i]), &r), -EINVAL, bad[i]);
	ok(net_parse_range(AV_STR("10.0.0.0/8"), &r) == 0 && r.first == 0x0a000000u &&
	        r.last == 0x0affffffu,
	    "10.0.0.0/8");
	ok(net_parse_range(AV_STR("192.0.2.7"), &r) == 0 && r.first == r.last, "one address");
	ok(net_parse_range(AV_STR("128.0.0.0/1"), &r) == 0 && r.last == UINT32_MAX, "half of all");
}

static void allow(void)
{
	struct net_config c = {0};
	struct av_err err = {0};
	static const char *const bad[] = {"", "10.0.0.0/8,", "127.0.0.1", "169.254.169.254",
	    "128.0.0.0/1", "0.0.0.0/8", "224.0.0.1", "64.0.0.0/2", "mirror.example"};
	is_int(net_config_allow(&c, "192.168.7.5, 10.2.0.0/16,10.1.0.0/16", &err), 0, "three");
	ok(c.n_allowed == 2 && c.allowed[0].first == 0x0a010000u &&
	        c.allowed[0].last == 0x0a02ffffu && c.allowed[1].first == 0xc0a80705u,
	    "sorted, and neighbours joined");
	is_int(net_config_allow(&c, "10.0.0.0/8", &err), 0, "one around others");
	ok(c.n_allowed == 2 && c.allowed[0].first == 0x0a000000u &&
	        c.allowed[0].last == 0x0affffffu,
	    "takes them in");
	for (size_t i = 0; i < AV_ARRAY_LEN(bad); i++) {
		err = (struct av_err){0};
		ok(net_config_allow(&c, bad[i], &err) < 0 && err.message[0], "%s: %s", bad[i],
		    err.message);
	}
	for (int i = 0; i < NET_ALLOWED_MAX - 2; i++) {
		char text[32];
		snprintf(text, sizeof(text), "172.%d.0.0/24", 16 + i);
		is_int(net_config_allow(&c, text, &err), 0, text);
	}
	ok(net_config_allow(&c, "203.0.113.0/24", &err) < 0 && strstr(err.message, "16"),
	    "one too many: %s", err.message);
}

static void others(void)
{
	struct net_config c = {0};
	struct av_err err = {0};
	is_int(net_config_resolver(&c, "10.0.0.53,9.9.9.9", &err), 0, "two resolvers");
	ok(c.n_resolvers == 2 && c.resolvers[1] == 0x09090909u, "in order");
	ok(net_config_resolver(&c, "127.0.0.53", &err) < 0, "loopback: %s", err.message);
	is_int(net_config_resolver(&c, "1.1.1.1", &err), 0, "the third");
	ok(net_config_resolver(&c, "8.8.8.8", &err) < 0, "the fourth: %s", err.message);
	is_int(net_config_pool(&c, "172.30.0.0/16", &err), 0, "a pool");
	static const char *const bad[] = {
	    "172.30.0.0/15", "172.30.0.0/25", "8.8.0.0/16", "172.15.0.0/16", "192.167.0.0/16", "x"};
	for (size_t i = 0; i < AV_ARRAY_LEN(bad); i++)
		ok(net_config_pool(&c, bad[i], &err) < 0, "%s: %s", bad[i], err.message);
	ok(c.pool.first == 0xac1e0000u && c.pool.last == 0xac1effffu, "left alone on failure");
}

/* The kernel wants them sorted and apart. */
static void denied(void)
{
	static const uint32_t must[] = {0x7f000001u, 0x0a000001u, 0xa9fea9feu, 0xac10ffffu,
	    0xc0a80001u, 0x64646464u, 0xa83f8110u, 0xe0000001u, 0xffffffffu, 0u, 0xc00000c0u};
	for (size_t i = 0; i < net_denied_count; i++)
		ok(net_denied[i].first <= net_denied[i].last &&
		        (i == 0 || net_denied[i - 1].last < net_denied[i].first),
		    "range %zu is in order", i);
	for (size_t k = 0; k < AV_ARRAY_LEN(must); k++) {
		bool in = false;
		for (size_t i = 0; i < net_denied_count; i++)
			in |= must[k] >= net_denied[i].first && must[k] <= net_denied[i].last;
		ok(in, "%08x is refused", must[k]);
	}
}

int main(void)
{
	addresses();
	ranges();
	allow();
	others();
	denied();
	return tap_done();
}
