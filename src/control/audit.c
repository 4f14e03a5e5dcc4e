/* SPDX-License-Identifier: Apache-2.0 */
/*
 * audit.c - adding to the audit log (see audit.h)
 */
#include "control/audit.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/avtime.h"
#include "base/log.h"
#include "control/accounts_internal.h"
#include "control/audit_internal.h"

#include "base/banned.h"

#define RETRY_NS     AV_NS_PER_S
#define TELL_NS      (60 * AV_NS_PER_S)
#define OOM_EVERY_NS (60 * AV_NS_PER_S)
#define FLUSH_AT     128 /* records that wait are written at once */
#define RANDOM_MASK  ((1 << STORE_AUDIT_SEQ_SHIFT) - 1)

/* ---- texts ---- */

/* Bytes of the character that s begins with when it may be shown as it is; else 0. */
static size_t plain_char(struct av_str s)
{
	size_t n = av_utf8_char(s);
	unsigned char a = n ? (unsigned char)s.p[0] : 0, b = n > 1 ? (unsigned char)s.p[1] : 0,
	              d = n > 2 ? (unsigned char)s.p[2] : 0;

	if (n == 1)
		return a >= 0x20 && a != 0x7f;
	if (n == 2 && a == 0xc2 && b < 0xa0)
		return 0; /* C1 controls */
	/* Separators of lines, and what turns the direction of writing round. */
	if (n == 3 && a == 0xe2 &&
	    ((b == 0x80 && d >= 0xa8 && d <= 0xae) || (b == 0x81 && d >= 0xa6 && d <= 0xa9)))
		return 0;
	return n;
}

void audit_text(char *dst, size_t size, const char *text)
{
	struct av_str s = av_str_c(text);
	size_t used = 0;

	while (s.n > 0) {
		size_t n = plain_char(s), skip = n ? n : AV_MAX(av_utf8_char(s), (size_t)1);

		if (used + AV_MAX(n, (size_t)1) >= size)
			break;
		if (n)
			memcpy(dst + used, s.p, n);
		else
			dst[used] = '?';
		used += AV_MAX(n, (size_t)1);
		s = av_str_n(s.p + skip, s.n - skip);
	}
	dst[used] = '\0';
}

/* What belongs to administrators of a team and not to its members. */
static bool is_for_admins(const char *action)
{
	static const char *const open[] = {
	    "sandbox.", "snapshot.", "template.", "build.", "team.", "member."};

	for (size_t i = 0; i < AV_ARRAY_LEN(open); i++)
		if (av_str_starts(av_str_c(action), av_str_c(open[i])))
			return false;
	return true;
}

/* ---- who ---- */

static void take_user(const struct control *c, const char *id, char ret_id[static AV_ID_SIZE],
    char ret_name[static STORE_AUDIT_NAME_SIZE])
{
	const struct user *u = user_find(c, id);

	(void)snprintf(ret_id, AV_ID_SIZE, "%s", id);
	/* The address is unique; a name is what somebody calls himself. */
	if (u)
		audit_text(
		    ret_name, STORE_AUDIT_NAME_SIZE, u->rec.email[0] ? u->rec.email : u->rec.name);
}

static void take_key(const struct control *c, const char *id, struct store_audit *rec)
{
	const struct key *k = key_find(c, id);

	(void)snprintf(rec->actor_id, sizeof(rec->actor_id), "%s", id);
	if (k)
		audit_text(rec->actor_name, sizeof(rec->actor_name), k->rec.name);
}

static void take_actor(
    const struct control *c, const struct control_audit *what, struct store_audit *rec)
{
	const struct control_actor *a = what->actor;
	const char *type = "anonymous";

	if (what->by_system) {
		type = "system";
	} else if (what->host_id) {
		type = "host";
		(void)snprintf(rec->actor_id, sizeof(rec->actor_id), "%s", what->host_id);
	} else if (a && a->key_id[0]) {
		type = "api_key";
		take_key(c, a->key_id, rec);
		take_user(c, a->user_id, rec->user_id, rec->user_name);
	} else if (a || what->user_id) {
		type = "user";
		take_user(c, a ? a->user_id : what->user_id, rec->actor_id, rec->actor_name);
	}
	(void)snprintf(rec->actor_type, sizeof(rec->actor_type), "%s", type);
}

/* ---- how much ---- */

/* Whether a failure of this team may be written now. */
static bool failure_fits(struct control *c, const char *team_id)
{
	const int64_t full = (int64_t)AUDIT_FAILURES_BURST * AUDIT_FAILURES_EVERY_MS;
	struct audit_team *t = audit_team_get(c, team_id);
	int64_t now = control_boot_ns(c);

	if (!t)
		return false;
	t->tokens_ms = AV_MIN(full, t->tokens_ms + (now - t->filled_ns) / AV_NS_PER_MS);
	t->filled_ns = now;
	if (t->tokens_ms >= AUDIT_FAILURES_EVERY_MS) {
		t->tokens_ms -= AUDIT_FAILURES_EVERY_MS;
		return true;
	}
	t->omitted++;
	c->audit->stats.omitted++;
	if (c->audit->tell_ns == INT64_MAX) {
		c->audit->tell_ns = now + TELL_NS;
		control_wake(c, c->audit->tell_ns);
	}
	return false;
}

