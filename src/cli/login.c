/* SPDX-License-Identifier: Apache-2.0 */
/*
 * login.c - aviary login, aviary logout: the credentials file
 *
 * Theory of operation. What is saved is always an API key, as only that outlives a session: one
 * that is given, after the daemon has said that it knows it, or one that is made with the session
 * that address and password gave. Secrets come from the terminal without echo, a file or standard
 * input, never from the command line. The file is written beside its place, for its owner only, and
 * renamed into it; the one that was there before is kept as credentials.json.before, as it may hold
 * the only key of an administrator.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/json.h"
#include "base/path.h"
#include "cli/ask.h"
#include "cli/command.h"

#include "base/banned.h"

#define SECRET_MAX 1100 /* passwords have at most 1024 bytes */
#define EXPIRES_MS (90LL * 24 * 3600 * 1000)

/* ---- the file ---- */

static int make_folders(const char *path, struct av_err *err)
{
	char part[4096];

	for (const char *p = strchr(path + 1, '/'); p; p = strchr(p + 1, '/')) {
		if (av_str_copy(part, sizeof(part), av_str_n(path, (size_t)(p - path))) < 0)
			return av_err_sys(err, AV_ERR_INVALID, ENAMETOOLONG, "%s", path);
		if (mkdir(part, 0700) < 0 && errno != EEXIST)
			return av_err_sys(err, AV_ERR_INVALID, errno, "%s", part);
	}
	return 0;
}

/* The file of before stays beside it, unless it says the same. */
static int keep_before(const char *path, const char *text, struct av_err *err)
{
	char before[4200], old[4096];
	ssize_t n = av_read_file_at(AT_FDCWD, path, old, sizeof(old));
	int r = 0;

	if (n >= 0 && (size_t)n == strlen(text) && memcmp(old, text, (size_t)n) == 0)
		n = -ENOENT;
	explicit_bzero(old, sizeof(old));
	if (n == -ENOENT)
		return 0;
	r = av_path_printf(before, sizeof(before), "%s.before", path);
	if (r == 0 && unlink(before) < 0 && errno != ENOENT)
		r = -errno;
	if (r == 0 && link(path, before) < 0)
		r = -errno;
	return r < 0 ? av_err_sys(err, AV_ERR_INVALID, r, "%s.before", path) : 0;
}

