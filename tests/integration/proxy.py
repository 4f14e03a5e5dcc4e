# SPDX-License-Identifier: Apache-2.0
"""Ports of sandboxes through the proxy: bytes both ways, who may, and what must never pass."""

import http.client
import json
import os
import re
import socket
import struct
import subprocess
import threading
import time

import ws
from aviary_test import SLOW, Failure, contains, equal, main, ok, wait_for

HERE = os.path.dirname(os.path.abspath(__file__))
PORT = 3000
state = {}


def sandbox(d):
    """The sandbox that all tests share, with port_server.py on 127.0.0.1:3000."""
    if "id" in state:
        return state["id"]
    state["id"] = start_server(d, d.create()["id"])
    return state["id"]


def start_server(d, sandbox_id, port=PORT):
    with open(os.path.join(HERE, "..", "lib", "port_server.py"), "rb") as f:
        source = f.read()
    d.expect(204, "PUT", f"/v1/sandboxes/{sandbox_id}/files?path=/tmp/port_server.py", source)
    d.expect(202, "POST", f"/v1/sandboxes/{sandbox_id}/exec",
             {"cmd": "python3", "args": ["/tmp/port_server.py", str(port)], "background": True})
    wait_for(lambda: d.exec(sandbox_id, f"exec 3<>/dev/tcp/127.0.0.1/{port}", cmd="/bin/bash")["exit_code"] == 0,
             20, "the server in the sandbox listens")
    return sandbox_id


def host(sandbox_id, port=PORT, domain="localhost"):
    return f"{port}-{sandbox_id}.{domain}"


def ask(d, path="/", method="GET", body=None, headers=None, key=True, to=None, chunked=False, timeout=30):
    """One request to the port, on a connection of its own; returns the answer with its body read."""
    conn = http.client.HTTPConnection(d.host, d.port, timeout=timeout * SLOW)
    head = {"Host": f"{to or host(sandbox(d))}:{d.port}"}
    if key:
        head["X-API-Key"] = d.key
    head.update(headers or {})
    try:
        conn.request(method, path, body=body, headers=head, encode_chunked=chunked)
        answer = conn.getresponse()
        answer.data = answer.read()
        return answer
    finally:
        conn.close()


def status(d, expected, *args, **kw):
    r = ask(d, *args, **kw)
    equal(r.status, expected, f"status of {args} {kw} ({r.data[:200]!r})")
    return r


# -- passing on ---------------------------------------------------------------------------------


def test_get(d):
    r = status(d, 200, "/some/path?q=%20a&b")
    lines = r.data.decode().split("\r\n")
    equal(lines[0], "GET /some/path?q=%20a&b HTTP/1.1", "request line at the server")
    head = dict(line.split(": ", 1) for line in lines[1:] if line)
    equal(head["host"], f"{host(sandbox(d))}:{d.port}", "Host stays")
    equal(head["x-forwarded-host"], head["host"], "X-Forwarded-Host")
    equal(head["x-forwarded-for"], "127.0.0.1", "X-Forwarded-For")
    equal(head["x-forwarded-proto"], "http", "X-Forwarded-Proto")
    equal(head["connection"], "close", "one connection for one request")
    ok("x-api-key" not in head, "the key does not reach the server")
    equal(r.getheader("content-type"), "text/plain", "headers of the server come back")


def test_bodies(d):
    equal(status(d, 200, "/data", "POST", b"x" * 100000).data, b"got " + b"x" * 100000, "stated length")
    pieces = (b"part%d " % i for i in range(3))
    equal(status(d, 200, "/data", "POST", pieces, {"Transfer-Encoding": "chunked"}, chunked=True).data,
          b"got part0 part1 part2 ", "chunked")
    contains(status(d, 200, "/x", "POST").data, b"content-length: 0", "POST without a body says so")
    equal(status(d, 200, "/x", "HEAD").data, b"", "HEAD")
    equal(status(d, 304, "/304").data, b"", "304")
    equal(status(d, 200, "/close").data, b"until the end", "delimited by the end of the connection")
    equal(status(d, 200, "/hints").data, b"after hints", "interim answers are skipped")
    equal(status(d, 413, "/early", "POST", b"x" * 50000).data, b"no thanks", "an answer before the body was read")


def test_server_that_answers_and_resets(d):
    for _ in range(5):
        with socket.create_connection((d.host, d.port), timeout=20) as s:
            s.sendall(f"POST /rude HTTP/1.1\r\nHost: {host(sandbox(d))}\r\nX-API-Key: {d.key}\r\n"
                      "Content-Length: 10000000\r\n\r\n".encode() + b"x" * 200000)
            got = s.recv(4096)
            ok(got.startswith(b"HTTP/1.1 413 "), f"its answer arrives: {got[:100]!r}")


