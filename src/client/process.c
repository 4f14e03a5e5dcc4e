/* SPDX-License-Identifier: Apache-2.0 */
/*
 * process.c - programs in a sandbox: how they begin and end (see client/process.h)
 */
#include "client/process.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/codec.h"
#include "base/ids.h"
#include "base/json.h"
#include "base/num.h"
#include "client/texts.h"

#include "client/model.h"

#include "base/banned.h"

#define COLLECT_DEFAULT ((size_t)16 << 20)
#define COLLECT_MOST    ((size_t)1 << 30)
#define GUARD_MS        5000 /* what the end of a time-out may take to get here */
#define SAID_MAX        200  /* of stderr, in an error's message */

/* ---- the end ---- */

static void settle_started(aviary_process *p)
{
	aviary_op *op = AV_TAKE_PTR(p->started);

	if (!op)
		return;
	if (p->runs)
		avc_op_end(op);
	else if (p->op->code < 0)
		avc_op_fail_with(op, &p->op->error);
	else
		avc_op_fail(op, AVIARY_E_PROTOCOL, "the program ended before it began");
	/* Not the last reference: it has one of its own until it is called back. */
	aviary_op_free(op);
}

static void fail_with(aviary_process *p, const aviary_error *error)
{
	p->ended = true;
	avc_op_fail_with(p->op, error);
	settle_started(p);
}

static void AVIARY_PRINTF(3, 4) fail(aviary_process *p, int code, const char *format, ...)
{
	char text[1024];
	aviary_error e;
	va_list ap;

	va_start(ap, format);
	(void)vsnprintf(text, sizeof(text), format, ap);
	va_end(ap);
	avc_sandbox_error(p->sb, &e, code, text);
	fail_with(p, &e);
}

/* The end of what it said to stderr, cut at a line or a character. */
static struct av_str last_words(const struct av_buf *err)
{
	struct av_str s = av_buf_str(err);
	ptrdiff_t newline;

	while (s.n && (s.p[s.n - 1] == '\n' || s.p[s.n - 1] == '\r'))
		s.n--;
	if (s.n <= SAID_MAX)
		return s;
	s = av_str_n(s.p + s.n - SAID_MAX, SAID_MAX);
	newline = av_str_chr(s, '\n');
	if (newline >= 0 && (size_t)newline + 1 < s.n)
		return av_str_n(s.p + newline + 1, s.n - (size_t)newline - 1);
	while (s.n && ((unsigned char)*s.p & 0xc0) == 0x80)
		s = av_str_n(s.p + 1, s.n - 1);
	return s;
}

void avc_process_settle(aviary_process *p)
{
	struct av_str said;

	if ((!p->has_result && !p->was_shown) || avc_op_done(p->op))
		return;
	if (p->on_output &&
	    (p->held || p->outputs[AVIARY_STDOUT].fresh.n || p->outputs[AVIARY_STDERR].fresh.n))
		return;
	avc_timer_stop(&p->guard);
	said = last_words(&p->outputs[AVIARY_STDERR].kept);
	if (p->result.timed_out)
		fail(p, AVIARY_E_EXEC_TIMEOUT, "the program was killed: its time was over");
	else if ((p->flags & AVIARY_EXEC_CHECK) && p->result.exit_code != 0)
		fail(p, AVIARY_E_EXEC_FAILED, "the program exited with %d%s%.*s",
		    p->result.exit_code, said.n ? ": " : "", AV_STR_ARG(said));
	else
		avc_op_end(p->op);
	settle_started(p);
}

static const char *kept_text(struct av_buf *b)
{
	return b->n ? av_buf_cstr(b) : "";
}

