/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_audit.c - what is kept of the audit log, and what nobody can do to it
 */
#include "control_world.h"

#include "control/audit.h"
#include "control/audit_internal.h"

#include "base/banned.h"

static struct control_actor alice = {.team_id = "tealice00000000000000000000",
    .user_id = "usalice00000000000000000000",
    .role = CONTROL_ROLE_OWNER,
    .scopes = CONTROL_SCOPE_ALL};
static struct control_actor mallory = {.team_id = "temallory000000000000000000",
    .user_id = "usmallory000000000000000000",
    .role = CONTROL_ROLE_MEMBER,
    .scopes = CONTROL_SCOPE_ALL};

struct page {
	bool done;
	enum av_err_kind kind;
	size_t n;
	char first[STORE_AUDIT_ACTION_SIZE], resource[STORE_AUDIT_RESOURCE_SIZE];
	char next[AV_ID_SIZE];
	int64_t at_ms;
};

static void on_page(void *ctx, const struct control_audit_record *v, size_t n, const char *next,
    const struct av_err *err)
{
	struct page *p = ctx;

	*p = (struct page){.done = true, .kind = err ? err->kind : AV_ERR_NONE, .n = n};
	(void)snprintf(p->next, sizeof(p->next), "%s", next ? next : "");
	if (!n)
		return;
	(void)snprintf(p->first, sizeof(p->first), "%s", v[0].action);
	(void)snprintf(p->resource, sizeof(p->resource), "%s", v[0].resource_id);
	p->at_ms = v[0].at_ms;
}

static struct page read_page(
    struct world *w, const struct control_actor *a, struct control_audit_filter f)
{
	struct page p = {0};
	struct av_err err = {0};

	if (!f.limit)
		f.limit = AUDIT_PAGE_MAX;
	if (control_audit_read(w->control, a, &f, on_page, &p, NULL, &err) < 0)
		return (struct page){.kind = err.kind};
	(void)run_until(w, &p.done);
	return p;
}

/* All of a team, page by page. */
static size_t count(struct world *w, const struct control_actor *a)
{
	struct control_audit_filter f = {0};
	char next[AV_ID_SIZE];
	size_t n = 0;

	for (;;) {
		struct page p = read_page(w, a, f);

		n += p.n;
		if (!p.next[0])
			return n;
		(void)snprintf(next, sizeof(next), "%s", p.next);
		f.after_id = av_str_c(next);
	}
}

static void add(struct world *w, const struct control_actor *a, const char *id, int status)
{
	control_audit(w->control, &(struct control_audit){.action = "sandbox.create",
	                              .resource_id = id,
	                              .actor = a,
	                              .http_status = status,
	                              .err = status < 400 ? AV_ERR_NONE : AV_ERR_QUOTA});
}

static void test_texts(void)
{
	char out[16];

	audit_text(out, sizeof(out), "a\n\x1b[1m\x7fz");
	is_str(out, "a??[1m?z", "controls");
	audit_text(out, sizeof(out), "\xff\xc3_\xe2\x80\xae\xc2\x85!");
	is_str(out,
	    "?"
	    "?_?"
	    "?!",
	    "what is no UTF-8, and what turns the line round");
	audit_text(out, sizeof(out), "0123456789abc\xe2\x82\xac");
	is_str(out, "0123456789abc", "no half characters");
	audit_text(out, sizeof(out), NULL);
	is_str(out, "", "nothing");
}

static void test_failures_are_bounded(void)
{
	struct fake_machine m;
	struct world w;

	fake_machine_init(&m, "this-boot");
	world_open(&w, &m, NULL);
	for (int i = 0; i < 5 * AUDIT_FAILURES_BURST; i++)
		add(&w, &mallory, "sb", 429);
	is_int(count(&w, &mallory), AUDIT_FAILURES_BURST, "so many at once");
	add(&w, &alice, "sb", 429);
	is_int(count(&w, &alice), 1, "which is nothing to others");
	add(&w, &mallory, "sb", 201);
	is_int(count(&w, &mallory), AUDIT_FAILURES_BURST + 1, "what was done is written");
	w.skew_ns += 61 * AV_NS_PER_S;
	control_tick(w.control);
	is_str(read_page(&w, &alice, (struct control_audit_filter){.action = AV_STR("omit")}).first,
	    "", "nothing of hers was left out");
	mallory.role = CONTROL_ROLE_ADMIN;
	is_str(
	    read_page(&w, &mallory, (struct control_audit_filter){.action = AV_STR("omit")}).first,
	    "audit.omit", "how many were left out is told");
	mallory.role = CONTROL_ROLE_MEMBER;
	is_str(
	    read_page(&w, &mallory, (struct control_audit_filter){.action = AV_STR("omit")}).first,
	    "", "to administrators of the team");
	world_close(&w, false);
	fake_machine_clear(&m);
}

