/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_remote.c - remote functions: what comes back, what is refused, what is sent
 */
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/sdk/c/sdk.h"

typedef struct {
	double from, to;
	int steps;
	char name[12];
	struct {
		short x, y[2];
	} at;
} range;
AVIARY_POD(range, from, to, steps, name, at.x, at.y);

typedef struct {
	double area;
	int64_t pid;
	char name[12];
} area;
AVIARY_POD(area, area, pid, name);

AVIARY_REMOTE(integrate, range, area)
{
	double h = (in->to - in->from) / in->steps;

	for (int i = 0; i < in->steps; i++)
		out->area += sin(in->from + (i + 0.5) * h) * h;
	out->pid = getpid();
	memcpy(out->name, in->name, sizeof(out->name));
	return 0;
}

AVIARY_REMOTE(reverse, aviary_bytes, aviary_bytes)
{
	const char *p = in->data;

	for (size_t i = in->size; i-- > 0;)
		if (aviary_bytes_append(out, &p[i], 1) < 0)
			return 1;
	return 0;
}

AVIARY_REMOTE(chatter, int, int)
{
	for (int i = 0; i < *in; i++) {
		printf("line %d\n", i);
		fprintf(stderr, "complaint %d\n", i);
	}
	*out = getchar(); /* there is no input */
	return 0;
}

enum { SEGV = 1, ABORT, EXIT_5, EXIT_0, RETURN_3, FLOOD, SLEEP, LARGE, EXEC, SAY };

AVIARY_REMOTE(misbehave, int, aviary_bytes)
{
	static char block[65536];

	fprintf(stderr, "about to do %d\n", *in);
	switch (*in) {
	case SEGV:
		signal(SIGSEGV, SIG_DFL); /* the sanitizers have it */
		raise(SIGSEGV);
		break;
	case ABORT:
		abort();
	case EXIT_5:
		exit(5);
	case EXIT_0:
		_exit(0);
	case RETURN_3:
		return 3;
	case FLOOD:
		for (;;)
			if (fwrite(block, 1, sizeof(block), stdout) == 0)
				return 1;
	case SLEEP:
		sleep(600);
		break;
	case LARGE:
		for (int i = 0; i < 64; i++)
			if (aviary_bytes_append(out, block, sizeof(block)) < 0)
				return 1;
		break;
	case SAY:
		printf("%s\n", getenv("FROM") ? getenv("FROM") : "");
		break;
	case EXEC:
		return execl("/bin/sh", "sh", "-c", "echo \"$AVIARY_WORKER\" done", (char *)NULL);
	}
	return 0;
}

static void test_value(aviary_client *c, aviary_sandbox *sb)
{
	aviary_remote_options o = AVIARY_REMOTE_OPTIONS_INIT;
	const range in = {.from = 0, .to = M_PI, .steps = 1000, .name = "sine", .at = {1, {2, 3}}};
	aviary_remote_result *r;
	aviary_error e;
	area out, here;

	o.sandbox = sb;
	r = aviary_remote_call_sync(c, AVIARY_FUNCTION(integrate), &in, &o, &e);
	if (!ok(r && e.code == 0, "a function runs in a sandbox"))
		diag("%s: %s", aviary_code_name(e.code), e.message);
	if (r && r->err_size)
		diag("%s", r->err);
	ok(r && r->shipped_bytes > 0, "the program is sent");
	ok(integrate_value(r) && fabs(integrate_value(r)->area - 2) < 1e-5, "its result is right");
	ok(!misbehave_value(r), "and of no other function");
	aviary_remote_result_free(r);

	r = aviary_remote_call_sync(c, AVIARY_FUNCTION(integrate), &in, &o, &e);
	ok(r && e.code == 0 && r->shipped_bytes == 0, "a second call sends nothing again");
	aviary_remote_result_free(r);
	is_int(integrate_sync(c, &in, &out, NULL, &e), 0, "in a sandbox of its own");
	is_str(out.name, "sine", "bytes and all");
	is_int(integrate_local(&in, &here), 0, "and here");
	r = aviary_remote_local(AVIARY_FUNCTION(integrate), &in);
	ok(r && r->error.code == 0 && integrate_value(r) && integrate_value(r)->area == here.area,
	    "also by its address");
	aviary_remote_result_free(r);
	ok(here.area == out.area && here.pid == getpid() && out.pid != 0, "with the same result");
}

