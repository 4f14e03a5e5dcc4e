/* SPDX-License-Identifier: Apache-2.0 */
/*
 * nft.c - rules of nftables as netlink messages
 *
 * The format is that of linux/netfilter/nf_tables.h; nearly all numbers are big-endian.
 */
#include "spawn/nft.h"

/* Before the kernel's, which leave out what it defines. */
#include <arpa/inet.h>

#include <linux/netfilter.h>
#include <linux/netfilter/nf_nat.h>
#include <linux/netfilter/nfnetlink.h>
#include <string.h>

#include "base/num.h"
#include "base/banned.h"

#define REG NFT_REG_1
/* nft(8) shows elements of this type as addresses. */
#define KEY_TYPE_IPV4 7
/* Fields of headers. */
enum { IP_SOURCE = 12, IP_DESTINATION = 16, PORT_SOURCE = 0, PORT_DESTINATION = 2, TCP_FLAGS = 13 };
/* enum ip_conntrack_status IPS_DST_NAT, which is in host order in a register. */
#define STATUS_DST_NAT 0x20u

static void begin(struct nl_buf *b, uint16_t type, uint16_t flags)
{
	const struct nfgenmsg g = {.nfgen_family = NFPROTO_INET, .version = NFNETLINK_V0};
	nl_begin(b, (uint16_t)(NFNL_SUBSYS_NFTABLES << 8 | type), flags);
	nl_put(b, &g, sizeof(g));
}

static void batch(struct nl_buf *b, uint16_t type)
{
	const struct nfgenmsg g = {.nfgen_family = AF_UNSPEC,
	    .version = NFNETLINK_V0,
	    .res_id = htons(NFNL_SUBSYS_NFTABLES)};
	nl_begin(b, type, 0);
	nl_put(b, &g, sizeof(g));
	nl_end(b);
}

void nft_batch_begin(struct nl_buf *b)
{
	batch(b, NFNL_MSG_BATCH_BEGIN);
}

void nft_batch_end(struct nl_buf *b)
{
	batch(b, NFNL_MSG_BATCH_END);
}

void nft_table(struct nl_buf *b, const char *table)
{
	begin(b, NFT_MSG_NEWTABLE, NLM_F_CREATE | NLM_F_ACK);
	nl_string(b, NFTA_TABLE_NAME, table);
	nl_end(b);
}

void nft_table_ask(struct nl_buf *b, const char *table)
{
	begin(b, NFT_MSG_GETTABLE, NLM_F_ACK);
	nl_string(b, NFTA_TABLE_NAME, table);
	nl_end(b);
}

void nft_chains_ask(struct nl_buf *b)
{
	const struct nfgenmsg g = {.nfgen_family = AF_UNSPEC, .version = NFNETLINK_V0};
	nl_begin(b, NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETCHAIN, NLM_F_DUMP);
	nl_put(b, &g, sizeof(g));
	nl_end(b);
}

void nft_table_remove(struct nl_buf *b, const char *table)
{
	/* Made first, so that there is something to remove. */
	nft_table(b, table);
	begin(b, NFT_MSG_DELTABLE, NLM_F_ACK);
	nl_string(b, NFTA_TABLE_NAME, table);
	nl_end(b);
}

void nft_chain(struct nl_buf *b, const char *table, const char *chain, const char *type,
    uint32_t hook, int32_t priority)
{
	begin(b, NFT_MSG_NEWCHAIN, NLM_F_CREATE);
	nl_string(b, NFTA_CHAIN_TABLE, table);
	nl_string(b, NFTA_CHAIN_NAME, chain);
	size_t n = nl_nest(b, NFTA_CHAIN_HOOK);
	nl_be32(b, NFTA_HOOK_HOOKNUM, hook);
	nl_be32(b, NFTA_HOOK_PRIORITY, (uint32_t)priority);
	nl_nest_end(b, n);
	nl_be32(b, NFTA_CHAIN_POLICY, NF_ACCEPT);
	nl_string(b, NFTA_CHAIN_TYPE, type);
	nl_end(b);
}

/* ---- sets ---- */

static void set_begin(
    struct nl_buf *b, const char *table, const char *set, uint32_t id, uint32_t flags)
{
	begin(b, NFT_MSG_NEWSET, NLM_F_CREATE);
	nl_string(b, NFTA_SET_TABLE, table);
	nl_string(b, NFTA_SET_NAME, set);
	nl_be32(b, NFTA_SET_FLAGS, flags);
	nl_be32(b, NFTA_SET_KEY_TYPE, KEY_TYPE_IPV4);
	nl_be32(b, NFTA_SET_KEY_LEN, sizeof(uint32_t));
	nl_be32(b, NFTA_SET_ID, id);
}

