/* SPDX-License-Identifier: Apache-2.0 */
/*
 * github.c - the options with which people log in with GitHub (see github.h)
 */
#include "daemon/github.h"

#include <string.h>

#include "net/fetch.h"

#include "base/banned.h"

#define URL_LEN_MAX 256

static int check_url(const struct daemon_config *c, enum daemon_opt opt, struct av_err *err)
{
	const char *url = daemon_config_get(c, opt);
	int r = av_fetch_check_url(url, false, NULL, err);

	if (r == 0 && (strlen(url) > URL_LEN_MAX || av_str_ends(av_str_c(url), AV_STR("/"))))
		r = av_err_set(err, AV_ERR_INVALID,
		    "the URL must not end with a slash, or have more than %d bytes", URL_LEN_MAX);
	if (r < 0)
		av_err_prefix(err, "--%s", daemon_opt_name(opt));
	return r;
}

int daemon_github_read(const struct daemon_config *c, struct daemon_github *ret, struct av_err *err)
{
	const char *id = daemon_config_get(c, DAEMON_OPT_GITHUB_CLIENT_ID);
	const char *file = daemon_config_get(c, DAEMON_OPT_GITHUB_CLIENT_SECRET_FILE);
	int r;

	if (!id && !file)
		return 0;
	if (!id || !file)
		return av_err_set(err, AV_ERR_INVALID,
		    "--github-client-id and --github-client-secret-file must be given together, or "
		    "neither");
	if ((r = check_url(c, DAEMON_OPT_GITHUB_URL, err)) < 0 ||
	    (r = check_url(c, DAEMON_OPT_GITHUB_API_URL, err)) < 0 ||
	    (r = secret_file_read(DAEMON_OPT_GITHUB_CLIENT_SECRET_FILE, file, ret->secret, err)) <
	        0)
		return r;
	ret->config = (struct control_github){.client_id = id,
	    .client_secret = ret->secret,
	    .url = daemon_config_get(c, DAEMON_OPT_GITHUB_URL),
	    .api_url = daemon_config_get(c, DAEMON_OPT_GITHUB_API_URL)};
	return 1;
}

void daemon_github_clear(struct daemon_github *g)
{
	explicit_bzero(g->secret, sizeof(g->secret));
}
