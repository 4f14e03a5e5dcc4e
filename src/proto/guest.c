/* SPDX-License-Identifier: Apache-2.0 */
/*
 * guest.c - messages between aviary-vm and the agent of a virtual machine (see guest.h)
 *
 * The header: "AVG1" | u16 type | u16 zero | u32 seq | u32 bytes of the body. The body has one size
 * for each type and its members follow each other without gaps, in the order of the struct; text
 * fills the rest of its member with zeros.
 */
#include "proto/guest.h"

#include <errno.h>
#include <string.h>

#include "base/banned.h"

#define HEAD          16
#define ERRNO_MAX     4095
#define PREFIX_MIN    8
#define PREFIX_MAX    30
#define ALL_FLAGS     (AV_GUEST_HAS_INTERNET | AV_GUEST_NO_SUDO)
#define SIZE_OF(m)    sizeof(((struct av_guest_message *)NULL)->m)
#define MAC_MULTICAST 1

/* A place in a message; bytes are put or taken in their order. */
struct cursor {
	uint8_t *out;      /* putting */
	const uint8_t *in; /* taking */
	bool bad;          /* taking: a value that is not allowed */
};

static const uint8_t magic[4] = {'A', 'V', 'G', '1'};

/* --- numbers and bytes --- */

static void put_number(struct cursor *c, uint64_t v, size_t bytes)
{
	for (size_t i = 0; i < bytes; i++, v >>= 8)
		*c->out++ = (uint8_t)v;
}

static uint64_t take_number(struct cursor *c, size_t bytes)
{
	uint64_t v = 0;

	for (size_t i = 0; i < bytes; i++)
		v |= (uint64_t)*c->in++ << (8 * i);
	return v;
}

static void put_bytes(struct cursor *c, const void *p, size_t n)
{
	memcpy(c->out, p, n);
	c->out += n;
}

static void take_bytes(struct cursor *c, void *p, size_t n)
{
	memcpy(p, c->in, n);
	c->in += n;
}

/* --- text --- */

static void put_text(struct cursor *c, const char *text, size_t size)
{
	size_t n = strnlen(text, size - 1);

	memcpy(c->out, text, n);
	memset(c->out + n, 0, size - n);
	c->out += size;
}

/* Ends within its member, and nothing is hidden behind the end. */
static void take_text(struct cursor *c, char *dst, size_t size)
{
	size_t n = strnlen((const char *)c->in, size);

	for (size_t i = n; i < size; i++)
		c->bad |= c->in[i] != 0;
	c->bad |= n == size;
	memcpy(dst, c->in, size);
	dst[size - 1] = '\0';
	c->in += size;
}

static void take_printable(struct cursor *c, char *dst, size_t size)
{
	take_text(c, dst, size);
	for (size_t i = 0; dst[i]; i++)
		if (dst[i] < 0x20 || dst[i] > 0x7e)
			dst[i] = '?';
}

static bool name_char(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
	       c == '-';
}

static void take_hostname(struct cursor *c, char dst[static AV_GUEST_HOSTNAME_MAX + 1])
{
	take_text(c, dst, AV_GUEST_HOSTNAME_MAX + 1);
	c->bad |= dst[0] == '-';
	for (size_t i = 0; dst[i]; i++)
		c->bad |= !name_char(dst[i]);
}

/* --- bodies --- */

static void put_identity(struct cursor *c, const struct av_guest_identity *v)
{
	put_text(c, v->id, sizeof(v->id));
	put_text(c, v->hostname, sizeof(v->hostname));
	put_bytes(c, v->machine_id, sizeof(v->machine_id));
	put_bytes(c, v->entropy, sizeof(v->entropy));
	put_bytes(c, v->mac, sizeof(v->mac));
	put_number(c, v->prefix_len, 1);
	put_number(c, v->flags, 1);
	put_number(c, v->address, 4);
	put_number(c, v->gateway, 4);
	put_number(c, v->resolver, 4);
	put_number(c, (uint64_t)v->real_ns, 8);
	put_number(c, v->disk_bytes, 8);
	put_number(c, v->pids_max, 4);
}

