# SPDX-License-Identifier: Apache-2.0
"""HTTPS of the daemon: what is negotiated, all that works over it, certificates that change, and who does not behave."""

import hashlib
import http.client
import json
import os
import resource
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import threading
import time
import urllib.parse

import ws
from aviary_test import Daemon, SLOW, contains, equal, main, ok, program, wait_for
from certs import Authority, openssl

HERE = os.path.dirname(os.path.abspath(__file__))
MIB = 1 << 20
H2_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"
HEALTH = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
state = {}
authority = Authority()
CERT, KEY = authority.server("first")
authority.server("second")
authority.server("third", days=10)
# What the daemon is given, so that it can be replaced.
LIVE_CERT, LIVE_KEY = authority.path("live.crt"), authority.path("live.key")


def install(name, key=None):
    """Puts a certificate and a key in place, by rename as certbot does."""
    for kind, source in (("crt", name), ("key", key or name)):
        shutil.copy(authority.path(f"{source}.{kind}"), authority.path("new"))
        os.rename(authority.path("new"), authority.path(f"live.{kind}"))


def context(alpn=None, low=None, high=None):
    c = ssl.create_default_context(cafile=authority.root)
    if alpn:
        c.set_alpn_protocols(alpn)
    c.minimum_version = low or ssl.TLSVersion.TLSv1_2
    if high:
        c.maximum_version = high
    return c


def connect(d, c=None, name=None):
    sock = socket.create_connection((d.host, d.port), timeout=20 * SLOW)
    try:
        return (c or context()).wrap_socket(sock, server_hostname=name or "localhost")
    except BaseException:
        sock.close()
        raise


def until_end(sock):
    got = b""
    while True:
        try:
            part = sock.recv(65536)
        except (ConnectionError, ssl.SSLError):
            return got
        if not part:
            return got
        got += part


def one_answer(sock):
    """A whole answer with Content-Length."""
    answer = http.client.HTTPResponse(sock)
    answer.begin()
    return answer.status, answer.read()


def serial(d):
    with connect(d) as s:
        return int(s.getpeercert()["serialNumber"], 16)


def sandbox(d):
    if "id" not in state:
        state["id"] = d.create()["id"]
    return state["id"]


# -- what is negotiated -------------------------------------------------------------------------


def test_silent_and_half_open_connections_to_look_at_later(d):
    """They stay open while the other tests run."""
    state["silent"] = [socket.create_connection((d.host, d.port), timeout=60 * SLOW) for _ in range(200)]
    hello = ssl.create_default_context()
    for s in state["silent"][::2]:  # half of them: a whole ClientHello, and then nothing
        out = ssl.MemoryBIO()
        half = hello.wrap_bio(ssl.MemoryBIO(), out, server_hostname="localhost")
        try:
            half.do_handshake()
        except ssl.SSLWantReadError:
            pass
        s.sendall(out.read())
    state["silent_since"] = time.monotonic()
    equal(d.expect(200, "GET", "/health", key=False).json()["status"], "ok", "others are served meanwhile")


def test_alpn(d):
    for offer, agreed in ((["h2"], "h2"), (["http/1.1"], "http/1.1"), (["http/1.1", "h2"], "h2"),
                          (["spdy/3", "http/1.1"], "http/1.1"), (None, None)):
        with connect(d, context(offer)) as s:
            equal(s.selected_alpn_protocol(), agreed, f"for {offer}")
            if agreed == "h2":
                s.sendall(H2_PREFACE)
                equal(s.recv(9)[3], 4, "SETTINGS comes back")
            else:
                s.sendall(HEALTH)
                equal(one_answer(s)[0], 200, f"HTTP/1.1 for {offer}")
    try:
        connect(d, context(["spdy/3"])).close()
        ok(False, "no common protocol was accepted")
    except ssl.SSLError as e:
        contains(str(e).upper().replace(" ", "_"), "NO_APPLICATION_PROTOCOL", "and said so")


def test_alpn_holds(d):
    with connect(d, context(["h2"])) as s:
        s.sendall(HEALTH)
        ok(b"200" not in until_end(s), "no HTTP/1.1 where h2 was agreed on")
    with connect(d, context(["http/1.1"])) as s:
        s.sendall(H2_PREFACE)
        ok(until_end(s).startswith(b"HTTP/1.1 "), "no HTTP/2 where http/1.1 was agreed on")


