/* SPDX-License-Identifier: Apache-2.0 */
/*
 * options.h - the command line of aviary-spawn, which is all that it ever parses
 *
 * Supervisor and worker take the same options; the supervisor starts the worker with its own, after
 * --worker. What follows "--" goes to aviaryd.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"
#include "base/lend.h"
#include "base/log.h"
#include "base/macros.h"
#include "spawn/disk.h"
#include "spawn/net_config.h"
#include "spawn/wire.h"

/* Range of ids: slot n owns SPAWN_UID_BASE + n * SPAWN_UID_COUNT and what follows. Slot 0 is
 * Aviary's own and no sandbox's. */
#define SPAWN_UID_BASE   0x70000000u
#define SPAWN_UID_COUNT  65536u
#define SPAWN_SLOTS      4096u
#define SPAWN_DAEMON_UID (SPAWN_UID_BASE)
#define SPAWN_AGENT_UID  (SPAWN_UID_BASE + 1)

/* Descriptors the worker is started with. */
#define SPAWN_WORKER_LISTEN_FD   3
#define SPAWN_WORKER_LIFELINE_FD 4
#define SPAWN_WORKER_BEAT_FD     5 /* with --beat */

struct spawn_options {
	bool worker;             /* --worker: started by the supervisor */
	bool beat;               /* --beat: says into SPAWN_WORKER_BEAT_FD that it lives */
	bool check;              /* --check: look at the options, then end */
	bool cleanup;            /* --cleanup: remove what a dead instance left, then end */
	bool restore;            /* --restore: make the state directory of a backup, then end */
	bool all;                /* --all: with --cleanup, the state directory too */
	bool rootless;           /* not an option: effective uid is not 0 */
	const char *state_dir;   /* --state DIR; absolute; borrowed from argv as all of these */
	const char *run_dir;     /* --run DIR; absolute */
	const char *daemon_path; /* --daemon FILE; NULL: aviaryd beside this program */
	const char *agent_path;  /* --agent FILE; NULL: aviary-agent beside this program */
	const char *vm_path; /* --vm-program FILE; NULL: aviary-vm beside this program, if any */
	const char
	    *credentials; /* --credentials FILE, or NULL: what aviaryd hands over is dropped */
	/* --lend FILE, twice: what the daemon may read through us, see supervisor.c; or both NULL
	 */
	const char *lend[AV_LEND_FILES];
	uid_t daemon_uid;            /* --daemon-uid N */
	gid_t daemon_gid;            /* --daemon-gid N */
	enum spawn_overlay overlay;  /* --overlay fd|names|shifted; 0: by kernel */
	enum disk_mode disk;         /* --disk quota|btrfs|loop|tmpfs|none */
	uint64_t disk_image_bytes;   /* --disk-image SIZE; 0: see disk.h */
	uint64_t disk_default_bytes; /* --disk-default SIZE */
	uint32_t pids_default;       /* --pids-default N */
	const char *cgroup;          /* --cgroup PATH: see cgroups_config.below; or NULL */
	struct net_config net;       /* --internet, --allow-net, --resolver, --net-pool */
	bool no_seccomp;   /* --no-seccomp: only for tests that show the other locks hold */
	bool no_checksums; /* --no-checksums: the same, for the mounting of templates */
	bool no_daemon;    /* --no-daemon: worker only, for tests */
	enum av_log_level log_level;
	bool log_json;
	char **daemon_args; /* what followed "--", NULL-terminated */
	int own_argc;       /* how many of argv came before "--" */
};

/* INVALID names the option and its form. */
int spawn_options_parse(
    struct spawn_options *o, int argc, char **argv, struct av_err *err) AV_MUST_CHECK;
/* What --help prints, on stdout. */
void spawn_options_usage(void);
/* The path of another program of ours into dst: beside this one, else (build tree) in the folder
 * ../dir. -ENAMETOOLONG, -ENOENT. */
int spawn_sibling_path(char *dst, size_t size, const char *program, const char *dir) AV_MUST_CHECK;
