/* SPDX-License-Identifier: Apache-2.0 */
/*
 * reach.h - which addresses a request that a stranger asked for may connect to
 *
 * Theory of operation. Users name URLs that the daemon then calls (webhooks). Without a rule they
 * could make it talk to what only this machine or its network reaches: services on loopback, the
 * metadata service of a cloud, routers, other tenants (server-side request forgery). The rule is
 * about addresses, never about names, and it is asked for the very address that a socket is about
 * to connect to, after the name was resolved: a name that resolves to something else the second
 * time gains nothing.
 *
 * Public is what the IANA registries of special-purpose addresses leave over: in IPv4 all but
 * 0/8, 10/8, 100.64/10, 127/8, 169.254/16, 172.16/12, 192.0.0/24, 192.0.2/24, 192.88.99/24,
 * 192.168/16, 198.18/15, 198.51.100/24, 203.0.113/24, 224/4, 240/4; in IPv6 2000::/3 without
 * 2001::/23, 2001:db8::/32, 2002::/16 and 3fff::/20, and 64:ff9b::/96 (NAT64) for a public IPv4
 * address within. IPv4-mapped addresses count as what they map to.
 *
 * An administrator may allow more: "yes" allows private, loopback and shared (CGNAT) addresses,
 * and still neither link-local ones (metadata services) nor multicast, unspecified or broadcast;
 * ranges allow just what they say, link-local included when it is named.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#include "base/err.h"
#include "base/str.h"

#define AV_REACH_RANGES_MAX 32

struct av_reach_range {
	uint8_t address[16]; /* IPv4 as ::ffff:a.b.c.d */
	uint8_t bits;        /* of the 128 */
};

/* All zero: public addresses only. */
struct av_reach {
	bool private_too; /* "yes" */
	size_t n;
	struct av_reach_range ranges[AV_REACH_RANGES_MAX];
};

/* "no", "yes", or ranges as "10.1.2.0/24,192.168.7.5,fd00:1::/32". INVALID saying what is wrong and
 * what is allowed; *r is then untouched. */
int av_reach_parse(struct av_reach *r, struct av_str text, struct av_err *err);
/* Whether a connection to this address is allowed; when not, *ret_why (may be NULL) says what the
 * address is ("a loopback address"), a literal. Families other than IPv4 and IPv6: no. Thread safe.
 */
bool av_reach_allows(
    const struct av_reach *r, const struct sockaddr *address, const char **ret_why);
/* True for 127/8, ::1 and their mapped form. */
bool av_address_is_loopback(const struct sockaddr *address);
