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
#include "spawn/mounts.h"

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

/* One letter each: the kernels that need them take options of 255 bytes. `u` is the upper. */
static const char layer_names[] = "abcdefghijklmnopqrstvwxyzA";
static_assert(sizeof(layer_names) - 1 == MOUNTS_LAYERS_MAX, "a name for each layer");

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
		char name[2] = {layer_names[i], '\0'};
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

/* ---- layers and overlays ---- */

/* A clone of a directory, idmapped to the sandbox's range when userns_fd >= 0. */
static int clone_layer(int dirfd, const char *path, int userns_fd, bool read_only)
{
	AV_CLEANUP(av_closep)
	int fd = open_tree(dirfd, path, CLONE_FLAGS | (path[0] ? 0 : AT_EMPTY_PATH));
	if (fd < 0)
		return -errno;
	struct mount_attr attr = {
	    .attr_set = (read_only ? MOUNT_ATTR_RDONLY : 0) |
	                (userns_fd >= 0 ? (uint64_t)MOUNT_ATTR_IDMAP : 0),
	    .userns_fd = userns_fd >= 0 ? (uint64_t)userns_fd : 0,
	};
	if (attr.attr_set && mount_setattr(fd, "", AT_EMPTY_PATH, &attr, sizeof(attr)) < 0)
		return -errno;
	return AV_TAKE_FD(fd);
}

int mounts_probe_idmap(struct mounts *m, int userns_fd, int area_fd, int usr_fd)
{
	if (m->rootless || m->overlay == SPAWN_OVERLAY_SHIFTED) {
		m->native_upper = true;
		m->plain_lower = true;
		return 0;
	}
	AV_CLEANUP(av_closep) int upper = clone_layer(area_fd, "", userns_fd, false);
	if (upper < 0 && upper != -EINVAL)
		return upper;
	m->native_upper = upper < 0;
	if (usr_fd < 0)
		return 0;
	AV_CLEANUP(av_closep) int lower = clone_layer(usr_fd, "", userns_fd, true);
	if (lower < 0 && lower != -EINVAL)
		return lower;
	m->plain_lower = lower < 0;
	return 0;
}

/* An overlay being put together. */
struct overlay {
	const struct mounts *m;
	int ctx;         /* fs context */
	size_t attached; /* /l/a … are in use up to here (path `names`) */
	char lowerdir[2 * MOUNTS_LAYERS_MAX + 1];
};

static int set_string(int ctx, const char *key, const char *value)
{
	return fsconfig(ctx, FSCONFIG_SET_STRING, key, value, 0) < 0 ? -errno : 0;
}

static int add_lower(struct overlay *o, int layer_fd)
{
	if (o->m->overlay == SPAWN_OVERLAY_FD)
		return fsconfig(o->ctx, FSCONFIG_SET_FD, "lowerdir+", NULL, layer_fd) < 0 ? -errno
		                                                                          : 0;
	if (o->attached == MOUNTS_LAYERS_MAX)
		return -E2BIG;
	char name[2] = {layer_names[o->attached], '\0'};
	if (move_mount(layer_fd, "", o->m->names_fd, name, MOVE_MOUNT_F_EMPTY_PATH) < 0)
		return -errno;
	if (o->attached)
		o->lowerdir[2 * o->attached - 1] = ':';
	o->lowerdir[2 * o->attached] = name[0];
	o->attached++;
	return 0;
}

