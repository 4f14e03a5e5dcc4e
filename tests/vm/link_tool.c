/* SPDX-License-Identifier: Apache-2.0 */
/*
 * link_tool.c - both ends of links over virtio ports, with something to say to each other
 *
 *   link_tool outside SOCKET CONTROL FD...  the outside: carries connections to SOCKET over the
 *                                           ports FD..., and begins one on the port CONTROL after
 *                                           the other, printing what comes
 *   link_tool inside FD...                  the inside of those ports, on this machine
 *   link_tool                               as the first process of a guest: the same, with the
 *                                           ports that the agent looks for
 *
 * Inside each connection begins with a letter and eight bytes of a length, little-endian: 'e' and
 * what comes goes back; 's' and so many bytes are taken, then one comes back; 'g' and so many come;
 * 'q' and nothing is read for so many milliseconds; 'c' and the connection ends.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include "agent/ports.h"
#include "agent/server.h"
#include "base/fd.h"
#include "base/num.h"
#include "vlink/port.h"
#include "vlink/relay.h"

#include "base/banned.h"

#define LINKS_MAX  4
#define CHUNK      ((size_t)64 * 1024)
#define HEAD       9
#define TIMEOUT_MS 20000
#define MODULES    "/modules"

static _Noreturn void die(const char *what, int r)
{
	fprintf(stderr, "link_tool: %s: %s\n", what, strerror(r < 0 ? -r : r));
	exit(1);
}

/* --- inside --- */

struct serving {
	uv_poll_t poll;
	uv_timer_t timer;
	int handles;
	int fd;
	uint8_t head[HEAD];
	size_t n; /* of head, or bytes of buf */
	size_t off;
	uint64_t left;
	uint8_t buf[CHUNK];
};

static void serving_closed(uv_handle_t *h)
{
	struct serving *s = h->data;

	if (--s->handles == 0)
		free(s);
}

static void serving_end(struct serving *s)
{
	uv_close((uv_handle_t *)&s->poll, serving_closed);
	uv_close((uv_handle_t *)&s->timer, serving_closed);
	close(s->fd);
}

static void on_serving(uv_poll_t *poll, int status, int events);

/* False: it is over. */
static bool serve_echo(struct serving *s)
{
	ssize_t n = 0;

	for (;;) {
		if (!s->n) {
			n = read(s->fd, s->buf, sizeof(s->buf));
			if (n <= 0)
				break;
			s->n = (size_t)n;
			s->off = 0;
		}
		n = write(s->fd, s->buf + s->off, s->n);
		if (n < 0)
			break;
		s->off += (size_t)n;
		s->n -= (size_t)n;
	}
	if (n == 0 || errno != EAGAIN)
		return false;
	uv_poll_start(&s->poll, s->n ? UV_WRITABLE : UV_READABLE, on_serving);
	return true;
}

static bool serve_sink(struct serving *s)
{
	ssize_t n;

	while ((n = read(s->fd, s->buf, sizeof(s->buf))) > 0) {
		s->left -= AV_MIN(s->left, (uint64_t)n);
		if (!s->left && write(s->fd, "!", 1) != 1)
			return false;
	}
	return n < 0 && errno == EAGAIN;
}

static bool serve_source(struct serving *s)
{
	ssize_t n = 0;

	memset(s->buf, 'g', sizeof(s->buf));
	while (s->left) {
		n = write(s->fd, s->buf, (size_t)AV_MIN(s->left, (uint64_t)sizeof(s->buf)));
		if (n < 0)
			break;
		s->left -= (uint64_t)n;
	}
	uv_poll_start(&s->poll, s->left ? UV_WRITABLE : UV_READABLE, on_serving);
	return s->left ? errno == EAGAIN : read(s->fd, s->buf, 1) != 0;
}

static void on_awake(uv_timer_t *timer)
{
	struct serving *s = timer->data;

	s->head[0] = 's';
	s->left = UINT64_MAX;
	uv_poll_start(&s->poll, UV_READABLE, on_serving);
}

static bool serve(struct serving *s)
{
	switch (s->head[0]) {
	case 'e':
		return serve_echo(s);
	case 's':
		return serve_sink(s);
	case 'g':
		return serve_source(s);
	case 'q':
		uv_poll_stop(&s->poll);
		uv_timer_start(&s->timer, on_awake, s->left, 0);
		return true;
	default:
		return false;
	}
}

