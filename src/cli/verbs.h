/* SPDX-License-Identifier: Apache-2.0 */
/*
 * verbs.h - quotas as commands take and show them
 */
#pragma once

#include "cli/cli.h"

/* NAME=VALUE pairs as a quota: sandboxes, cpus, memory (4G), disk, creates; the value none takes
 * one away. NULL with *err set. */
json_t *quota_parse(const char *const *pairs, size_t n, struct av_err *err);
/* "sandboxes 5, memory 4 GiB"; "none". */
void quota_print(const json_t *quota, char *ret, size_t size);
