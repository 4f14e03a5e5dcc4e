/* SPDX-License-Identifier: Apache-2.0 */
/*
 * channel_ops.c - what people do with channels: make, look, change, delete, try, send again
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/ids.h"
#include "control/accounts.h"
#include "control/channels_internal.h"

#include "base/banned.h"

/* Somebody waits for an answer; the handle they were given is the first member. */
struct channel_op {
	struct node_call call; /* first */
	struct av_list link;   /* c->channels.ops */
	struct control *c;
	bool cancelled;
	union {
		control_channels_fn *channels;
		control_deliveries_fn *deliveries;
		node_done_fn *done;
	} fn;
	void *ctx;
	char id[AV_ID_SIZE];
	char secret[CHANNEL_SECRET_SIZE];
	struct store_channel next;          /* its config is owned */
	struct channel *ch;                 /* update: it is `changing` */
	struct control_outbound_call *http; /* test */
	char team_id[AV_ID_SIZE];           /* test */
};

/* ---- ops ---- */

static void op_free(struct channel_op *op)
{
	av_list_remove(&op->link);
	free((char *)(uintptr_t)op->next.config);
	explicit_bzero(op->secret, sizeof(op->secret));
	free(op);
}

void channel_ops_clear(struct control *c)
{
	struct channel_op *op;

	while ((op = AV_LIST_FIRST(&c->channels.ops, struct channel_op, link)))
		op_free(op);
}

static void op_cancel(struct node_call *call)
{
	struct channel_op *op = AV_CONTAINER_OF(call, struct channel_op, call);

	op->cancelled = true;
	if (!op->http)
		return;
	op->c->config.outbound->cancel(op->http);
	op_free(op);
}

static struct channel_op *op_new(struct control *c, void *ctx, struct node_call **ret)
{
	struct channel_op *op = calloc(1, sizeof(*op));

	if (!op)
		return NULL;
	op->call.cancel = op_cancel;
	op->c = c;
	op->ctx = ctx;
	av_list_append(&c->channels.ops, &op->link);
	if (ret)
		*ret = &op->call;
	return op;
}

/* What a request that could not be queued ends with. */
static int op_refuse(struct channel_op *op, struct av_err *err)
{
	op_free(op);
	return av_err_set(err, AV_ERR_UNAVAILABLE, "the database takes no more requests");
}

static void describe(const struct store_channel *rec, struct control_channel *ret)
{
	*ret = (struct control_channel){.id = rec->id,
	    .team_id = rec->team_id,
	    .name = rec->name,
	    .provider = rec->provider,
	    .events = rec->events,
	    .disabled_reason = rec->disabled_reason,
	    .created_ms = rec->created_ms,
	    .updated_ms = rec->updated_ms,
	    .disabled_ms = rec->disabled_ms,
	    .failing_ms = rec->failing_ms,
	    .delivered_ms = rec->delivered_ms,
	    .pending = rec->pending,
	    .dropped = rec->dropped};
}

static void answer_one(
    struct channel_op *op, const struct store_channel *rec, const struct av_err *err)
{
	struct control_channel view;

	if (!op->cancelled) {
		if (!err) {
			describe(rec, &view);
			view.secret = op->secret[0] ? op->secret : NULL;
		}
		op->fn.channels(op->ctx, err ? NULL : &view, err ? 0 : 1, err);
	}
	op_free(op);
}

/* ---- create ---- */

static void on_inserted(void *ctx, const struct av_err *err)
{
	struct channel_op *op = ctx;
	struct control *c = op->c;
	struct av_err own;
	struct channel *ch;

	c->channels.creating--;
	if (!err && channel_add(c, &op->next, &ch) < 0) {
		(void)av_err_set(&own, AV_ERR_NO_MEMORY, "out of memory");
		err = &own;
	}
	answer_one(op, err ? NULL : &ch->rec, err);
}

