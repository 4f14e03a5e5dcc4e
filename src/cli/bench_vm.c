/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench_vm.c - sandboxes with a kernel of their own, beside a plain QEMU that goes on from the same
 * saved guest
 *
 * With a daemon of its own and a small template (busybox), so that neither waits for the other
 * rows. The floor (tests/bench/floor_vm.py) restores what the sandboxes here are restored from, by
 * the very command line of one of their QEMUs. For the pool the daemon is started again with one.
 */
#include "cli/bench.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/avtime.h"
#include "base/fd.h"
#include "base/json.h"

#include "base/banned.h"

#define TOUCHED_BYTES (50000000 / (1 << 20) * (1 << 20) + (1 << 20)) /* 50 MB in whole MiB */
#define SHAPE         "\"isolation\":\"vm\",\"template\":\"vm-bench\",\"memory_mb\":512"
#define SETUP_MS      (10 * 60 * 1000)
#define FLOOR_MS      (5 * 60 * 1000)
#define READY_MS      60000
#define SETTLE_US     500000
#define REPORTS_US    4000000 /* a guest gives memory back two seconds after it was freed */
#define LINE_MAX_SIZE ((size_t)64 * 1024)

static const char *const row_names[] = {"vm_create_first_byte", "vm_create_first_byte_pool",
    "vm_exec_true", "vm_pause", "vm_resume", "vm_fork_source_stopped", "vm_idle_memory_mib"};

/* All of a run. */
struct vm_bench {
	struct bench *own;            /* with the daemon */
	char id[AV_ID_SIZE];          /* of a machine that idles, and is what the floor looks at */
	char line[LINE_MAX_SIZE];     /* of the floor */
	json_t *floor;                /* owned; NULL: there is none */
	struct samples first, create; /* reused */
	struct samples parts[5];
};

static const char *const part_names[] = {
    "qemu_ms", "load_ms", "hello_ms", "confirm_ms", "total_ms"};

static double ms_since(int64_t start_ns)
{
	return (double)(av_mono_ns() - start_ns) / (double)AV_NS_PER_MS;
}

static int interrupted(struct av_err *err)
{
	return cli_caught_signal() ? av_err_set(err, AV_ERR_CANCELED, "interrupted") : 0;
}

/* A daemon closes what was silent for long, and a new one knows none. */
static int reopen(struct bench *b, struct av_err *err)
{
	bench_http_close(&b->http);
	return bench_http_open(&b->http, b->url, b->key, err);
}

static int post(
    struct bench *b, const char *id, const char *what, const char *json, struct av_err *err)
{
	char path[128];
	int r;

	snprintf(path, sizeof(path), "/v1/sandboxes/%s/%s", id, what);
	r = bench_http_must(&b->http, "POST", path, json, err);
	return r < 0 ? r : 0;
}

static int touch(struct bench *b, const char *id, struct av_err *err)
{
	char json[256];

	snprintf(json, sizeof(json),
	    "{\"cmd\":\"/bin/sh\",\"args\":[\"-c\",\"head -c %d /dev/urandom > "
	    "/dev/shm/touched\"],\"user\":\"root\"}",
	    TOUCHED_BYTES);
	return post(b, id, "exec", json, err);
}

/* ---- the floor's program ---- */

/* Runs it with these arguments; its one object, or NULL with the reason. */
static json_t *floor_run(struct vm_bench *v, const char *const *argv, char *reason, size_t size)
{
	struct bench_child c;
	struct av_err err = {0};
	json_t *o = NULL;

	snprintf(reason, size, "%s printed nothing", argv[0]);
	if (bench_child_start(&c, argv, &err) < 0) {
		snprintf(reason, size, "%.280s", err.message);
		return NULL;
	}
	if (bench_child_line(&c, v->line, sizeof(v->line), FLOOR_MS) == 0) {
		o = av_json_parse_object(av_str_c(v->line), NULL);
		(void)bench_child_wait(&c);
	} else {
		bench_child_stop(&c);
	}
	if (json_object_get(o, "error")) {
		snprintf(reason, size, "%s", json_string_value(json_object_get(o, "error")));
		json_decref(o);
		o = NULL;
	}
	return o;
}

