/* SPDX-License-Identifier: Apache-2.0 */
/*
 * machine_qemu.c - QEMU within a machine: commands, events, and what its end means
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

#include "base/avtime.h"
#include "base/fd.h"
#include "base/json.h"
#include "vm/machine_internal.h"

#include "base/banned.h"

#define GREETING_MS 30000
#define STATE_MS    60000 /* to write what the devices hold, a few 100 KB */
#define ANSWER_MS   60000 /* for a guest that goes on, to answer the reset of its control port */
#define BOOT_MS     300000
#define GONE_MS     2000 /* for QEMU to end after it closed its monitor */
#define STOP_MS     5000 /* for QEMU to end by itself */

bool machine_lives(const struct machine *m)
{
	return m->qemu && qemu_pid(m->qemu) > 0;
}

static void on_last(uv_timer_t *timer)
{
	struct machine *m = timer->data;

	if (m->qemu)
		qemu_kill(m->qemu);
}

void machine_qemu_kill_soon(struct machine *m, uint32_t ms)
{
	uv_timer_start(&m->last, on_last, ms, 0);
}

void machine_qemu_drop(struct machine *m)
{
	uv_timer_stop(&m->last);
	m->asked = false;
	machine_fed(m);
	qmp_close(AV_TAKE_PTR(m->qmp));
	vlink_port_close(AV_TAKE_PTR(m->control));
	links_run(m->links, false);
	links_shut(m->links);
	qemu_free(AV_TAKE_PTR(m->qemu));
	m->ended = m->quitting = m->stopped = m->wants_resume = m->greeted = false;
}

/* --- its end --- */

struct end {
	enum av_exit_reason reason;
	uint32_t code;
	char text[AV_EXIT_RECORD_TEXT + 1]; /* for the record */
	char sentence[360];                 /* for an error */
};

static struct end why_ended(struct machine *m)
{
	struct end e = {.reason = AV_EXIT_FATAL};
	char words[MACHINE_WORDS_MAX], console[MACHINE_WORDS_MAX];
	int st = m->exit_status;

	qemu_words(m->qemu, words, sizeof(words));
	qemu_console(m->qemu, console, sizeof(console));
	if (qemu_panicked(m->qemu, console, sizeof(console)) || m->panicked) {
		snprintf(e.text, sizeof(e.text), "the guest's kernel panicked");
		snprintf(e.sentence, sizeof(e.sentence), "the guest's kernel panicked: %s",
		    console[0] ? console : "it gave no reason");
	} else if (strcmp(m->shutdown, "guest-reset") == 0) {
		qemu_console(m->qemu, console, sizeof(console));
		snprintf(e.text, sizeof(e.text), "the guest restarted");
		snprintf(e.sentence, sizeof(e.sentence),
		    "the guest restarted, which ends it; the last it said: %s",
		    console[0] ? console : "nothing");
	} else if (strcmp(m->shutdown, "guest-shutdown") == 0) {
		e.reason = AV_EXIT_STOPPED;
		snprintf(e.text, sizeof(e.text), "the guest powered off");
		snprintf(e.sentence, sizeof(e.sentence), "the guest powered off");
	} else if (m->given_up) {
		snprintf(e.text, sizeof(e.text), "the guest does not answer any more");
		snprintf(e.sentence, sizeof(e.sentence), "the guest does not answer any more");
	} else if (WIFSIGNALED(st) && WTERMSIG(st) == SIGKILL && m->lost[0]) {
		e.code = SIGKILL;
		snprintf(e.text, sizeof(e.text), "%.40s", m->lost);
		snprintf(e.sentence, sizeof(e.sentence), "QEMU was killed: %s", m->lost);
	} else if (WIFSIGNALED(st) && WTERMSIG(st) == SIGKILL) {
		e.code = SIGKILL;
		snprintf(e.text, sizeof(e.text), "QEMU was killed");
		snprintf(e.sentence, sizeof(e.sentence), "QEMU was killed");
	} else if (WIFSIGNALED(st)) {
		e.code = (uint32_t)WTERMSIG(st);
		snprintf(e.text, sizeof(e.text), "QEMU crashed (signal %d)", WTERMSIG(st));
		snprintf(e.sentence, sizeof(e.sentence), "QEMU crashed (signal %d)%s%s",
		    WTERMSIG(st), words[0] ? ": " : "", words);
	} else if (WIFEXITED(st) && WEXITSTATUS(st) == 127 && !words[0]) {
		e.code = 127;
		snprintf(e.text, sizeof(e.text), "QEMU cannot be run");
		snprintf(e.sentence, sizeof(e.sentence),
		    "%s cannot be run (package qemu-system-x86)", m->o->qemu);
	} else {
		e.code = (uint32_t)WEXITSTATUS(st);
		snprintf(e.text, sizeof(e.text), "QEMU ended (status %d)", WEXITSTATUS(st));
		snprintf(e.sentence, sizeof(e.sentence), "QEMU ended: %s",
		    words[0] ? words : "it gave no reason");
	}
	return e;
}

