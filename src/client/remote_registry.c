/* SPDX-License-Identifier: Apache-2.0 */
/*
 * remote_registry.c - which remote functions the program has, and which build it is (see remote.h)
 *
 * AVIARY_REMOTE leaves an ELF note for each function, whose content is the distance from itself to
 * the record of the function. The notes of every object that is loaded are in memory (PT_NOTE).
 */
#include <elf.h>
#include <link.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>

#include "base/codec.h"
#include "client/remote.h"

#include "base/banned.h"

#define NOTES_MAX ((size_t)1 << 20) /* of one segment; what is larger is none */

/* Calls fn for each note of a kind until it says true. */
static bool each_note(const struct dl_phdr_info *info, struct av_str name, uint32_t type,
    bool (*fn)(void *ctx, const char *desc, size_t n), void *ctx)
{
	for (size_t i = 0; i < info->dlpi_phnum; i++) {
		const ElfW(Phdr) *ph = &info->dlpi_phdr[i];
		size_t align = ph->p_align == 8 ? 8 : 4, left = ph->p_memsz;
		const char *at = (const char *)info->dlpi_addr + ph->p_vaddr;
		ElfW(Nhdr) h;

		if (ph->p_type != PT_NOTE || left > NOTES_MAX)
			continue;
		while (left >= sizeof(h)) {
			size_t desc, end;

			memcpy(&h, at, sizeof(h));
			desc = (sizeof(h) + h.n_namesz + align - 1) / align * align;
			end = (desc + h.n_descsz + align - 1) / align * align;
			if (desc + h.n_descsz > left)
				break;
			if (h.n_type == type && h.n_namesz == name.n + 1 &&
			    memcmp(at + sizeof(h), name.p, name.n) == 0 &&
			    fn(ctx, at + desc, h.n_descsz))
				return true;
			end = AV_MIN(end, left);
			at += end;
			left -= end;
		}
	}
	return false;
}

/* ---- functions ---- */

struct search {
	const char *name;
	const aviary_function *found;
	bool twice;
};

static bool on_function(void *ctx, const char *desc, size_t n)
{
	struct search *s = ctx;
	const aviary_function *fn;
	int32_t distance;

	if (n != sizeof(distance))
		return false;
	memcpy(&distance, desc, sizeof(distance));
	fn = (const aviary_function *)(const void *)(desc + distance);
	if (fn->struct_size < sizeof(*fn) || strcmp(fn->name, s->name) != 0)
		return false;
	s->twice = s->found && s->found != fn;
	s->found = fn;
	return s->twice;
}

static int in_object(struct dl_phdr_info *info, size_t size, void *ctx)
{
	struct search *s = ctx;

	(void)size;
	return each_note(info, AV_STR(AVIARY_NOTE_NAME), AVIARY_NOTE_TYPE, on_function, s);
}

const aviary_function *avc_function_find(const char *name, bool *ret_twice)
{
	struct search s = {.name = name};

	(void)dl_iterate_phdr(in_object, &s);
	if (ret_twice)
		*ret_twice = s.twice;
	return s.twice ? NULL : s.found;
}

/* ---- the build ---- */

static bool on_build(void *ctx, const char *desc, size_t n)
{
	*(struct av_str *)ctx = av_str_n(desc, n);
	return true;
}

struct av_str avc_build_note(const struct dl_phdr_info *info)
{
	struct av_str id = {.p = ""};

	(void)each_note(info, AV_STR("GNU"), NT_GNU_BUILD_ID, on_build, &id);
	return id;
}

static void sum_code(const struct dl_phdr_info *info, char *ret)
{
	crypto_hash_sha256_state st;
	uint8_t hash[crypto_hash_sha256_BYTES];

	(void)crypto_hash_sha256_init(&st);
	(void)crypto_hash_sha256_update(
	    &st, (const uint8_t *)info->dlpi_phdr, info->dlpi_phnum * sizeof(*info->dlpi_phdr));
	for (size_t i = 0; i < info->dlpi_phnum; i++) {
		const ElfW(Phdr) *ph = &info->dlpi_phdr[i];

		if (ph->p_type == PT_LOAD && (ph->p_flags & (PF_R | PF_W | PF_X)) == (PF_R | PF_X))
			(void)crypto_hash_sha256_update(
			    &st, (const uint8_t *)info->dlpi_addr + ph->p_vaddr, ph->p_filesz);
	}
	(void)crypto_hash_sha256_final(&st, hash);
	av_hex_encode(ret, hash, sizeof(hash));
}

static int of_executable(struct dl_phdr_info *info, size_t size, void *ctx)
{
	struct av_str id = avc_build_note(info);
	char *ret = ctx;

	(void)size;
	static_assert(AVC_BUILD_SIZE > 4 + 2 * crypto_hash_sha256_BYTES, "a build fits");
	if (id.n > 0 && id.n <= crypto_hash_sha256_BYTES) {
		memcpy(ret, "gnu-", 4);
		av_hex_encode(ret + 4, id.p, id.n);
	} else {
		memcpy(ret, "sum-", 4);
		sum_code(info, ret + 4);
	}
	return 1; /* the first one is the executable */
}

void avc_build_id(char ret[static AVC_BUILD_SIZE])
{
	ret[0] = '\0';
	(void)dl_iterate_phdr(of_executable, ret);
}
