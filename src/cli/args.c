/* SPDX-License-Identifier: Apache-2.0 */
/*
 * args.c - parsing a command line by the command's own table
 *
 * GNU manners: --name VALUE, --name=VALUE, -nVALUE, -n VALUE, grouped flags (-it), "--" ends the
 * options. No abbreviated long options: they would make every new option a breaking change.
 */
#include "cli/args.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/num.h"
#include "base/str.h"
#include "cli/command.h"

#include "base/banned.h"

#define WORD_MAX 32

/* Damerau-Levenshtein distance without repeated edits, of words up to WORD_MAX. */
static size_t edit_distance(const char *a, const char *b)
{
	size_t d[WORD_MAX + 1][WORD_MAX + 1];
	size_t na = strlen(a), nb = strlen(b);
	if (na > WORD_MAX || nb > WORD_MAX)
		return WORD_MAX;
	for (size_t i = 0; i <= na; i++)
		d[i][0] = i;
	for (size_t j = 0; j <= nb; j++)
		d[0][j] = j;
	for (size_t i = 1; i <= na; i++)
		for (size_t j = 1; j <= nb; j++) {
			size_t cost = a[i - 1] != b[j - 1];
			size_t best = AV_MIN(d[i - 1][j] + 1, d[i][j - 1] + 1);
			best = AV_MIN(best, d[i - 1][j - 1] + cost);
			if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
				best = AV_MIN(best, d[i - 2][j - 2] + 1);
			d[i][j] = best;
		}
	return d[na][nb];
}

const char *nearest_word(const char *word, const char *const *candidates)
{
	const char *nearest = NULL;
	size_t n = strlen(word);
	/* One slip in a short word, up to a third of a long one. */
	size_t best = n < 4 ? 2 : n / 3 + 2;
	for (; *candidates; candidates++) {
		size_t d = edit_distance(word, *candidates);
		if (n >= 3 && strncmp(word, *candidates, n) == 0)
			d = 1;
		if (d < best) {
			best = d;
			nearest = *candidates;
		}
	}
	return nearest;
}

static const struct option_spec *find_in(
    const struct option_spec *list, struct av_str name, char letter)
{
	for (; list && list->name; list++)
		if (letter ? list->letter == letter : av_str_eq_c(name, list->name))
			return list;
	return NULL;
}

static const struct option_spec *find_option(
    const struct command *command, struct av_str name, char letter)
{
	const struct option_spec *o = find_in(command->options, name, letter);
	return o ? o : find_in(global_options, name, letter);
}

static int unknown_option(const struct command *command, struct av_str name)
{
	const char *names[64];
	size_t n = 0;
	for (const struct option_spec *o = command->options; o && o->name && n < 48; o++)
		names[n++] = o->name;
	for (const struct option_spec *o = global_options; o->name && n < 63; o++)
		names[n++] = o->name;
	names[n] = NULL;

	char word[WORD_MAX + 1];
	const char *near = NULL;
	if (av_str_copy(word, sizeof(word), name) == 0)
		near = nearest_word(word, names);
	fprintf(stderr, "aviary %s: unknown option '--%.*s'", command->name, AV_STR_ARG(name));
	if (near)
		fprintf(stderr, "; did you mean '--%s'?\n", near);
	else
		fprintf(stderr, "; 'aviary %s --help' lists them\n", command->name);
	return -EINVAL;
}

static int check_value(const struct command *command, const struct option_spec *o, const char *text)
{
	struct av_err err = {0};
	uint64_t v;
	struct av_str s = av_str_c(text);
	switch (o->kind) {
	case OPTION_SIZE:
		if (av_parse_size(s, &v, &err) == 0)
			return 0;
		break;
	case OPTION_DURATION:
		if (av_parse_duration_ms(s, &v, &err) == 0)
			return 0;
		break;
	case OPTION_MILLI:
		if (av_parse_milli(s, 1000000000, &v) == 0 && v > 0)
			return 0;
		av_err_set(&err, AV_ERR_INVALID, "'%s' is not a positive number such as 1.5", text);
		break;
	case OPTION_NUMBER:
		if (av_parse_u64(s, 0, INT64_MAX, &v) == 0)
			return 0;
		av_err_set(&err, AV_ERR_INVALID, "'%s' is not a number", text);
		break;
	default:
		return 0;
	}
	fprintf(stderr, "aviary %s: --%s: %s\n", command->name, o->name, err.message);
	return -EINVAL;
}

static int add_value(struct args *a, const struct option_spec *o, const char *text)
{
	struct arg_value *v = realloc(a->values, (a->n_values + 1) * sizeof(*v));
	if (!v) {
		fprintf(stderr, "aviary: out of memory\n");
		return -ENOMEM;
	}
	a->values = v;
	a->values[a->n_values++] = (struct arg_value){.spec = o, .text = text};
	return o->kind == OPTION_FLAG ? 0 : check_value(a->command, o, text);
}

static int missing_value(const struct command *command, const struct option_spec *o)
{
	fprintf(stderr, "aviary %s: --%s needs a value (%s)\n", command->name, o->name, o->value);
	return -EINVAL;
}

