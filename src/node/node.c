/* SPDX-License-Identifier: Apache-2.0 */
/*
 * node.c - the sandboxes that run now: creation, adoption, death and its evidence
 *
 * Theory of operation. A sandbox is in the table from the moment the driver says that it lives
 * until its death was reported or control forgot it. Its pidfd is watched; when it becomes readable
 * the first process is dead. We may not be its parent, so there is no exit status: the reason comes
 * from what outlives it, the agent's exit record and the kernel's count of OOM kills, which the
 * driver's inspect brings. Only then is everybody told.
 *
 * A request to the driver carries a `struct wrap`, which knows the node and names the sandbox by
 * id, never by pointer: the table decides whether it still exists when the answer comes.
 */
#include "node/node.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/avtime.h"
#include "base/fd.h"
#include "base/json.h"
#include "node/node_internal.h"
#include "proto/agent_api.h"

#include "base/banned.h"

#define COLLECT_MAX_DEFAULT (16UL * 1024 * 1024)
#define INIT_MAX            (4UL * 1024 * 1024)

struct wrap {
	struct av_list link;
	struct node *node;
	struct driver *driver; /* asked */
	char id[AV_ID_SIZE];
	char *init_json; /* owned */
	struct av_trace trace;
	union {
		node_sandbox_fn *sandbox;
		node_done_fn *done;
		node_autopsy_fn *autopsy;
		driver_status_fn *status;
	} fn;
	void *ctx;
};

/* Callers give ids of the right form; another would be cut and then not be found. */
static void copy_id(char dst[static AV_ID_SIZE], const char *id)
{
	memcpy(dst, id, strnlen(id, AV_ID_LEN));
}

static struct wrap *wrap_new(struct node *n, const char *id, void *ctx)
{
	struct wrap *w = calloc(1, sizeof(*w));

	if (!w)
		return NULL;
	w->node = n;
	w->driver = node_driver_of(n, id);
	w->ctx = ctx;
	copy_id(w->id, id);
	av_list_append(&n->wraps, &w->link);
	n->n_wraps++;
	return w;
}

static void wrap_free(struct wrap *w)
{
	av_list_remove(&w->link);
	w->node->n_wraps--;
	free(w->init_json);
	free(w);
}

/* The driver was asked, which answered r: below 0 its callback does not come. */
static int wrap_sent(struct wrap *w, int r)
{
	if (r < 0)
		wrap_free(w);
	return r;
}

/* NULL: no memory, or the node closes. */
static struct wrap *wrap_for_done(struct node *n, const char *id, node_done_fn *fn, void *ctx)
{
	struct wrap *w = n->closing ? NULL : wrap_new(n, id, ctx);

	if (w)
		w->fn.done = fn;
	return w;
}

/* ---- one sandbox ---- */

static void sandbox_free(struct node_sandbox *sb)
{
	(void)av_map_remove(&sb->node->sandboxes, av_str_c(sb->id));
	av_timer_stop(&sb->lost_timer);
	av_watch_free(sb->watch);
	for (size_t i = 0; i < LINK_COUNT; i++)
		link_clear(&sb->links[i]);
	av_close_fd(&sb->pidfd);
	free(sb->init_json);
	free(sb);
}

static void fail_convs(struct node_sandbox *sb, const struct av_err *err)
{
	struct conv *c;

	while ((c = AV_LIST_FIRST(&sb->convs, struct conv, link)))
		conv_fail(c, err);
}

/* Lost conversations whose sandbox did not die after all. */
static void on_lost_timer(void *ctx)
{
	struct node_sandbox *sb = ctx;
	struct conv *c, *lost;

	do {
		lost = NULL;
		AV_LIST_FOREACH(c, &sb->convs, struct conv, link)
		if (c->pending && !c->h2s) {
			lost = c;
			break;
		}
		if (lost) {
			struct av_err why = *lost->pending;

			conv_fail(lost, &why);
		}
	} while (lost);
}

void node_sandbox_activity(struct node_sandbox *sb)
{
	struct node *n = sb->node;
	int64_t now = av_mono_ns();

	if (sb->dead || n->closing || !n->events || now - sb->activity_ns < AV_NS_PER_S)
		return;
	sb->activity_ns = now;
	n->events->on_activity(n->events_ctx, sb->id);
}

