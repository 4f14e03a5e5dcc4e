/* SPDX-License-Identifier: Apache-2.0 */
/*
 * worker.h - the daemon's connection to the worker of aviary-spawn, for the drivers that need it
 *
 * Requests as driver.h has them: each calls back exactly once, never from inside the call, and
 * returns 0 or -ENOMEM, in which case no callback comes. All on the loop thread. Every driver has a
 * connection of its own.
 */
#pragma once

#include "base/err.h"
#include "node/driver.h"
#include "spawn/wire.h"

struct av_loop;
struct worker;

struct worker_config {
	struct av_loop *loop;
	const char *spawn_socket;    /* the worker's seqpacket socket */
	const char *run_dir;         /* <run_dir>/<id>/ has the sockets of a sandbox */
	void (*on_ready)(void *ctx); /* each time the connection is up */
	void *ctx;
};

/* What the worker says about virtual machines. */
struct worker_vm {
	bool can, can_kvm;
	char no_vm[DRIVER_REASON_MAX], no_kvm[DRIVER_REASON_MAX]; /* why not; else empty */
	uint8_t environment[32]; /* changes with the programs that images are made with and by */
};

/* Begins to connect, and goes on trying (also after the worker was started anew) until closed.
 * Strings are copied. -EINVAL: a path that is too long for sockets. */
int worker_new(const struct worker_config *config, struct worker **ret, struct av_err *err);
/* Ends what is under way with CANCELED, then calls on_closed and is gone; from the loop. */
void worker_close(struct worker *w, void (*on_closed)(void *ctx), void *ctx);

bool worker_is_ready(const struct worker *w);
/* Valid while ready. */
const struct driver_caps *worker_caps(const struct worker *w);
const struct worker_vm *worker_vm(const struct worker *w);

/* CREATE of create->…; the evidence also tells the slot. */
int worker_create(struct worker *w, const char *id, const struct spawn_create *create,
    driver_alive_fn *fn, void *ctx);
/* The part of a spec that every isolation has. */
void worker_fill_create(struct spawn_create *dst, const struct driver_spec *spec);
int worker_destroy(struct worker *w, const char *id, driver_done_fn *fn, void *ctx);
int worker_freeze(struct worker *w, const char *id, driver_done_fn *fn, void *ctx);
int worker_thaw(struct worker *w, const char *id, driver_done_fn *fn, void *ctx);
int worker_adopt(struct worker *w, const char *id, const struct driver_evidence *ev,
    driver_alive_fn *fn, void *ctx);
int worker_inspect(struct worker *w, const char *id, driver_status_fn *fn, void *ctx);
int worker_list(struct worker *w, driver_list_fn *fn, void *ctx);
int worker_sample(struct worker *w, driver_samples_fn *fn, void *ctx);
void worker_stats(const struct worker *w, struct driver_stats *ret);
int worker_helper(struct worker *w, driver_helper_fn *fn, void *ctx);
/* flags: SPAWN_SNAPSHOT_*; save: with SPAWN_SNAPSHOT_VM, else 0. */
int worker_snapshot(struct worker *w, const char *id, const char *template_id, uint32_t flags,
    uint32_t save, driver_snapshot_fn *fn, void *ctx);
int worker_template_delete(
    struct worker *w, const char *template_id, driver_done_fn *fn, void *ctx);
/* with_vm: also the layers that virtual machines are made of (AV_ID_VM_LAYER). */
int worker_template_list(struct worker *w, bool with_vm, driver_list_fn *fn, void *ctx);
int worker_template_export(
    struct worker *w, const char *template_id, driver_stream_fn *fn, void *ctx);
/* As driver_ops.export_end. */
int worker_export_end(const void *bytes, struct av_err *err);

/* Connects a non-blocking socket of that type to <run_dir>/<id>/<name>; the caller owns it.
 * Synchronous, does not block. AGENT when nothing listens there or its queue is full; who says what
 * it belongs to, in the error's text. */
int worker_connect(const struct worker *w, const char *id, const char *name, int type,
    const char *who, int *ret_fd, struct av_err *err);
