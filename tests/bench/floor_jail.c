/* SPDX-License-Identifier: Apache-2.0 */
/*
 * floor_jail.c - what a jail costs when nothing is around it
 *
 *   floor_jail --child FILE --dir DIR --count N               nanoseconds of N creates and deletes,
 *                                                             "create delete", one pair a line
 *   floor_jail --child FILE --dir DIR --rate S --processes P  creates (with deletes) per second
 *   floor_jail --child FILE --dir DIR --hold N                makes N, says "ready", waits for the
 * end of its input, removes them
 *
 * A create is: cgroup with limits, clone with all namespaces, id maps, disk area with its limit,
 * two overlays, /proc, /sys, /dev, capabilities, system call filter, execution of a static program
 * by descriptor, until that program's first byte is read. No protocol, no agent, no records.
 * Control groups, disk area and filter are set up by the very code of aviary-spawn, so that both
 * have the same limits; everything else is written out here, call by call. Needs root.
 */
#include "floor_jail.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <linux/sched.h>
#include <linux/securebits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/avtime.h"
#include "base/err.h"
#include "spawn/cgroup.h"
#include "spawn/disk.h"

#define MEMORY_BYTES  (512LL << 20)
#define DISK_BYTES    (1ULL << 30)
#define ID_COUNT_MAX  2000
#define PROCESSES_MAX 8

struct floor {
	struct floor_tree tree;
	struct cgroups *cgroups;
	struct disk *disk;
	int program; /* sealed copy of the child's program */
};

struct jail {
	unsigned int n;
	char id[32];
	pid_t pid;
	int pidfd;
};

void floor_die(const char *what)
{
	printf("%s: %s\n", what, strerror(errno));
	fflush(stdout);
	_exit(1);
}

static int must(long r, const char *what)
{
	if (r < 0)
		floor_die(what);
	return (int)r;
}

/* For functions that return -errno with a message. */
static void want(int r, const struct av_err *err)
{
	if (r >= 0)
		return;
	printf("%s\n", err->message);
	fflush(stdout);
	_exit(1);
}

static int load_program(const char *path)
{
	char buf[65536], self[64];
	int from = must(open(path, O_RDONLY | O_CLOEXEC), path);
	int fd = must(memfd_create("floor_child", MFD_CLOEXEC | MFD_ALLOW_SEALING), "memfd");
	for (ssize_t n; (n = read(from, buf, sizeof(buf))) > 0;)
		if (write(fd, buf, (size_t)n) != n)
			floor_die("memfd");
	must(fchmod(fd, 0111), "memfd");
	must(fcntl(fd, F_ADD_SEALS, F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE),
	    "seal");
	snprintf(self, sizeof(self), "/proc/self/fd/%d", fd);
	int ro = must(open(self, O_PATH | O_CLOEXEC), self);
	close(fd);
	close(from);
	return ro;
}

/* The name of a process's cgroups. */
static void tag_of(pid_t pid, char tag[static 9])
{
	snprintf(tag, 9, "%08x", (unsigned int)pid | 0xf0000000u);
}

static void floor_open(struct floor *f, const char *child, const char *dir)
{
	char tag[9];
	struct av_err err;
	struct rlimit files;
	if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
		files.rlim_cur = files.rlim_max;
		setrlimit(RLIMIT_NOFILE, &files);
	}
	if (geteuid() != 0) {
		printf("the floor of jails is measured as root only\n");
		fflush(stdout);
		_exit(1);
	}
	must(prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP, 0, 0, 0), "securebits");
	f->program = load_program(child);
	tag_of(getpid(), tag);
	const struct cgroups_config cc = {.tag = tag, .fast_attach = true};
	want(cgroups_new(&cc, &f->cgroups, &err), &err);
	floor_tree_enter(&f->tree, dir);
	const struct disk_config dc = {.state_dir = "/state", .mount_dir = "/disk"};
	want(disk_new(&dc, &f->disk, &err), &err);
}

static void step_disk(struct floor *f)
{
	while (disk_step(f->disk, 100000) == 0)
		;
}

static void write_map(pid_t pid, const char *name, const char *map)
{
	char path[64];
	snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, name);
	int fd = must(open(path, O_WRONLY | O_CLOEXEC), path);
	if (write(fd, map, strlen(map)) < 0)
		floor_die(path);
	close(fd);
}

