/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_cgroup.c - reading the layout of control groups from the kernel's text files
 */
#include "lib/tap.h"

#include "spawn/cgroup_internal.h"

static void pure_v2(void)
{
	struct cgroup_layout l;
	cgroup_layout_parse(AV_STR("22 27 0:21 / /proc rw,relatime - proc proc rw\n"
				   "31 23 0:28 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 "
				   "cgroup2 rw,nsdelegate\n"),
	    &l);
	is_str(l.v2, "/sys/fs/cgroup", "v2 mount point, with an optional tag before the dash");
	is_str(l.v2_root, "/", "v2 root");
	is_int(l.n_v1, 0, "no v1");
}

static void hybrid(void)
{
	struct cgroup_layout l;
	cgroup_layout_parse(
	    AV_STR("31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n"
		   "32 31 0:29 /docker/x /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
		   "33 31 0:32 / /sys/fs/cgroup/mem\\040ory rw master:3 shared:2 - cgroup cgroup rw,memory\n"
		   "34 31 0:32 / /mnt/again rw - cgroup cgroup rw,memory\n"
		   "35 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n"
		   "36 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
		   "37 31 0:39 / /sys/fs/cgroup/freezer rw - cgroup cgroup rw,freezer"),
	    &l);
	is_int(l.n_v1, 3, "cpu+cpuacct, memory and freezer; named ones and second mounts ignored");
	is_int(l.v1[0].controllers, CTL_CPU | CTL_CPUACCT, "two controllers on one mount");
	is_str(l.v1[1].path, "/sys/fs/cgroup/mem ory", "escapes in a mount point");
	is_int(l.v1[2].controllers, CTL_FREEZER, "a last line without newline");
	is_str(l.v2, "/sys/fs/cgroup/unified", "the v2 tree of the hybrid");
}

static void nonsense(void)
{
	struct cgroup_layout l;
	cgroup_layout_parse(AV_STR("\n \n31\n31 23 0:28 / /x rw\n1 2 3 4 5 6 - cgroup"), &l);
	ok(l.n_v1 == 0 && l.v2[0] == 0, "lines that make no sense are skipped");
	char longer[2 * CGROUP_PATH_SIZE];
	int n = snprintf(longer, sizeof(longer), "1 2 0:3 / /%0*d rw - cgroup2 none rw\n",
	    CGROUP_PATH_SIZE, 0);
	cgroup_layout_parse(av_str_n(longer, (size_t)n), &l);
	is_str(l.v2, "", "a mount point that does not fit is not cut");
}

static void text_files(void)
{
	struct av_str own;
	ok(cgroup_v2_own_path(AV_STR("9:name=systemd:/\n4:memory:/x\n0::/user.slice/a b\n"), &own),
	    "own v2 path found");
	is_avstr(own, "/user.slice/a b", "own v2 path");
	ok(!cgroup_v2_own_path(AV_STR("4:memory:/x\n"), &own), "no v2 path");
	is_int(cgroup_v2_controllers(AV_STR("cpuset cpu io memory hugetlb pids\n")),
	    CTL_CPU | CTL_BLKIO | CTL_MEMORY | CTL_PIDS, "v2 controllers");
	is_int(cgroup_v2_controllers(AV_STR("\n")), 0, "no controllers");
	is_int(cgroup_flat_key(AV_STR("low 0\noom 3\noom_kill 2\n"), "oom_kill"), 2, "flat key");
	is_int(cgroup_flat_key(AV_STR("oom_kill_disable 1\noom_kill 7"), "oom_kill"), 7,
	    "a key that is the start of another");
	is_int(cgroup_flat_key(AV_STR("oom_kill x\n"), "oom_kill"), 0, "not a number");
}

int main(void)
{
	pure_v2();
	hybrid();
	nonsense();
	text_files();
	is_str(cgroup_mode_name(CGROUP_MODE_HYBRID), "hybrid", "mode name");
	return tap_done();
}
