/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_log.c - log lines that nobody can forge or fill the disk with; messages to systemd
 */
#include "base/log.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/jsontext.h"
#include "base/notify.h"
#include "lib/tap.h"

static char text[1 << 20];
static int out;

/* What was logged since the last call. */
static size_t logged(void)
{
	ssize_t n = pread(out, text, sizeof(text) - 1, 0);
	text[n < 0 ? 0 : n] = '\0';
	if (n < 0 || ftruncate(out, 0) < 0 || lseek(out, 0, SEEK_SET) < 0)
		abort();
	return (size_t)n;
}

static bool is_printable_line(size_t n)
{
	for (size_t i = 0; i + 1 < n; i++)
		if (text[i] < 0x20 || text[i] > 0x7e)
			return false;
	return n > 0 && text[n - 1] == '\n';
}

static size_t lines(void)
{
	size_t n = 0;
	for (const char *p = text; (p = strchr(p, '\n')); p++)
		n++;
	return n;
}

static void hostile_values(bool json)
{
	static const char *const values[] = {"a\nfake line", "\x1b[2J\x1b]0;title\a",
	    "\"},{\"x\":\"",
	    "\xc2\x9b"
	    "31m",
	    "\xe2\x80\xae"
	    "txt.exe",
	    "\xff\xfe\xc3", "\x7f\b\r", "\\", "", "%s%n"};
	av_log_init("test", AV_LOG_INFO, json);
	for (size_t i = 0; i < sizeof(values) / sizeof(*values); i++) {
		av_log(AV_LOG_WARN, "hostile", "name", values[i], "other", "x", NULL);
		size_t n = logged();
		ok(is_printable_line(n), "one printable line of value %zu", i);
		ok(!json || av_json_valid(av_str_n(text, n)), "which is JSON, where it should be");
	}
	char all[256];
	for (int i = 0; i < 255; i++)
		all[i] = (char)(i + 1);
	all[255] = '\0';
	av_log(AV_LOG_WARN, "every byte", "value", all, "none", (const char *)NULL, NULL);
	size_t n = logged();
	ok(is_printable_line(n) && (!json || av_json_valid(av_str_n(text, n))),
	    "every byte there is");
	static char huge[100000];
	memset(huge, 'a', sizeof(huge) - 1);
	av_log(AV_LOG_WARN, "huge", "value", huge, "after", "seen", NULL);
	n = logged();
	ok(n < 2000 && strstr(text, "..(cut)") && strstr(text, "seen"), "a huge value is cut");
	memset(huge, 0xff, sizeof(huge) - 1);
	av_log(AV_LOG_WARN, "huge", "value", huge, NULL);
	n = logged();
	ok(n && is_printable_line(n), "also where each byte grows");
}

static void secrets(void)
{
	static const char key[] = "0123456789abcdef0123456789abcdef01234567";
	char value[256];
	av_log_init("test", AV_LOG_INFO, true);
	snprintf(value, sizeof(value), "/v1/x/av_%s/y?k=wrn_%s", key, key);
	av_log(AV_LOG_INFO, "path", "path", value, NULL);
	logged();
	ok(!strstr(text, "0123456789") && strstr(text, "/v1/x/av_(hidden)/y?k=wrn_(hidden)\""),
	    "keys are hidden");
	av_log(AV_LOG_INFO, "path", "error",
	    "token eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ1c2VyIn0.c2lnbmF0dXJl, says he", NULL);
	logged();
	ok(strstr(text, "\"token (hidden), says he\""), "tokens are hidden");
	av_log(AV_LOG_INFO, "path", "id", "sb_0123456789abcdef", "sum", key, "o", "eyJ", "e", "_",
	    NULL);
	logged();
	ok(strstr(text, "sb_0123456789abcdef") && strstr(text, key) && !strstr(text, "hidden"),
	    "ids and checksums are not");
}

static void repetition(void)
{
	av_log_init("test", AV_LOG_INFO, false);
	for (int i = 0; i < 1000; i++)
		av_log(AV_LOG_WARN, "over and over", "id", i % 2 ? "a" : "b", NULL);
	logged();
	is_int(lines(), AV_LOG_BURST_WARN, "a message is not repeated without end");
	ok(strstr(text, "left out for up to a minute"), "and the last line says so");
	av_log(AV_LOG_WARN, "another", NULL);
	ok(logged() > 0, "another one is logged");
	for (int i = 0; i < 2000; i++)
		av_log(AV_LOG_INFO, "over and over", NULL);
	logged();
	is_int(lines(), AV_LOG_BURST_INFO, "at info there may be more");
	char message[32];
	for (int i = 0; i < 10000; i++) {
		snprintf(message, sizeof(message), "number %d", i);
		av_log(AV_LOG_WARN, message, NULL);
		if (i % 1000 == 0)
			logged();
	}
	ok(logged() < 1000 * 60, "more messages than there are places for do not get around it");
}

