/* SPDX-License-Identifier: Apache-2.0 */
/*
 * stream.c - a WebSocket of the daemon, driven with everything else (see stream.h)
 */
#include "client/stream.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#include "base/ids.h"
#include "base/json.h"
#include "base/num.h"
#include "proto/http1.h"
#include "proto/ws.h"

#include "client/model.h"

#include "base/banned.h"

#define HIGH_MARK    ((size_t)1 << 20)
#define READ_SIZE    ((size_t)32 << 10)
#define READS_A_TURN 4
#define ANSWER_MAX   ((size_t)64 << 10)
#define SEND_SIZE    ((size_t)16 << 10) /* a record of TLS */
#define PART_MS      5000
#define MUTE_MS      2000
#define PAUSE_MIN_MS 200
#define PAUSE_MAX_MS 2000

enum stream_state { WAITING, RESTING, CONNECTING, HANDSHAKE, OPEN, PARTING, OVER };

struct avc_stream {
	struct avc_transfer transfer; /* first */
	struct av_list link;          /* c->streams */
	struct av_list in_line;       /* c->streams_waiting */
	aviary_client *c;
	enum stream_state state;
	bool counted; /* in c->n_streams */
	CURL *easy;
	struct avc_watch watch;
	struct avc_timer
	    timer; /* connecting: its end; resting: too; open: silence; parting: patience */
	struct avc_timer soon; /* what is to be done from the top of the loop */
	struct av_ws *ws;
	struct av_http1 *parser; /* of the handshake's answer */
	struct av_buf out;       /* of the handshake */
	struct av_buf unread;    /* taken from the connection, and not by the codec */
	/* On its way to the connection. TLS takes again only what it was given before, from where
	 * it was, so nothing here moves or grows until it is taken. */
	char sending[SEND_SIZE];
	size_t sending_off, sending_n;
	char *path, *sandbox_id;
	const char *protocol;
	char key[AV_WS_KEY_SIZE];
	int status; /* of the answer */
	int64_t retry_after_ms, give_up_ms;
	int tries;
	struct av_buf answer;
	struct av_err err;
	char curl_error[CURL_ERROR_SIZE];
	int64_t heard_ms; /* when something came last */
	bool asked;       /* the credentials callback, for others */
	bool paused, pinged, closing, wants_drain, mute, freed;
	bool hung_up; /* the other side has: what is there is read, whoever rests */
	const struct avc_stream_events *events;
	void *ctx;
};

/* ---- connections, and the line of those that wait for one ---- */

static void begin(struct avc_stream *s);

static void soon(struct avc_stream *s)
{
	if (av_list_empty(&s->soon.link))
		avc_timer_start(s->c, &s->soon, 0);
}

/* Gives its place to the next. */
static void leave(struct avc_stream *s)
{
	aviary_client *c = s->c;
	struct avc_stream *next;

	av_list_remove(&s->in_line);
	c->n_streams -= s->counted;
	s->counted = false;
	next = AV_LIST_FIRST(&c->streams_waiting, struct avc_stream, in_line);
	if (next && c->n_streams < c->streams_max && !c->closed)
		soon(next);
}

static void disconnect(struct avc_stream *s)
{
	if (s->watch.events)
		(void)avc_watch_set(s->c, &s->watch, 0);
	if (s->easy) {
		(void)curl_multi_remove_handle(s->c->multi, s->easy);
		curl_easy_cleanup(AV_TAKE_PTR(s->easy));
	}
	av_http1_free(AV_TAKE_PTR(s->parser));
	av_buf_clear(&s->out);
	av_buf_clear(&s->unread);
	av_buf_clear(&s->answer);
}

static void stream_destroy(struct avc_stream *s)
{
	av_list_remove(&s->link);
	disconnect(s);
	leave(s);
	avc_timer_stop(&s->timer);
	avc_timer_stop(&s->soon);
	av_ws_free(s->ws);
	free(s->path);
	free(s->sandbox_id);
	free(s);
}

/* ---- the end ---- */

static void finish(struct avc_stream *s, const aviary_error *error)
{
	bool told = s->state == PARTING || s->freed;

	if (s->state == OVER)
		return;
	s->state = OVER;
	avc_timer_stop(&s->timer);
	av_list_remove(&s->in_line);
	if (s->watch.events)
		(void)avc_watch_set(s->c, &s->watch, 0);
	soon(s);
	if (told)
		s->freed = true;
	else
		s->events->on_end(s->ctx, error);
}