static void on_serving(uv_poll_t *poll, int status, int events)
{
	struct serving *s = poll->data;
	ssize_t n;

	(void)events;
	if (status < 0) {
		serving_end(s);
		return;
	}
	if (s->off == SIZE_MAX) {
		n = read(s->fd, s->head + s->n, HEAD - s->n);
		if (n == 0 || (n < 0 && errno != EAGAIN)) {
			serving_end(s);
			return;
		}
		s->n += n > 0 ? (size_t)n : 0;
		if (s->n < HEAD)
			return;
		for (int i = 8; i > 0; i--)
			s->left = s->left << 8 | s->head[i];
		s->n = s->off = 0;
	}
	if (!serve(s))
		serving_end(s);
}

static uv_loop_t *loop_of_server;

/* In place of the agent's HTTP/2. */
int server_adopt(struct server *server, int fd)
{
	struct serving *s = calloc(1, sizeof(*s));

	(void)server;
	if (!s)
		return -ENOMEM;
	s->fd = fd;
	s->off = SIZE_MAX;
	s->handles = 2;
	uv_poll_init(loop_of_server, &s->poll, fd);
	uv_timer_init(loop_of_server, &s->timer);
	s->poll.data = s->timer.data = s;
	uv_poll_start(&s->poll, UV_READABLE, on_serving);
	return 0;
}

static void inside_connection(void *ctx, int fd)
{
	(void)ctx;
	if (server_adopt(NULL, fd) < 0)
		close(fd);
}

static const struct vlink_relay_ops inside_ops = {.on_connection = inside_connection};

static void run_inside(int argc, char **argv)
{
	struct vlink_relay *relay;
	uv_loop_t loop;
	uint64_t fd;

	uv_loop_init(&loop);
	loop_of_server = &loop;
	for (int i = 0; i < argc; i++) {
		if (av_parse_u64(av_str_c(argv[i]), 3, 1000, &fd) < 0 ||
		    vlink_relay_open(&loop, (int)fd, AV_VLINK_INSIDE, &inside_ops, NULL, &relay) <
		        0)
			die(argv[i], errno);
	}
	uv_run(&loop, UV_RUN_DEFAULT);
}

/* --- a guest --- */

static struct vlink_port *control;

static void control_begin(void *ctx)
{
	(void)ctx;
	if (vlink_port_send(control, AV_STR("HELLO")) < 0)
		die("control", EIO);
}

static void control_record(void *ctx, struct av_str payload)
{
	(void)ctx;
	if (vlink_port_send(control, payload) < 0)
		die("control", EIO);
}

static void control_end(void *ctx, int why)
{
	(void)ctx;
	(void)why;
}

static const struct vlink_port_ops control_ops = {control_begin, control_record, NULL, control_end};

static void load_modules(void)
{
	char list[4096], path[256];
	struct av_str rest, name;
	ssize_t n = av_read_file_at(AT_FDCWD, MODULES "/list", list, sizeof(list));

	if (n < 0)
		die(MODULES "/list", (int)n);
	rest = av_str_n(list, (size_t)n);
	while (rest.n) {
		av_str_cut(&rest, '\n', &name);
		if (!name.n)
			continue;
		snprintf(path, sizeof(path), MODULES "/%.*s", AV_STR_ARG(name));
		int fd = open(path, O_RDONLY | O_CLOEXEC);
		if (fd < 0 || (syscall(SYS_finit_module, fd, "", 0) < 0 && errno != EEXIST))
			die(path, errno);
		close(fd);
	}
}

static void run_guest(void)
{
	static struct agent a;
	struct ports *ports;
	int r;

	mkdir("/proc", 0755);
	mkdir("/sys", 0755);
	mkdir("/dev", 0755);
	mount("proc", "/proc", "proc", 0, NULL);
	mount("sysfs", "/sys", "sysfs", 0, NULL);
	mount("devtmpfs", "/dev", "devtmpfs", 0, NULL);
	int con = open("/dev/console", O_RDWR | O_CLOEXEC);
	if (con >= 0)
		dup2(con, 2);
	load_modules();
	uv_loop_init(&a.loop);
	loop_of_server = &a.loop;
	r = ports_open(&a, TIMEOUT_MS, &ports);
	if (r == 0)
		r = ports_open_control(&a, TIMEOUT_MS, &control_ops, NULL, &control);
	if (r < 0)
		die("ports", r);
	fprintf(stderr, "guest: ready\n");
	uv_run(&a.loop, UV_RUN_DEFAULT);
}

