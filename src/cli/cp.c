/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cp.c - aviary cp: files and directories between this machine and a sandbox
 *
 * Single files go through the files API, directories as tar streams between libarchive here and the
 * agent there, both at constant memory. Nothing needs to be installed in the sandbox.
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
#include "base/path.h"
#include "cli/command.h"
#include "cli/progress.h"
#include "cli/remote.h"
#include "cli/tree.h"

#include "base/banned.h"

/* One side of a copy. */
struct place {
	const char *text; /* as given */
	bool is_remote;
	struct av_str box; /* remote: id, beginning of one, or name */
	const char *path;  /* "." for "ID:" */
	char id[AV_ID_SIZE];
};

struct copy {
	struct cli *cli;
	struct progress progress;
	int fd; /* of the local file */
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

static int place_resolve(struct cli *cli, struct place *p, struct av_err *err)
{
	AV_CLEANUP(av_freep) char *box = av_str_dup(p->box);
	return box ? cli_resolve(cli, box, p->id, err)
	           : av_err_sys(err, AV_ERR_NO_MEMORY, ENOMEM, "copy");
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

/* ---- to the sandbox ---- */

static ssize_t on_read(void *ctx, char *p, size_t n)
{
	struct copy *c = ctx;
	ssize_t r;
	do {
		r = read(c->fd, p, n);
	} while (r < 0 && errno == EINTR && !cli_caught_signal());
	if (r > 0)
		progress_add(&c->progress, (uint64_t)r);
	return r < 0 ? -errno : r;
}

static int send_file(struct copy *c, const char *from, const struct stat *st,
    const struct place *to, const char *path, bool exists, struct av_err *err)
{
	bool is_regular = st && S_ISREG(st->st_mode);
	int r = av_client_upload(
	    c->cli->client, to->id, path, is_regular ? st->st_size : -1, on_read, c, err);
	if (r < 0) {
		av_err_prefix(err, "%s", from);
		return r;
	}
	/* New files are 0644 there. */
	if (is_regular && (exists || (st->st_mode & 07777) != 0644) &&
	    remote_chmod(c->cli, to->id, path, st->st_mode, NULL) < 0)
		cli_warn("%s: copied, but its mode could not be set to %04o", path,
		    (unsigned int)(st->st_mode & 07777));
	return 0;
}

static int send_tree(
    struct copy *c, const char *from, const struct place *to, const char *path, struct av_err *err)
{
	AV_CLEANUP(av_tree_freep) struct av_tree *tree = NULL;
	int r = av_tree_open(c->cli->client, to->id, path, true, &tree, err);
	if (r == 0)
		r = tree_send(from, tree, &c->progress, err);
	if (r == 0)
		r = av_tree_finish(tree, err);
	return r;
}

static int copy_in(struct copy *c, const struct place *from, const struct place *to,
    bool must_be_dir, struct av_err *err)
{
	bool is_stdin = strcmp(from->text, "-") == 0;
	struct stat st;
	c->fd = is_stdin ? STDIN_FILENO : open(from->path, O_RDONLY | O_CLOEXEC);
	if (c->fd < 0)
		return av_err_sys(err, AV_ERR_INVALID, errno, "%s", from->path);
	if (fstat(c->fd, &st) < 0)
		return av_err_sys(err, AV_ERR_INVALID, errno, "%s", from->path);

	struct remote_stat rs;
	int r = remote_stat(c->cli, to->id, to->path, &rs, err);
	if (r < 0)
		return r;
	bool is_dir = rs.exists && S_ISDIR(rs.mode);
	if (must_be_dir && !is_dir)
		return av_err_set(err, AV_ERR_INVALID, "%s is not a directory", to->text);
	if (is_stdin && (is_dir || ends_with_slash(to->path)))
		return av_err_set(err, AV_ERR_INVALID,
		    "%s is a directory; standard input needs a file name", to->text);
	AV_CLEANUP(av_freep)
	char *path = is_dir || must_be_dir || (ends_with_slash(to->path) && !S_ISDIR(st.st_mode))
	                 ? path_into(to->path, from->path)
	                 : av_str_dup(av_str_c(to->path));
	if (!path)
		return av_err_set(err, AV_ERR_INVALID, "%s: the path is too long", to->text);
	if (S_ISDIR(st.st_mode)) {
		av_close_fd(&c->fd);
		return send_tree(c, from->path, to, path, err);
	}
	if (S_ISREG(st.st_mode))
		c->progress.total_bytes = (uint64_t)st.st_size;
	r = send_file(c, from->text, is_stdin ? NULL : &st, to, path, rs.exists && !is_dir, err);
	if (!is_stdin)
		av_close_fd(&c->fd);
	return r;
}

/* ---- from the sandbox ---- */

static int on_write(void *ctx, const char *p, size_t n)
{
	struct copy *c = ctx;
	int r = av_write_full(c->fd, p, n);
	progress_add(&c->progress, n);
	return r < 0 ? r : 0;
}

static int receive_file(struct copy *c, const struct place *from, const struct remote_stat *rs,
    const char *path, struct av_err *err)
{
	bool is_new = access(path, F_OK) < 0;
	c->progress.total_bytes = rs->size;
	AV_CLEANUP(av_closep)
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOCTTY, 0666);
	if (fd < 0)
		return av_err_sys(err, AV_ERR_INVALID, errno, "%s", path);
	c->fd = fd;
	int r = av_client_download(c->cli->client, from->id, from->path, on_write, c, err);
	if (r < 0) {
		/* Half a file that was not there before helps nobody. */
		if (is_new)
			unlink(path);
		return r;
	}
	if (is_new && rs->exists && fchmod(fd, rs->mode & 0777) < 0)
		cli_warn("%s: copied, but its mode could not be set: %s", path, strerror(errno));
	return 0;
}

static int receive_tree(
    struct copy *c, const struct place *from, const char *path, struct av_err *err)
{
	AV_CLEANUP(av_tree_freep) struct av_tree *tree = NULL;
	if (mkdir(path, 0777) < 0 && errno != EEXIST)
		return av_err_sys(err, AV_ERR_INVALID, errno, "%s", path);
	int r = av_tree_open(c->cli->client, from->id, from->path, false, &tree, err);
	if (r == 0)
		r = tree_receive(tree, path, &c->progress, err);
	if (r == 0)
		r = av_tree_finish(tree, err);
	return r;
}

/* A directory as tar on standard output. */
static int print_tree(struct copy *c, const struct place *from, struct av_err *err)
{
	AV_CLEANUP(av_tree_freep) struct av_tree *tree = NULL;
	const char *p;
	ssize_t n = 0;
	int r = av_tree_open(c->cli->client, from->id, from->path, false, &tree, err);
	while (r == 0 && (n = av_tree_read(tree, &p, err)) > 0) {
		r = av_write_full(STDOUT_FILENO, p, (size_t)n);
		if (r < 0)
			return av_err_sys(err, AV_ERR_INTERNAL, r, "standard output");
		progress_add(&c->progress, (uint64_t)n);
	}
	return r < 0 ? r : (int)n;
}

static int copy_out(struct copy *c, const struct place *from, const struct place *to,
    bool must_be_dir, struct av_err *err)
{
	struct remote_stat rs;
	struct stat st;
	int r = remote_stat(c->cli, from->id, from->path, &rs, err);
	if (r < 0)
		return r;
	if (!rs.exists)
		return av_err_set(err, AV_ERR_NOT_FOUND, "%s does not exist", from->text);
	bool is_tree = rs.exists && S_ISDIR(rs.mode);
	if (strcmp(to->text, "-") == 0) {
		c->fd = STDOUT_FILENO;
		return is_tree ? print_tree(c, from, err)
		               : av_client_download(
		                     c->cli->client, from->id, from->path, on_write, c, err);
	}
	bool is_dir = stat(to->path, &st) == 0 && S_ISDIR(st.st_mode);
	if (must_be_dir && !is_dir)
		return av_err_set(err, AV_ERR_INVALID, "%s is not a directory", to->text);
	AV_CLEANUP(av_freep)
	char *path = is_dir ? path_into(to->path, from->path) : av_str_dup(av_str_c(to->path));
	if (!path)
		return av_err_set(err, AV_ERR_INVALID, "%s: the path is too long", to->text);
	return is_tree ? receive_tree(c, from, path, err) : receive_file(c, from, &rs, path, err);
}

static int run(struct cli *cli, const struct args *args)
{
	struct av_err err = {0};
	size_t n = args->n_operands - 1;
	struct place to = place_parse(args->operands[n]);
	int status = cli_connect(cli);
	if (status)
		return status;
	if (to.is_remote && place_resolve(cli, &to, &err) < 0)
		return cli_fail(cli, &err, to.text);
	cli_catch_signals();
	for (size_t i = 0; i < n; i++) {
		struct place from = place_parse(args->operands[i]);
		struct copy copy = {.cli = cli, .fd = -1};
		if (from.is_remote == to.is_remote)
			return cli_usage_error(
			    cli, from.is_remote
			             ? "from one sandbox to another: copy through this machine"
			             : "neither side is a sandbox; write SANDBOX:PATH");
		progress_init(
		    &copy.progress, cli->err_is_tty && !args_flag(args, "quiet"), from.text);
		int r = from.is_remote ? place_resolve(cli, &from, &err) : 0;
		if (r == 0)
			r = from.is_remote ? copy_out(&copy, &from, &to, n > 1, &err)
			                   : copy_in(&copy, &from, &to, n > 1, &err);
		progress_end(&copy.progress);
		if (r < 0)
			return cli_fail(cli, &err, NULL);
	}
	return 0;
}

static const struct option_spec options[] = {
    {"quiet", 'q', OPTION_FLAG, NULL, "no progress", COMPLETE_NONE},
    {NULL, 0, OPTION_FLAG, NULL, NULL, COMPLETE_NONE},
};

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
    .options = options,
    .min_operands = 2,
    .max_operands = OPERANDS_ANY,
    .operand_completion = COMPLETE_PATHS,
    .run = run,
};
