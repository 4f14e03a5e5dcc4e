/* SPDX-License-Identifier: Apache-2.0 */
/*
 * http_msg.c - the head of an HTTP message, and the small grammars of its values
 */
#include "proto/http_msg.h"

#include <errno.h>
#include <stdlib.h>

#include "base/codec.h"
#include "base/num.h"

#include "base/banned.h"

#define BLOCK_MIN 1000

struct av_http_block {
	struct av_http_block *next;
	size_t cap, used;
	char data[];
};

void av_http_head_init(struct av_http_head *h)
{
	*h = (struct av_http_head){
	    .method = AV_STR(""),
	    .target = AV_STR(""),
	    .authority = AV_STR(""),
	    .scheme = AV_STR(""),
	    .content_length = -1,
	    .keep_alive = true,
	    .minor_version = 1,
	};
}

void av_http_head_clear(struct av_http_head *h)
{
	struct av_http_block *next;
	for (struct av_http_block *b = h->blocks; b; b = next) {
		next = b->next;
		free(b);
	}
	free(h->headers);
	av_http_head_init(h);
}

void av_http_head_move(struct av_http_head *dst, struct av_http_head *src)
{
	av_http_head_clear(dst);
	*dst = *src;
	av_http_head_init(src);
}

static char *head_alloc(struct av_http_head *h, size_t n)
{
	struct av_http_block *b = h->blocks;
	if (!b || b->cap - b->used < n) {
		size_t cap = AV_MAX(n, (size_t)BLOCK_MIN), size;
		if (__builtin_add_overflow(cap, sizeof(*b), &size) || !(b = malloc(size)))
			return NULL;
		b->cap = cap;
		b->used = 0;
		b->next = h->blocks;
		h->blocks = b;
	}
	char *p = b->data + b->used;
	b->used += n;
	return p;
}

int av_http_head_copy(struct av_http_head *h, struct av_str s, struct av_str *ret)
{
	if (s.n == 0) {
		*ret = AV_STR("");
		return 0;
	}
	char *p = head_alloc(h, s.n);
	if (!p)
		return -ENOMEM;
	memcpy(p, s.p, s.n);
	*ret = av_str_n(p, s.n);
	return 0;
}

bool av_http_is_target(struct av_str s)
{
	for (size_t i = 0; i < s.n; i++)
		if ((unsigned char)s.p[i] <= 0x20 || (unsigned char)s.p[i] >= 0x7f || s.p[i] == '#')
			return false;
	return s.n == 0 || s.p[0] == '/' || av_str_eq_c(s, "*");
}

int av_http_head_request(
    struct av_http_head *h, struct av_str method, struct av_str authority, struct av_str target)
{
	struct av_http_head t;
	int r = 0;
	av_http_head_init(&t);
	if (!av_http_is_token(method) || !av_http_is_target(target) ||
	    (authority.n && !av_http_is_authority(authority)))
		return -EINVAL;
	if ((target.n == 0) != av_str_eq_c(method, "CONNECT"))
		return -EINVAL;
	if ((r = av_http_head_copy(&t, method, &t.method)) < 0 ||
	    (r = av_http_head_copy(&t, authority, &t.authority)) < 0 ||
	    (r = av_http_head_copy(&t, target, &t.target)) < 0) {
		av_http_head_clear(&t);
		return r;
	}
	*h = t;
	return 0;
}

void av_http_head_response(struct av_http_head *h, int status)
{
	av_http_head_init(h);
	h->status = status;
}

static char lower(char c)
{
	return c >= 'A' && c <= 'Z' ? (char)(c | 0x20) : c;
}

static int headers_grow(struct av_http_head *h)
{
	size_t cap = h->headers_cap ? h->headers_cap * 2 : 12;
	struct av_http_header *p = reallocarray(h->headers, cap, sizeof(*p));
	if (!p)
		return -ENOMEM;
	h->headers = p;
	h->headers_cap = cap;
	return 0;
}

