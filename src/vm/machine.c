/* SPDX-License-Identifier: Apache-2.0 */
/*
 * machine.c - requests, plans and their steps (see machine.h)
 */
#include "vm/machine.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include "base/avtime.h"
#include "base/failpoint.h"
#include "vm/machine_internal.h"

#include "base/banned.h"

#define PROGRESS_MS 1000

uint32_t machine_us(int64_t since_ns)
{
	int64_t us = (av_mono_ns() - since_ns) / 1000;

	return us < 0 ? 0 : us > UINT32_MAX ? UINT32_MAX : (uint32_t)us;
}

/* --- answers --- */

static void fill_status(const struct machine *m, struct vm_status *st)
{
	*st = (struct vm_status){
	    .protocol = VM_PROTOCOL,
	    .state = (uint32_t)m->state,
	    .accel = m->start.accel,
	    .vcpus = m->start.vcpus,
	    .memory_bytes = m->start.memory_bytes,
	    .private_bytes = m->private_bytes,
	    .overhead_bytes = m->overhead_bytes,
	    .times = m->times,
	    .kills = m->kills,
	};
	qmp_printable(st->qemu, sizeof(st->qemu), m->version);
	qmp_printable(st->kernel, sizeof(st->kernel), m->hello.kernel);
}

static void answer_error(
    struct machine *m, uint64_t client, uint32_t op, uint32_t seq, const struct av_err *err)
{
	struct vm_reply reply = {.op = op, .seq = seq, .error = -av_err_errno(err->kind)};

	if (reply.error < 0)
		reply.error = -reply.error;
	qmp_printable(reply.text, sizeof(reply.text), err->message);
	m->ops->on_answer(m->ctx, client, &reply);
}

static void refuse(struct machine *m, uint64_t client, const struct vm_request *q,
    enum av_err_kind kind, const char *text)
{
	struct av_err err = {0};

	av_err_set(&err, kind, "%s", text);
	answer_error(m, client, q->op, q->seq, &err);
}

void machine_answer(struct machine *m, const struct vm_saved *saved)
{
	struct vm_reply reply = {.op = m->op, .seq = m->seq};

	m->plan = NULL;
	uv_timer_stop(&m->progress);
	if (m->error.kind) {
		answer_error(m, m->client, m->op, m->seq, &m->error);
	} else {
		if (saved)
			reply.u.saved = *saved;
		else
			fill_status(m, &reply.u.status);
		m->ops->on_answer(m->ctx, m->client, &reply);
	}
	/* What happened meanwhile, to QEMU or to all of it, happens now. */
	if (m->ended)
		machine_ended(m);
	else if (m->stopping && !machine_lives(m))
		machine_told_to_end(m);
}

static void on_progress(uv_timer_t *timer)
{
	struct machine *m = timer->data;
	struct vm_reply reply = {.op = VM_PROGRESS, .seq = m->seq};
	const struct step *s;
	unsigned from, to;
	uint64_t t;

	if (!m->plan || m->step >= m->plan->n)
		return;
	s = &m->plan->steps[m->step];
	from = s->percent;
	to = m->step + 1 < m->plan->n ? s[1].percent : 100;
	/* How long a step takes nobody knows: it comes nearer to its end all the time. */
	t = machine_us(m->step_ns) / 1000000;
	reply.u.progress.percent =
	    m->undoing ? from : (uint32_t)(from + (to - from) * t / (t + 20));
	snprintf(reply.u.progress.stage, sizeof(reply.u.progress.stage), "%s", s->doing);
	m->ops->on_answer(m->ctx, m->client, &reply);
}

/* --- plans --- */

static void on_limit(uv_timer_t *timer)
{
	struct machine *m = timer->data;

	machine_failf(m, AV_ERR_REQUEST_TIMEOUT, "not done within %u seconds", m->limit_ms / 1000);
}

void machine_limit(struct machine *m, uint32_t limit_ms)
{
	m->limit_ms = limit_ms;
	uv_update_time(m->loop);
	uv_timer_start(&m->limit, on_limit, limit_ms, 0);
}

static void begin_step(struct machine *m)
{
	const struct step *s = &m->plan->steps[m->step];
	struct av_err err;

	m->joins = 0;
	m->step_ns = av_mono_ns();
	machine_limit(m, s->limit_ms);
	/* A failpoint has the words of its step. */
	if (av_failpoint(s->doing))
		machine_failf(m, AV_ERR_INTERNAL, "failpoint");
	else if (!m->undoing && m->op != VM_DROP && machine_check_room(m, &err) < 0)
		machine_fail(m, &err);
	else
		s->begin(m);
}

