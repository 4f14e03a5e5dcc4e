/* SPDX-License-Identifier: Apache-2.0 */
/*
 * t30_internet.c - T30, T35, T36: what a sandbox with internet access reaches, and what not
 *
 * Arguments: [noseccomp] then any of
 *   refuse ADDRESS PORT   a connection must be refused at once (any form inet_aton(3) takes)
 *   silent ADDRESS PORT   a connection must not come about; being told so is not needed
 *   reach ADDRESS PORT    an HTTP server answers
 *   udp ADDRESS PORT      a datagram must bring no answer
 *   own                   what needs rights that nobody inside has
 *   source ADDRESS        nothing can be sent from that address, which is another's
 *   ipv6                  there is none
 *   flood ADDRESS N       datagrams to N ports; not a check
 */
#include <arpa/inet.h>
#include <linux/if_packet.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>

#include "attack.h"

#define AT_ONCE_MS 2000
#define SILENT_MS  400
#define REACH_MS   5000

static int64_t now_ms(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* 0, or the errno; ETIMEDOUT after timeout_ms. */
static int try_connect(int fd, const void *addr, socklen_t len, int timeout_ms)
{
	int eno = 0;
	socklen_t n = sizeof(eno);
	if (connect(fd, addr, len) == 0)
		return 0;
	if (errno != EINPROGRESS)
		return errno;
	struct pollfd p = {.fd = fd, .events = POLLOUT};
	if (poll(&p, 1, timeout_ms) == 0)
		return ETIMEDOUT;
	getsockopt(fd, SOL_SOCKET, SO_ERROR, &eno, &n);
	return eno;
}

static struct sockaddr_in to_address(const char *text, const char *port)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port))};
	if (!inet_aton(text, &a.sin_addr)) {
		printf("Bail out! not an address: %s\n", text);
		exit(1);
	}
	return a;
}

static int tcp4(const struct sockaddr_in *a, int timeout_ms)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	int eno = try_connect(fd, a, sizeof(*a), timeout_ms);
	close(fd);
	return eno;
}

/* The same by a socket of IPv6: ::ffff:a.b.c.d. */
static int tcp_mapped(const struct sockaddr_in *a, int timeout_ms)
{
	struct sockaddr_in6 m = {.sin6_family = AF_INET6, .sin6_port = a->sin_port};
	m.sin6_addr.s6_addr[10] = m.sin6_addr.s6_addr[11] = 0xff;
	memcpy(&m.sin6_addr.s6_addr[12], &a->sin_addr, 4);
	int fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	int eno = fd < 0 ? errno : try_connect(fd, &m, sizeof(m), timeout_ms);
	close(fd);
	return eno;
}

static void refuse(const char *address, const char *port)
{
	const struct sockaddr_in a = to_address(address, port);
	int64_t start = now_ms();
	int eno = tcp4(&a, AT_ONCE_MS);
	ok(eno != 0 && eno != ETIMEDOUT, "%s port %s is refused in %d ms (%s)", address, port,
	    (int)(now_ms() - start), strerror(eno));
	eno = tcp_mapped(&a, AT_ONCE_MS);
	ok(eno != 0 && eno != ETIMEDOUT, "::ffff:%s port %s too (%s)", address, port,
	    strerror(eno));
}

static void silent(const char *address, const char *port)
{
	const struct sockaddr_in a = to_address(address, port);
	int eno = tcp4(&a, SILENT_MS);
	ok(eno != 0, "%s port %s cannot be reached (%s)", address, port, strerror(eno));
}

static void reach(const char *address, const char *port)
{
	static const char request[] = "GET / HTTP/1.0\r\n\r\n";
	const struct sockaddr_in a = to_address(address, port);
	char answer[512] = "";
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	int eno = try_connect(fd, &a, sizeof(a), REACH_MS);
	ssize_t n = eno ? -1 : send(fd, request, sizeof(request) - 1, MSG_NOSIGNAL);
	struct pollfd p = {.fd = fd, .events = POLLIN};
	if (n > 0 && poll(&p, 1, REACH_MS) == 1)
		n = recv(fd, answer, sizeof(answer) - 1, 0);
	ok(n > 0 && strstr(answer, " 200 "), "%s port %s answers (%s)", address, port,
	    strerror(eno));
	close(fd);
}

