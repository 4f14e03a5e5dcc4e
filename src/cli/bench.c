/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench.c - aviary bench: how fast and how small, beside what is physically possible here
 *
 * Measures over the real HTTP API of a daemon of its own (or that of --url). Beside each number
 * stands its floor: a program that makes the same system calls with nothing around them, run on the
 * same machine in the same minutes. The ratio of the two says how good Aviary is; the number alone
 * says how fast the machine is.
 */
#include "cli/bench.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysinfo.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "base/avtime.h"
#include "base/fd.h"
#include "base/json.h"
#include "cli/command.h"
#include "cli/table.h"

#include "base/banned.h"

#define KEY_SEC 3600 /* a key for a run ends then in any case */

static const struct row {
	const char *names; /* separated by spaces; what --rows selects */
	int (*measure)(struct bench *b, struct av_err *err);
} rows[] = {
    /* First, as later ones leave caches and slabs behind. */
    {"daemon_rss_mib agent_private_mib", bench_row_processes},
    {"create_first_byte_cold delete_gone", bench_row_create},
    {"create_first_byte_pool", bench_row_pool},
    {"create_internet", bench_row_internet},
    {"exec_true", bench_row_exec},
    {"sdk_exec_overhead", bench_row_sdk},
    {"run_code_first run_code_warm", bench_row_code},
    {"creates_per_second", bench_row_rate},
    {"upload_1gib download_1gib", bench_row_transfer},
    {"ws_stream_mb_s", bench_row_streams},
    {"control_under_load", bench_row_load},
    {"vm_create_first_byte vm_create_first_byte_pool vm_exec_true vm_pause vm_resume "
     "vm_fork_source_stopped vm_idle_memory_mib",
        bench_row_vm},
    {"peer_bwrap peer_runc peer_crun", bench_row_peers},
    {"idle_memory_mib metrics_sampling_1000", bench_row_idle},
};

/* What the numbers mean, for people. */
static const struct {
	const char *name, *meaning;
} meanings[] = {
    {"create_first_byte_cold", "POST create, then exec of a program: until its output is here"},
    {"create_first_byte_pool", "the same, when a sandbox of the pool is ready"},
    {"create_internet", "POST create with internet access, after the deletion of another"},
    {"metrics_sampling_1000", "of one CPU, to sample 1000 idle sandboxes (daemon and worker)"},
    {"delete_gone", "DELETE until process, cgroup, socket and directory are gone"},
    {"exec_true", "POST exec of 'true' in a running sandbox"},
    {"sdk_exec_overhead", "exec of 'true' by libaviary (floor: the same exchange by hand)"},
    {"run_code_first", "first run_code in a new sandbox, plain Python"},
    {"run_code_warm", "run_code of 1+1 in a kernel that is up"},
    {"creates_per_second", "create and delete, four clients at once (more is better)"},
    {"upload_1gib", "into /dev/shm of the sandbox"},
    {"upload_1gib_disk", "onto its disk (floor: dd there, inside)"},
    {"download_1gib", "from /dev/shm of the sandbox"},
    {"download_1gib_disk", "from its disk"},
    {"ws_stream_mb_s", "a program's output through a WebSocket, binary (more is better)"},
    {"control_under_load",
        "GET of a sandbox while four downloads run (streams_*: four WebSockets)"},
    {"idle_memory_mib", "whole system, for each of n idle sandboxes"},
    {"daemon_rss_mib", "aviaryd after start"},
    {"agent_private_mib", "one agent: anonymous memory and page tables"},
    {"vm_create_first_byte", "create of a virtual machine and exec (floor: QEMU's own restore)"},
    {"vm_create_first_byte_pool", "the same, when a machine of the pool is ready (floor: an exec)"},
    {"vm_exec_true", "POST exec of 'true' in a virtual machine"},
    {"vm_pause", "512 MiB, 50 MB of it touched, until its memory is on the disk"},
    {"vm_resume", "until a command has run again"},
    {"vm_fork_source_stopped", "how long the source of a fork stands still"},
    {"vm_idle_memory_mib", "private memory of an idle virtual machine"},
    {"peer_bwrap", "bwrap with all namespaces, until the first byte"},
    {"peer_runc", "runc run, until the first byte"},
    {"peer_crun", "crun run, until the first byte"},
};

/* ---- samples ---- */

int samples_init(struct samples *s, size_t max, struct av_err *err)
{
	*s = (struct samples){.v = calloc(max ? max : 1, sizeof(double)), .max = max};
	return s->v ? 0 : av_err_sys(err, AV_ERR_NO_MEMORY, ENOMEM, "samples");
}

void samples_clear(struct samples *s)
{
	free(s->v);
	*s = (struct samples){0};
}

