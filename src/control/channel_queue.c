/* SPDX-License-Identifier: Apache-2.0 */
/*
 * channel_queue.c - deliveries of channels, one after the other (see channels.h)
 *
 * Theory of operation. The queue is in the store; here is at most its first delivery of each
 * channel:
 *
 *   IDLE ─poked→ LOADING ─there is one→ WAITING ─due, and there is room→ SENDING ─answer→ RECORDING
 * ─┐ ↑             └──there is none──┐    ↑ │ └────────────────────────────────┴───┴───────── the
 * store answers with the next ──────────────┘
 *
 * What became of an attempt is written before the next one, so that a daemon that dies in between
 * sends it again under the same id. `more` says that something was written since the store was
 * asked last: the store works in the order of its requests.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/avtime.h"
#include "base/log.h"
#include "control/channels_internal.h"

#include "base/banned.h"

#define RETRY_AFTER_MAX_S 3600
#define STORE_RETRY_NS    (5 * AV_NS_PER_S)

/* Before the second attempt, the third, ... */
static const int64_t delays_s[] = {10, 30, 120, 600, 1800, 3600, 7200};

void channel_free(struct channel *ch)
{
	free((char *)(uintptr_t)ch->rec.config);
	free((char *)(uintptr_t)ch->now.body);
	free(ch);
}

static void forget_now(struct channel *ch)
{
	free((char *)(uintptr_t)ch->now.body);
	ch->now = (struct store_delivery){0};
}

void channel_rest(struct channel *ch)
{
	if (ch->step != CHANNEL_WAITING)
		return;
	forget_now(ch);
	ch->step = CHANNEL_IDLE;
}

static bool is_away(const struct channel *ch)
{
	return ch->step == CHANNEL_LOADING || ch->step == CHANNEL_RECORDING || ch->changing;
}

void channel_poke(struct channel *ch)
{
	ch->more = true;
	ch->c->channels.dirty = true;
	control_wake(ch->c, 0);
}

static void stop_sending(struct channel *ch)
{
	if (ch->step != CHANNEL_SENDING)
		return;
	ch->c->config.outbound->cancel(ch->call);
	ch->call = NULL;
	ch->c->channels.sending--;
	ch->step = CHANNEL_IDLE;
	ch->c->channels.dirty = true;
}

void channel_drop(struct channel *ch)
{
	stop_sending(ch);
	av_list_remove(&ch->link);
	if (!ch->gone)
		ch->c->channels.n--;
	ch->gone = true;
	if (!is_away(ch))
		channel_free(ch);
	else
		av_list_append(&ch->c->channels.leaving, &ch->link);
}

/* The store has answered. False: it was deleted meanwhile, and is freed. */
static bool is_back(struct channel *ch)
{
	ch->step = CHANNEL_IDLE;
	if (ch->gone && !ch->changing) {
		av_list_remove(&ch->link);
		channel_free(ch);
		return false;
	}
	return !ch->gone;
}

/* ---- the store ---- */

/* v is the first that waits. */
static void adopt(struct channel *ch, const struct store_delivery *v)
{
	char *body = av_str_dup(av_str_c(v->body));
	int64_t wait_ms = v->next_ms - control_real_ms(ch->c);
	int64_t now = control_boot_ns(ch->c);

	if (!body) {
		ch->more = true;
		ch->next_ns = now + STORE_RETRY_NS;
		return;
	}
	ch->now = *v;
	ch->now.body = body;
	ch->step = CHANNEL_WAITING;
	/* A clock that was set must not make it wait for longer than it ever does. */
	wait_ms = AV_MIN(wait_ms, 1000 * delays_s[AV_ARRAY_LEN(delays_s) - 1]);
	ch->next_ns = v->next_ms && wait_ms > 0 ? now + wait_ms * AV_NS_PER_MS : now;
}

static void on_next(void *ctx, const struct store_delivery *v, size_t n, const struct av_err *err)
{
	struct channel *ch = ctx;

	if (!is_back(ch))
		return;
	if (err) {
		av_log(AV_LOG_WARN, "cannot read what a channel has to send", "id", ch->rec.id,
		    "error", err->message, NULL);
		ch->more = true;
		ch->next_ns = control_boot_ns(ch->c) + STORE_RETRY_NS;
	} else if (n > 0 && !ch->rec.disabled_ms) {
		adopt(ch, v);
	}
	ch->c->channels.dirty = true;
	control_wake(ch->c, 0);
}

