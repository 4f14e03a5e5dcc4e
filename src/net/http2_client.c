/* SPDX-License-Identifier: Apache-2.0 */
/*
 * http2_client.c - one connection to an agent and its streams
 *
 * Entry points (readiness, timers, deferred work) go through enter()/leave(); calls by the owner
 * only change state and schedule the deferred work. av_h2c_free() from inside a callback cuts all
 * streams off and leaves the memory to leave().
 */
#include "net/http2_client.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "base/fd.h"
#include "net/loop_internal.h"
#include "net/transport.h"
#include "proto/http2.h"

#include "base/banned.h"

#define READS_PER_EVENT   4
#define OUTPUT_PIECES     32
#define OUTPUT_BYTES      (256 * 1024)
#define OUTPUTS_PER_FLUSH 16
#define RETRY_MS          2 /* the listener's backlog is full */
#define PENDING_MAX       (64 * 1024 * 1024)

struct av_h2c {
	struct av_loop *loop;
	struct av_h2c_config cfg;
	struct av_h2c_metrics own; /* when the caller gives none */
	struct av_h2c_metrics *metrics;
	struct transport tp;
	struct av_http2 *h2;
	struct av_list streams;
	size_t n_streams;
	struct sockaddr_un addr;
	int fd;       /* owned while connecting; -1 then */
	int depth;    /* entry points on the stack */
	int error;    /* why it is lost; 0 while usable */
	bool open;    /* the peer has spoken */
	bool lost;    /* on_close was told */
	bool going;   /* GOAWAY came: no new streams */
	bool blocked; /* the socket is full */
	bool freed;
	bool pinging;
	bool held; /* the peer is frozen: no time-outs */
	struct av_defer work;
	struct av_timer connect_timer;
	struct av_timer retry_timer;
	struct av_timer ping_timer;
	struct av_timer write_timer;
};

struct av_h2s {
	struct av_list link;
	struct av_h2c *conn;
	struct av_http2_stream *stream; /* NULL once the codec's is gone */
	const struct av_h2s_handler *handler;
	void *ctx;
	bool has_body, ended, want_drain;
	bool auto_consume;
	bool complete; /* on_end was told */
	bool cancelled;
	int failed; /* a reset of ours, with this status */
};

/* ---- lifetime ---- */

static void conn_free(struct av_h2c *c)
{
	av_http2_free(c->h2);
	free(c);
}

static void enter(struct av_h2c *c)
{
	c->depth++;
}

static void leave(struct av_h2c *c)
{
	if (--c->depth == 0 && c->freed)
		conn_free(c);
}

static void schedule(struct av_h2c *c)
{
	if (!c->freed)
		av_defer_start(&c->work, c->loop);
}

static void fail(struct av_h2c *c, int error)
{
	if (!c->error)
		c->error = error;
	schedule(c);
}

static void stream_close(struct av_h2s *s, int status)
{
	struct av_h2c *c = s->conn;
	if (s->stream)
		av_http2_stream_set_user(s->stream, NULL);
	s->stream = NULL;
	av_list_remove(&s->link);
	c->n_streams--;
	c->metrics->streams_open--;
	if (s->handler->on_close)
		s->handler->on_close(s->ctx, s, status);
	free(s);
}

static void shut(struct av_h2c *c)
{
	av_timer_stop(&c->connect_timer);
	av_timer_stop(&c->retry_timer);
	av_timer_stop(&c->ping_timer);
	av_timer_stop(&c->write_timer);
	if (c->tp.fd >= 0) {
		tp_close(&c->tp, false);
		c->metrics->connections_open--;
	}
	av_close_fd(&c->fd);
}

