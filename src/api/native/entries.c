/* SPDX-License-Identifier: Apache-2.0 */
/*
 * entries.c - files of a sandbox as the native dialect describes them
 */
#include "api/native/entries.h"

#include <errno.h>
#include <inttypes.h>

#include "base/avtime.h"
#include "base/num.h"
#include "base/path.h"
#include "base/banned.h"

#define OCTAL_DIGITS_MAX 5

static int bad(const char *field, struct av_err *err)
{
	return av_err_set(
	    err, AV_ERR_AGENT, "the sandbox's agent describes a file without a good \"%s\"", field);
}

/* An absent text is empty, as zero values may be left out. */
static struct av_str text(const json_t *info, const char *field)
{
	return av_str_c(json_string_value(json_object_get(info, field)));
}

static const char *entry_type(const json_t *info)
{
	struct av_str type = text(info, "type");

	if (av_str_eq_c(type, "FILE_TYPE_DIRECTORY"))
		return "directory";
	if (av_str_eq_c(type, "FILE_TYPE_SYMLINK") ||
	    (!av_str_eq_c(type, "FILE_TYPE_FILE") && json_object_get(info, "symlinkTarget")))
		return "symlink";
	return "file";
}

static void write_text(struct av_buf *out, const char *name, struct av_str value)
{
	(void)av_buf_printf(out, ",\"%s\":", name);
	(void)av_json_write_str(out, value);
}

int native_write_entry(struct av_buf *out, const json_t *info, struct av_err *err)
{
	json_int_t mode = json_integer_value(json_object_get(info, "mode"));
	int64_t size = 0, modified_ms = 0;

	if (text(info, "name").n == 0)
		return bad("name", err);
	if (text(info, "path").n == 0)
		return bad("path", err);
	if (text(info, "size").n && av_parse_i64(text(info, "size"), 0, INT64_MAX, &size) < 0)
		return bad("size", err);
	if (mode < 0 || mode > 07777)
		return bad("mode", err);
	if (av_rfc3339_parse(text(info, "modifiedTime"), &modified_ms) < 0)
		return bad("modifiedTime", err);
	(void)av_buf_append_c(out, "{\"name\":");
	(void)av_json_write_str(out, text(info, "name"));
	write_text(out, "path", text(info, "path"));
	(void)av_buf_printf(out, ",\"type\":\"%s\",\"size\":%" PRId64 ",\"mode\":%d",
	    entry_type(info), size, (int)mode);
	write_text(out, "permissions", text(info, "permissions"));
	write_text(out, "owner", text(info, "owner"));
	write_text(out, "group", text(info, "group"));
	(void)av_buf_printf(out, ",\"modified_at\":%" PRId64, modified_ms / 1000);
	if (json_object_get(info, "symlinkTarget"))
		write_text(out, "symlink_target", text(info, "symlinkTarget"));
	if (av_buf_append_char(out, '}') < 0)
		return av_err_set(err, AV_ERR_NO_MEMORY, "no memory for the answer");
	return 0;
}

static int parse_octal(struct av_str s, int *ret)
{
	int mode = 0;

	if (s.n == 0 || s.n > OCTAL_DIGITS_MAX)
		return -EINVAL;
	for (size_t i = 0; i < s.n; i++) {
		if (s.p[i] < '0' || s.p[i] > '7')
			return -EINVAL;
		mode = mode * 8 + (s.p[i] - '0');
	}
	if (mode > 07777)
		return -ERANGE;
	*ret = mode;
	return 0;
}

int native_parse_mode(const json_t *body, int *ret, struct av_err *err)
{
	const json_t *v = json_object_get(body, "mode");
	json_int_t n = json_integer_value(v);

	if (!v || json_is_null(v))
		return 0;
	if (json_is_string(v) && parse_octal(av_str_c(json_string_value(v)), ret) == 0)
		return 0;
	if (json_is_integer(v) && n >= 0 && n <= 07777) {
		*ret = (int)n;
		return 0;
	}
	return av_err_set(err, AV_ERR_INVALID,
	    "\"mode\" must be octal digits as text, such as \"0644\", or the number itself (420), "
	    "up "
	    "to \"7777\"");
}