static int check_room(struct control *c, const char *team_id, struct av_err *err)
{
	const struct channel_op *op;
	const struct channel *ch;
	size_t n = 0;

	AV_LIST_FOREACH(ch, &c->channels.all, const struct channel, link)
	n += strcmp(ch->rec.team_id, team_id) == 0;
	AV_LIST_FOREACH(op, &c->channels.ops, const struct channel_op, link)
	n += !op->ch && strcmp(op->next.team_id, team_id) == 0;
	if (n >= CHANNELS_TEAM_MAX)
		return av_err_set(err, AV_ERR_QUOTA,
		    "your team has %zu channels, and %d are allowed; delete some", n,
		    CHANNELS_TEAM_MAX);
	if (c->channels.n + c->channels.creating >= CHANNELS_MAX)
		return av_err_set(err, AV_ERR_QUOTA,
		    "this Aviary has %zu channels, and %d are allowed; delete some", c->channels.n,
		    CHANNELS_MAX);
	return 0;
}

static int missing(const char *field, struct av_err *err)
{
	return av_err_set(err, AV_ERR_INVALID, "field '%s': missing", field);
}

static int fill_new(struct channel_op *op, const struct channel_params *p, struct av_err *err)
{
	struct store_channel *rec = &op->next;
	enum channel_provider provider;
	char *config = NULL;
	int r;

	if (!p->name || !p->provider || !p->config || !p->events)
		return missing(!p->name       ? "name"
		               : !p->provider ? "provider"
		               : !p->config   ? "config"
		                              : "events",
		    err);
	if ((r = channel_name_take(p->name, rec->name, err)) < 0 ||
	    (r = channel_events_take(p->events, rec->events, err)) < 0)
		return r;
	provider = channel_provider_parse(p->provider, err);
	if (provider == CHANNEL_PROVIDERS)
		return -EINVAL;
	av_id_make(rec->id, ID_CHANNEL);
	r = channel_config_seal(
	    op->c, rec->id, provider, p->config, NULL, op->secret, &config, err);
	rec->config = config;
	(void)snprintf(rec->provider, sizeof(rec->provider), "%s", channel_provider_text(provider));
	return r;
}

int control_channel_create(struct control *c, const struct control_actor *a,
    const struct channel_params *p, control_channels_fn *fn, void *ctx, struct node_call **ret,
    struct av_err *err)
{
	int r = control_check_open(c, err);
	struct channel_op *op;

	if (r < 0 || (r = control_need_role(a, CONTROL_ROLE_ADMIN, err)) < 0 ||
	    (r = check_room(c, a->team_id, err)) < 0)
		return r;
	op = op_new(c, ctx, NULL);
	if (!op)
		return av_err_set(err, AV_ERR_NO_MEMORY, "out of memory");
	op->fn.channels = fn;
	r = fill_new(op, p, err);
	if (r < 0) {
		op_free(op);
		return r;
	}
	memcpy(op->next.team_id, a->team_id, AV_ID_SIZE);
	op->next.created_ms = op->next.updated_ms = control_real_ms(c);
	if (store_channel_insert(c->store, &op->next, on_inserted, op) < 0)
		return op_refuse(op, err);
	c->channels.creating++;
	if (ret)
		*ret = &op->call;
	return 0;
}

/* ---- look ---- */

static void on_listed(void *ctx, const struct store_channel *v, size_t n, const struct av_err *err)
{
	struct channel_op *op = ctx;
	struct control_channel *views = n ? calloc(n, sizeof(*views)) : NULL;
	size_t count = 0;
	struct av_err own;

	if (n && !views) {
		(void)av_err_set(&own, AV_ERR_NO_MEMORY, "out of memory");
		err = &own;
	}
	for (size_t i = 0; i < n && views; i++)
		if (!op->id[0] || strcmp(op->id, v[i].id) == 0)
			describe(&v[i], &views[count++]);
	if (!err && op->id[0] && !count) {
		(void)channel_not_there(op->id, &own);
		err = &own;
	}
	if (!op->cancelled)
		op->fn.channels(op->ctx, err ? NULL : views, err ? 0 : count, err);
	free(views);
	op_free(op);
}

