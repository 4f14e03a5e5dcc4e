/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fuzz_ws.c - WebSocket frames from a hostile peer, either side, echoing messages
 */
#include "proto/ws.h"

#include "fuzz.h"

#include "base/banned.h"

#define MESSAGE_MAX 10000

static void on_message(void *ctx, enum av_ws_opcode op, const uint8_t *p, size_t n)
{
	struct av_ws **w = ctx;
	FUZZ_CHECK(n <= MESSAGE_MAX);
	FUZZ_CHECK(op == AV_WS_BINARY || av_utf8_valid(av_str_n((const char *)p, n)));
	int x = av_ws_send(*w, op, p, n);
	(void)x;
	if (n % 5 == 4)
		av_ws_pause(*w);
}

static void on_close(void *ctx, uint16_t code, struct av_str reason)
{
	(void)ctx;
	FUZZ_CHECK(code >= 1000 && av_utf8_valid(reason));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	static const struct av_ws_events events = {.on_message = on_message, .on_close = on_close};
	if (n < 2)
		return 0;
	struct av_ws_config config = {
	    .client = data[0] & 1, .max_message = MESSAGE_MAX, .high_mark = 1000};
	struct av_ws *w = NULL;
	w = av_ws_new(&config, &events, &w);
	FUZZ_CHECK(w);
	for (size_t i = 2, k = 0; i < n; k++) {
		size_t piece = fuzz_piece(data[1], k, n - i);
		ssize_t x = av_ws_recv(w, data + i, piece);
		if (x < 0 || av_ws_close_received(w))
			break;
		FUZZ_CHECK((size_t)x <= piece);
		av_ws_output_done(w, av_ws_output(w).n);
		av_ws_resume(w);
		i += (size_t)x;
	}
	av_ws_free(w);
	return 0;
}
