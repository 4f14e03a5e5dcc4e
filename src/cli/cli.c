/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cli.c - connection, messages, signals: what all commands share
 *
 * The key is read from a file or the environment, never from the command line, where everybody on
 * the machine could read it. A key found in credentials.json goes only to the URL that stands
 * beside it there, or from one loopback address to another.
 */
#include "cli/cli.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/json.h"
#include "base/path.h"
#include "cli/command.h"

#include "base/banned.h"

#define DEFAULT_URL "http://127.0.0.1:7878"

/* What a signal handler can reach; everything else hangs on struct cli. */
static volatile sig_atomic_t caught_signal;
static volatile sig_atomic_t caught_count;
static bool signals_held;

static void on_signal(int sig)
{
	if (++caught_count >= 3)
		_exit(EXIT_SIGNAL + sig);
	if (!caught_signal)
		caught_signal = sig;
}

void cli_hold_signals(void)
{
	signals_held = true;
}

void cli_unhold_signals(void)
{
	signals_held = false;
}

void cli_catch_signals(void)
{
	struct sigaction sa = {.sa_handler = on_signal};
	sigaction(SIGINT, &sa, NULL);
	sigaction(SIGTERM, &sa, NULL);
	sigaction(SIGHUP, &sa, NULL);
}

int cli_caught_signal(void)
{
	return caught_signal;
}

void cli_warn(const char *fmt, ...)
{
	char text[1024];
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	fputs("aviary: ", stderr);
	cli_print_safe(stderr, text);
	fputc('\n', stderr);
}

int cli_usage_error(const struct cli *cli, const char *fmt, ...)
{
	char text[512];
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	fprintf(stderr, "aviary %s: ", cli->args->command->name);
	cli_print_safe(stderr, text);
	fprintf(stderr, "; see 'aviary %s --help'\n", cli->args->command->name);
	return EXIT_USAGE;
}

static void say_how_to_start(const struct cli *cli)
{
	char daemon[4096];
	if (cli_find_program("aviaryd", "daemon", daemon, sizeof(daemon)) < 0)
		cli_warn("no daemon at %s; start one with 'aviaryd', or name another with --url",
		    cli->url);
	else
		cli_warn("no daemon at %s; start one with '%s &', or name another with --url",
		    cli->url, daemon);
}

int cli_fail(const struct cli *cli, const struct av_err *err, const char *what)
{
	if (cli->client && av_client_is_unreachable(cli->client) && err->kind == AV_ERR_UNAVAILABLE)
		say_how_to_start(cli);
	else if (err->kind == AV_ERR_CANCELED && caught_signal)
		return EXIT_SIGNAL + caught_signal;
	else if (what)
		cli_warn("%s: %s", what, err->message);
	else
		cli_warn("%s", err->message);
	int status = av_err_exit_status(err->kind);
	return status ? status : EXIT_PLATFORM;
}

void cli_print_safe(FILE *f, const char *text)
{
	for (const unsigned char *p = (const unsigned char *)text; *p; p++)
		fputc((*p < ' ' && *p != '\n' && *p != '\t') || *p == 0x7f ? '?' : *p, f);
}

void cli_print_json(const struct cli *cli, const json_t *j)
{
	json_dumpf(j, stdout, cli->out_is_tty ? JSON_INDENT(2) : JSON_COMPACT);
	putchar('\n');
}

const char *cli_text(const json_t *o, const char *field)
{
	const char *s = json_string_value(json_object_get(o, field));

	return s && s[0] ? s : "-";
}

bool cli_print_rows(
    const struct cli *cli, const struct args *args, const json_t *rows, const char *field)
{
	const json_t *row;
	size_t i;

	if (cli->json) {
		cli_print_json(cli, rows);
		return true;
	}
	if (!args_flag(args, "quiet"))
		return false;
	json_array_foreach (rows, i, row)
		printf("%s\n", cli_text(row, field));
	return true;
}

void cli_print_reply(const struct cli *cli, const json_t *reply, const char *field)
{
	const char *text = json_string_value(json_object_get(reply, field));

	if (cli->json) {
		cli_print_json(cli, reply);
		return;
	}
	cli_print_safe(stdout, text ? text : "");
	putchar('\n');
}

const char *cli_good(const struct cli *cli)
{
	return cli->color ? "\033[32m" : "";
}

const char *cli_bad(const struct cli *cli)
{
	return cli->color ? "\033[31m" : "";
}

