/* SPDX-License-Identifier: Apache-2.0 */
/*
 * session.c - sessions of users: tokens (jwt.h) that begin with AV_SESSION_PREFIX
 *
 * A token proves who, in which team, until when; what that user may is looked up each time,
 * so that a role that was taken away, a team that was left and an account that was disabled count
 * from the next request on. `ses` is the user's epoch: a new password voids what was issued.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/json.h"
#include "control/accounts_internal.h"
#include "control/jwt.h"

#include "base/banned.h"

static const struct jwt_kind session = {"aviary session", AV_SESSION_PREFIX};

int control_session_issue(
    const struct control *c, const char *team_id, const char *user_id, struct av_buf *out)
{
	AV_CLEANUP(av_buf_clear) struct av_buf payload = AV_BUF_INIT(JWT_PAYLOAD_MAX);
	const struct member *m = member_find(c, team_id, user_id);
	int64_t now_s = control_real_ms(c) / 1000;
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
	if (av_buf_error(&payload) < 0)
		return -ENOMEM;
	return jwt_issue(c, &session, av_buf_str(&payload), out);
}

/* ---- checking ---- */

/* What is asked of the payload; its text is ours, as it was signed. */
struct claims {
	char user_id[AV_ID_SIZE], team_id[AV_ID_SIZE];
	int64_t epoch, expires_s;
};

static int read_claims(const struct control *c, struct av_str token, struct claims *ret)
{
	AV_CLEANUP(av_json_decrefp) json_t *j = jwt_open(c, &session, token);
	const char *user = NULL, *team = NULL;

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
	int r = 0;

	if (read_claims(c, token, &cl) < 0)
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
