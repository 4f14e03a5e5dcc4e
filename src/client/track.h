/* SPDX-License-Identifier: Apache-2.0 */
/*
 * track.h - only for libaviary: the sandboxes that are to end with the program
 *
 * An entry is one sandbox, or a create that may make one. The registry has it, and the handle; it
 * outlives the handle. What is called with a client's lock takes the registry's lock below it.
 */
#pragma once

#include "client/sandbox.h"

struct avc_tracked;

/* All with the client's lock; NULL is fine for an entry. */

/* A create is about to be asked for. 0, and *ret NULL where clean-up is not installed; or
 * AVIARY_E_NO_MEMORY. The caller has a reference. */
int avc_track_create(
    aviary_client *c, const char *key, const json_t *create, struct avc_tracked **ret);
/* The same for a sandbox that is there. */
int avc_track_adopt(aviary_client *c, const char *id, struct avc_tracked **ret);
/* It has got an id. */
void avc_track_born(struct avc_tracked *t, const char *id);
/* It is no more, or was none, or is not to be ended. */
void avc_track_gone(struct avc_tracked *t);
void avc_track_unref(struct avc_tracked *t);
/* The client goes; what it has tracked stays. */
void avc_track_client_gone(aviary_client *c);
