/* SPDX-License-Identifier: Apache-2.0 */
/*
 * t53_layers.c - T53: from the place of a QEMU, at what its machine shares with others
 *
 * The files below /vm that it finds are those of a golden snapshot, whose pages all machines of it
 * share. Whatever is written must end up in a copy of its own; t53_vm_jail.c looks at the layer and
 * at a bystander afterwards.
 */
#include <linux/fs.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/xattr.h>

#include "attack.h"

#define MEMORY "/vm/saves/1/memory"
#define PAGE   4096

static char evil[PAGE];

static void test_without_a_copy(void)
{
	char again[64];
	int fd = open(MEMORY, O_RDONLY | O_CLOEXEC);
	ok(fd >= 0, "the memory of the golden snapshot can be read");
	refused(pwrite(fd, evil, sizeof(evil), 0), "writing by a descriptor for reading");
	refused(ftruncate(fd, 0), "cutting it off");
	refused(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, PAGE), "a hole in it");
	void *p = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	ok(p == MAP_FAILED, "mapping it shared and writable is refused");
	p = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, fd, 0);
	ok(p != MAP_FAILED, "mapping it shared for reading");
	refused(mprotect(p, PAGE, PROT_READ | PROT_WRITE), "making that writable");
	refused(madvise(p, PAGE, MADV_REMOVE), "punching through that");
	munmap(p, PAGE);
	p = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
	ok(p != MAP_FAILED, "mapping it privately, as QEMU does");
	memcpy(p, evil, PAGE);
	munmap(p, PAGE);
	/* This opens the overlay's file for writing, which copies it up; fd stays at the layer's.
	 */
	(void)snprintf(again, sizeof(again), "/proc/self/fd/%d", fd);
	int writer = open(again, O_RDWR | O_CLOEXEC);
	if (writer >= 0) {
		ok(pwrite(writer, evil, sizeof(evil), 0) == PAGE, "written through its link");
		close(writer);
	}
	close(fd);
}

static void test_with_a_copy(void)
{
	static const char *const files[] = {MEMORY, "/vm/image/kernel", "/vm/current"};
	for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
		int fd = open(files[i], O_RDWR | O_CLOEXEC);
		ok(fd >= 0 && pwrite(fd, evil, sizeof(evil), 0) == PAGE, "%s: a copy of its own",
		    files[i]);
		void *p = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
		if (p != MAP_FAILED) {
			memset(p, 'E', PAGE);
			munmap(p, PAGE);
		}
		close(fd);
	}
	int from = open("/vm/image/kernel", O_RDONLY | O_CLOEXEC);
	int to = open("/vm/image/initrd", O_RDWR | O_CLOEXEC);
	if (ioctl(to, FICLONE, from) < 0)
		printf("# FICLONE: %s\n", strerror(errno));
	close(from);
	close(to);
	if (!attack_seccomp_off_)
		refused(setxattr("/vm/image/kernel", "trusted.overlay.opaque", "y", 1, 0),
		    "a mark of overlayfs");
	refused(setxattr("/vm", "trusted.overlay.redirect", "/", 1, 0), "a redirect of overlayfs");
	ok(unlink("/vm/image/initrd") == 0 && rename("/vm/image/kernel", "/vm/image/k2") == 0,
	    "names go, for itself");
}

static void test_others(void)
{
	struct stat st;
	static const char *const paths[] = {"/run/aviary", "/var/lib/aviary/sandboxes",
	    "/run/spawn.sock", "/template", "/kernel", "/dev/kvm", "/dev/vhost-net",
	    "/dev/vhost-vsock", "/dev/userfaultfd", "/sys/kernel", "/sys/class", "/root/.ssh"};
	for (size_t i = 0; i < sizeof(paths) / sizeof(paths[0]); i++)
		refused(lstat(paths[i], &st), paths[i]);
	char link[256];
	/* Yama and the mode of the program: aviary-vm reads QEMU's memory and not the reverse. */
	refused(readlink("/proc/1/exe", link, sizeof(link)), "the program of aviary-vm");
	cannot_open("/proc/1/mem", O_RDWR);
	cannot_open("/proc/1/pagemap", O_RDONLY);
}

int main(int argc, char **argv)
{
	attack_init(argc, argv);
	memset(evil, 'E', sizeof(evil));
	test_without_a_copy();
	test_with_a_copy();
	test_others();
	return tap_done();
}
