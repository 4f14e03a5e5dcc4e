/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_files.c - files of a sandbox through libaviary: whole, as streams, changes, URLs
 */
#include <fcntl.h>
#include <pthread.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/sdk/c/sdk.h"

#define MIB ((size_t)1 << 20)

static void shell(aviary_sandbox *sb, const char *script)
{
	aviary_process *p = aviary_sandbox_shell(sb, script);
	aviary_error e;
	const aviary_exec_result *r = aviary_await_process(p, &e);

	if (!r || r->exit_code != 0)
		ok(false, "%s: %s %s", script, e.message, r ? r->err : "");
	aviary_process_free(p);
}

static void test_whole(aviary_client *c)
{
	aviary_sandbox_spec spec = AVIARY_SANDBOX_SPEC_INIT;
	aviary_file_options o = AVIARY_FILE_OPTIONS_INIT;
	aviary_sandbox *sb;
	aviary_text *b;
	aviary_error e;
	char big[300000];

	spec.memory_mb = 128;
	spec.max_lifetime_ms = 600000;
	sb = aviary_sandbox_new(c, &spec);
	is_int(aviary_file_write_sync(sb, "/root/a b/\xc3\xa9?&%", "hello", 5, NULL, &e), 0,
	    "a write starts the sandbox and makes parents");
	b = aviary_file_read_sync(sb, "/root/a b/\xc3\xa9?&%", NULL, &e);
	ok(b && b->n == 5 && strcmp(b->text, "hello") == 0, "read gives the bytes, with a NUL");
	aviary_text_free(b);
	is_int(aviary_file_write_sync(sb, "rel", "", 0, NULL, &e), 0, "an empty file");
	b = aviary_file_read_sync(sb, "~/rel", NULL, &e);
	ok(b && b->n == 0 && b->text[0] == '\0', "comes back empty");
	aviary_text_free(b);
	memset(big, 0, sizeof(big));
	memcpy(big, "{\"error\":{}}", 12);
	is_int(aviary_file_write_sync(sb, "/tmp/\xff\xfe", big, sizeof(big), NULL, &e), 0,
	    "a name that is not UTF-8");
	b = aviary_file_read_sync(sb, "/tmp/\xff\xfe", NULL, &e);
	ok(b && b->n == sizeof(big) && memcmp(b->text, big, sizeof(big)) == 0,
	    "the same bytes, which look like JSON");
	aviary_text_free(b);
	o.max_bytes = sizeof(big) - 1;
	b = aviary_file_read_sync(sb, "/tmp/\xff\xfe", &o, &e);
	is_int(e.code, AVIARY_E_TOO_LARGE, "more than max_bytes");
	ok(!b && strstr(e.message, "299999"), "which the message names");
	o.max_bytes++;
	b = aviary_file_read_sync(sb, "/tmp/\xff\xfe", &o, &e);
	ok(b && b->n == sizeof(big), "exactly as many are fine");
	aviary_text_free(b);
	b = aviary_file_read_sync(sb, "/proc/self/status", NULL, &e);
	ok(b && b->n > 100, "a file without a size");
	aviary_text_free(b);
	sdk_remove(sb);
}

static void is_error(const aviary_error *e, int code, const char *path, const char *what)
{
	if (!ok(e->code == code && strcmp(e->path, path) == 0 && e->sandbox_id[0], "%s", what))
		diag("%s: %s (path \"%s\", HTTP %d)", aviary_code_name(e->code), e->message,
		    e->path, e->http_status);
}

