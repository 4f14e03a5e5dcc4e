/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vlink.c - records and connections on a stream of bytes that has neither beginning nor end
 */
#include "proto/vlink.h"

#include <string.h>

#include "base/banned.h"

#define MAGIC_SIZE  4
#define ECHO_LENGTH ((size_t)MAGIC_SIZE + AV_VLINK_NONCE_SIZE)

static_assert(
    AV_VLINK_ECHO_SIZE == ECHO_LENGTH + AV_VLINK_OVERHEAD, "RESET and ECHO are one record");
static_assert(AV_VLINK_PADDING > AV_VLINK_PAYLOAD_MAX + AV_VLINK_HEAD, "padding ends any record");

/* --- writing --- */

static void put_length(uint8_t *dst, size_t n)
{
	dst[0] = (uint8_t)n;
	dst[1] = (uint8_t)(n >> 8);
}

static void put_greeting(uint8_t *dst, const uint8_t *nonce, enum av_vlink_type type)
{
	static const char magic[MAGIC_SIZE] = {'A', 'V', 'L', '1'};

	put_length(dst, ECHO_LENGTH);
	memcpy(dst + AV_VLINK_HEAD, magic, MAGIC_SIZE);
	memcpy(dst + AV_VLINK_HEAD + MAGIC_SIZE, nonce, AV_VLINK_NONCE_SIZE);
	dst[AV_VLINK_HEAD + ECHO_LENGTH] = (uint8_t)type;
}

void av_vlink_put_reset(
    uint8_t dst[static AV_VLINK_RESET_SIZE], const uint8_t nonce[static AV_VLINK_NONCE_SIZE])
{
	memset(dst, 0, AV_VLINK_PADDING);
	put_greeting(dst + AV_VLINK_PADDING, nonce, AV_VLINK_RESET);
}

void av_vlink_put_echo(
    uint8_t dst[static AV_VLINK_ECHO_SIZE], const uint8_t nonce[static AV_VLINK_NONCE_SIZE])
{
	put_greeting(dst, nonce, AV_VLINK_ECHO);
}

void av_vlink_seal(uint8_t *dst, size_t n, enum av_vlink_type type)
{
	assert(type == AV_VLINK_DATA ? n > 0 && n <= AV_VLINK_PAYLOAD_MAX
	                             : type == AV_VLINK_CLOSE && n == 0);
	put_length(dst, n);
	dst[AV_VLINK_HEAD + n] = (uint8_t)type;
}

/* --- reading --- */

void av_vlink_in_init(struct av_vlink_in *d, enum av_vlink_role role)
{
	*d = (struct av_vlink_in){.role = role};
}

void av_vlink_in_begin(struct av_vlink_in *d, const uint8_t nonce[static AV_VLINK_NONCE_SIZE])
{
	assert(d->role == AV_VLINK_OUTSIDE);
	d->state = AV_VLINK_WAITING;
	d->run = 0;
	memcpy(d->nonce, nonce, AV_VLINK_NONCE_SIZE);
}

void av_vlink_in_end(struct av_vlink_in *d)
{
	/* Who is lost already goes on counting. */
	if (d->state == AV_VLINK_LOST)
		return;
	d->state = AV_VLINK_LOST;
	d->run = 0;
}

/* How many of the bytes from the front are zero. A padding is long, and guests may be slow. */
static size_t zeros_in_front(const uint8_t *p, size_t n)
{
	size_t i = 0;
	uint64_t word;

	for (; n - i >= sizeof(word); i += sizeof(word)) {
		memcpy(&word, p + i, sizeof(word));
		if (word)
			break;
	}
	while (i < n && p[i] == 0)
		i++;
	return i;
}

static size_t zeros_at_end(const uint8_t *p, size_t n)
{
	size_t i = n;

	while (i > 0 && p[i - 1] == 0)
		i--;
	return n - i;
}

/* n bytes turned out to be no record: the zeros at their end may belong to a padding. */
static void lose(struct av_vlink_in *d, const uint8_t *p, size_t n)
{
	d->state = AV_VLINK_LOST;
	d->run = zeros_at_end(p, n);
}

/* Inside, without a connection: discards up to a RESET behind its padding. */
static enum av_vlink_event find_reset(
    struct av_vlink_in *d, const uint8_t *p, size_t n, size_t *ret_used)
{
	uint8_t want[AV_VLINK_ECHO_SIZE];
	const uint8_t *zero;
	size_t i = 0;

