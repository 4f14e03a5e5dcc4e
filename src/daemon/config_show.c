/* SPDX-License-Identifier: Apache-2.0 */
/*
 * config_show.c - what the configuration is, and what is wrong in a file (see config_show.h)
 */
#include "daemon/config_show.h"

#include <errno.h>

#include "base/jsontext.h"
#include "base/path.h"
#include "daemon/config_internal.h"
#include "daemon/launch.h"
#include "base/banned.h"

static bool is_secret(const struct daemon_opt_info *o)
{
	static const char *const words[] = {"password", "secret", "token"};

	for (size_t i = 0; i < AV_ARRAY_LEN(words); i++)
		if (strstr(o->name, words[i]))
			return !o->meta || strcmp(o->meta, "FILE") != 0;
	return false;
}

/* The value as it may be shown. */
static int shown(const struct daemon_opt_info *o, const char *value, struct av_buf *out)
{
	const char *slashes = value ? strstr(value, "://") : NULL;
	const char *host = slashes ? slashes + 3 : NULL;
	const char *at = host ? memchr(host, '@', strcspn(host, "/")) : NULL;

	if (value && is_secret(o))
		return av_buf_append_c(out, "(hidden)");
	if (!at)
		return av_buf_append_c(out, value ? value : "");
	(void)av_buf_append(out, value, (size_t)(host - value));
	return av_buf_printf(out, "(hidden)%s", at);
}

static const char *origin(const struct daemon_config *c, enum daemon_opt opt)
{
	return c->origin[opt] ? c->origin[opt] : c->value[opt] ? "default" : "not set";
}

static void show_text(const struct daemon_config *c, struct av_buf *out)
{
	for (int i = 0; i < DAEMON_OPT_COUNT; i++) {
		const struct daemon_opt_info *o = daemon_opt_info(i);
		AV_CLEANUP(av_buf_clear) struct av_buf value = AV_BUF_INIT(DAEMON_VALUE_MAX);

		if (!daemon_opt_in_file(o))
			continue;
		(void)shown(o, c->value[i], &value);
		(void)av_buf_append_char(&value, '\0');
		(void)av_buf_printf(out, "%-20s %-32s %s\n", o->name,
		    c->value[i] ? av_buf_str(&value).p : "-", origin(c, i));
	}
}

static void show_json(const struct daemon_config *c, struct av_buf *out)
{
	const char *between = "";

	(void)av_buf_append_c(out, "{\"options\":[");
	for (int i = 0; i < DAEMON_OPT_COUNT; i++) {
		const struct daemon_opt_info *o = daemon_opt_info(i);
		AV_CLEANUP(av_buf_clear) struct av_buf value = AV_BUF_INIT(DAEMON_VALUE_MAX);

		if (!daemon_opt_in_file(o))
			continue;
		(void)av_buf_printf(out, "%s{\"name\":\"%s\",\"value\":", between, o->name);
		(void)shown(o, c->value[i], &value);
		if (c->value[i])
			(void)av_json_write_str(out, av_buf_str(&value));
		else
			(void)av_buf_append_c(out, "null");
		(void)av_buf_append_c(out, ",\"origin\":");
		(void)av_json_write_str(out, av_str_c(origin(c, i)));
		(void)av_buf_append_c(out, "}");
		between = ",";
	}
	(void)av_buf_append_c(out, "]}\n");
}

static void show_example(struct av_buf *out)
{
	(void)av_buf_append_c(out, "# Configuration of aviaryd: 'key = value', one a line; flags "
	                           "and AVIARY_* come before.\n"
	                           "# `aviary config check FILE` looks for mistakes, `aviary "
	                           "config show` says what holds.\n"
	                           "# Root's daemon reads /etc/aviary/aviary.conf, a user's "
	                           "~/.config/aviary/aviary.conf.\n");
	for (int i = 0; i < DAEMON_OPT_COUNT; i++) {
		const struct daemon_opt_info *o = daemon_opt_info(i);

		if (daemon_opt_in_file(o))
			(void)av_buf_printf(out, "\n# %s%s%s\n#%s = %s\n", o->help,
			    o->meta && !strchr(o->meta, '|') ? ": " : "",
			    o->meta && !strchr(o->meta, '|') ? o->meta : "", o->name,
			    o->text ? o->text : "");
	}
}

int daemon_config_show(
    const struct daemon_config *c, const char *how, struct av_buf *out, struct av_err *err)
{
	if (strcmp(how, "text") == 0)
		show_text(c, out);
	else if (strcmp(how, "json") == 0)
		show_json(c, out);
	else if (strcmp(how, "example") == 0)
		show_example(out);
	else
		return av_err_set(err, AV_ERR_INVALID,
		    "--show-config: '%.64s' is none of text, json, example", how);
	return av_buf_error(out) ? av_err_set(err, AV_ERR_NO_MEMORY, "out of memory") : 0;
}

/* ---- checking a file ---- */

static void problem(struct av_buf *out, unsigned int *n, const char *message)
{
	(void)av_buf_printf(out, "%s\n", message);
	(*n)++;
}

/* Takes the value out that the message is about, which begins with where it came from. */
static bool take_out(struct daemon_config *c, const char *message)
{
	for (int i = 0; i < DAEMON_OPT_COUNT; i++) {
		size_t n = c->origin[i] ? strlen(c->origin[i]) : 0;

		if (n && strncmp(message, c->origin[i], n) == 0 && message[n] == ':') {
			av_freep(&c->value[i]);
			av_freep(&c->origin[i]);
			return true;
		}
	}
	return false;
}

struct check {
	struct av_buf *out;
	unsigned int *problems;
};

static void on_line_error(void *ctx, const struct av_err *err)
{
	struct check *k = ctx;

	problem(k->out, k->problems, err->message);
}

int daemon_config_check(
    const char *path, struct av_buf *out, unsigned int *ret_problems, struct av_err *err)
{
	struct daemon_config c = DAEMON_CONFIG_INIT;
	struct check k = {.out = out, .problems = ret_problems};
	struct av_err mine;
	int r;

	*ret_problems = 0;
	r = daemon_config_load_file(&c, path, on_line_error, &k, err);
	/* One value after the other is taken out, so that each is told. */
	for (bool more = r == 0; more;) {
		more = daemon_config_finish(&c, &mine) < 0 || daemon_launch_check(&c, &mine) < 0;
		more = more && mine.kind == AV_ERR_INVALID; /* an aviary-spawn that is not there is
		                                             * not the file's mistake */
		if (more) {
			problem(out, ret_problems, mine.message);
			more = take_out(&c, mine.message);
		}
	}
	daemon_config_clear(&c);
	return r;
}