def test_versions_and_ciphers(d):
    for version, name in ((ssl.TLSVersion.TLSv1_2, "TLSv1.2"), (ssl.TLSVersion.TLSv1_3, "TLSv1.3")):
        with connect(d, context(low=version, high=version)) as s:
            equal(s.version(), name, "version")
            ok("GCM" in s.cipher()[0] or "POLY1305" in s.cipher()[0], f"cipher {s.cipher()}")
            equal(s.compression(), None, "no compression")
    old = context(low=ssl.TLSVersion.TLSv1, high=ssl.TLSVersion.TLSv1_1)
    old.set_ciphers("ALL:@SECLEVEL=0")
    cbc = context(high=ssl.TLSVersion.TLSv1_2)
    cbc.set_ciphers("ECDHE+AES:!AESGCM:!AESCCM")
    for c, what in ((old, "TLS 1.1"), (cbc, "CBC")):
        try:
            connect(d, c).close()
            ok(False, f"{what} was accepted")
        except (ssl.SSLError, ConnectionError):
            pass


def test_sessions_are_resumed(d):
    c = context(high=ssl.TLSVersion.TLSv1_2)
    with connect(d, c) as s:
        session = s.session
    sock = socket.create_connection((d.host, d.port), timeout=20 * SLOW)
    with c.wrap_socket(sock, server_hostname="localhost", session=session) as s:
        ok(s.session_reused, "by ticket")
        s.sendall(HEALTH)
        equal(one_answer(s)[0], 200, "and it works")


def test_curl(d):
    for args, version in (([], "2"), (["--http1.1"], "1.1"), (["--http2", "--tls-max", "1.2"], "2")):
        out = subprocess.run(["curl", "-sS", "--cacert", authority.root, *args, "-o", "/dev/null", "-w",
                              "%{http_version} %{http_code}", d.url + "/health"], capture_output=True, text=True,
                             timeout=30 * SLOW, check=False)
        equal(out.stdout, f"{version} 200", f"curl {args}: {out.stderr}")


def test_plain_http_is_told(d):
    for data in (HEALTH, b"POST /v1/sandboxes HTTP/1.1\r\nContent-Length: 100000\r\n\r\n" + b"x" * 100000, H2_PREFACE,
                 b"options * HTTP/1.0\r\n\r\n"):
        got = d.raw(data)
        ok(got.startswith(b"HTTP/1.1 400 "), f"{data[:20]!r}: {got[:100]!r}")
        contains(json.loads(got.split(b"\r\n\r\n", 1)[1])["error"]["message"], "https://", "how to mend it")
    ok(d.metrics()['aviary_tls_handshakes_total{result="plain_http"}'] >= 4, "counted")


# -- what works over it -------------------------------------------------------------------------


def test_addresses_say_https(d):
    equal(urllib.parse.urlsplit(d.url).scheme, "https", "the ready line")
    with open(d.credentials, encoding="ascii") as f:
        equal(json.load(f)["url"], d.url, "credentials.json")
    with open(os.path.join(d.run, "url"), encoding="ascii") as f:
        equal(f.read().strip(), d.url, "<run>/url")
    r = d.expect(200, "POST", f"/v1/sandboxes/{sandbox(d)}/url", {"port": 3000})
    contains(r.body, b'"https://3000-' + sandbox(d).encode() + b".sb.test", "a port")
    r = d.expect(200, "POST", f"/v1/sandboxes/{sandbox(d)}/files/url", {"path": "/etc/hostname"})
    contains(r.body, f'"https://{d.host}:{d.port}/'.encode(), "a file")


def wss(d, path, **kw):
    return ws.WebSocket(d.host, d.port, path, tls=context(["http/1.1"]), server_name="localhost",
                        headers={"X-API-Key": d.key}, **kw)


def test_websocket(d):
    """Frames both ways, and more output than any buffer holds."""
    with wss(d, f"/v1/sandboxes/{sandbox(d)}/exec/stream", protocols=["aviary-frames.v1"]) as s:
        s.send_binary(ws.frame(ws.CONTROL, {"process": {"cmd": "/bin/sh", "args": ["-c", "cat; head -c 40000000 /dev/zero"]},
                                            "stdin": True}))
        s.send_binary(ws.frame(ws.STDIN, b"hello\n") + ws.frame(ws.STDIN, b""))
        seen, last = b"", {}
        while (message := s.recv()) is not None:
            for channel, payload in ws.frames(message[1]):
                seen += payload if channel == ws.STDOUT and len(seen) < 6 else b""
                state["out"] = state.get("out", 0) + (len(payload) if channel == ws.STDOUT else 0)
                last = json.loads(payload) if channel == ws.CONTROL else last
        equal(last["end"]["exitCode"], 0, "exit")
        equal(seen[:6], b"hello\n", "what went in comes out")
        equal(state["out"], 40000006, "all of it")


