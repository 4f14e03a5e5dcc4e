/* SPDX-License-Identifier: Apache-2.0 */
/*
 * config_quota.c - options that bound teams without bounds of their own
 */
#include <errno.h>
#include <stdint.h>
#include <string.h>

#include "base/num.h"
#include "daemon/config.h"

#include "base/banned.h"

#define COUNT_MAX 1000000
#define MILLI_MAX 100000000
#define BYTES_MAX (UINT64_C(1) << 50)

static int parse(enum daemon_opt opt, struct av_str text, uint64_t *ret, struct av_err *err)
{
	int r;

	if (opt == DAEMON_OPT_QUOTA_CPUS)
		r = av_parse_milli(text, MILLI_MAX, ret);
	else if (opt == DAEMON_OPT_QUOTA_MEMORY || opt == DAEMON_OPT_QUOTA_DISK)
		return av_parse_size(text, ret, err);
	else
		r = av_parse_u64(text, 1, COUNT_MAX, ret);
	if (r < 0)
		return av_err_set(err, AV_ERR_INVALID,
		    "'%.*s' is not a number %s; leave the option out, or write none, for no bound",
		    AV_STR_ARG(text),
		    opt == DAEMON_OPT_QUOTA_CPUS ? "of processors such as 4 or 0.5"
		                                 : "from 1 to 1000000");
	return 0;
}

int daemon_config_quotas(struct daemon_config *c, struct av_err *err)
{
	const struct {
		enum daemon_opt opt;
		int64_t *ret;
	} all[] = {
	    {DAEMON_OPT_QUOTA_SANDBOXES, &c->quota_sandboxes},
	    {DAEMON_OPT_QUOTA_CPUS, &c->quota_cpu_milli},
	    {DAEMON_OPT_QUOTA_MEMORY, &c->quota_memory},
	    {DAEMON_OPT_QUOTA_DISK, &c->quota_disk},
	    {DAEMON_OPT_QUOTA_CREATES, &c->quota_creates},
	};

	for (size_t i = 0; i < AV_ARRAY_LEN(all); i++) {
		enum daemon_opt opt = all[i].opt;
		const char *text = c->value[opt];
		uint64_t v = 0;
		int r = 0;

		if (text && strcmp(text, "none") != 0)
			r = parse(opt, av_str_c(text), &v, err);
		if (r == 0 && v > BYTES_MAX)
			r = av_err_set(err, AV_ERR_INVALID, "more than there can be");
		if (r < 0) {
			av_err_prefix(
			    err, "%s", c->origin[opt] ? c->origin[opt] : daemon_opt_name(opt));
			return r;
		}
		*all[i].ret = (int64_t)v;
	}
	return 0;
}
