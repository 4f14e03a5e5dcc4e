/* SPDX-License-Identifier: Apache-2.0 */
/*
 * man.c - aviary man (hidden): manual pages, made from the tables of the commands
 *
 * The build runs it once with --output and installs what it writes: aviary(1) and one page for each
 * command. The language is man(7), as groff and mandoc read it; `tests/integration/cli/test_man.py`
 * holds the pages against the help and against both programs.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/fd.h"
#include "base/macros.h"
#include "cli/command.h"

#include "base/banned.h"

#define PAGE_MAX (256 * 1024)

static const char description[] =
    "aviary talks to a daemon, aviaryd(8), on this machine or at --url. A sandbox is one isolated "
    "Linux userland with processes and files of its own.\n"
    "Commands that take a SANDBOX take its id, a unique beginning of the id (with or without the "
    "leading \"sb\"), or the name given with --name.\n"
    "Each command has a page of its own, such as aviary-run(1); 'aviary help COMMAND' says the "
    "same in short.";

static const char *const files[] = {
    "~/.config/aviary/credentials.json\twritten by the daemon's first start and by 'aviary login', "
    "readable by its owner only: {\"url\": …, \"api_key\": …}. The key in it is sent to that URL "
    "only (a loopback address counts as any other loopback address)",
    "/etc/aviary/credentials.json\tthe service's, where there is none of the user's own",
    NULL,
};

static const char *const examples[] = {
    "aviary run -- sh -c 'id; ls /'\ta command in a fresh sandbox",
    "aviary run -it bash\ta shell in one",
    "generate | aviary run -i --memory 512M --timeout 30s -- python3 -\ta program from standard "
    "input, with limits",
    "id=$(aviary create -q) && aviary cp project/ $id:/root/project && aviary exec $id -- make -C "
    "/root/project\tone that stays",
    NULL,
};

/* ---- text to man(7) ---- */

static void put_char(struct av_buf *out, const char **p)
{
	static const struct {
		char c;
		const char *roff;
	} special[] = {{'\\', "\\e"}, {'-', "\\-"}, {'\'', "\\(aq"}, {'`', "\\(ga"}, {'"', "\\(dq"},
	    {'^', "\\(ha"}, {'~', "\\(ti"}};
	unsigned char c = (unsigned char)**p;

	for (size_t i = 0; i < AV_ARRAY_LEN(special); i++)
		if (**p == special[i].c) {
			(void)av_buf_append_c(out, special[i].roff);
			(*p)++;
			return;
		}
	if (c < 0x80) {
		(void)av_buf_append(out, (*p)++, 1);
		return;
	}
	/* Our own texts: valid UTF-8, of two or three bytes. */
	uint32_t u = c < 0xe0 ? c & 0x1fu : c & 0x0fu;
	for ((*p)++; ((unsigned char)**p & 0xc0) == 0x80; (*p)++)
		u = u << 6 | ((unsigned char)**p & 0x3fu);
	if (u == 0x2026)
		(void)av_buf_append_c(out, "\\&...");
	else
		(void)av_buf_printf(out, "\\[u%04X]", u);
}

static void put_plain(struct av_buf *out, const char *s, size_t n)
{
	const char *end = s + n;

	while (s < end)
		put_char(out, &s);
}

