/* SPDX-License-Identifier: Apache-2.0 */
/*
 * github.c - accounts that GitHub vouches for (see login.h)
 *
 * A code that a browser brought is exchanged for a token, with which GitHub is asked who it belongs
 * to; then it is forgotten. What GitHub says is checked like what anybody says.
 *
 * An identity is GitHub's number of a user, never the name or address, which can pass to somebody
 * else. An address that GitHub has verified makes a new account active at once; it never opens an
 * account that exists: its owner connects the two, logged in.
 */
#include <errno.h>
#include <inttypes.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>

#include "base/codec.h"
#include "base/json.h"
#include "control/login_internal.h"

#include "base/banned.h"

static struct user *find(const struct control *c, const char *github_id)
{
	struct user *u;

	AV_LIST_FOREACH(u, &c->accounts.users, struct user, link)
	if (u->rec.github_id[0] && strcmp(u->rec.github_id, github_id) == 0)
		return u;
	return NULL;
}

static int make_user(struct flow *f, struct av_err *err)
{
	struct account_op *op = &f->op;
	struct control *c = op->c;
	const struct user *taken = user_by_email(c, av_str_c(f->email));
	int64_t now = control_real_ms(c);
	struct store_user *rec = &op->change.user;

	if (!f->may_sign_up || !f->email[0])
		return av_err_set(err, AV_ERR_NOT_FOUND,
		    "no account is connected to this GitHub user; sign up first");
	if (c->config.signup == CONTROL_SIGNUP_CLOSED)
		return av_err_set(err, AV_ERR_FORBIDDEN,
		    "sign-up is closed here: an administrator makes accounts");
	if (taken && strcmp(taken->rec.status, "inactive") != 0)
		return av_err_set(err, AV_ERR_EMAIL_TAKEN,
		    "there is an account with this address; log in and connect it to GitHub");
	if (!taken && c->accounts.users_by_id.n >= CONTROL_USERS_MAX)
		return av_err_set(err, AV_ERR_QUOTA,
		    "this Aviary has %d accounts, the most there can be", CONTROL_USERS_MAX);
	*rec = (struct store_user){.status = "active", .created_ms = now, .updated_ms = now};
	/* Whoever signed up with this address and never activated it showed less than GitHub does.
	 */
	if (taken) {
		memcpy(rec->id, taken->rec.id, sizeof(rec->id));
		rec->epoch = taken->rec.epoch + 1;
	} else {
		av_id_make(rec->id, AV_ID_USER);
	}
	memcpy(rec->email, f->email, sizeof(rec->email));
	memcpy(rec->name, f->name, sizeof(rec->name));
	memcpy(rec->github_id, f->github_id, sizeof(rec->github_id));
	if (!taken || !member_home(taken))
		team_of_own(c, &op->change);
	memcpy(f->user_id, rec->id, sizeof(f->user_id));
	return 0;
}

static int login_begin(struct account_op *op, struct av_err *err)
{
	struct flow *f = (struct flow *)op;
	const struct user *u = find(op->c, f->github_id);

	if (!u)
		return make_user(f, err);
	if (strcmp(u->rec.status, "active") != 0)
		return av_err_set(err, AV_ERR_ACCOUNT_DEACTIVATED,
		    "this account was deactivated by an administrator");
	memcpy(f->user_id, u->rec.id, sizeof(f->user_id));
	if (!member_home(u)) {
		(void)user_edit(op, u);
		team_of_own(op->c, &op->change);
	}
	return 0;
}

/* ---- connecting ---- */

static int connect_begin(struct account_op *op, struct av_err *err)
{
	struct flow *f = (struct flow *)op;
	const struct user *u = user_find(op->c, f->user_id), *other;

	if (!u || strcmp(u->rec.status, "active") != 0)
		return av_err_set(err, AV_ERR_UNAUTHORIZED, "this account does not exist any more");
	other = find(op->c, f->github_id);
	if (other && other != u)
		return av_err_set(err, AV_ERR_EMAIL_TAKEN,
		    "another account is connected to this GitHub user already");
	memcpy(user_edit(op, u)->github_id, f->github_id, sizeof(f->github_id));
	return 0;
}

