/* SPDX-License-Identifier: Apache-2.0 */
/*
 * terminal.c - the WebSocket of a process on a terminal of its own: start, re-attach, type, resize
 *
 * Theory of operation
 * -------------------
 * The first message starts a process on a new terminal or connects to one by tag. Then input,
 * resize and kill go to the agent on one stream, in the order in which they came (but a kill passes
 * input that is stuck); input that the terminal does not take stops the client, and nothing is
 * dropped. The process is not the socket's:
 * it lives on when the client goes away, and its output waits in the agent's ring for who connects
 * next.
 *
 * After exit or a fatal error the socket stays open until the client closes it (SESSION_LINGER_MS
 * at most), and what still comes is dropped: a client that was just typing must not fail.
 *
 * Two generations of clients cannot be told apart by what they say first. The older one has output
 * in JSON messages as base64 and sends input so; the younger one has bytes in binary messages both
 * ways, and loses output in JSON; and it answers {"type":"ping"} with {"type":"pong"}, which the
 * older one does not. So it is pinged at the beginning, and its first input or that answer decides:
 * a binary message or a pong, and from then on output is binary. Until there was any, output is
 * held for HOLD_MS (or HOLD_MAX bytes), after which it goes out as JSON. A client of the older kind
 * that does not type is seen by a person as a prompt that comes a quarter of a second late. A pong
 * that comes later than that (a long way, a client that did something else first) means that what
 * went out so far was lost: up to EARLY_MAX bytes of it are sent again, as they should have been.
 */
#include "api/native/native.h"

#include <errno.h>
#include <inttypes.h>

#include "api/native/session.h"
#include "api/native/shapes.h"
#include "base/codec.h"
#include "base/banned.h"

#define PING_MS        30000
#define HOLD_MS        250
#define HOLD_MAX       ((size_t)32 * 1024)
#define EARLY_MAX      ((size_t)64 * 1024)
#define PING_ROOM      ((size_t)64 * 1024) /* with more waiting a ping says nothing new */
#define SIZE_MAX_CELLS 65535
#define DEFAULT_CMD    "/bin/bash"
#define DEFAULT_TERM   "xterm-256color"

struct terminal {
	struct session s;
	struct av_timer ping, hold;
	struct av_buf held;  /* output that waits for the first input */
	struct av_buf early; /* output that went out as JSON while nobody knew better */
	bool inited;         /* timers, held and early are */
	bool decided;        /* raw says how output goes */
	bool guessed;        /* but a pong may still say otherwise */
	bool raw;            /* binary messages both ways */
	bool announce;       /* started here: the client is told its tag */
	uint64_t dropped;    /* bytes missing before the next output */
	bool ended;          /* while its output is held: end is to be told behind it */
	struct node_exec_end end;
};

static struct terminal *to_terminal(struct session *s)
{
	return AV_CONTAINER_OF(s, struct terminal, s);
}

static void stop(struct session *s)
{
	struct terminal *t = to_terminal(s);

	if (!t->inited)
		return;
	av_timer_stop(&t->ping);
	av_timer_stop(&t->hold);
	av_buf_clear(&t->held);
	av_buf_clear(&t->early);
}

/* ---- to the client ---- */

static void send_error(struct session *s, const struct av_err *err)
{
	static const bool fatal = true;

	session_send_error(s, err, &fatal);
}

/* The client erred, the terminal goes on. */
static void complain(struct session *s, const struct av_err *err)
{
	static const bool fatal = false;

	session_send_error(s, err, &fatal);
}

static void send_output(struct terminal *t, struct av_str data)
{
	AV_CLEANUP(av_buf_clear) struct av_buf out = AV_BUF_INIT(SESSION_MESSAGE_MAX);

	if (data.n == 0)
		return;
	if (t->raw) {
		session_send(&t->s, false, data);
		return;
	}
	if (t->guessed && t->early.n + data.n <= EARLY_MAX)
		(void)av_buf_append_str(&t->early, data);
	else
		t->guessed = false;
	(void)av_buf_append_c(&out, "{\"type\":\"output\",");
	if (t->dropped)
		(void)av_buf_printf(&out, "\"dropped\":%" PRIu64 ",", t->dropped);
	t->dropped = 0;
	(void)av_buf_append_c(&out, "\"data\":\"");
	(void)av_base64_encode(&out, data.p, data.n);
	(void)av_buf_append_c(&out, "\"}");
	session_send_json(&t->s, &out);
}

/* The last message. */
static void over(struct terminal *t)
{
	session_send_exit(&t->s, &t->end);
	session_finish(&t->s);
}

/* It is known (or must be guessed) how the client wants its output. */
static void decide(struct terminal *t)
{
	if (t->decided)
		return;
	t->decided = true;
	av_timer_stop(&t->hold);
	send_output(t, av_buf_str(&t->held));
	av_buf_clear(&t->held);
	if (t->ended)
		over(t);
}

static void guess(struct terminal *t)
{
	t->guessed = !t->decided;
	decide(t);
}

static void on_hold_over(void *ctx)
{
	guess(ctx);
}

