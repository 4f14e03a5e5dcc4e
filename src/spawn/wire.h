/* SPDX-License-Identifier: Apache-2.0 */
/*
 * wire.h - what aviaryd and the worker of aviary-spawn say to each other
 *
 * The only header of this folder that src/node may include: its worker/ and the drivers.
 *
 * Theory of operation: the supervisor owns a listening AF_UNIX SOCK_SEQPACKET socket,
 * <run>/spawn.sock. The worker accepts connections whose peer (SO_PEERCRED) is the daemon's uid or
 * its own. One packet is one request, exactly sizeof(struct spawn_request); one packet is one
 * reply, exactly sizeof(struct spawn_reply), with descriptors by SCM_RIGHTS where stated. A packet
 * of any other size, an unknown op or a malformed id is answered with EINVAL and seq 0 or closes
 * the connection. Both ends are built from the same tree and run on one machine, so that integers
 * are in host order; SPAWN_PROTOCOL changes whenever a struct does, and a worker refuses every op
 * but HELLO from a connection that has not said a HELLO with its own number.
 *
 * Requests are pipelined: the client chooses seq, replies come in any order and carry it back. At
 * most SPAWN_PIPELINE_MAX requests of a connection may be unanswered; the worker stops reading
 * beyond that. Requests about one id are carried out in the order in which they came.
 *
 * When the worker dies, the connection ends without replies. Sandboxes live on. The client connects
 * again and LISTs: a CREATE that had no reply left either nothing, or something that LIST names and
 * DESTROY removes. Nothing is named by LIST that DESTROY cannot remove.
 *
 * The worker trusts the daemon with the choice of ids and numbers and with nothing else: no path,
 * no text from a client, no file content crosses this socket.
 */
#pragma once

#include <assert.h>
#include <stdint.h>

#define SPAWN_PROTOCOL     9
#define SPAWN_PIPELINE_MAX 128
#define SPAWN_ID_SIZE      32 /* NUL-terminated; a sandbox id is "sb" and 25 of [0-9a-z] */
#define SPAWN_TEMPLATE_SIZE                                                                        \
	64 /* NUL-terminated [0-9a-z-]; "host" and "vmhost" are always there                       \
	    */
#define SPAWN_SEAL_SIZE  32
#define SPAWN_EXIT_SIZE  64
#define SPAWN_LIST_MAX   64
#define SPAWN_SAMPLE_MAX 39

enum spawn_op {
	SPAWN_HELLO = 1, /* protocol -> struct spawn_hello_reply */
	SPAWN_CREATE,    /* -> struct spawn_create_reply and one descriptor, the agent's pidfd */
	SPAWN_DESTROY,   /* id: kills and detaches, then replies; 0 also when nothing is there */
	/* -> struct spawn_create_reply of which slot alone is filled (0: not known), and one
	 * descriptor, a verified pidfd; ENOENT dead, ESTALE another process */
	SPAWN_ADOPT,
	SPAWN_INSPECT, /* id -> struct spawn_inspect_reply; ENOENT when nothing is there */
	SPAWN_LIST,    /* -> struct spawn_list_reply */
	SPAWN_FREEZE,  /* id: all its processes are stopped when the reply comes */
	SPAWN_THAW,    /* id */
	SPAWN_SAMPLE,  /* -> struct spawn_sample_reply */
	/* id, u.template: its disk becomes the upper-most layer of a new template ->
	 * struct spawn_snapshot_reply. The sandbox is frozen meanwhile, and goes on afterwards if
	 * it was running before. */
	SPAWN_SNAPSHOT,
	/* u.template; EBUSY while another stands on it, and for a "vm…" also while a sandbox does;
	 * 0 also for none */
	SPAWN_TEMPLATE_DELETE,
	SPAWN_TEMPLATE_LIST, /* -> struct spawn_list_reply */
	SPAWN_STATS,         /* -> struct spawn_stats_reply */
	/* u.template -> one descriptor, the reading end of a pipe: members of a tar archive with
	 * the template's record and layer, then a struct spawn_export_end. A few go on at
	 * once, the others wait. */
	SPAWN_TEMPLATE_EXPORT,
};

