/* SPDX-License-Identifier: Apache-2.0 */
/*
 * remote.c - small programs inside a sandbox, used as tools by our commands
 */
#include "cli/remote.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/json.h"
#include "base/num.h"
#include "client/exec.h"

#include "base/banned.h"

#define OUTPUT_MAX   (16 * AV_MIB) /* ceiling of what one step can bring */
#define MESSAGES_MAX 2048          /* of standard error */
#define INPUT_MARK   (1 * AV_MIB)  /* above this much waiting, writing waits */
#define POLL_MS      250           /* how soon a signal is noticed */

struct remote_pipe {
	struct av_exec *exec;
	const char *program;
	struct av_buf out;      /* owned */
	size_t lent;            /* bytes of out that the caller may still look at */
	struct av_buf messages; /* beginning of standard error */
	bool writes;
	bool is_over;
	struct av_exec_end end;
};

static char *take_text(const json_t *reply, const char *field)
{
	const char *s = json_string_value(json_object_get(reply, field));
	return av_str_dup(av_str_c(s));
}

int remote_run(struct cli *cli, const char *id, const char *const *argv, int *ret_code,
    char **ret_out, char **ret_err, struct av_err *err)
{
	AV_CLEANUP(av_json_decrefp) json_t *reply = NULL;
	json_t *list = json_array();
	for (const char *const *a = argv + 1; *a; a++)
		json_array_append_new(list, json_string(*a));
	AV_CLEANUP(av_json_decrefp)
	json_t *body =
	    json_pack("{s:s, s:o, s:i}", "cmd", argv[0], "args", list, "timeout_sec", 60);
	if (!body)
		return av_err_set(err, AV_ERR_INVALID, "the path is not valid UTF-8");
	int r = cli_call(cli, "POST", body, &reply, err, "/v1/sandboxes/%s/exec", id);
	if (r < 0)
		return r;
	const json_t *code = json_object_get(reply, "exit_code");
	*ret_code = (int)json_integer_value(code);
	if (ret_out)
		*ret_out = take_text(reply, "stdout");
	if (ret_err)
		*ret_err = take_text(reply, "stderr");
	return 0;
}

bool remote_is_running(struct cli *cli, const char *id)
{
	AV_CLEANUP(av_json_decrefp) json_t *sandbox = NULL;
	if (cli_call(cli, "GET", NULL, &sandbox, NULL, "/v1/sandboxes/%s", id) < 0)
		return false;
	const char *status = json_string_value(json_object_get(sandbox, "status"));
	return status && strcmp(status, "running") == 0;
}

int remote_stat(
    struct cli *cli, const char *id, const char *path, struct remote_stat *ret, struct av_err *err)
{
	const char *argv[] = {"stat", "-L", "-c", "%f %s", "--", path, NULL};
	AV_CLEANUP(av_freep) char *out = NULL;
	struct av_err local = {0};
	int code = 0;
	*ret = (struct remote_stat){.is_known = true};
	int r = remote_run(cli, id, argv, &code, &out, NULL, &local);
	if (code == EXIT_NOT_FOUND ||
	    (r < 0 && local.kind == AV_ERR_NOT_FOUND && remote_is_running(cli, id))) {
		ret->is_known = false;
		return 0;
	}
	if (r < 0) {
		if (err)
			*err = local;
		return r;
	}
	uint64_t mode, size;
	struct av_str rest = av_str_c(out), head;
	if (code != 0)
		return 0;
	while (rest.n > 0 && rest.p[rest.n - 1] == '\n')
		rest.n--;
	if (!av_str_cut(&rest, ' ', &head) || av_parse_hex_u64(head, 0177777, &mode) < 0 ||
	    av_parse_u64(rest, 0, INT64_MAX, &size) < 0)
		return av_err_set(err, AV_ERR_AGENT, "the sandbox's stat program answers nonsense");
	ret->exists = true;
	ret->mode = (mode_t)mode;
	ret->size = size;
	return 0;
}

static void on_output(void *ctx, enum av_exec_channel channel, const char *bytes, size_t n)
{
	struct remote_pipe *p = ctx;
	if (channel == AV_EXEC_STDOUT) {
		av_buf_append(&p->out, bytes, n);
		return;
	}
	size_t room = MESSAGES_MAX - p->messages.n;
	av_buf_append(&p->messages, bytes, AV_MIN(n, room));
}

static void on_end(void *ctx, const struct av_exec_end *end)
{
	struct remote_pipe *p = ctx;
	p->end = *end;
}

static const struct av_exec_events events = {.on_output = on_output, .on_end = on_end};

