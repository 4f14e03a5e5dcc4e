/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_vm_info.c - the record of a save: both ways, and everything that it refuses
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <unistd.h>
#include <xxhash.h>

#include "base/buf.h"
#include "lib/tap.h"
#include "vm/info.h"
#include "vm/vm_wire.h"
#include "base/banned.h"

static struct vm_info sample(void)
{
	static struct vm_info_block blocks[] = {
	    {.index = 0, .pages = {1, 0, 0, 0}, .sum = 0x1234},
	    {.index = 511, .pages = {~0ull, 0, 0, 1ull << 63}, .sum = UINT64_MAX},
	};
	struct vm_info info = {.vcpus = 2,
	    .accel = VM_ACCEL_TCG,
	    .memory_bytes = 512 << 20,
	    .qemu = "7.2.22 (Debian 1:7.2+dfsg-7)",
	    .machine = "pc-q35-7.2",
	    .cpu = "max",
	    .kernel = "6.1.0-56-cloud-amd64",
	    .base = "-",
	    .state_bytes = 79000,
	    .state_sum = 7,
	    .disk_bytes = 1 << 28,
	    .pages = 66,
	    .blocks = blocks,
	    .n_blocks = 2};
	return info;
}

static void test_both_ways(void)
{
	struct vm_info info = sample(), back;
	struct av_buf text = AV_BUF_INIT(1 << 16);
	struct av_err err;
	is_int(vm_info_encode(&text, &info, &err), 0, "encoded");
	is_int(vm_info_decode(av_buf_str(&text), &back, &err), 0, "decoded");
	ok(back.vcpus == 2 && back.accel == VM_ACCEL_TCG && back.memory_bytes == 512u << 20 &&
	        back.state_bytes == 79000 && back.state_sum == 7 && back.disk_bytes == 1 << 28 &&
	        back.pages == 66 && back.n_blocks == 2,
	    "the numbers are the same");
	is_str(back.qemu, info.qemu, "a text with spaces");
	is_str(back.base, "-", "a text of one character");
	ok(memcmp(back.blocks, info.blocks, 2 * sizeof(*info.blocks)) == 0,
	    "the blocks are the same");
	vm_info_clear(&back);
	ok(!back.blocks && back.vcpus == 0, "nothing is left");
	av_buf_clear(&text);
}

/* With a right end, whatever stands before. */
static int decode_with_end(const char *text, struct av_err *err)
{
	struct vm_info back;
	struct av_buf all = AV_BUF_INIT(1 << 16);
	(void)av_buf_append_c(&all, text);
	(void)av_buf_printf(&all, "end %016" PRIx64 "\n", XXH3_64bits(text, strlen(text)));
	int r = vm_info_decode(av_buf_str(&all), &back, err);
	if (r == 0)
		vm_info_clear(&back);
	av_buf_clear(&all);
	return r;
}

#define HEAD                                                                                       \
	"aviary-vm-save 1\nshape 1 2097152\naccel kvm\nqemu 7\nmachine q\ncpu c\nkernel k\nbase "  \
	"b\n"                                                                                      \
	"page 4096\nstate 1 0000000000000001\ndisk 0\n"
#define ZEROS "000000000000000000000000000000000000000000000000"
#define ONE   ZEROS "0000000000000001 0000000000000000\n"