void machine_ended(struct machine *m)
{
	struct end e = why_ended(m);

	machine_qemu_drop(m);
	if (m->stopping)
		machine_told_to_end(m);
	else
		m->ops->on_gone(m->ctx, m->recorded ? AV_EXIT_NONE : e.reason, e.code, e.text);
}

static void on_exit_qemu(void *ctx, int status)
{
	struct machine *m = ctx;
	struct end e;

	m->ended = true;
	m->exit_status = status;
	links_run(m->links, false);
	if (m->plan && m->quitting) {
		machine_qemu_drop(m);
		machine_next(m);
	} else if (m->plan && m->committing) {
		return;
	} else if (m->plan) {
		e = why_ended(m);
		machine_failf(m, AV_ERR_INTERNAL, "%s", e.sentence);
	} else {
		machine_ended(m);
	}
}

/* --- QMP --- */

static void on_machine_type(void *ctx, const json_t *ret, const struct av_err *err)
{
	static const char suffix[] = "-machine";
	struct machine *m = ctx;
	struct av_str s = av_str_c(json_is_string(ret) ? json_string_value(ret) : NULL);

	if (err) {
		machine_fail(m, err);
		return;
	}
	if (!av_str_ends(s, av_str_c(suffix)) || s.n >= sizeof(m->machine_type)) {
		machine_failf(m, AV_ERR_UPSTREAM, "QEMU does not say what machine it is");
		return;
	}
	for (size_t i = 0; i < s.n; i++)
		m->machine_type[i] = s.p[i] > ' ' && s.p[i] < 0x7f ? s.p[i] : '?';
	m->machine_type[s.n - strlen(suffix)] = '\0';
	machine_next(m);
}

/* The type that "q35" stands for, which a restore has to name. */
static void on_ready(void *ctx, const struct qmp_version *v)
{
	struct machine *m = ctx;
	int r;

	m->times.qemu_us = machine_us(m->qemu_ns);
	snprintf(m->version, sizeof(m->version), "%u.%u.%u", v->major, v->minor, v->micro);
	if (m->machine_type[0]) {
		machine_next(m);
		return;
	}
	r = qmp_call(m->qmp, "qom-get",
	    json_pack("{s:s,s:s}", "path", "/machine", "property", "type"), QMP_MS, on_machine_type,
	    m);
	if (r < 0)
		machine_failf(m, AV_ERR_INTERNAL, "QEMU cannot be asked: %s", strerror(-r));
}

static void on_event(void *ctx, const char *name, const json_t *data)
{
	struct machine *m = ctx;
	const json_t *reason = json_object_get(data, "reason");

	if (strcmp(name, "BLOCK_IO_ERROR") == 0) {
		machine_starves(m, data);
	} else if (strcmp(name, "RESUME") == 0) {
		m->stopped = false;
		machine_fed(m);
		if (m->wants_resume) {
			m->wants_resume = false;
			machine_next(m);
		}
	} else if (strcmp(name, "STOP") == 0) {
		m->stopped = true;
	} else if (strcmp(name, "SHUTDOWN") == 0) {
		qmp_printable(m->shutdown, sizeof(m->shutdown),
		    json_is_string(reason) ? json_string_value(reason) : "");
	} else if (strcmp(name, "GUEST_PANICKED") == 0) {
		/* It stands still now, and nothing will make it go on. */
		m->panicked = true;
		if (m->qemu)
			qemu_kill(m->qemu);
	}
}

static void on_qmp_end(void *ctx, const struct av_err *why)
{
	struct machine *m = ctx;

	qmp_close(AV_TAKE_PTR(m->qmp));
	/* Its process tells more, unless it lives and is of no use any more. */
	if (why->kind == AV_ERR_UNAVAILABLE) {
		machine_qemu_kill_soon(m, GONE_MS);
		return;
	}
	snprintf(m->lost, sizeof(m->lost), "%.159s", why->message);
	machine_fail(m, why);
	if (m->qemu)
		qemu_kill(m->qemu);
}

static const struct qmp_ops qmp_ops = {on_ready, on_event, on_qmp_end};

static int open_links(struct machine *m)
{
	int fds[AV_GUEST_LINKS];

	for (unsigned i = 0; i < AV_GUEST_LINKS; i++)
		fds[i] = qemu_take_link(m->qemu, i);
	return links_open(m->links, fds);
}

static int open_sockets(struct machine *m, bool boot)
{
	int fd = qemu_take_qmp(m->qemu);
	int r = qmp_open(m->loop, fd, GREETING_MS, &qmp_ops, m, &m->qmp);

	if (r < 0) {
		av_close_fd(&fd);
		return r;
	}
	r = machine_control_open(m, qemu_take_control(m->qemu), boot ? BOOT_MS : ANSWER_MS);
	return r < 0 ? r : open_links(m);
}

