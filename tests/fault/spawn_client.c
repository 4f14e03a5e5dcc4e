/* SPDX-License-Identifier: Apache-2.0 */
/*
 * spawn_client.c - a real aviary-spawn in scratch directories, driven over wire.h
 */
#include "tests/fault/spawn_client.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/num.h"
#include "base/path.h"
#include "base/banned.h"

#define WAIT_MS 30000

_Noreturn static void die(const char *what)
{
	printf("Bail out! %s: %s\n", what, strerror(errno));
	exit(1);
}

static void run_supervisor(struct spawn_client *c, const char *const *options)
{
	const char *build = getenv("AVIARY_BUILD");
	char program[AV_PATH_MAX], agent[AV_PATH_MAX];
	const char *argv[32];
	size_t n = 0;
	if (!build ||
	    av_path_printf(program, sizeof(program), "%s/src/spawn/aviary-spawn", build) < 0 ||
	    av_path_printf(agent, sizeof(agent), "%s/tests/fault/stub_agent", build) < 0)
		die("AVIARY_BUILD");
	argv[n++] = program;
	argv[n++] = "--no-daemon";
	argv[n++] = "--state";
	argv[n++] = c->state;
	argv[n++] = "--run";
	argv[n++] = c->run;
	argv[n++] = "--agent";
	argv[n++] = agent;
	while (options && *options && n < AV_ARRAY_LEN(argv) - 1)
		argv[n++] = *options++;
	argv[n] = NULL;
	c->supervisor = fork();
	if (c->supervisor == 0) {
		/* A test that bails out takes it along. */
		prctl(PR_SET_PDEATHSIG, SIGTERM, 0, 0, 0);
		execv(program, (char *const *)(uintptr_t)argv);
		_exit(127);
	}
	if (c->supervisor < 0)
		die("fork");
}

void spawn_client_start(struct spawn_client *c, const char *const *options)
{
	*c = (struct spawn_client){.sock = -1};
	/* The daemon's directories may be entered by others than the tester's user. */
	const char *tmp = getenv("TMPDIR");
	if (av_path_printf(c->dir, sizeof(c->dir), "%s/aviary-test-XXXXXX", tmp ? tmp : "/tmp") < 0)
		die("TMPDIR");
	if (!mkdtemp(c->dir) || chmod(c->dir, 0755) < 0)
		die("mkdtemp");
	snprintf(c->state, sizeof(c->state), "%s/state", c->dir);
	snprintf(c->run, sizeof(c->run), "%s/run", c->dir);
	spawn_client_restart(c, options);
}

void spawn_client_restart(struct spawn_client *c, const char *const *options)
{
	run_supervisor(c, options);
	spawn_client_connect(c);
}

static bool try_connect(struct spawn_client *c)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	struct spawn_request q = {.op = SPAWN_HELLO, .u.protocol = SPAWN_PROTOCOL};
	struct spawn_reply r;
	snprintf(a.sun_path, sizeof(a.sun_path), "%s/spawn.sock", c->run);
	av_close_fd(&c->sock);
	c->sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	return connect(c->sock, (struct sockaddr *)&a, sizeof(a)) == 0 &&
	       spawn_client_call(c, &q, &r, NULL) && r.error == 0;
}

void spawn_client_connect(struct spawn_client *c)
{
	for (int i = 0; i < 2500; i++) {
		if (try_connect(c))
			return;
		if (waitpid(c->supervisor, NULL, WNOHANG) == c->supervisor)
			die("aviary-spawn ended");
		usleep(2000);
	}
	die("no worker");
}

static int remove_entry(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
	(void)st;
	(void)flag;
	(void)ftw;
	return remove(path) < 0 && errno != ENOENT ? -1 : 0;
}

void spawn_client_stop(struct spawn_client *c)
{
	av_close_fd(&c->sock);
	kill(c->supervisor, SIGTERM);
	waitpid(c->supervisor, NULL, 0);
	nftw(c->dir, remove_entry, 16, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);
}

