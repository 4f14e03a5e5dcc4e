/* SPDX-License-Identifier: Apache-2.0 */
/*
 * template_feed.c - a tar archive on its way from a recipe to the daemon, and what people see of it
 *
 * A recipe says what it does on its standard error: lines that begin with "I: ", "W: " or "E: " as
 * apt's tools have it, and anything else from programs that it runs. On a terminal one line shows
 * the last of them and the time; in a pipe those with such a mark are passed on, each with the
 * template's name before it.
 */
#include "cli/template.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/avtime.h"
#include "base/fd.h"
#include "base/num.h"

#include "base/banned.h"

#define DRAW_NS (AV_NS_PER_S / 4)
#define POLL_MS 250

/* ---- what people see ---- */

static void draw(struct feed *f, bool now)
{
	int64_t t = av_mono_ns();
	char size[24] = "";
	if (!f->cli->err_is_tty || (!now && t - f->drawn_ns < DRAW_NS))
		return;
	f->drawn_ns = t;
	f->drawn = true;
	if (f->bytes)
		av_format_size(f->bytes, size);
	fprintf(stderr, "\r\033[K%s: %.60s%s%s, %d s", f->name, f->step, f->bytes ? ", " : "", size,
	    (int)((t - f->began_ns) / AV_NS_PER_S));
	fflush(stderr);
}

void feed_step(struct feed *f, const char *step)
{
	snprintf(f->step, sizeof(f->step), "%s", step);
	for (char *p = f->step; *p; p++)
		if ((unsigned char)*p < ' ' || *p == 0x7f)
			*p = ' ';
	if (!f->cli->err_is_tty)
		fprintf(stderr, "%s: %s\n", f->name, f->step);
	else
		draw(f, true);
}

/* "I: installing packages..." */
static void take_line(struct feed *f)
{
	const char *text = f->line;
	f->line[f->n] = '\0';
	f->n = 0;
	bool marked = text[0] && strchr("IWE", text[0]) && text[1] == ':' && text[2] == ' ';
	if (marked && text[0] == 'E' && !f->error[0])
		snprintf(f->error, sizeof(f->error), "%s", text + 3);
	/* What programs below the recipe say is for who looks on, and too much for a log. */
	if (!text[0] || (!marked && !f->cli->err_is_tty) ||
	    strncmp(text, "I: running --customize-hook", 27) == 0)
		return;
	feed_step(f, marked && text[0] == 'I' ? text + 3 : text);
}

static void take_lines(struct feed *f)
{
	char buf[1024];
	ssize_t n = read(f->lines, buf, sizeof(buf));
	if (n < 0 && (errno == EINTR || errno == EAGAIN))
		return;
	if (n <= 0)
		av_close_fd(&f->lines);
	for (ssize_t i = 0; i < n; i++) {
		if (buf[i] == '\n' || buf[i] == '\r' || f->n == sizeof(f->line) - 1)
			take_line(f);
		else
			f->line[f->n++] = buf[i];
	}
}

/* ---- the archive ---- */

static struct feed empty(const struct cli *cli, const char *name)
{
	return (struct feed){
	    .cli = cli, .name = name, .tar = -1, .lines = -1, .began_ns = av_mono_ns()};
}

int feed_open(
    struct feed *f, const struct cli *cli, const char *name, const char *path, struct av_err *err)
{
	*f = empty(cli, name);
	f->tar = strcmp(path, "-") == 0 ? fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 3)
	                                : open(path, O_RDONLY | O_CLOEXEC);
	return f->tar < 0 ? av_err_sys(err, AV_ERR_INVALID, errno, "cannot open %s", path) : 0;
}

