/* SPDX-License-Identifier: Apache-2.0 */
/*
 * device_internal.h - descriptor, buffers and codec of one port; for port.c and relay.c only
 *
 * A device reads when it is wanted to (device_want), and hands what it read to on_input; that takes
 * events by device_next until there are no more, or stops wanting. What is to be sent is written by
 * the user into the out buffer as whole records and flushed. Buffers are made when they are needed
 * and given back when the connection is over.
 *
 * Outside nothing is read while there is no connection: a guest that writes all the same fills its
 * own queue. Inside everything is, for the next RESET.
 */
#pragma once

#include <uv.h>

#include "proto/vlink.h"
#include "vlink/relay.h"

#define DEVICE_IN_SIZE (VLINK_BUFFER + AV_VLINK_RECORD_MAX)
#define DEVICE_RECORDS (VLINK_BUFFER / AV_VLINK_PAYLOAD_MAX)
/* A greeting and the records behind it, and room for CLOSE that nobody else takes. */
#define DEVICE_OUT_SIZE                                                                            \
	(AV_VLINK_RESET_SIZE + VLINK_BUFFER + (DEVICE_RECORDS + 1) * AV_VLINK_OVERHEAD)

struct device;

/* All from the loop, never from within a function below. */
struct device_hooks {
	void (*on_input)(struct device *d);    /* there are new bytes, or there were some left */
	void (*on_writable)(struct device *d); /* all that was to be sent has been written */
	void (*on_late)(struct device *d); /* no echo came in time; the connection has been ended */
	/* The device is of no use any more (-errno); nothing else comes. */
	void (*on_failed)(struct device *d, int why);
	void (*on_closed)(struct device *d); /* after device_close: may be freed */
};

struct device {
	const struct device_hooks *hooks;
	enum av_vlink_role role;
	int fd;
	bool is_char; /* /dev/vport*: has no end, and tells HUP for as long as nobody is there */
	bool wanted;  /* the user takes input */
	bool blocked; /* a write found no room */
	bool look;    /* on_input is to come, for what was left */
	bool away;    /* nobody is connected outside: look again by timer */
	bool closing;
	int failed; /* 0, or why */
	int events; /* what poll waits for */
	unsigned handles;
	uv_poll_t poll;
	uv_timer_t echo, again;
	struct av_vlink_in in;
	uint8_t *in_p; /* owned, DEVICE_IN_SIZE, or NULL; bytes not used yet: in_off, in_n */
	size_t in_off, in_n;
	uint8_t *out_p; /* owned, DEVICE_OUT_SIZE, or NULL; bytes to write: out_off, out_n */
	size_t out_off, out_n;
};

/* Takes fd over. -errno: it stays the caller's. */
int device_open(struct device *d, uv_loop_t *loop, int fd, enum av_vlink_role role,
    const struct device_hooks *hooks);
/* on_closed follows from the loop. */
void device_close(struct device *d);

/* Outside: RESET into the out buffer, in place of what was there. Not flushed. -errno. */
int device_begin(struct device *d, uint64_t timeout_ms);
/* Inside, after ON_BEGIN: ECHO, in place of what was there. Not flushed. -ENOMEM. */
int device_echo(struct device *d);
/* CLOSE behind what is there; what comes is discarded from now on. Not flushed. */
void device_end(struct device *d);
/* The connection is over without a word (the other side ended it, or never came); what was to be
 * sent is dropped. */
void device_forget(struct device *d);
static inline bool device_connected(const struct device *d)
{
	return d->in.state != AV_VLINK_LOST;
}

/* Whether on_input is to be called when there is something. Who holds payloads beyond on_input does
 * not want any until it is done with them: they stay where they are. */
void device_want(struct device *d, bool wanted);
/* If bytes were read that nobody took, on_input comes soon. */
void device_look_again(struct device *d);
enum av_vlink_event device_next(struct device *d, struct av_str *ret_payload);
/* The free end of the out buffer, without what is kept for CLOSE; NULL: no memory. */
uint8_t *device_room(struct device *d, size_t *ret_n);
/* n bytes of whole records stand there. */
void device_commit(struct device *d, size_t n);
/* Writes what can be written; on_writable comes if that is not all. */
void device_flush(struct device *d);
