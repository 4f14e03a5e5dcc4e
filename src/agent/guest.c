/* SPDX-License-Identifier: Apache-2.0 */
/*
 * guest.c - the control port of a guest
 *
 * One message is carried out at a time; another one meanwhile is answered with EBUSY. What a
 * message asks for is bounded by a timer, so that every one is answered. A new connection begins
 * with HELLO and changes nothing else: what was under way goes on, and its answer may come to
 * somebody who did not ask (its number tells).
 */
#include "agent/guest.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/reboot.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent/guest_internal.h"
#include "agent/record.h"
#include "agent/server.h"
#include "agent/spawn.h"
#include "base/fd.h"

#include "base/banned.h"

#define PORTS_MS       10000 /* until the ports are there */
#define FREEZE_MS      5000
#define FREEZE_POLL_MS 1
#define WARM_MS        10000
#define POWER_OFF_MS   100 /* for the last messages to leave */
#define NO_ID          "sb0000000000000000000000000"

/* --- answers --- */

static void send_message(struct guest *g, const struct av_guest_message *m)
{
	uint8_t bytes[AV_GUEST_MESSAGE_MAX];
	size_t n = av_guest_encode(bytes, m);

	/* Nobody there, or nobody who reads: then nobody waits for it either. */
	if (vlink_port_send(g->control, av_str_n((const char *)bytes, n)) < 0)
		return;
}

static void send_done(struct guest *g, uint32_t seq, int r, const char *what)
{
	struct av_guest_message m = {
	    .type = AV_GUEST_DONE, .seq = seq, .done.error = r < 0 ? -r : 0};

	if (r < 0)
		snprintf(m.done.text, sizeof(m.done.text), "%s: %s", what, strerror(-r));
	send_message(g, &m);
}

static void send_hello(struct guest *g)
{
	struct av_guest_message m = {.type = AV_GUEST_HELLO, .hello.version = AV_GUEST_VERSION};
	struct utsname u;

	snprintf(m.hello.agent, sizeof(m.hello.agent), "%s", AVIARY_VERSION);
	if (uname(&u) == 0)
		snprintf(m.hello.kernel, sizeof(m.hello.kernel), "%.63s", u.release);
	send_message(g, &m);
}

static void finish(struct guest *g, int r, const char *what)
{
	uv_timer_stop(&g->timer);
	g->doing = GUEST_IDLE;
	send_done(g, g->seq, r, what);
}

static void begin(struct guest *g, int doing, uint32_t seq, uint64_t limit_ms)
{
	g->doing = doing;
	g->seq = seq;
	uv_update_time(&g->agent->loop);
	g->deadline_ms = uv_now(&g->agent->loop) + limit_ms;
}

/* --- the disk grows while processes run --- */

static void on_grow(uv_work_t *w)
{
	struct guest *g = w->data;
	int r = guest_disk_grow(g->self.disk_fd, g->growing_bytes);

	if (r == 0)
		g->grown_bytes = g->growing_bytes;
	else
		dprintf(2, "aviary-agent: guest: the disk does not grow to %llu bytes: %s\n",
		    (unsigned long long)g->growing_bytes, strerror(-r));
}

static void grow(struct guest *g);

static void on_grown(uv_work_t *w, int status)
{
	struct guest *g = w->data;
	uint64_t had = g->growing_bytes;

	(void)status;
	g->growing_bytes = 0;
	if (g->disk_bytes != had)
		grow(g);
}

static void grow(struct guest *g)
{
	if (g->disk_bytes <= g->grown_bytes || g->growing_bytes)
		return;
	g->growing_bytes = g->disk_bytes;
	g->growth.data = g;
	if (uv_queue_work(&g->agent->loop, &g->growth, on_grow, on_grown) < 0)
		g->growing_bytes = 0;
}

/* --- standing still --- */

static void hold(struct guest *g, bool on)
{
	spawn_hold(on);
	server_hold(g->agent->server, on);
}

