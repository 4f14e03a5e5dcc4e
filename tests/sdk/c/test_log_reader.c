/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_log_reader.c - the log of a main command: whole, followed, cut, resumed when the daemon goes
 */
#include <unistd.h>

#include "tests/sdk/c/forwarder.h"
#include "tests/sdk/c/sdk.h"

static aviary_sandbox *command(aviary_client *c, const char *script)
{
	const char *argv[] = {"/bin/sh", "-c", script};
	aviary_sandbox_spec s = AVIARY_SANDBOX_SPEC_INIT;

	s.memory_mb = 128;
	s.max_lifetime_ms = 600000;
	s.command = (aviary_strings){argv, 3};
	return aviary_sandbox_new(c, &s);
}

static void test_whole(aviary_client *c)
{
	aviary_sandbox *sb =
	    command(c, "echo one; echo two >&2; printf 'a\\000b\\377c\\n'; printf open; exit 3");
	aviary_logs_options o = AVIARY_LOGS_OPTIONS_INIT;
	const aviary_log_entry *e = NULL;
	aviary_log_reader *l;
	int n = 0, out = 0, err = 0, odd = 0, partial = 0, end = 0;
	int64_t last = -1;
	char since[40];

	o.follow = 1;
	l = aviary_sandbox_read_logs(sb, &o); /* starts it */
	while (aviary_log_reader_next(l, &e, 60000) > 0) {
		n++;
		if (e->kind == AVIARY_LOG_END) {
			end += e->has_exit_code && e->exit_code == 3;
			continue;
		}
		out += e->size == 3 && memcmp(e->text, "one", 4) == 0 &&
		       e->channel == AVIARY_STDOUT && e->time_ms > 0;
		err +=
		    e->size == 3 && memcmp(e->text, "two", 4) == 0 && e->channel == AVIARY_STDERR;
		odd += e->size == 5 && memcmp(e->text, "a\0b\377c", 5) == 0;
		partial += e->size == 4 && memcmp(e->text, "open", 4) == 0 && e->partial;
		ok(e->offset > last, "offsets go up");
		last = e->offset;
	}
	is_int(aviary_log_reader_error(l)->code, 0, "read to its end");
	ok(out == 1 && err == 1, "both outputs, told apart");
	is_int(odd, 1, "any bytes");
	is_int(partial, 1, "a line without an end");
	is_int(end, 1, "and how it ended");
	is_int(n, 5, "nothing else");
	is_int(aviary_log_reader_next(l, &e, 0), 0, "the end stays");
	aviary_log_reader_free(l);

	o = (aviary_logs_options)AVIARY_LOGS_OPTIONS_INIT;
	o.stream = "stderr";
	l = aviary_sandbox_read_logs(sb, &o);
	n = 0;
	while (aviary_log_reader_next(l, &e, 60000) > 0)
		n += e->kind == AVIARY_LOG_LINE;
	is_int(n, 1, "afterwards too, one stream of it");
	aviary_log_reader_free(l);
	o.stream = NULL;
	(void)snprintf(since, sizeof(since), "offset:%lld", (long long)last);
	o.since = since;
	l = aviary_sandbox_read_logs(sb, &o);
	ok(aviary_log_reader_next(l, &e, 60000) == 1 && e->offset == last, "behind an offset");
	aviary_log_reader_free(l);
	o = (aviary_logs_options)AVIARY_LOGS_OPTIONS_INIT;
	o.has_tail = 1;
	o.tail = 1;
	l = aviary_sandbox_read_logs(sb, &o);
	ok(aviary_log_reader_next(l, &e, 60000) == 1 && e->offset == last, "the last line");
	aviary_log_reader_free(l);
	o.tail = -2;
	l = aviary_sandbox_read_logs(sb, &o);
	is_int(aviary_log_reader_next(l, &e, 60000), AVIARY_E_INVALID, "a tail that is none");
	aviary_log_reader_free(l);
	sdk_remove(sb);
}

/* More lines than are kept here wait at the server, and all arrive. */
static void test_slow_reader(aviary_client *c)
{
	aviary_sandbox *sb =
	    command(c, "i=0; while [ $i -lt 6000 ]; do echo line $i; i=$((i+1)); done");
	aviary_logs_options o = AVIARY_LOGS_OPTIONS_INIT;
	const aviary_log_entry *e;
	int n = 0, wrong = 0;
	aviary_log_reader *l;

	is_int(aviary_sandbox_wait_complete_sync(sb, 60000, 0, NULL), 0, "6000 lines are written");
	o.follow = 1;
	l = aviary_sandbox_read_logs(sb, &o);
	while (aviary_log_reader_next(l, &e, 60000) > 0) {
		wrong += e->kind == AVIARY_LOG_GAP;
		wrong += e->kind == AVIARY_LOG_LINE && e->offset != n;
		n += e->kind == AVIARY_LOG_LINE;
		if (n == 1)
			usleep(200000);
	}
	is_int(n, 6000, "and read");
	is_int(wrong, 0, "in order, none missing");
	aviary_log_reader_free(l);
	sdk_remove(sb);
}

