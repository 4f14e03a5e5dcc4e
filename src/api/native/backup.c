/* SPDX-License-Identifier: Apache-2.0 */
/*
 * backup.c - GET /v1/admin/backup: the whole state as one tar archive, while everything goes on
 *
 * Theory of operation. The archive is as spawn/restore.h says: a head, the copy of the database
 * that the store made, each template as the worker hands it out (those bytes are passed on and not
 * looked at), and an end with the checksum of all. One piece is in memory at a time; a client that
 * does not read stops the reading, and after the server's write time-out ends the backup. A layer
 * that cannot be read whole ends the archive in the middle, unless nothing of it was sent yet: then
 * it is left out, and the end counts it.
 *
 * Phases: copying → database → (between → opening → layer)* → between → ended.
 */
#include "api/native/native.h"

#include <errno.h>
#include <inttypes.h>
#include <sodium/crypto_generichash_blake2b.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "api/request.h"
#include "base/avtime.h"
#include "base/codec.h"
#include "base/fd.h"
#include "base/log.h"
#include "control/backup.h"
#include "net/loop.h"
#include "proto/tar.h"
#include "base/banned.h"

#define PIECE     65536
#define HASH_SIZE 32
#define TEXT_SIZE 512
#define IDLE_MS   (15 * 60 * 1000) /* of the worker: it may compare a large layer first */

enum phase { COPYING, DATABASE, BETWEEN, OPENING, LAYER, ENDED };

struct backup {
	enum phase phase;
	struct api_request *rq;
	struct control_backup *source;
	int fd;        /* owned: the copy of the database, or a pipe */
	uint64_t left; /* of the database */
	uint64_t database_bytes;
	struct av_watch *watch; /* on a pipe; NULL: none */
	struct av_defer go;
	struct av_timer idle;
	size_t next;    /* template to come */
	size_t without; /* templates that are not in it */
	size_t kept;    /* bytes at the beginning of piece: the last that came, not passed on yet */
	bool sent;      /* something of this layer went out */
	bool paused;    /* the client does not read */
	crypto_generichash_blake2b_state hash;
	char piece[DRIVER_EXPORT_END + PIECE];
};

static void backup_gone(struct api_request *rq, int status)
{
	struct backup *b = rq->state;

	if (status < 0)
		av_log(AV_LOG_WARN, "a backup did not end: its file is of no use", "error",
		    strerror(-status), NULL);
	av_defer_stop(&b->go);
	av_timer_stop(&b->idle);
	av_watch_free(b->watch);
	av_close_fd(&b->fd);
	control_backup_end(b->source);
	free(b);
}

static void fail(struct backup *b, const struct av_err *err)
{
	av_log(AV_LOG_ERROR, "a backup failed", "error", err->message, NULL);
	av_res_abort(b->rq->req);
}

/* False when the client is gone: nothing may be done any more. */
static bool emit(struct backup *b, const void *p, size_t n)
{
	int r = n ? av_res_write(b->rq->req, av_str_n(p, n)) : 0;

	crypto_generichash_blake2b_update(&b->hash, p, n);
	b->paused = b->paused || r > 0;
	if (r < 0)
		av_res_abort(b->rq->req);
	return r >= 0;
}

static bool emit_header(struct backup *b, const char *path, uint64_t size)
{
	AV_CLEANUP(av_buf_clear) struct av_buf out = AV_BUF_INIT(8 * TEXT_SIZE);
	const struct av_tar_entry e = {.type = AV_TAR_FILE,
	    .path = path,
	    .link = "",
	    .size = size,
	    .mode = 0600,
	    .mtime = av_real_ms() / 1000};

	return av_tar_write(&out, &e) == 0 && emit(b, av_buf_str(&out).p, out.n);
}

static void go_on_soon(struct backup *b)
{
	if (!b->paused)
		av_defer_start(&b->go, b->rq->api->loop);
}

/* ---- head and end ---- */

static bool emit_head(struct backup *b)
{
	char text[TEXT_SIZE] = {0};

	(void)snprintf(text, sizeof(text),
	    "aviary-backup 1\nmade_ms %" PRId64 "\nversion %.64s\nrootless %d\n", av_real_ms(),
	    b->rq->api->version, control_backup_rootless(b->source));
	return emit_header(b, "aviary-backup", sizeof(text)) && emit(b, text, sizeof(text)) &&
	       emit_header(b, "aviary.db", b->database_bytes);
}

static void finish_archive(struct backup *b)
{
	b->phase = ENDED;
	uint8_t hash[HASH_SIZE];
	char hex[2 * HASH_SIZE + 1], text[TEXT_SIZE] = {0};
	static const char zeros[2 * AV_TAR_BLOCK];
	crypto_generichash_blake2b_state before = b->hash;

	crypto_generichash_blake2b_final(&before, hash, sizeof(hash));
	av_hex_encode(hex, hash, sizeof(hash));
	(void)snprintf(text, sizeof(text),
	    "aviary-backup-end 1\nblake2b %s\ntemplates %zu\nwithout %zu\n", hex,
	    control_backup_count(b->source) - b->without, b->without);
	if (emit_header(b, "aviary-backup-end", sizeof(text)) && emit(b, text, sizeof(text)) &&
	    emit(b, zeros, sizeof(zeros)))
		(void)av_res_end(b->rq->req);
}

/* ---- layers ---- */

