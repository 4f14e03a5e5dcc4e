/* SPDX-License-Identifier: Apache-2.0 */
/*
 * link.c - connections to agents, and the conversations that run on them
 *
 * A link connects when the first conversation needs it, says POST /init before anything else (the
 * agent handles streams in their order), closes after LINK_IDLE_MS without a conversation, and
 * connects again when needed. Nobody waits for the answer to /init; when it is a refusal the
 * connection is closed.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/avtime.h"
#include "base/fd.h"
#include "base/json.h"
#include "node/node_internal.h"
#include "proto/agent_api.h"
#include "proto/connect.h"

#include "base/banned.h"

/* ---- errors of the agent ---- */

static enum av_err_kind kind_of_status(int status)
{
	switch (status) {
	case 400:
	case 401: /* unknown user */
	case 406:
	case 416:
		return AV_ERR_INVALID;
	case 403:
		return AV_ERR_FORBIDDEN;
	case 404:
		return AV_ERR_NOT_FOUND;
	case 409:
		return AV_ERR_CONFLICT;
	case 413:
		return AV_ERR_TOO_LARGE;
	case 429:
		return AV_ERR_RATE_LIMITED;
	case 501:
		return AV_ERR_UNSUPPORTED;
	case 507:
		return AV_ERR_NO_SPACE;
	default:
		return AV_ERR_AGENT;
	}
}

static void set_agent_error(struct av_err *err, enum av_err_kind kind, const char *message)
{
	if (kind == AV_ERR_INTERNAL || kind == AV_ERR_NONE)
		kind = AV_ERR_AGENT;
	(void)av_err_set(err, kind, "%s", message);
}

void agent_error_json(struct av_err *err, const json_t *error)
{
	const char *code = json_string_value(json_object_get(error, "code"));
	const char *message = json_string_value(json_object_get(error, "message"));
	enum av_err_kind kind = AV_ERR_AGENT;

	/* Frames speak the codes of errors.def; Connect's names are understood as well. */
	if (code)
		kind = av_err_from_code(code);
	if (code && kind == AV_ERR_NONE)
		kind = av_connect_code_to_err(av_connect_code_from_name(av_str_c(code)));
	set_agent_error(err, kind, message ? message : "the sandbox's agent reports an error");
}

void agent_error(struct av_err *err, int status, struct av_str body)
{
	AV_CLEANUP(av_json_decrefp) json_t *j = av_json_parse_object(body, NULL);
	const char *code = json_string_value(json_object_get(j, "code"));
	const char *message = json_string_value(json_object_get(j, "message"));
	enum av_err_kind kind = kind_of_status(status);

	if (code)
		kind = av_connect_code_to_err(av_connect_code_from_name(av_str_c(code)));
	if (message)
		set_agent_error(err, kind, message);
	else
		(void)av_err_set(err, kind == AV_ERR_INTERNAL ? AV_ERR_AGENT : kind,
		    "the sandbox's agent answered with status %d", status);
}

static void status_error(struct av_err *err, int status)
{
	switch (status) {
	case -EPROTO:
		(void)av_err_set(err, AV_ERR_AGENT, "the sandbox's agent broke the protocol");
		break;
	case -ETIMEDOUT:
		(void)av_err_set(err, AV_ERR_AGENT, "the sandbox's agent does not answer");
		break;
	case -ECANCELED:
		(void)av_err_set(
		    err, AV_ERR_AGENT, "the sandbox's agent refused its configuration");
		break;
	default:
		(void)av_err_sys(
		    err, AV_ERR_AGENT, status, "the connection to the sandbox's agent was lost");
		break;
	}
}

/* ---- connections ---- */

static void on_link_close(void *ctx, struct av_h2c *conn, int status)
{
	struct link *l = ctx;

	l->sb->node->stats.agent_errors += status != 0;
	l->conn = NULL;
	av_h2c_free(conn);
}

static void on_idle(void *ctx)
{
	struct link *l = ctx;

	/* Who is given it finds a connection that stood still with it. */
	if (l->sb->held)
		av_timer_start(&l->idle, LINK_IDLE_MS);
	else
		av_h2c_free(AV_TAKE_PTR(l->conn));
}

void link_init(struct link *l, struct node_sandbox *sb, enum link_kind kind)
{
	*l = (struct link){.sb = sb, .is_ports = kind == LINK_PORTS};
	av_timer_init(&l->idle, sb->node->loop, on_idle, l);
}

void link_clear(struct link *l)
{
	av_timer_stop(&l->idle);
	av_h2c_free(AV_TAKE_PTR(l->conn));
}