static void send_ping(struct terminal *t)
{
	session_send(&t->s, true, AV_STR("{\"type\":\"ping\"}"));
}

static void on_ping(void *ctx)
{
	struct terminal *t = ctx;

	av_timer_start(&t->ping, PING_MS);
	if (av_wsock_pending(t->s.ws) < PING_ROOM)
		send_ping(t);
}

/* Only clients that want bytes say this. */
static void on_pong(struct terminal *t)
{
	if (t->decided && !t->guessed)
		return;
	t->raw = true;
	t->guessed = false;
	decide(t);
	send_output(t, av_buf_str(&t->early));
	av_buf_clear(&t->early);
}

/* ---- from the process ---- */

static void on_start(void *ctx, uint32_t pid, const char *tag)
{
	AV_CLEANUP(av_buf_clear) struct av_buf out = AV_BUF_INIT(4096);
	struct terminal *t = ctx;

	t->s.pid = pid;
	av_timer_start(&t->ping, PING_MS);
	if (!t->decided)
		av_timer_start(&t->hold, HOLD_MS);
	if (t->announce) {
		(void)av_buf_append_c(&out, "{\"type\":\"started\",\"tag\":");
		(void)av_json_write_str(&out, av_str_c(tag));
		(void)av_buf_printf(&out, ",\"pid\":%" PRIu32 "}", pid);
		session_send_json(&t->s, &out);
	}
	if (!t->decided)
		send_ping(t);
}

static void on_output(void *ctx, enum node_channel ch, struct av_str data)
{
	struct terminal *t = ctx;

	(void)ch;
	if (!t->decided && t->held.n + data.n <= HOLD_MAX && av_buf_append_str(&t->held, data) == 0)
		return;
	guess(t);
	send_output(t, data);
}

static void on_gap(void *ctx, uint64_t dropped)
{
	struct terminal *t = ctx;

	t->dropped += dropped;
}

static void on_end(void *ctx, const struct node_exec_end *end, const struct av_err *err)
{
	struct terminal *t = ctx;

	t->s.exec = NULL;
	if (!err) {
		t->ended = true;
		t->end = *end;
	}
	/* With output held the end waits too, for as long. */
	if (err || t->held.n == 0)
		guess(t);
	if (err)
		session_fail(&t->s, err);
	else if (t->s.state != SESSION_OVER && t->decided)
		over(t);
}

static const struct node_exec_events exec_events = {.on_start = on_start,
    .on_output = on_output,
    .on_gap = on_gap,
    .on_drain = session_on_exec_drain,
    .on_end = on_end};

/* ---- the first message ---- */

static int parse_size(const json_t *message, int64_t *cols, int64_t *rows, struct av_err *err)
{
	int r = av_json_get_i64(message, "cols", 1, SIZE_MAX_CELLS, cols, err);

	return r < 0 ? r : av_json_get_i64(message, "rows", 1, SIZE_MAX_CELLS, rows, err);
}

/* What a terminal's process has when nothing else is said: a shell, and the name of its terminal.
 * Changes the message. */
static int add_defaults(json_t *message, struct av_err *err)
{
	json_t *envs = json_object_get(message, "envs");
	const json_t *cmd = json_object_get(message, "cmd");
	int r = 0;

	if (!cmd || json_is_null(cmd))
		r = json_object_set_new(message, "cmd", json_string(DEFAULT_CMD));
	if (r == 0 && (!envs || json_is_null(envs))) {
		envs = json_object();
		r = json_object_set_new(message, "envs", envs);
	}
	/* Something else than an object is refused by who reads it. */
	if (r == 0 && json_is_object(envs) && !json_object_get(envs, "TERM"))
		r = json_object_set_new(envs, "TERM", json_string(DEFAULT_TERM));
	return r < 0 ? av_err_set(err, AV_ERR_NO_MEMORY, "out of memory") : 0;
}

/* {"type":"start","cmd","args","cols","rows","envs","cwd","user","tag","timeout_sec"} */
static int start(struct terminal *t, json_t *message, struct av_err *err)
{
	struct node_exec_spec spec = {0};
	int64_t cols = 80, rows = 24;
	char tag[NATIVE_TAG_SIZE];
	struct session *s = &t->s;
	int r;

	if ((r = add_defaults(message, err)) < 0 ||
	    (r = native_parse_exec(message, 0, &spec, err)) < 0 ||
	    (r = parse_size(message, &cols, &rows, err)) < 0)
		return r;
	spec.pty_cols = (uint32_t)cols;
	spec.pty_rows = (uint32_t)rows;
	spec.stdin_open = true;
	spec.keep_on_detach = true;
	if (!spec.tag || !spec.tag[0]) {
		native_random_tag(tag, "pty");
		spec.tag = tag;
	}
	t->announce = true;
	return control_exec_stream(
	    s->api->control, &s->actor, s->id, &spec, &exec_events, s, &s->exec, err);
}

