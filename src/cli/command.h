/* SPDX-License-Identifier: Apache-2.0 */
/*
 * command.h - what a command of the CLI is: one constant struct, from which everything is generated
 *
 * Parsing, `--help`, "did you mean", and the completion scripts all read the same `struct command`.
 * A new command is one file with one such struct, and one line in commands.def.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "cli/args.h"
#include "cli/cli.h"

/* What a shell should offer for a value. */
enum completion {
	COMPLETE_NONE,
	COMPLETE_FILES,
	COMPLETE_SANDBOXES,
	COMPLETE_PATHS, /* files and "ID:" */
	COMPLETE_PROGRAMS,
	COMPLETE_SHELLS, /* bash zsh fish */
	COMPLETE_COMMANDS,
};

enum option_kind {
	OPTION_FLAG,     /* no value */
	OPTION_TEXT,     /* the last one counts */
	OPTION_LIST,     /* may be repeated, all count */
	OPTION_SIZE,     /* 512M: checked when parsed */
	OPTION_DURATION, /* 30s */
	OPTION_MILLI,    /* 1.5 */
	OPTION_NUMBER,   /* 42 */
};

struct option_spec {
	const char *name; /* without dashes; NULL ends a list */
	char letter;      /* or 0 */
	enum option_kind kind;
	const char *value; /* what help calls the value; NULL for a flag */
	const char *help;
	enum completion completion;
};

struct command {
	const char *name;
	const char *usage;           /* what follows the options: "ID [--] COMMAND [ARG…]" */
	const char *summary;         /* one line, no full stop */
	const char *description;     /* paragraphs, or NULL */
	const char *const *examples; /* "command\tmeaning", NULL-ended, or NULL */
	const struct option_spec *options; /* ended by a NULL name, or NULL */
	size_t min_operands;
	size_t max_operands; /* OPERANDS_ANY for no limit */
	/* Options end after this many operands, the last of which is a program to run (what follows
	 * is the program's); 0: they may stand anywhere before "--". */
	size_t options_end_after;
	enum completion operand_completion;
	bool is_hidden; /* not in the overview */
	/* The exit status of the program. */
	int (*run)(struct cli *cli, const struct args *args);
};

#define OPERANDS_ANY ((size_t)-1)

/* All commands in the order of the overview, NULL-ended. */
extern const struct command *const commands[];
/* Options that every command takes. */
extern const struct option_spec global_options[];

/* NULL when there is none. */
const struct command *command_find(const char *name);

/* Writes the overview, or the help of one command, to stdout. */
void help_print_overview(void);
void help_print_command(const struct command *command);
