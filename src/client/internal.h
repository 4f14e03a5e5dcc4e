/* SPDX-License-Identifier: Apache-2.0 */
/*
 * internal.h - only for libaviary: a client's inside, operations, requests
 *
 * Theory of operation. Everything of a client is protected by its one lock. Driving (avc_drive)
 * means: wait without the lock until a descriptor is ready or a timer is due, then, with it, let
 * libcurl and the sockets of streams do what they can, and end operations. An operation that ends
 * is put into `fired`; its callback runs afterwards, without the lock, so that it may call
 * everything that does not wait. Exactly one thread drives at a time: the client's own, or whoever
 * waits or dispatches.
 *
 * An operation belongs to its handles; what works on it (a request, a stream) knows it by `work`
 * and `stop`, and lets go when it ends. The memory of a client lives until its last handle is
 * freed; after aviary_client_free it is closed, and everything answers AVIARY_E_STATE.
 */
#pragma once

#include <aviary/client.h>
#include <aviary/op.h>
#include <curl/curl.h>
#include <jansson.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "base/buf.h"
#include "base/list.h"
#include "base/str.h"
#include "client/model.h"

/* ---- a descriptor that is waited for ---- */

struct avc_watch {
	int fd;
	uint32_t events; /* EPOLLIN, EPOLLOUT; 0: not registered */
	void (*on_ready)(struct avc_watch *w, uint32_t events);
};

struct avc_timer {
	struct av_list link; /* c->timers, the next one first */
	int64_t due_ms;      /* monotonic */
	void (*on_due)(struct avc_timer *t);
};

/* Somebody who waits for operations of several clients: fd is an eventfd of theirs. */
struct avc_waiter {
	struct av_list link; /* c->waiters */
	int fd;
};

struct avc_tracker;

struct avc_credentials {
	char *api_key, *session_token, *entity, *project;
	char *source;
};

struct aviary_client {
	pthread_mutex_t lock;
	pthread_cond_t changed; /* an operation ended, or nobody drives any more */
	atomic_uint refs;
	bool closed;
	bool driving; /* somebody does */
	bool awake;   /* wake_fd is readable */
	/* Something has happened in a call of the caller's that did not wait, as a look for output:
	 * what it looked at before may have changed meanwhile. Its loop comes round once more. */
	bool stirred;
	pthread_t driver; /* who */
	bool threaded, stop;
	pthread_t thread;

	char *base_url, *unix_socket, *ca_file, *proxy, *user_agent;
	bool no_env;
	int64_t connect_timeout_ms, request_timeout_ms, retry_budget_ms, silence_timeout_ms;
	struct avc_credentials credentials;
	bool has_credentials;
	aviary_credentials_fn *ask;
	void *ask_ctx;

	CURLM *multi;
	int epoll_fd, wake_fd;
	struct avc_watch wake;
	int64_t curl_due_ms; /* -1: none */
	struct av_list timers;
	struct av_list requests;        /* struct avc_request */
	struct av_list streams;         /* struct avc_stream */
	struct av_list streams_waiting; /* those that wait for a connection */
	size_t n_streams, streams_max;  /* those that have one */
	struct av_list followers;       /* struct aviary_events */
	struct av_list pipes;           /* of pipe.c */
	struct av_list corpses;         /* struct avc_corpse */
	struct av_list fired;           /* struct aviary_op */
	struct av_list open;            /* struct aviary_op: those that are not done */
	size_t n_open;                  /* how many */
	struct av_list waiters;         /* struct avc_waiter */
	struct av_list sandboxes;       /* struct aviary_sandbox: all handles */
	struct avc_tracker *tracker;    /* clean-up's; NULL: not installed */
	struct avc_remote *remote;      /* of remote functions; NULL: none was called yet */
	/* Set with it: programs without remote functions need none of their code. */
	void (*free_remote)(struct avc_remote *remote);
};

static inline void avc_lock(aviary_client *c)
{
	pthread_mutex_lock(&c->lock);
}
static inline void avc_unlock(aviary_client *c)
{
	pthread_mutex_unlock(&c->lock);
}
aviary_client *avc_client_ref(aviary_client *c);
void avc_client_unref(aviary_client *c);
int64_t avc_now_ms(void);
/* When timeout_ms from now are over; INT64_MAX: never, as for those that are below 0. */
int64_t avc_deadline(int64_t timeout_ms);
/* *dst: a copy of text, or NULL like it. False: no memory. */
static inline bool avc_dup_text(char **dst, const char *text)
{
	*dst = text ? av_str_dup(av_str_c(text)) : NULL;
	return !text || *dst;
}
/* What aviary_client_error tells this thread; message NULL: the code's. Returns code. */
int avc_client_failed(int code, const char *message);
/* With the lock: wakes whoever waits in avc_drive, as there is something new to wait for. */
void avc_wake(aviary_client *c);
/* With the lock, which is given up meanwhile: drives until something happened, at most timeout_ms
 * (-1: without end), and calls back. AVIARY_E_STATE from inside a callback. When another thread
 * drives, waits for it to change something instead. */
