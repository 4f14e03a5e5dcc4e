/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sandbox.h - sandboxes: what they are made of, their life, what is known of them
 *
 * aviary_sandbox_new() makes a handle and talks to nobody; the first operation that needs it
 * running starts it and waits until it runs, however many ask at once. aviary_sandbox_run() is
 * both. Operations that are started while another one brings the sandbox up wait for that one.
 *
 * A function that returns an operation does not block, copies what it is given and never returns
 * NULL. Its twin ..._sync waits until the operation is done, and returns what it would give: a
 * code, or the result (NULL: it failed). *error (may be NULL) then says why; its strings hold until
 * the next wait of this thread. Handles may be used as their client may (see aviary/client.h).
 */
#ifndef AVIARY_SANDBOX_H
#define AVIARY_SANDBOX_H

#include <aviary/client.h>
#include <aviary/models.h>
#include <aviary/op.h>
#include <aviary/resources.h>

AVIARY_BEGIN_DECLS

typedef struct aviary_sandbox aviary_sandbox;

/* A file that is there before the first program runs. */
typedef struct aviary_mounted_file {
	const char *path; /* absolute; directories above it are made */
	const void *data;
	size_t size;
	unsigned mode; /* 0: 0644 */
} aviary_mounted_file;

/* In a number of a spec: what the server does by itself, although the defaults say otherwise. */
#define AVIARY_SERVER_DEFAULT (-2)

/* What a sandbox is made of, and what the defaults of a session are. A member that is zero is not
 * said; "" in a text, and AVIARY_SERVER_DEFAULT in a number, leave it to the server where the
 * defaults say something. -1 in a time is without end. A value that cannot be makes the start fail
 * with AVIARY_E_INVALID, whose message names the member, before anything is sent.
 *
 * Behind each member: what aviary_spec_merge() makes of two. */
typedef struct aviary_sandbox_spec {
	size_t struct_size;
	const char *template_name; /* default: the server's, "minimal"; over's if said */
	/* The main program and its arguments; none: nothing runs by itself. over's if said, whole:
	 * arguments of the defaults are not added to another program. */
	aviary_strings command;
	const char *workdir, *user;           /* of the main program; over's if said */
	double cpus;                          /* over's if said */
	int64_t memory_mb, disk_mb, pids_max; /* each over's if said */
	int64_t idle_timeout_ms;              /* without use; then on_timeout; over's if said */
	const char *on_timeout;               /* "pause" or "delete"; over's if said */
	/* Of the main command: "stop" (default) or "keep" the sandbox; over's if said. */
	const char *on_exit;
	/* The last net: the server ends it then, whatever becomes of us. over's if said. */
	int64_t max_lifetime_ms;
	int auto_resume, internet, no_sudo; /* 1 yes, -1 no; each over's if said */
	/* Both: of one name over's; a value of NULL takes the name away. */
	aviary_pairs envs, metadata;
	aviary_strings tags;              /* both, the base's first, each once */
	aviary_ports public_ports;        /* over's if said, also if none */
	const aviary_mounted_file *files; /* both: of one path over's */
	size_t n_files;
	/* Default: one made up, so that a create is repeated safely. over's, never the base's: with
	 * one key for all there would be one sandbox for all. */
	const char *idempotency_key;
	int64_t start_timeout_ms; /* until it runs; default 5 min; over's if said */
	/* "jail" (the host's kernel) or "vm" (one of its own); default: the template's, else the
	 * server's; over's if said. */
	const char *isolation;
} aviary_sandbox_spec;

#define AVIARY_SANDBOX_SPEC_INIT AVIARY_INITIAL(aviary_sandbox_spec)

/* base with what over says on top, by the rules above; either may be NULL. A copy of its own, freed
 * by aviary_spec_free. NULL: no memory, or a list of more than 65,536 entries. Any thread. */
AVIARY_API aviary_sandbox_spec *aviary_spec_merge(
    const aviary_sandbox_spec *base, const aviary_sandbox_spec *over);
/* One that aviary_spec_merge made. NULL is fine. */
AVIARY_API void aviary_spec_free(aviary_sandbox_spec *spec);

/* ---- handles ---- */

/* A handle for a sandbox that is not there yet; spec (may be NULL) is copied. NULL without memory.
 */
