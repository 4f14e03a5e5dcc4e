/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fuzz_guest.c - messages of a guest's control port: what is decoded is the input, but for text
 * that was made printable
 */
#include "proto/guest.h"

#include "fuzz.h"

#include "base/banned.h"

static void check_text(const char *text, size_t size)
{
	size_t n = strnlen(text, size);

	FUZZ_CHECK(n < size);
	for (size_t i = 0; i < n; i++)
		FUZZ_CHECK(text[i] >= 0x20 && text[i] <= 0x7e);
}

static void check_member_text(const struct av_guest_message *m)
{
	if (m->type == AV_GUEST_HELLO) {
		check_text(m->hello.agent, sizeof(m->hello.agent));
		check_text(m->hello.kernel, sizeof(m->hello.kernel));
	} else if (m->type == AV_GUEST_DONE) {
		check_text(m->done.text, sizeof(m->done.text));
	} else if (m->type == AV_GUEST_CONFIRM) {
		check_text(m->confirm.text, sizeof(m->confirm.text));
		check_text(m->confirm.hostname, sizeof(m->confirm.hostname));
	} else if (m->type == AV_GUEST_IDENTITY) {
		check_text(m->identity.id, sizeof(m->identity.id));
		check_text(m->identity.hostname, sizeof(m->identity.hostname));
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	uint8_t again[AV_GUEST_MESSAGE_MAX];
	struct av_guest_message m;

	if (av_guest_decode(av_str_n((const char *)data, n), &m) < 0)
		return 0;
	check_member_text(&m);
	FUZZ_CHECK(av_guest_encode(again, &m) == n);
	for (size_t i = 0; i < n; i++)
		FUZZ_CHECK(again[i] == data[i] || again[i] == '?');
	return 0;
}
