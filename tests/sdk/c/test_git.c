/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_git.c - git in a sandbox, by exec alone: every method of other SDKs' git module
 */
#include <stdarg.h>

#include "tests/sdk/c/sdk.h"

#define WAIT_MS 60000

/* Starts `git WORD...` in cwd, which never asks anybody for anything. */
static aviary_process *start(
    aviary_sandbox *sb, const char *cwd, unsigned flags, const char *const *words, size_t n)
{
	static const aviary_pair envs[] = {{"GIT_TERMINAL_PROMPT", "0"}, {"HOME", "/root"}};
	aviary_exec_options o = AVIARY_EXEC_OPTIONS_INIT;

	o.command = (aviary_strings){words, n};
	o.envs = (aviary_pairs){envs, 2};
	o.cwd = cwd;
	o.flags = flags;
	return aviary_sandbox_exec(sb, &o);
}

/* The same to its end: its exit code, and its output in out (room for 4096 bytes) unless NULL. */
static int git(aviary_sandbox *sb, const char *cwd, char *out, ...)
{
	const char *words[16] = {"git"};
	const aviary_exec_result *r;
	aviary_process *p;
	aviary_error e;
	size_t n = 1;
	va_list ap;
	int code;

	va_start(ap, out);
	while (n < 16 && (words[n] = va_arg(ap, const char *)))
		n++;
	va_end(ap);
	p = start(sb, cwd, AVIARY_EXEC_CHECK | AVIARY_EXEC_COLLECT, words, n);
	r = aviary_await_process(p, &e);
	if (!r) {
		diag("git %s: %s", words[1], e.message);
		r = aviary_process_result(p);
	}
	code = r ? r->exit_code : -1;
	if (out)
		(void)snprintf(out, 4096, "%s", r ? r->out : "");
	aviary_process_free(p);
	return code;
}

static void put(aviary_sandbox *sb, const char *path, const char *text)
{
	aviary_error e;

	if (aviary_file_write_sync(sb, path, text, strlen(text), NULL, &e) != 0)
		ok(false, "%s: %s", path, e.message);
}

/* GitStatus and FileStatus: two letters and a path on each line. */
static void test_status(aviary_sandbox *sb)
{
	const char *const words[] = {"git", "status", "--porcelain"};
	const char *line;
	aviary_process *p;

	put(sb, "/root/w/a", "changed\n");
	put(sb, "/root/w/new", "new\n");
	p = start(sb, "/root/w", 0, words, 3);
	ok(aviary_process_read_line(p, AVIARY_STDOUT, &line, WAIT_MS) > 0 &&
	        strcmp(line, " M a\n") == 0,
	    "status: what was changed");
	ok(aviary_process_read_line(p, AVIARY_STDOUT, &line, WAIT_MS) > 0 &&
	        strcmp(line, "?? new\n") == 0,
	    "and what is new");
	is_int(aviary_process_read_line(p, AVIARY_STDOUT, &line, WAIT_MS), 0, "that is all");
	aviary_process_free(p);
}

static void test_first_commit(aviary_sandbox *sb)
{
	char out[4096];

	is_int(git(sb, "/root", NULL, "init", "--bare", "-b", "main", "/root/far.git", NULL), 0,
	    "init");
	is_int(git(sb, "/root", NULL, "clone", "-q", "/root/far.git", "/root/w", NULL), 0, "clone");
	is_int(git(sb, "/root/w", NULL, "config", "user.name", "Ada", NULL) +
	           git(sb, "/root/w", NULL, "config", "user.email", "ada@example.com", NULL),
	    0, "config");
	is_int(git(sb, "/root/w", out, "config", "--get", "user.name", NULL), 0, "asked for");
	is_str(out, "Ada\n", "is there");
	put(sb, "/root/w/a", "first\n");
	is_int(git(sb, "/root/w", NULL, "add", "a", NULL), 0, "add");
	is_int(git(sb, "/root/w", NULL, "commit", "-q", "-m", "one; $(not) a shell", NULL), 0,
	    "commit");
	is_int(git(sb, "/root/w", out, "log", "-1", "--format=%an %s", NULL), 0, "log");
	is_str(out, "Ada one; $(not) a shell\n", "words reach git as they are");
	is_int(git(sb, "/root/w", NULL, "push", "-q", "origin", "HEAD:main", NULL), 0, "push");
}

