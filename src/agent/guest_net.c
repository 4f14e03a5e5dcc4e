/* SPDX-License-Identifier: Apache-2.0 */
/*
 * guest_net.c - the network interface of a guest
 *
 * There is at most one that the machine has (a virtio device); what users make besides (bridges,
 * tunnels) has no device of its own and is left alone.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <net/route.h>
#include <netinet/in.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "agent/guest_internal.h"
#include "base/fd.h"
#include "base/path.h"

#include "base/banned.h"

static int open_socket(void)
{
	int s = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	return s < 0 ? -errno : s;
}

static int set_flags(int s, const char *name, short on, short off)
{
	struct ifreq ifr = {0};

	memcpy(ifr.ifr_name, name, strnlen(name, IFNAMSIZ - 1));
	if (ioctl(s, SIOCGIFFLAGS, &ifr) < 0)
		return -errno;
	ifr.ifr_flags = (short)((ifr.ifr_flags | on) & ~off);
	return ioctl(s, SIOCSIFFLAGS, &ifr) < 0 ? -errno : 0;
}

static bool look_for_interface(char name[static IF_NAMESIZE])
{
	struct if_nameindex *all = if_nameindex();
	char path[96];
	bool found = false;

	for (struct if_nameindex *i = all; i && i->if_name && !found; i++)
		found = av_path_printf(
		            path, sizeof(path), "/sys/class/net/%s/device", i->if_name) == 0 &&
		        access(path, F_OK) == 0 &&
		        av_str_copy(name, IF_NAMESIZE, av_str_c(i->if_name)) == 0;
	if (all)
		if_freenameindex(all);
	return found;
}

/* The name of the machine's interface, which users may have changed; false if there is none. Its
 * number stays: to look at all of them takes 10 ms where the machine is emulated. */
static bool find_interface(char name[static IF_NAMESIZE])
{
	static unsigned int number;

	if (number && if_indextoname(number, name))
		return true;
	number = look_for_interface(name) ? if_nametoindex(name) : 0;
	return number != 0;
}

/* Programs take one for a sign that IPv6 leads somewhere. A kernel without IPv6 has no such file.
 */
static int no_ipv6(const char *name)
{
	char path[96];
	int r =
	    av_path_printf(path, sizeof(path), "/proc/sys/net/ipv6/conf/%s/addr_gen_mode", name);

	if (r == 0)
		r = av_write_file_at(AT_FDCWD, path, AV_STR("1"));
	return r == -ENOENT ? 0 : r;
}

int guest_net_prepare(void)
{
	AV_CLEANUP(av_closep) int s = open_socket();
	char name[IF_NAMESIZE];
	int r = s < 0 ? s : set_flags(s, "lo", IFF_UP, 0);

	return r == 0 && find_interface(name) ? no_ipv6(name) : r;
}

static struct ifreq request_for(const char *name)
{
	struct ifreq ifr = {0};

	memcpy(ifr.ifr_name, name, strnlen(name, IFNAMSIZ - 1));
	return ifr;
}

static void put_address(struct sockaddr *dst, uint32_t address)
{
	struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(address)};

	memcpy(dst, &in, sizeof(in));
}

static int set_address(int s, const char *name, unsigned long what, uint32_t address)
{
	struct ifreq ifr = request_for(name);

	put_address(&ifr.ifr_addr, address);
	return ioctl(s, what, &ifr) < 0 ? -errno : 0;
}

static int set_mac(int s, const char *name, const uint8_t mac[static 6])
{
	struct ifreq ifr = request_for(name);

	ifr.ifr_hwaddr.sa_family = ARPHRD_ETHER;
	memcpy(ifr.ifr_hwaddr.sa_data, mac, 6);
	return ioctl(s, SIOCSIFHWADDR, &ifr) < 0 ? -errno : 0;
}

static int add_default_route(int s, const char *name, uint32_t gateway)
{
	char dev[IF_NAMESIZE] = "";
	struct rtentry route = {.rt_flags = RTF_UP | RTF_GATEWAY, .rt_dev = dev};

	memcpy(dev, name, strnlen(name, IF_NAMESIZE - 1));
	put_address(&route.rt_dst, 0);
	put_address(&route.rt_genmask, 0);
	put_address(&route.rt_gateway, gateway);
	return ioctl(s, SIOCADDRT, &route) < 0 && errno != EEXIST ? -errno : 0;
}

struct facts {
	uint8_t mac[6];
	uint32_t address;
	bool up;
};

static struct facts read_facts(int s, const char *name)
{
	struct ifreq ifr = request_for(name);
	struct facts f = {0};
	struct sockaddr_in in;

	if (ioctl(s, SIOCGIFHWADDR, &ifr) == 0)
		memcpy(f.mac, ifr.ifr_hwaddr.sa_data, sizeof(f.mac));
	ifr = request_for(name);
	if (ioctl(s, SIOCGIFADDR, &ifr) == 0) {
		memcpy(&in, &ifr.ifr_addr, sizeof(in));
		f.address = ntohl(in.sin_addr.s_addr);
	}
	ifr = request_for(name);
	if (ioctl(s, SIOCGIFFLAGS, &ifr) == 0)
		f.up = ifr.ifr_flags & IFF_UP;
	return f;
}

void guest_net_read(uint8_t mac[static 6], uint32_t *ret_address)
{
	AV_CLEANUP(av_closep) int s = open_socket();
	char name[IF_NAMESIZE];
	struct facts f = {0};

	if (s >= 0 && find_interface(name))
		f = read_facts(s, name);
	memcpy(mac, f.mac, sizeof(f.mac));
	*ret_address = f.address;
}

static int configure(
    int s, const char *name, const struct av_guest_identity *id, const char **ret_what)
{
	bool internet = id->flags & AV_GUEST_HAS_INTERNET;
	uint32_t mask = id->prefix_len ? ~0U << (32 - id->prefix_len) : 0;
	int r;

	*ret_what = "interface down";
	if ((r = set_flags(s, name, 0, IFF_UP)) < 0)
		return r;
	*ret_what = "hardware address";
	if ((r = set_mac(s, name, id->mac)) < 0)
		return r;
	/* What it was before must not stay, whether there is a new one or not. */
	*ret_what = "address";
	if ((r = set_address(s, name, SIOCSIFADDR, internet ? id->address : 0)) < 0)
		return r;
	if (!internet || !id->address)
		return 0;
	*ret_what = "network mask";
	if ((r = set_address(s, name, SIOCSIFNETMASK, mask)) < 0)
		return r;
	*ret_what = "interface up";
	if ((r = set_flags(s, name, IFF_UP, 0)) < 0)
		return r;
	*ret_what = "route";
	return id->gateway ? add_default_route(s, name, id->gateway) : 0;
}

int guest_net_apply(const struct av_guest_identity *id, const char **ret_what)
{
	AV_CLEANUP(av_closep) int s = open_socket();
	bool internet = id->flags & AV_GUEST_HAS_INTERNET;
	char name[IF_NAMESIZE];
	struct facts f;

	*ret_what = "socket";
	if (s < 0)
		return s;
	*ret_what = "no network interface";
	if (!find_interface(name))
		return internet ? -ENODEV : 0;
	f = read_facts(s, name);
	if (memcmp(f.mac, id->mac, sizeof(f.mac)) == 0 && f.up == internet &&
	    f.address == (internet ? id->address : 0))
		return 0;
	return configure(s, name, id, ret_what);
}
