/* SPDX-License-Identifier: Apache-2.0 */
/*
 * multipart.c - multipart/form-data as a stream
 *
 * The delimiter is CR LF "--" boundary. A boundary holds no CR, so a CR can only begin a delimiter:
 * after a mismatch the search goes on at the mismatching byte, and what had matched is data.
 */
#include "proto/multipart.h"

#include <errno.h>
#include <stdlib.h>

#include "proto/http_msg.h"

#include "base/banned.h"

enum state {
	STATE_PREAMBLE,
	STATE_AFTER_DELIMITER, /* "--", or padding and CR LF */
	STATE_HEAD,
	STATE_DATA,
	STATE_EPILOGUE,
	STATE_FAILED,
};

struct av_multipart {
	enum state state;
	char delimiter[4 + AV_MULTIPART_BOUNDARY_MAX];
	size_t delimiter_n;
	size_t matched; /* bytes of the delimiter matched so far */
	size_t assumed; /* how many of these were never in the body: the CR LF before it */
	unsigned parts;
	char after[2]; /* what followed the delimiter, without padding */
	size_t after_n;
	struct av_buf head;
};

struct sink {
	const struct av_multipart_events *events;
	void *ctx;
	struct av_err *err;
};

static int invalid(struct av_multipart *m, struct av_err *err, const char *text)
{
	m->state = STATE_FAILED;
	return av_err_set(err, AV_ERR_INVALID, "multipart body: %s", text);
}

static bool boundary_is_valid(struct av_str b)
{
	if (b.n == 0 || b.n > AV_MULTIPART_BOUNDARY_MAX || b.p[b.n - 1] == ' ')
		return false;
	for (size_t i = 0; i < b.n; i++)
		if ((unsigned char)b.p[i] < 0x20 || (unsigned char)b.p[i] > 0x7e)
			return false;
	return true;
}

int av_multipart_new(struct av_str content_type, struct av_multipart **ret, struct av_err *err)
{
	AV_CLEANUP(av_buf_clear) struct av_buf b = AV_BUF_INIT(AV_MULTIPART_BOUNDARY_MAX + 1);
	if (!av_str_ieq(av_http_media_type(content_type), AV_STR("multipart/form-data")))
		return av_err_set(err, AV_ERR_INVALID, "the body is not multipart/form-data");
	int r = av_http_param(content_type, "boundary", &b);
	if (r == -ENOMEM)
		return av_err_set(err, AV_ERR_NO_MEMORY, "out of memory");
	if (r < 0 || !boundary_is_valid(av_buf_str(&b)))
		return av_err_set(err, AV_ERR_INVALID,
		    "Content-Type has no valid boundary (1 to %d characters)",
		    AV_MULTIPART_BOUNDARY_MAX);
	struct av_multipart *m = calloc(1, sizeof(*m));
	if (!m)
		return av_err_set(err, AV_ERR_NO_MEMORY, "out of memory");
	m->delimiter[0] = '\r';
	m->delimiter[1] = '\n';
	m->delimiter[2] = m->delimiter[3] = '-';
	memcpy(m->delimiter + 4, av_buf_str(&b).p, b.n);
	m->delimiter_n = 4 + b.n;
	m->matched = m->assumed = 2; /* the first delimiter may stand at the very beginning */
	av_buf_init(&m->head, AV_MULTIPART_HEAD_MAX);
	*ret = m;
	return 0;
}

void av_multipart_free(struct av_multipart *m)
{
	if (!m)
		return;
	av_buf_clear(&m->head);
	free(m);
}

void av_multipart_freep(struct av_multipart **m)
{
	av_multipart_free(*m);
	*m = NULL;
}

/* ---- heads ---- */

/* The value of name="…" in a Content-Disposition. Browsers write %22 %0D %0A, curl \" and \\;
 * a backslash before anything else is itself (a Windows path). -ENOENT when absent. */
static int disposition_param(struct av_str value, const char *name, struct av_buf *out)
{
	struct av_str want = av_str_c(name);
	size_t i = 0;
	while (i < value.n) {
		while (i < value.n && value.p[i] != ';')
			i++;
		while (
		    i < value.n && (value.p[i] == ';' || value.p[i] == ' ' || value.p[i] == '\t'))
			i++;
		size_t start = i;
		while (i < value.n && value.p[i] != '=' && value.p[i] != ';')
			i++;
		if (i == value.n || value.p[i] != '=')
			continue;
		bool found = av_str_ieq(av_str_trim(av_str_n(value.p + start, i - start)), want);
		bool quoted = ++i < value.n && value.p[i] == '"';
		i += quoted;
		for (; i < value.n && value.p[i] != (quoted ? '"' : ';'); i++) {
			if (quoted && value.p[i] == '\\' && i + 1 < value.n &&
			    (value.p[i + 1] == '"' || value.p[i + 1] == '\\'))
				i++;
			if (found && av_buf_append_char(out, value.p[i]) < 0)
				return av_buf_error(out);
		}
		if (quoted && i == value.n)
			return -EINVAL;
		if (found)
			return 0;
	}
	return -ENOENT;
}

