/* SPDX-License-Identifier: Apache-2.0 */
/*
 * call.c - one request to the aviary-vm of a sandbox, and its answer (see call.h)
 */
#include "node/vm/call.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "base/fd.h"
#include "node/worker/worker.h"

#include "base/banned.h"

/* Of progress in one call: more than one in a second for as long as any may take. */
#define MESSAGES_MAX 4096

const char *vm_op_text(uint32_t op)
{
	static const char *const names[] = {
	    [VM_STATUS] = "ask the virtual machine how it is",
	    [VM_START] = "start the virtual machine",
	    [VM_HOLD] = "make the virtual machine stand still",
	    [VM_HAND_OVER] = "let the virtual machine go on",
	    [VM_PAUSE] = "pause the virtual machine",
	    [VM_RESUME] = "resume the virtual machine",
	    [VM_SAVE] = "save the virtual machine",
	    [VM_DROP] = "remove a save of the virtual machine",
	};

	return op < AV_ARRAY_LEN(names) && names[op] ? names[op] : "do this";
}

void vm_make_printable(char *text, size_t size)
{
	text[size - 1] = '\0';
	for (char *p = text; *p; p++)
		if (*p < ' ' || *p > '~')
			*p = '?';
}

static void end(struct vm_call *c)
{
	av_timer_stop(&c->silence);
	av_timer_stop(&c->start);
	av_watch_free(AV_TAKE_PTR(c->watch));
	av_close_fd(&c->fd);
}

static void fail(struct vm_call *c, const struct av_err *err)
{
	end(c);
	c->on_answer(c->ctx, NULL, err);
}

static void fail_text(struct vm_call *c, const char *what)
{
	struct av_err err;

	(void)av_err_set(&err, AV_ERR_AGENT, "cannot %s: %s", vm_op_text(c->rq.op), what);
	fail(c, &err);
}

static enum av_err_kind kind_of(int eno)
{
	switch (eno) {
	case EINVAL:
		return AV_ERR_INVALID;
	case EBUSY:
		return AV_ERR_INVALID_STATE;
	case ENOMEM:
		return AV_ERR_NO_MEMORY;
	case ENOSPC:
	case EDQUOT:
		return AV_ERR_NO_SPACE;
	case EBADMSG:
		return AV_ERR_CHECKSUM;
	case EOPNOTSUPP:
		return AV_ERR_UNSUPPORTED;
	default:
		return AV_ERR_AGENT;
	}
}

/* How to get room for what was asked. */
static const char *cure(uint32_t op)
{
	switch (op) {
	case VM_START:
		return "; free space on the disk that holds Aviary's state directory, and try "
		       "again";
	default:
		return "; free space on the disk that holds Aviary's state directory, or, if there "
		       "is some, delete files in the sandbox, and try again";
	}
}

static void take_answer(struct vm_call *c, struct vm_reply *rep)
{
	enum av_err_kind kind = kind_of(rep->error);
	struct av_err err;

	if (rep->error == 0) {
		end(c);
		c->on_answer(c->ctx, rep, NULL);
		return;
	}
	(void)av_err_set(&err, kind, "cannot %s: %s%s", vm_op_text(c->rq.op),
	    rep->text[0] ? rep->text : "it does not say why",
	    kind == AV_ERR_NO_SPACE ? cure(c->rq.op) : "");
	fail(c, &err);
}

/* False: no more now, or the call is over. */
static bool read_one(struct vm_call *c)
{
	struct vm_reply rep;
	ssize_t n = recv(c->fd, &rep, sizeof(rep), MSG_DONTWAIT | MSG_TRUNC);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return false;
	if (n <= 0) {
		fail_text(c, "its process has ended, or answers somebody else");
		return false;
	}
	if (n != (ssize_t)sizeof(rep) || rep.seq != c->seq ||
	    (rep.op != c->rq.op && rep.op != VM_PROGRESS) || ++c->messages > MESSAGES_MAX) {
		fail_text(c, "what its process says makes no sense");
		return false;
	}
	vm_make_printable(rep.text, sizeof(rep.text));
	if (rep.op != VM_PROGRESS) {
		take_answer(c, &rep);
		return false;
	}
	av_timer_start(&c->silence, c->silence_ms);
	vm_make_printable(rep.u.progress.stage, sizeof(rep.u.progress.stage));
	if (c->on_progress)
		c->on_progress(c->ctx, AV_MIN(rep.u.progress.percent, 100u), rep.u.progress.stage);
	return true;
}

static void on_socket(void *ctx, int events)
{
	struct vm_call *c = ctx;

	(void)events;
	if (av_loop_now_ms(c->loop) >= c->end_ms) {
		fail_text(c, "it took too long");
		return;
	}
	for (int i = 0; i < 16 && read_one(c); i++)
		;
}

static void on_silence(void *ctx)
{
	fail_text(ctx, "its process does not answer");
}

/* What failed in vm_call_start is told from the loop. */
static void on_start(void *ctx)
{
	struct vm_call *c = ctx;
	struct av_err err = c->failed;

	fail(c, &err);
}

void vm_call_init(struct vm_call *c, struct av_loop *loop, vm_progress_fn *on_progress,
    vm_answer_fn *on_answer, void *ctx)
{
	memset(c, 0, sizeof(*c));
	c->loop = loop;
	c->fd = -1;
	c->on_progress = on_progress;
	c->on_answer = on_answer;
	c->ctx = ctx;
	av_timer_init(&c->silence, loop, on_silence, c);
	av_timer_init(&c->start, loop, on_start, c);
}

static int begin(struct vm_call *c, const struct worker *w, const char *id)
{
	int r = worker_connect(
	    w, id, "vm.sock", SOCK_SEQPACKET, "the virtual machine's process", &c->fd, &c->failed);

	if (r < 0)
		return r;
	r = av_watch_new(c->loop, c->fd, on_socket, c, &c->watch);
	if (r == 0)
		r = av_watch_set(c->watch, AV_WATCH_READ);
	if (r < 0)
		return av_err_sys(&c->failed, AV_ERR_INTERNAL, r, "cannot watch a socket");
	/* An empty socket takes one small packet. */
	if (send(c->fd, &c->rq, sizeof(c->rq), MSG_DONTWAIT | MSG_NOSIGNAL) !=
	    (ssize_t)sizeof(c->rq))
		return av_err_sys(
		    &c->failed, AV_ERR_AGENT, errno, "cannot %s", vm_op_text(c->rq.op));
	return 0;
}

void vm_call_start(struct vm_call *c, const struct worker *w, const char *id,
    const struct vm_request *rq, uint32_t silence_ms, uint32_t total_ms)
{
	assert(!vm_call_active(c));
	c->rq = *rq;
	c->rq.seq = c->seq = c->seq == UINT32_MAX ? 1 : c->seq + 1;
	c->rq.protocol = VM_PROTOCOL;
	c->messages = 0;
	c->silence_ms = silence_ms;
	c->end_ms = av_loop_now_ms(c->loop) + total_ms;
	if (begin(c, w, id) < 0)
		av_timer_start(&c->start, 0);
	else
		av_timer_start(&c->silence, AV_MIN(silence_ms, total_ms));
}

void vm_call_cancel(struct vm_call *c)
{
	end(c);
}

bool vm_call_active(const struct vm_call *c)
{
	return c->watch || av_timer_active(&c->start);
}
