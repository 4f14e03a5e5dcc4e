/* SPDX-License-Identifier: Apache-2.0 */
/*
 * macros.h - the few macros that every file may use: cleanup attributes and ownership transfer
 *
 * AV_CLEANUP(fn) calls fn(&var) when var leaves scope; initialise such a variable where it is
 * declared. AV_TAKE_PTR/AV_TAKE_FD hand the value on and leave NULL/-1 behind.
 */
#pragma once

#include <assert.h>
#include <stddef.h>
#include <stdint.h>

#define AV_CLEANUP(fn)  __attribute__((cleanup(fn)))
#define AV_MUST_CHECK   __attribute__((warn_unused_result))
#define AV_UNUSED       __attribute__((unused))
#define AV_PRINTF(a, b) __attribute__((format(printf, a, b)))

#define AV_TAKE_PTR(p)                                                                             \
	({                                                                                         \
		typeof(p) *pp_ = &(p);                                                             \
		typeof(p) v_ = *pp_;                                                               \
		*pp_ = NULL;                                                                       \
		v_;                                                                                \
	})
#define AV_TAKE_FD(fd)                                                                             \
	({                                                                                         \
		int *pf_ = &(fd);                                                                  \
		int v_ = *pf_;                                                                     \
		*pf_ = -1;                                                                         \
		v_;                                                                                \
	})

#define AV_ARRAY_LEN(a)                    (sizeof(a) / sizeof((a)[0]))
#define AV_CONTAINER_OF(ptr, type, member) ((type *)(void *)((char *)(ptr)-offsetof(type, member)))
#define AV_MIN(a, b)                                                                               \
	({                                                                                         \
		typeof(a) a_ = (a);                                                                \
		typeof(b) b_ = (b);                                                                \
		a_ < b_ ? a_ : b_;                                                                 \
	})
#define AV_MAX(a, b)                                                                               \
	({                                                                                         \
		typeof(a) a_ = (a);                                                                \
		typeof(b) b_ = (b);                                                                \
		a_ > b_ ? a_ : b_;                                                                 \
	})

#define AV_KIB 1024LL
#define AV_MIB (1024LL * 1024)
#define AV_GIB (1024LL * 1024 * 1024)