/* What the machine's aviary-vm says of itself; NULL where it cannot be asked. */
static json_t *status_of(struct vm_bench *v, const char *id)
{
	char path[400], reason[300];

	if (!v->own->floor_vm[0] ||
	    snprintf(path, sizeof(path), "%s/%s/vm.sock", v->own->run, id) >= (int)sizeof(path))
		return NULL;
	const char *argv[] = {v->own->floor_vm, "--status", path, NULL};
	return floor_run(v, argv, reason, sizeof(reason));
}

static void measure_floor(struct vm_bench *v)
{
	char pid[16], count[16], bytes[16], dir[300], reason[300];
	pid_t vm = bench_find_process("aviary-vm", v->id, v->id);

	snprintf(pid, sizeof(pid), "%d", (int)vm);
	snprintf(count, sizeof(count), "%d", v->own->quick ? 5 : 20);
	snprintf(bytes, sizeof(bytes), "%d", TOUCHED_BYTES);
	snprintf(dir, sizeof(dir), "%s/floor", v->own->dir);
	const char *argv[] = {v->own->floor_vm, pid, count, bytes, dir, NULL};
	if (!v->own->floor_vm[0] || !vm || mkdir(dir, 0700) < 0)
		return;
	v->floor = floor_run(v, argv, reason, sizeof(reason));
	if (!v->floor)
		cli_warn("no floor for virtual machines: %s", reason);
}

/* Median of a list of the floor's; NAN without it. */
static double floor_p50(const struct vm_bench *v, const char *name)
{
	const json_t *list = json_object_get(v->floor, name), *x;
	double p50 = (double)NAN;
	struct samples s;
	size_t i;

	if (json_array_size(list) == 0 || samples_init(&s, json_array_size(list), NULL) < 0)
		return p50;
	json_array_foreach (list, i, x)
		samples_add(&s, json_number_value(x));
	p50 = samples_percentile(&s, 50);
	samples_clear(&s);
	return p50;
}

/* ---- what machines need ---- */

/* A template of busybox, and a kernel: one that is unpacked already, or Debian's by its recipe. */
static const char setup_script[] =
    "set -e\n"
    "A=$1 D=$2 U=$3\n"
    "K=${AVIARY_GUEST_KERNEL:-$AVIARY_TEST_KERNEL}\n"
    "export AVIARY_CONFIG_DIR=\"$D/config\" AVIARY_URL=\"$U\"\n"
    "unset AVIARY_API_KEY\n"
    "for t in qemu-system-x86_64 mkfs.erofs mke2fs busybox; do\n"
    "	PATH=$PATH:/sbin:/usr/sbin command -v $t >/dev/null || { echo \"$t is not "
    "installed\"; exit 1; }\n"
    "done\n"
    "R=$D/root; mkdir -p $R/bin $R/etc $R/root $R/tmp $R/var $R/home/user; chmod 1777 $R/tmp\n"
    "cp \"$(command -v busybox)\" $R/bin/busybox\n"
    "for t in sh true echo cat head sleep chmod rm ls; do ln -s busybox $R/bin/$t; done\n"
    "printf 'root:x:0:0:root:/root:/bin/sh\\nuser:x:1000:1000::/home/user:/bin/sh\\n' "
    ">$R/etc/passwd\n"
    "printf 'root:x:0:\\nuser:x:1000:\\n' >$R/etc/group; echo bench >$R/etc/hostname\n"
    "tar -C $R -cf $D/root.tar .\n"
    "\"$A\" template import vm-bench $D/root.tar 2>&1\n"
    "if [ -n \"$K\" ]; then\n"
    "	export AVIARY_TEMPLATES=$D/recipes BENCH_KERNEL=\"$K\"; mkdir -p $D/recipes/vm-kernel\n"
    "	printf '#!/bin/sh\\nexec tar -C \"$BENCH_KERNEL\" -cf - ./boot ./lib\\n' "
    ">$D/recipes/vm-kernel/build\n"
    "	chmod 755 $D/recipes/vm-kernel/build\n"
    "fi\n"
    "\"$A\" template build vm-kernel 2>&1\n";