int control_channel_list(struct control *c, const struct control_actor *a, const char *id,
    control_channels_fn *fn, void *ctx, struct node_call **ret, struct av_err *err)
{
	int r = control_check_open(c, err);
	struct channel_op *op;

	if (r < 0 || (r = control_need_role(a, CONTROL_ROLE_MEMBER, err)) < 0)
		return r;
	if (id && !channel_find(c, a->team_id, id))
		return channel_not_there(id, err);
	op = op_new(c, ctx, NULL);
	if (!op)
		return av_err_set(err, AV_ERR_NO_MEMORY, "out of memory");
	op->fn.channels = fn;
	if (id)
		memcpy(op->id, id, AV_ID_SIZE);
	if (store_channel_list(c->store, a->team_id, on_listed, op) < 0)
		return op_refuse(op, err);
	if (ret)
		*ret = &op->call;
	return 0;
}

/* ---- change ---- */

static void on_updated(void *ctx, const struct av_err *err)
{
	struct channel_op *op = ctx;
	struct channel *ch = op->ch;
	const char *config;

	ch->changing = false;
	if (ch->gone) {
		struct av_err own;

		(void)channel_not_there(ch->rec.id, &own);
		answer_one(op, NULL, err ? err : &own);
		if (ch->step != CHANNEL_LOADING && ch->step != CHANNEL_RECORDING) {
			av_list_remove(&ch->link);
			channel_free(ch);
		}
		return;
	}
	if (!err) {
		if (ch->rec.disabled_ms && !op->next.disabled_ms)
			ch->rec.failing_ms = 0;
		config = ch->rec.config;
		op->next.failing_ms = ch->rec.failing_ms;
		op->next.delivered_ms = ch->rec.delivered_ms;
		ch->rec = op->next;
		if (ch->rec.disabled_ms)
			channel_rest(ch);
		op->next.config = config; /* freed with the op */
	}
	channel_poke(ch);
	answer_one(op, &ch->rec, err);
}

static int fill_update(struct channel_op *op, const struct channel_params *p, struct av_err *err)
{
	struct store_channel *next = &op->next;
	const char *former = op->ch->rec.config;
	char *config = NULL;
	int r = 0;

	*next = op->ch->rec;
	next->config = NULL;
	if (p->name)
		r = channel_name_take(p->name, next->name, err);
	if (r == 0 && p->events)
		r = channel_events_take(p->events, next->events, err);
	if (r == 0 && p->config)
		r = channel_config_seal(
		    op->c, next->id, op->ch->provider, p->config, former, NULL, &config, err);
	else if (r == 0 && !(config = av_str_dup(av_str_c(former))))
		r = av_err_set(err, AV_ERR_NO_MEMORY, "out of memory");
	next->config = config;
	next->updated_ms = control_real_ms(op->c);
	if (p->config || (p->enabled && *p->enabled)) {
		next->disabled_ms = 0;
		next->disabled_reason[0] = '\0';
	} else if (p->enabled && !next->disabled_ms) {
		next->disabled_ms = next->updated_ms;
		(void)snprintf(next->disabled_reason, sizeof(next->disabled_reason),
		    "by a member of the team");
	}
	return r;
}

int control_channel_update(struct control *c, const struct control_actor *a, const char *id,
    const struct channel_params *p, control_channels_fn *fn, void *ctx, struct node_call **ret,
    struct av_err *err)
{
	int r = control_check_open(c, err);
	struct channel *ch = channel_find(c, a->team_id, id);
	struct channel_op *op;

	if (r < 0 || (r = control_need_role(a, CONTROL_ROLE_ADMIN, err)) < 0)
		return r;
	if (!ch)
		return channel_not_there(id, err);
	if (ch->changing)
		return av_err_set(err, AV_ERR_INVALID_STATE,
		    "the channel is being changed by somebody else; try again");
	op = op_new(c, ctx, NULL);
	if (!op)
		return av_err_set(err, AV_ERR_NO_MEMORY, "out of memory");
	op->fn.channels = fn;
	op->ch = ch;
	r = fill_update(op, p, err);
	if (r < 0) {
		op_free(op);
		return r;
	}
	if (store_channel_update(c->store, &op->next, on_updated, op) < 0)
		return op_refuse(op, err);
	ch->changing = true;
	if (ret)
		*ret = &op->call;
	return 0;
}

/* ---- delete ---- */

static void on_deleted(void *ctx, const struct av_err *err)
{
	struct channel_op *op = ctx;
	struct channel *ch = channel_find(op->c, op->team_id, op->id);

	if (!err && ch)
		channel_drop(ch);
	if (!op->cancelled)
		op->fn.done(op->ctx, err);
	op_free(op);
}

