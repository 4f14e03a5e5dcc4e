/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_alloc.c - every single allocation of the library failing: an error, no crash, no leak
 *
 * This program is linked with the library's inside, and its malloc family replaces the C library's.
 * An allocation fails by its number, when its caller is the library or the JSON library below it;
 * what libcurl and the C library ask for is theirs and only counted. A scenario runs against the
 * daemon until no allocation is left to fail. Each time it must end well (the failure was made
 * good) or with AVIARY_E_NO_MEMORY, and all memory must be back when its client is freed. Writes
 * outside of an allocation, or after it was freed, end the program (guard.h).
 *
 * Arguments: NAME or NAME/STEP, to try every STEP-th allocation only; without any it tries all of
 * all.
 */
#include <errno.h>
#include <link.h>
#include <pthread.h>
#include <stdatomic.h>

#include "tests/sdk/c/guard.h"
#include "tests/sdk/c/sdk.h"

#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define WITH_SANITIZER 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || defined(WITH_SANITIZER)
int main(void)
{
	tap_skip_all(false, "sanitizers have their own allocator");
}
#else

static atomic_long live, seen, fail_at = -1;
static atomic_bool failed_one;
static struct range {
	uintptr_t from, to;
} ours[4];
static size_t n_ours;

/* Counts what is asked for from our code; true for the one that is to fail. */
static bool fails(void *caller)
{
	uintptr_t at = (uintptr_t)caller;
	bool is_ours = false;

	for (size_t i = 0; i < n_ours; i++)
		is_ours |= at >= ours[i].from && at < ours[i].to;
	if (!is_ours || atomic_fetch_add(&seen, 1) != fail_at)
		return false;
	failed_one = true;
	return true;
}

static void *allocate(void *old, size_t n, void *caller)
{
	void *p = fails(caller) ? NULL : guard_realloc(old, n, caller);

	live += p && !old;
	if (!p)
		errno = ENOMEM;
	return p;
}

void *malloc(size_t n)
{
	void *caller = __builtin_return_address(0);

	return allocate(NULL, n, caller);
}

void *calloc(size_t n, size_t size)
{
	void *p = NULL, *caller = __builtin_return_address(0);
	size_t bytes;

	if (!__builtin_mul_overflow(n, size, &bytes))
		p = allocate(NULL, bytes, caller);
	return p ? memset(p, 0, bytes) : NULL;
}

void *realloc(void *old, size_t n)
{
	void *caller = __builtin_return_address(0);

	return allocate(old, n, caller);
}

void *reallocarray(void *old, size_t n, size_t size)
{
	void *caller = __builtin_return_address(0);
	size_t bytes;

	return __builtin_mul_overflow(n, size, &bytes) ? NULL : allocate(old, bytes, caller);
}

void free(void *p)
{
	void *caller = __builtin_return_address(0);

	live -= p != NULL;
	guard_free(p, caller);
}

/* The program itself (the first), and the JSON library. */
static int note_range(struct dl_phdr_info *info, size_t size, void *ctx)
{
	bool *first = ctx;

	(void)size;
	if (*first || strstr(info->dlpi_name, "libjansson")) {
		for (int i = 0; i < info->dlpi_phnum && n_ours < 4; i++) {
			const ElfW(Phdr) *p = &info->dlpi_phdr[i];

			if (p->p_type != PT_LOAD || !(p->p_flags & PF_X))
				continue;
			ours[n_ours].from = info->dlpi_addr + p->p_vaddr;
			ours[n_ours++].to = info->dlpi_addr + p->p_vaddr + p->p_memsz;
		}
	}
	*first = false;
	return 0;
}

/* ---- scenarios: 0, or the code of what failed first; everything is freed ---- */

/* What failed last, for the report. */
static char noted[300];

static void note(const aviary_error *e)
{
	if (e->code)
		(void)snprintf(noted, sizeof(noted), "%s", e->message);
}

static int take(aviary_op *op, bool *go)
{
	int r = aviary_op_wait(op, 20000);

	note(aviary_op_error(op));
	aviary_op_free(op);
	*go = *go && r == 0;
	return r;
}

