/* SPDX-License-Identifier: Apache-2.0 */
/*
 * reconcile.c - starting: records and the machine are compared, and the machine wins
 *
 *   record              machine                  what is done
 *   running, paused     the same process lives   adopted; frozen or thawed as the record says
 *   running, paused     gone                     ended with the reason that its remains tell
 *   running, paused     from a backup: anything  ended: restored
 *   running, paused     of an earlier boot       ended: host_reboot; its disk is kept a while
 *   starting            anything                 ended: interrupted (nobody was answered)
 *   starting, rollback  anything                 made again (rollback.c)
 *   stopping            anything                 the ending is finished
 *   none                something                destroyed
 *
 * Phases: loading (keys, records) → waiting for the driver → listing → settling (adoptions, endings
 * and removals are under way) → done. Settling is left after SETTLE_NS at the latest: endings that
 * cannot be finished are tried again in the background and hold nobody up; adoptions always are
 * waited for.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/avtime.h"
#include "base/log.h"
#include "control/audit_internal.h"
#include "control/hosts_internal.h"
#include "control/main_command.h"
#include "control/accounts_internal.h"
#include "store/channels.h"
#include "control/templates_internal.h"

#include "base/banned.h"

#define SETTLE_NS      (15 * AV_NS_PER_S)
#define RELIST_NS      (500 * AV_NS_PER_MS)
#define READOPT_NS     (500 * AV_NS_PER_MS)
#define FIRST_SWEEP_NS (600 * AV_NS_PER_S)
#define KEPT_DISK_MS   (24LL * 3600 * 1000)

enum phase { LOADING, WAITING, LISTING, SETTLING };

struct start {
	struct control *c;
	enum phase phase;
	void (*on_started)(
	    void *ctx, const struct control_start_report *r, const struct av_err *err);
	void *ctx;
	struct control_start_report report;
	struct av_err err; /* loading failed */
	size_t adopting;   /* adoptions and autopsies under way or to be tried again */
	size_t removing;
	bool restored; /* the database came out of a backup: none of its sandboxes can run */
	int64_t settle_deadline_ns;
	int64_t again_ns;       /* when to list or adopt again; 0: not */
	struct av_list readopt; /* struct adoption */
};

struct adoption {
	struct av_list link;
	struct control *c;
	char id[AV_ID_SIZE];
};

/* ---- removing what has no record ---- */

struct removal {
	struct control *c;
	char id[AV_ID_SIZE];
};

static void removal_done(struct removal *rm, bool removed)
{
	struct start *s = rm->c->start;

	if (s) {
		s->removing--;
		if (removed)
			s->report.removed++;
		control_wake(rm->c, 0);
	}
	free(rm);
}

static void on_removed(void *ctx, const struct av_err *err)
{
	struct removal *rm = ctx;

	if (err)
		av_log(AV_LOG_WARN, "cannot remove what is left of a sandbox; trying again later",
		    "id", rm->id, "error", err->message, NULL);
	else
		av_log(AV_LOG_INFO, "removed what had no record", "id", rm->id, NULL);
	removal_done(rm, !err);
}

static void on_history(void *ctx, const struct store_sandbox *v, size_t n, const struct av_err *err)
{
	struct removal *rm = ctx;
	struct control *c = rm->c;
	bool keep = err != NULL || control_knows(c, rm->id);

	if (n && strcmp(v[0].reason, sandbox_reason_text(SANDBOX_REASON_HOST_REBOOT)) == 0 &&
	    control_real_ms(c) - v[0].stopped_ms < KEPT_DISK_MS)
		keep = true;
	if (keep || node_destroy(c->node, rm->id, on_removed, rm) < 0)
		removal_done(rm, false);
}

static void remove_unknown(struct control *c, const char *id)
{
	assert(id);
	struct removal *rm = calloc(1, sizeof(*rm));

	if (!rm)
		return;
	rm->c = c;
	memcpy(rm->id, id, AV_ID_SIZE);
	if (store_sandbox_get(c->store, id, on_history, rm) < 0) {
		free(rm);
		return;
	}
	if (c->start)
		c->start->removing++;
}

