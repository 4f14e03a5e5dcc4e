/* SPDX-License-Identifier: Apache-2.0 */
/*
 * snapshot.c - a sandbox's disk becomes a layer of a new template
 *
 * Theory of operation. The sandbox is frozen or dead while its disk is taken. In the btrfs image
 * that is one ioctl; elsewhere the upper directories are copied (blocks shared where the file
 * system can). A forked child does it, and the checksum, into templates/new-<id>; what it does last
 * is to rename that to templates/<id>. The worker goes on meanwhile.
 *
 * Of a virtual machine only its image or its saves become a layer (vm_layer.h), copied file by file
 * in every case; and a save that aviary-vm says is complete is taken while the machine goes on.
 *
 * A DESTROY of the sandbox kills the child, unless the sandbox was to be killed anyway. Whoever
 * dies, what has no final name is removed: by on_taken() here, or by template_sweep() of the next
 * worker.
 *
 * Failpoints: snapshot.begin snapshot.frozen (worker), snapshot.taken snapshot.summed
 * snapshot.written snapshot.renamed (child), snapshot.done (worker).
 */
#include "spawn/sandbox.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/avtime.h"
#include "base/failpoint.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/path.h"
#include "spawn/vm_layer.h"
#include "base/banned.h"

#define FREEZE_TIMEOUT_MS 2000
#define LINKS_DIR         LAYER_LINKS_DIR
#define OPEN_DIR          (O_RDONLY | O_DIRECTORY)

struct snapshot {
	struct sandbox *s;
	struct chore chore;
	struct template_meta meta; /* what is known before */
	int area;                  /* owned */
	uint32_t save;             /* the one that is taken of a running machine; 0: all */
	bool thaw;
	int64_t frozen_ns;
};

static struct job *current(struct sandbox *s)
{
	struct job *j = AV_LIST_FIRST(&s->jobs, struct job, node);
	assert(j);
	return j;
}

/* ---- in the child ---- */

static int has_room(void *ctx)
{
	return disk_check_space(ctx, NULL);
}

static int fail_here(const char *name, struct av_err *err)
{
	return av_failpoint(name) ? av_err_set(err, AV_ERR_INTERNAL, "failpoint %s", name) : 0;
}

static bool lies_in_image(const struct sandbox *s)
{
	const struct spawner *sp = s->sp;
	/* A snapshot of an area takes ids as they are on the disk. */
	return disk_mode(sp->disk) == DISK_MODE_BTRFS &&
	       (s->is_vm || !sp->mounts.native_upper || sp->ids.shared);
}

/* from: the directory that holds both uppers. */
static int copy_half(struct snapshot *n, int from, int layer, int links, const char *name)
{
	const struct spawner *sp = n->s->sp;
	bool native = sp->mounts.native_upper;
	const struct layer_copy_options opt = {
	    .rootless = sp->mounts.rootless,
	    .user_xattr = sp->mounts.rootless,
	    .ids_from = native ? ids_base(&sp->ids, n->s->slot) : 0,
	    .ids_to = sp->templates.id_base,
	    .room = has_room,
	    .ctx = sp->disk,
	};
	AV_CLEANUP(av_closep) int in = layer_open(from, name, OPEN_DIR);
	if (in < 0 || mkdirat(layer, name, 0700) < 0)
		return in < 0 ? in : -errno;
	AV_CLEANUP(av_closep) int out = layer_open(layer, name, OPEN_DIR);
	return out < 0 ? out : layer_copy(in, out, links, &opt);
}

static int copy_layer(struct snapshot *n, int dir)
{
	if (mkdirat(dir, TEMPLATE_LAYER_DIR, 0700) < 0 || mkdirat(dir, LINKS_DIR, 0700) < 0)
		return -errno;
	AV_CLEANUP(av_closep) int from = layer_open(n->area, "fs", OPEN_DIR);
	AV_CLEANUP(av_closep) int layer = layer_open(dir, TEMPLATE_LAYER_DIR, OPEN_DIR);
	AV_CLEANUP(av_closep) int links = layer_open(dir, LINKS_DIR, OPEN_DIR);
	if (from < 0 || layer < 0 || links < 0)
		return -EIO;
	int r = copy_half(n, from, layer, links, "root");
	if (r == 0 && (n->meta.flags & TEMPLATE_ON_HOST))
		r = copy_half(n, from, layer, links, "usr");
	if (r == 0)
		r = layer_remove_links(dir, links);
	return r == 0 && syncfs(dir) < 0 ? -errno : r;
}

