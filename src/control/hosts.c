/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hosts.c - hosts in memory, who is heard of, and changes taking turns (see hosts.h)
 */
#include "control/hosts.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/avtime.h"
#include "base/log.h"
#include "control/audit_internal.h"
#include "control/hosts_internal.h"

#include "base/banned.h"

#define LOOK_NS    (5 * AV_NS_PER_S)
#define SILENCE_NS (HOST_SILENCE_S * AV_NS_PER_S)

/* ---- looking ---- */

struct host *host_find(const struct control *c, const char *id)
{
	struct host *h;

	AV_LIST_FOREACH(h, &c->hosts->list, struct host, link)
	if (strcmp(h->rec.id, id) == 0)
		return h;
	return NULL;
}

bool host_is_seen(const struct host *h, const struct control_actor *a)
{
	return control_need_admin(a, NULL) == 0 ||
	       (h->rec.team_id[0] && strcmp(h->rec.team_id, a->team_id) == 0);
}

int host_check_change(const struct control *c, const struct host *h, const struct control_actor *a,
    struct av_err *err)
{
	(void)c;
	if (control_need_admin(a, NULL) == 0)
		return 0;
	if (!h->rec.team_id[0])
		return control_need_admin(a, err);
	return control_need_role(a, CONTROL_ROLE_ADMIN, err);
}

void host_describe(const struct control *c, const struct host *h, struct control_host *ret)
{
	const struct team *t = h->rec.team_id[0] ? team_find(c, h->rec.team_id) : NULL;
	bool up = c->hosts->local_up;

	*ret = (struct control_host){.id = h->rec.id,
	    .type = h->rec.type,
	    .status = h->rec.status,
	    .team_id = h->rec.team_id,
	    .team_name = t ? t->rec.name : "",
	    .provider = h->rec.provider,
	    .zone = h->rec.zone,
	    .arch = h->rec.arch,
	    .address = h->rec.address,
	    .created_by = h->rec.created_by[0] ? h->rec.created_by : "system",
	    .tags = h->rec.tags,
	    .cpu_cores = h->rec.cpu_cores,
	    .memory_mb = h->rec.memory_mb,
	    .disk_gb = h->rec.disk_gb,
	    .heartbeat_ms = h->rec.heartbeat_ms,
	    .created_ms = h->rec.created_ms,
	    .updated_ms = h->rec.updated_ms,
	    .is_local = h->rec.is_local};
	if (!h->rec.is_local)
		return;
	/* Its heart beats here. */
	ret->status = up ? "online" : "offline";
	if (up)
		ret->heartbeat_ms = control_real_ms(c);
	if (c->hosts->address[0])
		ret->address = c->hosts->address;
}

/* NULL: *err says why not. */
static const struct host *find_seen(
    const struct control *c, const struct control_actor *a, const char *id, struct av_err *err)
{
	const struct host *h = host_find(c, id);

	if (!av_id_valid(av_str_c(id), AV_ID_HOST)) {
		(void)av_err_set(err, AV_ERR_INVALID,
		    "'%.64s' is not the id of a host; those are '" AV_ID_HOST
		    "' and 25 characters of 0-9 and a-z",
		    id);
		return NULL;
	}
	if (!h || !host_is_seen(h, a)) {
		(void)av_err_set(err, AV_ERR_NOT_FOUND, "there is no host %s", id);
		return NULL;
	}
	return h;
}

int control_host_get(const struct control *c, const struct control_actor *a, const char *id,
    struct control_host *ret, struct av_err *err)
{
	struct av_err own;
	const struct host *h = find_seen(c, a, id, err ? err : &own);

	if (!h)
		return -av_err_errno((err ? err : &own)->kind);
	host_describe(c, h, ret);
	return 0;
}

void control_host_each(const struct control *c, const struct control_actor *a,
    void (*fn)(void *ctx, const struct control_host *h), void *ctx)
{
	struct control_host info;
	const struct host *h;

	AV_LIST_FOREACH(h, &c->hosts->list, const struct host, link)
	{
		if (!host_is_seen(h, a))
			continue;
		host_describe(c, h, &info);
		fn(ctx, &info);
	}
}