static void test_errors(aviary_client *c, aviary_sandbox *sb)
{
	aviary_file_options user = AVIARY_FILE_OPTIONS_INIT, o = AVIARY_FILE_OPTIONS_INIT;
	aviary_sandbox *gone = aviary_sandbox_attach(c, "sb0000000000000000000000000");
	aviary_error e;
	aviary_op *op;

	user.user = "nobody";
	shell(sb, "mkdir -p /root/d/e; echo x >/root/f; chmod 0700 /root; mkfifo /tmp/pipe;"
	          "echo secret >/tmp/s; chmod 0600 /tmp/s");
	aviary_text_free(aviary_file_read_sync(sb, "/root/missing", NULL, &e));
	is_error(&e, AVIARY_E_FILE_NOT_FOUND, "/root/missing", "read what is not there");
	ok(aviary_error_is(e.code, AVIARY_GROUP_FILE), "is of the group of files");
	aviary_text_free(aviary_file_read_sync(sb, "/root/d", NULL, &e));
	is_error(&e, AVIARY_E_FILE_IS_DIRECTORY, "/root/d", "read a directory");
	aviary_text_free(aviary_file_read_sync(sb, "/root/f/x", NULL, &e));
	is_error(&e, AVIARY_E_FILE_NOT_DIRECTORY, "/root/f/x", "read below a file");
	aviary_text_free(aviary_file_read_sync(sb, "/tmp/s", &user, &e));
	is_error(&e, AVIARY_E_FILE_DENIED, "/tmp/s", "read without the right to");
	aviary_text_free(aviary_file_read_sync(sb, "/tmp/pipe", NULL, &e));
	is_error(&e, AVIARY_E_INVALID, "/tmp/pipe", "read a pipe");
	aviary_text_free(aviary_file_read_sync(sb, "", NULL, &e));
	is_int(e.code, AVIARY_E_INVALID, "read no path");
	aviary_text_free(aviary_file_read_sync(gone, "/x", NULL, &e));
	is_int(e.code, AVIARY_E_SANDBOX_NOT_FOUND, "of a sandbox that is not there");
	aviary_file_write_sync(sb, "/root/d", "x", 1, NULL, &e);
	is_error(&e, AVIARY_E_FILE_IS_DIRECTORY, "/root/d", "write a directory");
	aviary_file_write_sync(sb, "/root/f/x", "x", 1, NULL, &e);
	is_error(&e, AVIARY_E_FILE_NOT_DIRECTORY, "/root/f/x", "write below a file");
	aviary_file_write_sync(sb, "/etc/x", "x", 1, &user, &e);
	is_error(&e, AVIARY_E_FILE_DENIED, "/etc/x", "write without the right to");
	aviary_entries_free(aviary_file_list_sync(sb, "/root/f", NULL, &e));
	is_error(&e, AVIARY_E_FILE_NOT_DIRECTORY, "/root/f", "list a file");
	aviary_entries_free(aviary_file_list_sync(sb, "/nosuch", NULL, &e));
	is_error(&e, AVIARY_E_FILE_NOT_FOUND, "/nosuch", "list what is not there");
	aviary_file_mkdir_sync(sb, "/root/d", NULL, &e);
	is_error(&e, AVIARY_E_FILE_EXISTS, "/root/d", "mkdir what is there");
	aviary_file_mkdir_sync(sb, "/root/\xff", NULL, &e);
	is_int(e.code, AVIARY_E_INVALID, "mkdir with a name that JSON cannot hold");
	aviary_file_remove_sync(sb, "/root/missing", NULL, &e);
	is_error(&e, AVIARY_E_FILE_NOT_FOUND, "/root/missing", "remove what is not there");
	o.missing_ok = 1;
	is_int(aviary_file_remove_sync(sb, "/root/missing", &o, &e), 0, "unless that is fine");
	aviary_file_move_sync(sb, "/root/missing", "/root/y", NULL, &e);
	is_error(&e, AVIARY_E_FILE_NOT_FOUND, "/root/missing", "move what is not there");
	aviary_file_chmod_sync(sb, "/root/missing", 0600, NULL, &e);
	is_error(&e, AVIARY_E_FILE_NOT_FOUND, "/root/missing", "chmod what is not there");
	aviary_file_chmod_sync(sb, "/root/f", 010000, NULL, &e);
	is_int(e.code, AVIARY_E_INVALID, "a mode that is none");
	aviary_file_chown_sync(sb, "/root/f", "nosuchuser", NULL, NULL, &e);
	ok(e.code < 0 && strstr(e.message, "nosuchuser"), "chown to nobody: %s", e.message);
	aviary_file_download_fd_sync(sb, "/root/f", 9999, NULL, &e);
	is_int(e.code, AVIARY_E_LOCAL, "a descriptor that is none");
	op = aviary_file_download_fd(sb, "/root/missing", 1, NULL);
	is_int(aviary_op_wait(op, 30000), AVIARY_E_FILE_NOT_FOUND, "download what is not there");
	aviary_op_free(op);
	aviary_sandbox_free(gone);
}