/* The end of the connection for its owner: streams first. */
static void lose(struct av_h2c *c)
{
	if (c->lost)
		return;
	c->lost = true;
	bool connected = c->tp.fd >= 0;
	if (c->error == -EPROTO)
		c->metrics->protocol_errors++;
	if (c->error == -ETIMEDOUT)
		c->metrics->timeouts++;
	if (c->open)
		c->metrics->connections_lost++;
	else
		c->metrics->connect_failures++;
	if (connected && c->error == -EPROTO && !c->blocked) {
		/* The GOAWAY that says why, if the socket takes it. */
		struct iovec iov[OUTPUT_PIECES];
		int n = av_http2_output(c->h2, iov, OUTPUT_PIECES, OUTPUT_BYTES);
		if (n > 0 && tp_writev(&c->tp, iov, n) < 0)
			c->blocked = true;
	}
	shut(c);
	struct av_h2s *s;
	while (!c->freed && (s = AV_LIST_FIRST(&c->streams, struct av_h2s, link)))
		stream_close(s, s->failed ? s->failed : s->cancelled ? -ECANCELED : c->error);
	if (!c->freed && c->cfg.on_close)
		c->cfg.on_close(c->cfg.ctx, c, c->error);
}

/* ---- events of the codec ---- */

static struct av_h2s *of(struct av_http2_stream *stream)
{
	struct av_h2s *s = av_http2_stream_user(stream);
	return s && !s->cancelled && !s->failed ? s : NULL;
}

static void on_head(void *ctx, struct av_http2_stream *stream, struct av_http_head *head, bool end)
{
	struct av_h2s *s = of(stream);
	(void)ctx;
	(void)end;
	if (s && s->handler->on_response)
		s->handler->on_response(s->ctx, s, head);
}

static void on_body(void *ctx, struct av_http2_stream *stream, const uint8_t *p, size_t n)
{
	struct av_h2s *s = of(stream);
	(void)ctx;
	if (!s) {
		av_http2_consume(stream, n);
		return;
	}
	bool consume = s->auto_consume || !s->handler->on_data;
	if (s->handler->on_data)
		s->handler->on_data(s->ctx, s, av_str_n((const char *)p, n));
	/* The handler may have freed the connection, and s with it; the codec's stream lives on. */
	if (consume)
		av_http2_consume(stream, n);
}

static void on_end(void *ctx, struct av_http2_stream *stream, struct av_http_head *trailers)
{
	struct av_h2s *s = of(stream);
	(void)ctx;
	(void)trailers;
	if (!s)
		return;
	s->complete = true;
	if (s->handler->on_end)
		s->handler->on_end(s->ctx, s);
}

static void on_drain(void *ctx, struct av_http2_stream *stream)
{
	struct av_h2s *s = of(stream);
	(void)ctx;
	if (!s || !s->want_drain || av_http2_buffered(stream) > s->conn->cfg.low_watermark_bytes)
		return;
	s->want_drain = false;
	if (!s->ended && s->handler->on_writable)
		s->handler->on_writable(s->ctx, s);
}

static int status_of(const struct av_h2c *c, const struct av_h2s *s, uint32_t error)
{
	if (s->failed)
		return s->failed;
	if (s->cancelled)
		return -ECANCELED;
	if (error == AV_HTTP2_NO_ERROR && s->complete)
		return 0;
	if (error == AV_HTTP2_REFUSED_STREAM)
		return -EREMOTEIO;
	return c->error ? c->error : -ECONNRESET;
}

static void on_close(void *ctx, struct av_http2_stream *stream, uint32_t error)
{
	struct av_h2c *c = ctx;
	struct av_h2s *s = av_http2_stream_user(stream);
	if (s)
		stream_close(s, status_of(c, s, error));
}

static void on_goaway(void *ctx, uint32_t error, int32_t last_id)
{
	struct av_h2c *c = ctx;
	(void)error;
	(void)last_id;
	c->going = true;
}

static void on_pong(void *ctx, uint64_t opaque)
{
	(void)ctx;
	(void)opaque; /* any byte received counts as a sign of life */
}

static const struct av_http2_events events = {
    .on_head = on_head,
    .on_body = on_body,
    .on_end = on_end,
    .on_drain = on_drain,
    .on_close = on_close,
    .on_goaway = on_goaway,
    .on_pong = on_pong,
};

