/* SPDX-License-Identifier: Apache-2.0 */
/*
 * templates_internal.h - only for src/control/(*.c): templates in memory
 */
#pragma once

#include "control/control_internal.h"
#include "control/templates.h"

#define TEMPLATE_CREATING "creating"
#define TEMPLATE_READY    "ready"
#define TEMPLATE_DELETED  "deleted"

struct template
{
	struct store_template rec; /* state as on disk, or as the next start would read it */
	struct av_list link;       /* c->templates, oldest first */
	bool removing;             /* the worker or the store is at it */
	int64_t retry_ns;          /* boot time of the next try to remove it; 0: none */
};

/* ---- templates.c ---- */

/* In the list, all fields zero. NULL: no memory. */
struct template *template_new(struct control *c);
void template_drop(struct template *t);
bool template_is_ready(const struct template *t);
void template_set_state(struct template *t, const char *state);
struct template *template_by_id(const struct control *c, const char *id);
/* A ready one: the team's own, else the platform's. */
struct template *template_by_name(const struct control *c, const char *team_id, const char *name);
/* host, empty, minimal. */
/* Whether a template could have this name: INVALID, saying what is allowed. */
int template_name_check(const char *name, struct av_err *err);
bool template_name_reserved(const char *name);
void template_describe(
    const struct control *c, const struct template *t, struct template_info *ret);

/* What a create of this name (NULL: minimal) gets: *ret NULL for a built-in one, *ret_id for the
 * driver. NOT_FOUND. */
int template_resolve(const struct control *c, const char *team_id, const char *name,
    const struct template **ret, const char **ret_id, struct av_err *err);
/* When another template answers for the name that was asked for; else NULL. t may be NULL. */
const char *template_note(const struct store_sandbox *rec, const struct template *t);

/* Environment that it gives its sandboxes: a new object, NULL for no memory. */
json_t *template_envs(const struct control *c, const char *id);
/* User and working directory; borrowed from the template. */
void template_agent_defaults(
    const struct control *c, const struct store_sandbox *rec, struct node_agent_config *ret);
void template_take_seal(
    const struct control *c, const struct store_sandbox *rec, struct driver_spec *ret);

/* Isolation of a create of it that asks for none. */
const char *template_isolation(const struct control *c, const struct template *t);

/* Removes what has lost its name and is used by nobody. */
void templates_collect(struct control *c);
/* The next tick shall look: something that uses templates is gone. */
void templates_unused(struct control *c);
/* When something is to be tried again. */
int64_t templates_next_ns(const struct control *c);
int templates_load(struct control *c, const struct store_template *v, size_t n);
/* The driver is ready: removes what has no record. */
void templates_start(struct control *c);
void templates_clear(struct control *c);

/* ---- snapshots.c ---- */

/* The shape of the machine whose memory was taken, if it was; and how long it stood still is
 * counted. */
void snapshot_take_shape(
    struct control *c, struct store_template *rec, const struct driver_snapshot *snap);

/* ---- start_command.c ---- */

#define CONTROL_START_COMMAND_TAG "start-command"
/* Starts what the template of a sandbox that was just made wants to run in it, if anything. */
void start_command_run(struct control *c, const struct store_sandbox *rec);
