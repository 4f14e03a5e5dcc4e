/* SPDX-License-Identifier: Apache-2.0 */
/*
 * main_shapes.h - JSON of main commands: what creates and stops say, what sandboxes show
 */
#pragma once

#include "base/json.h"
#include "control/sandbox.h"

/* What a create says of its main command and its files, and what the parameters then point to. */
struct native_setup {
	json_t *command; /* owned: made of a string; or NULL */
	struct sandbox_file files[SANDBOX_FILES_MAX];
	void *decoded[SANDBOX_FILES_MAX]; /* owned, of contents in base64; or NULL */
	size_t n;
};
void native_setup_clear(struct native_setup *s);
/* {"command","workdir","user","on_exit","files"} into *params, which is valid as long as *s.
 * INVALID naming the field. */
int native_parse_setup(
    const json_t *body, struct native_setup *s, struct sandbox_params *params, struct av_err *err);

/* The members of a sandbox, each with a comma before it. */
void native_write_main(struct av_buf *out, const struct sandbox_main_info *m);

/* {"grace_sec","snapshot"} */
int native_parse_stop(const json_t *body, struct sandbox_stop_params *ret, struct av_err *err);
