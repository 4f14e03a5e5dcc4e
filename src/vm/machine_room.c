/* SPDX-License-Identifier: Apache-2.0 */
/*
 * machine_room.c - a guest's disk that cannot be written, as this machine's is full
 *
 * Theory of operation. A guest is promised its disk, but its blocks are taken where they are
 * written. An error would make its file system drop what it had said was written, and never write
 * again. So QEMU stops the processors instead (werror=stop) and keeps the write; it is tried again
 * every second, for as long as it takes, and the guest never learns of it. While it stands still:
 *
 *   PAUSE, SAVE       are refused, with the reason
 *   what is under way fails with the reason, and is undone; what the guest is told meanwhile waits
 *                     in its port until it goes on
 *
 * Programs, QEMU's monitor and its death (SIGBUS, when memory that a golden machine shares with its
 * file finds no block) do not say that there was no room; so after any failure that does not speak
 * for itself it is tried whether there is some.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "base/fd.h"
#include "vm/machine_internal.h"

#include "base/banned.h"

#define RETRY_MS    1000
#define TRIED_BYTES AV_MIB

int machine_check_room(const struct machine *m, struct av_err *err)
{
	if (!m->starved)
		return 0;
	return av_err_set(err, m->no_room ? AV_ERR_NO_SPACE : AV_ERR_INTERNAL,
	    "the machine stands still until what it writes to its disk can be written: %s",
	    m->starved_why);
}

static void on_retry(uv_timer_t *timer)
{
	struct machine *m = timer->data;

	if (!m->starved || !machine_lives(m))
		return;
	uv_timer_start(&m->retry, on_retry, RETRY_MS, 0);
	/* A request under way lets it go on itself, or ends it. */
	if (!m->plan)
		machine_try_cont(m);
}

/* What the step waits for the guest does when it goes on. */
static void do_not_wait(struct machine *m)
{
	if (m->expect == AV_GUEST_NONE)
		return;
	m->expect = AV_GUEST_NONE;
	machine_next(m);
}

void machine_undo_thaw(struct machine *m)
{
	machine_step_thaw(m);
	if (m->starved)
		do_not_wait(m);
}

void machine_starves(struct machine *m, const json_t *data)
{
	const json_t *action = json_object_get(data, "action");
	const json_t *why = json_object_get(data, "reason");
	struct av_err err;

	if (!json_is_string(action) || strcmp(json_string_value(action), "stop") != 0)
		return;
	qmp_printable(m->starved_why, sizeof(m->starved_why),
	    json_is_string(why) ? json_string_value(why) : "");
	m->no_room = json_is_true(json_object_get(data, "nospace")) ||
	             strcmp(m->starved_why, strerror(EDQUOT)) == 0;
	m->starved = true;
	uv_timer_start(&m->retry, on_retry, RETRY_MS, 0);
	/* An answer of QEMU's is waited for first: the next step looks. */
	if (!m->plan || m->op == VM_DROP || m->asked)
		return;
	if (m->undoing)
		do_not_wait(m);
	else if (machine_check_room(m, &err) < 0)
		machine_fail(m, &err);
}

/* -ENOSPC, -EDQUOT: there is no room for a little file. */
static int try_room(const struct machine *m)
{
	AV_CLEANUP(av_closep) int fd = -1;
	char path[PATH_MAX];
	int r;

	machine_path(m, path, "vm");
	fd = open(path, O_TMPFILE | O_WRONLY | O_CLOEXEC, 0600);
	r = fd < 0 || fallocate(fd, 0, 0, TRIED_BYTES) < 0 ? -errno : 0;
	return r == -ENOSPC || r == -EDQUOT ? r : 0;
}

void machine_blame_room(const struct machine *m, struct av_err *err)
{
	char text[sizeof(err->message)];
	int r;

	if (err->kind != AV_ERR_INTERNAL && err->kind != AV_ERR_UPSTREAM)
		return;
	r = try_room(m);
	if (r == 0)
		return;
	err->kind = AV_ERR_NO_SPACE;
	if (strstr(err->message, strerror(-r)))
		return;
	memcpy(text, err->message, sizeof(text));
	(void)av_err_set(err, AV_ERR_NO_SPACE, "%s (%s)", text, strerror(-r));
}

void machine_fed(struct machine *m)
{
	m->starved = false;
	uv_timer_stop(&m->retry);
}

void machine_room_init(struct machine *m)
{
	uv_timer_init(m->loop, &m->retry);
	m->retry.data = m;
}
