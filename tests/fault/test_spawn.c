/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_spawn.c - aviary-spawn alone: create, destroy, crash and what is left, locks of the mounts
 *
 * With a stub for an agent. After each part LIST is empty, and cgroups, mounts and processes are
 * what they were.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/avtime.h"
#include "base/fd.h"
#include "tests/fault/spawn_client.h"
#include "tests/lib/tap.h"
#include "base/banned.h"

static char out[65536];

static void new_sandbox(struct spawn_client *c, char id[static SPAWN_ID_SIZE],
    struct spawn_create_reply *ret, int *ret_pidfd)
{
	struct spawn_request q;
	struct spawn_reply r = {.error = ECONNRESET};
	spawn_client_create_request(&q);
	ok(spawn_client_call(c, &q, &r, ret_pidfd) && r.error == 0, "create %s", r.text);
	memcpy(id, q.id, SPAWN_ID_SIZE);
	if (ret)
		*ret = r.u.create;
}

static void is_gone(struct spawn_client *c, const char *id)
{
	char path[160];
	snprintf(path, sizeof(path), "%s/%s", c->run, id);
	ok(access(path, F_OK) < 0, "no run directory is left");
	is_int(spawn_client_op(c, SPAWN_INSPECT, id), ENOENT, "INSPECT finds nothing");
	is_int(spawn_client_count(c), 0, "LIST names nothing");
}

/* Processes, among all of the machine, that are in a cgroup of this instance. */
static unsigned int count_processes(const struct spawn_client *c)
{
	unsigned int n = 0;
	char parent[32];
	uint32_t tag = 2166136261u; /* FNV-1a, as instance.h says */
	for (const char *p = c->state; *p; p++)
		tag = (tag ^ (uint8_t)*p) * 16777619u;
	snprintf(parent, sizeof(parent), "/aviary-%08x/", tag);
	DIR *d = opendir("/proc");
	struct dirent *e;
	while ((e = readdir(d))) {
		char path[300], text[4096];
		if (e->d_name[0] < '1' || e->d_name[0] > '9')
			continue;
		snprintf(path, sizeof(path), "/proc/%s/cgroup", e->d_name);
		if (av_read_file_at(AT_FDCWD, path, text, sizeof(text)) > 0 && strstr(text, parent))
			n++;
	}
	closedir(d);
	return n;
}

static void test_life(struct spawn_client *c)
{
	char id[SPAWN_ID_SIZE];
	struct spawn_create_reply reply;
	int pidfd;
	new_sandbox(c, id, &reply, &pidfd);
	ok(pidfd >= 0 && reply.pid > 0 && reply.pidns_ino > 0, "a pidfd and an identity came");

	spawn_client_shell(c, id, "id -u; hostname; cat /etc/hostname; cd /proc/self/fd; echo *",
	    out, sizeof(out));
	char want[128];
	snprintf(want, sizeof(want), "0\n%.12s\n%.12s\n0 1 2 3\n", id, id);
	is_str(out, want, "root, its own host name, three descriptors (and the shell's glob)");
	spawn_client_shell(c, id,
	    "grep -c processor /proc/cpuinfo; sed -n 1p /proc/meminfo; grep -E "
	    "'^(CapEff|CapInh|CapAmb|"
	    "CapBnd)' /proc/self/status; echo x > /usr/x && cat /usr/x; ls /sys/class/net",
	    out, sizeof(out));
	is_str(out,
	    "1\nMemTotal:         262144 kB\nCapInh:\t0000000000000000\nCapEff:\t00000000a00405fb\n"
	    "CapBnd:\t00000000a00405fb\nCapAmb:\t0000000000000000\nx\nlo\n",
	    "limits are seen, capabilities are the bounding set, /usr can be written");

	struct spawn_request again = {.op = SPAWN_CREATE};
	struct spawn_reply r;
	spawn_client_create_request(&again);
	memcpy(again.id, id, sizeof(again.id));
	ok(spawn_client_call(c, &again, &r, NULL) && r.error == EEXIST,
	    "the same id again: EEXIST");

	struct spawn_request adopt = {
	    .op = SPAWN_ADOPT,
	    .u.adopt = {.pid = reply.pid,
	        .start_ticks = reply.start_ticks,
	        .pidns_ino = reply.pidns_ino},
	};
	memcpy(adopt.id, id, sizeof(adopt.id));
	int adopted;
	ok(spawn_client_call(c, &adopt, &r, &adopted) && r.error == 0 && adopted >= 0, "ADOPT");
	adopt.u.adopt.start_ticks++;
	ok(spawn_client_call(c, &adopt, &r, NULL) && r.error == ESTALE, "ADOPT of another: ESTALE");

	is_int(spawn_client_op(c, SPAWN_DESTROY, id), 0, "DESTROY");
	struct pollfd p = {.fd = pidfd, .events = POLLIN};
	is_int(poll(&p, 1, 0), 1, "the agent is dead when the answer comes");
	is_gone(c, id);
	is_int(spawn_client_op(c, SPAWN_DESTROY, id), 0, "DESTROY twice");
	close(pidfd);
	close(adopted);
}

