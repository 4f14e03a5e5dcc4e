/* SPDX-License-Identifier: Apache-2.0 */
/*
 * usage.c - what sandboxes used over time: points of one, loads and days of a team
 */
#include "api/native/native.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "api/request.h"
#include "base/avtime.h"
#include "control/metrics.h"
#include "base/banned.h"

#define ANSWER_MAX   ((size_t)1 << 20)
#define DAY_MS       (24LL * 3600 * 1000)
#define DAYS_MAX     92
#define DAYS_DEFAULT 30
#define DATE_LEN     10

struct range {
	const char *name;
	int64_t seconds;
	int64_t step_s; /* of a team's series */
};

static const struct range metric_ranges[] = {
    {"10m", 600, 0},
    {"5m", 300, 0},
    {"1h", 3600, 0},
    {"2h", 7200, 0},
    {"6h", 21600, 0},
    {"12h", 43200, 0},
    {"24h", 86400, 0},
};
static const struct range stats_ranges[] = {
    {"1h", 3600, 30},
    {"5m", 300, 3},
    {"6h", 21600, 180},
    {"24h", 86400, 720},
    {"30d", 2592000, 21600},
};

/* ?range=; the first one when absent. */
static int parse_range(const struct api_request *rq, const struct range *v, size_t n,
    const struct range **ret, struct av_err *err)
{
	AV_CLEANUP(av_buf_clear) struct av_buf text = AV_BUF_INIT(64);
	AV_CLEANUP(av_buf_clear) struct av_buf names = AV_BUF_INIT(256);
	int r = api_query(rq, "range", &text, err);

	if (r < 0 && r != -ENOENT)
		return r;
	for (size_t i = 0; i < n; i++) {
		if (r == -ENOENT || av_str_eq_c(av_buf_str(&text), v[i].name)) {
			*ret = &v[i];
			return 0;
		}
		(void)av_buf_printf(&names, "%s%s", i ? ", " : "", v[i].name);
	}
	return av_err_set(err, AV_ERR_INVALID,
	    "query parameter 'range' is not one of %.*s; the first is meant when it is absent",
	    AV_STR_ARG(av_buf_str(&names)));
}

/* ---- points of a sandbox ---- */

/* What the answer needs of the question. */
static void set_range(struct api_request *rq, const struct range *range)
{
	rq->state = (void *)(uintptr_t)range;
}

static const struct range *get_range(const struct api_request *rq)
{
	return rq->state;
}

static void on_points(void *ctx, const struct control_point *v, size_t n, const struct av_err *err)
{
	AV_CLEANUP(av_buf_clear) struct av_buf out = AV_BUF_INIT(ANSWER_MAX);
	struct api_request *rq = ctx;

	rq->call = NULL;
	if (err) {
		api_send_err(rq, err);
		return;
	}
	(void)av_buf_printf(&out, "{\"sandbox_id\":\"%s\",\"range\":\"%s\",\"points\":[", rq->id,
	    get_range(rq)->name);
	for (size_t i = 0; i < n; i++)
		(void)av_buf_printf(&out,
		    "%s{\"timestamp_unix\":%" PRId64 ",\"cpu_pct\":%.2f,\"mem_bytes\":%" PRIu64
		    ",\"disk_bytes\":%" PRIu64 "}",
		    i ? "," : "", v[i].at_s, v[i].cpu_pct, v[i].memory_bytes, v[i].disk_bytes);
	(void)av_buf_append_c(&out, "]}");
	api_send_json(rq, 200, &out);
}

void native_sandbox_metrics(struct api_request *rq)
{
	const struct range *range = NULL;
	struct av_err err;

	if (parse_range(rq, metric_ranges, AV_ARRAY_LEN(metric_ranges), &range, &err) < 0) {
		api_send_err(rq, &err);
		return;
	}
	set_range(rq, range);
	if (control_points(rq->api->control, &rq->actor, rq->id, range->seconds, on_points, rq,
	        &rq->call, &err) < 0)
		api_send_err(rq, &err);
}

/* ---- a team over time ---- */

/* Whole processors and MiB are what clients of this route expect. */
static int64_t vcpus(int64_t cpu_milli)
{
	return (cpu_milli + 999) / 1000;
}

enum member { RUNNING, VCPUS, MEMORY_MB };

static void write_series(
    struct av_buf *out, const char *name, const struct control_team_stats *s, enum member m)
{
	(void)av_buf_printf(out, ",\"%s\":[", name);
	for (size_t i = 0; i < s->n; i++) {
		const struct control_load *l = &s->v[i].load;

		(void)av_buf_printf(out, "%s%" PRId64, i ? "," : "",
		    m == RUNNING ? l->running
		    : m == VCPUS ? vcpus(l->cpu_milli)
		                 : l->memory_mib);
	}
	(void)av_buf_append_char(out, ']');
}