static enum node_death death_of(const struct driver_status *st, char *detail, size_t size)
{
	struct av_exit_record rec;
	enum node_death why = NODE_DEATH_UNKNOWN;
	const char *text = "";

	if (st && av_exit_record_decode(st->exit_record, st->exit_record_len, &rec) == 0) {
		why = rec.reason == AV_EXIT_STOPPED || rec.reason == AV_EXIT_MAIN
		          ? NODE_DEATH_EXITED
		          : NODE_DEATH_CRASH;
		text = rec.text;
	} else if (st && st->oom_kills > 0) {
		why = NODE_DEATH_OOM;
		text = "the kernel killed its processes for memory";
	} else if (st) {
		why = NODE_DEATH_CRASH;
		text = "its agent was killed without a last word";
	}
	if (av_str_copy(detail, size, av_str_c(text)) < 0)
		detail[0] = '\0';
	return why;
}

static void note_main(struct node *n, const char *id, const struct driver_status *st)
{
	struct av_exit_record rec;

	if (n->events && n->events->on_main_end &&
	    av_exit_record_decode(st->exit_record, st->exit_record_len, &rec) == 0 &&
	    rec.reason == AV_EXIT_MAIN)
		n->events->on_main_end(n->events_ctx, id, rec.code, rec.signal,
		    rec.real_ms > INT64_MAX ? INT64_MAX : (int64_t)rec.real_ms);
}

static void note_oom(struct node_sandbox *sb, const struct driver_status *st)
{
	struct node *n = sb->node;
	uint64_t more = st->oom_kills - sb->oom_kills;

	if (st->oom_kills <= sb->oom_kills)
		return;
	sb->oom_kills = st->oom_kills;
	if (n->events && n->events->on_oom && !n->closing)
		n->events->on_oom(n->events_ctx, sb->id, st->oom_kills, more);
}

static const char *death_text(enum node_death why)
{
	switch (why) {
	case NODE_DEATH_OOM:
		return "it ran out of memory";
	case NODE_DEATH_EXITED:
		return "its first process ended";
	case NODE_DEATH_CRASH:
		return "its agent failed or was killed";
	case NODE_DEATH_UNKNOWN:
		break;
	}
	return "for a reason that left no trace";
}

static void on_evidence(void *ctx, const struct driver_status *st, const struct av_err *err)
{
	struct wrap *w = ctx;
	struct node *n = w->node;
	struct node_sandbox *sb = av_map_get(&n->sandboxes, av_str_c(w->id));
	char id[AV_ID_SIZE], detail[64];
	enum node_death why;
	struct av_err gone;

	wrap_free(w);
	if (!sb || n->closing)
		return;
	why = death_of(err ? NULL : st, detail, sizeof(detail));
	if (!err) {
		note_oom(sb, st);
		note_main(n, sb->id, st);
	}
	memcpy(id, sb->id, sizeof(id));
	(void)av_err_set(&gone, AV_ERR_INVALID_STATE, "sandbox %s ended meanwhile: %s%s%s", id,
	    death_text(why), detail[0] ? ": " : "", detail);
	fail_convs(sb, &gone);
	sandbox_free(sb);
	if (n->events)
		n->events->on_death(n->events_ctx, id, why, detail);
}

static void on_pidfd(void *ctx, int events)
{
	struct node_sandbox *sb = ctx;
	struct node *n = sb->node;
	struct wrap *w;
	struct av_err err;

	(void)events;
	av_watch_free(AV_TAKE_PTR(sb->watch));
	sb->dead = true;
	w = wrap_new(n, sb->id, NULL);
	if (w && w->driver->ops->inspect(w->driver, sb->id, on_evidence, w) == 0)
		return;
	if (!w)
		w = wrap_new(n, sb->id, NULL);
	(void)av_err_set(&err, AV_ERR_NO_MEMORY, "out of memory");
	if (w)
		on_evidence(w, NULL, &err);
}

