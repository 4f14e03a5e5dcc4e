/* SPDX-License-Identifier: Apache-2.0 */
/*
 * layers.c - images and golden machines: which there are, who needs one, which go
 *
 * Theory of operation. A sandbox stands on a golden layer (a machine of its shape that stands
 * still, warmed up), which stands on an image (its template as a file system, kernel, initrd).
 * Their ids say what they were made of (names.h), so the worker's list of templates is all that has
 * to be known: it is asked once, before the first answer.
 *
 * Whoever wants a golden layer is put into `wants`. From the loop each is looked at:
 *
 *   golden is there ─────────────────────────────────────> on_layer
 *   only the image is: waits for the golden one to be made ─made──> on_layer
 *   neither is:        waits for the image ──made──> looked at again
 *
 * So there is one make for each id, however many want it, and its failure fails them all.
 *
 * KVM that is there need not run a guest: as long as no guest has run on it, golden machines are
 * tried there with a time limit, and when that fails, for those who waited and all to come, without
 * it. What is true is remembered as long as the daemon runs.
 *
 * A layer goes when its programs or its template are gone, when another base replaced it, and, of
 * golden ones, the longest unused when there are too many. Whether a sandbox or a snapshot stands
 * on it, the worker knows; what cannot go now is tried again.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/avtime.h"
#include "base/log.h"
#include "node/vm/vm_internal.h"

#include "base/banned.h"

#define COLLECT_MS 30000
/* Of golden machines' disks, which are empty: a disk that has to grow takes 35 ms of a start where
 * the machine is emulated. The large one is what a sandbox has without wishes. */
#define DISK_SMALL (256 * AV_MIB)
#define DISK_LARGE (5 * AV_GIB)

static struct vm_layer *find(const struct vm *v, const char *id)
{
	struct vm_layer *l;

	AV_LIST_FOREACH(l, &v->layers, struct vm_layer, link)
	if (strcmp(l->id, id) == 0)
		return l;
	return NULL;
}

static struct vm_layer *layer_new(struct vm *v, const char *id)
{
	struct vm_layer *l = find(v, id);

	if (l)
		return l;
	l = calloc(1, sizeof(*l));
	if (!l)
		return NULL;
	l->vm = v;
	if (av_str_copy(l->id, sizeof(l->id), av_str_c(id)) < 0)
		l->id[0] = '\0';
	av_list_append(&v->layers, &l->link);
	return l;
}

static void layer_free(struct vm_layer *l)
{
	av_list_remove(&l->link);
	free(l);
}

/* ---- answers ---- */

static void give(struct vm_want *w, struct vm_layer *l)
{
	av_list_remove(&w->link);
	l->users++;
	l->doomed = false;
	l->used_ns = av_mono_ns();
	w->on_layer(w, l, NULL);
}

static void refuse(struct vm_want *w, const struct av_err *err)
{
	av_list_remove(&w->link);
	w->on_layer(w, NULL, err);
}

static void refuse_all(struct av_list *wants, const struct av_err *err)
{
	struct vm_want *w;

	while ((w = AV_LIST_FIRST(wants, struct vm_want, link)))
		refuse(w, err);
}

/* Everybody in `from` is looked at again. */
static void look_again(struct vm *v, struct av_list *from)
{
	struct vm_want *w;

	while ((w = AV_LIST_FIRST(from, struct vm_want, link))) {
		av_list_remove(&w->link);
		av_list_append(&v->wants, &w->link);
	}
	av_timer_start(&v->serve, 0);
}

/* ---- removing ---- */

static void on_removed(void *ctx, const struct av_err *err)
{
	struct vm_layer *l = ctx;
	struct vm *v = l->vm;
	struct av_err why;

	l->removing = false;
	if (!err) {
		layer_free(l);
		av_timer_start(&v->collect, 0);
	} else if (l->bad) {
		(void)av_err_set(&why, AV_ERR_INVALID_STATE,
		    "the saved machine that sandboxes of this template start from is damaged, and "
		    "others still need it: delete those, then try again");
		refuse_all(&v->wants, &why);
	} else {
		l->used_ns = av_mono_ns(); /* something stands on it */
	}
	if (!av_list_empty(&v->wants))
		av_timer_start(&v->serve, 0);
}

