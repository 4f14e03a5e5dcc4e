/* SPDX-License-Identifier: Apache-2.0 */
/*
 * verbs.h - commands whose first operand says what to do: `aviary keys ls`
 */
#pragma once

#include "cli/cli.h"

struct verb {
	const char *name;
	size_t min, max;  /* operands after it */
	const char *want; /* what is missing when there are too few: "which one" */
	int (*run)(struct cli *cli, const struct args *args);
};

/* Runs the one that the first operand names; a usage error otherwise. */
int verbs_run(struct cli *cli, const struct args *args, const struct verb *v, size_t n);

/* NAME=VALUE pairs as a quota: sandboxes, cpus, memory (4G), disk, creates; the value none takes
 * one away. NULL with *err set. */
json_t *quota_parse(const char *const *pairs, size_t n, struct av_err *err);
/* "sandboxes 5, memory 4 GiB"; "none". */
void quota_print(const json_t *quota, char *ret, size_t size);
