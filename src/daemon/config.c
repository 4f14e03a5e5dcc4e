/* SPDX-License-Identifier: Apache-2.0 */
/*
 * config.c - options of aviaryd, from flags, environment and file (see config.h)
 */
#include "daemon/config.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/num.h"
#include "base/path.h"
#include "control/audit.h"
#include "daemon/config_internal.h"
#include "base/banned.h"

#define CONFIG_FILE_MAX ((size_t)64 << 10)
#define ENV_PREFIX      "AVIARY_"

static const struct daemon_opt_info opts[DAEMON_OPT_COUNT] = {
#define DAEMON_OPT(id, name_, meta_, scope_, text_, help_)                                         \
	[DAEMON_OPT_##id] = {.name = (name_),                                                      \
	    .meta = (meta_),                                                                       \
	    .scope = DAEMON_SCOPE_##scope_,                                                        \
	    .text = (text_),                                                                       \
	    .help = (help_)},
#include "daemon/options.def"
#undef DAEMON_OPT
};

const struct daemon_opt_info *daemon_opt_info(int opt)
{
	return &opts[opt];
}

const char *daemon_opt_name(enum daemon_opt opt)
{
	return opts[opt].name;
}

static int opt_find(struct av_str name)
{
	for (int i = 0; i < DAEMON_OPT_COUNT; i++)
		if (av_str_eq_c(name, opts[i].name))
			return i;
	return -1;
}

/* Edit distance, stopped early: names here are short. */
static size_t distance(struct av_str a, const char *b)
{
	size_t bn = strlen(b), row[32];

	if (bn + 1 > AV_ARRAY_LEN(row) || a.n > 31)
		return 99;
	for (size_t j = 0; j <= bn; j++)
		row[j] = j;
	for (size_t i = 1; i <= a.n; i++) {
		size_t diag = row[0];

		row[0] = i;
		for (size_t j = 1; j <= bn; j++) {
			size_t best = diag + (a.p[i - 1] != b[j - 1]);

			diag = row[j];
			best = AV_MIN(best, row[j - 1] + 1);
			row[j] = AV_MIN(best, diag + 1);
		}
	}
	return row[bn];
}

/* The name that was probably meant, or NULL. */
static const char *opt_nearest(struct av_str name, bool file)
{
	const char *best = NULL;
	size_t best_d = 3;

	for (int i = 0; i < DAEMON_OPT_COUNT; i++) {
		size_t d;

		if (opts[i].scope == DAEMON_SCOPE_PRIVATE ||
		    (file && opts[i].scope != DAEMON_SCOPE_USER))
			continue;
		d = distance(name, opts[i].name);
		if (d < best_d) {
			best_d = d;
			best = opts[i].name;
		}
	}
	return best;
}

static int set_value(
    struct daemon_config *c, int opt, struct av_str value, const char *origin, struct av_err *err)
{
	char *v, *o;

	if (av_str_has_nul(value))
		return av_err_set(err, AV_ERR_INVALID, "%s: the value contains a NUL byte", origin);
	v = av_str_dup(value);
	o = av_str_dup(av_str_c(origin));
	if (!v || !o) {
		free(v);
		free(o);
		return av_err_set(err, AV_ERR_NO_MEMORY, "out of memory");
	}
	free(c->value[opt]);
	free(c->origin[opt]);
	c->value[opt] = v;
	c->origin[opt] = o;
	return 0;
}

static int load_flags(struct daemon_config *c, int argc, char *const *argv, struct av_err *err)
{
	for (int i = 1; i < argc; i++) {
		struct av_str rest = av_str_c(argv[i]), name;
		char origin[64];
		bool has_value;
		int opt, r;

		if (!av_str_starts(rest, AV_STR("--")) || rest.n == 2)
			return av_err_set(err, AV_ERR_INVALID,
			    "unexpected argument '%s'; options begin with --, see aviaryd --help",
			    argv[i]);
		rest.p += 2;
		rest.n -= 2;
		has_value = av_str_cut(&rest, '=', &name);
		opt = opt_find(name);
		if (opt < 0) {
			const char *near = opt_nearest(name, false);

			return av_err_set(err, AV_ERR_INVALID,
			    "unknown option --%.*s%s%s%s; see aviaryd --help", AV_STR_ARG(name),
			    near ? " (did you mean --" : "", near ? near : "", near ? "?)" : "");
		}
		(void)snprintf(origin, sizeof origin, "--%s", opts[opt].name);
		if (!opts[opt].meta) {
			if (!has_value)
				rest = AV_STR("yes");
		} else if (!has_value) {
			if (i + 1 >= argc)
				return av_err_set(err, AV_ERR_INVALID, "%s needs a value: %s",
				    origin, opts[opt].meta);
			rest = av_str_c(argv[++i]);
		}
		r = set_value(c, opt, rest, origin, err);
		if (r < 0)
			return r;
	}
	return 0;
}

