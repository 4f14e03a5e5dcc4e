/* SPDX-License-Identifier: Apache-2.0 */
/*
 * batch - eight sandboxes at once; each result is taken as soon as it is there
 */
#include <aviary/aviary.h>
#include <inttypes.h>
#include <stdio.h>

#define N 8

struct job {
	aviary_sandbox *sandbox;
	aviary_process *process;
	int number;
};

int main(void)
{
	struct job jobs[N];
	aviary_op *ops[N];
	aviary_client *client;
	aviary_error error;
	size_t left = N;
	int sum = 0;

	if (aviary_client_new(&client, NULL) != 0) {
		fprintf(stderr, "%s\n", aviary_client_error(client)->message);
		return 1;
	}
	/* None of these calls waits; all eight sandboxes come up side by side. */
	for (int i = 0; i < N; i++) {
		char script[64];

		snprintf(script, sizeof(script), "expr %d '*' %d", i, i);
		jobs[i].number = i;
		jobs[i].sandbox = aviary_sandbox_new(client, NULL);
		jobs[i].process = aviary_sandbox_shell(jobs[i].sandbox, script);
		ops[i] = aviary_process_op(jobs[i].process);
		aviary_op_set_user(ops[i], &jobs[i]);
	}
	/* Those that are done come first, in the order in which they stood. */
	while (left > 0) {
		int done = aviary_wait(ops + (N - left), left, 1, -1);

		for (int i = 0; i < done; i++, left--) {
			struct job *job = aviary_op_user(ops[N - left]);
			const aviary_exec_result *r = aviary_process_result(job->process);
			int square = 0;

			if (!r || sscanf(r->out, "%d", &square) != 1)
				fprintf(stderr, "%d: %s\n", job->number,
				    aviary_op_error(ops[N - left])->message);
			sum += square;
		}
	}
	printf("sum of squares: %d\n", sum);

	for (int i = 0; i < N; i++) {
		ops[i] = aviary_sandbox_stop(jobs[i].sandbox, NULL);
		aviary_process_free(jobs[i].process);
	}
	(void)aviary_wait(ops, N, 0, -1);
	for (int i = 0; i < N; i++) {
		if (aviary_await(ops[i], &error) != 0)
			fprintf(stderr, "%s\n", error.message);
	}
	for (int i = 0; i < N; i++)
		aviary_sandbox_free(jobs[i].sandbox);
	aviary_client_free(client);
	return sum == 140 ? 0 : 1;
}
