/* SPDX-License-Identifier: Apache-2.0 */
/*
 * jupyter.h - Jupyter's kernel API on port 8888 of every sandbox
 *
 * Only files of src/api include this.
 *
 * Theory of operation. jupyter_handle() is the service of that port (proxy.h): it answers for paths
 * "/api" and below, with the shapes that Jupyter's server has, from the kernels that the sandbox's
 * agent keeps. All other paths, and all of them in a sandbox with metadata "aviary.kernels": "off",
 * go to whatever listens on the port in the sandbox, a Jupyter server of the user's own for
 * example.
 *
 * Errors are {"message","reason"}, as Jupyter's clients read them, with our "error" beside.
 *
 * Channels: one WebSocket, any number of executions one after the other, at most
 * JUPYTER_RUNS_MAX at a time. A socket that closes interrupts what it has begun: with many clients
 * that is the only way a time-out reaches the code.
 */
#pragma once

#include "api/kernel_run.h"
#include "api/request.h"

#define JUPYTER_PORT     8888
#define JUPYTER_RUNS_MAX 64
#define JUPYTER_METADATA "aviary.kernels"

bool jupyter_handle(struct api_request *rq);

/* ---- jupyter_channels.c ---- */

/* GET /api/kernels/{id}/channels of a kernel that is there: upgrades, or answers itself. info: what
 * the agent says of it. */
void jupyter_channels(struct api_request *rq, const char *kernel_id, const json_t *info);
/* An error as Jupyter's clients want it. */
void jupyter_send_err(struct api_request *rq, const struct av_err *err);