/* Each try makes us ask GitHub: those that lead nowhere are counted. */
static void give_back(struct flow *f)
{
	throttle_give_back(&f->op.c->throttle, THROTTLE_LOGIN_ADDRESS, av_str_c(f->address),
	    AV_STR(""), control_boot_ns(f->op.c));
}

static void login_answer(struct account_op *op, const struct av_err *err)
{
	if (!err)
		give_back((struct flow *)op);
	flow_answer_login(op, err);
}

static void connect_answer(struct account_op *op, const struct av_err *err)
{
	struct flow *f = (struct flow *)op;

	if (!err)
		give_back(f);
	f->fn.login(op->ctx, NULL, err);
}

/* ---- asking GitHub ---- */

#define TOKEN_LEN_MAX 512
#define ANSWER_MAX    ((size_t)256 * 1024)
#define ASK_MS        10000

static int ask(struct flow *f, const char *method, const char *url, struct av_str body,
    control_http_fn *fn, struct av_err *err)
{
	const struct control_outbound *o = f->op.c->config.outbound;
	char bearer[TOKEN_LEN_MAX + 16];
	const struct control_http_header headers[] = {
	    {"Accept", "application/json"},
	    {"User-Agent", "aviary"},
	    {body.p ? "Content-Type" : "Authorization",
	        body.p ? "application/x-www-form-urlencoded" : bearer},
	};
	const struct control_http rq = {.method = method,
	    .url = url,
	    .headers = headers,
	    .n_headers = AV_ARRAY_LEN(headers),
	    .body = body,
	    .timeout_ms = ASK_MS,
	    .response_max = ANSWER_MAX};
	int r;

	(void)snprintf(
	    bearer, sizeof(bearer), "Bearer %.*s", (int)f->n_fresh, f->n_fresh ? f->fresh : "");
	r = o->http(o->ctx, &rq, fn, f, &f->http, err);
	explicit_bzero(bearer, sizeof(bearer));
	return r;
}

static int ask_api(struct flow *f, const char *path, control_http_fn *fn, struct av_err *err)
{
	char url[1024];

	(void)snprintf(url, sizeof(url), "%s%s", f->op.c->config.github->api_url, path);
	return ask(f, "GET", url, (struct av_str){0}, fn, err);
}

/* The object that GitHub answered with, as member "v" of another, since it may be an array. */
static json_t *read_answer(
    const struct control_http_answer *answer, const struct av_err *failed, struct av_err *err)
{
	AV_CLEANUP(av_buf_clear) struct av_buf text = AV_BUF_INIT(ANSWER_MAX + 16);
	json_t *j;

	if (failed) {
		*err = *failed;
		return NULL;
	}
	(void)av_buf_append_c(&text, "{\"v\":");
	(void)av_buf_append_str(&text, answer->body);
	(void)av_buf_append_char(&text, '}');
	j = answer->status == 200 && av_buf_error(&text) == 0
	        ? av_json_parse_object(av_buf_str(&text), NULL)
	        : NULL;
	if (text.p)
		explicit_bzero(text.p, text.n);
	if (!j)
		(void)av_err_set(err, AV_ERR_UPSTREAM,
		    "GitHub answered with status %d, or with what is no JSON", answer->status);
	return j;
}

static bool is_token(const char *text)
{
	size_t n = text ? strlen(text) : 0;

	for (size_t i = 0; i < n; i++)
		if (text[i] <= ' ' || text[i] > '~')
			return false;
	return n > 0 && n <= TOKEN_LEN_MAX;
}

/* The address that GitHub has verified, the primary one first; NULL. */
static const char *verified_address(const json_t *list)
{
	const char *found = NULL, *email;
	const json_t *o;
	size_t i;

	json_array_foreach (list, i, o) {
		email = json_string_value(json_object_get(o, "email"));
		if (!email || !json_is_true(json_object_get(o, "verified")))
			continue;
		if (json_is_true(json_object_get(o, "primary")))
			return email;
		found = found ? found : email;
	}
	return found;
}

