/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_control.c - the domain's rules over a real database and a driver whose sandboxes only sleep
 */
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "base/avtime.h"
#include "base/json.h"
#include "base/path.h"
#include "control/control.h"
#include "control/exec.h"
#include "control/keys.h"
#include "control/sandbox.h"
#include "control_world.h"
#include "lib/tap.h"
#include "store/store.h"

#include "base/banned.h"

/* ---- the tests ---- */

static void test_first_start(struct world *w, char *secret)
{
	struct av_err err;
	char other[80];

	w->stopped = false;
	(void)control_first_start(w->control, on_secret, on_first, w);
	(void)run_until(w, &w->stopped);
	ok(w->made && strlen(w->secret) == 43, "the first start makes a key");
	memcpy(secret, w->secret, sizeof(w->secret));
	is_int(control_key_verify(w->control, av_str_c(secret), &w->actor, &err), 0, "it is valid");
	(void)snprintf(other, sizeof(other), "wrn_%s", secret + 3);
	is_int(control_key_verify(w->control, av_str_c(other), &w->actor, &err), 0,
	    "under another dialect's prefix too");
	other[10] = other[10] == '0' ? '1' : '0';
	ok(control_key_verify(w->control, av_str_c(other), &w->actor, &err) < 0 &&
	        err.kind == AV_ERR_UNAUTHORIZED,
	    "one digit off is not");
	ok(control_key_verify(w->control, av_str_c(secret + 3), &w->actor, &err) < 0,
	    "nor is one without a prefix");
	w->stopped = w->made = false;
	w->secret[0] = '\0';
	(void)control_first_start(w->control, on_secret, on_first, w);
	(void)run_until(w, &w->stopped);
	ok(!w->made && !w->secret[0], "a second time nothing is made");
}

static void test_labels(struct world *w)
{
	AV_CLEANUP(av_json_decrefp) json_t *tags = json_pack("[s]", "a");
	AV_CLEANUP(av_json_decrefp) json_t *bad_tags = json_pack("[s,s]", "a", "b\n");
	AV_CLEANUP(av_json_decrefp) json_t *ports = json_pack("[i,i]", 80, 65535);
	AV_CLEANUP(av_json_decrefp) json_t *bad_ports = json_pack("[i]", 65536);
	struct answer a;

	a = create(w, &(struct sandbox_params){.tags = bad_tags});
	ok(a.kind == AV_ERR_INVALID && strstr(a.message, "tags[1]"), "a bad tag: %s", a.message);
	a = create(w, &(struct sandbox_params){.ports = bad_ports});
	ok(a.kind == AV_ERR_INVALID && strstr(a.message, "public_ports[0]"), "a bad port: %s",
	    a.message);
	a = create(w, &(struct sandbox_params){.tags = tags, .ports = ports, .auto_resume = true});
	ok(a.kind == AV_ERR_NONE && strcmp(a.tags, "[\"a\"]") == 0 &&
	        strcmp(a.ports, "[80,65535]") == 0,
	    "tags and ports are shown: %s %s", a.tags, a.ports);
	(void)delete (w, a.id);
	a = get(w, a.id);
	ok(strcmp(a.tags, "[\"a\"]") == 0 && strcmp(a.ports, "[80,65535]") == 0, "and remembered");
}

