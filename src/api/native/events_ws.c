/* SPDX-License-Identifier: Apache-2.0 */
/*
 * events_ws.c - the team's events as WebSocket messages (see events.c)
 *
 * Each message is {"type":NAME,"id":ID,"data":{...}} with what the lines event, id and data of the
 * stream say. Without a key in the handshake the first message must be {"type":"auth","token":KEY},
 * within AUTH_MS; nothing is told or looked up before. What a client says afterwards is dropped.
 * The server's pings keep the connection alive.
 */
#include "api/native/native.h"

#include <errno.h>
#include <stdlib.h>

#include "api/auth.h"
#include "api/client_addr.h"
#include "api/native/followers.h"
#include "api/native/session.h"
#include "net/wsock.h"
#include "proto/ws.h"
#include "base/banned.h"

#define AUTH_MESSAGE_MAX 4096
#define HEAD_MAX         256

struct socket_follower {
	struct follower base; /* first */
	struct av_wsock *ws;
	const struct api_route *route;
	struct av_timer auth; /* runs until the client is known */
	char client[CLIENT_ADDR_SIZE];
	bool known;
};

static struct socket_follower *to_socket(struct follower *f)
{
	return AV_CONTAINER_OF(f, struct socket_follower, base);
}

/* ---- to the client ---- */

static int put(struct follower *f, struct av_str text)
{
	AV_CLEANUP(av_buf_clear) struct av_buf head = AV_BUF_INIT(HEAD_MAX);
	AV_CLEANUP(av_buf_clear) struct av_buf body = AV_BUF_INIT(AV_WSOCK_MESSAGE_MAX);
	struct av_str id = {0}, type = {0}, data = {0}, line, name;
	int r;

	while (text.n > 0) {
		(void)av_str_cut(&text, '\n', &line);
		if (!av_str_cut(&line, ':', &name))
			continue;
		line = av_str_trim(line);
		if (av_str_eq_c(name, "id"))
			id = line;
		else if (av_str_eq_c(name, "event"))
			type = line;
		else if (av_str_eq_c(name, "data"))
			data = line;
	}
	if (data.n == 0)
		return 0; /* a comment */
	(void)av_buf_printf(&head, "{\"type\":\"%.*s\",\"id\":\"%.*s\",\"data\":", AV_STR_ARG(type),
	    AV_STR_ARG(id));
	(void)av_buf_append_str(&body, data);
	(void)av_buf_append_char(&body, '}');
	r = av_buf_error(&head) < 0 || av_buf_error(&body) < 0
	        ? -ENOMEM
	        : av_wsock_send2(to_socket(f)->ws, true, av_buf_str(&head), av_buf_str(&body));
	if (r >= 0)
		return r;
	f->over = true;
	av_wsock_abort(to_socket(f)->ws); /* on_close follows from the loop */
	return 0;
}

static void finish(struct follower *f)
{
	av_wsock_close(to_socket(f)->ws, AV_WS_CLOSE_NORMAL, NULL);
}

static void fail(struct socket_follower *sf, const struct av_err *err)
{
	AV_CLEANUP(av_buf_clear) struct av_buf out = AV_BUF_INIT(8192);

	(void)av_buf_append_c(&out, "{\"type\":\"error\",\"data\":");
	(void)av_json_write_str(&out, av_str_c(err->message));
	(void)av_buf_append_char(&out, '}');
	sf->base.over = true;
	if (av_buf_error(&out) == 0)
		(void)av_wsock_send(sf->ws, true, av_buf_str(&out));
	finish(&sf->base);
}

/* ---- from the client ---- */

static void enter(struct socket_follower *sf)
{
	struct av_err err;

	sf->known = true;
	if (follower_open(&sf->base, &err) < 0)
		fail(sf, &err);
	else
		follower_start(&sf->base);
}

static void on_auth_late(void *ctx)
{
	struct socket_follower *sf = ctx;
	struct av_err err;

	(void)av_err_set(&err, AV_ERR_REQUEST_TIMEOUT,
	    "authentication failed: no key came in the handshake, and no "
	    "{\"type\":\"auth\",\"token\":...} within %d s",
	    SESSION_AUTH_MS / 1000);
	fail(sf, &err);
}

static void on_message(void *ctx, struct av_wsock *ws, bool text, struct av_str data)
{
	struct socket_follower *sf = ctx;
	AV_CLEANUP(av_json_decrefp) json_t *message = NULL;
	const char *type = "", *token = "";
	struct av_err err;

	(void)ws;
	if (sf->known || sf->base.over)
		return;
	av_timer_stop(&sf->auth);
	message = text ? av_json_parse_object(data, NULL) : NULL;
	if (!message || av_json_get_str(message, "type", &type, NULL) < 0 ||
	    av_json_get_str(message, "token", &token, NULL) < 0 ||
	    !av_str_eq_c(AV_STR("auth"), type))
		token = "";
	if (api_verify(
	        sf->base.api, sf->route, av_str_c(token), sf->client, &sf->base.actor, &err) == 0) {
		enter(sf);
		return;
	}
	if (err.kind == AV_ERR_UNAUTHORIZED)
		(void)av_err_set(&err, AV_ERR_UNAUTHORIZED, "authentication failed");
	fail(sf, &err);
}

static void on_drain(void *ctx, struct av_wsock *ws)
{
	struct socket_follower *sf = ctx;

	(void)ws;
	if (sf->base.open)
		follower_drained(&sf->base);
}

static void on_close(void *ctx, struct av_wsock *ws, int code)
{
	struct socket_follower *sf = ctx;

	(void)ws;
	(void)code;
	av_timer_stop(&sf->auth);
	follower_close(&sf->base);
	sf->base.api->metrics.streams_open--;
	free(sf);
}

static const struct av_wsock_handler handler = {
    .on_message = on_message, .on_drain = on_drain, .on_close = on_close};

/* ---- handshake ---- */

static int prepare(struct api_request *rq, struct socket_follower *sf, struct av_err *err)
{
	int r = 0;

	if (api_has_credentials(rq)) {
		r = api_authenticate(rq, err);
		sf->known = r == 0;
		sf->base.actor = rq->actor;
	}
	if (r == 0)
		r = follower_parse(&sf->base, rq, err);
	return r;
}

void native_events_socket(struct api_request *rq)
{
	struct socket_follower *sf = calloc(1, sizeof(*sf));
	const char *client = api_client(rq);
	struct av_err err;
	int r = 0;

	if (!sf) {
		(void)av_err_set(&err, AV_ERR_NO_MEMORY, "out of memory");
		api_send_err(rq, &err);
		return;
	}
	sf->base.api = rq->api;
	sf->base.put = put;
	sf->base.finish = finish;
	sf->route = rq->match.route;
	memcpy(sf->client, client, sizeof(sf->client));
	av_timer_init(&sf->auth, rq->api->loop, on_auth_late, sf);
	r = prepare(rq, sf, &err);
	if (r == 0 && av_req_upgrade_ws(rq->req, NULL, &handler, sf, &sf->ws) < 0)
		r = av_err_set(&err, AV_ERR_NO_MEMORY, "no memory for the session");
	if (r < 0) {
		free(sf);
		api_send_err(rq, &err);
		return;
	}
	rq->api->metrics.streams_open++;
	api_request_release(rq);
	av_wsock_set_message_max(sf->ws, AUTH_MESSAGE_MAX);
	if (sf->known)
		enter(sf);
	else
		av_timer_start(&sf->auth, SESSION_AUTH_MS);
}