def serve_port(d):
    if "port" not in state:
        with open(os.path.join(HERE, "..", "lib", "port_server.py"), "rb") as f:
            d.expect(204, "PUT", f"/v1/sandboxes/{sandbox(d)}/files?path=/tmp/port_server.py", f.read())
        d.expect(202, "POST", f"/v1/sandboxes/{sandbox(d)}/exec",
                 {"cmd": "python3", "args": ["/tmp/port_server.py", "3000"], "background": True})
        wait_for(lambda: d.exec(sandbox(d), "exec 3<>/dev/tcp/127.0.0.1/3000", cmd="/bin/bash")["exit_code"] == 0, 20,
                 "the server in the sandbox listens")
        state["port"] = True
    return f"3000-{sandbox(d)}.sb.test"


def test_port_by_wildcard_name(d):
    name = serve_port(d)
    for alpn in (["http/1.1"], ["h2"]):
        out = subprocess.run(["curl", "-sS", "--cacert", authority.root, "--resolve", f"{name}:{d.port}:{d.host}",
                              "--http2" if alpn == ["h2"] else "--http1.1", "-H", f"X-API-Key: {d.key}", "-H",
                              "X-Forwarded-For: 192.0.2.9", f"https://{name}:{d.port}/x"],
                             capture_output=True, text=True, timeout=30 * SLOW, check=False)
        equal(out.returncode, 0, f"curl: {out.stderr}")
        contains(out.stdout, "x-forwarded-proto: https", "the server learns the scheme")
        contains(out.stdout, "x-forwarded-for: 127.0.0.1", "and who asked: nobody is in front")
    url = d.expect(200, "POST", f"/v1/sandboxes/{sandbox(d)}/url", {"port": 3000}).json()["url"]
    path = url.split(".sb.test", 1)[1]
    path = path[path.index("/"):]
    with connect(d, name=name) as s:
        s.sendall(f"GET {path} HTTP/1.1\r\nHost: {name}:{d.port}\r\nConnection: close\r\n"
                  "Sec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: document\r\nAccept: text/html\r\n\r\n".encode())
        head = until_end(s).lower()
        contains(head, b"set-cookie: __host-", "a cookie of this host only")
        contains(head, b"; secure", "that is Secure")


def test_websocket_to_a_port(d):
    name = serve_port(d)
    with ws.WebSocket(d.host, d.port, "/ws", tls=context(["http/1.1"]), server_name=name,
                      authority=f"{name}:{d.port}", headers={"X-API-Key": d.key}) as s:
        s.send_text("through TLS")
        equal(s.recv()[1], b"through TLS", "an echo")


def test_large_files(d):
    size = 160 * MIB
    block = os.urandom(MIB)
    digest = hashlib.sha256(block * 160).hexdigest()
    path = f"/v1/sandboxes/{sandbox(d)}/files?path=/dev/shm/big"
    d.expect(204, "PUT", path, block * 4, timeout=60)
    before = d.rss_kib()
    conn = d.connection(60)
    conn.request("PUT", path, body=(block for _ in range(160)),
                 headers={"X-API-Key": d.key, "Content-Length": str(size)})
    equal(conn.getresponse().status, 204, "upload")
    conn.close()
    equal(d.exec(sandbox(d), "sha256sum </dev/shm/big")["stdout"][:64], digest, "what arrived")
    got = hashlib.sha256()
    with connect(d) as s:
        s.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nX-API-Key: {d.key}\r\n\r\n".encode())
        answer = http.client.HTTPResponse(s)
        answer.begin()
        time.sleep(0.3)  # a reader who is slow at first
        while part := answer.read(MIB):
            got.update(part)
    equal(got.hexdigest(), digest, "what came back")
    d.memory_within(before, 24 * 1024)
    d.exec(sandbox(d), "rm /dev/shm/big")


