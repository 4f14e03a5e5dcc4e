/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_agent_files.c - uploads and downloads of the real agent
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/avtime.h"
#include "base/fd.h"
#include "base/num.h"
#include "lib/agent_client.h"
#include "lib/tap.h"

/* Memory of an instrumented agent says nothing. */
#if defined(__SANITIZE_ADDRESS__)
#define INSTRUMENTED true
#elif defined(__has_feature)
#define INSTRUMENTED __has_feature(address_sanitizer)
#else
#define INSTRUMENTED false
#endif

static struct agent_proc agent;
static struct agent_client cl;
static char dir[64] = "/dev/shm/aviary-files-XXXXXX"; /* tmpfs, for the speed diagnostics */
static const char *const octets[] = {"content-type", "application/octet-stream", NULL};

/* "/files?path=<dir>/<name><more>" */
static const char *url(const char *name, const char *more)
{
	static char text[512];

	snprintf(text, sizeof(text), "/files?path=%s/%s%s", dir, name, more);
	return text;
}

static const char *file(const char *name)
{
	static char text[512];

	snprintf(text, sizeof(text), "%s/%s", dir, name);
	return text;
}

static struct agent_stream *put(const char *name, struct av_str body)
{
	struct agent_stream *s = agent_request(&cl, "POST", url(name, ""), octets, body, true);

	agent_wait_end(s);
	return s;
}

static void test_round_trip(void)
{
	size_t n = 5 * 1024 * 1024 + 17;
	char *data = malloc(n);
	struct agent_stream *s;
	char want[256];
	struct stat st;

	for (size_t i = 0; i < n; i++)
		data[i] = (char)(i * 2654435761u >> 13);
	s = put("a/b/big", av_str_n(data, n));
	is_int(s->status, 200, "upload");
	snprintf(want, sizeof(want),
	    "[{\"name\":\"big\",\"path\":\"%s/a/b/big\",\"type\":\"file\"}]", dir);
	is_avstr(av_buf_str(&s->body), want, "its answer");
	agent_stream_free(s);
	ok(stat(file("a/b"), &st) == 0 && (st.st_mode & 0777) == 0755, "parents were made");
	s = agent_call(&cl, "GET", url("a/b/big", ""), NULL, NULL);
	ok(s->status == 200 && s->head.content_length == (int64_t)n && s->ended, "download");
	is_bytes(av_buf_str(&s->body), av_str_n(data, n), "the same bytes");
	agent_stream_free(s);
	s = put("a/b/big", AV_STR("short"));
	agent_stream_free(s);
	ok(stat(file("a/b/big"), &st) == 0 && st.st_size == 5 && (st.st_mode & 0777) == 0644,
	    "an upload replaces the content");
	s = put("empty", AV_STR(""));
	is_int(s->status, 200, "an empty file");
	agent_stream_free(s);
	s = agent_call(&cl, "GET", url("empty", ""), NULL, NULL);
	ok(s->status == 200 && s->head.content_length == 0 && s->ended && s->body.n == 0,
	    "comes back");
	agent_stream_free(s);
	free(data);
}

static void check_range(const char *range, int status, const char *want)
{
	const char *headers[] = {"range", range, NULL};
	struct agent_stream *s = agent_call(&cl, "GET", url("digits", ""), headers, NULL);

	ok(s->status == status && av_str_eq(av_buf_str(&s->body), av_str_c(want)),
	    "range %s: %d \"%.*s\"", range, s->status, AV_STR_ARG(av_buf_str(&s->body)));
	agent_stream_free(s);
}

static void test_range(void)
{
	agent_stream_free(put("digits", AV_STR("0123456789")));
	check_range("bytes=2-4", 206, "234");
	check_range("bytes=7-", 206, "789");
	check_range("bytes=-3", 206, "789");
	check_range("bytes=-30", 206, "0123456789");
	check_range("bytes=5-500", 206, "56789");
	check_range("bytes=10-", 416, "");
	check_range("bytes=-0", 416, "");
	check_range("bytes=4-2", 200, "0123456789");
	check_range("bytes=1-2,4-5", 200, "0123456789");
	check_range("bytes=99999999999999999999-", 200, "0123456789");
	check_range("lines=1-2", 200, "0123456789");
}

