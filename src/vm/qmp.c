/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qmp.c - commands to QEMU and events from it, over a connected socket (see qmp.h)
 */
#include "vm/qmp.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/fd.h"
#include "base/json.h"

#include "base/banned.h"

#define COMMAND_MAX ((size_t)16 * 1024) /* all that waits to be written */

struct pending {
	uint64_t id;
	uint64_t deadline_ms; /* loop time */
	char command[40];     /* for messages */
	qmp_reply_fn *on_reply;
	void *ctx;
};

enum phase { WANT_GREETING, WANT_CAPABILITIES, READY, ENDED };

struct qmp {
	uv_poll_t poll;
	uv_timer_t timer;
	int open_handles; /* the struct is freed with the last */
	int fd;
	enum phase phase;
	const struct qmp_ops *ops;
	void *ctx;
	struct qmp_version version;
	struct av_buf in, out;
	struct pending pending[QMP_PENDING_MAX]; /* oldest first */
	size_t n_pending;
	uint64_t last_id;
	uint64_t greeting_deadline_ms;
	uint64_t events_since_ms;
	unsigned events;
	bool closed;
};

void qmp_printable(char *dst, size_t size, const char *text)
{
	size_t n = 0;

	for (; text[n] && n + 1 < size; n++)
		dst[n] = text[n] >= 0x20 && text[n] < 0x7f ? text[n] : '?';
	dst[n] = '\0';
}

static void end(struct qmp *q, const struct av_err *why)
{
	if (q->phase == ENDED)
		return;
	q->phase = ENDED;
	uv_poll_stop(&q->poll);
	uv_timer_stop(&q->timer);
	q->ops->on_end(q->ctx, why);
}

static void end_with(struct qmp *q, enum av_err_kind kind, const char *text)
{
	struct av_err why = {0};

	av_err_set(&why, kind, "%s", text);
	end(q, &why);
}

/* --- time limits --- */

static void arm(struct qmp *q);

static void on_timer(uv_timer_t *timer)
{
	struct qmp *q = timer->data;
	uint64_t now = uv_now(timer->loop);
	struct av_err why = {0};

	if (q->phase < READY && now >= q->greeting_deadline_ms) {
		end_with(q, AV_ERR_REQUEST_TIMEOUT, "QEMU does not take commands");
		return;
	}
	for (size_t i = 0; i < q->n_pending; i++) {
		if (q->pending[i].deadline_ms > now)
			continue;
		av_err_set(&why, AV_ERR_REQUEST_TIMEOUT, "QEMU does not answer \"%s\"",
		    q->pending[i].command);
		end(q, &why);
		return;
	}
	arm(q);
}

static void arm(struct qmp *q)
{
	uint64_t now = uv_now(q->timer.loop);
	uint64_t next = q->phase < READY ? q->greeting_deadline_ms : UINT64_MAX;

	for (size_t i = 0; i < q->n_pending; i++)
		next = AV_MIN(next, q->pending[i].deadline_ms);
	if (next == UINT64_MAX)
		uv_timer_stop(&q->timer);
	else
		uv_timer_start(&q->timer, on_timer, next > now ? next - now : 0, 0);
}

/* --- writing --- */

static void watch(struct qmp *q);

/* -errno when the socket is gone. */
static int flush(struct qmp *q)
{
	while (q->out.n) {
		struct av_str s = av_buf_str(&q->out);
		ssize_t n = write(q->fd, s.p, s.n);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return errno == EAGAIN ? 0 : -errno;
		av_buf_consume(&q->out, (size_t)n);
	}
	return 0;
}

/* {"execute": command, "arguments": args, "id": id} and a line feed. args is borrowed. */
static int put(struct qmp *q, const char *command, const json_t *args, uint64_t id)
{
	av_buf_append_c(&q->out, "{\"execute\":");
	av_json_write_str(&q->out, av_str_c(command));
	if (args) {
		av_buf_append_c(&q->out, ",\"arguments\":");
		av_json_dump(&q->out, args);
	}
	return av_buf_printf(&q->out, ",\"id\":%llu}\n", (unsigned long long)id);
}

