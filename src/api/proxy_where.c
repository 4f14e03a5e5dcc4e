/* SPDX-License-Identifier: Apache-2.0 */
/*
 * proxy_where.c - from the head of a request to a port of a sandbox (see proxy_where.h)
 */
#include "api/proxy_where.h"

#include <errno.h>

#include "base/num.h"
#include "base/banned.h"

/* Who routes by headers, and how they call them. */
static const struct {
	const char *sandbox, *port;
} header_names[] = {
    {"x-aviary-sandbox", "x-aviary-port"},
};

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

/* "3000-sb": digits, a dash and the letters of our ids, in any case. */
static bool looks_like_port(struct av_str label)
{
	size_t i = 0;

	while (i < label.n && is_digit(label.p[i]))
		i++;
	return i > 0 && label.n - i >= 3 && label.p[i] == '-' &&
	       av_str_ieq(av_str_n(label.p + i + 1, 2), AV_STR(AV_ID_SANDBOX));
}

static int set_port(struct proxy_where *w, struct av_str text, struct av_err *err)
{
	uint64_t port;

	if (av_parse_u64(text, 1, 65535, &port) < 0)
		return av_err_set(err, AV_ERR_INVALID,
		    "invalid port \"%.*s\": a port is a number from 1 to 65535",
		    (int)AV_MIN(text.n, (size_t)32), text.p);
	w->port = (uint16_t)port;
	return 1;
}

/* Host names have no case, ids are lower. */
static int set_id(struct proxy_where *w, struct av_str text, struct av_err *err)
{
	if (text.n == sizeof(w->id) - 1) {
		for (size_t i = 0; i < text.n; i++)
			w->id[i] = text.p[i] >= 'A' && text.p[i] <= 'Z' ? (char)(text.p[i] | 0x20)
			                                                : text.p[i];
		w->id[text.n] = '\0';
		if (av_id_valid(av_str_c(w->id), AV_ID_SANDBOX))
			return 1;
	}
	return av_err_set(err, AV_ERR_NOT_FOUND,
	    "\"%.*s\" is not a sandbox id; ids are '" AV_ID_SANDBOX
	    "' and 25 characters of 0-9 and a-z",
	    (int)AV_MIN(text.n, (size_t)64), text.p);
}

/* host without port, and without a dot at its end, which means the same name. */
static bool is_below(struct av_str host, const char *domain)
{
	struct av_str want, rest = av_str_c(domain);

	(void)av_str_cut(&rest, ':', &want);
	if (host.n && host.p[host.n - 1] == '.')
		host.n--;
	return host.n == want.n && av_str_ieq(host, want);
}

static int by_host(const struct av_http_head *head, struct av_str label, struct av_str parent,
    const char *domain, struct proxy_where *w, struct av_err *err)
{
	struct av_str port;
	int r;

	w->host = head->authority;
	if (domain && !is_below(parent, domain))
		return av_err_set(err, AV_ERR_NOT_FOUND,
		    "ports of sandboxes are served below %s, not below %.*s", domain,
		    (int)AV_MIN(parent.n, (size_t)200), parent.p);
	(void)av_str_cut(&label, '-', &port);
	r = set_port(w, port, err);
	return r < 0 ? r : set_id(w, label, err);
}

static int by_headers(const struct av_http_head *head, struct proxy_where *w, struct av_err *err)
{
	for (size_t i = 0; i < AV_ARRAY_LEN(header_names); i++) {
		const char *id_name = header_names[i].sandbox, *port_name = header_names[i].port;
		const struct av_str *id = av_http_head_get(head, id_name);
		const struct av_str *port = av_http_head_get(head, port_name);
		int r;

		if (!id && !port)
			continue;
		if (!id || !port || av_http_head_count(head, id_name) != 1 ||
		    av_http_head_count(head, port_name) != 1)
			return av_err_set(err, AV_ERR_INVALID,
			    "to reach a port of a sandbox send %s and %s, each once", id_name,
			    port_name);
		r = set_port(w, *port, err);
		return r < 0 ? r : set_id(w, *id, err);
	}
	return 0;
}

int proxy_where(const struct av_http_head *head, const char *domain, struct proxy_where *ret,
    struct av_err *err)
{
	struct av_str host = head->authority, label;
	ptrdiff_t colon = av_str_chr(host, ':');

	*ret = (struct proxy_where){.host = AV_STR("")};
	if (colon >= 0 && host.p[0] != '[')
		host.n = (size_t)colon;
	(void)av_str_cut(&host, '.', &label);
	if (looks_like_port(label))
		return by_host(head, label, host, domain, ret, err);
	return by_headers(head, ret, err);
}

static bool is_numeric(struct av_str host)
{
	if (host.n && host.p[0] == '[')
		return true;
	for (size_t i = 0; i < host.n; i++)
		if (!is_digit(host.p[i]) && host.p[i] != '.')
			return false;
	return host.n > 0;
}

static bool is_loopback(struct av_str host)
{
	return av_str_starts(host, AV_STR("127.")) || av_str_eq_c(host, "[::1]");
}

int proxy_where_host(
    struct av_buf *out, const char *id, uint16_t port, const char *domain, struct av_str authority)
{
	struct av_str host = domain ? av_str_c(domain) : authority, tail = AV_STR("");
	size_t end = 0;

	if (host.n && host.p[0] == '[')
		while (end < host.n && host.p[end] != ']')
			end++;
	while (end < host.n && host.p[end] != ':')
		end++;
	tail = av_str_n(host.p + end, host.n - end);
	host.n = end;
	if (host.n == 0 || (is_numeric(host) && !is_loopback(host)))
		return -EINVAL;
	if (is_numeric(host))
		host = AV_STR("localhost");
	return av_buf_printf(out, "%u-%s.%.*s%.*s", port, id, AV_STR_ARG(host), AV_STR_ARG(tail));
}
