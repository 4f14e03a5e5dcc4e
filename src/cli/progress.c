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

void progress_add(struct progress *p, uint64_t bytes)
{
	p->done_bytes += bytes;
	if (!p->on)
		return;
	int64_t now_ns = av_mono_ns();
	if (now_ns - p->start_ns < AV_NS_PER_S || now_ns - p->last_ns < AV_NS_PER_S / 5)
		return;
	p->last_ns = now_ns;
	draw(p, now_ns);
}

void progress_end(struct progress *p)
{
	if (p->shown)
		fputs("\r\033[K", stderr);
	p->shown = false;
}
