/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_accounts.c - sessions, passwords, attempts and accounts under races, with a clock that the
 * test turns
 */
#include "control/login_internal.h"

#include <errno.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "control_world.h"
#include "base/banned.h"

#define PASSWORD AV_STR("correct horse")
#define HOME     "192.0.2.1"
#define ELSE     "192.0.2.66"

static int64_t real_skew_ms;

static int64_t turned_ms(void *ctx)
{
	(void)ctx;
	return av_real_ms() + real_skew_ms;
}

/* ---- worker threads that the test runs by hand ---- */

static struct work {
	void (*work)(void *arg);
	void (*done)(void *arg, int status);
	void *arg;
} works[128];
static size_t n_works, most_works;

static int work_hook(
    void *ctx, void (*work)(void *arg), void (*done)(void *arg, int status), void *arg)
{
	(void)ctx;
	works[n_works++] = (struct work){work, done, arg};
	most_works = AV_MAX(most_works, n_works);
	return 0;
}

static void work_all(void)
{
	while (n_works) {
		struct work w = works[--n_works];

		w.work(w.arg);
		w.done(w.arg, 0);
	}
}

/* ---- calls that wait ---- */

struct login {
	struct answer a;
	char token[4096], user[AV_ID_SIZE], team[AV_ID_SIZE];
	int retry_after_s;
};

static void on_login(void *ctx, const struct control_login *l, const struct av_err *err)
{
	struct login *g = ctx;

	take_err(&g->a, err);
	g->retry_after_s = err ? err->retry_after_s : 0;
	if (!l)
		return;
	(void)snprintf(g->token, sizeof(g->token), "%s", l->token);
	memcpy(g->user, l->user_id, AV_ID_SIZE);
	memcpy(g->team, l->team_id, AV_ID_SIZE);
}

static int begin_signup(struct world *w, const char *email, const char *address, struct login *g,
    struct node_call **call)
{
	const struct control_signup s = {
	    .email = av_str_c(email), .password = PASSWORD, .address = address};
	struct av_err err = {0};
	int r = control_sign_up(w->control, &s, on_login, g, call, &err);

	if (r < 0)
		on_login(g, NULL, &err);
	return r;
}

static struct login sign_up(struct world *w, const char *email, const char *address)
{
	struct login g = {0};

	if (begin_signup(w, email, address, &g, NULL) == 0)
		(void)run_until(w, &g.a.done);
	return g;
}

static struct login log_in(
    struct world *w, const char *email, struct av_str password, const char *address)
{
	struct login g = {0};
	struct av_err err = {0};

	if (control_log_in(
	        w->control, av_str_c(email), password, address, on_login, &g, NULL, &err) < 0)
		on_login(&g, NULL, &err);
	else
		(void)run_until(w, &g.a.done);
	return g;
}

static struct login activate(struct world *w, const struct login *signed_up)
{
	const struct user *u = user_find(w->control, signed_up->user);
	char token[CONTROL_LINK_TOKEN_MAX];
	struct login g = {0};
	struct av_err err = {0};

	link_token(w->control, u, CONTROL_LINK_ACTIVATE, turned_ms(NULL) / 1000 + 60, token);
	if (control_activate(w->control, av_str_c(token), HOME, on_login, &g, NULL, &err) < 0)
		on_login(&g, NULL, &err);
	else
		(void)run_until(w, &g.a.done);
	return g;
}

static int verify(struct world *w, struct av_str token, struct control_actor *ret)
{
	struct control_actor actor;
	struct av_err err = {0};
	int r = control_session_verify(w->control, token, ret ? ret : &actor, &err);

	return r < 0 ? (int)err.kind : 0;
}

/* ---- tests ---- */

