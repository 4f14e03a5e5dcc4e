/* SPDX-License-Identifier: Apache-2.0 */
/*
 * launch.c - from the program a user starts to the supervisor that starts the daemon (see launch.h)
 */
#include "daemon/launch.h"

#include <errno.h>
#include <inttypes.h>
#include <pwd.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/path.h"
#include "base/banned.h"

#define ARGV_MAX 128

/* Where aviary-spawn may lie, seen from the directory of aviaryd: beside it, in the build tree, in
 * an installation. */
static const char *const places[] = {
    "aviary-spawn", "../spawn/aviary-spawn", "../libexec/aviary/aviary-spawn"};

static int self_path(char dst[static AV_PATH_MAX + 1], struct av_err *err)
{
	ssize_t n = readlink("/proc/self/exe", dst, AV_PATH_MAX);

	if (n < 0)
		return av_err_sys(
		    err, AV_ERR_INTERNAL, errno, "cannot find the path of this program");
	dst[n] = '\0';
	return 0;
}

static int find_spawn(const struct daemon_config *c, const char *self,
    char dst[static AV_PATH_MAX + 1], struct av_err *err)
{
	const char *given = daemon_config_get(c, DAEMON_OPT_SPAWN_PROGRAM);
	struct av_str dir = av_path_dir(av_str_c(self));

	if (given) {
		if (av_path_printf(dst, AV_PATH_MAX + 1, "%s", given) == 0 &&
		    access(dst, X_OK) == 0)
			return 0;
		return av_err_sys(
		    err, AV_ERR_INVALID, errno, "--spawn-program: cannot run %s", given);
	}
	for (size_t i = 0; i < AV_ARRAY_LEN(places); i++)
		if (av_path_printf(dst, AV_PATH_MAX + 1, "%.*s/%s", AV_STR_ARG(dir), places[i]) ==
		        0 &&
		    access(dst, X_OK) == 0)
			return 0;
	if (av_path_printf(dst, AV_PATH_MAX + 1, "%s/aviary-spawn", AVIARY_LIBEXECDIR) == 0 &&
	    access(dst, X_OK) == 0)
		return 0;
	return av_err_set(err, AV_ERR_INTERNAL,
	    "aviary-spawn is neither beside %s nor in %s; install it there or name it with "
	    "--spawn-program",
	    self, AVIARY_LIBEXECDIR);
}

struct argv {
	char *v[ARGV_MAX + 1];
	size_t n;
	bool failed;
};

static void add(struct argv *a, const char *text)
{
	if (a->n == ARGV_MAX || !(a->v[a->n] = av_str_dup(av_str_c(text))))
		a->failed = true;
	else
		a->n++;
}

/* "--name value", nothing for an option without a value. */
static void add_option(struct argv *a, const struct daemon_config *c, enum daemon_opt opt)
{
	char flag[64];

	if (!daemon_config_get(c, opt))
		return;
	if (av_path_printf(flag, sizeof flag, "--%s", daemon_opt_name(opt)) < 0) {
		a->failed = true;
		return;
	}
	add(a, flag);
	add(a, daemon_config_get(c, opt));
}

static void add_number(struct argv *a, const char *flag, uint64_t value)
{
	char text[24];

	if (av_path_printf(text, sizeof text, "%" PRIu64, value) < 0) {
		a->failed = true;
		return;
	}
	add(a, flag);
	add(a, text);
}

int daemon_find_user(const struct daemon_config *c, struct daemon_user *ret, struct av_err *err)
{
	const char *name = daemon_config_get(c, DAEMON_OPT_USER);
	const struct passwd *pw;

	*ret = (struct daemon_user){0};
	if (geteuid() != 0)
		return name ? av_err_set(err, AV_ERR_INVALID, "--user: only root can choose a user")
		            : 0;
	pw = getpwnam(name ? name : "aviary");
	if (!pw)
		return name ? av_err_set(
		                  err, AV_ERR_INVALID, "--user: there is no user '%.64s'", name)
		            : 0;
	if (pw->pw_uid == 0 || pw->pw_gid == 0)
		return av_err_set(err, AV_ERR_INVALID,
		    "--user: '%.64s' is root; the daemon reads what strangers send and must not be",
		    pw->pw_name);
	*ret = (struct daemon_user){.uid = pw->pw_uid, .gid = pw->pw_gid};
	return 0;
}

static void add_spawn_options(
    struct argv *a, const struct daemon_config *c, const struct daemon_user *user)
{
	static const enum daemon_opt opts[] = {DAEMON_OPT_STATE, DAEMON_OPT_RUN,
	    DAEMON_OPT_CREDENTIALS, DAEMON_OPT_DISK, DAEMON_OPT_DISK_IMAGE, DAEMON_OPT_CGROUP,
	    DAEMON_OPT_INTERNET, DAEMON_OPT_ALLOW_NET, DAEMON_OPT_RESOLVER, DAEMON_OPT_NET_POOL,
	    DAEMON_OPT_LOG_LEVEL};