static void fail(struct avc_stream *s, int code, int status, const char *name, const char *message)
{
	const aviary_error e = {.code = code,
	    .http_status = status,
	    .retry_after_ms = s->retry_after_ms,
	    .message = message && *message ? message : aviary_code_text(code),
	    .server_code = name ? name : "",
	    .sandbox_id = s->sandbox_id ? s->sandbox_id : "",
	    .request_id = "",
	    .path = ""};

	finish(s, &e);
}

/* Before it was open: whether it is tried again, later. */
static bool try_later(struct avc_stream *s, int code, int status)
{
	bool passing = code == AVIARY_E_UNREACHABLE || code == AVIARY_E_BROKEN || status == 429 ||
	               status == 502 || status == 503;
	int64_t now = avc_now_ms(), pause_ms = PAUSE_MIN_MS;
	uint32_t random;

	if (!passing || s->c->retry_budget_ms < 0 || s->c->closed || s->freed)
		return false;
	if (!s->give_up_ms)
		s->give_up_ms = avc_deadline(s->c->retry_budget_ms);
	for (int i = 1; i < s->tries && pause_ms < PAUSE_MAX_MS; i++)
		pause_ms *= 2;
	av_random(&random, sizeof(random));
	pause_ms += random % (uint32_t)pause_ms;
	pause_ms = AV_MAX(pause_ms, s->retry_after_ms);
	if (now + pause_ms > s->give_up_ms)
		return false;
	s->state = RESTING;
	if (s->watch.events)
		(void)avc_watch_set(s->c, &s->watch, 0);
	avc_timer_start(s->c, &s->timer, pause_ms);
	return true;
}

static void fail_or_rest(
    struct avc_stream *s, int code, int status, const char *name, const char *message)
{
	if (!try_later(s, code, status))
		fail(s, code, status, name, message);
}

/* ---- WebSocket ---- */

static void on_ws_message(void *ctx, enum av_ws_opcode op, const uint8_t *p, size_t n)
{
	struct avc_stream *s = ctx;

	if (s->state == OPEN)
		s->events->on_message(s->ctx, op == AV_WS_TEXT, av_str_n((const char *)p, n));
}

static const struct av_ws_events ws_events = {.on_message = on_ws_message};

static size_t unsent(const struct avc_stream *s)
{
	return av_ws_buffered(s->ws) + s->sending_n;
}

static bool is_deaf(const struct avc_stream *s)
{
	/* Whoever sends pings and reads no pongs is not read until it does. */
	return (s->state == OPEN && s->paused && !s->hung_up) || unsent(s) > HIGH_MARK;
}

static void watch(struct avc_stream *s)
{
	uint32_t events = 0;

	if (s->freed && s->state != PARTING)
		return;
	if (s->state == HANDSHAKE)
		events = (uint32_t)EPOLLIN | (s->out.n > 0 ? (uint32_t)EPOLLOUT : 0);
	else if (s->state == OPEN || s->state == PARTING)
		events = (is_deaf(s) ? (uint32_t)EPOLLRDHUP : (uint32_t)EPOLLIN) |
		         (unsent(s) > 0 && !s->mute ? (uint32_t)EPOLLOUT : 0);
	else
		return;
	if (avc_watch_set(s->c, &s->watch, events) < 0)
		fail(s, AVIARY_E_NO_MEMORY, 0, NULL, NULL);
}

/* Gives bytes to the codec; keeps what it does not take. */
static bool digest(struct avc_stream *s, const char *p, size_t n)
{
	ssize_t used = av_ws_recv(s->ws, p, n);

	if (used < 0) {
		fail(s, used == -ENOMEM ? AVIARY_E_NO_MEMORY : AVIARY_E_PROTOCOL, 0, NULL,
		    used == -EMSGSIZE ? "the server sent a message that is larger than any of ours"
		                      : "the server broke the WebSocket protocol");
		return false;
	}
	if ((size_t)used < n && !av_ws_close_received(s->ws) &&
	    av_buf_append(&s->unread, p + used, n - (size_t)used) < 0) {
		fail(s, AVIARY_E_NO_MEMORY, 0, NULL, NULL);
		return false;
	}
	return s->state == OPEN || s->state == PARTING;
}

