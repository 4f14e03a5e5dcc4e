/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench_sdk.c - sdk_exec_overhead: what libaviary adds to the exec of a program
 *
 * The same exchange twice, in turns: a connection, the handshake of a WebSocket, the frame that
 * starts `true`, and what comes until its end. The floor is bench_ws.h, which blocks, masks with
 * zeroes and throws away what it reads; both talk to the same daemon and sandbox.
 */
#include "cli/bench.h"

#include <aviary/aviary.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>

#include "base/avtime.h"
#include "cli/bench_ws.h"
#include "proto/agent_api.h"
#include "proto/frame.h"

#include "base/banned.h"

#define WARM_UP 20

static double ms_since(int64_t start_ns)
{
	return (double)(av_mono_ns() - start_ns) / (double)AV_NS_PER_MS;
}

/* Of this process, in microseconds. */
static double cpu_us(void)
{
	struct rusage u;

	getrusage(RUSAGE_SELF, &u);
	return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1e6 +
	       (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec);
}

/* What either of them took. */
struct side {
	struct samples ms;
	double cpu_us;
};

static int by_sdk(aviary_sandbox *sb, struct av_err *err)
{
	static const char *const command[] = {"true"};
	aviary_exec_options o = AVIARY_EXEC_OPTIONS_INIT;
	aviary_exec_result *result;
	aviary_error e;

	o.command = (aviary_strings){command, 1};
	result = aviary_sandbox_exec_sync(sb, &o, &e);
	if (!result)
		return av_err_set(err, AV_ERR_INTERNAL, "exec by libaviary: %s", e.message);
	aviary_exec_result_free(result);
	return 0;
}

static int by_hand(const struct bench *b, const char *path, struct av_err *err)
{
	static const char start[] = "{\"process\":{\"cmd\":\"true\",\"args\":[],\"envs\":{}},"
	                            "\"stdin\":false,\"killGroup\":true,\"onDetach\":\"kill\"}";
	AV_CLEANUP(av_buf_clear) struct av_buf first = AV_BUF_INIT(1024);
	struct bench_http h;
	uint64_t bytes;
	char last[256];
	int r = av_frame_write(&first, AV_FRAME_CONTROL, av_str_c(start));

	if (r == 0)
		r = bench_ws_open(&h, b->url, b->key, path, AV_AGENT_WS_PROTOCOL, err);
	if (r < 0)
		return r;
	r = bench_ws_send(&h, false, av_buf_str(&first), err);
	if (r == 0)
		r = bench_ws_count(&h, &bytes, last, sizeof(last), err);
	bench_http_close(&h);
	return r;
}

static int measure(const struct bench *b, aviary_sandbox *sb, size_t n, struct side *sdk,
    struct side *hand, struct av_err *err)
{
	char path[128];
	int r = 0;

	(void)snprintf(path, sizeof(path), "/v1/sandboxes/%s/exec/stream", aviary_sandbox_id(sb));
	for (size_t i = 0; r == 0 && i < n + WARM_UP; i++) {
		double cpu = cpu_us();
		int64_t start = av_mono_ns();

		r = by_sdk(sb, err);
		if (r == 0 && i >= WARM_UP) {
			samples_add(&sdk->ms, ms_since(start));
			sdk->cpu_us += cpu_us() - cpu;
		}
		cpu = cpu_us();
		start = av_mono_ns();
		if (r == 0)
			r = by_hand(b, path, err);
		if (r == 0 && i >= WARM_UP) {
			samples_add(&hand->ms, ms_since(start));
			hand->cpu_us += cpu_us() - cpu;
		}
		if (r == 0 && cli_caught_signal())
			r = av_err_set(err, AV_ERR_CANCELED, "interrupted");
	}
	return r;
}

static int open_client(const struct bench *b, aviary_client **ret, struct av_err *err)
{
	aviary_client_options o = AVIARY_CLIENT_OPTIONS_INIT;

	o.flags = AVIARY_CLIENT_NO_ENV;
	o.base_url = b->url;
	o.api_key = b->key;
	if (aviary_client_new(ret, &o) == 0)
		return 0;
	(void)av_err_set(err, AV_ERR_INTERNAL, "%s", aviary_client_error(*ret)->message);
	aviary_client_free(*ret);
	return -EIO;
}

static void add(struct bench *b, size_t n, struct side *sdk, struct side *hand)
{
	double p50 = samples_percentile(&sdk->ms, 50), floor = samples_percentile(&hand->ms, 50);

	bench_add(b, "sdk_exec_overhead", "ms", sdk->ms.n, p50, samples_percentile(&sdk->ms, 99),
	    floor,
	    json_pack("{s:f, s:f, s:f, s:f}", "overhead_us", (p50 - floor) * 1000, "floor_p99",
	        samples_percentile(&hand->ms, 99), "client_cpu_us", sdk->cpu_us / (double)n,
	        "floor_cpu_us", hand->cpu_us / (double)n));
}

int bench_row_sdk(struct bench *b, struct av_err *err)
{
	size_t n = b->quick ? 200 : 2000;
	struct side sdk = {0}, hand = {0};
	aviary_client *c = NULL;
	aviary_sandbox *sb = NULL;
	char id[AV_ID_SIZE];
	int r = samples_init(&sdk.ms, n, err), d;

	r = r < 0 ? r : samples_init(&hand.ms, n, err);
	r = r < 0 ? r : open_client(b, &c, err);
	r = r < 0 ? r : bench_create(&b->http, "", id, err);
	if (r == 0) {
		sb = aviary_sandbox_attach(c, id);
		r = sb ? measure(b, sb, n, &sdk, &hand, err)
		       : av_err_set(err, AV_ERR_NO_MEMORY, "out of memory");
		aviary_sandbox_free(sb);
		d = bench_delete(&b->http, id, r < 0 ? NULL : err);
		r = r < 0 ? r : d;
	}
	if (r == 0)
		add(b, n, &sdk, &hand);
	aviary_client_free(c);
	samples_clear(&sdk.ms);
	samples_clear(&hand.ms);
	return r;
}