static int call(struct qmp *q, const char *command, json_t *args, uint64_t timeout_ms,
    qmp_reply_fn *on_reply, void *ctx)
{
	AV_CLEANUP(av_json_decrefp) json_t *owned = args;
	struct pending *p;
	int r;

	if (q->n_pending == QMP_PENDING_MAX)
		return -EBUSY;
	r = put(q, command, owned, ++q->last_id);
	if (r < 0)
		return r;
	p = &q->pending[q->n_pending++];
	*p = (struct pending){
	    .id = q->last_id,
	    .deadline_ms = uv_now(q->timer.loop) + timeout_ms,
	    .on_reply = on_reply,
	    .ctx = ctx,
	};
	qmp_printable(p->command, sizeof(p->command), command);
	arm(q);
	/* A socket that is gone shows when it is read. */
	(void)!flush(q);
	watch(q);
	return 0;
}

int qmp_call(struct qmp *q, const char *command, json_t *args, uint64_t timeout_ms,
    qmp_reply_fn *on_reply, void *ctx)
{
	if (q->phase != READY) {
		json_decref(args);
		return -ENOTCONN;
	}
	return call(q, command, args, timeout_ms, on_reply, ctx);
}

/* --- reading --- */

static void on_capabilities(void *ctx, const json_t *ret, const struct av_err *err)
{
	struct qmp *q = ctx;

	(void)ret;
	if (err) {
		end(q, err);
		return;
	}
	q->phase = READY;
	arm(q);
	q->ops->on_ready(q->ctx, &q->version);
}

/* -EPROTO: no greeting. */
static int greeting(struct qmp *q, const json_t *j)
{
	const json_t *v =
	    json_object_get(json_object_get(json_object_get(j, "QMP"), "version"), "qemu");
	int64_t major = -1, minor = -1, micro = -1;

	if (!json_is_object(v) || av_json_get_i64(v, "major", 0, 9999, &major, NULL) < 0 ||
	    av_json_get_i64(v, "minor", 0, 9999, &minor, NULL) < 0 ||
	    av_json_get_i64(v, "micro", 0, 9999, &micro, NULL) < 0 || major < 0 || minor < 0 ||
	    micro < 0)
		return -EPROTO;
	q->version = (struct qmp_version){(uint32_t)major, (uint32_t)minor, (uint32_t)micro};
	q->phase = WANT_CAPABILITIES;
	return call(q, "qmp_capabilities", NULL, q->greeting_deadline_ms - uv_now(q->timer.loop),
	    on_capabilities, q);
}

/* -EPROTO: more than are taken. */
static int event(struct qmp *q, const char *name, const json_t *data)
{
	uint64_t now = uv_now(q->timer.loop);

	if (q->phase != READY)
		return 0;
	if (now - q->events_since_ms >= 1000) {
		q->events_since_ms = now;
		q->events = 0;
	}
	/* There is one for each write while this machine's disk is full: no guest's fault. */
	if (strcmp(name, "BLOCK_IO_ERROR") != 0 && ++q->events > QMP_EVENTS_PER_S) {
		end_with(q, AV_ERR_UPSTREAM, "QEMU tells of too many events");
		return -EPROTO;
	}
	q->ops->on_event(q->ctx, name, data);
	return 0;
}

/* Answers come in the order of the commands. */
static int answer(struct qmp *q, const json_t *j)
{
	const json_t *error = json_object_get(j, "error");
	const json_t *desc = json_object_get(error, "desc");
	const json_t *id = json_object_get(j, "id");
	struct pending p = q->pending[0];
	struct av_err why = {0};
	char text[200];

	if (!q->n_pending || !json_is_integer(id) || (uint64_t)json_integer_value(id) != p.id)
		return -EPROTO;
	memmove(q->pending, q->pending + 1, --q->n_pending * sizeof(p));
	arm(q);
	if (!error) {
		p.on_reply(p.ctx, json_object_get(j, "return"), NULL);
		return 0;
	}
	qmp_printable(text, sizeof(text), json_is_string(desc) ? json_string_value(desc) : "");
	av_err_set(&why, AV_ERR_INTERNAL, "QEMU refuses \"%s\": %s", p.command,
	    text[0] ? text : "no reason");
	p.on_reply(p.ctx, NULL, &why);
	return 0;
}

