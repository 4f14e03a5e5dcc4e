/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vm_world.c - a worker and the aviary-vm of every sandbox, played by the test's own loop
 */
#include "vm_world.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/avtime.h"
#include "base/fd.h"
#include "base/list.h"
#include "base/path.h"
#include "lib/run_loop.h"

#include "base/banned.h"

struct jail {
	struct av_list link;
	char id[AV_ID_SIZE], dir[80], path[100];
	int listener, conn;
	struct av_watch *on_listener, *on_conn;
	uint32_t state, save, seq;
	struct vm_start start;
	struct vm_request held;
	struct spawn_request snapshot; /* held */
};

struct world world;
static struct av_list jails;
static int listener = -1, conns[4] = {-1, -1, -1, -1};
static struct av_watch *on_listener, *on_conns[4];

static void must(bool good, const char *what)
{
	if (good)
		return;
	(void)fprintf(stderr, "the world of the test broke: %s (%s)\n", what, strerror(errno));
	abort();
}

static int listen_at(const char *path, int type)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	must(fd >= 0 && av_str_copy(addr.sun_path, sizeof(addr.sun_path), av_str_c(path)) == 0 &&
	         bind(fd, (struct sockaddr *)&addr, sizeof(addr)) == 0 && listen(fd, 8) == 0,
	    "listen");
	return fd;
}

static struct av_watch *watch(int fd, void (*fn)(void *ctx, int events), void *ctx)
{
	struct av_watch *w;

	must(av_watch_new(world.loop, fd, fn, ctx, &w) == 0 && av_watch_set(w, AV_WATCH_READ) == 0,
	    "watch");
	return w;
}

void run_for(int64_t ms)
{
	run_loop_for(world.loop, ms);
}

bool run_until(bool (*done)(const void *p), const void *p)
{
	int64_t end = av_mono_ns() + 20 * AV_NS_PER_S;

	while (!done(p) && av_mono_ns() < end)
		av_loop_run_once(world.loop, 2);
	return done(p);
}

/* ---- a machine ---- */

static struct jail *jail_find(const char *id)
{
	struct jail *j;

	AV_LIST_FOREACH(j, &jails, struct jail, link)
	if (strcmp(j->id, id) == 0)
		return j;
	return NULL;
}

static void hang_up(struct jail *j)
{
	av_watch_free(AV_TAKE_PTR(j->on_conn));
	av_close_fd(&j->conn);
}

static void jail_free(struct jail *j)
{
	hang_up(j);
	av_watch_free(j->on_listener);
	av_close_fd(&j->listener);
	(void)unlink(j->path);
	(void)rmdir(j->dir);
	av_list_remove(&j->link);
	free(j);
}

static void say(const struct jail *j, const void *p, size_t n)
{
	(void)send(j->conn, p, n, MSG_NOSIGNAL | MSG_DONTWAIT);
}

static void fill_status(const struct jail *j, struct vm_status *st)
{
	*st = (struct vm_status){.protocol = VM_PROTOCOL,
	    .state = j->state,
	    .accel = j->start.accel ? j->start.accel : (uint32_t)VM_ACCEL_TCG,
	    .vcpus = j->start.vcpus,
	    .memory_bytes = j->start.memory_bytes};
}

static void carry_out_start(struct jail *j, const struct vm_start *s)
{
	world.starts++;
	world.last_start = j->start = *s;
	world.last_identity = s->identity;
	j->state = s->mode == VM_MODE_RESTORE ? VM_STATE_RUNNING : VM_STATE_MADE;
	world.images += s->mode == VM_MODE_IMAGE;
	world.goldens += s->mode == VM_MODE_GOLDEN;
	world.restores += s->mode == VM_MODE_RESTORE;
}

