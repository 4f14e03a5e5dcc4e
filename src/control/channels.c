/* SPDX-License-Identifier: Apache-2.0 */
/*
 * channels.c - channels: their records, and what they are told (see channels.h)
 */
#include "control/channels.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/ids.h"
#include "base/jsontext.h"
#include "base/log.h"
#include "control/audit.h"
#include "control/channels_internal.h"

#include "base/banned.h"

/* ---- records in memory ---- */

int channel_add(struct control *c, struct store_channel *rec, struct channel **ret)
{
	struct channel *ch = calloc(1, sizeof(*ch));
	struct av_err err;

	if (!ch)
		return -ENOMEM;
	ch->c = c;
	ch->rec = *rec;
	ch->rec.config = AV_TAKE_PTR(rec->config);
	ch->provider = channel_provider_parse(rec->provider, &err);
	if (ch->provider == CHANNEL_PROVIDERS) {
		/* A later Aviary's; this one leaves it alone. */
		ch->provider = CHANNEL_WEBHOOK;
		ch->rec.disabled_ms = 1;
	}
	av_list_append(&c->channels.all, &ch->link);
	c->channels.n++;
	if (ret)
		*ret = ch;
	return 0;
}

struct channel *channel_find(struct control *c, const char *team_id, const char *id)
{
	struct channel *ch;

	AV_LIST_FOREACH(ch, &c->channels.all, struct channel, link)
	if (strcmp(ch->rec.id, id) == 0 && strcmp(ch->rec.team_id, team_id) == 0)
		return ch;
	return NULL;
}

int channel_not_there(const char *id, struct av_err *err)
{
	if (!av_id_valid(av_str_c(id), ID_CHANNEL))
		return av_err_set(err, AV_ERR_INVALID, "'%.64s' is not the id of a channel", id);
	return av_err_set(err, AV_ERR_NOT_FOUND, "your team has no channel %s", id);
}

int channels_load(struct control *c, const struct store_channel *v, size_t n)
{
	struct channel *ch;

	for (size_t i = 0; i < n; i++) {
		struct store_channel rec = v[i];

		rec.config = av_str_dup(av_str_c(rec.config));
		if (!rec.config || channel_add(c, &rec, &ch) < 0) {
			free((char *)(uintptr_t)rec.config);
			return -ENOMEM;
		}
		ch->more = true;
	}
	c->channels.dirty = n > 0;
	return 0;
}

void channels_init(struct control *c)
{
	av_list_init(&c->channels.all);
	av_list_init(&c->channels.turned);
	av_list_init(&c->channels.leaving);
	av_list_init(&c->channels.ops);
	c->channels.next_ns = INT64_MAX;
}

void channels_clear(struct control *c)
{
	struct channel *ch;

	channel_ops_clear(c);
	while ((ch = AV_LIST_FIRST(&c->channels.all, struct channel, link)) ||
	       (ch = AV_LIST_FIRST(&c->channels.leaving, struct channel, link))) {
		av_list_remove(&ch->link);
		channel_free(ch);
	}
}

void channels_drop_team(struct control *c, const char *team_id)
{
	struct channel *ch;

	AV_LIST_FOREACH(ch, &c->channels.all, struct channel, link)
	if (strcmp(ch->rec.team_id, team_id) == 0)
		channel_drop(ch);
}

void control_channels_stats(const struct control *c, struct control_channel_stats *ret)
{
	const struct channel *ch;

	*ret = c->channels.stats;
	ret->channels = c->channels.n;
	ret->sending = c->channels.sending;
	AV_LIST_FOREACH(ch, &c->channels.all, const struct channel, link)
	{
		ret->disabled += ch->rec.disabled_ms != 0;
		ret->failing += ch->rec.failing_ms != 0;
		ret->waiting += ch->step == CHANNEL_WAITING;
	}
}

/* ---- events ---- */

/* Whether any channel of the team wants it; those that do look for it soon. */
static bool wanted(struct control *c, const char *team_id, const char *event)
{
	char word[STORE_EVENT_SIZE + 2];
	struct channel *ch;
	bool any = false;

	(void)snprintf(word, sizeof(word), " %s ", event);
	AV_LIST_FOREACH(ch, &c->channels.all, struct channel, link)
	{
		if (ch->rec.disabled_ms || strcmp(ch->rec.team_id, team_id) != 0 ||
		    !strstr(ch->rec.events, word))
			continue;
		any = true;
		channel_poke(ch);
	}
	return any;
}

