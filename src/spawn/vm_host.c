/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vm_host.c - programs for virtual machines, /dev/kvm, Yama (see vm_host.h)
 */
#include "spawn/vm_host.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/str.h"
#include "base/banned.h"

#define CPUINFO_MAX 16384 /* the first processor, and more */

const struct vm_host_program vm_host_programs[VM_HOST_PROGRAMS] = {
    {{"/usr/bin/qemu-system-x86_64", NULL}, "qemu-system-x86", true},
    {{"/usr/bin/mkfs.erofs", "/usr/sbin/mkfs.erofs"}, "erofs-utils", true},
    {{"/usr/sbin/mke2fs", "/sbin/mke2fs"}, "e2fsprogs", false},
};

bool vm_host_find(const struct vm_host_program *h, struct stat *ret)
{
	for (size_t i = 0; i < AV_ARRAY_LEN(h->names); i++)
		if (h->names[i] && stat(h->names[i], ret) == 0 && S_ISREG(ret->st_mode) &&
		    (ret->st_mode & 0111))
			return true;
	return false;
}

void vm_host_missing(char *dst, size_t size)
{
	struct stat st;
	size_t n = 0;

	dst[0] = '\0';
	for (size_t i = 0; i < VM_HOST_PROGRAMS && n < size; i++)
		if (!vm_host_find(&vm_host_programs[i], &st))
			n += (size_t)snprintf(
			    dst + n, size - n, "%s%s", n ? " " : "", vm_host_programs[i].package);
}

enum vm_host_cpu vm_host_cpu_of(const char *cpuinfo)
{
	struct av_str rest = av_str_c(cpuinfo), line, word;

	while (av_str_cut(&rest, '\n', &line) || line.n > 0) {
		if (line.n < 5 || memcmp(line.p, "flags", 5) != 0)
			continue;
		while (av_str_cut(&line, ' ', &word) || word.n > 0) {
			if (av_str_eq_c(word, "vmx"))
				return VM_HOST_CPU_INTEL;
			if (av_str_eq_c(word, "svm"))
				return VM_HOST_CPU_AMD;
		}
		return VM_HOST_CPU_NONE;
	}
	return VM_HOST_CPU_UNKNOWN;
}

enum vm_host_cpu vm_host_cpu(void)
{
	char text[CPUINFO_MAX];
	AV_CLEANUP(av_closep) int fd = open("/proc/cpuinfo", O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);

	if (n < 0)
		return VM_HOST_CPU_UNKNOWN;
	text[n] = '\0';
	return vm_host_cpu_of(text);
}

/* Some hosts hand on the device and refuse what makes it one. */
static int try_kvm(int fd)
{
	int version = ioctl(fd, KVM_GET_API_VERSION, 0);
	int machine;

	if (version < 0)
		return -errno;
	if (version != KVM_API_VERSION)
		return -EPROTO;
	machine = ioctl(fd, KVM_CREATE_VM, 0);
	if (machine < 0)
		return -errno;
	close(machine);
	return 0;
}

int vm_host_open_kvm(bool try, int *ret_fd, char reason[static VM_REASON_SIZE])
{
	/* A description of its own for each machine: nothing set on one is seen by another. */
	AV_CLEANUP(av_closep) int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	int r = fd < 0 ? -errno : try ? try_kvm(fd) : 0;
	reason[0] = '\0';
	if (r == 0)
		*ret_fd = AV_TAKE_FD(fd);
	else if (fd >= 0)
		(void)snprintf(reason, VM_REASON_SIZE, "/dev/kvm opens, and makes no machine: %s",
		    strerror(-r));
	else if (r == -ENOENT || r == -ENXIO || r == -ENODEV)
		(void)snprintf(reason, VM_REASON_SIZE,
		    "there is no /dev/kvm: this processor, or the machine that this one runs in, "
		    "offers no virtualisation, or the module kvm_intel or kvm_amd is not loaded");
	else if (r == -EACCES)
		(void)snprintf(reason, VM_REASON_SIZE,
		    "the user that runs Aviary may not open /dev/kvm: usermod -aG kvm that user, "
		    "then log in anew");
	else
		(void)snprintf(reason, VM_REASON_SIZE, "/dev/kvm cannot be opened: %s%s",
		    strerror(-r),
		    r == -EPERM ? " (the service or container must allow the device)" : "");
	return r;
}

const char *vm_host_kvm_cure(int r, enum vm_host_cpu cpu)
{
	if (r == -EACCES)
		return "sudo usermod -aG kvm $USER, then log in again";
	if (r == -EPERM)
		return "docker run --device /dev/kvm; in a systemd unit DeviceAllow=/dev/kvm rw";
	if (r != -ENOENT && r != -ENXIO && r != -ENODEV)
		return "";
	switch (cpu) {
	case VM_HOST_CPU_NONE:
		return "the processor shows neither vmx nor svm: switch virtualisation on in the "
		       "firmware, or, in a virtual machine or cloud, nested virtualisation in its "
		       "host or a type of machine that has it";
	case VM_HOST_CPU_INTEL:
		return "sudo modprobe kvm_intel; when it says 'not supported': switch "
		       "virtualisation (VT-x) on in the firmware; in a container: docker run "
		       "--device /dev/kvm";
	case VM_HOST_CPU_AMD:
		return "sudo modprobe kvm_amd; when it says 'not supported': switch "
		       "virtualisation (SVM) on in the firmware; in a container: docker run "
		       "--device /dev/kvm";
	default:
		return "enable virtualisation in the firmware or host";
	}
}

int vm_host_ptrace_scope(void)
{
	char text[16];
	ssize_t n =
	    av_read_file_at(AT_FDCWD, "/proc/sys/kernel/yama/ptrace_scope", text, sizeof(text));

	return n > 0 && text[0] >= '0' && text[0] <= '9' ? text[0] - '0' : -1;
}
