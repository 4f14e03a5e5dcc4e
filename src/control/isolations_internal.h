/* SPDX-License-Identifier: Apache-2.0 */
/*
 * isolations_internal.h - only for src/control/(*.c): what isolation a sandbox gets
 */
#pragma once

#include "control/isolations.h"
#include "control/templates_internal.h"

#define ISOLATION_VM        "vm"
#define VM_MEMORY_STEP      (2 * AV_MIB)
#define VM_MEMORY_MIN       (128 * AV_MIB)
#define VM_DISK_MIN         (256 * AV_MIB)
#define ISOLATION_REASON_IN 320

bool isolation_is_vm(const char *isolation);
/* A template with the memory and the processes of a machine. */
bool template_is_saved(const struct template *t);
/* Processors of a machine of that share. */
int64_t isolation_vcpus(int64_t cpu_milli);

/* What a create of template t (NULL: the built-in one `id`), asked for as `name` (NULL: not said),
 * gets when it wishes `wish` (NULL: nothing); *ret lives as long as control. INVALID, or
 * UNSUPPORTED with what can be done. */
int isolation_choose(const struct control *c, const char *wish, const char *name,
    const struct template *t, const char *id, const char **ret, struct av_err *err);
/* What an isolation or a saved template asks of the numbers of rec, and rec of them: fills in those
 * that are 0. INVALID. */
void isolation_fill(const struct template *t, struct store_sandbox *rec);
int isolation_check_shape(
    const struct template *t, const struct store_sandbox *rec, struct av_err *err);
/* Isolation, kernel, and whether its template goes on from memory. */
void isolation_take_spec(
    const struct control *c, const struct store_sandbox *rec, struct driver_spec *ret);
/* Of its isolation; never NULL. */
const struct driver_caps *isolation_caps(const struct control *c, const char *isolation);
bool isolation_can_pause(const struct control *c, const char *isolation);