static int setup(const struct bench *b, char *reason, size_t size)
{
	char program[4096], line[300];
	struct bench_child c;
	struct av_err err = {0};
	ssize_t n = readlink("/proc/self/exe", program, sizeof(program) - 1);
	int r;

	if (n < 0)
		return -errno;
	program[n] = '\0';
	const char *argv[] = {"/bin/sh", "-c", setup_script, "sh", program, b->dir, b->url, NULL};
	r = bench_child_start(&c, argv, &err);
	if (r < 0) {
		snprintf(reason, size, "%.280s", err.message);
		return r;
	}
	while ((r = bench_child_line(&c, line, sizeof(line), SETUP_MS)) == 0)
		snprintf(reason, size, "%.280s", line);
	if (r != -EPIPE) {
		bench_child_stop(&c);
		return r;
	}
	return bench_child_wait(&c) == 0 ? 0 : -EIO;
}

/* ---- vm_create_first_byte, vm_create_first_byte_pool ---- */

static int create_once(struct vm_bench *v, struct av_err *err)
{
	struct bench *b = v->own;
	char id[AV_ID_SIZE];
	int64_t start = av_mono_ns();
	int r = bench_create(&b->http, SHAPE, id, err);

	if (r < 0)
		return r;
	samples_add(&v->create, ms_since(start));
	r = post(b, id, "exec", "{\"cmd\":\"/bin/echo\",\"args\":[\"x\"]}", err);
	if (r < 0)
		return r;
	samples_add(&v->first, ms_since(start));
	AV_CLEANUP(av_json_decrefp) json_t *st = status_of(v, id);
	for (size_t i = 0; st && i < AV_ARRAY_LEN(part_names); i++)
		samples_add(&v->parts[i], json_number_value(json_object_get(st, part_names[i])));
	r = bench_delete(&b->http, id, err);
	usleep(SETTLE_US / 5); /* what is taken down does not count for the next */
	return r < 0 ? r : interrupted(err);
}

static void reset(struct vm_bench *v)
{
	v->first.n = v->create.n = 0;
	for (size_t i = 0; i < AV_ARRAY_LEN(v->parts); i++)
		v->parts[i].n = 0;
}

/* The parts that aviary-vm and the floor say. */
static json_t *create_extra(struct vm_bench *v)
{
	json_t *o = json_pack("{s:f, s:f}", "create_p50", samples_percentile(&v->create, 50),
	    "create_p99", samples_percentile(&v->create, 99));

	for (size_t i = 0; o && i < AV_ARRAY_LEN(v->parts); i++)
		if (v->parts[i].n)
			json_object_set_new(
			    o, part_names[i], json_real(samples_percentile(&v->parts[i], 50)));
	return o;
}

static int measure_create(struct bench *b, struct vm_bench *v, struct av_err *err)
{
	size_t n = b->quick ? 5 : 30, warm_up = 2;
	int r = 0;

	reset(v);
	for (size_t i = 0; r == 0 && i < n + warm_up; i++) {
		if (i == warm_up)
			reset(v);
		r = create_once(v, err);
	}
	if (r < 0)
		return r;
	measure_floor(v);
	r = reopen(v->own, err);
	if (r < 0)
		return r;
	json_t *extra = create_extra(v);
	if (extra && v->floor) {
		json_object_set_new(extra, "floor_qemu_ms", json_real(floor_p50(v, "qemu")));
		json_object_set_new(extra, "floor_hello_ms", json_real(floor_p50(v, "hello")));
	}
	bench_add(b, "vm_create_first_byte", "ms", v->first.n, samples_percentile(&v->first, 50),
	    samples_percentile(&v->first, 99), floor_p50(v, "first_byte"), extra);
	return 0;
}

static int measure_pool(struct bench *b, struct vm_bench *v, struct av_err *err)
{
	size_t n = b->quick ? 5 : 20, warm_up = 3; /* which a pool learns from */
	int r;

	v->own->vm_pool = "1";
	r = bench_daemon_restart(v->own, err);
	r = r < 0 ? r : reopen(v->own, err);
	reset(v);
	for (size_t i = 0; r == 0 && i < n + warm_up; i++) {
		if (i >= warm_up)
			r = bench_pool_wait(v->own, READY_MS, err);
		usleep(SETTLE_US);
		if (i == warm_up)
			reset(v);
		r = r < 0 ? r : create_once(v, err);
	}
	if (r == 0)
		bench_add(b, "vm_create_first_byte_pool", "ms", v->first.n,
		    samples_percentile(&v->first, 50), samples_percentile(&v->first, 99),
		    floor_p50(v, "exec"), create_extra(v));
	return r;
}

