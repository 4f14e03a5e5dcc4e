/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench_rows.c - times and rates
 */
#include "cli/bench.h"

#include <errno.h>
#include <glob.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/avtime.h"
#include "base/fd.h"
#include "base/path.h"
#include "cli/bench_ws.h"

#include "base/banned.h"

#define GONE_MS      5000
#define CLIENTS      4
#define TRANSFER     (1ULL << 30)
#define TRANSFER_SHM "\"memory_mb\":3072"

static double ms_since(int64_t start_ns)
{
	return (double)(av_mono_ns() - start_ns) / (double)AV_NS_PER_MS;
}

static int interrupted(struct av_err *err)
{
	return cli_caught_signal() ? av_err_set(err, AV_ERR_CANCELED, "interrupted") : 0;
}

static int exec_path(char path[static 128], const char *id)
{
	return snprintf(path, 128, "/v1/sandboxes/%s/exec", id);
}

/* ---- create_first_byte_cold, delete_gone ---- */

/* Remembers the directories of cgroupfs in which the daemon keeps the cgroups of sandboxes, found
 * by one that is alive. */
static void find_cgroups(struct bench *b, const char *id)
{
	/* Version 2 at the root, version 1 and hybrid one level below. */
	static const char *const roots[] = {"/sys/fs/cgroup", "/sys/fs/cgroup/*"};
	b->n_cgroups = 0;
	for (size_t i = 0; i < AV_ARRAY_LEN(roots); i++) {
		char pattern[128];
		glob_t g;
		snprintf(pattern, sizeof(pattern), "%s/aviary-*/%s", roots[i], id);
		if (glob(pattern, GLOB_NOSORT, NULL, &g) != 0)
			continue;
		for (size_t k = 0; k < g.gl_pathc && b->n_cgroups < AV_ARRAY_LEN(b->cgroups); k++) {
			struct av_str dir = av_path_dir(av_str_c(g.gl_pathv[k]));
			if (av_str_copy(b->cgroups[b->n_cgroups], sizeof(b->cgroups[0]), dir) == 0)
				b->n_cgroups++;
		}
		globfree(&g);
	}
}

static bool is_gone(const struct bench *b, const char *id)
{
	char path[512];
	for (size_t i = 0; i < b->n_cgroups; i++) {
		snprintf(path, sizeof(path), "%s/%s", b->cgroups[i], id);
		if (access(path, F_OK) == 0)
			return false;
	}
	snprintf(path, sizeof(path), "%s/%s", b->run, id);
	if (access(path, F_OK) == 0)
		return false;
	snprintf(path, sizeof(path), "%s/sandboxes/%s", b->state, id);
	return access(path, F_OK) < 0;
}

static int wait_gone(const struct bench *b, const char *id, struct av_err *err)
{
	if (!b->dir[0])
		return 0; /* another's daemon: its answer is what can be seen */
	for (int64_t end = av_mono_ns() + GONE_MS * AV_NS_PER_MS; av_mono_ns() < end;) {
		if (is_gone(b, id))
			return 0;
		usleep(50);
	}
	return av_err_set(err, AV_ERR_INTERNAL, "sandbox %s is not gone %d s after its deletion",
	    id, GONE_MS / 1000);
}

static int create_once(
    struct bench *b, struct samples *first_byte, struct samples *gone, struct av_err *err)
{
	char id[AV_ID_SIZE], path[128];
	int64_t start = av_mono_ns();
	int r = bench_create(&b->http, "", id, err);
	if (r < 0)
		return r;
	exec_path(path, id);
	r = bench_http_must(
	    &b->http, "POST", path, "{\"cmd\":\"/bin/echo\",\"args\":[\"x\"]}", err);
	if (r < 0)
		return r;
	samples_add(first_byte, ms_since(start));
	if (b->dir[0] && b->n_cgroups == 0)
		find_cgroups(b, id);
	start = av_mono_ns();
	r = bench_delete(&b->http, id, err);
	if (r == 0)
		r = wait_gone(b, id, err);
	samples_add(gone, ms_since(start));
	return r;
}

/* ---- create_internet ---- */

