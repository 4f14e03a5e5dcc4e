/* SPDX-License-Identifier: Apache-2.0 */
/*
 * avtime.c - clocks and RFC 3339 text
 */
#include "base/avtime.h"

#include <errno.h>
#include <stdio.h>
#include <time.h>

#include "base/num.h"
#include "base/banned.h"

static int64_t clock_ns(clockid_t id)
{
	struct timespec ts;
	int r = clock_gettime(id, &ts);
	assert(r == 0);
	(void)r;
	return (int64_t)ts.tv_sec * AV_NS_PER_S + ts.tv_nsec;
}

int64_t av_mono_ns(void)
{
	return clock_ns(CLOCK_MONOTONIC);
}

int64_t av_boot_ns(void)
{
	return clock_ns(CLOCK_BOOTTIME);
}

int64_t av_real_ms(void)
{
	return clock_ns(CLOCK_REALTIME) / AV_NS_PER_MS;
}

void av_rfc3339_ms(int64_t real_ms, char dst[static 32])
{
	const int64_t year_9999_end_ms = 253402300799999;
	if (real_ms < 0)
		real_ms = 0;
	if (real_ms > year_9999_end_ms)
		real_ms = year_9999_end_ms;
	time_t s = (time_t)(real_ms / 1000);
	struct tm tm;
	gmtime_r(&s, &tm);
	snprintf(dst, 32, "%04u-%02u-%02uT%02u:%02u:%02u.%03uZ",
	    (unsigned int)(tm.tm_year + 1900) % 10000u, (unsigned int)(tm.tm_mon + 1) % 100u,
	    (unsigned int)tm.tm_mday % 100u, (unsigned int)tm.tm_hour % 100u,
	    (unsigned int)tm.tm_min % 100u, (unsigned int)tm.tm_sec % 100u,
	    (unsigned int)(real_ms % 1000));
}

/* Takes n digits off the front of s into *ret. */
static int take_digits(struct av_str *s, size_t n, int min, int max, int *ret)
{
	uint64_t v;
	if (s->n < n || av_parse_u64(av_str_n(s->p, n), (uint64_t)min, (uint64_t)max, &v) < 0)
		return -EINVAL;
	*s = av_str_n(s->p + n, s->n - n);
	*ret = (int)v;
	return 0;
}

static int take_char(struct av_str *s, const char *one_of)
{
	if (s->n == 0 || s->p[0] == '\0' || !strchr(one_of, s->p[0]))
		return -EINVAL;
	char c = s->p[0];
	*s = av_str_n(s->p + 1, s->n - 1);
	return c;
}

static int take_fraction_ms(struct av_str *s, int *ret_ms)
{
	int ms = 0;
	*ret_ms = 0;
	if (s->n == 0 || s->p[0] != '.')
		return 0;
	size_t n = 1;
	for (; n < s->n && s->p[n] >= '0' && s->p[n] <= '9'; n++)
		if (n <= 3)
			ms = ms * 10 + (s->p[n] - '0');
	if (n == 1 || n > 10)
		return -EINVAL;
	for (size_t k = n; k <= 3; k++)
		ms *= 10;
	*s = av_str_n(s->p + n, s->n - n);
	*ret_ms = ms;
	return 0;
}

static int take_offset_s(struct av_str *s, int *ret_s)
{
	int sign = take_char(s, "Zz+-"), hours, minutes;
	if (sign < 0)
		return sign;
	*ret_s = 0;
	if (sign == 'Z' || sign == 'z')
		return 0;
	if (take_digits(s, 2, 0, 23, &hours) < 0 || take_char(s, ":") < 0 ||
	    take_digits(s, 2, 0, 59, &minutes) < 0)
		return -EINVAL;
	*ret_s = (hours * 60 + minutes) * 60 * (sign == '-' ? -1 : 1);
	return 0;
}

static int days_in_month(int year, int month)
{
	static const int days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
	bool leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
	return days[month - 1] + (month == 2 && leap ? 1 : 0);
}

int av_rfc3339_parse(struct av_str s, int64_t *ret_real_ms)
{
	struct tm tm = {0};
	int ms, offset;
	if (take_digits(&s, 4, 0, 9999, &tm.tm_year) < 0 || take_char(&s, "-") < 0 ||
	    take_digits(&s, 2, 1, 12, &tm.tm_mon) < 0 || take_char(&s, "-") < 0 ||
	    take_digits(&s, 2, 1, 31, &tm.tm_mday) < 0 || take_char(&s, "Tt ") < 0 ||
	    take_digits(&s, 2, 0, 23, &tm.tm_hour) < 0 || take_char(&s, ":") < 0 ||
	    take_digits(&s, 2, 0, 59, &tm.tm_min) < 0 || take_char(&s, ":") < 0 ||
	    take_digits(&s, 2, 0, 60, &tm.tm_sec) < 0 || take_fraction_ms(&s, &ms) < 0 ||
	    take_offset_s(&s, &offset) < 0 || s.n != 0)
		return -EINVAL;
	if (tm.tm_mday > days_in_month(tm.tm_year, tm.tm_mon))
		return -EINVAL;
	tm.tm_year -= 1900;
	tm.tm_mon -= 1;
	time_t t = timegm(&tm);
	*ret_real_ms = ((int64_t)t - offset) * 1000 + ms;
	return 0;
}