static void answer_honestly(struct jail *j, const struct vm_request *rq)
{
	struct vm_reply rep = {.op = rq->op, .seq = rq->seq};
	struct vm_reply progress = {.op = VM_PROGRESS, .seq = rq->seq};

	switch (rq->op) {
	case VM_START:
		progress.u.progress.percent = 4000;
		memset(progress.u.progress.stage, '\n', sizeof(progress.u.progress.stage));
		say(j, &progress, sizeof(progress));
		carry_out_start(j, &rq->u.start);
		if (world.lie == NO_KVM && rq->u.start.mode == VM_MODE_GOLDEN &&
		    rq->u.start.accel == VM_ACCEL_KVM) {
			rep.error = EIO;
			(void)snprintf(rep.text, sizeof(rep.text),
			    "starting QEMU: QEMU crashed (signal 6): its words");
		}
		break;
	case VM_HOLD:
		world.holds++;
		j->state = VM_STATE_HELD;
		break;
	case VM_HAND_OVER:
		world.takes++;
		world.last_identity = rq->u.identity;
		j->state = VM_STATE_RUNNING;
		break;
	case VM_PAUSE:
		world.pauses++;
		j->state = VM_STATE_PAUSED;
		rep.u.saved.save = ++j->save;
		break;
	case VM_RESUME:
		world.resumes++;
		world.last_identity = rq->u.identity;
		j->state = VM_STATE_RUNNING;
		break;
	case VM_SAVE:
		world.saves++;
		rep.u.saved.save = ++j->save;
		break;
	case VM_DROP:
		world.drops++;
		break;
	default:
		break;
	}
	if (rq->op != VM_PAUSE && rq->op != VM_SAVE && rq->op != VM_DROP)
		fill_status(j, &rep.u.status);
	if (rq->op == VM_STATUS && world.busy > 0) {
		world.busy--;
		rep.u.status.state = VM_STATE_BUSY;
	}
	if (world.lie_op == 0 || world.lie_op == rq->op) {
		rep.u.status.state += world.lie == BAD_STATE ? 77 : 0;
		rep.u.status.memory_bytes += world.lie == BAD_MEMORY ? 4096 : 0;
		rep.seq += world.lie == WRONG_SEQ;
		rep.op += world.lie == WRONG_OP ? 100 : 0;
	}
	say(j, &rep, sizeof(rep));
}

static void answer(struct jail *j, const struct vm_request *rq)
{
	struct vm_reply rep = {.op = rq->op, .seq = rq->seq};
	const bool lies = world.lie_op == 0 || world.lie_op == rq->op;
	char big[4096] = {0};

	switch (lies ? world.lie : HONEST) {
	case SILENT:
		break;
	case SHORT_PACKET:
		say(j, "short", 5);
		break;
	case LONG_PACKET:
		say(j, big, sizeof(big));
		break;
	case HANGS_UP:
		hang_up(j);
		break;
	case LATE:
		j->state = VM_STATE_RUNNING;
		hang_up(j);
		break;
	case FLOOD:
		rep.op = VM_PROGRESS;
		say(j, &rep, sizeof(rep));
		break;
	case REFUSES:
		rep.error = EINVAL;
		memset(rep.text, 0x1b, sizeof(rep.text));
		say(j, &rep, sizeof(rep));
		break;
	case HOLDS:
		j->held = *rq;
		rep.op = VM_PROGRESS;
		rep.u.progress.percent = 50;
		memcpy(rep.u.progress.stage, "halfway", 8);
		say(j, &rep, sizeof(rep));
		break;
	case HONEST:
	case WRONG_SEQ:
	case WRONG_OP:
	case BAD_STATE:
	case BAD_MEMORY:
	case NO_KVM:
		answer_honestly(j, rq);
		break;
	}
}

static void on_conn(void *ctx, int events)
{
	struct jail *j = ctx;
	struct vm_request rq;
	ssize_t n = recv(j->conn, &rq, sizeof(rq), MSG_DONTWAIT);

	(void)events;
	if (n != (ssize_t)sizeof(rq)) {
		if (n >= 0 || errno != EAGAIN)
			hang_up(j);
		return;
	}
	must(rq.seq != 0 && rq.protocol == VM_PROTOCOL && rq.reserved == 0, "a request");
	j->seq = rq.seq;
	answer(j, &rq);
	if (world.lie == FLOOD && j->conn >= 0)
		(void)av_watch_set(j->on_conn, AV_WATCH_READ | AV_WATCH_WRITE);
}

static void on_conn_or_flood(void *ctx, int events)
{
	struct jail *j = ctx;
	struct vm_reply rep = {.op = VM_PROGRESS, .seq = j->seq};

	if (events & AV_WATCH_READ)
		on_conn(ctx, events);
	while (events & AV_WATCH_WRITE && j->conn >= 0) {
		if (send(j->conn, &rep, sizeof(rep), MSG_NOSIGNAL | MSG_DONTWAIT) > 0)
			continue;
		if (errno != EAGAIN)
			hang_up(j);
		break;
	}
}