static void check_get(const char *target, int status, const char *part)
{
	struct agent_stream *s = agent_call(&cl, "GET", target, NULL, NULL);

	ok(s->status == status && agent_has(&s->body, part), "GET %s: %d %.*s", target, s->status,
	    AV_STR_ARG(av_buf_str(&s->body)));
	agent_stream_free(s);
}

static void test_refusals(void)
{
	struct agent_stream *s;
	struct stat st;

	check_get(url("nope", ""), 404, "does not exist");
	check_get(url("a", ""), 400, "is a directory");
	check_get("/files?path=/dev/null", 400, "not a regular file");
	check_get("/files?path=/tmp%00x", 400, "malformed");
	check_get("/files?path=/etc/hostname&username=no-such", 401, "unknown user no-such");
	check_get("/files?path=/proc/self/exe", 400, "symbolic links");
	if (mkfifo(file("fifo"), 0666) < 0)
		abort();
	check_get(url("fifo", ""), 400, "not a regular file");
	s = put("fifo", AV_STR("x"));
	is_int(s->status, 400, "upload into a FIFO nobody reads");
	agent_stream_free(s);
	s = put("a", AV_STR("x"));
	ok(s->status == 400 && agent_has(&s->body, "path is a directory"),
	    "upload onto a directory");
	agent_stream_free(s);
	s = put("digits/x", AV_STR("x"));
	is_int(s->status, 400, "a file as a directory");
	agent_stream_free(s);
	s = agent_call(&cl, "POST", "/files?path=/proc/sys/kernel/hostname", octets, "x");
	is_int(s->status, 400, "procfs is not for uploads");
	agent_stream_free(s);
	s = agent_call(&cl, "POST", "/files", octets, "x");
	ok(s->status == 400 && agent_has(&s->body, "path query parameter is required"),
	    "raw without a path");
	agent_stream_free(s);
	s = agent_call(&cl, "POST", url("x", ""), NULL, "x");
	is_int(s->status, 400, "no content type");
	agent_stream_free(s);
	ok(stat(file("x"), &st) < 0, "nothing was made");
}

/* A link that leads to a place the user may not write must not help. */
static void test_users(void)
{
	struct agent_stream *s;
	struct stat st;

	if (geteuid() != 0)
		return;
	if (mkdir(file("home"), 0700) < 0 || chown(file("home"), 65534, 65534) < 0 ||
	    chmod(dir, 0755) < 0)
		abort();
	s = agent_call(&cl, "POST", url("home/mine", "&username=nobody"), octets, "x");
	ok(s->status == 200 && stat(file("home/mine"), &st) == 0 && st.st_uid == 65534 &&
	        st.st_gid == 65534,
	    "a file belongs to the user who uploads it");
	agent_stream_free(s);
	s = agent_call(&cl, "POST", url("digits", "&username=nobody"), octets, "x");
	is_int(s->status, 403, "the user may not write root's file");
	agent_stream_free(s);
	if (symlink("/root", file("home/link")) < 0)
		abort();
	s = agent_call(&cl, "POST", url("home/link/x", "&username=nobody"), octets, "x");
	is_int(s->status, 403, "nor through a link");
	agent_stream_free(s);
	check_get("/files?path=/etc/shadow&username=nobody", 403, "Permission denied");
	s = agent_call(&cl, "POST", url("again", ""), octets, "x");
	ok(s->status == 200 && stat(file("again"), &st) == 0 && st.st_uid == 0,
	    "afterwards the threads are root again");
	agent_stream_free(s);
}

static void test_procfs(void)
{
	struct agent_stream *s = agent_call(&cl, "GET", "/files?path=/proc/cpuinfo", NULL, NULL);

	ok(s->status == 200 && s->body.n > 100 && s->head.content_length == -1,
	    "a file without a size is read to its end");
	agent_stream_free(s);
}

