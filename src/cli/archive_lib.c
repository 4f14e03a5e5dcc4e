/* SPDX-License-Identifier: Apache-2.0 */
/*
 * archive_lib.c - libarchive, opened when it is needed (see archive_lib.h)
 */
#define ARCHIVE_LIB_IMPLEMENTATION
#include "cli/archive_lib.h"

#include "base/dl.h"

#include "base/banned.h"

#define LIBARCHIVE "libarchive.so.13"

struct archive_lib archive_lib;

int archive_lib_load(struct av_err *err)
{
	/* Never closed: this program ends soon after. */
	void *handle = dlopen(LIBARCHIVE, RTLD_NOW | RTLD_LOCAL);

	if (!handle)
		return av_err_set(err, AV_ERR_UNSUPPORTED,
		    "compressing a backup and restoring one need libarchive (%s), which cannot be "
		    "loaded: %s; install libarchive13",
		    LIBARCHIVE, dlerror());
#define FIND(name)                                                                                 \
	if (!av_dl_find(handle, #name, &archive_lib.name##_))                                      \
		return av_err_set(err, AV_ERR_UNSUPPORTED,                                         \
		    "compressing a backup and restoring one need a newer libarchive: %s has "      \
		    "no " #name,                                                                   \
		    LIBARCHIVE);
	ARCHIVE_LIB(FIND)
#undef FIND
	return 0;
}
