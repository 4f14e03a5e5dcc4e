/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fuzz_vlink.c - a link over a port: after any bytes at all, in any state, a RESET begins a
 * connection that delivers what was sent
 *
 * Byte 0: how the input is cut; byte 1: bit 0 the role, bit 1 whether a connection is open at
 * first. The rest is what is in the stream.
 */
#include "base/buf.h"
#include "proto/vlink.h"

#include "fuzz.h"

#include "base/banned.h"

#define INPUT_MAX ((size_t)1 << 20)

static const uint8_t nonce[AV_VLINK_NONCE_SIZE] = "\24\0AVL1\0\0fuzz";

struct run {
	struct av_vlink_in in;
	struct av_buf left, data;
	bool begun, closed;
};

static void feed(struct run *r, const void *p, size_t n)
{
	enum av_vlink_event e;
	struct av_str payload = {0};
	size_t used;

	FUZZ_CHECK(av_buf_append(&r->left, p, n) == 0);
	do {
		used = SIZE_MAX;
		e = av_vlink_next(&r->in, av_buf_str(&r->left), &used, &payload);
		FUZZ_CHECK(used <= r->left.n);
		FUZZ_CHECK(e == AV_VLINK_NEED_MORE || used > 0);
		if (e == AV_VLINK_ON_BEGIN) {
			r->begun = memcmp(r->in.nonce, nonce, sizeof(nonce)) == 0;
			av_buf_reset(&r->data);
			r->closed = false;
		} else if (e == AV_VLINK_ON_DATA) {
			FUZZ_CHECK(payload.n > 0 && payload.n <= AV_VLINK_PAYLOAD_MAX);
			FUZZ_CHECK(payload.p >= av_buf_str(&r->left).p &&
			           payload.p + payload.n < av_buf_str(&r->left).p + used);
			av_buf_append_str(&r->data, payload);
		} else if (e != AV_VLINK_NEED_MORE) {
			FUZZ_CHECK(r->in.state == AV_VLINK_LOST);
			r->closed = true;
		}
		av_buf_consume(&r->left, used);
	} while (e != AV_VLINK_NEED_MORE);
	FUZZ_CHECK(r->left.n < AV_VLINK_RECORD_MAX);
}

static void feed_connection(struct run *r, enum av_vlink_role role)
{
	static uint8_t reset[AV_VLINK_RESET_SIZE];
	uint8_t echo[AV_VLINK_ECHO_SIZE], record[5 + AV_VLINK_OVERHEAD] = "..hello";

	av_vlink_put_reset(reset, nonce);
	av_vlink_put_echo(echo, nonce);
	if (role == AV_VLINK_INSIDE)
		feed(r, reset, sizeof(reset));
	else
		feed(r, echo, sizeof(echo));
	av_vlink_seal(record, 5, AV_VLINK_DATA);
	feed(r, record, 8);
	av_vlink_seal(record, 0, AV_VLINK_CLOSE);
	feed(r, record, 3);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	struct run r = {.left = AV_BUF_INIT(2 * INPUT_MAX), .data = AV_BUF_INIT(2 * INPUT_MAX)};
	enum av_vlink_role role;
	uint8_t echo[AV_VLINK_ECHO_SIZE];

	if (n < 2 || n > INPUT_MAX)
		return 0;
	role = data[1] & 1 ? AV_VLINK_INSIDE : AV_VLINK_OUTSIDE;
	av_vlink_put_echo(echo, nonce);
	/* That nobody can guess the nonce is what the outside relies on. */
	if (role == AV_VLINK_OUTSIDE && memmem(data + 2, n - 2, echo, sizeof(echo)))
		return 0;
	av_vlink_in_init(&r.in, role);
	if (data[1] & 2)
		r.in.state = AV_VLINK_OPEN;
	else if (role == AV_VLINK_OUTSIDE)
		av_vlink_in_begin(&r.in, nonce);
	for (size_t i = 2, k = 0; i < n; k++) {
		size_t piece = fuzz_piece(data[0], k, n - i);

		feed(&r, data + i, piece);
		i += piece;
	}
	if (role == AV_VLINK_OUTSIDE && (data[1] & 2)) {
		av_buf_reset(&r.left);
		av_vlink_in_begin(&r.in, nonce);
	}
	feed_connection(&r, role);
	FUZZ_CHECK(r.begun && r.closed && av_str_eq_c(av_buf_str(&r.data), "hello"));
	av_buf_clear(&r.left);
	av_buf_clear(&r.data);
	return 0;
}
