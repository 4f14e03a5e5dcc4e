/* SPDX-License-Identifier: Apache-2.0 */
/*
 * server.c - accepts connections on the agent's socket and runs HTTP/2 on them
 *
 * Theory of operation
 *
 * A connection is a descriptor, a poll handle and a session of proto/http2. Reading goes through
 * one buffer that all connections share; what a session has to send is collected over one turn of
 * the loop and flushed before the loop sleeps (prepare) and after its events were handled (check),
 * so that many small events become few writes.
 *
 * Requests of a connection are dispatched in the order of their heads, except that they wait while
 * an /init is being received: the daemon sends it first and need not wait for its answer, yet
 * HTTP/2 may deliver later heads before its body. What arrives for a waiting request is kept
 * (bounded by the stream's window) and replayed.
 */
#include "agent/server.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "agent/request.h"
#include "base/fd.h"

#include "base/banned.h"

#define READ_BYTES      ((size_t)128 * 1024) /* one read, shared by all connections */
#define READS_PER_TURN  4
#define WRITE_IOVS      32
#define WRITE_BYTES     ((size_t)256 * 1024)
#define WRITES_PER_TURN 4
#define FLUSH_ROUNDS    8
#define BREATH_MS       100

struct server {
	struct agent *agent;
	uv_poll_t listener;
	uv_timer_t breath; /* until accepting is tried again */
	uv_prepare_t prepare;
	uv_check_t check;
	int listen_fd; /* -1: none */
	bool accepting;
	bool held;            /* no connection is read from */
	struct av_list conns; /* of struct conn */
	size_t nconns;
	struct av_list turns; /* of struct request: those that wait for on_turn */
	struct av_list dirty; /* of struct conn: those that may have something to send */
	char *read_buf;       /* READ_BYTES, made on first use */
};

struct conn {
	struct av_list node, dirty;
	struct server *server;
	struct av_http2 *session; /* owned; NULL when closing */
	uv_poll_t poll;
	int fd;
	int events;              /* what poll waits for */
	bool blocked;            /* the socket took no more */
	bool failed;             /* close when the output is written */
	size_t inits;            /* POST /init requests being received */
	struct av_list deferred; /* of struct request */
};

/* --- requests --- */

static void start_request(struct request *rq)
{
	/* What came while it waited; the handler may want rq->body for itself. */
	AV_CLEANUP(av_buf_clear) struct av_buf held = rq->body;

	av_buf_init(&rq->body, 1);
	request_dispatch(rq);
	if (held.n)
		rq->ops->on_body(rq, (const uint8_t *)held.p + held.off, held.n);
	if (rq->body_ended && rq->ops->on_end)
		rq->ops->on_end(rq);
}

static void defer_body(struct request *rq, const uint8_t *p, size_t n)
{
	if (av_buf_append(&rq->body, p, n) < 0)
		request_reset(rq, AV_HTTP2_ENHANCE_YOUR_CALM);
}

static const struct request_ops deferred_ops = {.on_body = defer_body};

static void on_head(void *ctx, struct av_http2_stream *s, struct av_http_head *head, bool end)
{
	struct conn *c = ctx;
	struct request *rq = calloc(1, sizeof(*rq));

	if (!rq) {
		av_http2_reset(s, AV_HTTP2_REFUSED_STREAM);
		return;
	}
	*rq = (struct request){
	    .agent = c->server->agent, .conn = c, .stream = s, .body_ended = false};
	av_list_init(&rq->deferred);
	av_list_init(&rq->turn);
	av_http_head_init(&rq->head);
	av_http_head_move(&rq->head, head);
	av_http_split_target(rq->head.target, &rq->path, &rq->query);
	av_http2_stream_set_user(s, rq);
	if (request_is_init(rq) && !end) {
		c->inits++;
	} else if (c->inits) {
		av_buf_init(&rq->body, AV_HTTP2_CONFIG_DEFAULT.window);
		rq->ops = &deferred_ops;
		av_list_append(&c->deferred, &rq->deferred);
		return;
	}
	request_dispatch(rq);
}

static void on_body(void *ctx, struct av_http2_stream *s, const uint8_t *p, size_t n)
{
	struct request *rq = av_http2_stream_user(s);

	(void)ctx;
	if (rq)
		rq->ops->on_body(rq, p, n);
}

static void on_end(void *ctx, struct av_http2_stream *s, struct av_http_head *trailers)
{
	struct request *rq = av_http2_stream_user(s);

	(void)ctx;
	(void)trailers;
	if (!rq)
		return;
	rq->body_ended = true;
	if (rq->ops->on_end)
		rq->ops->on_end(rq);
	if (request_is_init(rq))
		server_init_done(rq->conn);
}

static void on_drain(void *ctx, struct av_http2_stream *s)
{
	struct request *rq = av_http2_stream_user(s);

	(void)ctx;
	if (rq && rq->ops->on_drain)
		rq->ops->on_drain(rq);
}

