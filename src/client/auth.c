/* SPDX-License-Identifier: Apache-2.0 */
/*
 * auth.c - where the server's URL and the credentials come from (see aviary/client.h)
 *
 * A key that a file holds goes only to the server that the same file names: whoever can set a URL
 * must not be given it.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fd.h"
#include "base/json.h"
#include "base/path.h"
#include "client/request.h"

#include "base/banned.h"

#define DEFAULT_URL "http://127.0.0.1:7878"
#define FILE_MAX    65536
#define TEXT_MAX    4096 /* of a key, an entity, a project */
#define WANDB_HOST  "api.wandb.ai"

static void wipe(char **p)
{
	if (*p)
		explicit_bzero(*p, strlen(*p));
	free(*p);
	*p = NULL;
}

void avc_credentials_clear(struct avc_credentials *cr)
{
	wipe(&cr->api_key);
	wipe(&cr->session_token);
	wipe(&cr->entity);
	wipe(&cr->project);
	wipe(&cr->source);
}

static const char *env(const aviary_client *c, const char *name)
{
	const char *v = c->no_env ? NULL : getenv(name);

	return v && v[0] ? v : NULL;
}

static int set(char **dst, const char *text)
{
	wipe(dst);
	*dst = text ? av_str_dup(av_str_c(text)) : NULL;
	return text && !*dst ? -ENOMEM : 0;
}

/* They become lines of a request's head. */
int avc_credentials_check(struct avc_credentials *cr, aviary_error *error)
{
	const char *const texts[] = {cr->api_key, cr->session_token, cr->entity, cr->project};
	const char *wrong = NULL;

	for (size_t i = 0; i < AV_ARRAY_LEN(texts); i++) {
		const char *text = texts[i] ? texts[i] : "";

		if (strlen(text) > TEXT_MAX)
			wrong = "the API key (or its entity or project) has more than 4096 "
			        "characters";
		for (const char *p = text; *p; p++)
			if ((unsigned char)*p <= ' ' || (unsigned char)*p >= 0x7f)
				wrong = "the API key (or its entity or project) contains spaces "
				        "or control characters";
	}
	if (!wrong)
		return 0;
	avc_credentials_clear(cr);
	return avc_error_fill(error, AVIARY_E_INVALID, wrong);
}

/* ---- the file of the first start ---- */

/* What it says; all owned. */
struct file {
	char path[AV_PATH_MAX + 1];
	char *url, *key; /* NULL where it does not say */
};

static void file_clear(struct file *f)
{
	wipe(&f->url);
	wipe(&f->key);
}

/* i: 0 this user's, 1 the service's, unless one place is named. -ENOENT: no such place. */
static int file_path(const aviary_client *c, int i, char *path, size_t size)
{
	const char *own = env(c, "AVIARY_CREDENTIALS"), *dir = env(c, "AVIARY_CONFIG_DIR");
	const char *xdg = env(c, "XDG_CONFIG_HOME"), *home = env(c, "HOME");

	if (i == 1 && !own && !dir)
		return av_path_printf(path, size, "/etc/aviary/credentials.json");
	if (i > 0)
		return -ENOENT;
	if (own)
		return av_path_printf(path, size, "%s", own);
	if (dir)
		return av_path_printf(path, size, "%s/credentials.json", dir);
	if (xdg)
		return av_path_printf(path, size, "%s/aviary/credentials.json", xdg);
	if (home)
		return av_path_printf(path, size, "%s/.config/aviary/credentials.json", home);
	return -ENOENT;
}

/* The first that is there, as text. 0: there is none. */
static ssize_t open_file(const aviary_client *c, struct file *f, char *text, size_t size)
{
	for (int i = 0; i < 2; i++) {
		ssize_t n = file_path(c, i, f->path, sizeof(f->path));

		if (n == 0)
			n = av_read_file_at(AT_FDCWD, f->path, text, size);
		/* The service's may be root's. */
		if (n != -ENOENT && n != -ENOTDIR && !(n == -EACCES && i > 0))
			return n;
	}
	f->path[0] = '\0';
	return 0;
}

