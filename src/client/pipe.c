/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pipe.c - an operation that is one request whose bodies pipe (see pipe.h)
 */
#include "client/pipe.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#include "base/banned.h"

#define PIPE_MARK  ((size_t)256 << 10)
#define PIPE_PIECE ((size_t)64 << 10)
#define PATH_BYTES ((size_t)64 << 10)

/* An end's descriptor. It outlives its half, as events that were just collected may name it. */
struct socket {
	struct avc_watch watch;
	struct avc_corpse corpse;
	struct pipe *owner;
};

/* One direction. */
struct half {
	struct avc_end *end; /* owned; NULL: none */
	struct av_buf buf;
	bool held;             /* the end said AVC_LATER */
	bool rests;            /* libcurl waits for bytes, or for room */
	bool closed;           /* a source: it has no more; a sink: no more comes */
	struct socket *socket; /* NULL: not waited for */
};

struct pipe {
	struct avc_turn turn;
	struct av_list link; /* c->pipes */
	aviary_client *c;
	aviary_op *op; /* NULL: let go of */
	struct avc_request *rq;
	struct half in, out; /* in: from the end to the server */
	struct avc_timer pump;
	bool busy;
	bool again; /* avc_pipe_resume() was called while an end worked */
	int64_t size;
	struct avc_request_spec spec;
	bool as_it_is;
	unsigned port;
	char *path, *file, *key;
	aviary_pair *headers; /* their strings are owned */
	int (*take)(aviary_op *op, const struct avc_reply *reply, void *ctx);
	void *ctx;
	void (*free_ctx)(void *ctx);
	/* The answer, while the sink has not taken all of it. */
	int status;
	char *answer_headers;
};

/* ---- life ---- */

static void bury_socket(struct avc_corpse *corpse)
{
	free(AV_CONTAINER_OF(corpse, struct socket, corpse));
}

static void unwatch(struct pipe *f, struct half *h)
{
	struct socket *s = AV_TAKE_PTR(h->socket);

	if (!s)
		return;
	(void)avc_watch_set(f->c, &s->watch, 0);
	s->watch.on_ready = NULL;
	avc_bury(f->c, &s->corpse);
}

static void half_clear(struct half *h)
{
	if (h->end)
		h->end->free(h->end);
	av_buf_clear(&h->buf);
}

static void free_headers(aviary_pair *headers, size_t n)
{
	for (size_t i = 0; headers && i < n; i++) {
		free((char *)(uintptr_t)headers[i].name);
		free((char *)(uintptr_t)headers[i].value);
	}
	free(headers);
}

static void pipe_free(struct pipe *f)
{
	half_clear(&f->in);
	half_clear(&f->out);
	free_headers(f->headers, f->spec.n_headers);
	free(f->answer_headers);
	free(f->path);
	free(f->file);
	free(f->key);
	if (f->free_ctx)
		f->free_ctx(f->ctx);
	free(f);
}

/* Nothing comes to it any more. */
static void let_go(struct pipe *f)
{
	f->op = NULL;
	avc_turn_cancel(&f->turn);
	avc_request_cancel(AV_TAKE_PTR(f->rq));
	avc_timer_stop(&f->pump);
	unwatch(f, &f->in);
	unwatch(f, &f->out);
	av_list_remove(&f->link);
	if (!f->busy)
		pipe_free(f);
}

static void pipe_stop(aviary_op *op)
{
	let_go(op->work);
}

static void pipe_fail(struct pipe *f, int code, const char *why)
{
	aviary_op *op = f->op;
	aviary_error e = avc_error_of(code, why);

	if (op->sb)
		e.sandbox_id = op->sb->id;
	if (f->file)
		e.path = f->file;
	avc_op_fail_with(op, &e);
	let_go(f);
}

/* ---- the pump ---- */

static void on_pump(struct avc_timer *t);

static void schedule(struct pipe *f)
{
	f->pump.on_due = on_pump;
	if (av_list_empty(&f->pump.link))
		avc_timer_start(f->c, &f->pump, 0);
}

static void on_ready(struct avc_watch *w, uint32_t events)
{
	struct socket *s = AV_CONTAINER_OF(w, struct socket, watch);
	struct pipe *f = s->owner;

	(void)events;
	(void)avc_watch_set(f->c, w, 0); /* until it says so again */
	(f->in.socket == s ? &f->in : &f->out)->held = false;
	schedule(f);
}

