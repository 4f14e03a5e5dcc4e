/* SPDX-License-Identifier: Apache-2.0 */
/*
 * socket.c - WebSocket over a CONNECT_ONLY connection of libcurl
 *
 * libcurl makes the connection (names, TLS) and then only carries bytes; the handshake is written
 * and read with proto/http1, the frames with proto/ws. libcurl's own WebSocket support is missing
 * from the versions that distributions ship.
 *
 * Two things are otherwise with TLS: a record that was begun must be offered again as it was, at
 * the same place, hence the copy in `held`; and decrypted bytes may wait inside where no poll(2)
 * sees them, hence `more`.
 */
#include "client/socket.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "base/avtime.h"
#include "base/buf.h"
#include "client/client_internal.h"
#include "proto/http1.h"
#include "proto/ws.h"

#include "base/banned.h"

#define MESSAGE_MAX  (4 * AV_MIB)
#define HIGH_MARK    (1 * AV_MIB)
#define READ_SIZE    (128 * 1024)
#define READS_A_STEP 4
#define TLS_READS    32 /* of one record each */
#define HELD_SIZE    (16 * 1024)

struct av_socket {
	CURL *easy;
	curl_socket_t fd;
	struct av_ws *ws;
	const struct av_socket_events *events;
	void *ctx;
	struct av_buf unread; /* received and not yet taken by the codec */
	bool
	    is_send_broken; /* the peer takes nothing any more; what it sent before is read still */
	bool tls;
	bool more; /* TLS: the last read did not find the end of what is there */
	size_t held_off, held_n;
	char held[HELD_SIZE]; /* TLS: copy of the first bytes that the codec wants sent */
	char read_buffer[READ_SIZE];
};

/* The handshake's answer. */
struct answer {
	const char *key;
	bool has_head;
	int status;
	struct av_err err;  /* why it is not a 101 of ours */
	struct av_buf body; /* of a refusal */
};

static void slist_freep(struct curl_slist **l)
{
	curl_slist_free_all(*l);
}

static void socket_freep(struct av_socket **s)
{
	av_socket_free(*s);
}

static void on_ws_message(void *ctx, enum av_ws_opcode op, const uint8_t *p, size_t n)
{
	struct av_socket *s = ctx;
	s->events->on_message(s->ctx, op == AV_WS_TEXT, p, n);
}

static const struct av_ws_events ws_events = {.on_message = on_ws_message};

static int on_answer_head(void *ctx, struct av_http_head *head)
{
	struct answer *a = ctx;
	if (head->status < 200 && head->status != 101)
		return 0;
	a->has_head = true;
	a->status = head->status;
	if (head->status == 101)
		return av_ws_check_response(head, a->key, &a->err);
	return 0;
}

static int on_answer_body(void *ctx, const uint8_t *p, size_t n)
{
	struct answer *a = ctx;
	return av_buf_append(&a->body, p, n);
}

static int on_answer_end(void *ctx, struct av_http_head *trailers)
{
	(void)ctx, (void)trailers;
	return 0;
}

static const struct av_http1_events answer_events = {
    .on_head = on_answer_head,
    .on_body = on_answer_body,
    .on_end = on_answer_end,
};

/* Waits until the socket is ready or the deadline has passed. */
static int wait_for(
    struct av_client *c, curl_socket_t fd, short events, int64_t deadline_ns, struct av_err *err)
{
	for (;;) {
		if (c->is_canceled && c->is_canceled(c->ctx))
			return av_err_set(err, AV_ERR_CANCELED, "interrupted");
		if (av_mono_ns() >= deadline_ns)
			return av_err_set(
			    err, AV_ERR_UNAVAILABLE, "%s did not answer in time", c->url);
		struct pollfd p = {.fd = fd, .events = events};
		if (poll(&p, 1, CLIENT_CANCEL_MS) > 0)
			return 0;
	}
}

static int send_all(struct av_client *c, struct av_socket *s, struct av_str bytes,
    int64_t deadline_ns, struct av_err *err)
{
	while (bytes.n > 0) {
		size_t n = 0;
		CURLcode code = curl_easy_send(s->easy, bytes.p, bytes.n, &n);
		if (code != CURLE_OK && code != CURLE_AGAIN)
			return client_transport_error(c, s->easy, code, err);
		bytes.p += n;
		bytes.n -= n;
		if (code == CURLE_AGAIN) {
			int r = wait_for(c, s->fd, POLLOUT, deadline_ns, err);
			if (r < 0)
				return r;
		}
	}
	return 0;
}

