/* SPDX-License-Identifier: Apache-2.0 */
/*
 * otlp.c - brings recorded spans to a collector (see otlp.h)
 */
#include "net/otlp.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/avtime.h"
#include "base/codec.h"
#include "base/num.h"
#include "net/fetch.h"
#include "net/loop.h"
#include "proto/otlp.h"
#include "base/banned.h"

#define TEXT_MAX        (OTLP_BATCH * AV_OTLP_SPAN_MAX + AV_OTLP_HEAD_MAX)
#define PATH            "/v1/traces"
#define HEADERS_TEXT    8192
#define RETRY_AFTER_MAX 60 /* seconds */

static_assert(TEXT_MAX <= AV_FETCH_BODY_MAX, "a batch fits into a request");

struct av_otlp {
	struct av_loop *loop;
	struct av_fetch *fetch;
	struct av_tracer *tracer; /* owned */
	char url[AV_FETCH_URL_MAX + 1];
	char service[256], version[64], instance[AV_SPAN_ID_BYTES * 4 + 1];
	char header_text[HEADERS_TEXT]; /* names and values, each with its NUL */
	size_t header_used;
	struct av_fetch_header headers[OTLP_HEADERS_MAX + 1];
	size_t n_headers;
	struct av_timer timer; /* until the next batch, or the next try */
	struct av_fetch_call *call;
	struct av_span *batch; /* owned: OTLP_BATCH */
	size_t n_batch;        /* being sent, or to be sent again */
	struct av_buf text;    /* of the batch */
	unsigned int tries;
	struct av_otlp_stats stats;
	void (*on_state)(void *ctx, const char *why);
	void *ctx;
	/* the end */
	struct av_timer deadline;
	void (*on_flushed)(void *ctx);
	void *flushed_ctx;
};

/* ---- when to send ---- */

static size_t waiting(const struct av_otlp *o)
{
	struct av_tracer_stats s;

	av_tracer_get_stats(o->tracer, &s);
	return s.waiting;
}

static void flushed(struct av_otlp *o)
{
	void (*fn)(void *ctx) = o->on_flushed;

	if (!fn)
		return;
	av_timer_stop(&o->deadline);
	o->on_flushed = NULL;
	fn(o->flushed_ctx);
}

/* Nothing is under way: the next batch, if there is something to send. */
static void plan(struct av_otlp *o)
{
	size_t n = waiting(o);

	if (n >= OTLP_BATCH || (n && o->on_flushed))
		av_timer_start(&o->timer, 0);
	else if (n && !av_timer_active(&o->timer))
		av_timer_start(&o->timer, OTLP_DELAY_MS);
	else if (!n)
		flushed(o);
}

static void on_span(void *ctx)
{
	struct av_otlp *o = ctx;

	/* While a batch is under way, or waits to be sent again, its end plans the next. */
	if (!o->n_batch && o->fetch)
		plan(o);
}

/* ---- what the collector says ---- */

static void batch_over(struct av_otlp *o)
{
	o->n_batch = 0;
	o->tries = 0;
	av_buf_clear(&o->text);
	plan(o);
}

static void note_failure(struct av_otlp *o, const char *why)
{
	o->stats.failures++;
	if (!o->stats.failing && o->on_state)
		o->on_state(o->ctx, why);
	o->stats.failing = true;
}

static void note_success(struct av_otlp *o)
{
	if (o->stats.failing && o->on_state)
		o->on_state(o->ctx, NULL);
	o->stats.failing = false;
}

static void drop_batch(struct av_otlp *o)
{
	o->stats.dropped += o->n_batch;
	batch_over(o);
}

static uint64_t retry_ms(const struct av_otlp *o, const struct av_fetch_response *res)
{
	uint64_t ms = OTLP_RETRY_MS, seconds;
	struct av_str text;

	if (res && av_fetch_header(res, "retry-after", &text) &&
	    av_parse_u64(text, 0, RETRY_AFTER_MAX, &seconds) == 0)
		return AV_MAX(seconds * 1000, (uint64_t)OTLP_RETRY_MS);
	for (unsigned int i = 1; i < o->tries && ms < OTLP_RETRY_MAX_MS; i++)
		ms *= 2;
	return AV_MIN(ms, (uint64_t)OTLP_RETRY_MAX_MS);
}

static bool worth_a_retry(const struct av_fetch_response *res)
{
	return !res || res->status == 429 || res->status == 502 || res->status == 503 ||
	       res->status == 504;
}

