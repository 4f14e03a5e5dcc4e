/* SPDX-License-Identifier: Apache-2.0 */
/*
 * spawn_client.h - a real aviary-spawn in scratch directories, driven over wire.h
 *
 * For tests and benchmarks; failures end the test with a message.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "base/ids.h"
#include "spawn/wire.h"

struct spawn_client {
	char dir[64]; /* scratch, below TMPDIR or /tmp; state and run below it */
	char state[80], run[80];
	pid_t supervisor;
	int sock; /* -1: not connected */
	unsigned int seq;
};

/* Starts the supervisor with --no-daemon and the stub agent; options: more arguments, NULL-ended,
 * may be NULL. Waits for HELLO. */
void spawn_client_start(struct spawn_client *c, const char *const *options);
/* Starts it again in the same directories (after the supervisor died). */
void spawn_client_restart(struct spawn_client *c, const char *const *options);
/* Connects (again); waits up to five seconds for a worker. */
void spawn_client_connect(struct spawn_client *c);
/* SIGTERM, and removes the scratch directory. Sandboxes must be gone. */
void spawn_client_stop(struct spawn_client *c);

/* One request, its reply; *ret_fd (may be NULL) gets the passed descriptor or -1. False when the
 * worker died instead of answering. */
bool spawn_client_call(
    struct spawn_client *c, struct spawn_request *q, struct spawn_reply *ret, int *ret_fd);
/* The two halves, for pipelining. */
bool spawn_client_send(struct spawn_client *c, struct spawn_request *q);
bool spawn_client_receive(struct spawn_client *c, struct spawn_reply *ret, int *ret_fd);

/* CREATE with a new id and modest limits, ready to change. */
void spawn_client_create_request(struct spawn_request *q);
/* errno of the reply, or ECONNRESET. */
int spawn_client_op(struct spawn_client *c, enum spawn_op op, const char *id);
/* Runs a shell script in the sandbox (stub agent); its output into out, NUL-terminated. */
void spawn_client_shell(
    struct spawn_client *c, const char *id, const char *script, char *out, size_t size);
/* Number of sandboxes that LIST names. */
unsigned int spawn_client_count(struct spawn_client *c);
/* The worker's pid: the supervisor's only child. */
pid_t spawn_client_worker(const struct spawn_client *c);
