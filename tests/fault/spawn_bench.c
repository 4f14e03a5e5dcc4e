/* SPDX-License-Identifier: Apache-2.0 */
/*
 * spawn_bench.c - how long aviary-spawn takes to create and destroy a jail
 *
 * usage: spawn_bench [-n COUNT] [-w PAUSE_MS] [-p PARALLEL] [-c SCRIPT] [-- options of
 * aviary-spawn] With -c one sandbox is made, the shell script runs in it, its output is printed.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/avtime.h"
#include "base/num.h"
#include "tests/fault/spawn_client.h"
#include "base/banned.h"

struct samples {
	double *us;
	size_t n;
};

static int compare(const void *a, const void *b)
{
	const double *x = a, *y = b;
	return (*x > *y) - (*x < *y);
}

static void print(const char *name, struct samples *s)
{
	qsort(s->us, s->n, sizeof(s->us[0]), compare);
	printf("%-16s n %5zu  p50 %8.0f us  p99 %8.0f us  max %8.0f us\n", name, s->n,
	    s->us[s->n / 2], s->us[s->n * 99 / 100], s->us[s->n - 1]);
}

static void run_script(struct spawn_client *c, const char *script)
{
	static char out[1 << 20];
	struct spawn_request q;
	struct spawn_reply r;
	spawn_client_create_request(&q);
	if (!spawn_client_call(c, &q, &r, NULL) || r.error) {
		printf("create: %s\n", r.text);
		return;
	}
	spawn_client_shell(c, q.id, script, out, sizeof(out));
	printf("%s", out);
	printf("destroy: %d\n", spawn_client_op(c, SPAWN_DESTROY, q.id));
}

/* pause_ms: the kernel takes namespaces apart after the answer to DESTROY; a pause leaves that out.
 */
static void measure_one(struct spawn_client *c, size_t n, uint64_t pause_ms)
{
	struct samples create = {calloc(n, sizeof(double)), n},
	               child = {calloc(n, sizeof(double)), n},
	               destroy = {calloc(n, sizeof(double)), n};
	for (size_t i = 0; i < n; i++) {
		struct spawn_request q;
		struct spawn_reply r;
		spawn_client_create_request(&q);
		usleep((useconds_t)pause_ms * 1000);
		int64_t t0 = av_mono_ns();
		if (!spawn_client_call(c, &q, &r, NULL) || r.error) {
			printf("create: %s\n", r.text);
			exit(1);
		}
		int64_t t1 = av_mono_ns();
		usleep((useconds_t)pause_ms * 1000);
		int64_t t1b = av_mono_ns();
		int e = spawn_client_op(c, SPAWN_DESTROY, q.id);
		int64_t t2 = av_mono_ns();
		if (e)
			printf("destroy: %s\n", strerror(e));
		create.us[i] = (double)(t1 - t0) / 1000;
		child.us[i] = (double)r.u.create.child_us;
		destroy.us[i] = (double)(t2 - t1b) / 1000;
	}
	print("create", &create);
	print("  clone->exec", &child);
	print("destroy", &destroy);
}

static void measure_parallel(struct spawn_client *c, size_t n, size_t parallel)
{
	char(*ids)[SPAWN_ID_SIZE] = calloc(n, sizeof(*ids));
	size_t sent = 0, done = 0, failed = 0;
	int64_t t0 = av_mono_ns();
	while (done < n) {
		struct spawn_request q;
		struct spawn_reply r;
		while (sent < n && sent - done < parallel) {
			spawn_client_create_request(&q);
			memcpy(ids[sent], q.id, sizeof(q.id));
			if (!spawn_client_send(c, &q))
				exit(1);
			sent++;
		}
		if (!spawn_client_receive(c, &r, NULL))
			exit(1);
		failed += r.error != 0;
		done++;
	}
	int64_t t1 = av_mono_ns();
	for (size_t i = 0; i < n; i++)
		spawn_client_op(c, SPAWN_DESTROY, ids[i]);
	int64_t t2 = av_mono_ns();
	printf(
	    "%zu creates, %zu in flight: %.0f per second (%zu failed); destroyed %.0f per second\n",
	    n, parallel, (double)n * 1e9 / (double)(t1 - t0), failed,
	    (double)n * 1e9 / (double)(t2 - t1));
}

int main(int argc, char **argv)
{
	uint64_t n = 200, parallel = 8, pause_ms = 0;
	const char *script = NULL;
	int opt, bad = 0;
	while ((opt = getopt(argc, argv, "+n:p:c:w:")) > 0) {
		if (opt == 'n')
			bad |= av_parse_u64(av_str_c(optarg), 1, 100000, &n);
		else if (opt == 'p')
			bad |= av_parse_u64(av_str_c(optarg), 1, SPAWN_PIPELINE_MAX, &parallel);
		else if (opt == 'w')
			bad |= av_parse_u64(av_str_c(optarg), 0, 10000, &pause_ms);
		else if (opt == 'c')
			script = optarg;
		else
			bad = 1;
	}
	if (bad)
		return 2;
	struct spawn_client c;
	spawn_client_start(&c, (const char *const *)(argv + optind));
	if (script) {
		run_script(&c, script);
	} else {
		/* The first one waits for template host. */
		struct spawn_request q;
		struct spawn_reply r;
		spawn_client_create_request(&q);
		if (!spawn_client_call(&c, &q, &r, NULL) ||
		    spawn_client_op(&c, SPAWN_DESTROY, q.id))
			return 1;
		measure_one(&c, n, pause_ms);
		measure_parallel(&c, n, parallel);
	}
	spawn_client_stop(&c);
	return 0;
}
