/* SPDX-License-Identifier: Apache-2.0 */
/*
 * completion.c - aviary completion: scripts for bash, zsh and fish, made from the commands' tables
 *
 * The scripts carry commands and options; sandboxes are asked for at the time (aviary ls -q).
 */
#include <stdio.h>
#include <string.h>

#include "cli/command.h"

#include "base/banned.h"

static void print_words(const struct option_spec *o)
{
	for (; o && o->name; o++) {
		printf(" --%s", o->name);
		if (o->letter)
			printf(" -%c", o->letter);
	}
}

static void print_value_options(const struct option_spec *o, enum completion completion)
{
	for (; o && o->name; o++)
		if (o->kind != OPTION_FLAG && o->completion == completion) {
			printf("|--%s", o->name);
			if (o->letter)
				printf("|-%c", o->letter);
		}
}

static void print_command_names(void)
{
	for (const struct command *const *c = commands; *c; c++)
		printf("%s%s", c == commands ? "" : " ", (*c)->name);
}

/* What bash offers for a plain argument, as an argument of compgen. */
static const char *bash_operands(enum completion completion)
{
	switch (completion) {
	case COMPLETE_SANDBOXES:
		return "-W \"$(aviary ls -q 2>/dev/null)\"";
	case COMPLETE_PATHS:
		return "-f -W \"$(aviary ls -q 2>/dev/null | sed 's/$/:/')\"";
	case COMPLETE_FILES:
		return "-f";
	case COMPLETE_PROGRAMS:
		return "-c";
	case COMPLETE_SHELLS:
		return "-W 'bash zsh fish'";
	case COMPLETE_COMMANDS:
		return "-W \"$commands\"";
	case COMPLETE_NONE:
		break;
	}
	return "-W ''";
}

static void print_bash(void)
{
	printf("# bash completion for aviary; load with: source <(aviary completion bash)\n"
	       "_aviary() {\n"
	       "\tlocal cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} commands='");
	print_command_names();
	printf("'\n"
	       "\tif [ \"$COMP_CWORD\" -eq 1 ]; then\n"
	       "\t\tmapfile -t COMPREPLY < <(compgen -W \"$commands\" -- \"$cur\")\n"
	       "\t\treturn\n"
	       "\tfi\n"
	       "\tcase ${COMP_WORDS[1]} in\n");
	for (const struct command *const *c = commands; *c; c++) {
		printf("\t%s)\n\t\tcase $prev in\n\t\t''", (*c)->name);
		print_value_options((*c)->options, COMPLETE_NONE);
		print_value_options(global_options, COMPLETE_NONE);
		printf(") return ;;\n\t\t' '");
		print_value_options((*c)->options, COMPLETE_FILES);
		print_value_options(global_options, COMPLETE_FILES);
		printf(") mapfile -t COMPREPLY < <(compgen -f -- \"$cur\"); return ;;\n\t\tesac\n"
		       "\t\tif [[ $cur == -* ]]; then\n"
		       "\t\t\tmapfile -t COMPREPLY < <(compgen -W '");
		print_words((*c)->options);
		print_words(global_options);
		printf("' -- \"$cur\")\n\t\telse\n"
		       "\t\t\tmapfile -t COMPREPLY < <(compgen %s -- \"$cur\")\n\t\tfi ;;\n",
		    bash_operands((*c)->operand_completion));
	}
	printf("\tesac\n}\ncomplete -o default -F _aviary aviary\n");
}

/* Single-quoted for zsh and fish, brackets and colons escaped for zsh's _arguments. */
static void print_quoted(const char *s, const char *escape)
{
	for (; *s; s++) {
		if (*s == '\'')
			printf("'\\''");
		else if (strchr(escape, *s))
			printf("\\%c", *s);
		else
			putchar(*s);
	}
}

static const char *zsh_action(enum completion completion)
{
	switch (completion) {
	case COMPLETE_SANDBOXES:
		return "_aviary_sandboxes";
	case COMPLETE_PATHS:
		return "_aviary_paths";
	case COMPLETE_FILES:
		return "_files";
	case COMPLETE_PROGRAMS:
		return "_command_names -e";
	case COMPLETE_SHELLS:
		return "(bash zsh fish)";
	case COMPLETE_COMMANDS:
		return "_aviary_commands";
	case COMPLETE_NONE:
		break;
	}
	return " ";
}

