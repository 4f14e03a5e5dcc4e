/* SPDX-License-Identifier: Apache-2.0 */
/*
 * floor_tree.c - mounts of the floor of a jail: the calls that cannot be left out
 */
#include "floor_jail.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/utsname.h>
#include <unistd.h>

#define CLONE_TREE (OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC)

static int must(long r, const char *what)
{
	if (r < 0)
		floor_die(what);
	return (int)r;
}

void floor_ids_enter(unsigned int n)
{
	uid_t id = FLOOR_ID_BASE + n * FLOOR_ID_COUNT;
	must(setresgid((gid_t)-1, id, (gid_t)-1), "setresgid");
	must(setresuid((uid_t)-1, id, (uid_t)-1), "setresuid");
}

void floor_ids_leave(void)
{
	must(setresuid((uid_t)-1, 0, (uid_t)-1), "setresuid");
	must(setresgid((gid_t)-1, 0, (gid_t)-1), "setresgid");
}

static int new_fs(const char *type, const char *const options[][2], unsigned int attrs)
{
	int ctx = must(fsopen(type, FSOPEN_CLOEXEC), type);
	for (; options && (*options)[0]; options++)
		must(fsconfig(ctx, FSCONFIG_SET_STRING, (*options)[0], (*options)[1], 0),
		    (*options)[0]);
	must(fsconfig(ctx, FSCONFIG_CMD_CREATE, NULL, NULL, 0), type);
	int fd = must(fsmount(ctx, FSMOUNT_CLOEXEC, attrs), "fsmount");
	close(ctx);
	return fd;
}

static void take_over(int root, const char *from, const char *to, bool recursive)
{
	int fd =
	    must(open_tree(AT_FDCWD, from, CLONE_TREE | (recursive ? AT_RECURSIVE : 0u)), from);
	must(mkdirat(root, to, 0755), to);
	must(move_mount(fd, "", root, to, MOVE_MOUNT_F_EMPTY_PATH), to);
	close(fd);
}

/* The lower layer of the root: what a template has at least. */
static void make_lower(const char *dir)
{
	static const char *const dirs[] = {"lower", "lower/usr", "lower/proc", "lower/sys",
	    "lower/dev", "lower/run", "lower/etc", "lower/tmp", "lower/var", "lower/root", "mask"};
	char path[4200];
	for (size_t i = 0; i < sizeof(dirs) / sizeof(dirs[0]); i++) {
		snprintf(path, sizeof(path), "%s/%s", dir, dirs[i]);
		must(mkdir(path, 0755), path);
	}
}

static bool needs_names(void)
{
	struct utsname u;
	int major_number = 0, minor_number = 0;
	if (uname(&u) < 0 || sscanf(u.release, "%d.%d", &major_number, &minor_number) != 2)
		return true;
	return major_number < 6 || (major_number == 6 && minor_number < 13);
}

void floor_tree_enter(struct floor_tree *t, const char *dir)
{
	static const char *const links[] = {"bin", "sbin", "lib", "lib64"};
	static const char *const options[][2] = {{"mode", "0711"}, {"size", "16m"}, {NULL, NULL}};
	must(unshare(CLONE_NEWNS), "unshare");
	must(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL), "private mounts");
	make_lower(dir);
	int root = new_fs("tmpfs", options, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV);
	must(move_mount(root, "", AT_FDCWD, "/", MOVE_MOUNT_F_EMPTY_PATH), "root");
	umask(0);
	take_over(root, dir, "state", false);
	take_over(root, "/usr", "usr", true);
	take_over(root, "/proc", "proc", false);
	take_over(root, "/sys", "sys", false);
	take_over(root, "/dev", "dev", false);
	must(mkdirat(root, "disk", 0711), "disk");
	must(mkdirat(root, "stage", 0711), "stage");
	must(mkdirat(root, "l", 0711), "l");
	for (size_t i = 0; i < sizeof(links) / sizeof(links[0]); i++) {
		char target[64];
		snprintf(target, sizeof(target), "usr/%s", links[i]);
		must(symlinkat(target, root, links[i]), links[i]);
	}
	must(fchdir(root), "root");
	must(syscall(SYS_pivot_root, ".", "."), "pivot_root");
	must(umount2(".", MNT_DETACH), "umount");
	must(chdir("/"), "chdir");
	t->usr = must(open("/usr", O_RDONLY | O_DIRECTORY | O_CLOEXEC), "/usr");
	t->root = must(open("/state/lower", O_RDONLY | O_DIRECTORY | O_CLOEXEC), "lower");
	t->mask = must(open("/state/mask", O_RDONLY | O_DIRECTORY | O_CLOEXEC), "mask");
	t->names = must(open("/l", O_RDONLY | O_DIRECTORY | O_CLOEXEC), "/l");
	for (const char *const *n = (const char *const[]){"a", "b", "u", NULL}; *n; n++)
		must(mkdirat(t->names, *n, 0700), *n);
	t->by_name = needs_names();
	close(root);
}

