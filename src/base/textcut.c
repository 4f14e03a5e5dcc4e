/* SPDX-License-Identifier: Apache-2.0 */
/*
 * textcut.c - a stream of bytes cut into pieces of whole UTF-8 characters
 */
#include "base/textcut.h"

#include "base/banned.h"

/* Moves bytes of *data behind those that are kept, while they belong to the same character. True
 * when the character is still not whole: then all of *data is used up. */
static bool complete(struct av_textcut *c, struct av_str *data)
{
	while (data->n) {
		c->p[c->n] = data->p[0];
		struct av_str with = av_str_n(c->p, (size_t)c->n + 1);
		bool more = av_utf8_incomplete_tail(with) == with.n;
		/* Neither begun nor whole: the byte is not this character's. */
		if (!more && !av_utf8_valid(with))
			return false;
		c->n++;
		*data = av_str_n(data->p + 1, data->n - 1);
		if (!more)
			return false;
	}
	return true;
}

struct av_str av_textcut_end(struct av_textcut *c)
{
	struct av_str kept = av_str_n(c->lent, c->n);
	memcpy(c->lent, c->p, c->n);
	c->n = 0;
	return kept;
}

struct av_str av_textcut_feed(struct av_textcut *c, struct av_str data, struct av_str *ret_head)
{
	bool begun = c->n && complete(c, &data);
	*ret_head = begun ? AV_STR("") : av_textcut_end(c);
	size_t tail = begun ? 0 : av_utf8_incomplete_tail(data);
	data.n -= tail;
	if (tail) {
		memcpy(c->p, data.p + data.n, tail);
		c->n = (unsigned char)tail;
	}
	return data;
}
