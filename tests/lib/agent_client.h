/* SPDX-License-Identifier: Apache-2.0 */
/*
 * agent_client.h - a blocking client of aviary-agent for tests, over proto/http2
 *
 * Starts the real agent outside any sandbox (a child with a listening socket as descriptor 3 and an
 * exit record as 4) and speaks HTTP/2 to it. Every wait has a time-out, after which the test
 * process ends with a failure: a hanging stream must not look like a pass. One thread.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/buf.h"
#include "proto/http2.h"

#define AGENT_CLIENT_TIMEOUT_MS 20000

struct agent_proc {
	pid_t pid;
	char dir[64]; /* fresh directory, removed by agent_proc_stop */
	char socket[96], record[96];
};

/* Starts the agent of the build tree (AVIARY_BUILD_DIR). Ends the test on failure. */
void agent_proc_start(struct agent_proc *a);
/* SIGKILL, waits, removes the directory. */
void agent_proc_stop(struct agent_proc *a);

struct agent_client {
	struct av_http2 *session;
	int fd;
	bool eof;
};

struct agent_stream {
	struct agent_client *client;
	struct av_http2_stream *stream; /* NULL once closed */
	struct av_http_head head;       /* of the response */
	int status;                     /* 0 before the head came */
	struct av_buf body;             /* received and kept, unless discard */
	bool discard;                   /* count only */
	bool hold;                      /* do not open the window again */
	uint64_t received;              /* body bytes */
	bool ended;                     /* the agent's side ended in order */
	bool closed;
	uint32_t error; /* of the close */
};

void agent_client_open(struct agent_client *c, const struct agent_proc *a);
void agent_client_close(struct agent_client *c);

/* A new request. headers: name, value, ..., NULL; may be NULL. end: no (more) body follows body.
 * path "host:port" with method CONNECT. */
struct agent_stream *agent_request(struct agent_client *c, const char *method, const char *path,
    const char *const *headers, struct av_str body, bool end);
void agent_send(struct agent_stream *s, const void *p, size_t n);
void agent_end(struct agent_stream *s);
void agent_reset(struct agent_stream *s);
/* Frees; resets a stream that is still open. */
void agent_stream_free(struct agent_stream *s);

/* One round of input and output, waiting at most timeout_ms. */
void agent_pump(struct agent_client *c, int timeout_ms);
/* Pumps until the condition on the stream holds; fails the test after the time-out. */
void agent_wait_head(struct agent_stream *s);
void agent_wait_end(struct agent_stream *s);            /* ended or closed */
void agent_wait_body(struct agent_stream *s, size_t n); /* at least n bytes kept, or ended */
/* Pumps for this long. */
void agent_pump_for(struct agent_client *c, int ms);

/* Request and wait for the whole answer. */
struct agent_stream *agent_call(struct agent_client *c, const char *method, const char *path,
    const char *const *headers, const char *body);
/* A unary RPC with a JSON body. */
struct agent_stream *agent_rpc(struct agent_client *c, const char *method, const char *json);

/* Streams in the binary codec: opens Start or Connect with the CONTROL message json. */
struct agent_stream *agent_frames(struct agent_client *c, const char *method, const char *json);
void agent_send_frame(struct agent_stream *s, int channel, const void *p, size_t n);
/* Takes the next whole frame from the body, waiting for it; false at the end of the stream. payload
 * is replaced. */
bool agent_next_frame(struct agent_stream *s, int *ret_channel, struct av_buf *payload);
/* Collects frames up to and with "end" or "error" (or the end of the stream): stdout (also the
 * terminal's), stderr, and the last control message. */
struct agent_result {
	struct av_buf out, err, control, start;
	uint64_t gap;
};
void agent_collect(struct agent_stream *s, struct agent_result *ret);
void agent_result_clear(struct agent_result *r);
/* Start, collect, free the stream. */
void agent_run(struct agent_client *c, const char *json, struct agent_result *ret);
/* Waits for n frames and drops them. */
void agent_skip_frames(struct agent_stream *s, int n);
/* True if text holds part. */
bool agent_has(const struct av_buf *text, const char *part);
/* The whole number behind "name": in JSON text, wherever; -1 if there is none. */
int64_t agent_number(const struct av_buf *text, const char *name);