static bool removable(const struct vm_layer *l)
{
	return l->users == 0 && !l->removing;
}

static void remove_layer(struct vm_layer *l)
{
	l->removing = worker_template_delete(l->vm->worker, l->id, on_removed, l) == 0;
}

/* The golden layer unused for longest; NULL while there are not too many. */
static struct vm_layer *surplus(const struct vm *v)
{
	struct vm_layer *l, *oldest = NULL;
	unsigned int n = 0;

	AV_LIST_FOREACH(l, &v->layers, struct vm_layer, link)
	{
		if (!vm_name_is_golden(l->id))
			continue;
		n++;
		if (removable(l) && (!oldest || l->used_ns < oldest->used_ns))
			oldest = l;
	}
	return n > v->goldens_max ? oldest : NULL;
}

static void on_collect(void *ctx)
{
	struct vm *v = ctx;
	struct vm_layer *l;
	bool doomed = false;

	if (!v->listed || !worker_is_ready(v->worker))
		return;
	AV_LIST_FOREACH(l, &v->layers, struct vm_layer, link)
	{
		doomed |= l->doomed;
		if (l->doomed && removable(l))
			remove_layer(l);
	}
	l = surplus(v);
	if (l)
		remove_layer(l);
	if (doomed || l)
		av_timer_start(&v->collect, COLLECT_MS);
}

void vm_layers_collect(struct vm *v)
{
	if (!v->on_closed)
		av_timer_start(&v->collect, 0);
}

void vm_layer_release(struct vm_layer *l)
{
	l->users--;
	vm_layers_collect(l->vm);
}

void vm_layer_spoil(struct vm_layer *l)
{
	l->bad = l->doomed = true;
}

void vm_layers_template_gone(struct vm *v, const char *template_id)
{
	struct vm_layer *l;

	AV_LIST_FOREACH(l, &v->layers, struct vm_layer, link)
	l->doomed |= vm_name_same_template(l->id, template_id);
	vm_layers_collect(v);
}

/* ---- what there is ---- */

static bool has_template(const char *layer, const char (*ids)[AV_ID_SIZE], size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (av_id_valid(av_str_c(ids[i]), AV_ID_TEMPLATE) &&
		    vm_name_same_template(layer, ids[i]))
			return true;
	return false;
}

static void on_list(void *ctx, const char (*ids)[AV_ID_SIZE], size_t n, const struct av_err *err)
{
	struct vm *v = ctx;
	const struct worker_vm *what = worker_vm(v->worker);
	struct vm_layer *l;

	v->listing = false;
	if (err) {
		refuse_all(&v->wants, err);
		return;
	}
	for (size_t i = 0; i < n; i++) {
		if (!av_id_valid(av_str_c(ids[i]), AV_ID_VM_LAYER))
			continue;
		l = layer_new(v, ids[i]);
		if (l && what->can)
			l->doomed = !vm_name_same_environment(l->id, what->environment) ||
			            !has_template(l->id, ids, n);
	}
	v->listed = true;
	av_timer_start(&v->serve, 0);
	vm_layers_collect(v);
}

static void list(struct vm *v)
{
	struct av_err err;

	if (v->listing)
		return;
	v->listing = worker_template_list(v->worker, true, on_list, v) == 0;
	if (!v->listing) {
		(void)av_err_set(&err, AV_ERR_NO_MEMORY, "out of memory");
		refuse_all(&v->wants, &err);
	}
}

/* ---- wants ---- */

static uint32_t choose_accel(const struct vm *v)
{
	if (!worker_vm(v->worker)->can_kvm)
		return VM_ACCEL_TCG;
	return v->accel ? v->accel : VM_ACCEL_KVM;
}