bool spawn_client_send(struct spawn_client *c, struct spawn_request *q)
{
	q->seq = ++c->seq;
	return send(c->sock, q, sizeof(*q), MSG_NOSIGNAL) == sizeof(*q);
}

bool spawn_client_receive(struct spawn_client *c, struct spawn_reply *ret, int *ret_fd)
{
	int fds[AV_FD_PASS_MAX];
	size_t n = 0;
	struct pollfd p = {.fd = c->sock, .events = POLLIN};
	if (poll(&p, 1, WAIT_MS) == 0) {
		errno = ETIMEDOUT;
		die("no answer");
	}
	if (av_recv_fds(c->sock, ret, sizeof(*ret), fds, &n, 0) != sizeof(*ret))
		return false;
	if (ret_fd)
		*ret_fd = n ? fds[0] : -1;
	for (size_t i = ret_fd ? 1 : 0; i < n; i++)
		close(fds[i]);
	return true;
}

bool spawn_client_call(
    struct spawn_client *c, struct spawn_request *q, struct spawn_reply *ret, int *ret_fd)
{
	return spawn_client_send(c, q) && spawn_client_receive(c, ret, ret_fd);
}

void spawn_client_create_request(struct spawn_request *q)
{
	*q = (struct spawn_request){
	    .op = SPAWN_CREATE,
	    .u.create =
	        {
	            .template_id = "host",
	            .memory_bytes = 256 << 20,
	            .disk_bytes = 256 << 20,
	            .cpu_milli = 1000,
	            .pids_max = 256,
	        },
	};
	av_id_make(q->id, AV_ID_SANDBOX);
}

int spawn_client_op(struct spawn_client *c, enum spawn_op op, const char *id)
{
	struct spawn_request q = {.op = op};
	struct spawn_reply r;
	snprintf(q.id, sizeof(q.id), "%s", id);
	if (!spawn_client_call(c, &q, &r, NULL))
		return ECONNRESET;
	return r.error;
}

void spawn_client_shell(
    struct spawn_client *c, const char *id, const char *script, char *out, size_t size)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	if (av_path_printf(a.sun_path, sizeof(a.sun_path), "%s/%s/agent.sock", c->run, id) < 0)
		die("socket path");
	AV_CLEANUP(av_closep) int s = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (connect(s, (struct sockaddr *)&a, sizeof(a)) < 0 ||
	    av_write_full(s, script, strlen(script)) < 0 || shutdown(s, SHUT_WR) < 0)
		die("shell");
	struct timeval tv = {.tv_sec = WAIT_MS / 1000};
	setsockopt(s, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv));
	ssize_t n = av_read_full(s, out, size - 1);
	if (n < 0) {
		errno = (int)-n;
		die("shell output");
	}
	out[n] = '\0';
}

unsigned int spawn_client_count(struct spawn_client *c)
{
	struct spawn_request q = {.op = SPAWN_LIST};
	struct spawn_reply r;
	unsigned int n = 0;
	do {
		if (!spawn_client_call(c, &q, &r, NULL) || r.error)
			die("LIST");
		n += r.u.list.count;
		if (r.u.list.count)
			memcpy(q.u.after, r.u.list.entries[r.u.list.count - 1].id, SPAWN_ID_SIZE);
	} while (r.u.list.more);
	return n;
}

pid_t spawn_client_worker(const struct spawn_client *c)
{
	char path[64], text[256];
	uint64_t pid;
	snprintf(path, sizeof(path), "/proc/%d/task/%d/children", c->supervisor, c->supervisor);
	ssize_t n = av_read_file_at(AT_FDCWD, path, text, sizeof(text));
	struct av_str rest = av_str_n(text, n > 0 ? (size_t)n : 0), first;
	av_str_cut(&rest, ' ', &first);
	return av_parse_u64(first, 1, INT32_MAX, &pid) < 0 ? -1 : (pid_t)pid;
}
