/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ws_handshake.c - the opening handshake of WebSocket (RFC 6455 section 4), both sides
 */
#include "proto/ws.h"

#include <errno.h>

#include "base/codec.h"
#include "base/ids.h"
#include "proto/sha1.h"

#include "base/banned.h"

static_assert(AV_WS_KEY_SIZE == AV_BASE64_LEN(16) + 1 && AV_WS_ACCEPT_SIZE == AV_BASE64_LEN(20) + 1,
    "what is written fits");

void av_ws_make_key(char dst[static AV_WS_KEY_SIZE])
{
	uint8_t bytes[16];
	av_random(bytes, sizeof(bytes));
	av_base64_write(dst, bytes, sizeof(bytes));
	dst[AV_WS_KEY_SIZE - 1] = '\0';
}

void av_ws_accept_key(char dst[static AV_WS_ACCEPT_SIZE], struct av_str key)
{
	static const char guid[] = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
	char text[64 + sizeof(guid)];
	uint8_t digest[20];
	size_t n = AV_MIN(key.n, (size_t)64);
	if (n)
		memcpy(text, key.p, n);
	memcpy(text + n, guid, sizeof(guid) - 1);
	av_sha1(digest, av_str_n(text, n + sizeof(guid) - 1));
	av_base64_write(dst, digest, sizeof(digest));
	dst[AV_WS_ACCEPT_SIZE - 1] = '\0';
}

static bool key_is_valid(struct av_str key)
{
	AV_CLEANUP(av_buf_clear) struct av_buf b = AV_BUF_INIT(32);
	return key.n == AV_WS_KEY_SIZE - 1 && av_base64_decode(&b, key) == 0 && b.n == 16;
}

int av_ws_check_request(const struct av_http_head *request, struct av_err *err)
{
	const struct av_str *key = av_http_head_get(request, "sec-websocket-key");
	const struct av_str *version = av_http_head_get(request, "sec-websocket-version");
	if (!av_str_eq_c(request->method, "GET") || request->has_body)
		return av_err_set(
		    err, AV_ERR_INVALID, "a WebSocket begins with GET without a body");
	if (!request->upgrade || !av_http_head_has_token(request, "upgrade", "websocket"))
		return av_err_set(err, AV_ERR_INVALID,
		    "this is a WebSocket: send \"Connection: Upgrade\" and \"Upgrade: websocket\"");
	if (!version || !av_str_eq_c(*version, "13"))
		return av_err_set(err, AV_ERR_UNSUPPORTED, "Sec-WebSocket-Version must be 13");
	if (!key || av_http_head_count(request, "sec-websocket-key") != 1 || !key_is_valid(*key))
		return av_err_set(
		    err, AV_ERR_INVALID, "Sec-WebSocket-Key must be 16 bytes in base64, once");
	return 0;
}

bool av_ws_offers_protocol(const struct av_http_head *request, const char *protocol)
{
	return av_http_head_has_token(request, "sec-websocket-protocol", protocol);
}

int av_ws_accept_head(
    struct av_http_head *ret, const struct av_http_head *request, const char *protocol)
{
	const struct av_str *key = av_http_head_get(request, "sec-websocket-key");
	char accept[AV_WS_ACCEPT_SIZE];
	struct av_http_head h;
	int r;
	if (!key)
		return -EINVAL;
	av_ws_accept_key(accept, *key);
	av_http_head_response(&h, 101);
	if ((r = av_http_head_add_c(&h, "upgrade", "websocket")) < 0 ||
	    (r = av_http_head_add_c(&h, "connection", "Upgrade")) < 0 ||
	    (r = av_http_head_add_c(&h, "sec-websocket-accept", accept)) < 0 ||
	    (protocol && (r = av_http_head_add_c(&h, "sec-websocket-protocol", protocol)) < 0)) {
		av_http_head_clear(&h);
		return r;
	}
	*ret = h;
	return 0;
}

int av_ws_request_head(
    struct av_http_head *h, const char key[static AV_WS_KEY_SIZE], const char *protocol)
{
	int r;
	if ((r = av_http_head_add_c(h, "upgrade", "websocket")) < 0 ||
	    (r = av_http_head_add_c(h, "connection", "Upgrade")) < 0 ||
	    (r = av_http_head_add_c(h, "sec-websocket-version", "13")) < 0 ||
	    (r = av_http_head_add_c(h, "sec-websocket-key", key)) < 0)
		return r;
	return protocol ? av_http_head_add_c(h, "sec-websocket-protocol", protocol) : 0;
}

int av_ws_check_response(
    const struct av_http_head *response, const char key[static AV_WS_KEY_SIZE], struct av_err *err)
{
	char want[AV_WS_ACCEPT_SIZE];
	const struct av_str *accept = av_http_head_get(response, "sec-websocket-accept");
	av_ws_accept_key(want, av_str_c(key));
	if (response->status != 101)
		return av_err_set(
		    err, AV_ERR_INVALID, "the server answered %d instead of 101", response->status);
	if (!av_http_head_has_token(response, "upgrade", "websocket") ||
	    !av_http_head_has_token(response, "connection", "upgrade"))
		return av_err_set(err, AV_ERR_INVALID, "the server did not change to WebSocket");
	if (!accept || !av_str_eq_c(*accept, want))
		return av_err_set(err, AV_ERR_INVALID, "Sec-WebSocket-Accept does not fit the key");
	if (av_http_head_get(response, "sec-websocket-extensions"))
		return av_err_set(
		    err, AV_ERR_INVALID, "the server chose an extension nobody offered");
	return 0;
}