static void test_life(struct world *w)
{
	AV_CLEANUP(av_json_decrefp) json_t *meta = json_pack("{s:s}", "who", "me");
	struct answer a = create(w, &(struct sandbox_params){.metadata = meta}), b, g;
	struct fake_box *box;

	ok(a.kind == 0 && a.state == SANDBOX_RUNNING, "a create is answered running: %s",
	    a.message);
	is_int(a.memory_bytes, 512 * AV_MIB, "with the default memory");
	is_str(a.meta, "me", "and its metadata");
	box = fake_find(w->machine, a.id);
	ok(box && box->spec.pids_max == 1024 && box->spec.cpu_milli == 1000 && box->spec.sudo,
	    "the driver got the limits");
	is_str(box ? box->spec.template_id : "", "host", "minimal is template host");
	b = create(w, &(struct sandbox_params){.memory_bytes = 64 * AV_MIB, .no_sudo = true});
	is_int(b.kind, 0, "a second one");
	g = list(w, &(struct sandbox_filter){0});
	is_int(g.n, 2, "both are listed");
	is_str(g.id, b.id, "the newer one first");
	is_int(list(w, &(struct sandbox_filter){.metadata = meta}).n, 1, "metadata selects");
	is_int(list(w, &(struct sandbox_filter){.limit = 1}).n, 1, "a limit limits");
	g = get(w, a.id);
	ok(g.kind == 0 && g.state == SANDBOX_RUNNING, "get finds it");
	is_int(control_ping(w->control, &w->actor, a.id, NULL), 0, "ping works");

	is_int(delete (w, a.id).kind, 0, "delete succeeds");
	ok(!fake_find(w->machine, a.id), "it is destroyed when that is answered");
	g = get(w, a.id);
	ok(g.state == SANDBOX_STOPPED && g.reason == SANDBOX_REASON_DELETED,
	    "get says stopped, deleted");
	is_int(delete (w, a.id).kind, 0, "deleting it again succeeds");
	is_int(list(w, &(struct sandbox_filter){0}).n, 1, "it is not listed as live");
	is_int(list(w, &(struct sandbox_filter){.states = 1u << SANDBOX_STOPPED}).n, 1,
	    "but as stopped");
	is_int(delete (w, b.id).kind, 0, "the second is deleted");
	is_int(get(w, "sb0000000000000000000000000").kind, AV_ERR_NOT_FOUND, "unknown: not found");
	is_int(get(w, "../../etc").kind, AV_ERR_NOT_FOUND, "nonsense: not found");
	is_int(delete (w, "sb0000000000000000000000000").kind, AV_ERR_NOT_FOUND,
	    "deleting what never was: not found");
}

static void test_other_team(struct world *w)
{
	struct answer a = create(w, &(struct sandbox_params){0});
	struct control_actor mine = w->actor;

	av_id_make(w->actor.team_id, AV_ID_TEAM);
	is_int(get(w, a.id).kind, AV_ERR_NOT_FOUND, "another team does not see it");
	is_int(delete (w, a.id).kind, AV_ERR_NOT_FOUND, "nor delete it");
	is_int(list(w, &(struct sandbox_filter){0}).n, 0, "nor list it");
	w->actor = mine;
	is_int(delete (w, a.id).kind, 0, "its own does");
	av_id_make(w->actor.team_id, AV_ID_TEAM);
	is_int(delete (w, a.id).kind, AV_ERR_NOT_FOUND, "another team does not learn that it was");
	w->actor = mine;
}

/* Five of one team, every other one over: pages of two, and what they may be picked by. */
static void test_pages(struct world *w)
{
	AV_CLEANUP(av_json_decrefp) json_t *odd = json_pack("[s,s]", "five", "odd");
	AV_CLEANUP(av_json_decrefp) json_t *even = json_pack("[s]", "five");
	AV_CLEANUP(av_json_decrefp) json_t *one = json_pack("[s]", "odd");
	struct control_actor mine = w->actor;
	struct sandbox_filter all = {.states = (1u << SANDBOX_STATE_COUNT) - 1, .limit = 2}, f;
	struct answer made[5], page = {0};
	int shown = 0;

	av_id_make(w->actor.team_id, AV_ID_TEAM);
	for (int i = 0; i < 5; i++)
		made[i] = create(w, &(struct sandbox_params){.tags = i % 2 ? odd : even});
	for (int i = 0; i < 5; i += 2)
		(void)delete (w, made[i].id);
	do {
		char cursor[80];

		memcpy(cursor, page.next, sizeof(cursor));
		all.cursor = av_str_c(cursor);
		page = list(w, &all);
		ok(page.kind == 0 && page.n <= 2 &&
		        (!page.n || strcmp(page.id, made[4 - shown].id) == 0),
		    "a page goes on where the last one ended: %s", page.message);
		shown += (int)page.n;
	} while (page.next[0] && shown < 20);
	is_int(shown, 5, "the pages show each once");
	f = (struct sandbox_filter){.tags = one, .states = all.states};
	is_int(list(w, &f).n, 2, "tags pick");
	f.limit = 1;
	page = list(w, &f);
	ok(page.n == 1 && page.next[0] && strcmp(page.id, made[3].id) == 0, "in pages too");
	f.cursor = av_str_c(page.next);
	ok(strcmp(list(w, &f).id, made[1].id) == 0, "then the other");
	f = (struct sandbox_filter){.states = 1u << SANDBOX_STOPPED, .limit = 3};
	is_int(list(w, &f).n, 3, "states pick");
	page = list(w, &(struct sandbox_filter){0});
	ok(page.n == 2 && !page.next[0], "what lives is all there without a limit");
	page = list(w, &(struct sandbox_filter){.cursor = AV_STR("12-sb"), .limit = 1});
	ok(page.kind == AV_ERR_INVALID && strstr(page.message, "cursor"), "refused: %s",
	    page.message);
	page = list(w, &(struct sandbox_filter){.limit = 1001});
	ok(page.kind == AV_ERR_INVALID && strstr(page.message, "1000"), "refused: %s",
	    page.message);
	(void)delete (w, made[1].id);
	(void)delete (w, made[3].id);
	w->actor = mine;
}