static void test_frozen(struct spawn_client *c)
{
	char id[SPAWN_ID_SIZE];
	new_sandbox(c, id, NULL, NULL);
	int r = spawn_client_op(c, SPAWN_FREEZE, id);
	ok(r == 0 || r == EOPNOTSUPP, "FREEZE (%s)", strerror(r));
	if (r == 0) {
		is_int(spawn_client_op(c, SPAWN_THAW, id), 0, "THAW");
		spawn_client_shell(c, id, "echo awake", out, sizeof(out));
		is_str(out, "awake\n", "it runs again");
		is_int(spawn_client_op(c, SPAWN_FREEZE, id), 0, "FREEZE again");
	}
	is_int(spawn_client_op(c, SPAWN_DESTROY, id), 0, "DESTROY of a frozen one");
	is_gone(c, id);
}

static int64_t restart_with(struct spawn_client *c, const char *failpoint)
{
	kill(c->supervisor, SIGTERM);
	waitpid(c->supervisor, NULL, 0);
	if (failpoint)
		setenv("AVIARY_FAILPOINT", failpoint, 1);
	spawn_client_restart(c, NULL);
	unsetenv("AVIARY_FAILPOINT");
	return av_mono_ns();
}

/* What does not freeze at once is tried again, and holds up nobody, least of all its own end. */
static void test_slow_to_freeze(struct spawn_client *c)
{
	struct spawn_request freeze = {.op = SPAWN_FREEZE}, destroy = {.op = SPAWN_DESTROY};
	struct spawn_reply r, r2;
	char id[SPAWN_ID_SIZE], other[SPAWN_ID_SIZE];
	int64_t begun;

	(void)restart_with(c, "freeze.try=error@1");
	new_sandbox(c, id, NULL, NULL);
	int e = spawn_client_op(c, SPAWN_FREEZE, id);
	ok(e == 0 || e == EOPNOTSUPP, "FREEZE that fails at first (%s)", strerror(e));
	is_int(spawn_client_op(c, SPAWN_DESTROY, id), 0, "DESTROY");

	begun = restart_with(c, "freeze.try=error");
	new_sandbox(c, id, NULL, NULL);
	new_sandbox(c, other, NULL, NULL);
	memcpy(freeze.id, id, sizeof(id));
	memcpy(destroy.id, id, sizeof(id));
	ok(spawn_client_send(c, &freeze) && spawn_client_send(c, &destroy) &&
	        spawn_client_receive(c, &r, NULL) && spawn_client_receive(c, &r2, NULL),
	    "DESTROY of what is slow to freeze");
	ok(r.op == SPAWN_FREEZE && r.error == ECANCELED && r2.op == SPAWN_DESTROY && r2.error == 0,
	    "ends both (%u: %d, %u: %d)", r.op, r.error, r2.op, r2.error);
	ok(av_mono_ns() - begun < 60 * AV_NS_PER_S, "in time");
	is_int(spawn_client_op(c, SPAWN_FREEZE, other), ETIMEDOUT, "it is given up in the end");
	is_int(spawn_client_op(c, SPAWN_DESTROY, other), 0, "DESTROY");
	(void)restart_with(c, NULL);
}

static void test_stubborn(struct spawn_client *c)
{
	char id[SPAWN_ID_SIZE];
	new_sandbox(c, id, NULL, NULL);
	spawn_client_shell(c, id,
	    "for i in 1 2 3 4 5 6 7 8; do (trap '' TERM INT HUP; setsid sleep 1000 & setsid sleep "
	    "1000 &) "
	    ">/dev/null 2>&1 </dev/null & done; wait; echo done",
	    out, sizeof(out));
	is_str(out, "done\n", "processes left their sessions");
	int64_t t = av_mono_ns();
	ok(count_processes(c) > 8, "and can be counted");
	is_int(spawn_client_op(c, SPAWN_DESTROY, id), 0, "DESTROY");
	t = av_mono_ns() - t;
	ok(t < AV_NS_PER_S, "in less than a second (%lld us)", (long long)t / 1000);
	is_int(count_processes(c), 0, "no process is left");
	is_gone(c, id);
}

