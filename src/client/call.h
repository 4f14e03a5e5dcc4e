/* SPDX-License-Identifier: Apache-2.0 */
/*
 * call.h - only for libaviary: an operation that is one request
 *
 * Most operations are: ask, look at the answer, keep what it says. avc_call() is that, with the
 * sandbox brought up before where it must run. What takes several requests is a state machine of
 * its own over request.h.
 */
#pragma once

#include "client/sandbox.h"
#include "client/texts.h"

/* With the lock, once, with the answer (code < 0: an error): 0 ends the operation well, after
 * avc_op_give() where there is a result; a code fails it, with reply->error where that is its code.
 */
typedef int avc_take_fn(aviary_op *op, const struct avc_reply *reply, void *ctx);

struct avc_call_spec {
	const char *method; /* a literal */
	/* Encoded. With sb: what follows "/v1/sandboxes/{id}", "" for itself. */
	const char *path;
	struct aviary_sandbox *sb;          /* whom it is about; the operation keeps it */
	const char *sandbox_id;             /* without sb: for errors; copied; NULL */
	const char *host_token;             /* as in avc_request_spec */
	bool needs_running;                 /* brings sb up first */
	json_t *body;                       /* stolen */
	const struct avc_texts *texts;      /* how its making went; NULL: well */
	const char *idempotency_key, *file; /* as in avc_request_spec */
	struct av_str raw;        /* a body that is not JSON, copied; content_type says what */
	const char *content_type; /* a literal */
	const struct avc_source *source; /* as in avc_request_spec; borrowed till the end */
	const char *source_type;
	int64_t timeout_ms;
	bool never_again, anonymous, repeatable; /* as in avc_request_spec */
	avc_take_fn *take;                       /* NULL: only the end counts */
	void *ctx; /* for take; freed with the call, whether take was called or not */
	void (*free_ctx)(void *ctx);
};

/* Never NULL. Without the lock. */
aviary_op *avc_call(aviary_client *c, const struct avc_call_spec *spec);
/* Whether it begins with "/" and has neither spaces nor control characters. NULL is none. */
bool avc_path_is_usable(const char *path);
/* One that has failed already. Without the lock. */
aviary_op *avc_op_failed(aviary_client *c, int code, const char *format, ...) AVIARY_PRINTF(3, 4);
