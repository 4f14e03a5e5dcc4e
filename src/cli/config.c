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

static int run(struct cli *cli, const struct args *args)
{
	static char text[] = "--show-config=text", json[] = "--show-config=json";
	static char check[] = "--check-config", config[] = "--config";
	const char *what = args->operands[0], *file = args_text(args, "config");
	char program[4096], *argv[5] = {program};

	if (strcmp(what, "show") == 0 && args->n_operands == 1) {
		argv[1] = cli->json ? json : text;
		argv[2] = file ? config : NULL;
		argv[3] = (char *)(uintptr_t)file;
	} else if (strcmp(what, "check") == 0 && args->n_operands == 2) {
		argv[1] = check;
		argv[2] = args->operands[1];
	} else {
		return cli_usage_error(cli, "say 'config show' or 'config check FILE'");
	}
	return run_aviaryd(argv, program, sizeof(program));
}

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

const struct command command_config = {
    .name = "config",
    .usage = "show | check FILE",
    .summary = "show the daemon's configuration, find mistakes in a file",
    .description =
        "show lists every option, its value and where that comes from: a flag, a variable, a "
        "line of the configuration file, or nowhere (default). It is what aviaryd would read if "
        "this user started it now; a service has an environment of its own ('systemctl cat "
        "aviary').\n"
        "check reads a file by itself and names every mistake with its line; the exit status "
        "is 2 if there is one.",
    .examples = examples,
    .options = options,
    .min_operands = 1,
    .max_operands = 2,
    .operand_completion = COMPLETE_FILES,
    .run = run,
};