int bench_row_internet(struct bench *b, struct av_err *err)
{
	size_t n = b->quick ? 30 : 200, warm_up = 3;
	size_t made = 0;
	struct samples s;
	int r = samples_init(&s, n, err);
	for (size_t i = 0; r == 0 && i < n + warm_up; i++) {
		char id[AV_ID_SIZE];
		int64_t start = av_mono_ns();
		r = bench_create(&b->http, "\"internet\":true", id, err);
		made += r == 0;
		if (i >= warm_up)
			samples_add(&s, ms_since(start));
		if (r == 0)
			r = bench_delete(&b->http, id, err);
		r = r < 0 ? r : interrupted(err);
	}
	/* The first one says whether this machine can. */
	if (r < 0 && made == 0) {
		bench_skip(b, "create_internet", "ms", "%s", err->message);
		r = 0;
	} else if (r == 0) {
		bench_add_samples(b, "create_internet", "ms", &s, NULL);
	}
	samples_clear(&s);
	return r;
}

static void scale(struct samples *s, double factor)
{
	for (size_t i = 0; i < s->n; i++)
		s->v[i] *= factor;
}

int bench_row_create(struct bench *b, struct av_err *err)
{
	size_t n = b->quick ? 50 : 400, warm_up = 5;
	struct samples first_byte, gone, floor_create, floor_gone;
	int r = samples_init(&first_byte, n, err);
	r = r < 0 ? r : samples_init(&gone, n, err);
	r = r < 0 ? r : samples_init(&floor_create, n, err);
	r = r < 0 ? r : samples_init(&floor_gone, n, err);
	for (size_t i = 0; r == 0 && i < n + warm_up; i++) {
		if (i == warm_up)
			first_byte.n = gone.n = 0;
		r = create_once(b, &first_byte, &gone, err);
		r = r < 0 ? r : interrupted(err);
	}
	if (r == 0) {
		char count[16], reason[300];
		snprintf(count, sizeof(count), "%zu", n);
		const char *argv[] = {b->floor_jail, "--child", b->floor_child, "--count", count,
		    "--dir", b->dir[0] ? b->dir : "/var/tmp", NULL};
		bool has_floor = b->floor_jail[0] && bench_floor_numbers(argv, &floor_create,
		                                         &floor_gone, reason, sizeof(reason)) == 0;
		if (!has_floor && b->floor_jail[0])
			cli_warn("no floor for creates: %s", reason);
		scale(&floor_create, 1e-6);
		scale(&floor_gone, 1e-6);
		bench_add_samples(b, "create_first_byte_cold", "ms", &first_byte,
		    has_floor ? &floor_create : NULL);
		bench_add_samples(b, "delete_gone", "ms", &gone, has_floor ? &floor_gone : NULL);
	}
	samples_clear(&first_byte);
	samples_clear(&gone);
	samples_clear(&floor_create);
	samples_clear(&floor_gone);
	return r;
}

/* ---- exec_true ---- */

static int exec_many(
    struct bench_http *h, const char *path, size_t n, struct samples *s, struct av_err *err)
{
	size_t warm_up = 20;
	int r = 0;
	for (size_t i = 0; r >= 0 && i < n + warm_up; i++) {
		int64_t start = av_mono_ns();
		r = bench_http_must(h, "POST", path, "{\"cmd\":\"true\"}", err);
		if (i >= warm_up)
			samples_add(s, ms_since(start));
		if (r >= 0 && i % 64 == 0)
			r = interrupted(err);
	}
	return r < 0 ? r : 0;
}

/* Starts the floor's server and connects. */
static int floor_open(const struct bench *b, struct bench_child *c, struct bench_http *h)
{
	char line[256];
	const char *argv[] = {b->floor_http, NULL};
	if (!b->floor_http[0] || bench_child_start(c, argv, NULL) < 0)
		return -ENOENT;
	int r = bench_child_line(c, line, sizeof(line), 5000);
	if (r == 0)
		r = bench_http_open(h, line, "", NULL);
	if (r < 0)
		bench_child_stop(c);
	return r;
}

static void floor_close(struct bench_child *c, struct bench_http *h)
{
	bench_http_close(h);
	bench_child_stop(c);
}

int bench_row_exec(struct bench *b, struct av_err *err)
{
	size_t n = b->quick ? 300 : 3000;
	char id[AV_ID_SIZE], path[128];
	struct samples s, f;
	int r = samples_init(&s, n, err);
	r = r < 0 ? r : samples_init(&f, n, err);
	r = r < 0 ? r : bench_create(&b->http, "", id, err);
	if (r == 0) {
		exec_path(path, id);
		r = exec_many(&b->http, path, n, &s, err);
		struct bench_child c;
		struct bench_http h;
		bool has_floor = r == 0 && floor_open(b, &c, &h) == 0;
		if (has_floor) {
			has_floor = exec_many(&h, "/exec", n, &f, NULL) == 0;
			floor_close(&c, &h);
		}
		if (r == 0)
			bench_add_samples(b, "exec_true", "ms", &s, has_floor ? &f : NULL);
		int d = bench_delete(&b->http, id, r < 0 ? NULL : err);
		r = r < 0 ? r : d;
	}
	samples_clear(&s);
	samples_clear(&f);
	return r;
}

