/* SPDX-License-Identifier: Apache-2.0 */
/*
 * mainlog.h - the log of a sandbox's main command: entries as agent, daemon and database have them
 *
 * A log is a row of entries, each a head of AV_MAINLOG_HEAD bytes (numbers big-endian) and bytes:
 *   0  u8  kind, enum av_mainlog_kind
 *   1  u8  stream: 1 stdout, 2 stderr; 0 unless it is a line
 *   2  u8  flags of a line, AV_MAINLOG_*
 *   3  u8  zero
 *   4  u32 bytes that follow
 *   8  u64 offset
 *  16  u64 time in microseconds since 1970
 *
 * LINE: the bytes of a line without its newline, or of a part of one. Offsets count these entries
 * from 0 on, those that were dropped included: who has seen offset n goes on at n + 1.
 * GAP: entries were dropped here; bytes: u64 how many; offset: of the next one that there is.
 * END: the command ended; bytes: u32 exit code (128 + n after signal n), u32 signal or 0; offset:
 * of the entry that would come next; time: of the end. Nothing follows.
 *
 * What the daemon decodes comes from inside a sandbox and is checked.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/str.h"

#define AV_MAINLOG_HEAD     24
#define AV_MAINLOG_LINE_MAX 16384 /* bytes of one entry */
/* Of the log as a whole, with heads: what the agent keeps. */
#define AV_MAINLOG_MIN ((size_t)64 * 1024)
#define AV_MAINLOG_MAX ((size_t)16 * 1024 * 1024)

enum av_mainlog_kind { AV_MAINLOG_LINE = 1, AV_MAINLOG_GAP = 2, AV_MAINLOG_END = 3 };

enum { AV_MAINLOG_OUT = 1, AV_MAINLOG_ERR = 2 };

enum {
	AV_MAINLOG_OPEN = 1, /* no newline follows it (yet) */
	AV_MAINLOG_CONT = 2, /* it goes on with an open one of the same stream */
};

struct av_mainlog_entry {
	enum av_mainlog_kind kind;
	uint8_t stream, flags;
	uint64_t offset;
	int64_t time_us;
	struct av_str data;         /* LINE; borrowed for the call */
	uint64_t dropped;           /* GAP */
	uint32_t exit_code, signal; /* END */
};

/* The head of a line of n bytes. */
void av_mainlog_put_head(uint8_t dst[static AV_MAINLOG_HEAD], const struct av_mainlog_entry *e);
/* A whole GAP or END; returns its size. */
#define AV_MAINLOG_SMALL_MAX (AV_MAINLOG_HEAD + 8)
size_t av_mainlog_put_small(
    uint8_t dst[static AV_MAINLOG_SMALL_MAX], const struct av_mainlog_entry *e);

/* Bytes in any pieces, entries out. fn returns false to stop early. */
typedef bool av_mainlog_fn(void *ctx, const struct av_mainlog_entry *e);
struct av_mainlog_dec {
	uint8_t head[AV_MAINLOG_HEAD];
	char *data; /* owned; of an entry that is not whole yet */
	size_t n;   /* bytes of head and data */
	bool ended; /* END was seen */
};
void av_mainlog_dec_init(struct av_mainlog_dec *d);
void av_mainlog_dec_clear(struct av_mainlog_dec *d);
/* 0, 1 when fn wanted no more, -ENOMEM, or -EPROTO with *err filled (AGENT). Not to be called again
 * after anything but 0. */
int av_mainlog_feed(struct av_mainlog_dec *d, struct av_str bytes, av_mainlog_fn *fn, void *ctx,
    struct av_err *err);
/* Nothing of an entry is waiting for its rest. */
bool av_mainlog_dec_idle(const struct av_mainlog_dec *d);
