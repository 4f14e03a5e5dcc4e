/* SPDX-License-Identifier: Apache-2.0 */
/*
 * machine_guest.c - what a machine and the agent in its guest say to each other (proto/guest.h)
 *
 * The guest is asked one thing at a time, by the step under way. What it says unasked is its HELLO
 * and its exit record; anything else is dropped, and what is no message ends the connection, which
 * the next question begins anew. How long to wait is the step's business.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/avtime.h"
#include "base/fd.h"
#include "vm/machine_internal.h"

#include "base/banned.h"

#define ANSWER_MS     20000
#define CLOCK_SLACK_S 5 /* that a guest's clock may be off right after it was set */

static int64_t real_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return (int64_t)ts.tv_sec * AV_NS_PER_S + ts.tv_nsec;
}

/* --- asking --- */

static void send_message(struct machine *m, struct av_guest_message *q, enum av_guest_type expect)
{
	uint8_t text[AV_GUEST_MESSAGE_MAX];
	int r = m->control ? 0 : -EPIPE;

	q->seq = ++m->guest_seq;
	if (r == 0 && !vlink_port_connected(m->control))
		r = vlink_port_begin(m->control, ANSWER_MS);
	if (r == 0)
		r = vlink_port_send(
		    m->control, av_str_n((const char *)text, av_guest_encode(text, q)));
	if (r < 0) {
		machine_failf(m, AV_ERR_INTERNAL, "the guest cannot be asked: %s", strerror(-r));
		return;
	}
	m->expect = expect;
}

static void ask(struct machine *m, enum av_guest_type type)
{
	struct av_guest_message q = {.type = type};

	send_message(m, &q, AV_GUEST_DONE);
}

/* --- answers --- */

static void on_done(struct machine *m, const struct av_guest_done *done)
{
	if (done->error)
		machine_failf(m, AV_ERR_AGENT, "the guest: %s",
		    done->text[0] ? done->text : strerror(done->error));
	else
		machine_next(m);
}

/* NULL: the guest is who it was told to be. */
static const char *differs(const struct machine *m, const struct av_guest_confirm *c)
{
	int64_t off = c->real_ns - (m->told.real_ns + (av_mono_ns() - m->told_ns));

	if (strcmp(c->hostname, m->told.hostname) != 0)
		return "host name";
	if (memcmp(c->machine_id, m->told.machine_id, sizeof(c->machine_id)) != 0)
		return "machine-id";
	if (memcmp(c->mac, m->told.mac, sizeof(c->mac)) != 0)
		return "hardware address";
	if (c->address != m->told.address)
		return "address";
	if (off > CLOCK_SLACK_S * AV_NS_PER_S || off < -CLOCK_SLACK_S * AV_NS_PER_S)
		return "clock";
	return NULL;
}

static void on_confirm(struct machine *m, const struct av_guest_confirm *c)
{
	const char *what;

	if (c->error) {
		machine_failf(
		    m, AV_ERR_AGENT, "the guest: %s", c->text[0] ? c->text : strerror(c->error));
		return;
	}
	what = differs(m, c);
	if (what) {
		machine_failf(m, AV_ERR_AGENT,
		    "the guest confirmed another %s than it was given, so it is not handed over",
		    what);
		return;
	}
	m->times.confirm_us = machine_us(m->told_ns);
	machine_next(m);
}

static void on_hello(struct machine *m, const struct av_guest_hello *hello)
{
	if (m->greeted)
		return;
	m->hello = *hello;
	m->greeted = true;
	if (hello->version != AV_GUEST_VERSION) {
		machine_failf(m, AV_ERR_UNSUPPORTED,
		    "the agent in the guest is of another version of Aviary (it speaks %u, this "
		    "one %u): make the image anew",
		    hello->version, AV_GUEST_VERSION);
		return;
	}
	if (m->expect == AV_GUEST_HELLO) {
		m->expect = AV_GUEST_NONE;
		machine_next(m);
	}
}

