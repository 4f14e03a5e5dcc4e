/* SPDX-License-Identifier: Apache-2.0 */
/*
 * events.h - being told what happens to sandboxes and templates
 *
 * An event is told once, when what it says is written and before whoever asked for it is answered;
 * failures too, except those of requests that were refused at once. What happened while nobody
 * listened is not told later. The listener must not call back into control.
 */
#pragma once

#include "control/sandbox.h"

enum control_event_kind {
#define CONTROL_EVENT(name) CONTROL_EVENT_##name,
#include "control/events.def"
#undef CONTROL_EVENT
	CONTROL_EVENT_COUNT
};

/* Everything is borrowed until the callback returns. */
struct control_event {
	enum control_event_kind kind;
	int64_t at_ms;           /* real time */
	const char *team_id;     /* empty: of no team, as hosts that are for all */
	const char *resource_id; /* of the sandbox, host or channel; the name of a template */
	const char
	    *key_id; /* of who asked: a key or a user; NULL: nobody did, Aviary does it by itself */
	const char *key_name;    /* NULL: not known any more */
	enum sandbox_state from; /* SANDBOX_STATE only */
	/* Why it ended, or was paused; NONE where there is nothing to say. */
	enum sandbox_reason reason;
	bool by_request; /* a resume that a request caused which needs it running */
	const struct sandbox_info *sandbox; /* as it is now; NULL for what is none */
	const struct av_err *err;           /* it failed; NULL: it is done */
	const char *message;                /* for people; or NULL */
};

struct control_listener {
	void (*on_event)(void *ctx, const struct control_event *ev);
	/* Nothing may be told any more to whoever showed this key, or a session of this user. */
	void (*on_key_deleted)(void *ctx, const char *key_id);
	/* control_stop was called. */
	void (*on_stopping)(void *ctx);
};

/* One listener, borrowed; NULL: none from now on. All members must be set. */
void control_listen(struct control *c, const struct control_listener *l, void *ctx);