static void load(struct channel *ch)
{
	ch->more = false;
	ch->step = CHANNEL_LOADING;
	if (store_delivery_next(ch->c->store, ch->rec.id, on_next, ch) == 0)
		return;
	ch->step = CHANNEL_IDLE;
	ch->more = true;
	ch->next_ns = control_boot_ns(ch->c) + STORE_RETRY_NS;
}

static void on_recorded(
    void *ctx, const struct store_delivery *v, size_t n, const struct av_err *err)
{
	struct channel *ch = ctx;

	if (!is_back(ch))
		return;
	ch->c->channels.dirty = true;
	control_wake(ch->c, 0);
	if (err) {
		av_log(AV_LOG_WARN, "cannot record a delivery", "channel", ch->rec.id, "delivery",
		    ch->now.id, "error", err->message, NULL);
		ch->step = CHANNEL_UNRECORDED;
		ch->next_ns = control_boot_ns(ch->c) + STORE_RETRY_NS;
		return;
	}
	forget_now(ch);
	if (n > 0 && !ch->rec.disabled_ms)
		adopt(ch, v);
}

static void record(struct channel *ch)
{
	ch->more = false;
	ch->step = CHANNEL_RECORDING;
	if (store_delivery_finish(ch->c->store, &ch->now, ch->rec.failing_ms, on_recorded, ch) == 0)
		return;
	ch->step = CHANNEL_UNRECORDED;
	ch->next_ns = control_boot_ns(ch->c) + STORE_RETRY_NS;
}

/* ---- attempts ---- */

/* Cuts what does not fit. */
static void set_text(char *dst, size_t size, const char *src)
{
	size_t n = strnlen(src, size - 1);

	memcpy(dst, src, n);
	dst[n] = '\0';
}

static void failed(struct channel *ch, uint32_t retry_after_s)
{
	struct store_delivery *d = &ch->now;
	size_t n = (size_t)d->tries;
	int64_t delay_s;

	ch->c->channels.stats.failed++;
	if (!ch->rec.failing_ms)
		ch->rec.failing_ms = d->last_ms;
	if (n > AV_ARRAY_LEN(delays_s)) {
		ch->c->channels.stats.given_up++;
		set_text(d->state, sizeof(d->state), "failed");
		d->next_ms = 0;
		av_log(AV_LOG_WARN, "a delivery was given up", "channel", ch->rec.id, "delivery",
		    d->id, "error", d->error, NULL);
		return;
	}
	delay_s = delays_s[n - 1];
	retry_after_s = AV_MIN(retry_after_s, (uint32_t)RETRY_AFTER_MAX_S);
	d->next_ms = d->last_ms + 1000 * AV_MAX(delay_s, (int64_t)retry_after_s);
}

/* Whether it is time to give the channel up, and why. */
static void check_health(struct channel *ch)
{
	char reason[256], since[32];

	if (ch->gone_for_good) {
		channel_disable(ch, "the receiver answered 410: it is gone for good");
		return;
	}
	if (!ch->rec.failing_ms || control_real_ms(ch->c) - ch->rec.failing_ms < CHANNEL_FAILING_MS)
		return;
	av_rfc3339_ms(ch->rec.failing_ms, since);
	(void)snprintf(reason, sizeof(reason), "nothing arrived since %s; the last error: %.160s",
	    since, ch->now.error);
	channel_disable(ch, reason);
}

static void attempt_over(
    struct channel *ch, const struct control_http_answer *answer, const struct av_err *err)
{
	struct store_delivery *d = &ch->now;

	d->attempts++;
	d->tries++;
	d->last_ms = control_real_ms(ch->c);
	d->status = answer ? answer->status : 0;
	d->duration_ms = answer ? answer->elapsed_ms : 0;
	d->error[0] = '\0';
	ch->c->channels.stats.attempts++;
	if (answer && answer->status >= 200 && answer->status <= 299) {
		ch->c->channels.stats.delivered++;
		set_text(d->state, sizeof(d->state), "delivered");
		d->next_ms = 0;
		ch->rec.failing_ms = 0;
		ch->rec.delivered_ms = d->last_ms;
		return;
	}
	if (answer)
		(void)snprintf(
		    d->error, sizeof(d->error), "the receiver answered %d", answer->status);
	else
		set_text(d->error, sizeof(d->error), err->message);
	ch->gone_for_good = answer && answer->status == 410;
	failed(ch, answer ? answer->retry_after_s : 0);
}

