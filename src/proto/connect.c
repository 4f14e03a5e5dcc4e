/* SPDX-License-Identifier: Apache-2.0 */
/*
 * connect.c - the Connect protocol: envelopes of streams, error codes, end-of-stream messages
 */
#include "proto/connect.h"

#include <errno.h>

#include "base/jsontext.h"
#include "base/num.h"

#include "base/banned.h"

/* "Error codes" of the protocol page; the kinds are the nearest of errors.def. */
static const struct {
	const char *name;
	int http;
	enum av_err_kind kind;
} codes[AV_CONNECT_CODE_COUNT] = {
    [AV_CONNECT_OK] = {"ok", 200, AV_ERR_NONE},
    [AV_CONNECT_CANCELED] = {"canceled", 499, AV_ERR_CANCELED},
    [AV_CONNECT_UNKNOWN] = {"unknown", 500, AV_ERR_INTERNAL},
    [AV_CONNECT_INVALID_ARGUMENT] = {"invalid_argument", 400, AV_ERR_INVALID},
    [AV_CONNECT_DEADLINE_EXCEEDED] = {"deadline_exceeded", 504, AV_ERR_EXEC_TIMEOUT},
    [AV_CONNECT_NOT_FOUND] = {"not_found", 404, AV_ERR_NOT_FOUND},
    [AV_CONNECT_ALREADY_EXISTS] = {"already_exists", 409, AV_ERR_CONFLICT},
    [AV_CONNECT_PERMISSION_DENIED] = {"permission_denied", 403, AV_ERR_FORBIDDEN},
    [AV_CONNECT_RESOURCE_EXHAUSTED] = {"resource_exhausted", 429, AV_ERR_QUOTA},
    [AV_CONNECT_FAILED_PRECONDITION] = {"failed_precondition", 400, AV_ERR_INVALID_STATE},
    [AV_CONNECT_ABORTED] = {"aborted", 409, AV_ERR_INVALID_STATE},
    [AV_CONNECT_OUT_OF_RANGE] = {"out_of_range", 400, AV_ERR_INVALID},
    [AV_CONNECT_UNIMPLEMENTED] = {"unimplemented", 501, AV_ERR_UNSUPPORTED},
    [AV_CONNECT_INTERNAL] = {"internal", 500, AV_ERR_INTERNAL},
    [AV_CONNECT_UNAVAILABLE] = {"unavailable", 503, AV_ERR_UNAVAILABLE},
    [AV_CONNECT_DATA_LOSS] = {"data_loss", 500, AV_ERR_INTERNAL},
    [AV_CONNECT_UNAUTHENTICATED] = {"unauthenticated", 401, AV_ERR_UNAUTHORIZED},
};

static unsigned code_index(enum av_connect_code code)
{
	return (unsigned)code < AV_CONNECT_CODE_COUNT ? (unsigned)code : AV_CONNECT_UNKNOWN;
}

const char *av_connect_code_name(enum av_connect_code code)
{
	return codes[code_index(code)].name;
}

int av_connect_http_status(enum av_connect_code code)
{
	return codes[code_index(code)].http;
}

enum av_connect_code av_connect_code_from_name(struct av_str name)
{
	for (unsigned i = AV_CONNECT_CANCELED; i < AV_CONNECT_CODE_COUNT; i++)
		if (av_str_eq_c(name, codes[i].name))
			return (enum av_connect_code)i;
	return AV_CONNECT_UNKNOWN;
}

enum av_connect_code av_connect_code_from_http(int status)
{
	switch (status) {
	case 200:
		return AV_CONNECT_OK;
	case 400:
		return AV_CONNECT_INTERNAL;
	case 401:
		return AV_CONNECT_UNAUTHENTICATED;
	case 403:
		return AV_CONNECT_PERMISSION_DENIED;
	case 404:
		return AV_CONNECT_UNIMPLEMENTED;
	case 429:
	case 502:
	case 503:
	case 504:
		return AV_CONNECT_UNAVAILABLE;
	default:
		return AV_CONNECT_UNKNOWN;
	}
}

