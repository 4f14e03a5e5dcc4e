/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench_streams.c - output of a program through a WebSocket: ws_stream_mb_s
 *
 * The program is `cat` of a text in /dev/shm, four times over. Measured from the message that
 * starts it to the Close frame, in both modes; the promise is that of the binary one.
 */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/avtime.h"
#include "cli/bench.h"
#include "cli/bench_ws.h"
#include "proto/agent_api.h"
#include "proto/frame.h"

#include "base/banned.h"

#define TEXT_BYTES (256 * AV_MIB)
#define CAT_TIMES  4
#define LINE       "0123456789 abcdefghijklmnopqrstuvwxyz ABCDEFGHIJKLMNOPQRSTUVWXYZ 0123456789 abc"

/* Makes the text at path, by a program that runs inside or (floor) here. */
static int make_command(char *dst, size_t size, const char *path)
{
	return snprintf(
	    dst, size, "yes '%s' | head -c %llu >%s", LINE, (unsigned long long)TEXT_BYTES, path);
}

static int make_inside(struct bench *b, const char *id, const char *path, struct av_err *err)
{
	char command[512], body[1024], url[128];
	make_command(command, sizeof(command), path);
	snprintf(url, sizeof(url), "/v1/sandboxes/%s/exec", id);
	snprintf(body, sizeof(body), "{\"cmd\":\"/bin/sh\",\"args\":[\"-c\",\"%s\"]}", command);
	return bench_http_must(&b->http, "POST", url, body, err);
}

/* One run on an open session: MB/s of the program's output. */
static int run_once(
    struct bench_http *h, bool text, struct av_str first, double *ret, struct av_err *err)
{
	const uint64_t bytes = TEXT_BYTES * CAT_TIMES;
	char last[256] = "";
	uint64_t got = 0;
	int64_t start = av_mono_ns();
	int r = bench_ws_send(h, text, first, err);
	if (r == 0)
		r = bench_ws_count(h, &got, last, sizeof(last), err);
	if (r < 0)
		return r;
	double s = (double)(av_mono_ns() - start) / (double)AV_NS_PER_S;
	/* In the binary mode the frame's header comes first. */
	const char *json = last[0] == '{' ? last : last + AV_FRAME_HEADER;
	bool good = strstr(json, "\"exit_code\":0") || strstr(json, "\"exitCode\":0");
	if (got < bytes || !good)
		return av_err_set(err, AV_ERR_INTERNAL, "%llu bytes came of %llu, and then %.100s",
		    (unsigned long long)got, (unsigned long long)bytes, json);
	*ret = (double)bytes / 1e6 / s;
	return 0;
}

#define CAT(path) "{\"cmd\":\"cat\",\"args\":[\"" path "\",\"" path "\",\"" path "\",\"" path "\"]"

int bench_stream_start(struct bench_http *h, const char *url, const char *key, const char *id,
    bool text, struct av_buf *first, struct av_err *err)
{
	static const char process[] = CAT(BENCH_TEXT_PATH);
	char path[128];
	snprintf(path, sizeof(path), "/v1/sandboxes/%s/exec/stream", id);
	av_buf_reset(first);
	if (text) {
		av_buf_printf(first, "%s,\"type\":\"start\"}", process);
	} else {
		AV_CLEANUP(av_buf_clear) struct av_buf json = AV_BUF_INIT(4096);
		av_buf_printf(&json, "{\"process\":%s},\"onDetach\":\"kill\"}", process);
		if (av_frame_write(first, AV_FRAME_CONTROL, av_buf_str(&json)) < 0)
			return av_err_set(err, AV_ERR_NO_MEMORY, "out of memory");
	}
	return bench_ws_open(h, url, key, path, text ? NULL : AV_AGENT_WS_PROTOCOL, err);
}

int bench_stream_prepare(struct bench *b, const char *id, struct av_err *err)
{
	int r = make_inside(b, id, BENCH_TEXT_PATH, err);
	return r < 0 ? r : 0;
}

static int measure(
    struct bench *b, const char *id, bool text, size_t n, struct samples *s, struct av_err *err)
{
	AV_CLEANUP(av_buf_clear) struct av_buf first = AV_BUF_INIT(8192);
	int r = 0;
	for (size_t i = 0; r == 0 && i < n; i++) {
		struct bench_http h;
		double rate = 0;
		r = bench_stream_start(&h, b->url, b->key, id, text, &first, err);
		if (r < 0)
			return r;
		r = run_once(&h, text, av_buf_str(&first), &rate, err);
		bench_http_close(&h);
		samples_add(s, rate);
		if (r == 0 && cli_caught_signal())
			r = av_err_set(err, AV_ERR_CANCELED, "interrupted");
	}
	return r;
}

static int measure_floor(const struct bench *b, size_t n, struct samples *s)
{
	const char *argv[] = {b->floor_ws, NULL};
	char file[64], command[512], path[128], line[256];
	struct bench_child c;
	if (!b->floor_ws[0])
		return -ENOENT;
	snprintf(file, sizeof(file), "/dev/shm/aviary-bench-%d", (int)getpid());
	make_command(command, sizeof(command), file);
	const char *make[] = {"/bin/sh", "-c", command, NULL};
	int r = bench_child_start(&c, make, NULL);
	if (r == 0)
		r = bench_child_wait(&c) == 0 ? 0 : -EIO;
	if (r == 0)
		r = bench_child_start(&c, argv, NULL);
	if (r < 0) {
		unlink(file);
		return r;
	}
	r = bench_child_line(&c, line, sizeof(line), 5000);
	snprintf(path, sizeof(path), "/stream?path=%s", file);
	for (size_t i = 0; r == 0 && i < n; i++) {
		struct bench_http h;
		double rate = 0;
		r = bench_ws_open(&h, line, "", path, NULL, NULL);
		if (r < 0)
			break;
		r = run_once(&h, true, AV_STR("start"), &rate, NULL);
		bench_http_close(&h);
		samples_add(s, rate);
	}
	bench_child_stop(&c);
	unlink(file);
	return r;
}

int bench_row_streams(struct bench *b, struct av_err *err)
{
	size_t n = b->quick ? 1 : 5;
	char id[AV_ID_SIZE];
	struct samples binary, text, floor;
	int r = samples_init(&binary, n, err);
	r = r < 0 ? r : samples_init(&text, n, err);
	r = r < 0 ? r : samples_init(&floor, n, err);
	/* /dev/shm may hold half of the sandbox's memory. */
	r = r < 0 ? r : bench_create(&b->http, "\"memory_mb\":1024", id, err);
	if (r == 0) {
		r = bench_stream_prepare(b, id, err);
		r = r < 0 ? r : measure(b, id, false, n, &binary, err);
		r = r < 0 ? r : measure(b, id, true, n, &text, err);
		int d = bench_delete(&b->http, id, r < 0 ? NULL : err);
		r = r < 0 ? r : d;
	}
	if (r == 0) {
		bool has_floor = measure_floor(b, n, &floor) == 0;
		double f = has_floor ? samples_percentile(&floor, 50) : (double)NAN;
		double t = samples_percentile(&text, 50);
		json_t *extra = json_pack("{s:f}", "text_mb_s", t);
		if (has_floor && extra)
			json_object_set_new(extra, "text_ratio", json_real(t / f));
		bench_add(b, "ws_stream_mb_s", "MB/s", n, samples_percentile(&binary, 50),
		    (double)NAN, f, extra);
	}
	samples_clear(&binary);
	samples_clear(&text);
	samples_clear(&floor);
	return r;
}
