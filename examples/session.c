/* SPDX-License-Identifier: Apache-2.0 */
/*
 * session - sandboxes that share defaults and end together
 */
#include <aviary/aviary.h>
#include <stdio.h>

#define N 3

/* How many did not do what they were to do. */
static int work(aviary_session *session)
{
	aviary_sandbox_spec one = AVIARY_SANDBOX_SPEC_INIT;
	const char *const names[N] = {"ann", "bob", "cyd"};
	aviary_sandbox *sandboxes[N] = {0};
	aviary_process *processes[N] = {0};
	aviary_error error;
	int failed = 0;

	/* What is said here comes on top of the defaults: GREETING is still there. */
	for (int i = 0; i < N; i++) {
		const aviary_pair worker = {"WORKER", names[i]};

		one.envs.items = &worker;
		one.envs.n = 1;
		if (aviary_session_sandbox(session, &one, &sandboxes[i]) != 0) {
			failed = N - i; /* no memory */
			break;
		}
		processes[i] = aviary_sandbox_shell(sandboxes[i], "echo $GREETING, $WORKER");
	}
	for (int i = 0; i < N && processes[i]; i++) {
		const aviary_exec_result *result = aviary_await_process(processes[i], &error);

		if (result)
			printf("%s", result->out);
		else
			fprintf(stderr, "%s: %s\n", names[i], error.message);
		failed += !result;
	}
	/* These are handles: the sandboxes are the session's to stop. */
	for (int i = 0; i < N; i++) {
		aviary_process_free(processes[i]);
		aviary_sandbox_free(sandboxes[i]);
	}
	return failed;
}

int main(void)
{
	const aviary_pair envs[] = {{"GREETING", "good morning"}};
	const char *const tags[] = {"example-session"};
	aviary_sandbox_spec defaults = AVIARY_SANDBOX_SPEC_INIT;
	aviary_client *client;
	aviary_session *session;
	aviary_op *close;
	int failed = 1;

	if (aviary_client_new(&client, NULL) != 0) {
		fprintf(stderr, "%s\n", aviary_client_error(client)->message);
		return 1;
	}
	defaults.memory_mb = 128;
	defaults.envs.items = envs;
	defaults.envs.n = 1;
	defaults.tags.items = tags;
	defaults.tags.n = 1;
	defaults.max_lifetime_ms = 600000; /* the server ends them then, whatever becomes of us */
	session = aviary_session_new(client, &defaults);
	if (session) {
		failed = work(session);
		printf("%zu sandboxes\n", aviary_session_count(session));

		/* Stops all at once. What cannot be stopped stays, for another close. */
		close = aviary_session_close(session, NULL);
		failed += aviary_op_wait(close, -1) != 0;
		for (size_t i = 0; i < aviary_op_failures(close)->n; i++) {
			const aviary_failure *f = &aviary_op_failures(close)->items[i];

			fprintf(stderr, "%s goes on running: %s\n", aviary_sandbox_id(f->sandbox),
			    f->error.message);
		}
		printf("%zu left\n", aviary_session_count(session));
		aviary_op_free(close);
		aviary_session_free(session);
	}
	aviary_client_free(client);
	return failed ? 1 : 0;
}
