/* SPDX-License-Identifier: Apache-2.0 */
/*
 * agent_client.c - a blocking client of aviary-agent for tests
 */
#include "lib/agent_client.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/avtime.h"
#include "base/fd.h"
#include "base/num.h"
#include "base/path.h"
#include "proto/agent_api.h"
#include "proto/frame.h"

#include "base/banned.h"

#define READ_BYTES (256 * 1024)

static void die(const char *what)
{
	printf("not ok 999 - %s: %s\n", what, strerror(errno));
	fflush(stdout);
	_exit(1);
}

/* --- the agent as a child --- */

static int listen_at(const char *path)
{
	struct sockaddr_un un = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd < 0 || av_str_copy(un.sun_path, sizeof(un.sun_path), av_str_c(path)) < 0 ||
	    bind(fd, (struct sockaddr *)&un, sizeof(un)) < 0 || listen(fd, 64) < 0)
		die("listening socket");
	return fd;
}

static void exec_agent(int listen_fd, int record_fd)
{
	char path[512];
	const char *build = getenv("AVIARY_BUILD_DIR");
	/* Out of the way of 3 and 4 first. */
	int l = fcntl(listen_fd, F_DUPFD, 10), r = fcntl(record_fd, F_DUPFD, 10);
	int null = open("/dev/null", O_RDWR);

	if (av_path_printf(path, sizeof(path), "%s/src/agent/aviary-agent", build ? build : ".") <
	    0)
		_exit(99);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	dup2(null, 0);
	dup2(null, 1);
	dup2(l, 3);
	dup2(r, 4);
	av_close_range_from(5);
	execl(path, path, "sbtest", (char *)NULL);
	_exit(98);
}

void agent_proc_start(struct agent_proc *a)
{
	int l, r;

	*a = (struct agent_proc){.dir = "/tmp/aviary-agent-XXXXXX"};
	signal(SIGPIPE, SIG_IGN);
	if (!mkdtemp(a->dir) ||
	    av_path_printf(a->socket, sizeof(a->socket), "%s/sock", a->dir) < 0 ||
	    av_path_printf(a->record, sizeof(a->record), "%s/record", a->dir) < 0)
		die("scratch directory");
	l = listen_at(a->socket);
	r = open(a->record, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	if (r < 0)
		die("exit record");
	a->pid = fork();
	if (a->pid < 0)
		die("fork");
	if (a->pid == 0)
		exec_agent(l, r);
	close(l);
	close(r);
}

void agent_proc_stop(struct agent_proc *a)
{
	if (a->pid > 0) {
		kill(a->pid, SIGKILL);
		waitpid(a->pid, NULL, 0);
	}
	unlink(a->socket);
	unlink(a->record);
	if (rmdir(a->dir) < 0)
		printf("# %s: %s\n", a->dir, strerror(errno));
	a->pid = 0;
}

/* --- HTTP/2 events --- */

static void on_head(void *ctx, struct av_http2_stream *st, struct av_http_head *head, bool end)
{
	struct agent_stream *s = av_http2_stream_user(st);

	(void)ctx;
	(void)end;
	if (!s)
		return;
	s->status = head->status;
	av_http_head_move(&s->head, head);
}

static void on_body(void *ctx, struct av_http2_stream *st, const uint8_t *p, size_t n)
{
	struct agent_stream *s = av_http2_stream_user(st);

	(void)ctx;
	if (!s || !s->hold)
		av_http2_consume(st, n);
	if (!s)
		return;
	s->received += n;
	if (!s->discard && av_buf_append(&s->body, p, n) < 0)
		die("body is too large for the test");
}

static void on_end(void *ctx, struct av_http2_stream *st, struct av_http_head *trailers)
{
	struct agent_stream *s = av_http2_stream_user(st);

	(void)ctx;
	(void)trailers;
	if (s)
		s->ended = true;
}

static void on_close(void *ctx, struct av_http2_stream *st, uint32_t error)
{
	struct agent_stream *s = av_http2_stream_user(st);

	(void)ctx;
	if (!s)
		return;
	s->closed = true;
	s->error = error;
	s->stream = NULL;
}

static const struct av_http2_events events = {
    .on_head = on_head,
    .on_body = on_body,
    .on_end = on_end,
    .on_close = on_close,
};

/* --- connection --- */

void agent_client_open(struct agent_client *c, const struct agent_proc *a)
{
	struct sockaddr_un un = {.sun_family = AF_UNIX};

	*c = (struct agent_client){.fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)};
	if (c->fd < 0 || av_str_copy(un.sun_path, sizeof(un.sun_path), av_str_c(a->socket)) < 0 ||
	    connect(c->fd, (struct sockaddr *)&un, sizeof(un)) < 0)
		die("connect");
	av_set_nonblock(c->fd, true);
	c->session = av_http2_new_client(&AV_HTTP2_CONFIG_DEFAULT, &events, c);
	if (!c->session)
		die("session");
}

