/* SPDX-License-Identifier: Apache-2.0 */
/*
 * main_shapes.c - JSON of main commands (see main_shapes.h)
 */
#include "api/native/main_shapes.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "api/native/entries.h"
#include "api/native/shapes.h"
#include "base/codec.h"

#include "base/banned.h"

#define GRACE_DEFAULT_MS 10000

void native_setup_clear(struct native_setup *s)
{
	json_decref(s->command);
	for (size_t i = 0; i < s->n; i++)
		free(s->decoded[i]);
}

/* ---- create ---- */

/* A list is a program and its arguments; a string is for the shell. */
static int parse_command(
    const json_t *body, struct native_setup *s, const json_t **ret, struct av_err *err)
{
	const json_t *v = json_object_get(body, "command");
	const char *text = NULL;
	int r;

	if (!json_is_string(v))
		return av_json_get_str_array(body, "command", SANDBOX_COMMAND_MAX, ret, err);
	r = av_json_get_str(body, "command", &text, err);
	if (r < 0)
		return r;
	if (!text[0])
		return av_err_set(err, AV_ERR_INVALID,
		    "'command' is empty; give a command line for the shell, or a list of program "
		    "and arguments");
	s->command = json_pack("[sss]", "/bin/sh", "-c", text);
	if (!s->command)
		return av_err_set(err, AV_ERR_NO_MEMORY, "out of memory");
	*ret = s->command;
	return 0;
}

static int parse_on_exit(const json_t *body, struct sandbox_params *p, struct av_err *err)
{
	const char *text = NULL;
	int r = av_json_get_str(body, "on_exit", &text, err);

	if (r < 0)
		return r;
	if (text && strcmp(text, "stop") != 0 && strcmp(text, "keep") != 0)
		return av_err_set(err, AV_ERR_INVALID,
		    "'on_exit' must be \"stop\" or \"keep\", not \"%.40s\"", text);
	p->keep_on_exit = text && text[0] == 'k';
	return 0;
}

static int decode(struct native_setup *s, const char *text, struct av_str *ret, struct av_err *err)
{
	struct av_buf b = AV_BUF_INIT(SANDBOX_FILES_BYTES + 1);
	int r = av_base64_decode(&b, av_str_c(text));

	if (r == 0 && b.n)
		s->decoded[s->n] = av_mem_dup(b.p, b.n);
	if (r == 0 && b.n && !s->decoded[s->n])
		r = -ENOMEM;
	*ret = av_str_n(s->decoded[s->n], b.n);
	av_buf_clear(&b);
	if (r == -ENOMEM)
		return av_err_set(err, AV_ERR_NO_MEMORY, "out of memory");
	if (r == -EMSGSIZE)
		return av_err_set(err, AV_ERR_TOO_LARGE, "'content_base64' is more than %zu bytes",
		    SANDBOX_FILES_BYTES);
	return r < 0 ? av_err_set(err, AV_ERR_INVALID,
	                   "'content_base64' is not base64 with padding (RFC 4648, section 4)")
	             : 0;
}

static int parse_file(const json_t *item, struct native_setup *s, struct av_err *err)
{
	struct sandbox_file *f = &s->files[s->n];
	const char *content = NULL, *base64 = NULL;
	int r;

	if (!json_is_object(item))
		return av_err_set(err, AV_ERR_INVALID,
		    "must be an object with 'path' and 'content' or 'content_base64'");
	*f = (struct sandbox_file){.mode = -1};
	if ((r = av_json_get_str(item, "path", &f->path, err)) < 0 ||
	    (r = av_json_get_str(item, "content", &content, err)) < 0 ||
	    (r = av_json_get_str(item, "content_base64", &base64, err)) < 0 ||
	    (r = native_parse_mode(item, &f->mode, err)) < 0)
		return r;
	if (!f->path || !f->path[0])
		return av_err_set(err, AV_ERR_INVALID, "'path' is missing");
	if (content && base64)
		return av_err_set(err, AV_ERR_INVALID,
		    "'content' and 'content_base64' say the same; give one of them");
	f->content = av_str_c(content);
	return base64 ? decode(s, base64, &f->content, err) : 0;
}

static int parse_files(const json_t *body, struct native_setup *s, struct av_err *err)
{
	const json_t *list = NULL, *item;
	int r = av_json_get_array(body, "files", SANDBOX_FILES_MAX, &list, err);
	size_t i;

	json_array_foreach (list, i, item) {
		if (r < 0)
			break;
		r = parse_file(item, s, err);
		if (r < 0)
			av_err_prefix(err, "'files[%zu]'", i);
		s->n++;
	}
	return r;
}

int native_parse_setup(
    const json_t *body, struct native_setup *s, struct sandbox_params *params, struct av_err *err)
{
	int r;

	*s = (struct native_setup){0};
	if ((r = parse_command(body, s, &params->command, err)) < 0 ||
	    (r = av_json_get_str(body, "workdir", &params->workdir, err)) < 0 ||
	    (r = av_json_get_str(body, "user", &params->user, err)) < 0 ||
	    (r = parse_on_exit(body, params, err)) < 0 || (r = parse_files(body, s, err)) < 0) {
		native_setup_clear(s);
		return r;
	}
	params->files = s->files;
	params->n_files = s->n;
	return 0;
}

/* ---- sandbox ---- */

static void write_str(struct av_buf *out, const char *name, const char *value)
{
	if (!value)
		return;
	(void)av_buf_printf(out, ",\"%s\":", name);
	(void)av_json_write_str(out, av_str_c(value));
}

void native_write_main(struct av_buf *out, const struct sandbox_main_info *m)
{
	if (m->stopping)
		(void)av_buf_append_c(out, ",\"stopping\":true");
	if (!m->command)
		return;
	(void)av_buf_append_c(out, ",\"command\":");
	(void)av_json_dump(out, m->command);
	write_str(out, "workdir", m->workdir);
	write_str(out, "user", m->user);
	write_str(out, "on_exit", m->keep_on_exit ? "keep" : "stop");
	write_str(out, "command_state", m->state);
	if (m->pid)
		(void)av_buf_printf(out, ",\"command_pid\":%" PRId64, m->pid);
	native_write_time(out, "command_started_at", m->started_ms);
	native_write_time(out, "finished_at", m->finished_ms);
	if (m->exited)
		(void)av_buf_printf(out, ",\"exit_code\":%d", m->exit_code);
	if (m->exited && m->exit_signal)
		(void)av_buf_printf(out, ",\"exit_signal\":%d", m->exit_signal);
}

/* ---- stop ---- */

int native_parse_stop(const json_t *body, struct sandbox_stop_params *ret, struct av_err *err)
{
	struct sandbox_stop_params p = {.grace_ms = GRACE_DEFAULT_MS};
	int r;

	if ((r = av_json_get_seconds_ms(
	         body, "grace_sec", SANDBOX_GRACE_MAX_MS, &p.grace_ms, err)) < 0 ||
	    (r = av_json_get_str(body, "snapshot", &p.snapshot, err)) < 0)
		return r;
	if (p.snapshot && !p.snapshot[0])
		return av_err_set(err, AV_ERR_INVALID,
		    "'snapshot' is empty; give the name that the snapshot is to have, or leave it "
		    "out");
	*ret = p;
	return 0;
}
