/* SPDX-License-Identifier: Apache-2.0 */
/*
 * session.c - sessions of users: JSON Web Tokens (RFC 7519) with HS256
 *
 * Only one algorithm is made, and the header of a token must be byte for byte AV_SESSION_PREFIX:
 * what a token says about how to check it is never followed. The key is derived from the one of
 * sign.h. A token proves who, in which team, until when; what that user may is looked up each time,
 * so that a role that was taken away, a team that was left and an account that was disabled count
 * from the next request on. `ses` is the user's epoch: a new password voids what was issued.
 */
#include <errno.h>
#include <inttypes.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>

#include "base/json.h"
#include "control/accounts_internal.h"

#include "base/banned.h"

#define TOKEN_MAX   4096
#define PAYLOAD_MAX 3072
#define VARIANT     sodium_base64_VARIANT_URLSAFE_NO_PADDING

struct parts {
	struct av_str signed_part; /* header.payload */
	struct av_str payload, mac;
};

static void sign(
    const struct control *c, struct av_str text, uint8_t ret[static crypto_auth_hmacsha256_BYTES])
{
	static const char purpose[] = "aviary session";
	uint8_t key[crypto_auth_hmacsha256_BYTES];

	static_assert(crypto_auth_hmacsha256_BYTES == crypto_auth_hmacsha256_KEYBYTES, "a key");
	assert(c->has_sign_key);
	(void)crypto_auth_hmacsha256(key, (const uint8_t *)purpose, sizeof(purpose), c->sign_key);
	(void)crypto_auth_hmacsha256(ret, (const uint8_t *)text.p, text.n, key);
	explicit_bzero(key, sizeof(key));
}

static void append_base64(struct av_buf *out, struct av_str bytes)
{
	char text[sodium_base64_ENCODED_LEN(PAYLOAD_MAX, VARIANT)];

	if (bytes.n > PAYLOAD_MAX) {
		assert(!"a token's payload is bounded by its parts");
		return;
	}
	(void)sodium_bin2base64(text, sizeof(text), (const uint8_t *)bytes.p, bytes.n, VARIANT);
	(void)av_buf_append_c(out, text);
}

int control_session_issue(
    const struct control *c, const char *team_id, const char *user_id, struct av_buf *out)
{
	AV_CLEANUP(av_buf_clear) struct av_buf payload = AV_BUF_INIT(PAYLOAD_MAX);
	AV_CLEANUP(av_buf_clear) struct av_buf token = AV_BUF_INIT(TOKEN_MAX);
	const struct member *m = member_find(c, team_id, user_id);
	int64_t now_s = control_real_ms(c) / 1000;
	uint8_t mac[crypto_auth_hmacsha256_BYTES];
	const struct store_user *u;

	if (!m)
		return -ENOENT;
	u = &m->user->rec;
	(void)av_buf_printf(&payload,
	    "{\"sub\":\"%s\",\"team_id\":\"%s\",\"role\":\"%s\",\"email\":", u->id, m->rec.team_id,
	    m->rec.role);
	(void)av_json_write_str(&payload, av_str_c(u->email));
	(void)av_buf_append_c(&payload, ",\"name\":");
	(void)av_json_write_str(&payload, av_str_c(u->name));
	if (u->is_admin)
		(void)av_buf_append_c(&payload, ",\"is_admin\":true");
	(void)av_buf_printf(&payload,
	    ",\"ses\":%" PRId64 ",\"iat\":%" PRId64 ",\"exp\":%" PRId64 "}", u->epoch, now_s,
	    now_s + CONTROL_SESSION_S);
	(void)av_buf_append_c(&token, AV_SESSION_PREFIX);
	append_base64(&token, av_buf_str(&payload));
	if (av_buf_error(&payload) < 0 || av_buf_error(&token) < 0)
		return -ENOMEM;
	sign(c, av_buf_str(&token), mac);
	(void)av_buf_append_char(&token, '.');
	append_base64(&token, av_str_n((const char *)mac, sizeof(mac)));
	(void)av_buf_append_str(out, av_buf_str(&token));
	return av_buf_error(&token) < 0 ? -ENOMEM : av_buf_error(out);
}

/* ---- checking ---- */

static bool split(struct av_str token, struct parts *ret)
{
	struct av_str rest = token;

	if (token.n > TOKEN_MAX || !av_str_starts(token, AV_STR(AV_SESSION_PREFIX)))
		return false;
	rest.p += strlen(AV_SESSION_PREFIX);
	rest.n -= strlen(AV_SESSION_PREFIX);
	if (!av_str_cut(&rest, '.', &ret->payload))
		return false;
	ret->mac = rest;
	ret->signed_part = av_str_n(token.p, strlen(AV_SESSION_PREFIX) + ret->payload.n);
	return true;
}

