/* SPDX-License-Identifier: Apache-2.0 */
/*
 * node_internal.h - only for src/node/(*.c): sandboxes, links to their agents, conversations
 *
 * A conversation (struct conv) is one HTTP/2 stream to an agent, and the base of execs, streams and
 * calls. It is in its sandbox's list from conv_open until its owner heard its end or cancelled; its
 * memory lives until the stream below is closed too. So a callback may cancel its own conversation
 * at any moment, and nothing it still touches goes away under it.
 *
 *   open ──complete answer──> ended ──stream closed──> freed
 *     ├──owner cancels──────> cancelled ──stream closed──> freed
 *     └──connection lost────> lost ──death known, or LOST_WAIT_MS──> fail() ──> freed
 *
 * `lost` exists because a dying sandbox closes its socket some moments before its pidfd and its
 * evidence say why: the owner should hear "out of memory" and not "connection reset".
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/list.h"
#include "base/map.h"
#include "net/http2_client.h"
#include "net/loop.h"
#include "node/node.h"

#define LOST_WAIT_MS   500
#define LINK_IDLE_MS   30000
#define ERROR_BODY_MAX 16384
#define TUNNELS_MAX    512 /* open at once for each sandbox */

struct node {
	struct av_loop *loop;
	struct driver *drivers[NODE_DRIVERS_MAX]; /* owned; up to the first NULL */
	size_t n_drivers, n_closing;
	const struct node_events *events;
	void *events_ctx;
	size_t collect_max;
	struct av_map sandboxes; /* id -> struct node_sandbox */
	struct av_list wraps;    /* driver requests under way (struct wrap) */
	size_t n_wraps;
	struct node_stats stats; /* what only grows */
	bool closing;
	void (*on_drivers_closed)(struct node *n);
	void (*on_closed)(void *ctx);
	void *on_closed_ctx;
};

/* Interactive things, bulk bodies and tunnels to ports do not share a connection: a full socket or
 * window of the one must not delay the other. */
enum link_kind { LINK_INTERACTIVE, LINK_BULK, LINK_PORTS, LINK_COUNT };

struct link {
	struct node_sandbox *sb;
	struct av_h2c *conn; /* NULL: not connected */
	bool is_ports;
	struct av_timer idle;
	size_t n_convs;
};

struct node_sandbox {
	char id[AV_ID_SIZE];
	struct node *node;
	struct driver *driver;
	struct driver_evidence evidence;
	int pidfd;
	struct av_watch *watch;
	struct link links[LINK_COUNT];
	char *init_json;      /* body of POST /init; owned */
	struct av_list convs; /* struct conv */
	size_t n_convs, n_quiet, n_tunnels;
	struct av_timer lost_timer;
	bool dead;                              /* pidfd said so; evidence is being gathered */
	bool frozen;                            /* or about to be */
	bool held;                              /* frozen by node_hold */
	int64_t frozen_since_ns, frozen_sum_ns; /* on the monotonic clock */
	uint64_t oom_kills;                     /* as last seen */
	int64_t activity_ns;
	int64_t greeted_ns;    /* since when the first connection waits; 0: answered */
	bool met;              /* the agent took its configuration once */
	struct av_trace trace; /* of the create, until then */
};

struct conv;
struct conv_ops {
	void (*on_response)(struct conv *c, const struct av_http_head *head);
	void (*on_data)(struct conv *c, struct av_str data); /* consumes */
	void (*on_complete)(struct conv *c); /* the answer is complete; must conv_end */
	void (*on_writable)(struct conv *c); /* may be NULL */
	void (*fail)(struct conv *c, const struct av_err *err); /* tell the owner */
	void (*free)(struct conv *c); /* release what the owner's part holds, and the memory */
};

struct conv {
	struct av_list link;
	struct node_sandbox *sb; /* NULL: not in a list any more */
	struct link *via;        /* valid while sb is */
	struct av_h2s *h2s;      /* NULL: closed */
	const struct conv_ops *ops;
	struct av_err *pending; /* owned: why we cancelled it ourselves, or why it was lost */
	bool tunnel;            /* counted in sb->n_tunnels */
	bool over;              /* the owner knows, or does not want to */
	bool quiet;             /* no use of the sandbox; counted in sb->n_quiet */
	bool waits_for_thaw;    /* opened while frozen */
};

/* ---- node.c ---- */

void node_sandbox_activity(struct node_sandbox *sb);
/* To the agent of a frozen sandbox: that it is going to run again. Nobody waits for an answer. */
void node_tell_thaw(struct node_sandbox *sb, int64_t frozen_ms);
/* How long it has been frozen in its life, until now. */
int64_t node_sandbox_frozen_ns(const struct node_sandbox *sb);

/* ---- drivers.c ---- */

/* The driver with that isolation, the first for an empty one; NULL when there is none. */
struct driver *node_driver_for(const struct node *n, const char *isolation);
/* The driver whose sandbox it is, the first when nobody knows it. */
struct driver *node_driver_of(const struct node *n, const char *id);
/* Gives them to the node, which was calloc'ed. */
void node_drivers_take(struct node *n, struct driver *const drivers[static NODE_DRIVERS_MAX]);
/* Closes them all, then calls on_closed(ctx). */
void node_drivers_close(struct node *n, void (*on_closed)(struct node *n));

/* ---- link.c ---- */

void link_init(struct link *l, struct node_sandbox *sb, enum link_kind kind);
/* Closes the connection; conversations on it end as lost or failed. */
void link_clear(struct link *l);

/* The sandbox is frozen, or thawed. */
void link_hold(struct link *l, bool held);

/* Tells the agent what init_json has become; without a connection the next one does. No
 * conversation may be open on it. */
void link_greet_again(struct link *l);

/* Connects now, if it can, for a conversation that will come. */
void link_warm(struct link *l);

/* Opens the stream; rq as for av_h2c_request. On success c is in sb's list; the owner's memory
 * belongs to the conversation from here on. On failure nothing happened and c is the caller's. */
int conv_open(struct conv *c, struct node_sandbox *sb, enum link_kind kind,
    const struct conv_ops *ops, const struct av_h2s_request *rq, struct av_err *err);
/* The owner heard the end (call before telling it) or cancelled: no callback any more; the stream
 * is finished (graceful) or cancelled. May free c at once: do not touch it afterwards unless a
 * stream callback of c is running. */
void conv_end(struct conv *c, bool graceful);
/* Ends it with an error of ours, from the loop: never calls back inside the call. */
void conv_abort(struct conv *c, const struct av_err *err);
/* Tells the owner at once (from a callback of ours) and ends it. */
void conv_fail(struct conv *c, const struct av_err *err);

/* {"code":…,"message":…} of a Connect or plain agent answer with this status. */
void agent_error(struct av_err *err, int status, struct av_str body);
/* The JSON object of an "error" member of a CONTROL frame. */
void agent_error_json(struct av_err *err, const json_t *error);
