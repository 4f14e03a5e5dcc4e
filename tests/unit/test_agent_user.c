/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_agent_user.c - passwd and group files, as a hostile sandbox may write them
 */
#include <errno.h>

#include "agent/user.h"
#include "lib/tap.h"

static void check(const char *text, const char *name, int want, long uid, const char *home)
{
	struct agent_user u = {.uid = 12345};
	int r = user_parse_passwd(av_str_c(text), av_str_c(name), &u);

	ok(r == want && (r < 0 || (u.uid == (uid_t)uid && strcmp(u.home, home) == 0)),
	    "\"%s\": %d uid %u home %s", name, r, (unsigned int)u.uid, r < 0 ? "-" : u.home);
	if (want < 0)
		is_int(u.uid, 12345, "untouched on failure");
}

static void test_passwd(void)
{
	static const char text[] = "root:x:0:0:root:/root:/bin/bash\n"
	                           "bad:x:1:0:five fields:/x\n"
	                           "long:x:1:1:::::::\n"
	                           "neg:x:-1:0::/n:/bin/sh\n"
	                           "all:x:4294967295:0::/n:/bin/sh\n"
	                           "huge:x:99999999999999999999:0::/n:/bin/sh\n"
	                           "rel:x:7:7::home/rel:/bin/sh\n"
	                           "nohome:x:8:8:::/bin/sh\n"
	                           "\n:x:0:0::/:\n"
	                           "user:x:1000:1001:a user:/home/user:/bin/sh\n"
	                           "twin:x:1000:1000::/twin:/bin/sh\n"
	                           "last:x:2000:2000::/last:";
	char name[300];

	check(text, "root", 0, 0, "/root");
	check(text, "user", 0, 1000, "/home/user");
	check(text, "1000", 0, 1000, "/home/user");
	check(text, "last", 0, 2000, "/last");
	check(text, "rel", 0, 7, "/");
	check(text, "nohome", 0, 8, "/");
	check(text, "bad", -ENOENT, 0, "");
	check(text, "long", -ENOENT, 0, "");
	check(text, "neg", -ENOENT, 0, "");
	check(text, "all", -ENOENT, 0, "");
	check(text, "huge", -ENOENT, 0, "");
	check(text, "4294967295", -ENOENT, 0, "");
	check(text, "use", -ENOENT, 0, "");
	check(text, "", -EINVAL, 0, "");
	check(text, "a:b", -EINVAL, 0, "");
	check(text, "../x", -EINVAL, 0, "");
	memset(name, 'n', sizeof(name));
	name[sizeof(name) - 1] = '\0';
	check(text, name, -EINVAL, 0, "");
	check("", "root", -ENOENT, 0, "");
}

static void test_nul(void)
{
	static const char text[] = "root:x:0\0:0::/r:/s\nroot:x:5:5::/five:/s\n";
	struct agent_user u;

	ok(user_parse_passwd(av_str_n(text, sizeof(text) - 1), AV_STR("root"), &u) == 0 &&
	        u.uid == 5,
	    "a line with NUL is skipped");
}

static void test_group(void)
{
	static char many[200000];
	struct agent_user u = {.name = "user", .gid = 1001, .groups = {1001}, .ngroups = 1};
	size_t n = 0;

	user_parse_group(AV_STR("user:x:1001:user\nsudo:x:27:a,user\naudio:x:29:userx,xuser\n"
	                        "bad:x:x:user\nfew:x:30\nvideo:x:44:user"),
	    &u);
	ok(u.ngroups == 3 && u.groups[0] == 1001 && u.groups[1] == 27 && u.groups[2] == 44,
	    "member of %zu groups", u.ngroups);
	for (int i = 0; i < 1000; i++)
		n += (size_t)snprintf(many + n, sizeof(many) - n, "g%d:x:%d:user\n", i, 5000 + i);
	user_parse_group(av_str_n(many, n), &u);
	is_int(u.ngroups, AGENT_USER_GROUPS_MAX, "no more groups than there is room for");
}

static void test_names(void)
{
	char name[16];

	user_name_of(AV_STR("root:x:0:0\nuser:x:1000:1000::"), 1000, name, sizeof(name));
	is_str(name, "user", "name of an id");
	user_name_of(
	    AV_STR("root:x:0:0\nveryveryveryverylong:x:1000:1000::"), 1000, name, sizeof(name));
	is_str(name, "1000", "a number when there is no usable name");
}

int main(void)
{
	struct agent_user u;
	struct av_err err = {0};

	test_passwd();
	test_nul();
	test_group();
	test_names();
	ok(user_lookup(AV_STR("root"), &u, &err) == 0 && u.uid == 0, "root of this machine");
	ok(user_lookup(AV_STR("no such user"), &u, &err) < 0 && err.kind == AV_ERR_UNAUTHORIZED &&
	        strstr(err.message, "invalid username: 'no such user'"),
	    "an unknown one");
	return tap_done();
}