void samples_add(struct samples *s, double value)
{
	if (s->n < s->max)
		s->v[s->n++] = value;
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return (x > y) - (x < y);
}

double samples_percentile(struct samples *s, double percent)
{
	if (s->n == 0)
		return (double)NAN;
	qsort(s->v, s->n, sizeof(double), compare);
	size_t i = (size_t)ceil(percent / 100 * (double)s->n);
	return s->v[i > 0 ? i - 1 : 0];
}

/* ---- results ---- */

static json_t *number(double v)
{
	return isnan(v) ? json_null() : json_real(v);
}

void bench_add(struct bench *b, const char *name, const char *unit, size_t n, double p50,
    double p99, double floor_p50, json_t *extra)
{
	double ratio =
	    isnan(floor_p50) || floor_p50 <= 0 || p50 <= 0 ? (double)NAN : p50 / floor_p50;
	json_t *row = json_pack("{s:s, s:s, s:I, s:o, s:o, s:o, s:o}", "name", name, "unit", unit,
	    "n", (json_int_t)n, "p50", number(p50), "p99", number(p99), "floor_p50",
	    number(floor_p50), "ratio", number(ratio));
	if (row && extra)
		json_object_update(row, extra);
	json_decref(extra);
	json_array_append_new(b->rows, row);
}

void bench_add_samples(struct bench *b, const char *name, const char *unit, struct samples *s,
    struct samples *floor_samples)
{
	bench_add(b, name, unit, s->n, samples_percentile(s, 50), samples_percentile(s, 99),
	    floor_samples ? samples_percentile(floor_samples, 50) : (double)NAN, NULL);
}

void bench_skip(struct bench *b, const char *name, const char *unit, const char *fmt, ...)
{
	char reason[300];
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(reason, sizeof(reason), fmt, ap);
	va_end(ap);
	json_t *row = json_pack("{s:s, s:s, s:i, s:n, s:n, s:n, s:n}", "name", name, "unit", unit,
	    "n", 0, "p50", "p99", "floor_p50", "ratio");
	json_object_set_new(row, "skipped", json_string(reason));
	json_array_append_new(b->rows, row);
}

void bench_say(const struct bench *b, const char *fmt, ...)
{
	if (!b->cli->err_is_tty)
		return;
	va_list ap;
	va_start(ap, fmt);
	fputs("\r\033[K", stderr);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fflush(stderr);
}

/* ---- the machine ---- */

/* The value of "key: value" in a file of /proc, or "". */
static void proc_value(const char *path, const char *key, char *ret, size_t size)
{
	char line[512];
	ret[0] = '\0';
	FILE *f = fopen(path, "re");
	while (f && fgets(line, sizeof(line), f)) {
		if (strncmp(line, key, strlen(key)) != 0)
			continue;
		struct av_str rest = av_str_c(line), head;
		if (!av_str_cut(&rest, strchr(line, ':') ? ':' : '=', &head))
			continue;
		while (rest.n > 0 && strchr("\n\"", rest.p[rest.n - 1]))
			rest.n--;
		while (rest.n > 0 && strchr(" \t\"", rest.p[0]))
			rest.p++, rest.n--;
		if (av_str_copy(ret, size, rest) < 0)
			ret[0] = '\0';
		break;
	}
	if (f)
		fclose(f);
}

static json_t *machine(struct bench *b)
{
	AV_CLEANUP(av_json_decrefp) json_t *ready = NULL;
	struct utsname u;
	char model[256], os[256], when[32];
	if (uname(&u) < 0)
		return json_object();
	proc_value("/proc/cpuinfo", "model name", model, sizeof(model));
	proc_value("/etc/os-release", "PRETTY_NAME", os, sizeof(os));
	av_rfc3339_ms(av_real_ms(), when);
	struct sysinfo si;
	double mib = sysinfo(&si) == 0 ? (double)si.totalram * si.mem_unit / (double)AV_MIB : 0;
	if (bench_http_call(&b->http, "GET", "/ready", "", NULL) == 200)
		ready = av_json_parse_object(av_buf_str(&b->http.body), NULL);
	const char *isolation = json_string_value(json_object_get(ready, "isolation"));
	const char *detail = json_string_value(json_object_get(ready, "detail"));
	return json_pack("{s:s, s:s, s:s, s:i, s:s, s:i, s:s, s:s?, s:s?, s:b, s:s}", "kernel",
	    u.release, "arch", u.machine, "cpu", model, "cpus", get_nprocs(), "os", os,
	    "memory_mib", (int)mib, "aviary", AVIARY_VERSION, "isolation", isolation, "detail",
	    detail, "root", geteuid() == 0, "time", when);
}

/* ---- printing ---- */

