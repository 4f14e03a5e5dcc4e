/* SPDX-License-Identifier: Apache-2.0 */
/*
 * remote.h - what our commands ask of a sandbox: small programs as tools
 *
 * What a sandbox prints is hostile: bounded by the daemon, and checked by whoever reads it.
 */
#pragma once

#include <stdbool.h>

#include "cli/cli.h"

/* Runs a program to its end. *ret_code is its exit code, *ret_out and *ret_err (owned by the
 * caller, may be NULL) its output. -ENOENT (AV_ERR_NOT_FOUND) when the sandbox has no such program.
 */
int remote_run(struct cli *cli, const char *id, const char *const *argv, int *ret_code,
    char **ret_out, char **ret_err, struct av_err *err);

/* True when the sandbox is there and runs: then "not found" was said of something in it. */
bool remote_is_running(struct cli *cli, const char *id);
