/* SPDX-License-Identifier: Apache-2.0 */
/*
 * avtime.h - clocks and RFC 3339 text
 */
#pragma once

#include <stdint.h>

#include "base/str.h"

#define AV_NS_PER_MS 1000000LL
#define AV_NS_PER_S  1000000000LL

int64_t av_mono_ns(void); /* CLOCK_MONOTONIC: durations and timers */
int64_t av_boot_ns(void); /* CLOCK_BOOTTIME: time-outs of sandboxes, goes on in suspend */
int64_t av_real_ms(void); /* CLOCK_REALTIME, milliseconds since 1970: what people are shown */

/* "2026-08-21T20:00:22.123Z" (24 characters and NUL); ms < 0 or past year 9999 is clamped. */
void av_rfc3339_ms(int64_t real_ms, char dst[static 32]);
/* Accepts any zone offset and 0 to 9 fraction digits; -EINVAL otherwise. */
int av_rfc3339_parse(struct av_str s, int64_t *ret_real_ms);
