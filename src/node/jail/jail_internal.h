/* SPDX-License-Identifier: Apache-2.0 */
/*
 * jail_internal.h - only for src/node/jail: the driver, and a request on its way to the worker
 */
#pragma once

#include <sys/un.h>

#include "base/list.h"
#include "base/macros.h"
#include "net/loop.h"
#include "node/driver.h"
#include "spawn/wire.h"

#define JAIL_PIPELINE_MAX (SPAWN_PIPELINE_MAX - 1)

struct jail_req {
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
	unsigned int pages;
};

struct jail {
	struct driver base;
	struct av_loop *loop;
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
	struct driver_stats stats;
	void (*on_closed)(void *ctx);
	void *on_closed_ctx;
};

/* What an errno of the worker, in answer to op, means to a user. In jail.c. */
enum av_err_kind jail_error_kind(uint32_t op, int eno);

/* The functions of driver.h, in jail_table.c. */
extern const struct driver_ops jail_table;

static inline struct jail *to_jail(struct driver *d)
{
	return AV_CONTAINER_OF(d, struct jail, base);
}
