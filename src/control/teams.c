/* SPDX-License-Identifier: Apache-2.0 */
/*
 * teams.c - changing teams and who is in them (see teams.h)
 */
#include "control/teams.h"

#include <errno.h>
#include <string.h>

#include "base/log.h"
#include "control/accounts_internal.h"
#include "control/templates_internal.h"

#include "base/banned.h"

struct team_op {
	struct account_op base; /* first */
	node_done_fn *done;
	control_membership_fn *member; /* of those that answer with one */
	char team_id[AV_ID_SIZE], user_id[AV_ID_SIZE];
	char text[STORE_EMAIL_SIZE]; /* a name or an address */
	enum control_role role;
	struct control_quota_update quota;
};

static struct team_op *op_of(struct account_op *op)
{
	return AV_CONTAINER_OF(op, struct team_op, base);
}

static void answer_done(struct account_op *op, const struct av_err *err)
{
	op_of(op)->done(op->ctx, err);
}

static void answer_member(struct account_op *base, const struct av_err *err)
{
	struct team_op *op = op_of(base);
	struct control_member m;
	struct av_err own;

	if (!err && !control_member_get(base->c, op->team_id, op->user_id, &m)) {
		(void)av_err_set(&own, AV_ERR_NOT_FOUND, "the member is gone again");
		err = &own;
	}
	op->member(base->ctx, err ? NULL : &m, err);
}

static struct team_op *op_new(struct control *c, const struct control_actor *a,
    account_begin_fn *begin, account_answer_fn *answer, void *ctx, struct av_err *err)
{
	struct team_op *op;

	if (control_check_open(c, err) < 0)
		return NULL;
	op = account_op_new(c, sizeof(*op), begin, answer, ctx);
	if (!op) {
		(void)av_err_set(err, AV_ERR_NO_MEMORY, "out of memory");
		return NULL;
	}
	op->base.actor = *a;
	memcpy(op->team_id, a->team_id, AV_ID_SIZE);
	return op;
}

static int submit(struct team_op *op, struct node_call **ret)
{
	if (ret)
		*ret = &op->base.call;
	account_op_submit(&op->base);
	return 0;
}

/* Gives up what could not be filled. */
static int give_up(struct team_op *op, int r)
{
	account_op_free(&op->base);
	return r;
}

static int errno_of(const struct av_err *err)
{
	return -av_err_errno(err->kind);
}

/* The actor's team, when it has that role in it now; else NULL with *err. */
static struct team *may(struct account_op *op, enum control_role least, struct av_err *err)
{
	struct team *t = team_find(op->c, op->actor.team_id);

	if (account_op_actor(op, err) < 0 || control_need_role(&op->actor, least, err) < 0)
		return NULL;
	if (!t)
		(void)av_err_set(err, AV_ERR_NOT_FOUND, "the team is gone");
	return t;
}

/* ---- bounds ---- */

static int check_joined(const struct user *u, bool yours, struct av_err *err)
{
	size_t n = av_list_count(&u->memberships);

	if (n < CONTROL_TEAMS_JOINED_MAX)
		return 0;
	return av_err_set(err, AV_ERR_QUOTA,
	    "%s in %zu teams, and %d are allowed for one user; leave one first",
	    yours ? "you are" : "that user is", n, CONTROL_TEAMS_JOINED_MAX);
}

static int check_owned(const struct user *u, struct av_err *err)
{
	const struct member *m;
	size_t n = 0;

	AV_LIST_FOREACH(m, &u->memberships, const struct member, of_user)
	n += strcmp(m->rec.role, control_role_text(CONTROL_ROLE_OWNER)) == 0;
	if (n < CONTROL_TEAMS_OWNED_MAX)
		return 0;
	return av_err_set(err, AV_ERR_QUOTA,
	    "you own %zu teams, and %d are allowed for one user; delete one first", n,
	    CONTROL_TEAMS_OWNED_MAX);
}

static int check_members(const struct team *t, struct av_err *err)
{
	size_t n = av_list_count(&t->members);

	if (n < CONTROL_MEMBERS_MAX)
		return 0;
	return av_err_set(err, AV_ERR_QUOTA,
	    "the team has %zu members, and %d are allowed; remove somebody first", n,
	    CONTROL_MEMBERS_MAX);
}

static bool name_char(char ch)
{
	return (ch >= 'a' && ch <= 'z') || (ch >= 'A' && ch <= 'Z') || (ch >= '0' && ch <= '9') ||
	       (ch && strchr(" _-@'", ch));
}

