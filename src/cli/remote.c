/* SPDX-License-Identifier: Apache-2.0 */
/*
 * remote.c - what our commands ask of a sandbox: small programs as tools, and its files
 */
#include "cli/remote.h"

#include <string.h>
#include <sys/stat.h>

#include "base/json.h"

#include "base/banned.h"

static char *take_text(const json_t *reply, const char *field)
{
	const char *s = json_string_value(json_object_get(reply, field));
	return av_str_dup(av_str_c(s));
}

int remote_run(struct cli *cli, const char *id, const char *const *argv, int *ret_code,
    char **ret_out, char **ret_err, struct av_err *err)
{
	AV_CLEANUP(av_json_decrefp) json_t *reply = NULL;
	json_t *list = json_array();
	for (const char *const *a = argv + 1; *a; a++)
		json_array_append_new(list, json_string(*a));
	AV_CLEANUP(av_json_decrefp)
	json_t *body =
	    json_pack("{s:s, s:o, s:i}", "cmd", argv[0], "args", list, "timeout_sec", 60);
	if (!body)
		return av_err_set(err, AV_ERR_INVALID, "the path is not valid UTF-8");
	int r = cli_call(cli, "POST", body, &reply, err, "/v1/sandboxes/%s/exec", id);
	if (r < 0)
		return r;
	const json_t *code = json_object_get(reply, "exit_code");
	*ret_code = (int)json_integer_value(code);
	if (ret_out)
		*ret_out = take_text(reply, "stdout");
	if (ret_err)
		*ret_err = take_text(reply, "stderr");
	return 0;
}

bool remote_is_running(struct cli *cli, const char *id)
{
	AV_CLEANUP(av_json_decrefp) json_t *sandbox = NULL;
	if (cli_call(cli, "GET", NULL, &sandbox, NULL, "/v1/sandboxes/%s", id) < 0)
		return false;
	const char *status = json_string_value(json_object_get(sandbox, "status"));
	return status && strcmp(status, "running") == 0;
}

static int bad_path(struct av_err *err)
{
	return av_err_set(err, AV_ERR_INVALID, "the path is not valid UTF-8");
}

int remote_stat(
    struct cli *cli, const char *id, const char *path, struct remote_stat *ret, struct av_err *err)
{
	AV_CLEANUP(av_json_decrefp) json_t *reply = NULL;
	AV_CLEANUP(av_json_decrefp) json_t *body = json_pack("{s:s}", "path", path);
	struct av_err local = {0};
	const char *type = "";
	int64_t mode = 0, size = 0;
	if (!body)
		return bad_path(err);
	*ret = (struct remote_stat){0};
	int r = cli_call(cli, "POST", body, &reply, &local, "/v1/sandboxes/%s/files/stat", id);
	if (r < 0 && local.kind == AV_ERR_NOT_FOUND && remote_is_running(cli, id))
		return 0;
	if (r < 0) {
		if (err)
			*err = local;
		return r;
	}
	const json_t *entry = json_object_get(reply, "entry");
	if ((r = av_json_get_str(entry, "type", &type, err)) < 0 ||
	    (r = av_json_get_i64(entry, "mode", 0, 07777, &mode, err)) < 0 ||
	    (r = av_json_get_i64(entry, "size", 0, INT64_MAX, &size, err)) < 0)
		return r;
	/* A link that leads nowhere: writing there makes what it leads to. */
	if (strcmp(type, "symlink") == 0)
		return 0;
	ret->exists = true;
	ret->mode = (mode_t)mode | (strcmp(type, "directory") == 0 ? S_IFDIR : S_IFREG);
	ret->size = json_object_get(entry, "symlink_target") ? 0 : (uint64_t)size;
	return 0;
}

int remote_chmod(struct cli *cli, const char *id, const char *path, mode_t mode, struct av_err *err)
{
	AV_CLEANUP(av_json_decrefp)
	json_t *body = json_pack("{s:s, s:i}", "path", path, "mode", (int)(mode & 07777));
	if (!body)
		return bad_path(err);
	return cli_call(cli, "POST", body, NULL, err, "/v1/sandboxes/%s/files/chmod", id);
}
