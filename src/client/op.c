/* SPDX-License-Identifier: Apache-2.0 */
/*
 * op.c - operations: how they end, waiting for one or for several (see aviary/op.h)
 */
#include "client/sandbox.h"

#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/banned.h"

#define TEXT_MAX 2048

/* For whoever has no memory left: done from the beginning, and never freed. */
static struct aviary_op no_memory = {.code = AVIARY_E_NO_MEMORY,
    .error = {.code = AVIARY_E_NO_MEMORY,
        .retry_after_ms = -1,
        .message = "out of memory",
        .server_code = "",
        .sandbox_id = "",
        .request_id = "",
        .path = ""}};

static const aviary_error no_error = {.retry_after_ms = -1,
    .message = "",
    .server_code = "",
    .sandbox_id = "",
    .request_id = "",
    .path = ""};

aviary_op *avc_op_new(aviary_client *c)
{
	aviary_op *op = calloc(1, sizeof(*op));

	if (!op)
		return &no_memory;
	atomic_init(&op->refs, 2); /* the caller's, and its own until it is done */
	op->c = avc_client_ref(c);
	op->code = AVIARY_E_AGAIN;
	op->error = no_error;
	av_list_init(&op->link);
	av_list_init(&op->in);
	avc_lock(c);
	av_list_append(&c->open, &op->in);
	c->n_open++;
	avc_unlock(c);
	return op;
}

aviary_op *avc_op_none(void)
{
	return &no_memory;
}

aviary_op *aviary_op_ref(aviary_op *op)
{
	if (op && op->c)
		atomic_fetch_add(&op->refs, 1);
	return op;
}

void aviary_op_free(aviary_op *op)
{
	aviary_client *c = op ? op->c : NULL;

	if (!c || atomic_fetch_sub(&op->refs, 1) > 1)
		return;
	if (op->type && op->result)
		op->type->free(op->result);
	free(op->body);
	aviary_sandbox_free(op->sb);
	for (size_t i = 0; i < AV_ARRAY_LEN(op->texts); i++)
		free(op->texts[i]);
	free(op);
	avc_client_unref(c);
}

/* ---- ending ---- */

static void end(aviary_op *op, int code)
{
	aviary_client *c = op->c;
	const uint64_t one = 1;
	struct avc_waiter *w;

	op->code = code;
	op->work = NULL;
	op->stop = NULL;
	av_list_remove(&op->in);
	c->n_open--;
	if (c->closed && !c->driving) /* nobody calls back any more; the maker has another one */
		atomic_fetch_sub(&op->refs, 1);
	else
		av_list_append(&c->fired, &op->link); /* with its own reference */
	pthread_cond_broadcast(&c->changed);
	AV_LIST_FOREACH(w, &c->waiters, struct avc_waiter, link)
	{
		if (write(w->fd, &one, sizeof(one)) < 0)
			continue; /* full: they are awake */
	}
	avc_wake(c);
}

void avc_op_end(aviary_op *op)
{
	if (!avc_op_done(op))
		end(op, AVIARY_OK);
}

/* A copy that the operation owns; without memory the empty string. */
static const char *keep(aviary_op *op, size_t i, const char *text)
{
	if (!text || !*text)
		return "";
	op->texts[i] = av_str_dup(av_str_c(text));
	return op->texts[i] ? op->texts[i] : "";
}

void avc_op_fail_with(aviary_op *op, const aviary_error *error)
{
	if (avc_op_done(op))
		return;
	op->error = *error;
	op->error.message = keep(op, 0, error->message);
	op->error.server_code = keep(op, 1, error->server_code);
	op->error.sandbox_id = keep(op, 2, error->sandbox_id);
	op->error.request_id = keep(op, 3, error->request_id);
	op->error.path = keep(op, 4, error->path);
	if (!op->error.message[0])
		op->error.message = aviary_code_text(error->code);
	end(op, error->code);
}

void avc_op_fail(aviary_op *op, int code, const char *format, ...)
{
	aviary_error error;
	char text[TEXT_MAX];
	va_list ap;

	va_start(ap, format);
	(void)vsnprintf(text, sizeof(text), format, ap);
	va_end(ap);
	error = avc_error_of(code, text);
	avc_op_fail_with(op, &error);
}