def test_a_download_nobody_reads_keeps_nothing(d):
    d.exec(sandbox(d), "head -c 60000000 /dev/zero >/dev/shm/zero")
    before, socks = d.rss_kib(), []
    for _ in range(8):
        s = connect(d)
        s.sendall(f"GET /v1/sandboxes/{sandbox(d)}/files?path=/dev/shm/zero HTTP/1.1\r\nHost: x\r\n"
                  f"X-API-Key: {d.key}\r\n\r\n".encode())
        socks.append(s)
    time.sleep(0.5)
    d.memory_within(before, 8 * 4 * 1024)
    n = len(until_exactly(socks[0], 60000000))
    ok(n >= 60000000, f"one that goes on reading gets all of it: {n}")
    for s in socks:
        s.close()
    d.exec(sandbox(d), "rm /dev/shm/zero")


def until_exactly(sock, n):
    got = bytearray()
    while len(got) < n:
        part = sock.recv(MIB)
        if not part:
            break
        got += part
    return got


def test_metrics(d):
    m = d.metrics()
    days = m["aviary_tls_certificate_expiry_seconds"] / 86400
    ok(89 < days <= 90, f"{days} days are left")
    ok(m['aviary_tls_handshakes_total{result="ok"}'] > 5, "handshakes")
    contains(d.log_text(), '"localhost, *.sb.test, 127.0.0.1"', "the log names the names")


# -- the command line ---------------------------------------------------------------------------


def aviary(d, *args, ca=authority.root, data=None, **env):
    clean = {k: v for k, v in os.environ.items() if not k.startswith("AVIARY_")}
    clean["AVIARY_CONFIG_DIR"] = os.path.dirname(d.credentials)
    if ca:
        clean["AVIARY_CA"] = ca
    clean.update(env)
    return subprocess.run([program("aviary"), *args], input=data, stdin=None if data is not None else subprocess.DEVNULL,
                          capture_output=True, timeout=60 * SLOW, check=False, env=clean)


def test_command_line(d):
    equal(aviary(d, "ls", "--json").returncode, 0, "AVIARY_CA")
    equal(aviary(d, "ls", "--ca", authority.root, ca=None).returncode, 0, "--ca")
    r = aviary(d, "exec", sandbox(d), "--", "sh", "-c", "head -c 30000000 /dev/zero; exit 3")
    equal((r.returncode, len(r.stdout)), (3, 30000000), f"output of a stream: {r.stderr}")
    data = os.urandom(5000000)
    for _ in range(5):  # what TLS has taken half must be given to it again as it was
        r = aviary(d, "exec", "-i", sandbox(d), "--", "cat", data=data)
        ok(r.returncode == 0 and r.stdout == data, f"both ways at once: {len(r.stdout)} bytes, {r.stderr}")
    with tempfile.NamedTemporaryFile() as f:
        f.write(data)
        f.flush()
        equal(aviary(d, "cp", f.name, f"{sandbox(d)}:/tmp/copy").returncode, 0, "cp to it")
        equal(aviary(d, "cp", f"{sandbox(d)}:/tmp/copy", f.name + ".back").returncode, 0, "cp from it")
        with open(f.name + ".back", "rb") as back:
            ok(back.read() == data, "the same bytes")
        os.unlink(f.name + ".back")
    equal(aviary(d, "cp", f"{sandbox(d)}:/etc", authority.path("etc")).returncode, 0, "a directory")
    ok(aviary(d, "url", sandbox(d), "3000").stdout.startswith(b"https://3000-"), "aviary url")


def test_command_line_trusts_nobody_else(d):
    other = Authority()
    try:
        for args, env, parts in (
                ((), {"ca": None}, (b"from nobody whom this machine trusts", b"--ca FILE or AVIARY_CA")),
                ((), {"ca": other.root}, (b"is not from an authority in", other.root.encode())),
                (("--ca", authority.root), {"ca": other.root}, None),
                ((), {"ca": "/nonexistent"}, (b"/nonexistent: no certificates",)),
                ((), {"AVIARY_URL": f"https://x.localhost:{d.port}", "AVIARY_API_KEY": "x"}, (b"another name", b"x.localhost")),
                ((), {"AVIARY_URL": f"http://127.0.0.1:{d.port}", "AVIARY_API_KEY": "x"}, (b"begin the URL with https://",)),
        ):
            for command in (("ls",), ("exec", sandbox(d), "--", "true")):
                r = aviary(d, command[0], *args, *command[1:], **env)
                if not parts:
                    equal(r.returncode, 0, f"{args} wins: {r.stderr}")
                    continue
                equal(r.returncode, 125, f"{args} {env} {r.stderr}")
                for part in parts:
                    contains(r.stderr, part, "the message")
                ok(b"start one with" not in r.stderr, "it is there")
        with socket.create_server(("127.0.0.1", 0)) as listener:
            r = aviary(d, "ls", AVIARY_URL=f"http://127.0.0.1:{listener.getsockname()[1]}")
            contains(r.stderr, f"is for {d.url}".encode(), "the key known for https stays, even on loopback")
            listener.setblocking(False)
            try:
                listener.accept()
                ok(False, "nobody was asked in clear")
            except BlockingIOError:
                pass
    finally:
        shutil.rmtree(other.dir)