/* The end has nothing, or no room. False: its descriptor cannot be waited for. */
static bool hold(struct pipe *f, struct half *h)
{
	struct socket *s = h->socket;

	h->held = h->end->fd >= 0 || !f->again;
	if (h->end->fd < 0)
		return true;
	if (!s) {
		s = calloc(1, sizeof(*s));
		if (!s)
			return false;
		s->owner = f;
		s->watch = (struct avc_watch){.fd = h->end->fd, .on_ready = on_ready};
		s->corpse.bury = bury_socket;
		av_list_init(&s->corpse.link);
		h->socket = s;
	}
	return avc_watch_set(
	           f->c, &s->watch, h == &f->in ? (uint32_t)EPOLLIN : (uint32_t)EPOLLOUT) == 0;
}

/* Lets the end work. False: the pipe is over, and may be gone. */
static bool work(struct pipe *f, struct half *h, void *p, size_t n, int64_t *ret)
{
	aviary_op *op = f->op;

	f->busy = op->held = true;
	f->again = false;
	avc_unlock(f->c);
	*ret = p ? h->end->move(h->end, p, n) : h->end->finish(h->end);
	avc_lock(f->c);
	f->busy = op->held = false;
	if (op->cancel_wanted) {
		avc_op_cancel(op);
		return false;
	}
	if (*ret == 0 && p && h == &f->out)
		*ret = AVC_LATER; /* it took nothing */
	if (*ret < 0 && *ret != AVC_LATER) {
		pipe_fail(f, (int)*ret, h->end->why);
		return false;
	}
	if (*ret == AVC_LATER && p && !hold(f, h)) {
		pipe_fail(f, AVIARY_E_NO_MEMORY, NULL);
		return false;
	}
	return true;
}

static bool pump_in(struct pipe *f)
{
	struct half *h = &f->in;

	while (!h->closed && !h->held && h->buf.n < PIPE_MARK) {
		int64_t n;
		char *p;

		if (av_buf_reserve(&h->buf, PIPE_PIECE, &p) < 0) {
			pipe_fail(f, AVIARY_E_NO_MEMORY, NULL);
			return false;
		}
		if (!work(f, h, p, PIPE_PIECE, &n))
			return false;
		if (n == 0)
			h->closed = true;
		if (n > 0) {
			av_buf_commit(&h->buf, (size_t)n);
			f->op->moved += n;
		}
	}
	if (h->rests && (h->buf.n || h->closed)) {
		h->rests = false;
		avc_request_resume(f->rq);
	}
	return true;
}

/* The answer is here, and all of it was taken. */
static void complete(struct pipe *f)
{
	const struct avc_reply reply = {
	    .code = AVIARY_OK, .status = f->status, .headers = av_str_c(f->answer_headers)};
	aviary_op *op = f->op;
	int r = f->take ? f->take(op, &reply, f->ctx) : 0;

	if (r < 0) {
		pipe_fail(f, r, NULL);
		return;
	}
	avc_op_end(op);
	let_go(f);
}

static void pump_out(struct pipe *f)
{
	struct half *h = &f->out;
	int64_t n = 0;

	while (h->buf.n && !h->held) {
		if (!work(f, h, h->buf.p + h->buf.off, h->buf.n, &n))
			return;
		if (n > 0) {
			av_buf_consume(&h->buf, (size_t)n);
			f->op->moved += n;
		}
	}
	if (h->rests && h->buf.n < PIPE_MARK / 2) {
		h->rests = false;
		avc_request_resume(f->rq);
	}
	if (!h->closed || h->buf.n)
		return;
	if (h->end->finish && !work(f, h, NULL, 0, &n))
		return;
	if (n == AVC_LATER)
		schedule(f);
	else
		complete(f);
}

static void on_pump(struct avc_timer *t)
{
	struct pipe *f = AV_CONTAINER_OF(t, struct pipe, pump);

	if (f->in.end && !pump_in(f))
		return;
	if (f->out.end)
		pump_out(f);
}

void avc_pipe_resume(aviary_op *op)
{
	struct pipe *f = op->stop == pipe_stop ? op->work : NULL;

	if (!f)
		return;
	f->again = true;
	if (f->in.end && f->in.end->fd < 0)
		f->in.held = false;
	if (f->out.end && f->out.end->fd < 0)
		f->out.held = false;
	schedule(f);
}

