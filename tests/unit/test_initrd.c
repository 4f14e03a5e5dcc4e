/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_initrd.c - the guest's first file system of a made-up kernel: modules in order, whole and
 * nothing else; kernels that lie about themselves give an error that names the module
 */
#include "vm/initrd.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/num.h"
#include "base/path.h"
#include "lib/tap.h"
#include "vm/kmod.h"
#include "base/banned.h"

#define RELEASE "6.1.0-9-test"

static char top[] = "/tmp/aviary-initrd-XXXXXX";

static int sh(const char *script)
{
	pid_t pid = fork();
	int status = -1;

	if (pid == 0) {
		if (chdir(top) < 0)
			_exit(126);
		execl("/bin/sh", "sh", "-ec", script, (char *)NULL);
		_exit(127);
	}
	waitpid(pid, &status, 0);
	return status;
}

/* --- modules --- */

struct image {
	Elf64_Ehdr head;
	Elf64_Shdr sections[3]; /* none, names, .modinfo */
	char names[32];
	char info[256];
};

static struct image make_image(const char *info, size_t n)
{
	static const char names[] = "\0.names\0.modinfo";
	struct image m = {0};

	memcpy(m.head.e_ident, ELFMAG, SELFMAG);
	m.head.e_ident[EI_CLASS] = ELFCLASS64;
	m.head.e_ident[EI_DATA] = ELFDATA2LSB;
	m.head.e_type = ET_REL;
	m.head.e_shoff = offsetof(struct image, sections);
	m.head.e_shentsize = sizeof(Elf64_Shdr);
	m.head.e_shnum = 3;
	m.head.e_shstrndx = 1;
	m.sections[1] = (Elf64_Shdr){.sh_name = 1,
	    .sh_type = SHT_STRTAB,
	    .sh_offset = offsetof(struct image, names),
	    .sh_size = sizeof(names)};
	m.sections[2] = (Elf64_Shdr){.sh_name = 8,
	    .sh_type = SHT_PROGBITS,
	    .sh_offset = offsetof(struct image, info),
	    .sh_size = n};
	memcpy(m.names, names, sizeof(names));
	memcpy(m.info, info, n);
	return m;
}

