/* SPDX-License-Identifier: Apache-2.0 */
/*
 * local.c - what this machine is (see local.h)
 */
#include "daemon/local.h"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/statvfs.h>
#include <sys/sysinfo.h>
#include <sys/utsname.h>

#include "base/banned.h"

/* As Go names them, which clients of hosts expect. */
static const char *arch_name(const char *machine)
{
	if (strcmp(machine, "x86_64") == 0)
		return "amd64";
	return strcmp(machine, "aarch64") == 0 ? "arm64" : machine;
}

void daemon_local_facts(const char *state_dir, struct control_local *ret)
{
	struct utsname uts;
	struct sysinfo info;
	struct statvfs fs;

	if (uname(&uts) == 0)
		(void)snprintf(ret->arch, sizeof(ret->arch), "%.15s", arch_name(uts.machine));
	ret->cpu_cores = get_nprocs();
	if (sysinfo(&info) == 0)
		ret->memory_mb = (int64_t)((uint64_t)info.totalram * info.mem_unit >> 20);
	if (state_dir && statvfs(state_dir, &fs) == 0)
		ret->disk_gb = (int64_t)((uint64_t)fs.f_blocks * fs.f_frsize >> 30);
}

static bool is_wildcard(const char *host)
{
	return strcmp(host, "0.0.0.0") == 0 || strcmp(host, "::") == 0;
}

static bool first_address(char *dst, size_t size)
{
	struct ifaddrs *all = NULL;
	bool found = false;

	if (getifaddrs(&all) < 0)
		return false;
	for (const struct ifaddrs *i = all; i && !found; i = i->ifa_next)
		found = i->ifa_addr && i->ifa_addr->sa_family == AF_INET &&
		        (i->ifa_flags & IFF_UP) && !(i->ifa_flags & IFF_LOOPBACK) &&
		        getnameinfo(i->ifa_addr, sizeof(struct sockaddr_in), dst, (socklen_t)size,
		            NULL, 0, NI_NUMERICHOST) == 0;
	freeifaddrs(all);
	return found;
}

void daemon_local_address(const char *host, uint16_t port, char *dst, size_t size)
{
	char own[64] = "";

	if (is_wildcard(host) && first_address(own, sizeof(own)))
		host = own;
	if (strchr(host, ':'))
		(void)snprintf(dst, size, "[%s]:%u", host, (unsigned int)port);
	else
		(void)snprintf(dst, size, "%s:%u", host, (unsigned int)port);
}
