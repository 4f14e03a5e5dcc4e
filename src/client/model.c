/* SPDX-License-Identifier: Apache-2.0 */
/*
 * model.c - structs from JSON (see model.h); model_write.c is the way back
 */
#include "client/model.h"

#include <stdalign.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/avtime.h"
#include "base/macros.h"

#include "base/banned.h"

#define BLOCK_MIN ((size_t)1 << 10)
#define BLOCK_MAX ((size_t)64 << 10)

/* ---- memory ---- */

struct block {
	struct block *next;
	size_t size, used;
	max_align_t data[];
};

struct arena {
	struct block *first, *last;
	size_t total;
	int code; /* the first that went wrong */
};

static void *arena_alloc(struct arena *a, size_t n)
{
	struct block *b = a->last;
	size_t size;

	n = (n + alignof(max_align_t) - 1) / alignof(max_align_t) * alignof(max_align_t);
	if (a->code == 0 && n > AVC_MODEL_MAX - a->total)
		a->code = AVIARY_E_TOO_LARGE;
	if (a->code < 0)
		return NULL;
	if (!b || b->size - b->used < n) {
		size = b ? AV_MIN(b->size * 2, BLOCK_MAX) : BLOCK_MIN;
		size = AV_MAX(size, n);
		b = malloc(sizeof(*b) + size);
		if (!b) {
			a->code = AVIARY_E_NO_MEMORY;
			return NULL;
		}
		*b = (struct block){.size = size};
		if (a->last)
			a->last->next = b;
		else
			a->first = b;
		a->last = b;
	}
	b->used += n;
	a->total += n;
	return memset((char *)b->data + b->used - n, 0, n);
}

static void arena_clear(struct arena *a)
{
	struct block *b = a->first;

	while (b) {
		struct block *next = b->next;

		free(b);
		b = next;
	}
}

static char *arena_text(struct arena *a, const char *p, size_t n)
{
	char *copy = arena_alloc(a, n + 1);

	if (copy && n)
		memcpy(copy, p, n);
	return copy;
}

static struct block *block_of(void *model)
{
	return AV_CONTAINER_OF(model, struct block, data);
}

void avc_model_free(void *model)
{
	if (model)
		arena_clear(&(struct arena){.first = block_of(model)});
}

void *avc_model_new(size_t size, const void *p, size_t n, char **ret_copy)
{
	struct arena a = {0};
	void *model = arena_alloc(&a, size);
	char *copy = model ? arena_text(&a, p, n) : NULL;

	if (!copy) {
		arena_clear(&a);
		return NULL;
	}
	*ret_copy = copy;
	return model;
}

/* ---- reading ---- */

/* Where in the document. */
struct at {
	const struct at *up;
	const char *name; /* NULL: number i of an array */
	size_t i;
};

struct reader {
	struct arena arena;
	char *text; /* AVC_MODEL_TEXT */
};

static const char *kind_of(const json_t *j)
{
	static const char *const names[] = {
	    [JSON_OBJECT] = "an object",
	    [JSON_ARRAY] = "an array",
	    [JSON_STRING] = "a string",
	    [JSON_INTEGER] = "an integer",
	    [JSON_REAL] = "a number",
	    [JSON_TRUE] = "a boolean",
	    [JSON_FALSE] = "a boolean",
	    [JSON_NULL] = "null",
	};

	return j ? names[json_typeof(j)] : "absent";
}

/* "series.labels[3]" into dst. */
static size_t where(const struct at *at, char *dst, size_t size)
{
	size_t n = at->up ? where(at->up, dst, size) : 0;
	int k;

	if (n >= size)
		return n;
	if (at->name)
		k = snprintf(dst + n, size - n, "%s%.80s", n ? "." : "", at->name);
	else
		k = snprintf(dst + n, size - n, "[%zu]", at->i);
	return k > 0 ? n + (size_t)k : n;
}

