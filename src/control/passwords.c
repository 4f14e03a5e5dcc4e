/* SPDX-License-Identifier: Apache-2.0 */
/*
 * passwords.c - hashing and checking passwords, away from the loop (see passwords.h)
 */
#include "control/passwords.h"

#include <errno.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "control/accounts.h"
#include "control/control_internal.h"

#include "base/banned.h"

static_assert(STORE_PASSWORD_SIZE >= crypto_pwhash_STRBYTES, "a hash fits");

struct password_job {
	struct av_list link; /* of waiting or running; nowhere once control is gone */
	struct control *c;   /* NULL: control is gone */
	password_fn *fn;     /* NULL: cancelled */
	void *ctx;
	/* The thread's from here on, while it runs. */
	bool is_check;
	unsigned long long ops;
	size_t memory;
	size_t n;
	bool failed, matches, fresh;
	char stored[STORE_PASSWORD_SIZE];
	char hash[STORE_PASSWORD_SIZE];
	char password[CONTROL_PASSWORD_MAX];
};

int password_validate(const char *field, struct av_str password, struct av_err *err)
{
	if (password.n >= CONTROL_PASSWORD_MIN && password.n <= CONTROL_PASSWORD_MAX)
		return 0;
	return av_err_set(err, AV_ERR_INVALID, "'%s' must have %d to %d bytes; yours has %zu",
	    field, CONTROL_PASSWORD_MIN, CONTROL_PASSWORD_MAX, password.n);
}

static void job_free(struct password_job *job)
{
	av_list_remove(&job->link);
	explicit_bzero(job, sizeof(*job));
	free(job);
}

/* ---- the thread ---- */

static void make_hash(struct password_job *job)
{
	if (crypto_pwhash_str(job->hash, job->password, job->n, job->ops, job->memory) != 0)
		job->failed = true;
}

/* libsodium says no in the same way when memory runs out; telling a user that a password is wrong
 * which is right would be worse than trying for the memory first. */
static bool has_memory(size_t bytes)
{
	void *volatile p = malloc(bytes); /* else the compiler knows that it is never used */
	bool has = p != NULL;

	free(p);
	return has;
}

static void make_check(struct password_job *job)
{
	if (!job->stored[0]) {
		make_hash(job);
		explicit_bzero(job->hash, sizeof(job->hash));
		return;
	}
	if (!has_memory(job->memory)) {
		job->failed = true;
		return;
	}
	job->matches = crypto_pwhash_str_verify(job->stored, job->password, job->n) == 0;
	if (!job->matches ||
	    crypto_pwhash_str_needs_rehash(job->stored, job->ops, job->memory) == 0)
		return;
	make_hash(job);
	job->fresh = !job->failed;
	job->failed = false; /* the old one serves still */
}

static void run(void *arg)
{
	struct password_job *job = arg;

	if (job->is_check)
		make_check(job);
	else
		make_hash(job);
	explicit_bzero(job->password, sizeof(job->password));
}

/* ---- the loop ---- */

static void answer(struct password_job *job)
{
	struct password_result result = {
	    .matches = job->matches, .hash = !job->is_check || job->fresh ? job->hash : NULL};
	struct av_err err;

	if (!job->fn)
		return;
	if (job->failed) {
		(void)av_err_set_retry(&err, AV_ERR_NO_MEMORY, PASSWORDS_BUSY_S,
		    "no memory to check a password; try again");
		job->fn(job->ctx, NULL, &err);
	} else {
		job->fn(job->ctx, &result, NULL);
	}
}

static void on_done(void *arg, int status)
{
	struct password_job *job = arg;
	struct control *c = job->c;

	if (c) {
		c->passwords.n_running--;
		av_list_remove(&job->link);
		job->failed = job->failed || status < 0;
		answer(job);
		control_wake(c, 0);
	}
	job_free(job);
}

static void start(struct control *c, struct password_job *job)
{
	int r = 0;

	av_list_remove(&job->link);
	av_list_append(&c->passwords.running, &job->link);
	c->passwords.n_waiting--;
	c->passwords.n_running++;
	if (c->config.work)
		r = c->config.work(c->config.work_ctx, run, on_done, job);
	else
		run(job);
	if (r < 0 || !c->config.work)
		on_done(job, r);
}

void passwords_tick(struct control *c)
{
	struct password_job *job;

	while (c->passwords.n_running < PASSWORDS_AT_ONCE &&
	       (job = AV_LIST_FIRST(&c->passwords.waiting, struct password_job, link)))
		start(c, job);
}

static int submit(struct control *c, struct av_str password, const char *stored, password_fn *fn,
    void *ctx, struct password_job **ret, struct av_err *err)
{
	struct password_job *job;

	if (password.n > CONTROL_PASSWORD_MAX)
		return av_err_set(
		    err, AV_ERR_TOO_LARGE, "a password has at most %d bytes", CONTROL_PASSWORD_MAX);
	if (c->passwords.n_waiting >= PASSWORDS_WAITING_MAX)
		return av_err_set_retry(err, AV_ERR_BUSY, PASSWORDS_BUSY_S,
		    "%d passwords are waiting to be checked already; try again in %d s",
		    PASSWORDS_WAITING_MAX, PASSWORDS_BUSY_S);
	job = calloc(1, sizeof(*job));
	if (!job ||
	    (stored && av_str_copy(job->stored, sizeof(job->stored), av_str_c(stored)) < 0)) {
		free(job);
		return av_err_set(err, AV_ERR_NO_MEMORY, "out of memory");
	}
	job->c = c;
	job->fn = fn;
	job->ctx = ctx;
	job->is_check = stored != NULL;
	job->ops = c->config.password_ops;
	job->memory = c->config.password_memory;
	job->n = password.n;
	memcpy(job->password, password.p, password.n);
	av_list_append(&c->passwords.waiting, &job->link);
	c->passwords.n_waiting++;
	control_wake(c, 0);
	*ret = job;
	return 0;
}

int password_hash(struct control *c, struct av_str password, password_fn *fn, void *ctx,
    struct password_job **ret, struct av_err *err)
{
	return submit(c, password, NULL, fn, ctx, ret, err);
}

int password_check(struct control *c, struct av_str password, const char *stored, password_fn *fn,
    void *ctx, struct password_job **ret, struct av_err *err)
{
	return submit(c, password, stored ? stored : "", fn, ctx, ret, err);
}

static bool is_waiting(const struct password_job *job)
{
	const struct password_job *w;

	AV_LIST_FOREACH(w, &job->c->passwords.waiting, const struct password_job, link)
	if (w == job)
		return true;
	return false;
}

void password_cancel(struct password_job *job)
{
	if (!job)
		return;
	job->fn = NULL;
	if (!is_waiting(job))
		return;
	job->c->passwords.n_waiting--;
	job_free(job);
}

void passwords_init(struct control *c)
{
	av_list_init(&c->passwords.waiting);
	av_list_init(&c->passwords.running);
	if (!c->config.password_ops)
		c->config.password_ops = crypto_pwhash_OPSLIMIT_INTERACTIVE;
	if (!c->config.password_memory)
		c->config.password_memory = crypto_pwhash_MEMLIMIT_INTERACTIVE;
}

void passwords_clear(struct control *c)
{
	struct password_job *job;

	AV_LIST_FOREACH(job, &c->passwords.waiting, struct password_job, link)
	job_free(job);
	AV_LIST_FOREACH(job, &c->passwords.running, struct password_job, link)
	{
		av_list_remove(&job->link);
		job->c = NULL;
	}
}
