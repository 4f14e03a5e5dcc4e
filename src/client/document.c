/* SPDX-License-Identifier: Apache-2.0 */
/*
 * document.c - JSON of the server into a tree (see model.h)
 *
 * Theory of operation. What the server says may come from a sandbox that means harm, or from
 * another server. av_json_valid() says whether it is JSON and not too deep; then the tree is made
 * of jansson's values, and what it costs is bounded while it grows. jansson reads no text here:
 * when memory runs out, its own reader (2.14) drops characters in silence, ends the program, or
 * reads and writes behind the end of a string whose quotation mark it dropped.
 */
#include "client/model.h"

#include <locale.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/jsontext.h"
#include "base/macros.h"
#include "base/num.h"

#include "base/banned.h"

/* What jansson takes, about, besides what is in strings. */
#define COST_CONTAINER 256
#define COST_ITEM      48

struct reader {
	const char *p, *end; /* of well-formed JSON: only strings and numbers need care */
	size_t cost;
	bool takes_nul;
	int code;           /* why it failed */
	struct av_buf name; /* of the member that is read */
	struct av_buf text; /* a string with escapes, or a number */
};

static int fail(struct reader *r, int code)
{
	r->code = code;
	return code;
}

/* To what comes next: a value, a name or the end of what is open. */
static char next(struct reader *r)
{
	while (strchr(" \t\r\n,:", *r->p)) {
		r->cost += *r->p == ',' || *r->p == ':' ? COST_ITEM : 0;
		r->p++;
	}
	return *r->p;
}

static uint32_t hex_of(const char *p)
{
	uint32_t n = 0;

	for (int i = 0; i < 4; i++) {
		unsigned c = (unsigned char)p[i];

		n = n << 4 | (c <= '9' ? c - '0' : (c | 0x20) - 'a' + 10);
	}
	return n;
}

static void append_utf8(struct av_buf *out, uint32_t c)
{
	char s[4];
	int n = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;

	for (int i = n - 1; i > 0; i--, c >>= 6)
		s[i] = (char)(0x80 | (c & 0x3f));
	s[0] = (char)(n == 1 ? c : (0xf00u >> n & 0xf0) | c);
	av_buf_append(out, s, (size_t)n);
}

/* From behind "\u" to behind the digits; of both halves when it is a pair. */
static int read_code(struct reader *r, struct av_buf *out)
{
	uint32_t c = hex_of(r->p), low;

	r->p += 4;
	if (c >= 0xdc00 && c < 0xe000)
		return fail(r, AVIARY_E_PROTOCOL);
	if (c >= 0xd800 && c < 0xdc00) {
		if (r->p[0] != '\\' || r->p[1] != 'u')
			return fail(r, AVIARY_E_PROTOCOL);
		low = hex_of(r->p + 2);
		if (low < 0xdc00 || low >= 0xe000)
			return fail(r, AVIARY_E_PROTOCOL);
		c = 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00);
		r->p += 6;
	}
	if (c == 0 && !r->takes_nul)
		return fail(r, AVIARY_E_PROTOCOL);
	append_utf8(out, c);
	return 0;
}

static int read_escape(struct reader *r, struct av_buf *out)
{
	static const char letters[] = "bfnrt", means[] = "\b\f\n\r\t";
	char c = *r->p++;
	const char *letter;

	if (c == 'u')
		return read_code(r, out);
	letter = strchr(letters, c);
	av_buf_append_char(out, letter ? means[letter - letters] : c);
	return 0;
}

/* From the quotation mark to behind the other. What is in between, in the text or in the buffer. */
static int read_string(struct reader *r, struct av_buf *buf, struct av_str *ret)
{
	const char *from = ++r->p;

	av_buf_reset(buf);
	for (;;) {
		while (*r->p != '"' && *r->p != '\\')
			r->p++;
		*ret = av_str_n(from, (size_t)(r->p - from));
		if (*r->p == '"' && buf->n == 0)
			break;
		av_buf_append_str(buf, *ret);
		if (*r->p == '"') {
			*ret = av_buf_str(buf);
			break;
		}
		r->p++;
		if (read_escape(r, buf) < 0)
			return r->code;
		from = r->p;
	}
	r->p++;
	return av_buf_error(buf) ? fail(r, AVIARY_E_NO_MEMORY) : 0;
}

/* As in the C locale, whatever the program's is. */
static json_t *real_of(struct reader *r, const char *digits)
{
	locale_t c = newlocale(LC_ALL_MASK, "C", (locale_t)0);
	double v;

	if (!c)
		return NULL;
	v = strtod_l(digits, NULL, c);
	freelocale(c);
	if (isfinite(v))
		return json_real(v);
	(void)fail(r, AVIARY_E_PROTOCOL);
	return NULL;
}

