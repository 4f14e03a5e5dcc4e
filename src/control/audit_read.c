/* SPDX-License-Identifier: Apache-2.0 */
/*
 * audit_read.c - reading the audit log in pages (see audit.h)
 *
 * A reader looks at AUDIT_STEP records, then those who wait have their turn: one step of one reader
 * is with the store at a time. Numbers of records are shown as ids: the prefix and the number in
 * base 36.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/avtime.h"
#include "control/accounts.h"
#include "control/audit_internal.h"

#include "base/banned.h"

#define READERS_TEAM 8

/* ---- ids ---- */

static void make_id(char dst[static AV_ID_SIZE], int64_t seq)
{
	static const char digits[] = "0123456789abcdefghijklmnopqrstuvwxyz";

	memcpy(dst, AV_ID_AUDIT, 2);
	for (size_t i = AV_ID_LEN - 1; i >= 2; i--) {
		dst[i] = digits[seq % 36];
		seq /= 36;
	}
	dst[AV_ID_LEN] = '\0';
}

static int parse_id(struct av_str id, int64_t *ret)
{
	int64_t seq = 0;

	if (!av_id_valid(id, AV_ID_AUDIT))
		return -EINVAL;
	for (size_t i = 2; i < id.n; i++) {
		char c = id.p[i];
		int digit = c <= '9' ? c - '0' : c - 'a' + 10;

		if (__builtin_mul_overflow(seq, 36, &seq) ||
		    __builtin_add_overflow(seq, digit, &seq))
			return -EINVAL;
	}
	*ret = seq;
	return 0;
}

int control_audit_id_ms(struct av_str id, int64_t *ret_ms)
{
	int64_t seq;
	int r = parse_id(id, &seq);

	if (r == 0)
		*ret_ms = seq >> STORE_AUDIT_SEQ_SHIFT;
	return r;
}

/* ---- answers ---- */

static void reader_free(struct audit_reader *rd)
{
	av_list_remove(&rd->link);
	rd->c->audit->n_readers--;
	free(rd->v);
	free(rd);
}

static void describe(const struct store_audit *a, struct control_audit_record *ret)
{
	static const char *const statuses[] = {[STORE_AUDIT_SUCCESS] = "success",
	    [STORE_AUDIT_FAILURE] = "failure",
	    [STORE_AUDIT_UNKNOWN] = "unknown"};
	struct av_str rest = av_str_c(a->action), type;

	*ret = (struct control_audit_record){.at_ms = a->seq >> STORE_AUDIT_SEQ_SHIFT,
	    .team_id = a->team_id,
	    .actor_type = a->actor_type,
	    .actor_id = a->actor_id,
	    .actor_name = a->actor_name,
	    .user_id = a->user_id,
	    .user_name = a->user_name,
	    .resource_id = a->resource_id,
	    .action = a->action,
	    .scope = a->admin ? "admin" : "team",
	    .status = a->status <= STORE_AUDIT_UNKNOWN ? statuses[a->status] : "unknown",
	    .http_status = (int)a->http_status,
	    .code = a->code,
	    .peer = a->peer,
	    .request_id = a->request_id,
	    .metadata = a->metadata};
	make_id(ret->id, a->seq);
	(void)av_str_cut(&rest, '.', &type);
	(void)snprintf(ret->resource_type, sizeof(ret->resource_type), "%.*s", AV_STR_ARG(type));
}

static void reader_end(struct audit_reader *rd, int64_t last, const struct av_err *err)
{
	struct control_audit_record *v = NULL;
	char next[AV_ID_SIZE];
	struct av_err own;

	if (!rd->cancelled) {
		v = calloc(rd->n + 1, sizeof(*v));
		if (!v && !err) {
			(void)av_err_set(&own, AV_ERR_NO_MEMORY, "out of memory");
			err = &own;
		}
		for (size_t i = 0; v && i < rd->n; i++)
			describe(&rd->v[i], &v[i]);
		make_id(next, last);
		rd->fn(rd->ctx, v, err ? 0 : rd->n, last && !err ? next : NULL, err);
	}
	free(v);
	reader_free(rd);
}

