/* SPDX-License-Identifier: Apache-2.0 */
/*
 * entries.h - files of a sandbox as the native dialect describes them
 */
#pragma once

#include "base/json.h"

/* Appends {"name","path","type","size","mode","permissions","owner","group","modified_at"} and, for
 * a link, "symlink_target", made from the agent's EntryInfo. Every field is checked: AV_ERR_AGENT
 * when one is missing or not what it should be. type is file, directory or symlink, as clients know
 * no other: a link that leads nowhere is a symlink, a device, pipe or socket a file (its
 * permissions say which). */
int native_write_entry(struct av_buf *out, const json_t *info, struct av_err *err);

/* The mode of a request: text of octal digits ("644", "0755") or a number, 0 to 07777; *ret stays
 * as it was when absent. */
int native_parse_mode(const json_t *body, int *ret, struct av_err *err);