/* ---- socket ---- */

static void wrote(struct av_h2c *c, size_t n, bool left)
{
	c->metrics->bytes_out += n;
	c->blocked = left;
	if (!left)
		av_timer_stop(&c->write_timer);
	else if (!c->held && (n > 0 || !av_timer_active(&c->write_timer)))
		av_timer_start(&c->write_timer, c->cfg.write_timeout_ms);
}

static void received(struct av_h2c *c, const char *p, size_t n)
{
	struct av_err err = {0};
	c->metrics->bytes_in += n;
	c->pinging = false;
	int rc = av_http2_recv(c->h2, p, n, &err);
	if (rc < 0 && !c->freed)
		fail(c, rc);
	if (c->freed || c->error || c->open)
		return;
	c->open = true;
	av_timer_stop(&c->connect_timer);
	if (c->cfg.on_open)
		c->cfg.on_open(c->cfg.ctx, c);
}

static void read_some(struct av_h2c *c)
{
	for (int i = 0; i < READS_PER_EVENT && !c->error && !c->freed; i++) {
		char *scratch = c->loop->scratch;
		ssize_t r = tp_read(&c->tp, scratch, LOOP_SCRATCH_BYTES);
		if (r == -EAGAIN)
			return;
		if (r <= 0) {
			fail(c, -ECONNRESET);
			return;
		}
		received(c, scratch, (size_t)r);
		if (r < LOOP_SCRATCH_BYTES)
			return;
	}
}

static void flush(struct av_h2c *c)
{
	for (int i = 0; i < OUTPUTS_PER_FLUSH; i++) {
		if (c->blocked || c->error || c->freed || c->tp.fd < 0)
			return;
		struct iovec iov[OUTPUT_PIECES];
		int n = av_http2_output(c->h2, iov, OUTPUT_PIECES, OUTPUT_BYTES);
		if (n < 0)
			fail(c, n);
		if (n <= 0 || c->freed)
			return;
		size_t total = 0;
		for (int k = 0; k < n; k++)
			total += iov[k].iov_len;
		ssize_t r = tp_writev(&c->tp, iov, n);
		if (r < 0 && r != -EAGAIN) {
			/* An answer that the peer gave before it went still counts. */
			c->blocked = true;
			read_some(c);
			if (!c->freed)
				fail(c, -ECONNRESET);
			return;
		}
		size_t done = r > 0 ? (size_t)r : 0;
		wrote(c, done, done < total);
		av_http2_output_done(c->h2, done);
	}
	c->blocked = true; /* let others run; the socket is writable at the next poll */
}

/* ---- entry points ---- */

static void settle(struct av_h2c *c)
{
	/* First, so that what callbacks schedule from here on is not lost. */
	av_defer_stop(&c->work);
	if (!c->error && !c->freed)
		flush(c);
	if (!c->error && !c->freed && c->tp.fd >= 0 && av_http2_done(c->h2))
		fail(c, c->going ? -ECONNRESET : -EPROTO); /* without their GOAWAY it was ours */
	if (c->freed)
		return;
	if (c->error) {
		av_defer_stop(&c->work);
		lose(c);
		return;
	}
	if (c->tp.fd < 0)
		return;
	tp_want(&c->tp, TP_READ | (c->blocked ? TP_WRITE : 0));
	if (c->n_streams == 0)
		av_timer_stop(&c->ping_timer);
	else if (!c->held && !av_timer_active(&c->ping_timer))
		av_timer_start(&c->ping_timer, c->cfg.ping_interval_ms);
}

static void on_work(void *ctx)
{
	struct av_h2c *c = ctx;
	enter(c);
	settle(c);
	leave(c);
}