# -- certificates that change -------------------------------------------------------------------


class Load(threading.Thread):
    """Requests on new connections and on one that is kept, until stop()."""

    def __init__(self, d, keep):
        super().__init__(daemon=True)
        self.d, self.keep, self.over = d, keep, threading.Event()
        self.requests, self.errors = 0, []

    def run(self):
        conn = None
        while not self.over.is_set():
            try:
                conn = conn or connect(self.d)
                conn.sendall(HEALTH)
                status, _ = one_answer(conn)
                if status != 200:
                    self.errors.append(status)
                self.requests += 1
                if not self.keep:
                    conn.close()
                    conn = None
            except Exception as e:  # pylint: disable=broad-except
                self.errors.append(repr(e))
                conn = None
            time.sleep(0.005)

    def stop(self):
        self.over.set()
        self.join(30)
        equal(self.errors[:3], [], "failed requests")
        ok(self.requests > 3, f"{self.requests} requests")


def hup(d):
    os.kill(d.process.pid, signal.SIGHUP)


def test_replaced_under_load(d):
    stream = wss(d, f"/v1/sandboxes/{sandbox(d)}/exec/stream")
    stream.send_json({"type": "start", "cmd": "/bin/sh", "args": ["-c", "while sleep 0.2; do echo tick; done"]})
    loads = [Load(d, False), Load(d, True)]
    for load in loads:
        load.start()
    equal(serial(d), authority.serial("first"), "the first")
    install("second")
    hup(d)
    wait_for(lambda: serial(d) == authority.serial("second"), 10, "a signal brings the second")
    install("third")
    wait_for(lambda: serial(d) == authority.serial("third"), 30, "the third is noticed without one")
    for load in loads:
        load.stop()
    ticks = 0
    while ticks < 30:  # more than were there when the first change came
        ticks += stream.recv_json()["type"] == "stdout"
    stream.abort()
    contains(d.log_text(), "the certificate ends soon", "ten days are a warning")
    ok(d.metrics()["aviary_tls_certificate_expiry_seconds"] < 11 * 86400, "the metric follows")


def test_a_broken_pair_is_not_taken(d):
    before = serial(d)
    install("first", key="second")
    hup(d)
    wait_for(lambda: "is not the key of the first certificate" in d.log_text(), 10, "a line in the log")
    equal(serial(d), before, "the one before stays")
    os.unlink(LIVE_KEY)
    hup(d)
    wait_for(lambda: f"cannot open {LIVE_KEY}" in d.log_text(), 10, "the same for one that is missing")
    equal(serial(d), before, "and it still stays")
    install("first")
    hup(d)
    wait_for(lambda: serial(d) == authority.serial("first"), 10, "a good one is taken")


# -- what is refused at the start ---------------------------------------------------------------


def start_fails(*parts, args=None, cert=LIVE_CERT, key=LIVE_KEY, listen="127.0.0.1:0"):
    with tempfile.TemporaryDirectory(prefix="aviary-test-") as top:
        os.chmod(top, 0o755)
        argv = [program("aviaryd"), "--state", top + "/state", "--run", top + "/run", "--credentials", top + "/c",
                "--listen", listen, *(args or ["--tls-cert", cert, "--tls-key", key])]
        out = subprocess.run(argv, capture_output=True, text=True, timeout=50 * SLOW, check=False,
                             env={"PATH": os.environ["PATH"]})
        ok(out.returncode in (1, 2, 78), f"exit status {out.returncode}: {out.stderr}")
        for part in parts:
            contains(out.stderr, part, "the message")


