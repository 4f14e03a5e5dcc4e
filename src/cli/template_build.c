/* SPDX-License-Identifier: Apache-2.0 */
/*
 * template_build.c - aviary template build and import: from a tar archive to a template
 *
 * The archive comes from a recipe that this machine runs (mmdebstrap), or from a file. It is
 * unpacked by the agent of a sandbox that is empty otherwise, and a snapshot of that sandbox is the
 * template: so nothing that runs with privileges ever parses it.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/avtime.h"
#include "base/json.h"
#include "base/num.h"
#include "base/path.h"
#include "cli/options.h"
#include "cli/remote.h"
#include "cli/template.h"

#include "base/banned.h"

#define SNAPSHOT_TIMEOUT_MS (15 * 60 * 1000)
#define BUILDER_IDLE_S      300
#define SANDBOX_DISK_MB     5120 /* of those made from it */
#define OWNERS              "/var/lib/aviary/owners"

/* What the recipes in templates/ are about. */
static const struct recipe {
	const char *name, *what;
	json_int_t memory_mb, disk_mb; /* of its sandboxes, and of the one it is built in */
	bool kernel_warm;
	bool runs_nothing; /* it holds no programs: nobody makes sandboxes of it */
} recipes[] = {
    {"base", "Debian with git, curl, python3 and sudo", 0, 8192, false, false},
    {"code-interpreter", "base with IPython, numpy, pandas, matplotlib and node", 1024, 10240, true,
        false},
    {"vm-kernel", "Debian's kernel, for sandboxes with a kernel of their own", 0, 1024, false,
        true},
};

/* $AVIARY_TEMPLATES/NAME/build, else among those that came with this program. */
static int find_recipe(const char *name, char *ret, size_t size)
{
	static const char *const folders[] = {"../share/aviary/templates", "../../templates"};
	const char *own = getenv("AVIARY_TEMPLATES");
	char dir[4096];
	int r = own ? av_path_printf(ret, size, "%s/%s/build", own, name) : -ENOENT;
	if (r == 0 && access(ret, X_OK) == 0)
		return 0;
	r = cli_own_dir(dir, sizeof(dir));
	for (size_t i = 0; r == 0 && i < AV_ARRAY_LEN(folders); i++) {
		r = av_path_printf(ret, size, "%s/%s/%s/build", dir, folders[i], name);
		if (r == 0 && access(ret, X_OK) == 0)
			return 0;
	}
	return r < 0 ? r : -ENOENT;
}

/* ---- the sandbox it is built in ---- */

static int make_builder(
    struct cli *cli, const struct recipe *recipe, char id[static AV_ID_SIZE], struct av_err *err)
{
	AV_CLEANUP(av_json_decrefp)
	/* Should nobody come back to it, it goes by itself. */
	json_t *body = json_pack("{s:s, s:s, s:i, s:s, s:I, s:I, s:{s:s}}", "template", "empty",
	    "isolation", "jail", "timeout_sec", BUILDER_IDLE_S, "on_timeout", "delete", "memory_mb",
	    (json_int_t)1024, "disk_mb", recipe->disk_mb ? recipe->disk_mb : (json_int_t)8192,
	    "metadata", "purpose", "template build");
	if (!body)
		return av_err_set(err, AV_ERR_NO_MEMORY, "out of memory");
	return options_create_sandbox(cli, body, id, NULL, err);
}

static void remove_builder(struct cli *cli, const char *id)
{
	struct av_err err = {0};
	cli_hold_signals();
	if (cli_call(cli, "DELETE", NULL, NULL, &err, "/v1/sandboxes/%s", id) < 0)
		cli_warn("the sandbox %s is left behind: %s", id, err.message);
	cli_unhold_signals();
}

/* Owners and set-user-ID bits, which unpacking leaves out; rootless there is one id only. */
static int restore_owners(struct cli *cli, const char *id, struct av_err *err)
{
	static const char script[] =
	    "cd / && if [ -e ." OWNERS " ]; then sh ." OWNERS " 2>/dev/null; rm -f ." OWNERS
	    "; fi; rmdir var/lib/aviary 2>/dev/null; true";
	const char *argv[] = {"/bin/sh", "-c", script, NULL};
	int code = 0;
	int r = remote_run(cli, id, argv, &code, NULL, NULL, err);
	if (r < 0)
		av_err_prefix(err, "the root file system does not work (has it /bin/sh?)");
	return r;
}

static int take_snapshot(struct cli *cli, const struct recipe *recipe, const char *id,
    bool is_private, json_t **ret, struct av_err *err)
{
	AV_CLEANUP(av_json_decrefp)
	json_t *body = json_pack("{s:s, s:s, s:s, s:b, s:b, s:b, s:s}", "sandbox_id", id, "name",
	    recipe->name, "type", "base", "stop", 1, "platform", !is_private, "kernel_warm",
	    recipe->kernel_warm, "user", "");
	if (!body)
		return av_err_set(err, AV_ERR_NO_MEMORY, "out of memory");
	json_object_set_new(
	    body, "memory_mb", json_integer(recipe->memory_mb ? recipe->memory_mb : 512));
	json_object_set_new(body, "disk_mb", json_integer(SANDBOX_DISK_MB));
	const struct cli_request request = {.method = "POST",
	    .path = "/v1/snapshots?overwrite=true",
	    .body = body,
	    .timeout_ms = SNAPSHOT_TIMEOUT_MS};
	return cli_request(cli, &request, ret, err);
}

