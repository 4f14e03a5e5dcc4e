/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_probe.c - versions and overlay paths; and that every fact of this machine is complete
 */
#include "lib/tap.h"

#include <errno.h>
#include <unistd.h>

#include "base/avtime.h"
#include "spawn/probe.h"
#include "spawn/vm_host.h"

static void versions(void)
{
	unsigned a = 0, b = 0;
	is_int(probe_parse_release("6.1.0-18-cloud-amd64", &a, &b), 0, "Debian's");
	ok(a == 6 && b == 1, "6.1");
	is_int(probe_parse_release("5.15-rc1", &a, &b), 0, "no third number");
	ok(a == 5 && b == 15, "5.15");
	is_int(probe_parse_release("6", &a, &b), -EINVAL, "one number");
	is_int(probe_parse_release("x.1", &a, &b), -EINVAL, "not a number");
	is_int(probe_parse_release("", &a, &b), -EINVAL, "nothing");
	ok(a == 5 && b == 15, "outputs are left alone on failure");
	is_int(probe_overlay_for(6, 13, true), PROBE_OVERLAY_FD, "6.13");
	is_int(probe_overlay_for(6, 12, true), PROBE_OVERLAY_PATH, "6.12");
	is_int(probe_overlay_for(5, 19, true), PROBE_OVERLAY_PATH, "5.19");
	is_int(probe_overlay_for(5, 15, true), PROBE_OVERLAY_SHARED, "5.15");
	is_int(probe_overlay_for(5, 15, false), PROBE_OVERLAY_USERXATTR, "rootless");
	is_int(probe_overlay_for(5, 10, false), PROBE_OVERLAY_NONE, "rootless before 5.11");
	is_str(probe_state_name(PROBE_WEAK), "weak", "state name");
}

static void processors(void)
{
	is_int(vm_host_cpu_of("processor\t: 0\nflags\t\t: fpu svm lm\nbugs: vmx\n"),
	    VM_HOST_CPU_AMD, "svm");
	is_int(vm_host_cpu_of("flags\t: vmx"), VM_HOST_CPU_INTEL, "vmx, the last word of all");
	is_int(vm_host_cpu_of("flags\t: fpu vmx_x\nflags\t: svm\n"), VM_HOST_CPU_NONE,
	    "neither, by the first processor");
	is_int(vm_host_cpu_of("Features: fp\n"), VM_HOST_CPU_UNKNOWN, "another architecture");
	is_int(vm_host_cpu_of(""), VM_HOST_CPU_UNKNOWN, "nothing");
	static const int errors[] = {-ENOENT, -ENODEV, -EACCES, -EPERM};
	for (size_t i = 0; i < AV_ARRAY_LEN(errors); i++)
		ok(vm_host_kvm_cure(errors[i], VM_HOST_CPU_NONE)[0], "error %d has a cure",
		    errors[i]);
}

int main(void)
{
	static struct probe p;
	static const char *const always[] = {"kernel", "privilege", "userns", "overlay", "cgroup",
	    "limit_memory", "disk_limit", "kvm", "vm_programs", "vm_memory", "tun", "proc",
	    "seccomp"};
	(void)alarm(40);
	versions();
	processors();
	int64_t t0 = av_mono_ns();
	probe_run(&p, "/nonexistent/state");
	diag("probed in %.1f ms", (double)(av_mono_ns() - t0) / 1e6);
	for (size_t i = 0; i < AV_ARRAY_LEN(always); i++)
		ok(probe_find(&p, always[i]) != NULL, "fact %s", always[i]);
	ok(probe_find(&p, "nothing") == NULL, "no such fact");
	for (size_t i = 0; i < p.n; i++) {
		const struct probe_fact *f = &p.fact[i];
		diag("%-14s %-7s %s | %s | %s", f->name, probe_state_name(f->state), f->found,
		    f->reason, f->cure);
		ok(f->found[0] != 0 && (f->state == PROBE_OK) == (f->reason[0] == 0),
		    "%s: found, and a reason exactly when it is not ok", f->name);
		is_str(f->name, probe_find(&p, f->name)->name, "named once");
	}
	return tap_done();
}
