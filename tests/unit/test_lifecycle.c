/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_lifecycle.c - pausing, resuming, changing and idleness of sandboxes, over a fake driver
 */
#include <sys/resource.h>
#include <sys/socket.h>

#include "control_world.h"

#include "base/banned.h"

typedef int change_call(struct control *, const struct control_actor *, const char *, sandbox_fn *,
    void *, struct node_call **, struct av_err *);

static struct answer change(struct world *w, change_call *call, const char *id)
{
	struct answer a = {0};
	struct av_err err = {0};

	if (call(w->control, &w->actor, id, on_sandbox, &a, NULL, &err) < 0)
		take_err(&a, &err);
	else
		(void)run_until(w, &a.done);
	return a;
}

static struct answer update(struct world *w, const char *id, const struct sandbox_update *u)
{
	struct answer a = {0};
	struct av_err err = {0};

	if (control_update(w->control, &w->actor, id, u, on_sandbox, &a, NULL, &err) < 0)
		take_err(&a, &err);
	else
		(void)run_until(w, &a.done);
	return a;
}

static bool frozen(struct world *w, const char *id)
{
	const struct fake_box *b = fake_find(w->machine, id);

	return b && b->frozen;
}

/* What a request for a process would be told; there is no agent to start one. */
static enum av_err_kind try_exec(struct world *w, const char *id, struct av_err *err)
{
	struct answer a = {0};

	av_err_clear(err);
	(void)control_processes(w->control, &w->actor, id, NULL, &a, NULL, err);
	return err->kind;
}

static void turn_clock(struct world *w, int64_t seconds)
{
	w->skew_ns += seconds * AV_NS_PER_S;
	control_tick(w->control);
	run_for(w, 60);
}

/* ---- pause and resume ---- */

static void test_pause(struct world *w)
{
	struct answer a = create(w, &(struct sandbox_params){0}), p;
	struct control_stats st;
	struct av_err err;

	p = change(w, control_resume, a.id);
	ok(p.kind == AV_ERR_INVALID_STATE, "what runs cannot be resumed: %s", p.message);
	p = change(w, control_pause, a.id);
	ok(p.kind == 0 && p.state == SANDBOX_PAUSED, "a pause is answered paused: %s", p.message);
	ok(frozen(w, a.id), "and it is frozen");
	is_int(get(w, a.id).state, SANDBOX_PAUSED, "get says so");
	is_int(list(w, &(struct sandbox_filter){.states = 1u << SANDBOX_PAUSED}).n, 1, "list too");
	ok(try_exec(w, a.id, &err) == AV_ERR_INVALID_STATE && strstr(err.message, "resume"),
	    "nothing can be asked of it: %s", err.message);
	ok(control_ping(w->control, &w->actor, a.id, &err) < 0 && strstr(err.message, "paused"),
	    "nor can it be pinged: %s", err.message);
	p = change(w, control_pause, a.id);
	is_int(p.kind, AV_ERR_INVALID_STATE, "nor paused again");
	p = change(w, control_resume, a.id);
	ok(p.kind == 0 && p.state == SANDBOX_RUNNING, "a resume is answered running: %s",
	    p.message);
	ok(!frozen(w, a.id), "and it is thawed");
	ok(try_exec(w, a.id, &err) == AV_ERR_AGENT, "it can be asked again");
	control_get_stats(w->control, &st);
	ok(st.pauses == 1 && st.resumes == 1 && st.paused == 0 && st.idle_pauses == 0, "counted");
	p = change(w, control_pause, "sb0000000000000000000000000");
	is_int(p.kind, AV_ERR_NOT_FOUND, "what is not there: not found");
	(void)delete (w, a.id);
	ok(change(w, control_pause, a.id).kind == AV_ERR_INVALID_STATE &&
	        change(w, control_resume, a.id).kind == AV_ERR_INVALID_STATE,
	    "what is over is neither paused nor resumed");
}

