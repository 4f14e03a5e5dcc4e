/* SPDX-License-Identifier: Apache-2.0 */
/*
 * template.h - between template.c, template_build.c and template_feed.c
 */
#pragma once

#include <stdint.h>
#include <sys/types.h>

#include "cli/cli.h"
#include "cli/command.h"

/* What a root file system is made from: a recipe that writes a tar archive, or a file. */
struct feed {
	const struct cli *cli;
	const char *name; /* borrowed, of the template */
	pid_t pid;        /* of the recipe, first of a group of its own; 0: none */
	int pidfd;        /* owned */
	int tar;          /* owned: the archive */
	int lines;        /* owned: what the recipe says; -1: it says no more */
	char line[512];
	size_t n;
	bool ended;    /* the archive was read to its end */
	bool drawn;    /* a line stands on the terminal */
	bool stopping; /* what the recipe says is of no interest any more */
	int64_t began_ns, drawn_ns;
	uint64_t bytes;
	char step[256], error[256]; /* what it does now; the first error that it told */
};

/* Starts the recipe at path. */
int feed_start(
    struct feed *f, const struct cli *cli, const char *name, const char *path, struct av_err *err);
/* Reads an archive that is there: "-" is standard input. */
int feed_open(
    struct feed *f, const struct cli *cli, const char *name, const char *path, struct av_err *err);
/* Waits until the archive begins, showing progress. -errno with err when it will not. */
int feed_wait(struct feed *f, struct av_err *err);
/* aviary_read_fn; blocks until there is something. */
int64_t feed_read(void *ctx, void *p, size_t n);
/* Another step begins. */
void feed_step(struct feed *f, const char *step);
/* Waits for the recipe; says what went wrong with it, or AV_ERR_CANCELED at a signal. */
int feed_finish(struct feed *f, struct av_err *err);
/* Ends the recipe if it still runs (which may take it 20 s), takes the line off the terminal. */
void feed_close(struct feed *f);

/* By a recipe, for every team; returns an exit status. For people it says how it went. */
int template_build_named(struct cli *cli, const char *name);
/* aviary template build|import */
int template_build(struct cli *cli, const struct args *args);
int template_import(struct cli *cli, const struct args *args);
