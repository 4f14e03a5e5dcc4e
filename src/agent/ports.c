/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ports.c - virtio ports of a guest
 */
#include "agent/ports.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "agent/server.h"
#include "base/avtime.h"
#include "base/fd.h"
#include "proto/guest.h"
#include "vlink/relay.h"

#include "base/banned.h"

#define PORTS_DIR     "/sys/class/virtio-ports"
#define PORT_NAME_MAX 64
#define LOOK_MS       2

struct ports {
	struct agent *agent;
	struct vlink_relay *links[AV_GUEST_LINKS]; /* owned */
};

/* --- finding them --- */

/* Whether that port ("vport0p1") has that name. */
static bool has_name(int dirfd, const char *port, const char *name)
{
	char path[NAME_MAX + 8], text[PORT_NAME_MAX];
	ssize_t n;

	snprintf(path, sizeof(path), "%s/name", port);
	n = av_read_file_at(dirfd, path, text, sizeof(text));
	if (n > 0 && text[n - 1] == '\n')
		n--;
	return n > 0 && av_str_eq_c(av_str_n(text, (size_t)n), name);
}

static int open_port(const char *port)
{
	char path[NAME_MAX + 8];
	int fd;

	snprintf(path, sizeof(path), "/dev/%s", port);
	fd = open(path, O_RDWR | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

/* The descriptor; -ENODEV: it is not there (yet). */
static int look(const char *name)
{
	DIR *dir = opendir(PORTS_DIR);
	int r = -ENODEV;

	if (!dir)
		return errno == ENOENT ? -ENODEV : -errno;
	for (struct dirent *e; r == -ENODEV && (e = readdir(dir));)
		if (e->d_name[0] != '.' && has_name(dirfd(dir), e->d_name, name))
			r = open_port(e->d_name);
	closedir(dir);
	/* Named, but the node is not in /dev yet. */
	return r == -ENOENT || r == -ENXIO ? -ENODEV : r;
}

int ports_find(const char *name, unsigned timeout_ms)
{
	int64_t end = av_mono_ns() + timeout_ms * AV_NS_PER_MS;
	int fd;

	while ((fd = look(name)) == -ENODEV && av_mono_ns() < end)
		nanosleep(&(struct timespec){.tv_nsec = LOOK_MS * AV_NS_PER_MS}, NULL);
	return fd;
}

/* --- links --- */

static void on_connection(void *ctx, int fd)
{
	struct ports *p = ctx;

	/* The other end of the pair hears of it, and with it who is outside. */
	if (server_adopt(p->agent->server, fd) < 0)
		close(fd);
}

static const struct vlink_relay_ops link_ops = {.on_connection = on_connection};

static int open_link(struct ports *p, size_t i, unsigned timeout_ms)
{
	char name[PORT_NAME_MAX];
	int fd, r;

	snprintf(name, sizeof(name), AV_GUEST_PORT_LINK "%zu", i);
	fd = ports_find(name, timeout_ms);
	if (fd < 0)
		return fd;
	r = vlink_relay_open(&p->agent->loop, fd, AV_VLINK_INSIDE, &link_ops, p, &p->links[i]);
	if (r < 0)
		close(fd);
	return r;
}

int ports_open(struct agent *a, unsigned timeout_ms, struct ports **ret)
{
	struct ports *p = calloc(1, sizeof(*p));
	int r = p ? 0 : -ENOMEM;

	if (p)
		p->agent = a;
	for (size_t i = 0; r == 0 && i < AV_GUEST_LINKS; i++)
		r = open_link(p, i, timeout_ms);
	if (r == 0) {
		*ret = p;
		return 0;
	}
	for (size_t i = 0; p && i < AV_GUEST_LINKS; i++)
		vlink_relay_close(p->links[i]);
	free(p);
	return r;
}

void ports_drop(struct ports *p)
{
	for (size_t i = 0; i < AV_GUEST_LINKS; i++)
		vlink_relay_drop(p->links[i]);
}

/* --- the control port --- */

int ports_open_control(struct agent *a, unsigned timeout_ms, const struct vlink_port_ops *ops,
    void *ctx, struct vlink_port **ret)
{
	int fd = ports_find(AV_GUEST_PORT_CONTROL, timeout_ms);
	int r;

	if (fd < 0)
		return fd;
	r = vlink_port_open(&a->loop, fd, AV_VLINK_INSIDE, ops, ctx, ret);
	if (r < 0)
		close(fd);
	return r;
}
