/* SPDX-License-Identifier: Apache-2.0 */
/*
 * env.h - builds the environment of a process: later values win
 */
#pragma once

#include <jansson.h>

#include "base/err.h"
#include "base/map.h"

#define ENV_VARS_MAX 8192

struct env {
	char **v; /* owned strings "KEY=VALUE", NULL-terminated */
	size_t n, cap;
	struct av_map index; /* key → position + 1 */
};

void env_init(struct env *e);
void env_clear(struct env *e);
/* -EINVAL: key empty or with '='; -E2BIG: more than ENV_VARS_MAX; -ENOMEM. */
int env_set(struct env *e, const char *key, const char *value);
/* Every member of an object of strings (NULL: nothing). AV_ERR_INVALID names the variable. */
int env_set_all(struct env *e, const json_t *vars, struct av_err *err);
