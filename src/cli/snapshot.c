/* SPDX-License-Identifier: Apache-2.0 */
/*
 * snapshot.c - aviary snapshot: sandboxes become templates
 */
#include <stdio.h>
#include <string.h>

#include "base/buf.h"
#include "base/codec.h"
#include "base/json.h"
#include "base/num.h"
#include "cli/command.h"
#include "cli/remote.h"
#include "cli/table.h"

#include "base/banned.h"

#define TIMEOUT_MS (15 * 60 * 1000)

static json_t *make_body(const struct args *args, const char *id)
{
	json_t *body = json_object();

	json_object_set_new(body, "sandbox_id", json_string(id));
	if (args->n_operands > 2)
		json_object_set_new(body, "name", json_string(args->operands[2]));
	if (args_flag(args, "stop"))
		json_object_set_new(body, "stop", json_true());
	else if (args_flag(args, "resume"))
		json_object_set_new(body, "keep_running", json_true());
	return body;
}

static int create(struct cli *cli, const struct args *args)
{
	bool stop = args_flag(args, "stop"), resume = args_flag(args, "resume") && !stop;
	struct cli_request request = {.method = "POST",
	    .path = args_flag(args, "overwrite") ? "/v1/snapshots?overwrite=true" : "/v1/snapshots",
	    .timeout_ms = TIMEOUT_MS};
	AV_CLEANUP(av_json_decrefp) json_t *body = NULL;
	AV_CLEANUP(av_json_decrefp) json_t *made = NULL;
	const char *what = args->operands[1];
	struct av_err err = {0};
	char id[AV_ID_SIZE];

	cli_catch_signals();
	if (cli_resolve(cli, what, id, &err) < 0)
		return cli_fail(cli, &err, what);
	request.body = body = make_body(args, id);
	cli->waiting = "taking the snapshot";
	if (cli_request(cli, &request, &made, &err) < 0)
		return cli_fail(cli, &err, what);
	cli_print_reply(cli, made, "name");
	/* A daemon of before leaves it paused. */
	if (resume && !remote_is_running(cli, id) &&
	    cli_call(cli, "POST", NULL, NULL, &err, "/v1/sandboxes/%s/resume", id) < 0)
		return cli_fail(cli, &err, what);
	if (!cli->json && cli->out_is_tty && !stop && !resume)
		fprintf(stderr, "the sandbox is paused: a request resumes it\n");
	return 0;
}

static int rollback(struct cli *cli, const struct args *args)
{
	const char *what = args->operands[1];
	char id[AV_ID_SIZE], path[128];
	struct cli_request request = {.method = "POST", .path = path, .timeout_ms = TIMEOUT_MS};
	AV_CLEANUP(av_json_decrefp) json_t *body = NULL;
	AV_CLEANUP(av_json_decrefp) json_t *reply = NULL;
	struct av_err err = {0};

	if (cli_resolve(cli, what, id, &err) < 0)
		return cli_fail(cli, &err, what);
	body = json_pack("{s:s}", "snapshot", args->operands[2]);
	if (!body) {
		(void)av_err_set(&err, AV_ERR_INVALID, "the name is not valid UTF-8");
		return cli_fail(cli, &err, args->operands[2]);
	}
	request.body = body;
	(void)snprintf(path, sizeof(path), "/v1/sandboxes/%s/rollback", id);
	cli->waiting = "going back to the snapshot";
	if (cli_request(cli, &request, &reply, &err) < 0)
		return cli_fail(cli, &err, what);
	cli_print_reply(cli, reply, "id");
	return 0;
}

/* Of the team's templates those that were sandboxes. */
static json_t *only_snapshots(const json_t *all)
{
	json_t *some = json_array(), *o;
	size_t i;

	json_array_foreach (all, i, o)
		if (strcmp(cli_text(o, "type"), "snapshot") == 0)
			json_array_append(some, o);
	return some;
}

