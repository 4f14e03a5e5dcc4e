/* SPDX-License-Identifier: Apache-2.0 */
/*
 * net_pasta.c - internet access of rootless sandboxes
 */
#include "spawn/net_pasta.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/path.h"
#include "spawn/jail.h"
#include "spawn/net_rules.h"
#include "spawn/sys.h"
#include "base/banned.h"

#define PASTA "/usr/bin/pasta"
#define TUN   "/dev/net/tun"

const char *pasta_missing(void)
{
	if (access(PASTA, X_OK) < 0)
		return "without root it needs pasta; type: sudo apt-get install passt";
	AV_CLEANUP(av_closep) int tun = open(TUN, O_RDWR | O_CLOEXEC);
	if (tun >= 0)
		return "";
	return errno == EACCES || errno == EPERM
	           ? "without root it needs /dev/net/tun, which this user may not open; type: sudo "
	             "chmod 666 /dev/net/tun"
	           : "without root it needs /dev/net/tun; type: sudo modprobe tun (containers: "
	             "--device /dev/net/tun)";
}

static const char *dotted(uint32_t a, char text[static 16])
{
	snprintf(text, 16, "%u.%u.%u.%u", a >> 24, a >> 16 & 255, a >> 8 & 255, a & 255);
	return text;
}

_Noreturn static void exec_pasta(pid_t pid)
{
	char user[64], net[64], gateway[16], forward[16];
	sigset_t none;
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	/* Neither the worker's signals nor its end, and none of its descriptors. */
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	signal(SIGPIPE, SIG_DFL);
	setsid();
	if (null < 0 || dup2(null, 0) < 0 || dup2(null, 1) < 0 || dup2(null, 2) < 0 ||
	    av_close_range_from(3) < 0 ||
	    av_path_printf(user, sizeof(user), "/proc/%d/ns/user", pid) < 0 ||
	    av_path_printf(net, sizeof(net), "/proc/%d/ns/net", pid) < 0)
		_exit(1);
	const char *argv[] = {"pasta", "-f", "-q", "-4", "-t", "none", "-u", "none", "-T", "none",
	    "-U", "none", "--no-map-gw", "--no-dhcp", "--no-ndp", "--no-ra", "--no-dhcpv6", "-I",
	    NET_IFNAME, "-g", dotted(NET_GATEWAY, gateway), "-a", NET_ROOTLESS_TEXT, "--userns",
	    user, "--netns", net, "--dns-forward", dotted(NET_RESOLVER_FIRST, forward), NULL};
	char *envp[] = {NULL};
	execve(PASTA, (char **)(uintptr_t)argv, envp);
	_exit(1);
}

/* In the worker's private root: pasta's --dns-forward goes to the first of that file. */
static int name_resolver(uint32_t resolver)
{
	char text[64] = "", address[16];
	if (resolver)
		snprintf(text, sizeof(text), "nameserver %s\n", dotted(resolver, address));
	AV_CLEANUP(av_closep)
	int fd =
	    open("/etc/resolv.conf", O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0644);
	return fd < 0 ? -errno : av_write_full(fd, text, strlen(text));
}

int pasta_start(int proc_fd, pid_t pid, uint32_t resolver, struct pasta_process *ret, int *ret_fd)
{
	int pidfd = -1;
	int r = name_resolver(resolver);
	if (r < 0)
		return r;
	struct clone_args args = {
	    .flags = CLONE_PIDFD,
	    .pidfd = (uint64_t)(uintptr_t)&pidfd,
	    .exit_signal = SIGCHLD,
	};
	long child = sys_clone3(&args);
	if (child == 0)
		exec_pasta(pid);
	if (child < 0)
		return -errno;
	struct pasta_process p = {.pid = (pid_t)child};
	r = jail_start_ticks(proc_fd, p.pid, &p.start_ticks);
	if (r < 0) {
		av_pidfd_send_signal(pidfd, SIGKILL);
		close(pidfd);
		return r;
	}
	*ret = p;
	*ret_fd = pidfd;
	return 0;
}

int pasta_open(int proc_fd, const struct pasta_process *p)
{
	/* As jail_open(): first the descriptor, then the look. */
	AV_CLEANUP(av_closep) int pidfd = av_pidfd_open(p->pid);
	uint64_t ticks;
	if (pidfd < 0)
		return pidfd;
	int r = jail_start_ticks(proc_fd, p->pid, &ticks);
	if (r < 0)
		return r;
	return ticks == p->start_ticks ? AV_TAKE_FD(pidfd) : -ESTALE;
}