void avc_op_give(aviary_op *op, const struct avc_type *type, void *result)
{
	op->type = type;
	op->result = result;
}

bool avc_op_keep_body(aviary_op *op, struct av_str body)
{
	if (op->body || !body.n)
		return true;
	op->body = av_str_dup(body);
	op->body_size = op->body ? body.n : 0;
	return op->body != NULL;
}

void *avc_op_take(aviary_op *op, const struct avc_type *type)
{
	void *result = NULL;

	if (!op->c)
		return NULL;
	avc_lock(op->c);
	if (avc_op_done(op) && op->code == AVIARY_OK && op->type == type)
		result = AV_TAKE_PTR(op->result);
	avc_unlock(op->c);
	return result;
}

void *avc_op_await(aviary_op *op, const struct avc_type *type, aviary_error *error)
{
	void *result = aviary_op_wait(op, -1) == 0 ? avc_op_take(op, type) : NULL;

	if (error)
		avc_error_copy(error, aviary_op_error(op));
	aviary_op_free(op);
	return result;
}

/* ---- what callers see ---- */

const char *aviary_op_body(const aviary_op *op, size_t *ret_size)
{
	bool there = aviary_op_is_done(op) && op->body;

	if (ret_size)
		*ret_size = there ? op->body_size : 0;
	return there ? op->body : "";
}

int aviary_op_code(const aviary_op *op)
{
	int code;

	if (!op->c)
		return op->code;
	avc_lock(op->c);
	code = op->code;
	avc_unlock(op->c);
	return code;
}

int aviary_op_is_done(const aviary_op *op)
{
	return aviary_op_code(op) != AVIARY_E_AGAIN;
}

const aviary_error *aviary_op_error(const aviary_op *op)
{
	/* Written before the code, once. */
	return aviary_op_is_done(op) ? &op->error : &no_error;
}

void aviary_op_set_user(aviary_op *op, void *user)
{
	if (op->c)
		op->user = user;
}

void *aviary_op_user(const aviary_op *op)
{
	return op->user;
}

void aviary_op_on_done(aviary_op *op, aviary_op_fn *fn, void *ctx)
{
	aviary_client *c = op->c;

	if (!c)
		return; /* its client is not known any more */
	avc_lock(c);
	if (c->closed && !c->driving && avc_op_done(op) && av_list_empty(&op->link)) {
		avc_unlock(c); /* nothing drives it any more */
		if (fn)
			fn(op, ctx);
		return;
	}
	op->fn = fn;
	op->ctx = ctx;
	if (fn && avc_op_done(op) && av_list_empty(&op->link)) {
		av_list_append(&c->fired, &aviary_op_ref(op)->link);
		avc_wake(c);
	}
	avc_unlock(c);
}

static void cancel(aviary_op *op, const char *why)
{
	void (*stop)(aviary_op *) = op->stop;

	if (stop)
		stop(op);
	avc_op_fail(op, AVIARY_E_CANCELED, "%s", why);
}

void avc_op_cancel(aviary_op *op)
{
	if (op->held)
		op->cancel_wanted = true;
	else if (!avc_op_done(op))
		cancel(op, "canceled");
}

void aviary_op_cancel(aviary_op *op)
{
	aviary_client *c = op->c;

	if (!c)
		return;
	avc_lock(c);
	avc_op_cancel(op);
	avc_unlock(c);
}

void avc_ops_end(aviary_client *c)
{
	aviary_op *op;

	while ((op = AV_LIST_FIRST(&c->open, struct aviary_op, in)))
		cancel(op, "the client was closed");
}

/* ---- waiting ---- */

int aviary_op_wait(aviary_op *op, int64_t timeout_ms)
{
	int64_t end_ms = avc_deadline(timeout_ms);
	aviary_client *c = op->c;
	bool driven = false;
	int r = 0;

	if (!c)
		return op->code;
	avc_lock(c);
	while (r == 0 && !avc_op_done(op))
		r = avc_drive_until(c, end_ms, &driven);
	if (avc_op_done(op))
		r = op->code;
	avc_unlock(c);
	return r;
}