static void on_answer(void *ctx, const struct control_http_answer *answer, const struct av_err *err)
{
	struct channel *ch = ctx;
	struct control *c = ch->c;

	ch->call = NULL;
	c->channels.sending--;
	c->channels.dirty = true;
	control_wake(c, 0);
	/* Not the receiver's fault, and not an attempt. */
	if (err && (err->kind == AV_ERR_CANCELED || err->kind == AV_ERR_UNAVAILABLE ||
	               err->kind == AV_ERR_NO_MEMORY)) {
		ch->step = CHANNEL_WAITING;
		ch->next_ns = control_boot_ns(c) + STORE_RETRY_NS;
		return;
	}
	attempt_over(ch, answer, err);
	record(ch);
	check_health(ch);
}

/* It cannot even be tried: as an attempt that failed. */
static void cannot_send(struct channel *ch, const struct av_err *err)
{
	attempt_over(ch, NULL, err);
	record(ch);
	check_health(ch);
}

static void send_now(struct channel *ch)
{
	struct control *c = ch->c;
	struct message m;
	struct av_err err;
	json_t *config = NULL;
	int r = channel_config_open(c, ch->rec.id, ch->rec.config, &config, &err);

	if (r == 0) {
		r = message_make(
		    c, ch->provider, config, ch->now.id, ch->now.event, ch->now.body, &m);
		channel_config_wipe(config);
		if (r < 0)
			(void)av_err_set(&err, AV_ERR_NO_MEMORY, "out of memory");
	}
	if (r == 0) {
		r = message_send(c, &m, on_answer, ch, &ch->call, &err);
		message_clear(&m);
	}
	if (r == 0) {
		ch->step = CHANNEL_SENDING;
		c->channels.sending++;
	} else if (err.kind == AV_ERR_NO_MEMORY || err.kind == AV_ERR_UNAVAILABLE) {
		ch->next_ns = control_boot_ns(c) + STORE_RETRY_NS;
	} else {
		cannot_send(ch, &err);
	}
}

/* How many of its team are under way. */
static size_t sending_of(const struct control *c, const char *team_id)
{
	const struct channel *ch;
	size_t n = 0;

	AV_LIST_FOREACH(ch, &c->channels.all, const struct channel, link)
	n += ch->step == CHANNEL_SENDING && strcmp(ch->rec.team_id, team_id) == 0;
	AV_LIST_FOREACH(ch, &c->channels.turned, const struct channel, link)
	n += ch->step == CHANNEL_SENDING && strcmp(ch->rec.team_id, team_id) == 0;
	return n;
}

/* Whether it had its turn. */
static bool turn(struct channel *ch, int64_t now)
{
	struct control *c = ch->c;

	if (ch->rec.disabled_ms || ch->changing)
		return false;
	if (ch->step == CHANNEL_IDLE && ch->more && now >= ch->next_ns) {
		load(ch);
	} else if (ch->step == CHANNEL_UNRECORDED && now >= ch->next_ns) {
		record(ch);
	} else if (ch->step == CHANNEL_WAITING && now >= ch->next_ns) {
		/* Without room: when one of those under way is over. */
		if (c->channels.sending >= CHANNEL_SENDING_MAX ||
		    sending_of(c, ch->rec.team_id) >= CHANNEL_SENDING_TEAM)
			return false;
		send_now(ch);
		return true;
	}
	return false;
}

void channels_tick(struct control *c, int64_t now)
{
	struct channel *ch;

	if (!c->channels.dirty && now < c->channels.next_ns)
		return;
	c->channels.dirty = false;
	c->channels.next_ns = INT64_MAX;
	/* Who had a turn goes to the end, so that nobody waits for the same ones again. */
	AV_LIST_FOREACH(ch, &c->channels.all, struct channel, link)
	{
		if (turn(ch, now)) {
			av_list_remove(&ch->link);
			av_list_append(&c->channels.turned, &ch->link);
		}
		if ((ch->step == CHANNEL_WAITING || ch->step == CHANNEL_UNRECORDED ||
		        (ch->step == CHANNEL_IDLE && ch->more)) &&
		    !ch->rec.disabled_ms && ch->next_ns > now)
			c->channels.next_ns = AV_MIN(c->channels.next_ns, ch->next_ns);
	}
	while ((ch = AV_LIST_FIRST(&c->channels.turned, struct channel, link))) {
		av_list_remove(&ch->link);
		av_list_append(&c->channels.all, &ch->link);
	}
}

void channels_stop(struct control *c)
{
	struct channel *ch;

	AV_LIST_FOREACH(ch, &c->channels.all, struct channel, link)
	stop_sending(ch);
}