static void test_failures(struct world *w)
{
	struct answer a = create(w, &(struct sandbox_params){0}), p;

	w->driver->caps.flags = 0;
	p = change(w, control_pause, a.id);
	ok(p.kind == AV_ERR_UNSUPPORTED, "without a freezer: %s", p.message);
	w->driver->caps.flags = DRIVER_FREEZE;
	w->machine->fail_freeze = AV_ERR_INTERNAL;
	p = change(w, control_pause, a.id);
	ok(p.kind == AV_ERR_INTERNAL && get(w, a.id).state == SANDBOX_RUNNING,
	    "a freeze that fails leaves it running");
	w->machine->fail_freeze = AV_ERR_NONE;
	(void)change(w, control_pause, a.id);
	w->machine->fail_thaw = AV_ERR_INTERNAL;
	p = change(w, control_resume, a.id);
	ok(p.kind == AV_ERR_INTERNAL && get(w, a.id).state == SANDBOX_PAUSED && frozen(w, a.id),
	    "a thaw that fails leaves it paused");
	w->machine->fail_thaw = AV_ERR_UNAVAILABLE;
	p = change(w, control_resume, a.id);
	fake_find(w->machine, a.id)->frozen = false; /* it had been thawed after all */
	w->machine->fail_thaw = AV_ERR_NONE;
	w->driver->base.on_ready(w->driver->base.on_ready_ctx);
	run_for(w, 30);
	ok(p.kind == AV_ERR_UNAVAILABLE && frozen(w, a.id),
	    "when nobody knows, the machine is made to fit the record");
	p = change(w, control_resume, a.id);
	is_int(p.kind, 0, "and a resume succeeds in the end");
	(void)delete (w, a.id);
}

/* Every write fails for a while. Nothing is printed meanwhile. */
static void test_broken_disk(struct world *w)
{
	struct answer run = create(w, &(struct sandbox_params){0}), p, r, u;
	struct answer stay = create(w, &(struct sandbox_params){0});
	struct rlimit limit;
	bool froze, thawed;

	(void)change(w, control_pause, stay.id);
	(void)signal(SIGXFSZ, SIG_IGN);
	(void)getrlimit(RLIMIT_FSIZE, &limit);
	limit.rlim_cur = 0;
	(void)setrlimit(RLIMIT_FSIZE, &limit);
	p = change(w, control_pause, run.id);
	r = change(w, control_resume, stay.id);
	u = update(w, run.id,
	    &(struct sandbox_update){.set = SANDBOX_SET_TIMEOUT, .idle_timeout_ms = 1000});
	run_for(w, 30);
	froze = frozen(w, run.id);
	thawed = !frozen(w, stay.id);
	limit.rlim_cur = limit.rlim_max;
	(void)setrlimit(RLIMIT_FSIZE, &limit);
	ok(p.kind && r.kind && u.kind, "what cannot be recorded is refused: %s", p.message);
	ok(!froze && !thawed, "and not done, or taken back");
	ok(get(w, run.id).state == SANDBOX_RUNNING && get(w, stay.id).state == SANDBOX_PAUSED &&
	        get(w, run.id).idle_timeout_ms == 0,
	    "nobody sees it");
	is_int(change(w, control_resume, stay.id).kind, 0, "afterwards it works");
	(void)delete (w, run.id);
	(void)delete (w, stay.id);
}

