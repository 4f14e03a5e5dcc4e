/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tls_session.c - one TLS connection: OpenSSL between plain bytes and a non-blocking socket
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "net/tls_internal.h"

#include "base/banned.h"

/* Record header and handshake header: enough to know what the peer is about to send. */
#define LOOK          9
#define HELLO_MAX     16384
#define HANDSHAKE_MAX (64 * 1024) /* bytes from the peer until the session is open */
/* Records without data (changes of keys) in one read, and between two megabytes of data. */
#define ODD_PER_READ 8
#define ODD_MAX      64
#define ODD_BYTES    ((uint64_t)1024 * 1024)

/* ---- the socket, for OpenSSL ---- */

static int bio_read(BIO *b, char *p, int n)
{
	const struct tls_lib *lib = tls_lib_loaded();
	struct tls_session *s = lib->BIO_get_data(b);
	lib->BIO_clear_flags(b, BIO_FLAGS_RWS | BIO_FLAGS_SHOULD_RETRY);
	if (s->state == TLS_HANDSHAKE && s->handshake_bytes >= HANDSHAKE_MAX)
		return -1;
	ssize_t r;
	do
		r = recv(s->fd, p, (size_t)n, 0);
	while (r < 0 && errno == EINTR);
	if (r < 0 && errno == EAGAIN) {
		s->starved = true;
		lib->BIO_set_flags(b, BIO_FLAGS_READ | BIO_FLAGS_SHOULD_RETRY);
	}
	if (r > 0 && s->state == TLS_HANDSHAKE)
		s->handshake_bytes += (uint32_t)r;
	return (int)r;
}

static int bio_write(BIO *b, const char *p, int n)
{
	const struct tls_lib *lib = tls_lib_loaded();
	struct tls_session *s = lib->BIO_get_data(b);
	lib->BIO_clear_flags(b, BIO_FLAGS_RWS | BIO_FLAGS_SHOULD_RETRY);
	if ((size_t)n > s->out.max - s->out.n) {
		lib->BIO_set_flags(b, BIO_FLAGS_WRITE | BIO_FLAGS_SHOULD_RETRY);
		return -1;
	}
	return av_buf_append(&s->out, p, (size_t)n) < 0 ? -1 : n;
}

static long bio_ctrl(BIO *b, int what, long n, void *p)
{
	(void)b, (void)n, (void)p;
	return what == BIO_CTRL_FLUSH; /* tls_session_flush() does */
}

BIO_METHOD *tls_bio_method(const struct tls_lib *lib)
{
	BIO_METHOD *m = lib->BIO_meth_new(BIO_TYPE_SOURCE_SINK, "aviary");
	if (m && lib->BIO_meth_set_read(m, bio_read) == 1 &&
	    lib->BIO_meth_set_write(m, bio_write) == 1 && lib->BIO_meth_set_ctrl(m, bio_ctrl) == 1)
		return m;
	lib->BIO_meth_free(m);
	return NULL;
}

/* ---- life ---- */

static void no_longer_pending(struct tls_session *s)
{
	if (av_list_empty(&s->pending))
		return;
	av_list_remove(&s->pending);
	s->tls->n_pending--;
}

/* The oldest has had the most time. */
static void make_room(struct av_tls *t)
{
	struct tls_session *old = AV_LIST_FIRST(&t->pending, struct tls_session, pending);
	if (t->n_pending <= AV_TLS_PENDING_MAX)
		return;
	no_longer_pending(old);
	old->evicted = true;
	tls_want_turn(old);
}

int tls_session_new(
    struct av_tls *t, int fd, void (*on_turn)(void *ctx), void *ctx, struct tls_session **ret)
{
	struct tls_session *s = calloc(1, sizeof(*s));
	int look = LOOK;
	if (!s)
		return -ENOMEM;
	s->tls = t;
	s->fd = fd;
	s->on_turn = on_turn;
	s->ctx = ctx;
	s->out = AV_BUF_INIT(TLS_OUT_MAX);
	av_list_init(&s->pending);
	av_list_init(&s->turn);
	/* Fewer bytes wake nobody up: one that sends them one by one costs nothing. */
	(void)setsockopt(fd, SOL_SOCKET, SO_RCVLOWAT, &look, sizeof(look));
	av_list_append(&t->pending, &s->pending);
	t->n_pending++;
	make_room(t);
	*ret = s;
	return 0;
}

void tls_session_free(struct tls_session *s, bool gracefully)
{
	struct av_tls *t = s->tls;
	if (s->state == TLS_OPEN && gracefully && !s->fin)
		tls_session_shutdown(s);
	if (s->state != TLS_OPEN && !s->plain)
		t->metrics.failures++;
	t->metrics.evicted += s->evicted;
	no_longer_pending(s);
	av_list_remove(&s->turn);
	av_timer_stop(&s->again);
	t->lib->SSL_free(s->ssl);
	t->lib->ERR_clear_error();
	av_buf_clear(&s->out);
	free(s);
}