static void test_bytes(aviary_client *c, const aviary_remote_options *o)
{
	aviary_bytes in = {0}, out = {0};
	aviary_remote_options small = *o;
	char *block;
	aviary_error e;
	size_t n = 3000000; /* many pieces of input, and of output */

	block = aviary_bytes_grow(&in, n, NULL) == 0 ? in.data : NULL;
	for (size_t i = 0; i < n; i++)
		block[i] = (char)(i * 7 + i / 1000);
	if (!ok(reverse_sync(c, &in, &out, o, &e) == 0, "3 MB there and back"))
		diag("%s", e.message);
	ok(out.size == n && ((char *)out.data)[0] == block[n - 1] &&
	        ((char *)out.data)[n - 1] == block[0],
	    "turned around");
	aviary_bytes_clear(&out);
	small.argument_max = n - 1;
	is_int(reverse_sync(c, &in, &out, &small, &e), AVIARY_E_FUNCTION_ARGUMENT,
	    "an argument over argument_max");
	ok(strstr(e.message, "3000000") && strstr(e.message, "2999999"), "%s", e.message);
	small = *o;
	small.result_max = n - 1;
	is_int(reverse_sync(c, &in, &out, &small, &e), AVIARY_E_FUNCTION_RESULT,
	    "a result over result_max");
	ok(strstr(e.message, "3000000") && strstr(e.message, "2999999"), "%s", e.message);
	aviary_bytes_clear(&in);
	is_int(reverse_sync(c, &in, &out, o, &e), 0, "no bytes");
	is_int((int)out.size, 0, "are no bytes");
	aviary_bytes_clear(&out);
}

static void count_output(void *ctx, enum aviary_channel ch, const void *data, size_t n)
{
	size_t *counts = ctx;

	(void)data;
	counts[ch] += n;
}

static void test_output(aviary_client *c, const aviary_remote_options *from)
{
	aviary_remote_options o = *from;
	aviary_remote_result *r;
	size_t counts[2] = {0, 0};
	aviary_error e;
	int lines = 2000;

	o.on_output = count_output;
	o.ctx = counts;
	o.output_max = 100;
	r = aviary_remote_call_sync(c, AVIARY_FUNCTION(chatter), &lines, &o, &e);
	ok(r && chatter_value(r) && *chatter_value(r) == EOF,
	    "stdin is empty, stdout is not the result");
	ok(r && r->out_truncated && r->out_size == 100 && strstr(r->out, "line 1999\n"),
	    "the end of stdout is kept");
	ok(r && r->err_truncated && strstr(r->err, "complaint 1999\n"), "and of stderr");
	ok(counts[0] == 18890 && counts[1] == 28890, "all of it was seen: %zu, %zu", counts[0],
	    counts[1]);
	aviary_remote_result_free(r);
}

/* What misbehaving gives: the code, and the result for more questions. */
static aviary_remote_result *misbehave_so(
    aviary_client *c, const aviary_remote_options *o, int how, int want)
{
	aviary_remote_result *r;
	aviary_error e;

	r = aviary_remote_call_sync(c, AVIARY_FUNCTION(misbehave), &how, o, &e);
	if (!r || !ok(e.code == want && r->error.code == want, "misbehaviour %d: %s: %s", how,
	              aviary_code_name(e.code), e.message))
		exit(2);
	ok(!r->value, "and no value");
	return r;
}

