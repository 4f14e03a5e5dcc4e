/* SPDX-License-Identifier: Apache-2.0 */
/*
 * main.c - aviaryd: options first, then either the supervisor (launch.h) or the daemon (daemon.h)
 *
 * Exit status: 0 after a graceful stop, 1 when it cannot run, 2 for wrong options. The daemon
 * proper says 78 instead (EX_CONFIG of sysexits.h) where starting it again would not help; the
 * supervisor then ends as well.
 */
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"
#include "daemon/config.h"
#include "daemon/config_show.h"
#include "daemon/daemon.h"
#include "daemon/launch.h"
#include "base/banned.h"

#define EXIT_CONFIG 78

static int print_help(void)
{
	AV_CLEANUP(av_buf_clear) struct av_buf out = AV_BUF_INIT(16384);

	if (daemon_config_help(&out) < 0)
		return 1;
	return av_write_full(STDOUT_FILENO, av_buf_str(&out).p, av_buf_str(&out).n) < 0;
}

static int show_config(const struct daemon_config *c, const char *how)
{
	AV_CLEANUP(av_buf_clear) struct av_buf out = AV_BUF_INIT((size_t)1 << 20);
	struct av_err err;

	if (daemon_config_show(c, how, &out, &err) < 0) {
		(void)fprintf(stderr, "aviaryd: %s\n", err.message);
		return 2;
	}
	if (av_write_full(STDOUT_FILENO, av_buf_str(&out).p, av_buf_str(&out).n) < 0)
		return 1;
	if (strcmp(how, "example") != 0 && daemon_launch_check(c, &err) < 0) {
		(void)fprintf(stderr, "aviaryd: this would not start: %s\n", err.message);
		return 2;
	}
	return 0;
}

static int check_config(const char *path)
{
	AV_CLEANUP(av_buf_clear) struct av_buf out = AV_BUF_INIT((size_t)1 << 20);
	unsigned int problems;
	struct av_err err;

	if (daemon_config_check(path, &out, &problems, &err) < 0) {
		(void)fprintf(stderr, "aviaryd: %s\n", err.message);
		return 2;
	}
	if (problems == 0)
		(void)av_buf_printf(&out, "%s: no mistakes\n", path);
	if (av_write_full(STDOUT_FILENO, av_buf_str(&out).p, av_buf_str(&out).n) < 0)
		return 1;
	return problems ? 2 : 0;
}

static void print_warnings(const struct daemon_config *c)
{
	struct av_str rest = av_buf_str(&c->warnings), line;

	while (rest.n > 0) {
		(void)av_str_cut(&rest, '\n', &line);
		(void)fprintf(stderr, "aviaryd: warning: %.*s\n", AV_STR_ARG(line));
	}
}

static int run(const struct daemon_config *c)
{
	struct av_err err;
	int r = c->is_daemon ? daemon_run(c, &err) : daemon_launch(c, &err);

	if (r == 0)
		return 0;
	if (c->is_daemon)
		av_log(AV_LOG_ERROR, "aviaryd cannot run", "error", err.message, NULL);
	else
		(void)fprintf(stderr, "aviaryd: %s\n", err.message);
	if (!c->is_daemon)
		return err.kind == AV_ERR_INVALID ? 2 : 1;
	return err.kind == AV_ERR_INVALID || err.kind == AV_ERR_CONFLICT ||
	               err.kind == AV_ERR_FORBIDDEN
	           ? EXIT_CONFIG
	           : 1;
}

int main(int argc, char **argv)
{
	struct daemon_config c;
	struct av_err err;
	int status;

	(void)signal(SIGPIPE, SIG_IGN);
	if (daemon_config_load(&c, argc, argv, &err) < 0) {
		(void)fprintf(stderr, "aviaryd: %s\n", err.message);
		return 2;
	}
	print_warnings(&c);
	av_log_init("aviaryd", c.log_level, c.log_json);
	if (c.help)
		status = print_help();
	else if (c.version)
		status = puts("aviaryd " AVIARY_VERSION) < 0;
	else if (daemon_config_get(&c, DAEMON_OPT_CHECK_CONFIG))
		status = check_config(daemon_config_get(&c, DAEMON_OPT_CHECK_CONFIG));
	else if (daemon_config_get(&c, DAEMON_OPT_SHOW_CONFIG))
		status = show_config(&c, daemon_config_get(&c, DAEMON_OPT_SHOW_CONFIG));
	else
		status = run(&c);
	daemon_config_clear(&c);
	return status;
}
