/* SPDX-License-Identifier: Apache-2.0 */
/* Requests to other servers: addresses that are refused, answers of a hostile server, mail. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/avtime.h"
#include "base/buf.h"
#include "base/codec.h"
#include "base/num.h"
#include "net/fetch.h"
#include "net/loop.h"
#include "net/mail.h"
#include "net/reach.h"

#include "lib/tap.h"

/* ---- a server that answers by path and one for mail, one thread a connection ---- */

static struct server {
	int listener;
	unsigned int port;
	void (*serve)(int fd, char *buf, size_t size);
	atomic_int accepted, served;
	char seen[8192]; /* of the last that was served */
} web, post;
static pthread_mutex_t seen_lock = PTHREAD_MUTEX_INITIALIZER;

static bool was_seen(const char *text)
{
	bool yes;

	pthread_mutex_lock(&seen_lock);
	yes = strstr(post.seen, text) != NULL;
	pthread_mutex_unlock(&seen_lock);
	return yes;
}

/* What a server saw is known when it is done, and that may be after its client. */
static void wait_served(struct server *s, int n)
{
	for (int i = 0; i < 2000 && s->served < n; i++)
		usleep(10000);
}

static size_t read_request(int fd, char *buf, size_t size)
{
	size_t n = 0, want = 0;

	while (n < size - 1) {
		ssize_t r = read(fd, buf + n, size - 1 - n);
		char *end, *length;

		if (r <= 0)
			break;
		n += (size_t)r;
		buf[n] = '\0';
		end = strstr(buf, "\r\n\r\n");
		length = strstr(buf, "Content-Length: ");
		if (end && length && !want) {
			uint64_t v = 0;
			size_t digits = strspn(length + 16, "0123456789");

			(void)av_parse_u64(av_str_n(length + 16, digits), 0, 4096, &v);
			want = (size_t)(end + 4 - buf) + (size_t)v;
		}
		if (end && n >= want)
			break;
	}
	return n;
}

static void say(int fd, const char *text)
{
	(void)!write(fd, text, strlen(text));
}

static void flood(int fd, const char *head, const char *piece)
{
	size_t n = strlen(piece);

	say(fd, head);
	for (int i = 0; i < 200000; i++)
		if (send(fd, piece, n, MSG_NOSIGNAL) < 0)
			break;
}

/* What a mail server says to each line, without STARTTLS. */
static void serve_mail(int fd, char *buf, size_t size)
{
	size_t n = 0;
	bool data = false;

	say(fd, "220 test ESMTP\r\n");
	while (n < size - 1) {
		ssize_t r = read(fd, buf + n, size - 1 - n);
		char *last = buf + n;

		if (r <= 0)
			break;
		n += (size_t)r;
		buf[n] = '\0';
		if (data) {
			data = strstr(buf, "\r\n.\r\n") == NULL;
			if (!data)
				say(fd, "250 taken\r\n");
		} else if (strstr(last, "EHLO")) {
			say(fd, "250-test\r\n250 8BITMIME\r\n");
		} else if (strstr(last, "RCPT TO:<nobody")) {
			say(fd, "550 no such user\r\n");
		} else if (strstr(last, "DATA")) {
			data = true;
			say(fd, "354 go on\r\n");
		} else if (strstr(last, "QUIT")) {
			say(fd, "221 bye\r\n");
			break;
		} else {
			say(fd, "250 fine\r\n");
		}
	}
}

static void serve_http(int fd, char *buf, size_t size)
{
	char line[200];

	(void)read_request(fd, buf, size);
	if (strstr(buf, " /ok")) {
		say(fd, "HTTP/1.1 200 OK\r\nX-Test:  a value \r\nContent-Length: 5\r\n\r\nhello");
	} else if (strstr(buf, " /500")) {
		say(fd, "HTTP/1.1 500 No\r\nContent-Length: 2\r\n\r\nno");
	} else if (strstr(buf, " /to-ok")) {
		snprintf(line, sizeof line,
		    "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:%u/ok\r\nContent-Length: "
		    "0\r\n\r\n",
		    web.port);
		say(fd, line);
	} else if (strstr(buf, " /hang")) {
		usleep(1500 * 1000);
	} else if (strstr(buf, " /garbage")) {
		say(fd, "SSH-2.0-OpenSSH_9.2p1\r\n\x01\x02\x03\r\n\r\n");
	} else if (strstr(buf, " /body")) {
		flood(fd, "HTTP/1.1 200 OK\r\n\r\n", "0123456789012345678901234567890123456789");
	} else if (strstr(buf, " /head")) {
		flood(fd, "HTTP/1.1 200 OK\r\n", "X-More: 01234567890123456789\r\n");
	} else if (strstr(buf, " /hundred")) {
		flood(fd, "", "HTTP/1.1 100 Continue\r\n\r\n");
	}
}