static int line(struct qmp *q, struct av_str s)
{
	AV_CLEANUP(av_json_decrefp) json_t *j = NULL;
	const json_t *name;

	s = av_str_trim(s);
	if (s.n && s.p[s.n - 1] == '\r')
		s.n--;
	if (!s.n)
		return 0;
	j = av_json_parse_object(s, NULL);
	if (!j)
		return -EPROTO;
	if (q->phase == WANT_GREETING)
		return greeting(q, j);
	name = json_object_get(j, "event");
	if (json_is_string(name))
		return event(q, json_string_value(name), json_object_get(j, "data"));
	if (json_object_get(j, "return") || json_object_get(j, "error"))
		return answer(q, j);
	return -EPROTO;
}

/* Every whole line that is there; a callback may have closed q. */
static void lines(struct qmp *q)
{
	while (q->phase != ENDED && !q->closed) {
		struct av_str s = av_buf_str(&q->in);
		ptrdiff_t n = av_str_chr(s, '\n');

		if (n < 0)
			break;
		if (line(q, av_str_n(s.p, (size_t)n)) < 0) {
			if (!q->closed)
				end_with(q, AV_ERR_UPSTREAM, "QEMU said what is no QMP");
			return;
		}
		if (!q->closed)
			av_buf_consume(&q->in, (size_t)n + 1);
	}
	if (q->phase != ENDED && !q->closed && q->in.n >= QMP_LINE_MAX)
		end_with(q, AV_ERR_UPSTREAM, "QEMU said a line that is too long");
}

static void on_poll(uv_poll_t *poll, int status, int events)
{
	struct qmp *q = poll->data;
	char *p;
	ssize_t n;
	size_t room = QMP_LINE_MAX - q->in.n;

	if (status < 0 || flush(q) < 0) {
		end_with(q, AV_ERR_UNAVAILABLE, "QEMU has gone");
		return;
	}
	watch(q);
	if (!(events & (UV_READABLE | UV_DISCONNECT)))
		return;
	if (av_buf_reserve(&q->in, AV_MIN(room, (size_t)16384), &p) < 0) {
		end_with(q, AV_ERR_NO_MEMORY, "no memory for what QEMU says");
		return;
	}
	n = read(q->fd, p, AV_MIN(room, (size_t)16384));
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		end_with(q, AV_ERR_UNAVAILABLE, "QEMU has gone");
		return;
	}
	av_buf_commit(&q->in, (size_t)n);
	lines(q);
}

static void watch(struct qmp *q)
{
	if (q->phase != ENDED)
		uv_poll_start(&q->poll, UV_READABLE | (q->out.n ? UV_WRITABLE : 0), on_poll);
}

/* --- life --- */

int qmp_open(uv_loop_t *loop, int fd, uint64_t timeout_ms, const struct qmp_ops *ops, void *ctx,
    struct qmp **ret)
{
	struct qmp *q = calloc(1, sizeof(*q));
	int r;

	if (!q)
		return -ENOMEM;
	av_set_cloexec(fd, true);
	r = av_set_nonblock(fd, true);
	if (r == 0)
		r = uv_poll_init(loop, &q->poll, fd);
	if (r < 0) {
		free(q);
		return r;
	}
	uv_timer_init(loop, &q->timer);
	q->open_handles = 2;
	q->poll.data = q->timer.data = q;
	q->fd = fd;
	q->ops = ops;
	q->ctx = ctx;
	av_buf_init(&q->in, QMP_LINE_MAX);
	av_buf_init(&q->out, COMMAND_MAX);
	q->greeting_deadline_ms = uv_now(loop) + timeout_ms;
	arm(q);
	watch(q);
	*ret = q;
	return 0;
}

static void on_closed(uv_handle_t *handle)
{
	struct qmp *q = handle->data;

	if (--q->open_handles)
		return;
	av_close_fd(&q->fd);
	av_buf_clear(&q->in);
	av_buf_clear(&q->out);
	free(q);
}

void qmp_close(struct qmp *q)
{
	if (!q || q->closed)
		return;
	q->closed = true;
	q->phase = ENDED;
	uv_close((uv_handle_t *)&q->poll, on_closed);
	uv_close((uv_handle_t *)&q->timer, on_closed);
}
