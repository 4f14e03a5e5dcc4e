/* SPDX-License-Identifier: Apache-2.0 */
/*
 * session.h - only for libaviary: what handles know of sessions
 */
#pragma once

#include <aviary/session.h>

#include "client/sandbox.h"

/* With the lock: sb leaves the session that it is in, if any. The caller holds a reference to sb.
 */
void avc_session_forget(struct aviary_sandbox *sb);
