/* SPDX-License-Identifier: Apache-2.0 */
/*
 * netlink.c - messages to the kernel's network tables
 */
#include "spawn/netlink.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/num.h"
#include "base/banned.h"

#define ANSWER_MAX 32768

/* Room for n bytes, zeroed, padded to 4; NULL when there is none. */
static uint8_t *take(struct nl_buf *b, size_t n)
{
	size_t padded = NLMSG_ALIGN(n);
	if (b->overflow || padded > b->size - b->n) {
		b->overflow = true;
		return NULL;
	}
	uint8_t *p = b->p + b->n;
	memset(p, 0, padded);
	b->n += padded;
	return p;
}

static struct nlmsghdr *header_at(const struct nl_buf *b, size_t at)
{
	return (struct nlmsghdr *)(void *)(b->p + at);
}

void nl_begin(struct nl_buf *b, uint16_t type, uint16_t flags)
{
	b->message = b->n;
	if (take(b, sizeof(struct nlmsghdr)))
		*header_at(b, b->message) = (struct nlmsghdr){
		    .nlmsg_type = type, .nlmsg_flags = (uint16_t)(flags | NLM_F_REQUEST)};
}

void nl_end(struct nl_buf *b)
{
	if (!b->overflow)
		header_at(b, b->message)->nlmsg_len = (uint32_t)(b->n - b->message);
}

void nl_put(struct nl_buf *b, const void *p, size_t n)
{
	uint8_t *to = take(b, n);
	if (to)
		memcpy(to, p, n);
}

void nl_attr(struct nl_buf *b, uint16_t type, const void *p, size_t n)
{
	const struct nlattr a = {.nla_len = (uint16_t)(NLA_HDRLEN + n), .nla_type = type};
	if (n > UINT16_MAX - NLA_HDRLEN) {
		b->overflow = true;
		return;
	}
	nl_put(b, &a, sizeof(a));
	nl_put(b, p, n);
}

void nl_u8(struct nl_buf *b, uint16_t type, uint8_t v)
{
	nl_attr(b, type, &v, sizeof(v));
}

void nl_u32(struct nl_buf *b, uint16_t type, uint32_t v)
{
	nl_attr(b, type, &v, sizeof(v));
}

void nl_be32(struct nl_buf *b, uint16_t type, uint32_t v)
{
	uint8_t be[4];
	av_put_be32(be, v);
	nl_attr(b, type, be, sizeof(be));
}

void nl_string(struct nl_buf *b, uint16_t type, const char *s)
{
	nl_attr(b, type, s, strlen(s) + 1);
}

size_t nl_nest(struct nl_buf *b, uint16_t type)
{
	const struct nlattr a = {.nla_type = (uint16_t)(type | NLA_F_NESTED)};
	size_t at = b->n;
	nl_put(b, &a, sizeof(a));
	return at;
}

void nl_nest_end(struct nl_buf *b, size_t nest)
{
	size_t n = b->n - nest;
	if (n > UINT16_MAX)
		b->overflow = true;
	if (!b->overflow)
		((struct nlattr *)(void *)(b->p + nest))->nla_len = (uint16_t)n;
}

/* ---- sockets ---- */

int nl_open(int protocol)
{
	static const int one = 1;
	const struct sockaddr_nl any = {.nl_family = AF_NETLINK};
	AV_CLEANUP(av_closep) int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, protocol);
	if (fd < 0 || bind(fd, (const struct sockaddr *)&any, sizeof(any)) < 0)
		return -errno;
	/* Without them the answers are less telling, and longer. */
	(void)setsockopt(fd, SOL_NETLINK, NETLINK_EXT_ACK, &one, sizeof(one));
	(void)setsockopt(fd, SOL_NETLINK, NETLINK_CAP_ACK, &one, sizeof(one));
	return AV_TAKE_FD(fd);
}

static int send_all(int fd, const struct nl_buf *b)
{
	const struct sockaddr_nl kernel = {.nl_family = AF_NETLINK};
	if (b->overflow)
		return -E2BIG;
	ssize_t n =
	    sendto(fd, b->p, b->n, MSG_NOSIGNAL, (const struct sockaddr *)&kernel, sizeof(kernel));
	return n < 0 ? -errno : n == (ssize_t)b->n ? 0 : -EMSGSIZE;
}

/* One datagram from the kernel; 0: none is there. */
static ssize_t receive(int fd, void *buf, size_t size)
{
	for (;;) {
		struct sockaddr_nl from;
		socklen_t len = sizeof(from);
		ssize_t n = recvfrom(
		    fd, buf, size, MSG_DONTWAIT | MSG_TRUNC, (struct sockaddr *)&from, &len);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return errno == EAGAIN ? 0 : -errno;
		if (len != sizeof(from) || from.nl_pid != 0)
			continue;
		return n > (ssize_t)size ? -EMSGSIZE : n;
	}
}

