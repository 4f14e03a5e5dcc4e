/* SPDX-License-Identifier: Apache-2.0 */
/*
 * public_url.h - the addresses under which clients reach us: of the API, and of ports of sandboxes
 *
 * Only files of src/api include this.
 *
 * Who stands in front of the daemon, it knows from its configuration and from nothing else: a
 * header such as X-Forwarded-Proto could come from anybody. So there are two answers. Configured
 * ("public-url" for the API, "domain" for ports), an address is that, with its scheme, whoever
 * asks. Else it is the scheme that the request came by (https:// with a certificate of our own) and
 * the name under which the API was asked: the client's own name for us is the one that works for
 * them.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "api/request.h"

/* Appends "https://example.com:8443", without a path; nothing when the request names no host and
 * none is configured. Errors: out's sticky one. */
void public_url_api(struct av_buf *out, const struct api_request *rq);
/* Appends "https://3000-sb….example.com". INVALID: no name can be made of a numeric address.
 * Errors of out: its sticky one. */
int public_url_port(
    struct av_buf *out, const struct api_request *rq, uint16_t port, struct av_err *err);
/* Whether this request for a port came by TLS: our own, or as far as the configuration says that
 * the name it was asked under is served so by who is in front. */
bool public_url_is_tls(const struct api_request *rq);
