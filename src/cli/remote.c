/* SPDX-License-Identifier: Apache-2.0 */
/*
 * remote.c - the daemon as commands see it: one client of libaviary, requests, sandboxes by name
 *
 * Where the URL and the key come from is the library's (aviary/client.h); what this adds is
 * --key-file. The key is read from a file or the environment, never from the command line, where
 * everybody on the machine could read it.
 *
 * Nothing is tried twice: a person who waits for an answer wants to know at once why there is none.
 */
#include "cli/remote.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/avtime.h"
#include "base/fd.h"
#include "base/json.h"
#include "cli/command.h"
#include "cli/progress.h"

#include "base/banned.h"

#define LOOK_MS    100 /* how often a wait looks for signals */
#define GIVE_UP_NS (2 * AV_NS_PER_S)

/* ---- the connection ---- */

/* text: where the key stays, wiped by the caller. */
static int read_key_file(const char *path, char *text, size_t size, struct av_err *err)
{
	bool is_stdin = strcmp(path, "-") == 0;
	ssize_t n = is_stdin ? av_read_full(STDIN_FILENO, text, size - 1)
	                     : av_read_file_at(AT_FDCWD, path, text, size);
	struct av_str key;

	if (n < 0)
		return av_err_sys(err, AV_ERR_INVALID, (int)n, "--key-file %s", path);
	key = av_str_n(text, (size_t)n);
	while (key.n > 0 && strchr(" \t\r\n", key.p[key.n - 1]))
		key.n--;
	key = av_str_trim(key);
	if (key.n == 0)
		return av_err_set(err, AV_ERR_INVALID, "--key-file %s: the file is empty", path);
	memmove(text, key.p, key.n);
	text[key.n] = '\0';
	return 0;
}

int cli_connect(struct cli *cli)
{
	aviary_client_options o = AVIARY_CLIENT_OPTIONS_INIT;
	const char *key_file = args_text(cli->args, "key-file");
	struct av_err err = {0};
	char key[1024];
	int r;

	o.base_url = args_text(cli->args, "url");
	o.ca_file = args_text(cli->args, "ca");
	o.user_agent = "aviary/" AVIARY_VERSION;
	o.retry_budget_ms = -1;
	if (key_file && read_key_file(key_file, key, sizeof(key), &err) < 0)
		return cli_fail(cli, &err, NULL);
	o.api_key = key_file ? key : NULL;
	r = aviary_client_new(&cli->client, &o);
	explicit_bzero(key, sizeof(key));
	if (r < 0) {
		(void)cli_error(cli, aviary_client_error(cli->client), &err);
		return cli_fail(cli, &err, NULL);
	}
	cli->url = aviary_client_base_url(cli->client);
	return 0;
}

void cli_clear(struct cli *cli)
{
	aviary_op_free(cli->answer);
	aviary_client_free(cli->client);
	cli->answer = NULL;
	cli->client = NULL;
	cli->url = NULL;
}

/* ---- errors ---- */

/* What the server did not name. */
static const struct {
	int code;
	enum av_err_kind kind;
} kinds[] = {
    {AVIARY_E_INVALID, AV_ERR_INVALID},
    {AVIARY_E_NO_MEMORY, AV_ERR_NO_MEMORY},
    {AVIARY_E_CANCELED, AV_ERR_CANCELED},
    {AVIARY_E_TIMEOUT, AV_ERR_UNAVAILABLE},
    {AVIARY_E_TOO_LARGE, AV_ERR_TOO_LARGE},
    {AVIARY_E_UNSUPPORTED, AV_ERR_UNSUPPORTED},
    {AVIARY_E_FORBIDDEN, AV_ERR_FORBIDDEN},
    {AVIARY_GROUP_AUTH, AV_ERR_UNAUTHORIZED},
    {AVIARY_GROUP_TRANSPORT, AV_ERR_UNAVAILABLE},
    {AVIARY_E_NOT_FOUND, AV_ERR_NOT_FOUND},
    {AVIARY_E_CONFLICT, AV_ERR_CONFLICT},
    {AVIARY_E_QUOTA, AV_ERR_QUOTA},
    {AVIARY_E_RATE_LIMITED, AV_ERR_RATE_LIMITED},
    {AVIARY_E_NO_SPACE, AV_ERR_NO_SPACE},
    {AVIARY_E_UNAVAILABLE, AV_ERR_UNAVAILABLE},
    {AVIARY_E_SANDBOX_NOT_FOUND, AV_ERR_NOT_FOUND},
    {AVIARY_E_SANDBOX_NOT_RUNNING, AV_ERR_INVALID_STATE},
    {AVIARY_GROUP_SANDBOX, AV_ERR_AGENT},
    {AVIARY_E_EXEC_TIMEOUT, AV_ERR_EXEC_TIMEOUT},
    {AVIARY_E_EXEC_NOT_FOUND, AV_ERR_NOT_FOUND},
    {AVIARY_E_EXEC_NOT_EXECUTABLE, AV_ERR_FORBIDDEN},
    {AVIARY_GROUP_EXEC, AV_ERR_AGENT},
    {AVIARY_E_FILE_NOT_FOUND, AV_ERR_NOT_FOUND},
    {AVIARY_E_FILE_DENIED, AV_ERR_FORBIDDEN},
    {AVIARY_GROUP_FILE, AV_ERR_INVALID},
};