/* Exactly size bytes at most; the number of them, or -EINVAL. */
static ssize_t decode(struct av_str text, uint8_t *ret, size_t size)
{
	const char *end = NULL;
	size_t n;

	if (sodium_base642bin(ret, size, text.p, text.n, NULL, &n, &end, VARIANT) != 0 ||
	    end != text.p + text.n)
		return -EINVAL;
	return (ssize_t)n;
}

static bool mac_holds(const struct control *c, const struct parts *p)
{
	uint8_t want[crypto_auth_hmacsha256_BYTES], got[crypto_auth_hmacsha256_BYTES];

	if (decode(p->mac, got, sizeof(got)) != sizeof(got))
		return false;
	sign(c, p->signed_part, want);
	return sodium_memcmp(want, got, sizeof(got)) == 0;
}

/* What is asked of the payload; its text is ours, as it was signed. */
struct claims {
	char user_id[AV_ID_SIZE], team_id[AV_ID_SIZE];
	int64_t epoch, expires_s;
};

static int read_claims(struct av_str payload, struct claims *ret)
{
	AV_CLEANUP(av_json_decrefp) json_t *j = NULL;
	uint8_t text[PAYLOAD_MAX];
	const char *user = NULL, *team = NULL;
	ssize_t n = decode(payload, text, sizeof(text));

	if (n < 0)
		return -EINVAL;
	j = av_json_parse_object(av_str_n((const char *)text, (size_t)n), NULL);
	if (!j || av_json_get_str(j, "sub", &user, NULL) < 0 ||
	    av_json_get_str(j, "team_id", &team, NULL) < 0 || !user || !team ||
	    av_json_get_i64(j, "ses", 0, INT64_MAX, &ret->epoch, NULL) < 0 ||
	    av_json_get_i64(j, "exp", 1, INT64_MAX / 1000, &ret->expires_s, NULL) < 0 ||
	    av_str_copy(ret->user_id, sizeof(ret->user_id), av_str_c(user)) < 0 ||
	    av_str_copy(ret->team_id, sizeof(ret->team_id), av_str_c(team)) < 0)
		return -EINVAL;
	return 0;
}

/* NULL: *err says why not; *ret_r is its number. */
static const struct member *check_user(
    const struct control *c, const struct claims *cl, int *ret_r, struct av_err *err)
{
	const struct user *u = user_find(c, cl->user_id);
	const struct member *m = member_find(c, cl->team_id, cl->user_id);

	if (!u || u->rec.epoch != cl->epoch)
		*ret_r =
		    av_err_set(err, AV_ERR_UNAUTHORIZED, "this session has ended; log in again");
	else if (strcmp(u->rec.status, "inactive") == 0)
		*ret_r = av_err_set(err, AV_ERR_ACCOUNT_NOT_ACTIVATED,
		    "this account is not activated yet; follow the link that was sent");
	else if (strcmp(u->rec.status, "active") != 0)
		*ret_r = av_err_set(err, AV_ERR_ACCOUNT_DEACTIVATED,
		    "this account was deactivated by an administrator");
	else if (!m)
		*ret_r = av_err_set(err, AV_ERR_UNAUTHORIZED,
		    "you do not belong to the team of this session any more; log in again");
	else
		return m;
	return NULL;
}

int control_session_verify(
    const struct control *c, struct av_str token, struct control_actor *ret, struct av_err *err)
{
	struct claims cl = {0};
	const struct member *m;
	struct parts p;
	int r = 0;

	if (!split(token, &p) || !mac_holds(c, &p) || read_claims(p.payload, &cl) < 0)
		return av_err_set(err, AV_ERR_UNAUTHORIZED,
		    "the session token is not one of this Aviary; log in again");
	if (cl.expires_s * 1000 <= control_real_ms(c))
		return av_err_set(
		    err, AV_ERR_UNAUTHORIZED, "this session has expired; log in again");
	m = check_user(c, &cl, &r, err);
	if (!m)
		return r;
	*ret = (struct control_actor){.role = control_role_parse(av_str_c(m->rec.role)),
	    .is_admin = m->user->rec.is_admin,
	    .scopes = CONTROL_SCOPE_ALL};
	memcpy(ret->team_id, m->rec.team_id, AV_ID_SIZE);
	memcpy(ret->user_id, m->rec.user_id, AV_ID_SIZE);
	return 0;
}
