/* SPDX-License-Identifier: Apache-2.0 */
/*
 * guest_cgroup.c - the control groups of a guest
 *
 *   /            the kernel's threads
 *   /agent       the agent
 *   /box         what users see as /sys/fs/cgroup: frozen as a whole, limited as a whole
 *   /box/user    where their processes begin
 *
 * Their root is no group with processes in it, so that they can make groups with controllers beside
 * `user`, as container engines do. Children of the agent join `user` by writing to its cgroup.procs
 * before they execute anything; with favordynmods that costs 0.1 ms instead of 10.
 */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/guest_internal.h"
#include "base/fd.h"

#include "base/banned.h"

#define CONTROLLERS_MAX 256

static int mount_root(void)
{
	static const struct guest_option fast[] = {{"favordynmods", NULL}, {NULL, NULL}};
	int fd = guest_mount_new("cgroup2", fast, 0);

	/* Before 6.0 there is no such option. */
	return fd == -EINVAL ? guest_mount_new("cgroup2", NULL, 0) : fd;
}

/* All that the kernel has for its children; one that cannot be enabled is no reason to fail. */
static void enable_controllers(int root)
{
	char text[CONTROLLERS_MAX], one[64];
	ssize_t n = av_read_file_at(root, "cgroup.controllers", text, sizeof(text));
	struct av_str rest = av_str_n(text, n > 0 ? (size_t)n : 0), name;

	while (rest.n) {
		av_str_cut(&rest, ' ', &name);
		while (name.n && name.p[name.n - 1] == '\n')
			name.n--;
		if (name.n == 0 || name.n > sizeof(one) - 2)
			continue;
		snprintf(one, sizeof(one), "+%.*s", AV_STR_ARG(name));
		if (av_write_file_at(root, "cgroup.subtree_control", av_str_c(one)) < 0)
			dprintf(
			    2, "aviary-agent: guest: controller %s is not to be had\n", one + 1);
	}
}

static int join(int root, const char *procs)
{
	return av_write_file_at(root, procs, AV_STR("0"));
}

int guest_cgroup_make(struct guest_cgroup *c)
{
	static const char *const groups[] = {"agent", "box", "box/user"};
	AV_CLEANUP(av_closep) int root = mount_root();
	int r;

	if (root < 0)
		return root;
	for (size_t i = 0; i < AV_ARRAY_LEN(groups); i++)
		if (mkdirat(root, groups[i], 0755) < 0)
			return -errno;
	enable_controllers(root);
	/* The root of a namespace is where its maker is. */
	if ((r = join(root, "box/cgroup.procs")) < 0)
		return r;
	if (unshare(CLONE_NEWCGROUP) < 0)
		return -errno;
	if ((r = join(root, "agent/cgroup.procs")) < 0)
		return r;
	c->box_fd = openat(root, "box", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	c->user_fd = openat(root, "box/user/cgroup.procs", O_WRONLY | O_CLOEXEC);
	return c->box_fd < 0 || c->user_fd < 0 ? -errno : 0;
}

int guest_cgroup_freeze(struct guest_cgroup *c, bool on)
{
	int r = av_write_file_at(c->box_fd, "cgroup.freeze", on ? AV_STR("1") : AV_STR("0"));

	if (r == 0)
		c->frozen = on;
	return r;
}

int guest_cgroup_is(const struct guest_cgroup *c, bool frozen)
{
	char text[256];
	ssize_t n = av_read_file_at(c->box_fd, "cgroup.events", text, sizeof(text));

	if (n < 0)
		return (int)n;
	return (strstr(text, "frozen 1") != NULL) == frozen;
}

int guest_cgroup_pids_max(const struct guest_cgroup *c, uint32_t max)
{
	char text[16] = "max";

	if (max)
		snprintf(text, sizeof(text), "%u", (unsigned int)max);
	return av_write_file_at(c->box_fd, "pids.max", av_str_c(text));
}
