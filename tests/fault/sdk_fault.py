#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A hundred operations of libaviary under way (requests, programs, downloads, runs of code) while the daemon is killed,
stopped, stalled, or an enemy answers in its place: each ends with a definite, right error in its time, all is well
afterwards, and neither descriptors nor memory grow. Then thousands of programs through one client, 64 at once.

sdk_fault.py PROGRAM [--execs N]; the program is sdk_fault.c. Two of it run at once: one driven by itself, one with the
library's thread."""
import base64
import hashlib
import json
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import time

import aviary_test
from aviary_test import SLOW, equal, ok, wait_for

PROGRAM = sys.argv[1]
EXECS = int(sys.argv[sys.argv.index("--execs") + 1]) if "--execs" in sys.argv else 2000
PLENTY = 32  # of each kind: 103 operations
# What is to be late is late soon; what is to be found wrong before that has the time in which a machine may stand still.
HASTY = {"FAULT_CONNECT_MS": "500", "FAULT_REQUEST_MS": "800", "FAULT_SILENCE_MS": "1200", "FAULT_RETRY_MS": "300",
         "FAULT_BEGIN_MS": "300"}
PATIENT = {**HASTY, "FAULT_CONNECT_MS": "4000", "FAULT_REQUEST_MS": "5000", "FAULT_SILENCE_MS": "3000"}
MISSING = {"AVIARY_E_BROKEN", "AVIARY_E_UNREACHABLE", "AVIARY_E_TIMEOUT"}


