/* SPDX-License-Identifier: Apache-2.0 */
/*
 * probe.c - the facts of this machine, each with what follows and what to type
 */
#include "spawn/probe_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/num.h"
#include "spawn/cgroup.h"
#include "base/banned.h"

#define NOBODY 65534

const char *probe_state_name(enum probe_state s)
{
	static const char *const names[] = {"ok", "weak", "missing", "fatal"};
	return (size_t)s < AV_ARRAY_LEN(names) ? names[s] : "fatal";
}

void probe_say(char *dst, size_t size, const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	(void)vsnprintf(dst, size, fmt, ap);
	va_end(ap);
}

struct probe_fact *probe_add(
    struct probe *p, const char *name, const char *what, enum probe_state state)
{
	assert(p->n < PROBE_MAX_FACTS);
	struct probe_fact *f = &p->fact[p->n++];
	*f = (struct probe_fact){.name = name, .what = what, .state = state};
	return f;
}

const struct probe_fact *probe_find(const struct probe *p, const char *name)
{
	for (size_t i = 0; i < p->n; i++)
		if (strcmp(p->fact[i].name, name) == 0)
			return &p->fact[i];
	return NULL;
}

long probe_read_number(const char *path)
{
	char buf[64];
	uint64_t v;
	ssize_t n = av_read_file_at(AT_FDCWD, path, buf, sizeof(buf));
	if (n > 0 && buf[n - 1] == '\n')
		n--;
	return n > 0 && av_parse_u64(av_str_n(buf, (size_t)n), 0, INT32_MAX, &v) == 0 ? (long)v
	                                                                              : -1;
}

bool probe_has_filesystem(const char *name)
{
	char buf[8192];
	ssize_t n = av_read_file_at(AT_FDCWD, "/proc/filesystems", buf, sizeof(buf));
	struct av_str rest = av_str_n(buf, n < 0 ? 0 : (size_t)n), line, kind;
	while (rest.n > 0) {
		av_str_cut(&rest, '\n', &line);
		av_str_cut(&line, '\t', &kind);
		if (av_str_eq_c(line, name))
			return true;
	}
	return false;
}

static void kernel(struct probe *p)
{
	struct utsname u;
	if (uname(&u) < 0 ||
	    probe_parse_release(u.release, &p->kernel_major, &p->kernel_minor) < 0) {
		(void)snprintf(u.release, sizeof(u.release), "unknown");
		p->kernel_major = p->kernel_minor = 0;
	}
	unsigned v = p->kernel_major * 1000 + p->kernel_minor;
	struct probe_fact *f = probe_add(p, "kernel", "kernel",
	    v >= 5019   ? PROBE_OK
	    : v >= 5012 ? PROBE_WEAK
	                : PROBE_FATAL);
	PROBE_FOUND(f, "Linux %s (%s)", u.release, u.machine);
	if (f->state == PROBE_WEAK) {
		PROBE_REASON(f, "overlays take no idmapped layers before 5.19: all sandboxes share "
		                "one range of ids");
		PROBE_CURE(f, "install a newer kernel (Ubuntu 22.04: linux-generic-hwe-22.04)");
	} else if (f->state == PROBE_FATAL) {
		PROBE_REASON(f, "Aviary needs Linux 5.12 or later");
		PROBE_CURE(f, "install a newer kernel");
	}
}

static bool has_cap(uint64_t set, unsigned cap)
{
	return set >> cap & 1;
}

static uint64_t effective_caps(void)
{
	char buf[4096];
	uint64_t v = 0;
	ssize_t n = av_read_file_at(AT_FDCWD, "/proc/self/status", buf, sizeof(buf));
	struct av_str rest = av_str_n(buf, n < 0 ? 0 : (size_t)n), line;
	while (rest.n > 0) {
		av_str_cut(&rest, '\n', &line);
		if (av_str_starts(line, AV_STR("CapEff:\t")) &&
		    av_parse_hex_u64(av_str_n(line.p + 8, line.n - 8), UINT64_MAX, &v) == 0)
			return v;
	}
	return 0;
}