const char *cli_faint(const struct cli *cli)
{
	return cli->color ? "\033[2m" : "";
}

const char *cli_bold(const struct cli *cli)
{
	return cli->color ? "\033[1m" : "";
}

const char *cli_plain(const struct cli *cli)
{
	return cli->color ? "\033[0m" : "";
}

int cli_own_dir(char *ret_path, size_t size)
{
	char exe[4096];
	ssize_t n = readlink("/proc/self/exe", exe, sizeof(exe) - 1);
	if (n < 0)
		return -errno;
	struct av_str dir = av_path_dir(av_str_n(exe, (size_t)n));
	return av_str_copy(ret_path, size, dir);
}

int cli_find_program(const char *name, const char *build_folder, char *ret_path, size_t size)
{
	char dir[4096], path[8192];
	int r = cli_own_dir(dir, sizeof(dir));
	if (r < 0)
		return r;
	const char *folders[] = {
	    ".", "../libexec/aviary", "../lib/aviary", "../sbin", build_folder};
	for (size_t i = 0; i < AV_ARRAY_LEN(folders); i++) {
		/* The build tree keeps this program in src/cli: its neighbours are ../daemon etc.
		 */
		if (i + 1 == AV_ARRAY_LEN(folders))
			r = av_path_printf(
			    path, sizeof(path), "%s/../%s/%s", dir, build_folder, name);
		else
			r = av_path_printf(path, sizeof(path), "%s/%s/%s", dir, folders[i], name);
		if (r < 0)
			return r;
		char *real = access(path, X_OK) == 0 ? realpath(path, NULL) : NULL;
		if (!real)
			continue;
		r = av_str_copy(ret_path, size, av_str_c(real));
		free(real);
		return r;
	}
	return -ENOENT;
}

static void clear_secretp(char **p)
{
	if (*p)
		explicit_bzero(*p, strlen(*p));
	free(*p);
	*p = NULL;
}

int cli_credentials_path(int i, char *path, size_t size)
{
	const char *own = getenv("AVIARY_CONFIG_DIR"), *xdg = getenv("XDG_CONFIG_HOME");
	const char *home = getenv("HOME");
	if (i == 1 && !(own && own[0]))
		return av_path_printf(path, size, "/etc/aviary/credentials.json");
	if (i > 0)
		return -ENOENT;
	if (own && own[0])
		return av_path_printf(path, size, "%s/credentials.json", own);
	if (xdg && xdg[0])
		return av_path_printf(path, size, "%s/aviary/credentials.json", xdg);
	if (home && home[0])
		return av_path_printf(path, size, "%s/.config/aviary/credentials.json", home);
	return -ENOENT;
}

/* url and api_key of credentials.json, NULL when it is not there or does not say. */
static int read_credentials(char **ret_url, char **ret_key, struct av_err *err)
{
	char path[4096], text[4096];
	ssize_t n = -ENOENT;
	for (int i = 0; n == -ENOENT || n == -ENOTDIR; i++) {
		int r = cli_credentials_path(i, path, sizeof(path));
		if (r < 0 && i > 0)
			return 0;
		if (r < 0)
			continue; /* no HOME */
		n = av_read_file_at(AT_FDCWD, path, text, sizeof(text));
		if (n == -EACCES && i > 0)
			return 0; /* the service's, which is root's */
	}
	if (n < 0)
		return av_err_sys(err, AV_ERR_INVALID, (int)n, "%s", path);
	AV_CLEANUP(av_json_decrefp)
	json_t *j = av_json_parse_object(av_str_n(text, (size_t)n), err);
	explicit_bzero(text, sizeof(text));
	const char *url = NULL, *key = NULL;
	if (!j || av_json_get_str(j, "url", &url, err) < 0 ||
	    av_json_get_str(j, "api_key", &key, err) < 0) {
		av_err_prefix(err, "%s", path);
		return -EINVAL;
	}
	*ret_url = url ? av_str_dup(av_str_c(url)) : NULL;
	*ret_key = key ? av_str_dup(av_str_c(key)) : NULL;
	return 0;
}