static void end_layer(struct backup *b)
{
	struct av_err err;
	int r = b->kept == DRIVER_EXPORT_END
	            ? control_backup_closed(b->source, b->piece, &err)
	            : av_err_set(&err, AV_ERR_INTERNAL, "the worker died while it read a template");

	av_timer_stop(&b->idle);
	av_watch_free(b->watch);
	b->watch = NULL;
	av_close_fd(&b->fd);
	if (r < 0 && b->sent) {
		fail(b, &err);
		return;
	}
	if (r < 0) {
		av_log(AV_LOG_ERROR, "a template is not in the backup", "id",
		    control_backup_id(b->source, b->next), "error", err.message, NULL);
		b->without++;
	}
	b->next++;
	b->phase = BETWEEN;
	go_on_soon(b);
}

static void on_pipe(void *ctx, int events)
{
	struct backup *b = ctx;
	ssize_t n = read(b->fd, b->piece + b->kept, PIECE);
	size_t have, out;

	(void)events;
	av_timer_start(&b->idle, IDLE_MS);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		end_layer(b);
		return;
	}
	/* What comes last is not of the layer, and any piece may be the last one. */
	have = b->kept + (size_t)n;
	out = have > DRIVER_EXPORT_END ? have - DRIVER_EXPORT_END : 0;
	b->sent = b->sent || out > 0;
	if (out && !emit(b, b->piece, out))
		return;
	b->kept = have - out;
	memmove(b->piece, b->piece + out, b->kept);
	if (b->paused)
		(void)av_watch_set(b->watch, 0);
}

static void on_idle(void *ctx)
{
	struct av_err err;

	(void)av_err_set(&err, AV_ERR_UNAVAILABLE,
	    "the worker gave nothing of a template for %d minutes", IDLE_MS / 60000);
	fail(ctx, &err);
}

static void on_layer(void *ctx, int fd, const struct av_err *err)
{
	struct backup *b = ctx;
	struct av_err no_memory;

	if (!err) {
		b->phase = LAYER;
		av_timer_start(&b->idle, IDLE_MS);
		b->fd = fd;
		b->kept = 0;
		b->sent = false;
		if (av_watch_new(b->rq->api->loop, fd, on_pipe, b, &b->watch) == 0 &&
		    av_watch_set(b->watch, b->paused ? 0 : AV_WATCH_READ) == 0)
			return;
		(void)av_err_set(&no_memory, AV_ERR_NO_MEMORY, "out of memory");
		err = &no_memory;
	}
	fail(b, err);
}

static void next_template(struct backup *b)
{
	struct av_err err;

	if (b->next == control_backup_count(b->source)) {
		finish_archive(b);
		return;
	}
	b->phase = OPENING;
	if (control_backup_open(b->source, b->next, on_layer, b) < 0) {
		(void)av_err_set(&err, AV_ERR_NO_MEMORY, "out of memory");
		fail(b, &err);
	}
}

/* ---- the database ---- */

/* The copy was written a moment ago and is read from memory: 20 microseconds a piece. */
static void send_database(struct backup *b)
{
	struct av_err err;
	ssize_t n = read(b->fd, b->piece, (size_t)AV_MIN(b->left, (uint64_t)PIECE));

	if (n <= 0) {
		(void)av_err_sys(&err, AV_ERR_INTERNAL, n < 0 ? errno : EIO,
		    "cannot read the copy of the database");
		fail(b, &err);
		return;
	}
	b->left -= (uint64_t)n;
	if (!emit(b, b->piece, (size_t)n))
		return;
	if (b->left == 0) {
		static const char zeros[AV_TAR_BLOCK];

		av_close_fd(&b->fd);
		b->phase = BETWEEN;
		if (!emit(b, zeros, av_tar_padding(b->database_bytes)))
			return;
	}
	go_on_soon(b);
}

static void go_on(void *ctx)
{
	struct backup *b = ctx;

	if (b->phase == DATABASE)
		send_database(b);
	else if (b->phase == BETWEEN)
		next_template(b);
}

static void backup_drain(struct api_request *rq)
{
	struct backup *b = rq->state;

	b->paused = false;
	if (b->phase == LAYER && b->watch)
		(void)av_watch_set(b->watch, AV_WATCH_READ);
	else
		av_defer_start(&b->go, rq->api->loop);
}

static void on_copy(void *ctx, int fd, uint64_t bytes, const struct av_err *err)
{
	static const struct av_http_header headers[] = {
	    {.name = AV_STR("content-type"), .value = AV_STR("application/x-tar")},
	    {.name = AV_STR("content-disposition"),
	        .value = AV_STR("attachment; filename=\"aviary-backup.tar\"")},
	    {.name = AV_STR("cache-control"), .value = AV_STR("no-store")},
	};
	struct backup *b = ctx;

	if (err) {
		api_send_err(b->rq, err);
		return;
	}
	b->phase = DATABASE;
	b->fd = fd;
	b->left = b->database_bytes = bytes;
	api_started(b->rq, 200);
	if (av_res_start(b->rq->req, 200, headers, AV_ARRAY_LEN(headers), -1) == 0 && emit_head(b))
		go_on_soon(b);
}

void native_backup(struct api_request *rq)
{
	struct backup *b = calloc(1, sizeof(*b));
	struct av_err err;

	if (!b) {
		(void)av_err_set(&err, AV_ERR_NO_MEMORY, "out of memory");
		api_send_err(rq, &err);
		return;
	}
	b->rq = rq;
	b->fd = -1;
	av_defer_init(&b->go, go_on, b);
	av_timer_init(&b->idle, rq->api->loop, on_idle, b);
	crypto_generichash_blake2b_init(&b->hash, NULL, 0, HASH_SIZE);
	if (control_backup_begin(rq->api->control, &rq->actor, on_copy, b, &b->source, &err) < 0) {
		free(b);
		api_send_err(rq, &err);
		return;
	}
	rq->state = b;
	rq->lasting = true;
	rq->on_gone = backup_gone;
	rq->on_drain = backup_drain;
}
