/* SPDX-License-Identifier: Apache-2.0 */
/*
 * document.c - JSON of the server into a tree (see model.h)
 *
 * Theory of operation. What the server says may come from a sandbox that means harm, or from
 * another server: its size, its depth and what jansson would make of it are bounded before it is
 * parsed. When memory runs out jansson may also drop a character of a string or number that it
 * reads, and say nothing (it ignores what its buffer answers). So the tree is weighed against the
 * text: bytes of all strings, sum of all numbers.
 */
#include "client/model.h"

#include <string.h>

#include "base/jsontext.h"
#include "base/macros.h"

#include "base/banned.h"

static bool is_document(struct av_str text)
{
	struct av_str s = text;

	while (s.n && strchr(" \t\r\n", *s.p))
		s = av_str_n(s.p + 1, s.n - 1);
	return s.n && (*s.p == '{' || *s.p == '[') && av_json_valid(text);
}

/* ---- weighing ---- */

struct weight {
	size_t cost;       /* of a text: about what jansson takes, without what is in strings */
	uint64_t bytes;    /* of strings and names */
	uint64_t integers; /* their sum, around */
	double reals;      /* sum of their magnitudes; those of more than 300 digits do not count */
};

static unsigned hex_of(const char *p)
{
	unsigned n = 0;

	for (int i = 0; i < 4; i++) {
		unsigned c = (unsigned char)p[i];

		n = n << 4 | (c <= '9' ? c - '0' : (c | 0x20) - 'a' + 10);
	}
	return n;
}

/* A string of valid JSON, from behind its quotation mark to behind the other. */
static const char *weigh_string(struct weight *w, const char *p)
{
	for (; *p != '"'; p++) {
		unsigned code;

		if (*p == '\\' && *++p == 'u') {
			code = hex_of(p + 1);
			p += 4;
			/* Two halves of a pair are two escapes, and four bytes together. */
			w->bytes += code < 0x80                                         ? 1
			            : code < 0x800 || (code >= 0xd800 && code < 0xe000) ? 2
			                                                                : 3;
		} else {
			w->bytes++;
		}
	}
	return p + 1;
}

static double ten_to(int n)
{
	double r = 1;

	for (; n > 0; n--)
		r *= 10;
	for (; n < 0; n++)
		r /= 10;
	return r;
}

static const char *weigh_number(struct weight *w, const char *p)
{
	bool negative = *p == '-', real = false, fraction = false, below = false;
	double mantissa = 0;
	uint64_t integer = 0;
	int places = 0, exponent = 0;

	for (p += negative; (*p >= '0' && *p <= '9') || *p == '.'; p++) {
		if (*p == '.') {
			real = fraction = true;
			continue;
		}
		integer = integer * 10 + (uint64_t)(*p - '0');
		mantissa = mantissa * 10 + (*p - '0');
		places += fraction;
	}
	if (*p == 'e' || *p == 'E') {
		real = true;
		p++;
		below = *p == '-';
		for (p += *p == '-' || *p == '+'; *p >= '0' && *p <= '9'; p++)
			exponent = exponent < 1000 ? exponent * 10 + (*p - '0') : exponent;
	}
	if (!real)
		w->integers += negative ? 0 - integer : integer;
	else if (places < 300 && exponent < 300 && mantissa < 1e300)
		w->reals += mantissa * ten_to((below ? -exponent : exponent) - places);
	return p;
}

/* Valid JSON, with a byte behind it that is none of a number: it is an object or array. */
static struct weight weigh_text(struct av_str s)
{
	struct weight w = {0};

	for (const char *p = s.p; p < s.p + s.n;) {
		char c = *p;

		if (c == '"') {
			p = weigh_string(&w, p + 1);
		} else if (c == '-' || (c >= '0' && c <= '9')) {
			p = weigh_number(&w, p);
		} else {
			w.cost += c == '{' || c == '[' ? 256 : c == ',' || c == ':' ? 48 : 0;
			p++;
		}
	}
	return w;
}

/* As deep as the text, whose depth is bounded. */
static void weigh_tree(struct weight *w, json_t *j)
{
	const char *name;
	json_t *value;
	size_t i;

	switch (json_typeof(j)) {
	case JSON_OBJECT:
		json_object_foreach (j, name, value) {
			w->bytes += strlen(name);
			weigh_tree(w, value);
		}
		break;
	case JSON_ARRAY:
		json_array_foreach (j, i, value)
			weigh_tree(w, value);
		break;
	case JSON_STRING:
		w->bytes += json_string_length(j);
		break;
	case JSON_INTEGER:
		w->integers += (uint64_t)json_integer_value(j);
		break;
	case JSON_REAL:
		w->reals += json_real_value(j) < 0 ? -json_real_value(j) : json_real_value(j);
		break;
	default:
		break;
	}
}

static bool is_whole(const struct weight *text, json_t *json)
{
	struct weight tree = {0};
	double apart;

	weigh_tree(&tree, json);
	apart = text->reals > tree.reals ? text->reals - tree.reals : tree.reals - text->reals;
	return text->bytes == tree.bytes && text->integers == tree.integers &&
	       apart <= 1e-6 * (text->reals + tree.reals);
}

/* ---- loading ---- */

/* Why jansson refuses what is well-formed. It tells an allocation that failed as a syntax error, or
 * not at all. */
static int code_of(const json_error_t *e)
{
	switch (json_error_code(e)) {
	case json_error_duplicate_key:
	case json_error_null_character:
	case json_error_null_byte_in_key:
	case json_error_numeric_overflow:
		return AVIARY_E_PROTOCOL;
	default: /* half of a surrogate pair */
		return strstr(e->text, "Unicode") ? AVIARY_E_PROTOCOL : AVIARY_E_NO_MEMORY;
	}
}

json_t *avc_json_load_with(struct av_str text, size_t flags, int *ret_code)
{
	struct weight weight = {0};
	json_error_t e = {0}; /* jansson leaves the code in it alone when it has nothing to say */
	json_t *json = NULL;
	int code = 0;

	if (text.n > AVC_JSON_MAX)
		code = AVIARY_E_TOO_LARGE;
	else if (!is_document(text))
		code = AVIARY_E_PROTOCOL;
	else if ((weight = weigh_text(text)).cost > AVC_JSON_COST_MAX)
		code = AVIARY_E_TOO_LARGE;
	else
		json = json_loadb(text.p, text.n, JSON_REJECT_DUPLICATES | flags, &e);
	if (!json && code == 0)
		code = code_of(&e);
	if (json && !is_whole(&weight, json)) {
		json_decref(json);
		json = NULL;
		code = AVIARY_E_NO_MEMORY;
	}
	if (ret_code)
		*ret_code = code;
	return json;
}

json_t *avc_json_load(struct av_str text, int *ret_code)
{
	return avc_json_load_with(text, 0, ret_code);
}