/* %22, %0D and %0A, nothing else (WHATWG HTML, "multipart/form-data"). In place. */
static void unescape(struct av_buf *b)
{
	struct av_str s = av_buf_str(b);
	char *to = b->p + b->off;
	size_t k = 0;
	for (size_t i = 0; i < s.n; i++) {
		struct av_str three = av_str_n(s.p + i, AV_MIN((size_t)3, s.n - i));
		char c = s.p[i];
		if (av_str_eq_c(three, "%22"))
			c = '"';
		else if (av_str_ieq(three, AV_STR("%0d")))
			c = '\r';
		else if (av_str_ieq(three, AV_STR("%0a")))
			c = '\n';
		if (c != s.p[i])
			i += 2;
		to[k++] = c;
	}
	b->n = k;
}

static int text_param(struct av_multipart *m, struct av_str value, const char *name,
    struct av_buf *out, bool *ret_present, struct av_err *err)
{
	int r = disposition_param(value, name, out);
	*ret_present = r == 0;
	if (r == -ENOENT)
		return 0;
	if (r == -ENOMEM)
		return av_err_set(err, AV_ERR_NO_MEMORY, "out of memory");
	if (r < 0)
		return invalid(m, err, "malformed Content-Disposition");
	if (out->n)
		unescape(out);
	if (!av_utf8_valid(av_buf_str(out)) || av_str_has_nul(av_buf_str(out)))
		return invalid(m, err, "a name or file name is not UTF-8");
	return 0;
}

static int head_line(struct av_multipart *m, struct av_str line, struct av_str *disposition,
    struct av_str *type, struct av_err *err)
{
	struct av_str rest = line, name;
	if (!av_str_cut(&rest, ':', &name) || !av_http_is_token(name))
		return invalid(m, err, "malformed header of a part");
	if (!av_http_is_value(rest))
		return invalid(m, err, "control byte in a header of a part");
	if (av_str_ieq(name, AV_STR("content-disposition"))) {
		if (disposition->n)
			return invalid(m, err, "two Content-Disposition headers in a part");
		*disposition = av_str_trim(rest);
	} else if (av_str_ieq(name, AV_STR("content-type"))) {
		*type = av_str_trim(rest);
	}
	return 0;
}

/* The head is complete in m->head, ending in an empty line. */
static int part_begins(struct av_multipart *m, const struct sink *sink)
{
	AV_CLEANUP(av_buf_clear) struct av_buf name = AV_BUF_INIT(AV_MULTIPART_HEAD_MAX);
	AV_CLEANUP(av_buf_clear) struct av_buf file = AV_BUF_INIT(AV_MULTIPART_HEAD_MAX);
	struct av_str rest = av_buf_str(&m->head), line;
	struct av_str disposition = AV_STR(""), type = AV_STR("");
	bool has_name, has_file;
	int r;
	if (++m->parts > AV_MULTIPART_PARTS_MAX)
		return invalid(m, sink->err, "too many parts");
	while (av_str_cut(&rest, '\n', &line)) {
		if (line.n == 0 || line.p[line.n - 1] != '\r')
			return invalid(m, sink->err, "a line does not end in CR LF");
		line.n--;
		if (line.n && (r = head_line(m, line, &disposition, &type, sink->err)) < 0)
			return r;
	}
	if (!av_str_ieq(av_http_media_type(disposition), AV_STR("form-data")))
		return invalid(m, sink->err, "a part without Content-Disposition: form-data");
	if ((r = text_param(m, disposition, "name", &name, &has_name, sink->err)) < 0 ||
	    (r = text_param(m, disposition, "filename", &file, &has_file, sink->err)) < 0)
		return r;
	struct av_multipart_part part = {
	    .name = av_buf_str(&name),
	    .filename = av_buf_str(&file),
	    .has_filename = has_file,
	    .content_type = type,
	};
	r = sink->events->on_part(sink->ctx, &part);
	av_buf_clear(&m->head);
	if (r < 0)
		return r;
	m->state = STATE_DATA;
	/* The empty line's CR LF may be the one of the next delimiter, when the part is empty. */
	m->matched = m->assumed = 2;
	return 0;
}

