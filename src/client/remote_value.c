/* SPDX-License-Identifier: Apache-2.0 */
/*
 * remote_value.c - values of remote functions to bytes and back, their results, the local run
 */
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/avtime.h"
#include "client/remote.h"

#include "base/banned.h"

/* ---- bytes ---- */

int aviary_bytes_grow(aviary_bytes *b, size_t n, void **ret)
{
	size_t want, room = b->capacity ? b->capacity : 256;
	void *p;

	if (__builtin_add_overflow(b->size, n, &want) || want > SIZE_MAX / 4)
		return AVIARY_E_NO_MEMORY;
	if (want > b->capacity) {
		while (room < want)
			room *= 2;
		p = realloc(b->data, room);
		if (!p)
			return AVIARY_E_NO_MEMORY;
		b->data = p;
		b->capacity = room;
	}
	if (ret)
		*ret = b->data ? (char *)b->data + b->size : NULL;
	b->size = want;
	return 0;
}

int aviary_bytes_append(aviary_bytes *b, const void *data, size_t n)
{
	void *at;
	int r = aviary_bytes_grow(b, n, &at);

	if (r == 0 && n)
		memcpy(at, data, n);
	return r;
}

void aviary_bytes_clear(aviary_bytes *b)
{
	free(b->data);
	*b = (aviary_bytes){0};
}

int aviary_bytes_encode(const aviary_bytes *value, aviary_bytes *out)
{
	return aviary_bytes_append(out, value->data, value->size);
}

int aviary_bytes_decode(const void *data, size_t n, aviary_bytes *value)
{
	return aviary_bytes_append(value, data, n);
}

/* ---- values ---- */

/* Member by member: what lies between them is of whatever was there before. */
static int encode_plain(const aviary_codec *codec, const char *value, aviary_bytes *out)
{
	void *at = NULL;
	int r = aviary_bytes_grow(out, codec->size, &at);

	if (r < 0 || !at)
		return r;
	memset(at, 0, codec->size);
	for (size_t i = 0; i < codec->n_members; i++)
		memcpy((char *)at + codec->members[i].at, value + codec->members[i].at,
		    codec->members[i].size);
	return 0;
}

int avc_value_encode(
    const aviary_codec *codec, const void *value, size_t max, aviary_bytes *out, const char **why)
{
	int r = codec->encode ? codec->encode(value, out) : encode_plain(codec, value, out);

	*why = "its codec cannot encode it";
	if (r != 0)
		return r == AVIARY_E_NO_MEMORY ? r : AVIARY_E_INVALID;
	*why = NULL;
	return out->size > max ? AVIARY_E_TOO_LARGE : 0;
}

int avc_value_decode(
    const aviary_codec *codec, const void *data, size_t n, void **ret, const char **why)
{
	void *value;
	int r = 0;

	*why = "it has another size than its type";
	if (!codec->decode && n != codec->size)
		return AVIARY_E_INVALID;
	value = calloc(1, codec->size ? codec->size : 1);
	if (!value)
		return AVIARY_E_NO_MEMORY;
	if (codec->decode)
		r = codec->decode(data, n, value);
	else if (n)
		memcpy(value, data, n);
	if (r == 0) {
		*ret = value;
		return 0;
	}
	*why = "its codec cannot decode it";
	free(value);
	return r == AVIARY_E_NO_MEMORY ? r : AVIARY_E_INVALID;
}

void avc_value_free(const aviary_codec *codec, void *value)
{
	if (value && codec->clear)
		codec->clear(value);
	free(value);
}

static void add_layout(crypto_hash_sha256_state *st, const aviary_codec *codec)
{
	const uint64_t size = codec->size;
	const char *layout = codec->layout ? codec->layout : "";

	(void)crypto_hash_sha256_update(st, (const uint8_t *)&size, sizeof(size));
	(void)crypto_hash_sha256_update(st, (const uint8_t *)layout, strlen(layout) + 1);
}

uint64_t avc_function_layout(const aviary_function *fn)
{
	uint8_t hash[crypto_hash_sha256_BYTES];
	crypto_hash_sha256_state st;
	uint64_t ret;

	(void)crypto_hash_sha256_init(&st);
	add_layout(&st, fn->in);
	add_layout(&st, fn->out);
	(void)crypto_hash_sha256_final(&st, hash);
	memcpy(&ret, hash, sizeof(ret));
	return ret;
}

/* ---- results ---- */

struct avc_result *avc_result_new(const aviary_function *fn)
{
	struct avc_result *r = calloc(1, sizeof(*r));

	if (!r)
		return NULL;
	r->pub = (aviary_remote_result){.function = fn,
	    .out = "",
	    .err = "",
	    .error = {.retry_after_ms = -1,
	        .message = "",
	        .server_code = "",
	        .sandbox_id = "",
	        .request_id = "",
	        .path = ""}};
	return r;
}

