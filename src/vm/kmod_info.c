/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kmod_info.c - what a module says about itself: the section .modinfo of its ELF file
 *
 * Strings "key=value", each with a NUL behind it. Every offset in the file is checked before it is
 * followed, and what is looked at is copied out first, as nothing in it need be aligned.
 */
#include <elf.h>
#include <stdint.h>

#include "vm/kmod.h"

#include "base/banned.h"

static bool copy_out(struct av_str image, uint64_t at, void *p, size_t n)
{
	if (at > image.n || image.n - at < n)
		return false;
	memcpy(p, image.p + at, n);
	return true;
}

static bool section_bytes(struct av_str image, const Elf64_Shdr *s, struct av_str *ret)
{
	if (s->sh_type == SHT_NOBITS || s->sh_offset > image.n ||
	    image.n - s->sh_offset < s->sh_size)
		return false;
	*ret = av_str_n(image.p + s->sh_offset, s->sh_size);
	return true;
}

static bool read_section(struct av_str image, const Elf64_Ehdr *eh, unsigned int i, Elf64_Shdr *ret)
{
	uint64_t at;

	return !__builtin_add_overflow(eh->e_shoff, (uint64_t)i * sizeof(*ret), &at) &&
	       copy_out(image, at, ret, sizeof(*ret));
}

static bool is_module(const Elf64_Ehdr *eh)
{
	return memcmp(eh->e_ident, ELFMAG, SELFMAG) == 0 && eh->e_ident[EI_CLASS] == ELFCLASS64 &&
	       eh->e_ident[EI_DATA] == ELFDATA2LSB && eh->e_type == ET_REL &&
	       eh->e_shentsize == sizeof(Elf64_Shdr);
}

static bool find_modinfo(struct av_str image, struct av_str *ret)
{
	static const char wanted[] = ".modinfo"; /* with its NUL */
	struct av_str names;
	Elf64_Ehdr eh;
	Elf64_Shdr s;

	if (!copy_out(image, 0, &eh, sizeof(eh)) || !is_module(&eh) ||
	    eh.e_shstrndx >= eh.e_shnum || !read_section(image, &eh, eh.e_shstrndx, &s) ||
	    !section_bytes(image, &s, &names))
		return false;
	for (unsigned int i = 0; i < eh.e_shnum; i++) {
		if (!read_section(image, &eh, i, &s))
			return false;
		if (s.sh_name < names.n && names.n - s.sh_name >= sizeof(wanted) &&
		    memcmp(names.p + s.sh_name, wanted, sizeof(wanted)) == 0)
			return section_bytes(image, &s, ret);
	}
	return false;
}

int kmod_info(struct av_str image, const char *key, struct av_str *ret, struct av_err *err)
{
	struct av_str info, entry, value = AV_STR("");
	size_t n = strlen(key);

	if (!find_modinfo(image, &info))
		return av_err_set(
		    err, AV_ERR_INVALID, "not a module: no ELF file with a section .modinfo");
	while (info.n) {
		av_str_cut(&info, '\0', &entry);
		if (entry.n > n && memcmp(entry.p, key, n) == 0 && entry.p[n] == '=') {
			value = av_str_n(entry.p + n + 1, entry.n - n - 1);
			break;
		}
	}
	*ret = value;
	return 0;
}
