/* SPDX-License-Identifier: Apache-2.0 */
/*
 * complete.c - aviary complete (hidden): what may follow the words typed so far
 *
 * Theory of operation. The scripts of `aviary completion` know nothing: they call this program with
 * the shell's name and the words up to the cursor, the last of which is begun (or empty). The same
 * tables that parse a command line say what fits there, so both always agree. Answers are lines: a
 * value, a tab and what it is; or a wish to the shell:
 *
 *     :files     file names as well     :commands  programs as well     :nospace  no space after it
 *
 * Names of sandboxes, templates and so on are asked of the daemon. A shell waits meanwhile, so it
 * ends after a second, and in silence whatever goes wrong. Names come from other people: those with
 * characters that a shell would have to quote are left out, and those that it or a command would
 * take for something else (--all). What stands behind a name is on its line, whatever it says.
 */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/json.h"
#include "cli/command.h"

#include "base/banned.h"

#define TIME_LIMIT_US 990000
#define VALUES_MAX    1000
#define GLOBALS_MAX   8

struct completer {
	const struct command *command; /* NULL: the word is the command itself */
	struct args globals;           /* --url and such, of the words typed */
	struct arg_value values[GLOBALS_MAX];
	const char *word; /* what is completed */
	size_t skip;      /* bytes of it that the shell does not want to see again */
	size_t n_printed;
	bool nospace;
};

static void on_alarm(int sig)
{
	(void)sig;
	_exit(0);
}

/* ---- answers ---- */

static bool is_plain(const char *s)
{
	static const char others[] = "._-+@/:=,";

	if (!*s || *s == ':')
		return false;
	for (; *s; s++)
		if (!((*s >= 'a' && *s <= 'z') || (*s >= 'A' && *s <= 'Z') ||
		        (*s >= '0' && *s <= '9') || strchr(others, *s)))
			return false;
	return true;
}

/* prefix is a part of the word that stands before value: "--on-timeout=". */
static void offer(struct completer *c, const char *prefix, const char *value, const char *what)
{
	char whole[512], text[512];
	int n = snprintf(whole, sizeof(whole), "%s%s", prefix, value);

	if (n < 0 || (size_t)n >= sizeof(whole) || !is_plain(value) ||
	    strncmp(whole, c->word, strlen(c->word)) != 0 || c->n_printed >= VALUES_MAX)
		return;
	c->n_printed++;
	fputs(whole + AV_MIN(c->skip, (size_t)n), stdout);
	if (what && what[0]) {
		snprintf(text, sizeof(text), "%s", what);
		cli_make_safe(text);
		printf("\t%s", text);
	}
	putchar('\n');
}

/* Words of "pause|delete". */
static void offer_words(struct completer *c, const char *prefix, const char *words)
{
	char word[64];

	while (*words) {
		size_t n = strcspn(words, "|");
		if (av_str_copy(word, sizeof(word), av_str_n(words, n)) == 0)
			offer(c, prefix, word, NULL);
		words += n + (words[n] == '|');
	}
}

static void offer_commands(struct completer *c)
{
	for (const struct command *const *list = commands; *list; list++)
		if (!(*list)->is_hidden)
			offer(c, "", (*list)->name, (*list)->summary);
}

/* ---- what the daemon knows ---- */

static const struct source {
	enum completion completion;
	const char *path, *value, *or_value, *what[2];
} sources[] = {
    {COMPLETE_SANDBOXES, "/v1/sandboxes", "name", "id", {"status", "template"}},
    {COMPLETE_PATHS, "/v1/sandboxes", "name", "id", {"status", "template"}},
    {COMPLETE_TEMPLATES, "/v1/snapshots", "name", NULL, {"type", NULL}},
    {COMPLETE_KEYS, "/v1/api-keys", "name", "id", {"prefix", NULL}},
    {COMPLETE_TEAMS, "/v1/teams", "slug", "id", {"name", NULL}},
    {COMPLETE_HOSTS, "/v1/hosts", "id", NULL, {"status", "address"}},
};

static bool is_name(const char *s)
{
	return is_plain(s) && !strchr("-+@/=,", s[0]);
}

/* NULL where there is none. A sandbox keeps its name in its metadata. */
static const char *member(const json_t *row, const char *name)
{
	const char *s = name ? json_string_value(json_object_get(row, name)) : NULL;

	if (!s && name && strcmp(name, "name") == 0)
		s = json_string_value(json_object_get(json_object_get(row, "metadata"), "name"));
	return s && s[0] ? s : NULL;
}

static void offer_row(
    struct completer *c, const struct source *s, const char *prefix, const json_t *row)
{
	const char *value = member(row, s->value), *other = member(row, s->or_value);
	const char *a = member(row, s->what[0]), *b = member(row, s->what[1]);
	const char *end = s->completion == COMPLETE_PATHS ? ":" : "";
	size_t n_before = c->n_printed;
	char what[160], text[256];

