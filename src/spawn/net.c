/* SPDX-License-Identifier: Apache-2.0 */
/*
 * net.c - internet access of sandboxes: the host's table, kept current
 */
#include "spawn/net.h"

#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/avtime.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/num.h"
#include "base/path.h"
#include "spawn/net_internal.h"
#include "base/banned.h"

#define REFRESH_NS (2 * AV_NS_PER_S)
/* Of the machine's table of tracked connections, one sandbox may have this part. */
#define CONNECTIONS_PART 16
#define CONNECTIONS_MAX  8192u
#define CONNECTIONS_MIN  256u

/* In the order of preference: seldom used by others. */
static const struct nft_range pool_candidates[] = {
    {0x0ad50000u, 0x0ad5ffffu}, /* 10.213.0.0/16 */
    {0xac1d0000u, 0xac1dffffu}, /* 172.29.0.0/16 */
    {0xc6130000u, 0xc613ffffu}, /* 198.19.0.0/16 */
    {0x64710000u, 0x6471ffffu}, /* 100.113.0.0/16 */
    {0x0a570000u, 0x0a57ffffu}, /* 10.87.0.0/16 */
    {0xc0a8c000u, 0xc0a8cfffu}, /* 192.168.192.0/20 */
};

/* ---- what there is ---- */

static int choose_pool(struct net *n, struct net_scan *s, struct av_err *err)
{
	for (size_t i = 0; i < s->n_pools; i++)
		if (!s->taken[i]) {
			n->pool = s->pools[i];
			return 0;
		}
	return av_err_set(err, AV_ERR_UNSUPPORTED,
	    n->config->pool.first
	        ? "this machine has routes into net-pool: choose a private range that it does not "
	          "use (see ip route)"
	        : "this machine has routes into all ranges that sandboxes could use: name a free "
	          "one with net-pool");
}

static uint32_t connections_max(const struct net *n)
{
	char text[24];
	uint64_t all;
	ssize_t got =
	    av_read_file_at(n->proc_fd, "sys/net/netfilter/nf_conntrack_max", text, sizeof(text));
	if (got > 0 && text[got - 1] == '\n')
		got--;
	if (got <= 0 || av_parse_u64(av_str_n(text, (size_t)got), 1, UINT32_MAX, &all) < 0)
		return CONNECTIONS_MAX / 2;
	uint32_t part = AV_MAX((uint32_t)all / CONNECTIONS_PART, CONNECTIONS_MIN);
	return AV_MIN(part, CONNECTIONS_MAX);
}

static bool guarded(const struct net_rules_host *h, const char *ifname)
{
	for (size_t i = 0; i < h->n_guarded; i++)
		if (strcmp(h->guarded[i], ifname) == 0)
			return true;
	return false;
}

/* The guard is in the table before forwarding is on: the caller installs `rules` in between. */
static int need_forwarding(
    struct net *n, const struct net_scan *s, struct net_rules_host *rules, struct av_err *err)
{
	for (size_t i = 0; i < s->n_uplinks; i++) {
		const char *name = s->uplinks[i];
		if (net_forwards(n->proc_fd, name) || guarded(rules, name))
			continue;
		if (rules->n_guarded == NET_GUARDED_MAX)
			return av_err_set(err, AV_ERR_UNSUPPORTED,
			    "forwarding is off on %s; type: sysctl -w net.ipv4.ip_forward=1", name);
		memcpy(rules->guarded[rules->n_guarded++], name, sizeof(s->uplinks[0]));
	}
	return 0;
}

static int switch_forwarding(struct net *n, struct av_err *err)
{
	for (size_t i = 0; i < n->rules.n_guarded; i++) {
		const char *name = n->rules.guarded[i];
		if (net_forwards(n->proc_fd, name))
			continue;
		int r = net_set_forwarding(n->proc_fd, name, true);
		/* The interface may be gone. */
		if (r < 0 && r != -ENOENT)
			return av_err_sys(err, AV_ERR_UNSUPPORTED, r,
			    "cannot switch forwarding on for %s; type: sysctl -w "
			    "net.ipv4.ip_forward=1",
			    name);
		if (r == 0)
			av_log(AV_LOG_INFO, "forwarding switched on, for sandboxes only",
			    "interface", name, NULL);
	}
	return 0;
}

static int install(
    struct net *n, const struct net_rules_host *rules, bool commit, struct av_err *err)
{
	_Alignas(struct nlmsghdr) uint8_t storage[NET_RULES_BYTES];
	struct nl_buf b = NL_BUF_INIT(storage);
	struct av_err why = {0};
	net_rules_host(&b, rules, commit);
	int r = commit ? nl_send(n->rules_fd, &b, &why) : nl_try(n->rules_fd, &b, &why);
	return r < 0
	           ? av_err_set(err, AV_ERR_UNSUPPORTED,
	                 "the kernel refuses the rules that keep sandboxes apart (%s); try: "
	                 "modprobe -a nf_tables nft_fib_inet nft_ct nft_connlimit nft_masq nft_nat "
	                 "nft_reject_inet",
	                 why.message)
	           : 0;
}

