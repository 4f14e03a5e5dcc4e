/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pictures.h - results of code that are no text: in the terminal where it can, else as files
 *
 * What comes is other people's: it reaches the terminal only as base64 made here, inside the
 * protocol's frame, and files only under names made here.
 */
#pragma once

#include <aviary/aviary.h>
#include <stdbool.h>

#include "base/err.h"
#include "cli/cli.h"

enum picture_way {
	PICTURES_FILES, /* into the directory */
	PICTURES_KITTY, /* the graphics protocol of kitty, Ghostty, WezTerm: PNG */
	PICTURES_ITERM, /* inline images of iTerm2 and those that do as it: PNG, JPEG */
	PICTURES_NONE,
};

struct pictures {
	enum picture_way way;
	char dir[256]; /* "": one is made when the first file needs it */
	unsigned n;    /* files so far */
};

/* By what the environment says of the terminal. dir: where files go, or NULL. */
void pictures_init(struct pictures *p, const struct cli *cli, const char *dir, bool none);
/* Shows the best picture among the shapes of a value, if there is any: 1 when one was shown, or
 * where it lies was printed; 0: there is only text; -errno and *err. */
int pictures_show(struct pictures *p, const aviary_code_value *value, struct av_err *err);
