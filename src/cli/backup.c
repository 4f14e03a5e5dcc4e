/* SPDX-License-Identifier: Apache-2.0 */
/*
 * backup.c - aviary backup: the whole state of a daemon in one file
 *
 * The daemon makes the archive (tar); here it is compressed where that is asked for, written beside
 * its name, brought to the disk, and given the name as the last step. So what has the name is
 * whole.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/json.h"
#include "base/num.h"
#include "base/path.h"
#include "cli/archive_lib.h"
#include "cli/command.h"

#include "base/banned.h"

#define TEXT_SIZE 512
#define END_SIZE  (4 * TEXT_SIZE) /* header and text of the last member, two blocks of zeros */
#define END_MAGIC "aviary-backup-end 1\n"

struct sink {
	int fd;
	struct archive *zstd; /* owned; NULL: as it comes */
	int error;            /* errno with which it could not be written */
	uint64_t bytes;
	size_t n_end;
	char end[END_SIZE]; /* the last bytes that came */
};

/* ---- out ---- */

static la_ssize_t on_compressed(struct archive *a, void *ctx, const void *p, size_t n)
{
	const struct sink *s = ctx;
	int r = av_write_full(s->fd, p, n);

	if (r < 0) {
		archive_set_error(a, -r, "write");
		return -1;
	}
	return (la_ssize_t)n;
}

/* One file without a name, compressed: format raw. */
static int open_zstd(struct sink *s)
{
	struct archive_entry *e = archive_entry_new();

	s->zstd = archive_write_new();
	if (!e || !s->zstd) {
		archive_entry_free(e);
		return -ENOMEM;
	}
	archive_entry_set_filetype(e, AE_IFREG);
	int r = archive_write_set_format_raw(s->zstd) == ARCHIVE_OK &&
	                archive_write_add_filter_zstd(s->zstd) == ARCHIVE_OK &&
	                archive_write_set_bytes_in_last_block(s->zstd, 1) == ARCHIVE_OK &&
	                archive_write_open(s->zstd, s, NULL, on_compressed, NULL) == ARCHIVE_OK &&
	                archive_write_header(s->zstd, e) == ARCHIVE_OK
	            ? 0
	            : -EOPNOTSUPP;
	archive_entry_free(e);
	return r;
}

static int close_zstd(struct sink *s)
{
	int r = 0;

	if (s->zstd && archive_write_close(s->zstd) != ARCHIVE_OK)
		r = archive_errno(s->zstd) > 0 ? -archive_errno(s->zstd) : -EIO;
	if (s->zstd)
		archive_write_free(AV_TAKE_PTR(s->zstd));
	return r;
}

static void keep_end(struct sink *s, const char *p, size_t n)
{
	size_t take = AV_MIN(n, sizeof(s->end));
	size_t stay = AV_MIN(s->n_end, sizeof(s->end) - take);

	memmove(s->end, s->end + s->n_end - stay, stay);
	memcpy(s->end + stay, p + n - take, take);
	s->n_end = stay + take;
}

/* aviary_write_fn */
static int64_t on_bytes(void *ctx, const void *p, size_t n)
{
	struct sink *s = ctx;

	keep_end(s, p, n);
	s->bytes += n;
	if (!s->zstd)
		s->error = -av_write_full(s->fd, p, n);
	else if (archive_write_data(s->zstd, p, n) != (la_ssize_t)n)
		s->error = archive_errno(s->zstd) > 0 ? archive_errno(s->zstd) : EIO;
	return s->error ? AVIARY_E_LOCAL : (int64_t)n;
}

/* How many templates are not in it; -1: it does not end as a backup does. */
static int left_out(const struct sink *s)
{
	const char *text = s->end + TEXT_SIZE, *without;
	uint64_t n;

	if (s->n_end != END_SIZE || memcmp(text, END_MAGIC, strlen(END_MAGIC)) != 0 ||
	    text[TEXT_SIZE - 1] != '\0' || !(without = strstr(text, "\nwithout ")))
		return -1;
	without += strlen("\nwithout ");
	return av_parse_u64(av_str_n(without, strcspn(without, "\n")), 0, INT_MAX, &n) < 0 ? -1
	                                                                                   : (int)n;
}

/* ---- the command ---- */

static int open_sink(
    struct sink *s, const char *file, bool compress, char *beside, size_t size, struct cli *cli)
{
	struct av_err err = {0};

