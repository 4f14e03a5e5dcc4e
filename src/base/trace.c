/* SPDX-License-Identifier: Apache-2.0 */
/*
 * trace.c - spans of a request across the layers (see trace.h)
 */
#include "base/trace.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/banned.h"

#define FLAG_SAMPLED 1

struct av_tracer {
	uint64_t threshold; /* of 64 random bits; below: sampled */
	bool all;
	void (*on_span)(void *ctx);
	void *ctx;
	uint64_t recorded, dropped;
	size_t first, n;
	struct av_span ring[AV_SPANS_MAX];
};

int av_tracer_new(double ratio, void (*on_span)(void *ctx), void *ctx, struct av_tracer **ret)
{
	struct av_tracer *t = calloc(1, sizeof(*t));

	if (!t)
		return -ENOMEM;
	t->all = ratio >= 1;
	/* 2^64, exactly; below 1 the product fits. */
	t->threshold = ratio > 0 && ratio < 1 ? (uint64_t)(ratio * 18446744073709551616.0) : 0;
	t->on_span = on_span;
	t->ctx = ctx;
	*ret = t;
	return 0;
}

void av_tracer_free(struct av_tracer *t)
{
	free(t);
}

size_t av_tracer_take(struct av_tracer *t, struct av_span *v, size_t max)
{
	size_t n = AV_MIN(max, t->n);

	for (size_t i = 0; i < n; i++)
		v[i] = t->ring[(t->first + i) % AV_SPANS_MAX];
	t->first = (t->first + n) % AV_SPANS_MAX;
	t->n -= n;
	return n;
}

void av_tracer_get_stats(const struct av_tracer *t, struct av_tracer_stats *ret)
{
	*ret = (struct av_tracer_stats){
	    .recorded = t->recorded, .dropped = t->dropped, .waiting = t->n};
}

/* ---- traceparent (W3C Trace Context level 1, section 3.2) ---- */

/* Lower case only, as the standard says. */
static bool parse_hex(struct av_str s, uint8_t *ret, size_t n)
{
	if (s.n != 2 * n)
		return false;
	for (size_t i = 0; i < s.n; i++) {
		char c = s.p[i];
		unsigned int v;

		if (c >= '0' && c <= '9')
			v = (unsigned int)(c - '0');
		else if (c >= 'a' && c <= 'f')
			v = (unsigned int)(c - 'a' + 10);
		else
			return false;
		ret[i / 2] = (uint8_t)(i % 2 ? (unsigned int)ret[i / 2] << 4 | v : v);
	}
	return true;
}

static bool all_zero(const uint8_t *p, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (p[i])
			return false;
	return true;
}

/* Version ff is invalid; of later versions than 00 the same fields are read, and what follows them
 * is theirs. */
static bool parse_parent(struct av_str text, struct av_trace_root *root, bool *ret_sampled)
{
	struct av_str rest = av_str_trim(text), field[4];
	uint8_t version, flags, trace_id[AV_TRACE_ID_BYTES], span_id[AV_SPAN_ID_BYTES];
	bool more = true;

	for (size_t i = 0; i < AV_ARRAY_LEN(field); i++) {
		if (!more)
			return false;
		more = av_str_cut(&rest, '-', &field[i]);
	}
	if (!parse_hex(field[0], &version, 1) || version == 0xff || (version == 0 && more) ||
	    !parse_hex(field[1], trace_id, sizeof(trace_id)) ||
	    !parse_hex(field[2], span_id, sizeof(span_id)) || !parse_hex(field[3], &flags, 1) ||
	    all_zero(trace_id, sizeof(trace_id)) || all_zero(span_id, sizeof(span_id)))
		return false;
	memcpy(root->trace.trace_id, trace_id, sizeof(trace_id));
	memcpy(root->parent_id, span_id, sizeof(span_id));
	*ret_sampled = flags & FLAG_SAMPLED;
	return true;
}

/* The last 8 bytes of the id are what samplers agree to look at. */
static bool by_share(const struct av_tracer *t, const uint8_t trace_id[static AV_TRACE_ID_BYTES])
{
	uint64_t v = 0;

	for (size_t i = 8; i < AV_TRACE_ID_BYTES; i++)
		v = v << 8 | trace_id[i];
	return t->all || v < t->threshold;
}

