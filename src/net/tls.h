/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tls.h - the certificate of a server, which can be replaced while connections are open
 *
 * Theory of operation. A struct av_tls belongs to one or more HTTP servers (member tls of their
 * configuration) and holds the identity in force: certificate, chain and key. An identity is made
 * of PEM texts on any thread and checked completely before it can be used; av_tls_use() puts it in
 * force for connections accepted from then on. Those that are open keep theirs until they end.
 *
 * TLS 1.2 and 1.3; forward secrecy and AEAD only (ECDHE with AES-GCM or ChaCha20-Poly1305); no
 * renegotiation, no compression, no early data. Sessions are resumed by tickets; the key of the
 * tickets is made new every six hours and with each identity. ALPN offers h2 and http/1.1: a
 * client that names protocols and neither of them is refused, one that names none gets HTTP/1.1.
 *
 * Attackers that do not finish the handshake: a connection has no TLS state until its first nine
 * bytes are there and are the beginning of a ClientHello of at most 16 KiB; at most TLS_PENDING_MAX
 * handshakes are under way, the oldest gives way to another one; the server's head time-out bounds
 * each; and handshakes take at most 2 ms of each turn of the loop, so that a flood of them slows
 * down handshakes and nothing else.
 *
 * OpenSSL is loaded by the first av_tls_new(). Nothing here logs.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/macros.h"
#include "base/str.h"

struct av_loop;
struct av_tls;
struct av_tls_identity;

#define AV_TLS_PENDING_MAX 1024
#define AV_TLS_CHAIN_MAX   10
#define AV_TLS_NAMES_SIZE  256

struct av_tls_metrics {
	uint64_t handshakes; /* completed */
	uint64_t failures;   /* given up: garbage, no common version or protocol, gone, too slow */
	uint64_t plain;      /* plain HTTP, answered with 400 */
	uint64_t evicted;    /* of the failures: gave way to another handshake */
};

/* Without an identity: a connection before av_tls_use() is refused. UNSUPPORTED when OpenSSL is not
 * installed; NO_MEMORY. loop is borrowed. Loop thread. */
int av_tls_new(struct av_loop *loop, struct av_tls **ret, struct av_err *err) AV_MUST_CHECK;
/* After the servers that use it. NULL is allowed. */
void av_tls_free(struct av_tls *t);

/* Where the texts come from, for messages. */
struct av_tls_source {
	struct av_str cert_pem, key_pem; /* borrowed until return */
	const char *cert_name, *key_name;
};

/* Parses and checks: one to AV_TLS_CHAIN_MAX certificates, the server's own first; a key without a
 * passphrase that fits it; valid now. INVALID names the file, what is wrong with it and what to do.
 * Any thread, once t is made; takes about a millisecond. */
int av_tls_identity_new(struct av_tls *t, const struct av_tls_source *source,
    struct av_tls_identity **ret, struct av_err *err) AV_MUST_CHECK;
/* One that was not put to use. NULL is allowed. */
void av_tls_identity_free(struct av_tls_identity *i);

/* Takes the identity over and puts it in force. Loop thread. */
void av_tls_use(struct av_tls *t, struct av_tls_identity *i);
/* The rest is about the identity in force, and must not be asked before there is one. */
/* Seconds since 1970 at which the certificate ends. */
int64_t av_tls_not_after(const struct av_tls *t);
/* Its names ("*.example.com, example.com, 192.0.2.1"), cut with "..." where there are many. */
const char *av_tls_names(const struct av_tls *t);
/* A client that knows us as host (a name, or a numeric address) will find that it is ours. */
bool av_tls_covers(const struct av_tls *t, const char *host);
/* The first of its names that is no wildcard and no address; NULL when there is none. */
const char *av_tls_first_name(const struct av_tls *t);

const struct av_tls_metrics *av_tls_metrics(const struct av_tls *t);
