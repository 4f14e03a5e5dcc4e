/* SPDX-License-Identifier: Apache-2.0 */
/*
 * client_internal.h - for the files of src/client only
 */
#pragma once

#include <curl/curl.h>

#include "base/buf.h"
#include "client/client.h"

#define CLIENT_REPLY_MAX  (64 * AV_MIB) /* a JSON answer */
#define CLIENT_CONNECT_MS 10000L
#define CLIENT_CANCEL_MS  250

struct av_client {
	CURL *easy;    /* owned; one connection kept alive between calls */
	char *url;     /* owned, no trailing slash */
	char *api_key; /* owned, may be NULL; wiped when freed */
	char *user_agent;
	char *ca_file; /* owned, may be NULL */
	bool (*is_canceled)(void *ctx);
	void *ctx;
	int last_status;
	bool unreachable;
	char curl_error[CURL_ERROR_SIZE];
};

/* Sets everything that all requests share on an easy handle: URL, time-outs, key, cancelling.
 * *headers gets what must outlive the transfer; the caller frees the list. */
int client_prepare(struct av_client *c, CURL *easy, const char *path, struct curl_slist **headers,
    struct av_err *err);
/* Turns a libcurl result of that handle into an error; remembers whether the daemon was reachable.
 */
int client_transport_error(struct av_client *c, CURL *easy, CURLcode code, struct av_err *err);
bool client_is_tls(const struct av_client *c);
/* Turns a status >= 300 and the body that came with it into an error. */
int client_reply_error(int status, struct av_str body, struct av_err *err);
/* Appends "name: value" to the list; -ENOMEM keeps the list. */
int client_add_header(
    struct curl_slist **headers, const char *name, const char *value, struct av_err *err);