static size_t count_done(aviary_op **ops, size_t n)
{
	size_t done = 0;

	for (size_t i = 0; i < n; i++)
		done += (size_t)aviary_op_is_done(ops[i]);
	return done;
}

/* Those that are done first; both parts keep their order. Done is what it was at one moment: one
 * more may be done by the time of the next look. */
static int partition(aviary_op **ops, size_t n, size_t *ret_done)
{
	aviary_op **later = n ? malloc(n * sizeof(*later)) : NULL;
	size_t done = 0, rest = 0;

	if (n && !later)
		return AVIARY_E_NO_MEMORY;
	for (size_t i = 0; i < n; i++) {
		if (aviary_op_is_done(ops[i]))
			ops[done++] = ops[i];
		else
			later[rest++] = ops[i];
	}
	if (rest)
		memcpy(ops + done, later, rest * sizeof(*later));
	free(later);
	*ret_done = done;
	return 0;
}

/* Clients of whom operations are waited for, each once. */
struct several {
	aviary_client **clients;
	struct avc_waiter *waiters;
	struct pollfd *polls; /* of those that we drive; then ours */
	size_t n;
	int fd; /* an eventfd; -1: none */
};

static void several_clear(struct several *s)
{
	for (size_t i = 0; s->fd >= 0 && i < s->n; i++) {
		avc_lock(s->clients[i]);
		av_list_remove(&s->waiters[i].link);
		avc_unlock(s->clients[i]);
	}
	free(s->clients);
	free(s->waiters);
	free(s->polls);
	if (s->fd >= 0)
		close(s->fd);
}

static bool is_known(const struct several *s, const aviary_client *c)
{
	for (size_t i = 0; i < s->n; i++)
		if (s->clients[i] == c)
			return true;
	return false;
}

/* The clients of ops, each once. */
static int several_find(struct several *s, aviary_op **ops, size_t n)
{
	s->clients = calloc(n ? n : 1, sizeof(aviary_client *));
	if (!s->clients)
		return AVIARY_E_NO_MEMORY;
	for (size_t i = 0; i < n; i++)
		if (ops[i]->c && !is_known(s, ops[i]->c))
			s->clients[s->n++] = ops[i]->c;
	return 0;
}

/* From now on fd says that an operation of one of them has ended. */
static int several_join(struct several *s)
{
	s->waiters = calloc(s->n, sizeof(*s->waiters));
	s->polls = calloc(s->n + 1, sizeof(*s->polls));
	if (!s->waiters || !s->polls)
		return AVIARY_E_NO_MEMORY;
	s->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (s->fd < 0)
		return AVIARY_E_NO_MEMORY;
	for (size_t i = 0; i < s->n; i++) {
		s->waiters[i].fd = s->fd;
		avc_lock(s->clients[i]);
		av_list_append(&s->clients[i]->waiters, &s->waiters[i].link);
		avc_unlock(s->clients[i]);
	}
	return 0;
}

/* Lets each do what it can, and waits until one has something to do, or end_ms. */
static int several_turn(struct several *s, int64_t end_ms)
{
	int64_t left = end_ms == INT64_MAX ? -1 : AV_MAX(end_ms - avc_now_ms(), (int64_t)0);
	uint64_t count;
	nfds_t n = 0;

	for (size_t i = 0; i < s->n; i++) {
		aviary_client *c = s->clients[i];
		int r = c->threaded ? 0 : aviary_client_dispatch(c, 0), due;

		if (r < 0)
			return r;
		if (c->threaded)
			continue;
		due = aviary_client_timeout(c);
		left = due >= 0 && (left < 0 || due < left) ? due : left;
		s->polls[n++] = (struct pollfd){.fd = c->epoll_fd, .events = POLLIN};
	}
	s->polls[n++] = (struct pollfd){.fd = s->fd, .events = POLLIN};
	(void)poll(s->polls, n, left < 0 ? -1 : (int)AV_MIN(left, (int64_t)INT32_MAX));
	if (read(s->fd, &count, sizeof(count)) < 0 && errno != EAGAIN)
		return AVIARY_E_STATE;
	return 0;
}

