/* SPDX-License-Identifier: Apache-2.0 */
/*
 * guard.c - allocations between guards (see guard.h)
 *
 * Theory of operation. Each allocation has a head, which holds its size, and a tail of known bytes.
 * What is freed is filled with known bytes too and waits in a ring until many others were freed;
 * then it is looked at and goes back.
 */
#include "tests/sdk/c/guard.h"

#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

extern void *__libc_malloc(size_t n);
extern void *__libc_realloc(void *p, size_t n);
extern void __libc_free(void *p);

#define IN_USE    0x6775617264656400u
#define FREED     0x6672656564210000u
#define TAIL      16
#define TAIL_BYTE 0xa5
#define FREE_BYTE 0xdd
#define NEW_BYTE  0xcd
#define WAITING   32768
#define WAITS_MAX 16384 /* bytes; larger ones go back at once */

struct head {
	size_t n;
	uint64_t state;
	void *had_by, *freed_by;
};

static struct head *waiting[WAITING];
static size_t n_waiting;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static void broken(const char *how, const struct head *h)
{
	char text[256];
	int n = snprintf(text, sizeof(text),
	    "# %s: %zu bytes at %p, allocated by %p, freed by %p; they begin \"%.32s\"\n", how,
	    h->n, (const void *)(h + 1), h->had_by, h->freed_by, (const char *)(h + 1));

	(void)!write(STDERR_FILENO, text, (size_t)n);
	abort();
}

static void check_bytes(
    const struct head *h, const unsigned char *p, size_t n, unsigned char want, const char *how)
{
	for (size_t i = 0; i < n; i++)
		if (p[i] != want)
			broken(how, h);
}

static void check_tail(const struct head *h)
{
	check_bytes(h, (const unsigned char *)(h + 1) + h->n, TAIL, TAIL_BYTE,
	    "written behind an allocation");
}

/* NULL: it is none of these. */
static struct head *head_of(void *p)
{
	struct head *h = (struct head *)p - 1;

	if (h->state == FREED)
		broken("freed twice, or used after it was freed", h);
	return h->state == IN_USE ? h : NULL;
}

void *guard_malloc(size_t n, void *caller)
{
	struct head *h;

	if (n > SIZE_MAX - sizeof(*h) - TAIL)
		return NULL;
	h = __libc_malloc(sizeof(*h) + n + TAIL);
	if (!h)
		return NULL;
	*h = (struct head){.n = n, .state = IN_USE, .had_by = caller};
	memset(h + 1, NEW_BYTE, n);
	memset((char *)(h + 1) + n, TAIL_BYTE, TAIL);
	return h + 1;
}

/* It may be written to as anybody's from now on. */
static void give_back(struct head *h)
{
	h->state = 0;
	__libc_free(h);
}

void guard_free(void *p, void *caller)
{
	struct head *h = p ? head_of(p) : NULL, *oldest;

	if (!h) {
		__libc_free(p);
		return;
	}
	check_tail(h);
	h->state = FREED;
	h->freed_by = caller;
	if (h->n > WAITS_MAX) {
		give_back(h);
		return;
	}
	memset(p, FREE_BYTE, h->n);
	pthread_mutex_lock(&lock);
	oldest = waiting[n_waiting % WAITING];
	waiting[n_waiting++ % WAITING] = h;
	pthread_mutex_unlock(&lock);
	if (!oldest)
		return;
	check_bytes(oldest, (const unsigned char *)(oldest + 1), oldest->n, FREE_BYTE,
	    "written after it was freed");
	check_tail(oldest);
	give_back(oldest);
}

void *guard_realloc(void *p, size_t n, void *caller)
{
	struct head *h = p ? head_of(p) : NULL;
	void *q;

	if (p && !h)
		return __libc_realloc(p, n);
	q = guard_malloc(n, caller);
	if (q && h) {
		memcpy(q, p, n < h->n ? n : h->n);
		guard_free(p, caller);
	}
	return q;
}