def test_expect_continue(d):
    head = (f"POST /data HTTP/1.1\r\nHost: {host(sandbox(d))}\r\nX-API-Key: {d.key}\r\nContent-Length: 3\r\n"
            "Expect: 100-continue\r\nConnection: close\r\n\r\n").encode()
    with socket.create_connection((d.host, d.port), timeout=20) as s:
        s.sendall(head)
        got = s.recv(4096)
        ok(got.startswith(b"HTTP/1.1 100 "), "100 Continue comes")
        s.sendall(b"abc")
        while part := s.recv(4096):
            got += part
    ok(got.endswith(b"got abc"), "and then the answer")
    refused = d.raw(head.replace(b"3000-", b"3999-"))
    ok(refused.startswith(b"HTTP/1.1 502 "), "nobody listens: no 100 before the 502")


def test_streams_and_trailers(d):
    conn = http.client.HTTPConnection(d.host, d.port, timeout=20 * SLOW)
    conn.request("GET", "/ticks", headers={"Host": host(sandbox(d)), "X-API-Key": d.key})
    answer = conn.getresponse()
    first = answer.read(5)
    ok(first == b"tick0", "the first piece comes before the last is made")
    answer.read()
    conn.close()
    raw = d.raw(f"GET /ticks HTTP/1.1\r\nHost: {host(sandbox(d))}\r\nX-API-Key: {d.key}\r\n"
                "Connection: close\r\n\r\n".encode())
    ok(raw.endswith(b"0\r\nx-sum: five\r\n\r\n"), f"trailers pass, a cookie among them does not: {raw[-80:]!r}")


def test_keep_alive(d):
    conn = http.client.HTTPConnection(d.host, d.port, timeout=20 * SLOW)
    for i in range(20):
        conn.request("GET", f"/n{i}", headers={"Host": host(sandbox(d)), "X-API-Key": d.key})
        answer = conn.getresponse()
        contains(answer.read(), b"GET /n%d " % i, "each answer belongs to its request")
        ok(not answer.will_close, "the client's connection stays open")
    conn.close()


def test_large_bodies_in_constant_memory(d):
    size = 256 << 20
    ask(d, "/big", headers={"X-Size": "1000000"})
    before = d.rss_kib()
    conn = http.client.HTTPConnection(d.host, d.port, timeout=60 * SLOW)
    conn.request("GET", "/big", headers={"Host": host(sandbox(d)), "X-API-Key": d.key, "X-Size": str(size)})
    answer, got = conn.getresponse(), 0
    while part := answer.read(1 << 20):
        got += len(part)
    equal(got, size, "bytes down")
    block = b"z" * (1 << 20)
    conn.request("POST", "/sink", body=(block for _ in range(128)),
                 headers={"Host": host(sandbox(d)), "X-API-Key": d.key})
    equal(conn.getresponse().read(), b"%d" % (128 << 20), "bytes up")
    conn.close()
    d.memory_within(before, 16 * 1024)


def test_slow_sides_hold_each_other(d):
    before = d.rss_kib()
    conns = []
    for path, head in (("/big", {"X-Size": str(1 << 30)}), ("/slow-sink", {"Content-Length": str(1 << 30)})):
        s = socket.create_connection((d.host, d.port), timeout=1)
        lines = [f"{'POST' if 'sink' in path else 'GET'} {path} HTTP/1.1", f"Host: {host(sandbox(d))}",
                 f"X-API-Key: {d.key}"] + [f"{k}: {v}" for k, v in head.items()]
        s.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
        conns.append(s)
    sent = 0
    try:
        while sent < 64 << 20:
            sent += conns[1].send(b"z" * 65536)
    except TimeoutError:
        pass
    ok(sent < 64 << 20, "a server that does not read stops the client")
    d.memory_within(before, 24 * 1024)
    contains(status(d, 200, "/others").data, b"GET /others", "others are served meanwhile")
    for s in conns:
        # With a reset: an orderly end would queue up behind what nobody reads.
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        s.close()


def test_client_that_leaves_ends_the_server_side(d):
    sid, conns = sandbox(d), []
    base = established(d, sid)  # a server that sleeps keeps what it was sent
    for _ in range(5):
        s = socket.create_connection((d.host, d.port), timeout=10)
        s.sendall(f"GET /slow-sink HTTP/1.1\r\nHost: {host(sid)}\r\nX-API-Key: {d.key}\r\n\r\n".encode())
        conns.append(s)
    wait_for(lambda: established(d, sid) >= base + 10, 10, "five requests at the server")
    for s in conns:
        s.close()
    wait_for(lambda: established(d, sid) <= base, 10, "their tunnels are closed")


