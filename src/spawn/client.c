/* SPDX-License-Identifier: Apache-2.0 */
/*
 * client.c - connections of the daemon to the worker
 *
 * A client lives until its socket is closed and its last job has ended. Answers that the socket
 * does not take at once wait in a queue; as at most SPAWN_PIPELINE_MAX jobs are unanswered, so is
 * it.
 */
#include "spawn/client.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/avtime.h"
#include "base/fd.h"
#include "base/log.h"
#include "spawn/hello.h"
#include "base/banned.h"

struct answer {
	struct av_list node;
	struct spawn_reply reply;
	int pass_fd; /* owned; -1: none */
};

struct client {
	struct av_list node; /* in spawner.clients */
	struct spawner *sp;
	int fd; /* owned; -1: closed */
	struct loop_source source;
	unsigned int jobs;
	struct av_list answers; /* struct answer, not sent yet */
	bool said_hello;
};

static void free_if_unused(struct client *c)
{
	if (c->fd < 0 && c->jobs == 0)
		free(c);
}

static void free_answer(struct answer *a)
{
	av_list_remove(&a->node);
	av_close_fd(&a->pass_fd);
	free(a);
}

static void close_client(struct client *c)
{
	struct answer *a;
	while ((a = AV_LIST_FIRST(&c->answers, struct answer, node)))
		free_answer(a);
	loop_remove(&c->sp->loop, &c->source);
	av_close_fd(&c->fd);
	av_list_remove(&c->node);
	free_if_unused(c);
}

static uint32_t wanted_events(const struct client *c)
{
	return (c->jobs < SPAWN_PIPELINE_MAX ? (uint32_t)EPOLLIN : 0) |
	       (av_list_empty(&c->answers) ? 0 : (uint32_t)EPOLLOUT);
}

static int send_answer(int fd, const struct spawn_reply *reply, int pass_fd)
{
	ssize_t n = av_send_fds(
	    fd, reply, sizeof(*reply), &pass_fd, pass_fd >= 0, MSG_DONTWAIT | MSG_NOSIGNAL);
	return n < 0 ? (int)n : 0;
}

static int queue_answer(struct client *c, const struct spawn_reply *reply, int pass_fd)
{
	struct answer *a = calloc(1, sizeof(*a));
	if (!a)
		return -ENOMEM;
	a->reply = *reply;
	a->pass_fd = pass_fd >= 0 ? fcntl(pass_fd, F_DUPFD_CLOEXEC, 3) : -1;
	av_list_append(&c->answers, &a->node);
	return loop_change(&c->sp->loop, &c->source, wanted_events(c));
}

static void answer(struct client *c, const struct spawn_reply *reply, int pass_fd)
{
	int r = -EAGAIN;
	if (av_list_empty(&c->answers))
		r = send_answer(c->fd, reply, pass_fd);
	if (r == -EAGAIN || r == -ENOBUFS)
		r = queue_answer(c, reply, pass_fd);
	/* A dead peer shows as an event of its own; closing here would surprise the caller. */
	if (r < 0 && r != -EPIPE && r != -ECONNRESET)
		av_log(AV_LOG_WARN, "cannot answer the daemon", "error", strerror(-r), NULL);
}

void job_done(struct job *j, struct spawn_reply *reply, int pass_fd)
{
	struct client *c = j->client;
	reply->op = j->request.op;
	reply->seq = j->request.seq;
	free(j);
	bool was_full = c->jobs == SPAWN_PIPELINE_MAX;
	c->jobs--;
	if (c->fd >= 0) {
		answer(c, reply, pass_fd);
		if (was_full && loop_change(&c->sp->loop, &c->source, wanted_events(c)) < 0)
			av_log(AV_LOG_ERROR, "epoll", NULL);
	}
	free_if_unused(c);
}

void job_fail(struct job *j, int error, const struct av_err *err)
{
	struct spawn_reply reply = {.error = error < 0 ? -error : EIO};
	const char *text = err && err->message[0] ? err->message : strerror(reply.error);
	size_t n = strnlen(text, sizeof(reply.text) - 1);
	memcpy(reply.text, text, n);
	job_done(j, &reply, -1);
}

/* ---- requests ---- */

static bool terminated(const char *s, size_t size)
{
	return memchr(s, '\0', size) != NULL;
}

static bool id_ok(const struct spawn_request *q)
{
	return terminated(q->id, sizeof(q->id)) && av_id_valid(av_str_c(q->id), AV_ID_SANDBOX);
}

static bool zeroed(const void *p, size_t size)
{
	const char *bytes = p;
	return size == 0 || (bytes[0] == 0 && memcmp(bytes, bytes + 1, size - 1) == 0);
}