/* What the table should say now, without what is about to be guarded. */
static void current_rules(const struct net *n, struct net_rules_host *rules)
{
	*rules = n->rules;
	if (n->config->n_resolvers) {
		memcpy(rules->resolvers, n->config->resolvers, sizeof(rules->resolvers));
		rules->n_resolvers = n->config->n_resolvers;
	} else {
		memset(rules->resolvers, 0, sizeof(rules->resolvers));
		net_read_resolvers(n->root_fd, rules->resolvers, &rules->n_resolvers);
	}
}

static int update(struct net *n, struct av_err *err)
{
	struct net_rules_host rules;
	struct net_scan s = {0};
	current_rules(n, &rules);
	if (n->config->pool.first) {
		s.pools[s.n_pools++] = n->config->pool;
	} else {
		memcpy(s.pools, pool_candidates, sizeof(pool_candidates));
		s.n_pools = AV_ARRAY_LEN(pool_candidates);
	}
	int r = net_scan_routes(&rules, &s);
	if (r < 0)
		return av_err_sys(err, AV_ERR_INTERNAL, r, "cannot read the host's routes");
	if (s.n_uplinks == 0)
		return av_err_set(err, AV_ERR_UNSUPPORTED,
		    "this machine itself has no route to the internet (see ip route)");
	n->mtu = s.mtu;
	n->n_local = s.n_local;
	memcpy(n->local, s.local, sizeof(n->local));
	r = choose_pool(n, &s, err);
	if (n->rootless)
		n->rules = rules;
	if (r < 0 || n->rootless)
		return r;
	if (r == 0)
		r = need_forwarding(n, &s, &rules, err);
	if (r < 0)
		return r;
	rules.connections_max = connections_max(n);
	memcpy(rules.gateways, s.gateways, sizeof(rules.gateways));
	rules.n_gateways = s.n_gateways;
	if (!n->installed ||
	    memcmp((const void *)&rules, (const void *)&n->rules, sizeof(rules)) != 0) {
		if (rules.n_guarded && (r = net_save_guarded(n->proc_fd, n->run_fd, &rules)) < 0)
			return av_err_sys(err, AV_ERR_INTERNAL, r, "cannot write <run>/forwarding");
		r = install(n, &rules, true, err);
		if (r < 0)
			return r;
		n->rules = rules;
		n->installed = true;
	}
	return switch_forwarding(n, err);
}

static bool table_exists(const struct net *n)
{
	_Alignas(struct nlmsghdr) uint8_t storage[128];
	struct nl_buf b = NL_BUF_INIT(storage);
	nft_table_ask(&b, n->rules.table);
	return nl_try(n->rules_fd, &b, NULL) == 0;
}

/* ---- public ---- */

static const char switched_off[] = "the operator switched it off (internet = no); change it in "
                                   "aviary.conf and start aviaryd again";

static void unavailable(struct net *n, const char *text)
{
	snprintf(n->reason, sizeof(n->reason), "%.*s", (int)sizeof(n->reason) - 1, text);
}

void net_open(struct net *n, const struct net_config *config, const char *tag, int root_fd,
    int proc_fd, int run_fd)
{
	struct av_err err = {0};
	*n = (struct net){.config = config,
	    .root_fd = root_fd,
	    .proc_fd = proc_fd,
	    .run_fd = run_fd,
	    .route_fd = -1,
	    .rules_fd = -1,
	    .ipv6 = faccessat(proc_fd, "sys/net/ipv6/conf", F_OK, 0) == 0};
	/* Not where the last worker began, whose sandboxes live. */
	n->next_name = n->next_address = (uint32_t)(av_mono_ns() / AV_NS_PER_MS);
	net_rules_names(&n->rules, tag);
	memcpy(n->rules.allowed, config->allowed, sizeof(n->rules.allowed));
	n->rules.n_allowed = config->n_allowed;
	n->rules.connections_max = connections_max(n);
	if (config->off) {
		unavailable(n, switched_off);
		return;
	}
	n->route_fd = nl_open(NETLINK_ROUTE);
	n->rules_fd = n->route_fd < 0 ? -1 : nl_open(NETLINK_NETFILTER);
	if (n->rules_fd < 0) {
		unavailable(n, "this kernel has no nftables; type: modprobe nf_tables");
		return;
	}
	net_load_guarded(proc_fd, run_fd, &n->rules);
	if (install(n, &n->rules, false, &err) < 0) {
		unavailable(n, err.message);
		return;
	}
	/* Sandboxes of an earlier worker may live: the table is ours to keep current. */
	if (table_exists(n) && update(n, &err) < 0)
		av_log(AV_LOG_WARN, "internet access", "error", err.message, NULL);
}

