/* SPDX-License-Identifier: Apache-2.0 */
/*
 * audit.h - what a request did, for the audit log
 *
 * A record is made when a request of a route with a name in its column `audit` ends, or becomes a
 * WebSocket, whatever came out; and of any request whose key or session was refused, as
 * "auth.refuse". Who, result, peer and request id are taken from the request, the resource from the
 * first parameter of the path (of "member." actions the last one). A handler adds what only it
 * knows, with the functions below; all texts are copied and bounded, and none may be a secret.
 */
#pragma once

#include "api/request.h"
#include "control/audit.h"

/* What it is about, where the path does not say so: the id of what was made. */
void api_audit_about(struct api_request *rq, const char *resource_id);
/* Whose log it belongs to, where it is not the actor's team's. */
void api_audit_team(struct api_request *rq, const char *team_id);
/* Who it was, on routes that ask for no key: a user that is known now. */
void api_audit_user(struct api_request *rq, const char *user_id);
/* The same, a host. */
void api_audit_host(struct api_request *rq, const char *host_id);
/* One member of the metadata; a name may come once. What does not fit is left out. */
void api_audit_note(struct api_request *rq, const char *name, const char *value);

/* For request.c: the request is over. */
void api_audit_end(struct api_request *rq);
void api_audit_free(struct api_audit *a);

/* Of a conversation over a WebSocket, which outlives its request. */
struct api_audit_origin {
	char peer[72], request_id[72];
};
void api_audit_origin(const struct api_request *rq, struct api_audit_origin *ret);
/* It was opened, or refused with err. actor NULL: its key or session was refused. */
void api_audit_socket(struct api *api, const struct api_route *route,
    const struct control_actor *actor, const char *resource_id, const struct api_audit_origin *from,
    const struct av_err *err);
