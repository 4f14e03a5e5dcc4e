/* SPDX-License-Identifier: Apache-2.0 */
/*
 * net_rules.c - what a sandbox with internet access may reach
 */
#include "spawn/net_rules.h"

/* Before the kernel's, which leave out what it defines. */
#include <netinet/in.h>

#include <linux/netfilter.h>
#include <linux/netfilter_ipv4.h>
#include <linux/rtnetlink.h>
#include <stdio.h>

#include "base/macros.h"
#include "base/banned.h"

#define DNS_PORT  53
#define SMTP_PORT 25

enum { CT_ESTABLISHED = 2, CT_RELATED = 4, CT_NEW = 8 };
enum { TCP_SYN = 0x02, TCP_ACK = 0x10 };
enum { SET_DENIED = 1, SET_ALLOWED, SET_CONNECTIONS };
/* One per sandbox; stale ones go as their connections do. */
#define CONNECTIONS_SET_SIZE 65536

#define IP(a, b, c, d) ((uint32_t)(a) << 24 | (b) << 16 | (c) << 8 | (d))
#define NET(a, b, c, d, width)                                                                     \
	{                                                                                          \
		IP(a, b, c, d), IP(a, b, c, d) | (uint32_t)(0xffffffffull >> (width))              \
	}

/* IANA's registry of special-purpose addresses, without what is globally reachable and without the
 * three ranges for documentation, which lead nowhere; and the one public address that is a metadata
 * service of a cloud. */
const struct nft_range net_denied[] = {
    NET(0, 0, 0, 0, 8),        /* this network */
    NET(10, 0, 0, 0, 8),       /* private */
    NET(100, 64, 0, 0, 10),    /* carrier-grade NAT; 100.100.100.200 is metadata at Alibaba */
    NET(127, 0, 0, 0, 8),      /* loopback */
    NET(168, 63, 129, 16, 32), /* Azure's WireServer */
    NET(169, 254, 0, 0, 16),   /* link-local; 169.254.169.254 is metadata nearly everywhere */
    NET(172, 16, 0, 0, 12),    /* private */
    NET(192, 0, 0, 0, 24),     /* protocol assignments; 192.0.0.192 is metadata at Oracle */
    NET(192, 88, 99, 0, 24),   /* 6to4 relays, withdrawn */
    NET(192, 168, 0, 0, 16),   /* private */
    NET(198, 18, 0, 0, 15),    /* benchmarks */
    NET(224, 0, 0, 0, 3),      /* multicast, reserved, broadcast */
};
const size_t net_denied_count = AV_ARRAY_LEN(net_denied);

void net_rules_names(struct net_rules_host *h, const char *tag)
{
	snprintf(h->table, sizeof(h->table), "aviary-%.8s", tag);
	snprintf(h->prefix, sizeof(h->prefix), NET_ANY_SANDBOX "%.8s", tag);
}

/* ---- in both ---- */

static void not_ipv4(struct nl_buf *b, const char *table, const char *chain)
{
	static const uint8_t ipv4 = NFPROTO_IPV4;
	struct nft_rule r = nft_rule_begin(b, table, chain);
	nft_meta(&r, NFT_META_NFPROTO, NFT_CMP_NEQ, &ipv4, sizeof(ipv4));
	nft_verdict(&r, NF_DROP);
	nft_rule_end(&r);
}

static void accept_dns(struct nl_buf *b, const char *table, const char *chain, uint32_t resolver)
{
	static const uint8_t protocols[] = {IPPROTO_UDP, IPPROTO_TCP};
	for (size_t i = 0; i < AV_ARRAY_LEN(protocols); i++) {
		struct nft_rule r = nft_rule_begin(b, table, chain);
		nft_address(&r, NFT_DESTINATION, NFT_CMP_EQ, resolver);
		nft_l4proto(&r, protocols[i]);
		nft_port(&r, NFT_DESTINATION, NFT_CMP_EQ, DNS_PORT);
		nft_verdict(&r, NF_ACCEPT);
		nft_rule_end(&r);
	}
}

