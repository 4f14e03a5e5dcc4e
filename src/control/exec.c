/* SPDX-License-Identifier: Apache-2.0 */
/*
 * exec.c - finding the sandbox for a conversation with its agent (see exec.h)
 *
 * The conversations themselves are the node's. It reports their begin and end as activity, and a
 * sandbox with open conversations is never idle. One that is paused and may be resumed by requests
 * is resumed by this one: the conversation is opened at once, and waits in the agent's socket.
 */
#include "control/exec.h"

#include <errno.h>

#include "base/codec.h"
#include "base/failpoint.h"
#include "base/path.h"
#include "control/control_internal.h"

#include "base/banned.h"

#define RPC_ANSWER_MAX (16UL * 1024 * 1024)
#define FILE_PATH_MAX  (16UL * 1024)

static int running(struct control *c, const struct control_actor *a, const char *id,
    struct node_sandbox **ret, struct av_err *err)
{
	struct sandbox *sb = sandbox_find(c, a, id);
	struct node_sandbox *handle;
	int r = control_check_open(c, err);

	if (r < 0)
		return r;
	if (!sb)
		return sandbox_not_running(c, a, id, sb, err);
	r = sandbox_need_running(sb, a, err);
	if (r < 0)
		return r;
	handle = node_find(c->node, id);
	if (!handle)
		return av_err_set(err, AV_ERR_INVALID_STATE, "sandbox %s has just ended", id);
	sandbox_touch(sb);
	*ret = handle;
	return 0;
}

int control_expect(
    struct control *c, const struct control_actor *a, const char *id, struct av_err *err)
{
	struct node_sandbox *handle;

	return running(c, a, id, &handle, err);
}

static int running_for_exec(struct control *c, const struct control_actor *a, const char *id,
    struct node_sandbox **ret, struct av_err *err)
{
	int r = running(c, a, id, ret, err);

	if (r < 0)
		return r;
	c->stats.execs++;
	(void)av_failpoint("exec.checked");
	return 0;
}

int control_exec_stream(struct control *c, const struct control_actor *a, const char *id,
    const struct node_exec_spec *spec, const struct node_exec_events *ev, void *ctx,
    struct node_exec **ret, struct av_err *err)
{
	struct node_sandbox *sb = NULL;
	struct node_exec_spec traced = *spec;
	int r = running_for_exec(c, a, id, &sb, err);

	traced.trace = &a->trace;
	return r < 0 ? r : node_exec_open(sb, &traced, ev, ctx, ret, err);
}

int control_exec_attach(struct control *c, const struct control_actor *a, const char *id,
    const struct node_selector *sel, bool replay, bool follow, const struct node_exec_events *ev,
    void *ctx, struct node_exec **ret, struct av_err *err)
{
	struct node_sandbox *sb = NULL;
	int r = running_for_exec(c, a, id, &sb, err);

	return r < 0 ? r : node_exec_attach(sb, sel, replay, follow, ev, ctx, ret, err);
}

int control_exec_frames(struct control *c, const struct control_actor *a, const char *id,
    struct av_str first, const struct node_exec_events *ev, void *ctx, struct node_exec **ret,
    struct av_err *err)
{
	struct node_sandbox *sb = NULL;
	int r = running_for_exec(c, a, id, &sb, err);

	if (r == 0)
		r = node_exec_open_raw(sb, first, ev, ctx, ret, err);
	if (r == 0)
		node_exec_set_trace(*ret, &a->trace);
	return r;
}

int control_exec_collect(struct control *c, const struct control_actor *a, const char *id,
    const struct node_exec_spec *spec, node_exec_result_fn *fn, void *ctx, struct node_call **ret,
    struct av_err *err)
{
	struct node_sandbox *sb = NULL;
	struct node_exec_spec traced = *spec;
	int r = running_for_exec(c, a, id, &sb, err);

	traced.trace = &a->trace;
	return r < 0 ? r : node_exec_collect(sb, &traced, fn, ctx, ret, err);
}

int control_exec_background(struct control *c, const struct control_actor *a, const char *id,
    const struct node_exec_spec *spec, node_exec_started_fn *fn, void *ctx, struct node_call **ret,
    struct av_err *err)
{
	struct node_sandbox *sb = NULL;
	struct node_exec_spec traced = *spec;
	int r = running_for_exec(c, a, id, &sb, err);

	traced.trace = &a->trace;
	return r < 0 ? r : node_exec_background(sb, &traced, fn, ctx, ret, err);
}

int control_processes(struct control *c, const struct control_actor *a, const char *id,
    node_processes_fn *fn, void *ctx, struct node_call **ret, struct av_err *err)
{
	struct node_sandbox *sb = NULL;
	int r = running(c, a, id, &sb, err);

	return r < 0 ? r : node_processes(sb, fn, ctx, ret, err);
}

