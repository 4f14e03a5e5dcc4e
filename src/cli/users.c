/* SPDX-License-Identifier: Apache-2.0 */
/*
 * users.c - aviary users: accounts of people, for administrators
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/codec.h"
#include "base/json.h"
#include "cli/ask.h"
#include "cli/command.h"
#include "cli/table.h"

#include "base/banned.h"

#define PASSWORD_MAX 1024
#define PAGES_MAX    1000

/* ---- looking ---- */

static void add_row(struct table *t, const json_t *u)
{
	table_cell(t, "%s", cli_text(u, "id"));
	table_cell(t, "%s", cli_text(u, "email"));
	table_cell(t, "%s", cli_text(u, "name"));
	table_cell(t, "%s", cli_text(u, "status"));
	table_cell(t, "%s", json_is_true(json_object_get(u, "is_admin")) ? "yes" : "");
	table_cell(
	    t, "%" JSON_INTEGER_FORMAT, json_integer_value(json_object_get(u, "teams_joined")));
	table_age(t, json_string_value(json_object_get(u, "created_at")));
}

/* All pages as one array; the caller owns it. */
static json_t *get_all(struct cli *cli, struct av_err *err)
{
	json_t *all = json_array();
	json_int_t last = 1;

	for (json_int_t page = 1; all && page <= last && page <= PAGES_MAX; page++) {
		AV_CLEANUP(av_json_decrefp) json_t *reply = NULL;

		if (cli_call(cli, "GET", NULL, &reply, err,
		        "/v1/admin/users?page=%" JSON_INTEGER_FORMAT, page) < 0) {
			json_decref(all);
			return NULL;
		}
		last = json_integer_value(json_object_get(reply, "total_pages"));
		(void)json_array_extend(all, json_object_get(reply, "users"));
	}
	if (!all)
		(void)av_err_set(err, AV_ERR_NO_MEMORY, "out of memory");
	return all;
}

static int list(struct cli *cli, const struct args *args)
{
	static const char *const titles[] = {
	    "ID", "EMAIL", "NAME", "STATUS", "ADMIN", "TEAMS", "AGE"};
	struct av_err err = {0};
	AV_CLEANUP(av_json_decrefp) json_t *all = get_all(cli, &err);
	struct table t;
	const json_t *u;
	size_t i;

	(void)args;
	if (!all)
		return cli_fail(cli, &err, NULL);
	if (cli_print_rows(cli, all, "id"))
		return 0;
	table_init(&t, AV_ARRAY_LEN(titles), titles);
	t.right[5] = t.right[6] = true;
	json_array_foreach (all, i, u)
		add_row(&t, u);
	table_print(&t, cli_bold(cli), cli_plain(cli));
	return 0;
}

/* The id of a user who is named by it or by address. */
static int find(struct cli *cli, const char *who, char ret[static AV_ID_SIZE], struct av_err *err)
{
	AV_CLEANUP(av_buf_clear) struct av_buf path = AV_BUF_INIT(4096);
	AV_CLEANUP(av_json_decrefp) json_t *reply = NULL;
	const char *id;
	int r;

	if (av_id_valid(av_str_c(who), AV_ID_USER))
		return av_str_copy(ret, AV_ID_SIZE, av_str_c(who));
	(void)av_buf_append_c(&path, "/v1/admin/users?email=");
	(void)av_percent_encode(&path, av_str_c(who), false);
	if (!av_buf_cstr(&path) || !strchr(who, '@'))
		return av_err_set(err, AV_ERR_INVALID,
		    "'%.100s' is neither the id of a user nor an e-mail address", who);
	const struct cli_request rq = {.method = "GET", .path = av_buf_cstr(&path)};
	r = cli_request(cli, &rq, &reply, err);
	if (r < 0)
		return r;
	id = json_string_value(
	    json_object_get(json_array_get(json_object_get(reply, "users"), 0), "id"));
	if (!id || !av_id_valid(av_str_c(id), AV_ID_USER))
		return av_err_set(
		    err, AV_ERR_NOT_FOUND, "there is no account with the address %.200s", who);
	return av_str_copy(ret, AV_ID_SIZE, av_str_c(id));
}

