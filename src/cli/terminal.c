/* SPDX-License-Identifier: Apache-2.0 */
/*
 * terminal.c - the user's terminal: raw or full-screen for a time, and itself again afterwards
 */
#include "cli/terminal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <termios.h>
#include <unistd.h>

#include "base/banned.h"

static const char take_screen[] = "\033[?1049h\033[?25l";
static const char leave_screen[] = "\033[?25h\033[?1049l";

static struct {
	volatile sig_atomic_t is_changed;
	bool has_screen;
	struct termios saved, ours;
} terminal;

/* Safe in a signal handler. */
static void put_back(void)
{
	if (!terminal.is_changed)
		return;
	terminal.is_changed = 0;
	if (terminal.has_screen) {
		ssize_t n = write(STDOUT_FILENO, leave_screen, sizeof(leave_screen) - 1);
		(void)n;
	}
	tcsetattr(STDIN_FILENO, TCSADRAIN, &terminal.saved);
}

static void take_again(void)
{
	if (tcsetattr(STDIN_FILENO, TCSADRAIN, &terminal.ours) == 0)
		terminal.is_changed = 1;
	if (terminal.has_screen) {
		ssize_t n = write(STDOUT_FILENO, take_screen, sizeof(take_screen) - 1);
		(void)n;
	}
}

static void on_fault(int sig)
{
	put_back();
	signal(sig, SIG_DFL);
	raise(sig);
}

static int change(bool keeps_signals, bool takes_screen)
{
	static const int faults[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGQUIT, SIGSYS};
	static bool registered;
	struct termios now;

	if (tcgetattr(STDIN_FILENO, &now) < 0)
		return -errno;
	if (!registered) {
		registered = true;
		if (atexit(terminal_restore) != 0)
			return -ENOMEM;
		for (size_t i = 0; i < AV_ARRAY_LEN(faults); i++)
			signal(faults[i], on_fault);
	}
	if (!terminal.is_changed)
		terminal.saved = now;
	terminal.ours = terminal.saved;
	if (keeps_signals)
		terminal.ours.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
	else
		cfmakeraw(&terminal.ours);
	terminal.has_screen = takes_screen;
	if (tcsetattr(STDIN_FILENO, TCSADRAIN, &terminal.ours) < 0)
		return -errno;
	take_again();
	return 0;
}

int terminal_make_raw(void)
{
	return change(false, false);
}

int terminal_take_screen(void)
{
	return change(true, true);
}

void terminal_restore(void)
{
	put_back();
}

void terminal_size(unsigned *ret_cols, unsigned *ret_rows)
{
	struct winsize w = {0};

	*ret_cols = 80;
	*ret_rows = 24;
	for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
		if (ioctl(fd, TIOCGWINSZ, &w) == 0 && w.ws_col && w.ws_row) {
			*ret_cols = w.ws_col;
			*ret_rows = w.ws_row;
			return;
		}
}

int terminal_signals(sigset_t *ret_old)
{
	static const int list[] = {SIGINT, SIGTERM, SIGHUP, SIGWINCH, SIGTSTP};
	sigset_t set;
	int fd;

	sigemptyset(&set);
	for (size_t i = 0; i < AV_ARRAY_LEN(list); i++)
		sigaddset(&set, list[i]);
	if (sigprocmask(SIG_BLOCK, &set, ret_old) < 0)
		return -errno;
	fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	return fd < 0 ? -errno : fd;
}

int terminal_next_signal(int fd)
{
	struct signalfd_siginfo si;
	bool was_changed = terminal.is_changed;

	if (read(fd, &si, sizeof(si)) != (ssize_t)sizeof(si))
		return 0;
	if (si.ssi_signo != SIGTSTP)
		return (int)si.ssi_signo;
	put_back();
	raise(SIGSTOP);
	if (was_changed)
		take_again();
	return SIGWINCH;
}
