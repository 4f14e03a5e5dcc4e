/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cp.c - aviary cp: files and directories between this machine and a sandbox
 *
 * The library moves them (aviary/files.h), at constant memory; directories as tar streams. Nothing
 * needs to be installed in the sandbox, and what it sends cannot leave the target directory.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/fd.h"
#include "base/json.h"
#include "base/path.h"
#include "cli/command.h"

#include "base/banned.h"

/* One side of a copy. */
struct place {
	const char *text; /* as given */
	bool is_remote;
	struct av_str box;  /* remote: id, beginning of one, or name */
	const char *path;   /* "." for "ID:" */
	aviary_sandbox *sb; /* owned; NULL until it is resolved */
};

static struct place place_parse(const char *text)
{
	struct place p = {.text = text, .path = text};
	const char *colon = strchr(text, ':');
	/* "./a:b" is a file with a colon. */
	if (!colon || colon == text || memchr(text, '/', (size_t)(colon - text)))
		return p;
	p.is_remote = true;
	p.box = av_str_n(text, (size_t)(colon - text));
	p.path = colon[1] ? colon + 1 : ".";
	return p;
}

static void place_clear(struct place *p)
{
	aviary_sandbox_free(p->sb);
}

static int place_resolve(struct cli *cli, struct place *p, struct av_err *err)
{
	AV_CLEANUP(av_freep) char *box = av_str_dup(p->box);
	char id[AV_ID_SIZE];
	int r;

	if (!p->is_remote)
		return 0;
	r = box ? cli_resolve(cli, box, id, err) : -ENOMEM;
	p->sb = r == 0 ? aviary_sandbox_attach_running(cli->client, id) : NULL;
	return r == 0 && !p->sb ? av_err_set(err, AV_ERR_NO_MEMORY, "out of memory") : r;
}

/* dir + "/" + last component of source. Components that name no entry ("." "..") add nothing: the
 * contents are meant. The caller frees. */
static char *path_into(const char *dir, const char *source)
{
	struct av_str base = av_str_c(source);
	while (base.n > 1 && base.p[base.n - 1] == '/')
		base.n--;
	base = av_path_base(base);
	AV_CLEANUP(av_buf_clear) struct av_buf b = AV_BUF_INIT(AV_PATH_MAX + 1);
	size_t n = strlen(dir);
	av_buf_append(&b, dir, n);
	if (!av_str_eq_c(base, ".") && !av_str_eq_c(base, "..") && !av_str_eq_c(base, "/")) {
		if (n == 0 || dir[n - 1] != '/')
			av_buf_append_char(&b, '/');
		av_buf_append_str(&b, base);
	}
	return av_buf_error(&b) ? NULL : av_str_dup(av_buf_str(&b));
}

static bool ends_with_slash(const char *path)
{
	size_t n = strlen(path);
	return n > 0 && path[n - 1] == '/';
}

/* What is there; "exists" is false for what is not, and for a link that leads nowhere: writing
 * there makes what it leads to. */
struct found {
	bool exists, is_dir;
	unsigned mode;
};

static int look(struct cli *cli, const struct place *p, struct found *ret, struct av_err *err)
{
	aviary_op *op = aviary_file_exists(p->sb, p->path, NULL);
	int r = cli_wait(cli, op, err);
	aviary_entry *entry = r == 0 ? aviary_op_take_entry(op) : NULL;
	const aviary_file_entry *f = entry ? entry->entry : NULL;

	*ret = (struct found){.exists = f && f->type != AVIARY_FILE_TYPE_SYMLINK};
	if (ret->exists) {
		ret->is_dir = f->type == AVIARY_FILE_TYPE_DIRECTORY;
		ret->mode = (unsigned)f->mode;
	}
	aviary_entry_free(entry);
	aviary_op_free(op);
	return r;
}

static void on_left_out(void *ctx, const char *path)
{
	(void)ctx;
	cli_warn("%s: left out, as it is neither a file nor a directory nor a link", path);
}

static const aviary_file_options tree_options = {
    .struct_size = sizeof(aviary_file_options), .on_left_out = on_left_out};

/* ---- to the sandbox ---- */

static int send_file(struct cli *cli, int fd, const char *from, const struct stat *st,
    const struct place *to, const char *path, bool exists, struct av_err *err)
{
	unsigned mode = st->st_mode & 07777;
	int r = cli_transfer(cli, aviary_file_upload_fd(to->sb, path, fd, NULL), from, err);

	if (r < 0) {
		av_err_prefix(err, "%s", from);
		return r;
	}
	/* New files are 0644 there. */
	if (!S_ISREG(st->st_mode) || (!exists && mode == 0644))
		return 0;
	if (cli_transfer(cli, aviary_file_chmod(to->sb, path, mode, NULL), from, NULL) < 0)
		cli_warn("%s: copied, but its mode could not be set to %04o", path, mode);
	return 0;
}

static int copy_in(struct cli *cli, const struct place *from, const struct place *to,
    bool must_be_dir, struct av_err *err)
{
	bool is_stdin = strcmp(from->text, "-") == 0;
	AV_CLEANUP(av_freep) char *path = NULL;
	AV_CLEANUP(av_closep)
	int fd = is_stdin ? fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 3)
	                  : open(from->path, O_RDONLY | O_CLOEXEC);
	struct found there;
	struct stat st;
	int r;

	if (fd < 0 || fstat(fd, &st) < 0)
		return av_err_sys(err, AV_ERR_INVALID, errno, "%s", from->path);
	r = look(cli, to, &there, err);
	if (r < 0)
		return r;
	if (must_be_dir && !there.is_dir)
		return av_err_set(err, AV_ERR_INVALID, "%s is not a directory", to->text);
	if (is_stdin && (there.is_dir || ends_with_slash(to->path)))
		return av_err_set(err, AV_ERR_INVALID,
		    "%s is a directory; standard input needs a file name", to->text);
	path = there.is_dir || (ends_with_slash(to->path) && !S_ISDIR(st.st_mode))
	           ? path_into(to->path, from->path)
	           : av_str_dup(av_str_c(to->path));
	if (!path)
		return av_err_set(err, AV_ERR_INVALID, "%s: the path is too long", to->text);
	if (S_ISDIR(st.st_mode) && !is_stdin)
		return cli_transfer(cli,
		    aviary_tree_upload(to->sb, from->path, path, &tree_options), from->text, err);
	return send_file(cli, fd, from->text, &st, to, path, there.exists, err);
}

