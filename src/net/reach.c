/* SPDX-License-Identifier: Apache-2.0 */
/*
 * reach.c - which addresses may be connected to (see reach.h)
 */
#include "net/reach.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <string.h>

#include "base/num.h"

#include "base/banned.h"

enum class {
	PUBLIC,
	PRIVATE,   /* allowed by "yes" */
	FORBIDDEN, /* only when a range names it */
};

struct special {
	uint8_t address[16];
	uint8_t bits;
	enum class class;
	const char *what;
};

#define V4(a, b, c, d)                                                                             \
	{                                                                                          \
		0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d                               \
	}

/* The first that fits decides. */
static const struct special specials4[] = {
    {V4(127, 0, 0, 0), 96 + 8, PRIVATE, "a loopback address"},
    {V4(10, 0, 0, 0), 96 + 8, PRIVATE, "a private address"},
    {V4(172, 16, 0, 0), 96 + 12, PRIVATE, "a private address"},
    {V4(192, 168, 0, 0), 96 + 16, PRIVATE, "a private address"},
    {V4(100, 64, 0, 0), 96 + 10, PRIVATE, "a shared (CGNAT) address"},
    {V4(169, 254, 0, 0), 96 + 16, FORBIDDEN, "a link-local address"},
    {V4(0, 0, 0, 0), 96 + 8, FORBIDDEN, "an unspecified address"},
    {V4(224, 0, 0, 0), 96 + 4, FORBIDDEN, "a multicast address"},
    {V4(240, 0, 0, 0), 96 + 4, FORBIDDEN, "a reserved address"},
    {V4(192, 0, 0, 0), 96 + 24, FORBIDDEN, "a reserved address"},
    {V4(192, 0, 2, 0), 96 + 24, FORBIDDEN, "a documentation address"},
    {V4(192, 88, 99, 0), 96 + 24, FORBIDDEN, "a reserved address"},
    {V4(198, 18, 0, 0), 96 + 15, PRIVATE, "a benchmarking address"},
    {V4(198, 51, 100, 0), 96 + 24, FORBIDDEN, "a documentation address"},
    {V4(203, 0, 113, 0), 96 + 24, FORBIDDEN, "a documentation address"},
    {V4(0, 0, 0, 0), 96, PUBLIC, ""},
};

static const struct special specials6[] = {
    /* AWS's metadata service, before the private range around it. */
    {{0xfd, 0x00, 0x0e, 0xc2}, 32, FORBIDDEN, "the range of a metadata service"},
    {{[15] = 1}, 128, PRIVATE, "a loopback address"},
    {{0xfc}, 7, PRIVATE, "a private address"},
    {{0xfe, 0x80}, 10, FORBIDDEN, "a link-local address"},
    {{0xff}, 8, FORBIDDEN, "a multicast address"},
    {{0x20, 0x01, 0x0d, 0xb8}, 32, FORBIDDEN, "a documentation address"},
    {{0x20, 0x01, 0x00}, 23, FORBIDDEN, "a reserved address"},
    {{0x20, 0x02}, 16, FORBIDDEN, "a 6to4 address"},
    {{0x3f, 0xff, 0x00}, 20, FORBIDDEN, "a documentation address"},
    {{0x20}, 3, PUBLIC, ""},
    {{0}, 0, FORBIDDEN, "a reserved address"},
};

static const uint8_t mapped[16] = V4(0, 0, 0, 0);
static const uint8_t nat64[16] = {0x00, 0x64, 0xff, 0x9b};

static bool fits(const uint8_t address[16], const uint8_t range[16], unsigned int bits)
{
	unsigned int whole = bits / 8, rest = bits % 8;

	if (memcmp(address, range, whole) != 0)
		return false;
	return rest == 0 || ((address[whole] ^ range[whole]) >> (8 - rest)) == 0;
}

