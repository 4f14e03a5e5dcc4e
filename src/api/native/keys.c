/* SPDX-License-Identifier: Apache-2.0 */
/*
 * keys.c - API keys: make, list, change, rotate, delete
 *
 * The secret of a key is in the answer that made it and nowhere else.
 */
#include "control/keys.h"

#include <errno.h>
#include <string.h>

#include "api/audit.h"
#include "api/native/native.h"
#include "api/native/quotas.h"
#include "api/request.h"
#include "base/avtime.h"
#include "control/accounts.h"
#include "base/banned.h"

#define KEY_JSON_MAX  ((size_t)16 << 10)
#define LIST_JSON_MAX ((size_t)16 << 20)
#define SCOPES_MAX    32

/* ---- out ---- */

static void write_scopes(struct av_buf *out, struct av_str scopes)
{
	struct av_str word;
	size_t n = 0;
	bool more;

	(void)av_buf_append_c(out, ",\"scopes\":[");
	do {
		more = av_str_cut(&scopes, ' ', &word);
		if (!word.n)
			continue;
		if (n++)
			(void)av_buf_append_char(out, ',');
		(void)av_json_write_str(out, word);
	} while (more);
	(void)av_buf_append_char(out, ']');
}

static void write_text(struct av_buf *out, const char *name, const char *text)
{
	(void)av_buf_printf(out, ",\"%s\":", name);
	(void)av_json_write_str(out, av_str_c(text));
}

static void write_key(struct av_buf *out, const struct control_key *k)
{
	(void)av_buf_printf(out, "{\"id\":\"%s\",\"team_id\":\"%s\"", k->id, k->team_id);
	write_text(out, "name", k->name);
	write_text(out, "key_prefix", k->prefix);
	write_text(out, "created_by", k->created_by);
	if (k->creator_email[0])
		write_text(out, "creator_email", k->creator_email);
	write_scopes(out, av_str_c(k->scopes));
	native_write_ms(out, "created_at", k->created_ms);
	native_write_ms(out, "last_used", k->last_used_ms);
	native_write_ms(out, "expires_at", k->expires_ms);
	(void)av_buf_printf(out, ",\"expired\":%s,\"quota\":", k->expired ? "true" : "false");
	(void)native_write_quota(out, &k->quota);
	if (k->secret)
		write_text(out, "key", k->secret);
	(void)av_buf_append_char(out, '}');
}

static void send_key(
    struct api_request *rq, int status, const struct control_key *k, const struct av_err *err)
{
	struct av_buf out = AV_BUF_INIT(KEY_JSON_MAX);

	if (err) {
		api_send_err(rq, err);
		return;
	}
	write_key(&out, k);
	api_send_json(rq, status, &out);
	av_buf_clear(&out);
}

static void on_made(void *ctx, const struct control_key *k, const struct av_err *err)
{
	struct api_request *rq = ctx;

	rq->call = NULL;
	if (!err) {
		api_audit_about(rq, k->id);
		api_audit_note(rq, "scopes", k->scopes);
	}
	send_key(rq, 201, k, err);
}

static void on_changed(void *ctx, const struct control_key *k, const struct av_err *err)
{
	struct api_request *rq = ctx;

	rq->call = NULL;
	send_key(rq, 200, k, err);
}

static void on_got(void *ctx, const struct control_key *k, const struct av_err *err)
{
	send_key(ctx, 200, k, err);
}

/* ---- in ---- */

static int parse_scopes(const json_t *body, uint32_t *ret, struct av_err *err)
{
	const json_t *list = NULL, *v;
	uint32_t bits = 0, more = 0;
	size_t i;
	int r = av_json_get_str_array(body, "scopes", SCOPES_MAX, &list, err);

	if (r < 0 || !list)
		return r;
	json_array_foreach (list, i, v) {
		struct av_str word = av_str_c(json_string_value(v));

		if (!av_str_trim(word).n)
			return av_err_set(err, AV_ERR_INVALID, "'scopes' has an empty item");
		r = control_scopes_parse(word, &more, err);
		if (r < 0)
			return r;
		bits |= more;
	}
	if (!bits)
		return av_err_set(err, AV_ERR_INVALID,
		    "'scopes' is empty: such a key could do nothing; leave it out for the usual "
		    "ones");
	*ret = bits;
	return 0;
}

