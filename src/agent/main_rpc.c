/* SPDX-License-Identifier: Apache-2.0 */
/*
 * main_rpc.c - /main: starting, asking for and signalling the main command, and reading its log
 *
 * POST /main         {"process":{"cmd","args","cwd"},"user","logBytes"}; 200 as GET
 * GET  /main         {"state":"none"|"running"|"ended","pid","startedUs","exitCode","signal",
 *                    "finishedUs","logFirst","logNext"}
 * POST /main/signal  {"signal":15 or 9}: to its group; 200 {"ended":bool}
 * GET  /main/log     ?from=OFFSET&tail=LINES&since=MICROSECONDS&follow=1&end=1: entries of
 *                    proto/mainlog.h. END comes when the command has ended; else, without follow,
 *                    the answer ends with what there is. end=1: END alone.
 */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>

#include "agent/handlers.h"
#include "agent/main_command.h"
#include "agent/process_rpc.h"
#include "base/json.h"
#include "base/num.h"

#include "base/banned.h"

#define READ_SIZE ((size_t)64 * 1024)

static void reply_state(struct request *rq)
{
	AV_CLEANUP(av_buf_clear) struct av_buf out = AV_BUF_INIT(1024);

	(void)main_command_describe(rq->agent->main, &out);
	request_reply(rq, 200, AV_AGENT_CT_JSON, av_buf_str(&out));
}

/* --- POST /main --- */

struct wish {
	struct process_rpc_command command;
	const char *user;
	int64_t log_bytes;
};

static int parse(const json_t *j, struct wish *w, struct av_err *err)
{
	int r;

	*w = (struct wish){.user = "", .log_bytes = (int64_t)AV_MAINLOG_MIN};
	if ((r = process_rpc_command(j, &w->command, err)) < 0 ||
	    (r = av_json_get_str(j, "user", &w->user, err)) < 0 ||
	    (r = av_json_get_i64(j, "logBytes", (int64_t)AV_MAINLOG_MIN, (int64_t)AV_MAINLOG_MAX,
	         &w->log_bytes, err)) < 0)
		return r;
	return 0;
}

static int start(struct request *rq, const struct wish *w, char **argv, struct av_err *err)
{
	AV_CLEANUP(av_buf_clear) struct av_buf config = AV_BUF_INIT((size_t)8 * 1024 * 1024);
	AV_CLEANUP(env_clear) struct env env;
	struct agent *a = rq->agent;
	struct spawn_failure failure = {0};
	struct agent_user user;
	char cwd[AV_PATH_MAX + 1];
	struct process_params params;
	int r;

	env_init(&env);
	if ((r = agent_find_user(a, w->user, &user, err)) < 0 ||
	    (r = agent_find_cwd(a, &user, w->command.cwd, cwd, err)) < 0 ||
	    (r = agent_make_env(a, &user, NULL, &env, err)) < 0)
		return r;
	if (av_json_dump(&config, w->command.process) < 0)
		return av_err_set(err, AV_ERR_NO_MEMORY, "out of memory in the sandbox's agent");
	params = (struct process_params){
	    .argv = argv,
	    .envp = env.v,
	    .cwd = cwd,
	    .user = &user,
	    .tag = AV_AGENT_MAIN_TAG,
	    .config = av_buf_str(&config),
	    .kill_group = true,
	    .end_at_exit = true,
	};
	r = main_command_start(a, &params, (size_t)w->log_bytes, &failure, err);
	/* Whatever is wrong with the program is wrong with the request. */
	if (r < 0 && failure.step == SPAWN_EXEC)
		err->kind = AV_ERR_INVALID;
	return r;
}

void main_rpc_start(struct request *rq, struct av_str body)
{
	AV_CLEANUP(av_json_decrefp) json_t *j = NULL;
	AV_CLEANUP(av_freep) char **argv = NULL;
	struct av_err err = {0};
	struct wish w;

	j = av_json_parse_object(body, &err);
	if (!j || parse(j, &w, &err) < 0) {
		request_rpc_fail_err(rq, &err);
		return;
	}
	argv = process_rpc_argv(&w.command);
	if (!argv) {
		request_rpc_fail(
		    rq, AV_CONNECT_UNAVAILABLE, "out of memory in the sandbox's agent");
		return;
	}
	if (start(rq, &w, argv, &err) < 0)
		request_rpc_fail_err(rq, &err);
	else
		reply_state(rq);
}

void main_rpc_get(struct request *rq)
{
	reply_state(rq);
}

void main_rpc_signal(struct request *rq, struct av_str body)
{
	AV_CLEANUP(av_json_decrefp) json_t *j = NULL;
	struct main_command *m = rq->agent->main;
	struct av_err err = {0};
	int64_t sig = 0;
	int r;

	j = av_json_parse_object(body, &err);
	if (!j || av_json_get_i64(j, "signal", 1, 64, &sig, &err) < 0) {
		request_rpc_fail_err(rq, &err);
		return;
	}
	if (sig != SIGTERM && sig != SIGKILL) {
		request_rpc_fail(rq, AV_CONNECT_INVALID_ARGUMENT, "invalid signal: %d", (int)sig);
		return;
	}
	r = m ? main_command_signal(m, (int)sig) : -ESRCH;
	if (r < 0 && r != -ESRCH)
		request_rpc_fail(
		    rq, AV_CONNECT_INTERNAL, "cannot signal the main command: %s", strerror(-r));
	else
		request_reply(rq, 200, AV_AGENT_CT_JSON,
		    r < 0 ? AV_STR("{\"ended\":true}") : AV_STR("{\"ended\":false}"));
}