void net_open_rootless(
    struct net *n, const struct net_config *config, const char *missing, int root_fd)
{
	*n = NET_INIT;
	n->config = config;
	n->root_fd = root_fd;
	n->rootless = true;
	memcpy(n->rules.allowed, config->allowed, sizeof(n->rules.allowed));
	n->rules.n_allowed = config->n_allowed;
	unavailable(n, config->off ? switched_off : missing);
}

void net_close(struct net *n)
{
	av_close_fd(&n->route_fd);
	av_close_fd(&n->rules_fd);
}

int net_prepare(struct net *n, struct av_err *err)
{
	if (n->reason[0])
		return av_err_set(
		    err, AV_ERR_UNSUPPORTED, "no internet access here: %s", n->reason);
	int64_t now = av_mono_ns();
	if ((n->installed || n->rootless) && n->checked_ns && now - n->checked_ns < REFRESH_NS)
		return 0;
	int r = update(n, err);
	if (r == 0)
		n->checked_ns = now;
	return r;
}

void net_refresh(struct net *n)
{
	struct av_err err = {0};
	if (n->installed && !n->reason[0] && update(n, &err) < 0)
		av_log(AV_LOG_DEBUG, "internet access", "error", err.message, NULL);
}

void net_sandbox_rules(const struct net *n, bool vm, struct net_rules_sandbox *ret)
{
	*ret =
	    (struct net_rules_sandbox){.pool = n->pool, .n_allowed = n->rules.n_allowed, .vm = vm};
	memcpy(ret->allowed, n->rules.allowed, sizeof(ret->allowed));
	memcpy(ret->local, n->local, sizeof(ret->local));
	ret->n_local = n->n_local;
}

void net_resolv_conf(const struct net *n, char text[static NET_RESOLV_SIZE])
{
	size_t at = 0;
	if (n->rules.n_resolvers == 0) {
		snprintf(text, NET_RESOLV_SIZE,
		    "# The host has no name server that sandboxes can reach; see resolver in "
		    "aviaryd(8).\n");
		return;
	}
	/* pasta knows the first only. */
	size_t count = n->rootless ? 1 : n->rules.n_resolvers;
	for (uint32_t i = 0; i < count; i++) {
		uint32_t a = NET_RESOLVER_FIRST + i;
		at += (size_t)snprintf(text + at, NET_RESOLV_SIZE - at, "nameserver %u.%u.%u.%u\n",
		    a >> 24, a >> 16 & 255, a >> 8 & 255, a & 255);
	}
}

/* ---- cleanup ---- */

static bool others_here(const struct net_rules_host *ours)
{
	bool found = false;
	struct if_nameindex *all = if_nameindex();
	for (const struct if_nameindex *i = all; i && i->if_name; i++)
		found |= strncmp(i->if_name, NET_ANY_SANDBOX, strlen(NET_ANY_SANDBOX)) == 0 &&
		         strncmp(i->if_name, ours->prefix, strlen(ours->prefix)) != 0;
	if (all)
		if_freenameindex(all);
	return found;
}

static int remove_table(const struct net_rules_host *rules)
{
	_Alignas(struct nlmsghdr) uint8_t storage[512];
	struct nl_buf b = NL_BUF_INIT(storage);
	AV_CLEANUP(av_closep) int fd = nl_open(NETLINK_NETFILTER);
	if (fd < 0) /* no nftables: nothing was made */
		return fd == -EPROTONOSUPPORT ? 0 : fd;
	net_rules_host_remove(&b, rules->table);
	return nl_send(fd, &b, NULL);
}

static int leave(int proc, int run_fd, struct net_rules_host *rules, struct av_err *err)
{
	/* Interfaces of ours are about to go with their namespaces; another instance's sandboxes
	 * may need what we switched on. */
	net_load_guarded(proc, run_fd, rules);
	for (size_t i = 0; i < rules->n_guarded && !others_here(rules); i++)
		if (net_set_forwarding(proc, rules->guarded[i], false) < 0)
			av_log(AV_LOG_WARN, "cannot switch forwarding off again", "interface",
			    rules->guarded[i], NULL);
	int r = remove_table(rules);
	if (r < 0)
		return av_err_sys(err, AV_ERR_INTERNAL, r, "cannot remove table %s", rules->table);
	if (run_fd >= 0 && unlinkat(run_fd, NET_FORWARDING_FILE, 0) < 0 && errno != ENOENT)
		return av_err_sys(err, AV_ERR_INTERNAL, errno, "cannot remove <run>/forwarding");
	return 0;
}

int net_leave(struct net *n)
{
	return n->installed ? leave(n->proc_fd, n->run_fd, &n->rules, NULL) : 0;
}

int net_cleanup(const char *tag, int run_fd, struct av_err *err)
{
	struct net_rules_host rules = {0};
	AV_CLEANUP(av_closep) int proc = open("/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	net_rules_names(&rules, tag);
	return leave(proc, run_fd, &rules, err);
}
