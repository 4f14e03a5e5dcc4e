/* SPDX-License-Identifier: Apache-2.0 */
/*
 * host_template.c - generations of template `host`: making, finding, removing
 *
 * Theory of operation: a generation is built in a directory of templates/host/new and renamed to
 * its final name, g-<fingerprint>[-<id shift>], when it is complete and on the disk; then the link
 * `current` is replaced by rename. Whoever dies in between leaves either `new`, which the next one
 * removes, or a generation that nobody points at, which the next one finds complete. A lock on the
 * directory keeps two makers apart. A generation in use is never touched.
 */
#include "spawn/host_internal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/fs.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/avtime.h"
#include "base/failpoint.h"
#include "base/fd.h"
#include "base/path.h"
#include "base/banned.h"

#define DIR_READ   (O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)
#define HOST_DIR   "templates/" HOST_TEMPLATE_ID
#define BUILDING   "new"
#define CURRENT    "current"
#define GEN_PREFIX "g-"
#define REVISION   1 /* of what is generated; a new number makes every machine generate again */

/* The fingerprint is FNV-1a over times and sizes of these: whatever a package manager does shows.
 */
static const char *const watched[] = {
    "usr",
    "usr/bin",
    "usr/sbin",
    "usr/lib",
    "usr/lib64",
    "usr/libexec",
    "usr/share",
    "usr/local",
    "usr/local/bin",
    "usr/local/sbin",
    "usr/local/lib",
    "usr/lib/x86_64-linux-gnu",
    "usr/lib/aarch64-linux-gnu",
    "usr/lib/python3/dist-packages",
    "var/lib/dpkg/status",
    "usr/lib/sysimage/rpm/rpmdb.sqlite",
    "var/lib/rpm/rpmdb.sqlite",
    "etc/passwd",
    "etc/group",
    "etc/ld.so.cache",
    "etc/alternatives",
    "etc/ssl/certs",
    "etc/pam.d",
    "etc/apt/sources.list.d",
};

static void mix(uint64_t *h, uint64_t v)
{
	for (int i = 0; i < 8; i++) {
		*h = (*h ^ (v & 0xff)) * 0x100000001b3ULL;
		v >>= 8;
	}
}

int host_template_fingerprint(int host_rootfd, char ret[static HOST_TEMPLATE_FP_SIZE])
{
	uint64_t h = 0xcbf29ce484222325ULL;
	mix(&h, REVISION);
	for (size_t i = 0; i < AV_ARRAY_LEN(watched); i++) {
		struct stat st;
		mix(&h, i);
		if (fstatat(host_rootfd, watched[i], &st, 0) < 0) {
			if (i == 0)
				return -errno; /* no /usr: the wrong directory */
			continue;
		}
		mix(&h, (uint64_t)st.st_mtim.tv_sec);
		mix(&h, (uint64_t)st.st_mtim.tv_nsec);
		/* A directory's size changes with its file system's mood. */
		mix(&h, S_ISDIR(st.st_mode) ? 0 : (uint64_t)st.st_size);
	}
	(void)snprintf(ret, HOST_TEMPLATE_FP_SIZE, "%016" PRIx64, h);
	return 0;
}

static int open_host_dir(int state_dirfd, bool create)
{
	if (create && ((mkdirat(state_dirfd, "templates", 0700) < 0 && errno != EEXIST) ||
	                  (mkdirat(state_dirfd, HOST_DIR, 0700) < 0 && errno != EEXIST)))
		return -errno;
	int fd = openat(state_dirfd, HOST_DIR, DIR_READ);
	return fd < 0 ? -errno : fd;
}

/* The name that `current` points at. */
static int read_current(int dirfd, char *dst, size_t size)
{
	ssize_t n = readlinkat(dirfd, CURRENT, dst, size - 1);
	if (n < 0)
		return -errno;
	dst[n] = 0;
	bool good = strncmp(dst, GEN_PREFIX, 2) == 0 && strchr(dst, '/') == NULL &&
	            (size_t)n >= 2 + HOST_TEMPLATE_FP_SIZE - 1;
	return good ? 0 : -ENOENT;
}