static void plan_done(struct machine *m)
{
	const struct plan *plan = m->plan;

	uv_timer_stop(&m->limit);
	m->expect = AV_GUEST_NONE;
	plan->done(m);
}

void machine_plan(struct machine *m, const struct plan *plan)
{
	m->plan = plan;
	m->step = 0;
	m->failing = false;
	if (plan->n)
		begin_step(m);
	else
		plan_done(m);
}

void machine_next(struct machine *m)
{
	if (!m->plan || m->failing)
		return;
	if (m->joins && --m->joins)
		return;
	if (++m->step < m->plan->n)
		begin_step(m);
	else
		plan_done(m);
}

/* A step has failed, and nothing of it goes on any more. */
static void failed(struct machine *m)
{
	const struct plan *plan = m->plan;

	child_free(AV_TAKE_PTR(m->child));
	uv_timer_stop(&m->pause);
	m->expect = AV_GUEST_NONE;
	m->quitting = m->wants_resume = false;
	/* An answer that comes later would be taken for that of what is asked next. */
	if (m->asked && machine_lives(m))
		qemu_kill(m->qemu);
	m->asked = false;
	if (plan->undo) {
		m->undoing = true;
		machine_plan(m, plan->undo);
	} else {
		m->undo_failed = m->undoing;
		m->failing = false;
		plan_done(m);
	}
}

void machine_fail(struct machine *m, const struct av_err *err)
{
	if (!m->plan || m->failing)
		return;
	/* The first error is the one to be told: what fails while it is undone follows from it. */
	if (!m->error.kind) {
		m->error = *err;
		machine_blame_room(m, &m->error);
		av_err_prefix(&m->error, "%s", m->plan->steps[m->step].doing);
	}
	m->failing = true;
	uv_timer_stop(&m->limit);
	if (!m->working)
		failed(m);
}

void machine_failf(struct machine *m, enum av_err_kind kind, const char *fmt, ...)
{
	struct av_err err = {0};
	char text[sizeof(err.message)];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	av_err_set(&err, kind, "%s", text);
	machine_fail(m, &err);
}

/* --- work in the pool, children --- */

static void on_work(uv_work_t *req)
{
	struct machine *m = req->data;

	m->work_result = m->work_run(m, &m->work_error);
}

static void on_worked(uv_work_t *req, int status)
{
	struct machine *m = req->data;

	(void)status;
	m->working = false;
	if (m->failing)
		failed(m);
	else if (m->work_result < 0)
		machine_fail(m, &m->work_error);
	else
		machine_next(m);
}

void machine_job(struct machine *m, machine_work *run)
{
	int r;

	assert(!m->working);
	m->work_run = run;
	m->work_error = (struct av_err){0};
	m->work_req.data = m;
	r = uv_queue_work(m->loop, &m->work_req, on_work, on_worked);
	if (r < 0)
		machine_failf(m, AV_ERR_INTERNAL, "%s", strerror(-r));
	else
		m->working = true;
}

static void on_child(void *ctx, int status)
{
	struct machine *m = ctx;
	char words[MACHINE_WORDS_MAX];

	tail_line(child_words(m->child), words, sizeof(words));
	child_free(AV_TAKE_PTR(m->child));
	if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
		machine_next(m);
	else if (WIFEXITED(status) && WEXITSTATUS(status) == 127 && !words[0])
		machine_failf(m, AV_ERR_INTERNAL, "the program for it cannot be run");
	else if (WIFSIGNALED(status))
		machine_failf(m, AV_ERR_INTERNAL, "killed by signal %d", WTERMSIG(status));
	else
		machine_failf(m, AV_ERR_INTERNAL, "%s", words[0] ? words : "failed");
}

void machine_child(struct machine *m, const struct child_spec *spec)
{
	static const struct child_ops ops = {on_child};
	int r = child_start(m->children, spec, &ops, m, &m->child);

	if (r < 0)
		machine_failf(m, AV_ERR_INTERNAL, "%s", strerror(-r));
}

/* --- status --- */

static void on_usage(uv_work_t *req)
{
	struct machine *m = req->data;

	m->usage_result =
	    vm_pages_usage(m->usage_pid, m->usage_memory, m->usage_bytes, &m->usage, NULL);
}

static void on_usage_done(uv_work_t *req, int status)
{
	struct machine *m = req->data;
	struct vm_reply reply = {.op = VM_STATUS, .seq = m->usage_seq};

	(void)status;
	m->usage_working = false;
	if (m->usage_result == 0) {
		m->private_bytes = m->usage.private_bytes;
		m->overhead_bytes = m->usage.overhead_bytes;
	}
	fill_status(m, &reply.u.status);
	m->ops->on_answer(m->ctx, m->usage_client, &reply);
}

