/* SPDX-License-Identifier: Apache-2.0 */
/*
 * forwarder.h - something between a client and the daemon: a unix socket, or a connection that
 * breaks
 */
#pragma once

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

struct forwarder {
	int listener, stop[2];
	struct sockaddr_in to; /* the daemon */
	char url[64];
	pthread_t thread;
	atomic_long cut_after; /* bytes that a connection brings before it is cut; -1: never */
	atomic_int connections;
};

struct forwarder_link {
	struct forwarder *f;
	int client;
};

static bool forwarder_copy(int from, int to, long *left)
{
	char buf[4096];
	ssize_t n = recv(from, buf, sizeof(buf), 0);

	if (n <= 0)
		return false;
	if (left && *left >= 0) {
		n = n > *left ? *left : n;
		*left -= n;
	}
	for (ssize_t at = 0; at < n;) {
		ssize_t w = send(to, buf + at, (size_t)(n - at), MSG_NOSIGNAL);

		if (w <= 0)
			return false;
		at += w;
	}
	return !left || *left != 0;
}

static void *forwarder_link_run(void *ctx)
{
	struct forwarder_link *k = ctx;
	struct forwarder *f = k->f;
	int there = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	long left = atomic_load(&f->cut_after);
	struct pollfd at[3] = {{.fd = k->client, .events = POLLIN}, {.fd = there, .events = POLLIN},
	    {.fd = f->stop[0], .events = POLLIN}};
	bool good = connect(there, (struct sockaddr *)&f->to, sizeof(f->to)) == 0;

	while (good && poll(at, 3, -1) >= 0 && !at[2].revents) {
		if (at[0].revents)
			good = forwarder_copy(k->client, there, NULL);
		if (good && at[1].revents)
			good = forwarder_copy(there, k->client, &left);
	}
	close(there);
	close(k->client);
	free(k);
	return NULL;
}

static void *forwarder_run(void *ctx)
{
	struct forwarder *f = ctx;
	struct pollfd at[2] = {
	    {.fd = f->listener, .events = POLLIN}, {.fd = f->stop[0], .events = POLLIN}};
	pthread_t links[256];
	size_t n = 0;

	while (poll(at, 2, -1) >= 0 && !at[1].revents && n < 256) {
		struct forwarder_link *k = calloc(1, sizeof(*k));

		if (!k)
			break;
		*k = (struct forwarder_link){f, accept4(f->listener, NULL, NULL, SOCK_CLOEXEC)};
		atomic_fetch_add(&f->connections, 1);
		if (pthread_create(&links[n], NULL, forwarder_link_run, k) != 0)
			break;
		n++;
	}
	while (n > 0)
		pthread_join(links[--n], NULL);
	return NULL;
}

/* To the daemon of this run. path: of a unix socket; NULL: TCP, f->url says where. */
static bool forwarder_start(struct forwarder *f, const char *path)
{
	struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	struct sockaddr_un un = {.sun_family = AF_UNIX};
	socklen_t size = sizeof(in);
	const char *url = getenv("AVIARY_URL");
	bool good;

	memset(f, 0, sizeof(*f));
	atomic_init(&f->cut_after, -1);
	f->to = in;
	f->to.sin_port = htons((uint16_t)atoi(strrchr(url, ':') + 1));
	if (path)
		(void)snprintf(un.sun_path, sizeof(un.sun_path), "%s", path);
	f->listener = socket(path ? AF_UNIX : AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	good = path ? bind(f->listener, (struct sockaddr *)&un, sizeof(un)) == 0
	            : bind(f->listener, (struct sockaddr *)&in, sizeof(in)) == 0;
	if (!good || listen(f->listener, 64) < 0 || pipe(f->stop) < 0)
		return false;
	if (!path && getsockname(f->listener, (struct sockaddr *)&in, &size) < 0)
		return false;
	(void)snprintf(f->url, sizeof(f->url), "http://127.0.0.1:%d", ntohs(in.sin_port));
	return pthread_create(&f->thread, NULL, forwarder_run, f) == 0;
}

static void forwarder_stop(struct forwarder *f)
{
	close(f->stop[1]); /* readable for all */
	pthread_join(f->thread, NULL);
	close(f->stop[0]);
	close(f->listener);
}