static void element(struct nl_buf *b, uint32_t address, uint32_t flags)
{
	size_t e = nl_nest(b, NFTA_LIST_ELEM);
	if (flags)
		nl_be32(b, NFTA_SET_ELEM_FLAGS, flags);
	size_t k = nl_nest(b, NFTA_SET_ELEM_KEY);
	nl_be32(b, NFTA_DATA_VALUE, address);
	nl_nest_end(b, k);
	nl_nest_end(b, e);
}

void nft_set_ranges(struct nl_buf *b, const char *table, const char *set, uint32_t id,
    const struct nft_range *ranges, size_t n)
{
	set_begin(b, table, set, id, NFT_SET_INTERVAL);
	nl_end(b);
	if (n == 0)
		return;
	begin(b, NFT_MSG_NEWSETELEM, NLM_F_CREATE);
	nl_string(b, NFTA_SET_ELEM_LIST_TABLE, table);
	nl_string(b, NFTA_SET_ELEM_LIST_SET, set);
	nl_be32(b, NFTA_SET_ELEM_LIST_SET_ID, id);
	size_t list = nl_nest(b, NFTA_SET_ELEM_LIST_ELEMENTS);
	for (size_t i = 0; i < n; i++) {
		element(b, ranges[i].first, 0);
		/* An end is the first address outside; the last range may have none. Where two
		 * ranges touch, the second one's beginning ends the first. */
		bool touches = i + 1 < n && ranges[i + 1].first == ranges[i].last + 1;
		if (ranges[i].last != UINT32_MAX && !touches)
			element(b, ranges[i].last + 1, NFT_SET_ELEM_INTERVAL_END);
	}
	nl_nest_end(b, list);
	nl_end(b);
}

void nft_set_counted(
    struct nl_buf *b, const char *table, const char *set, uint32_t id, uint32_t max)
{
	set_begin(b, table, set, id, NFT_SET_EVAL);
	size_t d = nl_nest(b, NFTA_SET_DESC);
	nl_be32(b, NFTA_SET_DESC_SIZE, max);
	nl_nest_end(b, d);
	nl_end(b);
}

/* ---- rules ---- */

struct nft_rule nft_rule_begin(struct nl_buf *b, const char *table, const char *chain)
{
	begin(b, NFT_MSG_NEWRULE, NLM_F_CREATE | NLM_F_APPEND);
	nl_string(b, NFTA_RULE_TABLE, table);
	nl_string(b, NFTA_RULE_CHAIN, chain);
	struct nft_rule r = {.b = b};
	r.expressions = nl_nest(b, NFTA_RULE_EXPRESSIONS);
	return r;
}

void nft_rule_end(struct nft_rule *r)
{
	nl_nest_end(r->b, r->expressions);
	nl_end(r->b);
}

struct expression {
	size_t outer, inner;
};

static struct expression open_expression(struct nl_buf *b, uint16_t attr, const char *name)
{
	struct expression e = {.outer = nl_nest(b, attr)};
	nl_string(b, NFTA_EXPR_NAME, name);
	e.inner = nl_nest(b, NFTA_EXPR_DATA);
	return e;
}

static void close_expression(struct nl_buf *b, const struct expression *e)
{
	nl_nest_end(b, e->inner);
	nl_nest_end(b, e->outer);
}

static void data(struct nl_buf *b, uint16_t attr, const void *p, size_t n)
{
	size_t at = nl_nest(b, attr);
	nl_attr(b, NFTA_DATA_VALUE, p, n);
	nl_nest_end(b, at);
}

static void compare(struct nl_buf *b, uint32_t op, const void *p, size_t n)
{
	struct expression e = open_expression(b, NFTA_LIST_ELEM, "cmp");
	nl_be32(b, NFTA_CMP_SREG, REG);
	nl_be32(b, NFTA_CMP_OP, op);
	data(b, NFTA_CMP_DATA, p, n);
	close_expression(b, &e);
}

static void mask(struct nl_buf *b, const void *bits, size_t n)
{
	static const uint8_t zero[4];
	struct expression e = open_expression(b, NFTA_LIST_ELEM, "bitwise");
	nl_be32(b, NFTA_BITWISE_SREG, REG);
	nl_be32(b, NFTA_BITWISE_DREG, REG);
	nl_be32(b, NFTA_BITWISE_LEN, (uint32_t)n);
	data(b, NFTA_BITWISE_MASK, bits, n);
	data(b, NFTA_BITWISE_XOR, zero, n);
	close_expression(b, &e);
}

