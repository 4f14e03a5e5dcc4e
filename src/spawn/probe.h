/* SPDX-License-Identifier: Apache-2.0 */
/*
 * probe.h - what this machine can do: facts with reason and cure, for HELLO and `aviary doctor`
 *
 * Every fact has a stable name, a state, what was found and, unless all is well, what to type.
 * Probing changes nothing that lasts: it forks children to try user namespaces, and looks. It needs
 * base only and may be linked into the command line. Takes 5 to 50 ms.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

enum probe_state {
	PROBE_OK,      /* there and works */
	PROBE_WEAK,    /* works with less; reason says what is weaker */
	PROBE_MISSING, /* not there; only what needs it is unavailable */
	PROBE_FATAL,   /* no sandbox can run on this machine (in this mode) */
};
/* "ok", "weak", "missing", "fatal" */
const char *probe_state_name(enum probe_state s);

struct probe_fact {
	const char *name; /* stable, for --json: "kernel", "userns", "overlay", "cgroup", … */
	const char *what; /* one or two words for people */
	enum probe_state state;
	char found[160];  /* what is the case */
	char reason[240]; /* what follows from it; "" when state is OK */
	char cure[240];   /* what to type or change; "" when nothing helps or is needed */
};

/* Values go over the wire in HELLO and never change. */
enum probe_overlay {
	PROBE_OVERLAY_NONE = 0,
	PROBE_OVERLAY_FD = 1,        /* kernel 6.13 and later: layers by descriptor */
	PROBE_OVERLAY_PATH = 2,      /* 5.19 to 6.12: layers attached under short names */
	PROBE_OVERLAY_SHARED = 3,    /* before 5.19: no idmapped layers, one shared id range */
	PROBE_OVERLAY_USERXATTR = 4, /* rootless */
};

#define PROBE_MAX_FACTS 32

struct probe {
	size_t n;
	struct probe_fact fact[PROBE_MAX_FACTS];
	/* The same, for programs. */
	unsigned kernel_major, kernel_minor;
	bool root; /* effective uid 0 in the first user namespace, with CAP_SYS_ADMIN */
	bool in_container;
	bool userns;      /* an ordinary process can make a user namespace with capabilities */
	bool userns_root; /* this process can (clone with CLONE_NEWUSER worked) */
	bool kvm, tun;
	bool proc_masked; /* a fresh proc cannot be mounted in a child user namespace */
	enum probe_overlay overlay;
};

/* state_dir may be NULL or not exist yet (the parent is looked at). Never fails: what cannot be
 * found out is a fact as well. About 20 KB of caller's storage. */
void probe_run(struct probe *ret, const char *state_dir);
/* NULL when there is no such fact. */
const struct probe_fact *probe_find(const struct probe *p, const char *name);
/* Kernel version of a release string such as "6.1.0-18-cloud-amd64"; -EINVAL. Pure. */
int probe_parse_release(const char *release, unsigned *ret_major, unsigned *ret_minor);
/* The overlay path for a kernel version. Pure. */
enum probe_overlay probe_overlay_for(unsigned major, unsigned minor, bool root);