static const char *keep(struct avc_result *r, size_t i, const char *text)
{
	free(r->texts[i]);
	r->texts[i] = text && *text ? av_str_dup(av_str_c(text)) : NULL;
	return r->texts[i] ? r->texts[i] : "";
}

void avc_result_fail(struct avc_result *r, const aviary_error *error)
{
	r->pub.error = *error;
	r->pub.error.message = keep(r, 0, error->message);
	r->pub.error.server_code = keep(r, 1, error->server_code);
	r->pub.error.sandbox_id = keep(r, 2, error->sandbox_id);
	r->pub.error.request_id = keep(r, 3, error->request_id);
	r->pub.error.path = keep(r, 4, error->path);
	if (!r->pub.error.message[0])
		r->pub.error.message = aviary_code_text(error->code);
}

void aviary_remote_result_free(aviary_remote_result *pub)
{
	struct avc_result *r = (struct avc_result *)pub;

	if (!r)
		return;
	avc_value_free(r->pub.function->out, r->value);
	for (size_t i = 0; i < AV_ARRAY_LEN(r->texts); i++)
		free(r->texts[i]);
	free(r->out);
	free(r->err);
	free(r);
}

int aviary_remote_move(aviary_remote_result *pub, const aviary_function *fn, void *out)
{
	struct avc_result *r = (struct avc_result *)pub;
	int code;

	if (!r)
		return AVIARY_E_NO_MEMORY;
	code = r->pub.error.code;
	if (code == 0 && (r->pub.function != fn || !r->value))
		code = AVIARY_E_INVALID;
	if (code == 0) {
		memcpy(out, r->value, fn->out->size);
		free(AV_TAKE_PTR(r->value));
	}
	aviary_remote_result_free(pub);
	return code;
}

/* ---- here ---- */

static void fail(struct avc_result *r, int code, const char *format, ...) AVIARY_PRINTF(3, 4);

static void fail(struct avc_result *r, int code, const char *format, ...)
{
	aviary_error e = r->pub.error;
	char text[512];
	va_list ap;

	va_start(ap, format);
	(void)vsnprintf(text, sizeof(text), format, ap);
	va_end(ap);
	e.code = code;
	e.message = text;
	avc_result_fail(r, &e);
}

/* What a failure to encode or decode is called; of is FUNCTION_ARGUMENT or FUNCTION_RESULT. */
static void fail_value(struct avc_result *r, int code, int of, const char *why)
{
	if (code == AVIARY_E_NO_MEMORY)
		fail(r, code, "out of memory");
	else if (code == AVIARY_E_TOO_LARGE)
		fail(r, of, "it is larger than %zu bytes", AVC_ARGUMENT_MAX);
	else
		fail(r, of, "%s", why);
}

static void call_here(struct avc_result *r, const aviary_bytes *argument)
{
	const aviary_function *fn = r->pub.function;
	aviary_bytes bytes = {0};
	const char *why = "";
	void *in = NULL, *out = calloc(1, fn->out->size ? fn->out->size : 1);
	int code = out ? avc_value_decode(fn->in, argument->data, argument->size, &in, &why)
	               : AVIARY_E_NO_MEMORY;

	if (code < 0) {
		fail_value(r, code, AVIARY_E_FUNCTION_ARGUMENT, why);
	} else if ((r->pub.returned = fn->call(in, out)) != 0) {
		fail(r, AVIARY_E_FUNCTION_FAILED, "%s returned %d", fn->name, r->pub.returned);
	} else if ((code = avc_value_encode(fn->out, out, AVC_ARGUMENT_MAX, &bytes, &why)) < 0 ||
	           (code = avc_value_decode(fn->out, bytes.data, bytes.size, &r->value, &why)) <
	               0) {
		fail_value(r, code, AVIARY_E_FUNCTION_RESULT, why);
	}
	r->pub.value = r->value;
	avc_value_free(fn->in, in);
	avc_value_free(fn->out, out);
	aviary_bytes_clear(&bytes);
}

aviary_remote_result *aviary_remote_local(const aviary_function *fn, const void *in)
{
	struct avc_result *r = avc_result_new(fn);
	int64_t began_ms = av_mono_ns() / AV_NS_PER_MS;
	aviary_bytes argument = {0};
	const char *why;
	int code;

	if (!r)
		return NULL;
	code = avc_value_encode(fn->in, in, AVC_ARGUMENT_MAX, &argument, &why);
	if (code < 0)
		fail_value(r, code, AVIARY_E_FUNCTION_ARGUMENT, why);
	else
		call_here(r, &argument);
	aviary_bytes_clear(&argument);
	r->pub.duration_ms = (av_mono_ns() / AV_NS_PER_MS) - began_ms;
	return &r->pub;
}
