/* SPDX-License-Identifier: Apache-2.0 */
/*
 * probe_vm.c - what virtual machines need of this machine
 *
 * Nothing is booted here: hosts are known whose KVM runs some instructions and no kernel, so only
 * a guest's kernel shows that it works. The daemon's first machine is that trial, and doctor asks
 * it.
 */
#include "spawn/probe_internal.h"

#include "base/fd.h"
#include "spawn/vm_host.h"
#include "base/banned.h"

static void kvm(struct probe *p)
{
	char reason[VM_REASON_SIZE];
	AV_CLEANUP(av_closep) int fd = -1;
	int r = vm_host_open_kvm(true, &fd, reason);
	struct probe_fact *f;

	p->kvm = r == 0;
	f = probe_add(p, "kvm", "KVM", p->kvm ? PROBE_OK : PROBE_MISSING);
	if (p->kvm) {
		PROBE_FOUND(f, "/dev/kvm opens; a guest's kernel shows whether it works");
		return;
	}
	PROBE_FOUND(f, "%s", reason);
	PROBE_REASON(f, "virtual machines are emulated: 10 to 30 times slower");
	PROBE_CURE(f, "%s", vm_host_kvm_cure(r, vm_host_cpu()));
}

static void programs(struct probe *p)
{
	char missing[100];
	struct probe_fact *f;

	vm_host_missing(missing, sizeof(missing));
	f = probe_add(p, "vm_programs", "programs for vm", missing[0] ? PROBE_MISSING : PROBE_OK);
#if !defined(__x86_64__)
	f->state = PROBE_MISSING;
	PROBE_FOUND(f, "for x86-64 only");
	PROBE_REASON(f, "no virtual machines (isolation vm)");
	return;
#endif
	PROBE_FOUND(f, missing[0] ? "not installed: %s" : "QEMU, mkfs.erofs, mke2fs%.0s", missing);
	if (!missing[0])
		return;
	PROBE_REASON(f, "no virtual machines (isolation vm)");
	PROBE_CURE(f, "sudo apt-get install --no-install-recommends %s", missing);
}

static void memory(struct probe *p)
{
	int scope = vm_host_ptrace_scope();
	struct probe_fact *f =
	    probe_add(p, "vm_memory", "memory of vm", scope >= 2 ? PROBE_WEAK : PROBE_OK);

	if (scope < 0)
		PROBE_FOUND(f, "can be saved (no Yama)");
	else
		PROBE_FOUND(f, "%s (kernel.yama.ptrace_scope is %d)",
		    scope >= 2 ? "cannot be saved" : "can be saved", scope);
	if (scope < 2)
		return;
	PROBE_REASON(f, "virtual machines run, and cannot be paused, forked or snapshotted: "
	                "the kernel does not let aviary-vm read the memory of QEMU, its child");
	PROBE_CURE(f, "%s",
	    scope == 2
	        ? "sudo sysctl kernel.yama.ptrace_scope=1"
	        : "kernel.yama.ptrace_scope=1 in /etc/sysctl.d, then boot: 3 stays until then");
}

void probe_vm(struct probe *p)
{
	kvm(p);
	programs(p);
	memory(p);
}
