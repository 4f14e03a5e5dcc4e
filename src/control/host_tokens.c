/* SPDX-License-Identifier: Apache-2.0 */
/*
 * host_tokens.c - what hosts do themselves: register, refresh, heartbeats (see hosts.h)
 */
#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>

#include "base/avtime.h"
#include "base/codec.h"
#include "base/json.h"
#include "base/num.h"
#include "control/audit_internal.h"
#include "control/hosts_internal.h"
#include "control/jwt.h"

#include "base/banned.h"

#define FAMILY_HEX 32
#define CORES_MAX  65536
#define MEMORY_MAX ((int64_t)1 << 40) /* MiB */
#define DISK_MAX   ((int64_t)1 << 40) /* GiB */
#define WHO        "this host token is not valid; register again, or refresh it"

/* {"alg":"HS256","typ":"JWT"} */
static const struct jwt_kind token_kind = {"aviary host", "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9."};

/* ---- the token of a host ---- */

int host_token_issue(const struct control *c, const struct host *h, struct av_buf *out)
{
	AV_CLEANUP(av_buf_clear) struct av_buf payload = AV_BUF_INIT(JWT_PAYLOAD_MAX);
	int64_t now_s = control_real_ms(c) / 1000;

	(void)av_buf_printf(&payload,
	    "{\"typ\":\"host\",\"host_id\":\"%s\",\"sub\":\"%s\",\"ses\":%" PRId64
	    ",\"iat\":%" PRId64 ",\"exp\":%" PRId64 "}",
	    h->rec.id, h->rec.id, h->rec.epoch, now_s, now_s + HOST_TOKEN_S);
	if (av_buf_error(&payload) < 0)
		return -ENOMEM;
	return jwt_issue(c, &token_kind, av_buf_str(&payload), out);
}

int control_host_verify(const struct control *c, struct av_str token,
    char ret_id[static AV_ID_SIZE], struct av_err *err)
{
	AV_CLEANUP(av_json_decrefp) json_t *j = jwt_open(c, &token_kind, token);
	const char *id = NULL, *typ = NULL;
	int64_t epoch = 0, expires_s = 0;
	const struct host *h;

	if (!j || av_json_get_str(j, "typ", &typ, NULL) < 0 ||
	    av_json_get_str(j, "host_id", &id, NULL) < 0 || !typ || !id ||
	    strcmp(typ, "host") != 0 || !av_id_valid(av_str_c(id), AV_ID_HOST) ||
	    av_json_get_i64(j, "ses", 0, INT64_MAX, &epoch, NULL) < 0 ||
	    av_json_get_i64(j, "exp", 1, INT64_MAX / 1000, &expires_s, NULL) < 0)
		return av_err_set(err, AV_ERR_UNAUTHORIZED, WHO);
	if (expires_s * 1000 <= control_real_ms(c))
		return av_err_set(
		    err, AV_ERR_UNAUTHORIZED, "this host token has expired; refresh it");
	h = host_find(c, id);
	if (h && h->rec.epoch != epoch)
		return av_err_set(err, AV_ERR_UNAUTHORIZED, WHO);
	memcpy(ret_id, id, AV_ID_SIZE);
	return 0;
}

int control_host_heartbeat(struct control *c, const char *id, struct av_err *err)
{
	struct host *h = host_find(c, id);
	int r = control_check_open(c, err);

	if (r < 0)
		return r;
	if (!h)
		return av_err_set(err, AV_ERR_NOT_FOUND,
		    "host %s was deleted; erase its credentials and stop", id);
	host_heard(c, h);
	return 0;
}

/* ---- tokens that are shown once ---- */

static bool is_zero(const uint8_t hash[static STORE_HASH_SIZE])
{
	return sodium_is_zero(hash, STORE_HASH_SIZE) == 1;
}

static bool same(const uint8_t a[static STORE_HASH_SIZE], const uint8_t b[static STORE_HASH_SIZE])
{
	return sodium_memcmp(a, b, STORE_HASH_SIZE) == 0;
}

