/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kernel.c - messages between the agent and the driver of a kernel
 */
#include "proto/kernel.h"

#include <errno.h>

#include "base/jsontext.h"
#include "base/num.h"

#include "base/banned.h"

/* --- reading --- */

/* The next n bytes; false if there are fewer. */
static bool take(struct av_str *s, size_t n, struct av_str *ret)
{
	if (n > s->n)
		return false;
	*ret = av_str_n(s->p, n);
	*s = av_str_n(s->p + n, s->n - n);
	return true;
}

static bool take_u8(struct av_str *s, uint8_t *ret)
{
	struct av_str b;

	if (!take(s, 1, &b))
		return false;
	*ret = (uint8_t)b.p[0];
	return true;
}

static bool take_u32(struct av_str *s, uint32_t *ret)
{
	struct av_str b;

	if (!take(s, 4, &b))
		return false;
	*ret = av_get_be32((const uint8_t *)b.p);
	return true;
}

static bool take_text(struct av_str *s, struct av_str *ret)
{
	uint32_t n;

	return take_u32(s, &n) && take(s, n, ret);
}

static bool take_item(struct av_str *s, struct av_kernel_item *ret)
{
	uint8_t kind, n;

	if (!take_u8(s, &kind) || kind >= AV_KERNEL_ITEM_KIND_COUNT || !take_u8(s, &n) || n == 0 ||
	    !take(s, n, &ret->mime) || !take_text(s, &ret->data))
		return false;
	ret->kind = (enum av_kernel_item_kind)kind;
	return true;
}

bool av_kernel_next_item(struct av_str *rest, struct av_kernel_item *ret)
{
	return rest->n && take_item(rest, ret);
}

bool av_kernel_next_text(struct av_str *rest, struct av_str *ret)
{
	return rest->n && take_text(rest, ret);
}

/* RFC 6838 section 4.2, and the slash. */
static bool is_mime(struct av_str s)
{
	static const char marks[] = "!#$&^_.+/-";

	for (size_t i = 0; i < s.n; i++) {
		char c = s.p[i];

		if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
		        (c && strchr(marks, c))))
			return false;
	}
	return true;
}

static bool check_items(struct av_str rest)
{
	struct av_kernel_item item;

	for (size_t n = 0; rest.n; n++)
		if (n == AV_KERNEL_ITEMS_MAX || !take_item(&rest, &item) || !is_mime(item.mime) ||
		    (item.kind == AV_KERNEL_ITEM_DOCUMENT && !av_json_valid(item.data)))
			return false;
	return true;
}

/* Name and value at least. */
static bool check_texts(struct av_str rest)
{
	struct av_str text;
	size_t n = 0;

	for (; rest.n; n++)
		if (n == AV_KERNEL_LINES_MAX || !take_text(&rest, &text))
			return false;
	return n >= 2;
}

int av_kernel_parse(uint8_t type, struct av_str payload, struct av_kernel_message *ret)
{
	struct av_kernel_message m = {.type = (enum av_kernel_type)type, .rest = payload};
	bool good = false;

	switch (m.type) {
	case AV_KERNEL_READY:
		good = payload.n <= AV_KERNEL_BANNER_MAX;
		break;
	case AV_KERNEL_ACCEPTED:
		good = take_u32(&m.rest, &m.count) && m.rest.n == 0;
		break;
	case AV_KERNEL_DISPLAY:
		good = take_u8(&m.rest, &m.flags) &&
		       !(m.flags & ~(AV_KERNEL_MAIN | AV_KERNEL_UPDATE | AV_KERNEL_ANSWER)) &&
		       check_items(m.rest);
		break;
	case AV_KERNEL_ERROR:
		good = check_texts(m.rest);
		break;
	case AV_KERNEL_CLEAR:
		good = take_u8(&m.rest, &m.flags) &&
		       !(m.flags & ~(AV_KERNEL_WAIT | AV_KERNEL_ANSWER)) && m.rest.n == 0;
		break;
	case AV_KERNEL_FINISHED:
		good = take_u8(&m.rest, &m.flags) && m.flags <= 1 && take_u32(&m.rest, &m.count) &&
		       m.rest.n == 0;
		break;
	case AV_KERNEL_SETUP:
	case AV_KERNEL_EXECUTE:
	case AV_KERNEL_KNOWN:
		break;
	}
	if (!good)
		return -EPROTO;
	*ret = m;
	return 0;
}