static void test_crashes(aviary_client *c, const aviary_remote_options *from)
{
	aviary_remote_options o = *from;
	aviary_remote_result *r;

	r = misbehave_so(c, &o, SEGV, AVIARY_E_FUNCTION_CRASHED);
	ok(r->signal == SIGSEGV && r->exit_code == 139 && strstr(r->error.message, "SEGV"),
	    "a signal is told");
	is_str(r->err, "about to do 1\n", "with stderr");
	aviary_remote_result_free(r);
	r = misbehave_so(c, &o, ABORT, AVIARY_E_FUNCTION_CRASHED);
	is_int(r->signal, SIGABRT, "abort is a signal");
	aviary_remote_result_free(r);
	r = misbehave_so(c, &o, EXIT_5, AVIARY_E_FUNCTION_CRASHED);
	ok(r->exit_code == 5 && !r->signal, "exit(5) is told");
	aviary_remote_result_free(r);
	r = misbehave_so(c, &o, EXIT_0, AVIARY_E_FUNCTION_CRASHED);
	is_int(r->exit_code, 0, "_exit(0) is no success");
	aviary_remote_result_free(r);
	r = misbehave_so(c, &o, RETURN_3, AVIARY_E_FUNCTION_FAILED);
	is_int(r->returned, 3, "what it returned is told");
	aviary_remote_result_free(r);
	r = misbehave_so(c, &o, EXEC, AVIARY_E_FUNCTION_CRASHED);
	is_str(r->out, " done\n", "what it executes is no worker");
	aviary_remote_result_free(r);
	o.timeout_ms = 1000;
	r = misbehave_so(c, &o, FLOOD, AVIARY_E_EXEC_TIMEOUT);
	ok(r->timed_out && r->out_truncated && r->out_size == 65536, "endless output is cut");
	aviary_remote_result_free(r);
	o.timeout_ms = 200;
	r = misbehave_so(c, &o, SLEEP, AVIARY_E_EXEC_TIMEOUT);
	aviary_remote_result_free(r);
	o = *from;
	o.result_max = 1000;
	r = misbehave_so(c, &o, LARGE, AVIARY_E_FUNCTION_RESULT);
	aviary_remote_result_free(r);
}

/* How many processes of ours run in it. */
static int count_workers(aviary_sandbox *sb)
{
	aviary_process *p = aviary_sandbox_shell(
	    sb, "cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' '\\n' | grep -c '/executable$'");
	const aviary_exec_result *x = aviary_await_process(p, NULL);
	int n = x ? x->out[0] - '0' : -1;

	aviary_process_free(p);
	return n;
}

static void test_cancel(aviary_client *c, aviary_sandbox *sb, const aviary_remote_options *o)
{
	int how = SLEEP, left = -1;
	aviary_op *op = misbehave_remote(c, &how, o);

	for (int i = 0; i < 100 && left != 2; i++) {
		ok(aviary_op_wait(op, 50) == AVIARY_E_AGAIN, "it runs");
		left = count_workers(sb);
	}
	ok(left == 2, "a supervisor and its child run: %d", left);
	aviary_op_cancel(op);
	is_int(aviary_op_wait(op, -1), AVIARY_E_CANCELED, "cancelled");
	ok(!aviary_op_take_remote(op), "without a result");
	aviary_op_free(op);
	for (int i = 0; i < 100 && left > 0; i++) {
		usleep(50000);
		left = count_workers(sb);
	}
	is_int(left, 0, "and killed");
	/* In a sandbox of its own, which is deleted: the runner counts. */
	op = misbehave_remote(c, &how, NULL);
	(void)aviary_op_wait(op, 300);
	aviary_op_cancel(op);
	aviary_op_free(op);
}