static void env_name(const char *option, char dst[static 64])
{
	size_t n = strlen(ENV_PREFIX);

	memcpy(dst, ENV_PREFIX, n);
	for (const char *p = option; *p && n + 1 < 64; p++)
		dst[n++] = *p == '-' ? '_' : (char)toupper((unsigned char)*p);
	dst[n] = '\0';
}

/* A variable that is no option of ours and nearly is one: as in the file a typo must not leave a
 * default in force unsaid, but other programs may have variables that begin like ours. */
static void warn_of_env(struct daemon_config *c, const char *variable)
{
	static const char *const others[] = {
	    "url", "api-key", "config-dir", "templates", "failpoint", "build", "libexec"};
	struct av_str name = av_str_c(variable), value;
	char lower[64], meant[64];
	const char *near;

	value = name;
	(void)av_str_cut(&value, '=', &name);
	name = av_str_n(name.p + strlen(ENV_PREFIX), name.n - strlen(ENV_PREFIX));
	if (name.n == 0 || name.n >= sizeof lower)
		return;
	for (size_t i = 0; i < name.n; i++)
		lower[i] = name.p[i] == '_' ? '-' : (char)tolower((unsigned char)name.p[i]);
	name = av_str_n(lower, name.n);
	for (size_t i = 0; i < AV_ARRAY_LEN(others); i++)
		if (av_str_eq_c(name, others[i]))
			return;
	near = opt_find(name) < 0 ? opt_nearest(name, true) : NULL;
	if (!near || strlen(near) < 4)
		return;
	env_name(near, meant);
	(void)av_buf_printf(&c->warnings, "%.*s is no option of aviaryd (did you mean %s?)\n",
	    (int)(strlen(ENV_PREFIX) + name.n), variable, meant);
}

static int load_env(struct daemon_config *c, struct av_err *err)
{
	for (char **e = environ; e && *e; e++)
		if (av_str_starts(av_str_c(*e), AV_STR(ENV_PREFIX)))
			warn_of_env(c, *e);
	for (int i = 0; i < DAEMON_OPT_COUNT; i++) {
		char name[64];
		const char *v;
		int r;

		if (opts[i].scope != DAEMON_SCOPE_USER || c->value[i])
			continue;
		env_name(opts[i].name, name);
		v = getenv(name);
		if (!v || !*v)
			continue;
		r = set_value(c, i, av_str_c(v), name, err);
		if (r < 0)
			return r;
	}
	return 0;
}

/* What OpenTelemetry calls options of ours, where we are not told ourselves. */
static int load_otel_env(struct daemon_config *c, struct av_err *err)
{
	static const struct {
		enum daemon_opt opt;
		const char *name;
	} names[] = {{DAEMON_OPT_OTLP_ENDPOINT, "OTEL_EXPORTER_OTLP_ENDPOINT"},
	    {DAEMON_OPT_OTLP_SERVICE, "OTEL_SERVICE_NAME"}};
	int r = 0;

	for (size_t i = 0; i < AV_ARRAY_LEN(names) && r == 0; i++) {
		const char *v = getenv(names[i].name);

		if (v && *v && !c->value[names[i].opt])
			r = set_value(c, names[i].opt, av_str_c(v), names[i].name, err);
	}
	return r;
}

/* Cuts a comment: '#' at the start or after white space. */
static struct av_str cut_comment(struct av_str line)
{
	for (size_t i = 0; i < line.n; i++)
		if (line.p[i] == '#' && (i == 0 || line.p[i - 1] == ' ' || line.p[i - 1] == '\t'))
			return av_str_n(line.p, i);
	return line;
}

static int load_line(
    struct daemon_config *c, struct av_str line, const char *origin, bool *seen, struct av_err *err)
{
	struct av_str key, value = av_str_trim(cut_comment(line));
	int opt;

	if (value.n == 0)
		return 0;
	if (!av_str_cut(&value, '=', &key))
		return av_err_set(err, AV_ERR_INVALID, "%s: expected 'key = value'", origin);
	key = av_str_trim(key);
	value = av_str_trim(value);
	opt = opt_find(key);
	if (opt < 0 || opts[opt].scope != DAEMON_SCOPE_USER) {
		const char *near = opt_nearest(key, true);

		return av_err_set(err, AV_ERR_INVALID,
		    "%s: unknown key '%.*s'%s%s%s; see aviaryd(8)", origin,
		    (int)AV_MIN(key.n, (size_t)80), key.p, near ? " (did you mean '" : "",
		    near ? near : "", near ? "'?)" : "");
	}
	if (seen[opt])
		return av_err_set(
		    err, AV_ERR_INVALID, "%s: '%s' is set twice", origin, opts[opt].name);
	seen[opt] = true;
	if (value.n == 0)
		return av_err_set(
		    err, AV_ERR_INVALID, "%s: '%s' has no value", origin, opts[opt].name);
	return c->value[opt] ? 0 : set_value(c, opt, value, origin, err);
}

