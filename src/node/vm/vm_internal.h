/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vm_internal.h - only for src/node/vm: the driver, its layers, its sandboxes
 *
 * Who knows whom: vm.c (the driver's table) and box.c (a sandbox) ask layers.c for a golden layer;
 * layers.c has make.c make what is not there; all of them speak to the worker (node/worker) and,
 * by call.c, to the aviary-vm of a sandbox.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/list.h"
#include "base/map.h"
#include "net/loop.h"
#include "node/driver.h"
#include "node/vm/call.h"
#include "node/vm/names.h"
#include "node/worker/worker.h"

/* How long aviary-vm may be silent (vm_config), and how long a request may take. */
#define SILENCE_MS      20000
#define IMAGE_MS        1800000
#define GOLDEN_MS       600000
#define GOLDEN_PROBE_MS 90000  /* the first one on KVM: does a guest kernel run at all? */
#define RESTORE_MS      600000 /* where all that is on the guest's disk has to be copied */
#define SAVE_MS         600000
#define STATUS_MS       20000

/* What QEMU and aviary-vm need beside the guest's memory, and what their files need beside its
 * disk: the jail's limits are the sum. Seen with QEMU 7.2: 25 MiB of its own, translated code of at
 * most 32 MiB, buffers of disk and network while they are busy. */
#define OVERHEAD_KVM_BYTES (96ULL << 20)
#define OVERHEAD_TCG_BYTES (128ULL << 20)
#define MAKE_MEMORY_BYTES  (512ULL << 20) /* packing a template */
#define IMAGE_DISK_BYTES   (32ULL << 30)
#define GOLDEN_DISK_BYTES  (512ULL << 20)
#define DISK_SLACK_BYTES   (128ULL << 20)
#define JAIL_PIDS          256 /* threads of QEMU */
#define MEMORY_STEP_BYTES  (2ULL << 20)
#define MEMORY_MIN_BYTES   (128ULL << 20)

struct vm;
struct vm_make;

/* ---- layers.c: images and golden machines, on the disk and wanted ---- */

/* One that is there. */
struct vm_layer {
	struct av_list link;
	struct vm *vm;
	char id[AV_ID_SIZE];
	unsigned int users; /* creates and makes under way that stand on it */
	int64_t used_ns;    /* 0: not since the daemon runs */
	bool doomed;        /* goes as soon as nothing stands on it */
	bool bad;           /* and must not be used meanwhile */
	bool removing;
};

/* Somebody who needs a golden layer; part of its owner. */
struct vm_want {
	struct av_list link;            /* in vm.wants, or a make's waiters */
	const struct driver_spec *spec; /* borrowed */
	/* The layer is there, and its `users` counts the owner until vm_layer_release. NULL with
	 * err. Never from inside vm_layers_want. */
	void (*on_layer)(struct vm_want *w, struct vm_layer *l, const struct av_err *err);
	uint32_t accel; /* enum vm_accel: what was chosen */
};

/* w stays the caller's, with spec and on_layer set. */
void vm_layers_want(struct vm *v, struct vm_want *w);
/* No callback comes after this. What is being made goes on: the next one has it then. */
void vm_want_cancel(struct vm_want *w);
void vm_layer_release(struct vm_layer *l);
/* It is damaged, or gone behind our back: it is made anew for the next one who wants it. */
void vm_layer_spoil(struct vm_layer *l);

/* A layer was made, or not. Takes m. */
void vm_layers_made(struct vm_make *m, const struct av_err *err);
void vm_layers_template_gone(struct vm *v, const char *template_id);
/* Somebody let go of something: what is doomed or too much may be removable now. */
void vm_layers_collect(struct vm *v);
/* The worker's connection is closed: everything ends with why. */
void vm_layers_clear(struct vm *v, const struct av_err *why);
void vm_layers_init(struct vm *v);

/* ---- make.c: making a layer ---- */

struct vm_make {
	struct av_list link; /* vm.makes */
	struct vm *vm;
	char id[AV_ID_SIZE];    /* of the layer */
	struct vm_layer *image; /* of a golden one, held; NULL: this makes an image */
	struct driver_spec spec;
	struct vm_shape shape; /* of a golden one */
	bool probes;           /* the first golden one on KVM */
	bool running;
	char jail_id[AV_ID_SIZE];
	struct vm_call call;
	struct av_list waiters; /* struct vm_want */
	int64_t since_ns;
	unsigned int percent;
	char stage[DRIVER_STAGE_MAX];
};

/* image NULL: an image for spec; else a golden machine on it, for accel. Holds image. NULL without
 * memory. */
struct vm_make *vm_make_new(struct vm *v, const char *id, const struct driver_spec *spec,
    struct vm_layer *image, const struct vm_shape *shape);
void vm_make_free(struct vm_make *m);
/* Begins with those that wait for it, as many as are made at once; each ends in vm_layers_made. */
void vm_makes_run(struct vm *v);

/* ---- box.c: one sandbox, made or adopted ---- */

enum vm_box_state { BOX_WAITING, BOX_CREATING, BOX_STARTING, BOX_ADOPTING, BOX_UP, BOX_ENDED };

struct vm_box_op;

struct vm_box {
	struct av_list link; /* vm.boxes; in vm.by_id until it ends */
	char id[AV_ID_SIZE];
	struct vm *vm;
	enum vm_box_state state;
	bool at_worker; /* CREATE or ADOPT is under way: its answer needs the box */
	bool paused, held, remade;
	struct driver_spec spec; /* of create */
	struct vm_want want;
	struct vm_layer *layer; /* held until the worker has made the jail */
	uint32_t accel;
	struct driver_evidence evidence;
	int pidfd;
	struct vm_call call;
	uint64_t memory_bytes;
	uint32_t vcpus;
	unsigned int looks; /* for a worker, or at a busy one */
	struct av_timer next;
	driver_alive_fn *alive; /* create or adopt; NULL: answered */
	void *alive_ctx;
	struct av_list ops;  /* struct vm_box_op; the first is under way */
	struct av_err ended; /* why */
	char broken[64];     /* what it did; empty: it works */
};

/* -ENOMEM */
int vm_box_create(struct vm *v, const struct driver_spec *spec, driver_alive_fn *fn, void *ctx);
int vm_box_adopt(
    struct vm *v, const char *id, const struct driver_evidence *ev, driver_alive_fn *fn, void *ctx);
struct vm_box *vm_box_find(const struct vm *v, const char *id);
/* Everything under way about it ends with err, from the loop; nobody finds it any more. What was
 * made is not touched. */
void vm_box_end(struct vm_box *b, const struct av_err *err);
/* Its machine cannot be talked to any more: it is destroyed, and dies with that reason. */
void vm_box_break(struct vm_box *b, const char *why);
/* At once; the worker's connection is closed. */
void vm_boxes_clear(struct vm *v, const struct av_err *why);

/* ---- ops.c: what is asked of a living sandbox ---- */

enum vm_op_kind { OP_FREEZE, OP_THAW, OP_HOLD, OP_TAKE, OP_SNAPSHOT, OP_DESTROY };

/* One at a time, in order. */
struct vm_box_op {
	struct av_list link;
	struct vm_box *box; /* NULL: it is gone, and the asker has an answer */
	struct vm *vm;
	enum vm_op_kind kind;
	union {
		driver_done_fn *done;
		driver_snapshot_fn *snapshot;
	} fn;
	void *ctx;
	char template_id[DRIVER_TEMPLATE_MAX]; /* SNAPSHOT */
	bool stop;
	bool running;
	uint32_t asked;      /* enum vm_op: what aviary-vm is asked; 0: nothing */
	bool at_worker;      /* its answer needs the op */
	uint32_t save;       /* to be dropped */
	unsigned int looks;  /* at a busy machine */
	uint32_t stopped_us; /* for it */
	bool has_snapshot;
	struct driver_snapshot snapshot;
	struct av_err err;
};

/* All -ENOMEM. */
int vm_op_ask(struct vm *v, const char *id, enum vm_op_kind kind, driver_done_fn *fn, void *ctx);
int vm_op_snapshot(struct vm *v, const char *id, const char *template_id, bool stop,
    driver_snapshot_fn *fn, void *ctx);
int vm_op_destroy(struct vm *v, const char *id, driver_done_fn *fn, void *ctx);
/* Begins with the first, if none is under way. */
void vm_ops_run(struct vm_box *b);
/* The answer of the box's call. */
void vm_ops_answered(struct vm_box *b, const struct vm_reply *rep, const struct av_err *err);
/* All of them end with err. */
void vm_ops_fail(struct vm_box *b, const struct av_err *err);

/* ---- inspect.c ---- */

/* As driver_ops.inspect. */
int vm_inspect(struct driver *d, const char *id, driver_status_fn *fn, void *ctx);
/* Those that still wait for a machine end with err. */
void vm_inspections_clear(struct vm *v, const struct av_err *err);

/* ---- vm.c ---- */

struct vm {
	struct driver base;
	struct av_loop *loop;
	struct worker *worker; /* owned */
	struct driver_caps caps;
	unsigned int goldens_max;
	uint32_t silence_ms;
	uint32_t accel; /* enum vm_accel, once a guest has run on it; 0: not known yet */
	char why_tcg[DRIVER_REASON_MAX];
	uint8_t cpu[16];
	struct av_map by_id; /* struct vm_box */
	struct av_list boxes;
	struct av_list inspections; /* that ask a machine */
	bool listed, listing;       /* layers is what there is */
	struct av_list wants;       /* struct vm_want, to be looked at */
	struct av_list layers;      /* struct vm_layer */
	struct av_list makes;       /* struct vm_make */
	struct av_timer serve, collect;
	void (*on_closed)(void *ctx);
	void *on_closed_ctx;
};

/* Processors that a spec asks for. */
uint32_t vm_spec_vcpus(const struct vm *v, const struct driver_spec *spec);
uint64_t vm_overhead(uint32_t accel);
/* Who the guest is. */
void vm_fill_identity(struct vm_identity *dst, const struct driver_spec *spec, uint32_t slot);