static int read_key_file(const char *path, char **ret_key, struct av_err *err)
{
	char text[1024];
	bool is_stdin = strcmp(path, "-") == 0;
	ssize_t n = is_stdin ? av_read_full(STDIN_FILENO, text, sizeof(text) - 1)
	                     : av_read_file_at(AT_FDCWD, path, text, sizeof(text));
	if (n < 0)
		return av_err_sys(err, AV_ERR_INVALID, (int)n, "--key-file %s", path);
	struct av_str key = av_str_n(text, (size_t)n);
	while (key.n > 0 && strchr(" \t\r\n", key.p[key.n - 1]))
		key.n--;
	*ret_key = av_str_dup(av_str_trim(key));
	explicit_bzero(text, sizeof(text));
	if (!*ret_key || !(*ret_key)[0])
		return av_err_set(err, AV_ERR_INVALID, "--key-file %s: the file is empty", path);
	return 0;
}

static bool is_loopback(const char *url)
{
	static const char *const hosts[] = {"127.0.0.1", "localhost", "[::1]"};
	const char *host = strstr(url, "://");
	if (!host)
		return false;
	host += 3;
	for (size_t i = 0; i < AV_ARRAY_LEN(hosts); i++) {
		size_t n = strlen(hosts[i]);
		if (strncmp(host, hosts[i], n) == 0 &&
		    (!host[n] || host[n] == ':' || host[n] == '/'))
			return true;
	}
	return false;
}

static bool is_tls(const char *url)
{
	return av_str_starts(av_str_c(url), AV_STR("https://"));
}

/* Whether what is known to b may be told to a. */
static bool is_same_place(const char *a, const char *b)
{
	size_t na = strlen(a), nb = strlen(b);
	if (is_tls(b) && !is_tls(a))
		return false;
	while (na && a[na - 1] == '/')
		na--;
	while (nb && b[nb - 1] == '/')
		nb--;
	return (na == nb && memcmp(a, b, na) == 0) || (is_loopback(a) && is_loopback(b));
}

static bool is_canceled(void *ctx)
{
	(void)ctx;
	return caught_signal != 0 && !signals_held;
}

int cli_connect(struct cli *cli)
{
	AV_CLEANUP(av_freep) char *file_url = NULL;
	AV_CLEANUP(clear_secretp) char *file_key = NULL;
	AV_CLEANUP(clear_secretp) char *key = NULL;
	struct av_err err = {0};
	const char *url = args_text(cli->args, "url"), *key_file = args_text(cli->args, "key-file");
	const char *env_key = getenv("AVIARY_API_KEY");
	const char *ca = args_text(cli->args, "ca"), *env_ca = getenv("AVIARY_CA");

	if (!url)
		url = getenv("AVIARY_URL");
	if (url && !url[0])
		url = NULL;
	if (key_file && read_key_file(key_file, &key, &err) < 0)
		return cli_fail(cli, &err, NULL);
	if (!key && env_key && env_key[0])
		key = av_str_dup(av_str_c(env_key));
	if ((!url || !key) && read_credentials(&file_url, &file_key, &err) < 0)
		return cli_fail(cli, &err, NULL);
	if (!key && file_key && (!url || (file_url && is_same_place(url, file_url))))
		key = AV_TAKE_PTR(file_key);
	if (!url)
		url = file_url ? file_url : DEFAULT_URL;

	if (!ca)
		ca = env_ca && env_ca[0] ? env_ca : NULL;

	struct av_client_options options = {
	    .url = url,
	    .api_key = key,
	    .ca_file = ca,
	    .user_agent = "aviary/" AVIARY_VERSION,
	    .is_canceled = is_canceled,
	};
	if (av_client_new(&options, &cli->client, &err) < 0)
		return cli_fail(cli, &err, NULL);
	cli->url = av_str_dup(av_str_c(av_client_url(cli->client)));
	cli->key = AV_TAKE_PTR(key);
	return 0;
}

void cli_clear(struct cli *cli)
{
	av_client_freep(&cli->client);
	clear_secretp(&cli->key);
	free(cli->url);
	cli->url = NULL;
}

int cli_call(struct cli *cli, const char *method, const json_t *body, json_t **ret_reply,
    struct av_err *err, const char *path_fmt, ...)
{
	char path[1024];
	va_list ap;
	va_start(ap, path_fmt);
	int n = vsnprintf(path, sizeof(path), path_fmt, ap);
	va_end(ap);
	if (n < 0 || (size_t)n >= sizeof(path))
		return av_err_set(err, AV_ERR_INVALID, "the id is too long");
	struct av_client_request request = {.method = method, .path = path, .body = body};
	return av_client_call(cli->client, &request, ret_reply, err);
}

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