static bool create_ok(const struct spawn_create *c)
{
	static const uint32_t of_vm = SPAWN_CREATE_VM_IMAGE | SPAWN_CREATE_KVM;
	static const uint32_t known =
	    SPAWN_CREATE_NO_SUDO | SPAWN_CREATE_INTERNET | SPAWN_CREATE_VM | of_vm;
	if (!terminated(c->template_id, sizeof(c->template_id)) || c->reserved != 0 ||
	    (c->flags & ~known) || ((c->flags & of_vm) && !(c->flags & SPAWN_CREATE_VM)))
		return false;
	if (c->flags & SPAWN_CREATE_VM_IMAGE)
		return terminated(c->source_id, sizeof(c->source_id)) &&
		       terminated(c->kernel_id, sizeof(c->kernel_id));
	return zeroed(c->source_id, sizeof(*c) - offsetof(struct spawn_create, source_id));
}

static void hello(struct spawner *sp, struct job *j)
{
	struct spawn_reply reply = {0};
	if (j->request.u.protocol != SPAWN_PROTOCOL) {
		struct av_err err = {0};
		av_err_set(&err, AV_ERR_UNSUPPORTED,
		    "aviary-spawn speaks protocol %u, aviaryd %u: both must be of one version",
		    SPAWN_PROTOCOL, j->request.u.protocol);
		job_fail(j, -EPROTONOSUPPORT, &err);
		return;
	}
	j->client->said_hello = true;
	hello_fill(sp, &reply.u.hello);
	job_done(j, &reply, -1);
}

static void list(struct spawner *sp, struct job *j)
{
	struct spawn_reply reply = {0};
	if (!terminated(j->request.u.after, sizeof(j->request.u.after))) {
		job_fail(j, -EINVAL, NULL);
		return;
	}
	int r = sandbox_list(sp, j->request.u.after, &reply.u.list);
	if (r < 0)
		job_fail(j, r, NULL);
	else
		job_done(j, &reply, -1);
}

static void sample(struct spawner *sp, struct job *j)
{
	struct spawn_reply reply = {0};
	sandbox_sample(sp, &j->request.u.sample, &reply.u.sample);
	job_done(j, &reply, -1);
}

static void stats(struct spawner *sp, struct job *j)
{
	struct spawn_reply reply = {0};
	sandbox_stats(sp, &reply.u.stats);
	reply.u.stats.jobs = j->client->jobs;
	job_done(j, &reply, -1);
}

static bool template_ok(const struct spawn_template *t)
{
	return terminated(t->template_id, sizeof(t->template_id)) &&
	       template_id_ok(t->template_id) &&
	       (t->flags == SPAWN_SNAPSHOT_VM
	               ? t->save != 0
	               : t->save == 0 && (t->flags & ~(uint32_t)SPAWN_SNAPSHOT_KILL) == 0);
}

static void delete_template(struct spawner *sp, struct job *j)
{
	struct spawn_reply reply = {0};
	struct av_err err = {0};
	const char *id = j->request.u.template.template_id;
	int r = template_ok(&j->request.u.template) ? 0 : -EINVAL;
	/* Nobody counts the users of those: they are made when they are missing. */
	if (r == 0 && template_id_is_vm(id) && sandbox_stands_on(sp, id)) {
		(void)av_err_set(&err, AV_ERR_INVALID_STATE, "a sandbox stands on %s", id);
		r = -EBUSY;
	}
	if (r == 0)
		r = template_delete(&sp->templates, id, &err);
	if (r == 0)
		loop_timer_start(&sp->loop, &sp->disk_timer, AV_NS_PER_MS);
	if (r < 0)
		job_fail(j, r, &err);
	else
		job_done(j, &reply, -1);
}

static void list_templates(struct spawner *sp, struct job *j)
{
	struct spawn_reply reply = {0};
	int r = terminated(j->request.u.after, sizeof(j->request.u.after))
	            ? snapshot_list(sp, j->request.u.after, &reply.u.list)
	            : -EINVAL;
	if (r < 0)
		job_fail(j, r, NULL);
	else
		job_done(j, &reply, -1);
}