int host_template_open(int state_dirfd, struct host_template *ret, struct av_err *err)
{
	char name[64];
	AV_CLEANUP(av_closep) int dir = open_host_dir(state_dirfd, false);
	int r = dir < 0 ? dir : read_current(dir, name, sizeof(name));
	AV_CLEANUP(av_closep) int gen = r < 0 ? -1 : openat(dir, name, DIR_READ);
	AV_CLEANUP(av_closep) int root = gen < 0 ? -1 : openat(gen, "root", DIR_READ);
	AV_CLEANUP(av_closep) int mask = gen < 0 ? -1 : openat(gen, "usr-mask", DIR_READ);
	if (root < 0 || mask < 0)
		return av_err_set(err, AV_ERR_NOT_FOUND, "template host has not been made yet");
	ret->root_fd = AV_TAKE_FD(root);
	ret->usr_mask_fd = AV_TAKE_FD(mask);
	memcpy(ret->fingerprint, name + 2, HOST_TEMPLATE_FP_SIZE - 1);
	ret->fingerprint[HOST_TEMPLATE_FP_SIZE - 1] = 0;
	return 0;
}

void host_template_clear(struct host_template *t)
{
	av_close_fd(&t->root_fd);
	av_close_fd(&t->usr_mask_fd);
}

/* Removes dirfd/name and all below. What is there was made by us: no depth to fear. */
static int remove_tree(int dirfd, const char *name)
{
	if (unlinkat(dirfd, name, 0) == 0 || errno == ENOENT)
		return 0;
	int fd = openat(dirfd, name, DIR_READ), r = 0;
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	if (dir == NULL) {
		r = -errno;
		av_close_fd(&fd);
		return r;
	}
	for (struct dirent *e; r == 0 && (e = readdir(dir)) != NULL;)
		if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
			r = remove_tree(fd, e->d_name);
	closedir(dir);
	if (r == 0 && unlinkat(dirfd, name, AT_REMOVEDIR) < 0)
		r = -errno;
	return r;
}