static int take_name(struct team_op *op, struct av_str name, struct av_err *err)
{
	bool good = name.n > 0 && name.n <= CONTROL_TEAM_NAME_MAX;

	static_assert(CONTROL_TEAM_NAME_MAX < STORE_NAME_SIZE, "names fit");
	for (size_t i = 0; good && i < name.n; i++)
		good = name_char(name.p[i]);
	if (!good)
		return av_err_set(err, AV_ERR_INVALID,
		    "'name' of a team must be 1 to %d letters, digits, blanks and _ - @ '",
		    CONTROL_TEAM_NAME_MAX);
	memcpy(op->text, name.p, name.n);
	return 0;
}

static void set_role(struct store_member *m, enum control_role role)
{
	memset(m->role, 0, sizeof(m->role));
	memcpy(m->role, control_role_text(role), strlen(control_role_text(role)));
}

/* ---- teams ---- */

static int begin_create(struct account_op *base, struct av_err *err)
{
	struct store_account_change *ch = &base->change;
	struct team_op *op = op_of(base);
	const struct user *u;
	int r = account_op_actor(base, err);

	if (r < 0)
		return r;
	u = user_find(base->c, base->actor.user_id);
	assert(u);
	r = check_owned(u, err);
	if (r == 0)
		r = check_joined(u, true, err);
	if (r < 0)
		return r;
	av_id_make(ch->team.id, AV_ID_TEAM);
	memcpy(ch->team.name, op->text, CONTROL_TEAM_NAME_MAX + 1);
	team_slug_make(ch->team.slug);
	ch->team.created_ms = ch->member.joined_ms = control_real_ms(base->c);
	memcpy(ch->member.team_id, ch->team.id, AV_ID_SIZE);
	memcpy(ch->member.user_id, u->rec.id, AV_ID_SIZE);
	set_role(&ch->member, CONTROL_ROLE_OWNER);
	memcpy(op->team_id, ch->team.id, AV_ID_SIZE);
	memcpy(op->user_id, u->rec.id, AV_ID_SIZE);
	return 0;
}

int control_team_create(struct control *c, const struct control_actor *a, struct av_str name,
    control_membership_fn *fn, void *ctx, struct node_call **ret, struct av_err *err)
{
	struct av_err own;
	struct team_op *op;
	int r;

	err = err ? err : &own;
	op = op_new(c, a, begin_create, answer_member, ctx, err);
	if (!op)
		return errno_of(err);
	op->member = fn;
	r = take_name(op, name, err);
	return r < 0 ? give_up(op, r) : submit(op, ret);
}

static int begin_rename(struct account_op *base, struct av_err *err)
{
	struct team *t = may(base, CONTROL_ROLE_ADMIN, err);

	if (!t)
		return errno_of(err);
	base->change.team = t->rec;
	memcpy(base->change.team.name, op_of(base)->text, CONTROL_TEAM_NAME_MAX + 1);
	return 0;
}

int control_team_rename(struct control *c, const struct control_actor *a, struct av_str name,
    node_done_fn *fn, void *ctx, struct node_call **ret, struct av_err *err)
{
	struct av_err own;
	struct team_op *op;
	int r;

	err = err ? err : &own;
	op = op_new(c, a, begin_rename, answer_done, ctx, err);
	if (!op)
		return errno_of(err);
	op->done = fn;
	r = take_name(op, name, err);
	return r < 0 ? give_up(op, r) : submit(op, ret);
}

static void dissolve(struct account_op *base, const char *team_id)
{
	base->change.n_dissolved = 1;
	memcpy(base->change.dissolved[0], team_id, AV_ID_SIZE);
}

static int begin_delete(struct account_op *base, struct av_err *err)
{
	struct team *t = may(base, CONTROL_ROLE_OWNER, err);

	if (!t)
		return errno_of(err);
	dissolve(base, t->rec.id);
	return 0;
}

/* One that takes nothing but ids. */
static int ask(struct control *c, const struct control_actor *a, const char *team_id,
    const char *user_id, account_begin_fn *begin, node_done_fn *fn, void *ctx,
    struct node_call **ret, struct av_err *err)
{
	struct av_err own;
	struct team_op *op;

