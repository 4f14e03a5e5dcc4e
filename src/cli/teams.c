/* SPDX-License-Identifier: Apache-2.0 */
/*
 * teams.c - aviary teams: teams, who is in them, and what they may use
 */
#include <stdio.h>
#include <string.h>

#include "base/buf.h"
#include "base/json.h"
#include "cli/command.h"
#include "cli/table.h"
#include "cli/verbs.h"

#include "base/banned.h"

/* The team that the key is for. */
static int own_team(struct cli *cli, char ret_id[static AV_ID_SIZE], struct av_err *err)
{
	AV_CLEANUP(av_json_decrefp) json_t *reply = NULL;
	int r = cli_call(cli, "GET", NULL, &reply, err, "/v1/limits");

	return r < 0 ? r : av_str_copy(ret_id, AV_ID_SIZE, av_str_c(cli_text(reply, "team_id")));
}

/* Pages of 100. */
static int get_all(struct cli *cli, json_t *list, struct av_err *err)
{
	for (int page = 1;; page++) {
		AV_CLEANUP(av_json_decrefp) json_t *reply = NULL;
		int r = cli_call(cli, "GET", NULL, &reply, err, "/v1/admin/teams?page=%d", page);

		if (r < 0)
			return r;
		json_array_extend(list, json_object_get(reply, "teams"));
		if (page >= json_integer_value(json_object_get(reply, "total_pages")))
			return 0;
	}
}

/* A team by id or name, among those of the user, else (all) of this Aviary. */
static int find_team(
    struct cli *cli, const char *what, bool all, char ret_id[static AV_ID_SIZE], struct av_err *err)
{
	AV_CLEANUP(av_json_decrefp) json_t *reply = NULL;
	const json_t *team, *found = NULL;
	size_t i, n = 0;
	int r;

	if (av_id_valid(av_str_c(what), AV_ID_TEAM))
		return av_str_copy(ret_id, AV_ID_SIZE, av_str_c(what));
	if (all)
		reply = json_array();
	r = all ? get_all(cli, reply, err) : cli_call(cli, "GET", NULL, &reply, err, "/v1/teams");
	if (r < 0)
		return r;
	json_array_foreach (reply, i, team)
		if (strcmp(cli_text(team, "name"), what) == 0 ||
		    strcmp(cli_text(team, "slug"), what) == 0) {
			found = team;
			n++;
		}
	if (n != 1)
		return av_err_set(err, n ? AV_ERR_CONFLICT : AV_ERR_NOT_FOUND,
		    "%s team is called so; 'aviary teams ls%s' shows their ids",
		    n ? "more than one" : "no", all ? " --all" : "");
	return av_str_copy(ret_id, AV_ID_SIZE, av_str_c(cli_text(found, "id")));
}

/* ---- teams ---- */

static void add_team(struct table *t, const json_t *team, bool all)
{
	char quota[160];

	quota_print(json_object_get(team, "quota"), quota, sizeof(quota));
	table_cell(t, "%s", cli_text(team, "id"));
	table_cell(t, "%s", cli_text(team, "name"));
	table_cell(t, "%s", cli_text(team, "slug"));
	table_cell(t, "%s", cli_text(team, all ? "owner_email" : "role"));
	table_cell(t, "%s", quota);
	table_age(t, json_string_value(json_object_get(team, "created_at")));
}

static int list(struct cli *cli, const struct args *args)
{
	static const char *const titles[] = {"ID", "NAME", "SLUG", "ROLE", "QUOTA", "AGE"};
	static const char *const titles_all[] = {"ID", "NAME", "SLUG", "OWNER", "QUOTA", "AGE"};
	AV_CLEANUP(av_json_decrefp) json_t *reply = NULL;
	bool all = args_flag(args, "all");
	struct av_err err = {0};
	const json_t *team;
	struct table t;
	size_t i;
	int r;

	if (all)
		reply = json_array();
	r = all ? get_all(cli, reply, &err) : cli_call(cli, "GET", NULL, &reply, &err, "/v1/teams");
	if (r < 0)
		return cli_fail(cli, &err, NULL);
	if (cli_print_rows(cli, reply, "id"))
		return 0;
	table_init(&t, AV_ARRAY_LEN(titles), all ? titles_all : titles);
	t.right[5] = true;
	json_array_foreach (reply, i, team)
		add_team(&t, team, all);
	table_print(&t, cli_bold(cli), cli_plain(cli));
	return 0;
}

