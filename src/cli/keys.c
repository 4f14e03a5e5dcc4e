/* SPDX-License-Identifier: Apache-2.0 */
/*
 * keys.c - aviary keys: API keys of the team
 */
#include <stdio.h>
#include <string.h>

#include "base/json.h"
#include "cli/command.h"
#include "cli/table.h"
#include "cli/verbs.h"

#include "base/banned.h"

#define QUOTAS_MAX 16

/* A key by id, a unique beginning of one, or its name. */
static int find(
    struct cli *cli, const char *what, char ret_id[static AV_ID_SIZE], struct av_err *err)
{
	AV_CLEANUP(av_json_decrefp) json_t *list = NULL;
	const json_t *key, *found = NULL;
	size_t i, n = 0;
	int r = cli_call(cli, "GET", NULL, &list, err, "/v1/api-keys");

	if (r < 0)
		return r;
	json_array_foreach (list, i, key) {
		bool exact = strcmp(cli_text(key, "id"), what) == 0;

		if (!exact && strcmp(cli_text(key, "name"), what) != 0 &&
		    !(strlen(what) > 2 &&
		        av_str_starts(av_str_c(cli_text(key, "id")), av_str_c(what))))
			continue;
		found = key;
		n = exact ? 1 : n + 1;
		if (exact)
			break;
	}
	if (n == 0)
		return av_err_set(err, AV_ERR_NOT_FOUND,
		    "there is no such API key that you see; 'aviary keys ls' lists them");
	if (n > 1)
		return av_err_set(err, AV_ERR_CONFLICT,
		    "%zu keys are called so; give the id of one ('aviary keys ls')", n);
	return av_str_copy(ret_id, AV_ID_SIZE, av_str_c(cli_text(found, "id")));
}

static void add_row(struct table *t, const json_t *key)
{
	AV_CLEANUP(av_buf_clear) struct av_buf scopes = AV_BUF_INIT(400);
	const char *expires = json_string_value(json_object_get(key, "expires_at"));
	const json_t *scope;
	char quota[160];
	size_t i;

	json_array_foreach (json_object_get(key, "scopes"), i, scope)
		(void)av_buf_printf(&scopes, "%s%s", i ? " " : "", json_string_value(scope));
	quota_print(json_object_get(key, "quota"), quota, sizeof(quota));
	table_cell(t, "%s", cli_text(key, "id"));
	table_cell(t, "%s", cli_text(key, "name"));
	table_cell(t, "%s", cli_text(key, "key_prefix"));
	table_cell(t, "%s", cli_text(key, "creator_email"));
	table_cell(t, "%s", av_buf_cstr(&scopes));
	table_cell(t, "%s",
	    json_is_true(json_object_get(key, "expired")) ? "expired"
	                                                  : (expires ? expires : "never"));
	table_cell(t, "%s", quota);
	table_age(t, json_string_value(json_object_get(key, "last_used")));
	table_age(t, json_string_value(json_object_get(key, "created_at")));
}

static int list(struct cli *cli, const struct args *args)
{
	static const char *const titles[] = {
	    "ID", "NAME", "KEY", "BY", "SCOPES", "EXPIRES", "QUOTA", "USED", "AGE"};
	AV_CLEANUP(av_json_decrefp) json_t *reply = NULL;
	struct av_err err = {0};
	const json_t *key;
	struct table t;
	size_t i;

	(void)args;
	if (cli_call(cli, "GET", NULL, &reply, &err, "/v1/api-keys") < 0)
		return cli_fail(cli, &err, NULL);
	if (cli_print_rows(cli, reply, "id"))
		return 0;
	table_init(&t, AV_ARRAY_LEN(titles), titles);
	t.right[7] = t.right[8] = true;
	json_array_foreach (reply, i, key)
		add_row(&t, key);
	table_print(&t, cli_bold(cli), cli_plain(cli));
	return 0;
}

/* The secret is all that standard output gets, so that it can be kept. */
static void show_secret(const struct cli *cli, const json_t *key)
{
	cli_print_reply(cli, key, "key");
	if (!cli->json && cli->out_is_tty)
		fprintf(stderr, "key %s: this is shown once; keep it\n", cli_text(key, "id"));
}

