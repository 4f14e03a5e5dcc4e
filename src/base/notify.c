/* SPDX-License-Identifier: Apache-2.0 */
/*
 * notify.c - telling the service manager how the service is
 */
#include "base/notify.h"

#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/num.h"
#include "base/banned.h"

#define MESSAGE_MAX 512

static int64_t watchdog_ns(void)
{
	const char *usec = getenv("WATCHDOG_USEC"), *pid = getenv("WATCHDOG_PID");
	uint64_t n, who;
	if (!usec || av_parse_u64(av_str_c(usec), 1, INT64_MAX / 1000, &n) < 0)
		return 0;
	if (pid &&
	    (av_parse_u64(av_str_c(pid), 1, INT32_MAX, &who) < 0 || who != (uint64_t)getpid()))
		return 0;
	return (int64_t)n * 1000;
}

void av_notify_open(struct av_notify *n)
{
	const char *path = getenv("NOTIFY_SOCKET");
	size_t len = path ? strlen(path) : 0;

	*n = (struct av_notify){.fd = -1, .addr = {.sun_family = AF_UNIX}};
	if (len > 1 && len < sizeof(n->addr.sun_path) && (path[0] == '/' || path[0] == '@')) {
		memcpy(n->addr.sun_path, path, len);
		if (path[0] == '@')
			n->addr.sun_path[0] = '\0';
		n->addr_size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len);
		n->fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
		n->watchdog_ns = n->fd < 0 ? 0 : watchdog_ns();
	}
	unsetenv("NOTIFY_SOCKET");
	unsetenv("WATCHDOG_USEC");
	unsetenv("WATCHDOG_PID");
}

void av_notify_close(struct av_notify *n)
{
	av_close_fd(&n->fd);
}

void av_notify(const struct av_notify *n, const char *fmt, ...)
{
	char text[MESSAGE_MAX];
	va_list ap;
	if (n->fd < 0)
		return;
	va_start(ap, fmt);
	int len = vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (len > 0 && (size_t)len < sizeof(text))
		(void)sendto(n->fd, text, (size_t)len, MSG_NOSIGNAL,
		    (const struct sockaddr *)&n->addr, n->addr_size);
}

void av_beat(int fd, enum av_beat beat)
{
	char c = (char)beat;
	if (fd >= 0 && write(fd, &c, 1) != 1)
		return; /* nobody reads, or not fast enough: nothing to be done about it here */
}