int control_host_sandboxes(const struct control *c, const struct control_actor *a, const char *id,
    void (*fn)(void *ctx, const char *sandbox_id), void *ctx, struct av_err *err)
{
	struct av_err own;
	const struct host *h = find_seen(c, a, id, err ? err : &own);
	const struct sandbox *sb;
	int r;

	if (!h)
		return -av_err_errno((err ? err : &own)->kind);
	r = host_check_change(c, h, a, err);
	if (r < 0 || !h->rec.is_local)
		return r;
	AV_LIST_FOREACH(sb, &c->live, const struct sandbox, link)
	if (sb->state != SANDBOX_PAUSED)
		fn(ctx, sb->rec.id);
	return 0;
}

int control_host_placement(
    const struct control *c, const struct control_actor *a, const char *id, struct av_err *err)
{
	const struct host *local = c->hosts->local;
	struct av_err own;

	/* Everybody's sandboxes are there, so everybody may name it. */
	if (local && strcmp(local->rec.id, id) == 0)
		return 0;
	if (!find_seen(c, a, id, err ? err : &own))
		return -av_err_errno((err ? err : &own)->kind);
	return av_err_set(err, AV_ERR_UNSUPPORTED,
	    "sandboxes run on the machine that this Aviary runs on; placing them on another host "
	    "is "
	    "not supported. Leave host_id out");
}

/* ---- what comes and goes by itself ---- */

static int begin_write(struct host_op *op, struct av_err *err)
{
	const struct host *h = host_find(op->c, op->id);

	(void)err;
	if (h)
		op->rec = h->rec;
	return 0;
}

static int begin_remove(struct host_op *op, struct av_err *err)
{
	int r = begin_write(op, err);

	op->remove = true;
	return r;
}

static void submit_own(struct control *c, host_begin_fn *begin, const char *id)
{
	struct host_op *op = host_op_new(c, begin, NULL, NULL);

	if (!op) {
		av_log(AV_LOG_WARN, "no memory to record a host", "id", id, NULL);
		return;
	}
	(void)snprintf(op->id, sizeof(op->id), "%s", id);
	host_op_submit(op, NULL);
}

/* up or down: who listens is told, and the audit log. */
static void tell(struct control *c, const struct host *h, bool up)
{
	event_host(
	    c, up ? CONTROL_EVENT_HOST_UP : CONTROL_EVENT_HOST_DOWN, h->rec.team_id, h->rec.id);
	channels_tell_all(c, h->rec.team_id, up ? "host.up" : "host.down", "host", h->rec.id);
	control_audit(c, &(struct control_audit){.action = up ? "host.up" : "host.down",
	                     .resource_id = h->rec.id,
	                     .by_system = true,
	                     .team_id = h->rec.team_id});
	av_log(AV_LOG_INFO, up ? "host is up" : "host is down", "id", h->rec.id, "address",
	    h->rec.address, NULL);
}

void host_set_status(struct control *c, struct host *h, const char *status)
{
	bool was = strcmp(h->rec.status, "online") == 0, is = strcmp(status, "online") == 0;

	if (strcmp(h->rec.status, status) == 0)
		return;
	(void)snprintf(h->rec.status, sizeof(h->rec.status), "%s", status);
	h->rec.updated_ms = control_real_ms(c);
	if (was != is)
		tell(c, h, is);
	submit_own(c, begin_write, h->rec.id);
}

void host_heard(struct control *c, struct host *h)
{
	h->heard_ns = control_boot_ns(c);
	h->rec.heartbeat_ms = control_real_ms(c);
	h->dirty = true;
	host_set_status(c, h, "online");
}

static void look_at_local(struct control *c)
{
	struct hosts *hs = c->hosts;
	bool up = node_is_ready(c->node);

	if (!hs->local || hs->local_up == up)
		return;
	hs->local_up = up;
	tell(c, hs->local, up);
}

void hosts_tick(struct control *c, int64_t now_ns)
{
	struct hosts *hs = c->hosts;
	struct host *h;

	if (now_ns < hs->next_ns)
		return;
	look_at_local(c);
	hs->next_ns = now_ns + LOOK_NS;
	AV_LIST_FOREACH(h, &hs->list, struct host, link)
	{
		if (h->rec.is_local || strcmp(h->rec.status, "online") != 0)
			continue;
		if (now_ns - h->heard_ns >= SILENCE_NS)
			host_set_status(c, h, "unreachable");
		else
			hs->next_ns = AV_MIN(hs->next_ns, h->heard_ns + SILENCE_NS);
	}
}