enum av_connect_code av_connect_code_from_err(enum av_err_kind kind)
{
	switch (kind) {
	case AV_ERR_NONE:
		return AV_CONNECT_OK;
	case AV_ERR_INVALID:
	case AV_ERR_INVALID_TOKEN:
	case AV_ERR_TOO_LARGE:
	case AV_ERR_HEAD_TOO_LARGE:
		return AV_CONNECT_INVALID_ARGUMENT;
	case AV_ERR_UNAUTHORIZED:
	case AV_ERR_WRONG_PASSWORD:
		return AV_CONNECT_UNAUTHENTICATED;
	case AV_ERR_FORBIDDEN:
	case AV_ERR_ACCOUNT_DEACTIVATED:
	case AV_ERR_ACCOUNT_DISABLED:
	case AV_ERR_ACCOUNT_NOT_ACTIVATED:
	case AV_ERR_NO_TEAM:
		return AV_CONNECT_PERMISSION_DENIED;
	case AV_ERR_NOT_FOUND:
		return AV_CONNECT_NOT_FOUND;
	case AV_ERR_METHOD_NOT_ALLOWED:
	case AV_ERR_UNSUPPORTED:
		return AV_CONNECT_UNIMPLEMENTED;
	case AV_ERR_REQUEST_TIMEOUT:
	case AV_ERR_EXEC_TIMEOUT:
		return AV_CONNECT_DEADLINE_EXCEEDED;
	case AV_ERR_INVALID_STATE:
		return AV_CONNECT_FAILED_PRECONDITION;
	case AV_ERR_CONFLICT:
		return AV_CONNECT_ALREADY_EXISTS;
	case AV_ERR_QUOTA:
	case AV_ERR_RATE_LIMITED:
	case AV_ERR_NO_MEMORY:
	case AV_ERR_NO_SPACE:
		return AV_CONNECT_RESOURCE_EXHAUSTED;
	case AV_ERR_CANCELED:
		return AV_CONNECT_CANCELED;
	case AV_ERR_AGENT:
	case AV_ERR_PORT_CLOSED:
	case AV_ERR_UPSTREAM:
	case AV_ERR_BUSY:
	case AV_ERR_UNAVAILABLE:
		return AV_CONNECT_UNAVAILABLE;
	default:
		return AV_CONNECT_INTERNAL;
	}
}

enum av_err_kind av_connect_code_to_err(enum av_connect_code code)
{
	return codes[code_index(code)].kind;
}

void av_connect_header(uint8_t dst[static AV_CONNECT_HEADER], unsigned flags, uint32_t n)
{
	dst[0] = (uint8_t)flags;
	av_put_be32(dst + 1, n);
}

int av_connect_write(struct av_buf *out, unsigned flags, struct av_str payload)
{
	uint8_t header[AV_CONNECT_HEADER];
	int r = av_buf_error(out);
	if (r < 0)
		return r;
	if (payload.n > UINT32_MAX)
		return -EMSGSIZE;
	char *p;
	if ((r = av_buf_reserve(out, AV_CONNECT_HEADER + payload.n, &p)) < 0)
		return r;
	av_connect_header(header, flags, (uint32_t)payload.n);
	memcpy(p, header, sizeof(header));
	if (payload.n)
		memcpy(p + sizeof(header), payload.p, payload.n);
	av_buf_commit(out, AV_CONNECT_HEADER + payload.n);
	return 0;
}

int av_connect_write_error(struct av_buf *out, enum av_connect_code code, struct av_str message)
{
	av_buf_append_c(out, "{\"code\":\"");
	av_buf_append_c(out, av_connect_code_name(code));
	av_buf_append_c(out, "\",\"message\":");
	av_json_write_str(out, message);
	return av_buf_append_c(out, "}");
}

