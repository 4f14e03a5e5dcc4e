/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench_http.h - the smallest HTTP client that can measure: one blocking keep-alive connection
 *
 * Its cost is part of every number, of ours and of the floor alike; so it does nothing that a
 * number does not need. For loopback daemons only.
 */
#pragma once

#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"

struct bench_http {
	int fd;
	char authority[128]; /* "127.0.0.1:7878" */
	char key[128];       /* or "" */
	struct av_buf in;    /* owned: received, not yet used */
	struct av_buf body;  /* owned: of the last answer */
};

/* url: "http://127.0.0.1:PORT". */
int bench_http_open(struct bench_http *h, const char *url, const char *key, struct av_err *err);
void bench_http_close(struct bench_http *h);

/* One request with a JSON body ("" for none); the answer's body is in h->body. Returns the status,
 * or -errno with *err. */
int bench_http_call(struct bench_http *h, const char *method, const char *path, const char *json,
    struct av_err *err);
/* As bench_http_call, but a status other than 2xx is an error too. */
int bench_http_must(struct bench_http *h, const char *method, const char *path, const char *json,
    struct av_err *err);
/* GET with a WebSocket handshake (protocol NULL: no subprotocol); what comes after is in h->in. The
 * accept key is not checked: a floor would have to make it. */
int bench_http_upgrade(
    struct bench_http *h, const char *path, const char *protocol, struct av_err *err);
/* Reads until n bytes are in h->in; n is small. */
int bench_http_need(struct bench_http *h, size_t n, struct av_err *err);
/* Throws n received bytes away. */
int bench_http_skip(struct bench_http *h, uint64_t n, struct av_err *err);
/* PUT of so many zero bytes. */
int bench_http_put(struct bench_http *h, const char *path, uint64_t bytes, struct av_err *err);
/* GET whose body is counted and dropped. */
int bench_http_get(struct bench_http *h, const char *path, uint64_t *ret_bytes, struct av_err *err);