static void remove_unknowns(struct control *c, const char (*ids)[AV_ID_SIZE], size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (!control_knows(c, ids[i]))
			remove_unknown(c, ids[i]);
}

static void on_sweep_list(
    void *ctx, const char (*ids)[AV_ID_SIZE], size_t n, const struct av_err *err)
{
	struct control *c = ctx;

	c->sweeping = false;
	if (!err && !c->stopping)
		remove_unknowns(c, ids, n);
}

void control_sweep(struct control *c)
{
	if (c->sweeping || !node_is_ready(c->node))
		return;
	c->sweeping = node_list(c->node, on_sweep_list, c) == 0;
}

/* ---- adoption ---- */

static void settled_one(struct start *s)
{
	s->adopting--;
	control_wake(s->c, 0);
}

static void on_autopsy(void *ctx, enum node_death why, const char *detail)
{
	struct adoption *a = ctx;
	struct control *c = a->c;
	struct sandbox *sb = av_map_get(&c->sandboxes, av_str_c(a->id));
	enum sandbox_reason reason = SANDBOX_REASON_LOST;

	if (why == NODE_DEATH_OOM)
		reason = SANDBOX_REASON_OOM;
	else if (why == NODE_DEATH_EXITED)
		reason = SANDBOX_REASON_EXITED;
	else if (why == NODE_DEATH_CRASH)
		reason = SANDBOX_REASON_CRASH;
	if (sb)
		sandbox_end(sb, reason, false, detail[0] ? detail : NULL);
	free(a);
	if (c->start) {
		c->start->report.lost++;
		settled_one(c->start);
	}
}

static void on_adoption_done(void *ctx)
{
	struct adoption *a = ctx;

	if (a->c->start)
		settled_one(a->c->start);
	free(a);
}

/* The machine may be one step of a pause or resume ahead of the record, or behind it. */
static void on_adopted_status(void *ctx, const struct driver_status *st, const struct av_err *err)
{
	struct adoption *a = ctx;
	struct sandbox *sb = av_map_get(&a->c->sandboxes, av_str_c(a->id));

	/* One that is paused is frozen once more, so that the node knows as well. */
	if (!err && sb && !sb->ending && (st->frozen || sb->state == SANDBOX_PAUSED) &&
	    sandbox_fit(sb, on_adoption_done, a) == 0)
		return;
	on_adoption_done(a);
}

static void fit_adopted(struct sandbox *sb, struct adoption *a)
{
	if (node_inspect(sb->c->node, sb->rec.id, on_adopted_status, a) < 0)
		on_adoption_done(a);
}

static void on_adopted(void *ctx, struct node_sandbox *handle, const struct driver_evidence *ev,
    const struct av_err *err)
{
	struct adoption *a = ctx;
	struct control *c = a->c;
	struct start *s = c->start;
	struct sandbox *sb = av_map_get(&c->sandboxes, av_str_c(a->id));

	(void)handle;
	(void)ev;
	if (!s || !sb) {
		free(a);
		return;
	}
	if (!err) {
		/* Whether it was in use meanwhile nobody knows: in doubt it was. */
		sandbox_touch(sb);
		c->stats.adopted++;
		s->report.adopted++;
		main_resume(sb);
		fit_adopted(sb, a);
		return;
	}
	if (err->kind == AV_ERR_NOT_FOUND || err->kind == AV_ERR_INVALID_STATE) {
		if (node_autopsy(c->node, a->id, on_autopsy, a) < 0)
			on_autopsy(a, NODE_DEATH_UNKNOWN, "");
		return;
	}
	av_log(AV_LOG_WARN, "cannot adopt a sandbox; trying again", "id", a->id, "error",
	    err->message, NULL);
	av_list_append(&s->readopt, &a->link);
	s->again_ns = control_boot_ns(c) + READOPT_NS;
	control_wake(c, s->again_ns);
}

