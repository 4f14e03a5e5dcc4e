/* SPDX-License-Identifier: Apache-2.0 */
/*
 * process_rpc.c - the unary RPCs of process.Process: List, Update, SendInput, SendSignal,
 * CloseStdin
 */
#include "agent/process_rpc.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#include "agent/handlers.h"
#include "base/codec.h"
#include "base/json.h"

#include "base/banned.h"

#define ARGS_MAX       8192
#define LIST_BYTES_MAX ((size_t)32 * 1024 * 1024)

static void reply_empty(struct request *rq)
{
	request_reply(rq, 200, AV_AGENT_CT_JSON, AV_STR("{}"));
}

int process_rpc_command(const json_t *request, struct process_rpc_command *ret, struct av_err *err)
{
	int r;

	*ret = (struct process_rpc_command){0};
	if ((r = av_json_get_object(request, "process", &ret->process, err)) < 0)
		return r;
	if (!ret->process)
		return av_err_set(err, AV_ERR_INVALID, "the request has no process");
	if ((r = av_json_get_str(ret->process, "cmd", &ret->cmd, err)) < 0 ||
	    (r = av_json_get_str(ret->process, "cwd", &ret->cwd, err)) < 0 ||
	    (r = av_json_get_str_array(ret->process, "args", ARGS_MAX, &ret->args, err)) < 0)
		return r;
	if (!ret->cmd || !ret->cmd[0])
		return av_err_set(err, AV_ERR_INVALID, "process.cmd is empty");
	return 0;
}

char **process_rpc_argv(const struct process_rpc_command *c)
{
	size_t n = json_array_size(c->args);
	char **argv = calloc(n + 2, sizeof(*argv));

	if (!argv)
		return NULL;
	argv[0] = (char *)(uintptr_t)c->cmd;
	for (size_t i = 0; i < n; i++)
		argv[i + 1] = (char *)(uintptr_t)json_string_value(json_array_get(c->args, i));
	return argv;
}

int process_rpc_select(
    struct agent *a, const json_t *request, struct process **ret, struct av_err *err)
{
	const json_t *selector = NULL;
	const char *tag = NULL;
	int64_t pid = 0;
	struct process *p;
	int r;

	if ((r = av_json_get_object(request, "process", &selector, err)) < 0)
		return r;
	if (selector && ((r = av_json_get_i64(selector, "pid", 0, INT32_MAX, &pid, err)) < 0 ||
	                    (r = av_json_get_str(selector, "tag", &tag, err)) < 0))
		return r;
	if (pid == 0 && !tag)
		return av_err_set(
		    err, AV_ERR_INVALID, "the request selects no process by pid or tag");
	if (pid) {
		p = process_find_pid(&a->processes, (pid_t)pid);
		if (!p)
			return av_err_set(
			    err, AV_ERR_NOT_FOUND, "process with pid %d not found", (int)pid);
	} else {
		p = process_find_tag(&a->processes, av_str_c(tag));
		if (!p)
			return av_err_set(
			    err, AV_ERR_NOT_FOUND, "process with tag %s not found", tag);
	}
	*ret = p;
	return 0;
}

int process_rpc_size(const json_t *request, bool *ret_has, uint16_t *ret_cols, uint16_t *ret_rows,
    struct av_err *err)
{
	const json_t *pty = NULL, *size = NULL;
	int64_t cols = 80, rows = 24;
	int r;

	if ((r = av_json_get_object(request, "pty", &pty, err)) < 0)
		return r;
	if (pty && (r = av_json_get_object(pty, "size", &size, err)) < 0)
		return r;
	if (size && ((r = av_json_get_i64(size, "cols", 0, UINT16_MAX, &cols, err)) < 0 ||
	                (r = av_json_get_i64(size, "rows", 0, UINT16_MAX, &rows, err)) < 0))
		return r;
	*ret_has = pty != NULL;
	*ret_cols = (uint16_t)cols;
	*ret_rows = (uint16_t)rows;
	return 0;
}

