/* SPDX-License-Identifier: Apache-2.0 */
/*
 * quickstart - a sandbox, a command in it, its output
 *
 *     cc quickstart.c $(pkg-config --cflags --libs aviary) -o quickstart && ./quickstart
 */
#include <aviary/aviary.h>
#include <stdio.h>

int main(void)
{
	aviary_client *client;
	aviary_sandbox *sandbox;
	aviary_process *process;
	const aviary_exec_result *result;
	aviary_error error;

	/* Address and key come from AVIARY_URL and AVIARY_API_KEY, or the file that the first start
	 * of aviaryd wrote. */
	if (aviary_client_new(&client, NULL) != 0) {
		fprintf(stderr, "%s\n", aviary_client_error(client)->message);
		return 1;
	}
	sandbox = aviary_await_sandbox(aviary_sandbox_run(client, NULL), &error);
	if (!sandbox) {
		fprintf(stderr, "no sandbox: %s\n", error.message);
		aviary_client_free(client);
		return 1;
	}
	process = aviary_sandbox_shell(sandbox, "echo hello from $(hostname); exit 3");
	result = aviary_await_process(process, &error);
	if (result)
		printf("%sexit code %d\n", result->out, result->exit_code);
	else
		fprintf(stderr, "the command failed: %s\n", error.message);
	aviary_process_free(process);

	if (aviary_await(aviary_sandbox_stop(sandbox, NULL), &error) != 0)
		fprintf(stderr, "it goes on running: %s\n", error.message);
	aviary_sandbox_free(sandbox);
	aviary_client_free(client);
	return result ? 0 : 1;
}