/* ---- creates_per_second ---- */

/* In a process of its own: create and delete until the deadline; the count goes to fd. */
_Noreturn static void rate_client(const struct bench *b, int64_t deadline_ns, int fd)
{
	struct bench_http h;
	struct av_err err = {0};
	char id[AV_ID_SIZE];
	int64_t count = 0;
	int r = bench_http_open(&h, b->url, b->key, &err);
	while (r == 0 && av_mono_ns() < deadline_ns) {
		r = bench_create(&h, "", id, &err);
		if (r == 0)
			r = bench_delete(&h, id, &err);
		count += r == 0;
	}
	if (r < 0)
		cli_warn("creates_per_second: %s", err.message);
	if (r < 0 || av_write_full(fd, &count, sizeof(count)) < 0)
		_exit(1);
	_exit(0);
}

/* Starts the clients, waits, and adds up what they counted. */
static int rate_measure(const struct bench *b, int64_t duration_ns, double *ret, struct av_err *err)
{
	pid_t pids[CLIENTS];
	int fds[2], failed = 0;
	int64_t total = 0;
	if (pipe(fds) < 0)
		return av_err_sys(err, AV_ERR_INTERNAL, errno, "pipe");
	int64_t deadline = av_mono_ns() + duration_ns;
	for (size_t i = 0; i < CLIENTS; i++) {
		pids[i] = fork();
		if (pids[i] == 0)
			rate_client(b, deadline, fds[1]);
	}
	close(fds[1]);
	for (size_t i = 0; i < CLIENTS; i++) {
		int64_t count;
		int status = 1;
		if (av_read_full(fds[0], &count, sizeof(count)) == (ssize_t)sizeof(count))
			total += count;
		else
			failed++;
		if (pids[i] > 0)
			waitpid(pids[i], &status, 0);
	}
	close(fds[0]);
	if (failed)
		return av_err_set(err, AV_ERR_INTERNAL, "a client failed");
	*ret = (double)total / ((double)duration_ns / (double)AV_NS_PER_S);
	return 0;
}

int bench_row_rate(struct bench *b, struct av_err *err)
{
	int seconds = b->quick ? 2 : 5;
	double rate = 0;
	int r = rate_measure(b, seconds * AV_NS_PER_S, &rate, err);
	if (r < 0)
		return r;
	char text[16], reason[300];
	struct samples f;
	if ((r = samples_init(&f, 16, err)) < 0)
		return r;
	snprintf(text, sizeof(text), "%d", seconds);
	const char *argv[] = {b->floor_jail, "--child", b->floor_child, "--rate", text,
	    "--processes", "2", "--dir", b->dir[0] ? b->dir : "/var/tmp", NULL};
	double floor_rate = (double)NAN;
	if (b->floor_jail[0] && bench_floor_numbers(argv, &f, NULL, reason, sizeof(reason)) == 0)
		floor_rate = samples_percentile(&f, 50);
	bench_add(b, "creates_per_second", "1/s", 1, rate, (double)NAN, floor_rate, NULL);
	samples_clear(&f);
	return 0;
}

/* ---- upload_1gib, download_1gib ---- */

/* Where bytes go to or come from: a sandbox, or the floor program when id is NULL. */
struct transfer_end {
	struct bench *b;
	struct bench_http *h;
	const char *id, *file;
	char path[512];
};

/* Uploads make a new file each time. */
static int transfer_forget(const struct transfer_end *t, struct av_err *err)
{
	char path[128], body[512];
	if (!t->id) {
		unlink(t->file);
		return 0;
	}
	exec_path(path, t->id);
	snprintf(body, sizeof(body), "{\"cmd\":\"rm\",\"args\":[\"-f\",\"%s\"]}", t->file);
	return bench_http_must(&t->b->http, "POST", path, body, err);
}

