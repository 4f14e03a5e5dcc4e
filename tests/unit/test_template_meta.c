/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_template_meta.c - records of templates: what was written is read, also by the version
 * before, and nothing else is
 */
#include "spawn/template_meta.h"

#include <errno.h>
#include <fcntl.h>
#include <sodium/crypto_generichash_blake2b.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib/tap.h"
#include "base/fd.h"
#include "base/banned.h"

#define ID "tp0123456789abcdefghijklmno"

/* Version 1 as it was: a copy, so that no change of today's layout can change it. */
struct record_v1 {
	char magic[8];
	uint32_t version, flags, id_base, depth;
	char id[64], parent[64], host_fingerprint[32];
	uint64_t bytes, entries;
	int64_t created_ms;
	uint8_t content[32], parent_seal[32], seal[32];
};
static_assert(sizeof(struct record_v1) == 304, "as it lies on disks");

static void put(int dir, const void *p, size_t n)
{
	(void)unlinkat(dir, TEMPLATE_META_NAME, 0);
	AV_CLEANUP(av_closep)
	int fd = openat(dir, TEMPLATE_META_NAME, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	ok(fd >= 0 && av_write_full(fd, p, n) == 0, "write %zu bytes", n);
}

static void is_refused(int dir, const char *part)
{
	struct template_meta m;
	struct av_err err = {0};
	is_int(template_meta_read(dir, ID, &m, &err), -EBADMSG, "refused");
	ok(err.kind == AV_ERR_CHECKSUM && strstr(err.message, part), "because it %s: %s", part,
	    err.message);
}

static void test_today(int dir)
{
	struct template_meta m = {.depth = 3, .id = ID, .parent = "host", .generation = 77}, got;
	struct av_err err = {0};

	memset(m.content, 5, sizeof(m.content));
	template_meta_seal(&m);
	is_int(template_meta_write(dir, &m), 0, "write a record");
	is_int(template_meta_read(dir, ID, &got, &err), 0, "read it");
	ok(memcmp(&m, &got, sizeof(m)) == 0, "all of it is the same");
	got.version = 1;
	put(dir, &got, template_meta_size(2));
	is_refused(dir, "has a version");
	got.version = TEMPLATE_RESTORED + 1;
	put(dir, &got, sizeof(got));
	is_refused(dir, "has a version");
	got = m;
	got.flags = TEMPLATE_ON_HOST;
	got.generation = 0;
	template_meta_seal_restored(&got);
	(void)unlinkat(dir, TEMPLATE_META_NAME, 0);
	is_int(template_meta_write(dir, &got), 0, "write that of one from a backup");
	is_int(template_meta_read(dir, ID, &got, &err), 0, "read it");
	ok(got.version == TEMPLATE_RESTORED && got.flags == TEMPLATE_ON_HOST &&
	        memcmp(got.identity, m.seal, sizeof(m.seal)) == 0 &&
	        memcmp(got.seal, m.seal, sizeof(m.seal)) != 0,
	    "it is known by the seal that it was made with");
	got.identity[3] ^= 1;
	put(dir, &got, sizeof(got));
	is_refused(dir, "was changed");
	m.generation++;
	put(dir, &m, template_meta_size(2));
	is_refused(dir, "was changed");
	put(dir, &m, sizeof(m) - 1);
	is_refused(dir, "has another length");
}

static void test_version_1(int dir)
{
	struct record_v1 old = {.magic = {'A', 'V', 'T', 'M', 'P', 'L', '\r', '\n'},
	    .version = 1,
	    .flags = TEMPLATE_IN_IMAGE,
	    .id_base = 9,
	    .depth = 2,
	    .id = ID,
	    .parent = "host",
	    .host_fingerprint = "f",
	    .bytes = 10,
	    .entries = 11,
	    .created_ms = 12};
	struct template_meta m;
	struct av_err err = {0};

	memset(old.content, 1, sizeof(old.content));
	memset(old.parent_seal, 2, sizeof(old.parent_seal));
	crypto_generichash_blake2b(old.seal, sizeof(old.seal), (const unsigned char *)&old,
	    sizeof(old) - sizeof(old.seal), NULL, 0);
	put(dir, &old, sizeof(old));
	is_int(template_meta_read(dir, ID, &m, &err), 0, "read a record of version 1");
	ok(m.version == 1 && m.flags == TEMPLATE_IN_IMAGE && m.id_base == 9 && m.depth == 2 &&
	        m.bytes == 10 && m.entries == 11 && m.created_ms == 12,
	    "its numbers");
	is_int(m.generation, 0, "it knows no generation");
	ok(memcmp(m.content, old.content, 32) == 0 &&
	        memcmp(m.parent_seal, old.parent_seal, 32) == 0 &&
	        memcmp(m.seal, old.seal, 32) == 0,
	    "its checksums, and the seal that others know it by");
	old.content[31] ^= 1;
	put(dir, &old, sizeof(old));
	is_refused(dir, "was changed");
	old.content[31] ^= 1;
	old.entries++;
	put(dir, &old, sizeof(old));
	is_refused(dir, "was changed");
	old.version = TEMPLATE_VERSION;
	put(dir, &old, sizeof(old));
	is_refused(dir, "has a version");
}

int main(void)
{
	char path[] = "/tmp/aviary-test-XXXXXX";

	ok(mkdtemp(path) != NULL, "a directory");
	AV_CLEANUP(av_closep) int dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	test_today(dir);
	test_version_1(dir);
	(void)unlinkat(dir, TEMPLATE_META_NAME, 0);
	ok(rmdir(path) == 0, "tidy up");
	return tap_done();
}