int av_http_head_add(struct av_http_head *h, struct av_str name, struct av_str value)
{
	value = av_str_trim(value);
	if (!av_http_is_token(name) || !av_http_is_value(value))
		return -EINVAL;
	if (av_str_ieq(name, AV_STR("host")) || av_str_ieq(name, AV_STR("content-length")) ||
	    av_str_ieq(name, AV_STR("transfer-encoding")))
		return -EINVAL;
	if (h->n_headers == h->headers_cap && headers_grow(h) < 0)
		return -ENOMEM;
	char *p = head_alloc(h, name.n + value.n);
	if (!p)
		return -ENOMEM;
	for (size_t i = 0; i < name.n; i++)
		p[i] = lower(name.p[i]);
	if (value.n)
		memcpy(p + name.n, value.p, value.n);
	h->headers[h->n_headers++] = (struct av_http_header){
	    .name = av_str_n(p, name.n),
	    .value = av_str_n(p + name.n, value.n),
	};
	return 0;
}

int av_http_head_add_c(struct av_http_head *h, const char *name, const char *value)
{
	return av_http_head_add(h, av_str_c(name), av_str_c(value));
}

void av_http_head_remove(struct av_http_head *h, const char *name)
{
	size_t kept = 0;
	for (size_t i = 0; i < h->n_headers; i++)
		if (!av_str_eq_c(h->headers[i].name, name))
			h->headers[kept++] = h->headers[i];
	h->n_headers = kept;
}

/* The next member of a comma-separated list (quoted strings are not expected in token lists). */
static bool list_next(struct av_str *rest, struct av_str *ret)
{
	while (rest->n) {
		struct av_str part;
		av_str_cut(rest, ',', &part);
		*ret = av_str_trim(part);
		if (ret->n)
			return true;
	}
	return false;
}

void av_http_head_remove_hop_by_hop(struct av_http_head *h)
{
	static const char *const fixed[] = {"keep-alive", "proxy-connection", "proxy-authenticate",
	    "proxy-authorization", "te", "trailer", "upgrade"};
	size_t kept = 0;
	for (size_t i = 0; i < h->n_headers; i++) {
		bool drop = false;
		struct av_str name = h->headers[i].name;
		if (av_str_eq_c(name, "connection"))
			continue; /* below, as the others are still looked up by it */
		for (size_t k = 0; k < AV_ARRAY_LEN(fixed) && !drop; k++)
			drop = av_str_eq_c(name, fixed[k]);
		for (size_t k = 0; k < h->n_headers && !drop; k++) {
			struct av_str rest = h->headers[k].value, token;
			if (!av_str_eq_c(h->headers[k].name, "connection"))
				continue;
			while (!drop && list_next(&rest, &token))
				drop = av_str_ieq(token, name);
		}
		if (drop)
			h->headers[i].name = AV_STR("");
	}
	for (size_t i = 0; i < h->n_headers; i++)
		if (h->headers[i].name.n && !av_str_eq_c(h->headers[i].name, "connection"))
			h->headers[kept++] = h->headers[i];
	h->n_headers = kept;
}

const struct av_str *av_http_head_get(const struct av_http_head *h, const char *name)
{
	for (size_t i = 0; i < h->n_headers; i++)
		if (av_str_eq_c(h->headers[i].name, name))
			return &h->headers[i].value;
	return NULL;
}

size_t av_http_head_count(const struct av_http_head *h, const char *name)
{
	size_t n = 0;
	for (size_t i = 0; i < h->n_headers; i++)
		n += av_str_eq_c(h->headers[i].name, name);
	return n;
}

bool av_http_head_has_token(const struct av_http_head *h, const char *name, const char *token)
{
	for (size_t i = 0; i < h->n_headers; i++) {
		struct av_str rest = h->headers[i].value, member;
		if (!av_str_eq_c(h->headers[i].name, name))
			continue;
		while (list_next(&rest, &member))
			if (av_str_ieq(member, av_str_c(token)))
				return true;
	}
	return false;
}