def established(d, sid):
    """TCP connections in the sandbox, each counted at both ends."""
    lines = d.exec(sid, "cat /proc/net/tcp")["stdout"].splitlines()[1:]
    return sum(1 for line in lines if line.split()[3] == "01")


def test_http2(d):
    out = curl(d, "--http2-prior-knowledge", "-X", "POST", "--data-binary", "@-", url="/data", stdin=b"y" * 300000)
    equal(out, b"got " + b"y" * 300000, "POST over HTTP/2")
    contains(curl(d, "--http2-prior-knowledge", url="/a?b"), b"GET /a?b HTTP/1.1\r\nhost: 3000-", "GET over HTTP/2")
    equal(len(curl(d, "--http2-prior-knowledge", "-H", "X-Size: 30000000", url="/big")), 30000000, "download over HTTP/2")


def curl(d, *args, url="/", stdin=None, key=True, sandbox_id=None):
    name = host(sandbox_id or sandbox(d))
    head = ["-H", f"X-API-Key: {d.key}"] if key else []
    r = subprocess.run(["curl", "-sS", "--max-time", str(int(30 * SLOW)), "--resolve", f"{name}:{d.port}:127.0.0.1",
                        *head, *args, f"http://{name}:{d.port}{url}"],
                       input=stdin, capture_output=True, timeout=60 * SLOW, check=False)
    if r.returncode:
        raise Failure(f"curl {args}: status {r.returncode}: {r.stderr.decode()}")
    return r.stdout


def websocket(d, sandbox_id=None, path="/ws", key=True, headers=None):
    head = {"X-API-Key": d.key} if key else {}
    return ws.WebSocket(d.host, d.port, path, {**head, **(headers or {})},
                        authority=f"{host(sandbox_id or sandbox(d))}:{d.port}")


def test_websocket(d):
    with websocket(d) as s:
        for text in ("hello", "x" * 70000, "again"):
            s.send_text(text)
            equal(s.recv()[1], text.encode(), "echo")
        big = os.urandom(4 << 20)
        sender = threading.Thread(target=s.send, args=(ws.BINARY, big))
        sender.start()
        equal(s.recv()[1], big, "4 MiB echoed")
        sender.join()


def test_other_upgrades_are_raw(d):
    with socket.create_connection((d.host, d.port), timeout=20) as s:
        s.sendall(f"GET /raw HTTP/1.1\r\nHost: {host(sandbox(d))}\r\nX-API-Key: {d.key}\r\nConnection: Upgrade\r\n"
                  "Upgrade: raw\r\n\r\n".encode())
        got = b""
        while b"welcome\n" not in got:
            got += s.recv(4096)
        ok(got.startswith(b"HTTP/1.1 101 "), "101")
        s.sendall(b"abc")
        equal(s.recv(10), b"cba", "bytes as they are")
    plain = ask(d, "/x", headers={"Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c", "HTTP2-Settings": "AAA"})
    ok(b"pgrade" not in plain.data and b"http2" not in plain.data, "h2c is no upgrade")


# -- who and where ------------------------------------------------------------------------------


def test_errors(d):
    sid = sandbox(d)
    for to, expected, text in (
            (host(sid, 0), 400, b"invalid port"), (host(sid, 65536), 400, b"invalid port"),
            (f"99999999999999999999-{sid}.localhost", 400, b"invalid port"),
            (host("sb" + "0" * 25), 404, b"no sandbox"), (host("sb123"), 404, b"not a sandbox id"),
            (host(sid, 3999), 502, b"nothing listens on port 3999")):
        r = status(d, expected, to=to)
        contains(r.data, text, f"text for {to}")
        equal(r.getheader("content-type"), "text/plain; charset=utf-8", "plain text for people")
    r = status(d, 502, to=host(sid, 3999), headers={"Accept": "application/json"})
    equal(json.loads(r.data)["error"]["code"], "port_not_open", "JSON for programs")
    contains(status(d, 200, to=host(sid).upper()).data, b"GET /", "names have no case")
    contains(status(d, 200, to=host(sid, domain="some.other.example")).data, b"GET /", "any domain")
    equal(status(d, 405, method="TRACE").status, 405, "TRACE")


def test_ended(d):
    gone = d.create()["id"]
    d.delete(gone)
    contains(status(d, 409, to=host(gone)).data, b"not running", "an ended sandbox")


