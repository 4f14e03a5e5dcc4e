/* SPDX-License-Identifier: Apache-2.0 */
/*
 * rundir.c - <run>/<id>/
 */
#include "spawn/rundir.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/failpoint.h"
#include "base/fd.h"
#include "base/ids.h"
#include "base/num.h"
#include "base/path.h"
#include "base/banned.h"

#define SOCKET_NAME   "agent.sock"
#define VM_NAME       "vm.sock"
#define PROCESS_NAME  "process"
#define TEMPLATE_NAME "template"
#define IMAGE_NAME    "image"
#define NET_NAME      "net"
#define PASTA_NAME    "pasta"
#define PASTA_NEW     "pasta.new"
#define BACKLOG       128

static int open_dir(int run_fd, const char *id)
{
	int fd = openat(run_fd, id, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

/* By the descriptor of the directory: sun_path has room for 108 bytes only, <run> may have more. */
static int bind_listener(int dir, const char *name, int type, uid_t owner, gid_t group, int *ret)
{
	AV_CLEANUP(av_closep)
	int s = socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (s < 0)
		return -errno;
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int r =
	    av_path_printf(addr.sun_path, sizeof(addr.sun_path), "/proc/self/fd/%d/%s", dir, name);
	if (r < 0)
		return r;
	/* The socket file takes its mode from the descriptor's. */
	if (fchmod(s, 0600) < 0 || bind(s, (struct sockaddr *)&addr, sizeof(addr)) < 0)
		return -errno;
	if (owner != (uid_t)-1 && fchownat(dir, name, owner, group, AT_SYMLINK_NOFOLLOW) < 0)
		return -errno;
	if (listen(s, BACKLOG) < 0)
		return -errno;
	*ret = AV_TAKE_FD(s);
	return 0;
}

int rundir_create(
    int run_fd, const char *id, uid_t owner, gid_t group, int *ret_listener, int *ret_vm_listener)
{
	AV_CLEANUP(av_closep) int agent = -1;
	AV_CLEANUP(av_closep) int vm = -1;
	if (mkdirat(run_fd, id, 0711) < 0)
		return -errno;
	AV_CLEANUP(av_closep) int dir = open_dir(run_fd, id);
	int r = dir < 0 ? dir : 0;
	if (r == 0 && ret_vm_listener)
		r = bind_listener(dir, VM_NAME, SOCK_SEQPACKET, owner, group, &vm);
	if (r == 0)
		r = bind_listener(dir, SOCKET_NAME, SOCK_STREAM, owner, group, &agent);
	if (r < 0) {
		int ignored = rundir_remove(run_fd, id);
		(void)ignored;
		return r;
	}
	*ret_listener = AV_TAKE_FD(agent);
	if (ret_vm_listener)
		*ret_vm_listener = AV_TAKE_FD(vm);
	return 0;
}

bool rundir_is_vm(int run_fd, const char *id)
{
	char path[AV_ID_SIZE + 16];
	return av_path_printf(path, sizeof(path), "%s/" VM_NAME, id) == 0 &&
	       faccessat(run_fd, path, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
}

static int write_record(int run_fd, const char *id, const char *name, const char *text)
{
	char path[AV_ID_SIZE + 16];
	int r = av_path_printf(path, sizeof(path), "%s/%s", id, name);
	if (r < 0)
		return r;
	AV_CLEANUP(av_closep)
	int fd = openat(run_fd, path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	return fd < 0 ? -errno : av_write_full(fd, text, strlen(text));
}

int rundir_write_process(int run_fd, const char *id, const struct jail_identity *who)
{
	char text[96];
	snprintf(text, sizeof(text), "%d %llu %llu\n", who->pid,
	    (unsigned long long)who->start_ticks, (unsigned long long)who->pidns_ino);
	return write_record(run_fd, id, PROCESS_NAME, text);
}

int rundir_write_net(int run_fd, const char *id, const struct net_link *link)
{
	char text[64];
	uint32_t a = link->address;
	snprintf(text, sizeof(text), "%u.%u.%u.%u %s\n", a >> 24, a >> 16 & 255, a >> 8 & 255,
	    a & 255, link->ifname);
	return write_record(run_fd, id, NET_NAME, text);
}

int rundir_write_pasta(int run_fd, const char *id, const struct pasta_process *p)
{
	char text[64], from[AV_ID_SIZE + 16], to[AV_ID_SIZE + 16];
	int r;
	snprintf(text, sizeof(text), "%d %llu\n", p->pid, (unsigned long long)p->start_ticks);
	if ((r = av_path_printf(from, sizeof(from), "%s/" PASTA_NEW, id)) < 0 ||
	    (r = av_path_printf(to, sizeof(to), "%s/" PASTA_NAME, id)) < 0)
		return r;
	/* Of a worker that died here. */
	if (unlinkat(run_fd, from, 0) < 0 && errno != ENOENT)
		return -errno;
	/* There is always one, so that the next worker knows that there should be a pasta. */
	r = write_record(run_fd, id, PASTA_NEW, text);
	return r < 0 ? r : renameat(run_fd, from, run_fd, to) < 0 ? -errno : 0;
}

int rundir_read_pasta(int run_fd, const char *id, struct pasta_process *ret)
{
	char path[AV_ID_SIZE + 16], text[64];
	int r = av_path_printf(path, sizeof(path), "%s/" PASTA_NAME, id);
	if (r < 0)
		return r;
	ssize_t n = av_read_file_at(run_fd, path, text, sizeof(text));
	if (n <= 0 || text[n - 1] != '\n')
		return -ENOENT;
	struct av_str rest = av_str_n(text, (size_t)n - 1), pid;
	uint64_t number, ticks;
	if (!av_str_cut(&rest, ' ', &pid) || av_parse_u64(pid, 1, INT32_MAX, &number) < 0 ||
	    av_parse_u64(rest, 0, UINT64_MAX, &ticks) < 0)
		return -ENOENT;
	*ret = (struct pasta_process){.pid = (pid_t)number, .start_ticks = ticks};
	return 0;
}

uint32_t rundir_read_net(int run_fd, const char *id)
{
	char path[AV_ID_SIZE + 16], text[64];
	if (av_path_printf(path, sizeof(path), "%s/" NET_NAME, id) < 0)
		return 0;
	ssize_t n = av_read_file_at(run_fd, path, text, sizeof(text));
	struct av_str rest = av_str_n(text, n < 0 ? 0 : (size_t)n), address;
	uint32_t a = 0;
	return av_str_cut(&rest, ' ', &address) && net_parse_address(address, &a) == 0 ? a : 0;
}

int rundir_read_process(int run_fd, const char *id, struct jail_identity *ret)
{
	char path[AV_ID_SIZE + 16], text[96];
	int r = av_path_printf(path, sizeof(path), "%s/" PROCESS_NAME, id);
	if (r < 0)
		return r;
	ssize_t n = av_read_file_at(run_fd, path, text, sizeof(text));
	if (n < 0)
		return (int)n;
	/* Cut off by a crash in the middle of the write: as if it were not there. */
	if (n == 0 || text[n - 1] != '\n')
		return -ENOENT;
	struct av_str rest = av_str_n(text, (size_t)n - 1), pid, start;
	uint64_t pid_number;
	struct jail_identity who;
	if (!av_str_cut(&rest, ' ', &pid) || !av_str_cut(&rest, ' ', &start) ||
	    av_parse_u64(pid, 1, INT32_MAX, &pid_number) < 0 ||
	    av_parse_u64(start, 0, UINT64_MAX, &who.start_ticks) < 0 ||
	    av_parse_u64(rest, 0, UINT64_MAX, &who.pidns_ino) < 0)
		return -ENOENT;
	who.pid = (pid_t)pid_number;
	*ret = who;
	return 0;
}

static int write_stand(
    int run_fd, const char *id, const char *name, const struct rundir_template *t)
{
	char path[AV_ID_SIZE + 16];
	int r = av_path_printf(path, sizeof(path), "%s/%s", id, name);
	if (r < 0)
		return r;
	AV_CLEANUP(av_closep)
	int fd = openat(run_fd, path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	return fd < 0 ? -errno : av_write_full(fd, t, sizeof(*t));
}

static int read_stand(int run_fd, const char *id, const char *name, struct rundir_template *ret)
{
	char path[AV_ID_SIZE + 16];
	struct rundir_template t;
	int r = av_path_printf(path, sizeof(path), "%s/%s", id, name);
	if (r < 0)
		return r;
	AV_CLEANUP(av_closep) int fd = openat(run_fd, path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	ssize_t n = av_read_full(fd, &t, sizeof(t));
	if (n != sizeof(t) || !memchr(t.id, '\0', sizeof(t.id)) ||
	    !memchr(t.host_fingerprint, '\0', sizeof(t.host_fingerprint)))
		return n < 0 ? (int)n : -ENOENT;
	*ret = t;
	return 0;
}

int rundir_write_template(int run_fd, const char *id, const struct rundir_template *t)
{
	return write_stand(run_fd, id, TEMPLATE_NAME, t);
}

int rundir_read_template(int run_fd, const char *id, struct rundir_template *ret)
{
	return read_stand(run_fd, id, TEMPLATE_NAME, ret);
}

int rundir_write_image(int run_fd, const char *id, const struct rundir_template *t)
{
	return write_stand(run_fd, id, IMAGE_NAME, t);
}

int rundir_read_image(int run_fd, const char *id, struct rundir_template *ret)
{
	return read_stand(run_fd, id, IMAGE_NAME, ret);
}

bool rundir_exists(int run_fd, const char *id)
{
	return faccessat(run_fd, id, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
}

int rundir_remove(int run_fd, const char *id)
{
	AV_CLEANUP(av_closep) int dir = open_dir(run_fd, id);
	if (dir < 0)
		return dir == -ENOENT ? 0 : dir;
	static const char *const names[] = {SOCKET_NAME, VM_NAME, PROCESS_NAME, TEMPLATE_NAME,
	    IMAGE_NAME, NET_NAME, PASTA_NAME, PASTA_NEW};
	for (size_t i = 0; i < AV_ARRAY_LEN(names); i++)
		if (unlinkat(dir, names[i], 0) < 0 && errno != ENOENT)
			return -errno;
	if (av_failpoint("destroy.rundir"))
		return -EIO;
	return unlinkat(run_fd, id, AT_REMOVEDIR) < 0 && errno != ENOENT ? -errno : 0;
}

int rundir_list(int run_fd, int (*on_id)(void *ctx, const char *id), void *ctx)
{
	int fd = openat(run_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	DIR *d = fdopendir(fd);
	if (!d) {
		int r = -errno;
		close(fd);
		return r;
	}
	struct dirent *e;
	int r = 0;
	while (r == 0 && (e = readdir(d)))
		if (av_id_valid(av_str_c(e->d_name), AV_ID_SANDBOX))
			r = on_id(ctx, e->d_name);
	closedir(d);
	return r;
}