struct connection {
	struct server *server;
	int fd;
};

static void *serve_one(void *ctx)
{
	struct connection c = *(struct connection *)ctx;
	struct server *s = c.server;
	char *buf = calloc(1, sizeof(s->seen));
	struct timeval tv = {.tv_sec = 10};

	free(ctx);
	setsockopt(c.fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv);
	s->serve(c.fd, buf, sizeof(s->seen));
	pthread_mutex_lock(&seen_lock);
	memcpy(s->seen, buf, sizeof(s->seen));
	s->served++;
	pthread_mutex_unlock(&seen_lock);
	shutdown(c.fd, SHUT_RDWR);
	close(c.fd);
	free(buf);
	return NULL;
}

static void *serve(void *ctx)
{
	struct server *s = ctx;

	for (;;) {
		struct connection *c = malloc(sizeof(*c));
		pthread_t t;

		*c = (struct connection){s, accept(s->listener, NULL, NULL)};
		if (c->fd < 0) {
			free(c);
			return NULL;
		}
		s->accepted++;
		if (pthread_create(&t, NULL, serve_one, c) != 0)
			abort();
		pthread_detach(t);
	}
}

static void server_start(struct server *s, void (*how)(int fd, char *buf, size_t size))
{
	struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t n = sizeof in;
	pthread_t t;

	s->serve = how;
	s->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (bind(s->listener, (struct sockaddr *)&in, sizeof in) < 0 ||
	    listen(s->listener, 64) < 0 || getsockname(s->listener, (struct sockaddr *)&in, &n) < 0)
		abort();
	s->port = ntohs(in.sin_port);
	if (pthread_create(&t, NULL, serve, s) != 0)
		abort();
	pthread_detach(t);
}

/* ---- requests ---- */

static struct av_loop *loop;
static struct av_fetch *fetch;

struct got {
	int calls, status;
	bool cut;
	size_t body;
	char first[16], header[32];
	struct av_err err;
};

static void on_done(void *ctx, const struct av_fetch_response *res, const struct av_err *err)
{
	struct got *g = ctx;
	struct av_str h;

	g->calls++;
	if (err) {
		g->err = *err;
		return;
	}
	g->status = res->status;
	g->cut = res->cut;
	g->body = res->body.n;
	snprintf(
	    g->first, sizeof g->first, "%.*s", (int)AV_MIN(res->body.n, (size_t)8), res->body.p);
	if (av_fetch_header(res, "x-test", &h))
		snprintf(g->header, sizeof g->header, "%.*s", AV_STR_ARG(h));
}

static void wait_for(const struct got *g, int calls)
{
	int64_t until = av_mono_ns() + 20 * AV_NS_PER_S;

	while (g->calls < calls && av_mono_ns() < until)
		av_loop_run_once(loop, 50);
}

static const char *url(const char *host, const char *path)
{
	static char text[256];

	snprintf(text, sizeof text, "http://%s:%u%s", host, web.port, path);
	return text;
}

static struct got get(const char *u, struct av_fetch_request rq)
{
	struct got g = {0};
	struct av_err err = {0};

	rq.url = u;
	if (av_fetch_start(fetch, &rq, on_done, &g, NULL, &err) < 0)
		g.err = err;
	else
		wait_for(&g, 1);
	return g;
}

