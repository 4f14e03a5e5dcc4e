/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tls_lib.c - OpenSSL, opened when it is first needed
 */
#include "net/tls_lib.h"

#include "base/dl.h"

#include "base/banned.h"

#define TEXT_(x)  #x
#define TEXT(x)   TEXT_(x)
#define LIBSSL    "libssl.so." TEXT(OPENSSL_SHLIB_VERSION)
#define LIBCRYPTO "libcrypto.so." TEXT(OPENSSL_SHLIB_VERSION)

/* Constant once it is ready, and the same for all. */
static struct tls_lib lib;

/* False names what is missing. */
static bool find_all(void *ssl, void *crypto, const char **ret_missing)
{
#define FIND_IN(handle, name)                                                                      \
	if (!av_dl_find(handle, #name, &lib.name)) {                                               \
		*ret_missing = #name;                                                              \
		return false;                                                                      \
	}
#define FIND_SSL(name)    FIND_IN(ssl, name)
#define FIND_CRYPTO(name) FIND_IN(crypto, name)
	TLS_LIB_SSL(FIND_SSL)
	TLS_LIB_CRYPTO(FIND_CRYPTO)
#undef FIND_CRYPTO
#undef FIND_SSL
#undef FIND_IN
	return true;
}

const struct tls_lib *tls_lib_loaded(void)
{
	return &lib;
}

int tls_lib_get(const struct tls_lib **ret, struct av_err *err)
{
	static bool ready;
	const char *missing = NULL;

	if (ready) {
		*ret = &lib;
		return 0;
	}
	/* Never closed: their threads' data and methods would outlive them. */
	void *crypto = dlopen(LIBCRYPTO, RTLD_NOW | RTLD_LOCAL);
	void *ssl = crypto ? dlopen(LIBSSL, RTLD_NOW | RTLD_LOCAL) : NULL;
	if (!ssl)
		return av_err_set(err, AV_ERR_UNSUPPORTED,
		    "TLS needs OpenSSL (%s), which cannot be loaded: %s; install libssl3", LIBSSL,
		    dlerror());
	if (!find_all(ssl, crypto, &missing))
		return av_err_set(err, AV_ERR_UNSUPPORTED,
		    "TLS needs a newer OpenSSL: %s has no %s; install libssl3", LIBSSL, missing);
	/* Nothing of it is worth tidying up when the process ends. */
	if (lib.OPENSSL_init_ssl(OPENSSL_INIT_NO_ATEXIT, NULL) != 1)
		return av_err_set(err, AV_ERR_INTERNAL, "OpenSSL cannot be initialised");
	ready = true;
	*ret = &lib;
	return 0;
}