static int watch_pidfd(struct node_sandbox *sb)
{
	int r = av_watch_new(sb->node->loop, sb->pidfd, on_pidfd, sb, &sb->watch);

	return r < 0 ? r : av_watch_set(sb->watch, AV_WATCH_READ);
}

/* Takes w->init_json and *pidfd over on success. */
static int sandbox_new(
    struct wrap *w, const struct driver_evidence *ev, int *pidfd, struct node_sandbox **ret)
{
	struct node *n = w->node;
	struct node_sandbox *sb = calloc(1, sizeof(*sb));
	int r;

	if (!sb)
		return -ENOMEM;
	sb->node = n;
	sb->driver = w->driver;
	copy_id(sb->id, w->id);
	sb->evidence = *ev;
	sb->pidfd = *pidfd;
	av_list_init(&sb->convs);
	av_timer_init(&sb->lost_timer, n->loop, on_lost_timer, sb);
	for (size_t i = 0; i < LINK_COUNT; i++)
		link_init(&sb->links[i], sb, (enum link_kind)i);
	r = watch_pidfd(sb);
	if (r == 0)
		r = av_map_put(&n->sandboxes, av_str_c(sb->id), sb);
	if (r < 0) {
		av_watch_free(sb->watch);
		free(sb);
		return r;
	}
	sb->init_json = AV_TAKE_PTR(w->init_json);
	*pidfd = -1;
	*ret = sb;
	return 0;
}

/* ---- creation and adoption ---- */

static char *make_init(const struct node_agent_config *a)
{
	struct av_buf b = AV_BUF_INIT(INIT_MAX);
	char *text;

	(void)av_buf_printf(&b, "{\"envVars\":");
	(void)av_buf_append_c(&b, a && a->envs_json && a->envs_json[0] ? a->envs_json : "{}");
	if (a && a->default_user) {
		(void)av_buf_append_c(&b, ",\"defaultUser\":");
		(void)av_json_write_str(&b, av_str_c(a->default_user));
	}
	if (a && a->default_workdir) {
		(void)av_buf_append_c(&b, ",\"defaultWorkdir\":");
		(void)av_json_write_str(&b, av_str_c(a->default_workdir));
	}
	(void)av_buf_append_char(&b, '}');
	text = av_buf_error(&b) ? NULL : av_str_dup(av_buf_str(&b));
	av_buf_clear(&b);
	return text;
}

static void on_alive(
    void *ctx, const struct driver_evidence *ev, int pidfd, const struct av_err *err)
{
	struct wrap *w = ctx;
	struct node_sandbox *sb = NULL;
	node_sandbox_fn *fn = w->fn.sandbox;
	void *fn_ctx = w->ctx;
	const struct av_trace trace = w->trace;
	struct av_err own;

	if (!err) {
		int r = sandbox_new(w, ev, &pidfd, &sb);

		if (r < 0) {
			av_close_fd(&pidfd);
			(void)av_err_sys(&own, AV_ERR_INTERNAL, r, "cannot watch the sandbox");
			err = &own;
		}
	}
	if (sb)
		sb->trace = trace;
	wrap_free(w);
	fn(fn_ctx, sb, err ? NULL : ev, err);
}

static void on_created(
    void *ctx, const struct driver_evidence *ev, int pidfd, const struct av_err *err)
{
	struct node *n = ((struct wrap *)ctx)->node;
	char id[AV_ID_SIZE];
	struct node_sandbox *sb;

	memcpy(id, ((struct wrap *)ctx)->id, sizeof(id));
	on_alive(ctx, ev, pidfd, err);
	/* Its first exec is likely to come soon: the connection is made while the record is
	 * written. */
	sb = av_map_get(&n->sandboxes, av_str_c(id));
	if (sb)
		link_warm(&sb->links[LINK_INTERACTIVE]);
}

/* What was killed before this daemon is no news about the processes to come. */
static void on_adopted(
    void *ctx, const struct driver_evidence *ev, int pidfd, const struct av_err *err)
{
	struct node *n = ((struct wrap *)ctx)->node;
	struct node_sandbox *sb;
	char id[AV_ID_SIZE];

	memcpy(id, ((struct wrap *)ctx)->id, sizeof(id));
	on_alive(ctx, ev, pidfd, err);
	sb = av_map_get(&n->sandboxes, av_str_c(id));
	if (!sb)
		return;
	sb->met = true;
	(void)node_inspect(n, id, NULL, NULL);
}

