/* SPDX-License-Identifier: Apache-2.0 */
/*
 * rollback.c - a sandbox becomes what a snapshot holds, under its own id
 *
 *   checked → record: starting, of the new template, `rollback_from` the old one
 *   → what there is is destroyed → made again → record: running → answered
 *
 * Theory of operation. It is a change like a pause (change.c): one at a time, and given up when the
 * sandbox ends meanwhile. From the first record on there is no way back: a daemon that finds
 * `rollback_from` in a record that says starting destroys and makes again, however far the one
 * before it came. Both templates count as used until the last record. When the machine cannot make
 * it, the sandbox ends with state error, as a create that fails.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/failpoint.h"
#include "base/log.h"
#include "control/fork.h"
#include "control/isolations_internal.h"

#include "base/banned.h"

/* The sandbox is lost: nothing of it runs any more. */
static void lose(struct change *ch, const struct av_err *err)
{
	struct sandbox *sb = ch->sb;
	struct av_err why = *err;

	av_err_prefix(&why, "the rollback of sandbox %s failed, and it is gone", sb->rec.id);
	/* The driver closes: the next daemon goes on. */
	if (err->kind != AV_ERR_CANCELED)
		sandbox_end(sb, SANDBOX_REASON_CREATE_FAILED, true, why.message);
	change_over(ch, &why);
}

static void on_running(void *ctx, const struct av_err *err)
{
	struct change *ch = ctx;
	struct sandbox *sb = ch->sb;

	if (change_gave_up(ch))
		return;
	if (err) {
		lose(ch, err);
		return;
	}
	(void)av_failpoint("rollback.committed");
	sandbox_committed(sb, &ch->next);
	start_command_run(sb->c, &sb->rec);
	templates_unused(sb->c);
	change_over(ch, NULL);
}

static void on_made(void *ctx, struct node_sandbox *handle, const struct driver_evidence *ev,
    const struct av_err *err)
{
	struct change *ch = ctx;
	struct sandbox *sb = ch->sb;

	(void)handle;
	if (change_gave_up(ch))
		return;
	if (err) {
		lose(ch, err);
		return;
	}
	(void)av_failpoint("rollback.made");
	change_begin_record(ch);
	create_take_evidence(&ch->next.evidence, ev);
	sandbox_set_state(&ch->next, SANDBOX_RUNNING);
	memset(ch->next.rollback_from, 0, sizeof(ch->next.rollback_from));
	ch->next.started_ms = ch->next.last_active_ms = ch->next.updated_ms;
	ch->next.last_active_boot_ns = control_boot_ns(sb->c);
	channels_announce(sb->c, sb->rec.team_id, "capsule.running", "capsule", sb->rec.id,
	    ch->waiter->key_id, NULL);
	change_record(ch, on_running);
}

static void make(struct change *ch)
{
	struct sandbox *sb = ch->sb;
	struct control *c = sb->c;
	struct node_agent_config agent = {.trace = ch->waiter->trace};
	struct driver_spec spec;
	struct av_err err;
	char *envs = NULL;
	int r = sandbox_agent_envs(c, &sb->rec, &envs);

	create_spec_of(c, &sb->rec, &spec);
	agent.envs_json = envs;
	template_agent_defaults(c, &sb->rec, &agent);
	if (r == 0)
		r = node_create(c->node, &spec, &agent, on_made, ch);
	free(envs);
	if (r == 0)
		return;
	(void)av_err_set(&err, r == -EOPNOTSUPP ? AV_ERR_UNSUPPORTED : AV_ERR_NO_MEMORY,
	    r == -EOPNOTSUPP ? "this Aviary has no such isolation any more" : "out of memory");
	lose(ch, &err);
}

static void on_destroyed(void *ctx, const struct av_err *err)
{
	struct change *ch = ctx;

	if (change_gave_up(ch))
		return;
	if (err) {
		lose(ch, err);
		return;
	}
	(void)av_failpoint("rollback.destroyed");
	make(ch);
}

static void destroy(struct change *ch)
{
	struct sandbox *sb = ch->sb;
	struct node_sandbox *handle = node_find(sb->c->node, sb->rec.id);
	struct av_err err;

	(void)av_err_set(&err, AV_ERR_INVALID_STATE,
	    "sandbox %s goes back to a snapshot: what ran in it is over", sb->rec.id);
	if (handle)
		node_forget(handle, &err);
	sampler_drop(sb);
	sb->oom_kills = 0;
	sb->unsure = false;
	if (node_destroy(sb->c->node, sb->rec.id, on_destroyed, ch) == 0)
		return;
	(void)av_err_set(&err, AV_ERR_NO_MEMORY, "out of memory");
	lose(ch, &err);
}