static void accept_allowed(struct nl_buf *b, const char *table, const char *chain, size_t n_allowed)
{
	if (n_allowed == 0)
		return;
	struct nft_rule r = nft_rule_begin(b, table, chain);
	nft_in_set(&r, NFT_DESTINATION, "allowed", SET_ALLOWED);
	nft_verdict(&r, NF_ACCEPT);
	nft_rule_end(&r);
}

/* How a rule ends. To be rejected is to learn it at once: by an ICMP error where a program asks the
 * kernel, which makes EHOSTUNREACH of it. Where it asks through libslirp, only a reset gets to it
 * (ECONNREFUSED): another error that comes after connect(2) is lost there, and the program waits
 * for minutes. UDP fails in sendto(2) either way, of which a guest is told what few programs ask
 * for. */
enum ending { DROP, REJECT, RESET };

static void end(struct nft_rule *r, enum ending ending)
{
	if (ending == REJECT)
		nft_reject(r);
	else if (ending == RESET)
		nft_reset(r);
	else
		nft_verdict(r, NF_DROP);
	nft_rule_end(r);
}

static void refuse(struct nl_buf *b, const char *table, const char *chain, enum ending ending)
{
	struct nft_rule r = nft_rule_begin(b, table, chain);
	nft_in_set(&r, NFT_DESTINATION, "denied", SET_DENIED);
	end(&r, ending);
	r = nft_rule_begin(b, table, chain);
	nft_l4proto(&r, IPPROTO_TCP);
	nft_port(&r, NFT_DESTINATION, NFT_CMP_EQ, SMTP_PORT);
	end(&r, ending);
}

static void sets(struct nl_buf *b, const char *table, const struct nft_range *allowed, size_t n)
{
	nft_set_ranges(b, table, "denied", SET_DENIED, net_denied, net_denied_count);
	if (n > 0)
		nft_set_ranges(b, table, "allowed", SET_ALLOWED, allowed, n);
}

/* ---- the host's table ---- */

/* Before connections are tracked, so that what is refused costs no entry. */
static void host_raw(struct nl_buf *b, const struct net_rules_host *h)
{
	static const char chain[] = "raw";
	static const uint32_t unicast = RTN_UNICAST;
	nft_chain(b, h->table, chain, "filter", NF_INET_PRE_ROUTING, NF_IP_PRI_RAW);
	struct nft_rule r = nft_rule_begin(b, h->table, chain);
	nft_ifname(&r, NFT_META_IIFNAME, NFT_CMP_NEQ, h->prefix, false);
	nft_verdict(&r, NF_ACCEPT);
	nft_rule_end(&r);

	not_ipv4(b, h->table, chain);
	r = nft_rule_begin(b, h->table, chain);
	nft_spoofed(&r);
	end(&r, DROP);
	for (size_t i = 0; i < h->n_resolvers; i++)
		accept_dns(b, h->table, chain, NET_RESOLVER_FIRST + (uint32_t)i);
	/* The host's own addresses, public ones and later ones too. */
	r = nft_rule_begin(b, h->table, chain);
	nft_address_type(&r, NFT_DESTINATION, NFT_CMP_NEQ, unicast);
	end(&r, DROP);
	for (size_t i = 0; i < h->n_gateways; i++) {
		r = nft_rule_begin(b, h->table, chain);
		nft_address(&r, NFT_DESTINATION, NFT_CMP_EQ, h->gateways[i]);
		end(&r, DROP);
	}
	accept_allowed(b, h->table, chain, h->n_allowed);
	refuse(b, h->table, chain, DROP);
}

