/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hosts_internal.h - only for src/control/(*.c): hosts in memory, and their changes taking turns
 *
 * A change is a struct host_op: when it is first in the queue its `begin` looks at the hosts as
 * they are, and refuses, or fills op->rec with what is to be written; that is then taken over into
 * memory and the op answered. What comes and goes by itself (status, last heartbeat) is changed in
 * memory at once and written afterwards.
 */
#pragma once

#include "control/accounts_internal.h"
#include "control/hosts.h"
#include "store/hosts.h"

struct host {
	struct store_host rec;
	struct av_list link; /* c->hosts->list, oldest first */
	int64_t heard_ns;    /* boot time */
	bool dirty;          /* heartbeat_ms is newer than on disk */
};

struct hosts {
	struct av_list list, queue;
	struct host_op *under_way;
	size_t n;
	struct host *local; /* NULL before the start is over */
	char address[72];   /* of the local one; empty: not known yet */
	bool local_up;
	int64_t next_ns; /* to look who is silent; INT64_MAX: before the start */
};

struct host_op;
typedef int host_begin_fn(struct host_op *op, struct av_err *err);

struct host_op {
	struct node_call call; /* first */
	struct av_list link;
	struct control *c;
	host_begin_fn *begin;
	control_host_fn *fn; /* NULL: nobody waits */
	void *ctx;
	struct control_actor actor;
	bool cancelled;
	/* what is asked for: */
	char id[AV_ID_SIZE], team_id[AV_ID_SIZE], type[8], tag[HOST_TAG_MAX + 1];
	char provider[STORE_HOST_TEXT_SIZE], zone[STORE_HOST_TEXT_SIZE];
	char address[72], arch[16];
	int64_t cpu_cores, memory_mb, disk_gb;
	bool flag;                                              /* delete: force; tag: add */
	uint8_t hash[STORE_HASH_SIZE], family[STORE_HASH_SIZE]; /* of the token that was shown */
	char family_hex[33];
	/* what comes of it: */
	struct store_host rec; /* id empty: nothing is written */
	bool remove, sets_status;
	struct av_err refusal; /* although something is written */
	char registration[HOST_SECRET_SIZE], refresh[HOST_SECRET_SIZE];
};

/* ---- hosts.c ---- */

int hosts_init(struct control *c);
void hosts_clear(struct control *c);
int hosts_load(struct control *c, const struct store_host *v, size_t n);
/* The start is over: the local one is there. */
void hosts_start(struct control *c);
void hosts_tick(struct control *c, int64_t now_ns);
/* Begins the next change when none is under way. */
void hosts_work(struct control *c);
/* Heartbeats that are only in memory. */
void hosts_flush(struct control *c);
/* A team is no more. */
void hosts_drop_team(struct control *c, const char *team_id);

struct host *host_find(const struct control *c, const char *id);
void host_describe(const struct control *c, const struct host *h, struct control_host *ret);
/* Whether an actor sees, or may change, a host. */
bool host_is_seen(const struct host *h, const struct control_actor *a);
int host_check_change(const struct control *c, const struct host *h, const struct control_actor *a,
    struct av_err *err);
/* Tells and writes that it changed by itself. */
void host_set_status(struct control *c, struct host *h, const char *status);
void host_heard(struct control *c, struct host *h);

struct host_op *host_op_new(
    struct control *c, host_begin_fn *begin, control_host_fn *fn, void *ctx);
void host_op_free(struct host_op *op);
/* Takes over op. ret may be NULL. */
void host_op_submit(struct host_op *op, struct node_call **ret);

/* ---- host_tokens.c ---- */

/* Appends the token of a host. -ENOMEM. */
int host_token_issue(const struct control *c, const struct host *h, struct av_buf *out);
