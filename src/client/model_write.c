/* SPDX-License-Identifier: Apache-2.0 */
/*
 * model_write.c - structs to JSON and to parameters (see model.h)
 */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/avtime.h"
#include "base/json.h"
#include "base/macros.h"
#include "client/model.h"

#include "base/banned.h"

struct writer {
	int code;
	char *text; /* AVC_MODEL_TEXT */
};

static json_t *no_memory(struct writer *w)
{
	if (w->code == 0) {
		w->code = AVIARY_E_NO_MEMORY;
		(void)snprintf(w->text, AVC_MODEL_TEXT, "out of memory");
	}
	return NULL;
}

static json_t *invalid(struct writer *w, const struct avc_field *f, const char *why)
{
	if (w->code == 0) {
		w->code = AVIARY_E_INVALID;
		(void)snprintf(w->text, AVC_MODEL_TEXT, "%.80s: %s", f->name, why);
	}
	return NULL;
}

static json_t *write_text(struct writer *w, const struct avc_field *f, const char *text)
{
	if (!av_utf8_valid(av_str_c(text)))
		return invalid(w, f, "is not UTF-8");
	json_t *j = json_string(text);
	return j ? j : no_memory(w);
}

static json_t *write_time(struct writer *w, int64_t ms)
{
	char text[32];
	json_t *j;

	av_rfc3339_ms(ms, text);
	j = json_string(text);
	return j ? j : no_memory(w);
}

static json_t *write_struct(struct writer *w, const struct avc_model *m, const void *base);

/* An item of a list; p is its items. */
static json_t *write_item(
    struct writer *w, const struct avc_field *f, const void *p, size_t i, const char *name)
{
	const char *text;
	size_t stride;
	json_t *j;

	switch (f->kind) {
	case AVC_STRINGS:
		text = ((const char *const *)p)[i];
		return text ? write_text(w, f, text) : invalid(w, f, "an item is NULL");
	case AVC_PAIRS:
		text = ((const aviary_pair *)p)[i].value;
		if (!name)
			return invalid(w, f, "a name is NULL");
		if (!text && (f->flags & AVC_NULLS))
			return json_null();
		return text ? write_text(w, f, text) : invalid(w, f, "a value is NULL");
	case AVC_TIMES:
		return write_time(w, ((const int64_t *)p)[i]);
	case AVC_STRUCTS:
		if (!(f->flags & AVC_INLINE))
			return write_struct(w, f->model, ((const void *const *)p)[i]);
		/* One behind another, as long as the caller thinks that they are. */
		memcpy(&stride, p, sizeof(stride));
		if (stride < sizeof(stride))
			return invalid(w, f, "struct_size of the first item is not set");
		return write_struct(w, f->model, (const char *)p + i * stride);
	default:
		j = json_integer(
		    f->kind == AVC_PORTS ? ((const uint16_t *)p)[i] : ((const int64_t *)p)[i]);
		return j ? j : no_memory(w);
	}
}

static json_t *write_list(struct writer *w, const struct avc_field *f, const void *items, size_t n)
{
	json_t *list = f->kind == AVC_PAIRS ? json_object() : json_array();

	for (size_t i = 0; list && i < n; i++) {
		const char *name =
		    f->kind == AVC_PAIRS ? ((const aviary_pair *)items)[i].name : NULL;
		json_t *j = write_item(w, f, items, i, name);
		int r;

		if (j && name && !av_utf8_valid(av_str_c(name))) {
			json_decref(j);
			j = invalid(w, f, "a name is not UTF-8");
		}
		r = !j     ? -1
		    : name ? json_object_set_new(list, name, j)
		           : json_array_append_new(list, j);
		if (r < 0) {
			json_decref(list);
			return no_memory(w);
		}
	}
	return list ? list : no_memory(w);
}