static bool head_complete(struct av_str s)
{
	return av_str_eq_c(s, "\r\n") || av_str_ends(s, AV_STR("\r\n\r\n"));
}

/* Line by line, so that no byte of the body gets into the head. */
static int feed_head(
    struct av_multipart *m, const char *p, size_t n, size_t *ret_n, const struct sink *sink)
{
	const char *lf = memchr(p, '\n', n);
	*ret_n = n = lf ? (size_t)(lf - p) + 1 : n;
	int r = av_buf_append(&m->head, p, n);
	if (r == -ENOMEM)
		return av_err_set(sink->err, AV_ERR_NO_MEMORY, "out of memory");
	if (r < 0)
		return invalid(m, sink->err, "the headers of a part are too large");
	return lf && head_complete(av_buf_str(&m->head)) ? part_begins(m, sink) : 0;
}

/* ---- delimiters and data ---- */

static int emit(struct av_multipart *m, const char *p, size_t n, const struct sink *sink)
{
	if (n == 0 || m->state != STATE_DATA)
		return 0;
	return sink->events->on_data(sink->ctx, (const uint8_t *)p, n);
}

static int delimiter_found(struct av_multipart *m, const struct sink *sink)
{
	bool in_part = m->state == STATE_DATA;
	m->state = STATE_AFTER_DELIMITER;
	m->matched = m->assumed = m->after_n = 0;
	return in_part ? sink->events->on_part_end(sink->ctx) : 0;
}

/* Data (or preamble) up to and with the next delimiter, or all of it. */
static int feed_data(
    struct av_multipart *m, const char *p, size_t n, size_t *ret_n, const struct sink *sink)
{
	size_t held = m->matched; /* matched bytes that stood in earlier pieces */
	size_t i = 0;
	int r;
	*ret_n = n;
	while (i < n) {
		if (m->matched == 0) {
			const char *cr = memchr(p + i, '\r', n - i);
			if (!cr)
				break;
			i = (size_t)(cr - p);
		}
		if (p[i] == m->delimiter[m->matched]) {
			i++;
			if (++m->matched < m->delimiter_n)
				continue;
			*ret_n = i;
			r = emit(m, p, held ? 0 : i - m->delimiter_n, sink);
			return r < 0 ? r : delimiter_found(m, sink);
		}
		/* What was held is data after all; what matched in this piece is still in p. */
		if (held > m->assumed &&
		    (r = emit(m, m->delimiter + m->assumed, held - m->assumed, sink)) < 0)
			return r;
		held = m->assumed = m->matched = 0;
		if (p[i] != '\r')
			i++;
	}
	return held ? 0 : emit(m, p, n - m->matched, sink);
}

static int feed_after(struct av_multipart *m, const char *p, size_t *ret_n, const struct sink *sink)
{
	*ret_n = 1;
	if (m->after_n == 0 && (*p == ' ' || *p == '\t'))
		return 0;
	m->after[m->after_n++] = *p;
	if (m->after_n < 2)
		return 0;
	if (memcmp(m->after, "--", 2) == 0)
		m->state = STATE_EPILOGUE;
	else if (memcmp(m->after, "\r\n", 2) == 0)
		m->state = STATE_HEAD;
	else
		return invalid(m, sink->err, "malformed boundary line");
	return 0;
}

int av_multipart_feed(struct av_multipart *m, const void *data, size_t n,
    const struct av_multipart_events *events, void *ctx, struct av_err *err)
{
	const struct sink sink = {.events = events, .ctx = ctx, .err = err};
	const char *p = data;
	int r = 0;
	while (n > 0 && r == 0) {
		size_t used = 0;
		switch (m->state) {
		case STATE_PREAMBLE:
		case STATE_DATA:
			r = feed_data(m, p, n, &used, &sink);
			break;
		case STATE_AFTER_DELIMITER:
			r = feed_after(m, p, &used, &sink);
			break;
		case STATE_HEAD:
			r = feed_head(m, p, n, &used, &sink);
			break;
		case STATE_EPILOGUE:
			return 0;
		case STATE_FAILED:
			return invalid(m, err, "fed after an error");
		}
		p += used;
		n -= used;
	}
	if (r < 0)
		m->state = STATE_FAILED;
	return r;
}

int av_multipart_finish(const struct av_multipart *m, struct av_err *err)
{
	if (m->state == STATE_EPILOGUE)
		return 0;
	return av_err_set(err, AV_ERR_INVALID, "multipart body: ended before the closing boundary");
}
