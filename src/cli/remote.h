/* SPDX-License-Identifier: Apache-2.0 */
/*
 * remote.h - small programs inside a sandbox, used as tools by our commands
 *
 * What a sandbox prints is hostile: bounded here, and checked by whoever reads it.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "cli/cli.h"

/* Runs a program to its end. *ret_code is its exit code, *ret_out and *ret_err (owned by the
 * caller, may be NULL) its output. -ENOENT (AV_ERR_NOT_FOUND) when the sandbox has no such program.
 */
int remote_run(struct cli *cli, const char *id, const char *const *argv, int *ret_code,
    char **ret_out, char **ret_err, struct av_err *err);

/* True when the sandbox is there and runs: then "not found" was said of something in it. */
bool remote_is_running(struct cli *cli, const char *id);

struct remote_stat {
	bool exists;
	bool is_known; /* false: the sandbox has no stat program; then nothing else is known either
	                */
	mode_t mode;   /* type and permissions, links followed */
	uint64_t size;
};
int remote_stat(
    struct cli *cli, const char *id, const char *path, struct remote_stat *ret, struct av_err *err);

/* A program whose input or output is a stream of any length. All calls block, and end with
 * AV_ERR_CANCELED after a signal. */
struct remote_pipe;
/* argv is NULL-ended. */
int remote_pipe_open(struct cli *cli, const char *id, const char *const *argv, bool writes,
    struct remote_pipe **ret, struct av_err *err);
/* Some bytes of its standard output: valid until the next call. 0 at the end, -errno with *err. */
ssize_t remote_pipe_read(struct remote_pipe *p, const char **ret_bytes, struct av_err *err);
int remote_pipe_write(struct remote_pipe *p, const char *bytes, size_t n, struct av_err *err);
/* Closes its input, waits for its end and says what went wrong if the exit code is not 0. */
int remote_pipe_finish(struct remote_pipe *p, struct av_err *err);
void remote_pipe_free(struct remote_pipe *p); /* kills the program if it still runs */
void remote_pipe_freep(struct remote_pipe **p);