static void print_zsh_options(const struct option_spec *o)
{
	for (; o && o->name; o++)
		for (int i = 0; i < (o->letter ? 2 : 1); i++) {
			const char *star = o->kind == OPTION_LIST ? "*" : "";
			if (i == 0)
				printf(" \\\n\t\t\t'%s--%s[", star, o->name);
			else
				printf(" \\\n\t\t\t'%s-%c[", star, o->letter);
			print_quoted(o->help, "[]:");
			printf("]");
			if (o->kind != OPTION_FLAG) {
				putchar(':');
				print_quoted(o->value, "[]:");
				printf(":%s", zsh_action(o->completion));
			}
			putchar('\'');
		}
}

static void print_zsh(void)
{
	printf("#compdef aviary\n"
	       "# zsh completion for aviary; load with: source <(aviary completion zsh)\n"
	       "_aviary_sandboxes() { compadd -- ${(f)\"$(aviary ls -q 2>/dev/null)\"} }\n"
	       "_aviary_paths() { compadd -S : -- ${(f)\"$(aviary ls -q 2>/dev/null)\"}; _files }\n"
	       "_aviary_commands() {\n\tlocal -a list=(");
	for (const struct command *const *c = commands; *c; c++) {
		printf("\n\t\t'%s:", (*c)->name);
		print_quoted((*c)->summary, ":");
		putchar('\'');
	}
	printf(")\n\t_describe command list\n}\n"
	       "_aviary() {\n"
	       "\tif (( CURRENT == 2 )); then\n\t\t_aviary_commands\n\t\treturn\n\tfi\n"
	       "\tshift words\n\t(( CURRENT-- ))\n\tcase $words[1] in\n");
	for (const struct command *const *c = commands; *c; c++) {
		printf("\t%s)\n\t\t_arguments -s", (*c)->name);
		print_zsh_options((*c)->options);
		print_zsh_options(global_options);
		printf(" \\\n\t\t\t'*: :%s' ;;\n", zsh_action((*c)->operand_completion));
	}
	printf("\tesac\n}\ncompdef _aviary aviary\n");
}

static void print_fish_options(const char *command, const struct option_spec *o)
{
	for (; o && o->name; o++) {
		printf("complete -c aviary -n '__fish_seen_subcommand_from %s' -l %s", command,
		    o->name);
		if (o->letter)
			printf(" -s %c", o->letter);
		if (o->kind != OPTION_FLAG)
			printf(" -r");
		if (o->completion == COMPLETE_FILES)
			printf(" -F");
		printf(" -d '");
		print_quoted(o->help, "");
		printf("'\n");
	}
}

static void print_fish(void)
{
	printf("# fish completion for aviary; load with: aviary completion fish | source\n"
	       "complete -c aviary -f\n");
	for (const struct command *const *c = commands; *c; c++) {
		printf("complete -c aviary -n __fish_use_subcommand -a %s -d '", (*c)->name);
		print_quoted((*c)->summary, "");
		printf("'\n");
		print_fish_options((*c)->name, (*c)->options);
		print_fish_options((*c)->name, global_options);
		const char *action = NULL;
		switch ((*c)->operand_completion) {
		case COMPLETE_SANDBOXES:
			action = "-a '(aviary ls -q 2>/dev/null)'";
			break;
		case COMPLETE_PATHS:
			action = "-F -a '(aviary ls -q 2>/dev/null)'";
			break;
		case COMPLETE_FILES:
			action = "-F";
			break;
		case COMPLETE_PROGRAMS:
			action = "-a '(__fish_complete_subcommand)'";
			break;
		case COMPLETE_SHELLS:
			action = "-a 'bash zsh fish'";
			break;
		case COMPLETE_COMMANDS:
			action = "-a '(__fish_complete_subcommand)'";
			break;
		case COMPLETE_NONE:
			break;
		}
		if (action)
			printf("complete -c aviary -n '__fish_seen_subcommand_from %s' %s\n",
			    (*c)->name, action);
	}
}

static int run(struct cli *cli, const struct args *args)
{
	const char *shell = args->operands[0];
	if (strcmp(shell, "bash") == 0)
		print_bash();
	else if (strcmp(shell, "zsh") == 0)
		print_zsh();
	else if (strcmp(shell, "fish") == 0)
		print_fish();
	else
		return cli_usage_error(
		    cli, "no completion for '%s'; there is bash, zsh and fish", shell);
	return 0;
}

static const char *const examples[] = {
    "source <(aviary completion bash)\tin ~/.bashrc",
    "aviary completion zsh > \"${fpath[1]}/_aviary\"\tonce, for zsh",
    "aviary completion fish > ~/.config/fish/completions/aviary.fish\tonce, for fish",
    NULL,
};

const struct command command_completion = {
    .name = "completion",
    .usage = "bash|zsh|fish",
    .summary = "print a completion script for your shell",
    .examples = examples,
    .min_operands = 1,
    .max_operands = 1,
    .operand_completion = COMPLETE_SHELLS,
    .run = run,
};
