/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_agent_system.c - the real agent's settings, health, tunnel, hostile bytes and end
 */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/avtime.h"
#include "base/fd.h"
#include "base/ids.h"
#include "lib/agent_client.h"
#include "lib/tap.h"
#include "proto/agent_api.h"
#include "proto/frame.h"

static struct agent_proc agent;
static struct agent_client cl;

static void test_health(void)
{
	struct agent_stream *s = agent_call(&cl, "GET", "/health", NULL, NULL);

	ok(s->status == 200 &&
	        agent_number(&s->body, "protocol_version") == AV_AGENT_PROTOCOL_VERSION,
	    "health");
	agent_stream_free(s);
	s = agent_call(&cl, "GET", "/metrics", NULL, NULL);
	ok(s->status == 200 && agent_number(&s->body, "mem_total") > 0 &&
	        agent_number(&s->body, "disk_total") > 0 && agent_number(&s->body, "cpu_count") > 0,
	    "metrics");
	agent_stream_free(s);
}

static void test_init(void)
{
	static const char body[] = "{\"envVars\":{\"COLOR\":\"red\",\"PATH\":\"/bin:/usr/bin\"},"
	                           "\"defaultUser\":\"root\",\"defaultWorkdir\":\"/usr/../"
	                           "tmp\",\"lifecycleID\":\"ignored\"}";
	struct agent_stream *s, *first;
	struct agent_result r;

	s = agent_call(&cl, "POST", "/init", NULL, body);
	is_int(s->status, 204, "init");
	agent_stream_free(s);
	s = agent_call(&cl, "GET", "/envs", NULL, NULL);
	is_avstr(av_buf_str(&s->body), "{\"COLOR\":\"red\",\"PATH\":\"/bin:/usr/bin\"}", "envs");
	agent_stream_free(s);
	agent_run(&cl,
	    "{\"process\":{\"cmd\":\"sh\",\"args\":[\"-c\",\"echo $COLOR $PATH $(pwd)\"]}}", &r);
	is_avstr(av_buf_str(&r.out), "red /bin:/usr/bin /tmp\n", "a process gets them");
	agent_result_clear(&r);
	s = agent_call(&cl, "POST", "/init", NULL, "{\"envVars\":{\"A\":1}}");
	is_int(s->status, 400, "a wrong type");
	agent_stream_free(s);
	s = agent_call(&cl, "GET", "/envs", NULL, NULL);
	ok(agent_has(&s->body, "red"), "changes nothing");
	agent_stream_free(s);

	/* Requests sent behind an /init whose body is still on its way see its effect. */
	first = agent_request(&cl, "POST", "/init", NULL, AV_STR("{\"envVars\":"), false);
	s = agent_request(&cl, "GET", "/envs", NULL, AV_STR(""), true);
	agent_pump_for(&cl, 100);
	ok(s->status == 0, "a request behind an unfinished init waits");
	agent_send(first, "{\"COLOR\":\"blue\"}}", 17);
	agent_end(first);
	agent_wait_end(s);
	is_avstr(av_buf_str(&s->body), "{\"COLOR\":\"blue\"}", "and sees what it set");
	agent_stream_free(s);
	agent_stream_free(first);

	first = agent_request(&cl, "POST", "/init", NULL, AV_STR("{\"envVars\":"), false);
	s = agent_frames(
	    &cl, "Start", "{\"process\":{\"cmd\":\"sh\",\"args\":[\"-c\",\"echo $COLOR\"]}}");
	agent_pump_for(&cl, 100);
	agent_reset(first);
	agent_collect(s, &r);
	is_avstr(av_buf_str(&r.out), "blue\n", "an init that breaks off lets them go on");
	agent_result_clear(&r);
	agent_stream_free(s);
	agent_stream_free(first);
}

static int listen_tcp(int family, uint16_t *port)
{
	struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
	struct sockaddr *sa = family == AF_INET ? (struct sockaddr *)&v4 : (struct sockaddr *)&v6;
	socklen_t n = family == AF_INET ? sizeof(v4) : sizeof(v6);
	int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0 || bind(fd, sa, n) < 0 || listen(fd, 8) < 0 || getsockname(fd, sa, &n) < 0) {
		av_close_fd(&fd);
		return -1;
	}
	*port = ntohs(family == AF_INET ? v4.sin_port : v6.sin6_port);
	return fd;
}

/* In a child: reads to the end of file, then sends it all back and closes. */
static pid_t echo_server(int listen_fd)
{
	pid_t pid = fork();
	static char data[4 * 1024 * 1024];
	ssize_t n;
	int fd;

	if (pid != 0)
		return pid;
	alarm(30);
	fd = accept(listen_fd, NULL, NULL);
	n = av_read_full(fd, data, sizeof(data));
	_exit(n < 0 || av_write_full(fd, data, (size_t)n) < 0);
}

