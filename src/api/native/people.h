/* SPDX-License-Identifier: Apache-2.0 */
/*
 * people.h - what the handlers of accounts share: auth.c, me.c, users.c, pages.c, oauth.c
 */
#pragma once

#include "api/request.h"
#include "control/login.h"

#define NATIVE_LOGIN_MAX 16384

/* The members of an AuthResponse, without braces. */
void native_write_login(struct av_buf *out, const struct control_login *l);
/* For the audit log: who it was, known only now. */
void native_audit_login(struct api_request *rq, const struct control_login *l);
/* Answers 200 with it, or the error; ctx is the request, whose call this was. */
void native_on_login(void *ctx, const struct control_login *l, const struct av_err *err);
/* JSON that no cache may keep; wiped once sent. */
void native_send_private(struct api_request *rq, int status, struct av_buf *json);

/* A member of the body that native_wipe_secrets() overwrites; empty when absent. */
int native_get_secret(
    struct api_request *rq, const char *field, struct av_str *ret, struct av_err *err);
void native_wipe_secrets(struct api_request *rq);
/* INVALID when the value is empty. */
int native_need(const char *field, struct av_str value, struct av_err *err);