static void adopt_try(struct control *c, struct sandbox *sb, struct adoption *a)
{
	const struct store_evidence *have = &sb->rec.evidence;
	struct driver_evidence ev = {
	    .pid = have->pid,
	    .start_ticks = have->start_ticks,
	    .pidns_inode = have->pidns_inode,
	};
	struct node_agent_config agent = {0};
	char *envs = NULL;
	struct av_err err;
	int r = sandbox_agent_envs(c, &sb->rec, &envs);

	memcpy(ev.boot_id, have->boot_id, sizeof(ev.boot_id));
	agent.envs_json = envs;
	template_agent_defaults(c, &sb->rec, &agent);
	if (r == 0)
		r = node_adopt(c->node, sb->rec.id, sb->rec.isolation, &ev, &agent, on_adopted, a);
	free(envs);
	if (r < 0) {
		(void)av_err_set(&err, AV_ERR_NO_MEMORY, "out of memory");
		on_adopted(a, NULL, NULL, &err);
	}
}

static void adopt(struct control *c, struct sandbox *sb)
{
	struct adoption *a = calloc(1, sizeof(*a));

	if (!a) {
		/* It runs unwatched until the next start; better than to kill it for our lack. */
		av_log(AV_LOG_ERROR, "out of memory: a sandbox is not adopted", "id", sb->rec.id,
		    NULL);
		return;
	}
	a->c = c;
	av_list_init(&a->link);
	memcpy(a->id, sb->rec.id, AV_ID_SIZE);
	c->start->adopting++;
	adopt_try(c, sb, a);
}

static void adopt_again(struct start *s)
{
	struct av_list again;
	struct adoption *a;
	struct sandbox *sb;

	av_list_init(&again);
	while ((a = AV_LIST_FIRST(&s->readopt, struct adoption, link))) {
		av_list_remove(&a->link);
		av_list_append(&again, &a->link);
	}
	while ((a = AV_LIST_FIRST(&again, struct adoption, link))) {
		av_list_remove(&a->link);
		sb = av_map_get(&s->c->sandboxes, av_str_c(a->id));
		if (sb) {
			adopt_try(s->c, sb, a);
		} else {
			free(a);
			settled_one(s);
		}
	}
}

/* ---- comparing ---- */

static void compare(struct start *s, struct sandbox *sb)
{
	struct control *c = s->c;
	bool other_boot = strcmp(sb->rec.evidence.boot_id, node_caps(c->node)->boot_id) != 0;

	switch (sb->state) {
	case SANDBOX_RUNNING:
	case SANDBOX_PAUSED:
	case SANDBOX_MISSING:
		if (s->restored) {
			s->report.lost++;
			sandbox_end(sb, SANDBOX_REASON_RESTORED, false, NULL);
			break;
		}
		if (!other_boot) {
			adopt(c, sb);
			break;
		}
		sb->keep_disk = true;
		s->report.lost++;
		sandbox_end(sb, SANDBOX_REASON_HOST_REBOOT, false, NULL);
		break;
	case SANDBOX_STARTING:
		s->report.finished++;
		if (!sb->rec.rollback_from[0] || s->restored || change_redo_rollback(sb) < 0)
			sandbox_end(sb, SANDBOX_REASON_INTERRUPTED, true, NULL);
		break;
	case SANDBOX_STOPPING:
		s->report.finished++;
		sandbox_end_resume(sb);
		break;
	default:
		s->report.finished++;
		sandbox_end(sb, SANDBOX_REASON_INTERRUPTED, true, NULL);
		break;
	}
}

static void on_list(void *ctx, const char (*ids)[AV_ID_SIZE], size_t n, const struct av_err *err)
{
	struct start *s = ctx;
	struct control *c = s->c;
	struct sandbox *sb;

	if (err) {
		av_log(AV_LOG_WARN, "cannot list what the machine runs; trying again", "error",
		    err->message, NULL);
		s->phase = WAITING;
		s->again_ns = control_boot_ns(c) + RELIST_NS;
		control_wake(c, s->again_ns);
		return;
	}
	s->phase = SETTLING;
	s->settle_deadline_ns = control_boot_ns(c) + SETTLE_NS;
	remove_unknowns(c, ids, n);
	AV_LIST_FOREACH(sb, &c->live, struct sandbox, link)
	compare(s, sb);
	control_wake(c, 0);
}

