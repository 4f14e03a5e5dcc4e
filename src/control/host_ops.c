/* SPDX-License-Identifier: Apache-2.0 */
/*
 * host_ops.c - what people do to hosts: create, delete, tags, registration tokens (see hosts.h)
 */
#include <errno.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>

#include "base/codec.h"
#include "control/hosts_internal.h"

#include "base/banned.h"

static int refuse_memory(struct av_err *err)
{
	return av_err_set(err, AV_ERR_NO_MEMORY, "out of memory");
}

/* The host, when the actor may change it; NULL: *err says why not. */
static struct host *find_mine(struct host_op *op, struct av_err *err)
{
	struct host *h = host_find(op->c, op->id);

	if (!h || !host_is_seen(h, &op->actor)) {
		(void)av_err_set(err, AV_ERR_NOT_FOUND, "there is no host %s", op->id);
		return NULL;
	}
	return host_check_change(op->c, h, &op->actor, err) < 0 ? NULL : h;
}

/* Errors of find_mine. */
static int failed(const struct av_err *err)
{
	return -av_err_errno(err->kind);
}

static void make_registration(struct host_op *op)
{
	uint8_t random[32];

	av_random(random, sizeof(random));
	av_hex_encode(op->registration, random, sizeof(random));
	explicit_bzero(random, sizeof(random));
	(void)crypto_hash_sha256(
	    op->rec.registration, (const uint8_t *)op->registration, strlen(op->registration));
	op->rec.registration_expires_ms =
	    control_real_ms(op->c) + (int64_t)HOST_REGISTRATION_S * 1000;
}

/* ---- create ---- */

static int check_team(struct host_op *op, struct av_err *err)
{
	const struct control_actor *a = &op->actor;
	const struct member *m = member_find(op->c, op->team_id, a->user_id);
	const struct team *t = team_find(op->c, op->team_id);
	bool admin = control_need_admin(a, NULL) == 0;
	const struct host *h;
	size_t n = 0;

	/* Another team's existence is none of a stranger's business. */
	if (!t || (!m && !admin))
		return av_err_set(err, AV_ERR_NOT_FOUND, "there is no team %s", op->team_id);
	if (!admin && control_role_parse(av_str_c(m->rec.role)) < CONTROL_ROLE_ADMIN)
		return av_err_set(err, AV_ERR_FORBIDDEN,
		    "hosts of a team are for its owner and admins; your role in it is %s",
		    m->rec.role);
	/* A key is for one team. */
	if (!admin && a->key_id[0] && strcmp(a->team_id, op->team_id) != 0)
		return av_err_set(err, AV_ERR_FORBIDDEN, "this API key is for another team");
	if (!t->rec.is_byoc)
		return av_err_set(err, AV_ERR_FORBIDDEN,
		    "this team may not bring its own hosts; an administrator of this Aviary can "
		    "allow it");
	AV_LIST_FOREACH(h, &op->c->hosts->list, const struct host, link)
	n += strcmp(h->rec.team_id, op->team_id) == 0;
	if (n >= HOSTS_TEAM_MAX)
		return av_err_set(err, AV_ERR_QUOTA,
		    "the team has %zu hosts, and %d are allowed; delete some", n, HOSTS_TEAM_MAX);
	return 0;
}

static int begin_create(struct host_op *op, struct av_err *err)
{
	struct store_host *rec = &op->rec;
	int r = op->team_id[0] ? check_team(op, err) : control_need_admin(&op->actor, err);

	if (r < 0)
		return r;
	if (op->c->hosts->n >= HOSTS_MAX)
		return av_err_set(err, AV_ERR_QUOTA,
		    "this Aviary has %zu hosts, and %d are allowed; delete some", op->c->hosts->n,
		    HOSTS_MAX);
	av_id_make(rec->id, AV_ID_HOST);
	memcpy(rec->type, op->type, sizeof(rec->type));
	memcpy(rec->team_id, op->team_id, sizeof(rec->team_id));
	memcpy(rec->provider, op->provider, sizeof(rec->provider));
	memcpy(rec->zone, op->zone, sizeof(rec->zone));
	memcpy(rec->created_by, op->actor.user_id, sizeof(rec->created_by));
	(void)snprintf(rec->status, sizeof(rec->status), "pending");
	rec->created_ms = control_real_ms(op->c);
	make_registration(op);
	return 0;
}