/* ---- taking turns ---- */

static void go_on(struct control *c);

static void on_step(
    void *ctx, const struct store_audit *v, size_t n, int64_t last, const struct av_err *err)
{
	struct control *c = ctx;
	struct audit_reader *rd = AV_TAKE_PTR(c->audit->reader);

	for (size_t i = 0; i < n && rd->n < rd->want; i++)
		rd->v[rd->n++] = v[i];
	rd->looked += rd->query.scan;
	rd->query.from = last;
	if (err || rd->cancelled || last == 0 || rd->n == rd->want || rd->looked >= AUDIT_LOOK_MAX)
		reader_end(rd, last, err);
	else
		av_list_append(&c->audit->readers, &rd->link);
	go_on(c);
}

static void go_on(struct control *c)
{
	struct audit *a = c->audit;
	struct audit_reader *rd;
	struct av_err err;

	while (!a->reader && (rd = AV_LIST_FIRST(&a->readers, struct audit_reader, link))) {
		av_list_remove(&rd->link);
		rd->query.limit = rd->want - rd->n;
		rd->query.scan = AUDIT_STEP;
		if (store_audit_read(c->store, &rd->query, on_step, c) == 0) {
			a->reader = rd;
			return;
		}
		(void)av_err_set(&err, AV_ERR_UNAVAILABLE, "the database takes no more requests");
		reader_end(rd, 0, &err);
	}
}

void audit_read_tick(struct control *c)
{
	go_on(c);
}

static void reader_cancel(struct node_call *call)
{
	struct audit_reader *rd = AV_CONTAINER_OF(call, struct audit_reader, call);

	if (rd->c->audit->reader == rd)
		rd->cancelled = true;
	else
		reader_free(rd);
}

void audit_read_clear(struct control *c)
{
	struct audit *a = c->audit;
	struct audit_reader *rd;

	if (a->reader)
		reader_free(AV_TAKE_PTR(a->reader));
	AV_LIST_FOREACH(rd, &a->readers, struct audit_reader, link)
	reader_free(rd);
}

/* ---- asked for ---- */

static int take_text(
    char *dst, size_t size, const char *name, struct av_str text, struct av_err *err)
{
	if (av_str_copy(dst, size, text) < 0)
		return av_err_set(err, AV_ERR_INVALID,
		    "query parameter '%s' has a NUL byte or more than %zu bytes", name, size - 1);
	return 0;
}

static int take_status(struct store_audit_filter *f, struct av_str text, struct av_err *err)
{
	static const char *const names[] = {"success", "failure", "unknown"};

	f->status = -1;
	if (text.n == 0)
		return 0;
	for (size_t i = 0; i < AV_ARRAY_LEN(names); i++)
		if (av_str_eq_c(text, names[i]))
			f->status = (int)i;
	if (f->status < 0)
		return av_err_set(err, AV_ERR_INVALID,
		    "query parameter 'status' must be success, failure or unknown");
	return 0;
}

static int take_filter(struct audit_reader *rd, const struct control_audit_filter *f,
    const struct control_actor *a, struct av_err *err)
{
	struct store_audit_filter *to = &rd->query.filter;
	struct av_str team = f->all_teams ? f->team_id : av_str_c(a->team_id);

	to->one_team = team.n > 0;
	to->no_admin = !f->all_teams && a->role < CONTROL_ROLE_ADMIN;
	if (f->team_id.n && !av_id_valid(f->team_id, AV_ID_TEAM))
		return av_err_set(
		    err, AV_ERR_INVALID, "query parameter 'team_id' must be the id of a team");
	if (take_text(to->team_id, sizeof(to->team_id), "team_id", team, err) < 0 ||
	    take_text(to->types, sizeof(to->types), "resource_type", f->types, err) < 0 ||
	    take_text(to->action, sizeof(to->action), "action", f->action, err) < 0 ||
	    take_text(
	        to->resource_id, sizeof(to->resource_id), "resource_id", f->resource_id, err) < 0 ||
	    take_text(to->actor, sizeof(to->actor), "actor", f->actor, err) < 0)
		return -EINVAL;
	return take_status(to, f->status, err);
}