static void test_map(aviary_client *c, aviary_sandbox *sb)
{
	aviary_remote_options o = AVIARY_REMOTE_OPTIONS_INIT;
	range in[24];
	int how[] = {RETURN_3, 0, SEGV, 0, EXIT_5, 0};
	aviary_remote_results *all;
	aviary_op *op;
	aviary_error e;
	double sum = 0;
	size_t sandboxes = 0;

	for (size_t i = 0; i < 24; i++)
		in[i] = (range){.from = M_PI * (double)i / 24,
		    .to = M_PI * (double)(i + 1) / 24,
		    .steps = 20000};
	o.max_sandboxes = 8;
	all = aviary_remote_map_sync(c, AVIARY_FUNCTION(integrate), in, 24, &o, &e);
	if (!ok(all && e.code == 0 && all->n == 24 && !all->failed, "24 inputs over 8 sandboxes"))
		diag("%s", e.message);
	for (size_t i = 0; all && i < all->n; i++) {
		bool seen = false;

		for (size_t k = 0; k < i; k++)
			seen = seen ||
			       strcmp(all->items[k]->sandbox_id, all->items[i]->sandbox_id) == 0;
		sandboxes += !seen;
		sum += integrate_value(all->items[i]) ? integrate_value(all->items[i])->area : 0;
	}
	ok(fabs(sum - 2) < 1e-6 && sandboxes == 8, "%.6f from %zu", sum, sandboxes);
	aviary_remote_results_free(all);

	o.max_sandboxes = 2;
	op = misbehave_map(c, how, 6, &o);
	is_int(
	    aviary_op_wait(op, -1), AVIARY_E_FUNCTION_FAILED, "the first failure is that of all");
	ok(strstr(aviary_op_error(op)->message, "input 0 of 6"), "%s",
	    aviary_op_error(op)->message);
	all = aviary_op_take_remotes(op);
	aviary_op_free(op);
	ok(all && all->failed == 3 && all->items[0]->returned == 3 &&
	        all->items[2]->signal == SIGSEGV && all->items[4]->exit_code == 5,
	    "each has its own");
	ok(all && misbehave_value(all->items[1]) && misbehave_value(all->items[3]) &&
	        misbehave_value(all->items[5]),
	    "and the others went on");
	aviary_remote_results_free(all);

	o = (aviary_remote_options)AVIARY_REMOTE_OPTIONS_INIT;
	o.sandbox = sb;
	how[0] = how[2] = how[4] = 0;
	all = aviary_remote_map_sync(c, AVIARY_FUNCTION(misbehave), how, 6, &o, &e);
	ok(all && !e.code && strcmp(all->items[5]->sandbox_id, aviary_sandbox_id(sb)) == 0,
	    "in one sandbox");
	aviary_remote_results_free(all);
	how[0] = how[1] = how[2] = SLEEP;
	o.sandbox = NULL;
	op = misbehave_map(c, how, 6, &o);
	(void)aviary_op_wait(op, 500);
	aviary_op_cancel(op);
	is_int(aviary_op_wait(op, -1), AVIARY_E_CANCELED, "a map is cancelled");
	aviary_op_free(op);
}

/* What a call gives, and why. */
#define gives(call, want)                                                                          \
	do {                                                                                       \
		int code_ = (call);                                                                \
                                                                                                   \
		ok(code_ == (want), "%s: %s", aviary_code_name(code_), e.message);                 \
	} while (0)

/* ---- a type with pointers ---- */

typedef struct {
	char *text; /* malloc'ed */
	int words;
} note;

static int note_encode(const note *n, aviary_bytes *out)
{
	if (!n->text)
		return AVIARY_E_INVALID;
	if (aviary_bytes_append(out, &n->words, sizeof(n->words)) < 0)
		return AVIARY_E_NO_MEMORY;
	return aviary_bytes_append(out, n->text, strlen(n->text));
}

static int note_decode(const void *data, size_t size, note *n)
{
	if (size < sizeof(n->words) || size > 1000)
		return AVIARY_E_INVALID;
	memcpy(&n->words, data, sizeof(n->words));
	if (n->words < 0 || n->words > 99)
		return AVIARY_E_INVALID;
	n->text = strndup((const char *)data + sizeof(n->words), size - sizeof(n->words));
	return n->text ? 0 : AVIARY_E_NO_MEMORY;
}

