/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_ports.c - servers in a sandbox and metrics through libaviary
 */
#include <unistd.h>

#include "tests/sdk/c/sdk.h"

static const char server[] =
    "import http.server\n"
    "class H(http.server.BaseHTTPRequestHandler):\n"
    " protocol_version='HTTP/1.1'\n"
    " def do(self):\n"
    "  n=int(self.headers.get('Content-Length') or 0); b=self.rfile.read(n) if n else b''\n"
    "  if self.headers.get('Transfer-Encoding'):\n"
    "   while True:\n"
    "    k=int(self.rfile.readline(),16); b+=self.rfile.read(k); self.rfile.readline()\n"
    "    if not k: break\n"
    "  s=200; o=(self.command+' '+self.path+' '+(self.headers.get('X-Mine') or '-')+' '+"
    "(self.headers.get('Authorization') or '-')+' '+(self.headers.get('X-Api-Key') or '-')+' "
    "'+str(len(b))).encode()\n"
    "  if self.path=='/418': s=418\n"
    "  if self.path=='/error': s=404\n"
    "  if self.path.startswith('/big'): o=b'z'*(8<<20)\n"
    "  self.send_response(s); self.send_header('Content-Length',str(len(o)+(100 if "
    "self.path=='/big/cut' else 0)))\n"
    "  self.send_header('X-Aviary-Error','port_not_open'); self.send_header('X-Said','yes'); "
    "self.end_headers()\n"
    "  if self.command!='HEAD': self.wfile.write(o)\n"
    "  if self.path=='/big/cut': self.close_connection=True\n"
    " do_GET=do_POST=do_PUT=do_DELETE=do_HEAD=do_OPTIONS=do_PATCH=do\n"
    " def log_message(self,*a): pass\n"
    "http.server.ThreadingHTTPServer(('127.0.0.1',8000),H).serve_forever()\n";

static aviary_http_response *ask(
    aviary_sandbox *sb, const char *method, const char *path, const char *body, aviary_error *e)
{
	const aviary_pair headers[] = {{"X-Mine", "x y"}, {"Authorization", "Bearer not-yours"}};
	aviary_http_request q = AVIARY_HTTP_REQUEST_INIT;

	q.method = method;
	q.path = path;
	q.headers.items = headers;
	q.headers.n = 2;
	q.body = body;
	q.body_size = body ? strlen(body) : 0;
	return aviary_sandbox_http_sync(sb, 8000, &q, e);
}

static void test_requests(aviary_sandbox *sb)
{
	const char *value;
	aviary_error e;
	aviary_http_response *r = ask(sb, "GET", "/a%20b?c=d", NULL, &e);

	ok(r && r->status == 200 && strcmp(r->body, "GET /a%20b?c=d x y Bearer not-yours - 0") == 0,
	    "a GET, without our key: %s", r ? r->body : e.message);
	ok(r && aviary_http_header(r, "x-said", &value) == 3 && memcmp(value, "yes", 3) == 0,
	    "its headers");
	ok(r && aviary_http_header(r, "x-aviary-error", &value) == -1,
	    "but none that poses as ours");
	aviary_http_response_free(r);
	r = ask(sb, "POST", "/p", "12345", &e);
	ok(r && strcmp(r->body, "POST /p x y Bearer not-yours - 5") == 0, "a POST");
	aviary_http_response_free(r);
	r = ask(sb, "HEAD", "/p", NULL, &e);
	ok(r && r->status == 200 && r->size == 0, "a HEAD");
	aviary_http_response_free(r);
	r = ask(sb, "PUT", "/418", "", &e);
	ok(r && r->status == 418, "every status is an answer");
	aviary_http_response_free(r);
	r = ask(sb, "GET", "/error", NULL, &e);
	ok(r && r->status == 404, "also one that we have errors for");
	aviary_http_response_free(r);
	r = ask(sb, "GET", "/big/cut", NULL, &e);
	ok(!r && e.code == AVIARY_E_BROKEN, "one that breaks off is not: %s",
	    aviary_code_name(e.code));
}