static bool reads(const struct avc_stream *s)
{
	return (s->state == OPEN || s->state == PARTING) && !is_deaf(s) &&
	       !av_ws_close_received(s->ws);
}

/* What was kept, first. False: not now. */
static bool digest_kept(struct avc_stream *s)
{
	struct av_buf old = s->unread;
	bool good;

	if (old.n == 0)
		return true;
	s->unread = AV_BUF_INIT(READ_SIZE);
	good = digest(s, old.p + old.off, old.n);
	av_buf_clear(&old);
	return good && s->unread.n == 0;
}

static void read_frames(struct avc_stream *s)
{
	char buf[READ_SIZE];
	int i = 0;

	if (!reads(s) || !digest_kept(s))
		return;
	for (; i < READS_A_TURN && reads(s); i++) {
		size_t n = 0;
		CURLcode r = curl_easy_recv(s->easy, buf, sizeof(buf), &n);

		if (r == CURLE_AGAIN)
			return;
		if (r != CURLE_OK || n == 0) {
			fail(s, AVIARY_E_BROKEN, 0, NULL,
			    "the server closed the connection in the middle of a stream");
			return;
		}
		s->heard_ms = avc_now_ms();
		s->pinged = false;
		if (!digest(s, buf, n) || s->unread.n > 0)
			break;
	}
	/* With TLS what was read already makes no descriptor ready. */
	if (i == READS_A_TURN && reads(s))
		soon(s);
}

/* The next piece, when the one before is taken. */
static void fill_sending(struct avc_stream *s)
{
	struct av_str out = av_ws_output(s->ws);
	size_t n = AV_MIN(out.n, sizeof(s->sending));

	if (s->sending_n > 0 || n == 0)
		return;
	memcpy(s->sending, out.p, n);
	s->sending_off = 0;
	s->sending_n = n;
	av_ws_output_done(s->ws, n);
}

/* Reading tells what the server said before it closed; but not for ever, as it may tell nothing. */
static void fall_mute(struct avc_stream *s)
{
	s->mute = true;
	if (s->state == OPEN)
		avc_timer_start(s->c, &s->timer, MUTE_MS);
}

static void write_frames(struct avc_stream *s)
{
	while ((s->state == OPEN || s->state == PARTING) && !s->mute && unsent(s) > 0) {
		size_t n = 0;
		CURLcode r;

		fill_sending(s);
		r = curl_easy_send(s->easy, s->sending + s->sending_off, s->sending_n, &n);
		if (r == CURLE_AGAIN)
			break;
		if (r != CURLE_OK) {
			fall_mute(s);
			break;
		}
		s->sending_off += n;
		s->sending_n -= n;
	}
	if (s->wants_drain && s->state == OPEN && unsent(s) <= AVC_STREAM_LOW) {
		s->wants_drain = false;
		if (s->events->on_drain)
			s->events->on_drain(s->ctx);
	}
}

/* All that can be done now. */
static void work(struct avc_stream *s)
{
	write_frames(s);
	read_frames(s);
	write_frames(s);
	if ((s->state == OPEN || s->state == PARTING) && av_ws_close_received(s->ws) &&
	    s->unread.n == 0)
		finish(s, NULL);
}

/* ---- handshake ---- */

static int on_head(void *ctx, struct av_http_head *head)
{
	struct avc_stream *s = ctx;
	const struct av_str *text = av_http_head_get(head, "retry-after");
	uint64_t seconds;

	if (head->status < 200 && head->status != 101)
		return 0;
	s->status = head->status;
	if (text && av_parse_u64(*text, 0, 86400, &seconds) == 0)
		s->retry_after_ms = (int64_t)seconds * 1000;
	return head->status == 101 ? av_ws_check_response(head, s->key, &s->err) : 0;
}

static int on_body(void *ctx, const uint8_t *p, size_t n)
{
	struct avc_stream *s = ctx;

	return av_buf_append(&s->answer, p, n);
}

static int on_head_end(void *ctx, struct av_http_head *trailers)
{
	(void)ctx, (void)trailers;
	return 0;
}