static bool wrong(struct reader *r, const struct at *at, const json_t *j, const char *wanted)
{
	char path[200] = "";

	if (r->arena.code < 0)
		return false;
	if (at)
		(void)where(at, path, sizeof(path));
	r->arena.code = AVIARY_E_PROTOCOL;
	(void)snprintf(r->text, AVC_MODEL_TEXT, "the server's answer: %s is %s, not %s",
	    path[0] ? path : "it", kind_of(j), wanted);
	return false;
}

static bool read_struct(struct reader *r, const struct at *at, const struct avc_model *m,
    const json_t *json, void *base);

static bool read_text(struct reader *r, const struct at *at, const json_t *j, const char **ret)
{
	if (!json_is_string(j))
		return wrong(r, at, j, "a string");
	*ret = arena_text(&r->arena, json_string_value(j), json_string_length(j));
	return *ret != NULL;
}

static bool read_time(struct reader *r, const struct at *at, const json_t *j, int64_t *ret)
{
	struct av_str s = json_is_string(j) ? av_str_n(json_string_value(j), json_string_length(j))
	                                    : (struct av_str){0};

	if (!s.p || av_rfc3339_parse(s, ret) < 0)
		return wrong(r, at, j, "a point of time as 2026-01-31T12:00:00Z");
	*ret = AV_MAX(*ret, (int64_t)0);
	return true;
}

static bool read_integer(struct reader *r, const struct at *at, const json_t *j, int64_t *ret)
{
	if (!json_is_integer(j))
		return wrong(r, at, j, "an integer");
	*ret = json_integer_value(j);
	return true;
}

static bool read_port(struct reader *r, const struct at *at, const json_t *j, uint16_t *ret)
{
	json_int_t v = json_integer_value(j);

	if (!json_is_integer(j) || v < 0 || v > UINT16_MAX)
		return wrong(r, at, j, "a port from 0 to 65535");
	*ret = (uint16_t)v;
	return true;
}

static bool read_enum(
    struct reader *r, const struct at *at, const struct avc_field *f, const json_t *j, char *base)
{
	const char *word = NULL;
	int value;

	if (!read_text(r, at, j, &word))
		return false;
	value = avc_word_find(f->words, word);
	memcpy(base + f->at, &value, sizeof(value));
	if (f->flags & AVC_MORE)
		memcpy(base + f->more_at, &word, sizeof(word));
	return true;
}

/* One item of an array, into its place. */
static bool read_item(struct reader *r, const struct at *at, const struct avc_field *f,
    const json_t *j, void *items, size_t i)
{
	switch (f->kind) {
	case AVC_STRINGS:
		return read_text(r, at, j, &((const char **)items)[i]);
	case AVC_INTEGERS:
		return read_integer(r, at, j, &((int64_t *)items)[i]);
	case AVC_TIMES:
		return read_time(r, at, j, &((int64_t *)items)[i]);
	case AVC_PORTS:
		return read_port(r, at, j, &((uint16_t *)items)[i]);
	default: {
		void *s = arena_alloc(&r->arena, f->model->size);

		((void **)items)[i] = s;
		return s && read_struct(r, at, f->model, j, s);
	}
	}
}

static size_t item_size(enum avc_kind kind)
{
	switch (kind) {
	case AVC_INTEGERS:
	case AVC_TIMES:
		return sizeof(int64_t);
	case AVC_PORTS:
		return sizeof(uint16_t);
	default:
		return sizeof(void *);
	}
}

/* All lists are a pointer and a number; only where the number is differs. */
static bool put_list(
    const struct avc_field *f, char *base, const void *items, size_t n, const struct reader *r)
{
	size_t n_at = f->kind == AVC_STRUCTS ? f->more_at : f->at + offsetof(aviary_strings, n);

	static_assert(offsetof(aviary_strings, items) == 0 && offsetof(aviary_pairs, items) == 0 &&
	                  offsetof(aviary_integers, items) == 0 &&
	                  offsetof(aviary_ports, items) == 0,
	    "all begin with their items");
	static_assert(offsetof(aviary_strings, n) == offsetof(aviary_pairs, n) &&
	                  offsetof(aviary_strings, n) == offsetof(aviary_integers, n) &&
	                  offsetof(aviary_strings, n) == offsetof(aviary_ports, n),
	    "then their number");
	if (r->arena.code < 0)
		return false;
	memcpy(base + f->at, &items, sizeof(items));
	memcpy(base + n_at, &n, sizeof(n));
	return true;
}

