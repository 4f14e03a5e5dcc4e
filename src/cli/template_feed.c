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
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/avtime.h"
#include "base/fd.h"
#include "base/num.h"

#include "base/banned.h"

#define DRAW_NS  (AV_NS_PER_S / 4)
#define POLL_MS  250
#define STOP_NS  (20 * AV_NS_PER_S) /* a recipe that is told to end may take so long to clean up */
#define STEP_MIN 16                 /* columns, however narrow the terminal is */

/* ---- what people see ---- */

static int columns(void)
{
	struct winsize w;
	return ioctl(STDERR_FILENO, TIOCGWINSZ, &w) == 0 && w.ws_col ? w.ws_col : 80;
}

/* How much of the step fits into so many columns; not half a character. */
static int fitting(const char *step, int room)
{
	size_t most = (size_t)AV_MAX(room, STEP_MIN), n = AV_MIN(strlen(step), most);
	while (n && ((unsigned char)step[n] & 0xc0) == 0x80)
		n--;
	return (int)n;
}

static void draw(struct feed *f, bool now)
{
	int64_t t = av_mono_ns();
	char size[24] = "", tail[64];
	if (!f->cli->err_is_tty || (!now && t - f->drawn_ns < DRAW_NS))
		return;
	f->drawn_ns = t;
	f->drawn = true;
	if (f->bytes)
		av_format_size(f->bytes, size);
	/* A line that wraps could not be taken away again. */
	int n = snprintf(tail, sizeof(tail), "%s%s, %d s", f->bytes ? ", " : "", size,
	    (int)((t - f->began_ns) / AV_NS_PER_S));
	int room = columns() - 1 - (int)strlen(f->name) - 2 - n;
	fprintf(stderr, "\r\033[K%s: %.*s%s", f->name, fitting(f->step, room), f->step, tail);
	fflush(stderr);
}

static void set_step(struct feed *f, const char *step)
{
	snprintf(f->step, sizeof(f->step), "%s", step);
	for (char *p = f->step; *p; p++)
		if ((unsigned char)*p < ' ' || *p == 0x7f)
			*p = ' ';
}

void feed_step(struct feed *f, const char *step)
{
	bool again = strncmp(f->step, step, sizeof(f->step) - 1) == 0;
	set_step(f, step);
	if (!f->cli->err_is_tty && !again)
		fprintf(stderr, "%s: %s\n", f->name, f->step);
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
	if (f->stopping || !text[0] || (!marked && !f->cli->err_is_tty))
		return;
	if (!marked) {
		set_step(f, text);
		draw(f, false);
	} else {
		feed_step(f, text[0] == 'I' ? text + 3 : text);
	}
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
	return (struct feed){.cli = cli,
	    .name = name,
	    .tar = -1,
	    .lines = -1,
	    .pidfd = -1,
	    .step = "starting",
	    .began_ns = av_mono_ns()};
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
	if (r != 0)
		f->pid = 0;
	else if ((f->pidfd = av_pidfd_open(f->pid)) < 0)
		r = -f->pidfd;
	if (r != 0) {
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

int64_t feed_read(void *ctx, void *p, size_t n)
{
	struct feed *f = ctx;
	int r;
	while ((r = turn(f)) == 0)
		continue;
	if (r < 0)
		return r == -ECANCELED ? AVIARY_E_CANCELED : AVIARY_E_LOCAL;
	ssize_t got = read(f->tar, p, n);
	if (got > 0)
		f->bytes += (uint64_t)got;
	f->ended = got == 0;
	return got < 0 ? AVIARY_E_LOCAL : got;
}

/* Waits for the end of the recipe and hears what it says until then. */
static bool has_ended(struct feed *f)
{
	struct pollfd p[] = {
	    {.fd = f->pidfd, .events = POLLIN}, {.fd = f->lines, .events = POLLIN}};
	if (poll(p, 2, POLL_MS) <= 0)
		return false;
	if (p[0].revents)
		kill(-f->pid, SIGKILL); /* what it left running */
	if (p[1].revents)
		take_lines(f);
	return p[0].revents && !p[1].revents;
}

/* Its exit status; by force where it has not ended. */
static int reap(struct feed *f)
{
	int status = 0;
	kill(-f->pid, SIGKILL);
	while (waitpid(f->pid, &status, 0) < 0 && errno == EINTR)
		continue;
	f->pid = 0;
	av_close_fd(&f->pidfd);
	return status;
}

int feed_finish(struct feed *f, struct av_err *err)
{
	if (!f->pid)
		return 0;
	av_close_fd(&f->tar);
	while (!has_ended(f)) {
		if (cli_caught_signal())
			return av_err_set(err, AV_ERR_CANCELED, "interrupted");
		draw(f, false);
	}
	if (reap(f) == 0)
		return 0;
	return av_err_set(err, AV_ERR_INTERNAL, "the recipe failed: %s",
	    f->error[0]  ? f->error
	    : f->step[0] ? f->step
	                 : "it said nothing");
}

/* It gets the time to clean up, and somebody who reads what it says meanwhile. */
static void stop(struct feed *f)
{
	int64_t until = av_mono_ns() + STOP_NS;
	bool killed = f->pidfd < 0;
	if (!killed)
		feed_step(f, "stopping");
	f->stopping = true;
	kill(-f->pid, killed ? SIGKILL : SIGTERM);
	while (!killed && !has_ended(f)) {
		draw(f, false);
		killed = av_mono_ns() > until;
	}
	(void)reap(f);
}

void feed_close(struct feed *f)
{
	av_close_fd(&f->tar);
	if (f->pid)
		stop(f);
	av_close_fd(&f->lines);
	if (f->drawn)
		fputs("\r\033[K", stderr);
	f->drawn = false;
}