/* ---- passwords ---- */

/* From a person twice, from a pipe once. The body of a request; the caller owns it. */
static json_t *read_password(const char *field, struct av_err *err)
{
	char first[PASSWORD_MAX + 2], second[PASSWORD_MAX + 2];
	json_t *body = NULL;

	if (ask_line("New password", true, first, sizeof first) < 0)
		(void)av_err_set(err, AV_ERR_INVALID,
		    "no password of at most %d bytes on one line of standard input", PASSWORD_MAX);
	else if (isatty(STDIN_FILENO) && (ask_line("Once more", true, second, sizeof second) < 0 ||
	                                     strcmp(first, second) != 0))
		(void)av_err_set(err, AV_ERR_INVALID, "the two passwords are not the same");
	else
		body = json_pack("{s:s}", field, first);
	explicit_bzero(first, sizeof first);
	explicit_bzero(second, sizeof second);
	if (!body && err->kind == AV_ERR_NONE)
		(void)av_err_set(err, AV_ERR_INVALID, "the password is not UTF-8");
	return body;
}

/* ---- changing ---- */

static json_t *make_user(const struct args *args, struct av_err *err)
{
	const char *name = args_text(args, "name");
	json_t *body = args_flag(args, "password") ? read_password("password", err) : json_object();

	if (!body)
		return NULL;
	if (json_object_set_new(body, "email", json_string(args->operands[1])) < 0 ||
	    (name && json_object_set_new(body, "name", json_string(name)) < 0) ||
	    (args_flag(args, "admin") && json_object_set_new(body, "is_admin", json_true()) < 0)) {
		(void)av_err_set(err, AV_ERR_INVALID, "the address or the name is not UTF-8");
		json_decref(body);
		return NULL;
	}
	return body;
}

static int create(struct cli *cli, const struct args *args)
{
	struct av_err err = {0};
	AV_CLEANUP(av_json_decrefp) json_t *body = make_user(args, &err);
	AV_CLEANUP(av_json_decrefp) json_t *reply = NULL;
	const char *url;

	if (!body || cli_call(cli, "POST", body, &reply, &err, "/v1/admin/users") < 0)
		return cli_fail(cli, &err, args->operands[1]);
	if (cli->json) {
		cli_print_json(cli, reply);
		return 0;
	}
	url = json_string_value(json_object_get(json_object_get(reply, "link"), "url"));
	printf("%s\n", cli_text(reply, "id"));
	if (url)
		printf("%s\n", url);
	return 0;
}

static int set_active(struct cli *cli, const struct args *args)
{
	bool active = strcmp(args->operands[0], "activate") == 0;
	AV_CLEANUP(av_json_decrefp) json_t *body = json_pack("{s:b}", "active", active);
	int status = 0;

	for (size_t i = 1; i < args->n_operands; i++) {
		struct av_err err = {0};
		char id[AV_ID_SIZE];

		if (find(cli, args->operands[i], id, &err) < 0 ||
		    cli_call(cli, "PUT", body, NULL, &err, "/v1/admin/users/%s/active", id) < 0)
			status = cli_fail(cli, &err, args->operands[i]);
		else
			cli_print_done(cli, "id", id);
	}
	return status;
}

static int make_link(struct cli *cli, const struct args *args)
{
	AV_CLEANUP(av_json_decrefp) json_t *reply = NULL;
	struct av_err err = {0};
	char id[AV_ID_SIZE];

	if (find(cli, args->operands[1], id, &err) < 0 ||
	    cli_call(cli, "POST", NULL, &reply, &err, "/v1/admin/users/%s/link", id) < 0)
		return cli_fail(cli, &err, args->operands[1]);
	cli_print_reply(cli, reply, "url");
	return 0;
}

static int set_password(struct cli *cli, const struct args *args)
{
	AV_CLEANUP(av_json_decrefp) json_t *body = NULL;
	struct av_err err = {0};
	char id[AV_ID_SIZE];

	if (find(cli, args->operands[1], id, &err) < 0 ||
	    !(body = read_password("new_password", &err)) ||
	    cli_call(cli, "PUT", body, NULL, &err, "/v1/admin/users/%s/password", id) < 0)
		return cli_fail(cli, &err, args->operands[1]);
	return 0;
}