static int thaw(struct guest *g)
{
	int r = guest_cgroup_freeze(&g->cgroup, false);

	if (r < 0)
		return r;
	hold(g, false);
	grow(g);
	return 0;
}

static void on_freeze_timer(uv_timer_t *timer)
{
	struct guest *g = timer->data;
	int r = guest_cgroup_is(&g->cgroup, true);

	if (r == 0 && uv_now(timer->loop) < g->deadline_ms)
		return;
	if (r == 0)
		r = -ETIMEDOUT;
	if (r < 0 && thaw(g) < 0)
		r = -EIO;
	finish(g, r < 0 ? r : 0, "the sandbox's processes do not stand still");
}

static void freeze(struct guest *g, uint32_t seq)
{
	int r = guest_cgroup_freeze(&g->cgroup, true);

	if (r < 0) {
		send_done(g, seq, r, "cgroup.freeze");
		return;
	}
	hold(g, true);
	begin(g, GUEST_FREEZING, seq, FREEZE_MS);
	uv_timer_start(&g->timer, on_freeze_timer, 0, FREEZE_POLL_MS);
}

/* --- warming up: what the first command needs is in memory afterwards --- */

_Noreturn static void run_warm(const struct guest *g)
{
	static char sh[] = "sh", option[] = "-c", script[] = "exec true", self[] = "aviary-agent",
	            version[] = "--version", path[] = "PATH=" AGENT_DEFAULT_PATH;
	static char *const envp[] = {path, NULL};
	sigset_t none;

	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	setsid();
	if (dup2(open("/dev/null", O_RDWR), 2) < 0)
		_exit(125);
	/* While users' processes stand still nothing of theirs may run: then it is only us. */
	if (!g->cgroup.frozen && write(g->cgroup.user_fd, "0", 1) == 1)
		execve("/bin/sh", (char *const[]){sh, option, script, NULL}, envp);
	execve("/proc/self/exe", (char *const[]){self, version, NULL}, envp);
	_exit(125);
}

static void on_warm_timer(uv_timer_t *timer)
{
	struct guest *g = timer->data;

	kill(g->warm_pid, SIGKILL);
	g->warm_pid = 0;
	finish(g, -ETIMEDOUT, "warming up");
}

static void warm(struct guest *g, uint32_t seq)
{
	pid_t pid;

	guest_identity_rehearse(&g->self);
	pid = fork();
	if (pid == 0)
		run_warm(g);
	if (pid < 0) {
		send_done(g, seq, -errno, "fork");
		return;
	}
	g->warm_pid = pid;
	begin(g, GUEST_WARMING, seq, WARM_MS);
	uv_timer_start(&g->timer, on_warm_timer, WARM_MS, 0);
}

/* The kernel chose it, or one whose end it hands on. */
static void look_for_kills(struct guest *g, int wait_status)
{
	struct av_guest_message m = {.type = AV_GUEST_KILLS};
	bool killed = WIFSIGNALED(wait_status) ? WTERMSIG(wait_status) == SIGKILL
	                                       : WEXITSTATUS(wait_status) == 128 + SIGKILL;

	if (!killed)
		return;
	m.kills = guest_kills(&g->kills);
	if (m.kills != g->kills_told)
		send_message(g, &m);
	g->kills_told = m.kills;
}

void guest_reaped(struct guest *g, pid_t pid, int wait_status)
{
	look_for_kills(g, wait_status);
	/* A template without a shell is warm too. */
	if (g->doing != GUEST_WARMING || pid != g->warm_pid)
		return;
	g->warm_pid = 0;
	finish(g, 0, "");
}

/* --- messages --- */

