/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tls_lib.h - the functions of OpenSSL that we call; included by src/net/tls*.c only
 *
 * Linked in, libssl and libcrypto would cost every daemon 0.8 ms of its start and 1.8 MiB of
 * memory, also those that never speak TLS. So they are opened with dlopen(3) when TLS is first
 * used; the types of the functions are those of OpenSSL's headers, and a call is lib->SSL_new(...).
 */
#pragma once

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include "base/err.h"

/* Those that are macros in OpenSSL's headers are called by what they stand for (SSL_CTX_ctrl). */
#define TLS_LIB_SSL(F)                                                                             \
	F(OPENSSL_init_ssl)                                                                        \
	F(SSL_CTX_check_private_key)                                                               \
	F(SSL_CTX_clear_options)                                                                   \
	F(SSL_CTX_ctrl)                                                                            \
	F(SSL_CTX_free)                                                                            \
	F(SSL_CTX_new)                                                                             \
	F(SSL_CTX_set_alpn_select_cb)                                                              \
	F(SSL_CTX_set_cipher_list)                                                                 \
	F(SSL_CTX_set_default_read_buffer_len)                                                     \
	F(SSL_CTX_set_num_tickets)                                                                 \
	F(SSL_CTX_set_options)                                                                     \
	F(SSL_CTX_set_session_id_context)                                                          \
	F(SSL_CTX_set_timeout)                                                                     \
	F(SSL_CTX_use_PrivateKey)                                                                  \
	F(SSL_CTX_use_certificate)                                                                 \
	F(SSL_do_handshake)                                                                        \
	F(SSL_free)                                                                                \
	F(SSL_get0_alpn_selected)                                                                  \
	F(SSL_get_error)                                                                           \
	F(SSL_has_pending)                                                                         \
	F(SSL_new)                                                                                 \
	F(SSL_read)                                                                                \
	F(SSL_set_accept_state)                                                                    \
	F(SSL_set_bio)                                                                             \
	F(SSL_shutdown)                                                                            \
	F(SSL_write)                                                                               \
	F(TLS_server_method)

#define TLS_LIB_CRYPTO(F)                                                                          \
	F(ASN1_STRING_get0_data)                                                                   \
	F(ASN1_STRING_length)                                                                      \
	F(ASN1_TIME_to_tm)                                                                         \
	F(BIO_clear_flags)                                                                         \
	F(BIO_free)                                                                                \
	F(BIO_get_data)                                                                            \
	F(BIO_meth_free)                                                                           \
	F(BIO_meth_new)                                                                            \
	F(BIO_meth_set_ctrl)                                                                       \
	F(BIO_meth_set_read)                                                                       \
	F(BIO_meth_set_write)                                                                      \
	F(BIO_new)                                                                                 \
	F(BIO_new_mem_buf)                                                                         \
	F(BIO_set_data)                                                                            \
	F(BIO_set_flags)                                                                           \
	F(BIO_set_init)                                                                            \
	F(ERR_clear_error)                                                                         \
	F(ERR_peek_last_error)                                                                     \
	F(ERR_reason_error_string)                                                                 \
	F(EVP_PKEY_free)                                                                           \
	F(GENERAL_NAMES_free)                                                                      \
	F(OPENSSL_sk_num)                                                                          \
	F(OPENSSL_sk_value)                                                                        \
	F(PEM_read_bio_PrivateKey)                                                                 \
	F(PEM_read_bio_X509)                                                                       \
	F(RAND_bytes)                                                                              \
	F(X509_check_host)                                                                         \
	F(X509_check_ip_asc)                                                                       \
	F(X509_check_private_key)                                                                  \
	F(X509_free)                                                                               \
	F(X509_get0_notAfter)                                                                      \
	F(X509_get0_notBefore)                                                                     \
	F(X509_get_ext_d2i)

struct tls_lib {
#define TLS_LIB_MEMBER(name) __typeof__(name) *name;
	TLS_LIB_SSL(TLS_LIB_MEMBER)
	TLS_LIB_CRYPTO(TLS_LIB_MEMBER)
#undef TLS_LIB_MEMBER
};

/* The functions, for the life of the process; loop thread. UNSUPPORTED says which package is
 * missing. */
int tls_lib_get(const struct tls_lib **ret, struct av_err *err);
/* The same, once that has succeeded: for callbacks, which get nothing of ours. Any thread. */
const struct tls_lib *tls_lib_loaded(void);