static void print_members(const struct cli *cli, const json_t *members)
{
	static const char *const titles[] = {"USER", "EMAIL", "NAME", "ROLE", "SINCE"};
	const json_t *m;
	struct table t;
	size_t i;

	table_init(&t, AV_ARRAY_LEN(titles), titles);
	t.right[4] = true;
	json_array_foreach (members, i, m) {
		table_cell(&t, "%s", cli_text(m, "user_id"));
		table_cell(&t, "%s", cli_text(m, "email"));
		table_cell(&t, "%s", cli_text(m, "name"));
		table_cell(&t, "%s", cli_text(m, "role"));
		table_age(&t, json_string_value(json_object_get(m, "joined_at")));
	}
	table_print(&t, cli_bold(cli), cli_plain(cli));
}

/* What follows /v1/teams/ID of the key's team; body (stolen) and ret may be NULL. The exit status;
 * what was said wrong is about `what`, or NULL. */
static int call_own(struct cli *cli, const char *method, const char *suffix, json_t *body,
    json_t **ret, const char *what)
{
	AV_CLEANUP(av_json_decrefp) json_t *owned = body;
	struct av_err err = {0};
	char id[AV_ID_SIZE];

	if (own_team(cli, id, &err) < 0 ||
	    cli_call(cli, method, owned, ret, &err, "/v1/teams/%s%s", id, suffix) < 0)
		return cli_fail(cli, &err, what);
	return 0;
}

static int show(struct cli *cli, const struct args *args)
{
	AV_CLEANUP(av_json_decrefp) json_t *reply = NULL;
	const json_t *team;
	char quota[160];
	int status = call_own(cli, "GET", "", NULL, &reply, NULL);

	(void)args;
	if (status)
		return status;
	if (cli->json) {
		cli_print_json(cli, reply);
		return 0;
	}
	team = json_object_get(reply, "team");
	if (cli->quiet) {
		puts(cli_text(team, "id"));
		return 0;
	}
	quota_print(json_object_get(team, "quota"), quota, sizeof(quota));
	printf("%s%s%s  %s (%s), you are its %s\nquota of its own: %s\n\n", cli_bold(cli),
	    cli_text(team, "name"), cli_plain(cli), cli_text(team, "id"), cli_text(team, "slug"),
	    cli_text(team, "role"), quota);
	print_members(cli, json_object_get(reply, "members"));
	return 0;
}

static int list_members(struct cli *cli, const struct args *args)
{
	AV_CLEANUP(av_json_decrefp) json_t *members = NULL;
	int status = call_own(cli, "GET", "/members", NULL, &members, NULL);

	(void)args;
	if (status == 0 && !cli_print_rows(cli, members, "user_id"))
		print_members(cli, members);
	return status;
}

static int create(struct cli *cli, const struct args *args)
{
	AV_CLEANUP(av_json_decrefp) json_t *made = NULL;
	AV_CLEANUP(av_json_decrefp) json_t *body = json_pack("{s:s}", "name", args->operands[1]);
	struct av_err err = {0};

	if (cli_call(cli, "POST", body, &made, &err, "/v1/teams") < 0)
		return cli_fail(cli, &err, NULL);
	cli_print_reply(cli, made, "id");
	return 0;
}

static int rename_team(struct cli *cli, const struct args *args)
{
	const char *name = args->operands[1];
	int status = call_own(cli, "PATCH", "", json_pack("{s:s}", "name", name), NULL, NULL);

	if (status == 0)
		cli_print_done(cli, "name", name);
	return status;
}

/* The key's own team as its owner, another one as an administrator. */
static int delete (struct cli *cli, const struct args *args)
{
	bool admin = args_flag(args, "all");
	struct av_err err = {0};
	char id[AV_ID_SIZE];

	if (find_team(cli, args->operands[1], admin, id, &err) < 0 ||
	    cli_call(cli, "DELETE", NULL, NULL, &err, admin ? "/v1/admin/teams/%s" : "/v1/teams/%s",
	        id) < 0)
		return cli_fail(cli, &err, args->operands[1]);
	cli_print_done(cli, "id", id);
	return 0;
}

/* ---- members ---- */

static int add(struct cli *cli, const struct args *args)
{
	AV_CLEANUP(av_json_decrefp) json_t *made = NULL;
	const char *email = args->operands[1];
	int status =
	    call_own(cli, "POST", "/members", json_pack("{s:s}", "email", email), &made, email);

	if (status == 0)
		cli_print_reply(cli, made, "user_id");
	return status;
}