static json_t *read_number(struct reader *r)
{
	const char *from = r->p, *digits;
	bool real = false;
	struct av_str s;
	int64_t v;

	for (; r->p < r->end && *r->p && strchr("+-.eE0123456789", *r->p); r->p++)
		real = real || *r->p == '.' || *r->p == 'e' || *r->p == 'E';
	s = av_str_n(from, (size_t)(r->p - from));
	if (real) {
		av_buf_reset(&r->text);
		av_buf_append_str(&r->text, s);
		digits = av_buf_cstr(&r->text);
		return digits ? real_of(r, digits) : NULL;
	}
	if (av_parse_i64(s, INT64_MIN, INT64_MAX, &v) == 0)
		return json_integer(v);
	(void)fail(r, AVIARY_E_PROTOCOL);
	return NULL;
}

/* One that holds others is empty and open. NULL: r->code, or no memory. */
static json_t *read_value(struct reader *r)
{
	struct av_str s;

	switch (next(r)) {
	case '{':
	case '[':
		r->cost += COST_CONTAINER;
		return *r->p++ == '{' ? json_object() : json_array();
	case '"':
		return read_string(r, &r->text, &s) < 0 ? NULL : json_stringn_nocheck(s.p, s.n);
	case 't':
		r->p += strlen("true");
		return json_true();
	case 'f':
		r->p += strlen("false");
		return json_false();
	case 'n':
		r->p += strlen("null");
		return json_null();
	default:
		return read_number(r);
	}
}

static int read_name(struct reader *r, const json_t *object)
{
	struct av_str s;

	if (read_string(r, &r->name, &s) < 0)
		return r->code;
	if (s.p != av_buf_str(&r->name).p)
		av_buf_append_str(&r->name, s);
	if (!av_buf_cstr(&r->name))
		return fail(r, AVIARY_E_NO_MEMORY);
	/* A name with a NUL, or twice the same. */
	if (strlen(av_buf_cstr(&r->name)) < r->name.n ||
	    json_object_get(object, av_buf_cstr(&r->name)))
		return fail(r, AVIARY_E_PROTOCOL);
	return 0;
}

/* Reads what is in it, and its end. As deep as the text, whose depth is bounded. */
static int fill(struct reader *r, json_t *open)
{
	bool object = json_is_object(open);

	while (next(r) != '}' && *r->p != ']') {
		json_t *value;
		bool opens;
		int e;

		if (object && read_name(r, open) < 0)
			return r->code;
		value = read_value(r);
		if (!value)
			return fail(r, r->code ? r->code : AVIARY_E_NO_MEMORY);
		if (r->cost > AVC_JSON_COST_MAX)
			(void)fail(r, AVIARY_E_TOO_LARGE);
		opens = json_is_object(value) || json_is_array(value);
		e = object ? json_object_set_new_nocheck(open, av_buf_cstr(&r->name), value)
		           : json_array_append_new(open, value);
		if (e < 0)
			return fail(r, AVIARY_E_NO_MEMORY);
		if (r->code || (opens && fill(r, value) < 0))
			return r->code;
	}
	r->p++;
	return 0;
}

json_t *avc_json_load_with(struct av_str text, unsigned flags, int *ret_code)
{
	struct reader r = {
	    .p = text.p,
	    .end = text.p + text.n,
	    .takes_nul = flags & AVC_JSON_NUL,
	    .name = AV_BUF_INIT(AVC_JSON_MAX),
	    .text = AV_BUF_INIT(AVC_JSON_MAX),
	};
	json_t *json = NULL;

	if (text.n > AVC_JSON_MAX)
		r.code = AVIARY_E_TOO_LARGE;
	else if (!av_json_valid(text) || (!(flags & AVC_JSON_ANY) && !strchr("{[", next(&r))))
		r.code = AVIARY_E_PROTOCOL;
	if (r.code == 0) {
		json = read_value(&r);
		if (!json)
			r.code = r.code ? r.code : AVIARY_E_NO_MEMORY;
		else if (json_is_object(json) || json_is_array(json))
			(void)fill(&r, json);
	}
	if (r.code) {
		json_decref(json);
		json = NULL;
	}
	av_buf_clear(&r.name);
	av_buf_clear(&r.text);
	if (ret_code)
		*ret_code = r.code;
	return json;
}

json_t *avc_json_load(struct av_str text, int *ret_code)
{
	return avc_json_load_with(text, 0, ret_code);
}