def test_paused(d):
    """A request wakes the sandbox up where that was asked for, is refused where not."""
    for resume in (False, True):
        sid = start_server(d, d.create(auto_resume=resume)["id"])
        d.expect(200, "POST", f"/v1/sandboxes/{sid}/pause")
        if resume:
            contains(status(d, 200, to=host(sid)).data, b"GET /", "resumed by a request")
            equal(d.expect(200, "GET", f"/v1/sandboxes/{sid}").json()["status"], "running", "and stays so")
        else:
            contains(status(d, 409, to=host(sid)).data, b"paused", "refused")
            equal(status(d, 401, to=host(sid), key=False).status, 401, "and not for strangers")
        d.delete(sid)


def test_strangers_wake_nobody_up(d):
    sid = start_server(d, d.create(auto_resume=True)["id"])
    d.expect(200, "POST", f"/v1/sandboxes/{sid}/pause")
    status(d, 401, to=host(sid), key=False)
    status(d, 403, "/?aviary_token=1.x", to=host(sid), key=False)
    equal(d.expect(200, "GET", f"/v1/sandboxes/{sid}").json()["status"], "paused", "still")
    d.delete(sid)


def test_use(d):
    """Requests keep a sandbox from being idle, a WebSocket only while something is said."""
    sid = start_server(d, d.create(timeout_sec=3)["id"])
    # What the test itself started counts as use too; the server must not be one of them.
    d.exec(sid, "setsid python3 /tmp/port_server.py 3100 >/dev/null 2>&1 </dev/null & sleep 0.5; pkill -f 'py 3000'")
    wait_for(lambda: ask(d, to=host(sid, 3100)).status == 200, 5, "the new server answers")
    end = time.monotonic() + 4.5
    while time.monotonic() < end:
        status(d, 200, to=host(sid, 3100))
        time.sleep(0.5)
    equal(d.expect(200, "GET", f"/v1/sandboxes/{sid}").json()["status"], "running", "used for longer than its time-out")
    with ws.WebSocket(d.host, d.port, "/ws", {"X-API-Key": d.key}, authority=host(sid, 3100)) as s:
        end = time.monotonic() + 4
        while time.monotonic() < end:
            s.send_text("x")
            s.recv()
            time.sleep(0.5)
        equal(d.expect(200, "GET", f"/v1/sandboxes/{sid}").json()["status"], "running", "used by a WebSocket")
        wait_for(lambda: d.expect(200, "GET", f"/v1/sandboxes/{sid}").json()["status"] == "paused", 20,
                 "a silent WebSocket is no use")
    d.delete(sid)


def test_by_headers(d):
    sid = sandbox(d)
    r = d.expect(200, "GET", "/v1/x", headers={"X-Aviary-Sandbox": sid, "X-Aviary-Port": "3000", "Cookie": "a=b"})
    contains(r.body, b"GET /v1/x HTTP/1.1\r\nhost: localhost:3000\r\n", "routed by headers")
    ok(b"a=b" not in r.body, "cookies of the API's host do not reach a sandbox")
    equal(r.headers["content-security-policy"], "sandbox", "nothing may run at the API's origin")
    equal(r.headers["cache-control"], "no-store", "nor be stored for it")
    r = d.expect(200, "GET", "/cookies", headers={"X-Aviary-Sandbox": sid, "X-Aviary-Port": "3000"})
    equal(r.headers.get("set-cookie"), None, "nor cookies be set")
    d.expect(400, "GET", "/", headers={"X-Aviary-Sandbox": sid})
    d.expect(400, "GET", "/", headers={"X-Aviary-Sandbox": sid, "X-Aviary-Port": "x"})
    d.expect(401, "GET", "/", headers={"X-Aviary-Sandbox": sid, "X-Aviary-Port": "3000"}, key=False)


def test_private(d):
    r = status(d, 401, key=False)
    contains(r.data, b"private", "says why")
    contains(r.data, b"aviary url", "and how")
    equal(status(d, 401, key=False, headers={"X-API-Key": "av_" + "0" * 40}).status, 401, "a wrong key")
    r = status(d, 200, key=False, headers={"Authorization": f"Bearer {d.key}"})
    ok(d.key.encode() not in r.data, "the key does not reach the server as a Bearer either")
    with_own = status(d, 200, headers={"Authorization": "Basic b3duOmtleQ==", "X-Other": "1"})
    contains(with_own.data, b"Basic b3duOmtleQ==", "what is not ours passes")
    for name in ("X_Api_Key", "X-Custom", "Cookie2"):
        ok(d.key.encode() not in status(d, 200, headers={name: d.key}).data, f"a key in {name} does not pass")
    try:
        websocket(d, key=False).abort()
        raise Failure("a WebSocket without a key was let in")
    except ws.HandshakeError as e:
        equal(e.status, 401, "a WebSocket without a key")


