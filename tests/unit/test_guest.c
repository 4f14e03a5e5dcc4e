/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_guest.c - messages of a guest's control port: there and back, and what is refused
 */
#include "proto/guest.h"

#include <errno.h>

#include "lib/tap.h"

#include "base/banned.h"

#define ID "sb0123456789abcdefghijklmno"

static struct av_guest_message identity(void)
{
	struct av_guest_message m = {.type = AV_GUEST_IDENTITY, .seq = 0x01020304};
	struct av_guest_identity *v = &m.identity;

	snprintf(v->id, sizeof(v->id), ID);
	snprintf(v->hostname, sizeof(v->hostname), "box-1");
	for (int i = 0; i < 64; i++)
		v->entropy[i] = (uint8_t)(200 + i);
	memcpy(v->machine_id, "0123456789abcdef", 16);
	memcpy(v->mac, "\2\0\0\x12\x34\x56", 6);
	v->prefix_len = 27;
	v->flags = AV_GUEST_HAS_INTERNET | AV_GUEST_NO_SUDO;
	v->address = 0xc6120002;
	v->gateway = 0xc6120001;
	v->resolver = 0xc6120003;
	v->real_ns = 1790000000123456789;
	v->disk_bytes = 1ULL << 40;
	v->pids_max = 0xffffffff;
	return m;
}

static struct av_guest_message confirm(void)
{
	struct av_guest_message m = {.type = AV_GUEST_CONFIRM, .seq = 9};

	m.confirm.error = ENODEV;
	snprintf(m.confirm.text, sizeof(m.confirm.text), "eth0: no such device");
	snprintf(m.confirm.hostname, sizeof(m.confirm.hostname), "box-1");
	memcpy(m.confirm.machine_id, "0123456789abcdef", 16);
	memcpy(m.confirm.mac, "\2\0\0\x12\x34\x56", 6);
	m.confirm.address = 0xc6120002;
	m.confirm.real_ns = 1;
	return m;
}

static bool there_and_back(const struct av_guest_message *m)
{
	uint8_t bytes[AV_GUEST_MESSAGE_MAX], again[AV_GUEST_MESSAGE_MAX];
	size_t n = av_guest_encode(bytes, m);
	struct av_guest_message got;

	return av_guest_decode(av_str_n((const char *)bytes, n), &got) == 0 &&
	       got.type == m->type && got.seq == m->seq && av_guest_encode(again, &got) == n &&
	       memcmp(bytes, again, n) == 0;
}

static void test_all_types(void)
{
	static const enum av_guest_type empty[] = {AV_GUEST_FREEZE, AV_GUEST_THAW, AV_GUEST_WARM};
	struct av_guest_message m = identity(), got = {0};
	uint8_t bytes[AV_GUEST_MESSAGE_MAX];
	size_t n = av_guest_encode(bytes, &m);

	is_int(av_guest_decode(av_str_n((const char *)bytes, n), &got), 0, "identity decodes");
	is_str(got.identity.id, ID, "id");
	is_str(got.identity.hostname, "box-1", "host name");
	ok(memcmp(&got.identity.entropy, &m.identity.entropy, 64) == 0, "random bytes");
	is_int(got.identity.prefix_len, 27, "prefix");
	is_int(got.identity.gateway, 0xc6120001, "gateway");
	is_int(got.identity.real_ns, 1790000000123456789, "time");
	ok(got.identity.disk_bytes == 1ULL << 40 && got.identity.pids_max == 0xffffffff, "sizes");
	is_bytes(av_str_n((const char *)bytes, 16), av_str_n("AVG1\3\0\0\0\4\3\2\1\xd4\0\0\0", 16),
	    "the header as documented");
	for (size_t i = 0; i < AV_ARRAY_LEN(empty); i++) {
		m = (struct av_guest_message){.type = empty[i], .seq = 5};
		ok(there_and_back(&m), "type %d", (int)empty[i]);
	}
	m = confirm();
	ok(there_and_back(&m), "confirm");
	m = (struct av_guest_message){.type = AV_GUEST_DONE, .done = {EBUSY, "not now"}};
	ok(there_and_back(&m), "done");
	m = (struct av_guest_message){.type = AV_GUEST_RECORD, .record = {1, 2, 3}};
	ok(there_and_back(&m), "record");
	m = (struct av_guest_message){.type = AV_GUEST_KILLS, .kills = 0xfedcba98};
	ok(there_and_back(&m), "kills");
	m = (struct av_guest_message){.type = AV_GUEST_HELLO, .hello = {1, "0.1", "6.1.0"}};
	ok(there_and_back(&m), "hello");
	m = identity();
	m.identity.address = m.identity.gateway = m.identity.resolver = m.identity.prefix_len = 0;
	ok(there_and_back(&m), "no network");
}

