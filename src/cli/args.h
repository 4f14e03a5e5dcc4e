/* SPDX-License-Identifier: Apache-2.0 */
/*
 * args.h - a parsed command line
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/macros.h"

struct command;
struct option_spec;

struct arg_value {
	const struct option_spec *spec;
	const char *text; /* borrowed from argv; NULL for a flag */
};

struct args {
	const struct command *command;
	struct arg_value *values; /* owned, in order of appearance */
	size_t n_values;
	char **operands; /* borrowed from argv */
	size_t n_operands;
	bool has_separator; /* "--" was there */
};

/* Parses argv[0..argc), which starts after the command's name. On a mistake a message that names it
 * (and the nearest option) goes to stderr and -EINVAL comes back; "--help" prints the help and
 * gives 1; 0 when the command should run. args_clear() in every case. */
int args_parse(struct args *a, const struct command *command, int argc, char **argv) AV_MUST_CHECK;
void args_clear(struct args *a);

/* The name must be one of the command's or global options: anything else is a bug and aborts. */
bool args_flag(const struct args *a, const char *name);
const char *args_text(const struct args *a, const char *name); /* NULL when not given */
/* Calls for each value of a repeatable option: start with *pos = 0, NULL at the end. */
const char *args_next(const struct args *a, const char *name, size_t *pos);
/* Values were checked by args_parse; fallback when not given. */
uint64_t args_size(const struct args *a, const char *name, uint64_t fallback_bytes);
uint64_t args_duration_ms(const struct args *a, const char *name, uint64_t fallback_ms);
uint64_t args_milli(const struct args *a, const char *name, uint64_t fallback);
uint64_t args_number(const struct args *a, const char *name, uint64_t fallback);

/* The nearest of the candidates (NULL-ended) to a mistyped word, or NULL if none is near. */
const char *nearest_word(const char *word, const char *const *candidates);