static void on_answer(void *ctx, const struct av_fetch_response *res, const struct av_err *err)
{
	struct av_otlp *o = ctx;
	char why[32] = "";
	size_t rejected;

	o->call = NULL;
	if (res && res->status >= 200 && res->status < 300) {
		rejected = av_otlp_rejected(res->body, o->n_batch);
		o->stats.rejected += rejected;
		o->stats.exported += o->n_batch - rejected;
		note_success(o);
		batch_over(o);
		return;
	}
	if (res)
		(void)snprintf(why, sizeof(why), "status %d", res->status);
	note_failure(o, res ? why : err->message);
	if (o->on_flushed) {
		drop_batch(o);
		flushed(o);
	} else if (!worth_a_retry(res) || o->tries >= OTLP_TRIES_MAX) {
		drop_batch(o);
	} else {
		av_timer_start(&o->timer, retry_ms(o, res));
	}
}

/* ---- sending ---- */

static int encode(struct av_otlp *o)
{
	const struct av_otlp_resource resource = {
	    .service = o->service, .version = o->version, .instance = o->instance};

	av_buf_init(&o->text, TEXT_MAX);
	return av_otlp_write(
	    &o->text, &resource, o->batch, o->n_batch, av_real_ms() * AV_NS_PER_MS - av_mono_ns());
}

static void send_batch(struct av_otlp *o)
{
	const struct av_fetch_request rq = {.method = "POST",
	    .url = o->url,
	    .headers = o->headers,
	    .n_headers = o->n_headers,
	    .body = av_buf_str(&o->text),
	    .timeout_ms = OTLP_TIMEOUT_MS,
	    .cut = true};
	struct av_err err;

	o->tries++;
	o->stats.batches++;
	if (av_fetch_start(o->fetch, &rq, on_answer, o, &o->call, &err) == 0)
		return;
	o->call = NULL;
	on_answer(o, NULL, &err);
}

static void on_timer(void *ctx)
{
	struct av_otlp *o = ctx;

	if (o->n_batch) { /* once more */
		send_batch(o);
		return;
	}
	o->n_batch = av_tracer_take(o->tracer, o->batch, OTLP_BATCH);
	if (!o->n_batch)
		plan(o);
	else if (encode(o) < 0)
		drop_batch(o);
	else
		send_batch(o);
}

static void on_deadline(void *ctx)
{
	flushed(ctx);
}

void av_otlp_flush(struct av_otlp *o, uint32_t timeout_ms, void (*on_done)(void *ctx), void *ctx)
{
	o->on_flushed = on_done;
	o->flushed_ctx = ctx;
	av_timer_start(&o->deadline, o->stats.failing ? 0 : timeout_ms);
	if (o->stats.failing || o->n_batch)
		return;
	if (waiting(o))
		plan(o);
	else
		av_timer_start(&o->deadline, 0);
}

/* ---- configuration ---- */

static int too_many(struct av_err *err, const char *where)
{
	return av_err_set(err, AV_ERR_INVALID,
	    "%s: at most %d headers of together %d bytes can be sent", where, OTLP_HEADERS_MAX,
	    HEADERS_TEXT);
}

/* A copy with NUL, or NULL. */
static char *keep(struct av_otlp *o, struct av_str s)
{
	char *p = o->header_text + o->header_used;

	if (s.n + 1 > sizeof(o->header_text) - o->header_used || av_str_copy(p, s.n + 1, s) < 0)
		return NULL;
	o->header_used += s.n + 1;
	return p;
}

static bool good_name(struct av_str s)
{
	for (size_t i = 0; i < s.n; i++) {
		char c = s.p[i];

		if (!(c >= 'a' && c <= 'z') && !(c >= 'A' && c <= 'Z') && !(c >= '0' && c <= '9') &&
		    c != '-' && c != '_' && c != '.')
			return false;
	}
	return s.n > 0;
}

static bool good_value(struct av_str s)
{
	for (size_t i = 0; i < s.n; i++)
		if (s.p[i] < 0x20 || s.p[i] == 0x7f)
			return false;
	return s.n > 0;
}

static int add_header(struct av_otlp *o, const char *where, struct av_str name, struct av_str value,
    struct av_err *err)
{
	struct av_fetch_header *h = &o->headers[o->n_headers];

	name = av_str_trim(name);
	value = av_str_trim(value);
	if (!good_name(name) || !good_value(value))
		return av_err_set(err, AV_ERR_INVALID,
		    "%s: header %zu is not a name and a value of printable characters", where,
		    o->n_headers);
	if (o->n_headers > OTLP_HEADERS_MAX || !(h->name = keep(o, name)) ||
	    !(h->value = keep(o, value)))
		return too_many(err, where);
	o->n_headers++;
	return 0;
}

/* "name=value,name=value" (OTEL_EXPORTER_OTLP_HEADERS). */
static int take_list(struct av_otlp *o, struct av_str list, struct av_err *err)
{
	static const char where[] = "OTEL_EXPORTER_OTLP_HEADERS";
	bool more = list.n > 0;
	int r = 0;

	while (more && r == 0) {
		AV_CLEANUP(av_buf_clear) struct av_buf value = AV_BUF_INIT(HEADERS_TEXT);
		struct av_str item, name;

		more = av_str_cut(&list, ',', &item);
		if (av_str_trim(item).n == 0)
			continue;
		if (!av_str_cut(&item, '=', &name) || av_percent_decode(&value, item, false) < 0 ||
		    av_buf_error(&value) < 0)
			return av_err_set(err, AV_ERR_INVALID,
			    "%s: must be name=value,name=value with values percent-encoded", where);
		r = add_header(o, where, name, av_buf_str(&value), err);
	}
	return r;
}

