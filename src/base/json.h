/* SPDX-License-Identifier: Apache-2.0 */
/*
 * json.h - reading foreign JSON with errors that name the field, writing JSON into buffers
 *
 * Over jansson. Foreign documents are parsed with duplicate keys refused and at most AV_JSON_DEPTH
 * levels. Every getter: absent or null leaves *ret as it was and returns 0 (so initialise it with
 * the default); a wrong type or range is AV_ERR_INVALID naming field, value and what is allowed.
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/jsontext.h"
#include "base/str.h"

#define AV_JSON_DEPTH 64

/* AV_CLEANUP(av_json_decrefp) json_t *j = NULL; */
void av_json_decrefp(json_t **j);

/* A new reference to the object in s, or NULL with *err set (position and reason). The top level
 * must be an object. Invalid UTF-8, NUL in strings or keys, NaN, depth, duplicates: refused. */
json_t *av_json_parse_object(struct av_str s, struct av_err *err);

int av_json_get_str(const json_t *obj, const char *field, const char **ret, struct av_err *err);
int av_json_get_i64(const json_t *obj, const char *field, int64_t min, int64_t max, int64_t *ret,
    struct av_err *err);
int av_json_get_bool(const json_t *obj, const char *field, bool *ret, struct av_err *err);
/* Seconds, integer or fraction, to milliseconds; max_ms bounds it. */
int av_json_get_seconds_ms(
    const json_t *obj, const char *field, int64_t max_ms, int64_t *ret_ms, struct av_err *err);
/* Borrowed references; *ret stays as it was when absent. */
int av_json_get_object(
    const json_t *obj, const char *field, const json_t **ret, struct av_err *err);
int av_json_get_array(
    const json_t *obj, const char *field, size_t max_items, const json_t **ret, struct av_err *err);
/* An object whose values are all strings without NUL (environment, metadata). */
int av_json_get_str_map(
    const json_t *obj, const char *field, size_t max_items, const json_t **ret, struct av_err *err);
/* An array whose items are all strings without NUL. */
int av_json_get_str_array(
    const json_t *obj, const char *field, size_t max_items, const json_t **ret, struct av_err *err);

/* Appends json_dumps(flags compact, keys in insertion order). */
int av_json_dump(struct av_buf *out, const json_t *j);