static void take_identity(struct cursor *c, struct av_guest_identity *v)
{
	take_text(c, v->id, sizeof(v->id));
	c->bad |= !av_id_valid(av_str_c(v->id), AV_ID_SANDBOX);
	take_hostname(c, v->hostname);
	c->bad |= v->hostname[0] == '\0';
	take_bytes(c, v->machine_id, sizeof(v->machine_id));
	take_bytes(c, v->entropy, sizeof(v->entropy));
	take_bytes(c, v->mac, sizeof(v->mac));
	c->bad |= (v->mac[0] & MAC_MULTICAST) != 0;
	v->prefix_len = (uint8_t)take_number(c, 1);
	v->flags = (uint8_t)take_number(c, 1);
	v->address = (uint32_t)take_number(c, 4);
	v->gateway = (uint32_t)take_number(c, 4);
	v->resolver = (uint32_t)take_number(c, 4);
	/* Without an address the rest of them has no meaning, and must say so. */
	if (v->address)
		c->bad |= v->prefix_len < PREFIX_MIN || v->prefix_len > PREFIX_MAX;
	else
		c->bad |= v->prefix_len || v->gateway || v->resolver;
	c->bad |= (v->flags & ~ALL_FLAGS) != 0;
	v->real_ns = (int64_t)take_number(c, 8);
	c->bad |= v->real_ns < 0;
	v->disk_bytes = take_number(c, 8);
	c->bad |= v->disk_bytes > INT64_MAX;
	v->pids_max = (uint32_t)take_number(c, 4);
}

static void take_error(struct cursor *c, int32_t *ret)
{
	uint64_t v = take_number(c, 4);

	c->bad |= v > ERRNO_MAX;
	*ret = (int32_t)AV_MIN(v, (uint64_t)ERRNO_MAX);
}

static void put_confirm(struct cursor *c, const struct av_guest_confirm *v)
{
	put_number(c, (uint32_t)v->error, 4);
	put_text(c, v->text, sizeof(v->text));
	put_text(c, v->hostname, sizeof(v->hostname));
	put_bytes(c, v->machine_id, sizeof(v->machine_id));
	put_bytes(c, v->mac, sizeof(v->mac));
	put_number(c, v->address, 4);
	put_number(c, (uint64_t)v->real_ns, 8);
}

static void take_confirm(struct cursor *c, struct av_guest_confirm *v)
{
	take_error(c, &v->error);
	take_printable(c, v->text, sizeof(v->text));
	take_hostname(c, v->hostname);
	take_bytes(c, v->machine_id, sizeof(v->machine_id));
	take_bytes(c, v->mac, sizeof(v->mac));
	v->address = (uint32_t)take_number(c, 4);
	v->real_ns = (int64_t)take_number(c, 8);
	c->bad |= v->real_ns < 0;
}

static void put_hello(struct cursor *c, const struct av_guest_hello *v)
{
	put_number(c, v->version, 4);
	put_text(c, v->agent, sizeof(v->agent));
	put_text(c, v->kernel, sizeof(v->kernel));
}

static void take_hello(struct cursor *c, struct av_guest_hello *v)
{
	v->version = (uint32_t)take_number(c, 4);
	take_printable(c, v->agent, sizeof(v->agent));
	take_printable(c, v->kernel, sizeof(v->kernel));
}

static void put_done(struct cursor *c, const struct av_guest_done *v)
{
	put_number(c, (uint32_t)v->error, 4);
	put_text(c, v->text, sizeof(v->text));
}

static void take_done(struct cursor *c, struct av_guest_done *v)
{
	take_error(c, &v->error);
	take_printable(c, v->text, sizeof(v->text));
}

/* --- messages --- */