static void on_emails(
    void *ctx, const struct control_http_answer *answer, const struct av_err *failed)
{
	AV_CLEANUP(av_json_decrefp) json_t *j = NULL;
	struct flow *f = ctx;
	const char *email;
	struct av_err err;
	int r = -EPROTO;

	f->http = NULL;
	j = read_answer(answer, failed, &err);
	email = j ? verified_address(json_object_get(j, "v")) : NULL;
	if (email)
		r = email_take(f->email, av_str_c(email), &err);
	else if (j)
		(void)av_err_set(
		    &err, AV_ERR_UPSTREAM, "GitHub has verified no address of this user");
	if (r < 0) {
		flow_end(f, &err);
		return;
	}
	if (!f->name[0])
		person_name_of_email(f->name, f->email);
	flow_submit(f);
}

static void on_user(
    void *ctx, const struct control_http_answer *answer, const struct av_err *failed)
{
	AV_CLEANUP(av_json_decrefp) json_t *j = NULL;
	struct flow *f = ctx;
	const json_t *u, *name;
	struct av_err err;
	int64_t id = 0;

	f->http = NULL;
	j = read_answer(answer, failed, &err);
	u = json_object_get(j, "v");
	id = json_integer_value(json_object_get(u, "id"));
	if (j && id <= 0)
		(void)av_err_set(&err, AV_ERR_UPSTREAM, "GitHub names no user");
	if (id <= 0) {
		flow_end(f, &err);
		return;
	}
	(void)snprintf(f->github_id, sizeof(f->github_id), "%" PRId64, id);
	name = json_object_get(u, "name");
	if (!json_is_string(name))
		name = json_object_get(u, "login");
	if (person_name_take(f->name, av_str_c(json_string_value(name)), NULL) < 0)
		f->name[0] = '\0';
	/* The address is asked for only where an account may have to be made. */
	if (f->op.begin == connect_begin || find(f->op.c, f->github_id))
		flow_submit(f);
	else if (ask_api(f, "/user/emails", on_emails, &err) < 0)
		flow_end(f, &err);
}

static void on_token(
    void *ctx, const struct control_http_answer *answer, const struct av_err *failed)
{
	AV_CLEANUP(av_json_decrefp) json_t *j = NULL;
	struct flow *f = ctx;
	const char *token;
	struct av_err err;

	f->http = NULL;
	j = read_answer(answer, failed, &err);
	token = json_string_value(json_object_get(json_object_get(j, "v"), "access_token"));
	if (j && !is_token(token)) {
		(void)av_err_set(&err, AV_ERR_UPSTREAM, "GitHub does not accept the code");
		token = NULL;
	}
	if (!j || !token) {
		flow_end(f, &err);
		return;
	}
	f->n_fresh = strlen(token);
	memcpy(f->fresh, token, f->n_fresh);
	if (ask_api(f, "/user", on_user, &err) < 0)
		flow_end(f, &err);
}

bool control_github_enabled(const struct control *c)
{
	return c->config.github && c->config.outbound;
}

static void add_field(struct av_buf *out, const char *name, struct av_str value)
{
	(void)av_buf_printf(out, "%s%s=", out->n ? "&" : "", name);
	(void)av_percent_encode(out, value, false);
}

static int ask_token(struct flow *f, const struct control_github_code *g, struct av_err *err)
{
	AV_CLEANUP(av_buf_clear) struct av_buf form = AV_BUF_INIT(16384);
	const struct control_github *gh = f->op.c->config.github;
	char url[1024];
	int r;

	(void)snprintf(url, sizeof(url), "%s/login/oauth/access_token", gh->url);
	add_field(&form, "client_id", av_str_c(gh->client_id));
	add_field(&form, "client_secret", av_str_c(gh->client_secret));
	add_field(&form, "code", g->code);
	add_field(&form, "redirect_uri", av_str_c(g->redirect_uri));
	add_field(&form, "code_verifier", av_str_c(g->verifier));
	if (av_buf_error(&form) < 0)
		return av_err_set(err, AV_ERR_UPSTREAM, "the code is too long");
	r = ask(f, "POST", url, av_buf_str(&form), on_token, err);
	explicit_bzero(form.p, form.n);
	return r;
}

