/* SPDX-License-Identifier: Apache-2.0 */
/*
 * floor_http.c - the least that an HTTP server must do to run a program or carry a file
 *
 * One blocking connection, no checks, no sandbox: POST runs `true` with pipes for its output and
 * waits; POST /code and /code/fresh let a Python evaluate 1+1, one that stays or a new one; PUT
 * /files?path=F writes the body to F; GET /files?path=F sends F. Prints its URL. The floor of
 * exec_true, run_code, upload and download.
 */
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "floor_net.h"

#define PIECE (256 * 1024)

static char buffer[PIECE];
static size_t have; /* bytes in the buffer */

static void answer(int fd, const char *body)
{
	char text[512];
	int n = snprintf(text, sizeof(text),
	    "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n\r\n%s",
	    strlen(body), body);
	floor_send(fd, text, (size_t)n);
}

static void run_true(int fd)
{
	char name[] = "true", *argv[] = {name, NULL};
	posix_spawn_file_actions_t fa;
	int out[2], err[2];
	pid_t pid;
	char text[128];
	if (pipe2(out, O_CLOEXEC) < 0 || pipe2(err, O_CLOEXEC) < 0)
		exit(1);
	posix_spawn_file_actions_init(&fa);
	posix_spawn_file_actions_addopen(&fa, 0, "/dev/null", O_RDONLY, 0);
	posix_spawn_file_actions_adddup2(&fa, out[1], 1);
	posix_spawn_file_actions_adddup2(&fa, err[1], 2);
	if (posix_spawnp(&pid, "true", &fa, NULL, argv, environ) != 0)
		exit(1);
	posix_spawn_file_actions_destroy(&fa);
	close(out[1]);
	close(err[1]);
	struct pollfd p[2] = {{.fd = out[0], .events = POLLIN}, {.fd = err[0], .events = POLLIN}};
	while (p[0].fd >= 0 || p[1].fd >= 0) {
		poll(p, 2, -1);
		for (int i = 0; i < 2; i++)
			if (p[i].fd >= 0 && p[i].revents && read(p[i].fd, text, sizeof(text)) <= 0)
				p[i].fd = -1;
	}
	close(out[0]);
	close(err[0]);
	int status;
	waitpid(pid, &status, 0);
	snprintf(text, sizeof(text), "{\"exit_code\":%d,\"stdout\":\"\",\"stderr\":\"\"}",
	    WEXITSTATUS(status));
	answer(fd, text);
}

/* A Python that evaluates lines, kept or fresh. */
static struct python {
	pid_t pid;
	int in, out;
} kept;

static struct python start_python(void)
{
	char name[] = "python3", c[] = "-c",
	     loop[] = "import sys\nfor line in sys.stdin: print(eval(line), flush=True)";
	char *argv[] = {name, c, loop, NULL};
	posix_spawn_file_actions_t fa;
	struct python p;
	int in[2], out[2];
	if (pipe2(in, O_CLOEXEC) < 0 || pipe2(out, O_CLOEXEC) < 0)
		exit(1);
	posix_spawn_file_actions_init(&fa);
	posix_spawn_file_actions_adddup2(&fa, in[0], 0);
	posix_spawn_file_actions_adddup2(&fa, out[1], 1);
	if (posix_spawn(&p.pid, "/usr/bin/python3", &fa, NULL, argv, environ) != 0)
		exit(1);
	posix_spawn_file_actions_destroy(&fa);
	close(in[0]);
	close(out[1]);
	p.in = in[1];
	p.out = out[0];
	return p;
}

static void run_code(int fd, bool fresh)
{
	char line[64], text[256];
	struct python p;
	if (!fresh && kept.pid == 0)
		kept = start_python();
	p = fresh ? start_python() : kept;
	floor_send(p.in, "1+1\n", 4);
	size_t n = 0;
	while (n == 0 || line[n - 1] != '\n') {
		ssize_t r = read(p.out, line + n, sizeof(line) - n);
		if (r <= 0)
			exit(1);
		n += (size_t)r;
	}
	snprintf(text, sizeof(text), "{\"results\":[{\"data\":{\"text/plain\":\"%.*s\"}}]}",
	    (int)(n - 1), line);
	answer(fd, text);
	if (!fresh)
		return;
	kill(p.pid, SIGKILL);
	waitpid(p.pid, NULL, 0);
	close(p.in);
	close(p.out);
}

static void put_file(int fd, const char *path, size_t length, size_t head)
{
	int to = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	size_t n = have - head;
	if (to < 0)
		exit(1);
	floor_send(to, buffer + head, n);
	for (length -= n; length > 0; length -= n) {
		ssize_t r = read(fd, buffer, length < PIECE ? length : PIECE);
		if (r <= 0)
			exit(1);
		n = (size_t)r;
		floor_send(to, buffer, n);
	}
	close(to);
	answer(fd, "{}");
}

static void get_file(int fd, const char *path)
{
	int from = open(path, O_RDONLY | O_CLOEXEC);
	struct stat st;
	char text[256];
	if (from < 0 || fstat(from, &st) < 0)
		exit(1);
	int n = snprintf(text, sizeof(text), "HTTP/1.1 200 OK\r\nContent-Length: %lld\r\n\r\n",
	    (long long)st.st_size);
	floor_send(fd, text, (size_t)n);
	for (ssize_t r; (r = read(from, buffer, PIECE)) > 0;)
		floor_send(fd, buffer, (size_t)r);
	close(from);
}

static void serve(int fd)
{
	size_t head;
	while ((head = floor_read_head(fd, buffer, PIECE, &have)) > 0) {
		char path[FLOOR_PATH_SIZE], *l = strstr(buffer, "Content-Length:");
		size_t length = l ? strtoul(l + 15, NULL, 10) : 0;
		floor_path(buffer, path);
		if (strncmp(buffer, "PUT", 3) == 0) {
			put_file(fd, path, length, head);
			continue;
		}
		while (have < head + length) {
			ssize_t r = read(fd, buffer + have, PIECE - have);
			if (r <= 0)
				return;
			have += (size_t)r;
		}
		if (strncmp(buffer, "POST /code", 10) == 0)
			run_code(fd, strncmp(buffer, "POST /code/fresh", 16) == 0);
		else if (strncmp(buffer, "POST", 4) == 0)
			run_true(fd);
		else
			get_file(fd, path);
	}
}

int main(void)
{
	serve(floor_accept(floor_listen("floor_http")));
	return 0;
}