static void udp(const char *address, const char *port)
{
	const struct sockaddr_in a = to_address(address, port);
	char answer[512];
	int on = 1, fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	setsockopt(fd, SOL_SOCKET, SO_BROADCAST, &on, sizeof(on));
	ssize_t sent = sendto(fd, "?", 1, 0, (const struct sockaddr *)&a, sizeof(a));
	int eno = errno;
	struct pollfd p = {.fd = fd, .events = POLLIN};
	ssize_t n = poll(&p, 1, 300) == 1 ? recv(fd, answer, sizeof(answer), 0) : -1;
	ok(n < 0, "no answer by UDP from %s port %s (%s)", address, port,
	    sent < 0 ? strerror(eno) : "sent");
	close(fd);
}

/* Sends one netlink message; the kernel's answer as negative errno. */
static int ask_kernel(int protocol, void *message, size_t n)
{
	char answer[1024];
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, protocol);
	if (fd < 0)
		return -errno;
	ssize_t got = send(fd, message, n, 0) < 0 ? -errno : recv(fd, answer, sizeof(answer), 0);
	close(fd);
	if (got < (ssize_t)sizeof(struct nlmsgerr))
		return got < 0 ? (int)got : -EPROTO;
	struct nlmsghdr *h = (struct nlmsghdr *)(void *)answer;
	const struct nlmsgerr *e = NLMSG_DATA(h);
	return h->nlmsg_type == NLMSG_ERROR ? e->error : -EPROTO;
}

static void own_address(void)
{
	struct {
		struct nlmsghdr h;
		struct ifaddrmsg m;
		struct nlattr a;
		uint8_t address[4];
	} rq = {.h = {.nlmsg_len = sizeof(rq),
	            .nlmsg_type = RTM_NEWADDR,
	            .nlmsg_flags = NLM_F_REQUEST | NLM_F_CREATE | NLM_F_ACK},
	    .m = {.ifa_family = AF_INET, .ifa_prefixlen = 8, .ifa_index = if_nametoindex("eth0")},
	    .a = {.nla_len = 8, .nla_type = IFA_LOCAL},
	    .address = {10, 1, 2, 3}};
	is_int(ask_kernel(NETLINK_ROUTE, &rq, sizeof(rq)), -EPERM, "no address can be added");
}

static void own_rules(void)
{
	struct {
		struct nlmsghdr begin;
		struct nfgenmsg begin_g;
		struct nlmsghdr h;
		struct nfgenmsg g;
		struct nlattr a;
		char table[8];
		struct nlmsghdr end;
		struct nfgenmsg end_g;
	} rq = {.begin = {.nlmsg_len = 20,
	            .nlmsg_type = NFNL_MSG_BATCH_BEGIN,
	            .nlmsg_flags = NLM_F_REQUEST},
	    .begin_g = {.res_id = htons(NFNL_SUBSYS_NFTABLES)},
	    .h = {.nlmsg_len = 32,
	        .nlmsg_type = NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_DELTABLE,
	        .nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK},
	    .g = {.nfgen_family = 1},
	    .a = {.nla_len = 11, .nla_type = NFTA_TABLE_NAME},
	    .table = "aviary",
	    .end = {.nlmsg_len = 20,
	        .nlmsg_type = NFNL_MSG_BATCH_END,
	        .nlmsg_flags = NLM_F_REQUEST},
	    .end_g = {.res_id = htons(NFNL_SUBSYS_NFTABLES)}};
	int r = ask_kernel(NETLINK_NETFILTER, &rq, sizeof(rq));
	ok(r == -EPERM || r == -EPROTONOSUPPORT || r == -EACCES, "no rule can be removed (%s)",
	    strerror(-r));
}