static void on_stats(void *ctx, const struct control_team_stats *s, const struct av_err *err)
{
	AV_CLEANUP(av_buf_clear) struct av_buf out = AV_BUF_INIT(ANSWER_MAX);
	struct api_request *rq = ctx;
	char text[32];

	rq->call = NULL;
	if (err) {
		api_send_err(rq, err);
		return;
	}
	(void)av_buf_printf(&out,
	    "{\"range\":\"%s\",\"current\":{\"running_count\":%" PRId64
	    ",\"vcpus_reserved\":%" PRId64 ",\"memory_mb_reserved\":%" PRId64
	    "},\"peaks\":{\"running_count\":%" PRId64 ",\"vcpus\":%" PRId64
	    ",\"memory_mb\":%" PRId64 "},\"series\":{\"labels\":[",
	    get_range(rq)->name, s->current.running, vcpus(s->current.cpu_milli),
	    s->current.memory_mib, s->peaks.running, vcpus(s->peaks.cpu_milli),
	    s->peaks.memory_mib);
	for (size_t i = 0; i < s->n; i++) {
		av_rfc3339_ms(s->v[i].at_s * 1000, text);
		(void)av_buf_printf(&out, "%s\"%s\"", i ? "," : "", text);
	}
	(void)av_buf_append_char(&out, ']');
	write_series(&out, "running", s, RUNNING);
	write_series(&out, "vcpus", s, VCPUS);
	write_series(&out, "memory_mb", s, MEMORY_MB);
	(void)av_buf_append_c(&out, "}}");
	api_send_json(rq, 200, &out);
}

void native_team_stats(struct api_request *rq)
{
	const struct range *range = NULL;
	struct av_err err;

	if (parse_range(rq, stats_ranges, AV_ARRAY_LEN(stats_ranges), &range, &err) < 0) {
		api_send_err(rq, &err);
		return;
	}
	set_range(rq, range);
	if (control_team_stats(rq->api->control, &rq->actor, range->seconds, range->step_s,
	        on_stats, rq, &rq->call, &err) < 0)
		api_send_err(rq, &err);
}

/* ---- days ---- */

struct days {
	int64_t first, last;
};

static void days_gone(struct api_request *rq, int status)
{
	(void)status;
	free(rq->state);
}

static void write_date(struct av_buf *out, int64_t day)
{
	char text[32];

	av_rfc3339_ms(day * DAY_MS, text);
	(void)av_buf_printf(out, "\"%.*s\"", DATE_LEN, text);
}

/* YYYY-MM-DD; absent: *ret stays. */
static int parse_date(
    const struct api_request *rq, const char *name, int64_t *ret, struct av_err *err)
{
	AV_CLEANUP(av_buf_clear) struct av_buf text = AV_BUF_INIT(64);
	int r = api_query(rq, name, &text, err);
	char full[32];
	int64_t ms;

	if (r < 0)
		return r == -ENOENT ? 0 : r;
	(void)snprintf(full, sizeof full, "%.*sT00:00:00Z", DATE_LEN, av_buf_cstr(&text));
	if (av_buf_str(&text).n != DATE_LEN || av_rfc3339_parse(av_str_c(full), &ms) < 0 || ms < 0)
		return av_err_set(err, AV_ERR_INVALID,
		    "query parameter '%s' must be a day from 1970-01-01 on, written YYYY-MM-DD",
		    name);
	*ret = ms / DAY_MS;
	return 0;
}

static int parse_days(const struct api_request *rq, struct days *ret, struct av_err *err)
{
	struct days d = {.first = -1, .last = av_real_ms() / DAY_MS};
	int r = parse_date(rq, "to", &d.last, err);

	if (r == 0)
		r = parse_date(rq, "from", &d.first, err);
	if (r < 0)
		return r;
	if (d.first < 0)
		d.first = AV_MAX(d.last - DAYS_DEFAULT + 1, (int64_t)0);
	if (d.first > d.last)
		return av_err_set(err, AV_ERR_INVALID,
		    "query parameter 'from' is a later day than 'to' (which is today when absent)");
	if (d.last - d.first >= DAYS_MAX)
		return av_err_set(err, AV_ERR_INVALID,
		    "from 'from' to 'to' are %" PRId64 " days; at most %d are allowed",
		    d.last - d.first + 1, DAYS_MAX);
	*ret = d;
	return 0;
}

static void on_days(void *ctx, const struct control_day *v, size_t n, const struct av_err *err)
{
	AV_CLEANUP(av_buf_clear) struct av_buf out = AV_BUF_INIT(ANSWER_MAX);
	struct api_request *rq = ctx;
	const struct days *d = rq->state;

	rq->call = NULL;
	if (err) {
		api_send_err(rq, err);
		return;
	}
	(void)av_buf_append_c(&out, "{\"from\":");
	write_date(&out, d->first);
	(void)av_buf_append_c(&out, ",\"to\":");
	write_date(&out, d->last);
	(void)av_buf_append_c(&out, ",\"points\":[");
	for (size_t i = 0; i < n; i++) {
		(void)av_buf_append_c(&out, i ? ",{\"date\":" : "{\"date\":");
		write_date(&out, v[i].day);
		(void)av_buf_printf(&out, ",\"cpu_minutes\":%.4f,\"ram_mb_minutes\":%.4f}",
		    v[i].cpu_minutes, v[i].memory_mib_minutes);
	}
	(void)av_buf_append_c(&out, "]}");
	api_send_json(rq, 200, &out);
}

void native_team_usage(struct api_request *rq)
{
	struct days *d = calloc(1, sizeof *d);
	struct av_err err;

	if (!d) {
		(void)av_err_set(&err, AV_ERR_NO_MEMORY, "out of memory");
		api_send_err(rq, &err);
		return;
	}
	rq->state = d;
	rq->on_gone = days_gone;
	if (parse_days(rq, d, &err) < 0 || control_team_days(rq->api->control, &rq->actor, d->first,
	                                       d->last, on_days, rq, &rq->call, &err) < 0)
		api_send_err(rq, &err);
}
