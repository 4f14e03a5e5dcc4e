/* SPDX-License-Identifier: Apache-2.0 */
/*
 * remote_wire.h - only for libaviary: what a caller and its worker in a sandbox say to each other
 *
 * Both are the same program, so there is one version, checked, and no compatibility. Numbers are
 * little-endian.
 *
 * Caller to worker, on stdin: a head of AVC_HEAD_SIZE bytes, the function's name, the caller's
 * build, the encoded argument.
 *
 *   0  "AvCaller"   8  u32 version    12  u32 size of the name   16  u32 size of the build
 *  20  u32 zero    24  u64 size of the argument                  32  u64 most bytes of the result
 *  40  u64 layout of the function's types
 *
 * No more than AVC_INPUT_PIECE bytes of all that are sent before the worker asks for the next so
 * many with MORE: so the caller, which may not wait where it writes, always finds room.
 *
 * Worker to caller, on stdout: 8 bytes of AVC_WORKER_MAGIC, then frames: u8 channel, u8 zero,
 * u16 zero, u32 size (at most AVC_FRAME_MAX), bytes. OUT and ERR are what the function prints.
 * RESULT is, put together, u32 kind (enum avc_outcome), i32 what the function returned, u64 size,
 * and so many bytes: of the value, or of a sentence where kind is an error. END comes last: u32
 * kind, i32 exit code, i32 signal, u32 core dumped, u64 cpu time in microseconds, u64 bytes of
 * memory at most, and a sentence. MORE is empty.
 *
 * The caller takes the worker's bytes for hostile; nothing here allocates on its word: sizes are
 * compared with the caller's limits first.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"

#define AVC_REMOTE_VERSION 1
#define AVC_WORKER_ENV     "AVIARY_WORKER" /* in the worker's environment, with the version */
#define AVC_HEAD_SIZE      48
#define AVC_CALLER_MAGIC   "AvCaller"
#define AVC_WORKER_MAGIC   "AvWorke1"
#define AVC_MAGIC_SIZE     8
#define AVC_NAME_MAX       256
#define AVC_FRAME_HEAD     8
#define AVC_FRAME_MAX      65536
#define AVC_INPUT_PIECE    131072
#define AVC_RESULT_HEAD    16
#define AVC_END_SIZE       32
#define AVC_SENTENCE_MAX   512

enum avc_piece {
	AVC_PIECE_OUT = 1,
	AVC_PIECE_ERR,
	AVC_PIECE_RESULT,
	AVC_PIECE_END,
	AVC_PIECE_MORE
};

enum avc_outcome {
	AVC_RETURNED = 0,      /* of a result; of the end: the child is over */
	AVC_NO_FUNCTION = 1,   /* none of that name there */
	AVC_OTHER_BUILD = 2,   /* the sentence is the worker's build */
	AVC_OTHER_TYPES = 3,   /* the layouts differ */
	AVC_BAD_ARGUMENT = 4,  /* decoding refused it */
	AVC_BAD_RESULT = 5,    /* encoding failed */
	AVC_LARGE_RESULT = 6,  /* over the caller's limit */
	AVC_WORKER_FAILED = 7, /* no memory, no process, ... */
	AVC_OUTCOME_COUNT
};

struct avc_head {
	uint32_t name_size, build_size;
	uint64_t argument_size, result_max, layout;
};

void avc_head_write(uint8_t dst[static AVC_HEAD_SIZE], const struct avc_head *h);
/* -EPROTO: it is none, or its sizes are beyond any limit. */
int avc_head_read(const uint8_t src[static AVC_HEAD_SIZE], struct avc_head *ret);

void avc_frame_head(uint8_t dst[static AVC_FRAME_HEAD], enum avc_piece ch, size_t n);
void avc_result_head(
    uint8_t dst[static AVC_RESULT_HEAD], enum avc_outcome kind, int returned, uint64_t size);

struct avc_end {
	enum avc_outcome kind;
	int exit_code, signal; /* of the child; signal 0: none */
	bool core_dumped;
	uint64_t cpu_us, memory_bytes;
	char sentence[AVC_SENTENCE_MAX];
};
void avc_end_write(uint8_t dst[static AVC_END_SIZE], const struct avc_end *e);

/* ---- the caller's side ---- */

struct avc_worker_dec {
	uint64_t result_max;
	void (*on_output)(void *ctx, bool is_stderr, const char *data, size_t n);
	void (*on_more)(void *ctx); /* also after the magic */
	void *ctx;

	struct av_buf part; /* of the magic, a frame's head, an end */
	enum { AVC_DEC_MAGIC, AVC_DEC_HEAD, AVC_DEC_BODY, AVC_DEC_OVER } state;
	enum avc_piece channel;
	size_t left; /* of the frame */
	/* What came so far. */
	bool is_worker; /* the magic did */
	bool has_head;  /* of the result */
	enum avc_outcome outcome;
	int returned;
	uint64_t size; /* of the result as announced */
	struct av_buf result;
	bool has_end;
	struct avc_end end;
};

void avc_worker_dec_init(struct avc_worker_dec *d, uint64_t result_max);
void avc_worker_dec_clear(struct avc_worker_dec *d);
/* 0; -EPROTO: that is no worker, or it breaks the protocol; -EMSGSIZE: the result is announced
 * as, or is, larger than result_max; -ENOMEM. After an error it must not be fed again. */
int avc_worker_dec_feed(struct avc_worker_dec *d, const void *data, size_t n);
/* The result is there, whole. */
bool avc_worker_dec_is_whole(const struct avc_worker_dec *d);
