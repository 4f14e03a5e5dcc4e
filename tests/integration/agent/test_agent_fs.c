/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_agent_fs.c - filesystem.Filesystem of the real agent: entries, trees, listings
 */
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "lib/agent_client.h"
#include "lib/tap.h"
#include "proto/connect.h"

static struct agent_proc agent;
static struct agent_client cl;
static char dir[64] = "/tmp/aviary-fs-XXXXXX";

static const char *file(const char *name)
{
	static char text[2][512];
	static int turn;
	char *p = text[turn++ % 2];

	snprintf(p, sizeof(text[0]), "%s/%s", dir, name);
	return p;
}

/* method with {"path":"<dir>/<name>"<more>} */
static struct agent_stream *rpc(const char *method, const char *name, const char *more)
{
	char path[96], body[1024];
	const char *headers[] = {"content-type", "application/json", NULL};

	snprintf(path, sizeof(path), "/filesystem.Filesystem/%s", method);
	snprintf(body, sizeof(body), "{\"path\":\"%s\"%s}", file(name), more);
	return agent_call(&cl, "POST", path, headers, body);
}

static void check(
    const char *method, const char *name, const char *more, int status, const char *part)
{
	struct agent_stream *s = rpc(method, name, more);

	ok(s->status == status && agent_has(&s->body, part), "%s %s%s: %d %.*s", method, name, more,
	    s->status, AV_STR_ARG(av_buf_str(&s->body)));
	agent_stream_free(s);
}

static void make_file(const char *name, mode_t mode)
{
	int fd = open(file(name), O_CREAT | O_WRONLY | O_CLOEXEC, mode);

	if (fd < 0 || write(fd, "data", 4) != 4 || fchmod(fd, mode) < 0)
		abort();
	close(fd);
}

static void make_dir(const char *name)
{
	if (mkdir(file(name), 0755) < 0)
		abort();
}

static void make_link(const char *target, const char *name)
{
	if (symlink(target, file(name)) < 0)
		abort();
}

static void test_stat(void)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	make_file("plain", 0640);
	make_dir("sub");
	make_link("plain", "link");
	make_link("sub", "dirlink");
	make_link("nowhere", "dangling");
	make_link("loop", "loop");
	if (mkfifo(file("fifo"), 0600) < 0)
		abort();
	snprintf(a.sun_path, sizeof(a.sun_path), "%s", file("sock"));
	if (bind(fd, (struct sockaddr *)(void *)&a, sizeof(a)) < 0)
		abort();
	close(fd);
	check("Stat", "plain", "", 200, "\"type\":\"FILE_TYPE_FILE\"");
	check("Stat", "plain", "", 200,
	    "\"size\":\"4\",\"mode\":416,\"permissions\":\"-rw-r-----\",\"owner\":\"root\","
	    "\"group\":"
	    "\"root\",\"modifiedTime\":\"20");
	check("Stat", "sub", "", 200, "\"permissions\":\"drwxr-xr-x\"");
	check("Stat", "link", "", 200, "\"type\":\"FILE_TYPE_FILE\"");
	check("Stat", "link", "", 200, "\"mode\":416,\"permissions\":\"Lrwxrwxrwx\"");
	check("Stat", "link", "", 200, "/plain\"}}");
	check("Stat", "dirlink", "", 200, "\"type\":\"FILE_TYPE_DIRECTORY\"");
	check("Stat", "dangling", "", 200, "\"type\":\"FILE_TYPE_UNSPECIFIED\"");
	check("Stat", "dangling", "", 200, "\"symlinkTarget\":\"nowhere\"");
	check("Stat", "loop", "", 200, "\"symlinkTarget\":\"loop\"");
	check("Stat", "fifo", "", 200, "\"type\":\"FILE_TYPE_UNSPECIFIED\"");
	check("Stat", "sock", "", 200, "\"type\":\"FILE_TYPE_UNSPECIFIED\"");
	check("Stat", "missing", "", 404, "\"code\":\"not_found\"");
	check("Stat", "plain/x", "", 400, "\"code\":\"invalid_argument\"");
	check("Stat", "loop/x", "", 400, "\"code\":\"invalid_argument\"");
	check("Stat", "plain", ",\"user\":\"no-such\"", 401, "invalid username");
	check("Stat", "plain", ",\"user\":7", 400, "must be a string");
}