static void list(struct start *s)
{
	s->phase = LISTING;
	s->again_ns = 0;
	if (node_list(s->c->node, on_list, s) < 0) {
		s->phase = WAITING;
		s->again_ns = control_boot_ns(s->c) + RELIST_NS;
	}
}

static void finish(struct control *c)
{
	struct start *s = c->start;
	int64_t now = control_boot_ns(c);

	c->start = NULL;
	if (s->err.kind == AV_ERR_NONE) {
		c->started = true;
		if (s->restored &&
		    store_value_set(c->store, STORE_MARK_RESTORED, "", NULL, NULL) < 0)
			av_log(AV_LOG_WARN, "the mark of a restored database stays", NULL);
		c->next_deadline_ns = now;
		c->next_flush_ns = now;
		c->next_sweep_ns = now + FIRST_SWEEP_NS;
		sampler_start(c);
		pool_start(c);
		usage_start(c);
		templates_start(c);
		audit_prune_start(c);
		hosts_start(c);
		control_wake(c, 0);
	}
	if (s->err.kind == AV_ERR_NONE)
		teams_sweep(c);
	s->on_started(s->ctx, &s->report, s->err.kind == AV_ERR_NONE ? NULL : &s->err);
	free(s);
}

void start_tick(struct control *c)
{
	struct start *s = c->start;
	int64_t now = control_boot_ns(c);

	if (s->err.kind != AV_ERR_NONE) {
		finish(c);
		return;
	}
	if (s->phase == WAITING && node_is_ready(c->node) && now >= s->again_ns)
		list(s);
	if (s->phase == SETTLING && s->again_ns && now >= s->again_ns) {
		s->again_ns = 0;
		adopt_again(s);
	}
	sandbox_end_retry(c, now);
	if (s->phase == SETTLING && s->adopting == 0 &&
	    ((s->removing == 0 && c->n_ending == 0) || now >= s->settle_deadline_ns)) {
		finish(c);
		return;
	}
	if (s->again_ns)
		control_wake(c, s->again_ns);
	if (s->phase == SETTLING)
		control_wake(c, AV_MIN(s->settle_deadline_ns, c->next_retry_ns));
}

void control_driver_ready(struct control *c)
{
	if (c->start)
		control_wake(c, 0);
	else if (c->started && !c->stopping) {
		c->hosts->next_ns = 0; /* this one is up */
		control_wake(c, 0);
		sandboxes_fit_unsure(c);
		control_sweep(c); /* what a create that lost its worker left behind */
	}
}

/* ---- loading ---- */

static void on_keys(void *ctx, const struct store_key *v, size_t n, const struct av_err *err)
{
	struct start *s = ctx;

	if (err)
		s->err = *err;
	for (size_t i = 0; i < n && s->err.kind == AV_ERR_NONE; i++)
		if (key_add(s->c, &v[i]) < 0)
			(void)av_err_set(&s->err, AV_ERR_NO_MEMORY, "out of memory");
}

/* Each record as a change of its own: what the store has is applied like what it will have. */
static void take_account(struct start *s, const struct store_account_change *ch)
{
	if (s->err.kind == AV_ERR_NONE && accounts_apply(s->c, ch) < 0)
		(void)av_err_set(&s->err, AV_ERR_NO_MEMORY, "out of memory");
}

static void on_users(void *ctx, const struct store_user *v, size_t n, const struct av_err *err)
{
	struct start *s = ctx;

	if (err)
		s->err = *err;
	for (size_t i = 0; i < n; i++)
		take_account(s, &(struct store_account_change){.user = v[i]});
}

static void on_teams(void *ctx, const struct store_team *v, size_t n, const struct av_err *err)
{
	struct start *s = ctx;

	if (err)
		s->err = *err;
	for (size_t i = 0; i < n; i++)
		take_account(s, &(struct store_account_change){.team = v[i]});
}

static void on_members(void *ctx, const struct store_member *v, size_t n, const struct av_err *err)
{
	struct start *s = ctx;

	if (err)
		s->err = *err;
	for (size_t i = 0; i < n; i++)
		take_account(s, &(struct store_account_change){.member = v[i]});
}

