/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vigil.c - how worker and daemon are, as the supervisor tells systemd
 */
#include "spawn/vigil.h"

#include <fcntl.h>
#include <stddef.h>
#include <unistd.h>

#include "base/avtime.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/banned.h"

#define START_NS      (90 * AV_NS_PER_S)
#define EXTEND_US     30000000LL
#define BEATS_AT_ONCE 256

static const char *const names[VIGIL_N] = {"worker", "aviaryd"};

void vigil_open(struct vigil *v)
{
	*v = (struct vigil){.of = {{.fd = -1}, {.fd = -1}}};
	av_notify_open(&v->notify);
	if (v->notify.watchdog_ns)
		v->next_ns = av_mono_ns() + v->notify.watchdog_ns / 3;
}

void vigil_close(struct vigil *v)
{
	for (int i = 0; i < VIGIL_N; i++)
		av_close_fd(&v->of[i].fd);
	av_notify_close(&v->notify);
}

int vigil_start(struct vigil *v, enum vigil_who who)
{
	int p[2];
	if (v->notify.fd < 0)
		return -1;
	av_close_fd(&v->of[who].fd);
	v->of[who].beating = false;
	if (!v->of[who].wanted)
		v->of[who].last_ns = av_mono_ns();
	v->of[who].wanted = true;
	/* Both ends: neither may ever wait for the other. */
	if (pipe2(p, O_CLOEXEC | O_NONBLOCK) < 0)
		return -1;
	v->of[who].fd = p[0];
	return p[1];
}

static void is_ready(struct vigil *v)
{
	v->ready = true;
	av_notify(&v->notify, "READY=1\nMAINPID=%d\nSTATUS=serving", (int)getpid());
}

static void take(struct vigil *v, enum vigil_who who, char beat)
{
	if (beat != AV_BEAT_ALIVE && beat != AV_BEAT_READY && beat != AV_BEAT_RELOADED)
		return;
	v->of[who].last_ns = av_mono_ns();
	v->of[who].beating = true;
	if (who == VIGIL_DAEMON &&
	    (beat == AV_BEAT_READY || (beat == AV_BEAT_RELOADED && v->ready)))
		is_ready(v);
	else if (!v->ready)
		av_notify(&v->notify, "EXTEND_TIMEOUT_USEC=%lld", EXTEND_US);
}

void vigil_read(struct vigil *v, enum vigil_who who)
{
	char beats[BEATS_AT_ONCE];
	ssize_t n = read(v->of[who].fd, beats, sizeof(beats));
	if (n == 0)
		av_close_fd(&v->of[who].fd); /* it ended */
	for (ssize_t i = 0; i < n; i++)
		/* A row of the same says no more than one of them. */
		if (i == 0 || beats[i] != beats[i - 1])
			take(v, who, beats[i]);
}

static bool is_well(struct vigil *v, enum vigil_who who, int64_t now)
{
	int64_t limit = v->of[who].beating && v->of[who].fd >= 0 ? v->notify.watchdog_ns : START_NS;
	if (!v->of[who].wanted || now - v->of[who].last_ns < limit)
		return true;
	if (!v->silent)
		av_log(AV_LOG_ERROR, "does not answer: the watchdog is told no more", "program",
		    names[who], NULL);
	return false;
}

void vigil_tick(struct vigil *v)
{
	int64_t now = av_mono_ns();
	bool well = true;
	if (!v->next_ns || now < v->next_ns)
		return;
	v->next_ns = now + v->notify.watchdog_ns / 3;
	for (int i = 0; i < VIGIL_N; i++)
		well = is_well(v, (enum vigil_who)i, now) && well;
	if (v->silent && well)
		av_log(AV_LOG_WARN, "everything answers again", NULL);
	v->silent = !well;
	if (well)
		av_notify(&v->notify, "WATCHDOG=1");
}

void vigil_status(const struct vigil *v, const char *text)
{
	av_notify(&v->notify, "STATUS=%s", text);
}

void vigil_reloading(const struct vigil *v)
{
	av_notify(&v->notify, "RELOADING=1\nMONOTONIC_USEC=%lld\nSTATUS=reading certificates again",
	    (long long)(av_mono_ns() / 1000));
}

void vigil_stopping(const struct vigil *v, int64_t at_most_ns)
{
	av_notify(&v->notify,
	    "STOPPING=1\nEXTEND_TIMEOUT_USEC=%lld\nSTATUS=stopping; sandboxes go on running",
	    (long long)(at_most_ns / 1000));
}
