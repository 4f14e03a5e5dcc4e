/* SPDX-License-Identifier: Apache-2.0 */
/*
 * quotas.h - quotas of teams and keys as JSON
 */
#pragma once

#include "base/json.h"
#include "control/quota.h"

/* {"sandboxes","cpus","memory_mb","disk_mb","creates_per_minute"}, all optional; null or 0: none of
 * its own. Anything else is INVALID. NULL reads as {}. */
int native_parse_quota(const json_t *quota, struct control_quota_update *ret, struct av_err *err);
/* The same object, null for what is not bounded. */
int native_write_quota(struct av_buf *out, const struct control_quota *q);
/* A moment, or null for 0. */
void native_write_ms(struct av_buf *out, const char *name, int64_t real_ms);
