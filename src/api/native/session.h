/* SPDX-License-Identifier: Apache-2.0 */
/*
 * session.h - what the WebSocket conversations with processes share; for streams.c, stream_text.c,
 * stream_frames.c, terminal.c and session.c
 *
 * Theory of operation
 * -------------------
 * A session is a WebSocket and, behind it, at most one exec (node/stream.h). States:
 *
 *   AUTH → FIRST → OPEN → OVER
 *
 * AUTH: the handshake brought no key (a browser cannot send one), so the first message must be
 * {"type":"auth","token":...}, of at most AUTH_MESSAGE_MAX bytes, within SESSION_AUTH_MS. Until
 * then nothing is looked up, so that a stranger learns nothing. FIRST: the client says what to do,
 * within SESSION_FIRST_MS; kinds that have nothing to be told (attaching) skip it. OPEN: exec is
 * set. OVER: the last message is sent; the session is closed with 1000, by us at once or, where a
 * client may still be sending (a terminal), by the client within SESSION_LINGER_MS. on_close frees
 * all.
 *
 * Rules for every kind:
 *  - a client that does not read stops the process (socket → our watermark → the agent's window →
 *    its pipe), and a process that does not read stops the client. Nothing is dropped, and what
 *    waits is bounded on each way by one watermark and one window.
 *  - the last message is definite: how it ended, or an error with its reason, also when the sandbox
 *    dies or the daemon stops.
 */
#pragma once

#include <stdbool.h>

#include "api/audit.h"
#include "api/request.h"
#include "base/ids.h"
#include "control/exec.h"
#include "net/loop.h"
#include "net/wsock.h"

#define SESSION_AUTH_MS     5000
#define SESSION_FIRST_MS    30000
#define SESSION_LINGER_MS   60000
#define SESSION_MESSAGE_MAX ((size_t)1 << 20) /* bytes of a message of ours */

enum session_state { SESSION_AUTH, SESSION_FIRST, SESSION_OPEN, SESSION_OVER };

struct session;

/* One kind of conversation. What returns an int fills err when it fails, and the session ends with
 * that error. */
struct session_kind {
	size_t size;  /* of the struct that begins with struct session */
	bool lingers; /* OVER ends when the client closes */
	/* May start without being told anything: called instead of FIRST; sets exec, or, where
	 * something else is behind it, state to OPEN. NULL where the client speaks first. */
	int (*begin)(struct session *s, struct av_err *err);
	/* A message of the client in FIRST, where it must set exec, or OPEN. */
	int (*on_message)(struct session *s, bool text, struct av_str data, struct av_err *err);
	/* The client has caught up, for kinds that send without an exec. NULL allowed. */
	void (*on_drain)(struct session *s);
	/* Says why it ends; nothing else is sent afterwards. */
	void (*send_error)(struct session *s, const struct av_err *err);
	/* OVER begins, or the client is gone: stop timers, free what is held. May come twice. NULL
	 * when there is nothing to do. */
	void (*stop)(struct session *s);
};

struct session {
	const struct session_kind *kind;
	struct api *api;
	struct av_wsock *ws;
	struct node_exec *exec;        /* set in OPEN only */
	const struct api_route *route; /* whose scope is asked for */
	struct control_actor actor;
	struct av_trace_root trace; /* of the handshake */
	enum session_state state;
	bool input_paused; /* the process does not read: the client must wait */
	uint32_t pid;      /* of the process, once it has started */
	struct av_timer timer;
	char id[AV_ID_SIZE];
	struct api_audit_origin origin;
	char client[CLIENT_ADDR_SIZE]; /* see api_client() */
};

/* Checks handshake, key and sandbox, and upgrades, after which rq is gone. NULL: refused, and
 * answered. subprotocol: what is chosen of the offer, or NULL. The caller fills in the kind's own
 * part and calls session_run(). */
struct session *session_open(
    struct api_request *rq, const struct session_kind *kind, const char *subprotocol);
/* Lets it begin. */
void session_run(struct session *s);

/* Sends one message; afterwards the process is paused when the client must catch up. A message with
 * a sticky error (no memory) resets the session. */
void session_send(struct session *s, bool text, struct av_str message);
/* The message being head followed by body. */
void session_send2(struct session *s, bool text, struct av_str head, struct av_str body);
void session_send_json(struct session *s, const struct av_buf *json);
/* {"type":"error","data":message} and, when not NULL, ,"fatal":... */
void session_send_error(struct session *s, const struct av_err *err, const bool *fatal);
/* {"type":"exit","exit_code":...} */
void session_send_exit(struct session *s, const struct node_exec_end *end);
/* SIGKILL to the process group, past input that the process does not take. */
void session_kill(struct session *s);
/* Stops reading from the client until the process takes more. */
void session_pause_input(struct session *s);

/* Sends the error and ends. */
void session_fail(struct session *s, const struct av_err *err);
/* The last message is sent: OVER. exec must be NULL or gets cancelled. */
void session_finish(struct session *s);

/* For node_exec_events of every kind. */
void session_on_exec_drain(void *ctx);
