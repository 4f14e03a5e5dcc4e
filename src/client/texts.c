/* SPDX-License-Identifier: Apache-2.0 */
/*
 * texts.c - the JSON of a request, with a reason when it cannot be made (see texts.h)
 */
#include "client/texts.h"

#include "base/banned.h"

static void failed(struct avc_texts *t, int code, const char *what)
{
	if (t->code)
		return;
	t->code = code;
	t->what = what;
}

static json_t *make(struct avc_texts *t, const char *what, const char *text)
{
	if (av_utf8_valid(av_str_c(text)))
		return json_string(text);
	failed(t, AVIARY_E_INVALID, what);
	return NULL;
}

void avc_put(struct avc_texts *t, json_t *o, const char *name, json_t *value)
{
	if (json_object_set_new(o, name, value) < 0)
		failed(t, AVIARY_E_NO_MEMORY, "");
}

void avc_put_text(struct avc_texts *t, json_t *o, const char *name, const char *text)
{
	if (text)
		avc_put(t, o, name, make(t, name, text));
}

void avc_put_pair(
    struct avc_texts *t, json_t *o, const char *what, const char *name, const char *value)
{
	if (!av_utf8_valid(av_str_c(name)))
		failed(t, AVIARY_E_INVALID, what);
	else
		avc_put(t, o, name, make(t, what, value));
}

void avc_append_text(struct avc_texts *t, json_t *list, const char *what, const char *text)
{
	if (json_array_append_new(list, make(t, what, text)) < 0)
		failed(t, AVIARY_E_NO_MEMORY, "");
}