static int transfer(
    const struct transfer_end *t, bool is_upload, size_t n, struct samples *s, struct av_err *err)
{
	int r = 0;
	for (size_t i = 0; r >= 0 && i < n; i++) {
		uint64_t bytes = TRANSFER;
		if (is_upload && (r = transfer_forget(t, err)) < 0)
			break;
		int64_t start = av_mono_ns();
		r = is_upload ? bench_http_put(t->h, t->path, TRANSFER, err)
		              : bench_http_get(t->h, t->path, &bytes, err);
		samples_add(s, ms_since(start) / 1000);
		if (r >= 0 && bytes != TRANSFER)
			r = av_err_set(err, AV_ERR_INTERNAL, "%llu bytes came back of 1 GiB",
			    (unsigned long long)bytes);
		r = r < 0 ? r : interrupted(err);
	}
	return r < 0 ? r : 0;
}

/* What the sandbox's disk can do: the same bytes by dd, inside. */
static int dd_inside(const struct transfer_end *t, size_t n, struct samples *s, struct av_err *err)
{
	char path[128], body[768];
	int r = 0;
	exec_path(path, t->id);
	snprintf(body, sizeof(body),
	    "{\"cmd\":\"dd\",\"args\":[\"if=/dev/zero\",\"of=%s\",\"bs=256k\",\"count=%llu\"]}",
	    t->file, TRANSFER >> 18);
	for (size_t i = 0; r >= 0 && i < n; i++) {
		r = transfer_forget(t, err);
		int64_t start = av_mono_ns();
		r = r < 0 ? r : bench_http_must(&t->b->http, "POST", path, body, err);
		samples_add(s, ms_since(start) / 1000);
	}
	return r < 0 ? r : 0;
}

/* Peak resident memory of the daemon's processes would be the proof of streaming; it is checked by
 * the tests. Here only time counts. */
static int transfer_rows(struct bench *b, const char *id, const char *file, const char *floor_file,
    const char *suffix, struct av_err *err)
{
	size_t n = b->quick ? 1 : 5;
	struct bench_child c;
	struct bench_http h;
	struct transfer_end ours = {.b = b, .h = &b->http, .id = id, .file = file};
	struct transfer_end least = {.b = b, .h = &h, .file = floor_file};
	bool has_floor = floor_open(b, &c, &h) == 0;
	int r = 0;
	snprintf(ours.path, sizeof(ours.path), "/v1/sandboxes/%s/files?path=%s", id, file);
	snprintf(least.path, sizeof(least.path), "/files?path=%s", floor_file);
	for (int up = 1; r == 0 && up >= 0; up--) {
		char name[64];
		struct samples s, f;
		r = samples_init(&s, n, err);
		r = r < 0 ? r : samples_init(&f, n, err);
		snprintf(name, sizeof(name), "%s_1gib%s", up ? "upload" : "download", suffix);
		if (r == 0)
			r = transfer(&ours, up, n, &s, err);
		bool ok = r == 0 && has_floor;
		if (up && suffix[0]) {
			/* One for the download to come. */
			ok = ok && transfer(&least, up, 1, &f, NULL) == 0;
			f.n = 0;
			ok = ok && dd_inside(&ours, n, &f, NULL) == 0;
		} else {
			ok = ok && transfer(&least, up, n, &f, NULL) == 0;
		}
		if (r == 0)
			bench_add_samples(b, name, "s", &s, ok ? &f : NULL);
		samples_clear(&s);
		samples_clear(&f);
	}
	if (has_floor)
		floor_close(&c, &h);
	unlink(floor_file);
	return r;
}

int bench_row_transfer(struct bench *b, struct av_err *err)
{
	char id[AV_ID_SIZE], floor_file[400];
	/* /dev/shm may hold half of the sandbox's memory. */
	int r = bench_create(&b->http, TRANSFER_SHM ",\"vcpus\":2,\"disk_mb\":4096", id, err);
	if (r < 0) {
		bench_skip(b, "upload_1gib", "s", "%s", err->message);
		bench_skip(b, "download_1gib", "s", "%s", err->message);
		return 0;
	}
	snprintf(floor_file, sizeof(floor_file), "/dev/shm/aviary-bench-%d", (int)getpid());
	r = transfer_rows(b, id, "/dev/shm/bench", floor_file, "", err);
	if (r == 0 && !b->quick) {
		char path[128];
		/* Memory for the page cache of what is next. */
		exec_path(path, id);
		r = bench_http_must(
		    &b->http, "POST", path, "{\"cmd\":\"rm\",\"args\":[\"/dev/shm/bench\"]}", err);
		snprintf(floor_file, sizeof(floor_file), "%s/floor-file",
		    b->dir[0] ? b->dir : "/var/tmp");
		r = r < 0 ? r : transfer_rows(b, id, "/var/tmp/bench", floor_file, "_disk", err);
	}
	int d = bench_delete(&b->http, id, r < 0 ? NULL : err);
	return r < 0 ? r : d;
}

