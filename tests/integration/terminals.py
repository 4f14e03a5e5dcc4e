#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The WebSocket of terminals: start, type, resize, kill, leave and come back."""

import base64
import hashlib
import json
import threading
import time

import ws
from aviary_test import IN_VM, Skip, contains, equal, main, ok, wait_for

SHARED = {}


def sandbox(d):
    if "id" not in SHARED:
        SHARED["id"] = d.create()["id"]
    return SHARED["id"]


class Terminal:
    """A client of either generation: JSON both ways, or (raw) bytes in binary messages."""

    def __init__(self, d, base="/v1/capsules", sandbox_id=None, raw=False, **kw):
        self.s = ws.WebSocket(d.host, d.port, f"{base}/{sandbox_id or sandbox(d)}/pty",
                              headers={"X-API-Key": d.key}, **kw)
        self.raw, self.seen, self.dropped, self.kinds = raw, b"", 0, []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.s.abort()

    def send(self, **message):
        self.s.send_json(message)

    def start(self, **more):
        self.send(type="start", **{"cmd": "/bin/sh", **more})
        m = self.message()
        equal(m["type"], "started", f"answer to start: {m}")
        return m

    def type(self, text):
        data = text.encode() if isinstance(text, str) else text
        if self.raw:
            self.s.send_binary(data)
        else:
            self.send(type="input", data=base64.b64encode(data).decode())

    def message(self):
        """The next message, output collected in seen; None after a close."""
        got = self.s.recv()
        if got is None:
            return None
        opcode, payload = got
        m = {"type": "output", "data": payload} if opcode == ws.BINARY else json.loads(payload)
        if m["type"] == "output":
            if self.kinds[-1:] != [opcode]:  # in how many pieces does not matter
                self.kinds.append(opcode)
            self.seen += payload if opcode == ws.BINARY else base64.b64decode(m["data"], validate=True)
            self.dropped += m.get("dropped", 0)
        return m

    def until(self, text):
        """Reads until the terminal has shown text, and returns all that it has shown."""
        while text.encode() not in self.seen:
            m = self.message()
            ok(m and m["type"] in ("output", "ping"), f"waiting for {text!r} after {self.seen[-200:]!r}: {m}")
        return self.seen

    def last(self):
        """Reads to the exit or error and returns it."""
        while True:
            m = self.message()
            ok(m, f"closed without a last message after {self.seen[-200:]!r}")
            if m["type"] in ("exit", "error"):
                return m


def runs(d, tag):
    r = d.expect(200, "GET", f"/v1/sandboxes/{sandbox(d)}/processes").json()["processes"]
    return any(p.get("tag") == tag for p in r)


def test_start_type_exit(d):
    for raw in (False, True):
        for base in ("/v1/capsules", "/api/v1/sandboxes"):
            with Terminal(d, raw=raw, base=base) as t:
                m = t.start()
                ok(m["tag"].startswith("pty-") and len(m["tag"]) == 12 and m["pid"] > 0, f"started: {m}")
                t.type("echo $((6*7)) $TERM; tty\n")
                t.until("/dev/pts/")
                contains(t.seen, b"42 xterm-256color", "output")
                t.type("exit 7\n")
                m = t.last()
                equal((m["type"], m["exit_code"]), ("exit", 7), "exit")
                ok(all(k == (ws.BINARY if raw else ws.TEXT) for k in t.kinds), f"kinds of messages: {t.kinds}")


def says_before(d, script, wait):
    """Says nothing but a pong, that long after it was asked; returns what came, and as what, up to the end."""
    with Terminal(d) as t:
        t.start(args=["-c", script])
        equal(t.message()["type"], "ping", "it is asked at the beginning")
        time.sleep(wait)
        t.send(type="pong")
        if script.endswith("60"):
            while ws.BINARY not in t.kinds:
                t.message()
            t.send(type="pong")
            t.send(type="kill")
        equal(t.last()["type"], "exit", "the end comes behind it")
        return t.seen.split(), t.kinds


def test_output_before_any_input(d):
    """Who answers our ping with a pong wants bytes, and gets all of them so, whenever the answer comes."""
    for script in ("echo before; sleep 60", "echo before"):
        # On a machine that is very busy an answer may come too late to be in time.
        wait_for(lambda script=script: says_before(d, script, 0) == ([b"before"], [ws.BINARY]), 20, "bytes at once")
    equal(says_before(d, "echo before; sleep 60", 1), ([b"before"] * 2, [ws.TEXT, ws.BINARY]), "again, as bytes, when it was late")
    with Terminal(d) as t:
        t.start(args=["-c", "echo before"])
        m = t.last()
        equal((m["exit_code"], t.seen, t.kinds), (0, b"before\r\n", [ws.TEXT]), "who does not answer gets it as JSON")
    with Terminal(d) as t:
        t.start(args=["-c", "head -c 300000 /dev/zero | tr '\\0' x; sleep 60"])
        while len(t.seen) < 300000:
            t.message()
        t.send(type="pong")
        t.send(type="kill")
        equal(t.last()["type"], "exit", "too much to say it again")
        equal((len(t.seen), set(t.kinds)), (300000, {ws.TEXT}), "so it was not said again")


