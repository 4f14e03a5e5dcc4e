/* SPDX-License-Identifier: Apache-2.0 */
/*
 * initrd.c - the first file system of a guest: the agent, and the modules that it loads
 */
#include "vm/initrd.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/fd.h"
#include "base/path.h"
#include "vm/kmod.h"

#include "base/banned.h"

#define AGENT_MAX      ((size_t)64 * 1024 * 1024)
#define KERNEL_MAX     ((off_t)256 * 1024 * 1024)
#define LIST_MAX       ((size_t)64 * 1024)
#define COPY_BYTES     ((size_t)256 * 1024)
#define CPIO_ALIGN     4
#define CPIO_HEAD_SIZE 110

/* In this order, each with what it depends on before it. What is not required is taken where the
 * kernel has it. */
static const struct {
	const char *name;
	bool required;
} wanted[] = {
    {"virtio_pci", true},
    {"virtio_console", true},
    {"virtio_blk", true},
    {"crc32c_intel", false}, /* checksums of ext4, before something picks a slower one */
    {"erofs", true},
    {"ext4", true},
    {"overlay", true},
    {"virtio_net", false},
    {"virtio_balloon", false}, /* gives free memory back */
    {"vmgenid", false},        /* new random numbers at once after a restore */
    {"pvpanic_mmio", false},   /* tells of a panic */
    {"pvpanic_pci", false},
};

/* --- what a kernel consists of --- */

static bool is_release(const char *name)
{
	size_t n = strlen(name);

	return n > 0 && n < INITRD_RELEASE_SIZE && name[0] != '.' &&
	       strspn(name,
	           "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-+_~") == n;
}

static void close_dir(DIR **pp)
{
	if (*pp)
		closedir(*pp);
}

/* Adds the releases of one directory to *n; the last of them is in ret. */
static int list_releases(
    int kernel_fd, const char *path, char ret[static INITRD_RELEASE_SIZE], size_t *n)
{
	AV_CLEANUP(close_dir) DIR *dir = NULL;
	int fd = kmod_open_below(kernel_fd, path, O_RDONLY | O_DIRECTORY);
	struct dirent *e;

	if (fd < 0)
		return fd == -ENOENT ? 0 : fd;
	dir = fdopendir(fd);
	if (!dir) {
		int r = -errno;

		close(fd);
		return r;
	}
	while (errno = 0, (e = readdir(dir))) {
		if (!is_release(e->d_name))
			continue;
		(*n)++;
		if (av_str_copy(ret, INITRD_RELEASE_SIZE, av_str_c(e->d_name)) < 0)
			return -EINVAL;
	}
	return -errno;
}

int initrd_kernel_release(int kernel_fd, char ret[static INITRD_RELEASE_SIZE], struct av_err *err)
{
	char release[INITRD_RELEASE_SIZE] = "";
	size_t n = 0;
	int r = list_releases(kernel_fd, "lib/modules", release, &n);

	if (r == 0 && n == 0)
		r = list_releases(kernel_fd, "usr/lib/modules", release, &n);
	if (r < 0)
		return av_err_sys(
		    err, AV_ERR_INVALID, r, "cannot read lib/modules of the guest's kernel");
	if (n == 0)
		return av_err_set(err, AV_ERR_NOT_FOUND,
		    "no guest kernel: lib/modules holds none (template vm-kernel: build it again)");
	if (n > 1)
		return av_err_set(err, AV_ERR_INVALID,
		    "%zu guest kernels in lib/modules, where one is allowed", n);
	memcpy(ret, release, sizeof(release));
	return 0;
}

int initrd_kernel_open(int kernel_fd, const char *release, int *ret_fd, struct av_err *err)
{
	AV_CLEANUP(av_closep) int fd = -1;
	char path[AV_PATH_MAX + 1];
	struct stat st;

	if (!is_release(release))
		return av_err_set(
		    err, AV_ERR_INVALID, "'%.64s' is not the release of a kernel", release);
	if (av_path_printf(path, sizeof(path), "boot/vmlinuz-%s", release) < 0)
		return av_err_set(err, AV_ERR_INVALID, "the kernel's release is too long");
	fd = kmod_open_below(kernel_fd, path, O_RDONLY);
	if (fd < 0)
		return av_err_sys(err, fd == -ENOENT ? AV_ERR_NOT_FOUND : AV_ERR_INVALID, fd,
		    "cannot open %s of the guest's kernel", path);
	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || st.st_size > KERNEL_MAX)
		return av_err_set(err, AV_ERR_INVALID,
		    "%s of the guest's kernel is no regular file of at most %lld MiB", path,
		    (long long)(KERNEL_MAX >> 20));
	*ret_fd = AV_TAKE_FD(fd);
	return 0;
}

/* --- cpio, format "newc" of cpio(5) --- */

struct cpio {
	int fd;
	uint32_t inode;
	uint64_t bytes;
	int error; /* 0 or the first -errno */
};

