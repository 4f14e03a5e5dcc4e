/* SPDX-License-Identifier: Apache-2.0 */
/*
 * http_server.c - listeners, limits of connections, graceful stop
 */
#include "net/http_server.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/fd.h"
#include "net/server_internal.h"

#include "base/banned.h"

#define ACCEPTS_PER_EVENT 64
#define ACCEPT_PAUSE_MS   100
#define BACKLOG           1024

struct listener {
	struct av_list link;
	struct av_http_server *server;
	int fd;
	struct av_watch *watch;
	struct av_timer pause;
	char *unix_path; /* owned; removed with the listener, or NULL */
};

static uint32_t or_default(uint32_t v, uint32_t def)
{
	return v ? v : def;
}

static void on_stopped(void *ctx)
{
	struct av_http_server *s = ctx;
	av_timer_stop(&s->grace);
	void (*fn)(void *) = s->on_stopped;
	s->on_stopped = NULL;
	if (fn)
		fn(s->stopped_ctx); /* may free the server */
}

static void destroy_all(struct av_http_server *s)
{
	struct conn *c;
	while ((c = AV_LIST_FIRST(&s->conns, struct conn, link))) {
		c->reset = true;
		conn_destroy(c, -ECANCELED);
	}
}

static void on_grace(void *ctx)
{
	destroy_all(ctx);
}

int av_http_server_new(
    struct av_loop *loop, const struct av_http_server_config *config, struct av_http_server **ret)
{
	if (!config->on_request)
		return -EINVAL;
	struct av_http_server *s = calloc(1, sizeof(*s));
	if (!s)
		return -ENOMEM;
	s->loop = loop;
	s->cfg = *config;
	struct av_http_server_config *g = &s->cfg;
	g->server_name = g->server_name ? g->server_name : "aviary";
	g->max_connections = or_default(g->max_connections, 4096);
	s->metrics.connections_max = g->max_connections;
	g->max_streams = or_default(g->max_streams, 256);
	g->max_head_bytes = or_default(g->max_head_bytes, 65536);
	g->max_headers = or_default(g->max_headers, 128);
	g->head_timeout_ms = or_default(g->head_timeout_ms, 10000);
	g->body_idle_timeout_ms = or_default(g->body_idle_timeout_ms, 30000);
	g->keepalive_timeout_ms = or_default(g->keepalive_timeout_ms, 75000);
	g->write_timeout_ms = or_default(g->write_timeout_ms, 30000);
	g->high_watermark_bytes = or_default(g->high_watermark_bytes, 1024 * 1024);
	g->low_watermark_bytes = or_default(g->low_watermark_bytes, g->high_watermark_bytes / 4);
	uint32_t seconds = g->keepalive_timeout_ms / 1000;
	snprintf(s->keep_alive, sizeof(s->keep_alive), "timeout=%u", seconds > 1 ? seconds - 1 : 1);
	av_list_init(&s->listeners);
	av_list_init(&s->conns);
	av_timer_init(&s->grace, loop, on_grace, s);
	av_defer_init(&s->stopped, on_stopped, s);
	*ret = s;
	return 0;
}

/* ---- listeners ---- */

static void listener_free(struct listener *li)
{
	av_list_remove(&li->link);
	av_timer_stop(&li->pause);
	av_watch_free(li->watch);
	av_close_fd(&li->fd);
	if (li->unix_path)
		unlink(li->unix_path);
	free(li->unix_path);
	free(li);
}

static void on_pause_over(void *ctx)
{
	struct listener *li = ctx;
	av_watch_set(li->watch, AV_WATCH_READ);
}

static void on_acceptable(void *ctx, int events)
{
	struct listener *li = ctx;
	struct av_http_server *s = li->server;
	(void)events;
	for (int i = 0; i < ACCEPTS_PER_EVENT; i++) {
		AV_CLEANUP(av_closep)
		int fd = accept4(li->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
		if (fd < 0 &&
		    (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS)) {
			/* The connection stays in the backlog; asking at once again would spin. */
			av_watch_set(li->watch, 0);
			av_timer_start(&li->pause, ACCEPT_PAUSE_MS);
			return;
		}
		if (fd < 0 && errno == EAGAIN)
			return;
		if (fd < 0)
			continue; /* the client went away while waiting */
		bool refused = s->n_conns >= s->cfg.max_connections;
		if (refused && s->n_refused >= SERVER_REFUSED_MAX) {
			s->metrics.connections_refused++;
			continue;
		}
		if (conn_new(s, fd, refused, li->unix_path ? NULL : s->cfg.tls) == 0)
			(void)AV_TAKE_FD(fd);
	}
}

static int listener_new(struct av_http_server *s, int fd, const char *unix_path)
{
	struct listener *li = calloc(1, sizeof(*li));
	if (!li)
		return -ENOMEM;
	li->server = s;
	li->fd = -1;
	av_list_append(&s->listeners, &li->link);
	av_timer_init(&li->pause, s->loop, on_pause_over, li);
	int rc = 0;
	char *path = unix_path ? av_str_dup(av_str_c(unix_path)) : NULL;
	if (unix_path && !path)
		rc = -ENOMEM;
	if (rc == 0)
		rc = av_watch_new(s->loop, fd, on_acceptable, li, &li->watch);
	if (rc == 0)
		rc = av_watch_set(li->watch, AV_WATCH_READ);
	if (rc < 0) {
		free(path);
		listener_free(li);
		return rc;
	}
	li->unix_path = path;
	li->fd = fd;
	return 0;
}

static int parse_address(
    const char *address, uint16_t port, struct sockaddr_storage *ss, socklen_t *ret_len)
{
	struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons(port)};
	struct sockaddr_in6 in6 = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
	memset(ss, 0, sizeof(*ss));
	if (inet_pton(AF_INET, address, &in.sin_addr) == 1) {
		memcpy(ss, &in, sizeof(in));
		*ret_len = sizeof(in);
		return 0;
	}
	if (inet_pton(AF_INET6, address, &in6.sin6_addr) == 1) {
		memcpy(ss, &in6, sizeof(in6));
		*ret_len = sizeof(in6);
		return 0;
	}
	return -EINVAL;
}