void hosts_flush(struct control *c)
{
	struct host *h;

	AV_LIST_FOREACH(h, &c->hosts->list, struct host, link)
	{
		if (!h->dirty)
			continue;
		if (store_host_touch(c->store, h->rec.id, h->rec.heartbeat_ms) < 0)
			return;
		h->dirty = false;
	}
}

void hosts_drop_team(struct control *c, const char *team_id)
{
	const struct host *h;

	AV_LIST_FOREACH(h, &c->hosts->list, const struct host, link)
	if (strcmp(h->rec.team_id, team_id) == 0)
		submit_own(c, begin_remove, h->rec.id);
}

void control_host_set_address(struct control *c, const char *address)
{
	(void)snprintf(c->hosts->address, sizeof(c->hosts->address), "%s", address);
}

/* ---- memory ---- */

static struct host *host_add(struct control *c, const struct store_host *rec)
{
	struct host *h = calloc(1, sizeof(*h));

	if (!h)
		return NULL;
	h->rec = *rec;
	h->heard_ns = control_boot_ns(c);
	av_list_append(&c->hosts->list, &h->link);
	c->hosts->n++;
	if (rec->is_local)
		c->hosts->local = h;
	return h;
}

static void host_drop(struct control *c, struct host *h)
{
	av_list_remove(&h->link);
	c->hosts->n--;
	free(h);
}

static int apply(struct host_op *op)
{
	struct control *c = op->c;
	struct host *h = host_find(c, op->rec.id);
	struct store_host rec = op->rec;

	if (op->remove) {
		if (h)
			host_drop(c, h);
		return 0;
	}
	if (!h)
		return host_add(c, &rec) ? 0 : -ENOMEM;
	rec.heartbeat_ms = h->rec.heartbeat_ms;
	if (!op->sets_status)
		memcpy(rec.status, h->rec.status, sizeof(rec.status));
	bool was = strcmp(h->rec.status, "online") == 0, is = strcmp(rec.status, "online") == 0;
	h->rec = rec;
	if (is && op->sets_status) {
		h->heard_ns = control_boot_ns(c);
		h->rec.heartbeat_ms = control_real_ms(c);
		h->dirty = true;
	}
	if (was != is)
		tell(c, h, is);
	return 0;
}

/* ---- taking turns ---- */

static void op_cancel(struct node_call *call)
{
	struct host_op *op = AV_CONTAINER_OF(call, struct host_op, call);

	op->cancelled = true;
}

void host_op_free(struct host_op *op)
{
	if (!op)
		return;
	av_list_remove(&op->link);
	explicit_bzero(op, sizeof(*op));
	free(op);
}

struct host_op *host_op_new(struct control *c, host_begin_fn *begin, control_host_fn *fn, void *ctx)
{
	struct host_op *op = calloc(1, sizeof(*op));

	if (!op)
		return NULL;
	op->call.cancel = op_cancel;
	av_list_init(&op->link);
	op->c = c;
	op->begin = begin;
	op->fn = fn;
	op->ctx = ctx;
	return op;
}

void host_op_submit(struct host_op *op, struct node_call **ret)
{
	struct control *c = op->c;

	av_list_append(&c->hosts->queue, &op->link);
	c->hosts->next_ns = AV_MIN(c->hosts->next_ns, control_boot_ns(c));
	control_wake(c, 0);
	if (ret)
		*ret = &op->call;
}

static void op_end(struct host_op *op, const struct av_err *err)
{
	const struct host *h = op->rec.id[0] ? host_find(op->c, op->rec.id) : NULL;
	AV_CLEANUP(av_buf_clear) struct av_buf token = AV_BUF_INIT(4096);
	struct control_host_tokens tokens = {0};
	struct control_host info;
	struct av_err own;

	if (!err && op->refusal.kind != AV_ERR_NONE)
		err = &op->refusal;
	if (!err && op->refresh[0] && (!h || host_token_issue(op->c, h, &token) < 0)) {
		(void)av_err_set(&own, AV_ERR_NO_MEMORY, "out of memory");
		err = &own;
	}
	if (!err && h)
		host_describe(op->c, h, &info);
	if (op->registration[0])
		tokens.registration = op->registration;
	if (op->refresh[0]) {
		tokens.refresh = op->refresh;
		tokens.token = av_buf_cstr(&token);
	}
	if (op->fn && !op->cancelled)
		op->fn(op->ctx, err || !h ? NULL : &info, &tokens, err);
	else if (err && !op->fn && !op->c->stopping)
		av_log(
		    AV_LOG_WARN, "cannot record a host", "id", op->id, "error", err->message, NULL);
	host_op_free(op);
}

