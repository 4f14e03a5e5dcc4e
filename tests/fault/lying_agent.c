/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lying_agent.c - the agent, but what it says of the log of its main command is what the first line
 * of that log asks for
 *
 * Linked with --wrap=main_log_read. An attacker who had taken over the agent of a sandbox could do
 * this and no more to the daemon's reading of logs.
 */
#include <string.h>
#include <unistd.h>

#include "agent/main_log.h"
#include "base/num.h"

size_t __real_main_log_read(
    const struct main_log *l, struct main_log_cursor *c, char *dst, size_t size);
size_t __wrap_main_log_read(
    const struct main_log *l, struct main_log_cursor *c, char *dst, size_t size);

/* Lines without end, each as it should be. */
static size_t flood(struct main_log_cursor *c, char *dst, size_t size)
{
	static char text[1000];
	size_t n = 0;

	memset(text, 'x', sizeof(text));
	while (n + AV_MAINLOG_HEAD + sizeof(text) <= size) {
		const struct av_mainlog_entry e = {.kind = AV_MAINLOG_LINE,
		    .stream = AV_MAINLOG_OUT,
		    .offset = c->offset++,
		    .time_us = 1,
		    .data = av_str_n(text, sizeof(text))};

		av_mainlog_put_head((uint8_t *)dst + n, &e);
		memcpy(dst + n + AV_MAINLOG_HEAD, text, sizeof(text));
		n += AV_MAINLOG_HEAD + sizeof(text);
	}
	return n;
}

size_t __wrap_main_log_read(
    const struct main_log *l, struct main_log_cursor *c, char *dst, size_t size)
{
	struct main_log_cursor first = {0};
	size_t n = __real_main_log_read(l, &first, dst, size);
	char asked[16] = "";

	if (n > AV_MAINLOG_HEAD)
		memcpy(asked, dst + AV_MAINLOG_HEAD,
		    n - AV_MAINLOG_HEAD < sizeof(asked) - 1 ? n - AV_MAINLOG_HEAD
		                                            : sizeof(asked) - 1);
	if (strncmp(asked, "flood", 5) == 0)
		return flood(c, dst, size);
	if (strncmp(asked, "garbage", 7) == 0) {
		memset(dst, 0xa5, size);
		return size;
	}
	if (strncmp(asked, "huge", 4) == 0) {
		memset(dst + AV_MAINLOG_HEAD, 'x', size - AV_MAINLOG_HEAD);
		av_put_be32(dst + 4, UINT32_MAX);
		return size;
	}
	if (strncmp(asked, "stall", 5) == 0)
		(void)sleep(30);
	return __real_main_log_read(l, c, dst, size);
}
