/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kernel.h - messages between the agent and the driver of a kernel: u32be length | u8 type |
 * payload
 *
 * The driver (src/agent/kernels/) is a script in an interpreter that runs a user's code, on one
 * socket that the interpreter's children do not inherit. To the agent it is hostile: the code can
 * write anything to that socket. So the length has a ceiling, every type has one shape, and what
 * does not fit ends the kernel. Numbers are big-endian. Payloads:
 *
 *   agent to driver
 *   'S' setup     working directory (empty: as it is), NUL, pairs
 *   'K' known     nothing: a message with the flag has been read, and what was printed before it
 *   'X' execute   u8 flags, u32 n, n bytes of code, pairs (for this execution only)
 *   driver to agent
 *   'R' ready     text: what it is, "python 3.11.2"
 *   'A' accepted  u32 number of the execution
 *   'D' display   u8 flags, items
 *   'E' error     texts: name, value, lines of the traceback
 *   'C' clear     u8 flags
 *   'F' finished  u8 0 or 1 (with an error), u32 number of the execution
 *
 * pairs: key NUL value NUL ...; a text: u32 n, n bytes; an item: u8 kind, u8 n, n bytes of MIME
 * type, u32 m, m bytes.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/buf.h"
#include "base/str.h"

#define AV_KERNEL_HEADER      5
#define AV_KERNEL_MESSAGE_MAX ((size_t)8 * 1024 * 1024) /* payload */
#define AV_KERNEL_ITEMS_MAX   64
#define AV_KERNEL_LINES_MAX   1000 /* texts of an error */
#define AV_KERNEL_BANNER_MAX  256

enum av_kernel_type {
	AV_KERNEL_SETUP = 'S',
	AV_KERNEL_EXECUTE = 'X',
	AV_KERNEL_KNOWN = 'K',
	AV_KERNEL_READY = 'R',
	AV_KERNEL_ACCEPTED = 'A',
	AV_KERNEL_DISPLAY = 'D',
	AV_KERNEL_ERROR = 'E',
	AV_KERNEL_CLEAR = 'C',
	AV_KERNEL_FINISHED = 'F',
};

/* Flags of an execution. */
enum {
	AV_KERNEL_STORE = 1,  /* counts, and is kept in the history */
	AV_KERNEL_SILENT = 2, /* no result */
	AV_KERNEL_SVG = 4,    /* figures as SVG; with both, as both; with none, as the kernel is set
	                       */
	AV_KERNEL_JSON = 8,   /* lists and dicts also as JSON */
	AV_KERNEL_PNG = 16,
};

/* Flags of a display and of a clear. */
enum {
	AV_KERNEL_MAIN = 1,   /* value of the last expression */
	AV_KERNEL_WAIT = 1,   /* of a clear: when the next output comes */
	AV_KERNEL_UPDATE = 2, /* replaces what was shown under the same display id */
	/* The driver waits for KNOWN before it goes on: what it prints then comes after this. */
	AV_KERNEL_ANSWER = 4,
};

enum av_kernel_item_kind {
	AV_KERNEL_ITEM_TEXT,
	AV_KERNEL_ITEM_BYTES,      /* base64 where it becomes text */
	AV_KERNEL_ITEM_DOCUMENT,   /* JSON, checked */
	AV_KERNEL_ITEM_DISPLAY_ID, /* not a representation */
	AV_KERNEL_ITEM_KIND_COUNT
};

struct av_kernel_item {
	enum av_kernel_item_kind kind;
	struct av_str mime; /* 1 to 255 of [A-Za-z0-9!#$&^_.+/-]; "display_id" for that kind */
	struct av_str data;
};

/* A message of a driver; everything borrowed from the payload. */
struct av_kernel_message {
	enum av_kernel_type type;
	uint8_t flags;  /* DISPLAY, CLEAR; FINISHED: 1 with an error */
	uint32_t count; /* ACCEPTED, FINISHED */
	/* READY: the text; DISPLAY: items for av_kernel_next_item(); ERROR: texts for
	 * av_kernel_next_text() */
	struct av_str rest;
};

/* Reads and checks one payload of a driver. -EPROTO: of no known type or not of its shape. */
int av_kernel_parse(uint8_t type, struct av_str payload, struct av_kernel_message *ret);
/* Takes the next from what av_kernel_parse() has checked; false at the end. */
bool av_kernel_next_item(struct av_str *rest, struct av_kernel_item *ret);
bool av_kernel_next_text(struct av_str *rest, struct av_str *ret);

/* Splits a stream into payloads. */
struct av_kernel_dec {
	struct av_buf payload; /* private, as all here */
	uint8_t header[AV_KERNEL_HEADER];
	uint8_t header_n;
	uint32_t left;
};
/* A whole payload, valid until return. 0 to go on, 1 to stop behind it, -errno to fail. */
typedef int av_kernel_payload_fn(void *ctx, uint8_t type, struct av_str payload);
void av_kernel_dec_init(struct av_kernel_dec *d);
void av_kernel_dec_clear(struct av_kernel_dec *d);
/* The bytes consumed (n unless stopped), or -EMSGSIZE (a length over the ceiling), -ENOMEM, or what
 * fn returned; then the decoder must not be fed again. */
ssize_t av_kernel_dec_feed(struct av_kernel_dec *d, const void *p, size_t n,
    av_kernel_payload_fn *fn, void *ctx) AV_MUST_CHECK;

/* Appends a message to a driver; pairs and cwd have no NUL but those that end a field. The
 * buffer's error, or -EMSGSIZE. */
int av_kernel_write_setup(struct av_buf *out, struct av_str cwd, struct av_str pairs) AV_MUST_CHECK;
int av_kernel_write_known(struct av_buf *out) AV_MUST_CHECK;
int av_kernel_write_execute(
    struct av_buf *out, uint8_t flags, struct av_str code, struct av_str pairs) AV_MUST_CHECK;