static bool read_list(
    struct reader *r, const struct at *at, const struct avc_field *f, const json_t *j, char *base)
{
	size_t n = json_array_size(j);
	void *items;

	if (!json_is_array(j))
		return wrong(r, at, j, "an array");
	items = arena_alloc(&r->arena, AV_MAX(n, (size_t)1) * item_size(f->kind));
	for (size_t i = 0; items && i < n; i++)
		if (!read_item(
		        r, &(struct at){.up = at, .i = i}, f, json_array_get(j, i), items, i))
			return false;
	return put_list(f, base, items, n, r);
}

static bool read_pairs(
    struct reader *r, const struct at *at, const struct avc_field *f, const json_t *j, char *base)
{
	size_t n = json_object_size(j), i = 0;
	aviary_pair *items;
	const char *name;
	json_t *value, *o = NULL;

	if (!json_is_object(j))
		return wrong(r, at, j, "an object");
	items = arena_alloc(&r->arena, AV_MAX(n, (size_t)1) * sizeof(*items));
	/* jansson iterates over what is not const only. */
	memcpy(&o, &j, sizeof(o));
	json_object_foreach (o, name, value) {
		struct at here = {.up = at, .name = name};

		if (!items)
			return false;
		items[i].name = arena_text(&r->arena, name, strlen(name));
		if (!(json_is_null(value) && (f->flags & AVC_NULLS)) &&
		    !read_text(r, &here, value, &items[i].value))
			return false;
		i++;
	}
	return put_list(f, base, items, i, r);
}

static bool read_json(struct reader *r, const struct avc_field *f, const json_t *j, char *base)
{
	char *text = avc_json_text(j), *copy;

	if (!text) {
		r->arena.code = AVIARY_E_NO_MEMORY;
		return false;
	}
	copy = arena_text(&r->arena, text, strlen(text));
	free(text);
	memcpy(base + f->at, &copy, sizeof(copy));
	return copy != NULL;
}

static bool read_number(
    struct reader *r, const struct at *at, const struct avc_field *f, const json_t *j, char *base)
{
	const int yes = 1;
	double number;
	int64_t integer = 0;

	if (f->kind == AVC_NUMBER) {
		if (!json_is_number(j))
			return wrong(r, at, j, "a number");
		number = json_number_value(j);
		memcpy(base + f->at, &number, sizeof(number));
	} else {
		if (!read_integer(r, at, j, &integer))
			return false;
		memcpy(base + f->at, &integer, sizeof(integer));
	}
	if (f->flags & AVC_MORE)
		memcpy(base + f->more_at, &yes, sizeof(yes));
	return true;
}

static bool read_field(
    struct reader *r, const struct at *at, const struct avc_field *f, const json_t *j, char *base)
{
	const char *text = NULL;
	int64_t ms = 0;
	int yes;
	void *s;

	switch (f->kind) {
	case AVC_TEXT:
		if (!read_text(r, at, j, &text))
			return false;
		memcpy(base + f->at, &text, sizeof(text));
		return true;
	case AVC_TIME:
		if (!read_time(r, at, j, &ms))
			return false;
		memcpy(base + f->at, &ms, sizeof(ms));
		return true;
	case AVC_INTEGER:
	case AVC_NUMBER:
		return read_number(r, at, f, j, base);
	case AVC_BOOL:
		if (!json_is_boolean(j))
			return wrong(r, at, j, "a boolean");
		yes = json_is_true(j);
		memcpy(base + f->at, &yes, sizeof(yes));
		return true;
	case AVC_ENUM:
		return read_enum(r, at, f, j, base);
	case AVC_PAIRS:
		return read_pairs(r, at, f, j, base);
	case AVC_JSON:
		return read_json(r, f, j, base);
	case AVC_STRUCT:
		s = arena_alloc(&r->arena, f->model->size);
		memcpy(base + f->at, &s, sizeof(s));
		return s && read_struct(r, at, f->model, j, s);
	default:
		return read_list(r, at, f, j, base);
	}
}

