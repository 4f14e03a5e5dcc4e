/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ports.h - servers in a sandbox: their address, requests to them; and what a sandbox uses
 *
 * A server in a sandbox is reached through the API's own port, also one that listens on loopback
 * only. Ports are private, for keys of the team and signed URLs, except those in public_ports of
 * the sandbox: aviary_sandbox_update() changes them.
 */
#ifndef AVIARY_PORTS_H
#define AVIARY_PORTS_H

#include <aviary/files.h>
#include <aviary/models.h>

AVIARY_BEGIN_DECLS

/* The address of what listens on port (whether something does is not asked), for browsers and
 * others without a key: signed for lifetime_ms (whole seconds, up to 7 days; 0: an hour), except
 * when the port is public. path begins with "/" and is percent-encoded; NULL: "/". Starts the
 * sandbox. Result: aviary_port_url of models.h. */
AVIARY_API aviary_op *aviary_sandbox_url(
    aviary_sandbox *sb, unsigned port, const char *path, int64_t lifetime_ms);
AVIARY_API aviary_port_url *aviary_sandbox_url_sync(
    aviary_sandbox *sb, unsigned port, const char *path, int64_t lifetime_ms, aviary_error *error);

typedef struct aviary_http_request {
	size_t struct_size;
	const char *method; /* default GET; HEAD, POST, PUT, PATCH, DELETE, OPTIONS */
	const char *path;   /* begins with "/", percent-encoded, with a query; default "/" */
	/* Not those of the connection (Host, Connection, Content-Length, Transfer-Encoding, ...)
	 * nor what authenticates to Aviary. Authorization is passed on where the client has an API
	 * key, and not a session. */
	aviary_pairs headers;
	const void *body; /* copied; or: */
	size_t body_size;
	aviary_read_fn *source; /* as in files.h */
	void *source_ctx;
	int64_t source_size; /* as it says; 0 and -1: not known, it is sent in chunks */
	/* The body of the answer goes there, instead of into the result. */
	aviary_write_fn *sink;
	void *sink_ctx;
	size_t max_bytes;        /* of a body in the result; default 16 MiB */
	int64_t timeout_ms;      /* of the request; default: none */
	int64_t idle_timeout_ms; /* as in aviary_file_options */
} aviary_http_request;
#define AVIARY_HTTP_REQUEST_INIT                                                                   \
	{                                                                                          \
		sizeof(aviary_http_request), 0, 0, {0, 0}, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0            \
	}

/* Everything in it is what a program in a sandbox says. */
typedef struct aviary_http_response {
	int status;
	const char *headers; /* "Name: value\r\n" each */
	const char *body;    /* with a NUL behind it; "" where it went to a sink */
	size_t size;
} aviary_http_response;
AVIARY_API aviary_http_response *aviary_op_take_http_response(aviary_op *op);
AVIARY_API void aviary_http_response_free(aviary_http_response *response);
/* The value of the first header of that name, without regard to case: its length, and *ret, which
 * is not terminated; -1: there is none. */
AVIARY_API int64_t aviary_http_header(
    const aviary_http_response *response, const char *name, const char **ret);

/* A request to the server on port. Every answer of it is a success, whatever its status.
 * AVIARY_E_PORT_CLOSED when nothing listens; AVIARY_E_TOO_LARGE for a body over max_bytes;
 * AVIARY_E_BROKEN for one that breaks off. Starts the sandbox. GET, HEAD, PUT, DELETE and OPTIONS
 * are repeated as files.h says. request may be NULL. Result: aviary_http_response. */
AVIARY_API aviary_op *aviary_sandbox_http(
    aviary_sandbox *sb, unsigned port, const aviary_http_request *request);
AVIARY_API aviary_http_response *aviary_sandbox_http_sync(
    aviary_sandbox *sb, unsigned port, const aviary_http_request *request, aviary_error *error);
/* The status of the answer as soon as its head is there, so before a sink is called; else 0. */
AVIARY_API int aviary_op_http_status(const aviary_op *op);

/* What it used: points, oldest first; the last one is the present. range: how far back; 0: 10
 * minutes. Also of one that does not run any more. Result: aviary_metrics of models.h. */
AVIARY_API aviary_op *aviary_sandbox_metrics(aviary_sandbox *sb, enum aviary_metrics_range range);
AVIARY_API aviary_metrics *aviary_sandbox_metrics_sync(
    aviary_sandbox *sb, enum aviary_metrics_range range, aviary_error *error);

AVIARY_END_DECLS
#endif