void agent_client_close(struct agent_client *c)
{
	av_http2_free(c->session);
	av_close_fd(&c->fd);
	c->session = NULL;
}

static void connection_lost(struct agent_client *c)
{
	if (!c->eof)
		av_http2_eof(c->session);
	c->eof = true;
}

/* True if everything was written. */
static bool flush(struct agent_client *c)
{
	struct iovec iov[16];
	int n;

	while (!c->eof && (n = av_http2_output(c->session, iov, 16, 1024 * 1024)) > 0) {
		ssize_t done = writev(c->fd, iov, n);

		if (done < 0 && errno == EAGAIN)
			return false;
		if (done < 0) {
			connection_lost(c);
			break;
		}
		av_http2_output_done(c->session, (size_t)done);
	}
	return true;
}

void agent_pump(struct agent_client *c, int timeout_ms)
{
	static char buf[READ_BYTES];
	struct pollfd pfd = {.fd = c->fd, .events = POLLIN};
	ssize_t n;

	if (!flush(c))
		pfd.events |= POLLOUT;
	if (c->eof)
		return;
	if (poll(&pfd, 1, timeout_ms) <= 0)
		return;
	n = read(c->fd, buf, sizeof(buf));
	if (n < 0 && errno == EAGAIN)
		return;
	if (n <= 0)
		connection_lost(c);
	else if (av_http2_recv(c->session, buf, (size_t)n, NULL) < 0)
		die("the agent breaks HTTP/2");
	flush(c);
}

void agent_pump_for(struct agent_client *c, int ms)
{
	int64_t until = av_mono_ns() + ms * AV_NS_PER_MS, left;

	while ((left = until - av_mono_ns()) > 0 && !c->eof)
		agent_pump(c, (int)(left / AV_NS_PER_MS) + 1);
}

/* Pumps once and dies when the time is over. */
static void pump_until(struct agent_stream *s, int64_t deadline, const char *what)
{
	if (av_mono_ns() > deadline) {
		errno = ETIMEDOUT;
		die(what);
	}
	agent_pump(s->client, 100);
}

static int64_t deadline(void)
{
	return av_mono_ns() + AGENT_CLIENT_TIMEOUT_MS * AV_NS_PER_MS;
}

void agent_wait_head(struct agent_stream *s)
{
	for (int64_t d = deadline(); !s->status && !s->closed;)
		pump_until(s, d, "waiting for a response head");
}

void agent_wait_end(struct agent_stream *s)
{
	for (int64_t d = deadline(); !s->ended && !s->closed;)
		pump_until(s, d, "waiting for the end of a stream");
}

void agent_wait_body(struct agent_stream *s, size_t n)
{
	for (int64_t d = deadline(); s->body.n < n && !s->ended && !s->closed;)
		pump_until(s, d, "waiting for bytes of a stream");
}

/* --- requests --- */

struct agent_stream *agent_request(struct agent_client *c, const char *method, const char *path,
    const char *const *headers, struct av_str body, bool end)
{
	struct agent_stream *s = calloc(1, sizeof(*s));
	bool tunnel = strcmp(method, "CONNECT") == 0;
	struct av_http_head head;
	int r;

	if (!s)
		die("memory");
	s->client = c;
	av_buf_init(&s->body, 64 * 1024 * 1024);
	av_http_head_init(&s->head);
	r = av_http_head_request(&head, av_str_c(method),
	    av_str_c(tunnel ? path : AV_AGENT_AUTHORITY), av_str_c(tunnel ? "" : path));
	for (const char *const *h = headers; r == 0 && h && *h; h += 2)
		r = av_http_head_add_c(&head, h[0], h[1]);
	if (r < 0 || av_http2_request(c->session, &head, end && body.n == 0, s, &s->stream) < 0)
		die("request");
	av_http_head_clear(&head);
	if (body.n)
		agent_send(s, body.p, body.n);
	if (body.n && end)
		agent_end(s);
	flush(c);
	return s;
}

void agent_send(struct agent_stream *s, const void *p, size_t n)
{
	if (s->stream && av_http2_write(s->stream, p, n) == -ENOMEM)
		die("memory");
	flush(s->client);
}

void agent_end(struct agent_stream *s)
{
	if (s->stream && av_http2_end(s->stream, NULL) == -ENOMEM)
		die("memory");
	flush(s->client);
}

void agent_reset(struct agent_stream *s)
{
	if (s->stream)
		av_http2_reset(s->stream, AV_HTTP2_CANCEL);
	flush(s->client);
}

void agent_stream_free(struct agent_stream *s)
{
	if (s->stream) {
		av_http2_consume(s->stream, av_http2_unconsumed(s->stream));
		av_http2_stream_set_user(s->stream, NULL);
		av_http2_reset(s->stream, AV_HTTP2_CANCEL);
		flush(s->client);
	}
	av_buf_clear(&s->body);
	av_http_head_clear(&s->head);
	free(s);
}