static const struct av_http1_events answer_events = {
    .on_head = on_head, .on_body = on_body, .on_end = on_head_end};

static void again(struct avc_stream *s)
{
	s->state = RESTING;
	if (s->watch.events)
		(void)avc_watch_set(s->c, &s->watch, 0);
	avc_timer_start(s->c, &s->timer, 0);
}

/* A 401 may be worth a look for other credentials, once. */
static bool try_with_others(struct avc_stream *s)
{
	aviary_error error;

	if (s->asked || !s->c->ask)
		return false;
	s->asked = true;
	if (avc_credentials_find(s->c, true, &error) < 0)
		return false;
	if (s->state == HANDSHAKE && !s->freed)
		again(s);
	return true;
}

static void refused(struct avc_stream *s)
{
	int loaded = 0;
	AV_CLEANUP(av_json_decrefp) json_t *j = avc_json_load(av_buf_str(&s->answer), &loaded);
	const json_t *e = json_object_get(j, "error");
	const char *name = json_string_value(json_object_get(e, "code"));
	const char *message = json_string_value(json_object_get(e, "message"));
	int code = avc_code_of(name, s->status, s->sandbox_id != NULL, false);

	if (s->status == 401 && try_with_others(s))
		return;
	if (loaded == AVIARY_E_NO_MEMORY)
		code = loaded;
	else if (!message && code != AVIARY_E_UNAVAILABLE)
		code = AVIARY_E_PROTOCOL;
	fail_or_rest(s, code, s->status, name,
	    message ? message
	            : "the answer is not one of an Aviary; is the base URL that of its API?");
}

static void opened(struct avc_stream *s, const char *rest, size_t n)
{
	s->state = OPEN;
	s->heard_ms = avc_now_ms();
	avc_timer_start(s->c, &s->timer, s->c->silence_timeout_ms / 3);
	s->events->on_open(s->ctx);
	if (s->state != OPEN || n == 0)
		return;
	if (av_buf_append(&s->unread, rest, n) < 0)
		fail(s, AVIARY_E_NO_MEMORY, 0, NULL, NULL);
	else
		soon(s);
}

/* The connection ended. */
static void cut(struct avc_stream *s)
{
	if (av_http1_in_body(s->parser) && av_http1_finish(s->parser, &s->err) == AV_HTTP1_DONE)
		refused(s);
	else
		fail_or_rest(s, AVIARY_E_BROKEN, 0, NULL,
		    "the server closed the connection during the handshake");
}

static void read_answer(struct avc_stream *s)
{
	char buf[4096];

	while (s->state == HANDSHAKE) {
		size_t n = 0, used = 0;
		CURLcode code = curl_easy_recv(s->easy, buf, sizeof(buf), &n);
		int r;

		if (code == CURLE_AGAIN)
			return;
		if (code != CURLE_OK || n == 0) {
			cut(s);
			return;
		}
		r = av_http1_feed(s->parser, buf, n, &used, &s->err);
		if (r < 0)
			fail(s, r == -ENOMEM ? AVIARY_E_NO_MEMORY : AVIARY_E_PROTOCOL, s->status,
			    NULL,
			    s->err.message[0] ? s->err.message
			                      : "the answer to the handshake cannot be understood");
		else if (r == AV_HTTP1_TUNNEL)
			opened(s, buf + used, n - used);
		else if (r == AV_HTTP1_DONE)
			refused(s);
	}
}

static void write_handshake(struct avc_stream *s)
{
	while (s->out.n > 0) {
		size_t n = 0;
		CURLcode r = curl_easy_send(s->easy, s->out.p + s->out.off, s->out.n, &n);

		if (r == CURLE_AGAIN)
			return;
		if (r != CURLE_OK)
			av_buf_clear(&s->out); /* reading tells */
		else
			av_buf_consume(&s->out, n);
	}
}

/* Nobody may ever read on who waits for the end only: so what the kernel still has, which is not
 * more than it lets a socket hold, goes to the owner now, and then the end. */
static void hung_up(struct avc_stream *s)
{
	if (s->state != OPEN && s->state != PARTING)
		return;
	s->hung_up = true;
	av_ws_resume(s->ws);
	if (is_deaf(s))
		fail(s, AVIARY_E_BROKEN, 0, NULL,
		    "the server has not read what it was sent, and hung up");
}

