/* SPDX-License-Identifier: Apache-2.0 */
/*
 * backup.h - what a backup is made of: a copy of the database, and every template that it names
 *
 * While a backup lives no template's files are removed; a template that is deleted meanwhile loses
 * its name at once, and its files afterwards. So each template in the copy has its files, and what
 * is made after the copy is not in the backup at all.
 */
#pragma once

#include "control/control.h"
#include "node/node.h"

struct control_backup;

/* fd: the copy (the callee's; -1 on error), to be read from its beginning. */
typedef void control_backup_fn(void *ctx, int fd, uint64_t bytes, const struct av_err *err);
/* For administrators only. CONFLICT: one is being made. fn comes once, unless control_backup_end()
 * comes before. */
int control_backup_begin(struct control *c, const struct control_actor *a, control_backup_fn *fn,
    void *ctx, struct control_backup **ret, struct av_err *err);
/* At any time, also before fn. NULL is fine. */
void control_backup_end(struct control_backup *b);

/* After fn: the templates; an id is borrowed from b. */
size_t control_backup_count(const struct control_backup *b);
const char *control_backup_id(const struct control_backup *b, size_t i);
/* One at a time; -ENOMEM, -EOPNOTSUPP. As driver_ops.template_export. */
int control_backup_open(
    struct control_backup *b, size_t i, driver_stream_fn *fn, void *ctx) AV_MUST_CHECK;
/* Of the last DRIVER_EXPORT_END bytes. */
int control_backup_closed(
    const struct control_backup *b, const void *bytes, struct av_err *err) AV_MUST_CHECK;
/* Whether templates have owners, or belong to one user. */
bool control_backup_rootless(const struct control_backup *b);

/* Frees what is left of one that ended, or did not: control is freed. */
void control_backup_free(struct control *c);