static const char *meaning_of(const char *name)
{
	for (size_t i = 0; i < AV_ARRAY_LEN(meanings); i++)
		if (strcmp(meanings[i].name, name) == 0)
			return meanings[i].meaning;
	return "";
}

static void cell_number(struct table *t, const json_t *v)
{
	double x = json_number_value(v);
	if (!json_is_number(v))
		table_cell(t, "-");
	else
		table_cell(t, x >= 100 ? "%.0f" : x >= 10 ? "%.1f" : x >= 1 ? "%.2f" : "%.3f", x);
}

static void print_table(const struct cli *cli, const json_t *result)
{
	static const char *const titles[] = {
	    "ROW", "N", "P50", "P99", "UNIT", "FLOOR", "RATIO", "MEANING"};
	const json_t *m = json_object_get(result, "machine"), *row;
	size_t i;
	struct table t;
	printf("%s, %d CPUs (%s), %d MiB, Linux %s\n\n",
	    json_string_value(json_object_get(m, "os")),
	    (int)json_integer_value(json_object_get(m, "cpus")),
	    json_string_value(json_object_get(m, "cpu")),
	    (int)json_integer_value(json_object_get(m, "memory_mib")),
	    json_string_value(json_object_get(m, "kernel")));
	table_init(&t, AV_ARRAY_LEN(titles), titles);
	t.right[1] = t.right[2] = t.right[3] = t.right[5] = t.right[6] = true;
	json_array_foreach (json_object_get(result, "rows"), i, row) {
		const char *name = json_string_value(json_object_get(row, "name"));
		const char *skipped = json_string_value(json_object_get(row, "skipped"));
		table_cell(&t, "%s", name);
		table_cell(&t, "%lld", (long long)json_integer_value(json_object_get(row, "n")));
		cell_number(&t, json_object_get(row, "p50"));
		cell_number(&t, json_object_get(row, "p99"));
		table_cell(&t, "%s", json_string_value(json_object_get(row, "unit")));
		cell_number(&t, json_object_get(row, "floor_p50"));
		cell_number(&t, json_object_get(row, "ratio"));
		if (skipped)
			table_cell(&t, "skipped: %s", skipped);
		else
			table_cell(&t, "%s", meaning_of(name));
	}
	table_print(&t, cli_bold(cli), cli_plain(cli));
	printf("\nFLOOR is the same work done by a program with nothing around it, in this run; "
	       "RATIO = P50 / FLOOR.\n");
}

static int write_file(const struct cli *cli, const char *path, const json_t *result)
{
	if (json_dump_file(result, path, JSON_INDENT(1) | JSON_REAL_PRECISION(6)) == 0)
		return 0;
	struct av_err err;
	av_err_sys(&err, AV_ERR_INTERNAL, errno, "cannot write");
	return cli_fail(cli, &err, path);
}

/* ---- running ---- */

/* True when one of the row's names is in the list "a,b" (NULL: all). */
static bool is_wanted(const struct row *row, const char *list)
{
	struct av_str rest = av_str_c(list), one;
	bool more = list != NULL;
	while (more) {
		more = av_str_cut(&rest, ',', &one);
		struct av_str names = av_str_c(row->names), name;
		bool another = true;
		while (another) {
			another = av_str_cut(&names, ' ', &name);
			if (av_str_eq(name, one))
				return true;
		}
	}
	return !list;
}

/* Every name must be one. */
static bool check_rows(const struct cli *cli, const char *list, int *ret_status)
{
	struct av_str rest = av_str_c(list), one;
	bool more = list != NULL;
	while (more) {
		char name[64];
		bool known = false;
		more = av_str_cut(&rest, ',', &one);
		if (av_str_copy(name, sizeof(name), one) == 0)
			for (size_t i = 0; i < AV_ARRAY_LEN(rows); i++)
				known = known || is_wanted(&rows[i], name);
		if (!known) {
			*ret_status =
			    cli_usage_error(cli, "there is no row '%.*s'", AV_STR_ARG(one));
			return false;
		}
	}
	return true;
}

static void find_floors(struct bench *b)
{
	const struct {
		const char *name;
		char *path;
	} programs[] = {
	    {"floor_jail", b->floor_jail},
	    {"floor_http", b->floor_http},
	    {"floor_ws", b->floor_ws},
	    {"floor_child", b->floor_child},
	    {"floor_vm", b->floor_vm},
	};
	for (size_t i = 0; i < AV_ARRAY_LEN(programs); i++)
		if (cli_find_program(programs[i].name, "../tests/bench", programs[i].path,
		        sizeof(b->floor_jail)) < 0)
			programs[i].path[0] = '\0';
}

