/* SPDX-License-Identifier: Apache-2.0 */
/*
 * watchdog.c - the program's side of its watchdog: started, and told (see watchdog_main.c)
 *
 * The watchdog is executed and never forked off: a fork of a program with threads may hold locks
 * that nobody will open. It gets descriptor 3, the socket, and 4, a pidfd of this process, nothing
 * else of what is open here, and of the environment what it needs to load libraries and to find
 * certificates.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"
#include "client/tracker.h"

#include "base/banned.h"

#define READY_MS  10000
#define TELL_MS   1000
#define FIRST_FD  16 /* above those that the watchdog gets */
#define ENV_NAMES 4

/* ---- telling ---- */

/* All of it within TELL_MS. */
static bool write_all(int fd, const char *p, size_t n)
{
	int64_t end_ms = avc_now_ms() + TELL_MS;

	while (n > 0) {
		ssize_t w = send(fd, p, n, MSG_NOSIGNAL | MSG_DONTWAIT);
		struct pollfd at = {.fd = fd, .events = POLLOUT};
		int64_t left = end_ms - avc_now_ms();

		if (w > 0) {
			p += w;
			n -= (size_t)w;
		} else if (w < 0 && errno != EAGAIN && errno != EINTR) {
			return false;
		} else if (left <= 0 || (poll(&at, 1, (int)left) < 0 && errno != EINTR)) {
			return false;
		}
	}
	return true;
}

bool avc_watchdog_tell(int fd, json_t *message)
{
	char *text = message ? avc_json_text(message) : NULL;
	size_t n = text ? strlen(text) : 0;
	bool told;

	json_decref(message);
	if (text)
		text[n] = '\n'; /* instead of the NUL */
	told = text && write_all(fd, text, n + 1);
	if (text)
		explicit_bzero(text, n + 1);
	free(text);
	return told;
}

void avc_watchdog_dismiss(int fd)
{
	/* A line of its own, should half a message be there. */
	(void)(write_all(fd, "\n", 1) && avc_watchdog_tell(fd, json_pack("{s:s}", "op", "bye")));
}

/* ---- starting ---- */

static int keep_env(char *env[ENV_NAMES + 1], char buf[ENV_NAMES][4200])
{
	static const char *const names[ENV_NAMES] = {
	    "LD_LIBRARY_PATH", "SSL_CERT_FILE", "SSL_CERT_DIR", "ASAN_OPTIONS"};
	int n = 0;

	for (size_t i = 0; i < ENV_NAMES; i++) {
		const char *value = getenv(names[i]);

		if (!value || strlen(value) > 4096)
			continue;
		(void)snprintf(buf[n], sizeof(buf[n]), "%s=%s", names[i], value);
		env[n] = buf[n];
		n++;
	}
	env[n] = NULL;
	return n;
}

static int set_actions(posix_spawn_file_actions_t *a, int sock, int pidfd)
{
	return posix_spawn_file_actions_addopen(a, 0, "/dev/null", O_RDWR, 0) ||
	       posix_spawn_file_actions_adddup2(a, 0, 1) ||
	       posix_spawn_file_actions_adddup2(a, 0, 2) ||
	       posix_spawn_file_actions_adddup2(a, sock, 3) ||
	       posix_spawn_file_actions_adddup2(a, pidfd, 4) ||
	       posix_spawn_file_actions_addclosefrom_np(a, 5);
}

static int set_attributes(posix_spawnattr_t *at)
{
	sigset_t all, none;

	sigfillset(&all);
	sigemptyset(&none);
	return posix_spawnattr_setsigdefault(at, &all) || posix_spawnattr_setsigmask(at, &none) ||
	       posix_spawnattr_setflags(
	           at, POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSID);
}

/* 0 or -errno. */
static int spawn(const char *program, int sock, int pidfd)
{
	char name[] = "aviary-watchdog", *argv[] = {name, NULL}, *env[ENV_NAMES + 1];
	char(*buf)[4200] = calloc(ENV_NAMES, sizeof(*buf));
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attributes;
	pid_t pid;
	int r;

	if (!buf)
		return -ENOMEM;
	(void)keep_env(env, buf);
	(void)posix_spawn_file_actions_init(&actions);
	(void)posix_spawnattr_init(&attributes);
	r = set_actions(&actions, sock, pidfd) || set_attributes(&attributes)
	        ? ENOMEM
	        : posix_spawn(&pid, program, &actions, &attributes, argv, env);
	(void)posix_spawn_file_actions_destroy(&actions);
	(void)posix_spawnattr_destroy(&attributes);
	free(buf);
	if (r != 0)
		return -r;
	/* It forks at once: the second one is the watchdog, and nobody's child here. */
	while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
		continue;
	return 0;
}

/* It answers with a byte when it has understood the settings. */
static bool is_ready(int fd)
{
	struct pollfd at = {.fd = fd, .events = POLLIN};
	int64_t end_ms = avc_now_ms() + READY_MS, left;
	char byte;

	while ((left = end_ms - avc_now_ms()) > 0) {
		int r = poll(&at, 1, (int)left);

		if (r > 0)
			return recv(fd, &byte, 1, MSG_DONTWAIT) == 1 && byte == 'R';
		if (r < 0 && errno != EINTR)
			return false;
	}
	return false;
}

static int higher(int fd)
{
	return fd < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, FIRST_FD);
}

int avc_watchdog_start(
    const char *program, const json_t *settings, int64_t grace_ms, int *ret_fd, char text[300])
{
	AV_CLEANUP(av_closep) int mine = -1, its = -1, low = -1, self = -1, pidfd = -1;
	int pair[2], r;

	text[0] = '\0';
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
		return AVIARY_E_NO_MEMORY;
	mine = pair[0];
	low = pair[1];
	its = higher(low);
	self = av_pidfd_open(getpid());
	pidfd = higher(self);
	if (its < 0 || pidfd < 0) {
		(void)snprintf(text, 300, "no descriptor for the watchdog: %s", strerror(errno));
		return AVIARY_E_UNSUPPORTED;
	}
	r = spawn(program, its, pidfd);
	if (r < 0) {
		(void)snprintf(text, 300,
		    "the watchdog %.160s cannot be started: %s; install it, or name it in "
		    "AVIARY_WATCHDOG",
		    program, strerror(-r));
		return r == -ENOMEM ? AVIARY_E_NO_MEMORY : AVIARY_E_UNSUPPORTED;
	}
	av_close_fd(&its);
	av_close_fd(&low);
	if (!avc_watchdog_tell(mine, json_pack("{s:s,s:O,s:I}", "op", "settings", "settings",
	                                 settings, "grace_ms", (json_int_t)grace_ms)) ||
	    !is_ready(mine)) {
		(void)snprintf(text, 300, "the watchdog %.160s does not answer", program);
		return AVIARY_E_UNSUPPORTED;
	}
	*ret_fd = AV_TAKE_FD(mine);
	return 0;
}
