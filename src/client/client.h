/* SPDX-License-Identifier: Apache-2.0 */
/*
 * client.h - talking to an Aviary daemon: configuration, JSON calls, files
 *
 * A client is one keep-alive connection and the credentials for it. Everything here blocks until
 * the answer is there; a client belongs to one thread. Streams (exec) open connections of their own
 * and are driven by the caller's poll loop: see exec.h.
 *
 * Errors: what the daemon answered ({"error":{"code","message"}}) becomes the kind with that code
 * and its message. A daemon that cannot be reached is AV_ERR_UNAVAILABLE, and
 * av_client_is_unreachable() tells that apart from a daemon that answered "host_unavailable". One
 * whose certificate is not trusted gets no key and no request: AV_ERR_UNAVAILABLE too, with what to
 * do about it in the message.
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"
#include "base/macros.h"
#include "base/str.h"

struct av_client;

struct av_client_options {
	const char *url;     /* "http://host:port" or https, with an optional path; borrowed */
	const char *api_key; /* NULL for none; borrowed */
	/* PEM file of the authorities to trust instead of the system's; NULL: the system's;
	 * borrowed. It is read when a connection is made. */
	const char *ca_file;
	const char *user_agent; /* NULL for "libaviary/<version>"; borrowed */
	/* Asked about four times a second during a call; true ends it with AV_ERR_CANCELED. */
	bool (*is_canceled)(void *ctx);
	void *ctx;
};

/* Copies what it needs. AV_ERR_INVALID for a URL that is none. Nothing is connected yet. */
int av_client_new(
    const struct av_client_options *options, struct av_client **ret, struct av_err *err);
void av_client_free(struct av_client *c); /* NULL is fine */
void av_client_freep(struct av_client **c);

const char *av_client_url(const struct av_client *c);
/* True when the last call failed because nobody answers at the address (refused, no route). */
bool av_client_is_unreachable(const struct av_client *c);
/* HTTP status of the last answer, 0 when there was none. */
int av_client_last_status(const struct av_client *c);

struct av_client_request {
	const char *method;          /* "GET", "POST", "DELETE" */
	const char *path;            /* "/v1/…", already percent-encoded; borrowed */
	const json_t *body;          /* NULL for none; borrowed */
	const char *idempotency_key; /* NULL for none */
	int64_t timeout_ms;          /* 0: 60 seconds; -1: none */
};

/* Sends the request. On 2xx *ret_reply is the parsed body (new reference: object or array, or NULL
 * for an empty body); ret_reply may be NULL. */
int av_client_call(struct av_client *c, const struct av_client_request *request, json_t **ret_reply,
    struct av_err *err);

/* GET of a text resource (/metrics); *ret_text is the caller's to free. */
int av_client_get_text(struct av_client *c, const char *path, char **ret_text, struct av_err *err);

/* Takes all n bytes; negative -errno fails the download with it. */
typedef int (*av_client_write_fn)(void *ctx, const char *p, size_t n);
/* A long GET: on_write gets the body of a 2xx answer as it comes. */
int av_client_get_stream(struct av_client *c, const char *path, av_client_write_fn on_write,
    void *ctx, struct av_err *err);

/* Pulls up to n bytes into p; 0 is the end, negative -errno fails the upload with it. */
typedef ssize_t (*av_client_read_fn)(void *ctx, char *p, size_t n);

/* Streams a file into the sandbox, at constant memory. size is the number of bytes to come, or -1
 * when it is not known. Parents are created, an existing file is replaced. */
int av_client_upload(struct av_client *c, const char *sandbox_id, const char *path, int64_t size,
    av_client_read_fn on_read, void *ctx, struct av_err *err);
/* Streams a tar archive into the sandbox, where it is unpacked below the directory at path. */
int av_client_upload_tree(struct av_client *c, const char *sandbox_id, const char *path,
    av_client_read_fn on_read, void *ctx, struct av_err *err);
/* Streams a file out of the sandbox. */
int av_client_download(struct av_client *c, const char *sandbox_id, const char *path,
    av_client_write_fn on_write, void *ctx, struct av_err *err);
