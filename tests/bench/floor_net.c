/* SPDX-License-Identifier: Apache-2.0 */
/*
 * floor_net.c - the listening half of floors that serve
 */
#include "floor_net.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

int floor_listen(const char *name)
{
	struct sockaddr_in sa = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t n = sizeof(sa);
	prctl(PR_SET_PDEATHSIG, SIGTERM, 0, 0, 0);
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (listener < 0 || bind(listener, (struct sockaddr *)&sa, sizeof(sa)) < 0 ||
	    listen(listener, 1) < 0 || getsockname(listener, (struct sockaddr *)&sa, &n) < 0) {
		perror(name);
		exit(1);
	}
	printf("http://127.0.0.1:%d\n", ntohs(sa.sin_port));
	fflush(stdout);
	return listener;
}

int floor_accept(int listener)
{
	int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC), one = 1;
	if (fd < 0)
		exit(1);
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	return fd;
}

void floor_send(int fd, const char *p, size_t n)
{
	while (n > 0) {
		ssize_t r = write(fd, p, n);
		if (r <= 0)
			exit(1);
		p += r;
		n -= (size_t)r;
	}
}

size_t floor_read_head(int fd, char *buffer, size_t size, size_t *ret_have)
{
	const char *end = NULL;
	size_t have = 0;
	while (!end) {
		ssize_t r = read(fd, buffer + have, size - 1 - have);
		if (r <= 0)
			return 0;
		have += (size_t)r;
		buffer[have] = '\0';
		end = strstr(buffer, "\r\n\r\n");
	}
	*ret_have = have;
	return (size_t)(end - buffer) + 4;
}

void floor_path(const char *head, char ret[static FLOOR_PATH_SIZE])
{
	const char *p = strstr(head, "?path=");
	ret[0] = '\0';
	if (p)
		snprintf(ret, FLOOR_PATH_SIZE, "%.*s", (int)strcspn(p + 6, " "), p + 6);
}