static void test_sessions(struct world *w)
{
	struct login g = sign_up(w, "ann@example.com", HOME);
	struct control_actor a = {0};
	struct av_str token = av_str_c(g.token);
	uint8_t key[CONTROL_KEY_BYTES];
	size_t good = 0;

	is_int(g.a.kind, 0, "signed up");
	is_int(verify(w, token, NULL), AV_ERR_ACCOUNT_NOT_ACTIVATED, "not yet");
	g = activate(w, &g);
	is_int(g.a.kind, 0, "activated");
	is_int(verify(w, token, &a), 0, "the first session holds now");
	is_str(a.user_id, g.user, "whose it is");
	is_int(a.role, CONTROL_ROLE_OWNER, "role");
	ok(!a.is_admin, "no administrator");
	for (size_t i = 0; i < token.n; i++) {
		char was = g.token[i];

		for (const char *c = "A.b0_="; *c; c++) {
			g.token[i] = *c;
			good += *c != was && verify(w, av_str_c(g.token), NULL) == 0;
		}
		g.token[i] = was;
	}
	/* The last digit of a signature carries two bits that mean nothing; libsodium refuses
	 * others than 0. */
	is_int((long long)good, 0, "no byte of it can be another");
	for (size_t n = 0; n < token.n; n++)
		good += verify(w, av_str_n(token.p, n), NULL) == 0;
	is_int((long long)good, 0, "no beginning of it is one");
	real_skew_ms = (CONTROL_SESSION_S + 1) * 1000LL;
	is_int(verify(w, token, NULL), AV_ERR_UNAUTHORIZED, "it ends");
	real_skew_ms = 0;
	memcpy(key, w->control->sign_key, sizeof(key));
	w->control->sign_key[0] ^= 1;
	is_int(verify(w, token, NULL), AV_ERR_UNAUTHORIZED, "of another installation");
	memcpy(w->control->sign_key, key, sizeof(key));
	is_int(verify(w, token, NULL), 0, "all as before");
}

static void test_links(struct world *w)
{
	struct login g = sign_up(w, "links@example.com", HOME), again;
	struct user *u = user_find(w->control, g.user);
	char token[CONTROL_LINK_TOKEN_MAX], other[CONTROL_LINK_TOKEN_MAX];
	int64_t now_s = turned_ms(NULL) / 1000;
	struct av_err err;
	int r = 0;

	link_token(w->control, u, CONTROL_LINK_ACTIVATE, now_s + 60, token);
	ok(link_check(w->control, av_str_c(token), CONTROL_LINK_ACTIVATE, &r, &err) == u, "a link");
	ok(!link_check(w->control, av_str_c(token), CONTROL_LINK_RESET, &r, &err), "for one thing");
	link_token(w->control, u, CONTROL_LINK_ACTIVATE, now_s - 1, other);
	ok(!link_check(w->control, av_str_c(other), CONTROL_LINK_ACTIVATE, &r, &err), "it expires");
	real_skew_ms = (CONTROL_ACTIVATION_S + 1) * 1000LL;
	again = sign_up(w, "links@example.com", HOME);
	is_int(again.a.kind, 0, "signed up anew, after a while");
	is_str(again.user, g.user, "in place of the former");
	real_skew_ms = 0;
	ok(!link_check(w->control, av_str_c(token), CONTROL_LINK_ACTIVATE, &r, &err),
	    "the former link is void");
	is_int(verify(w, av_str_c(g.token), NULL), AV_ERR_UNAUTHORIZED, "and the former session");
	g = activate(w, &again);
	is_int(g.a.kind, 0, "activated");
	g = activate(w, &again);
	is_int(g.a.kind, AV_ERR_ALREADY_ACTIVATED, "once");
}

static void test_a_hundred_at_once(struct world *w)
{
	static struct login g[100];
	size_t good = 0, taken = 0, busy = 0, users = w->control->accounts.users_by_id.n;
	char address[32];

	memset(g, 0, sizeof(g));
	for (size_t i = 0; i < AV_ARRAY_LEN(g); i++) {
		(void)snprintf(address, sizeof(address), "198.51.100.%zu", i);
		(void)begin_signup(w, "many@example.com", address, &g[i], NULL);
	}
	for (size_t i = 0; i < AV_ARRAY_LEN(g); i++) {
		(void)run_until(w, &g[i].a.done);
		good += g[i].a.kind == 0;
		taken += g[i].a.kind == AV_ERR_SIGNUP_COOLDOWN;
		busy += g[i].a.kind == AV_ERR_BUSY && g[i].retry_after_s > 0;
	}
	is_int((long long)good, 1, "one of them");
	is_int((long long)busy, (long long)AV_ARRAY_LEN(g) - PASSWORDS_WAITING_MAX,
	    "more than wait are refused");
	is_int((long long)(taken + busy + good), (long long)AV_ARRAY_LEN(g), "all are answered");
	is_int((long long)(w->control->accounts.users_by_id.n - users), 1, "one account");
}

static void test_passwords(struct world *w)
{
	struct login g = sign_up(w, "pass@example.com", HOME);
	char before[STORE_PASSWORD_SIZE];
	struct user *u;

	g = activate(w, &g);
	u = user_find(w->control, g.user);
	ok(strncmp(u->rec.password, "$argon2id$", 10) == 0, "argon2id");
	(void)snprintf(before, sizeof(before), "%s", u->rec.password);
	is_int(log_in(w, "PASS@example.com", PASSWORD, HOME).a.kind, 0, "log in");
	is_str(u->rec.password, before, "nothing is written");
	w->control->config.password_ops++;
	is_int(log_in(w, "pass@example.com", PASSWORD, HOME).a.kind, 0, "with other limits");
	ok(strcmp(u->rec.password, before) != 0, "it is hashed anew");
	w->control->config.password_ops--;
	is_int(log_in(w, "pass@example.com", PASSWORD, HOME).a.kind, 0, "and still right");
	is_int(verify(w, av_str_c(g.token), NULL), 0, "sessions go on");
}