static void make_notice(struct control *c, const char *team_id, const char *event, const char *type,
    const char *resource_id, const char *actor_id, const char *reason, bool alone)
{
	AV_CLEANUP(av_buf_clear) struct av_buf body = AV_BUF_INIT(CHANNEL_PAYLOAD_MAX);
	struct store_notice n = {.team_id = team_id, .event = event, .at_ms = control_real_ms(c)};

	if (!wanted(c, team_id, event))
		return;
	channel_write_payload(c, &body, event, team_id, type, resource_id, actor_id, reason);
	n.body = av_buf_cstr(&body);
	if (!n.body)
		av_log(AV_LOG_WARN, "no memory to tell a channel of an event", "event", event, "id",
		    resource_id, NULL);
	else if (!alone)
		store_announce(c->store, &n);
	else if (store_notice_put(c->store, &n, NULL, NULL) < 0)
		av_log(AV_LOG_WARN, "cannot record an event for channels", "event", event, "id",
		    resource_id, NULL);
}

void channels_announce(struct control *c, const char *team_id, const char *event, const char *type,
    const char *resource_id, const char *actor_id, const char *reason)
{
	if (c->channels.n > 0)
		make_notice(
		    c, team_id, event, type, resource_id, actor_id ? actor_id : "", reason, false);
}

void channels_withdraw(struct control *c)
{
	store_announce(c->store, NULL);
}

static const struct channel *first_of(const struct control *c, const char *team_id)
{
	const struct channel *ch;

	AV_LIST_FOREACH(ch, &c->channels.all, const struct channel, link)
	if (strcmp(ch->rec.team_id, team_id) == 0)
		return ch;
	return NULL;
}

void channels_tell_all(struct control *c, const char *team_id, const char *event, const char *type,
    const char *resource_id)
{
	const struct channel *ch;

	/* Once for each team: at the first of its channels. */
	AV_LIST_FOREACH(ch, &c->channels.all, const struct channel, link)
	if (first_of(c, ch->rec.team_id) == ch &&
	    (!team_id[0] || strcmp(ch->rec.team_id, team_id) == 0))
		make_notice(c, ch->rec.team_id, event, type, resource_id, "", NULL, true);
}

/* ---- disabling ---- */

/* For whoever asks later why. */
static void audit_disabled(const struct channel *ch)
{
	AV_CLEANUP(av_buf_clear) struct av_buf metadata = AV_BUF_INIT(AUDIT_METADATA_MAX - 1);

	(void)av_buf_append_c(&metadata, "{\"reason\":");
	(void)av_json_write_ascii(&metadata, av_str_c(ch->rec.disabled_reason));
	(void)av_buf_append_char(&metadata, '}');
	control_audit(ch->c, &(struct control_audit){.action = "channel.disable",
	                         .resource_id = ch->rec.id,
	                         .by_system = true,
	                         .team_id = ch->rec.team_id,
	                         .metadata = av_buf_cstr(&metadata)});
}

static void on_disabled(void *ctx, const struct av_err *err)
{
	struct channel *ch = ctx;

	ch->changing = false;
	if (ch->gone) {
		if (ch->step != CHANNEL_LOADING && ch->step != CHANNEL_RECORDING) {
			av_list_remove(&ch->link);
			channel_free(ch);
		}
		return;
	}
	if (err) {
		/* The next failure comes back to it. */
		ch->rec.disabled_ms = 0;
		channel_poke(ch);
		return;
	}
	channel_rest(ch);
	audit_disabled(ch);
	event_channel_disabled(ch->c, ch->rec.team_id, ch->rec.id, ch->rec.disabled_reason);
}

void channel_disable(struct channel *ch, const char *reason)
{
	if (ch->changing || ch->rec.disabled_ms || ch->gone)
		return;
	ch->rec.updated_ms = ch->rec.disabled_ms = control_real_ms(ch->c);
	(void)snprintf(ch->rec.disabled_reason, sizeof(ch->rec.disabled_reason), "%s", reason);
	av_log(AV_LOG_WARN, "a channel was disabled", "id", ch->rec.id, "reason", reason, NULL);
	ch->changing = true;
	if (store_channel_update(ch->c->store, &ch->rec, on_disabled, ch) == 0)
		return;
	ch->changing = false;
	ch->rec.disabled_ms = 0;
}
