/* SPDX-License-Identifier: Apache-2.0 */
/*
 * floor_ws.c - the least that a server must do to carry a program's output over a WebSocket
 *
 * Blocking, one connection after the other, no sandbox, no checks: GET /stream?path=F upgrades,
 * reads the client's first message, runs `cat F F F F` with a pipe for its output, and sends what
 * it reads from there in binary messages; then {"exit_code":n} and Close. Prints its URL. The floor
 * of ws_stream_mb_s.
 */
#include <fcntl.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "floor_net.h"

#define PIECE (64 * 1024) /* what a pipe holds */

static char buffer[PIECE];

static void send_message(int fd, int opcode, const char *p, size_t n)
{
	char head[10] = {(char)(0x80 | opcode)};
	size_t k = n < 126 ? 2 : n < 65536 ? 4 : 10;
	head[1] = (char)(n < 126 ? n : n < 65536 ? 126 : 127);
	for (size_t i = 2; i < k; i++)
		head[i] = (char)(n >> (8 * (k - 1 - i)));
	struct iovec iov[2] = {{head, k}, {(char *)(uintptr_t)p, n}};
	ssize_t r = writev(fd, iov, 2);
	if (r < (ssize_t)k)
		exit(1);
	floor_send(fd, p + ((size_t)r - k), n - ((size_t)r - k));
}

static void stream(int fd, char *path)
{
	char name[] = "cat", *argv[] = {name, path, path, path, path, NULL}, text[64];
	posix_spawn_file_actions_t fa;
	int out[2], status = 0;
	pid_t pid;
	ssize_t n;
	if (pipe2(out, O_CLOEXEC) < 0)
		exit(1);
	posix_spawn_file_actions_init(&fa);
	posix_spawn_file_actions_addopen(&fa, 0, "/dev/null", O_RDONLY, 0);
	posix_spawn_file_actions_adddup2(&fa, out[1], 1);
	if (posix_spawnp(&pid, "cat", &fa, NULL, argv, environ) != 0)
		exit(1);
	posix_spawn_file_actions_destroy(&fa);
	close(out[1]);
	while ((n = read(out[0], buffer, PIECE)) > 0)
		send_message(fd, 2, buffer, (size_t)n);
	close(out[0]);
	waitpid(pid, &status, 0);
	n = snprintf(text, sizeof(text), "{\"exit_code\":%d}", WEXITSTATUS(status));
	send_message(fd, 1, text, (size_t)n);
	send_message(fd, 8, "\x03\xe8", 2);
}

static void serve(int fd)
{
	static const char answer[] = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
	                             "Connection: Upgrade\r\n\r\n";
	char path[FLOOR_PATH_SIZE];
	size_t have;
	if (!floor_read_head(fd, buffer, PIECE, &have))
		return;
	floor_path(buffer, path);
	floor_send(fd, answer, sizeof(answer) - 1);
	if (read(fd, buffer, PIECE) <= 0)
		return;
	stream(fd, path);
}

int main(void)
{
	int listener = floor_listen("floor_ws");
	for (;;) {
		int fd = floor_accept(listener);
		serve(fd);
		close(fd);
	}
}
