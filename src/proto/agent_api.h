/* SPDX-License-Identifier: Apache-2.0 */
/*
 * agent_api.h - names and numbers that daemon and agent agree on
 *
 * HTTP/2 with prior knowledge on the agent's socket. A new daemon works with agents of the previous
 * protocol version that are still running, so nothing here changes meaning; things are added.
 */
#pragma once

#include <errno.h>
#include <stdint.h>
#include <string.h>

#include "base/num.h"

#define AV_AGENT_PROTOCOL_VERSION 1
#define AV_AGENT_AUTHORITY        "agent" /* :authority of the daemon's requests */

/* Descriptors the agent starts with, besides 0, 1, 2 on /dev/null. */
#define AV_AGENT_FD_LISTEN      3 /* listening SOCK_STREAM unix socket */
#define AV_AGENT_FD_EXIT_RECORD 4 /* write-only file */
#define AV_AGENT_ENV_ID         "AVIARY_SANDBOX_ID"

/* Routes. */
#define AV_AGENT_PATH_HEALTH  "/health"
#define AV_AGENT_PATH_METRICS "/metrics"
#define AV_AGENT_PATH_ENVS    "/envs"
#define AV_AGENT_PATH_INIT    "/init"
/* {"frozen_ms":n}: nothing ran for so long; sent right before the sandbox is thawed. */
#define AV_AGENT_PATH_THAWED       "/thawed"
#define AV_AGENT_PATH_FILES        "/files"
#define AV_AGENT_PATH_TAR          "/files/tar"
#define AV_AGENT_PATH_PROCESS      "/process.Process/" /* + method */
#define AV_AGENT_PATH_START        "/process.Process/Start"
#define AV_AGENT_PATH_CONNECT      "/process.Process/Connect"
#define AV_AGENT_PATH_LIST         "/process.Process/List"
#define AV_AGENT_PATH_UPDATE       "/process.Process/Update"
#define AV_AGENT_PATH_INPUT        "/process.Process/SendInput"
#define AV_AGENT_PATH_STREAM       "/process.Process/StreamInput"
#define AV_AGENT_PATH_SIGNAL       "/process.Process/SendSignal"
#define AV_AGENT_PATH_CLOSE        "/process.Process/CloseStdin"
#define AV_AGENT_PATH_FS           "/filesystem.Filesystem/" /* + method */
#define AV_AGENT_PATH_STAT         "/filesystem.Filesystem/Stat"
#define AV_AGENT_PATH_MKDIR        "/filesystem.Filesystem/MakeDir"
#define AV_AGENT_PATH_MOVE         "/filesystem.Filesystem/Move"
#define AV_AGENT_PATH_LISTDIR      "/filesystem.Filesystem/ListDir"
#define AV_AGENT_PATH_REMOVE       "/filesystem.Filesystem/Remove"
#define AV_AGENT_PATH_WATCHDIR     "/filesystem.Filesystem/WatchDir"
#define AV_AGENT_PATH_WATCH_CREATE "/filesystem.Filesystem/CreateWatcher"
#define AV_AGENT_PATH_WATCH_EVENTS "/filesystem.Filesystem/GetWatcherEvents"
#define AV_AGENT_PATH_WATCH_REMOVE "/filesystem.Filesystem/RemoveWatcher"
/* Ours: {"path","mode":int,"owner":str,"group":str,"recursive":bool} -> {} */
#define AV_AGENT_PATH_SET_ATTRIBUTES "/filesystem.Filesystem/SetAttributes"
#define AV_AGENT_PATH_EXECUTE        "/execute"
#define AV_AGENT_PATH_CONTEXTS                                                                     \
	"/contexts" /* and below: "/{id}", "/{id}/restart", "/{id}/interrupt" */
#define AV_AGENT_PATH_WARM "/contexts/warm"

/* The main command: see agent/main_rpc.c. */
#define AV_AGENT_PATH_MAIN        "/main"
#define AV_AGENT_PATH_MAIN_SIGNAL "/main/signal"
#define AV_AGENT_PATH_MAIN_LOG    "/main/log"
#define AV_AGENT_MAIN_TAG         "main" /* in the list of processes */

/* Content types. */
#define AV_AGENT_CT_JSON    "application/json"
#define AV_AGENT_CT_CONNECT "application/connect+json"
#define AV_AGENT_CT_FRAMES  "application/aviary-frames"
#define AV_AGENT_CT_BYTES   "application/octet-stream"
#define AV_AGENT_CT_MAINLOG "application/aviary-main-log" /* proto/mainlog.h */

