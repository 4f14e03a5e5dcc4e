/* SPDX-License-Identifier: Apache-2.0 */
/*
 * restore.h - a backup becomes a state directory
 *
 * The archive is a tar (layer_tar.h), in this order:
 *
 *   aviary-backup              BACKUP_HEAD_SIZE bytes of text, its first line BACKUP_MAGIC
 *   aviary.db                  the database
 *   templates/<id>/meta        a template's record, then its layer: root/, usr/, links/
 *   aviary-backup-end          BACKUP_HEAD_SIZE bytes of text: the BLAKE2b-256 of all before it
 *
 * All of it is in docs/decisions/0016.
 */
#pragma once

#include "spawn/options.h"

#define BACKUP_HEAD      "aviary-backup"
#define BACKUP_END       "aviary-backup-end"
#define BACKUP_DATABASE  "aviary.db"
#define BACKUP_MAGIC     "aviary-backup 1\n"
#define BACKUP_HEAD_SIZE 512

/* Reads the archive from standard input into o->state_dir, which is missing or empty and no
 * Aviary's. The exit status of the program; says what went wrong, or what is there now. */
int restore_main(const struct spawn_options *o);
