/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tls_identity.c - from PEM texts to a context that is safe to serve with
 *
 * Everything that could be wrong with the operator's files is found here and told with what to do
 * about it: what is put in force later cannot fail any more.
 */
#include "net/tls_identity.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#include "base/avtime.h"
#include "base/buf.h"
#include "net/tls_internal.h"

#include "base/banned.h"

/* TLS 1.2; those of 1.3 are all good. */
#define CIPHERS       "ECDHE+AESGCM:ECDHE+CHACHA20"
#define GROUPS        "X25519:P-256:P-384"
#define TICKET_LIFE_S (2 * 60 * 60)
/* What OpenSSL reads ahead from the socket, and holds while a record is incomplete. */
#define READ_AHEAD ((size_t)34 * 1024)

/* OpenSSL's own words for what went wrong last. */
static const char *reason(const struct tls_lib *lib)
{
	const char *text = lib->ERR_reason_error_string(lib->ERR_peek_last_error());
	return text ? text : "out of memory";
}

/* ---- the context ---- */

static int select_alpn(SSL *ssl, const unsigned char **out, unsigned char *out_n,
    const unsigned char *in, unsigned int in_n, void *arg)
{
	static const struct av_str ours[] = {AV_STR("h2"), AV_STR("http/1.1")};
	(void)ssl, (void)arg;
	for (size_t k = 0; k < AV_ARRAY_LEN(ours); k++)
		for (unsigned int i = 0; i < in_n && in[i] < in_n - i; i += 1u + in[i])
			if (av_str_eq(av_str_n((const char *)in + i + 1, in[i]), ours[k])) {
				*out = in + i + 1;
				*out_n = in[i];
				return SSL_TLSEXT_ERR_OK;
			}
	/* RFC 7301 section 3.2; and so that nobody brings us bytes that were meant for another
	 * protocol. */
	return SSL_TLSEXT_ERR_ALERT_FATAL;
}

static int context_new(const struct tls_lib *lib, SSL_CTX **ret, struct av_err *err)
{
	SSL_CTX *c = lib->SSL_CTX_new(lib->TLS_server_method());
	if (!c)
		return av_err_set(err, AV_ERR_NO_MEMORY, "no memory for TLS");
	lib->SSL_CTX_set_options(c, SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION |
	                                SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_PRIORITIZE_CHACHA);
	/* Without AUTO_RETRY a call returns after each record that holds no data, so that they can
	 * be counted. */
	lib->SSL_CTX_ctrl(c, SSL_CTRL_CLEAR_MODE, SSL_MODE_AUTO_RETRY, NULL);
	lib->SSL_CTX_ctrl(c, SSL_CTRL_MODE, SSL_MODE_RELEASE_BUFFERS, NULL);
	lib->SSL_CTX_ctrl(c, SSL_CTRL_SET_READ_AHEAD, 1, NULL);
	lib->SSL_CTX_set_default_read_buffer_len(c, READ_AHEAD);
	/* Tickets only: nothing is kept for clients. */
	lib->SSL_CTX_ctrl(c, SSL_CTRL_SET_SESS_CACHE_MODE, SSL_SESS_CACHE_OFF, NULL);
	lib->SSL_CTX_set_num_tickets(c, 1);
	lib->SSL_CTX_set_timeout(c, TICKET_LIFE_S);
	lib->SSL_CTX_set_alpn_select_cb(c, select_alpn, NULL);
	if (lib->SSL_CTX_ctrl(c, SSL_CTRL_SET_MIN_PROTO_VERSION, TLS1_2_VERSION, NULL) != 1 ||
	    lib->SSL_CTX_set_cipher_list(c, CIPHERS) != 1 ||
	    lib->SSL_CTX_ctrl(c, SSL_CTRL_SET_GROUPS_LIST, 0, (void *)(uintptr_t)GROUPS) != 1) {
		lib->SSL_CTX_free(c);
		return av_err_set(err, AV_ERR_UNSUPPORTED,
		    "OpenSSL refuses TLS 1.2 with modern ciphers: %s; see its openssl.cnf",
		    reason(lib));
	}
	*ret = c;
	return 0;
}

/* ---- names ---- */

static void add_name(struct av_tls_identity *i, struct av_str name)
{
	size_t n = strlen(i->names), room = sizeof(i->names) - n;
	if (n >= 3 && strcmp(i->names + n - 3, "...") == 0)
		return;
	if (name.n + 2 + sizeof("...") >= room)
		snprintf(i->names + n, room, "...");
	else
		snprintf(i->names + n, room, "%s%.*s", n ? ", " : "", AV_STR_ARG(name));
}

