/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_net_tls.c - TLS of the server against OpenSSL's client on the same loop: identities, what
 * waits for a slow reader, and ends of connections
 *
 * Unlike the server this program is linked with OpenSSL, to make certificates and to be the client.
 */
#include "net_util.h"

#include <fcntl.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include "net/tls.h"

#include "base/banned.h"

#define NAMES "DNS:*.example.com,DNS:api.example.com,IP:127.0.0.1"
#define LARGE ((uint64_t)24 * 1024 * 1024)

static struct av_http_server *server;
static struct av_tls *tls;
static uint16_t port;
static SSL_CTX *client_ctx;

static struct {
	struct av_req *req;
	uint64_t to_send, body;
	int closes, close_status;
	bool is_tls;
} seen;

/* ---- certificates ---- */

struct pem {
	char cert[4096], key[2048];
};

static void take_bio(BIO *b, char *dst, size_t size)
{
	int n = BIO_read(b, dst, (int)size - 1);
	dst[n > 0 ? n : 0] = '\0';
	BIO_free(b);
}

/* Valid from now + from_s to now + to_s. */
static struct pem make_pem(long from_s, long to_s)
{
	static long serial;
	struct pem p = {0};
	EVP_PKEY *key = EVP_EC_gen("P-256");
	X509 *x = X509_new();
	X509V3_CTX v3;
	X509V3_set_ctx(&v3, x, x, NULL, NULL, 0);
	X509_EXTENSION *e = X509V3_EXT_conf_nid(NULL, &v3, NID_subject_alt_name, NAMES);
	X509_set_version(x, 2);
	ASN1_INTEGER_set(X509_get_serialNumber(x), ++serial);
	X509_gmtime_adj(X509_getm_notBefore(x), from_s);
	X509_gmtime_adj(X509_getm_notAfter(x), to_s);
	X509_NAME_add_entry_by_txt(
	    X509_get_subject_name(x), "CN", MBSTRING_ASC, (const unsigned char *)"test", -1, -1, 0);
	X509_set_issuer_name(x, X509_get_subject_name(x));
	X509_set_pubkey(x, key);
	X509_add_ext(x, e, -1);
	X509_sign(x, key, EVP_sha256());
	BIO *cert = BIO_new(BIO_s_mem()), *private = BIO_new(BIO_s_mem());
	PEM_write_bio_X509(cert, x);
	PEM_write_bio_PrivateKey(private, key, NULL, NULL, 0, NULL, NULL);
	take_bio(cert, p.cert, sizeof(p.cert));
	take_bio(private, p.key, sizeof(p.key));
	X509_EXTENSION_free(e);
	X509_free(x);
	EVP_PKEY_free(key);
	return p;
}

static int identity(
    const char *cert, const char *key, struct av_tls_identity **ret, struct av_err *err)
{
	const struct av_tls_source s = {.cert_pem = av_str_c(cert),
	    .key_pem = av_str_c(key),
	    .cert_name = "C",
	    .key_name = "K"};
	*ret = NULL;
	*err = (struct av_err){0};
	return av_tls_identity_new(tls, &s, ret, err);
}

static void refused(const char *cert, const char *key, const char *part)
{
	struct av_tls_identity *i;
	struct av_err err;
	ok(identity(cert, key, &i, &err) < 0 && !i, "refused: %s", part);
	ok(strstr(err.message, part) != NULL, "and said so: %s", err.message);
}

static void test_identities(void)
{
	struct pem a = make_pem(-60, 86400), b = make_pem(-60, 86400);
	struct pem old = make_pem(-86400, -60), young = make_pem(3600, 7200);
	char text[16384] = "";
	struct av_tls_identity *i;
	struct av_err err;

	refused("", a.key, "C: no certificate can be read");
	refused("nothing", a.key, "C: no certificate can be read");
	refused(a.key, a.key, "C: no certificate can be read");
	refused(a.cert, "", "K: no private key can be read");
	refused(a.cert, a.cert, "K: no private key can be read");
	refused(a.cert, b.key, "K is not the key of the first certificate in C");
	refused(old.cert, old.key, "C: the certificate expired on");
	refused(young.cert, young.key, "C: the certificate is valid only from");
	snprintf(text, sizeof(text),
	    "%s-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", a.cert);
	refused(text, a.key, "C: certificate 2 of the file is damaged");
	for (size_t n = 0, at = 0; n < AV_TLS_CHAIN_MAX + 1; n++)
		at += (size_t)snprintf(text + at, sizeof(text) - at, "%s", a.cert);
	refused(text, a.key, "C: more than 10 certificates");
	is_int(identity(a.cert, a.key, &i, &err), 0, "a good pair");
	av_tls_use(tls, i);
	is_str(av_tls_names(tls), "*.example.com, api.example.com, 127.0.0.1", "its names");
	is_str(av_tls_first_name(tls), "api.example.com", "the first that is no wildcard");
	ok(av_tls_covers(tls, "x.example.com") && av_tls_covers(tls, "127.0.0.1"), "covered");
	ok(!av_tls_covers(tls, "example.com") && !av_tls_covers(tls, "127.0.0.2") &&
	        !av_tls_covers(tls, "0.0.0.0"),
	    "not covered");
	int64_t left = av_tls_not_after(tls) - av_real_ms() / 1000;
	ok(left > 86000 && left <= 86400, "its end");
}

