/* SPDX-License-Identifier: Apache-2.0 */
/*
 * github.h - the options with which people log in with GitHub
 */
#pragma once

#include "control/login.h"
#include "daemon/config.h"
#include "daemon/secret_file.h"

struct daemon_github {
	struct control_github config; /* borrows from the configuration and secret */
	char secret[SECRET_FILE_MAX + 2];
};

/* 1: configured; 0: not. INVALID naming the option that is missing or wrong. Blocks; for the start.
 */
int daemon_github_read(
    const struct daemon_config *c, struct daemon_github *ret, struct av_err *err);
void daemon_github_clear(struct daemon_github *g);