static void test_limits(struct world *w)
{
	const struct {
		struct sandbox_params p;
		const char *name;
	} bad[] = {
	    {{.memory_bytes = 1}, "memory_mb"},
	    {{.memory_bytes = -5}, "memory_mb"},
	    {{.memory_bytes = INT64_MAX}, "memory_mb"},
	    {{.cpu_milli = 100000}, "cpus"},
	    {{.cpu_milli = 1}, "cpus"},
	    {{.pids_max = 1 << 30}, "pids_max"},
	    {{.disk_bytes = 1}, "disk_mb"},
	    {{.idle_timeout_ms = -1}, "timeout_sec"},
	    {{.max_lifetime_ms = INT64_MAX}, "max_lifetime_sec"},
	};
	AV_CLEANUP(av_json_decrefp) json_t *envs = json_pack("{s:s}", "A=B", "x");
	struct answer a;

	for (size_t i = 0; i < AV_ARRAY_LEN(bad); i++) {
		a = create(w, &bad[i].p);
		ok(a.kind == AV_ERR_INVALID && strstr(a.message, bad[i].name), "refused: %s",
		    a.message);
	}
	a = create(w, &(struct sandbox_params){.envs = envs});
	ok(a.kind == AV_ERR_INVALID && strstr(a.message, "A=B"), "refused: %s", a.message);
	a = create(w, &(struct sandbox_params){.template_name = "nope"});
	ok(a.kind == AV_ERR_NOT_FOUND && strstr(a.message, "nope"), "refused: %s", a.message);
	is_int(w->machine->boxes.next == &w->machine->boxes, 1, "nothing was made for these");
}

static void test_idempotency(struct world *w)
{
	struct sandbox_params p = {
	    .idempotency_key = AV_STR("key-1"), .request_body = AV_STR("{\"a\":1}")};
	struct answer a, b, both[3] = {0};
	int created;

	a = create(w, &p);
	b = create(w, &p);
	ok(a.kind == 0 && b.kind == 0 && !a.replayed && b.replayed,
	    "the second create is a replay");
	is_str(b.id, a.id, "of the same sandbox");
	p.request_body = AV_STR("{\"a\":2}");
	is_int(create(w, &p).kind, AV_ERR_CONFLICT, "another body is a conflict");
	p.request_body = AV_STR("{\"a\":1}");
	is_int(delete (w, a.id).kind, 0, "deleted");
	b = create(w, &p);
	ok(b.kind == 0 && b.state == SANDBOX_STOPPED && strcmp(a.id, b.id) == 0,
	    "the key still names the deleted one");

	p.idempotency_key = AV_STR("key-2");
	created = w->machine->created;
	w->machine->hold = true;
	for (int i = 0; i < 3; i++)
		(void)control_create(w->control, &w->actor, &p, on_sandbox, &both[i], NULL, NULL);
	p.request_body = AV_STR("{\"a\":3}");
	is_int(create(w, &p).kind, AV_ERR_CONFLICT, "a conflict while the first is being made");
	run_for(w, 30);
	is_int(both[0].calls + both[1].calls + both[2].calls, 0, "duplicates wait");
	w->machine->hold = false;
	fake_kick(w->driver);
	for (int i = 0; i < 3; i++)
		(void)run_until(w, &both[i].done);
	is_int(w->machine->created - created, 1, "one sandbox is made for three at once");
	ok(strcmp(both[0].id, both[1].id) == 0 && strcmp(both[0].id, both[2].id) == 0,
	    "all three get it");
	ok(!both[0].replayed && both[1].replayed && both[2].replayed, "the later ones as a replay");
	is_int(delete (w, both[0].id).kind, 0, "deleted");

	p = (struct sandbox_params){
	    .idempotency_key = AV_STR("key-3"), .request_body = AV_STR("x")};
	w->machine->fail_create = AV_ERR_NO_SPACE;
	is_int(create(w, &p).kind, AV_ERR_NO_SPACE, "a create that fails");
	w->machine->fail_create = AV_ERR_NONE;
	run_for(w, 50);
	a = create(w, &p);
	ok(a.kind == 0 && a.state == SANDBOX_RUNNING && !a.replayed,
	    "its key can be used again: %s", a.message);
	is_int(delete (w, a.id).kind, 0, "deleted");
}