/* ---- server and client ---- */

static void stream_more(void *ctx, struct av_req *req)
{
	static char block[100000];
	(void)ctx;
	memset(block, 's', sizeof(block));
	while (seen.to_send > 0) {
		size_t n = AV_MIN(sizeof(block), seen.to_send);
		int r = av_res_write(req, av_str_n(block, n));
		if (r < 0)
			return;
		seen.to_send -= n;
		if (r == 1)
			return;
	}
	av_res_end(req);
}

static void on_body(void *ctx, struct av_req *req, struct av_str data)
{
	(void)ctx, (void)req;
	seen.body += data.n;
}

static void on_body_end(void *ctx, struct av_req *req)
{
	(void)ctx;
	av_res_send(req, 200, NULL, 0, AV_STR("done"));
}

static void on_close(void *ctx, struct av_req *req, int status)
{
	(void)ctx, (void)req;
	seen.closes++;
	seen.close_status = status;
}

static const struct av_req_handler handler = {
    .on_body = on_body, .on_body_end = on_body_end, .on_drain = stream_more, .on_close = on_close};

static void on_request(void *ctx, struct av_req *req)
{
	(void)ctx;
	seen.req = req;
	seen.is_tls = av_req_is_tls(req);
	av_req_set_handler(req, &handler, NULL);
	if (av_req_has_body(req)) {
		(void)av_req_body_start(req, UINT64_MAX);
		return;
	}
	seen.to_send = LARGE;
	if (av_res_start(req, 200, NULL, 0, (int64_t)LARGE) == 0)
		stream_more(NULL, req);
}

static void start_server(uint32_t write_timeout_ms)
{
	const struct av_http_server_config cfg = {
	    .on_request = on_request, .tls = tls, .write_timeout_ms = write_timeout_ms};
	struct av_err err;
	if (av_http_server_new(loop, &cfg, &server) < 0 ||
	    av_http_server_listen_tcp(server, "127.0.0.1", 0, &port, &err) < 0)
		printf("Bail out! no server\n");
	memset(&seen, 0, sizeof(seen));
}

struct client {
	struct peer p;
	SSL *ssl;
	uint64_t got;
	bool closed; /* by close_notify */
	bool broken;
};

static bool again(struct client *c, int r)
{
	int why = SSL_get_error(c->ssl, r);
	if (why == SSL_ERROR_ZERO_RETURN)
		c->closed = true;
	else if (why != SSL_ERROR_WANT_READ && why != SSL_ERROR_WANT_WRITE)
		c->broken = true;
	return !c->closed && !c->broken;
}

static struct client client_open(int rcvbuf)
{
	struct client c = {.p = peer_connect(port), .ssl = SSL_new(client_ctx)};
	int r;
	if (rcvbuf)
		setsockopt(c.p.fd, SOL_SOCKET, SO_RCVBUF, &rcvbuf, sizeof(rcvbuf));
	/* connect(2) was a blocking one; from here on the loop runs meanwhile. */
	fcntl(c.p.fd, F_SETFL, O_NONBLOCK);
	SSL_set_fd(c.ssl, c.p.fd);
	SSL_set_connect_state(c.ssl);
	for (int i = 0; i < 1000 && (r = SSL_do_handshake(c.ssl)) != 1 && again(&c, r); i++)
		av_loop_run_once(loop, 5);
	return c;
}

static void client_close(struct client *c)
{
	SSL_free(c->ssl);
	peer_close(&c->p);
}

static bool client_send(struct client *c, const char *data, size_t n)
{
	int64_t end = av_mono_ns() + 5 * AV_NS_PER_S;
	while (n > 0 && av_mono_ns() < end) {
		int r = SSL_write(c->ssl, data, (int)n);
		if (r > 0) {
			data += r;
			n -= (size_t)r;
		} else if (!again(c, r)) {
			return false;
		}
		av_loop_run_once(loop, 0);
	}
	return n == 0;
}