def test_public(d):
    sid = start_server(d, d.create()["id"])
    status(d, 401, key=False, to=host(sid))
    d.expect(200, "PATCH", f"/v1/sandboxes/{sid}", {"public_ports": [PORT]})
    r = status(d, 200, key=False, to=host(sid))
    contains(r.data, b"GET / HTTP/1.1", "everybody")
    ok(d.key.encode() not in status(d, 200, to=host(sid)).data, "a key does not reach a public port")
    status(d, 401, key=False, to=host(sid, 3001))
    with websocket(d, sid, key=False) as s:
        s.send_text("hi")
        equal(s.recv()[1], b"hi", "WebSocket to a public port")
    made = signed(d, sid)
    equal((made["url"], made["public"], made["expires_at"]), (f"http://{host(sid)}:{d.port}/", True, None), "its URL")
    d.expect(200, "PATCH", f"/v1/sandboxes/{sid}", {"public_ports": []})
    status(d, 401, key=False, to=host(sid))
    d.delete(sid)


# -- signed URLs ---------------------------------------------------------------------------------


def signed(d, sandbox_id=None, **body):
    return d.expect(200, "POST", f"/v1/sandboxes/{sandbox_id or sandbox(d)}/url", {"port": PORT, **body}).json()


def target(url):
    return "/" + url.split("/", 3)[3]


def test_signed_url(d):
    sid = sandbox(d)
    made = signed(d, path="/a?b=c", expires_sec=60)
    ok(made["url"].startswith(f"http://3000-{sid}.localhost:{d.port}/a?b=c&aviary_token="), made["url"])
    equal((made["port"], made["public"]), (3000, False), "port and public")
    path = target(made["url"])
    r = status(d, 200, path, key=False)
    contains(r.data, b"GET /a?b=c HTTP/1.1", "a program is answered at once; the token does not reach the server")
    browser = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
    r = status(d, 303, path, key=False, headers=browser)
    equal(r.getheader("location"), "/a?b=c", "a browser is sent on without the token")
    cookie = r.getheader("set-cookie")
    ok(re.fullmatch(r"aviary_port=[0-9a-f.]+; Path=/; Max-Age=\d+; HttpOnly; SameSite=Lax", cookie), cookie)
    pair = cookie.split(";")[0]
    r = status(d, 200, "/x", key=False, headers={"Cookie": f"mine=1; {pair}"})
    contains(r.data, b"cookie: mine=1\r\n", "the cookie lets in and does not reach the server")
    with websocket(d, key=False, headers={"Cookie": pair}) as s:
        s.send_text("hi")
        equal(s.recv()[1], b"hi", "WebSocket by cookie")
    with websocket(d, key=False, path=target(signed(d, path="/ws")["url"])) as s:
        s.send_text("hi")
        equal(s.recv()[1], b"hi", "WebSocket by token")
    tossed = f"aviary_port=1.junk; aviary_port=; {pair}"
    status(d, 200, "/x", key=False, headers={"Cookie": tossed})
    for odd, expected in (("//evil.example/", "/.//evil.example/"), ("/\\evil.example", "/./\\evil.example")):
        r = status(d, 303, odd + target(made["url"])[len("/a?b=c&"):].join(("?", "")), key=False, headers=browser)
        equal(r.getheader("location"), expected, "the redirect stays on this host")


def test_cookie_is_for_the_visitor(d):
    """Pages of other hosts cannot use it, though a browser would send it along."""
    sid = sandbox(d)
    pair = {"Cookie": f"aviary_port={signed(d)['url'].split('=')[1]}"}
    own = f"http://{host(sid)}:{d.port}"
    site, mode, dest = "Sec-Fetch-Site", "Sec-Fetch-Mode", "Sec-Fetch-Dest"
    for allowed in ({}, {"Origin": own}, {"Origin": own.upper().replace("HTTP", "http")}, {site: "same-origin"}, {site: "none"},
                    {site: "cross-site", mode: "navigate", dest: "document"}):
        status(d, 200, "/x", key=False, headers={**pair, **allowed})
    evil = f"http://{host('sb' + '1' * 25)}:{d.port}"
    for refused in ({"Origin": evil}, {"Origin": "null"}, {"Origin": f"{own}.evil"}, {"Origin": own, site: "same-site"},
                    {site: "same-site", mode: "no-cors", dest: "script"}, {site: "cross-site"},
                    {site: "same-site", mode: "navigate", dest: "iframe"}):
        contains(status(d, 403, "/x", key=False, headers={**pair, **refused}).data, b"another host", str(refused))
    status(d, 403, "/x", "POST", b"", key=False,
           headers={**pair, site: "cross-site", mode: "navigate", dest: "document"})
    try:
        websocket(d, key=False, headers={**pair, "Origin": evil}).abort()
        raise Failure("a page of another sandbox opened a WebSocket")
    except ws.HandshakeError as e:
        equal(e.status, 403, "WebSocket")


