/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench_memory.c - how much memory it takes
 *
 * The memory of a sandbox is what the whole system uses more, divided by the number of sandboxes:
 * all that is neither free nor cache that the kernel can drop. It counts page tables, slab, network
 * namespaces and cgroups, which no process shows.
 * Small numbers of sandboxes drown in the noise of the machine; the row with the largest n is the
 * one to believe.
 */
#include "cli/bench.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/num.h"

#include "base/banned.h"

#define SETTLE_US 700000
enum { STABLE_TRIES = 10, STABLE_TIMES = 3 };
#define STABLE_MIB 0.25

/* "Key:   123 kB" of a file, in KiB; NAN when it is not there. */
static double kib_of(const char *path, const char *key)
{
	char line[256];
	double v = (double)NAN;
	FILE *f = fopen(path, "re");
	while (f && fgets(line, sizeof(line), f)) {
		size_t n = strlen(key);
		if (strncmp(line, key, n) == 0 && line[n] == ':') {
			v = strtod(line + n + 1, NULL);
			break;
		}
	}
	if (f)
		fclose(f);
	return v;
}

static double used_mib_now(void)
{
	static const char *const droppable[] = {"MemFree", "Buffers", "Cached", "SReclaimable"};
	const char *path = "/proc/meminfo";
	double kib = kib_of(path, "MemTotal") + kib_of(path, "Shmem"); /* which Cached contains */
	for (size_t i = 0; i < AV_ARRAY_LEN(droppable); i++)
		kib -= kib_of(path, droppable[i]);
	return kib / 1024;
}

/* The kernel frees much later than asked (namespaces, cgroups, what each CPU keeps): once it does
 * not change. */
static double used_mib(void)
{
	double last = used_mib_now();
	for (int i = 0, still = 0; i < STABLE_TRIES && still < STABLE_TIMES; i++) {
		usleep(SETTLE_US);
		double now = used_mib_now();
		still = now - last < STABLE_MIB && last - now < STABLE_MIB ? still + 1 : 0;
		last = now;
	}
	return last;
}

pid_t bench_find_process(const char *program, const char *argument, const char *value)
{
	DIR *d = opendir("/proc");
	struct dirent *e;
	pid_t found = 0;
	while (d && !found && (e = readdir(d))) {
		char path[300], text[4096];
		uint64_t pid;
		if (av_parse_u64(av_str_c(e->d_name), 1, INT32_MAX, &pid) < 0)
			continue;
		snprintf(path, sizeof(path), "/proc/%s/cmdline", e->d_name);
		ssize_t n = av_read_file_at(AT_FDCWD, path, text, sizeof(text));
		if (n <= 0 || !strstr(text, program))
			continue;
		bool has_argument = false, has_value = false;
		for (const char *p = text; p < text + n; p += strlen(p) + 1) {
			has_argument = has_argument || strcmp(p, argument) == 0;
			has_value = has_value || strstr(p, value);
		}
		if (has_argument && has_value)
			found = (pid_t)pid;
	}
	if (d)
		closedir(d);
	return found;
}

/* ---- metrics_sampling_1000 ---- */

#define SAMPLING_SANDBOXES 1000
#define SAMPLING_S         10

/* Processor time that the process has used, in seconds; NAN when it is not there. */
static double cpu_seconds(pid_t pid)
{
	char path[64], text[1024];
	uint64_t user, kernel;
	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	ssize_t n = pid ? av_read_file_at(AT_FDCWD, path, text, sizeof(text)) : -1;
	if (n <= 0 || (size_t)n >= sizeof(text))
		return (double)NAN;
	text[n] = '\0';
	/* The name may hold anything; numbers begin after its parenthesis. */
	const char *name_end = strrchr(text, ')');
	struct av_str rest = av_str_c(name_end ? name_end : ""), field = {0}, next = {0};
	for (int i = 0; i < 14; i++) {
		field = next;
		av_str_cut(&rest, ' ', &next);
	}
	if (av_parse_u64(field, 0, UINT64_MAX, &user) < 0 ||
	    av_parse_u64(next, 0, UINT64_MAX, &kernel) < 0)
		return (double)NAN;
	return (double)(user + kernel) / (double)sysconf(_SC_CLK_TCK);
}

/* While as many sandboxes do nothing, nearly all that daemon and worker do is to sample them. */
static void add_sampling(struct bench *b)
{
	pid_t daemon = b->dir[0] ? bench_find_process("aviaryd", "--spawn-socket", b->run) : 0;
	pid_t worker = b->dir[0] ? bench_find_process("aviary-spawn", "--worker", b->run) : 0;
	bench_say(b, "measuring metrics_sampling_1000 …");
	usleep(SETTLE_US);
	double d = cpu_seconds(daemon), w = cpu_seconds(worker);
	usleep(SAMPLING_S * 1000000);
	d = (cpu_seconds(daemon) - d) / SAMPLING_S * 100;
	w = (cpu_seconds(worker) - w) / SAMPLING_S * 100;
	if (isnan(d + w))
		bench_skip(b, "metrics_sampling_1000", "%", "daemon or worker was not found");
	else
		bench_add(b, "metrics_sampling_1000", "%", SAMPLING_SANDBOXES, d + w, (double)NAN,
		    (double)NAN, json_pack("{s:f, s:f}", "daemon", d, "worker", w));
}

/* ---- idle_memory_mib ---- */

