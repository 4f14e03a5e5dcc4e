/* SPDX-License-Identifier: Apache-2.0 */
/*
 * process_rpc.h - what the unary and the streaming RPCs of process.Process share
 */
#pragma once

#include <jansson.h>

#include "agent/agent.h"
#include "agent/process.h"
#include "base/err.h"

/* The process that {"process":{"pid":n}} or {"process":{"tag":"x"}} of request selects.
 * AV_ERR_INVALID without a selector, AV_ERR_NOT_FOUND "process with pid N not found". */
int process_rpc_select(
    struct agent *a, const json_t *request, struct process **ret, struct av_err *err);
/* {"pty":{"size":{"cols":n,"rows":n}}} of request; *ret_has false when there is no pty. */
int process_rpc_size(const json_t *request, bool *ret_has, uint16_t *ret_cols, uint16_t *ret_rows,
    struct av_err *err);
