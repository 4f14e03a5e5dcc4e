/* SPDX-License-Identifier: Apache-2.0 */
/*
 * node.h - running sandboxes: one driver below, one agent in each, the events control lives on
 *
 * The node knows what runs now and nothing else: no teams, no records, no time-outs of sandboxes.
 * It watches the pidfd of every sandbox; when one dies it gathers the evidence (OOM counters, the
 * agent's exit record), ends every conversation with it, and tells control why. All on the loop
 * thread.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/hist.h"
#include "base/trace.h"
#include "node/driver.h"
#include "node/stream.h"

struct av_loop;
struct node;
struct node_sandbox;

/* Why a sandbox's first process is gone, from evidence that outlives it. */
enum node_death {
	NODE_DEATH_UNKNOWN, /* nothing tells */
	NODE_DEATH_OOM,     /* the kernel killed for memory */
	NODE_DEATH_EXITED,  /* the agent, or the main command before, ended and said so */
	NODE_DEATH_CRASH,   /* the agent said it failed, or was killed from inside */
};

struct node_events {
	/* The sandbox died by itself. It is already gone from the node; destroy what remains with
	 * node_destroy. */
	void (*on_death)(void *ctx, const char *id, enum node_death why, const char *detail);
	/* Somebody used it (at most once per second for each sandbox). */
	void (*on_activity)(void *ctx, const char *id);
	/* The kernel has killed processes of it for memory: `kills` in its life, `more` since the
	 * last event. It lives on. Noticed when an exec is killed and when somebody inspects. NULL
	 * allowed. */
	void (*on_oom)(void *ctx, const char *id, uint64_t kills, uint64_t more);
	/* The agent's last word says how the main command ended (agent_api.h); on_death, or the
	 * answer of node_autopsy, follows. NULL allowed. */
	void (*on_main_end)(
	    void *ctx, const char *id, uint32_t exit_code, uint32_t signal, int64_t real_ms);
	/* The driver became ready (again): what waited may be tried. */
	void (*on_ready)(void *ctx);
};

#define NODE_DRIVERS_MAX 4

struct node_config {
	struct av_loop *loop;
	/* Owned from here on; up to the first NULL, at least one. Each has its own isolation. The
	 * first is what a create without a wish gets; it also answers for the machine as a whole:
	 * node_list, node_sample, node_helper, templates. */
	struct driver *drivers[NODE_DRIVERS_MAX];
	size_t collect_max; /* bytes kept per output of a collected exec; 0: 16 MiB */
};

int node_new(const struct node_config *config, struct node **ret, struct av_err *err);
/* Before anything else; events and ctx live as long as the node. */
void node_set_events(struct node *n, const struct node_events *events, void *ctx);
/* Ends every conversation ("the daemon stops"), closes the driver, leaves all sandboxes running;
 * then calls on_closed and is gone. */
void node_close(struct node *n, void (*on_closed)(void *ctx), void *ctx);

/* Counters since node_new, and what is open now. */
struct node_stats {
	size_t sandboxes;
	size_t requests;      /* to the driver, not answered */
	size_t connections;   /* to agents */
	size_t conversations; /* streams on them: execs, bodies, calls */
	size_t tunnels;       /* of those, to ports */
	size_t tunnels_max;   /* for each sandbox */
	uint64_t tunnels_refused;
	uint64_t agent_errors;      /* connections and conversations that agents broke or lost */
	struct av_hist agent_ready; /* connecting for the first time, until the agent took its
	                               configuration */
	struct av_hist exec_start;  /* until the agent says that the process runs */
	struct av_hist exec;        /* until its end */
	struct driver_stats driver; /* of all of them together */
};
/* Goes through the sandboxes. */
void node_get_stats(const struct node *n, struct node_stats *ret);
/* As driver_ops.helper; -EOPNOTSUPP when the isolation has none. */
int node_helper(struct node *n, driver_helper_fn *fn, void *ctx);

/* Of the first driver. */
const char *node_isolation(const struct node *n);
bool node_is_ready(const struct node *n);
const struct driver_caps *node_caps(const struct node *n); /* valid while ready */
/* Of the driver with that isolation; NULL when there is none. */
const struct driver_caps *node_caps_of(const struct node *n, const char *isolation);
/* Every isolation, the first driver's first; returns how many. */
size_t node_isolations(const struct node *n, struct driver_about v[static NODE_DRIVERS_MAX]);
/* What is being made ahead of a first use, by all drivers; returns how many, at most max. */
size_t node_makings(const struct node *n, struct driver_making *v, size_t max);

/* What a sandbox tells its agent on every connection (POST /init). */
struct node_agent_config {
	const char *envs_json;    /* an object of strings */
	const char *default_user; /* NULL: the agent's own default */
	const char *default_workdir;
	struct av_trace trace; /* of who wants it: the wait for its agent is a part */
};

/* These return 0, or -ENOMEM, and then no callback comes; create and adopt also
 * -EOPNOTSUPP, when no driver has the isolation that spec or record names. What follows in a
 * sandbox's life goes to that driver by itself.
 * sb is the node's; valid until its death is reported or node_forget. */
typedef void node_sandbox_fn(
    void *ctx, struct node_sandbox *sb, const struct driver_evidence *ev, const struct av_err *err);
int node_create(struct node *n, const struct driver_spec *spec, const struct node_agent_config *a,
    node_sandbox_fn *fn, void *ctx);
int node_adopt(struct node *n, const char *id, const char *isolation,
    const struct driver_evidence *ev, const struct node_agent_config *a, node_sandbox_fn *fn,
    void *ctx);