static void on_recorded(void *ctx, const struct av_err *err)
{
	struct change *ch = ctx;

	if (change_gave_up(ch))
		return;
	if (err) {
		change_over(ch, err);
		return;
	}
	(void)av_failpoint("rollback.recorded");
	ch->recording = false;
	sandbox_committed(ch->sb, &ch->next);
	destroy(ch);
}

/* ---- whether it fits ---- */

static int check_state(const struct sandbox *sb, struct av_err *err)
{
	if (sb->state != SANDBOX_RUNNING && sb->state != SANDBOX_PAUSED)
		return av_err_set(err, AV_ERR_INVALID_STATE,
		    "sandbox %s is %s, neither running nor paused", sb->rec.id,
		    sandbox_state_text(sb->state));
	if (sb->rec.main.state[0])
		return av_err_set(err, AV_ERR_INVALID_STATE,
		    "sandbox %s was made for a main command, which cannot be taken back: make a "
		    "sandbox of the snapshot",
		    sb->rec.id);
	return 0;
}

/* Of what the sandbox is to be made; *ret_id lives as long as the template. */
static int check(
    const struct sandbox *sb, const char *name, const char **ret_id, struct av_err *err)
{
	const struct template *t = NULL;
	const char *isolation = NULL;
	int r = check_state(sb, err);

	if (r == 0)
		r = template_resolve(sb->c, sb->rec.team_id, name, &t, ret_id, err);
	if (r == 0)
		r = isolation_choose(sb->c, sb->rec.isolation, name, t, *ret_id, &isolation, err);
	if (r == 0)
		r = isolation_check_shape(t, &sb->rec, err);
	return r;
}

void rollback_begin(struct change *ch)
{
	struct sandbox *sb = ch->sb;
	const char *id = "", *name = ch->waiter->rollback_to;
	struct av_err err;

	/* The daemon before this one recorded it. */
	if (sb->rec.rollback_from[0]) {
		destroy(ch);
		return;
	}
	if (check(sb, name, &id, &err) < 0 ||
	    (sb->state == SANDBOX_PAUSED && quota_check_resume(sb->c, sb, &err) < 0)) {
		change_over(ch, &err);
		return;
	}
	(void)av_failpoint("rollback.checked");
	change_begin_record(ch);
	sandbox_set_state(&ch->next, SANDBOX_STARTING);
	memcpy(ch->next.rollback_from, sb->rec.template_id, sizeof(ch->next.rollback_from));
	memset(ch->next.template_id, 0, sizeof(ch->next.template_id));
	memset(ch->next.template_name, 0, sizeof(ch->next.template_name));
	memcpy(ch->next.template_id, id, strnlen(id, sizeof(ch->next.template_id) - 1));
	memcpy(ch->next.template_name, name, strnlen(name, sizeof(ch->next.template_name) - 1));
	ch->next.paused_ms = 0;
	memset(&ch->next.evidence, 0, sizeof(ch->next.evidence));
	memcpy(ch->next.evidence.boot_id, node_caps(sb->c->node)->boot_id,
	    sizeof(ch->next.evidence.boot_id));
	change_record(ch, on_recorded);
}

int control_rollback(struct control *c, const struct control_actor *a, const char *id,
    const char *snapshot, sandbox_fn *fn, void *ctx, struct node_call **ret, struct av_err *err)
{
	struct sandbox *sb = sandbox_find(c, a, id);
	const char *template_id = NULL;
	struct waiter *w = NULL;
	int r = control_check_open(c, err);

	if (r == 0 && sb && !sb->ending && !sb->change)
		r = check(sb, snapshot, &template_id, err);
	if (r == 0)
		r = change_request(c, a, id, CHANGE_ROLLBACK, fn, ctx, &w, err);
	if (r < 0)
		return r;
	if (av_str_copy(w->rollback_to, sizeof(w->rollback_to), av_str_c(snapshot)) < 0) {
		waiter_free(w);
		return av_err_set(err, AV_ERR_NOT_FOUND, "there is no template %.72s", snapshot);
	}
	if (ret)
		*ret = &w->call;
	return 0;
}
