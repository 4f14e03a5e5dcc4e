/* SPDX-License-Identifier: Apache-2.0 */
/*
 * users.c - accounts as administrators see them: /v1/admin/users
 */
#include "api/native/native.h"

#include <errno.h>

#include "api/audit.h"
#include "api/native/people.h"
#include "api/request.h"
#include "base/avtime.h"
#include "base/num.h"
#include "base/banned.h"

#define PAGE_SIZE 100
#define USER_MAX  4096 /* bytes of one as JSON: twice name and address at six bytes a byte */
#define LIST_MAX  ((size_t)PAGE_SIZE * USER_MAX + 1024)

/* ---- shapes ---- */

struct counts {
	size_t joined, owned;
};

static bool count_one(void *ctx, const struct control_member *m)
{
	struct counts *n = ctx;

	n->joined++;
	n->owned += control_role_parse(av_str_c(m->role)) == CONTROL_ROLE_OWNER;
	return true;
}

/* Without the closing brace. */
static void write_user(struct av_buf *out, const struct control *c, const struct control_user *u)
{
	struct counts n = {0};
	char created[32];

	control_members_of_user(c, u->id, count_one, &n);
	av_rfc3339_ms(u->created_ms, created);
	(void)av_buf_printf(out, "{\"id\":\"%s\",\"email\":", u->id);
	(void)av_json_write_str(out, av_str_c(u->email));
	(void)av_buf_append_c(out, ",\"name\":");
	(void)av_json_write_str(out, av_str_c(u->name));
	(void)av_buf_printf(out,
	    ",\"status\":\"%s\",\"is_admin\":%s,\"has_password\":%s,\"providers\":[%s],"
	    "\"teams_joined\":%zu,\"teams_owned\":%zu,\"created_at\":\"%s\"",
	    u->status, u->is_admin ? "true" : "false", u->has_password ? "true" : "false",
	    u->has_github ? "\"github\"" : "", n.joined, n.owned, created);
}

static void write_link(struct av_buf *out, const struct control_link *link)
{
	char expires[32];

	av_rfc3339_ms(link->expires_ms, expires);
	(void)av_buf_printf(out, "{\"kind\":\"%s\",\"url\":",
	    link->kind == CONTROL_LINK_ACTIVATE ? "activate" : "reset");
	(void)av_json_write_str(out, av_str_c(link->url));
	(void)av_buf_printf(out, ",\"expires_at\":\"%s\"}", expires);
}

static void on_user(void *ctx, const struct control_user *u, const struct control_link *link,
    const struct av_err *err)
{
	AV_CLEANUP(av_buf_clear) struct av_buf out = AV_BUF_INIT(2 * USER_MAX);
	struct api_request *rq = ctx;

	rq->call = NULL;
	if (err) {
		api_send_err(rq, err);
		return;
	}
	api_audit_about(rq, u->id);
	write_user(&out, rq->api->control, u);
	if (link) {
		(void)av_buf_append_c(&out, ",\"link\":");
		write_link(&out, link);
	}
	(void)av_buf_append_char(&out, '}');
	native_send_private(rq, rq->match.route->method == API_POST ? 201 : 200, &out);
}

/* ---- the list ---- */

struct page {
	struct av_buf *out;
	const struct control *c;
	size_t first, at, written;
};

static bool write_one(void *ctx, const struct control_user *u)
{
	struct page *p = ctx;

	if (p->at++ < p->first || p->written == PAGE_SIZE)
		return true;
	(void)av_buf_append_c(p->out, p->written++ ? "," : "");
	write_user(p->out, p->c, u);
	(void)av_buf_append_char(p->out, '}');
	return true;
}

static int parse_page(const struct api_request *rq, uint64_t *ret, struct av_err *err)
{
	AV_CLEANUP(av_buf_clear) struct av_buf text = AV_BUF_INIT(24);
	int r = api_query(rq, "page", &text, err);

	*ret = 1;
	if (r == -ENOENT)
		return 0;
	if (r == 0 && av_parse_u64(av_buf_str(&text), 1, 1000000, ret) < 0)
		r = av_err_set(err, AV_ERR_INVALID, "'page' is a number from 1 on");
	return r;
}

/* The one with this address, as a page of its own. */
static int write_by_email(
    struct api_request *rq, struct av_str email, struct page *p, struct av_err *err)
{
	struct control_user u;

	if (email.n == 0)
		return av_err_set(err, AV_ERR_INVALID, "'email' is an address");
	if (control_user_by_email(rq->api->control, email, &u))
		(void)write_one(p, &u);
	return 0;
}