static int with_sandbox(aviary_client *c)
{
	aviary_sandbox_spec spec = AVIARY_SANDBOX_SPEC_INIT;
	aviary_stop_options stop = AVIARY_STOP_OPTIONS_INIT;
	const char *const tags[] = {"a", "b"};
	const aviary_pair envs[] = {{"A", "1"}, {"B", "2"}};
	const char *const argv[] = {"cat"};
	aviary_exec_options x = AVIARY_EXEC_OPTIONS_INIT;
	aviary_sandbox *sb;
	aviary_process *p;
	aviary_error e = {0};
	bool go = true;
	int r = 0;

	spec.memory_mb = 128;
	spec.max_lifetime_ms = 120000;
	spec.tags = (aviary_strings){tags, 2};
	spec.envs = spec.metadata = (aviary_pairs){envs, 2};
	sb = aviary_sandbox_new(c, &spec);
	if (!sb)
		return AVIARY_E_NO_MEMORY;
	r = take(aviary_sandbox_start(sb), &go);
	if (r == AVIARY_E_NO_MEMORY) /* it may be there: asked for again, it is the same one */
		(void)take(aviary_sandbox_start(sb), &go);
	if (go)
		r = take(aviary_sandbox_refresh(sb), &go);
	if (go) {
		x.flags = AVIARY_EXEC_COLLECT | AVIARY_EXEC_STDIN;
		x.command = (aviary_strings){argv, 1};
		p = aviary_sandbox_exec(sb, &x);
		(void)aviary_process_write(p, "hello", 5, 10000);
		r = aviary_process_close_stdin(p);
		if (r == 0)
			r = aviary_await_process(p, &e) ? 0 : e.code;
		note(&e);
		aviary_process_free(p);
		go = r == 0;
	}
	if (go)
		r = take(aviary_sandbox_ping(sb), &go);
	/* What was created must go, whatever failed: the failure has been by now. */
	stop.missing_ok = 1;
	stop.grace_ms = -1;
	if (aviary_sandbox_id(sb)[0]) {
		bool gone = true;
		int s = take(aviary_sandbox_stop(sb, &stop), &gone);

		if (s == AVIARY_E_NO_MEMORY)
			s = take(aviary_sandbox_stop(sb, &stop), &gone);
		r = r ? r : s;
	}
	aviary_sandbox_free(sb);
	return r;
}

static int with_requests(aviary_client *c)
{
	aviary_request q = AVIARY_REQUEST_INIT;
	aviary_op *ops[4];
	size_t bad;
	int r;

	q.path = "/v1/me";
	ops[0] = aviary_client_request(c, &q);
	q.path = "/v1/sandboxes/none";
	ops[1] = aviary_client_request(c, &q);
	q.path = "/v1/sandboxes";
	ops[2] = aviary_client_request(c, &q);
	q.method = "POST";
	q.body = "{}";
	q.path = "/v1/no/such/route";
	ops[3] = aviary_client_request(c, &q);
	r = aviary_wait(ops, 4, 0, 20000);
	r = r < 0 ? r : r < 4 ? AVIARY_E_TIMEOUT : aviary_results(ops, 4, &bad);
	for (int i = 0; i < 4; i++)
		aviary_op_free(ops[i]);
	/* Two of them fail in order. */
	return r == AVIARY_E_NO_MEMORY ? r : 0;
}

static int all_of_it(aviary_op *op)
{
	int r = aviary_op_wait(op, 20000);

	if (r < 0 && r != AVIARY_E_NO_MEMORY && r != AVIARY_E_NOT_FOUND)
		diag("%s", aviary_op_error(op)->message);
	aviary_op_free(op);
	return r;
}

/* Lists, structs in requests, text, models to JSON and back. */
static int with_resources(aviary_client *c)
{
	aviary_api_keys_update_options u = AVIARY_API_KEYS_UPDATE_OPTIONS_INIT;
	aviary_quota_options q = AVIARY_QUOTA_OPTIONS_INIT;
	aviary_sandboxes_list_options lo = AVIARY_SANDBOXES_LIST_OPTIONS_INIT;
	const char *tags[] = {"a", "b"};
	aviary_api_key_list *keys, *again = NULL;
	aviary_text *text;
	aviary_error e = {0};
	char *json;
	int r;

	keys = aviary_api_keys_list_sync(c, &e);
	if (!keys)
		return e.code;
	json = aviary_api_key_list_json(keys);
	r = json ? aviary_api_key_list_parse(json, strlen(json), &again, &e) : AVIARY_E_NO_MEMORY;
	free(json);
	aviary_api_key_list_free(again);
	aviary_api_key_list_free(keys);
	u.name = "no such key";
	u.quota = &q;
	q.sandboxes = 1;
	if (r == 0) {
		r = all_of_it(aviary_api_keys_update(c, "ke0000000000000000000000000", &u));
		r = r == AVIARY_E_NOT_FOUND ? 0 : r;
	}
	lo.tag = (aviary_strings){tags, 2};
	lo.limit = 5;
	if (r == 0)
		r = all_of_it(aviary_sandboxes_list(c, &lo));
	if (r == 0)
		r = all_of_it(aviary_limits_get(c));
	if (r < 0)
		return r;
	text = aviary_system_metrics_sync(c, &e);
	aviary_text_free(text);
	return text ? 0 : e.code;
}

