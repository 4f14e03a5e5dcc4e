/* SPDX-License-Identifier: Apache-2.0 */
/*
 * places.h - where a daemon started by this user keeps its things (as aviaryd chooses by default)
 */
#pragma once

#include <stddef.h>

#include "base/macros.h"

/* Root: /var/lib/aviary; else $XDG_STATE_HOME/aviary or ~/.local/state/aviary. -ENOENT without a
 * home. */
int places_state(char *ret_path, size_t size) AV_MUST_CHECK;
/* Root: /run/aviary; else $XDG_RUNTIME_DIR/aviary, or "run" below the state directory. */
int places_run(const char *state, char *ret_path, size_t size) AV_MUST_CHECK;
/* aviary-spawn takes absolute paths only. */
int places_absolute(const char *path, char *ret, size_t size) AV_MUST_CHECK;
