/* SPDX-License-Identifier: Apache-2.0 */
/*
 * streaming - lines as they are printed, while the program goes on
 */
#include <aviary/aviary.h>
#include <stdio.h>

static const char script[] = "for i in 1 2 3; do echo step $i; sleep 0.2; done; echo all done >&2";

int main(void)
{
	const char *const command[] = {"/bin/sh", "-c", script};
	aviary_exec_options options = AVIARY_EXEC_OPTIONS_INIT;
	const aviary_exec_result *result;
	aviary_client *client;
	aviary_sandbox *sandbox;
	aviary_process *process;
	aviary_error error;
	const char *line;
	int64_t n;

	if (aviary_client_new(&client, NULL) != 0) {
		fprintf(stderr, "%s\n", aviary_client_error(client)->message);
		return 1;
	}
	/* Nothing is asked of anybody yet: the first command starts it. */
	sandbox = aviary_sandbox_new(client, NULL);
	options.command.items = command;
	options.command.n = 3;
	options.timeout_ms = 60000;
	process = aviary_sandbox_exec(sandbox, &options);

	/* What nobody reads waits in the sandbox and stops the program there: nothing is lost. */
	while ((n = aviary_process_read_line(process, AVIARY_STDOUT, &line, -1)) > 0)
		printf("out: %s", line);
	while ((n = aviary_process_read_line(process, AVIARY_STDERR, &line, -1)) > 0)
		printf("err: %s", line);
	result = aviary_await_process(process, &error);
	if (!result)
		fprintf(stderr, "%s\n", error.message);
	else
		printf("exit code %d\n", result->exit_code);
	aviary_process_free(process);
	(void)aviary_await(aviary_sandbox_stop(sandbox, NULL), &error);
	aviary_sandbox_free(sandbox);
	aviary_client_free(client);
	return result ? 0 : 1;
}
