/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_teams.c - teams, members and keys: who may do what to whom, and what goes with a team
 */
#include "control/teams.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "control/templates.h"
#include "control_world.h"
#include "store/accounts.h"
#include "base/banned.h"

static const struct sandbox_params plain;

struct person {
	char user[AV_ID_SIZE], team[AV_ID_SIZE];
};

/* Somebody with a team of their own, for the next start. */
static void add_person(struct world *w, const char *name, const char *status, struct person *ret)
{
	struct store_account_change ch = {.user = {.created_ms = 1000},
	    .team = {.name = "theirs", .slug = "a-b", .created_ms = 1000},
	    .member = {.role = "owner", .is_default = true, .joined_ms = 1000}};
	struct answer a = {0};

	av_id_make(ret->user, AV_ID_USER);
	av_id_make(ret->team, AV_ID_TEAM);
	memcpy(ch.user.id, ret->user, AV_ID_SIZE);
	memcpy(ch.team.id, ret->team, AV_ID_SIZE);
	memcpy(ch.member.user_id, ret->user, AV_ID_SIZE);
	memcpy(ch.member.team_id, ret->team, AV_ID_SIZE);
	(void)snprintf(ch.user.name, sizeof(ch.user.name), "%s", name);
	(void)snprintf(ch.user.email, sizeof(ch.user.email), "%s@example.com", name);
	(void)snprintf(ch.user.status, sizeof(ch.user.status), "%s", status);
	(void)store_account_change(w->store, &ch, on_done, &a);
	(void)run_until(w, &a.done);
	is_int(a.kind, 0, "somebody is there");
}

/* With a session in a team. */
static struct control_actor session(struct world *w, const struct person *p, const char *team)
{
	struct av_buf token = AV_BUF_INIT(4096);
	struct control_actor a = {0};

	ok(control_session_issue(w->control, team, p->user, &token) == 0 &&
	        control_session_verify(w->control, av_buf_str(&token), &a, NULL) == 0,
	    "a session");
	av_buf_clear(&token);
	return a;
}

/* ---- calls that wait ---- */

static void on_member(void *ctx, const struct control_member *m, const struct av_err *err)
{
	struct answer *a = ctx;

	take_err(a, err);
	if (m) {
		memcpy(a->id, m->team.id, AV_ID_SIZE);
		(void)snprintf(a->meta, sizeof(a->meta), "%s", m->role);
	}
}

static void on_key(void *ctx, const struct control_key *k, const struct av_err *err)
{
	struct answer *a = ctx;

	take_err(a, err);
	if (!k)
		return;
	a->n++;
	memcpy(a->id, k->id, AV_ID_SIZE);
	(void)snprintf(a->message, sizeof(a->message), "%s", k->secret ? k->secret : "");
	(void)snprintf(a->tags, sizeof(a->tags), "%.63s", k->scopes);
	(void)snprintf(a->ports, sizeof(a->ports), "%s", k->expired ? "expired" : "good");
}

/* WAIT(call): the answer of a call that takes `w`, the callback's context `&got` and `&err`. */
#define WAIT(call)                                                                                 \
	({                                                                                         \
		struct answer got = {0};                                                           \
		struct av_err err = {0};                                                           \
		if ((call) < 0)                                                                    \
			take_err(&got, &err);                                                      \
		else                                                                               \
			(void)run_until(w, &got.done);                                             \
		got;                                                                               \
	})

static struct answer add_member(struct world *w, const struct control_actor *who, const char *email)
{
	return WAIT(
	    control_member_add(w->control, who, av_str_c(email), on_member, &got, NULL, &err));
}

static struct answer set_role(
    struct world *w, const struct control_actor *who, const char *user, enum control_role role)
{
	return WAIT(
	    control_member_set_role(w->control, who, user, role, on_done, &got, NULL, &err));
}

static struct answer remove_member(
    struct world *w, const struct control_actor *who, const char *user)
{
	return WAIT(control_member_remove(w->control, who, user, on_done, &got, NULL, &err));
}

static struct answer rename_team(struct world *w, const struct control_actor *who, const char *name)
{
	return WAIT(
	    control_team_rename(w->control, who, av_str_c(name), on_done, &got, NULL, &err));
}

