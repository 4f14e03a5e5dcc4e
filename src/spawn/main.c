/* SPDX-License-Identifier: Apache-2.0 */
/*
 * main.c - aviary-spawn: the only privileged program of Aviary
 *
 * Started as supervisor; it starts itself again as worker (--worker).
 */
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "spawn/cleanup.h"
#include "spawn/options.h"
#include "spawn/restore.h"
#include "spawn/supervisor.h"
#include "spawn/worker.h"
#include "base/banned.h"

int main(int argc, char **argv)
{
	struct spawn_options o;
	struct av_err err = {0};

	if (argc == 2 && !strcmp(argv[1], "--help")) {
		spawn_options_usage();
		return 0;
	}
	if (argc == 2 && !strcmp(argv[1], "--version")) {
		printf("aviary-spawn %s\n", AVIARY_VERSION);
		return 0;
	}
	int r = spawn_options_parse(&o, argc, argv, &err);
	av_log_init(
	    r == 0 && o.worker ? "aviary-spawn-worker" : "aviary-spawn", o.log_level, o.log_json);
	if (r < 0) {
		fprintf(stderr, "aviary-spawn: %s\n", err.message);
		return SPAWN_EXIT_CONFIG;
	}
	if (o.check)
		return 0;
	if (o.restore)
		return restore_main(&o);
	if (o.cleanup)
		return cleanup_main(&o);
	return o.worker ? worker_main(&o) : supervisor_main(&o, argv);
}