static void describe_parent(struct template_meta *m, const struct rundir_template *on)
{
	static_assert(sizeof(m->parent) == sizeof(on->id), "the same ids");
	memcpy(m->parent, on->id, sizeof(m->parent));
	memcpy(m->parent_seal, on->seal, sizeof(m->parent_seal));
	memcpy(m->host_fingerprint, on->host_fingerprint, sizeof(m->host_fingerprint));
	m->depth = on->depth + 1;
}

/* From the area into `top`, as root/ of the layer. */
static int fill_vm_layer(struct snapshot *n, int top, struct av_err *err)
{
	struct spawner *sp = n->s->sp;
	const struct vm_layer_options opt = {
	    .save = n->save,
	    .rootless = sp->mounts.rootless,
	    .owner = sp->templates.id_base,
	    .room = has_room,
	    .ctx = sp->disk,
	};
	bool has_image = false;
	AV_CLEANUP(av_closep) int fs = layer_open(n->area, "fs", OPEN_DIR);
	AV_CLEANUP(av_closep) int from = fs < 0 ? fs : layer_open(fs, "root", OPEN_DIR);
	if (from < 0 || mkdirat(top, "root", 0700) < 0)
		return from < 0 ? from : -errno;
	AV_CLEANUP(av_closep) int to = layer_open(top, "root", OPEN_DIR);
	int r = to < 0 ? to : vm_layer_take(from, to, &opt, &has_image, err);
	if (r < 0)
		return r;
	if (has_image) {
		n->meta.flags |= TEMPLATE_VM_IMAGE;
		describe_parent(&n->meta, &(struct rundir_template){.id = TEMPLATE_ID_VMHOST});
	} else if (!n->meta.parent[0]) {
		(void)av_err_set(err, AV_ERR_INVALID_STATE,
		    "the virtual machine stands on no image that its saves could start from");
		return -ENODATA;
	}
	return 0;
}

/* The directory `name` of dirfd, made. */
static int make_open(int dirfd, const char *name)
{
	return mkdirat(dirfd, name, 0700) < 0 ? -errno : layer_open(dirfd, name, OPEN_DIR);
}

/* In the btrfs image it is filled as a subvolume of its own, of which the layer is a snapshot: that
 * waits for what was written, and has a generation that stays. */
static int take_vm_layer(struct snapshot *n, int dir, struct av_err *err)
{
	struct disk *disk = n->s->sp->disk;
	char name[TEMPLATE_ID_SIZE + sizeof(TEMPLATE_NEW)];
	AV_CLEANUP(av_closep) int subvol = -1;
	bool in_image = n->meta.flags & TEMPLATE_IN_IMAGE;
	int r = av_path_printf(name, sizeof(name), TEMPLATE_NEW "%s", n->meta.id);
	if (r == 0 && in_image)
		r = disk_layer_make(disk, name, &subvol);
	if (r < 0)
		return r;
	AV_CLEANUP(av_closep)
	int top = in_image ? make_open(subvol, "fs") : make_open(dir, TEMPLATE_LAYER_DIR);
	r = top < 0 ? top : fill_vm_layer(n, top, err);
	if (r < 0)
		return r;
	if (in_image)
		return disk_layer_finish(disk, name, n->meta.id);
	return syncfs(dir) < 0 ? -errno : 0;
}

static int take_layer(struct snapshot *n, int dir, struct av_err *err)
{
	int r = 0;
	if (n->meta.flags & TEMPLATE_VM)
		r = take_vm_layer(n, dir, err);
	else if (n->meta.flags & TEMPLATE_IN_IMAGE)
		r = disk_layer_snapshot(n->s->sp->disk, n->s->id, n->meta.id);
	else
		r = copy_layer(n, dir);
	if (r == -ENODATA)
		return r; /* err says it */
	if (r == -ELOOP)
		return av_err_set(err, AV_ERR_INVALID_STATE,
		    "directories of the sandbox are nested more than %d deep", LAYER_DEPTH_MAX);
	if (r == -ENOSPC || r == -EDQUOT)
		return disk_check_space(n->s->sp->disk, err) < 0
		           ? -ENOSPC
		           : av_err_sys(err, AV_ERR_NO_SPACE, r, "no space for the snapshot");
	return r < 0 ? av_err_sys(err, AV_ERR_INTERNAL, r, "cannot take the disk of the sandbox")
	             : 0;
}

