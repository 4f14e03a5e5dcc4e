/* SPDX-License-Identifier: Apache-2.0 */
/*
 * limits.c - aviary limits: every bound that holds for this key, and what is used of it
 */
#include <stdio.h>
#include <string.h>

#include "base/json.h"
#include "cli/command.h"
#include "cli/table.h"
#include "cli/verbs.h"

#include "base/banned.h"

static int run(struct cli *cli, const struct args *args)
{
	static const char *const titles[] = {"LIMIT", "OF", "VALUE", "USED", "UNIT", "SET BY"};
	AV_CLEANUP(av_json_decrefp) json_t *reply = NULL;
	struct av_err err = {0};
	const json_t *limit;
	struct table t;
	size_t i;
	int status = cli_connect(cli);

	(void)args;
	if (status)
		return status;
	if (cli_call(cli, "GET", NULL, &reply, &err, "/v1/limits") < 0)
		return cli_fail(cli, &err, NULL);
	if (cli->json)
		cli_print_json(cli, reply);
	if (cli->json || cli_print_rows(cli, json_object_get(reply, "limits"), "name"))
		return 0;
	table_init(&t, AV_ARRAY_LEN(titles), titles);
	t.right[2] = t.right[3] = true;
	json_array_foreach (json_object_get(reply, "limits"), i, limit) {
		const json_t *used = json_object_get(limit, "used");

		table_cell(&t, "%s", cli_text(limit, "name"));
		table_cell(&t, "%s", cli_text(limit, "of"));
		table_cell(&t, "%.10g", json_number_value(json_object_get(limit, "value")));
		if (json_is_number(used))
			table_cell(&t, "%.10g", json_number_value(used));
		else
			table_cell(&t, "-");
		table_cell(&t, "%s", cli_text(limit, "unit"));
		table_cell(&t, "%s", cli_text(limit, "origin"));
	}
	table_print(&t, cli_bold(cli), cli_plain(cli));
	return 0;
}

const struct command command_limits = {
    .name = "limits",
    .usage = "",
    .summary = "show every limit and what is used of it",
    .description = "Lists the bounds that hold for this API key: quotas of its team and of itself "
                   "with what is used of them, and what a sandbox or a request may have. SET BY "
                   "says who can raise one: the key's maker, or an administrator (team, server).",
    .run = run,
};