/* spawn_create.flags */
enum {
	SPAWN_CREATE_NO_SUDO = 1 << 0, /* no_new_privs: set-uid programs inside do nothing */
	SPAWN_CREATE_INTERNET =
	    1 << 1, /* EOPNOTSUPP with reason and cure where it cannot be given */
	/* The first process is aviary-vm and not the agent; <run>/<id>/vm.sock (vm/vm_wire.h) is
	 * there beside agent.sock. It has no capability and never gets one. template_id is "vmhost"
	 * or an id whose chain ends there. EOPNOTSUPP with reason and cure without SPAWN_CAN_VM.
	 * disk_bytes is all that it may write, what it saves of its memory included. */
	SPAWN_CREATE_VM = 1 << 2,
	/* With SPAWN_CREATE_VM, to make an image: /template is what stands in source_id and
	 * /kernel what stands in kernel_id, read-only. EINVAL for a source that stands on the
	 * machine's own programs ("host"). */
	SPAWN_CREATE_VM_IMAGE = 1 << 3,
	/* With SPAWN_CREATE_VM: it gets a descriptor of /dev/kvm. ENODEV without SPAWN_CAN_KVM. */
	SPAWN_CREATE_KVM = 1 << 4,
};

/* Descriptors that aviary-vm finds, beside 0 to 2 (/dev/null). Those it was not given are closed.
 */
enum {
	SPAWN_VM_FD_AGENT_LISTENER = 3, /* agent.sock, listens: SOCK_STREAM */
	SPAWN_VM_FD_EXIT_RECORD,        /* written at the end, as agents do (proto/agent_api.h) */
	SPAWN_VM_FD_LISTENER,           /* vm.sock, listens: SOCK_SEQPACKET */
	SPAWN_VM_FD_KVM,                /* /dev/kvm; with SPAWN_CREATE_KVM */
	SPAWN_VM_FD_AGENT, /* the agent's own program, for reading; with SPAWN_CREATE_VM_IMAGE */
	SPAWN_VM_FD_COUNT,
};

struct spawn_create {
	char template_id[SPAWN_TEMPLATE_SIZE];
	/* As SNAPSHOT answered; EBADMSG when the template is another one. Zero: any. */
	uint8_t template_seal[SPAWN_SEAL_SIZE];
	uint64_t memory_bytes; /* with swap; 0: no limit */
	uint64_t disk_bytes;   /* 0: the worker's default */
	uint32_t cpu_milli;    /* thousandths of a CPU; 0: no limit */
	uint32_t pids_max;     /* 0: the worker's default */
	uint32_t flags;        /* unknown bits are EINVAL */
	uint32_t reserved;     /* 0 */
	/* With SPAWN_CREATE_VM_IMAGE, else all zero; seals as above. */
	char source_id[SPAWN_TEMPLATE_SIZE];
	uint8_t source_seal[SPAWN_SEAL_SIZE];
	char kernel_id[SPAWN_TEMPLATE_SIZE];
	uint8_t kernel_seal[SPAWN_SEAL_SIZE];
};

/* What makes a process the one that was created: its record, taken from CREATE's reply. The client
 * compares boot_id of HELLO itself. */
struct spawn_adopt {
	int32_t pid;
	uint32_t reserved;
	uint64_t start_ticks; /* field 22 of /proc/<pid>/stat */
	uint64_t pidns_ino;   /* inode of /proc/<pid>/ns/pid */
};

/* A page of samples. Sandboxes are numbered as they appear in the worker; a restarted one numbers
 * anew. */
struct spawn_sample_request {
	uint64_t after;    /* the last page's `next`; 0 at first */
	uint32_t tick;     /* counts up; disks are read once in SPAWN_SAMPLE_DISK_TICKS of them */
	uint32_t reserved; /* 0 */
};
#define SPAWN_SAMPLE_DISK_TICKS 30

/* spawn_template.flags */
enum {
	SPAWN_SNAPSHOT_KILL = 1 << 0, /* all processes of the sandbox are killed first: nothing
	                               * need be frozen, and only its disk is left */
	/* Of a sandbox with SPAWN_CREATE_VM that goes on: the layer is the save of that number
	 * alone (/vm/saves/<save>/ and a /vm/current that names it). Nothing is frozen; aviary-vm
	 * has said that the save is complete. Not with KILL. */
	SPAWN_SNAPSHOT_VM = 1 << 1,
};

struct spawn_template {
	char template_id[SPAWN_TEMPLATE_SIZE]; /* "tp" or "vm" and 25 of [0-9a-z] */
	uint32_t flags;                        /* unknown bits are EINVAL */
	uint32_t save;                         /* with SPAWN_SNAPSHOT_VM, not 0; else 0 */
};

struct spawn_request {
	uint32_t op;
	uint32_t seq;           /* chosen by the client, any but 0 */
	char id[SPAWN_ID_SIZE]; /* empty where the op has none */
	union {
		uint32_t protocol; /* HELLO */
		struct spawn_create create;
		struct spawn_adopt adopt;
		struct spawn_template template;
		char after[SPAWN_ID_SIZE]; /* LIST: ids greater than this one; empty at first */
		struct spawn_sample_request sample;
	} u;
};