static void host_nat(struct nl_buf *b, const struct net_rules_host *h)
{
	nft_chain(b, h->table, "resolve", "nat", NF_INET_PRE_ROUTING, NF_IP_PRI_NAT_DST);
	for (size_t i = 0; i < h->n_resolvers; i++) {
		struct nft_rule r = nft_rule_begin(b, h->table, "resolve");
		nft_ifname(&r, NFT_META_IIFNAME, NFT_CMP_EQ, h->prefix, false);
		nft_address(&r, NFT_DESTINATION, NFT_CMP_EQ, NET_RESOLVER_FIRST + (uint32_t)i);
		nft_dnat(&r, h->resolvers[i]);
		nft_rule_end(&r);
	}
	nft_chain(b, h->table, "masquerade", "nat", NF_INET_POST_ROUTING, NF_IP_PRI_NAT_SRC);
	struct nft_rule r = nft_rule_begin(b, h->table, "masquerade");
	nft_ifname(&r, NFT_META_IIFNAME, NFT_CMP_EQ, h->prefix, false);
	nft_masquerade(&r);
	nft_rule_end(&r);
}

static void limit_connections(struct nl_buf *b, const struct net_rules_host *h, const char *chain)
{
	struct nft_rule r = nft_rule_begin(b, h->table, chain);
	nft_ifname(&r, NFT_META_IIFNAME, NFT_CMP_EQ, h->prefix, false);
	nft_ct_state(&r, CT_NEW);
	nft_over_connections(&r, "connections", SET_CONNECTIONS, h->connections_max);
	end(&r, DROP);
}

static void host_forward(struct nl_buf *b, const struct net_rules_host *h)
{
	static const char chain[] = "forward";
	nft_chain(b, h->table, chain, "filter", NF_INET_FORWARD, NF_IP_PRI_FILTER);
	struct nft_rule r = nft_rule_begin(b, h->table, chain);
	nft_ifname(&r, NFT_META_IIFNAME, NFT_CMP_EQ, h->prefix, false);
	nft_ifname(&r, NFT_META_OIFNAME, NFT_CMP_EQ, NET_ANY_SANDBOX, false);
	end(&r, DROP);

	limit_connections(b, h, chain);
	r = nft_rule_begin(b, h->table, chain);
	nft_ifname(&r, NFT_META_IIFNAME, NFT_CMP_EQ, h->prefix, false);
	nft_verdict(&r, NF_ACCEPT);
	nft_rule_end(&r);

	r = nft_rule_begin(b, h->table, chain);
	nft_ifname(&r, NFT_META_OIFNAME, NFT_CMP_EQ, h->prefix, false);
	nft_ct_state(&r, CT_ESTABLISHED | CT_RELATED);
	nft_verdict(&r, NF_ACCEPT);
	nft_rule_end(&r);

	r = nft_rule_begin(b, h->table, chain);
	nft_ifname(&r, NFT_META_OIFNAME, NFT_CMP_EQ, h->prefix, false);
	end(&r, DROP);

	for (size_t i = 0; i < h->n_guarded; i++) {
		r = nft_rule_begin(b, h->table, chain);
		nft_ifname(&r, NFT_META_IIFNAME, NFT_CMP_EQ, h->guarded[i], true);
		nft_ifname(&r, NFT_META_OIFNAME, NFT_CMP_NEQ, NET_ANY_SANDBOX, false);
		end(&r, DROP);
	}
}

/* Between the host itself and a sandbox: answers of a resolver on this host, ICMP errors. */
static void host_local(struct nl_buf *b, const struct net_rules_host *h)
{
	nft_chain(b, h->table, "input", "filter", NF_INET_LOCAL_IN, NF_IP_PRI_FILTER);
	limit_connections(b, h, "input");
	struct nft_rule r = nft_rule_begin(b, h->table, "input");
	nft_ifname(&r, NFT_META_IIFNAME, NFT_CMP_EQ, h->prefix, false);
	nft_ct_dnat(&r);
	nft_verdict(&r, NF_ACCEPT);
	nft_rule_end(&r);
	r = nft_rule_begin(b, h->table, "input");
	nft_ifname(&r, NFT_META_IIFNAME, NFT_CMP_EQ, h->prefix, false);
	end(&r, DROP);

	nft_chain(b, h->table, "output", "filter", NF_INET_LOCAL_OUT, NF_IP_PRI_FILTER);
	r = nft_rule_begin(b, h->table, "output");
	nft_ifname(&r, NFT_META_OIFNAME, NFT_CMP_EQ, h->prefix, false);
	nft_ct_state(&r, CT_ESTABLISHED | CT_RELATED);
	nft_verdict(&r, NF_ACCEPT);
	nft_rule_end(&r);
	r = nft_rule_begin(b, h->table, "output");
	nft_ifname(&r, NFT_META_OIFNAME, NFT_CMP_EQ, h->prefix, false);
	end(&r, REJECT);
}