/* The second and third wait for their turn. */
static void test_queue(struct world *w)
{
	struct answer a = create(w, &(struct sandbox_params){0}), v[4] = {0};
	struct node_call *gone = NULL;
	struct av_err err;

	w->machine->hold = true;
	(void)control_pause(w->control, &w->actor, a.id, on_sandbox, &v[0], &gone, NULL);
	(void)control_resume(w->control, &w->actor, a.id, on_sandbox, &v[1], NULL, NULL);
	(void)control_pause(w->control, &w->actor, a.id, on_sandbox, &v[2], NULL, NULL);
	(void)control_pause(w->control, &w->actor, a.id, on_sandbox, &v[3], NULL, NULL);
	run_for(w, 20);
	is_int(get(w, a.id).state, SANDBOX_RUNNING, "before it is on disk nobody sees it");
	ok(try_exec(w, a.id, &err) == AV_ERR_INVALID_STATE && strstr(err.message, "being paused"),
	    "but nothing new is let in: %s", err.message);
	node_call_cancel(gone);
	w->machine->hold = false;
	fake_kick(w->driver);
	(void)run_until(w, &v[3].done);
	is_int(v[0].calls, 0, "who cancelled is not called");
	ok(v[1].kind == 0 && v[2].kind == 0 && v[2].state == SANDBOX_PAUSED,
	    "those that queued got what they asked for");
	is_int(v[3].kind, AV_ERR_INVALID_STATE, "the last one found it paused");
	ok(frozen(w, a.id), "it is");
	(void)delete (w, a.id);
}

/* ---- delete, from everywhere ---- */

/* Deletes twice at once in the middle of a change, which is held by the driver. */
static void delete_during(struct world *w, change_call *call, bool paused, const char *what)
{
	struct answer a = create(w, &(struct sandbox_params){0}), c = {0}, queued = {0}, d[2] = {0};

	if (paused)
		(void)change(w, control_pause, a.id);
	w->machine->hold = true;
	(void)call(w->control, &w->actor, a.id, on_sandbox, &c, NULL, NULL);
	(void)control_pause(w->control, &w->actor, a.id, on_sandbox, &queued, NULL, NULL);
	run_for(w, 20);
	for (int i = 0; i < 2; i++)
		(void)control_delete(w->control, &w->actor, a.id, on_done, &d[i], NULL, NULL);
	run_for(w, 20);
	w->machine->hold = false;
	fake_kick(w->driver);
	(void)run_until(w, &d[1].done);
	(void)run_until(w, &c.done);
	(void)run_until(w, &queued.done);
	ok(d[0].kind == 0 && d[1].kind == 0, "%s: both deletes succeed", what);
	ok(c.kind == AV_ERR_INVALID_STATE && strstr(c.message, "deleted"),
	    "%s: the change says why it was given up: %s", what, c.message);
	is_int(queued.kind, AV_ERR_INVALID_STATE, "so does the one behind it");
	ok(!fake_find(w->machine, a.id) && get(w, a.id).reason == SANDBOX_REASON_DELETED,
	    "%s: it is gone", what);
	is_int(delete (w, a.id).kind, 0, "and can be deleted again");
}

static void test_delete(struct world *w)
{
	struct answer a = create(w, &(struct sandbox_params){0});

	(void)change(w, control_pause, a.id);
	is_int(delete (w, a.id).kind, 0, "a paused one is deleted");
	ok(!fake_find(w->machine, a.id), "at once");
	is_int(get(w, a.id).reason, SANDBOX_REASON_DELETED, "with that reason");
	delete_during(w, control_pause, false, "delete while pausing");
	delete_during(w, control_resume, true, "delete while resuming");
}

static void test_death(struct world *w)
{
	struct answer a = create(w, &(struct sandbox_params){0}), g;

	(void)change(w, control_pause, a.id);
	(void)kill(fake_find(w->machine, a.id)->pid, SIGKILL);
	(void)becomes(w, a.id, SANDBOX_STOPPED);
	g = get(w, a.id);
	ok(g.state == SANDBOX_STOPPED && g.reason == SANDBOX_REASON_CRASH,
	    "a paused one that is killed is over");
}

/* ---- idleness ---- */

