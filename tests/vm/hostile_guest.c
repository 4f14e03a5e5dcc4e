/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hostile_guest.c - in a guest, as its root: takes the agent's place on the virtio ports and lies
 *
 *   hostile_guest MODE
 *
 * The agent is stopped for good (a guest's root may trace its first process) and its descriptors of
 * the ports are taken over. Then, by MODE:
 *
 *   silent     nothing is answered any more
 *   garbage    bytes without sense, on all ports, for ever
 *   flood      whole records of nonsense, on all ports, as fast as they go
 *   lengths    records that say they are longer than there may be
 *   nonce      each reset is echoed with a nonce that is wrong in one bit
 *   machine    all is answered as the agent would, but who it is: another machine-id
 *   name       ... another host name
 *   clock      ... another time
 *   deaf       all is answered but THAW
 *   version    says HELLO as a version that nobody knows
 *   record     claims an exit record full of escape sequences, then restarts the machine
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/reboot.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/num.h"
#include "proto/guest.h"
#include "proto/vlink.h"

#include "base/banned.h"

#define PORTS_MAX   16
#define FD_SCAN_MAX 256
#define CHUNK       ((size_t)64 * 1024)
/* For the answer to whoever started this to get out. */
#define HEADSTART_MS 300

static int ports[PORTS_MAX], control = -1;
static unsigned n_ports;
static const char *mode;

static bool is(const char *name)
{
	return strcmp(mode, name) == 0;
}

static void wait_ms(long ms)
{
	nanosleep(&(struct timespec){.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000}, NULL);
}

static _Noreturn void die(const char *what)
{
	fprintf(stderr, "hostile_guest: %s: %s\n", what, strerror(errno));
	exit(1);
}

/* --- taking over --- */

static void stop_agent(void)
{
	DIR *dir = opendir("/proc/1/task");
	struct dirent *e;
	uint64_t tid;

	if (!dir)
		die("/proc/1/task");
	while ((e = readdir(dir))) {
		if (av_parse_u64(av_str_c(e->d_name), 1, INT32_MAX, &tid) < 0)
			continue;
		if (ptrace(PTRACE_SEIZE, (pid_t)tid, NULL, NULL) < 0 ||
		    ptrace(PTRACE_INTERRUPT, (pid_t)tid, NULL, NULL) < 0)
			die("ptrace");
	}
	closedir(dir);
}

static bool is_control(const char *device)
{
	char path[128], name[64] = "";
	int fd;

	snprintf(path, sizeof(path), "/sys/class/virtio-ports/%.32s/name", device);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || read(fd, name, sizeof(name) - 1) < 0)
		die(path);
	close(fd);
	return strncmp(name, AV_GUEST_PORT_CONTROL, strlen(AV_GUEST_PORT_CONTROL)) == 0;
}

static void take_ports(void)
{
	int agent = (int)syscall(SYS_pidfd_open, 1, 0);
	char path[64], to[128];

	if (agent < 0)
		die("pidfd_open");
	for (int i = 0; i < FD_SCAN_MAX && n_ports < PORTS_MAX; i++) {
		ssize_t n;
		char *device;

		snprintf(path, sizeof(path), "/proc/1/fd/%d", i);
		n = readlink(path, to, sizeof(to) - 1);
		if (n < 0)
			continue;
		to[n] = '\0';
		device = strstr(to, "/vport");
		if (!device)
			continue;
		ports[n_ports] = (int)syscall(SYS_pidfd_getfd, agent, i, 0);
		if (ports[n_ports] < 0)
			die("pidfd_getfd");
		if (is_control(device + 1))
			control = ports[n_ports];
		n_ports++;
	}
	if (control < 0)
		die("no control port");
}

/* --- writing --- */

static void put(int fd, const void *p, size_t n)
{
	const uint8_t *b = p;

	while (n) {
		ssize_t r = write(fd, b, n);

		if (r > 0) {
			b += r;
			n -= (size_t)r;
		} else {
			wait_ms(1);
		}
	}
}

static void put_record(const void *p, size_t n)
{
	uint8_t record[AV_GUEST_MESSAGE_MAX + AV_VLINK_OVERHEAD];

	memcpy(record + AV_VLINK_HEAD, p, n);
	av_vlink_seal(record, n, AV_VLINK_DATA);
	put(control, record, n + AV_VLINK_OVERHEAD);
}

static void put_message(struct av_guest_message *m)
{
	uint8_t text[AV_GUEST_MESSAGE_MAX];

	put_record(text, av_guest_encode(text, m));
}

/* For ever, without waiting for a port that takes nothing. */
static _Noreturn void shout(const uint8_t *p, size_t n)
{
	for (;;) {
		bool any = false;

		for (unsigned i = 0; i < n_ports; i++)
			any |= write(ports[i], p, n) > 0;
		if (!any)
			wait_ms(5);
	}
}

