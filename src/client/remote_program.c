/* SPDX-License-Identifier: Apache-2.0 */
/*
 * remote_program.c - the files that this program consists of (see remote.h)
 *
 * Theory of operation. dl_iterate_phdr tells what is loaded: the executable, its libraries, the
 * loader, and what was opened by dlopen. Each is found again as a file, which must still be what is
 * in memory: program headers and build id are compared, so that a program whose files were replaced
 * under it says so instead of sending something else.
 *  - The executable is /proc/self/exe, also when its name is gone; where that is another one (it
 *    was started by naming its loader, or runs under valgrind) it is what the kernel has mapped at
 *    its program headers.
 *  - The vdso is no file. What LD_PRELOAD brought in and nothing needs (valgrind's, fakeroot's)
 *    stays here.
 *  - Libraries are looked for by soname in the sandbox: one that is needed by a path is refused.
 */
#include <ctype.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <link.h>
#include <sodium.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/codec.h"
#include "base/fd.h"
#include "client/remote.h"

#include "base/banned.h"

#define OBJECTS_MAX     512
#define PROGRAM_MAX     ((uint64_t)1 << 30)
#define PHDRS_MAX       128
#define NEEDED_MAX      1024
#define EXECUTABLE_LINK "/proc/self/exe"

static_assert(AVC_HASH_TEXT == 2 * crypto_hash_sha256_BYTES, "SHA-256");

/* One object as it is in memory, borrowed from the loader. */
struct loaded {
	ElfW(Addr) base;
	const ElfW(Phdr) * phdrs;
	size_t n_phdrs;
	const char *path;
	const char *soname; /* NULL: none */
	struct av_str build;
	bool skipped;
};

struct collector {
	struct loaded loaded[OBJECTS_MAX];
	size_t n;
	bool too_many;
	struct {
		const char *name;
		size_t by;
	} needed[NEEDED_MAX];
	size_t n_needed;
	struct avc_program *program;
	char *text; /* why not */
	char mapped[PATH_MAX];
};

static int fail(struct collector *k, const char *format, ...) AVIARY_PRINTF(2, 3);

static int fail(struct collector *k, const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	(void)vsnprintf(k->text, 512, format, ap);
	va_end(ap);
	return AVIARY_E_FUNCTION_PROGRAM;
}

/* ---- what is in memory ---- */

static const ElfW(Phdr) * find_phdr(const struct loaded *l, uint32_t type)
{
	for (size_t i = 0; i < l->n_phdrs; i++)
		if (l->phdrs[i].p_type == type)
			return &l->phdrs[i];
	return NULL;
}

static bool contains(const struct loaded *l, uintptr_t address)
{
	for (size_t i = 0; i < l->n_phdrs; i++) {
		const ElfW(Phdr) *ph = &l->phdrs[i];

		if (ph->p_type == PT_LOAD && address >= l->base + ph->p_vaddr &&
		    address < l->base + ph->p_vaddr + ph->p_memsz)
			return true;
	}
	return false;
}

static int on_loaded(struct dl_phdr_info *info, size_t size, void *ctx)
{
	struct collector *k = ctx;
	struct loaded *l = &k->loaded[k->n];
	uintptr_t vdso = getauxval(AT_SYSINFO_EHDR);

	(void)size;
	if (k->n == OBJECTS_MAX) {
		k->too_many = true;
		return 1;
	}
	*l = (struct loaded){.base = info->dlpi_addr,
	    .phdrs = info->dlpi_phdr,
	    .n_phdrs = info->dlpi_phnum,
	    .path = info->dlpi_name,
	    .build = avc_build_note(info)};
	if (!vdso || !contains(l, vdso))
		k->n++;
	return 0;
}

