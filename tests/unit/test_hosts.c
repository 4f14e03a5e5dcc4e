/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_hosts.c - who is silent for too long is unreachable, whatever the wall clock says
 */
#include "control_world.h"

#include "control/accounts.h"
#include "control/hosts.h"

#include "base/banned.h"

static const struct control_actor admin = {.is_admin = true, .scopes = CONTROL_SCOPE_ALL};

#define ADDRESS "192.0.2.7:50051"

struct got {
	bool done;
	enum av_err_kind kind;
	char id[AV_ID_SIZE], status[16];
	char registration[HOST_SECRET_SIZE], refresh[HOST_SECRET_SIZE];
	char token[1024];
};

static void on_host(void *ctx, const struct control_host *h, const struct control_host_tokens *t,
    const struct av_err *err)
{
	struct got *g = ctx;

	g->done = true;
	g->kind = err ? err->kind : AV_ERR_NONE;
	if (!h)
		return;
	(void)snprintf(g->id, sizeof(g->id), "%s", h->id);
	(void)snprintf(g->status, sizeof(g->status), "%s", h->status);
	(void)snprintf(
	    g->registration, sizeof(g->registration), "%s", t->registration ? t->registration : "");
	(void)snprintf(g->refresh, sizeof(g->refresh), "%s", t->refresh ? t->refresh : "");
	(void)snprintf(g->token, sizeof(g->token), "%s", t->token ? t->token : "");
}

static const char *status_of(struct world *w, const char *id)
{
	static char text[16];
	struct control_host h;

	if (control_host_get(w->control, &admin, id, &h, NULL) < 0)
		return "none";
	(void)snprintf(text, sizeof(text), "%s", h.status);
	return text;
}

static void registered(struct world *w, struct got *g)
{
	const struct control_host_params p = {.type = "regular"};
	const struct control_host_facts f = {.address = ADDRESS};
	struct got made = {0};

	is_int(
	    control_host_create(w->control, &admin, &p, on_host, &made, NULL, NULL), 0, "create");
	(void)run_until(w, &made.done);
	is_str(made.status, "pending", "a new one");
	is_int(control_host_register(w->control, made.registration, &f, on_host, g, NULL, NULL), 0,
	    "register");
	(void)run_until(w, &g->done);
	is_str(g->status, "online", "registered");
}

static void test_silence(void)
{
	struct got g = {0};
	struct av_err err;
	struct fake_machine m;
	struct world w;

	fake_machine_init(&m, "this-boot");
	world_open(&w, &m, NULL);
	registered(&w, &g);
	w.skew_ns += 60 * AV_NS_PER_S;
	control_tick(w.control);
	is_str(status_of(&w, g.id), "online", "after a minute");
	is_int(control_host_heartbeat(w.control, g.id, &err), 0, "a heartbeat");
	w.skew_ns += 60 * AV_NS_PER_S;
	control_tick(w.control);
	is_str(status_of(&w, g.id), "online", "a minute later");
	w.skew_ns += 31 * AV_NS_PER_S;
	control_tick(w.control);
	is_str(status_of(&w, g.id), "unreachable", "after 91 s of silence");
	is_int(control_host_heartbeat(w.control, g.id, &err), 0, "it is back");
	is_str(status_of(&w, g.id), "online", "at once");
	world_close(&w, true);
	world_open(&w, &m, NULL);
	is_str(status_of(&w, g.id), "online", "a restart is no silence");
	w.skew_ns += 91 * AV_NS_PER_S;
	control_tick(w.control);
	is_str(status_of(&w, g.id), "unreachable", "but the time after it is");
	world_close(&w, false);
	fake_machine_clear(&m);
}

static void test_clock(void)
{
	struct got g = {0};
	char id[AV_ID_SIZE];
	struct av_err err;
	struct fake_machine m;
	struct world w;

	fake_machine_init(&m, "this-boot");
	world_open(&w, &m, NULL);
	registered(&w, &g);
	w.real_skew_ms += 365LL * 24 * 3600 * 1000;
	control_tick(w.control);
	is_str(status_of(&w, g.id), "online", "a year ahead: it is not silent");
	ok(control_host_verify(w.control, av_str_c(g.token), id, &err) < 0,
	    "its token has expired: %s", err.message);
	w.real_skew_ms = 0;
	is_int(control_host_verify(w.control, av_str_c(g.token), id, &err), 0, "and holds again");
	is_str(id, g.id, "whose it is");
	world_close(&w, false);
	fake_machine_clear(&m);
}

int main(void)
{
	if (!mkdtemp(dir) || av_path_printf(db, sizeof(db), "%s/aviary.db", dir) < 0)
		return 1;
	test_silence();
	test_clock();
	(void)unlink(db);
	(void)rmdir(dir);
	return tap_done();
}