static void note_clear(note *n)
{
	free(n->text);
}
AVIARY_CODEC(note, note_encode, note_decode, note_clear);

AVIARY_REMOTE(count_words, note, note)
{
	for (const char *p = in->text; *p; p++)
		out->words += *p == ' ';
	out->text = in->words == 77 ? NULL : strdup(in->text);
	out->words = in->words == 99 ? 1000 : out->words + 1;
	return 0;
}

static void test_codec(aviary_client *c, const aviary_remote_options *o)
{
	char text[] = "the quick brown fox";
	note in = {text, 0}, out = {0};
	aviary_error e;

	is_int(count_words_sync(c, &in, &out, o, &e), 0, "a type with its own codec");
	ok(out.words == 4 && out.text && strcmp(out.text, text) == 0, "crosses");
	note_clear(&out);
	is_int(count_words_local(&in, &out), 0, "and here");
	note_clear(&out);
	in.words = 77;
	gives(count_words_sync(c, &in, &out, o, &e), AVIARY_E_FUNCTION_RESULT);
	is_int(count_words_local(&in, &out), AVIARY_E_FUNCTION_RESULT,
	    "a result that cannot be encoded");
	in.words = 99;
	gives(count_words_sync(c, &in, &out, o, &e), AVIARY_E_FUNCTION_RESULT);
	is_int(count_words_local(&in, &out), AVIARY_E_FUNCTION_RESULT,
	    "a result that cannot be decoded");
	in.words = 100;
	gives(count_words_sync(c, &in, &out, o, &e), AVIARY_E_FUNCTION_ARGUMENT);
	ok(aviary_error_is(e.code, AVIARY_GROUP_FUNCTION), "one of the codes of functions");
	is_int(count_words_local(&in, &out), AVIARY_E_FUNCTION_ARGUMENT,
	    "an argument that cannot be decoded");
	in.text = NULL;
	gives(count_words_sync(c, &in, &out, o, &e), AVIARY_E_FUNCTION_ARGUMENT);
}

/* ---- what is refused ---- */

/* In the sandbox, as root, with input. */
static void sh(aviary_sandbox *sb, const char *script, const void *input, size_t n)
{
	const char *const command[] = {"/bin/sh", "-c", script};
	aviary_exec_options o = AVIARY_EXEC_OPTIONS_INIT;
	aviary_process *p;
	aviary_error e;

	o.flags = AVIARY_EXEC_COLLECT | AVIARY_EXEC_STDIN | AVIARY_EXEC_CHECK;
	o.command = (aviary_strings){command, 3};
	o.user = "root";
	p = aviary_sandbox_exec(sb, &o);
	if (n)
		ok(aviary_process_write(p, input, n, -1) == (int64_t)n, "written");
	(void)aviary_process_close_stdin(p);
	if (!aviary_await_process(p, &e))
		ok(false, "%s: %s", script, e.message);
	aviary_process_free(p);
}

static int integrate_code(aviary_client *c, const aviary_remote_options *o, aviary_error *e)
{
	const range in = {.to = 1, .steps = 10};
	area out;

	return integrate_sync(c, &in, &out, o, e);
}

/* The program with another build id. */
static char *other_build(size_t *ret_n)
{
	static char image[16 << 20];
	int fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, image, sizeof(image));
	char *id = n > 0 ? memmem(image, (size_t)n, "\4\0\0\0\24\0\0\0\3\0\0\0GNU", 16) : NULL;

	close(fd);
	if (id)
		id[20] ^= 1;
	*ret_n = id ? (size_t)n : 0;
	return image;
}