static void on_ready(void *ctx, int ready)
{
	struct av_h2c *c = ctx;
	enter(c);
	if (ready & TP_WRITE)
		c->blocked = false;
	if (ready & (TP_READ | TP_ERROR)) {
		read_some(c);
		if (!c->freed && av_timer_active(&c->ping_timer))
			av_timer_start(&c->ping_timer, c->cfg.ping_interval_ms);
	}
	if ((ready & TP_ERROR) && !c->freed)
		fail(c, -ECONNRESET);
	settle(c);
	leave(c);
}

static void on_connect_timeout(void *ctx)
{
	struct av_h2c *c = ctx;
	enter(c);
	fail(c, -ETIMEDOUT);
	settle(c);
	leave(c);
}

/* Silence with streams open: ask once, then give up. */
static void on_ping_timer(void *ctx)
{
	struct av_h2c *c = ctx;
	enter(c);
	if (c->pinging) {
		fail(c, -ETIMEDOUT);
	} else if (av_http2_ping(c->h2, 0) == 0) {
		c->pinging = true;
		av_timer_start(&c->ping_timer, c->cfg.ping_timeout_ms);
	}
	settle(c);
	leave(c);
}

static void on_write_timeout(void *ctx)
{
	on_connect_timeout(ctx);
}

/* ---- connecting ---- */

static int attach(struct av_h2c *c, int fd)
{
	int rc = tp_open(&c->tp, c->loop, fd, on_ready, c);
	if (rc < 0) {
		c->tp.fd = -1;
		return rc;
	}
	c->metrics->connections_open++;
	/* A larger buffer lets one write of ours fill what one read of the peer takes. */
	int bytes = 512 * 1024;
	setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes));
	tp_want(&c->tp, TP_READ);
	return 0;
}

static void try_connect(void *ctx)
{
	struct av_h2c *c = ctx;
	enter(c);
	if (connect(c->fd, (struct sockaddr *)&c->addr, sizeof(c->addr)) == 0) {
		int fd = AV_TAKE_FD(c->fd);
		int rc = attach(c, fd);
		if (rc < 0) {
			av_close_fd(&fd);
			fail(c, rc);
		}
	} else if (errno == EAGAIN || errno == EINTR) {
		av_timer_start(&c->retry_timer, RETRY_MS);
	} else {
		fail(c, -errno);
	}
	schedule(c);
	leave(c);
}

static uint32_t or_default(uint32_t v, uint32_t def)
{
	return v ? v : def;
}

static struct av_h2c *conn_make(struct av_loop *loop, const struct av_h2c_config *config)
{
	struct av_h2c *c = calloc(1, sizeof(*c));
	if (!c)
		return NULL;
	c->loop = loop;
	c->cfg = *config;
	c->cfg.connect_timeout_ms = or_default(c->cfg.connect_timeout_ms, 5000);
	c->cfg.ping_interval_ms = or_default(c->cfg.ping_interval_ms, 15000);
	c->cfg.ping_timeout_ms = or_default(c->cfg.ping_timeout_ms, 15000);
	c->cfg.write_timeout_ms = or_default(c->cfg.write_timeout_ms, 30000);
	c->cfg.stream_window_bytes = or_default(c->cfg.stream_window_bytes, 1024 * 1024);
	c->cfg.high_watermark_bytes = or_default(c->cfg.high_watermark_bytes, 1024 * 1024);
	c->cfg.low_watermark_bytes =
	    or_default(c->cfg.low_watermark_bytes, c->cfg.high_watermark_bytes / 4);
	c->metrics = config->metrics ? config->metrics : &c->own;
	c->fd = c->tp.fd = -1;
	av_list_init(&c->streams);
	av_defer_init(&c->work, on_work, c);
	av_timer_init(&c->connect_timer, loop, on_connect_timeout, c);
	av_timer_init(&c->retry_timer, loop, try_connect, c);
	av_timer_init(&c->ping_timer, loop, on_ping_timer, c);
	av_timer_init(&c->write_timer, loop, on_write_timeout, c);
	struct av_http2_config h2 = AV_HTTP2_CONFIG_DEFAULT;
	h2.limits.head_bytes = 65536;
	h2.max_streams = 1; /* the peer opens none */
	h2.window = c->cfg.stream_window_bytes;
	h2.connection_window = or_default(
	    c->cfg.connection_window_bytes, 4 * AV_MAX(c->cfg.stream_window_bytes, 1024U * 1024));
	/* Each stream is some client's; one that does not read must not stop the others. */
	h2.own_windows = true;
	h2.low_mark = c->cfg.low_watermark_bytes;
	c->h2 = av_http2_new_client(&h2, &events, c);
	if (!c->h2) {
		free(c);
		return NULL;
	}
	c->metrics->connects++;
	av_timer_start(&c->connect_timer, c->cfg.connect_timeout_ms);
	return c;
}

