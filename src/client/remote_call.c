/* SPDX-License-Identifier: Apache-2.0 */
/*
 * remote_call.c - one call of a remote function (see remote.h)
 *
 * Theory of operation. A flow (flow.h): the sandbox is started, the program shipped, the worker
 * run, what it said is made a result, and a sandbox of the call's own is deleted. What came from
 * the sandbox is only compared and copied (remote_wire.h) and given to the decoder of the result's
 * type. The first thing that is wrong with it ends the worker.
 *
 * A program that is gone from a sandbox which had it is sent once more.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/call.h"
#include "client/flow.h"
#include "client/remote.h"
#include "client/remote_wire.h"

#include "base/banned.h"

/* The end of an output. */
struct tail {
	char *p; /* 2 * max + 1 bytes, from the first that came */
	size_t n, max;
	bool cut;
};

struct call {
	struct avc_flow flow; /* first */
	struct avc_setup *setup;
	struct aviary_sandbox *sb;
	bool delete, sent_again;
	aviary_bytes input; /* everything for stdin */
	size_t written;
	aviary_process *process;
	struct avc_worker_dec dec;
	int dec_error;
	struct tail out, err;
	struct avc_result *result;
	uint64_t shipped;
	int64_t began_ms;
};

static void keep_tail(struct tail *t, const char *data, size_t n)
{
	if (n > t->max) {
		data += n - t->max;
		n = t->max;
		t->cut = true;
	}
	if (!t->p)
		t->p = malloc(2 * t->max + 1);
	if (!t->p) {
		t->cut = true;
		return;
	}
	if (t->n + n > 2 * t->max) {
		memmove(t->p, t->p + t->n - t->max, t->max);
		t->n = t->max;
		t->cut = true;
	}
	memcpy(t->p + t->n, data, n);
	t->n += n;
}

/* What is left of it: at most max bytes, in *ret_owned, with a NUL. */
static const char *end_tail(struct tail *t, char **ret_owned, size_t *ret_n, int *ret_cut)
{
	size_t n = AV_MIN(t->n, t->max);

	*ret_n = n;
	*ret_cut = t->cut || t->n > t->max;
	if (!t->p)
		return "";
	memmove(t->p, t->p + t->n - n, n);
	t->p[n] = '\0';
	*ret_owned = AV_TAKE_PTR(t->p);
	return *ret_owned;
}

static void call_free(struct avc_flow *f)
{
	struct call *k = AV_CONTAINER_OF(f, struct call, flow);

	aviary_process_free(k->process);
	avc_worker_dec_clear(&k->dec);
	aviary_bytes_clear(&k->input);
	free(k->out.p);
	free(k->err.p);
	if (k->result)
		aviary_remote_result_free(&k->result->pub);
	aviary_sandbox_free(k->sb);
	avc_setup_unref(k->setup);
	free(k);
}

/* ---- the result ---- */

static void fail(struct call *k, int code, const char *format, ...) AVIARY_PRINTF(3, 4);

/* The first failure counts. */
static void fail(struct call *k, int code, const char *format, ...)
{
	aviary_error e = k->result->pub.error;
	char text[1024];
	va_list ap;

	if (e.code)
		return;
	va_start(ap, format);
	(void)vsnprintf(text, sizeof(text), format, ap);
	va_end(ap);
	e.code = code;
	e.message = text;
	e.sandbox_id = k->sb->id;
	avc_result_fail(k->result, &e);
}

static void fail_with(struct call *k, const aviary_error *error)
{
	if (!k->result->pub.error.code)
		avc_result_fail(k->result, error);
}

/* Text of the sandbox's for a message: its last line, as far as it can be shown. */
static const char *last_line(const struct tail *t, char line[static 200])
{
	size_t n = t->n, from;

	while (n > 0 && t->p[n - 1] == '\n')
		n--;
	for (from = n; from > 0 && t->p[from - 1] != '\n' && n - from < 199; from--)
		continue;
	for (size_t i = from; i < n; i++)
		line[i - from] = t->p[i] >= ' ' && t->p[i] < 0x7f ? t->p[i] : '?';
	line[n - from] = '\0';
	return line;
}