static struct wrap *wrap_for_agent(struct node *n, struct driver *d, const char *id,
    const struct node_agent_config *a, node_sandbox_fn *fn, void *ctx)
{
	struct wrap *w = n->closing ? NULL : wrap_new(n, id, ctx);

	if (!w)
		return NULL;
	w->driver = d;
	w->fn.sandbox = fn;
	w->init_json = make_init(a);
	if (a)
		w->trace = a->trace;
	if (!w->init_json) {
		wrap_free(w);
		return NULL;
	}
	return w;
}

int node_create(struct node *n, const struct driver_spec *spec, const struct node_agent_config *a,
    node_sandbox_fn *fn, void *ctx)
{
	struct driver *d = node_driver_for(n, spec->isolation);
	struct wrap *w;

	if (!d)
		return -EOPNOTSUPP;
	w = wrap_for_agent(n, d, spec->id, a, fn, ctx);
	if (!w)
		return -ENOMEM;
	return wrap_sent(w, d->ops->create(d, spec, on_created, w));
}

int node_adopt(struct node *n, const char *id, const char *isolation,
    const struct driver_evidence *ev, const struct node_agent_config *a, node_sandbox_fn *fn,
    void *ctx)
{
	struct driver *d = node_driver_for(n, isolation);
	struct wrap *w;

	if (!d)
		return -EOPNOTSUPP;
	w = wrap_for_agent(n, d, id, a, fn, ctx);
	if (!w)
		return -ENOMEM;
	return wrap_sent(w, d->ops->adopt(d, id, ev, on_adopted, w));
}

void node_forget(struct node_sandbox *sb, const struct av_err *why)
{
	fail_convs(sb, why);
	sandbox_free(sb);
}

int node_configure(struct node_sandbox *sb, const struct node_agent_config *a)
{
	char *init = make_init(a);

	if (!init)
		return -ENOMEM;
	assert(sb->n_convs == 0);
	if (strcmp(init, sb->init_json) == 0) {
		free(init);
		link_warm(&sb->links[LINK_INTERACTIVE]);
		return 0;
	}
	free(sb->init_json);
	sb->init_json = init;
	for (size_t i = 0; i < LINK_COUNT; i++)
		link_greet_again(&sb->links[i]);
	link_warm(&sb->links[LINK_INTERACTIVE]);
	return 0;
}

static void on_driver_done(void *ctx, const struct av_err *err)
{
	struct wrap *w = ctx;
	node_done_fn *fn = w->fn.done;
	void *fn_ctx = w->ctx;

	wrap_free(w);
	fn(fn_ctx, err);
}

int node_destroy(struct node *n, const char *id, node_done_fn *fn, void *ctx)
{
	struct wrap *w = wrap_for_done(n, id, fn, ctx);

	return w ? wrap_sent(w, w->driver->ops->destroy(w->driver, id, on_driver_done, w))
	         : -ENOMEM;
}

/* ---- freezing ---- */

int64_t node_sandbox_frozen_ns(const struct node_sandbox *sb)
{
	return sb->frozen_sum_ns + (sb->frozen ? av_mono_ns() - sb->frozen_since_ns : 0);
}

static void set_frozen(struct node_sandbox *sb, bool frozen)
{
	struct conv *c;

	if (sb->frozen == frozen)
		return;
	if (frozen)
		sb->frozen_since_ns = av_mono_ns();
	else
		sb->frozen_sum_ns += av_mono_ns() - sb->frozen_since_ns;
	sb->frozen = frozen;
	for (size_t i = 0; i < LINK_COUNT; i++)
		link_hold(&sb->links[i], frozen);
	if (frozen)
		return;
	AV_LIST_FOREACH(c, &sb->convs, struct conv, link)
	c->waits_for_thaw = false;
}