/* ---- one jail ---- */

static int clone_mapped(int dir, const char *path, int userns_fd, bool read_only)
{
	int fd =
	    must(open_tree(dir, path, CLONE_TREE | (path[0] ? 0u : AT_EMPTY_PATH)), "open_tree");
	struct mount_attr attr = {
	    .attr_set = MOUNT_ATTR_IDMAP | (read_only ? MOUNT_ATTR_RDONLY : 0u),
	    .userns_fd = (uint64_t)userns_fd,
	};
	must(mount_setattr(fd, "", AT_EMPTY_PATH, &attr, sizeof(attr)), "idmap");
	return fd;
}

static void set_dir(int ctx, const char *key, int upper, const char *name)
{
	int fd = must(openat(upper, name, O_PATH | O_DIRECTORY | O_CLOEXEC), name);
	must(fsconfig(ctx, FSCONFIG_SET_FD, key, NULL, fd), key);
	close(fd);
}

static void set_text(int ctx, const char *key, const char *value)
{
	must(fsconfig(ctx, FSCONFIG_SET_STRING, key, value, 0), key);
}

static void add_layers(
    const struct floor_tree *t, int ctx, const int *lowers, size_t n, int upper, const char *name)
{
	char work[32], path[2][40];
	snprintf(work, sizeof(work), "%s-work", name);
	if (!t->by_name) {
		for (size_t i = 0; i < n; i++)
			must(fsconfig(ctx, FSCONFIG_SET_FD, "lowerdir+", NULL, lowers[i]),
			    "lowerdir+");
		set_dir(ctx, "upperdir", upper, name);
		set_dir(ctx, "workdir", upper, work);
		return;
	}
	for (size_t i = 0; i < n; i++)
		must(move_mount(lowers[i], "", t->names, i ? "b" : "a", MOVE_MOUNT_F_EMPTY_PATH),
		    "layer");
	snprintf(path[0], sizeof(path[0]), "u/%s", name);
	snprintf(path[1], sizeof(path[1]), "u/%s", work);
	set_text(ctx, "lowerdir", n > 1 ? "a:b" : "a");
	set_text(ctx, "upperdir", path[0]);
	set_text(ctx, "workdir", path[1]);
	must(fchdir(t->names), "/l");
}

static int overlay(const struct floor_tree *t, unsigned int jail, const int *lowers, size_t n,
    int upper, const char *name)
{
	floor_ids_enter(jail);
	int ctx = must(fsopen("overlay", FSOPEN_CLOEXEC), "overlay");
	set_text(ctx, "source", "floor");
	add_layers(t, ctx, lowers, n, upper, name);
	set_text(ctx, "redirect_dir", "on");
	set_text(ctx, "index", "off");
	set_text(ctx, "metacopy", "off");
	must(fsconfig(ctx, FSCONFIG_CMD_CREATE, NULL, NULL, 0), "overlay");
	int fd = must(fsmount(ctx, FSMOUNT_CLOEXEC, MOUNT_ATTR_NODEV), "fsmount");
	close(ctx);
	if (t->by_name) {
		umount2("a", MNT_DETACH);
		if (n > 1)
			umount2("b", MNT_DETACH);
		must(chdir("/"), "chdir");
	}
	floor_ids_leave();
	return fd;
}