static void test_changes(aviary_sandbox *sb)
{
	aviary_file_options o = AVIARY_FILE_OPTIONS_INIT;
	aviary_entry *f;
	aviary_entries *l;
	aviary_error e;

	is_int(aviary_file_mkdir_sync(sb, "/root/t/a/b", NULL, &e), 0, "mkdir with parents");
	is_int(aviary_file_write_sync(sb, "/root/t/a/x", "12345", 5, NULL, &e), 0, "a file in it");
	shell(sb, "ln -s a/x /root/t/link; ln -s /nowhere /root/t/dangling");
	l = aviary_file_list_sync(sb, "/root/t", NULL, &e);
	ok(l && l->n_entries == 3 && strcmp(l->entries[0]->name, "a") == 0 &&
	        l->entries[0]->type == AVIARY_FILE_TYPE_DIRECTORY &&
	        l->entries[1]->type == AVIARY_FILE_TYPE_SYMLINK &&
	        strcmp(l->entries[1]->symlink_target, "/nowhere") == 0,
	    "list one level");
	aviary_entries_free(l);
	o.depth = 3;
	l = aviary_file_list_sync(sb, "/root/t", &o, &e);
	ok(l && l->n_entries == 5 && strcmp(l->entries[1]->path, "/root/t/a/b") == 0, "list three");
	aviary_entries_free(l);
	is_int(aviary_file_chmod_sync(sb, "/root/t/a/x", 0640, NULL, &e), 0, "chmod");
	is_int(aviary_file_chown_sync(sb, "/root/t/a/x", "nobody", "0", NULL, &e), 0, "chown");
	f = aviary_file_stat_sync(sb, "/root/t/a/x", NULL, &e);
	ok(f && f->entry->size == 5 && f->entry->mode == 0640 &&
	        strcmp(f->entry->owner, "nobody") == 0 &&
	        strcmp(f->entry->permissions, "-rw-r-----") == 0 &&
	        strcmp(f->entry->name, "x") == 0 && f->entry->modified_at > 1500000000 &&
	        !f->entry->symlink_target,
	    "stat");
	aviary_entry_free(f);
	is_int(aviary_file_move_sync(sb, "/root/t/a/x", "/root/t/n/y", NULL, &e), 0, "move");
	is_int(aviary_file_exists_sync(sb, "/root/t/n/y", NULL, &e), 1, "it is there");
	is_int(aviary_file_exists_sync(sb, "/root/t/a/x", NULL, &e), 0, "and no longer here");
	o = (aviary_file_options)AVIARY_FILE_OPTIONS_INIT;
	o.recursive = 1;
	is_int(aviary_file_chmod_sync(sb, "/root/t/n", 0700, &o, &e), 0, "chmod of a tree");
	f = aviary_file_stat_sync(sb, "/root/t/n/y", NULL, &e);
	ok(f && f->entry->mode == 0700, "and of what is in it");
	aviary_entry_free(f);
	is_int(aviary_file_remove_sync(sb, "/root/t", NULL, &e), 0, "remove a tree");
	is_int(aviary_file_exists_sync(sb, "/root/t", NULL, &e), 0, "it is gone");
}

/* ---- streams ---- */

/* Bytes that tell where they stand. */
static void fill(char *p, size_t n, uint64_t at)
{
	for (size_t i = 0; i < n; i++, at++)
		p[i] = (char)(at * 131 + (at >> 12));
}

struct flow {
	uint64_t done, total;
	bool wrong, stall;
	int calls, fail_with;
	aviary_op *_Atomic cancel; /* set while the library's thread may ask already */
	bool early;                /* it was done while its callback ran */
};