/* 0, also when there is none: then f->path is "". Else a code with *error. */
static int read_file(const aviary_client *c, struct file *f, aviary_error *error)
{
	AV_CLEANUP(av_json_decrefp) json_t *j = NULL;
	const char *url = NULL, *key = NULL;
	char text[4096], why[AV_PATH_MAX + 600];
	struct av_err err = {0};
	ssize_t n = open_file(c, f, text, sizeof(text));

	if (n == 0 && !f->path[0])
		return 0;
	if (n < 0)
		(void)av_err_sys(&err, AV_ERR_INVALID, (int)n, "it cannot be read");
	else
		j = av_json_parse_object(av_str_n(text, (size_t)n), &err);
	explicit_bzero(text, sizeof(text));
	if (!j || av_json_get_str(j, "url", &url, &err) < 0 ||
	    av_json_get_str(j, "api_key", &key, &err) < 0) {
		(void)snprintf(
		    why, sizeof(why), "the credentials file %s: %s", f->path, err.message);
		return avc_error_fill(error,
		    err.kind == AV_ERR_NO_MEMORY ? AVIARY_E_NO_MEMORY : AVIARY_E_INVALID, why);
	}
	f->url = url ? av_str_dup(av_str_c(url)) : NULL;
	f->key = key ? av_str_dup(av_str_c(key)) : NULL;
	return (url && !f->url) || (key && !f->key)
	           ? avc_error_fill(error, AVIARY_E_NO_MEMORY, NULL)
	           : 0;
}

/* "host" of "https://host:port/path", without brackets. */
static struct av_str host_of(const char *url)
{
	const char *p = strstr(url, "://");
	size_t n;

	p = p ? p + 3 : url;
	n = strcspn(p, "/?#");
	if (*p == '[') {
		n = strcspn(p + 1, "]");
		return av_str_n(p + 1, n);
	}
	return av_str_n(p, strcspn(p, ":/?#") < n ? strcspn(p, ":/?#") : n);
}

static bool is_loopback(const char *url)
{
	struct av_str h = host_of(url);

	return av_str_eq_c(h, "localhost") || av_str_eq_c(h, "127.0.0.1") || av_str_eq_c(h, "::1");
}

static bool is_tls(const char *url)
{
	return av_str_starts(av_str_c(url), AV_STR("https://"));
}

/* Whether what is known to b may be told to a; never in clear what was meant for TLS. */
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

/* A name before the host ("http://localhost@elsewhere") would have libcurl and us mean different
 * hosts, and the key go to the other one. */
static bool url_is_usable(const char *url)
{
	size_t n = strlen(url);

	if (strncmp(url, "http://", 7) != 0 && strncmp(url, "https://", 8) != 0)
		return false;
	for (size_t i = 0; i < n; i++)
		if ((unsigned char)url[i] <= ' ' || (unsigned char)url[i] >= 0x7f ||
		    strchr("?#@\\", url[i]))
			return false;
	return host_of(url).n > 0;
}

int avc_base_url_find(aviary_client *c, const char *wanted, aviary_error *error)
{
	AV_CLEANUP(file_clear) struct file f = {.path = ""};
	const char *url = wanted && wanted[0] ? wanted : env(c, "AVIARY_URL");
	char text[600];
	int r = 0;

	if (!url && !c->no_env)
		r = read_file(c, &f, error);
	if (r < 0)
		return r;
	url = url ? url : f.url ? f.url : DEFAULT_URL;
	if (!url_is_usable(url)) {
		(void)snprintf(text, sizeof(text),
		    "'%.300s' is not the URL of a server; expected http://HOST:PORT or "
		    "https://HOST, without a user's name",
		    url);
		return avc_error_fill(error, AVIARY_E_INVALID, text);
	}
	c->base_url = av_str_dup(av_str_c(url));
	if (!c->base_url)
		return avc_error_fill(error, AVIARY_E_NO_MEMORY, NULL);
	for (size_t n = strlen(c->base_url); n > 0 && c->base_url[n - 1] == '/'; n--)
		c->base_url[n - 1] = '\0';
	return 0;
}