static bool is_hex64(const char *text)
{
	return strlen(text) == HOST_SECRET_SIZE - 1 &&
	       strspn(text, "0123456789abcdef") == HOST_SECRET_SIZE - 1;
}

static void hash_text(const char *text, size_t n, uint8_t ret[static STORE_HASH_SIZE])
{
	(void)crypto_hash_sha256(ret, (const uint8_t *)text, n);
}

/* The next of both tokens; family NULL: a new one. */
static void make_refresh(struct host_op *op, const char *family)
{
	uint8_t random[32];

	av_random(random, sizeof(random));
	av_hex_encode(op->refresh, random, sizeof(random));
	explicit_bzero(random, sizeof(random));
	if (family)
		memcpy(op->refresh, family, FAMILY_HEX);
	hash_text(op->refresh, FAMILY_HEX, op->rec.family);
	hash_text(op->refresh, strlen(op->refresh), op->rec.refresh);
	op->rec.refresh_expires_ms = control_real_ms(op->c) + HOST_REFRESH_S * 1000;
}

/* ---- register ---- */

static int begin_register(struct host_op *op, struct av_err *err)
{
	struct host *h, *found = NULL;
	struct store_host *rec = &op->rec;

	AV_LIST_FOREACH(h, &op->c->hosts->list, struct host, link)
	if (!is_zero(h->rec.registration) && same(h->rec.registration, op->hash))
		found = h;
	if (!found || found->rec.registration_expires_ms <= control_real_ms(op->c))
		return av_err_set(err, AV_ERR_UNAUTHORIZED,
		    "the registration token is not valid or has expired; an administrator can make "
		    "another");
	if (strcmp(found->rec.status, "pending") != 0)
		return av_err_set(err, AV_ERR_NOT_FOUND,
		    "the registration token was used already: host %s is registered",
		    found->rec.id);
	*rec = found->rec;
	memcpy(rec->address, op->address, sizeof(rec->address));
	if (op->arch[0])
		memcpy(rec->arch, op->arch, sizeof(rec->arch));
	rec->cpu_cores = op->cpu_cores;
	rec->memory_mb = op->memory_mb;
	rec->disk_gb = op->disk_gb;
	rec->epoch++;
	(void)snprintf(rec->status, sizeof(rec->status), "online");
	op->sets_status = true;
	make_refresh(op, NULL);
	return 0;
}

/* "192.0.2.7:50051" or "[2001:db8::7]:50051". */
static int check_address(const char *text, struct av_err *err)
{
	struct av_str s = av_str_c(text), host;
	struct in6_addr addr;
	char name[64] = "";
	uint64_t port;
	int family = AF_INET;

	if (s.n > 0 && s.p[0] == '[') {
		family = AF_INET6;
		s = av_str_n(s.p + 1, s.n - 1);
		if (!av_str_cut(&s, ']', &host) || s.n == 0 || s.p[0] != ':')
			s.n = 0;
		else
			s = av_str_n(s.p + 1, s.n - 1);
	} else if (!av_str_cut(&s, ':', &host)) {
		s.n = 0;
	}
	if (s.n == 0 || av_str_copy(name, sizeof(name), host) < 0 ||
	    inet_pton(family, name, &addr) != 1 || av_parse_u64(s, 1, 65535, &port) < 0)
		return av_err_set(err, AV_ERR_INVALID,
		    "address: it must be an address and a port, as 192.0.2.7:50051 or "
		    "[2001:db8::7]:50051");
	return 0;
}

static int check_facts(const struct control_host_facts *f, struct av_err *err)
{
	const char *arch = f->arch ? f->arch : "";

	if (strlen(arch) > 15 ||
	    strspn(arch, "abcdefghijklmnopqrstuvwxyz0123456789_") != strlen(arch))
		return av_err_set(err, AV_ERR_INVALID,
		    "arch: it must be a name such as amd64 or arm64, of at most 15 characters");
	if (f->cpu_cores < 0 || f->cpu_cores > CORES_MAX || f->memory_mb < 0 ||
	    f->memory_mb > MEMORY_MAX || f->disk_gb < 0 || f->disk_gb > DISK_MAX)
		return av_err_set(err, AV_ERR_INVALID,
		    "cpu_cores, memory_mb and disk_gb must be numbers that a machine can have");
	return check_address(f->address ? f->address : "", err);
}