static int wait_for_several(
    struct several *s, aviary_op **ops, size_t n, size_t want, int64_t end_ms)
{
	int r = several_join(s);

	for (size_t i = 0; r == 0 && i < s->n; i++)
		if (avc_is_driver(s->clients[i]))
			r = AVIARY_E_STATE; /* from inside a callback */
	while (r == 0 && count_done(ops, n) < want) {
		if (end_ms != INT64_MAX && avc_now_ms() >= end_ms)
			r = AVIARY_E_AGAIN;
		else
			r = several_turn(s, end_ms);
	}
	return r;
}

/* With the lock of the client of all: between this look and the wait nothing ends. */
static size_t count_done_of_one(aviary_op **ops, size_t n)
{
	size_t done = 0;

	for (size_t i = 0; i < n; i++)
		done += avc_op_done(ops[i]);
	return done;
}

static int wait_for_one(aviary_client *c, aviary_op **ops, size_t n, size_t want, int64_t end_ms)
{
	bool driven = false;
	int r = 0;

	avc_lock(c);
	while (r == 0 && count_done_of_one(ops, n) < want)
		r = avc_drive_until(c, end_ms, &driven);
	avc_unlock(c);
	return r;
}

int aviary_wait(aviary_op **ops, size_t n, size_t num_returns, int64_t timeout_ms)
{
	int64_t end_ms = avc_deadline(timeout_ms);
	size_t want = num_returns == 0 || num_returns > n ? n : num_returns, done = 0;
	struct several s = {.fd = -1};
	int r = AVIARY_E_INVALID;

	for (size_t i = 0; i < n; i++)
		if (!ops[i])
			return AVIARY_E_INVALID;
	if (n <= INT32_MAX)
		r = several_find(&s, ops, n);
	if (r == 0 && s.n == 1)
		r = wait_for_one(s.clients[0], ops, n, want, end_ms);
	else if (r == 0 && s.n > 1)
		r = wait_for_several(&s, ops, n, want, end_ms);
	several_clear(&s);
	if (r < 0 && r != AVIARY_E_AGAIN)
		return r;
	r = partition(ops, n, &done);
	return r < 0 ? r : (int)done;
}

int aviary_results(aviary_op **ops, size_t n, size_t *ret_failed)
{
	for (size_t i = 0; i < n; i++) {
		int r = aviary_op_wait(ops[i], -1);

		if (r == 0)
			continue;
		if (ret_failed)
			*ret_failed = i;
		return r;
	}
	return 0;
}

/* ---- awaiting ---- */

static _Thread_local struct {
	char message[TEXT_MAX], server_code[64], sandbox_id[64], request_id[80], path[1024];
} last;

static const char *copy(char *dst, size_t size, const char *text)
{
	(void)snprintf(dst, size, "%s", text);
	return dst;
}

void avc_error_copy(aviary_error *dst, const aviary_error *src)
{
	*dst = *src;
	dst->message = copy(last.message, sizeof(last.message), src->message);
	dst->server_code = copy(last.server_code, sizeof(last.server_code), src->server_code);
	dst->sandbox_id = copy(last.sandbox_id, sizeof(last.sandbox_id), src->sandbox_id);
	dst->request_id = copy(last.request_id, sizeof(last.request_id), src->request_id);
	dst->path = copy(last.path, sizeof(last.path), src->path);
}

aviary_error avc_error_of(int code, const char *text)
{
	aviary_error e = no_error;

	e.code = code;
	e.message = text && *text ? text : aviary_code_text(code);
	return e;
}

int avc_error_fill(aviary_error *dst, int code, const char *text)
{
	const aviary_error e = avc_error_of(code, text);

	avc_error_copy(dst, &e);
	return code;
}

int aviary_await(aviary_op *op, aviary_error *error)
{
	int r = aviary_op_wait(op, -1);

	if (error)
		avc_error_copy(error, aviary_op_error(op));
	aviary_op_free(op);
	return r;
}