/* What the dynamic section of an object says about names. */
static void read_dynamic(struct collector *k, size_t i)
{
	struct loaded *l = &k->loaded[i];
	const ElfW(Phdr) *ph = find_phdr(l, PT_DYNAMIC);
	const ElfW(Dyn) *first =
	    ph ? (const ElfW(Dyn) *)(l->base + ph->p_vaddr) : NULL; /* NOLINT: its address */
	const char *strings = NULL;

	for (const ElfW(Dyn) *d = first; d && d->d_tag != DT_NULL; d++)
		if (d->d_tag == DT_STRTAB) /* glibc has relocated it, musl has not */
			strings = (const char *)(d->d_un.d_ptr < l->base ? l->base + d->d_un.d_ptr
			                                                 : d->d_un.d_ptr);
	for (const ElfW(Dyn) *d = first; strings && d->d_tag != DT_NULL; d++) {
		if (d->d_tag == DT_SONAME)
			l->soname = strings + d->d_un.d_val;
		if (d->d_tag == DT_NEEDED && k->n_needed < NEEDED_MAX) {
			k->needed[k->n_needed].name = strings + d->d_un.d_val;
			k->needed[k->n_needed++].by = i;
		}
	}
}

static const char *base_name(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? slash + 1 : path;
}

static const char *name_of(const struct loaded *l)
{
	return l->soname ? l->soname : base_name(l->path);
}

static bool is_needed(const struct collector *k, const struct loaded *l)
{
	for (size_t i = 0; i < k->n_needed; i++)
		if (strcmp(k->needed[i].name, name_of(l)) == 0)
			return true;
	return false;
}

/* A list of LD_PRELOAD, divided by spaces or colons, names it. */
static bool is_preloaded(const struct loaded *l)
{
	const char *at = getenv("LD_PRELOAD");

	while (at && *at) {
		size_t n = strcspn(at, " :");
		struct av_str one = av_str_n(at, n);

		if (n && (av_str_eq_c(one, l->path) || av_str_eq_c(one, base_name(l->path))))
			return true;
		at += n + (at[n] != '\0');
	}
	return false;
}

static int collect(struct collector *k)
{
	(void)dl_iterate_phdr(on_loaded, k);
	if (k->too_many)
		return fail(k, "it has loaded more than %d libraries", OBJECTS_MAX);
	if (!k->n)
		return fail(k, "its loader tells nothing of what it has loaded");
	for (size_t i = 0; i < k->n; i++)
		read_dynamic(k, i);
	for (size_t i = 1; i < k->n; i++)
		k->loaded[i].skipped = is_preloaded(&k->loaded[i]) && !is_needed(k, &k->loaded[i]);
	for (size_t i = 0; i < k->n_needed; i++)
		if (strchr(k->needed[i].name, '/') && !k->loaded[k->needed[i].by].skipped)
			return fail(k,
			    "it needs a library by the path %.200s; link that one with "
			    "-Wl,-soname,NAME so that it is found elsewhere too",
			    k->needed[i].name);
	return 0;
}

/* ---- files ---- */

static bool same_build(int fd, const ElfW(Phdr) * phdrs, size_t n, struct av_str build)
{
	char note[4096];

	for (size_t i = 0; i < n && build.n; i++) {
		ssize_t got;

		if (phdrs[i].p_type != PT_NOTE)
			continue;
		got = pread(fd, note, AV_MIN(sizeof(note), (size_t)phdrs[i].p_filesz),
		    (off_t)phdrs[i].p_offset);
		if (got > 0 && memmem(note, (size_t)got, build.p, build.n))
			return true;
	}
	return build.n == 0;
}

/* Whether the file is what is loaded. */
static bool is_file_of(int fd, const struct loaded *l)
{
	ElfW(Phdr) phdrs[PHDRS_MAX];
	ElfW(Ehdr) eh;
	size_t n = l->n_phdrs * sizeof(*phdrs);

	return l->n_phdrs <= PHDRS_MAX && pread(fd, &eh, sizeof(eh), 0) == sizeof(eh) &&
	       memcmp(eh.e_ident, ELFMAG, SELFMAG) == 0 && eh.e_phnum == l->n_phdrs &&
	       eh.e_phentsize == sizeof(*phdrs) &&
	       pread(fd, phdrs, n, (off_t)eh.e_phoff) == (ssize_t)n &&
	       memcmp(phdrs, l->phdrs, n) == 0 && same_build(fd, phdrs, l->n_phdrs, l->build);
}

/* Digits of an address; what follows them. */
static const char *read_hex(const char *p, uintptr_t *ret)
{
	for (*ret = 0; isxdigit((unsigned char)*p); p++)
		*ret = *ret << 4 | (uintptr_t)(*p <= '9' ? *p - '0' : (*p | 0x20) - 'a' + 10);
	return p;
}

/* The file that the kernel has mapped where the object's program headers are; false: it cannot be
 * said. */
