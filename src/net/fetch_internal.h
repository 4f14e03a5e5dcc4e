/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fetch_internal.h - a request on its way through libcurl; for fetch*.c and mail.c only
 *
 * A call belongs to the loop's thread until it is in `incoming`, to the client's thread until it is
 * in `done`, then to the loop's again. `canceled` is the only thing both touch meanwhile.
 */
#pragma once

#include <stdatomic.h>

#include "base/buf.h"
#include "base/list.h"
#include "net/curl_lib.h"
#include "net/fetch.h"
#include "net/loop.h"

enum fetch_rule {
	FETCH_ANY,
	FETCH_REACH,    /* call->reach */
	FETCH_LOOPBACK, /* nothing else: what is sent is not encrypted */
};

struct av_fetch_call {
	struct av_list link; /* incoming, waiting, running or done */
	struct av_list all;  /* the loop's: f->calls */
	struct av_fetch *f;
	av_fetch_fn *fn;
	void *ctx;
	bool muted; /* the loop's: the callback must not come */
	atomic_bool canceled;
	bool has_body;
	bool plain; /* mail: no TLS */
	bool cut_wanted, cut, too_large, head_too_large;
	enum fetch_rule rule;

	/* Sets the options of call->easy that are the protocol's. CURLE_OK or what failed. */
	CURLcode (*setup)(struct av_fetch_call *call);
	struct av_reach reach;
	char *method, *url; /* owned */
	struct curl_slist *headers, *recipients;
	struct av_buf body;           /* of the request, or the message */
	char *user, *password, *from; /* mail; owned, the password is wiped */
	uint32_t timeout_ms, redirects;
	size_t response_max;

	CURLU *parsed;
	CURL *easy;
	char curl_error[CURL_ERROR_SIZE];
	uint64_t queued_ms, started_ms; /* monotonic */
	size_t sent;                    /* of the message */

	struct av_buf head, in;
	size_t head_bytes;   /* of all answers on the way */
	const char *refused; /* what the last refused address was */
	long status;
	struct av_err err;
};

/* All zero but the ceilings. Opens libcurl when it is the first one. NULL: *err says why not;
 * *ret_r is its number. */
struct av_fetch_call *fetch_call_new(
    struct av_fetch *f, av_fetch_fn *fn, void *ctx, int *ret_r, struct av_err *err);
void fetch_call_free(struct av_fetch_call *call);
/* Hands it to the thread, which it starts when there is none; takes call over, also on failure. */
int fetch_submit(
    struct av_fetch *f, struct av_fetch_call *call, struct av_fetch_call **ret, struct av_err *err);
/* Sets call->parsed. schemes ends with NULL. As av_fetch_check_url. */
int fetch_parse_url(struct av_fetch_call *call, const char *url, const char *const *schemes,
    const struct av_reach *reach, struct av_err *err);

/* ---- fetch_transfer.c; on the client's thread ---- */

/* Makes call->easy. False: call->err says why not. */
bool fetch_transfer_begin(struct av_fetch_call *call);
/* What became of it: call->err (kind NONE: an answer). */
void fetch_transfer_end(struct av_fetch_call *call, CURLcode result);
CURLcode fetch_setup_http(struct av_fetch_call *call);
