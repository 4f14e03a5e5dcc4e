/* SPDX-License-Identifier: Apache-2.0 */
/*
 * scrape.h - what the worker of aviary-spawn says about itself, for all who ask for metrics
 *
 * Theory of operation. One question is under way at a time, whoever waits shares its answer, and an
 * answer serves for SCRAPE_FRESH_MS: many monitors cost the worker no more than one. Nobody waits
 * longer than SCRAPE_WAIT_MS, as metrics matter most when a part is stuck; then the answer is
 * NULL. The question itself cannot be taken back: it may outlive the scrape that asked it, and the
 * api, so what its answer comes to is freed only after it.
 */
#pragma once

#include "base/list.h"
#include "net/loop.h"
#include "node/stream.h"

#define SCRAPE_FRESH_MS 1000
#define SCRAPE_WAIT_MS  500

struct control;
struct driver_helper;
struct scraper;

/* Embedded in who waits. */
struct scrape {
	struct av_list link;
	struct av_timer timer;
	/* Once, from the loop or from inside scrape_start; helper NULL: no answer in time. */
	void (*on_helper)(struct scrape *s, const struct driver_helper *helper);
	struct scraper *scraper;
};

/* control is borrowed until scraper_free. -ENOMEM. */
int scraper_new(struct av_loop *loop, struct control *control, struct scraper **ret);
/* No scrape may wait. NULL is fine. */
void scraper_free(struct scraper *sc);
void scrape_start(struct scraper *sc, struct scrape *s,
    void (*on_helper)(struct scrape *s, const struct driver_helper *helper));
/* on_helper will not come. Fine after it came. */
void scrape_cancel(struct scrape *s);
