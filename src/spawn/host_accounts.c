/* SPDX-License-Identifier: Apache-2.0 */
/*
 * host_accounts.c - the users and groups of template `host`
 */
#include "spawn/host_internal.h"

#include <errno.h>

#include "base/num.h"
#include "base/banned.h"

#define FIELDS_MAX    9
#define ID_SYSTEM_MAX 999
#define ID_NOBODY     65534

/* Splits at ':'; how many fields, at most FIELDS_MAX. */
static size_t split(struct av_str line, struct av_str field[static FIELDS_MAX])
{
	size_t n = 0;
	bool more = true;
	while (more && n < FIELDS_MAX)
		more = av_str_cut(&line, ':', &field[n++]);
	return n;
}

static bool name_ok(struct av_str s)
{
	if (s.n == 0 || s.n > 32)
		return false;
	for (size_t i = 0; i < s.n; i++) {
		char c = s.p[i];
		if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' ||
		        (i > 0 && ((c >= '0' && c <= '9') || c == '-' || c == '.'))))
			return false;
	}
	return !av_str_eq_c(s, HOST_USER);
}

/* A line of the host that is kept: proper name, system id, all its fields. */
static bool system_line(
    struct av_str line, size_t fields, struct av_str field[static FIELDS_MAX], uint64_t *ret_id)
{
	return split(line, field) == fields && name_ok(field[0]) &&
	       av_parse_u64(field[2], 0, UINT32_MAX, ret_id) == 0 &&
	       (*ret_id <= ID_SYSTEM_MAX || *ret_id == ID_NOBODY);
}

int host_make_passwd(struct av_str host_passwd, struct av_buf *out)
{
	struct av_str line, f[FIELDS_MAX];
	uint64_t id;
	(void)av_buf_append_c(out, "root:x:0:0:root:/root:/bin/bash\n");
	while (host_passwd.n > 0) {
		av_str_cut(&host_passwd, '\n', &line);
		if (!system_line(line, 7, f, &id) || id == 0)
			continue;
		(void)av_buf_printf(out, "%.*s:x:%llu:%.*s:%.*s:%.*s:%.*s\n", AV_STR_ARG(f[0]),
		    (unsigned long long)id, AV_STR_ARG(f[3]), AV_STR_ARG(f[4]), AV_STR_ARG(f[5]),
		    AV_STR_ARG(f[6]));
	}
	return av_buf_printf(out, "%s:x:%d:%d:%s:/home/%s:/bin/bash\n", HOST_USER, HOST_USER_ID,
	    HOST_USER_ID, HOST_USER, HOST_USER);
}

int host_make_group(struct av_str host_group, struct av_buf *out)
{
	struct av_str line, f[FIELDS_MAX];
	uint64_t id;
	(void)av_buf_append_c(out, "root:x:0:\n");
	while (host_group.n > 0) {
		av_str_cut(&host_group, '\n', &line);
		if (!system_line(line, 4, f, &id) || id == 0)
			continue;
		bool admin = av_str_eq_c(f[0], "sudo") || av_str_eq_c(f[0], "wheel");
		(void)av_buf_printf(out, "%.*s:x:%llu:%s\n", AV_STR_ARG(f[0]),
		    (unsigned long long)id, admin ? HOST_USER : "");
	}
	return av_buf_printf(out, "%s:x:%d:\n", HOST_USER, HOST_USER_ID);
}

int host_make_shadow(struct av_str passwd, struct av_buf *out)
{
	struct av_str line, name;
	while (passwd.n > 0) {
		av_str_cut(&passwd, '\n', &line);
		if (av_str_cut(&line, ':', &name))
			(void)av_buf_printf(out, "%.*s:*:19000:0:99999:7:::\n", AV_STR_ARG(name));
	}
	return av_buf_error(out);
}

int host_make_gshadow(struct av_str group, struct av_buf *out)
{
	struct av_str line, f[FIELDS_MAX];
	while (group.n > 0) {
		av_str_cut(&group, '\n', &line);
		if (split(line, f) == 4)
			(void)av_buf_printf(
			    out, "%.*s:!::%.*s\n", AV_STR_ARG(f[0]), AV_STR_ARG(f[3]));
	}
	return av_buf_error(out);
}

long host_group_id(struct av_str group, const char *name)
{
	struct av_str line, f[FIELDS_MAX];
	uint64_t id;
	while (group.n > 0) {
		av_str_cut(&group, '\n', &line);
		if (split(line, f) == 4 && av_str_eq_c(f[0], name) &&
		    av_parse_u64(f[2], 0, 65535, &id) == 0)
			return (long)id;
	}
	return -1;
}
