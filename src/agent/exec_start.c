/* SPDX-License-Identifier: Apache-2.0 */
/*
 * exec_start.c - from a StartRequest to a process: user, directory, environment, arguments
 */
#include "agent/exec.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "agent/env.h"
#include "agent/process_rpc.h"
#include "base/json.h"
#include "proto/agent_api.h"

#include "base/banned.h"

#define CONFIG_MAX     ((size_t)8 * 1024 * 1024)
#define TIMEOUT_MAX_MS (10LL * 365 * 86400 * 1000)

/* A StartRequest taken apart; everything borrowed from the document. */
struct start_request {
	struct process_rpc_command command;
	const json_t *envs;
	const char *tag, *user, *on_detach;
	bool stdin_open, pty, kill_group, follow;
	uint16_t cols, rows;
	int64_t timeout_ms;
};

static int parse_extras(const json_t *request, struct start_request *q, struct av_err *err)
{
	int r;

	if ((r = av_json_get_i64(request, "timeoutMs", 0, TIMEOUT_MAX_MS, &q->timeout_ms, err)) <
	        0 ||
	    (r = av_json_get_bool(request, "killGroup", &q->kill_group, err)) < 0 ||
	    (r = av_json_get_bool(request, "follow", &q->follow, err)) < 0 ||
	    (r = av_json_get_str(request, "onDetach", &q->on_detach, err)) < 0 ||
	    (r = av_json_get_str(request, "user", &q->user, err)) < 0)
		return r;
	if (!av_str_eq_c(AV_STR("keep"), q->on_detach) &&
	    !av_str_eq_c(AV_STR("kill"), q->on_detach))
		return av_err_set(err, AV_ERR_INVALID,
		    "onDetach is '%s', allowed are keep and kill", q->on_detach);
	return 0;
}

static int parse(
    const struct exec *e, const json_t *request, struct start_request *q, struct av_err *err)
{
	int r;

	*q = (struct start_request){.stdin_open = true, .on_detach = "keep", .follow = true};
	if ((r = process_rpc_command(request, &q->command, err)) < 0 ||
	    (r = av_json_get_str_map(q->command.process, "envs", ENV_VARS_MAX, &q->envs, err)) <
	        0 ||
	    (r = av_json_get_str(request, "tag", &q->tag, err)) < 0 ||
	    (r = av_json_get_bool(request, "stdin", &q->stdin_open, err)) < 0 ||
	    (r = process_rpc_size(request, &q->pty, &q->cols, &q->rows, err)) < 0)
		return r;
	if (q->tag && strlen(q->tag) > PROCESS_TAG_MAX)
		return av_err_set(
		    err, AV_ERR_INVALID, "tag is longer than %d bytes", PROCESS_TAG_MAX);
	return e->codec == &exec_codec_frames ? parse_extras(request, q, err) : 0;
}

/* The member is there with a value. */
static int copy_member(json_t *dst, const json_t *src, const char *name)
{
	json_t *v = json_object_get(src, name);

	return v && !json_is_null(v) ? json_object_set(dst, name, v) : 0;
}

/* What List shows: the known members as the client sent them. */
static int make_config(const json_t *process, struct av_buf *out)
{
	static const char *const names[] = {"cmd", "args", "envs", "cwd"};
	AV_CLEANUP(av_json_decrefp) json_t *config = json_object();

	if (!config)
		return -ENOMEM;
	for (size_t i = 0; i < AV_ARRAY_LEN(names); i++)
		if (copy_member(config, process, names[i]) < 0)
			return -ENOMEM;
	return av_json_dump(out, config);
}

/* Names the user: "user" of the binary codec, else the Authorization header. */
static int find_user(
    const struct exec *e, const struct start_request *q, struct agent_user *ret, struct av_err *err)
{
	return q->user && q->user[0] ? agent_find_user(e->rq->agent, q->user, ret, err)
	                             : request_rpc_user(e->rq, ret, err);
}

int exec_launch(struct exec *e, const json_t *request, struct process **ret,
    struct spawn_failure *ret_failure, struct av_err *err)
{
	AV_CLEANUP(av_buf_clear) struct av_buf config = AV_BUF_INIT(CONFIG_MAX);
	AV_CLEANUP(av_freep) char **argv = NULL;
	AV_CLEANUP(env_clear) struct env env;
	struct start_request q;
	struct agent_user user;
	char cwd[AV_PATH_MAX + 1];
	struct process_params params;
	int r;

	env_init(&env);
	if ((r = parse(e, request, &q, err)) < 0 || (r = find_user(e, &q, &user, err)) < 0 ||
	    (r = agent_find_cwd(e->rq->agent, &user, q.command.cwd, cwd, err)) < 0 ||
	    (r = agent_make_env(e->rq->agent, &user, q.envs, &env, err)) < 0)
		return r;
	if (make_config(q.command.process, &config) == 0)
		argv = process_rpc_argv(&q.command);
	if (!argv)
		return av_err_set(err, AV_ERR_NO_MEMORY, "out of memory in the sandbox's agent");
	params = (struct process_params){
	    .argv = argv,
	    .envp = env.v,
	    .cwd = cwd,
	    .user = &user,
	    .tag = q.tag,
	    .config = av_buf_str(&config),
	    .stdin_open = q.stdin_open,
	    .pty = q.pty,
	    .cols = q.cols,
	    .rows = q.rows,
	    .timeout_ms = q.timeout_ms ? (uint64_t)q.timeout_ms : e->timeout_ms,
	    .kill_group = q.kill_group,
	};
	/* Without: the stream ends after the start message, and all output goes to the ring. */
	e->sub.follow = q.follow;
	e->kill_on_detach = av_str_eq_c(AV_STR("kill"), q.on_detach);
	return process_start(&e->rq->agent->processes, &params, &e->sub, ret, ret_failure, err);
}
