/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sandbox.h - the worker's sandboxes: table, jobs in order, create and destroy as state machines
 *
 * Theory of operation. The kernel and the disk are the truth; the table is a cache of it, filled at
 * start from what is there (sandbox_recover). A sandbox is whatever has at least one of: a cgroup,
 * a disk area, a run directory. Jobs on one id run one after the other; jobs on different ids
 * interleave at the points where they wait (for the child to execute the agent, for processes to
 * die).
 *
 * Create makes, in this order: cgroup, child (which makes its network namespace meanwhile), disk
 * area, id maps, mounts, attach, run directory with the process record, with internet access the
 * network interface (as soon as the child has its namespace and rules), go. Whatever instruction
 * the worker dies at, the next worker's LIST shows what there is and DESTROY removes it; a child
 * without go dies with the worker, one with go has its record.
 *
 * Destroy: kill, wait until the pid namespace is empty, cgroups, run directory, disk out of sight,
 * answer. Freeing the disk goes on in disk_step().
 *
 * Failpoints, in order: create.slot create.cgroup create.clone create.disk create.map create.stage
 * create.attach create.rundir create.record create.veth create.net create.go create.done
 * (child.<step> between the last two), destroy.kill destroy.dead destroy.cgroup destroy.rundir
 * destroy.disk destroy.done.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/resource.h>

#include "base/err.h"
#include "base/ids.h"
#include "base/list.h"
#include "base/macros.h"
#include "base/map.h"
#include "spawn/cgroup.h"
#include "spawn/confine.h"
#include "spawn/disk.h"
#include "spawn/export.h"
#include "spawn/ids.h"
#include "spawn/jail.h"
#include "spawn/loop.h"
#include "spawn/mounts.h"
#include "spawn/net.h"
#include "spawn/net_keep.h"
#include "spawn/options.h"
#include "spawn/rundir.h"
#include "spawn/sweeper.h"
#include "spawn/template.h"
#include "spawn/vm.h"
#include "spawn/wire.h"

/* All that the worker holds; one per process. */
struct spawner {
	const struct spawn_options *o;
	struct loop loop;
	struct ids ids;
	struct mounts mounts;
	struct cgroups *cgroups; /* owned */
	struct disk *disk;       /* owned */
	struct confine confine;
	struct template_store templates;
	struct exports exports;
	struct sweeper sweeper;
	struct net net;              /* not open when rootless */
	struct loop_timer net_timer; /* keeps it current */
	uint32_t last_stage;         /* numbers of stages, never 0, not used twice */
	int agent_fd;                /* owned: the sealed agent */
	struct vm_programs vm;
	struct av_list clients;  /* struct client */
	struct av_map sandboxes; /* id -> struct sandbox */
	uint32_t alive;          /* sandboxes whose agent lives */
	struct loop_timer disk_timer;
	struct av_list numbered; /* struct sandbox, by number: what SAMPLE goes through */
	uint64_t last_number;
	struct sandbox *sample_at; /* where the last page ended, NULL: at the end */
	uint64_t sample_after;     /* the number that page ended with */
	rlim_t files_max;          /* open descriptors allowed */
	int64_t start_ms;          /* when this process started, since 1970; 0: not asked yet */
};

/* A request on its way; owned by the connection's client until job_done(). */
struct job {
	struct av_list node; /* in sandbox.jobs */
	struct spawn_request request;
	int64_t started_ns;
	struct client *client; /* NULL once the connection is gone: no answer then */
};
/* Answers (takes no descriptor over) and frees. reply->op and ->seq are filled in here. */
void job_done(struct job *j, struct spawn_reply *reply, int pass_fd);
/* The same with an error; message from err, may be NULL. error: -errno. */
void job_fail(struct job *j, int error, const struct av_err *err);

enum sandbox_state {
	SANDBOX_IDLE, /* running, dead, or remains of a create */
	SANDBOX_CREATING,
	SANDBOX_DESTROYING,
	SANDBOX_SNAPSHOTTING,
	SANDBOX_FREEZING, /* or thawing */
};

