/* SPDX-License-Identifier: Apache-2.0 */
/*
 * stream.h - what goes on between the daemon and one agent: processes, bodies, calls
 *
 * Three kinds of conversation, opened through control (which finds the sandbox and checks its
 * state) and then driven with the verbs here:
 *
 * - node_exec: a process; output frames towards us, input frames towards it.
 * - node_stream: one HTTP request to the agent with streaming bodies both ways.
 * - node_call: an answer that somebody waits for; can be cancelled.
 *
 * Rules for all of them:
 *
 * - Everything runs on the loop thread.
 * - Callbacks never run inside a function of this header; they come from the loop.
 * - The last callback is on_end (or the call's own callback). It comes exactly once, unless the
 *   owner cancelled. After it, and after _cancel, the handle is gone.
 * - A sandbox that dies, a connection that breaks and a daemon that stops all end it, with an
 *   error that says which.
 * - The agent is not trusted: frames over the limit, unknown channels, JSON of the wrong shape end
 *   the conversation with AV_ERR_AGENT.
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/str.h"
#include "base/trace.h"

/* ---- calls ---- */

/* First member of whatever waits for an answer; also control's own waits are such. */
struct node_call {
	void (*cancel)(struct node_call *call);
};
/* No callback any more. What was asked for is stopped where that makes sense (a collected exec is
 * killed) and otherwise goes on unobserved (a create). NULL is fine. */
void node_call_cancel(struct node_call *call);

/* ---- processes ---- */

/* Channel numbers of the frames codec. */
enum node_channel {
	NODE_CH_CONTROL = 0,
	NODE_CH_STDIN = 1,
	NODE_CH_STDOUT = 2,
	NODE_CH_STDERR = 3,
	NODE_CH_PTY = 4,
};

#define NODE_FRAME_MAX 65536 /* payload bytes */

/* What to run. Strings and JSON are borrowed for the call only. */
struct node_exec_spec {
	const char *cmd;     /* required */
	const json_t *args;  /* array of strings, or NULL */
	const json_t *envs;  /* object of strings, or NULL */
	const char *cwd;     /* NULL: the sandbox's default */
	const char *user;    /* NULL: the sandbox's default */
	const char *tag;     /* NULL: none */
	int64_t timeout_ms;  /* 0: none; the agent kills the whole process group */
	bool stdin_open;     /* false: /dev/null */
	bool keep_on_detach; /* the process lives on when we leave; else its group is killed */
	bool unattended;     /* nobody listens: on_start is all; output waits in the ring */
	uint32_t pty_cols, pty_rows;  /* both > 0: run on a PTY */
	const struct av_trace *trace; /* of who asks; NULL: none. Copied */
};

/* Which process. pid 0: by tag. */
struct node_selector {
	uint32_t pid;
	const char *tag;
};

struct node_exec_end {
	int exit_code; /* 0 to 255 when exited; 128 + signal when killed by one */
	bool exited;
	int signal; /* 0 when exited */
	bool core_dumped;
	bool timed_out; /* it was killed because timeout_ms passed */
	/* It (or a child whose death it hands on as exit status 137) was killed, not by us, and the
	 * kernel has killed in this sandbox for memory since the exec was opened. */
	bool oom_killed;
	char status[64]; /* for people: "exit status 1", "signal: killed" */
};

struct node_exec;

struct node_exec_events {
	/* tag "" when none; NULL allowed */
	void (*on_start)(void *ctx, uint32_t pid, const char *tag);
	/* STDOUT, STDERR or PTY bytes. */
	void (*on_output)(void *ctx, enum node_channel channel, struct av_str data);
	/* Bytes that the agent had to drop while nobody was attached; NULL allowed. */
	void (*on_gap)(void *ctx, uint64_t dropped);
	/* When set, whole frames come here as they are (5 bytes of header and the payload, CONTROL
	 * frames too, already checked) and none of the three above is called. `end` frames too,
	 * right before on_end; with "oomKilled": true where oom_killed is set.
	 */
	void (*on_frame)(void *ctx, struct av_str header, struct av_str payload);
	/* There is room again after node_exec_send returned false; NULL allowed. */
	void (*on_drain)(void *ctx);
	/* Either the process ended (end != NULL, err NULL), or the conversation failed (err !=
	 * NULL), or neither: without following, all that was kept has been shown. */
	void (*on_end)(void *ctx, const struct node_exec_end *end, const struct av_err *err);
};

