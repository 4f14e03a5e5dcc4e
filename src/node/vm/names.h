/* SPDX-License-Identifier: Apache-2.0 */
/*
 * names.h - ids of the layers that virtual machines are made of
 *
 * A layer is named after what it was made of, so that nothing has to be remembered about it:
 *
 *   "vm" environment[5] template[8] base[6] shape[6]      each [0-9a-z], each a part of a BLAKE2b
 *
 * environment: the programs it was made with and by; template: the template's id; base: the
 * template's seal and the kernel; shape: processors, memory and accelerator of a machine that
 * stands still (a "golden" one), "000000" for an image. Short parts suffice: template ids are
 * random and not chosen by anybody, and the worker checks seals besides.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/ids.h"
#include "node/driver.h"

/* What a golden machine is like. */
struct vm_shape {
	uint32_t vcpus;
	uint32_t accel; /* enum vm_accel */
	uint64_t memory_bytes;
	uint64_t disk_bytes; /* that it is made with; what a sandbox wants more its disk grows to */
	uint8_t cpu[16];     /* the processor's model, where it shows (KVM); else zero */
};

/* Where an id comes from; 0 for an image's shape. */
void vm_name_image(char dst[static AV_ID_SIZE], const uint8_t environment[static 32],
    const struct driver_spec *spec);
void vm_name_golden(
    char dst[static AV_ID_SIZE], const char *image_id, const struct vm_shape *shape);
/* Of an id made by these, or of any with the right form. */
bool vm_name_is_golden(const char *id);
bool vm_name_same_environment(const char *id, const uint8_t environment[static 32]);
bool vm_name_same_template(const char *id, const char *template_id);
/* Made for the same template in the same environment, but of another base. */
bool vm_name_is_outdated(const char *id, const char *image_id);
/* Of the machine's own processor, from /proc/cpuinfo: changes when a saved machine could not go on
 * with KVM. Blocks for a short read. */
void vm_name_cpu(uint8_t dst[static 16]);
