/* SPDX-License-Identifier: Apache-2.0 */
/*
 * net_conntrack.c - ending what the host tracks of a dead sandbox
 *
 * One address: the kernel picks the entries; more: all are looked at here. Each is removed by its
 * own tuple: removing by a part of it is newer than our oldest kernel.
 */
#include "spawn/net_internal.h"

#include <linux/netfilter/nf_conntrack_common.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_conntrack.h>
#include <string.h>
#include <sys/socket.h>

#include "base/fd.h"
#include "base/num.h"
#include "base/banned.h"

/* Of the kernel's nf_internals.h: compare the source address. */
#define FILTER_IP_SRC (1u << 0)
#define TUPLE_MAX     256

struct forget {
	const uint32_t *addresses;
	size_t n;
	int delete_fd;
};

static void begin(struct nl_buf *b, uint16_t type, uint16_t flags)
{
	const struct nfgenmsg g = {.nfgen_family = AF_INET, .version = NFNETLINK_V0};
	nl_begin(b, (uint16_t)(NFNL_SUBSYS_CTNETLINK << 8 | type), flags);
	nl_put(b, &g, sizeof(g));
}

/* The payload of an attribute, and its length by the header before it. */
static size_t payload_size(const void *payload)
{
	struct nlattr a;
	memcpy(&a, (const uint8_t *)payload - NLA_HDRLEN, sizeof(a));
	return a.nla_len - NLA_HDRLEN;
}

static bool is_one_of(uint32_t address, const struct forget *f)
{
	for (size_t i = 0; i < f->n; i++)
		if (f->addresses[i] == address)
			return true;
	return false;
}

static bool concerns(const struct forget *f, const uint8_t *tuple, size_t n)
{
	/* CTA_TUPLE_IP { CTA_IP_V4_SRC, … } comes first. */
	struct nlattr outer, inner;
	if (n < 2 * sizeof(outer) + sizeof(uint32_t))
		return false;
	memcpy(&outer, tuple, sizeof(outer));
	memcpy(&inner, tuple + sizeof(outer), sizeof(inner));
	return (outer.nla_type & NLA_TYPE_MASK) == CTA_TUPLE_IP &&
	       inner.nla_type == CTA_IP_V4_SRC &&
	       is_one_of(av_get_be32(tuple + sizeof(outer) + sizeof(inner)), f);
}

static int on_entry(void *ctx, const struct nlmsghdr *h)
{
	const struct forget *f = ctx;
	_Alignas(struct nlmsghdr) uint8_t storage[TUPLE_MAX + 64];
	struct nl_buf b = NL_BUF_INIT(storage);
	const uint8_t *tuple = nl_find(h, sizeof(struct nfgenmsg), CTA_TUPLE_ORIG, 1);
	if (!tuple)
		return 0;
	size_t n = payload_size(tuple);
	if (n > TUPLE_MAX || !concerns(f, tuple, n))
		return 0;
	begin(&b, IPCTNL_MSG_CT_DELETE, NLM_F_ACK);
	nl_attr(&b, CTA_TUPLE_ORIG | NLA_F_NESTED, tuple, n);
	nl_end(&b);
	/* It may have ended by itself. */
	int r = nl_send(f->delete_fd, &b, NULL);
	(void)r;
	return 0;
}

/* Entries with this source only. */
static void filter(struct nl_buf *b, uint32_t address)
{
	size_t tuple = nl_nest(b, CTA_TUPLE_ORIG);
	size_t ip = nl_nest(b, CTA_TUPLE_IP);
	nl_be32(b, CTA_IP_V4_SRC, address);
	nl_nest_end(b, ip);
	nl_nest_end(b, tuple);
	size_t flags = nl_nest(b, CTA_FILTER);
	nl_u32(b, CTA_FILTER_ORIG_FLAGS, FILTER_IP_SRC);
	nl_u32(b, CTA_FILTER_REPLY_FLAGS, 0);
	nl_nest_end(b, flags);
}

void net_forget(const uint32_t *addresses, size_t n)
{
	_Alignas(struct nlmsghdr) uint8_t storage[256];
	struct nl_buf b = NL_BUF_INIT(storage);
	AV_CLEANUP(av_closep) int dump_fd = nl_open(NETLINK_NETFILTER);
	AV_CLEANUP(av_closep) int delete_fd = nl_open(NETLINK_NETFILTER);
	if (dump_fd < 0 || delete_fd < 0)
		return;
	struct forget f = {.addresses = addresses, .n = n, .delete_fd = delete_fd};
	begin(&b, IPCTNL_MSG_CT_GET, NLM_F_DUMP);
	if (n == 1)
		filter(&b, addresses[0]);
	nl_end(&b);
	int r = nl_dump(dump_fd, &b, on_entry, &f);
	(void)r;
}