static void test_answers(void)
{
	const struct av_fetch_header headers[] = {{"X-One", "1"}, {"X-Empty", ""}};
	struct got g = get(url("127.0.0.1", "/ok"),
	    (struct av_fetch_request){
	        .headers = headers, .n_headers = 2, .body = AV_STR("{\"a\":1}")});

	is_int(g.status, 200, "an answer");
	is_str(g.first, "hello", "its body");
	is_str(g.header, "a value", "its header");
	wait_served(&web, 1);
	pthread_mutex_lock(&seen_lock);
	ok(strstr(web.seen, "POST /ok HTTP/1.1\r\n") && strstr(web.seen, "X-One: 1\r\n") &&
	        strstr(web.seen, "X-Empty:") && strstr(web.seen, "\r\n\r\n{\"a\":1}") &&
	        !strstr(web.seen, "Expect"),
	    "the request as asked for");
	pthread_mutex_unlock(&seen_lock);
	is_int(get(url("127.0.0.1", "/500"), (struct av_fetch_request){0}).status, 500,
	    "any status is an answer");
	is_int(get(url("127.0.0.1", "/to-ok"), (struct av_fetch_request){0}).status, 302,
	    "redirects are not followed");
	is_int((int)get(url("127.0.0.1", "/to-ok"), (struct av_fetch_request){.redirects = 3})
	           .err.kind,
	    AV_ERR_UPSTREAM, "and never to http");
}

static void test_hostile(void)
{
	static const struct av_fetch_request patient, quick = {.timeout_ms = 500};
	struct got g =
	    get(url("127.0.0.1", "/body"), (struct av_fetch_request){.response_max = 1000});

	is_int(g.err.kind, AV_ERR_TOO_LARGE, "a body without an end");
	g = get(url("127.0.0.1", "/body"),
	    (struct av_fetch_request){.response_max = 1000, .cut = true});
	ok(g.status == 200 && g.cut && g.body == 1000, "or cut where it was asked to be");
	is_int(get(url("127.0.0.1", "/head"), patient).err.kind, AV_ERR_TOO_LARGE,
	    "a head without an end");
	is_int(get(url("127.0.0.1", "/hundred"), patient).err.kind, AV_ERR_TOO_LARGE,
	    "1xx answers without an end");
	is_int(get(url("127.0.0.1", "/hang"), quick).err.kind, AV_ERR_REQUEST_TIMEOUT, "silence");
	is_int(get(url("127.0.0.1", "/garbage"), patient).err.kind, AV_ERR_UPSTREAM, "garbage");
	is_int(get("http://127.0.0.1:1/", patient).err.kind, AV_ERR_UPSTREAM, "nobody listens");
	is_int(
	    get("http://name.invalid/", patient).err.kind ? 1 : 0, 1, "a name without an address");
}