/* --- outside --- */

struct outside {
	uv_loop_t loop;
	uv_poll_t listener;
	uv_signal_t again;
	int fd;
	struct vlink_relay *links[LINKS_MAX];
	size_t n;
	struct vlink_port *control;
};

static void on_listener(uv_poll_t *poll, int status, int events);

static struct vlink_relay *free_link(struct outside *o)
{
	for (size_t i = 0; i < o->n; i++)
		if (!vlink_relay_busy(o->links[i]))
			return o->links[i];
	return NULL;
}

static void on_listener(uv_poll_t *poll, int status, int events)
{
	struct outside *o = poll->data;
	struct vlink_relay *link = free_link(o);
	int fd;

	(void)status;
	(void)events;
	if (!link) {
		uv_poll_stop(poll);
		return;
	}
	fd = accept4(o->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (fd >= 0 && vlink_relay_connect(link, fd, TIMEOUT_MS) < 0)
		close(fd);
}

static void outside_idle(void *ctx, struct vlink_relay *r, int why)
{
	struct outside *o = ctx;

	(void)r;
	if (why)
		printf("idle %s\n", strerror(-why));
	uv_poll_start(&o->listener, UV_READABLE, on_listener);
}

static void outside_gone(void *ctx, struct vlink_relay *r, int why)
{
	(void)ctx;
	(void)r;
	printf("gone %s\n", strerror(-why));
	exit(0);
}

static const struct vlink_relay_ops outside_ops = {
    .on_idle = outside_idle, .on_gone = outside_gone};

static void out_begin(void *ctx)
{
	(void)ctx;
	printf("control begins\n");
}

static void out_record(void *ctx, struct av_str payload)
{
	(void)ctx;
	printf("control %.*s\n", AV_STR_ARG(payload));
}

static void out_end(void *ctx, int why)
{
	(void)ctx;
	printf("control ends %d\n", why);
}

static const struct vlink_port_ops out_ops = {out_begin, out_record, NULL, out_end};

static void on_again(uv_signal_t *h, int sig)
{
	struct outside *o = h->data;
	int r = vlink_port_begin(o->control, TIMEOUT_MS);

	(void)sig;
	if (r == 0)
		r = vlink_port_send(o->control, AV_STR("message"));
	if (r < 0)
		die("control", r);
}

static void run_outside(const char *path, const char *control_fd, int argc, char **argv)
{
	static struct outside o;
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	uint64_t fd;

	setvbuf(stdout, NULL, _IOLBF, 0);
	uv_loop_init(&o.loop);
	snprintf(sa.sun_path, sizeof(sa.sun_path), "%s", path);
	o.fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (bind(o.fd, (struct sockaddr *)&sa, sizeof(sa)) < 0 || listen(o.fd, 64) < 0)
		die(path, errno);
	for (int i = 0; i < argc && o.n < LINKS_MAX; i++) {
		int r = av_parse_u64(av_str_c(argv[i]), 3, 1000, &fd);
		if (r == 0)
			r = vlink_relay_open(
			    &o.loop, (int)fd, AV_VLINK_OUTSIDE, &outside_ops, &o, &o.links[o.n++]);
		if (r < 0)
			die(argv[i], r);
	}
	if (av_parse_u64(av_str_c(control_fd), 3, 1000, &fd) == 0) {
		if (vlink_port_open(&o.loop, (int)fd, AV_VLINK_OUTSIDE, &out_ops, &o, &o.control) <
		    0)
			die("control", EIO);
		uv_signal_init(&o.loop, &o.again);
		o.again.data = &o;
		uv_signal_start(&o.again, on_again, SIGUSR1);
	}
	uv_poll_init(&o.loop, &o.listener, o.fd);
	o.listener.data = &o;
	uv_poll_start(&o.listener, UV_READABLE, on_listener);
	printf("ready\n");
	uv_run(&o.loop, UV_RUN_DEFAULT);
}

int main(int argc, char **argv)
{
	signal(SIGPIPE, SIG_IGN);
	if (argc > 4 && strcmp(argv[1], "outside") == 0)
		run_outside(argv[2], argv[3], argc - 4, argv + 4);
	else if (argc > 2 && strcmp(argv[1], "inside") == 0)
		run_inside(argc - 2, argv + 2);
	else if (getpid() == 1)
		run_guest();
	else
		die("usage: link_tool outside SOCKET CONTROL FD... | inside FD...", EINVAL);
	return 0;
}