/* What POST /execute answers with when asked for by "accept": lines "TYPE JSON\n"
 * (proto/jupyter.h), none longer than AV_AGENT_LINE_MAX. Otherwise it answers with E2B's lines. */
#define AV_AGENT_CT_KERNEL "application/aviary-kernel"
#define AV_AGENT_LINE_MAX  ((size_t)16 * 1024 * 1024)

/* WebSocket subprotocol that passes frames through to users. */
#define AV_AGENT_WS_PROTOCOL "aviary-frames.v1"

/* Output of a process nobody is attached to: the newest bytes kept. */
#define AV_AGENT_RING_BYTES (1024 * 1024)
/* Finished processes stay known for Connect. */
#define AV_AGENT_REMEMBER_MS 30000

/*
 * The exit record: written by the agent (one pwrite at offset 0) when it ends for a reason that it
 * knows, read by the host from outside. 64 bytes, numbers big-endian:
 *   0  "AVX1"
 *   4  u32 reason, enum av_exit_reason
 *   8  u32 exit code or signal number of what ended
 *  12  u32 with AV_EXIT_MAIN the signal that ended it (the code is 128 + n then), else zero
 *  16  u64 CLOCK_REALTIME in milliseconds
 *  24  40 bytes of text, NUL-padded
 * A guest may have forged none of it (the file is open in the agent only), but the agent counts as
 * hostile: decode checks all and the text is made printable.
 */
#define AV_EXIT_RECORD_SIZE 64
#define AV_EXIT_RECORD_TEXT 40

enum av_exit_reason {
	AV_EXIT_NONE = 0,
	AV_EXIT_STOPPED = 1, /* the agent was told to end (SIGTERM) */
	AV_EXIT_FATAL = 2,   /* the agent met an error it cannot go on after */
	AV_EXIT_CRASH = 3,   /* the agent caught a fatal signal of its own; code is the signal */
	AV_EXIT_MAIN = 4,    /* the sandbox's main command ended; code is its exit code */
	AV_EXIT_REASON_COUNT
};

struct av_exit_record {
	enum av_exit_reason reason;
	uint32_t code, signal;
	uint64_t real_ms;
	char text[AV_EXIT_RECORD_TEXT + 1];
};

/* Async-signal-safe. text may be NULL; cut to the field. */
static inline void av_exit_record_encode(uint8_t dst[static AV_EXIT_RECORD_SIZE],
    enum av_exit_reason reason, uint32_t code, uint64_t real_ms, const char *text)
{
	static const uint8_t magic[4] = {'A', 'V', 'X', '1'};
	memset(dst, 0, AV_EXIT_RECORD_SIZE);
	memcpy(dst, magic, sizeof(magic));
	av_put_be32(dst + 4, (uint32_t)reason);
	av_put_be32(dst + 8, code);
	av_put_be32(dst + 16, (uint32_t)(real_ms >> 32));
	av_put_be32(dst + 20, (uint32_t)real_ms);
	for (size_t i = 0; text && text[i] && i < AV_EXIT_RECORD_TEXT; i++)
		dst[24 + i] = (uint8_t)text[i];
}

/* 0; -ENODATA if n is 0 (nothing was written); -EINVAL if it is not such a record. */
static inline int av_exit_record_decode(const void *p, size_t n, struct av_exit_record *ret)
{
	const uint8_t *b = p;
	if (n == 0)
		return -ENODATA;
	if (n < AV_EXIT_RECORD_SIZE || memcmp(b, "AVX1", 4) != 0)
		return -EINVAL;
	uint32_t reason = av_get_be32(b + 4);
	uint32_t signal = av_get_be32(b + 12);
	if (reason == AV_EXIT_NONE || reason >= AV_EXIT_REASON_COUNT ||
	    (signal != 0 && reason != AV_EXIT_MAIN))
		return -EINVAL;
	if (reason == AV_EXIT_MAIN && (av_get_be32(b + 8) > 255 || signal > 64 ||
	                                  (signal && av_get_be32(b + 8) != 128 + signal)))
		return -EINVAL;
	*ret = (struct av_exit_record){
	    .reason = (enum av_exit_reason)reason,
	    .code = av_get_be32(b + 8),
	    .signal = signal,
	    .real_ms = (uint64_t)av_get_be32(b + 16) << 32 | av_get_be32(b + 20),
	};
	for (size_t i = 0; i < AV_EXIT_RECORD_TEXT && b[24 + i]; i++)
		ret->text[i] = (b[24 + i] >= 0x20 && b[24 + i] < 0x7f) ? (char)b[24 + i] : '?';
	return 0;
}
