/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tls_internal.h - a TLS connection below its transport; included by
 * src/net/{tls,tls_*,transport}.c
 *
 * Theory of operation. A session sits between a transport and its socket. It reads from the socket
 * itself, and collects what OpenSSL wants sent in `out`, which is as large as one batch of records
 * and empty whenever the socket is not full: the buffer is one that all sessions share, and stays
 * with one only as long as its peer does not read. Plain bytes are taken in while `out` is empty,
 * so that backpressure is that of the socket plus one batch.
 *
 *   SILENT ─nine bytes→ HANDSHAKE ─→ OPEN ─→ (peer's close_notify: eof)
 *     └ plain HTTP: the transport forgets the session      any ─→ error
 *
 * The steps before OPEN are turns, which the struct av_tls hands out.
 */
#pragma once

#include <sys/types.h>
#include <sys/uio.h>

#include "base/buf.h"
#include "base/list.h"
#include "net/loop.h"
#include "net/tls.h"
#include "net/tls_lib.h"
#include "net/transport.h"

#define TLS_RECORD_MAX ((size_t)16384) /* RFC 8446 section 5.1 */
#define TLS_BATCH      (4 * TLS_RECORD_MAX)
/* A batch with its framing, and what OpenSSL has to say besides (a chain of certificates). */
#define TLS_OUT_MAX ((size_t)192 * 1024)

struct av_tls {
	struct av_loop *loop;
	const struct tls_lib *lib;
	BIO_METHOD *method;               /* owned */
	struct av_tls_identity *identity; /* owned; NULL until av_tls_use() */
	struct av_tls_metrics metrics;
	struct av_list pending; /* sessions before OPEN, oldest first */
	uint32_t n_pending;
	struct av_list turns; /* those of them that have something to do */
	struct av_defer turn_now;
	struct av_timer turn_next; /* in the loop's next iteration */
	struct av_timer tickets;
	struct av_buf spare;                  /* the shared buffer, when nobody has it */
	unsigned char gather[TLS_RECORD_MAX]; /* short pieces become one record */
};

enum tls_state { TLS_SILENT, TLS_HANDSHAKE, TLS_OPEN };

struct tls_session {
	struct av_tls *tls; /* borrowed */
	int fd;             /* borrowed from the transport */
	SSL *ssl;           /* owned; NULL while SILENT */
	enum tls_state state;
	struct av_list pending, turn;
	void (*on_turn)(void *ctx);
	void *ctx;
	struct av_buf out; /* to the socket */
	int error;         /* -errno; sticky */
	bool eof;          /* the peer's close_notify */
	bool evicted;
	bool plain;   /* the peer speaks none */
	bool starved; /* the last read of OpenSSL found the socket empty */
	bool more;    /* there may be plain bytes although the socket is not readable */
	bool fin;     /* no more writes; FIN when out is empty */
	uint32_t handshake_bytes;
	uint32_t odd;          /* records without data since the last megabyte of data */
	uint64_t data_bytes;   /* of that megabyte */
	struct av_timer again; /* for `more`; the transport's */
};

/* ---- tls.c: for sessions ---- */

/* A new SSL for the identity in force, or NULL. */
SSL *tls_new_ssl(struct av_tls *t);
/* s->on_turn is called soon, at most once; when many wait, in a later iteration of the loop. */
void tls_want_turn(struct tls_session *s);

/* ---- tls_session.c ---- */

/* on_turn(ctx): a turn, or the session has failed (error). fd is borrowed. -ENOMEM. */
int tls_session_new(struct av_tls *t, int fd, void (*on_turn)(void *ctx), void *ctx,
    struct tls_session **ret) AV_MUST_CHECK;
/* Sends close_notify if it is open and `gracefully`; then the socket may be closed. */
void tls_session_free(struct tls_session *s, bool gracefully);

#define TLS_STEP_WAIT  0 /* until the socket is readable */
#define TLS_STEP_OPEN  1
#define TLS_STEP_PLAIN 2 /* the peer speaks plain HTTP; nothing was taken from the socket */
/* One step before OPEN; -errno when it failed (an alert was sent, as far as it was possible). */
int tls_session_step(struct tls_session *s);

/* As tp_read() and tp_writev(). Taken bytes may wait in the session: tls_session_waits(). */
ssize_t tls_session_read(struct tls_session *s, void *p, size_t n);
ssize_t tls_session_writev(struct tls_session *s, const struct iovec *iov, int n);
/* close_notify, and FIN once all has left. */
void tls_session_shutdown(struct tls_session *s);
/* 1: nothing waits any more; 0: the socket is full; -errno. */
int tls_session_flush(struct tls_session *s);
static inline bool tls_session_waits(const struct tls_session *s)
{
	return s->out.n > 0;
}
enum tp_alpn tls_session_alpn(const struct tls_session *s);

/* The socket's two directions for OpenSSL; NULL when out of memory. */
BIO_METHOD *tls_bio_method(const struct tls_lib *lib);
