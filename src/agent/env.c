/* SPDX-License-Identifier: Apache-2.0 */
/*
 * env.c - builds the environment of a process: later values win
 */
#include "agent/env.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>

#include "base/json.h"

#include "base/banned.h"

void env_init(struct env *e)
{
	*e = (struct env){0};
	av_map_init(&e->index);
}

void env_clear(struct env *e)
{
	for (size_t i = 0; i < e->n; i++)
		free(e->v[i]);
	free(e->v);
	av_map_clear(&e->index);
	env_init(e);
}

static int grow(struct env *e)
{
	size_t cap = e->cap ? e->cap * 2 : 32;
	char **v;

	if (e->n + 1 < e->cap)
		return 0;
	v = reallocarray(e->v, cap, sizeof(*v));
	if (!v)
		return -ENOMEM;
	e->v = v;
	e->cap = cap;
	return 0;
}

/* "KEY=VALUE" on the heap. */
static char *join(struct av_str key, struct av_str value)
{
	char *s = malloc(key.n + value.n + 2);

	if (!s)
		return NULL;
	memcpy(s, key.p, key.n);
	s[key.n] = '=';
	memcpy(s + key.n + 1, value.p, value.n);
	s[key.n + 1 + value.n] = '\0';
	return s;
}

int env_set(struct env *e, const char *key, const char *value)
{
	struct av_str k = av_str_c(key);
	char *s, *old;
	size_t at;
	int r;

	if (k.n == 0 || av_str_chr(k, '=') >= 0)
		return -EINVAL;
	if (e->n >= ENV_VARS_MAX)
		return -E2BIG;
	r = grow(e);
	if (r < 0)
		return r;
	s = join(k, av_str_c(value));
	if (!s)
		return -ENOMEM;
	/* The index borrows its keys from the strings, so the old one goes before its string does.
	 */
	at = (size_t)(uintptr_t)av_map_remove(&e->index, k);
	at = at ? at - 1 : e->n;
	r = av_map_put(&e->index, av_str_n(s, k.n), (void *)(uintptr_t)(at + 1));
	if (r < 0) {
		free(s);
		return r;
	}
	old = at < e->n ? e->v[at] : NULL;
	e->v[at] = s;
	if (!old)
		e->v[++e->n] = NULL;
	free(old);
	return 0;
}

int env_set_all(struct env *e, const json_t *vars, struct av_err *err)
{
	const char *key;
	json_t *value;
	/* jansson's iterators take no const, but do not change the object. */
	json_t *obj = (json_t *)(uintptr_t)vars;

	json_object_foreach (obj, key, value) {
		int r = env_set(e, key, json_string_value(value));

		if (r == -EINVAL)
			return av_err_set(err, AV_ERR_INVALID,
			    "environment variable name '%s' is empty or contains '='", key);
		if (r == -E2BIG)
			return av_err_set(err, AV_ERR_TOO_LARGE,
			    "more than %d environment variables", ENV_VARS_MAX);
		if (r < 0)
			return av_err_sys(err, AV_ERR_NO_MEMORY, r, "environment");
	}
	return 0;
}
