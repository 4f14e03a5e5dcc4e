/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ask.c - one line from the terminal, or from standard input
 */
#include "cli/ask.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

#include "base/macros.h"

#include "base/banned.h"

/* Ended at the prompt: the terminal must echo again for who comes after us. */
static const int endings[] = {SIGINT, SIGTERM, SIGQUIT, SIGHUP};
static struct termios before;

static void on_interrupt(int sig)
{
	(void)tcsetattr(STDIN_FILENO, TCSANOW, &before);
	signal(sig, SIG_DFL);
	raise(sig);
}

static int read_line(char *ret, size_t size)
{
	char *end = fgets(ret, (int)size, stdin) ? strchr(ret, '\n') : NULL;

	if (!end)
		return -EINVAL;
	*end = '\0';
	return 0;
}

int ask_line(const char *prompt, bool secret, char *ret, size_t size)
{
	struct sigaction sa = {.sa_handler = on_interrupt, .sa_flags = SA_NODEFER};
	struct sigaction old[AV_ARRAY_LEN(endings)];
	struct termios quiet;
	int r;

	if (!isatty(STDIN_FILENO) || tcgetattr(STDIN_FILENO, &before) < 0)
		return read_line(ret, size);
	if (!secret) {
		fprintf(stderr, "%s: ", prompt);
		return read_line(ret, size);
	}
	quiet = before;
	quiet.c_lflag &= ~(tcflag_t)ECHO;
	for (size_t i = 0; i < AV_ARRAY_LEN(endings); i++)
		sigaction(endings[i], &sa, &old[i]);
	(void)tcsetattr(STDIN_FILENO, TCSAFLUSH, &quiet);
	/* Only now: what is typed at the prompt is not shown, and not thrown away. */
	fprintf(stderr, "%s: ", prompt);
	r = read_line(ret, size);
	(void)tcsetattr(STDIN_FILENO, TCSAFLUSH, &before);
	for (size_t i = 0; i < AV_ARRAY_LEN(endings); i++)
		sigaction(endings[i], &old[i], NULL);
	fputc('\n', stderr);
	return r;
}
