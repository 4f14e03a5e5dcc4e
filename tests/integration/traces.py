#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Traces to a collector of the test's own: whose children spans are, what is in them and what is not, and what happens while the
collector is dead, slow, full of errors or sends garbage."""

import http.server
import json
import os
import pwd
import re
import subprocess
import threading
import time

from aviary_test import Daemon, Stopwatch, cmdline, equal, main, ok, processes_of, program, wait_for
from ws import WebSocket

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN = "00f067aa0ba902b7"
COLLECTOR = None  # of the daemon of this file
SECRET = "s3cr3t-of-the-collector"


class Collector(http.server.ThreadingHTTPServer):
    """Keeps what it gets; `answer` says how it answers: a status, or a function of the handler."""

    daemon_threads = True

    def __init__(self, port=0):
        self.batches, self.headers, self.answer = [], [], 200
        super().__init__(("127.0.0.1", port), Handler)
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}"

    def spans(self):
        return [s for batch in list(self.batches) for rs in batch["resourceSpans"] for ss in rs["scopeSpans"] for s in ss["spans"]]

    def trace(self, trace_id):
        return [s for s in self.spans() if s["traceId"] == trace_id]

    def handle_error(self, request, client_address):
        pass


class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        answer = self.server.answer
        if callable(answer):
            answer(self)
            return
        if answer == 200:
            self.server.batches.append(json.loads(body))
            self.server.headers.append((self.path, dict(self.headers)))
        text = b'{"partialSuccess":{}}'
        self.send_response(answer)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *args):
        pass


def parent(n, flags="01"):
    return f"00-{n:032x}-{SPAN}-{flags}"


def attributes(span):
    return {a["key"]: next(iter(a["value"].values())) for a in span.get("attributes", [])}


def named(spans, name):
    found = [s for s in spans if s["name"] == name]
    ok(found, f"a span {name} among {sorted(s['name'] for s in spans)}")
    return found[0]


def wait_trace(c, n, names):
    def there():
        spans = c.trace(f"{n:032x}")
        return spans if set(names) <= {s["name"] for s in spans} else None

    try:
        return wait_for(there, 15, f"spans {names}")
    except AssertionError as error:
        raise AssertionError(f"{error}; there are {[s['name'] for s in c.trace(f'{n:032x}')]}") from error


def test_the_parts_of_requests(d):
    c = COLLECTOR
    r = d.expect(201, "POST", "/v1/sandboxes", {"metadata": {"who": "a-guest-s-secret"}},
                 headers={"traceparent": parent(1), "X-Request-Id": "my-request.1"})
    sb = r.json()["id"]
    d.ids.add(sb)
    given = r.headers["traceparent"].split("-")
    equal((given[0], given[1], given[3]), ("00", f"{1:032x}", "01"), "traceparent of the answer")
    spans = wait_trace(c, 1, ["POST /v1/sandboxes", "store.record", "spawn.create", "store.commit", "agent.ready"])
    root = named(spans, "POST /v1/sandboxes")
    equal((root["spanId"], root["parentSpanId"], root["kind"]), (given[2], SPAN, 2), "the request's span")
    equal(attributes(root), {"http.request.method": "POST", "http.route": "/v1/sandboxes",
                             "http.response.status_code": "201", "aviary.request.id": "my-request.1"}, "what it says")
    for part in ("store.record", "spawn.create", "store.commit", "agent.ready"):
        s = named(spans, part)
        equal(s["parentSpanId"], root["spanId"], f"{part} is a part of it")
        ok(int(s["startTimeUnixNano"]) >= int(root["startTimeUnixNano"]), f"{part} begins in it")
        ok(int(s["endTimeUnixNano"]) >= int(s["startTimeUnixNano"]), f"{part} ends after it began")
        equal(attributes(s)["aviary.sandbox.id"], sb, f"{part} names the sandbox")
    ok(abs(int(root["startTimeUnixNano"]) / 1e9 - time.time()) < 60, "times are since 1970")
    ok(named(spans, "store.commit")["endTimeUnixNano"] <= root["endTimeUnixNano"], "an answer comes after its commit")

    d.expect(200, "POST", f"/v1/sandboxes/{sb}/exec", {"cmd": "echo", "args": ["an-argument-s-secret"]},
             headers={"traceparent": parent(2)})
    spans = wait_trace(c, 2, ["POST /v1/sandboxes/{id}/exec", "exec"])
    equal(named(spans, "exec")["parentSpanId"], named(spans, "POST /v1/sandboxes/{id}/exec")["spanId"], "the exec's parent")
    equal(attributes(named(spans, "exec"))["aviary.sandbox.id"], sb, "the exec's sandbox")
    d.request("POST", f"/v1/sandboxes/{sb}/pause", headers={"traceparent": parent(3)})
    d.request("POST", f"/v1/sandboxes/{sb}/resume", headers={"traceparent": parent(4)})
    d.expect(204, "DELETE", f"/v1/sandboxes/{sb}", headers={"traceparent": parent(5)})
    spans = wait_trace(c, 5, ["DELETE /v1/sandboxes/{id}", "store.stopping", "spawn.destroy", "store.stopped"])
    for s in spans:
        if s["name"] != "DELETE /v1/sandboxes/{id}":
            equal(s["parentSpanId"], named(spans, "DELETE /v1/sandboxes/{id}")["spanId"], f"{s['name']}'s parent")
    path, headers = c.headers[0]
    equal((path, headers["Content-Type"]), ("/v1/traces", "application/json"), "where it goes")
    resource = {a["key"]: a["value"]["stringValue"] for a in c.batches[0]["resourceSpans"][0]["resource"]["attributes"]}
    equal(resource["service.name"], "aviary", "the service")
    ids = [s["spanId"] for s in c.spans()]
    equal(len(ids), len(set(ids)), "every span has an id of its own")
    for s in c.spans():
        ok(re.fullmatch("[0-9a-f]{32}", s["traceId"]) and re.fullmatch("[0-9a-f]{16}", s["spanId"]), f"ids are hexadecimal: {s}")
    text = json.dumps(c.batches)
    for secret in (d.key, d.key[3:], "secret", "echo", "an-argument"):
        ok(secret not in text, f"{secret} is in no span")
    log = d.log_text()
    line = next(line for line in log.splitlines() if 'request="my-request.1"' in line)
    ok(f'trace="{1:032x}"' in line, f"the log joins request and trace: {line}")


def test_errors_and_streams(d):
    c = COLLECTOR
    d.expect(400, "POST", "/v1/sandboxes", {"memory_mb": -1}, headers={"traceparent": parent(11)})
    root = named(wait_trace(c, 11, ["POST /v1/sandboxes"]), "POST /v1/sandboxes")
    equal(attributes(root)["error.type"], "invalid_request", "which error")
    ok("status" not in root, "a client's mistake is not the server's error")
    sb = d.create()["id"]
    d.expect(504, "POST", f"/v1/sandboxes/{sb}/exec", {"cmd": "sleep", "args": ["60"], "timeout_sec": 1},
             headers={"traceparent": parent(12)}, timeout=30)
    root = named(wait_trace(c, 12, ["POST /v1/sandboxes/{id}/exec", "exec"]), "POST /v1/sandboxes/{id}/exec")
    equal(root["status"], {"code": 2}, "what the server could not do is one")
    with WebSocket(d.host, d.port, f"/v1/sandboxes/{sb}/exec/stream",
                   headers={"X-API-Key": d.key, "traceparent": parent(13)}) as ws:
        ws.send_json({"type": "start", "cmd": "true"})
        while ws.recv_json()["type"] != "exit":
            pass
    spans = wait_trace(c, 13, ["GET /v1/sandboxes/{id}/exec/stream", "exec"])
    equal(attributes(named(spans, "GET /v1/sandboxes/{id}/exec/stream"))["http.response.status_code"], "101", "an upgrade")
    equal(named(spans, "exec")["parentSpanId"], named(spans, "GET /v1/sandboxes/{id}/exec/stream")["spanId"], "and its process")


def test_who_is_sampled(d):
    c = COLLECTOR
    c.batches.clear()
    ok("traceparent" in d.expect(200, "GET", "/v1/sandboxes").headers, "an id in any case")
    d.expect(200, "GET", "/v1/sandboxes", headers={"traceparent": parent(1, "00")})
    d.expect(401, "GET", "/v1/sandboxes", key=False, headers={"traceparent": parent(2)})
    d.expect(200, "GET", "/health", key=False, headers={"traceparent": parent(3)})
    d.expect(404, "GET", "/nothing", key=False, headers={"traceparent": parent(4)})
    for bad in ("00-" + "0" * 32 + f"-{SPAN}-01", f"00-{TRACE}-{SPAN}", "x" * 9000, f"00-{TRACE.upper()}-{SPAN}-01"):
        r = d.expect(200, "GET", "/v1/sandboxes", headers={"traceparent": bad})
        ok(TRACE not in r.headers["traceparent"], "a malformed one begins a new trace")
    d.expect(200, "GET", "/v1/sandboxes", headers={"traceparent": parent(5)})
    wait_trace(c, 5, ["GET /v1/sandboxes"])
    equal({int(s["traceId"], 16) for s in c.spans()} - {11, 12, 13}, {5}, "whoever has a key and asks for it, and nobody else")
    c = Collector()
    env = {"OTEL_EXPORTER_OTLP_ENDPOINT": c.url + "/", "OTEL_SERVICE_NAME": "birds",
           "OTEL_EXPORTER_OTLP_HEADERS": f"x-token=a%20{SECRET},x-other=1"}
    own = Daemon(env=env)
    try:
        own.start(ready=False)
        own.expect(200, "GET", "/health", key=False)
        spans = wait_for(c.spans, 15, "without a parent all are, unless told otherwise")
        ok(all("parentSpanId" not in s for s in spans), "they are roots")
        equal(c.headers[0][1]["x-token"], f"a {SECRET}", "a header of the environment")
        ok("birds" in json.dumps(c.batches[0]["resourceSpans"][0]["resource"]), "the service's name")
        equal(own.stop(), 0, "it ends")
        ok(any(s["name"] == "GET /health" for s in c.spans()), "the last spans are sent before it does")
        ok(SECRET not in own.log_text(), "the header is not in the log")
    finally:
        own.remove_dir()


def test_outages(d):
    """Dead, then an error, then slow, then garbage: nothing is lost but what does not fit, and nobody waits."""
    port = COLLECTOR.server_address[1]
    COLLECTOR.shutdown()
    COLLECTOR.server_close()
    def ask(n, count):
        with Stopwatch() as watch:
            for i in range(count):
                d.expect(200, "GET", "/v1/sandboxes", headers={"traceparent": parent(n + i)})
        return watch.seconds / count

    failures = d.metrics()["aviary_trace_export_failures_total"]
    ask(1000, 20)
    wait_for(lambda: d.metrics()["aviary_trace_export_failures_total"] > failures, 20, "nobody takes them")
    before = d.rss_kib()
    took = ask(2000, 3000)
    ok(took < 0.05, f"a dead collector delays nobody: {took * 1000:.2f} ms a request")
    m = d.metrics()
    equal(m['aviary_queue_length{queue="trace_spans"}'], m['aviary_queue_limit{queue="trace_spans"}'], "the ring is full")
    ok(m['aviary_trace_spans_total{result="dropped"}'] > 0, "and what is more is counted")
    d.memory_within(before, 4096)

    c = Collector(port)
    c.answer = 503
    failures = m["aviary_trace_export_failures_total"]
    wait_for(lambda: d.metrics()["aviary_trace_export_failures_total"] > failures, 40, "a server that cannot is asked again")
    c.answer = 200
    wait_for(lambda: d.metrics()['aviary_queue_length{queue="trace_spans"}'] < 600, 60, "what waited arrives")
    ok({f"{1000 + i:032x}" for i in range(20)} <= {s["traceId"] for s in c.spans()}, "also what was recorded first")

    def slow(handler):
        time.sleep(3)
        handler.send_response(200)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    def garbage(handler):
        handler.wfile.write(b"\xff\x00not HTTP at all\r\n" * 200)
        handler.close_connection = True

    def endless(handler):
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n")
        try:
            for _ in range(64):
                handler.wfile.write(b'{"partialSuccess":{"rejectedSpans":"99999999999999999999"' + b" " * 65536)
        except OSError:
            pass
        handler.close_connection = True

    for i, answer in enumerate((slow, endless, garbage, 400)):
        c.answer = answer
        m = d.metrics()
        took = ask(10000 + 1000 * i, 50)
        ok(took < 0.05, f"{answer} delays nobody: {took * 1000:.2f} ms a request")
        wait_for(lambda before=m["aviary_trace_exports_total"]: d.metrics()["aviary_trace_exports_total"] > before, 30, f"{answer}")
    c.answer = 200
    d.expect(200, "GET", "/v1/sandboxes", headers={"traceparent": parent(77)})
    wait_for(lambda: c.trace(f"{77:032x}"), 60, "it recovers by itself")
    text = d.log_text()
    ok(0 < text.count("collector of traces takes no spans") < 12, "and says so without filling the log")
    ok("takes spans again" in text, "also when it works again")


def daemon_uid():
    try:
        return pwd.getpwnam("aviary").pw_uid
    except KeyError:
        return 0x70000000


def test_configuration(_):
    for args, part in ((["--otlp-endpoint", "ftp://x"], "--otlp-endpoint"), (["--otlp-ratio", "2"], "from 0 to 1"),
                       (["--otlp-endpoint", "http://u:p@x"], "--otlp-endpoint")):
        own = Daemon(args=args)
        try:
            r = subprocess.run([program("aviaryd"), "--state", own.state, "--run", own.run, "--listen", "127.0.0.1:0", *args],
                               capture_output=True, text=True, timeout=60, check=False)
            ok(r.returncode != 0 and part in r.stderr, f"{args}: {r.stderr[-300:]}")
        finally:
            own.remove_dir()
    c = Collector()
    own = Daemon()
    path = os.path.join(own.dir, "headers")
    with open(path, "w", encoding="utf-8") as f:
        f.write(f"# keys\nAuthorization: Bearer {SECRET}\n")
    os.chmod(path, 0o600)
    if os.geteuid() == 0:
        os.chown(path, daemon_uid(), -1)
    own.args += ["--otlp-endpoint", c.url + "/v1/traces", "--otlp-headers-file", path]
    try:
        own.start(ready=False)
        own.expect(200, "GET", "/v1/sandboxes")
        wait_for(c.spans, 15, "spans")
        equal(c.headers[0], ("/v1/traces", {**c.headers[0][1], "Authorization": f"Bearer {SECRET}"}), "the path once, and the file's header")
        ok(SECRET not in own.log_text(), "which is not in the log")
        for pid in processes_of(own):
            ok(SECRET.encode() not in cmdline(pid), "nor in a command line")
    finally:
        own.stop()
        own.remove_dir()


if __name__ == "__main__":
    COLLECTOR = Collector()
    main(dict(globals()), args=("--otlp-endpoint", COLLECTOR.url, "--otlp-ratio", "0"))