static void test_failed_create(struct world *w)
{
	struct sandbox_filter errors = {.states = 1u << SANDBOX_ERROR};
	struct answer a, g;

	w->machine->fail_create = AV_ERR_UNAVAILABLE;
	a = create(w, &(struct sandbox_params){0});
	w->machine->fail_create = AV_ERR_NONE;
	is_int(a.kind, AV_ERR_UNAVAILABLE, "a failed create says why");
	run_for(w, 50);
	a = list(w, &errors);
	ok(a.n >= 1, "its record stays");
	g = get(w, a.id);
	ok(g.state == SANDBOX_ERROR && g.reason == SANDBOX_REASON_CREATE_FAILED, "in state error");
	is_int(delete (w, a.id).kind, 0, "and can be deleted");
}

static void test_delete_while_creating(struct world *w)
{
	struct answer a = {0}, d = {0}, d2 = {0}, l;

	w->machine->hold = true;
	(void)control_create(
	    w->control, &w->actor, &(struct sandbox_params){0}, on_sandbox, &a, NULL, NULL);
	run_for(w, 30);
	l = list(w, &(struct sandbox_filter){0});
	is_int(l.n, 1, "what is being made is listed");
	is_int(get(w, l.id).state, SANDBOX_STARTING, "as starting");
	(void)control_delete(w->control, &w->actor, l.id, on_done, &d, NULL, NULL);
	(void)control_delete(w->control, &w->actor, l.id, on_done, &d2, NULL, NULL);
	run_for(w, 30);
	is_int(a.calls + d.calls + d2.calls, 0, "all wait for the driver");
	w->machine->hold = false;
	fake_kick(w->driver);
	(void)run_until(w, &d.done);
	(void)run_until(w, &d2.done);
	(void)run_until(w, &a.done);
	is_int(a.kind, AV_ERR_INVALID_STATE, "the create says that it was stopped");
	ok(d.kind == 0 && d2.kind == 0, "both deletes succeed");
	ok(!fake_find(w->machine, l.id), "nothing is left");
	is_int(get(w, l.id).reason, SANDBOX_REASON_DELETED, "reason: deleted");
}

static void test_death(struct world *w)
{
	struct answer a = create(w, &(struct sandbox_params){0}), b, g;
	struct fake_box *box = fake_find(w->machine, a.id);
	struct av_err err;

	box->oom_kills = 3;
	(void)kill(box->pid, SIGKILL);
	run_for(w, 100);
	g = get(w, a.id);
	ok(g.state == SANDBOX_STOPPED && g.reason == SANDBOX_REASON_OOM, "an OOM kill is recorded");
	ok(!fake_find(w->machine, a.id), "and what is left is destroyed");
	b = create(w, &(struct sandbox_params){0});
	(void)kill(fake_find(w->machine, b.id)->pid, SIGKILL);
	run_for(w, 100);
	is_int(get(w, b.id).reason, SANDBOX_REASON_CRASH, "a kill without a trace is a crash");
	ok(control_ping(w->control, &w->actor, a.id, &err) < 0 &&
	        err.kind == AV_ERR_INVALID_STATE && strstr(err.message, "memory"),
	    "ping says why: %s", err.message);
}

