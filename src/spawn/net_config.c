/* SPDX-License-Identifier: Apache-2.0 */
/*
 * net_config.c - what an operator says about internet access
 */
#include "spawn/net_config.h"

#include <errno.h>
#include <string.h>

#include "base/num.h"
#include "base/banned.h"

#define POOL_WIDEST    16
#define POOL_NARROWEST 24

int net_parse_address(struct av_str s, uint32_t *ret)
{
	uint32_t a = 0;
	for (int i = 0; i < 4; i++) {
		struct av_str part;
		uint64_t v;
		if (av_str_cut(&s, '.', &part) != (i < 3))
			return -EINVAL;
		/* A leading zero would be octal elsewhere. */
		if (part.n > 3 || (part.n > 1 && part.p[0] == '0') ||
		    av_parse_u64(part, 0, 255, &v) < 0)
			return -EINVAL;
		a = a << 8 | (uint32_t)v;
	}
	*ret = a;
	return 0;
}

int net_parse_range(struct av_str s, struct nft_range *ret)
{
	struct av_str address;
	uint64_t width = 32;
	uint32_t first;
	if (av_str_cut(&s, '/', &address) && av_parse_u64(s, 1, 32, &width) < 0)
		return -EINVAL;
	if (net_parse_address(address, &first) < 0)
		return -EINVAL;
	uint32_t host_bits = (uint32_t)(0xffffffffull >> width);
	if (first & host_bits)
		return -EINVAL;
	*ret = (struct nft_range){.first = first, .last = first | host_bits};
	return 0;
}

bool net_overlap(const struct nft_range *a, const struct nft_range *b)
{
	return a->first <= b->last && b->first <= a->last;
}

/* What no option opens: a packet there is the host's own, everybody's, or for a metadata service.
 */
static bool never_allowed(const struct nft_range *r)
{
	static const struct nft_range never[] = {
	    {0x00000000u, 0x00ffffffu},
	    {0x7f000000u, 0x7fffffffu},
	    {0xa9fe0000u, 0xa9feffffu},
	    {0xe0000000u, 0xffffffffu},
	};
	for (size_t i = 0; i < AV_ARRAY_LEN(never); i++)
		if (net_overlap(r, &never[i]))
			return true;
	return false;
}

/* Takes in what touches it; the list stays sorted. -ENOSPC. */
static int add_range(struct net_config *c, struct nft_range r)
{
	size_t n = 0, at = 0;
	struct nft_range out[NET_ALLOWED_MAX + 1];
	for (size_t i = 0; i < c->n_allowed; i++) {
		const struct nft_range *have = &c->allowed[i];
		if (net_overlap(have, &r) || have->last + 1 == r.first ||
		    r.last + 1 == have->first) {
			r.first = AV_MIN(r.first, have->first);
			r.last = have->last > r.last ? have->last : r.last;
			continue;
		}
		if (have->last < r.first)
			at = n + 1;
		out[n++] = *have;
	}
	if (n == NET_ALLOWED_MAX)
		return -ENOSPC;
	memmove(&out[at + 1], &out[at], (n - at) * sizeof(out[0]));
	out[at] = r;
	memcpy(c->allowed, out, (n + 1) * sizeof(out[0]));
	c->n_allowed = n + 1;
	return 0;
}

int net_config_allow(struct net_config *c, const char *list, struct av_err *err)
{
	struct av_str rest = av_str_c(list), word;
	bool more;
	do {
		struct nft_range r;
		more = av_str_cut(&rest, ',', &word);
		word = av_str_trim(word);
		if (net_parse_range(word, &r) < 0)
			return av_err_set(err, AV_ERR_INVALID,
			    "'%.*s' is no range of IPv4 addresses; write 10.1.2.0/24 or 10.1.2.3",
			    AV_STR_ARG(word));
		if (never_allowed(&r))
			return av_err_set(err, AV_ERR_INVALID,
			    "'%.*s' holds loopback, link-local (metadata services), multicast or "
			    "reserved addresses, which are never allowed",
			    AV_STR_ARG(word));
		if (add_range(c, r) < 0)
			return av_err_set(
			    err, AV_ERR_INVALID, "more than %d ranges: join some", NET_ALLOWED_MAX);
	} while (more);
	return 0;
}

int net_config_resolver(struct net_config *c, const char *list, struct av_err *err)
{
	static const struct nft_range loopback = {0x7f000000u, 0x7fffffffu};
	struct av_str rest = av_str_c(list), word;
	bool more;
	do {
		struct nft_range r;
		more = av_str_cut(&rest, ',', &word);
		word = av_str_trim(word);
		if (net_parse_address(word, &r.first) < 0)
			return av_err_set(err, AV_ERR_INVALID,
			    "'%.*s' is no IPv4 address of a name server; write 10.1.2.3",
			    AV_STR_ARG(word));
		r.last = r.first;
		if (net_overlap(&r, &loopback))
			return av_err_set(err, AV_ERR_INVALID,
			    "'%.*s' is this machine's loopback, where no sandbox can ask; let the "
			    "name server listen on another address too",
			    AV_STR_ARG(word));
		if (c->n_resolvers == NET_RESOLVERS_MAX)
			return av_err_set(
			    err, AV_ERR_INVALID, "at most %d name servers", NET_RESOLVERS_MAX);
		c->resolvers[c->n_resolvers++] = r.first;
	} while (more);
	return 0;
}

int net_config_pool(struct net_config *c, const char *range, struct av_err *err)
{
	struct nft_range r;
	/* Such a range lies within one of these or not at all in private space. */
	static const struct nft_range private[] = {
	    {0x0a000000u, 0x0affffffu}, /* 10/8 */
	    {0x64400000u, 0x647fffffu}, /* 100.64/10 */
	    {0xac100000u, 0xac1fffffu}, /* 172.16/12 */
	    {0xc0a80000u, 0xc0a8ffffu}, /* 192.168/16 */
	    {0xc6120000u, 0xc613ffffu}, /* 198.18/15 */
	};
	if (net_parse_range(av_str_c(range), &r) == 0 &&
	    r.last - r.first < 1u << (32 - POOL_WIDEST) &&
	    r.last - r.first >= (1u << (32 - POOL_NARROWEST)) - 1)
		for (size_t i = 0; i < AV_ARRAY_LEN(private); i++)
			if (r.first >= private[i].first && r.last <= private[i].last) {
				c->pool = r;
				return 0;
			}
	return av_err_set(err, AV_ERR_INVALID,
	    "'%s' is no private range of /%d to /%d; write 10.213.0.0/16", range, POOL_WIDEST,
	    POOL_NARROWEST);
}
