/* SPDX-License-Identifier: Apache-2.0 */
/*
 * archive_lib.h - the functions of libarchive that backup.c and restore.c call; instead of
 * <archive.h>
 *
 * Linked in, libarchive brings twenty libraries (XML, Unicode, C++, ...), which cost every command
 * 2 to 3 ms at its start. So it is opened with dlopen(3) when it is needed, as libedit is; the
 * names below then stand for what was found.
 */
#pragma once

#include <archive.h>
#include <archive_entry.h>

#include "base/err.h"

#define ARCHIVE_LIB(F)                                                                             \
	F(archive_entry_free)                                                                      \
	F(archive_entry_new)                                                                       \
	F(archive_entry_set_filetype)                                                              \
	F(archive_errno)                                                                           \
	F(archive_error_string)                                                                    \
	F(archive_read_data)                                                                       \
	F(archive_read_free)                                                                       \
	F(archive_read_new)                                                                        \
	F(archive_read_next_header)                                                                \
	F(archive_read_open_fd)                                                                    \
	F(archive_read_support_filter_zstd)                                                        \
	F(archive_read_support_format_empty)                                                       \
	F(archive_read_support_format_raw)                                                         \
	F(archive_set_error)                                                                       \
	F(archive_write_add_filter_zstd)                                                           \
	F(archive_write_close)                                                                     \
	F(archive_write_data)                                                                      \
	F(archive_write_free)                                                                      \
	F(archive_write_header)                                                                    \
	F(archive_write_new)                                                                       \
	F(archive_write_open)                                                                      \
	F(archive_write_set_bytes_in_last_block)                                                   \
	F(archive_write_set_format_raw)

struct archive_lib {
#define ARCHIVE_LIB_MEMBER(name) __typeof__(name) *name##_;
	ARCHIVE_LIB(ARCHIVE_LIB_MEMBER)
#undef ARCHIVE_LIB_MEMBER
};
extern struct archive_lib archive_lib;

/* Once it returned 0 everything may be called. UNSUPPORTED: it is not installed. Blocks for the
 * loading, some milliseconds. */
int archive_lib_load(struct av_err *err);

#ifndef ARCHIVE_LIB_IMPLEMENTATION
#define archive_entry_free                    archive_lib.archive_entry_free_
#define archive_entry_new                     archive_lib.archive_entry_new_
#define archive_entry_set_filetype            archive_lib.archive_entry_set_filetype_
#define archive_errno                         archive_lib.archive_errno_
#define archive_error_string                  archive_lib.archive_error_string_
#define archive_read_data                     archive_lib.archive_read_data_
#define archive_read_free                     archive_lib.archive_read_free_
#define archive_read_new                      archive_lib.archive_read_new_
#define archive_read_next_header              archive_lib.archive_read_next_header_
#define archive_read_open_fd                  archive_lib.archive_read_open_fd_
#define archive_read_support_filter_zstd      archive_lib.archive_read_support_filter_zstd_
#define archive_read_support_format_empty     archive_lib.archive_read_support_format_empty_
#define archive_read_support_format_raw       archive_lib.archive_read_support_format_raw_
#define archive_set_error                     archive_lib.archive_set_error_
#define archive_write_add_filter_zstd         archive_lib.archive_write_add_filter_zstd_
#define archive_write_close                   archive_lib.archive_write_close_
#define archive_write_data                    archive_lib.archive_write_data_
#define archive_write_free                    archive_lib.archive_write_free_
#define archive_write_header                  archive_lib.archive_write_header_
#define archive_write_new                     archive_lib.archive_write_new_
#define archive_write_open                    archive_lib.archive_write_open_
#define archive_write_set_bytes_in_last_block archive_lib.archive_write_set_bytes_in_last_block_
#define archive_write_set_format_raw          archive_lib.archive_write_set_format_raw_
#endif
