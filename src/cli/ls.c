/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ls.c - aviary ls: the sandboxes that are there
 */
#include <stdio.h>
#include <string.h>

#include "base/codec.h"
#include "base/json.h"
#include "base/num.h"
#include "cli/command.h"
#include "cli/table.h"

#include "base/banned.h"

static void cell_size_mb(struct table *t, const json_t *sandbox, const char *field)
{
	char buf[24];
	json_int_t mb = json_integer_value(json_object_get(sandbox, field));
	table_cell(t, "%s", mb > 0 ? av_format_size((uint64_t)mb * AV_MIB, buf) : "-");
}

static void add_row(struct table *t, const json_t *sandbox)
{
	const json_t *cpus = json_object_get(sandbox, "cpus");
	if (!cpus)
		cpus = json_object_get(sandbox, "vcpus");
	table_cell(t, "%s", cli_text(sandbox, "id"));
	table_cell(t, "%s", cli_text(json_object_get(sandbox, "metadata"), "name"));
	table_cell(t, "%s", cli_text(sandbox, "status"));
	table_cell(t, "%s", cli_text(sandbox, "isolation"));
	table_cell(t, "%s", cli_text(sandbox, "template"));
	table_cell(t, "%g", json_number_value(cpus));
	cell_size_mb(t, sandbox, "memory_mb");
	cell_size_mb(t, sandbox, "disk_mb");
	table_age(t, json_string_value(json_object_get(sandbox, "created_at")));
}

static void add_parameter(struct av_buf *path, const char *name, const char *value)
{
	(void)av_buf_printf(path, "%c%s=", strchr(av_buf_cstr(path), '?') ? '&' : '?', name);
	(void)av_percent_encode(path, av_str_c(value), false);
}

/* The list with what the options ask for; everything is checked by the daemon. */
static int get_list(struct cli *cli, const struct args *args, json_t **ret, struct av_err *err)
{
	static const struct {
		const char *option, *parameter;
	} lists[] = {{"metadata", "metadata"}, {"tag", "tag"}, {"status", "status"}};
	AV_CLEANUP(av_buf_clear) struct av_buf path = AV_BUF_INIT(65536);
	(void)av_buf_append_c(&path, "/v1/sandboxes");
	for (size_t i = 0; i < AV_ARRAY_LEN(lists) && !av_buf_error(&path); i++) {
		const char *text;
		size_t pos = 0;
		while ((text = args_next(args, lists[i].option, &pos)) && !av_buf_error(&path))
			add_parameter(&path, lists[i].parameter, text);
	}
	if (args_flag(args, "all") && !av_buf_error(&path))
		add_parameter(&path, "status", "all");
	if (av_buf_error(&path))
		return av_err_set(err, AV_ERR_INVALID, "the options are too long together");
	struct cli_request request = {.method = "GET", .path = av_buf_cstr(&path)};
	return cli_request(cli, &request, ret, err);
}

static int run(struct cli *cli, const struct args *args)
{
	static const char *const titles[] = {
	    "ID", "NAME", "STATE", "KIND", "TEMPLATE", "CPUS", "MEMORY", "DISK", "AGE"};
	struct av_err err = {0};
	AV_CLEANUP(av_json_decrefp) json_t *list = NULL;
	int status = cli_connect(cli);
	if (status)
		return status;
	if (get_list(cli, args, &list, &err) < 0)
		return cli_fail(cli, &err, NULL);
	if (cli_print_rows(cli, list, "id"))
		return 0;
	size_t i;
	const json_t *sandbox;
	if (json_array_size(list) == 0 && cli->out_is_tty) {
		printf("no sandboxes; 'aviary create' makes one\n");
		return 0;
	}
	struct table t;
	table_init(&t, AV_ARRAY_LEN(titles), titles);
	t.right[5] = t.right[6] = t.right[7] = t.right[8] = true;
	json_array_foreach (list, i, sandbox)
		add_row(&t, sandbox);
	table_print(&t, cli_bold(cli), cli_plain(cli));
	return 0;
}

static const struct option_spec options[] = {
    {"all", 'a', OPTION_FLAG, NULL, "also those of the past: the newest 1000", COMPLETE_NONE},
    {"status", 0, OPTION_LIST, "STATE,…", "only those in these states, such as paused or stopped",
        COMPLETE_NONE},
    {"metadata", 0, OPTION_LIST, "KEY=VALUE", "only those with this label; may be repeated",
        COMPLETE_NONE},
    {"tag", 0, OPTION_LIST, "TEXT", "only those with this tag; may be repeated", COMPLETE_NONE},
    {NULL, 0, OPTION_FLAG, NULL, NULL, COMPLETE_NONE},
};

const struct command command_ls = {
    .name = "ls",
    .usage = "",
    .summary = "list sandboxes",
    .description = "Lists the sandboxes that are there, newest first. KIND is the isolation: "
                   "'jail' shares this machine's kernel, 'vm' has its own.",
    .options = options,
    .run = run,
};