static int take_end(aviary_process *p, const json_t *j)
{
	struct avc_output *out = &p->outputs[AVIARY_STDOUT], *err = &p->outputs[AVIARY_STDERR];
	int64_t code = 0, sig = 0;
	bool core = false, late = false, oom = false;

	if (av_json_get_i64(j, "exitCode", INT32_MIN, INT32_MAX, &code, NULL) < 0 ||
	    av_json_get_i64(j, "signal", 0, 127, &sig, NULL) < 0 ||
	    av_json_get_bool(j, "coreDumped", &core, NULL) < 0 ||
	    av_json_get_bool(j, "timedOut", &late, NULL) < 0 ||
	    av_json_get_bool(j, "oomKilled", &oom, NULL) < 0)
		return -EPROTO;
	p->result = (struct aviary_exec_result){.exit_code = sig ? 128 + (int)sig : (int)code,
	    .signal = (int)sig,
	    .core_dumped = core,
	    .timed_out = late,
	    .oom_killed = oom,
	    .out = kept_text(&out->kept),
	    .err = kept_text(&err->kept),
	    .out_size = out->kept.n,
	    .err_size = err->kept.n,
	    .out_truncated = out->truncated,
	    .err_truncated = err->truncated,
	    .duration_ms = avc_now_ms() - p->began_ms};
	if (!p->result.out || !p->result.err)
		return -ENOMEM;
	p->ended = p->has_result = true;
	avc_process_settle(p);
	return 1;
}

/* What the server calls it, when it is about a process. */
static int code_of(const aviary_process *p, const char *name, json_int_t exit_code)
{
	int code = avc_code_of(name, 502, true, false);

	if (exit_code == 127)
		return AVIARY_E_EXEC_NOT_FOUND;
	if (exit_code == 126)
		return AVIARY_E_EXEC_NOT_EXECUTABLE;
	if (code == AVIARY_E_SANDBOX_NOT_FOUND && p->attached && !p->runs)
		return AVIARY_E_EXEC_NOT_FOUND;
	if (p->runs && (code == AVIARY_E_SANDBOX_NOT_FOUND || code == AVIARY_E_SANDBOX_NOT_RUNNING))
		return AVIARY_E_SANDBOX_TERMINATED;
	return code;
}

static int take_error(aviary_process *p, const json_t *j)
{
	const char *name = json_string_value(json_object_get(j, "code"));
	const char *message = json_string_value(json_object_get(j, "message"));
	json_int_t exit_code = json_integer_value(json_object_get(j, "exitCode"));
	aviary_error e;

	avc_sandbox_error(p->sb, &e, code_of(p, name, exit_code),
	    message ? message : "the program could not be started");
	e.server_code = name ? name : "";
	fail_with(p, &e);
	return 1;
}

/* ---- what the server says ---- */

/* One that is longer than any the server takes is none. */
static void set_tag(aviary_process *p, const char *tag)
{
	if (tag && av_str_copy(p->tag, sizeof(p->tag), av_str_c(tag)) < 0)
		p->tag[0] = '\0';
}

static int take_start(aviary_process *p, const json_t *j)
{
	const char *tag = json_string_value(json_object_get(j, "tag"));

	p->pid = json_integer_value(json_object_get(j, "pid"));
	set_tag(p, tag);
	p->runs = true;
	settle_started(p);
	return 0;
}

static int take_gap(aviary_process *p, const json_t *j)
{
	int64_t n = 0;

	if (av_json_get_i64(j, "dropped", 0, INT64_MAX / 2, &n, NULL) < 0 ||
	    p->dropped > INT64_MAX / 2)
		return -EPROTO;
	p->dropped += n;
	return 0;
}

static int on_control(void *ctx, struct av_str payload)
{
	AV_CLEANUP(av_json_decrefp) json_t *j = NULL;
	aviary_process *p = ctx;
	const json_t *o;
	int code;

	j = avc_json_load(payload, &code);
	if (!j)
		return code == AVIARY_E_NO_MEMORY ? -ENOMEM : -EPROTO;
	if ((o = json_object_get(j, "start")))
		return take_start(p, o);
	if ((o = json_object_get(j, "gap")))
		return take_gap(p, o);
	if ((o = json_object_get(j, "end")))
		return take_end(p, o);
	if ((o = json_object_get(j, "error")))
		return take_error(p, o);
	return 0; /* of a later protocol, and not for us */
}

