/* SPDX-License-Identifier: Apache-2.0 */
/*
 * texts.h - only for libaviary: the JSON of a request, with a reason when it cannot be made
 *
 * jansson refuses text that is not UTF-8 as it fails without memory: by NULL. Callers are to know
 * which.
 */
#pragma once

#include <aviary/base.h>
#include <jansson.h>

#include "base/str.h"

struct avc_texts {
	int code;         /* 0, AVIARY_E_NO_MEMORY, AVIARY_E_INVALID: the first that failed */
	const char *what; /* is not UTF-8, when INVALID: as put was given it */
};

/* o[name] = value, which is stolen; NULL is want of memory. */
void avc_put(struct avc_texts *t, json_t *o, const char *name, json_t *value);
/* o[name] = text; what is the caller's word for it. A NULL text is left out. */
void avc_put_text(struct avc_texts *t, json_t *o, const char *name, const char *text);
/* The same for a name that is the caller's own, as of an environment. */
void avc_put_pair(
    struct avc_texts *t, json_t *o, const char *what, const char *name, const char *value);
void avc_append_text(struct avc_texts *t, json_t *list, const char *what, const char *text);