static void on_ready(struct avc_watch *w, uint32_t events)
{
	struct avc_stream *s = AV_CONTAINER_OF(w, struct avc_stream, watch);

	if (s->state == HANDSHAKE) {
		write_handshake(s);
		read_answer(s);
	}
	if (events & ((uint32_t)EPOLLRDHUP | (uint32_t)EPOLLHUP | (uint32_t)EPOLLERR))
		hung_up(s);
	if (s->state == OPEN || s->state == PARTING)
		work(s);
	watch(s);
}

static int make_head(struct avc_stream *s)
{
	const aviary_client *c = s->c;
	struct av_str rest = av_str_c(strstr(c->base_url, "://") + 3), authority;
	AV_CLEANUP(av_buf_clear) struct av_buf target = AV_BUF_INIT(16 * (size_t)AV_KIB);
	AV_CLEANUP(av_buf_clear) struct av_buf bearer = AV_BUF_INIT(8 * (size_t)AV_KIB);
	bool has_prefix = av_str_cut(&rest, '/', &authority);
	struct av_http_head head;
	int r;

	av_http_head_init(&head);
	(void)av_buf_printf(&target, "%s%.*s%s", has_prefix ? "/" : "", AV_STR_ARG(rest), s->path);
	av_ws_make_key(s->key);
	r = av_buf_error(&target);
	if (r == 0)
		r = av_http_head_request(&head, AV_STR("GET"), authority, av_buf_str(&target));
	if (r == 0)
		r = av_ws_request_head(&head, s->key, s->protocol);
	if (r == 0)
		r = av_http_head_add_c(&head, "user-agent", c->user_agent);
	if (r == 0 && c->credentials.session_token &&
	    (r = av_buf_printf(&bearer, "Bearer %s", c->credentials.session_token)) == 0)
		r = av_http_head_add_c(&head, "authorization", av_buf_cstr(&bearer));
	else if (r == 0 && c->credentials.api_key)
		r = av_http_head_add_c(&head, "x-api-key", c->credentials.api_key);
	if (r == 0 && c->credentials.entity)
		r = av_http_head_add_c(&head, "x-entity-id", c->credentials.entity);
	if (r == 0 && c->credentials.project)
		r = av_http_head_add_c(&head, "x-project-name", c->credentials.project);
	if (r == 0)
		r = av_http1_write_head(&s->out, &head);
	av_http_head_clear(&head);
	return r;
}

/* libcurl is connected, or not. */
static void on_connected(struct avc_transfer *t, CURLcode result)
{
	struct avc_stream *s = AV_CONTAINER_OF(t, struct avc_stream, transfer);
	struct av_http_limits limits = AV_HTTP_LIMITS_DEFAULT;
	curl_socket_t fd = CURL_SOCKET_BAD;
	char text[AVC_EXPLANATION_SIZE];

	if (s->state != CONNECTING || s->freed)
		return;
	if (result != CURLE_OK) {
		avc_explain(s->c, s->easy, result, s->curl_error, text, sizeof(text));
		fail_or_rest(s, avc_code_of_curl(result), 0, NULL, text);
		return;
	}
	(void)curl_easy_getinfo(s->easy, CURLINFO_ACTIVESOCKET, &fd);
	s->parser = av_http1_new_response(&limits, &answer_events, s);
	if (fd == CURL_SOCKET_BAD || !s->parser || make_head(s) < 0) {
		fail(s, AVIARY_E_NO_MEMORY, 0, NULL, NULL);
		return;
	}
	av_http1_expect(s->parser, AV_STR("GET"));
	s->state = HANDSHAKE;
	s->watch = (struct avc_watch){.fd = fd, .on_ready = on_ready};
	write_handshake(s);
	watch(s);
}

/* ---- timers ---- */