/* What is asked of the worker threads is the same, whoever logs in. */
static void test_same_work(struct world *w)
{
	static const char *const who[] = {"pass@example.com", "nobody@example.com"};
	struct login g[2] = {0};
	struct av_err err;
	size_t asked[2];

	w->control->config.work = work_hook;
	for (size_t i = 0; i < 2; i++) {
		(void)control_log_in(w->control, av_str_c(who[i]), AV_STR("wrong password"), HOME,
		    on_login, &g[i], NULL, &err);
		run_for(w, 20);
		asked[i] = n_works;
		work_all();
		(void)run_until(w, &g[i].a.done);
	}
	is_int((long long)asked[0], 1, "one password is checked");
	is_int((long long)asked[1], (long long)asked[0], "also of nobody");
	is_int(g[1].a.kind, AV_ERR_UNAUTHORIZED, "and refused");
	is_str(g[1].a.message, g[0].a.message, "in the same words");
	w->control->config.work = NULL;
}

static void test_cancel(struct world *w)
{
	size_t users = w->control->accounts.users_by_id.n;
	struct login g[5] = {0};
	struct node_call *call[5];

	w->control->config.work = work_hook;
	most_works = 0;
	for (size_t i = 0; i < 5; i++) {
		char email[32];

		(void)snprintf(email, sizeof(email), "cancel%zu@example.com", i);
		(void)begin_signup(w, email, HOME, &g[i], &call[i]);
	}
	run_for(w, 20);
	is_int((long long)n_works, PASSWORDS_AT_ONCE, "so many at once");
	node_call_cancel(call[0]); /* runs */
	node_call_cancel(call[4]); /* waits */
	for (int i = 0; i < 10; i++) {
		work_all();
		run_for(w, 5);
	}
	is_int((long long)most_works, PASSWORDS_AT_ONCE, "never more");
	is_int(g[0].a.calls + g[4].a.calls, 0, "who cancelled hears nothing");
	is_int(g[1].a.calls + g[2].a.calls + g[3].a.calls, 3, "the others do");
	is_int((long long)(w->control->accounts.users_by_id.n - users), 3, "accounts");
	is_int((long long)w->control->passwords.n_waiting, 0, "nothing waits");
	is_int((long long)w->control->passwords.n_running, 0, "nothing runs");
	w->control->config.work = NULL;
}

static void test_attempts(struct world *w)
{
	struct login g;
	int refused = 0, last = 0;

	(void)sign_up(w, "door@example.com", HOME);
	g = sign_up(w, "knock@example.com", HOME);
	(void)activate(w, &g);
	is_int(log_in(w, "knock@example.com", PASSWORD, "192.0.2.7").a.kind, 0, "known from there");
	for (int i = 0; i < 12; i++) {
		g = log_in(w, "knock@example.com", AV_STR("wrong password"), ELSE);
		if (g.a.kind != AV_ERR_RATE_LIMITED)
			continue;
		refused++;
		ok(g.retry_after_s > 0, "when to try again");
		ok(g.retry_after_s >= last, "waits grow");
		last = g.retry_after_s;
		w->skew_ns += g.retry_after_s * AV_NS_PER_S;
	}
	ok(refused >= 3, "%d were refused", refused);
	is_int(log_in(w, "knock@example.com", PASSWORD, "192.0.2.7").a.kind, 0,
	    "the owner is not locked out");
	/* From so many places that the account itself is guarded. */
	for (int i = 0; i < 40; i++) {
		char address[32];

		(void)snprintf(address, sizeof(address), "203.0.113.%d", i);
		g = log_in(w, "knock@example.com", AV_STR("wrong password"), address);
	}
	is_int(g.a.kind, AV_ERR_RATE_LIMITED, "many places together");
	ok(g.retry_after_s <= 60, "for a minute at most");
	is_int(log_in(w, "knock@example.com", PASSWORD, "192.0.2.7").a.kind, 0, "but the owner's");
	w->skew_ns += 24 * 3600 * AV_NS_PER_S;
	is_int(
	    log_in(w, "knock@example.com", PASSWORD, ELSE).a.kind, 0, "it is forgotten in a day");
}

