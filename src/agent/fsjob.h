/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fsjob.h - a unary file operation: read on the loop, done on the thread pool, answered on the loop
 *
 * Theory of operation. An operation that may take long (a tree) does one slice of WALK_SLICE_NS a
 * time and sets `again`; between slices other work of the pool has its turn, and a client that went
 * away ends it. At most FSJOBS_MAX operations exist at a time, so that what they hold (descriptors,
 * names) is bounded, too.
 *
 * States: on the loop (created) → with the pool ⇄ on the loop (again) → answered. The struct lives
 * as long as the stream or the pool needs it; rq is NULL once the stream is gone.
 */
#pragma once

#include <uv.h>

#include "agent/request.h"
#include "tree/walk.h"
#include "base/json.h"

#define FSJOBS_MAX      64
#define FSJOB_REPLY_MAX ((size_t)64 * 1024)

struct fsjob;

struct fsjob_op {
	bool needs_path; /* an empty "path" is refused, instead of meaning the home */
	/* On the loop: takes what it needs from the request. j->path is there. NULL allowed. */
	int (*parse)(struct fsjob *j, const json_t *body, struct av_err *err);
	/* On the pool, with the user's ids: does it, or a slice of it (j->again = true). Returns 0
	 * with j->answer filled (empty: "{}"), or -errno with j->err set. */
	int (*run)(struct fsjob *j);
};

struct fsjob {
	struct request *rq;
	const struct fsjob_op *op;
	uv_work_t work;
	bool working;
	bool again;
	struct agent_user user;
	char path[AV_PATH_MAX + 1];
	int error;
	struct av_err err;
	struct av_buf answer;
	int64_t slice_ends_ns;
	/* of the operations: */
	char destination[AV_PATH_MAX + 1]; /* Move */
	bool must_exist;                   /* Remove: a missing path is an error */
	bool recursive;                    /* SetAttributes */
	int mode;                          /* SetAttributes: -1 to leave it */
	uid_t uid;                         /* SetAttributes: (uid_t)-1 to leave it */
	gid_t gid;
	bool walking;        /* a walk is open */
	int rounds;          /* Remove: how often it began again */
	unsigned int lifted; /* Remove: directories moved to the top */
	struct walk walk;
};

/* A place among the file operations, of which FSJOBS_MAX are done at a time, and zeroed memory for
 * one; NULL when there is none. */
void *fsjob_place(struct agent *a, size_t size);
/* Gives both back. */
void fsjob_leave(struct agent *a, void *p);
/* The same for a request of HTTP: NULL when it was answered with 503. */
void *fsjob_place_http(struct request *rq, size_t size);
/* Begins op for the request with this body; answers errors itself. */
void fsjob_start(struct request *rq, struct av_str body, const struct fsjob_op *op);
/* True when the slice is over. */
bool fsjob_slice_over(const struct fsjob *j);
/* The user of a request to filesystem.Filesystem: of its Authorization header, else the body's
 * "user", which only our own daemon sends, else the sandbox's default. */
int fs_request_user(
    struct request *rq, const json_t *body, struct agent_user *ret, struct av_err *err);
/* The path in field of body, resolved into dst (AV_PATH_MAX + 1 bytes). */
int fs_request_path(struct request *rq, const struct agent_user *u, const json_t *body,
    const char *field, char *dst, struct av_err *err);
/* User and path of the query parameters "username" and "path" (which must not be empty); false when
 * they are bad: answered. */
bool fs_query_target(
    struct request *rq, struct agent_user *ret_user, char ret_path[AV_PATH_MAX + 1]);
/* The one message of a Connect stream's request, which is framed as all are; empty (and so no JSON)
 * when it is not. */
struct av_str fs_unframe(struct av_str body);