static void test_timeouts(struct world *w)
{
	struct answer idle =
	    create(w, &(struct sandbox_params){.idle_timeout_ms = 60000, .idle_delete = true});
	struct answer used = create(w, &(struct sandbox_params){.idle_timeout_ms = 60000});
	struct answer life = create(w, &(struct sandbox_params){.max_lifetime_ms = 90000});
	struct answer both = create(w, &(struct sandbox_params){0});

	w->skew_ns += 40 * AV_NS_PER_S;
	(void)control_ping(w->control, &w->actor, used.id, NULL);
	control_tick(w->control);
	run_for(w, 30);
	is_int(get(w, idle.id).state, SANDBOX_RUNNING, "before its time-out it runs");
	w->skew_ns += 30 * AV_NS_PER_S;
	control_tick(w->control);
	run_for(w, 100);
	is_int(get(w, idle.id).reason, SANDBOX_REASON_TIMEOUT, "then it is stopped: timeout");
	is_int(get(w, used.id).state, SANDBOX_RUNNING, "one that was used runs on");
	is_int(get(w, life.id).state, SANDBOX_RUNNING, "one with only a lifetime too");
	w->skew_ns += 30 * AV_NS_PER_S;
	control_tick(w->control);
	run_for(w, 100);
	is_int(get(w, life.id).reason, SANDBOX_REASON_LIFETIME, "its end comes too: lifetime");
	is_int(get(w, both.id).state, SANDBOX_RUNNING, "without either it stays");
	(void)delete (w, used.id);
	(void)delete (w, both.id);
}

static void test_destroy_retry(struct world *w)
{
	struct answer a = create(w, &(struct sandbox_params){0}), d;

	w->machine->fail_destroy = AV_ERR_UNAVAILABLE;
	d = delete (w, a.id);
	is_int(d.kind, AV_ERR_UNAVAILABLE, "a driver that cannot destroy is told");
	is_int(get(w, a.id).state, SANDBOX_STOPPING, "it is stopping meanwhile");
	w->machine->fail_destroy = AV_ERR_NONE;
	ok(becomes(w, a.id, SANDBOX_STOPPED), "it is tried again without anybody asking");
	ok(!fake_find(w->machine, a.id), "until it is gone");
}

static void test_cancel(struct world *w)
{
	struct answer a = {0}, g = {0};
	struct node_call *call = NULL, *call2 = NULL;

	(void)control_create(
	    w->control, &w->actor, &(struct sandbox_params){0}, on_sandbox, &a, &call, NULL);
	node_call_cancel(call);
	(void)control_get(
	    w->control, &w->actor, "sb0000000000000000000000000", on_sandbox, &g, &call2, NULL);
	av_loop_run_once(w->loop, 0); /* no longer, as it is to be under way */
	node_call_cancel(g.calls ? NULL : call2);
	run_for(w, 100);
	is_int(a.calls, 0, "who cancelled is not called");
	a = list(w, &(struct sandbox_filter){0});
	is_int(a.n, 1, "the create went on");
	(void)delete (w, a.id);
}

/* Every write fails for a while, as on a broken disk. Nothing is printed meanwhile. */
static void test_broken_disk(struct world *w)
{
	struct answer a = create(w, &(struct sandbox_params){0}), bad, d;
	struct rlimit limit;
	size_t left = 0;
	struct av_list *n;

	(void)signal(SIGXFSZ, SIG_IGN);
	(void)getrlimit(RLIMIT_FSIZE, &limit);
	limit.rlim_cur = 0;
	(void)setrlimit(RLIMIT_FSIZE, &limit);
	bad = create(w, &(struct sandbox_params){0});
	d = delete (w, a.id);
	run_for(w, 50);
	for (n = w->machine->boxes.next; n != &w->machine->boxes; n = n->next)
		left++;
	limit.rlim_cur = limit.rlim_max;
	(void)setrlimit(RLIMIT_FSIZE, &limit);
	ok(bad.kind == AV_ERR_INTERNAL || bad.kind == AV_ERR_NO_SPACE, "a create is refused: %s",
	    bad.message);
	ok(d.kind == AV_ERR_INTERNAL || d.kind == AV_ERR_NO_SPACE, "a delete says so: %s",
	    d.message);
	is_int(left, 0, "but what was to go is gone, and what was made too");
	is_int(ends(w, a.id), SANDBOX_REASON_DELETED, "the record follows when it can");
	bad = create(w, &(struct sandbox_params){0});
	is_int(bad.kind, 0, "creates work again");
	(void)delete (w, bad.id);
}

