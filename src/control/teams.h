/* SPDX-License-Identifier: Apache-2.0 */
/*
 * teams.h - changing teams and who is in them
 *
 * A team has exactly one owner, who cannot leave, be removed or be given another role; it goes with
 * its owner's account, or when the owner deletes it. Administrators of a team (and the owner) name
 * it, add and remove members and say who else is an administrator. Whoever leaves takes along the
 * keys they made. Deleting a team ends its sandboxes and forgets its members, keys and templates;
 * what a crash leaves of that is finished by the next start.
 *
 * Each change is about the team of the actor, except those of administrators of this Aviary. Roles
 * are looked at when the change takes its turn (accounts_internal.h), not when it is asked for.
 */
#pragma once

#include "control/accounts.h"

#define CONTROL_TEAM_NAME_MAX 128 /* of letters, digits, blanks and _-@' */
#define CONTROL_SEARCH_MAX    10

typedef void control_membership_fn(
    void *ctx, const struct control_member *m, const struct av_err *err);

/* A new team with the actor's user as its owner. INVALID (the name); QUOTA naming the bound. */
int control_team_create(struct control *c, const struct control_actor *a, struct av_str name,
    control_membership_fn *fn, void *ctx, struct node_call **ret, struct av_err *err);
int control_team_rename(struct control *c, const struct control_actor *a, struct av_str name,
    node_done_fn *fn, void *ctx, struct node_call **ret, struct av_err *err);
/* Answers when it and its keys are gone; its sandboxes are about to be. Owners only. */
int control_team_delete(struct control *c, const struct control_actor *a, node_done_fn *fn,
    void *ctx, struct node_call **ret, struct av_err *err);

/* NOT_FOUND: no active user has this address; INVALID: who is a member; QUOTA. */
int control_member_add(struct control *c, const struct control_actor *a, struct av_str email,
    control_membership_fn *fn, void *ctx, struct node_call **ret, struct av_err *err);
/* ADMIN or MEMBER. FORBIDDEN for the owner's. */
int control_member_set_role(struct control *c, const struct control_actor *a, const char *user_id,
    enum control_role role, node_done_fn *fn, void *ctx, struct node_call **ret,
    struct av_err *err);
int control_member_remove(struct control *c, const struct control_actor *a, const char *user_id,
    node_done_fn *fn, void *ctx, struct node_call **ret, struct av_err *err);
int control_team_leave(struct control *c, const struct control_actor *a, node_done_fn *fn,
    void *ctx, struct node_call **ret, struct av_err *err);

/* Active users whose address begins with prefix, which must have CONTROL_SEARCH_MIN characters and
 * an '@': so nobody pages through all addresses. At most CONTROL_SEARCH_MAX. Synchronous. */
#define CONTROL_SEARCH_MIN 3
int control_users_search(struct control *c, struct av_str prefix,
    bool (*fn)(void *ctx, const struct control_user *u), void *ctx, struct av_err *err);

/* ---- for administrators of this Aviary ---- */

struct control_team_summary {
	struct control_team team;
	const char *owner_name, *owner_email; /* "": none */
	size_t members, sandboxes;
};
/* Teams from the n-th on, oldest first, until fn returns false. */
void control_admin_teams(struct control *c, size_t from,
    bool (*fn)(void *ctx, const struct control_team_summary *t), void *ctx);
size_t control_team_count(const struct control *c);

/* Hosts of its own; there is no way back. */
int control_admin_team_byoc(struct control *c, const struct control_actor *a, const char *team_id,
    node_done_fn *fn, void *ctx, struct node_call **ret, struct av_err *err);
int control_admin_team_quota(struct control *c, const struct control_actor *a, const char *team_id,
    const struct control_quota_update *quota, node_done_fn *fn, void *ctx, struct node_call **ret,
    struct av_err *err);
/* Any team, also the one that the administrator asks from. */
int control_admin_team_delete(struct control *c, const struct control_actor *a, const char *team_id,
    node_done_fn *fn, void *ctx, struct node_call **ret, struct av_err *err);
