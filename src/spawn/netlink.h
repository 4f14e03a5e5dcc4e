/* SPDX-License-Identifier: Apache-2.0 */
/*
 * netlink.h - messages to the kernel's network tables, built in the caller's storage
 *
 * A struct nl_buf takes any number of messages, which go to the kernel in one system call:
 *
 *   nl_begin(&b, RTM_NEWLINK, NLM_F_CREATE); nl_put(&b, &header, sizeof(header));
 *   nl_string(&b, IFLA_IFNAME, "eth0"); n = nl_nest(&b, IFLA_LINKINFO); ...; nl_nest_end(&b, n);
 *   nl_end(&b);
 *   r = nl_send(fd, &b, err);
 *
 * Building never fails: what does not fit sets `overflow`, and nl_send() then says -E2BIG. Why not
 * libmnl: see docs/decisions/0006. No allocation; single-threaded use of one buffer.
 */
#pragma once

#include <linux/netlink.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/macros.h"

struct nl_buf {
	uint8_t *p; /* borrowed, 4-byte aligned */
	size_t size, n;
	size_t message; /* offset of the message under construction */
	bool overflow;
};
#define NL_BUF_INIT(storage) ((struct nl_buf){.p = (storage), .size = sizeof(storage)})

/* NLM_F_REQUEST is added; NLM_F_ACK is the caller's choice (the last message needs it). */
void nl_begin(struct nl_buf *b, uint16_t type, uint16_t flags);
void nl_end(struct nl_buf *b);
/* Raw bytes, padded to 4. */
void nl_put(struct nl_buf *b, const void *p, size_t n);
void nl_attr(struct nl_buf *b, uint16_t type, const void *p, size_t n);
void nl_u8(struct nl_buf *b, uint16_t type, uint8_t v);
void nl_u32(struct nl_buf *b, uint16_t type, uint32_t v);
void nl_be32(struct nl_buf *b, uint16_t type, uint32_t v); /* v in host order */
void nl_string(struct nl_buf *b, uint16_t type, const char *s);
/* Attributes until nl_nest_end(b, what this returned) are inside of it. */
size_t nl_nest(struct nl_buf *b, uint16_t type);
void nl_nest_end(struct nl_buf *b, size_t nest);

/* A socket of the caller's network namespace and of protocol NETLINK_*; the caller's. -errno. */
int nl_open(int protocol) AV_MUST_CHECK;
/* Sends, and reads every answer: the kernel has done the work when the send returns. The first
 * error of any message is the result, with the kernel's own words in err (may be NULL). -EPROTO
 * when nothing was acknowledged. Does not block. */
int nl_send(int fd, const struct nl_buf *b, struct av_err *err) AV_MUST_CHECK;
/* The same for messages that the kernel does not acknowledge, because they are only to be checked
 * (a batch of nftables without its end). */
int nl_try(int fd, const struct nl_buf *b, struct av_err *err) AV_MUST_CHECK;

/* What follows the header of a message (NLMSG_DATA takes no const). */
static inline const void *nl_payload(const struct nlmsghdr *h)
{
	return (const uint8_t *)h + NLMSG_HDRLEN;
}
/* Sends one dump request and calls fn for each message of the answer until it returns non-zero,
 * which becomes the result. */
typedef int nl_message_fn(void *ctx, const struct nlmsghdr *h);
int nl_dump(int fd, const struct nl_buf *b, nl_message_fn *fn, void *ctx) AV_MUST_CHECK;
/* The payload of the first attribute `type` behind the header of a message's protocol, at least min
 * bytes long; NULL. */
const void *nl_find(const struct nlmsghdr *h, size_t header, uint16_t type, size_t min);
/* The same among the attributes inside the payload of one that nl_find() found. */
const void *nl_find_inside(const void *payload, uint16_t type, size_t min);
