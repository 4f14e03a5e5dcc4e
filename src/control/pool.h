/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pool.h - only for src/control/(*.c): sandboxes made before anybody asks
 *
 * Theory of operation. A member is a sandbox like any other, made by the driver with its final id,
 * in which nothing has run but the agent and one /bin/echo, which shows that it is not half made
 * and leaves nothing but warm caches. It has no record: until it is handed over nobody but the
 * pool knows it, no list shows it, no quota counts it, and after a crash the next daemon destroys
 * it as it does everything without a record.
 *
 *   making ─driver made it─→ warming ─/bin/echo ran; a kernel is up, if the template wants one─→
 * ready └────────────────────────┴── failed, died, too old, too many → destroyed      ready
 * ─pool_take→ given
 *
 * What was given never comes back: a create that fails after pool_take destroys it like any other
 * sandbox. Members are kept by shape: whatever the driver was told, the id left out. A create takes
 * a member only of exactly its shape, so that nothing of a member has to be changed but what its
 * agent is told.
 *
 * A virtual machine is held: made like any other, tried out, and stopped (node_hold); who takes it
 * lets it go on with a clock and random numbers of its own (node_take), and only then its record
 * says that it runs. Machines have
 * a number and a memory of their own, which jails do not share; none is made of a snapshot with
 * memory.
 *
 * How many: the demand of a shape is the number of its creates, halved each DEMAND_HALF_S; so many
 * members are kept, of the default shape at least one, in sum no more than the configured number
 * and memory; shapes that together wish for more get shares. A member is made when no create is
 * under way and none came within QUIET_NS (a machine: MACHINE_QUIET_NS), one at a time: a request
 * never waits for the pool. Failures are tried again after a second, then two, up to a minute.
 */
#pragma once

#include "base/list.h"
#include "base/map.h"
#include "control/control.h"
#include "node/node.h"
#include "store/store.h"

struct pool_shape {
	struct av_list link;     /* pool.shapes */
	struct driver_spec spec; /* id empty */
	struct av_list members;  /* struct pool_member, oldest first; in any state */
	size_t n, ready;         /* members; those that may be taken */
	bool is_default;
	double demand;
};

struct pool {
	bool on, stopping;
	struct av_list shapes;
	struct av_map members; /* id -> struct pool_member */
	bool making;           /* a member is being made */
	int64_t next_ns, taken_ns, decayed_ns;
	int64_t retry_ns, retry_delay_ns; /* after a failure */
	struct control_pool_stats stats;
};

void pool_init(struct control *c);
void pool_clear(struct control *c);
/* After control_start: begins to fill. */
void pool_start(struct control *c);
/* Destroys all members; pool_is_idle when that is done. */
void pool_stop(struct control *c);
bool pool_is_idle(const struct control *c);
void pool_tick(struct control *c, int64_t now_ns);

/* A create of this shape came. True: one is given away; its id and what identifies it are filled
 * in. A held one must be let go (node_take). It must be recorded and told its environment
 * (node_configure), or destroyed. */
bool pool_take(struct control *c, const struct driver_spec *spec, char ret_id[static AV_ID_SIZE],
    struct store_evidence *ret);
/* Of the pool: what the machine has under this id is no orphan. */
bool pool_knows(const struct control *c, const char *id);
/* It died: false when it is not of the pool. */
bool pool_died(struct control *c, const char *id);
/* What a member uses, from sampling. */
void pool_sampled(struct control *c, const char *id, uint64_t memory_bytes);
/* A member of it lives, or is being destroyed. */
bool pool_uses(const struct control *c, const char *template_id);
/* The template is gone or is another one now: its members are destroyed. */
void pool_forget_template(struct control *c, const char *template_id);
/* Destroys all members because the machine has too little of something; none is made for a while.
 */
void pool_relieve(struct control *c);
