/* SPDX-License-Identifier: Apache-2.0 */
/*
 * t11_proc.c - T11: /proc as a way out: the agent's executable, memory and root, kernel settings
 */
#include <dirent.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "attack.h"

/* CVE-2019-5736: overwrite the program that started us through its /proc link. */
static void test_agent_executable(void)
{
	char link[256];
	refused(readlink("/proc/1/exe", link, sizeof(link)), "readlink /proc/1/exe");
	cannot_open("/proc/1/exe", O_RDONLY);
	cannot_open("/proc/1/exe", O_WRONLY);
	cannot_open("/proc/1/exe", O_RDWR | O_TRUNC);
	refused(execl("/proc/1/exe", "x", (char *)NULL), "executing /proc/1/exe");
}

static void test_agent_inside(void)
{
	cannot_open("/proc/1/mem", O_RDONLY);
	cannot_open("/proc/1/mem", O_RDWR);
	cannot_open("/proc/1/environ", O_RDONLY);
	cannot_open("/proc/1/maps", O_RDONLY);
	cannot_open("/proc/1/auxv", O_RDONLY);
	yields_nothing("/proc/1/stack");
	yields_nothing("/proc/1/syscall");
	cannot_open("/proc/1/oom_score_adj", O_WRONLY | O_TRUNC);
	DIR *d = opendir("/proc/1/fd");
	int n = 0;
	while (d && readdir(d))
		n++;
	ok(n == 0, "the agent's descriptors cannot be listed");
	if (d)
		closedir(d);
	struct stat st;
	refused(stat("/proc/1/root/etc", &st), "/proc/1/root");
	refused(stat("/proc/1/cwd/.", &st), "/proc/1/cwd");
	refused(open("/proc/1/ns/mnt", O_RDONLY | O_CLOEXEC), "opening a namespace of the agent");
}

static void test_kernel_settings(void)
{
	static const char *const settings[] = {
	    "/proc/sys/kernel/core_pattern",
	    "/proc/sys/kernel/modprobe",
	    "/proc/sys/kernel/hotplug",
	    "/proc/sys/kernel/sysrq",
	    "/proc/sys/kernel/randomize_va_space",
	    "/proc/sys/kernel/unprivileged_bpf_disabled",
	    "/proc/sys/kernel/dmesg_restrict",
	    "/proc/sys/kernel/kptr_restrict",
	    "/proc/sys/kernel/poweroff_cmd",
	    "/proc/sys/kernel/panic",
	    "/proc/sys/vm/overcommit_memory",
	    "/proc/sys/vm/drop_caches",
	    "/proc/sys/vm/panic_on_oom",
	    "/proc/sys/fs/binfmt_misc/register",
	    "/proc/sys/fs/suid_dumpable",
	    "/proc/sys/fs/protected_symlinks",
	    "/proc/sys/fs/file-max",
	    "/proc/sys/user/max_user_namespaces",
	    "/proc/sys/net/ipv4/ip_forward",
	    "/proc/sys/net/core/somaxconn",
	    "/proc/sys/kernel/ns_last_pid",
	};
	for (size_t i = 0; i < AV_ARRAY_LEN(settings); i++)
		cannot_open(settings[i], O_WRONLY);
}

/* Readable by everybody, but the addresses are hidden from those without CAP_SYS_ADMIN. */
static void test_addresses_are_hidden(const char *path)
{
	char text[4096];
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
	bool shown = false;
	for (ssize_t i = 0; i < n && text[i] != ' '; i++)
		shown |= text[i] != '0' && text[i] != '-';
	ok(!shown, "%s shows no address", path);
	if (fd >= 0)
		close(fd);
}

/* It cannot be opened for writing, or what is opened is the null device. */
static void refused_or_null(const char *path)
{
	struct stat st = {0};
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	ok(fd < 0 || (fstat(fd, &st) == 0 && S_ISCHR(st.st_mode) && st.st_rdev == makedev(1, 3)),
	    "nothing written to %s arrives", path);
	if (fd >= 0)
		close(fd);
}

static void test_dangerous_files(void)
{
	test_addresses_are_hidden("/proc/iomem");
	test_addresses_are_hidden("/proc/ioports");
	test_addresses_are_hidden("/proc/kallsyms");
	refused_or_null("/proc/sysrq-trigger");
	yields_nothing("/proc/kcore");
	yields_nothing("/proc/kmsg");
	yields_nothing("/proc/keys");
	yields_nothing("/proc/timer_list");
	yields_nothing("/proc/sched_debug");
	yields_nothing("/proc/latency_stats");
	yields_nothing("/proc/kpagecount");
	yields_nothing("/proc/kpageflags");
	yields_nothing("/proc/vmallocinfo");
	yields_nothing("/proc/slabinfo");
	cannot_open("/proc/mtrr", O_WRONLY);
	cannot_open("/proc/irq/default_smp_affinity", O_WRONLY);
	cannot_open("/proc/bus/pci/00/00.0", O_WRONLY);
	cannot_open("/proc/acpi/wakeup", O_WRONLY);
	cannot_open("/proc/scsi/scsi", O_WRONLY);
	cannot_open("/proc/fs/ext4/vda/options", O_WRONLY);
	cannot_open("/sys/kernel/uevent_helper", O_WRONLY);
	cannot_open("/sys/kernel/mm/ksm/run", O_WRONLY);
	cannot_open("/sys/kernel/mm/transparent_hugepage/enabled", O_WRONLY);
	cannot_open("/sys/power/state", O_WRONLY);
	cannot_open("/sys/kernel/security/lockdown", O_WRONLY);
	cannot_open("/sys/kernel/debug/tracing/trace_pipe", O_RDONLY);
}

/* Every mount of /proc is the sandbox's own: no process of the host is in it. */
static void test_only_own_processes(void)
{
	DIR *d = opendir("/proc");
	int n = 0;
	for (struct dirent *e; d && (e = readdir(d));)
		n += e->d_name[0] >= '0' && e->d_name[0] <= '9';
	ok(n > 0 && n < 20, "%d processes are visible", n);
	if (d)
		closedir(d);
}

int main(int argc, char **argv)
{
	attack_init(argc, argv);
	test_agent_executable();
	test_agent_inside();
	test_kernel_settings();
	test_dangerous_files();
	test_only_own_processes();
	return tap_done();
}
