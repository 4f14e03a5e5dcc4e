/* SPDX-License-Identifier: Apache-2.0 */
/*
 * driver.h - what an isolation must be able to do; one table of functions and its capability flags
 *
 * A driver makes and destroys the thing a sandbox lives in and knows the truth about it; it speaks
 * no word to the agent inside, except that it hands out connected sockets to it (agent_connect).
 * The node above does the rest in the same way for every isolation.
 *
 * Every function that takes a callback is asynchronous, runs on the loop thread, and calls back
 * exactly once, never from inside the call; they return 0, or -ENOMEM, and then no callback comes.
 * Ids are sandbox ids (ids.h), checked by the caller.
 *
 * When a driver loses its helper while requests are under way, each ends with AV_ERR_UNAVAILABLE.
 * The outcome of such a create is unknown: the caller must destroy() that id before it uses it
 * again.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/hist.h"
#include "base/ids.h"

struct driver;

#define DRIVER_BOOT_ID_SIZE    40
#define DRIVER_EXIT_RECORD_MAX 64
#define DRIVER_TEMPLATE_MAX    64
#define DRIVER_SEAL_SIZE       32
#define DRIVER_NOTE_MAX        160
#define DRIVER_REASON_MAX      200
#define DRIVER_ISOLATION_SIZE  8
#define DRIVER_STAGE_MAX       60

/* What this isolation offers on this machine; bits of driver_caps.flags. */
enum driver_flag {
	DRIVER_LIMIT_MEMORY =
	    1 << 0, /* the limit is enforced by the kernel for the whole sandbox */
	DRIVER_LIMIT_CPU = 1 << 1,
	DRIVER_LIMIT_PIDS = 1 << 2,
	DRIVER_LIMIT_DISK = 1 << 3,
	DRIVER_ROOTLESS = 1 << 4, /* runs with the rights of an ordinary user; one uid inside */
	DRIVER_SUDO = 1 << 5,     /* set-uid programs can work inside */
	DRIVER_FREEZE = 1 << 6,
	DRIVER_MEMORY_SNAPSHOT = 1 << 7,
	DRIVER_SURVIVES_REBOOT = 1 << 8,
	DRIVER_INTERNET = 1 << 9, /* else driver_caps.no_internet says why */
};

struct driver_caps {
	uint32_t flags;
	uint64_t disk_default_bytes; /* what a create without a wish gets; 0: whatever is there */
	uint64_t disk_max_bytes;     /* 0: no own bound */
	uint64_t host_memory_bytes;
	uint32_t host_cpus;
	bool preparing; /* template host is being made: creates of it wait */
	char boot_id[DRIVER_BOOT_ID_SIZE];
	char detail[DRIVER_NOTE_MAX]; /* one line for logs and doctor: cgroup mode, overlay path, …
	                               */
	char no_internet[DRIVER_REASON_MAX]; /* reason and cure, without DRIVER_INTERNET */
};

struct driver_spec {
	char id[AV_ID_SIZE];
	char isolation[DRIVER_ISOLATION_SIZE]; /* empty: the node's first driver */
	char template_id[DRIVER_TEMPLATE_MAX];
	uint8_t template_seal[DRIVER_SEAL_SIZE]; /* as its snapshot said; all zero: any */
	uint64_t memory_bytes;
	uint32_t cpu_milli;
	uint32_t pids_max;
	uint64_t disk_bytes; /* 0: the driver's default */
	bool sudo;
	bool internet; /* only with DRIVER_INTERNET */
	/* What follows is for isolations with a kernel of their own. */
	char kernel_id[DRIVER_TEMPLATE_MAX]; /* the template that holds the guest's kernel */
	uint8_t kernel_seal[DRIVER_SEAL_SIZE];
	/* template_id is a snapshot with memory and processes: it goes on from there. memory_bytes
	 * and cpu_milli must be the snapshot's. */
	bool saved;
};

/* An isolation as this machine has it, for people. */
struct driver_about {
	const char *isolation;
	bool available;      /* a create can succeed, now or when the driver is ready */
	bool ready;          /* the driver is */
	char accelerator[8]; /* "kvm", "tcg"; empty: none is needed, or it is not known yet */
	/* One sentence: why it is not available, or why it is slower than it could be. Empty when
	 * there is nothing to say. */
	char reason[DRIVER_REASON_MAX];
};

/* Something that is made ahead of a first use, now. */
struct driver_making {
	char template_id[DRIVER_TEMPLATE_MAX]; /* of what */
	char stage[DRIVER_STAGE_MAX];          /* "packing the template", …; printable */
	unsigned int percent;                  /* of the stages it takes together */
	size_t waiting;                        /* requests that wait for it */
	int64_t since_ns;                      /* CLOCK_MONOTONIC */
};