static void test_bad_requests(struct spawn_client *c)
{
	struct spawn_request q;
	struct spawn_reply r;
	spawn_client_create_request(&q);
	memset(q.id, 'x', sizeof(q.id));
	ok(spawn_client_call(c, &q, &r, NULL) && r.error == EINVAL, "an id without end");
	spawn_client_create_request(&q);
	q.id[3] = '/';
	ok(spawn_client_call(c, &q, &r, NULL) && r.error == EINVAL, "an id with a slash");
	spawn_client_create_request(&q);
	q.u.create.flags = 1u << 31;
	ok(spawn_client_call(c, &q, &r, NULL) && r.error == EINVAL, "an unknown flag");
	spawn_client_create_request(&q);
	snprintf(q.u.create.template_id, sizeof(q.u.create.template_id), "../../etc");
	ok(spawn_client_call(c, &q, &r, NULL) && r.error == ENOENT, "a template that is none: %s",
	    r.text);
	spawn_client_create_request(&q);
	q.op = 99;
	ok(spawn_client_call(c, &q, &r, NULL) && r.error == EINVAL, "an unknown operation");
	is_int(spawn_client_count(c), 0, "nothing was made");
	ok(send(c->sock, "short", 5, MSG_NOSIGNAL) == 5, "a short packet");
	ok(!spawn_client_receive(c, &r, NULL), "ends the connection");
	spawn_client_connect(c);
	is_int(spawn_client_count(c), 0, "a new one works");
}

static void test_cancel(struct spawn_client *c)
{
	/* DESTROY overtakes: the create may end either way, and nothing stays. */
	for (int i = 0; i < 5; i++) {
		struct spawn_request create, destroy = {.op = SPAWN_DESTROY};
		struct spawn_reply a, b;
		spawn_client_create_request(&create);
		memcpy(destroy.id, create.id, sizeof(destroy.id));
		ok(spawn_client_send(c, &create) && spawn_client_send(c, &destroy) &&
		        spawn_client_receive(c, &a, NULL) && spawn_client_receive(c, &b, NULL),
		    "CREATE and DESTROY at once");
		const struct spawn_reply *d = a.op == SPAWN_DESTROY ? &a : &b;
		is_int(d->error, 0, "the DESTROY succeeds");
		is_gone(c, create.id);
	}
}

static void test_worker_killed(struct spawn_client *c)
{
	char id[3][SPAWN_ID_SIZE];
	struct spawn_create_reply reply[3];
	for (int i = 0; i < 3; i++)
		new_sandbox(c, id[i], &reply[i], NULL);
	/* Creates in flight, too. */
	struct spawn_request q;
	for (int i = 0; i < 4; i++) {
		spawn_client_create_request(&q);
		spawn_client_send(c, &q);
	}
	usleep(2500);
	kill(spawn_client_worker(c), SIGKILL);
	struct spawn_reply r;
	int answered = 3;
	while (spawn_client_receive(c, &r, NULL))
		answered += r.error == 0;
	spawn_client_connect(c);
	ok(spawn_client_count(c) >= (unsigned int)answered,
	    "a new worker lists all that were answered");
	for (int i = 0; i < 3; i++) {
		struct spawn_request adopt = {.op = SPAWN_ADOPT,
		    .u.adopt = {.pid = reply[i].pid,
		        .start_ticks = reply[i].start_ticks,
		        .pidns_ino = reply[i].pidns_ino}};
		memcpy(adopt.id, id[i], sizeof(adopt.id));
		ok(spawn_client_call(c, &adopt, &r, NULL) && r.error == 0, "and adopts %d: %s", i,
		    r.text);
		spawn_client_shell(c, id[i], "echo alive", out, sizeof(out));
		is_str(out, "alive\n", "it did not notice");
	}
	struct spawn_request list = {.op = SPAWN_LIST};
	ok(spawn_client_call(c, &list, &r, NULL), "LIST");
	struct spawn_list_reply l = r.u.list;
	for (unsigned int i = 0; i < l.count; i++)
		is_int(spawn_client_op(c, SPAWN_DESTROY, l.entries[i].id), 0, "DESTROY");
	is_int(spawn_client_count(c), 0, "nothing is listed");
	is_int(count_processes(c), 0, "no process is left");
}

