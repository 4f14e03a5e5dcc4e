/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sdk_fault.c - a hundred operations of libaviary at once, for sdk_fault.py, which meanwhile does
 * something to the server
 *
 * It obeys lines of standard input and answers each with one line (two for "end"):
 *   begin N   starts N requests, N processes, N runs of code and N / 5 downloads; "begun" when the
 *             processes run (or have failed), or FAULT_BEGIN_MS later
 *             "unread": of some processes nobody takes the output; "nofile": without downloads
 *   end       waits for all: "CODE=count ..." of each kind, and when the last one ended
 *   drop      lets go of all, as they are; "dropped"
 *   check     a request and a program, whether all is well again
 *   execs N C runs N programs, C at once
 *   size      descriptors and resident KiB
 *   quit
 */
#include <dirent.h>
#include <time.h>
#include <unistd.h>

#include "tests/sdk/c/sdk.h"

#define ALL_MAX 400

struct one {
	const char *kind;
	aviary_op *op; /* owned unless of process */
	aviary_process *process;
};

static struct one ones[ALL_MAX];
static int n_ones;

static int64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static int64_t env_ms(const char *name, int64_t otherwise)
{
	const char *text = getenv(name);

	return text ? atoll(text) : otherwise;
}

static aviary_client *client_for_faults(void)
{
	aviary_client_options o = AVIARY_CLIENT_OPTIONS_INIT;
	aviary_client *c;

	if (getenv("AVIARY_TEST_THREADED"))
		o.flags |= AVIARY_CLIENT_THREADED;
	o.connect_timeout_ms = env_ms("FAULT_CONNECT_MS", 1500);
	o.request_timeout_ms = env_ms("FAULT_REQUEST_MS", 3000);
	o.retry_budget_ms = env_ms("FAULT_RETRY_MS", 1000);
	o.silence_timeout_ms = env_ms("FAULT_SILENCE_MS", 4000);
	if (aviary_client_new(&c, &o) == 0)
		return c;
	fprintf(stderr, "%s\n", aviary_client_error(c)->message);
	exit(2);
}

static void add(const char *kind, aviary_op *op, aviary_process *p)
{
	ones[n_ones++] = (struct one){kind, op, p};
}

static aviary_op *post(aviary_client *c, aviary_sandbox *sb, const char *what, const char *body)
{
	aviary_request q = AVIARY_REQUEST_INIT;
	char path[200];

	(void)snprintf(path, sizeof(path), "/v1/sandboxes/%s/%s", aviary_sandbox_id(sb), what);
	q.method = "POST";
	q.path = path;
	q.body = body;
	q.timeout_ms = env_ms("FAULT_REQUEST_MS", 3000);
	return aviary_client_request(c, &q);
}

static int discard(void *ctx, aviary_process *p, enum aviary_channel ch, const void *data, size_t n)
{
	(void)ctx, (void)p, (void)ch, (void)data, (void)n;
	return 0;
}

static aviary_process *process(aviary_sandbox *sb, int i, bool unread)
{
	static const char *const scripts[] = {"sleep 100", "cat",
	    "while :; do echo x; sleep 0.01; done",
	    "while :; do head -c 300000 /dev/zero; sleep 0.1; done"};
	const char *const command[] = {"/bin/sh", "-c", scripts[i % 4]};
	aviary_exec_options o = AVIARY_EXEC_OPTIONS_INIT;

	o.command = (aviary_strings){command, 3};
	o.flags = i % 4 == 1 ? AVIARY_EXEC_STDIN : 0;
	aviary_process *p = aviary_sandbox_exec(sb, &o);

	if (!unread)
		aviary_process_on_output(p, discard, NULL);
	return p;
}

/* So that it lasts. */
static int64_t take_slowly(void *ctx, const void *p, size_t n)
{
	(void)ctx, (void)p;
	usleep(1000);
	return (int64_t)n;
}

static void begin(aviary_client *c, aviary_sandbox *sb, int n, const char *how)
{
	aviary_op *started[ALL_MAX];

	int64_t patience_ms = env_ms("FAULT_BEGIN_MS", 15000), until = now_ms() + patience_ms,
	        there = 0;

	for (int i = 0; i < n && !strstr(how, "nofile"); i += 5)
		add("file", aviary_file_download(sb, "/tmp/large", take_slowly, NULL, NULL), NULL);
	/* Before its first byte a download is asked for again. */
	for (int i = 0; i < n_ones && now_ms() < until; i += there > 0) {
		if (aviary_op_wait(ones[i].op, 10) != AVIARY_E_AGAIN)
			break;
		aviary_transfer_progress(ones[i].op, &there, NULL);
	}
	for (int i = 0; i < n; i++) {
		aviary_process *p = process(sb, i, strstr(how, "unread"));

		started[i] = aviary_process_started(p);
		add("process", aviary_process_op(p), p);
	}
	for (int i = 0; i < n; i++) {
		/* Half of them are never answered in time, so that they are under way. */
		add("request",
		    i % 2 ? aviary_sandbox_refresh(sb)
		          : post(c, sb, "exec",
		                "{\"cmd\":\"sleep\",\"args\":[\"100\"],\"timeout_sec\":0}"),
		    NULL);
		add("code",
		    post(c, sb, "run_code",
		        "{\"code\":\"import time\\ntime.sleep(100)\",\"timeout_sec\":0}"),
		    NULL);
	}
	(void)aviary_wait(started, (size_t)n, 0, patience_ms);
	for (int i = 0; i < n; i++)
		aviary_op_free(started[i]);
	printf("begun\n");
}