/* What a certificate says goes into log lines and URLs. */
static bool is_host_name(struct av_str s)
{
	for (size_t k = 0; k < s.n; k++)
		if (!strchr("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._*",
		        s.p[k]) ||
		    !s.p[k])
			return false;
	return s.n > 0 && s.n < 254;
}

static void take_name(struct av_tls_identity *i, const GENERAL_NAME *name)
{
	const struct tls_lib *lib = i->lib;
	char ip[INET6_ADDRSTRLEN];
	if (name->type != GEN_DNS && name->type != GEN_IPADD)
		return;
	const ASN1_STRING *text = name->type == GEN_DNS ? name->d.dNSName : name->d.iPAddress;
	int n = lib->ASN1_STRING_length(text);
	struct av_str s = av_str_n((const char *)lib->ASN1_STRING_get0_data(text), (size_t)n);
	if (name->type == GEN_DNS && is_host_name(s)) {
		add_name(i, s);
		if (!i->first_name[0] && s.p[0] != '*')
			memcpy(i->first_name, s.p, s.n); /* shorter, and zeroed */
	} else if (name->type == GEN_IPADD && (n == 4 || n == 16) &&
	           inet_ntop(n == 4 ? AF_INET : AF_INET6, s.p, ip, sizeof(ip))) {
		add_name(i, av_str_c(ip));
	}
}

static void take_names(struct av_tls_identity *i)
{
	const struct tls_lib *lib = i->lib;
	GENERAL_NAMES *names = lib->X509_get_ext_d2i(i->leaf, NID_subject_alt_name, NULL, NULL);
	const OPENSSL_STACK *stack = (const OPENSSL_STACK *)(const void *)names;
	for (int k = 0; names && k < lib->OPENSSL_sk_num(stack); k++)
		take_name(i, lib->OPENSSL_sk_value(stack, k));
	lib->GENERAL_NAMES_free(names);
}

/* ---- time ---- */

static int64_t seconds_of(const struct tls_lib *lib, const ASN1_TIME *t)
{
	struct tm tm = {0};
	return lib->ASN1_TIME_to_tm(t, &tm) == 1 ? (int64_t)timegm(&tm) : 0;
}

static int check_time(struct av_tls_identity *i, const char *name, struct av_err *err)
{
	int64_t from = seconds_of(i->lib, i->lib->X509_get0_notBefore(i->leaf));
	int64_t now = av_real_ms() / 1000;
	char date[32];
	i->not_after = seconds_of(i->lib, i->lib->X509_get0_notAfter(i->leaf));
	if (from > now) {
		av_rfc3339_ms(from * 1000, date);
		return av_err_set(err, AV_ERR_INVALID,
		    "%s: the certificate is valid only from %.10s on; is this machine's clock "
		    "right?",
		    name, date);
	}
	if (i->not_after <= now) {
		av_rfc3339_ms(i->not_after * 1000, date);
		return av_err_set(err, AV_ERR_INVALID,
		    "%s: the certificate expired on %.10s, clients would refuse it; renew it", name,
		    date);
	}
	return 0;
}

/* ---- certificates and key ---- */

/* Instead of asking a terminal. */
static int no_passphrase(char *buf, int size, int writing, void *asked)
{
	(void)buf, (void)size, (void)writing;
	*(bool *)asked = true;
	return -1;
}

static int add_chain(struct av_tls_identity *i, BIO *pem, const char *name, struct av_err *err)
{
	const struct tls_lib *lib = i->lib;
	bool asked = false;
	for (int n = 1;; n++) {
		lib->ERR_clear_error();
		X509 *x = lib->PEM_read_bio_X509(pem, NULL, no_passphrase, &asked);
		if (!x && ERR_GET_REASON(lib->ERR_peek_last_error()) == PEM_R_NO_START_LINE)
			return 0;
		if (!x)
			return av_err_set(err, AV_ERR_INVALID,
			    "%s: certificate %d of the file is damaged: %s", name, n + 1,
			    reason(lib));
		bool fits = n < AV_TLS_CHAIN_MAX;
		bool added = fits && lib->SSL_CTX_ctrl(i->ctx, SSL_CTRL_CHAIN_CERT, 1, x) == 1;
		lib->X509_free(x);
		if (!fits)
			return av_err_set(err, AV_ERR_INVALID,
			    "%s: more than %d certificates; only the server's own and its issuers' "
			    "belong there",
			    name, AV_TLS_CHAIN_MAX);
		if (!added)
			return av_err_set(err, AV_ERR_INVALID,
			    "%s: OpenSSL refuses certificate %d of the file: %s", name, n + 1,
			    reason(lib));
	}
}