static void test_idle(struct world *w)
{
	struct sandbox_params minute = {.idle_timeout_ms = 60000};
	struct answer a = create(w, &minute), held = create(w, &minute), p;
	struct control_stats st;

	minute.idle_delete = true;
	p = create(w, &minute);
	ok(control_activity_begin(w->control, held.id), "something uses one of them");
	turn_clock(w, 50);
	is_int(get(w, a.id).state, SANDBOX_RUNNING, "before its time it runs");
	turn_clock(w, 11);
	ok(becomes(w, a.id, SANDBOX_PAUSED), "then it is paused");
	ok(frozen(w, a.id), "and frozen");
	is_int(ends(w, p.id), SANDBOX_REASON_TIMEOUT, "or deleted, if that was asked for");
	is_int(get(w, held.id).state, SANDBOX_RUNNING, "what is used runs on");
	control_activity_end(w->control, held.id);
	turn_clock(w, 50);
	is_int(get(w, held.id).state, SANDBOX_RUNNING, "for its time after the end of that");
	turn_clock(w, 11);
	ok(becomes(w, held.id, SANDBOX_PAUSED), "and not longer");
	control_get_stats(w->control, &st);
	is_int(st.idle_pauses, 2, "counted");
	p = change(w, control_resume, a.id);
	turn_clock(w, 50);
	is_int(get(w, a.id).state, SANDBOX_RUNNING, "a resume begins its time anew");
	(void)delete (w, a.id);
	(void)delete (w, held.id);
	ok(!control_activity_begin(w->control, a.id), "what is over cannot be used");
	control_activity_end(w->control, a.id);
}

static int silent_fd = -1;

static int silent_agent(const char *id)
{
	int fds[2];

	(void)id;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) < 0)
		return -1;
	silent_fd = fds[1];
	return fds[0];
}

/* An agent that does not say what runs keeps nothing alive. */
static void test_silent_agent(struct world *w)
{
	struct answer a = create(w, &(struct sandbox_params){.idle_timeout_ms = 60000});

	w->driver->connect = silent_agent;
	turn_clock(w, 61);
	ok(silent_fd >= 0, "the agent is asked for its processes");
	is_int(get(w, a.id).state, SANDBOX_RUNNING, "it has a moment to answer");
	turn_clock(w, 6);
	ok(becomes(w, a.id, SANDBOX_PAUSED), "and not more");
	w->driver->connect = NULL;
	is_int(delete (w, a.id).kind, 0, "deleted");
	av_close_fd(&silent_fd);
}

static void test_idle_spared(struct world *w)
{
	struct answer a = create(w, &(struct sandbox_params){.idle_timeout_ms = 60000});
	struct av_err err;

	w->machine->hold = true;
	turn_clock(w, 61);
	is_int(control_ping(w->control, &w->actor, a.id, &err), 0, "used while it is being frozen");
	w->machine->hold = false;
	fake_kick(w->driver);
	run_for(w, 60);
	ok(!frozen(w, a.id) && get(w, a.id).state == SANDBOX_RUNNING, "it runs on");
	w->machine->fail_freeze = AV_ERR_INTERNAL;
	turn_clock(w, 61);
	is_int(get(w, a.id).state, SANDBOX_RUNNING, "when it cannot be frozen just now");
	w->machine->fail_freeze = AV_ERR_NONE;
	turn_clock(w, 11);
	ok(becomes(w, a.id, SANDBOX_PAUSED), "it is tried again later");
	(void)delete (w, a.id);
	a = create(w, &(struct sandbox_params){.idle_timeout_ms = 60000});
	w->driver->caps.flags = 0;
	turn_clock(w, 61);
	is_int(ends(w, a.id), SANDBOX_REASON_TIMEOUT, "where nothing can be: deleted");
	w->driver->caps.flags = DRIVER_FREEZE;
}

static void test_lifetime(struct world *w)
{
	struct answer a = create(w, &(struct sandbox_params){.max_lifetime_ms = 60000});

	(void)change(w, control_pause, a.id);
	turn_clock(w, 61);
	is_int(ends(w, a.id), SANDBOX_REASON_LIFETIME, "a lifetime ends while paused too");
}