static void take_identity(struct guest *g, const struct av_guest_message *m)
{
	struct av_guest_message answer = {.type = AV_GUEST_CONFIRM, .seq = m->seq};

	if (strcmp(g->self.id, m->identity.id) != 0) {
		guest_kills_forget(&g->kills); /* they were somebody else's */
		g->kills_told = 0;
	}
	guest_identity_take(&g->self, &g->cgroup, &m->identity, &answer.confirm);
	g->disk_bytes = m->identity.disk_bytes;
	if (!g->cgroup.frozen)
		grow(g);
	/* Who was at the other end of our connections talked to somebody else. */
	ports_drop(g->ports);
	send_message(g, &answer);
}

static void refuse(struct guest *g, const struct av_guest_message *m)
{
	struct av_guest_message answer = {.type = AV_GUEST_CONFIRM, .seq = m->seq};

	if (m->type != AV_GUEST_IDENTITY) {
		send_done(g, m->seq, -EBUSY, "another message is being carried out");
		return;
	}
	answer.confirm.error = EBUSY;
	snprintf(answer.confirm.text, sizeof(answer.confirm.text), "%s",
	    "another message is being carried out");
	send_message(g, &answer);
}

static void on_record(void *ctx, struct av_str payload)
{
	struct guest *g = ctx;
	struct av_guest_message m;

	/* What is no message has no number to be answered with. */
	if (av_guest_decode(payload, &m) < 0)
		return;
	if (g->doing != GUEST_IDLE) {
		refuse(g, &m);
		return;
	}
	switch (m.type) {
	case AV_GUEST_FREEZE:
		freeze(g, m.seq);
		break;
	case AV_GUEST_THAW:
		send_done(g, m.seq, thaw(g), "cgroup.freeze");
		break;
	case AV_GUEST_IDENTITY:
		take_identity(g, &m);
		break;
	case AV_GUEST_WARM:
		warm(g, m.seq);
		break;
	case AV_GUEST_NONE:
	case AV_GUEST_HELLO:
	case AV_GUEST_DONE:
	case AV_GUEST_CONFIRM:
	case AV_GUEST_RECORD:
	case AV_GUEST_KILLS:
		break; /* ours */
	}
}

static void on_begin(void *ctx)
{
	send_hello(ctx);
}

/* The machine has lost its control port: nobody can save or restore it, but what runs may go on. */
static void on_end(void *ctx, int why)
{
	(void)ctx;
	(void)why;
}

static const struct vlink_port_ops control_ops = {
    .on_begin = on_begin, .on_record = on_record, .on_end = on_end};

/* --- beginning and end --- */

static void on_exit_record(void *ctx, const uint8_t *record)
{
	guest_record(ctx, record);
}

void guest_record(struct guest *g, const uint8_t record[static AV_EXIT_RECORD_SIZE])
{
	struct av_guest_message m = {.type = AV_GUEST_RECORD};

	memcpy(m.record, record, sizeof(m.record));
	send_message(g, &m);
}

static void on_power_off(uv_timer_t *timer)
{
	(void)timer;
	sync();
	reboot(RB_POWER_OFF);
	_exit(125);
}

void guest_power_off(struct guest *g)
{
	g->doing = GUEST_ENDING;
	uv_timer_start(&g->timer, on_power_off, POWER_OFF_MS, 0);
}

int guest_open(struct guest *g, struct agent *a)
{
	int r;

	g->agent = a;
	memcpy(g->self.id, NO_ID, sizeof(NO_ID));
	static_assert(sizeof(NO_ID) == sizeof(g->self.id), "an id of zeros");
	a->id = g->self.id;
	g->timer.data = g;
	if ((r = uv_timer_init(&a->loop, &g->timer)) < 0)
		return r;
	spawn_into_group(g->cgroup.user_fd);
	if ((r = ports_open(a, PORTS_MS, &g->ports)) < 0)
		return r;
	r = ports_open_control(a, PORTS_MS, &control_ops, g, &g->control);
	if (r < 0)
		return r;
	record_send_to(on_exit_record, g);
	return 0;
}
