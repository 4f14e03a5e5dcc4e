/* SPDX-License-Identifier: Apache-2.0 */
/*
 * progress.c - one line on a terminal about what takes longer than a second
 */
#include "cli/progress.h"

#include <stdio.h>

#include "base/avtime.h"
#include "base/num.h"

#include "base/banned.h"

void progress_init(struct progress *p, bool on, const char *what)
{
	*p = (struct progress){.on = on, .what = what, .start_ns = av_mono_ns()};
	p->last_ns = p->start_ns;
}

static void draw(struct progress *p, int64_t now_ns)
{
	char done[24], rate[24];
	double seconds = (double)(now_ns - p->start_ns) / (double)AV_NS_PER_S;
	av_format_size(p->done_bytes, done);
	av_format_size((uint64_t)((double)p->done_bytes / seconds), rate);
	if (p->total_bytes)
		fprintf(stderr, "\r\033[K%s: %s, %d %%, %s/s", p->what, done,
		    (int)(100.0 * (double)p->done_bytes / (double)p->total_bytes), rate);
	else
		fprintf(stderr, "\r\033[K%s: %s, %s/s", p->what, done, rate);
	fflush(stderr);
	p->shown = true;
}

/* Not in the first second, at most five times a second. */
static bool is_due(struct progress *p, int64_t *ret_now_ns)
{
	int64_t now_ns = p->on ? av_mono_ns() : 0;

	if (!p->on || now_ns - p->start_ns < AV_NS_PER_S || now_ns - p->last_ns < AV_NS_PER_S / 5)
		return false;
	*ret_now_ns = p->last_ns = now_ns;
	return true;
}

void progress_add(struct progress *p, uint64_t bytes)
{
	progress_set(p, (int64_t)(p->done_bytes + bytes), (int64_t)p->total_bytes);
}

void progress_set(struct progress *p, int64_t done_bytes, int64_t total_bytes)
{
	int64_t now_ns;

	p->done_bytes = (uint64_t)done_bytes;
	p->total_bytes = total_bytes > 0 ? (uint64_t)total_bytes : 0;
	if (is_due(p, &now_ns))
		draw(p, now_ns);
}

void progress_wait(struct progress *p)
{
	int64_t now_ns;

	if (!is_due(p, &now_ns))
		return;
	fprintf(stderr, "\r\033[K%s, %d s", p->what, (int)((now_ns - p->start_ns) / AV_NS_PER_S));
	fflush(stderr);
	p->shown = true;
}

void progress_end(struct progress *p)
{
	if (p->shown)
		fputs("\r\033[K", stderr);
	p->shown = false;
}
