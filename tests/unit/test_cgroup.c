/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_cgroup.c - reading the layout of control groups from the kernel's text files
 */
#include "lib/tap.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
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
	           "32 31 0:29 /docker/x /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup "
	           "rw,cpu,cpuacct\n"
	           "33 31 0:32 / /sys/fs/cgroup/mem\\040ory rw master:3 shared:2 - cgroup cgroup "
	           "rw,memory\n"
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
	int n = snprintf(
	    longer, sizeof(longer), "1 2 0:3 / /%0*d rw - cgroup2 none rw\n", CGROUP_PATH_SIZE, 0);
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
	ok(cgroup_own_path(AV_STR("9:name=systemd:/system.slice/a.service\n4:memory:/x\n"), &own) &&
	        av_str_eq_c(own, "/system.slice/a.service"),
	    "systemd's own path where there is no v2");
	ok(!cgroup_own_path(AV_STR("4:memory:/x\n"), &own), "nor that");
	is_int(cgroup_v2_controllers(AV_STR("cpuset cpu io memory hugetlb pids\n")),
	    CTL_CPU | CTL_BLKIO | CTL_MEMORY | CTL_PIDS | CTL_CPUSET, "v2 controllers");
	struct cgroup_cpus cpus;
	ok(cgroup_cpus_parse(AV_STR("0-2,64,1023\n"), &cpus), "a list of CPUs");
	is_int(cgroup_cpus_count(&cpus), 5, "how many they are");
	ok(cgroup_cpus_has(&cpus, 64) && cgroup_cpus_has(&cpus, 1023) && !cgroup_cpus_has(&cpus, 3),
	    "and which");
	ok(cgroup_cpus_parse(AV_STR("\n"), &cpus) && cgroup_cpus_count(&cpus) == 0, "no CPUs");
	ok(!cgroup_cpus_parse(AV_STR("0-1024\n"), &cpus) &&
	        !cgroup_cpus_parse(AV_STR("3-1"), &cpus) &&
	        !cgroup_cpus_parse(AV_STR("1,,2"), &cpus) &&
	        !cgroup_cpus_parse(AV_STR("-1"), &cpus),
	    "no lists");
	is_int(cgroup_v2_controllers(AV_STR("\n")), 0, "no controllers");
	is_int(cgroup_flat_key(AV_STR("low 0\noom 3\noom_kill 2\n"), "oom_kill"), 2, "flat key");
	is_int(cgroup_flat_key(AV_STR("oom_kill_disable 1\noom_kill 7"), "oom_kill"), 7,
	    "a key that is the start of another");
	is_int(cgroup_flat_key(AV_STR("oom_kill x\n"), "oom_kill"), 0, "not a number");
}

/* Plain files in place of the kernel's: what would be written where, and how answers are read. */
static char fake[64];

static void put(const char *file, const char *text)
{
	char path[160];
	(void)snprintf(path, sizeof(path), "%s/sb/%s", fake, file);
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0 || write(fd, text, strlen(text)) < 0)
		abort();
	close(fd);
}

static const char *got(const char *file)
{
	static char buf[128];
	char path[160];
	(void)snprintf(path, sizeof(path), "%s/sb/%s", fake, file);
	return av_read_file_at(AT_FDCWD, path, buf, sizeof(buf)) < 0 ? "(none)" : buf;
}

static const struct cgroup_limits limits = {.memory_bytes = 1 << 20,
    .pids_max = 64,
    .cpu_milli = 1500,
    .cpu_weight = 50,
    .io_weight = 2000};

