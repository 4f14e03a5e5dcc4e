/* SPDX-License-Identifier: Apache-2.0 */
/*
 * curl_lib.h - the functions of libcurl that fetch*.c and mail.c call; instead of <curl/curl.h>
 *
 * Linked in, libcurl brings thirty libraries (two of TLS, LDAP, Kerberos, ...), which cost every
 * daemon 4 MiB of memory and its start 5 ms, also those that never ask another server for anything.
 * So it is opened with dlopen(3) when it is first used, as OpenSSL is (tls_lib.h); the names below
 * then stand for what was found.
 */
#pragma once

#define CURL_DISABLE_TYPECHECK
#include <curl/curl.h>

#include "base/err.h"

#undef curl_easy_setopt
#undef curl_easy_getinfo

#define CURL_LIB(F)                                                                                \
	F(curl_easy_cleanup)                                                                       \
	F(curl_easy_getinfo)                                                                       \
	F(curl_easy_init)                                                                          \
	F(curl_easy_setopt)                                                                        \
	F(curl_easy_strerror)                                                                      \
	F(curl_free)                                                                               \
	F(curl_global_cleanup)                                                                     \
	F(curl_global_init)                                                                        \
	F(curl_multi_add_handle)                                                                   \
	F(curl_multi_cleanup)                                                                      \
	F(curl_multi_info_read)                                                                    \
	F(curl_multi_init)                                                                         \
	F(curl_multi_perform)                                                                      \
	F(curl_multi_poll)                                                                         \
	F(curl_multi_remove_handle)                                                                \
	F(curl_multi_wakeup)                                                                       \
	F(curl_slist_append)                                                                       \
	F(curl_slist_free_all)                                                                     \
	F(curl_url)                                                                                \
	F(curl_url_cleanup)                                                                        \
	F(curl_url_get)                                                                            \
	F(curl_url_set)

struct curl_lib {
#define CURL_LIB_MEMBER(name) __typeof__(name) *name##_;
	CURL_LIB(CURL_LIB_MEMBER)
#undef CURL_LIB_MEMBER
};
extern struct curl_lib curl_lib;

/* Loop thread. Once it returned 0 everything may be called, from any thread. UNSUPPORTED: it is not
 * installed. Blocks for the loading, some milliseconds. */
int curl_lib_load(struct av_err *err);

#ifndef CURL_LIB_IMPLEMENTATION
#define curl_easy_cleanup        curl_lib.curl_easy_cleanup_
#define curl_easy_getinfo        curl_lib.curl_easy_getinfo_
#define curl_easy_init           curl_lib.curl_easy_init_
#define curl_easy_setopt         curl_lib.curl_easy_setopt_
#define curl_easy_strerror       curl_lib.curl_easy_strerror_
#define curl_free                curl_lib.curl_free_
#define curl_global_cleanup      curl_lib.curl_global_cleanup_
#define curl_global_init         curl_lib.curl_global_init_
#define curl_multi_add_handle    curl_lib.curl_multi_add_handle_
#define curl_multi_cleanup       curl_lib.curl_multi_cleanup_
#define curl_multi_info_read     curl_lib.curl_multi_info_read_
#define curl_multi_init          curl_lib.curl_multi_init_
#define curl_multi_perform       curl_lib.curl_multi_perform_
#define curl_multi_poll          curl_lib.curl_multi_poll_
#define curl_multi_remove_handle curl_lib.curl_multi_remove_handle_
#define curl_multi_wakeup        curl_lib.curl_multi_wakeup_
#define curl_slist_append        curl_lib.curl_slist_append_
#define curl_slist_free_all      curl_lib.curl_slist_free_all_
#define curl_url                 curl_lib.curl_url_
#define curl_url_cleanup         curl_lib.curl_url_cleanup_
#define curl_url_get             curl_lib.curl_url_get_
#define curl_url_set             curl_lib.curl_url_set_
#endif