/* Its processes are on the disk, with the time as it was for them: no connection outlasts that, and
 * none of their clocks goes on meanwhile. */
static bool leaves_memory(const struct node_sandbox *sb)
{
	return sb->driver->ops->caps(sb->driver)->flags & DRIVER_MEMORY_SNAPSHOT;
}

static void end_with_pause(struct node_sandbox *sb)
{
	struct av_err why;

	(void)av_err_set(&why, AV_ERR_INVALID_STATE,
	    "sandbox %s was paused meanwhile, which ends every stream to a virtual machine; its "
	    "processes go on when it is resumed, and can be attached to again",
	    sb->id);
	fail_convs(sb, &why);
	for (size_t i = 0; i < LINK_COUNT; i++)
		link_clear(&sb->links[i]);
}

static void on_frozen(void *ctx, const struct av_err *err)
{
	struct wrap *w = ctx;
	struct node_sandbox *sb = av_map_get(&w->node->sandboxes, av_str_c(w->id));
	node_done_fn *fn = w->fn.done;
	void *fn_ctx = w->ctx;

	wrap_free(w);
	if (sb && err)
		set_frozen(sb, false);
	else if (sb && leaves_memory(sb))
		end_with_pause(sb);
	fn(fn_ctx, err);
}

static void on_thawed(void *ctx, const struct av_err *err)
{
	struct wrap *w = ctx;
	struct node_sandbox *sb = av_map_get(&w->node->sandboxes, av_str_c(w->id));
	node_done_fn *fn = w->fn.done;
	void *fn_ctx = w->ctx;

	wrap_free(w);
	if (sb && !err)
		set_frozen(sb, false);
	fn(fn_ctx, err);
}

int node_freeze(struct node *n, const char *id, node_done_fn *fn, void *ctx)
{
	struct node_sandbox *sb = av_map_get(&n->sandboxes, av_str_c(id));
	struct wrap *w = wrap_for_done(n, id, fn, ctx);
	int r;

	if (!w)
		return -ENOMEM;
	/* From now on: it may be frozen any time before the answer. */
	if (sb)
		set_frozen(sb, true);
	r = wrap_sent(w, w->driver->ops->freeze(w->driver, id, on_frozen, w));
	if (r < 0 && sb)
		set_frozen(sb, false);
	return r;
}

int node_thaw(struct node *n, const char *id, node_done_fn *fn, void *ctx)
{
	struct node_sandbox *sb = av_map_get(&n->sandboxes, av_str_c(id));
	struct wrap *w = wrap_for_done(n, id, fn, ctx);

	if (!w)
		return -ENOMEM;
	if (sb && sb->frozen && !sb->dead && !leaves_memory(sb))
		node_tell_thaw(sb, (av_mono_ns() - sb->frozen_since_ns) / AV_NS_PER_MS);
	return wrap_sent(w, w->driver->ops->thaw(w->driver, id, on_thawed, w));
}

/* ---- holding ---- */

static void set_held(struct node_sandbox *sb, bool held)
{
	sb->held = held;
	set_frozen(sb, held);
}

static void on_taken(void *ctx, const struct av_err *err)
{
	struct wrap *w = ctx;
	struct node_sandbox *sb = av_map_get(&w->node->sandboxes, av_str_c(w->id));

	if (sb && !err)
		set_held(sb, false);
	on_driver_done(w, err);
}

int node_hold(struct node *n, const char *id, node_done_fn *fn, void *ctx)
{
	struct node_sandbox *sb = av_map_get(&n->sandboxes, av_str_c(id));
	struct wrap *w = wrap_for_done(n, id, fn, ctx);
	int r;

	if (!w)
		return -ENOMEM;
	if (!w->driver->ops->hold)
		return wrap_sent(w, -EALREADY);
	if (sb)
		set_held(sb, true);
	r = wrap_sent(w, w->driver->ops->hold(w->driver, id, on_driver_done, w));
	if (r < 0 && sb)
		set_held(sb, false);
	return r;
}

