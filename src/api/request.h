/* SPDX-License-Identifier: Apache-2.0 */
/*
 * request.h - one request on its way through the API: route, actor, body, answer, clean-up
 *
 * Only files of src/api include this.
 *
 * Theory of operation. api_on_request() matches the route, checks the key, decodes the path
 * parameters, collects a JSON body where the route says so, and calls the handler: a handler sees
 * only what is well-formed and allowed. From then on the request belongs to the handler until it
 * answers. Rules:
 *  1. rq lives until the connection is done with it (after rq->on_gone, if set). A handler that
 *     holds a handle of control (a call, a stream) cancels it in on_gone, or leaves the call in
 *     rq->call, which is cancelled by itself: what a client started ends when the client goes away.
 *  2. A callback of control sets its handle to NULL first, then answers.
 *  3. Exactly one of the api_send_* functions is called for a request, or av_res_start and friends
 *     with api_started(); or it is upgraded with api_request_release().
 *  4. Errors of control go to api_send_err unchanged: kinds decide status and code.
 */
#pragma once

#include <stdbool.h>

#include "api/api.h"
#include "api/client_addr.h"
#include "api/metrics.h"
#include "api/router.h"
#include "base/buf.h"
#include "base/json.h"
#include "base/list.h"
#include "control/control.h"
#include "net/http_server.h"

struct api {
	struct av_loop *loop;
	struct control *control;
	const struct av_http_server *server; /* NULL until set */
	const char *version;
	const char *credentials_hint;
	const char *ports_domain; /* "example.com[:port]", see api.h; or NULL */
	bool ports_tls;
	const char *public_url; /* "https://example.com[:port]", see public_url.h; or NULL */
	struct trusted_proxies proxies;
	struct api_metrics metrics;
	size_t collected_bytes;       /* output held for answers, at most FOREGROUND_TOTAL_MAX */
	struct events *events;        /* owned */
	struct av_list audit_exports; /* struct exporter of native/audit.c */
	struct av_fetch *fetch;       /* for its counts; or NULL */
	struct av_otlp *otlp;         /* NULL: nothing is traced */
	struct scraper *scraper;      /* owned */
	int64_t start_ms;             /* when this process started, since 1970 */
	bool metrics_public;          /* see auth.h */
	size_t kernel_bytes;          /* results of kernels on their way, see kernel_run.h */
};

#define API_PARAM_MAX 256 /* bytes of a decoded path parameter */

struct api_audit;

struct api_request {
	struct api *api;
	struct av_req *req;
	struct api_match match;
	struct control_actor actor;    /* valid on routes with a key */
	char *param[API_PARAMS_MAX];   /* decoded, owned; no NUL inside */
	char host_id[AV_ID_SIZE];      /* on routes for hosts: whose token it is */
	char client[CLIENT_ADDR_SIZE]; /* see api_client(); empty until asked for */
	const char *id;                /* the parameter {id}, a well-formed sandbox id; or NULL */
	json_t *body;                  /* JSON routes: owned, never NULL */
	struct av_str raw_body;        /* JSON routes: valid until the handler returns */
	int status;                    /* of the answer, 0 before */
	enum av_err_kind failed;       /* of the answer; NONE: it is no error */
	struct api_audit *audit;       /* owned, see audit.h; NULL: nothing special */
	struct av_trace_root trace;    /* its parts are recorded under actor.trace */
	char trace_request_id[65];     /* of a traced one: req may be gone when it ends */
	int64_t trace_start_ns;
	bool lasting; /* it lasts as long as the client likes: no latency */

	/* The handler's: */
	void *state;
	struct node_call *call; /* cancelled when the client goes away */
	/* The client is gone or the answer is out, with the status of av_req's on_close. Frees
	 * state. */
	void (*on_gone)(struct api_request *rq, int status);
	/* As in struct av_req_handler; for routes that stream. */
	void (*on_body)(struct api_request *rq, struct av_str data);
	void (*on_body_end)(struct api_request *rq);
	void (*on_drain)(struct api_request *rq);
};

/* Under which address the client is counted; valid as long as rq. */
const char *api_client(struct api_request *rq);
/* The actor is known: what is done for it is traced from here on. */
void api_request_trusted(struct api_request *rq);
/* A fixed parameter of the path by name; never NULL for one that the pattern has. */
const char *api_param(const struct api_request *rq, const char *name);
/* First query parameter of that name, decoded, appended to out. -ENOENT when absent; INVALID (bad
 * escape, NUL) fills err. */
int api_query(
    const struct api_request *rq, const char *name, struct av_buf *out, struct av_err *err);

/* For parameters that may come several times: the next one of that name in *rest, which is the
 * whole query at first (api_query_string) and what follows it afterwards. As api_query otherwise.
 */
struct av_str api_query_string(const struct api_request *rq);
int api_query_next(struct av_str *rest, const char *name, struct av_buf *out, struct av_err *err);

/* Whole answers. json must have no sticky error, else it becomes NO_MEMORY. */
void api_send_json(struct api_request *rq, int status, struct av_buf *json);
/* With headers of its own, content-type included. */
void api_send_json_with(struct api_request *rq, int status, const struct av_http_header *headers,
    size_t n_headers, struct av_buf *json);
void api_send_empty(struct api_request *rq, int status);
void api_send_err(struct api_request *rq, const struct av_err *err);
/* For calls that answer nothing: 204, or the error. ctx is the request, whose call this was. */
void api_on_done(void *ctx, const struct av_err *err);
/* After av_res_start: the status for metrics and log. */
void api_started(struct api_request *rq, int status);
/* The request became a WebSocket session: it is counted with status 101 and freed. */
void api_request_release(struct api_request *rq);

/* Appends {"error":{"code":...,"message":...}}. code NULL: the kind's. */
void api_write_err(struct av_buf *out, const struct av_err *err);