/* The first time after its creation is what a create waits for. */
static void agent_met(struct node_sandbox *sb)
{
	int64_t now = av_mono_ns();

	if (!sb->greeted_ns)
		return;
	av_hist_add(&sb->node->stats.agent_ready, now - sb->greeted_ns);
	av_trace_part(&sb->trace, "agent.ready", sb->greeted_ns, now, AV_ERR_NONE, sb->id);
	sb->greeted_ns = 0;
	sb->met = true;
	sb->trace.tracer = NULL;
}

static void on_init_response(void *ctx, struct av_h2s *s, const struct av_http_head *head)
{
	struct link *l = ctx;

	(void)s;
	if (head->status < 300) {
		agent_met(l->sb);
		return;
	}
	l->sb->node->stats.agent_errors++;
	/* Frees the connection from one of its callbacks, which it allows; every conversation on it
	 * hears ECANCELED. */
	av_h2c_free(AV_TAKE_PTR(l->conn));
}

static const struct av_h2s_handler init_handler = {.on_response = on_init_response};

/* Says POST /init; what is asked on the connection after this finds it done. */
static int greet(struct link *l, struct av_h2c *conn)
{
	const struct av_http_header headers[] = {
	    {AV_STR("content-type"), AV_STR(AV_AGENT_CT_JSON)},
	};
	const struct av_h2s_request rq = {
	    .method = AV_STR("POST"),
	    .path = AV_STR(AV_AGENT_PATH_INIT),
	    .authority = AV_STR(AV_AGENT_AUTHORITY),
	    .headers = headers,
	    .n_headers = AV_ARRAY_LEN(headers),
	    .body = av_str_c(l->sb->init_json),
	    .auto_consume = true,
	};
	struct av_h2s *s = NULL;

	return av_h2c_request(conn, &rq, &init_handler, l, &s);
}

static int link_connect(struct link *l, struct av_err *err)
{
	struct driver *d = l->sb->driver;
	const struct av_h2c_config config = {
	    .on_close = on_link_close,
	    .ctx = l,
	    .stream_window_bytes = 256 * 1024,
	    .high_watermark_bytes = 256 * 1024,
	    /* What their readers do not take is never held here (see give_back in stream.c), so
	     * the sum of all windows may be large, and no tunnel can starve another. */
	    .connection_window_bytes = l->is_ports ? TUNNELS_MAX * 256 * 1024 : 0,
	};
	AV_CLEANUP(av_closep) int fd = -1;
	struct av_h2c *conn = NULL;
	int r = d->ops->agent_connect(d, l->sb->id, &fd, err);

	if (r < 0)
		return r;
	r = av_h2c_adopt(l->sb->node->loop, fd, &config, &conn);
	if (r < 0)
		return av_err_sys(err, AV_ERR_AGENT, r, "cannot connect to the sandbox's agent");
	(void)AV_TAKE_FD(fd);
	r = greet(l, conn);
	if (r < 0) {
		av_h2c_free(conn);
		return av_err_sys(err, AV_ERR_AGENT, r, "cannot greet the sandbox's agent");
	}
	l->conn = conn;
	if (!l->sb->met && !l->sb->greeted_ns)
		l->sb->greeted_ns = av_mono_ns();
	av_h2c_hold(conn, l->sb->frozen);
	return 0;
}

void link_hold(struct link *l, bool held)
{
	if (l->conn)
		av_h2c_hold(l->conn, held);
}

static int link_ready(struct link *l, struct av_err *err)
{
	if (l->conn && av_h2c_usable(l->conn))
		return 0;
	if (l->conn && l->n_convs > 0)
		/* It said GOAWAY while others still run on it: those must end first. */
		return av_err_set(err, AV_ERR_AGENT, "the sandbox's agent closes its connection");
	av_h2c_free(AV_TAKE_PTR(l->conn));
	return link_connect(l, err);
}

void link_warm(struct link *l)
{
	if (!l->conn && link_connect(l, NULL) == 0)
		av_timer_start(&l->idle, LINK_IDLE_MS);
}

void link_greet_again(struct link *l)
{
	if (l->conn && (!av_h2c_usable(l->conn) || greet(l, l->conn) < 0))
		link_clear(l);
	if (l->conn)
		av_timer_start(&l->idle, LINK_IDLE_MS);
}

/* ---- conversations ---- */

/* Out of its sandbox's list; the link may become idle. */
static void conv_unlink(struct conv *c)
{
	struct node_sandbox *sb = c->sb;

	if (!sb)
		return;
	c->sb = NULL;
	av_list_remove(&c->link);
	sb->n_convs--;
	sb->n_quiet -= c->quiet;
	sb->n_tunnels -= c->tunnel;
	if (--c->via->n_convs == 0)
		av_timer_start(&c->via->idle, LINK_IDLE_MS);
	if (!c->quiet)
		node_sandbox_activity(sb);
}

