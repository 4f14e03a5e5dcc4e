/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_code.c - code in a sandbox's interpreters: results, streams, errors, contexts
 */
#include <time.h>
#include <unistd.h>

#include "tests/sdk/c/sdk.h"

struct heard {
	char out[200];
	size_t n;
	int pieces, values, others;
	aviary_op *cancel;
};

static void on_output(void *ctx, enum aviary_channel ch, const char *text, size_t n)
{
	struct heard *h = ctx;

	(void)ch;
	h->pieces++;
	if (h->n + n < sizeof(h->out)) {
		memcpy(h->out + h->n, text, n);
		h->n += n;
	}
}

static void on_value(void *ctx, const aviary_code_value *value)
{
	struct heard *h = ctx;

	h->values++;
	h->others += !value->is_main;
}

static aviary_code_result *run(aviary_sandbox *sb, const char *code, const char *context)
{
	aviary_code_options o = AVIARY_CODE_OPTIONS_INIT;
	aviary_code_result *r;
	aviary_error e;

	o.context = context;
	o.shell = "plain";
	r = aviary_sandbox_run_code_sync(sb, code, &o, &e);
	if (!r)
		diag("%s: %s", aviary_code_name(e.code), e.message);
	return r;
}

static void test_results(aviary_sandbox *sb)
{
	aviary_code_result *r = run(
	    sb, "x = 20\nprint('out')\nimport sys\nprint('err', file=sys.stderr)\nx + 22", NULL);
	const aviary_code_item *item;

	ok(r && r->status == AVIARY_CODE_OK && strcmp(r->status_text, "ok") == 0, "it ran");
	is_str(r ? r->out : "", "out\n", "stdout");
	is_str(r ? r->err : "", "err\n", "stderr");
	ok(r && r->n_values == 1 && r->values[0].is_main && strcmp(r->values[0].text, "42") == 0,
	    "its value");
	ok(r && r->execution_count > 0 && r->context[0] && r->duration_ms >= 0, "where and when");
	aviary_code_result_free(r);

	r = run(sb,
	    "class A:\n"
	    "  def _repr_html_(self): return '<b>é</b>'\n"
	    "  def _repr_png_(self): return b'\\x89PNG\\r\\n\\0x'\n"
	    "  def _repr_json_(self): return {'a': [1]}\n"
	    "display(A())\nx",
	    NULL);
	ok(r && r->n_values == 2 && !r->values[0].is_main && strcmp(r->values[1].text, "20") == 0,
	    "what is shown, and the state that was kept");
	item = r ? aviary_code_find(&r->values[0], "text/html") : NULL;
	ok(item && item->size == 9 && strcmp(item->data, "<b>\xc3\xa9</b>") == 0, "HTML");
	item = r ? aviary_code_find(&r->values[0], "image/png") : NULL;
	ok(item && item->size == 8 && memcmp(item->data, "\x89PNG\r\n\0x", 9) == 0,
	    "a picture's bytes");
	item = r ? aviary_code_find(&r->values[0], "application/json") : NULL;
	ok(item && strcmp(item->data, "{\"a\":[1]}") == 0, "JSON");
	ok(r && !aviary_code_find(&r->values[0], "video/mp4"), "not what is not there");
	aviary_code_result_free(r);
}

static void test_errors(aviary_sandbox *sb)
{
	aviary_code_options o = AVIARY_CODE_OPTIONS_INIT;
	aviary_code_result *r = run(sb, "print('before')\n1/0", NULL);
	aviary_error e;

	ok(r && r->status == AVIARY_CODE_ERROR, "what raises is a result");
	is_str(r ? r->error_name : "", "ZeroDivisionError", "with its name");
	is_str(r ? r->error_value : "", "division by zero", "its words");
	ok(r && r->traceback.n > 0, "and its traceback");
	is_str(r ? r->out : "", "before\n", "and what came before");
	aviary_code_result_free(r);

	o.flags = AVIARY_CODE_CHECK;
	o.shell = "plain";
	r = aviary_sandbox_run_code_sync(sb, "1/0", &o, &e);
	ok(!r && e.code == AVIARY_E_EXEC_FAILED && strstr(e.message, "ZeroDivisionError: division"),
	    "check: %s", e.message);
	o.timeout_ms = 300;
	r = aviary_sandbox_run_code_sync(sb, "while True: pass", &o, &e);
	ok(!r && e.code == AVIARY_E_EXEC_TIMEOUT, "a time-out: %s", e.message);
	o.flags = 0;
	r = aviary_sandbox_run_code_sync(
	    sb, "print('x', flush=True)\nimport time\ntime.sleep(100)", &o, &e);
	ok(r && r->status == AVIARY_CODE_TIMEOUT && strcmp(r->out, "x\n") == 0,
	    "which is a result else");
	aviary_code_result_free(r);
	r = run(sb, "import os\nos._exit(3)", NULL);
	ok(r && r->status == AVIARY_CODE_DIED, "an interpreter that ends");
	aviary_code_result_free(r);
	o.shell = "tcsh";
	is_code(aviary_sandbox_run_code(sb, "1", &o), AVIARY_E_INVALID);
	is_code(aviary_sandbox_run_code(sb, "\xff", NULL), AVIARY_E_INVALID);
	o.shell = NULL;
	o.language = "cobol";
	is_code(aviary_sandbox_run_code(sb, "1", &o), AVIARY_E_UNSUPPORTED);
}