int avc_drive(aviary_client *c, int64_t timeout_ms);
/* With the lock: avc_drive once, for who waits till end_ms (as avc_deadline says it).
 * AVIARY_E_AGAIN when that is over; *driven, false at first: not before it was driven once. */
int avc_drive_until(aviary_client *c, int64_t end_ms, bool *driven);
/* Whether this thread drives it: inside a callback. Takes the lock. */
bool avc_is_driver(aviary_client *c);
/* What is to be freed where nothing of it is at work any more, and no event that was collected
 * names it, without the lock. */
struct avc_corpse {
	struct av_list link; /* c->corpses */
	void (*bury)(struct avc_corpse *corpse);
};
/* With the lock, once. */
void avc_bury(aviary_client *c, struct avc_corpse *corpse);
/* With the lock. -1: cannot be watched. */
int avc_watch_set(aviary_client *c, struct avc_watch *w, uint32_t events);
void avc_timer_start(aviary_client *c, struct avc_timer *t, int64_t delay_ms);
void avc_timer_stop(struct avc_timer *t);

/* ---- operations ---- */

struct aviary_op {
	atomic_uint refs;
	aviary_client *c; /* a reference; NULL: the one for "no memory" */
	int code;         /* AVIARY_E_AGAIN until it is done */
	aviary_error error;
	char *texts[5]; /* of the error */
	aviary_op_fn *fn;
	void *ctx, *user;
	struct av_list link; /* c->fired: to be called back, and to lose its own reference */
	struct av_list in;   /* c->open */
	void *result;
	const struct avc_type *type; /* of result */
	char *body;                  /* of the answer, with a NUL after it; NULL: none */
	size_t body_size;
	int64_t moved, total; /* bytes of a transfer; total -1: not known */
	int status;           /* of the answer, as soon as its head is there */
	/* What works on it. stop is called once, with the lock, when it is cancelled: it must let
	 * go of the operation. */
	void *work;
	void (*stop)(struct aviary_op *op);
	/* A callback of the caller's works for it, without the lock: who cancels it meanwhile
	 * leaves word, and it ends when that has returned, as its context may be freed then. */
	bool held, cancel_wanted;
	struct aviary_sandbox *sb; /* a reference, of whom it is; NULL */
};

/* Never NULL. Without the lock. */
aviary_op *avc_op_new(aviary_client *c);
/* The one that has failed for want of memory. */
aviary_op *avc_op_none(void);
/* All with the lock. The operation is done; what is set afterwards does not count. */
void avc_op_end(aviary_op *op);
void avc_op_fail(aviary_op *op, int code, const char *format, ...) AVIARY_PRINTF(3, 4);
/* Copies error, strings included. */
void avc_op_fail_with(aviary_op *op, const aviary_error *error);
/* As aviary_op_cancel. */
void avc_op_cancel(aviary_op *op);
/* Strings go into this thread's storage, until its next error. Without the lock. */
void avc_error_copy(aviary_error *dst, const aviary_error *src);
/* An error that is about nothing in particular; text is borrowed, NULL or "": the code's. */
aviary_error avc_error_of(int code, const char *text);
/* The same, with its text in this thread's storage. Returns code. */
int avc_error_fill(aviary_error *dst, int code, const char *text);
/* With the lock: all that are open are stopped and end with AVIARY_E_CANCELED. */
void avc_ops_end(aviary_client *c);
/* The result, owned by op from now on. */
void avc_op_give(aviary_op *op, const struct avc_type *type, void *result);
/* What the server answered, copied. False: no memory. */
bool avc_op_keep_body(aviary_op *op, struct av_str body);
/* Without the lock: the result becomes the caller's; NULL: not done, none (left), or of another
 * type. */
void *avc_op_take(aviary_op *op, const struct avc_type *type);
/* For the blocking twins: waits, takes, fills *error (may be NULL), frees op. */
void *avc_op_await(aviary_op *op, const struct avc_type *type, aviary_error *error);
static inline bool avc_op_done(const aviary_op *op)
{
	return op->code != AVIARY_E_AGAIN;
}