static void fill_dev(unsigned int jail, int dev)
{
	static const struct {
		const char *name;
		unsigned int major_number, minor_number;
	} nodes[] = {{"null", 1, 3}, {"zero", 1, 5}, {"full", 1, 7}, {"random", 1, 8},
	    {"urandom", 1, 9}, {"tty", 5, 0}};
	static const char *const links[][2] = {{"fd", "/proc/self/fd"},
	    {"stdin", "/proc/self/fd/0"}, {"stdout", "/proc/self/fd/1"},
	    {"stderr", "/proc/self/fd/2"}, {"ptmx", "pts/ptmx"}};
	static const char *const dirs[] = {"pts", "shm", "mqueue"};
	floor_ids_enter(jail);
	for (size_t i = 0; i < sizeof(nodes) / sizeof(nodes[0]); i++)
		must(mknodat(dev, nodes[i].name, S_IFCHR | 0666,
		         makedev(nodes[i].major_number, nodes[i].minor_number)),
		    nodes[i].name);
	for (size_t i = 0; i < sizeof(links) / sizeof(links[0]); i++)
		must(symlinkat(links[i][1], dev, links[i][0]), links[i][0]);
	for (size_t i = 0; i < sizeof(dirs) / sizeof(dirs[0]); i++)
		must(mkdirat(dev, dirs[i], 0755), dirs[i]);
	floor_ids_leave();
}

static void attach(int mnt, int root, const char *name)
{
	int at = must(openat(root, name, O_PATH | O_DIRECTORY | O_CLOEXEC), name);
	must(move_mount(mnt, "", at, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH), name);
	close(at);
}

void floor_tree_stage(const struct floor_tree *t, unsigned int n, int area, int userns_fd)
{
	static const char *const dirs[] = {
	    "fs", "fs/root", "fs/root-work", "fs/usr", "fs/usr-work"};
	char path[64], id[16];
	for (size_t i = 0; i < sizeof(dirs) / sizeof(dirs[0]); i++)
		must(mkdirat(area, dirs[i], 0755), dirs[i]);
	int root_lower = clone_mapped(t->root, "", userns_fd, true);
	int usr_lower[2] = {
	    clone_mapped(t->mask, "", userns_fd, true), clone_mapped(t->usr, "", userns_fd, true)};
	int upper = clone_mapped(area, "fs", userns_fd, false);
	if (t->by_name)
		must(move_mount(upper, "", t->names, "u", MOVE_MOUNT_F_EMPTY_PATH), "upper");
	int root = overlay(t, n, &root_lower, 1, upper, "root");
	snprintf(path, sizeof(path), FLOOR_STAGE "/%u", n);
	if (mkdir(path, 0700) < 0 && errno != EEXIST)
		floor_die(path);
	must(move_mount(root, "", AT_FDCWD, path, MOVE_MOUNT_F_EMPTY_PATH), path);
	int usr = overlay(t, n, usr_lower, 2, upper, "usr");
	attach(usr, root, "usr");
	snprintf(id, sizeof(id), "%u", FLOOR_ID_BASE + n * FLOOR_ID_COUNT);
	const char *const options[][2] = {
	    {"mode", "0755"}, {"uid", id}, {"gid", id}, {"size", "1m"}, {NULL, NULL}};
	int dev = new_fs("tmpfs", options, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC);
	attach(dev, root, "dev");
	fill_dev(n, dev);
	if (t->by_name)
		umount2("/l/u", MNT_DETACH);
	const int fds[] = {root_lower, usr_lower[0], usr_lower[1], upper, root, usr, dev};
	for (size_t i = 0; i < sizeof(fds) / sizeof(fds[0]); i++)
		close(fds[i]);
}

void floor_tree_unstage(unsigned int n)
{
	char path[64];
	snprintf(path, sizeof(path), FLOOR_STAGE "/%u", n);
	umount2(path, MNT_DETACH);
}
