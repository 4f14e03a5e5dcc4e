/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kmod.c - modules of an unpacked kernel, with what they depend on
 */
#include "vm/kmod.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/fd.h"
#include "base/path.h"
#include "vm/unpack.h"

#include "base/banned.h"

#define FILES_MAX   32768
#define DEPTH_MAX   16
#define LOADED_MAX  128
#define BUILTIN_MAX ((size_t)1024 * 1024)

enum state { KMOD_FOUND, KMOD_LOADING, KMOD_LOADED };

struct kmod {
	char name[KMOD_NAME_MAX + 1]; /* with '_' for '-' */
	char *path;                   /* owned; below lib/modules/<release> */
	enum unpack_format format;
	enum state state;
};

struct kmods {
	int dir_fd; /* owned; lib/modules/<release> */
	struct kmod *files;
	size_t n_files, cap;
	struct {
		const char *name; /* of files */
		struct av_buf image;
	} loaded[LOADED_MAX];
	size_t n_loaded, bytes;
	struct av_buf builtin; /* modules.builtin */
};

int kmod_open_below(int dirfd, const char *path, int flags)
{
	struct open_how how = {
	    .flags = (uint64_t)(flags | O_CLOEXEC | O_NONBLOCK | O_NOCTTY),
	    .resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS,
	};
	int fd = (int)syscall(SYS_openat2, dirfd, path, &how, sizeof(how));

	return fd < 0 ? -errno : fd;
}

/* --- the index --- */

/* "virtio-rng.ko.xz" is virtio_rng, compressed by xz. */
static bool parse_file_name(const char *file, struct kmod *ret)
{
	static const struct {
		const char *suffix;
		enum unpack_format format;
	} kinds[] = {
	    {".ko", UNPACK_PLAIN},
	    {".ko.xz", UNPACK_XZ},
	    {".ko.zst", UNPACK_ZSTD},
	    {".ko.gz", UNPACK_GZIP},
	};
	struct av_str s = av_str_c(file);

	for (size_t i = 0; i < AV_ARRAY_LEN(kinds); i++) {
		struct av_str suffix = av_str_c(kinds[i].suffix);

		if (s.n <= suffix.n || s.n - suffix.n > KMOD_NAME_MAX || !av_str_ends(s, suffix))
			continue;
		for (size_t j = 0; j < s.n - suffix.n; j++)
			ret->name[j] = s.p[j] == '-' ? '_' : s.p[j];
		ret->name[s.n - suffix.n] = '\0';
		ret->format = kinds[i].format;
		return true;
	}
	return false;
}

static int add_file(struct kmods *k, const struct kmod *found, const char *path)
{
	if (k->n_files == FILES_MAX)
		return -E2BIG;
	if (k->n_files == k->cap) {
		size_t cap = k->cap ? k->cap * 2 : 1024;
		struct kmod *files = reallocarray(k->files, cap, sizeof(*files));

		if (!files)
			return -ENOMEM;
		k->files = files;
		k->cap = cap;
	}
	k->files[k->n_files] = *found;
	k->files[k->n_files].path = av_str_dup(av_str_c(path));
	if (!k->files[k->n_files].path)
		return -ENOMEM;
	k->n_files++;
	return 0;
}

static void close_dir(DIR **pp)
{
	if (*pp)
		closedir(*pp);
}

static int index_dir(struct kmods *k, const char *path, int depth);

static int index_entry(struct kmods *k, const char *dir, const struct dirent *e, int depth)
{
	struct kmod found = {.state = KMOD_FOUND};
	char path[AV_PATH_MAX + 1];

	if (e->d_name[0] == '.')
		return 0;
	if (av_path_printf(path, sizeof(path), "%s/%s", dir, e->d_name) < 0)
		return -ENAMETOOLONG;
	if (parse_file_name(e->d_name, &found))
		return add_file(k, &found, path);
	if (e->d_type != DT_DIR && e->d_type != DT_UNKNOWN)
		return 0;
	return depth < DEPTH_MAX ? index_dir(k, path, depth + 1) : -E2BIG;
}

