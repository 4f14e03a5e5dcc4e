/* SPDX-License-Identifier: Apache-2.0 */
/*
 * guard.h - allocations between guards: writes outside of them, or after they were freed, end the
 * program, and so does a second free
 *
 * Over the C library's own allocator, for a program that replaces its malloc family. Any thread.
 * caller: who asks, told when the guard is found broken.
 */
#pragma once

#include <stddef.h>

/* As malloc(); what is had holds 0xcd. */
void *guard_malloc(size_t n, void *caller);
/* As realloc(); always moves. */
void *guard_realloc(void *p, size_t n, void *caller);
/* As free(). What is no allocation of these goes to the C library. */
void guard_free(void *p, void *caller);
