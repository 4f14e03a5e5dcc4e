/* SPDX-License-Identifier: Apache-2.0 */
/*
 * connect.h - the Connect protocol: envelopes of streams, error codes, end-of-stream messages
 *
 * An envelope is 1 flag byte (bit 0 compressed, bit 1 end of stream), a 4-byte big-endian length
 * and the payload (connectrpc.com/docs/protocol). Compression is never negotiated, so a compressed
 * envelope is an error.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/str.h"

#define AV_CONNECT_HEADER          5
#define AV_CONNECT_FLAG_COMPRESSED 0x1u
#define AV_CONNECT_FLAG_END        0x2u

enum av_connect_code {
	AV_CONNECT_OK = 0,
	AV_CONNECT_CANCELED,
	AV_CONNECT_UNKNOWN,
	AV_CONNECT_INVALID_ARGUMENT,
	AV_CONNECT_DEADLINE_EXCEEDED,
	AV_CONNECT_NOT_FOUND,
	AV_CONNECT_ALREADY_EXISTS,
	AV_CONNECT_PERMISSION_DENIED,
	AV_CONNECT_RESOURCE_EXHAUSTED,
	AV_CONNECT_FAILED_PRECONDITION,
	AV_CONNECT_ABORTED,
	AV_CONNECT_OUT_OF_RANGE,
	AV_CONNECT_UNIMPLEMENTED,
	AV_CONNECT_INTERNAL,
	AV_CONNECT_UNAVAILABLE,
	AV_CONNECT_DATA_LOSS,
	AV_CONNECT_UNAUTHENTICATED,
	AV_CONNECT_CODE_COUNT
};

/* "not_found" ...; "ok" for OK. */
const char *av_connect_code_name(enum av_connect_code code);
/* HTTP status of a unary error; 200 for OK. */
int av_connect_http_status(enum av_connect_code code);
/* UNKNOWN for a name that is not in the table. */
enum av_connect_code av_connect_code_from_name(struct av_str name);
/* What a bare HTTP status without a Connect body means to a client (protocol page, "HTTP to error
 * code"). OK for 200. */
enum av_connect_code av_connect_code_from_http(int status);
/* Kind of base/errors.def to code and back. */
enum av_connect_code av_connect_code_from_err(enum av_err_kind kind);
enum av_err_kind av_connect_code_to_err(enum av_connect_code code);

/* dst gets the 5 bytes. n is the payload's length, at most UINT32_MAX. */
void av_connect_header(uint8_t dst[static AV_CONNECT_HEADER], unsigned flags, uint32_t n);
/* Appends a whole envelope. The buffer's error. */
int av_connect_write(struct av_buf *out, unsigned flags, struct av_str payload) AV_MUST_CHECK;
/* Appends the end-of-stream envelope: "{}" for OK, else {"error":{"code":...,"message":...}}. */
int av_connect_write_end(
    struct av_buf *out, enum av_connect_code code, struct av_str message) AV_MUST_CHECK;
/* Appends {"code":...,"message":...}: the body of a unary error. */
int av_connect_write_error(
    struct av_buf *out, enum av_connect_code code, struct av_str message) AV_MUST_CHECK;

/* Incremental decoder; whole messages out, each at most max bytes, collected only if split. */
struct av_connect_dec {
	struct av_buf buf; /* private: header and payload of an envelope that came in pieces */
	size_t max;
	bool ended; /* an end-of-stream envelope was delivered */
};
void av_connect_dec_init(struct av_connect_dec *d, size_t max_message);
void av_connect_dec_clear(struct av_connect_dec *d);
/* payload is valid until return. end: this is the end-of-stream message. Return 0 to go on, 1 to
 * stop after this message (the rest is not consumed), -errno to fail. */
typedef int (*av_connect_on_message)(void *ctx, bool end, struct av_str payload);
/* Returns the bytes consumed (n unless the callback stopped), or -errno: -EMSGSIZE (envelope over
 * max), -EPROTO (compressed, unknown flags, bytes after the end), -ENOMEM, or the callback's. */
ssize_t av_connect_dec_feed(struct av_connect_dec *d, const void *p, size_t n,
    av_connect_on_message on_message, void *ctx) AV_MUST_CHECK;
/* True if no envelope is half received: the body may end here. */
bool av_connect_dec_idle(const struct av_connect_dec *d);