/* --- the stream --- */

void av_kernel_dec_init(struct av_kernel_dec *d)
{
	*d = (struct av_kernel_dec){.payload = AV_BUF_INIT(AV_KERNEL_MESSAGE_MAX)};
}

void av_kernel_dec_clear(struct av_kernel_dec *d)
{
	av_buf_clear(&d->payload);
	av_kernel_dec_init(d);
}

/* Collects the header; 1 when it is complete, 0 when it is not, -EMSGSIZE. */
static int feed_header(struct av_kernel_dec *d, const char *p, size_t n, size_t *ret_used)
{
	size_t k = AV_MIN((size_t)(AV_KERNEL_HEADER - d->header_n), n);

	memcpy(d->header + d->header_n, p, k);
	d->header_n = (uint8_t)(d->header_n + k);
	*ret_used = k;
	if (d->header_n < AV_KERNEL_HEADER)
		return 0;
	d->left = av_get_be32(d->header);
	return d->left > AV_KERNEL_MESSAGE_MAX ? -EMSGSIZE : 1;
}

ssize_t av_kernel_dec_feed(
    struct av_kernel_dec *d, const void *data, size_t n, av_kernel_payload_fn *fn, void *ctx)
{
	const char *p = data;
	size_t used = 0;

	while (used < n) {
		struct av_str whole;
		size_t k;
		int r;

		if (d->header_n < AV_KERNEL_HEADER) {
			r = feed_header(d, p + used, n - used, &k);
			used += k;
			if (r <= 0)
				return r < 0 ? r : (ssize_t)used;
		}
		whole = av_str_n(p + used, AV_MIN((size_t)d->left, n - used));
		used += whole.n;
		d->left -= (uint32_t)whole.n;
		if (d->left || d->payload.n) {
			r = av_buf_append_str(&d->payload, whole);
			if (r < 0)
				return r;
			if (d->left)
				break;
			whole = av_buf_str(&d->payload);
		}
		d->header_n = 0;
		r = fn(ctx, d->header[4], whole);
		/* Long ones are rare: their memory goes back at once. */
		av_buf_clear(&d->payload);
		if (r < 0)
			return r;
		if (r > 0)
			break;
	}
	return (ssize_t)used;
}

/* --- writing --- */

static int write_header(struct av_buf *out, size_t n, enum av_kernel_type type)
{
	uint8_t header[AV_KERNEL_HEADER];

	if (n > AV_KERNEL_MESSAGE_MAX)
		return -EMSGSIZE;
	av_put_be32(header, (uint32_t)n);
	header[4] = (uint8_t)type;
	return av_buf_append(out, header, sizeof(header));
}

int av_kernel_write_setup(struct av_buf *out, struct av_str cwd, struct av_str pairs)
{
	int r = write_header(out, cwd.n + 1 + pairs.n, AV_KERNEL_SETUP);

	if (r < 0)
		return r;
	(void)av_buf_append_str(out, cwd);
	(void)av_buf_append_char(out, '\0');
	return av_buf_append_str(out, pairs);
}

int av_kernel_write_known(struct av_buf *out)
{
	return write_header(out, 0, AV_KERNEL_KNOWN);
}

int av_kernel_write_execute(
    struct av_buf *out, uint8_t flags, struct av_str code, struct av_str pairs)
{
	uint8_t size[4];
	int r;

	if (code.n > AV_KERNEL_MESSAGE_MAX || pairs.n > AV_KERNEL_MESSAGE_MAX)
		return -EMSGSIZE;
	r = write_header(out, 1 + sizeof(size) + code.n + pairs.n, AV_KERNEL_EXECUTE);
	if (r < 0)
		return r;
	av_put_be32(size, (uint32_t)code.n);
	(void)av_buf_append_char(out, (char)flags);
	(void)av_buf_append(out, size, sizeof(size));
	(void)av_buf_append_str(out, code);
	return av_buf_append_str(out, pairs);
}