static int list(struct cli *cli, const struct args *args)
{
	static const char *const titles[] = {"NAME", "SIZE", "LAYERS", "IN USE", "AGE"};
	AV_CLEANUP(av_json_decrefp) json_t *all = NULL;
	AV_CLEANUP(av_json_decrefp) json_t *some = NULL;
	struct av_err err = {0};
	const json_t *o;
	struct table t;
	char size[24];
	size_t i;

	(void)args;
	if (cli_call(cli, "GET", NULL, &all, &err, "/v1/snapshots") < 0)
		return cli_fail(cli, &err, NULL);
	some = only_snapshots(all);
	if (cli_print_rows(cli, some, "name"))
		return 0;
	if (json_array_size(some) == 0 && cli->out_is_tty) {
		printf("no snapshots; 'aviary snapshot create SANDBOX' makes one\n");
		return 0;
	}
	table_init(&t, AV_ARRAY_LEN(titles), titles);
	t.right[1] = t.right[2] = t.right[3] = t.right[4] = true;
	json_array_foreach (some, i, o) {
		json_int_t bytes = json_integer_value(json_object_get(o, "size_bytes"));

		table_cell(&t, "%s", cli_text(o, "name"));
		table_cell(&t, "%s", bytes > 0 ? av_format_size((uint64_t)bytes, size) : "-");
		table_cell(&t, "%lld", (long long)json_integer_value(json_object_get(o, "layers")));
		table_cell(&t, "%lld", (long long)json_integer_value(json_object_get(o, "in_use")));
		table_age(&t, json_string_value(json_object_get(o, "created_at")));
	}
	table_print(&t, cli_bold(cli), cli_plain(cli));
	return 0;
}

static int delete (struct cli *cli, const struct args *args)
{
	int status = 0;

	for (size_t i = 1; i < args->n_operands; i++) {
		AV_CLEANUP(av_buf_clear) struct av_buf path = AV_BUF_INIT(4096);
		const char *name = args->operands[i];
		struct cli_request request = {.method = "DELETE"};
		struct av_err err = {0};

		(void)av_buf_append_c(&path, "/v1/snapshots/");
		(void)av_percent_encode(&path, av_str_c(name), false);
		request.path = av_buf_cstr(&path);
		if (av_buf_error(&path))
			av_err_set(&err, AV_ERR_INVALID, "the name is too long");
		if (av_buf_error(&path) || cli_request(cli, &request, NULL, &err) < 0) {
			status = cli_fail(cli, &err, name);
			if (cli->is_unreachable)
				break;
		} else {
			cli_print_done(cli, "name", name);
		}
	}
	return status;
}

static const struct verb verbs[] = {
    {"create", "SANDBOX [NAME]", "make a template of a sandbox, and print its name", 1, 2,
        "of which sandbox", COMPLETE_SANDBOXES, create},
    {"rollback", "SANDBOX NAME",
        "make the sandbox what the snapshot holds, under its id; what it is now is lost", 2, 2,
        "which sandbox, and to which snapshot", COMPLETE_SANDBOXES, rollback},
    {"ls", "", "list those of the team", 0, 0, NULL, COMPLETE_NONE, list},
    {"rm", "NAME…", "remove; sandboxes made from it live on", 1, OPERANDS_ANY, "which one",
        COMPLETE_TEMPLATES, delete},
    {NULL, NULL, NULL, 0, 0, NULL, COMPLETE_NONE, NULL},
};

static const struct option_spec options[] = {
    {"overwrite", 0, OPTION_FLAG, NULL,
        "create: replace an own template of that name; sandboxes made from the old one live on",
        COMPLETE_NONE},
    {"resume", 0, OPTION_FLAG, NULL, "create: let the sandbox go on afterwards", COMPLETE_NONE},
    {"stop", 0, OPTION_FLAG, NULL,
        "create: kill it first, and delete it afterwards, which also works where nothing can be "
        "paused; a virtual machine is deleted afterwards",
        COMPLETE_NONE},
    {NULL, 0, OPTION_FLAG, NULL, NULL, COMPLETE_NONE},
};

static const char *const examples[] = {
    "aviary snapshot create work my-setup --resume\tkeep what is installed in 'work' for new "
    "sandboxes",
    "aviary create --template my-setup\tone of those",
    "aviary snapshot rollback work my-setup\tback to what 'work' was then",
    NULL,
};

const struct command command_snapshot = {
    .name = "snapshot",
    .summary = "make templates of sandboxes, and go back to them",
    .description = "Takes a sandbox, as it is now, as a template that any number of sandboxes can "
                   "be made from: its files, and of a virtual machine (--isolation vm) also memory "
                   "and processes, which go on in each. The sandbox is paused for it and stays "
                   "paused, unless --resume or --stop is given; a virtual machine with --resume is "
                   "not paused at all.\n"
                   "rollback needs a snapshot that fits: of a virtual machine's memory for a "
                   "virtual machine of that size.",
    .verbs = verbs,
    .connects = true,
    .examples = examples,
    .see = "template create stop",
    .options = options,
    .min_operands = 1,
    .max_operands = OPERANDS_ANY,
};