static bool find_mapped(struct collector *k, const struct loaded *l)
{
	FILE *maps = fopen("/proc/self/maps", "re");
	uintptr_t at = (uintptr_t)l->phdrs;
	char *line = NULL;
	size_t room = 0;
	bool found = false;

	while (maps && !found && getline(&line, &room, maps) > 0) {
		char *path = strchr(line, '/');
		const char *end;
		uintptr_t from, to;

		end = read_hex(line, &from);
		if (!path || *end != '-')
			continue;
		end = read_hex(end + 1, &to);
		if (*end != ' ' || at < from || at >= to)
			continue;
		path[strcspn(path, "\n")] = '\0';
		found = strlen(path) < sizeof(k->mapped);
		if (found)
			memcpy(k->mapped, path, strlen(path) + 1);
	}
	free(line);
	if (maps)
		(void)fclose(maps);
	return found;
}

/* Opens the file of an object; *ret_path is where it was found, borrowed. */
static int open_loaded(struct collector *k, size_t i, int *ret_fd, const char **ret_path)
{
	struct loaded *l = &k->loaded[i];
	const char *path = i == 0 ? EXECUTABLE_LINK : l->path;
	int fd = open(path, O_RDONLY | O_CLOEXEC), error = errno;

	if (fd >= 0 && is_file_of(fd, l)) {
		*ret_fd = fd;
		*ret_path = path;
		return 0;
	}
	if (fd >= 0) {
		close(fd);
		error = 0; /* there is one, but another one */
	}
	if (find_mapped(k, l) && (fd = open(k->mapped, O_RDONLY | O_CLOEXEC)) >= 0) {
		if (is_file_of(fd, l)) {
			*ret_fd = fd;
			*ret_path = k->mapped;
			return 0;
		}
		close(fd);
		error = 0;
	}
	path = i == 0 ? "its executable" : path;
	if (error)
		return fail(k, "%.300s cannot be read: %s", path, strerror(error));
	return fail(k,
	    "%.300s is not what runs: it was replaced since the start (rebuilt, or upgraded?); "
	    "start the program again",
	    path);
}

static void hash_text(crypto_hash_sha256_state *st, char *ret)
{
	uint8_t hash[crypto_hash_sha256_BYTES];

	(void)crypto_hash_sha256_final(st, hash);
	av_hex_encode(ret, hash, sizeof(hash));
}

static int read_object(struct collector *k, int fd, const char *path, struct avc_object *o)
{
	crypto_hash_sha256_state st;
	uint8_t block[65536];
	struct stat s;
	ssize_t n;

	if (fstat(fd, &s) < 0)
		return fail(k, "%.300s: %s", path, strerror(errno));
	if (!S_ISREG(s.st_mode) || (uint64_t)s.st_size > PROGRAM_MAX)
		return fail(k, "%.300s is no file, or larger than 1 GiB", path);
	o->size = (uint64_t)s.st_size;
	o->dev = s.st_dev;
	o->ino = s.st_ino;
	o->mtime_ns = (int64_t)s.st_mtim.tv_sec * 1000000000 + s.st_mtim.tv_nsec;
	(void)crypto_hash_sha256_init(&st);
	while ((n = av_read_full(fd, block, sizeof(block))) > 0)
		(void)crypto_hash_sha256_update(&st, block, (size_t)n);
	if (n < 0)
		return fail(k, "%.300s cannot be read: %s", path, strerror((int)-n));
	hash_text(&st, o->hash);
	return 0;
}

int avc_object_open(const struct avc_object *o)
{
	int fd = open(o->path, O_RDONLY | O_CLOEXEC);
	struct stat s;

	if (fd < 0)
		return -errno;
	if (fstat(fd, &s) == 0 && (uint64_t)s.st_size == o->size && s.st_dev == o->dev &&
	    s.st_ino == o->ino &&
	    (int64_t)s.st_mtim.tv_sec * 1000000000 + s.st_mtim.tv_nsec == o->mtime_ns)
		return fd;
	close(fd);
	return -ESTALE;
}

