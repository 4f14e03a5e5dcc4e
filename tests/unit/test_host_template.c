/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_host_template.c - accounts, secrets and masks of template `host`: the pure parts
 */
#include "lib/tap.h"

#include <sys/stat.h>

#include "spawn/host_internal.h"

static const char passwd[] = "root:x:0:0:root,,,:/root:/bin/zsh\n"
                             "daemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin\n"
                             "alice:x:1000:1000:Alice:/home/alice:/bin/bash\n"
                             "toor::0:0:second root:/:/bin/sh\n"
                             "+::::::\n"
                             "broken:x:5\n"
                             "bad name:x:7:7::/:/bin/sh\n"
                             "user:x:999:999:theirs:/:/bin/sh\n"
                             "nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin";
static const char group[] = "root:x:0:\nsudo:x:27:alice\nshadow:x:42:\nalice:x:1000:\n"
                            "nogroup:x:65534:\n";

static void accounts(void)
{
	struct av_buf p = AV_BUF_INIT(4096), g = AV_BUF_INIT(4096), s = AV_BUF_INIT(4096);
	is_int(host_make_passwd(av_str_c(passwd), &p), 0, "passwd");
	is_avstr(av_buf_str(&p),
	    "root:x:0:0:root:/root:/bin/bash\n"
	    "daemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin\n"
	    "nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"
	    "user:x:1000:1000:user:/home/user:/bin/bash\n",
	    "people, second roots, NIS and broken lines are dropped");
	is_int(host_make_group(av_str_c(group), &g), 0, "group");
	is_avstr(av_buf_str(&g),
	    "root:x:0:\nsudo:x:27:user\nshadow:x:42:\nnogroup:x:65534:\nuser:x:1000:\n",
	    "members are dropped, user may sudo");
	is_int(host_group_id(av_buf_str(&g), "shadow"), 42, "id of shadow");
	is_int(host_group_id(av_buf_str(&g), "none"), -1, "no such group");
	is_int(
	    host_make_shadow(AV_STR("a:x:1:1::/:/bin/sh\nb:x:2:2::/:/bin/sh\n"), &s), 0, "shadow");
	is_avstr(av_buf_str(&s), "a:*:19000:0:99999:7:::\nb:*:19000:0:99999:7:::\n", "all locked");
	av_buf_reset(&s);
	is_int(host_make_gshadow(AV_STR("sudo:x:27:user\n"), &s), 0, "gshadow");
	is_avstr(av_buf_str(&s), "sudo:!::user\n", "gshadow keeps members");
	av_buf_clear(&p);
	av_buf_clear(&g);
	av_buf_clear(&s);
}

static void secrets(void)
{
	ok(host_text_has_secret(AV_STR("x\n-----BEGIN RSA PRIVATE KEY-----\n")), "a private key");
	ok(!host_text_has_secret(AV_STR("-----BEGIN CERTIFICATE-----\n")), "a certificate");
	ok(host_text_has_secret(AV_STR("deb https://bob:pw@deb.example/ x main")), "a password");
	ok(host_text_has_secret(AV_STR("a http://x/ b https://token@h/")), "a token, second URL");
	ok(!host_text_has_secret(AV_STR("deb http://deb.example/debian x main # a@b")), "no user");
	ok(!host_text_has_secret(AV_STR("see <https://example>: mail me@example")), "a plain link");
	ok(!host_text_has_secret(AV_STR("://")), "the end");
	ok(!host_text_has_secret(AV_STR("")), "nothing");
}

static void masks(void)
{
	ok(!host_mask_hides(S_IFREG | 0644), "readable");
	ok(!host_mask_hides(S_IFREG | 04755), "set-uid");
	ok(!host_mask_hides(S_IFREG | 04111), "may be run, not read");
	ok(host_mask_hides(S_IFREG | 0640), "group only");
	ok(host_mask_hides(S_IFREG | 04750), "set-uid for a group");
	ok(host_mask_hides(S_IFDIR | 0700), "private directory");
	ok(host_mask_hides(S_IFDIR | 0754), "directory that may not be entered");
	ok(!host_mask_hides(S_IFDIR | 02775), "ordinary directory");
	ok(!host_mask_hides(S_IFLNK | 0777), "link");
	ok(host_mask_hides(S_IFCHR | 0666) && host_mask_hides(S_IFIFO | 0666) &&
	        host_mask_hides(S_IFSOCK | 0777),
	    "devices, pipes, sockets");
}

int main(void)
{
	accounts();
	secrets();
	masks();
	return tap_done();
}