static int write_handshake(struct av_client *c, const char *path, const char *protocol,
    const char key[static AV_WS_KEY_SIZE], struct av_buf *out, struct av_err *err)
{
	struct av_http_head head;
	av_http_head_init(&head);
	/* scheme://authority[/prefix] */
	struct av_str rest = av_str_c(strstr(c->url, "://") + 3), authority;
	bool has_prefix = av_str_cut(&rest, '/', &authority);
	AV_CLEANUP(av_buf_clear) struct av_buf target = AV_BUF_INIT(16 * AV_KIB);
	av_buf_printf(&target, "%s%.*s%s", has_prefix ? "/" : "", AV_STR_ARG(rest), path);
	int r = av_buf_error(&target);
	if (r == 0)
		r = av_http_head_request(&head, AV_STR("GET"), authority, av_buf_str(&target));
	if (r == 0)
		r = av_ws_request_head(&head, key, protocol);
	if (r == 0)
		r = av_http_head_add_c(&head, "user-agent", c->user_agent);
	if (r == 0 && c->api_key)
		r = av_http_head_add_c(&head, "x-api-key", c->api_key);
	if (r == 0)
		r = av_http1_write_head(out, &head);
	av_http_head_clear(&head);
	if (r < 0)
		return av_err_sys(err, AV_ERR_INVALID, r, "request for a stream at %s", c->url);
	return 0;
}

/* Reads until the head is there (and, of a refusal, the body). Bytes behind a 101 stay in unread.
 */
static int read_answer(struct av_client *c, struct av_socket *s, struct answer *a,
    int64_t deadline_ns, struct av_err *err)
{
	struct av_http_limits limits = AV_HTTP_LIMITS_DEFAULT;
	AV_CLEANUP(av_http1_freep)
	struct av_http1 *parser = av_http1_new_response(&limits, &answer_events, a);
	if (!parser)
		return av_err_sys(err, AV_ERR_NO_MEMORY, ENOMEM, "handshake");
	av_http1_expect(parser, AV_STR("GET"));
	for (;;) {
		size_t n = 0, used = 0;
		CURLcode code = curl_easy_recv(s->easy, s->read_buffer, READ_SIZE, &n);
		if (code == CURLE_AGAIN) {
			int r = wait_for(c, s->fd, POLLIN, deadline_ns, err);
			if (r < 0)
				return r;
			continue;
		}
		if (code != CURLE_OK)
			return client_transport_error(c, s->easy, code, err);
		if (n == 0)
			return a->has_head
			           ? 0
			           : av_err_set(err, AV_ERR_UNAVAILABLE,
			                 "%s closed the connection during the handshake", c->url);
		int r = av_http1_feed(parser, s->read_buffer, n, &used, err);
		if (r < 0) {
			if (a->err.kind != AV_ERR_NONE && err)
				*err = a->err;
			return r;
		}
		if (r == AV_HTTP1_TUNNEL)
			return av_buf_append(&s->unread, s->read_buffer + used, n - used);
		if (r == AV_HTTP1_DONE)
			return 0;
	}
}

static int handshake(struct av_client *c, struct av_socket *s, const char *path,
    const char *protocol, struct av_err *err)
{
	char key[AV_WS_KEY_SIZE];
	AV_CLEANUP(av_buf_clear) struct av_buf head = AV_BUF_INIT(32 * AV_KIB);
	struct answer a = {.key = key, .body = AV_BUF_INIT(AV_MIB)};
	int64_t deadline_ns = av_mono_ns() + CLIENT_CONNECT_MS * AV_NS_PER_MS;

	av_ws_make_key(key);
	int r = write_handshake(c, path, protocol, key, &head, err);
	if (r == 0)
		r = send_all(c, s, av_buf_str(&head), deadline_ns, err);
	if (r == 0)
		r = read_answer(c, s, &a, deadline_ns, err);
	if (r == 0 && a.status != 101)
		r = client_reply_error(a.status, av_buf_str(&a.body), err);
	c->last_status = a.status;
	av_buf_clear(&a.body);
	return r;
}

int av_socket_open(struct av_client *c, const char *path, const char *protocol,
    const struct av_socket_events *events, void *ctx, struct av_socket **ret, struct av_err *err)
{
	AV_CLEANUP(slist_freep) struct curl_slist *headers = NULL;
	AV_CLEANUP(socket_freep) struct av_socket *s = calloc(1, sizeof(*s));
	if (!s)
		return av_err_sys(err, AV_ERR_NO_MEMORY, ENOMEM, "stream");
	s->events = events;
	s->ctx = ctx;
	s->unread = AV_BUF_INIT(2 * READ_SIZE);
	s->tls = s->more = client_is_tls(c);
	s->easy = curl_easy_init();
	struct av_ws_config config = {
	    .client = true, .max_message = MESSAGE_MAX, .high_mark = HIGH_MARK};
	s->ws = av_ws_new(&config, &ws_events, s);
	if (!s->easy || !s->ws)
		return av_err_sys(err, AV_ERR_NO_MEMORY, ENOMEM, "stream");

	int r = client_prepare(c, s->easy, path, &headers, err);
	if (r < 0)
		return r;
	curl_easy_setopt(s->easy, CURLOPT_CONNECT_ONLY, 1L);
	CURLcode code = curl_easy_perform(s->easy);
	/* The buffer for messages belongs to the client; the stream may outlive it. */
	curl_easy_setopt(s->easy, CURLOPT_ERRORBUFFER, NULL);
	if (code != CURLE_OK)
		return client_transport_error(c, s->easy, code, err);
	s->fd = CURL_SOCKET_BAD;
	curl_easy_getinfo(s->easy, CURLINFO_ACTIVESOCKET, &s->fd);
	if (s->fd == CURL_SOCKET_BAD)
		return av_err_set(err, AV_ERR_UNAVAILABLE, "the connection to %s broke", c->url);
	r = handshake(c, s, path, protocol, err);
	if (r < 0)
		return r;
	*ret = AV_TAKE_PTR(s);
	return 0;
}