static int take_lines(struct av_otlp *o, struct av_str text, struct av_err *err)
{
	static const char where[] = "--otlp-headers-file";
	bool more = text.n > 0;
	int r = 0;

	while (more && r == 0) {
		struct av_str line, name;

		more = av_str_cut(&text, '\n', &line);
		if (line.n && line.p[line.n - 1] == '\r')
			line.n--;
		if (av_str_trim(line).n == 0 || line.p[0] == '#')
			continue;
		if (!av_str_cut(&line, ':', &name))
			return av_err_set(
			    err, AV_ERR_INVALID, "%s: each line must be 'name: value'", where);
		r = add_header(o, where, name, line, err);
	}
	return r;
}

static int take_endpoint(struct av_otlp *o, const char *endpoint, struct av_err *err)
{
	struct av_str base = av_str_c(endpoint);
	bool whole = av_str_ends(base, AV_STR(PATH));

	while (base.n && base.p[base.n - 1] == '/')
		base.n--;
	if (base.n + strlen(PATH) > AV_FETCH_URL_MAX)
		return av_err_set(err, AV_ERR_INVALID, "the URL is longer than %d bytes",
		    AV_FETCH_URL_MAX - (int)strlen(PATH));
	(void)snprintf(o->url, sizeof(o->url), "%.*s%s", AV_STR_ARG(base), whole ? "" : PATH);
	return av_fetch_check_url(o->url, false, NULL, err);
}

static int configure(struct av_otlp *o, const struct av_otlp_config *c, struct av_err *err)
{
	uint8_t random[AV_SPAN_ID_BYTES * 2];
	int r = take_endpoint(o, c->endpoint, err);

	if (r < 0) {
		av_err_prefix(err, "--otlp-endpoint");
		return r;
	}
	if (av_str_copy(o->service, sizeof(o->service), av_str_c(c->service)) < 0 ||
	    !av_utf8_valid(av_str_c(c->service)))
		return av_err_set(err, AV_ERR_INVALID,
		    "--otlp-service: a name is text of up to %zu bytes", sizeof(o->service) - 1);
	if (av_str_copy(o->version, sizeof(o->version), av_str_c(c->version)) < 0)
		o->version[0] = '\0';
	av_random(random, sizeof(random));
	av_hex_encode(o->instance, random, sizeof(random));
	o->headers[o->n_headers++] = (struct av_fetch_header){"Content-Type", "application/json"};
	if (c->headers_lines)
		return take_lines(o, av_str_c(c->headers_lines), err);
	return c->headers ? take_list(o, av_str_c(c->headers), err) : 0;
}

int av_otlp_new(const struct av_otlp_config *config, struct av_otlp **ret, struct av_err *err)
{
	struct av_otlp *o = calloc(1, sizeof(*o));
	int r;

	if (!o)
		return av_err_set(err, AV_ERR_NO_MEMORY, "out of memory");
	o->loop = config->loop;
	o->fetch = config->fetch;
	o->on_state = config->on_state;
	o->ctx = config->ctx;
	av_timer_init(&o->timer, o->loop, on_timer, o);
	av_timer_init(&o->deadline, o->loop, on_deadline, o);
	av_buf_init(&o->text, TEXT_MAX);
	o->batch = calloc(OTLP_BATCH, sizeof(*o->batch));
	if (!o->batch || av_tracer_new(config->ratio, on_span, o, &o->tracer) < 0)
		r = av_err_set(err, AV_ERR_NO_MEMORY, "out of memory");
	else
		r = configure(o, config, err);
	if (r < 0) {
		av_otlp_free(o);
		return r;
	}
	*ret = o;
	return 0;
}

void av_otlp_stop(struct av_otlp *o)
{
	if (!o)
		return;
	av_timer_stop(&o->timer);
	av_timer_stop(&o->deadline);
	if (o->call)
		av_fetch_cancel(AV_TAKE_PTR(o->call));
	o->fetch = NULL;
}

void av_otlp_free(struct av_otlp *o)
{
	if (!o)
		return;
	av_otlp_stop(o);
	av_tracer_free(o->tracer);
	av_buf_clear(&o->text);
	free(o->batch);
	explicit_bzero(o->header_text, sizeof(o->header_text));
	free(o);
}

struct av_tracer *av_otlp_tracer(const struct av_otlp *o)
{
	return o->tracer;
}

void av_otlp_get_stats(const struct av_otlp *o, struct av_otlp_stats *ret)
{
	*ret = o->stats;
}