/* Queues bytes for STDIN or PTY, or a CONTROL object. Data of any length is cut into frames. A zero
 * length on STDIN closes it. True while the queue is below its high mark; false: stop until
 * on_drain (the bytes were taken). After the end it does nothing. */
bool node_exec_send(struct node_exec *e, enum node_channel channel, struct av_str data);
/* Whole frames as a client made them; -EINVAL and nothing sent when they are not. *ret_more as
 * above. */
int node_exec_send_frames(struct node_exec *e, struct av_str frames, bool *ret_more);
bool node_exec_close_stdin(struct node_exec *e);
bool node_exec_resize(struct node_exec *e, uint32_t cols, uint32_t rows);
/* signo as in signal.h; group: its process group. */
bool node_exec_signal(struct node_exec *e, int signo, bool group);
/* Whether something sent still waits here for the agent to take it: a signal would wait behind it.
 */
bool node_exec_is_backed_up(const struct node_exec *e);
/* While paused the agent may send what fits in the stream's window (it still arrives here) and then
 * must wait: a slow reader slows the process. */
void node_exec_pause(struct node_exec *e, bool paused);
/* Detaches: no callback any more, the handle is gone. The process ends unless keep_on_detach. */
void node_exec_cancel(struct node_exec *e);
/* Of who asked for it; at once after the call that opened it. */
void node_exec_set_trace(struct node_exec *e, const struct av_trace *trace);

struct node_exec_result {
	struct node_exec_end end;
	struct av_str out, err_out; /* what was kept of stdout and stderr */
	bool out_truncated, err_truncated;
	int64_t duration_ms;
};
typedef void node_exec_result_fn(
    void *ctx, const struct node_exec_result *r, const struct av_err *err);
typedef void node_exec_started_fn(
    void *ctx, uint32_t pid, const char *tag, const struct av_err *err);

struct node_process {
	uint32_t pid;
	const char *tag; /* "" when none */
	const char *cmd;
	const json_t *args; /* array of strings, may be NULL */
};
typedef void node_processes_fn(
    void *ctx, const struct node_process *v, size_t n, const struct av_err *err);
typedef void node_done_fn(void *ctx, const struct av_err *err);

/* ---- HTTP streams ---- */

struct node_header {
	struct av_str name; /* lower case */
	struct av_str value;
};

struct node_stream_request {
	const char *method;
	/* Not 0: instead of all below except map_errors, a tunnel to this TCP port on the loopback
	 * of the sandbox. on_head says 200 when it is connected, 502 when nobody listens; bodies
	 * are then raw bytes, and may be sent before. */
	uint16_t tunnel_port;
	struct av_str path;                /* with query, already encoded; at most 16 KiB */
	const struct node_header *headers; /* no pseudo headers */
	size_t n_headers;
	bool has_body;      /* false: the request ends with its head and body */
	struct av_str body; /* a whole body, copied; has_body false */
	bool interactive;   /* somebody waits for it: not behind bulk bodies */
	bool passive;       /* it is no use of the sandbox, whatever moves in it */
	/* Answers with status >= 400 and a JSON error become on_end(err) (mapped to a kind);
	 * otherwise the caller sees every status in on_head. */
	bool map_errors;
};

struct node_stream;

struct node_stream_events {
	void (*on_head)(void *ctx, int status, const struct node_header *h, size_t n);
	void (*on_data)(void *ctx, struct av_str data);
	void (*on_drain)(void *ctx);                         /* NULL allowed */
	void (*on_end)(void *ctx, const struct av_err *err); /* NULL: the whole answer came */
};

bool node_stream_send(struct node_stream *s, struct av_str data); /* as node_exec_send */
void node_stream_finish(struct node_stream *s);                   /* end of the request body */
void node_stream_pause(struct node_stream *s, bool paused);
/* From now on the sandbox is in use only while bytes move in the stream, not because it is open. */
void node_stream_set_quiet(struct node_stream *s);
void node_stream_cancel(struct node_stream *s);

/* The answer to a unary call: a JSON object, borrowed for the callback. */
typedef void node_json_fn(void *ctx, const json_t *answer, const struct av_err *err);