enum spawn_isolation { SPAWN_ISOLATION_ROOT = 1, SPAWN_ISOLATION_ROOTLESS };
/* DESIGN: how layers reach overlayfs. */
enum spawn_overlay { SPAWN_OVERLAY_FD = 1, SPAWN_OVERLAY_NAMES, SPAWN_OVERLAY_SHIFTED };
enum spawn_cgroup { SPAWN_CGROUP_NONE, SPAWN_CGROUP_V1, SPAWN_CGROUP_V2, SPAWN_CGROUP_HYBRID };
enum spawn_disk {
	SPAWN_DISK_NONE, /* no limit can be enforced */
	SPAWN_DISK_QUOTA,
	SPAWN_DISK_BTRFS,
	SPAWN_DISK_LOOP,
	SPAWN_DISK_TMPFS,
};

/* spawn_hello_reply.can: what is enforced or possible here */
enum {
	SPAWN_CAN_MEMORY = 1 << 0,
	SPAWN_CAN_SWAP = 1 << 1, /* the memory limit counts swap */
	SPAWN_CAN_PIDS = 1 << 2,
	SPAWN_CAN_CPU = 1 << 3,
	SPAWN_CAN_IO = 1 << 4,
	SPAWN_CAN_DISK = 1 << 5,
	SPAWN_CAN_FREEZE = 1 << 6,
	SPAWN_CAN_OOM_COUNT = 1 << 7,   /* INSPECT's oom_kills is evidence */
	SPAWN_CAN_FAST_ATTACH = 1 << 9, /* favordynmods is in force */
	SPAWN_CAN_SUDO = 1 << 10,
	SPAWN_CAN_SECCOMP = 1 << 11,   /* off only by the test option */
	SPAWN_CAN_KILL_TREE = 1 << 12, /* cgroup.kill, else freeze and signal */
	SPAWN_CAN_INTERNET = 1 << 13,  /* else no_internet says why */
	SPAWN_CAN_VM = 1 << 14,        /* else no_vm says why */
	/* /dev/kvm can be opened, which does not mean that it runs a guest; else no_kvm says why */
	SPAWN_CAN_KVM = 1 << 15,
};

struct spawn_hello_reply {
	uint32_t protocol;
	uint32_t isolation; /* enum spawn_isolation */
	uint32_t overlay;   /* enum spawn_overlay */
	uint32_t cgroup;    /* enum spawn_cgroup */
	uint32_t disk;      /* enum spawn_disk */
	uint32_t can;
	uint32_t uid_base;  /* first id of slot 0; slot n begins at uid_base + n * 65536 */
	uint32_t slots_max; /* sandboxes at once; slot 0 is Aviary's own */
	uint32_t daemon_uid;
	uint32_t agent_uid; /* owner of the agent's executable */
	uint32_t pids_default;
	uint32_t preparing; /* 1: template host is being made, and creates of it wait */
	uint64_t disk_default_bytes;
	uint64_t disk_free_bytes; /* of the file system below the state directory */
	uint32_t trash;           /* disks of destroyed sandboxes that are still being freed */
	uint32_t sandboxes;       /* with living processes, as the worker sees it */
	char boot_id[40];         /* /proc/sys/kernel/random/boot_id */
	char version[32];
	char host_fingerprint[72]; /* of template host as it is now; empty before its first use */
	char notes[1024];          /* what is weaker than it could be here, one sentence a line */
	char no_internet[200];     /* reason and cure; empty with SPAWN_CAN_INTERNET */
	char no_vm[200];           /* the same, with SPAWN_CAN_VM */
	char no_kvm[200];          /* the same, with SPAWN_CAN_KVM */
	/* A hash of what images and saved machines depend on here: the agent, aviary-vm, their
	 * version, which QEMU and mkfs.erofs there are now. Zero without SPAWN_CAN_VM. */
	uint8_t vm_environment[32];
};

struct spawn_create_reply {
	int32_t pid; /* of the agent, in the daemon's pid namespace */
	uint32_t slot;
	uint64_t start_ticks;
	uint64_t pidns_ino;
	uint32_t worker_us; /* request read -> reply sent */
	uint32_t child_us;  /* of it, clone -> agent executed */
};