static void on_written(void *ctx, const struct av_err *err)
{
	struct host_op *op = ctx;
	struct control *c = op->c;
	struct av_err own;

	c->hosts->under_way = NULL;
	if (!err && apply(op) < 0) {
		(void)av_err_set(&own, AV_ERR_NO_MEMORY,
		    "out of memory; the change is recorded and holds from the next start");
		err = &own;
	}
	op_end(op, err);
	hosts_work(c);
}

static void op_begin(struct host_op *op)
{
	struct control *c = op->c;
	struct av_err err;
	int r = control_check_open(c, &err);

	av_list_remove(&op->link);
	if (r == 0)
		r = op->begin(op, &err);
	if (r == 0 && op->rec.id[0]) {
		op->rec.updated_ms = control_real_ms(c);
		r = op->remove ? store_host_delete(c->store, op->rec.id, on_written, op)
		               : store_host_put(c->store, &op->rec, on_written, op);
		if (r == 0) {
			c->hosts->under_way = op;
			return;
		}
		(void)av_err_sys(
		    &err, AV_ERR_UNAVAILABLE, r, "the database takes no more requests");
	}
	op_end(op, r < 0 ? &err : NULL);
}

void hosts_work(struct control *c)
{
	struct host_op *op;

	while (!c->hosts->under_way && (op = AV_LIST_FIRST(&c->hosts->queue, struct host_op, link)))
		op_begin(op);
}

/* ---- life ---- */

int hosts_init(struct control *c)
{
	c->hosts = calloc(1, sizeof(*c->hosts));
	if (!c->hosts)
		return -ENOMEM;
	av_list_init(&c->hosts->list);
	av_list_init(&c->hosts->queue);
	c->hosts->next_ns = INT64_MAX;
	return 0;
}

void hosts_clear(struct control *c)
{
	struct hosts *hs = c->hosts;
	struct host_op *op;
	struct host *h;

	if (!hs)
		return;
	AV_LIST_FOREACH(op, &hs->queue, struct host_op, link)
	host_op_free(op);
	host_op_free(AV_TAKE_PTR(hs->under_way));
	AV_LIST_FOREACH(h, &hs->list, struct host, link)
	free(h);
	c->hosts = NULL;
	free(hs);
}

int hosts_load(struct control *c, const struct store_host *v, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (!host_add(c, &v[i]))
			return -ENOMEM;
	return 0;
}

void hosts_start(struct control *c)
{
	const struct control_local *l = &c->config.local;
	struct hosts *hs = c->hosts;
	struct store_host rec = {.type = "regular", .is_local = true};
	const struct host *h;

	if (!hs->local) {
		av_id_make(rec.id, AV_ID_HOST);
		rec.created_ms = control_real_ms(c);
		(void)snprintf(rec.status, sizeof(rec.status), "online");
		if (!host_add(c, &rec) || !hs->local) {
			av_log(AV_LOG_WARN, "no memory for the record of this host", NULL);
			return;
		}
	}
	(void)snprintf(hs->local->rec.arch, sizeof(hs->local->rec.arch), "%s", l->arch);
	hs->local->rec.cpu_cores = l->cpu_cores;
	hs->local->rec.memory_mb = l->memory_mb;
	hs->local->rec.disk_gb = l->disk_gb;
	submit_own(c, begin_write, hs->local->rec.id);
	/* Of teams that were deleted while Aviary was stopped, or killed. */
	AV_LIST_FOREACH(h, &hs->list, const struct host, link)
	if (h->rec.team_id[0] && !team_find(c, h->rec.team_id))
		submit_own(c, begin_remove, h->rec.id);
	hs->next_ns = 0;
	hosts_tick(c, control_boot_ns(c));
}