int control_github_finish(struct control *c, const struct control_github_code *g,
    control_login_fn *fn, void *ctx, struct node_call **ret, struct av_err *err)
{
	int64_t wait;
	struct flow *f;
	int r;

	if (!control_github_enabled(c))
		return av_err_set(
		    err, AV_ERR_PROVIDER_NOT_FOUND, "logging in with GitHub is not configured");
	wait = throttle_take(&c->throttle, THROTTLE_LOGIN_ADDRESS, av_str_c(g->address), AV_STR(""),
	    control_boot_ns(c));
	if (wait)
		return throttle_refuse(err, "too many logins from your address have failed", wait);
	r = flow_new(&f, c, NULL, g->user_id ? connect_begin : login_begin,
	    g->user_id ? connect_answer : login_answer, ctx, err);
	if (r < 0)
		return r;
	f->fn.login = fn;
	f->may_sign_up = g->may_sign_up;
	(void)snprintf(f->address, sizeof(f->address), "%s", g->address);
	if (g->user_id)
		(void)snprintf(f->user_id, sizeof(f->user_id), "%s", g->user_id);
	r = ask_token(f, g, err);
	if (r < 0)
		account_op_free(&f->op);
	else
		flow_handle(f, ret);
	return r;
}

int control_github_authorize_url(const struct control *c, const char *state, const char *verifier,
    const char *redirect_uri, struct av_buf *out)
{
	char challenge[sodium_base64_ENCODED_LEN(
	    crypto_hash_sha256_BYTES, sodium_base64_VARIANT_URLSAFE_NO_PADDING)];
	const struct control_github *gh = c->config.github;
	uint8_t hash[crypto_hash_sha256_BYTES];

	(void)crypto_hash_sha256(hash, (const uint8_t *)verifier, strlen(verifier));
	(void)sodium_bin2base64(challenge, sizeof(challenge), hash, sizeof(hash),
	    sodium_base64_VARIANT_URLSAFE_NO_PADDING);
	(void)av_buf_printf(out, "%s/login/oauth/authorize?response_type=code", gh->url);
	add_field(out, "client_id", av_str_c(gh->client_id));
	add_field(out, "redirect_uri", av_str_c(redirect_uri));
	add_field(out, "scope", AV_STR("read:user user:email"));
	add_field(out, "state", av_str_c(state));
	add_field(out, "code_challenge", av_str_c(challenge));
	(void)av_buf_append_c(out, "&code_challenge_method=S256");
	return av_buf_error(out);
}

/* ---- disconnecting ---- */

static int disconnect_begin(struct account_op *op, struct av_err *err)
{
	const struct user *u = actor_user(op->c, &op->actor, err);

	if (!u)
		return -EACCES;
	if (!u->rec.github_id[0])
		return av_err_set(err, AV_ERR_NOT_FOUND, "your account is not connected to GitHub");
	if (!u->rec.password[0])
		return av_err_set(err, AV_ERR_LAST_LOGIN_METHOD,
		    "GitHub is the only way into your account; set a password first");
	memset(user_edit(op, u)->github_id, 0, sizeof(u->rec.github_id));
	return 0;
}

int control_me_disconnect_github(struct control *c, const struct control_actor *a, node_done_fn *fn,
    void *ctx, struct node_call **ret, struct av_err *err)
{
	struct flow *f;
	int r = actor_need_whole(c, a, err);

	if (r < 0 || (r = flow_new(&f, c, a, disconnect_begin, flow_answer_done, ctx, err)) < 0)
		return r;
	f->fn.done = fn;
	flow_submit(f);
	flow_handle(f, ret);
	return 0;
}
