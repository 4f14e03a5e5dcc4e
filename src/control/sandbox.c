/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sandbox.c - live sandboxes: the table, what is shown of them, finding them
 */
#include "control/sandbox.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/avtime.h"
#include "base/json.h"
#include "control/main_command.h"
#include "control/templates_internal.h"

#include "base/banned.h"

/* ---- names ---- */

static const struct {
	const char *text;
	bool final;
} states[] = {
#define SANDBOX_STATE(name, text, final) [SANDBOX_##name] = {text, final},
#include "control/states.def"
#undef SANDBOX_STATE
};

static const struct {
	const char *text, *why;
} reasons[] = {
#define SANDBOX_REASON(name, text, why) [SANDBOX_REASON_##name] = {text, why},
#include "control/states.def"
#undef SANDBOX_REASON
};

const char *sandbox_state_text(enum sandbox_state s)
{
	return states[s].text;
}

bool sandbox_state_final(enum sandbox_state s)
{
	return states[s].final;
}

enum sandbox_state sandbox_state_parse(const char *text)
{
	for (size_t i = 0; i < AV_ARRAY_LEN(states); i++)
		if (strcmp(states[i].text, text) == 0)
			return (enum sandbox_state)i;
	return SANDBOX_STATE_COUNT;
}

const char *sandbox_reason_text(enum sandbox_reason r)
{
	return reasons[r].text;
}

const char *sandbox_reason_why(enum sandbox_reason r)
{
	return reasons[r].why;
}

static enum sandbox_reason reason_parse(const char *text)
{
	for (size_t i = 0; i < AV_ARRAY_LEN(reasons); i++)
		if (strcmp(reasons[i].text, text) == 0)
			return (enum sandbox_reason)i;
	return SANDBOX_REASON_NONE;
}

void sandbox_set_state(struct store_sandbox *rec, enum sandbox_state state)
{
	static_assert(sizeof("snapshotting") <= STORE_STATE_SIZE, "states fit");
	memset(rec->state, 0, sizeof(rec->state));
	memcpy(rec->state, states[state].text, strlen(states[state].text));
	rec->final = states[state].final;
}

/* ---- the table ---- */

struct sandbox *sandbox_find(const struct control *c, const struct control_actor *a, const char *id)
{
	struct sandbox *sb = av_map_get(&c->sandboxes, av_str_c(id));

	return sb && strcmp(sb->rec.team_id, a->team_id) == 0 ? sb : NULL;
}

int sandbox_add(struct control *c, const struct store_sandbox *rec, struct sandbox_texts *texts,
    struct sandbox **ret)
{
	struct sandbox *sb = calloc(1, sizeof(*sb));

	if (!sb)
		return -ENOMEM;
	sb->c = c;
	sb->rec = *rec;
	sandbox_texts_point(&sb->rec, texts);
	sb->state = sandbox_state_parse(rec->state);
	sb->reason = reason_parse(rec->reason);
	av_list_init(&sb->waiters);
	av_list_init(&sb->queue);
	if (sandbox_labels_parse(&sb->labels, &sb->rec) < 0 ||
	    av_map_put(&c->sandboxes, av_str_c(sb->rec.id), sb) < 0) {
		sandbox_labels_clear(&sb->labels);
		free(sb);
		return -ENOMEM;
	}
	*texts = (struct sandbox_texts){0};
	av_list_append(&c->live, &sb->link);
	usage_recount(sb, false);
	*ret = sb;
	return 0;
}

/* The texts of a live sandbox's record are its own. */
static struct sandbox_texts texts_of(const struct store_sandbox *rec)
{
	return (struct sandbox_texts){
	    .envs = (char *)(uintptr_t)rec->envs_json,
	    .metadata = (char *)(uintptr_t)rec->metadata_json,
	    .tags = (char *)(uintptr_t)rec->tags_json,
	    .ports = (char *)(uintptr_t)rec->ports_json,
	    .main = (char *)(uintptr_t)rec->main_json,
	};
}

