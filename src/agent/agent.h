/* SPDX-License-Identifier: Apache-2.0 */
/*
 * agent.h - state of the whole agent: PID 1 of a sandbox
 *
 * Theory of operation
 *
 * One thread, one libuv loop. The daemon connects to the socket that the agent was born with (any
 * number of connections, any number of streams); every stream is one request (request.h), found in
 * routes.def. Processes (process.h) live independently of streams. File contents are read and
 * written on libuv's thread pool, which begins to exist with the first transfer.
 *
 * Trust: whoever can connect owns the sandbox, yet every byte is checked, as a bug of the daemon
 * must not become a broken PID 1. What is inside (/etc/passwd, files, processes) is hostile to the
 * agent.
 *
 * As PID 1 it reaps everything, also orphans it never started, and ends only by SIGTERM from
 * outside or with its sandbox. Memory: an idle agent holds the loop, one HTTP/2 session and little
 * else; all larger buffers are made on first use.
 */
#pragma once

#include <jansson.h>
#include <uv.h>

#include "agent/kernel.h"
#include "agent/process.h"
#include "agent/user.h"
#include "base/list.h"
#include "base/path.h"

#define AGENT_BODY_TOTAL_MAX                                                                       \
	((size_t)64 * 1024 * 1024) /* request bodies held in memory, all together */
#define AGENT_DEFAULT_PATH "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

struct server;

/* What POST /init last set. */
struct agent_settings {
	json_t *envs; /* owned; object of strings, or NULL */
	char user[AGENT_USER_NAME_MAX + 1];
	char workdir[AV_PATH_MAX + 1]; /* absolute, or empty: home of the user */
	uint64_t generation;           /* grows when one of them changes */
};

struct agent {
	uv_loop_t loop;
	struct process_table processes;
	struct kernel_table kernels;
	struct main_command *main; /* owned; NULL: there is none */
	struct server *server;     /* owned */
	struct agent_settings settings;
	const char *id;         /* sandbox id from argv; borrowed */
	uv_timer_t trim;        /* of memory.c */
	size_t body_bytes;      /* request bodies held now */
	size_t fsjobs;          /* file operations under way, see fsjob.h */
	struct av_list watches; /* of struct watch, see watch.h */
	size_t watches_n;
	uint64_t frozen_ms;     /* how long nothing ran here, in sum, as the daemon told */
	uint64_t cpu_seen_usec; /* of the last GET /metrics: processor time used, and when */
	int64_t cpu_seen_ns;
};