/* Root of the first user namespace maps everybody. */
static bool in_first_userns(void)
{
	char buf[128];
	ssize_t n = av_read_file_at(AT_FDCWD, "/proc/self/uid_map", buf, sizeof(buf));
	return n > 0 && strstr(buf, "4294967295") != NULL;
}

static void privilege(struct probe *p)
{
	static const struct {
		unsigned cap;
		const char *name;
	} needed[] = {
	    {CAP_SYS_ADMIN, "SYS_ADMIN"},
	    {CAP_SETUID, "SETUID"},
	    {CAP_SETGID, "SETGID"},
	    {CAP_CHOWN, "CHOWN"},
	    {CAP_DAC_OVERRIDE, "DAC_OVERRIDE"},
	    {CAP_FOWNER, "FOWNER"},
	    {CAP_KILL, "KILL"},
	    {CAP_NET_ADMIN, "NET_ADMIN"},
	    {CAP_SETPCAP, "SETPCAP"},
	    {CAP_MKNOD, "MKNOD"},
	    {CAP_SYS_CHROOT, "SYS_CHROOT"},
	};
	uint64_t caps = effective_caps();
	p->root = geteuid() == 0 && in_first_userns() && has_cap(caps, CAP_SYS_ADMIN);
	struct probe_fact *f = probe_add(p, "privilege", "privilege", PROBE_OK);
	if (!p->root) {
		f->state = PROBE_WEAK;
		PROBE_FOUND(f,
		    geteuid() == 0 ? "root without CAP_SYS_ADMIN, or of a user namespace"
		                   : "uid %u",
		    (unsigned)geteuid());
		PROBE_REASON(f,
		    "sandboxes are rootless: one user id inside, no sudo, limits only where "
		    "cgroups are delegated");
		PROBE_CURE(
		    f, "start aviaryd as root (sudo aviaryd); it gives up its rights itself");
		return;
	}
	char missing[160] = "";
	for (size_t i = 0; i < AV_ARRAY_LEN(needed); i++)
		if (!has_cap(caps, needed[i].cap)) {
			size_t n = strlen(missing);
			(void)snprintf(missing + n, sizeof(missing) - n, " CAP_%s", needed[i].name);
		}
	PROBE_FOUND(f, "root");
	if (missing[0] != 0) {
		f->state = PROBE_FATAL;
		PROBE_FOUND(f, "root without%s", missing);
		PROBE_REASON(f, "the worker cannot build sandboxes without these capabilities");
		PROBE_CURE(f, "start it with them (docker run --privileged)");
	}
}

static void container(struct probe *p)
{
	char env[4096];
	ssize_t n = av_read_file_at(AT_FDCWD, "/proc/1/environ", env, sizeof(env));
	p->in_container = access("/.dockerenv", F_OK) == 0 ||
	                  access("/run/.containerenv", F_OK) == 0 ||
	                  (n > 10 && (memmem(env, (size_t)n, "\0container=", 11) != NULL ||
	                                 memcmp(env, "container=", 10) == 0));
	struct probe_fact *f = probe_add(p, "container", "container", PROBE_OK);
	PROBE_FOUND(f, p->in_container ? "inside a container" : "not in a container");
}

/* Why an ordinary user has no user namespaces, most usual reason first. */
static void explain_userns(const struct probe *p, struct probe_fact *f, unsigned did)
{
	const char *who = p->root ? "ordinary users" : "this user";
	if (probe_read_number("/proc/sys/user/max_user_namespaces") == 0) {
		PROBE_REASON(f, "user.max_user_namespaces is 0");
		PROBE_CURE(f, "sysctl -w user.max_user_namespaces=15000");
	} else if (probe_read_number("/proc/sys/kernel/unprivileged_userns_clone") == 0) {
		PROBE_REASON(f,
		    "%s may not make user namespaces "
		    "(kernel.unprivileged_userns_clone is 0)",
		    who);
		PROBE_CURE(
		    f, "sudo sysctl -w kernel.unprivileged_userns_clone=1, or start as root");
	} else if (probe_read_number("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") ==
	           1) {
		PROBE_REASON(f,
		    "AppArmor takes all rights from user namespaces of %s "
		    "(Ubuntu 23.10 and later)",
		    who);
		PROBE_CURE(f, "install Aviary's AppArmor profile, or sudo sysctl -w "
		              "kernel.apparmor_restrict_unprivileged_userns=0, or start as root");
	} else {
		PROBE_REASON(f, "%s: a container's seccomp filter or security module forbids it",
		    did & DID_USERNS ? "mounting in a user namespace fails"
		                     : "making a user namespace fails");
		PROBE_CURE(f, p->in_container ? "run the container with --privileged, or with "
		                                "--security-opt seccomp=unconfined"
		                              : "start aviaryd as root");
	}
}

