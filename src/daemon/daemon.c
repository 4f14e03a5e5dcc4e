/* SPDX-License-Identifier: Apache-2.0 */
/*
 * daemon.c - the daemon proper (see daemon.h)
 */
#include "daemon/daemon.h"

#include <errno.h>
#include <malloc.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "api/api.h"
#include "base/avtime.h"
#include "base/fd.h"
#include "base/path.h"
#include "control/control.h"
#include "control/hosts.h"
#include "control/login.h"
#include "daemon/certificate.h"
#include "daemon/github.h"
#include "daemon/local.h"
#include "daemon/outbound.h"
#include "daemon/tracing.h"
#include "daemon/service.h"
#include "net/http_server.h"
#include "net/loop.h"
#include "net/tls.h"
#include "node/jail/jail.h"
#include "node/node.h"
#include "node/vm/vm.h"
#include "store/store.h"
#include "base/banned.h"

#define STOP_GRACE_MS 5000
#define FLUSH_MS      2000 /* for the last spans, of which a dead collector knows nothing */
struct daemon {
	const struct daemon_config *config;
	struct av_loop *loop;
	struct store *store;
	struct av_post store_post;
	atomic_bool store_posted;
	struct node *node;
	struct outbound *outbound;
	struct av_otlp *otlp; /* NULL: nothing is traced */
	struct daemon_github github;
	struct control *control;
	struct av_timer tick;
	struct api *api;
	struct av_http_server *server;
	struct av_signal *signals[2];
	struct service service;
	struct certificate *certificate; /* NULL: plain HTTP */
	int credentials_fd;              /* owned; -1 once used */
	int lend_fd;                     /* the same */
	char url[128];
	uint16_t port;
	bool stopping;
	int result;
	struct av_err err; /* why result is not 0 */
};

static void daemon_fail(struct daemon *d, const struct av_err *err)
{
	d->err = *err;
	d->result = av_err_errno(err->kind) > 0 ? -av_err_errno(err->kind) : -EIO;
	av_loop_stop(d->loop);
}

/* ---- clock and store on the loop ---- */

/* From the store's thread. A post may be under way only once. */
static void store_wake(void *ctx)
{
	struct daemon *d = ctx;

	if (!atomic_exchange(&d->store_posted, true))
		av_loop_post(d->loop, &d->store_post);
}

static void on_store_post(void *ctx)
{
	struct daemon *d = ctx;

	atomic_store(&d->store_posted, false);
	if (d->store)
		store_dispatch(d->store);
}

static void on_tick(void *ctx)
{
	struct daemon *d = ctx;

	control_tick(d->control);
}

static void wake_at(void *ctx, int64_t boot_ns)
{
	struct daemon *d = ctx;
	int64_t ms;

	if (boot_ns == INT64_MAX) {
		av_timer_stop(&d->tick);
		return;
	}
	/* The timer runs on the monotonic clock, which stands still in suspend: looking every
	 * minute bounds how late a time on the boot clock is noticed after a wake-up. */
	ms = (boot_ns - av_boot_ns() + AV_NS_PER_MS - 1) / AV_NS_PER_MS;
	ms = AV_MIN(ms, 60000LL);
	av_timer_start(&d->tick, ms > 0 ? (uint64_t)ms : 0);
}

static int work(void *ctx, void (*fn)(void *arg), void (*done)(void *arg, int status), void *arg)
{
	struct daemon *d = ctx;

	return av_loop_work(d->loop, fn, done, arg);
}

/* ---- stopping ---- */

static void on_flushed(void *ctx)
{
	struct daemon *d = ctx;

	av_loop_stop(d->loop);
}

static void on_server_stopped(void *ctx)
{
	struct daemon *d = ctx;

	if (d->otlp)
		av_otlp_flush(d->otlp, FLUSH_MS, on_flushed, d);
	else
		av_loop_stop(d->loop);
}

static void on_node_closed(void *ctx)
{
	struct daemon *d = ctx;

	d->node = NULL;
	if (d->server)
		av_http_server_stop(d->server, STOP_GRACE_MS, on_server_stopped, d);
	else
		av_loop_stop(d->loop);
}

static void on_control_stopped(void *ctx)
{
	struct daemon *d = ctx;

	node_close(d->node, on_node_closed, d);
}