static void test_auto_resume(struct world *w)
{
	struct answer a = create(w, &(struct sandbox_params){.auto_resume = true}), p = {0};
	struct av_err err;

	(void)change(w, control_pause, a.id);
	w->machine->hold = true;
	ok(try_exec(w, a.id, &err) == AV_ERR_AGENT, "a request is let in");
	ok(try_exec(w, a.id, &err) == AV_ERR_AGENT, "so is another");
	run_for(w, 30);
	ok(get(w, a.id).state == SANDBOX_PAUSED, "paused until it is thawed");
	w->machine->hold = false;
	fake_kick(w->driver);
	ok(becomes(w, a.id, SANDBOX_RUNNING) && !frozen(w, a.id), "it is resumed by them");

	w->machine->hold = true;
	(void)control_pause(w->control, &w->actor, a.id, on_sandbox, &p, NULL, NULL);
	run_for(w, 20);
	ok(try_exec(w, a.id, &err) == AV_ERR_AGENT, "a request while it is being paused");
	w->machine->hold = false;
	fake_kick(w->driver);
	(void)run_until(w, &p.done);
	ok(p.kind == 0 && p.state == SANDBOX_PAUSED, "the pause is done");
	ok(becomes(w, a.id, SANDBOX_RUNNING) && !frozen(w, a.id), "then it is resumed");
	(void)delete (w, a.id);
}

/* ---- changes ---- */

static void test_update(struct world *w)
{
	AV_CLEANUP(av_json_decrefp) json_t *meta = json_pack("{s:s,s:s}", "a", "1", "who", "me");
	AV_CLEANUP(av_json_decrefp) json_t *patch = json_pack("{s:n,s:s}", "a", "who", "you");
	AV_CLEANUP(av_json_decrefp) json_t *bad = json_pack("{s:i}", "a", 1);
	AV_CLEANUP(av_json_decrefp) json_t *tags = json_pack("[s]", "x");
	struct answer a = create(w, &(struct sandbox_params){.metadata = meta, .tags = tags}), u;

	u = update(w, a.id,
	    &(struct sandbox_update){.set = SANDBOX_SET_TIMEOUT | SANDBOX_SET_AUTO_RESUME,
	        .idle_timeout_ms = 60000,
	        .auto_resume = true});
	ok(u.kind == 0 && u.idle_timeout_ms == 60000 && u.auto_resume, "values are set: %s",
	    u.message);
	ok(strcmp(u.tags, "[\"x\"]") == 0 && strcmp(u.meta, "me") == 0, "the others stay");
	u = update(w, a.id,
	    &(struct sandbox_update){
	        .set = SANDBOX_SET_METADATA | SANDBOX_SET_TAGS, .metadata = patch});
	ok(u.kind == 0 && strcmp(u.meta, "you") == 0 && strcmp(u.tags, "[]") == 0,
	    "metadata is merged, lists are replaced: %s", u.message);
	is_int(list(w, &(struct sandbox_filter){.metadata = meta}).n, 0, "null removed a key");
	turn_clock(w, 61);
	ok(becomes(w, a.id, SANDBOX_PAUSED), "the new time-out counts");
	u = update(w, a.id,
	    &(struct sandbox_update){.set = SANDBOX_SET_LIFETIME, .max_lifetime_ms = 3600000});
	ok(u.kind == 0 && u.state == SANDBOX_PAUSED, "a paused one can be changed");

	u = update(
	    w, a.id, &(struct sandbox_update){.set = SANDBOX_SET_TIMEOUT, .idle_timeout_ms = -1});
	ok(u.kind == AV_ERR_INVALID && strstr(u.message, "timeout_sec"), "refused: %s", u.message);
	u = update(w, a.id, &(struct sandbox_update){.set = SANDBOX_SET_METADATA, .metadata = bad});
	ok(u.kind == AV_ERR_INVALID && strstr(u.message, "metadata.a"), "refused: %s", u.message);
	u = update(
	    w, a.id, &(struct sandbox_update){.set = SANDBOX_SET_LIFETIME, .max_lifetime_ms = 1});
	run_for(w, 150);
	is_int(ends(w, a.id), SANDBOX_REASON_LIFETIME, "a lifetime that is over ends it");
	u = update(w, a.id, &(struct sandbox_update){.set = SANDBOX_SET_TIMEOUT});
	is_int(u.kind, AV_ERR_INVALID_STATE, "what is over is not changed");
	u = get(w, a.id);
	ok(u.idle_timeout_ms == 60000 && strcmp(u.meta, "you") == 0,
	    "what was changed was written");
}