static void clone_jail(struct floor *f, struct jail *j, int *ret_sock, int out, bool *ret_in_v2)
{
	int cgroup = -1, sv[2];
	if (cgroups_caps(f->cgroups) & CGROUP_CAP_CLONE_INTO)
		must(cgroups_clone_fd(f->cgroups, j->id, &cgroup), "cgroup");
	must(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sv), "socketpair");
	floor_ids_enter(j->n);
	struct clone_args args = {
	    .flags = CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_PIDFD |
	             (cgroup >= 0 ? (uint64_t)CLONE_INTO_CGROUP : 0),
	    .pidfd = (uint64_t)(uintptr_t)&j->pidfd,
	    .exit_signal = SIGCHLD,
	    .cgroup = cgroup >= 0 ? (uint64_t)cgroup : 0,
	};
	long pid = syscall(SYS_clone3, &args, sizeof(args));
	if (pid == 0) {
		close(sv[0]);
		floor_child_main(j->n, sv[1], f->program, out);
	}
	j->pid = must(pid, "clone3");
	floor_ids_leave();
	close(sv[1]);
	if (cgroup >= 0)
		close(cgroup);
	*ret_in_v2 = cgroup >= 0;
	*ret_sock = sv[0];
}

/* Until the program inside has written its byte. */
static void jail_create(struct floor *f, struct jail *j, unsigned int n)
{
	const struct cgroup_limits limits = {
	    .memory_bytes = MEMORY_BYTES, .pids_max = 4096, .cpu_milli = 1000};
	char map[64], path[64], byte[2];
	int out[2], sock, area;
	bool in_v2;
	struct av_err err;

	*j = (struct jail){.n = n};
	snprintf(j->id, sizeof(j->id), "sb%025u", n);
	must(pipe2(out, O_CLOEXEC), "pipe");
	want(cgroups_create(f->cgroups, j->id, &limits, &err), &err);
	clone_jail(f, j, &sock, out[1], &in_v2);
	want(disk_create(
	         f->disk, j->id, DISK_BYTES, FLOOR_ID_BASE + n * FLOOR_ID_COUNT, &area, &err),
	    &err);
	snprintf(map, sizeof(map), "0 %u %u", FLOOR_ID_BASE + n * FLOOR_ID_COUNT, FLOOR_ID_COUNT);
	write_map(j->pid, "uid_map", map);
	write_map(j->pid, "gid_map", map);
	snprintf(path, sizeof(path), "/proc/%d/ns/user", (int)j->pid);
	int userns = must(open(path, O_RDONLY | O_CLOEXEC), path);
	floor_tree_stage(&f->tree, n, area, userns);
	disk_done(f->disk, j->id);
	close(userns);
	close(area);
	want(cgroups_attach(f->cgroups, j->id, j->pid, in_v2, &err), &err);
	if (send(sock, "g", 1, MSG_NOSIGNAL) != 1)
		floor_die("the child");
	close(out[1]);
	if (read(out[0], byte, 2) < 1 || byte[0] != 'x')
		floor_die("the program inside");
	close(out[0]);
	close(sock);
}

static void jail_delete(struct floor *f, struct jail *j)
{
	struct av_err err;
	siginfo_t si;
	must(cgroups_kill(f->cgroups, j->id), "kill");
	must(waitid(P_PIDFD, (id_t)j->pidfd, &si, WEXITED), "wait");
	close(j->pidfd);
	must(cgroups_remove(f->cgroups, j->id, 1000), "cgroup");
	want(disk_remove(f->disk, j->id, &err), &err);
}

static void run_count(struct floor *f, unsigned int count)
{
	unsigned int warm_up = 5;
	for (unsigned int i = 0; i < count + warm_up; i++) {
		struct jail j;
		int64_t t0 = av_mono_ns();
		jail_create(f, &j, i % ID_COUNT_MAX);
		int64_t t1 = av_mono_ns();
		floor_tree_unstage(j.n);
		int64_t t2 = av_mono_ns();
		jail_delete(f, &j);
		int64_t t3 = av_mono_ns();
		step_disk(f);
		if (i >= warm_up)
			printf("%lld %lld\n", (long long)(t1 - t0), (long long)(t3 - t2));
	}
}

static void run_rate(struct floor *f, int seconds)
{
	int64_t start = av_mono_ns(), end = start + seconds * AV_NS_PER_S;
	unsigned int n = 0;
	for (; av_mono_ns() < end; n++) {
		struct jail j;
		jail_create(f, &j, n % ID_COUNT_MAX);
		floor_tree_unstage(j.n);
		jail_delete(f, &j);
		if (n % 16 == 0)
			step_disk(f);
	}
	printf("%lld\n", (long long)(n * AV_NS_PER_S / (av_mono_ns() - start)));
}

