/* SPDX-License-Identifier: Apache-2.0 */
/*
 * seccomp.c - loads the filters that gen_seccomp.c made
 */
#include "spawn/seccomp.h"

#include <errno.h>
#include <linux/seccomp.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "spawn/seccomp_filter.h"
#include "base/banned.h"

static_assert(sizeof(filter) / sizeof(filter[0]) <= 4096, "BPF_MAXINSNS");
static_assert(sizeof(vm_filter) / sizeof(vm_filter[0]) <= 4096, "BPF_MAXINSNS");

static int load(const struct sock_filter *insn, size_t n)
{
	struct sock_fprog prog = {
	    .len = (unsigned short)n,
	    /* The kernel only reads; its structure has no const. */
	    .filter = (struct sock_filter *)(uintptr_t)insn,
	};
	/* Not SECCOMP_FILTER_FLAG_SPEC_ALLOW: which mitigations apply is the machine's choice. */
	if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &prog) != 0)
		return -errno;
	return 0;
}

int seccomp_filter_load(void)
{
	return load(filter, sizeof(filter) / sizeof(filter[0]));
}

int seccomp_vm_filter_load(void)
{
	return load(vm_filter, sizeof(vm_filter) / sizeof(vm_filter[0]));
}

const struct sock_filter *seccomp_filter(size_t *ret_len)
{
	*ret_len = sizeof(filter) / sizeof(filter[0]);
	return filter;
}