struct av_str av_http_media_type(struct av_str value)
{
	struct av_str head;
	av_str_cut(&value, ';', &head);
	return av_str_trim(head);
}

static bool is_space(char c)
{
	return c == ' ' || c == '\t';
}

/* A token or quoted string at the start of *s; consumed, and appended to out when that is set. */
static int param_value(struct av_str *s, struct av_buf *out)
{
	size_t i = 0;
	if (s->n == 0 || s->p[0] != '"') {
		while (i < s->n && s->p[i] != ';' && !is_space(s->p[i]))
			i++;
		struct av_str v = av_str_n(s->p, i);
		*s = av_str_n(s->p + i, s->n - i);
		return out ? av_buf_append_str(out, v) : 0;
	}
	for (i = 1; i < s->n && s->p[i] != '"'; i++) {
		if (s->p[i] == '\\' && ++i == s->n)
			return -EINVAL;
		int r = out ? av_buf_append_char(out, s->p[i]) : 0;
		if (r < 0)
			return r;
	}
	if (i == s->n)
		return -EINVAL;
	*s = av_str_n(s->p + i + 1, s->n - i - 1);
	return 0;
}

int av_http_param(struct av_str value, const char *name, struct av_buf *out)
{
	struct av_str s = value, skipped;
	av_str_cut(&s, ';', &skipped);
	while (s.n) {
		struct av_str key;
		while (s.n && (is_space(s.p[0]) || s.p[0] == ';'))
			s = av_str_n(s.p + 1, s.n - 1);
		if (s.n == 0)
			break;
		if (!av_str_cut(&s, '=', &key))
			return -EINVAL;
		key = av_str_trim(key);
		if (!av_http_is_token(key))
			return -EINVAL;
		bool wanted = av_str_ieq(key, av_str_c(name));
		int r = param_value(&s, wanted ? out : NULL);
		if (r < 0 || wanted)
			return r;
	}
	return -ENOENT;
}

void av_http_split_target(struct av_str target, struct av_str *ret_path, struct av_str *ret_query)
{
	struct av_str rest = target;
	av_str_cut(&rest, '?', ret_path);
	*ret_query = rest.n ? rest : AV_STR("");
}

int av_http_query_get(struct av_str query, const char *name, struct av_buf *out)
{
	return av_http_query_next(&query, name, out);
}

int av_http_query_next(struct av_str *rest, const char *name, struct av_buf *out)
{
	struct av_str want = av_str_c(name);
	while (rest->n) {
		struct av_str pair, key;
		AV_CLEANUP(av_buf_clear)
		struct av_buf text = AV_BUF_INIT(AV_MAX(out->max, want.n + 1));
		av_str_cut(rest, '&', &pair);
		av_str_cut(&pair, '=', &key);
		/* A key that cannot be decoded, or not in that much, is not the one looked for. */
		if (av_percent_decode(&text, key, true) < 0 || !av_str_eq(av_buf_str(&text), want))
			continue;
		av_buf_reset(&text);
		int r = av_percent_decode(&text, pair, true);
		if (r < 0)
			return r;
		if (av_str_has_nul(av_buf_str(&text)))
			return -EINVAL;
		return av_buf_append_str(out, av_buf_str(&text));
	}
	return -ENOENT;
}

static bool is_tchar(unsigned char c)
{
	return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
	       (c && c < 0x80 && strchr("!#$%&'*+-.^_`|~", c));
}

bool av_http_is_token(struct av_str s)
{
	for (size_t i = 0; i < s.n; i++)
		if (!is_tchar((unsigned char)s.p[i]))
			return false;
	return s.n > 0;
}

bool av_http_is_value(struct av_str s)
{
	for (size_t i = 0; i < s.n; i++) {
		unsigned char c = (unsigned char)s.p[i];
		if ((c < 0x20 && c != '\t') || c == 0x7f)
			return false;
	}
	return true;
}