static void fail_crash(struct call *k)
{
	const aviary_remote_result *r = &k->result->pub;
	const char *abbrev = r->signal ? sigabbrev_np(r->signal) : NULL;
	char line[200] = "", how[80];

	if (r->signal)
		(void)snprintf(how, sizeof(how), "was killed by signal %d%s%s%s%s", r->signal,
		    abbrev ? " (SIG" : "", abbrev ? abbrev : "", abbrev ? ")" : "",
		    r->oom_killed ? ", as the sandbox had no memory left" : "");
	else
		(void)snprintf(how, sizeof(how), "exited with %d", r->exit_code);
	(void)last_line(&k->err, line);
	fail(k, AVIARY_E_FUNCTION_CRASHED, "%.100s %s before it returned%s%s", k->setup->fn->name,
	    how, line[0] ? ": " : "", line);
}

/* The worker said what went wrong before there was a function. */
static void fail_outcome(struct call *k, enum avc_outcome outcome, const char *sentence)
{
	const char *name = k->setup->fn->name;

	switch (outcome) {
	case AVC_NO_FUNCTION:
		fail(k, AVIARY_E_FUNCTION_UNKNOWN,
		    "the program in the sandbox has no function %.100s", name);
		return;
	case AVC_OTHER_BUILD:
		fail(k, AVIARY_E_FUNCTION_BUILD,
		    "the program in the sandbox is another build (%.80s) than this one (%.80s)",
		    sentence, k->setup->c->remote->program->build);
		return;
	case AVC_OTHER_TYPES:
		fail(k, AVIARY_E_FUNCTION_BUILD,
		    "%.100s has other types in the sandbox than here: two headers?", name);
		return;
	case AVC_BAD_ARGUMENT:
		fail(k, AVIARY_E_FUNCTION_ARGUMENT, "the argument of %.100s, in the sandbox: %s",
		    name, sentence);
		return;
	case AVC_BAD_RESULT:
		fail(k, AVIARY_E_FUNCTION_RESULT, "the result of %.100s, in the sandbox: %s", name,
		    sentence);
		return;
	case AVC_LARGE_RESULT:
		fail(k, AVIARY_E_FUNCTION_RESULT,
		    "the result of %.100s is too large: %s; result_max allows %zu", name, sentence,
		    k->setup->result_max);
		return;
	default:
		fail(k, AVIARY_E_FUNCTION_CRASHED, "the worker of %.100s failed: %s", name,
		    sentence);
	}
}

/* Runs the caller's code. */
static void decode(struct call *k)
{
	const char *name = k->setup->fn->name, *why;
	struct av_str bytes = av_buf_str(&k->dec.result);
	int r;

	k->result->pub.returned = k->dec.returned;
	if (k->dec.returned != 0) {
		fail(k, AVIARY_E_FUNCTION_FAILED, "%.100s returned %d", name, k->dec.returned);
		return;
	}
	r = avc_value_decode(k->setup->fn->out, bytes.p, bytes.n, &k->result->value, &why);
	if (r == AVIARY_E_NO_MEMORY)
		fail(k, r, "out of memory");
	else if (r < 0)
		fail(k, AVIARY_E_FUNCTION_RESULT, "the result of %.100s, %zu bytes: %s", name,
		    bytes.n, why);
	k->result->pub.value = k->result->value;
}

/* The child is over, says the worker. */
static void take_end(struct call *k)
{
	const struct avc_end *e = &k->dec.end;
	aviary_remote_result *r = &k->result->pub;
	char sentence[AVC_SENTENCE_MAX + 1] = "";
	struct av_str bytes = av_buf_str(&k->dec.result);

	r->cpu_us = (int64_t)e->cpu_us;
	r->memory_bytes = (int64_t)e->memory_bytes;
	if (e->kind != AVC_RETURNED) {
		fail_outcome(k, e->kind, e->sentence);
	} else if (!avc_worker_dec_is_whole(&k->dec) || e->exit_code || e->signal) {
		r->exit_code = e->signal ? 128 + e->signal : e->exit_code;
		r->signal = e->signal;
		r->core_dumped = e->core_dumped;
		fail_crash(k);
	} else if (k->dec.outcome != AVC_RETURNED) {
		for (size_t i = 0; i < AV_MIN(bytes.n, sizeof(sentence) - 1); i++)
			sentence[i] = bytes.p[i] >= ' ' && bytes.p[i] < 0x7f ? bytes.p[i] : '?';
		fail_outcome(k, k->dec.outcome, sentence);
	} else {
		decode(k);
	}
}

static void fail_decoder(struct call *k)
{
	if (k->dec_error == -ENOMEM)
		fail(k, AVIARY_E_NO_MEMORY, "out of memory");
	else if (k->dec_error == -EMSGSIZE)
		fail(k, AVIARY_E_FUNCTION_RESULT,
		    "the result of %.100s has more bytes than result_max, %zu", k->setup->fn->name,
		    k->setup->result_max);
	else
		fail(k, AVIARY_E_FUNCTION_RESULT,
		    "what came from the sandbox is not the answer of a worker of this program");
}