void sandbox_drop(struct sandbox *sb)
{
	templates_unused(sb->c);
	struct control *c = sb->c;
	struct ended *e = &c->ended[c->ended_next++ % CONTROL_ENDED_MAX];
	struct sandbox_texts texts = texts_of(&sb->rec);

	sandbox_stop_asking(sb);
	main_drop(sb);
	memcpy(e->id, sb->rec.id, AV_ID_SIZE);
	memcpy(e->team_id, sb->rec.team_id, AV_ID_SIZE);
	e->state = sb->state;
	e->reason = sb->reason;
	usage_recount(sb, true);
	sampler_drop(sb);
	(void)av_map_remove(&c->sandboxes, av_str_c(sb->rec.id));
	av_list_remove(&sb->link);
	sandbox_labels_clear(&sb->labels);
	sandbox_texts_clear(&texts);
	free(sb);
}

void sandbox_committed(struct sandbox *sb, const struct store_sandbox *next)
{
	struct sandbox_texts texts = texts_of(&sb->rec);
	int64_t active_ms = AV_MAX(sb->rec.last_active_ms, next->last_active_ms);
	int64_t active_ns = AV_MAX(sb->rec.last_active_boot_ns, next->last_active_boot_ns);
	enum sandbox_state from = sb->state;
	const struct store_main main = sb->rec.main;

	sb->rec = *next;
	sb->rec.main = main; /* written by itself */
	sb->rec.write_labels = sb->rec.release_key = false;
	sandbox_texts_point(&sb->rec, &texts);
	sb->rec.last_active_ms = active_ms;
	sb->rec.last_active_boot_ns = active_ns;
	sb->state = sandbox_state_parse(next->state);
	sb->reason = reason_parse(next->reason);
	usage_recount(sb, false);
	if (sb->state == SANDBOX_PAUSED)
		sampler_save(sb);
	if (sb->state != from)
		event_state(sb, from);
}

void sandbox_touch(struct sandbox *sb)
{
	sb->rec.last_active_ms = control_real_ms(sb->c);
	sb->rec.last_active_boot_ns = control_boot_ns(sb->c);
	sb->active_dirty = true;
}

/* ---- shown ---- */

void record_describe(
    const struct store_sandbox *rec, const struct sandbox_labels *labels, struct sandbox_info *ret)
{
	*ret = (struct sandbox_info){
	    .id = rec->id,
	    .team_id = rec->team_id,
	    .template_name = rec->template_name,
	    .isolation = rec->isolation,
	    .state = sandbox_state_parse(rec->state),
	    .reason = reason_parse(rec->reason),
	    .message = rec->message,
	    .cpu_milli = rec->cpu_milli,
	    .memory_bytes = rec->memory_bytes,
	    .disk_bytes = rec->disk_bytes,
	    .pids_max = rec->pids_max,
	    .sudo = rec->sudo,
	    .idle_delete = rec->idle_delete,
	    .auto_resume = rec->auto_resume,
	    .internet = rec->internet,
	    .idle_timeout_ms = rec->idle_timeout_ms,
	    .max_lifetime_ms = rec->max_lifetime_ms,
	    .created_ms = rec->created_ms,
	    .started_ms = rec->started_ms,
	    .last_active_ms = rec->last_active_ms,
	    .stopped_ms = rec->stopped_ms,
	    .updated_ms = AV_MAX(rec->updated_ms, rec->last_active_ms),
	    .paused_ms = rec->paused_ms,
	    .metadata = labels->metadata,
	    .tags = labels->tags,
	    .ports = labels->ports,
	};
	main_describe(rec, labels->main, &ret->main);
}

void sandbox_describe(const struct sandbox *sb, struct sandbox_info *ret)
{
	record_describe(&sb->rec, &sb->labels, ret);
	ret->template_note = template_note(&sb->rec, template_by_id(sb->c, sb->rec.template_id));
	ret->oom_kills = sb->oom_kills;
}