static void cancel_half_way(struct flow *f)
{
	aviary_op *op = f->cancel;

	if (!op || f->done <= f->total / 2)
		return;
	aviary_op_cancel(op);
	f->early = f->early || aviary_op_is_done(op);
}

static int64_t give(void *ctx, void *buf, size_t n)
{
	struct flow *f = ctx;

	f->calls++;
	cancel_half_way(f);
	if (f->fail_with && f->done > f->total / 2)
		return f->fail_with;
	if (f->stall && f->calls % 3 == 0)
		return AVIARY_E_AGAIN;
	if (n > f->total - f->done)
		n = f->total - f->done;
	fill(buf, n, f->done);
	f->done += n;
	return (int64_t)n;
}

static int64_t take(void *ctx, const void *data, size_t n)
{
	static char want[1 << 20];
	struct flow *f = ctx;

	f->calls++;
	cancel_half_way(f);
	if (f->fail_with && f->done > f->total / 2)
		return f->fail_with;
	if (f->stall && f->calls % 3 == 0)
		return AVIARY_E_AGAIN;
	if (f->stall && n > 30000)
		n = 30000 + (size_t)f->calls % 7;
	if (n > sizeof(want))
		n = sizeof(want);
	fill(want, n, f->done);
	if (memcmp(want, data, n) != 0)
		f->wrong = true;
	f->done += n;
	return (int64_t)n;
}

/* Waits, and resumes what said "not now". */
static int drive(aviary_op *op)
{
	int r;

	while ((r = aviary_op_wait(op, 2)) == AVIARY_E_AGAIN)
		aviary_transfer_resume(op);
	return r;
}

static size_t rss_kib(void)
{
	FILE *f = fopen("/proc/self/statm", "re");
	unsigned long size = 0, rss = 0;

	if (!f || fscanf(f, "%lu %lu", &size, &rss) != 2)
		rss = 0;
	if (f)
		fclose(f);
	return rss * (size_t)sysconf(_SC_PAGESIZE) / 1024;
}

static void test_large(aviary_sandbox *sb)
{
	struct flow up = {.total = 256 * MIB}, down = {.total = 256 * MIB};
	size_t before = rss_kib(), after;
	int64_t done, total;
	aviary_op *op;

	op = aviary_file_upload(sb, "/root/large", give, &up, (int64_t)up.total, NULL);
	is_int(aviary_op_wait(op, 120000), 0, "256 MiB up");
	aviary_transfer_progress(op, &done, &total);
	ok(done == (int64_t)up.total && total == done, "the progress says so");
	aviary_op_free(op);
	op = aviary_file_download(sb, "/root/large", take, &down, NULL);
	is_int(aviary_op_wait(op, 120000), 0, "256 MiB down");
	aviary_transfer_progress(op, &done, &total);
	ok(done == (int64_t)up.total && total == done, "the progress says so");
	aviary_op_free(op);
	after = rss_kib();
	ok(!down.wrong && down.done == down.total, "every byte the same");
	/* What watches the program keeps books of its own. */
	if (!getenv("AVIARY_TEST_WRAP") && !ok(after < before + 16 * 1024, "in constant memory"))
		diag("%zu KiB before, %zu after", before, after);
	shell(sb, "rm /root/large");
}

static void test_backpressure(aviary_sandbox *sb)
{
	struct flow up = {.total = 3 * MIB + 17, .stall = true}, down = up;
	aviary_op *ops[2];

	ops[0] = aviary_file_upload(sb, "/root/s", give, &up, -1, NULL);
	is_int(drive(ops[0]), 0, "a source of unknown size that often has nothing");
	aviary_op_free(ops[0]);
	down.done = 0;
	ops[0] = aviary_file_download(sb, "/root/s", take, &down, NULL);
	is_int(drive(ops[0]), 0, "a sink that often takes nothing, or little");
	ok(!down.wrong && down.done == up.total, "every byte the same");
	aviary_op_free(ops[0]);
	/* One that rests does not hold up the other. */
	up = (struct flow){.total = 3, .stall = true, .calls = 2};
	down = (struct flow){.total = 3 * MIB + 17};
	ops[0] = aviary_file_upload(sb, "/root/rests", give, &up, 3, NULL);
	ops[1] = aviary_file_download(sb, "/root/s", take, &down, NULL);
	is_int(aviary_op_wait(ops[1], 60000), 0, "one that rests does not hold up another");
	is_int(aviary_op_code(ops[0]), AVIARY_E_AGAIN, "it rests still");
	aviary_transfer_resume(ops[0]);
	is_int(drive(ops[0]), 0, "until it is resumed");
	aviary_op_free(ops[0]);
	aviary_op_free(ops[1]);
}