int control_host_register(struct control *c, const char *token, const struct control_host_facts *f,
    control_host_fn *fn, void *ctx, struct node_call **ret, struct av_err *err)
{
	struct host_op *op;

	if (!is_hex64(token ? token : ""))
		return av_err_set(err, AV_ERR_INVALID,
		    "token: it must be the 64 hexadecimal digits that creating the host gave");
	if (check_facts(f, err) < 0)
		return -EINVAL;
	op = host_op_new(c, begin_register, fn, ctx);
	if (!op)
		return av_err_set(err, AV_ERR_NO_MEMORY, "out of memory");
	hash_text(token, strlen(token), op->hash);
	(void)snprintf(op->address, sizeof(op->address), "%s", f->address);
	(void)snprintf(op->arch, sizeof(op->arch), "%s", f->arch ? f->arch : "");
	op->cpu_cores = f->cpu_cores;
	op->memory_mb = f->memory_mb;
	op->disk_gb = f->disk_gb;
	host_op_submit(op, ret);
	return 0;
}

/* ---- refresh ---- */

/* Somebody has a copy of its tokens, and it cannot be said who. */
static void revoke(struct host_op *op)
{
	struct store_host *rec = &op->rec;

	memset(rec->registration, 0, sizeof(rec->registration));
	memset(rec->family, 0, sizeof(rec->family));
	memset(rec->refresh, 0, sizeof(rec->refresh));
	rec->epoch++;
	(void)snprintf(rec->status, sizeof(rec->status), "pending");
	op->sets_status = true;
	(void)av_err_set(&op->refusal, AV_ERR_UNAUTHORIZED,
	    "this refresh token was used before, so that there is a copy of it; all tokens of the "
	    "host are void, and it must be registered again");
	control_audit(op->c, &(struct control_audit){.action = "host.revoke",
	                         .resource_id = rec->id,
	                         .by_system = true,
	                         .team_id = rec->team_id});
}

static int begin_refresh(struct host_op *op, struct av_err *err)
{
	struct host *h, *found = NULL;

	AV_LIST_FOREACH(h, &op->c->hosts->list, struct host, link)
	if (!is_zero(h->rec.family) && same(h->rec.family, op->family))
		found = h;
	if (!found || is_zero(found->rec.refresh))
		return av_err_set(err, AV_ERR_UNAUTHORIZED,
		    "the refresh token is not valid; register the host again");
	if (found->rec.refresh_expires_ms <= control_real_ms(op->c))
		return av_err_set(err, AV_ERR_UNAUTHORIZED,
		    "the refresh token has expired; register the host again");
	op->rec = found->rec;
	if (same(found->rec.refresh, op->hash))
		make_refresh(op, op->family_hex);
	else
		revoke(op);
	return 0;
}

int control_host_refresh(struct control *c, const char *token, control_host_fn *fn, void *ctx,
    struct node_call **ret, struct av_err *err)
{
	struct host_op *op;

	if (!is_hex64(token ? token : ""))
		return av_err_set(err, AV_ERR_INVALID,
		    "refresh_token: it must be the 64 hexadecimal digits that came last");
	op = host_op_new(c, begin_refresh, fn, ctx);
	if (!op)
		return av_err_set(err, AV_ERR_NO_MEMORY, "out of memory");
	hash_text(token, strlen(token), op->hash);
	hash_text(token, FAMILY_HEX, op->family);
	(void)snprintf(op->family_hex, sizeof(op->family_hex), "%.*s", FAMILY_HEX, token);
	host_op_submit(op, ret);
	return 0;
}