struct sandbox {
	char id[AV_ID_SIZE];
	struct spawner *sp;
	enum sandbox_state state;
	uint32_t slot;            /* 0: not known or none */
	struct jail_identity who; /* pid 0: not known */
	int pidfd;                /* owned; -1 when dead or not known */
	struct loop_source death; /* on pidfd */
	struct av_list jobs;      /* waiting; the first one is current while state is not IDLE */
	struct av_err failure;    /* create: what went wrong, answered when the clean-up is done */
	int failure_errno;        /* 0: none */
	bool canceled;            /* a DESTROY came while it was made */
	bool wants_net, went;     /* create: it gets an interface; it got its go */
	bool is_vm;               /* aviary-vm is its first process */
	bool disk_known;          /* SAMPLE: disk_used_bytes is */
	struct loop_timer retry; /* destroy, freeze: look again; create: the child takes too long */
	int64_t retry_ns;
	int64_t destroy_started_ns, freeze_started_ns;
	/* create */
	struct jail jail;
	uint32_t stage; /* 0: nothing is staged */
	struct loop_source handover;
	int go_fds[CHILD_FDS_MAX]; /* owned: what the child's go carries */
	struct net_keep keep;      /* rootless, with internet access */
	struct template_waiter template_wait;
	int64_t cloned_ns;
	/* SAMPLE */
	struct av_list numbered; /* in spawner.numbered */
	uint64_t number;
	struct cgroup_reader reader;
	struct confined confined;
	uint64_t disk_used_bytes;
	struct rundir_template stands_on; /* id empty: not known */
	struct snapshot *snapshot;        /* owned; NULL: none is being taken */
};

/* Fills the table from cgroups, disk and run directories. */
int sandbox_recover(struct spawner *sp, struct av_err *err) AV_MUST_CHECK;
/* Takes over a job whose request is about an id (checked), and runs it or queues it. */
void sandbox_submit(struct spawner *sp, struct job *j);
/* LIST. */
int sandbox_list(struct spawner *sp, const char *after, struct spawn_list_reply *ret) AV_MUST_CHECK;
/* STATS, without what only the connection knows. */
void sandbox_stats(struct spawner *sp, struct spawn_stats_reply *ret);
/* SAMPLE: one page, up to 0.3 ms. */
void sandbox_sample(
    struct spawner *sp, const struct spawn_sample_request *q, struct spawn_sample_reply *ret);
/* Into and out of the order of SAMPLE. */
void sample_add(struct sandbox *s);
void sample_remove(struct sandbox *s);
/* Does one of them, dead or alive, stand directly on that template? */
bool sandbox_stands_on(const struct spawner *sp, const char *template_id);
/* Any job that is still being worked on? */
bool sandbox_busy(const struct spawner *sp);
/* Gives up creates and closes descriptors; sandboxes live on. */
void sandbox_clear(struct spawner *sp);

/* ---- between sandbox.c, create.c and destroy.c ---- */

/* Starts the work of the current job; both end in sandbox_job_end(). */
void create_start(struct sandbox *s);
void snapshot_start(struct sandbox *s);
void destroy_start(struct sandbox *s);
/* The child of a create in flight is killed; the create fails, then what waits is done. */
void create_cancel(struct sandbox *s);
/* The snapshot under way is given up; it fails, then what waits is done. */
void snapshot_cancel(struct sandbox *s);
/* Its agent died: what a snapshot may have waited for. */
void snapshot_agent_died(struct sandbox *s);
/* TEMPLATE_LIST. */
int snapshot_list(
    struct spawner *sp, const char *after, struct spawn_list_reply *ret) AV_MUST_CHECK;
/* The worker ends. */
void snapshot_clear(struct sandbox *s);
/* Into a reply that is kept sorted: the smallest SPAWN_LIST_MAX ids above `after`. */
void sandbox_list_insert(struct spawn_list_reply *l, const char *id);
/* The current job is answered and off the list: the next one, or the entry goes when nothing is
 * left of the sandbox. */
void sandbox_job_end(struct sandbox *s, bool gone);
/* Watches pidfd (taken over). */
int sandbox_watch(struct sandbox *s, int pidfd, const struct jail_identity *who) AV_MUST_CHECK;