/* Milliseconds since 1970 as the first number of that millisecond. */
static int64_t first_seq(int64_t ms)
{
	const int64_t last_ms = INT64_MAX >> STORE_AUDIT_SEQ_SHIFT;

	ms = AV_MAX(ms, (int64_t)0);
	return AV_MIN(ms, last_ms) << STORE_AUDIT_SEQ_SHIFT;
}

static int take_range(
    struct audit_reader *rd, const struct control_audit_filter *f, struct av_err *err)
{
	struct store_audit_query *q = &rd->query;
	int64_t newest = INT64_MAX, oldest = first_seq(f->since_ms), from = 0;

	if (f->before_ms)
		newest = first_seq(f->before_ms);
	if (f->until_ms)
		newest = AV_MIN(newest, first_seq(f->until_ms + 1));
	if (f->after_id.n && parse_id(f->after_id, &from) < 0)
		return av_err_set(err, AV_ERR_INVALID,
		    "query parameter '%s' must be the id of a record: '" AV_ID_AUDIT
		    "' and 25 characters",
		    f->oldest_first ? "after_id" : "before_id");
	q->oldest_first = f->oldest_first;
	if (f->oldest_first) {
		q->from = f->after_id.n ? from : oldest - 1;
		q->to = newest - 1;
	} else {
		q->from = f->after_id.n ? AV_MIN(from, newest) : newest;
		q->to = oldest;
	}
	return 0;
}

static int check_readers(const struct control *c, const struct control_actor *a, struct av_err *err)
{
	const struct audit *au = c->audit;
	const struct audit_reader *rd;
	size_t n = au->reader && strcmp(au->reader->team_id, a->team_id) == 0;

	AV_LIST_FOREACH(rd, &au->readers, const struct audit_reader, link)
	n += strcmp(rd->team_id, a->team_id) == 0;
	if (n < READERS_TEAM && au->n_readers < AUDIT_READERS_MAX)
		return 0;
	return av_err_set(err, AV_ERR_RATE_LIMITED,
	    "%zu requests of your team and %zu of all read the audit log; %d and %d may at once: "
	    "try again",
	    n, au->n_readers, READERS_TEAM, AUDIT_READERS_MAX);
}

int control_audit_read(struct control *c, const struct control_actor *a,
    const struct control_audit_filter *f, control_audit_fn *fn, void *ctx, struct node_call **ret,
    struct av_err *err)
{
	struct audit_reader *rd;
	int r = f->goes_on ? 0 : check_readers(c, a, err);

	if (r == 0 && f->all_teams)
		r = control_need_admin(a, err);
	if (r < 0)
		return r;
	rd = calloc(1, sizeof(*rd));
	if (rd)
		rd->v = calloc(f->limit, sizeof(*rd->v));
	if (!rd || !rd->v) {
		free(rd);
		return av_err_set(err, AV_ERR_NO_MEMORY, "out of memory");
	}
	rd->call.cancel = reader_cancel;
	av_list_init(&rd->link);
	rd->c = c;
	rd->fn = fn;
	rd->ctx = ctx;
	rd->want = f->limit;
	memcpy(rd->team_id, a->team_id, AV_ID_SIZE);
	c->audit->n_readers++;
	r = take_filter(rd, f, a, err);
	if (r == 0)
		r = take_range(rd, f, err);
	if (r < 0) {
		reader_free(rd);
		return r;
	}
	audit_flush(c);
	av_list_append(&c->audit->readers, &rd->link);
	control_wake(c, 0);
	if (ret)
		*ret = &rd->call;
	return 0;
}