	err = err ? err : &own;
	if (user_id && !av_id_valid(av_str_c(user_id), AV_ID_USER))
		return av_err_set(err, AV_ERR_INVALID, "'%.64s' is not the id of a user", user_id);
	if (team_id && !av_id_valid(av_str_c(team_id), AV_ID_TEAM))
		return av_err_set(err, AV_ERR_INVALID, "'%.64s' is not the id of a team", team_id);
	op = op_new(c, a, begin, answer_done, ctx, err);
	if (!op)
		return errno_of(err);
	op->done = fn;
	if (user_id)
		memcpy(op->user_id, user_id, AV_ID_SIZE);
	if (team_id)
		memcpy(op->team_id, team_id, AV_ID_SIZE);
	return submit(op, ret);
}

int control_team_delete(struct control *c, const struct control_actor *a, node_done_fn *fn,
    void *ctx, struct node_call **ret, struct av_err *err)
{
	return ask(c, a, NULL, NULL, begin_delete, fn, ctx, ret, err);
}

/* ---- members ---- */

static int begin_add(struct account_op *base, struct av_err *err)
{
	struct team *t = may(base, CONTROL_ROLE_ADMIN, err);
	struct store_member *m = &base->change.member;
	struct team_op *op = op_of(base);
	const struct user *u;
	int r;

	if (!t)
		return errno_of(err);
	u = user_by_email(base->c, av_str_c(op->text));
	if (!u || strcmp(u->rec.status, "active") != 0)
		return av_err_set(err, AV_ERR_NOT_FOUND,
		    "no active user has the address %.200s; they sign up first", op->text);
	if (member_find(base->c, t->rec.id, u->rec.id))
		return av_err_set(err, AV_ERR_INVALID, "%.200s is a member already", op->text);
	r = check_members(t, err);
	if (r == 0)
		r = check_joined(u, false, err);
	if (r < 0)
		return r;
	memcpy(m->team_id, t->rec.id, AV_ID_SIZE);
	memcpy(m->user_id, u->rec.id, AV_ID_SIZE);
	set_role(m, CONTROL_ROLE_MEMBER);
	m->joined_ms = control_real_ms(base->c);
	memcpy(op->user_id, u->rec.id, AV_ID_SIZE);
	return 0;
}

int control_member_add(struct control *c, const struct control_actor *a, struct av_str email,
    control_membership_fn *fn, void *ctx, struct node_call **ret, struct av_err *err)
{
	struct av_err own;
	struct team_op *op;

	err = err ? err : &own;
	email = av_str_trim(email);
	op = op_new(c, a, begin_add, answer_member, ctx, err);
	if (!op)
		return errno_of(err);
	op->member = fn;
	if (email.n < 3 || email.n >= sizeof(op->text) || !memchr(email.p, '@', email.n) ||
	    av_str_has_nul(email))
		return give_up(op, av_err_set(err, AV_ERR_INVALID,
		                       "'email' must be the address of a user of this Aviary"));
	memcpy(op->text, email.p, email.n);
	return submit(op, ret);
}

/* Somebody of the team, who is not its owner; else NULL with *err. */
static struct member *find_other(struct account_op *base, const char *what, struct av_err *err)
{
	struct team_op *op = op_of(base);
	struct team *t = may(base, CONTROL_ROLE_ADMIN, err);
	struct member *m = t ? member_find(base->c, t->rec.id, op->user_id) : NULL;

	if (!t)
		return NULL;
	if (!m) {
		(void)av_err_set(
		    err, AV_ERR_NOT_FOUND, "user %s is no member of the team", op->user_id);
		return NULL;
	}
	if (control_role_parse(av_str_c(m->rec.role)) == CONTROL_ROLE_OWNER) {
		(void)av_err_set(err, AV_ERR_FORBIDDEN, "the owner of a team cannot be %s", what);
		return NULL;
	}
	return m;
}

static int begin_set_role(struct account_op *base, struct av_err *err)
{
	struct member *m = find_other(base, "given another role", err);

	if (!m)
		return errno_of(err);
	base->change.member = m->rec;
	set_role(&base->change.member, op_of(base)->role);
	return 0;
}

int control_member_set_role(struct control *c, const struct control_actor *a, const char *user_id,
    enum control_role role, node_done_fn *fn, void *ctx, struct node_call **ret, struct av_err *err)
{
	struct av_err own;
	struct team_op *op;

