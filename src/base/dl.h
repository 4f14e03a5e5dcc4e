/* SPDX-License-Identifier: Apache-2.0 */
/*
 * dl.h - functions of a library that is opened when it is first needed
 */
#pragma once

#include <dlfcn.h>
#include <stdbool.h>
#include <string.h>

/* *ret_function, a pointer to a function, becomes that of the name; false and NULL when the library
 * has none. POSIX promises that a function fits in a void *; C does not, hence the copy. */
static inline bool av_dl_find(void *handle, const char *name, void *ret_function)
{
	void *symbol = dlsym(handle, name);

	memcpy(ret_function, &symbol, sizeof(symbol));
	return symbol != NULL;
}
