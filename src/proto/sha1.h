/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sha1.h - SHA-1 (RFC 3174), only for the WebSocket handshake, where it is no security measure
 *
 * RFC 6455 names it; a crypto library for one fixed 60-byte input would be a dependency of every
 * program that links this layer.
 */
#pragma once

#include <stdint.h>

#include "base/str.h"

/* Inputs up to 2^28 bytes. */
void av_sha1(uint8_t dst[static 20], struct av_str s);
