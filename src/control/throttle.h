/* SPDX-License-Identifier: Apache-2.0 */
/*
 * throttle.h - how often somebody may try: counts per account, per client address, and of both
 *
 * Theory of operation. For each rule and each "who" there is one count. An attempt is counted
 * before it is made, so that a thousand at once are a thousand; one that turns out well is taken
 * back. Counts sink with time. Over the rule's allowance each further attempt costs a wait, which
 * doubles from attempt to attempt up to the rule's longest; attempts meanwhile are refused and not
 * counted, so that nobody is locked out for longer by knocking.
 *
 * Logging in obeys three rules at once. PAIR, account and address together, is the strict one: it
 * stops somebody who guesses one account's password from one place, and locks nobody else out.
 * ACCOUNT, over all addresses, stops guessing from many places; its wait is at most a minute, and
 * addresses from which that account has logged in before, or that came with a link sent to its
 * owner, are exempt: an attacker cannot shut the owner out. ADDRESS stops going through many
 * accounts from one place.
 *
 * The clock is the monotonic one. Counts are in memory only: a restart forgets them, as it forgets
 * what an attacker cannot cause at will. There are at most THROTTLE_ENTRIES_MAX; the one that was
 * used longest ago goes first. Names are kept as keyed hashes, never as text.
 *
 * Loop thread; nothing blocks, nothing allocates but an entry. Without memory nothing is limited.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/list.h"
#include "base/map.h"

#define THROTTLE_ENTRIES_MAX 16384

enum throttle_rule {
	THROTTLE_LOGIN_PAIR,
	THROTTLE_LOGIN_ACCOUNT,
	THROTTLE_LOGIN_ADDRESS,
	THROTTLE_SIGNUP_ADDRESS,
	THROTTLE_RESET_ACCOUNT,
	THROTTLE_RESET_ADDRESS,
	THROTTLE_CREDENTIAL_ADDRESS, /* API keys and sessions that are not valid */
	THROTTLE_RULE_COUNT
};

struct throttle {
	struct av_map entries;
	struct av_list by_use; /* struct throttle_entry, the longest unused first */
	uint8_t seed[32];
};

void throttle_init(struct throttle *t);
void throttle_clear(struct throttle *t);
size_t throttle_count(const struct throttle *t);

/* 0: counted, go ahead. Else nanoseconds to wait; not counted. `also` may be empty. */
int64_t throttle_take(struct throttle *t, enum throttle_rule rule, struct av_str who,
    struct av_str also, int64_t now_ns);
/* What take counted shall not count, and cause no wait. */
void throttle_give_back(struct throttle *t, enum throttle_rule rule, struct av_str who,
    struct av_str also, int64_t now_ns);
/* It went well: the count is 0, and who is known from now on. */
void throttle_forgive(struct throttle *t, enum throttle_rule rule, struct av_str who,
    struct av_str also, int64_t now_ns);
bool throttle_knows(
    struct throttle *t, enum throttle_rule rule, struct av_str who, struct av_str also);

/* RATE_LIMITED with "try again in ..."; `what` says what there was too much of. */
int throttle_refuse(struct av_err *err, const char *what, int64_t wait_ns);

/* ---- the three rules of logging in together ---- */

enum throttle_outcome {
	THROTTLE_GOOD,
	THROTTLE_BAD,
	THROTTLE_UNDECIDED /* it could not be checked */
};
/* account: the e-mail address in lower case, whether anybody has it or not. 0, or RATE_LIMITED. */
int throttle_login_begin(struct throttle *t, struct av_str account, struct av_str address,
    int64_t now_ns, struct av_err *err);
void throttle_login_end(struct throttle *t, struct av_str account, struct av_str address,
    int64_t now_ns, enum throttle_outcome outcome);