def test_exit_code_and_signal(d):
    with Terminal(d) as t:
        t.start(args=["-c", "exit 5"])
        equal(t.last()["exit_code"], 5, "exit code")
    with Terminal(d) as t:
        t.start(args=["-c", "kill -TERM $$"])
        m = t.last()
        equal((m["exit_code"], m["signal"]), (143, 15), "signal")


def test_start_honours_everything(d):
    with Terminal(d) as t:
        m = t.start(args=["-c", "stty size; pwd; echo A=$A TERM=$TERM; id -un; read x"], cols=101, rows=33,
                    cwd="/tmp", envs={"A": "b c", "TERM": "dumb"}, user="nobody", tag="my-terminal")
        equal(m["tag"], "my-terminal", "tag")
        t.until("nobody")
        for part in (b"33 101", b"/tmp", b"A=b c TERM=dumb"):
            contains(t.seen, part, "honoured")
        ok(runs(d, "my-terminal"), "it is in the list")


def test_defaults(d):
    with Terminal(d) as t:
        t.send(type="start")
        equal(t.message()["type"], "started", "everything has a default")
        t.type("stty size; echo $0\n")
        t.until("24 80")
        t.until("bash")


def test_resize_and_input_in_order(d):
    with Terminal(d) as t:
        t.start()
        for i in range(20):
            t.send(type="resize", cols=100 + i, rows=40)
            t.type(f"stty size; echo done-{i}-$((1))\n")
            t.until(f"done-{i}-1")
            contains(t.seen, f"40 {100 + i}\r\n".encode(), "the size at that moment")


def test_kill(d):
    with Terminal(d) as t:
        t.start()
        t.type("trap '' INT TERM HUP; sleep 6161 & wait; echo not-reached\n")
        t.until("not-reached")
        t.send(type="kill")
        m = t.last()
        equal((m["type"], m["exit_code"]), ("exit", 137), "killed")


def test_bytes_survive(d):
    """Every byte both ways, in the raw mode of the terminal."""
    for raw in (False, True):
        with Terminal(d, raw=raw) as t:
            t.start(args=["-c", "stty raw -echo; echo go; head -c 65536"])
            t.until("go")
            data = bytes(range(256)) * 256
            sender = threading.Thread(target=lambda: [t.type(data[i:i + 5000]) for i in range(0, len(data), 5000)])
            sender.start()
            m = t.last()
            sender.join()
        equal(m["exit_code"], 0, "exit")
        ok(t.seen.split(b"go\n", 1)[1] == data, "what came back is what went in")


def test_no_input_is_dropped(d):
    """More than all queues hold, for a program that begins to read late."""
    lines = [f"{i:06} {'x' * 90}" for i in range(20000)]
    with Terminal(d, timeout=60) as t:
        t.start(args=["-c", "stty raw -echo; echo go; sleep 1.5; head -c 1960000 | md5sum"])
        t.until("go")
        data = ("\n".join(lines) + "\n").encode()[:1960000]
        for i in range(0, len(data), 20000):
            t.type(data[i:i + 20000])
        t.until(hashlib.md5(data).hexdigest())


def test_socket_stays_after_exit(d):
    with Terminal(d) as t:
        t.start(args=["-c", "exit 0"])
        equal(t.last()["type"], "exit", "exit")
        for _ in range(20):
            t.type("too late\n")
            t.send(type="resize", cols=80, rows=24)
        t.s.send(ws.PING, b"still there")
        t.s.sock.settimeout(1)
        try:
            fin, code, payload = t.s._frame()
            equal((code, payload), (ws.PONG, b"still there"), "the session is open")
        finally:
            t.s.sock.settimeout(30)
        t.s.close()
        equal(t.s.close_code, 1000, "closed by the client, answered")


def test_leaving_and_coming_back(d):
    for raw in (False, True):
        with Terminal(d, raw=raw) as t:
            tag = t.start()["tag"]
            t.type("X=kept; (sleep 0.5; echo mean''while) &\n")
            t.until("while")
        wait_for(lambda: runs(d, tag), 2, "it lives on")
        time.sleep(1)
        with Terminal(d, raw=raw) as t:
            t.send(type="connect", tag=tag)
            t.until("meanwhile")
            t.type("echo X is $X\n")
            t.until("X is kept")
            t.type("exit\n")
            equal(t.last()["exit_code"], 0, "exit")
    with Terminal(d) as t:
        t.send(type="connect", tag=tag)
        equal(t.last()["type"], "exit", "the end is remembered")


