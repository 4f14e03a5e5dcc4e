/* SPDX-License-Identifier: Apache-2.0 */
/*
 * scopes.c - what an actor may: scopes of keys, roles in teams
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "control/accounts.h"

#include "base/banned.h"

static const char *const roles[] = {[CONTROL_ROLE_MEMBER] = "member",
    [CONTROL_ROLE_ADMIN] = "admin",
    [CONTROL_ROLE_OWNER] = "owner"};

static const char *const scopes[CONTROL_SCOPE_COUNT] = {
#define CONTROL_SCOPE(name, text, help) [CONTROL_SCOPE_BIT_##name] = (text),
#include "control/scopes.def"
#undef CONTROL_SCOPE
};

#define CONTROL_SCOPE(name, text, help) text ", "
static const char allowed[] =
#include "control/scopes.def"
    "area:* for both of an area, or * for all";
#undef CONTROL_SCOPE

const char *control_role_text(enum control_role role)
{
	return roles[role];
}

enum control_role control_role_parse(struct av_str text)
{
	for (size_t i = CONTROL_ROLE_MEMBER; i < AV_ARRAY_LEN(roles); i++)
		if (av_str_eq_c(text, roles[i]))
			return (enum control_role)i;
	return CONTROL_ROLE_NONE;
}

const char *control_scope_text(uint32_t scope)
{
	for (size_t i = 0; i < CONTROL_SCOPE_COUNT; i++)
		if (scope == 1u << i)
			return scopes[i];
	return "";
}

/* The bits of one word; 0: there is no such scope. */
static uint32_t parse_word(struct av_str word)
{
	uint32_t bits = 0;

	if (av_str_eq_c(word, "*"))
		return CONTROL_SCOPE_ALL;
	for (size_t i = 0; i < CONTROL_SCOPE_COUNT; i++) {
		struct av_str scope = av_str_c(scopes[i]), area;

		if (av_str_eq(word, scope))
			return 1u << i;
		if (!av_str_cut(&scope, ':', &area) || !av_str_ends(word, AV_STR(":*")))
			continue;
		if (av_str_eq(av_str_n(word.p, word.n - 2), area))
			bits |= 1u << i;
	}
	return bits;
}

int control_scopes_parse(struct av_str text, uint32_t *ret, struct av_err *err)
{
	uint32_t bits = 0, more;
	struct av_str word;
	bool last;

	do {
		last = !av_str_cut(&text, ' ', &word);
		if (!word.n)
			continue;
		more = parse_word(word);
		if (!more)
			return av_err_set(err, AV_ERR_INVALID, "'%.*s' is no scope; scopes are %s",
			    (int)AV_MIN(word.n, (size_t)40), word.p, allowed);
		bits |= more;
	} while (!last);
	*ret = bits;
	return 0;
}

void control_scopes_write(uint32_t bits, char *ret, size_t size)
{
	size_t n = 0;

	if (size)
		ret[0] = '\0';
	if (bits == CONTROL_SCOPE_ALL)
		n = (size_t)snprintf(ret, size, "*");
	for (size_t i = 0; i < CONTROL_SCOPE_COUNT && bits != CONTROL_SCOPE_ALL && n < size; i++)
		if (bits & 1u << i)
			n += (size_t)snprintf(ret + n, size - n, "%s%s", n ? " " : "", scopes[i]);
	assert(n < size);
}

int control_need_scope(const struct control_actor *a, uint32_t scope, struct av_err *err)
{
	if ((a->scopes & scope) == scope)
		return 0;
	return av_err_set(err, AV_ERR_FORBIDDEN,
	    "this API key does not have the scope %s; make one that does, or ask whoever made it",
	    control_scope_text(scope));
}

int control_need_role(const struct control_actor *a, enum control_role least, struct av_err *err)
{
	if (a->role >= least)
		return 0;
	return av_err_set(err, AV_ERR_FORBIDDEN,
	    "this needs the role %s in the team%s; yours is %s", roles[least],
	    least < CONTROL_ROLE_OWNER ? " (or a higher one)" : "",
	    a->role ? roles[a->role] : "none");
}

int control_need_admin(const struct control_actor *a, struct av_err *err)
{
	int r = control_need_scope(a, CONTROL_SCOPE_ADMIN, err);

	if (r < 0)
		return r;
	if (a->is_admin)
		return 0;
	return av_err_set(err, AV_ERR_FORBIDDEN, "this is for administrators of this Aviary only");
}