/* ---- control_under_load ---- */

/* What a client of a load does until it is killed; it ends by itself only when it cannot. */
typedef void load_fn(const struct bench *b, const char *id, size_t client);

static void load_download(const struct bench *b, const char *id, size_t client)
{
	struct bench_http h;
	char path[256];
	uint64_t bytes;
	(void)client;
	snprintf(path, sizeof(path), "/v1/sandboxes/%s/files?path=/dev/shm/bench", id);
	if (bench_http_open(&h, b->url, b->key, NULL) < 0)
		return;
	while (bench_http_get(&h, path, &bytes, NULL) >= 0)
		;
}

/* Output of a program through WebSockets, in both modes. */
static void load_stream(const struct bench *b, const char *id, size_t client)
{
	AV_CLEANUP(av_buf_clear) struct av_buf first = AV_BUF_INIT(8192);
	bool text = client % 2;
	char last[16];
	for (;;) {
		struct bench_http h;
		uint64_t bytes;
		if (bench_stream_start(&h, b->url, b->key, id, text, &first, NULL) < 0 ||
		    bench_ws_send(&h, text, av_buf_str(&first), NULL) < 0 ||
		    bench_ws_count(&h, &bytes, last, sizeof(last), NULL) < 0)
			return;
		bench_http_close(&h);
	}
}

static int load_measure(
    struct bench *b, const char *id, load_fn *load, struct samples *s, struct av_err *err)
{
	char path[256];
	pid_t pids[CLIENTS];
	int r = 0;
	snprintf(path, sizeof(path), "/v1/sandboxes/%s", id);
	for (size_t i = 0; i < CLIENTS; i++) {
		pids[i] = fork();
		if (pids[i] == 0) {
			load(b, id, i);
			_exit(1);
		}
	}
	usleep(300000);
	for (size_t i = 0; r >= 0 && i < s->max; i++) {
		int64_t start = av_mono_ns();
		r = bench_http_must(&b->http, "GET", path, "", err);
		samples_add(s, ms_since(start));
		r = r < 0 ? r : interrupted(err);
		usleep(2000);
	}
	for (size_t i = 0; i < CLIENTS; i++)
		if (pids[i] > 0) {
			int status;
			/* One that ended by itself was no load. */
			if (waitpid(pids[i], &status, WNOHANG) == pids[i]) {
				r = av_err_set(
				    err, AV_ERR_INTERNAL, "a bulk stream ended before its time");
				continue;
			}
			kill(pids[i], SIGKILL);
			waitpid(pids[i], &status, 0);
		}
	return r < 0 ? r : 0;
}

static int load_both(struct bench *b, const char *id, struct samples *downloads,
    struct samples *streams, struct av_err *err)
{
	char file[256];
	snprintf(file, sizeof(file), "/v1/sandboxes/%s/files?path=/dev/shm/bench", id);
	int r = bench_http_put(&b->http, file, TRANSFER / 4, err);
	r = r < 0 ? r : bench_stream_prepare(b, id, err);
	r = r < 0 ? r : load_measure(b, id, load_download, downloads, err);
	return r < 0 ? r : load_measure(b, id, load_stream, streams, err);
}

int bench_row_load(struct bench *b, struct av_err *err)
{
	size_t n = b->quick ? 200 : 1500;
	char id[AV_ID_SIZE];
	struct samples s, t;
	int r = samples_init(&s, n, err);
	r = r < 0 ? r : samples_init(&t, n, err);
	if (r < 0)
		return r;
	r = bench_create(&b->http, TRANSFER_SHM, id, err);
	if (r < 0) {
		bench_skip(b, "control_under_load", "ms", "%s", err->message);
		samples_clear(&s);
		samples_clear(&t);
		return 0;
	}
	r = load_both(b, id, &s, &t, err);
	if (r == 0)
		bench_add(b, "control_under_load", "ms", s.n, samples_percentile(&s, 50),
		    samples_percentile(&s, 99), (double)NAN,
		    json_pack("{s:f, s:f, s:f}", "p95", samples_percentile(&s, 95), "streams_p50",
		        samples_percentile(&t, 50), "streams_p95", samples_percentile(&t, 95)));
	int d = bench_delete(&b->http, id, r < 0 ? NULL : err);
	samples_clear(&s);
	samples_clear(&t);
	return r < 0 ? r : d;
}
