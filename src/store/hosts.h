/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hosts.h - machines that run sandboxes, or will, as the store keeps them
 *
 * Rules of store.h. Tokens are kept as SHA-256 only.
 */
#pragma once

#include "store/store.h"

#define STORE_HOST_TEXT_SIZE 136
#define STORE_HOST_TAGS_SIZE 2112 /* 32 of 64 characters and what stands between */

struct store_host {
	char id[AV_ID_SIZE];
	char type[8];             /* "regular", "byoc" */
	char team_id[AV_ID_SIZE]; /* byoc: whose; else empty */
	char provider[STORE_HOST_TEXT_SIZE], zone[STORE_HOST_TEXT_SIZE];
	char arch[16];                         /* "amd64", "arm64"; empty: not known */
	char address[72];                      /* "ip:port"; empty: not known */
	char status[16];                       /* "pending", "online", "unreachable" */
	char tags[STORE_HOST_TAGS_SIZE];       /* in order, between commas */
	char created_by[AV_ID_SIZE];           /* a user; empty: Aviary itself */
	int64_t cpu_cores, memory_mb, disk_gb; /* 0: not known */
	bool is_local;                         /* the machine that this Aviary runs on */
	uint8_t registration[STORE_HASH_SIZE]; /* of the token; all zero: none was made */
	int64_t registration_expires_ms;
	uint8_t family[STORE_HASH_SIZE];  /* of the first half of its refresh tokens */
	uint8_t refresh[STORE_HASH_SIZE]; /* of the one that holds; all zero: none does */
	int64_t refresh_expires_ms;
	int64_t epoch; /* another one voids its tokens */
	int64_t created_ms, updated_ms, heartbeat_ms;
};

/* Oldest first. */
typedef void store_hosts_fn(
    void *ctx, const struct store_host *v, size_t n, const struct av_err *err);
int store_host_list(struct store *s, store_hosts_fn *fn, void *ctx);
/* Made, or written over. */
int store_host_put(struct store *s, const struct store_host *rec, store_done_fn *fn, void *ctx);
/* Absent: fine. */
int store_host_delete(struct store *s, const char *id, store_done_fn *fn, void *ctx);
/* Only when it was heard of last; nobody waits. */
int store_host_touch(struct store *s, const char *id, int64_t heartbeat_ms);