/* Two clones of one repository. */
static void test_remotes(aviary_sandbox *sb)
{
	char out[4096];

	is_int(git(sb, "/root", NULL, "init", "-q", "-b", "main", "/root/v", NULL), 0,
	    "another repository");
	is_int(git(sb, "/root/v", NULL, "remote", "add", "origin", "/root/far.git", NULL), 0,
	    "remote add");
	is_int(git(sb, "/root/v", out, "remote", "get-url", "origin", NULL), 0, "remote get-url");
	is_str(out, "/root/far.git\n", "says where");
	is_int(git(sb, "/root/v", NULL, "pull", "-q", "origin", "main", NULL), 0, "pull");
	is_int(git(sb, "/root/v", out, "show", "HEAD:a", NULL), 0, "show");
	is_str(out, "first\n", "what the other pushed");
}

static void test_branches(aviary_sandbox *sb)
{
	char out[4096];

	is_int(git(sb, "/root/v", NULL, "checkout", "-q", "-b", "side", NULL), 0, "checkout -b");
	is_int(git(sb, "/root/v", out, "branch", "--format=%(refname:short)", NULL), 0, "branch");
	is_str(out, "main\nside\n", "both");
	is_int(git(sb, "/root/v", NULL, "checkout", "-q", "main", NULL), 0, "checkout");
	is_int(git(sb, "/root/v", NULL, "branch", "-q", "-D", "side", NULL), 0, "branch -D");
	is_int(git(sb, "/root/v", out, "branch", "--show-current", NULL), 0, "branch");
	is_str(out, "main\n", "back");
}

static void test_undo(aviary_sandbox *sb)
{
	char out[4096];

	is_int(git(sb, "/root/w", NULL, "add", ".", NULL), 0, "all added");
	is_int(git(sb, "/root/w", NULL, "reset", "-q", NULL), 0, "reset");
	is_int(git(sb, "/root/w", NULL, "restore", "a", NULL), 0, "restore");
	is_int(git(sb, "/root/w", out, "status", "--porcelain", NULL), 0, "status");
	is_str(out, "?? new\n", "as it was, but for the new one");
}

/* A secret goes in by stdin: it is in no argument and in no environment. */
static void test_credentials(aviary_sandbox *sb)
{
	static const char secret[] =
	    "protocol=https\nhost=git.example\nusername=ada\npassword=s3cret\n\n";
	const char *const words[] = {"git", "credential", "approve"};
	aviary_process *p;
	aviary_error e;
	aviary_text *text;

	is_int(git(sb, "/root", NULL, "config", "--global", "credential.helper", "store", NULL), 0,
	    "a helper that keeps it");
	p = start(
	    sb, "/root", AVIARY_EXEC_CHECK | AVIARY_EXEC_STDIN | AVIARY_EXEC_COLLECT, words, 3);
	is_int(aviary_process_write(p, secret, sizeof(secret) - 1, WAIT_MS),
	    (int)sizeof(secret) - 1, "approve");
	is_int(aviary_process_close_stdin(p), 0, "that is all");
	if (!ok(aviary_await_process(p, &e), "is taken"))
		diag("%s", e.message);
	aviary_process_free(p);
	text = aviary_file_read_sync(sb, "/root/.git-credentials", NULL, &e);
	ok(text && strcmp(text->text, "https://ada:s3cret@git.example\n") == 0, "and kept");
	aviary_text_free(text);
}

static void test_failure(aviary_sandbox *sb)
{
	const char *const words[] = {"git", "clone", "/no/such/repository"};
	const aviary_exec_result *r;
	aviary_process *p = start(sb, "/root", AVIARY_EXEC_CHECK | AVIARY_EXEC_COLLECT, words, 3);
	aviary_error e;

	ok(!aviary_await_process(p, &e) && e.code == AVIARY_E_EXEC_FAILED,
	    "what fails is an error");
	ok(strstr(e.message, "repository"), "in git's words: %s", e.message);
	r = aviary_process_result(p);
	ok(r && r->exit_code == 128 && strstr(r->err, "/no/such/repository"), "with its result");
	aviary_process_free(p);
}

int main(void)
{
	aviary_client *c = sdk_client();
	aviary_sandbox *sb = sdk_sandbox(c);

	if (git(sb, "/", NULL, "--version", NULL) != 0) {
		sdk_remove(sb);
		aviary_client_free(c);
		tap_skip_all(false, "no git in the template");
	}
	test_first_commit(sb);
	test_remotes(sb);
	test_branches(sb);
	test_status(sb);
	test_undo(sb);
	test_credentials(sb);
	test_failure(sb);
	sdk_remove(sb);
	aviary_client_free(c);
	return tap_done();
}