/* Parses the body and finds a live process; answers the error itself. The caller owns *ret_json. */
static struct process *select_live(struct request *rq, struct av_str body, json_t **ret_json)
{
	struct av_err err = {0};
	struct process *p = NULL;
	json_t *j = av_json_parse_object(body, &err);

	if (!j || process_rpc_select(rq->agent, j, &p, &err) < 0) {
		request_rpc_fail_err(rq, &err);
		json_decref(j);
		return NULL;
	}
	if (!process_is_live(p)) {
		request_rpc_fail(
		    rq, AV_CONNECT_NOT_FOUND, "process with pid %d not found", (int)process_pid(p));
		json_decref(j);
		return NULL;
	}
	*ret_json = j;
	return p;
}

void process_rpc_list(struct request *rq, struct av_str body)
{
	AV_CLEANUP(av_buf_clear) struct av_buf out = AV_BUF_INIT(LIST_BYTES_MAX);
	struct process *p = NULL;
	bool first = true;

	(void)body;
	av_buf_append_c(&out, "{\"processes\":[");
	while ((p = process_next_live(&rq->agent->processes, p))) {
		av_buf_append_c(&out, first ? "{\"config\":" : ",{\"config\":");
		av_buf_append_str(&out, process_config(p));
		av_buf_printf(&out, ",\"pid\":%d", (int)process_pid(p));
		if (process_tag(p)) {
			av_buf_append_c(&out, ",\"tag\":");
			av_json_write_str(&out, av_str_c(process_tag(p)));
		}
		if (process_is_service(p))
			av_buf_append_c(&out, ",\"service\":true");
		av_buf_append_char(&out, '}');
		first = false;
	}
	av_buf_append_c(&out, "]}");
	if (av_buf_error(&out) < 0)
		request_rpc_fail(rq, AV_CONNECT_RESOURCE_EXHAUSTED, "the list is too large");
	else
		request_reply(rq, 200, AV_AGENT_CT_JSON, av_buf_str(&out));
}

void process_rpc_update(struct request *rq, struct av_str body)
{
	AV_CLEANUP(av_json_decrefp) json_t *j = NULL;
	struct process *p = select_live(rq, body, &j);
	struct av_err err = {0};
	uint16_t cols, rows;
	bool has;
	int r;

	if (!p)
		return;
	if (process_rpc_size(j, &has, &cols, &rows, &err) < 0) {
		request_rpc_fail_err(rq, &err);
		return;
	}
	r = has ? process_resize(p, cols, rows) : 0;
	if (r < 0)
		request_rpc_fail(rq, AV_CONNECT_INTERNAL, "process %d has no terminal to resize",
		    (int)process_pid(p));
	else
		reply_empty(rq);
}

/* --- SendInput: answered when the process has taken the bytes --- */

static void input_close(struct request *rq, uint32_t error)
{
	struct process *p = process_find_pid(&rq->agent->processes, (pid_t)(intptr_t)rq->data);

	(void)error;
	if (p)
		process_forget_writer(p, rq);
}

static void input_body(struct request *rq, const uint8_t *p, size_t n)
{
	(void)p;
	request_consume(rq, n);
}

static const struct request_ops input_ops = {.on_body = input_body, .on_close = input_close};

static void on_written(void *ctx, size_t n, int status)
{
	struct request *rq = ctx;

	(void)n;
	if (status < 0)
		request_rpc_fail(
		    rq, AV_CONNECT_INTERNAL, "the process has ended or closed its input");
	else
		reply_empty(rq);
}