/* One third of the silence is over, or more. */
static void on_silence(struct avc_stream *s)
{
	int64_t now = avc_now_ms(), third = s->c->silence_timeout_ms / 3, silent;
	char text[160];

	if (s->mute && now - s->heard_ms >= MUTE_MS && !s->paused) {
		fail(s, AVIARY_E_BROKEN, 0, NULL, "the connection broke while something was sent");
		return;
	}
	/* Whoever is not read because it does not read itself is as good as silent. */
	if (s->paused)
		s->heard_ms = now;
	silent = now - s->heard_ms;
	if (silent >= s->c->silence_timeout_ms) {
		(void)snprintf(text, sizeof(text),
		    "the server has said nothing for %lld s, not even to a ping",
		    (long long)(silent / 1000));
		fail(s, AVIARY_E_BROKEN, 0, NULL, text);
		return;
	}
	if (silent >= third && !s->pinged) {
		/* Without memory for it: silence it is, then. */
		s->pinged = av_ws_send(s->ws, AV_WS_PING, "", 0) == 0;
		write_frames(s);
		watch(s);
	}
	if (s->state == OPEN)
		avc_timer_start(s->c, &s->timer,
		    s->mute           ? MUTE_MS
		    : silent >= third ? s->c->silence_timeout_ms - silent
		                      : AV_MAX(third - silent, (int64_t)1));
}

static void on_timer(struct avc_timer *t)
{
	struct avc_stream *s = AV_CONTAINER_OF(t, struct avc_stream, timer);

	switch (s->state) {
	case RESTING:
		disconnect(s);
		begin(s);
		break;
	case CONNECTING:
	case HANDSHAKE:
		fail(s, AVIARY_E_TIMEOUT, 0, NULL, "the server did not open the stream in time");
		break;
	case OPEN:
		if (s->closing)
			finish(s, NULL);
		else
			on_silence(s);
		break;
	case PARTING:
		finish(s, NULL);
		break;
	case WAITING:
	case OVER:
		break;
	}
}

/* From the top of the loop, where nothing of it is under way. */
static void on_soon(struct avc_timer *t)
{
	struct avc_stream *s = AV_CONTAINER_OF(t, struct avc_stream, soon);

	if (s->freed && s->state != PARTING) {
		stream_destroy(s);
		return;
	}
	switch (s->state) {
	case WAITING:
		if (s->c->n_streams < s->c->streams_max) {
			av_list_remove(&s->in_line);
			s->counted = true;
			s->c->n_streams++;
			begin(s);
		}
		break;
	case OVER:
		disconnect(s);
		leave(s);
		break;
	case OPEN:
	case PARTING:
		work(s);
		watch(s);
		break;
	case RESTING:
	case CONNECTING:
	case HANDSHAKE:
		break;
	}
}

/* ---- begin ---- */

/* It has its place. */
static void begin(struct avc_stream *s)
{
	aviary_client *c = s->c;
	aviary_error error;

	s->state = CONNECTING;
	s->tries++;
	s->status = 0;
	s->retry_after_ms = -1;
	s->mute = s->hung_up = false;
	s->sending_n = 0;
	s->err.message[0] = '\0';
	if (!c->has_credentials && avc_credentials_find(c, false, &error) < 0) {
		fail(s, error.code, 0, NULL, error.message);
		return;
	}
	if (s->freed || s->state != CONNECTING)
		return; /* meanwhile: a callback was asked for them */
	s->easy = curl_easy_init();
	if (!s->easy || !avc_easy_options(c, s->easy, c->base_url, s->curl_error) ||
	    curl_easy_setopt(s->easy, CURLOPT_CONNECT_ONLY, 1L) != CURLE_OK ||
	    curl_easy_setopt(s->easy, CURLOPT_PRIVATE, &s->transfer) != CURLE_OK ||
	    curl_multi_add_handle(c->multi, s->easy) != CURLM_OK) {
		if (s->easy)
			curl_easy_cleanup(AV_TAKE_PTR(s->easy));
		fail(s, AVIARY_E_NO_MEMORY, 0, NULL, NULL);
		return;
	}
	avc_timer_start(c, &s->timer, 2 * c->connect_timeout_ms);
}

