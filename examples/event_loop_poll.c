/* SPDX-License-Identifier: Apache-2.0 */
/*
 * event_loop_poll - a client beside other descriptors in plain poll(): ten requests, answered out
 * of callbacks
 */
#define _POSIX_C_SOURCE 200809L
#include <aviary/aviary.h>
#include <poll.h>
#include <stdio.h>

static void on_done(aviary_op *op, void *ctx)
{
	int *good = ctx;

	if (aviary_op_code(op) == 0)
		++*good;
	else
		fprintf(stderr, "%s\n", aviary_op_error(op)->message);
	aviary_op_free(op);
}

int main(void)
{
	aviary_request request = AVIARY_REQUEST_INIT;
	aviary_client *client;
	struct pollfd fd = {.events = POLLIN};
	int good = 0;

	if (aviary_client_new(&client, NULL) != 0) {
		fprintf(stderr, "%s\n", aviary_client_error(client)->message);
		return 1;
	}
	request.path = "/v1/me";
	for (int i = 0; i < 10; i++)
		aviary_op_on_done(aviary_client_request(client, &request), on_done, &good);

	fd.fd = aviary_client_fd(client);
	while (aviary_client_dispatch(client, 0) > 0)
		(void)poll(&fd, 1, aviary_client_timeout(client));
	printf("%d of 10 answered\n", good);
	aviary_client_free(client);
	return good == 10 ? 0 : 1;
}