static void test_reach(void)
{
	static const struct av_reach none;
	static const char *const refused[] = {"http://127.0.0.1/", "http://2130706433/",
	    "http://0x7f.1/", "http://0177.0.0.1/", "http://127.1/", "http://[::1]/",
	    "http://[::ffff:127.0.0.1]/", "http://[::ffff:a9fe:a9fe]/", "http://169.254.169.254/x",
	    "http://[fd00:ec2::254]/", "http://10.0.0.1/", "http://172.31.255.255/",
	    "http://192.168.1.1/", "http://100.64.0.1/", "http://0.0.0.0/", "http://[::]/",
	    "http://224.0.0.1/", "http://255.255.255.255/", "http://[fe80::1]/",
	    "http://[ff02::1]/", "http://[64:ff9b::7f00:1]/", "http://[2002:7f00:1::]/",
	    "http://[::127.0.0.1]/", "http://198.18.0.1/", "http://%31%32%37.0.0.1/"};
	static const char *const bad[] = {"", "x", "http://", "ftp://example.com/",
	    "file:///etc/passwd", "gopher://example.com/", "http://user@example.com/",
	    "http://u:p@example.com/", "http://a b/", "http://example.com/\r\nX: y",
	    "http://ex\xc3\xa4mple.com/", "http://[fe80::1%25lo]/", "http://example.com:99999/",
	    "javascript:1", "//example.com/"};
	struct av_fetch_request guarded = {.reach = &none};
	struct av_reach r = {0};
	struct av_err err;
	struct got g;

	for (size_t i = 0; i < AV_ARRAY_LEN(refused); i++)
		ok(av_fetch_check_url(refused[i], false, &none, &err) < 0 &&
		        err.kind == AV_ERR_FORBIDDEN,
		    "refused: %s", refused[i]);
	for (size_t i = 0; i < AV_ARRAY_LEN(bad); i++)
		ok(av_fetch_check_url(bad[i], false, NULL, &err) < 0 && err.kind == AV_ERR_INVALID,
		    "no URL (%zu)", i);
	is_int(av_fetch_check_url("https://example.com/x?y=z", true, &none, &err), 0, "a good one");
	is_int(
	    av_fetch_check_url("http://8.8.8.8:8080/", false, &none, &err), 0, "a public address");
	is_int(av_fetch_check_url("http://[64:ff9b::808:808]/", false, &none, &err), 0,
	    "one by NAT64");
	ok(av_fetch_check_url("http://example.com/", true, &none, &err) < 0,
	    "https when asked for");
	/* A name is judged by the address that is connected to. */
	int before = web.accepted;
	g = get(url("localhost", "/ok"), guarded);
	is_int(g.err.kind, AV_ERR_FORBIDDEN, "a name that resolves to loopback");
	is_int(av_reach_parse(&r, AV_STR("127.0.0.0/8, ::1"), &err), 0, "ranges");
	guarded.reach = &r;
	is_int(get(url("localhost", "/ok"), guarded).status, 200, "allowed by a range");
	is_int(web.accepted, before + 1, "and nobody was asked before");
	is_int(get(url("127.0.0.1", "/to-ok"), guarded).status, 302, "and no further");
	ok(av_fetch_check_url("http://10.0.0.1/", false, &r, &err) < 0, "others still are not");
	is_int(av_reach_parse(&r, AV_STR("yes"), &err), 0, "yes");
	ok(av_fetch_check_url("http://10.0.0.1/", false, &r, &err) == 0 &&
	        av_fetch_check_url("http://169.254.169.254/", false, &r, &err) < 0 &&
	        av_fetch_check_url("http://[fd00:ec2::254]/", false, &r, &err) < 0,
	    "allows private addresses, not metadata services");
	ok(av_reach_parse(&r, AV_STR("169.254.169.254"), &err) == 0 &&
	        av_fetch_check_url("http://169.254.169.254/", false, &r, &err) == 0,
	    "unless they are named");
	ok(av_reach_parse(&r, AV_STR("10.0.0.0/33"), &err) < 0 &&
	        av_reach_parse(&r, AV_STR("maybe"), &err) < 0 &&
	        av_reach_parse(&r, AV_STR(""), &err) < 0 &&
	        av_reach_parse(&r, AV_STR("::/129"), &err) < 0,
	    "bad ranges");
}

static void test_cancel(void)
{
	struct av_fetch_request rq = {.url = url("127.0.0.1", "/hang"), .timeout_ms = 10000};
	struct av_fetch_call *call = NULL;
	struct av_fetch_stats st;
	struct got one = {0}, two = {0};
	int64_t from = av_mono_ns();

	ok(av_fetch_start(fetch, &rq, on_done, &one, &call, NULL) == 0 &&
	        av_fetch_start(fetch, &rq, on_done, &two, NULL, NULL) == 0,
	    "two that hang");
	av_fetch_cancel(call);
	for (int i = 0; i < 100; i++) {
		av_loop_run_once(loop, 10);
		av_fetch_get_stats(fetch, &st);
		if (st.open == 1)
			break;
	}
	is_int((int)st.open, 1, "a canceled one goes at once");
	av_fetch_free(fetch);
	is_int(one.calls, 0, "and says nothing");
	ok(two.calls == 1 && two.err.kind == AV_ERR_CANCELED, "the end cancels the other");
	ok(av_mono_ns() - from < 8 * AV_NS_PER_S, "without waiting for it");
	if (av_fetch_new(loop, &fetch) < 0)
		abort();
}

/* ---- mail ---- */

static const char *mail_host = "127.0.0.1";

static struct got mail(const char *to, const char *from, const char *subject)
{
	char server_url[64];
	const struct av_mail m = {
	    .to = to, .subject = subject, .text = AV_STR("Open this:\n.\nhttps://x/?token=abc\n")};
	struct av_mail_server s = {.url = server_url, .from = from};
	struct got g = {0};
	struct av_err err = {0};

