/* SPDX-License-Identifier: Apache-2.0 */
/*
 * net.h - internet access of sandboxes: what the worker does in the host's namespace
 *
 * Theory of operation, as root (else see net_pasta.h). A sandbox with internet access has one
 * interface, an end of a veth pair whose other end is in the host's network namespace. Both ends
 * have the same hardware address and do no ARP: every frame is for the other side, there is nothing
 * to spoof and no neighbour to look for. The host has a route to the sandbox's one address through
 * its end; the routing table is also the allocation of addresses, as a second route to the same
 * address is refused by the kernel (between instances too), and the name of the host's end is the
 * allocation of names. So nothing is to be recovered after a crash, and when the last process of a
 * sandbox dies, its namespace takes the pair, the route and its rules with it: no interface is ever
 * deleted, which would take 27 ms under a lock of the whole kernel.
 *
 * What is left in the host's namespace between sandboxes: one table of nftables (net_rules.h), made
 * by the first create that asks for internet access, and, where forwarding was off, a 1 in
 * conf/<uplink>/forwarding, remembered in <run>/forwarding and guarded by rules so that the machine
 * forwards for nobody else. net_cleanup() takes both away.
 *
 * Routes, resolvers and the uplink's MTU change while a machine runs: all are looked at again every
 * few seconds while there is a table, and the table is replaced when something is new. A name
 * query goes to an address of ours, which the table turns into the resolver of the moment, so that
 * sandboxes that run follow.
 *
 * Single-threaded. All netlink work is done when the call returns.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"
#include "base/macros.h"
#include "spawn/net_config.h"
#include "spawn/net_rules.h"

struct net {
	const struct net_config *config; /* borrowed */
	int root_fd, proc_fd, run_fd;    /* borrowed: the host's root, /proc, the run directory */
	int route_fd;                    /* owned: NETLINK_ROUTE */
	int rules_fd;                    /* owned: NETLINK_NETFILTER */
	bool installed;
	bool ipv6; /* the kernel has it: it is switched off on our interfaces */
	struct nft_range pool;
	struct net_rules_host rules;
	uint32_t mtu;
	uint32_t local[NET_LOCAL_MAX]; /* see net_rules_sandbox */
	size_t n_local;
	bool rootless; /* pasta connects (net_pasta.h), and nothing is made on the host */
	uint32_t next_name, next_address;
	int64_t checked_ns;
	char reason[200]; /* why there is no internet access, and the cure; "" when there is */
};
#define NET_INIT ((struct net){.route_fd = -1, .rules_fd = -1})

/* Looks whether internet access can be given; what is missing is in `reason`, and net_prepare()
 * fails with it. Changes nothing. tag: of the instance. */
void net_open(struct net *n, const struct net_config *config, const char *tag, int root_fd,
    int proc_fd, int run_fd);
/* The same for a worker of an ordinary user; missing: why there is no pasta, or "". */
void net_open_rootless(
    struct net *n, const struct net_config *config, const char *missing, int root_fd);
void net_close(struct net *n);
/* As net_cleanup(), at a stop without sandboxes; 0 when nothing was made. */
int net_leave(struct net *n) AV_MUST_CHECK;

/* Before a create: the host's table is there and current. UNSUPPORTED with reason and cure. */
int net_prepare(struct net *n, struct av_err *err) AV_MUST_CHECK;
/* From a timer: as net_prepare() when there is a table, and quiet about failures. */
void net_refresh(struct net *n);
/* The sandbox's rules, for net_child.h. vm: of a virtual machine. */
void net_sandbox_rules(const struct net *n, bool vm, struct net_rules_sandbox *ret);
/* What its /etc/resolv.conf says. */
#define NET_RESOLV_SIZE 256
void net_resolv_conf(const struct net *n, char text[static NET_RESOLV_SIZE]);

struct net_link {
	char ifname[16];  /* on the host */
	uint32_t address; /* of the sandbox, host order */
};
/* Connects the network namespace of process pid (a child that waits in its own): its end is there,
 * down and without address, when this returns. Failures leave nothing that outlives the namespace.
 */
int net_connect(struct net *n, pid_t pid, struct net_link *ret, struct av_err *err) AV_MUST_CHECK;

/* Ends the connections that the host still tracks for addresses whose sandboxes are dead, so that
 * none of their packets reaches the next one with it, and they take no room. The kernel goes
 * through its whole table for that, some 10 ms: for the sweeper, and for many addresses at once.
 * Opens its own sockets. */
void net_forget(const uint32_t *addresses, size_t n);

/* Removes what the instance left in the host's namespace, when its sandboxes are dead. Nothing
 * there is fine. */
int net_cleanup(const char *tag, int run_fd, struct av_err *err) AV_MUST_CHECK;