class Run:
    """One sdk_fault."""

    def __init__(self, url, key, sandbox, threaded, env=None):
        e = dict(os.environ, AVIARY_URL=url, AVIARY_API_KEY=key, FAULT_SANDBOX=sandbox, **(env or {}))
        if threaded:
            e["AVIARY_TEST_THREADED"] = "1"
        self.threaded = threaded
        self.p = subprocess.Popen([PROGRAM], env=e, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def tell(self, line):
        self.p.stdin.write(line + "\n")
        self.p.stdin.flush()

    def hear(self):
        line = self.p.stdout.readline()
        ok(line, f"sdk_fault ended with {self.p.poll() if line else self.p.wait(10)}{' threaded' if self.threaded else ''}")
        return line.rstrip("\n")

    def ask(self, line):
        self.tell(line)
        return self.hear()

    def size(self):
        fds, kib = re.fullmatch(r"fds=(\d+) kib=(\d+)", self.ask("size")).groups()
        return int(fds), int(kib)

    def end(self):
        self.tell("quit")
        equal(self.p.wait(20 * SLOW), 0, "sdk_fault's end")


def pair(d, sandbox, url=None, env=None):
    return [Run(url or d.url, d.key, sandbox, threaded, env) for threaded in (False, True)]


def both(runs, line):
    for r in runs:
        r.tell(line)
    return [r.hear() for r in runs]


def outcome(line):
    """{kind: {code: count}}, and how long it took."""
    done, of, ms = map(int, re.match(r"done=(\d+) of=(\d+) ms=(\d+)", line).groups())
    kinds = {}
    for kind, code, n in re.findall(r" (\w+):(\w+)=(\d+)", line):
        kinds.setdefault(kind, {})[code] = int(n)
    equal(done, of, f"operations that ended ({line})")
    return kinds, ms


def judge(runs, what, expected, limit_ms=15000):
    """expected: {kind: codes}; every operation of that kind ended with one of them."""
    for r, line in zip(runs, both(runs, "end")):
        kinds, ms = outcome(line)
        print(f"# {what}{' threaded' if r.threaded else ''}: {line}")
        for kind, codes in expected.items():
            ok(set(kinds.get(kind, {})) <= set(codes), f"{what}: {kind} ended with {kinds.get(kind)}, right is one of {codes}")
        ok(ms < limit_ms * SLOW, f"{what}: the last ended after {ms} ms")


def same_size(runs, before, what, kib=24 * 1024):
    for r, (fds, size) in zip(runs, before):
        now = r.size()
        print(f"# {what}{' threaded' if r.threaded else ''}: {fds} -> {now[0]} descriptors, {size} -> {now[1]} KiB")
        ok(now[0] <= fds + 2, f"{what}: {fds} descriptors before, {now[0]} after")
        ok(now[1] < size + kib or "AVIARY_TEST_SANITIZED" in os.environ or size > 200000,
           f"{what}: {size} KiB before, {now[1]} after")


def busy(d):
    """A sandbox with a file that takes its time."""
    sandbox = d.create(memory_mb=512, pids_max=1024)["id"]
    equal(d.exec(sandbox, "truncate -s 4G /tmp/large")["exit_code"], 0, "a large file")
    return sandbox


def daemon_ready(d):
    def answers():
        try:
            return d.request("GET", "/ready", key=False).status == 200
        except OSError:
            return False
    wait_for(answers, 20, "the daemon is ready")


def test_daemon_killed_and_stalled(d):
    sandbox = busy(d)
    runs = pair(d, sandbox)
    equal(both(runs, "check"), ["AVIARY_OK AVIARY_OK well"] * 2, "all is well")
    both(runs, "begin 4")
    both(runs, "drop")  # what is made once is made
    before = [r.size() for r in runs]

    both(runs, f"begin {PLENTY} unread")
    pid = d.pids()["daemon"]
    os.kill(pid, signal.SIGKILL)
    gone = ["AVIARY_E_BROKEN", "AVIARY_E_UNREACHABLE"]
    # A GET is tried again and may find the new daemon; one that is not ready says so.
    judge(runs, "killed", {"request": gone + ["AVIARY_OK", "AVIARY_E_UNAVAILABLE"], "process": gone, "file": gone, "code": gone})
    wait_for(lambda: d.pids().get("daemon", pid) != pid, 15, "a new daemon")
    daemon_ready(d)
    equal(both(runs, "check"), ["AVIARY_OK AVIARY_OK well"] * 2, "all is well with the new one")

    both(runs, f"begin {PLENTY}")
    pid = d.pids()["daemon"]
    os.kill(pid, signal.SIGSTOP)
    try:
        judge(runs, "stalled", {"request": ["AVIARY_OK", "AVIARY_E_TIMEOUT"], "process": ["AVIARY_E_BROKEN"],
                                "file": ["AVIARY_E_TIMEOUT"], "code": ["AVIARY_E_TIMEOUT"]})
    finally:
        os.kill(pid, signal.SIGCONT)
    equal(both(runs, "check"), ["AVIARY_OK AVIARY_OK well"] * 2, "all is well when it goes on")
    same_size(runs, before, "killed and stalled")
    for r in runs:
        r.end()
    d.delete(sandbox)


def test_daemon_stopped(d):
    sandbox = busy(d)
    runs = pair(d, sandbox)
    both(runs, "begin 8")
    d.stop()
    told = ["AVIARY_E_BROKEN", "AVIARY_E_UNREACHABLE", "AVIARY_E_UNAVAILABLE", "AVIARY_E_SANDBOX_TERMINATED",
            "AVIARY_E_SANDBOX_FAILED", "AVIARY_E_TIMEOUT"]
    judge(runs, "stopped", {"request": told + ["AVIARY_OK"], "process": told, "file": told, "code": told})
    equal(both(runs, "begin 2"), ["begun"] * 2, "nobody there")
    judge(runs, "nobody", {k: ["AVIARY_E_UNREACHABLE"] for k in ("request", "process", "file", "code")})
    for r in runs:
        r.end()
    d.start()
    daemon_ready(d)
    d.delete(sandbox)


class Enemy:
    """Answers in the daemon's place, as its mode says."""

    def __init__(self, sandbox):
        self.mode, self.sandbox, self.over = "silent", sandbox, threading.Event()
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        self.turn = threading.Event()  # set: connections of the mode before go away
        threading.Thread(target=self._accept, daemon=True).start()

    def become(self, mode):
        self.turn.set()
        self.mode, self.turn = mode, threading.Event()

    def close(self):
        self.over.set()
        self.turn.set()
        self.listener.close()

    def _accept(self):
        while not self.over.is_set():
            try:
                s, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(s,), daemon=True).start()

    def _serve(self, s):
        with s:
            s.settimeout(10)
            try:
                while self._answer(s):
                    pass
            except OSError:
                pass

    def _head(self, s):
        data = b""
        while b"\r\n\r\n" not in data:
            more = s.recv(65536)
            if not more:
                return None
            data += more
        return data

    def _answer(self, s):
        head = self._head(s)
        if head is None:
            return False
        mode, turn = self.mode, self.turn
        if mode.startswith("ws_"):
            if b"/exec/stream" in head.split(b"\r\n")[0]:
                self._websocket(s, head, mode[3:], turn)
                return False
            body = json.dumps({"id": self.sandbox, "status": "running", "template": "minimal"}).encode()
            s.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            return head.startswith(b"GET")
        getattr(self, mode)(s, turn)
        return False

    # ---- what it says instead of HTTP ----

    def silent(self, _s, turn):
        turn.wait(10)

    def slow(self, s, turn):
        for b in b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n":
            s.sendall(bytes([b]))
            if turn.wait(0.2):
                return

    def closes(self, _s, _turn):
        pass

    def resets(self, s, _turn):
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def garbage(self, s, _turn):
        s.sendall(bytes(range(1, 256)) * 40)

    def wrong(self, s, _turn):
        s.sendall(b"HTTP/9.9 banana\r\n\r\n")

    def page(self, s, _turn):
        s.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 13\r\nConnection: close\r\n\r\n<h1>hello</h1>"[:-1])

    def endless_line(self, s, turn):
        s.sendall(b"HTTP/1.1 200 OK\r\nX: ")
        while not turn.is_set():
            s.sendall(b"a" * 65536)

    def endless_head(self, s, turn):
        s.sendall(b"HTTP/1.1 200 OK\r\n")
        while not turn.is_set():
            s.sendall(b"X-Header: of which there are many\r\n" * 2000)

    def endless_chunks(self, s, turn):
        s.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n")
        while not turn.is_set():
            s.sendall(b"10000\r\n" + b"[" * 65536 + b"\r\n")

    def short(self, s, _turn):
        s.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{\"id\":")

    # ---- what it says on a WebSocket ----

    def _websocket(self, s, head, mode, turn):
        key = re.search(rb"(?i)sec-websocket-key: *(\S+)", head)[1]
        accept = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
        if mode == "accept":
            accept = base64.b64encode(b"x" * 20)
        s.sendall(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                  b"Sec-WebSocket-Accept: " + accept + b"\r\nSec-WebSocket-Protocol: aviary-frames.v1\r\n\r\n")
        getattr(self, "ws_" + mode)(s, turn)

    def ws_accept(self, _s, turn):
        turn.wait(5)

    def ws_half(self, s, turn):
        s.sendall(b"\x82\x7e\x10\x00abc")
        turn.wait(10)

    def ws_cut(self, s, _turn):
        s.recv(65536)
        s.sendall(b"\x82\x7e\x10\x00abc")

    def ws_masked(self, s, turn):
        s.sendall(b"\x82\x85\x01\x02\x03\x04hello")
        turn.wait(5)

    def ws_huge(self, s, turn):
        s.sendall(b"\x82\x7f" + struct.pack(">Q", 65 << 20))
        while not turn.is_set():
            s.sendall(b"a" * 65536)

    def ws_fragments(self, s, turn):
        s.sendall(b"\x02\x01a")
        while not turn.is_set():
            s.sendall((b"\x00\x7d" + b"a" * 125) * 64)

    def ws_text(self, s, turn):
        s.sendall(b"\x81\x05hello")
        turn.wait(5)

    def ws_channel(self, s, turn):
        s.sendall(b"\x82\x06" + struct.pack(">IB", 1, 77) + b"a")
        turn.wait(5)

    def ws_control(self, s, turn):
        s.sendall(b"\x82\x09" + struct.pack(">IB", 4, 0) + b"nope")
        turn.wait(5)

    def ws_close(self, s, _turn):
        s.recv(65536)
        s.sendall(b"\x88\x02\x03\xe8")
        s.recv(65536)

    def ws_pings(self, s, turn):
        s.settimeout(0.5)
        try:
            while not turn.is_set():
                s.sendall((b"\x89\x7d" + b"p" * 125) * 64)  # many at once, or making them holds up who begins
        except OSError:
            turn.wait(10)


