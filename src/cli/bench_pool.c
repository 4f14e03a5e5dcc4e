/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench_pool.c - creates that are given a sandbox that is ready
 *
 * With a daemon of its own that has a pool: all other rows are measured without one. Each create
 * waits until one is ready, as the row says what a create costs then and not how often it is so.
 */
#include "cli/bench.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/avtime.h"

#include "base/banned.h"

#define READY_MS  10000
#define SETTLE_US 20000 /* the kernel takes the last one's namespaces apart meanwhile */

static int one(
    struct bench *b, struct samples *first_byte, struct samples *created, struct av_err *err)
{
	char id[AV_ID_SIZE], path[128];
	int r = bench_pool_wait(b, READY_MS, err);
	if (r < 0)
		return r;
	usleep(SETTLE_US);
	int64_t start = av_mono_ns();
	r = bench_create(&b->http, "", id, err);
	if (r < 0)
		return r;
	samples_add(created, (double)(av_mono_ns() - start) / (double)AV_NS_PER_MS);
	snprintf(path, sizeof(path), "/v1/sandboxes/%s/exec", id);
	r = bench_http_must(
	    &b->http, "POST", path, "{\"cmd\":\"/bin/echo\",\"args\":[\"x\"]}", err);
	if (r < 0)
		return r;
	samples_add(first_byte, (double)(av_mono_ns() - start) / (double)AV_NS_PER_MS);
	r = bench_delete(&b->http, id, err);
	return r == 0 && cli_caught_signal() ? av_err_set(err, AV_ERR_CANCELED, "interrupted") : r;
}

static int measure(struct bench *b, struct bench *pooled, struct av_err *err)
{
	size_t n = b->quick ? 50 : 300, warm_up = 5;
	struct samples first_byte, created;
	int r = samples_init(&first_byte, n, err);
	r = r < 0 ? r : samples_init(&created, n, err);
	for (size_t i = 0; r == 0 && i < n + warm_up; i++) {
		if (i == warm_up)
			first_byte.n = created.n = 0;
		r = one(pooled, &first_byte, &created, err);
	}
	if (r == 0)
		bench_add(b, "create_first_byte_pool", "ms", first_byte.n,
		    samples_percentile(&first_byte, 50), samples_percentile(&first_byte, 99),
		    (double)NAN,
		    json_pack("{s:f, s:f}", "create_p50", samples_percentile(&created, 50),
		        "create_p99", samples_percentile(&created, 99)));
	samples_clear(&first_byte);
	samples_clear(&created);
	return r;
}

int bench_row_pool(struct bench *b, struct av_err *err)
{
	if (!b->dir[0]) {
		bench_skip(b, "create_first_byte_pool", "ms", "needs a daemon of its own");
		return 0;
	}
	struct bench *pooled = calloc(1, sizeof(*pooled));
	if (!pooled)
		return av_err_set(err, AV_ERR_NO_MEMORY, "out of memory");
	pooled->cli = b->cli;
	pooled->quick = b->quick;
	pooled->pool = "1"; /* when it is ready, nothing else is being made */
	int r = bench_daemon_start(pooled, err);
	if (r == 0) {
		r = bench_http_open(&pooled->http, pooled->url, pooled->key, err);
		if (r == 0) {
			bench_say(b, "measuring create_first_byte_pool …");
			r = measure(b, pooled, err);
			bench_http_close(&pooled->http);
		}
		bench_daemon_stop(pooled);
	}
	free(pooled);
	if (r < 0)
		return r;
	/* The other daemon has closed what was silent for so long. */
	bench_http_close(&b->http);
	return bench_http_open(&b->http, b->url, b->key, err);
}
