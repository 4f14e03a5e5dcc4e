/* SPDX-License-Identifier: Apache-2.0 */
/*
 * curl_lib.c - libcurl, opened when it is first needed (see curl_lib.h)
 */
#define CURL_LIB_IMPLEMENTATION
#include "net/curl_lib.h"

#include "base/dl.h"

#include "base/banned.h"

#define LIBCURL "libcurl.so.4"

struct curl_lib curl_lib;

static bool find_all(void *handle, const char **ret_missing)
{
#define FIND(name)                                                                                 \
	if (!av_dl_find(handle, #name, &curl_lib.name##_)) {                                       \
		*ret_missing = #name;                                                              \
		return false;                                                                      \
	}
	CURL_LIB(FIND)
#undef FIND
	return true;
}

int curl_lib_load(struct av_err *err)
{
	static bool ready;
	const char *missing = NULL;
	void *handle;

	if (ready)
		return 0;
	/* Never closed: its libraries' threads and data would outlive them. */
	handle = dlopen(LIBCURL, RTLD_NOW | RTLD_LOCAL);
	if (!handle)
		return av_err_set(err, AV_ERR_UNSUPPORTED,
		    "requests to other servers and mail need libcurl (%s), which cannot be loaded: "
		    "%s; "
		    "install libcurl4",
		    LIBCURL, dlerror());
	if (!find_all(handle, &missing))
		return av_err_set(err, AV_ERR_UNSUPPORTED,
		    "requests to other servers and mail need a newer libcurl: %s has no %s; "
		    "install "
		    "libcurl4",
		    LIBCURL, missing);
	ready = true;
	return 0;
}