/* A sandbox that nobody was given yet stands still where it is, and goes on as somebody. One that
 * cannot is only to be destroyed. -EALREADY, no callback, where the isolation holds none. */
int node_hold(struct node *n, const char *id, node_done_fn *fn, void *ctx);
int node_take(struct node *n, const char *id, node_done_fn *fn, void *ctx);
/* Tells the agent what differs from what it was told at its creation, before anything that is asked
 * after this; no conversation may be open. -ENOMEM. */
int node_configure(struct node_sandbox *sb, const struct node_agent_config *a);
/* Ends every conversation with the sandbox with `why` (their on_end runs inside this call) and
 * drops the handle; no on_death follows. The sandbox itself is untouched. */
void node_forget(struct node_sandbox *sb, const struct av_err *why);
/* Destroys whatever there is under this id, known or not. */
int node_destroy(struct node *n, const char *id, node_done_fn *fn, void *ctx);
int node_list(struct node *n, driver_list_fn *fn, void *ctx);
/* fn may be NULL: then it only looks for news of on_oom. 0 or -ENOMEM as above. */
int node_inspect(struct node *n, const char *id, driver_status_fn *fn, void *ctx);

/* Freezes it: nothing in it runs until node_thaw. What is open to it stays open and stalls, with
 * its time-outs held; what is opened meanwhile waits for the thaw. fn hears UNSUPPORTED where the
 * isolation cannot, and any error leaves it as it was. 0 or -ENOMEM as above. */
int node_freeze(struct node *n, const char *id, node_done_fn *fn, void *ctx);
int node_thaw(struct node *n, const char *id, node_done_fn *fn, void *ctx);
/* The thaw that conversations opened while frozen wait for will not come: they fail with why, from
 * the loop. */
void node_fail_waiting(struct node_sandbox *sb, const struct av_err *why);

/* As the functions of driver_ops; -EOPNOTSUPP where the isolation has no templates on the disk. */
int node_snapshot(struct node *n, const char *id, const char *template_id, bool stop,
    driver_snapshot_fn *fn, void *ctx);
int node_template_delete(struct node *n, const char *template_id, node_done_fn *fn, void *ctx);
int node_template_list(struct node *n, driver_list_fn *fn, void *ctx);
int node_template_export(struct node *n, const char *template_id, driver_stream_fn *fn, void *ctx);
int node_export_end(const struct node *n, const void *bytes, struct av_err *err);

/* Why a sandbox that is not running ended, from what it left behind. 0 or -ENOMEM as above. */
typedef void node_autopsy_fn(void *ctx, enum node_death why, const char *detail);
int node_autopsy(struct node *n, const char *id, node_autopsy_fn *fn, void *ctx);

/* As driver_ops.sample; -EOPNOTSUPP when the isolation cannot tell. */
int node_sample(struct node *n, driver_samples_fn *fn, void *ctx);

struct node_sandbox *node_find(const struct node *n, const char *id);
/* Conversations open now that keep the sandbox from being idle. */
size_t node_sandbox_busy(const struct node_sandbox *sb);
/* Asks the agent how many processes that were started through the API run. Unlike node_processes it
 * is no use of the sandbox, and does not keep it from being idle. */
typedef void node_count_fn(void *ctx, size_t n, const struct av_err *err);
int node_count_processes(struct node_sandbox *sb, node_count_fn *fn, void *ctx,
    struct node_call **ret, struct av_err *err);

/* ---- conversations (control opens them for the API) ---- */

int node_exec_open(struct node_sandbox *sb, const struct node_exec_spec *spec,
    const struct node_exec_events *ev, void *ctx, struct node_exec **ret, struct av_err *err);
/* Attaches to a process that runs or ended a short while ago. replay: first what the ring holds. */
int node_exec_attach(struct node_sandbox *sb, const struct node_selector *sel, bool replay,
    bool follow, const struct node_exec_events *ev, void *ctx, struct node_exec **ret,
    struct av_err *err);
/* As a client asks for it: first is the JSON object of its first CONTROL frame (StartRequest, or
 * one with a "connect" member), passed on after a check of its shape. */
int node_exec_open_raw(struct node_sandbox *sb, struct av_str first,
    const struct node_exec_events *ev, void *ctx, struct node_exec **ret, struct av_err *err);
int node_exec_collect(struct node_sandbox *sb, const struct node_exec_spec *spec,
    node_exec_result_fn *fn, void *ctx, struct node_call **ret, struct av_err *err);
/* Starts a process that lives on by itself; calls back when it runs. */
int node_exec_background(struct node_sandbox *sb, const struct node_exec_spec *spec,
    node_exec_started_fn *fn, void *ctx, struct node_call **ret, struct av_err *err);
int node_processes(struct node_sandbox *sb, node_processes_fn *fn, void *ctx,
    struct node_call **ret, struct av_err *err);
int node_process_signal(struct node_sandbox *sb, const struct node_selector *sel, int signo,
    node_done_fn *fn, void *ctx, struct node_call **ret, struct av_err *err);
/* Starts an interpreter ahead of its first use (the agent's own choice of language); done when it
 * waits for code. */
int node_warm_kernel(struct node_sandbox *sb, node_done_fn *fn, void *ctx, struct node_call **ret,
    struct av_err *err);
/* POST /<service>/<method> with a JSON body; at most max_answer bytes come back. */
int node_rpc(struct node_sandbox *sb, const char *path, struct av_str body, size_t max_answer,
    node_json_fn *fn, void *ctx, struct node_call **ret, struct av_err *err);
int node_stream_open(struct node_sandbox *sb, const struct node_stream_request *rq,
    const struct node_stream_events *ev, void *ctx, struct node_stream **ret, struct av_err *err);
