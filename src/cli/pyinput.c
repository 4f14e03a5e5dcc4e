/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pyinput.c - whether lines of Python typed so far are a whole statement
 */
#include "cli/pyinput.h"

#include <string.h>

#include "base/banned.h"

struct scan {
	int depth;         /* of brackets */
	char quote;        /* of the string we are in; 0: in none */
	bool is_long;      /* of three quotes */
	bool has_block;    /* a line ended in a colon, or began with a decorator */
	bool continues;    /* the last line ended in a backslash */
	bool last_is_open; /* the last line ended inside brackets or a long string */
	char last;         /* the last character of a line that is no space or comment */
};

/* One character of code, *p moved behind it. */
static void take_code(struct scan *s, const char **p)
{
	char c = **p;

	if (c == '#') {
		*p += strcspn(*p, "\n");
		return;
	}
	if (c == '\'' || c == '"') {
		s->quote = c;
		s->is_long = (*p)[1] == c && (*p)[2] == c;
		*p += s->is_long ? 3 : 1;
		s->last = c;
		return;
	}
	if (strchr("([{", c))
		s->depth++;
	else if (strchr(")]}", c) && s->depth > 0)
		s->depth--;
	if (c != ' ' && c != '\t')
		s->last = c;
	(*p)++;
}

static void take_string(struct scan *s, const char **p)
{
	char c = **p;

	if (c == '\\' && (*p)[1]) {
		*p += 2;
	} else if (c == s->quote && s->is_long && (*p)[1] == c && (*p)[2] == c) {
		s->quote = 0;
		*p += 3;
	} else if (c == s->quote && !s->is_long) {
		s->quote = 0;
		(*p)++;
	} else {
		(*p)++;
	}
}

static void end_line(struct scan *s)
{
	if (s->quote && !s->is_long)
		s->quote = 0; /* a mistake: Python shall say so */
	s->last_is_open = s->depth > 0 || s->quote;
	s->continues = !s->quote && s->last == '\\';
	if (!s->last_is_open && s->last == ':')
		s->has_block = true;
	s->last = 0;
}

bool pyinput_is_whole(const char *text)
{
	struct scan s = {0};
	const char *line = text;

	for (const char *p = text; *p;) {
		if (p == line && !s.last_is_open && *p == '@')
			s.has_block = true;
		if (*p == '\n') {
			end_line(&s);
			line = ++p;
		} else if (s.quote) {
			take_string(&s, &p);
		} else {
			take_code(&s, &p);
		}
	}
	if (s.last_is_open || s.continues)
		return false;
	if (!s.has_block)
		return true;
	/* A block ends with an empty line. */
	size_t n = strlen(text);
	return n >= 2 && text[n - 1] == '\n' && text[n - 2] == '\n';
}