/* Where a list is and how long it is. False: it is not said. */
static bool list_of(
    const struct avc_field *f, const char *base, const void **ret_items, size_t *ret_n)
{
	const char *at = base + f->at;

	if (f->flags & AVC_POINTER) {
		memcpy(&at, base + f->at, sizeof(at));
		if (!at)
			return false;
	}
	memcpy(ret_items, at, sizeof(*ret_items));
	memcpy(ret_n, f->kind == AVC_STRUCTS ? base + f->more_at : at + offsetof(aviary_strings, n),
	    sizeof(*ret_n));
	return *ret_items != NULL;
}

/* Whether a number is said: it is required, is not zero, or says so itself. */
static bool is_said(const struct avc_field *f, const char *base, bool is_zero)
{
	int has = 0;

	if (f->flags & AVC_MORE)
		memcpy(&has, base + f->more_at, sizeof(has));
	else
		has = (f->flags & AVC_REQUIRED) != 0;
	return has || !is_zero;
}

static json_t *write_number(struct writer *w, const struct avc_field *f, const char *base)
{
	double number;
	int64_t integer;
	json_t *j;

	if (f->kind == AVC_NUMBER) {
		memcpy(&number, base + f->at, sizeof(number));
		if (!is_said(f, base, fpclassify(number) == FP_ZERO))
			return NULL;
		if (!isfinite(number))
			return invalid(w, f, "is not a finite number");
		j = json_real(number);
	} else {
		memcpy(&integer, base + f->at, sizeof(integer));
		if (!is_said(f, base, integer == 0))
			return NULL;
		j = json_integer(integer);
	}
	return j ? j : no_memory(w);
}

static json_t *write_bool(const struct avc_field *f, const char *base)
{
	int value;

	memcpy(&value, base + f->at, sizeof(value));
	if (!(f->flags & AVC_THREE))
		return json_boolean(value != 0);
	return value == 0 ? NULL : json_boolean(value > 0);
}

static json_t *write_enum(struct writer *w, const struct avc_field *f, const char *base)
{
	const char *word = NULL;
	int value;

	memcpy(&value, base + f->at, sizeof(value));
	if (f->flags & AVC_MORE)
		memcpy(&word, base + f->more_at, sizeof(word));
	if (word)
		return write_text(w, f, word);
	if (value == 0)
		return (f->flags & AVC_REQUIRED) ? invalid(w, f, "must be said") : NULL;
	if (value < 0 || (size_t)value > f->words->n)
		return invalid(w, f, "is not a value of its enum");
	return write_text(w, f, avc_word(f->words, value));
}

/* NULL with code 0: it is not said. */
static json_t *write_field(struct writer *w, const struct avc_field *f, const char *base)
{
	const void *p = NULL;
	json_t *j;
	int64_t ms;
	size_t n = 0;
	int code;

	switch (f->kind) {
	case AVC_INTEGER:
	case AVC_NUMBER:
		return write_number(w, f, base);
	case AVC_BOOL:
		return write_bool(f, base);
	case AVC_ENUM:
		return write_enum(w, f, base);
	case AVC_TIME:
		memcpy(&ms, base + f->at, sizeof(ms));
		return ms || (f->flags & AVC_REQUIRED) ? write_time(w, ms) : NULL;
	case AVC_TEXT:
	case AVC_JSON:
	case AVC_STRUCT:
		memcpy(&p, base + f->at, sizeof(p));
		break;
	default:
		if (list_of(f, base, &p, &n))
			return write_list(w, f, p, n);
	}
	if (!p)
		return (f->flags & AVC_REQUIRED) ? invalid(w, f, "must be said") : NULL;
	if (f->kind == AVC_TEXT)
		return write_text(w, f, p);
	if (f->kind == AVC_STRUCT)
		return write_struct(w, f->model, p);
	j = avc_json_load_with(av_str_c(p), AVC_JSON_ANY, &code);
	if (code == AVIARY_E_NO_MEMORY)
		return no_memory(w);
	return j ? j : invalid(w, f, "is not JSON");
}

