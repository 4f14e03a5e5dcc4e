/* SPDX-License-Identifier: Apache-2.0 */
/*
 * names.c - ids of the layers that virtual machines are made of (see names.h)
 */
#include "node/vm/names.h"

#include <fcntl.h>
#include <sodium.h>
#include <string.h>

#include "base/fd.h"
#include "base/str.h"

#include "base/banned.h"

enum { ENVIRONMENT = 2, TEMPLATE = 7, BASE = 15, SHAPE = 21, END = 27 };
static_assert(END == AV_ID_LEN, "the parts make an id");

/* n characters that stand for what was hashed. */
static void finish(crypto_generichash_state *h, char *dst, size_t n)
{
	static const char digits[] = "0123456789abcdefghijklmnopqrstuvwxyz";
	uint8_t hash[32];

	(void)crypto_generichash_final(h, hash, sizeof(hash));
	for (size_t i = 0; i < n; i++) {
		/* Two bytes for each: no digit is noticeably more likely. */
		unsigned int v = hash[2 * i] * 256u + hash[2 * i + 1];

		dst[i] = digits[v % 36];
	}
}

static void start(crypto_generichash_state *h)
{
	(void)crypto_generichash_init(h, NULL, 0, 32);
}

static void add(crypto_generichash_state *h, const void *p, size_t n)
{
	(void)crypto_generichash_update(h, p, n);
}

static void name_environment(char *dst, const uint8_t environment[static 32])
{
	crypto_generichash_state h;

	start(&h);
	add(&h, environment, 32);
	finish(&h, dst, TEMPLATE - ENVIRONMENT);
}

static void name_template(char *dst, const char *template_id)
{
	crypto_generichash_state h;

	start(&h);
	add(&h, template_id, strlen(template_id));
	finish(&h, dst, BASE - TEMPLATE);
}

void vm_name_image(char dst[static AV_ID_SIZE], const uint8_t environment[static 32],
    const struct driver_spec *spec)
{
	crypto_generichash_state h;

	memcpy(dst, AV_ID_VM_LAYER, ENVIRONMENT);
	name_environment(dst + ENVIRONMENT, environment);
	name_template(dst + TEMPLATE, spec->template_id);
	start(&h);
	add(&h, spec->template_seal, sizeof(spec->template_seal));
	add(&h, spec->kernel_seal, sizeof(spec->kernel_seal));
	add(&h, spec->kernel_id, strlen(spec->kernel_id));
	finish(&h, dst + BASE, SHAPE - BASE);
	memset(dst + SHAPE, '0', END - SHAPE);
	dst[END] = '\0';
}

void vm_name_golden(char dst[static AV_ID_SIZE], const char *image_id, const struct vm_shape *shape)
{
	crypto_generichash_state h;

	memcpy(dst, image_id, SHAPE);
	start(&h);
	add(&h, &shape->vcpus, sizeof(shape->vcpus));
	add(&h, &shape->accel, sizeof(shape->accel));
	add(&h, &shape->memory_bytes, sizeof(shape->memory_bytes));
	add(&h, &shape->disk_bytes, sizeof(shape->disk_bytes));
	add(&h, shape->cpu, sizeof(shape->cpu));
	finish(&h, dst + SHAPE, END - SHAPE);
	dst[END] = '\0';
}

bool vm_name_is_golden(const char *id)
{
	return memcmp(id + SHAPE, "000000", END - SHAPE) != 0;
}

bool vm_name_same_environment(const char *id, const uint8_t environment[static 32])
{
	char want[TEMPLATE - ENVIRONMENT];

	name_environment(want, environment);
	return memcmp(id + ENVIRONMENT, want, sizeof(want)) == 0;
}

bool vm_name_same_template(const char *id, const char *template_id)
{
	char want[BASE - TEMPLATE];

	name_template(want, template_id);
	return memcmp(id + TEMPLATE, want, sizeof(want)) == 0;
}

bool vm_name_is_outdated(const char *id, const char *image_id)
{
	return memcmp(id, image_id, BASE) == 0 &&
	       memcmp(id + BASE, image_id + BASE, SHAPE - BASE) != 0;
}

void vm_name_cpu(uint8_t dst[static 16])
{
	static const char *const lines[] = {
	    "vendor_id", "cpu family", "model", "stepping", "microcode", "flags"};
	AV_CLEANUP(av_closep) int fd = open("/proc/cpuinfo", O_RDONLY | O_CLOEXEC);
	char text[16384]; /* the first processor is what counts */
	ssize_t n = fd < 0 ? 0 : av_read_full(fd, text, sizeof(text));
	struct av_str rest = av_str_n(text, n > 0 ? (size_t)n : 0), line;
	crypto_generichash_state h;
	uint8_t hash[32];

	start(&h);
	for (bool more = rest.n > 0; more && rest.n > 0;) {
		more = av_str_cut(&rest, '\n', &line);
		if (line.n == 0)
			break;
		for (size_t i = 0; i < AV_ARRAY_LEN(lines); i++)
			if (av_str_starts(line, av_str_c(lines[i])))
				add(&h, line.p, line.n);
	}
	(void)crypto_generichash_final(&h, hash, sizeof(hash));
	memcpy(dst, hash, 16);
}
