/* SPDX-License-Identifier: Apache-2.0 */
/*
 * accounts.h - users, teams and who belongs to which, as the store keeps them
 *
 * Rules of store.h. Whoever keeps accounts reads all of them once, at the start, and makes one
 * change after the other: the store checks no more than that ids, e-mail addresses and identities
 * of other services are unique.
 */
#pragma once

#include "store/store.h"

#define STORE_EMAIL_SIZE    256
#define STORE_PASSWORD_SIZE 128

struct store_user {
	char id[AV_ID_SIZE];
	char name[STORE_NAME_SIZE];
	char email[STORE_EMAIL_SIZE];       /* lower case; empty: none */
	char password[STORE_PASSWORD_SIZE]; /* hash, see 006.sql; empty: none */
	char status[12];                    /* "inactive", "active", "disabled", "deleted" */
	char github_id[24];                 /* empty: none */
	bool is_admin;                      /* of this Aviary */
	int64_t epoch;
	int64_t created_ms, updated_ms, deleted_ms;
};

struct store_team {
	char id[AV_ID_SIZE];
	char name[STORE_NAME_SIZE];
	char slug[16];
	bool is_byoc;
	struct store_quota quota;
	int64_t created_ms, deleted_ms; /* deleted_ms 0: it exists */
};

struct store_member {
	char team_id[AV_ID_SIZE];
	char user_id[AV_ID_SIZE];
	char role[8]; /* "owner", "admin", "member" */
	bool is_default;
	int64_t joined_ms;
};

/* Oldest first; deleted ones are left out. */
typedef void store_users_fn(
    void *ctx, const struct store_user *v, size_t n, const struct av_err *err);
int store_user_list(struct store *s, store_users_fn *fn, void *ctx);
typedef void store_teams_fn(
    void *ctx, const struct store_team *v, size_t n, const struct av_err *err);
int store_team_list(struct store *s, store_teams_fn *fn, void *ctx);
typedef void store_members_fn(
    void *ctx, const struct store_member *v, size_t n, const struct av_err *err);
int store_member_list(struct store *s, store_members_fn *fn, void *ctx);

#define STORE_DISSOLVED_MAX 16

/* What becomes true at once; every part without an id stays as it is. */
struct store_account_change {
	struct store_user user;     /* made, or written over */
	struct store_team team;     /* likewise */
	struct store_member member; /* likewise */
	struct store_member former; /* belongs to the team no more; its keys of that team go */
	struct store_key keys[2];   /* each made, or name, end and quota of it written over */
	char gone_key[AV_ID_SIZE];  /* this key is no more */
	bool leave_all;             /* user belongs to no team any more, and all its keys go */
	size_t n_dissolved;         /* teams that are deleted at at_ms with members and keys */
	char dissolved[STORE_DISSOLVED_MAX][AV_ID_SIZE];
	int64_t at_ms;
};
int store_account_change(
    struct store *s, const struct store_account_change *ch, store_done_fn *fn, void *ctx);

/* Users that were deleted before deleted_before_ms, and teams nobody belongs to that were, are
 * forgotten, at most `max` of each. */
int store_account_prune(
    struct store *s, int64_t deleted_before_ms, size_t max, store_done_fn *fn, void *ctx);

struct store_first {
	struct store_user user;
	struct store_team team;
	struct store_member member;
	struct store_key key;
};
/* First administrator, team and key, and the setting "first_start", in one change. CONFLICT when
 * there is a user already. */
int store_first_start(
    struct store *s, const struct store_first *first, store_done_fn *fn, void *ctx);