static void levels(void)
{
	av_log_init("test", AV_LOG_WARN, false);
	av_log(AV_LOG_INFO, "not wanted", NULL);
	is_int(logged(), 0, "below the level");
	av_log_set_level(AV_LOG_DEBUG);
	for (int i = 0; i < 700; i++)
		av_log(AV_LOG_DEBUG, "wanted now", NULL);
	logged();
	is_int(lines(), 700, "another level; debug has no bound");
}

static void journal(void)
{
	struct stat st;
	char value[64];
	if (fstat(STDERR_FILENO, &st) < 0)
		abort();
	snprintf(value, sizeof(value), "%llu:%llu", (unsigned long long)st.st_dev,
	    (unsigned long long)st.st_ino);
	setenv("JOURNAL_STREAM", value, 1);
	av_log_init("test", AV_LOG_INFO, true);
	av_log(AV_LOG_ERROR, "for the journal", NULL);
	logged();
	ok(strncmp(text, "<3>{", 4) == 0, "the journal is told the priority");
	setenv("JOURNAL_STREAM", "1:1", 1);
	av_log_init("test", AV_LOG_INFO, true);
	av_log(AV_LOG_ERROR, "for a file", NULL);
	logged();
	ok(text[0] == '{', "nobody else is");
	unsetenv("JOURNAL_STREAM");
}

static int bind_at(const char *name, bool abstract)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	size_t n = strlen(name);
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	memcpy(a.sun_path + abstract, name, n);
	if (fd < 0 || bind(fd, (struct sockaddr *)&a,
	                  (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n + abstract)) < 0)
		abort();
	return fd;
}

static void notify_at(const char *variable, int fd)
{
	struct av_notify n;
	char got[600];
	setenv("NOTIFY_SOCKET", variable, 1);
	setenv("WATCHDOG_USEC", "3000000", 1);
	av_notify_open(&n);
	ok(n.fd >= 0 && n.watchdog_ns == 3000000000, "%s: a socket and a watchdog", variable);
	ok(!getenv("NOTIFY_SOCKET") && !getenv("WATCHDOG_USEC"), "which no child sees");
	av_notify(&n, "READY=1\nMAINPID=%d", 7);
	ssize_t len = recv(fd, got, sizeof(got) - 1, 0);
	got[len < 0 ? 0 : len] = '\0';
	is_str(got, "READY=1\nMAINPID=7", "the message");
	memset(got, 'x', sizeof(got));
	av_notify(&n, "%.600s", got);
	ok(recv(fd, got, sizeof(got), 0) < 0, "one that is too long is not sent");
	close(fd);
	av_notify(&n, "nobody is there"); /* and nothing happens */
	av_notify_close(&n);
}

static void notify(void)
{
	struct av_notify n;
	char dir[] = "/tmp/aviary-notify-XXXXXX", path[64], abstract[64];
	if (!mkdtemp(dir))
		abort();
	snprintf(path, sizeof(path), "%s/socket", dir);
	snprintf(abstract, sizeof(abstract), "@aviary-test-%d", (int)getpid());
	notify_at(path, bind_at(path, false));
	notify_at(abstract, bind_at(abstract + 1, true));
	unlink(path);
	rmdir(dir);
	av_notify_open(&n);
	ok(n.fd < 0 && n.watchdog_ns == 0, "nobody to tell");
	av_notify(&n, "READY=1");
	setenv("NOTIFY_SOCKET", "relative", 1);
	av_notify_open(&n);
	ok(n.fd < 0, "no path");
	setenv("NOTIFY_SOCKET", path, 1);
	setenv("WATCHDOG_USEC", "1000000", 1);
	setenv("WATCHDOG_PID", "1", 1);
	av_notify_open(&n);
	ok(n.fd >= 0 && n.watchdog_ns == 0, "another process's watchdog");
	av_notify_close(&n);
}

int main(void)
{
	char path[] = "/tmp/aviary-log-XXXXXX";
	out = mkstemp(path);
	if (out < 0 || dup2(out, STDERR_FILENO) < 0)
		return 1;
	unlink(path);
	hostile_values(false);
	hostile_values(true);
	secrets();
	levels();
	journal();
	notify();
	repetition();
	return tap_done();
}
