/* SPDX-License-Identifier: Apache-2.0 */
/*
 * client_addr.c - under which network address a client is counted (see client_addr.h)
 */
#include "api/client_addr.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>

#include "base/num.h"

#include "base/banned.h"

#define V4_PREFIX 96
#define HOPS_MAX  32

struct addr {
	uint8_t b[16];
};

static bool is_v4(const struct addr *a)
{
	static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};

	return memcmp(a->b, mapped, sizeof(mapped)) == 0;
}

static int parse_addr(struct av_str s, struct addr *ret)
{
	char text[INET6_ADDRSTRLEN + 1];
	struct in_addr v4;

	if (av_str_copy(text, sizeof(text), s) < 0)
		return -EINVAL;
	if (inet_pton(AF_INET, text, &v4) == 1) {
		*ret = (struct addr){.b = {[10] = 0xff, [11] = 0xff}};
		memcpy(ret->b + 12, &v4, sizeof(v4));
		return 0;
	}
	return inet_pton(AF_INET6, text, ret->b) == 1 ? 0 : -EINVAL;
}

static int parse_range(struct av_str word, struct trusted_proxies *t)
{
	struct av_str bits = word, net;
	bool has_bits = av_str_cut(&bits, '/', &net);
	struct addr a;
	uint64_t n = 128;

	if (parse_addr(net, &a) < 0)
		return -EINVAL;
	if (has_bits && av_parse_u64(bits, 0, is_v4(&a) ? 32 : 128, &n) < 0)
		return -EINVAL;
	if (has_bits && is_v4(&a))
		n += V4_PREFIX;
	memcpy(t->v[t->n].net, a.b, sizeof(a.b));
	t->v[t->n++].bits = (unsigned int)n;
	return 0;
}

int trusted_proxies_parse(const char *text, struct trusted_proxies *ret, struct av_err *err)
{
	struct av_str rest = av_str_c(text), word;
	struct trusted_proxies t = {.n = 0};

	while (rest.n) {
		(void)av_str_cut(&rest, ',', &word);
		word = av_str_trim(word);
		if (!word.n)
			continue;
		if (t.n == TRUSTED_PROXIES_MAX)
			return av_err_set(err, AV_ERR_INVALID,
			    "trusted-proxies: at most %d can be named; give ranges",
			    TRUSTED_PROXIES_MAX);
		if (parse_range(word, &t) < 0)
			return av_err_set(err, AV_ERR_INVALID,
			    "trusted-proxies: '%.*s' is no address; give numbers, as 127.0.0.1, "
			    "10.0.0.0/8 or fd00::/8",
			    (int)AV_MIN(word.n, (size_t)60), word.p);
	}
	*ret = t;
	return 0;
}

static bool is_trusted(const struct trusted_proxies *t, const struct addr *a)
{
	for (size_t i = 0; i < t->n; i++) {
		unsigned int bits = t->v[i].bits, whole = bits / 8, more = bits % 8;
		unsigned int diff =
		    more ? (unsigned int)((a->b[whole] ^ t->v[i].net[whole]) >> (8 - more)) : 0;

		if (memcmp(a->b, t->v[i].net, whole) == 0 && diff == 0)
			return true;
	}
	return false;
}

/* "192.0.2.1", "192.0.2.1:80", "2001:db8::1", "[2001:db8::1]:80", any of them in quotes. */
static int parse_node(struct av_str s, struct addr *ret)
{
	struct av_str host, rest;

	s = av_str_trim(s);
	if (s.n >= 2 && s.p[0] == '"' && s.p[s.n - 1] == '"')
		s = av_str_n(s.p + 1, s.n - 2);
	if (s.n && s.p[0] == '[') {
		rest = av_str_n(s.p + 1, s.n - 1);
		return av_str_cut(&rest, ']', &host) ? parse_addr(host, ret) : -EINVAL;
	}
	if (parse_addr(s, ret) == 0)
		return 0;
	rest = s;
	(void)av_str_cut(&rest, ':', &host);
	return parse_addr(host, ret);
}

/* The for= of one element of Forwarded; empty: there is none. */
static struct av_str forwarded_for(struct av_str element)
{
	struct av_str pair, name;

	while (element.n) {
		(void)av_str_cut(&element, ';', &pair);
		pair = av_str_trim(pair);
		if (av_str_cut(&pair, '=', &name) && av_str_ieq(av_str_trim(name), AV_STR("for")))
			return pair;
	}
	return AV_STR("");
}

/* Cuts the last of "a, b, c" off. */
static bool cut_last(struct av_str *list, struct av_str *ret)
{
	size_t i = list->n;

	if (!list->n)
		return false;
	while (i > 0 && list->p[i - 1] != ',')
		i--;
	*ret = av_str_trim(av_str_n(list->p + i, list->n - i));
	list->n = i ? i - 1 : 0;
	return true;
}

/* Goes on from the connection's address through what trusted proxies say, the newest first. */
static void walk(const struct trusted_proxies *t, const struct av_http_head *head, const char *name,
    bool is_forwarded, struct addr *at)
{
	int hops = 0;

	for (size_t i = head->n_headers; i > 0; i--) {
		struct av_str list = head->headers[i - 1].value, node;
		struct addr next;

		if (!av_str_eq_c(head->headers[i - 1].name, name))
			continue;
		while (is_trusted(t, at) && hops++ < HOPS_MAX && cut_last(&list, &node)) {
			if (is_forwarded)
				node = forwarded_for(node);
			if (parse_node(node, &next) < 0)
				return;
			*at = next;
		}
	}
}

static bool has_header(const struct av_http_head *head, const char *name)
{
	for (size_t i = 0; i < head->n_headers; i++)
		if (av_str_eq_c(head->headers[i].name, name))
			return true;
	return false;
}

void client_addr(const struct trusted_proxies *t, const char *peer, const struct av_http_head *head,
    char ret[static CLIENT_ADDR_SIZE])
{
	bool forwarded = has_header(head, "forwarded");
	struct addr a;

	if (parse_node(av_str_c(peer), &a) < 0) {
		(void)snprintf(ret, CLIENT_ADDR_SIZE, "local");
		return;
	}
	if (is_trusted(t, &a))
		walk(t, head, forwarded ? "forwarded" : "x-forwarded-for", forwarded, &a);
	if (is_v4(&a)) {
		(void)inet_ntop(AF_INET, a.b + 12, ret, CLIENT_ADDR_SIZE);
		return;
	}
	memset(a.b + 8, 0, 8);
	(void)inet_ntop(AF_INET6, a.b, ret, CLIENT_ADDR_SIZE);
}