static int write_metadata(
    const struct host_gen *g, int gen, const char *fingerprint, unsigned seen, unsigned masked)
{
	char text[1024];
	int n = snprintf(text, sizeof(text),
	    "{\"id\":\"host\",\"fingerprint\":\"%s\",\"revision\":%d,\"isolation\":\"jail\","
	    "\"layers\":[\"root\",\"usr-mask\",\"/usr\"],\"id_shift\":%u,\"rootless\":%s,"
	    "\"users\":[\"root\",\"%s\"],\"usr_entries\":%u,\"usr_masked\":%u,"
	    "\"created_ms\":%" PRId64 "}\n",
	    fingerprint, REVISION, (unsigned)g->opt.id_shift, g->opt.rootless ? "true" : "false",
	    HOST_USER, seen, masked, av_real_ms());
	AV_CLEANUP(av_closep)
	int fd = openat(gen, "metadata.json", O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	return fd < 0 ? -errno : av_write_full(fd, text, (size_t)n);
}

static int build(struct host_gen *g, int gen, const char *fingerprint, struct av_err *err)
{
	unsigned seen = 0, masked = 0;
	if (mkdirat(gen, "root", 0700) < 0 || mkdirat(gen, "usr-mask", 0700) < 0)
		return av_err_sys(err, AV_ERR_INTERNAL, errno, "cannot make template host");
	AV_CLEANUP(av_closep) int root = openat(gen, "root", DIR_READ);
	AV_CLEANUP(av_closep) int mask = openat(gen, "usr-mask", DIR_READ);
	if (root < 0 || mask < 0)
		return av_err_sys(err, AV_ERR_INTERNAL, errno, "cannot make template host");
	g->root = root;
	g->mask = mask;
	int r = host_skeleton_make(g, err);
	if (r < 0)
		return r;
	(void)av_failpoint("host_template_skeleton");
	r = host_mask_make(g, &seen, &masked);
	if (r < 0)
		return av_err_sys(err, AV_ERR_INTERNAL, r, "cannot look through /usr");
	r = write_metadata(g, gen, fingerprint, seen, masked);
	/* Complete on the disk before it gets its name. */
	if (r == 0 && syncfs(gen) < 0)
		r = -errno;
	return r < 0 ? av_err_sys(err, AV_ERR_INTERNAL, r, "cannot write template host") : 0;
}

/* Points `current` at name. */
static int publish(int dir, const char *name)
{
	if ((unlinkat(dir, CURRENT ".new", 0) < 0 && errno != ENOENT) ||
	    symlinkat(name, dir, CURRENT ".new") < 0 ||
	    renameat(dir, CURRENT ".new", dir, CURRENT) < 0)
		return -errno;
	return 0;
}

/* Where much was removed within the last minutes each new file costs ext4 up to half a millisecond:
 * it goes through all the inodes that it may not use again yet. So let it look for another part of
 * the disk, which it does for what is made in a "top directory", and by that one's name. Only a
 * hint, elsewhere none. */
static int make_apart(int dirfd, char name[static 24])
{
	int flags = 0;
	if (ioctl(dirfd, FS_IOC_GETFLAGS, &flags) == 0) {
		flags |= FS_TOPDIR_FL;
		(void)ioctl(dirfd, FS_IOC_SETFLAGS, &flags);
	}
	(void)snprintf(name, 24, "%" PRIx64, (uint64_t)av_mono_ns());
	return mkdirat(dirfd, name, 0700) < 0 ? -errno : 0;
}

static int make_generation(
    struct host_gen *g, int dir, const char *name, const char *fingerprint, struct av_err *err)
{
	char unique[24];
	int r = remove_tree(dir, BUILDING);
	if (r == 0 && mkdirat(dir, BUILDING, 0700) < 0)
		r = -errno;
	AV_CLEANUP(av_closep) int place = r < 0 ? -1 : openat(dir, BUILDING, DIR_READ);
	if (place >= 0)
		r = make_apart(place, unique);
	AV_CLEANUP(av_closep) int gen = place < 0 || r < 0 ? -1 : openat(place, unique, DIR_READ);
	if (gen < 0)
		return av_err_sys(
		    err, AV_ERR_INTERNAL, r < 0 ? r : errno, "cannot make template host");
	r = build(g, gen, fingerprint, err);
	if (r == 0)
		(void)av_failpoint("host_template_built");
	if (r == 0 && renameat(place, unique, dir, name) < 0)
		r = av_err_sys(err, AV_ERR_INTERNAL, errno, "cannot publish template host");
	(void)remove_tree(dir, BUILDING);
	return r;
}

int host_template_make(
    int host_rootfd, int state_dirfd, const struct host_template_options *opt, struct av_err *err)
{
	char fingerprint[HOST_TEMPLATE_FP_SIZE], name[64], now[64] = "";
	struct host_gen g = {.host = host_rootfd, .opt = *opt};
	int r = host_template_fingerprint(host_rootfd, fingerprint);
	if (r < 0)
		return av_err_sys(err, AV_ERR_INTERNAL, r, "cannot look at /usr");
	AV_CLEANUP(av_closep) int dir = open_host_dir(state_dirfd, true);
	if (dir < 0)
		return av_err_sys(
		    err, AV_ERR_INTERNAL, dir, "cannot make the directory %s", HOST_DIR);
	while (flock(dir, LOCK_EX) < 0)
		if (errno != EINTR)
			return av_err_sys(err, AV_ERR_INTERNAL, errno, "cannot lock template host");
	if (opt->id_shift != 0)
		(void)snprintf(
		    name, sizeof(name), GEN_PREFIX "%s-%x", fingerprint, (unsigned)opt->id_shift);
	else
		(void)snprintf(name, sizeof(name), GEN_PREFIX "%s", fingerprint);
	if (read_current(dir, now, sizeof(now)) == 0 && strcmp(now, name) == 0 &&
	    faccessat(dir, now, F_OK, 0) == 0)
		return 0;
	if (faccessat(dir, name, F_OK, 0) < 0) {
		r = make_generation(&g, dir, name, fingerprint, err);
		if (r < 0)
			return r;
	}
	(void)av_failpoint("host_template_renamed");
	r = publish(dir, name);
	return r < 0 ? av_err_sys(err, AV_ERR_INTERNAL, r, "cannot publish template host") : 0;
}

int host_template_gc(int state_dirfd, bool none_in_use)
{
	char now[64] = "";
	AV_CLEANUP(av_closep) int host = open_host_dir(state_dirfd, false);
	if (host < 0)
		return host == -ENOENT ? 0 : host;
	if (flock(host, LOCK_EX | LOCK_NB) < 0)
		return 0; /* one is being made; another time */
	(void)read_current(host, now, sizeof(now));
	int fd = openat(host, ".", DIR_READ), r = 0;
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	if (dir == NULL) {
		av_close_fd(&fd);
		return -EIO;
	}
	for (struct dirent *e; (e = readdir(dir)) != NULL;) {
		bool old = strncmp(e->d_name, GEN_PREFIX, 2) == 0 && strcmp(e->d_name, now) != 0;
		if (strcmp(e->d_name, BUILDING) == 0 || (old && none_in_use)) {
			int q = remove_tree(host, e->d_name);
			r = r == 0 ? q : r;
		}
	}
	closedir(dir);
	return r;
}