static int on_data(void *ctx, enum av_frame_channel from, const uint8_t *data, size_t n, bool last)
{
	aviary_process *p = ctx;
	enum aviary_channel ch = from == AV_FRAME_STDERR && !(p->flags & AVIARY_EXEC_MERGE)
	                             ? AVIARY_STDERR
	                             : AVIARY_STDOUT;
	int r;

	(void)last;
	if (n == 0 || from == AV_FRAME_STDIN)
		return 0;
	r = avc_process_output(p, ch, (const char *)data, n);
	/* Meanwhile it may have been cancelled. */
	return r == 0 && p->ended ? 1 : r;
}

static const struct av_frame_events frame_events = {.on_control = on_control, .on_data = on_data};

/* ---- the stream ---- */

static int send_frame(aviary_process *p, enum av_frame_channel ch, struct av_str payload)
{
	uint8_t head[AV_FRAME_HEADER];

	av_frame_header(head, ch, payload.n);
	return avc_stream_send(p->stream, av_str_n((const char *)head, sizeof(head)), payload);
}

int avc_process_send(aviary_process *p, enum av_frame_channel ch, struct av_str payload)
{
	if (p->ended || p->detaching || avc_op_done(p->op))
		return -EPIPE;
	if (!p->first)
		return send_frame(p, ch, payload);
	if (p->early.n + AV_FRAME_HEADER + payload.n > AVC_EARLY_MAX)
		return -EMSGSIZE;
	return av_frame_write(&p->early, ch, payload);
}

static void on_guard(struct avc_timer *t)
{
	aviary_process *p = AV_CONTAINER_OF(t, aviary_process, guard);

	if (p->outputs[AVIARY_STDOUT].fresh.n || p->outputs[AVIARY_STDERR].fresh.n || p->held) {
		/* Its end may wait behind what nobody reads here. */
		avc_timer_start(p->c, &p->guard, GUARD_MS);
		return;
	}
	fail(p, AVIARY_E_TIMEOUT,
	    "the server did not say how the program ended, %d s after its time was over",
	    GUARD_MS / 1000);
	avc_stream_part(AV_TAKE_PTR(p->stream));
}

static void on_open(void *ctx)
{
	AV_CLEANUP(av_json_decrefp) json_t *first = NULL;
	AV_CLEANUP(av_buf_clear) struct av_buf body = AV_BUF_INIT(AV_FRAME_CONTROL_MAX);
	aviary_process *p = ctx;
	int r;

	first = AV_TAKE_PTR(p->first);
	r = av_json_dump(&body, first);
	if (r == 0)
		r = send_frame(p, AV_FRAME_CONTROL, av_buf_str(&body));
	if (r == 0 && p->early.n)
		r = avc_stream_send(p->stream, av_buf_str(&p->early), av_str_c(""));
	av_buf_clear(&p->early);
	if (r == -EMSGSIZE)
		fail(p, AVIARY_E_TOO_LARGE,
		    "the command with its environment is too long: at most %d bytes as JSON",
		    AV_FRAME_CONTROL_MAX);
	else if (r < 0)
		fail(p, AVIARY_E_NO_MEMORY, "out of memory");
	else if (p->timeout_ms > 0 && p->timeout_ms < INT64_MAX / 4)
		avc_timer_start(p->c, &p->guard, p->timeout_ms + GUARD_MS);
	if (r < 0)
		avc_stream_part(AV_TAKE_PTR(p->stream));
}

/* It is over: the connection is not needed any more. */
static void hang_up(aviary_process *p)
{
	if (!p->ended || p->detaching)
		return;
	avc_timer_stop(&p->guard);
	avc_stream_part(AV_TAKE_PTR(p->stream));
}

