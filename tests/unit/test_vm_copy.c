/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_vm_copy.c - copies of sparse files, and zeros that become holes
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "lib/tap.h"
#include "vm/copy.h"
#include "base/banned.h"

#define KIB 1024

static char dir[] = "/tmp/aviary-test-copy-XXXXXX";
static char from[64], to[64];

static void put(int fd, off_t at, int byte, size_t n)
{
	char block[4096];
	memset(block, byte, sizeof(block));
	for (size_t i = 0; i < n; i += sizeof(block))
		if (pwrite(fd, block, AV_MIN(sizeof(block), n - i), at + (off_t)i) < 0)
			abort();
}

/* 64 MiB, with data at three places, the last up to the end, which is no block's. */
#define SIZE (64 * KIB * KIB + 5)
static void make_sparse(const char *path)
{
	AV_CLEANUP(av_closep) int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0 || ftruncate(fd, SIZE) < 0)
		abort();
	put(fd, 0, 'a', 4096);
	put(fd, 10 * KIB * KIB, 'b', 3 * KIB * KIB + 100);
	put(fd, SIZE - 5, 'c', 5);
}

static bool same(const char *a, const char *b)
{
	static char x[KIB * KIB], y[KIB * KIB];
	AV_CLEANUP(av_closep) int f = open(a, O_RDONLY | O_CLOEXEC);
	AV_CLEANUP(av_closep) int g = open(b, O_RDONLY | O_CLOEXEC);
	for (;;) {
		ssize_t n = av_read_full(f, x, sizeof(x)), m = av_read_full(g, y, sizeof(y));
		if (n < 0 || n != m || memcmp(x, y, (size_t)n) != 0)
			return false;
		if (n == 0)
			return true;
	}
}

static long long used(const char *path)
{
	struct stat st;
	return stat(path, &st) < 0 ? -1 : (long long)st.st_blocks * 512;
}

static void test_copy(void)
{
	struct vm_copied c;
	struct av_err err;
	make_sparse(from);
	is_int(vm_copy(from, to, &c, &err), 0, "copied");
	ok(same(from, to), "the same content");
	is_int(c.size_bytes, SIZE, "and size");
	ok(c.shared || (c.bytes >= 3 * KIB * KIB && c.bytes < 8 * KIB * KIB),
	    "holes were not read");
	ok(c.shared || used(to) < 8 * KIB * KIB, "holes stayed holes");
	is_int(vm_copy(from, to, &c, &err), -EEXIST, "not over another");
	ok(same(from, to), "which is still there");
	(void)unlink(to);
}

static void test_empty(void)
{
	struct vm_copied c;
	struct av_err err;
	AV_CLEANUP(av_closep) int fd = open(from, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	is_int(vm_copy(from, to, &c, &err), 0, "an empty file");
	(void)unlink(to);
	ok(ftruncate(fd, 1 << 20) == 0 && vm_copy(from, to, &c, &err) == 0 && same(from, to),
	    "a file that is one hole");
	(void)unlink(to);
}

static void test_refused(void)
{
	struct av_err err;
	is_int(vm_copy("/nowhere/at/all", to, NULL, &err), -ENOENT, "a file that is not there");
	ok(strstr(err.message, "/nowhere/at/all") != NULL, "is named: %s", err.message);
	is_int(vm_copy("/dev/null", to, NULL, &err), -EINVAL, "a device");
	ok(access(to, F_OK) < 0, "nothing is left of it");
	make_sparse(from);
	ok(symlink(from, to) == 0 && vm_copy(to, "/tmp/x/y", NULL, &err) < 0, "a link");
	(void)unlink(to);
}

static void test_punch(void)
{
	struct av_err err;
	uint64_t freed = 1;
	make_sparse(from);
	{
		AV_CLEANUP(av_closep) int fd = open(from, O_RDWR | O_CLOEXEC);
		put(fd, 20 * KIB * KIB, 0, 2 * KIB * KIB); /* to be freed */
		put(fd, 11 * KIB * KIB, 0, 32 * KIB);      /* too few */
		put(fd, 12 * KIB * KIB, 0, 64 * KIB);      /* just enough, within others */
	}
	if (vm_copy(from, to, NULL, &err) < 0)
		abort();
	long long before = used(from);
	is_int(vm_punch_zeros(from, &freed, &err), 0, "zeros are freed");
	ok(same(from, to), "what is read is the same");
	is_int(freed, 2 * KIB * KIB + 64 * KIB, "as many as there were");
	ok(used(from) <= before - 2 * KIB * KIB, "%lld bytes, before %lld", used(from), before);
	is_int(vm_punch_zeros(from, &freed, &err), 0, "once more");
	is_int(freed, 0, "there is nothing left to be freed");
	(void)unlink(to);
}

int main(void)
{
	if (!mkdtemp(dir))
		tap_skip_all(false, "no directory");
	(void)snprintf(from, sizeof(from), "%s/from", dir);
	(void)snprintf(to, sizeof(to), "%s/to", dir);
	test_copy();
	test_empty();
	test_refused();
	test_punch();
	(void)unlink(from);
	(void)rmdir(dir);
	return tap_done();
}