static void test_broken_off(aviary_sandbox *sb)
{
	struct flow f = {.total = 8 * MIB, .fail_with = AVIARY_E_TOO_LARGE, .stall = true};
	aviary_file_options o = AVIARY_FILE_OPTIONS_INIT;
	aviary_error e;
	aviary_op *op;

	/* It breaks off when the first part has arrived: before that it is not there either. */
	op = aviary_file_upload(sb, "/root/half", give, &f, -1, NULL);
	for (int i = 0; i < 1000 && aviary_file_exists_sync(sb, "/root/half", NULL, &e) != 1; i++)
		usleep(20000);
	is_int(aviary_op_code(op), AVIARY_E_AGAIN, "it rests");
	is_int(drive(op), AVIARY_E_TOO_LARGE, "its source fails");
	aviary_op_free(op);
	for (int i = 0; i < 1000 && aviary_file_exists_sync(sb, "/root/half", NULL, &e) != 0; i++)
		usleep(20000);
	is_int(aviary_file_exists_sync(sb, "/root/half", NULL, &e), 0, "half a file stays nowhere");
	f = (struct flow){.total = 1000};
	is_code(aviary_file_upload(sb, "/root/half", give, &f, 1001, NULL), AVIARY_E_INVALID);
	f = (struct flow){.total = 1001};
	is_code(aviary_file_upload(sb, "/root/clipped", give, &f, 1000, NULL), 0);
	f = (struct flow){.total = 3 * MIB + 17, .fail_with = -1};
	is_code(aviary_file_download(sb, "/root/s", take, &f, NULL), AVIARY_E_CANCELED);
	/* From inside the callback. */
	f = (struct flow){.total = 3 * MIB};
	op = aviary_file_download(sb, "/root/s", take, &f, NULL);
	f.cancel = op;
	is_int(aviary_op_wait(op, 60000), AVIARY_E_CANCELED, "cancelled by its own sink");
	ok(!f.early, "and done when that has returned");
	aviary_op_free(op);
	f = (struct flow){.total = 8 * MIB};
	op = aviary_file_upload(sb, "/root/half", give, &f, -1, NULL);
	f.cancel = op;
	is_int(aviary_op_wait(op, 60000), AVIARY_E_CANCELED, "cancelled by its own source");
	ok(!f.early, "and done when that has returned");
	aviary_op_free(op);
	/* From outside, while it rests. */
	f = (struct flow){.total = 3 * MIB, .stall = true};
	op = aviary_file_download(sb, "/root/s", take, &f, NULL);
	is_int(aviary_op_wait(op, 200), AVIARY_E_AGAIN, "a sink that is not resumed");
	aviary_op_cancel(op);
	is_int(aviary_op_wait(op, 60000), AVIARY_E_CANCELED, "cancelled while it rests");
	aviary_op_free(op);
	/* The whole, and not the idle time-out, counts the caller's rest. */
	o.idle_timeout_ms = 300;
	f = (struct flow){.total = 3 * MIB + 17, .calls = 2, .stall = true};
	op = aviary_file_download(sb, "/root/s", take, &f, &o);
	is_int(
	    aviary_op_wait(op, 900), AVIARY_E_AGAIN, "the idle time-out does not count our rest");
	is_int(drive(op), 0, "and it goes on");
	aviary_op_free(op);
	o.timeout_ms = 300;
	f = (struct flow){.total = 3 * MIB + 17, .calls = 2, .stall = true};
	is_code(aviary_file_upload(sb, "/root/late", give, &f, -1, &o), AVIARY_E_TIMEOUT);
}

