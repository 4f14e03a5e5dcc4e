/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench_ws.h - the smallest WebSocket client that can measure, on a connection of bench_http.h
 *
 * As cheap as a client can be: messages are masked with zeroes, and what comes is counted and
 * thrown away.
 */
#pragma once

#include "cli/bench_http.h"

/* Opens h and upgrades; protocol NULL: none. */
int bench_ws_open(struct bench_http *h, const char *url, const char *key, const char *path,
    const char *protocol, struct av_err *err);
/* One message, at most 65535 bytes. */
int bench_ws_send(struct bench_http *h, bool text, struct av_str message, struct av_err *err);
/* Reads to the Close frame: how many bytes of messages came, and the beginning of the last one. */
int bench_ws_count(
    struct bench_http *h, uint64_t *ret_bytes, char *last, size_t size, struct av_err *err);