static void cpio_write(struct cpio *c, const void *p, size_t n)
{
	if (c->error == 0)
		c->error = av_write_full(c->fd, p, n);
	c->bytes += n;
}

static void cpio_pad(struct cpio *c)
{
	static const char zeros[CPIO_ALIGN];

	cpio_write(c, zeros, (CPIO_ALIGN - c->bytes % CPIO_ALIGN) % CPIO_ALIGN);
}

static void cpio_head(struct cpio *c, const char *name, mode_t mode, size_t size)
{
	char head[CPIO_HEAD_SIZE + 1];
	size_t name_size = strlen(name) + 1;

	/* magic, inode, mode, uid, gid, links, time, size, device, special device, name, sum */
	snprintf(head, sizeof(head), "070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X",
	    ++c->inode, (unsigned int)mode, 0U, 0U, 1U, 0U, (unsigned int)size, 0U, 0U, 0U, 0U,
	    (unsigned int)name_size, 0U);
	cpio_write(c, head, CPIO_HEAD_SIZE);
	cpio_write(c, name, name_size);
	cpio_pad(c);
}

static void cpio_file(struct cpio *c, const char *name, mode_t mode, struct av_str content)
{
	cpio_head(c, name, S_IFREG | mode, content.n);
	cpio_write(c, content.p, content.n);
	cpio_pad(c);
}

static void cpio_dir(struct cpio *c, const char *name)
{
	cpio_head(c, name, S_IFDIR | 0755, 0);
}

/* --- the archive --- */

static int write_agent(struct cpio *c, int agent_fd, struct av_err *err)
{
	static char chunk[COPY_BYTES];
	struct stat st;
	off_t at = 0;

	if (fstat(agent_fd, &st) < 0)
		return av_err_sys(err, AV_ERR_INTERNAL, errno, "cannot look at the agent's binary");
	if (!S_ISREG(st.st_mode) || st.st_size <= 0 || (size_t)st.st_size > AGENT_MAX)
		return av_err_set(err, AV_ERR_INVALID,
		    "the agent's binary is no regular file of 1 byte to %zu MiB", AGENT_MAX >> 20);
	cpio_head(c, "init", S_IFREG | 0755, (size_t)st.st_size);
	while (at < st.st_size) {
		ssize_t n =
		    pread(agent_fd, chunk, AV_MIN(sizeof(chunk), (size_t)(st.st_size - at)), at);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return av_err_sys(err, AV_ERR_INTERNAL, n < 0 ? errno : EIO,
			    "cannot read the agent's binary");
		cpio_write(c, chunk, (size_t)n);
		at += n;
	}
	cpio_pad(c);
	return 0;
}

static int write_modules(struct cpio *c, const struct kmods *k, struct av_err *err)
{
	AV_CLEANUP(av_buf_clear) struct av_buf list = AV_BUF_INIT(LIST_MAX);
	char name[KMOD_NAME_MAX + 16];

	for (size_t i = 0; i < kmods_count(k); i++) {
		av_buf_printf(&list, "%s\n", kmods_name(k, i));
		snprintf(name, sizeof(name), "modules/%s", kmods_name(k, i));
		cpio_file(c, name, 0600, kmods_image(k, i));
	}
	if (av_buf_error(&list) < 0)
		return av_err_set(err, AV_ERR_NO_MEMORY, "out of memory for the list of modules");
	cpio_file(c, "modules/list", 0600, av_buf_str(&list));
	return 0;
}

int initrd_write(
    int out_fd, int agent_fd, int kernel_fd, struct initrd_info *ret, struct av_err *err)
{
	static const char *const dirs[] = {"dev", "modules", "proc", "root", "sys"};
	AV_CLEANUP(kmods_free) struct kmods *k = NULL;
	struct cpio c = {.fd = out_fd};
	struct initrd_info info = {0};
	int r;

	if ((r = initrd_kernel_release(kernel_fd, info.release, err)) < 0 ||
	    (r = kmods_open(kernel_fd, info.release, &k, err)) < 0)
		return r;
	for (size_t i = 0; i < AV_ARRAY_LEN(wanted); i++)
		if ((r = kmods_want(k, wanted[i].name, wanted[i].required, err)) < 0)
			return r;
	for (size_t i = 0; i < AV_ARRAY_LEN(dirs); i++)
		cpio_dir(&c, dirs[i]);
	if ((r = write_agent(&c, agent_fd, err)) < 0 || (r = write_modules(&c, k, err)) < 0)
		return r;
	cpio_head(&c, "TRAILER!!!", 0, 0);
	if (c.error < 0)
		return av_err_sys(
		    err, AV_ERR_INTERNAL, c.error, "cannot write the guest's first file system");
	info.modules = kmods_count(k);
	info.bytes = c.bytes;
	if (ret)
		*ret = info;
	return 0;
}
