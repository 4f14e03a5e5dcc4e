/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vlink.h - records and connections on a stream of bytes that has neither beginning nor end
 *
 * Theory of operation. A port of virtio-serial is one pair of byte streams for as long as the guest
 * lives: it survives the process outside, it survives a save and a restore. Whoever begins to use
 * it finds in it whatever was on its way before: the rest of half a record, whole connections,
 * nothing. Bytes may also be gone, but only so that the end of what somebody had sent is missing.
 * This layer makes connections of it, one after the other, whose bytes are exactly what was sent,
 * or a beginning of it. The outside begins each one; both may end it.
 *
 * A record is
 *
 *   u16 length (little-endian, at most AV_VLINK_PAYLOAD_MAX) | payload | u8 type
 *
 * The type stands at the end and is never 0. So a record that was torn and then filled up by zeros
 * cannot be taken for a whole one, and as only whole records are delivered, nothing of a torn one
 * is.
 *
 *   RESET  outside to inside: a connection begins. "AVL1" and a nonce of 16 random bytes
 *   ECHO   inside to outside: the same 20 bytes
 *   DATA   1 or more bytes of the connection
 *   CLOSE  no payload: the connection is over, for both directions; its data came before
 *
 * To begin, the outside writes AV_VLINK_PADDING zero bytes, then RESET, then what it likes: it need
 * not wait for the echo. The inside, when it reads this RESET, forgets what it wanted to send (even
 * the rest of half a record) and writes ECHO, then what it likes.
 *
 * Inwards it works from any state of the reader. In between connections, and after anything that is
 * no record, the reader is lost: it counts the zero bytes that came in a row, and nothing but RESET
 * after at least AV_VLINK_PADDING of them ends that. Let a reader within a connection meet the
 * padding. Its record at that time lacks between 1 and AV_VLINK_PAYLOAD_MAX + 2 bytes (3 if none
 * had begun), all of which the padding provides, so that it ends in a type of 0, or has a length
 * that is not allowed: the reader is lost, and the zeros at the record's end count. So all of the
 * padding has been counted when RESET comes. The other way round nothing else can end the state: in
 * a row of records there are never more than AV_VLINK_PAYLOAD_MAX zeros together, since a payload
 * of that size follows a byte that is not zero and precedes a type. Bytes of users are payload, so
 * that no user can write a RESET. An old RESET that is still in the stream begins its old
 * connection, which the next one ends; its echo has another nonce.
 *
 * Outwards no padding is needed: the outside knows its nonce, which nobody could know before, and
 * looks for the bytes of the ECHO in all that comes, whatever stands around them. What comes before
 * is discarded. A hostile inside can only fail to answer, for which there must be a timer (port.h),
 * or write what it likes into a connection of its own.
 *
 * This codec sees bytes only; src/vlink has the descriptors.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/str.h"

#define AV_VLINK_PAYLOAD_MAX ((size_t)16384)
#define AV_VLINK_HEAD        2           /* bytes before the payload */
#define AV_VLINK_OVERHEAD    ((size_t)3) /* and with the type behind it */
#define AV_VLINK_RECORD_MAX  (AV_VLINK_PAYLOAD_MAX + AV_VLINK_OVERHEAD)
#define AV_VLINK_NONCE_SIZE  16
#define AV_VLINK_PADDING     (AV_VLINK_PAYLOAD_MAX + 16)
#define AV_VLINK_ECHO_SIZE   ((size_t)23) /* a whole record; RESET is as long */
#define AV_VLINK_RESET_SIZE  (AV_VLINK_PADDING + AV_VLINK_ECHO_SIZE)

enum av_vlink_type {
	AV_VLINK_RESET = 1,
	AV_VLINK_ECHO = 2,
	AV_VLINK_DATA = 3,
	AV_VLINK_CLOSE = 4,
};

/* --- writing --- */

/* Padding and RESET. */
void av_vlink_put_reset(
    uint8_t dst[static AV_VLINK_RESET_SIZE], const uint8_t nonce[static AV_VLINK_NONCE_SIZE]);
void av_vlink_put_echo(
    uint8_t dst[static AV_VLINK_ECHO_SIZE], const uint8_t nonce[static AV_VLINK_NONCE_SIZE]);
/* Makes a record of n payload bytes that stand at dst + AV_VLINK_HEAD already; dst has room for
 * n + AV_VLINK_OVERHEAD. DATA with 1 to AV_VLINK_PAYLOAD_MAX bytes, CLOSE with none (asserted). */
void av_vlink_seal(uint8_t *dst, size_t n, enum av_vlink_type type);

/* --- reading --- */

enum av_vlink_role { AV_VLINK_OUTSIDE, AV_VLINK_INSIDE };

enum av_vlink_event {
	AV_VLINK_NEED_MORE, /* nothing whole is left; call again with what is left and more behind
	                       it */
	/* A connection begins. Inside: a RESET came; answer av_vlink_in.nonce; what was before is
	 * over. Outside: the echo came. */
	AV_VLINK_ON_BEGIN,
	AV_VLINK_ON_DATA,  /* *ret_payload: of a DATA record, within the bytes given */
	AV_VLINK_ON_CLOSE, /* the other side ended the connection */
	/* In a connection: what cannot be a record. The connection is over; all until the next one
	 * begins is discarded. */
	AV_VLINK_ON_BROKEN,
};

enum av_vlink_state {
	AV_VLINK_LOST = 0, /* no connection; outside: none was begun, everything is discarded */
	AV_VLINK_WAITING,  /* outside: until the echo comes */
	AV_VLINK_OPEN,
};

struct av_vlink_in {
	enum av_vlink_role role;
	enum av_vlink_state state;
	/* LOST inside: zero bytes right before what comes; WAITING: bytes of the echo that were
	 * there */
	size_t run;
	uint8_t nonce[AV_VLINK_NONCE_SIZE]; /* of the connection that began, or is to begin */
};

/* No connection yet. Owns nothing. */
void av_vlink_in_init(struct av_vlink_in *d, enum av_vlink_role role);
/* Outside: a RESET with this nonce is being sent; until its echo all that comes is discarded. From
 * any state. */
void av_vlink_in_begin(struct av_vlink_in *d, const uint8_t nonce[static AV_VLINK_NONCE_SIZE]);
/* We ended the connection: all that comes is discarded until the next one begins. */
void av_vlink_in_end(struct av_vlink_in *d);
/* The next event in the bytes that were not used yet; *ret_used of them, from the front, are done
 * with (ON_DATA: ret_payload points among them). With NEED_MORE less than AV_VLINK_RECORD_MAX bytes
 * are left, so a buffer of that size always makes progress. */
enum av_vlink_event av_vlink_next(struct av_vlink_in *d, struct av_str bytes, size_t *ret_used,
    struct av_str *ret_payload) AV_MUST_CHECK;