int process_rpc_input(
    const json_t *request, const struct process *p, struct av_buf *out, struct av_err *err)
{
	const char *to_stdin = NULL, *to_pty = NULL, *text;
	const json_t *input = NULL;
	int r;

	if ((r = av_json_get_object(request, "input", &input, err)) < 0)
		return r;
	if (input && ((r = av_json_get_str(input, "stdin", &to_stdin, err)) < 0 ||
	                 (r = av_json_get_str(input, "pty", &to_pty, err)) < 0))
		return r;
	text = to_pty ? to_pty : to_stdin;
	if (!text)
		return av_err_set(
		    err, AV_ERR_INVALID, "the request has neither input.stdin nor input.pty");
	r = av_base64_decode(out, av_str_c(text));
	if (r < 0)
		return av_err_set(err, AV_ERR_INVALID,
		    "input is not base64 (or larger than %zu bytes)", PROCESS_RPC_INPUT_MAX);
	if ((to_pty != NULL) != process_is_pty(p))
		return av_err_set(err, AV_ERR_INTERNAL, "process %d has %s", (int)process_pid(p),
		    to_pty ? "no terminal; send to stdin" : "a terminal; send to pty");
	return 0;
}

void process_rpc_send_input(struct request *rq, struct av_str body)
{
	AV_CLEANUP(av_json_decrefp) json_t *j = NULL;
	AV_CLEANUP(av_buf_clear) struct av_buf data = AV_BUF_INIT(PROCESS_RPC_INPUT_MAX);
	struct process *p = select_live(rq, body, &j);
	struct av_err err = {0};

	if (!p)
		return;
	if (process_rpc_input(j, p, &data, &err) < 0) {
		request_rpc_fail_err(rq, &err);
		return;
	}
	rq->ops = &input_ops;
	rq->data = (void *)(intptr_t)process_pid(p);
	if (process_write(p, av_buf_str(&data).p, data.n, on_written, rq) < 0)
		request_rpc_fail(rq, AV_CONNECT_INTERNAL,
		    "stdin of process %d is not open (start it with stdin: true)",
		    (int)process_pid(p));
}

/* --- signals --- */

/* The wire knows enum names and their numbers. */
static int parse_signal(const json_t *request, char *text, size_t size)
{
	const json_t *v = json_object_get(request, "signal");

	if (json_is_integer(v))
		snprintf(text, size, "%lld", (long long)json_integer_value(v));
	else
		snprintf(text, size, "%s", json_is_string(v) ? json_string_value(v) : "");
	return process_signal_number(av_str_c(text));
}

void process_rpc_send_signal(struct request *rq, struct av_str body)
{
	AV_CLEANUP(av_json_decrefp) json_t *j = NULL;
	struct process *p = select_live(rq, body, &j);
	const char *scope = "process";
	struct av_err err = {0};
	char text[40];
	int sig, r;

	if (!p)
		return;
	sig = parse_signal(j, text, sizeof(text));
	if (sig != SIGTERM && sig != SIGKILL) {
		request_rpc_fail(rq, AV_CONNECT_UNIMPLEMENTED, "invalid signal: %s", text);
		return;
	}
	if (av_json_get_str(j, "scope", &scope, &err) < 0) {
		request_rpc_fail_err(rq, &err);
		return;
	}
	r = process_signal(p, sig, av_str_eq_c(AV_STR("group"), scope));
	if (r < 0 && r != -ESRCH)
		request_rpc_fail(rq, AV_CONNECT_INTERNAL, "cannot signal process %d: %s",
		    (int)process_pid(p), strerror(-r));
	else
		reply_empty(rq);
}

void process_rpc_close_stdin(struct request *rq, struct av_str body)
{
	AV_CLEANUP(av_json_decrefp) json_t *j = NULL;
	struct process *p = select_live(rq, body, &j);
	int r;

	if (!p)
		return;
	r = process_close_stdin(p);
	if (r == -ENOTTY)
		request_rpc_fail(rq, AV_CONNECT_FAILED_PRECONDITION,
		    "the input of a terminal cannot be closed; send it Ctrl-D (0x04)");
	else if (r < 0)
		request_rpc_fail(rq, AV_CONNECT_INTERNAL, "stdin of process %d is not open",
		    (int)process_pid(p));
	else
		reply_empty(rq);
}
