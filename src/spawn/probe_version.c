/* SPDX-License-Identifier: Apache-2.0 */
/*
 * probe_version.c - what follows from a kernel's version alone; pure
 */
#include "spawn/probe.h"

#include <errno.h>

#include "base/num.h"
#include "base/str.h"
#include "base/banned.h"

/* The digits at the start of *s as a number; s moves past them. */
static int leading_number(struct av_str *s, unsigned *ret)
{
	size_t n = 0;
	uint64_t v;
	while (n < s->n && s->p[n] >= '0' && s->p[n] <= '9')
		n++;
	if (av_parse_u64(av_str_n(s->p, n), 0, 9999, &v) < 0)
		return -EINVAL;
	*s = av_str_n(s->p + n, s->n - n);
	*ret = (unsigned)v;
	return 0;
}

int probe_parse_release(const char *release, unsigned *ret_major, unsigned *ret_minor)
{
	struct av_str s = av_str_c(release);
	unsigned major, minor;
	if (leading_number(&s, &major) < 0 || s.n == 0 || s.p[0] != '.')
		return -EINVAL;
	s = av_str_n(s.p + 1, s.n - 1);
	if (leading_number(&s, &minor) < 0)
		return -EINVAL;
	*ret_major = major;
	*ret_minor = minor;
	return 0;
}

enum probe_overlay probe_overlay_for(unsigned major, unsigned minor, bool root)
{
	unsigned v = major * 1000 + minor;
	if (!root)
		return v >= 5011 ? PROBE_OVERLAY_USERXATTR : PROBE_OVERLAY_NONE;
	if (v >= 6013)
		return PROBE_OVERLAY_FD;
	return v >= 5019 ? PROBE_OVERLAY_PATH : PROBE_OVERLAY_SHARED;
}
