/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_events.c - what control tells its listener, over a fake driver
 */
#include "control_world.h"

#include "control/events.h"

#include "base/banned.h"

/* What was told, a word for each event, with who and why. */
static char told[2048];
static struct world *world;
static const struct answer *expect_unanswered; /* told before whoever asked is answered */

static const char *const names[CONTROL_EVENT_COUNT] = {
#define CONTROL_EVENT(name) [CONTROL_EVENT_##name] = #name,
#include "control/events.def"
#undef CONTROL_EVENT
};

static void on_event(void *ctx, const struct control_event *ev)
{
	size_t n = strlen(told);

	(void)ctx;
	if (expect_unanswered && expect_unanswered->done)
		ok(false, "an event is told before the answer");
	if (strcmp(ev->team_id, world->actor.team_id) != 0 || ev->at_ms == 0 ||
	    (ev->sandbox && strcmp(ev->sandbox->id, ev->resource_id) != 0))
		ok(false, "whose it is");
	(void)snprintf(told + n, sizeof(told) - n, "%s%s", n ? " " : "", names[ev->kind]);
	n = strlen(told);
	if (ev->kind == CONTROL_EVENT_SANDBOX_STATE)
		(void)snprintf(told + n, sizeof(told) - n, "(%s>%s)", sandbox_state_text(ev->from),
		    sandbox_state_text(ev->sandbox->state));
	else
		(void)snprintf(told + n, sizeof(told) - n, "(%s%s%s%s)",
		    ev->key_id && strcmp(ev->key_id, world->actor.key_id) == 0 && ev->key_name
		        ? "me"
		        : "nobody",
		    ev->err ? " failed" : "", ev->reason ? " " : "",
		    sandbox_reason_text(ev->reason));
}

static void on_key_deleted(void *ctx, const char *key_id)
{
	size_t n = strlen(told);

	(void)ctx;
	(void)snprintf(told + n, sizeof(told) - n, "%skey %.2s", n ? " " : "", key_id);
}

static void on_stopping(void *ctx)
{
	size_t n = strlen(told);

	(void)ctx;
	(void)snprintf(told + n, sizeof(told) - n, "%sstopping", n ? " " : "");
}

static const struct control_listener listener = {
    .on_event = on_event, .on_key_deleted = on_key_deleted, .on_stopping = on_stopping};

static void is_told(const char *expected, const char *what)
{
	ok(strcmp(told, expected) == 0, "%s: %s", what, told);
	told[0] = '\0';
}

typedef int change_call(struct control *, const struct control_actor *, const char *, sandbox_fn *,
    void *, struct node_call **, struct av_err *);

static enum av_err_kind change(struct world *w, change_call *call, const char *id)
{
	struct answer a = {0};
	struct av_err err = {0};

	if (call(w->control, &w->actor, id, on_sandbox, &a, NULL, &err) < 0)
		return err.kind;
	expect_unanswered = &a;
	(void)run_until(w, &a.done);
	expect_unanswered = NULL;
	return a.kind;
}

static void turn_clock(struct world *w, int64_t seconds)
{
	w->skew_ns += seconds * AV_NS_PER_S;
	control_tick(w->control);
	run_for(w, 100);
}

static void test_life(struct world *w)
{
	struct answer a = create(w, &(struct sandbox_params){0});

	is_told("SANDBOX_STATE(starting>running) SANDBOX_CREATE(me)", "a create");
	(void)change(w, control_pause, a.id);
	is_told("SANDBOX_STATE(running>paused) SANDBOX_PAUSE(me)", "a pause");
	is_int(change(w, control_pause, a.id), AV_ERR_INVALID_STATE, "another one is refused");
	is_told("", "what is refused is no event");
	(void)change(w, control_resume, a.id);
	is_told("SANDBOX_STATE(paused>running) SANDBOX_RESUME(me)", "a resume");
	(void)delete (w, a.id);
	is_told("SANDBOX_STATE(running>stopping) SANDBOX_STATE(stopping>stopped) "
	        "SANDBOX_DESTROY(me deleted)",
	    "a delete");
	(void)delete (w, a.id);
	is_told("", "only once");
}

static void test_by_itself(struct world *w)
{
	struct answer a = create(w, &(struct sandbox_params){.max_lifetime_ms = 5000});
	struct answer b;

	told[0] = '\0';
	turn_clock(w, 10);
	is_told("SANDBOX_STATE(running>stopping) SANDBOX_STATE(stopping>stopped) "
	        "SANDBOX_DESTROY(nobody lifetime)",
	    "the end of a life");
	is_int(get(w, a.id).state, SANDBOX_STOPPED, "it has ended");
	b = create(w, &(struct sandbox_params){.idle_timeout_ms = 5000, .auto_resume = true});
	told[0] = '\0';
	turn_clock(w, 10);
	is_told(
	    "SANDBOX_STATE(running>paused) SANDBOX_PAUSE(nobody timeout)", "a pause of the idle");
	(void)delete (w, b.id);
	told[0] = '\0';
}

static void test_failures(struct world *w, struct fake_machine *m)
{
	struct answer a = create(w, &(struct sandbox_params){0});

	told[0] = '\0';
	m->fail_freeze = AV_ERR_INTERNAL;
	(void)change(w, control_pause, a.id);
	is_told("SANDBOX_PAUSE(me failed)", "a pause that fails");
	m->fail_freeze = AV_ERR_NONE;
	(void)delete (w, a.id);
	told[0] = '\0';
	m->fail_create = AV_ERR_INTERNAL;
	(void)create(w, &(struct sandbox_params){0});
	m->fail_create = AV_ERR_NONE;
	for (int i = 0; i < 100 && !strstr(told, "SANDBOX_DESTROY"); i++)
		run_for(w, 50);
	is_told("SANDBOX_CREATE(me failed) SANDBOX_STATE(starting>stopping) "
	        "SANDBOX_STATE(stopping>error) SANDBOX_DESTROY(nobody create_failed)",
	    "a create that fails");
	(void)create(w, &(struct sandbox_params){.template_name = "no-such"});
	is_told("", "one that is refused");
}

static void on_key(void *ctx, const struct control_key *key, const struct av_err *err)
{
	struct answer *a = ctx;

	take_err(a, err);
	if (key)
		memcpy(a->id, key->id, AV_ID_SIZE);
}

static void test_keys(struct world *w)
{
	struct answer made = {0}, gone = {0};

	(void)control_key_create(w->control, &w->actor,
	    &(struct control_key_params){.name = AV_STR("x")}, on_key, &made, NULL, NULL);
	(void)run_until(w, &made.done);
	(void)control_key_delete(w->control, &w->actor, made.id, on_done, &gone, NULL, NULL);
	(void)run_until(w, &gone.done);
	is_told("key ke", "a key that is deleted");
}

int main(void)
{
	struct fake_machine m;
	struct world w;

	if (!mkdtemp(dir) || av_path_printf(db, sizeof(db), "%s/aviary.db", dir) < 0)
		return 1;
	fake_machine_init(&m, "this-boot");
	world_open(&w, &m, NULL);
	world = &w;
	control_listen(w.control, &listener, NULL);
	world_first(&w);
	test_life(&w);
	test_by_itself(&w);
	test_failures(&w, &m);
	test_keys(&w);
	control_listen(w.control, NULL, NULL);
	(void)create(&w, &(struct sandbox_params){0});
	is_told("", "nobody listens");
	control_listen(w.control, &listener, NULL);
	world_close(&w, true);
	is_told("stopping", "the end is told");
	fake_machine_clear(&m);
	(void)unlink(db);
	(void)rmdir(dir);
	return tap_done();
}
