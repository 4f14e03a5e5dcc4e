/* SPDX-License-Identifier: Apache-2.0 */
/*
 * config.h - options of aviaryd, from flags, environment and file
 *
 * Theory of operation
 * -------------------
 * options.def names every option once. A value comes from the first place that has it: flag, then
 * environment (AVIARY_LISTEN ...), then the configuration file, then the default. Each value
 * remembers where it came from, so that a bad one is refused with that place in the message
 * ("/etc/aviary/aviary.conf:3: listen: ..."). An unknown key in the file is an error: a typo must
 * not silently leave a default in force.
 *
 * File format: one `key = value` a line, '#' begins a comment at the start of a line or after white
 * space, no sections, no quotes; a key may stand once.
 *
 * aviaryd runs twice (see launch.h). The first, started by a user, reads all three places; the
 * second, started by the supervisor, gets everything as flags and looks at nothing else, because
 * it runs as another user with another view of files.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/log.h"

enum daemon_opt {
#define DAEMON_OPT(id, name, meta, scope, text, help) DAEMON_OPT_##id,
#include "daemon/options.def"
#undef DAEMON_OPT
	DAEMON_OPT_COUNT
};

struct daemon_config {
	char *value[DAEMON_OPT_COUNT];  /* owned; NULL when unset and without default */
	char *origin[DAEMON_OPT_COUNT]; /* owned; where the value came from; NULL for a default */

	struct av_buf warnings; /* a line each; variables that are nearly options */

	/* The same, checked and converted. */
	char listen_host[64];     /* numeric address without brackets */
	uint16_t listen_port;     /* 0: any free one */
	const char *ports_domain; /* "example.com[:port]", of value[]; or NULL */
	bool ports_tls;
	const char *public_url;   /* "https://example.com[:port]", of value[]; or NULL */
	const char *frontend_url; /* likewise, or NULL */
	int signup;               /* enum control_signup_policy */
	bool insecure_http;
	bool tls; /* tls-cert and tls-key are given */
	bool metrics_public;
	double otlp_ratio; /* 0 to 1 */
	bool log_json;
	enum av_log_level log_level;
	bool print_ready;
	uint32_t pool;        /* 0: off */
	uint64_t pool_memory; /* bytes */
	uint32_t vm_pool;
	uint64_t vm_pool_memory;
	uint32_t vm_goldens;
	/* Of teams without their own; 0: none. */
	int64_t quota_sandboxes, quota_cpu_milli, quota_memory, quota_disk, quota_creates;
	uint64_t audit_days, audit_max;
	uint64_t main_log, main_logs_total; /* bytes */
	bool help, version;
	bool is_daemon;     /* --spawn-socket was given */
	int credentials_fd; /* -1 when not given */
	int notify_fd;      /* the same */
	int lend_fd;        /* the same */
};

/* Reads flags, and unless --spawn-socket is among them environment and file. On error (kind
 * INVALID, message complete with the place) *c is empty. environ is read, not kept. */
int daemon_config_load(struct daemon_config *c, int argc, char *const *argv, struct av_err *err);
/* For config.c: the quotas of c->value. INVALID with the place. */
int daemon_config_quotas(struct daemon_config *c, struct av_err *err);
void daemon_config_clear(struct daemon_config *c);

/* The option's value or NULL; valid as long as c. */
static inline const char *daemon_config_get(const struct daemon_config *c, enum daemon_opt opt)
{
	return c->value[opt];
}
/* The flag's name without dashes. */
const char *daemon_opt_name(enum daemon_opt opt);
/* The text of --help. */
int daemon_config_help(struct av_buf *out);

/* Splits "127.0.0.1:7878" or "[::1]:0" (numeric addresses and "localhost" only, as nothing here
 * resolves names). INVALID otherwise. */
int daemon_parse_listen(
    const char *text, char ret_host[static 64], uint16_t *ret_port, struct av_err *err);
/* True for 127.0.0.0/8 and ::1. */
bool daemon_host_is_loopback(const char *host);
