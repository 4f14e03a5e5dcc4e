/* SPDX-License-Identifier: Apache-2.0 */
/*
 * store.c - the queue between the loop and the store's thread
 *
 * Theory of operation. Two lists under one mutex: `todo`, which the loop fills, and `done`, which
 * the store's thread fills. The thread takes up to BATCH_MAX requests of `todo` at once, lets the
 * database carry them out in one transaction, moves them to `done` and wakes the loop unless a
 * wake-up is already on its way. While the disk syncs, the next batch gathers by itself: the
 * busier, the larger.
 */
#include "store/store.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/avtime.h"
#include "base/fd.h"
#include "base/path.h"
#include "base/str.h"
#include "store/channels.h"
#include "store/store_copy.h"
#include "store/store_internal.h"

#include "base/banned.h"

#define BATCH_MAX  256
#define COPY_PAGES 64 /* a quarter of a MiB: a millisecond */

struct req_list {
	struct store_req *head;
	struct store_req **tail;
	size_t n;
};

struct store {
	struct store_db *db; /* the thread's alone once it runs */
	char copy_path[AV_PATH_MAX + 1];
	struct store_req *copying; /* the thread's, as the next: a copy under way, or NULL */
	struct store_copy *copy;
	void (*wake)(void *ctx);
	void *wake_ctx;
	char *path; /* of the database; owned */
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t work;
	/* under lock: */
	struct req_list todo;
	struct req_list done;
	bool wake_pending;
	bool closing;
	struct store_stats stats;

	struct store_notice_text *notice; /* the loop's: for the next request; owned */
	bool notice_lost;
};

static void list_init(struct req_list *l)
{
	l->head = NULL;
	l->tail = &l->head;
	l->n = 0;
}

static void list_append(struct req_list *l, struct store_req *r)
{
	r->next = NULL;
	*l->tail = r;
	l->tail = &r->next;
	l->n++;
}

static struct store_req *list_shift(struct req_list *l)
{
	struct store_req *r = l->head;

	if (!r)
		return NULL;
	l->head = r->next;
	if (!l->head)
		l->tail = &l->head;
	l->n--;
	r->next = NULL;
	return r;
}

void store_req_reset(struct store_req *r)
{
	for (size_t i = 0; r->sandboxes && i < r->n; i++) {
		const struct store_sandbox *rec = &r->sandboxes[i];
		const char *texts[] = {rec->envs_json, rec->metadata_json, rec->tags_json,
		    rec->ports_json, rec->main_json};

		for (size_t k = 0; k < AV_ARRAY_LEN(texts); k++)
			free((char *)(uintptr_t)texts[k]);
	}
	for (size_t i = 0; r->op == STORE_OP_CHANNEL_LIST && i < r->n; i++)
		free((char *)(uintptr_t)((struct store_channel *)r->rows)[i].config);
	for (size_t i = 0;
	     (r->op == STORE_OP_DELIVERY_NEXT || r->op == STORE_OP_DELIVERY_FINISH) && i < r->n;
	     i++)
		free((char *)(uintptr_t)((struct store_delivery *)r->rows)[i].body);
	free(r->sandboxes);
	free(r->rows);
	r->sandboxes = NULL;
	r->rows = NULL;
	r->n = 0;
	r->has_existing = false;
	if (r->op == STORE_OP_VALUE_GET)
		av_freep(&r->text[0]);
	av_close_fd(&r->copy_fd);
	av_err_clear(&r->err);
}

static void req_free(struct store_req *r)
{
	if (!r)
		return;
	store_req_reset(r);
	for (size_t i = 0; i < AV_ARRAY_LEN(r->text); i++)
		free(r->text[i]);
	free(r->name);
	store_notice_free(r->notice);
	free(r);
}

static void list_free(struct req_list *l)
{
	struct store_req *r;

	while ((r = list_shift(l)))
		req_free(r);
}