static void on_stop_signal(void *ctx, int signum)
{
	struct daemon *d = ctx;

	if (d->stopping) {
		av_log(AV_LOG_WARN, "stopping at once", "signal", sigabbrev_np(signum), NULL);
		_exit(1);
	}
	d->stopping = true;
	av_log(
	    AV_LOG_INFO, "stopping; sandboxes go on running", "signal", sigabbrev_np(signum), NULL);
	if (!d->control || !d->server || control_stop(d->control, on_control_stopped, d) < 0)
		av_loop_stop(d->loop);
}

/* ---- starting ---- */

/* Not to lose creates to a low default; the hard limit is the administrator's. */
static void raise_file_limit(void)
{
	struct rlimit files;

	if (getrlimit(RLIMIT_NOFILE, &files) < 0)
		return;
	files.rlim_cur = files.rlim_max;
	if (setrlimit(RLIMIT_NOFILE, &files) < 0)
		av_log(AV_LOG_WARN, "cannot raise the limit of open files", "error",
		    strerrordesc_np(errno), NULL);
}

/* <run>/url, made by the supervisor. Written over, then cut: whoever reads it meanwhile sees the
 * former URL or this one. A file that cannot be written costs only those who look for it. */
static void write_url(const struct daemon *d)
{
	const char *run = daemon_config_get(d->config, DAEMON_OPT_RUN);
	AV_CLEANUP(av_closep) int fd = -1;
	char path[AV_PATH_MAX + 1], line[160];
	int r = av_path_printf(path, sizeof path, "%s/url", run);

	if (r == 0) {
		fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644);
		(void)snprintf(line, sizeof line, "%s\n", d->url);
		r = fd < 0 ? -errno : av_write_full(fd, line, strlen(line));
	}
	if (r == 0 && ftruncate(fd, (off_t)strlen(line)) < 0)
		r = -errno;
	if (r < 0)
		av_log(AV_LOG_WARN, "cannot write the URL for local clients", "file", path, "error",
		    strerrordesc_np(-r), NULL);
}

/* The port that the daemon before this one had, when any would do: clients that know the URL, and a
 * supervisor that starts us anew, need not learn another. 0 when unknown. */
static uint16_t former_port(const struct daemon *d)
{
	const char *run = daemon_config_get(d->config, DAEMON_OPT_RUN);
	char path[AV_PATH_MAX + 1], text[160], host[64];
	struct av_str url, scheme;
	uint16_t port;
	ssize_t n;

	if (av_path_printf(path, sizeof path, "%s/url", run) < 0)
		return 0;
	n = av_read_file_at(AT_FDCWD, path, text, sizeof text);
	if (n < 0)
		return 0;
	url = av_str_n(text, (size_t)n);
	if (!av_str_cut(&url, ':', &scheme) || !av_str_starts(url, AV_STR("//")) ||
	    !av_str_ends(url, AV_STR("\n")))
		return 0;
	text[n - 1] = '\0';
	if (daemon_parse_listen(url.p + strlen("//"), host, &port, NULL) < 0 ||
	    !av_str_eq_c(av_str_c(host), d->config->listen_host))
		return 0;
	return port;
}

static int listen_tcp(struct daemon *d, uint16_t *ret_port, struct av_err *err)
{
	const char *host = d->config->listen_host;
	uint16_t former = d->config->listen_port ? 0 : former_port(d);

	if (former && av_http_server_listen_tcp(d->server, host, former, ret_port, NULL) == 0)
		return 0;
	return av_http_server_listen_tcp(d->server, host, d->config->listen_port, ret_port, err);
}

static int listen_all(struct daemon *d, struct av_err *err)
{
	const struct av_http_server_config config = {.on_request = api_on_request,
	    .ctx = d->api,
	    .server_name = "aviary",
	    .tls = d->certificate ? certificate_tls(d->certificate) : NULL};
	const char *host = d->config->listen_host;
	bool v6 = strchr(host, ':') != NULL;
	char address[72];
	uint16_t port = 0;
	int r = av_http_server_new(d->loop, &config, &d->server);

	if (r < 0)
		return av_err_sys(err, AV_ERR_INTERNAL, r, "cannot make the server");
	r = listen_tcp(d, &port, err);
	if (r < 0) {
		/* Nothing that trying again would heal. */
		err->kind = AV_ERR_INVALID;
		av_err_prefix(err, "--listen %s", daemon_config_get(d->config, DAEMON_OPT_LISTEN));
		return r;
	}
	api_set_server(d->api, d->server);
	(void)snprintf(d->url, sizeof d->url, "%s://%s%s%s:%u", config.tls ? "https" : "http",
	    v6 ? "[" : "", host, v6 ? "]" : "", (unsigned int)port);
	d->port = port;
	control_set_link_base(d->control, d->config->frontend_url ? d->config->frontend_url
	                                  : d->config->public_url ? d->config->public_url
	                                                          : d->url);
	daemon_local_address(host, port, address, sizeof(address));
	control_host_set_address(d->control, address);
	return 0;
}

