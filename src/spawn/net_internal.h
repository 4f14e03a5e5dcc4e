/* SPDX-License-Identifier: Apache-2.0 */
/*
 * net_internal.h - shared by net.c, net_host.c, net_veth.c and net_conntrack.c
 */
#pragma once

#include "spawn/net.h"

/* What the host's routes say. */
struct net_scan {
	struct nft_range pools[8]; /* in: candidates */
	size_t n_pools;
	bool taken[8];                     /* out: the host routes something there */
	char uplinks[NET_GUARDED_MAX][16]; /* out: where traffic of sandboxes goes and comes from */
	size_t n_uplinks;
	uint32_t mtu;                        /* out: the smallest of theirs */
	uint32_t gateways[NET_GATEWAYS_MAX]; /* out: of any route */
	size_t n_gateways;
	uint32_t local[NET_LOCAL_MAX]; /* out: the host's own and gateways, where `denied` has them
	                                  not */
	size_t n_local;
};

/* net_host.c */
/* Interfaces of sandboxes (rules->prefix) do not count. */
int net_scan_routes(const struct net_rules_host *rules, struct net_scan *s) AV_MUST_CHECK;
/* The host's resolvers that a sandbox can be sent to; n 0 when there is none. */
void net_read_resolvers(int root_fd, uint32_t resolvers[NET_RESOLVERS_MAX], size_t *ret_n);
/* Whether packets that come in there are passed on. */
bool net_forwards(int proc_fd, const char *ifname);
int net_set_forwarding(int proc_fd, const char *ifname, bool on) AV_MUST_CHECK;
/* <run>/forwarding: interfaces on which this instance switched it on since the machine started.
 * Reading one that is not there, or is of an earlier start, gives none. */
#define NET_FORWARDING_FILE "forwarding"
void net_load_guarded(int proc_fd, int run_fd, struct net_rules_host *rules);
int net_save_guarded(int proc_fd, int run_fd, const struct net_rules_host *rules) AV_MUST_CHECK;