static int update(struct cli *cli, const struct args *args)
{
	const char *email = args_text(args, "email"), *name = args_text(args, "name");
	AV_CLEANUP(av_json_decrefp) json_t *body = json_object();
	AV_CLEANUP(av_json_decrefp) json_t *reply = NULL;
	struct av_err err = {0};
	char id[AV_ID_SIZE];

	if (args_flag(args, "admin") && args_flag(args, "no-admin"))
		return cli_usage_error(cli, "--admin and --no-admin exclude each other");
	if (email)
		(void)json_object_set_new(body, "email", json_string(email));
	if (name)
		(void)json_object_set_new(body, "name", json_string(name));
	if (args_flag(args, "admin") || args_flag(args, "no-admin"))
		(void)json_object_set_new(body, "is_admin", json_boolean(args_flag(args, "admin")));
	if (json_object_size(body) == 0)
		return cli_usage_error(
		    cli, "users update: what? --email, --name, --admin or --no-admin");
	if (find(cli, args->operands[1], id, &err) < 0 ||
	    cli_call(cli, "PATCH", body, &reply, &err, "/v1/admin/users/%s", id) < 0)
		return cli_fail(cli, &err, args->operands[1]);
	cli_print_reply(cli, reply, "id");
	return 0;
}

static const struct verb verbs[] = {
    {"ls", "", "list all accounts", 0, 0, NULL, COMPLETE_NONE, list},
    {"create", "EMAIL", "make an account that is active at once", 1, 1, "whose address",
        COMPLETE_NONE, create},
    {"update", "USER", "change address, name or rights", 1, 1, "who", COMPLETE_NONE, update},
    {"activate", "USER…", "let them log in", 1, OPERANDS_ANY, "who", COMPLETE_NONE, set_active},
    {"deactivate", "USER…", "end their sessions; their keys are worth nothing until activate", 1,
        OPERANDS_ANY, "who", COMPLETE_NONE, set_active},
    {"link", "USER",
        "print a link with which the owner sets a password or activates the account, for a day", 1,
        1, "whose", COMPLETE_NONE, make_link},
    {"password", "USER", "read a password from the terminal, or from one line of standard input", 1,
        1, "whose", COMPLETE_NONE, set_password},
    {NULL, NULL, NULL, 0, 0, NULL, COMPLETE_NONE, NULL},
};

static const struct option_spec options[] = {
    {"name", 0, OPTION_TEXT, "NAME", "create, update: what the person is called", COMPLETE_NONE},
    {"email", 0, OPTION_TEXT, "ADDRESS", "update: another address", COMPLETE_NONE},
    {"admin", 0, OPTION_FLAG, NULL, "create, update: an administrator of this Aviary",
        COMPLETE_NONE},
    {"no-admin", 0, OPTION_FLAG, NULL, "update: no administrator any more", COMPLETE_NONE},
    {"password", 0, OPTION_FLAG, NULL, "create: ask for a password instead of making a link",
        COMPLETE_NONE},
    {NULL, 0, OPTION_FLAG, NULL, NULL, COMPLETE_NONE},
};

static const char *const examples[] = {
    "aviary users create ada@example.com\tprints the id, and a link with which she sets a password",
    "aviary users link bob@example.com\tanother link, for a day: a forgotten password, a lost mail",
    "aviary users deactivate bob@example.com\this sessions and keys are worth nothing from now on",
    NULL,
};

const struct command command_users = {
    .name = "users",
    .summary = "accounts of people, for administrators",
    .description =
        "People log in with an address and a password, or with GitHub where that is configured. "
        "USER is an id or an address. Needs the key of an administrator, as the first start "
        "writes one.\n"
        "A link is good for a day and for one use. Whoever is deactivated keeps what belongs to "
        "them; the teams' sandboxes go on running.",
    .verbs = verbs,
    .connects = true,
    .examples = examples,
    .see = "teams keys",
    .options = options,
    .min_operands = 1,
    .max_operands = OPERANDS_ANY,
};
