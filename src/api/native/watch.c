/* SPDX-License-Identifier: Apache-2.0 */
/*
 * watch.c - files/watch: what changes in a directory, as WebSocket messages
 *
 * The agent watches; each of its messages is checked and told anew: {"type":"start"}, then
 * {"type":"create"|"write"|"remove"|"rename"|"chmod","name","path"}, {"type":"overflow"} where more
 * changed than could be told, and last {"type":"error","code","data"}. A client that does not read
 * makes the agent wait, and then the kernel drop, which is an overflow; nothing grows here.
 *
 * See session.h for the states; this kind needs no first message, and a client has nothing to say.
 */
#include "api/native/native.h"

#include <errno.h>

#include "api/native/session.h"
#include "base/path.h"
#include "proto/connect.h"
#include "base/banned.h"

#define MESSAGE_MAX ((size_t)128 * 1024)
#define USER_MAX    64

struct watch {
	struct session base; /* first */
	struct node_stream *stream;
	struct av_connect_dec dec;
	bool open; /* dec is in use */
	bool recursive;
	char path[AV_PATH_MAX + 1];
	char user[USER_MAX + 1];
};

static struct watch *to_watch(struct session *s)
{
	return AV_CONTAINER_OF(s, struct watch, base);
}

/* ---- to the client ---- */

static void send_message(struct watch *w, const struct av_buf *json)
{
	if (av_buf_error(json) < 0)
		av_wsock_abort(w->base.ws);
	else if (av_wsock_send(w->base.ws, true, av_buf_str(json)) > 0 && w->stream)
		node_stream_pause(w->stream, true);
}

static void send_simple(struct watch *w, const char *type)
{
	AV_CLEANUP(av_buf_clear) struct av_buf out = AV_BUF_INIT(64);

	(void)av_buf_printf(&out, "{\"type\":\"%s\"}", type);
	send_message(w, &out);
}

static const char *event_type(const json_t *event)
{
	static const char *const types[][2] = {
	    {"EVENT_TYPE_CREATE", "create"},
	    {"EVENT_TYPE_WRITE", "write"},
	    {"EVENT_TYPE_REMOVE", "remove"},
	    {"EVENT_TYPE_RENAME", "rename"},
	    {"EVENT_TYPE_CHMOD", "chmod"},
	};
	struct av_str type = av_str_c(json_string_value(json_object_get(event, "type")));

	for (size_t i = 0; i < AV_ARRAY_LEN(types); i++)
		if (av_str_eq_c(type, types[i][0]))
			return types[i][1];
	return NULL;
}

static int send_event(struct watch *w, const json_t *event, struct av_err *err)
{
	AV_CLEANUP(av_buf_clear) struct av_buf out = AV_BUF_INIT(MESSAGE_MAX);
	const char *name = json_string_value(json_object_get(event, "name"));
	const char *type = event_type(event);

	if (!name || !name[0] || strlen(name) > 3 * AV_PATH_MAX || !type)
		return av_err_set(err, AV_ERR_AGENT, "the sandbox's agent tells a bad event");
	(void)av_buf_printf(&out, "{\"type\":\"%s\",\"name\":", type);
	(void)av_json_write_str(&out, av_str_c(name));
	(void)av_buf_append_char(&out, '}');
	send_message(w, &out);
	return 0;
}

static void send_error(struct session *s, const struct av_err *err)
{
	AV_CLEANUP(av_buf_clear) struct av_buf out = AV_BUF_INIT(MESSAGE_MAX);

	(void)av_buf_printf(
	    &out, "{\"type\":\"error\",\"code\":\"%s\",\"data\":", av_err_code(err->kind));
	(void)av_json_write_str(&out, av_str_c(err->message));
	(void)av_buf_append_char(&out, '}');
	session_send_json(s, &out);
}

/* ---- from the agent ---- */

/* The error that the agent's last message tells. */
static int read_end(const json_t *message, struct av_err *err)
{
	const json_t *error = json_object_get(message, "error");
	const char *code = json_string_value(json_object_get(error, "code"));
	const char *text = json_string_value(json_object_get(error, "message"));
	enum av_err_kind kind =
	    code ? av_connect_code_to_err(av_connect_code_from_name(av_str_c(code))) : AV_ERR_AGENT;

	return av_err_set(err, kind == AV_ERR_NONE ? AV_ERR_AGENT : kind, "%s",
	    text ? text : "the sandbox's agent ended the watch");
}

/* What a message is fed with. */
struct feed {
	struct watch *w;
	struct av_err err;
};

static int on_agent_message(void *ctx, bool end, struct av_str payload)
{
	struct feed *f = ctx;
	AV_CLEANUP(av_json_decrefp) json_t *message = av_json_parse_object(payload, NULL);

	if (!message)
		return av_err_set(
		    &f->err, AV_ERR_AGENT, "the sandbox's agent broke the protocol while watching");
	if (end)
		return read_end(message, &f->err);
	if (json_object_get(message, "start"))
		send_simple(f->w, "start");
	else if (json_object_get(message, "overflow"))
		send_simple(f->w, "overflow");
	else if (json_object_get(message, "filesystem"))
		return send_event(f->w, json_object_get(message, "filesystem"), &f->err);
	return 0;
}

static void on_head(void *ctx, int status, const struct node_header *h, size_t n)
{
	(void)ctx;
	(void)status;
	(void)h;
	(void)n;
}