/* "expires_at" or "expires_in_sec". */
static int parse_expiry(const json_t *body, int64_t *ret_ms, struct av_err *err)
{
	const char *at = NULL;
	int64_t in_ms = -1;
	int r = av_json_get_str(body, "expires_at", &at, err);

	if (r == 0)
		r = av_json_get_seconds_ms(
		    body, "expires_in_sec", CONTROL_KEY_LIFE_MAX_MS, &in_ms, err);
	if (r < 0)
		return r;
	if (at && in_ms >= 0)
		return av_err_set(err, AV_ERR_INVALID,
		    "'expires_at' and 'expires_in_sec' say the same; give one of them");
	if (at && (av_rfc3339_parse(av_str_c(at), ret_ms) < 0 || *ret_ms <= 0))
		return av_err_set(err, AV_ERR_INVALID,
		    "'expires_at' must be a moment such as 2027-01-31T12:00:00Z");
	if (in_ms == 0)
		return av_err_set(err, AV_ERR_INVALID,
		    "'expires_in_sec' must be more than 0; leave it out for a key that lasts");
	if (in_ms > 0)
		*ret_ms = av_real_ms() + in_ms;
	return 0;
}

static int parse_quota(const json_t *body, struct control_quota_update *ret, struct av_err *err)
{
	const json_t *quota = NULL;
	int r = av_json_get_object(body, "quota", &quota, err);

	return r < 0 ? r : native_parse_quota(quota, ret, err);
}

void native_key_create(struct api_request *rq)
{
	struct control_key_params p = {0};
	const char *name = NULL;
	struct av_err err;

	if (av_json_get_str(rq->body, "name", &name, &err) < 0 ||
	    parse_scopes(rq->body, &p.scopes, &err) < 0 ||
	    parse_expiry(rq->body, &p.expires_ms, &err) < 0 ||
	    parse_quota(rq->body, &p.quota, &err) < 0) {
		api_send_err(rq, &err);
		return;
	}
	p.name = av_str_c(name ? name : "");
	if (control_key_create(rq->api->control, &rq->actor, &p, on_made, rq, &rq->call, &err) < 0)
		api_send_err(rq, &err);
}

void native_key_update(struct api_request *rq)
{
	struct control_quota_update quota = {0};
	struct av_str name = {0};
	const char *text = NULL, *field;
	struct av_err err;
	const json_t *v;

	json_object_foreach ((json_t *)(uintptr_t)rq->body, field, v)
		if (strcmp(field, "name") != 0 && strcmp(field, "quota") != 0) {
			(void)av_err_set(&err, AV_ERR_INVALID,
			    "'%.64s' of a key cannot be changed; name and quota can. Make or "
			    "rotate "
			    "a key for other scopes or another end",
			    field);
			api_send_err(rq, &err);
			return;
		}
	if (av_json_get_str(rq->body, "name", &text, &err) < 0 ||
	    parse_quota(rq->body, &quota, &err) < 0) {
		api_send_err(rq, &err);
		return;
	}
	if (text)
		name = av_str_c(text);
	if (control_key_update(rq->api->control, &rq->actor, api_param(rq, "api_key"),
	        text ? &name : NULL, &quota, on_changed, rq, &rq->call, &err) < 0)
		api_send_err(rq, &err);
}

void native_key_rotate(struct api_request *rq)
{
	int64_t grace_ms = 0;
	struct av_err err;

	if (av_json_get_seconds_ms(
	        rq->body, "grace_sec", CONTROL_KEY_GRACE_MAX_MS, &grace_ms, &err) < 0 ||
	    control_key_rotate(rq->api->control, &rq->actor, api_param(rq, "api_key"), grace_ms,
	        on_made, rq, &rq->call, &err) < 0)
		api_send_err(rq, &err);
}

void native_key_delete(struct api_request *rq)
{
	struct av_err err;

	if (control_key_delete(rq->api->control, &rq->actor, api_param(rq, "api_key"), api_on_done,
	        rq, &rq->call, &err) < 0)
		api_send_err(rq, &err);
}

void native_key_get(struct api_request *rq)
{
	control_key_get(rq->api->control, &rq->actor, api_param(rq, "api_key"), on_got, rq);
}

struct listing {
	struct av_buf out;
	size_t n;
};

static void on_each(void *ctx, const struct control_key *k, const struct av_err *err)
{
	struct listing *l = ctx;

	(void)err;
	if (l->n++)
		(void)av_buf_append_char(&l->out, ',');
	write_key(&l->out, k);
}

void native_key_list(struct api_request *rq)
{
	struct listing l = {.out = AV_BUF_INIT(LIST_JSON_MAX)};

	(void)av_buf_append_char(&l.out, '[');
	control_key_each(rq->api->control, &rq->actor, on_each, &l);
	(void)av_buf_append_char(&l.out, ']');
	api_send_json(rq, 200, &l.out);
	av_buf_clear(&l.out);
}