/* ---- netrc ---- */

/* The next word; quotes hold white space together. False at the end. */
static bool next_word(const char **at, char *word, size_t size)
{
	const char *p = *at + strspn(*at, " \t\r\n");
	size_t n = 0;
	bool quoted = *p == '"';

	if (!*p)
		return false;
	p += quoted;
	while (*p && (quoted ? *p != '"' : !strchr(" \t\r\n", *p))) {
		if (quoted && *p == '\\' && p[1])
			p++;
		if (n + 1 < size)
			word[n++] = *p;
		p++;
	}
	word[n] = '\0';
	*at = p + (quoted && *p);
	return true;
}

/* The password of the entry for host, or of `default` when there is none and that is wanted. */
static bool netrc_password(
    const char *text, struct av_str host, bool with_default, char *ret, size_t size)
{
	char word[512];
	bool mine = false, found = false, is_default = false;

	while (next_word(&text, word, sizeof(word))) {
		if (strcmp(word, "machine") == 0) {
			mine = next_word(&text, word, sizeof(word)) && av_str_eq_c(host, word);
			is_default = false;
		} else if (strcmp(word, "default") == 0) {
			mine = is_default = !found && with_default;
		} else if (strcmp(word, "macdef") == 0) {
			const char *blank = strstr(text, "\n\n");

			text = blank ? blank : text + strlen(text);
		} else if (strcmp(word, "password") == 0 && next_word(&text, word, sizeof(word)) &&
		           mine) {
			found = av_str_copy(ret, size, av_str_c(word)) == 0;
			if (found && !is_default)
				break;
		}
	}
	explicit_bzero(word, sizeof(word));
	return found;
}

/* What `default` holds is no key of W&B's. */
static bool netrc_find(const aviary_client *c, struct av_str host, char *path, size_t path_size,
    char *ret, size_t size)
{
	const char *own = env(c, "NETRC"), *home = env(c, "HOME");
	char *text = NULL;
	bool found = false;
	ssize_t n = -1;

	if (own ? av_path_printf(path, path_size, "%s", own) < 0
	        : !home || av_path_printf(path, path_size, "%s/.netrc", home) < 0)
		return false;
	text = malloc(FILE_MAX);
	if (text)
		n = av_read_file_at(AT_FDCWD, path, text, FILE_MAX);
	if (n > 0) {
		text[n < FILE_MAX ? n : FILE_MAX - 1] = '\0';
		found = netrc_password(text, host, !av_str_eq_c(host, WANDB_HOST), ret, size);
	}
	if (text)
		explicit_bzero(text, FILE_MAX);
	free(text);
	return found;
}

/* ---- in order ---- */

static int take(struct avc_credentials *cr, const char *key, const char *source)
{
	return set(&cr->api_key, key) < 0 || set(&cr->source, source) < 0 ? AVIARY_E_NO_MEMORY : 0;
}

/* 1: found. other becomes the server that the file names, when it is another one. */
static int from_file(aviary_client *c, char *other, size_t size, aviary_error *error)
{
	AV_CLEANUP(file_clear) struct file f = {.path = ""};
	int r = read_file(c, &f, error);

	if (r < 0 || !f.key)
		return r;
	if (!f.url || is_same_place(c->base_url, f.url))
		return take(&c->credentials, f.key, f.path) < 0 ? AVIARY_E_NO_MEMORY : 1;
	(void)snprintf(other, size, " (the one in %s is for %s)", f.path, f.url);
	return 0;
}