/* What a required member is that an older server does not send: nothing, but never NULL. */
static bool read_absent(struct reader *r, const struct avc_field *f, char *base)
{
	static const char empty[] = "", null[] = "null";
	const char *text = f->kind == AVC_JSON ? null : empty;
	char *s;

	switch (f->kind) {
	case AVC_TEXT:
	case AVC_JSON:
		memcpy(base + f->at, &text, sizeof(text));
		return true;
	case AVC_ENUM:
		if (f->flags & AVC_MORE)
			memcpy(base + f->more_at, &text, sizeof(text));
		return true;
	case AVC_TIME:
	case AVC_INTEGER:
	case AVC_NUMBER:
	case AVC_BOOL:
		return true;
	case AVC_STRUCT:
		s = arena_alloc(&r->arena, f->model->size);
		for (size_t i = 0; s && i < f->model->n_fields; i++)
			if ((f->model->fields[i].flags & AVC_REQUIRED) &&
			    !read_absent(r, &f->model->fields[i], s))
				return false;
		memcpy(base + f->at, &s, sizeof(s));
		return s != NULL;
	default:
		return put_list(f, base, empty, 0, r);
	}
}

static bool read_struct(struct reader *r, const struct at *at, const struct avc_model *m,
    const json_t *json, void *base)
{
	if (!json_is_object(json))
		return wrong(r, at, json, "an object");
	for (size_t i = 0; i < m->n_fields; i++) {
		const struct avc_field *f = &m->fields[i];
		const json_t *j = json_object_get(json, f->name);
		struct at here = {.up = at, .name = f->name};
		bool good = true;

		if (j && !json_is_null(j))
			good = read_field(r, &here, f, j, base);
		else if (m->key == i + 1)
			good = wrong(r, &here, j, "what it must be");
		else if (f->flags & AVC_REQUIRED)
			good = read_absent(r, f, base);
		if (!good)
			return false;
	}
	return true;
}

int avc_model_decode(
    const struct avc_model *m, const json_t *json, void **ret, char text[static AVC_MODEL_TEXT])
{
	struct reader r = {.text = text};
	void *model = arena_alloc(&r.arena, m->size);
	bool good = model && (m->is_array ? read_list(&r, NULL, &m->fields[0], json, model)
	                                  : read_struct(&r, NULL, m, json, model));

	if (good) {
		*ret = model;
		return 0;
	}
	arena_clear(&r.arena);
	if (r.arena.code != AVIARY_E_PROTOCOL)
		(void)snprintf(text, AVC_MODEL_TEXT, "%s",
		    r.arena.code == AVIARY_E_TOO_LARGE
		        ? "the server's answer takes more than 256 MiB of memory"
		        : "out of memory");
	return r.arena.code;
}

int avc_model_set_text(
    const struct avc_model *m, void *model, const char *member, const char *value)
{
	struct block *b = block_of(model);
	struct arena a = {.first = b, .last = b};
	const char *copy;

	while (a.last->next)
		a.last = a.last->next;
	for (size_t i = 0; i < m->n_fields; i++) {
		if (strcmp(m->fields[i].name, member) != 0)
			continue;
		copy = arena_text(&a, value, strlen(value));
		if (!copy)
			return a.code;
		memcpy((char *)model + m->fields[i].at, &copy, sizeof(copy));
	}
	return 0;
}

const char *avc_word(const struct avc_words *words, int value)
{
	return value > 0 && (size_t)value <= words->n ? words->items[value - 1] : "unknown";
}

int avc_word_find(const struct avc_words *words, const char *word)
{
	for (size_t i = 0; word && i < words->n; i++)
		if (strcmp(words->items[i], word) == 0)
			return (int)i + 1;
	return 0;
}