/* begun_ns 0: no transaction that tells how fast the disk is. */
static void finish_batch(struct store *s, struct req_list *batch, int64_t begun_ns)
{
	int64_t now_ns = av_mono_ns();
	bool wake = false;
	struct store_req *r;

	pthread_mutex_lock(&s->lock);
	s->stats.transactions++;
	if (begun_ns)
		av_hist_add(&s->stats.transaction, now_ns - begun_ns);
	while ((r = list_shift(batch))) {
		s->stats.requests++;
		if (begun_ns)
			av_hist_add(&s->stats.wait, begun_ns - r->queued_ns);
		if (r->err.kind != AV_ERR_NONE && r->err.kind != AV_ERR_CONFLICT)
			s->stats.errors++;
		list_append(&s->done, r);
	}
	if (!s->wake_pending) {
		s->wake_pending = true;
		wake = true;
	}
	pthread_mutex_unlock(&s->lock);
	if (wake)
		s->wake(s->wake_ctx);
}

/* The lock is held before and after, not meanwhile. */
static void catch_up(struct store *s)
{
	int64_t begun_ns = av_mono_ns();

	s->stats.synced++;
	pthread_mutex_unlock(&s->lock);
	store_db_sync(s->db);
	pthread_mutex_lock(&s->lock);
	av_hist_add(&s->stats.sync, av_mono_ns() - begun_ns);
}

/* ---- copies ---- */

static void finish_copy(struct store *s)
{
	struct req_list one;

	store_copy_free(s->copy);
	s->copy = NULL;
	(void)unlink(s->copy_path);
	list_init(&one);
	list_append(&one, s->copying);
	s->copying = NULL;
	finish_batch(s, &one, 0);
}

static void start_copy(struct store *s, struct store_req *r)
{
	struct req_list one;

	if (!s->copying) {
		s->copying = r;
		if (store_copy_begin(s->db, s->copy_path, &s->copy, &r->err) < 0)
			finish_copy(s);
		return;
	}
	(void)av_err_set(&r->err, AV_ERR_CONFLICT,
	    "a copy of the database is being made already: try again when that backup is done");
	list_init(&one);
	list_append(&one, r);
	finish_batch(s, &one, 0);
}

