#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Many WebSockets, and bad ones: floods, giants, fragments, readers that never read, ends of all kinds."""

import base64
import json
import socket
import struct
import threading
import time

import ws
from aviary_test import Daemon, contains, equal, main, ok, wait_for

SHARED = {}
FRAMES = ("aviary-frames.v1",)


def sandbox(d):
    if "id" not in SHARED:
        SHARED["id"] = d.create(pids_max=2000)["id"]
    return SHARED["id"]


def connect(d, path="exec/stream", base="/v1/capsules", sandbox_id=None, **kw):
    return ws.WebSocket(d.host, d.port, f"{base}/{sandbox_id or sandbox(d)}/{path}",
                        headers={"X-API-Key": d.key}, **kw)


def shell(script, **more):
    return {"type": "start", "cmd": "/bin/sh", "args": ["-c", script], **more}


def until_type(s, *types):
    while True:
        m = s.recv_json()
        ok(m is not None, f"closed before {types}")
        if m["type"] in types:
            return m


def start_background(d, script, tag, sb=None):
    d.expect(202, "POST", f"/v1/sandboxes/{sb or sandbox(d)}/exec",
             {"cmd": "/bin/sh", "args": ["-c", script], "background": True, "tag": tag})


# -- many ---------------------------------------------------------------------------------------