int control_channel_delete(struct control *c, const struct control_actor *a, const char *id,
    node_done_fn *fn, void *ctx, struct node_call **ret, struct av_err *err)
{
	int r = control_check_open(c, err);
	struct channel_op *op;

	if (r < 0 || (r = control_need_role(a, CONTROL_ROLE_ADMIN, err)) < 0)
		return r;
	if (!channel_find(c, a->team_id, id))
		return channel_not_there(id, err);
	op = op_new(c, ctx, NULL);
	if (!op)
		return av_err_set(err, AV_ERR_NO_MEMORY, "out of memory");
	op->fn.done = fn;
	memcpy(op->id, id, AV_ID_SIZE);
	memcpy(op->team_id, a->team_id, AV_ID_SIZE);
	if (store_channel_delete(c->store, id, on_deleted, op) < 0)
		return op_refuse(op, err);
	if (ret)
		*ret = &op->call;
	return 0;
}

/* ---- try ---- */

static void on_tested(void *ctx, const struct control_http_answer *answer, const struct av_err *err)
{
	struct channel_op *op = ctx;
	struct av_err own;

	if (answer && (answer->status < 200 || answer->status > 299)) {
		(void)av_err_set(&own, AV_ERR_UPSTREAM, "the receiver answered %d", answer->status);
		err = &own;
	}
	if (err && err->kind == AV_ERR_REQUEST_TIMEOUT) {
		/* Not the request that asks for the test. */
		own = *err;
		own.kind = AV_ERR_UPSTREAM;
		err = &own;
	}
	op->http = NULL;
	op->fn.done(op->ctx, err);
	op_free(op);
}

/* Sends it through the same seals as a channel's own. */
static int start_test(struct channel_op *op, const struct channel_params *p, struct av_err *err)
{
	AV_CLEANUP(av_buf_clear) struct av_buf body = AV_BUF_INIT(CHANNEL_PAYLOAD_MAX);
	enum channel_provider provider = channel_provider_parse(p->provider, err);
	char *sealed = NULL;
	json_t *config = NULL;
	struct message m;
	int r;

	if (provider == CHANNEL_PROVIDERS)
		return -EINVAL;
	av_id_make(op->id, ID_CHANNEL);
	r = channel_config_seal(op->c, op->id, provider, p->config, NULL, NULL, &sealed, err);
	if (r == 0)
		r = channel_config_open(op->c, op->id, sealed, &config, err);
	free(sealed);
	if (r < 0)
		return r;
	channel_write_payload(
	    op->c, &body, "channel.test", op->team_id, "channel", op->id, op->next.id, NULL);
	r = av_buf_cstr(&body)
	        ? message_make(op->c, provider, config, "00000000-0000-4000-8000-000000000000",
	              "channel.test", av_buf_cstr(&body), &m)
	        : -ENOMEM;
	channel_config_wipe(config);
	if (r < 0)
		return av_err_set(err, AV_ERR_NO_MEMORY, "out of memory");
	r = message_send(op->c, &m, on_tested, op, &op->http, err);
	message_clear(&m);
	return r;
}

int control_channel_test(struct control *c, const struct control_actor *a,
    const struct channel_params *p, node_done_fn *fn, void *ctx, struct node_call **ret,
    struct av_err *err)
{
	int r = control_check_open(c, err);
	struct channel_op *op;
	size_t n = 0;

	if (r < 0 || (r = control_need_role(a, CONTROL_ROLE_ADMIN, err)) < 0)
		return r;
	if (!p->provider || !p->config)
		return missing(p->provider ? "config" : "provider", err);
	AV_LIST_FOREACH(op, &c->channels.ops, struct channel_op, link)
	n += op->http && strcmp(op->team_id, a->team_id) == 0;
	if (n >= CHANNEL_TESTS_TEAM)
		return av_err_set(err, AV_ERR_RATE_LIMITED,
		    "%zu tests of your team are under way, and %d are allowed; wait for one", n,
		    CHANNEL_TESTS_TEAM);
	op = op_new(c, ctx, NULL);
	if (!op)
		return av_err_set(err, AV_ERR_NO_MEMORY, "out of memory");
	op->fn.done = fn;
	memcpy(op->team_id, a->team_id, AV_ID_SIZE);
	memcpy(op->next.id, control_actor_id(a), AV_ID_SIZE);
	r = start_test(op, p, err);
	if (r < 0) {
		op_free(op);
		return r;
	}
	if (ret)
		*ret = &op->call;
	return 0;
}