static void put_file(const char *path, const void *p, size_t n)
{
	char full[256];
	int fd;

	if (av_path_printf(full, sizeof(full), "%s/%s", top, path) < 0)
		abort();
	fd = open(full, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	if (fd < 0 || av_write_full(fd, p, n) < 0)
		abort();
	close(fd);
}

/* file: below kernel/ */
static void put_module(const char *file, const char *depends)
{
	char info[256] = "license=GPL", path[256];
	struct image m;
	size_t n = strlen(info) + 1;

	n += (size_t)snprintf(info + n, sizeof(info) - n, "depends=%s", depends) + 1;
	m = make_image(info, n);
	if (av_path_printf(path, sizeof(path), "k/lib/modules/" RELEASE "/kernel/%s", file) < 0)
		abort();
	put_file(path, &m, sizeof(m));
}

static void make_kernel(void)
{
	ok(sh("rm -rf k; mkdir -p k/boot k/lib/modules/" RELEASE "/kernel/fs/ext4; "
	      "echo kernel >k/boot/vmlinuz-" RELEASE "; echo agent >agent; "
	      "echo kernel/fs/jbd2.ko >k/lib/modules/" RELEASE "/modules.builtin") == 0,
	    "a kernel is made");
	put_module("virtio_ring.ko", "");
	put_module("virtio.ko", "virtio_ring");
	put_module("virtio-pci.ko", "virtio_ring,virtio-pci-modern,virtio");
	put_module("virtio_pci_modern.ko", "");
	put_module("virtio_console.ko", "virtio");
	put_module("virtio_blk.ko", "virtio");
	put_module("erofs.ko", "libcrc32c");
	put_module("libcrc32c.ko", "");
	put_module("fs/ext4/ext4.ko", "jbd2,libcrc32c");
	put_module("overlay.ko", "");
	put_module("unwanted.ko", "");
}

/* --- the archive --- */

static char archive[4 << 20];
static size_t archive_n;

static int write_initrd(struct initrd_info *info, struct av_err *err)
{
	char path[256];
	int out = memfd_create("initrd", MFD_CLOEXEC), agent, kernel, r;
	ssize_t n;

	if (av_path_printf(path, sizeof(path), "%s/agent", top) < 0)
		abort();
	agent = open(path, O_RDONLY | O_CLOEXEC);
	if (av_path_printf(path, sizeof(path), "%s/k", top) < 0)
		abort();
	kernel = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	r = initrd_write(out, agent, kernel, info, err);
	n = pread(out, archive, sizeof(archive), 0);
	archive_n = n > 0 ? (size_t)n : 0;
	close(out);
	close(agent);
	close(kernel);
	return r;
}

static uint64_t hex(const char *p)
{
	uint64_t v = UINT64_MAX;

	if (av_parse_hex_u64(av_str_n(p, 8), UINT32_MAX, &v) < 0)
		ok(false, "a number in a head of the archive");
	return v;
}

/* The content of a member, or NULL; *modes gets its mode. */
static const char *member(const char *name, size_t *ret_n, unsigned int *ret_mode)
{
	for (size_t at = 0; at + 110 <= archive_n;) {
		size_t size = hex(archive + at + 54), name_n = hex(archive + at + 94);
		const char *head = archive + at, *found = head + 110;

		if (memcmp(head, "070701", 6) != 0 || strcmp(found, "TRAILER!!!") == 0)
			return NULL;
		at += (110 + name_n + 3) / 4 * 4;
		if (strcmp(found, name) == 0) {
			*ret_n = size;
			*ret_mode = (unsigned int)hex(head + 14);
			return archive + at;
		}
		at += (size + 3) / 4 * 4;
	}
	return NULL;
}

static void test_whole(void)
{
	struct initrd_info info = {0};
	struct av_err err = {0};
	unsigned int mode = 0;
	size_t n = 0;
	const char *p;

	make_kernel();
	is_int(write_initrd(&info, &err), 0, "an archive is written");
	is_str(info.release, RELEASE, "of the only release");
	is_int((long long)info.modules, 10, "with what is needed and no more");
	is_int((long long)info.bytes, (long long)archive_n, "and says its size");
	p = member("init", &n, &mode);
	ok(p && n == 6 && memcmp(p, "agent\n", 6) == 0, "init is the agent");
	is_int(mode, S_IFREG | 0755, "and may be executed");
	p = member("modules/list", &n, &mode);
	tap_str_(av_str_n(p, n),
	    AV_STR(
	        "virtio_ring\nvirtio_pci_modern\nvirtio\nvirtio_pci\nvirtio_console\nvirtio_blk\n"
	        "libcrc32c\nerofs\next4\noverlay\n"),
	    "modules in an order in which they can be loaded", __FILE__, __LINE__);
	p = member("modules/virtio_pci", &n, &mode);
	ok(p && n == sizeof(struct image) && memcmp(p, ELFMAG, SELFMAG) == 0, "a module is whole");
	ok(member("dev", &n, &mode) && mode == (S_IFDIR | 0755), "a directory to mount on");
	ok(!member("modules/unwanted", &n, &mode), "nothing else is there");
}

static void test_compressed(void)
{
	struct initrd_info info = {0};
	struct av_err err = {0};
	unsigned int mode;
	const char *p;
	size_t n = 0;

	make_kernel();
	ok(sh("cd k/lib/modules/*/kernel; gzip overlay.ko; xz erofs.ko; ! type zstd >/dev/null || "
	      "zstd -q --rm virtio.ko") == 0,
	    "modules are compressed");
	is_int(write_initrd(&info, &err), 0, "an archive is written");
	p = member("modules/erofs", &n, &mode);
	ok(p && n == sizeof(struct image) && memcmp(p, ELFMAG, SELFMAG) == 0, "xz is unpacked");
	p = member("modules/overlay", &n, &mode);
	ok(p && n == sizeof(struct image) && memcmp(p, ELFMAG, SELFMAG) == 0, "gzip is unpacked");
	ok(sh("cd k/lib/modules/*/kernel; echo nonsense >overlay.ko.gz") == 0, "one is damaged");
	is_int(write_initrd(&info, &err), -EINVAL, "which is an error");
	ok(strstr(err.message, "overlay"), "that names it: %s", err.message);
	ok(sh("cd k/lib/modules/*/kernel; head -c 20000000 /dev/zero | gzip >overlay.ko.gz") == 0,
	    "one is a bomb");
	is_int(write_initrd(&info, &err), -EMSGSIZE, "which is an error");
	ok(strstr(err.message, "overlay"), "that names it: %s", err.message);
}

static void expect_error(int want, const char *part, const char *what)
{
	struct initrd_info info = {0};
	struct av_err err = {0};

	is_int(write_initrd(&info, &err), want, what);
	ok(strstr(err.message, part), "and is said: %s", err.message);
}

static void test_wrong_kernels(void)
{
	make_kernel();
	sh("rm k/lib/modules/*/kernel/overlay.ko");
	expect_error(-ENOENT, "overlay", "a module is missing");
	sh("echo kernel/fs/overlay.ko >>k/lib/modules/" RELEASE "/modules.builtin");
	struct initrd_info info = {0};
	is_int(write_initrd(&info, NULL), 0, "not if it is a part of the kernel");
	put_module("virtio_ring.ko", "virtio_blk");
	expect_error(-EINVAL, "circle", "a circle of dependencies");
	put_module("virtio_ring.ko", "nowhere");
	expect_error(-EINVAL, "nowhere", "a dependency that is not there");
	put_module("virtio_ring.ko", "../../../agent");
	expect_error(-EINVAL, "../agent", "a dependency that is no name");
	make_kernel();
	sh("cd k/lib/modules/*/kernel; cp overlay.ko ../../../../../out.ko; rm overlay.ko; "
	   "ln -s ../../../../../out.ko overlay.ko");
	expect_error(-EINVAL, "overlay", "a module that is a link out of the tree");
	make_kernel();
	sh("cd k/lib/modules/*/kernel; rm overlay.ko; mkfifo overlay.ko");
	expect_error(-EINVAL, "overlay", "a module that is a pipe");
	make_kernel();
	sh("mkdir k/lib/modules/6.2");
	expect_error(-EINVAL, "2 guest kernels", "two kernels");
	sh("rm -r k/lib/modules; ln -s /lib/modules k/lib/modules");
	expect_error(-EINVAL, "cannot read", "modules are a link out of the tree");
	sh("rm -r k/lib; mkdir -p k/usr/lib/modules/6.3; ln -s usr/lib k/lib");
	expect_error(-ENOENT, "6.3", "a link within the tree is followed");
}

/* Every place of the file that is looked at is changed, one after the other. */
static void test_hostile_elf(void)
{
	static const char info[] = "depends=a,b\0name=x\0half=";
	struct image good = make_image(info, sizeof(info) - 1), bad;
	struct av_str image = av_str_n((const char *)&good, sizeof(good)), got;
	uint32_t seed = 12345;
	int refused = 0;

	is_int(kmod_info(image, "depends", &got, NULL), 0, "a module says something");
	tap_str_(got, AV_STR("a,b"), "namely this", __FILE__, __LINE__);
	is_int(kmod_info(image, "half", &got, NULL), 0, "the last value may lack its end");
	is_int((long long)got.n, 0, "and is what is there");
	is_int(kmod_info(image, "nam", &got, NULL), 0, "half a key");
	is_int((long long)got.n, 0, "is none");
	for (size_t n = 0; n < sizeof(good); n++) {
		/* On the heap, so that a sanitizer sees a read behind its end. */
		char *cut = av_mem_dup(&good, n ? n : 1);

		refused += kmod_info(av_str_n(cut, n), "depends", &got, NULL) < 0;
		free(cut);
	}
	ok(refused > 200, "files that are cut off are refused");
	for (int i = 0; i < 20000; i++) {
		bad = good;
		for (int j = 0; j < 3; j++) {
			seed = seed * 1664525 + 1013904223;
			((uint8_t *)&bad)[(seed >> 8) % offsetof(struct image, info)] =
			    (uint8_t)(seed >> 24);
		}
		if (kmod_info(av_str_n((const char *)&bad, sizeof(bad)), "depends", &got, NULL) ==
		        0 &&
		    got.n && (got.p < (char *)&bad || got.p + got.n > (char *)(&bad + 1)))
			ok(false, "what comes out lies in the file");
	}
	ok(true, "damaged files do no harm");
}

int main(void)
{
	if (!mkdtemp(top))
		return 1;
	test_whole();
	test_compressed();
	test_wrong_kernels();
	test_hostile_elf();
	sh("rm -rf \"$PWD\"");
	return tap_done();
}