int daemon_config_load_file(struct daemon_config *c, const char *path,
    void (*on_error)(void *ctx, const struct av_err *err), void *ctx, struct av_err *err)
{
	AV_CLEANUP(av_freep) char *text = malloc(CONFIG_FILE_MAX);
	bool seen[DAEMON_OPT_COUNT] = {false};
	struct av_str rest, line;
	unsigned int number = 0;
	ssize_t n;

	if (!text)
		return av_err_set(err, AV_ERR_NO_MEMORY, "out of memory");
	n = av_read_file_at(AT_FDCWD, path, text, CONFIG_FILE_MAX);
	if (n < 0)
		return av_err_sys(
		    err, AV_ERR_INVALID, (int)n, "cannot read the configuration file %s", path);
	rest = av_str_n(text, (size_t)n);
	while (rest.n > 0) {
		char origin[512];
		int r;

		(void)av_str_cut(&rest, '\n', &line);
		if (line.n && line.p[line.n - 1] == '\r')
			line.n--;
		(void)snprintf(origin, sizeof origin, "%s:%u", path, ++number);
		r = load_line(c, line, origin, seen, err);
		if (r < 0 && !on_error)
			return r;
		if (r < 0)
			on_error(ctx, err);
	}
	return 0;
}

/* A file that was not asked for may be absent. */
static int load_file(struct daemon_config *c, const char *path, bool required, struct av_err *err)
{
	if (!required && access(path, F_OK) < 0 && errno == ENOENT)
		return 0;
	return daemon_config_load_file(c, path, NULL, NULL, err);
}

/* $XDG_<var>, else ~/<home_part>; -ENOENT without a home. */
static int user_dir(char dst[static AV_PATH_MAX + 1], const char *var, const char *home_part)
{
	const char *v = getenv(var), *home = getenv("HOME");

	if (v && v[0] == '/')
		return av_path_printf(dst, AV_PATH_MAX + 1, "%s/aviary", v);
	if (!home_part || !home || home[0] != '/')
		return -ENOENT;
	return av_path_printf(dst, AV_PATH_MAX + 1, "%s/%s/aviary", home, home_part);
}

static int config_dir(char dst[static AV_PATH_MAX + 1])
{
	const char *v = getenv("AVIARY_CONFIG_DIR");

	if (v && *v)
		return av_path_printf(dst, AV_PATH_MAX + 1, "%s", v);
	return user_dir(dst, "XDG_CONFIG_HOME", ".config");
}

static int load_default_file(struct daemon_config *c, struct av_err *err)
{
	char dir[AV_PATH_MAX + 1], path[AV_PATH_MAX + 1];

	if (c->value[DAEMON_OPT_CONFIG])
		return load_file(c, c->value[DAEMON_OPT_CONFIG], true, err);
	if (geteuid() == 0)
		return load_file(c, "/etc/aviary/aviary.conf", false, err);
	if (config_dir(dir) < 0 || av_path_printf(path, sizeof path, "%s/aviary.conf", dir) < 0)
		return 0;
	return load_file(c, path, false, err);
}

static int default_path(struct daemon_config *c, enum daemon_opt opt, const char *path)
{
	if (c->value[opt])
		return 0;
	c->value[opt] = av_str_dup(av_str_c(path));
	return c->value[opt] ? 0 : -ENOMEM;
}

/* The run directory of a user without XDG_RUNTIME_DIR is below the state directory. */
static int default_dirs(struct daemon_config *c, struct av_err *err)
{
	char path[AV_PATH_MAX + 1], dir[AV_PATH_MAX + 1];
	bool root = geteuid() == 0;
	int r = 0;

	if (!c->value[DAEMON_OPT_STATE]) {
		if (root)
			r = default_path(c, DAEMON_OPT_STATE, "/var/lib/aviary");
		else if ((r = user_dir(path, "XDG_STATE_HOME", ".local/state")) == 0)
			r = default_path(c, DAEMON_OPT_STATE, path);
		if (r < 0)
			return av_err_sys(err, AV_ERR_INVALID, r,
			    "no place for the state; set HOME or give --state DIR");
	}
	if (root)
		r = default_path(c, DAEMON_OPT_RUN, "/run/aviary");
	else if (user_dir(path, "XDG_RUNTIME_DIR", NULL) == 0 ||
	         av_path_printf(path, sizeof path, "%s/run", c->value[DAEMON_OPT_STATE]) == 0)
		r = default_path(c, DAEMON_OPT_RUN, path);
	if (r == 0 && config_dir(dir) == 0 &&
	    av_path_printf(path, sizeof path, "%s/credentials.json", dir) == 0)
		r = default_path(c, DAEMON_OPT_CREDENTIALS, path);
	return r < 0 ? av_err_sys(err, AV_ERR_NO_MEMORY, r, "cannot choose directories") : 0;
}