/* Identifies one life of one sandbox beyond doubt; stored, and checked again at adoption. */
struct driver_evidence {
	int64_t pid;
	uint64_t start_ticks;
	uint64_t pidns_inode;
	uint32_t slot; /* its number on this machine; not stored, 0: not known */
	char boot_id[DRIVER_BOOT_ID_SIZE];
};

/* What the machine says about a sandbox. Numbers the isolation cannot know are 0. exit_record is
 * the agent's last words: bytes from inside, to be checked. */
struct driver_status {
	bool alive;
	bool frozen;
	uint64_t oom_kills;
	uint64_t memory_bytes, memory_peak_bytes;
	uint64_t pids;
	uint64_t cpu_usec;
	uint64_t disk_used_bytes, disk_limit_bytes;
	uint8_t exit_record[DRIVER_EXIT_RECORD_MAX];
	size_t exit_record_len;
};

/* What became a template. */
struct driver_snapshot {
	uint8_t seal[DRIVER_SEAL_SIZE];
	char parent[DRIVER_TEMPLATE_MAX]; /* "host", "empty" or a template's id */
	char host_fingerprint[32];        /* when it stands on the host's own programs */
	uint64_t bytes, entries;          /* of its own layer */
	uint32_t depth;
	/* With the memory of a running machine: what a create from it must ask for; else 0. */
	uint64_t memory_bytes;
	uint32_t vcpus;
	uint32_t stopped_us; /* how long it stood still for that, running before and after; or 0 */
};
typedef void driver_snapshot_fn(
    void *ctx, const struct driver_snapshot *snap, const struct av_err *err);

typedef void driver_done_fn(void *ctx, const struct av_err *err);
/* pidfd becomes readable when the sandbox's first process is dead; the callee owns it (-1 on
 * error). */
typedef void driver_alive_fn(
    void *ctx, const struct driver_evidence *ev, int pidfd, const struct av_err *err);
typedef void driver_status_fn(void *ctx, const struct driver_status *st, const struct av_err *err);
typedef void driver_stream_fn(void *ctx, int fd, const struct av_err *err);
#define DRIVER_EXPORT_END 512
/* Every id that has left any trace: processes, cgroups, mounts, directories. */
typedef void driver_list_fn(
    void *ctx, const char (*ids)[AV_ID_SIZE], size_t n, const struct av_err *err);

/* One reading of one sandbox. */
struct driver_sample {
	char id[AV_ID_SIZE];
	bool has_cpu, has_memory, has_disk;
	uint64_t cpu_usec; /* of its whole life */
	uint64_t memory_bytes;
	uint64_t disk_used_bytes; /* as last read, up to 30 s ago */
};
/* A part of what runs; mono_ns is when it was read. more: this is called again. err ends it. */
typedef void driver_samples_fn(void *ctx, int64_t mono_ns, const struct driver_sample *v, size_t n,
    bool more, const struct av_err *err);

/* Counters since the driver was made. */
struct driver_stats {
	size_t waiting, sent;  /* requests now: not yet with the helper, and with it */
	size_t sent_max;       /* bound of the latter */
	uint64_t reconnects;   /* helpers lost */
	struct av_hist queue;  /* creates: until they were sent */
	struct av_hist helper; /* creates: how long the helper worked, as it says */
	struct av_hist child;  /* of it, from the sandbox's first process to its agent's start */
};

/* What the privileged helper says about itself and its work. */
struct driver_helper {
	uint64_t resident_bytes, cpu_usec, open_fds, max_fds;
	int64_t start_ms;                  /* since 1970, when it started */
	uint64_t sandboxes, sandboxes_max; /* that it knows, dead ones too; and can */
	uint64_t creating, destroying, snapshotting, freezing; /* of them, now */
	uint64_t jobs, jobs_max;  /* requests of ours not answered yet */
	uint64_t trash;           /* disks of destroyed sandboxes that are still being freed */
	uint64_t disk_free_bytes; /* of the file system below the state directory */
};
typedef void driver_helper_fn(void *ctx, const struct driver_helper *h, const struct av_err *err);

struct driver_ops {
	const char *isolation; /* "jail", "vm": as API answers name it */

	/* Caps are valid while ready; before that a request waits or ends with UNAVAILABLE. */
	bool (*is_ready)(struct driver *d);
	const struct driver_caps *(*caps)(struct driver *d);
	/* NULL: available, and nothing to say. */
	void (*about)(struct driver *d, struct driver_about *ret);
	/* Whether the sandbox is this driver's: from create() or adopt() to the answer of
	 * destroy(). NULL: knows none, and is asked for those that no other has. */
	bool (*has)(struct driver *d, const char *id);
	/* Whether it is one that the driver made for itself: nobody else is told of it. NULL: none
	 * is. */
	bool (*is_own)(struct driver *d, const char *id);