void av_socket_free(struct av_socket *s)
{
	if (!s)
		return;
	av_ws_free(s->ws);
	if (s->easy)
		curl_easy_cleanup(s->easy);
	av_buf_clear(&s->unread);
	free(s);
}

int av_socket_fd(const struct av_socket *s)
{
	return s->fd;
}

bool av_socket_wants_write(const struct av_socket *s)
{
	return av_ws_buffered(s->ws) > 0 && !s->is_send_broken;
}

size_t av_socket_buffered(const struct av_socket *s)
{
	return av_ws_buffered(s->ws);
}

int av_socket_send(struct av_socket *s, struct av_str head, struct av_str body)
{
	return av_ws_send2(s->ws, AV_WS_BINARY, head, body);
}

void av_socket_close(struct av_socket *s)
{
	av_ws_close(s->ws, AV_WS_CLOSE_NORMAL, "");
}

bool av_socket_has_pending(const struct av_socket *s)
{
	return s->unread.n > 0 || s->more;
}

/* What is to be sent next. */
static struct av_str next_output(struct av_socket *s)
{
	struct av_str out = av_ws_output(s->ws);
	if (!s->tls || out.n == 0)
		return out;
	if (s->held_n == 0) {
		s->held_off = 0;
		s->held_n = AV_MIN(out.n, sizeof(s->held));
		memcpy(s->held, out.p, s->held_n);
	}
	return av_str_n(s->held + s->held_off, s->held_n);
}

static void output_done(struct av_socket *s, size_t n)
{
	av_ws_output_done(s->ws, n);
	if (!s->tls)
		return;
	s->held_off += n;
	s->held_n -= n;
}

/* A daemon that closed the connection sent its reason before: reading will tell. */
static void flush(struct av_socket *s)
{
	while (!s->is_send_broken) {
		struct av_str out = next_output(s);
		size_t n = 0;
		if (out.n == 0)
			return;
		CURLcode code = curl_easy_send(s->easy, out.p, out.n, &n);
		if (code == CURLE_AGAIN)
			return;
		if (code != CURLE_OK)
			s->is_send_broken = true;
		else
			output_done(s, n);
	}
}

/* Gives bytes to the codec; what it does not take now is kept. */
static int digest(struct av_socket *s, const char *p, size_t n, struct av_err *err)
{
	ssize_t used = av_ws_recv(s->ws, p, n);
	if (used < 0)
		return av_err_sys(
		    err, AV_ERR_UNAVAILABLE, (int)used, "the daemon broke the WebSocket protocol");
	if ((size_t)used < n && !av_ws_close_received(s->ws))
		return av_buf_append(&s->unread, p + used, n - (size_t)used);
	return 0;
}

static int read_some(struct av_socket *s, struct av_err *err)
{
	int reads = s->tls ? TLS_READS : READS_A_STEP;
	s->more = false;
	if (s->unread.n > 0) {
		struct av_buf old = s->unread;
		s->unread = AV_BUF_INIT(2 * READ_SIZE);
		int r = digest(s, old.p + old.off, old.n, err);
		av_buf_clear(&old);
		if (r < 0 || s->unread.n > 0)
			return r;
	}
	for (int i = 0; i < reads; i++) {
		size_t n = 0;
		if (av_ws_close_received(s->ws))
			return 1;
		CURLcode code = curl_easy_recv(s->easy, s->read_buffer, READ_SIZE, &n);
		if (code == CURLE_AGAIN)
			return 0;
		if (code != CURLE_OK || n == 0)
			return av_err_set(err, AV_ERR_UNAVAILABLE,
			    "the daemon closed the connection in the middle of a stream");
		int r = digest(s, s->read_buffer, n, err);
		if (r < 0 || s->unread.n > 0)
			return r;
	}
	s->more = s->tls;
	return av_ws_close_received(s->ws) ? 1 : 0;
}

int av_socket_step(struct av_socket *s, bool may_read, struct av_err *err)
{
	flush(s);
	int r = may_read ? read_some(s, err) : 0;
	if (r >= 0)
		flush(s);
	return r;
}