def test_signed_url_is_for_one_port_of_one_sandbox(d):
    sid, other = sandbox(d), d.create()["id"]
    token = signed(d)["url"].split("aviary_token=")[1]
    path = f"/?aviary_token={token}"
    status(d, 200, path, key=False)
    for to in (host(sid, 3001), host(other)):
        status(d, 403, path, key=False, to=to)
        status(d, 403, "/", key=False, to=to, headers={"Cookie": f"aviary_port={token}"})
    expiry, mac = token.split(".")
    for bad in (f"{int(expiry) + 1}.{mac}", f"{expiry}.{mac[:-1]}{'0' if mac[-1] != '0' else '1'}", f"0{expiry}.{mac}",
                f"+{expiry}.{mac}", f"0.{mac}", mac, "", "x" * 5000, "%00", f"{expiry}."):
        status(d, 403, f"/?aviary_token={bad}", key=False)
    d.delete(other)


def test_signed_url_expires(d):
    made = signed(d, expires_sec=1)
    path = target(made["url"])
    wait_for(lambda: ask(d, path, key=False).status == 403, 10, "expired")
    r = status(d, 403, path, key=False)
    contains(r.data, b"expired at 20", "says when")
    contains(r.data, b"aviary url", "and what to do")
    cookie = f"aviary_port={path.split('=')[1]}"
    status(d, 403, "/", key=False, headers={"Cookie": cookie})
    status(d, 200, "/", headers={"Cookie": cookie})


def test_signed_url_survives_a_restart(d):
    path = target(signed(d)["url"])
    daemon = d.pids()["daemon"]
    os.kill(daemon, 9)
    wait_for(lambda: d.pids().get("daemon") not in (None, daemon), 20, "a new daemon")
    wait_for(lambda: answers(d, path), 20, "the URL works on")


def answers(d, path):
    try:
        return ask(d, path, key=False).status == 200
    except OSError:
        return False


def test_url_requests(d):
    sid = sandbox(d)
    for body, text in (({}, "'port' is needed"), ({"port": 0}, "port"), ({"port": 65536}, "port"), ({"port": "x"}, "port"),
                       ({"port": 1, "expires_sec": 0}, "expires_sec"), ({"port": 1, "expires_sec": 10 ** 9}, "expires_sec"),
                       ({"port": 1, "path": "x"}, "path"), ({"port": 1, "path": "/ x"}, "path"),
                       ({"port": 1, "path": "/\r\nx"}, "path"), ({"port": 1, "path": "/#x"}, "path")):
        contains(d.expect(400, "POST", f"/v1/sandboxes/{sid}/url", body).message, text, str(body))
    d.expect(404, "POST", f"/v1/sandboxes/sb{'0' * 25}/url", {"port": 1})
    r = d.expect(400, "POST", f"/v1/sandboxes/{sid}/url", {"port": 1}, headers={"Host": "10.1.2.3:80"})
    contains(r.message, "--domain", "an address takes no label")
    r = d.expect(200, "POST", f"/v1/sandboxes/{sid}/url", {"port": 1}, headers={"Host": "av.example:80"})
    contains(r.json()["url"], f"http://1-{sid}.av.example:80/?", "the name under which the API was asked")


def test_domain(d):
    """With a name for ports, behind a proxy that speaks TLS."""
    sid = sandbox(d)
    plain = list(d.args)
    d.stop()
    d.args += ["--domain", "https://ports.example"]
    d.start()
    try:
        made = signed(d)["url"]
        ok(made.startswith(f"https://3000-{sid}.ports.example/?aviary_token="), made)
        to = host(sid, domain="ports.example")
        equal(status(d, 404).status, 404, "other names are not served")
        r = status(d, 200, to=to, headers={"X-Forwarded-For": "6.6.6.6"})
        contains(r.data, b"x-forwarded-for: 6.6.6.6, 127.0.0.1\r\n", "what the proxy says stays")
        contains(r.data, b"x-forwarded-proto: https\r\n", "as the client sees it")
        r = status(d, 303, target(made), to=to, key=False, headers={"Accept": "text/html"})
        ok(r.getheader("set-cookie").startswith("__Host-aviary_port="), "a guarded cookie")
        ok(r.getheader("set-cookie").endswith("; Secure"), "only over TLS")
    finally:
        d.stop()
        d.args = plain
        d.start()