static bool to_bytes(const struct sockaddr *sa, uint8_t ret[16])
{
	if (sa->sa_family == AF_INET6) {
		struct sockaddr_in6 in6;

		memcpy(&in6, sa, sizeof(in6));
		memcpy(ret, &in6.sin6_addr, 16);
		return true;
	}
	if (sa->sa_family == AF_INET) {
		struct sockaddr_in in;

		memcpy(&in, sa, sizeof(in));
		memcpy(ret, mapped, 12);
		memcpy(ret + 12, &in.sin_addr, 4);
		return true;
	}
	return false;
}

static const struct special *classify(const uint8_t address[16])
{
	const struct special *s = specials6;
	uint8_t inner[16];

	if (fits(address, mapped, 96)) {
		s = specials4;
	} else if (fits(address, nat64, 96)) {
		memcpy(inner, mapped, 12);
		memcpy(inner + 12, address + 12, 4);
		address = inner;
		s = specials4;
	}
	while (!fits(address, s->address, s->bits))
		s++;
	return s;
}

bool av_reach_allows(const struct av_reach *r, const struct sockaddr *sa, const char **ret_why)
{
	const struct special *s;
	uint8_t address[16];

	if (ret_why)
		*ret_why = "neither an IPv4 nor an IPv6 address";
	if (!to_bytes(sa, address))
		return false;
	s = classify(address);
	if (s->class == PUBLIC || (s->class == PRIVATE && r->private_too))
		return true;
	for (size_t i = 0; i < r->n; i++)
		if (fits(address, r->ranges[i].address, r->ranges[i].bits))
			return true;
	if (ret_why)
		*ret_why = s->what;
	return false;
}

bool av_address_is_loopback(const struct sockaddr *sa)
{
	static const uint8_t one[16] = {[15] = 1}, v4[16] = V4(127, 0, 0, 0);
	uint8_t address[16];

	return to_bytes(sa, address) && (fits(address, one, 128) || fits(address, v4, 96 + 8));
}

static int parse_range(struct av_str text, struct av_reach_range *ret, struct av_err *err)
{
	struct av_str bits = text, address;
	bool has_bits = av_str_cut(&bits, '/', &address);
	struct av_reach_range range = {.bits = 128};
	bool v4 = av_str_chr(address, ':') < 0;
	uint64_t number = v4 ? 32 : 128;
	char name[64];

	memcpy(range.address, mapped, sizeof(mapped));
	if (av_str_copy(name, sizeof(name), address) < 0 ||
	    inet_pton(v4 ? AF_INET : AF_INET6, name, range.address + (v4 ? 12 : 0)) != 1 ||
	    (has_bits && av_parse_u64(bits, 0, v4 ? 32 : 128, &number) < 0))
		return av_err_set(err, AV_ERR_INVALID,
		    "'%.*s' is neither yes, no nor a range of addresses such as 10.1.2.0/24 or "
		    "fd00:1::/32",
		    (int)AV_MIN(text.n, (size_t)100), text.p);
	range.bits = (uint8_t)(number + (v4 ? 96 : 0));
	*ret = range;
	return 0;
}

int av_reach_parse(struct av_reach *r, struct av_str text, struct av_err *err)
{
	struct av_reach got = {0};
	struct av_str rest = av_str_trim(text), item;
	int e;

	got.private_too = av_str_eq_c(rest, "yes");
	if (got.private_too || av_str_eq_c(rest, "no"))
		rest.n = 0;
	else if (rest.n == 0)
		return av_err_set(err, AV_ERR_INVALID,
		    "it is empty; give no, yes, or ranges such as 10.1.2.0/24,fd00:1::/32");
	while (rest.n > 0) {
		(void)av_str_cut(&rest, ',', &item);
		if (got.n == AV_REACH_RANGES_MAX)
			return av_err_set(err, AV_ERR_INVALID, "more than %d ranges; join some",
			    AV_REACH_RANGES_MAX);
		e = parse_range(av_str_trim(item), &got.ranges[got.n], err);
		if (e < 0)
			return e;
		got.n++;
	}
	*r = got;
	return 0;
}
