/* SPDX-License-Identifier: Apache-2.0 */
/*
 * exec.h - processes and files in a running sandbox
 *
 * Each finds the sandbox, checks that it runs (NOT_FOUND, INVALID_STATE with the reason why not) or
 * is paused and resumed by requests, counts as use, and opens a conversation with its agent; see
 * node/stream.h for the verbs on handles.
 */
#pragma once

#include "control/control.h"

/* For who will open a conversation soon and wants to know now that it can: the same check, the same
 * use, the same resume. */
int control_expect(
    struct control *c, const struct control_actor *a, const char *id, struct av_err *err);

/* ---- processes ---- */

/* Attached: frames go on until the process ends. */
int control_exec_stream(struct control *c, const struct control_actor *a, const char *id,
    const struct node_exec_spec *spec, const struct node_exec_events *ev, void *ctx,
    struct node_exec **ret, struct av_err *err);
/* To a process that runs or ended within 30 s. */
int control_exec_attach(struct control *c, const struct control_actor *a, const char *id,
    const struct node_selector *sel, bool replay, bool follow, const struct node_exec_events *ev,
    void *ctx, struct node_exec **ret, struct av_err *err);
/* first: the JSON object of a client's first CONTROL frame (subprotocol aviary-frames.v1). Usually
 * with events.on_frame set. */
int control_exec_frames(struct control *c, const struct control_actor *a, const char *id,
    struct av_str first, const struct node_exec_events *ev, void *ctx, struct node_exec **ret,
    struct av_err *err);
/* Runs to its end and collects up to 16 MiB of each output; what is more is dropped and the flag
 * set. A process that timed out is an answer, not an error: result.end.timed_out. Cancel kills it.
 */
int control_exec_collect(struct control *c, const struct control_actor *a, const char *id,
    const struct node_exec_spec *spec, node_exec_result_fn *fn, void *ctx, struct node_call **ret,
    struct av_err *err);
/* Starts and leaves it; answers with pid and tag. */
int control_exec_background(struct control *c, const struct control_actor *a, const char *id,
    const struct node_exec_spec *spec, node_exec_started_fn *fn, void *ctx, struct node_call **ret,
    struct av_err *err);
int control_processes(struct control *c, const struct control_actor *a, const char *id,
    node_processes_fn *fn, void *ctx, struct node_call **ret, struct av_err *err);
/* signo: SIGKILL or SIGTERM (the agent refuses others). NOT_FOUND when there is no such process. */
int control_process_signal(struct control *c, const struct control_actor *a, const char *id,
    const struct node_selector *sel, int signo, node_done_fn *fn, void *ctx, struct node_call **ret,
    struct av_err *err);

/* ---- files ---- */

/* path as the client gave it (relative and ~ are the agent's business); user may be NULL. on_head
 * comes with status 200 only; a missing file is on_end(NOT_FOUND), a directory on_end(INVALID). */
int control_file_read(struct control *c, const struct control_actor *a, const char *id,
    struct av_str path, const char *user, const struct node_stream_events *ev, void *ctx,
    struct node_stream **ret, struct av_err *err);
/* Send the bytes with node_stream_send, then node_stream_finish; on_end(NULL) when it is written,
 * parents made, the file truncated first. on_head and on_data carry the agent's answer and may be
 * ignored. */
int control_file_write(struct control *c, const struct control_actor *a, const char *id,
    struct av_str path, const char *user, const struct node_stream_events *ev, void *ctx,
    struct node_stream **ret, struct av_err *err);
/* The directory at path as a tar archive, and such an archive unpacked into one (its answer is the
 * agent's: {"entries","bytes","skipped"}). Otherwise as the two above. */
int control_tar_read(struct control *c, const struct control_actor *a, const char *id,
    struct av_str path, const char *user, const struct node_stream_events *ev, void *ctx,
    struct node_stream **ret, struct av_err *err);
int control_tar_write(struct control *c, const struct control_actor *a, const char *id,
    struct av_str path, const char *user, const struct node_stream_events *ev, void *ctx,
    struct node_stream **ret, struct av_err *err);

/* ---- anything else the agent offers ---- */

/* Unary Connect call: path "filesystem.Filesystem/ListDir" and the like. */
int control_rpc(struct control *c, const struct control_actor *a, const char *id, const char *path,
    struct av_str body, node_json_fn *fn, void *ctx, struct node_call **ret, struct av_err *err);
/* Pass-through of one HTTP request for other dialects. */
int control_stream(struct control *c, const struct control_actor *a, const char *id,
    const struct node_stream_request *rq, const struct node_stream_events *ev, void *ctx,
    struct node_stream **ret, struct av_err *err);
