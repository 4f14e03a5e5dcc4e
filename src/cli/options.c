/* SPDX-License-Identifier: Apache-2.0 */
/*
 * options.c - from options to requests
 */
#include "cli/options.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/num.h"
#include "cli/making.h"

#include "base/banned.h"

/* The first virtual machine of a template waits for its image. */
#define CREATE_MS (45 * 60 * 1000)

static int set_text(json_t *object, struct av_str key, const char *value, struct av_err *err)
{
	AV_CLEANUP(av_freep) char *name = av_str_dup(key);
	if (!name)
		return av_err_sys(err, AV_ERR_NO_MEMORY, ENOMEM, "options");
	if (key.n == 0)
		return av_err_set(err, AV_ERR_INVALID, "'=%s' has no name before the '='", value);
	if (json_object_set_new(object, name, json_string(value)) < 0)
		return av_err_set(
		    err, AV_ERR_INVALID, "the value of '%s' is not valid UTF-8", name);
	return 0;
}

int options_envs(const struct args *args, json_t **ret, struct av_err *err)
{
	size_t pos = 0;
	const char *text;
	AV_CLEANUP(av_json_decrefp) json_t *envs = NULL;
	while ((text = args_next(args, "env", &pos))) {
		struct av_str value = av_str_c(text), name;
		const char *v;
		if (!envs && !(envs = json_object()))
			return av_err_sys(err, AV_ERR_NO_MEMORY, ENOMEM, "options");
		if (av_str_cut(&value, '=', &name))
			v = value.p;
		else
			v = getenv(text);
		/* As with other tools, a variable that is not set here is not set there. */
		if (!v)
			continue;
		int r = set_text(envs, name, v, err);
		if (r < 0) {
			av_err_prefix(err, "--env");
			return r;
		}
	}
	*ret = AV_TAKE_PTR(envs);
	return 0;
}

aviary_pair *options_env_pairs(const json_t *envs)
{
	aviary_pair *pairs = calloc(json_object_size(envs) + 1, sizeof(*pairs));
	const char *name;
	json_t *value;
	size_t n = 0;

	json_object_foreach ((json_t *)(uintptr_t)envs, name, value)
		if (pairs)
			pairs[n++] = (aviary_pair){name, json_string_value(value)};
	return pairs;
}

static int add_metadata(const struct args *args, json_t *body, struct av_err *err)
{
	size_t pos = 0;
	const char *text;
	AV_CLEANUP(av_json_decrefp) json_t *metadata = json_object();
	while ((text = args_next(args, "metadata", &pos))) {
		struct av_str value = av_str_c(text), key;
		if (!av_str_cut(&value, '=', &key))
			return av_err_set(
			    err, AV_ERR_INVALID, "--metadata %s: expected KEY=VALUE", text);
		int r = set_text(metadata, key, value.p, err);
		if (r < 0) {
			av_err_prefix(err, "--metadata");
			return r;
		}
	}
	if (args_text(args, "name") &&
	    set_text(metadata, AV_STR("name"), args_text(args, "name"), err) < 0) {
		av_err_prefix(err, "--name");
		return -EINVAL;
	}
	if (json_object_size(metadata) > 0)
		json_object_set(body, "metadata", metadata);
	return 0;
}

static int add_tags(const struct args *args, json_t *body, struct av_err *err)
{
	AV_CLEANUP(av_json_decrefp) json_t *tags = json_array();
	size_t pos = 0;
	const char *text;
	while ((text = args_next(args, "tag", &pos)))
		if (json_array_append_new(tags, json_string(text)) < 0)
			return av_err_set(
			    err, AV_ERR_INVALID, "--tag: the text is not valid UTF-8");
	if (json_array_size(tags) > 0)
		json_object_set(body, "tags", tags);
	return 0;
}

json_t *options_sandbox_body(const struct args *args, struct av_err *err)
{
	AV_CLEANUP(av_json_decrefp) json_t *body = json_object();
	const char *template = args_text(args, "template");
	const char *isolation = args_text(args, "isolation");
	if (template && json_object_set_new(body, "template", json_string(template)) < 0) {
		av_err_set(err, AV_ERR_INVALID, "--template: the name is not valid UTF-8");
		return NULL;
	}
	if (isolation && strcmp(isolation, "jail") != 0 && strcmp(isolation, "vm") != 0) {
		av_err_set(err, AV_ERR_INVALID,
		    "--isolation %s: it must be 'jail' (this machine's kernel) or 'vm' (a kernel "
		    "of "
		    "its own)",
		    isolation);
		return NULL;
	}
	if (isolation)
		json_object_set_new(body, "isolation", json_string(isolation));
	if (args_text(args, "memory"))
		json_object_set_new(body, "memory_mb",
		    json_integer(
		        (json_int_t)((args_size(args, "memory", 0) + AV_MIB - 1) / AV_MIB)));
	if (args_text(args, "disk"))
		json_object_set_new(body, "disk_mb",
		    json_integer((json_int_t)((args_size(args, "disk", 0) + AV_MIB - 1) / AV_MIB)));
	if (args_text(args, "cpus"))
		json_object_set_new(
		    body, "cpus", json_real((double)args_milli(args, "cpus", 0) / 1000));
	if (args_text(args, "pids"))
		json_object_set_new(
		    body, "pids_max", json_integer((json_int_t)args_number(args, "pids", 0)));
	if (args_flag(args, "internet"))
		json_object_set_new(body, "internet", json_true());
	if (args_flag(args, "no-sudo"))
		json_object_set_new(body, "sudo", json_false());
	if (add_metadata(args, body, err) < 0 || add_tags(args, body, err) < 0)
		return NULL;
	return AV_TAKE_PTR(body);
}

int options_create_sandbox(struct cli *cli, json_t *body, char ret_id[static AV_ID_SIZE],
    json_t **ret_sandbox, struct av_err *err)
{
	AV_CLEANUP(av_json_decrefp) json_t *sandbox = NULL;
	/* A signal takes effect when the answer is there and can be acted upon. */
	const struct cli_request request = {
	    .method = "POST", .path = "/v1/sandboxes", .body = body, .timeout_ms = CREATE_MS};
	cli_hold_signals();
	cli->look = making_look;
	int r = cli_request(cli, &request, &sandbox, err);
	cli->look = NULL;
	cli_unhold_signals();
	if (r < 0)
		return r;
	const char *id = json_string_value(json_object_get(sandbox, "id"));
	const char *status = json_string_value(json_object_get(sandbox, "status"));
	const char *reason = json_string_value(json_object_get(sandbox, "reason"));
	if (!id || !av_id_valid(av_str_c(id), AV_ID_SANDBOX) ||
	    av_str_copy(ret_id, AV_ID_SIZE, av_str_c(id)) < 0)
		return av_err_set(err, AV_ERR_INTERNAL, "the daemon sent a sandbox without an id");
	if (status && strcmp(status, "error") == 0)
		return av_err_set(err, AV_ERR_INTERNAL, "sandbox %s could not start: %s", id,
		    reason ? reason : "no reason given");
	if (ret_sandbox)
		*ret_sandbox = AV_TAKE_PTR(sandbox);
	return 0;
}
