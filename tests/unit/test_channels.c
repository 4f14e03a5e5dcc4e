/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_channels.c - what channels send and when, over a fake driver, a fake network and a clock
 * that the test turns
 */
#include "control_world.h"

#include "control/channels_internal.h"
#include "control/events.h"

#include "base/banned.h"

/* ---- the network ---- */

struct control_outbound_call {
	control_http_fn *fn;
	void *ctx;
	bool used;
	char url[64], delivery[64], event[64];
};

#define CALLS 64
static struct control_outbound_call calls[CALLS];
static size_t n_calls; /* made so far */

static const char *header(const struct control_http *rq, const char *name)
{
	for (size_t i = 0; i < rq->n_headers; i++)
		if (strcmp(rq->headers[i].name, name) == 0)
			return rq->headers[i].value;
	return "";
}

static int fake_http(void *ctx, const struct control_http *rq, control_http_fn *fn, void *fn_ctx,
    struct control_outbound_call **ret, struct av_err *err)
{
	struct control_outbound_call *call = &calls[n_calls++ % CALLS];

	(void)ctx;
	(void)err;
	*call = (struct control_outbound_call){.fn = fn, .ctx = fn_ctx, .used = true};
	(void)snprintf(call->url, sizeof(call->url), "%s", rq->url);
	(void)snprintf(
	    call->delivery, sizeof(call->delivery), "%s", header(rq, "X-Wrenn-Delivery"));
	(void)snprintf(call->event, sizeof(call->event), "%s", header(rq, "X-Aviary-Event"));
	*ret = call;
	return 0;
}

static void fake_cancel(struct control_outbound_call *call)
{
	call->used = false;
}

static int fake_check(void *ctx, const char *url, bool https_only, struct av_err *err)
{
	(void)ctx;
	(void)url;
	(void)https_only;
	(void)err;
	return 0;
}

static const struct control_outbound network = {
    .http = fake_http, .cancel = fake_cancel, .check_url = fake_check, .telegram_url = "x"};

static size_t under_way(void)
{
	size_t n = 0;

	for (size_t i = 0; i < CALLS; i++)
		n += calls[i].used;
	return n;
}

static struct control_outbound_call *find_call(const char *url)
{
	for (size_t i = 0; i < CALLS; i++)
		if (calls[i].used && strcmp(calls[i].url, url) == 0)
			return &calls[i];
	return NULL;
}

/* Waits for a call to this URL. */
static struct control_outbound_call *expect(struct world *w, const char *url)
{
	int64_t end = av_mono_ns() + 10 * AV_NS_PER_S;
	struct control_outbound_call *call;

	while (!(call = find_call(url)) && av_mono_ns() < end)
		av_loop_run_once(w->loop, 10);
	ok(call != NULL, "a call of %s", url);
	if (!call)
		exit(1);
	return call;
}

static void reply(struct control_outbound_call *call, int status, uint32_t retry_after_s)
{
	const struct control_http_answer answer = {
	    .status = status, .retry_after_s = retry_after_s};
	struct av_err err;

	call->used = false;
	if (status > 0) {
		call->fn(call->ctx, &answer, NULL);
		return;
	}
	(void)av_err_set(&err, status ? AV_ERR_UNAVAILABLE : AV_ERR_UPSTREAM, "cannot connect");
	call->fn(call->ctx, NULL, &err);
}

static void turn_clock(struct world *w, int64_t s)
{
	w->skew_ns += s * AV_NS_PER_S;
	w->real_skew_ms += s * 1000;
	av_timer_start(&w->tick, 0);
	run_for(w, 30);
}

/* ---- control ---- */

struct look {
	struct answer a;
	char id[AV_ID_SIZE], secret[80], reason[256], states[512];
	int64_t pending, dropped, disabled_ms, failing_ms;
};

static void on_channels(
    void *ctx, const struct control_channel *v, size_t n, const struct av_err *err)
{
	struct look *l = ctx;

	take_err(&l->a, err);
	l->a.n = n;
	if (err || n == 0)
		return;
	memcpy(l->id, v->id, AV_ID_SIZE);
	(void)snprintf(l->secret, sizeof(l->secret), "%s", v->secret ? v->secret : "");
	(void)snprintf(l->reason, sizeof(l->reason), "%s", v->disabled_reason);
	l->pending = v->pending;
	l->dropped = v->dropped;
	l->disabled_ms = v->disabled_ms;
	l->failing_ms = v->failing_ms;
}

