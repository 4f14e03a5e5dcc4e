/* SPDX-License-Identifier: Apache-2.0 */
/*
 * restore.c - aviary restore: a backup becomes a state directory
 *
 * aviary-spawn does the work, as the one who makes files of other owners; here the file is
 * uncompressed and handed to it through a pipe.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"
#include "cli/archive_lib.h"
#include "cli/command.h"
#include "cli/places.h"
#include "cli/progress.h"

#include "base/banned.h"

#define READ_SIZE 65536

/* The child's status comes from its last words; this only says whether all was handed over. */
static int feed(int from, int to, bool tty)
{
	struct archive *a = archive_read_new();
	struct archive_entry *e;
	struct progress progress;
	char *bytes = malloc(READ_SIZE);
	la_ssize_t n = -1;

	if (!a || !bytes || archive_read_support_filter_zstd(a) != ARCHIVE_OK ||
	    archive_read_support_format_raw(a) != ARCHIVE_OK ||
	    archive_read_support_format_empty(a) != ARCHIVE_OK ||
	    archive_read_open_fd(a, from, READ_SIZE) != ARCHIVE_OK) {
		cli_warn("cannot read the file: %s", a ? archive_error_string(a) : "out of memory");
	} else {
		progress_init(&progress, tty, "restoring");
		n = archive_read_next_header(a, &e) == ARCHIVE_OK ? 1 : 0;
		while (n > 0 && (n = archive_read_data(a, bytes, READ_SIZE)) > 0) {
			progress_add(&progress, (uint64_t)n);
			if (av_write_full(to, bytes, (size_t)n) < 0)
				break; /* it says itself why it takes no more */
		}
		progress_end(&progress);
		if (n < 0)
			cli_warn("the file is damaged: %s", archive_error_string(a));
	}
	archive_read_free(a);
	free(bytes);
	return n < 0 ? -EBADMSG : 0;
}

static int start(const char *program, const char *state, const char *dir, int *ret_to, pid_t *ret)
{
	int p[2];

	if (pipe2(p, O_CLOEXEC) < 0)
		return -errno;
	fflush(stdout);
	*ret = fork();
	if (*ret == 0) {
		if (dup2(p[0], STDIN_FILENO) >= 0)
			execl(program, program, "--restore", "--state", state, "--run", dir,
			    (char *)NULL);
		_exit(EXIT_PLATFORM);
	}
	av_close_fd(&p[0]);
	if (*ret < 0) {
		av_close_fd(&p[1]);
		return -errno;
	}
	*ret_to = p[1];
	return 0;
}

static int restore(struct cli *cli, const char *file, const char *state, const char *dir)
{
	struct av_err err = {0};
	char program[4096];
	int status = 0, to = -1;
	pid_t pid = -1;

	AV_CLEANUP(av_closep)
	int from = strcmp(file, "-") == 0 ? fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 3)
	                                  : open(file, O_RDONLY | O_CLOEXEC);
	if (from < 0) {
		cli_warn("%s: %s", file, strerror(errno));
		return EXIT_PLATFORM;
	}
	if (archive_lib_load(&err) < 0)
		return cli_fail(cli, &err, NULL);
	if (cli_find_program("aviary-spawn", "spawn", program, sizeof(program)) < 0) {
		cli_warn(
		    "aviary-spawn is not beside this program nor in libexec; reinstall Aviary");
		return EXIT_PLATFORM;
	}
	(void)signal(SIGPIPE, SIG_IGN);
	int r = start(program, state, dir, &to, &pid);
	if (r < 0) {
		cli_warn("%s: %s", program, strerror(-r));
		return EXIT_PLATFORM;
	}
	r = feed(from, to, cli->err_is_tty && !cli->json && !cli->quiet);
	av_close_fd(&to);
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	return r == 0 && WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : EXIT_PLATFORM;
}

static int run(struct cli *cli, const struct args *args)
{
	char state[4096], dir[4096];
	const char *wanted = args_text(args, "state");

	if (!wanted && places_state(state, sizeof(state)) < 0)
		return cli_usage_error(
		    cli, "there is no HOME; name the state directory with --state");
	if (wanted && places_absolute(wanted, state, sizeof(state)) < 0)
		return cli_usage_error(cli, "--state: not a path");
	if (places_run(state, dir, sizeof(dir)) < 0)
		return cli_usage_error(cli, "the path of the state directory is too long");
	int status = restore(cli, args->operands[0], state, dir);
	if (status == 0 && cli->json)
		cli_print_done(cli, "state", state);
	return status;
}

static const struct option_spec options[] = {
    {"state", 0, OPTION_TEXT, "DIR",
        "state directory to make: missing or empty (default: as aviaryd)", COMPLETE_FILES},
    {NULL, 0, OPTION_FLAG, NULL, NULL, COMPLETE_NONE},
};

static const char *const examples[] = {
    "sudo aviary restore /backups/aviary.tar.zst\twhere aviaryd will look for its state",
    "aviary restore --state /tmp/look FILE\tsomewhere else: aviaryd --state /tmp/look",
    NULL,
};

const struct command command_restore = {
    .name = "restore",
    .usage = "FILE|-",
    .summary = "make a state directory of a backup",
    .description =
        "Makes the state directory that `aviary backup` saved: database and templates, each "
        "compared with its checksum. The directory must be missing or empty, and no daemon may "
        "use it. What is cut off, damaged or something else is refused. A restore that was "
        "interrupted leaves a directory that no daemon takes. Start aviaryd afterwards: keys work "
        "as before; sandboxes that lived when the backup was made are stopped, with the reason "
        "'restored'. Restore as the user that made it: root, or an ordinary one.",
    .examples = examples,
    .options = options,
    .min_operands = 1,
    .max_operands = 1,
    .operand_completion = COMPLETE_FILES,
    .run = run,
};