static void run_hold(struct floor *f, unsigned int count)
{
	struct jail *j = calloc(count ? count : 1, sizeof(*j));
	char byte;
	if (!j)
		floor_die("memory");
	for (unsigned int i = 0; i < count; i++) {
		jail_create(f, &j[i], i);
		floor_tree_unstage(i);
	}
	printf("ready\n");
	fflush(stdout);
	while (read(STDIN_FILENO, &byte, 1) > 0)
		;
	for (unsigned int i = 0; i < count; i++)
		jail_delete(f, &j[i]);
	free(j);
}

struct job {
	const char *child, *dir;
	unsigned int count, hold, rate;
};

/* A process that measures, and what it leaves behind however it ends. */
struct worker {
	pid_t pid;
	char dir[4000];
};

static void worker_start(struct worker *w, const struct job *job, int out)
{
	snprintf(w->dir, sizeof(w->dir), "%s/aviary-floor-XXXXXX", job->dir);
	if (!mkdtemp(w->dir))
		floor_die(w->dir);
	must(chmod(w->dir, 0711), w->dir);
	w->pid = must(fork(), "fork");
	if (w->pid)
		return;
	struct floor f = {0};
	prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
	must(dup2(out, STDOUT_FILENO), "output");
	floor_open(&f, job->child, w->dir);
	if (job->rate)
		run_rate(&f, (int)job->rate);
	else if (job->hold)
		run_hold(&f, job->hold);
	else
		run_count(&f, job->count);
	fflush(stdout);
	_exit(0);
}

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
	(void)st, (void)flag, (void)ftw;
	remove(path);
	return 0;
}

static int worker_end(struct worker *w)
{
	char tag[9];
	int status = 1;
	struct cgroups *cg = NULL;
	struct av_err err;
	waitpid(w->pid, &status, 0);
	/* Mounts went with its namespace; jails die with their cgroups. */
	tag_of(w->pid, tag);
	const struct cgroups_config cc = {.tag = tag};
	if (cgroups_new(&cc, &cg, &err) == 0) {
		if (cgroups_cleanup(cg, 5000, &err) < 0)
			printf("%s\n", err.message);
		cgroups_free(cg);
	}
	nftw(w->dir, remove_one, 16, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);
	return status != 0;
}

/* With several, numbers are added up; everything else passes through. */
static void read_output(int fd, bool add)
{
	char line[256];
	long long sum = 0;
	FILE *in = fdopen(fd, "r");
	while (in && fgets(line, sizeof(line), in)) {
		char *end;
		long long v = strtoll(line, &end, 10);
		if (add && *end == '\n' && end > line) {
			sum += v;
			continue;
		}
		printf("%s", line);
		fflush(stdout);
	}
	if (in)
		fclose(in);
	if (add)
		printf("%lld\n", sum);
}

static int run_job(const struct job *job, unsigned int processes)
{
	static struct worker workers[PROCESSES_MAX];
	int fds[2], failed = 0;
	must(pipe2(fds, O_CLOEXEC), "pipe");
	for (unsigned int i = 0; i < processes; i++)
		worker_start(&workers[i], job, fds[1]);
	close(fds[1]);
	read_output(fds[0], job->rate != 0);
	for (unsigned int i = 0; i < processes; i++)
		failed += worker_end(&workers[i]);
	return failed != 0;
}

int main(int argc, char **argv)
{
	struct job job = {.dir = "/var/tmp"};
	unsigned int processes = 1;
	for (int i = 1; i + 1 < argc; i += 2) {
		unsigned int v = (unsigned int)strtoul(argv[i + 1], NULL, 10);
		if (strcmp(argv[i], "--child") == 0)
			job.child = argv[i + 1];
		else if (strcmp(argv[i], "--dir") == 0)
			job.dir = argv[i + 1];
		else if (strcmp(argv[i], "--count") == 0)
			job.count = v;
		else if (strcmp(argv[i], "--hold") == 0)
			job.hold = v;
		else if (strcmp(argv[i], "--rate") == 0)
			job.rate = v;
		else if (strcmp(argv[i], "--processes") == 0 && v >= 1 && v <= PROCESSES_MAX)
			processes = v;
	}
	if (!job.child || (!job.count && !job.hold && !job.rate)) {
		fprintf(stderr, "usage: floor_jail --child FILE [--dir DIR] --count N | --hold N | "
		                "--rate SECONDS [--processes N]\n");
		return 2;
	}
	return run_job(&job, processes);
}
