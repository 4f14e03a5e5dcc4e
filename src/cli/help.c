/* SPDX-License-Identifier: Apache-2.0 */
/*
 * help.c - help and the overview, generated from the tables of the commands
 */
#include <stdio.h>
#include <string.h>

#include "base/buf.h"
#include "cli/command.h"

#include "base/banned.h"

#define TEXT_COLUMNS 80
#define HELP_COLUMN  28

/* Prints text from the current column on, broken at spaces, continued at the given column. */
static void print_wrapped(const char *text, int column, int indent)
{
	while (*text) {
		size_t n = strcspn(text, " \n");
		if (column > indent && column + (int)n > TEXT_COLUMNS) {
			printf("\n%*s", indent, "");
			column = indent;
		}
		printf("%.*s", (int)n, text);
		column += (int)n;
		text += n;
		if (*text == '\n') {
			printf("\n%*s", text[1] && text[1] != '\n' ? indent : 0, "");
			column = indent;
			text++;
		} else if (*text == ' ') {
			text++;
			if (column + 1 + (int)strcspn(text, " \n") <= TEXT_COLUMNS) {
				putchar(' ');
				column++;
			} else {
				printf("\n%*s", indent, "");
				column = indent;
			}
		}
	}
	putchar('\n');
}

/* Columns on a terminal: bytes that do not continue a UTF-8 character. */
static int width_of(const char *s)
{
	int n = 0;
	for (; *s; s++)
		n += ((unsigned char)*s & 0xc0) != 0x80;
	return n;
}

/* "left  text", the text wrapped in a column of its own. */
static void print_row(const char *left, const char *text)
{
	int n = width_of(left);

	fputs(left, stdout);
	if (n >= HELP_COLUMN)
		printf("\n%*s", HELP_COLUMN, "");
	else
		printf("%*s", HELP_COLUMN - n, "");
	print_wrapped(text, HELP_COLUMN, HELP_COLUMN);
}

static void print_options(const char *title, const struct option_spec *o)
{
	char left[64];

	if (!o || !o->name)
		return;
	printf("\n%s\n", title);
	for (; o->name; o++) {
		if (o->letter)
			snprintf(left, sizeof(left), "  -%c, --%s%s%s", o->letter, o->name,
			    o->value ? " " : "", o->value ? o->value : "");
		else
			snprintf(left, sizeof(left), "      --%s%s%s", o->name, o->value ? " " : "",
			    o->value ? o->value : "");
		print_row(left, o->help);
	}
}

static void print_verbs(const struct verb *v)
{
	char left[64];

	printf("\nWhat it does\n");
	for (; v->name; v++) {
		snprintf(left, sizeof(left), "  %s%s%s", v->name, v->usage[0] ? " " : "", v->usage);
		print_row(left, v->summary);
	}
}

/* "name\tmeaning" rows. */
static void print_pairs(const char *title, const char *const *pairs)
{
	char left[64];

	if (!pairs)
		return;
	printf("\n%s\n", title);
	for (; *pairs; pairs++) {
		size_t n = strcspn(*pairs, "\t");
		snprintf(left, sizeof(left), "  %.*s", (int)n, *pairs);
		print_row(left, *pairs + n + ((*pairs)[n] == '\t'));
	}
}

void command_usage(const struct command *c, struct av_buf *out)
{
	if (!c->verbs)
		(void)av_buf_append_c(out, c->usage);
	else
		for (const struct verb *v = c->verbs; v->name; v++)
			(void)av_buf_printf(out, "%s%s%s%s", v == c->verbs ? "" : " | ", v->name,
			    v->usage[0] ? " " : "", v->usage);
}

static void print_examples(const char *const *e)
{
	printf("\nExamples\n");
	for (; *e; e++) {
		const char *tab = strchr(*e, '\t');
		if (tab)
			printf("  %.*s\n      %s\n", (int)(tab - *e), *e, tab + 1);
		else
			printf("  %s\n", *e);
	}
}

void help_print_command(const struct command *c)
{
	if (c->verbs)
		printf("usage: aviary %s [OPTION…] WHAT [ARGUMENT…]\n\n", c->name);
	else
		printf("usage: aviary %s [OPTION…]%s%s\n\n", c->name, c->usage[0] ? " " : "",
		    c->usage);
	print_wrapped(c->description ? c->description : c->summary, 0, 0);
	if (c->verbs)
		print_verbs(c->verbs);
	print_options("Options", c->options);
	print_options("Options of every command", global_options);
	print_pairs("Exit status", c->exits);
	print_pairs("Environment", c->environment);
	if (c->examples)
		print_examples(c->examples);
}

void help_print_overview(void)
{
	printf(
	    "usage: aviary COMMAND [OPTION…] [ARGUMENT…]\n\n"
	    "Runs untrusted code in sandboxes on this machine (or on the machine of --url).\n\n");
	for (const struct command *const *c = commands; *c; c++)
		if (!(*c)->is_hidden)
			printf("  %-11s %s\n", (*c)->name, (*c)->summary);
	printf("\nTry:\n"
	       "  aviary doctor                     what this machine can do\n"
	       "  aviary run -- sh -c 'id; uname'   one command in a fresh sandbox\n"
	       "\n'aviary COMMAND --help' explains a command, and 'man aviary-COMMAND' too.\n");
}

static int run(struct cli *cli, const struct args *args)
{
	(void)cli;
	if (args->n_operands == 0) {
		help_print_overview();
		return 0;
	}
	const struct command *c = command_find(args->operands[0]);
	if (!c)
		return cli_usage_error(cli, "there is no command '%s'", args->operands[0]);
	help_print_command(c);
	return 0;
}

const struct command command_help = {
    .name = "help",
    .usage = "[COMMAND]",
    .summary = "explain a command",
    .max_operands = 1,
    .operand_completion = COMPLETE_COMMANDS,
    .run = run,
};