static struct answer make_key(
    struct world *w, const struct control_actor *who, const struct control_key_params *p)
{
	return WAIT(control_key_create(w->control, who, p, on_key, &got, NULL, &err));
}

static struct answer rotate_key(
    struct world *w, const struct control_actor *who, const char *id, int64_t grace_ms)
{
	return WAIT(control_key_rotate(w->control, who, id, grace_ms, on_key, &got, NULL, &err));
}

static bool is_good(struct world *w, const char *secret, struct control_actor *ret)
{
	struct control_actor own;

	return control_key_verify(w->control, av_str_c(secret), ret ? ret : &own, NULL) == 0;
}

/* ---- tests ---- */

static void test_members(struct world *w, const struct person *ann, const struct person *bob)
{
	const struct control_actor *owner = &w->actor;
	struct control_actor a;

	is_int(add_member(w, owner, "nobody@example.com").kind, AV_ERR_NOT_FOUND, "nobody is not");
	is_int(add_member(w, owner, "idle@example.com").kind, AV_ERR_NOT_FOUND,
	    "nor is who never activated the account");
	is_int(add_member(w, owner, "nonsense").kind, AV_ERR_INVALID, "an address has an @");
	is_str(add_member(w, owner, " Ann@Example.COM ").meta, "member", "Ann is a member");
	is_int(add_member(w, owner, "ann@example.com").kind, AV_ERR_INVALID, "once");
	a = session(w, ann, owner->team_id);
	is_int(rename_team(w, &a, "hers").kind, AV_ERR_FORBIDDEN, "a member names no team");
	is_int(add_member(w, &a, "bob@example.com").kind, AV_ERR_FORBIDDEN, "and adds nobody");
	is_int(set_role(w, &a, ann->user, CONTROL_ROLE_ADMIN).kind, AV_ERR_FORBIDDEN,
	    "least of all a role to herself");
	is_int(set_role(w, owner, ann->user, CONTROL_ROLE_OWNER).kind, AV_ERR_INVALID,
	    "nobody is made an owner");
	is_int(set_role(w, owner, ann->user, CONTROL_ROLE_ADMIN).kind, 0, "the owner gives one");
	is_int(rename_team(w, &a, "ours, all").kind, AV_ERR_INVALID, "a comma stands in no name");
	is_int(rename_team(w, &a, "ours").kind, 0, "an administrator names it");
	is_int(add_member(w, &a, "bob@example.com").kind, 0, "and adds");
	is_int(set_role(w, &a, owner->user_id, CONTROL_ROLE_MEMBER).kind, AV_ERR_FORBIDDEN,
	    "the owner stays the owner");
	is_int(remove_member(w, &a, owner->user_id).kind, AV_ERR_FORBIDDEN, "and stays");
	is_int(WAIT(control_team_leave(w->control, owner, on_done, &got, NULL, &err)).kind,
	    AV_ERR_FORBIDDEN, "also of their own will");
	is_int(WAIT(control_team_delete(w->control, &a, on_done, &got, NULL, &err)).kind,
	    AV_ERR_FORBIDDEN, "only the owner deletes the team");
	is_int(remove_member(w, &a, bob->team).kind, AV_ERR_INVALID, "that is no user");
	is_int(remove_member(w, &a, "us0000000000000000000000000").kind, AV_ERR_NOT_FOUND,
	    "that is no member");
}

static void test_scopes(struct world *w)
{
	const struct control_key_params wide = {.scopes = CONTROL_SCOPE_ALL};
	struct control_key_params p = {.name = AV_STR("narrow"),
	    .scopes = CONTROL_SCOPE_TEAM_WRITE | CONTROL_SCOPE_SANDBOXES_READ};
	struct answer k = make_key(w, &w->actor, &p), r;
	struct control_actor who;

	ok(k.kind == 0 && is_good(w, k.message, &who), "a key with two scopes");
	is_int(who.scopes, p.scopes, "has those");
	p.scopes = CONTROL_SCOPE_SANDBOXES_READ;
	is_int(make_key(w, &who, &p).kind, 0, "it makes a lesser one");
	r = make_key(w, &who, &wide);
	ok(r.kind == AV_ERR_FORBIDDEN && strstr(r.message, "sandboxes:write"), "and no greater: %s",
	    r.message);
	r = make_key(w, &who, &(struct control_key_params){0});
	is_int(r.kind, AV_ERR_FORBIDDEN, "the usual scopes are greater too");
	r = rotate_key(w, &who, w->actor.key_id, 0);
	is_int(r.kind, AV_ERR_FORBIDDEN, "nor does it get a greater one by rotating that");
	k = make_key(w, &w->actor, &(struct control_key_params){0});
	is_str(k.tags, "sandboxes:read sandboxes:write templates:read templates:write",
	    "a key is for sandboxes and templates unless said otherwise");
}

