/* SPDX-License-Identifier: Apache-2.0 */
/*
 * reap.h - only for libaviary and its watchdog: ends sandboxes of which no handle is left
 *
 * What there is to know of a client, and of a sandbox, is JSON, as it also goes to another process:
 *   settings  {"base_url", "unix_socket", "ca_file", "proxy", "api_key", "session_token",
 *              "entity", "project"}: those that there are
 *   sandbox   {"id"}, or {"key", "body"} of a create of which no answer came: asking again with the
 *              same key tells which sandbox it made
 */
#pragma once

#include "client/internal.h"

struct avc_reap_job {
	json_t *settings;
	json_t *sandboxes; /* an array */
	int64_t grace_ms;  /* as in aviary_stop_options */
	bool *ended;       /* for each: it is no more */
};

/* With the lock of c. NULL: no memory. */
json_t *avc_settings_of(const aviary_client *c);
/* Secrets are overwritten. NULL is fine. */
void avc_settings_free(json_t *settings);
/* Ends the sandboxes of all jobs at once, and says which it could. Blocks for up to timeout_ms,
 * with clients of its own. Without locks. */
void avc_reap(struct avc_reap_job *jobs, size_t n, int64_t timeout_ms);