def test_refused_at_the_start(_):
    expired = authority.server("expired", days=0)
    locked, device = authority.path("locked.key"), authority.path("fifo")
    openssl("pkey", "-in", KEY, "-aes256", "-passout", "pass:x", "-out", locked)
    os.mkfifo(device)
    readable = authority.path("readable.key")
    shutil.copy(KEY, readable)
    os.chmod(readable, 0o644)
    garbage = authority.path("garbage")
    with open(garbage, "wb") as f:
        f.write(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    start_fails("--tls-cert", "--tls-key is not", args=["--tls-cert", CERT])
    start_fails("absolute", cert="here.pem")
    start_fails(f"--tls-cert: cannot open {authority.path('none')}: No such file", cert=authority.path("none"))
    start_fails(f"--tls-key {authority.dir}: it is a directory", key=authority.dir)
    start_fails(f"--tls-key {device}: it is a device or pipe", key=device)
    start_fails(readable, "everybody on this machine can read it (mode 0644)", f"chmod 600 {readable}", key=readable)
    start_fails(f"{locked}: the key is locked with a passphrase", key=locked)
    start_fails("no certificate can be read", garbage, cert=garbage)
    shutil.copy(CERT, authority.path("no.key"))
    os.chmod(authority.path("no.key"), 0o600)
    start_fails("no private key can be read", key=authority.path("no.key"))
    start_fails("is not the key of the first certificate", cert=authority.path("second.crt"))
    start_fails("the certificate expired on", "renew it", cert=expired[0], key=expired[1])
    with open("/proc/sys/net/ipv4/ip_unprivileged_port_start", encoding="ascii") as f:
        if int(f.read()) > 443:
            start_fails("--listen 127.0.0.1:443", "ip_unprivileged_port_start=443", listen="127.0.0.1:443")


def test_the_first_url_is_one_that_the_certificate_is_for(_):
    cert, key = authority.server("named", alt="DNS:*.sb.test,DNS:api.sb.test")
    for args, expected in (([], "https://api.sb.test:"), (["--public-url", "https://a.sb.test:1/"], "https://a.sb.test:1")):
        other = Daemon(args=["--tls-cert", cert, "--tls-key", key, *args])
        try:
            other.start(ready=False)
            with open(other.credentials, encoding="ascii") as f:
                url = json.load(f)["url"]
            ok(url.startswith(expected), f"{args}: {url}")
        finally:
            other.stop()
            other.sweep()
            other.remove_dir()


# -- who does not behave ------------------------------------------------------------------------


def test_garbage(d):
    record = lambda kind, body: bytes([kind, 3, 1]) + len(body).to_bytes(2, "big") + body
    hello = lambda n: b"\x01" + n.to_bytes(3, "big")
    before = d.rss_kib()
    for data in (os.urandom(4096), b"\0" * 65536, b"\x80\x2e\x01\0\2" + b"x" * 100, record(21, b"\2\0" * 20),
                 record(22, hello(0xFFFFFF) + b"x" * 1000), record(22, hello(60000) + b"x" * 16000),
                 b"\x16\3\1\xff\xff" + b"x" * 65535, record(22, b"\1"), record(23, b"x" * 100),
                 record(22, hello(400) + os.urandom(400)), b"SSH-2.0-x\r\n" * 1000):
        with socket.create_connection((d.host, d.port), timeout=20 * SLOW) as s:
            try:
                s.sendall(data)
                s.shutdown(socket.SHUT_WR)
            except OSError:
                pass
            ok(b" 200 " not in until_end(s), f"{data[:10]!r}")
    # Inside of a connection that began well.
    for data in (b"\x17\3\3\xff\xff" + b"x" * 65535, b"\x17\3\3\0\x20" + b"x" * 32, os.urandom(1000)):
        with connect(d) as s:
            raw = socket.socket(fileno=os.dup(s.fileno()))
            raw.settimeout(20 * SLOW)
            with raw:
                raw.sendall(data)
                until_end(raw)
    d.memory_within(before, 8192)
    d.expect(200, "GET", "/health", key=False)


def test_many_pending_handshakes(d):
    """The oldest give way; who was there before, and who comes now, is served."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard), hard))
    socks = []
    try:
        with connect(d) as s:
            for _ in range(1200):
                socks.append(socket.create_connection((d.host, d.port), timeout=20 * SLOW))
            s.sendall(HEALTH)
            equal(one_answer(s)[0], 200, "one that is open stays")
        d.expect(200, "GET", "/health", key=False)
        wait_for(lambda: d.metrics()['aviary_tls_handshakes_total{result="evicted"}'] >= 1200 - 1024, 10, "evictions")
    finally:
        for s in socks:
            s.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_byte_at_a_time(d):
    out = ssl.MemoryBIO()
    half = context().wrap_bio(ssl.MemoryBIO(), out, server_hostname="localhost")
    try:
        half.do_handshake()
    except ssl.SSLWantReadError:
        pass
    hello = out.read()
    with socket.create_connection((d.host, d.port), timeout=20 * SLOW) as s:
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for i in range(len(hello)):
            s.send(hello[i:i + 1])
            if i < 20:
                time.sleep(0.002)
        equal(s.recv(1), b"\x16", "the handshake goes on")


def test_no_renegotiation(d):
    """R in openssl s_client asks for it."""
    p = subprocess.Popen(["openssl", "s_client", "-connect", f"{d.host}:{d.port}", "-tls1_2", "-CAfile", authority.root],
                         stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        time.sleep(0.5)
        out, _ = p.communicate(b"R\n", timeout=20 * SLOW)
    finally:
        p.kill()
    contains(out, b"no renegotiation", "refused")


def test_changes_of_keys_have_an_end(d):
    """K asks for a new key in TLS 1.3: some are fine, endless ones are not."""
    def ask(n):
        p = subprocess.Popen(["openssl", "s_client", "-connect", f"{d.host}:{d.port}", "-tls1_3", "-CAfile",
                              authority.root], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        try:
            time.sleep(0.3)
            for _ in range(n):
                p.stdin.write(b"K\n")
                p.stdin.flush()
                time.sleep(0.002)
            p.stdin.write(HEALTH.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
            p.stdin.flush()
            return p.stdout.read()  # s_client ends with the connection
        except BrokenPipeError:
            return b""
        finally:
            p.kill()
            p.wait()
    contains(ask(10), b" 200 OK", "ten")
    ok(b" 200 OK" not in ask(300), "three hundred are cut")


def test_a_flood_of_handshakes_stops_nobody(d):
    over, made = threading.Event(), []

    def flood():
        c = context()
        while not over.is_set():
            try:
                connect(d, c).close()
                made.append(1)
            except OSError:
                pass

    threads = [threading.Thread(target=flood, daemon=True) for _ in range(4)]
    with connect(d) as s:
        for t in threads:
            t.start()
        times = []
        for _ in range(100):
            began = time.monotonic()
            s.sendall(HEALTH)
            equal(one_answer(s)[0], 200, "an answer meanwhile")
            times.append(time.monotonic() - began)
        over.set()
    for t in threads:
        t.join(30)
    print(f"# {len(made)} handshakes; a request meanwhile took {sorted(times)[50] * 1000:.1f} ms (p50), "
          f"{sorted(times)[98] * 1000:.1f} ms (p99)")
    ok(len(made) > 20, f"there was a flood: {len(made)} handshakes")


def test_silent_ones_are_closed(d):
    """Those of the first test: their time was the head's."""
    left = 10 * SLOW + 3 - (time.monotonic() - state["silent_since"])
    if left > 0:
        time.sleep(left)
    for s in state["silent"]:
        s.settimeout(10 * SLOW)
        until_end(s)
        s.close()
    m = d.metrics()
    ok(sum(m[f'aviary_tls_handshakes_total{{result="{r}"}}'] for r in ("failed", "evicted")) >= 200, "and counted")


def test_the_daemon_restarted(d):
    """The key is given again to the next daemon, which runs as a user who cannot read it."""
    daemon = d.pids()["daemon"]
    with open(f"/proc/{daemon}/status", encoding="ascii") as f:
        uid = int([line for line in f if line.startswith("Uid:")][0].split()[1])
    ok(os.geteuid() != 0 or uid != 0, "the daemon is not root")
    os.kill(daemon, signal.SIGKILL)
    wait_for(lambda: d.pids().get("daemon", daemon) != daemon, 20, "another daemon")
    d.local.conn = None

    def again():
        try:
            return serial(d)
        except OSError:
            return None
    equal(wait_for(again, 20, "it serves at the same port"), authority.serial("first"), "with the same certificate")


install("first")
try:
    main(globals(), args=["--tls-cert", LIVE_CERT, "--tls-key", LIVE_KEY, "--domain", "sb.test"], ca=authority.root)
finally:
    shutil.rmtree(authority.dir, ignore_errors=True)