static int load_certificates(
    struct av_tls_identity *i, struct av_str text, const char *name, struct av_err *err)
{
	const struct tls_lib *lib = i->lib;
	bool asked = false;
	BIO *pem = lib->BIO_new_mem_buf(text.p, (int)text.n);
	if (!pem)
		return av_err_set(err, AV_ERR_NO_MEMORY, "no memory for TLS");
	lib->ERR_clear_error();
	i->leaf = lib->PEM_read_bio_X509(pem, NULL, no_passphrase, &asked);
	int r = 0;
	if (!i->leaf)
		r = av_err_set(err, AV_ERR_INVALID,
		    "%s: no certificate can be read from it (%s); it must hold the server's own "
		    "and "
		    "then those of its issuers, each as -----BEGIN CERTIFICATE-----",
		    name, reason(lib));
	else if (lib->SSL_CTX_use_certificate(i->ctx, i->leaf) != 1)
		r = av_err_set(err, AV_ERR_INVALID,
		    "%s: OpenSSL refuses this certificate: %s; get one with RSA of 2048 bits or "
		    "more, or P-256, signed with SHA-256",
		    name, reason(lib));
	if (r == 0)
		r = add_chain(i, pem, name, err);
	lib->BIO_free(pem);
	return r;
}

static int load_key(struct av_tls_identity *i, const struct av_tls_source *s, struct av_err *err)
{
	const struct tls_lib *lib = i->lib;
	bool asked = false;
	BIO *pem = lib->BIO_new_mem_buf(s->key_pem.p, (int)s->key_pem.n);
	if (!pem)
		return av_err_set(err, AV_ERR_NO_MEMORY, "no memory for TLS");
	lib->ERR_clear_error();
	EVP_PKEY *key = lib->PEM_read_bio_PrivateKey(pem, NULL, no_passphrase, &asked);
	lib->BIO_free(pem);
	int r = 0;
	if (!key && asked)
		r = av_err_set(err, AV_ERR_INVALID,
		    "%s: the key is locked with a passphrase, which nobody is there to type; "
		    "`openssl "
		    "pkey -in %s -out FILE` makes one without",
		    s->key_name, s->key_name);
	else if (!key)
		r = av_err_set(err, AV_ERR_INVALID,
		    "%s: no private key can be read from it (%s); it must be PEM, as -----BEGIN "
		    "PRIVATE KEY-----",
		    s->key_name, reason(lib));
	else if (lib->X509_check_private_key(i->leaf, key) != 1)
		r = av_err_set(err, AV_ERR_INVALID,
		    "%s is not the key of the first certificate in %s; the server's own "
		    "certificate "
		    "must come first, before its issuers'",
		    s->key_name, s->cert_name);
	else if (lib->SSL_CTX_use_PrivateKey(i->ctx, key) != 1)
		r = av_err_set(err, AV_ERR_INVALID, "%s: OpenSSL refuses this key: %s", s->key_name,
		    reason(lib));
	lib->EVP_PKEY_free(key);
	return r;
}

int av_tls_identity_new(struct av_tls *t, const struct av_tls_source *source,
    struct av_tls_identity **ret, struct av_err *err)
{
	struct av_tls_identity *i = calloc(1, sizeof(*i));
	if (!i)
		return av_err_set(err, AV_ERR_NO_MEMORY, "no memory for TLS");
	i->lib = t->lib;
	int r = context_new(i->lib, &i->ctx, err);
	if (r == 0)
		r = load_certificates(i, source->cert_pem, source->cert_name, err);
	if (r == 0)
		r = check_time(i, source->cert_name, err);
	if (r == 0)
		r = load_key(i, source, err);
	i->lib->ERR_clear_error();
	if (r < 0) {
		av_tls_identity_free(i);
		return r;
	}
	take_names(i);
	*ret = i;
	return 0;
}

void av_tls_identity_free(struct av_tls_identity *i)
{
	if (!i)
		return;
	i->lib->X509_free(i->leaf);
	i->lib->SSL_CTX_free(i->ctx);
	free(i);
}