int node_take(struct node *n, const char *id, node_done_fn *fn, void *ctx)
{
	struct wrap *w = wrap_for_done(n, id, fn, ctx);

	if (!w)
		return -ENOMEM;
	return wrap_sent(
	    w, w->driver->ops->take ? w->driver->ops->take(w->driver, id, on_taken, w) : -EALREADY);
}

void node_fail_waiting(struct node_sandbox *sb, const struct av_err *why)
{
	struct conv *c;

	AV_LIST_FOREACH(c, &sb->convs, struct conv, link)
	if (c->waits_for_thaw)
		conv_abort(c, why);
}

static void on_status(void *ctx, const struct driver_status *st, const struct av_err *err)
{
	struct wrap *w = ctx;
	struct node *n = w->node;
	struct node_sandbox *sb = av_map_get(&n->sandboxes, av_str_c(w->id));
	driver_status_fn *fn = w->fn.status;
	void *fn_ctx = w->ctx;

	wrap_free(w);
	if (!err && sb)
		note_oom(sb, st);
	if (fn)
		fn(fn_ctx, st, err);
}

int node_inspect(struct node *n, const char *id, driver_status_fn *fn, void *ctx)
{
	struct wrap *w = n->closing ? NULL : wrap_new(n, id, ctx);

	if (!w)
		return -ENOMEM;
	w->fn.status = fn;
	return wrap_sent(w, w->driver->ops->inspect(w->driver, id, on_status, w));
}

static void on_autopsy(void *ctx, const struct driver_status *st, const struct av_err *err)
{
	struct wrap *w = ctx;
	node_autopsy_fn *fn = w->fn.autopsy;
	void *fn_ctx = w->ctx;
	char detail[64];
	enum node_death why = death_of(err ? NULL : st, detail, sizeof(detail));

	if (!err && !w->node->closing)
		note_main(w->node, w->id, st);
	wrap_free(w);
	fn(fn_ctx, why, detail);
}

int node_autopsy(struct node *n, const char *id, node_autopsy_fn *fn, void *ctx)
{
	struct wrap *w = n->closing ? NULL : wrap_new(n, id, ctx);

	if (!w)
		return -ENOMEM;
	w->fn.autopsy = fn;
	return wrap_sent(w, w->driver->ops->inspect(w->driver, id, on_autopsy, w));
}

struct node_sandbox *node_find(const struct node *n, const char *id)
{
	return av_map_get(&n->sandboxes, av_str_c(id));
}

size_t node_sandbox_busy(const struct node_sandbox *sb)
{
	return sb->n_convs - sb->n_quiet;
}

/* ---- the node ---- */

int node_new(const struct node_config *config, struct node **ret, struct av_err *err)
{
	struct node *n = calloc(1, sizeof(*n));

	if (!n)
		return av_err_set(err, AV_ERR_NO_MEMORY, "out of memory");
	n->loop = config->loop;
	n->collect_max = config->collect_max ? config->collect_max : COLLECT_MAX_DEFAULT;
	av_map_init(&n->sandboxes);
	av_list_init(&n->wraps);
	node_drivers_take(n, config->drivers);
	*ret = n;
	return 0;
}

void node_set_events(struct node *n, const struct node_events *events, void *ctx)
{
	n->events = events;
	n->events_ctx = ctx;
}

static void on_drivers_closed(struct node *n)
{
	void (*on_closed)(void *c) = n->on_closed;
	void *closed_ctx = n->on_closed_ctx;

	assert(av_list_empty(&n->wraps));
	av_map_clear(&n->sandboxes);
	free(n);
	on_closed(closed_ctx);
}

void node_close(struct node *n, void (*on_closed)(void *ctx), void *ctx)
{
	struct node_sandbox *sb;
	struct av_err err;
	size_t pos = 0;

	n->closing = true;
	n->on_closed = on_closed;
	n->on_closed_ctx = ctx;
	(void)av_err_set(
	    &err, AV_ERR_UNAVAILABLE, "Aviary is shutting down; the sandbox goes on running");
	while ((sb = av_map_next(&n->sandboxes, &pos)))
		node_forget(sb, &err);
	node_drivers_close(n, on_drivers_closed);
}

void node_call_cancel(struct node_call *call)
{
	if (call)
		call->cancel(call);
}
