/* SPDX-License-Identifier: Apache-2.0 */
/*
 * mounts.c - the worker's private mount tree and the staging of root file systems
 *
 * Theory of operation. An idmapped clone of a layer is only ever given to overlayfs: attached where
 * guest code can reach it, sandbox root could remount it writable and make set-uid files of host
 * root on it. The overlay is mounted by the worker, so its superblock belongs to the first user
 * namespace and set-uid programs of the sandbox's range work in it.
 *
 * The credentials of the moment of mounting become overlayfs's own for every later write: they need
 * the file system ids of the range (else the work directory's owner is unmapped and the overlay is
 * silently read-only), and must not have CAP_SYS_RESOURCE effective (else quotas and reserved
 * blocks would not bind the sandbox). The worker does not have it; see caps.c.
 *
 * Capability checks on files need their owner mapped in the mount: that is why uppers lie one level
 * below the area (whose owner is the range's first id) in a directory of on-disk id 0.
 */
#include "spawn/mounts_internal.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/path.h"
#include "spawn/limits_files.h"
#include "spawn/sys.h"
#include "base/banned.h"

#define CLONE_FLAGS (OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC)
#define MOVE_FD     (MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH)

/* ---- the private tree ---- */

int mounts_enter_userns(struct av_err *err)
{
	uid_t uid = geteuid();
	gid_t gid = getegid();
	char map[64];
	if (unshare(CLONE_NEWUSER | CLONE_NEWNS) < 0)
		return av_err_sys(err, AV_ERR_INTERNAL, errno,
		    "this kernel gives ordinary users no user namespace (`aviary doctor` knows the "
		    "cure)");
	int r = av_write_file_at(AT_FDCWD, "/proc/self/setgroups", AV_STR("deny"));
	snprintf(map, sizeof(map), "0 %u 1", uid);
	if (r == 0)
		r = av_write_file_at(AT_FDCWD, "/proc/self/uid_map", av_str_c(map));
	snprintf(map, sizeof(map), "0 %u 1", gid);
	if (r == 0)
		r = av_write_file_at(AT_FDCWD, "/proc/self/gid_map", av_str_c(map));
	return r < 0 ? av_err_sys(err, AV_ERR_INTERNAL, r, "cannot map the user's own id") : 0;
}

