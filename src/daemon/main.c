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
	av_log_init("aviaryd", c.log_level, c.log_json);
	if (c.help)
		status = print_help();
	else if (c.version)
		status = puts("aviaryd " AVIARY_VERSION) < 0;
	else
		status = run(&c);
	daemon_config_clear(&c);
	return status;
}
