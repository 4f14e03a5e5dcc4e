/* SPDX-License-Identifier: Apache-2.0 */
/*
 * clock.c - a host clock that was set forth or back
 *
 * Time-outs run on the boot clock and never notice. What is forgotten because it is old (history,
 * usage, the audit log, expired keys, accounts that nobody activated) is old by the clock on the
 * wall, and a wall clock that is wrong by a year would make all of it old at once. So a jump of
 * that clock against the boot clock holds the forgetting up for CLOCK_HOLD_NS: time for somebody
 * to set it right. Slow corrections, as NTP makes them, are no jump.
 */
#include <inttypes.h>
#include <stdio.h>

#include "base/avtime.h"
#include "base/log.h"
#include "control/control_internal.h"

#include "base/banned.h"

#define CLOCK_JUMP_MS (5LL * 60 * 1000)
#define CLOCK_HOLD_NS (24LL * 3600 * AV_NS_PER_S)

void clock_look(struct control *c)
{
	int64_t now_ns = control_boot_ns(c);
	int64_t offset_ms = control_real_ms(c) - now_ns / AV_NS_PER_MS;
	int64_t jump_ms = offset_ms - c->clock_offset_ms;
	bool first = c->clock_offset_ms == 0;
	char seconds[24];

	c->clock_offset_ms = offset_ms;
	if (first || (jump_ms > -CLOCK_JUMP_MS && jump_ms < CLOCK_JUMP_MS))
		return;
	c->forget_from_ns = now_ns + CLOCK_HOLD_NS;
	(void)snprintf(seconds, sizeof(seconds), "%" PRId64, jump_ms / 1000);
	av_log(AV_LOG_WARN,
	    "the host's clock was set: nothing is forgotten for being old during the next day; "
	    "time-outs of sandboxes are not concerned",
	    "seconds", seconds, NULL);
}

bool clock_may_forget(const struct control *c)
{
	return control_boot_ns(c) >= c->forget_from_ns;
}
