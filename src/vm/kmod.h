/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kmod.h - modules of an unpacked kernel, with what they depend on
 *
 * Theory of operation. The tree comes from a template and counts as hostile. Directories are walked
 * once, without following links, to an index of names; bounds on depth and number end it. A module
 * is read (decompressed by xz, zstd or gzip, as a child that ends with us) up to KMOD_IMAGE_MAX
 * bytes, all of them together up to KMOD_TOTAL_MAX. What it depends on stands in its own ELF
 * section .modinfo, which unlike modules.dep is always there; a circle of dependencies is an error.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"
#include "base/macros.h"
#include "base/str.h"

#define KMOD_IMAGE_MAX ((size_t)16 * 1024 * 1024)
#define KMOD_TOTAL_MAX ((size_t)64 * 1024 * 1024)
#define KMOD_NAME_MAX  64

struct kmods;

/* Indexes lib/modules/<release>/kernel (or usr/lib/…) below kernel_fd, which must stay open until
 * kmods_free. NOT_FOUND, INVALID (no such directory, too much in it), NO_MEMORY. */
int kmods_open(
    int kernel_fd, const char *release, struct kmods **ret, struct av_err *err) AV_MUST_CHECK;
void kmods_free(struct kmods **pp);

/* Loads a module and what it depends on, unless they are there. One that is neither in the tree nor
 * a part of the kernel (modules.builtin) is NOT_FOUND if required and else nothing. */
int kmods_want(struct kmods *k, const char *name, bool required, struct av_err *err) AV_MUST_CHECK;

/* What was loaded, in an order in which each comes after what it depends on. */
size_t kmods_count(const struct kmods *k);
const char *kmods_name(const struct kmods *k, size_t i);
struct av_str kmods_image(const struct kmods *k, size_t i); /* valid until kmods_free */

/* What an image says in its section .modinfo about key: the first value, empty if there is none.
 * INVALID if it is no ELF file of the kind that modules are. For tests as well. */
int kmod_info(
    struct av_str image, const char *key, struct av_str *ret, struct av_err *err) AV_MUST_CHECK;

/* A directory or file below dirfd; links are followed but not out of it. -errno. */
int kmod_open_below(int dirfd, const char *path, int flags);