/* The process ended, and its worker has said nothing of it. */
static void take_silence(struct call *k, const aviary_exec_result *x)
{
	aviary_remote_result *r = &k->result->pub;
	char line[200];

	if (x && (x->signal || k->dec.is_worker)) {
		r->exit_code = x->exit_code;
		r->signal = x->signal;
		r->core_dumped = x->core_dumped;
		r->oom_killed = x->oom_killed;
		fail_crash(k);
		return;
	}
	(void)last_line(&k->err, line);
	fail(k, AVIARY_E_FUNCTION_PROGRAM,
	    "the program did not become a worker in the sandbox (exit code %d%s%s): is "
	    "aviary_worker_init the first thing that main does?",
	    x ? x->exit_code : -1, line[0] ? ": " : "", line);
}

/* What the process' operation says. */
static void take_process(struct call *k)
{
	const aviary_exec_result *x = aviary_process_result(k->process);
	const aviary_error *error = aviary_op_error(k->flow.step);
	aviary_remote_result *r = &k->result->pub;

	r->duration_ms = avc_now_ms() - k->began_ms;
	if (k->dec_error && (k->dec.is_worker || k->dec_error == -ENOMEM)) {
		fail_decoder(k);
	} else if (k->dec_error) {
		take_silence(k, x);
	} else if (error->code == AVIARY_E_EXEC_TIMEOUT) {
		r->timed_out = 1;
		fail(k, AVIARY_E_EXEC_TIMEOUT, "%.100s was killed after %lld ms, its timeout",
		    k->setup->fn->name, (long long)k->setup->timeout_ms);
	} else if (error->code == AVIARY_E_EXEC_NOT_EXECUTABLE) {
		fail(k, AVIARY_E_FUNCTION_ARCH,
		    "the sandbox cannot execute this program: has its host another processor? "
		    "(%.300s)",
		    error->message);
	} else if (error->code == AVIARY_E_EXEC_NOT_FOUND) {
		fail(k, AVIARY_E_FUNCTION_PROGRAM,
		    "the program is not in the sandbox, though it was sent there (%.300s)",
		    error->message);
	} else if (k->dec.has_end) {
		take_end(k);
	} else if (error->code) {
		fail_with(k, error);
	} else {
		take_silence(k, x);
	}
}

/* ---- talking to the worker; from inside callbacks of the process, without the lock ---- */

static void on_output(void *ctx, bool is_stderr, const char *data, size_t n)
{
	struct call *k = ctx;

	keep_tail(is_stderr ? &k->err : &k->out, data, n);
	if (k->setup->on_output)
		k->setup->on_output(
		    k->setup->ctx, is_stderr ? AVIARY_STDERR : AVIARY_STDOUT, data, n);
}

/* The next piece of the input: there is room for it, as the one before was read. */
static void on_more(void *ctx)
{
	struct call *k = ctx;
	size_t end = AV_MIN(k->input.size, k->written + AVC_INPUT_PIECE);

	while (k->written < end) {
		int64_t n = aviary_process_write(
		    k->process, (const char *)k->input.data + k->written, end - k->written, 0);

		if (n <= 0)
			return; /* it is over, which comes as its end */
		k->written += (size_t)n;
	}
	if (k->written == k->input.size)
		aviary_bytes_clear(&k->input), k->written = 0;
}

static int on_process_output(
    void *ctx, aviary_process *p, enum aviary_channel ch, const void *data, size_t n)
{
	struct call *k = ctx;

	if (k->dec_error)
		return 0;
	if (ch == AVIARY_STDERR) {
		/* Of the loader, or the supervisor; the function's comes in frames. */
		keep_tail(&k->err, data, n);
		return 0;
	}
	k->dec_error = avc_worker_dec_feed(&k->dec, data, n);
	if (k->dec_error)
		aviary_op_cancel(aviary_process_op(p));
	return 0;
}

/* ---- the steps ---- */