static struct vm_make *make_find(const struct vm *v, const char *id)
{
	struct vm_make *m;

	AV_LIST_FOREACH(m, &v->makes, struct vm_make, link)
	if (strcmp(m->id, id) == 0)
		return m;
	return NULL;
}

/* It waits until `id` is made. */
static void have_made(struct vm *v, struct vm_want *w, const char *id, struct vm_layer *image,
    const struct vm_shape *shape)
{
	struct vm_make *m = make_find(v, id);
	struct av_err err;

	if (!m)
		m = vm_make_new(v, id, w->spec, image, shape);
	if (!m) {
		(void)av_err_set(&err, AV_ERR_NO_MEMORY, "out of memory");
		refuse(w, &err);
		return;
	}
	av_list_remove(&w->link);
	av_list_append(&m->waiters, &w->link);
	vm_makes_run(v);
}

/* True: it is there and can be used. False: it is on its way out; w stays where it is. */
static bool usable(struct vm_layer *l)
{
	if (l->bad && removable(l))
		remove_layer(l);
	return !l->bad && !l->removing;
}

static void serve(struct vm *v, struct vm_want *w)
{
	struct vm_shape shape = {
	    .vcpus = vm_spec_vcpus(v, w->spec),
	    .accel = choose_accel(v),
	    .memory_bytes = w->spec->memory_bytes,
	    .disk_bytes = w->spec->disk_bytes < DISK_LARGE ? DISK_SMALL : DISK_LARGE,
	};
	char image_id[AV_ID_SIZE], id[AV_ID_SIZE];
	struct vm_layer *image, *golden;

	if (shape.accel == VM_ACCEL_KVM)
		memcpy(shape.cpu, v->cpu, sizeof(shape.cpu));
	w->accel = shape.accel;
	vm_name_image(image_id, worker_vm(v->worker)->environment, w->spec);
	vm_name_golden(id, image_id, &shape);
	golden = find(v, id);
	if (golden) {
		if (usable(golden))
			give(w, golden);
		return;
	}
	image = find(v, image_id);
	if (!image)
		have_made(v, w, image_id, NULL, NULL);
	else if (usable(image))
		have_made(v, w, id, image, &shape);
}

static void on_serve(void *ctx)
{
	struct vm *v = ctx;
	struct av_list now;
	struct vm_want *w;
	struct av_err err;

	if (!v->listed || !worker_is_ready(v->worker)) {
		v->listed = false;
		list(v);
		return;
	}
	if (av_list_empty(&v->wants))
		return;
	if (!worker_vm(v->worker)->can) {
		(void)av_err_set(&err, AV_ERR_UNSUPPORTED,
		    "this machine cannot have virtual machines: %s", worker_vm(v->worker)->no_vm);
		refuse_all(&v->wants, &err);
		return;
	}
	av_list_init(&now);
	while ((w = AV_LIST_FIRST(&v->wants, struct vm_want, link))) {
		av_list_remove(&w->link);
		av_list_append(&now, &w->link);
	}
	while ((w = AV_LIST_FIRST(&now, struct vm_want, link))) {
		av_list_remove(&w->link);
		av_list_append(&v->wants, &w->link);
		serve(v, w);
	}
}

void vm_layers_want(struct vm *v, struct vm_want *w)
{
	av_list_init(&w->link);
	av_list_append(&v->wants, &w->link);
	av_timer_start(&v->serve, 0);
}

void vm_want_cancel(struct vm_want *w)
{
	if (w->link.next)
		av_list_remove(&w->link);
}

/* ---- what was made ---- */

/* Of "cannot start the virtual machine: starting QEMU: QEMU crashed (signal 6): its words" what is
 * for people; the rest is for the log. */
static struct av_str for_people(const char *message)
{
	const char *begin = strstr(message, ": QEMU "), *end;