static int default_texts(struct daemon_config *c, struct av_err *err)
{
	for (int i = 0; i < DAEMON_OPT_COUNT; i++) {
		if (c->value[i] || !opts[i].text)
			continue;
		c->value[i] = av_str_dup(av_str_c(opts[i].text));
		if (!c->value[i])
			return av_err_set(err, AV_ERR_NO_MEMORY, "out of memory");
	}
	return 0;
}

static const char *origin_of(const struct daemon_config *c, enum daemon_opt opt)
{
	return c->origin[opt] ? c->origin[opt] : opts[opt].name;
}

static int convert_bool(
    const struct daemon_config *c, enum daemon_opt opt, bool *ret, struct av_err *err)
{
	static const char *const yes[] = {"yes", "true", "1", "on"}, *const no[] = {
	                                                                 "no", "false", "0", "off"};
	struct av_str v = av_str_c(c->value[opt]);

	for (size_t i = 0; i < AV_ARRAY_LEN(yes); i++) {
		if (av_str_eq_c(v, yes[i]) || av_str_eq_c(v, no[i])) {
			*ret = av_str_eq_c(v, yes[i]);
			return 0;
		}
	}
	return av_err_set(err, AV_ERR_INVALID, "%s: '%s' is neither yes nor no", origin_of(c, opt),
	    c->value[opt]);
}

bool daemon_host_is_loopback(const char *host)
{
	struct in_addr v4;
	struct in6_addr v6;

	if (inet_pton(AF_INET, host, &v4) == 1)
		return ntohl(v4.s_addr) >> 24 == 127;
	return inet_pton(AF_INET6, host, &v6) == 1 && IN6_IS_ADDR_LOOPBACK(&v6);
}

int daemon_parse_listen(
    const char *text, char ret_host[static 64], uint16_t *ret_port, struct av_err *err)
{
	struct av_str s = av_str_c(text), host, port;
	unsigned char address[sizeof(struct in6_addr)];
	bool brackets = s.n && s.p[0] == '[';
	uint64_t number;
	char name[64];
	ptrdiff_t at;

	for (at = (ptrdiff_t)s.n - 1; at >= 0 && s.p[at] != ':'; at--)
		;
	if (at < 0)
		goto bad;
	host = av_str_n(s.p, (size_t)at);
	port = av_str_n(s.p + at + 1, s.n - (size_t)at - 1);
	if (brackets) {
		if (host.n < 2 || host.p[host.n - 1] != ']')
			goto bad;
		host = av_str_n(host.p + 1, host.n - 2);
	}
	if (av_str_eq_c(host, "localhost"))
		host = AV_STR("127.0.0.1");
	if (av_str_copy(name, sizeof name, host) < 0 || av_parse_u64(port, 0, 65535, &number) < 0)
		goto bad;
	if (inet_pton(brackets ? AF_INET6 : AF_INET, name, address) != 1)
		goto bad;
	memcpy(ret_host, name, sizeof name);
	*ret_port = (uint16_t)number;
	return 0;
bad:
	return av_err_set(err, AV_ERR_INVALID,
	    "'%.100s' is not an address to listen on; write it as 127.0.0.1:7878 or [::1]:7878",
	    text);
}

static int convert_tls(struct daemon_config *c, struct av_err *err)
{
	const char *cert = c->value[DAEMON_OPT_TLS_CERT], *key = c->value[DAEMON_OPT_TLS_KEY];

	c->tls = cert && key;
	if (!cert == !key)
		return 0;
	return av_err_set(err, AV_ERR_INVALID,
	    "%s is given and --%s is not; HTTPS needs both, plain HTTP neither",
	    origin_of(c, cert ? DAEMON_OPT_TLS_CERT : DAEMON_OPT_TLS_KEY),
	    opts[cert ? DAEMON_OPT_TLS_KEY : DAEMON_OPT_TLS_CERT].name);
}