static void test_other_programs(
    aviary_client *c, aviary_sandbox *sb, const aviary_remote_options *o)
{
	aviary_remote_result *r;
	const range in = {.to = 1, .steps = 10};
	aviary_error e;
	size_t n;
	char *image = other_build(&n);

	if (n) {
		sh(sb, "cat >$(readlink -f /opt/aviary/bundles/*/executable)", image, n);
		gives(integrate_code(c, o, &e), AVIARY_E_FUNCTION_BUILD);
	} else {
		diag("this program has no build id");
	}
	sh(sb,
	    "cd /opt/aviary/bundles/*/ && cp ld-linux* /tmp/ld && (printf '\\267\\000' | "
	    "dd of=/tmp/ld bs=1 seek=18 conv=notrunc 2>/dev/null) && cat /tmp/ld >$(readlink -f "
	    "ld-linux*)",
	    NULL, 0);
	gives(integrate_code(c, o, &e), AVIARY_E_FUNCTION_ARCH);
	sh(sb, "rm -rf /opt/aviary", NULL, 0);
	r = aviary_remote_call_sync(c, AVIARY_FUNCTION(integrate), &in, o, &e);
	ok(r && e.code == 0 && r->shipped_bytes > 0, "a program that is gone is sent again");
	aviary_remote_result_free(r);
	sh(sb, "cd /opt/aviary/bundles/*/ && rm executable && echo hello >executable", NULL, 0);
	gives(integrate_code(c, o, &e), AVIARY_E_FUNCTION_PROGRAM);
	sh(sb, "rm -rf /opt/aviary", NULL, 0);
}

/* As a worker, this program says what test_hostile asks for. */
static const struct {
	const char *name;
	int code;
	const char *bytes;
	size_t n;
} answers[] = {
#define ANSWER(name, code, bytes)                                                                  \
	{                                                                                          \
		name, code, bytes, sizeof(bytes) - 1                                               \
	}
    ANSWER("silence", AVIARY_E_FUNCTION_PROGRAM, ""),
    ANSWER("prose", AVIARY_E_FUNCTION_PROGRAM, "Usage: this is no worker\n"),
    ANSWER("nothing more", AVIARY_E_FUNCTION_CRASHED, "AvWorke1"),
    ANSWER("a channel that is none", AVIARY_E_FUNCTION_RESULT, "AvWorke1\11\0\0\0\1\0\0\0x"),
    ANSWER("a large frame", AVIARY_E_FUNCTION_RESULT, "AvWorke1\1\0\0\0\1\0\1\0x"),
    ANSWER("a large result", AVIARY_E_FUNCTION_RESULT,
        "AvWorke1\3\0\0\0\20\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\100"),
    ANSWER("more than announced", AVIARY_E_FUNCTION_RESULT,
        "AvWorke1\3\0\0\0\22\0\0\0\0\0\0\0\0\0\0\0\1\0\0\0\0\0\0\0ab"),
    ANSWER("less than announced", AVIARY_E_FUNCTION_CRASHED,
        "AvWorke1\3\0\0\0\21\0\0\0\0\0\0\0\0\0\0\0\40\0\0\0\0\0\0\0a"
        "\4\0\0\0\40\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"),
    ANSWER("a value of another size", AVIARY_E_FUNCTION_RESULT,
        "AvWorke1\3\0\0\0\22\0\0\0\0\0\0\0\0\0\0\0\2\0\0\0\0\0\0\0ab"
        "\4\0\0\0\40\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"),
    ANSWER("a short end", AVIARY_E_FUNCTION_RESULT, "AvWorke1\4\0\0\0\1\0\0\0\0"),
    ANSWER("an end that is none", AVIARY_E_FUNCTION_RESULT,
        "AvWorke1\4\0\0\0\40\0\0\0\77\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"
        "\0"),
    ANSWER("more after the end", AVIARY_E_FUNCTION_RESULT,
        "AvWorke1\4\0\0\0\40\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"
        "\1\0\0\0\1\0\0\0x"),
    ANSWER("a question after all was sent", AVIARY_E_FUNCTION_CRASHED,
        "AvWorke1\5\0\0\0\0\0\0\0\5\0\0\0\0\0\0\0"),
};

