/* SPDX-License-Identifier: Apache-2.0 */
/*
 * resource.h - only for libaviary: operations of the API, as resources.c has them in tables
 */
#pragma once

#include "client/internal.h"

struct avc_resource {
	const char *method;
	const char *path; /* "/v1/teams/{team}": {name} is a parameter with AVC_PATH */
	const struct avc_field *args, *options;
	size_t n_args, n_options, options_size;
	const struct avc_model *model; /* of the result; NULL: none, or text */
	int64_t
	    wait_ms;    /* beside a request's usual time: what the server may take, when not said */
	size_t wait_at; /* 1 + where in the options its seconds are, a double with has_x; 0: none */
	size_t wait_has_at;
	size_t file_at;  /* 1 + where in the arguments the file is that it is about; 0: none */
	bool is_text;    /* the answer is not JSON: aviary_text */
	bool anonymous;  /* sent without credentials */
	bool of_sandbox; /* {id} is a sandbox */
	bool has_body;
};

extern const struct avc_type avc_text_type;
extern const struct avc_resource avc_sandboxes_create_resource, avc_sandboxes_stop_resource,
    avc_sandboxes_update_resource;

/* The body that a call with these options has. 0 and *ret, or a code with words in text. */
int avc_resource_body(const struct avc_resource *r, const void *options, json_t **ret,
    char text[static AVC_MODEL_TEXT]);

struct avc_reply;
/* For avc_take_fn: op is given the answer as a model, or as aviary_text. 0, or the code that it
 * failed with; where the answer is to blame, op has failed already, in words that say why. */
int avc_take_model(aviary_op *op, const struct avc_reply *reply, const struct avc_model *m);
int avc_take_text(aviary_op *op, const struct avc_reply *reply, void *ctx);

/* One request as an operation. options: as the caller gave it, with struct_size first; NULL. Never
 * NULL, does not block. */
aviary_op *avc_resource_call(
    aviary_client *c, const struct avc_resource *r, const void *args, const void *options);
/* The public aviary_..._parse. */
int avc_model_parse(
    const struct avc_model *m, const char *json, size_t n, void **ret, aviary_error *error);
