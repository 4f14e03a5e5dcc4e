/* SPDX-License-Identifier: Apache-2.0 */
/*
 * main.c - the aviary command line: find the command, parse, run
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fd.h"
#include "cli/command.h"

#include "base/banned.h"

#define COMMAND(name) extern const struct command command_##name;
#include "cli/commands.def"
#undef COMMAND

const struct command *const commands[] = {
#define COMMAND(name) &command_##name,
#include "cli/commands.def"
#undef COMMAND
    NULL,
};

const struct option_spec global_options[] = {
    {"url", 0, OPTION_TEXT, "URL",
        "the daemon (default: $AVIARY_URL, credentials.json, "
        "http://127.0.0.1:7878)",
        COMPLETE_NONE},
    {"key-file", 0, OPTION_TEXT, "FILE",
        "read the API key from FILE, '-' for standard input "
        "(default: $AVIARY_API_KEY, credentials.json)",
        COMPLETE_FILES},
    {"ca", 0, OPTION_TEXT, "FILE",
        "trust the daemon's certificate by the authorities in FILE, PEM "
        "(default: $AVIARY_CA, the system's)",
        COMPLETE_FILES},
    {"json", 0, OPTION_FLAG, NULL, "answer in JSON", COMPLETE_NONE},
    {"quiet", 'q', OPTION_FLAG, NULL,
        "of lists only ids or names, nothing where all went well, no progress", COMPLETE_NONE},
    {"help", 'h', OPTION_FLAG, NULL, "show this help", COMPLETE_NONE},
    {NULL, 0, OPTION_FLAG, NULL, NULL, COMPLETE_NONE},
};

const struct command *command_find(const char *name)
{
	for (const struct command *const *c = commands; *c; c++)
		if (strcmp((*c)->name, name) == 0)
			return *c;
	return NULL;
}

static int unknown_command(const char *name)
{
	const char *names[AV_ARRAY_LEN(commands)];
	size_t n = 0;
	for (const struct command *const *c = commands; *c; c++)
		names[n++] = (*c)->name;
	names[n] = NULL;
	const char *near = nearest_word(name, names);
	if (name[0] == '-')
		fprintf(stderr,
		    "aviary: unknown option '%s'; options follow a command, "
		    "'aviary help' lists them\n",
		    name);
	else if (near)
		fprintf(stderr, "aviary: unknown command '%s'; did you mean '%s'?\n", name, near);
	else
		fprintf(stderr, "aviary: unknown command '%s'; 'aviary help' lists them\n", name);
	return EXIT_USAGE;
}

static bool has_color(void)
{
	const char *no_color = getenv("NO_COLOR"), *force = getenv("CLICOLOR_FORCE");
	const char *term = getenv("TERM"), *clicolor = getenv("CLICOLOR");
	if (no_color && no_color[0])
		return false;
	if (force && force[0] && strcmp(force, "0") != 0)
		return true;
	if (clicolor && strcmp(clicolor, "0") == 0)
		return false;
	return isatty(STDOUT_FILENO) && term && strcmp(term, "dumb") != 0;
}

/* A reader that went away ends us as SIGPIPE would have, without a word; any other failure to write
 * is an error, or a full disk would look like success. */
static int flush_output(int status)
{
	int failed = ferror(stdout) | fflush(stdout);
	if (!failed)
		return status;
	if (errno == EPIPE)
		return EXIT_SIGNAL + SIGPIPE;
	cli_warn("standard output: %s", strerror(errno));
	return status ? status : EXIT_PLATFORM;
}

const char *const common_exits[] = {
    "0\tsuccess",
    "2\tthe command line is wrong",
    ("125\tAviary failed: no daemon, no such sandbox, not allowed, a limit reached; the message "
     "says what to do"),
    "128 + n\tthe program itself was ended by signal n: 130 after Ctrl-C",
    NULL,
};

const char *const program_exits[] = {
    "N\tthe command ended with N",
    "124\tits --timeout was over, and it was killed",
    "126\tit cannot be executed",
    "127\tit does not exist in the sandbox",
    ("128 + n\tsignal n ended it; 137 with a message about memory: the kernel killed it, as the "
     "sandbox reached its --memory limit (the sandbox lives on)"),
    NULL,
};

const char *const common_environment[] = {
    "AVIARY_URL\tthe daemon, where --url is not given",
    "AVIARY_API_KEY\tthe API key, where --key-file is not given",
    "AVIARY_CA\tthe authorities that may have signed the daemon's certificate, where --ca is not "
    "given",
    "AVIARY_CONFIG_DIR\tdirectory of credentials.json, instead of $XDG_CONFIG_HOME/aviary or "
    "~/.config/aviary",
    "NO_COLOR, CLICOLOR, CLICOLOR_FORCE\tno colours, or colours in a pipe too, as usual",
    NULL,
};

static int run_command(const struct command *command, int argc, char **argv)
{
	struct args args;
	int r = args_parse(&args, command, argc, argv);
	int status = r < 0 ? EXIT_USAGE : 0;
	if (r == 0) {
		struct cli cli = {
		    .args = &args,
		    .json = args_flag(&args, "json"),
		    .quiet = args_flag(&args, "quiet"),
		    .out_is_tty = isatty(STDOUT_FILENO),
		    .err_is_tty = isatty(STDERR_FILENO),
		    .color = has_color(),
		};
		status = command->verbs ? verbs_run(&cli, &args) : command->run(&cli, &args);
		cli_clear(&cli);
	}
	args_clear(&args);
	return flush_output(status);
}

int main(int argc, char **argv)
{
	if (av_fill_standard_fds() < 0)
		return EXIT_PLATFORM;
	signal(SIGPIPE, SIG_IGN);
	if (argc < 2) {
		help_print_overview();
		return flush_output(EXIT_USAGE);
	}
	const char *name = argv[1];
	if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0)
		name = "help";
	else if (strcmp(name, "--version") == 0 || strcmp(name, "-V") == 0)
		name = "version";
	const struct command *command = command_find(name);
	return command ? run_command(command, argc - 2, argv + 2) : unknown_command(name);
}
