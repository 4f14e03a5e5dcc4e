#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Bad input: each gets its clear error, and the daemon is as before."""

import json
import socket
import threading
import time

from aviary_test import Stopwatch, contains, equal, main, ok

UNKNOWN = "sb" + "0" * 25


def error(d, status, code, method, path, body=None, **kw):
    r = d.expect(status, method, path, body, **kw)
    equal(r.headers["Content-Type"].split(";")[0], "application/json", "type of the error")
    equal(set(r.json()), {"error"}, "shape of the error")
    equal(r.code, code, f"code of {method} {path} {str(body)[:80]}")
    ok(len(r.message) > 8, "a message for people")
    ok("X-Request-Id" in r.headers, "an id to report")
    return r.message


def test_keys(d):
    for headers in ({}, {"X-API-Key": ""}, {"X-API-Key": "av_" + "f" * 40}, {"X-API-Key": "nonsense"},
                    {"X-API-Key": "x" * 10000}, {"Authorization": "Bearer "},
                    {"Authorization": "Basic abc"}, {"Authorization": d.key}):
        text = error(d, 401, "unauthorized", "GET", "/v1/sandboxes", key=False, headers=headers)
        contains(text, "credentials.json", "where keys come from")
    error(d, 401, "unauthorized", "POST", "/v1/sandboxes", b"{" * 100000, key=False)


def test_routes_and_methods(d):
    error(d, 404, "not_found", "GET", "/nowhere")
    error(d, 404, "not_found", "GET", "/v1/sandboxes/")
    error(d, 404, "not_found", "GET", "/")
    error(d, 404, "not_found", "GET", "/v1/sandboxes/" + "a/" * 500)
    r = d.expect(405, "PATCH", "/v1/sandboxes", b"{}")
    equal((r.code, r.headers["Allow"]), ("method_not_allowed", "POST, GET"), "405")
    equal(d.expect(405, "GET", f"/v1/sandboxes/{UNKNOWN}/exec").headers["Allow"], "POST", "405")


def test_malformed_json(d):
    for body in (b"{", b"[]", b"1", b'"x"', b"{'a':1}", b'{"a":1,"a":2}', b'{"a":}', b"\xff\xfe",
                 b'{"template":"a\\u0000b"}', b'{"a":"\xff"}', b"{}x", b'{"a":NaN}', b"\0",
                 b'{"memory_mb":99999999999999999999}', b'{"a":' * 200 + b"1" + b"}" * 200, b"{" + b" " * 1000):
        error(d, 400, "invalid_request", "POST", "/v1/sandboxes", body)


def test_huge_json(d):
    # Files of a create are part of its body: 1 MiB of them, as base64.
    big = json.dumps({"metadata": {"a": "x" * 3000000}}).encode()
    error(d, 413, "too_large", "POST", "/v1/sandboxes", big)
    chunked = (b"POST /v1/sandboxes HTTP/1.1\r\nHost: x\r\nX-API-Key: " + d.key.encode() +
               b"\r\nTransfer-Encoding: chunked\r\n\r\n" + b"10000\r\n" + b"x" * 65536 + b"\r\n")
    answer = d.raw(chunked + (b"10000\r\n" + b"x" * 65536 + b"\r\n") * 48)
    ok(answer.startswith(b"HTTP/1.1 413 "), f"413, not {answer[:60]!r}")