def test_public_url(d):
    """Behind a proxy that speaks TLS, without a domain of its own for ports: one name for both kinds of URLs."""
    sid = sandbox(d)
    plain = list(d.args)
    asked = d.expect(200, "POST", f"/v1/sandboxes/{sid}/files/url", {"path": "/f"}, headers={"X-Forwarded-Proto": "https"}).json()["url"]
    ok(asked.startswith("http://"), f"a header is not believed: {asked}")
    d.stop()
    d.args += ["--public-url", "https://av.example/"]
    d.start()
    try:
        made = d.expect(200, "POST", f"/v1/sandboxes/{sid}/files/url", {"path": "/etc/hostname"}).json()["url"]
        ok(made.startswith(f"https://av.example/v1/sandboxes/{sid}/files/signed?path=/etc/hostname&token="), made)
        d.expect(200, "GET", made.removeprefix("https://av.example"), key=False)
        made = signed(d)["url"]
        ok(made.startswith(f"https://3000-{sid}.av.example/?aviary_token="), made)
        for name, scheme in (("av.example", "https"), ("AV.example.", "https"), ("xav.example", "http"), ("localhost", "http")):
            contains(status(d, 200, to=host(sid, domain=name)).data, f"x-forwarded-proto: {scheme}\r\n".encode(), name)
        r = status(d, 303, target(made), to=host(sid, domain="av.example"), key=False, headers={"Accept": "text/html"})
        ok(r.getheader("set-cookie").endswith("; Secure"), "a cookie for TLS")
    finally:
        d.stop()
        d.args = plain
        d.start()


# -- hostile ------------------------------------------------------------------------------------


def test_t37_hostile_servers(d):
    for name in ("cl-te", "two-lengths", "fold", "lf", "nul", "version", "status", "ssh", "empty", "half-head", "101",
                 "huge-head", "many-headers"):
        r = status(d, 502, f"/bad/{name}", headers={"Accept": "application/json"})
        equal(json.loads(r.data)["error"]["code"], "upstream_error", name)
    for name in ("chunk", "short"):
        try:
            ask(d, f"/bad/{name}")
            raise Failure(f"{name}: a broken answer looks whole")
        except (http.client.HTTPException, ConnectionError):
            pass
    conn = http.client.HTTPConnection(d.host, d.port, timeout=20)
    for path, expected in (("/bad/two-answers", b"first"), ("/n", b"GET /n ")):
        conn.request("GET", path, headers={"Host": host(sandbox(d)), "X-API-Key": d.key})
        contains(conn.getresponse().read(), expected, "no answer is taken for another request's")
    conn.close()


def test_t37_response_headers(d):
    r = status(d, 200, "/cookies")
    equal(r.headers.get_all("set-cookie"), ["a=1; Path=/", "b=2; HttpOnly"], "cookies: no Domain, none of ours")
    for name in ("clear-site-data", "alt-svc", "x-hop"):
        equal(r.getheader(name), None, f"{name} does not pass")
    equal(r.headers.get_all("server"), ["mine"], "one Server")
    equal(r.headers.get_all("date"), ["today"], "one Date")
    here = f"http://{host(sandbox(d))}:{d.port}"
    for to, expected in (("", here + "/landed?x=1"), ("http://127.0.0.1:3000", here + "/"),
                         ("http://[::1]:3000/a", here + "/a"), ("/relative", "/relative"),
                         ("http://localhost:3001/", "http://localhost:3001/"),
                         ("http://169.254.169.254/", "http://169.254.169.254/"),
                         ("http://localhost:3000@evil.example/", "http://localhost:3000@evil.example/"),
                         ("http://localhost:3000.evil.example/", "http://localhost:3000.evil.example/")):
        r = status(d, 302, "/redirect", headers={"X-To": to} if to else {})
        equal(r.getheader("location"), expected, f"Location {to}")


