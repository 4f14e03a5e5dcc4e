/* SPDX-License-Identifier: Apache-2.0 */
/*
 * handlers.h - the functions that routes.def names, and the tunnel
 */
#pragma once

#include "agent/request.h"
#include "proto/agent_api.h"

#define AGENT_STREAM(method, path, open)        void open(struct request *rq);
#define AGENT_UNARY(method, path, max_body, fn) void fn(struct request *rq, struct av_str body);
#include "agent/routes.def"
#undef AGENT_STREAM
#undef AGENT_UNARY

/* CONNECT host:port */
void tunnel_open(struct request *rq);
