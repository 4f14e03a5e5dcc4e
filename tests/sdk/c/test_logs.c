/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_logs.c - what the main command printed, line by line and as text, while it runs and
 * afterwards
 */
#include "sdk.h"

struct seen {
	char text[4096];
	int n_lines, n_errors, n_ends, exit_code, refused;
	int refuse;   /* so many times: not now */
	int stop_at;  /* after so many lines the callback ends it */
	int64_t last; /* offset */
	aviary_op *op;
};

static int on_line(void *ctx, const aviary_log_entry *line)
{
	struct seen *s = ctx;

	if (s->refuse > 0) {
		s->refuse--;
		s->refused++;
		return AVIARY_E_AGAIN;
	}
	if (line->kind == AVIARY_LOG_END) {
		s->n_ends++;
		s->exit_code = line->has_exit_code ? line->exit_code : -1;
		return 0;
	}
	if (line->kind != AVIARY_LOG_LINE)
		return 0;
	s->n_lines++;
	s->n_errors += line->channel == AVIARY_STDERR;
	s->last = line->offset;
	size_t n = strlen(s->text);
	snprintf(s->text + n, sizeof(s->text) - n, "%.*s%s", (int)line->size, line->text,
	    line->partial ? "" : "|");
	return s->stop_at && s->n_lines >= s->stop_at ? AVIARY_E_LOCAL : 0;
}

/* A sandbox whose main command is the script: no quotes in that. */
static aviary_sandbox *start(aviary_client *c, const char *script)
{
	aviary_request rq = AVIARY_REQUEST_INIT;
	aviary_sandbox *sb = NULL;
	char body[1024], id[64];
	const char *at;
	aviary_op *op;

	snprintf(body, sizeof(body),
	    "{\"command\":[\"sh\",\"-c\",\"%s\"],\"memory_mb\":128,\"max_lifetime_sec\":600}",
	    script);
	rq.method = "POST";
	rq.path = "/v1/sandboxes";
	rq.body = body;
	op = aviary_client_request(c, &rq);
	if (aviary_op_wait(op, -1) == 0 && (at = strstr(aviary_op_body(op, NULL), "\"id\":\"")) &&
	    sscanf(at, "\"id\":\"%63[a-z0-9]", id) == 1)
		sb = aviary_sandbox_attach(c, id);
	if (!sb) {
		printf("Bail out! no sandbox: %s\n", aviary_op_error(op)->message);
		exit(2);
	}
	aviary_op_free(op);
	return sb;
}

static void test_follow(aviary_client *c)
{
	aviary_sandbox *sb =
	    start(c, "echo one; sleep 0.3; echo two >&2; printf '\\\\377\\\\n'; exit 3");
	aviary_logs_options o = AVIARY_LOGS_OPTIONS_INIT;
	struct seen s = {0};

	o.follow = 1;
	is_code(aviary_sandbox_logs(sb, &o, on_line, &s), 0);
	ok(strcmp(s.text, "one|two|\xff|") == 0 || strcmp(s.text, "one|\xff|two|") == 0, "lines");
	ok(s.n_errors == 1 && s.n_ends == 1 && s.exit_code == 3, "whose, and the end");
	/* It is over, and its sandbox with it; a handle from elsewhere reads it as well. */
	aviary_sandbox *other = aviary_sandbox_attach(c, aviary_sandbox_id(sb));
	aviary_error e;
	aviary_text *text;

	s = (struct seen){0};
	o.stream = "stderr";
	is_code(aviary_sandbox_logs(other, &o, on_line, &s), 0);
	ok(strcmp(s.text, "two|") == 0, "one output");
	o = (aviary_logs_options)AVIARY_LOGS_OPTIONS_INIT;
	o.has_tail = 1;
	o.tail = 1;
	o.stream = "stdout";
	text = aviary_sandbox_logs_text_sync(other, &o, &e);
	ok(text && text->n == 2 && memcmp(text->text, "\xff\n", 2) == 0, "as text: the last line");
	aviary_text_free(text);
	o.since = "yesterday";
	text = aviary_sandbox_logs_text_sync(other, &o, &e);
	ok(!text && e.code == AVIARY_E_INVALID, "a time that is none: %s", e.message);
	aviary_sandbox_free(other);
	sdk_remove(sb);
}

static void test_pause(aviary_client *c)
{
	aviary_sandbox *sb =
	    start(c, "i=0; while [ $i -lt 50 ]; do echo $i; i=$((i+1)); done; sleep 60");
	aviary_logs_options o = AVIARY_LOGS_OPTIONS_INIT;
	struct seen s = {.refuse = 3};
	aviary_op *op;

	/* Not taken, and asked again; then cancelled while it follows. */
	o.follow = 1;
	op = aviary_sandbox_logs(sb, &o, on_line, &s);
	for (int i = 0; i < 400 && strstr(s.text, "49|") == NULL; i++) {
		(void)aviary_op_wait(op, 25);
		aviary_transfer_resume(op);
	}
	ok(s.n_lines == 50 && s.refused == 3, "%d lines, %d times refused", s.n_lines, s.refused);
	ok(strncmp(s.text, "0|1|2|", 6) == 0, "each once, in order");
	aviary_op_cancel(op);
	is_code(op, AVIARY_E_CANCELED);
	s = (struct seen){.stop_at = 5};
	is_code(aviary_sandbox_logs(sb, NULL, on_line, &s), AVIARY_E_LOCAL);
	ok(s.n_lines == 5, "the callback ended it");
	char since[40];
	snprintf(since, sizeof(since), "offset:%lld", (long long)s.last + 1);
	o = (aviary_logs_options)AVIARY_LOGS_OPTIONS_INIT;
	o.since = since;
	s = (struct seen){0};
	is_code(aviary_sandbox_logs(sb, &o, on_line, &s), 0);
	ok(s.n_lines == 45 && strncmp(s.text, "5|6|", 4) == 0, "and it goes on there");
	sdk_remove(sb);
}

static void test_mistakes(aviary_client *c)
{
	aviary_sandbox *none = aviary_sandbox_attach(c, "sb0000000000000000000000000"), *plain;
	struct seen s = {0};
	aviary_op *op;
	int code;

	is_code(aviary_sandbox_logs(none, NULL, on_line, &s), AVIARY_E_SANDBOX_NOT_FOUND);
	aviary_sandbox_free(none);
	plain = sdk_sandbox(c);
	op = aviary_sandbox_logs(plain, NULL, on_line, &s);
	code = aviary_op_wait(op, -1);
	ok(code == AVIARY_E_SANDBOX_NOT_RUNNING || code == AVIARY_E_CONFLICT, "no main command: %s",
	    aviary_op_error(op)->message);
	aviary_op_free(op);
	ok(s.n_lines == 0, "no line");
	sdk_remove(plain);
}

int main(void)
{
	aviary_client *c = sdk_client();

	test_follow(c);
	test_pause(c);
	test_mistakes(c);
	aviary_client_free(c);
	return tap_done();
}