static void test_make_and_move(void)
{
	char more[256];
	struct stat st;

	check("MakeDir", "a/b/c", "", 200, "\"name\":\"c\"");
	ok(stat(file("a/b/c"), &st) == 0 && S_ISDIR(st.st_mode) && (st.st_mode & 07777) == 0755,
	    "it is there, 0755");
	check("MakeDir", "a/b/c", "", 409, "\"code\":\"already_exists\"");
	check("MakeDir", "dirlink", "", 409, "\"code\":\"already_exists\"");
	check("MakeDir", "plain", "", 400, "\"code\":\"invalid_argument\"");
	check("MakeDir", "plain/x", "", 400, "\"code\":\"invalid_argument\"");
	check("MakeDir", "dangling", "", 400, "\"code\":\"invalid_argument\"");
	snprintf(more, sizeof(more), ",\"source\":\"%s\",\"destination\":\"%s\"", file("plain"),
	    file("new/place/moved"));
	check("Move", "", more, 200, "\"name\":\"moved\"");
	ok(access(file("plain"), F_OK) < 0 && access(file("new/place/moved"), F_OK) == 0,
	    "moved, parents made");
	check("Move", "", more, 404, "\"code\":\"not_found\"");
	snprintf(more, sizeof(more), ",\"source\":\"%s\",\"destination\":\"%s\"", file("a"),
	    file("a/b/inside"));
	check("Move", "", more, 400, "into itself");
	check("Move", "", ",\"source\":\"/tmp\"", 400, "must both name a path");
	snprintf(
	    more, sizeof(more), ",\"source\":\"%s\",\"destination\":\"/dev/shm/x\"", file("a"));
	check("Move", "", more, 400, "different file systems");
}

static void test_remove(void)
{
	char name[64];

	for (int i = 0; i < 300; i++) {
		snprintf(name, sizeof(name), "tree/%d", i);
		check("MakeDir", name, "", 200, "");
		snprintf(name, sizeof(name), "tree/%d/%s", i, "file");
		make_file(name, 0600);
	}
	make_link("/etc", "tree/5/etc");
	check("Remove", "tree/7/file", "", 200, "{}");
	check("Remove", "tree", "", 200, "{}");
	ok(access(file("tree"), F_OK) < 0 && access("/etc/passwd", F_OK) == 0,
	    "the tree is gone, what a link led to is not");
	check("Remove", "dangling", "", 200, "{}");
	check("Remove", "fifo", "", 200, "{}");
	check("Remove", "missing", "", 200, "{}");
	check("Remove", "missing", ",\"mustExist\":true", 404, "does not exist");
	check("Remove", "../../..//", "", 400, "root directory");
}

static void make_deep(int levels)
{
	int fd = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);

	for (int i = 0; i < levels; i++) {
		int next;

		if (mkdirat(fd, "d", 0755) < 0)
			abort();
		next = openat(fd, "d", O_PATH | O_DIRECTORY | O_CLOEXEC);
		close(fd);
		fd = next;
	}
	close(fd);
}

static void test_deep(void)
{
	make_deep(1800);
	check("SetAttributes", "d", ",\"mode\":448,\"recursive\":true", 429, "more levels");
	check("Remove", "d", "", 200, "{}");
	ok(access(file("d"), F_OK) < 0, "a tree of 1800 levels is removed all the same");
}

static void test_attributes(void)
{
	struct stat st;

	make_dir("attr");
	make_dir("attr/sub");
	make_file("attr/sub/f", 0644);
	make_link("/etc/hostname", "attr/sub/out");
	check("SetAttributes", "attr/sub/f", ",\"mode\":384", 200, "{}");
	ok(stat(file("attr/sub/f"), &st) == 0 && (st.st_mode & 07777) == 0600, "mode of a file");
	check("SetAttributes", "attr", ",\"mode\":320,\"recursive\":true", 200, "{}");
	ok(stat(file("attr/sub"), &st) == 0 && (st.st_mode & 07777) == 0500 &&
	        stat(file("attr/sub/f"), &st) == 0 && (st.st_mode & 07777) == 0500 &&
	        stat("/etc/hostname", &st) == 0 && (st.st_mode & 0777) != 0500,
	    "of a tree, and not of what its links lead to");
	check("SetAttributes", "attr", ",\"mode\":65536", 400, "mode");
	check("SetAttributes", "attr", "", 400, "nothing to change");
	check("SetAttributes", "missing", ",\"mode\":384", 404, "does not exist");
	check("SetAttributes", "attr", ",\"owner\":\"no-such\"", 400, "no user 'no-such'");
	check("SetAttributes", "attr", ",\"group\":\"no-such\"", 400, "no group 'no-such'");
	if (geteuid() != 0)
		return;
	check("SetAttributes", "attr", ",\"owner\":\"nobody\",\"group\":\"3\",\"recursive\":true",
	    200, "{}");
	ok(lstat(file("attr/sub/out"), &st) == 0 && st.st_uid == 65534 && st.st_gid == 3 &&
	        stat("/etc/hostname", &st) == 0 && st.st_uid == 0,
	    "the owner of a tree, of its links and not of what they lead to");
	check("SetAttributes", "a", ",\"mode\":511,\"user\":\"nobody\"", 403, "not permitted");
	check("SetAttributes", "attr", ",\"owner\":\"root\",\"user\":\"nobody\"", 403,
	    "not permitted");
	check("Remove", "a", ",\"user\":\"nobody\"", 403, "Permission denied");
	check("MakeDir", "x", ",\"user\":\"nobody\"", 403, "Permission denied");
}

