/* SPDX-License-Identifier: Apache-2.0 */
/*
 * file_sign.c - URLs with which anybody may read or write one file of a sandbox for a while
 */
#include "control/file_sign.h"

#include <errno.h>

#include "base/buf.h"
#include "base/path.h"
#include "control/control_internal.h"

#include "base/banned.h"

/* The path comes last and no part before it can hold a NUL, so that nothing can be moved about. */
static int write_subject(struct av_buf *out, const struct control_file_url *url, struct av_err *err)
{
	if (!url->path.n || url->path.n > AV_PATH_MAX || av_str_has_nul(url->path))
		return av_err_set(err, AV_ERR_INVALID,
		    "'path' must name a file, with 1 to %d bytes and no NUL", AV_PATH_MAX);
	(void)av_buf_append_c(out, url->write ? "write" : "read");
	(void)av_buf_append_char(out, '\0');
	(void)av_buf_append(out, url->id, strlen(url->id) + 1);
	(void)av_buf_append(out, url->user, strlen(url->user) + 1);
	(void)av_buf_append_str(out, url->path);
	if (av_buf_error(out) < 0)
		return av_err_set(err, AV_ERR_NO_MEMORY, "out of memory");
	return 0;
}

int control_file_sign(struct control *c, const struct control_actor *a,
    const struct control_file_url *url, int64_t expires_s, char ret[static CONTROL_TOKEN_SIZE],
    struct av_err *err)
{
	AV_CLEANUP(av_buf_clear) struct av_buf subject = AV_BUF_INIT(2 * AV_PATH_MAX);
	const struct sandbox *sb = sandbox_find(c, a, url->id);
	int r = control_check_open(c, err);

	if (r < 0)
		return r;
	if (!sb || sb->ending)
		return sandbox_not_running(c, a, url->id, sb, err);
	r = write_subject(&subject, url, err);
	if (r == 0)
		control_sign(c, CONTROL_SIGN_FILE, av_buf_str(&subject), expires_s, ret);
	return r;
}

int control_file_check(struct control *c, const struct control_file_url *url, struct av_str token,
    struct control_actor *ret_owner, struct av_err *err)
{
	AV_CLEANUP(av_buf_clear) struct av_buf subject = AV_BUF_INIT(2 * AV_PATH_MAX);
	const struct sandbox *sb;
	int r = control_check_open(c, err);

	if (r == 0)
		r = write_subject(&subject, url, err);
	if (r == 0)
		r = control_sign_check(c, CONTROL_SIGN_FILE, av_buf_str(&subject), token, err);
	if (r < 0)
		return r;
	sb = av_map_get(&c->sandboxes, av_str_c(url->id));
	if (!sb)
		return av_err_set(
		    err, AV_ERR_NOT_FOUND, "sandbox %s does not exist any more", url->id);
	*ret_owner = (struct control_actor){0};
	memcpy(ret_owner->team_id, sb->rec.team_id, AV_ID_SIZE);
	return 0;
}
