/* SPDX-License-Identifier: Apache-2.0 */
/*
 * failpoint.c - AVIARY_FAILPOINT
 */
#include "base/failpoint.h"

#ifdef AVIARY_FAILPOINTS

#include <signal.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "base/num.h"
#include "base/str.h"
#include "base/banned.h"

#define MAX_POINTS 16

enum action { ACTION_KILL, ACTION_STOP, ACTION_ERROR, ACTION_SLEEP };

static struct point {
	struct av_str name; /* into the environment, which lives as long as the process */
	enum action action;
	uint64_t sleep_ms;
	uint64_t only_nth; /* 0: every time */
	uint64_t passed;
} points[MAX_POINTS];
static size_t n_points;
static bool is_parsed;

static bool parse_point(struct av_str text, struct point *ret)
{
	struct point p = {0};
	struct av_str action;
	if (!av_str_cut(&text, '=', &p.name) || p.name.n == 0)
		return false;
	if (av_str_cut(&text, '@', &action) && av_parse_u64(text, 1, UINT64_MAX, &p.only_nth) < 0)
		return false;
	if (av_str_eq(action, AV_STR("kill")))
		p.action = ACTION_KILL;
	else if (av_str_eq(action, AV_STR("stop")))
		p.action = ACTION_STOP;
	else if (av_str_eq(action, AV_STR("error")))
		p.action = ACTION_ERROR;
	else if (av_str_starts(action, AV_STR("sleep:")) &&
	         av_parse_u64(av_str_n(action.p + 6, action.n - 6), 0, 3600000, &p.sleep_ms) == 0)
		p.action = ACTION_SLEEP;
	else
		return false;
	*ret = p;
	return true;
}

static void parse(void)
{
	is_parsed = true;
	struct av_str rest = av_str_c(getenv("AVIARY_FAILPOINT")), one;
	bool more = rest.n > 0;
	while (more && n_points < MAX_POINTS) {
		more = av_str_cut(&rest, ',', &one);
		/* A test that misspells an action must not pass by doing nothing. */
		if (!parse_point(one, &points[n_points]))
			abort();
		n_points++;
	}
}

static bool act(const struct point *p)
{
	switch (p->action) {
	case ACTION_KILL:
		kill(getpid(), SIGKILL);
		pause();
		return true;
	case ACTION_STOP:
		kill(getpid(), SIGSTOP);
		return false;
	case ACTION_SLEEP: {
		struct timespec ts = {
		    .tv_sec = (time_t)(p->sleep_ms / 1000),
		    .tv_nsec = (long)(p->sleep_ms % 1000) * 1000000,
		};
		nanosleep(&ts, NULL);
		return false;
	}
	case ACTION_ERROR:
		return true;
	}
	return false;
}

bool av_failpoint(const char *name)
{
	if (!is_parsed)
		parse();
	bool failed = false;
	for (size_t i = 0; i < n_points; i++) {
		struct point *p = &points[i];
		if (!av_str_eq_c(p->name, name))
			continue;
		p->passed++;
		if (p->only_nth == 0 || p->passed == p->only_nth)
			failed |= act(p);
	}
	return failed;
}

#endif