static void destroy_all(struct spawn_client *c, const char *after_what)
{
	struct spawn_request list = {.op = SPAWN_LIST};
	struct spawn_reply r;
	if (!spawn_client_call(c, &list, &r, NULL))
		return;
	struct spawn_list_reply l = r.u.list;
	for (unsigned int i = 0; i < l.count; i++) {
		int e = spawn_client_op(c, SPAWN_DESTROY, l.entries[i].id);
		ok(e == 0, "%s: DESTROY of what is left (state %u): %s", after_what,
		    l.entries[i].state, strerror(e));
	}
	ok(spawn_client_count(c) == 0, "%s: nothing is left", after_what);
}

static const char *const create_points[] = {"create.slot", "create.cgroup", "create.clone",
    "create.disk", "create.map", "create.stage", "create.attach", "create.rundir", "create.record",
    "create.go", "create.done"};
static const char *const destroy_points[] = {"destroy.kill", "destroy.dead", "destroy.cgroup",
    "destroy.rundir", "destroy.disk", "destroy.done"};
static const char *const child_points[] = {"child.netns", "child.ids", "child.mountns",
    "child.root", "child.proc", "child.dev", "child.pivot", "child.seccomp", "child.caps",
    "child.fds"};

/* One sandbox made and destroyed with the failpoint set; then what is left is removed by a worker
 * without it. */
static void at_point(struct spawn_client *c, const char *point, const char *action)
{
	char env[96];
	struct spawn_request q;
	struct spawn_reply r;
	snprintf(env, sizeof(env), "%s=%s@1", point, action);
	setenv("AVIARY_FAILPOINT", env, 1);
	spawn_client_restart(c, NULL);
	unsetenv("AVIARY_FAILPOINT");
	spawn_client_create_request(&q);
	if (!spawn_client_call(c, &q, &r, NULL))
		spawn_client_connect(c);
	int e = spawn_client_op(c, SPAWN_DESTROY, q.id);
	if (e == ECONNRESET)
		spawn_client_connect(c);
	else if (e)
		diag("%s: DESTROY: %s", env, strerror(e));
	kill(c->supervisor, SIGKILL);
	waitpid(c->supervisor, NULL, 0);
	spawn_client_restart(c, NULL);
	destroy_all(c, env);
	kill(c->supervisor, SIGTERM);
	waitpid(c->supervisor, NULL, 0);
}

static void test_failpoints(struct spawn_client *c)
{
	kill(c->supervisor, SIGTERM);
	waitpid(c->supervisor, NULL, 0);
	for (size_t i = 0; i < AV_ARRAY_LEN(create_points); i++) {
		at_point(c, create_points[i], "kill");
		at_point(c, create_points[i], "error");
	}
	for (size_t i = 0; i < AV_ARRAY_LEN(destroy_points); i++) {
		at_point(c, destroy_points[i], "kill");
		at_point(c, destroy_points[i], "error");
	}
	for (size_t i = 0; i < AV_ARRAY_LEN(child_points); i++)
		at_point(c, child_points[i], "error");
	is_int(count_processes(c), 0, "no process is left");
	spawn_client_restart(c, NULL);
}

/* In a child: becomes all-powerful inside the sandbox's user and mount namespaces, as sandbox root
 * would be if neither the filter nor the bounding set held, and tries to loosen the mounts. Exit
 * status: which attempt succeeded, 0 for none. */
static int loosen(pid_t pid)
{
	char path[64];
	const char *const names[] = {"user", "mnt"};
	int fds[2];
	for (int i = 0; i < 2; i++) {
		snprintf(path, sizeof(path), "/proc/%d/ns/%s", pid, names[i]);
		fds[i] = open(path, O_RDONLY | O_CLOEXEC);
	}
	if (setns(fds[0], CLONE_NEWUSER) < 0 || setns(fds[1], CLONE_NEWNS) < 0)
		return 100;
	/* It is root here: mounting works. */
	if (mount("none", "/mnt", "tmpfs", 0, NULL) < 0)
		return 101;
	if (mount(NULL, "/", NULL, MS_REMOUNT | MS_BIND, NULL) == 0)
		return 1; /* nodev of the root gone */
	if (mount(NULL, "/usr", NULL, MS_REMOUNT | MS_BIND, NULL) == 0)
		return 2;
	if (umount2("/usr", MNT_DETACH) == 0 || umount2("/dev", MNT_DETACH) == 0)
		return 3;
	if (mount(NULL, "/dev", NULL, MS_REMOUNT | MS_BIND, NULL) == 0)
		return 4; /* set-uid and executables on /dev */
	if (mount("/usr", "/mnt", NULL, MS_BIND, NULL) == 0 &&
	    mount(NULL, "/mnt", NULL, MS_REMOUNT | MS_BIND, NULL) == 0)
		return 5; /* the same through a bind of it */
	if (mknod("/dev/kmem", S_IFCHR | 0666, 0x102) == 0)
		return 6;
	struct mount_attr a = {.attr_clr = MOUNT_ATTR_NODEV};
	if (mount_setattr(AT_FDCWD, "/", AT_RECURSIVE, &a, sizeof(a)) == 0)
		return 7;
	return 0;
}