static void namespaces(struct probe *p, unsigned own)
{
	unsigned other = p->root ? probe_try_userns(NOBODY) : own;
	p->userns_root = own & DID_USERNS;
	p->userns = (other & (DID_USERNS | DID_MOUNT)) == (DID_USERNS | DID_MOUNT);
	bool works = p->root ? (own & DID_MOUNT) != 0 : p->userns;
	struct probe_fact *f =
	    probe_add(p, "userns", "user namespaces", works ? PROBE_OK : PROBE_FATAL);
	PROBE_FOUND(f, works ? "work" : "do not work");
	if (!works)
		explain_userns(p, f, own);
	if (p->root) {
		f = probe_add(p, "rootless", "rootless mode", p->userns ? PROBE_OK : PROBE_MISSING);
		PROBE_FOUND(f,
		    p->userns ? "ordinary users can run sandboxes" : "only root can run sandboxes");
		if (!p->userns)
			explain_userns(p, f, other);
	}
	p->proc_masked = (own & DID_MOUNT) && !(own & DID_PROC);
	f = probe_add(p, "proc", "proc", p->proc_masked ? PROBE_FATAL : PROBE_OK);
	PROBE_FOUND(f, p->proc_masked ? "cannot be mounted in a user namespace"
	                              : "can be mounted in sandboxes");
	if (p->proc_masked) {
		PROBE_REASON(f, "parts of /proc are covered here (as Docker does), so the kernel "
		                "refuses a fresh one in sandboxes");
		PROBE_CURE(f, "docker run --privileged, or --security-opt systempaths=unconfined; "
		              "Kubernetes: procMount: Unmasked");
	}
}

static void overlay(struct probe *p, unsigned own)
{
	static const char *const how[] = {"none", "layers by descriptor", "layers by name",
	    "shifted layers, one range of ids", "layers of one user"};
	bool works = p->root ? probe_try_overlay() : (own & DID_OVERLAY) != 0;
	p->overlay = works ? probe_overlay_for(p->kernel_major, p->kernel_minor, p->root)
	                   : PROBE_OVERLAY_NONE;
	struct probe_fact *f = probe_add(p, "overlay", "overlay file system",
	    p->overlay == PROBE_OVERLAY_NONE     ? PROBE_FATAL
	    : p->overlay == PROBE_OVERLAY_SHARED ? PROBE_WEAK
	                                         : PROBE_OK);
	PROBE_FOUND(f, "%s", how[p->overlay]);
	if (p->overlay == PROBE_OVERLAY_SHARED)
		PROBE_REASON(f, "sandboxes share one range of ids on this kernel");
	if (p->overlay == PROBE_OVERLAY_NONE) {
		PROBE_REASON(f, "no overlay can be mounted here");
		PROBE_CURE(f, probe_has_filesystem("overlay") ? "see the fact about user namespaces"
		                                              : "sudo modprobe overlay");
	}
}

static void one_limit(struct probe *p, uint32_t caps, uint32_t cap, const char *name,
    const char *what, const char *weaker)
{
	bool have = caps & cap;
	struct probe_fact *f = probe_add(p, name, what, have ? PROBE_OK : PROBE_WEAK);
	PROBE_FOUND(f, have ? "enforced" : "not enforced");
	if (have)
		return;
	PROBE_REASON(f, "%s", weaker);
	PROBE_CURE(f, p->root ? "boot with a kernel that has the cgroup controller enabled"
	                      : "start from a systemd user service with Delegate=yes (loginctl "
	                        "enable-linger), or as root");
}

