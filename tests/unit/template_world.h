/* SPDX-License-Identifier: Apache-2.0 */
/*
 * template_world.h - control_world.h, with snapshots and what becomes of them
 */
#pragma once

#include "control/templates.h"
#include "control_world.h"

/* What was said of a template, or of the last of several. */
struct seen {
	bool done;
	enum av_err_kind kind;
	char message[480], name[80], id[AV_ID_SIZE], isolation[8];
	size_t n, in_use; /* n: of how many */
	int64_t memory_bytes, cpu_milli;
	bool platform, saved;
};

static inline void on_template(void *ctx, const struct template_info *t, const struct av_err *err)
{
	struct seen *s = ctx;

	s->done = true;
	s->n++;
	s->kind = err ? err->kind : AV_ERR_NONE;
	if (err)
		(void)snprintf(s->message, sizeof(s->message), "%s", err->message);
	if (!t)
		return;
	(void)snprintf(s->name, sizeof(s->name), "%s", t->name);
	(void)snprintf(s->id, sizeof(s->id), "%s", t->id);
	(void)snprintf(s->isolation, sizeof(s->isolation), "%s", t->isolation);
	s->in_use = t->in_use;
	s->memory_bytes = t->memory_bytes;
	s->cpu_milli = t->cpu_milli;
	s->platform = t->platform;
	s->saved = t->saved;
}

static inline struct seen snapshot(struct world *w, const char *id, const struct snapshot_params *p)
{
	struct seen s = {0};
	struct av_err err;

	if (control_snapshot(w->control, &w->actor, id, p, on_template, &s, NULL, &err) < 0)
		on_template(&s, NULL, &err);
	else
		(void)run_until(w, &s.done);
	return s;
}

/* Templates that the driver has. */
static inline size_t on_disk(const struct world *w)
{
	size_t n = 0;

	for (size_t i = 0; i < AV_ARRAY_LEN(w->machine->templates); i++)
		n += w->machine->templates[i][0] != '\0';
	return n;
}

/* A template for everybody that stands on nothing of the machine's. */
static inline void build(struct world *w, const char *name)
{
	struct answer a = create(w, &(struct sandbox_params){.template_name = "empty"});
	struct seen s;

	is_str(a.isolation, "jail", "what a template is built in is a jail");
	s = snapshot(w, a.id,
	    &(struct snapshot_params){
	        .name = name, .stop = true, .is_base = true, .platform = true});
	ok(s.kind == AV_ERR_NONE && !s.saved, "%s is built: %s", name, s.message);
}