int control_process_signal(struct control *c, const struct control_actor *a, const char *id,
    const struct node_selector *sel, int signo, node_done_fn *fn, void *ctx, struct node_call **ret,
    struct av_err *err)
{
	struct node_sandbox *sb = NULL;
	int r = running(c, a, id, &sb, err);

	return r < 0 ? r : node_process_signal(sb, sel, signo, fn, ctx, ret, err);
}

/* ---- files ---- */

/* One of the agent's routes that take a path and a user in the query. */
struct file_call {
	const char *method, *route;
};

static int open_file(struct control *c, const struct control_actor *a, const char *id,
    const struct file_call *call, struct av_str path, const char *user,
    const struct node_stream_events *ev, void *ctx, struct node_stream **ret, struct av_err *err)
{
	static const struct node_header headers[] = {
	    {AV_STR("content-type"), AV_STR("application/octet-stream")},
	};
	bool write = call->method[0] == 'P';
	struct node_stream_request rq = {
	    .method = call->method,
	    .headers = headers,
	    .n_headers = write ? AV_ARRAY_LEN(headers) : 0,
	    .has_body = write,
	    .map_errors = true,
	};
	struct av_buf b = AV_BUF_INIT(FILE_PATH_MAX);
	struct node_sandbox *sb = NULL;
	int r = running(c, a, id, &sb, err);

	if (r < 0)
		return r;
	if (!path.n || path.n > AV_PATH_MAX || av_str_has_nul(path))
		return av_err_set(err, AV_ERR_INVALID,
		    "a path has 1 to %d bytes and no NUL; this one has %zu bytes", AV_PATH_MAX,
		    path.n);
	(void)av_buf_printf(&b, "%s?path=", call->route);
	(void)av_percent_encode(&b, path, true);
	if (user && user[0]) {
		(void)av_buf_append_c(&b, "&username=");
		(void)av_percent_encode(&b, av_str_c(user), false);
	}
	rq.path = av_buf_str(&b);
	if (av_buf_error(&b))
		r = av_err_set(err, AV_ERR_INVALID, "the path or the name of the user is too long");
	else
		r = node_stream_open(sb, &rq, ev, ctx, ret, err);
	av_buf_clear(&b);
	return r;
}

int control_file_read(struct control *c, const struct control_actor *a, const char *id,
    struct av_str path, const char *user, const struct node_stream_events *ev, void *ctx,
    struct node_stream **ret, struct av_err *err)
{
	return open_file(
	    c, a, id, &(struct file_call){"GET", "/files"}, path, user, ev, ctx, ret, err);
}

int control_file_write(struct control *c, const struct control_actor *a, const char *id,
    struct av_str path, const char *user, const struct node_stream_events *ev, void *ctx,
    struct node_stream **ret, struct av_err *err)
{
	return open_file(
	    c, a, id, &(struct file_call){"POST", "/files"}, path, user, ev, ctx, ret, err);
}

int control_tar_read(struct control *c, const struct control_actor *a, const char *id,
    struct av_str path, const char *user, const struct node_stream_events *ev, void *ctx,
    struct node_stream **ret, struct av_err *err)
{
	return open_file(
	    c, a, id, &(struct file_call){"GET", "/files/tar"}, path, user, ev, ctx, ret, err);
}

int control_tar_write(struct control *c, const struct control_actor *a, const char *id,
    struct av_str path, const char *user, const struct node_stream_events *ev, void *ctx,
    struct node_stream **ret, struct av_err *err)
{
	return open_file(
	    c, a, id, &(struct file_call){"PUT", "/files/tar"}, path, user, ev, ctx, ret, err);
}

/* ---- the rest ---- */

int control_rpc(struct control *c, const struct control_actor *a, const char *id, const char *path,
    struct av_str body, node_json_fn *fn, void *ctx, struct node_call **ret, struct av_err *err)
{
	struct node_sandbox *sb = NULL;
	char full[128];
	int r = running(c, a, id, &sb, err);

	if (r < 0)
		return r;
	if (av_path_printf(full, sizeof(full), "/%s", path) < 0)
		return av_err_set(err, AV_ERR_INVALID, "the name of the call is too long");
	return node_rpc(sb, full, body, RPC_ANSWER_MAX, fn, ctx, ret, err);
}

int control_stream(struct control *c, const struct control_actor *a, const char *id,
    const struct node_stream_request *rq, const struct node_stream_events *ev, void *ctx,
    struct node_stream **ret, struct av_err *err)
{
	struct node_sandbox *sb = NULL;
	int r = running(c, a, id, &sb, err);

	return r < 0 ? r : node_stream_open(sb, rq, ev, ctx, ret, err);
}
