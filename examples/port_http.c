/* SPDX-License-Identifier: Apache-2.0 */
/*
 * port_http - a web server in a sandbox: a request to it, and an address for others
 */
#include <aviary/aviary.h>
#include <stdio.h>

/* The first answer; nobody listens before the server has come up. */
static aviary_http_response *first_answer(aviary_sandbox *sandbox, aviary_process *server)
{
	aviary_http_request request = AVIARY_HTTP_REQUEST_INIT;
	aviary_http_response *response;
	aviary_error error;

	request.path = "/hello.txt";
	do {
		response = aviary_sandbox_http_sync(sandbox, 8000, &request, &error);
		if (!response && error.code == AVIARY_E_PORT_CLOSED)
			(void)aviary_op_wait(aviary_process_op(server), 100);
	} while (!response && error.code == AVIARY_E_PORT_CLOSED &&
	         !aviary_op_is_done(aviary_process_op(server)));
	if (!response)
		fprintf(stderr, "no answer: %s\n", error.message);
	return response;
}

int main(void)
{
	const char *const command[] = {
	    "python3", "-m", "http.server", "--bind", "127.0.0.1", "8000"};
	aviary_exec_options options = AVIARY_EXEC_OPTIONS_INIT;
	aviary_client *client;
	aviary_sandbox *sandbox;
	aviary_process *server;
	aviary_http_response *response;
	aviary_port_url *url;
	aviary_error error;
	const char *type;
	int64_t n;

	if (aviary_client_new(&client, NULL) != 0) {
		fprintf(stderr, "%s\n", aviary_client_error(client)->message);
		return 1;
	}
	sandbox = aviary_sandbox_new(client, NULL);
	if (aviary_file_write_sync(sandbox, "/srv/hello.txt", "hello, web\n", 11, NULL, &error))
		fprintf(stderr, "%s\n", error.message);

	/* It listens on loopback, where only this sandbox is: the API reaches it even so. What it
	 * prints of each request is kept, up to 16 MiB, so that nobody has to read it. */
	options.command.items = command;
	options.command.n = sizeof(command) / sizeof(command[0]);
	options.cwd = "/srv";
	options.flags = AVIARY_EXEC_COLLECT;
	server = aviary_sandbox_exec(sandbox, &options);

	response = first_answer(sandbox, server);
	if (response) {
		n = aviary_http_header(response, "Content-Type", &type);
		printf("%d, %.*s: %s", response->status, (int)(n > 0 ? n : 0), n > 0 ? type : "",
		    response->body);
	}
	/* For a browser, or anybody without a key: it says who may, and until when. */
	url = aviary_sandbox_url_sync(sandbox, 8000, "/hello.txt", 600000, &error);
	if (url)
		printf("for ten minutes: %s\n", url->url);
	else
		fprintf(stderr, "no address: %s\n", error.message);

	aviary_port_url_free(url);
	aviary_http_response_free(response);
	aviary_process_free(server); /* ends it */
	(void)aviary_await(aviary_sandbox_stop(sandbox, NULL), &error);
	aviary_sandbox_free(sandbox);
	aviary_client_free(client);
	return response && url ? 0 : 1;
}
