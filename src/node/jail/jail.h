/* SPDX-License-Identifier: Apache-2.0 */
/*
 * jail.h - the driver for namespaces on the shared kernel: a client of the aviary-spawn worker
 */
#pragma once

#include "base/err.h"
#include "node/driver.h"

struct av_loop;

struct jail_config {
	struct av_loop *loop;
	const char *spawn_socket; /* the worker's seqpacket socket */
	const char *run_dir;      /* <run_dir>/<id>/agent.sock is a sandbox's agent */
};

/* Begins to connect, and goes on trying (also after the worker was started anew) until closed by
 * its close function, which also frees it. Strings are copied. */
int jail_driver_new(const struct jail_config *config, struct driver **ret, struct av_err *err);
