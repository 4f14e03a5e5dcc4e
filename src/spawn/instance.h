/* SPDX-License-Identifier: Apache-2.0 */
/*
 * instance.h - the directories and locks that make one Aviary out of its processes
 */
#pragma once

#include "base/err.h"
#include "base/macros.h"
#include "spawn/options.h"

/* Makes what is missing of the directories above path, which is absolute. -errno. */
int instance_make_parents(const char *path, mode_t mode) AV_MUST_CHECK;
/* State and run directories with their owners and modes; existing ones must be the caller's (or the
 * daemon's, where it is that one's). */
int instance_make_dirs(const struct spawn_options *o, struct av_err *err) AV_MUST_CHECK;
/* In a state directory: it is being restored from a backup, or never was to the end. */
#define INSTANCE_RESTORING "restoring"
/* CONFLICT where there is that. */
int instance_check_restored(const char *state_dir, struct av_err *err) AV_MUST_CHECK;
/* <dir>/lock for as long as *ret_fd (the caller's) is open. CONFLICT names the process that has it;
 * what: the option to change, for the message. */
int instance_lock(const char *dir, const char *what, int *ret_fd, struct av_err *err) AV_MUST_CHECK;
/* A worker whose supervisor was killed finishes the system call it is in before it notices; two at
 * work on one state would disturb each other. Waits for its end, up to a minute, by
 * <state>/worker.lock; *ret_fd (the caller's) keeps the next one waiting. Blocks. TIMEOUT: it still
 * works. */
int instance_lock_worker(const char *state_dir, int *ret_fd, struct av_err *err) AV_MUST_CHECK;
/* <run>/url, empty or as it was, for the daemon to write. */
int instance_make_url_file(const struct spawn_options *o, struct av_err *err) AV_MUST_CHECK;

/* A number made of the state directory's path: FNV-1a of its bytes. */
uint32_t instance_number(const char *state_dir);
#define INSTANCE_TAG_SIZE 9
/* Tells the cgroups of instances apart: the number as 8 hexadecimal digits. */
void instance_tag(const char *state_dir, char tag[static INSTANCE_TAG_SIZE]);
