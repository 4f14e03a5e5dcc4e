/* SPDX-License-Identifier: Apache-2.0 */
/*
 * nft.h - rules of nftables as netlink messages
 *
 * Only what Aviary's own two tables use (net_rules.h). A transaction is nft_batch_begin(), objects,
 * nft_batch_end(): the kernel takes all of it or nothing. A rule is nft_rule_begin(), expressions
 * in the order in which they are looked at, nft_rule_end(); an expression that does not hold ends
 * the rule. Family is always inet. Register 1 is the only one in use, so that each load is followed
 * by what looks at it.
 */
#pragma once

#include <linux/netfilter/nf_tables.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "spawn/netlink.h"

void nft_batch_begin(struct nl_buf *b);
/* Without it the kernel checks all and changes nothing. */
void nft_batch_end(struct nl_buf *b);

/* Removes the table whether it is there or not, in the same transaction. */
void nft_table_remove(struct nl_buf *b, const char *table);
void nft_table(struct nl_buf *b, const char *table);
/* Not part of a transaction: an error when there is no such table. */
void nft_table_ask(struct nl_buf *b, const char *table);
/* type "filter" or "nat"; hook NF_INET_*; policy accept. */
void nft_chain(struct nl_buf *b, const char *table, const char *chain, const char *type,
    uint32_t hook, int32_t priority);

/* A dump of all chains of all tables. */
void nft_chains_ask(struct nl_buf *b);

/* An IPv4 range in host order, both ends included. */
struct nft_range {
	uint32_t first, last;
};
/* A set of ranges that do not overlap, sorted. */
void nft_set_ranges(struct nl_buf *b, const char *table, const char *set, uint32_t id,
    const struct nft_range *ranges, size_t n);
/* An empty set of addresses that rules fill, each with a count of connections. */
void nft_set_counted(
    struct nl_buf *b, const char *table, const char *set, uint32_t id, uint32_t max);

struct nft_rule {
	struct nl_buf *b;
	size_t expressions;
};
struct nft_rule nft_rule_begin(struct nl_buf *b, const char *table, const char *chain);
void nft_rule_end(struct nft_rule *r);

/* ---- matches ---- */

/* key NFT_META_*; n bytes of data are compared; op NFT_CMP_EQ or NFT_CMP_NEQ. */
void nft_meta(struct nft_rule *r, uint32_t key, uint32_t op, const void *data, size_t n);
/* The interface's name begins with prefix; or (whole) is it. key NFT_META_IIFNAME or _OIFNAME. */
void nft_ifname(struct nft_rule *r, uint32_t key, uint32_t op, const char *name, bool whole);
void nft_l4proto(struct nft_rule *r, uint8_t protocol);
/* IPv4 only; what offsets mean has been made sure of by an earlier rule. */
enum nft_side { NFT_SOURCE, NFT_DESTINATION };
void nft_address(struct nft_rule *r, enum nft_side side, uint32_t op, uint32_t address);
void nft_network(
    struct nft_rule *r, enum nft_side side, uint32_t op, uint32_t address, uint32_t mask);
void nft_in_set(struct nft_rule *r, enum nft_side side, const char *set, uint32_t id);
/* Of TCP and UDP. */
void nft_port(struct nft_rule *r, enum nft_side side, uint32_t op, uint16_t port);
/* TCP: of `mask`'s flags exactly `flags` are set. */
void nft_tcp_flags(struct nft_rule *r, uint8_t mask, uint8_t flags);
/* Any of the states (NF_CT_STATE_*_BIT as in the kernel: 2 established, 4 related, 8 new). */
void nft_ct_state(struct nft_rule *r, uint32_t states);
/* The packet's connection was sent elsewhere by nft_dnat(). */
void nft_ct_dnat(struct nft_rule *r);
/* The route back to the source leads elsewhere than through the interface it came in by. */
void nft_spoofed(struct nft_rule *r);
/* The type of the address (RTN_*) by this machine's routes. */
void nft_address_type(struct nft_rule *r, enum nft_side side, uint32_t op, uint32_t type);
/* The source has more than n connections; counts this one. */
void nft_over_connections(struct nft_rule *r, const char *set, uint32_t id, uint32_t n);

/* ---- verdicts: the end of a rule ---- */

void nft_verdict(struct nft_rule *r, uint32_t verdict); /* NF_ACCEPT, NF_DROP */
void nft_reject(struct nft_rule *r); /* ICMP or ICMPv6 "administratively prohibited" */
void nft_reset(struct nft_rule *r);  /* a reset of TCP's; what is not TCP is dropped */
void nft_dnat(struct nft_rule *r, uint32_t address);
void nft_masquerade(struct nft_rule *r);
