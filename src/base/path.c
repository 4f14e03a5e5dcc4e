/* SPDX-License-Identifier: Apache-2.0 */
/*
 * path.c - paths as text
 */
#include "base/path.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

#include "base/banned.h"

/* The first bytes of a path with control characters escaped, for error messages. */
static void quote(char dst[static 128], struct av_str s)
{
	size_t o = 0;
	for (size_t i = 0; i < s.n && o < 100; i++) {
		unsigned char c = (unsigned char)s.p[i];
		if (c < 0x20 || c == 0x7f)
			o += (size_t)snprintf(dst + o, 128 - o, "\\x%02x", c);
		else
			dst[o++] = (char)c;
	}
	snprintf(dst + o, 128 - o, "%s", s.n > 100 ? "..." : "");
}

static int refuse(struct av_err *err, struct av_str path, const char *why)
{
	char text[128];
	quote(text, path);
	return av_err_set(err, AV_ERR_INVALID, "path \"%s\" %s", text, why);
}

/* Appends the cleaned components of path to out, which holds a cleaned absolute path without its
 * leading slash ("" for the root). start is where that path begins in out. */
static int append_clean(struct av_buf *out, size_t start, struct av_str path, struct av_err *err)
{
	struct av_str rest = path, part;
	bool more;
	do {
		more = av_str_cut(&rest, '/', &part);
		if (part.n == 0 || av_str_eq(part, AV_STR(".")))
			continue;
		if (part.n > AV_NAME_MAX)
			return refuse(err, path, "has a component longer than 255 bytes");
		if (av_str_eq(part, AV_STR(".."))) {
			while (out->n > start && out->p[out->off + out->n - 1] != '/')
				out->n--;
			if (out->n > start)
				out->n--;
			continue;
		}
		int r = av_buf_append_char(out, '/');
		if (r == 0)
			r = av_buf_append_str(out, part);
		if (r < 0)
			return av_err_set(err, AV_ERR_NO_MEMORY, "out of memory for a path");
	} while (more);
	return 0;
}

int av_path_clean(struct av_buf *out, struct av_str base, struct av_str path, struct av_err *err)
{
	if (path.n == 0)
		return av_err_set(err, AV_ERR_INVALID, "path is empty");
	if (av_str_has_nul(path))
		return refuse(err, path, "contains a NUL byte");
	if (path.n > AV_PATH_MAX)
		return refuse(err, path, "is longer than 4095 bytes");
	size_t start = out->n;
	int r = 0;
	if (path.p[0] != '/')
		r = append_clean(out, start, base, err);
	if (r == 0)
		r = append_clean(out, start, path, err);
	if (r == 0 && out->n - start > AV_PATH_MAX)
		r = refuse(err, path, "is longer than 4095 bytes");
	if (r == 0 && out->n == start)
		r = av_buf_append_char(out, '/') < 0
		        ? av_err_set(err, AV_ERR_NO_MEMORY, "out of memory for a path")
		        : 0;
	if (r < 0 && out->n > start)
		out->n = start;
	return r;
}

struct av_str av_path_base(struct av_str path)
{
	while (path.n > 1 && path.p[path.n - 1] == '/')
		path.n--;
	if (path.n == 1 && path.p[0] == '/')
		return path;
	size_t i = path.n;
	while (i && path.p[i - 1] != '/')
		i--;
	return av_str_n(path.p + i, path.n - i);
}

struct av_str av_path_dir(struct av_str path)
{
	while (path.n > 1 && path.p[path.n - 1] == '/')
		path.n--;
	while (path.n && path.p[path.n - 1] != '/')
		path.n--;
	while (path.n > 1 && path.p[path.n - 1] == '/')
		path.n--;
	return path.n ? path : AV_STR(".");
}

int av_path_printf(char *dst, size_t size, const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	int n = vsnprintf(dst, size, fmt, ap);
	va_end(ap);
	return n < 0 || (size_t)n >= size ? -ENAMETOOLONG : 0;
}