static uint16_t bound_port(int fd)
{
	struct sockaddr_storage ss = {0};
	socklen_t len = sizeof(ss);
	if (getsockname(fd, (struct sockaddr *)&ss, &len) < 0)
		return 0;
	struct sockaddr_in in;
	struct sockaddr_in6 in6;
	if (ss.ss_family == AF_INET) {
		memcpy(&in, &ss, sizeof(in));
		return ntohs(in.sin_port);
	}
	memcpy(&in6, &ss, sizeof(in6));
	return ntohs(in6.sin6_port);
}

int av_http_server_listen_tcp(struct av_http_server *s, const char *address, uint16_t port,
    uint16_t *ret_port, struct av_err *err)
{
	struct sockaddr_storage ss;
	socklen_t len = 0;
	if (parse_address(address, port, &ss, &len) < 0)
		return av_err_set(err, AV_ERR_INVALID,
		    "cannot listen on \"%s\": give a numeric address such as 127.0.0.1 or ::1",
		    address);
	AV_CLEANUP(av_closep)
	int fd = socket(ss.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	int one = 1;
	if (fd < 0)
		return av_err_sys(
		    err, AV_ERR_INTERNAL, errno, "cannot make a socket for %s", address);
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	int rc = bind(fd, (struct sockaddr *)&ss, len) < 0 || listen(fd, BACKLOG) < 0 ? -errno : 0;
	if (rc == -EACCES && port < 1024)
		return av_err_set(err, AV_ERR_FORBIDDEN,
		    "cannot listen on %s port %u: this process is an ordinary user's, who may not "
		    "take "
		    "ports below 1024; take a higher one, or allow it with `sysctl "
		    "net.ipv4.ip_unprivileged_port_start=%u`",
		    address, port, port);
	if (rc == 0)
		rc = listener_new(s, fd, NULL);
	if (rc < 0)
		return av_err_sys(
		    err, AV_ERR_INTERNAL, rc, "cannot listen on %s port %u", address, port);
	if (ret_port)
		*ret_port = bound_port(fd);
	(void)AV_TAKE_FD(fd);
	return 0;
}

int av_http_server_listen_unix(
    struct av_http_server *s, const char *path, mode_t mode, struct av_err *err)
{
	struct sockaddr_un un = {.sun_family = AF_UNIX};
	if (av_str_copy(un.sun_path, sizeof(un.sun_path), av_str_c(path)) < 0)
		return av_err_set(err, AV_ERR_INVALID,
		    "cannot listen on \"%s\": the path of a unix socket has at most %zu bytes",
		    path, sizeof(un.sun_path) - 1);
	AV_CLEANUP(av_closep)
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return av_err_sys(err, AV_ERR_INTERNAL, errno, "cannot make a socket for %s", path);
	struct stat st;
	if (lstat(path, &st) == 0 && S_ISSOCK(st.st_mode))
		unlink(path);
	if (bind(fd, (struct sockaddr *)&un, sizeof(un)) < 0)
		return av_err_sys(err, AV_ERR_INTERNAL, errno, "cannot listen on %s", path);
	/* Nobody can connect before listen(2). */
	int rc = chmod(path, mode) < 0 || listen(fd, BACKLOG) < 0 ? -errno : 0;
	if (rc == 0)
		rc = listener_new(s, fd, path);
	if (rc < 0) {
		unlink(path);
		return av_err_sys(err, AV_ERR_INTERNAL, rc, "cannot listen on %s", path);
	}
	(void)AV_TAKE_FD(fd);
	return 0;
}

int av_http_server_adopt(struct av_http_server *s, int fd)
{
	int rc = av_set_nonblock(fd, true);
	return rc < 0 ? rc : conn_new(s, fd, false, NULL);
}

/* ---- end ---- */

void av_http_server_stop(
    struct av_http_server *s, uint32_t grace_ms, void (*on_stopped_fn)(void *ctx), void *ctx)
{
	struct listener *li;
	AV_LIST_FOREACH(li, &s->listeners, struct listener, link)
	listener_free(li);
	s->stopping = true;
	s->on_stopped = on_stopped_fn;
	s->stopped_ctx = ctx;
	struct conn *c;
	AV_LIST_FOREACH(c, &s->conns, struct conn, link)
	conn_stop(c);
	if (av_list_empty(&s->conns))
		av_defer_start(&s->stopped, s->loop);
	else
		av_timer_start(&s->grace, grace_ms);
}

void av_http_server_free(struct av_http_server *s)
{
	if (!s)
		return;
	struct listener *li;
	AV_LIST_FOREACH(li, &s->listeners, struct listener, link)
	listener_free(li);
	destroy_all(s);
	av_defer_stop(&s->stopped);
	av_timer_stop(&s->grace);
	free(s);
}

const struct av_tls *av_http_server_tls(const struct av_http_server *s)
{
	return s->cfg.tls;
}

const struct av_http_server_metrics *av_http_server_metrics(const struct av_http_server *s)
{
	return &s->metrics;
}
