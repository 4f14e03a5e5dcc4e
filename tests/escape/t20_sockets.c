/* SPDX-License-Identifier: Apache-2.0 */
/*
 * t20_sockets.c - T20: socket families, netlink, and names that live outside the file system
 *
 * Arguments: [noseccomp] abstract-name port - a unix socket name and a TCP port on which the driver
 * listens on the host.
 */
#include <arpa/inet.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "attack.h"

static void test_families(void)
{
	refused(socket(AF_PACKET, SOCK_RAW, 0), "AF_PACKET");
	refused(socket(AF_INET, SOCK_RAW, IPPROTO_ICMP), "raw IPv4");
	refused(socket(AF_INET6, SOCK_RAW, IPPROTO_ICMPV6), "raw IPv6");
	if (attack_seccomp_off_)
		return;
	static const struct {
		int family;
		const char *name;
	} families[] = {{AF_VSOCK, "AF_VSOCK"}, {AF_ALG, "AF_ALG"}, {AF_BLUETOOTH, "AF_BLUETOOTH"},
	    {AF_CAN, "AF_CAN"}, {AF_TIPC, "AF_TIPC"}, {AF_RDS, "AF_RDS"}, {AF_KCM, "AF_KCM"},
	    {AF_XDP, "AF_XDP"}, {AF_NFC, "AF_NFC"}, {AF_QIPCRTR, "AF_QIPCRTR"}, {AF_SMC, "AF_SMC"},
	    {AF_KEY, "AF_KEY"}, {AF_IB, "AF_IB"}};
	for (size_t i = 0; i < AV_ARRAY_LEN(families); i++) {
		int fd = socket(families[i].family, SOCK_STREAM, 0);
		int e = errno;
		ok(fd < 0 && (e == EPERM || e == EACCES || e == EAFNOSUPPORT || e == ENOSYS),
		    "%s is refused (%s)", families[i].name, strerror(e));
		if (fd >= 0)
			close(fd);
	}
}

static void test_network_setup(void)
{
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	ok(fd >= 0, "an ordinary UDP socket is allowed");
	struct ifreq ifr = {0};
	memcpy(ifr.ifr_name, "lo", 3);
	ok((ioctl(fd, SIOCGIFFLAGS, &ifr) == 0 && (ifr.ifr_flags & IFF_UP)) || attack_in_vm_,
	    "loopback is up");
	ifr.ifr_flags = 0;
	refused(ioctl(fd, SIOCSIFFLAGS, &ifr), "taking loopback down");
	close(fd);
	int nl = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
	if (nl < 0) {
		ok(true, "NETLINK_ROUTE is refused");
		return;
	}
	struct {
		struct nlmsghdr h;
		struct ifinfomsg i;
	} request = {
	    .h = {.nlmsg_len = sizeof(request),
	        .nlmsg_type = RTM_NEWLINK,
	        .nlmsg_flags = NLM_F_REQUEST | NLM_F_CREATE | NLM_F_ACK},
	    .i = {.ifi_family = AF_UNSPEC, .ifi_index = 1, .ifi_change = IFF_UP},
	};
	char answer[1024];
	ssize_t n = -1;
	if (send(nl, &request, sizeof(request), 0) == (ssize_t)sizeof(request))
		n = recv(nl, answer, sizeof(answer), 0);
	struct nlmsghdr *h = (struct nlmsghdr *)(void *)answer;
	const struct nlmsgerr *e = NLMSG_DATA(h);
	ok(n < 0 || (h->nlmsg_type == NLMSG_ERROR && e->error == -EPERM),
	    "netlink changes are refused");
	close(nl);
	for (int protocol = 0; protocol < 22; protocol++) {
		int s = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, protocol);
		if (s >= 0 && protocol != NETLINK_ROUTE)
			printf("# netlink protocol %d can be opened\n", protocol);
		if (s >= 0)
			close(s);
	}
}

static void test_host_is_out_of_reach(const char *name, const char *port)
{
	struct sockaddr_un un = {.sun_family = AF_UNIX};
	size_t n = strlen(name) > 90 ? 90 : strlen(name);
	memcpy(un.sun_path + 1, name, n);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	refused(connect(fd, (struct sockaddr *)&un,
	            (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + n)),
	    "an abstract socket of the host");
	close(fd);
	static const char *const addresses[] = {"127.0.0.1", "127.1.2.3", "10.0.2.2", "172.17.0.1",
	    "192.168.0.1", "169.254.169.254", "0.0.0.0", "8.8.8.8"};
	for (size_t i = 0; i < AV_ARRAY_LEN(addresses); i++) {
		struct sockaddr_in in = {
		    .sin_family = AF_INET, .sin_port = htons((uint16_t)strtoul(port, NULL, 10))};
		inet_pton(AF_INET, addresses[i], &in.sin_addr);
		fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
		struct timeval tv = {.tv_sec = 1};
		setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof(tv));
		refused(connect(fd, (struct sockaddr *)&in, sizeof(in)), addresses[i]);
		close(fd);
	}
}

int main(int argc, char **argv)
{
	attack_init(argc, argv);
	test_families();
	test_network_setup();
	if (argc >= 3)
		test_host_is_out_of_reach(argv[argc - 2], argv[argc - 1]);
	return tap_done();
}
