/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_doctor_vm.c - what doctor makes of this machine's facts and a daemon's words
 */
#include "lib/tap.h"

#include <stdlib.h>
#include <string.h>

#include "cli/doctor_vm.h"

static struct probe machine(bool kvm, enum probe_state programs)
{
	struct probe p = {.n = 2, .kvm = kvm};

	p.fact[0] =
	    (struct probe_fact){.name = "kvm", .what = "KVM", .found = "there is no /dev/kvm"};
	p.fact[1] = (struct probe_fact){
	    .name = "vm_programs", .what = "programs for vm", .state = programs};
	return p;
}

/* What is judged when a daemon says so of isolation vm; NULL: no daemon. */
static struct doctor_vm judge(const struct probe *p, bool has_program, const char *vm)
{
	struct doctor_vm d;
	json_t *said = vm ? json_loads(vm, 0, NULL) : NULL;
	json_t *all = vm ? json_pack("{s:[{s:s}, o]}", "isolations", "name", "jail", said) : NULL;

	doctor_vm_judge(&d, p, has_program, all);
	json_decref(all);
	return d;
}

static void has(const char *text, const char *part, const char *what)
{
	ok(strstr(text, part) != NULL, "%s: %s", what, text);
}

static void without_a_daemon(void)
{
	struct probe p = machine(true, PROBE_OK);
	struct doctor_vm d = judge(&p, true, NULL);

	ok(d.available, "KVM opens");
	is_str(d.speed, "unknown", "and is not tried");
	has(d.cure, "aviary vm setup", "how to try");
	d = judge(&p, false, NULL);
	ok(!d.available && d.cure[0], "no aviary-vm");
	p = machine(false, PROBE_OK);
	d = judge(&p, true, NULL);
	is_str(d.speed, "emulated", "no KVM");
	has(d.found, "10 to 30 times", "what it means");
	has(d.reason, "/dev/kvm", "why");
	p = machine(true, PROBE_MISSING);
	d = judge(&p, true, NULL);
	ok(!d.available, "no QEMU");
	has(d.found, "programs for vm", "the line that says more");
}

static void with_a_daemon(void)
{
	struct probe p = machine(true, PROBE_OK);
	struct doctor_vm d = judge(&p, true,
	    "{\"name\":\"vm\",\"available\":true,\"accelerator\":\"kvm\",\"missing\":[]}");

	ok(d.available && !d.reason[0] && !d.cure[0], "nothing to mend");
	is_str(d.speed, "hardware", "KVM ran a kernel");
	has(d.found, "KVM with hardware virtualisation", "in words");
	d = judge(&p, true,
	    "{\"name\":\"vm\",\"available\":true,\"accelerator\":\"tcg\",\"reason\":\"runs no "
	    "guest\"}");
	is_str(d.speed, "emulated", "KVM did not run a kernel");
	has(d.found, "KVM present but not able to run a guest kernel", "in words");
	is_str(d.reason, "runs no guest", "the daemon's reason");
	p.kvm = false;
	d = judge(&p, true,
	    "{\"name\":\"vm\",\"available\":true,\"accelerator\":\"tcg\",\"reason\":\"none\"}");
	ok(!strstr(d.found, "KVM present"), "there is none: %s", d.found);
	d = judge(
	    &p, true, "{\"name\":\"vm\",\"available\":true,\"missing\":[\"vm-kernel\",\"base\"]}");
	is_str(d.speed, "unknown", "no machine yet");
	has(d.cure, "template vm-kernel, template base", "what is missing");
	d = judge(&p, true, "{\"name\":\"vm\",\"available\":false,\"reason\":\"no QEMU\"}");
	ok(!d.available, "the daemon has none");
	is_str(d.reason, "no QEMU", "why");
	is_str(d.speed, "", "no speed");
}

/* Of a daemon that is another program, or hostile. */
static void nonsense(void)
{
	static const char *const said[] = {"{}", "[]", "7", "{\"name\":\"vm\"}",
	    "{\"name\":\"vm\",\"available\":1,\"reason\":[],\"missing\":{}}",
	    "{\"name\":\"vm\",\"available\":true,\"accelerator\":7,\"missing\":[1,null,{}]}"};
	struct probe p = machine(true, PROBE_OK);
	char *long_name = calloc(1, 100000);
	json_t *all;
	struct doctor_vm d;

	for (size_t i = 0; i < AV_ARRAY_LEN(said); i++)
		ok(judge(&p, true, said[i]).found[0], "%s", said[i]);
	memset(long_name, 'x', 99999);
	all = json_pack("{s:[{s:s, s:b, s:s, s:[s, s]}]}", "isolations", "name", "vm", "available",
	    1, "reason", long_name, "missing", long_name, long_name);
	doctor_vm_judge(&d, &p, true, all);
	ok(strlen(d.cure) < sizeof(d.cure), "cut");
	json_decref(all);
	free(long_name);
}

int main(void)
{
	without_a_daemon();
	with_a_daemon();
	nonsense();
	return tap_done();
}
