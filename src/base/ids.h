/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ids.h - identifiers of sandboxes and records, and API key secrets
 *
 * An id is a two-letter prefix and 25 characters of [0-9a-z] from 129 random bits, without a dash,
 * so that "{port}-{id}.{domain}" parses in every dialect.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "base/str.h"

#define AV_ID_LEN      27 /* prefix and 25 characters, without the NUL */
#define AV_ID_SIZE     (AV_ID_LEN + 1)
#define AV_ID_SANDBOX  "sb"
#define AV_ID_KEY      "ke"
#define AV_ID_TEAM     "te"
#define AV_ID_USER     "us"
#define AV_ID_TEMPLATE "tp"
#define AV_ID_VM_LAYER "vm" /* what virtual machines are made of; what follows is a hash */
#define AV_ID_HOST     "ho"
#define AV_ID_AUDIT    "lo" /* what follows is a number, not random */

#define AV_KEY_SECRET_LEN 40 /* hexadecimal digits; valid under every dialect's prefix */

/* What every session token of a user begins with: a JSON Web Token whose header is
 * {"alg":"HS256","kid":"aviary","typ":"JWT"} and no other. So one can be told from a token of
 * somebody else's without a key. */
#define AV_SESSION_PREFIX "eyJhbGciOiJIUzI1NiIsImtpZCI6ImF2aWFyeSIsInR5cCI6IkpXVCJ9."

/* getrandom(2), never short; aborts if the kernel has no randomness, as nothing could go on. */
void av_random(void *p, size_t n);
void av_id_make(char dst[static AV_ID_SIZE], const char prefix[static 2]);
/* Prefix, length and alphabet. */
bool av_id_valid(struct av_str s, const char prefix[static 2]);