/* Attributes in [p, p + n). */
static const void *find_attr(const uint8_t *p, size_t n, uint16_t type, size_t min)
{
	while (n >= sizeof(struct nlattr)) {
		struct nlattr a;
		memcpy(&a, p, sizeof(a));
		if (a.nla_len < NLA_HDRLEN || a.nla_len > n)
			return NULL;
		if ((a.nla_type & NLA_TYPE_MASK) == type && (size_t)(a.nla_len - NLA_HDRLEN) >= min)
			return p + NLA_HDRLEN;
		size_t step = AV_MIN((size_t)NLA_ALIGN(a.nla_len), n);
		p += step;
		n -= step;
	}
	return NULL;
}

const void *nl_find(const struct nlmsghdr *h, size_t header, uint16_t type, size_t min)
{
	size_t skip = NLMSG_HDRLEN + NLMSG_ALIGN(header);
	if (h->nlmsg_len < skip)
		return NULL;
	return find_attr((const uint8_t *)h + skip, h->nlmsg_len - skip, type, min);
}

const void *nl_find_inside(const void *payload, uint16_t type, size_t min)
{
	struct nlattr a;
	memcpy(&a, (const uint8_t *)payload - NLA_HDRLEN, sizeof(a));
	return find_attr(payload, (size_t)a.nla_len - NLA_HDRLEN, type, min);
}

/* The errno of an acknowledgement, negative; 0 for success. */
static int ack_result(const struct nlmsghdr *h, struct av_err *err)
{
	struct nlmsgerr e;
	if (h->nlmsg_len < NLMSG_LENGTH(sizeof(e)))
		return -EPROTO;
	memcpy(&e, nl_payload(h), sizeof(e));
	if (e.error == 0)
		return 0;
	const char *text = NULL;
	if (h->nlmsg_flags & NLM_F_ACK_TLVS && h->nlmsg_flags & NLM_F_CAPPED)
		text = nl_find(h, sizeof(e), NLMSGERR_ATTR_MSG, 1);
	if (text)
		av_err_sys(err, AV_ERR_INTERNAL, e.error, "%.100s", text);
	else
		av_err_sys(err, AV_ERR_INTERNAL, e.error, "netlink");
	return e.error;
}

static int send_and_read(int fd, const struct nl_buf *b, int *ret_acks, struct av_err *err)
{
	_Alignas(struct nlmsghdr) uint8_t answer[ANSWER_MAX];
	int first = 0;
	*ret_acks = 0;
	int r = send_all(fd, b);
	if (r < 0) {
		av_err_sys(err, AV_ERR_INTERNAL, r, "netlink");
		return r;
	}
	ssize_t got;
	while ((got = receive(fd, answer, sizeof(answer))) > 0) {
		unsigned int left = (unsigned int)got;
		for (struct nlmsghdr *h = (struct nlmsghdr *)(void *)answer; NLMSG_OK(h, left);
		     h = NLMSG_NEXT(h, left)) {
			if (h->nlmsg_type != NLMSG_ERROR)
				continue;
			++*ret_acks;
			r = ack_result(h, first ? NULL : err);
			first = first ? first : r;
		}
	}
	if (got < 0 && !first) {
		first = (int)got;
		av_err_sys(err, AV_ERR_INTERNAL, first, "netlink");
	}
	return first;
}

int nl_send(int fd, const struct nl_buf *b, struct av_err *err)
{
	int acks, r = send_and_read(fd, b, &acks, err);
	if (r == 0 && acks == 0)
		return av_err_sys(err, AV_ERR_INTERNAL, -EPROTO, "netlink: no answer");
	return r;
}

int nl_try(int fd, const struct nl_buf *b, struct av_err *err)
{
	int acks;
	return send_and_read(fd, b, &acks, err);
}

int nl_dump(int fd, const struct nl_buf *b, nl_message_fn *fn, void *ctx)
{
	_Alignas(struct nlmsghdr) uint8_t answer[ANSWER_MAX];
	int r = send_all(fd, b);
	ssize_t got = 0;
	while (r == 0 && (got = receive(fd, answer, sizeof(answer))) > 0) {
		unsigned int left = (unsigned int)got;
		for (struct nlmsghdr *h = (struct nlmsghdr *)(void *)answer;
		     r == 0 && NLMSG_OK(h, left); h = NLMSG_NEXT(h, left)) {
			if (h->nlmsg_type == NLMSG_DONE)
				return 0;
			r = h->nlmsg_type == NLMSG_ERROR ? ack_result(h, NULL) : fn(ctx, h);
		}
	}
	return r ? r : got < 0 ? (int)got : -EPROTO;
}