	if (value && !is_name(value))
		value = NULL;
	if (other && !is_name(other))
		other = NULL;
	snprintf(what, sizeof(what), "%s%s%s", a ? a : "", a && b ? ", " : "", b ? b : "");
	if (value) {
		snprintf(text, sizeof(text), "%s%s", value, end);
		offer(c, prefix, text, what);
	}
	/* An id is for those without a name, and for who has begun to type one. */
	if (other && c->n_printed == n_before && (!value || c->word[strlen(prefix)])) {
		snprintf(text, sizeof(text), "%s%s", other, end);
		offer(c, prefix, text, what);
	}
}

static void ask_daemon(struct completer *c, enum completion completion, const char *prefix)
{
	struct cli cli = {.args = &c->globals};
	AV_CLEANUP(av_json_decrefp) json_t *list = NULL;
	struct av_err err = {0};
	const json_t *row;
	size_t i;

	for (size_t k = 0; k < AV_ARRAY_LEN(sources); k++) {
		if (sources[k].completion != completion)
			continue;
		if (cli_connect(&cli) == 0 &&
		    cli_call(&cli, "GET", NULL, &list, &err, "%s", sources[k].path) == 0)
			json_array_foreach (list, i, row)
				offer_row(c, &sources[k], prefix, row);
		cli_clear(&cli);
		return;
	}
}

/* ---- what fits ---- */

static void offer_kind(struct completer *c, enum completion completion, const char *prefix)
{
	switch (completion) {
	case COMPLETE_NONE:
		return;
	case COMPLETE_FILES:
		puts(":files");
		return;
	case COMPLETE_PROGRAMS:
		puts(":commands");
		return;
	case COMPLETE_SHELLS:
		offer_words(c, prefix, "bash|zsh|fish");
		return;
	case COMPLETE_COMMANDS:
		offer_commands(c);
		return;
	case COMPLETE_PATHS:
		/* Past the colon it is a path of the sandbox's. */
		if (strchr(c->word, ':'))
			return;
		puts(":files");
		c->nospace = true;
		break;
	default:
		break;
	}
	ask_daemon(c, completion, prefix);
}

static void offer_value(struct completer *c, const struct option_spec *o, const char *prefix)
{
	if (strchr(o->value, '|'))
		offer_words(c, prefix, o->value);
	else
		offer_kind(c, o->completion, prefix);
}

static void offer_options(struct completer *c, const struct option_spec *o)
{
	char name[64];

	for (; o && o->name; o++) {
		snprintf(name, sizeof(name), "--%s", o->name);
		offer(c, "", name, o->help);
		if (o->letter && !c->word[1]) {
			snprintf(name, sizeof(name), "-%c", o->letter);
			offer(c, "", name, o->help);
		}
	}
}

static const struct option_spec *find_long(const struct option_spec *o, const char *name, size_t n)
{
	for (; o && o->name; o++)
		if (strlen(o->name) == n && strncmp(o->name, name, n) == 0)
			return o;
	return NULL;
}

static const struct option_spec *find_letter(const struct option_spec *o, char letter)
{
	for (; o && o->name; o++)
		if (o->letter == letter)
			return o;
	return NULL;
}

/* The option that a word names, whose value is in the word (*ret_value), in the next one (NULL), or
 * that takes none. */
static const struct option_spec *option_of(
    const struct command *command, const char *word, const char **ret_value)
{
	const struct option_spec *o = NULL;

	*ret_value = NULL;
	if (word[1] == '-') {
		size_t n = strcspn(word + 2, "=");
		o = find_long(command->options, word + 2, n);
		o = o ? o : find_long(global_options, word + 2, n);
		if (word[2 + n] == '=')
			*ret_value = word + 2 + n + 1;
		return o;
	}
	/* "-it": the first one that takes a value takes the rest. */
	for (word++; *word; word++) {
		o = find_letter(command->options, *word);
		o = o ? o : find_letter(global_options, *word);
		if (o && o->kind != OPTION_FLAG) {
			*ret_value = word[1] ? word + 1 : NULL;
			return o;
		}
	}
	return o;
}

static void offer_operand(struct completer *c, size_t n_operands, const char *first)
{
	const struct command *command = c->command;

	if (command->verbs && n_operands == 0) {
		for (const struct verb *v = command->verbs; v->name; v++)
			offer(c, "", v->name, v->summary);
	} else if (command->verbs) {
		for (const struct verb *v = command->verbs; v->name; v++)
			if (strcmp(v->name, first) == 0 && strchr(v->usage, '|') &&
			    n_operands == v->max)
				offer_words(c, "",
				    strrchr(v->usage, ' ') ? strrchr(v->usage, ' ') + 1 : v->usage);
			else if (strcmp(v->name, first) == 0 && n_operands <= v->max)
				offer_kind(c, v->completion, "");
	} else if (n_operands == 0) {
		offer_kind(c, command->operand_completion, "");
	} else if (command->options_end_after && n_operands >= command->options_end_after &&
	           command->more_completion != COMPLETE_PROGRAMS) {
		offer_kind(c, COMPLETE_FILES, "");
	} else if (n_operands < command->max_operands) {
		bool is_program = command->more_completion == COMPLETE_PROGRAMS && n_operands == 1;
		offer_kind(c,
		    is_program || command->more_completion != COMPLETE_PROGRAMS
		        ? command->more_completion
		        : COMPLETE_FILES,
		    "");
	}
}