static void test_a_team_pushes_out_its_own(void)
{
	struct fake_machine m;
	size_t n, before;
	struct world w;

	audit_max = AUDIT_MAX_MIN;
	fake_machine_init(&m, "this-boot");
	world_open(&w, &m, NULL);
	before = count(&w, &alice);
	for (int i = 0; i < 300; i++)
		add(&w, &alice, "hers", 201);
	for (int i = 0; i < 3000; i++)
		add(&w, &mallory, "sb", 201);
	(void)count(&w, &mallory);
	run_for(&w, 200);
	is_int(count(&w, &alice), before + 300, "what others did stays");
	n = count(&w, &mallory);
	ok(n >= 300 && n + before + 300 <= AUDIT_MAX_MIN + 200, "%zu of theirs do", n);
	world_close(&w, true);
	world_open(&w, &m, NULL);
	is_int(count(&w, &alice), before + 300, "also after a restart");
	world_close(&w, false);
	fake_machine_clear(&m);
	audit_max = 0;
}

static void test_age_and_clock(void)
{
	const int64_t day = 24LL * 3600 * 1000;
	struct fake_machine m;
	struct world w;
	size_t n;

	audit_max = AUDIT_MAX_MIN;
	fake_machine_init(&m, "this-boot");
	world_open(&w, &m, NULL);
	add(&w, &alice, "before", 201);
	n = count(&w, &alice);
	/* Two hours later, as both clocks say. */
	w.skew_ns += 7200 * AV_NS_PER_S;
	w.real_skew_ms += 7200 * 1000;
	control_tick(w.control);
	w.real_skew_ms += 365 * day;
	for (int i = 0; i < 5; i++) {
		w.skew_ns += 3601 * AV_NS_PER_S;
		w.real_skew_ms += 3601 * 1000;
		control_tick(w.control);
		run_for(&w, 20);
	}
	is_int(count(&w, &alice), n, "a clock that jumped makes nothing old");
	for (int i = 0; i < 25; i++) {
		w.skew_ns += 3601 * AV_NS_PER_S;
		w.real_skew_ms += 3601 * 1000;
		control_tick(w.control);
		run_for(&w, 20);
	}
	is_int(count(&w, &alice), 0, "one that stays so for a day does");
	w.real_skew_ms -= 400 * day;
	add(&w, &alice, "back", 201);
	add(&w, &alice, "again", 201);
	is_int(count(&w, &alice), 2, "and one that is set back loses nothing");
	is_str(read_page(&w, &alice, (struct control_audit_filter){.resource_id = AV_STR("back")})
	           .resource,
	    "back", "it is found");
	world_close(&w, false);
	fake_machine_clear(&m);
	audit_max = 0;
}

static void test_readers_are_bounded(void)
{
	struct control_audit_filter f = {.limit = 1};
	struct fake_machine m;
	struct page p[16] = {0};
	struct node_call *call = NULL;
	struct av_err err = {0};
	struct world w;
	int n = 0;

	fake_machine_init(&m, "this-boot");
	world_open(&w, &m, NULL);
	add(&w, &alice, "sb", 201);
	while (
	    n < 16 && control_audit_read(w.control, &mallory, &f, on_page, &p[n], &call, &err) == 0)
		n++;
	is_int(n, 8, "so many readers of one team at once");
	is_int(err.kind, AV_ERR_RATE_LIMITED, "then they must wait");
	node_call_cancel(call);
	is_int(read_page(&w, &alice, f).n, 1, "others need not");
	ok(p[0].done && p[6].done && !p[7].done, "who went away is not called");
	f.after_id = AV_STR("lo0000000000000000000000000");
	is_int(read_page(&w, &alice, f).n, 0, "nothing before the first");
	f.after_id = AV_STR("lozzzzzzzzzzzzzzzzzzzzzzzzz");
	is_int(read_page(&w, &alice, f).kind, AV_ERR_INVALID, "an id that is none");
	f = (struct control_audit_filter){.limit = 1, .all_teams = true};
	is_int(read_page(&w, &alice, f).kind, AV_ERR_FORBIDDEN, "all teams' is for administrators");
	world_close(&w, false);
	fake_machine_clear(&m);
}

int main(void)
{
	if (!mkdtemp(dir) || av_path_printf(db, sizeof(db), "%s/aviary.db", dir) < 0)
		return 1;
	test_texts();
	test_failures_are_bounded();
	test_readers_are_bounded();
	test_a_team_pushes_out_its_own();
	test_age_and_clock();
	(void)unlink(db);
	(void)rmdir(dir);
	return tap_done();
}