static void be_hostile(const char *which)
{
	for (size_t i = 0; i < AV_ARRAY_LEN(answers); i++)
		if (strcmp(which, answers[i].name) == 0)
			_exit(write(STDOUT_FILENO, answers[i].bytes, answers[i].n) < 0);
}

static void test_hostile(aviary_client *c, const aviary_remote_options *from)
{
	aviary_remote_options o = *from;
	aviary_pair env = {"AVIARY_TEST_HOSTILE", NULL};
	aviary_error e;

	o.envs = (aviary_pairs){&env, 1};
	o.timeout_ms = 20000;
	for (size_t i = 0; i < AV_ARRAY_LEN(answers); i++) {
		env.value = answers[i].name;
		if (!ok(integrate_code(c, &o, &e) == answers[i].code, "a worker that says: %s",
		        env.value))
			diag("%s", aviary_code_name(e.code));
		diag("%s", e.message);
	}
}

static void test_refused(aviary_client *c, aviary_sandbox *sb, const aviary_remote_options *from)
{
	static const aviary_function stranger = {
	    sizeof(stranger), "stranger", NULL, &aviary_codec_int, &aviary_codec_int};
	static const aviary_function impostor = {
	    sizeof(impostor), "integrate", NULL, &aviary_codec_int, &aviary_codec_int};
	const aviary_sandbox_spec spec = AVIARY_SANDBOX_SPEC_INIT;
	aviary_remote_options o = *from;
	int n = 0;

	is_code(aviary_remote_call(c, &stranger, &n, &o), AVIARY_E_FUNCTION_UNKNOWN);
	is_code(aviary_remote_call(c, &impostor, &n, &o), AVIARY_E_FUNCTION_UNKNOWN);
	is_code(misbehave_map(c, &n, 0, &o), AVIARY_E_INVALID);
	o.directory = "opt";
	is_code(misbehave_remote(c, &n, &o), AVIARY_E_INVALID);
	o = *from;
	o.spec = &spec;
	is_code(misbehave_remote(c, &n, &o), AVIARY_E_INVALID);
	o = *from;
	o.sandbox = aviary_sandbox_attach(c, "sb0000000000000000000000000");
	is_code(misbehave_remote(c, &n, &o), AVIARY_E_SANDBOX_NOT_FOUND);
	aviary_sandbox_free(o.sandbox);
	(void)sb;
}

/* ---- shipping ---- */

static void test_ship_once(aviary_client *c)
{
	aviary_remote_options o = AVIARY_REMOTE_OPTIONS_INIT;
	aviary_sandbox_spec spec = AVIARY_SANDBOX_SPEC_INIT;
	aviary_remote_result *r;
	aviary_client *other;
	aviary_sandbox *mine;
	aviary_op *ops[6];
	aviary_error e;
	int how = 0, shipped = 0;

	spec.memory_mb = 128;
	o.sandbox = aviary_sandbox_new(c, &spec); /* which the calls start */
	o.directory = "/var/tmp/else/where";
	for (size_t i = 0; i < AV_ARRAY_LEN(ops); i++)
		ops[i] = misbehave_remote(c, &how, &o);
	aviary_op_cancel(ops[0]); /* others wait for what it began */
	for (size_t i = 1; i < AV_ARRAY_LEN(ops); i++) {
		if (aviary_op_wait(ops[i], -1) != 0)
			diag("%s", aviary_op_error(ops[i])->message);
		r = aviary_op_take_remote(ops[i]);
		ok(r && r->value, "one of six calls at once");
		shipped += r && r->shipped_bytes > 0;
		aviary_remote_result_free(r);
	}
	for (size_t i = 0; i < AV_ARRAY_LEN(ops); i++)
		aviary_op_free(ops[i]);
	ok(shipped <= 1, "they ship once");
	/* Another client knows nothing, and finds all of it there. */
	other = sdk_client();
	mine = o.sandbox;
	o.sandbox = aviary_sandbox_attach(other, aviary_sandbox_id(mine));
	r = aviary_remote_call_sync(other, AVIARY_FUNCTION(misbehave), &how, &o, &e);
	ok(r && r->value && !r->shipped_bytes, "another client finds it there");
	aviary_remote_result_free(r);
	aviary_sandbox_free(o.sandbox);
	aviary_client_free(other);
	sdk_remove(mine);
}

