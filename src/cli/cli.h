/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cli.h - what every command needs: the connection, messages, sandboxes by abbreviation
 */
#pragma once

#include <aviary/aviary.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>

#include "base/err.h"
#include "base/ids.h"
#include "base/macros.h"

/* Exit statuses, as timeout(1), env(1) and the shell have them. */
enum {
	EXIT_USAGE = 2,
	EXIT_TIMEOUT = 124,
	EXIT_PLATFORM = 125, /* Aviary failed, not the program inside */
	EXIT_NOT_EXECUTABLE = 126,
	EXIT_NOT_FOUND = 127,
	EXIT_SIGNAL = 128, /* + number of the signal */
};

struct args;

struct cli {
	const struct args *args;
	bool json;  /* --json */
	bool quiet; /* --quiet */
	bool out_is_tty;
	bool err_is_tty;
	bool color;            /* on stdout */
	aviary_client *client; /* owned; NULL until cli_connect() */
	const char *url;       /* of the daemon, borrowed from the client; NULL until then */
	aviary_op *answer;     /* owned; the last request that was answered well */
	const char *waiting;   /* what people read while an answer takes its time; NULL: as usual */
	/* Called once a second while an answer takes its time and people look on; looked is then
	 * shown instead of waiting, if it is not empty. A signal is then heard although they are
	 * held: what takes minutes can be given up. NULL: nobody looks. */
	void (*look)(struct cli *cli);
	char looked[160];
	bool has_own_progress; /* the command shows by itself what goes on */
	bool is_unreachable;   /* nobody answered the last request */
};

/* Reads options, environment and credentials.json; no request is made. On failure says why and
 * returns the exit status to end with, else 0. */
int cli_connect(struct cli *cli);
void cli_clear(struct cli *cli);

/* "aviary: message" on stderr. */
void cli_warn(const char *fmt, ...) AV_PRINTF(1, 2);
/* As cli_warn, returning EXIT_USAGE and pointing to the command's help. */
int cli_usage_error(const struct cli *cli, const char *fmt, ...) AV_PRINTF(2, 3);
/* Says what went wrong and returns the exit status for it. A daemon that is not there gets one line
 * that tells how to start it. what may be NULL. */
int cli_fail(const struct cli *cli, const struct av_err *err, const char *what);
/* What the library says went wrong, as *err; returns its -errno. */
int cli_error(struct cli *cli, const aviary_error *error, struct av_err *err);

/* Waits until op is done; says what for on a terminal when that takes more than a second, and
 * cancels it at a signal (cli_catch_signals). op stays the caller's. */
int cli_wait(struct cli *cli, aviary_op *op, struct av_err *err);

/* The same for a transfer (aviary/files.h), whose bytes are shown. what: its name, for people. op
 * is freed. err may be NULL. */
int cli_transfer(struct cli *cli, aviary_op *op, const char *what, struct av_err *err);

struct cli_request {
	const char *method;
	const char *path;   /* "/v1/…", already percent-encoded */
	const json_t *body; /* NULL: none; borrowed */
	int64_t timeout_ms; /* 0: 60 s; -1: none */
	bool is_anonymous;  /* without the key, which need not be there then */
};
/* *ret_reply: the body of a 2xx answer (new reference), NULL for an empty one; ret_reply may be
 * NULL. */
int cli_request(
    struct cli *cli, const struct cli_request *request, json_t **ret_reply, struct av_err *err);
/* GET, POST … of a JSON resource; path is made by printf from ids only. */
int cli_call(struct cli *cli, const char *method, const json_t *body, json_t **ret_reply,
    struct av_err *err, const char *path_fmt, ...) AV_PRINTF(6, 7);

/* The full id for an id, a unique beginning of one, or a name given with --name. */
int cli_resolve(
    struct cli *cli, const char *what, char ret_id[static AV_ID_SIZE], struct av_err *err);

/* Where credentials.json may be, in the order in which it is looked for: i = 0 this user's, 1 the
 * service's (/etc/aviary), unless AVIARY_CONFIG_DIR names the one place. -ENOENT: no such place. */
int cli_credentials_path(int i, char *path, size_t size);
/* Path of a program of ours (aviaryd, aviary-spawn, floor_jail …): beside this one, in libexec, or
 * in the build tree's folder. -ENOENT when it is nowhere. */
int cli_find_program(const char *name, const char *build_folder, char *ret_path, size_t size);
/* Absolute path of the running program's directory. */
int cli_own_dir(char *ret_path, size_t size);

/* Terminal colours by meaning, "" when there should be none. */
const char *cli_good(const struct cli *cli);
const char *cli_bad(const struct cli *cli);
const char *cli_faint(const struct cli *cli);
const char *cli_bold(const struct cli *cli);
const char *cli_plain(const struct cli *cli);

/* How many bytes at p are a character that a terminal acts on: 0 when it is none. Those of ASCII,
 * and U+0080 to U+009F, which some terminals take for the same (U+009B begins a command as ESC [
 * does). */
static inline size_t cli_control_size(const char *p)
{
	const unsigned char *u = (const unsigned char *)p;

	if (u[0] == 0xc2 && u[1] >= 0x80 && u[1] <= 0x9f)
		return 2;
	return u[0] && (u[0] < ' ' || u[0] == 0x7f);
}
/* In place: each of them becomes '?', newlines and tabs too. */
void cli_make_safe(char *text);
/* Prints bytes from a sandbox or daemon for people: control characters and escapes become '?',
 * except newlines and tabs. */
void cli_print_safe(FILE *f, const char *text);

/* Whether j is all of what the last request was answered with. */
bool cli_is_answer(const struct cli *cli, const json_t *j);
/* Prints the JSON and a newline: indented on a terminal, elsewhere in one line; an answer of the
 * daemon's as it came. */
void cli_print_json(const struct cli *cli, const json_t *j);
/* A member that is text, for a table; "-" when there is none, or an empty one. */
const char *cli_text(const json_t *o, const char *field);
/* Rows as JSON where that was asked for, or with --quiet the field of each, text or number, on a
 * line of its own. False: neither was asked for, a table is wanted. */
bool cli_print_rows(const struct cli *cli, const json_t *rows, const char *field);
/* That something went well: its id or name; with --json an object with that in the field, which is
 * a line; with --quiet nothing. */
void cli_print_done(const struct cli *cli, const char *field, const char *text);
/* The last of a command: the reply as JSON where that was asked for, else one text of it and a
 * newline. */
void cli_print_reply(const struct cli *cli, const json_t *reply, const char *field);

/* SIGINT, SIGTERM and SIGHUP end the wait under way with AV_ERR_CANCELED instead of the program;
 * cli_caught_signal() is the number of the first one, or 0. A third one ends the program at once.
 */
void cli_catch_signals(void);
int cli_caught_signal(void);
/* Whether what is under way is to end because of one. */
bool cli_is_interrupted(void);
/* Between these, signals are only noted: for what must be cleaned up after one. */
void cli_hold_signals(void);
void cli_unhold_signals(void);