/* ---- what waits for the socket ---- */

static void take_spare(struct tls_session *s)
{
	if (s->out.p || !s->tls->spare.p)
		return;
	s->out = s->tls->spare;
	s->tls->spare = AV_BUF_INIT(TLS_OUT_MAX);
}

static void give_back(struct tls_session *s)
{
	av_buf_reset(&s->out);
	if (s->tls->spare.p) {
		av_buf_clear(&s->out);
		return;
	}
	s->tls->spare = s->out;
	s->out = AV_BUF_INIT(TLS_OUT_MAX);
}

int tls_session_flush(struct tls_session *s)
{
	while (s->out.n > 0) {
		ssize_t r = send(s->fd, s->out.p + s->out.off, s->out.n, MSG_NOSIGNAL);
		if (r < 0 && errno == EINTR)
			continue;
		if (r < 0 && errno == EAGAIN)
			return 0;
		if (r < 0) {
			s->error = -errno;
			give_back(s);
			return s->error;
		}
		av_buf_consume(&s->out, (size_t)r);
	}
	if (s->out.p)
		give_back(s);
	if (s->fin)
		shutdown(s->fd, SHUT_WR);
	return 1;
}

static int fail(struct tls_session *s, int error)
{
	if (!s->error)
		s->error = error;
	(void)tls_session_flush(s); /* the alert that says why */
	return s->error;
}

/* ---- before it is open ---- */

/* A ClientHello of sensible size, in whole or in its beginning; else nothing is spent on it. */
static bool is_hello(const uint8_t p[static LOOK])
{
	size_t record = (size_t)p[3] << 8 | p[4];
	size_t hello = (size_t)p[6] << 16 | (size_t)p[7] << 8 | p[8];
	return p[0] == 22 && p[1] == 3 && p[5] == 1 && record >= 4 && record <= TLS_RECORD_MAX &&
	       hello <= HELLO_MAX;
}

static bool is_letter(uint8_t c)
{
	return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
}

static int begin(struct tls_session *s)
{
	const struct tls_lib *lib = s->tls->lib;
	int one = 1;
	BIO *bio = lib->BIO_new(s->tls->method);
	s->ssl = bio ? tls_new_ssl(s->tls) : NULL;
	if (!s->ssl) {
		lib->BIO_free(bio);
		return -ENOMEM;
	}
	lib->BIO_set_data(bio, s);
	lib->BIO_set_init(bio, 1);
	lib->SSL_set_bio(s->ssl, bio, bio); /* takes it over */
	lib->SSL_set_accept_state(s->ssl);
	(void)setsockopt(s->fd, SOL_SOCKET, SO_RCVLOWAT, &one, sizeof(one));
	s->state = TLS_HANDSHAKE;
	return 0;
}

static int look(struct tls_session *s)
{
	uint8_t p[LOOK];
	ssize_t n = recv(s->fd, p, sizeof(p), MSG_PEEK);
	if (n < 0)
		return errno == EAGAIN || errno == EINTR ? TLS_STEP_WAIT : -errno;
	/* Readable with less than was asked for: there will be no more. */
	if (n < LOOK)
		return -ECONNRESET;
	if (is_letter(p[0])) {
		s->tls->metrics.plain++;
		s->plain = true;
		return TLS_STEP_PLAIN;
	}
	if (!is_hello(p))
		return -EPROTO;
	return begin(s);
}

static int handshake(struct tls_session *s)
{
	const struct tls_lib *lib = s->tls->lib;
	for (;;) {
		s->starved = false;
		lib->ERR_clear_error();
		int r = lib->SSL_do_handshake(s->ssl);
		if (r == 1)
			break;
		int why = lib->SSL_get_error(s->ssl, r);
		if (why != SSL_ERROR_WANT_READ && why != SSL_ERROR_WANT_WRITE)
			return fail(s, -EPROTO);
		if (s->starved || why == SSL_ERROR_WANT_WRITE)
			return tls_session_flush(s) < 0 ? s->error : TLS_STEP_WAIT;
	}
	s->state = TLS_OPEN;
	s->more = lib->SSL_has_pending(s->ssl);
	s->tls->metrics.handshakes++;
	no_longer_pending(s);
	return tls_session_flush(s) < 0 ? s->error : TLS_STEP_OPEN;
}

int tls_session_step(struct tls_session *s)
{
	if (s->evicted)
		return fail(s, -ETIMEDOUT);
	if (s->error)
		return s->error;
	if (s->state == TLS_SILENT) {
		int r = look(s);
		if (r != 0 || s->state == TLS_SILENT)
			return r;
	}
	return handshake(s);
}

enum tp_alpn tls_session_alpn(const struct tls_session *s)
{
	const unsigned char *p = NULL;
	unsigned int n = 0;
	if (s->state == TLS_OPEN)
		s->tls->lib->SSL_get0_alpn_selected(s->ssl, &p, &n);
	return n == 2 ? TP_ALPN_H2 : n ? TP_ALPN_HTTP1 : TP_ALPN_NONE;
}

