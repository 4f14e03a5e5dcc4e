/* SPDX-License-Identifier: Apache-2.0 */
/*
 * net_rules.h - what a sandbox with internet access may reach, as two tables of nftables
 *
 * Theory of operation. A packet of a sandbox is looked at twice, by rules that do not trust each
 * other: in the sandbox's own network namespace (where nobody inside has CAP_NET_ADMIN), so that a
 * program gets its refusal at once, and in the host's, whose table is the same for all sandboxes of
 * an instance and knows them by the prefix of their interfaces. Neither holds anything of one
 * sandbox: the first ends with the namespace, the second finds out from the host's routes whether a
 * source address belongs to the interface it came in by.
 *
 * Refused: everything that is not a global unicast address of IPv4, the addresses of the host and
 * of its gateways whatever they are, other sandboxes, all of IPv6, and mail to port 25. Permitted
 * before that: name queries to the resolver addresses below, which the host sends on to its own
 * resolvers, and ranges that the operator names. Nothing outside can begin a connection to a
 * sandbox.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "spawn/netlink.h"
#include "spawn/nft.h"

#define NET_ALLOWED_MAX   16
#define NET_RESOLVERS_MAX 3
#define NET_GUARDED_MAX   4
#define NET_GATEWAYS_MAX  8
#define NET_LOCAL_MAX     32
#define NET_PREFIX_SIZE   12 /* "avy" and 8 hex digits of the instance */
#define NET_TABLE_SIZE    20
#define NET_ANY_SANDBOX   "avy" /* prefix of the sandboxes' interfaces of every instance */
#define NET_SANDBOX_TABLE "aviary"
#define NET_IFNAME        "eth0" /* inside */

/* Of every rootless sandbox; pasta keeps them apart. */
#define NET_ROOTLESS      0x0ad50010u
#define NET_ROOTLESS_TEXT "10.213.0.16"
/* Addresses that exist on the link between a sandbox and its host only. */
#define NET_GATEWAY        0xa9fefd01u /* 169.254.253.1 */
#define NET_RESOLVER_FIRST 0xa9fefd35u /* 169.254.253.53, .54, .55 */

/* What is refused for its number, sorted. */
extern const struct nft_range net_denied[];
extern const size_t net_denied_count;

struct net_rules_host {
	char table[NET_TABLE_SIZE];
	char prefix[NET_PREFIX_SIZE];
	struct nft_range allowed[NET_ALLOWED_MAX]; /* sorted, disjoint */
	size_t n_allowed;
	uint32_t resolvers[NET_RESOLVERS_MAX];
	size_t n_resolvers;
	uint32_t gateways[NET_GATEWAYS_MAX]; /* of the host, refused */
	size_t n_gateways;
	uint32_t connections_max; /* per sandbox */
	/* Interfaces on which this instance switched forwarding on: nothing but what belongs to
	 * sandboxes is forwarded from there. */
	char guarded[NET_GUARDED_MAX][16];
	size_t n_guarded;
};
/* Names of an instance. */
void net_rules_names(struct net_rules_host *h, const char *tag);
/* A transaction that puts the host's table in place of what was there. commit false: the kernel
 * only says whether it would take it. Needs about 16 KiB. */
void net_rules_host(struct nl_buf *b, const struct net_rules_host *h, bool commit);
void net_rules_host_remove(struct nl_buf *b, const char *table);

struct net_rules_sandbox {
	struct nft_range pool; /* of all sandboxes */
	/* The host's own and its gateways', as far as `denied` does not have them. */
	uint32_t local[NET_LOCAL_MAX];
	size_t n_local;
	struct nft_range allowed[NET_ALLOWED_MAX];
	size_t n_allowed;
	/* The packets are those of a virtual machine's QEMU: see end() in net_rules.c. */
	bool vm;
};
/* A transaction for the namespace of a sandbox, which has no table yet. */
void net_rules_sandbox(struct nl_buf *b, const struct net_rules_sandbox *s);

#define NET_RULES_BYTES 16384