/* ---- from the sandbox ---- */

static int receive_file(struct cli *cli, const struct place *from, const struct found *file,
    const char *path, struct av_err *err)
{
	bool is_new = access(path, F_OK) < 0;
	AV_CLEANUP(av_closep)
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOCTTY, 0666);
	int r;

	if (fd < 0)
		return av_err_sys(err, AV_ERR_INVALID, errno, "%s", path);
	r = cli_transfer(
	    cli, aviary_file_download_fd(from->sb, from->path, fd, NULL), from->text, err);
	/* Half a file that was not there before helps nobody. */
	if (r < 0 && is_new)
		unlink(path);
	if (r == 0 && is_new && fchmod(fd, file->mode & 0777) < 0)
		cli_warn("%s: copied, but its mode could not be set: %s", path, strerror(errno));
	return r;
}

static int copy_out(struct cli *cli, const struct place *from, const struct place *to,
    bool must_be_dir, struct av_err *err)
{
	struct found file;
	AV_CLEANUP(av_freep) char *path = NULL;
	struct stat st;
	int r = look(cli, from, &file, err);

	if (r < 0)
		return r;
	if (!file.exists)
		return av_err_set(err, AV_ERR_NOT_FOUND, "%s does not exist", from->text);
	if (strcmp(to->text, "-") == 0)
		return cli_transfer(cli,
		    file.is_dir
		        ? aviary_tar_download_fd(from->sb, from->path, STDOUT_FILENO, NULL)
		        : aviary_file_download_fd(from->sb, from->path, STDOUT_FILENO, NULL),
		    from->text, err);
	bool is_dir = stat(to->path, &st) == 0 && S_ISDIR(st.st_mode);
	if (must_be_dir && !is_dir)
		return av_err_set(err, AV_ERR_INVALID, "%s is not a directory", to->text);
	path = is_dir ? path_into(to->path, from->path) : av_str_dup(av_str_c(to->path));
	if (!path)
		return av_err_set(err, AV_ERR_INVALID, "%s: the path is too long", to->text);
	return file.is_dir ? cli_transfer(cli,
	                         aviary_tree_download(from->sb, from->path, path, &tree_options),
	                         from->text, err)
	                   : receive_file(cli, from, &file, path, err);
}

/* ---- the command ---- */

static int copy_one(struct cli *cli, const char *text, const struct place *to, bool must_be_dir)
{
	AV_CLEANUP(place_clear) struct place from = place_parse(text);
	struct av_err err = {0};
	int r;

	if (from.is_remote == to->is_remote)
		return cli_usage_error(
		    cli, from.is_remote ? "from one sandbox to another: copy through this machine"
		                        : "neither side is a sandbox; write SANDBOX:PATH");
	r = place_resolve(cli, &from, &err);
	if (r == 0)
		r = from.is_remote ? copy_out(cli, &from, to, must_be_dir, &err)
		                   : copy_in(cli, &from, to, must_be_dir, &err);
	if (r < 0)
		return cli_fail(cli, &err, NULL);
	if (cli->json && strcmp(to->text, "-") != 0) {
		AV_CLEANUP(av_json_decrefp)
		json_t *j = json_pack("{s:s, s:s}", "from", from.text, "to", to->text);
		cli_print_json(cli, j);
	}
	return 0;
}

static int run(struct cli *cli, const struct args *args)
{
	size_t n = args->n_operands - 1;
	AV_CLEANUP(place_clear) struct place to = place_parse(args->operands[n]);
	struct av_err err = {0};
	int status = cli_connect(cli);

	if (status)
		return status;
	if (place_resolve(cli, &to, &err) < 0)
		return cli_fail(cli, &err, to.text);
	cli_catch_signals();
	for (size_t i = 0; i < n && status == 0; i++)
		status = copy_one(cli, args->operands[i], &to, n > 1);
	return status;
}

static const char *const examples[] = {
    "aviary cp report.csv work:/data/\ta file into the sandbox named 'work'",
    "aviary cp project/ sb4f:/root/project\ta directory",
    "aviary cp work:/root/out ./results\ta directory back",
    "aviary cp work:/etc/os-release -\ta file to standard output",
    NULL,
};

const struct command command_cp = {
    .name = "cp",
    .usage = "FROM… TO",
    .summary = "copy files and directories into or out of a sandbox",
    .description =
        "One side is SANDBOX:PATH, the other a local path or '-' for standard input or "
        "output (a directory becomes a tar stream). Paths in the sandbox that do not begin with "
        "'/' "
        "start at the user's home. Directories are copied with all that is in them; into a "
        "directory "
        "that exists they get their own name there. Modes are kept, owners are not.\n\n"
        "What a sandbox sends cannot leave the target directory.",
    .examples = examples,
    .min_operands = 2,
    .max_operands = OPERANDS_ANY,
    .operand_completion = COMPLETE_PATHS,
    .more_completion = COMPLETE_PATHS,
    .run = run,
};
