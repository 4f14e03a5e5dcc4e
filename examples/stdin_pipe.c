/* SPDX-License-Identifier: Apache-2.0 */
/*
 * stdin_pipe - what comes in is sorted in a sandbox: cat names | ./stdin_pipe
 *
 * Memory stays the same however much is piped: the writer waits while the sandbox is busy, and
 * output is read in between, so that neither side can block the other.
 */
#include <aviary/aviary.h>
#include <stdio.h>
#include <string.h>

/* Output goes to our own, whenever the client is driven. */
static int print(
    void *ctx, aviary_process *process, enum aviary_channel channel, const void *data, size_t n)
{
	(void)ctx;
	(void)process;
	fwrite(data, 1, n, channel == AVIARY_STDOUT ? stdout : stderr);
	return 0;
}

int main(void)
{
	const char *const command[] = {"sort"};
	aviary_exec_options options = AVIARY_EXEC_OPTIONS_INIT;
	const aviary_exec_result *result;
	aviary_client *client;
	aviary_sandbox *sandbox;
	aviary_process *process;
	aviary_error error;
	char buf[16384];
	size_t n;
	int code;

	if (aviary_client_new(&client, NULL) != 0) {
		fprintf(stderr, "%s\n", aviary_client_error(client)->message);
		return 1;
	}
	sandbox = aviary_sandbox_new(client, NULL);
	options.flags = AVIARY_EXEC_STDIN;
	options.command.items = command;
	options.command.n = 1;
	process = aviary_sandbox_exec(sandbox, &options);
	aviary_process_on_output(process, print, NULL);

	while ((n = fread(buf, 1, sizeof(buf), stdin)) > 0) {
		int64_t r = aviary_process_write(process, buf, n, -1);

		if (r != (int64_t)n)
			break; /* the program ended; its result says why */
	}
	(void)aviary_process_close_stdin(process);
	result = aviary_await_process(process, &error);
	if (!result)
		fprintf(stderr, "%s\n", error.message);
	code = result ? result->exit_code : 1;
	aviary_process_free(process);
	(void)aviary_await(aviary_sandbox_stop(sandbox, NULL), &error);
	aviary_sandbox_free(sandbox);
	aviary_client_free(client);
	return code;
}
