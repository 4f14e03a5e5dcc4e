/* SPDX-License-Identifier: Apache-2.0 */
/*
 * command.h - what a command of the CLI is: one constant struct, from which everything is generated
 *
 * Parsing, `--help`, "did you mean", the manual pages and what a shell completes all read the same
 * `struct command`. A new command is one file with one such struct, and one line in commands.def.
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
	/* asked of the daemon, as sandboxes are */
	COMPLETE_TEMPLATES,
	COMPLETE_KEYS,
	COMPLETE_TEAMS,
	COMPLETE_HOSTS,
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
	/* What help calls the value; NULL for a flag. Words with bars between them, "pause|delete",
	 * are also what a shell offers. */
	const char *value;
	const char *help;
	enum completion completion;
};

/* What a command does when its first operand is this one: `aviary keys ls`. */
struct verb {
	const char *name;           /* NULL ends a list */
	const char *usage;          /* its own operands: "NAME…", "" */
	const char *summary;        /* one line, no full stop */
	size_t min, max;            /* how many operands of its own */
	const char *want;           /* what is missing when there are too few: "which one" */
	enum completion completion; /* of its operands */
	int (*run)(struct cli *cli, const struct args *args);
};

struct command {
	const char *name;
	/* What follows the options: "ID [--] COMMAND [ARG…]". With verbs NULL: made of theirs. */
	const char *usage;
	const char *summary;         /* one line, no full stop */
	const char *description;     /* paragraphs, or NULL */
	const struct verb *verbs;    /* ended by a NULL name, or NULL; then operands[0] is one */
	bool connects;               /* with verbs: all of them begin with cli_connect() */
	const char *const *examples; /* "command\tmeaning", NULL-ended, or NULL */
	const char *const *exits;    /* "status\tmeaning" beside those of every command, or NULL */
	const char *const *environment; /* "NAME\tmeaning" beside those of every command, or NULL */
	const char *see;                /* other commands, "create rm", or NULL */
	const struct option_spec *options; /* ended by a NULL name, or NULL */
	size_t min_operands;
	size_t max_operands; /* OPERANDS_ANY for no limit */
	/* Options end after this many operands, the last of which is a program to run (what follows
	 * is the program's); 0: they may stand anywhere before "--". */
	size_t options_end_after;
	enum completion operand_completion; /* of the first */
	enum completion more_completion;    /* of the others */
	bool is_hidden;                     /* not in the overview, without a manual page */
	/* The exit status of the program. NULL with verbs. */
	int (*run)(struct cli *cli, const struct args *args);
};

#define OPERANDS_ANY ((size_t)-1)

/* All commands in the order of the overview, NULL-ended. */
extern const struct command *const commands[];
/* Options that every command takes. */
extern const struct option_spec global_options[];

/* NULL when there is none. */
const struct command *command_find(const char *name);

/* Statuses and variables of every command: "name\tmeaning", NULL-ended. */
extern const char *const common_exits[];
/* Those of what runs a program and ends as it did. */
extern const char *const program_exits[];
extern const char *const common_environment[];

struct av_buf;
/* Appends what follows the options: usage, or the verbs with their operands. */
void command_usage(const struct command *command, struct av_buf *out);
/* Runs the verb that the first operand names; a usage error otherwise. */
int verbs_run(struct cli *cli, const struct args *args);

/* Writes the overview, or the help of one command, to stdout. */
void help_print_overview(void);
void help_print_command(const struct command *command);