static void test_ends(struct world *w)
{
	int64_t now = av_real_ms();
	struct control_key_params p = {
	    .scopes = CONTROL_SCOPE_TEAM_WRITE, .expires_ms = now + 3600 * 1000};
	struct answer k = make_key(w, &w->actor, &p), r;
	struct control_actor who;

	ok(is_good(w, k.message, &who), "a key for an hour");
	p.expires_ms += 1000;
	is_int(make_key(w, &who, &p).kind, AV_ERR_FORBIDDEN, "makes none for longer");
	p.expires_ms = 0;
	r = make_key(w, &who, &p);
	is_int(r.kind, 0, "and those that say nothing end with it");
	p.expires_ms = now - 1;
	is_int(make_key(w, &w->actor, &p).kind, AV_ERR_INVALID, "none ends in the past");
	p.expires_ms = av_real_ms() + 60000;
	k = make_key(w, &w->actor, &p);
	ok(is_good(w, k.message, NULL), "one for a moment is good");
	w->real_skew_ms += 61000;
	ok(!is_good(w, k.message, NULL), "and then is not");
	is_int(rotate_key(w, &w->actor, k.id, 0).kind, AV_ERR_INVALID_STATE,
	    "what has expired is not rotated");
	w->real_skew_ms -= 61000;
}

static void test_rotation(struct world *w, const struct person *ann)
{
	struct control_actor a = session(w, ann, w->actor.team_id);
	struct answer k = make_key(w, &a, &(struct control_key_params){0}), fresh, seen = {0};

	fresh = rotate_key(w, &a, k.id, 60 * 1000);
	ok(fresh.kind == 0 && strcmp(fresh.id, k.id) != 0, "a key is rotated");
	ok(is_good(w, fresh.message, NULL) && is_good(w, k.message, NULL),
	    "for a while both are good");
	(void)rotate_key(w, &a, k.id, 0);
	ok(!is_good(w, k.message, NULL), "without grace the old one ends at once");
	control_key_get(w->control, &a, k.id, on_key, &seen);
	is_str(seen.ports, "expired", "and is shown so");
	is_int(rotate_key(w, &w->actor, fresh.id, 0).kind, AV_ERR_FORBIDDEN,
	    "nobody else gets a secret that acts for her");
	is_int(rotate_key(w, &a, w->actor.key_id, 0).kind, AV_ERR_FORBIDDEN,
	    "nor does she one of the owner's");
}

/* What a member sees of the keys of others, and that keys go with their maker. */
static void test_leaving(struct world *w, const struct person *bob)
{
	struct control_actor b = session(w, bob, w->actor.team_id), who;
	struct answer k = make_key(w, &b, &(struct control_key_params){0}), all = {0}, late = {0};
	struct answer gone = {0}, d;

	control_key_each(w->control, &b, on_key, &all);
	is_int(all.n, 1, "a member sees the own key");
	all.n = 0;
	control_key_each(w->control, &w->actor, on_key, &all);
	ok(all.n > 1, "the owner sees all");
	d = WAIT(control_key_delete(w->control, &b, w->actor.key_id, on_done, &got, NULL, &err));
	is_int(d.kind, AV_ERR_FORBIDDEN, "a member deletes no other's key");
	ok(is_good(w, k.message, &who), "the key is good");
	/* Both in one turn: the second one begins when the first is true. */
	(void)control_member_remove(w->control, &w->actor, bob->user, on_done, &gone, NULL, NULL);
	(void)control_key_create(
	    w->control, &who, &(struct control_key_params){0}, on_key, &late, NULL, NULL);
	(void)run_until(w, &gone.done);
	(void)run_until(w, &late.done);
	is_int(gone.kind, 0, "the member is removed");
	is_int(late.kind, AV_ERR_UNAUTHORIZED, "and gets no key that was asked for meanwhile");
	ok(!is_good(w, k.message, NULL), "the ones that were made are gone");
}

