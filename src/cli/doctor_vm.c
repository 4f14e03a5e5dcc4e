/* SPDX-License-Identifier: Apache-2.0 */
/*
 * doctor_vm.c - what is known of virtual machines, from this machine's facts and a daemon's words
 *
 * That /dev/kvm opens says little: some hosts' KVM runs a few instructions and no kernel. The
 * trial is a daemon's first machine, which boots a real kernel with a time limit; so without a
 * daemon, or before its first machine, the answer is "not tried yet" and how to try.
 */
#include "cli/doctor_vm.h"

#include <stdio.h>
#include <string.h>

#include "base/banned.h"

#define SLOW "programs are 10 to 30 times slower than on this machine itself"

static const char *text_of(const json_t *o, const char *field)
{
	const char *s = json_string_value(json_object_get(o, field));

	return s ? s : "";
}

static const json_t *vm_of(const json_t *isolations)
{
	const json_t *o;
	size_t i;

	json_array_foreach (json_object_get(isolations, "isolations"), i, o)
		if (strcmp(text_of(o, "name"), "vm") == 0)
			return o;
	return NULL;
}

#define SAY(dst, ...) (void)snprintf(dst, sizeof(dst), __VA_ARGS__)

/* Nothing of the daemon's: only what can be seen from here. */
static void judge_alone(struct doctor_vm *d, const struct probe *p)
{
	const struct probe_fact *kvm = probe_find(p, "kvm");

	if (p->kvm) {
		d->speed = "unknown";
		SAY(d->found, "available; whether KVM runs a guest's kernel here is not tried yet");
		SAY(d->cure, "start aviaryd, then 'aviary vm setup': it boots one");
		return;
	}
	d->speed = "emulated";
	SAY(d->found, "available, emulated: " SLOW);
	if (kvm)
		SAY(d->reason, "%s", kvm->found);
}

static void judge_missing(struct doctor_vm *d, const json_t *vm)
{
	const json_t *missing = json_object_get(vm, "missing"), *name;
	size_t i, n = 0;

	if (json_array_size(missing) == 0)
		return;
	n = (size_t)snprintf(d->cure, sizeof(d->cure), "'aviary vm setup' builds what is missing:");
	json_array_foreach (missing, i, name)
		if (n < sizeof(d->cure) && json_is_string(name))
			n += (size_t)snprintf(d->cure + n, sizeof(d->cure) - n, "%s template %s",
			    i ? "," : "", json_string_value(name));
}

static void judge_daemon(struct doctor_vm *d, const struct probe *p, const json_t *vm)
{
	const char *accelerator = text_of(vm, "accelerator");
	const char *reason = text_of(vm, "reason");

	d->available = json_is_true(json_object_get(vm, "available"));
	if (!d->available) {
		SAY(d->found, "not available");
		SAY(d->reason, "%.290s", reason);
		return;
	}
	if (strcmp(accelerator, "kvm") == 0) {
		d->speed = "hardware";
		SAY(d->found, "available, KVM with hardware virtualisation: programs are about as "
		              "fast as on this machine itself");
	} else if (strcmp(accelerator, "tcg") == 0) {
		d->speed = "emulated";
		SAY(d->found, "available, %s: " SLOW,
		    p->kvm ? "KVM present but not able to run a guest kernel, so emulated"
		           : "emulated");
		SAY(d->reason, "%.290s", reason);
	} else {
		d->speed = "unknown";
		SAY(d->found, "available; whether KVM runs a guest's kernel here is not tried yet");
		SAY(d->cure, "'aviary vm setup' boots one");
	}
	judge_missing(d, vm);
}

void doctor_vm_judge(
    struct doctor_vm *ret, const struct probe *p, bool has_program, const json_t *isolations)
{
	const struct probe_fact *programs = probe_find(p, "vm_programs");
	const json_t *vm = vm_of(isolations);

	*ret = (struct doctor_vm){.speed = ""};
	if (vm) {
		judge_daemon(ret, p, vm);
	} else if (!has_program) {
		SAY(ret->found, "not available: aviary-vm is not found beside this program nor in "
		                "libexec");
		SAY(ret->cure, "reinstall Aviary, or build it with 'make'");
	} else if (programs && programs->state != PROBE_OK) {
		SAY(ret->found, "not available: the line '%s' says why and what to do",
		    programs->what);
	} else {
		ret->available = true;
		judge_alone(ret, p);
	}
}