	/* Makes the sandbox and starts the agent; calls back when it runs. */
	int (*create)(
	    struct driver *d, const struct driver_spec *spec, driver_alive_fn *fn, void *ctx);
	/* A sandbox that nobody was given yet stands still, with its memory where it is, until
	 * take(): then it goes on as somebody with a clock and random numbers of its own. One that
	 * cannot be held is good for nothing but destroy(). NULL: need not be held. */
	int (*hold)(struct driver *d, const char *id, driver_done_fn *fn, void *ctx);
	int (*take)(struct driver *d, const char *id, driver_done_fn *fn, void *ctx);
	/* At most max of what is being made now; returns how many. NULL: makes nothing. */
	size_t (*makings)(struct driver *d, struct driver_making *v, size_t max);
	/* Kills and detaches at once, frees the rest in the background. Unknown ids succeed. */
	int (*destroy)(struct driver *d, const char *id, driver_done_fn *fn, void *ctx);
	/* Takes over what an earlier daemon made, if it still is that. NOT_FOUND or INVALID_STATE
	 * when it is gone or another process has its number. */
	int (*adopt)(struct driver *d, const char *id, const struct driver_evidence *ev,
	    driver_alive_fn *fn, void *ctx);
	int (*inspect)(struct driver *d, const char *id, driver_status_fn *fn, void *ctx);
	int (*list)(struct driver *d, driver_list_fn *fn, void *ctx);
	/* Reads what every running sandbox uses, in parts small enough to disturb nobody: fn is
	 * called once or several times, the last time with more = false. NULL: cannot be read. */
	int (*sample)(struct driver *d, driver_samples_fn *fn, void *ctx);
	/* Synchronous; NULL: counts nothing. */
	void (*stats)(struct driver *d, struct driver_stats *ret);
	/* NULL: has no helper. */
	int (*helper)(struct driver *d, driver_helper_fn *fn, void *ctx);
	/* Stops every process of it where it stands, and lets them go on; what is so already stays
	 * so. NOT_FOUND when there is no such sandbox, UNSUPPORTED without DRIVER_FREEZE; a freeze
	 * that fails leaves it running. */
	int (*freeze)(struct driver *d, const char *id, driver_done_fn *fn, void *ctx);
	int (*thaw)(struct driver *d, const char *id, driver_done_fn *fn, void *ctx);

	/* The disk of a sandbox, frozen or dead meanwhile, becomes template template_id (ids.h).
	 * stop: its processes are killed first. May take minutes; destroy() ends it with CANCELED,
	 * unless stop is set: then it waits for it. */
	int (*snapshot)(struct driver *d, const char *id, const char *template_id, bool stop,
	    driver_snapshot_fn *fn, void *ctx);
	/* Unknown ids succeed. INVALID_STATE while another template stands on it; no sandbox may.
	 */
	int (*template_delete)(
	    struct driver *d, const char *template_id, driver_done_fn *fn, void *ctx);
	/* Template template_id is deleted, by another driver: what was made from it can go. NULL:
	 * nothing is. */
	void (*template_gone)(struct driver *d, const char *template_id);
	/* Every template that there is, by id. */
	int (*template_list)(struct driver *d, driver_list_fn *fn, void *ctx);

	/* The template's record and layer as members of a tar archive, for a backup: fd (the
	 * callee's; -1 on error) is non-blocking, and its last DRIVER_EXPORT_END bytes are for
	 * export_end; what cannot be read is said there. NULL: cannot be done. */
	int (*template_export)(
	    struct driver *d, const char *template_id, driver_stream_fn *fn, void *ctx);
	/* What those bytes say: 0 when what came before them was all; else INTERNAL or CHECKSUM. */
	int (*export_end)(const void *bytes, struct av_err *err);

	/* A non-blocking stream socket to the agent, connected or being connected, that speaks
	 * HTTP/2 with prior knowledge; the caller owns it. Synchronous and does not block.
	 * UNAVAILABLE when the agent does not take connections. */
	int (*agent_connect)(struct driver *d, const char *id, int *ret_fd, struct av_err *err);

	/* Ends what is under way with CANCELED, then calls on_closed and frees nothing of the
	 * sandboxes: they live on. */
	void (*close)(struct driver *d, void (*on_closed)(void *ctx), void *ctx);
};

/* First member of every driver. */
struct driver {
	const struct driver_ops *ops;
	/* Set by the node: called whenever is_ready turns true (again); NULL until then. */
	void (*on_ready)(void *ctx);
	void *on_ready_ctx;
};