static void fake_v2(void)
{
	static const char *const files[] = {
	    "memory.max", "memory.swap.max", "pids.max", "cpu.max", "cpu.weight", "io.weight"};
	struct cgroup_tree t = {
	    .v2 = true, .base_fd = -1, .controllers = CTL_MEMORY | CTL_PIDS | CTL_CPU | CTL_BLKIO};
	struct cgroups cg = {.caps = CGROUP_CAP_IO_WEIGHT, .v2_swap = true};
	struct cgroup_stat st = {0};
	t.parent_fd = open(fake, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	for (size_t i = 0; i < AV_ARRAY_LEN(files); i++)
		put(files[i], "");
	is_int(cgroup_v2_limit(&cg, &t, "sb", &limits, NULL), 0, "v2 limits");
	is_str(got("memory.max"), "1048576", "memory.max");
	is_str(
	    got("memory.swap.max"), "0", "no swap: memory and swap together stay within the limit");
	is_str(got("pids.max"), "64", "pids.max");
	is_str(got("cpu.max"), "30000 20000", "cpu.max");
	is_str(got("cpu.weight"), "50", "cpu.weight");
	is_str(got("io.weight"), "2000", "io.weight");
	put("cgroup.events", "populated 1\nfrozen 0\n");
	put("cpu.stat", "usage_usec 123\nuser_usec 100\n");
	put("memory.current", "4096\n");
	put("memory.peak", "8192\n");
	put("memory.events", "low 0\nhigh 0\nmax 7\noom 3\noom_kill 2\noom_group_kill 0\n");
	put("pids.current", "5\n");
	cgroup_v2_stat(&t, "sb", &st);
	ok(st.populated && !st.frozen && st.cpu_usec == 123 && st.memory_current_bytes == 4096 &&
	        st.memory_peak_bytes == 8192 && st.oom_kills == 2 && st.pids_current == 5,
	    "v2 stat");
	put("cgroup.freeze", "");
	put("cgroup.events", "populated 1\nfrozen 1\n");
	is_int(cgroup_v2_freeze(&t, "sb", true, 10), 0, "v2 freeze");
	is_str(got("cgroup.freeze"), "1", "cgroup.freeze");
	put("cgroup.freeze", "");
	put("cgroup.events", "populated 1\nfrozen 0\n");
	is_int(cgroup_v2_freeze(&t, "sb", true, 10), -ETIMEDOUT, "a freeze that takes too long");
	is_str(got("cgroup.freeze"), "0", "is taken back");
	close(t.parent_fd);
}

static void fake_v1(void)
{
	struct cgroup_tree t = {.base_fd = -1, .controllers = CTL_MEMORY | CTL_CPU | CTL_BLKIO};
	struct cgroups cg = {
	    .caps = CGROUP_CAP_CPU_QUOTA, .v1_memsw = true, .v1_weight_file = "blkio.bfq.weight"};
	struct cgroup_stat st = {0};
	t.parent_fd = open(fake, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	put("memory.limit_in_bytes", "");
	put("memory.memsw.limit_in_bytes", "");
	put("cpu.cfs_period_us", "");
	put("cpu.cfs_quota_us", "");
	put("cpu.shares", "");
	put("blkio.bfq.weight", "");
	is_int(cgroup_v1_limit(&cg, &t, "sb", &limits, NULL), 0, "v1 limits");
	is_str(got("memory.limit_in_bytes"), "1048576", "memory");
	is_str(got("memory.memsw.limit_in_bytes"), "1048576", "memory and swap");
	is_str(got("cpu.cfs_quota_us"), "30000", "quota");
	is_str(got("cpu.shares"), "512", "shares");
	is_str(got("blkio.bfq.weight"), "1000", "weights end at 1000 on v1");
	put("memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 4\n");
	put("memory.usage_in_bytes", "77\n");
	cgroup_v1_stat(&t, "sb", &st);
	ok(st.oom_kills == 4 && st.memory_current_bytes == 77, "v1 stat");
	cg.caps = 0;
	put("cpu.cfs_quota_us", "");
	is_int(cgroup_v1_limit(&cg, &t, "sb", &limits, NULL), 0, "without bandwidth control");
	is_str(got("cpu.cfs_quota_us"), "", "no quota is written");
	close(t.parent_fd);
}

static void fakes(void)
{
	char path[160];
	(void)snprintf(fake, sizeof(fake), "/tmp/aviary-cgroup-XXXXXX");
	if (mkdtemp(fake) == NULL)
		abort();
	(void)snprintf(path, sizeof(path), "%s/sb", fake);
	(void)mkdir(path, 0700);
	fake_v2();
	fake_v1();
	DIR *dir = opendir(path);
	for (struct dirent *e; dir && (e = readdir(dir)) != NULL;)
		(void)unlinkat(dirfd(dir), e->d_name, 0);
	closedir(dir);
	(void)rmdir(path);
	is_int(rmdir(fake), 0, "cleaned up");
}

static void below(void)
{
	static const struct {
		const char *below, *own, *path;
	} good[] = {
	    {"/system.slice/s.service", "/x", "/system.slice/s.service"},
	    {"../s.service", "/system.slice/a.service", "/system.slice/s.service"},
	    {"../s.service", "/a.service", "/s.service"},
	    {"../s.service", "/", "/s.service"},
	    {"../s/t", "/u/v/a.service", "/u/v/s/t"},
	};
	static const char *const bad[] = {"", "/", "x", "../", "..", "/../x", "../../x", "/a/../b",
	    "/a//b", "/a/", "/./a", "../a/..", "x/../y"};
	char path[CGROUP_PATH_SIZE], longer[2 * CGROUP_PATH_SIZE] = "/";
	for (size_t i = 0; i < AV_ARRAY_LEN(good); i++)
		ok(cgroup_below_path(good[i].below, av_str_c(good[i].own), path, sizeof(path)) ==
		            0 &&
		        strcmp(path, good[i].path) == 0,
		    "%s seen from %s is %s", good[i].below, good[i].own, good[i].path);
	for (size_t i = 0; i < AV_ARRAY_LEN(bad); i++)
		ok(!cgroup_below_valid(bad[i]), "'%s' is refused", bad[i]);
	memset(longer + 1, 'a', sizeof(longer) - 2);
	longer[sizeof(longer) - 3] = '/';
	ok(!cgroup_below_valid(longer), "and one that is too long");
	ok(cgroup_below_path("../s", av_str_c(longer), path, sizeof(path)) < 0,
	    "and one that becomes so");
}

int main(void)
{
	below();
	fakes();
	pure_v2();
	hybrid();
	nonsense();
	text_files();
	is_str(cgroup_mode_name(CGROUP_MODE_HYBRID), "hybrid", "mode name");
	return tap_done();
}
