/* SPDX-License-Identifier: Apache-2.0 */
/*
 * record.c - the exit record: what the host learns about the agent's end
 */
#include "agent/record.h"

#include <signal.h>
#include <stdbool.h>
#include <time.h>
#include <unistd.h>

#include "base/macros.h"

#include "base/banned.h"

/* A signal handler needs it; written once. */
static int record_fd = -1;

/* Where records go besides; written once. */
static void (*send_fn)(void *ctx, const uint8_t *record);
static void *send_ctx;

static bool has_main; /* how the main command ended stands there: nothing is worth more */

static void write_record(
    enum av_exit_reason reason, uint32_t code, uint32_t signal, const char *text)
{
	uint8_t record[AV_EXIT_RECORD_SIZE];
	struct timespec ts = {0};
	ssize_t n;

	clock_gettime(CLOCK_REALTIME, &ts);
	av_exit_record_encode(record, reason, code,
	    (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000, text);
	av_put_be32(record + 12, signal);
	/* Nothing can be done about a failure here; the host then has the kernel's evidence only.
	 */
	n = record_fd < 0 ? 0 : pwrite(record_fd, record, sizeof(record), 0);
	(void)n;
	if (send_fn)
		send_fn(send_ctx, record);
}

void record_send_to(void (*fn)(void *ctx, const uint8_t *record), void *ctx)
{
	send_fn = fn;
	send_ctx = ctx;
}

void record_write(enum av_exit_reason reason, uint32_t code, const char *text)
{
	if (!has_main)
		write_record(reason, code, 0, text);
}

void record_write_main(uint32_t code, uint32_t signal, const char *text)
{
	write_record(AV_EXIT_MAIN, code, signal, text);
	has_main = true;
}

static void on_fault(int sig, siginfo_t *info, void *context)
{
	(void)context;
	/* A handler takes away init's immunity to signals from inside: only the kernel's own and
	 * those of abort() count, or the sandbox could end its agent by kill(1, SIGSEGV). */
	if (info->si_code <= 0 && info->si_pid != getpid())
		return;
	/* What sends is not made for a signal handler. */
	send_fn = NULL;
	record_write(AV_EXIT_CRASH, (uint32_t)sig, NULL);
	/* PID 1 of a namespace cannot kill itself by a signal with default action, but it can exit.
	 */
	_exit(128 + sig);
}

void record_open(int fd)
{
	static const int faults[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT};
	struct sigaction sa = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO};

	record_fd = fd;
	sigfillset(&sa.sa_mask);
	for (size_t i = 0; i < AV_ARRAY_LEN(faults); i++)
		sigaction(faults[i], &sa, NULL);
}
