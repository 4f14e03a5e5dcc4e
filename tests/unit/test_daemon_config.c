/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_daemon_config.c - where options come from, what is refused, and what the supervisor gets
 */
#include "daemon/config.h"

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/jsontext.h"
#include "daemon/config_show.h"
#include "daemon/launch.h"
#include "lib/tap.h"
#include "base/banned.h"

static struct daemon_config c;
static struct av_err err;
static char dir[] = "/tmp/aviary-config-XXXXXX", file[64];

/* The flags, ended by NULL. */
static int load(const char *const *flags)
{
	char *argv[32] = {(char *)(uintptr_t) "aviaryd"};
	int argc = 1;

	for (; *flags; flags++)
		argv[argc++] = (char *)(uintptr_t)*flags;
	daemon_config_clear(&c);
	av_err_clear(&err);
	return daemon_config_load(&c, argc, argv, &err);
}
#define LOAD(...) load((const char *const[]){__VA_ARGS__, NULL})

static void write_file(const char *text)
{
	int fd = open(file, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	if (fd < 0 || av_write_full(fd, text, strlen(text)) < 0)
		abort();
	(void)close(fd);
}

static void refused(const char *text, const char *part)
{
	write_file(text);
	ok(LOAD("--config", file) < 0, "refused: %s", part);
	ok(strstr(err.message, part) != NULL, "and said so: %s", err.message);
}

static void test_order(void)
{
	write_file("# comment\n\nlisten = 127.0.0.1:1001 # ours\r\nlog-level=debug\n");
	(void)setenv("AVIARY_LISTEN", "127.0.0.1:1002", 1);
	is_int(
	    LOAD("--config", file, "--listen", "127.0.0.1:1003"), 0, "flag, environment and file");
	is_int(c.listen_port, 1003, "the flag wins");
	is_int(LOAD("--config", file), 0, "environment and file");
	is_int(c.listen_port, 1002, "the environment wins");
	(void)unsetenv("AVIARY_LISTEN");
	is_int(LOAD("--config", file), 0, "file");
	is_int(c.listen_port, 1001, "the file's");
	is_int(c.log_level, AV_LOG_DEBUG, "log level of the file");
	is_int(LOAD("--config=/dev/null"), 0, "nothing but defaults");
	is_int(c.listen_port, 7878, "the default");
	ok(daemon_config_get(&c, DAEMON_OPT_STATE)[0] == '/', "a state directory");
	ok(daemon_config_get(&c, DAEMON_OPT_RUN)[0] == '/', "a run directory");
	(void)setenv("AVIARY_LISTEN", "nonsense", 1);
	is_int(LOAD("--spawn-socket", "/s", "--state", "/x", "--run", "/y"), 0,
	    "the daemon proper reads flags only");
	ok(c.is_daemon, "and knows it");
	(void)unsetenv("AVIARY_LISTEN");
}

static void test_refused(void)
{
	refused(
	    "listen = 127.0.0.1:1\nlisten = 127.0.0.1:2\n", "aviary.conf:2: 'listen' is set twice");
	refused("\n\nlisen = 127.0.0.1:1\n",
	    "aviary.conf:3: unknown key 'lisen' (did you mean 'listen'?)");
	refused("print-ready = yes\n", "unknown key 'print-ready'");
	refused("listen\n", "expected 'key = value'");
	refused("state =\n", "'state' has no value");
	refused("state = here\n", "aviary.conf:1: 'here' must be an absolute path");
	refused("log-level = loud\n", "'loud' is none of");
	refused("otlp-ratio = 1.5\n", "from 0 to 1");
	refused("otlp-ratio = -1\n", "'-1' is not a share");
	refused("insecure-http = maybe\n", "'maybe' is neither yes nor no");
	refused("listen = 0.0.0.0:80\n", "--insecure-http");
	ok(LOAD("--config", "/nonexistent/x") < 0, "a file that was asked for must be there");
	ok(LOAD("--lisen", "x") < 0 && strstr(err.message, "did you mean --listen"), "wrong flag");
	ok(LOAD("--listen") < 0 && strstr(err.message, "needs a value"), "missing value");
	ok(LOAD("listen") < 0, "no free arguments");
	ok(LOAD("--credentials-fd", "1") < 0, "descriptor out of range");
	is_int(LOAD("--listen", "0.0.0.0:80", "--insecure-http"), 0, "allowed when asked for");
	is_int(LOAD("--help", "--version"), 0, "help works without more");
}

static void test_public_url(void)
{
	is_int(LOAD("--config=/dev/null"), 0, "without one");
	ok(!c.public_url, "none");
	is_int(LOAD("--public-url", "https://av.example:8443/"), 0, "with a slash at its end");
	is_str(c.public_url, "https://av.example:8443", "without it");
	is_int(LOAD("--public-url", "http://192.168.1.5"), 0, "an address");
	refused("public-url = av.example\n", "not the address of a server");
	refused("public-url = https://\n", "not the address of a server");
	refused("public-url = https://av.example/path\n", "not the address of a server");
	refused("public-url = https://a@av.example\n", "not the address of a server");
	refused("public-url = https://av.example:0\n", "not the address of a server");
	refused("public-url = ftp://av.example\n", "aviary.conf:1");
}

static void test_listen(void)
{
	static const char *const bad[] = {"", "1", ":1", "127.0.0.1",
	    "127.0.0.1:", "127.0.0.1:65536", "127.0.0.1:x", "::1:80", "[::1]", "[::1",
	    "[127.0.0.1]:1", "example.com:80", "127.0.0.1:1:2", "127.0.0.1:+1"};
	char host[64];
	uint16_t port;

	for (size_t i = 0; i < AV_ARRAY_LEN(bad); i++)
		ok(daemon_parse_listen(bad[i], host, &port, &err) < 0, "refused: '%s'", bad[i]);
	is_int(daemon_parse_listen("[::1]:0", host, &port, &err), 0, "IPv6");
	is_str(host, "::1", "without brackets");
	is_int(daemon_parse_listen("localhost:9", host, &port, &err), 0, "localhost");
	is_str(host, "127.0.0.1", "is IPv4's loopback");
	ok(daemon_host_is_loopback("127.8.9.1") && daemon_host_is_loopback("::1"), "loopback");
	ok(!daemon_host_is_loopback("128.0.0.1") && !daemon_host_is_loopback("::"), "not loopback");
}

static void test_tls(void)
{
	char **argv = NULL;
	size_t lend = 0, given = 0;

	refused("tls-cert = /c\n", "aviary.conf:1 is given and --tls-key is not");
	refused("tls-key = /k\n", "--tls-cert is not");
	refused("tls-key = k\ntls-cert = /c\n", "must be an absolute path");
	refused("tls-key = /k\ntls-cert = /c\npublic-url = http://a.example\n", "write https://");
	is_int(LOAD("--config=/dev/null", "--tls-cert=/c", "--tls-key=/k", "--listen=0.0.0.0:1",
	           "--domain=a.example"),
	    0, "with TLS every address will do");
	ok(c.tls && c.ports_tls && !c.insecure_http, "ports are served with TLS then");
	is_str(c.ports_domain, "a.example", "below the domain");
	is_int(
	    daemon_launch_argv(&c, &(struct daemon_user){0}, "/s", "/d", &argv, &err), 0, "argv");
	for (size_t i = 0; argv[i]; i++) {
		lend += strcmp(argv[i], "--lend") == 0 && argv[i + 1][0] == '/';
		given += strcmp(argv[i], "--tls-cert") == 0 || strcmp(argv[i], "--tls-key") == 0;
	}
	is_int((long long)lend, 2, "the supervisor lends two files");
	is_int((long long)given, 2, "whose names the daemon knows");
	daemon_launch_argv_free(argv);
}

static void test_launch(void)
{
	const struct daemon_user user = {.uid = 71, .gid = 72};
	static const char *const want[] = {"/l/aviary-spawn", "--state", "/s", "--run", "/r",
	    "--credentials", "/c", "--disk", "btrfs", "--log-level", "info", "--log-json",
	    "--daemon-uid", "71", "--daemon-gid", "72", "--daemon", "/b/aviaryd", "--", "--listen",
	    "127.0.0.1:0", "--state", "/s", "--run", "/r", "--credentials", "/c", "--log-format",
	    "json", "--log-level", "info", "--default-isolation", "jail", "--pool", "8",
	    "--pool-memory", "256M", "--vm-pool", "2", "--vm-pool-memory", "256M", "--vm-goldens",
	    "16", "--webhook-private", "no", "--telegram-url", "https://api.telegram.org",
	    "--audit-days", "90", "--audit-max", "1000000", "--main-log", "1M", "--main-logs-total",
	    "256M", "--signup", "activation", "--otlp-service", "aviary", "--otlp-ratio", "1",
	    "--github-url", "https://github.com", "--github-api-url", "https://api.github.com",
	    "--print-ready"};
	char **argv = NULL;
	size_t n = 0;

	is_int(LOAD("--config=/dev/null", "--state=/s", "--run=/r", "--credentials=/c",
	           "--listen=127.0.0.1:0", "--print-ready", "--disk=btrfs", "--log-format=json"),
	    0, "options");
	is_int(
	    daemon_launch_argv(&c, &user, "/l/aviary-spawn", "/b/aviaryd", &argv, &err), 0, "argv");
	while (argv[n]) {
		if (n < AV_ARRAY_LEN(want))
			is_str(argv[n], want[n], "argument");
		n++;
	}
	is_int((long long)n, AV_ARRAY_LEN(want), "as many as expected");
	daemon_launch_argv_free(argv);
}

static void test_show(void)
{
	AV_CLEANUP(av_buf_clear) struct av_buf text = AV_BUF_INIT(1 << 16);
	AV_CLEANUP(av_buf_clear) struct av_buf json = AV_BUF_INIT(1 << 16);
	AV_CLEANUP(av_buf_clear) struct av_buf example = AV_BUF_INIT(1 << 16);

	write_file("log-level = warn\nsmtp-url = smtp://user:s3cr3t@mail.example.com:587\n");
	(void)setenv("AVIARY_POOL", "3", 1);
	is_int(LOAD("--config", file, "--state", "/s\"\n"), 0, "a flag, a variable, a file");
	(void)unsetenv("AVIARY_POOL");
	is_int(daemon_config_show(&c, "text", &text, &err), 0, "as a table");
	(void)av_buf_append_char(&text, '\0');
	const char *t = av_buf_str(&text).p;
	ok(strstr(t, "\npool                 3                                AVIARY_POOL\n"),
	    "a variable's");
	ok(strstr(t, "aviary.conf:1\n") && strstr(t, "--state\n") && strstr(t, "default\n"),
	    "a file's with its line, a flag's, a default");
	ok(!strstr(t, "s3cr3t") && strstr(t, "smtp://(hidden)@mail.example.com:587"),
	    "no secret is shown");
	is_int(daemon_config_show(&c, "json", &json, &err), 0, "as JSON");
	ok(av_json_valid(av_buf_str(&json)), "which it is, whatever the values are");
	ok(daemon_config_show(&c, "xml", &json, &err) < 0, "as nothing else");
	is_int(daemon_config_show(&c, "example", &example, &err), 0, "as an example");
	(void)av_buf_append_char(&example, '\0');
	write_file(av_buf_str(&example).p);
	is_int(LOAD("--config", file), 0, "that can be read");
}

static void test_check(void)
{
	AV_CLEANUP(av_buf_clear) struct av_buf out = AV_BUF_INIT(1 << 16);
	unsigned int problems;

	write_file("lisen = x\npool = x\n\nlog-level = loud\nlog-level = info\njust words\n");
	is_int(daemon_config_check(file, &out, &problems, &err), 0, "a file full of mistakes");
	ok(problems >= 5, "all of them: %u", problems);
	(void)av_buf_append_char(&out, '\0');
	const char *t = av_buf_str(&out).p;
	ok(strstr(t, "aviary.conf:1: unknown key 'lisen' (did you mean 'listen'?)") &&
	        strstr(t, "aviary.conf:2: 'x' is not a number") &&
	        strstr(t, "aviary.conf:4: 'loud'") &&
	        strstr(t, "aviary.conf:5: 'log-level' is set twice") &&
	        strstr(t, "aviary.conf:6: expected"),
	    "each with its line");
	ok(daemon_config_check("/nonexistent", &out, &problems, &err) < 0, "no file");
}

static void test_variables(void)
{
	(void)setenv("AVIARY_LOGLEVEL", "debug", 1);
	(void)setenv("AVIARY_SOMETHING_ELSE", "x", 1);
	(void)setenv("AVIARY_URL", "x", 1);
	is_int(LOAD("--config", "/dev/null"), 0, "variables that are no options");
	(void)av_buf_append_char(&c.warnings, '\0');
	is_str(av_buf_str(&c.warnings).p,
	    "AVIARY_LOGLEVEL is no option of aviaryd (did you mean AVIARY_LOG_LEVEL?)\n",
	    "one that nearly is gives a warning, others none");
	(void)unsetenv("AVIARY_LOGLEVEL");
	(void)unsetenv("AVIARY_SOMETHING_ELSE");
	(void)unsetenv("AVIARY_URL");
}

int main(void)
{
	AV_CLEANUP(av_buf_clear) struct av_buf help = AV_BUF_INIT(16384);

	if (!mkdtemp(dir))
		return 1;
	(void)snprintf(file, sizeof file, "%s/aviary.conf", dir);
	(void)setenv("HOME", dir, 1);
	test_order();
	test_refused();
	test_public_url();
	test_listen();
	test_tls();
	test_launch();
	test_show();
	test_check();
	test_variables();
	is_int(daemon_config_help(&help), 0, "help");
	ok(!strstr(av_buf_cstr(&help), "spawn-socket"), "help is silent about what is ours");
	daemon_config_clear(&c);
	(void)unlink(file);
	(void)rmdir(dir);
	return tap_done();
}
