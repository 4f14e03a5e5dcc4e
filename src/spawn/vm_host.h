/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vm_host.h - what virtual machines need of the host: programs of Debian's packages, /dev/kvm
 *
 * For the worker and for `aviary doctor`, so that both say the same. Blocking, any thread.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <sys/stat.h>

#include "base/macros.h"

#define VM_REASON_SIZE 200

/* A program that runs in the jail of a virtual machine. */
struct vm_host_program {
	const char *names[2]; /* either will do */
	const char *package;  /* of Debian */
	bool shapes;          /* another one makes other images and cannot read saves */
};
#define VM_HOST_PROGRAMS 3
extern const struct vm_host_program vm_host_programs[VM_HOST_PROGRAMS];

/* Whether it is there and may be executed; *ret is its file then. */
bool vm_host_find(const struct vm_host_program *h, struct stat *ret);
/* The packages of those that are not, with a space between; "" when none is missing. Cut to size.
 */
void vm_host_missing(char *dst, size_t size);

/* How the flags of the processors speak of hardware virtualisation. */
enum vm_host_cpu {
	VM_HOST_CPU_NONE,
	VM_HOST_CPU_INTEL, /* vmx */
	VM_HOST_CPU_AMD,   /* svm */
	VM_HOST_CPU_UNKNOWN,
};
/* Of text as in /proc/cpuinfo: its first line of flags. Pure. */
enum vm_host_cpu vm_host_cpu_of(const char *cpuinfo);
/* Of this machine. */
enum vm_host_cpu vm_host_cpu(void);

/* A description of /dev/kvm of the caller's own; with try only when it makes a machine (empty, some
 * milliseconds). -errno, with reason and cure in a sentence or two. That it runs a guest's kernel
 * only a guest can tell. */
int vm_host_open_kvm(bool try, int *ret_fd, char reason[static VM_REASON_SIZE]) AV_MUST_CHECK;
/* What to type or change when that failed with r; "" when nothing is known. */
const char *vm_host_kvm_cure(int r, enum vm_host_cpu cpu);

/* Yama's ptrace_scope: 0 and 1 let aviary-vm read the memory of QEMU, its child; 2 and 3 refuse it.
 * -1 where there is no Yama. */
int vm_host_ptrace_scope(void);