static void dispatch(struct spawner *sp, struct job *j)
{
	const struct spawn_request *q = &j->request;
	if (q->seq == 0 || (q->op != SPAWN_HELLO && !j->client->said_hello)) {
		job_fail(j, -EINVAL, NULL);
		return;
	}
	switch (q->op) {
	case SPAWN_HELLO:
		hello(sp, j);
		return;
	case SPAWN_LIST:
		list(sp, j);
		return;
	case SPAWN_SAMPLE:
		sample(sp, j);
		return;
	case SPAWN_STATS:
		stats(sp, j);
		return;
	case SPAWN_TEMPLATE_DELETE:
		delete_template(sp, j);
		return;
	case SPAWN_TEMPLATE_LIST:
		list_templates(sp, j);
		return;
	case SPAWN_TEMPLATE_EXPORT:
		if (template_ok(&q->u.template) && q->u.template.flags == 0)
			export_start(sp, j);
		else
			job_fail(j, -EINVAL, NULL);
		return;
	case SPAWN_SNAPSHOT:
		if (id_ok(q) && template_ok(&q->u.template))
			break;
		job_fail(j, -EINVAL, NULL);
		return;
	case SPAWN_CREATE:
		if (id_ok(q) && create_ok(&q->u.create))
			break;
		job_fail(j, -EINVAL, NULL);
		return;
	case SPAWN_DESTROY:
	case SPAWN_ADOPT:
	case SPAWN_INSPECT:
	case SPAWN_FREEZE:
	case SPAWN_THAW:
		if (id_ok(q))
			break;
		job_fail(j, -EINVAL, NULL);
		return;
	default:
		job_fail(j, -EINVAL, NULL);
		return;
	}
	sandbox_submit(sp, j);
}

/* One request. 0, -EAGAIN, or what ends the connection. */
static int read_request(struct client *c)
{
	struct spawn_request q;
	ssize_t n = recv(c->fd, &q, sizeof(q), MSG_DONTWAIT | MSG_TRUNC);
	if (n < 0)
		return errno == EINTR ? -EAGAIN : -errno;
	if (n != sizeof(q))
		return n == 0 ? -EPIPE : -EPROTO;
	struct job *j = calloc(1, sizeof(*j));
	if (!j)
		return -ENOMEM;
	av_list_init(&j->node);
	j->request = q;
	j->client = c;
	j->started_ns = av_mono_ns();
	c->jobs++;
	dispatch(c->sp, j);
	return 0;
}

static int flush_answers(struct client *c)
{
	struct answer *a;
	while ((a = AV_LIST_FIRST(&c->answers, struct answer, node))) {
		int r = send_answer(c->fd, &a->reply, a->pass_fd);
		if (r < 0)
			return r == -EAGAIN ? 0 : r;
		free_answer(a);
	}
	return loop_change(&c->sp->loop, &c->source, wanted_events(c));
}

static void client_ready(void *ctx, uint32_t events)
{
	struct client *c = ctx;
	int r = 0;
	if (events & EPOLLOUT)
		r = flush_answers(c);
	/* One request a turn, so that many creates in a row do not keep children waiting. */
	if (r == 0 && (events & (EPOLLIN | EPOLLHUP | EPOLLERR)) && c->jobs < SPAWN_PIPELINE_MAX)
		r = read_request(c);
	if (r == -EAGAIN)
		r = events & (EPOLLHUP | EPOLLERR) ? -EPIPE : 0;
	if (r == 0 && c->jobs >= SPAWN_PIPELINE_MAX)
		r = loop_change(&c->sp->loop, &c->source, wanted_events(c));
	if (r < 0) {
		if (r != -EPIPE && r != -ECONNRESET)
			av_log(AV_LOG_WARN, "connection closed", "error", strerror(-r), NULL);
		close_client(c);
	}
}

static bool may_connect(const struct spawner *sp, int fd)
{
	struct ucred peer;
	socklen_t n = sizeof(peer);
	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &n) < 0)
		return false;
	/* Rootless, inside its user namespace the worker sees its own user as 0. */
	return peer.uid == 0 || peer.uid == sp->o->daemon_uid;
}

void client_accept(struct spawner *sp, int listener)
{
	AV_CLEANUP(av_closep) int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (fd < 0)
		return;
	if (!may_connect(sp, fd)) {
		av_log(AV_LOG_WARN, "a foreign user tried to connect", NULL);
		return;
	}
	struct client *c = calloc(1, sizeof(*c));
	if (!c)
		return;
	*c = (struct client){.sp = sp, .fd = fd};
	c->source = (struct loop_source){.fd = -1, .on_ready = client_ready, .ctx = c};
	av_list_init(&c->answers);
	if (loop_add(&sp->loop, &c->source, fd, EPOLLIN) < 0) {
		free(c);
		return;
	}
	fd = -1;
	av_list_append(&sp->clients, &c->node);
}

void client_close_all(struct spawner *sp)
{
	struct client *c;
	while ((c = AV_LIST_FIRST(&sp->clients, struct client, node)))
		close_client(c);
}
