/* SPDX-License-Identifier: Apache-2.0 */
/*
 * server.h - accepts connections on the agent's socket and runs HTTP/2 on them
 */
#pragma once

#include "agent/agent.h"

#define SERVER_CONNS_MAX   256
#define SERVER_STREAMS_MAX 4096 /* of one connection: as many clients as the daemon has */
#define SERVER_WINDOW      ((uint32_t)256 * 1024) /* bytes a client may send ahead on a stream */

struct conn;

/* Begins to accept on listen_fd (taken over; -1: connections come by server_adopt only). -errno. */
int server_open(struct agent *a, int listen_fd, struct server **ret);
/* A connection that was made elsewhere: a non-blocking stream socket, taken over. On failure
 * (-errno; -EMFILE when there are too many) it stays the caller's. */
int server_adopt(struct server *s, int fd) AV_MUST_CHECK;
/* While it is held no connection is read from: requests wait. What is to be sent still goes out. */
void server_hold(struct server *s, bool on);
/* There may be something to send on c: it is flushed before the loop sleeps. */
void server_mark(struct conn *c);
/* Puts a request's node into the list of those whose on_turn is called at the end of this turn. */
void server_want_turn(struct conn *c, struct av_list *node);
/* The /init that other requests of the connection waited for is done. */
void server_init_done(struct conn *c);
/* Frees buffers that are made again when needed. Not from an event of a connection. */
void server_trim(struct server *s);
/* No new connections and streams (GOAWAY on all). */
void server_drain(struct server *s);
