/* SPDX-License-Identifier: Apache-2.0 */
/*
 * caps.c - capability sets of the supervisor's children
 */
#include "spawn/caps.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <stdio.h>
#include <sys/prctl.h>

#include "base/fd.h"
#include "base/path.h"
#include "spawn/sys.h"
#include "base/banned.h"

#define CAP(c) (1ull << (c))

/* mounts, namespaces, quotas | ids | files of any sandbox | device nodes | namespaces of agents
 * that cannot be traced | network set-up | processes of other ids into a v1 cpuset */
#define WORKER_SET                                                                                 \
	(CAP(CAP_SYS_ADMIN) | CAP(CAP_SYS_CHROOT) | CAP(CAP_SETUID) | CAP(CAP_SETGID) |            \
	    CAP(CAP_SETPCAP) | CAP(CAP_SETFCAP) | CAP(CAP_CHOWN) | CAP(CAP_DAC_OVERRIDE) |         \
	    CAP(CAP_DAC_READ_SEARCH) | CAP(CAP_FOWNER) | CAP(CAP_FSETID) | CAP(CAP_MKNOD) |        \
	    CAP(CAP_KILL) | CAP(CAP_SYS_PTRACE) | CAP(CAP_NET_ADMIN) | CAP(CAP_SYS_NICE))

static int get_sets(uint64_t *ret_effective, uint64_t *ret_permitted)
{
	struct __user_cap_header_struct h = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct d[2] = {0};
	if (syscall(SYS_capget, &h, d) < 0)
		return -errno;
	*ret_effective = (uint64_t)d[1].effective << 32 | d[0].effective;
	*ret_permitted = (uint64_t)d[1].permitted << 32 | d[0].permitted;
	return 0;
}

static int set_sets(uint64_t effective, uint64_t permitted)
{
	struct __user_cap_header_struct h = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct d[2] = {
	    {.effective = (uint32_t)effective, .permitted = (uint32_t)permitted},
	    {.effective = (uint32_t)(effective >> 32), .permitted = (uint32_t)(permitted >> 32)},
	};
	return syscall(SYS_capset, &h, d) < 0 ? -errno : 0;
}

static int limit_bounding(uint64_t keep)
{
	for (int cap = 0; prctl(PR_CAPBSET_READ, cap, 0, 0, 0) >= 0; cap++)
		if ((cap > 63 || !(keep & CAP(cap))) && prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) < 0)
			return -errno;
	return 0;
}

int caps_limit_worker(void)
{
	uint64_t effective = 0, permitted = 0;
	int r = get_sets(&effective, &permitted);
	if (r == 0)
		r = limit_bounding(WORKER_SET);
	if (r < 0)
		return r;
	permitted &= WORKER_SET;
	return set_sets(permitted, permitted);
}

int caps_drop_bounding(void)
{
	int r = limit_bounding(0);
	return r == 0 && prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) < 0 ? -errno : r;
}

int caps_clear(void)
{
	return set_sets(0, 0);
}