/* ---- open ---- */

/* A record without data went by: 1 to go on, 0 to let others run, -errno. */
static int odd_record(struct tls_session *s, unsigned int *seen)
{
	if (++s->odd > ODD_MAX)
		return fail(s, -EPROTO);
	if (++*seen < ODD_PER_READ)
		return 1;
	s->more = true;
	return 0;
}

static void count_data(struct tls_session *s, size_t n)
{
	s->data_bytes += n;
	if (s->data_bytes < ODD_BYTES)
		return;
	s->data_bytes = 0;
	s->odd = 0;
}

ssize_t tls_session_read(struct tls_session *s, void *p, size_t n)
{
	const struct tls_lib *lib = s->tls->lib;
	size_t got = 0;
	unsigned int odd = 0;
	if (s->state != TLS_OPEN)
		return -EAGAIN;
	s->more = false;
	while (got < n && !s->eof && !s->error) {
		s->starved = false;
		lib->ERR_clear_error();
		int r =
		    lib->SSL_read(s->ssl, (char *)p + got, (int)AV_MIN(n - got, (size_t)1 << 30));
		if (r > 0) {
			got += (size_t)r;
			continue;
		}
		int why = lib->SSL_get_error(s->ssl, r);
		if (why == SSL_ERROR_ZERO_RETURN)
			s->eof = true;
		else if (why != SSL_ERROR_WANT_READ && why != SSL_ERROR_WANT_WRITE)
			(void)fail(s, -ECONNRESET); /* an end without close_notify too */
		else if (s->starved || why == SSL_ERROR_WANT_WRITE || odd_record(s, &odd) <= 0)
			break;
	}
	count_data(s, got);
	/* An answer to a change of keys, perhaps. */
	(void)tls_session_flush(s);
	if (got > 0) {
		/* What else there is to say is not announced by the socket. */
		s->more =
		    s->more || s->eof || s->error || (got == n && lib->SSL_has_pending(s->ssl));
		return (ssize_t)got;
	}
	return s->error ? s->error : s->eof ? 0 : -EAGAIN;
}

/* Whole pieces, and what follows them, up to one record. */
static struct av_str gather(struct tls_session *s, const struct iovec *iov, int n, size_t skip)
{
	char *dst = (char *)s->tls->gather;
	size_t k = 0;
	struct av_str first = av_str_n((const char *)iov->iov_base + skip, iov->iov_len - skip);
	if (n == 1 || first.n >= TLS_RECORD_MAX)
		return av_str_n(first.p, AV_MIN(first.n, TLS_RECORD_MAX));
	for (int i = 0; i < n && k < TLS_RECORD_MAX; i++, skip = 0) {
		size_t part = AV_MIN(iov[i].iov_len - skip, TLS_RECORD_MAX - k);
		memcpy(dst + k, (const char *)iov[i].iov_base + skip, part);
		k += part;
	}
	return av_str_n(dst, k);
}

/* Encrypts up to a batch, from *i and *skip on. Bytes taken. */
static size_t write_batch(
    struct tls_session *s, const struct iovec *iov, int n, int *i, size_t *skip)
{
	const struct tls_lib *lib = s->tls->lib;
	size_t taken = 0;
	take_spare(s);
	while (*i < n && taken < TLS_BATCH) {
		if (*skip == iov[*i].iov_len) {
			(*i)++;
			*skip = 0;
			continue;
		}
		struct av_str piece = gather(s, iov + *i, n - *i, *skip);
		lib->ERR_clear_error();
		/* It always fits: out was empty. */
		if (lib->SSL_write(s->ssl, piece.p, (int)piece.n) != (int)piece.n) {
			(void)fail(s, -ECONNRESET);
			break;
		}
		taken += piece.n;
		for (size_t left = piece.n; left > 0;) {
			size_t part = AV_MIN(left, iov[*i].iov_len - *skip);
			left -= part;
			*skip += part;
			if (*skip == iov[*i].iov_len && left > 0) {
				(*i)++;
				*skip = 0;
			}
		}
	}
	return taken;
}

ssize_t tls_session_writev(struct tls_session *s, const struct iovec *iov, int n)
{
	size_t taken = 0, skip = 0;
	int i = 0;
	if (s->state != TLS_OPEN)
		return -EAGAIN;
	while (!s->error) {
		int r = tls_session_flush(s);
		if (r <= 0)
			break;
		size_t k = write_batch(s, iov, n, &i, &skip);
		taken += k;
		if (k == 0)
			break;
	}
	if (s->error)
		return s->error;
	return taken > 0 ? (ssize_t)taken : -EAGAIN;
}

void tls_session_shutdown(struct tls_session *s)
{
	s->fin = true;
	if (s->state == TLS_OPEN && !s->error) {
		s->tls->lib->ERR_clear_error();
		(void)s->tls->lib->SSL_shutdown(s->ssl);
	}
	(void)tls_session_flush(s);
}
