/* SPDX-License-Identifier: Apache-2.0 */
/*
 * terminal - a shell on a terminal in a sandbox, as ssh gives one: ./terminal [SANDBOX-ID]
 *
 * Without a terminal of its own it takes commands from its input, for scripts.
 */
#define _POSIX_C_SOURCE 200809L
#include <aviary/aviary.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

static int print(
    void *ctx, aviary_process *process, enum aviary_channel channel, const void *data, size_t n)
{
	(void)ctx;
	(void)process;
	(void)channel;
	return write(STDOUT_FILENO, data, n) < 0;
}

/* Ours for a while: what is typed goes to the sandbox as it is. */
static int make_raw(struct termios *saved)
{
	struct termios raw;

	if (tcgetattr(STDIN_FILENO, saved) != 0)
		return 0;
	raw = *saved;
	raw.c_iflag &= ~(tcflag_t)(ICRNL | IXON | BRKINT | INPCK | ISTRIP);
	raw.c_oflag &= ~(tcflag_t)OPOST;
	raw.c_lflag &= ~(tcflag_t)(ECHO | ICANON | IEXTEN | ISIG);
	return tcsetattr(STDIN_FILENO, TCSANOW, &raw) == 0;
}

/* Input and the client side by side, until the shell is over. */
static void relay(aviary_client *client, aviary_process *process)
{
	struct pollfd fds[2] = {
	    {.fd = STDIN_FILENO, .events = POLLIN},
	    {.fd = aviary_client_fd(client), .events = POLLIN},
	};
	struct winsize size = {0}, now;

	while (!aviary_op_is_done(aviary_process_op(process))) {
		char buf[4096];
		ssize_t n;

		if (ioctl(STDIN_FILENO, TIOCGWINSZ, &now) == 0 &&
		    memcmp(&now, &size, sizeof(now)) != 0) {
			size = now;
			(void)aviary_process_resize(process, now.ws_col, now.ws_row);
		}
		if (poll(fds, 2, aviary_client_timeout(client)) < 0 && fds[0].fd < 0)
			break;
		if (fds[0].revents) {
			n = read(STDIN_FILENO, buf, sizeof(buf));
			if (n > 0) {
				(void)aviary_process_write(process, buf, (size_t)n, -1);
			} else {
				/* On a terminal the end of input is a character. */
				(void)aviary_process_write(process, "\004", 1, -1);
				fds[0].fd = -1;
			}
		}
		(void)aviary_client_dispatch(client, 0);
	}
}

int main(int argc, char **argv)
{
	const char *const command[] = {"/bin/sh", "-i"};
	aviary_exec_options options = AVIARY_EXEC_OPTIONS_INIT;
	const aviary_exec_result *result;
	struct termios saved;
	aviary_client *client;
	aviary_sandbox *sandbox;
	aviary_process *process;
	aviary_error error;
	int is_raw;

	if (aviary_client_new(&client, NULL) != 0) {
		fprintf(stderr, "%s\n", aviary_client_error(client)->message);
		return 1;
	}
	sandbox =
	    argc > 1 ? aviary_sandbox_attach(client, argv[1]) : aviary_sandbox_new(client, NULL);
	if (!sandbox) {
		fprintf(stderr, "%s is no id of a sandbox\n", argv[1]);
		aviary_client_free(client);
		return 1;
	}
	options.flags = AVIARY_EXEC_PTY | AVIARY_EXEC_STDIN;
	options.command.items = command;
	options.command.n = 2;
	process = aviary_sandbox_exec(sandbox, &options);
	aviary_process_on_output(process, print, NULL);
	is_raw = make_raw(&saved);
	relay(client, process);
	if (is_raw)
		(void)tcsetattr(STDIN_FILENO, TCSANOW, &saved);

	result = aviary_await_process(process, &error);
	if (!result)
		fprintf(stderr, "%s\n", error.message);
	aviary_process_free(process);
	if (argc < 2)
		(void)aviary_await(aviary_sandbox_stop(sandbox, NULL), &error);
	aviary_sandbox_free(sandbox);
	aviary_client_free(client);
	return result ? 0 : 1;
}