/* MiB for each of n idle jails of the floor; NAN without it. */
static double floor_idle(const struct bench *b, size_t n)
{
	char count[16], line[256];
	struct bench_child c;
	snprintf(count, sizeof(count), "%zu", n);
	const char *argv[] = {b->floor_jail, "--child", b->floor_child, "--hold", count, "--dir",
	    b->dir[0] ? b->dir : "/var/tmp", NULL};
	if (!b->floor_jail[0])
		return (double)NAN;
	double before = used_mib(), after = (double)NAN;
	if (bench_child_start(&c, argv, NULL) < 0)
		return (double)NAN;
	if (bench_child_line(&c, line, sizeof(line), 60000) == 0 && strcmp(line, "ready") == 0)
		after = used_mib();
	bench_child_wait(&c); /* its input ends: it removes them and exits */
	return (after - before) / (double)n;
}

/* Creates until there are n; ids are appended. */
static int create_up_to(
    struct bench *b, char (*ids)[AV_ID_SIZE], size_t *have, size_t n, struct av_err *err)
{
	for (; *have < n; (*have)++) {
		int r = bench_create(&b->http, "\"memory_mb\":128", ids[*have], err);
		if (r < 0)
			return r;
		if (cli_caught_signal())
			return av_err_set(err, AV_ERR_CANCELED, "interrupted");
	}
	return 0;
}

static const size_t idle_counts[] = {1, 10, 100, 1000};

/* Ours first, one upon the other, and the floor's while they live: for a minute after many jails
 * are gone the kernel gives memory back, which would count for what is measured then. */
static int measure_idle(
    struct bench *b, char (*ids)[AV_ID_SIZE], size_t *have, size_t steps, struct av_err *err)
{
	double each[AV_ARRAY_LEN(idle_counts)], before = used_mib();
	size_t done = 0;
	for (int r = 0; done < steps; done++) {
		size_t n = idle_counts[done];
		bench_say(b, "measuring idle_memory_mib with %zu sandboxes …", n);
		r = create_up_to(b, ids, have, n, err);
		if (r < 0 && err->kind == AV_ERR_CANCELED)
			return r;
		if (r < 0) {
			bench_skip(b, "idle_memory_mib", "MiB", "only %zu of %zu sandboxes: %s",
			    *have, n, err->message);
			break;
		}
		each[done] = (used_mib() - before) / (double)n;
	}
	if (*have == SAMPLING_SANDBOXES)
		add_sampling(b);
	else
		bench_skip(b, "metrics_sampling_1000", "%", "only %zu sandboxes (--quick?)", *have);
	for (size_t i = 0; i < done; i++)
		bench_add(b, "idle_memory_mib", "MiB", idle_counts[i], each[i], (double)NAN,
		    floor_idle(b, idle_counts[i]), NULL);
	return 0;
}

int bench_row_idle(struct bench *b, struct av_err *err)
{
	size_t steps = b->quick ? 3 : AV_ARRAY_LEN(idle_counts), have = 0;
	char(*ids)[AV_ID_SIZE] = calloc(idle_counts[steps - 1], sizeof(*ids));
	int r;
	if (!ids)
		return av_err_sys(err, AV_ERR_NO_MEMORY, ENOMEM, "ids");
	r = measure_idle(b, ids, &have, steps, err);
	/* The daemon may have closed a connection that was silent for so long. */
	bench_http_close(&b->http);
	int o = bench_http_open(&b->http, b->url, b->key, r < 0 ? NULL : err);
	r = r < 0 ? r : o;
	for (size_t i = 0; o == 0 && i < have; i++) {
		int d = bench_delete(&b->http, ids[i], r < 0 ? NULL : err);
		r = r < 0 ? r : d;
	}
	free(ids);
	return r;
}

/* ---- daemon_rss_mib, agent_private_mib ---- */

static void add_daemon(struct bench *b)
{
	char path[64];
	pid_t pid = b->dir[0] ? bench_find_process("aviaryd", "--spawn-socket", b->run) : 0;
	snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
	double kib = pid ? kib_of(path, "VmRSS") : (double)NAN;
	if (isnan(kib))
		bench_skip(b, "daemon_rss_mib", "MiB", "the daemon's process was not found");
	else
		bench_add(b, "daemon_rss_mib", "MiB", 1, kib / 1024, (double)NAN, (double)NAN,
		    json_pack("{s:f}", "anonymous_mib", kib_of(path, "RssAnon") / 1024));
}

int bench_row_processes(struct bench *b, struct av_err *err)
{
	char id[AV_ID_SIZE], path[128];
	usleep(SETTLE_US);
	add_daemon(b);
	int r = bench_create(&b->http, "", id, err);
	if (r < 0)
		return r;
	/* Warm: it has served an exec. */
	snprintf(path, sizeof(path), "/v1/sandboxes/%s/exec", id);
	r = bench_http_must(&b->http, "POST", path, "{\"cmd\":\"true\"}", err);
	pid_t pid = bench_find_process("aviary-agent", id, id);
	snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
	double kib = pid ? kib_of(path, "RssAnon") + kib_of(path, "VmPTE") : (double)NAN;
	if (isnan(kib))
		bench_skip(
		    b, "agent_private_mib", "MiB", "the agent's process cannot be seen from here");
	else
		bench_add(b, "agent_private_mib", "MiB", 1, kib / 1024, (double)NAN, (double)NAN,
		    json_pack("{s:f}", "rss_mib", kib_of(path, "VmRSS") / 1024));
	int d = bench_delete(&b->http, id, r < 0 ? NULL : err);
	return r < 0 ? r : d;
}
