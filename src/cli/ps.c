/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ps.c - aviary ps: processes started in a sandbox
 */
#include <stdio.h>

#include "base/buf.h"
#include "base/json.h"
#include "cli/command.h"
#include "cli/table.h"

#include "base/banned.h"

static void add_row(struct table *t, const json_t *process)
{
	AV_CLEANUP(av_buf_clear) struct av_buf line = AV_BUF_INIT(400);
	const char *cmd = json_string_value(json_object_get(process, "cmd"));
	const char *tag = json_string_value(json_object_get(process, "tag"));
	size_t i;
	const json_t *arg;
	av_buf_append_c(&line, cmd ? cmd : "?");
	json_array_foreach (json_object_get(process, "args"), i, arg) {
		const char *s = json_string_value(arg);
		/* Beyond the buffer's ceiling the line is cut. */
		if (s && av_buf_printf(&line, " %s", s) < 0)
			break;
	}
	struct av_str text = av_buf_str(&line);
	table_cell(t, "%lld", (long long)json_integer_value(json_object_get(process, "pid")));
	table_cell(t, "%s", tag ? tag : "-");
	table_cell(t, "%.*s", AV_STR_ARG(text));
}

static int run(struct cli *cli, const struct args *args)
{
	static const char *const titles[] = {"PID", "TAG", "COMMAND"};
	struct av_err err = {0};
	char id[AV_ID_SIZE];
	AV_CLEANUP(av_json_decrefp) json_t *reply = NULL;
	int status = cli_connect(cli);
	if (status)
		return status;
	if (cli_resolve(cli, args->operands[0], id, &err) < 0 ||
	    cli_call(cli, "GET", NULL, &reply, &err, "/v1/sandboxes/%s/processes", id) < 0)
		return cli_fail(cli, &err, args->operands[0]);
	const json_t *list = json_object_get(reply, "processes");
	if (cli_print_rows(cli, list, "pid"))
		return 0;
	struct table t;
	size_t i;
	const json_t *process;
	table_init(&t, AV_ARRAY_LEN(titles), titles);
	t.right[0] = true;
	json_array_foreach (list, i, process)
		add_row(&t, process);
	table_print(&t, cli_bold(cli), cli_plain(cli));
	return 0;
}

const struct command command_ps = {
    .name = "ps",
    .usage = "SANDBOX",
    .summary = "list the processes started in a sandbox",
    .description = "Lists what was started through Aviary and still runs; PID is the number inside "
                   "the sandbox. For their children too: aviary exec SANDBOX ps -ef",
    .min_operands = 1,
    .max_operands = 1,
    .operand_completion = COMPLETE_SANDBOXES,
    .run = run,
};
