/* SPDX-License-Identifier: Apache-2.0 */
/*
 * net_host.c - what the host's network looks like: routes, resolvers, forwarding
 */
#include "spawn/net_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/num.h"
#include "base/path.h"
#include "base/str.h"
#include "base/banned.h"

#define MTU_MAX 65520
#define MTU_MIN 576

/* ---- routes ---- */

struct scan {
	const struct net_rules_host *rules;
	struct net_scan *out;
	int ioctl_fd;
};

static bool inside(const struct nft_range *r, const struct nft_range *around)
{
	return r->first >= around->first && r->last <= around->last;
}

/* Does a sandbox reach something there? */
static bool serves_sandboxes(const struct net_rules_host *h, const struct nft_range *r)
{
	for (size_t i = 0; i < h->n_allowed; i++)
		if (net_overlap(r, &h->allowed[i]))
			return true;
	for (size_t i = 0; i < h->n_resolvers; i++)
		if (h->resolvers[i] >= r->first && h->resolvers[i] <= r->last)
			return true;
	for (size_t i = 0; i < net_denied_count; i++)
		if (inside(r, &net_denied[i]))
			return false;
	return true;
}

static void add_uplink(struct scan *s, const char *name)
{
	struct net_scan *o = s->out;
	struct ifreq ifr = {0};
	for (size_t i = 0; i < o->n_uplinks; i++)
		if (strcmp(o->uplinks[i], name) == 0)
			return;
	if (o->n_uplinks == NET_GUARDED_MAX)
		return;
	snprintf(o->uplinks[o->n_uplinks++], sizeof(o->uplinks[0]), "%s", name);
	snprintf(ifr.ifr_name, sizeof(ifr.ifr_name), "%s", name);
	if (ioctl(s->ioctl_fd, SIOCGIFMTU, &ifr) == 0 && ifr.ifr_mtu >= MTU_MIN)
		o->mtu = AV_MIN(o->mtu, (uint32_t)ifr.ifr_mtu);
}

static void add_gateway(struct net_scan *o, uint32_t address)
{
	for (size_t i = 0; i < o->n_gateways; i++)
		if (o->gateways[i] == address)
			return;
	if (o->n_gateways < NET_GATEWAYS_MAX)
		o->gateways[o->n_gateways++] = address;
}

static int on_route(void *ctx, const struct nlmsghdr *h)
{
	struct scan *s = ctx;
	struct rtmsg m;
	char name[IF_NAMESIZE];
	uint32_t oif = 0;
	if (h->nlmsg_type != RTM_NEWROUTE || h->nlmsg_len < NLMSG_LENGTH(sizeof(m)))
		return 0;
	memcpy(&m, nl_payload(h), sizeof(m));
	if (m.rtm_family != AF_INET || m.rtm_type != RTN_UNICAST || m.rtm_dst_len > 32)
		return 0;
	const void *dst = nl_find(h, sizeof(m), RTA_DST, sizeof(uint32_t));
	const void *gateway = nl_find(h, sizeof(m), RTA_GATEWAY, sizeof(uint32_t));
	const void *dev = nl_find(h, sizeof(m), RTA_OIF, sizeof(oif));
	if (dev)
		memcpy(&oif, dev, sizeof(oif));
	struct nft_range r = {.first = dst ? av_get_be32(dst) : 0};
	r.last = r.first | (uint32_t)(0xffffffffull >> m.rtm_dst_len);
	/* An interface that went meanwhile has no route any more either. */
	if (!dev || !if_indextoname(oif, name) ||
	    strncmp(name, NET_ANY_SANDBOX, strlen(NET_ANY_SANDBOX)) == 0)
		return 0;
	for (size_t i = 0; i < s->out->n_pools; i++)
		if (m.rtm_dst_len > 1 && net_overlap(&r, &s->out->pools[i]))
			s->out->taken[i] = true;
	if (gateway)
		add_gateway(s->out, av_get_be32(gateway));
	if (serves_sandboxes(s->rules, &r))
		add_uplink(s, name);
	return 0;
}

static void add_local(struct scan *s, uint32_t address)
{
	const struct nft_range one = {address, address};
	struct net_scan *o = s->out;
	for (size_t i = 0; i < o->n_local; i++)
		if (o->local[i] == address)
			return;
	bool allowed = false;
	for (size_t i = 0; i < s->rules->n_allowed; i++)
		allowed |= net_overlap(&one, &s->rules->allowed[i]);
	for (size_t i = 0; i < net_denied_count && !allowed; i++)
		if (inside(&one, &net_denied[i]))
			return;
	if (o->n_local < NET_LOCAL_MAX)
		o->local[o->n_local++] = address;
}

static int on_address(void *ctx, const struct nlmsghdr *h)
{
	const void *local = h->nlmsg_type == RTM_NEWADDR
	                        ? nl_find(h, sizeof(struct ifaddrmsg), IFA_LOCAL, sizeof(uint32_t))
	                        : NULL;
	if (local)
		add_local(ctx, av_get_be32(local));
	return 0;
}

static int scan_addresses(int fd, struct scan *ctx)
{
	_Alignas(struct nlmsghdr) uint8_t storage[64];
	struct nl_buf b = NL_BUF_INIT(storage);
	const struct ifaddrmsg all = {.ifa_family = AF_INET};
	nl_begin(&b, RTM_GETADDR, NLM_F_DUMP);
	nl_put(&b, &all, sizeof(all));
	nl_end(&b);
	return nl_dump(fd, &b, on_address, ctx);
}