static void finish(struct call *k)
{
	aviary_op *op = k->flow.op;

	aviary_remote_result *r = &k->result->pub;

	r->out = end_tail(&k->out, &k->result->out, &r->out_size, &r->out_truncated);
	r->err = end_tail(&k->err, &k->result->err, &r->err_size, &r->err_truncated);
	r->shipped_bytes = k->shipped;
	(void)snprintf(r->sandbox_id, sizeof(r->sandbox_id), "%s", k->sb->id);
	avc_lock(op->c);
	if (!avc_op_done(op)) {
		const aviary_error e = k->result->pub.error;

		avc_op_give(op, &avc_remote_type, k->result);
		if (e.code)
			avc_op_fail_with(op, &e);
		else
			avc_op_end(op);
		k->result = NULL;
	}
	avc_unlock(op->c);
}

static void on_deleted(struct avc_flow *f)
{
	struct call *k = AV_CONTAINER_OF(f, struct call, flow);

	if (avc_flow_code(f) == AVIARY_E_NO_MEMORY && k->delete) {
		k->delete = false; /* once more: it would be nobody's */
		avc_flow_next(f, avc_discard(k->sb, AVIARY_E_NO_MEMORY), on_deleted);
		return;
	}
	finish(k);
}

/* Ends a sandbox of the call's own. */
static void clean_up(struct call *k)
{
	aviary_process_free(AV_TAKE_PTR(k->process));
	if (!k->delete) {
		finish(k);
		return;
	}
	avc_flow_clean(&k->flow);
	avc_flow_next(&k->flow, avc_discard(k->sb, k->result->pub.error.code), on_deleted);
}

static void ship(struct call *k);

static void on_over(struct avc_flow *f)
{
	struct call *k = AV_CONTAINER_OF(f, struct call, flow);

	if (avc_flow_code(f) == AVIARY_E_EXEC_NOT_FOUND && !k->sent_again && !k->delete) {
		k->sent_again = true;
		aviary_process_free(AV_TAKE_PTR(k->process));
		avc_ship_forget(k->sb);
		ship(k);
		return;
	}
	take_process(k);
	clean_up(k);
}

static void start_worker(struct call *k)
{
	const struct avc_program *p = k->setup->c->remote->program;
	const struct avc_setup *s = k->setup;
	AV_CLEANUP(av_buf_clear) struct av_buf path = AV_BUF_INIT(64 * (size_t)AV_KIB);
	size_t dir, exe, loader;
	const char *words[4];
	aviary_exec_options o = AVIARY_EXEC_OPTIONS_INIT;

	dir = path.n;
	(void)av_buf_printf(&path, "%s/bundles/%s", s->directory, p->id);
	(void)av_buf_append_char(&path, '\0');
	exe = path.n;
	(void)av_buf_printf(&path, "%s/bundles/%s/" AVC_EXECUTABLE, s->directory, p->id);
	(void)av_buf_append_char(&path, '\0');
	loader = path.n;
	(void)av_buf_printf(&path, "%s/bundles/%s/%s", s->directory, p->id,
	    p->loader < 0 ? "" : p->objects[p->loader].name);
	if (!av_buf_cstr(&path)) {
		fail(k, AVIARY_E_NO_MEMORY, "out of memory");
		clean_up(k);
		return;
	}
	words[0] = av_buf_cstr(&path) + loader;
	words[1] = "--library-path";
	words[2] = av_buf_cstr(&path) + dir;
	words[3] = av_buf_cstr(&path) + exe;
	o.flags = AVIARY_EXEC_STDIN;
	o.command.items = p->loader < 0 ? &words[3] : words;
	o.command.n = p->loader < 0 ? 1 : 4;
	o.envs.items = s->envs;
	o.envs.n = s->n_envs;
	o.user = s->user;
	o.cwd = s->cwd;
	o.timeout_ms = s->timeout_ms > 0 ? s->timeout_ms : 0;
	k->began_ms = avc_now_ms();
	k->process = aviary_sandbox_exec(k->sb, &o);
	aviary_process_on_output(k->process, on_process_output, k);
	avc_flow_next(&k->flow, aviary_op_ref(aviary_process_op(k->process)), on_over);
}

static void on_shipped(struct avc_flow *f)
{
	struct call *k = AV_CONTAINER_OF(f, struct call, flow);

	if (avc_flow_code(f) == 0) {
		start_worker(k);
		return;
	}
	fail_with(k, aviary_op_error(f->step));
	clean_up(k);
}

static void ship(struct call *k)
{
	avc_flow_next(&k->flow, avc_ship(k->sb, k->setup->directory, &k->shipped), on_shipped);
}

static void on_started(struct avc_flow *f)
{
	struct call *k = AV_CONTAINER_OF(f, struct call, flow);

	if (avc_flow_code(f) == 0) {
		ship(k);
		return;
	}
	fail_with(k, aviary_op_error(f->step));
	clean_up(k);
}

