/* SPDX-License-Identifier: Apache-2.0 */
/*
 * model.h - only for libaviary: structs from JSON and to JSON, by tables
 *
 * Theory of operation. tools/gen-models makes one table for each schema of the API; the functions
 * here are all that reads or writes by them. What is read is an answer of a server that may lie: a
 * member of a wrong type is an error that names it, a document that would take more than
 * AVC_JSON_COST_MAX is refused when it has taken that, and a model never takes more than
 * AVC_MODEL_MAX.
 * Tables do not refer to themselves, so that depth is bounded by them and not by the document.
 *
 * A model lies in a chain of blocks, of which the first begins with the struct itself; nothing in
 * it is allocated on its own.
 */
#pragma once

#include <aviary/models.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/str.h"

#define AVC_JSON_MAX      ((size_t)64 << 20)  /* bytes of a document */
#define AVC_JSON_COST_MAX ((size_t)512 << 20) /* what it takes in memory, about */
#define AVC_MODEL_MAX     ((size_t)256 << 20)
#define AVC_MODEL_TEXT    320 /* what is wrong, in words */

enum avc_kind {
	AVC_TEXT,     /* const char * */
	AVC_TIME,     /* int64_t, ms since 1970; text of RFC 3339 in JSON */
	AVC_INTEGER,  /* int64_t */
	AVC_NUMBER,   /* double */
	AVC_BOOL,     /* int */
	AVC_ENUM,     /* enum; with AVC_MORE its word at more_at */
	AVC_STRINGS,  /* aviary_strings */
	AVC_INTEGERS, /* aviary_integers */
	AVC_TIMES,    /* aviary_integers of points of time */
	AVC_PORTS,    /* aviary_ports */
	AVC_PAIRS,    /* aviary_pairs */
	AVC_JSON,     /* const char *: anything, as text */
	AVC_STRUCT,   /* const T * */
	AVC_STRUCTS,  /* const T *const *, their number at more_at */
};

#define AVC_REQUIRED 1u  /* absent: "", 0, empty, never NULL */
#define AVC_MORE     2u  /* there is something at more_at: has_x, n_x, x_text */
#define AVC_NULLS    4u  /* values of pairs may be NULL: null */
#define AVC_POINTER  8u  /* a list is not there itself but a pointer to it */
#define AVC_THREE    16u /* a boolean: 1, -1, 0 for not said */
#define AVC_INLINE   32u /* structs lie one behind another, each with its struct_size */

/* Where a parameter of a request goes. */
enum avc_place { AVC_BODY, AVC_PATH, AVC_QUERY, AVC_KEY, AVC_HOST_TOKEN };

struct avc_words {
	const char *const *items; /* of enum value 1, 2, ... */
	size_t n;
};

struct avc_field {
	const char *name; /* in JSON */
	enum avc_kind kind;
	enum avc_place place;
	unsigned flags;
	size_t at, more_at; /* offsets in the struct */
	const struct avc_words *words;
	const struct avc_model *model;
};

/* A kind of result; compared by address. */
struct avc_type {
	const char *name;
	void (*free)(void *result);
};

struct avc_model {
	struct avc_type type;
	size_t size;
	const struct avc_field *fields;
	size_t n_fields;
	size_t key;     /* 1 + the field that must be there; 0: none */
	bool of_caller; /* it begins with struct_size and may be shorter than we know it */
	bool is_array;  /* the document is what the first field holds */
};

/* All that can be the result of an operation or be parsed; for tests. */
extern const struct avc_model *const avc_models[];
extern const size_t avc_n_models;

/* ---- reading ---- */

#define AVC_JSON_NUL 1u /* strings may hold \u0000 */
#define AVC_JSON_ANY 2u /* not only an object or an array */

/* A new reference, or NULL with *ret_code (may be NULL) AVIARY_E_PROTOCOL when it is no JSON of an
 * object or array at most AV_JSON_TEXT_DEPTH deep, AVIARY_E_TOO_LARGE, AVIARY_E_NO_MEMORY. */
json_t *avc_json_load(struct av_str text, int *ret_code);
/* flags: AVC_JSON_*. */
json_t *avc_json_load_with(struct av_str text, unsigned flags, int *ret_code);
/* *ret: the struct, for avc_model_free. 0; AVIARY_E_PROTOCOL, AVIARY_E_TOO_LARGE or
 * AVIARY_E_NO_MEMORY with words in text. */
int avc_model_decode(
    const struct avc_model *m, const json_t *json, void **ret, char text[static AVC_MODEL_TEXT]);
/* Sets a member of kind AVC_TEXT after that, copied; 0 or a code. */
int avc_model_set_text(
    const struct avc_model *m, void *model, const char *member, const char *value);
/* A block of n bytes copied, with a NUL behind, for avc_model_free, begun by a struct of size bytes
 * that is zero. *ret_copy: where they are. NULL without memory. */
void *avc_model_new(size_t size, const void *p, size_t n, char **ret_copy);
/* NULL is fine. */
void avc_model_free(void *model);

/* ---- writing ---- */

/* Puts what base says of fields whose place is AVC_BODY into o. 0; AVIARY_E_INVALID with words in
 * text; AVIARY_E_NO_MEMORY. */
int avc_fields_encode(json_t *o, const struct avc_field *fields, size_t n, const void *base,
    char text[static AVC_MODEL_TEXT]);
/* The text of one that goes into a path or query: 0 and *ret, to be freed, NULL when it is not
 * said; codes as above. Not for lists. */
int avc_field_text(
    const struct avc_field *f, const void *base, char **ret, char text[static AVC_MODEL_TEXT]);
/* A copy of a struct of the caller's: zero where it is too short. AVIARY_E_INVALID without
 * struct_size. */
int avc_options_copy(void *dst, size_t size, const void *src, char text[static AVC_MODEL_TEXT]);
/* Compact text for free(); NULL without memory. json_dumps() may leave parts out then. */
char *avc_json_text(const json_t *json);
/* NULL without memory, or when something is not UTF-8. */
json_t *avc_model_encode(const struct avc_model *m, const void *model);
/* Compact text for free(); NULL likewise, and for NULL. */
char *avc_model_json(const struct avc_model *m, const void *model);

/* The word of an enum's value; "unknown". */
const char *avc_word(const struct avc_words *words, int value);
/* The value of a word; 0: none. */
int avc_word_find(const struct avc_words *words, const char *word);
