/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pipe.h - only for libaviary: an operation that is one request whose bodies pipe
 *
 * Theory of operation. libcurl wants bytes, or brings them, from inside of itself and with the
 * client's lock, where nothing of the caller's may run. So between it and each end (a callback, a
 * descriptor, a directory) is a buffer of at most PIPE_MARK and one piece. A pump, run by whoever
 * drives, moves bytes between buffer and end without the lock; a side that has to wait for the
 * other rests. An end that says AVC_LATER is asked again when its descriptor is ready, or after
 * avc_pipe_resume().
 *
 * While an end works (`busy`) the pipe may be cancelled, from another thread or from inside the
 * end: then it is let go of at once, and freed by the pump. An operation with a sink is done when
 * the end has taken the last byte.
 */
#pragma once

#include "client/sandbox.h"

/* What is here, opposite of the server. All but free run without the lock, from where is driven,
 * one at a time. */
struct avc_end {
	/* A source: up to n bytes into p: how many, 0 at the end. A sink: how many of the n bytes
	 * at p it took. AVC_LATER: none now; another code ends the operation. */
	int64_t (*move)(struct avc_end *e, void *p, size_t n);
	/* A sink: all came. 0; AVC_LATER: at once again (others get their turn in between); a code.
	 * May be NULL. */
	int (*finish)(struct avc_end *e);
	bool (*rewind)(struct avc_end *e); /* a source; with the lock; NULL: it cannot */
	void (*free)(struct avc_end *e);   /* may block shortly */
	int fd;        /* to wait for after AVC_LATER; -1: until avc_pipe_resume */
	char why[400]; /* of a code; "": its own text */
};

struct avc_pipe_spec {
	struct aviary_sandbox *sb; /* the operation keeps it; brought up first. NULL: none */
	aviary_client *c;          /* without sb: whose it is */
	bool as_it_is;             /* not brought up, where it was made already */
	/* method, path, file, idempotency_key and headers are copied. path is what follows
	 * "/v1/sandboxes/{id}" with sb, unless port is set. body, raw, source and sink are not
	 * used. */
	struct avc_request_spec rq;
	unsigned port;                 /* of a server in the sandbox, whom it is for; 0: none */
	int64_t size;                  /* of the source; -1: not known */
	struct avc_end *source, *sink; /* stolen */
	bool failed;                   /* one of them could not be made: no memory */
	/* With the lock: as in avc_call_spec. */
	int (*take)(aviary_op *op, const struct avc_reply *reply, void *ctx);
	void *ctx; /* for take; freed with the pipe */
	void (*free_ctx)(void *ctx);
};

/* Never NULL. Without the lock. */
aviary_op *avc_pipe(const struct avc_pipe_spec *spec);
/* With the lock: the end that said AVC_LATER may be asked again. Other operations: nothing. */
void avc_pipe_resume(aviary_op *op);
/* All that are open get AVIARY_E_CANCELED. With the lock. */
void avc_pipes_end(aviary_client *c);

/* ---- ends.c: each NULL without memory ---- */

struct avc_end *avc_end_memory(const void *data, size_t n); /* copied */
/* Duplicated. *ret_size: what a regular file has from where it stands, else -1. */
struct avc_end *avc_end_fd_source(int fd, int64_t *ret_size);
struct avc_end *avc_end_fd_sink(int fd);
struct avc_end *avc_end_reader(int64_t (*fn)(void *ctx, void *p, size_t n), void *ctx);
struct avc_end *avc_end_writer(int64_t (*fn)(void *ctx, const void *p, size_t n), void *ctx);