static int convert_listen(struct daemon_config *c, struct av_err *err)
{
	int r =
	    daemon_parse_listen(c->value[DAEMON_OPT_LISTEN], c->listen_host, &c->listen_port, err);

	if (r < 0) {
		av_err_prefix(err, "%s", origin_of(c, DAEMON_OPT_LISTEN));
		return r;
	}
	if (!c->insecure_http && !c->tls && !daemon_host_is_loopback(c->listen_host))
		return av_err_set(err, AV_ERR_INVALID,
		    "%s: %s can be reached from other machines, and without TLS keys and data "
		    "would cross the network in clear; serve HTTPS with --tls-cert and --tls-key, "
		    "listen on 127.0.0.1 behind a TLS proxy, or accept it with --insecure-http",
		    origin_of(c, DAEMON_OPT_LISTEN), c->listen_host);
	return 0;
}

static int convert_paths(const struct daemon_config *c, struct av_err *err)
{
	static const enum daemon_opt paths[] = {DAEMON_OPT_STATE, DAEMON_OPT_RUN,
	    DAEMON_OPT_CREDENTIALS, DAEMON_OPT_SPAWN_PROGRAM, DAEMON_OPT_SPAWN_SOCKET,
	    DAEMON_OPT_TLS_CERT, DAEMON_OPT_TLS_KEY};

	for (size_t i = 0; i < AV_ARRAY_LEN(paths); i++) {
		const char *v = c->value[paths[i]];

		if (v && v[0] != '/')
			return av_err_set(err, AV_ERR_INVALID, "%s: '%s' must be an absolute path",
			    origin_of(c, paths[i]), v);
	}
	return 0;
}

static int convert_log(struct daemon_config *c, struct av_err *err)
{
	const char *format = c->value[DAEMON_OPT_LOG_FORMAT];

	c->log_json = av_str_eq_c(av_str_c(format), "json");
	if (!c->log_json && !av_str_eq_c(av_str_c(format), "text"))
		return av_err_set(err, AV_ERR_INVALID, "%s: '%s' is neither text nor json",
		    origin_of(c, DAEMON_OPT_LOG_FORMAT), format);
	if (av_log_level_parse(c->value[DAEMON_OPT_LOG_LEVEL], &c->log_level) < 0)
		return av_err_set(err, AV_ERR_INVALID,
		    "%s: '%s' is none of debug, info, warn, error",
		    origin_of(c, DAEMON_OPT_LOG_LEVEL), c->value[DAEMON_OPT_LOG_LEVEL]);
	return 0;
}

/* "example.com[:8443]". *ret_letters: it is a name, no number. */
static bool is_authority(struct av_str s, bool *ret_letters)
{
	struct av_str name;
	bool letters = false, good;
	uint64_t port;

	good = !av_str_cut(&s, ':', &name) || av_parse_u64(s, 1, 65535, &port) == 0;
	good = good && name.n > 0 && name.n < 200 && name.p[0] != '.' && name.p[0] != '-';
	for (size_t i = 0; i < name.n && good; i++) {
		letters = letters || isalpha((unsigned char)name.p[i]);
		good = isalnum((unsigned char)name.p[i]) || name.p[i] == '-' || name.p[i] == '.';
	}
	*ret_letters = letters;
	return good;
}

/* "[https://]example.com[:8443]" */
static int convert_domain(struct daemon_config *c, struct av_err *err)
{
	const char *text = c->value[DAEMON_OPT_DOMAIN];
	bool letters;

	if (!text)
		return 0;
	c->ports_tls = av_str_starts(av_str_c(text), AV_STR("https://"));
	c->ports_domain = c->ports_tls ? text + strlen("https://") : text;
	c->ports_tls |= c->tls;
	if (is_authority(av_str_c(c->ports_domain), &letters) && letters)
		return 0;
	return av_err_set(err, AV_ERR_INVALID,
	    "%s: '%.100s' is not a domain; give a host name such as sandboxes.example.com, with "
	    "https:// before it when a proxy in front speaks TLS, and with :PORT if it needs one",
	    origin_of(c, DAEMON_OPT_DOMAIN), text);
}

