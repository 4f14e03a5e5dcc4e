/* SPDX-License-Identifier: Apache-2.0 */
/*
 * net_child.c - internet access of sandboxes: in the sandbox's network namespace
 */
#include "spawn/net_child.h"

#include <errno.h>
#include <linux/if.h>
#include <linux/if_addr.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <sys/socket.h>
#include <time.h>

#include "base/fd.h"
#include "base/num.h"
#include "base/banned.h"

/* <net/if.h> and <linux/if.h> define the same names. */
extern unsigned int if_nametoindex(const char *name);

#define WAIT_MS      5000
#define WAIT_STEP_MS 2

int net_child_rules(const struct net_rules_sandbox *rules)
{
	_Alignas(struct nlmsghdr) uint8_t storage[NET_RULES_BYTES];
	struct nl_buf b = NL_BUF_INIT(storage);
	AV_CLEANUP(av_closep) int fd = nl_open(NETLINK_NETFILTER);
	if (fd < 0)
		return fd;
	net_rules_sandbox(&b, rules);
	return nl_send(fd, &b, NULL);
}

/* Without an address of IPv6, which could be made from the interface's alone. A kernel without IPv6
 * refuses this, and that is as well. */
static void no_ipv6(int fd, int ifindex)
{
	_Alignas(struct nlmsghdr) uint8_t storage[128];
	struct nl_buf b = NL_BUF_INIT(storage);
	const struct ifinfomsg m = {.ifi_family = AF_UNSPEC, .ifi_index = ifindex};
	nl_begin(&b, RTM_SETLINK, NLM_F_ACK);
	nl_put(&b, &m, sizeof(m));
	size_t spec = nl_nest(&b, IFLA_AF_SPEC);
	size_t inet6 = nl_nest(&b, AF_INET6);
	nl_u8(&b, IFLA_INET6_ADDR_GEN_MODE, IN6_ADDR_GEN_MODE_NONE);
	nl_nest_end(&b, inet6);
	nl_nest_end(&b, spec);
	nl_end(&b);
	int r = nl_send(fd, &b, NULL);
	(void)r;
}

static void add_address(struct nl_buf *b, uint32_t ifindex, uint32_t address)
{
	const struct ifaddrmsg m = {.ifa_family = AF_INET,
	    .ifa_prefixlen = 32,
	    .ifa_scope = RT_SCOPE_UNIVERSE,
	    .ifa_index = ifindex};
	nl_begin(b, RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL | NLM_F_ACK);
	nl_put(b, &m, sizeof(m));
	nl_be32(b, IFA_LOCAL, address);
	nl_be32(b, IFA_ADDRESS, address);
	nl_end(b);
}

static void bring_up(struct nl_buf *b, int ifindex)
{
	const struct ifinfomsg m = {.ifi_family = AF_UNSPEC,
	    .ifi_index = ifindex,
	    .ifi_flags = IFF_UP,
	    .ifi_change = IFF_UP};
	nl_begin(b, RTM_SETLINK, NLM_F_ACK);
	nl_put(b, &m, sizeof(m));
	nl_end(b);
}

/* The gateway has no route of its own: it is there because we say so (onlink). */
static void default_route(struct nl_buf *b, uint32_t ifindex)
{
	const struct rtmsg m = {.rtm_family = AF_INET,
	    .rtm_table = RT_TABLE_MAIN,
	    .rtm_protocol = RTPROT_STATIC,
	    .rtm_scope = RT_SCOPE_UNIVERSE,
	    .rtm_type = RTN_UNICAST,
	    .rtm_flags = RTNH_F_ONLINK};
	nl_begin(b, RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL | NLM_F_ACK);
	nl_put(b, &m, sizeof(m));
	nl_be32(b, RTA_GATEWAY, NET_GATEWAY);
	nl_u32(b, RTA_OIF, ifindex);
	nl_end(b);
}

static unsigned int wait_for_interface(void)
{
	static const struct timespec pause = {.tv_nsec = WAIT_STEP_MS * 1000000};
	unsigned int ifindex = if_nametoindex(NET_IFNAME);
	for (int ms = 0; ifindex == 0 && ms < WAIT_MS; ms += WAIT_STEP_MS) {
		nanosleep(&pause, NULL);
		ifindex = if_nametoindex(NET_IFNAME);
	}
	return ifindex;
}

int net_child_up(uint32_t address)
{
	_Alignas(struct nlmsghdr) uint8_t storage[256];
	struct nl_buf b = NL_BUF_INIT(storage);
	AV_CLEANUP(av_closep) int fd = nl_open(NETLINK_ROUTE);
	if (fd < 0)
		return fd;
	unsigned int ifindex = wait_for_interface();
	if (ifindex == 0)
		return -ENODEV;
	no_ipv6(fd, (int)ifindex);
	add_address(&b, ifindex, address);
	bring_up(&b, (int)ifindex);
	default_route(&b, ifindex);
	return nl_send(fd, &b, NULL);
}