int av_connect_write_end(struct av_buf *out, enum av_connect_code code, struct av_str message)
{
	if (code == AV_CONNECT_OK)
		return av_connect_write(out, AV_CONNECT_FLAG_END, AV_STR("{}"));
	AV_CLEANUP(av_buf_clear) struct av_buf json = AV_BUF_INIT(out->max);
	av_buf_append_c(&json, "{\"error\":");
	int r = av_connect_write_error(&json, code, message);
	if (r < 0 || (r = av_buf_append_c(&json, "}")) < 0)
		return r;
	return av_connect_write(out, AV_CONNECT_FLAG_END, av_buf_str(&json));
}

void av_connect_dec_init(struct av_connect_dec *d, size_t max_message)
{
	*d = (struct av_connect_dec){
	    .buf = AV_BUF_INIT(max_message + AV_CONNECT_HEADER),
	    .max = max_message,
	};
}

void av_connect_dec_clear(struct av_connect_dec *d)
{
	av_buf_clear(&d->buf);
	av_connect_dec_init(d, d->max);
}

bool av_connect_dec_idle(const struct av_connect_dec *d)
{
	return d->buf.n == 0;
}

static int header_check(const struct av_connect_dec *d, const uint8_t *h, size_t *ret_total)
{
	uint32_t n = av_get_be32(h + 1);
	if (d->ended || (h[0] & ~AV_CONNECT_FLAG_END))
		return -EPROTO;
	if (n > d->max)
		return -EMSGSIZE;
	*ret_total = AV_CONNECT_HEADER + (size_t)n;
	return 0;
}

static int deliver(struct av_connect_dec *d, const char *envelope, size_t total,
    av_connect_on_message on_message, void *ctx)
{
	bool end = (uint8_t)envelope[0] & AV_CONNECT_FLAG_END;
	if (end)
		d->ended = true;
	return on_message(
	    ctx, end, av_str_n(envelope + AV_CONNECT_HEADER, total - AV_CONNECT_HEADER));
}

/* Collects the envelope that is under way from p, n. Sets *ret_taken; 1 when it is complete. */
static int collect(
    struct av_connect_dec *d, const char *p, size_t n, size_t *ret_taken, size_t *ret_total)
{
	size_t taken = 0, total = AV_CONNECT_HEADER;
	int r;
	for (int phase = 0; phase < 2; phase++) {
		if (d->buf.n < total) {
			size_t k = AV_MIN(total - d->buf.n, n - taken);
			if ((r = av_buf_append(&d->buf, p + taken, k)) < 0)
				return r;
			taken += k;
		}
		*ret_taken = taken;
		if (d->buf.n < total)
			return 0;
		if (phase == 0 &&
		    (r = header_check(d, (const uint8_t *)av_buf_str(&d->buf).p, &total)) < 0)
			return r;
	}
	*ret_total = total;
	return 1;
}

ssize_t av_connect_dec_feed(struct av_connect_dec *d, const void *data, size_t n,
    av_connect_on_message on_message, void *ctx)
{
	const char *p = data;
	size_t used = 0;
	while (used < n) {
		size_t total = 0, taken = 0;
		int r;
		if (d->buf.n == 0 && n - used >= AV_CONNECT_HEADER) {
			r = header_check(d, (const uint8_t *)p + used, &total);
			if (r < 0)
				return r;
			if (total <= n - used) {
				used += total;
				r = deliver(d, p + used - total, total, on_message, ctx);
				if (r < 0)
					return r;
				if (r > 0)
					break;
				continue;
			}
		}
		r = collect(d, p + used, n - used, &taken, &total);
		used += taken;
		if (r < 0)
			return r;
		if (r == 0)
			break;
		r = deliver(d, av_buf_str(&d->buf).p, total, on_message, ctx);
		av_buf_clear(&d->buf);
		if (r < 0)
			return r;
		if (r > 0)
			break;
	}
	return (ssize_t)used;
}
