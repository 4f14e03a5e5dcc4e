/* SPDX-License-Identifier: Apache-2.0 */
/*
 * run_loop.h - lets a loop under test run for a time
 */
#pragma once

#include "base/avtime.h"
#include "base/macros.h"
#include "net/loop.h"

/* Milliseconds in which the loop really ran. A host may hold a machine up for a second: on the
 * clock all of ms is over then, and nothing that was to happen meanwhile did. */
static inline void run_loop_for(struct av_loop *loop, int64_t ms)
{
	int64_t left = ms * AV_NS_PER_MS;
	do {
		int64_t began = av_mono_ns();
		av_loop_run_once(loop, 5);
		left -= AV_MIN(av_mono_ns() - began, 10 * AV_NS_PER_MS);
	} while (left > 0);
}
