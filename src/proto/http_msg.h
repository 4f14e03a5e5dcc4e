/* SPDX-License-Identifier: Apache-2.0 */
/*
 * http_msg.h - the head of an HTTP message, the same for HTTP/1 and HTTP/2
 *
 * A head is what a request or response says before its body: method, target and authority, or a
 * status; headers; and how the body is framed. Both codecs produce it and both serialise it, so
 * that code above them never asks which version of HTTP it speaks, and bytes of a head that came
 * from outside are never forwarded: they are parsed into this and written anew.
 *
 * What belongs to framing or routing is a field and never in the header list: Host and :authority
 * are `authority`, Content-Length is `content_length`, Transfer-Encoding is `chunked`. That is why
 * adding such a header is refused: no head can say two things about one body.
 *
 * Memory: a head owns an arena of blocks that do not move; every av_str in it points there (or at a
 * literal) and lives until av_http_head_clear(). A zeroed or cleared head owns nothing.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/str.h"

struct av_http_limits {
	size_t head_bytes; /* whole head as sent (HTTP/1), or names + values + 32 each (RFC
	                      9113 6.5.2) */
	size_t header_count;
	size_t target_bytes;
};
#define AV_HTTP_LIMITS_DEFAULT                                                                     \
	((struct av_http_limits){.head_bytes = 32768, .header_count = 128, .target_bytes = 8192})

struct av_http_header {
	struct av_str name;  /* lower case */
	struct av_str value; /* without white space at the ends; never holds CR, LF or NUL */
};

struct av_http_block; /* private: one block of the arena */

struct av_http_head {
	struct av_str method;    /* request: "GET"; empty in a response */
	struct av_str target;    /* request: "/path?query", or "*" for OPTIONS; empty for CONNECT */
	struct av_str authority; /* request: "host[:port]" as sent; may be empty in HTTP/1.0 */
	struct av_str scheme;    /* request over HTTP/2: "http" or "https"; else empty */
	int status;              /* response: 100 to 599; 0 in a request */
	int64_t content_length;  /* >= 0 if stated, else -1 */
	bool chunked;            /* HTTP/1: body is chunked (received, or to be sent so) */
	bool has_body;           /* a body (perhaps empty) follows; set by the parsers */
	bool keep_alive;      /* HTTP/1: the connection may carry another message after this one */
	bool upgrade;         /* HTTP/1: "Connection: upgrade" with an Upgrade header, or a 101 */
	bool expect_continue; /* request: the client waits for "100 Continue" before its body */
	int minor_version;    /* HTTP/1.x: 0 or 1; 2 for HTTP/2 */

	struct av_http_header
	    *headers; /* owned array of n_headers entries, in the order received */
	size_t n_headers;
	/* private */
	size_t headers_cap;
	struct av_http_block *blocks; /* owned */
};

/* An empty head with content_length -1 and keep_alive true. */
void av_http_head_init(struct av_http_head *h);
/* Frees all and initialises again. */
void av_http_head_clear(struct av_http_head *h);
/* Moves all contents from src (left initialised) to dst (cleared first). For callbacks that are
 * lent a head and want to keep it. */
void av_http_head_move(struct av_http_head *dst, struct av_http_head *src);

/* Init + copies. authority may be empty. -ENOMEM, or -EINVAL for bytes that may not stand there. */
int av_http_head_request(struct av_http_head *h, struct av_str method, struct av_str authority,
    struct av_str target) AV_MUST_CHECK;
/* Init + status. Never fails. */
void av_http_head_response(struct av_http_head *h, int status);

/* Adds a copy; the name is lower-cased. -EINVAL: name not a token, value with CR, LF, NUL or other
 * control bytes, or one of the names that are fields (host, content-length, transfer-encoding).
 * -ENOMEM. */
int av_http_head_add(struct av_http_head *h, struct av_str name, struct av_str value) AV_MUST_CHECK;
/* As av_http_head_add with C strings. */
int av_http_head_add_c(struct av_http_head *h, const char *name, const char *value) AV_MUST_CHECK;
/* Copies s into the head's arena. */
int av_http_head_copy(struct av_http_head *h, struct av_str s, struct av_str *ret) AV_MUST_CHECK;
/* Removes every header with this (lower-case) name. */
void av_http_head_remove(struct av_http_head *h, const char *name);
/* Removes what must not be forwarded: Connection and all it names, Keep-Alive, Proxy-Connection,
 * Proxy-Authenticate, Proxy-Authorization, TE, Trailer, Upgrade (RFC 9110 section 7.6.1). Also
 * needed before a head from HTTP/1 is sent over HTTP/2. */
void av_http_head_remove_hop_by_hop(struct av_http_head *h);

/* First header with this (lower-case) name; NULL if there is none. */
const struct av_str *av_http_head_get(const struct av_http_head *h, const char *name);
/* How many headers have this name. */
size_t av_http_head_count(const struct av_http_head *h, const char *name);

/* True if one of the comma-separated members of any header of that name equals token, ASCII case
 * folded ("connection" / "upgrade"). */
bool av_http_head_has_token(const struct av_http_head *h, const char *name, const char *token);
/* "text/html" of "text/html; charset=x": the part before ';', trimmed; compare with av_str_ieq. */
struct av_str av_http_media_type(struct av_str value);
/* Value of a parameter in 'x; name=token; name="quoted \" string"'. Appends the unquoted value to
 * out. -ENOENT when absent, -EINVAL when malformed. Name compared with case folded. */
int av_http_param(struct av_str value, const char *name, struct av_buf *out);

/* Cuts "/path?query": *ret_query is empty without '?'. Neither is decoded. */
void av_http_split_target(struct av_str target, struct av_str *ret_path, struct av_str *ret_query);
/* Appends the decoded ("%XX", '+' is a space) value of the first parameter of that name.
 * -ENOENT when absent, -EINVAL for a bad escape or a decoded NUL. */
int av_http_query_get(struct av_str query, const char *name, struct av_buf *out);
/* The same for names that may come several times: begins at *rest (at first the whole query) and
 * leaves there what follows the one found. */
int av_http_query_next(struct av_str *rest, const char *name, struct av_buf *out);

/* tchar of RFC 9110 section 5.6.2, at least one. */
bool av_http_is_token(struct av_str s);
/* No control bytes except HTAB. Bytes from 0x80 (obs-text) are allowed. */
bool av_http_is_value(struct av_str s);
/* Origin form ("/...") of visible ASCII without '#', or "*". Empty counts as valid (CONNECT). */
bool av_http_is_target(struct av_str s);
/* uri-host [":" port] of RFC 3986 without userinfo: what may stand in Host. Not empty. */
bool av_http_is_authority(struct av_str s);
/* "host:port", "[v6]:port" into parts (brackets removed); without a port *ret_port is default_port.
 * -EINVAL if malformed or the port is not 1..65535. */
int av_http_split_authority(
    struct av_str s, uint16_t default_port, struct av_str *ret_host, uint16_t *ret_port);
/* "OK", "Not Found", ...; "" for a status without a common name. */
const char *av_http_reason(int status);