static bool is_digits(struct av_str s)
{
	for (size_t i = 0; i < s.n; i++)
		if (s.p[i] < '0' || s.p[i] > '9')
			return false;
	return true;
}

/* Cuts host and port text; brackets stay on. False if malformed. */
static bool authority_parts(struct av_str s, struct av_str *host, struct av_str *port)
{
	size_t i = 0;
	if (s.n && s.p[0] == '[') {
		for (i = 1; i < s.n && s.p[i] != ']'; i++) {
			char c = lower(s.p[i]);
			if (!((c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || c == ':' ||
			        c == '.'))
				return false;
		}
		if (i == s.n || i == 1)
			return false;
		i++;
	} else {
		/* reg-name without sub-delims, which no host name has and proxies disagree about */
		for (; i < s.n && s.p[i] != ':'; i++) {
			char c = lower(s.p[i]);
			if (!((c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') ||
			        (c && strchr("-._~%", c))))
				return false;
		}
		if (i == 0)
			return false;
	}
	*host = av_str_n(s.p, i);
	*port = AV_STR("");
	if (i == s.n)
		return true;
	if (s.p[i] != ':')
		return false;
	*port = av_str_n(s.p + i + 1, s.n - i - 1);
	return is_digits(*port);
}

bool av_http_is_authority(struct av_str s)
{
	struct av_str host, port;
	return authority_parts(s, &host, &port);
}

int av_http_split_authority(
    struct av_str s, uint16_t default_port, struct av_str *ret_host, uint16_t *ret_port)
{
	struct av_str host, port;
	uint64_t n = default_port;
	if (!authority_parts(s, &host, &port))
		return -EINVAL;
	if (port.n && av_parse_u64(port, 1, 65535, &n) < 0)
		return -EINVAL;
	if (n == 0)
		return -EINVAL;
	*ret_host = host.p[0] == '[' ? av_str_n(host.p + 1, host.n - 2) : host;
	*ret_port = (uint16_t)n;
	return 0;
}

const char *av_http_reason(int status)
{
	static const struct {
		int status;
		const char *text;
	} reasons[] = {
	    {100, "Continue"},
	    {101, "Switching Protocols"},
	    {200, "OK"},
	    {201, "Created"},
	    {202, "Accepted"},
	    {204, "No Content"},
	    {206, "Partial Content"},
	    {301, "Moved Permanently"},
	    {302, "Found"},
	    {303, "See Other"},
	    {304, "Not Modified"},
	    {307, "Temporary Redirect"},
	    {308, "Permanent Redirect"},
	    {400, "Bad Request"},
	    {401, "Unauthorized"},
	    {403, "Forbidden"},
	    {404, "Not Found"},
	    {405, "Method Not Allowed"},
	    {406, "Not Acceptable"},
	    {408, "Request Timeout"},
	    {409, "Conflict"},
	    {410, "Gone"},
	    {411, "Length Required"},
	    {412, "Precondition Failed"},
	    {413, "Content Too Large"},
	    {414, "URI Too Long"},
	    {415, "Unsupported Media Type"},
	    {416, "Range Not Satisfiable"},
	    {417, "Expectation Failed"},
	    {421, "Misdirected Request"},
	    {422, "Unprocessable Content"},
	    {426, "Upgrade Required"},
	    {429, "Too Many Requests"},
	    {431, "Request Header Fields Too Large"},
	    {499, "Client Closed Request"},
	    {500, "Internal Server Error"},
	    {501, "Not Implemented"},
	    {502, "Bad Gateway"},
	    {503, "Service Unavailable"},
	    {504, "Gateway Timeout"},
	    {505, "HTTP Version Not Supported"},
	    {507, "Insufficient Storage"},
	};
	for (size_t i = 0; i < AV_ARRAY_LEN(reasons); i++)
		if (reasons[i].status == status)
			return reasons[i].text;
	return "";
}