	while (i < n) {
		size_t k = zeros_in_front(p + i, n - i);

		d->run += k;
		i += k;
		if (i == n)
			break;
		if (d->run < AV_VLINK_PADDING) {
			d->run = 0;
			zero = memchr(p + i, 0, n - i);
			i = zero ? (size_t)(zero - p) : n;
			continue;
		}
		if (n - i < AV_VLINK_ECHO_SIZE)
			break;
		put_greeting(want, p + i + AV_VLINK_HEAD + MAGIC_SIZE, AV_VLINK_RESET);
		if (memcmp(p + i, want, sizeof(want)) == 0) {
			memcpy(d->nonce, p + i + AV_VLINK_HEAD + MAGIC_SIZE, AV_VLINK_NONCE_SIZE);
			d->state = AV_VLINK_OPEN;
			*ret_used = i + AV_VLINK_ECHO_SIZE;
			return AV_VLINK_ON_BEGIN;
		}
		lose(d, p + i, AV_VLINK_ECHO_SIZE);
		i += AV_VLINK_ECHO_SIZE;
	}
	*ret_used = i;
	return AV_VLINK_NEED_MORE;
}

/* The first m bytes of what is looked for were there, then came c: how many are there now. */
static size_t match_step(const uint8_t want[static AV_VLINK_ECHO_SIZE], size_t m, uint8_t c)
{
	for (size_t k = m;; k--) {
		if (want[k] == c && memcmp(want, want + m - k, k) == 0)
			return k + 1;
		if (k == 0)
			return 0;
	}
}

/* Outside: discards up to the end of our echo. */
static enum av_vlink_event find_echo(
    struct av_vlink_in *d, const uint8_t *p, size_t n, size_t *ret_used)
{
	uint8_t want[AV_VLINK_ECHO_SIZE];
	const uint8_t *first;

	put_greeting(want, d->nonce, AV_VLINK_ECHO);
	for (size_t i = 0; i < n;) {
		if (d->run == 0) {
			first = memchr(p + i, want[0], n - i);
			if (!first)
				break;
			i = (size_t)(first - p);
		}
		d->run = match_step(want, d->run, p[i++]);
		if (d->run == sizeof(want)) {
			d->state = AV_VLINK_OPEN;
			d->run = 0;
			*ret_used = i;
			return AV_VLINK_ON_BEGIN;
		}
	}
	*ret_used = n;
	return AV_VLINK_NEED_MORE;
}

static enum av_vlink_event next_record(
    struct av_vlink_in *d, const uint8_t *p, size_t n, size_t *ret_used, struct av_str *ret_payload)
{
	size_t length, whole;

	*ret_used = 0;
	if (n < AV_VLINK_HEAD)
		return AV_VLINK_NEED_MORE;
	length = (size_t)p[0] | (size_t)p[1] << 8;
	if (length > AV_VLINK_PAYLOAD_MAX) {
		lose(d, p, AV_VLINK_HEAD);
		*ret_used = AV_VLINK_HEAD;
		return AV_VLINK_ON_BROKEN;
	}
	whole = length + AV_VLINK_OVERHEAD;
	if (n < whole)
		return AV_VLINK_NEED_MORE;
	*ret_used = whole;
	if (p[whole - 1] == AV_VLINK_DATA && length > 0) {
		*ret_payload = av_str_n((const char *)p + AV_VLINK_HEAD, length);
		return AV_VLINK_ON_DATA;
	}
	lose(d, p, whole);
	return p[whole - 1] == AV_VLINK_CLOSE && length == 0 ? AV_VLINK_ON_CLOSE
	                                                     : AV_VLINK_ON_BROKEN;
}

enum av_vlink_event av_vlink_next(
    struct av_vlink_in *d, struct av_str bytes, size_t *ret_used, struct av_str *ret_payload)
{
	const uint8_t *p = (const uint8_t *)bytes.p;

	if (d->state == AV_VLINK_OPEN)
		return next_record(d, p, bytes.n, ret_used, ret_payload);
	if (d->state == AV_VLINK_WAITING)
		return find_echo(d, p, bytes.n, ret_used);
	if (d->role == AV_VLINK_INSIDE)
		return find_reset(d, p, bytes.n, ret_used);
	*ret_used = bytes.n;
	return AV_VLINK_NEED_MORE;
}