def test_500_at_once(d):
    """500 sessions of all kinds in two sandboxes, each exchanging data with its own process."""
    before = d.rss_kib()
    boxes = [sandbox(d), d.create(pids_max=2000)["id"]]
    for sb in boxes:
        start_background(d, "sleep 3; while sleep 0.3; do echo tick; done", "ticker", sb)
    sessions = []
    for i in range(500):
        sb, kind = boxes[i % 2], ("text", "pty", "frames", "attach")[i // 2 % 4]
        if kind == "attach":
            s = connect(d, "processes/ticker/stream", sandbox_id=sb)
        elif kind == "pty":
            s = connect(d, "pty", sandbox_id=sb)
            s.send_json({"type": "start", "cmd": "/bin/cat"})
        elif kind == "frames":
            s = connect(d, sandbox_id=sb, protocols=FRAMES)
            s.send_binary(ws.frame(ws.CONTROL, {"process": {"cmd": "/bin/cat"}, "stdin": True, "onDetach": "kill"}))
        else:
            s = connect(d, sandbox_id=sb)
            s.send_json({"type": "start", "cmd": "/bin/cat", "stdin": True})
        sessions.append((kind, s, f"hello from {i}"))
    equal(metric(d, "aviary_streams_open"), 500, "sessions by the daemon's own count")
    for kind, s, text in sessions:
        if kind == "text":
            s.send_json({"type": "stdin", "data": text})
        elif kind == "pty":
            s.send_json({"type": "input", "data": base64.b64encode(text.encode() + b"\n").decode()})
        elif kind == "frames":
            s.send_binary(ws.frame(ws.STDIN, text.encode()))
    for kind, s, text in sessions:
        seen = b""
        while (text if kind != "attach" else "tick").encode() not in seen:
            opcode, payload = s.recv()
            m = json.loads(payload) if opcode == ws.TEXT else None
            if opcode == ws.BINARY:
                seen += payload
            elif m["type"] == "output":
                seen += base64.b64decode(m["data"])
            else:
                ok(m["type"] in ("start", "started", "stdout", "gap", "ping"), f"{kind}: {m}")
                seen += m.get("data", "").encode()
    start = time.monotonic()
    equal(d.exec(boxes[0], "echo quick")["stdout"], "quick\n", "meanwhile")
    ok(time.monotonic() - start < 5, "and soon")
    d.memory_within(before, 60000)
    for _kind, s, _text in sessions:
        s.abort()
    wait_for(lambda: metric(d, "aviary_streams_open") == 0, 10, "all are gone")
    d.delete(boxes[1])
    for p in d.expect(200, "GET", f"/v1/sandboxes/{boxes[0]}/processes").json()["processes"]:
        d.request("DELETE", f"/v1/sandboxes/{boxes[0]}/processes/{p['pid']}")


def metric(d, name):
    for line in d.request("GET", "/metrics").body.decode().splitlines():
        if line.startswith(name + " "):
            return float(line.split()[1])
    raise AssertionError(f"no {name}")


def test_readers_that_never_read(d):
    """Endless output for 40 clients that read nothing; the daemon stays small, others are served."""
    before = d.rss_kib()
    deaf = []
    for i in range(40):
        s = connect(d, rcvbuf=4096, protocols=FRAMES if i % 2 else ())
        if i % 2:
            s.send_binary(ws.frame(ws.CONTROL, {"process": {"cmd": "yes"}, "onDetach": "kill"}))
        else:
            s.send_json({"type": "start", "cmd": "yes"})
        deaf.append(s)
    time.sleep(1.5)
    grown = d.rss_kib() - before
    ok(grown < 40 * 1024 or d.sanitized(), f"40 of them cost {grown} KiB")
    start = time.monotonic()
    equal(d.exec(sandbox(d), "echo served")["stdout"], "served\n", "the same sandbox")
    ok(time.monotonic() - start < 5, "soon")
    first = cpu_of(d, "yes")
    time.sleep(0.5)
    ok(cpu_of(d, "yes") - first < 10, "all 40 programs are stopped")
    for s in deaf:
        s.abort()
    wait_for(lambda: d.exec(sandbox(d), "pgrep -x yes | wc -l")["stdout"] == "0\n", 10, "killed with their clients")


def cpu_of(d, name):
    script = f"for p in $(pgrep -x {name}); do cut -d' ' -f14,15 /proc/$p/stat; done"
    return sum(int(n) for n in d.exec(sandbox(d), script)["stdout"].split())


def test_writers_to_deaf_processes(d):
    """20 processes that do not read, 20 clients that send all they can: others still have their input."""
    before = d.rss_kib()
    senders = []
    for _ in range(20):
        s = connect(d)
        s.send_json({"type": "start", "cmd": "sleep", "args": ["7171"], "stdin": True})
        until_type(s, "start")
        s.sock.settimeout(0.2)
        try:
            for _ in range(40):
                s.send_json({"type": "stdin", "data": "x" * 100000})
        except TimeoutError:
            pass
        senders.append(s)
    grown = d.rss_kib() - before
    ok(grown < 40 * 1024 or d.sanitized(), f"20 of them cost {grown} KiB")
    with connect(d) as s:
        s.send_json({"type": "start", "cmd": "cat", "stdin": True})
        s.send_json({"type": "stdin", "data": "heard"})
        equal(until_type(s, "stdout", "error")["data"], "heard", "another process")
    equal(d.exec(sandbox(d), "echo served")["stdout"], "served\n", "the same sandbox")
    # Their ends stand behind what nobody reads, and are noticed all the same.
    for s in senders:
        s.abort()
    wait_for(lambda: d.exec(sandbox(d), "pgrep -f '[s]leep 7171' | wc -l")["stdout"] == "0\n", 25,
             "killed with their clients")


# -- bad ----------------------------------------------------------------------------------------


def test_ping_flood(d):
    """Pings without reading the pongs: stopped by backpressure, not by memory; then served."""
    before = d.rss_kib()
    with connect(d, rcvbuf=4096) as s:
        s.send_json(shell("sleep 1; echo calm"))
        s.sock.settimeout(1)
        ping = bytes([0x89, 0x80 | 100]) + b"\0\0\0\0" + b"p" * 100
        sent = 0
        try:
            while sent < 64 << 20:
                sent += s.sock.send(ping * 500)
        except TimeoutError:
            pass
        ok(sent < 32 << 20, f"{sent >> 20} MiB of pings were taken without a pong being read")
        d.memory_within(before, 4096)
    with connect(d) as s:
        for i in range(1000):
            s.send(ws.PING, b"%d" % i)
        s.send_json(shell("echo after"))
        equal(until_type(s, "stdout")["data"], "after\n", "a thousand pings do no harm")


def test_giant_messages(d):
    before = d.rss_kib()
    for head in (struct.pack(">BBQ", 0x81, 0xFF, 1 << 20 | 1), struct.pack(">BBQ", 0x82, 0xFF, 1 << 40),
                 struct.pack(">BBQ", 0x81, 0xFF, 1 << 63)):
        with connect(d) as s:
            s.send_raw(head + b"\0\0\0\0" + b"x" * 1000)
            try:
                equal(s.recv(), None, "closed")
                ok(s.close_code in (1009, 1002), f"close code {s.close_code}")
            except ConnectionError:
                pass
    with connect(d) as s:
        s.send(ws.TEXT, b'{"type":"start",', fin=False)
        try:
            for _ in range(2000):
                s.send(ws.CONTINUATION, b" " * 1000, fin=False)
            equal(s.recv(), None, "closed")
            equal(s.close_code, 1009, "the fragments count together")
        except ConnectionError:
            pass
    d.memory_within(before, 8192)


def test_fragments(d):
    message = json.dumps(shell("cat", stdin=True)).encode()
    with connect(d) as s:
        for i in range(len(message)):
            s.send(ws.TEXT if i == 0 else ws.CONTINUATION, message[i:i + 1], fin=False)
            if i % 10 == 0:
                s.send(ws.PING, b"between")
        s.send(ws.CONTINUATION, b"", fin=True)
        until_type(s, "start")
        text = json.dumps({"type": "stdin", "data": "grün ✓"}, ensure_ascii=False).encode()
        for i in range(0, len(text), 3):
            s.send(ws.TEXT if i == 0 else ws.CONTINUATION, text[i:i + 3], fin=i + 3 >= len(text))
        s.send_json({"type": "stdin_close"})
        equal(until_type(s, "stdout")["data"], "grün ✓", "put together")
        equal(until_type(s, "exit")["exit_code"], 0, "exit")


def test_broken_frames(d):
    for data, codes in ((b"\x81\x05hello", (1002,)),           # not masked
                        (b"\xc1\x80\0\0\0\0", (1002,)),         # reserved bit
                        (b"\x83\x80\0\0\0\0", (1002,)),         # unknown opcode
                        (b"\x80\x80\0\0\0\0", (1002,)),         # continues nothing
                        (b"\x09\x80\0\0\0\0", (1002,)),         # fragmented ping
                        (b"\x81\x82\0\0\0\0\xc3\x28", (1007,)),  # not UTF-8
                        (b"\x88\x81\0\0\0\0x", (1002, 1005))):  # half a close code
        with connect(d) as s:
            s.send_raw(data)
            equal(s.recv(), None, f"after {data!r}")
            ok(s.close_code in codes, f"after {data!r}: close code {s.close_code}")
    with connect(d) as s:
        s.send_json(shell("sleep 100"))
        until_type(s, "start")
        s.send_raw(b"\x81\x82\0\0\0\0\xc3\x28")
        equal(s.recv(), None, "in the middle of a conversation")
        equal(s.close_code, 1007, "close code")


def test_silent_and_slow_clients(d):
    """Connections that say nothing, or the handshake byte by byte, wait for their time-out and nothing else."""
    silent = [socket.create_connection((d.host, d.port), timeout=10) for _ in range(50)]
    slow = socket.create_connection((d.host, d.port), timeout=30)
    for byte in (f"GET /v1/capsules/{sandbox(d)}/exec/stream HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n"
                 f"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {'A' * 22}==\r\n"
                 f"X-API-Key: {d.key}\r\n\r\n").encode():
        slow.sendall(bytes([byte]))
    contains(slow.recv(4096), b"101 Switching Protocols", "slow, but complete")
    equal(d.exec(sandbox(d), "echo served")["stdout"], "served\n", "meanwhile")
    for s in silent + [slow]:
        s.close()


def test_handshake_variants(d):
    def handshake(*headers, version="13", method="GET", key="dGhlIHNhbXBsZSBub25jZQ=="):
        head = (f"{method} /v1/capsules/{sandbox(d)}/exec/stream HTTP/1.1\r\nHost: {d.host}\r\n"
                f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: {version}\r\nX-API-Key: {d.key}\r\n" +
                "".join(h + "\r\n" for h in headers) + "\r\n")
        with socket.create_connection((d.host, d.port), timeout=10) as s:
            s.sendall(head.encode())
            return s.recv(65536).decode("latin-1")

    for good in (("Upgrade: websocket", "Connection: upgrade"),  # httpx-ws
                 ("Upgrade: WebSocket", "Connection: keep-alive, Upgrade"),
                 ("Upgrade: websocket", "Connection: Upgrade", "Origin: https://example.com"),
                 ("Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Extensions: permessage-deflate"),
                 ("Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Protocol: chat, superchat"),
                 ("Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Protocol: chat, aviary-frames.v1")):
        answer = handshake(*good)
        contains(answer, "101", f"{good}")
        contains(answer.lower(), "s3pplmbitxaq9kygzzhzrbk+xoo=", "the accept of RFC 6455")
        ok("sec-websocket-extensions" not in answer.lower(), "never compress")
        equal("sec-websocket-protocol: aviary-frames.v1" in answer.lower(), "aviary-frames" in good[-1],
              f"subprotocol for {good}")
    for bad in ((("Connection: Upgrade",), {}), (("Upgrade: h2c", "Connection: Upgrade"), {}),
                (("Upgrade: websocket", "Connection: close"), {}),
                (("Upgrade: websocket", "Connection: Upgrade"), {"version": "8"}),
                (("Upgrade: websocket", "Connection: Upgrade"), {"key": "short"}),
                (("Upgrade: websocket", "Connection: Upgrade"), {"method": "POST"})):
        answer = handshake(*bad[0], **bad[1])
        ok(answer.split(" ", 2)[1] in ("400", "405", "426"), f"{bad}: {answer[:60]}")


# -- ends ---------------------------------------------------------------------------------------


def test_daemon_stops(d):
    """Every kind of session hears why, before the connection closes; so it does when a sandbox is killed."""
    own = Daemon().start()
    try:
        sb = own.create()["id"]
        start_background(own, "sleep 100", "bg", sb)
        sessions = {"text": connect(own, sandbox_id=sb), "pty": connect(own, "pty", sandbox_id=sb),
                    "attach": connect(own, "processes/bg/stream", sandbox_id=sb),
                    "frames": connect(own, sandbox_id=sb, protocols=FRAMES),
                    "waiting": connect(own, sandbox_id=sb),
                    "stranger": ws.WebSocket(own.host, own.port, f"/v1/capsules/{sb}/pty")}
        sessions["text"].send_json(shell("sleep 100"))
        sessions["pty"].send_json({"type": "start", "cmd": "/bin/cat"})
        sessions["frames"].send_binary(ws.frame(ws.CONTROL, {"process": {"cmd": "sleep", "args": ["100"]}}))
        for kind in ("text", "pty", "attach", "frames"):
            sessions[kind].recv()
        stopping = threading.Thread(target=own.stop)
        stopping.start()
        for kind, s in sessions.items():
            last = None
            while True:
                m = s.recv()
                if m is None:
                    break
                last = m
            s.abort()
            ok(s.close_code in (1000, 1001), f"{kind}: close code {s.close_code}")
            if kind in ("text", "pty", "attach"):
                m = json.loads(last[1])
                ok(m["type"] == "error" and m["data"], f"{kind}: {m}")
            elif kind == "frames":
                contains(last[1], b'"error"', kind)
        stopping.join()
        own.start()
        own.delete(sb)
        own.stop()
    finally:
        own.sweep()
        own.remove_dir()


def test_program_that_outlives_its_session_group(d):
    """A grandchild that holds the output and left the group: stop ends the stream all the same."""
    with connect(d) as s:
        s.send_json(shell("setsid sleep 300 & echo begun; wait"))
        until_type(s, "stdout")
        s.send_json({"type": "stop"})
        equal(until_type(s, "exit")["exit_code"], 137, "the end does not wait for it")
    d.exec(sandbox(d), "pkill -x sleep")


main(globals())