/* A member of the team by address or id; body is stolen. */
static int change_member(struct cli *cli, const char *who, const char *method, json_t *body)
{
	AV_CLEANUP(av_json_decrefp) json_t *owned = body;
	AV_CLEANUP(av_json_decrefp) json_t *members = NULL;
	int status = call_own(cli, "GET", "/members", NULL, &members, who);
	struct av_err err = {0};
	const char *id;
	const json_t *m;
	char suffix[80];
	size_t i;

	if (status)
		return status;
	json_array_foreach (members, i, m) {
		id = cli_text(m, "user_id");
		if (strcmp(id, who) != 0 &&
		    !av_str_ieq(av_str_c(cli_text(m, "email")), av_str_c(who)))
			continue;
		(void)snprintf(suffix, sizeof(suffix), "/members/%s", id);
		status = call_own(cli, method, suffix, AV_TAKE_PTR(owned), NULL, who);
		if (status == 0)
			cli_print_done(cli, "user_id", id);
		return status;
	}
	(void)av_err_set(&err, AV_ERR_NOT_FOUND,
	    "nobody in the team has this address or id; 'aviary teams members' lists them");
	return cli_fail(cli, &err, who);
}

static int set_role(struct cli *cli, const struct args *args)
{
	return change_member(
	    cli, args->operands[1], "PATCH", json_pack("{s:s}", "role", args->operands[2]));
}

static int remove_member(struct cli *cli, const struct args *args)
{
	return change_member(cli, args->operands[1], "DELETE", NULL);
}

/* ---- quotas ---- */

static int set_quota(struct cli *cli, const struct args *args)
{
	AV_CLEANUP(av_json_decrefp) json_t *body = NULL;
	struct av_err err = {0};
	char id[AV_ID_SIZE];

	body = quota_parse((const char *const *)args->operands + 2, args->n_operands - 2, &err);
	if (!body)
		return cli_usage_error(cli, "teams quota: %s", err.message);
	if (find_team(cli, args->operands[1], true, id, &err) < 0 ||
	    cli_call(cli, "PUT", body, NULL, &err, "/v1/admin/teams/%s/quota", id) < 0)
		return cli_fail(cli, &err, args->operands[1]);
	cli_print_done(cli, "id", id);
	return 0;
}

static const struct verb verbs[] = {
    {"ls", "", "list the teams that you are in", 0, 0, NULL, COMPLETE_NONE, list},
    {"show", "", "the team of the API key", 0, 0, NULL, COMPLETE_NONE, show},
    {"create", "NAME", "make another team, of which you are the owner", 1, 1, "what name",
        COMPLETE_NONE, create},
    {"rename", "NAME", "call the team otherwise", 1, 1, "what name", COMPLETE_NONE, rename_team},
    {"rm", "TEAM", "delete one with its sandboxes, keys and templates", 1, 1, "which one",
        COMPLETE_TEAMS, delete},
    {"members", "", "list who is in the team", 0, 0, NULL, COMPLETE_NONE, list_members},
    {"add", "EMAIL", "take somebody with an account into the team", 1, 1, "whose address",
        COMPLETE_NONE, add},
    {"role", "EMAIL admin|member", "say what a member may do", 2, 2, "whose, and admin or member",
        COMPLETE_NONE, set_role},
    {"remove", "EMAIL", "take somebody out of the team", 1, 1, "whom", COMPLETE_NONE,
        remove_member},
    {"quota", "TEAM NAME=VALUE…",
        "bound what a team uses at once, for administrators of this Aviary", 2, OPERANDS_ANY,
        "of which team, and what, such as sandboxes=10", COMPLETE_TEAMS, set_quota},
    {NULL, NULL, NULL, 0, 0, NULL, COMPLETE_NONE, NULL},
};

static const struct option_spec options[] = {
    {"all", 'a', OPTION_FLAG, NULL, "ls, rm: all teams of this Aviary, for its administrators",
        COMPLETE_NONE},
    {NULL, 0, OPTION_FLAG, NULL, NULL, COMPLETE_NONE},
};

static const char *const examples[] = {
    "aviary teams add ann@example.com\tAnn has an account and is a member now",
    "aviary teams role ann@example.com admin\tand may add others",
    "aviary teams quota ann-team sandboxes=20 memory=16G creates=60\tas an administrator of Aviary",
    NULL,
};

const struct command command_teams = {
    .name = "teams",
    .summary = "teams, who is in them, and what they may use",
    .description =
        "All but ls, create, rm and quota are about the team of the API key. Quotas are "
        "sandboxes, cpus, memory, disk, and creates (a minute); the value none takes a bound away. "
        "TEAM is an id, a name or a slug.",
    .verbs = verbs,
    .connects = true,
    .examples = examples,
    .see = "limits keys users",
    .options = options,
    .min_operands = 1,
    .max_operands = OPERANDS_ANY,
};