void net_rules_host(struct nl_buf *b, const struct net_rules_host *h, bool commit)
{
	nft_batch_begin(b);
	nft_table_remove(b, h->table);
	nft_table(b, h->table);
	sets(b, h->table, h->allowed, h->n_allowed);
	nft_set_counted(b, h->table, "connections", SET_CONNECTIONS, CONNECTIONS_SET_SIZE);
	host_raw(b, h);
	host_nat(b, h);
	host_forward(b, h);
	host_local(b, h);
	if (commit)
		nft_batch_end(b);
}

void net_rules_host_remove(struct nl_buf *b, const char *table)
{
	nft_batch_begin(b);
	nft_table_remove(b, table);
	nft_batch_end(b);
}

/* ---- the sandbox's table ---- */

static void accept_loopback(struct nl_buf *b, const char *chain, uint32_t key)
{
	struct nft_rule r = nft_rule_begin(b, NET_SANDBOX_TABLE, chain);
	nft_ifname(&r, key, NFT_CMP_EQ, "lo", true);
	nft_verdict(&r, NF_ACCEPT);
	nft_rule_end(&r);
}

static void sandbox_output(struct nl_buf *b, const struct net_rules_sandbox *s)
{
	static const char table[] = NET_SANDBOX_TABLE, chain[] = "output";
	static const uint32_t local = RTN_LOCAL;
	const enum ending refused = s->vm ? RESET : REJECT;
	nft_chain(b, table, chain, "filter", NF_INET_LOCAL_OUT, NF_IP_PRI_FILTER);
	accept_loopback(b, chain, NFT_META_OIFNAME);
	not_ipv4(b, table, chain);
	/* Nobody inside can give the interface another address. */
	struct nft_rule r = nft_rule_begin(b, table, chain);
	nft_address_type(&r, NFT_SOURCE, NFT_CMP_NEQ, local);
	end(&r, DROP);
	for (uint32_t i = 0; i < NET_RESOLVERS_MAX; i++)
		accept_dns(b, table, chain, NET_RESOLVER_FIRST + i);
	r = nft_rule_begin(b, table, chain);
	nft_network(
	    &r, NFT_DESTINATION, NFT_CMP_EQ, s->pool.first, ~(s->pool.first ^ s->pool.last));
	end(&r, refused);
	for (size_t i = 0; i < s->n_local; i++) {
		r = nft_rule_begin(b, table, chain);
		nft_address(&r, NFT_DESTINATION, NFT_CMP_EQ, s->local[i]);
		end(&r, refused);
	}
	accept_allowed(b, table, chain, s->n_allowed);
	refuse(b, table, chain, refused);
}

static void sandbox_input(struct nl_buf *b)
{
	static const char table[] = NET_SANDBOX_TABLE, chain[] = "input";
	nft_chain(b, table, chain, "filter", NF_INET_LOCAL_IN, NF_IP_PRI_FILTER);
	accept_loopback(b, chain, NFT_META_IIFNAME);
	not_ipv4(b, table, chain);
	struct nft_rule r = nft_rule_begin(b, table, chain);
	nft_l4proto(&r, IPPROTO_TCP);
	nft_tcp_flags(&r, TCP_SYN | TCP_ACK, TCP_SYN);
	end(&r, DROP);
}

void net_rules_sandbox(struct nl_buf *b, const struct net_rules_sandbox *s)
{
	nft_batch_begin(b);
	nft_table(b, NET_SANDBOX_TABLE);
	sets(b, NET_SANDBOX_TABLE, s->allowed, s->n_allowed);
	sandbox_output(b, s);
	sandbox_input(b);
	nft_batch_end(b);
}