	for (size_t i = 0; i < AV_ARRAY_LEN(opts); i++)
		add_option(a, c, opts[i]);
	if (c->tls) {
		add(a, "--lend");
		add(a, daemon_config_get(c, DAEMON_OPT_TLS_CERT));
		add(a, "--lend");
		add(a, daemon_config_get(c, DAEMON_OPT_TLS_KEY));
	}
	if (c->log_json)
		add(a, "--log-json");
	if (user->uid) {
		add_number(a, "--daemon-uid", user->uid);
		add_number(a, "--daemon-gid", user->gid);
	}
}

static void add_daemon_options(struct argv *a, const struct daemon_config *c)
{
	static const enum daemon_opt opts[] = {DAEMON_OPT_LISTEN, DAEMON_OPT_DOMAIN,
	    DAEMON_OPT_PUBLIC_URL, DAEMON_OPT_STATE, DAEMON_OPT_RUN, DAEMON_OPT_CREDENTIALS,
	    DAEMON_OPT_LOG_FORMAT, DAEMON_OPT_LOG_LEVEL, DAEMON_OPT_DEFAULT_ISOLATION,
	    DAEMON_OPT_POOL, DAEMON_OPT_POOL_MEMORY, DAEMON_OPT_VM_POOL, DAEMON_OPT_VM_POOL_MEMORY,
	    DAEMON_OPT_VM_GOLDENS, DAEMON_OPT_WEBHOOK_PRIVATE, DAEMON_OPT_TELEGRAM_URL,
	    DAEMON_OPT_SMTP_URL, DAEMON_OPT_SMTP_USER, DAEMON_OPT_SMTP_PASSWORD_FILE,
	    DAEMON_OPT_MAIL_FROM, DAEMON_OPT_AUDIT_DAYS, DAEMON_OPT_AUDIT_MAX, DAEMON_OPT_MAIN_LOG,
	    DAEMON_OPT_MAIN_LOGS_TOTAL, DAEMON_OPT_TLS_CERT, DAEMON_OPT_TLS_KEY,
	    DAEMON_OPT_FRONTEND_URL, DAEMON_OPT_SIGNUP, DAEMON_OPT_TRUSTED_PROXIES,
	    DAEMON_OPT_OTLP_ENDPOINT, DAEMON_OPT_OTLP_HEADERS_FILE, DAEMON_OPT_OTLP_SERVICE,
	    DAEMON_OPT_OTLP_RATIO, DAEMON_OPT_GITHUB_CLIENT_ID,
	    DAEMON_OPT_GITHUB_CLIENT_SECRET_FILE, DAEMON_OPT_GITHUB_URL, DAEMON_OPT_GITHUB_API_URL,
	    DAEMON_OPT_QUOTA_SANDBOXES, DAEMON_OPT_QUOTA_CPUS, DAEMON_OPT_QUOTA_MEMORY,
	    DAEMON_OPT_QUOTA_DISK, DAEMON_OPT_QUOTA_CREATES};

	for (size_t i = 0; i < AV_ARRAY_LEN(opts); i++)
		add_option(a, c, opts[i]);
	if (c->insecure_http)
		add(a, "--insecure-http");
	if (c->metrics_public)
		add(a, "--metrics-public");
	if (c->print_ready)
		add(a, "--print-ready");
}

int daemon_launch_argv(const struct daemon_config *c, const struct daemon_user *user,
    const char *spawn, const char *self, char ***ret_argv, struct av_err *err)
{
	struct argv a = {.n = 0};
	char **v;

	add(&a, spawn);
	add_spawn_options(&a, c, user);
	add(&a, "--daemon");
	add(&a, self);
	add(&a, "--");
	add_daemon_options(&a, c);
	v = a.failed ? NULL : malloc((a.n + 1) * sizeof *v);
	if (!v) {
		for (size_t i = 0; i < a.n; i++)
			free(a.v[i]);
		return av_err_set(err, AV_ERR_NO_MEMORY, "out of memory");
	}
	memcpy(v, a.v, a.n * sizeof *v);
	v[a.n] = NULL;
	*ret_argv = v;
	return 0;
}

void daemon_launch_argv_free(char **argv)
{
	for (size_t i = 0; argv && argv[i]; i++)
		free(argv[i]);
	free(argv);
}

int daemon_launch_programs(const struct daemon_config *c, char ret_spawn[static AV_PATH_MAX + 1],
    char ret_self[static AV_PATH_MAX + 1], struct av_err *err)
{
	int r = self_path(ret_self, err);

	return r < 0 ? r : find_spawn(c, ret_self, ret_spawn, err);
}

int daemon_launch(const struct daemon_config *c, struct av_err *err)
{
	char self[AV_PATH_MAX + 1], spawn[AV_PATH_MAX + 1];
	struct daemon_user user;
	char **argv = NULL;
	int r;

	if ((r = daemon_launch_programs(c, spawn, self, err)) < 0 ||
	    (r = daemon_launch_check(c, err)) < 0 || (r = daemon_find_user(c, &user, err)) < 0 ||
	    (r = daemon_launch_argv(c, &user, spawn, self, &argv, err)) < 0)
		return r;
	assert(argv);
	(void)execv(spawn, argv);
	r = av_err_sys(err, AV_ERR_INTERNAL, errno, "cannot start %s", spawn);
	daemon_launch_argv_free(argv);
	return r;
}