	snprintf(server_url, sizeof server_url, "smtp://%s:%u", mail_host, post.port);
	if (av_mail_send(fetch, &s, &m, on_done, &g, NULL, &err) < 0)
		g.err = err;
	else
		wait_for(&g, 1);
	return g;
}

static void test_mail(void)
{
	AV_CLEANUP(av_buf_clear) struct av_buf text = AV_BUF_INIT(4096);
	static const char *const bad[] = {"", "x", "@x", "x@", "a@b@c", "a b@c",
	    "a@b\r\nRCPT TO:<c@d>", "<a@b>", "a,b@c", "\xc3\xa4@b"};
	struct av_err err;
	struct got g = mail("you@example.com", "Aviary <av@example.com>",
	    "Gr\xc3\xbc\xc3\x9f"
	    "e");
	char *body, *end;

	is_int(g.err.kind, AV_ERR_NONE, "a mail was taken");
	wait_served(&post, 1);
	pthread_mutex_lock(&seen_lock);
	ok(strstr(post.seen, "MAIL FROM:<av@example.com>") &&
	        strstr(post.seen, "RCPT TO:<you@example.com>") &&
	        strstr(post.seen, "From: Aviary <av@example.com>\r\n") &&
	        strstr(post.seen, "To: you@example.com\r\n") &&
	        strstr(post.seen, "Subject: =?UTF-8?B?R3LDvMOfZQ==?=\r\n") &&
	        strstr(post.seen, "\r\nDate: "),
	    "its envelope and head");
	body = strstr(post.seen, "base64\r\n\r\n");
	end = body ? strstr(body, "\r\n.\r\n") : NULL;
	if (body && end)
		(void)av_base64_decode(&text, av_str_n(body + 10, (size_t)(end - body - 10)));
	ok(av_str_eq_c(av_buf_str(&text), "Open this:\r\n.\r\nhttps://x/?token=abc\r\n"),
	    "its text");
	pthread_mutex_unlock(&seen_lock);
	is_int(mail("nobody@example.com", "av@example.com", "x").err.kind, AV_ERR_UPSTREAM,
	    "a recipient that is refused");
	wait_served(&post, 2);
	/* Not written as this machine: then nothing leaves without TLS, which this server lacks. */
	mail_host = "[::ffff:127.0.0.1]";
	is_int(mail("you@example.com", "av@example.com", "x").err.kind, AV_ERR_UPSTREAM,
	    "a server without STARTTLS is refused");
	wait_served(&post, 3);
	ok(was_seen("EHLO") && !was_seen("MAIL FROM"), "and gets nothing");
	/* Nor does a name that turns out to be another machine's get it in clear. */
	mail_host = "127.0.0.1.invalid";
	ok(mail("you@example.com", "av@example.com", "x").err.kind != AV_ERR_NONE,
	    "no such server");
	mail_host = "127.0.0.1";
	for (size_t i = 0; i < AV_ARRAY_LEN(bad); i++)
		is_int(mail(bad[i], "av@example.com", "x").err.kind, AV_ERR_INVALID, "no address");
	is_int(
	    mail("a@b", "av@example.com", "x\r\nBcc: c@d").err.kind, AV_ERR_INVALID, "no subject");
	is_int(mail("a@b", "x\r\ny <av@example.com>", "x").err.kind, AV_ERR_INVALID, "no sender");
	ok(av_mail_check(&(struct av_mail_server){.url = "http://x", .from = "a@b"}, &err) < 0,
	    "no mail server");
	is_int(
	    av_mail_check(
	        &(struct av_mail_server){.url = "smtps://mail.example.com", .from = "a@b"}, &err),
	    0, "a good one");
}

int main(void)
{
	setenv("http_proxy", "http://127.0.0.1:1", 1);
	setenv("ALL_PROXY", "http://127.0.0.1:1", 1);
	alarm(55);
	server_start(&web, serve_http);
	server_start(&post, serve_mail);
	if (av_loop_new(&loop) < 0 || av_fetch_new(loop, &fetch) < 0)
		abort();
	test_answers();
	test_hostile();
	test_reach();
	test_cancel();
	test_mail();
	av_fetch_free(fetch);
	av_loop_free(loop);
	return tap_done();
}