/* "--name", "--name=value", "--name value"; *pos is moved past what was used. */
static int parse_long(struct args *a, int argc, char **argv, int *pos)
{
	struct av_str rest = av_str_c(argv[*pos] + 2), name;
	bool has_value = av_str_cut(&rest, '=', &name);
	const struct option_spec *o = find_option(a->command, name, 0);
	if (!o)
		return unknown_option(a->command, name);
	(*pos)++;
	if (o->kind == OPTION_FLAG) {
		if (!has_value)
			return add_value(a, o, NULL);
		fprintf(stderr, "aviary %s: --%s takes no value\n", a->command->name, o->name);
		return -EINVAL;
	}
	if (has_value)
		return add_value(a, o, rest.p);
	if (*pos >= argc)
		return missing_value(a->command, o);
	return add_value(a, o, argv[(*pos)++]);
}

/* "-i", "-it", "-m512M", "-m 512M". */
static int parse_short(struct args *a, int argc, char **argv, int *pos)
{
	const char *p = argv[(*pos)++] + 1;
	while (*p) {
		const struct option_spec *o = find_option(a->command, AV_STR(""), *p);
		if (!o) {
			fprintf(stderr,
			    "aviary %s: unknown option '-%c'; 'aviary %s --help' lists them\n",
			    a->command->name, *p, a->command->name);
			return -EINVAL;
		}
		p++;
		if (o->kind != OPTION_FLAG) {
			if (*p)
				return add_value(a, o, p);
			if (*pos >= argc)
				return missing_value(a->command, o);
			return add_value(a, o, argv[(*pos)++]);
		}
		int r = add_value(a, o, NULL);
		if (r < 0)
			return r;
	}
	return 0;
}

static int check_operands(const struct args *a)
{
	AV_CLEANUP(av_buf_clear) struct av_buf usage = AV_BUF_INIT(4096);
	const struct command *c = a->command;

	if (a->n_operands >= c->min_operands && a->n_operands <= c->max_operands)
		return 0;
	command_usage(c, &usage);
	if (a->n_operands < c->min_operands)
		fprintf(stderr, "aviary %s: too few arguments\n", c->name);
	else
		fprintf(stderr, "aviary %s: unexpected argument '%s'\n", c->name,
		    a->operands[c->max_operands]);
	fprintf(stderr, "usage: aviary %s [OPTION…]%s%s\n", c->name,
	    av_buf_str(&usage).n ? " " : "", av_buf_cstr(&usage));
	return -EINVAL;
}

int args_parse(struct args *a, const struct command *command, int argc, char **argv)
{
	*a = (struct args){.command = command};
	a->operands = calloc((size_t)argc + 1, sizeof(*a->operands));
	if (!a->operands) {
		fprintf(stderr, "aviary: out of memory\n");
		return -ENOMEM;
	}
	int pos = 0;
	bool options = true;
	while (pos < argc) {
		const char *arg = argv[pos];
		size_t end = command->options_end_after;
		/* What follows the program's name is the program's: "run git log -- file". */
		if (options && end && a->n_operands >= end)
			options = false;
		if (options && strcmp(arg, "--") == 0) {
			a->has_separator = true;
			options = false;
			pos++;
			continue;
		}
		if (!options || arg[0] != '-' || !arg[1]) {
			a->operands[a->n_operands++] = argv[pos++];
			continue;
		}
		int r = arg[1] == '-' ? parse_long(a, argc, argv, &pos)
		                      : parse_short(a, argc, argv, &pos);
		if (r < 0)
			return r;
	}
	if (args_flag(a, "help")) {
		help_print_command(command);
		return 1;
	}
	return check_operands(a);
}

void args_clear(struct args *a)
{
	free(a->values);
	free(a->operands);
	*a = (struct args){0};
}

/* The last value given for the option, or NULL. */
static const struct arg_value *last_value(const struct args *a, const char *name)
{
	const struct option_spec *o = find_option(a->command, av_str_c(name), 0);
	assert(o);
	for (size_t i = a->n_values; i-- > 0;)
		if (a->values[i].spec == o)
			return &a->values[i];
	return NULL;
}

bool args_flag(const struct args *a, const char *name)
{
	return last_value(a, name) != NULL;
}

const char *args_text(const struct args *a, const char *name)
{
	const struct arg_value *v = last_value(a, name);
	return v ? v->text : NULL;
}

const char *args_next(const struct args *a, const char *name, size_t *pos)
{
	const struct option_spec *o = find_option(a->command, av_str_c(name), 0);
	assert(o);
	while (*pos < a->n_values) {
		const struct arg_value *v = &a->values[(*pos)++];
		if (v->spec == o)
			return v->text;
	}
	return NULL;
}

uint64_t args_size(const struct args *a, const char *name, uint64_t fallback_bytes)
{
	const char *text = args_text(a, name);
	uint64_t v = fallback_bytes;
	if (text && av_parse_size(av_str_c(text), &v, NULL) < 0)
		return fallback_bytes;
	return v;
}

uint64_t args_duration_ms(const struct args *a, const char *name, uint64_t fallback_ms)
{
	const char *text = args_text(a, name);
	uint64_t v = fallback_ms;
	if (text && av_parse_duration_ms(av_str_c(text), &v, NULL) < 0)
		return fallback_ms;
	return v;
}

uint64_t args_milli(const struct args *a, const char *name, uint64_t fallback)
{
	const char *text = args_text(a, name);
	uint64_t v = fallback;
	if (text && av_parse_milli(av_str_c(text), 1000000000, &v) < 0)
		return fallback;
	return v;
}

uint64_t args_number(const struct args *a, const char *name, uint64_t fallback)
{
	const char *text = args_text(a, name);
	uint64_t v = fallback;
	if (text && av_parse_u64(av_str_c(text), 0, INT64_MAX, &v) < 0)
		return fallback;
	return v;
}
