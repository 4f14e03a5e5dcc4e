/* SPDX-License-Identifier: Apache-2.0 */
/*
 * main_command.c - the main command of the sandbox (see main_command.h)
 */
#include "agent/main_command.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <time.h>

#include "agent/agent.h"
#include "agent/record.h"
#include "base/buf.h"

#include "base/banned.h"

#define FLUSH_MS 200

static int64_t real_us(void)
{
	struct timespec ts = {0};

	clock_gettime(CLOCK_REALTIME, &ts);
	return (int64_t)ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
}

static void tell_readers(struct main_command *m)
{
	struct main_reader *r;

	AV_LIST_FOREACH(r, &m->readers, struct main_reader, node)
	r->on_more(r);
}

static void on_flush(uv_timer_t *timer)
{
	struct main_command *m = AV_CONTAINER_OF(timer, struct main_command, flush);

	/* What has just begun waits its own time. */
	main_log_flush(&m->log, real_us() - FLUSH_MS / 2 * 1000);
	if (main_log_is_pending(&m->log))
		uv_timer_start(&m->flush, on_flush, FLUSH_MS, 0);
	tell_readers(m);
}

static void on_output(struct process_sub *sub, uint8_t channel, const char *p, size_t n)
{
	struct main_command *m = AV_CONTAINER_OF(sub, struct main_command, sub);
	uint64_t before = m->log.next;

	main_log_append(
	    &m->log, channel == PROCESS_STDERR ? AV_MAINLOG_ERR : AV_MAINLOG_OUT, p, n, real_us());
	if (main_log_is_pending(&m->log) && !uv_is_active((uv_handle_t *)&m->flush))
		uv_timer_start(&m->flush, on_flush, FLUSH_MS, 0);
	if (m->log.next != before)
		tell_readers(m);
}

static void on_gap(struct process_sub *sub, uint64_t dropped)
{
	(void)sub;
	(void)dropped;
}

static void on_end(struct process_sub *sub, const struct process_end *end)
{
	struct main_command *m = AV_CONTAINER_OF(sub, struct main_command, sub);

	m->process = NULL;
	m->finished_us = real_us();
	m->signal = end->exited ? 0 : (uint32_t)end->signal;
	m->exit_code = end->exited ? (uint32_t)end->exit_code : 128 + m->signal;
	uv_timer_stop(&m->flush);
	main_log_flush(&m->log, INT64_MAX);
	record_write_main(m->exit_code, m->signal, end->status);
	tell_readers(m);
}

static const struct process_sub_ops sub_ops = {
    .on_output = on_output,
    .on_gap = on_gap,
    .on_end = on_end,
};

int main_command_start(struct agent *a, const struct process_params *params, size_t log_bytes,
    struct spawn_failure *ret_failure, struct av_err *err)
{
	struct main_command *m;
	int r;

	if (a->main)
		return av_err_set(
		    err, AV_ERR_CONFLICT, "the main command of this sandbox was started before");
	m = calloc(1, sizeof(*m));
	if (!m)
		return av_err_set(err, AV_ERR_NO_MEMORY, "out of memory in the sandbox's agent");
	av_list_init(&m->readers);
	av_list_init(&m->sub.node);
	main_log_init(&m->log, log_bytes);
	m->sub.ops = &sub_ops;
	m->sub.follow = true;
	m->started_us = real_us();
	r = process_start(&a->processes, params, &m->sub, &m->process, ret_failure, err);
	if (r < 0) {
		free(m);
		return r;
	}
	m->pid = process_pid(m->process);
	uv_timer_init(&a->loop, &m->flush);
	a->main = m;
	process_sub_ready(&m->sub);
	return 0;
}

bool main_command_has_ended(const struct main_command *m)
{
	return !m->process;
}

int main_command_describe(const struct main_command *m, struct av_buf *out)
{
	if (!m)
		return av_buf_append_c(out, "{\"state\":\"none\"}");
	(void)av_buf_printf(out, "{\"state\":\"%s\",\"pid\":%d,\"startedUs\":%" PRId64,
	    m->process ? "running" : "ended", (int)m->pid, m->started_us);
	if (!m->process)
		(void)av_buf_printf(out,
		    ",\"exitCode\":%" PRIu32 ",\"signal\":%" PRIu32 ",\"finishedUs\":%" PRId64,
		    m->exit_code, m->signal, m->finished_us);
	return av_buf_printf(
	    out, ",\"logFirst\":%" PRIu64 ",\"logNext\":%" PRIu64 "}", m->log.first, m->log.next);
}

int main_command_signal(struct main_command *m, int sig)
{
	return m->process ? process_signal(m->process, sig, true) : -ESRCH;
}
