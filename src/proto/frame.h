/* SPDX-License-Identifier: Apache-2.0 */
/*
 * frame.h - the binary codec between daemon and agent: u32be length | u8 channel | payload
 *
 * Used as body of a stream with content type AV_AGENT_CT_FRAMES (agent_api.h), and inside WebSocket
 * messages with subprotocol AV_AGENT_WS_PROTOCOL. The length counts the payload only. Payloads of
 * the data channels pass through in the pieces in which they arrive; only CONTROL payloads, which
 * are one JSON object each, are collected.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/buf.h"
#include "base/str.h"

#define AV_FRAME_HEADER      5
#define AV_FRAME_DATA_MAX    65536  /* payload of a data frame */
#define AV_FRAME_CONTROL_MAX 262144 /* payload of a CONTROL frame */

enum av_frame_channel {
	AV_FRAME_CONTROL = 0,
	AV_FRAME_STDIN = 1,
	AV_FRAME_STDOUT = 2,
	AV_FRAME_STDERR = 3,
	AV_FRAME_PTY = 4,
	AV_FRAME_CHANNEL_COUNT
};

/* dst gets the 5 bytes; n must be within the channel's maximum (asserted). */
void av_frame_header(uint8_t dst[static AV_FRAME_HEADER], enum av_frame_channel ch, size_t n);
/* Appends a whole frame. The buffer's error. */
int av_frame_write(
    struct av_buf *out, enum av_frame_channel ch, struct av_str payload) AV_MUST_CHECK;

struct av_frame_events {
	/* A whole CONTROL payload, valid until return. */
	int (*on_control)(void *ctx, struct av_str payload);
	/* A piece of a data frame. last: the frame is complete with it. A frame of length zero
	 * gives one call with n == 0 and last (on STDIN: end of input). Valid until return. */
	int (*on_data)(void *ctx, enum av_frame_channel ch, const uint8_t *p, size_t n, bool last);
};
struct av_frame_dec {
	/* private */
	struct av_buf control;
	uint8_t header[AV_FRAME_HEADER];
	uint8_t header_n;
	uint32_t left; /* payload bytes to come of the present frame */
};
void av_frame_dec_init(struct av_frame_dec *d);
void av_frame_dec_clear(struct av_frame_dec *d);
/* Events return 0 to go on, 1 to stop behind this event, -errno to fail. Returns the bytes consumed
 * (n unless stopped), or -errno: -EPROTO (unknown channel), -EMSGSIZE (length over the channel's
 * maximum), -ENOMEM, or the event's. After an error the decoder must not be fed again. */
ssize_t av_frame_dec_feed(struct av_frame_dec *d, const void *p, size_t n,
    const struct av_frame_events *events, void *ctx) AV_MUST_CHECK;
/* True between frames: the stream may end here. */
bool av_frame_dec_idle(const struct av_frame_dec *d);