static int64_t take_all(void *ctx, const void *data, size_t n)
{
	(void)ctx, (void)data;
	return (int64_t)n;
}

static int first_of(aviary_sandbox *sb)
{
	aviary_file_options o = AVIARY_FILE_OPTIONS_INIT;
	aviary_http_request q = AVIARY_HTTP_REQUEST_INIT;
	const aviary_pair header = {"X-A", "b"};
	aviary_watch_event event;
	aviary_watch *w;
	bool go = true;
	char path[400];
	int r = take(aviary_file_write(sb, "/root/t/a", "hello", 5, NULL), &go);

	(void)snprintf(path, sizeof(path), "%s/alloc-tree", getenv("AVIARY_TEST_DIR"));
	o.depth = 2;
	if (go)
		r = take(aviary_file_read(sb, "/root/t/a", NULL), &go);
	if (go)
		r = take(aviary_file_list(sb, "/root", &o), &go);
	if (go)
		r = take(aviary_file_chown(sb, "/root/t/a", "root", "root", NULL), &go);
	if (go)
		r = take(aviary_file_move(sb, "/root/t/a", "/root/t/b", NULL), &go);
	if (go)
		r = take(aviary_file_sign(sb, "/root/t/b", 0, 0, NULL), &go);
	if (go)
		r = take(aviary_file_download(sb, "/root/t/b", take_all, NULL, NULL), &go);
	if (go)
		r = take(aviary_tree_download(sb, "/root/t", path, NULL), &go);
	if (go)
		r = take(aviary_tree_upload(sb, path, "/root/u", NULL), &go);
	if (go)
		r = take(aviary_sandbox_url(sb, 80, NULL, 0), &go);
	if (go)
		r = take(aviary_sandbox_metrics(sb, 0), &go);
	q.headers.items = &header;
	q.headers.n = 1;
	q.body = "x";
	q.body_size = 1;
	q.method = "POST";
	if (go) {
		r = take(aviary_sandbox_http(sb, 81, &q), &go);
		go = r == AVIARY_E_PORT_CLOSED;
		r = go ? 0 : r;
	}
	if (!go)
		return r;
	w = aviary_file_watch(sb, "/root/t", NULL);
	if (!w)
		return AVIARY_E_NO_MEMORY;
	r = aviary_watch_next(w, &event, 20000);
	if (r < 0)
		note(aviary_op_error(aviary_watch_op(w)));
	aviary_watch_free(w);
	return r == 1 ? 0 : r;
}

/* Of a sandbox that another client keeps. */
static int with_files(aviary_client *c)
{
	static char id[64];
	aviary_sandbox *sb;
	int r;

	if (!c) {
		(void)snprintf(id, sizeof(id), "%s", getenv("AVIARY_TEST_SANDBOX"));
		return 0;
	}
	sb = aviary_sandbox_attach(c, id);
	if (!sb)
		return AVIARY_E_NO_MEMORY;
	r = first_of(sb);
	aviary_sandbox_free(sb);
	return r;
}

AVIARY_REMOTE(add_one, int, int)
{
	*out = *in + 1;
	return 0;
}

/* Over the first of two lanes of a map, so that all of it is had. */
static int with_remote(aviary_client *c)
{
	aviary_remote_options o = AVIARY_REMOTE_OPTIONS_INIT;
	aviary_sandbox_spec spec = AVIARY_SANDBOX_SPEC_INIT;
	aviary_remote_results *all;
	aviary_error e;
	int in[2] = {1, 2}, sum = 0;

	spec.memory_mb = 128;
	spec.max_lifetime_ms = 120000;
	o.spec = &spec;
	o.max_sandboxes = 1;
	all = aviary_remote_map_sync(c, AVIARY_FUNCTION(add_one), in, 2, &o, &e);
	for (size_t i = 0; all && i < all->n; i++)
		sum += add_one_value(all->items[i]) ? *add_one_value(all->items[i]) : 0;
	aviary_remote_results_free(all);
	return e.code == 0 && sum != 5 ? AVIARY_E_INTERNAL : e.code;
}