int av_h2c_open(
    struct av_loop *loop, const char *path, const struct av_h2c_config *config, struct av_h2c **ret)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int rc = av_str_copy(addr.sun_path, sizeof(addr.sun_path), av_str_c(path));
	if (rc < 0)
		return rc;
	AV_CLEANUP(av_closep)
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	struct av_h2c *c = conn_make(loop, config);
	if (!c)
		return -ENOMEM;
	c->addr = addr;
	c->fd = AV_TAKE_FD(fd);
	try_connect(c);
	*ret = c;
	return 0;
}

int av_h2c_adopt(
    struct av_loop *loop, int fd, const struct av_h2c_config *config, struct av_h2c **ret)
{
	int rc = av_set_nonblock(fd, true);
	if (rc < 0)
		return rc;
	struct av_h2c *c = conn_make(loop, config);
	if (!c)
		return -ENOMEM;
	rc = attach(c, fd);
	if (rc < 0) {
		av_timer_stop(&c->connect_timer);
		conn_free(c);
		return rc;
	}
	schedule(c);
	*ret = c;
	return 0;
}

void av_h2c_free(struct av_h2c *c)
{
	if (!c || c->freed)
		return;
	c->freed = true;
	av_defer_stop(&c->work);
	/* An orderly end: the peer reads our last resets and FIN. */
	shut(c);
	c->depth++; /* a stream's on_close may end in leave() */
	struct av_h2s *s;
	while ((s = AV_LIST_FIRST(&c->streams, struct av_h2s, link)))
		stream_close(s, -ECANCELED);
	leave(c);
}

void av_h2c_hold(struct av_h2c *c, bool held)
{
	if (c->held == held || c->freed || c->error)
		return;
	c->held = held;
	c->pinging = false;
	if (held) {
		av_timer_stop(&c->connect_timer);
		av_timer_stop(&c->ping_timer);
		av_timer_stop(&c->write_timer);
		return;
	}
	if (!c->open)
		av_timer_start(&c->connect_timer, c->cfg.connect_timeout_ms);
	if (c->n_streams)
		av_timer_start(&c->ping_timer, c->cfg.ping_interval_ms);
	if (c->blocked)
		av_timer_start(&c->write_timer, c->cfg.write_timeout_ms);
}

bool av_h2c_usable(const struct av_h2c *c)
{
	return !c->error && !c->going && !c->freed;
}

size_t av_h2c_streams(const struct av_h2c *c)
{
	return c->n_streams;
}

struct av_loop *av_h2c_loop(const struct av_h2c *c)
{
	return c->loop;
}

/* ---- streams ---- */

static int make_head(const struct av_h2s_request *r, struct av_http_head *head)
{
	bool connect = av_str_eq_c(r->method, "CONNECT");
	struct av_str authority = r->authority.n ? r->authority : AV_STR("sandbox");
	int rc = av_http_head_request(head, r->method, authority, connect ? AV_STR("") : r->path);
	for (size_t i = 0; i < r->n_headers && rc == 0; i++)
		rc = av_http_head_add(head, r->headers[i].name, r->headers[i].value);
	if (rc == 0 && r->body.n > 0)
		head->content_length = (int64_t)r->body.n;
	return rc;
}