HTTP = "request process file code".split()
TIMEOUT, PROTOCOL, BROKEN = {"AVIARY_E_TIMEOUT"}, {"AVIARY_E_PROTOCOL"}, {"AVIARY_E_BROKEN"}
# A body that no retry brings may break off or be late; what asks for the sandbox first ends as that question does.
MODES = {
    "silent": TIMEOUT, "slow": TIMEOUT, "closes": BROKEN | {"AVIARY_E_UNREACHABLE"},
    "resets": BROKEN | {"AVIARY_E_UNREACHABLE"}, "garbage": PROTOCOL, "wrong": PROTOCOL, "page": PROTOCOL,
    "endless_line": PROTOCOL | {"AVIARY_E_TOO_LARGE"}, "endless_head": PROTOCOL | {"AVIARY_E_TOO_LARGE"},
    "short": BROKEN,
    "ws_accept": PROTOCOL, "ws_half": BROKEN, "ws_cut": BROKEN, "ws_masked": PROTOCOL, "ws_huge": PROTOCOL,
    "ws_fragments": PROTOCOL, "ws_text": PROTOCOL, "ws_channel": PROTOCOL, "ws_control": PROTOCOL,
    "ws_close": {"AVIARY_E_SANDBOX_TERMINATED"}, "ws_pings": BROKEN,
}


