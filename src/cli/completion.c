/* SPDX-License-Identifier: Apache-2.0 */
/*
 * completion.c - aviary completion: scripts for bash, zsh and fish
 *
 * They know nothing themselves: what fits is asked of `aviary complete` (complete.c) at the time.
 */
#include <stdio.h>
#include <string.h>

#include "cli/command.h"

#include "base/banned.h"

static const char bash[] =
    "# bash completion for aviary; load with: source <(aviary completion bash)\n"
    "_aviary() {\n"
    "\tlocal line cur=${COMP_WORDS[COMP_CWORD]}\n"
    "\tCOMPREPLY=()\n"
    "\twhile IFS= read -r line; do\n"
    "\t\tcase $line in\n"
    "\t\t:files)\n"
    "\t\t\tcompopt -o filenames 2>/dev/null\n"
    "\t\t\tmapfile -t -O ${#COMPREPLY[@]} COMPREPLY < <(compgen -f -- \"$cur\") ;;\n"
    "\t\t:commands)\n"
    "\t\t\tmapfile -t -O ${#COMPREPLY[@]} COMPREPLY < <(compgen -c -- \"$cur\") ;;\n"
    "\t\t:nospace) compopt -o nospace 2>/dev/null ;;\n"
    "\t\t*) COMPREPLY+=(\"${line%%$'\\t'*}\") ;;\n"
    "\t\tesac\n"
    "\tdone < <(\"${COMP_WORDS[0]}\" complete bash \"${COMP_WORDS[@]:1:COMP_CWORD}\" 2>/dev/null)\n"
    "}\n"
    "complete -F _aviary aviary\n";

static const char zsh[] =
    "#compdef aviary\n"
    "# zsh completion for aviary; load with: source <(aviary completion zsh)\n"
    "_aviary() {\n"
    "\tlocal line value space=' '\n"
    "\tlocal -a lines values\n"
    "\tlines=(${(f)\"$($words[1] complete zsh \"${(@)words[2,CURRENT-1]}\" \"$PREFIX\" "
    "2>/dev/null)\"})\n"
    "\t(( ${lines[(I):nospace]} )) && space=''\n"
    "\tfor line in $lines; do\n"
    "\t\tcase $line in\n"
    "\t\t:files) _files ;;\n"
    "\t\t:commands) _command_names -e ;;\n"
    "\t\t:*) ;;\n"
    "\t\t*) value=${line%%$'\\t'*}; values+=(\"${value//:/\\\\:}${${line#$value}/$'\\t'/:}\") ;;\n"
    "\t\tesac\n"
    "\tdone\n"
    "\t(( $#values )) && _describe -t values aviary values -S \"$space\"\n"
    "}\n"
    "if [[ $funcstack[1] == _aviary ]]; then _aviary \"$@\"; else compdef _aviary aviary; fi\n";

static const char fish[] =
    "# fish completion for aviary; load with: aviary completion fish | source\n"
    "function __aviary_complete\n"
    "\tset -l words (commandline -opc)\n"
    "\tset -l current (commandline -ct)\n"
    "\tset -q current[1]; or set current ''\n"
    "\tfor line in ($words[1] complete fish $words[2..-1] $current 2>/dev/null)\n"
    "\t\tswitch $line\n"
    "\t\tcase ':files'\n"
    "\t\t\t__fish_complete_path $current\n"
    "\t\tcase ':commands'\n"
    "\t\t\tcomplete -C $current\n"
    "\t\tcase ':*'\n"
    "\t\tcase '*'\n"
    "\t\t\tprintf '%s\\n' $line\n"
    "\t\tend\n"
    "\tend\n"
    "end\n"
    "complete -c aviary -f -a '(__aviary_complete)'\n";

static int run(struct cli *cli, const struct args *args)
{
	const char *shell = args->operands[0];

	if (strcmp(shell, "bash") == 0)
		fputs(bash, stdout);
	else if (strcmp(shell, "zsh") == 0)
		fputs(zsh, stdout);
	else if (strcmp(shell, "fish") == 0)
		fputs(fish, stdout);
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
    .description =
        "Completes commands, options and their values; names of sandboxes, templates, keys and "
        "hosts are asked of the daemon at the time, and left out when it does not answer within a "
        "second. An installed aviary has brought the scripts along.",
    .examples = examples,
    .min_operands = 1,
    .max_operands = 1,
    .operand_completion = COMPLETE_SHELLS,
    .run = run,
};
