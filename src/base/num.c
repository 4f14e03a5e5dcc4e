/* SPDX-License-Identifier: Apache-2.0 */
/*
 * num.c - bounded numbers, sizes and durations
 */
#include "base/num.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>

#include "base/banned.h"

static int parse_digits(struct av_str s, unsigned int base, uint64_t *ret)
{
	if (s.n == 0)
		return -EINVAL;
	uint64_t v = 0;
	bool over = false;
	for (size_t i = 0; i < s.n; i++) {
		char c = s.p[i];
		unsigned int d;
		if (c >= '0' && c <= '9')
			d = (unsigned int)(c - '0');
		else if (base == 16 && c >= 'a' && c <= 'f')
			d = (unsigned int)(c - 'a' + 10);
		else if (base == 16 && c >= 'A' && c <= 'F')
			d = (unsigned int)(c - 'A' + 10);
		else
			return -EINVAL;
		over |= __builtin_mul_overflow(v, (uint64_t)base, &v);
		over |= __builtin_add_overflow(v, (uint64_t)d, &v);
	}
	if (over)
		return -ERANGE;
	*ret = v;
	return 0;
}

int av_parse_u64(struct av_str s, uint64_t min, uint64_t max, uint64_t *ret)
{
	uint64_t v;
	int r = parse_digits(s, 10, &v);
	if (r < 0)
		return r;
	if (v < min || v > max)
		return -ERANGE;
	*ret = v;
	return 0;
}

int av_parse_i64(struct av_str s, int64_t min, int64_t max, int64_t *ret)
{
	bool negative = s.n && s.p[0] == '-';
	if (negative)
		s = av_str_n(s.p + 1, s.n - 1);
	uint64_t magnitude;
	int r = parse_digits(s, 10, &magnitude);
	if (r < 0)
		return r;
	int64_t v;
	if (negative ? __builtin_sub_overflow(0, magnitude, &v)
	             : __builtin_add_overflow(0, magnitude, &v))
		return -ERANGE;
	if (v < min || v > max)
		return -ERANGE;
	*ret = v;
	return 0;
}

int av_parse_hex_u64(struct av_str s, uint64_t max, uint64_t *ret)
{
	uint64_t v;
	int r = parse_digits(s, 16, &v);
	if (r < 0)
		return r;
	if (v > max)
		return -ERANGE;
	*ret = v;
	return 0;
}

int av_parse_milli(struct av_str s, uint64_t max, uint64_t *ret)
{
	struct av_str whole;
	bool dot = av_str_cut(&s, '.', &whole);
	uint64_t v, fraction = 0;
	int r = parse_digits(whole, 10, &v);
	if (r < 0)
		return r;
	if (__builtin_mul_overflow(v, (uint64_t)1000, &v))
		return -ERANGE;
	if (dot) {
		if (s.n > 9)
			return -EINVAL;
		r = parse_digits(s, 10, &fraction);
		if (r < 0)
			return r;
		for (size_t n = s.n; n < 3; n++)
			fraction *= 10;
		for (size_t n = s.n; n > 3; n--)
			fraction /= 10;
	}
	if (__builtin_add_overflow(v, fraction, &v) || v > max)
		return -ERANGE;
	*ret = v;
	return 0;
}

/* Splits s behind its leading digits and dots. */
static struct av_str cut_unit(struct av_str *s)
{
	size_t n = 0;
	while (n < s->n && ((s->p[n] >= '0' && s->p[n] <= '9') || s->p[n] == '.'))
		n++;
	struct av_str unit = av_str_n(s->p + n, s->n - n);
	s->n = n;
	return unit;
}

int av_parse_size(struct av_str s, uint64_t *ret_bytes, struct av_err *err)
{
	static const struct {
		const char *name;
		unsigned int shift;
	} units[] = {
	    {"", 0},
	    {"b", 0},
	    {"k", 10},
	    {"kb", 10},
	    {"kib", 10},
	    {"m", 20},
	    {"mb", 20},
	    {"mib", 20},
	    {"g", 30},
	    {"gb", 30},
	    {"gib", 30},
	    {"t", 40},
	    {"tb", 40},
	    {"tib", 40},
	};
	struct av_str number = s;
	struct av_str unit = cut_unit(&number);
	for (size_t i = 0; i < AV_ARRAY_LEN(units); i++) {
		if (!av_str_ieq(unit, av_str_c(units[i].name)))
			continue;
		uint64_t milli;
		uint64_t most = (UINT64_MAX / 1000) >> units[i].shift;
		if (av_parse_milli(number, most, &milli) < 0)
			break;
		*ret_bytes = (milli << units[i].shift) / 1000;
		return 0;
	}
	return av_err_set(err, AV_ERR_INVALID,
	    "size \"%.*s\" is not understood; write it as 512M, 1.5G or a number of bytes",
	    AV_STR_ARG(s));
}

int av_parse_duration_ms(struct av_str s, uint64_t *ret_ms, struct av_err *err)
{
	static const struct {
		const char *name;
		uint64_t ms;
	} units[] = {
	    {"", 1000}, {"s", 1000}, {"ms", 1}, {"m", 60000}, {"h", 3600000}, {"d", 86400000}};
	struct av_str number = s;
	struct av_str unit = cut_unit(&number);
	for (size_t i = 0; i < AV_ARRAY_LEN(units); i++) {
		if (!av_str_ieq(unit, av_str_c(units[i].name)))
			continue;
		uint64_t milli;
		if (av_parse_milli(number, UINT64_MAX / 1000 / units[i].ms, &milli) < 0)
			break;
		*ret_ms = milli * units[i].ms / 1000;
		return 0;
	}
	return av_err_set(err, AV_ERR_INVALID,
	    "duration \"%.*s\" is not understood; write it as 30s, 5m, 2h or 250ms", AV_STR_ARG(s));
}

const char *av_format_size(uint64_t bytes, char buf[static 24])
{
	static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
	double v = (double)bytes;
	size_t u = 0;
	while (v >= 1024 && u + 1 < AV_ARRAY_LEN(units)) {
		v /= 1024;
		u++;
	}
	snprintf(buf, 24, u == 0 || v >= 100 ? "%.0f %s" : "%.1f %s", v, units[u]);
	return buf;
}
