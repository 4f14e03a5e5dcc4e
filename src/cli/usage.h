/* SPDX-License-Identifier: Apache-2.0 */
/*
 * usage.h - what sandboxes use at the moment: stats and top
 *
 * Theory of operation. A round asks for the list of sandboxes and, all at once, for the use of each
 * that runs. Processor time is a counter, so a share of it needs two rounds: what is known of a
 * sandbox is kept from one to the next, by its id. A sandbox that ends between the two requests is
 * shown as its list entry said it was, without numbers.
 */
#pragma once

#include <aviary/aviary.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/ids.h"

struct cli;

#define USAGE_MAX 4096 /* sandboxes in one round; the others are counted only */

struct usage {
	char id[AV_ID_SIZE];
	char name[64], status[16], template_name[48];
	double cpus;              /* its limit */
	double cpu_percent;       /* 100: one processor; negative: not known (yet) */
	int64_t mem, mem_limit;   /* bytes; negative: not known */
	int64_t disk, disk_limit; /* likewise */
	int64_t processes;        /* likewise */
	int64_t cpu_usec, at_ms;  /* the counter, and when (monotonic); negative: not known */
	int64_t created_ms;       /* since 1970; 0: not known */
	aviary_op *asking;        /* owned */
};

struct usages {
	struct usage *items; /* owned */
	size_t n;
	size_t n_more;    /* beyond USAGE_MAX */
	aviary_op *list;  /* owned; the question under way */
	size_t n_waiting; /* answers about sandboxes that are still to come */
	/* When some are wanted only: their ids. Borrowed. */
	char (*only)[AV_ID_SIZE];
	size_t n_only;
};

/* Begins a round; one that is under way is given up. -errno without memory. */
int usages_ask(struct usages *u, struct cli *cli);
/* After the client was driven: 0, or 1 when the round is complete, or -errno and *err. */
int usages_take(struct usages *u, struct cli *cli, struct av_err *err);
/* Both, waiting meanwhile. */
int usages_get(struct usages *u, struct cli *cli, struct av_err *err);
void usages_clear(struct usages *u);

/* Orders the items: "cpu", "memory", "disk", "processes" (most first), "name", "age" (newest
 * first). False: no such order. */
bool usages_sort(struct usages *u, const char *by);
/* A new reference; NULL without memory. */
json_t *usages_json(const struct usages *u);

/* One row, or the titles (item NULL), cut to so many columns: no newline, nothing but text. */
void usage_row(const struct usage *item, size_t columns, struct av_buf *out);