static int open_layer(struct snapshot *n, int dir)
{
	if (!(n->meta.flags & TEMPLATE_IN_IMAGE))
		return layer_open(dir, TEMPLATE_LAYER_DIR, OPEN_DIR);
	AV_CLEANUP(av_closep) int top = -1;
	int r = disk_layer_open(n->s->sp->disk, n->meta.id, &top);
	return r < 0 ? r : layer_open(top, "fs", OPEN_DIR);
}

static int sum_layer(struct snapshot *n, int dir, struct av_err *err)
{
	struct layer_sum root, usr = {0};
	AV_CLEANUP(av_closep) int layer = open_layer(n, dir);
	AV_CLEANUP(av_closep) int root_fd = layer < 0 ? -1 : layer_open(layer, "root", OPEN_DIR);
	AV_CLEANUP(av_closep) int usr_fd = layer < 0 ? -1 : layer_open(layer, "usr", OPEN_DIR);
	bool on_host = n->meta.flags & TEMPLATE_ON_HOST;
	int r = root_fd < 0 || (on_host && usr_fd < 0) ? -EIO : layer_sum(root_fd, &root);
	if (r == 0 && on_host)
		r = layer_sum(usr_fd, &usr);
	if (r == -ELOOP)
		return av_err_set(err, AV_ERR_INVALID_STATE,
		    "directories of the sandbox are nested more than %d deep", LAYER_DEPTH_MAX);
	if (r < 0)
		return av_err_sys(err, AV_ERR_INTERNAL, r, "cannot sum up the layer");
	if (n->meta.flags & TEMPLATE_IN_IMAGE)
		r = disk_layer_generation(root_fd, &n->meta.generation);
	if (r < 0)
		return av_err_sys(err, AV_ERR_INTERNAL, r, "cannot read the layer's generation");
	template_content(&root, &usr, n->meta.content);
	n->meta.bytes = root.bytes + usr.bytes;
	n->meta.entries = root.entries + usr.entries;
	return 0;
}

static int publish(struct snapshot *n, int dir, const char *name, struct av_err *err)
{
	int templates = n->s->sp->templates.dir_fd;
	n->meta.created_ms = av_real_ms();
	template_meta_seal(&n->meta);
	int r = template_meta_write(dir, &n->meta);
	if (r == 0 && fsync(dir) < 0)
		r = -errno;
	if (r == 0 && (r = fail_here("snapshot.written", err)) < 0)
		return r;
	if (r == 0 && renameat2(templates, name, templates, n->meta.id, RENAME_NOREPLACE) < 0)
		r = -errno;
	if (r == 0 && fsync(templates) < 0)
		r = -errno;
	return r < 0 ? av_err_sys(err, AV_ERR_INTERNAL, r, "cannot write the template") : 0;
}

static int take(void *arg, struct chore_result *res, struct av_err *err)
{
	struct snapshot *n = arg;
	int templates = n->s->sp->templates.dir_fd;
	char name[TEMPLATE_ID_SIZE + sizeof(TEMPLATE_NEW)];
	int r = av_path_printf(name, sizeof(name), TEMPLATE_NEW "%s", n->meta.id);
	if (r == 0 && mkdirat(templates, name, 0700) < 0)
		r = -errno;
	AV_CLEANUP(av_closep) int dir = r < 0 ? r : layer_open(templates, name, OPEN_DIR);
	if (dir < 0)
		return av_err_sys(
		    err, AV_ERR_INTERNAL, dir, "cannot make the template's directory");
	r = take_layer(n, dir, err);
	if (r == 0)
		r = fail_here("snapshot.taken", err);
	if (r == 0)
		r = sum_layer(n, dir, err);
	if (r == 0)
		r = fail_here("snapshot.summed", err);
	if (r == 0)
		r = publish(n, dir, name, err);
	if (r == 0)
		r = fail_here("snapshot.renamed", err);
	if (r == 0)
		res->meta = n->meta;
	return r;
}

/* ---- in the worker ---- */