	begin = begin ? begin + 2 : message;
	end = begin > message ? strstr(begin, ": ") : NULL;
	return av_str_n(begin, end ? (size_t)(end - begin) : strlen(begin));
}

/* KVM does not run a guest here: those who waited have it without. */
static bool falls_back(struct vm_make *m, const struct av_err *err)
{
	struct vm *v = m->vm;

	if (!m->probes || err->kind == AV_ERR_NO_SPACE || err->kind == AV_ERR_NO_MEMORY ||
	    err->kind == AV_ERR_CANCELED || err->kind == AV_ERR_UNAVAILABLE)
		return false;
	if (v->accel == 0) {
		struct av_str why = for_people(err->message);

		(void)snprintf(v->why_tcg, sizeof(v->why_tcg),
		    "/dev/kvm is there but runs no guest: %.*s", (int)AV_MIN(why.n, 150U), why.p);
		v->accel = VM_ACCEL_TCG;
		av_log(AV_LOG_WARN, "virtual machines are emulated: KVM runs no guest", "error",
		    err->message, NULL);
	}
	return v->accel == VM_ACCEL_TCG;
}

/* What the new image replaces. */
static void doom_outdated(struct vm *v, const char *image_id)
{
	struct vm_layer *l;

	AV_LIST_FOREACH(l, &v->layers, struct vm_layer, link)
	l->doomed |= vm_name_is_outdated(l->id, image_id);
	vm_layers_collect(v);
}

/* Those who waited hear why. */
static void not_made(struct vm_make *m, const struct av_err *err)
{
	struct av_err why = *err;

	av_err_prefix(&why, "cannot make %s of template %s",
	    m->image ? "a machine to start others from" : "a virtual machine's image",
	    m->spec.template_id);
	if (err->kind != AV_ERR_CANCELED)
		av_log(AV_LOG_WARN, "a virtual machine's files were not made", "layer", m->id,
		    "error", why.message, NULL);
	refuse_all(&m->waiters, &why);
}

void vm_layers_made(struct vm_make *m, const struct av_err *err)
{
	struct vm *v = m->vm;
	struct vm_layer *l = err ? NULL : layer_new(v, m->id);
	struct av_err no_memory;
	struct vm_want *w;

	if (!err)
		av_log(AV_LOG_INFO,
		    m->image ? "made a machine to start others from"
		             : "made a virtual machine's image",
		    "template", m->spec.template_id, "layer", m->id, NULL);

	if (!err && !l) {
		(void)av_err_set(&no_memory, AV_ERR_NO_MEMORY, "out of memory");
		err = &no_memory;
	}
	if (err && falls_back(m, err)) {
		look_again(v, &m->waiters);
	} else if (err) {
		not_made(m, err);
	} else if (!m->image) {
		doom_outdated(v, m->id);
		look_again(v, &m->waiters);
	} else {
		if (m->probes)
			v->accel = VM_ACCEL_KVM;
		while ((w = AV_LIST_FIRST(&m->waiters, struct vm_want, link)))
			give(w, l);
		vm_layers_collect(v);
	}
	vm_make_free(m);
	vm_makes_run(v);
}

void vm_layers_clear(struct vm *v, const struct av_err *why)
{
	struct vm_make *m;
	struct vm_layer *l;

	refuse_all(&v->wants, why);
	while ((m = AV_LIST_FIRST(&v->makes, struct vm_make, link))) {
		refuse_all(&m->waiters, why);
		vm_make_free(m);
	}
	while ((l = AV_LIST_FIRST(&v->layers, struct vm_layer, link)))
		layer_free(l);
	av_timer_stop(&v->serve);
	av_timer_stop(&v->collect);
}

void vm_layers_init(struct vm *v)
{
	av_list_init(&v->wants);
	av_list_init(&v->layers);
	av_list_init(&v->makes);
	av_timer_init(&v->serve, v->loop, on_serve, v);
	av_timer_init(&v->collect, v->loop, on_collect, v);
	vm_name_cpu(v->cpu);
}