/* ---- vm_exec_true ---- */

static int measure_exec(struct bench *b, struct vm_bench *v, struct av_err *err)
{
	size_t n = b->quick ? 50 : 300, warm_up = 20;
	struct samples s;
	int r = samples_init(&s, n, err);

	for (size_t i = 0; r == 0 && i < n + warm_up; i++) {
		int64_t start = av_mono_ns();

		r = post(v->own, v->id, "exec", "{\"cmd\":\"true\"}", err);
		if (i >= warm_up)
			samples_add(&s, ms_since(start));
		r = r < 0 ? r : interrupted(err);
	}
	if (r == 0)
		bench_add(b, "vm_exec_true", "ms", s.n, samples_percentile(&s, 50),
		    samples_percentile(&s, 99), floor_p50(v, "exec"), NULL);
	samples_clear(&s);
	return r;
}

/* ---- vm_pause, vm_resume ---- */

static int pause_once(
    struct vm_bench *v, struct samples *paused, struct samples *resumed, struct av_err *err)
{
	int r = touch(v->own, v->id, err);
	int64_t start = av_mono_ns();

	r = r < 0 ? r : post(v->own, v->id, "pause", "", err);
	samples_add(paused, ms_since(start));
	if (r < 0)
		return r;
	start = av_mono_ns();
	r = post(v->own, v->id, "resume", "", err);
	samples_add(&v->create, ms_since(start));
	r = r < 0 ? r : post(v->own, v->id, "exec", "{\"cmd\":\"true\"}", err);
	samples_add(resumed, ms_since(start));
	return r < 0 ? r : interrupted(err);
}

static int measure_pause(struct bench *b, struct vm_bench *v, struct av_err *err)
{
	size_t n = b->quick ? 3 : 10;
	struct samples paused = {0}, resumed = {0};
	int r = samples_init(&paused, n, err);

	reset(v);
	r = r < 0 ? r : samples_init(&resumed, n, err);
	for (size_t i = 0; r == 0 && i <= n; i++) {
		if (i == 1) /* the first is warm-up */
			paused.n = resumed.n = v->create.n = 0;
		r = pause_once(v, &paused, &resumed, err);
	}
	if (r == 0) {
		bench_add(b, "vm_pause", "ms", paused.n, samples_percentile(&paused, 50),
		    samples_percentile(&paused, 99), floor_p50(v, "pause"),
		    json_pack("{s:i}", "touched_mb", TOUCHED_BYTES / 1000000));
		bench_add(b, "vm_resume", "ms", resumed.n, samples_percentile(&resumed, 50),
		    samples_percentile(&resumed, 99), floor_p50(v, "first_byte"),
		    json_pack("{s:f}", "resume_p50", samples_percentile(&v->create, 50)));
	}
	samples_clear(&paused);
	samples_clear(&resumed);
	return r;
}

/* ---- vm_fork_source_stopped ---- */

/* Seconds and count of what a histogram of /metrics has seen. */
static int stopped_so_far(struct bench *b, double *ret_s, double *ret_n, struct av_err *err)
{
	static const char *const lines[] = {
	    "aviary_operation_duration_seconds_sum{operation=\"snapshot_stopped\"} ",
	    "aviary_operation_duration_seconds_count{operation=\"snapshot_stopped\"} "};
	double v[2] = {0};
	int r = bench_http_must(&b->http, "GET", "/metrics", "", err);
	const char *text = r < 0 ? NULL : av_buf_cstr(&b->http.body);

	if (r < 0)
		return r;
	for (int i = 0; i < 2; i++) {
		const char *at = text ? strstr(text, lines[i]) : NULL;

		v[i] = at ? strtod(at + strlen(lines[i]), NULL) : 0;
	}
	*ret_s = v[0];
	*ret_n = v[1];
	return 0;
}