static void on_key(void *ctx, const struct control_key *key, const struct av_err *err)
{
	struct answer *a = ctx;

	take_err(a, err);
	if (key) {
		(void)snprintf(
		    a->message, sizeof(a->message), "%s", key->secret ? key->secret : "");
		memcpy(a->id, key->id, AV_ID_SIZE);
		a->n++;
	}
}

static void test_keys(struct world *w)
{
	struct answer a = {0}, all = {0}, d = {0};
	struct control_actor who;

	is_int(control_key_create(w->control, &w->actor,
	           &(struct control_key_params){.name = AV_STR("ci")}, on_key, &a, NULL, NULL),
	    0, "a key is asked for");
	(void)run_until(w, &a.done);
	is_int(control_key_verify(w->control, av_str_c(a.message), &who, NULL), 0, "it is valid");
	is_str(who.team_id, w->actor.team_id, "for the same team");
	control_key_each(w->control, &w->actor, on_key, &all);
	is_int(all.n, 2, "two keys are listed");
	ok(!all.message[0], "without their secrets");
	(void)control_key_delete(w->control, &w->actor, a.id, on_done, &d, NULL, NULL);
	(void)run_until(w, &d.done);
	ok(control_key_verify(w->control, av_str_c(a.message), &who, NULL) < 0,
	    "a deleted key is refused");
}

static void test_quota(struct world *w)
{
	struct answer v[4];

	for (int i = 0; i < 4; i++)
		v[i] = create(w, &(struct sandbox_params){0});
	ok(v[2].kind == 0 && v[3].kind == AV_ERR_QUOTA, "the fourth is over the quota of three: %s",
	    v[3].message);
	(void)delete (w, v[0].id);
	v[0] = create(w, &(struct sandbox_params){0});
	is_int(v[0].kind, 0, "after a delete there is room");
	for (int i = 0; i < 3; i++)
		(void)delete (w, v[i].id);
}

/* ---- restarts ---- */

static void test_restart(struct fake_machine *m, const char *secret)
{
	struct world w;
	struct answer keep, dead, oom, mid = {0}, g = {0};
	char stray[AV_ID_SIZE], starting[AV_ID_SIZE];

	world_open(&w, m, NULL);
	is_int(control_key_verify(w.control, av_str_c(secret), &w.actor, NULL), 0,
	    "the key survives a restart");
	keep = create(&w, &(struct sandbox_params){.max_lifetime_ms = 3600000});
	dead = create(&w, &(struct sandbox_params){0});
	oom = create(&w, &(struct sandbox_params){0});
	m->hold = true;
	(void)control_create(
	    w.control, &w.actor, &(struct sandbox_params){0}, on_sandbox, &mid, NULL, NULL);
	for (int64_t end = av_mono_ns() + 10 * AV_NS_PER_S; av_mono_ns() < end && !g.id[0];) {
		run_for(&w, 30);
		g = list(
		    &w, &(struct sandbox_filter){.states = 1U << SANDBOX_STARTING, .limit = 1});
	}
	run_for(&w, 30); /* the record is on its way */
	memcpy(starting, g.id, AV_ID_SIZE);
	world_close(&w, false);
	m->hold = false;
	is_int(mid.kind, AV_ERR_CANCELED, "the create under way is told");

	/* What happens while no daemon runs. */
	(void)fake_box_new(m, starting);
	(void)kill(fake_find(m, dead.id)->pid, SIGKILL);
	(void)waitpid(fake_find(m, dead.id)->pid, NULL, 0);
	fake_find(m, oom.id)->oom_kills = 1;
	(void)kill(fake_find(m, oom.id)->pid, SIGKILL);
	(void)waitpid(fake_find(m, oom.id)->pid, NULL, 0);
	av_id_make(stray, AV_ID_SANDBOX);
	(void)fake_box_new(m, stray);

	world_open(&w, m, NULL);
	(void)control_key_verify(w.control, av_str_c(secret), &w.actor, NULL);
	is_int(w.report.adopted, 1, "one is adopted");
	is_int(w.report.lost, 2, "two died meanwhile");
	is_int(w.report.removed, 1, "one without a record is removed");
	ok(w.report.finished >= 1, "an interrupted create is taken down");
	is_int(get(&w, keep.id).state, SANDBOX_RUNNING, "the adopted one runs");
	is_int(get(&w, dead.id).reason, SANDBOX_REASON_CRASH, "the killed one: crash");
	is_int(get(&w, oom.id).reason, SANDBOX_REASON_OOM, "the other one: oom");
	g = get(&w, starting);
	ok(g.state == SANDBOX_ERROR && g.reason == SANDBOX_REASON_INTERRUPTED,
	    "the one never answered: error, interrupted");
	ok(!fake_find(m, stray) && !fake_find(m, dead.id) && !fake_find(m, starting),
	    "nothing is left of those");
	world_close(&w, true);
	ok(fake_find(m, keep.id) != NULL, "a graceful stop leaves it running");
}

