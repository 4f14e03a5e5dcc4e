/* SPDX-License-Identifier: Apache-2.0 */
/*
 * list.h - only for libaviary: sandboxes that are found, by list or id, and what else becomes of
 * them
 */
#pragma once

#include "client/sandbox.h"

/* What is done with each handle that is found. */
struct avc_list_found {
	int (*each)(void *ctx, struct aviary_sandbox *sb); /* with the lock; a code ends it. NULL */
	void *ctx;
	void (*free_ctx)(void *ctx); /* with the lock */
};

/* As aviary_sandbox_list and aviary_sandbox_from_id. ctx becomes the operation's in any case. */
aviary_op *avc_list(
    aviary_client *c, const aviary_list_options *options, const struct avc_list_found *found);
aviary_op *avc_from_id(aviary_client *c, const char *id, const struct avc_list_found *found);
/* For the blocking twins. */
aviary_sandbox_handles *avc_await_list(aviary_op *op, aviary_error *error);
