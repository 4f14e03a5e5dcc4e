/* SPDX-License-Identifier: Apache-2.0 */
/*
 * quotas.c - quotas of teams and keys as JSON (see quotas.h)
 */
#include "api/native/quotas.h"

#include <errno.h>
#include <string.h>

#include "base/avtime.h"

#include "base/banned.h"

static int parse_value(
    const char *name, const json_t *v, int limit, int64_t *ret, struct av_err *err)
{
	int64_t scale = control_quota_scale((enum control_quota_limit)limit);
	double max = (double)(CONTROL_QUOTA_MAX / scale), number = json_number_value(v);
	bool whole = limit != CONTROL_QUOTA_CPU;

	if (json_is_null(v)) {
		*ret = 0;
		return 0;
	}
	if (!json_is_number(v) || (whole && !json_is_integer(v)) ||
	    !(number >= 0 && number <= max) || (number > 0 && number * (double)scale < 1))
		return av_err_set(err, AV_ERR_INVALID,
		    "'quota.%s' must be a %s from 0 to %.15g; 0 or null: none of its own", name,
		    whole ? "whole number" : "number of processors", max);
	*ret = whole ? (int64_t)json_integer_value(v) * scale
	             : (int64_t)(number * (double)scale + 0.5);
	return 0;
}

static int find_limit(const char *name)
{
	for (int i = 0; i < CONTROL_QUOTA_COUNT; i++)
		if (strcmp(control_quota_text((enum control_quota_limit)i), name) == 0)
			return i;
	return -1;
}

int native_parse_quota(const json_t *quota, struct control_quota_update *ret, struct av_err *err)
{
	struct control_quota_update u = {0};
	const char *name;
	const json_t *v;

	json_object_foreach ((json_t *)(uintptr_t)quota, name, v) {
		int limit = find_limit(name);
		int r = limit < 0 ? av_err_set(err, AV_ERR_INVALID,
		                        "'quota.%.64s' is no quota; there are sandboxes, cpus, "
		                        "memory_mb, disk_mb and creates_per_minute",
		                        name)
		                  : parse_value(name, v, limit, &u.values.v[limit], err);

		if (r < 0)
			return r;
		u.set |= 1u << limit;
	}
	*ret = u;
	return 0;
}

int native_write_quota(struct av_buf *out, const struct control_quota *q)
{
	for (int i = 0; i < CONTROL_QUOTA_COUNT; i++) {
		enum control_quota_limit limit = (enum control_quota_limit)i;

		(void)av_buf_printf(out, "%s\"%s\":", i ? "," : "{", control_quota_text(limit));
		if (q->v[i])
			(void)av_buf_printf(
			    out, "%.15g", (double)q->v[i] / (double)control_quota_scale(limit));
		else
			(void)av_buf_append_c(out, "null");
	}
	return av_buf_append_char(out, '}');
}

void native_write_ms(struct av_buf *out, const char *name, int64_t real_ms)
{
	char text[32];

	if (!real_ms) {
		(void)av_buf_printf(out, ",\"%s\":null", name);
		return;
	}
	av_rfc3339_ms(real_ms, text);
	(void)av_buf_printf(out, ",\"%s\":\"%s\"", name, text);
}