static void test_multipart(void)
{
	static const char *const headers[] = {
	    "content-type", "multipart/form-data; boundary=XX", NULL};
	struct agent_stream *s;
	char body[1024], target[256];
	struct stat st;

	snprintf(body, sizeof(body),
	    "--XX\r\nContent-Disposition: form-data; name=\"file\"; "
	    "filename=\"%s/m1\"\r\n\r\none\r\n"
	    "--XX\r\nContent-Disposition: form-data; name=\"other\"\r\n\r\nskipped\r\n"
	    "--XX\r\nContent-Disposition: form-data; name=\"file\"; "
	    "filename=\"%s/sub/m2\"\r\n\r\ntwo!\r\n--XX--\r\n",
	    dir, dir);
	s = agent_call(&cl, "POST", "/files", headers, body);
	ok(s->status == 200 && agent_has(&s->body, "\"m1\"") && agent_has(&s->body, "/sub/m2\""),
	    "two files");
	agent_stream_free(s);
	ok(stat(file("m1"), &st) == 0 && st.st_size == 3, "the first");
	ok(stat(file("sub/m2"), &st) == 0 && st.st_size == 4, "the second");
	snprintf(target, sizeof(target), "/files?path=%s/m3", dir);
	s = agent_call(&cl, "POST", target, headers,
	    "--XX\r\nContent-Disposition: form-data; name=\"file\"\r\n\r\nfile "
	    "content\r\n--XX--\r\n");
	ok(s->status == 200 && stat(file("m3"), &st) == 0 && st.st_size == 12,
	    "a part without filename");
	agent_stream_free(s);
	snprintf(body, sizeof(body),
	    "--XX\r\nContent-Disposition: form-data; name=\"file\"; "
	    "filename=\"%s/m4\"\r\n\r\none\r\n"
	    "--XX\r\nContent-Disposition: form-data; name=\"file\"; "
	    "filename=\"%s/./m4\"\r\n\r\ntwo\r\n--XX--\r\n",
	    dir, dir);
	s = agent_call(&cl, "POST", "/files", headers, body);
	ok(s->status == 400 && agent_has(&s->body, "twice"), "one target twice");
	agent_stream_free(s);
	s = agent_call(&cl, "POST", "/files", headers, "--XX\r\nbroken");
	is_int(s->status, 400, "a body that is not multipart");
	agent_stream_free(s);
	s = agent_call(&cl, "POST", "/files", headers, "--XX--\r\n");
	ok(s->status == 200 && agent_has(&s->body, "[]"), "no file at all");
	agent_stream_free(s);
}

static void test_abort(void)
{
	char chunk[65536] = {0};
	struct agent_stream *s;
	struct stat st;

	agent_stream_free(put("old", AV_STR("old content")));
	for (int i = 0; i < 2; i++) {
		const char *name = i ? "old" : "fresh";

		s = agent_request(
		    &cl, "POST", url(name, ""), octets, av_str_n(chunk, sizeof(chunk)), false);
		agent_pump_for(&cl, 100);
		ok(stat(file(name), &st) == 0 && st.st_size > 0, "half of %s is there", name);
		agent_reset(s);
		agent_stream_free(s);
		agent_pump_for(&cl, 100);
	}
	ok(stat(file("fresh"), &st) < 0 && errno == ENOENT, "an aborted new file is removed");
	ok(stat(file("old"), &st) == 0 && st.st_size == 0, "an aborted overwrite leaves no half");
}

/* E2B's clients count them: CREATE, then CHMOD (the chown), then WRITE. */
static void test_events(void)
{
	AV_CLEANUP(av_closep) int fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
	char buf[4096] __attribute__((aligned(8)));
	uint32_t seen[8] = {0};
	size_t n = 0;
	ssize_t len;

	if (fd < 0 ||
	    inotify_add_watch(fd, dir,
	        IN_CREATE | IN_MOVED_TO | IN_MODIFY | IN_ATTRIB | IN_MOVED_FROM | IN_DELETE) < 0)
		abort();
	agent_stream_free(put("watched", AV_STR("some content")));
	len = read(fd, buf, sizeof(buf));
	for (ssize_t at = 0; at < len && n < 8;) {
		struct inotify_event e;

		memcpy(&e, buf + at, sizeof(e));
		seen[n++] = e.mask;
		at += (ssize_t)sizeof(e) + e.len;
	}
	ok(n == 3 && seen[0] == IN_CREATE && seen[1] == IN_ATTRIB && seen[2] == IN_MODIFY,
	    "a small upload is create, chown, one write (%zu events)", n);
}