/* spawn_inspect_reply.state */
enum {
	SPAWN_STATE_ALIVE = 1 << 0, /* processes are left in it */
	SPAWN_STATE_FROZEN = 1 << 1,
	SPAWN_STATE_HAS_RUN = 1 << 2,  /* <run>/<id>/ exists */
	SPAWN_STATE_HAS_DISK = 1 << 3, /* <state>/sandboxes/<id>/ exists */
	SPAWN_STATE_HAS_CGROUP = 1 << 4,
	SPAWN_STATE_CREATING = 1 << 5,
	SPAWN_STATE_DESTROYING = 1 << 6,
};

struct spawn_inspect_reply {
	uint32_t state;
	int32_t pid; /* of the agent, 0 when dead or not known */
	uint64_t oom_kills;
	uint64_t memory_bytes;
	uint64_t memory_peak_bytes;
	uint64_t memory_limit_bytes; /* 0: none */
	uint64_t cpu_usec;
	uint64_t disk_used_bytes;
	uint64_t disk_limit_bytes;
	uint32_t pids;
	uint32_t pids_limit;
	uint32_t exit_bytes; /* how much of exit_record the agent wrote */
	uint32_t reserved;
	uint8_t exit_record[SPAWN_EXIT_SIZE]; /* written by the sandbox: hostile */
};

struct spawn_list_entry {
	char id[SPAWN_ID_SIZE];
	uint32_t state; /* SPAWN_STATE_* */
	uint32_t reserved;
};

/* Ids in ascending order. more: ask again with `after` = the last one. */
struct spawn_list_reply {
	uint32_t count;
	uint32_t more;
	struct spawn_list_entry entries[SPAWN_LIST_MAX];
};

/* spawn_sample.flags: which numbers are known */
enum {
	SPAWN_SAMPLED_CPU = 1 << 0,
	SPAWN_SAMPLED_MEMORY = 1 << 1,
	SPAWN_SAMPLED_DISK = 1 << 2, /* as last read */
};

struct spawn_sample {
	char id[SPAWN_ID_SIZE];
	uint64_t cpu_usec; /* of its whole life */
	uint64_t memory_bytes;
	uint64_t disk_used_bytes;
	uint32_t flags;
	uint32_t reserved;
};

/* Sandboxes with a living agent of which at least one number is known. */
struct spawn_sample_reply {
	int64_t mono_ns; /* CLOCK_MONOTONIC of the reading */
	uint64_t next;   /* ask again with `after` = this; 0: that was all */
	uint32_t count;
	uint32_t reserved;
	struct spawn_sample entries[SPAWN_SAMPLE_MAX];
};

/* The worker itself, and what it has to do now. */
struct spawn_stats_reply {
	uint64_t resident_bytes;
	uint64_t cpu_usec;
	uint64_t open_fds, max_fds;
	int64_t start_ms; /* since 1970 */
	uint64_t disk_free_bytes;
	uint32_t sandboxes, slots_max;
	uint32_t creating, destroying, snapshotting,
	    freezing;  /* sandboxes by what is done to them */
	uint32_t jobs; /* of this connection, not answered yet, this one included */
	uint32_t trash;
};

struct spawn_snapshot_reply {
	uint8_t seal[SPAWN_SEAL_SIZE];
	char parent[SPAWN_TEMPLATE_SIZE]; /* "host", "empty" or an id */
	char host_fingerprint[32];        /* when the lowest layers are the host's; else empty */
	uint64_t bytes, entries;          /* of the new layer */
	uint32_t depth;                   /* layers above the bottom */
	uint32_t frozen_us;
};

/* The last bytes of an export's pipe; a pipe that ends without them was cut off. error: what came
 * before them (it may be nothing) is not the whole layer. */
struct spawn_export_end {
	char magic[16]; /* SPAWN_EXPORT_MAGIC */
	int32_t error;  /* 0, or an errno (positive) */
	uint32_t reserved;
	char text[488]; /* NUL-terminated: why */
};
#define SPAWN_EXPORT_MAGIC "aviary export\r\n"
static_assert(sizeof(struct spawn_export_end) == 512, "no padding");

struct spawn_reply {
	uint32_t op; /* of the request */
	uint32_t seq;
	int32_t error;  /* 0, or an errno (positive); u is all zero then */
	char text[200]; /* NUL-terminated: which step failed and with what */
	uint32_t reserved;
	union {
		struct spawn_hello_reply hello;
		struct spawn_create_reply create;
		struct spawn_inspect_reply inspect;
		struct spawn_list_reply list;
		struct spawn_sample_reply sample;
		struct spawn_snapshot_reply snapshot;
		struct spawn_stats_reply stats;
	} u;
};

static_assert(sizeof(struct spawn_request) == 360, "no padding that differs between compilers");
static_assert(sizeof(struct spawn_reply) == 2784, "no padding that differs between compilers");