static bool count(void *ctx, const struct control_user *u)
{
	struct answer *a = ctx;

	a->n += u->email[0] != '\0';
	return true;
}

static void test_search(struct world *w, size_t want, const char *prefix)
{
	struct answer found = {0};
	struct av_err err = {0};

	(void)control_users_search(w->control, av_str_c(prefix), count, &found, &err);
	ok(found.n == want && (err.kind == 0) == (strchr(prefix, '@') != NULL), "search for %s: %s",
	    prefix, err.message);
}

static void test_bounds(struct world *w)
{
	struct answer r = {0};
	size_t made = 0;

	for (int i = 0; i <= CONTROL_TEAMS_OWNED_MAX; i++) {
		r = WAIT(control_team_create(
		    w->control, &w->actor, AV_STR("more"), on_member, &got, NULL, &err));
		made += r.kind == 0;
	}
	is_int(made, CONTROL_TEAMS_OWNED_MAX - 1, "one user owns so many teams");
	ok(r.kind == AV_ERR_QUOTA, "and no more: %s", r.message);
}

/* With all that belongs to it. (A death just then: tests/integration/teams.py.) */
static void test_deleting(struct world *w, struct fake_machine *m, const struct person *ann)
{
	struct control_actor owner = w->actor, a = session(w, ann, ann->team);
	struct answer sb, key, d;

	key = make_key(w, &a, &(struct control_key_params){0});
	w->actor = a;
	sb = create(w, &plain);
	is_int(sb.kind, 0, "a sandbox of hers");
	w->actor = owner;
	d = WAIT(
	    control_admin_team_delete(w->control, &a, owner.team_id, on_done, &got, NULL, &err));
	is_int(d.kind, AV_ERR_FORBIDDEN, "she is no administrator of this Aviary");
	d = WAIT(control_team_delete(w->control, &a, on_done, &got, NULL, &err));
	is_int(d.kind, 0, "she deletes her team");
	ok(!is_good(w, key.message, NULL), "its key is gone");
	w->actor = a;
	is_int(ends(w, sb.id), SANDBOX_REASON_DELETED, "and the sandbox");
	world_close(w, false);
	world_open(w, m, NULL);
	ok(!is_good(w, key.message, NULL), "also after a death");
	w->actor = owner;
}

int main(void)
{
	struct person ann, bob, idle;
	struct fake_machine m;
	struct world w;
	char secret[64];

	if (!mkdtemp(dir) || av_path_printf(db, sizeof(db), "%s/aviary.db", dir) < 0)
		return 1;
	fake_machine_init(&m, "this-boot");
	world_open(&w, &m, NULL);
	(void)control_first_start(w.control, on_secret, on_first, &w);
	(void)run_until(&w, &w.stopped);
	(void)snprintf(secret, sizeof(secret), "%s", w.secret);
	add_person(&w, "ann", "active", &ann);
	add_person(&w, "bob", "active", &bob);
	add_person(&w, "idle", "inactive", &idle);
	world_close(&w, true);
	world_open(&w, &m, NULL);
	(void)control_key_verify(w.control, av_str_c(secret), &w.actor, NULL);
	test_members(&w, &ann, &bob);
	test_scopes(&w);
	test_ends(&w);
	test_rotation(&w, &ann);
	test_leaving(&w, &bob);
	test_search(&w, 1, "ann@");
	test_search(&w, 1, "BOB@exam");
	test_search(&w, 0, "idle@");
	test_search(&w, 0, "ann");
	test_bounds(&w);
	test_deleting(&w, &m, &ann);
	world_close(&w, true);
	fake_machine_clear(&m);
	(void)unlink(db);
	(void)rmdir(dir);
	return tap_done();
}