static void test_parallel(void)
{
	struct agent_stream *held[40];
	char name[32];

	/* More half-sent uploads than the connection's window has room for in blocks. */
	for (int i = 0; i < 40; i++) {
		static char chunk[200000];

		snprintf(name, sizeof(name), "par%d", i);
		held[i] = agent_request(
		    &cl, "POST", url(name, ""), octets, av_str_n(chunk, sizeof(chunk)), false);
	}
	agent_pump_for(&cl, 100);
	for (int i = 0; i < 40; i++)
		agent_end(held[i]);
	for (int i = 0; i < 40; i++) {
		agent_wait_end(held[i]);
		if (held[i]->status != 200)
			ok(false, "parallel upload %d: %d", i, held[i]->status);
		agent_stream_free(held[i]);
	}
	ok(true, "40 uploads at a time");
}

/* Anonymous memory of the agent. */
static long private_kib(void)
{
	char path[64], text[4096], *p;
	uint64_t kib = 0;
	struct av_str number;

	snprintf(path, sizeof(path), "/proc/%d/smaps_rollup", (int)agent.pid);
	if (av_read_file_at(AT_FDCWD, path, text, sizeof(text)) < 0)
		return -1;
	p = strstr(text, "Anonymous:");
	if (!p)
		return -1;
	number = av_str_trim(av_str_n(p + 10, strcspn(p + 10, "k")));
	return av_parse_u64(number, 0, INT32_MAX, &kib) == 0 ? (long)kib : -1;
}

static void measure(void)
{
	static char chunk[1024 * 1024];
	int64_t total = 256 * 1024 * 1024, begin = av_mono_ns();
	struct agent_stream *s =
	    agent_request(&cl, "POST", url("bulk", ""), octets, AV_STR(""), false);
	long peak = 0, now;

	for (int64_t sent = 0; sent < total; sent += (int64_t)sizeof(chunk)) {
		agent_send(s, chunk, sizeof(chunk));
		while (av_http2_buffered(s->stream) > sizeof(chunk))
			agent_pump(&cl, 100);
	}
	agent_end(s);
	agent_wait_end(s);
	diag("upload of 256 MiB to tmpfs: %d MB/s", (int)(total * 1000 / (av_mono_ns() - begin)));
	now = private_kib();
	peak = now > peak ? now : peak;
	agent_stream_free(s);
	begin = av_mono_ns();
	s = agent_request(&cl, "GET", url("bulk", ""), NULL, AV_STR(""), true);
	s->discard = true;
	agent_wait_end(s);
	diag("download: %d MB/s", (int)(total * 1000 / (av_mono_ns() - begin)));
	is_int(s->received, total, "256 MiB up and down");
	now = private_kib();
	peak = now > peak ? now : peak;
	agent_stream_free(s);
	if (INSTRUMENTED)
		return;
	ok(peak > 0 && peak < 8192, "in constant memory (%ld KiB)", peak);
	agent_pump_for(&cl, 1300);
	now = private_kib();
	ok(now > 0 && now < 512, "which is given back (%ld KiB)", now);
}

int main(void)
{
	char command[128];

	if (!mkdtemp(dir))
		tap_skip_all(false, "no tmpfs at /dev/shm");
	agent_proc_start(&agent);
	agent_client_open(&cl, &agent);
	test_round_trip();
	test_range();
	test_refusals();
	test_users();
	test_procfs();
	test_multipart();
	test_abort();
	test_events();
	test_parallel();
	measure();
	snprintf(command, sizeof(command),
	    "{\"process\":{\"cmd\":\"rm\",\"args\":[\"-rf\",\"%s\"]}}", dir);
	struct agent_result r;
	agent_run(&cl, command, &r);
	ok(access(dir, F_OK) < 0, "cleaned up");
	agent_result_clear(&r);
	agent_client_close(&cl);
	agent_proc_stop(&agent);
	return tap_done();
}