/* The archive into the sandbox's root. */
static int upload(struct cli *cli, struct feed *f, const char *id, struct av_err *err)
{
	aviary_sandbox *sb = aviary_sandbox_attach_running(cli->client, id);
	aviary_op *op;
	int r;

	if (!sb)
		return av_err_set(err, AV_ERR_NO_MEMORY, "out of memory");
	op = aviary_tar_upload(sb, "/", feed_read, f, NULL);
	r = cli_wait(cli, op, err);
	aviary_op_free(op);
	aviary_sandbox_free(sb);
	return r;
}

static int fill(struct cli *cli, struct feed *f, const struct recipe *recipe, const char *id,
    bool is_private, json_t **ret, struct av_err *err)
{
	struct av_err why = {0};
	int r = upload(cli, f, id, err);
	if (r < 0 && !f->ended)
		return r;
	/* The recipe's failure is the reason for an archive that is cut off. */
	if (feed_finish(f, &why) < 0) {
		*err = why;
		return -EIO;
	}
	if (r < 0) {
		if (err->kind == AV_ERR_NO_SPACE)
			av_err_prefix(err, "the daemon's disk is full");
		return r;
	}
	f->bytes = 0;
	if (!recipe->runs_nothing) {
		feed_step(f, "restoring owners");
		r = restore_owners(cli, id, err);
	}
	if (r < 0)
		return r;
	feed_step(f, "taking the snapshot");
	/* It is taken whole, whoever goes away meanwhile: so hear how it went. */
	cli_hold_signals();
	r = take_snapshot(cli, recipe, id, is_private, ret, err);
	cli_unhold_signals();
	return r;
}

static int build(
    struct cli *cli, struct feed *f, const struct recipe *recipe, bool is_private, bool report)
{
	struct av_err err = {0};
	char id[AV_ID_SIZE] = "", size[24];
	AV_CLEANUP(av_json_decrefp) json_t *made = NULL;
	cli->has_own_progress = true;
	int r = feed_wait(f, &err);
	if (r == 0)
		r = make_builder(cli, recipe, id, &err);
	if (r == 0)
		r = fill(cli, f, recipe, id, is_private, &made, &err);
	int seconds = (int)((av_mono_ns() - f->began_ns) / AV_NS_PER_S);
	feed_close(f);
	/* A snapshot that was taken took the sandbox along. */
	if (r < 0 && id[0])
		remove_builder(cli, id);
	if (r < 0)
		return cli_fail(cli, &err, recipe->name);
	if (!report) {
		cli->has_own_progress = false;
		return 0;
	}
	if (cli->json) {
		cli_print_json(cli, made);
		return 0;
	}
	av_format_size((uint64_t)json_integer_value(json_object_get(made, "size_bytes")), size);
	printf("%s: built in %d s, %s\n", recipe->name, seconds, size);
	return 0;
}

static int start(struct cli *cli)
{
	int status = cli->client ? 0 : cli_connect(cli);
	struct av_err err = {0};
	if (status)
		return status;
	cli_catch_signals();
	/* Before a minute of work: is there a daemon? */
	if (cli_call(cli, "GET", NULL, NULL, &err, "/v1/snapshots?type=base") < 0)
		return cli_fail(cli, &err, NULL);
	return 0;
}

static int build_named(struct cli *cli, const char *name, bool is_private, bool report)
{
	struct recipe own = {.name = name};
	const struct recipe *recipe = &own;
	struct av_err err = {0};
	struct feed f;
	char path[8192];

	for (size_t i = 0; i < AV_ARRAY_LEN(recipes); i++)
		if (strcmp(recipes[i].name, name) == 0)
			recipe = &recipes[i];
	if (strchr(name, '/') || find_recipe(name, path, sizeof(path)) < 0)
		return cli_usage_error(cli,
		    "no recipe %s; there are base, code-interpreter and vm-kernel, and yours in "
		    "$AVIARY_TEMPLATES/%s/build ('aviary template import' takes any tar archive of "
		    "a "
		    "root file system)",
		    name, name);
	int status = start(cli);
	if (status)
		return status;
	if (feed_start(&f, cli, recipe->name, path, &err) < 0)
		return cli_fail(cli, &err, recipe->name);
	return build(cli, &f, recipe, is_private, report);
}

int template_build_named(struct cli *cli, const char *name)
{
	return build_named(cli, name, false, !cli->json && !cli->quiet);
}

int template_build(struct cli *cli, const struct args *args)
{
	if (args->n_operands < 2) {
		for (size_t i = 0; i < AV_ARRAY_LEN(recipes); i++)
			printf("%-18s%s\n", recipes[i].name, recipes[i].what);
		return 0;
	}
	return build_named(cli, args->operands[1], args_flag(args, "private"), true);
}

int template_import(struct cli *cli, const struct args *args)
{
	struct recipe recipe = {0};
	struct av_err err = {0};
	struct feed f;
	if (args->n_operands < 2)
		return cli_usage_error(cli, "which name is it to have?");
	recipe.name = args->operands[1];
	if (feed_open(&f, cli, recipe.name, args->n_operands > 2 ? args->operands[2] : "-", &err) <
	    0)
		return cli_fail(cli, &err, NULL);
	int status = start(cli);
	if (status) {
		feed_close(&f);
		return status;
	}
	return build(cli, &f, &recipe, args_flag(args, "private"), true);
}