int av_h2c_request(struct av_h2c *c, const struct av_h2s_request *request,
    const struct av_h2s_handler *handler, void *ctx, struct av_h2s **ret)
{
	/* Between a failure and on_close a request is still taken, and fails with the same reason.
	 */
	if (c->lost || c->going || c->freed)
		return -EPIPE;
	struct av_h2s *s = calloc(1, sizeof(*s));
	if (!s)
		return -ENOMEM;
	*s = (struct av_h2s){
	    .conn = c,
	    .handler = handler,
	    .ctx = ctx,
	    .has_body = request->has_body,
	    .auto_consume = request->auto_consume,
	};
	av_list_init(&s->link);
	struct av_http_head head;
	av_http_head_init(&head);
	int rc = make_head(request, &head);
	bool end = !request->has_body && request->body.n == 0;
	if (rc == 0)
		rc = av_http2_request(c->h2, &head, end, s, &s->stream);
	av_http_head_clear(&head);
	if (rc == 0 && request->body.n > 0) {
		rc = av_http2_write(s->stream, request->body.p, request->body.n);
		if (rc == 0 && !request->has_body)
			rc = av_http2_end(s->stream, NULL);
		if (rc < 0) {
			av_http2_stream_set_user(s->stream, NULL);
			av_http2_reset(s->stream, AV_HTTP2_CANCEL);
		}
	}
	schedule(c);
	if (rc < 0) {
		free(s);
		return rc;
	}
	s->ended = !request->has_body;
	av_list_append(&c->streams, &s->link);
	c->n_streams++;
	c->metrics->streams_total++;
	c->metrics->streams_open++;
	if (ret)
		*ret = s;
	return 0;
}

static void reset(struct av_h2s *s, int status)
{
	if (s->cancelled || s->failed)
		return;
	if (status == -ECANCELED)
		s->cancelled = true;
	else
		s->failed = status;
	if (s->stream)
		av_http2_reset(s->stream, AV_HTTP2_CANCEL);
	schedule(s->conn);
}

int av_h2s_write(struct av_h2s *s, struct av_str data)
{
	struct av_h2c *c = s->conn;
	if (!s->has_body)
		return -EINVAL;
	if (!s->stream || s->ended || s->cancelled || s->failed || c->error)
		return -EPIPE;
	if (data.n == 0)
		return 0;
	if (av_http2_buffered(s->stream) + data.n > PENDING_MAX) {
		reset(s, -ENOBUFS);
		return -ENOBUFS;
	}
	int rc = av_http2_write(s->stream, data.p, data.n);
	if (rc < 0)
		return rc;
	schedule(c);
	if (av_http2_buffered(s->stream) <= c->cfg.high_watermark_bytes)
		return 0;
	s->want_drain = true;
	return 1;
}

void av_h2s_end(struct av_h2s *s)
{
	if (!s->stream || s->ended || s->cancelled || s->failed || s->conn->error)
		return;
	s->ended = true;
	int rc = av_http2_end(s->stream, NULL);
	if (rc == -ENOMEM)
		reset(s, rc);
	schedule(s->conn);
}

void av_h2s_flush(struct av_h2s *s)
{
	struct av_h2c *c = s->conn;
	if (!s->stream || c->depth > 0)
		return;
	enter(c);
	flush(c);
	leave(c);
}

void av_h2s_cancel(struct av_h2s *s)
{
	reset(s, -ECANCELED);
}

void av_h2s_consume(struct av_h2s *s, size_t n)
{
	if (!s->stream)
		return;
	av_http2_consume(s->stream, n);
	schedule(s->conn);
}

size_t av_h2s_pending(const struct av_h2s *s)
{
	return s->stream ? av_http2_buffered(s->stream) : 0;
}

struct av_h2c *av_h2s_conn(const struct av_h2s *s)
{
	return s->conn;
}