static void payload(struct nl_buf *b, uint32_t base, uint32_t offset, uint32_t n)
{
	struct expression e = open_expression(b, NFTA_LIST_ELEM, "payload");
	nl_be32(b, NFTA_PAYLOAD_DREG, REG);
	nl_be32(b, NFTA_PAYLOAD_BASE, base);
	nl_be32(b, NFTA_PAYLOAD_OFFSET, offset);
	nl_be32(b, NFTA_PAYLOAD_LEN, n);
	close_expression(b, &e);
}

static void load_address(struct nl_buf *b, enum nft_side side)
{
	payload(b, NFT_PAYLOAD_NETWORK_HEADER, side == NFT_SOURCE ? IP_SOURCE : IP_DESTINATION,
	    sizeof(uint32_t));
}

void nft_meta(struct nft_rule *r, uint32_t key, uint32_t op, const void *p, size_t n)
{
	struct expression e = open_expression(r->b, NFTA_LIST_ELEM, "meta");
	nl_be32(r->b, NFTA_META_DREG, REG);
	nl_be32(r->b, NFTA_META_KEY, key);
	close_expression(r->b, &e);
	compare(r->b, op, p, n);
}

void nft_ifname(struct nft_rule *r, uint32_t key, uint32_t op, const char *name, bool whole)
{
	char padded[16] = {0};
	size_t n = strlen(name);
	if (n >= sizeof(padded)) {
		r->b->overflow = true;
		return;
	}
	memcpy(padded, name, n);
	nft_meta(r, key, op, padded, whole ? sizeof(padded) : n);
}

void nft_l4proto(struct nft_rule *r, uint8_t protocol)
{
	nft_meta(r, NFT_META_L4PROTO, NFT_CMP_EQ, &protocol, sizeof(protocol));
}

void nft_address(struct nft_rule *r, enum nft_side side, uint32_t op, uint32_t address)
{
	nft_network(r, side, op, address, UINT32_MAX);
}

void nft_network(
    struct nft_rule *r, enum nft_side side, uint32_t op, uint32_t address, uint32_t bits)
{
	uint8_t be[4];
	load_address(r->b, side);
	if (bits != UINT32_MAX) {
		av_put_be32(be, bits);
		mask(r->b, be, sizeof(be));
	}
	av_put_be32(be, address & bits);
	compare(r->b, op, be, sizeof(be));
}

void nft_in_set(struct nft_rule *r, enum nft_side side, const char *set, uint32_t id)
{
	load_address(r->b, side);
	struct expression e = open_expression(r->b, NFTA_LIST_ELEM, "lookup");
	nl_string(r->b, NFTA_LOOKUP_SET, set);
	nl_be32(r->b, NFTA_LOOKUP_SET_ID, id);
	nl_be32(r->b, NFTA_LOOKUP_SREG, REG);
	close_expression(r->b, &e);
}

void nft_port(struct nft_rule *r, enum nft_side side, uint32_t op, uint16_t port)
{
	const uint16_t be = htons(port);
	payload(r->b, NFT_PAYLOAD_TRANSPORT_HEADER,
	    side == NFT_SOURCE ? PORT_SOURCE : PORT_DESTINATION, sizeof(be));
	compare(r->b, op, &be, sizeof(be));
}

void nft_tcp_flags(struct nft_rule *r, uint8_t bits, uint8_t flags)
{
	payload(r->b, NFT_PAYLOAD_TRANSPORT_HEADER, TCP_FLAGS, sizeof(flags));
	mask(r->b, &bits, sizeof(bits));
	compare(r->b, NFT_CMP_EQ, &flags, sizeof(flags));
}

/* Some of the bits of a value that the connection tracker keeps in host order. */
static void ct_bits(struct nft_rule *r, uint32_t key, uint32_t bits)
{
	static const uint32_t none;
	struct expression e = open_expression(r->b, NFTA_LIST_ELEM, "ct");
	nl_be32(r->b, NFTA_CT_DREG, REG);
	nl_be32(r->b, NFTA_CT_KEY, key);
	close_expression(r->b, &e);
	mask(r->b, &bits, sizeof(bits));
	compare(r->b, NFT_CMP_NEQ, &none, sizeof(none));
}

void nft_ct_state(struct nft_rule *r, uint32_t states)
{
	ct_bits(r, NFT_CT_STATE, states);
}

void nft_ct_dnat(struct nft_rule *r)
{
	ct_bits(r, NFT_CT_STATUS, STATUS_DST_NAT);
}