static int fork_once(
    struct vm_bench *v, struct samples *stopped, struct samples *forked, struct av_err *err)
{
	struct bench *b = v->own;
	AV_CLEANUP(av_json_decrefp) json_t *made = NULL;
	double s[2], n[2];
	size_t i;
	const json_t *one;
	int r = touch(b, v->id, err);

	r = r < 0 ? r : stopped_so_far(b, &s[0], &n[0], err);
	int64_t start = av_mono_ns();
	r = r < 0 ? r : post(b, v->id, "fork", "{\"count\":1}", err);
	if (r < 0)
		return r;
	samples_add(forked, ms_since(start));
	made = json_loadb(
	    (const char *)av_buf_str(&b->http.body).p, av_buf_str(&b->http.body).n, 0, NULL);
	r = stopped_so_far(b, &s[1], &n[1], err);
	if (r == 0 && n[1] > n[0])
		samples_add(stopped, (s[1] - s[0]) / (n[1] - n[0]) * 1e3);
	json_array_foreach (made, i, one) {
		const char *id =
		    json_string_value(json_object_get(json_object_get(one, "sandbox"), "id"));

		if (r == 0 && !id)
			r = av_err_set(err, AV_ERR_INTERNAL, "a copy of a fork was not made");
		if (id && bench_delete(&b->http, id, r < 0 ? NULL : err) < 0)
			r = -EIO;
	}
	usleep(SETTLE_US);
	return r < 0 ? r : interrupted(err);
}

static int measure_fork(struct bench *b, struct vm_bench *v, struct av_err *err)
{
	size_t n = b->quick ? 3 : 10;
	struct samples stopped = {0}, forked = {0};
	int r = samples_init(&stopped, n, err);

	r = r < 0 ? r : samples_init(&forked, n, err);
	for (size_t i = 0; r == 0 && i <= n; i++) {
		if (i == 1)
			stopped.n = forked.n = 0;
		r = fork_once(v, &stopped, &forked, err);
	}
	if (r == 0 && stopped.n)
		bench_add(b, "vm_fork_source_stopped", "ms", stopped.n,
		    samples_percentile(&stopped, 50), samples_percentile(&stopped, 99),
		    floor_p50(v, "stopped"),
		    json_pack("{s:f, s:i}", "fork_p50", samples_percentile(&forked, 50),
		        "touched_mb", TOUCHED_BYTES / 1000000));
	else if (r == 0)
		bench_skip(b, "vm_fork_source_stopped", "ms", "the daemon does not say it");
	samples_clear(&stopped);
	samples_clear(&forked);
	return r;
}

/* ---- vm_idle_memory_mib ---- */

static void add_field(json_t *o, const char *name, const json_t *st, const char *from)
{
	const json_t *x = json_object_get(st, from);

	if (x)
		json_object_set_new(o, name, json_real(json_number_value(x)));
}

/* Of a fresh machine that ran one command, when it has given back what it freed. */
static int measure_idle(struct bench *b, struct vm_bench *v, struct av_err *err)
{
	char pid[16], reason[300], id[AV_ID_SIZE];
	int r = bench_create(&v->own->http, SHAPE, id, err);

	r = r < 0 ? r : post(v->own, id, "exec", "{\"cmd\":\"true\"}", err);
	if (r < 0)
		return r;
	usleep(REPORTS_US);
	snprintf(pid, sizeof(pid), "%d", (int)bench_find_process("aviary-vm", id, id));
	const char *argv[] = {v->own->floor_vm, "--memory", pid, NULL};
	AV_CLEANUP(av_json_decrefp)
	json_t *o = v->own->floor_vm[0] ? floor_run(v, argv, reason, sizeof(reason)) : NULL;
	double total = json_number_value(json_object_get(o, "total_mib"));
	if (!o) {
		bench_skip(b, "vm_idle_memory_mib", "MiB", "%s",
		    v->own->floor_vm[0] ? reason : "floor_vm is not there");
	} else {
		json_t *extra = json_object();

		add_field(extra, "guest_mib", o, "guest_mib");
		add_field(extra, "qemu_heap_mib", o, "qemu_heap_mib");
		add_field(extra, "qemu_code_mib", o, "qemu_code_mib");
		add_field(extra, "qemu_other_mib", o, "qemu_other_mib");
		add_field(extra, "aviary_vm_mib", o, "aviary_vm_mib");
		add_field(extra, "page_tables_mib", o, "page_tables_mib");
		bench_add(b, "vm_idle_memory_mib", "MiB", 1, total, (double)NAN,
		    floor_p50(v, "memory"), extra);
	}
	return bench_delete(&v->own->http, id, err);
}