static struct look make(struct world *w, const char *name, const char *url, const char *event)
{
	json_t *config = json_pack("{s:s}", "url", url), *events = json_pack("[s]", event);
	const struct channel_params p = {
	    .name = name, .provider = "webhook", .config = config, .events = events};
	struct look l = {0};
	struct av_err err;

	if (control_channel_create(w->control, &w->actor, &p, on_channels, &l, NULL, &err) < 0)
		take_err(&l.a, &err);
	else
		(void)run_until(w, &l.a.done);
	json_decref(config);
	json_decref(events);
	is_int(l.a.kind, 0, l.a.message[0] ? l.a.message : "a channel");
	return l;
}

static struct look see(struct world *w, const char *id)
{
	struct look l = {0};
	struct av_err err;

	if (control_channel_list(w->control, &w->actor, id, on_channels, &l, NULL, &err) < 0)
		take_err(&l.a, &err);
	else
		(void)run_until(w, &l.a.done);
	return l;
}

static void on_deliveries(
    void *ctx, const struct control_delivery *v, size_t n, const struct av_err *err)
{
	struct look *l = ctx;
	size_t at = 0;

	take_err(&l->a, err);
	for (size_t i = 0; i < n && at < sizeof(l->states) - 32; i++)
		at += (size_t)snprintf(l->states + at, sizeof(l->states) - at, "%s%s/%d",
		    i ? " " : "", v[i].state, (int)v[i].attempts);
}

static struct look deliveries(struct world *w, const char *id, size_t limit)
{
	struct look l = {0};

	if (control_channel_deliveries(
	        w->control, &w->actor, id, 0, limit, on_deliveries, &l, NULL, NULL) == 0)
		(void)run_until(w, &l.a.done);
	return l;
}

static void drop(struct world *w, const char *id)
{
	struct answer a = {0};

	if (control_channel_delete(w->control, &w->actor, id, on_done, &a, NULL, NULL) == 0)
		(void)run_until(w, &a.done);
}

static void live(struct world *w)
{
	struct answer a = create(w, &(struct sandbox_params){0});

	(void)delete (w, a.id);
}

/* ---- tests ---- */

static void test_schedule(struct world *w)
{
	static const int64_t delays[] = {10, 30, 120, 600, 1800, 3600, 7200};
	struct look l = make(w, "schedule", "u", "capsule.created");
	struct control_outbound_call *call;
	char first[64];

	ok(strlen(l.secret) == 64, "a secret is made");
	live(w);
	live(w);
	call = expect(w, "u");
	is_str(call->event, "capsule.created", "what it tells");
	memcpy(first, call->delivery, sizeof(first));
	for (size_t i = 0; i < AV_ARRAY_LEN(delays); i++) {
		reply(call, i % 2 ? 0 : 500, 0);
		run_for(w, 20);
		turn_clock(w, delays[i] - 5);
		ok(!find_call("u"), "not before %d s", (int)delays[i]);
		turn_clock(w, 6);
		call = expect(w, "u");
		is_str(call->delivery, first, "the same delivery");
	}
	ok(see(w, l.id).failing_ms > 0, "it fails");
	reply(call, 503, 0);
	call = expect(w, "u");
	ok(strcmp(call->delivery, first) != 0, "given up: the next one, at once");
	is_str(deliveries(w, l.id, 9).states, "pending/0 failed/8", "the log");
	reply(call, 204, 0);
	run_for(w, 50);
	is_str(deliveries(w, l.id, 9).states, "delivered/1 failed/8", "it arrived");
	ok(see(w, l.id).failing_ms == 0, "all is well again");
	drop(w, l.id);
}

static void test_receiver_asks_for_time(struct world *w)
{
	struct look l = make(w, "later", "u", "capsule.created");
	struct control_outbound_call *call;

	live(w);
	call = expect(w, "u");
	reply(call, 429, 100);
	turn_clock(w, 90);
	ok(!find_call("u"), "as long as it asked for");
	turn_clock(w, 11);
	call = expect(w, "u");
	reply(call, 503, 1000000);
	turn_clock(w, 3500);
	ok(!find_call("u"), "an hour at most");
	turn_clock(w, 101);
	call = expect(w, "u");
	/* Nobody's fault: not an attempt. */
	reply(call, -1, 0);
	turn_clock(w, 6);
	call = expect(w, "u");
	reply(call, 200, 0);
	run_for(w, 50);
	is_str(deliveries(w, l.id, 9).states, "delivered/3", "attempts are what left");
	/* A clock that is set back a year makes nobody wait for a year. */
	live(w);
	reply(expect(w, "u"), 500, 0);
	run_for(w, 30);
	w->real_skew_ms -= 365LL * 86400 * 1000;
	turn_clock(w, 11);
	reply(expect(w, "u"), 200, 0);
	w->real_skew_ms += 365LL * 86400 * 1000;
	run_for(w, 30);
	drop(w, l.id);
}