static void random_id(uint8_t *p, size_t n)
{
	do
		av_random(p, n);
	while (all_zero(p, n));
}

void av_trace_begin(struct av_tracer *tracer, struct av_str traceparent, struct av_trace_root *ret)
{
	bool asked = false;

	memset(ret, 0, sizeof(*ret));
	if (!tracer)
		return;
	ret->known = true;
	random_id(ret->trace.span_id, AV_SPAN_ID_BYTES);
	if (!parse_parent(traceparent, ret, &asked)) {
		random_id(ret->trace.trace_id, AV_TRACE_ID_BYTES);
		if (by_share(tracer, ret->trace.trace_id))
			ret->trace.tracer = tracer;
	} else if (asked) {
		ret->trace.tracer = tracer;
		ret->by_flag = !tracer->all;
	}
}

struct av_trace av_trace_trust(const struct av_trace_root *root, bool trusted)
{
	struct av_trace t = root->trace;

	if (root->by_flag && !trusted)
		t.tracer = NULL;
	return t;
}

static void write_hex(char *dst, const uint8_t *p, size_t n)
{
	static const char digits[] = "0123456789abcdef";

	for (size_t i = 0; i < n; i++) {
		dst[2 * i] = digits[p[i] >> 4];
		dst[2 * i + 1] = digits[p[i] & 15];
	}
	dst[2 * n] = '\0';
}

void av_trace_write_id(const struct av_trace_root *root, char ret[static AV_TRACE_ID_SIZE])
{
	ret[0] = '\0';
	if (root->known)
		write_hex(ret, root->trace.trace_id, AV_TRACE_ID_BYTES);
}

void av_trace_write_parent(const struct av_trace_root *root, char ret[static AV_TRACEPARENT_SIZE])
{
	char trace[AV_TRACE_ID_SIZE], span[2 * AV_SPAN_ID_BYTES + 1];

	write_hex(trace, root->trace.trace_id, AV_TRACE_ID_BYTES);
	write_hex(span, root->trace.span_id, AV_SPAN_ID_BYTES);
	(void)snprintf(ret, AV_TRACEPARENT_SIZE, "00-%s-%s-0%d", trace, span,
	    root->trace.tracer ? FLAG_SAMPLED : 0);
}

/* ---- recording ---- */

/* A place in the ring, all zero; NULL when it is full. */
static struct av_span *place(struct av_tracer *t)
{
	struct av_span *s;

	if (t->n == AV_SPANS_MAX) {
		t->dropped++;
		return NULL;
	}
	s = &t->ring[(t->first + t->n++) % AV_SPANS_MAX];
	t->recorded++;
	memset(s, 0, sizeof(*s));
	return s;
}

static void recorded(struct av_tracer *t)
{
	if (t->on_span)
		t->on_span(t->ctx);
}

void av_trace_part(const struct av_trace *t, const char *name, int64_t start_ns, int64_t end_ns,
    enum av_err_kind error, const char *sandbox_id)
{
	struct av_span *s = t->tracer ? place(t->tracer) : NULL;

	if (!s)
		return;
	memcpy(s->trace_id, t->trace_id, sizeof(s->trace_id));
	memcpy(s->parent_id, t->span_id, sizeof(s->parent_id));
	random_id(s->span_id, sizeof(s->span_id));
	s->name = name;
	s->start_ns = start_ns;
	s->end_ns = end_ns;
	s->error = error;
	if (sandbox_id &&
	    av_str_copy(s->sandbox_id, sizeof(s->sandbox_id), av_str_c(sandbox_id)) < 0)
		s->sandbox_id[0] = '\0';
	recorded(t->tracer);
}

void av_trace_end(
    const struct av_trace *t, const struct av_trace_root *root, const struct av_span *span)
{
	struct av_span *s = t->tracer ? place(t->tracer) : NULL;

	if (!s)
		return;
	*s = *span;
	memcpy(s->trace_id, t->trace_id, sizeof(s->trace_id));
	memcpy(s->span_id, t->span_id, sizeof(s->span_id));
	memcpy(s->parent_id, root->parent_id, sizeof(s->parent_id));
	recorded(t->tracer);
}
