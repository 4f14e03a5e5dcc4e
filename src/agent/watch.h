/* SPDX-License-Identifier: Apache-2.0 */
/*
 * watch.h - watching a directory, or a tree of them, through inotify
 *
 * Theory of operation. A watch is one inotify descriptor; in a tree every directory has its own
 * place in it. Clients of this protocol count on order: what happened before a request of theirs is
 * told before, and a directory that was made is watched before the next request is served. So
 * inotify is read not only when the loop finds it readable but also before each request
 * (watch_catch_up), and directories that appear are added there and then, on the loop, with the
 * user's ids. Whatever is already in such a directory is told as created; something made in just
 * that moment may be told twice, never not at all.
 *
 * What takes long goes in slices of WATCH_SLICE_NS, from an idle handle: the first look at a tree
 * (the watch is ready when that is done), a large tree that is moved in, and one huge directory.
 *
 * Bounds: WATCHES_MAX watches, WATCH_DIRS_MAX directories each, WATCH_EVENTS_MAX events that nobody
 * has taken. What does not fit, here or in the kernel's queue, is lost and said so (overflow). When
 * a further watch is wanted and there is no room, one that is polled and that nobody has asked for
 * WATCH_STALE_MS is given up.
 *
 * Attacker: processes that make, rename and link directories while they are added. Directories are
 * opened beneath the watched one, without following links, and watched by descriptor.
 */
#pragma once

#include "agent/agent.h"
#include "agent/entry.h"
#include "base/buf.h"
#include "base/list.h"
#include "base/map.h"

#define WATCHES_MAX      64
#define WATCH_DIRS_MAX   8192
#define WATCH_EVENTS_MAX 4096
#define WATCH_STALE_MS   600000
#define WATCH_SLICE_NS   3000000LL

enum watch_event_type {
	WATCH_CREATE = 1, /* numbers of the protocol's EventType */
	WATCH_WRITE,
	WATCH_REMOVE,
	WATCH_RENAME,
	WATCH_CHMOD,
};

struct watch_event {
	struct av_list node;
	enum watch_event_type type;
	uint32_t guess; /* private: of a directory's content that inotify may tell as well */
	char name[];    /* below the watched directory; "." for itself */
};

struct watch;

/* From the loop. on_ready comes once, with err when the watch cannot be (it is then closed by the
 * owner as always); on_events when there is something to take. Either may be called from within
 * watch_catch_up. */
struct watch_ops {
	void (*on_ready)(void *ctx, const struct av_err *err);
	void (*on_events)(void *ctx);
};

/* Begins to watch path (absolute) as the user. 0, or -errno with *err: NOT_FOUND, INVALID (not a
 * directory), RATE_LIMITED (too many), and no watch. */
int watch_open(struct agent *a, const struct agent_user *u, const char *path, bool recursive,
    const struct watch_ops *ops, void *ctx, struct watch **ret, struct av_err *err);
void watch_close(struct watch *w);
/* Gives it to polling clients: without an owner, known by its id. */
void watch_set_polled(struct watch *w);
struct watch *watch_find(struct agent *a, struct av_str id);
const char *watch_id(const struct watch *w);
/* What a polling client asked for when it made the watch. */
void watch_include_entry(struct watch *w, bool include);
bool watch_includes_entry(const struct watch *w);

/* The oldest event, the caller's to free; NULL when there is none. */
struct watch_event *watch_take(struct watch *w);
/* Whether events were lost since it was asked last. */
bool watch_take_overflow(struct watch *w);
/* While it is held, inotify is not read because it is readable; what piles up is the kernel's,
 * which keeps 16,384 by default. */
void watch_hold(struct watch *w, bool hold);
/* Looks at what an event names: the entry's path into path, 0; or -errno when it is gone. */
int watch_look(struct watch *w, const struct watch_event *ev, struct entry *ret,
    char path[static AV_PATH_MAX + 1]);
struct entry_names *watch_names(struct watch *w);

/* Before each request: takes in what has happened so far. */
void watch_catch_up(struct agent *a);
