/* SPDX-License-Identifier: Apache-2.0 */
/*
 * child.h - processes that this program starts, and the end of what they said
 *
 * A child has a process group of its own, dies with this program (PDEATHSIG), has /dev/null as
 * input, and as output and error a pipe, of which the last CHILD_WORDS_MAX bytes are kept: its
 * words when it fails. What it says is hostile; child_words() makes it printable.
 *
 * This program reaps whatever dies (it may be PID 1) and hands what it reaped to children_reaped.
 *
 * All functions belong to the loop's thread; child_start takes some 200 us.
 */
#pragma once

#include <stdbool.h>
#include <sys/types.h>
#include <uv.h>

#include "base/list.h"
#include "base/macros.h"

#define CHILD_WORDS_MAX 4096
#define CHILD_FDS_MAX   16

/* The newest bytes that came from a descriptor. */
struct tail {
	uv_poll_t poll;
	int fd;     /* owned */
	bool ended; /* nobody writes any more */
	char text[CHILD_WORDS_MAX];
	size_t n;
};

/* Takes fd over. -errno: it stays the caller's. */
int tail_open(struct tail *t, uv_loop_t *loop, int fd) AV_MUST_CHECK;
/* Takes what there is now, without waiting. */
void tail_drain(struct tail *t);
/* The descriptor is closed at once; on_closed (may be NULL) when the loop has let go of *t. */
void tail_close(struct tail *t, uv_close_cb on_closed);
/* The last line with something in it, cut to what fits into dst, printable. Empty without one. */
void tail_line(const struct tail *t, char *dst, size_t size);
/* The last line that holds `what`, from there on. False (dst empty): there is none. */
bool tail_find(const struct tail *t, const char *what, char *dst, size_t size);

struct child;

struct children {
	uv_loop_t *loop;
	struct av_list list;
};

struct child_ops {
	/* It ended; status as of waitpid. What is left is child_free. */
	void (*on_exit)(void *ctx, int status);
};

/* What a child is to be: either a program, or a function of this one. */
struct child_spec {
	const char *const *argv; /* argv[0] is a path; NULL: run */
	const char *const *env;  /* of the program; ends with NULL */
	/* Instead of a program, in a copy of this process without its other threads: its result is
	 * the exit status. What it prints on standard error is its words. */
	int (*run)(void *arg);
	void *arg;
	/* Become descriptors 3, 4, … in the child, which gets no others; the caller's. */
	int fds[CHILD_FDS_MAX];
	size_t n_fds;
};

void children_init(struct children *all, uv_loop_t *loop);
/* True if it was one of them; its on_exit has been called. */
bool children_reaped(struct children *all, pid_t pid, int status);

/* ops and ctx are borrowed until child_free. A program that cannot be executed ends with status
 * 127. -errno. */
int child_start(struct children *all, const struct child_spec *spec, const struct child_ops *ops,
    void *ctx, struct child **ret) AV_MUST_CHECK;
pid_t child_pid(const struct child *c); /* 0 when it has ended */
void child_kill(struct child *c);       /* SIGKILL to its group; on_exit comes */
/* Kills it if it lives; no callback comes. The loop must run on for a turn. NULL is allowed. */
void child_free(struct child *c);
const struct tail *child_words(struct child *c);