	err = err ? err : &own;
	if (!av_id_valid(av_str_c(user_id), AV_ID_USER))
		return av_err_set(err, AV_ERR_INVALID, "'%.64s' is not the id of a user", user_id);
	if (role != CONTROL_ROLE_ADMIN && role != CONTROL_ROLE_MEMBER)
		return av_err_set(err, AV_ERR_INVALID,
		    "'role' must be \"admin\" or \"member\"; a team keeps its owner");
	op = op_new(c, a, begin_set_role, answer_done, ctx, err);
	if (!op)
		return errno_of(err);
	op->done = fn;
	op->role = role;
	memcpy(op->user_id, user_id, AV_ID_SIZE);
	return submit(op, ret);
}

static int begin_remove(struct account_op *base, struct av_err *err)
{
	struct member *m = find_other(base, "removed from it", err);

	if (!m)
		return errno_of(err);
	base->change.former = m->rec;
	return 0;
}

int control_member_remove(struct control *c, const struct control_actor *a, const char *user_id,
    node_done_fn *fn, void *ctx, struct node_call **ret, struct av_err *err)
{
	return ask(c, a, NULL, user_id, begin_remove, fn, ctx, ret, err);
}

static int begin_leave(struct account_op *base, struct av_err *err)
{
	struct team *t = may(base, CONTROL_ROLE_MEMBER, err);
	const struct member *m;

	if (!t)
		return errno_of(err);
	if (base->actor.role == CONTROL_ROLE_OWNER)
		return av_err_set(
		    err, AV_ERR_FORBIDDEN, "the owner cannot leave the team; delete it instead");
	m = member_find(base->c, t->rec.id, base->actor.user_id);
	assert(m);
	base->change.former = m->rec;
	return 0;
}

int control_team_leave(struct control *c, const struct control_actor *a, node_done_fn *fn,
    void *ctx, struct node_call **ret, struct av_err *err)
{
	return ask(c, a, NULL, NULL, begin_leave, fn, ctx, ret, err);
}

/* ---- users ---- */

int control_users_search(struct control *c, struct av_str prefix,
    bool (*fn)(void *ctx, const struct control_user *u), void *ctx, struct av_err *err)
{
	char lower[STORE_EMAIL_SIZE];
	struct control_user info;
	const struct user *u;
	size_t n = 0;

	if (prefix.n < CONTROL_SEARCH_MIN || prefix.n >= sizeof(lower) ||
	    !memchr(prefix.p, '@', prefix.n))
		return av_err_set(err, AV_ERR_INVALID,
		    "query parameter 'email' must be the beginning of an address with its '@', of "
		    "%d characters or more, as ann@",
		    CONTROL_SEARCH_MIN);
	for (size_t i = 0; i < prefix.n; i++)
		lower[i] = (char)(prefix.p[i] >= 'A' && prefix.p[i] <= 'Z' ? prefix.p[i] | 0x20
		                                                           : prefix.p[i]);
	AV_LIST_FOREACH(u, &c->accounts.users, const struct user, link)
	{
		if (strcmp(u->rec.status, "active") != 0 ||
		    !av_str_starts(av_str_c(u->rec.email), av_str_n(lower, prefix.n)))
			continue;
		if (!control_user_get(c, u->rec.id, &info) || !fn(ctx, &info) ||
		    ++n == CONTROL_SEARCH_MAX)
			break;
	}
	return 0;
}

/* ---- administrators ---- */

static void describe_owner(const struct team *t, struct control_team_summary *ret)
{
	const struct member *m;

	ret->owner_name = ret->owner_email = "";
	AV_LIST_FOREACH(m, &t->members, const struct member, of_team)
	{
		ret->members++;
		if (control_role_parse(av_str_c(m->rec.role)) != CONTROL_ROLE_OWNER)
			continue;
		ret->owner_name = m->user->rec.name;
		ret->owner_email = m->user->rec.email;
	}
}

void control_admin_teams(struct control *c, size_t from,
    bool (*fn)(void *ctx, const struct control_team_summary *t), void *ctx)
{
	const struct sandbox *sb;
	struct team *t;

	AV_LIST_FOREACH(t, &c->accounts.teams, struct team, link)
	t->n_sandboxes = 0;
	AV_LIST_FOREACH(sb, &c->live, const struct sandbox, link)
	{
		t = team_find(c, sb->rec.team_id);
		if (t)
			t->n_sandboxes++;
	}
	AV_LIST_FOREACH(t, &c->accounts.teams, struct team, link)
	{
		struct control_team_summary s = {.sandboxes = t->n_sandboxes};

		if (from > 0) {
			from--;
			continue;
		}
		(void)control_team_get(c, t->rec.id, &s.team);
		describe_owner(t, &s);
		if (!fn(ctx, &s))
			return;
	}
}

