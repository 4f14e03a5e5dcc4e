/* SPDX-License-Identifier: Apache-2.0 */
/*
 * proxy_where.h - from the head of a request to a port of a sandbox; pure text work
 *
 * A request is for a port when the first label of its Host (or :authority) is "<digits>-sb…", or
 * when it carries the two headers X-Aviary-Sandbox and X-Aviary-Port (other dialects have names of
 * their own, see the table). Everything else is for the API. A host that looks like a port's but is
 * malformed is an error and never the API's: what a sandbox can be reached under and what the API
 * can be reached under have nothing in common, so neither can pose as the other.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/ids.h"
#include "proto/http_msg.h"

struct proxy_where {
	char id[AV_ID_SIZE];
	uint16_t port;
	struct av_str host; /* authority as sent, lent by the head; empty: routed by headers */
};

/* domain: "example.com[:port]" below which ports are served, or NULL for any. 1: it is for a port,
 * *ret is set. 0: it is for the API. -EINVAL (400), -ENOENT (404) with *err: for a port that cannot
 * be. */
int proxy_where(const struct av_http_head *head, const char *domain, struct proxy_where *ret,
    struct av_err *err);
/* "3000-sb….example.com:8080" for the domain, or for the authority under which the API was asked:
 * of a numeric loopback address "localhost", as labels cannot be put before an address. -EINVAL: a
 * numeric address that is not loopback, or nothing. */
int proxy_where_host(
    struct av_buf *out, const char *id, uint16_t port, const char *domain, struct av_str authority);
