/* SPDX-License-Identifier: Apache-2.0 */
/*
 * client.h - a client: one Aviary, one set of credentials, the connections to it
 *
 * Nothing is global, and unless asked no thread is made. Whoever waits for an operation drives all
 * operations of its client meanwhile; or an event loop does, by one descriptor:
 *
 *     poll aviary_client_fd(c) for reading, at most aviary_client_timeout(c) ms;
 *     then aviary_client_dispatch(c, 0)
 *
 * With AVIARY_CLIENT_THREADED a thread of the library's drives it, and callbacks run there.
 *
 * Threads: with AVIARY_CLIENT_THREADED every function of a client, its operations and its objects
 * may be called from any thread; a callback may call all of them except those that wait. Without it
 * they belong to one thread at a time. Different clients never share anything.
 */
#ifndef AVIARY_CLIENT_H
#define AVIARY_CLIENT_H

#include <aviary/op.h>

AVIARY_BEGIN_DECLS

typedef struct aviary_client aviary_client;

#define AVIARY_CLIENT_THREADED 1u /* a thread of the library's drives it */
#define AVIARY_CLIENT_NO_ENV   2u /* no environment variable and no file is looked at */

/* What a request is signed with; exactly one of the first two. Copied. */
typedef struct aviary_credentials {
	size_t struct_size;
	const char *api_key;          /* "av_..."; sent as X-API-Key */
	const char *session_token;    /* of a user who logged in; sent as a Bearer token */
	const char *entity, *project; /* of W&B; sent beside a key of theirs */
} aviary_credentials;

/* Called before the first request and again after the server refused the credentials, once for each
 * refusal. Fills *ret (strings copied after return) and returns 0, or a code that the request ends
 * with. Runs where operations are driven. */
typedef int aviary_credentials_fn(void *ctx, int refused, aviary_credentials *ret);

typedef struct aviary_client_options {
	size_t struct_size;
	unsigned flags;
	const char *base_url; /* else AVIARY_URL, the credentials file, http://127.0.0.1:7878 */
	const char *api_key;  /* else see aviary_client_new */
	const char *session_token;
	aviary_credentials_fn *credentials; /* instead of all that */
	void *credentials_ctx;
	const char *unix_socket; /* connects there; base_url still names the server */
	const char *ca_file;     /* PEM; else AVIARY_CA, else the system's */
	const char *proxy; /* "http://host:port"; else none: no proxy of the environment is used */
	const char *user_agent; /* before "libaviary/0.1.0" */
	/* Of all these times 0 is the default, and what is beyond 2^31-1 ms (24 days) is that. */
	int64_t connect_timeout_ms; /* default 10 s; -1: none */
	int64_t request_timeout_ms; /* of requests that do not wait for a program: default 60 s;
	                             * -1: none */
	int64_t retry_budget_ms;    /* for requests that may be repeated; default 30 s; -1: none */
	/* At once, for requests, and as many again for streams (a process, a terminal, events);
	 * what is more waits until one ends. Default 64. */
	unsigned max_connections;
	/* A stream whose server says nothing for so long, not even to a ping, is broken; default
	 * 90 s, -1: never. A stream that is not read does not count as silent. */
	int64_t silence_timeout_ms;
} aviary_client_options;

#define AVIARY_CLIENT_OPTIONS_INIT AVIARY_INITIAL(aviary_client_options)

/* Makes a client; nothing is connected yet. options may be NULL. Credentials come from the first
 * of: api_key or session_token; AVIARY_API_KEY; the file that the first start of aviaryd wrote
 * (AVIARY_CREDENTIALS, else ~/.config/aviary/credentials.json, /etc/aviary/credentials.json);
 * WANDB_API_KEY or the entry api.wandb.ai of netrc, with WANDB_ENTITY_NAME and WANDB_PROJECT_NAME;
 * the server's entry of netrc (NETRC, else ~/.netrc). Looked for with the first request.
 *
 * Except when there is no memory *ret is set, also on failure: aviary_client_error says why, and
 * the client is freed as usual. Blocks nowhere. */
AVIARY_API int aviary_client_new(
    aviary_client **ret, const aviary_client_options *options) AVIARY_NODISCARD;
/* Operations that are not done end with AVIARY_E_CANCELED, whose callbacks run during this call;
 * handles of operations, sandboxes and streams stay valid until they are freed, and answer
 * AVIARY_E_STATE. Not from inside a callback. NULL is fine. */
AVIARY_API void aviary_client_free(aviary_client *c);

/* What the last function that was given the client itself failed with. Per thread: valid until that
 * thread calls the next one. */
AVIARY_API const aviary_error *aviary_client_error(aviary_client *c);
/* The URL in use, and where the credentials come from ("AVIARY_API_KEY", a file name), "" before.
 * Valid as long as the client; the source only until others are looked for, after a refusal. */
AVIARY_API const char *aviary_client_base_url(aviary_client *c);
AVIARY_API const char *aviary_client_credentials_source(aviary_client *c);

/* ---- any request ---- */

typedef struct aviary_request {
	size_t struct_size;
	const char *method;          /* "GET" (default), "POST", "PUT", "PATCH", "DELETE", "HEAD" */
	const char *path;            /* "/v1/...", percent-encoded */
	const char *body;            /* JSON; NULL: none */
	size_t body_size;            /* 0: body ends in NUL */
	const char *idempotency_key; /* makes a POST repeatable where the server knows it */
	int64_t timeout_ms;          /* of one try; 0: the client's */
	int anonymous;               /* 1: without credentials, which need not be there then */
} aviary_request;
#define AVIARY_REQUEST_INIT AVIARY_INITIAL(aviary_request)
/* Whatever this library has no function for. Everything is copied. The answer: aviary_op_body. Does
 * not block. */
AVIARY_API aviary_op *aviary_client_request(aviary_client *c, const aviary_request *request);

/* ---- driving ---- */

/* Becomes readable when aviary_client_dispatch has something to do. Stays the same as long as the
 * client. AVIARY_E_STATE with a thread of its own. */
AVIARY_API int aviary_client_fd(aviary_client *c);
/* Milliseconds after which aviary_client_dispatch must be called even so; -1: none. Ask right
 * before waiting: after a call that looked without waiting (a read, write or wait with time-out 0)
 * and found work on its way it is 0, and the descriptor is readable, since what was looked at
 * before that may have changed. */
AVIARY_API int aviary_client_timeout(aviary_client *c);
/* Does what can be done; waits up to timeout_ms for something (0: does not wait, -1: until there is
 * something). Callbacks run from here. Returns how many operations are not done yet. */
AVIARY_API int aviary_client_dispatch(aviary_client *c, int64_t timeout_ms);

AVIARY_END_DECLS
#endif