def test_what_nobody_saw_is_counted(d):
    with Terminal(d) as t:
        tag = t.start(args=["-c", "stty -onlcr; read x; sleep 0.5; head -c 3000000 /dev/zero | tr '\\0' x; echo the-end; read x"])["tag"]
        t.type("\n")
        time.sleep(0.05)
    time.sleep(1.5)
    with Terminal(d) as t:
        t.send(type="connect", tag=tag)
        t.until("the-end")
        ok(t.dropped > 1000000, f"{t.dropped} bytes are said to be missing")
    with Terminal(d) as t:
        t.send(type="connect", tag=tag, replay=False)
        t.type("\n")
        equal(t.last()["type"], "exit", "without a replay only the end comes")
        ok(len(t.seen) < 1000, f"{len(t.seen)} bytes")


def test_two_at_once(d):
    with Terminal(d) as a, Terminal(d) as b:
        tag = a.start()["tag"]
        b.send(type="connect", tag=tag, replay=False)
        time.sleep(0.3)
        a.type("echo both-$((1+1))\n")
        a.until("both-2")
        b.until("both-2")


def test_bad_first_messages(d):
    for message in ("{", "[]", "{}", '{"type":"input","data":""}', '{"type":"connect"}', '{"type":"connect","tag":1}',
                    '{"type":"connect","tag":"no-such"}', '{"type":"start","cols":0}', '{"type":"start","rows":70000}',
                    '{"type":"start","cmd":7}', '{"type":"start","envs":[]}', '{"type":"start","cmd":"/no/such"}',
                    '{"type":"start","user":"no-such-user"}', '{"type":"start","cwd":"/no/such/dir"}',
                    '{"type":"start","args":"x"}', '{"type":"start","tag":"' + "x" * 300 + '"}'):
        with Terminal(d) as t:
            t.s.send_text(message)
            m = t.last()
            ok(m["type"] == "error" and m["fatal"] is True and m["data"], f"answer to {message[:80]}: {m}")
    with Terminal(d) as t:
        t.s.send_binary(b"ls\n")
        ok(t.last()["fatal"], "input before the start")


def test_bad_later_messages_do_no_harm(d):
    with Terminal(d) as t:
        t.start()
        for message in ("{", "[]", '{"type":7}', '{"type":"input","data":"%%%"}', '{"type":"input","data":7}',
                        '{"type":"resize"}', '{"type":"resize","cols":0,"rows":1}', '{"type":"resize","cols":1e9,"rows":1}',
                        '{"type":"resize","cols":-5,"rows":1}'):
            t.s.send_text(message)
            m = t.last()
            ok(m["type"] == "error" and m["fatal"] is False and m["data"], f"answer to {message}: {m}")
        for message in ('{"type":"pong"}', "{}", '{"type":"start"}', '{"type":"input"}'):
            t.s.send_text(message)
        t.type("echo al''ive\n")
        t.until("alive")


def test_unknown_sandbox(d):
    with Terminal(d, sandbox_id="sb" + "0" * 25) as t:
        m = t.last()
        ok(m["type"] == "error" and m["fatal"] is True, f"after the upgrade: {m}")
    try:
        Terminal(d, base="/v1/sandboxes", sandbox_id="sb" + "0" * 25)
    except ws.HandshakeError as e:
        equal(e.status, 404, "before the upgrade for older clients")


def test_sandbox_dies(d):
    sb = d.create()["id"]
    with Terminal(d, sandbox_id=sb) as t:
        t.start()
        d.delete(sb)
        m = t.last()
        ok(m["type"] == "error" and m["fatal"] is True and m["data"], f"a definite last message: {m}")


def test_pause_and_resume(d):
    sb = d.create()["id"]
    with Terminal(d, sandbox_id=sb) as t:
        tag = t.start()["tag"]
        t.type("echo be''fore\n")
        t.until("before")
        if d.request("POST", f"/v1/sandboxes/{sb}/pause", timeout=60).status == 501:
            raise Skip("nothing can be frozen here")
        if IN_VM:
            contains(t.last()["data"], "paused meanwhile", "what is attached to a machine ends")
        else:
            t.type("echo mean''while\n")
        with Terminal(d, sandbox_id=sb) as other:
            other.send(type="connect", tag=tag)
            ok(other.last()["fatal"], "a paused sandbox takes no new terminals")
        d.expect(200, "POST", f"/v1/sandboxes/{sb}/resume")
        if not IN_VM:
            t.until("meanwhile")
    with Terminal(d, sandbox_id=sb) as t:
        t.send(type="connect", tag=tag)
        t.type("echo af''ter\n")
        t.until("after")
    d.delete(sb)


def test_slow_reader_stops_the_program(d):
    before = d.rss_kib()
    with Terminal(d, rcvbuf=65536, timeout=60) as t:
        t.start(args=["-c", "stty raw -echo; seq 200000; echo fin''ished"])
        time.sleep(1.5)
        d.memory_within(before, 12288)
        t.until("finished")
    ok("".join(f"{i}\n" for i in range(1, 200001)).encode() in t.seen, "every line, in order")


if __name__ == "__main__":
    main(globals())
