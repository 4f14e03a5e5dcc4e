/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cleanup.c - aviary cleanup: remove what a dead instance left behind
 *
 * The work is done by aviary-spawn, which alone may kill cgroups and unmount; this asks the
 * questions. It refuses while the instance lives: the supervisor holds a lock on the state
 * directory, and aviary-spawn takes that lock first.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cli/command.h"
#include "cli/places.h"

#include "base/banned.h"

static bool confirm(const char *state)
{
	char answer[16];
	fprintf(stderr,
	    "This deletes %s with all sandboxes, templates and API keys. Type 'yes': ", state);
	fflush(stderr);
	return fgets(answer, sizeof(answer), stdin) && strcmp(answer, "yes\n") == 0;
}

/* Runs aviary-spawn; its exit status. */
static int clean(const char *program, const char *state, const char *dir, bool all, bool hush)
{
	int status;
	pid_t pid;

	fflush(stdout);
	pid = fork();
	if (pid == 0) {
		if (hush)
			(void)dup2(STDERR_FILENO, STDOUT_FILENO);
		execl(program, program, "--cleanup", "--state", state, "--run", dir,
		    all ? "--all" : (char *)NULL, (char *)NULL);
		cli_warn("%s: %s", program, strerror(errno));
		_exit(EXIT_PLATFORM);
	}
	if (pid < 0 || waitpid(pid, &status, 0) < 0) {
		cli_warn("%s: %s", program, strerror(errno));
		return EXIT_PLATFORM;
	}
	return WIFEXITED(status) ? WEXITSTATUS(status) : EXIT_PLATFORM;
}

/* The key of a daemon whose database is gone opens nothing. Only where the first start of the
 * default instance puts it: another one's --credentials is not ours to know. */
static void remove_credentials(void)
{
	char path[4096];

	for (int i = 0; i < 2; i++) {
		if (cli_credentials_path(i, path, sizeof(path)) < 0)
			continue;
		char *slash = strrchr(path, '/');
		if (unlink(path) < 0 && errno != ENOENT && errno != ENOTDIR && errno != EACCES)
			cli_warn("%s: %s", path, strerror(errno));
		*slash = '\0';
		(void)rmdir(path); /* a configuration may be in it */
	}
}

static int run(struct cli *cli, const struct args *args)
{
	char state_default[4096], run_default[4096], program[4096];
	const char *state = args_text(args, "state"), *dir = args_text(args, "run");
	bool all = args_flag(args, "all"), is_default = !state && !getenv("AVIARY_STATE");
	struct stat st;

	if (!state && places_state(state_default, sizeof(state_default)) < 0)
		return cli_usage_error(
		    cli, "there is no HOME; name the state directory with --state");
	if (state && places_absolute(state, state_default, sizeof(state_default)) < 0)
		return cli_usage_error(cli, "--state: not a path");
	state = state_default;
	if (!dir && places_run(state, run_default, sizeof(run_default)) < 0)
		return cli_usage_error(cli, "the path of the state directory is too long");
	if (dir && places_absolute(dir, run_default, sizeof(run_default)) < 0)
		return cli_usage_error(cli, "--run: not a path");
	dir = run_default;
	if (stat(state, &st) < 0 && errno == ENOENT && stat(dir, &st) < 0 && errno == ENOENT) {
		if (cli->json)
			cli_print_done(cli, "state", state);
		else if (!cli->quiet)
			printf("nothing to clean up: neither %s nor %s exists\n", state, dir);
		return 0;
	}
	if (all && !args_flag(args, "yes")) {
		if (!isatty(STDIN_FILENO))
			return cli_usage_error(
			    cli, "--all deletes everything in %s; say --yes", state);
		if (!confirm(state))
			return EXIT_PLATFORM;
	}
	if (cli_find_program("aviary-spawn", "spawn", program, sizeof(program)) < 0) {
		cli_warn(
		    "aviary-spawn is not beside this program nor in libexec; reinstall Aviary");
		return EXIT_PLATFORM;
	}
	int r = clean(program, state, dir, all, cli->json || cli->quiet);
	if (r == 0 && all && is_default)
		remove_credentials();
	if (r == 0 && cli->json)
		cli_print_done(cli, "state", state);
	return r;
}

static const struct option_spec options[] = {
    {"state", 0, OPTION_TEXT, "DIR", "state directory of the instance (default: as aviaryd)",
        COMPLETE_FILES},
    {"run", 0, OPTION_TEXT, "DIR", "its run directory (default: as aviaryd)", COMPLETE_FILES},
    {"all", 'a', OPTION_FLAG, NULL, "delete its state too: sandboxes' files, templates, keys",
        COMPLETE_NONE},
    {"yes", 'y', OPTION_FLAG, NULL, "do not ask", COMPLETE_NONE},
    {NULL, 0, OPTION_FLAG, NULL, NULL, COMPLETE_NONE},
};

static const char *const examples[] = {
    "aviary cleanup\tafter a crash, or before removing the package",
    "aviary cleanup --all\tas if Aviary had never run",
    NULL,
};

const struct command command_cleanup = {
    .name = "cleanup",
    .usage = "",
    .summary = "remove what a dead daemon left behind",
    .description =
        "Kills the sandboxes of an instance whose daemon no longer runs and removes its "
        "mounts, control groups and run directory; with --all its state directory too, and the key "
        "that its first start wrote. It refuses "
        "while that daemon runs: use 'aviary rm --all' then. Sandboxes outlive a daemon on "
        "purpose: "
        "one that is started again takes them over, without any cleaning up.",
    .examples = examples,
    .options = options,
    .run = run,
};