int remote_pipe_open(struct cli *cli, const char *id, const char *const *argv, bool writes,
    struct remote_pipe **ret, struct av_err *err)
{
	char *args[16];
	size_t n = 0;
	AV_CLEANUP(remote_pipe_freep) struct remote_pipe *p = calloc(1, sizeof(*p));
	if (!p)
		return av_err_sys(err, AV_ERR_NO_MEMORY, ENOMEM, "stream");
	for (; argv[n] && n < AV_ARRAY_LEN(args); n++)
		if (!(args[n] = av_str_dup(av_str_c(argv[n]))))
			break;
	p->program = argv[0];
	p->writes = writes;
	p->out = AV_BUF_INIT(OUTPUT_MAX);
	p->messages = AV_BUF_INIT(MESSAGES_MAX);
	struct av_exec_options o = {
	    .argv = args, .argc = n, .has_stdin = writes, .kill_on_detach = true};
	int r = av_exec_start(cli->client, id, &o, &events, p, &p->exec, err);
	while (n > 0)
		free(args[--n]);
	if (r < 0)
		return r;
	*ret = AV_TAKE_PTR(p);
	return 0;
}

void remote_pipe_free(struct remote_pipe *p)
{
	if (!p)
		return;
	av_exec_free(p->exec);
	av_buf_clear(&p->out);
	av_buf_clear(&p->messages);
	free(p);
}

void remote_pipe_freep(struct remote_pipe **p)
{
	remote_pipe_free(*p);
	*p = NULL;
}

/* Waits for the stream once and moves what can be moved. */
static int turn(struct remote_pipe *p, struct av_err *err)
{
	int exit_code = 0;
	if (cli_caught_signal())
		return av_err_set(err, AV_ERR_CANCELED, "interrupted");
	struct pollfd pfd = {.fd = av_exec_fd(p->exec),
	    .events = (short)(POLLIN | (av_exec_wants_write(p->exec) ? POLLOUT : 0))};
	if (!av_exec_has_pending(p->exec))
		poll(&pfd, 1, POLL_MS);
	int r = av_exec_step(p->exec, true, &exit_code, err);
	if (r < 0 && exit_code == EXIT_NOT_FOUND)
		return av_err_set(err, AV_ERR_UNSUPPORTED,
		    "the sandbox has no '%s' program, which copying a directory needs; install it "
		    "there, or copy files one by one",
		    p->program);
	if (r < 0)
		return r;
	p->is_over = r == 1;
	return av_buf_error(&p->out) ? av_err_set(err, AV_ERR_NO_MEMORY, "out of memory") : 0;
}

ssize_t remote_pipe_read(struct remote_pipe *p, const char **ret_bytes, struct av_err *err)
{
	av_buf_consume(&p->out, p->lent);
	p->lent = 0;
	while (p->out.n == 0 && !p->is_over) {
		int r = turn(p, err);
		if (r < 0)
			return r;
	}
	struct av_str s = av_buf_str(&p->out);
	p->lent = s.n;
	*ret_bytes = s.p;
	return (ssize_t)s.n;
}

int remote_pipe_write(struct remote_pipe *p, const char *bytes, size_t n, struct av_err *err)
{
	if (p->is_over)
		return remote_pipe_finish(p, err);
	int r = av_exec_write(p->exec, bytes, n);
	if (r < 0)
		return av_err_sys(err, AV_ERR_UNAVAILABLE, r, "stream");
	while (av_exec_buffered(p->exec) > INPUT_MARK && !p->is_over)
		if ((r = turn(p, err)) < 0)
			return r;
	return 0;
}

int remote_pipe_finish(struct remote_pipe *p, struct av_err *err)
{
	int r = 0;
	if (p->writes && !p->is_over)
		r = av_exec_close_stdin(p->exec);
	if (r < 0)
		return av_err_sys(err, AV_ERR_UNAVAILABLE, r, "stream");
	while (!p->is_over) {
		/* Output that nobody wants any more must not hold the program up. */
		av_buf_reset(&p->out);
		p->lent = 0;
		if ((r = turn(p, err)) < 0)
			return r;
	}
	if (p->end.exited && p->end.exit_code == 0)
		return 0;
	struct av_str text = av_buf_str(&p->messages);
	while (text.n > 0 && text.p[text.n - 1] == '\n')
		text.n--;
	if (text.n > 0)
		return av_err_set(err, AV_ERR_AGENT, "in the sandbox: %.*s", AV_STR_ARG(text));
	return av_err_set(err, AV_ERR_AGENT, "in the sandbox: %s ended with %s %d", p->program,
	    p->end.exited ? "status" : "signal", p->end.exited ? p->end.exit_code : p->end.signal);
}
