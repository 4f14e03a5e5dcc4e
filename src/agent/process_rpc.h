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
/* {"process":{"cmd","args","cwd"}} of request, borrowed. AV_ERR_INVALID without a cmd. */
struct process_rpc_command {
	const json_t *process, *args;
	const char *cmd, *cwd;
};
int process_rpc_command(const json_t *request, struct process_rpc_command *ret, struct av_err *err);
/* cmd and args with a NULL behind them, to be freed; the strings are the document's. NULL: no
 * memory. */
char **process_rpc_argv(const struct process_rpc_command *c);
/* What base64 in the largest request can hold. */
#define PROCESS_RPC_INPUT_MAX ((size_t)12 * 1024 * 1024)
/* The bytes of {"input":{"stdin":base64}} or {"input":{"pty":base64}} of request, appended to out.
 * AV_ERR_INVALID; AV_ERR_INTERNAL when p has the other kind of input. */
int process_rpc_input(
    const json_t *request, const struct process *p, struct av_buf *out, struct av_err *err);
/* {"pty":{"size":{"cols":n,"rows":n}}} of request; *ret_has false when there is no pty. */
int process_rpc_size(const json_t *request, bool *ret_has, uint16_t *ret_cols, uint16_t *ret_rows,
    struct av_err *err);