static bool write_fields(
    struct writer *w, json_t *o, const struct avc_field *fields, size_t n, const void *base)
{
	for (size_t i = 0; i < n; i++) {
		json_t *j = fields[i].place == AVC_BODY ? write_field(w, &fields[i], base) : NULL;

		if (w->code < 0) {
			json_decref(j);
			return false;
		}
		if (j && json_object_set_new(o, fields[i].name, j) < 0) {
			(void)no_memory(w);
			return false;
		}
	}
	return true;
}

int avc_options_copy(void *dst, size_t size, const void *src, char text[static AVC_MODEL_TEXT])
{
	size_t given;

	memset(dst, 0, size);
	if (!src)
		return 0;
	memcpy(&given, src, sizeof(given));
	if (given < sizeof(given)) {
		(void)snprintf(text, AVC_MODEL_TEXT,
		    "struct_size of the options is %zu: begin with their ..._INIT", given);
		return AVIARY_E_INVALID;
	}
	memcpy(dst, src, AV_MIN(given, size));
	return 0;
}

static json_t *write_struct(struct writer *w, const struct avc_model *m, const void *base)
{
	json_t *o = json_object();
	void *copy = NULL;
	bool good;

	if (o && m->of_caller) {
		copy = malloc(m->size);
		if (copy)
			w->code = avc_options_copy(copy, m->size, base, w->text);
		base = copy;
	}
	good = o && base && w->code == 0 && write_fields(w, o, m->fields, m->n_fields, base);
	free(copy);
	if (good)
		return o;
	json_decref(o);
	return no_memory(w);
}

int avc_fields_encode(json_t *o, const struct avc_field *fields, size_t n, const void *base,
    char text[static AVC_MODEL_TEXT])
{
	struct writer w = {.text = text};

	(void)write_fields(&w, o, fields, n, base);
	return w.code;
}

static int print(char **ret, char text[static AVC_MODEL_TEXT], const json_t *j)
{
	char number[32];
	const char *value = number;

	if (json_is_string(j))
		value = json_string_value(j);
	else if (json_is_boolean(j))
		value = json_is_true(j) ? "true" : "false";
	else if (json_is_integer(j))
		(void)snprintf(number, sizeof(number), "%" PRId64, (int64_t)json_integer_value(j));
	else
		(void)snprintf(number, sizeof(number), "%.9g", json_real_value(j));
	*ret = av_str_dup(av_str_c(value));
	if (*ret)
		return 0;
	(void)snprintf(text, AVC_MODEL_TEXT, "out of memory");
	return AVIARY_E_NO_MEMORY;
}

int avc_field_text(
    const struct avc_field *f, const void *base, char **ret, char text[static AVC_MODEL_TEXT])
{
	struct writer w = {.text = text};
	json_t *j = write_field(&w, f, base);
	int r = w.code;

	*ret = NULL;
	if (j && r == 0)
		r = print(ret, text, j);
	json_decref(j);
	return r;
}

json_t *avc_model_encode(const struct avc_model *m, const void *model)
{
	char text[AVC_MODEL_TEXT];
	struct writer w = {.text = text};
	const void *items;
	size_t n;

	if (!m->is_array)
		return write_struct(&w, m, model);
	return list_of(&m->fields[0], model, &items, &n) ? write_list(&w, &m->fields[0], items, n)
	                                                 : json_array();
}

char *avc_json_text(const json_t *json)
{
	AV_CLEANUP(av_buf_clear) struct av_buf out = AV_BUF_INIT(AVC_MODEL_MAX);

	return av_json_dump(&out, json) == 0 ? av_str_dup(av_buf_str(&out)) : NULL;
}

char *avc_model_json(const struct avc_model *m, const void *model)
{
	json_t *j = model ? avc_model_encode(m, model) : NULL;
	char *text = j ? avc_json_text(j) : NULL;

	json_decref(j);
	return text;
}
