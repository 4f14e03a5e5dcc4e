/* SPDX-License-Identifier: Apache-2.0 */
/*
 * jsontext.c - writing JSON strings without a JSON library
 */
#include "base/jsontext.h"

#include "base/banned.h"

/* Appends one character (already known valid, n bytes) with the escapes JSON asks for. */
static void write_char(struct av_buf *out, const char *p, size_t n)
{
	unsigned char c = (unsigned char)p[0];
	if (c == '"' || c == '\\')
		av_buf_printf(out, "\\%c", c);
	else if (c == '\n')
		av_buf_append_c(out, "\\n");
	else if (c == '\t')
		av_buf_append_c(out, "\\t");
	else if (c == '\r')
		av_buf_append_c(out, "\\r");
	else if (c < 0x20 || c == 0x7f)
		av_buf_printf(out, "\\u%04x", c);
	else
		av_buf_append(out, p, n);
}

int av_json_write_str(struct av_buf *out, struct av_str s)
{
	av_buf_append_char(out, '"');
	for (size_t i = 0; i < s.n;) {
		size_t plain = 0;
		while (i + plain < s.n) {
			unsigned char c = (unsigned char)s.p[i + plain];
			if (c < 0x20 || c >= 0x7f || c == '"' || c == '\\')
				break;
			plain++;
		}
		av_buf_append(out, s.p + i, plain);
		i += plain;
		if (i == s.n)
			break;
		size_t n = 1;
		while (n < 4 && i + n < s.n && ((unsigned char)s.p[i + n] & 0xc0) == 0x80)
			n++;
		if (!av_utf8_valid(av_str_n(s.p + i, n))) {
			av_buf_append_c(out, "\xef\xbf\xbd");
			n = 1;
		} else {
			write_char(out, s.p + i, n);
		}
		i += n;
	}
	return av_buf_append_char(out, '"');
}