size_t control_team_count(const struct control *c)
{
	return av_list_count(&c->accounts.teams);
}

/* The team meant, when the actor is an administrator of this Aviary; else NULL with *err. */
static struct team *may_admin(struct account_op *base, struct av_err *err)
{
	struct team_op *op = op_of(base);
	struct team *t = team_find(base->c, op->team_id);

	if (account_op_actor(base, err) < 0 || control_need_admin(&base->actor, err) < 0)
		return NULL;
	if (!t)
		(void)av_err_set(err, AV_ERR_NOT_FOUND, "there is no team %.64s", op->team_id);
	return t;
}

static int begin_byoc(struct account_op *base, struct av_err *err)
{
	struct team *t = may_admin(base, err);

	if (!t)
		return errno_of(err);
	if (t->rec.is_byoc)
		return 0;
	base->change.team = t->rec;
	base->change.team.is_byoc = true;
	return 0;
}

int control_admin_team_byoc(struct control *c, const struct control_actor *a, const char *team_id,
    node_done_fn *fn, void *ctx, struct node_call **ret, struct av_err *err)
{
	return ask(c, a, team_id, NULL, begin_byoc, fn, ctx, ret, err);
}

static int begin_quota(struct account_op *base, struct av_err *err)
{
	struct team *t = may_admin(base, err);

	if (!t)
		return errno_of(err);
	base->change.team = t->rec;
	quota_apply(&base->change.team.quota, &op_of(base)->quota);
	return 0;
}

int control_admin_team_quota(struct control *c, const struct control_actor *a, const char *team_id,
    const struct control_quota_update *quota, node_done_fn *fn, void *ctx, struct node_call **ret,
    struct av_err *err)
{
	struct av_err own;
	struct team_op *op;
	int r;

	err = err ? err : &own;
	r = quota_check_values(quota, err);
	if (r < 0)
		return r;
	if (!av_id_valid(av_str_c(team_id), AV_ID_TEAM))
		return av_err_set(err, AV_ERR_INVALID, "'%.64s' is not the id of a team", team_id);
	op = op_new(c, a, begin_quota, answer_done, ctx, err);
	if (!op)
		return errno_of(err);
	op->done = fn;
	op->quota = *quota;
	memcpy(op->team_id, team_id, AV_ID_SIZE);
	return submit(op, ret);
}

static int begin_admin_delete(struct account_op *base, struct av_err *err)
{
	struct team *t = may_admin(base, err);

	if (!t)
		return errno_of(err);
	dissolve(base, t->rec.id);
	return 0;
}

int control_admin_team_delete(struct control *c, const struct control_actor *a, const char *team_id,
    node_done_fn *fn, void *ctx, struct node_call **ret, struct av_err *err)
{
	return ask(c, a, team_id, NULL, begin_admin_delete, fn, ctx, ret, err);
}

/* ---- what a team leaves behind ---- */

static void on_template_marked(void *ctx, const struct av_err *err)
{
	(void)ctx;
	if (err)
		av_log(AV_LOG_WARN,
		    "cannot record that a template of a deleted team is gone; the next start tries "
		    "again",
		    "error", err->message, NULL);
}

void teams_sweep(struct control *c)
{
	struct template *t;
	struct creation *cr;
	struct sandbox *sb;

	AV_LIST_FOREACH(cr, &c->creating, struct creation, link)
	cr->orphan = !cr->sb && !team_find(c, cr->rec.team_id);
	/* An end begins with a record: the list does not change here. */
	AV_LIST_FOREACH(sb, &c->live, struct sandbox, link)
	if (!sb->ending && !team_find(c, sb->rec.team_id))
		sandbox_end(sb, SANDBOX_REASON_DELETED, false, "its team was deleted");
	AV_LIST_FOREACH(t, &c->templates, struct template, link)
	{
		if (!template_is_ready(t) || t->rec.platform || team_find(c, t->rec.team_id))
			continue;
		template_set_state(t, TEMPLATE_DELETED);
		(void)store_template_mark_deleted(c->store, t->rec.id, on_template_marked, NULL);
		templates_unused(c);
	}
}