static int set_upper_fd(int ctx, const char *key, int upper_mnt, const char *dir)
{
	AV_CLEANUP(av_closep) int fd = openat(upper_mnt, dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	return fsconfig(ctx, FSCONFIG_SET_FD, key, NULL, fd) < 0 ? -errno : 0;
}

/* The directories <name> and <name>-work of the upper mount. */
static int set_upper(struct overlay *o, int upper_mnt, const char *name)
{
	char upper[32], work[40];
	const char *prefix = o->m->overlay == SPAWN_OVERLAY_FD ? "" : "u/";
	snprintf(upper, sizeof(upper), "%s%s", prefix, name);
	snprintf(work, sizeof(work), "%s%s-work", prefix, name);
	if (o->m->overlay == SPAWN_OVERLAY_FD) {
		int r = set_upper_fd(o->ctx, "upperdir", upper_mnt, upper);
		return r < 0 ? r : set_upper_fd(o->ctx, "workdir", upper_mnt, work);
	}
	int r = set_string(o->ctx, "lowerdir", o->lowerdir);
	if (r == 0)
		r = set_string(o->ctx, "upperdir", upper);
	return r < 0 ? r : set_string(o->ctx, "workdir", work);
}

static int set_options(struct overlay *o)
{
	/* Without it taking an overlay down syncs the whole file system of the uppers, which is
	 * that of all sandboxes: deleting one would wait for what the others have written. The
	 * price: fsync inside does not reach the disk, which matters only when the host itself
	 * crashes. */
	if (fsconfig(o->ctx, FSCONFIG_SET_FLAG, "volatile", NULL, 0) < 0)
		return -errno;
	if (o->m->rootless)
		return fsconfig(o->ctx, FSCONFIG_SET_FLAG, "userxattr", NULL, 0) < 0 ? -errno : 0;
	/* Renaming a directory of a lower layer works; redirects are trusted.* attributes, which
	 * nobody inside can write. */
	int r = set_string(o->ctx, "redirect_dir", "on");
	if (r == 0)
		r = set_string(o->ctx, "index", "off");
	return r < 0 ? r : set_string(o->ctx, "metacopy", "off");
}

static int configure_overlay(
    struct overlay *o, const int *lowers, size_t n_lowers, int upper_mnt, const char *upper_name)
{
	int r = set_string(o->ctx, "source", "aviary");
	for (size_t i = 0; r == 0 && i < n_lowers; i++)
		r = add_lower(o, lowers[i]);
	if (r == 0)
		r = set_upper(o, upper_mnt, upper_name);
	if (r == 0)
		r = set_options(o);
	if (r < 0)
		return r;
	return fsconfig(o->ctx, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0 ? -errno : 0;
}

/* Path `names`: relative to the working directory, looked up with the option since Linux 6.5, with
 * the creation before. */
static int create_overlay(
    struct overlay *o, const int *lowers, size_t n_lowers, int upper_mnt, const char *upper_name)
{
	bool by_name = o->m->overlay != SPAWN_OVERLAY_FD;
	if (by_name && fchdir(o->m->names_fd) < 0)
		return -errno;
	int r = configure_overlay(o, lowers, n_lowers, upper_mnt, upper_name);
	if (by_name && chdir("/") < 0 && r == 0)
		r = -errno;
	return r;
}

static void detach_names(const struct overlay *o)
{
	if (fchdir(o->m->names_fd) < 0)
		return;
	for (size_t i = 0; i < o->attached; i++) {
		char name[2] = {layer_names[i], '\0'};
		umount2(name, MNT_DETACH | UMOUNT_NOFOLLOW);
	}
	if (chdir("/") < 0)
		return;
}

/* Mounts with the ids of the range (the caller entered them). Detached; *ret_fd is the caller's. */
static int mount_overlay(const struct mounts *m, const int *lowers, size_t n_lowers, int upper_mnt,
    const char *upper_name, int *ret_fd)
{
	AV_CLEANUP(av_closep) int ctx = fsopen("overlay", FSOPEN_CLOEXEC);
	if (ctx < 0)
		return -errno;
	struct overlay o = {.m = m, .ctx = ctx};
	int r = create_overlay(&o, lowers, n_lowers, upper_mnt, upper_name);
	detach_names(&o);
	if (r < 0)
		return r;
	AV_CLEANUP(av_closep) int fd = fsmount(ctx, FSMOUNT_CLOEXEC, MOUNT_ATTR_NODEV);
	if (fd < 0)
		return -errno;
	struct statvfs st;
	if (fstatvfs(fd, &st) < 0)
		return -errno;
	if (st.f_flag & ST_RDONLY)
		return -EROFS; /* the kernel's log has overlayfs's reason */
	*ret_fd = AV_TAKE_FD(fd);
	return 0;
}

static void spend(struct mounts *m, const int *fds, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		assert(m->n_spent < AV_ARRAY_LEN(m->spent));
		m->spent[m->n_spent++] = fds[i];
	}
}

static int clone_lowers(struct mounts *m, const struct mounts_layers *l, int userns_fd,
    int ret_fds[static MOUNTS_LAYERS_MAX])
{
	for (size_t i = 0; i < l->n; i++) {
		int map = m->rootless || m->overlay == SPAWN_OVERLAY_SHIFTED ? -1 : userns_fd;
		ret_fds[i] = clone_layer(l->fd[i], "", map, true);
		if (ret_fds[i] == -EINVAL && m->plain_lower)
			ret_fds[i] = clone_layer(l->fd[i], "", -1, true);
		if (ret_fds[i] < 0) {
			int r = ret_fds[i];
			spend(m, ret_fds, i);
			return r;
		}
	}
	return 0;
}

static int build_overlay(struct mounts *m, const struct mounts_spec *spec,
    const struct mounts_layers *layers, int upper_mnt, const char *upper_name, int *ret_fd)
{
	int lowers[MOUNTS_LAYERS_MAX];
	int r = clone_lowers(m, layers, spec->userns_fd, lowers);
	if (r < 0)
		return r;
	r = ids_enter(spec->ids, spec->slot);
	if (r == 0) {
		r = mount_overlay(m, lowers, layers->n, upper_mnt, upper_name, ret_fd);
		ids_leave(spec->ids);
	}
	spend(m, lowers, layers->n);
	return r;
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
} dev_nodes[] = {
    {"null", 3},
    {"zero", 5},
    {"full", 7},
    {"random", 8},
    {"urandom", 9},
    {"tty", 0},
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

static int fill_dev(int dev, bool rootless, const struct mounts_limits *limits)
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
		if ((r = make_node(dev, rootless, i)) < 0)
			return r;
	for (size_t i = 0; i < AV_ARRAY_LEN(links); i++)
		if (symlinkat(links[i][1], dev, links[i][0]) < 0)
			return -errno;
	for (size_t i = 0; i < AV_ARRAY_LEN(dirs); i++)
		if ((r = make_dir(dev, dirs[i], 0755)) < 0)
			return r;
	return limits_files_write(dev, limits);
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
	int r = ids_enter(spec->ids, spec->slot);
	if (r < 0)
		return av_err_sys(err, AV_ERR_INTERNAL, r, "cannot take the ids of the sandbox");
	/* A template may do without. Whatever else has the name stays and is refused below. */
	if (mkdirat(root, "dev", 0755) < 0 && errno != EEXIST)
		r = -errno;
	ids_leave(spec->ids);
	if (r == 0)
		r = attach_below(root, "dev", dev);
	if (r < 0)
		return mount_point_error(err, r, "dev");
	r = ids_enter(spec->ids, spec->slot);
	if (r == 0) {
		r = fill_dev(dev, m->rootless, &spec->limits);
		ids_leave(spec->ids);
	}
	return r < 0 ? av_err_sys(err, AV_ERR_INTERNAL, r, "cannot make /dev") : 0;
}

static int stage_overlays(struct mounts *m, const struct mounts_spec *spec, const char *path,
    int upper_mnt, struct av_err *err)
{
	AV_CLEANUP(av_closep) int root = -1;
	AV_CLEANUP(av_closep) int usr = -1;
	int r = build_overlay(m, spec, spec->root, upper_mnt, "root", &root);
	if (r < 0)
		return av_err_sys(err, AV_ERR_INTERNAL, r, "cannot mount the root overlay");
	if (move_mount(root, "", AT_FDCWD, path, MOVE_MOUNT_F_EMPTY_PATH) < 0)
		return av_err_sys(err, AV_ERR_INTERNAL, errno, "cannot attach the root overlay");
	if (spec->usr) {
		r = build_overlay(m, spec, spec->usr, upper_mnt, "usr", &usr);
		if (r < 0)
			return av_err_sys(err, AV_ERR_INTERNAL, r, "cannot mount the /usr overlay");
		r = attach_below(root, "usr", usr);
		if (r < 0)
			return mount_point_error(err, r, "usr");
	}
	return stage_dev(m, spec, root, err);
}

int mounts_stage(struct mounts *m, const struct mounts_spec *spec, struct av_err *err)
{
	char path[MOUNTS_STAGE_SIZE];
	mounts_stage_path(spec->stage, path);
	if (mkdir(path, 0700) < 0)
		return av_err_sys(err, AV_ERR_INTERNAL, errno, "mkdir %s", path);
	int upper = clone_layer(spec->area_fd, "fs", m->native_upper ? -1 : spec->userns_fd, false);
	if (upper < 0)
		return av_err_sys(err, AV_ERR_INTERNAL, upper, "cannot clone the disk area");
	spend(m, &upper, 1);
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