static void test_refused(aviary_client *c)
{
	aviary_sandbox *sb = sdk_sandbox(c);
	const aviary_log_entry *e;
	aviary_log_reader *l = aviary_sandbox_read_logs(sb, NULL);
	aviary_logs_options o = AVIARY_LOGS_OPTIONS_INIT;

	ok(aviary_log_reader_next(l, &e, 60000) < 0, "one without a main command: %s",
	    aviary_log_reader_error(l)->message);
	aviary_log_reader_free(l);
	sdk_remove(sb);
	sb = command(c, "sleep 60");
	o.follow = 1;
	l = aviary_sandbox_read_logs(sb, &o);
	is_int(aviary_sandbox_wait_running_sync(sb, 60000, NULL), 0, "a silent one");
	is_int(aviary_log_reader_next(l, &e, 50), AVIARY_E_AGAIN, "has nothing to say");
	aviary_log_reader_free(l);
	l = aviary_sandbox_read_logs(sb, &o);
	aviary_log_reader_free(l); /* at once */
	sdk_remove(sb);
	sb = aviary_sandbox_attach(c, "sb0000000000000000000000000");
	l = aviary_sandbox_read_logs(sb, NULL);
	is_int(aviary_log_reader_next(l, &e, 60000), AVIARY_E_SANDBOX_NOT_FOUND,
	    "one that is not there");
	aviary_log_reader_free(l);
	aviary_sandbox_free(sb);
}

/* Connections that are cut after a few lines, and then at once. */
static void test_broken(aviary_client *c)
{
	aviary_client_options co = AVIARY_CLIENT_OPTIONS_INIT;
	aviary_logs_options o = AVIARY_LOGS_OPTIONS_INIT;
	aviary_sandbox *sb = command(c, "i=0; while [ $i -lt 30 ]; do echo line $i; sleep 0.02; "
	                                "i=$((i+1)); done; exit 4"),
	               *far;
	const aviary_log_entry *e;
	struct forwarder f;
	aviary_client *cut;
	int n = 0, wrong = 0, code = -1;
	aviary_log_reader *l;

	ok(forwarder_start(&f, NULL), "a forwarder");
	co.base_url = f.url;
	co.retry_budget_ms = -1;
	if (aviary_client_new(&cut, &co) < 0)
		exit(2);
	is_int(aviary_sandbox_start_sync(sb, NULL), 0, "it runs");
	far = aviary_sandbox_attach(cut, aviary_sandbox_id(sb));
	atomic_store(&f.cut_after, 1500);
	o.follow = 1;
	l = aviary_sandbox_read_logs(far, &o);
	while (aviary_log_reader_next(l, &e, 60000) > 0) {
		if (e->kind == AVIARY_LOG_END)
			code = e->exit_code;
		else
			wrong += e->kind != AVIARY_LOG_LINE || e->offset != n++;
	}
	is_int(aviary_log_reader_error(l)->code, 0, "read to its end over broken connections");
	ok(atomic_load(&f.connections) > 2, "several: %d", atomic_load(&f.connections));
	ok(n == 30 && wrong == 0, "each line once: %d", n);
	is_int(code, 4, "and the exit code");
	aviary_log_reader_free(l);
	aviary_sandbox_free(far);
	aviary_client_free(cut); /* with the connection that was left */
	if (aviary_client_new(&cut, &co) < 0)
		exit(2);
	far = aviary_sandbox_attach(cut, aviary_sandbox_id(sb));
	atomic_store(&f.cut_after, 10);
	atomic_store(&f.connections, 0);
	l = aviary_sandbox_read_logs(far, &o);
	n = aviary_log_reader_next(l, &e, 60000);
	ok(aviary_error_is(n, AVIARY_GROUP_TRANSPORT), "nothing comes: %s", aviary_code_name(n));
	is_int(atomic_load(&f.connections), 4, "after three more tries");
	aviary_log_reader_free(l);
	aviary_sandbox_free(far);
	aviary_client_free(cut);
	forwarder_stop(&f);
	sdk_remove(sb);
}

int main(void)
{
	aviary_client *c = sdk_client();

	test_whole(c);
	test_slow_reader(c);
	test_refused(c);
	test_broken(c);
	aviary_client_free(c);
	return tap_done();
}