/* A new tmpfs, not attached. */
static int make_tmpfs(const char *const options[][2], unsigned int attrs)
{
	AV_CLEANUP(av_closep) int ctx = fsopen("tmpfs", FSOPEN_CLOEXEC);
	if (ctx < 0)
		return -errno;
	for (; (*options)[0]; options++)
		if (fsconfig(ctx, FSCONFIG_SET_STRING, (*options)[0], (*options)[1], 0) < 0)
			return -errno;
	if (fsconfig(ctx, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0)
		return -errno;
	int fd = fsmount(ctx, FSMOUNT_CLOEXEC, attrs);
	return fd < 0 ? -errno : fd;
}

/* What is taken over from the host's tree. */
struct host_tree {
	const char *from; /* absolute, in the host's namespace */
	const char *to;   /* name below the new root */
	bool recursive;
	bool read_only;
	bool optional;
};

/* Rootless, mounts below cannot be left out: the kernel keeps together what it locked. */
static int clone_host(const struct host_tree *t, bool rootless)
{
	unsigned int recursive = t->recursive || rootless ? AT_RECURSIVE : 0;
	AV_CLEANUP(av_closep) int fd = open_tree(AT_FDCWD, t->from, CLONE_FLAGS | recursive);
	if (fd < 0)
		return -errno;
	struct mount_attr attr = {.attr_set = MOUNT_ATTR_RDONLY};
	if (t->read_only &&
	    mount_setattr(fd, "", AT_EMPTY_PATH | recursive, &attr, sizeof(attr)) < 0)
		return -errno;
	return AV_TAKE_FD(fd);
}

static int attach_host(int root, const struct host_tree *t, bool rootless, struct av_err *err)
{
	AV_CLEANUP(av_closep) int tree = clone_host(t, rootless);
	if (tree < 0)
		return t->optional
		           ? 0
		           : av_err_sys(err, AV_ERR_INTERNAL, tree, "cannot take over %s", t->from);
	if (mkdirat(root, t->to, 0755) < 0 && errno != EEXIST)
		return av_err_sys(err, AV_ERR_INTERNAL, errno, "mkdir %s", t->to);
	if (move_mount(tree, "", root, t->to, MOVE_MOUNT_F_EMPTY_PATH) < 0)
		return av_err_sys(err, AV_ERR_INTERNAL, errno, "cannot attach %s", t->from);
	return 0;
}

/* /lib, /bin and so on: links into /usr as a rule, else directories of their own. Programs that the
 * worker executes (mkfs) find their loader there. */
static int attach_usr_names(int root, bool rootless, struct av_err *err)
{
	static const char *const names[] = {"bin", "sbin", "lib", "lib32", "lib64", "libx32"};
	for (size_t i = 0; i < AV_ARRAY_LEN(names); i++) {
		char from[16], link[256];
		snprintf(from, sizeof(from), "/%s", names[i]);
		ssize_t n = readlink(from, link, sizeof(link) - 1);
		if (n > 0) {
			link[n] = '\0';
			if (symlinkat(link, root, names[i]) < 0)
				return av_err_sys(err, AV_ERR_INTERNAL, errno, "link %s", from);
			continue;
		}
		const struct host_tree t = {
		    .from = from, .to = names[i], .read_only = true, .optional = true};
		int r = attach_host(root, &t, rootless, err);
		if (r < 0)
			return r;
	}
	return 0;
}

static int fill_root(int root, const struct spawn_options *o, struct av_err *err)
{
	const struct host_tree trees[] = {
	    {.from = o->state_dir, .to = "state"},
	    {.from = o->run_dir, .to = "run"},
	    {.from = "/usr", .to = "usr", .recursive = true, .read_only = true},
	    /* Whole: a sandbox may mount its own proc and sysfs only where others are in full view.
	     */
	    {.from = "/proc", .to = "proc"},
	    {.from = "/sys", .to = "sys", .read_only = true},
	    {.from = "/dev", .to = "dev"},
	};
	/* A child looks up its staged root with the sandbox's ids. pasta makes its empty root on
	 * /tmp and asks the resolver of /etc/resolv.conf. */
	static const char *const dirs[] = {"stage", "disk", "l", "tmp", "etc"};
	for (size_t i = 0; i < AV_ARRAY_LEN(dirs); i++)
		if (mkdirat(root, dirs[i], 0711) < 0)
			return av_err_sys(err, AV_ERR_INTERNAL, errno, "mkdir %s", dirs[i]);
	for (size_t i = 0; i < AV_ARRAY_LEN(trees); i++) {
		int r = attach_host(root, &trees[i], o->rootless, err);
		if (r < 0)
			return r;
	}
	return attach_usr_names(root, o->rootless, err);
}

static int open_dirs(struct mounts *m, struct av_err *err)
{
	const struct {
		const char *path;
		int *fd;
	} dirs[] = {
	    {"/proc", &m->proc_fd},
	    {MOUNTS_STATE, &m->state_fd},
	    {MOUNTS_RUN, &m->run_fd},
	    {"/l", &m->names_fd},
	};
	for (size_t i = 0; i < AV_ARRAY_LEN(dirs); i++) {
		*dirs[i].fd = open(dirs[i].path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		if (*dirs[i].fd < 0)
			return av_err_sys(
			    err, AV_ERR_INTERNAL, errno, "cannot open %s", dirs[i].path);
	}
	for (size_t i = 0; i < MOUNTS_LAYERS_MAX; i++) {
		char name[2] = {mounts_layer_names[i], '\0'};
		if (mkdirat(m->names_fd, name, 0700) < 0)
			return av_err_sys(err, AV_ERR_INTERNAL, errno, "mkdir /l/%s", name);
	}
	if (mkdirat(m->names_fd, "u", 0700) < 0)
		return av_err_sys(err, AV_ERR_INTERNAL, errno, "mkdir /l/u");
	return 0;
}

int mounts_enter(struct mounts *m, const struct spawn_options *o, struct av_err *err)
{
	m->rootless = o->rootless;
	/* Before the namespace: in the copy, mounts below / would be gone once its root is
	 * detached. */
	m->host_root_fd = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (m->host_root_fd < 0)
		return av_err_sys(err, AV_ERR_INTERNAL, errno, "cannot open /");
	int r = 0;
	if (o->rootless)
		r = mounts_enter_userns(err);
	else if (unshare(CLONE_NEWNS) < 0)
		r = av_err_sys(err, AV_ERR_INTERNAL, errno, "cannot make a mount namespace");
	if (r < 0)
		return r;
	if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
		return av_err_sys(err, AV_ERR_INTERNAL, errno, "cannot make mounts private");
	static const char *const options[][2] = {{"mode", "0711"}, {"size", "16m"}, {NULL, NULL}};
	AV_CLEANUP(av_closep) int root = make_tmpfs(options, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV);
	if (root < 0)
		return av_err_sys(err, AV_ERR_INTERNAL, root, "cannot mount a tmpfs");
	/* On top of /, where path names do not reach; it becomes the root below. */
	if (move_mount(root, "", AT_FDCWD, "/", MOVE_MOUNT_F_EMPTY_PATH) < 0)
		return av_err_sys(err, AV_ERR_INTERNAL, errno, "cannot attach the private root");
	umask(0);
	r = fill_root(root, o, err);
	if (r < 0)
		return r;
	if (fchdir(root) < 0 || sys_pivot_root(".", ".") < 0 || umount2(".", MNT_DETACH) < 0 ||
	    chdir("/") < 0)
		return av_err_sys(err, AV_ERR_INTERNAL, errno, "cannot enter the private root");
	return open_dirs(m, err);
}

/* ---- the disk area ---- */

static int write_file(int dirfd, const char *name, const char *text)
{
	AV_CLEANUP(av_closep)
	int fd = openat(dirfd, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644);
	if (fd < 0)
		return -errno;
	return av_write_full(fd, text, strlen(text));
}

static int make_dir(int dirfd, const char *name, mode_t mode)
{
	return mkdirat(dirfd, name, mode) < 0 ? -errno : 0;
}

/* Written straight into the upper directory: cheaper than a copy-up, and nothing runs inside yet.
 */
static int write_identity(int fs, const struct mounts_identity *id)
{
	int r = make_dir(fs, "root/etc", 0755);
	if (r < 0)
		return r;
	char text[256];
	snprintf(text, sizeof(text), "%s\n", id->hostname);
	r = write_file(fs, "root/etc/hostname", text);
	if (r < 0)
		return r;
	snprintf(text, sizeof(text),
	    "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n127.0.1.1\t%s\n",
	    id->hostname);
	r = write_file(fs, "root/etc/hosts", text);
	if (r == 0 && id->resolv_conf)
		r = write_file(fs, "root/etc/resolv.conf", id->resolv_conf);
	return r;
}

static int make_uppers(int area_fd, const struct mounts_identity *id)
{
	AV_CLEANUP(av_closep) int fs = -1;
	int r = make_dir(area_fd, "fs", 0755);
	if (r < 0)
		return r;
	fs = openat(area_fd, "fs", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fs < 0)
		return -errno;
	static const char *const dirs[] = {"root", "root-work", "usr", "usr-work"};
	for (size_t i = 0; i < AV_ARRAY_LEN(dirs); i++) {
		r = make_dir(fs, dirs[i], 0755);
		if (r < 0)
			return r;
	}
	return write_identity(fs, id);
}

int mounts_prepare_area(const struct mounts *m, const struct ids *ids, uint32_t slot, int area_fd,
    const struct mounts_identity *identity, int *ret_exit_fd, struct av_err *err)
{
	/* Outside the range, so that the sandbox could not open it even with the path. */
	AV_CLEANUP(av_closep)
	int record = openat(area_fd, MOUNTS_EXIT_RECORD,
	    O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (record < 0)
		return av_err_sys(err, AV_ERR_INTERNAL, errno, "cannot make the exit record");
	int r = m->native_upper ? ids_enter(ids, slot) : 0;
	if (r == 0) {
		r = make_uppers(area_fd, identity);
		if (m->native_upper)
			ids_leave(ids);
	}
	if (r < 0)
		return av_err_sys(err, AV_ERR_INTERNAL, r, "cannot fill the disk area");
	*ret_exit_fd = AV_TAKE_FD(record);
	return 0;
}

/* ---- staging ---- */

void mounts_stage_path(uint32_t stage, char path[static MOUNTS_STAGE_SIZE])
{
	snprintf(path, MOUNTS_STAGE_SIZE, "/stage/%u", stage);
}

/* A mount point that a template provides: never through a link. */
static int open_mount_point(int root, const char *name)
{
	struct open_how how = {
	    .flags = O_PATH | O_DIRECTORY | O_CLOEXEC,
	    .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS,
	};
	int fd = (int)syscall(SYS_openat2, root, name, &how, sizeof(how));
	return fd < 0 ? -errno : fd;
}

static int attach_below(int root, const char *name, int mnt)
{
	AV_CLEANUP(av_closep) int at = open_mount_point(root, name);
	if (at < 0)
		return at;
	return move_mount(mnt, "", at, "", MOVE_FD) < 0 ? -errno : 0;
}

static int mount_point_error(struct av_err *err, int error, const char *name)
{
	if (error != -ELOOP && error != -ENOTDIR && error != -ENOENT)
		return av_err_sys(err, AV_ERR_INTERNAL, error, "cannot attach /%s", name);
	(void)av_err_set(err, AV_ERR_INVALID_STATE,
	    "/%s of the template is %s and not a directory: make another template", name,
	    error == -ENOENT  ? "missing"
	    : error == -ELOOP ? "a link"
	                      : "a file");
	return -ESTALE;
}

static const struct {
	const char *name;
	unsigned int minor;
	bool vm; /* virtual machines have it */
} dev_nodes[] = {
    {"null", 3, true},
    {"zero", 5, true},
    {"full", 7, false},
    {"random", 8, true},
    {"urandom", 9, true},
    {"tty", 0, false},
};

/* The host's node, since nobody but host root can make one. */
static int bind_host_node(int dev, const char *name)
{
	char host[32];
	snprintf(host, sizeof(host), "/dev/%s", name);
	AV_CLEANUP(av_closep)
	int file = openat(dev, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
	if (file < 0)
		return -errno;
	AV_CLEANUP(av_closep) int node = open_tree(AT_FDCWD, host, CLONE_FLAGS);
	if (node < 0)
		return -errno;
	return move_mount(node, "", file, "", MOVE_FD) < 0 ? -errno : 0;
}

static int make_node(int dev, bool rootless, size_t i)
{
	if (rootless)
		return bind_host_node(dev, dev_nodes[i].name);
	unsigned int major_number = dev_nodes[i].minor == 0 ? 5 : 1;
	return mknodat(dev, dev_nodes[i].name, S_IFCHR | 0666,
	           makedev(major_number, dev_nodes[i].minor)) < 0
	           ? -errno
	           : 0;
}

static int fill_dev(int dev, bool rootless, const struct mounts_spec *spec)
{
	static const char *const links[][2] = {
	    {"fd", "/proc/self/fd"},
	    {"stdin", "/proc/self/fd/0"},
	    {"stdout", "/proc/self/fd/1"},
	    {"stderr", "/proc/self/fd/2"},
	    {"ptmx", "pts/ptmx"},
	};
	static const char *const dirs[] = {"pts", "shm", "mqueue"};
	int r;
	for (size_t i = 0; i < AV_ARRAY_LEN(dev_nodes); i++)
		if ((dev_nodes[i].vm || !spec->vm) && (r = make_node(dev, rootless, i)) < 0)
			return r;
	if (spec->vm)
		return 0;
	for (size_t i = 0; i < AV_ARRAY_LEN(links); i++)
		if (symlinkat(links[i][1], dev, links[i][0]) < 0)
			return -errno;
	for (size_t i = 0; i < AV_ARRAY_LEN(dirs); i++)
		if ((r = make_dir(dev, dirs[i], 0755)) < 0)
			return r;
	return limits_files_write(dev, &spec->limits);
}

/* A directory of the root, made with the ids of the sandbox unless a template has it. Whatever else
 * has the name stays, and is refused when something is to be attached there. */
static int make_mount_point(const struct mounts_spec *spec, int root, const char *name)
{
	int r = ids_enter(spec->ids, spec->slot);
	if (r < 0)
		return r;
	if (mkdirat(root, name, 0755) < 0 && errno != EEXIST)
		r = -errno;
	ids_leave(spec->ids);
	return r;
}

/* A tmpfs of the sandbox's own, mounted here and not by the child because device nodes do not work
 * on what a user namespace mounts. Nodes are the sandbox's own inodes: locks and inotify on a
 * shared /dev/null would let two sandboxes meet. */
static int stage_dev(
    const struct mounts *m, const struct mounts_spec *spec, int root, struct av_err *err)
{
	char id[16];
	snprintf(id, sizeof(id), "%u", ids_base(spec->ids, spec->slot));
	const char *const options[][2] = {
	    {"mode", "0755"}, {"uid", id}, {"gid", id}, {"size", "1m"}, {NULL, NULL}};
	AV_CLEANUP(av_closep) int dev = make_tmpfs(options, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC);
	if (dev < 0)
		return av_err_sys(err, AV_ERR_INTERNAL, dev, "cannot make /dev");
	int r = make_mount_point(spec, root, "dev");
	if (r == 0)
		r = attach_below(root, "dev", dev);
	if (r < 0)
		return mount_point_error(err, r, "dev");
	r = ids_enter(spec->ids, spec->slot);
	if (r == 0) {
		r = fill_dev(dev, m->rootless, spec);
		ids_leave(spec->ids);
	}
	return r < 0 ? av_err_sys(err, AV_ERR_INTERNAL, r, "cannot make /dev") : 0;
}

static int stage_extra(struct mounts *m, const struct mounts_spec *spec,
    const struct mounts_extra *extra, int root, struct av_err *err)
{
	AV_CLEANUP(av_closep) int mnt = -1;
	int r = mounts_build_overlay(m, spec, extra->layers, NULL, &mnt);
	if (r < 0)
		return av_err_sys(err, AV_ERR_INTERNAL, r, "cannot mount /%s", extra->name);
	r = make_mount_point(spec, root, extra->name);
	if (r == 0)
		r = attach_below(root, extra->name, mnt);
	return r < 0 ? mount_point_error(err, r, extra->name) : 0;
}

static int stage_overlays(struct mounts *m, const struct mounts_spec *spec, const char *path,
    int upper_mnt, struct av_err *err)
{
	AV_CLEANUP(av_closep) int root = -1;
	AV_CLEANUP(av_closep) int usr = -1;
	const struct mounts_upper root_upper = {upper_mnt, "root"}, usr_upper = {upper_mnt, "usr"};
	int r = mounts_build_overlay(m, spec, spec->root, &root_upper, &root);
	if (r < 0)
		return av_err_sys(err, AV_ERR_INTERNAL, r, "cannot mount the root overlay");
	if (move_mount(root, "", AT_FDCWD, path, MOVE_MOUNT_F_EMPTY_PATH) < 0)
		return av_err_sys(err, AV_ERR_INTERNAL, errno, "cannot attach the root overlay");
	if (spec->usr) {
		r = mounts_build_overlay(m, spec, spec->usr, &usr_upper, &usr);
		if (r < 0)
			return av_err_sys(err, AV_ERR_INTERNAL, r, "cannot mount the /usr overlay");
		r = attach_below(root, "usr", usr);
		if (r < 0)
			return mount_point_error(err, r, "usr");
	}
	r = stage_dev(m, spec, root, err);
	for (size_t i = 0; r == 0 && i < AV_ARRAY_LEN(spec->extra); i++)
		if (spec->extra[i].layers)
			r = stage_extra(m, spec, &spec->extra[i], root, err);
	return r;
}

int mounts_stage(struct mounts *m, const struct mounts_spec *spec, struct av_err *err)
{
	char path[MOUNTS_STAGE_SIZE];
	mounts_stage_path(spec->stage, path);
	if (mkdir(path, 0700) < 0)
		return av_err_sys(err, AV_ERR_INTERNAL, errno, "mkdir %s", path);
	int upper =
	    mounts_clone_layer(spec->area_fd, "fs", m->native_upper ? -1 : spec->userns_fd, false);
	if (upper < 0)
		return av_err_sys(err, AV_ERR_INTERNAL, upper, "cannot clone the disk area");
	mounts_spend(m, &upper, 1);
	bool by_name = m->overlay != SPAWN_OVERLAY_FD;
	if (by_name && move_mount(upper, "", m->names_fd, "u", MOVE_MOUNT_F_EMPTY_PATH) < 0)
		return av_err_sys(err, AV_ERR_INTERNAL, errno, "cannot attach the disk area");
	int r = stage_overlays(m, spec, path, upper, err);
	if (by_name)
		umount2("/l/u", MNT_DETACH);
	if (r < 0)
		mounts_unstage(spec->stage);
	return r;
}

void mounts_unstage(uint32_t stage)
{
	char path[MOUNTS_STAGE_SIZE];
	mounts_stage_path(stage, path);
	umount2(path, MNT_DETACH | UMOUNT_NOFOLLOW);
	rmdir(path);
}