static void status(struct machine *m, uint64_t client, uint32_t seq)
{
	struct vm_reply reply = {.op = VM_STATUS, .seq = seq};

	if (machine_lives(m) && !m->plan && !m->usage_working) {
		m->usage_req.data = m;
		m->usage_pid = qemu_pid(m->qemu);
		m->usage_bytes = m->start.memory_bytes;
		memcpy(m->usage_memory, m->memory, sizeof(m->usage_memory));
		m->usage_client = client;
		m->usage_seq = seq;
		if (uv_queue_work(m->loop, &m->usage_req, on_usage, on_usage_done) == 0) {
			m->usage_working = true;
			return;
		}
	}
	if (!machine_lives(m))
		m->private_bytes = m->overhead_bytes = 0;
	fill_status(m, &reply.u.status);
	if (m->state == VM_STATE_FAILED)
		qmp_printable(reply.text, sizeof(reply.text), m->error.message);
	m->ops->on_answer(m->ctx, client, &reply);
}

/* --- requests --- */

static bool text_ends(const char *s, size_t size)
{
	return memchr(s, '\0', size) != NULL;
}

static const char *identity_wrong(const struct vm_identity *i)
{
	size_t n;

	if (!text_ends(i->id, sizeof(i->id)) || !text_ends(i->hostname, sizeof(i->hostname)))
		return "the identity has a text without an end";
	if (!i->id[0])
		return NULL; /* who it was */
	if (strlen(i->id) >= AV_ID_SIZE)
		return "the id of the sandbox is too long";
	n = strlen(i->hostname);
	if (n == 0 || n > AV_GUEST_HOSTNAME_MAX)
		return "the host name must have 1 to 63 characters";
	if (i->number > QEMU_NUMBER_MAX)
		return "this machine has addresses for 4096 sandboxes with a kernel of their own";
	if (i->flags & ~(uint32_t)(VM_INTERNET | VM_NO_SUDO))
		return "the identity has flags that are unknown here";
	return NULL;
}

static const char *start_wrong(const struct machine *m, const struct vm_start *s)
{
	bool restore = s->mode == VM_MODE_RESTORE;

	if (m->state != VM_STATE_NEW)
		return "this machine has been started already";
	if (s->mode < VM_MODE_IMAGE || s->mode > VM_MODE_RESTORE)
		return "START has a mode that is unknown here";
	if (s->flags & ~(uint32_t)(VM_INTERNET | VM_NO_SUDO))
		return "START has flags that are unknown here";
	if (s->mode == VM_MODE_IMAGE)
		return m->o->agent_fd < 0 ? "an image needs a descriptor of the agent" : NULL;
	if (s->accel > VM_ACCEL_KVM || (!s->accel && !restore))
		return "START names no accelerator";
	if (s->accel == VM_ACCEL_KVM && m->o->kvm_fd < 0)
		return "KVM needs a descriptor of /dev/kvm";
	if (restore && !s->memory_bytes && !s->vcpus)
		return identity_wrong(&s->identity);
	if (s->memory_bytes % (2u << 20) || s->memory_bytes < MACHINE_MEMORY_MIN ||
	    s->memory_bytes > MACHINE_MEMORY_MAX)
		return "memory must be 64 MiB to 1 TiB, in steps of 2 MiB";
	if (!s->vcpus || s->vcpus > MACHINE_VCPUS_MAX)
		return "a machine has 1 to 64 processors";
	return restore ? identity_wrong(&s->identity) : NULL;
}

static void start(struct machine *m)
{
	switch (m->start.mode) {
	case VM_MODE_IMAGE:
		machine_image(m);
		break;
	case VM_MODE_GOLDEN:
		machine_golden(m);
		break;
	default:
		machine_restore(m);
		break;
	}
}

/* Sentence, or NULL: the state allows it. */
static const char *state_wrong(const struct machine *m, uint32_t op)
{
	static const struct {
		uint32_t op;
		enum vm_state state;
		const char *text;
	} rows[] = {
	    {VM_HOLD, VM_STATE_RUNNING, "only a machine that runs can be held"},
	    {VM_HAND_OVER, VM_STATE_HELD, "only a machine that is held can be handed over"},
	    {VM_PAUSE, VM_STATE_RUNNING, "only a machine that runs can be paused"},
	    {VM_RESUME, VM_STATE_PAUSED, "only a machine that is paused can be resumed"},
	    {VM_SAVE, VM_STATE_RUNNING, "only a machine that runs can be saved"},
	};

	for (size_t i = 0; i < AV_ARRAY_LEN(rows); i++)
		if (rows[i].op == op && m->state != rows[i].state)
			return rows[i].text;
	return NULL;
}

