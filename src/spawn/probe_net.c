/* SPDX-License-Identifier: Apache-2.0 */
/*
 * probe_net.c - whether sandboxes can have internet access here, and what else filters their
 * packets
 */
#include "spawn/probe_internal.h"

#include <errno.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nfnetlink.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/num.h"
#include "spawn/net_rules.h"
#include "base/banned.h"

/* A chain of somebody else that drops what it does not know. */
struct foreign {
	char table[64], chain[64];
};

static int on_chain(void *ctx, const struct nlmsghdr *h)
{
	struct foreign *f = ctx;
	const size_t header = sizeof(struct nfgenmsg);
	const void *hook = nl_find(h, header, NFTA_CHAIN_HOOK, 4);
	const void *policy = nl_find(h, header, NFTA_CHAIN_POLICY, 4);
	const char *table = nl_find(h, header, NFTA_CHAIN_TABLE, 1);
	const char *chain = nl_find(h, header, NFTA_CHAIN_NAME, 1);
	const void *number = hook ? nl_find_inside(hook, NFTA_HOOK_HOOKNUM, 4) : NULL;
	if (!number || !policy || !table || !chain || av_get_be32(number) != NF_INET_FORWARD ||
	    av_get_be32(policy) != NF_DROP)
		return 0;
	(void)snprintf(f->table, sizeof(f->table), "%.60s", table);
	(void)snprintf(f->chain, sizeof(f->chain), "%.60s", chain);
	return 0;
}

static void find_foreign(int fd, struct foreign *f)
{
	_Alignas(struct nlmsghdr) uint8_t storage[64];
	struct nl_buf b = NL_BUF_INIT(storage);
	nft_chains_ask(&b);
	int r = nl_dump(fd, &b, on_chain, f);
	(void)r;
}

static int try_rules(int fd, struct av_err *err)
{
	_Alignas(struct nlmsghdr) uint8_t storage[NET_RULES_BYTES];
	struct nl_buf b = NL_BUF_INIT(storage);
	struct net_rules_host rules = {.connections_max = 1, .n_resolvers = 1};
	net_rules_names(&rules, "doctor");
	net_rules_host(&b, &rules, false);
	return nl_try(fd, &b, err);
}

static void as_root(struct probe *p)
{
	struct probe_fact *f = probe_add(p, "internet", "internet access", PROBE_OK);
	struct foreign foreign = {0};
	struct av_err err = {0};
	AV_CLEANUP(av_closep) int fd = nl_open(NETLINK_NETFILTER);
	PROBE_FOUND(f, "nftables, a veth pair per sandbox");
	if (fd < 0 || try_rules(fd, &err) < 0) {
		f->state = PROBE_MISSING;
		PROBE_FOUND(f, "no");
		PROBE_REASON(f, "the kernel refuses the rules that keep sandboxes apart (%.80s)",
		    fd < 0 ? strerror(-fd) : err.message);
		PROBE_CURE(f,
		    "sudo modprobe -a nf_tables nft_fib_inet nft_ct nft_connlimit nft_masq "
		    "nft_nat nft_reject_inet veth");
		return;
	}
	find_foreign(fd, &foreign);
	if (foreign.table[0]) {
		f->state = PROBE_WEAK;
		PROBE_REASON(f,
		    "chain %s of table %s drops what it does not know, perhaps the packets "
		    "of sandboxes too",
		    foreign.chain, foreign.table);
		PROBE_CURE(f,
		    "sudo iptables -I FORWARD -i avy+ -j ACCEPT; sudo iptables -I FORWARD -o "
		    "avy+ -j ACCEPT (Docker: DOCKER-USER; ufw: ufw route allow in on avy+)");
	}
}

static void as_user(struct probe *p)
{
	bool pasta = access("/usr/bin/pasta", X_OK) == 0;
	struct probe_fact *f =
	    probe_add(p, "internet", "internet access", pasta && p->tun ? PROBE_OK : PROBE_MISSING);
	PROBE_FOUND(f, pasta ? "pasta" : "no pasta");
	if (!pasta) {
		PROBE_REASON(f, "without root, sandboxes get internet access by pasta only");
		PROBE_CURE(f, "sudo apt-get install passt");
	} else if (!p->tun) {
		PROBE_REASON(f, "pasta needs the TUN device");
		PROBE_CURE(f, "see there");
	}
}

void probe_net(struct probe *p)
{
	if (p->root)
		as_root(p);
	else
		as_user(p);
}