static void on_record(void *ctx, struct av_str payload)
{
	struct machine *m = ctx;
	struct av_guest_message a;
	struct av_exit_record record;

	if (av_guest_decode(payload, &a) < 0) {
		vlink_port_end(m->control);
		machine_failf(m, AV_ERR_UPSTREAM, "the guest said what is no message");
		return;
	}
	if (a.type == AV_GUEST_HELLO) {
		on_hello(m, &a.hello);
	} else if (a.type == AV_GUEST_RECORD) {
		if (av_exit_record_decode(a.record, sizeof(a.record), &record) == 0) {
			m->recorded = true;
			m->ops->on_record(m->ctx, a.record);
		}
	} else if (a.type == AV_GUEST_KILLS) {
		m->kills = a.kills;
	} else if (a.type == m->expect && a.seq == m->guest_seq) {
		m->expect = AV_GUEST_NONE;
		if (a.type == AV_GUEST_DONE)
			on_done(m, &a.done);
		else
			on_confirm(m, &a.confirm);
	}
}

static void on_begin(void *ctx)
{
	struct machine *m = ctx;

	if (!m->times.hello_us)
		m->times.hello_us = machine_us(m->qemu_ns);
}

static void on_end(void *ctx, int why)
{
	struct machine *m = ctx;

	/* QEMU's own end tells more. */
	if (m->expect == AV_GUEST_NONE || why == -EPIPE)
		return;
	if (why == -ETIMEDOUT)
		machine_failf(m, AV_ERR_REQUEST_TIMEOUT, "the guest does not answer");
	else
		machine_failf(m, AV_ERR_UPSTREAM, "the guest broke off: %s", strerror(-why));
}

static const struct vlink_port_ops ops = {
    .on_begin = on_begin, .on_record = on_record, .on_end = on_end};

int machine_control_open(struct machine *m, int fd, uint64_t timeout_ms)
{
	int r = vlink_port_open(m->loop, fd, AV_VLINK_OUTSIDE, &ops, m, &m->control);

	if (r < 0) {
		av_close_fd(&fd);
		return r;
	}
	m->greeted = false;
	return vlink_port_begin(m->control, timeout_ms);
}

/* --- steps --- */

void machine_step_hello(struct machine *m)
{
	if (m->greeted)
		machine_next(m);
	else
		m->expect = AV_GUEST_HELLO;
}

void machine_step_warm(struct machine *m)
{
	ask(m, AV_GUEST_WARM);
}

void machine_step_freeze(struct machine *m)
{
	m->frozen = true; /* also when it fails half way */
	ask(m, AV_GUEST_FREEZE);
}

void machine_step_thaw(struct machine *m)
{
	m->frozen = false;
	ask(m, AV_GUEST_THAW);
}

void machine_step_identity(struct machine *m)
{
	struct av_guest_message q = {.type = AV_GUEST_IDENTITY};
	struct av_guest_identity *i = &q.identity;
	struct qemu_network net = qemu_network_of(m->identity.number);

	/* shorter, as was checked with the request */
	memcpy(i->id, m->identity.id, sizeof(i->id));
	snprintf(i->hostname, sizeof(i->hostname), "%s", m->identity.hostname);
	memcpy(i->machine_id, m->machine_id, sizeof(i->machine_id));
	av_random(i->entropy, sizeof(i->entropy));
	memcpy(i->mac, net.mac, sizeof(i->mac));
	if (m->identity.flags & VM_INTERNET) {
		i->flags |= AV_GUEST_HAS_INTERNET;
		i->prefix_len = net.prefix_len;
		i->address = net.address;
		i->gateway = net.gateway;
		i->resolver = net.resolver;
	}
	if (m->identity.flags & VM_NO_SUDO)
		i->flags |= AV_GUEST_NO_SUDO;
	/* What is larger than it was when it was saved. To look whether there is something to do
	 * takes a guest 25 ms without KVM. */
	if (m->disk_bytes > m->work.info.disk_bytes)
		i->disk_bytes = m->identity.disk_bytes;
	i->pids_max = m->identity.pids_max;
	i->real_ns = real_ns();
	m->told = *i;
	m->told_ns = av_mono_ns();
	send_message(m, &q, AV_GUEST_CONFIRM);
	explicit_bzero(i->entropy, sizeof(i->entropy));
	explicit_bzero(m->told.entropy, sizeof(m->told.entropy));
}
