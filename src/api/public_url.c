/* SPDX-License-Identifier: Apache-2.0 */
/*
 * public_url.c - the addresses under which clients reach us (see public_url.h)
 */
#include "api/public_url.h"

#include <errno.h>

#include "api/proxy_where.h"
#include "base/banned.h"

#define HTTPS "https://"

/* Cuts off scheme and "://"; true for https. */
static bool cut_scheme(struct av_str *url)
{
	struct av_str scheme = *url;
	bool tls = av_str_starts(scheme, AV_STR(HTTPS));
	size_t n = tls ? strlen(HTTPS) : strlen("http://");

	*url = av_str_n(url->p + n, url->n - n);
	return tls;
}

void public_url_api(struct av_buf *out, const struct api_request *rq)
{
	struct av_str authority = av_req_head(rq->req)->authority;

	if (rq->api->public_url)
		(void)av_buf_append_c(out, rq->api->public_url);
	else if (authority.n)
		(void)av_buf_printf(out, "%s%.*s", av_req_is_tls(rq->req) ? HTTPS : "http://",
		    AV_STR_ARG(authority));
}

int public_url_port(
    struct av_buf *out, const struct api_request *rq, uint16_t port, struct av_err *err)
{
	const struct api *a = rq->api;
	struct av_str authority = av_req_head(rq->req)->authority;
	bool tls = a->ports_tls || av_req_is_tls(rq->req);

	if (!a->ports_domain && a->public_url) {
		authority = av_str_c(a->public_url);
		tls = cut_scheme(&authority);
	}
	(void)av_buf_append_c(out, tls ? HTTPS : "http://");
	if (proxy_where_host(out, rq->id, port, a->ports_domain, authority) == -EINVAL)
		return av_err_set(err, AV_ERR_INVALID,
		    "no name can be made from \"%.*s\", under which the API was asked: ask under a "
		    "host name, start aviaryd with --domain, or send X-Aviary-Sandbox and "
		    "X-Aviary-Port with requests",
		    (int)AV_MIN(authority.n, (size_t)100), authority.p);
	return 0;
}

/* Without port, and without a dot at its end, which means the same name. */
static struct av_str name_of(struct av_str authority)
{
	ptrdiff_t colon = av_str_chr(authority, ':');

	/* Not of [::1]: nothing is below a numeric address. */
	if (colon >= 0)
		authority.n = (size_t)colon;
	if (authority.n && authority.p[authority.n - 1] == '.')
		authority.n--;
	return authority;
}

bool public_url_is_tls(const struct api_request *rq)
{
	const struct api *a = rq->api;
	struct av_str name, host = name_of(av_req_head(rq->req)->authority), label;

	if (av_req_is_tls(rq->req))
		return true;
	if (a->ports_domain || !a->public_url)
		return a->ports_tls;
	name = av_str_c(a->public_url);
	if (!cut_scheme(&name))
		return false;
	name = name_of(name);
	/* Routed by headers, or as "3000-sb….NAME". */
	return av_str_ieq(host, name) || (av_str_cut(&host, '.', &label) && av_str_ieq(host, name));
}