static void conv_free(struct conv *c)
{
	conv_unlink(c);
	free(c->pending);
	c->ops->free(c);
}

void conv_end(struct conv *c, bool graceful)
{
	c->over = true;
	conv_unlink(c);
	if (!c->h2s)
		conv_free(c);
	else if (graceful)
		av_h2s_end(c->h2s);
	else
		av_h2s_cancel(c->h2s);
}

void conv_fail(struct conv *c, const struct av_err *err)
{
	if (c->over)
		return;
	/* Over first, so that nothing done in the owner's callback reaches it; freed afterwards. */
	c->over = true;
	conv_unlink(c);
	c->ops->fail(c, err);
	if (c->h2s)
		av_h2s_cancel(c->h2s);
	else
		conv_free(c);
}

static void set_pending(struct conv *c, const struct av_err *err)
{
	if (!c->pending)
		c->pending = calloc(1, sizeof(*c->pending));
	if (c->pending)
		*c->pending = *err;
}

void conv_abort(struct conv *c, const struct av_err *err)
{
	if (c->over || c->pending)
		return;
	set_pending(c, err);
	if (c->h2s)
		av_h2s_cancel(c->h2s);
	else if (c->sb)
		av_timer_start(&c->sb->lost_timer, 0);
}

static struct conv *to_conv(void *ctx)
{
	return ctx;
}

static void on_response(void *ctx, struct av_h2s *s, const struct av_http_head *head)
{
	struct conv *c = to_conv(ctx);

	(void)s;
	if (!c->over && !c->pending)
		c->ops->on_response(c, head);
}

static void on_data(void *ctx, struct av_h2s *s, struct av_str data)
{
	struct conv *c = to_conv(ctx);

	if (!c->over && !c->pending)
		c->ops->on_data(c, data);
	else
		av_h2s_consume(s, data.n);
}

static void on_end(void *ctx, struct av_h2s *s)
{
	struct conv *c = to_conv(ctx);

	(void)s;
	if (!c->over && !c->pending)
		c->ops->on_complete(c);
}

static void on_writable(void *ctx, struct av_h2s *s)
{
	struct conv *c = to_conv(ctx);

	(void)s;
	if (!c->over && !c->pending && c->ops->on_writable)
		c->ops->on_writable(c);
}

static void on_close(void *ctx, struct av_h2s *s, int status)
{
	struct conv *c = to_conv(ctx);
	struct av_err err;

	(void)s;
	c->h2s = NULL;
	if (c->over) {
		conv_free(c);
		return;
	}
	if (c->pending) {
		struct av_err why = *c->pending;

		conv_fail(c, &why);
		return;
	}
	/* on_complete ends a conversation, so that here it is lost, whatever status says. */
	status_error(&err, status ? status : -EPROTO);
	set_pending(c, &err);
	if (!c->pending || !c->sb)
		conv_fail(c, &err);
	else if (!av_timer_active(&c->sb->lost_timer))
		av_timer_start(&c->sb->lost_timer, c->sb->dead ? LOST_WAIT_MS * 20 : LOST_WAIT_MS);
}

static const struct av_h2s_handler conv_handler = {
    .on_response = on_response,
    .on_data = on_data,
    .on_end = on_end,
    .on_writable = on_writable,
    .on_close = on_close,
};

int conv_open(struct conv *c, struct node_sandbox *sb, enum link_kind kind,
    const struct conv_ops *ops, const struct av_h2s_request *rq, struct av_err *err)
{
	struct link *l = &sb->links[kind];
	int r;

	if (sb->dead || sb->node->closing)
		return av_err_set(err, sb->dead ? AV_ERR_INVALID_STATE : AV_ERR_UNAVAILABLE, "%s",
		    sb->dead ? "the sandbox has just ended" : "Aviary is shutting down");
	r = link_ready(l, err);
	if (r < 0)
		return r;
	c->ops = ops;
	c->sb = sb;
	c->via = l;
	r = av_h2c_request(l->conn, rq, &conv_handler, c, &c->h2s);
	if (r < 0)
		return av_err_sys(err, AV_ERR_AGENT, r, "cannot ask the sandbox's agent");
	av_timer_stop(&l->idle);
	av_list_append(&sb->convs, &c->link);
	sb->n_convs++;
	sb->n_quiet += c->quiet;
	l->n_convs++;
	c->waits_for_thaw = sb->frozen;
	if (!c->quiet)
		node_sandbox_activity(sb);
	return 0;
}