/* ---- adding ---- */

static int64_t next_seq(struct control *c)
{
	int64_t ms = AV_MAX(control_real_ms(c), (int64_t)1);
	struct audit *a = c->audit;
	uint32_t random;

	if (ms == a->last_seq >> STORE_AUDIT_SEQ_SHIFT) {
		a->last_seq++;
	} else {
		av_random(&random, sizeof(random));
		a->last_seq = ms << STORE_AUDIT_SEQ_SHIFT | (random & RANDOM_MASK);
	}
	return a->last_seq;
}

static void append(struct control *c, struct audit_entry *e)
{
	struct audit *a = c->audit;

	av_list_append(&a->waiting, &e->link);
	a->n_waiting++;
	if (a->n_waiting >= FLUSH_AT && !a->retry_ns) {
		audit_flush(c);
	} else if (a->flush_ns == INT64_MAX) {
		a->flush_ns = control_boot_ns(c) + AUDIT_LAG_MS * AV_NS_PER_MS;
		control_wake(c, a->flush_ns);
	}
}

static enum store_audit_status status_of(const struct control_audit *what)
{
	if (what->err || what->http_status >= 400)
		return STORE_AUDIT_FAILURE;
	return what->http_status || what->by_system ? STORE_AUDIT_SUCCESS : STORE_AUDIT_UNKNOWN;
}

void control_audit(struct control *c, const struct control_audit *what)
{
	const char *team = what->team_id ? what->team_id : what->actor ? what->actor->team_id : "";
	enum store_audit_status status = status_of(what);
	struct store_audit *rec;
	struct audit_entry *e;

	if (status == STORE_AUDIT_FAILURE && !what->by_system && !failure_fits(c, team))
		return;
	/* A disk that hangs answers nothing of what was sent. */
	e = c->audit->n_waiting + c->audit->n_sent < AUDIT_WAITING_MAX ? calloc(1, sizeof(*e))
	                                                               : NULL;
	if (!e) {
		c->audit->stats.lost++;
		c->audit->lost_untold++;
		return;
	}
	av_list_init(&e->link);
	rec = &e->rec;
	rec->seq = next_seq(c);
	rec->admin = is_for_admins(what->action);
	rec->status = status;
	rec->http_status = what->http_status;
	(void)snprintf(rec->team_id, sizeof(rec->team_id), "%s", team);
	if (what->err)
		(void)snprintf(rec->code, sizeof(rec->code), "%s", av_err_code(what->err));
	(void)snprintf(rec->action, sizeof(rec->action), "%s", what->action);
	audit_text(rec->resource_id, sizeof(rec->resource_id), what->resource_id);
	audit_text(rec->peer, sizeof(rec->peer), what->peer);
	audit_text(rec->request_id, sizeof(rec->request_id), what->request_id);
	if (what->metadata && strlen(what->metadata) < sizeof(rec->metadata))
		(void)snprintf(rec->metadata, sizeof(rec->metadata), "%s", what->metadata);
	take_actor(c, what, rec);
	append(c, e);
}

/* ---- of control itself ---- */

static void count_record(
    struct control *c, const char *action, const char *team_id, const char *name, uint64_t n)
{
	char metadata[64];

	(void)snprintf(metadata, sizeof(metadata), "{\"%s\":\"%" PRIu64 "\"}", name, n);
	control_audit(
	    c, &(struct control_audit){
	           .action = action, .by_system = true, .team_id = team_id, .metadata = metadata});
}

void audit_sandbox(
    const struct sandbox *sb, const char *action, const char *reason, const struct av_err *err)
{
	char metadata[64] = "";

	if (reason[0])
		(void)snprintf(metadata, sizeof(metadata), "{\"reason\":\"%s\"}", reason);
	control_audit(sb->c, &(struct control_audit){.action = action,
	                         .resource_id = sb->rec.id,
	                         .by_system = true,
	                         .team_id = sb->rec.team_id,
	                         .err = err ? err->kind : AV_ERR_NONE,
	                         .metadata = metadata});
}

void audit_oom(struct sandbox *sb, uint64_t more)
{
	int64_t now = control_boot_ns(sb->c);
	char metadata[64];

	if (sb->oom_audited_ns && now - sb->oom_audited_ns < OOM_EVERY_NS)
		return;
	sb->oom_audited_ns = now;
	(void)snprintf(metadata, sizeof(metadata), "{\"killed\":\"%" PRIu64 "\"}", more);
	control_audit(sb->c, &(struct control_audit){.action = "sandbox.oom",
	                         .resource_id = sb->rec.id,
	                         .by_system = true,
	                         .team_id = sb->rec.team_id,
	                         .metadata = metadata});
}