static int make_input(struct call *k, aviary_bytes *argument)
{
	const struct avc_program *p = k->setup->c->remote->program;
	const struct avc_head h = {.name_size = (uint32_t)strlen(k->setup->fn->name),
	    .build_size = (uint32_t)strlen(p->build),
	    .argument_size = argument->size,
	    .result_max = k->setup->result_max,
	    .layout = avc_function_layout(k->setup->fn)};
	uint8_t head[AVC_HEAD_SIZE];
	int r;

	avc_head_write(head, &h);
	r = aviary_bytes_append(&k->input, head, sizeof(head));
	r = r < 0 ? r : aviary_bytes_append(&k->input, k->setup->fn->name, h.name_size);
	r = r < 0 ? r : aviary_bytes_append(&k->input, p->build, h.build_size);
	return r < 0 ? r : aviary_bytes_append(&k->input, argument->data, argument->size);
}

static struct call *call_new(
    struct avc_setup *s, struct aviary_sandbox *sb, bool delete, aviary_bytes *argument)
{
	struct call *k = calloc(1, sizeof(*k));

	if (!k)
		return NULL;
	atomic_fetch_add(&s->refs, 1);
	k->setup = s;
	k->sb = aviary_sandbox_ref(sb);
	k->delete = delete;
	k->out.max = k->err.max = s->output_max;
	avc_worker_dec_init(&k->dec, s->result_max);
	k->dec.ctx = k;
	k->dec.on_output = on_output;
	k->dec.on_more = on_more;
	k->result = avc_result_new(s->fn);
	if (k->result && make_input(k, argument) == 0)
		return k;
	call_free(&k->flow);
	return NULL;
}

aviary_op *avc_remote_start(
    struct avc_setup *s, struct aviary_sandbox *sb, bool delete, aviary_bytes *argument)
{
	struct call *k = call_new(s, sb, delete, argument);
	aviary_op *op;

	aviary_bytes_clear(argument);
	if (!k)
		return avc_op_failed(s->c, AVIARY_E_NO_MEMORY, "out of memory");
	op = avc_flow_init(&k->flow, s->c, call_free);
	if (!op->c) {
		call_free(&k->flow);
		return op;
	}
	avc_flow_next(&k->flow, aviary_sandbox_start(sb), on_started);
	return op;
}

aviary_op *aviary_remote_call(aviary_client *c, const aviary_function *fn, const void *in,
    const aviary_remote_options *options)
{
	aviary_op *op;
	struct avc_setup *s = avc_setup_new(c, fn, options, &op);
	struct aviary_sandbox *sb = NULL;
	aviary_bytes argument = {0};
	char text[512];
	int r;

	if (!s)
		return op;
	r = avc_setup_encode(s, in, &argument, text);
	if (r == 0 && s->sb)
		sb = aviary_sandbox_ref(s->sb);
	else if (r == 0 && (r = avc_setup_sandbox(s, 1, &sb)) < 0)
		(void)snprintf(text, sizeof(text), "%s", avc_setup_why(r));
	if (r < 0)
		op = avc_op_failed(c, r, "%s", text);
	else
		op = avc_remote_start(s, sb, !s->sb, &argument);
	aviary_bytes_clear(&argument);
	aviary_sandbox_free(sb);
	avc_setup_unref(s);
	return op;
}

/* ---- results ---- */

static void free_result(void *result)
{
	aviary_remote_result_free(result);
}

const struct avc_type avc_remote_type = {.name = "remote", .free = free_result};

void *avc_op_take_any(aviary_op *op, const struct avc_type *type)
{
	void *result = NULL;

	if (!op->c)
		return NULL;
	avc_lock(op->c);
	if (avc_op_done(op) && op->type == type)
		result = AV_TAKE_PTR(op->result);
	avc_unlock(op->c);
	return result;
}

aviary_remote_result *aviary_op_take_remote(aviary_op *op)
{
	return avc_op_take_any(op, &avc_remote_type);
}

aviary_remote_result *aviary_remote_call_sync(aviary_client *c, const aviary_function *fn,
    const void *in, const aviary_remote_options *options, aviary_error *error)
{
	aviary_op *op = aviary_remote_call(c, fn, in, options);
	aviary_remote_result *r;

	(void)aviary_op_wait(op, -1);
	r = aviary_op_take_remote(op);
	(void)aviary_await(op, error);
	return r;
}