struct agent_stream *agent_call(struct agent_client *c, const char *method, const char *path,
    const char *const *headers, const char *body)
{
	struct agent_stream *s = agent_request(c, method, path, headers, av_str_c(body), true);

	agent_wait_end(s);
	return s;
}

struct agent_stream *agent_rpc(struct agent_client *c, const char *method, const char *json)
{
	static const char *const headers[] = {"content-type", AV_AGENT_CT_JSON, NULL};
	char path[64];

	if (av_path_printf(path, sizeof(path), AV_AGENT_PATH_PROCESS "%s", method) < 0)
		die("method");
	return agent_call(c, "POST", path, headers, json);
}

/* --- frames --- */

void agent_send_frame(struct agent_stream *s, int channel, const void *p, size_t n)
{
	uint8_t head[AV_FRAME_HEADER];

	av_frame_header(head, (enum av_frame_channel)channel, n);
	agent_send(s, head, sizeof(head));
	if (n)
		agent_send(s, p, n);
}

struct agent_stream *agent_frames(struct agent_client *c, const char *method, const char *json)
{
	static const char *const headers[] = {"content-type", AV_AGENT_CT_FRAMES, NULL};
	struct agent_stream *s;
	char path[64];

	if (av_path_printf(path, sizeof(path), AV_AGENT_PATH_PROCESS "%s", method) < 0)
		die("method");
	s = agent_request(c, "POST", path, headers, AV_STR(""), false);
	agent_send_frame(s, AV_FRAME_CONTROL, json, strlen(json));
	return s;
}

bool agent_next_frame(struct agent_stream *s, int *ret_channel, struct av_buf *payload)
{
	size_t n;

	agent_wait_body(s, AV_FRAME_HEADER);
	if (s->body.n < AV_FRAME_HEADER)
		return false;
	n = av_get_be32(av_buf_str(&s->body).p);
	*ret_channel = (uint8_t)av_buf_str(&s->body).p[4];
	agent_wait_body(s, AV_FRAME_HEADER + n);
	if (s->body.n < AV_FRAME_HEADER + n)
		return false;
	av_buf_reset(payload);
	av_buf_append(payload, av_buf_str(&s->body).p + AV_FRAME_HEADER, n);
	av_buf_consume(&s->body, AV_FRAME_HEADER + n);
	return true;
}

bool agent_has(const struct av_buf *text, const char *part)
{
	return memmem(av_buf_str(text).p, text->n, part, strlen(part)) != NULL;
}

int64_t agent_number(const struct av_buf *text, const char *name)
{
	struct av_str s = av_buf_str(text);
	char key[64];
	const char *p;
	size_t n = 0;
	int64_t v;

	snprintf(key, sizeof(key), "\"%s\":", name);
	p = memmem(s.p, s.n, key, strlen(key));
	if (!p)
		return -1;
	p += strlen(key);
	while (p + n < s.p + s.n && (p[n] == '-' || (p[n] >= '0' && p[n] <= '9')))
		n++;
	return av_parse_i64(av_str_n(p, n), INT64_MIN, INT64_MAX, &v) == 0 ? v : -1;
}

void agent_skip_frames(struct agent_stream *s, int n)
{
	AV_CLEANUP(av_buf_clear) struct av_buf payload = AV_BUF_INIT(1024 * 1024);
	int channel;

	while (n-- && agent_next_frame(s, &channel, &payload))
		;
}

void agent_collect(struct agent_stream *s, struct agent_result *ret)
{
	AV_CLEANUP(av_buf_clear) struct av_buf payload = AV_BUF_INIT(1024 * 1024);
	int channel;

	*ret = (struct agent_result){.out = AV_BUF_INIT(64 * 1024 * 1024),
	    .err = AV_BUF_INIT(64 * 1024 * 1024),
	    .control = AV_BUF_INIT(65536),
	    .start = AV_BUF_INIT(65536)};
	while (agent_next_frame(s, &channel, &payload)) {
		struct av_str p = av_buf_str(&payload);

		if (channel == AV_FRAME_STDOUT || channel == AV_FRAME_PTY) {
			av_buf_append_str(&ret->out, p);
		} else if (channel == AV_FRAME_STDERR) {
			av_buf_append_str(&ret->err, p);
		} else if (agent_has(&payload, "{\"gap\"")) {
			ret->gap += (uint64_t)agent_number(&payload, "dropped");
		} else if (agent_has(&payload, "{\"start\"")) {
			av_buf_append_str(&ret->start, p);
		} else {
			av_buf_append_str(&ret->control, p);
			break;
		}
	}
}

void agent_result_clear(struct agent_result *r)
{
	av_buf_clear(&r->out);
	av_buf_clear(&r->err);
	av_buf_clear(&r->control);
	av_buf_clear(&r->start);
}

void agent_run(struct agent_client *c, const char *json, struct agent_result *ret)
{
	struct agent_stream *s = agent_frames(c, "Start", json);

	agent_collect(s, ret);
	agent_wait_end(s);
	agent_stream_free(s);
}
