/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hosts.c - aviary hosts: machines that run sandboxes
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/codec.h"
#include "base/json.h"
#include "base/num.h"
#include "cli/command.h"
#include "cli/table.h"

#include "base/banned.h"

static int list(struct cli *cli, const struct args *args)
{
	static const char *const titles[] = {
	    "ID", "TYPE", "STATE", "ADDRESS", "ARCH", "CPUS", "MEMORY", "HEARD OF"};
	struct av_err err = {0};
	AV_CLEANUP(av_json_decrefp) json_t *all = NULL;
	const json_t *o;
	struct table t;
	char size[24];
	size_t i;

	(void)args;
	if (cli_call(cli, "GET", NULL, &all, &err, "/v1/hosts") < 0)
		return cli_fail(cli, &err, NULL);
	if (cli_print_rows(cli, all, "id"))
		return 0;
	table_init(&t, AV_ARRAY_LEN(titles), titles);
	t.right[5] = t.right[6] = t.right[7] = true;
	json_array_foreach (all, i, o) {
		json_int_t mb = json_integer_value(json_object_get(o, "memory_mb"));

		table_cell(&t, "%s", cli_text(o, "id"));
		table_cell(&t, "%s", cli_text(o, "type"));
		table_cell(&t, "%s", cli_text(o, "status"));
		table_cell(&t, "%s", cli_text(o, "address"));
		table_cell(&t, "%s", cli_text(o, "arch"));
		table_cell(&t, "%" JSON_INTEGER_FORMAT,
		    json_integer_value(json_object_get(o, "cpu_cores")));
		table_cell(&t, "%s", mb > 0 ? av_format_size((uint64_t)mb * AV_MIB, size) : "-");
		table_age(&t, json_string_value(json_object_get(o, "last_heartbeat_at")));
	}
	table_print(&t, cli_bold(cli), cli_plain(cli));
	return 0;
}

/* /v1/hosts/ID and what follows; operands come from the command line. */
static int call_host(struct cli *cli, const char *method, const char *id, const char *tail,
    const char *last, const json_t *body, json_t **ret, struct av_err *err)
{
	AV_CLEANUP(av_buf_clear) struct av_buf path = AV_BUF_INIT(4096);

	(void)av_buf_append_c(&path, "/v1/hosts/");
	(void)av_percent_encode(&path, av_str_c(id), false);
	(void)av_buf_append_c(&path, tail);
	if (last)
		(void)av_percent_encode(&path, av_str_c(last), false);
	if (av_buf_error(&path) || !id[0] || (last && !last[0]))
		return av_err_set(err, AV_ERR_INVALID, "that is no id of a host, or no tag");
	const struct cli_request request = {
	    .method = method, .path = av_buf_cstr(&path), .body = body};
	return cli_request(cli, &request, ret, err);
}

static int show(struct cli *cli, const struct args *args)
{
	int status = 0;

	for (size_t i = 1; status == 0 && i < args->n_operands; i++) {
		struct av_err err = {0};
		AV_CLEANUP(av_json_decrefp) json_t *o = NULL;

		if (call_host(cli, "GET", args->operands[i], "", NULL, NULL, &o, &err) < 0)
			status = cli_fail(cli, &err, args->operands[i]);
		else
			cli_print_json(cli, o);
	}
	return status;
}

static void print_registration(struct cli *cli, const json_t *reply)
{
	if (cli->json) {
		cli_print_json(cli, reply);
		return;
	}
	printf("host   %s\n", cli_text(json_object_get(reply, "host"), "id"));
	printf("token  %s\n", cli_text(reply, "registration_token"));
	if (cli->err_is_tty)
		fputs("The token is good once and for an hour; it is not shown again.\n", stderr);
}

static int create(struct cli *cli, const struct args *args)
{
	static const struct {
		const char *option, *member;
	} texts[] = {{"team", "team_id"}, {"provider", "provider"}, {"zone", "availability_zone"}};
	AV_CLEANUP(av_json_decrefp) json_t *body = json_object(), *reply = NULL;
	struct av_err err = {0};

	if (!body || json_object_set_new(body, "type", json_string(args->operands[1])) < 0)
		return cli_usage_error(cli, "that type is no text");
	for (size_t i = 0; i < AV_ARRAY_LEN(texts); i++)
		if (args_text(args, texts[i].option) &&
		    json_object_set_new(
		        body, texts[i].member, json_string(args_text(args, texts[i].option))) < 0)
			return cli_usage_error(cli, "--%s is no text", texts[i].option);
	if (cli_call(cli, "POST", body, &reply, &err, "/v1/hosts") < 0)
		return cli_fail(cli, &err, NULL);
	print_registration(cli, reply);
	return 0;
}