static void test_refused(aviary_client *c, aviary_sandbox *sb)
{
	static const char *const headers[] = {
	    "Host", "content-length", "X-Api-Key", "X-Aviary-Port", "a b", "", "a\r\nb"};
	aviary_http_request q = AVIARY_HTTP_REQUEST_INIT;
	aviary_sandbox *gone = aviary_sandbox_attach(c, "sb0000000000000000000000000");
	aviary_pair h = {0, "x"};
	aviary_error e;

	aviary_http_response_free(aviary_sandbox_http_sync(sb, 8001, NULL, &e));
	is_int(e.code, AVIARY_E_PORT_CLOSED, "nothing listens");
	ok(strstr(e.message, "8001") && !strchr(e.message, '\n') &&
	        strcmp(e.server_code, "port_not_open") == 0,
	    "%s", e.message);
	aviary_http_response_free(aviary_sandbox_http_sync(gone, 8000, NULL, &e));
	is_int(e.code, AVIARY_E_SANDBOX_NOT_FOUND, "no sandbox");
	is_code(aviary_sandbox_http(sb, 0, NULL), AVIARY_E_INVALID);
	is_code(aviary_sandbox_http(sb, 65536, NULL), AVIARY_E_INVALID);
	q.path = "x";
	is_code(aviary_sandbox_http(sb, 8000, &q), AVIARY_E_INVALID);
	q.path = "/x y";
	is_code(aviary_sandbox_http(sb, 8000, &q), AVIARY_E_INVALID);
	q.path = NULL;
	q.method = "CONNECT";
	is_code(aviary_sandbox_http(sb, 8000, &q), AVIARY_E_INVALID);
	q.method = NULL;
	q.headers.items = &h;
	q.headers.n = 1;
	for (size_t i = 0; i < sizeof(headers) / sizeof(headers[0]); i++) {
		h.name = headers[i];
		is_code(aviary_sandbox_http(sb, 8000, &q), AVIARY_E_INVALID);
	}
	h.name = "ok";
	h.value = "x\r\ny: z";
	is_code(aviary_sandbox_http(sb, 8000, &q), AVIARY_E_INVALID);
	q.headers.n = 0;
	q.path = "/big";
	q.max_bytes = 1 << 20;
	is_code(aviary_sandbox_http(sb, 8000, &q), AVIARY_E_TOO_LARGE);
	aviary_sandbox_free(gone);
}

struct counted {
	size_t n;
	int status;
	aviary_op *op;
};

static int64_t give(void *ctx, void *buf, size_t n)
{
	struct counted *k = ctx;

	if (n > k->n)
		n = k->n;
	memset(buf, 'q', n);
	k->n -= n;
	return (int64_t)n;
}

static int64_t take(void *ctx, const void *data, size_t n)
{
	struct counted *k = ctx;

	(void)data;
	k->n += n;
	if (k->op)
		k->status = aviary_op_http_status(k->op);
	return (int64_t)n;
}

static void test_streams(aviary_sandbox *sb)
{
	struct counted up = {.n = 300000}, down = {0};
	aviary_http_request q = AVIARY_HTTP_REQUEST_INIT;
	aviary_http_response *r;
	aviary_error e;
	aviary_op *op;

	q.method = "POST";
	q.path = "/s";
	q.source = give;
	q.source_ctx = &up;
	r = aviary_sandbox_http_sync(sb, 8000, &q, &e);
	ok(r && strcmp(r->body, "POST /s - - - 300000") == 0, "a body from a source: %s",
	    r ? r->body : e.message);
	aviary_http_response_free(r);
	q = (aviary_http_request)AVIARY_HTTP_REQUEST_INIT;
	q.path = "/big";
	q.sink = take;
	q.sink_ctx = &down;
	op = down.op = aviary_sandbox_http(sb, 8000, &q);
	is_int(aviary_op_wait(op, 60000), 0, "a body into a sink");
	r = aviary_op_take_http_response(op);
	ok(r && r->status == 200 && r->size == 0 && down.n == 8 << 20 && down.status == 200,
	    "all of it, the status first");
	aviary_http_response_free(r);
	aviary_op_free(op);
}

