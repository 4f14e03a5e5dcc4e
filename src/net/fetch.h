/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fetch.h - requests that the daemon makes to servers elsewhere: HTTP and HTTPS, and mail (mail.h)
 *
 * Theory of operation. libcurl, which is opened when it is first needed (curl_lib.h), does the
 * protocols, on one thread of this module's own which is started with the first request: reading
 * the machine's certificates, checking signatures and resolving names take longer than a callback
 * of the loop may. Requests go over in a list, answers come back as one post to the loop. Resolving
 * runs on threads of libcurl's; where libcurl is 7.87 or newer a resolver that hangs delays nobody,
 * with an older one it delays other requests.
 *
 * The peer is hostile, and so is often whoever wrote the URL:
 *  - http and https only, no user or password in URLs, no proxy from the environment, no netrc,
 *    no cookies, no compression, HTTP/1.1, TLS 1.2 at least with certificates checked;
 *  - every address is checked (reach.h) when its socket is made, after resolving, and that very
 *    address is connected to; connections are never used twice, so that a check cannot be
 *    inherited by a request with another rule;
 *  - redirects are not followed unless asked for; then each hop is checked the same way, and
 *    only https is followed;
 *  - the head of an answer has at most AV_FETCH_HEAD_MAX bytes, the body response_max, the whole
 *    exchange timeout_ms. At most AV_FETCH_RUNNING_MAX run at once and AV_FETCH_CALLS_MAX wait and
 *    run; one that waits longer than AV_FETCH_WAIT_MS fails.
 *
 * Who uses it brings its own bounds on top (so many at once for a team), as the ones here are
 * everybody's. Where no socket may be known (control), daemon/outbound.h hands it in as a table of
 * functions (control/outbound.h).
 *
 * All functions are for the loop's thread; nothing blocks except av_fetch_free().
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/macros.h"
#include "base/str.h"
#include "net/reach.h"

struct av_loop;
struct av_fetch;      /* the client */
struct av_fetch_call; /* a request under way */

#define AV_FETCH_CALLS_MAX     1024
#define AV_FETCH_RUNNING_MAX   96
#define AV_FETCH_WAIT_MS       30000
#define AV_FETCH_HEAD_MAX      ((size_t)64 * 1024)
#define AV_FETCH_URL_MAX       2048
#define AV_FETCH_BODY_MAX      ((size_t)4 << 20) /* of a request */
#define AV_FETCH_RESPONSE_MAX  ((size_t)16 << 20)
#define AV_FETCH_HEADERS_MAX   32
#define AV_FETCH_TIMEOUT_MS    10000
#define AV_FETCH_REDIRECTS_MAX 10

/* Allocates little and starts no thread. -ENOMEM. */
int av_fetch_new(struct av_loop *loop, struct av_fetch **ret) AV_MUST_CHECK;
/* Calls that are open get their callback with CANCELED during this call. Waits until the thread has
 * ended (at once; see above for an old libcurl). Not from inside a callback. Before the loop is
 * freed. NULL is fine. */
void av_fetch_free(struct av_fetch *f);

struct av_fetch_header {
	const char *name, *value;
};

struct av_fetch_request {
	const char *method; /* "GET", "POST", ...; NULL: POST with a body, else GET */
	const char *url;
	const struct av_fetch_header *headers; /* Host, Content-Length and the like are made */
	size_t n_headers;
	struct av_str body;           /* p NULL: none */
	const struct av_reach *reach; /* NULL: any address; for URLs of the administrator only */
	uint32_t timeout_ms;          /* for the whole exchange; 0: AV_FETCH_TIMEOUT_MS */
	uint32_t redirects;           /* how many to follow at most; 0: none, 3xx is the answer */
	size_t response_max;          /* of the body; 0: 64 KiB */
	bool cut; /* what is over response_max is cut off, not an error; the rest is not read */
};

/* Borrowed until the callback returns. */
struct av_fetch_response {
	int status;
	struct av_str head; /* of the last answer: its lines, CR LF between */
	struct av_str body;
	uint32_t elapsed_ms; /* since it left the queue */
	bool cut;
};

/* err NULL: there was an answer, whatever its status. Else FORBIDDEN: an address that may not be
 * connected to; REQUEST_TIMEOUT; TOO_LARGE: the answer; CANCELED; UNAVAILABLE: too many wait;
 * NO_MEMORY; UPSTREAM: all else that went wrong on the way. Messages are for people and hold
 * neither headers nor bodies nor more of the URL than host and port. */
typedef void av_fetch_fn(void *ctx, const struct av_fetch_response *res, const struct av_err *err);

/* Everything is copied. After 0 the callback comes once, from the loop, unless it is cancelled;
 * *ret (may be NULL) is valid until then. INVALID: URL, header or option; FORBIDDEN: the URL names
 * an address that is not allowed; UNAVAILABLE: AV_FETCH_CALLS_MAX are under way; UNSUPPORTED:
 * libcurl is not installed; NO_MEMORY. */
int av_fetch_start(struct av_fetch *f, const struct av_fetch_request *rq, av_fetch_fn *fn,
    void *ctx, struct av_fetch_call **ret, struct av_err *err) AV_MUST_CHECK;
/* The callback will not come; what has left has left. */
void av_fetch_cancel(struct av_fetch_call *call);

/* Whether av_fetch_start would take this URL: http or https (https only, when asked), printable
 * ASCII of at most AV_FETCH_URL_MAX bytes, a host, neither user nor password, and when the host is
 * a number an allowed one. Resolves nothing. INVALID or FORBIDDEN; the message begins with the
 * word "the URL". reach as above. */
int av_fetch_check_url(
    const char *url, bool https_only, const struct av_reach *reach, struct av_err *err);

/* The value of the first header of this name (any case), trimmed. */
bool av_fetch_header(const struct av_fetch_response *res, const char *name, struct av_str *ret);

struct av_fetch_stats {
	uint64_t started, failed, refused; /* refused: because of the address */
	size_t open;                       /* now, waiting ones included */
};
void av_fetch_get_stats(const struct av_fetch *f, struct av_fetch_stats *ret);