static void on_message(void *ctx, bool text, struct av_str data)
{
	aviary_process *p = ctx;
	ssize_t r;

	if (p->ended || avc_op_done(p->op))
		return;
	avc_process_pin(p);
	/* Who speaks text is no stream of frames: a proxy, or something of another kind. */
	r = text ? -EPROTO : av_frame_dec_feed(&p->decoder, data.p, data.n, &frame_events, p);
	if (r == -ENOMEM)
		fail(p, AVIARY_E_NO_MEMORY, "out of memory");
	else if (r < 0)
		fail(
		    p, AVIARY_E_PROTOCOL, "the server, or the sandbox's agent, broke the protocol");
	avc_process_balance(p);
	hang_up(p);
	avc_process_unpin(p);
}

static void on_drain(void *ctx)
{
	aviary_process *p = ctx;

	pthread_cond_broadcast(&p->c->changed);
}

static void on_end(void *ctx, const aviary_error *error)
{
	aviary_process *p = ctx;

	avc_process_pin(p);
	avc_timer_stop(&p->guard);
	if (p->detaching && !error) {
		p->ended = true;
		avc_op_end(p->op);
		settle_started(p);
	} else if (p->ended) {
		; /* a callback is still to get output */
	} else if (!error && (p->flags & AVIARY_EXEC_NO_FOLLOW)) {
		p->ended = p->was_shown = true;
		avc_process_settle(p);
	} else if (error) {
		fail_with(p, error);
	} else {
		fail(p, AVIARY_E_SANDBOX_TERMINATED,
		    "the sandbox, or the server, ended before it could say how the program did");
	}
	avc_stream_free(AV_TAKE_PTR(p->stream));
	avc_process_unpin(p);
}

static const struct avc_stream_events stream_events = {
    .on_open = on_open, .on_message = on_message, .on_drain = on_drain, .on_end = on_end};

static void go(struct avc_turn *t, const aviary_error *error)
{
	aviary_process *p = AV_CONTAINER_OF(t, struct aviary_process, turn);
	struct avc_stream_spec spec = {.protocol = AV_AGENT_WS_PROTOCOL,
	    .sandbox_id = p->sb->id,
	    .message_max = AVC_MESSAGE_MAX};
	char path[AVC_ID_SIZE + 64];

	avc_process_pin(p);
	if (error) {
		fail_with(p, error);
	} else {
		(void)snprintf(path, sizeof(path), "/v1/sandboxes/%s/exec/stream", p->sb->id);
		spec.path = path;
		p->began_ms = avc_now_ms();
		p->stream = avc_stream_open(p->c, &spec, &stream_events, p);
		if (!p->stream)
			fail(p, AVIARY_E_NO_MEMORY, "out of memory");
		avc_process_balance(p);
	}
	avc_process_unpin(p);
}

/* ---- its life here ---- */

static void process_destroy(aviary_process *p)
{
	aviary_client *c = p->c;

	aviary_op_free(p->op);
	aviary_op_free(p->started);
	json_decref(p->first);
	av_buf_clear(&p->early);
	av_frame_dec_clear(&p->decoder);
	for (size_t i = 0; i < AVC_CHANNELS; i++) {
		av_buf_clear(&p->outputs[i].fresh);
		av_buf_clear(&p->outputs[i].front);
		av_buf_clear(&p->outputs[i].line);
		av_buf_clear(&p->outputs[i].kept);
	}
	aviary_sandbox_free(p->sb);
	free(p);
	avc_client_unref(c);
}

static void bury(struct avc_corpse *corpse)
{
	process_destroy(AV_CONTAINER_OF(corpse, aviary_process, corpse));
}

/* A detached one that is to be started without anybody who holds its handle. */
static bool is_to_be_started(const aviary_process *p)
{
	return (p->flags & AVIARY_EXEC_DETACH) && !p->attached && !p->runs && !avc_op_done(p->op);
}

