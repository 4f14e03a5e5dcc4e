/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sign.h - tokens that stand in a URL: who has one may do one thing until a stated time
 *
 * Theory of operation. A token is "<expiry>.<mac>": seconds of real time since 1970 (0: never), and
 * HMAC-SHA256 in hexadecimal over purpose, expiry and subject under a key of this installation. The
 * purpose keeps a token for one kind of thing from being one for another; the subject says all that
 * it is good for (sandbox and port, sandbox and path and method, ...). Nothing is stored for a
 * token, so that none can be taken back before its time: keep them short, and delete the sandbox.
 *
 * The key is 32 random bytes in the database, made at the first start. Real time decides about
 * expiry, as the token must mean the same on the other side of a restart.
 *
 * Synchronous, loop thread.
 */
#pragma once

#include <stdint.h>

#include "base/err.h"
#include "base/str.h"

struct control;

#define CONTROL_TOKEN_SIZE 96 /* with NUL: [0-9a-f.], nothing that needs escaping in a URL */

/* Purposes. */
#define CONTROL_SIGN_PORT "port"
#define CONTROL_SIGN_FILE "file"

/* Writes a token that holds until expires_s (real time; 0: for ever). purpose is a literal. */
void control_sign(const struct control *c, const char *purpose, struct av_str subject,
    int64_t expires_s, char ret[static CONTROL_TOKEN_SIZE]);
/* 0 when the token was made by control_sign() of this installation for the same purpose and subject
 * and holds still. FORBIDDEN: it does not, with a text for people ("has expired at ..."). Constant
 * time in the mac. */
int control_sign_check(const struct control *c, const char *purpose, struct av_str subject,
    struct av_str token, struct av_err *err);