static void on_hosts(void *ctx, const struct store_host *v, size_t n, const struct av_err *err)
{
	struct start *s = ctx;

	if (err)
		s->err = *err;
	else if (hosts_load(s->c, v, n) < 0)
		(void)av_err_set(&s->err, AV_ERR_NO_MEMORY, "out of memory");
}

static void on_channels(
    void *ctx, const struct store_channel *v, size_t n, const struct av_err *err)
{
	struct start *s = ctx;

	if (err)
		s->err = *err;
	else if (channels_load(s->c, v, n) < 0)
		(void)av_err_set(&s->err, AV_ERR_NO_MEMORY, "out of memory");
}

static void on_templates(
    void *ctx, const struct store_template *v, size_t n, const struct av_err *err)
{
	struct start *s = ctx;

	if (err)
		s->err = *err;
	else if (templates_load(s->c, v, n) < 0)
		(void)av_err_set(&s->err, AV_ERR_NO_MEMORY, "out of memory");
}

static void on_restored(void *ctx, const char *value, const struct av_err *err)
{
	struct start *s = ctx;

	if (err)
		s->err = *err;
	s->restored = value && value[0];
	if (s->restored)
		av_log(AV_LOG_INFO, "this state was restored from a backup", NULL);
}

/* The record's texts belong to the store: copies. */
static int load(struct control *c, const struct store_sandbox *rec)
{
	struct sandbox_texts texts = {
	    .envs = av_str_dup(av_str_c(rec->envs_json)),
	    .metadata = av_str_dup(av_str_c(rec->metadata_json)),
	    .tags = av_str_dup(av_str_c(rec->tags_json)),
	    .ports = av_str_dup(av_str_c(rec->ports_json)),
	    .main = av_str_dup(av_str_c(rec->main_json)),
	};
	struct sandbox *sb;

	if (texts.envs && texts.metadata && texts.tags && texts.ports && texts.main &&
	    sandbox_add(c, rec, &texts, &sb) == 0)
		return 0;
	sandbox_texts_clear(&texts);
	return -ENOMEM;
}

static void on_records(void *ctx, const struct store_sandbox *v, size_t n, const struct av_err *err)
{
	struct start *s = ctx;

	if (err)
		s->err = *err;
	for (size_t i = n; i > 0 && s->err.kind == AV_ERR_NONE; i--) {
		if (sandbox_state_parse(v[i - 1].state) == SANDBOX_STATE_COUNT)
			(void)av_err_set(&s->err, AV_ERR_INTERNAL,
			    "sandbox %s has the unknown state \"%s\" in the database", v[i - 1].id,
			    v[i - 1].state);
		else if (load(s->c, &v[i - 1]) < 0)
			(void)av_err_set(&s->err, AV_ERR_NO_MEMORY, "out of memory");
	}
	s->phase = WAITING;
	control_wake(s->c, 0);
}

int control_start(struct control *c,
    void (*on_started)(void *ctx, const struct control_start_report *r, const struct av_err *err),
    void *ctx)
{
	struct start *s = calloc(1, sizeof(*s));
	int r;

	if (!s)
		return -ENOMEM;
	s->c = c;
	s->on_started = on_started;
	s->ctx = ctx;
	av_list_init(&s->readopt);
	r = sign_load(c);
	if (r == 0)
		r = store_user_list(c->store, on_users, s);
	if (r == 0)
		r = store_team_list(c->store, on_teams, s);
	if (r == 0)
		r = store_member_list(c->store, on_members, s);
	if (r == 0)
		r = store_key_list(c->store, on_keys, s);
	if (r == 0)
		r = store_host_list(c->store, on_hosts, s);
	if (r == 0)
		r = store_template_list(c->store, on_templates, s);
	if (r == 0)
		r = store_value_get(c->store, STORE_MARK_RESTORED, on_restored, s);
	if (r == 0)
		r = store_channel_list(c->store, NULL, on_channels, s);
	if (r == 0)
		r = store_sandbox_live(c->store, on_records, s);
	if (r < 0) {
		/* Only a store that was just closed refuses: s is left to a callback that never
		 * comes. */
		return r;
	}
	c->start = s;
	return 0;
}