static void on_data(void *ctx, struct av_str data)
{
	struct watch *w = ctx;
	struct feed f = {.w = w};

	if (av_connect_dec_feed(&w->dec, data.p, data.n, on_agent_message, &f) >= 0)
		return;
	if (f.err.kind == AV_ERR_NONE)
		(void)av_err_set(
		    &f.err, AV_ERR_AGENT, "the sandbox's agent broke the protocol while watching");
	session_fail(&w->base, &f.err);
}

static void on_end(void *ctx, const struct av_err *err)
{
	struct watch *w = ctx;
	struct av_err own;

	w->stream = NULL;
	if (!err) {
		(void)av_err_set(&own, AV_ERR_AGENT, "the sandbox's agent ended the watch");
		err = &own;
	}
	session_fail(&w->base, err);
}

static const struct node_stream_events agent_events = {
    .on_head = on_head, .on_data = on_data, .on_end = on_end};

/* ---- the session ---- */

static int begin(struct session *s, struct av_err *err)
{
	static const struct node_header headers[] = {
	    {AV_STR("content-type"), AV_STR("application/connect+json")}};
	const struct node_stream_request rq = {
	    .method = "POST",
	    .path = AV_STR("/filesystem.Filesystem/WatchDir"),
	    .headers = headers,
	    .n_headers = AV_ARRAY_LEN(headers),
	    .has_body = true,
	    .map_errors = true,
	};
	AV_CLEANUP(av_buf_clear) struct av_buf json = AV_BUF_INIT(MESSAGE_MAX);
	AV_CLEANUP(av_buf_clear) struct av_buf message = AV_BUF_INIT(MESSAGE_MAX);
	struct watch *w = to_watch(s);
	int r;

	(void)av_buf_printf(&json,
	    "{\"overflow\":true,\"recursive\":%s,\"path\":", w->recursive ? "true" : "false");
	(void)av_json_write_str(&json, av_str_c(w->path));
	(void)av_buf_append_c(&json, ",\"user\":");
	(void)av_json_write_str(&json, av_str_c(w->user));
	(void)av_buf_append_char(&json, '}');
	if (av_connect_write(&message, 0, av_buf_str(&json)) < 0)
		return av_err_set(err, AV_ERR_NO_MEMORY, "out of memory");
	av_connect_dec_init(&w->dec, MESSAGE_MAX);
	w->open = true;
	r = control_stream(
	    s->api->control, &s->actor, s->id, &rq, &agent_events, w, &w->stream, err);
	if (r < 0)
		return r;
	(void)node_stream_send(w->stream, av_buf_str(&message));
	node_stream_finish(w->stream);
	s->state = SESSION_OPEN;
	return 0;
}

/* What a client says means nothing; its Close is seen below. */
static int on_message(struct session *s, bool text, struct av_str data, struct av_err *err)
{
	(void)s;
	(void)text;
	(void)data;
	(void)err;
	return 0;
}

static void on_drain(struct session *s)
{
	struct watch *w = to_watch(s);

	if (w->stream)
		node_stream_pause(w->stream, false);
}

static void stop(struct session *s)
{
	struct watch *w = to_watch(s);

	if (w->stream)
		node_stream_cancel(AV_TAKE_PTR(w->stream));
	if (w->open)
		av_connect_dec_clear(&w->dec);
	w->open = false;
}

static const struct session_kind watch_kind = {
    .size = sizeof(struct watch),
    .begin = begin,
    .on_message = on_message,
    .on_drain = on_drain,
    .send_error = send_error,
    .stop = stop,
};

/* ---- the handshake: ?path=&recursive=true&user= ---- */

/* A query parameter that may be absent, copied to dst. */
static int get_query(
    struct api_request *rq, const char *name, char *dst, size_t size, struct av_err *err)
{
	AV_CLEANUP(av_buf_clear) struct av_buf text = AV_BUF_INIT(size);
	int r = api_query(rq, name, &text, err);

	dst[0] = '\0';
	if (r == -ENOENT)
		return 0;
	if (r == 0 && av_str_copy(dst, size, av_buf_str(&text)) < 0)
		r = av_err_set(err, AV_ERR_INVALID,
		    "query parameter '%s' has a NUL or more than %zu bytes", name, size - 1);
	return r;
}

static int parse(struct api_request *rq, struct watch *ret, struct av_err *err)
{
	char recursive[8];
	int r;

	if ((r = get_query(rq, "path", ret->path, sizeof ret->path, err)) < 0 ||
	    (r = get_query(rq, "user", ret->user, sizeof ret->user, err)) < 0 ||
	    (r = get_query(rq, "recursive", recursive, sizeof recursive, err)) < 0)
		return r;
	if (!ret->path[0])
		return av_err_set(
		    err, AV_ERR_INVALID, "query parameter 'path' must name the directory to watch");
	if (recursive[0] && strcmp(recursive, "true") != 0 && strcmp(recursive, "false") != 0)
		return av_err_set(
		    err, AV_ERR_INVALID, "query parameter 'recursive' must be true or false");
	ret->recursive = recursive[0] == 't';
	return 0;
}

void native_file_watch(struct api_request *rq)
{
	struct watch wish = {0}, *w;
	struct session *s;
	struct av_err err;

	if (parse(rq, &wish, &err) < 0) {
		api_send_err(rq, &err);
		return;
	}
	s = session_open(rq, &watch_kind, NULL);
	if (!s)
		return;
	w = to_watch(s);
	w->recursive = wish.recursive;
	memcpy(w->path, wish.path, sizeof w->path);
	memcpy(w->user, wish.user, sizeof w->user);
	session_run(s);
}