static void test_session(aviary_client *c)
{
	aviary_remote_options o = AVIARY_REMOTE_OPTIONS_INIT;
	aviary_sandbox_spec defaults = AVIARY_SANDBOX_SPEC_INIT;
	const aviary_pair env = {"FROM", "session"};
	aviary_client *other = sdk_client();
	aviary_session *s;
	aviary_error e;
	int how = SAY, n[3] = {0, 0, 0};
	aviary_remote_result *r;

	defaults.memory_mb = 128;
	defaults.envs = (aviary_pairs){&env, 1};
	s = aviary_session_new(c, &defaults);
	o.session = s;
	r = aviary_remote_call_sync(c, AVIARY_FUNCTION(misbehave), &how, &o, &e);
	ok(r && e.code == 0 && strcmp(r->out, "session\n") == 0, "with a session's defaults: %s",
	    e.message);
	aviary_remote_result_free(r);
	is_code(misbehave_map(c, n, 3, &o), 0);
	is_int((int)aviary_session_count(s), 0, "whose sandboxes it leaves nothing to do");
	is_code(misbehave_remote(other, n, &o), AVIARY_E_INVALID);
	is_int(aviary_session_close_sync(s, NULL, &e), 0, "closed");
	is_code(misbehave_remote(c, n, &o), AVIARY_E_STATE);
	is_code(misbehave_map(c, n, 3, &o), AVIARY_E_STATE);
	aviary_session_free(s);
	aviary_client_free(other);
}

/* Any image will do, also one without a file. */
static void test_empty(aviary_client *c)
{
	aviary_remote_options o = AVIARY_REMOTE_OPTIONS_INIT;
	aviary_sandbox_spec spec = AVIARY_SANDBOX_SPEC_INIT;
	aviary_error e;

	spec.template_name = "empty";
	spec.memory_mb = 128;
	o.spec = &spec;
	gives(integrate_code(c, &o, &e), 0);
}

/* Until nobody works on anything any more: sandboxes of cancelled calls are being deleted. */
static void settle(aviary_client *c)
{
	aviary_request q = AVIARY_REQUEST_INIT;

	q.path = "/v1/sandboxes";
	for (int i = 0; i < 200; i++) {
		aviary_op *op = aviary_client_request(c, &q);
		size_t n;
		bool gone = aviary_op_wait(op, -1) == 0 && (aviary_op_body(op, &n), n <= 3);

		aviary_op_free(op);
		if (gone)
			return;
		usleep(50000);
	}
}

int main(int argc, char **argv)
{
	aviary_remote_options o = AVIARY_REMOTE_OPTIONS_INIT;
	aviary_client *c;
	aviary_sandbox *sb;

	if (getenv("AVIARY_TEST_HOSTILE"))
		be_hostile(getenv("AVIARY_TEST_HOSTILE"));
	aviary_worker_init(argc, argv);
	c = sdk_client();
	sb = sdk_sandbox(c);
	o.sandbox = sb;
	test_value(c, sb);
	test_bytes(c, &o);
	test_output(c, &o);
	test_crashes(c, &o);
	test_codec(c, &o);
	test_hostile(c, &o);
	test_refused(c, sb, &o);
	test_other_programs(c, sb, &o);
	test_ship_once(c);
	test_session(c);
	test_empty(c);
	test_map(c, sb);
	test_cancel(c, sb, &o);
	sdk_remove(sb);
	settle(c);
	aviary_client_free(c);
	return tap_done();
}