static int token(struct cli *cli, const struct args *args)
{
	AV_CLEANUP(av_json_decrefp) json_t *reply = NULL;
	struct av_err err = {0};

	if (call_host(cli, "POST", args->operands[1], "/token", NULL, NULL, &reply, &err) < 0)
		return cli_fail(cli, &err, args->operands[1]);
	print_registration(cli, reply);
	return 0;
}

static int delete (struct cli *cli, const struct args *args)
{
	const char *tail = args_flag(args, "force") ? "?force=true" : "";

	for (size_t i = 1; i < args->n_operands; i++) {
		struct av_err err = {0};

		if (call_host(cli, "DELETE", args->operands[i], tail, NULL, NULL, NULL, &err) < 0)
			return cli_fail(cli, &err, args->operands[i]);
		cli_print_done(cli, "id", args->operands[i]);
	}
	return 0;
}

static int change_tag(
    struct cli *cli, const struct args *args, const char *text, struct av_err *err)
{
	AV_CLEANUP(av_json_decrefp) json_t *body = NULL;

	if (args_flag(args, "remove"))
		return call_host(cli, "DELETE", args->operands[1], "/tags/", text, NULL, NULL, err);
	body = json_pack("{s:s}", "tag", text);
	if (!body)
		return av_err_set(err, AV_ERR_INVALID, "that tag is no text");
	return call_host(cli, "POST", args->operands[1], "/tags", NULL, body, NULL, err);
}

static int tag(struct cli *cli, const struct args *args)
{
	AV_CLEANUP(av_json_decrefp) json_t *tags = NULL;
	struct av_err err = {0};
	const json_t *o;
	size_t i;

	for (size_t n = 2; n < args->n_operands; n++)
		if (change_tag(cli, args, args->operands[n], &err) < 0)
			return cli_fail(cli, &err, args->operands[n]);
	if (args->n_operands > 2)
		return 0;
	if (call_host(cli, "GET", args->operands[1], "/tags", NULL, NULL, &tags, &err) < 0)
		return cli_fail(cli, &err, args->operands[1]);
	if (cli->json) {
		cli_print_json(cli, tags);
		return 0;
	}
	json_array_foreach (tags, i, o) {
		cli_print_safe(stdout, json_string_value(o));
		putchar('\n');
	}
	return 0;
}

static const struct verb verbs[] = {
    {"ls", "", "list them", 0, 0, NULL, COMPLETE_NONE, list},
    {"show", "HOST…", "all that is known of one", 1, OPERANDS_ANY, "which one", COMPLETE_HOSTS,
        show},
    {"create", "regular|byoc", "record one, and print the token it registers with, once", 1, 1,
        "regular or byoc", COMPLETE_NONE, create},
    {"rm", "HOST…", "forget it", 1, OPERANDS_ANY, "which one", COMPLETE_HOSTS, delete},
    {"token", "HOST", "make another token while the host is pending", 1, 1, "of which one",
        COMPLETE_HOSTS, token},
    {"tag", "HOST [TAG…]", "add tags, take them away with --remove, or list them", 1, OPERANDS_ANY,
        "which one", COMPLETE_HOSTS, tag},
    {NULL, NULL, NULL, 0, 0, NULL, COMPLETE_NONE, NULL},
};

static const struct option_spec options[] = {
    {"team", 0, OPTION_TEXT, "ID", "create byoc: whose it is (default: yours)", COMPLETE_NONE},
    {"provider", 0, OPTION_TEXT, "TEXT", "create: where it stands", COMPLETE_NONE},
    {"zone", 0, OPTION_TEXT, "TEXT", "create: its availability zone", COMPLETE_NONE},
    {"remove", 0, OPTION_FLAG, NULL, "tag: take the tags away", COMPLETE_NONE},
    {"force", 0, OPTION_FLAG, NULL, "rm: with the sandboxes that are on it", COMPLETE_NONE},
    {NULL, 0, OPTION_FLAG, NULL, NULL, COMPLETE_NONE},
};

static const char *const examples[] = {"aviary hosts create regular\tfor all teams",
    "aviary hosts tag HOST gpu\tadd a tag; without one the tags are listed", NULL};

const struct command command_hosts = {
    .name = "hosts",
    .summary = "machines that run sandboxes",
    .description =
        "The machine that aviaryd runs on is there by itself, and all sandboxes are on it; others "
        "can be recorded and registered (regular for all teams, byoc for one), and nothing is "
        "placed on them yet.",
    .verbs = verbs,
    .connects = true,
    .examples = examples,
    .options = options,
    .min_operands = 1,
    .max_operands = OPERANDS_ANY,
};
