/* SPDX-License-Identifier: Apache-2.0 */
/*
 * template.c - aviary template: what sandboxes are made from
 */
#include "cli/template.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/buf.h"
#include "base/codec.h"
#include "base/json.h"
#include "base/num.h"
#include "cli/table.h"

#include "base/banned.h"

static void cell_size(struct table *t, const json_t *o, const char *field, uint64_t scale)
{
	char buf[24];
	json_int_t n = json_integer_value(json_object_get(o, field));
	table_cell(t, "%s", n > 0 ? av_format_size((uint64_t)n * scale, buf) : "-");
}

static int list(struct cli *cli, const struct args *args)
{
	static const char *const titles[] = {
	    "NAME", "TYPE", "PLATFORM", "SIZE", "MEMORY", "LAYERS", "IN USE", "AGE"};
	struct av_err err = {0};
	AV_CLEANUP(av_json_decrefp) json_t *all = NULL;
	const json_t *o;
	struct table t;
	size_t i;
	int status = cli_connect(cli);
	(void)args;
	if (status)
		return status;
	if (cli_call(cli, "GET", NULL, &all, &err, "/v1/snapshots") < 0)
		return cli_fail(cli, &err, NULL);
	if (cli_print_rows(cli, all, "name"))
		return 0;
	table_init(&t, AV_ARRAY_LEN(titles), titles);
	t.right[3] = t.right[4] = t.right[5] = t.right[6] = t.right[7] = true;
	json_array_foreach (all, i, o) {
		table_cell(&t, "%s", cli_text(o, "name"));
		table_cell(&t, "%s", cli_text(o, "type"));
		table_cell(&t, "%s", json_is_true(json_object_get(o, "platform")) ? "yes" : "no");
		cell_size(&t, o, "size_bytes", 1);
		cell_size(&t, o, "memory_mb", AV_MIB);
		table_cell(
		    &t, "%" JSON_INTEGER_FORMAT, json_integer_value(json_object_get(o, "layers")));
		table_cell(
		    &t, "%" JSON_INTEGER_FORMAT, json_integer_value(json_object_get(o, "in_use")));
		table_age(&t, json_string_value(json_object_get(o, "created_at")));
	}
	table_print(&t, cli_bold(cli), cli_plain(cli));
	return 0;
}

/* Percent-encoded: names come from the command line. The caller clears. */
static int call_by_name(
    struct cli *cli, const char *method, const char *name, json_t **ret, struct av_err *err)
{
	AV_CLEANUP(av_buf_clear) struct av_buf path = AV_BUF_INIT(4096);
	av_buf_append_c(&path, "/v1/snapshots/");
	av_percent_encode(&path, av_str_c(name), false);
	if (av_buf_error(&path) || !name[0])
		return av_err_set(err, AV_ERR_INVALID, "that is no name of a template");
	const struct cli_request request = {.method = method, .path = av_buf_cstr(&path)};
	return cli_request(cli, &request, ret, err);
}

static int show(struct cli *cli, const struct args *args)
{
	int status = cli_connect(cli);
	for (size_t i = 1; status == 0 && i < args->n_operands; i++) {
		struct av_err err = {0};
		AV_CLEANUP(av_json_decrefp) json_t *o = NULL;
		if (call_by_name(cli, "GET", args->operands[i], &o, &err) < 0)
			status = cli_fail(cli, &err, args->operands[i]);
		else
			cli_print_json(cli, o);
	}
	return status;
}

static int delete (struct cli *cli, const struct args *args)
{
	int status = cli_connect(cli);
	if (status)
		return status;
	for (size_t i = 1; i < args->n_operands; i++) {
		struct av_err err = {0};
		if (call_by_name(cli, "DELETE", args->operands[i], NULL, &err) < 0)
			status = cli_fail(cli, &err, args->operands[i]);
		else
			cli_print_done(cli, "name", args->operands[i]);
	}
	return status;
}

static const struct verb verbs[] = {
    {"ls", "", "list them", 0, 0, NULL, COMPLETE_NONE, list},
    {"show", "NAME…", "all that is known of one", 1, OPERANDS_ANY, "which one", COMPLETE_TEMPLATES,
        show},
    {"rm", "NAME…", "remove; sandboxes made from it live on", 1, OPERANDS_ANY, "which one",
        COMPLETE_TEMPLATES, delete},
    {"build", "[RECIPE]",
        "make one with a recipe of this machine; without a name, list the recipes", 0, 1, NULL,
        COMPLETE_NONE, template_build},
    {"import", "NAME [FILE]", "make one of a tar archive of a root file system", 1, 2,
        "under which name", COMPLETE_FILES, template_import},
    {NULL, NULL, NULL, 0, 0, NULL, COMPLETE_NONE, NULL},
};

static const struct option_spec options[] = {
    {"private", 0, OPTION_FLAG, NULL, "build, import: for this team only", COMPLETE_NONE},
    {NULL, 0, OPTION_FLAG, NULL, NULL, COMPLETE_NONE},
};

static const char *const examples[] = {
    "aviary template build base\tDebian, from this machine's mirror: a minute",
    "docker export NAME | aviary template import mine\tany root file system as a tar archive",
    "aviary template rm old\tsandboxes made from it live on",
    NULL,
};

static const char *const environment[] = {
    "AVIARY_TEMPLATES\ta directory with recipes of your own, NAME/build, for build",
    "AVIARY_MIRROR\twhere build installs from: the URL of a mirror of Debian, or whole lines as in "
    "sources.list (default: as this machine's apt, with updates and security)",
    "AVIARY_SUITE\ta release such as bookworm (default: this machine's)",
    "TMPDIR\twhere build unpacks and installs: half a GiB for base, two for code-interpreter, "
    "until "
    "it is done",
    NULL,
};

const struct command command_template = {
    .name = "template",
    .summary = "list, build and remove what sandboxes are made from",
    .description =
        "A template is a root file system with defaults. 'host' is this machine's own "
        "programs and needs no building; 'aviary snapshot create' makes one of a sandbox.\n"
        "build runs a recipe (mmdebstrap, with the apt configuration of this machine) and "
        "makes a template of what it gives; without a name it lists the recipes. import takes "
        "a tar archive, uncompressed, from FILE or standard input. Both replace a template of "
        "that name, and an administrator's are for every team unless --private.",
    .verbs = verbs,
    .examples = examples,
    .environment = environment,
    .see = "snapshot create",
    .options = options,
    .min_operands = 1,
    .max_operands = OPERANDS_ANY,
};