/* --- GET /main/log --- */

struct log_reader {
	struct main_reader reader; /* first */
	struct request *rq;
	struct main_command *main;
	struct main_log_cursor cursor;
	bool follow, end_only, over;
};

static void send_end(struct log_reader *lr)
{
	const struct main_command *m = lr->main;
	const struct av_mainlog_entry e = {
	    .kind = AV_MAINLOG_END,
	    .offset = m->log.next,
	    .time_us = m->finished_us,
	    .exit_code = m->exit_code,
	    .signal = m->signal,
	};
	uint8_t bytes[AV_MAINLOG_SMALL_MAX];

	(void)request_send(lr->rq, bytes, av_mainlog_put_small(bytes, &e));
}

static void pump(struct log_reader *lr)
{
	struct request *rq = lr->rq;
	bool ended = main_command_has_ended(lr->main);
	char *buf;
	size_t n = 1;

	if (lr->over || request_is_full(rq))
		return;
	buf = lr->end_only ? NULL : malloc(READ_SIZE);
	if (!buf && !lr->end_only) {
		request_reset(rq, AV_HTTP2_INTERNAL_ERROR);
		return;
	}
	while (buf && !request_is_full(rq) &&
	       (n = main_log_read(&lr->main->log, &lr->cursor, buf, READ_SIZE)) > 0)
		if (!request_send(rq, buf, n)) {
			free(buf);
			return;
		}
	free(buf);
	if (n > 0 && !lr->end_only)
		return;
	if (!ended && lr->follow)
		return;
	lr->over = true;
	av_list_remove(&lr->reader.node);
	if (ended)
		send_end(lr);
	request_finish_all(rq);
}

static void on_more(struct main_reader *r)
{
	pump(AV_CONTAINER_OF(r, struct log_reader, reader));
}

static void log_body(struct request *rq, const uint8_t *p, size_t n)
{
	(void)p;
	request_consume(rq, n);
}

static void log_drain(struct request *rq)
{
	pump(rq->data);
}

static void log_close(struct request *rq, uint32_t error)
{
	struct log_reader *lr = rq->data;

	(void)error;
	av_list_remove(&lr->reader.node);
	free(lr);
}

static const struct request_ops log_ops = {
    .on_body = log_body,
    .on_drain = log_drain,
    .on_close = log_close,
};

/* False: answered. *ret stays what it is when the parameter is not there. */
static bool query_number(struct request *rq, const char *name, uint64_t max, uint64_t *ret)
{
	char text[32];

	if (!request_query(rq, name, text, sizeof(text)))
		return false;
	if (!text[0] || av_parse_u64(av_str_c(text), 0, max, ret) == 0)
		return true;
	request_fail(
	    rq, 400, "the parameter %s is not a number up to %llu", name, (unsigned long long)max);
	return false;
}

void main_rpc_log(struct request *rq)
{
	struct main_log_range range = {.tail = UINT64_MAX, .since_us = INT64_MIN};
	uint64_t follow = 0, end_only = 0, since = UINT64_MAX;
	struct log_reader *lr;
	struct av_http_head head;

	if (!query_number(rq, "from", INT64_MAX, &range.from) ||
	    !query_number(rq, "tail", INT64_MAX, &range.tail) ||
	    !query_number(rq, "since", INT64_MAX, &since) ||
	    !query_number(rq, "follow", 1, &follow) || !query_number(rq, "end", 1, &end_only))
		return;
	if (since != UINT64_MAX)
		range.since_us = (int64_t)since;
	if (!rq->agent->main) {
		request_fail(rq, 404, "this sandbox has no main command");
		return;
	}
	lr = calloc(1, sizeof(*lr));
	if (!lr) {
		request_fail(rq, 503, "out of memory in the sandbox's agent");
		return;
	}
	*lr = (struct log_reader){
	    .reader.on_more = on_more,
	    .rq = rq,
	    .main = rq->agent->main,
	    .follow = follow,
	    .end_only = end_only,
	};
	main_log_seek(&lr->main->log, &lr->cursor, &range);
	av_list_append(&lr->main->readers, &lr->reader.node);
	rq->data = lr;
	rq->ops = &log_ops;
	av_http_head_response(&head, 200);
	if (av_http_head_add_c(&head, "content-type", AV_AGENT_CT_MAINLOG) < 0 ||
	    !request_begin(rq, &head))
		request_reset(rq, AV_HTTP2_INTERNAL_ERROR);
	else
		pump(lr);
	av_http_head_clear(&head);
}
