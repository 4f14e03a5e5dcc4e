/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tracker.h - only for clean-up: one client's registry, and the watchdog that knows the same
 *
 * All registries have one lock, avc_track_lock; it is taken below a client's.
 */
#pragma once

#include <aviary/cleanup.h>

#include "client/reap.h"
#include "client/track.h"

struct avc_tracked {
	struct av_list link;    /* tracker's */
	atomic_uint refs;       /* the registry's, a handle's, an orphan's */
	struct avc_tracker *in; /* NULL: forgotten */
	uint64_t number;        /* for the watchdog */
	char key[80];           /* of the create; "": adopted */
	char *body;             /* of the create, until it has an id */
	char id[AVC_ID_SIZE];
};

struct avc_tracker {
	struct av_list link;    /* all of the process */
	struct av_list entries; /* struct avc_tracked */
	size_t n;
	uint64_t next_number;
	json_t *settings;
	unsigned flags;
	int64_t grace_ms, timeout_ms;
	int dog_fd; /* -1: none, or it is no more */
	/* A message is missing, so it is told no more; yet dog_fd stays open, as its end is the
	 * program's: then it acts on what it knows. */
	bool dog_lost;
};

void avc_track_lock(void);
void avc_track_unlock(void);

/* ---- with the lock ---- */

/* NULL: no memory. */
struct avc_tracker *avc_tracker_new(void);
/* Its entries are forgotten. The watchdog ends without doing anything. */
void avc_tracker_free(struct avc_tracker *t);
/* Its entries as avc_reap wants them, in order. NULL: no memory. */
json_t *avc_tracker_list(const struct avc_tracker *t);
/* For the watchdog. */
void avc_tracker_forget(struct avc_tracked *e);

/* ---- watchdog.c ---- */

/* Without locks. Starts the program and waits until it has understood settings. 0, or a code with
 * text about it. */
int avc_watchdog_start(
    const char *program, const json_t *settings, int64_t grace_ms, int *ret_fd, char text[300]);
/* A message, as a line of JSON; stolen. Waits for a second at most. False: it was not taken whole,
 * or there was no memory for it. */
bool avc_watchdog_tell(int fd, json_t *message);
/* It ends without doing anything, as far as it can be told. */
void avc_watchdog_dismiss(int fd);