static void test_streams(aviary_client *c, aviary_sandbox *sb)
{
	struct heard h = {.n = 0};
	aviary_code_options o = AVIARY_CODE_OPTIONS_INIT;
	aviary_code_result *r;
	aviary_op *op;
	aviary_error e;
	time_t began;

	o.on_output = on_output;
	o.on_value = on_value;
	o.ctx = &h;
	o.shell = "plain";
	r = aviary_sandbox_run_code_sync(sb,
	    "import time\nfor i in range(3):\n  print(i, flush=True)\n  time.sleep(0.05)\n  "
	    "display(i)\ni",
	    &o, &e);
	ok(r && h.pieces >= 3 && strncmp(h.out, "0\n1\n2\n", 6) == 0, "output as it comes");
	ok(h.values == 4 && h.others == 3, "and values");
	ok(r && r->out_size == 6 && r->n_values == 4, "kept as well");
	aviary_code_result_free(r);

	o.collect_max = 1001;
	o.on_output = NULL;
	r = aviary_sandbox_run_code_sync(sb, "print('\xc3\xa9' * 5000)", &o, &e);
	ok(r && r->out_truncated && r->out_size == 1000 && !r->err_truncated,
	    "cut at a character, and said so");
	aviary_code_result_free(r);

	/* Cancelling interrupts: the next call does not wait for it. */
	o.on_value = NULL;
	o.timeout_ms = -1;
	op = aviary_sandbox_run_code(sb, "import time\ntime.sleep(100)", &o);
	is_int(aviary_op_wait(op, 300), AVIARY_E_AGAIN, "it runs");
	aviary_op_cancel(op);
	is_code(op, AVIARY_E_CANCELED);
	began = time(NULL);
	r = run(sb, "'next'", NULL);
	ok(r && r->n_values == 1 && time(NULL) - began < 20, "cancelling interrupts");
	aviary_code_result_free(r);
	(void)c;
}

static void test_contexts(aviary_sandbox *sb)
{
	aviary_error e;
	aviary_code_contexts *one = aviary_code_create_sync(sb, "/tmp", &e), *all;
	char id[100] = "";
	aviary_code_result *r;

	ok(one && one->n == 1 && one->items[0].id[0], "a context: %s",
	    one ? one->items[0].name : e.message);
	if (one)
		(void)snprintf(id, sizeof(id), "%s", one->items[0].id);
	aviary_code_contexts_free(one);
	all = aviary_code_list_sync(sb, &e);
	ok(all && all->n == 2, "there are two");
	aviary_code_contexts_free(all);
	r = run(sb, "y = 1\nimport os\nos.getcwd()", id);
	ok(r && r->n_values == 1 && strcmp(r->values[0].text, "'/tmp'") == 0 &&
	        strcmp(r->context, id) == 0,
	    "it begins where it was told to");
	aviary_code_result_free(r);
	r = run(sb, "y", NULL);
	ok(r && r->status == AVIARY_CODE_ERROR, "others know nothing of it");
	aviary_code_result_free(r);
	is_int(aviary_code_restart_sync(sb, id, &e), 0, "restarted");
	r = run(sb, "y", id);
	ok(r && r->status == AVIARY_CODE_ERROR, "it has forgotten");
	aviary_code_result_free(r);
	is_int(aviary_code_interrupt_sync(sb, id, &e), 0, "interrupted");
	is_int(aviary_code_delete_sync(sb, id, &e), 0, "deleted");
	is_int(aviary_code_delete_sync(sb, id, &e), AVIARY_E_NOT_FOUND, "once");
	is_code(aviary_code_restart(sb, ""), AVIARY_E_INVALID);
}

int main(void)
{
	aviary_client *c = sdk_client();
	aviary_sandbox *sb = sdk_sandbox(c);

	test_results(sb);
	test_errors(sb);
	test_streams(c, sb);
	test_contexts(sb);
	sdk_remove(sb);
	aviary_client_free(c);
	return tap_done();
}