static void put_body(struct cursor *c, const struct av_guest_message *m)
{
	switch (m->type) {
	case AV_GUEST_IDENTITY:
		put_identity(c, &m->identity);
		break;
	case AV_GUEST_HELLO:
		put_hello(c, &m->hello);
		break;
	case AV_GUEST_DONE:
		put_done(c, &m->done);
		break;
	case AV_GUEST_CONFIRM:
		put_confirm(c, &m->confirm);
		break;
	case AV_GUEST_RECORD:
		put_bytes(c, m->record, sizeof(m->record));
		break;
	case AV_GUEST_KILLS:
		put_number(c, m->kills, 4);
		break;
	case AV_GUEST_NONE:
	case AV_GUEST_FREEZE:
	case AV_GUEST_THAW:
	case AV_GUEST_WARM:
		break;
	}
}

/* Bytes of a body of that type, or -1: there is no such type. */
static int body_size(uint64_t type)
{
	switch (type) {
	case AV_GUEST_FREEZE:
	case AV_GUEST_THAW:
	case AV_GUEST_WARM:
		return 0;
	case AV_GUEST_IDENTITY:
		return AV_ID_SIZE + AV_GUEST_HOSTNAME_MAX + 1 + 16 + 64 + 6 + 1 + 1 + 3 * 4 +
		       2 * 8 + 4;
	case AV_GUEST_HELLO:
		return 4 + SIZE_OF(hello.agent) + SIZE_OF(hello.kernel);
	case AV_GUEST_DONE:
		return 4 + SIZE_OF(done.text);
	case AV_GUEST_CONFIRM:
		return 4 + SIZE_OF(confirm.text) + AV_GUEST_HOSTNAME_MAX + 1 + 16 + 6 + 4 + 8;
	case AV_GUEST_RECORD:
		return AV_EXIT_RECORD_SIZE;
	case AV_GUEST_KILLS:
		return 4;
	default:
		return -1;
	}
}

size_t av_guest_encode(uint8_t dst[static AV_GUEST_MESSAGE_MAX], const struct av_guest_message *m)
{
	struct cursor c = {.out = dst};
	int body = body_size(m->type);

	assert(body >= 0 && HEAD + body <= AV_GUEST_MESSAGE_MAX);
	put_bytes(&c, magic, sizeof(magic));
	put_number(&c, m->type, 2);
	put_number(&c, 0, 2);
	put_number(&c, m->seq, 4);
	put_number(&c, (uint64_t)body, 4);
	put_body(&c, m);
	assert(c.out == dst + HEAD + body);
	return (size_t)(c.out - dst);
}

static void take_body(struct cursor *c, struct av_guest_message *m)
{
	switch (m->type) {
	case AV_GUEST_IDENTITY:
		take_identity(c, &m->identity);
		break;
	case AV_GUEST_HELLO:
		take_hello(c, &m->hello);
		break;
	case AV_GUEST_DONE:
		take_done(c, &m->done);
		break;
	case AV_GUEST_CONFIRM:
		take_confirm(c, &m->confirm);
		break;
	case AV_GUEST_RECORD:
		take_bytes(c, m->record, sizeof(m->record));
		break;
	case AV_GUEST_KILLS:
		m->kills = (uint32_t)take_number(c, 4);
		break;
	case AV_GUEST_NONE:
	case AV_GUEST_FREEZE:
	case AV_GUEST_THAW:
	case AV_GUEST_WARM:
		break;
	}
}

int av_guest_decode(struct av_str record, struct av_guest_message *ret)
{
	struct cursor c = {.in = (const uint8_t *)record.p};
	struct av_guest_message m = {0};
	uint64_t type, zero, bytes;
	int body;

	if (record.n < HEAD || memcmp(record.p, magic, sizeof(magic)) != 0)
		return -EPROTO;
	c.in += sizeof(magic);
	type = take_number(&c, 2);
	zero = take_number(&c, 2);
	m.seq = (uint32_t)take_number(&c, 4);
	bytes = take_number(&c, 4);
	body = body_size(type);
	if (body < 0 || zero != 0 || bytes != (uint64_t)body || record.n != HEAD + (size_t)body)
		return -EPROTO;
	m.type = (enum av_guest_type)type;
	take_body(&c, &m);
	assert(c.in == (const uint8_t *)record.p + record.n);
	if (c.bad)
		return -EPROTO;
	*ret = m;
	return 0;
}