static int measure(struct bench *b, const char *list, struct av_err *err)
{
	int r = bench_http_open(&b->http, b->url, b->key, err);
	for (size_t i = 0; r == 0 && i < AV_ARRAY_LEN(rows); i++) {
		if (!is_wanted(&rows[i], list))
			continue;
		bench_say(b, "measuring %s …", rows[i].names);
		r = cli_caught_signal() ? av_err_set(err, AV_ERR_CANCELED, "interrupted")
		                        : rows[i].measure(b, err);
		if (r < 0)
			av_err_prefix(err, "%s", rows[i].names);
	}
	bench_say(b, "%s", "");
	return r;
}

/* --url: an existing daemon, and a key for this run, as the library keeps the user's to itself. */
static int use_daemon(struct bench *b)
{
	AV_CLEANUP(av_json_decrefp) json_t *made = NULL;
	AV_CLEANUP(av_json_decrefp)
	json_t *body = json_pack("{s:s, s:i}", "name", "aviary bench", "expires_in_sec", KEY_SEC);
	struct av_err err = {0};
	int status = cli_connect(b->cli);

	if (status)
		return status;
	if (cli_call(b->cli, "POST", body, &made, &err, "/v1/api-keys") < 0)
		return cli_fail(b->cli, &err, "a key to measure with");
	(void)snprintf(b->key_id, sizeof(b->key_id), "%s", cli_text(made, "id"));
	(void)snprintf(b->key_buf, sizeof(b->key_buf), "%s", cli_text(made, "key"));
	b->url = b->cli->url;
	b->key = b->key_buf;
	return 0;
}

static void remove_key(struct bench *b)
{
	struct av_err err = {0};

	explicit_bzero(b->key_buf, sizeof(b->key_buf));
	if (!b->key_id[0])
		return;
	cli_hold_signals();
	if (cli_call(b->cli, "DELETE", NULL, NULL, &err, "/v1/api-keys/%s", b->key_id) < 0)
		cli_warn("the API key %s is left behind: %s", b->key_id, err.message);
	cli_unhold_signals();
}

static int run_rows(struct bench *b, const char *list, json_t **ret)
{
	struct av_err err = {0};
	int status = 0;
	cli_catch_signals();
	if (args_text(b->cli->args, "url"))
		status = use_daemon(b);
	else if (bench_daemon_start(b, &err) < 0)
		status = cli_fail(b->cli, &err, NULL);
	if (status == 0 && measure(b, list, &err) < 0)
		status = cli_fail(b->cli, &err, "bench");
	if (status == 0)
		*ret = json_pack("{s:o, s:O}", "machine", machine(b), "rows", b->rows);
	bench_http_close(&b->http);
	remove_key(b);
	bench_daemon_stop(b);
	return status;
}

static int run(struct cli *cli, const struct args *args)
{
	static struct bench bench; /* large */
	struct bench *b = &bench;
	AV_CLEANUP(av_json_decrefp) json_t *result = NULL;
	const char *list = args_text(args, "rows"), *output = args_text(args, "output");
	int status = 0;
	if (!check_rows(cli, list, &status))
		return status;
	*b = (struct bench){.cli = cli,
	    .quick = args_flag(args, "quick"),
	    .rows = json_array(),
	    .http = {.fd = -1}};
	find_floors(b);
	status = run_rows(b, list, &result);
	json_decref(b->rows);
	if (status)
		return status;
	if (output && (status = write_file(cli, output, result)) != 0)
		return status;
	if (cli->json) {
		json_dumpf(result, stdout, JSON_INDENT(1) | JSON_REAL_PRECISION(6));
		putchar('\n');
	} else {
		print_table(cli, result);
	}
	return 0;
}

static const struct option_spec options[] = {
    {"quick", 0, OPTION_FLAG, NULL, "fewer samples, no rows that take minutes", COMPLETE_NONE},
    {"rows", 0, OPTION_TEXT, "NAME,…", "only these rows", COMPLETE_NONE},
    {"output", 'o', OPTION_TEXT, "FILE", "write the JSON to FILE too", COMPLETE_FILES},
    {NULL, 0, OPTION_FLAG, NULL, NULL, COMPLETE_NONE},
};

static const char *const examples[] = {
    "aviary bench --quick\ta first impression in half a minute",
    "aviary bench --json --rows exec_true,create_first_byte_cold\ttwo rows for a script",
    NULL,
};

const struct command command_bench = {
    .name = "bench",
    .usage = "",
    .summary = "measure how fast and how small, beside what is possible here",
    .description = "Starts a daemon of its own, with state of its own that is removed afterwards, "
                   "measures over its API, and prints each number beside its floor: the same "
                   "system calls made "
                   "by a program with nothing around them. With --url it measures a daemon that "
                   "runs, as far as "
                   "that can be done from outside.",
    .examples = examples,
    .options = options,
    .run = run,
};
