/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hello.c - what the worker tells about itself and the machine
 */
#include "spawn/hello.h"

#include <stdio.h>
#include <string.h>

#include "base/fd.h"
#include "base/banned.h"

static uint32_t wire_cgroup(enum cgroup_mode m)
{
	switch (m) {
	case CGROUP_MODE_V1:
		return SPAWN_CGROUP_V1;
	case CGROUP_MODE_V2:
		return SPAWN_CGROUP_V2;
	case CGROUP_MODE_HYBRID:
		return SPAWN_CGROUP_HYBRID;
	case CGROUP_MODE_NONE:
		break;
	}
	return SPAWN_CGROUP_NONE;
}

static uint32_t wire_disk(enum disk_mode m)
{
	switch (m) {
	case DISK_MODE_QUOTA:
		return SPAWN_DISK_QUOTA;
	case DISK_MODE_BTRFS:
		return SPAWN_DISK_BTRFS;
	case DISK_MODE_LOOP:
		return SPAWN_DISK_LOOP;
	case DISK_MODE_TMPFS:
		return SPAWN_DISK_TMPFS;
	case DISK_MODE_AUTO:
	case DISK_MODE_NONE:
		break;
	}
	return SPAWN_DISK_NONE;
}

static uint32_t capabilities(const struct spawner *sp)
{
	static const struct {
		uint32_t cgroup, wire;
	} map[] = {
	    {CGROUP_CAP_MEMORY, SPAWN_CAN_MEMORY},
	    {CGROUP_CAP_SWAP, SPAWN_CAN_SWAP},
	    {CGROUP_CAP_PIDS, SPAWN_CAN_PIDS},
	    {CGROUP_CAP_CPU_QUOTA, SPAWN_CAN_CPU},
	    {CGROUP_CAP_IO_WEIGHT, SPAWN_CAN_IO},
	    {CGROUP_CAP_FREEZE, SPAWN_CAN_FREEZE},
	    {CGROUP_CAP_OOM_EVENTS, SPAWN_CAN_OOM_COUNT},
	    {CGROUP_CAP_FAST_ATTACH, SPAWN_CAN_FAST_ATTACH},
	    {CGROUP_CAP_KILL, SPAWN_CAN_KILL_TREE},
	};
	uint32_t can = 0, have = cgroups_caps(sp->cgroups);
	for (size_t i = 0; i < AV_ARRAY_LEN(map); i++)
		if (have & map[i].cgroup)
			can |= map[i].wire;
	if (disk_limits_enforced(sp->disk))
		can |= SPAWN_CAN_DISK;
	if (!sp->mounts.rootless && !sp->mounts.plain_lower)
		can |= SPAWN_CAN_SUDO;
	if (!sp->o->no_seccomp)
		can |= SPAWN_CAN_SECCOMP;
	if (!sp->net.reason[0])
		can |= SPAWN_CAN_INTERNET;
	return can;
}

static void fill_vm(const struct spawner *sp, struct spawn_hello_reply *r)
{
	AV_CLEANUP(av_closep) int kvm = -1;
	static_assert(sizeof(r->no_vm) == VM_REASON_SIZE && sizeof(r->no_kvm) == VM_REASON_SIZE,
	    "as the worker has it");
	static_assert(sizeof(r->vm_environment) == VM_HASH_SIZE, "the same");
	if (vm_possible(&sp->vm, r->no_vm)) {
		r->can |= SPAWN_CAN_VM;
		vm_environment(&sp->vm, r->vm_environment);
	}
	if (vm_host_open_kvm(true, &kvm, r->no_kvm) == 0)
		r->can |= SPAWN_CAN_KVM;
}

static void add_note(struct spawn_hello_reply *r, const char *text)
{
	size_t n = strlen(r->notes);
	if (text && *text)
		snprintf(r->notes + n, sizeof(r->notes) - n, "%s\n", text);
}

static void fill_notes(const struct spawner *sp, struct spawn_hello_reply *r)
{
	add_note(r, cgroups_reason(sp->cgroups));
	add_note(r, disk_reason(sp->disk));
	if (sp->mounts.rootless)
		add_note(r, "Rootless: one user id per sandbox, no sudo inside.");
	else if (sp->mounts.plain_lower)
		add_note(r,
		    "The file system of /usr cannot be idmapped: its files belong to nobody "
		    "inside, and set-uid programs do not work there.");
	if (sp->mounts.overlay == SPAWN_OVERLAY_SHIFTED)
		add_note(r, "Kernel before 5.19: all sandboxes share one range of user ids.");
	if (sp->o->no_seccomp)
		add_note(r, "Started with --no-seccomp: for tests only.");
	if (sp->o->no_checksums)
		add_note(r, "Started with --no-checksums: for tests only.");
}

void hello_fill(struct spawner *sp, struct spawn_hello_reply *r)
{
	r->protocol = SPAWN_PROTOCOL;
	r->isolation = sp->mounts.rootless ? SPAWN_ISOLATION_ROOTLESS : SPAWN_ISOLATION_ROOT;
	r->overlay = sp->mounts.overlay;
	r->cgroup = wire_cgroup(cgroups_mode(sp->cgroups));
	r->disk = wire_disk(disk_mode(sp->disk));
	r->can = capabilities(sp);
	fill_vm(sp, r);
	r->uid_base = SPAWN_UID_BASE;
	r->slots_max = SPAWN_SLOTS;
	r->daemon_uid = sp->o->daemon_uid;
	r->agent_uid = SPAWN_AGENT_UID;
	r->pids_default = sp->o->pids_default;
	r->preparing = sp->templates.maker_pidfd >= 0;
	r->disk_default_bytes = sp->o->disk_default_bytes;
	r->disk_free_bytes = disk_free_bytes(sp->disk);
	r->trash = disk_trash_count(sp->disk);
	r->sandboxes = sp->alive;
	ssize_t n = av_read_file_at(
	    sp->mounts.proc_fd, "sys/kernel/random/boot_id", r->boot_id, sizeof(r->boot_id));
	if (n > 0 && r->boot_id[n - 1] == '\n')
		r->boot_id[n - 1] = '\0';
	snprintf(r->version, sizeof(r->version), "%s", AVIARY_VERSION);
	snprintf(
	    r->host_fingerprint, sizeof(r->host_fingerprint), "%s", sp->templates.host.fingerprint);
	static_assert(sizeof(r->no_internet) == sizeof(sp->net.reason), "as the worker has it");
	memcpy(r->no_internet, sp->net.reason, sizeof(r->no_internet));
	fill_notes(sp, r);
}