static bool is_word(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

/* How many bytes from s on stand out: an option, 'aviary …' in quotes, a page such as x(1). */
static size_t stands_out(const char *s, size_t *ret_skip)
{
	size_t n;

	*ret_skip = 0;
	if (strncmp(s, "'aviary ", 8) == 0 && (n = strcspn(s + 1, "'")) < 80 && s[1 + n]) {
		*ret_skip = 1;
		return n;
	}
	if (s[0] == '-' && s[1] == '-' && is_word(s[2])) {
		for (n = 2; is_word(s[n]) || (s[n] == '-' && is_word(s[n + 1])); n++)
			;
		return n;
	}
	for (n = 0; is_word(s[n]) || s[n] == '-'; n++)
		;
	if (n > 0 && s[n] == '(' && s[n + 1] >= '1' && s[n + 1] <= '8' && s[n + 2] == ')')
		return n;
	return 0;
}

/* Prose, options and commands in bold. No line of it can begin with a request, as nothing begins a
 * line but what \& stands before. */
static void put_prose(struct av_buf *out, const char *s)
{
	bool at_start = true;

	(void)av_buf_append_c(out, "\\&");
	while (*s) {
		size_t skip, n = at_start ? stands_out(s, &skip) : 0;
		if (n) {
			(void)av_buf_append_c(out, "\\fB");
			put_plain(out, s + skip, n);
			(void)av_buf_append_c(out, "\\fR");
			s += n + 2 * skip;
			at_start = false;
		} else if (*s == '\n') {
			s += strspn(s, "\n");
			(void)av_buf_append_c(out, "\n.PP\n\\&");
			at_start = true;
		} else {
			at_start = !is_word(*s) && *s != '-' && *s != '$' && *s != '\'';
			if (*s == '\'')
				at_start = false;
			put_char(out, &s);
		}
	}
	(void)av_buf_append_c(out, "\n");
}

/* A usage: what is typed so in bold, what stands for something in italics. */
static void put_usage(struct av_buf *out, const char *s)
{
	while (*s) {
		size_t n = strspn(s, "abcdefghijklmnopqrstuvwxyz-");
		size_t upper = strspn(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZ");
		if (n || upper) {
			n = n ? n : upper;
			(void)av_buf_append_c(out, upper ? "\\fI" : "\\fB");
			put_plain(out, s, n);
			(void)av_buf_append_c(out, "\\fR");
			s += n;
		} else {
			put_char(out, &s);
		}
	}
}

/* ---- sections ---- */

static void put_head(struct av_buf *out, const char *page)
{
	(void)av_buf_append_c(out, ".\\\" SPDX-License-Identifier: Apache-2.0\n.TH ");
	for (const char *p = page; *p; p++)
		if (*p == '-')
			(void)av_buf_append_c(out, "\\-");
		else
			(void)av_buf_printf(
			    out, "%c", *p >= 'a' && *p <= 'z' ? *p - 'a' + 'A' : *p);
	(void)av_buf_append_c(
	    out, " 1 \"\" \"Aviary " AVIARY_VERSION "\" \"Aviary manual\"\n.SH NAME\n");
	put_plain(out, page, strlen(page));
	(void)av_buf_append_c(out, " \\- ");
}

static void put_options(struct av_buf *out, const char *title, const struct option_spec *o)
{
	if (!o || !o->name)
		return;
	(void)av_buf_printf(out, ".SH %s\n", title);
	for (; o->name; o++) {
		(void)av_buf_append_c(out, ".TP\n");
		if (o->letter)
			(void)av_buf_printf(out, "\\fB\\-%c\\fR, ", o->letter);
		(void)av_buf_append_c(out, "\\fB\\-\\-");
		put_plain(out, o->name, strlen(o->name));
		(void)av_buf_append_c(out, "\\fR");
		if (o->value) {
			(void)av_buf_append_c(out, " ");
			put_usage(out, o->value);
		}
		(void)av_buf_append_c(out, "\n");
		put_prose(out, o->help);
	}
}

static void put_pairs(struct av_buf *out, const char *const *pairs)
{
	for (; pairs && *pairs; pairs++) {
		size_t n = strcspn(*pairs, "\t");
		(void)av_buf_append_c(out, ".TP\n\\fB");
		put_plain(out, *pairs, n);
		(void)av_buf_append_c(out, "\\fR\n");
		put_prose(out, *pairs + n + ((*pairs)[n] == '\t'));
	}
}

static void put_examples(struct av_buf *out, const char *const *e)
{
	if (!e)
		return;
	(void)av_buf_append_c(out, ".SH EXAMPLES\n");
	for (; *e; e++) {
		size_t n = strcspn(*e, "\t");
		(void)av_buf_append_c(out, ".TP\n\\fB");
		put_plain(out, *e, n);
		(void)av_buf_append_c(out, "\\fR\n");
		put_prose(out, (*e)[n] ? *e + n + 1 : "");
	}
}

static void put_see(struct av_buf *out, const char *see)
{
	(void)av_buf_append_c(out, ".SH SEE ALSO\n\\fBaviary\\fR(1)");
	while (see && *see) {
		size_t n = strcspn(see, " ");
		(void)av_buf_append_c(out, ", \\fBaviary\\-");
		put_plain(out, see, n);
		(void)av_buf_append_c(out, "\\fR(1)");
		see += n + (see[n] == ' ');
	}
	(void)av_buf_append_c(out, ", \\fBaviaryd\\fR(8)\n");
}

static void put_synopsis(struct av_buf *out, const struct command *c)
{
	(void)av_buf_append_c(out, ".SH SYNOPSIS\n");
	if (!c->verbs) {
		(void)av_buf_printf(out, "\\fBaviary %s\\fR [\\fIOPTION\\fR...]%s", c->name,
		    c->usage[0] ? " " : "");
		put_usage(out, c->usage);
		(void)av_buf_append_c(out, "\n");
		return;
	}
	for (const struct verb *v = c->verbs; v->name; v++) {
		(void)av_buf_printf(out, "%s\\fBaviary %s %s\\fR [\\fIOPTION\\fR...]%s",
		    v == c->verbs ? "" : ".br\n", c->name, v->name, v->usage[0] ? " " : "");
		put_usage(out, v->usage);
		(void)av_buf_append_c(out, "\n");
	}
}

static void put_verbs(struct av_buf *out, const struct verb *v)
{
	(void)av_buf_append_c(out, ".SH COMMANDS\n");
	for (; v->name; v++) {
		(void)av_buf_printf(out, ".TP\n\\fB%s\\fR%s", v->name, v->usage[0] ? " " : "");
		put_usage(out, v->usage);
		(void)av_buf_append_c(out, "\n");
		put_prose(out, v->summary);
	}
}

/* ---- pages ---- */

static void make_page(struct av_buf *out, const struct command *c)
{
	char page[64];

	snprintf(page, sizeof(page), "aviary-%s", c->name);
	put_head(out, page);
	put_plain(out, c->summary, strlen(c->summary));
	(void)av_buf_append_c(out, "\n");
	put_synopsis(out, c);
	(void)av_buf_append_c(out, ".SH DESCRIPTION\n");
	put_prose(out, c->description ? c->description : c->summary);
	if (c->verbs)
		put_verbs(out, c->verbs);
	put_options(out, "OPTIONS", c->options);
	put_options(out, "OPTIONS OF EVERY COMMAND", global_options);
	(void)av_buf_append_c(out, ".SH EXIT STATUS\n");
	put_pairs(out, c->exits);
	put_pairs(out, common_exits);
	(void)av_buf_append_c(out, ".SH ENVIRONMENT\n");
	put_pairs(out, c->environment);
	put_pairs(out, common_environment);
	put_examples(out, c->examples);
	put_see(out, c->see);
}

static void make_overview(struct av_buf *out)
{
	put_head(out, "aviary");
	(void)av_buf_append_c(out,
	    "run untrusted code in sandboxes\n.SH SYNOPSIS\n\\fBaviary\\fR \\fICOMMAND\\fR "
	    "[\\fIOPTION\\fR...] [\\fIARGUMENT\\fR...]\n.SH DESCRIPTION\n");
	put_prose(out, description);
	(void)av_buf_append_c(out, ".SH COMMANDS\n");
	for (const struct command *const *c = commands; *c; c++) {
		if ((*c)->is_hidden)
			continue;
		(void)av_buf_printf(out, ".TP\n\\fBaviary\\-%s\\fR(1)\n", (*c)->name);
		put_prose(out, (*c)->summary);
	}
	put_options(out, "OPTIONS OF EVERY COMMAND", global_options);
	(void)av_buf_append_c(out, ".SH EXIT STATUS\n");
	put_prose(out, "Commands that run a program end as it did (aviary-run(1)). Otherwise:");
	put_pairs(out, common_exits);
	(void)av_buf_append_c(out, ".SH ENVIRONMENT\n");
	put_pairs(out, common_environment);
	(void)av_buf_append_c(out, ".SH FILES\n");
	put_pairs(out, files);
	put_examples(out, examples);
	(void)av_buf_append_c(out,
	    ".SH SEE ALSO\n\\fBaviary\\-run\\fR(1), \\fBaviaryd\\fR(8), \\fBlibaviary\\fR(3)\n");
}

/* command NULL: the overview. */
static int write_page(int dir, const struct command *command)
{
	AV_CLEANUP(av_buf_clear) struct av_buf page = AV_BUF_INIT(PAGE_MAX);
	AV_CLEANUP(av_closep) int fd = -1;
	char name[64];
	int r;

	if (command)
		make_page(&page, command);
	else
		make_overview(&page);
	r = av_buf_error(&page);
	if (r == 0 && dir < 0) {
		fputs(av_buf_cstr(&page), stdout);
		return 0;
	}
	snprintf(
	    name, sizeof(name), "aviary%s%s.1", command ? "-" : "", command ? command->name : "");
	fd = r == 0 ? openat(dir, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644) : -1;
	if (r == 0 && fd < 0)
		r = -errno;
	if (r == 0)
		r = av_write_full(fd, av_buf_str(&page).p, av_buf_str(&page).n);
	if (r < 0)
		cli_warn("%s: %s", name, strerror(-r));
	return r < 0 ? EXIT_PLATFORM : 0;
}

static int write_all(const char *path)
{
	AV_CLEANUP(av_closep) int dir = -1;
	int status;

	if (mkdir(path, 0755) == 0)
		dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dir < 0) {
		cli_warn("%s: %s", path, strerror(errno));
		return EXIT_PLATFORM;
	}
	status = write_page(dir, NULL);
	for (const struct command *const *c = commands; *c && status == 0; c++)
		if (!(*c)->is_hidden)
			status = write_page(dir, *c);
	return status;
}

static int run(struct cli *cli, const struct args *args)
{
	const char *output = args_text(args, "output");
	const struct command *command = NULL;

	if (output)
		return write_all(output);
	if (args->n_operands > 0) {
		command = command_find(args->operands[0]);
		if (!command)
			return cli_usage_error(cli, "there is no command '%s'", args->operands[0]);
	}
	return write_page(-1, command);
}

static const struct option_spec options[] = {
    {"output", 0, OPTION_TEXT, "DIR", "write all pages into a new directory", COMPLETE_FILES},
    {NULL, 0, OPTION_FLAG, NULL, NULL, COMPLETE_NONE},
};

const struct command command_man = {
    .name = "man",
    .usage = "[COMMAND]",
    .summary = "print a manual page: aviary man run | man -l -",
    .options = options,
    .max_operands = 1,
    .operand_completion = COMPLETE_COMMANDS,
    .is_hidden = true,
    .run = run,
};