/* {"type":"connect","tag","replay":bool} */
static int reconnect(struct terminal *t, const json_t *message, struct av_err *err)
{
	struct node_selector sel = {0};
	struct session *s = &t->s;
	bool replay = true;
	int r;

	if ((r = av_json_get_str(message, "tag", &sel.tag, err)) < 0 ||
	    (r = av_json_get_bool(message, "replay", &replay, err)) < 0)
		return r;
	if (!sel.tag || !sel.tag[0])
		return av_err_set(err, AV_ERR_INVALID,
		    "'tag' is missing: the one that {\"type\":\"started\"} told");
	return control_exec_attach(
	    s->api->control, &s->actor, s->id, &sel, replay, true, &exec_events, s, &s->exec, err);
}

static int first(struct terminal *t, bool text, struct av_str data, struct av_err *err)
{
	AV_CLEANUP(av_json_decrefp) json_t *message = NULL;
	const char *type = "";
	int r;

	if (text && !(message = av_json_parse_object(data, err)))
		return -EINVAL;
	if (message && (r = av_json_get_str(message, "type", &type, err)) < 0)
		return r;
	if (av_str_eq_c(AV_STR("start"), type))
		return start(t, message, err);
	if (av_str_eq_c(AV_STR("connect"), type))
		return reconnect(t, message, err);
	return av_err_set(err, AV_ERR_INVALID,
	    "the first message must be {\"type\":\"start\",...} or "
	    "{\"type\":\"connect\",\"tag\":...}");
}

/* ---- later messages ---- */

static void send_input(struct terminal *t, struct av_str data)
{
	decide(t);
	t->guessed = false;
	av_buf_clear(&t->early);
	if (data.n && !node_exec_send(t->s.exec, NODE_CH_PTY, data))
		session_pause_input(&t->s);
}

static int input(struct terminal *t, const json_t *message, struct av_err *err)
{
	AV_CLEANUP(av_buf_clear) struct av_buf data = AV_BUF_INIT(AV_WSOCK_MESSAGE_MAX);
	const char *text = "";
	int r = av_json_get_str(message, "data", &text, err);

	if (r < 0)
		return r;
	if (av_base64_decode(&data, av_str_c(text)) < 0)
		return av_err_set(err, AV_ERR_INVALID,
		    "'data' of an input message is not base64 (standard alphabet, with padding)");
	send_input(t, av_buf_str(&data));
	return 0;
}

static int resize(struct terminal *t, const json_t *message, struct av_err *err)
{
	int64_t cols = 0, rows = 0;
	int r = parse_size(message, &cols, &rows, err);

	if (r < 0)
		return r;
	if (!cols || !rows)
		return av_err_set(err, AV_ERR_INVALID,
		    "a resize message has 'cols' and 'rows', both from 1 to %d", SIZE_MAX_CELLS);
	(void)node_exec_resize(t->s.exec, (uint32_t)cols, (uint32_t)rows);
	return 0;
}

/* Other types are ignored. */
static int later(struct terminal *t, struct av_str data, struct av_err *err)
{
	AV_CLEANUP(av_json_decrefp) json_t *message = av_json_parse_object(data, err);
	const char *type = "";
	int r;

	if (!message)
		return -EINVAL;
	if ((r = av_json_get_str(message, "type", &type, err)) < 0)
		return r;
	if (av_str_eq_c(AV_STR("input"), type))
		return input(t, message, err);
	if (av_str_eq_c(AV_STR("resize"), type))
		return resize(t, message, err);
	if (av_str_eq_c(AV_STR("kill"), type))
		session_kill(&t->s);
	if (av_str_eq_c(AV_STR("pong"), type))
		on_pong(t);
	return 0;
}

static bool is_pong(struct av_str data)
{
	AV_CLEANUP(av_json_decrefp) json_t *message = av_json_parse_object(data, NULL);
	const char *type = "";

	return message && av_json_get_str(message, "type", &type, NULL) == 0 &&
	       av_str_eq_c(AV_STR("pong"), type);
}

static int on_message(struct session *s, bool text, struct av_str data, struct av_err *err)
{
	struct terminal *t = to_terminal(s);

	if (!s->exec && !t->ended)
		return first(t, text, data, err);
	if (!s->exec) { /* only how the last output goes is open */
		if (!text || is_pong(data))
			on_pong(t);
	} else if (!text) {
		t->raw = true;
		send_input(t, data);
	} else if (later(t, data, err) < 0) {
		complain(s, err);
	}
	return 0;
}

static const struct session_kind terminal_kind = {.size = sizeof(struct terminal),
    .lingers = true,
    .on_message = on_message,
    .send_error = send_error,
    .stop = stop};

void native_pty(struct api_request *rq)
{
	struct session *s = session_open(rq, &terminal_kind, NULL);
	struct terminal *t;

	if (!s)
		return;
	t = to_terminal(s);
	t->held = AV_BUF_INIT(HOLD_MAX);
	t->early = AV_BUF_INIT(EARLY_MAX);
	av_timer_init(&t->ping, s->api->loop, on_ping, t);
	av_timer_init(&t->hold, s->api->loop, on_hold_over, t);
	t->inited = true;
	session_run(s);
}
