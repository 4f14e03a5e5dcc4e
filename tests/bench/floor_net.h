/* SPDX-License-Identifier: Apache-2.0 */
/*
 * floor_net.h - the listening half of floors that serve: blocking, one connection at a time
 *
 * What fails ends the program.
 */
#pragma once

#include <stddef.h>

#define FLOOR_PATH_SIZE 512

/* Listens on the loopback, prints the URL, and lets the program end with its parent. */
int floor_listen(const char *name);
int floor_accept(int listener);
void floor_send(int fd, const char *p, size_t n);
/* Reads until a request's head is whole: its bytes, of *ret_have in the buffer, which ends with a
 * NUL. 0 when the client has gone. */
size_t floor_read_head(int fd, char *buffer, size_t size, size_t *ret_have);
/* What follows "?path=", or "". */
void floor_path(const char *head, char ret[static FLOOR_PATH_SIZE]);