static void refuses(const struct av_guest_message *m, const char *what)
{
	struct av_guest_message got = {.seq = 77};
	uint8_t bytes[AV_GUEST_MESSAGE_MAX];
	size_t n = av_guest_encode(bytes, m);

	is_int(av_guest_decode(av_str_n((const char *)bytes, n), &got), -EPROTO, what);
	if (got.seq != 77)
		ok(false, "nothing is given on failure");
}

#define REFUSED(make, change, what)                                                                \
	do {                                                                                       \
		struct av_guest_message m = make();                                                \
		change;                                                                            \
		refuses(&m, what);                                                                 \
	} while (0)

static void test_values(void)
{
	REFUSED(identity, m.identity.id[0] = 'x', "another kind of id");
	REFUSED(identity, m.identity.id[26] = '\0', "a short id");
	REFUSED(identity, m.identity.hostname[0] = '\0', "no host name");
	REFUSED(identity, m.identity.hostname[0] = '-', "a host name that begins with a dash");
	REFUSED(identity, m.identity.hostname[1] = '.', "a host name with a dot");
	REFUSED(identity, m.identity.hostname[1] = '\n', "a host name with a newline");
	REFUSED(identity, m.identity.mac[0] |= 1, "a multicast address as MAC");
	REFUSED(identity, m.identity.prefix_len = 31, "a prefix too long");
	REFUSED(identity, m.identity.prefix_len = 7, "a prefix too short");
	REFUSED(identity, m.identity.address = 0, "a gateway without an address");
	REFUSED(identity, m.identity.flags = 4, "an unknown flag");
	REFUSED(identity, m.identity.real_ns = -1, "a time before 1970");
	REFUSED(identity, m.identity.disk_bytes = 1ULL << 63, "a size that is no file's");
	REFUSED(confirm, m.confirm.error = -1, "a negative errno");
	REFUSED(confirm, m.confirm.error = 4096, "an errno that is none");
	REFUSED(confirm, m.confirm.hostname[3] = ' ', "a confirmed name with a space");
	REFUSED(confirm, m.confirm.real_ns = -1, "a confirmed time before 1970");
}

static void refuses_bytes(uint8_t *bytes, size_t n, const char *what)
{
	struct av_guest_message got;

	is_int(av_guest_decode(av_str_n((const char *)bytes, n), &got), -EPROTO, what);
}

static void test_bytes(void)
{
	struct av_guest_message m = confirm(), got;
	uint8_t good[AV_GUEST_MESSAGE_MAX], bytes[AV_GUEST_MESSAGE_MAX];
	size_t n = av_guest_encode(good, &m);

	for (size_t i = 0; i < 16; i++) {
		if (i >= 8 && i < 12)
			continue; /* seq may be anything */
		memcpy(bytes, good, n);
		bytes[i] ^= 0x40;
		if (av_guest_decode(av_str_n((const char *)bytes, n), &got) != -EPROTO)
			ok(false, "header byte %zu is checked", i);
	}
	refuses_bytes(good, n - 1, "a byte short");
	refuses_bytes(good, 15, "no whole header");
	refuses_bytes(good, 0, "nothing");
	memcpy(bytes, good, n);
	memset(bytes + 20, 'x', 128);
	refuses_bytes(bytes, n, "text that does not end");
	memcpy(bytes, good, n);
	bytes[20 + 127] = 'x';
	refuses_bytes(bytes, n, "text behind the end of text");
	memcpy(bytes, good, n);
	memcpy(bytes + 20, "a\033[\xff\x7f\n", 6);
	is_int(av_guest_decode(av_str_n((const char *)bytes, n), &got), 0, "odd text is taken");
	ok(strncmp(got.confirm.text, "a?[???", 6) == 0, "and made printable: %s", got.confirm.text);
}

int main(void)
{
	test_all_types();
	test_values();
	test_bytes();
	return tap_done();
}
