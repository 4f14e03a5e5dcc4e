/* SPDX-License-Identifier: Apache-2.0 */
/*
 * net_veth.c - connecting one sandbox: a veth pair, and the host's route to it
 */
#include "spawn/net_internal.h"

#include <errno.h>
#include <linux/if.h>
#include <linux/if_link.h>
#include <linux/ip.h>
#include <linux/rtnetlink.h>
#include <linux/veth.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "base/failpoint.h"
#include "base/num.h"
#include "base/banned.h"

/* <net/if.h> and <linux/if.h> define the same names. */
extern unsigned int if_nametoindex(const char *name);

/* Of both ends of every pair; see the theory of operation in net.h. Locally administered. */
static const uint8_t mac[6] = {0x02, 0x61, 0x76, 0x69, 0x61, 0x72};

#define NAMES         0x10000u
#define TRIES_MAX     8192
#define ADDRESS_FIRST 16 /* the first of the pool that a sandbox gets */

static void link_header(struct nl_buf *b, uint32_t flags, uint32_t change)
{
	const struct ifinfomsg m = {
	    .ifi_family = AF_UNSPEC, .ifi_flags = flags, .ifi_change = change};
	nl_put(b, &m, sizeof(m));
}

static void link_attributes(const struct net *n, struct nl_buf *b, const char *ifname)
{
	nl_string(b, IFLA_IFNAME, ifname);
	nl_attr(b, IFLA_ADDRESS, mac, sizeof(mac));
	nl_u32(b, IFLA_MTU, n->mtu);
	/* Else there is one per CPU, each with memory. */
	nl_u32(b, IFLA_NUM_TX_QUEUES, 1);
	nl_u32(b, IFLA_NUM_RX_QUEUES, 1);
}

static int make_pair(struct net *n, const char *ifname, pid_t pid, struct av_err *err)
{
	_Alignas(struct nlmsghdr) uint8_t storage[512];
	struct nl_buf b = NL_BUF_INIT(storage);
	nl_begin(&b, RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL | NLM_F_ACK);
	link_header(&b, IFF_NOARP, IFF_NOARP);
	link_attributes(n, &b, ifname);
	size_t info = nl_nest(&b, IFLA_LINKINFO);
	nl_string(&b, IFLA_INFO_KIND, "veth");
	size_t data = nl_nest(&b, IFLA_INFO_DATA);
	size_t peer = nl_nest(&b, VETH_INFO_PEER);
	link_header(&b, IFF_NOARP, IFF_NOARP);
	link_attributes(n, &b, NET_IFNAME);
	nl_u32(&b, IFLA_NET_NS_PID, (uint32_t)pid);
	nl_nest_end(&b, peer);
	nl_nest_end(&b, data);
	nl_nest_end(&b, info);
	nl_end(&b);
	return nl_send(n->route_fd, &b, err);
}

/* The host's end: forwards, has no address of any kind, is up. */
static int set_up(struct net *n, const char *ifname, struct av_err *err)
{
	_Alignas(struct nlmsghdr) uint8_t storage[256];
	struct nl_buf b = NL_BUF_INIT(storage);
	nl_begin(&b, RTM_SETLINK, NLM_F_ACK);
	link_header(&b, 0, 0);
	nl_string(&b, IFLA_IFNAME, ifname);
	size_t spec = nl_nest(&b, IFLA_AF_SPEC);
	size_t inet = nl_nest(&b, AF_INET);
	size_t conf = nl_nest(&b, IFLA_INET_CONF);
	nl_u32(&b, IPV4_DEVCONF_FORWARDING, 1);
	nl_nest_end(&b, conf);
	nl_nest_end(&b, inet);
	if (n->ipv6) {
		size_t inet6 = nl_nest(&b, AF_INET6);
		nl_u8(&b, IFLA_INET6_ADDR_GEN_MODE, IN6_ADDR_GEN_MODE_NONE);
		nl_nest_end(&b, inet6);
	}
	nl_nest_end(&b, spec);
	nl_end(&b);

	nl_begin(&b, RTM_SETLINK, NLM_F_ACK);
	link_header(&b, IFF_UP, IFF_UP);
	nl_string(&b, IFLA_IFNAME, ifname);
	nl_end(&b);
	return nl_send(n->route_fd, &b, err);
}

static int add_route(struct net *n, unsigned int ifindex, uint32_t address, struct av_err *err)
{
	_Alignas(struct nlmsghdr) uint8_t storage[128];
	struct nl_buf b = NL_BUF_INIT(storage);
	const struct rtmsg m = {.rtm_family = AF_INET,
	    .rtm_dst_len = 32,
	    .rtm_table = RT_TABLE_MAIN,
	    .rtm_protocol = RTPROT_STATIC,
	    .rtm_scope = RT_SCOPE_LINK,
	    .rtm_type = RTN_UNICAST};
	nl_begin(&b, RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL | NLM_F_ACK);
	nl_put(&b, &m, sizeof(m));
	nl_be32(&b, RTA_DST, address);
	nl_u32(&b, RTA_OIF, ifindex);
	nl_end(&b);
	return nl_send(n->route_fd, &b, err);
}

static int take_name(struct net *n, pid_t pid, char ifname[static 16], struct av_err *err)
{
	for (int i = 0; i < TRIES_MAX; i++) {
		snprintf(ifname, 16, "%s%04x", n->rules.prefix, n->next_name++ % NAMES);
		int r = make_pair(n, ifname, pid, err);
		if (r != -EEXIST)
			return r;
	}
	return -EEXIST;
}

static int take_address(
    struct net *n, unsigned int ifindex, uint32_t *ret_address, struct av_err *err)
{
	/* Without the network's own and the broadcast address. */
	uint32_t count = n->pool.last - n->pool.first - ADDRESS_FIRST;
	for (int i = 0; i < TRIES_MAX; i++) {
		uint32_t a = n->pool.first + ADDRESS_FIRST + n->next_address++ % count;
		int r = add_route(n, ifindex, a, err);
		if (r == 0)
			*ret_address = a;
		if (r != -EEXIST)
			return r;
	}
	return -EEXIST;
}

int net_connect(struct net *n, pid_t pid, struct net_link *ret, struct av_err *err)
{
	struct net_link l;
	struct av_err why = {0};
	int r = take_name(n, pid, l.ifname, &why);
	if (r < 0)
		return av_err_set(
		    err, AV_ERR_INTERNAL, "cannot make the network interface: %s", why.message);
	if (av_failpoint("create.veth"))
		return av_err_set(err, AV_ERR_INTERNAL, "failpoint create.veth");
	r = set_up(n, l.ifname, &why);
	unsigned int ifindex = r < 0 ? 0 : if_nametoindex(l.ifname);
	if (r < 0 || ifindex == 0)
		return av_err_set(err, AV_ERR_INTERNAL, "cannot set up the network interface: %s",
		    r < 0 ? why.message : strerror(errno));
	r = take_address(n, ifindex, &l.address, &why);
	if (r == -EEXIST)
		return av_err_set(err, AV_ERR_QUOTA,
		    "all addresses of sandboxes are in use; start aviaryd with a wider net-pool, "
		    "or "
		    "delete sandboxes");
	if (r < 0)
		return av_err_set(
		    err, AV_ERR_INTERNAL, "cannot make the route to the sandbox: %s", why.message);
	*ret = l;
	return 0;
}