/* Nothing of it comes any more. */
static void let_go(aviary_process *p)
{
	avc_turn_cancel(&p->turn);
	avc_timer_stop(&p->guard);
	avc_timer_stop(&p->deliver);
	p->ended = true;
	avc_stream_part(AV_TAKE_PTR(p->stream));
	if (!avc_op_done(p->op))
		avc_op_fail(p->op, AVIARY_E_CANCELED, "its handle was freed");
	settle_started(p);
}

void avc_process_pin(aviary_process *p)
{
	p->pins++;
}

void avc_process_unpin(aviary_process *p)
{
	if (--p->pins > 0 || !p->freed || is_to_be_started(p))
		return;
	let_go(p);
	avc_bury(p->c, &p->corpse);
}

static void send_kill(aviary_process *p)
{
	const struct av_str kill = AV_STR("{\"signal\":\"SIGKILL\",\"scope\":\"group\"}");

	/* A bound one ends with its connection. */
	if (p->stream && !p->first && !p->attached && (p->flags & AVIARY_EXEC_DETACH))
		(void)send_frame(p, AV_FRAME_CONTROL, kill);
}

static void op_stop(aviary_op *op)
{
	aviary_process *p = op->work;

	send_kill(p);
	avc_turn_cancel(&p->turn);
	avc_timer_stop(&p->guard);
	avc_timer_stop(&p->deliver);
	p->ended = true;
	avc_stream_part(AV_TAKE_PTR(p->stream));
	if (p->started && !p->runs)
		avc_op_fail(p->started, AVIARY_E_CANCELED, "canceled");
	settle_started(p);
	if (p->freed && !p->pins) {
		/* The operation outlived its handle: somebody else holds that. */
		op->work = NULL;
		op->stop = NULL;
		avc_bury(p->c, &p->corpse);
	}
}

void aviary_process_free(aviary_process *p)
{
	aviary_client *c = p ? p->c : NULL;
	bool mine = false;

	if (!c)
		return;
	avc_lock(c);
	p->on_output = NULL;
	p->freed = true;
	/* A callback of it that runs in another thread is waited for. */
	avc_process_pin(p);
	while (p->calling && !(c->driving && pthread_equal(c->driver, pthread_self())))
		pthread_cond_wait(&c->changed, &c->lock);
	if (--p->pins == 0 && !is_to_be_started(p)) {
		let_go(p);
		mine = true;
	}
	avc_unlock(c);
	if (mine)
		process_destroy(p);
}

int aviary_process_detach(aviary_process *p)
{
	int r = AVIARY_E_STATE;

	if (!p->c)
		return AVIARY_E_NO_MEMORY;
	avc_lock(p->c);
	if (p->stream && p->runs && !p->ended && !p->detaching &&
	    (p->attached || (p->flags & AVIARY_EXEC_DETACH))) {
		p->detaching = true;
		avc_timer_stop(&p->guard);
		/* Its answer is read, whatever waits before it. */
		avc_stream_pause(p->stream, false);
		avc_stream_close(p->stream);
		r = AVIARY_OK;
	}
	avc_unlock(p->c);
	return r;
}

/* ---- starting ---- */

static json_t *program_of(struct avc_texts *t, const aviary_exec_options *o)
{
	json_t *process = json_object(), *args = json_array(), *envs = json_object();

	for (size_t i = 1; i < o->command.n; i++)
		avc_append_text(t, args, "an argument of the command", o->command.items[i]);
	for (size_t i = 0; i < o->envs.n; i++)
		avc_put_pair(
		    t, envs, "a variable of envs", o->envs.items[i].name, o->envs.items[i].value);
	avc_put_text(t, process, "cmd", o->command.items[0]);
	avc_put(t, process, "args", args);
	avc_put(t, process, "envs", envs);
	avc_put_text(t, process, "cwd", o->cwd);
	return process;
}

