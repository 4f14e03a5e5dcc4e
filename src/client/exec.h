/* SPDX-License-Identifier: Apache-2.0 */
/*
 * exec.h - a process in a sandbox: start or attach, live output, input, signals, end
 *
 * Poll av_exec_fd() for reading, and for writing while av_exec_wants_write(); call av_exec_step()
 * when it is ready. While the caller does not let it read, the process inside is slowed down and no
 * output is lost.
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "client/client.h"

struct av_exec;

enum av_exec_channel { AV_EXEC_STDOUT, AV_EXEC_STDERR, AV_EXEC_PTY };

struct av_exec_end {
	bool exited;   /* false: killed by a signal */
	int exit_code; /* of a process that exited */
	int signal;    /* number of the signal that killed it, or 0 */
	bool core_dumped;
	bool timed_out;
	bool oom_killed; /* the kernel killed in the sandbox for memory */
	char error[240]; /* what the agent says about it, or "" */
};

/* Called from av_exec_step() only; none may free the exec. NULL members are skipped. */
struct av_exec_events {
	void (*on_start)(void *ctx, int64_t pid);
	void (*on_output)(void *ctx, enum av_exec_channel channel, const char *p, size_t n);
	/* So many bytes were dropped here because nobody was attached. */
	void (*on_gap)(void *ctx, uint64_t dropped_bytes);
	void (*on_end)(void *ctx, const struct av_exec_end *end);
};

/* All borrowed for the call. */
struct av_exec_options {
	char *const *argv;
	size_t argc;        /* at least 1 */
	json_t *envs;       /* object of strings, or NULL; referenced for the call */
	const char *cwd;    /* NULL: home of the user */
	const char *user;   /* NULL: the template's */
	const char *tag;    /* NULL: none */
	int64_t timeout_ms; /* 0: none */
	bool has_stdin;     /* else it reads end of file at once */
	bool has_pty;
	uint16_t cols, rows; /* of the PTY */
	bool kill_on_detach; /* the process group ends when this stream does, however it ends */
};

/* Blocks for the connection, not for the process. events and ctx are borrowed until av_exec_free.
 * That the program cannot be started is told by av_exec_step(). */
int av_exec_start(struct av_client *c, const char *sandbox_id,
    const struct av_exec_options *options, const struct av_exec_events *events, void *ctx,
    struct av_exec **ret, struct av_err *err);

/* To a process that runs or ended in the last 30 seconds. selector: digits are a pid, else a tag.
 * replay: begin with the output kept while nobody was attached. follow: go on until it ends. */
int av_exec_attach(struct av_client *c, const char *sandbox_id, const char *selector, bool replay,
    bool follow, const struct av_exec_events *events, void *ctx, struct av_exec **ret,
    struct av_err *err);

/* Detaches; the process lives on unless kill_on_detach. NULL is fine. */
void av_exec_free(struct av_exec *e);
void av_exec_freep(struct av_exec **e);

int av_exec_fd(const struct av_exec *e);
bool av_exec_wants_write(const struct av_exec *e);
bool av_exec_has_pending(const struct av_exec *e); /* step again without polling */
/* Bytes that wait to be sent: stop writing input above some mark. */
size_t av_exec_buffered(const struct av_exec *e);
bool av_exec_has_ended(const struct av_exec *e);

/* Queue input (to the PTY where there is one), its end, a new window size, a signal by name
 * ("SIGTERM") to the process group or the process alone. 0 or -errno. */
int av_exec_write(struct av_exec *e, const char *p, size_t n);
int av_exec_close_stdin(struct av_exec *e);
int av_exec_resize(struct av_exec *e, uint16_t cols, uint16_t rows);
int av_exec_signal(struct av_exec *e, const char *name, bool to_group);

/* Writes what waits; reads and calls events if may_read. 0: go on; 1: the stream ended in order
 * (on_end came, or following was not asked for); negative: the daemon or agent said why not, or the
 * connection broke. *ret_exit_code (may be NULL) becomes what a shell would exit with when a
 * program could not be started (127: there is none, 126: it cannot be executed), else 0. */
int av_exec_step(struct av_exec *e, bool may_read, int *ret_exit_code, struct av_err *err);