int sandbox_not_running(const struct control *c, const struct control_actor *a, const char *id,
    const struct sandbox *sb, struct av_err *err)
{
	if (sb && sb->end_reason != SANDBOX_REASON_NONE)
		return av_err_set(err, AV_ERR_INVALID_STATE,
		    "sandbox %s is not running any more: %s", id,
		    sandbox_reason_why(sb->end_reason));
	if (sb && sb->state == SANDBOX_RUNNING)
		return av_err_set(err, AV_ERR_INVALID_STATE, "sandbox %s is being stopped", id);
	if (sb)
		return av_err_set(err, AV_ERR_INVALID_STATE, "sandbox %s is %s, not running", id,
		    sandbox_state_text(sb->state));
	for (size_t i = 0; i < CONTROL_ENDED_MAX; i++) {
		const struct ended *e = &c->ended[i];

		if (strcmp(e->id, id) == 0 && strcmp(e->team_id, a->team_id) == 0)
			return av_err_set(err, AV_ERR_INVALID_STATE,
			    "sandbox %s is not running any more: %s", id,
			    sandbox_reason_why(e->reason));
	}
	return av_err_set(err, AV_ERR_NOT_FOUND, "there is no running sandbox %.64s", id);
}

/* ---- get ---- */

static int not_found(struct av_err *err, const char *id)
{
	return av_err_set(err, AV_ERR_NOT_FOUND, "there is no sandbox %.64s", id);
}

static void answer_record(struct waiter *w, const struct store_sandbox *rec)
{
	struct sandbox_labels labels = {0};
	struct sandbox_info info;
	struct av_err err;

	if (!rec || strcmp(rec->team_id, w->team_id) != 0) {
		(void)not_found(&err, w->id);
		w->fn.sandbox(w->ctx, NULL, &err);
	} else if (sandbox_labels_parse(&labels, rec) < 0) {
		(void)av_err_set(&err, AV_ERR_NO_MEMORY, "out of memory");
		w->fn.sandbox(w->ctx, NULL, &err);
	} else {
		record_describe(rec, &labels, &info);
		info.replayed = w->replayed;
		w->fn.sandbox(w->ctx, &info, NULL);
	}
	sandbox_labels_clear(&labels);
	waiter_free(w);
}

static void on_record(void *ctx, const struct store_sandbox *v, size_t n, const struct av_err *err)
{
	struct waiter *w = ctx;

	if (!waiter_back(w))
		return;
	if (err) {
		w->fn.sandbox(w->ctx, NULL, err);
		waiter_free(w);
		return;
	}
	answer_record(w, n ? &v[0] : NULL);
}

static void answer_get(struct waiter *w)
{
	struct sandbox *sb = av_map_get(&w->c->sandboxes, av_str_c(w->id));
	struct sandbox_info info;
	struct av_err err;

	if (sb && strcmp(sb->rec.team_id, w->team_id) == 0) {
		sandbox_describe(sb, &info);
		info.replayed = w->replayed;
		w->fn.sandbox(w->ctx, &info, NULL);
		waiter_free(w);
		return;
	}
	waiter_away(w);
	if (store_sandbox_get(w->c->store, w->id, on_record, w) < 0) {
		(void)av_err_set(
		    &err, AV_ERR_UNAVAILABLE, "too many requests wait for the database");
		w->fn.sandbox(w->ctx, NULL, &err);
		waiter_free(w);
	}
}

int control_get(struct control *c, const struct control_actor *a, const char *id, sandbox_fn *fn,
    void *ctx, struct node_call **ret, struct av_err *err)
{
	struct waiter *w;

	if (!av_id_valid(av_str_c(id), AV_ID_SANDBOX))
		return not_found(err, id);
	w = waiter_new(c, WAIT_GET, ctx);
	if (!w)
		return av_err_set(err, AV_ERR_NO_MEMORY, "out of memory");
	w->fn.sandbox = fn;
	memcpy(w->id, id, AV_ID_SIZE);
	memcpy(w->team_id, a->team_id, AV_ID_SIZE);
	waiter_defer(w);
	if (ret)
		*ret = &w->call;
	return 0;
}