static void own(void)
{
	struct ifreq ifr = {.ifr_name = "eth0"};
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	ok(ioctl(fd, SIOCGIFFLAGS, &ifr) == 0 && ifr.ifr_flags & IFF_UP &&
	        ifr.ifr_flags & IFF_NOARP,
	    "eth0 is up and does no ARP");
	ifr.ifr_flags &= (short)~IFF_NOARP;
	denied(ioctl(fd, SIOCSIFFLAGS, &ifr), "switching ARP on");
	ifr.ifr_hwaddr.sa_family = 1;
	denied(ioctl(fd, SIOCSIFHWADDR, &ifr), "another hardware address");
	int on = 1;
	denied(setsockopt(fd, SOL_IP, IP_TRANSPARENT, &on, sizeof(on)), "IP_TRANSPARENT");
	denied(setsockopt(fd, SOL_SOCKET, SO_MARK, &on, sizeof(on)), "SO_MARK");
	close(fd);
	refused(socket(AF_PACKET, SOCK_RAW, htons(0x0806)), "sending ARP by hand");
	refused(socket(AF_PACKET, SOCK_DGRAM, htons(0x0003)), "listening to all packets");
	refused(socket(AF_INET, SOCK_RAW, IPPROTO_RAW), "a raw socket");
	refused(socket(AF_INET, SOCK_RAW, IPPROTO_TCP), "a raw socket of TCP");
	int settings = open("/proc/sys/net/ipv4/conf/all/forwarding", O_WRONLY | O_CLOEXEC);
	ok(settings < 0, "settings of the network are read-only (%s)", strerror(errno));
	own_address();
	own_rules();
}

static void source(const char *address)
{
	struct sockaddr_in a = to_address(address, "0");
	int on = 1, fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	refused(bind(fd, (struct sockaddr *)&a, sizeof(a)), "an address of somebody else");
	/* The kernel lets anybody bind then; sending is what counts. */
	setsockopt(fd, SOL_IP, IP_FREEBIND, &on, sizeof(on));
	const struct sockaddr_in to = to_address("192.0.32.9", "9");
	if (bind(fd, (struct sockaddr *)&a, sizeof(a)) == 0)
		refused(sendto(fd, "x", 1, 0, (const struct sockaddr *)&to, sizeof(to)),
		    "sending from it");
	close(fd);
}

static void ipv6(void)
{
	static const char *const addresses[] = {"2606:4700::1111", "fd00:ec2::254", "fe80::1",
	    "ff02::1", "64:ff9b::a9fe:a9fe", "::169.254.169.254"};
	for (size_t i = 0; i < AV_ARRAY_LEN(addresses); i++) {
		struct sockaddr_in6 a = {.sin6_family = AF_INET6, .sin6_port = htons(80)};
		inet_pton(AF_INET6, addresses[i], &a.sin6_addr);
		a.sin6_scope_id = a.sin6_addr.s6_addr[0] == 0xfe || a.sin6_addr.s6_addr[0] == 0xff
		                      ? if_nametoindex("eth0")
		                      : 0;
		int fd = socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
		int sent =
		    fd < 0 ? -1 : (int)sendto(fd, "x", 1, 0, (struct sockaddr *)&a, sizeof(a));
		ok(sent < 0, "[%s]: %s", addresses[i], strerror(errno));
		close(fd);
	}
}

static void flood(const char *address, const char *count)
{
	int n = atoi(count), sent = 0, fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	struct sockaddr_in a = to_address(address, "0");
	for (int port = 1; port <= n; port++) {
		a.sin_port = htons((uint16_t)port);
		sent += sendto(fd, "x", 1, 0, (struct sockaddr *)&a, sizeof(a)) == 1;
	}
	ok(sent > 0, "%d of %d datagrams were sent", sent, n);
	close(fd);
}

int main(int argc, char **argv)
{
	attack_init(argc, argv);
	alarm(60);
	for (int i = attack_seccomp_off_ ? 2 : 1; i < argc;) {
		const char *what = argv[i], *one = i + 1 < argc ? argv[i + 1] : "";
		const char *two = i + 2 < argc ? argv[i + 2] : "";
		static const struct {
			const char *name;
			void (*with_two)(const char *, const char *);
		} actions[] = {{"refuse", refuse}, {"silent", silent}, {"reach", reach},
		    {"udp", udp}, {"flood", flood}};
		size_t k = 0;
		while (k < AV_ARRAY_LEN(actions) && strcmp(actions[k].name, what) != 0)
			k++;
		if (k < AV_ARRAY_LEN(actions)) {
			actions[k].with_two(one, two);
			i += 3;
		} else if (strcmp(what, "source") == 0) {
			source(one);
			i += 2;
		} else {
			ok(strcmp(what, "own") == 0 || strcmp(what, "ipv6") == 0, "argument %s",
			    what);
			(strcmp(what, "own") == 0 ? own : ipv6)();
			i++;
		}
	}
	return tap_done();
}