static void test_descriptors(aviary_sandbox *sb)
{
	const char *dir = getenv("AVIARY_TEST_DIR");
	char path[300], text[64] = "";
	aviary_error e;
	aviary_op *op;
	int fd, pair[2];
	ssize_t n;

	(void)snprintf(path, sizeof(path), "%s/local", dir);
	fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	ok(write(fd, "skip:content", 12) == 12 && lseek(fd, 5, SEEK_SET) == 5, "a local file");
	is_int(aviary_file_upload_fd_sync(sb, "/root/fd", fd, NULL, &e), 0, "up from a file");
	ok(ftruncate(fd, 0) == 0 && lseek(fd, 0, SEEK_SET) == 0, "emptied");
	is_int(aviary_file_download_fd_sync(sb, "/root/fd", fd, NULL, &e), 0, "down to a file");
	n = pread(fd, text, sizeof(text) - 1, 0);
	ok(n == 7 && strcmp(text, "content") == 0, "from where it stood");
	close(fd);
	fd = open("/dev/full", O_WRONLY | O_CLOEXEC);
	aviary_file_download_fd_sync(sb, "/root/fd", fd, NULL, &e);
	is_int(e.code, AVIARY_E_NO_SPACE, "a full disk here");
	close(fd);
	/* Pipes and sockets, which are waited for; they block. */
	ok(pipe2(pair, O_CLOEXEC) == 0, "a pipe");
	op = aviary_file_upload_fd(sb, "/root/pipe", pair[0], NULL);
	close(pair[0]);
	is_int(aviary_op_wait(op, 100), AVIARY_E_AGAIN, "nothing in the pipe");
	ok(write(pair[1], "abc", 3) == 3, "something");
	is_int(aviary_op_wait(op, 50), AVIARY_E_AGAIN, "but not its end");
	ok(write(pair[1], "def", 3) == 3, "more");
	close(pair[1]);
	is_int(aviary_op_wait(op, 30000), 0, "at its end it is written");
	aviary_op_free(op);
	ok(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0, "a socket");
	op = aviary_file_download_fd(sb, "/root/pipe", pair[0], NULL);
	close(pair[0]);
	is_int(aviary_op_wait(op, 30000), 0, "down into a socket");
	aviary_op_free(op);
	n = read(pair[1], text, sizeof(text));
	ok(n == 6 && memcmp(text, "abcdef", 6) == 0, "all of it");
	close(pair[1]);
	ok(pipe2(pair, O_CLOEXEC) == 0, "a pipe");
	op = aviary_file_download_fd(sb, "/root/s", pair[1], NULL);
	is_int(aviary_op_wait(op, 300), AVIARY_E_AGAIN, "a pipe that is full stops the transfer");
	close(pair[0]);
	close(pair[1]);
	is_int(aviary_op_wait(op, 30000), AVIARY_E_LOCAL, "one that nobody reads ends it");
	aviary_op_free(op);
}

static void test_many(aviary_sandbox *sb)
{
	struct flow flows[16];
	aviary_op *ops[16];
	char path[32];
	size_t failed = 99;

	for (size_t i = 0; i < 16; i++) {
		(void)snprintf(path, sizeof(path), "/root/many%zu", i);
		flows[i] = (struct flow){.total = 2 * MIB + i};
		ops[i] = aviary_file_upload(
		    sb, path, give, &flows[i], i % 2 ? -1 : (int64_t)flows[i].total, NULL);
	}
	is_int(aviary_results(ops, 16, &failed), 0, "16 at once up");
	for (size_t i = 0; i < 16; i++) {
		aviary_op_free(ops[i]);
		(void)snprintf(path, sizeof(path), "/root/many%zu", i);
		flows[i] = (struct flow){.total = 2 * MIB + i};
		ops[i] = aviary_file_download(sb, path, take, &flows[i], NULL);
	}
	is_int(aviary_results(ops, 16, &failed), 0, "16 at once down");
	for (size_t i = 0; i < 16; i++) {
		if (flows[i].wrong || flows[i].done != flows[i].total)
			ok(false, "file %zu", i);
		aviary_op_free(ops[i]);
	}
}