/* ---- deliveries ---- */

static void on_page(void *ctx, const struct store_delivery *v, size_t n, const struct av_err *err)
{
	struct channel_op *op = ctx;
	struct control_delivery *views = n ? calloc(n, sizeof(*views)) : NULL;
	struct av_err own;

	if (n && !views) {
		(void)av_err_set(&own, AV_ERR_NO_MEMORY, "out of memory");
		err = &own;
	}
	for (size_t i = 0; i < n && views; i++)
		views[i] = (struct control_delivery){.id = v[i].id,
		    .event = v[i].event,
		    .state = v[i].state,
		    .error = v[i].error,
		    .seq = v[i].seq,
		    .attempts = v[i].attempts,
		    .status = v[i].status,
		    .created_ms = v[i].created_ms,
		    .last_ms = v[i].last_ms,
		    .duration_ms = v[i].duration_ms,
		    .next_ms = v[i].next_ms};
	if (!op->cancelled)
		op->fn.deliveries(op->ctx, err ? NULL : views, err ? 0 : n, err);
	free(views);
	op_free(op);
}

int control_channel_deliveries(struct control *c, const struct control_actor *a, const char *id,
    int64_t before, size_t limit, control_deliveries_fn *fn, void *ctx, struct node_call **ret,
    struct av_err *err)
{
	int r = control_check_open(c, err);
	struct channel_op *op;

	if (r < 0 || (r = control_need_role(a, CONTROL_ROLE_MEMBER, err)) < 0)
		return r;
	if (!channel_find(c, a->team_id, id))
		return channel_not_there(id, err);
	op = op_new(c, ctx, NULL);
	if (!op)
		return av_err_set(err, AV_ERR_NO_MEMORY, "out of memory");
	op->fn.deliveries = fn;
	if (store_delivery_page(c->store, id, before > 0 ? before : INT64_MAX, limit, on_page, op) <
	    0)
		return op_refuse(op, err);
	if (ret)
		*ret = &op->call;
	return 0;
}

static void on_again(void *ctx, const struct av_err *err)
{
	struct channel_op *op = ctx;
	struct channel *ch = channel_find(op->c, op->team_id, op->id);

	if (!err && ch)
		channel_poke(ch);
	if (!op->cancelled)
		op->fn.done(op->ctx, err);
	op_free(op);
}

int control_channel_redeliver(struct control *c, const struct control_actor *a, const char *id,
    const char *delivery, node_done_fn *fn, void *ctx, struct node_call **ret, struct av_err *err)
{
	int r = control_check_open(c, err);
	const struct channel *ch = channel_find(c, a->team_id, id);
	struct channel_op *op;

	if (r < 0 || (r = control_need_role(a, CONTROL_ROLE_ADMIN, err)) < 0)
		return r;
	if (!ch)
		return channel_not_there(id, err);
	if (ch->rec.disabled_ms)
		return av_err_set(err, AV_ERR_INVALID_STATE,
		    "the channel is disabled, and sends nothing until it is enabled: %s",
		    ch->rec.disabled_reason);
	if (strlen(delivery) >= STORE_UUID_SIZE)
		return av_err_set(err, AV_ERR_NOT_FOUND,
		    "the channel has no delivery %.64s (any more)", delivery);
	op = op_new(c, ctx, NULL);
	if (!op)
		return av_err_set(err, AV_ERR_NO_MEMORY, "out of memory");
	op->fn.done = fn;
	memcpy(op->id, id, AV_ID_SIZE);
	memcpy(op->team_id, a->team_id, AV_ID_SIZE);
	if (store_delivery_again(c->store, id, delivery, on_again, op) < 0)
		return op_refuse(op, err);
	if (ret)
		*ret = &op->call;
	return 0;
}