/* "https://example.com[:8443]", or a numeric IPv4 address */
static int convert_public_url(struct daemon_config *c, struct av_err *err)
{
	char *text = c->value[DAEMON_OPT_PUBLIC_URL];
	struct av_str s = av_str_c(text ? text : "");
	size_t scheme = av_str_starts(s, AV_STR("https://"))  ? strlen("https://")
	                : av_str_starts(s, AV_STR("http://")) ? strlen("http://")
	                                                      : 0;
	bool letters;

	if (!text)
		return 0;
	/* As people copy it from a browser. */
	if (scheme && s.n > scheme && text[s.n - 1] == '/')
		text[--s.n] = '\0';
	c->public_url = text;
	if (c->tls && av_str_starts(s, AV_STR("http://")))
		return av_err_set(err, AV_ERR_INVALID,
		    "%s: '%.100s' says http, but with tls-cert HTTPS is served; write https://",
		    origin_of(c, DAEMON_OPT_PUBLIC_URL), text);
	if (scheme && is_authority(av_str_n(s.p + scheme, s.n - scheme), &letters))
		return 0;
	return av_err_set(err, AV_ERR_INVALID,
	    "%s: '%.100s' is not the address of a server; give https:// or http://, a host name "
	    "and "
	    ":PORT if it needs one, as https://aviary.example.com; the API is served without a "
	    "path "
	    "before its own",
	    origin_of(c, DAEMON_OPT_PUBLIC_URL), text);
}

/* aviary-spawn wants one of two words. */
static int convert_internet(struct daemon_config *c, struct av_err *err)
{
	bool on = true;
	int r;

	if (!c->value[DAEMON_OPT_INTERNET])
		return 0;
	r = convert_bool(c, DAEMON_OPT_INTERNET, &on, err);
	if (r < 0)
		return r;
	av_freep(&c->value[DAEMON_OPT_INTERNET]);
	c->value[DAEMON_OPT_INTERNET] = av_str_dup(on ? AV_STR("yes") : AV_STR("no"));
	return c->value[DAEMON_OPT_INTERNET] ? 0
	                                     : av_err_set(err, AV_ERR_NO_MEMORY, "out of memory");
}

/* Links are made of it as it is: an address with a path at most. */
static int convert_frontend_url(struct daemon_config *c, struct av_err *err)
{
	const char *text = c->value[DAEMON_OPT_FRONTEND_URL];
	struct av_str s = av_str_c(text);
	bool good = av_str_starts(s, AV_STR("https://")) || av_str_starts(s, AV_STR("http://"));

	c->frontend_url = text;
	for (size_t i = 0; i < s.n && good; i++)
		good = s.p[i] > ' ' && s.p[i] < 0x7f && !strchr("?#\"'<>\\", s.p[i]);
	if (!text || (good && s.n < 200))
		return 0;
	return av_err_set(err, AV_ERR_INVALID,
	    "%s: '%.100s' is not the address of a site; give https:// or http:// and at most a "
	    "path, "
	    "as https://app.example.com",
	    origin_of(c, DAEMON_OPT_FRONTEND_URL), text);
}

static int convert_signup(struct daemon_config *c, struct av_err *err)
{
	/* In the order of enum control_signup_policy. */
	static const char *const words[] = {"activation", "open", "closed"};
	const char *text = c->value[DAEMON_OPT_SIGNUP];

	for (size_t i = 0; i < AV_ARRAY_LEN(words); i++) {
		if (strcmp(text, words[i]) != 0)
			continue;
		c->signup = (int)i;
		return 0;
	}
	return av_err_set(err, AV_ERR_INVALID, "%s: '%s' is none of closed, activation, open",
	    origin_of(c, DAEMON_OPT_SIGNUP), text);
}

static int convert_isolation(const struct daemon_config *c, struct av_err *err)
{
	const char *text = c->value[DAEMON_OPT_DEFAULT_ISOLATION];

	if (strcmp(text, "jail") == 0 || strcmp(text, "vm") == 0)
		return 0;
	return av_err_set(err, AV_ERR_INVALID, "%s: '%s' is neither jail nor vm",
	    origin_of(c, DAEMON_OPT_DEFAULT_ISOLATION), text);
}

#define POOL_MAX 1000

static int convert_pool_of(const struct daemon_config *c, enum daemon_opt count,
    enum daemon_opt memory, uint32_t *ret_max, uint64_t *ret_bytes, struct av_err *err)
{
	const char *n = c->value[count];
	uint64_t max = 0;
	int r;

	if (strcmp(n, "off") != 0 && av_parse_u64(av_str_c(n), 0, POOL_MAX, &max) < 0)
		return av_err_set(err, AV_ERR_INVALID,
		    "%s: '%s' is not a number from 0 to %d; 0 or off switches the pool off",
		    origin_of(c, count), n, POOL_MAX);
	*ret_max = (uint32_t)max;
	r = av_parse_size(av_str_c(c->value[memory]), ret_bytes, err);
	if (r < 0)
		av_err_prefix(err, "%s", origin_of(c, memory));
	else if (*ret_bytes > INT64_MAX / 2)
		r = av_err_set(
		    err, AV_ERR_INVALID, "%s: more than there can be", origin_of(c, memory));
	return r;
}