static void open_copy(struct store *s, struct store_req *r)
{
	struct stat st;

	r->copy_fd = open(s->copy_path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (r->copy_fd < 0 || fstat(r->copy_fd, &st) < 0)
		(void)av_err_sys(&r->err, AV_ERR_INTERNAL, errno, "cannot open the copy");
	else
		r->n = (size_t)st.st_size;
}

static void step_copy(struct store *s, bool closing)
{
	struct store_req *r = s->copying;
	int more = 0;

	if (closing)
		(void)av_err_set(&r->err, AV_ERR_CANCELED, "Aviary is stopping");
	else
		more = store_copy_step(s->copy, COPY_PAGES, &r->err);
	if (more > 0)
		return;
	if (more == 0 && !closing && store_copy_finish(s->copy, STORE_MARK_RESTORED, &r->err) == 0)
		open_copy(s, r);
	finish_copy(s);
}

/* Takes requests for copies out of the batch. */
static void take_copies(struct store *s, struct req_list *batch)
{
	struct req_list rest;
	struct store_req *r;

	list_init(&rest);
	while ((r = list_shift(batch))) {
		if (r->op == STORE_OP_COPY)
			start_copy(s, r);
		else
			list_append(&rest, r);
	}
	list_init(batch);
	while ((r = list_shift(&rest)))
		list_append(batch, r);
}

/* ---- the thread ---- */

/* What can wait until nobody asks for anything: the lock is held before and after, not meanwhile.
 * False: there is nothing. */
static bool use_quiet(struct store *s)
{
	if (store_db_is_behind(s->db)) {
		catch_up(s);
		return true;
	}
	if (!store_db_is_untidy(s->db))
		return false;
	pthread_mutex_unlock(&s->lock);
	(void)store_db_tidy(s->db);
	pthread_mutex_lock(&s->lock);
	return true;
}

static void *store_thread(void *arg)
{
	struct store *s = arg;

	for (;;) {
		struct req_list batch;
		int64_t begun_ns;
		bool closing;

		list_init(&batch);
		pthread_mutex_lock(&s->lock);
		while (!s->todo.head && !s->closing && !s->copying)
			if (!use_quiet(s))
				pthread_cond_wait(&s->work, &s->lock);
		while (batch.n < BATCH_MAX && s->todo.head)
			list_append(&batch, list_shift(&s->todo));
		closing = s->closing;
		pthread_mutex_unlock(&s->lock);
		if (!batch.head && !s->copying)
			return NULL;
		take_copies(s, &batch);
		if (batch.head) {
			begun_ns = av_mono_ns();
			store_db_run(s->db, batch.head);
			finish_batch(s, &batch, begun_ns);
		}
		if (s->copying)
			step_copy(s, closing);
	}
}

int store_open(const struct store_config *config, struct store **ret, struct av_err *err)
{
	struct store *s = calloc(1, sizeof(*s));
	int r;

	if (!s)
		return av_err_set(err, AV_ERR_NO_MEMORY, "out of memory");
	s->wake = config->wake;
	s->wake_ctx = config->wake_ctx;
	s->path = av_str_dup(av_str_c(config->path));
	if (!s->path) {
		free(s);
		return av_err_set(err, AV_ERR_NO_MEMORY, "out of memory");
	}
	list_init(&s->todo);
	list_init(&s->done);
	r = av_path_printf(s->copy_path, sizeof(s->copy_path), "%s.copy", config->path);
	if (r < 0)
		(void)av_err_set(err, AV_ERR_INVALID, "the path of the database is too long");
	else
		(void)unlink(s->copy_path); /* an earlier daemon died over it */
	if (r == 0)
		r = store_db_open(config->path, &s->db, err);
	if (r) {
		free(s->path);
		free(s);
		return r;
	}
	pthread_mutex_init(&s->lock, NULL);
	pthread_cond_init(&s->work, NULL);
	r = pthread_create(&s->thread, NULL, store_thread, s);
	if (r) {
		store_db_close(s->db);
		pthread_cond_destroy(&s->work);
		pthread_mutex_destroy(&s->lock);
		free(s->path);
		free(s);
		return av_err_sys(err, AV_ERR_INTERNAL, r, "cannot start the database thread");
	}
	*ret = s;
	return 0;
}

void store_close(struct store *s)
{
	if (!s)
		return;
	pthread_mutex_lock(&s->lock);
	s->closing = true;
	pthread_cond_signal(&s->work);
	pthread_mutex_unlock(&s->lock);
	pthread_join(s->thread, NULL);
	store_db_close(s->db);
	store_notice_free(s->notice);
	list_free(&s->done);
	pthread_cond_destroy(&s->work);
	pthread_mutex_destroy(&s->lock);
	free(s->path);
	free(s);
}

static uint64_t file_bytes(const char *path, const char *suffix)
{
	char full[AV_PATH_MAX + 1];
	struct stat st;

	if (av_path_printf(full, sizeof(full), "%s%s", path, suffix) < 0 || stat(full, &st) < 0)
		return 0;
	return (uint64_t)st.st_size;
}

void store_get_stats(struct store *s, struct store_stats *ret)
{
	pthread_mutex_lock(&s->lock);
	*ret = s->stats;
	ret->queued = s->todo.n;
	pthread_mutex_unlock(&s->lock);
	ret->database_bytes = file_bytes(s->path, "");
	ret->wal_bytes = file_bytes(s->path, "-wal");
}

/* ---- callbacks ---- */

static void answer_insert(const struct store_req *r, const struct av_err *err)
{
	struct store_idempotency existing = {.key = r->name};

	memcpy(existing.request_hash, r->existing_hash, STORE_HASH_SIZE);
	memcpy(existing.sandbox_id, r->existing_id, AV_ID_SIZE);
	r->fn.insert(r->ctx, r->has_existing ? &existing : NULL, err);
}

/* What an asker gets: no rows with an error, and nothing where nobody wants to know. */
#define ANSWER_DONE         r->fn.done(r->ctx, err)
#define ANSWER_INSERTED     answer_insert(r, err)
#define ANSWER_SANDBOXES    r->fn.sandboxes(r->ctx, r->sandboxes, n, err)
#define ANSWER_COUNT        r->fn.count(r->ctx, r->n, err)
#define ANSWER_VALUE        r->fn.value(r->ctx, err ? NULL : r->text[0], err)
#define ANSWER_COPY         r->fn.copy(r->ctx, err ? -1 : AV_TAKE_FD(r->copy_fd), r->n, err)
#define ANSWER_AUDIT        r->fn.audit(r->ctx, r->rows, n, err ? 0 : r->args.audit_read.last, err)
#define ANSWER_ROWS(member) r->fn.member(r->ctx, r->rows, n, err)

static void call_back(struct store_req *r)
{
	const struct av_err *err = r->err.kind == AV_ERR_NONE ? NULL : &r->err;
	size_t n = err ? 0 : r->n;

	if (!r->fn.done)
		return;
	switch (r->op) {
#define STORE_OP(name, run, answer)                                                                \
	case STORE_OP_##name:                                                                      \
		ANSWER_##answer;                                                                   \
		break;
#include "store/ops.def"
#undef STORE_OP
	}
}

void store_dispatch(struct store *s)
{
	struct req_list ready;
	struct store_req *r;

	pthread_mutex_lock(&s->lock);
	s->wake_pending = false;
	ready = s->done;
	if (!ready.head)
		ready.tail = &ready.head;
	list_init(&s->done);
	pthread_mutex_unlock(&s->lock);
	while ((r = list_shift(&ready))) {
		call_back(r);
		req_free(r);
	}
}

/* ---- requests ---- */

struct store_req *store_req_new(enum store_op op, void *ctx)
{
	struct store_req *r = calloc(1, sizeof(*r));

	if (r) {
		r->op = op;
		r->ctx = ctx;
		r->copy_fd = -1;
	}
	return r;
}

void store_announce(struct store *s, const struct store_notice *notice)
{
	struct store_notice_text **end = &s->notice;
	size_t n = 1;

	if (!notice) {
		store_notice_free(s->notice);
		s->notice = NULL;
		s->notice_lost = false;
		return;
	}
	for (; *end; end = &(*end)->next)
		n++;
	assert(n <= STORE_NOTICES_MAX);
	*end = store_notice_dup(notice);
	s->notice_lost = s->notice_lost || !*end;
}

int store_submit(struct store *s, struct store_req *r, int error)
{
	if (!error && s->notice_lost)
		error = -ENOMEM;
	if (s->notice)
		r->notice = AV_TAKE_PTR(s->notice);
	s->notice_lost = false;
	pthread_mutex_lock(&s->lock);
	if (!error && (s->closing || s->todo.n >= STORE_QUEUE_MAX))
		error = -EAGAIN;
	if (!error) {
		r->queued_ns = av_mono_ns();
		list_append(&s->todo, r);
		pthread_cond_signal(&s->work);
	}
	pthread_mutex_unlock(&s->lock);
	if (error)
		req_free(r);
	return error;
}

static int dup_text(char **ret, const char *text)
{
	*ret = av_str_dup(av_str_c(text));
	return *ret ? 0 : -ENOMEM;
}

static int dup_labels(struct store_req *r, const struct store_sandbox *rec)
{
	int error = dup_text(&r->text[1], rec->metadata_json ? rec->metadata_json : "{}");

	if (!error)
		error = dup_text(&r->text[2], rec->tags_json ? rec->tags_json : "[]");
	if (!error)
		error = dup_text(&r->text[3], rec->ports_json ? rec->ports_json : "[]");
	return error;
}

/* A copy that points to nothing of the caller's. */
static struct store_sandbox without_texts(const struct store_sandbox *rec)
{
	struct store_sandbox copy = *rec;

	copy.main_json = copy.envs_json = copy.metadata_json = copy.tags_json = copy.ports_json =
	    NULL;
	return copy;
}

int store_sandbox_insert(struct store *s, const struct store_sandbox *rec,
    const struct store_idempotency *idem, int64_t keep_ms, store_insert_fn *fn, void *ctx)
{
	struct store_req *r = store_req_new(STORE_OP_SANDBOX_INSERT, ctx);
	int error;

	if (!r)
		return -ENOMEM;
	r->fn.insert = fn;
	r->args.insert.rec = without_texts(rec);
	r->args.insert.keep_ms = keep_ms;
	error = dup_text(&r->text[0], rec->envs_json ? rec->envs_json : "{}");
	if (!error)
		error = dup_labels(r, rec);
	if (!error)
		error = dup_text(&r->text[4], rec->main_json ? rec->main_json : "");
	if (idem) {
		memcpy(r->args.insert.request_hash, idem->request_hash, STORE_HASH_SIZE);
		r->args.insert.only_look = idem->only_look;
		if (!error)
			error = dup_text(&r->name, idem->key);
	}
	return store_submit(s, r, error);
}

int store_sandbox_update(
    struct store *s, const struct store_sandbox *rec, store_done_fn *fn, void *ctx)
{
	struct store_req *r = store_req_new(STORE_OP_SANDBOX_UPDATE, ctx);

	if (!r)
		return -ENOMEM;
	r->fn.done = fn;
	r->args.sandbox = without_texts(rec);
	return store_submit(s, r, rec->write_labels ? dup_labels(r, rec) : 0);
}

static int set_id(char dst[static AV_ID_SIZE], const char *id)
{
	return av_str_copy(dst, AV_ID_SIZE, av_str_c(id));
}

int store_sandbox_get(struct store *s, const char *id, store_sandboxes_fn *fn, void *ctx)
{
	struct store_req *r = store_req_new(STORE_OP_SANDBOX_GET, ctx);
	int error;

	if (!r)
		return -ENOMEM;
	r->fn.sandboxes = fn;
	error = set_id(r->args.id, id);
	return store_submit(s, r, error);
}

int store_sandbox_live(struct store *s, store_sandboxes_fn *fn, void *ctx)
{
	struct store_req *r = store_req_new(STORE_OP_SANDBOX_LIVE, ctx);

	if (!r)
		return -ENOMEM;
	r->fn.sandboxes = fn;
	return store_submit(s, r, 0);
}

int store_sandbox_history(
    struct store *s, const struct store_page *page, store_sandboxes_fn *fn, void *ctx)
{
	struct store_req *r = store_req_new(STORE_OP_SANDBOX_HISTORY, ctx);
	int error;

	if (!r)
		return -ENOMEM;
	r->fn.sandboxes = fn;
	error = set_id(r->args.page.team_id, page->team_id);
	if (!error)
		error = set_id(r->args.page.before_id, page->before_id);
	r->args.page.before_ms = page->before_ms ? page->before_ms : INT64_MAX;
	r->args.page.limit = page->limit;
	return store_submit(s, r, error);
}

int store_prune(struct store *s, int64_t stopped_before_ms, int64_t keep_newest,
    int64_t keys_before_ms, size_t max, store_count_fn *fn, void *ctx)
{
	struct store_req *r = store_req_new(STORE_OP_PRUNE, ctx);

	if (!r)
		return -ENOMEM;
	r->fn.count = fn;
	r->args.prune = (struct store_prune_args){
	    .stopped_before_ms = stopped_before_ms,
	    .keep_newest = keep_newest,
	    .keys_before_ms = keys_before_ms,
	    .max = max,
	};
	return store_submit(s, r, 0);
}

int store_key_list(struct store *s, store_keys_fn *fn, void *ctx)
{
	struct store_req *r = store_req_new(STORE_OP_KEY_LIST, ctx);

	if (!r)
		return -ENOMEM;
	r->fn.keys = fn;
	return store_submit(s, r, 0);
}

int store_key_touch(struct store *s, const char *id, int64_t last_used_ms)
{
	struct store_req *r = store_req_new(STORE_OP_KEY_TOUCH, NULL);
	int error;

	if (!r)
		return -ENOMEM;
	error = set_id(r->args.touch.id, id);
	r->args.touch.last_used_ms = last_used_ms;
	return store_submit(s, r, error);
}

int store_value_get(struct store *s, const char *name, store_value_fn *fn, void *ctx)
{
	struct store_req *r = store_req_new(STORE_OP_VALUE_GET, ctx);
	int error;

	if (!r)
		return -ENOMEM;
	r->fn.value = fn;
	error = dup_text(&r->name, name);
	return store_submit(s, r, error);
}

int store_value_set(
    struct store *s, const char *name, const char *value, store_done_fn *fn, void *ctx)
{
	struct store_req *r = store_req_new(STORE_OP_VALUE_SET, ctx);
	int error;

	if (!r)
		return -ENOMEM;
	r->fn.done = fn;
	error = dup_text(&r->name, name);
	if (!error)
		error = dup_text(&r->text[0], value);
	return store_submit(s, r, error);
}

/* ---- usage ---- */

int store_points_put(struct store *s, const char *sandbox_id, const void *points, size_t size,
    store_done_fn *fn, void *ctx)
{
	struct store_req *r = store_req_new(STORE_OP_POINTS_PUT, ctx);
	int error;

	if (!r)
		return -ENOMEM;
	r->fn.done = fn;
	r->args.points.size = size;
	error = size > STORE_POINTS_MAX ? -EMSGSIZE : set_id(r->args.points.id, sandbox_id);
	if (!error) {
		r->text[0] = malloc(size ? size : 1);
		if (!r->text[0])
			error = -ENOMEM;
		else if (size)
			memcpy(r->text[0], points, size);
	}
	return store_submit(s, r, error);
}

int store_points_get(struct store *s, const char *sandbox_id, store_points_fn *fn, void *ctx)
{
	struct store_req *r = store_req_new(STORE_OP_POINTS_GET, ctx);
	int error;

	if (!r)
		return -ENOMEM;
	r->fn.points = fn;
	error = set_id(r->args.points.id, sandbox_id);
	return store_submit(s, r, error);
}

int store_usage_add(struct store *s, const struct store_usage *u, store_done_fn *fn, void *ctx)
{
	struct store_req *r = store_req_new(STORE_OP_USAGE_ADD, ctx);

	if (!r)
		return -ENOMEM;
	r->fn.done = fn;
	r->args.usage = *u;
	return store_submit(s, r, 0);
}

int store_load_list(
    struct store *s, const char *team_id, int64_t from_s, store_loads_fn *fn, void *ctx)
{
	struct store_req *r = store_req_new(STORE_OP_LOAD_LIST, ctx);
	int error;

	if (!r)
		return -ENOMEM;
	r->fn.loads = fn;
	r->args.range.from = from_s;
	error = set_id(r->args.range.team_id, team_id);
	return store_submit(s, r, error);
}

int store_hour_list(struct store *s, const char *team_id, int64_t from_hour, int64_t to_hour,
    store_hours_fn *fn, void *ctx)
{
	struct store_req *r = store_req_new(STORE_OP_HOUR_LIST, ctx);
	int error;

	if (!r)
		return -ENOMEM;
	r->fn.hours = fn;
	r->args.range.from = from_hour;
	r->args.range.to = to_hour;
	error = set_id(r->args.range.team_id, team_id);
	return store_submit(s, r, error);
}

int store_usage_prune(
    struct store *s, int64_t loads_before_s, int64_t hours_before, store_done_fn *fn, void *ctx)
{
	struct store_req *r = store_req_new(STORE_OP_USAGE_PRUNE, ctx);

	if (!r)
		return -ENOMEM;
	r->fn.done = fn;
	r->args.range.from = loads_before_s;
	r->args.range.to = hours_before;
	return store_submit(s, r, 0);
}

int store_copy(struct store *s, store_copy_fn *fn, void *ctx)
{
	struct store_req *r = store_req_new(STORE_OP_COPY, ctx);

	if (!r)
		return -ENOMEM;
	r->fn.copy = fn;
	return store_submit(s, r, 0);
}
