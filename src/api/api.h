/* SPDX-License-Identifier: Apache-2.0 */
/*
 * api.h - the public wire dialects over control: what the daemon starts and stops
 *
 * One struct api serves every listener: give api_on_request and the api to av_http_server_config.
 * Everything on the loop thread.
 */
#pragma once

#include <stdbool.h>

#include "base/err.h"

struct api;
struct av_http_server;
struct av_fetch;
struct av_loop;
struct av_otlp;
struct av_req;
struct control;

struct api_config {
	struct av_loop *loop; /* borrowed, as all here */
	struct control *control;
	const char *version;
	const char
	    *credentials_hint; /* where the first start wrote a key, for the text of 401; or NULL */
	/* "example.com[:port]": ports of sandboxes are served below it, and nowhere else; NULL: any
	 * name will do. ports_tls: it is served by HTTPS, ours or that of a proxy in front. */
	const char *ports_domain;
	bool ports_tls;
	/* "https://example.com[:port]": where the API is served for clients; NULL: the scheme
	 * and the name under which a client asks. */
	const char *public_url;
	struct av_fetch *fetch; /* for /metrics: what is asked of other servers; or NULL */
	struct av_otlp *otlp;   /* NULL: nothing is traced */
	bool metrics_public;    /* /metrics is for everybody; else see auth.h */
	/* Addresses of proxies that say truly whom they ask for, see client_addr.h; NULL: none. */
	const char *trusted_proxies;
};

int api_new(const struct api_config *config, struct api **ret, struct av_err *err);
/* After the server is freed: no request may be left. NULL is fine. */
void api_free(struct api *a);

/* For /metrics; set once the server exists. */
void api_set_server(struct api *a, const struct av_http_server *server);

/* av_http_server_config.on_request */
void api_on_request(void *api, struct av_req *req);