static void let_go(struct sandbox *s)
{
	struct snapshot *n = s->snapshot;
	if (!n)
		return;
	chore_clear(&n->chore);
	if (n->thaw && s->pidfd >= 0 &&
	    cgroups_freeze(s->sp->cgroups, s->id, false, FREEZE_TIMEOUT_MS, NULL) < 0)
		av_log(
		    AV_LOG_ERROR, "a sandbox stays frozen after its snapshot", "id", s->id, NULL);
	if (n->area >= 0)
		disk_done(s->sp->disk, s->id);
	av_close_fd(&n->area);
	free(n);
	s->snapshot = NULL;
}

static void end(struct sandbox *s, int error, const struct av_err *err, struct spawn_reply *reply)
{
	struct job *j = current(s);
	av_list_remove(&j->node);
	let_go(s);
	if (error < 0)
		job_fail(j, error, err);
	else
		job_done(j, reply, -1);
	sandbox_job_end(s, false);
}

static void on_taken(void *ctx, int error, const struct chore_result *res)
{
	struct snapshot *n = ctx;
	struct sandbox *s = n->s;
	struct av_err err = {0};
	struct spawn_reply reply = {0};
	struct spawn_snapshot_reply *r = &reply.u.snapshot;
	if (error == 0 && av_failpoint("snapshot.done"))
		error = av_err_set(&err, AV_ERR_INTERNAL, "failpoint snapshot.done");
	else if (error < 0)
		(void)av_err_set(&err, AV_ERR_INTERNAL, "%s",
		    res->text[0] ? res->text : "the snapshot was given up");
	if (error < 0) {
		/* It may have been complete. */
		if (template_delete(&s->sp->templates, n->meta.id, NULL) < 0)
			av_log(AV_LOG_WARN, "remains of a failed snapshot", "id", n->meta.id, NULL);
		template_discard(&s->sp->templates, n->meta.id);
		loop_timer_start(&s->sp->loop, &s->sp->disk_timer, AV_NS_PER_MS);
		end(s, error, &err, NULL);
		return;
	}
	memcpy(r->seal, res->meta.seal, sizeof(r->seal));
	memcpy(r->parent, res->meta.parent, sizeof(r->parent));
	memcpy(r->host_fingerprint, res->meta.host_fingerprint, sizeof(r->host_fingerprint));
	r->bytes = res->meta.bytes;
	r->entries = res->meta.entries;
	r->depth = res->meta.depth;
	r->frozen_us = n->save ? 0 : (uint32_t)((av_mono_ns() - n->frozen_ns) / 1000);
	if (res->meta.flags & TEMPLATE_VM)
		template_settle(&s->sp->templates, n->meta.id);
	end(s, 0, NULL, &reply);
}

/* What it stands on: of a virtual machine the image, if any. */
static int read_parent(struct sandbox *s, struct rundir_template *ret)
{
	int run = s->sp->mounts.run_fd, r = rundir_read_template(run, s->id, ret);
	if (r < 0 || !s->is_vm)
		return r;
	*ret = (struct rundir_template){0};
	r = rundir_read_image(run, s->id, ret);
	return r == -ENOENT ? 0 : r;
}

static int describe(struct sandbox *s, struct template_meta *m, struct av_err *err)
{
	struct spawner *sp = s->sp;
	struct rundir_template on;
	const struct spawn_template *q = &current(s)->request.u.template;
	if ((q->flags & SPAWN_SNAPSHOT_VM) && !s->is_vm) {
		(void)av_err_set(err, AV_ERR_INVALID, "sandbox %s is no virtual machine", s->id);
		return -EINVAL;
	}
	int r = read_parent(s, &on);
	if (r < 0)
		return av_err_set(
		    err, AV_ERR_NOT_FOUND, "no sandbox %s with a disk that could be taken", s->id);
	if (on.depth >= TEMPLATE_DEPTH_MAX) {
		(void)av_err_set(err, AV_ERR_INVALID_STATE,
		    "this sandbox stands on %u snapshots of snapshots, and more than %u are not "
		    "possible: bring its files into a sandbox of a template with fewer, as a tar "
		    "archive, and take the snapshot of that one",
		    on.depth, TEMPLATE_DEPTH_MAX);
		return -ESTALE;
	}
	*m = (struct template_meta){
	    .flags = (on.host_fingerprint[0] ? (uint32_t)TEMPLATE_ON_HOST : 0) |
	             (lies_in_image(s) ? (uint32_t)TEMPLATE_IN_IMAGE : 0) |
	             (sp->mounts.rootless ? (uint32_t)TEMPLATE_ROOTLESS : 0) |
	             (s->is_vm ? (uint32_t)TEMPLATE_VM : 0),
	    .id_base = sp->templates.id_base,
	};
	memcpy(m->id, q->template_id, sizeof(m->id));
	describe_parent(m, &on);
	s->snapshot->save = q->save;
	return 0;
}