static void test_locks(struct spawn_client *c)
{
	char id[SPAWN_ID_SIZE];
	struct spawn_create_reply reply;
	new_sandbox(c, id, &reply, NULL);
	pid_t pid = fork();
	if (pid == 0)
		_exit(loosen(reply.pid));
	int status;
	waitpid(pid, &status, 0);
	is_int(WEXITSTATUS(status), 0, "no lock of the staged mounts can be undone from inside");
	is_int(spawn_client_op(c, SPAWN_DESTROY, id), 0, "DESTROY");
}

static void test_two_supervisors(struct spawn_client *c)
{
	struct spawn_client second = *c;
	int p[2];
	if (pipe2(p, O_CLOEXEC) < 0)
		return;
	pid_t pid = fork();
	if (pid == 0) {
		char program[300];
		snprintf(
		    program, sizeof(program), "%s/src/spawn/aviary-spawn", getenv("AVIARY_BUILD"));
		dup2(p[1], 2);
		execl(program, program, "--no-daemon", "--state", second.state, "--run", second.run,
		    NULL);
		_exit(127);
	}
	close(p[1]);
	ssize_t n = av_read_full(p[0], out, sizeof(out) - 1);
	out[n < 0 ? 0 : n] = '\0';
	int status;
	waitpid(pid, &status, 0);
	ok(WIFEXITED(status) && WEXITSTATUS(status) == 78 && strstr(out, "another Aviary (process"),
	    "a second supervisor is refused: %s", out);
	is_int(spawn_client_count(c), 0, "the first one goes on");
	close(p[0]);
}

/* The supervisor dies with sandboxes running, nobody comes back, and everything is removed. */
static void test_cleanup(const char *const *options)
{
	struct spawn_client c;
	char id[SPAWN_ID_SIZE], program[300];
	spawn_client_start(&c, options);
	for (int i = 0; i < 2; i++)
		new_sandbox(&c, id, NULL, NULL);
	kill(c.supervisor, SIGKILL);
	waitpid(c.supervisor, NULL, 0);
	snprintf(program, sizeof(program), "%s/src/spawn/aviary-spawn", getenv("AVIARY_BUILD"));
	pid_t pid = fork();
	if (pid == 0) {
		execl(program, program, "--cleanup", "--state", c.state, "--run", c.run, "--all",
		    NULL);
		_exit(127);
	}
	int status;
	waitpid(pid, &status, 0);
	is_int(status, 0, "--cleanup --all");
	/* Dead they are; whoever is init here reaps them when it likes. */
	for (int i = 0; i < 500 && count_processes(&c); i++)
		usleep(10000);
	is_int(count_processes(&c), 0, "no process is left");
	ok(access(c.state, F_OK) < 0 && access(c.run, F_OK) < 0, "state and run are gone");
	av_close_fd(&c.sock);
	rmdir(c.dir);
}

int main(void)
{
	struct spawn_client c;
	if (geteuid() != 0)
		tap_skip_all(true, "needs root");
	spawn_client_start(&c, NULL);
	test_life(&c);
	test_frozen(&c);
	test_slow_to_freeze(&c);
	test_stubborn(&c);
	test_bad_requests(&c);
	test_cancel(&c);
	test_worker_killed(&c);
	test_two_supervisors(&c);
	test_failpoints(&c);
	spawn_client_stop(&c);

	test_cleanup(NULL);
	static const char *const loop[] = {"--disk", "loop", NULL};
	test_cleanup(loop);

	static const char *const open_door[] = {"--no-seccomp", NULL};
	spawn_client_start(&c, open_door);
	test_locks(&c);
	spawn_client_stop(&c);

	static const char *const overlays[] = {"fd", "names", "shifted"};
	static const char *const disks[] = {"none", "loop", "tmpfs"};
	for (size_t i = 0; i < AV_ARRAY_LEN(overlays); i++) {
		const char *options[] = {"--overlay", overlays[i], "--disk", disks[i], NULL};
		spawn_client_start(&c, options);
		diag("--overlay %s --disk %s", overlays[i], disks[i]);
		test_life(&c);
		test_worker_killed(&c);
		test_locks(&c);
		spawn_client_stop(&c);
	}
	return tap_done();
}