/* Reads until n bytes are there, the end, or the time is over. */
static void client_read(struct client *c, uint64_t n, unsigned ms)
{
	static char buf[65536];
	int64_t end = av_mono_ns() + (int64_t)ms * AV_NS_PER_MS;
	while (c->got < n && av_mono_ns() < end) {
		int r = SSL_read(c->ssl, buf, sizeof(buf));
		if (r > 0)
			c->got += (uint64_t)r;
		else if (!again(c, r))
			return;
		else
			av_loop_run_once(loop, 1);
	}
}

#define GET(more) "GET / HTTP/1.1\r\nhost: x\r\n" more "\r\n"

static void test_slow_reader(void)
{
	start_server(5000);
	struct client c = client_open(256 * 1024);
	ok(client_send(&c, GET("connection: close\r\n"), strlen(GET("connection: close\r\n"))),
	    "sent");
	client_read(&c, 100000, 3000);
	ok(seen.is_tls, "the handler can tell");
	pump(100);
	ok(seen.to_send > LARGE / 2,
	    "a reader who rests is waited for: %llu bytes are not made yet",
	    (unsigned long long)seen.to_send);
	client_read(&c, UINT64_MAX, 10000);
	ok(c.got > LARGE && c.got < LARGE + 1000, "all of it: %llu", (unsigned long long)c.got);
	ok(c.closed && !c.broken, "and an end that is said to be one");
	ok(pump_until(seen.closes == 1), "over");
	is_int(seen.close_status, 0, "well");
	client_close(&c);
	av_http_server_free(server);
}

static void on_stopped(void *ctx)
{
	*(bool *)ctx = true;
}

static void test_stop_keeps_what_waits(void)
{
	bool stopped = false;
	start_server(5000);
	struct client c = client_open(256 * 1024);
	ok(client_send(&c, GET(""), strlen(GET(""))), "sent");
	client_read(&c, 1000, 3000);
	av_http_server_stop(server, 8000, on_stopped, &stopped);
	pump(50);
	client_read(&c, UINT64_MAX, 8000);
	ok(c.got > LARGE && c.closed, "a stop cuts nothing: %llu", (unsigned long long)c.got);
	client_close(&c);
	ok(pump_until(stopped), "and ends");
	is_int(seen.close_status, 0, "the request ended well");
	av_http_server_free(server);
}

static void test_stalled_reader(void)
{
	start_server(1000);
	struct client c = client_open(256 * 1024);
	ok(client_send(&c, GET(""), strlen(GET(""))), "sent");
	client_read(&c, 1000, 3000);
	int64_t end = av_mono_ns() + 9 * AV_NS_PER_S;
	while (!seen.closes && av_mono_ns() < end)
		av_loop_run_once(loop, 50);
	is_int(seen.close_status, -ETIMEDOUT, "one who reads nothing is given up");
	client_close(&c);
	av_http_server_free(server);
}

static void test_cut_upload(void)
{
	static const char head[] = "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\nabc";
	start_server(5000);
	struct client c = client_open(0);
	ok(client_send(&c, head, strlen(head)), "sent");
	ok(pump_until(seen.body == 3), "the beginning is there");
	client_close(&c); /* FIN without close_notify */
	ok(pump_until(seen.closes == 1), "noticed");
	is_int(seen.close_status, -ECONNRESET, "as a client that is gone");
	av_http_server_free(server);
}

static void test_new_key_while_blocked(void)
{
	start_server(5000);
	struct client c = client_open(256 * 1024);
	ok(client_send(&c, GET("connection: close\r\n"), strlen(GET("connection: close\r\n"))),
	    "sent");
	client_read(&c, 50000, 3000);
	pump(50); /* the server's socket is full now */
	is_int(SSL_key_update(c.ssl, SSL_KEY_UPDATE_REQUESTED), 1, "a change of keys");
	client_read(&c, UINT64_MAX, 10000);
	ok(c.got > LARGE && c.closed, "does not disturb: %llu", (unsigned long long)c.got);
	client_close(&c);
	av_http_server_free(server);
}

int main(void)
{
	struct av_err err = {0};
	if (av_loop_new(&loop) < 0)
		return 1;
	if (av_tls_new(loop, &tls, &err) < 0) {
		printf("Bail out! %s\n", err.message);
		return 1;
	}
	client_ctx = SSL_CTX_new(TLS_client_method());
	test_identities();
	test_slow_reader();
	test_stop_keeps_what_waits();
	test_cut_upload();
	test_new_key_while_blocked();
	test_stalled_reader();
	ok(av_tls_metrics(tls)->handshakes == 5, "handshakes are counted");
	SSL_CTX_free(client_ctx);
	av_tls_free(tls);
	av_loop_free(loop);
	return tap_done();
}