int net_scan_routes(const struct net_rules_host *rules, struct net_scan *s)
{
	_Alignas(struct nlmsghdr) uint8_t storage[64];
	struct nl_buf b = NL_BUF_INIT(storage);
	const struct rtmsg all = {.rtm_family = AF_INET};
	AV_CLEANUP(av_closep) int fd = nl_open(NETLINK_ROUTE);
	AV_CLEANUP(av_closep) int ioctl_fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || ioctl_fd < 0)
		return fd < 0 ? fd : -errno;
	struct scan ctx = {.rules = rules, .out = s, .ioctl_fd = ioctl_fd};
	s->n_uplinks = s->n_gateways = s->n_local = 0;
	s->mtu = MTU_MAX;
	memset(s->taken, 0, sizeof(s->taken));
	nl_begin(&b, RTM_GETROUTE, NLM_F_DUMP);
	nl_put(&b, &all, sizeof(all));
	nl_end(&b);
	int r = nl_dump(fd, &b, on_route, &ctx);
	for (size_t i = 0; i < s->n_gateways; i++)
		add_local(&ctx, s->gateways[i]);
	return r < 0 ? r : scan_addresses(fd, &ctx);
}

/* ---- resolvers ---- */

/* Its links lead from the host's root, not from the worker's. */
static ssize_t read_host_file(int root_fd, const char *path, char *buf, size_t size)
{
	struct open_how how = {.flags = O_RDONLY | O_CLOEXEC | O_NONBLOCK,
	    .resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS};
	AV_CLEANUP(av_closep) int fd = (int)syscall(SYS_openat2, root_fd, path, &how, sizeof(how));
	return fd < 0 ? -errno : av_read_full(fd, buf, size);
}

/* Names of servers that a sandbox can be sent to: of IPv4, and not on the host's loopback. */
static size_t parse_resolv_conf(struct av_str text, uint32_t resolvers[NET_RESOLVERS_MAX])
{
	struct av_str line;
	size_t n = 0;
	bool more;
	do {
		uint32_t a;
		more = av_str_cut(&text, '\n', &line);
		if (!av_str_starts(line, AV_STR("nameserver")))
			continue;
		line = av_str_trim(av_str_n(line.p + 10, line.n - 10));
		if (net_parse_address(line, &a) == 0 && a >> 24 != 127 && a >> 24 != 0 &&
		    n < NET_RESOLVERS_MAX)
			resolvers[n++] = a;
	} while (more);
	return n;
}

void net_read_resolvers(int root_fd, uint32_t resolvers[NET_RESOLVERS_MAX], size_t *ret_n)
{
	/* The second is where systemd-resolved names the servers that it asks itself. */
	static const char *const paths[] = {"etc/resolv.conf", "run/systemd/resolve/resolv.conf"};
	char buf[8192];
	*ret_n = 0;
	for (size_t i = 0; i < AV_ARRAY_LEN(paths) && *ret_n == 0; i++) {
		ssize_t n = read_host_file(root_fd, paths[i], buf, sizeof(buf));
		if (n > 0)
			*ret_n = parse_resolv_conf(av_str_n(buf, (size_t)n), resolvers);
	}
}

/* ---- forwarding ---- */

static int forwarding_path(const char *ifname, char *path, size_t size)
{
	return av_path_printf(path, size, "sys/net/ipv4/conf/%s/forwarding", ifname);
}

bool net_forwards(int proc_fd, const char *ifname)
{
	char path[80], text[8];
	return forwarding_path(ifname, path, sizeof(path)) == 0 &&
	       av_read_file_at(proc_fd, path, text, sizeof(text)) > 0 && text[0] == '1';
}

int net_set_forwarding(int proc_fd, const char *ifname, bool on)
{
	char path[80];
	int r = forwarding_path(ifname, path, sizeof(path));
	return r < 0 ? r : av_write_file_at(proc_fd, path, on ? AV_STR("1") : AV_STR("0"));
}

static ssize_t read_boot_id(int proc_fd, char *buf, size_t size)
{
	ssize_t n = av_read_file_at(proc_fd, "sys/kernel/random/boot_id", buf, size);
	return n > 0 && buf[n - 1] == '\n' ? n : -EIO;
}

void net_load_guarded(int proc_fd, int run_fd, struct net_rules_host *rules)
{
	char boot[64], text[256];
	ssize_t b = read_boot_id(proc_fd, boot, sizeof(boot));
	ssize_t n = av_read_file_at(run_fd, NET_FORWARDING_FILE, text, sizeof(text));
	rules->n_guarded = 0;
	if (b < 0 || n < b || memcmp(boot, text, (size_t)b) != 0)
		return;
	struct av_str rest = av_str_n(text + b, (size_t)(n - b)), name;
	while (rules->n_guarded < NET_GUARDED_MAX && av_str_cut(&rest, '\n', &name))
		if (name.n > 0 && av_str_copy(rules->guarded[rules->n_guarded],
		                      sizeof(rules->guarded[0]), name) == 0)
			rules->n_guarded++;
}

int net_save_guarded(int proc_fd, int run_fd, const struct net_rules_host *rules)
{
	char text[256];
	ssize_t b = read_boot_id(proc_fd, text, sizeof(text));
	if (b < 0)
		return (int)b;
	size_t n = (size_t)b;
	for (size_t i = 0; i < rules->n_guarded; i++)
		n += (size_t)snprintf(text + n, sizeof(text) - n, "%s\n", rules->guarded[i]);
	AV_CLEANUP(av_closep)
	int fd = openat(run_fd, NET_FORWARDING_FILE,
	    O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
	return fd < 0 ? -errno : av_write_full(fd, text, n);
}