static void test_refused(void)
{
	static const char *const good[] = {HEAD "memory 0 0\n", HEAD "memory 1 1\nblock 1 " ONE,
	    HEAD "memory 2 2\nblock 0 " ONE "block 1 " ONE};
	static const char *const bad[][2] = {
	    {"", "nothing"},
	    {"aviary-vm-save 2\n", "another version"},
	    {"aviary-vm-save 1\n", "only the first line"},
	    {"aviary-vm-save 1\nshape 0 2097152\naccel kvm\n", "no processor"},
	    {"aviary-vm-save 1\nshape 1 2097153\naccel kvm\n", "memory that is no multiple"},
	    {"aviary-vm-save 1\nshape 1 2097152\naccel xen\n", "an unknown accelerator"},
	    {"aviary-vm-save 1\nshape 01 2097152\naccel kvm\n", "a leading zero"},
	    {"aviary-vm-save 1\nshape 1 2097152\naccel kvm\nqemu \n", "an empty text"},
	    {"aviary-vm-save 1\nshape 1 2097152\naccel kvm\nqemu a\tb\n", "a text with a tab"},
	    {HEAD "memory 1 0\n", "pages without blocks"},
	    {HEAD "memory 0 1\n", "blocks that are not there"},
	    {HEAD "memory 2 1\nblock 1 " ONE, "more pages than blocks have"},
	    {HEAD "memory 1 1\nblock 2 " ONE, "a block behind the memory"},
	    {HEAD "memory 2 2\nblock 1 " ONE "block 0 " ONE, "blocks out of order"},
	    {HEAD "memory 2 2\nblock 1 " ONE "block 1 " ONE, "a block twice"},
	    {HEAD "memory 1 1\nblock 1 " ZEROS "0000000000000000 0000000000000000\n",
	        "a block without pages"},
	    {HEAD "memory 1 1\nblock 1 " ZEROS "000000000000000A 0000000000000000\n",
	        "capital digits"},
	    {HEAD "memory 1 1\nblock 1 " ONE "\n", "an empty line"},
	    {HEAD "memory 1 18446744073709551615\n", "a number of blocks that nothing can hold"},
	};
	struct av_err err;
	for (size_t i = 0; i < AV_ARRAY_LEN(good); i++)
		is_int(decode_with_end(good[i], &err), 0, "a record that is right");
	for (size_t i = 0; i < AV_ARRAY_LEN(bad); i++)
		ok(decode_with_end(bad[i][0], &err) < 0 && err.kind == AV_ERR_CHECKSUM,
		    "refused: %s (%s)", bad[i][1], err.message);
}

/* Every cut and every flipped bit of a record is noticed. */
static void test_damage(void)
{
	struct vm_info info = sample(), back;
	struct av_buf text = AV_BUF_INIT(1 << 16);
	struct av_err err;
	size_t taken = 0;
	if (vm_info_encode(&text, &info, &err) < 0)
		return;
	for (size_t n = 0; n < text.n; n++)
		taken += vm_info_decode(av_str_n(text.p, n), &back, &err) == 0;
	is_int(taken, 0, "no cut record is taken");
	for (size_t i = 0; i < text.n * 8; i++) {
		text.p[i / 8] = (char)(text.p[i / 8] ^ 1 << i % 8);
		taken += vm_info_decode(av_buf_str(&text), &back, &err) == 0;
		text.p[i / 8] = (char)(text.p[i / 8] ^ 1 << i % 8);
	}
	is_int(taken, 0, "no record with a flipped bit is taken");
	(void)av_buf_append_c(&text, "x");
	is_int(vm_info_decode(av_buf_str(&text), &back, &err), -EBADMSG,
	    "nor one with more behind it");
	av_buf_clear(&text);
}

static void test_files(void)
{
	char dir[] = "/tmp/aviary-test-info-XXXXXX", path[64];
	struct vm_info info = sample(), back;
	struct av_err err;
	if (!mkdtemp(dir))
		tap_skip_all(false, "no directory");
	(void)snprintf(path, sizeof(path), "%s/info", dir);
	is_int(vm_info_read(path, &back, &err), -ENOENT, "a record that is not there");
	info.cpu[0] = '\0';
	is_int(vm_info_write(path, &info, &err), -EINVAL, "a text that may not be empty");
	ok(strstr(err.message, "\"cpu\"") != NULL, "the message names it: %s", err.message);
	ok(access(path, F_OK) < 0, "there is no file");
	info = sample();
	is_int(vm_info_write(path, &info, &err), 0, "written");
	ok(vm_info_write(path, &info, &err) < 0, "not over another");
	is_int(vm_info_read(path, &back, &err), 0, "read");
	vm_info_clear(&back);
	ok(truncate(path, 300) == 0 && vm_info_read(path, &back, &err) == -EBADMSG &&
	        strstr(err.message, path),
	    "a cut file: %s", err.message);
	(void)unlink(path);
	(void)rmdir(dir);
}

int main(void)
{
	test_both_ways();
	test_refused();
	test_damage();
	test_files();
	return tap_done();
}