/* ---- libcurl's side ---- */

static int64_t pull(void *ctx, char *p, size_t n)
{
	struct pipe *f = ctx;
	struct half *h = &f->in;

	if (h->buf.n == 0 && !h->closed)
		h->rests = true;
	n = AV_MIN(n, h->buf.n);
	if (n) {
		memcpy(p, h->buf.p + h->buf.off, n);
		av_buf_consume(&h->buf, n);
	}
	if (h->buf.n < PIPE_MARK / 2 && !h->closed && !h->held)
		schedule(f);
	return h->rests ? AVC_LATER : (int64_t)n;
}

static bool rewind_in(void *ctx)
{
	struct pipe *f = ctx;
	struct half *h = &f->in;

	if (f->busy || !h->end->rewind || !h->end->rewind(h->end))
		return false;
	av_buf_reset(&h->buf);
	h->closed = h->rests = h->held = false;
	f->op->moved = 0;
	return true;
}

static int begin_out(void *ctx, int status, int64_t size, struct av_str headers)
{
	struct pipe *f = ctx;

	f->op->total = size;
	f->op->status = status;
	free(f->answer_headers);
	f->answer_headers = av_str_dup(headers);
	return f->answer_headers ? 0 : AVIARY_E_NO_MEMORY;
}

static int push(void *ctx, const char *p, size_t n)
{
	struct pipe *f = ctx;
	struct half *h = &f->out;

	if (h->buf.n >= PIPE_MARK) {
		h->rests = true;
		return AVC_LATER;
	}
	if (av_buf_append(&h->buf, p, n) < 0)
		return AVIARY_E_NO_MEMORY;
	if (!h->held)
		schedule(f);
	return 0;
}

static void on_reply(void *ctx, const struct avc_reply *reply)
{
	struct pipe *f = ctx;
	aviary_op *op = f->op;
	int r = reply->code;

	f->rq = NULL;
	op->status = reply->status;
	if (r == 0 && f->out.end) {
		f->status = reply->status;
		f->out.closed = true;
		schedule(f);
		return;
	}
	if (f->take)
		r = f->take(op, reply, f->ctx);
	if (r == 0)
		avc_op_end(op);
	else if (reply->error && reply->error->code == r)
		avc_op_fail_with(op, reply->error);
	else
		avc_op_fail(op, r, "%s", aviary_code_text(r));
	let_go(f);
}

/* ---- the beginning ---- */

/* Headers that lead to the port, before those of the caller's. */
static void set_route(struct pipe *f, aviary_pair *headers, char port[static 12])
{
	headers[0] = (aviary_pair){"X-Aviary-Sandbox", f->op->sb->id};
	headers[1] = (aviary_pair){"X-Aviary-Port", port};
	(void)snprintf(port, 12, "%u", f->port);
	if (f->spec.n_headers)
		memcpy(headers + 2, f->headers, f->spec.n_headers * sizeof(*headers));
}

static bool ask(struct pipe *f)
{
	AV_CLEANUP(av_buf_clear) struct av_buf path = AV_BUF_INIT(PATH_BYTES);
	const struct avc_source source = {
	    .size = f->size, .pull = pull, .rewind = rewind_in, .ctx = f};
	const struct avc_sink sink = {.begin = begin_out, .push = push, .ctx = f};
	struct avc_request_spec spec = f->spec;
	aviary_pair *headers = calloc(f->spec.n_headers + 2, sizeof(*headers));
	const char *id = f->op->sb ? f->op->sb->id : NULL;
	char port[12];

	if (f->port || !id)
		(void)av_buf_append_c(&path, f->path);
	else
		(void)av_buf_printf(&path, "/v1/sandboxes/%s%s", id, f->path);
	spec.path = av_buf_cstr(&path);
	spec.file = f->file;
	spec.idempotency_key = f->key;
	spec.sandbox_id = id;
	spec.headers = f->headers;
	if (f->in.end)
		spec.source = &source;
	if (f->out.end)
		spec.sink = &sink;
	if (headers && f->port) {
		set_route(f, headers, port);
		spec.headers = headers;
		spec.n_headers += 2;
	}
	if (headers && spec.path)
		f->rq = avc_request_start(f->c, &spec, on_reply, f);
	free(headers);
	return f->rq != NULL;
}

