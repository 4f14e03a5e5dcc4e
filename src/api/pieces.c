/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pieces.c - a long JSON answer, written and sent piece by piece (see pieces.h)
 */
#include "api/pieces.h"

#include <assert.h>

#include "base/codec.h"
#include "base/banned.h"

#define PIECE_BYTES    ((size_t)48 << 10) /* a multiple of 3: base64 of pieces can be joined */
#define AT_ONCE_BYTES  ((size_t)32 << 10) /* answers up to this are sent whole */
#define PIECE_JSON_MAX ((size_t)1 << 20)

void api_pieces_add(struct api_pieces *p, enum api_part_as as, struct av_str data)
{
	assert(p->n < API_PIECES_PARTS);
	p->part[p->n].as = as;
	p->part[p->n++].data = data;
	p->bytes += data.n;
}

static void append_text(struct av_buf *out, struct av_str s)
{
	AV_CLEANUP(av_buf_clear) struct av_buf quoted = AV_BUF_INIT(PIECE_JSON_MAX);

	if (av_json_write_str(&quoted, s) < 0)
		out->error = av_buf_error(&quoted);
	else
		(void)av_buf_append(out, av_buf_str(&quoted).p + 1, quoted.n - 2);
}

bool api_pieces_next(struct api_pieces *p, struct av_buf *out)
{
	struct av_str rest = p->part[p->at].data, s;

	rest = av_str_n(rest.p + p->done, rest.n - p->done);
	s = av_str_n(rest.p, AV_MIN(rest.n, PIECE_BYTES));
	switch (p->part[p->at].as) {
	case API_PART_RAW:
		(void)av_buf_append_str(out, s);
		break;
	case API_PART_TEXT:
		if (s.n < rest.n)
			s.n -= av_utf8_incomplete_tail(s);
		append_text(out, s);
		break;
	case API_PART_BASE64:
		(void)av_base64_encode(out, s.p, s.n);
		break;
	}
	p->done += s.n;
	if (s.n == rest.n) {
		p->at++;
		p->done = 0;
	}
	return p->at < p->n;
}

/* ---- sending ---- */

static void send_whole(struct api_pieces *p, int status)
{
	AV_CLEANUP(av_buf_clear) struct av_buf out = AV_BUF_INIT(PIECE_JSON_MAX);

	while (api_pieces_next(p, &out))
		;
	api_send_json(p->rq, status, &out);
}

/* One piece; the next with the next turn of the loop, or when the client has read. */
static void send_piece(void *ctx)
{
	AV_CLEANUP(av_buf_clear) struct av_buf out = AV_BUF_INIT(PIECE_JSON_MAX);
	struct api_pieces *p = ctx;
	bool more = api_pieces_next(p, &out);
	int r = av_buf_error(&out);

	if (r == 0)
		r = av_res_write(p->rq->req, av_buf_str(&out));
	if (r < 0)
		av_res_abort(p->rq->req);
	else if (!more)
		(void)av_res_end(p->rq->req);
	else if (r == 0)
		av_timer_start(&p->timer, 0);
}

void api_pieces_send(struct api_pieces *p, struct api_request *rq, int status)
{
	const struct av_http_header type = {
	    .name = AV_STR("content-type"), .value = AV_STR("application/json")};

	p->rq = rq;
	if (p->bytes <= AT_ONCE_BYTES) {
		send_whole(p, status);
		return;
	}
	av_timer_init(&p->timer, rq->api->loop, send_piece, p);
	api_started(rq, status);
	if (av_res_start(rq->req, status, &type, 1, -1) == 0)
		send_piece(p);
}

void api_pieces_drain(struct api_pieces *p)
{
	if (p->rq && p->at < p->n && !av_timer_active(&p->timer))
		send_piece(p);
}

void api_pieces_stop(struct api_pieces *p)
{
	av_timer_stop(&p->timer);
}
