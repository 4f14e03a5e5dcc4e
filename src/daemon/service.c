/* SPDX-License-Identifier: Apache-2.0 */
/*
 * service.c - the daemon as a service (see service.h)
 */
#include "daemon/service.h"

#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>

#include "base/fd.h"
#include "base/notify.h"
#include "base/banned.h"

/* The leak checker of an instrumented build is a debugger. */
#if defined(__SANITIZE_ADDRESS__)
#define IS_INSTRUMENTED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define IS_INSTRUMENTED 1
#endif
#endif
#ifndef IS_INSTRUMENTED
#define IS_INSTRUMENTED 0
#endif

void service_seal_memory(void)
{
	const struct rlimit none = {0};

	if (setrlimit(RLIMIT_CORE, &none) < 0 ||
	    (!IS_INSTRUMENTED && prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0))
		av_log(AV_LOG_WARN, "a core file of the daemon would hold keys", NULL);
}

static void on_beat(void *ctx)
{
	struct service *s = ctx;

	av_beat(s->beat_fd, AV_BEAT_ALIVE);
	av_timer_start(&s->beat, AV_BEAT_MS);
}

/* Those who have something to read again watch the signal as well. */
static void on_hup(void *ctx, int signum)
{
	const struct service *s = ctx;

	(void)signum;
	av_log(AV_LOG_INFO,
	    "SIGHUP: certificates are read again; other options take a restart, over which "
	    "sandboxes run on",
	    NULL);
	av_beat(s->beat_fd, AV_BEAT_RELOADED);
}

static void on_usr1(void *ctx, int signum)
{
	struct service *s = ctx;

	(void)signum;
	s->debugging = !s->debugging;
	av_log_set_level(s->debugging ? AV_LOG_DEBUG : AV_LOG_INFO);
	av_log(AV_LOG_INFO,
	    s->debugging ? "SIGUSR1: logging at debug until the next one"
	                 : "SIGUSR1: logging as configured again",
	    NULL);
	if (!s->debugging)
		av_log_set_level(s->level);
}

int service_open(struct service *s, struct av_loop *loop, struct av_err *err)
{
	int r = s->beat_fd < 0 ? 0 : av_set_cloexec(s->beat_fd, true);

	if (r == 0)
		r = av_signal_new(loop, SIGHUP, on_hup, s, &s->hup);
	if (r == 0)
		r = av_signal_new(loop, SIGUSR1, on_usr1, s, &s->usr1);
	if (r < 0)
		return av_err_sys(err, AV_ERR_INTERNAL, r, "cannot watch signals");
	av_timer_init(&s->beat, loop, on_beat, s);
	if (s->beat_fd >= 0)
		av_timer_start(&s->beat, 0);
	return 0;
}

void service_ready(const struct service *s)
{
	av_beat(s->beat_fd, AV_BEAT_READY);
}

void service_close(struct service *s)
{
	av_timer_stop(&s->beat);
	av_signal_free(s->hup);
	av_signal_free(s->usr1);
	s->hup = s->usr1 = NULL;
	av_close_fd(&s->beat_fd);
}