int cli_error(struct cli *cli, const aviary_error *e, struct av_err *err)
{
	enum av_err_kind kind = e->server_code[0] ? av_err_from_code(e->server_code) : AV_ERR_NONE;

	cli->is_unreachable = e->code == AVIARY_E_UNREACHABLE;
	for (size_t i = 0; i < AV_ARRAY_LEN(kinds) && kind == AV_ERR_NONE; i++)
		if (aviary_error_is(e->code, kinds[i].code))
			kind = kinds[i].kind;
	return av_err_set(err, kind == AV_ERR_NONE ? AV_ERR_INTERNAL : kind, "%s", e->message);
}

/* ---- requests ---- */

/* What goes on meanwhile, for people; at most once a second. */
static void look(struct cli *cli, struct progress *progress, int64_t *last_ns)
{
	int64_t now_ns = av_mono_ns();

	if (now_ns - *last_ns < AV_NS_PER_S)
		return;
	if (progress->on)
		cli->look(cli);
	*last_ns = av_mono_ns();
	if (cli->looked[0])
		progress->what = cli->looked;
}

int cli_wait(struct cli *cli, aviary_op *op, struct av_err *err)
{
	int64_t begun_ns = av_mono_ns(), looked_ns = begun_ns;
	struct progress progress;
	int r;

	progress_init(&progress,
	    cli->err_is_tty && !cli->json && !cli->quiet && !cli->has_own_progress,
	    cli->waiting ? cli->waiting : "waiting for the daemon");
	while ((r = aviary_op_wait(op, LOOK_MS)) == AVIARY_E_AGAIN) {
		bool is_long = cli->look && av_mono_ns() - begun_ns > GIVE_UP_NS;

		if (cli_is_interrupted() || (is_long && cli_caught_signal()))
			aviary_op_cancel(op);
		if (cli->look)
			look(cli, &progress, &looked_ns);
		progress_wait(&progress);
	}
	progress_end(&progress);
	cli->is_unreachable = false;
	return r < 0 ? cli_error(cli, aviary_op_error(op), err) : 0;
}

int cli_transfer(struct cli *cli, aviary_op *op, const char *what, struct av_err *err)
{
	struct progress progress;
	int64_t done, total;
	int r;

	progress_init(&progress, cli->err_is_tty && !cli->json && !cli->quiet, what);
	while ((r = aviary_op_wait(op, LOOK_MS)) == AVIARY_E_AGAIN) {
		if (cli_is_interrupted())
			aviary_op_cancel(op);
		aviary_transfer_progress(op, &done, &total);
		progress_set(&progress, done, total);
	}
	progress_end(&progress);
	cli->is_unreachable = false;
	if (r < 0)
		r = cli_error(cli, aviary_op_error(op), err);
	aviary_op_free(op);
	return r;
}

static int parse_answer(struct cli *cli, json_t **ret, struct av_err *err)
{
	size_t n;
	const char *body = aviary_op_body(cli->answer, &n);

	*ret = n ? json_loadb(body, n, JSON_REJECT_DUPLICATES, NULL) : NULL;
	return n && !*ret ? av_err_set(err, AV_ERR_INTERNAL,
	                        "%s answered something that is not JSON; is that an Aviary daemon?",
	                        cli->url)
	                  : 0;
}