def test_t37_request_headers(d):
    r = status(d, 200, headers={
        "X-Forwarded-For": "6.6.6.6", "X_Forwarded_For": "6.6.6.6", "X-Forwarded-Proto": "https", "Forwarded": "for=6.6.6.6",
        "X-Real-IP": "6.6.6.6", "X-Aviary-Anything": "1", "Connection": "X-Secret", "X-Secret": "1", "TE": "trailers",
        "Proxy-Authorization": "Basic eA==", "Cookie": "a=1; aviary_port=x; b=2; __Host-aviary_port=y",
        "Content_Length": "7", "Transfer_Encoding": "chunked"})
    for text in (b"6.6.6.6", b"aviary-any", b"secret", b"te: ", b"proxy-auth", b"aviary_port", b"content_length",
                 b"transfer_encoding", b"https"):
        ok(text not in r.data, f"{text} does not pass: {r.data!r}")
    contains(r.data, b"cookie: a=1; b=2\r\n", "other cookies pass")


def test_t37_smuggling(d):
    name = host(sandbox(d))
    start = f"POST /x HTTP/1.1\r\nHost: {name}\r\nX-API-Key: {d.key}\r\n"
    inner = f"GET /smuggled HTTP/1.1\r\nHost: {name}\r\n\r\n"
    attacks = {
        "CL.TE": "Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nG",
        "TE.CL": "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n5c\r\n" + inner + "0\r\n\r\n",
        "TE.TE": "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n" + inner,
        "tab": "Transfer-Encoding:\tchunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n" + inner,
        "fold": "X: a\r\n Transfer-Encoding: chunked\r\n\r\n" + inner,
        "space": "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n" + inner,
        "lengths": "Content-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        "signed": "Content-Length: +3\r\n\r\nabc",
        "lf": "X: a\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "two hosts": "Host: other\r\n\r\n",
        "extension": "Transfer-Encoding: chunked\r\n\r\n1;" + "a" * 400 + "\r\nx\r\n0\r\n\r\n",
    }
    for what, rest in attacks.items():
        got = d.raw((start + rest).encode())
        ok(re.match(rb"HTTP/1\.1 (400|501) ", got), f"{what}: {got[:100]!r}")
        ok(b"smuggled" not in got, f"{what} smuggled")


def test_t37_host_confusion(d):
    name, key = host(sandbox(d)), d.key
    api, port = b'"status"', b"GET /health"

    def raw(text):
        return d.raw(text.encode())

    absolute = raw(f"GET http://{name}/health HTTP/1.1\r\nHost: localhost\r\nX-API-Key: {key}\r\nConnection: close\r\n\r\n")
    ok(absolute.startswith(b"HTTP/1.1 400 "), "target and Host that differ")
    contains(raw(f"GET http://{name}/health HTTP/1.1\r\nHost: {name}\r\nX-API-Key: {key}\r\nConnection: close\r\n\r\n"),
             port, "an absolute target names the port")
    contains(raw("GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"), api, "the API at its own name")
    for bad in (f"{name}:x", f"a@{name}", f"{name}/", f"{name} x", f"{name},localhost"):
        ok(raw(f"GET /health HTTP/1.1\r\nHost: {bad}\r\nConnection: close\r\n\r\n").startswith(b"HTTP/1.1 400 "), bad)
    for shape in (f"3000-{sandbox(d)[:-1]}.localhost", "3000-sb.localhost", f"0-{sandbox(d)}.localhost"):
        got = raw(f"GET /health HTTP/1.1\r\nHost: {shape}\r\nConnection: close\r\n\r\n")
        ok(api not in got and re.match(rb"HTTP/1\.1 40[04] ", got), f"the API is not served at {shape}")
    r = status(d, 200, "/v1/sandboxes")
    contains(r.data, b"GET /v1/sandboxes HTTP/1.1", "no path of the API is served at a port's name")
    preflight = status(d, 401, "/x", "OPTIONS", key=False, headers={"Origin": "http://evil.example"})
    equal(preflight.getheader("access-control-allow-origin"), None, "no CORS from us")


def test_many_websockets(d):
    """As many as one sandbox may have, all alive; more are refused, and all is well after."""
    sid = start_server(d, d.create()["id"])
    before = d.rss_kib()
    socks = [websocket(d, sid) for _ in range(500)]
    for s in socks:
        s.send_text("ping")
    for s in socks:
        equal(s.recv()[1], b"ping", "each has its echo")
    d.memory_within(before, 500 * 24)
    more = []
    try:
        for _ in range(20):
            more.append(websocket(d, sid))
        raise Failure("more than 512 were let in")
    except ws.HandshakeError as e:
        equal(e.status, 429, "over the limit")
    for s in socks + more:
        s.abort()
    wait_for(lambda: ask(d, "/n", to=host(sid)).status == 200, 10, "served again")
    d.delete(sid)


main(globals())