/* NULL: t says why. */
static json_t *start_message(struct avc_texts *t, const aviary_exec_options *o)
{
	bool input = (o->flags & (AVIARY_EXEC_STDIN | AVIARY_EXEC_PTY)) != 0;
	json_t *j = json_object();

	avc_put(t, j, "process", program_of(t, o));
	avc_put(t, j, "stdin", json_boolean(input));
	avc_put(t, j, "killGroup", json_true());
	avc_put_text(t, j, "onDetach", o->flags & AVIARY_EXEC_DETACH ? "keep" : "kill");
	if (o->flags & AVIARY_EXEC_PTY)
		avc_put(t, j, "pty",
		    json_pack("{s:{s:i, s:i}}", "size", "cols", (int)(o->cols ? o->cols : 80),
		        "rows", (int)(o->rows ? o->rows : 24)));
	avc_put_text(t, j, "tag", o->tag);
	avc_put_text(t, j, "user", o->user);
	if (o->timeout_ms > 0)
		avc_put(t, j, "timeoutMs", json_integer((json_int_t)o->timeout_ms));
	if (t->code == 0)
		return j;
	json_decref(j);
	return NULL;
}

/* For whoever has no memory left; it has no client, and is never written to or freed. */
static struct aviary_process no_memory;

static aviary_process *process_new(aviary_sandbox *sb, const aviary_exec_options *o)
{
	aviary_process *p = calloc(1, sizeof(*p));

	if (!p)
		return NULL;
	p->c = avc_client_ref(sb->c);
	p->sb = aviary_sandbox_ref(sb);
	p->flags = o->flags;
	p->timeout_ms = o->timeout_ms;
	p->collect_max = o->collect_max ? AV_MIN(o->collect_max, COLLECT_MOST) : COLLECT_DEFAULT;
	set_tag(p, o->tag);
	av_frame_dec_init(&p->decoder);
	av_list_init(&p->turn.link);
	av_list_init(&p->corpse.link);
	av_list_init(&p->guard.link);
	av_list_init(&p->deliver.link);
	p->corpse.bury = bury;
	p->guard.on_due = on_guard;
	p->deliver.on_due = avc_process_on_deliver;
	p->turn.go = go;
	p->turn.give_up_ms = avc_deadline(sb->start_timeout_ms);
	av_buf_init(&p->early, AVC_EARLY_MAX);
	for (size_t i = 0; i < AVC_CHANNELS; i++) {
		av_buf_init(&p->outputs[i].fresh, COLLECT_MOST + AVC_OUTPUT_MAX);
		av_buf_init(&p->outputs[i].front, COLLECT_MOST + AVC_OUTPUT_MAX);
		av_buf_init(&p->outputs[i].line, AVC_LINE_MAX + 2);
		av_buf_init(&p->outputs[i].kept, p->collect_max + 1);
	}
	p->op = avc_op_new(sb->c);
	return p;
}

static bool has_command(const aviary_exec_options *o)
{
	return o->command.n && o->command.items[0] && o->command.items[0][0];
}

static bool size_is_good(const aviary_exec_options *o)
{
	return o->cols <= UINT16_MAX && o->rows <= UINT16_MAX;
}

static void refuse(aviary_process *p, const struct avc_texts *t)
{
	if (t->code == AVIARY_E_INVALID)
		fail(p, t->code, "%s is not UTF-8", t->what);
	else
		fail(p, AVIARY_E_NO_MEMORY, "out of memory");
}

/* Steals first; NULL: texts says why, or the command is none. */
static aviary_process *process_start(aviary_sandbox *sb, const aviary_exec_options *o,
    bool attached, json_t *first, const struct avc_texts *texts)
{
	aviary_process *p = process_new(sb, o);

	if (!p) {
		json_decref(first);
		return &no_memory;
	}
	p->first = first;
	p->attached = attached;
	if (!p->op->c)
		return p;
	avc_lock(p->c);
	if (p->c->closed) {
		fail(p, AVIARY_E_STATE, "the client was closed");
	} else if (!attached && !has_command(o)) {
		fail(p, AVIARY_E_INVALID, "the command is empty: its first item is the program");
	} else if (!first) {
		refuse(p, texts);
	} else if (!size_is_good(o)) {
		fail(p, AVIARY_E_INVALID, "a terminal has at most 65535 columns and rows");
	} else {
		p->op->work = p;
		p->op->stop = op_stop;
		avc_sandbox_need(sb, &p->turn);
	}
	avc_unlock(p->c);
	return p;
}