/* {"users":[...],"total","page","per_page","total_pages"}, oldest first */
void native_user_list(struct api_request *rq)
{
	AV_CLEANUP(av_buf_clear) struct av_buf out = AV_BUF_INIT(LIST_MAX);
	AV_CLEANUP(av_buf_clear) struct av_buf email = AV_BUF_INIT(256);
	struct page p = {.out = &out, .c = rq->api->control};
	struct av_err err;
	uint64_t page;
	int r;

	r = parse_page(rq, &page, &err);
	(void)av_buf_append_c(&out, "{\"users\":[");
	if (r == 0) {
		r = api_query(rq, "email", &email, &err);
		if (r == 0)
			r = write_by_email(rq, av_buf_str(&email), &p, &err);
		else if (r == -ENOENT)
			r = 1;
	}
	if (r < 0) {
		api_send_err(rq, &err);
		return;
	}
	p.first = (size_t)(page - 1) * PAGE_SIZE;
	if (r > 0)
		control_users_each(rq->api->control, write_one, &p);
	(void)av_buf_printf(&out,
	    "],\"total\":%zu,\"page\":%u,\"per_page\":%d,\"total_pages\":%zu}", p.at,
	    (unsigned int)page, PAGE_SIZE, (p.at + PAGE_SIZE - 1) / PAGE_SIZE);
	api_send_json(rq, 200, &out);
}

/* ---- changes ---- */

/* {"email","name","password","is_admin"} */
void native_user_create(struct api_request *rq)
{
	const char *email = "", *name = NULL;
	struct control_new_user n = {0};
	struct av_err err;

	if (av_json_get_str(rq->body, "email", &email, &err) == 0 &&
	    av_json_get_str(rq->body, "name", &name, &err) == 0 &&
	    native_get_secret(rq, "password", &n.password, &err) == 0 &&
	    av_json_get_bool(rq->body, "is_admin", &n.is_admin, &err) == 0) {
		n.email = av_str_c(email);
		n.name = av_str_c(name);
		if (control_user_create(
		        rq->api->control, &rq->actor, &n, on_user, rq, &rq->call, &err) == 0) {
			native_wipe_secrets(rq);
			return;
		}
	}
	native_wipe_secrets(rq);
	api_send_err(rq, &err);
}

/* {"email","name","is_admin"} */
void native_user_update(struct api_request *rq)
{
	const char *email = NULL, *name = NULL;
	struct control_user_update u = {.is_admin = -1};
	bool is_admin = false;
	struct av_err err;

	if (av_json_get_str(rq->body, "email", &email, &err) < 0 ||
	    av_json_get_str(rq->body, "name", &name, &err) < 0 ||
	    av_json_get_bool(rq->body, "is_admin", &is_admin, &err) < 0) {
		api_send_err(rq, &err);
		return;
	}
	u.email = email ? av_str_c(email) : u.email;
	u.name = name ? av_str_c(name) : u.name;
	if (json_is_boolean(json_object_get(rq->body, "is_admin")))
		u.is_admin = is_admin;
	if (control_user_update(rq->api->control, &rq->actor, api_param(rq, "user"), &u, on_user,
	        rq, &rq->call, &err) < 0)
		api_send_err(rq, &err);
}

/* {"active"} */
void native_user_active(struct api_request *rq)
{
	bool active = false;
	struct av_err err;
	int r;

	r = av_json_get_bool(rq->body, "active", &active, &err);
	if (r == 0 && !json_is_boolean(json_object_get(rq->body, "active")))
		r = av_err_set(&err, AV_ERR_INVALID, "'active' is needed: true or false");
	if (r < 0 || control_user_set_active(rq->api->control, &rq->actor, api_param(rq, "user"),
	                 active, api_on_done, rq, &rq->call, &err) < 0)
		api_send_err(rq, &err);
}

/* {"new_password"} */
void native_user_password(struct api_request *rq)
{
	struct av_str password = AV_STR("");
	struct av_err err;

	if (native_get_secret(rq, "new_password", &password, &err) < 0 ||
	    control_user_set_password(rq->api->control, &rq->actor, api_param(rq, "user"), password,
	        api_on_done, rq, &rq->call, &err) < 0)
		api_send_err(rq, &err);
	native_wipe_secrets(rq);
}

/* -> {"kind","url","expires_at"} */
void native_user_link(struct api_request *rq)
{
	AV_CLEANUP(av_buf_clear) struct av_buf out = AV_BUF_INIT(4096);
	AV_CLEANUP(av_buf_clear) struct av_buf url = AV_BUF_INIT(1024);
	struct control_link link;
	struct av_err err;

	if (control_user_link(
	        rq->api->control, &rq->actor, api_param(rq, "user"), &url, &link, &err) < 0) {
		api_send_err(rq, &err);
		return;
	}
	write_link(&out, &link);
	native_send_private(rq, 201, &out);
}