	if (compress && archive_lib_load(&err) < 0)
		return cli_fail(cli, &err, NULL);
	s->fd = STDOUT_FILENO;
	if (beside[0] == '\0' && isatty(STDOUT_FILENO))
		return cli_usage_error(cli, "standard output is a terminal: name a file");
	if (beside[0] != '\0') {
		if (av_path_printf(beside, size, "%s.partial", file) < 0)
			return cli_usage_error(cli, "the name of the file is too long");
		s->fd = open(beside, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
	}
	if (s->fd < 0) {
		cli_warn("%s: %s", beside, strerror(errno));
		return EXIT_PLATFORM;
	}
	/* Keys of everybody are in it. */
	if (beside[0] != '\0' && fchmod(s->fd, 0600) < 0)
		cli_warn("%s: %s", beside, strerror(errno));
	if (compress && open_zstd(s) < 0) {
		cli_warn("this libarchive has no zstd: leave the ending .zst away");
		return EXIT_PLATFORM;
	}
	return 0;
}

static int finish_file(struct sink *s, const char *beside, const char *file)
{
	AV_CLEANUP(av_closep) int dir = -1;
	char parent[4096];
	struct av_str d = av_path_dir(av_str_c(file));

	if (fsync(s->fd) < 0 || rename(beside, file) < 0 ||
	    av_str_copy(parent, sizeof(parent), d) < 0)
		return -errno;
	dir = open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return dir < 0 || fsync(dir) < 0 ? -errno : 0;
}

static int take(struct cli *cli, struct sink *s, const char *beside, const char *file)
{
	aviary_file_options options = AVIARY_FILE_OPTIONS_INIT;
	struct av_err err = {0};
	int r;

	/* However long the daemon takes from one template to the next. */
	options.idle_timeout_ms = -1;
	r = cli_transfer(cli,
	    aviary_client_download(cli->client, "/v1/admin/backup", on_bytes, s, &options),
	    "backing up", &err);
	if (s->error)
		r = av_err_sys(&err, AV_ERR_INTERNAL, s->error, "%s", beside[0] ? beside : file);
	if (r < 0)
		return cli_fail(cli, &err, file);
	r = left_out(s);
	if (r < 0) {
		cli_warn("the backup is cut off: look at the daemon's log and try again");
		return EXIT_PLATFORM;
	}
	int w = close_zstd(s);
	if (w == 0 && beside[0] != '\0')
		w = finish_file(s, beside, file);
	if (w < 0) {
		cli_warn("%s: %s", file, strerror(-w));
		return EXIT_PLATFORM;
	}
	if (r > 0)
		cli_warn(
		    "%d templates could not be read and are not in the backup: the daemon's log "
		    "names them; delete them or make them again",
		    r);
	if (cli->json && beside[0] != '\0') {
		AV_CLEANUP(av_json_decrefp)
		json_t *j = json_pack("{s:s, s:I, s:i}", "file", file, "bytes",
		    (json_int_t)s->bytes, "templates_left_out", r);
		cli_print_json(cli, j);
	}
	return r > 0 ? 1 : 0;
}

static int run(struct cli *cli, const struct args *args)
{
	const char *file = args->operands[0];
	bool to_stdout = strcmp(file, "-") == 0;
	size_t n = strlen(file);
	bool compress = args_flag(args, "zstd") || (n > 4 && strcmp(file + n - 4, ".zst") == 0);
	char beside[4096] = "";
	struct sink s = {.fd = -1};
	int status = cli_connect(cli);

	if (status)
		return status;
	cli_catch_signals();
	beside[0] = to_stdout ? '\0' : '+';
	status = open_sink(&s, file, compress, beside, sizeof(beside), cli);
	if (status == 0)
		status = take(cli, &s, beside, file);
	if (s.zstd)
		archive_write_free(s.zstd);
	if (s.fd >= 0 && !to_stdout) {
		if (status != 0 && status != 1)
			(void)unlink(beside);
		av_close_fd(&s.fd);
	}
	return status;
}

static const struct option_spec options[] = {
    {"zstd", 'z', OPTION_FLAG, NULL, "compress it, also when its name does not end in .zst",
        COMPLETE_NONE},
    {NULL, 0, OPTION_FLAG, NULL, NULL, COMPLETE_NONE},
};

static const char *const examples[] = {
    "aviary backup /backups/aviary.tar.zst\tall there is, compressed, while sandboxes run",
    "aviary backup -z - | ssh other 'cat >aviary.tar.zst'\tto another machine",
    NULL,
};

const struct command command_backup = {
    .name = "backup",
    .usage = "FILE|-",
    .summary = "save the whole state of a daemon in one file",
    .description =
        "Writes the database (accounts, teams, keys, records, history, usage, settings) and every "
        "template into one tar archive with a checksum, while the daemon goes on; for "
        "administrators. Sandboxes that run are in it as records only: neither their processes "
        "nor their disks. Take a snapshot of what must survive. The configuration file and TLS "
        "keys are not in it. Keep the file safe: whoever has it can pass for every user.",
    .examples = examples,
    .options = options,
    .min_operands = 1,
    .max_operands = 1,
    .operand_completion = COMPLETE_FILES,
    .run = run,
};
