/* SPDX-License-Identifier: Apache-2.0 */
/*
 * json.c - foreign JSON over jansson
 *
 * jansson bounds nesting by JSON_PARSER_MAX_DEPTH (2048 as Debian builds it); parsing recurses, so
 * the stricter bound of ours is checked on the text first.
 */
#include "base/json.h"

#include <errno.h>
#include <math.h>

#include "base/banned.h"

void av_json_decrefp(json_t **j)
{
	json_decref(*j);
	*j = NULL;
}

/* Depth of nesting outside of strings; wrong JSON may give any answer and is refused later. */
static bool too_deep(struct av_str s)
{
	int depth = 0;
	bool in_string = false;
	for (size_t i = 0; i < s.n; i++) {
		char c = s.p[i];
		if (in_string) {
			if (c == '\\')
				i++;
			else if (c == '"')
				in_string = false;
		} else if (c == '"') {
			in_string = true;
		} else if (c == '{' || c == '[') {
			if (++depth > AV_JSON_DEPTH)
				return true;
		} else if (c == '}' || c == ']') {
			depth--;
		}
	}
	return false;
}

json_t *av_json_parse_object(struct av_str s, struct av_err *err)
{
	if (too_deep(s)) {
		av_err_set(
		    err, AV_ERR_INVALID, "JSON is nested deeper than %d levels", AV_JSON_DEPTH);
		return NULL;
	}
	json_error_t why;
	AV_CLEANUP(av_json_decrefp)
	json_t *j = json_loadb(s.p, s.n, JSON_REJECT_DUPLICATES, &why);
	if (!j) {
		av_err_set(err, AV_ERR_INVALID, "body is not valid JSON (line %d, column %d): %s",
		    why.line, why.column, why.text);
		return NULL;
	}
	if (!json_is_object(j)) {
		av_err_set(
		    err, AV_ERR_INVALID, "body must be a JSON object, like {\"cmd\": \"ls\"}");
		return NULL;
	}
	return AV_TAKE_PTR(j);
}

static const char *type_name(const json_t *j)
{
	switch (j ? json_typeof(j) : JSON_NULL) {
	case JSON_OBJECT:
		return "an object";
	case JSON_ARRAY:
		return "an array";
	case JSON_STRING:
		return "a string";
	case JSON_INTEGER:
	case JSON_REAL:
		return "a number";
	case JSON_TRUE:
	case JSON_FALSE:
		return "a boolean";
	default:
		return "null";
	}
}

static int wrong_type(const char *field, const json_t *v, const char *wanted, struct av_err *err)
{
	return av_err_set(
	    err, AV_ERR_INVALID, "\"%s\" must be %s, not %s", field, wanted, type_name(v));
}

/* The value, or NULL when it is absent or null. */
static const json_t *present(const json_t *obj, const char *field)
{
	const json_t *v = json_object_get(obj, field);
	return v && !json_is_null(v) ? v : NULL;
}

int av_json_get_str(const json_t *obj, const char *field, const char **ret, struct av_err *err)
{
	const json_t *v = present(obj, field);
	if (!v)
		return 0;
	if (!json_is_string(v))
		return wrong_type(field, v, "a string", err);
	*ret = json_string_value(v);
	return 0;
}

int av_json_get_i64(const json_t *obj, const char *field, int64_t min, int64_t max, int64_t *ret,
    struct av_err *err)
{
	const json_t *v = present(obj, field);
	if (!v)
		return 0;
	if (!json_is_integer(v))
		return wrong_type(field, v, "a whole number", err);
	int64_t n = json_integer_value(v);
	if (n < min || n > max)
		return av_err_set(err, AV_ERR_INVALID, "\"%s\" is %lld; allowed is %lld to %lld",
		    field, (long long)n, (long long)min, (long long)max);
	*ret = n;
	return 0;
}

int av_json_get_bool(const json_t *obj, const char *field, bool *ret, struct av_err *err)
{
	const json_t *v = present(obj, field);
	if (!v)
		return 0;
	if (!json_is_boolean(v))
		return wrong_type(field, v, "true or false", err);
	*ret = json_is_true(v);
	return 0;
}

int av_json_get_seconds_ms(
    const json_t *obj, const char *field, int64_t max_ms, int64_t *ret_ms, struct av_err *err)
{
	const json_t *v = present(obj, field);
	if (!v)
		return 0;
	if (!json_is_number(v))
		return wrong_type(field, v, "a number of seconds", err);
	double s = json_number_value(v);
	if (!isfinite(s) || s < 0 || s * 1000 > (double)max_ms)
		return av_err_set(err, AV_ERR_INVALID, "\"%s\" is %g; allowed is 0 to %lld seconds",
		    field, s, (long long)(max_ms / 1000));
	*ret_ms = (int64_t)(s * 1000 + 0.5);
	return 0;
}

int av_json_get_object(const json_t *obj, const char *field, const json_t **ret, struct av_err *err)
{
	const json_t *v = present(obj, field);
	if (!v)
		return 0;
	if (!json_is_object(v))
		return wrong_type(field, v, "an object", err);
	*ret = v;
	return 0;
}

int av_json_get_array(
    const json_t *obj, const char *field, size_t max_items, const json_t **ret, struct av_err *err)
{
	const json_t *v = present(obj, field);
	if (!v)
		return 0;
	if (!json_is_array(v))
		return wrong_type(field, v, "an array", err);
	if (json_array_size(v) > max_items)
		return av_err_set(err, AV_ERR_INVALID, "\"%s\" has %zu items; allowed are %zu",
		    field, json_array_size(v), max_items);
	*ret = v;
	return 0;
}

int av_json_get_str_map(
    const json_t *obj, const char *field, size_t max_items, const json_t **ret, struct av_err *err)
{
	const json_t *v = present(obj, field);
	if (!v)
		return 0;
	if (!json_is_object(v))
		return wrong_type(field, v, "an object of strings", err);
	if (json_object_size(v) > max_items)
		return av_err_set(err, AV_ERR_INVALID, "\"%s\" has %zu entries; allowed are %zu",
		    field, json_object_size(v), max_items);
	json_t *borrowed = json_object_get(obj, field);
	const char *key;
	json_t *item;
	json_object_foreach (borrowed, key, item) {
		if (!json_is_string(item))
			return av_err_set(err, AV_ERR_INVALID,
			    "\"%s\": value of \"%.100s\" must be a string, not %s", field, key,
			    type_name(item));
	}
	*ret = v;
	return 0;
}

int av_json_get_str_array(
    const json_t *obj, const char *field, size_t max_items, const json_t **ret, struct av_err *err)
{
	const json_t *v = NULL;
	int r = av_json_get_array(obj, field, max_items, &v, err);
	if (r < 0 || !v)
		return r;
	for (size_t i = 0; i < json_array_size(v); i++) {
		const json_t *item = json_array_get(v, i);
		if (!json_is_string(item))
			return av_err_set(err, AV_ERR_INVALID,
			    "\"%s\": item %zu must be a string, not %s", field, i, type_name(item));
	}
	*ret = v;
	return 0;
}

static int append_chunk(const char *p, size_t n, void *ctx)
{
	return av_buf_append(ctx, p, n);
}

int av_json_dump(struct av_buf *out, const json_t *j)
{
	if (json_dump_callback(j, append_chunk, out, JSON_COMPACT | JSON_ENCODE_ANY) < 0)
		return out->error ? out->error : -EINVAL;
	return out->error; /* jansson overlooks what a key could not be written with */
}