int cli_request(
    struct cli *cli, const struct cli_request *request, json_t **ret_reply, struct av_err *err)
{
	AV_CLEANUP(av_freep)
	char *body = request->body ? json_dumps(request->body, JSON_COMPACT) : NULL;
	aviary_request q = AVIARY_REQUEST_INIT;
	aviary_op *op;
	int r;

	if (request->body && !body)
		return av_err_set(err, AV_ERR_NO_MEMORY, "out of memory");
	q.method = request->method;
	q.path = request->path;
	q.body = body;
	q.timeout_ms = request->timeout_ms;
	q.anonymous = request->is_anonymous;
	op = aviary_client_request(cli->client, &q);
	r = cli_wait(cli, op, err);
	if (r < 0) {
		aviary_op_free(op);
		return r;
	}
	aviary_op_free(cli->answer);
	cli->answer = op;
	return ret_reply ? parse_answer(cli, ret_reply, err) : 0;
}

int cli_call(struct cli *cli, const char *method, const json_t *body, json_t **ret_reply,
    struct av_err *err, const char *path_fmt, ...)
{
	char path[1024];
	va_list ap;
	int n;

	va_start(ap, path_fmt);
	n = vsnprintf(path, sizeof(path), path_fmt, ap);
	va_end(ap);
	if (n < 0 || (size_t)n >= sizeof(path))
		return av_err_set(err, AV_ERR_INVALID, "the request's path is too long");
	return cli_request(cli, &(struct cli_request){.method = method, .path = path, .body = body},
	    ret_reply, err);
}

bool cli_is_answer(const struct cli *cli, const json_t *j)
{
	AV_CLEANUP(av_json_decrefp) json_t *answer = NULL;
	size_t n = 0;
	const char *body = cli->answer ? aviary_op_body(cli->answer, &n) : "";

	answer = n ? json_loadb(body, n, 0, NULL) : NULL;
	return answer && json_equal(answer, j);
}

/* ---- sandboxes ---- */

/* True when the sandbox is meant by the text: beginning of its id (with or without "sb"), or name.
 */
static bool is_meant(const json_t *sandbox, const char *what, bool *ret_is_exact)
{
	const char *id = json_string_value(json_object_get(sandbox, "id"));
	const char *name =
	    json_string_value(json_object_get(json_object_get(sandbox, "metadata"), "name"));
	if (!id)
		return false;
	size_t n = strlen(what);
	*ret_is_exact = strcmp(id, what) == 0 || (name && strcmp(name, what) == 0);
	return *ret_is_exact || strncmp(id, what, n) == 0 ||
	       (strlen(id) > 2 && strncmp(id + 2, what, n) == 0);
}

int cli_resolve(
    struct cli *cli, const char *what, char ret_id[static AV_ID_SIZE], struct av_err *err)
{
	if (av_id_valid(av_str_c(what), AV_ID_SANDBOX))
		return av_str_copy(ret_id, AV_ID_SIZE, av_str_c(what));
	if (!what[0])
		return av_err_set(err, AV_ERR_INVALID, "the sandbox id is empty");

	AV_CLEANUP(av_json_decrefp) json_t *list = NULL;
	int r = cli_call(cli, "GET", NULL, &list, err, "/v1/sandboxes");
	if (r < 0)
		return r;
	const char *found = NULL;
	size_t n = 0, i;
	json_t *sandbox;
	json_array_foreach (list, i, sandbox) {
		bool is_exact;
		if (!is_meant(sandbox, what, &is_exact))
			continue;
		found = json_string_value(json_object_get(sandbox, "id"));
		n = is_exact ? 1 : n + 1;
		if (is_exact)
			break;
	}
	if (n == 0)
		return av_err_set(err, AV_ERR_NOT_FOUND,
		    "there is no sandbox '%s'; 'aviary ls' lists them", what);
	if (n > 1)
		return av_err_set(err, AV_ERR_INVALID,
		    "'%s' fits %zu sandboxes; give more of the id ('aviary ls' lists them)", what,
		    n);
	if (!av_id_valid(av_str_c(found), AV_ID_SANDBOX) ||
	    av_str_copy(ret_id, AV_ID_SIZE, av_str_c(found)) < 0)
		return av_err_set(err, AV_ERR_INTERNAL, "the daemon sent an id that is none");
	return 0;
}

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
