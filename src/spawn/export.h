/* SPDX-License-Identifier: Apache-2.0 */
/*
 * export.h - the layer of a template goes out as members of a tar archive, for a backup
 *
 * A forked child compares the layer with its checksum, where that is not known to hold, and writes
 * it into a pipe, whose other end the reply carries. What ends the pipe says whether it was all
 * (struct spawn_export_end). EXPORTS_MAX go on at once, the others wait.
 */
#pragma once

#include "spawn/chore.h"

struct job;
struct spawner;

#define EXPORTS_MAX 2

struct exporting {
	struct chore chore;
	struct exports *of;
	char id[TEMPLATE_ID_SIZE];
	struct spawner *sp;
	int pipe;   /* of the child: owned until it runs */
	int reader; /* the other end, which the child must not keep open: it would wait for itself
	             */
};

struct exports {
	struct exporting v[EXPORTS_MAX];
	struct av_list waiting; /* struct job */
};

void exports_init(struct exports *e);
/* TEMPLATE_EXPORT; answers the job. */
void export_start(struct spawner *sp, struct job *j);
/* Kills those that go on. */
void exports_clear(struct exports *e);
