/* SPDX-License-Identifier: Apache-2.0 */
/*
 * passwords.h - only for src/control/(*.c): hashing and checking passwords, away from the loop
 *
 * Theory of operation. argon2id (libsodium's crypto_pwhash_str) costs tens of milliseconds and 64
 * MiB for each password, on purpose. It runs as work of control_config.work, at most
 * PASSWORDS_AT_ONCE at a time, so that neither all worker threads nor all memory can be taken by
 * logging in; PASSWORDS_WAITING_MAX wait in the order they came, and more are refused with BUSY.
 *
 * A job owns everything that its thread reads and writes. Cancelled or orphaned (control_free)
 * while the thread runs, it finishes by itself, touches nothing else and is freed at its end; one
 * that waits still goes at once, so that clients who leave make room. Passwords are wiped as soon
 * as the thread is done with them, hashes when the job goes.
 *
 * Whoever has no password, or does not exist at all, costs the same: checking against "" hashes
 * what was given, which is one argon2id with the same limits, and then says no.
 *
 * With control_config.work NULL the work is done by the next tick itself.
 */
#pragma once

#include "base/list.h"
#include "control/control.h"
#include "store/accounts.h"

#define PASSWORDS_AT_ONCE     2
#define PASSWORDS_WAITING_MAX 64
#define PASSWORDS_BUSY_S      2 /* what those that are refused are told to wait */

struct password_job;

/* Borrowed until the callback returns. */
struct password_result {
	bool matches; /* password_check */
	const char
	    *hash; /* password_hash: the hash. password_check: a fresh one when it matches and
	              the stored one was made with other limits than today's; else NULL */
};
/* err: NO_MEMORY (64 MiB were not to be had). Never after password_cancel. */
typedef void password_fn(void *ctx, const struct password_result *r, const struct av_err *err);

/* INVALID unless it has CONTROL_PASSWORD_MIN to CONTROL_PASSWORD_MAX bytes; `field` names it. */
int password_validate(const char *field, struct av_str password, struct av_err *err);

/* Both copy what they are given. BUSY, NO_MEMORY; TOO_LARGE over CONTROL_PASSWORD_MAX bytes. The
 * job is valid until the callback begins. */
int password_hash(struct control *c, struct av_str password, password_fn *fn, void *ctx,
    struct password_job **ret, struct av_err *err);
int password_check(struct control *c, struct av_str password, const char *stored, password_fn *fn,
    void *ctx, struct password_job **ret, struct av_err *err);
void password_cancel(struct password_job *job);

/* In struct control. */
struct passwords {
	struct av_list waiting, running; /* struct password_job */
	size_t n_waiting, n_running;     /* running ones that were cancelled count, too */
};
void passwords_init(struct control *c);
/* Gives those that may run to the worker threads. */
void passwords_tick(struct control *c);
/* No callbacks from now on. */
void passwords_clear(struct control *c);