static void on_close(void *ctx, struct av_http2_stream *s, uint32_t error)
{
	struct request *rq = av_http2_stream_user(s);
	struct conn *c = ctx;

	if (!rq)
		return;
	av_http2_stream_set_user(s, NULL);
	if (request_is_init(rq) && !rq->body_ended)
		server_init_done(c);
	if (rq->ops->on_close)
		rq->ops->on_close(rq, error);
	request_clear(rq);
	free(rq);
}

static const struct av_http2_events session_events = {
    .on_head = on_head,
    .on_body = on_body,
    .on_end = on_end,
    .on_drain = on_drain,
    .on_close = on_close,
};

void server_init_done(struct conn *c)
{
	struct request *rq;

	if (c->inits)
		c->inits--;
	while (c->inits == 0 && (rq = AV_LIST_FIRST(&c->deferred, struct request, deferred))) {
		av_list_remove(&rq->deferred);
		start_request(rq);
	}
}

/* --- connections --- */

static void accept_again(struct server *s);

static void on_conn_closed(uv_handle_t *h)
{
	struct conn *c = AV_CONTAINER_OF(h, struct conn, poll);
	struct server *s = c->server;

	s->nconns--;
	free(c);
	accept_again(s);
}

static void conn_close(struct conn *c)
{
	struct av_http2 *session = AV_TAKE_PTR(c->session);

	if (!session)
		return;
	/* Every stream hears on_close from within; handlers may mark the connection meanwhile. */
	av_http2_free(session);
	av_list_remove(&c->dirty);
	av_list_remove(&c->node);
	uv_poll_stop(&c->poll);
	av_close_fd(&c->fd);
	uv_close((uv_handle_t *)&c->poll, on_conn_closed);
}

static void on_conn(uv_poll_t *poll, int status, int events);

static void conn_poll(struct conn *c, int events)
{
	if (events == c->events)
		return;
	c->events = events;
	uv_poll_start(&c->poll, events, on_conn);
}

/* Writes until the socket or the turn's share is used up. */
static void conn_flush(struct conn *c)
{
	struct iovec iov[WRITE_IOVS];

	for (int i = 0; i < WRITES_PER_TURN && !c->blocked; i++) {
		int n = av_http2_output(c->session, iov, WRITE_IOVS, WRITE_BYTES);
		ssize_t done;

		if (n == 0)
			break;
		done = n < 0 ? n : writev(c->fd, iov, n);
		if (done < 0 && n > 0 && errno == EINTR)
			continue;
		if (done < 0 && n > 0 && errno == EAGAIN) {
			c->blocked = true;
			break;
		}
		if (done < 0) {
			conn_close(c);
			return;
		}
		av_http2_output_done(c->session, (size_t)done);
	}
	if (!c->blocked && (c->failed || av_http2_done(c->session)) &&
	    !av_http2_want_write(c->session)) {
		conn_close(c);
		return;
	}
	/* Still wanting without being blocked: the turn was used up, so come back through poll. */
	conn_poll(c, (c->failed || c->server->held ? 0 : UV_READABLE) |
	                 (c->blocked || av_http2_want_write(c->session) ? UV_WRITABLE : 0));
}

static void conn_read(struct conn *c)
{
	struct server *s = c->server;
	char *buf = s->read_buf ? s->read_buf : malloc(READ_BYTES);

	/* Without memory the bytes wait in the socket. */
	s->read_buf = buf;
	for (int i = 0; buf && i < READS_PER_TURN; i++) {
		ssize_t n = read(c->fd, buf, READ_BYTES);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			return;
		if (n <= 0) {
			conn_close(c);
			return;
		}
		if (av_http2_recv(c->session, buf, (size_t)n, NULL) < 0) {
			c->failed = true;
			return;
		}
		if ((size_t)n < READ_BYTES)
			return;
	}
}

static void on_conn(uv_poll_t *poll, int status, int events)
{
	struct conn *c = AV_CONTAINER_OF(poll, struct conn, poll);

	if (status < 0) {
		conn_close(c);
		return;
	}
	if (events & UV_WRITABLE)
		c->blocked = false;
	server_mark(c);
	if (events & UV_READABLE && !c->server->held)
		conn_read(c);
}

void server_mark(struct conn *c)
{
	if (c->session && av_list_empty(&c->dirty))
		av_list_append(&c->server->dirty, &c->dirty);
}

void server_want_turn(struct conn *c, struct av_list *node)
{
	if (av_list_empty(node))
		av_list_append(&c->server->turns, node);
}

static void run_turns(struct server *s)
{
	struct request *rq;

	while ((rq = AV_LIST_FIRST(&s->turns, struct request, turn))) {
		av_list_remove(&rq->turn);
		if (rq->ops->on_turn)
			rq->ops->on_turn(rq);
	}
}

/* Flushing has events that may mark other connections: a few rounds, then the rest is left to poll,
 * so that two of them cannot keep the loop from everything else. */