static void tell_omitted(struct control *c)
{
	struct audit_team *t;
	size_t pos = 0;

	while ((t = av_map_next(&c->audit->teams, &pos))) {
		if (!t->omitted)
			continue;
		count_record(c, "audit.omit", t->id, "omitted", t->omitted);
		t->omitted = 0;
	}
}

/* ---- to the store ---- */

static void batch_free(struct audit_batch *b)
{
	b->c->audit->n_sent -= b->n;
	av_list_remove(&b->link);
	free(b);
}

/* Back to the front of those that wait. */
static void put_back(struct control *c, const struct audit_batch *b)
{
	struct audit *a = c->audit;

	for (size_t i = b->n; i > 0; i--) {
		struct audit_entry *e =
		    a->n_waiting < AUDIT_WAITING_MAX ? calloc(1, sizeof(*e)) : NULL;

		if (!e) {
			a->stats.lost += i;
			a->lost_untold += i;
			break;
		}
		e->rec = b->v[i - 1];
		av_list_init(&e->link);
		av_list_append(a->waiting.next, &e->link);
		a->n_waiting++;
	}
	a->retry_ns = control_boot_ns(c) + RETRY_NS;
	a->flush_ns = a->retry_ns;
	control_wake(c, a->retry_ns);
}

static void on_written(void *ctx, const struct av_err *err)
{
	struct audit_batch *b = ctx;
	struct control *c = b->c;
	struct audit *a = c->audit;

	if (err) {
		if (!a->retry_ns)
			av_log(AV_LOG_ERROR, "the audit log cannot be written; trying again",
			    "error", err->message, NULL);
		put_back(c, b);
		batch_free(b);
		return;
	}
	a->stats.written += b->n;
	for (size_t i = 0; i < b->n; i++)
		audit_kept(c, b->v[i].team_id, 1);
	batch_free(b);
	a->retry_ns = 0;
	if (a->lost_untold) {
		count_record(c, "audit.lose", NULL, "lost", a->lost_untold);
		a->lost_untold = 0;
	}
	audit_prune(c);
}

/* The oldest that wait; NULL: no memory, and nothing is changed. */
static struct audit_batch *take_batch(struct control *c)
{
	struct audit *a = c->audit;
	size_t n = AV_MIN(a->n_waiting, (size_t)STORE_AUDIT_BATCH_MAX);
	struct audit_batch *b = calloc(1, sizeof(*b) + n * sizeof(b->v[0]));
	struct audit_entry *e;

	if (!b)
		return NULL;
	b->c = c;
	av_list_append(&a->batches, &b->link);
	while (b->n < n && (e = AV_LIST_FIRST(&a->waiting, struct audit_entry, link))) {
		b->v[b->n++] = e->rec;
		av_list_remove(&e->link);
		a->n_waiting--;
		free(e);
	}
	a->n_sent += b->n;
	return b;
}

void audit_flush(struct control *c)
{
	struct audit *a = c->audit;
	struct audit_batch *b;

	a->flush_ns = INT64_MAX;
	while (a->n_waiting > 0) {
		b = take_batch(c);
		if (!b) {
			a->retry_ns = a->flush_ns = control_boot_ns(c) + RETRY_NS;
			control_wake(c, a->retry_ns);
			return;
		}
		if (store_audit_add(c->store, b->v, b->n, on_written, b) < 0) {
			put_back(c, b);
			batch_free(b);
			return;
		}
	}
}

void audit_tick(struct control *c, int64_t now_ns)
{
	struct audit *a = c->audit;

	if (now_ns >= a->tell_ns) {
		a->tell_ns = INT64_MAX;
		tell_omitted(c);
	}
	if (now_ns >= a->flush_ns)
		audit_flush(c);
	control_wake(c, AV_MIN(a->flush_ns, a->tell_ns));
}

/* ---- life ---- */

int audit_init(struct control *c)
{
	struct audit *a = calloc(1, sizeof(*a));

	if (!a)
		return -ENOMEM;
	av_list_init(&a->waiting);
	av_list_init(&a->batches);
	av_list_init(&a->readers);
	av_map_init(&a->teams);
	a->flush_ns = a->tell_ns = INT64_MAX;
	c->audit = a;
	return 0;
}

void audit_clear(struct control *c)
{
	struct audit *a = c->audit;
	struct audit_entry *e;
	struct audit_batch *b;

	if (!a)
		return;
	while (a->n_waiting > 0 && (b = take_batch(c))) {
		(void)store_audit_add(c->store, b->v, b->n, NULL, NULL);
		batch_free(b);
	}
	AV_LIST_FOREACH(e, &a->waiting, struct audit_entry, link)
	free(e);
	AV_LIST_FOREACH(b, &a->batches, struct audit_batch, link)
	free(b);
	audit_read_clear(c);
	audit_teams_clear(a);
	c->audit = NULL;
	free(a);
}

void control_audit_stats(const struct control *c, struct control_audit_stats *ret)
{
	*ret = c->audit->stats;
	ret->waiting = c->audit->n_waiting + c->audit->n_sent;
	ret->kept = (uint64_t)c->audit->total;
}