static void on_vm_listener(void *ctx, int events)
{
	struct jail *j = ctx;
	int fd = accept4(j->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	(void)events;
	if (fd < 0)
		return;
	hang_up(j);
	j->conn = fd;
	j->on_conn = watch(fd, on_conn_or_flood, j);
}

void world_put(const char *id)
{
	struct jail *j = calloc(1, sizeof(*j));

	must(j && !jail_find(id), "an id is used once");
	if (!j)
		return;
	memcpy(j->id, id, sizeof(j->id));
	must(av_path_printf(j->dir, sizeof(j->dir), "%s/%s", world.dir, id) == 0 &&
	         av_path_printf(j->path, sizeof(j->path), "%s/vm.sock", j->dir) == 0 &&
	         mkdir(j->dir, 0700) == 0,
	    "a run directory");
	j->state = world.adopted_state ? world.adopted_state : (uint32_t)VM_STATE_NEW;
	j->start.vcpus = 1;
	j->start.memory_bytes = 512ULL << 20;
	j->conn = -1;
	j->listener = listen_at(j->path, SOCK_SEQPACKET);
	j->on_listener = watch(j->listener, on_vm_listener, j);
	av_list_append(&jails, &j->link);
}

bool world_has(const char *id)
{
	return jail_find(id) != NULL;
}

int world_jails(void)
{
	return (int)av_list_count(&jails);
}

/* ---- the worker ---- */

static char *place(const char *id)
{
	for (size_t i = 0; i < AV_ARRAY_LEN(world.layers); i++)
		if (strcmp(world.layers[i], id) == 0)
			return world.layers[i];
	return NULL;
}

bool world_has_layer(const char *id)
{
	return place(id) != NULL;
}

static void answer_list(struct spawn_reply *rep)
{
	for (size_t i = 0; i < AV_ARRAY_LEN(world.layers); i++)
		if (world.layers[i][0])
			memcpy(rep->u.list.entries[rep->u.list.count++].id, world.layers[i],
			    AV_ID_SIZE);
	rep->error = (int32_t)world.list_error;
}

static void answer_hello(struct spawn_reply *rep)
{
	world.hellos++;
	rep->u.hello.protocol = SPAWN_PROTOCOL;
	rep->u.hello.can = world.can;
	rep->u.hello.vm_environment[0] = 7;
	memcpy(rep->u.hello.boot_id, "boot", 5);
	memcpy(rep->u.hello.no_vm, "no QEMU", 8);
	memcpy(rep->u.hello.no_kvm, "no /dev/kvm", 12);
}

static int answer_create(const struct spawn_request *rq, struct spawn_reply *rep)
{
	world.creates++;
	world.last_create = rq->u.create;
	must(!(rq->u.create.flags & SPAWN_CREATE_KVM) || world.can & SPAWN_CAN_KVM, "KVM");
	rep->error = (int32_t)world.create_error;
	world.create_error = 0;
	if (rep->error)
		return -1;
	must(strcmp(rq->u.create.template_id, "vmhost") == 0 || place(rq->u.create.template_id),
	    "the template of a create is there");
	world_put(rq->id);
	rep->u.create.pid = 7;
	rep->u.create.slot = 42;
	return open("/dev/null", O_RDONLY | O_CLOEXEC);
}

static void answer_snapshot(const struct spawn_request *rq, struct spawn_reply *rep)
{
	char *free_place = place("");

	world.snapshots++;
	world.last_snapshot = rq->u.template;
	struct jail *j = jail_find(rq->id);

	must(j && free_place, "a snapshot");
	if (!j || !free_place)
		return;
	memcpy(free_place, rq->u.template.template_id, AV_ID_SIZE);
	rep->u.snapshot.seal[0] = 9;
	rep->u.snapshot.bytes = 1234;
	if (rq->u.template.flags & SPAWN_SNAPSHOT_KILL)
		hang_up(j);
}

static void answer_rest(const struct spawn_request *rq, struct spawn_reply *rep)
{
	struct jail *j = jail_find(rq->id);
	char *layer;

	switch (rq->op) {
	case SPAWN_HELLO:
		answer_hello(rep);
		break;
	case SPAWN_TEMPLATE_LIST:
		answer_list(rep);
		break;
	case SPAWN_DESTROY:
		world.destroys++;
		if (j)
			jail_free(j);
		break;
	case SPAWN_TEMPLATE_DELETE:
		world.deletes++;
		rep->error = (int32_t)world.delete_error;
		layer = rep->error ? NULL : place(rq->u.template.template_id);
		if (layer)
			layer[0] = '\0';
		break;
	case SPAWN_INSPECT:
		rep->error = j ? 0 : ENOENT;
		rep->u.inspect.state = SPAWN_STATE_ALIVE;
		break;
	default:
		rep->error = j ? 0 : ENOENT;
		break;
	}
}

static void on_request(int conn, const struct spawn_request *rq)
{
	struct spawn_reply rep = {.op = rq->op, .seq = rq->seq};
	struct jail *j = jail_find(rq->id);
	int fd = -1;

	if (rq->op == SPAWN_CREATE) {
		fd = answer_create(rq, &rep);
	} else if (rq->op == SPAWN_SNAPSHOT && world.hold_snapshots && j) {
		j->snapshot = *rq;
		return;
	} else if (rq->op == SPAWN_SNAPSHOT) {
		answer_snapshot(rq, &rep);
	} else if (rq->op == SPAWN_ADOPT) {
		rep.error = j ? 0 : ENOENT;
		fd = j ? open("/dev/null", O_RDONLY | O_CLOEXEC) : -1;
	} else {
		answer_rest(rq, &rep);
	}
	must(av_send_fds(conn, &rep, sizeof(rep), &fd, fd >= 0 ? 1 : 0, 0) == (ssize_t)sizeof(rep),
	    "reply");
	av_close_fd(&fd);
}

static void on_worker_conn(void *ctx, int events)
{
	int *conn = ctx;
	struct spawn_request rq;
	ssize_t n = recv(*conn, &rq, sizeof(rq), MSG_DONTWAIT);

	(void)events;
	if (n == (ssize_t)sizeof(rq)) {
		on_request(*conn, &rq);
	} else if (n >= 0) {
		av_watch_free(AV_TAKE_PTR(on_conns[conn - conns]));
		av_close_fd(conn);
	}
}

static void on_worker_listener(void *ctx, int events)
{
	int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	(void)ctx;
	(void)events;
	for (size_t i = 0; i < AV_ARRAY_LEN(conns) && fd >= 0; i++) {
		if (conns[i] >= 0)
			continue;
		conns[i] = fd;
		on_conns[i] = watch(fd, on_worker_conn, &conns[i]);
		return;
	}
	must(fd < 0, "too many connections");
}

static void worker_open(void)
{
	listener = listen_at(world.path, SOCK_SEQPACKET);
	on_listener = watch(listener, on_worker_listener, NULL);
}

static void worker_close_all(void)
{
	av_watch_free(AV_TAKE_PTR(on_listener));
	av_close_fd(&listener);
	(void)unlink(world.path);
	for (size_t i = 0; i < AV_ARRAY_LEN(conns); i++) {
		av_watch_free(AV_TAKE_PTR(on_conns[i]));
		av_close_fd(&conns[i]);
	}
}

void world_new_worker(void)
{
	worker_close_all();
	worker_open();
}

void world_release(void)
{
	struct jail *j;

	world.lie = HONEST;
	world.hold_snapshots = false;
	AV_LIST_FOREACH(j, &jails, struct jail, link)
	{
		if (j->held.op && j->conn >= 0)
			answer_honestly(j, &j->held);
		memset(&j->held, 0, sizeof(j->held));
		if (j->snapshot.op && conns[0] >= 0)
			on_request(conns[0], &j->snapshot);
		memset(&j->snapshot, 0, sizeof(j->snapshot));
	}
}

void world_open(void)
{
	av_list_init(&jails);
	memcpy(world.dir, "/tmp/aviary-vm-XXXXXX", 22);
	must(mkdtemp(world.dir) &&
	         av_path_printf(world.path, sizeof(world.path), "%s/spawn.sock", world.dir) == 0 &&
	         av_loop_new(&world.loop) == 0,
	    "a directory and a loop");
	world.can = SPAWN_CAN_VM | SPAWN_CAN_MEMORY;
	worker_open();
}

void world_close(void)
{
	struct jail *j;

	while ((j = AV_LIST_FIRST(&jails, struct jail, link)))
		jail_free(j);
	worker_close_all();
	(void)rmdir(world.dir);
	av_loop_free(world.loop);
}