static int add(struct collector *k, int fd, const char *path, const char *name)
{
	struct avc_program *p = k->program;
	struct avc_object *o = &p->objects[p->n];
	int r;

	assert(path && name);
	for (size_t i = 0; i < p->n; i++)
		if (p->objects[i].name && strcmp(p->objects[i].name, name) == 0)
			return 0; /* the first one is what the loader takes */
	*o = (struct avc_object){.path = strdup(path), .name = strdup(name)};
	p->n++; /* freed with the others */
	if (!o->path || !o->name)
		return AVIARY_E_NO_MEMORY;
	if (!*name || strchr(name, '/'))
		return fail(k,
		    "%.300s has the soname \"%.100s\", which cannot be a file's name there", path,
		    name);
	r = read_object(k, fd, path, o);
	for (size_t i = 0, total = 0; r == 0 && i < p->n; i++)
		if ((total += p->objects[i].size) > PROGRAM_MAX)
			return fail(k, "it is larger than 1 GiB with its libraries");
	return r;
}

static int add_loaded(struct collector *k, size_t i)
{
	AV_CLEANUP(av_closep) int fd = -1;
	const char *path = NULL;
	int r = open_loaded(k, i, &fd, &path);

	return r < 0 ? r : add(k, fd, path, i == 0 ? AVC_EXECUTABLE : name_of(&k->loaded[i]));
}

static int find_object(const struct avc_program *p, const char *name)
{
	for (size_t i = 0; i < p->n; i++)
		if (strcmp(p->objects[i].name, name) == 0)
			return (int)i;
	return -1;
}

/* The loader that the executable asks for: among what is loaded already, or by its path. */
static int add_loader(struct collector *k)
{
	const ElfW(Phdr) *ph = find_phdr(&k->loaded[0], PT_INTERP);
	const char *path = ph ? (const char *)k->loaded[0].base + ph->p_vaddr : NULL;
	AV_CLEANUP(av_closep) int fd = -1;
	uintptr_t at = getauxval(AT_BASE);
	int r;

	k->program->loader = -1;
	if (!path)
		return k->n == 1 ? 0 : fail(k, "it has libraries, but names no loader (PT_INTERP)");
	for (size_t i = 1; i < k->n; i++) {
		if (!(at && contains(&k->loaded[i], at)) && strcmp(k->loaded[i].path, path) != 0)
			continue;
		k->program->loader = find_object(k->program, name_of(&k->loaded[i]));
		if (k->program->loader >= 0)
			return 0;
	}
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return fail(k, "its loader %.300s cannot be read: %s", path, strerror(errno));
	r = add(k, fd, path, base_name(path));
	k->program->loader = find_object(k->program, base_name(path));
	return r;
}

static void name_program(struct avc_program *p)
{
	crypto_hash_sha256_state st;

	(void)crypto_hash_sha256_init(&st);
	for (size_t i = 0; i < p->n; i++) {
		const struct avc_object *o = &p->objects[i];

		(void)crypto_hash_sha256_update(&st, (const uint8_t *)o->name, strlen(o->name) + 1);
		(void)crypto_hash_sha256_update(&st, (const uint8_t *)o->hash, AVC_HASH_TEXT);
	}
	hash_text(&st, p->id);
	avc_build_id(p->build);
}

static int fill(struct collector *k)
{
	int r = collect(k);

	k->program->objects = r == 0 ? calloc(k->n + 1, sizeof(*k->program->objects)) : NULL;
	if (r == 0 && !k->program->objects)
		return AVIARY_E_NO_MEMORY;
	for (size_t i = 0; i < k->n && r == 0; i++)
		if (!k->loaded[i].skipped)
			r = add_loaded(k, i);
	if (r == 0)
		r = add_loader(k);
	if (r == 0)
		name_program(k->program);
	return r;
}

int avc_program_new(struct avc_program **ret, char text[static 512])
{
	struct collector *k = calloc(1, sizeof(*k));
	struct avc_program *p = calloc(1, sizeof(*p));
	int r = AVIARY_E_NO_MEMORY;

	text[0] = '\0';
	if (k && p) {
		k->program = p;
		k->text = text;
		r = fill(k);
	}
	free(k);
	if (r == 0)
		*ret = p;
	else
		avc_program_free(p);
	return r;
}

void avc_program_free(struct avc_program *p)
{
	for (size_t i = 0; p && i < p->n; i++) {
		free(p->objects[i].path);
		free(p->objects[i].name);
	}
	if (p)
		free(p->objects);
	free(p);
}
