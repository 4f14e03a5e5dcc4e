/* SPDX-License-Identifier: Apache-2.0 */
/*
 * guest_identity.c - a guest becomes somebody, and says what it has become
 *
 * Theory of operation. Many guests come out of one memory file: they are the same machine, to the
 * last bit of their random numbers, until this ran. Nothing of users runs meanwhile (guest.h). The
 * order is that of dependence: random numbers first, so that nothing below makes one of the old
 * state; the clock before files get their times. That the file system grows is not waited for: it
 * takes 60 ms for each GiB where the machine is emulated, and has room for the first seconds.
 *
 * A guest that is who it was (a paused one that goes on) keeps its files: what users wrote there is
 * theirs. Names of the kernel (host name, addresses) are set all the same.
 *
 * Files of /etc are overwritten in place where they are plain files, which needs no room on a full
 * disk, and some room is kept for those that were removed; what else has their name is replaced. No
 * link is followed: it would only lead around in the guest's own root, but where a file is asked
 * for one shall be.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/random.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/prctl.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#include "agent/guest_internal.h"
#include "base/fd.h"
#include "base/ids.h"
#include "base/num.h"

#include "base/banned.h"

/* linux/ext4.h is not among the headers for programs before 6.8. */
#define EXT4_IOC_RESIZE_FS_ _IOW('f', 16, uint64_t)

#define REHEARSED_NAME    "sb0000000000" /* as long as a sandbox's */
#define REHEARSED_ADDRESS 0xa9fe0001U    /* 169.254.0.1 */
#define BOOT_ID_PATH      "/proc/sys/kernel/random/boot_id"
#define BOOT_ID_FILE      "/run/.boot_id"
#define SPARE_FILE        "spare"
#define SPARE_BYTES       (256 * 1024)
#define UUID_TEXT         36
#define HEX_ID            32

/* --- random numbers and clock --- */

static int reseed(const uint8_t entropy[static 64])
{
	struct {
		struct rand_pool_info head;
		uint8_t bytes[64];
	} pool = {.head = {.entropy_count = 64 * 8, .buf_size = 64}};
	AV_CLEANUP(av_closep) int fd = open("/dev/urandom", O_RDWR | O_CLOEXEC);
	int r = fd < 0 ? -errno : 0;

	static_assert(sizeof(pool) == sizeof(pool.head) + 64, "the bytes follow the head");
	memcpy(pool.bytes, entropy, sizeof(pool.bytes));
	if (r == 0 && (ioctl(fd, RNDADDENTROPY, &pool) < 0 || ioctl(fd, RNDRESEEDCRNG) < 0))
		r = -errno;
	explicit_bzero(&pool, sizeof(pool));
	return r;
}

static int set_clock(int64_t real_ns)
{
	const struct timespec ts = {
	    .tv_sec = real_ns / 1000000000, .tv_nsec = real_ns % 1000000000};

	if (real_ns <= 0)
		return -EINVAL;
	return clock_settime(CLOCK_REALTIME, &ts) < 0 ? -errno : 0;
}

/* --- files --- */