/* ---- all ---- */

static int measure(struct bench *b, struct vm_bench *v, struct av_err *err)
{
	int r = bench_create(&v->own->http, SHAPE ",\"timeout_sec\":3600", v->id, err);

	r = r < 0 ? r : post(v->own, v->id, "exec", "{\"cmd\":\"true\"}", err);
	if (r < 0) {
		for (size_t i = 0; i < AV_ARRAY_LEN(row_names); i++)
			bench_skip(b, row_names[i], "ms", "%s", err->message);
		return 0;
	}
	bench_say(b, "measuring vm_create_first_byte …");
	r = measure_create(b, v, err);
	r = r < 0 ? r : measure_exec(b, v, err);
	bench_say(b, "measuring vm_pause …");
	r = r < 0 ? r : measure_pause(b, v, err);
	bench_say(b, "measuring vm_fork_source_stopped …");
	r = r < 0 ? r : measure_fork(b, v, err);
	bench_say(b, "measuring vm_idle_memory_mib …");
	r = r < 0 ? r : measure_idle(b, v, err);
	r = r < 0 ? r : bench_delete(&v->own->http, v->id, err);
	bench_say(b, "measuring vm_create_first_byte_pool …");
	return r < 0 ? r : measure_pool(b, v, err);
}

static int samples_of(struct vm_bench *v, struct av_err *err)
{
	int r = samples_init(&v->first, 64, err);

	r = r < 0 ? r : samples_init(&v->create, 64, err);
	for (size_t i = 0; r == 0 && i < AV_ARRAY_LEN(v->parts); i++)
		r = samples_init(&v->parts[i], 64, err);
	return r;
}

static int with_daemon(struct bench *b, struct vm_bench *v, struct av_err *err)
{
	char reason[300] = "";
	int r = bench_daemon_start(v->own, err);

	if (r < 0)
		return r;
	bench_say(b, "preparing a template and a kernel for virtual machines …");
	if (setup(v->own, reason, sizeof(reason)) == 0) {
		r = reopen(v->own, err);
		return r < 0 ? r : measure(b, v, err);
	}
	for (size_t i = 0; i < AV_ARRAY_LEN(row_names); i++)
		bench_skip(b, row_names[i], "ms", "%s", reason);
	return interrupted(err);
}

int bench_row_vm(struct bench *b, struct av_err *err)
{
	struct vm_bench *v;
	int r;

	if (!b->dir[0]) {
		for (size_t i = 0; i < AV_ARRAY_LEN(row_names); i++)
			bench_skip(b, row_names[i], "ms", "needs a daemon of its own");
		return 0;
	}
	v = calloc(1, sizeof(*v));
	if (v)
		v->own = calloc(1, sizeof(*v->own));
	if (!v || !v->own) {
		free(v);
		return av_err_set(err, AV_ERR_NO_MEMORY, "out of memory");
	}
	v->own->cli = b->cli;
	v->own->quick = b->quick;
	v->own->http.fd = -1;
	memcpy(v->own->floor_vm, b->floor_vm, sizeof(b->floor_vm));
	r = samples_of(v, err);
	r = r < 0 ? r : with_daemon(b, v, err);
	bench_http_close(&v->own->http);
	bench_daemon_stop(v->own);
	samples_clear(&v->first);
	samples_clear(&v->create);
	for (size_t i = 0; i < AV_ARRAY_LEN(v->parts); i++)
		samples_clear(&v->parts[i]);
	json_decref(v->floor);
	free(v->own);
	free(v);
	if (r < 0)
		return r;
	return reopen(b, err);
}
