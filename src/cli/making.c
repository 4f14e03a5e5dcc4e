/* SPDX-License-Identifier: Apache-2.0 */
/*
 * making.c - what people see while the image of a virtual machine is made
 *
 * Asked while another request waits, over a connection of its own; an answer that is late or wrong
 * changes nothing.
 */
#include "cli/making.h"

#include <stdio.h>
#include <string.h>

#include "base/avtime.h"
#include "base/json.h"

#include "base/banned.h"

#define PATIENCE_MS 2000

/* The first that somebody waits for, else the first. */
static const json_t *first_wanted(const json_t *making)
{
	const json_t *m;
	size_t i;

	json_array_foreach (making, i, m)
		if (json_integer_value(json_object_get(m, "waiting")) > 0)
			return m;
	return json_array_get(making, 0);
}

static void take(struct cli *cli, const json_t *m)
{
	const char *name = json_string_value(json_object_get(m, "template"));
	const char *stage = json_string_value(json_object_get(m, "stage"));

	if (!stage)
		return;
	(void)snprintf(cli->looked, sizeof(cli->looked),
	    "making a virtual machine of %.40s: %.60s, %d %%", name ? name : "a template", stage,
	    (int)json_integer_value(json_object_get(m, "percent")));
	/* It comes over the network and goes to a terminal. */
	for (char *p = cli->looked; *p; p++)
		if ((unsigned char)*p < 0x20 || *p == 0x7f)
			*p = ' ';
}

void making_look(struct cli *cli)
{
	aviary_request q = AVIARY_REQUEST_INIT;
	AV_CLEANUP(av_json_decrefp) json_t *reply = NULL;
	const char *body;
	aviary_op *op;
	size_t n = 0;

	q.method = "GET";
	q.path = "/v1/isolations";
	q.timeout_ms = PATIENCE_MS;
	op = aviary_client_request(cli->client, &q);
	cli->looked[0] = '\0';
	if (aviary_op_wait(op, PATIENCE_MS) == 0) {
		body = aviary_op_body(op, &n);
		reply = n ? json_loadb(body, n, 0, NULL) : NULL;
		take(cli, first_wanted(json_object_get(reply, "making")));
	}
	aviary_op_free(op);
}
