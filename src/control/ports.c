/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ports.c - who may reach a server that runs in a sandbox (see ports.h)
 */
#include "control/ports.h"

#include <errno.h>
#include <stdio.h>

#include "control/control_internal.h"

#include "base/banned.h"

static bool is_open_to_all(const json_t *ports, uint16_t port)
{
	size_t i;
	const json_t *v;

	json_array_foreach (ports, i, v)
		if (json_integer_value(v) == port)
			return true;
	return false;
}

/* One that ended a short while ago; nothing but that is told, as nobody knows who asks. */
static bool has_ended(const struct control *c, const char *id)
{
	for (size_t i = 0; i < CONTROL_ENDED_MAX; i++)
		if (strcmp(c->ended[i].id, id) == 0)
			return true;
	return false;
}

int control_port_find(
    struct control *c, const char *id, uint16_t port, struct control_port *ret, struct av_err *err)
{
	const struct sandbox *sb = av_map_get(&c->sandboxes, av_str_c(id));

	if (!sb && has_ended(c, id))
		return av_err_set(
		    err, AV_ERR_INVALID_STATE, "sandbox %s is not running any more", id);
	if (!sb)
		return av_err_set(err, AV_ERR_NOT_FOUND, "there is no sandbox %s", id);
	*ret = (struct control_port){.is_public = is_open_to_all(sb->labels.ports, port)};
	memcpy(ret->owner.team_id, sb->rec.team_id, AV_ID_SIZE);
	return 0;
}

int control_port_ready(
    struct control *c, const struct control_actor *a, const char *id, struct av_err *err)
{
	const struct sandbox *sb = sandbox_find(c, a, id);

	if (sb && !sb->ending && (sb->state == SANDBOX_PENDING || sb->state == SANDBOX_STARTING))
		return av_err_set(err, AV_ERR_UNAVAILABLE,
		    "sandbox %s is being started; try again in a moment", id);
	return 0;
}

static struct av_str subject(char *text, size_t size, const char *id, uint16_t port)
{
	int n = snprintf(text, size, "%s:%u", id, port);

	assert(n > 0 && (size_t)n < size);
	return av_str_n(text, (size_t)n);
}

void control_port_sign(const struct control *c, const char *id, uint16_t port, int64_t expires_s,
    char ret[static CONTROL_TOKEN_SIZE])
{
	char text[AV_ID_SIZE + 8];

	control_sign(c, CONTROL_SIGN_PORT, subject(text, sizeof(text), id, port), expires_s, ret);
}

int control_port_check(
    const struct control *c, const char *id, uint16_t port, struct av_str token, struct av_err *err)
{
	char text[AV_ID_SIZE + 8];

	return control_sign_check(
	    c, CONTROL_SIGN_PORT, subject(text, sizeof(text), id, port), token, err);
}