static int open_etc(int root_fd)
{
	AV_CLEANUP(av_closep) int dir = guest_open_dir(root_fd, "etc");
	int fd;

	if (dir < 0)
		return dir;
	fd = openat(dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

/* The size changes only where it must: that is most of the work. */
static int overwrite(int fd, struct av_str text)
{
	ssize_t n = pwrite(fd, text.p, text.n, 0);
	struct stat st;

	if (n < 0)
		return -errno;
	if ((size_t)n != text.n)
		return -ENOSPC;
	if (fstat(fd, &st) == 0 && st.st_size == (off_t)text.n)
		return 0;
	return ftruncate(fd, (off_t)text.n) < 0 ? -errno : 0;
}

static int try_put_file(int etc, const char *name, struct av_str text)
{
	AV_CLEANUP(av_closep)
	int fd = openat(etc, name, O_WRONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	struct stat st;

	if (fd >= 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_nlink == 1)
		return overwrite(fd, text);
	av_close_fd(&fd);
	if (unlinkat(etc, name, 0) < 0 && errno != ENOENT)
		return -errno;
	fd = openat(etc, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644);
	return fd < 0 ? -errno : overwrite(fd, text);
}

/* Room that users cannot have filled: a file beside what is the upper layer of the root. */
static void keep_spare(int disk_fd)
{
	AV_CLEANUP(av_closep)
	int fd = openat(disk_fd, SPARE_FILE, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

	/* Without it a full disk is an error: nothing is lost but that. */
	if (fd >= 0 && fallocate(fd, 0, 0, SPARE_BYTES) < 0)
		unlinkat(disk_fd, SPARE_FILE, 0);
}

static int put_file(const struct guest_self *self, int etc, const char *name, struct av_str text)
{
	int r = try_put_file(etc, name, text);

	if (r != -ENOSPC || unlinkat(self->disk_fd, SPARE_FILE, 0) < 0)
		return r;
	/* Blocks are free again when the journal says so. */
	syncfs(self->disk_fd);
	return try_put_file(etc, name, text);
}

static void hex_text(const uint8_t *p, size_t n, char *dst)
{
	static const char digits[] = "0123456789abcdef";

	for (size_t i = 0; i < n; i++) {
		dst[2 * i] = digits[p[i] >> 4];
		dst[2 * i + 1] = digits[p[i] & 15];
	}
	dst[2 * n] = '\0';
}

static int put_files(const struct guest_self *self, int etc, const struct av_guest_identity *id,
    const char **ret_what)
{
	char text[256], machine_id[HEX_ID + 1];
	int r;

	*ret_what = "/etc/hostname";
	snprintf(text, sizeof(text), "%s\n", id->hostname);
	if ((r = put_file(self, etc, "hostname", av_str_c(text))) < 0)
		return r;
	*ret_what = "/etc/hosts";
	snprintf(text, sizeof(text),
	    "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n127.0.1.1\t%s\n",
	    id->hostname);
	if ((r = put_file(self, etc, "hosts", av_str_c(text))) < 0)
		return r;
	*ret_what = "/etc/machine-id";
	hex_text(id->machine_id, sizeof(id->machine_id), machine_id);
	snprintf(text, sizeof(text), "%s\n", machine_id);
	if ((r = put_file(self, etc, "machine-id", av_str_c(text))) < 0)
		return r;
	/* Without a resolver the file is the template's. */
	*ret_what = "/etc/resolv.conf";
	snprintf(text, sizeof(text), "nameserver %u.%u.%u.%u\n", id->resolver >> 24,
	    id->resolver >> 16 & 255, id->resolver >> 8 & 255, id->resolver & 255);
	return id->resolver ? put_file(self, etc, "resolv.conf", av_str_c(text)) : 0;
}

static bool read_machine_id(int root_fd, uint8_t ret[static 16])
{
	AV_CLEANUP(av_closep) int etc = open_etc(root_fd);
	AV_CLEANUP(av_closep) int fd = -1;
	uint8_t id[16] = {0};
	char text[HEX_ID];

	if (etc < 0)
		return false;
	fd = openat(etc, "machine-id", O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	if (fd < 0 || pread(fd, text, sizeof(text), 0) != HEX_ID)
		return false;
	for (size_t i = 0; i < sizeof(id); i++) {
		uint64_t byte;

		if (av_parse_hex_u64(av_str_n(text + 2 * i, 2), 255, &byte) < 0)
			return false;
		id[i] = (uint8_t)byte;
	}
	memcpy(ret, id, sizeof(id));
	return true;
}

/* --- the kernel's id of this boot, by which programs know a machine from its past --- */

/* A random UUID (RFC 4122, version 4), with a newline as the kernel has it. */
static void put_boot_id(int fd)
{
	char hex[HEX_ID + 1], text[UUID_TEXT + 2];
	uint8_t id[16];

	av_random(id, sizeof(id));
	id[6] = (uint8_t)((id[6] & 0x0f) | 0x40);
	id[8] = (uint8_t)((id[8] & 0x3f) | 0x80);
	hex_text(id, sizeof(id), hex);
	snprintf(text, sizeof(text), "%.8s-%.4s-%.4s-%.4s-%.12s\n", hex, hex + 8, hex + 12,
	    hex + 16, hex + 20);
	if (overwrite(fd, av_str_c(text)) < 0)
		return; /* on tmpfs, in its first block: cannot fail */
}

/* The kernel's own cannot be changed. A file of ours lies over it from the beginning, so that an
 * identity has nothing to mount. Without it the machine is the poorer by one id only. */
void guest_identity_prepare(struct guest_self *self)
{
	AV_CLEANUP(av_closep)
	int fd = open(BOOT_ID_FILE, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0444), mnt = -1;
	struct mount_attr attr = {.attr_set = MOUNT_ATTR_RDONLY};

	if (fd < 0)
		return;
	put_boot_id(fd);
	mnt = open_tree(AT_FDCWD, BOOT_ID_FILE, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
	if (mnt >= 0 && mount_setattr(mnt, "", AT_EMPTY_PATH, &attr, sizeof(attr)) == 0 &&
	    move_mount(mnt, "", AT_FDCWD, BOOT_ID_PATH, MOVE_MOUNT_F_EMPTY_PATH) == 0)
		self->boot_id_fd = AV_TAKE_FD(fd);
	unlink(BOOT_ID_FILE);
}

/* --- the disk --- */

/* Never smaller: that is not for a mounted file system. */
int guest_disk_grow(int disk_fd, uint64_t bytes)
{
	struct statfs fs;
	uint64_t blocks;

	if (fstatfs(disk_fd, &fs) < 0)
		return -errno;
	blocks = bytes / (uint64_t)fs.f_bsize;
	/* What the file system needs for itself is not in f_blocks: it has more than that. */
	if (blocks <= (uint64_t)fs.f_blocks)
		return 0;
	if (ioctl(disk_fd, EXT4_IOC_RESIZE_FS_, &blocks) == 0)
		return 0;
	/* It had as much already. */
	return errno == EINVAL && blocks <= (uint64_t)fs.f_blocks + (uint64_t)fs.f_blocks / 8
	           ? 0
	           : -errno;
}

/* --- all of it --- */

static int take(struct guest_self *self, const struct guest_cgroup *cgroup,
    const struct av_guest_identity *id, const char **ret_what)
{
	bool same = self->named && strcmp(self->id, id->id) == 0;
	AV_CLEANUP(av_closep) int etc = -1;
	int r;

	*ret_what = "random numbers";
	if ((r = reseed(id->entropy)) < 0)
		return r;
	*ret_what = "clock";
	if ((r = set_clock(id->real_ns)) < 0)
		return r;
	*ret_what = "host name";
	if (sethostname(id->hostname, strlen(id->hostname)) < 0)
		return -errno;
	if (!same) {
		*ret_what = "/etc";
		etc = open_etc(self->root_fd);
		if (etc < 0)
			return etc;
		if ((r = put_files(self, etc, id, ret_what)) < 0)
			return r;
		keep_spare(self->disk_fd);
		if (self->boot_id_fd >= 0)
			put_boot_id(self->boot_id_fd);
	}
	if ((r = guest_net_apply(id, ret_what)) < 0)
		return r;
	*ret_what = "pids.max";
	if (!same || self->pids_max != id->pids_max)
		r = guest_cgroup_pids_max(cgroup, id->pids_max);
	if (r < 0)
		return r;
	self->pids_max = id->pids_max;
	*ret_what = "no_new_privs";
	if (id->flags & AV_GUEST_NO_SUDO && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return -errno;
	memcpy(self->id, id->id, sizeof(self->id));
	memcpy(self->machine_id, id->machine_id, sizeof(self->machine_id));
	self->named = true;
	return 0;
}

/* Code and pages that an identity needs, before there is one: the first takes 50 ms where the
 * machine is emulated, the second 3. Names and addresses are those that nobody has yet. */
void guest_identity_rehearse(const struct guest_self *self)
{
	struct av_guest_identity id = {.hostname = REHEARSED_NAME,
	    .prefix_len = 30,
	    .flags = AV_GUEST_HAS_INTERNET,
	    .address = REHEARSED_ADDRESS,
	    .gateway = REHEARSED_ADDRESS + 1};
	AV_CLEANUP(av_closep) int etc = -1;
	AV_CLEANUP(av_closep) int fd = -1;
	const char *what;
	uint32_t address;

	if (self->named)
		return;
	guest_net_read(id.mac, &address);
	if (guest_net_apply(&id, &what) == 0) {
		id.flags = 0;
		id.address = id.gateway = 0;
	}
	etc = open_etc(self->root_fd);
	/* An overlay copies a file when it is opened for writing; the content stays the template's.
	 */
	keep_spare(self->disk_fd);
	if (etc < 0 || put_files(self, etc, &id, &what) < 0 || guest_net_apply(&id, &what) < 0)
		return;
	fd = openat(etc, "resolv.conf", O_WRONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
}

/* What is so, and not what was asked for. */
static void read_back(const struct guest_self *self, bool same, struct av_guest_confirm *ret)
{
	struct timespec ts = {0};

	if (gethostname(ret->hostname, sizeof(ret->hostname) - 1) < 0)
		ret->hostname[0] = '\0';
	/* Somebody who is who they were may have removed the file. */
	if (!read_machine_id(self->root_fd, ret->machine_id) || same)
		memcpy(ret->machine_id, same ? self->machine_id : (uint8_t[16]){0}, 16);
	guest_net_read(ret->mac, &ret->address);
	clock_gettime(CLOCK_REALTIME, &ts);
	ret->real_ns = (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

void guest_identity_take(struct guest_self *self, const struct guest_cgroup *cgroup,
    const struct av_guest_identity *id, struct av_guest_confirm *ret)
{
	bool same = self->named && strcmp(self->id, id->id) == 0;
	struct av_guest_confirm c = {0};
	const char *what = "";
	int r = take(self, cgroup, id, &what);

	if (r < 0) {
		c.error = -r;
		snprintf(c.text, sizeof(c.text), "%s: %s", what, strerror(-r));
	}
	read_back(self, same, &c);
	*ret = c;
}
