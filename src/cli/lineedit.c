/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lineedit.c - a line from the terminal, with editing keys and history (libedit)
 *
 * Signals are let through only while a key is waited for, and end the wait: one that came a moment
 * before it would otherwise be noticed with the next key.
 */
#include "cli/lineedit.h"

#include <errno.h>
#include <histedit.h>
#include <stdbool.h>
#include <locale.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>
#include <wchar.h>

#include "base/dl.h"

#include "base/banned.h"

#define HISTORY_LINES 1000
#define LIBEDIT       "libedit.so.2"
#define CTRL_D        '\004'

#define FUNCTIONS(F)                                                                               \
	F(el_init)                                                                                 \
	F(el_end)                                                                                  \
	F(el_set)                                                                                  \
	F(el_get) F(el_gets) F(el_reset) F(el_resize) F(history) F(history_init) F(history_end)

/* Written once, before there is a prompt. */
static struct {
#define MEMBER(name) __typeof__(name) *name##_;
	FUNCTIONS(MEMBER)
#undef MEMBER
} lib;

static bool load(void)
{
	void *handle = dlopen(LIBEDIT, RTLD_NOW | RTLD_LOCAL);
	bool good = handle != NULL;

#define FIND(name) good = good && av_dl_find(handle, #name, &lib.name##_);
	FUNCTIONS(FIND)
#undef FIND
	return good;
}

struct lineedit {
	EditLine *el;
	History *history;
	const char *prompt;
	int ahead;        /* bytes not yet read of those typed before the terminal was ours */
	sigset_t outside; /* the mask of our caller */
};

static const char *get_prompt(EditLine *el)
{
	struct lineedit *e = NULL;

	lib.el_get_(el, EL_CLIENTDATA, &e);
	return e && e->prompt ? e->prompt : "";
}

/* One character: 1; 0 at the end; -1 and errno, which is EINTR after a signal. */
static int get_key(EditLine *el, wchar_t *ret)
{
	struct pollfd p = {.fd = STDIN_FILENO, .events = POLLIN};
	struct lineedit *e = NULL;
	mbstate_t state = {0};

	lib.el_get_(el, EL_CLIENTDATA, &e);
	for (;;) {
		size_t n;
		char c;

		if (ppoll(&p, 1, NULL, &e->outside) < 0)
			return -1;
		ssize_t r = read(STDIN_FILENO, &c, 1);
		if (r <= 0)
			return (int)r;
		/* What the kernel makes of a ^D that was typed ahead; otherwise it is ^Space. */
		if (e->ahead > 0 && c == '\0')
			c = CTRL_D;
		e->ahead -= e->ahead > 0;
		n = mbrtowc(ret, &c, 1, &state);
		if (n == 0 || n == 1)
			return 1;
		if (n == (size_t)-1)
			state = (mbstate_t){0}; /* no character of this locale: left out */
	}
}

struct lineedit *lineedit_new(void)
{
	struct lineedit *e = calloc(1, sizeof(*e));
	HistEvent ev;

	if (!e)
		return NULL;
	(void)setlocale(LC_CTYPE, "");
	if (!load()) {
		free(e);
		return NULL;
	}
	e->history = lib.history_init_();
	e->el = lib.el_init_("aviary", stdin, stdout, stderr);
	if (!e->history || !e->el) {
		lineedit_free(e);
		return NULL;
	}
	lib.history_(e->history, &ev, H_SETSIZE, HISTORY_LINES);
	lib.history_(e->history, &ev, H_SETUNIQUE, 1);
	lib.el_set_(e->el, EL_CLIENTDATA, e);
	lib.el_set_(e->el, EL_PROMPT, get_prompt);
	lib.el_set_(e->el, EL_EDITOR, "emacs");
	lib.el_set_(e->el, EL_SIGNAL, 0);
	lib.el_set_(e->el, EL_GETCFN, get_key);
	lib.el_set_(e->el, EL_HIST, lib.history_, e->history);
	lib.el_set_(e->el, EL_BIND, "\t", "ed-insert", NULL);
	return e;
}

void lineedit_free(struct lineedit *e)
{
	if (!e)
		return;
	if (e->el)
		lib.el_end_(e->el);
	if (e->history)
		lib.history_end_(e->history);
	free(e);
}

const char *lineedit_read(struct lineedit *e, const char *prompt, int *ret)
{
	const char *line;
	int n = 0, error;
	sigset_t ours;

	sigemptyset(&ours);
	sigaddset(&ours, SIGINT);
	sigaddset(&ours, SIGTERM);
	sigaddset(&ours, SIGHUP);
	sigprocmask(SIG_BLOCK, &ours, &e->outside);
	e->prompt = prompt;
	errno = 0;
	lib.el_resize_(e->el);
	/* By itself it would show the prompt first, and lose a ^D that answers it at once. */
	lib.el_set_(e->el, EL_PREP_TERM, 1);
	if (ioctl(STDIN_FILENO, FIONREAD, &e->ahead) < 0)
		e->ahead = 0;
	line = lib.el_gets_(e->el, &n);
	error = errno;
	sigprocmask(SIG_SETMASK, &e->outside, NULL);
	*ret = 0;
	if (line && n > 0)
		return line;
	if (n < 0 && error == EINTR) {
		*ret = -EINTR;
		lib.el_reset_(e->el);
	}
	return NULL;
}

void lineedit_remember(struct lineedit *e, const char *text)
{
	HistEvent ev;

	lib.history_(e->history, &ev, H_ENTER, text);
}
