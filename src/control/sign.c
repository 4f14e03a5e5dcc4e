/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sign.c - tokens that stand in a URL (see sign.h)
 */
#include "control/sign.h"

#include <errno.h>
#include <inttypes.h>
#include <sodium.h>
#include <stdio.h>

#include "base/avtime.h"
#include "base/codec.h"
#include "base/log.h"
#include "base/num.h"
#include "control/control_internal.h"

#include "base/banned.h"

#define SETTING "sign_key"

static_assert(CONTROL_KEY_BYTES == crypto_auth_hmacsha256_KEYBYTES, "key of HMAC-SHA256");
static_assert(20 + 1 + 2 * crypto_auth_hmacsha256_BYTES < CONTROL_TOKEN_SIZE, "a token fits");

/* ---- tokens ---- */

static void mac_hex(const struct control *c, const char *purpose, struct av_str subject,
    const char *expiry, char ret[static 2 * crypto_auth_hmacsha256_BYTES + 1])
{
	crypto_auth_hmacsha256_state st;
	uint8_t mac[crypto_auth_hmacsha256_BYTES];

	assert(c->has_sign_key);
	/* NUL can stand in neither of the first two, so the parts cannot be moved about. */
	crypto_auth_hmacsha256_init(&st, c->sign_key, sizeof(c->sign_key));
	crypto_auth_hmacsha256_update(&st, (const uint8_t *)purpose, strlen(purpose) + 1);
	crypto_auth_hmacsha256_update(&st, (const uint8_t *)expiry, strlen(expiry) + 1);
	crypto_auth_hmacsha256_update(&st, (const uint8_t *)subject.p, subject.n);
	crypto_auth_hmacsha256_final(&st, mac);
	explicit_bzero(&st, sizeof(st));
	av_hex_encode(ret, mac, sizeof(mac));
}

void control_sign(const struct control *c, const char *purpose, struct av_str subject,
    int64_t expires_s, char ret[static CONTROL_TOKEN_SIZE])
{
	char expiry[24], mac[2 * crypto_auth_hmacsha256_BYTES + 1];

	(void)snprintf(expiry, sizeof(expiry), "%" PRId64, expires_s > 0 ? expires_s : 0);
	mac_hex(c, purpose, subject, expiry, mac);
	(void)snprintf(ret, CONTROL_TOKEN_SIZE, "%s.%s", expiry, mac);
}

int control_sign_check(const struct control *c, const char *purpose, struct av_str subject,
    struct av_str token, struct av_err *err)
{
	char canonical[24], mac[2 * crypto_auth_hmacsha256_BYTES + 1], when[32];
	struct av_str expiry;
	uint64_t expires_s = 0;

	if (!av_str_cut(&token, '.', &expiry) ||
	    av_parse_u64(expiry, 0, INT64_MAX / 1000, &expires_s) < 0)
		return av_err_set(err, AV_ERR_FORBIDDEN, "the token of this URL is malformed");
	(void)snprintf(canonical, sizeof(canonical), "%" PRIu64, expires_s);
	mac_hex(c, purpose, subject, canonical, mac);
	if (!av_str_eq_c(expiry, canonical) || !av_str_eq_secret(token, av_str_c(mac)))
		return av_err_set(err, AV_ERR_FORBIDDEN,
		    "the token of this URL was made for something else, or by another Aviary");
	if (expires_s && (int64_t)expires_s * 1000 <= control_real_ms(c)) {
		av_rfc3339_ms((int64_t)expires_s * 1000, when);
		return av_err_set(err, AV_ERR_FORBIDDEN, "this URL expired at %s", when);
	}
	return 0;
}

/* ---- the key ---- */

static void on_key(void *ctx, const char *value, const struct av_err *err)
{
	struct control *c = ctx;
	char hex[2 * CONTROL_KEY_BYTES + 1];

	c->has_sign_key = true;
	if (!err && value && strlen(value) == sizeof(hex) - 1 &&
	    av_hex_decode(c->sign_key, av_str_c(value)) == 0)
		return;
	/* Without a record of it the key holds until the next start: a URL then ends early. */
	randombytes_buf(c->sign_key, sizeof(c->sign_key));
	av_hex_encode(hex, c->sign_key, sizeof(c->sign_key));
	if (err || store_value_set(c->store, SETTING, hex, NULL, NULL) < 0)
		av_log(AV_LOG_WARN, "signed URLs will not survive the next start", "error",
		    err ? err->message : "the store is busy", NULL);
	explicit_bzero(hex, sizeof(hex));
}

int sign_load(struct control *c)
{
	return store_value_get(c->store, SETTING, on_key, c);
}
