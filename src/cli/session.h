/* SPDX-License-Identifier: Apache-2.0 */
/*
 * session.h - a person (or pipe) on this side, a process in a sandbox on the other
 */
#pragma once

#include "cli/args.h"
#include "cli/cli.h"

struct session_options {
	bool reads_stdin;      /* pass standard input on */
	bool has_tty;          /* the process has a PTY: raw terminal here, window size followed */
	bool forwards_signals; /* INT, TERM, HUP, QUIT, USR1, USR2 go to the process group, and we
	                          end as the process did; else they end the session and leave the
	                          process alone, and its end is ours */
	bool collects;         /* output is kept, and shown at the end with how it ended, as JSON */
	const char *sandbox;   /* its id, for messages; borrowed */
	const char *typed;     /* what the user typed for it; NULL: nothing; borrowed */
};

/* Moves bytes until the process ended or its stream broke, and frees it. Returns the exit status to
 * end with: the process's own, 124 after its time-out, 128 + n for a signal, 126 and 127 when it
 * could not be started, 125 when Aviary failed. Messages have been printed. process NULL: there was
 * no memory. */
int session_run(struct cli *cli, aviary_process *process, const struct session_options *options);

struct session_command {
	char *const *argv; /* borrowed */
	size_t argc;
	const json_t *envs; /* of options_envs; NULL: none; borrowed */
	const char *tag;    /* NULL: none */
};
/* Starts the command in the sandbox, as OPTIONS_EXEC of args say, and runs the session to its end.
 */
int session_exec(struct cli *cli, const struct args *args, const char *sandbox, const char *typed,
    const struct session_command *command);