static int fill_create(const struct args *args, json_t *body, struct av_err *err)
{
	const char *pairs[QUOTAS_MAX], *text;
	uint64_t expires_ms = args_duration_ms(args, "expires", 0);
	json_t *scopes, *quota;
	size_t n = 0, pos = 0;

	if (args->n_operands > 1)
		json_object_set_new(body, "name", json_string(args->operands[1]));
	if (expires_ms)
		json_object_set_new(body, "expires_in_sec", json_real((double)expires_ms / 1000));
	while ((text = args_next(args, "scope", &pos))) {
		scopes = json_object_get(body, "scopes");
		if (!scopes) {
			scopes = json_array();
			json_object_set_new(body, "scopes", scopes);
		}
		json_array_append_new(scopes, json_string(text));
	}
	pos = 0;
	while ((text = args_next(args, "quota", &pos)) && n < QUOTAS_MAX)
		pairs[n++] = text;
	if (n == 0)
		return 0;
	quota = quota_parse(pairs, n, err);
	if (!quota)
		return -1;
	json_object_set_new(body, "quota", quota);
	return 0;
}

static int create(struct cli *cli, const struct args *args)
{
	AV_CLEANUP(av_json_decrefp) json_t *body = json_object();
	AV_CLEANUP(av_json_decrefp) json_t *made = NULL;
	struct av_err err = {0};

	if (fill_create(args, body, &err) < 0)
		return cli_usage_error(cli, "%s", err.message);
	if (cli_call(cli, "POST", body, &made, &err, "/v1/api-keys") < 0)
		return cli_fail(cli, &err, NULL);
	show_secret(cli, made);
	return 0;
}

static int rotate(struct cli *cli, const struct args *args)
{
	AV_CLEANUP(av_json_decrefp) json_t *made = NULL;
	AV_CLEANUP(av_json_decrefp)
	json_t *body =
	    json_pack("{s:f}", "grace_sec", (double)args_duration_ms(args, "grace", 0) / 1000);
	struct av_err err = {0};
	char id[AV_ID_SIZE];

	if (find(cli, args->operands[1], id, &err) < 0 ||
	    cli_call(cli, "POST", body, &made, &err, "/v1/api-keys/%s/rotate", id) < 0)
		return cli_fail(cli, &err, args->operands[1]);
	show_secret(cli, made);
	return 0;
}

static int delete (struct cli *cli, const struct args *args)
{
	int status = 0;

	for (size_t i = 1; i < args->n_operands; i++) {
		struct av_err err = {0};
		char id[AV_ID_SIZE];

		if (find(cli, args->operands[i], id, &err) < 0 ||
		    cli_call(cli, "DELETE", NULL, NULL, &err, "/v1/api-keys/%s", id) < 0)
			status = cli_fail(cli, &err, args->operands[i]);
		else
			cli_print_done(cli, "id", id);
	}
	return status;
}

static const struct verb verbs[] = {
    {"ls", "", "list them", 0, 0, NULL, COMPLETE_NONE, list},
    {"create", "[NAME]", "make one, and print its secret: once and never again", 0, 1, NULL,
        COMPLETE_NONE, create},
    {"rotate", "KEY", "give it another secret, and print that", 1, 1, "which one", COMPLETE_KEYS,
        rotate},
    {"rm", "KEY…", "delete", 1, OPERANDS_ANY, "which one", COMPLETE_KEYS, delete},
    {NULL, NULL, NULL, 0, 0, NULL, COMPLETE_NONE, NULL},
};

static const struct option_spec options[] = {
    {"scope", 0, OPTION_LIST, "SCOPE",
        "create: what it is good for, such as sandboxes:read, team:* or *; may be repeated",
        COMPLETE_NONE},
    {"expires", 0, OPTION_DURATION, "TIME", "create: it ends after 30m, 720h, …", COMPLETE_NONE},
    {"quota", 0, OPTION_LIST, "NAME=VALUE",
        "create: bound what it creates: sandboxes, cpus, memory, disk, creates; may be repeated",
        COMPLETE_NONE},
    {"grace", 0, OPTION_DURATION, "TIME", "rotate: the old key goes on for so long", COMPLETE_NONE},
    {NULL, 0, OPTION_FLAG, NULL, NULL, COMPLETE_NONE},
};

static const char *const examples[] = {
    "aviary keys create ci --expires 720h --quota sandboxes=5\ta key for a month and five "
    "sandboxes",
    "aviary keys create reader --scope sandboxes:read\tone that looks and changes nothing",
    "aviary keys rotate ci --grace 24h\ta new secret; the old one goes on for a day",
    NULL,
};

const struct command command_keys = {
    .name = "keys",
    .summary = "list, make, rotate and delete API keys",
    .description =
        "A key acts for who made it, in one team, within its scopes. Its secret is printed when it "
        "is made and never again. KEY is an id, the beginning of one, or a name. Without --scope a "
        "key is for sandboxes and templates; none may more than who makes it.",
    .verbs = verbs,
    .connects = true,
    .examples = examples,
    .see = "limits teams users",
    .options = options,
    .min_operands = 1,
    .max_operands = OPERANDS_ANY,
};