static int take_text(char *dst, size_t size, const char *name, const char *text, struct av_err *err)
{
	if (strlen(text ? text : "") > HOST_TEXT_MAX)
		return av_err_set(
		    err, AV_ERR_INVALID, "%s: it may have at most %d bytes", name, HOST_TEXT_MAX);
	(void)snprintf(dst, size, "%s", text ? text : "");
	return 0;
}

static int take_params(struct host_op *op, const struct control_host_params *p, struct av_err *err)
{
	const char *team = p->team_id && p->team_id[0] ? p->team_id : NULL;
	bool byoc = p->type && strcmp(p->type, "byoc") == 0;

	if (!byoc && (!p->type || strcmp(p->type, "regular") != 0))
		return av_err_set(err, AV_ERR_INVALID,
		    "type: it must be regular (for all teams) or byoc (a team's own)");
	if (!byoc && team)
		return av_err_set(
		    err, AV_ERR_INVALID, "team_id: a host of type regular is of no team");
	(void)snprintf(op->type, sizeof(op->type), "%s", p->type);
	if (byoc && !team)
		team = op->actor.team_id;
	if (team && !av_id_valid(av_str_c(team), AV_ID_TEAM))
		return av_err_set(
		    err, AV_ERR_INVALID, "team_id: '%.64s' is not the id of a team", team);
	(void)snprintf(op->team_id, sizeof(op->team_id), "%s", team ? team : "");
	if (take_text(op->provider, sizeof(op->provider), "provider", p->provider, err) < 0)
		return -EINVAL;
	return take_text(op->zone, sizeof(op->zone), "availability_zone", p->zone, err);
}

int control_host_create(struct control *c, const struct control_actor *a,
    const struct control_host_params *p, control_host_fn *fn, void *ctx, struct node_call **ret,
    struct av_err *err)
{
	struct host_op *op = host_op_new(c, begin_create, fn, ctx);
	int r;

	if (!op)
		return refuse_memory(err);
	op->actor = *a;
	r = take_params(op, p, err);
	if (r < 0) {
		host_op_free(op);
		return r;
	}
	host_op_submit(op, ret);
	return 0;
}

/* ---- what is said about one ---- */

static int submit(struct control *c, const struct control_actor *a, const char *id,
    struct host_op *op, struct node_call **ret, struct av_err *err)
{
	(void)c;
	if (!av_id_valid(av_str_c(id), AV_ID_HOST)) {
		host_op_free(op);
		return av_err_set(err, AV_ERR_INVALID, "'%.64s' is not the id of a host", id);
	}
	op->actor = *a;
	(void)snprintf(op->id, sizeof(op->id), "%s", id);
	host_op_submit(op, ret);
	return 0;
}

static int begin_token(struct host_op *op, struct av_err *err)
{
	const struct host *h = find_mine(op, err);

	if (!h)
		return failed(err);
	if (strcmp(h->rec.status, "pending") != 0)
		return av_err_set(err, AV_ERR_INVALID,
		    "host %s is registered; only one that is pending can get a registration token",
		    op->id);
	op->rec = h->rec;
	make_registration(op);
	return 0;
}

int control_host_token(struct control *c, const struct control_actor *a, const char *id,
    control_host_fn *fn, void *ctx, struct node_call **ret, struct av_err *err)
{
	struct host_op *op = host_op_new(c, begin_token, fn, ctx);

	return op ? submit(c, a, id, op, ret, err) : refuse_memory(err);
}

static void count_one(void *ctx, const char *sandbox_id)
{
	size_t *n = ctx;

	(void)sandbox_id;
	(*n)++;
}

