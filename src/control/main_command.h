/* SPDX-License-Identifier: Apache-2.0 */
/*
 * main_command.h - only for src/control/(*.c): main commands, what is set up before them, and stops
 */
#pragma once

#include "control/control_internal.h"
#include "node/main_log.h"

#define MAIN_STARTING "starting"
#define MAIN_RUNNING  "running"
#define MAIN_EXITED   "exited"
#define MAIN_KILLED   "killed"
#define MAIN_USER_MAX 64
/* Memory for logs that are being fetched, and for saved ones that are being read. */
#define MAIN_LOGS_BYTES_MAX ((size_t)64 * 1024 * 1024)
/* Of those that are being read: of one team, if it is more than one log. */
#define MAIN_LOGS_TEAM_BYTES_MAX (MAIN_LOGS_BYTES_MAX / 4)

/* ---- main_command.c ---- */

/* What the store keeps of the command; *ret stays NULL without one. INVALID, TOO_LARGE. */
int main_take(const struct sandbox_params *p, char **ret, struct av_err *err);
/* main_json may be NULL: there is none. */
void main_describe(
    const struct store_sandbox *rec, const json_t *main_json, struct sandbox_main_info *ret);
void main_set_state(struct store_main *m, const char *state);
bool main_has_exited(const struct sandbox *sb);
bool main_is_running(const struct sandbox *sb);
/* "its main command ended with exit status 3", or NULL. */
const char *main_how_it_ended(const struct sandbox *sb, char *dst, size_t size);
/* Queues what sb->rec.main says for the disk. */
void main_write(struct sandbox *sb);
/* Waits for its end from now on, if it runs. */
void main_watch(struct sandbox *sb);
/* Goes on with what an earlier daemon left: the watch, a stop, or the end. */
void main_resume(struct sandbox *sb);
/* The exit record says how it ended. */
void main_died(struct control *c, const char *id, uint32_t exit_code, uint32_t signal, int64_t ms);
/* Fetches the log and queues it for the disk. False: there is nothing to do; else done comes, not
 * from inside the call, also when it failed. */
typedef void main_saved_fn(struct sandbox *sb);
bool main_save(struct sandbox *sb, main_saved_fn *done);
/* The record is about to become final. */
void main_before_final(struct sandbox *sb);
void main_wake(struct control *c, int64_t boot_ns);
void main_tick(struct control *c, int64_t now);
/* Before sb goes. */
void main_drop(struct sandbox *sb);
/* For answers that change nothing. */
void main_ignore(void *ctx, const struct av_err *err);

/* ---- setup.c: files and the start of the main command, before a create is answered ---- */

/* Copies the files. NULL in *ret: there is nothing to set up. INVALID, TOO_LARGE. */
int setup_new(
    struct creation *cr, const struct sandbox_params *p, struct setup **ret, struct av_err *err);
void setup_free(struct setup *s);
/* The sandbox is there; creation_set_up() comes, perhaps from inside the call. */
void setup_begin(struct creation *cr);
/* Returns when to be called again. */
int64_t setup_tick(struct control *c, int64_t now);

/* ---- create.c ---- */

void creation_set_up(struct creation *cr, const struct av_err *err);

/* ---- stop.c ---- */

/* The main command has ended while a stop waited for it: that goes on. */
bool stop_main_ended(struct sandbox *sb);
/* Goes on with a stop that an earlier daemon began. */
void stop_resume(struct sandbox *sb);
int64_t stop_tick(struct sandbox *sb, int64_t now);
void stop_drop(struct sandbox *sb);
/* Whoever waits hears that the daemon goes. */
void stop_shutdown(struct control *c);

/* ---- snapshots.c ---- */

/* Whether a snapshot of that name could be made now, with the sandbox stopped for it. */
int snapshot_check(
    struct sandbox *sb, const struct control_actor *a, const char *name, struct av_err *err);