static int convert_pool(struct daemon_config *c, struct av_err *err)
{
	int r = convert_pool_of(
	    c, DAEMON_OPT_POOL, DAEMON_OPT_POOL_MEMORY, &c->pool, &c->pool_memory, err);

	return r < 0 ? r
	             : convert_pool_of(c, DAEMON_OPT_VM_POOL, DAEMON_OPT_VM_POOL_MEMORY,
	                   &c->vm_pool, &c->vm_pool_memory, err);
}

#define VM_GOLDENS_MAX 1000

static int convert_vm(struct daemon_config *c, struct av_err *err)
{
	const char *n = c->value[DAEMON_OPT_VM_GOLDENS];
	uint64_t goldens = 0;

	if (av_parse_u64(av_str_c(n), 1, VM_GOLDENS_MAX, &goldens) < 0)
		return av_err_set(err, AV_ERR_INVALID, "%s: '%s' is not a number from 1 to %d",
		    origin_of(c, DAEMON_OPT_VM_GOLDENS), n, VM_GOLDENS_MAX);
	c->vm_goldens = (uint32_t)goldens;
	return 0;
}

static int convert_fd(
    const struct daemon_config *c, enum daemon_opt opt, int *ret, struct av_err *err)
{
	const char *text = c->value[opt];
	uint64_t number;

	*ret = -1;
	if (!text)
		return 0;
	if (av_parse_u64(av_str_c(text), 3, 1 << 20, &number) < 0)
		return av_err_set(
		    err, AV_ERR_INVALID, "--%s: '%s' is not a descriptor", opts[opt].name, text);
	*ret = (int)number;
	return 0;
}

#define AUDIT_DAYS_MAX 36500

static int convert_audit(struct daemon_config *c, struct av_err *err)
{
	static const struct {
		enum daemon_opt opt;
		uint64_t min, max;
	} table[] = {{DAEMON_OPT_AUDIT_DAYS, 0, AUDIT_DAYS_MAX},
	    {DAEMON_OPT_AUDIT_MAX, AUDIT_MAX_MIN, AUDIT_MAX_MAX}};
	uint64_t *const numbers[] = {&c->audit_days, &c->audit_max};

	for (size_t i = 0; i < AV_ARRAY_LEN(table); i++)
		if (av_parse_u64(av_str_c(c->value[table[i].opt]), table[i].min, table[i].max,
		        numbers[i]) < 0)
			return av_err_set(err, AV_ERR_INVALID,
			    "%s: '%s' is not a number from %" PRIu64 " to %" PRIu64,
			    origin_of(c, table[i].opt), c->value[table[i].opt], table[i].min,
			    table[i].max);
	return 0;
}

#define MAIN_LOG_MIN (64 * AV_KIB)
#define MAIN_LOG_MAX (16 * AV_MIB)

static int convert_logs(struct daemon_config *c, struct av_err *err)
{
	static const enum daemon_opt which[] = {DAEMON_OPT_MAIN_LOG, DAEMON_OPT_MAIN_LOGS_TOTAL};
	uint64_t *const sizes[] = {&c->main_log, &c->main_logs_total};

	for (size_t i = 0; i < AV_ARRAY_LEN(which); i++)
		if (av_parse_size(av_str_c(c->value[which[i]]), sizes[i], err) < 0) {
			av_err_prefix(err, "%s", origin_of(c, which[i]));
			return -EINVAL;
		}
	if (c->main_log < MAIN_LOG_MIN || c->main_log > MAIN_LOG_MAX)
		return av_err_set(err, AV_ERR_INVALID, "%s: '%s' is not from 64K to 16M",
		    origin_of(c, DAEMON_OPT_MAIN_LOG), c->value[DAEMON_OPT_MAIN_LOG]);
	if (c->main_logs_total < c->main_log || c->main_logs_total > INT64_MAX)
		return av_err_set(err, AV_ERR_INVALID,
		    "%s: '%s' is less than one log (main-log) may have, or more than there can be",
		    origin_of(c, DAEMON_OPT_MAIN_LOGS_TOTAL), c->value[DAEMON_OPT_MAIN_LOGS_TOTAL]);
	return 0;
}

static int convert_ratio(struct daemon_config *c, struct av_err *err)
{
	struct av_str text = av_str_c(c->value[DAEMON_OPT_OTLP_RATIO]);
	uint64_t milli = 0;

	if (!av_str_eq_c(text, "0") && av_parse_milli(text, 1000, &milli) < 0)
		return av_err_set(err, AV_ERR_INVALID,
		    "%s: '%.40s' is not a share; give a number from 0 to 1 with up to three digits "
		    "after "
		    "the point, such as 0.05",
		    origin_of(c, DAEMON_OPT_OTLP_RATIO), text.p);
	c->otlp_ratio = (double)milli / 1000;
	return 0;
}