/* ---- restarts ---- */

static void test_restart(struct fake_machine *m, const char *secret)
{
	struct answer paused, frozen_only, thawed, held = {0};
	struct world w;

	world_open(&w, m, NULL);
	(void)control_key_verify(w.control, av_str_c(secret), &w.actor, NULL);
	paused = create(&w, &(struct sandbox_params){0});
	frozen_only = create(&w, &(struct sandbox_params){0});
	thawed = create(&w, &(struct sandbox_params){0});
	(void)change(&w, control_pause, paused.id);
	(void)change(&w, control_pause, thawed.id);
	m->hold = true;
	(void)control_pause(w.control, &w.actor, frozen_only.id, on_sandbox, &held, NULL, NULL);
	run_for(&w, 20);
	world_close(&w, false);
	m->hold = false;
	ok(held.kind == AV_ERR_CANCELED, "a pause under way is told: %s", held.message);
	fake_find(m, frozen_only.id)->frozen = true; /* killed between freezing and recording */
	fake_find(m, thawed.id)->frozen = false;     /* or between thawing and recording */

	world_open(&w, m, NULL);
	(void)control_key_verify(w.control, av_str_c(secret), &w.actor, NULL);
	is_int(w.report.adopted, 3, "all are adopted");
	ok(get(&w, paused.id).state == SANDBOX_PAUSED && frozen(&w, paused.id),
	    "a paused one stays paused");
	ok(get(&w, frozen_only.id).state == SANDBOX_RUNNING && !frozen(&w, frozen_only.id),
	    "one that nobody was told to be paused runs");
	ok(get(&w, thawed.id).state == SANDBOX_PAUSED && frozen(&w, thawed.id),
	    "one that nobody was told to run is paused");
	is_int(change(&w, control_resume, paused.id).kind, 0, "and can be resumed");
	m->hold = true;
	held = (struct answer){0};
	(void)control_pause(w.control, &w.actor, paused.id, on_sandbox, &held, NULL, NULL);
	run_for(&w, 20);
	w.stopped = false;
	(void)control_stop(w.control, set_flag, &w.stopped);
	run_for(&w, 30);
	ok(!w.stopped, "stopping waits for a pause under way");
	m->hold = false;
	fake_kick(w.driver);
	(void)run_until(&w, &w.stopped);
	ok(held.kind == 0 && held.state == SANDBOX_PAUSED, "which is answered");
	world_close(&w, false);
}

int main(void)
{
	struct fake_machine m;
	struct world w;
	char secret[64] = "";

	if (!mkdtemp(dir) || av_path_printf(db, sizeof(db), "%s/aviary.db", dir) < 0)
		return 1;
	fake_machine_init(&m, "this-boot");
	world_open(&w, &m, NULL);
	world_first(&w);
	memcpy(secret, w.secret, sizeof(secret));
	test_pause(&w);
	test_failures(&w);
	test_broken_disk(&w);
	test_queue(&w);
	test_delete(&w);
	test_death(&w);
	test_idle(&w);
	test_silent_agent(&w);
	test_idle_spared(&w);
	test_lifetime(&w);
	test_auto_resume(&w);
	test_update(&w);
	world_close(&w, true);
	test_restart(&m, secret);
	fake_machine_clear(&m);
	(void)unlink(db);
	(void)rmdir(dir);
	return tap_done();
}