AVIARY_API aviary_sandbox *aviary_sandbox_new(aviary_client *c, const aviary_sandbox_spec *spec);
/* A handle for one that is there, as far as anybody knows. NULL: no memory, or id is no id. */
AVIARY_API aviary_sandbox *aviary_sandbox_attach(aviary_client *c, const char *id);
/* The same for one that runs, as far as anybody knows: the server is not asked how it is before it
 * is used, and what is done with one that does not run fails with AVIARY_E_SANDBOX_NOT_RUNNING. */
AVIARY_API aviary_sandbox *aviary_sandbox_attach_running(aviary_client *c, const char *id);
/* One more, or one less, that holds the handle. The sandbox itself lives on, except one whose
 * create was cancelled before the answer came: that is deleted. NULL is fine. */
AVIARY_API aviary_sandbox *aviary_sandbox_ref(aviary_sandbox *sb);
AVIARY_API void aviary_sandbox_free(aviary_sandbox *sb);

/* ---- making and finding ---- */

/* Creates it; done when it is there and runs. Asked twice, also at once: one sandbox. After a
 * failure it may be asked again. */
AVIARY_API aviary_op *aviary_sandbox_start(aviary_sandbox *sb);
AVIARY_API int aviary_sandbox_start_sync(aviary_sandbox *sb, aviary_error *error);
/* aviary_sandbox_new and _start; result: the sandbox. */
AVIARY_API aviary_op *aviary_sandbox_run(aviary_client *c, const aviary_sandbox_spec *spec);
AVIARY_API aviary_sandbox *aviary_sandbox_run_sync(
    aviary_client *c, const aviary_sandbox_spec *spec, aviary_error *error);
/* Result: the sandbox, known to exist; also one that is over, as long as the server knows it. */
AVIARY_API aviary_op *aviary_sandbox_from_id(aviary_client *c, const char *id);
AVIARY_API aviary_sandbox *aviary_sandbox_from_id_sync(
    aviary_client *c, const char *id, aviary_error *error);
/* Result of run and from_id. The taker frees it. NULL when there is none (left). */
AVIARY_API aviary_sandbox *aviary_op_take_sandbox(aviary_op *op);
/* Waits without end; the result, or NULL and *error. Frees op. */
AVIARY_API aviary_sandbox *aviary_await_sandbox(aviary_op *op, aviary_error *error);

typedef struct aviary_list_options {
	size_t struct_size;
	aviary_strings tags;   /* those that have all of them */
	aviary_pairs metadata; /* likewise */
	const char *status;    /* "running,paused"; "all"; NULL: those that live */
	size_t limit;          /* no more than that many; 0: 100,000 */
} aviary_list_options;
#define AVIARY_LIST_OPTIONS_INIT AVIARY_INITIAL(aviary_list_options)
/* A list of handles, newest sandbox first. Whoever wants to keep one takes a reference. */
typedef struct aviary_sandbox_handles {
	size_t n;
	aviary_sandbox **items;
} aviary_sandbox_handles;
/* The team's sandboxes; options may be NULL. Asks for as many pages as it takes. */
AVIARY_API aviary_op *aviary_sandbox_list(aviary_client *c, const aviary_list_options *options);
AVIARY_API aviary_sandbox_handles *aviary_sandbox_list_sync(
    aviary_client *c, const aviary_list_options *options, aviary_error *error);
/* Result of a list; freed by aviary_sandbox_handles_free. NULL when there is none (left). */
AVIARY_API aviary_sandbox_handles *aviary_op_take_sandbox_handles(aviary_op *op);
/* With one reference to each handle. NULL is fine. */
AVIARY_API void aviary_sandbox_handles_free(aviary_sandbox_handles *list);

/* ---- life ---- */

/* Until it runs, or is paused, or its main command is over; starts it. SANDBOX_FAILED, _TERMINATED
 * or, after timeout_ms (-1: never), _TIMEOUT of the group sandbox; it goes on being started then.
 */
AVIARY_API aviary_op *aviary_sandbox_wait_running(aviary_sandbox *sb, int64_t timeout_ms);
AVIARY_API int aviary_sandbox_wait_running_sync(
    aviary_sandbox *sb, int64_t timeout_ms, aviary_error *error);

#define AVIARY_WAIT_ANY_END 1u /* a sandbox that somebody ended is no failure */
/* Until its main command is over: then aviary_sandbox_exit_code knows. Without a main command, and
 * when the sandbox is ended first: AVIARY_E_SANDBOX_TERMINATED, or success with
 * AVIARY_WAIT_ANY_END. Starts it. However many wait, the server is asked by one, every 0.2 to 2 s.
 */