static void test_urls(aviary_sandbox *sb)
{
	const uint16_t port = 8000;
	aviary_sandbox_spec spec = AVIARY_SANDBOX_SPEC_INIT;
	char command[3000];
	aviary_error e;
	aviary_port_url *u = aviary_sandbox_url_sync(sb, 8000, "/x?y=z", 60000, &e);

	ok(u && !u->is_public && u->expires_at > 1500000000000 && u->port == 8000,
	    "a signed URL: %s", u ? u->url : e.message);
	(void)snprintf(
	    command, sizeof(command), "curl -sSf '%s' | grep -q '^GET /x?y=z - '", u ? u->url : "");
	is_int(system(command), 0, "works without a key");
	aviary_port_url_free(u);
	spec.public_ports.items = &port;
	spec.public_ports.n = 1;
	is_code(aviary_sandbox_update(sb, &spec), 0);
	u = aviary_sandbox_url_sync(sb, 8000, NULL, 0, &e);
	ok(u && u->is_public && !strchr(u->url, '?'), "public: %s", u ? u->url : e.message);
	(void)snprintf(command, sizeof(command), "curl -sSf '%s' >/dev/null", u ? u->url : "");
	is_int(system(command), 0, "needs no token");
	aviary_port_url_free(u);
	spec.public_ports.n = 0;
	is_code(aviary_sandbox_update(sb, &spec), 0);
	u = aviary_sandbox_url_sync(sb, 8000, NULL, 0, &e);
	ok(u && !u->is_public, "private again");
	aviary_port_url_free(u);
	is_code(aviary_sandbox_url(sb, 99999, NULL, 0), AVIARY_E_INVALID);
	is_code(aviary_sandbox_url(sb, 80, "x", 0), AVIARY_E_INVALID);
	is_code(aviary_sandbox_url(sb, 80, NULL, -1), AVIARY_E_INVALID);
}

static void test_metrics(aviary_sandbox *sb)
{
	aviary_metrics *m = NULL;
	aviary_error e;

	for (int i = 0; i < 100 && (!m || m->n_points == 0); i++) {
		aviary_metrics_free(m);
		m = aviary_sandbox_metrics_sync(sb, 0, &e);
		usleep(100000);
	}
	ok(m && m->n_points > 0 && m->points[m->n_points - 1]->mem_bytes > 0 &&
	        strcmp(m->range, "10m") == 0,
	    "metrics");
	aviary_metrics_free(m);
	m = aviary_sandbox_metrics_sync(sb, AVIARY_METRICS_RANGE_1H, &e);
	ok(m && strcmp(m->range, "1h") == 0, "of an hour");
	aviary_metrics_free(m);
	is_code(aviary_sandbox_metrics(sb, (enum aviary_metrics_range)99), AVIARY_E_INVALID);
}

int main(void)
{
	aviary_client *c = sdk_client();
	aviary_sandbox *sb = sdk_sandbox(c);
	const char *const command[] = {"python3", "-c", server};
	aviary_exec_options o = AVIARY_EXEC_OPTIONS_INIT;
	aviary_process *p;
	aviary_http_response *r = NULL;
	aviary_error e;

	o.command.items = command;
	o.command.n = 3;
	p = aviary_sandbox_exec(sb, &o);
	for (int i = 0; i < 200 && !r; i++) {
		r = aviary_sandbox_http_sync(sb, 8000, NULL, &e);
		if (!r)
			usleep(50000);
	}
	if (!ok(r && r->status == 200, "a server in the sandbox"))
		diag("%s", e.message);
	aviary_http_response_free(r);
	test_requests(sb);
	test_refused(c, sb);
	test_streams(sb);
	test_urls(sb);
	test_metrics(sb);
	aviary_process_free(p);
	sdk_remove(sb);
	aviary_client_free(c);
	return tap_done();
}