def test_wrong_types_and_values(d):
    for body in ({"template": 1}, {"template": ["x"]}, {"vcpus": "1"}, {"vcpus": 1.5}, {"vcpus": -1},
                 {"cpus": -0.5}, {"cpus": "half"}, {"cpus": 1e308}, {"vcpus": 1, "cpus": 1},
                 {"memory_mb": -1}, {"memory_mb": 1}, {"memory_mb": 2**62}, {"memory_mb": 1e300},
                 {"disk_mb": -5}, {"disk_mb": "1G"},
                 {"pids_max": -1}, {"pids_max": True}, {"timeout_sec": -1}, {"timeout_sec": "1h"},
                 {"timeout_sec": 1e30}, {"max_lifetime_sec": -1}, {"sudo": "yes"}, {"sudo": 1},
                 {"envs": {"A": 1}}, {"envs": []}, {"envs": "A=1"}, {"envs": {"": "x"}},
                 {"envs": {"A=B": "x"}}, {"metadata": {"a": {}}}, {"metadata": 7},
                 {"metadata": {str(i): "" for i in range(65)}}, {"vcpus": 10**6}):
        text = error(d, 400, "invalid_request", "POST", "/v1/sandboxes", body)
        contains(text, next(iter(body)).split("_")[0], "the field is named")
    equal(d.expect(200, "GET", "/v1/sandboxes").json(), [], "nothing was made")


def test_unknown_template(d):
    text = error(d, 404, "not_found", "POST", "/v1/sandboxes", {"template": "no-such-template"})
    contains(text, "no-such-template", "the name is in the text")
    for name in ("../x", "a/b", "x" * 200, "-", "host\n"):
        r = d.request("POST", "/v1/sandboxes", {"template": name})
        ok(r.status in (400, 404), f"template {name!r}: {r.status}")


def test_exec_input(d):
    sb = d.create()["id"]
    path = f"/v1/sandboxes/{sb}/exec"
    for body in ({}, {"cmd": ""}, {"cmd": None}, {"cmd": 1}, {"cmd": ["a"]}, {"cmd": "x", "args": "y"},
                 {"cmd": "x", "args": [1]}, {"cmd": "x", "args": [["y"]]}, {"cmd": "x", "envs": {"A": None}},
                 {"cmd": "x", "cwd": 1}, {"cmd": "x", "timeout_sec": -1}, {"cmd": "x", "timeout_sec": "1"},
                 {"cmd": "x", "background": "yes"}, {"cmd": "x", "background": True, "tag": "t" * 65},
                 {"cmd": "x", "tag": 5}):
        error(d, 400, "invalid_request", "POST", path, body)
    error(d, 413, "too_large", "POST", path, {"cmd": "x" * (5 << 20)})
    equal(d.exec(sb, "echo fine")["stdout"], "fine\n", "it works as before")
    d.delete(sb)


def test_paths(d):
    sb = d.create()["id"]
    base = f"/v1/sandboxes/{sb}/files"
    error(d, 400, "invalid_request", "GET", base)
    error(d, 400, "invalid_request", "GET", f"{base}?path=")
    error(d, 400, "invalid_request", "GET", f"{base}?path=%2Ftmp%2Fa%00b")
    error(d, 400, "invalid_request", "GET", f"{base}?path=%zz")
    error(d, 400, "invalid_request", "GET", f"{base}?path=/" + "a" * 5000)
    error(d, 400, "invalid_request", "GET", f"{base}?path=/tmp/" + "a" * 300)
    error(d, 400, "invalid_request", "PUT", f"{base}?path=%00", b"x")
    error(d, 400, "invalid_request", "POST", f"{base}/read", {"path": "a\0b"})
    error(d, 400, "invalid_request", "POST", f"{base}/read", {})
    error(d, 400, "invalid_request", "GET", f"{base}?path=/tmp")
    error(d, 404, "not_found", "GET", f"{base}?path=/no/such/file")
    error(d, 404, "not_found", "POST", f"{base}/read", {"path": "/no/such/file"})
    error(d, 404, "not_found", "GET", f"/v1/sandboxes/{UNKNOWN}/files?path=/x")
    d.delete(sb)