static void cgroup_facts(struct probe *p)
{
	struct cgroups *cg = NULL;
	struct av_err err = {0};
	struct cgroups_config cfg = {.tag = "0", .read_only = true};
	if (cgroups_new(&cfg, &cg, &err) < 0)
		return;
	uint32_t caps = cgroups_caps(cg);
	bool none = cgroups_mode(cg) == CGROUP_MODE_NONE;
	struct probe_fact *f =
	    probe_add(p, "cgroup", "control groups", none ? PROBE_WEAK : PROBE_OK);
	PROBE_FOUND(f, "%s", cgroup_mode_name(cgroups_mode(cg)));
	if (none) {
		PROBE_REASON(f, "%s", cgroups_reason(cg));
		PROBE_CURE(f, p->root
		                  ? "mount them writable (docker run --privileged)"
		                  : "start from a systemd user service with Delegate=yes, or as "
		                    "root");
	}
	one_limit(p, caps, CGROUP_CAP_MEMORY, "limit_memory", "memory limit",
	    "a sandbox can use all of the machine's memory");
	one_limit(p, caps, CGROUP_CAP_SWAP, "limit_swap", "swap limit",
	    "a sandbox may push memory into swap beyond its limit");
	one_limit(p, caps, CGROUP_CAP_PIDS, "limit_pids", "process limit",
	    "a fork bomb is limited per user only");
	one_limit(
	    p, caps, CGROUP_CAP_CPU_QUOTA, "limit_cpu", "CPU limit", "a sandbox can use all CPUs");
	one_limit(p, caps, CGROUP_CAP_FREEZE, "pause", "pause", "sandboxes cannot be paused");
	if (!(caps & CGROUP_CAP_FAST_ATTACH) && !none && p->kernel_major < 6) {
		f = probe_add(p, "fast_attach", "quick creates", PROBE_WEAK);
		PROBE_FOUND(f, "no favordynmods before Linux 6.0");
		PROBE_REASON(f, "a create takes some 10 ms longer");
	}
	cgroups_free(cg);
}

static void devices(struct probe *p)
{
	int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
	p->tun = fd >= 0;
	struct probe_fact *f = probe_add(p, "tun", "TUN device", p->tun ? PROBE_OK : PROBE_MISSING);
	PROBE_FOUND(f, p->tun ? "/dev/net/tun opens" : "/dev/net/tun: %s", strerror(errno));
	if (!p->tun) {
		PROBE_REASON(f, "no internet access for rootless sandboxes");
		PROBE_CURE(f, errno == EACCES
		                  ? "sudo chmod 666 /dev/net/tun"
		                  : "sudo modprobe tun; docker run --device /dev/net/tun");
	}
	av_close_fd(&fd);
}

static void seccomp_fact(struct probe *p)
{
	bool have = access("/proc/sys/kernel/seccomp/actions_avail", F_OK) == 0;
	struct probe_fact *f = probe_add(p, "seccomp", "seccomp", have ? PROBE_OK : PROBE_FATAL);
	PROBE_FOUND(f, have ? "filters" : "not in this kernel");
	if (!have) {
		PROBE_REASON(f, "the system call filter is part of every sandbox");
		PROBE_CURE(f, "use a kernel with CONFIG_SECCOMP_FILTER");
	}
}

static void usr_merged(struct probe *p)
{
	struct stat st;
	bool merged = lstat("/bin", &st) == 0 && S_ISLNK(st.st_mode);
	struct probe_fact *f =
	    probe_add(p, "template_host", "template host", merged ? PROBE_OK : PROBE_MISSING);
	PROBE_FOUND(f, merged ? "this machine's /usr" : "/bin is no link into /usr");
	if (!merged) {
		PROBE_REASON(f, "template host needs a merged /usr");
		PROBE_CURE(f, "apt-get install usrmerge, or build a template");
	}
}

void probe_run(struct probe *ret, const char *state_dir)
{
	*ret = (struct probe){0};
	kernel(ret);
	privilege(ret);
	container(ret);
	unsigned own = probe_try_userns((uid_t)-1);
	namespaces(ret, own);
	overlay(ret, own);
	seccomp_fact(ret);
	cgroup_facts(ret);
	probe_disk(ret, state_dir);
	usr_merged(ret);
	devices(ret);
	probe_net(ret);
	probe_vm(ret);
}