static aviary_exec_options take_options(const aviary_exec_options *options)
{
	aviary_exec_options o = {0};

	if (options)
		memcpy(&o, options, AV_MIN(options->struct_size, sizeof(o)));
	return o;
}

aviary_process *aviary_sandbox_exec(aviary_sandbox *sb, const aviary_exec_options *options)
{
	aviary_exec_options o = take_options(options);
	struct avc_texts texts = {0};
	json_t *first = has_command(&o) ? start_message(&texts, &o) : NULL;

	return process_start(sb, &o, false, first, &texts);
}

aviary_exec_result *aviary_sandbox_exec_sync(
    aviary_sandbox *sb, const aviary_exec_options *options, aviary_error *error)
{
	aviary_exec_options o = take_options(options);
	aviary_process *p;

	o.struct_size = sizeof(o);
	o.flags |= AVIARY_EXEC_COLLECT;
	p = aviary_sandbox_exec(sb, &o);
	if (aviary_await_process(p, error))
		return &p->result;
	aviary_process_free(p);
	return NULL;
}

void aviary_exec_result_free(aviary_exec_result *result)
{
	if (result)
		aviary_process_free(AV_CONTAINER_OF(result, aviary_process, result));
}

aviary_process *aviary_sandbox_shell(aviary_sandbox *sb, const char *script)
{
	const char *const command[] = {"/bin/sh", "-c", script};
	const aviary_exec_options o = {.struct_size = sizeof(o),
	    .flags = AVIARY_EXEC_COLLECT,
	    .command = {command, AV_ARRAY_LEN(command)}};

	return aviary_sandbox_exec(sb, &o);
}

/* envs with TERM. NULL: no memory. */
static aviary_pair *with_term(const aviary_pairs *envs)
{
	aviary_pair *all = malloc((envs->n + 1) * sizeof(*all));

	if (!all)
		return NULL;
	/* What comes later counts. */
	all[0] = (aviary_pair){"TERM", "xterm-256color"};
	if (envs->n)
		memcpy(all + 1, envs->items, envs->n * sizeof(*all));
	return all;
}

aviary_process *aviary_sandbox_terminal(aviary_sandbox *sb, const aviary_exec_options *options)
{
	static const char *const shell[] = {
	    "/bin/sh", "-c", "[ -x /bin/bash ] && exec /bin/bash -l; exec /bin/sh -l"};
	aviary_exec_options o = take_options(options);
	aviary_pair *envs = with_term(&o.envs);
	char tag[5 + 16 + 1] = "term-";
	uint8_t random[8];
	aviary_process *p;

	if (!envs)
		return &no_memory;
	av_random(random, sizeof(random));
	av_hex_encode(tag + 5, random, sizeof(random));
	o.struct_size = sizeof(o);
	o.flags |= AVIARY_EXEC_PTY;
	o.tag = o.tag ? o.tag : tag;
	o.envs = (aviary_pairs){envs, o.envs.n + 1};
	if (o.command.n == 0)
		o.command = (aviary_strings){shell, AV_ARRAY_LEN(shell)};
	p = aviary_sandbox_exec(sb, &o);
	free(envs);
	return p;
}

