/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tls_identity.h - a certificate with its key, as a context of OpenSSL; included by src/net/tls*.c
 */
#pragma once

#include "net/tls.h"
#include "net/tls_lib.h"

struct av_tls_identity {
	const struct tls_lib *lib;
	SSL_CTX *ctx; /* owned, as the next */
	X509 *leaf;
	int64_t not_after;
	char names[AV_TLS_NAMES_SIZE];
	char first_name[256]; /* "" for none */
};