/* An event of before, again. */
static int with_events(aviary_client *c)
{
	static char behind[64];
	aviary_events_options o = AVIARY_EVENTS_OPTIONS_INIT;
	const char *const names[] = {"capsule.create", "capsule.destroy"};
	const aviary_news *news = NULL;
	aviary_events *events;
	int r;

	o.names = (aviary_strings){names, 2};
	o.last_id = behind[0] ? behind : NULL;
	events = aviary_client_events(c, &o);
	if (!events)
		return AVIARY_E_NO_MEMORY;
	if (!behind[0]) {
		aviary_sandbox *sb;

		(void)aviary_events_next(events, &news, 500); /* it follows */
		sb = sdk_sandbox(c);
		(void)aviary_await(aviary_sandbox_stop(sb, NULL), NULL);
		aviary_sandbox_free(sb);
	}
	r = aviary_events_next(events, &news, 20000);
	if (r == 1 && !behind[0])
		(void)snprintf(behind, sizeof(behind), "%s", news->id);
	note(aviary_op_error(aviary_events_op(events)));
	aviary_events_free(events);
	return r == 1 ? 0 : r;
}

/* All of a session: a sandbox that is tracked, its log, a list that adopts, a close. */
static int of_session(aviary_client *c, aviary_session *s)
{
	const char *const argv[] = {"/bin/echo", "hello"};
	aviary_sandbox_spec spec = AVIARY_SANDBOX_SPEC_INIT;
	const aviary_mounted_file file = {"/root/x", "12", 2, 0};
	aviary_sandbox *sb = NULL;
	aviary_sandbox_handles *l;
	aviary_sandbox_info *info;
	const aviary_log_entry *entry;
	aviary_log_reader *logs;
	aviary_error e;
	bool go = true;
	int r;

	(void)c;
	spec.command = (aviary_strings){argv, 2};
	spec.files = &file;
	spec.n_files = 1;
	r = aviary_session_sandbox(s, &spec, &sb);
	if (r < 0)
		return r;
	r = take(aviary_sandbox_start(sb), &go);
	if (r == AVIARY_E_NO_MEMORY) /* asked for again, it is the same */
		(void)take(aviary_sandbox_start(sb), &go);
	if (go) {
		logs = aviary_sandbox_read_logs(sb, NULL);
		while ((r = logs ? aviary_log_reader_next(logs, &entry, 20000)
		                 : AVIARY_E_NO_MEMORY) > 0)
			continue;
		aviary_log_reader_free(logs);
	}
	if (go && r == 0) {
		l = aviary_session_list_sync(s, NULL, 1, &e);
		r = l ? 0 : e.code;
		aviary_sandbox_handles_free(l);
	}
	info = aviary_sandbox_describe(sb);
	aviary_sandbox_info_free(info);
	aviary_sandbox_free(sb);
	return r;
}

static int with_session(aviary_client *c)
{
	static const char *const tags[] = {"of-alloc"};
	aviary_cleanup_options co = AVIARY_CLEANUP_OPTIONS_INIT;
	aviary_stop_options stop = AVIARY_STOP_OPTIONS_INIT;
	aviary_sandbox_spec d = AVIARY_SANDBOX_SPEC_INIT;
	aviary_session *s;
	bool go = true;
	int r, closed = AVIARY_E_NO_MEMORY;

	co.flags = AVIARY_CLEANUP_ATEXIT;
	r = aviary_cleanup_install(c, &co);
	if (r < 0)
		return r;
	d.memory_mb = 128;
	d.max_lifetime_ms = 120000;
	d.tags = (aviary_strings){tags, 1};
	s = aviary_session_new(c, &d);
	if (!s) {
		aviary_cleanup_remove(c); /* it outlives the client */
		return AVIARY_E_NO_MEMORY;
	}
	r = of_session(c, s);
	stop.missing_ok = 1;
	stop.grace_ms = -1;
	for (int i = 0; i < 3 && closed == AVIARY_E_NO_MEMORY; i++)
		closed = take(aviary_session_close(s, &stop), &go);
	aviary_session_free(s);
	aviary_cleanup_remove(c);
	return r ? r : closed;
}

