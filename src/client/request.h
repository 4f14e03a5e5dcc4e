/* SPDX-License-Identifier: Apache-2.0 */
/*
 * request.h - only for libaviary: one HTTP exchange, repeated where that is safe
 *
 * Theory of operation. A request is sent with the client's credentials, and its answer collected.
 * It is sent again, after a pause with jitter or as long as the server asked for (Retry-After),
 * while the client's retry budget lasts, when the answer says that it may work later or nothing
 * came back, and asking twice cannot do twice: GET, PUT and DELETE, and what carries an idempotency
 * key. A 401 asks the credentials callback once for others.
 *
 * A body may come from a source and an answer go to a sink, piece by piece. Both are called from
 * inside libcurl, with the lock, and may say AVC_LATER: then the transfer rests until
 * avc_request_resume(). A request whose source was asked is sent again only if that can be rewound,
 * one whose sink was given something never. What goes to a sink is complete when the reply's code
 * is AVIARY_OK, and only then: an answer without a length, or of another than it said, is an error.
 */
#pragma once

#include <aviary/sandbox.h>

#include "client/internal.h"

#define AVC_REPLY_MAX   ((size_t)64 << 20)
#define AVC_HEADERS_MAX ((size_t)64 << 10)

struct avc_reply {
	int code;                  /* AVIARY_OK for 2xx */
	int status;                /* 0: none */
	json_t *json;              /* NULL: empty, or not JSON; borrowed */
	struct av_str body;        /* borrowed; "" of what went to a sink */
	struct av_str headers;     /* "Name: value\r\n" each; borrowed */
	const aviary_error *error; /* when code is not AVIARY_OK */
	const char *next_cursor;   /* X-Next-Cursor; NULL */
};

/* What a transfer of libcurl belongs to (CURLOPT_PRIVATE). */
struct avc_transfer {
	void (*on_done)(struct avc_transfer *t, CURLcode result);
};

/* What all transfers of a client have in common: addresses, proxy, TLS. False: no memory. */
bool avc_easy_options(
    const aviary_client *c, CURL *easy, const char *url, char error[CURL_ERROR_SIZE]);
/* What we call what the server, or libcurl, says. */
int avc_code_of(const char *name, int status, bool of_sandbox, bool of_file);
int avc_code_of_curl(CURLcode result);
/* What went wrong on the way, for people, with the cure where there is one. detail: what libcurl
 * said, may be "". */
void avc_explain(const aviary_client *c, CURL *easy, CURLcode result, const char *detail,
    char *text, size_t size);
#define AVC_EXPLANATION_SIZE (CURL_ERROR_SIZE + 700)
/* The same for a request about a file, whose message tells what is wrong with that. */
int avc_code_of_file(const char *name, int status, const char *message);

/* Not now: call avc_request_resume(). */
#define AVC_LATER AVIARY_E_AGAIN

/* Where a request's body comes from. */
struct avc_source {
	int64_t size; /* -1: not known, the body is chunked */
	/* Up to n bytes into p: how many, 0 at the end, AVC_LATER, or a code that the request ends
	 * with. */
	int64_t (*pull)(void *ctx, char *p, size_t n);
	bool (*rewind)(void *ctx); /* to the beginning; NULL, or false: it cannot */
	void *ctx;
};

/* Where the body of a 2xx answer goes (of every answer with any_status). */
struct avc_sink {
	/* The head is there: status, length (-1: not said) and the headers, "Name: value\r\n" each.
	 * May be NULL. A code ends the request. */
	int (*begin)(void *ctx, int status, int64_t size, struct av_str headers);
	/* Takes all n bytes and returns 0, or none: AVC_LATER, or a code. */
	int (*push)(void *ctx, const char *p, size_t n);
	void *ctx;
};

struct avc_request;
/* With the lock, once, unless it is cancelled. */
typedef void avc_reply_fn(void *ctx, const struct avc_reply *reply);

struct avc_request_spec {
	const char *method;          /* a literal */
	const char *path;            /* "/v1/...", encoded; copied */
	json_t *body;                /* stolen; NULL: none */
	struct av_str raw;           /* instead: bytes, copied; p NULL: none */
	const char *content_type;    /* of raw; a literal */
	const char *idempotency_key; /* copied; NULL: none */
	const char *sandbox_id;      /* for errors; copied; NULL */
	const char *file;            /* likewise */
	int64_t timeout_ms;          /* of one try, the last; 0: the client's; -1: none */
	bool never_again;            /* not even after it was refused */
	bool anonymous;              /* without credentials, which need not exist */
	const char *host_token;      /* instead of them, as X-Host-Token; copied; NULL */
	const struct avc_source
	    *source;                 /* copied; instead of a body. ctx is borrowed till the end */
	const struct avc_sink *sink; /* likewise */
	const char *source_type;     /* Content-Type of the source; a literal; NULL: none */
	bool repeatable;             /* asking twice cannot do twice, though it is a POST */
	bool opaque;                 /* an answer is bytes, also when they look like JSON */
	bool watches_idle;           /* idle_ms counts without source or sink as well */
	/* With a source or sink: how long neither side may move a byte while the server's turn it
	 * is; 0: the client's time-out of requests; -1: without end. timeout_ms 0 is then "none".
	 */
	int64_t idle_ms;
	size_t reply_max;           /* of what is collected; 0: AVC_REPLY_MAX */
	const aviary_pair *headers; /* more of them, checked by the caller; copied */
	size_t n_headers;
	bool any_status; /* every answer of a server is one; for ports */
};

/* With the lock. NULL without memory; everything else comes by fn. */
struct avc_request *avc_request_start(
    aviary_client *c, const struct avc_request_spec *spec, avc_reply_fn *fn, void *ctx);
/* With the lock. Whether the server may know of it. */
bool avc_request_was_sent(const struct avc_request *rq);
/* With the lock. Its answer goes to somebody else. */
void avc_request_hand_over(struct avc_request *rq, avc_reply_fn *fn, void *ctx);
/* With the lock. fn does not come any more. */
void avc_request_cancel(struct avc_request *rq);
/* With the lock, not from inside source or sink: what said AVC_LATER can go on. NULL is fine. */
void avc_request_resume(struct avc_request *rq);
/* For the driver: what libcurl has finished. */
void avc_requests_finish(aviary_client *c);
/* All that are open get AVIARY_E_CANCELED. */
void avc_requests_end(aviary_client *c);

/* ---- auth.c ---- */

void avc_credentials_clear(struct avc_credentials *cr);
/* Whether they can be sent; else they are cleared and *error says so. */
int avc_credentials_check(struct avc_credentials *cr, aviary_error *error);
/* Looks where credentials may be. refused: those in use were. 0, or a code with *error filled (its
 * strings are this thread's). The lock is given up while a callback of the user's runs. */
int avc_credentials_find(aviary_client *c, bool refused, aviary_error *error);
/* What else the options did not say: base_url from the environment or the credentials file. */
int avc_base_url_find(aviary_client *c, const char *wanted, aviary_error *error);