static int index_dir(struct kmods *k, const char *path, int depth)
{
	AV_CLEANUP(close_dir) DIR *dir = NULL;
	int fd = kmod_open_below(k->dir_fd, path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
	struct dirent *e;
	int r;

	if (fd < 0)
		return depth && (fd == -ENOTDIR || fd == -ELOOP) ? 0 : fd;
	dir = fdopendir(fd);
	if (!dir) {
		r = -errno;
		close(fd);
		return r;
	}
	while (errno = 0, (e = readdir(dir)))
		if ((r = index_entry(k, path, e, depth)) < 0)
			return r;
	return -errno;
}

/* --- open and free --- */

static int open_release_dir(int kernel_fd, const char *release)
{
	static const char *const tops[] = {"lib/modules", "usr/lib/modules"};
	char path[AV_PATH_MAX + 1];
	int fd = -ENOENT;

	for (size_t i = 0; i < AV_ARRAY_LEN(tops) && fd == -ENOENT; i++) {
		if (av_path_printf(path, sizeof(path), "%s/%s", tops[i], release) < 0)
			return -ENAMETOOLONG;
		fd = kmod_open_below(kernel_fd, path, O_RDONLY | O_DIRECTORY);
	}
	return fd;
}

/* Without it every module that is not there is missed. */
static void read_builtin(struct kmods *k)
{
	AV_CLEANUP(av_closep) int fd = kmod_open_below(k->dir_fd, "modules.builtin", O_RDONLY);

	if (fd >= 0 && unpack(fd, UNPACK_PLAIN, &k->builtin, NULL) < 0)
		av_buf_clear(&k->builtin);
}

void kmods_free(struct kmods **pp)
{
	struct kmods *k = *pp;

	if (!k)
		return;
	for (size_t i = 0; i < k->n_files; i++)
		free(k->files[i].path);
	for (size_t i = 0; i < k->n_loaded; i++)
		av_buf_clear(&k->loaded[i].image);
	av_buf_clear(&k->builtin);
	free(k->files);
	av_close_fd(&k->dir_fd);
	free(k);
	*pp = NULL;
}

int kmods_open(int kernel_fd, const char *release, struct kmods **ret, struct av_err *err)
{
	AV_CLEANUP(kmods_free) struct kmods *k = calloc(1, sizeof(*k));
	int r;

	if (!k)
		return av_err_set(err, AV_ERR_NO_MEMORY, "out of memory for the kernel's modules");
	av_buf_init(&k->builtin, BUILTIN_MAX);
	k->dir_fd = open_release_dir(kernel_fd, release);
	r = k->dir_fd < 0 ? k->dir_fd : index_dir(k, "kernel", 0);
	if (r == -ENOENT)
		return av_err_set(err, AV_ERR_NOT_FOUND,
		    "the kernel has no modules: lib/modules/%s/kernel is missing", release);
	if (r < 0)
		return av_err_sys(
		    err, AV_ERR_INVALID, r, "cannot read lib/modules/%s of the kernel", release);
	read_builtin(k);
	*ret = AV_TAKE_PTR(k);
	return 0;
}

/* --- loading --- */

static struct kmod *find(struct kmods *k, const char *name)
{
	for (size_t i = 0; i < k->n_files; i++)
		if (strcmp(k->files[i].name, name) == 0)
			return &k->files[i];
	return NULL;
}

/* Lines "kernel/fs/ext4/ext4.ko". */
static bool is_builtin(const struct kmods *k, const char *name)
{
	struct av_str rest = av_buf_str(&k->builtin), line;

	while (rest.n) {
		struct kmod file = {0};
		char base[KMOD_NAME_MAX + 16];

		av_str_cut(&rest, '\n', &line);
		if (av_str_copy(base, sizeof(base), av_path_base(line)) == 0 &&
		    parse_file_name(base, &file) && strcmp(file.name, name) == 0)
			return true;
	}
	return false;
}

static int read_image(struct kmods *k, struct kmod *m, struct av_buf *image, struct av_err *err)
{
	AV_CLEANUP(av_closep) int fd = kmod_open_below(k->dir_fd, m->path, O_RDONLY | O_NOFOLLOW);
	struct stat st;
	int r;

	if (fd < 0)
		return av_err_sys(err, AV_ERR_INVALID, fd, "cannot open module %s", m->path);
	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
		return av_err_set(err, AV_ERR_INVALID, "module %s is no regular file", m->path);
	if ((r = unpack(fd, m->format, image, err)) < 0) {
		av_err_prefix(err, "module %s", m->path);
		return r;
	}
	k->bytes += image->n;
	if (k->bytes > KMOD_TOTAL_MAX)
		return av_err_set(err, AV_ERR_TOO_LARGE,
		    "the modules that a guest needs are larger than %zu MiB together",
		    KMOD_TOTAL_MAX >> 20);
	return 0;
}

static int load(struct kmods *k, struct kmod *m, struct av_err *err);

/* "virtio,virtio_ring" */
static int load_dependencies(
    struct kmods *k, const struct kmod *m, struct av_str depends, struct av_err *err)
{
	while (depends.n) {
		struct kmod file = {0}, *needed;
		char name[KMOD_NAME_MAX + 4];
		struct av_str one;
		int r;

		av_str_cut(&depends, ',', &one);
		if (one.n == 0)
			continue;
		/* A module's name, or with '-' as its file is called. */
		if (one.n > KMOD_NAME_MAX || av_str_copy(name, sizeof(name) - 3, one) < 0)
			return av_err_set(err, AV_ERR_INVALID,
			    "module %s depends on something with a wrong name", m->name);
		memcpy(name + one.n, ".ko", 4);
		parse_file_name(name, &file);
		needed = find(k, file.name);
		if (!needed && is_builtin(k, file.name))
			continue;
		if (!needed)
			return av_err_set(err, AV_ERR_INVALID,
			    "module %s depends on %s, which the kernel does not have", m->name,
			    file.name);
		if ((r = load(k, needed, err)) < 0)
			return r;
	}
	return 0;
}

static int load(struct kmods *k, struct kmod *m, struct av_err *err)
{
	AV_CLEANUP(av_buf_clear) struct av_buf image = AV_BUF_INIT(KMOD_IMAGE_MAX);
	struct av_str depends;
	int r;

	if (m->state == KMOD_LOADED)
		return 0;
	if (m->state == KMOD_LOADING)
		return av_err_set(
		    err, AV_ERR_INVALID, "module %s depends on itself, in a circle", m->name);
	m->state = KMOD_LOADING;
	if ((r = read_image(k, m, &image, err)) < 0)
		return r;
	if ((r = kmod_info(av_buf_str(&image), "depends", &depends, err)) < 0) {
		av_err_prefix(err, "module %s", m->path);
		return r;
	}
	if ((r = load_dependencies(k, m, depends, err)) < 0)
		return r;
	if (k->n_loaded == LOADED_MAX)
		return av_err_set(err, AV_ERR_TOO_LARGE,
		    "a guest would need more than %d modules of this kernel", LOADED_MAX);
	k->loaded[k->n_loaded].name = m->name;
	k->loaded[k->n_loaded].image = image;
	k->n_loaded++;
	av_buf_init(&image, 1);
	m->state = KMOD_LOADED;
	return 0;
}

int kmods_want(struct kmods *k, const char *name, bool required, struct av_err *err)
{
	struct kmod *m = find(k, name);

	if (m)
		return load(k, m, err);
	if (!required || is_builtin(k, name))
		return 0;
	return av_err_set(err, AV_ERR_NOT_FOUND,
	    "the kernel has no module %s, which a guest cannot do without; "
	    "linux-image-cloud-amd64 of Debian has all that is needed",
	    name);
}

size_t kmods_count(const struct kmods *k)
{
	return k->n_loaded;
}

const char *kmods_name(const struct kmods *k, size_t i)
{
	return k->loaded[i].name;
}

struct av_str kmods_image(const struct kmods *k, size_t i)
{
	return av_buf_str(&k->loaded[i].image);
}
