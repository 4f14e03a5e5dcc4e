/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fetch_url.c - URLs that strangers wrote: parsed once, by libcurl, and used as parsed
 *
 * The same parse is what the transfer goes by (CURLOPT_CURLU), so that there are no two readings of
 * one text.
 */
#include "net/fetch.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <string.h>

#include "net/fetch_internal.h"

#include "base/banned.h"

static void curl_freep(char **p)
{
	curl_free(*p);
}

/* "127.0.0.1", "[::1]", and what inet_aton(3) takes for an address ("0x7f.1", "2130706433"). */
static int check_number(const char *host, const struct av_reach *reach, struct av_err *err)
{
	struct sockaddr_in in = {.sin_family = AF_INET};
	struct sockaddr_in6 in6 = {.sin6_family = AF_INET6};
	const struct sockaddr *sa = NULL;
	const char *why;
	char name[64];
	size_t n = strlen(host);

	if (host[0] == '[') {
		if (n < 3 || av_str_copy(name, sizeof(name), av_str_n(host + 1, n - 2)) < 0 ||
		    inet_pton(AF_INET6, name, &in6.sin6_addr) != 1)
			return av_err_set(err, AV_ERR_INVALID, "the URL's host is no address");
		sa = (const struct sockaddr *)&in6;
	} else if (inet_aton(host, &in.sin_addr) == 1) {
		sa = (const struct sockaddr *)&in;
	}
	if (!sa || av_reach_allows(reach, sa, &why))
		return 0;
	return av_err_set(err, AV_ERR_FORBIDDEN,
	    "the URL names %s, and only public ones are allowed; an administrator may allow others "
	    "with the option webhook-private",
	    why);
}

static bool has_part(CURLU *u, CURLUPart part)
{
	AV_CLEANUP(curl_freep) char *text = NULL;

	return curl_url_get(u, part, &text, 0) == CURLUE_OK;
}

static int check_parts(
    CURLU *u, const char *const *schemes, const struct av_reach *reach, struct av_err *err)
{
	AV_CLEANUP(curl_freep) char *scheme = NULL, *host = NULL;
	size_t i = 0;

	if (curl_url_get(u, CURLUPART_SCHEME, &scheme, 0) != CURLUE_OK ||
	    curl_url_get(u, CURLUPART_HOST, &host, 0) != CURLUE_OK || !host[0])
		return av_err_set(err, AV_ERR_INVALID, "the URL has no host");
	while (schemes[i] && strcmp(schemes[i], scheme) != 0)
		i++;
	if (!schemes[i])
		return av_err_set(err, AV_ERR_INVALID, "the URL must begin with %s://%s%s%s",
		    schemes[0], schemes[1] ? " or " : "", schemes[1] ? schemes[1] : "",
		    schemes[1] ? "://" : "");
	if (has_part(u, CURLUPART_USER) || has_part(u, CURLUPART_PASSWORD) ||
	    has_part(u, CURLUPART_OPTIONS))
		return av_err_set(err, AV_ERR_INVALID,
		    "the URL must hold neither a user nor a password ('@' before the host)");
	if (has_part(u, CURLUPART_ZONEID))
		return av_err_set(err, AV_ERR_INVALID, "the URL must not name a network interface");
	return reach ? check_number(host, reach, err) : 0;
}

static int parse(CURLU *u, const char *url, const char *const *schemes,
    const struct av_reach *reach, struct av_err *err)
{
	size_t n = strnlen(url, AV_FETCH_URL_MAX + 1);

	if (n > AV_FETCH_URL_MAX)
		return av_err_set(
		    err, AV_ERR_INVALID, "the URL has more than %d characters", AV_FETCH_URL_MAX);
	for (size_t i = 0; i < n; i++)
		if (url[i] <= 0x20 || url[i] == 0x7f)
			return av_err_set(err, AV_ERR_INVALID,
			    "the URL must be printable ASCII without spaces; write other "
			    "characters as %%XX "
			    "and names in other scripts as xn--...");
	if (curl_url_set(u, CURLUPART_URL, url, CURLU_NON_SUPPORT_SCHEME) != CURLUE_OK)
		return av_err_set(err, AV_ERR_INVALID,
		    "the URL cannot be read; write it as %s://host/path", schemes[0]);
	return check_parts(u, schemes, reach, err);
}

int fetch_parse_url(struct av_fetch_call *call, const char *url, const char *const *schemes,
    const struct av_reach *reach, struct av_err *err)
{
	call->parsed = curl_url();
	if (!call->parsed)
		return av_err_set(err, AV_ERR_NO_MEMORY, "out of memory");
	return parse(call->parsed, url, schemes, reach, err);
}

int av_fetch_check_url(
    const char *url, bool https_only, const struct av_reach *reach, struct av_err *err)
{
	const char *const schemes[] = {"https", https_only ? NULL : "http", NULL};
	int r = curl_lib_load(err);
	CURLU *u;

	if (r < 0)
		return r;
	u = curl_url();
	if (!u)
		return av_err_set(err, AV_ERR_NO_MEMORY, "out of memory");
	r = parse(u, url, schemes, reach, err);
	curl_url_cleanup(u);
	return r;
}