static int of_interpreter(aviary_sandbox *sb)
{
	static const char *const argv[] = {"sh", "-c", "read x; echo $x"};
	aviary_code_options co = AVIARY_CODE_OPTIONS_INIT;
	aviary_exec_options x = AVIARY_EXEC_OPTIONS_INIT;
	aviary_process *p, *again;
	bool go = true;
	int r;

	r = take(aviary_sandbox_run_code(sb, "print('x' * 10); {'a': 1}", &co), &go);
	if (go)
		r = take(aviary_code_list(sb), &go);
	if (!go)
		return r;
	x.command = (aviary_strings){argv, 3};
	p = aviary_sandbox_terminal(sb, &x);
	(void)aviary_process_resize(p, 100, 30);
	again =
	    aviary_sandbox_connect(sb, aviary_process_tag(p)[0] ? aviary_process_tag(p) : "none");
	if (aviary_process_write(p, "y\n", 2, 10000) != 2) /* it waits for that */
		(void)aviary_process_signal(p, "SIGKILL");
	r = aviary_op_wait(aviary_process_op(p), 20000);
	note(aviary_op_error(aviary_process_op(p)));
	(void)aviary_op_wait(aviary_process_op(again), 20000);
	aviary_process_free(again);
	aviary_process_free(p);
	return r;
}

/* In the sandbox that is kept, as an interpreter takes its time to start. */
static int with_code(aviary_client *c)
{
	aviary_sandbox *sb = aviary_sandbox_attach(c, getenv("AVIARY_TEST_SANDBOX"));
	int r = sb ? of_interpreter(sb) : AVIARY_E_NO_MEMORY;

	aviary_sandbox_free(sb);
	return r;
}

static const struct scenario {
	const char *name;
	int (*run)(aviary_client *c);
} scenarios[] = {
    {"requests", with_requests},
    {"resources", with_resources},
    {"a sandbox", with_sandbox},
    {"files", with_files},
    {"a session", with_session},
    {"a remote function", with_remote},
    {"events", with_events},
    {"code", with_code},
};

static int run(const struct scenario *s)
{
	aviary_client_options o = AVIARY_CLIENT_OPTIONS_INIT;
	aviary_client *c;
	int r;

	if (getenv("AVIARY_TEST_THREADED"))
		o.flags |= AVIARY_CLIENT_THREADED;
	r = aviary_client_new(&c, &o);
	if (r == 0)
		r = s->run(c);
	aviary_client_free(c);
	return r;
}

static void test(const struct scenario *s, long step)
{
	long before, wrong = 0, leaks = 0, tried = 0, k;
	int r;

	is_int(run(s), 0, s->name); /* what is made once and kept is made now */
	is_int(run(s), 0, s->name);
	before = live;
	for (k = 0;; k += step) {
		seen = 0;
		failed_one = false;
		fail_at = k;
		r = run(s);
		fail_at = -1;
		if (!failed_one)
			break;
		tried++;
		if (r != 0 && r != AVIARY_E_NO_MEMORY && wrong++ < 20)
			diag("allocation %ld: %s: %s", k, aviary_code_name(r), noted);
		if (live > before && leaks++ < 5)
			diag("allocation %ld: %ld not freed", k, (long)(live - before));
		before = live > before ? (long)live : before;
	}
	ok(tried > 10, "%s: %ld of %ld allocations failed, one each time", s->name, tried,
	    (long)seen);
	is_int(wrong, 0, "each was made good or said to be want of memory");
	is_int(leaks, 0, "and nothing was left");
}

/* Which of the arguments asks for it, and every how many-th allocation is to fail: "NAME" or
 * "NAME/STEP". 0: none. */
static long step_of(const struct scenario *s, int argc, char **argv)
{
	size_t n = strlen(s->name);

	if (argc < 2)
		return 1;
	for (int i = 1; i < argc; i++)
		if (strncmp(argv[i], s->name, n) == 0 && (!argv[i][n] || argv[i][n] == '/'))
			return argv[i][n] ? strtol(argv[i] + n + 1, NULL, 10) : 1;
	return 0;
}

int main(int argc, char **argv)
{
	aviary_client *keeper;
	aviary_sandbox *kept;
	bool first = true;

	aviary_worker_init(argc, argv);
	dl_iterate_phdr(note_range, &first);
	setvbuf(stdout, NULL, _IONBF, 0);
	for (size_t i = 0; i < sizeof(scenarios) / sizeof(*scenarios); i++) {
		long step = step_of(&scenarios[i], argc, argv);

		if (step <= 0)
			continue;
		if (scenarios[i].run != with_files && scenarios[i].run != with_code) {
			test(&scenarios[i], step);
			continue;
		}
		keeper = sdk_client();
		kept = sdk_sandbox(keeper);
		setenv("AVIARY_TEST_SANDBOX", aviary_sandbox_id(kept), 1);
		if (scenarios[i].run == with_files)
			(void)with_files(NULL);
		test(&scenarios[i], step);
		sdk_remove(kept);
		aviary_client_free(keeper);
	}
	return tap_done();
}
#endif