void machine_qemu_start(struct machine *m, bool boot, int state_fd)
{
	static const struct child_ops ops = {on_exit_qemu};
	struct qemu_config config = {
	    .program = m->o->qemu,
	    .root = m->o->root,
	    .memory = m->memory,
	    .machine = m->machine_type[0] ? m->machine_type : "q35",
	    .memory_bytes = m->start.memory_bytes,
	    .vcpus = m->start.vcpus,
	    .number = m->identity.number,
	    .kvm = m->start.accel == VM_ACCEL_KVM,
	    .boot = boot,
	    .internet = (m->identity.flags & VM_INTERNET) != 0,
	    .kvm_fd = m->o->kvm_fd,
	    .state_fd = state_fd,
	};
	struct av_err err = {0};
	int r;

	m->ended = m->stopped = m->wants_resume = m->panicked = m->given_up = false;
	m->shutdown[0] = m->lost[0] = '\0';
	m->times = (struct vm_times){0};
	m->qemu_ns = av_mono_ns();
	if (qemu_start(m->children, &config, &ops, m, &m->qemu, &err) < 0) {
		machine_fail(m, &err);
		return;
	}
	r = open_sockets(m, boot);
	if (r < 0)
		machine_failf(m, AV_ERR_INTERNAL, "its sockets: %s", strerror(-r));
}

static void on_command(void *ctx, const json_t *ret, const struct av_err *err)
{
	struct machine *m = ctx;

	(void)ret;
	m->asked = false;
	if (err)
		machine_fail(m, err);
	else
		machine_next(m);
}

static void command(
    struct machine *m, const char *name, json_t *args, uint64_t timeout_ms, qmp_reply_fn *on_reply)
{
	int r;

	if (!m->qmp) {
		json_decref(args);
		machine_failf(m, AV_ERR_UNAVAILABLE, "QEMU has gone");
		return;
	}
	r = qmp_call(m->qmp, name, args, timeout_ms, on_reply, m);
	if (r < 0)
		machine_failf(m, AV_ERR_INTERNAL, "QEMU cannot be asked: %s", strerror(-r));
}

void machine_command(struct machine *m, const char *name, json_t *args)
{
	m->asked = true;
	command(m, name, args, QMP_MS, on_command);
}

/* --- steps --- */

static void on_cont(void *ctx, const json_t *ret, const struct av_err *err)
{
	(void)ret;
	if (err)
		machine_fail(ctx, err);
	/* the event RESUME is what counts: while a state is loaded this only says that it may run
	 */
}

void machine_step_cont(struct machine *m)
{
	m->wants_resume = true;
	command(m, "cont", NULL, QMP_MS, on_cont);
}

static void on_stop(void *ctx, const json_t *ret, const struct av_err *err)
{
	struct machine *m = ctx;

	(void)ret;
	m->asked = false;
	if (err) {
		machine_fail(m, err);
		return;
	}
	m->stopped = true;
	machine_next(m);
}

void machine_step_stop(struct machine *m)
{
	m->stop_ns = av_mono_ns();
	m->was_stopped = m->asked = true;
	command(m, "stop", NULL, STATE_MS, on_stop);
}

void machine_step_save_state(struct machine *m)
{
	char path[PATH_MAX];

	machine_path(m, path, "vm/saves/%u/state", m->work.save);
	m->asked = true;
	command(m, "xen-save-devices-state", json_pack("{s:s,s:b}", "filename", path, "live", 0),
	    STATE_MS, on_command);
}

static void on_tried(void *ctx, const json_t *ret, const struct av_err *err)
{
	(void)ctx;
	(void)ret;
	(void)err; /* an event says whether it runs */
}

void machine_try_cont(struct machine *m)
{
	if (m->qmp)
		(void)!qmp_call(m->qmp, "cont", NULL, QMP_MS, on_tried, m);
}

static void on_quit(void *ctx, const json_t *ret, const struct av_err *err)
{
	(void)ctx;
	(void)ret;
	(void)err; /* its end is what the step waits for */
}

void machine_step_quit(struct machine *m)
{
	m->quitting = true;
	if (!machine_lives(m)) {
		machine_qemu_drop(m);
		machine_next(m);
		return;
	}
	/* All that is saved has been synced: nothing is lost by not asking. */
	qemu_kill(m->qemu);
}

void machine_told_to_end(struct machine *m)
{
	m->ops->on_gone(m->ctx, AV_EXIT_STOPPED, SIGTERM, "told to end");
}

void machine_stop(struct machine *m)
{
	if (m->stopping)
		return;
	m->stopping = true;
	if (!machine_lives(m)) {
		machine_told_to_end(m);
		return;
	}
	machine_qemu_kill_soon(m, STOP_MS);
	if (!m->qmp || qmp_call(m->qmp, "quit", NULL, QMP_MS, on_quit, m) < 0)
		qemu_kill(m->qemu);
}