def test_an_enemy_answers(d):
    sandbox = "sb" + "0" * 25
    enemy = Enemy(sandbox)
    hasty, patient = pair(d, sandbox, enemy.url, HASTY), pair(d, sandbox, enemy.url, PATIENT)
    try:
        enemy.become("ws_close")  # whose other connections are kept
        for runs in hasty, patient:
            both(runs, "begin 8")
            both(runs, "end")
        before = [r.size() for r in hasty + patient]
        for mode, codes in MODES.items():
            enemy.become(mode)
            runs = hasty if codes == TIMEOUT else patient
            both(runs, "begin 8")
            kinds = ["process"] if mode.startswith("ws_") else HTTP
            judge(runs, mode, {kind: codes for kind in kinds}, 10000)
        same_size(hasty + patient, before, "after all of them")
        # What is no download is collected up to its bound: few at once, as that is 64 MiB.
        enemy.become("endless_chunks")
        both(patient, "begin 1 nofile")
        judge(patient, "endless_chunks", {"request": {"AVIARY_E_TOO_LARGE", "AVIARY_E_TIMEOUT"}})
        for r in hasty + patient:
            r.end()
    finally:
        enemy.close()


test_an_enemy_answers.timeout_s = 180


def test_many_programs_through_one_client(d):
    sandbox = d.create(memory_mb=512, pids_max=1024)["id"]
    runs = pair(d, sandbox)
    for r in runs:
        r.ask("execs 200 64")
        before = r.size()
        line = r.ask(f"execs {EXECS} 64")
        print(f"# {line}{' threaded' if r.threaded else ''}")
        ok(line.startswith(f"good={EXECS} "), f"programs that ended well: {line}")
        same_size([r], [before], f"{EXECS} programs", 4 * 1024)
        r.end()
    d.delete(sandbox)


test_many_programs_through_one_client.timeout_s = 240
sys.argv[1:] = [a for a in sys.argv[1:] if a.startswith("test_")]
aviary_test.main(globals())
