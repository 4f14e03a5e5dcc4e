/* SPDX-License-Identifier: Apache-2.0 */
/*
 * update.c - changing what a living sandbox was created with: time-outs, labels, open ports
 *
 * One of the changes of change.c: checked when it is asked for, applied to the record when its turn
 * comes. Metadata is merged (a null takes its key away), lists replace what was there.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "control/control_internal.h"

#include "base/banned.h"

static int no_memory(struct av_err *err)
{
	return av_err_set(err, AV_ERR_NO_MEMORY, "out of memory");
}

/* ---- applied ---- */

static int merge_metadata(const json_t *have, const json_t *patch, char **ret, struct av_err *err)
{
	AV_CLEANUP(av_json_decrefp) json_t *merged = json_copy((json_t *)(uintptr_t)have);
	const char *key;
	json_t *v;

	if (!merged)
		return no_memory(err);
	json_object_foreach ((json_t *)(uintptr_t)patch, key, v) {
		if (json_is_null(v))
			(void)json_object_del(merged, key);
		else if (json_object_set(merged, key, v) < 0)
			return no_memory(err);
	}
	return labels_take_metadata(merged, ret, err);
}

static int dup_text(char **ret, const char *text, struct av_err *err)
{
	*ret = av_str_dup(av_str_c(text));
	return *ret ? 0 : no_memory(err);
}

/* All labels as they will be, owned by the change. */
static int make_labels(struct change *ch, const struct update *u, struct av_err *err)
{
	const struct store_sandbox *rec = &ch->sb->rec;
	struct sandbox_texts *t = &ch->texts;

	if ((u->metadata ? merge_metadata(ch->sb->labels.metadata, u->metadata, &t->metadata, err)
	                 : dup_text(&t->metadata, rec->metadata_json, err)) < 0 ||
	    dup_text(&t->tags, u->tags ? u->tags : rec->tags_json, err) < 0 ||
	    dup_text(&t->ports, u->ports ? u->ports : rec->ports_json, err) < 0)
		return -EINVAL;
	ch->next.metadata_json = t->metadata;
	ch->next.tags_json = t->tags;
	ch->next.ports_json = t->ports;
	ch->next.write_labels = true;
	return sandbox_labels_parse(&ch->labels, &ch->next) < 0 ? no_memory(err) : 0;
}

static void take_values(struct store_sandbox *next, const struct sandbox_update *v)
{
	if (v->set & SANDBOX_SET_TIMEOUT)
		next->idle_timeout_ms = v->idle_timeout_ms;
	if (v->set & SANDBOX_SET_LIFETIME)
		next->max_lifetime_ms = v->max_lifetime_ms;
	if (v->set & SANDBOX_SET_ON_TIMEOUT)
		next->idle_delete = v->idle_delete;
	if (v->set & SANDBOX_SET_AUTO_RESUME)
		next->auto_resume = v->auto_resume;
}

static void on_update_recorded(void *ctx, const struct av_err *err)
{
	struct change *ch = ctx;
	struct sandbox *sb = ch->sb;

	if (change_gave_up(ch))
		return;
	if (!err) {
		bool labels = ch->next.write_labels;

		sandbox_committed(sb, &ch->next);
		if (labels)
			sandbox_labels_replace(sb, &ch->texts, &ch->labels);
		sandbox_touch(sb);
	}
	change_over(ch, err);
}

void update_begin(struct change *ch)
{
	const struct update *u = ch->waiter->update;
	struct av_err err;

	change_begin_record(ch);
	take_values(&ch->next, &u->values);
	if ((u->metadata || u->tags || u->ports) && make_labels(ch, u, &err) < 0) {
		change_over(ch, &err);
		return;
	}
	change_record(ch, on_update_recorded);
}

/* ---- asked for ---- */

void update_free(struct update *u)
{
	if (!u)
		return;
	json_decref(u->metadata);
	free(u->tags);
	free(u->ports);
	free(u);
}

/* Values that are to be set and may not be null. */
static int check_metadata(const json_t *patch, struct av_err *err)
{
	const char *key;
	json_t *v;

	json_object_foreach ((json_t *)(uintptr_t)patch, key, v)
		if (!json_is_string(v) && !json_is_null(v))
			return av_err_set(err, AV_ERR_INVALID,
			    "metadata.%.64s must be a string, or null to remove it", key);
	return 0;
}

static int check_values(const struct control *c, const struct sandbox_update *v, struct av_err *err)
{
	const struct control_limits *l = &c->limits;
	int r = 0;

	if (v->set & SANDBOX_SET_TIMEOUT)
		r = control_check_number(
		    err, "timeout_sec", " s", 1000, v->idle_timeout_ms, 0, l->timeout_max_ms);
	if (r == 0 && (v->set & SANDBOX_SET_LIFETIME))
		r = control_check_number(
		    err, "max_lifetime_sec", " s", 1000, v->max_lifetime_ms, 0, l->lifetime_max_ms);
	if (r == 0 && (v->set & SANDBOX_SET_METADATA))
		r = check_metadata(v->metadata, err);
	return r;
}

static int take(
    const struct control *c, const struct sandbox_update *v, struct update *u, struct av_err *err)
{
	int r = check_values(c, v, err);

	u->values = *v;
	u->values.metadata = u->values.tags = u->values.ports = NULL;
	if (r == 0 && (v->set & SANDBOX_SET_METADATA)) {
		u->metadata = v->metadata ? json_deep_copy(v->metadata) : json_object();
		r = u->metadata ? 0 : no_memory(err);
	}
	if (r == 0 && (v->set & SANDBOX_SET_TAGS))
		r = labels_take_tags(v->tags, &u->tags, err);
	if (r == 0 && (v->set & SANDBOX_SET_PORTS))
		r = labels_take_ports(v->ports, &u->ports, err);
	return r;
}

int control_update(struct control *c, const struct control_actor *a, const char *id,
    const struct sandbox_update *values, sandbox_fn *fn, void *ctx, struct node_call **ret,
    struct av_err *err)
{
	struct update *u = calloc(1, sizeof(*u));
	struct waiter *w = NULL;
	int r;

	if (!u)
		return no_memory(err);
	r = take(c, values, u, err);
	if (r == 0)
		r = change_request(c, a, id, CHANGE_UPDATE, fn, ctx, &w, err);
	if (r < 0) {
		update_free(u);
		return r;
	}
	assert(w);
	w->update = u;
	if (ret)
		*ret = &w->call;
	return 0;
}
