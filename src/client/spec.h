/* SPDX-License-Identifier: Apache-2.0 */
/*
 * spec.h - only for libaviary: what callers say of sandboxes: taken, checked, as the server's JSON
 */
#pragma once

#include <aviary/sandbox.h>
#include <jansson.h>
#include <stdbool.h>

#define AVC_SPEC_TEXT 400 /* bytes of what avc_spec_check says */

/* A copy whose members that the caller's headers did not have are zero; what it points to is still
 * the caller's. src NULL: nothing is said. */
void avc_spec_take(aviary_sandbox_spec *dst, const aviary_sandbox_spec *src);
/* The body of a create, or of an update, which can say less. 0; AVIARY_E_INVALID and in text which
 * member is wrong and what it may be; AVIARY_E_NO_MEMORY. */
int avc_spec_body(const aviary_sandbox_spec *spec, json_t **ret, char text[AVC_SPEC_TEXT]);
int avc_spec_changes(const aviary_sandbox_spec *spec, json_t **ret, char text[AVC_SPEC_TEXT]);
