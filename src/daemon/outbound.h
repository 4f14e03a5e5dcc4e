/* SPDX-License-Identifier: Apache-2.0 */
/*
 * outbound.h - what control may send to other servers, over net/fetch.h and net/mail.h
 *
 * Options: webhook-private, telegram-url, smtp-url, smtp-user, smtp-password-file, mail-from.
 */
#pragma once

#include "control/outbound.h"
#include "daemon/config.h"
#include "net/fetch.h"

struct outbound;

/* INVALID naming the option; reads the file of the password. */
int outbound_new(struct av_loop *loop, const struct daemon_config *config, struct outbound **ret,
    struct av_err *err);
/* Calls that are open end with CANCELED during this call: before control and the loop are freed.
 * NULL is fine. */
void outbound_free(struct outbound *o);
/* Valid until outbound_free. */
const struct control_outbound *outbound_table(const struct outbound *o);
/* For other clients of the daemon's, and metrics. */
struct av_fetch *outbound_fetch(const struct outbound *o);