static _Noreturn void shout_mode(void)
{
	static uint8_t buf[CHUNK];
	uint8_t one[AV_VLINK_OVERHEAD + 64];
	size_t n = 0;

	if (is("garbage")) {
		for (size_t i = 0; i < sizeof(buf); i++)
			buf[i] = (uint8_t)(i * 2654435761u >> 13);
		shout(buf, sizeof(buf));
	}
	if (is("lengths")) {
		memset(buf, 0xff, sizeof(buf));
		shout(buf, sizeof(buf));
	}
	memset(one, 'A', sizeof(one));
	av_vlink_seal(one, 64, AV_VLINK_DATA);
	for (; n + sizeof(one) <= sizeof(buf); n += sizeof(one))
		memcpy(buf + n, one, sizeof(one));
	shout(buf, n);
}

/* --- in the agent's words --- */

static void say_hello(void)
{
	struct av_guest_message m = {.type = AV_GUEST_HELLO};

	m.hello.version = is("version") ? 4242 : AV_GUEST_VERSION;
	snprintf(m.hello.agent, sizeof(m.hello.agent), "\033[31mevil");
	snprintf(m.hello.kernel, sizeof(m.hello.kernel), "\033]0;evil\a");
	put_message(&m);
}

static void confirm(uint32_t seq, const struct av_guest_identity *i)
{
	struct av_guest_message m = {.type = AV_GUEST_CONFIRM, .seq = seq};

	memcpy(m.confirm.hostname, i->hostname, sizeof(m.confirm.hostname));
	memcpy(m.confirm.machine_id, i->machine_id, sizeof(m.confirm.machine_id));
	memcpy(m.confirm.mac, i->mac, sizeof(m.confirm.mac));
	m.confirm.address = i->address;
	m.confirm.real_ns = i->real_ns;
	if (is("machine"))
		m.confirm.machine_id[0] ^= 1;
	if (is("name"))
		snprintf(m.confirm.hostname, sizeof(m.confirm.hostname), "somebody-else");
	if (is("clock"))
		m.confirm.real_ns += 3600ll * 1000000000;
	put_message(&m);
}

static void on_message(struct av_str payload)
{
	struct av_guest_message q, a = {.type = AV_GUEST_DONE};

	if (av_guest_decode(payload, &q) < 0)
		return;
	a.seq = q.seq;
	if (q.type == AV_GUEST_IDENTITY)
		confirm(q.seq, &q.identity);
	else if (q.type != AV_GUEST_THAW || !is("deaf"))
		put_message(&a);
}

static void on_reset(const struct av_vlink_in *in)
{
	uint8_t nonce[AV_VLINK_NONCE_SIZE], echo[AV_VLINK_ECHO_SIZE];

	memcpy(nonce, in->nonce, sizeof(nonce));
	nonce[0] ^= is("nonce");
	av_vlink_put_echo(echo, nonce);
	put(control, echo, sizeof(echo));
	say_hello();
}

static _Noreturn void pretend(void)
{
	static uint8_t buf[2 * AV_VLINK_RECORD_MAX];
	struct av_vlink_in in;
	size_t have = 0, used;
	struct av_str payload;

	av_vlink_in_init(&in, AV_VLINK_INSIDE);
	in.state = AV_VLINK_OPEN; /* the agent's connection goes on */
	for (;;) {
		ssize_t r = read(control, buf + have, sizeof(buf) - have);
		enum av_vlink_event ev;

		if (r <= 0) {
			wait_ms(1);
			continue;
		}
		have += (size_t)r;
		do {
			ev = av_vlink_next(&in, av_str_n((const char *)buf, have), &used, &payload);
			if (ev == AV_VLINK_ON_BEGIN)
				on_reset(&in);
			else if (ev == AV_VLINK_ON_DATA)
				on_message(payload);
			have -= used;
			memmove(buf, buf + used, have);
		} while (ev != AV_VLINK_NEED_MORE);
	}
}

static _Noreturn void claim(void)
{
	struct av_guest_message m = {.type = AV_GUEST_RECORD};

	av_exit_record_encode(
	    m.record, AV_EXIT_FATAL, 77, 1, "\033[2J\033]0;owned\a\r\n{\"evil\":1}\x9b\xff");
	put_message(&m);
	wait_ms(500);
	reboot(RB_AUTOBOOT);
	die("reboot");
}

int main(int argc, char **argv)
{
	if (argc != 2)
		return 2;
	mode = argv[1];
	wait_ms(HEADSTART_MS);
	stop_agent();
	take_ports();
	if (is("silent"))
		for (;;)
			pause();
	if (is("garbage") || is("flood") || is("lengths"))
		shout_mode();
	if (is("record"))
		claim();
	pretend();
}