static void check_tunnel(int family, const char *host)
{
	static char data[3 * 1024 * 1024];
	struct agent_stream *s;
	char target[64];
	uint16_t port;
	int fd = listen_tcp(family, &port);
	pid_t pid;

	if (fd < 0) {
		diag("no loopback of family %d here", family);
		return;
	}
	av_random(data, sizeof(data));
	pid = echo_server(fd);
	snprintf(target, sizeof(target), "%s:%u", host, port);
	s = agent_request(&cl, "CONNECT", target, NULL, AV_STR(""), false);
	agent_wait_head(s);
	is_int(s->status, 200, target);
	agent_send(s, data, sizeof(data));
	agent_end(s);
	agent_wait_end(s);
	is_bytes(av_buf_str(&s->body), av_str_n(data, sizeof(data)),
	    "3 MiB there, half-close, and back");
	agent_stream_free(s);
	close(fd);
	waitpid(pid, NULL, 0);
	s = agent_request(&cl, "CONNECT", target, NULL, AV_STR(""), false);
	agent_wait_end(s);
	is_int(s->status, 502, "a closed port");
	agent_stream_free(s);
}

static void test_tunnel(void)
{
	static const struct {
		const char *target;
		int status;
	} bad[] = {{"example.com:80", 403}, {"10.0.0.1:80", 403}, {"localhost", 400},
	    {"localhost:0", 400}};

	check_tunnel(AF_INET, "127.0.0.1");
	check_tunnel(AF_INET, "localhost");
	check_tunnel(AF_INET6, "[::1]");
	check_tunnel(AF_INET6, "localhost");
	for (size_t i = 0; i < AV_ARRAY_LEN(bad); i++) {
		struct agent_stream *s =
		    agent_request(&cl, "CONNECT", bad[i].target, NULL, AV_STR(""), false);

		agent_wait_end(s);
		is_int(s->status, bad[i].status, bad[i].target);
		agent_stream_free(s);
	}
}

/* Bytes that are no HTTP/2, and connections that end anywhere, cost the agent nothing. */
static void test_hostile_bytes(void)
{
	struct sockaddr_un un = {.sun_family = AF_UNIX};
	struct agent_stream *s;
	char noise[8192];

	if (av_str_copy(un.sun_path, sizeof(un.sun_path), av_str_c(agent.socket)) < 0)
		abort();
	for (int i = 0; i < 60; i++) {
		int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

		if (connect(fd, (struct sockaddr *)&un, sizeof(un)) < 0)
			abort();
		av_random(noise, sizeof(noise));
		if (i % 2)
			memcpy(noise, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 24);
		if (write(fd, noise, (size_t)(i * 70 + 1)) < 0)
			diag("write: %s", strerror(errno));
		close(fd);
	}
	s = agent_call(&cl, "GET", "/health", NULL, NULL);
	is_int(s->status, 200, "noise on other connections");
	agent_stream_free(s);
}

/* A connection that dies in the middle of everything leaves the processes alone. */
static void test_lost_connection(void)
{
	struct agent_client other;
	struct agent_stream *s, *got;
	struct agent_result r;

	agent_client_open(&other, &agent);
	s = agent_frames(&other, "Start",
	    "{\"process\":{\"cmd\":\"sh\",\"args\":[\"-c\",\"sleep 0.3; echo "
	    "survived\"]},\"tag\":\"lost\"}");
	agent_wait_body(s, 20);
	got = agent_request(&other, "GET", "/files?path=/etc/passwd", NULL, AV_STR(""), true);
	close(other.fd);
	other.fd = -1;
	agent_client_close(&other);
	agent_stream_free(s);
	agent_stream_free(got);
	agent_pump_for(&cl, 500);
	s = agent_frames(&cl, "Connect", "{\"process\":{\"tag\":\"lost\"},\"replay\":true}");
	agent_collect(s, &r);
	ok(agent_has(&r.out, "survived"), "a process outlives the connection that started it");
	agent_result_clear(&r);
	agent_stream_free(s);
}

static void test_term(void)
{
	struct av_exit_record rec;
	struct agent_stream *s;
	struct agent_result r;
	uint8_t bytes[128];
	int fd, status = -1;
	ssize_t n;

	s = agent_frames(&cl, "Start",
	    "{\"process\":{\"cmd\":\"sh\",\"args\":[\"-c\",\"trap 'exit 4' TERM; echo up; while :; "
	    "do sleep 0.02; done\"]}}");
	agent_skip_frames(s, 2);
	kill(agent.pid, SIGTERM);
	agent_collect(s, &r);
	is_int(agent_number(&r.control, "exitCode"), 4,
	    "SIGTERM is passed on, and the stream ends in order");
	agent_result_clear(&r);
	agent_stream_free(s);
	waitpid(agent.pid, &status, 0);
	agent.pid = 0;
	ok(WIFEXITED(status) && WEXITSTATUS(status) == 0, "the agent exits");
	fd = open(agent.record, O_RDONLY | O_CLOEXEC);
	n = read(fd, bytes, sizeof(bytes));
	close(fd);
	ok(n == AV_EXIT_RECORD_SIZE && av_exit_record_decode(bytes, (size_t)n, &rec) == 0 &&
	        rec.reason == AV_EXIT_STOPPED && rec.real_ms + 60000 > (uint64_t)av_real_ms(),
	    "and leaves a record");
}

int main(void)
{
	agent_proc_start(&agent);
	agent_client_open(&cl, &agent);
	test_health();
	test_init();
	test_tunnel();
	test_hostile_bytes();
	test_lost_connection();
	test_term();
	agent_client_close(&cl);
	agent_proc_stop(&agent);
	return tap_done();
}
