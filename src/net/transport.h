/* SPDX-License-Identifier: Apache-2.0 */
/*
 * transport.h - a connected stream of bytes on the loop, plain or through TLS; included by files of
 * src/net only
 *
 * Theory of operation. A transport is a non-blocking socket and a poll handle. It queues nothing:
 * reads and writes are tried at once and say -EAGAIN; the owner asks for readiness with tp_want().
 * Readiness is level-triggered. TP_HANGUP is the peer's FIN (EPOLLRDHUP) or death, seen without
 * reading, so that a paused connection still notices; it is reported once and then taken out of
 * the mask. TP_ERROR, never asked for, comes once when the connection is broken: what was received
 * before may still be read, then the owner must close.
 *
 * With TLS (tp_open_tls) all of this stays true, of plain bytes. The handshake is made here: until
 * it is over nothing is ready, and reads and writes say -EAGAIN. Encrypted bytes that the socket
 * does not take wait here, at most one batch (tls_internal.h): tp_waits() says so, TP_WRITE comes
 * when they have left, TP_WROTE when some of them have. TP_PLAIN, never asked for, comes instead of
 * all others when the peer speaks plain HTTP: from then on the transport is a plain one.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "base/macros.h"

struct av_loop;
struct av_tls;
struct tls_session;
struct tp_poll;

#define TP_READ   1
#define TP_WRITE  2
#define TP_HANGUP 4
#define TP_ERROR  8
#define TP_WROTE  16
#define TP_PLAIN  32

struct transport {
	int fd;                  /* owned; -1 when closed */
	int mask;                /* what is asked for now */
	int polled;              /* what the socket is asked for */
	struct tp_poll *poll;    /* owned; dies asynchronously after tp_close() */
	struct tls_session *tls; /* owned; NULL: plain */
	void (*on_ready)(void *ctx, int ready);
	void *ctx;
};

/* Takes over fd on success (made non-blocking). on_ready may close the transport. */
int tp_open(struct transport *t, struct av_loop *l, int fd, void (*on_ready)(void *ctx, int ready),
    void *ctx) AV_MUST_CHECK;
/* The same for the server's side of TLS. -ENOMEM. */
int tp_open_tls(struct transport *t, struct av_loop *l, int fd, struct av_tls *tls,
    void (*on_ready)(void *ctx, int ready), void *ctx) AV_MUST_CHECK;
/* Sets the mask; cheap when nothing changes. */
void tp_want(struct transport *t, int mask);
/* > 0 bytes; 0 end of stream; -EAGAIN; another -errno: the connection is lost. */
ssize_t tp_read(struct transport *t, void *p, size_t n) AV_MUST_CHECK;
/* Bytes taken, perhaps fewer than there are; -EAGAIN when none; -errno. */
ssize_t tp_writev(struct transport *t, const struct iovec *iov, int n) AV_MUST_CHECK;
/* Bytes that tp_writev() has taken are still here. */
bool tp_waits(const struct transport *t);
/* The handshake of TLS is not over; what the peer then chose by ALPN. */
bool tp_is_opening(const struct transport *t);
enum tp_alpn { TP_ALPN_NONE, TP_ALPN_HTTP1, TP_ALPN_H2 };
enum tp_alpn tp_alpn(const struct transport *t);
/* No more writes; the peer reads the end of the stream. */
void tp_shutdown(struct transport *t);
/* reset: TCP sends RST instead of FIN. No on_ready afterwards. Harmless when closed. */
void tp_close(struct transport *t, bool reset);
