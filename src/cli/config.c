/* SPDX-License-Identifier: Apache-2.0 */
/*
 * config.c - aviary config: what aviaryd's configuration is, and what is wrong in a file
 *
 * The answer is aviaryd's own, which is run for it: what it would read if it were started now, by
 * this user with this environment.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cli/command.h"

#include "base/banned.h"

static int run_aviaryd(char *const *argv, char *program, size_t size)
{
	if (cli_find_program("aviaryd", "daemon", program, size) < 0) {
		cli_warn(
		    "aviaryd is not beside this program nor in its directory; reinstall Aviary");
		return EXIT_PLATFORM;
	}
	fflush(stdout);
	execv(program, argv);
	cli_warn("%s: %s", program, strerror(errno));
	return EXIT_PLATFORM;
}

static int show(struct cli *cli, const struct args *args)
{
	static char text[] = "--show-config=text", json[] = "--show-config=json";
	static char config[] = "--config";
	const char *file = args_text(args, "config");
	char program[4096], *argv[5] = {program, cli->json ? json : text};

	if (file) {
		argv[2] = config;
		argv[3] = (char *)(uintptr_t)file;
	}
	return run_aviaryd(argv, program, sizeof(program));
}

static int check(struct cli *cli, const struct args *args)
{
	static char check_config[] = "--check-config";
	char program[4096], *argv[4] = {program, check_config, args->operands[1]};

	(void)cli;
	return run_aviaryd(argv, program, sizeof(program));
}

static const struct verb verbs[] = {
    {"show", "", "every option, its value and where that comes from", 0, 0, NULL, COMPLETE_NONE,
        show},
    {"check", "FILE", "every mistake in a configuration file, with its line", 1, 1, "which file",
        COMPLETE_FILES, check},
    {NULL, NULL, NULL, 0, 0, NULL, COMPLETE_NONE, NULL},
};

static const struct option_spec options[] = {
    {"config", 0, OPTION_TEXT, "FILE", "show: as if aviaryd were started with this file",
        COMPLETE_FILES},
    {NULL, 0, OPTION_FLAG, NULL, NULL, COMPLETE_NONE},
};

static const char *const examples[] = {
    "sudo aviary config show\twhat root's daemon would read now",
    "aviary config check /etc/aviary/aviary.conf\tbefore a restart",
    NULL,
};

static const char *const exits[] = {"2\tcheck: there is a mistake in the file", NULL};

const struct command command_config = {
    .name = "config",
    .summary = "show the daemon's configuration, find mistakes in a file",
    .description =
        "An option comes from a flag, a variable, a line of the configuration file, or nowhere "
        "(default). What is shown is what aviaryd would read if this user started it now; a "
        "service has an environment of its own ('systemctl cat aviary').",
    .verbs = verbs,
    .examples = examples,
    .exits = exits,
    .options = options,
    .min_operands = 1,
    .max_operands = 2,
};