static int refuse_local(struct host_op *op, struct av_err *err)
{
	size_t n = 0;
	int r = control_host_sandboxes(op->c, &op->actor, op->id, count_one, &n, err);

	if (r < 0)
		return r;
	if (n > 0 && !op->flag)
		return av_err_set(
		    err, AV_ERR_HOST_BUSY, "%zu sandboxes are on this host; delete them first", n);
	return av_err_set(err, AV_ERR_INVALID_STATE,
	    "this is the machine that Aviary runs on, which cannot be taken away from it; to end "
	    "its sandboxes delete them");
}

static int begin_delete(struct host_op *op, struct av_err *err)
{
	const struct host *h = find_mine(op, err);

	if (!h)
		return failed(err);
	if (h->rec.is_local)
		return refuse_local(op, err);
	op->rec = h->rec;
	op->remove = true;
	return 0;
}

int control_host_delete(struct control *c, const struct control_actor *a, const char *id,
    bool force, control_host_fn *fn, void *ctx, struct node_call **ret, struct av_err *err)
{
	struct host_op *op = host_op_new(c, begin_delete, fn, ctx);

	if (!op)
		return refuse_memory(err);
	op->flag = force;
	return submit(c, a, id, op, ret, err);
}

/* ---- tags ---- */

static int compare(struct av_str a, struct av_str b)
{
	int order = memcmp(a.p, b.p, AV_MIN(a.n, b.n));

	return order ? order : (a.n > b.n) - (a.n < b.n);
}

/* The tags of `have` and, with add, `tag`, in order; how many. */
static size_t merge_tags(const char *have, const char *tag, bool add, struct av_buf *out)
{
	struct av_str rest = av_str_c(have), one, v[HOST_TAGS_MAX + 1];
	bool more = rest.n > 0;
	size_t n = 0, at = 0;

	while (more && n < HOST_TAGS_MAX) {
		more = av_str_cut(&rest, ',', &one);
		if (!av_str_eq_c(one, tag))
			v[n++] = one;
	}
	while (at < n && compare(v[at], av_str_c(tag)) < 0)
		at++;
	if (add) {
		memmove(&v[at + 1], &v[at], (n - at) * sizeof(v[0]));
		v[at] = av_str_c(tag);
		n++;
	}
	for (size_t i = 0; i < n; i++) {
		if (i)
			(void)av_buf_append_char(out, ',');
		(void)av_buf_append_str(out, v[i]);
	}
	return n;
}

static int begin_tag(struct host_op *op, struct av_err *err)
{
	AV_CLEANUP(av_buf_clear) struct av_buf tags = AV_BUF_INIT(2 * STORE_HOST_TAGS_SIZE);
	const struct host *h = find_mine(op, err);
	size_t n;

	if (!h)
		return failed(err);
	n = merge_tags(h->rec.tags, op->tag, op->flag, &tags);
	if (av_buf_error(&tags) < 0)
		return refuse_memory(err);
	if (n > HOST_TAGS_MAX)
		return av_err_set(err, AV_ERR_INVALID,
		    "tag: host %s has %d tags, and more are not allowed; remove one", op->id,
		    HOST_TAGS_MAX);
	op->rec = h->rec;
	memset(op->rec.tags, 0, sizeof(op->rec.tags));
	return av_str_copy(op->rec.tags, sizeof(op->rec.tags), av_buf_str(&tags)) < 0
	           ? refuse_memory(err)
	           : 0;
}

int control_host_tag(struct control *c, const struct control_actor *a, const char *id,
    const char *tag, bool add, control_host_fn *fn, void *ctx, struct node_call **ret,
    struct av_err *err)
{
	struct host_op *op;
	size_t n = strlen(tag);
	bool good = n > 0 && n <= HOST_TAG_MAX;

	for (size_t i = 0; i < n; i++)
		good = good && tag[i] > 0x20 && tag[i] < 0x7f && tag[i] != ',';
	if (!good && add)
		return av_err_set(err, AV_ERR_INVALID,
		    "tag: it must have 1 to %d visible ASCII characters and no comma",
		    HOST_TAG_MAX);
	op = host_op_new(c, begin_tag, fn, ctx);
	if (!op)
		return refuse_memory(err);
	(void)snprintf(op->tag, sizeof(op->tag), "%s", good ? tag : "");
	op->flag = add;
	return submit(c, a, id, op, ret, err);
}
