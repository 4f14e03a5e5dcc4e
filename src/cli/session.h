/* SPDX-License-Identifier: Apache-2.0 */
/*
 * session.h - a person (or pipe) on this side, a process in a sandbox on the other
 */
#pragma once

#include "cli/args.h"
#include "cli/cli.h"
#include "client/exec.h"

struct session_options {
	bool reads_stdin;      /* pass standard input on */
	bool has_tty;          /* the process has a PTY: raw terminal here, window size followed */
	bool forwards_signals; /* INT, TERM, HUP, QUIT, USR1, USR2 go to the process group; else
	                          they end the session and leave the process alone */
	const char *sandbox;   /* its id, for messages; borrowed */
};

/* Window size of the terminal here, 80x24 without one. */
void session_window(uint16_t *ret_cols, uint16_t *ret_rows);

/* Events and context to start or attach the exec with; the session takes the exec. */
struct session;
struct session *session_new(const struct session_options *options); /* NULL: out of memory */
extern const struct av_exec_events session_events;
/* Moves bytes until the process ended or the stream broke, and frees the exec. Returns the exit
 * status to end with: the process's own, 124 after its time-out, 128 + n for a signal, 126 and 127
 * when it could not be started, 125 when Aviary failed. Messages have been printed. */
int session_run(struct session *s, struct cli *cli, struct av_exec *exec);
/* After session_run: the process ended (else the session did). */
bool session_has_end(const struct session *s);
void session_free(struct session *s);

/* Exit status and message for a process that could not be started. */
int session_start_error(struct cli *cli, const struct av_err *err);

/* Starts *eo in the sandbox and runs the session to its end; returns the exit status to end with.
 * What OPTIONS_EXEC of args say, and the window's size, is filled in here. typed_id: what the user
 * typed as the sandbox, for messages about it, or NULL. */
int session_exec(struct cli *cli, const struct args *args, const char *sandbox,
    struct av_exec_options *eo, const char *typed_id);