static void announce(struct daemon *d)
{
	char line[160];

	write_url(d);
	service_ready(&d->service);
	av_log(AV_LOG_INFO, "ready", "url", d->url, "isolation", control_isolation(d->control),
	    "detail", control_isolation_detail(d->control), NULL);
	if (!d->config->print_ready)
		return;
	(void)snprintf(line, sizeof line, "ready %s\n", d->url);
	if (av_write_full(STDOUT_FILENO, line, strlen(line)) < 0)
		av_log(AV_LOG_WARN, "nobody reads the ready line", NULL);
}

/* Where clients find us: as we listen, unless our certificate is for other names only. */
static void client_url(const struct daemon *d, char *dst, size_t size)
{
	const struct av_tls *tls = d->certificate ? certificate_tls(d->certificate) : NULL;
	const char *name =
	    tls && !av_tls_covers(tls, d->config->listen_host) ? av_tls_first_name(tls) : NULL;

	if (tls && d->config->public_url)
		(void)snprintf(dst, size, "%s", d->config->public_url);
	else if (name)
		(void)snprintf(dst, size, "https://%s:%u", name, (unsigned int)d->port);
	else
		(void)snprintf(dst, size, "%s", d->url);
}

/* One line of at most 512 bytes, which the supervisor writes to the user's file as it is. It reads
 * to the end of file: the descriptor is closed at once. */
static int hand_over_secret(void *ctx, const char *secret)
{
	struct daemon *d = ctx;
	char line[512], url[384];
	int n, r;

	client_url(d, url, sizeof url);
	n = snprintf(line, sizeof line, "{\"url\":\"%s\",\"api_key\":\"%s\"}\n", url, secret);

	if (d->credentials_fd < 0) {
		av_log(AV_LOG_WARN, "no --credentials-fd: the first key goes to nobody", NULL);
		r = -EBADF;
	} else {
		r = av_write_full(d->credentials_fd, line, (size_t)n);
	}
	av_close_fd(&d->credentials_fd);
	explicit_bzero(line, sizeof line);
	return r;
}

static void on_first_start(void *ctx, bool made, const struct av_err *err)
{
	struct daemon *d = ctx;
	const char *file = daemon_config_get(d->config, DAEMON_OPT_CREDENTIALS);

	if (err) {
		daemon_fail(d, err);
		return;
	}
	if (made)
		av_log(AV_LOG_INFO, "first start: made an administrator and an API key",
		    "credentials", file ? file : "", NULL);
	av_close_fd(&d->credentials_fd);
	announce(d);
}

static void on_control_started(
    void *ctx, const struct control_start_report *r, const struct av_err *err)
{
	struct daemon *d = ctx;
	struct av_err mine;
	char adopted[24], finished[24], lost[24], removed[24];

	if (err) {
		daemon_fail(d, err);
		return;
	}
	(void)snprintf(adopted, sizeof adopted, "%zu", r->adopted);
	(void)snprintf(finished, sizeof finished, "%zu", r->finished);
	(void)snprintf(lost, sizeof lost, "%zu", r->lost);
	(void)snprintf(removed, sizeof removed, "%zu", r->removed);
	av_log(AV_LOG_INFO, "compared records with the machine", "adopted", adopted, "finished",
	    finished, "lost", lost, "removed", removed, NULL);
	/* The listener first: its port goes into the credentials. */
	if (listen_all(d, &mine) < 0) {
		daemon_fail(d, &mine);
	} else if (control_first_start(d->control, hand_over_secret, on_first_start, d) < 0) {
		(void)av_err_set(&mine, AV_ERR_INTERNAL, "cannot look for the first administrator");
		daemon_fail(d, &mine);
	}
}

/* The directory on the way to path that does not let this process through. */
static bool find_closed(const char *path, char ret[static AV_PATH_MAX + 1])
{
	for (const char *p = strchr(path + 1, '/'); p; p = strchr(p + 1, '/')) {
		struct av_str part = av_str_n(path, (size_t)(p - path));
		if (av_str_copy(ret, AV_PATH_MAX + 1, part) == 0 && access(ret, X_OK) < 0)
			return errno == EACCES;
	}
	return false;
}