AVIARY_API aviary_op *aviary_sandbox_wait_complete(
    aviary_sandbox *sb, int64_t timeout_ms, unsigned flags);
AVIARY_API int aviary_sandbox_wait_complete_sync(
    aviary_sandbox *sb, int64_t timeout_ms, unsigned flags, aviary_error *error);

typedef struct aviary_stop_options {
	size_t struct_size;
	/* Between SIGTERM to the main command and the end; default 10 s; -1: none. Without a main
	 * command it ends at once. */
	int64_t grace_ms;
	int missing_ok;       /* one that is gone already is success */
	const char *snapshot; /* name of a snapshot to be taken before */
} aviary_stop_options;
#define AVIARY_STOP_OPTIONS_INIT AVIARY_INITIAL(aviary_stop_options)
/* Ends it. options may be NULL. Never started: it is only marked, and nobody is asked. While it is
 * being started: waits for that. Asked again, also at once: one stop, whose end all get; one that
 * wants a snapshot and finds a stop without it under way is AVIARY_E_CONFLICT. A stop that failed
 * may be asked for again. Afterwards whatever needs the sandbox is AVIARY_E_SANDBOX_TERMINATED. */
AVIARY_API aviary_op *aviary_sandbox_stop(aviary_sandbox *sb, const aviary_stop_options *options);
AVIARY_API int aviary_sandbox_stop_sync(
    aviary_sandbox *sb, const aviary_stop_options *options, aviary_error *error);
/* Ends one by its id, without grace. */
AVIARY_API aviary_op *aviary_sandbox_delete(aviary_client *c, const char *id, int missing_ok);
AVIARY_API int aviary_sandbox_delete_sync(
    aviary_client *c, const char *id, int missing_ok, aviary_error *error);
AVIARY_API aviary_op *aviary_sandbox_pause(aviary_sandbox *sb);
AVIARY_API int aviary_sandbox_pause_sync(aviary_sandbox *sb, aviary_error *error);
AVIARY_API aviary_op *aviary_sandbox_resume(aviary_sandbox *sb);
AVIARY_API int aviary_sandbox_resume_sync(aviary_sandbox *sb, aviary_error *error);
/* Begins its inactivity timeout anew. */
AVIARY_API aviary_op *aviary_sandbox_ping(aviary_sandbox *sb);
AVIARY_API int aviary_sandbox_ping_sync(aviary_sandbox *sb, aviary_error *error);
/* Changes the time-outs, tags, metadata (a value of NULL takes the name away) and public ports that
 * spec says. It may say nothing else. */
AVIARY_API aviary_op *aviary_sandbox_update(aviary_sandbox *sb, const aviary_sandbox_spec *spec);
AVIARY_API int aviary_sandbox_update_sync(
    aviary_sandbox *sb, const aviary_sandbox_spec *spec, aviary_error *error);
/* Asks the server anew; then the functions below know. */
AVIARY_API aviary_op *aviary_sandbox_refresh(aviary_sandbox *sb);
AVIARY_API int aviary_sandbox_refresh_sync(aviary_sandbox *sb, aviary_error *error);

/* Makes a template of its disk, from which others are made (template_name of their spec):
 * aviary_snapshots_create with its id. It is paused then (aviary_sandbox_resume), or ended where
 * options say stop. Result: aviary_template (aviary_op_take_template). */
AVIARY_API aviary_op *aviary_sandbox_snapshot(
    aviary_sandbox *sb, const aviary_snapshots_create_options *options);
AVIARY_API aviary_template *aviary_sandbox_snapshot_sync(
    aviary_sandbox *sb, const aviary_snapshots_create_options *options, aviary_error *error);

/* ---- what is known, without asking ---- */

/* All that the last answer said of it: times, reason, resources as applied, tags, metadata, public
 * ports. A copy, freed by aviary_sandbox_info_free. NULL: no answer yet, or no memory. */
AVIARY_API aviary_sandbox_info *aviary_sandbox_describe(const aviary_sandbox *sb);

/* "" before it is started; lives with the handle. */
AVIARY_API const char *aviary_sandbox_id(const aviary_sandbox *sb);
AVIARY_API enum aviary_status aviary_sandbox_status(const aviary_sandbox *sb);
/* 1 and *ret: the main command has ended with it (128 + n for a signal); 0: it has not, or there is
 * none, or nobody knows: 0 is never said for what is not known. */
AVIARY_API int aviary_sandbox_exit_code(const aviary_sandbox *sb, int *ret);

AVIARY_END_DECLS
#endif