static int save(const char *path, const char *text, struct av_err *err)
{
	AV_CLEANUP(av_closep) int fd = -1;
	char beside[4200];
	int r = av_path_printf(beside, sizeof(beside), "%s.new", path);

	if (r < 0 || make_folders(path, err) < 0)
		return r < 0 ? av_err_sys(err, AV_ERR_INVALID, r, "%s", path) : -EINVAL;
	(void)unlink(beside);
	fd = open(beside, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	r = fd < 0 ? -errno : av_write_full(fd, text, strlen(text));
	if (r == 0 && fsync(fd) < 0)
		r = -errno;
	if (r < 0) {
		(void)unlink(beside);
		return av_err_sys(err, AV_ERR_INVALID, r, "%s", beside);
	}
	if (keep_before(path, text, err) < 0) {
		(void)unlink(beside);
		return -EINVAL;
	}
	if (rename(beside, path) < 0)
		return av_err_sys(err, AV_ERR_INVALID, errno, "%s", path);
	return 0;
}

/* ---- a key ---- */

/* Talks with these credentials from now on: one of them, or none. 0, or the exit status. */
static int talk(struct cli *cli, const char *url, const char *key, const char *token)
{
	aviary_client_options o = AVIARY_CLIENT_OPTIONS_INIT;
	struct av_err err = {0};
	aviary_client *c = NULL;
	int r;

	o.base_url = url;
	o.api_key = key;
	o.session_token = token;
	o.ca_file = args_text(cli->args, "ca");
	o.user_agent = "aviary/" AVIARY_VERSION;
	o.retry_budget_ms = -1;
	r = aviary_client_new(&c, &o);
	if (r < 0) {
		(void)cli_error(cli, aviary_client_error(c), &err);
		aviary_client_free(c);
		return cli_fail(cli, &err, NULL);
	}
	aviary_client_free(cli->client);
	cli->client = c;
	cli->url = aviary_client_base_url(c);
	return 0;
}

static int read_secret(
    struct cli *cli, const char *prompt, const char *file, char *ret, size_t size)
{
	ssize_t n;

	if (!file || strcmp(file, "-") == 0) {
		if (ask_line(prompt, true, ret, size) == 0 && ret[0])
			return 0;
		return cli_usage_error(cli, "no %s on one line of standard input", prompt);
	}
	n = av_read_file_at(AT_FDCWD, file, ret, size);
	if (n < 0) {
		cli_warn("%s: %s", file, strerror((int)-n));
		return EXIT_PLATFORM;
	}
	while (n > 0 && strchr(" \t\r\n", ret[n - 1]))
		n--;
	ret[n] = '\0';
	return 0;
}

/* Whether the daemon knows the key; one with few rights is one, too. */
static int check_key(struct cli *cli)
{
	struct cli_request request = {.method = "GET", .path = "/v1/limits"};
	struct av_err err = {0};

	if (cli_request(cli, &request, NULL, &err) == 0 || err.kind == AV_ERR_FORBIDDEN)
		return 0;
	return cli_fail(cli, &err, NULL);
}

static int login_by_key(struct cli *cli, const struct args *args, char *key, size_t size)
{
	int status = read_secret(cli, "API key", args_text(args, "key-file"), key, size);

	status = status ? status : talk(cli, args_text(args, "url"), key, NULL);
	return status ? status : check_key(cli);
}

static json_t *key_body(const struct args *args)
{
	json_t *body = json_object(), *scopes = json_array();
	int64_t expires_ms = (int64_t)args_duration_ms(args, "expires", EXPIRES_MS);
	char host[128] = "", name[200];
	const char *scope;
	size_t pos = 0;

	(void)gethostname(host, sizeof(host) - 1);
	snprintf(name, sizeof(name), "aviary login%s%s", host[0] ? " on " : "", host);
	json_object_set_new(body, "name", json_string(name));
	while ((scope = args_next(args, "scope", &pos)))
		json_array_append_new(scopes, json_string(scope));
	if (json_array_size(scopes) == 0)
		json_array_append_new(scopes, json_string("*"));
	json_object_set_new(body, "scopes", scopes);
	if (expires_ms > 0)
		json_object_set_new(body, "expires_in_sec", json_integer(expires_ms / 1000));
	return body;
}

static int login_by_password(struct cli *cli, const struct args *args, char *key, size_t size)
{
	AV_CLEANUP(av_json_decrefp) json_t *body = NULL;
	AV_CLEANUP(av_json_decrefp) json_t *session = NULL;
	AV_CLEANUP(av_json_decrefp) json_t *made = NULL;
	struct cli_request login = {
	    .method = "POST", .path = "/v1/auth/login", .is_anonymous = true};
	char password[SECRET_MAX], url[2048];
	struct av_err err = {0};
	const char *token, *secret;
	int status = read_secret(cli, "password", NULL, password, sizeof(password)), r;

	status = status ? status : talk(cli, args_text(args, "url"), NULL, NULL);
	if (status)
		return status;
	login.body = body =
	    json_pack("{s:s, s:s}", "email", args_text(args, "email"), "password", password);
	explicit_bzero(password, sizeof(password));
	if (!body)
		return cli_usage_error(cli, "address and password must be UTF-8");
	r = cli_request(cli, &login, &session, &err);
	token = r < 0 ? NULL : json_string_value(json_object_get(session, "token"));
	if (r < 0 || !token || av_str_copy(url, sizeof(url), av_str_c(cli->url)) < 0)
		return r < 0 ? cli_fail(cli, &err, NULL) : EXIT_PLATFORM;
	status = talk(cli, url, NULL, token);
	if (status)
		return status;
	json_decref(body);
	body = key_body(args);
	if (cli_call(cli, "POST", body, &made, &err, "/v1/api-keys") < 0)
		return cli_fail(cli, &err, NULL);
	secret = json_string_value(json_object_get(made, "key"));
	if (!secret || av_str_copy(key, size, av_str_c(secret)) < 0) {
		cli_warn("the daemon made no key");
		return EXIT_PLATFORM;
	}
	return 0;
}

static int run_login(struct cli *cli, const struct args *args)
{
	char key[SECRET_MAX], path[4096];
	AV_CLEANUP(av_json_decrefp) json_t *file = NULL;
	struct av_err err = {0};
	char *text = NULL;
	int status;

	if (args_text(args, "email") && args_text(args, "key-file"))
		return cli_usage_error(cli, "--email and --key-file exclude each other");
	if (cli_credentials_path(0, path, sizeof(path)) < 0) {
		cli_warn("where to? Neither HOME nor AVIARY_CONFIG_DIR is set");
		return EXIT_PLATFORM;
	}
	status = args_text(args, "email") ? login_by_password(cli, args, key, sizeof(key))
	                                  : login_by_key(cli, args, key, sizeof(key));
	if (status == 0) {
		file = json_pack("{s:s, s:s}", "url", cli->url, "api_key", key);
		text = file ? json_dumps(file, JSON_INDENT(2)) : NULL;
		if (!text)
			(void)av_err_sys(&err, AV_ERR_NO_MEMORY, ENOMEM, "%s", path);
		if (!text || save(path, text, &err) < 0)
			status = cli_fail(cli, &err, NULL);
	}
	explicit_bzero(key, sizeof(key));
	if (text)
		explicit_bzero(text, strlen(text));
	free(text);
	if (status)
		return status;
	if (cli->json) {
		AV_CLEANUP(av_json_decrefp)
		json_t *j = json_pack("{s:s, s:s}", "url", cli->url, "file", path);
		cli_print_json(cli, j);
	} else if (!cli->quiet) {
		printf("%s knows you; the key is in %s\n", cli->url, path);
		if (getenv("AVIARY_API_KEY"))
			cli_warn("AVIARY_API_KEY is set and comes first: unset it");
	}
	return 0;
}

static int run_logout(struct cli *cli, const struct args *args)
{
	char path[4096];

	(void)args;
	if (cli_credentials_path(0, path, sizeof(path)) < 0) {
		cli_warn("neither HOME nor AVIARY_CONFIG_DIR is set");
		return EXIT_PLATFORM;
	}
	if (unlink(path) < 0 && errno != ENOENT) {
		cli_warn("%s: %s", path, strerror(errno));
		return EXIT_PLATFORM;
	}
	if (cli->json) {
		AV_CLEANUP(av_json_decrefp) json_t *j = json_pack("{s:s}", "file", path);
		cli_print_json(cli, j);
	} else if (!cli->quiet) {
		printf("%s is gone; its key is good until it expires, or 'aviary keys rm'\n", path);
	}
	return 0;
}

static const struct option_spec login_options[] = {
    {"email", 0, OPTION_TEXT, "ADDRESS", "with address and password instead of a key",
        COMPLETE_NONE},
    {"expires", 0, OPTION_DURATION, "TIME",
        "with --email: how long the key is good that is made (default: 2160h, 90 days)",
        COMPLETE_NONE},
    {"scope", 0, OPTION_LIST, "SCOPE",
        "with --email: what that key is good for (default: *, all you may); may be repeated",
        COMPLETE_NONE},
    {NULL, 0, OPTION_FLAG, NULL, NULL, COMPLETE_NONE},
};

static const char *const login_examples[] = {
    "aviary login --url https://aviary.example\tasks for an API key",
    "aviary login --url https://aviary.example --email ada@example.com\tasks for a password, and "
    "makes a key",
    "pass show aviary | aviary login --key-file -\tfrom a password manager",
    NULL,
};

const struct command command_login = {
    .name = "login",
    .usage = "",
    .summary = "save what to reach a daemon with",
    .description =
        "Asks for an API key, or with --email for a password, without showing it (or reads one "
        "line "
        "of standard input); makes sure that the daemon knows it; and saves URL and key in "
        "credentials.json, readable by you only, where every later command finds them. With "
        "--email a key is made for this machine, as a session ends after hours; 'aviary keys' "
        "lists "
        "it. A file that was there before stays beside it as credentials.json.before.",
    .examples = login_examples,
    .see = "logout keys users",
    .options = login_options,
    .run = run_login,
};

static const struct option_spec logout_options[] = {
    {NULL, 0, OPTION_FLAG, NULL, NULL, COMPLETE_NONE},
};

const struct command command_logout = {
    .name = "logout",
    .usage = "",
    .summary = "forget what login saved",
    .description = "Removes credentials.json. The key that was in it is not deleted; that is what "
                   "'aviary keys rm' does.",
    .see = "login keys",
    .options = logout_options,
    .run = run_logout,
};