static int make_db_dir(const char *dir, struct av_err *err)
{
	char closed[AV_PATH_MAX + 1];

	if (mkdir(dir, 0700) == 0 || errno == EEXIST)
		return 0;
	int eno = errno;
	if (eno != EACCES || !find_closed(dir, closed))
		return av_err_sys(err, AV_ERR_INTERNAL, eno, "cannot make %s", dir);
	/* Nothing that trying again would heal. */
	return av_err_set(err, AV_ERR_INVALID,
	    "--state: %.200s does not let the daemon's user (id %u) through to %.200s: `chmod o+x "
	    "%.200s`, or choose another directory",
	    closed, (unsigned int)geteuid(), dir, closed);
}

static int open_store(struct daemon *d, struct av_err *err)
{
	char dir[AV_PATH_MAX + 1], path[AV_PATH_MAX + 1];
	const char *state = daemon_config_get(d->config, DAEMON_OPT_STATE);
	const struct store_config config = {.path = path, .wake = store_wake, .wake_ctx = d};

	if (av_path_printf(dir, sizeof dir, "%s/db", state) < 0 ||
	    av_path_printf(path, sizeof path, "%s/aviary.db", dir) < 0)
		return av_err_set(
		    err, AV_ERR_INVALID, "--state %.100s: the path is too long", state);
	int r = make_db_dir(dir, err);
	return r < 0 ? r : store_open(&config, &d->store, err);
}

static int open_node(struct daemon *d, struct av_err *err)
{
	const struct jail_config jail = {.loop = d->loop,
	    .spawn_socket = daemon_config_get(d->config, DAEMON_OPT_SPAWN_SOCKET),
	    .run_dir = daemon_config_get(d->config, DAEMON_OPT_RUN)};
	const struct vm_config vm = {.loop = d->loop,
	    .spawn_socket = jail.spawn_socket,
	    .run_dir = jail.run_dir,
	    .goldens_max = d->config->vm_goldens};
	struct node_config config = {.loop = d->loop};
	int r = jail_driver_new(&jail, &config.drivers[0], err);

	if (r == 0)
		r = vm_driver_new(&vm, &config.drivers[1], err);
	return r < 0 ? r : node_new(&config, &d->node, err);
}

static void take_quotas(const struct daemon_config *c, struct control_limits *l)
{
	if (c->quota_sandboxes)
		l->sandboxes_per_team_max = c->quota_sandboxes;
	l->team_cpu_milli_max = c->quota_cpu_milli;
	l->team_memory_max = c->quota_memory;
	l->team_disk_max = c->quota_disk;
	l->team_creates_per_minute_max = c->quota_creates;
}

static int open_control(struct daemon *d, struct av_err *err)
{
	struct control_config config = {.store = d->store,
	    .node = d->node,
	    .clock = {.ctx = d, .wake_at = wake_at},
	    .audit_days = (int64_t)d->config->audit_days,
	    .audit_max = (int64_t)d->config->audit_max,
	    .log_max = (int64_t)d->config->main_log,
	    .logs_total_max = (int64_t)d->config->main_logs_total,
	    .signup = (enum control_signup_policy)d->config->signup,
	    .isolation = daemon_config_get(d->config, DAEMON_OPT_DEFAULT_ISOLATION),
	    .pool_max = d->config->pool,
	    .pool_memory_bytes = (int64_t)d->config->pool_memory,
	    .vm_pool_max = d->config->vm_pool,
	    .vm_pool_memory_bytes = (int64_t)d->config->vm_pool_memory,
	    .work = work,
	    .work_ctx = d,
	    .outbound = outbound_table(d->outbound)};
	struct api_config api = {.loop = d->loop,
	    .version = AVIARY_VERSION,
	    .ports_domain = d->config->ports_domain,
	    .ports_tls = d->config->ports_tls,
	    .public_url = d->config->public_url,
	    .metrics_public = d->config->metrics_public,
	    .trusted_proxies = daemon_config_get(d->config, DAEMON_OPT_TRUSTED_PROXIES),
	    .otlp = d->otlp,
	    .fetch = outbound_fetch(d->outbound),
	    .credentials_hint = daemon_config_get(d->config, DAEMON_OPT_CREDENTIALS)};
	int r;

	r = daemon_github_read(d->config, &d->github, err);
	if (r < 0)
		return r;
	config.github = r > 0 ? &d->github.config : NULL;
	control_limits_init(&config.limits);
	take_quotas(d->config, &config.limits);
	daemon_local_facts(daemon_config_get(d->config, DAEMON_OPT_STATE), &config.local);
	av_timer_init(&d->tick, d->loop, on_tick, d);
	r = control_new(&config, &d->control, err);
	if (r < 0)
		return r;
	api.control = d->control;
	return api_new(&api, &d->api, err);
}

