/* SPDX-License-Identifier: Apache-2.0 */
/*
 * events.c - telling the listener what happens (see events.h)
 */
#include "control/events.h"

#include <string.h>

#include "control/accounts_internal.h"
#include "control/audit_internal.h"

#include "base/banned.h"

void control_listen(struct control *c, const struct control_listener *l, void *ctx)
{
	c->listener = l;
	c->listener_ctx = ctx;
}

static const char *key_name(const struct control *c, const char *id)
{
	const struct key *k = key_find(c, id);

	return k ? k->rec.name : NULL;
}

const char *actor_name(const struct control *c, const char *id)
{
	const struct user *u;

	if (!av_id_valid(av_str_c(id), AV_ID_USER))
		return key_name(c, id);
	u = user_find(c, id);
	return u ? u->rec.name : NULL;
}

const char *control_actor_id(const struct control_actor *a)
{
	return a->key_id[0] ? a->key_id : a->user_id;
}

static void tell(struct control *c, struct control_event *ev, const char *key_id)
{
	ev->at_ms = control_real_ms(c);
	if (key_id && key_id[0]) {
		ev->key_id = key_id;
		ev->key_name = actor_name(c, key_id);
	}
	c->listener->on_event(c->listener_ctx, ev);
}

static void tell_of(const struct sandbox *sb, struct control_event *ev, const char *key_id)
{
	struct sandbox_info info;

	sandbox_describe(sb, &info);
	ev->team_id = sb->rec.team_id;
	ev->resource_id = sb->rec.id;
	ev->sandbox = &info;
	tell(sb->c, ev, key_id);
}

void event_sandbox(const struct sandbox *sb, enum control_event_kind kind, const char *key_id,
    enum sandbox_reason reason, const struct av_err *err)
{
	struct control_event ev = {.kind = kind, .reason = reason, .err = err};

	/* What somebody asked for is in the audit log with the request. */
	if (kind == CONTROL_EVENT_SANDBOX_DESTROY && reason != SANDBOX_REASON_DELETED &&
	    reason != SANDBOX_REASON_STOPPED && reason != SANDBOX_REASON_CREATE_FAILED)
		audit_sandbox(sb, "sandbox.end", sandbox_reason_text(reason), err);
	if (sb->c->listener)
		tell_of(sb, &ev, key_id);
}

void event_state(const struct sandbox *sb, enum sandbox_state from)
{
	struct control_event ev = {
	    .kind = CONTROL_EVENT_SANDBOX_STATE, .from = from, .reason = sb->reason};

	if (sb->c->listener)
		tell_of(sb, &ev, NULL);
}

void event_change(const struct change *ch, const struct av_err *err)
{
	struct control_event ev = {.err = err, .by_request = ch->wakes};

	if (ch->waiter->idle && !err)
		audit_sandbox(
		    ch->sb, "sandbox.pause", sandbox_reason_text(SANDBOX_REASON_TIMEOUT), NULL);
	/* What was refused has not failed, and what ends meanwhile says so itself. */
	if (!ch->sb->c->listener || ch->kind == CHANGE_UPDATE || ch->kind == CHANGE_ROLLBACK ||
	    (err && (err->kind == AV_ERR_INVALID_STATE || err->kind == AV_ERR_CANCELED ||
	                err->kind == AV_ERR_QUOTA)))
		return;
	ev.kind =
	    ch->kind == CHANGE_PAUSE ? CONTROL_EVENT_SANDBOX_PAUSE : CONTROL_EVENT_SANDBOX_RESUME;
	if (ch->waiter->idle)
		ev.reason = SANDBOX_REASON_TIMEOUT;
	tell_of(ch->sb, &ev, ch->waiter->key_id);
}

void event_template(struct control *c, enum control_event_kind kind, const char *team_id,
    const char *name, const char *key_id, const struct av_err *err)
{
	struct control_event ev = {
	    .kind = kind, .team_id = team_id, .resource_id = name, .err = err};

	if (c->listener)
		tell(c, &ev, key_id);
}

void event_host(
    struct control *c, enum control_event_kind kind, const char *team_id, const char *id)
{
	struct control_event ev = {.kind = kind, .team_id = team_id, .resource_id = id};

	if (c->listener)
		tell(c, &ev, NULL);
}

void event_channel_disabled(struct control *c, const char *team_id, const char *id, const char *why)
{
	struct control_event ev = {.kind = CONTROL_EVENT_CHANNEL_DISABLE,
	    .team_id = team_id,
	    .resource_id = id,
	    .message = why};

	if (c->listener)
		tell(c, &ev, NULL);
}

void event_key_deleted(struct control *c, const char *key_id)
{
	if (c->listener)
		c->listener->on_key_deleted(c->listener_ctx, key_id);
}

void event_stopping(struct control *c)
{
	if (c->listener)
		c->listener->on_stopping(c->listener_ctx);
}
