/* SPDX-License-Identifier: Apache-2.0 */
/*
 * templates.h - names for what sandboxes are made from, and snapshots that become one
 *
 * Built in are `host` (this machine's own programs) and `empty` (nothing, for building). All others
 * are made from the disk of a sandbox. A team sees its own and those of the platform.
 *
 * Names that SDKs ask for by default (minimal, base, code-interpreter, code-runner-beta,
 * code-interpreter-v1, python-interpreter-v0-beta) are answered by the nearest template that was
 * built, in the end by `host`; sandbox_info.template_note says so.
 */
#pragma once

#include "control/sandbox.h"

#define TEMPLATES_MAX 1000 /* of all teams */

/* A template as its team may see it; valid until the callback returns. */
struct template_info {
	const char *id; /* "host" or an id */
	const char *name;
	const char *kind; /* "base", "snapshot" */
	bool platform;
	const char *parent; /* what it stands on: "host", "empty", an id; empty for built-in ones */
	const char *isolation; /* of sandboxes that ask for none */
	bool saved;            /* it holds the memory and the processes of a machine */
	int64_t size_bytes;    /* of its own layer */
	int64_t depth;         /* layers above the bottom */
	int64_t cpu_milli, memory_bytes, disk_bytes; /* 0: no default of its own */
	const char *default_user, *workdir, *envs_json, *start_command;
	bool kernel_warm;
	int64_t created_ms; /* 0: built in */
	size_t in_use;      /* living sandboxes made from it */
};
typedef void template_fn(void *ctx, const struct template_info *t, const struct av_err *err);

/* Everything is borrowed for the call; NULL and 0: none, or what the sandbox has. */
struct snapshot_params {
	const char *name;      /* NULL: "template-" and eight random hexadecimal digits */
	bool overwrite;        /* an own template of that name is replaced; else CONFLICT */
	bool stop;             /* kill the sandbox first, and delete it afterwards */
	bool keep_running;     /* the sandbox goes on afterwards, a machine meanwhile too */
	const char *isolation; /* of sandboxes that ask for none; NULL: the default */
	bool is_base;          /* kind "base" */
	bool platform;         /* for every team; administrators only */
	int64_t cpu_milli, memory_bytes, disk_bytes;
	const char *default_user, *workdir, *start_command;
	const json_t *envs; /* object of strings */
	bool kernel_warm;
};
/* The disk of a running or paused sandbox becomes a template, of a virtual machine with memory and
 * processes; the sandbox is paused afterwards (with stop: gone). Answers when it can be used.
 * INVALID, CONFLICT (the name), INVALID_STATE, UNSUPPORTED (nothing can be paused here: stop it),
 * NO_SPACE. */
int control_snapshot(struct control *c, const struct control_actor *a, const char *sandbox_id,
    const struct snapshot_params *p, template_fn *fn, void *ctx, struct node_call **ret,
    struct av_err *err);

/* Calls fn for each that the team sees, newest first, built-in ones last. kind NULL: all; a kind
 * that is none: nothing. Synchronous. */
void control_template_each(
    struct control *c, const struct control_actor *a, const char *kind, template_fn *fn, void *ctx);
/* Calls fn once, for what a create of this name gets. NOT_FOUND. Synchronous. */
void control_template_get(
    struct control *c, const struct control_actor *a, const char *name, template_fn *fn, void *ctx);
/* It loses its name at once; sandboxes made from it live on, and its files go with the last of
 * them. FORBIDDEN for what is built in or another team's; NOT_FOUND. */
int control_template_delete(struct control *c, const struct control_actor *a, const char *name,
    node_done_fn *fn, void *ctx, struct node_call **ret, struct av_err *err);
/* The same for those that every team sees, whoever made them; for administrators of this Aviary. */
int control_admin_template_delete(struct control *c, const struct control_actor *a,
    const char *name, node_done_fn *fn, void *ctx, struct node_call **ret, struct av_err *err);
