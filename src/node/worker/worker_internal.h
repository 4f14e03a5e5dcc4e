/* SPDX-License-Identifier: Apache-2.0 */
/*
 * worker_internal.h - only for src/node/worker: the connection, and a request on its way
 */
#pragma once

#include <sys/un.h>

#include "base/list.h"
#include "base/macros.h"
#include "net/loop.h"
#include "node/worker/worker.h"
#include "spawn/wire.h"

#define WORKER_PIPELINE_MAX (SPAWN_PIPELINE_MAX - 1)

struct worker_req {
	struct av_list link;
	struct spawn_request wire;
	char boot_id[DRIVER_BOOT_ID_SIZE]; /* ADOPT: of the evidence */
	unsigned int tries;
	uint64_t since_ms; /* queued, then sent */
	int64_t queued_ns;
	union {
		driver_done_fn *done;
		driver_alive_fn *alive;
		driver_status_fn *status;
		driver_list_fn *list;
		driver_snapshot_fn *snapshot;
		driver_samples_fn *samples;
		driver_helper_fn *helper;
		driver_stream_fn *stream;
	} fn;
	void *ctx;
	char (*ids)[AV_ID_SIZE]; /* LIST: owned, gathered so far */
	size_t n_ids;
	bool with_vm; /* TEMPLATE_LIST: also what is virtual machines' own */
	unsigned int pages;
};

struct worker {
	struct av_loop *loop;
	void (*on_ready)(void *ctx);
	void *on_ready_ctx;
	char socket_path[sizeof(((struct sockaddr_un *)0)->sun_path)];
	char run_dir[64];
	int fd;
	struct av_watch *watch;
	bool ready;
	uint64_t hello_since_ms;
	uint32_t next_seq;
	unsigned int retry_ms;
	struct av_list waiting, sent;
	size_t n_sent;
	uint32_t tick; /* SAMPLEs so far */
	struct av_timer retry, check, again;
	struct av_defer pump;
	struct driver_caps caps;
	struct worker_vm vm;
	struct driver_stats stats;
	void (*on_closed)(void *ctx);
	void *on_closed_ctx;
};

/* What an errno of the worker, in answer to op, means to a user. In worker.c. */
enum av_err_kind worker_error_kind(uint32_t op, int eno);

/* ---- worker.c ---- */

/* Out of its list, and freed. */
void worker_req_free(struct worker_req *r);
/* Its owner hears err; then it is freed. */
void worker_req_fail(struct worker_req *r, const struct av_err *err);
/* Said again, before all that waits: it was asked for earlier. */
void worker_requeue(struct worker *w, struct worker_req *r);
/* "create the sandbox", …: what op does, for error messages. */
const char *worker_op_text(uint32_t op);

/* ---- replies.c ---- */

/* A reply to something that was sent, or to nothing; *fd came with it and is taken where it is
 * used. */
void worker_dispatch(struct worker *w, const struct spawn_reply *rep, int *fd);