static int open_all(struct daemon *d, struct av_err *err)
{
	static const int stops[2] = {SIGTERM, SIGINT};
	int r;

	for (size_t i = 0; i < AV_ARRAY_LEN(stops); i++) {
		r = av_signal_new(d->loop, stops[i], on_stop_signal, d, &d->signals[i]);
		if (r < 0)
			return av_err_sys(err, AV_ERR_INTERNAL, r, "cannot watch signals");
	}
	if (d->config->tls)
		r = certificate_open(
		    d->loop, d->config, AV_TAKE_FD(d->lend_fd), &d->certificate, err);
	if (r < 0)
		return r;
	if ((r = service_open(&d->service, d->loop, err)) < 0 || (r = open_store(d, err)) < 0 ||
	    (r = open_node(d, err)) < 0 ||
	    (r = outbound_new(d->loop, d->config, &d->outbound, err)) < 0 ||
	    (r = tracing_new(d->loop, outbound_fetch(d->outbound), d->config, &d->otlp, err)) < 0 ||
	    (r = open_control(d, err)) < 0)
		return r;
	r = control_start(d->control, on_control_started, d);
	return r < 0 ? av_err_sys(err, AV_ERR_INTERNAL, r, "cannot start") : 0;
}

static void on_node_closed_late(void *ctx)
{
	struct daemon *d = ctx;

	d->node = NULL;
	av_loop_stop(d->loop);
}

/* In the reverse order; what a graceful stop has closed already is NULL. */
static void close_all(struct daemon *d)
{
	av_http_server_free(d->server);
	certificate_close(d->certificate);
	api_free(d->api);
	if (d->control)
		av_timer_stop(&d->tick); /* control may ask nothing of a node that is gone */
	if (d->node) {
		node_close(d->node, on_node_closed_late, d);
		(void)av_loop_run(d->loop);
	}
	av_otlp_stop(d->otlp);
	outbound_free(d->outbound);
	if (d->control)
		control_free(d->control);
	av_otlp_free(d->otlp);
	daemon_github_clear(&d->github);
	store_close(d->store);
	d->store = NULL; /* a wake-up may still be in the loop */
	for (size_t i = 0; i < AV_ARRAY_LEN(d->signals); i++)
		av_signal_free(d->signals[i]);
	service_close(&d->service);
	av_loop_free(d->loop);
	av_close_fd(&d->credentials_fd);
	av_close_fd(&d->lend_fd);
}

/* Bodies on their way are held in blocks of up to 128 KiB. By default the allocator maps each, or
 * gives the top of the heap back with each that is freed, and their pages are zeroed anew: a third
 * of what an upload costs. */
static void configure_memory(void)
{
	mallopt(M_MMAP_THRESHOLD, 1024 * 1024);
	mallopt(M_TRIM_THRESHOLD, 4 * 1024 * 1024);
	mallopt(M_TOP_PAD, 256 * 1024);
}

int daemon_run(const struct daemon_config *c, struct av_err *err)
{
	struct daemon d = {.config = c,
	    .credentials_fd = c->credentials_fd,
	    .lend_fd = c->lend_fd,
	    .service = {.beat_fd = c->notify_fd, .level = c->log_level}};
	int r;

	service_seal_memory();
	configure_memory();
	r = av_loop_new(&d.loop);
	if (r < 0)
		return av_err_sys(err, AV_ERR_INTERNAL, r, "cannot make the event loop");
	if (d.credentials_fd >= 0)
		(void)av_set_cloexec(d.credentials_fd, true);
	d.store_post = (struct av_post){.fn = on_store_post, .ctx = &d};
	raise_file_limit();
	r = open_all(&d, err);
	if (r == 0) {
		(void)av_loop_run(d.loop);
		r = d.result;
		if (r < 0 && err)
			*err = d.err;
		else if (r == 0)
			av_log(AV_LOG_INFO, "stopped", NULL);
	}
	close_all(&d);
	return r;
}