static void count(const char *kind)
{
	for (int i = 0; i < n_ones; i++) {
		int code, same = 0;
		bool first = true;

		if (strcmp(ones[i].kind, kind) != 0)
			continue;
		code = aviary_op_code(ones[i].op);
		for (int k = 0; k < n_ones; k++)
			if (strcmp(ones[k].kind, kind) == 0 && aviary_op_code(ones[k].op) == code) {
				same++;
				first = first && k >= i;
			}
		if (first)
			printf(" %s:%s=%d", kind, aviary_code_name(code), same);
	}
}

static void drop(void)
{
	for (int i = 0; i < n_ones; i++) {
		aviary_op_cancel(ones[i].op);
		if (ones[i].process)
			aviary_process_free(ones[i].process);
		else
			aviary_op_free(ones[i].op);
	}
	n_ones = 0;
}

/* What nobody reads looks as if its reader were slow, whatever became of the server: so what was
 * not read is read now. */
static void end(void)
{
	aviary_op *ops[ALL_MAX];
	int64_t before = now_ms();
	int done;

	for (int i = 0; i < n_ones; i++) {
		ops[i] = ones[i].op;
		if (ones[i].process)
			aviary_process_on_output(ones[i].process, discard, NULL);
	}
	done = aviary_wait(ops, (size_t)n_ones, 0, env_ms("FAULT_PATIENCE_MS", 15000));
	printf("done=%d of=%d ms=%lld", done, n_ones, (long long)(now_ms() - before));
	count("request");
	count("process");
	count("file");
	count("code");
	printf("\n");
	drop();
}

static void check(aviary_sandbox *sb)
{
	aviary_op *op = aviary_sandbox_refresh(sb);
	aviary_process *p = aviary_sandbox_shell(sb, "echo well");
	int first = aviary_op_wait(op, 20000), second = aviary_op_wait(aviary_process_op(p), 20000);

	printf("%s %s %s\n", aviary_code_name(first), aviary_code_name(second),
	    aviary_process_result(p) ? "well" : "not");
	aviary_op_free(op);
	aviary_process_free(p);
}

static void execs(aviary_sandbox *sb, int n, int at_once)
{
	aviary_exec_options o = AVIARY_EXEC_OPTIONS_INIT;
	aviary_process *running[64];
	aviary_op *ops[64];
	int begun = 0, ended = 0, good = 0, open = 0;
	int64_t before = now_ms();

	o.flags = AVIARY_EXEC_COLLECT;
	o.command = (aviary_strings){(const char *const[]){"/bin/true"}, 1};
	at_once = at_once > 64 ? 64 : at_once;
	while (ended < n) {
		int keep = 0;

		while (open < at_once && begun < n) {
			running[open++] = aviary_sandbox_exec(sb, &o);
			begun++;
		}
		for (int i = 0; i < open; i++)
			ops[i] = aviary_process_op(running[i]);
		if (aviary_wait(ops, (size_t)open, 1, 30000) < 1)
			break;
		for (int i = 0; i < open; i++) {
			if (!aviary_op_is_done(aviary_process_op(running[i]))) {
				running[keep++] = running[i];
				continue;
			}
			good += aviary_op_code(aviary_process_op(running[i])) == 0;
			aviary_process_free(running[i]);
			ended++;
		}
		open = keep;
	}
	for (int i = 0; i < open; i++)
		aviary_process_free(running[i]);
	printf("good=%d ms=%lld\n", good, (long long)(now_ms() - before));
}

static void size(aviary_client *c)
{
	DIR *d = opendir("/proc/self/fd");
	FILE *f = fopen("/proc/self/status", "re");
	char line[200];
	int fds = -3; /* of this function */
	long kib = 0;

	/* What is only let go of needs a round or two. */
	for (int i = 0; i < 20 && !getenv("AVIARY_TEST_THREADED"); i++)
		(void)aviary_client_dispatch(c, 10);
	while (d && readdir(d))
		fds++;
	while (f && fgets(line, sizeof(line), f))
		(void)sscanf(line, "VmRSS: %ld", &kib);
	if (d)
		closedir(d);
	if (f)
		fclose(f);
	printf("fds=%d kib=%ld\n", fds, kib);
}

int main(void)
{
	aviary_client *c = client_for_faults();
	aviary_sandbox *sb = aviary_sandbox_attach(c, getenv("FAULT_SANDBOX"));
	char line[100];
	int n = 0, at_once = 0;

	setvbuf(stdout, NULL, _IOLBF, 0);
	while (sb && fgets(line, sizeof(line), stdin)) {
		if (sscanf(line, "begin %d", &n) == 1 && 4 * n <= ALL_MAX)
			begin(c, sb, n, line);
		else if (strcmp(line, "end\n") == 0)
			end();
		else if (strcmp(line, "drop\n") == 0)
			drop(), printf("dropped\n");
		else if (strcmp(line, "check\n") == 0)
			check(sb);
		else if (strcmp(line, "size\n") == 0)
			size(c);
		else if (sscanf(line, "execs %d %d", &n, &at_once) == 2)
			execs(sb, n, at_once);
		else
			break;
	}
	aviary_sandbox_free(sb);
	aviary_client_free(c);
	return 0;
}