void sandbox_answer_deferred(struct waiter *w)
{
	node_done_fn *done = w->fn.done;
	void *ctx = w->ctx;

	switch (w->kind) {
	case WAIT_LIST:
		list_begin(w);
		break;
	case WAIT_POINTS:
		points_answer(w);
		break;
	case WAIT_TEAM_STATS:
		team_stats_answer(w);
		break;
	case WAIT_DELETE:
		waiter_free(w);
		done(ctx, NULL);
		break;
	case WAIT_CHANGE:
		change_answer_deferred(w);
		break;
	case WAIT_GET:
	case WAIT_CREATE:
	case WAIT_USAGE:
	case WAIT_DAYS:
	case WAIT_TEMPLATE:
		answer_get(w);
		break;
	}
}

/* ---- ping, usage ---- */

int control_ping(
    struct control *c, const struct control_actor *a, const char *id, struct av_err *err)
{
	struct sandbox *sb = sandbox_find(c, a, id);
	int r = control_check_open(c, err);

	if (r < 0)
		return r;
	if (!sb || sb->state != SANDBOX_RUNNING || sb->ending)
		return sandbox_not_running(c, a, id, sb, err);
	(void)sandbox_spare(sb);
	sandbox_touch(sb);
	return 0;
}

static void on_status(void *ctx, const struct driver_status *st, const struct av_err *err)
{
	struct waiter *w = ctx;
	struct sandbox_usage u;

	if (!waiter_back(w))
		return;
	if (!err)
		u = (struct sandbox_usage){
		    .memory_bytes = st->memory_bytes,
		    .memory_peak_bytes = st->memory_peak_bytes,
		    .pids = st->pids,
		    .cpu_usec = st->cpu_usec,
		    .disk_used_bytes = st->disk_used_bytes,
		    .disk_limit_bytes = st->disk_limit_bytes,
		    .oom_kills = st->oom_kills,
		};
	w->fn.usage(w->ctx, err ? NULL : &u, err);
	waiter_free(w);
}

uint64_t control_oom_kills(const struct control *c, const struct control_actor *a, const char *id)
{
	const struct sandbox *sb = sandbox_find(c, a, id);

	return sb ? sb->oom_kills : 0;
}

bool control_has_metadata(const struct control *c, const struct control_actor *a, const char *id,
    const char *key, const char *value)
{
	const struct sandbox *sb = sandbox_find(c, a, id);
	const char *got = sb ? json_string_value(json_object_get(sb->labels.metadata, key)) : NULL;

	return got && strcmp(got, value) == 0;
}

int control_usage(struct control *c, const struct control_actor *a, const char *id,
    sandbox_usage_fn *fn, void *ctx, struct node_call **ret, struct av_err *err)
{
	struct sandbox *sb = sandbox_find(c, a, id);
	struct waiter *w;
	int r = control_check_open(c, err);

	if (r < 0)
		return r;
	if (!sb || sb->ending || (sb->state != SANDBOX_RUNNING && sb->state != SANDBOX_PAUSED))
		return sandbox_not_running(c, a, id, sb, err);
	w = waiter_new(c, WAIT_USAGE, ctx);
	if (!w)
		return av_err_set(err, AV_ERR_NO_MEMORY, "out of memory");
	w->fn.usage = fn;
	waiter_away(w);
	if (node_inspect(c->node, id, on_status, w) < 0) {
		waiter_free(w);
		return av_err_set(err, AV_ERR_NO_MEMORY, "out of memory");
	}
	if (ret)
		*ret = &w->call;
	return 0;
}