struct avc_stream *avc_stream_open(aviary_client *c, const struct avc_stream_spec *spec,
    const struct avc_stream_events *events, void *ctx)
{
	const struct av_ws_config config = {
	    .client = true, .max_message = spec->message_max, .high_mark = HIGH_MARK};
	struct avc_stream *s = calloc(1, sizeof(*s));

	if (!s)
		return NULL;
	s->transfer.on_done = on_connected;
	s->c = c;
	s->events = events;
	s->ctx = ctx;
	s->protocol = spec->protocol;
	s->retry_after_ms = -1;
	av_list_init(&s->link);
	av_list_init(&s->in_line);
	av_list_init(&s->timer.link);
	av_list_init(&s->soon.link);
	s->timer.on_due = on_timer;
	s->soon.on_due = on_soon;
	av_buf_init(&s->out, 32 * (size_t)AV_KIB);
	av_buf_init(&s->unread, READ_SIZE);
	av_buf_init(&s->answer, ANSWER_MAX);
	s->path = av_str_dup(av_str_c(spec->path));
	s->sandbox_id = spec->sandbox_id ? av_str_dup(av_str_c(spec->sandbox_id)) : NULL;
	s->ws = av_ws_new(&config, &ws_events, s);
	if (!s->path || (spec->sandbox_id && !s->sandbox_id) || !s->ws) {
		stream_destroy(s);
		return NULL;
	}
	av_list_append(&c->streams, &s->link);
	av_list_append(&c->streams_waiting, &s->in_line);
	/* Made by whoever drives, as requests are. */
	soon(s);
	return s;
}

/* ---- for its owner ---- */

void avc_stream_free(struct avc_stream *s)
{
	if (!s || s->freed)
		return;
	s->freed = true;
	s->state = OVER;
	avc_timer_stop(&s->timer);
	av_list_remove(&s->in_line);
	if (s->watch.events)
		(void)avc_watch_set(s->c, &s->watch, 0);
	/* Its descriptor may be named by events that were just collected, and it may be at work up
	 * the stack. */
	s->watch.on_ready = NULL;
	if (s->easy)
		(void)curl_easy_setopt(s->easy, CURLOPT_PRIVATE, NULL);
	if (s->c->closed && !s->c->driving)
		stream_destroy(s);
	else
		soon(s);
}

void avc_stream_part(struct avc_stream *s)
{
	if (!s || s->freed)
		return;
	if (s->state != OPEN || s->c->closed) {
		avc_stream_free(s);
		return;
	}
	(void)av_ws_close(s->ws, AV_WS_CLOSE_NORMAL, "");
	write_frames(s);
	s->state = PARTING;
	s->freed = true;
	av_ws_resume(s->ws); /* what comes is read, and thrown away */
	avc_timer_start(s->c, &s->timer, PART_MS);
	watch(s);
	soon(s);
}

int avc_stream_send(struct avc_stream *s, struct av_str head, struct av_str body)
{
	int r = s->state != OPEN ? -EPIPE : av_ws_send2(s->ws, AV_WS_BINARY, head, body);

	/* Half a frame may be in the codec: nothing can follow it. */
	if (r == -ENOMEM)
		fail(s, AVIARY_E_NO_MEMORY, 0, NULL, NULL);
	if (r < 0)
		return r;
	if (unsent(s) > AVC_STREAM_LOW)
		s->wants_drain = true;
	/* What is small goes out at once; then nobody has to be woken. */
	write_frames(s);
	watch(s);
	return 0;
}

void avc_stream_close(struct avc_stream *s)
{
	if (s->state != OPEN || s->closing)
		return;
	s->closing = true;
	(void)av_ws_close(s->ws, AV_WS_CLOSE_NORMAL, "");
	write_frames(s);
	avc_timer_start(s->c, &s->timer, PART_MS);
	watch(s);
}

void avc_stream_pause(struct avc_stream *s, bool paused)
{
	if (s->paused == paused)
		return;
	s->paused = paused;
	if (s->state != OPEN)
		return;
	s->heard_ms = avc_now_ms();
	if (s->hung_up)
		return;
	if (paused) {
		av_ws_pause(s->ws);
	} else {
		av_ws_resume(s->ws);
		/* What was taken from the connection already makes no descriptor ready. */
		soon(s);
	}
	watch(s);
}

size_t avc_stream_buffered(const struct avc_stream *s)
{
	return unsent(s);
}

void avc_streams_end(aviary_client *c)
{
	struct avc_stream *s;

	AV_LIST_FOREACH(s, &c->streams, struct avc_stream, link)
	{
		if (!s->freed)
			fail(s, AVIARY_E_CANCELED, 0, NULL, "the client was closed");
		if (s->freed)
			stream_destroy(s);
		else
			disconnect(s);
	}
}
