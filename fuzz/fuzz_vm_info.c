/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fuzz_vm_info.c - records of saves: what is decoded, encoded again, is the input
 *
 * Each input is tried as it is, and with the line behind it that ends a record, which no fuzzer
 * would find: it has a checksum.
 */
#include <inttypes.h>
#include <xxhash.h>

#include "base/buf.h"
#include "vm/info.h"

#include "fuzz.h"

#include "base/banned.h"

static void try(struct av_str text)
{
	struct vm_info info;
	struct av_err err = {0};
	if (vm_info_decode(text, &info, &err) < 0) {
		FUZZ_CHECK(err.message[0] != '\0');
		return;
	}
	struct av_buf out = AV_BUF_INIT(1 << 24);
	FUZZ_CHECK(vm_info_encode(&out, &info, &err) == 0);
	FUZZ_CHECK(av_str_eq(av_buf_str(&out), text));
	av_buf_clear(&out);
	vm_info_clear(&info);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	struct av_buf whole = AV_BUF_INIT(1 << 24);
	try(av_str_n((const char *)data, n));
	FUZZ_CHECK(av_buf_append(&whole, data, n) == 0);
	FUZZ_CHECK(av_buf_printf(&whole, "end %016" PRIx64 "\n", XXH3_64bits(data, n)) == 0);
	try(av_buf_str(&whole));
	av_buf_clear(&whole);
	return 0;
}