/* Not in clear, except on this machine: the key is for others too. */
static int from_wandb(aviary_client *c, aviary_error *error)
{
	const char *key = env(c, "WANDB_API_KEY"), *entity = env(c, "WANDB_ENTITY_NAME");
	const char *project = env(c, "WANDB_PROJECT_NAME");
	char path[AV_PATH_MAX + 1] = "WANDB_API_KEY", word[512];
	int r;

	if (!is_tls(c->base_url) && !is_loopback(c->base_url))
		return 0;
	if (!key && netrc_find(c, AV_STR(WANDB_HOST), path, sizeof(path), word, sizeof(word)))
		key = word;
	if (!key)
		return 0;
	if (!entity)
		r = avc_error_fill(error, AVIARY_E_WANDB,
		    "a key of W&B was found, and WANDB_ENTITY_NAME is not set; set it to the "
		    "entity to use");
	else
		r = take(&c->credentials, key, path) < 0 ||
		            set(&c->credentials.entity, entity) < 0 ||
		            set(&c->credentials.project, project ? project : "uncategorized") < 0
		        ? AVIARY_E_NO_MEMORY
		        : 1;
	explicit_bzero(word, sizeof(word));
	return r;
}

static int from_netrc(aviary_client *c)
{
	char path[AV_PATH_MAX + 1], word[512];
	int r = 0;

	if (netrc_find(c, host_of(c->base_url), path, sizeof(path), word, sizeof(word)))
		r = take(&c->credentials, word, path) < 0 ? AVIARY_E_NO_MEMORY : 1;
	explicit_bzero(word, sizeof(word));
	return r;
}

static int from_callback(aviary_client *c, bool refused, aviary_error *error)
{
	aviary_credentials got = {.struct_size = sizeof(got)};
	aviary_credentials_fn *ask = c->ask;
	void *ctx = c->ask_ctx;
	int r;

	avc_unlock(c);
	r = ask(ctx, refused, &got);
	avc_lock(c);
	if (r < 0)
		return avc_error_fill(error, r, "the program's own source of credentials has none");
	avc_credentials_clear(&c->credentials);
	if (set(&c->credentials.api_key, got.api_key) < 0 ||
	    set(&c->credentials.session_token, got.session_token) < 0 ||
	    set(&c->credentials.entity, got.entity) < 0 ||
	    set(&c->credentials.project, got.project) < 0 ||
	    set(&c->credentials.source, "the callback") < 0)
		return avc_error_fill(error, AVIARY_E_NO_MEMORY, NULL);
	return 1;
}

static int none_found(const aviary_client *c, const char *other, aviary_error *error)
{
	char text[AV_PATH_MAX + 1200];

	(void)snprintf(text, sizeof(text),
	    "no API key for %s was found%s: not in the client's options, AVIARY_API_KEY, the "
	    "credentials file of aviaryd's first start (AVIARY_CREDENTIALS, "
	    "~/.config/aviary/credentials.json, /etc/aviary/credentials.json), WANDB_API_KEY, or "
	    "netrc",
	    c->base_url, other);
	return avc_error_fill(error, AVIARY_E_NO_CREDENTIALS,
	    c->no_env ? "no API key is in the options of the client" : text);
}

int avc_credentials_find(aviary_client *c, bool refused, aviary_error *error)
{
	const char *key = env(c, "AVIARY_API_KEY");
	char other[AV_PATH_MAX + 600] = "";
	int r = 0;

	*error = (aviary_error){0};
	if (c->ask)
		r = from_callback(c, refused, error);
	else if (key)
		r = take(&c->credentials, key, "AVIARY_API_KEY") < 0 ? AVIARY_E_NO_MEMORY : 1;
	else if (!c->no_env && (r = from_file(c, other, sizeof(other), error)) == 0 &&
	         (r = from_wandb(c, error)) == 0)
		r = from_netrc(c);
	if (r == 1)
		r = avc_credentials_check(&c->credentials, error) < 0 ? error->code : 1;
	c->has_credentials = r == 1;
	if (r == 1)
		return 0;
	if (r == 0)
		return none_found(c, other, error);
	return error->code ? r : avc_error_fill(error, r, NULL);
}
