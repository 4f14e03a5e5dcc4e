/* SPDX-License-Identifier: Apache-2.0 */
/*
 * metrics.c - GET /metrics: the page for Prometheus; who may read it is said in api/auth.h
 */
#include <stdlib.h>

#include "api/native/native.h"
#include "api/request.h"
#include "api/scrape.h"
#include "base/banned.h"

#define PAGE_MAX ((size_t)2 << 20)

/* rq->state. */
struct page {
	struct scrape scrape; /* first */
	struct api_request *rq;
};

static void on_helper(struct scrape *s, const struct driver_helper *helper)
{
	AV_CLEANUP(av_buf_clear) struct av_buf out = AV_BUF_INIT(PAGE_MAX);
	struct page *p = AV_CONTAINER_OF(s, struct page, scrape);
	const struct av_http_header type = {.name = AV_STR("content-type"),
	    .value = AV_STR("text/plain; version=0.0.4; charset=utf-8")};
	struct av_err err;

	if (api_metrics_write(&out, p->rq->api, helper) < 0) {
		(void)av_err_set(&err, AV_ERR_NO_MEMORY, "no memory for the metrics");
		api_send_err(p->rq, &err);
		return;
	}
	api_started(p->rq, 200);
	(void)av_res_send(p->rq->req, 200, &type, 1, av_buf_str(&out));
}

static void page_gone(struct api_request *rq, int status)
{
	struct page *p = rq->state;

	(void)status;
	scrape_cancel(&p->scrape);
	free(p);
}

void native_metrics(struct api_request *rq)
{
	struct page *p = calloc(1, sizeof(*p));
	struct av_err err;

	if (!p) {
		(void)av_err_set(&err, AV_ERR_NO_MEMORY, "out of memory");
		api_send_err(rq, &err);
		return;
	}
	p->rq = rq;
	rq->state = p;
	rq->on_gone = page_gone;
	scrape_start(rq->api->scraper, &p->scrape, on_helper);
}