static void flush_dirty(struct server *s)
{
	struct conn *c;

	for (int round = 0; round < FLUSH_ROUNDS && !av_list_empty(&s->dirty); round++) {
		struct av_list now;

		av_list_init(&now);
		while ((c = AV_LIST_FIRST(&s->dirty, struct conn, dirty))) {
			av_list_remove(&c->dirty);
			av_list_append(&now, &c->dirty);
		}
		while ((c = AV_LIST_FIRST(&now, struct conn, dirty))) {
			av_list_remove(&c->dirty);
			conn_flush(c);
		}
	}
	AV_LIST_FOREACH(c, &s->dirty, struct conn, dirty)
	conn_poll(c, c->events | UV_WRITABLE);
}

static void on_prepare(uv_prepare_t *h)
{
	run_turns(h->data);
	flush_dirty(h->data);
}

static void on_check(uv_check_t *h)
{
	run_turns(h->data);
	flush_dirty(h->data);
}

static int conn_open(struct server *s, int fd)
{
	struct av_http2_config config = AV_HTTP2_CONFIG_DEFAULT;
	struct conn *c = calloc(1, sizeof(*c));
	int r;

	if (!c)
		return -ENOMEM;
	*c = (struct conn){.server = s, .fd = fd};
	av_list_init(&c->node);
	av_list_init(&c->dirty);
	av_list_init(&c->deferred);
	config.low_mark = REQUEST_LOW_MARK;
	config.max_streams = SERVER_STREAMS_MAX;
	/* Processes that do not read their input must not stop each other's; so what may wait for
	 * each is little, and bulk asks for more (request_bulk). */
	config.own_windows = true;
	config.window = SERVER_WINDOW;
	/* The daemon is trusted here: it cancels on behalf of its clients as often as they do, and
	 * pings for days. */
	config.reset_budget = 0;
	config.idle_frame_budget = 0;
	c->session = av_http2_new_server(&config, &session_events, c);
	if (!c->session) {
		free(c);
		return -ENOMEM;
	}
	r = uv_poll_init(&s->agent->loop, &c->poll, fd);
	if (r < 0) {
		av_http2_free(c->session);
		free(c);
		return r;
	}
	s->nconns++;
	av_list_append(&s->conns, &c->node);
	/* What it is to wait for is decided when it is flushed. */
	server_mark(c);
	return 0;
}

int server_adopt(struct server *s, int fd)
{
	return s->nconns < SERVER_CONNS_MAX ? conn_open(s, fd) : -EMFILE;
}

void server_hold(struct server *s, bool on)
{
	struct conn *c;

	s->held = on;
	AV_LIST_FOREACH(c, &s->conns, struct conn, node)
	server_mark(c);
}

static void stop_accepting(struct server *s)
{
	uv_poll_stop(&s->listener);
	s->accepting = false;
}

static void on_breath(uv_timer_t *timer)
{
	accept_again(timer->data);
}

static void on_listener(uv_poll_t *poll, int status, int events)
{
	struct server *s = poll->data;
	int fd;

	(void)status;
	(void)events;
	while (s->nconns < SERVER_CONNS_MAX) {
		fd = accept4(s->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
		if (fd < 0 && errno != EMFILE && errno != ENFILE && errno != ENOMEM &&
		    errno != ENOBUFS)
			return;
		if (fd < 0) {
			/* Poll would come back at once with the same: take a breath. */
			stop_accepting(s);
			uv_timer_start(&s->breath, on_breath, BREATH_MS, 0);
			return;
		}
		if (conn_open(s, fd) < 0)
			close(fd);
	}
	stop_accepting(s);
}

static void accept_again(struct server *s)
{
	if (s->accepting || s->listen_fd < 0)
		return;
	s->accepting = true;
	uv_poll_start(&s->listener, UV_READABLE, on_listener);
}

int server_open(struct agent *a, int listen_fd, struct server **ret)
{
	struct server *s = calloc(1, sizeof(*s));
	int r;

	if (!s)
		return -ENOMEM;
	*s = (struct server){.agent = a, .listen_fd = listen_fd};
	av_list_init(&s->conns);
	av_list_init(&s->dirty);
	av_list_init(&s->turns);
	r = listen_fd < 0 ? 0 : uv_poll_init(&a->loop, &s->listener, listen_fd);
	if (r < 0) {
		free(s);
		return r;
	}
	uv_prepare_init(&a->loop, &s->prepare);
	uv_check_init(&a->loop, &s->check);
	uv_timer_init(&a->loop, &s->breath);
	s->breath.data = s->listener.data = s->prepare.data = s->check.data = s;
	uv_prepare_start(&s->prepare, on_prepare);
	uv_check_start(&s->check, on_check);
	accept_again(s);
	*ret = s;
	return 0;
}

void server_trim(struct server *s)
{
	free(AV_TAKE_PTR(s->read_buf));
}

void server_drain(struct server *s)
{
	struct conn *c;

	if (s->listen_fd >= 0)
		uv_poll_stop(&s->listener);
	s->accepting = true;
	AV_LIST_FOREACH(c, &s->conns, struct conn, node)
	{
		if (!c->session)
			continue;
		av_http2_goaway(c->session, AV_HTTP2_NO_ERROR);
		server_mark(c);
	}
}
