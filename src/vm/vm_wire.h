/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vm_wire.h - what the daemon and aviary-vm say to each other
 *
 * The only header of this folder that src/node/vm may include.
 *
 * Theory of operation. A virtual machine lives in a jail like any other (src/spawn); its first
 * process is aviary-vm instead of the agent, which starts QEMU and takes connections for the agent
 * of the guest on agent.sock. <run>/<id>/vm.sock is an AF_UNIX SOCK_SEQPACKET socket, owned by the
 * daemon, on which aviary-vm takes these requests: one packet is one request, exactly sizeof(struct
 * vm_request), one packet is one answer. Both are built from one tree and run on one machine:
 * integers are in host order; VM_PROTOCOL changes whenever a struct does, and a daemon that meets
 * another one (a machine that an earlier version left running) can still use everything that comes
 * before `protocol` differs: STATUS. Requests are carried out one after the other; what lasts sends
 * VM_PROGRESS now and then. A new connection replaces the old one, whose request goes on unheard:
 * STATUS says how it ended.
 *
 * aviary-vm lives in the jail, with a process beside it that runs hostile code: the daemon checks
 * every answer and makes its text printable.
 *
 * Files, in the jail's root (an overlay whose upper layer is the sandbox's disk area; lower layers
 * may hold what an image, a golden snapshot or a snapshot saved):
 *
 *   /template            read-only: the template that an image is made of (SPAWN_CREATE_VM_IMAGE)
 *   /kernel              read-only: a guest kernel, unpacked (the same)
 *   /vm/image/           root.erofs, kernel, initrd: what a guest boots from
 *   /vm/saves/<n>/       memory, state, disk, info: a machine that stands still
 *   /vm/current          "<n>\n": the save that START with VM_MODE_RESTORE goes on with
 *   /vm/run/disk         the writable disk of the machine that runs
 *
 * A save is complete before current names it, and not changed afterwards. RESUME goes on with that
 * of the PAUSE before it.
 */
#pragma once

#include <assert.h>
#include <stdint.h>

#define VM_PROTOCOL 2

enum vm_op {
	VM_STATUS = 1, /* -> struct vm_status */
	/* u.start: once in the life of an aviary-vm. -> struct vm_status when it is done */
	VM_START,
	/* A machine that runs stands still, with its memory where it is, until HAND_OVER. One that
	 * cannot is FAILED -> struct vm_status */
	VM_HOLD,
	VM_HAND_OVER, /* u.identity: one that is held goes on as somebody -> struct vm_status */
	VM_PAUSE, /* saves memory and devices as /vm/saves/<n>, then QEMU ends -> struct vm_saved */
	VM_RESUME, /* u.identity: from that save; it stays until the guest has confirmed */
	/* As PAUSE, but the machine goes on and its disk is copied (as a reflink where the file
	 * system has them) -> struct vm_saved */
	VM_SAVE,
	VM_DROP,     /* u.save: removes the save of that number, unless the machine needs it */
	VM_PROGRESS, /* never a request: comes before the answer */
};

enum vm_mode {
	VM_MODE_IMAGE = 1, /* makes /vm/image of /template and /kernel; nothing runs afterwards */
	VM_MODE_GOLDEN, /* boots /vm/image, warms the guest up, saves it; nothing runs afterwards */
	VM_MODE_RESTORE, /* goes on from /vm/current */
};
enum vm_accel { VM_ACCEL_TCG = 1, VM_ACCEL_KVM };

/* vm_start.flags, vm_identity.flags */
enum {
	VM_INTERNET = 1 << 0,
	VM_NO_SUDO = 1 << 1,
};

/* What the guest is told (proto/guest.h); aviary-vm adds random numbers, machine-id and clock. */
struct vm_identity {
	char id[32];
	char hostname[64];
	uint32_t number; /* of the sandbox on this machine (its slot): MAC and addresses are made of
	                  * it */
	uint32_t flags;
	uint32_t pids_max;
	uint32_t reserved; /* 0 */
	uint64_t disk_bytes;
};

struct vm_start {
	uint32_t mode;  /* enum vm_mode */
	uint32_t accel; /* enum vm_accel; KVM only with a descriptor of it (SPAWN_CREATE_VM) */
	uint32_t vcpus;
	uint32_t flags;
	uint64_t memory_bytes;       /* of the guest; a multiple of 2 MiB */
	struct vm_identity identity; /* GOLDEN: disk_bytes is all that counts */
};

struct vm_request {
	uint32_t op;
	uint32_t seq; /* chosen by the client, any but 0 */
	uint32_t protocol;
	uint32_t reserved; /* 0 */
	union {
		struct vm_start start;
		struct vm_identity identity;
		uint32_t save;
	} u;
};

enum vm_state {
	VM_STATE_NEW = 1,
	VM_STATE_BUSY, /* a request is being carried out */
	VM_STATE_MADE, /* IMAGE or GOLDEN is done; only the files are left */
	VM_STATE_HELD,
	VM_STATE_RUNNING,
	VM_STATE_PAUSED,
	VM_STATE_FAILED, /* text says why; DESTROY is what is left to do */
};

/* The parts of a start, for people and for the benchmark; microseconds, 0: did not happen. */
struct vm_times {
	uint32_t qemu_us;    /* from exec to the first answer of QEMU */
	uint32_t load_us;    /* device state */
	uint32_t hello_us;   /* until the guest answered the link's reset */
	uint32_t confirm_us; /* until it confirmed its identity */
	uint32_t total_us;
};

struct vm_status {
	uint32_t protocol;
	uint32_t state; /* enum vm_state */
	uint32_t accel;
	uint32_t vcpus;
	uint64_t memory_bytes;
	uint64_t private_bytes;  /* pages that are this machine's alone, now; 0 when nothing runs */
	uint64_t overhead_bytes; /* anonymous memory of QEMU itself and of aviary-vm */
	struct vm_times times;   /* of the last start or resume */
	char qemu[32];           /* version */
	char kernel[64];         /* release of the guest's, printable */
	uint32_t kills; /* processes that the guest's kernel killed for memory, as the guest says */
};

struct vm_saved {
	uint32_t save;         /* number of it */
	uint32_t stopped_us;   /* how long no processor of the guest ran (PAUSE: until it ended) */
	uint64_t memory_bytes; /* written for memory (what is zero, free or shared with the base is
	                        * not) */
	uint64_t disk_bytes;
	uint32_t total_us;
	uint32_t reserved;
};

struct vm_progress {
	uint32_t percent; /* 0 to 100 */
	char stage[60];   /* "packing the template", "starting the guest", … */
};

struct vm_reply {
	uint32_t op; /* of the request, or VM_PROGRESS */
	uint32_t seq;
	int32_t error;  /* 0 or an errno (positive) */
	char text[212]; /* NUL-terminated: what failed, and with what */
	union {
		struct vm_status status;
		struct vm_saved saved;
		struct vm_progress progress;
	} u;
};

static_assert(sizeof(struct vm_identity) == 120, "no padding that differs between compilers");
static_assert(sizeof(struct vm_start) == 144, "no padding that differs between compilers");
static_assert(sizeof(struct vm_request) == 160, "no padding that differs between compilers");
static_assert(sizeof(struct vm_status) == 160, "no padding that differs between compilers");
static_assert(sizeof(struct vm_reply) == 384, "no padding that differs between compilers");