static char told[64];

static void on_event(void *ctx, const struct control_event *ev)
{
	(void)ctx;
	if (ev->kind == CONTROL_EVENT_CHANNEL_DISABLE)
		(void)snprintf(told, sizeof(told), "%s", ev->message);
}

static void on_key_deleted(void *ctx, const char *id)
{
	(void)ctx;
	(void)id;
}

static void on_stopping(void *ctx)
{
	(void)ctx;
}

static const struct control_listener listener = {on_event, on_key_deleted, on_stopping};

static void test_disabled(struct world *w)
{
	struct look l = make(w, "dead", "u", "capsule.destroyed");

	control_listen(w->control, &listener, NULL);
	live(w);
	live(w);
	reply(expect(w, "u"), 500, 0);
	run_for(w, 20);
	turn_clock(w, 86390);
	reply(expect(w, "u"), 500, 0);
	ok(!see(w, l.id).disabled_ms, "not before a day is over");
	turn_clock(w, 31);
	reply(expect(w, "u"), 500, 0);
	run_for(w, 50);
	l = see(w, l.id);
	ok(l.disabled_ms > 0 && strstr(l.reason, "nothing arrived since"), "then: %s", l.reason);
	ok(strstr(told, "nothing arrived"), "an event tells of it");
	is_str(deliveries(w, l.id, 9).states, "dropped/0 dropped/3", "what waited is dropped");
	is_int(l.dropped, 2, "and counted");
	live(w);
	turn_clock(w, 100000);
	ok(!find_call("u"), "nothing is sent");
	is_int(see(w, l.id).pending, 0, "or waits");
	control_listen(w->control, NULL, NULL);
	drop(w, l.id);
}

static void test_bounds(struct world *w)
{
	struct look l[8];
	char name[16];
	size_t n;

	for (size_t i = 0; i < AV_ARRAY_LEN(l); i++) {
		(void)snprintf(name, sizeof(name), "many%zu", i);
		l[i] = make(w, name, name, "capsule.created");
	}
	live(w);
	for (n = 0; n < 200 && under_way() < CHANNEL_SENDING_TEAM; n++)
		run_for(w, 5);
	run_for(w, 50);
	is_int(under_way(), CHANNEL_SENDING_TEAM, "so many of a team at once");
	for (n = 0; n < CALLS; n++)
		if (calls[n].used)
			reply(&calls[n], 200, 0);
	for (n = 0; n < 200 && under_way() < 2; n++)
		run_for(w, 5);
	is_int(under_way(), 2, "then the others");
	for (n = 0; n < AV_ARRAY_LEN(l); n++)
		drop(w, l[n].id);
	is_int(under_way(), 0, "what is deleted is not sent");
}

static void on_page(void *ctx, const struct store_delivery *v, size_t n, const struct av_err *err)
{
	struct answer *a = ctx;

	take_err(a, err);
	a->n = n;
	a->memory_bytes = n ? v[n - 1].seq : 0;
}

/* All of its deliveries. */
static size_t count(struct world *w, const char *id)
{
	struct answer a = {.memory_bytes = INT64_MAX};
	size_t n = 0;

	do {
		a.done = false;
		if (store_delivery_page(w->store, id, a.memory_bytes, 1000, on_page, &a) < 0)
			return 0;
		(void)run_until(w, &a.done);
		n += a.n;
	} while (a.n == 1000);
	return n;
}