static int convert(struct daemon_config *c, struct av_err *err)
{
	int r;

	if ((r = convert_bool(c, DAEMON_OPT_INSECURE_HTTP, &c->insecure_http, err)) < 0 ||
	    (r = convert_bool(c, DAEMON_OPT_METRICS_PUBLIC, &c->metrics_public, err)) < 0 ||
	    (r = convert_bool(c, DAEMON_OPT_PRINT_READY, &c->print_ready, err)) < 0 ||
	    (r = convert_internet(c, err)) < 0 || (r = convert_tls(c, err)) < 0 ||
	    (r = convert_listen(c, err)) < 0 || (r = convert_paths(c, err)) < 0 ||
	    (r = convert_domain(c, err)) < 0 || (r = convert_public_url(c, err)) < 0 ||
	    (r = convert_frontend_url(c, err)) < 0 || (r = convert_signup(c, err)) < 0 ||
	    (r = convert_log(c, err)) < 0 || (r = convert_ratio(c, err)) < 0 ||
	    (r = convert_isolation(c, err)) < 0 || (r = convert_pool(c, err)) < 0 ||
	    (r = convert_vm(c, err)) < 0 || (r = convert_audit(c, err)) < 0 ||
	    (r = convert_logs(c, err)) < 0 || (r = daemon_config_quotas(c, err)) < 0)
		return r;
	r = convert_fd(c, DAEMON_OPT_CREDENTIALS_FD, &c->credentials_fd, err);
	if (r == 0)
		r = convert_fd(c, DAEMON_OPT_NOTIFY_FD, &c->notify_fd, err);
	return r < 0 ? r : convert_fd(c, DAEMON_OPT_LEND_FD, &c->lend_fd, err);
}

int daemon_config_finish(struct daemon_config *c, struct av_err *err)
{
	int r;

	if ((r = default_texts(c, err)) < 0 || (r = default_dirs(c, err)) < 0)
		return r;
	return convert(c, err);
}

static int load(struct daemon_config *c, int argc, char *const *argv, struct av_err *err)
{
	int r = load_flags(c, argc, argv, err);

	if (r < 0)
		return r;
	c->is_daemon = c->value[DAEMON_OPT_SPAWN_SOCKET] != NULL;
	/* Help and version work whatever the rest says. */
	c->help = c->value[DAEMON_OPT_HELP] != NULL;
	c->version = c->value[DAEMON_OPT_VERSION] != NULL;
	if (c->help || c->version || c->value[DAEMON_OPT_CHECK_CONFIG])
		return 0;
	if (!c->is_daemon && ((r = load_env(c, err)) < 0 || (r = load_otel_env(c, err)) < 0 ||
	                         (r = load_default_file(c, err)) < 0))
		return r;
	return daemon_config_finish(c, err);
}

int daemon_config_load(struct daemon_config *c, int argc, char *const *argv, struct av_err *err)
{
	int r;

	*c = DAEMON_CONFIG_INIT;
	r = load(c, argc, argv, err);
	if (r < 0)
		daemon_config_clear(c);
	return r;
}

void daemon_config_clear(struct daemon_config *c)
{
	for (int i = 0; i < DAEMON_OPT_COUNT; i++) {
		av_freep(&c->value[i]);
		av_freep(&c->origin[i]);
	}
	av_buf_clear(&c->warnings);
}

int daemon_config_help(struct av_buf *out)
{
	(void)av_buf_append_c(out,
	    "usage: aviaryd [option ...]\n\n"
	    "Runs the Aviary daemon: sandboxes on this machine, behind an HTTP API.\n"
	    "Each option can also be set as AVIARY_<OPTION> in the environment or as\n"
	    "'option = value' in the configuration file, unless marked with *.\n\n");
	for (int i = 0; i < DAEMON_OPT_COUNT; i++) {
		char left[48];

		if (opts[i].scope == DAEMON_SCOPE_PRIVATE)
			continue;
		(void)snprintf(left, sizeof left, "--%s%s%s%s", opts[i].name,
		    opts[i].meta ? " " : "", opts[i].meta ? opts[i].meta : "",
		    opts[i].scope == DAEMON_SCOPE_FLAG ? " *" : "");
		(void)av_buf_printf(out, "  %-26s %s%s%s%s\n", left, opts[i].help,
		    opts[i].text && opts[i].meta ? " (default: " : "",
		    opts[i].text && opts[i].meta ? opts[i].text : "",
		    opts[i].text && opts[i].meta ? ")" : "");
	}
	(void)av_buf_append_c(out, "\nManual: aviaryd(8)\n");
	return av_buf_error(out);
}
