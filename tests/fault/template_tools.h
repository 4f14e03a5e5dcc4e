/* SPDX-License-Identifier: Apache-2.0 */
/*
 * template_tools.h - a template written by hand below the state directory of a spawn_client
 *
 * For layers that no snapshot would make. Failures end the test.
 */
#pragma once

#include <stdint.h>
#include <sys/types.h>

#include "spawn/template_meta.h"
#include "tests/fault/spawn_client.h"

struct template_tool {
	char id[AV_ID_SIZE];
	char dir[200];  /* <state>/templates/<id> */
	char root[256]; /* its layer: root/ */
	char usr[256];  /* and usr/ */
	uint32_t id_base;
	struct template_meta meta;
};

/* New directories, on template host as the worker has it; nothing in the layer yet. */
void template_tool_begin(struct spawn_client *c, struct template_tool *t);
/* Checksum and record of what the layer holds now. */
void template_tool_seal(struct template_tool *t);
/* The same for one that stands on empty: usr/ does not count. */
void template_tool_seal_root(struct template_tool *t);
/* A new record, sealed as it is in t->meta. */
void template_tool_write(struct template_tool *t);