static void on_running(struct avc_turn *t, const aviary_error *error)
{
	struct pipe *f = AV_CONTAINER_OF(t, struct pipe, turn);

	if (error) {
		avc_op_fail_with(f->op, error);
		let_go(f);
	} else if (!ask(f)) {
		pipe_fail(f, AVIARY_E_NO_MEMORY, NULL);
	}
}

static bool dup_headers(struct pipe *f, const struct avc_request_spec *rq)
{
	f->headers = rq->n_headers ? calloc(rq->n_headers, sizeof(*f->headers)) : NULL;
	if (rq->n_headers && !f->headers)
		return false;
	f->spec.n_headers = rq->n_headers;
	for (size_t i = 0; i < rq->n_headers; i++) {
		f->headers[i].name = av_str_dup(av_str_c(rq->headers[i].name));
		f->headers[i].value = av_str_dup(av_str_c(rq->headers[i].value));
		if (!f->headers[i].name || !f->headers[i].value)
			return false;
	}
	return true;
}

static struct pipe *pipe_new(const struct avc_pipe_spec *spec)
{
	struct pipe *f = calloc(1, sizeof(*f));

	if (!f)
		return NULL;
	av_list_init(&f->link);
	av_list_init(&f->turn.link);
	av_list_init(&f->pump.link);
	av_buf_init(&f->in.buf, PIPE_MARK + PIPE_PIECE);
	av_buf_init(&f->out.buf, PIPE_MARK + (size_t)CURL_MAX_WRITE_SIZE * 64);
	f->c = spec->sb ? spec->sb->c : spec->c;
	f->size = spec->size;
	f->spec = spec->rq;
	f->spec.n_headers = 0;
	f->port = spec->port;
	f->as_it_is = spec->as_it_is;
	if (!avc_dup_text(&f->path, spec->rq.path) || !avc_dup_text(&f->file, spec->rq.file) ||
	    !avc_dup_text(&f->key, spec->rq.idempotency_key) || !dup_headers(f, &spec->rq)) {
		pipe_free(f);
		return NULL;
	}
	/* From here on it owns what it was given. */
	f->in.end = spec->source;
	f->out.end = spec->sink;
	f->take = spec->take;
	f->ctx = spec->ctx;
	f->free_ctx = spec->free_ctx;
	return f;
}

static void drop(const struct avc_pipe_spec *spec)
{
	if (spec->source)
		spec->source->free(spec->source);
	if (spec->sink)
		spec->sink->free(spec->sink);
	if (spec->free_ctx)
		spec->free_ctx(spec->ctx);
}

static void begin(aviary_op *op, struct pipe *f)
{
	struct aviary_sandbox *sb = op->sb;

	f->op = op;
	op->work = f;
	op->stop = pipe_stop;
	op->total = f->in.end ? f->size : -1;
	av_list_append(&f->c->pipes, &f->link);
	if (f->c->closed) {
		pipe_fail(f, AVIARY_E_STATE, "the client was closed");
		return;
	}
	if (!sb || (f->as_it_is && sb->id[0])) {
		on_running(&f->turn, NULL);
		return;
	}
	f->turn.go = on_running;
	f->turn.give_up_ms = avc_deadline(sb->start_timeout_ms);
	avc_sandbox_need(sb, &f->turn);
}

aviary_op *avc_pipe(const struct avc_pipe_spec *spec)
{
	aviary_client *c = spec->sb ? spec->sb->c : spec->c;
	aviary_op *op = avc_op_new(c);
	struct pipe *f = op->c && !spec->failed ? pipe_new(spec) : NULL;

	if (!f)
		drop(spec);
	if (!op->c)
		return op;
	avc_lock(c);
	op->sb = aviary_sandbox_ref(spec->sb);
	if (f)
		begin(op, f);
	else
		avc_op_fail(op, AVIARY_E_NO_MEMORY, "out of memory");
	avc_unlock(c);
	return op;
}

void avc_pipes_end(aviary_client *c)
{
	struct pipe *f;

	while ((f = AV_LIST_FIRST(&c->pipes, struct pipe, link)))
		pipe_fail(f, AVIARY_E_CANCELED, "the client was closed");
}