static int freeze(struct sandbox *s, struct av_err *err)
{
	struct snapshot *n = s->snapshot;
	struct cgroup_stat cg;
	if (s->pidfd < 0 || n->save)
		return 0;
	if (cgroups_stat(s->sp->cgroups, s->id, &cg) == 0 && cg.frozen)
		return 0;
	int r = cgroups_freeze(s->sp->cgroups, s->id, true, FREEZE_TIMEOUT_MS, err);
	n->thaw = r == 0;
	return r;
}

/* The sandbox is as still as it can be. */
static int begin(struct sandbox *s, struct av_err *err)
{
	struct snapshot *n = s->snapshot;
	struct spawner *sp = s->sp;
	int r = freeze(s, err);
	if (r == 0)
		r = fail_here("snapshot.frozen", err);
	if (r < 0)
		return r;
	n->frozen_ns = av_mono_ns();
	r = disk_open(sp->disk, s->id, &n->area, err);
	if (r < 0)
		return r;
	r = chore_start(&n->chore, &sp->loop, take, n, on_taken, n);
	return r < 0 ? av_err_sys(err, AV_ERR_INTERNAL, r, "cannot start a process") : 0;
}

/* True when that takes a while: snapshot_agent_died() goes on. */
static bool kill_first(struct sandbox *s)
{
	if (!(current(s)->request.u.template.flags & SPAWN_SNAPSHOT_KILL) || s->pidfd < 0)
		return false;
	av_pidfd_send_signal(s->pidfd, SIGKILL);
	if (cgroups_kill(s->sp->cgroups, s->id) < 0)
		av_log(AV_LOG_WARN, "cgroup kill", "id", s->id, NULL);
	return true;
}

static void begin_or_end(struct sandbox *s)
{
	struct av_err err = {0};
	int r = begin(s, &err);
	if (r < 0)
		end(s, r, &err, NULL);
}

void snapshot_start(struct sandbox *s)
{
	struct spawner *sp = s->sp;
	struct av_err err = {0};
	const char *id = current(s)->request.u.template.template_id;
	struct snapshot *n = calloc(1, sizeof(*n));
	int r = n ? 0 : -ENOMEM;
	if (n) {
		*n = (struct snapshot){.s = s, .chore = CHORE_INIT, .area = -1};
		s->snapshot = n;
	}
	if (r == 0 && template_exists(&sp->templates, id))
		r = av_err_set(&err, AV_ERR_CONFLICT, "a template %s exists", id);
	if (r == 0)
		r = describe(s, &n->meta, &err);
	if (r == 0)
		r = disk_check_space(sp->disk, &err);
	if (r == 0)
		r = fail_here("snapshot.begin", &err);
	if (r < 0) {
		end(s, r, &err, NULL);
		return;
	}
	template_discard(&sp->templates, id);
	if (!kill_first(s))
		begin_or_end(s);
}

void snapshot_agent_died(struct sandbox *s)
{
	if (s->snapshot && !chore_runs(&s->snapshot->chore))
		begin_or_end(s);
}

void snapshot_cancel(struct sandbox *s)
{
	/* One that was to outlive its sandbox: DESTROY waits. */
	if (s->snapshot && !(current(s)->request.u.template.flags & SPAWN_SNAPSHOT_KILL))
		chore_cancel(&s->snapshot->chore);
}

void snapshot_clear(struct sandbox *s)
{
	let_go(s);
}

struct list_state {
	struct spawn_list_reply *reply;
	const char *after;
};

static int list_one(void *ctx, const char *id)
{
	struct list_state *l = ctx;
	if (strcmp(id, l->after) > 0)
		sandbox_list_insert(l->reply, id);
	return 0;
}

int snapshot_list(struct spawner *sp, const char *after, struct spawn_list_reply *ret)
{
	struct list_state l = {.reply = ret, .after = after};
	return template_list(&sp->templates, list_one, &l);
}