static void test_overflow(struct world *w)
{
	const struct store_notice notice = {
	    .team_id = w->actor.team_id, .event = "host.up", .body = "{}", .at_ms = 1};
	struct look l = make(w, "full", "u", "host.up");
	struct answer a = {0};
	size_t n;

	for (int i = 0; i < STORE_PENDING_MAX + 4; i++)
		(void)store_notice_put(w->store, &notice, NULL, NULL);
	(void)store_notice_put(w->store, &notice, on_done, &a);
	(void)run_until(w, &a.done);
	l = see(w, l.id);
	ok(l.pending == STORE_PENDING_MAX && l.dropped == 5, "the oldest are dropped and counted");
	a.done = false;
	for (int i = 0; i < 3000; i++)
		(void)store_notice_put(w->store, &notice, NULL, NULL);
	(void)store_notice_put(w->store, &notice, on_done, &a);
	(void)run_until(w, &a.done);
	n = count(w, l.id);
	ok(n >= STORE_PENDING_MAX + STORE_LOG_MAX && n < 2500, "the log is bounded: %zu", n);
	drop(w, l.id);
}

static void test_seals(struct world *w)
{
	json_t *config = json_pack("{s:s,s:s}", "url", "https://a/", "secret", "pssst"),
	       *opened = NULL;
	char *sealed = NULL, *p;
	struct av_err err;

	is_int(channel_config_seal(
	           w->control, "ch1", CHANNEL_WEBHOOK, config, NULL, NULL, &sealed, &err),
	    0, "sealed");
	ok(!strstr(sealed, "pssst") && !strstr(sealed, "https"), "nothing shows");
	is_int(channel_config_open(w->control, "ch1", sealed, &opened, &err), 0, "opened");
	ok(json_equal(config, opened), "what it was");
	channel_config_wipe(opened);
	ok(channel_config_open(w->control, "ch2", sealed, &opened, &err) < 0,
	    "not as another channel's");
	/* The values of two fields exchanged. */
	json_t *j = json_loads(sealed, 0, NULL), *swapped = json_object();
	(void)json_object_set(swapped, "url", json_object_get(j, "secret"));
	(void)json_object_set(swapped, "secret", json_object_get(j, "url"));
	p = json_dumps(swapped, 0);
	ok(channel_config_open(w->control, "ch1", p, &opened, &err) < 0, "nor in another field");
	free(p);
	json_decref(j);
	json_decref(swapped);
	p = strstr(sealed, "\":\"");
	p[20] = p[20] == 'A' ? 'B' : 'A';
	ok(channel_config_open(w->control, "ch1", sealed, &opened, &err) < 0, "nor changed");
	free(sealed);
	json_decref(config);
}

static void open_world(struct world *w, struct fake_machine *m)
{
	struct control_actor actor = w->actor;

	world_open(w, m, NULL);
	w->actor = actor;
}

/* Whether it ends gracefully or not. */
static void test_restart(struct world *w, struct fake_machine *m)
{
	struct look l = make(w, "restart", "u", "capsule.destroyed");
	struct control_outbound_call *call;
	char first[64];

	live(w);
	live(w);
	call = expect(w, "u");
	memcpy(first, call->delivery, sizeof(first));
	world_close(w, true);
	is_int(under_way(), 0, "what is under way is let go");
	open_world(w, m);
	call = expect(w, "u");
	is_str(call->delivery, first, "it is sent again under its id");
	reply(call, 500, 0);
	run_for(w, 30);
	world_close(w, false);
	open_world(w, m);
	run_for(w, 100);
	ok(!find_call("u"), "it still waits for its turn");
	turn_clock(w, 11);
	call = expect(w, "u");
	is_str(call->delivery, first, "then it comes");
	reply(call, 200, 0);
	call = expect(w, "u");
	ok(strcmp(call->delivery, first) != 0, "and the next one");
	reply(call, 200, 0);
	run_for(w, 50);
	is_str(deliveries(w, l.id, 9).states, "delivered/1 delivered/2", "all in order");
	drop(w, l.id);
}

int main(void)
{
	struct fake_machine m;
	struct world w = {0};

	alarm(55);
	if (!mkdtemp(dir) || av_path_printf(db, sizeof(db), "%s/aviary.db", dir) < 0)
		return 1;
	outbound = &network;
	fake_machine_init(&m, "this-boot");
	world_open(&w, &m, NULL);
	world_first(&w);
	test_schedule(&w);
	test_receiver_asks_for_time(&w);
	test_bounds(&w);
	test_overflow(&w);
	test_seals(&w);
	test_restart(&w, &m);
	test_disabled(&w);
	world_close(&w, true);
	fake_machine_clear(&m);
	(void)unlink(db);
	(void)rmdir(dir);
	return tap_done();
}
