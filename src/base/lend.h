/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lend.h - two files that one process may open and another one reads
 *
 * The lender knows the paths and has the right to open them; the borrower has neither. Over a
 * seqpacket socket the borrower sends one byte and gets a descriptor of each file, opened that
 * moment for reading, or the error instead. It says nothing else, so there is nothing that one who
 * was taken over could ask for besides what it has anyway. Files that are no regular ones are not
 * lent: a FIFO or a device would let whoever made it hold the lender up, or worse.
 */
#pragma once

#include "base/macros.h"

#define AV_LEND_FILES 2

struct av_lent {
	int fd;    /* the borrower's to close; -1: not lent */
	int error; /* why, as a positive errno (EISDIR for a directory, EINVAL for what else is no
	            * regular file) */
};

/* Lender: answers one request that is there, and never waits. 0; -EAGAIN: none was there, or the
 * borrower takes no answers; -EPIPE: it is gone. */
int av_lend_serve(int sock, const char *const paths[static AV_LEND_FILES]);

/* Borrower: asks. -errno of send(2); never waits. */
int av_lend_ask(int sock) AV_MUST_CHECK;
/* Borrower: the answer. -EAGAIN: not there yet; -EPIPE: the lender is gone; -EBADMSG: something
 * else came. Outputs only on success. Never waits. */
int av_lend_take(int sock, struct av_lent ret[static AV_LEND_FILES]) AV_MUST_CHECK;
