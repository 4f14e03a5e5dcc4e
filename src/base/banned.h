/* SPDX-License-Identifier: Apache-2.0 */
/*
 * banned.h - functions nobody here may call; included last by every .c file of ours
 *
 * Each has a safe replacement: str.h and buf.h to build text, num.h to parse numbers, fd.h to open.
 */
#pragma once

/* Macros of fortified glibc headers under clang. */
#undef sprintf
#undef vsprintf
#pragma GCC poison strcpy strcat strncpy strncat sprintf vsprintf gets
#pragma GCC poison strtok atoi atol atoll strtol strtoul strtoll strtoull
#undef alloca
#pragma GCC poison mktemp tmpnam system popen alloca gethostbyname
