/* SPDX-License-Identifier: Apache-2.0 */
/*
 * version.c - aviary version: of this program, and of the daemon if one answers
 */
#include <stdio.h>

#include "base/json.h"
#include "cli/command.h"

#include "base/banned.h"

static int run(struct cli *cli, const struct args *args)
{
	(void)args;
	AV_CLEANUP(av_json_decrefp) json_t *health = NULL;
	const char *daemon = NULL;
	if (cli->quiet && !cli->json) {
		puts(AVIARY_VERSION);
		return 0;
	}
	/* The daemon's version is a bonus: not having one is no failure. */
	if (cli_connect(cli) == 0) {
		struct cli_request request = {
		    .method = "GET", .path = "/health", .timeout_ms = 2000, .is_anonymous = true};
		if (cli_request(cli, &request, &health, NULL) == 0)
			daemon = json_string_value(json_object_get(health, "version"));
	}
	if (cli->json) {
		AV_CLEANUP(av_json_decrefp)
		json_t *j = json_pack("{s:s, s:s?, s:s?}", "client", AVIARY_VERSION, "daemon",
		    daemon, "url", daemon ? cli->url : NULL);
		cli_print_json(cli, j);
		return 0;
	}
	printf("aviary %s\n", AVIARY_VERSION);
	if (daemon) {
		fputs("aviaryd ", stdout);
		cli_print_safe(stdout, daemon);
		printf(" at %s\n", cli->url);
	}
	return 0;
}

const struct command command_version = {
    .name = "version",
    .usage = "",
    .summary = "versions of this program and of the daemon",
    .run = run,
};
