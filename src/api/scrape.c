/* SPDX-License-Identifier: Apache-2.0 */
/*
 * scrape.c - what the worker of aviary-spawn says about itself (see scrape.h)
 */
#include "api/scrape.h"

#include <errno.h>
#include <stdlib.h>

#include "base/avtime.h"
#include "control/stats.h"
#include "base/banned.h"

struct scraper {
	struct av_loop *loop;
	struct control *control;
	struct av_list waiting; /* struct scrape */
	bool asking, closed;
	struct driver_helper last;
	int64_t last_ns; /* 0: never */
};

int scraper_new(struct av_loop *loop, struct control *control, struct scraper **ret)
{
	struct scraper *sc = calloc(1, sizeof(*sc));

	if (!sc)
		return -ENOMEM;
	sc->loop = loop;
	sc->control = control;
	av_list_init(&sc->waiting);
	*ret = sc;
	return 0;
}

void scraper_free(struct scraper *sc)
{
	if (!sc)
		return;
	assert(av_list_empty(&sc->waiting));
	sc->closed = true;
	if (!sc->asking)
		free(sc);
}

static void answer(struct scrape *s, const struct driver_helper *helper)
{
	scrape_cancel(s);
	s->on_helper(s, helper);
}

static void on_helper(void *ctx, const struct driver_helper *h, const struct av_err *err)
{
	struct scraper *sc = ctx;
	struct scrape *s;

	sc->asking = false;
	if (sc->closed) {
		free(sc);
		return;
	}
	if (!err) {
		sc->last = *h;
		sc->last_ns = av_mono_ns();
	}
	while ((s = AV_LIST_FIRST(&sc->waiting, struct scrape, link)))
		answer(s, err ? NULL : h);
}

static void on_late(void *ctx)
{
	answer(ctx, NULL);
}

void scrape_start(struct scraper *sc, struct scrape *s,
    void (*on_helper_fn)(struct scrape *s, const struct driver_helper *helper))
{
	bool fresh = sc->last_ns && av_mono_ns() - sc->last_ns < SCRAPE_FRESH_MS * AV_NS_PER_MS;

	s->on_helper = on_helper_fn;
	s->scraper = sc;
	av_list_init(&s->link);
	av_timer_init(&s->timer, sc->loop, on_late, s);
	if (fresh) {
		answer(s, &sc->last);
		return;
	}
	if (!sc->asking)
		sc->asking = control_get_helper(sc->control, on_helper, sc) == 0;
	if (!sc->asking) {
		answer(s, NULL);
		return;
	}
	av_list_append(&sc->waiting, &s->link);
	av_timer_start(&s->timer, SCRAPE_WAIT_MS);
}

void scrape_cancel(struct scrape *s)
{
	av_timer_stop(&s->timer);
	av_list_remove(&s->link);
}