aviary_process *aviary_sandbox_connect_with(
    aviary_sandbox *sb, const char *selector, const aviary_exec_options *options)
{
	aviary_exec_options all = take_options(options);
	const aviary_exec_options o = {
	    .flags = (all.flags & (AVIARY_EXEC_COLLECT | AVIARY_EXEC_CHECK | AVIARY_EXEC_MERGE |
	                              AVIARY_EXEC_NO_FOLLOW)) |
	             AVIARY_EXEC_DETACH | AVIARY_EXEC_STDIN,
	    .collect_max = all.collect_max,
	    .cols = all.cols,
	    .rows = all.rows};
	bool replay = !(all.flags & AVIARY_EXEC_NO_REPLAY);
	bool follow = !(all.flags & AVIARY_EXEC_NO_FOLLOW);
	uint64_t pid;
	bool by_pid = av_parse_u64(av_str_c(selector), 0, UINT32_MAX, &pid) == 0;
	json_t *which = json_object(), *connect = json_object(), *first = json_object();
	struct avc_texts texts = {0};
	aviary_process *p;

	if (by_pid)
		avc_put(&texts, which, "pid", json_integer((json_int_t)pid));
	else
		avc_put_text(&texts, which, "tag", selector);
	avc_put(&texts, connect, "process", which);
	avc_put(&texts, connect, "replay", json_boolean(replay));
	avc_put(&texts, connect, "follow", json_boolean(follow));
	avc_put(&texts, first, "connect", connect);
	if (texts.code) {
		json_decref(first);
		first = NULL;
	}
	p = process_start(sb, &o, true, first, &texts);
	if (o.cols && o.rows)
		(void)aviary_process_resize(p, o.cols, o.rows);
	return p;
}

aviary_process *aviary_sandbox_connect(aviary_sandbox *sb, const char *selector)
{
	return aviary_sandbox_connect_with(sb, selector, NULL);
}

/* ---- what callers see ---- */

aviary_op *aviary_process_op(aviary_process *p)
{
	return p->op ? p->op : avc_op_none();
}

aviary_op *aviary_process_started(aviary_process *p)
{
	aviary_op *op;

	if (!p->c || !p->op->c)
		return avc_op_none();
	avc_lock(p->c);
	op = aviary_op_ref(p->started);
	avc_unlock(p->c);
	if (op)
		return op;
	op = avc_op_new(p->c);
	if (!op->c)
		return op;
	avc_lock(p->c);
	if (p->started) {
		/* Two threads have asked at once. */
		avc_op_end(op);
		aviary_op_free(op);
		op = aviary_op_ref(p->started);
	} else {
		p->started = aviary_op_ref(op);
	}
	if (p->runs || avc_op_done(p->op))
		settle_started(p);
	avc_unlock(p->c);
	return op;
}

const aviary_exec_result *aviary_process_result(const aviary_process *p)
{
	const aviary_exec_result *r;

	if (!p->c)
		return NULL;
	avc_lock(p->c);
	r = p->has_result && avc_op_done(p->op) ? &p->result : NULL;
	avc_unlock(p->c);
	return r;
}

const aviary_exec_result *aviary_await_process(aviary_process *p, aviary_error *error)
{
	aviary_op *op = aviary_process_op(p);
	int r = aviary_op_wait(op, -1);

	if (error)
		avc_error_copy(error, aviary_op_error(op));
	return r < 0 ? NULL : aviary_process_result(p);
}

int aviary_process_poll(aviary_process *p, int *ret_exit_code)
{
	int r;

	if (!p->c)
		return AVIARY_E_NO_MEMORY;
	avc_lock(p->c);
	if (!avc_op_done(p->op))
		(void)avc_drive(p->c, 0);
	r = p->has_result && avc_op_done(p->op) ? 1 : avc_op_done(p->op) ? p->op->code : 0;
	if (r == 1 && ret_exit_code)
		*ret_exit_code = p->result.exit_code;
	avc_unlock(p->c);
	return r;
}

int64_t aviary_process_pid(const aviary_process *p)
{
	int64_t pid;

	if (!p->c)
		return 0;
	avc_lock(p->c);
	pid = p->pid;
	avc_unlock(p->c);
	return pid;
}

const char *aviary_process_tag(const aviary_process *p)
{
	return p->tag;
}

int64_t aviary_process_dropped(const aviary_process *p)
{
	int64_t n;

	if (!p->c)
		return 0;
	avc_lock(p->c);
	n = p->dropped;
	avc_unlock(p->c);
	return n;
}