static void fib(struct nft_rule *r, uint32_t result, uint32_t flags)
{
	struct expression e = open_expression(r->b, NFTA_LIST_ELEM, "fib");
	nl_be32(r->b, NFTA_FIB_DREG, REG);
	nl_be32(r->b, NFTA_FIB_RESULT, result);
	nl_be32(r->b, NFTA_FIB_FLAGS, flags);
	close_expression(r->b, &e);
}

void nft_spoofed(struct nft_rule *r)
{
	static const uint32_t none;
	fib(r, NFT_FIB_RESULT_OIF, NFTA_FIB_F_SADDR | NFTA_FIB_F_IIF);
	compare(r->b, NFT_CMP_EQ, &none, sizeof(none));
}

void nft_address_type(struct nft_rule *r, enum nft_side side, uint32_t op, uint32_t type)
{
	fib(r, NFT_FIB_RESULT_ADDRTYPE, side == NFT_SOURCE ? NFTA_FIB_F_SADDR : NFTA_FIB_F_DADDR);
	compare(r->b, op, &type, sizeof(type));
}

void nft_over_connections(struct nft_rule *r, const char *set, uint32_t id, uint32_t n)
{
	load_address(r->b, NFT_SOURCE);
	struct expression e = open_expression(r->b, NFTA_LIST_ELEM, "dynset");
	nl_string(r->b, NFTA_DYNSET_SET_NAME, set);
	nl_be32(r->b, NFTA_DYNSET_SET_ID, id);
	nl_be32(r->b, NFTA_DYNSET_OP, NFT_DYNSET_OP_ADD);
	nl_be32(r->b, NFTA_DYNSET_SREG_KEY, REG);
	struct expression limit = open_expression(r->b, NFTA_DYNSET_EXPR, "connlimit");
	nl_be32(r->b, NFTA_CONNLIMIT_COUNT, n);
	nl_be32(r->b, NFTA_CONNLIMIT_FLAGS, NFT_CONNLIMIT_F_INV);
	close_expression(r->b, &limit);
	close_expression(r->b, &e);
}

/* ---- verdicts ---- */

void nft_verdict(struct nft_rule *r, uint32_t verdict)
{
	struct expression e = open_expression(r->b, NFTA_LIST_ELEM, "immediate");
	nl_be32(r->b, NFTA_IMMEDIATE_DREG, NFT_REG_VERDICT);
	size_t d = nl_nest(r->b, NFTA_IMMEDIATE_DATA);
	size_t v = nl_nest(r->b, NFTA_DATA_VERDICT);
	nl_be32(r->b, NFTA_VERDICT_CODE, verdict);
	nl_nest_end(r->b, v);
	nl_nest_end(r->b, d);
	close_expression(r->b, &e);
}

void nft_reject(struct nft_rule *r)
{
	struct expression e = open_expression(r->b, NFTA_LIST_ELEM, "reject");
	nl_be32(r->b, NFTA_REJECT_TYPE, NFT_REJECT_ICMPX_UNREACH);
	nl_u8(r->b, NFTA_REJECT_ICMP_CODE, NFT_REJECT_ICMPX_ADMIN_PROHIBITED);
	close_expression(r->b, &e);
}

void nft_reset(struct nft_rule *r)
{
	struct expression e = open_expression(r->b, NFTA_LIST_ELEM, "reject");
	nl_be32(r->b, NFTA_REJECT_TYPE, NFT_REJECT_TCP_RST);
	close_expression(r->b, &e);
}

void nft_dnat(struct nft_rule *r, uint32_t address)
{
	uint8_t be[4];
	av_put_be32(be, address);
	struct expression e = open_expression(r->b, NFTA_LIST_ELEM, "immediate");
	nl_be32(r->b, NFTA_IMMEDIATE_DREG, REG);
	data(r->b, NFTA_IMMEDIATE_DATA, be, sizeof(be));
	close_expression(r->b, &e);
	e = open_expression(r->b, NFTA_LIST_ELEM, "nat");
	nl_be32(r->b, NFTA_NAT_TYPE, NFT_NAT_DNAT);
	nl_be32(r->b, NFTA_NAT_FAMILY, NFPROTO_IPV4);
	nl_be32(r->b, NFTA_NAT_REG_ADDR_MIN, REG);
	close_expression(r->b, &e);
}

void nft_masquerade(struct nft_rule *r)
{
	struct expression e = open_expression(r->b, NFTA_LIST_ELEM, "masq");
	close_expression(r->b, &e);
}