static void keep_global(struct completer *c, const struct option_spec *o, const char *value)
{
	bool is_global =
	    o >= global_options && find_long(global_options, o->name, strlen(o->name)) == o;

	/* "-" is standard input, which is the shell's. */
	if (is_global && value && strcmp(value, "-") != 0 && c->globals.n_values < GLOBALS_MAX)
		c->values[c->globals.n_values++] = (struct arg_value){.spec = o, .text = value};
}

/* words: after the command's name, the last of which is c->word. */
static void complete_arguments(struct completer *c, char **words, size_t n)
{
	const struct option_spec *pending = NULL;
	const char *value, *first = "";
	bool options = true;
	size_t n_operands = 0, end = c->command->options_end_after;

	for (size_t i = 0; i + 1 < n; i++) {
		const char *w = words[i];
		options = options && !(end && n_operands >= end);
		if (pending) {
			keep_global(c, pending, w);
			pending = NULL;
		} else if (options && strcmp(w, "--") == 0) {
			options = false;
		} else if (options && w[0] == '-' && w[1]) {
			const struct option_spec *o = option_of(c->command, w, &value);
			if (o && o->kind != OPTION_FLAG && !value)
				pending = o;
			else if (o)
				keep_global(c, o, value);
		} else {
			first = n_operands++ == 0 ? w : first;
		}
	}
	options = options && !(end && n_operands >= end);
	if (pending) {
		offer_value(c, pending, "");
	} else if (options && c->word[0] == '-') {
		const struct option_spec *o = option_of(c->command, c->word, &value);
		char prefix[64];
		if (o && o->kind != OPTION_FLAG && value && c->word[1] == '-' &&
		    av_str_copy(prefix, sizeof(prefix),
		        av_str_n(c->word, (size_t)(value - c->word))) == 0) {
			offer_value(c, o, prefix);
			return;
		}
		offer_options(c, c->command->options);
		offer_options(c, global_options);
	} else {
		offer_operand(c, n_operands, first);
	}
}

/* bash breaks words at ':' and '=', and wants to see only what follows the last of them: puts them
 * together again, in place. The joined ones are owned by *joined. */
static size_t join_words(char **words, size_t n, char **joined)
{
	size_t out = 0;

	for (size_t i = 0; i < n; i++) {
		bool is_break = words[i][0] && !words[i][strspn(words[i], ":=")];
		bool was_break =
		    i > 0 && words[i - 1][0] && !words[i - 1][strspn(words[i - 1], ":=")];
		AV_CLEANUP(av_buf_clear) struct av_buf b = AV_BUF_INIT(65536);
		if (i < 2 || !(is_break || was_break) || out < 2) {
			words[out++] = words[i];
			continue;
		}
		(void)av_buf_printf(&b, "%s%s", words[out - 1], words[i]);
		char *both = av_str_dup(av_buf_str(&b));
		if (!both)
			_exit(0);
		free(joined[out - 1]);
		words[out - 1] = joined[out - 1] = both;
	}
	return out;
}

static void complete(struct completer *c, char **words, size_t n)
{
	c->word = words[n - 1];
	c->globals.values = c->values;
	if (n == 1) {
		offer_commands(c);
		return;
	}
	c->command = command_find(words[0]);
	if (!c->command)
		return;
	complete_arguments(c, words + 1, n - 1);
	if (c->nospace)
		puts(":nospace");
}

static int run(struct cli *cli, const struct args *args)
{
	struct completer c = {.globals = {.command = args->command}};
	struct sigaction sa = {.sa_handler = on_alarm};
	struct itimerval limit = {.it_value = {.tv_usec = TIME_LIMIT_US}};
	size_t n = args->n_operands - 1;
	char **words = args->operands + 1, **joined;
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	(void)cli;
	if (null < 0 || dup2(null, STDIN_FILENO) < 0 || dup2(null, STDERR_FILENO) < 0)
		return 0;
	close(null);
	sigaction(SIGALRM, &sa, NULL);
	setitimer(ITIMER_REAL, &limit, NULL);
	if (n == 0)
		return 0;
	joined = calloc(n, sizeof(*joined));
	if (!joined)
		return 0;
	if (strcmp(args->operands[0], "bash") == 0) {
		n = join_words(words, n, joined);
		for (const char *p = words[n - 1]; *p; p++)
			if (*p == ':' || *p == '=')
				c.skip = (size_t)(p - words[n - 1]) + 1;
	}
	complete(&c, words, n);
	for (size_t i = 0; i < args->n_operands - 1; i++)
		free(joined[i]);
	free(joined);
	return 0;
}

const struct command command_complete = {
    .name = "complete",
    .usage = "bash|zsh|fish [WORD…]",
    .summary = "say what may follow the words typed so far (for the scripts of completion)",
    .min_operands = 1,
    .max_operands = OPERANDS_ANY,
    .options_end_after = 1,
    .is_hidden = true,
    .run = run,
};
