/* SPDX-License-Identifier: Apache-2.0 */
/*
 * jwt.c - JSON Web Tokens with HS256 (see jwt.h)
 */
#include "control/jwt.h"

#include <errno.h>
#include <sodium.h>
#include <string.h>

#include "base/json.h"
#include "control/control_internal.h"

#include "base/banned.h"

#define VARIANT   sodium_base64_VARIANT_URLSAFE_NO_PADDING
#define MAC_BYTES crypto_auth_hmacsha256_BYTES

static_assert(MAC_BYTES == crypto_auth_hmacsha256_KEYBYTES, "a mac can be a key");

static void sign(const struct control *c, const struct jwt_kind *kind, struct av_str text,
    uint8_t ret[static MAC_BYTES])
{
	const uint8_t *purpose = (const uint8_t *)kind->purpose;
	uint8_t key[MAC_BYTES];

	assert(c->has_sign_key);
	(void)crypto_auth_hmacsha256(key, purpose, strlen(kind->purpose) + 1, c->sign_key);
	(void)crypto_auth_hmacsha256(ret, (const uint8_t *)text.p, text.n, key);
	explicit_bzero(key, sizeof(key));
}

static void append_base64(struct av_buf *out, struct av_str bytes)
{
	char text[sodium_base64_ENCODED_LEN(JWT_PAYLOAD_MAX, VARIANT)];

	(void)sodium_bin2base64(text, sizeof(text), (const uint8_t *)bytes.p, bytes.n, VARIANT);
	(void)av_buf_append_c(out, text);
}

int jwt_issue(
    const struct control *c, const struct jwt_kind *kind, struct av_str payload, struct av_buf *out)
{
	AV_CLEANUP(av_buf_clear) struct av_buf token = AV_BUF_INIT(2 * JWT_MAX);
	uint8_t mac[MAC_BYTES];

	if (payload.n > JWT_PAYLOAD_MAX)
		return -ENOMEM;
	(void)av_buf_append_c(&token, kind->header);
	append_base64(&token, payload);
	if (av_buf_error(&token) < 0)
		return -ENOMEM;
	sign(c, kind, av_buf_str(&token), mac);
	(void)av_buf_append_char(&token, '.');
	append_base64(&token, av_str_n((const char *)mac, sizeof(mac)));
	if (av_buf_error(&token) < 0 || token.n > JWT_MAX)
		return -ENOMEM;
	return av_buf_append_str(out, av_buf_str(&token));
}

/* At most size bytes; the number of them, or -EINVAL. */
static ssize_t decode(struct av_str text, uint8_t *ret, size_t size)
{
	const char *end = NULL;
	size_t n;

	if (sodium_base642bin(ret, size, text.p, text.n, NULL, &n, &end, VARIANT) != 0 ||
	    end != text.p + text.n)
		return -EINVAL;
	return (ssize_t)n;
}

json_t *jwt_open(const struct control *c, const struct jwt_kind *kind, struct av_str token)
{
	uint8_t want[MAC_BYTES], got[MAC_BYTES], text[JWT_PAYLOAD_MAX];
	size_t head = strlen(kind->header);
	struct av_str rest, payload;
	ssize_t n;

	if (token.n > JWT_MAX || !av_str_starts(token, av_str_c(kind->header)))
		return NULL;
	rest = av_str_n(token.p + head, token.n - head);
	if (!av_str_cut(&rest, '.', &payload) || decode(rest, got, sizeof(got)) != sizeof(got))
		return NULL;
	sign(c, kind, av_str_n(token.p, head + payload.n), want);
	if (sodium_memcmp(want, got, sizeof(got)) != 0)
		return NULL;
	n = decode(payload, text, sizeof(text));
	return n < 0 ? NULL : av_json_parse_object(av_str_n((const char *)text, (size_t)n), NULL);
}
