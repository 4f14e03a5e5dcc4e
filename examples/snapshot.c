/* SPDX-License-Identifier: Apache-2.0 */
/*
 * snapshot - set a sandbox up once, take a snapshot, and make others from it
 */
#define _POSIX_C_SOURCE 200809L
#include <aviary/aviary.h>
#include <stdio.h>
#include <unistd.h>

/* Runs script; prints what it says. 0, or -1 when it failed. */
static int run(aviary_sandbox *sandbox, const char *script)
{
	aviary_process *process = aviary_sandbox_shell(sandbox, script);
	aviary_error error;
	const aviary_exec_result *result = aviary_await_process(process, &error);
	int code = result && result->exit_code == 0 ? 0 : -1;

	if (result)
		printf("%s%s", result->out, result->err);
	else
		fprintf(stderr, "%s\n", error.message);
	aviary_process_free(process);
	return code;
}

static int set_up_and_restore(aviary_client *client, aviary_sandbox *first, const char *name)
{
	aviary_snapshots_create_options options = AVIARY_SNAPSHOTS_CREATE_OPTIONS_INIT;
	aviary_sandbox_spec spec = AVIARY_SANDBOX_SPEC_INIT;
	aviary_template *snapshot;
	aviary_sandbox *second;
	aviary_error error;
	int code;

	if (run(first, "mkdir -p /opt/tool && echo 'echo set up once' >/opt/tool/go") != 0)
		return 1;
	/* Of its files as they are now. The sandbox is paused then: it goes on when it is resumed.
	 */
	options.name = name;
	snapshot = aviary_sandbox_snapshot_sync(first, &options, &error);
	if (!snapshot) {
		fprintf(stderr, "no snapshot: %s\n", error.message);
		return 1;
	}
	aviary_template_free(snapshot);
	if (aviary_sandbox_resume_sync(first, &error) != 0 || run(first, "rm -r /opt/tool") != 0)
		fprintf(stderr, "the first one does not go on\n");

	spec.template_name = name;
	second = aviary_sandbox_new(client, &spec);
	code = run(second, "sh /opt/tool/go") == 0 ? 0 : 1;
	(void)aviary_await(aviary_sandbox_stop(second, NULL), &error);
	aviary_sandbox_free(second);

	if (aviary_snapshots_delete_sync(client, name, &error) != 0)
		fprintf(stderr, "%s stays: %s\n", name, error.message);
	return code;
}

int main(void)
{
	aviary_client *client;
	aviary_sandbox *first;
	aviary_error error;
	char name[40];
	int code;

	if (aviary_client_new(&client, NULL) != 0) {
		fprintf(stderr, "%s\n", aviary_client_error(client)->message);
		return 1;
	}
	snprintf(name, sizeof(name), "example-%ld", (long)getpid());
	first = aviary_sandbox_new(client, NULL);
	code = set_up_and_restore(client, first, name);
	(void)aviary_await(aviary_sandbox_stop(first, NULL), &error);
	aviary_sandbox_free(first);
	aviary_client_free(client);
	return code;
}