static void test_reboot(struct fake_machine *m, const char *secret)
{
	struct world w;
	struct answer g;
	char id[AV_ID_SIZE];

	world_open(&w, m, NULL);
	(void)control_key_verify(w.control, av_str_c(secret), &w.actor, NULL);
	g = list(&w, &(struct sandbox_filter){0});
	is_int(g.n, 1, "one sandbox runs");
	memcpy(id, g.id, AV_ID_SIZE);
	world_close(&w, true);
	memcpy(m->boot_id, "another-boot", 13);
	world_open(&w, m, NULL);
	(void)control_key_verify(w.control, av_str_c(secret), &w.actor, NULL);
	g = get(&w, id);
	ok(g.state == SANDBOX_STOPPED && g.reason == SANDBOX_REASON_HOST_REBOOT,
	    "after another boot: stopped, host_reboot");
	ok(fake_find(m, id) != NULL, "what is on disk is kept for a while");
	world_close(&w, true);
}

/* Readiness, and what is refused while stopping. */
static void test_readiness(struct fake_machine *m)
{
	struct world w;
	const char *why = NULL;
	struct av_err err;

	world_open(&w, m, NULL);
	ok(control_is_ready(w.control, &why) && !why[0], "ready");
	w.driver->ready = false;
	ok(!control_is_ready(w.control, &why) && strstr(why, "worker"), "not ready: %s", why);
	w.driver->ready = true;
	w.driver->caps.preparing = true;
	ok(!control_is_ready(w.control, &why) && strstr(why, "template"), "not ready: %s", why);
	w.driver->caps.preparing = false;
	w.stopped = false;
	(void)control_stop(w.control, set_flag, &w.stopped);
	ok(!control_is_ready(w.control, &why) && strstr(why, "shutting"), "not ready: %s", why);
	ok(control_create(w.control, &w.actor, &(struct sandbox_params){0}, on_sandbox, NULL, NULL,
	       &err) < 0 &&
	        err.kind == AV_ERR_UNAVAILABLE,
	    "no creates while stopping: %s", err.message);
	(void)run_until(&w, &w.stopped);
	world_close(&w, false);
}

int main(void)
{
	struct control_limits three;
	struct fake_machine m;
	struct world w;
	char secret[64] = "";

	if (!mkdtemp(dir) || av_path_printf(db, sizeof(db), "%s/aviary.db", dir) < 0)
		return 1;
	fake_machine_init(&m, "this-boot");
	world_open(&w, &m, NULL);
	test_first_start(&w, secret);
	test_life(&w);
	test_labels(&w);
	test_other_team(&w);
	test_pages(&w);
	test_limits(&w);
	test_idempotency(&w);
	test_failed_create(&w);
	test_delete_while_creating(&w);
	test_death(&w);
	test_timeouts(&w);
	test_destroy_retry(&w);
	test_cancel(&w);
	test_keys(&w);
	test_broken_disk(&w);
	world_close(&w, true);
	control_limits_init(&three);
	three.sandboxes_max = 3;
	world_open(&w, &m, &three);
	(void)control_key_verify(w.control, av_str_c(secret), &w.actor, NULL);
	test_quota(&w);
	world_close(&w, true);
	test_restart(&m, secret);
	test_reboot(&m, secret);
	test_readiness(&m);
	fake_machine_clear(&m);
	(void)unlink(db);
	(void)rmdir(dir);
	return tap_done();
}