def test_oversized_head(d):
    head = b"GET /health HTTP/1.1\r\nHost: x\r\n"
    answer = d.raw(head + b"X: " + b"a" * 200000 + b"\r\n\r\n")
    ok(answer.startswith(b"HTTP/1.1 431 "), f"one long header: {answer[:60]!r}")
    answer = d.raw(head + b"".join(b"X-%d: 1\r\n" % i for i in range(2000)) + b"\r\n")
    ok(answer.startswith(b"HTTP/1.1 431 "), f"many headers: {answer[:60]!r}")
    answer = d.raw(b"GET /" + b"a" * 200000 + b" HTTP/1.1\r\nHost: x\r\n\r\n")
    ok(answer.startswith((b"HTTP/1.1 431 ", b"HTTP/1.1 414 ")), f"a long target: {answer[:60]!r}")


def test_broken_http(d):
    for data in (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"nonsense\r\n\r\n",
                 b"GET / HTTP/9.9\r\nHost: x\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n",
                 b"GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
                 b"GET / HTTP/1.1\r\nHost: x\r\nBad Name: y\r\n\r\n",
                 b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
                 b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
                 b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
                 b"GET / HTTP/1.1\r\nHost: x\r\nA: b\r\n c\r\n\r\n", b"GET / HTTP/1.1\nHost: x\n\n"):
        answer = d.raw(data)
        ok(answer == b"" or answer.startswith(b"HTTP/1.1 4") or answer.startswith(b"HTTP/1.1 5"),
           f"{data[:60]!r} is refused: {answer[:60]!r}")


def test_half_a_request_and_silence(d):
    """A connection that stalls is ended by the server, and costs the others nothing."""
    halves = []
    for data in (b"", b"GET /hea", b"POST /v1/sandboxes HTTP/1.1\r\nHost: x\r\nX-API-",
                 b"POST /v1/sandboxes HTTP/1.1\r\nHost: x\r\nX-API-Key: " + d.key.encode() +
                 b"\r\nContent-Length: 100\r\n\r\n{"):
        s = socket.create_connection((d.host, d.port), timeout=45)
        s.sendall(data)
        halves.append(s)
    start = time.monotonic()
    with Stopwatch() as watch:
        for _ in range(20):
            d.expect(200, "GET", "/health", key=False)
    ok(watch.seconds < 2, "others are served meanwhile")
    for s in halves:
        try:
            data = s.recv(4096)
            ok(data == b"" or data.startswith(b"HTTP/1.1 408"), f"ended: {data[:50]!r}")
        except ConnectionResetError:
            pass
        s.close()
    ok(time.monotonic() - start < 40, "within the time-out")


test_half_a_request_and_silence.timeout_s = 90


def test_websocket_path_without_handshake(d):
    sb = d.create()["id"]
    text = error(d, 400, "invalid_request", "GET", f"/v1/sandboxes/{sb}/exec/stream")
    contains(text, "WebSocket", "says what it wants")
    d.delete(sb)


def test_queries(d):
    error(d, 400, "invalid_request", "GET", "/v1/sandboxes?status=nonsense")
    error(d, 400, "invalid_request", "GET", "/v1/sandboxes?status=%zz")
    error(d, 400, "invalid_request", "GET", "/v1/sandboxes?status=")


def test_a_storm_of_it_costs_nothing(d):
    for _ in range(50):
        d.request("POST", "/v1/sandboxes", b"{")
    before, fds = d.rss_kib(), open_fds(d)

    def storm():
        for _ in range(100):
            d.request("POST", "/v1/sandboxes", b'{"a":' * 100)
            d.request("GET", "/v1/sandboxes/x")
            d.request("GET", "/v1/sandboxes", key=False)

    threads = [threading.Thread(target=storm) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    d.memory_within(before, 4096)
    ok(open_fds(d) <= fds + 8, f"descriptors grew from {fds} to {open_fds(d)}")


def open_fds(d):
    for line in d.expect(200, "GET", "/metrics", key=False).body.decode().splitlines():
        if line.startswith("process_open_fds "):
            return int(line.split()[1])
    return 0


main(globals())