static void test_urls(aviary_sandbox *sb)
{
	aviary_error e;
	aviary_file_url *u = aviary_file_sign_sync(sb, "/root/a b", 1, 60000, NULL, &e);
	char command[2000];

	ok(u && u->expires_at > 1500000000000, "a URL to write: %s", u ? u->url : e.message);
	(void)snprintf(command, sizeof(command), "curl -sSf -X PUT --data-binary signed '%s'",
	    u ? u->url : "");
	is_int(system(command), 0, "is written without a key");
	aviary_file_url_free(u);
	u = aviary_file_sign_sync(sb, "/root/a b", 0, 0, NULL, &e);
	(void)snprintf(
	    command, sizeof(command), "test \"$(curl -sSf '%s')\" = signed", u ? u->url : "");
	is_int(system(command), 0, "and read");
	aviary_file_url_free(u);
	aviary_file_url_free(
	    aviary_file_sign_sync(sb, "/root/a b", 0, (int64_t)8 * 86400 * 1000, NULL, &e));
	is_int(e.code, AVIARY_E_INVALID, "not for longer than a week");
}

static void test_killed(aviary_client *c)
{
	struct flow f = {.total = 64 * MIB, .stall = true}, g = {.total = 64 * MIB, .stall = true};
	aviary_sandbox *sb = sdk_sandbox(c);
	aviary_op *down, *up;
	aviary_error e;
	int r;

	shell(sb, "head -c 64M /dev/zero >/root/z");
	down = aviary_file_download(sb, "/root/z", take, &f, NULL);
	up = aviary_file_upload(sb, "/root/up", give, &g, -1, NULL);
	(void)aviary_op_wait(down, 300);
	sdk_remove(aviary_sandbox_ref(sb));
	r = drive(down);
	ok(r == AVIARY_E_BROKEN || r == AVIARY_E_SANDBOX_NOT_FOUND ||
	        r == AVIARY_E_SANDBOX_TERMINATED,
	    "a download ends with its sandbox: %s: %s", aviary_code_name(r),
	    aviary_op_error(down)->message);
	aviary_op_free(down);
	r = drive(up);
	ok(r < 0 && r != AVIARY_E_CANCELED && r != AVIARY_E_TIMEOUT, "and an upload: %s: %s",
	    aviary_code_name(r), aviary_op_error(up)->message);
	aviary_op_free(up);
	aviary_text_free(aviary_file_read_sync(sb, "/x", NULL, &e));
	ok(aviary_error_is(e.code, AVIARY_GROUP_SANDBOX), "then it is said: %s", e.message);
	aviary_sandbox_free(sb);
}

int main(void)
{
	aviary_client *c = sdk_client();
	aviary_sandbox *sb;
	struct flow f = {.total = 3 * MIB, .stall = true};
	aviary_client *other = sdk_client();
	aviary_op *op;

	test_whole(c);
	sb = sdk_sandbox(c);
	test_errors(c, sb);
	test_changes(sb);
	test_large(sb);
	test_backpressure(sb);
	test_broken_off(sb);
	test_descriptors(sb);
	test_many(sb);
	test_urls(sb);
	test_killed(c);
	{
		aviary_sandbox *same = aviary_sandbox_attach(other, aviary_sandbox_id(sb));

		op = aviary_file_download(same, "/root/s", take, &f, NULL);
		(void)aviary_op_wait(op, 200);
		aviary_client_free(other);
		is_int(aviary_op_code(op), AVIARY_E_CANCELED,
		    "a client that is freed ends its transfers");
		aviary_op_free(op);
		is_code(aviary_file_read(same, "/root/s", NULL), AVIARY_E_STATE);
		aviary_sandbox_free(same);
	}
	sdk_remove(sb);
	aviary_client_free(c);
	return tap_done();
}
