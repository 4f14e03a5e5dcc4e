/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fd.h - descriptors: cleanup, whole reads and writes, descriptor passing, small files
 *
 * Every descriptor of ours is O_CLOEXEC from birth. All functions return 0 or a count, or -errno.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "base/macros.h"
#include "base/str.h"

/* AV_CLEANUP(av_closep) int fd = -1; keeps errno. */
void av_closep(int *fd);
/* Closes if >= 0 and sets -1. */
void av_close_fd(int *fd);

/* Blocking; retries EINTR and short counts. av_read_full returns the count (< n at end of file). */
ssize_t av_read_full(int fd, void *p, size_t n) AV_MUST_CHECK;
int av_write_full(int fd, const void *p, size_t n) AV_MUST_CHECK;

/* A small file (procfs, cgroupfs, configuration) into buf with NUL appended; -EFBIG if it has
 * size bytes or more. Returns the length. dirfd may be AT_FDCWD. */
ssize_t av_read_file_at(int dirfd, const char *path, char *buf, size_t size) AV_MUST_CHECK;
/* One write(2) into an existing file (cgroupfs, procfs). Short writes are -EIO. */
int av_write_file_at(int dirfd, const char *path, struct av_str data) AV_MUST_CHECK;

int av_set_nonblock(int fd, bool on);
int av_set_cloexec(int fd, bool on);

/* One message with up to AV_FD_PASS_MAX descriptors over a unix socket. Sending: fds stay the
 * caller's. Receiving: fds come O_CLOEXEC and are the caller's; *ret_nfds says how many; a
 * truncated message or control data is -EMSGSIZE and closes what came. End of file gives 0 on
 * stream and seqpacket sockets. */
#define AV_FD_PASS_MAX 8
ssize_t av_send_fds(int sock, const void *p, size_t n, const int *fds, size_t nfds, int flags);
ssize_t av_recv_fds(
    int sock, void *p, size_t n, int fds[static AV_FD_PASS_MAX], size_t *ret_nfds, int flags);

/* pidfd_open(2), pidfd_send_signal(2), close_range(2) and friends, for libcs that lack them. */
int av_pidfd_open(pid_t pid);
int av_pidfd_send_signal(int pidfd, int sig);
int av_close_range_from(unsigned int first);
/* Those of 0, 1 and 2 that are closed become /dev/null, which children have as well: otherwise the
 * next socket or file of ours would be one of them. -errno. */
int av_fill_standard_fds(void);
