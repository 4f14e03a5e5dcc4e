/* SPDX-License-Identifier: Apache-2.0 */
/*
 * client_addr.h - under which network address a client is counted
 *
 * Only files of src/api include this.
 *
 * It is the address of the connection. Where that is one of a proxy that the configuration names
 * (trusted-proxies), it is the last address that this proxy, or a chain of such proxies, says it
 * had the request from: the rightmost of Forwarded (RFC 7239) or X-Forwarded-For that is not a
 * trusted proxy itself. What stands further left was written by the client and is never believed.
 * Of an IPv6 address the first 64 bits count, as one network has them all.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/str.h"
#include "proto/http_msg.h"

#define CLIENT_ADDR_SIZE    64
#define TRUSTED_PROXIES_MAX 32

struct trusted_proxies {
	struct {
		uint8_t net[16]; /* IPv4 as ::ffff:a.b.c.d */
		unsigned int bits;
	} v[TRUSTED_PROXIES_MAX];
	size_t n;
};

/* "127.0.0.1, 10.0.0.0/8, fd00::/8"; NULL: none. INVALID names the one that is wrong. */
int trusted_proxies_parse(const char *text, struct trusted_proxies *ret, struct av_err *err);
/* "192.0.2.1" or "2001:db8:1:2::"; "local" for a unix socket. peer as av_req_peer() tells it. */
void client_addr(const struct trusted_proxies *t, const char *peer, const struct av_http_head *head,
    char ret[static CLIENT_ADDR_SIZE]);