int feed_start(
    struct feed *f, const struct cli *cli, const char *name, const char *path, struct av_err *err)
{
	int out[2] = {-1, -1}, lines[2] = {-1, -1};
	char *argv[] = {(char *)(uintptr_t)path, NULL};
	posix_spawn_file_actions_t fa;
	posix_spawnattr_t attr;
	*f = empty(cli, name);
	if (pipe2(out, O_CLOEXEC) < 0 || pipe2(lines, O_CLOEXEC) < 0 ||
	    posix_spawn_file_actions_init(&fa) != 0 || posix_spawnattr_init(&attr) != 0) {
		av_close_fd(&out[0]);
		av_close_fd(&out[1]);
		return av_err_sys(err, AV_ERR_INTERNAL, errno, "pipe");
	}
	int r = posix_spawn_file_actions_addopen(&fa, 0, "/dev/null", O_RDONLY, 0);
	if (r == 0)
		r = posix_spawn_file_actions_adddup2(&fa, out[1], 1);
	if (r == 0)
		r = posix_spawn_file_actions_adddup2(&fa, lines[1], 2);
	/* Programs below write to descriptors by number, and some shells know only ten. */
	if (r == 0)
		r = posix_spawn_file_actions_addclosefrom_np(&fa, 3);
	/* In a group of its own: it may signal that when it fails, and we end all of it. */
	if (r == 0)
		r = posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETPGROUP);
	if (r == 0)
		r = posix_spawn(&f->pid, path, &fa, &attr, argv, environ);
	posix_spawn_file_actions_destroy(&fa);
	posix_spawnattr_destroy(&attr);
	close(out[1]);
	close(lines[1]);
	f->tar = out[0];
	f->lines = lines[0];
	if (r != 0) {
		f->pid = 0;
		feed_close(f);
		return av_err_sys(err, AV_ERR_INTERNAL, r, "cannot run %s", path);
	}
	return 0;
}

/* 1: the archive can be read (or is over); 0: not yet; -errno. */
static int turn(struct feed *f)
{
	struct pollfd p[] = {{.fd = f->tar, .events = POLLIN}, {.fd = f->lines, .events = POLLIN}};
	int r = poll(p, 2, POLL_MS);
	if (cli_caught_signal())
		return -ECANCELED;
	if (r < 0 && errno != EINTR)
		return -errno;
	if (r > 0 && p[1].revents)
		take_lines(f);
	draw(f, false);
	return r > 0 && p[0].revents ? 1 : 0;
}

int feed_wait(struct feed *f, struct av_err *err)
{
	int r;
	while ((r = turn(f)) == 0)
		continue;
	if (r == -ECANCELED)
		return av_err_set(err, AV_ERR_CANCELED, "interrupted");
	return r < 0 ? av_err_sys(err, AV_ERR_INTERNAL, r, "poll") : 0;
}

ssize_t feed_read(void *ctx, char *p, size_t n)
{
	struct feed *f = ctx;
	int r;
	while ((r = turn(f)) == 0)
		continue;
	if (r < 0)
		return r;
	ssize_t got = read(f->tar, p, n);
	if (got > 0)
		f->bytes += (uint64_t)got;
	f->ended = got == 0;
	return got < 0 ? -errno : got;
}

int feed_finish(struct feed *f, struct av_err *err)
{
	int status = 0;
	if (!f->pid)
		return 0;
	av_close_fd(&f->tar);
	while (f->lines >= 0 && turn(f) >= 0)
		continue;
	while (waitpid(f->pid, &status, 0) < 0 && errno == EINTR)
		continue;
	f->pid = 0;
	if (status == 0)
		return 0;
	return av_err_set(err, AV_ERR_INTERNAL, "the recipe failed: %s",
	    f->error[0]  ? f->error
	    : f->step[0] ? f->step
	                 : "it said nothing");
}

void feed_close(struct feed *f)
{
	av_close_fd(&f->tar);
	av_close_fd(&f->lines);
	if (f->pid) {
		kill(-f->pid, SIGTERM);
		while (waitpid(f->pid, NULL, 0) < 0 && errno == EINTR)
			continue;
	}
	f->pid = 0;
	if (f->drawn)
		fputs("\r\033[K", stderr);
	f->drawn = false;
}