/* Names of a listing in the order they come, with the directory cut off, joined by blanks. */
static void list(const char *name, const char *more, int status, const char *want)
{
	struct agent_stream *s = rpc("ListDir", name, more);
	json_t *j = json_loadb(av_buf_str(&s->body).p, s->body.n, 0, NULL), *item;
	AV_CLEANUP(av_buf_clear) struct av_buf got = AV_BUF_INIT(65536);
	size_t i;

	json_array_foreach (json_object_get(j, "entries"), i, item)
		av_buf_printf(&got, "%s%s", i ? " " : "",
		    json_string_value(json_object_get(item, "path")) + strlen(file(name)) + 1);
	if (status != 200)
		ok(s->status == status && agent_has(&s->body, want), "ListDir %s: %d %.*s", name,
		    s->status, AV_STR_ARG(av_buf_str(&s->body)));
	else
		is_avstr(av_buf_str(&got), want, more);
	json_decref(j);
	agent_stream_free(s);
}

static void test_list(void)
{
	make_dir("l");
	make_dir("l/b");
	make_dir("l/b/x");
	if (mkdir(file("closed"), 0700) < 0)
		abort();
	make_dir("l/a");
	make_file("l/b/f", 0600);
	make_file("l/B", 0600);
	make_link("b", "l/to-b");
	make_link("nowhere", "l/dangling");
	list("l", "", 200, "B a b dangling to-b");
	list("l", ",\"depth\":0", 200, "B a b dangling to-b");
	list("l", ",\"depth\":2", 200, "B a b b/f b/x dangling to-b");
	list("l", ",\"depth\":4294967295", 200, "B a b b/f b/x dangling to-b");
	list("l/to-b", "", 200, "f x");
	list("l/a", "", 200, "");
	list("l/B", "", 400, "path is not a directory");
	list("missing", "", 404, "does not exist");
	list("loop", "", 400, "failed_precondition");
	list("l", ",\"depth\":-1", 400, "depth");
	list("l", ",\"depth\":\"1\"", 400, "depth");
	if (geteuid() == 0)
		list("closed", ",\"user\":\"nobody\"", 403, "Permission denied");
}

static int count_message(void *ctx, bool end, struct av_str payload)
{
	int *n = ctx;

	if (end)
		n[1] = payload.n == 2 ? 1 : -1;
	else
		n[0] += av_str_starts(payload, AV_STR("{\"entry\":{\"name\":"));
	return 0;
}

/* The stream that our daemon reads: many entries, and an error as a message. */
static void test_list_stream(void)
{
	const char *headers[] = {"content-type", "application/connect+json", NULL};
	struct av_connect_dec dec;
	char name[32], body[256];
	struct agent_stream *s;
	int n[2] = {0, 0};

	make_dir("many");
	for (int i = 0; i < 5000; i++) {
		snprintf(name, sizeof(name), "many/file-%d", i);
		make_file(name, 0600);
	}
	for (int round = 0; round < 2; round++) {
		AV_CLEANUP(av_buf_clear) struct av_buf out = AV_BUF_INIT(4096);

		snprintf(body, sizeof(body), "{\"path\":\"%s\"}", file(round ? "missing" : "many"));
		if (av_connect_write(&out, 0, av_str_c(body)) < 0)
			abort();
		s = agent_request(
		    &cl, "POST", "/filesystem.Filesystem/ListDir", headers, av_buf_str(&out), true);
		agent_wait_end(s);
		if (round) {
			ok(s->status == 200 && agent_has(&s->body, "\"code\":\"not_found\""),
			    "an error is a message");
		} else {
			av_connect_dec_init(&dec, 65536);
			ok(av_connect_dec_feed(&dec, av_buf_str(&s->body).p, s->body.n,
			       count_message, n) == (ssize_t)s->body.n,
			    "well-formed");
			av_connect_dec_clear(&dec);
			is_int(n[0], 5000, "entries");
			is_int(n[1], 1, "a good end");
		}
		agent_stream_free(s);
	}
	s = agent_request(
	    &cl, "POST", "/filesystem.Filesystem/ListDir", headers, AV_STR("\1junk"), true);
	agent_wait_end(s);
	is_int(s->status, 400, "junk instead of an envelope");
	agent_stream_free(s);
}

int main(void)
{
	if (!mkdtemp(dir) || chmod(dir, 0755) < 0)
		abort();
	agent_proc_start(&agent);
	agent_client_open(&cl, &agent);
	test_stat();
	test_make_and_move();
	test_remove();
	test_deep();
	test_attributes();
	test_list();
	test_list_stream();
	check("Remove", "", "", 200, "{}");
	ok(access(dir, F_OK) < 0, "cleaned up");
	agent_client_close(&cl);
	agent_proc_stop(&agent);
	return tap_done();
}