static void take_identity(struct machine *m, const struct vm_identity *i)
{
	if (!i->id[0])
		return;
	/* A machine-id lives as long as a sandbox: through its pauses, not beyond. */
	if (strcmp(m->identity.id, i->id) != 0)
		av_random(m->machine_id, sizeof(m->machine_id));
	m->identity = *i;
}

static void carry_out(struct machine *m, const struct vm_request *q)
{
	m->state_before = m->state;
	m->error = (struct av_err){0};
	m->undoing = m->undo_failed = false;
	m->op_ns = av_mono_ns();
	uv_timer_start(&m->progress, on_progress, PROGRESS_MS, PROGRESS_MS);
	switch (q->op) {
	case VM_START:
		m->start = q->u.start;
		take_identity(m, &m->start.identity);
		start(m);
		break;
	case VM_HOLD:
		machine_hold(m);
		break;
	case VM_HAND_OVER:
		take_identity(m, &q->u.identity);
		machine_hand_over(m);
		break;
	case VM_PAUSE:
		machine_pause(m);
		break;
	case VM_RESUME:
		take_identity(m, &q->u.identity);
		machine_resume(m);
		break;
	case VM_SAVE:
		machine_save(m);
		break;
	default:
		m->dropping = q->u.save;
		machine_drop(m);
		break;
	}
}

/* A machine's network is QEMU's: it cannot become another one while it is held. */
static const char *hand_over_wrong(const struct machine *m, const struct vm_identity *i)
{
	if (!i->id[0])
		return "HAND_OVER names no sandbox";
	if (i->number != m->identity.number ||
	    (i->flags & VM_INTERNET) != (m->identity.flags & VM_INTERNET))
		return "a machine that is held keeps its number and its access to the internet";
	return NULL;
}

static const char *request_wrong(const struct machine *m, const struct vm_request *q)
{
	const char *why = NULL;

	if (q->op < VM_START || q->op > VM_DROP || q->reserved)
		return "aviary-vm does not know this request";
	if (q->op == VM_START)
		why = start_wrong(m, &q->u.start);
	if (!why && (q->op == VM_RESUME || q->op == VM_HAND_OVER))
		why = identity_wrong(&q->u.identity);
	if (!why && q->op == VM_HAND_OVER && m->state == VM_STATE_HELD)
		why = hand_over_wrong(m, &q->u.identity);
	if (!why && q->op == VM_DROP && (!q->u.save || q->u.save > MACHINE_SAVES_MAX))
		why = "there is no save of that number";
	return why;
}

void machine_request(struct machine *m, uint64_t client, const struct vm_request *q)
{
	const char *why;

	if (q->op == VM_STATUS) {
		status(m, client, q->seq);
		return;
	}
	if (q->protocol != VM_PROTOCOL) {
		refuse(m, client, q, AV_ERR_UNSUPPORTED,
		    "this machine was started by another version of Aviary, whose requests it "
		    "knows");
		return;
	}
	if (m->plan || m->stopping) {
		refuse(
		    m, client, q, AV_ERR_INVALID_STATE, "the machine is busy with another request");
		return;
	}
	if (m->state == VM_STATE_FAILED) {
		refuse(m, client, q, AV_ERR_INVALID_STATE, m->error.message);
		return;
	}
	why = request_wrong(m, q);
	if (why) {
		refuse(m, client, q, AV_ERR_INVALID, why);
		return;
	}
	why = state_wrong(m, q->op);
	if (why) {
		refuse(m, client, q, AV_ERR_INVALID_STATE, why);
		return;
	}
	m->client = client;
	m->op = q->op;
	m->seq = q->seq;
	carry_out(m, q);
}

/* --- life --- */

int machine_new(struct children *children, const struct machine_options *options,
    const struct machine_ops *ops, void *ctx, struct machine **ret)
{
	struct machine *m = calloc(1, sizeof(*m));
	int r = m ? links_new(children->loop, options->listener, &m->links) : -ENOMEM;

	if (r < 0) {
		free(m);
		return r;
	}
	m->children = children;
	m->loop = children->loop;
	m->o = options;
	m->ops = ops;
	m->ctx = ctx;
	m->state = VM_STATE_NEW;
	uv_timer_init(m->loop, &m->limit);
	uv_timer_init(m->loop, &m->progress);
	uv_timer_init(m->loop, &m->pause);
	uv_timer_init(m->loop, &m->last);
	machine_room_init(m);
	m->limit.data = m->progress.data = m->pause.data = m->last.data = m;
	*ret = m;
	return 0;
}
