/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_sandbox.c - clients, operations and the life of sandboxes through libaviary
 */
#include "tests/sdk/c/sdk.h"

static void count(aviary_op *op, void *ctx)
{
	(void)op;
	++*(int *)ctx;
}

static void test_life(aviary_client *c)
{
	aviary_sandbox *sb = sdk_sandbox(c);
	aviary_op *ops[100];
	int called = 0;

	is_str(aviary_status_text(aviary_sandbox_status(sb)), "running", "it runs");
	ok(aviary_client_credentials_source(c)[0], "credentials from %s",
	    aviary_client_credentials_source(c));
	for (int i = 0; i < 100; i++) {
		ops[i] = aviary_sandbox_refresh(sb);
		aviary_op_on_done(ops[i], count, &called);
	}
	is_int(aviary_wait(ops, 100, 0, 30000), 100, "100 requests at once are done");
	is_int(aviary_results(ops, 100, NULL), 0, "and well");
	for (int i = 0; i < 100; i++)
		aviary_op_free(ops[i]);
	is_code(aviary_sandbox_refresh(sb), 0);
	is_int(called, 100, "each was called back");
	is_code(aviary_sandbox_pause(sb), 0);
	is_str(aviary_status_text(aviary_sandbox_status(sb)), "paused", "paused");
	is_code(aviary_sandbox_resume(sb), 0);
	is_code(aviary_sandbox_resume(sb), AVIARY_E_SANDBOX_NOT_RUNNING);
	is_code(aviary_sandbox_ping(sb), 0);
	sdk_remove(sb);
}

static void test_errors(aviary_client *c)
{
	aviary_sandbox_spec spec = AVIARY_SANDBOX_SPEC_INIT;
	aviary_op *op;
	aviary_sandbox *sb;

	sb = aviary_sandbox_attach(c, "sb0000000000000000000000000");
	op = aviary_sandbox_refresh(sb);
	is_int(aviary_op_wait(op, 30000), AVIARY_E_SANDBOX_NOT_FOUND, "one that is not there");
	is_str(aviary_op_error(op)->server_code, "not_found", "in the server's word");
	ok(strstr(aviary_op_body(op, NULL), "\"error\""), "and with its answer");
	ok(aviary_error_is(aviary_op_code(op), AVIARY_GROUP_SANDBOX) &&
	        !aviary_error_is(aviary_op_code(op), AVIARY_GROUP_AUTH),
	    "of the sandbox group only");
	aviary_op_free(op);
	aviary_sandbox_free(sb);
	ok(!aviary_sandbox_attach(c, "../../etc"), "an id that is none gives no handle");

	op = aviary_sandbox_run(c, &spec);
	aviary_op_cancel(op);
	is_int(aviary_op_wait(op, -1), AVIARY_E_CANCELED, "a create is cancelled");
	aviary_op_free(op);
}

static void test_any_request(aviary_client *c)
{
	aviary_request q = AVIARY_REQUEST_INIT;
	aviary_op *op;
	size_t n;

	q.path = "/v1/me";
	op = aviary_client_request(c, &q);
	is_int(aviary_op_wait(op, 30000), 0, "any request");
	ok(strlen(aviary_op_body(op, &n)) == n && n > 2, "gives the body");
	aviary_op_free(op);
	q.path = "v1/me";
	is_code(aviary_client_request(c, &q), AVIARY_E_INVALID);
	q.path = "/v1/me\r\nX: y";
	is_code(aviary_client_request(c, &q), AVIARY_E_INVALID);
	q.path = "/v1/me";
	q.method = "EAT";
	is_code(aviary_client_request(c, &q), AVIARY_E_INVALID);
	q.method = "POST";
	q.path = "/v1/sandboxes";
	q.body = "{\"memory_mb\": \"much\"}";
	is_code(aviary_client_request(c, &q), AVIARY_E_INVALID);
}

int main(void)
{
	aviary_client *c = sdk_client(), *other = sdk_client();
	aviary_sandbox *sb;
	aviary_op *op;

	test_life(c);
	test_errors(c);
	test_any_request(c);
	sb = sdk_sandbox(other);
	sdk_remove(aviary_sandbox_ref(sb));
	op = aviary_sandbox_refresh(sb);
	aviary_client_free(other);
	ok(aviary_op_is_done(op), "a client that is freed leaves nothing open");
	aviary_op_free(op);
	is_code(aviary_sandbox_refresh(sb), AVIARY_E_STATE);
	aviary_sandbox_free(sb);
	aviary_client_free(c);
	return tap_done();
}