static void test_throttle(void)
{
	struct throttle t;
	char name[32];
	int64_t now = 0, wait, longest = 0;

	throttle_init(&t);
	for (int i = 0; i < 5; i++)
		is_int(throttle_take(&t, THROTTLE_LOGIN_PAIR, AV_STR("a"), AV_STR("b"), now), 0,
		    "allowed");
	is_int(throttle_take(&t, THROTTLE_LOGIN_PAIR, AV_STR("ab"), AV_STR(""), now), 0,
	    "another, though the letters are the same");
	for (int i = 0; i < 40; i++) {
		(void)throttle_take(&t, THROTTLE_LOGIN_PAIR, AV_STR("a"), AV_STR("b"), now);
		wait = throttle_take(&t, THROTTLE_LOGIN_PAIR, AV_STR("a"), AV_STR("b"), now);
		longest = AV_MAX(longest, wait);
		now += wait;
	}
	/* The count sinks meanwhile: where the two balance is below the bound. */
	ok(longest >= 4 * 60 * AV_NS_PER_S && longest <= 15 * 60 * AV_NS_PER_S,
	    "one try in minutes at last: %lld s", (long long)(longest / AV_NS_PER_S));
	throttle_forgive(&t, THROTTLE_LOGIN_PAIR, AV_STR("a"), AV_STR("b"), now);
	is_int(
	    throttle_take(&t, THROTTLE_LOGIN_PAIR, AV_STR("a"), AV_STR("b"), now), 0, "forgiven");
	for (int i = 0; i < THROTTLE_ENTRIES_MAX + 1000; i++) {
		(void)snprintf(name, sizeof(name), "%d", i);
		(void)throttle_take(&t, THROTTLE_SIGNUP_ADDRESS, av_str_c(name), AV_STR(""), now);
	}
	is_int((long long)throttle_count(&t), THROTTLE_ENTRIES_MAX, "memory is bounded");
	throttle_clear(&t);
}

static void test_unactivated(struct world *w)
{
	struct control *c = w->control;
	size_t waiting = c->accounts.n_unactivated;

	ok(waiting > 0, "some wait for activation");
	real_skew_ms = 25LL * 3600 * 1000;
	accounts_sweep(c);
	for (int i = 0; i < 200 && c->accounts.n_unactivated; i++)
		run_for(w, 10);
	real_skew_ms = 0;
	is_int((long long)c->accounts.n_unactivated, 0, "they are forgotten after a day");
	is_int(sign_up(w, "door@example.com", "192.0.2.9").a.kind, 0, "and their address is free");
}

static void prepare(struct world *w)
{
	w->control->config.password_ops = crypto_pwhash_OPSLIMIT_MIN;
	w->control->config.password_memory = crypto_pwhash_MEMLIMIT_MIN;
	w->control->config.clock.real_ms = turned_ms;
}

/* Who is there after a start. */
static void test_restart(struct world *w, struct fake_machine *m, bool graceful)
{
	struct login g = sign_up(w, graceful ? "stop@example.com" : "kill@example.com", HOME);

	g = activate(w, &g);
	is_int(g.a.kind, 0, "somebody");
	world_close(w, graceful);
	world_open(w, m, NULL);
	prepare(w);
	is_int(verify(w, av_str_c(g.token), NULL), 0, "is still there after it");
}

/* Control goes while a thread is at a password: it must not miss control. */
static void test_gone(struct world *w)
{
	struct login g = {0};

	w->control->config.work = work_hook;
	(void)begin_signup(w, "late@example.com", "192.0.2.10", &g, NULL);
	run_for(w, 20);
	is_int((long long)n_works, 1, "it runs");
	world_close(w, false);
	work_all();
	is_int(g.a.calls, 0, "nobody is told");
}

int main(void)
{
	struct fake_machine m;
	struct world w;

	if (!mkdtemp(dir) || av_path_printf(db, sizeof(db), "%s/aviary.db", dir) < 0)
		return 1;
	fake_machine_init(&m, "this-boot");
	world_open(&w, &m, NULL);
	prepare(&w);
	(void)control_first_start(w.control, on_secret, on_first, &w);
	(void)run_until(&w, &w.stopped);
	test_sessions(&w);
	test_links(&w);
	test_a_hundred_at_once(&w);
	test_passwords(&w);
	test_same_work(&w);
	test_cancel(&w);
	test_attempts(&w);
	test_throttle();
	test_unactivated(&w);
	test_restart(&w, &m, true);
	test_restart(&w, &m, false);
	test_gone(&w);
	fake_machine_clear(&m);
	(void)unlink(db);
	(void)rmdir(dir);
	return tap_done();
}
