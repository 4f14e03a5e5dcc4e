#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The stream of events: order, coming back, filters, bad requests, many streams, and readers that do not read."""

import http.client
import json
import shutil
import socket
import subprocess
import urllib.parse

from ws import HandshakeError, WebSocket
from aviary_test import Daemon, Skip, contains, equal, main, nothing_left, ok, wait_for

PATH = "/v1/events/stream"
ACTIONS = "capsule.create capsule.pause capsule.resume capsule.destroy template.snapshot.create template.snapshot.delete"


def connect(d, slow):
    """slow: with little room between the daemon and who reads."""
    s = socket.socket()
    s.settimeout(40)
    if slow:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    s.connect((d.host, d.port))
    return s


class Stream:
    """One reader; its messages are (event, id, data)."""

    def __init__(self, d, last=None, events=(), sandboxes=(), slow=False):
        query = urllib.parse.urlencode([("event", e) for e in events] + [("sandbox_id", s) for s in sandboxes])
        self.conn = http.client.HTTPConnection(d.host, d.port, timeout=40)
        self.conn.sock = connect(d, slow)
        self.conn.request("GET", PATH + ("?" + query if query else ""),
                          headers={"X-API-Key": d.key, **({"Last-Event-ID": last} if last is not None else {})})
        self.answer = self.conn.getresponse()
        self.id = None
        equal(self.answer.status, 200, "status of a stream")
        equal(self.answer.headers["Content-Type"], "text/event-stream", "type")
        equal(self.next()[0], "connected", "first message")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.answer.close()
        self.conn.close()

    def next(self):
        """None at the end."""
        event, data = "message", []
        while True:
            line = self.answer.readline()
            if not line:
                return None
            line = line.decode("ascii").rstrip("\n")
            if line == "" and data:
                return event, self.id, json.loads("\n".join(data))
            name, _, value = line.partition(": ")
            if name == "event":
                event = value
            elif name == "data":
                data.append(value)
            elif name == "id":
                self.id = value

    def until(self, event, about):
        """All messages up to this one."""
        seen = []
        while True:
            m = self.next()
            ok(m, f"the stream ended before {event} of {about}")
            seen.append(m)
            if m[0] == event and m[2]["resource"]["id"] == about:
                return seen


def names(messages, about):
    return [m[0] for m in messages if m[2].get("resource", {}).get("id") == about]


def pause_resume(d, sb):
    for verb in ("pause", "resume"):
        d.expect(200, "POST", f"/v1/sandboxes/{sb}/{verb}")


def test_what_happens_is_told(d):
    with Stream(d) as s:
        sb = d.create(metadata={"what": "a\u2028b\u0085c\n"})["id"]
        pause_resume(d, sb)
        d.expect(201, "POST", "/v1/snapshots", {"sandbox_id": sb, "name": "told"})
        d.expect(204, "DELETE", "/v1/snapshots/told")
        d.delete(sb)
        seen = s.until("capsule.destroy", sb)
    equal(names(seen, sb), ["capsule.state.changed", "capsule.create", "capsule.state.changed", "capsule.pause",
                            "capsule.state.changed", "capsule.resume", "capsule.state.changed", "capsule.pause",
                            "capsule.state.changed", "capsule.destroy"], "of the sandbox")
    equal(names(seen, "told"), ["template.snapshot.create", "template.snapshot.delete"], "of the template")
    for event, _id, data in seen:
        equal(data["event"], event, "the name is in the data too")
        equal(data.get("outcome"), "success" if event in ACTIONS else None, f"outcome of {event}")
        equal(data["resource"]["type"], "sandbox" if event.startswith("capsule") else "snapshot", "of what")
        if event in ACTIONS:
            equal((data["actor"]["type"], data["actor"]["id"][:2]), ("api_key", "ke"), f"who did {event}")
    changes = [(m[2]["metadata"]["from"], m[2]["metadata"]["to"]) for m in seen if m[0] == "capsule.state.changed"]
    equal(changes, [("starting", "running"), ("running", "paused"), ("paused", "running"), ("running", "paused"),
                    ("paused", "stopped")], "changes of the state")
    created, destroyed = [m[2] for m in seen if m[0] in ("capsule.create", "capsule.destroy")]
    equal((created["sandbox"]["status"], created["sandbox"]["metadata"]), ("running", {"what": "a\u2028b\u0085c\n"}), "as it is then")
    equal((destroyed["sandbox"]["status"], destroyed["metadata"]["reason"]), ("stopped", "deleted"), "its end")
    numbers = [int(m[1].split("-")[1]) for m in seen]
    equal(numbers, list(range(numbers[0], numbers[0] + len(numbers))), "numbers without holes")


def test_nobody_did_it(d):
    with Stream(d) as s:
        idle = d.create(timeout_sec=1)["id"]
        asleep = d.create(auto_resume=True)["id"]
        d.expect(200, "POST", f"/v1/sandboxes/{asleep}/pause")
        d.exec(asleep, "true")
        short = d.create(max_lifetime_sec=1)["id"]
        data = s.until("capsule.destroy", short)
        by = {(m[0], m[2]["resource"]["id"]): (m[2]["actor"]["type"], m[2]["metadata"].get("reason")) for m in data}
        equal(by["capsule.destroy", short], ("system", "lifetime"), "the end of a life")
        equal(by["capsule.resume", asleep], ("system", "auto_resume"), "woken by a request")
        if ("capsule.pause", idle) not in by:
            data = s.until("capsule.pause", idle)
            by["capsule.pause", idle] = data[-1][2]["actor"]["type"], data[-1][2]["metadata"]["reason"]
        equal(by["capsule.pause", idle], ("system", "ttl_expired"), "not used")
    d.delete(idle)
    d.delete(asleep)


def test_coming_back(d):
    sb = d.create()["id"]
    with Stream(d) as s:
        last = s.id
    pause_resume(d, sb)
    with Stream(d, last=last) as s:
        seen = s.until("capsule.resume", sb)
        equal(len(seen), 4, "what was missed comes")
    with Stream(d, last=seen[1][1]) as s:
        equal(s.until("capsule.resume", sb), seen[2:], "from the middle on, and the same")
    with Stream(d, last=seen[3][1]) as s:
        pause_resume(d, sb)
        equal(len(s.until("capsule.resume", sb)), 4, "and what follows, once")
    with Stream(d, last="") as s:
        d.delete(sb)
        equal(names([s.next()], sb), ["capsule.state.changed"], "an empty id is none: from now on")


def test_filters(d):
    one, other = d.create()["id"], d.create()["id"]
    with Stream(d, events=("capsule.pause", "capsule.destroy"), sandboxes=(one,)) as s, \
            Stream(d, events=("template.snapshot.create",)) as t:
        for sb in (other, one):
            pause_resume(d, sb)
        d.expect(201, "POST", "/v1/snapshots", {"sandbox_id": one, "name": "filtered"})
        for sb in (other, one):
            d.delete(sb)
        seen = s.until("capsule.destroy", one)
        equal([m[0] for m in seen], ["capsule.pause", "capsule.pause", "capsule.destroy"], "only those")
        equal({m[2]["resource"]["id"] for m in seen}, {one}, "only of this one")
        equal(t.next()[2]["resource"], {"id": "filtered", "type": "snapshot"}, "of templates")
    d.expect(204, "DELETE", "/v1/snapshots/filtered")


def test_bad_requests(d):
    with Stream(d) as s:
        epoch, number = s.id.split("-")
    bad_ids = ("x", "-", "1", "zzzzzzzz-1", f"{epoch}-", f"{epoch}--1", f"{epoch}-x", f"{epoch}-{int(number) + 1}",
               f"{epoch}-{2 ** 64 - 1}", f"{epoch}-{2 ** 64}", f"{epoch}-" + "9" * 1000, f"{epoch}-1 ,", epoch.upper() + "Z-1",
               "\x80\xff" * 20)
    for last in bad_ids:
        r = d.request("GET", PATH, headers={"Last-Event-ID": last})
        equal((r.status, r.code), (400, "invalid_request"), f"Last-Event-ID {last!r}")
        contains(r.message, "Last-Event-ID", "it is named")
    for query, part in (("event=nonsense", "capsule.create"), ("event=", "event"), ("event=capsule.create&event=x", "event"),
                        ("event=%zz", "event"), ("event=" + "x" * 1000, "event"), ("sandbox_id=x", "sandbox_id"),
                        ("sandbox_id=", "sandbox_id"), ("sandbox_id=sb%00", "sandbox_id"),
                        ("&".join(["sandbox_id=sb" + "0" * 25] * 17), "16")):
        r = d.request("GET", f"{PATH}?{query}")
        equal((r.status, r.code), (400, "invalid_request"), query[:60])
        contains(r.message, part, "the message says what is allowed")
    equal(d.request("GET", PATH, key=False).status, 401, "no key")
    equal(d.request("POST", PATH, {}).status, 405, "no such method")
    equal(d.metrics()["aviary_event_streams_open"], 0, "none of them is open")


def test_not_too_many(d):
    streams = [Stream(d) for _ in range(64)]
    equal(d.metrics()["aviary_event_streams_open"], 64, "all are open")
    r = d.request("GET", PATH)
    equal((r.status, r.code), (429, "rate_limited"), "one too many")
    contains(r.message, "64", "the bound is named")
    sb = d.create()["id"]
    for s in streams:
        equal(len(s.until("capsule.create", sb)), 2, "each is told")
    streams.pop().close()
    wait_for(lambda: d.metrics()["aviary_event_streams_open"] == 63, 10, "one is gone")
    with Stream(d):
        pass
    for s in streams:
        s.close()
    wait_for(lambda: d.metrics()["aviary_event_streams_open"] == 0, 10, "all are gone")
    d.delete(sb)


def test_http2(d):
    if not shutil.which("curl"):
        raise Skip("curl(1) is not there")
    argv = ["curl", "-sN", "--http2-prior-knowledge", "-H", f"X-API-Key: {d.key}", d.url + PATH]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as curl:
        try:
            ok(any(b"event: connected" in line for line in iter(curl.stdout.readline, b"")), "it begins")
            sb = d.create()["id"]
            d.delete(sb)
            for line in iter(curl.stdout.readline, b""):
                if line == b"event: capsule.destroy\n":
                    break
            contains(curl.stdout.readline().decode(), sb, "its end is told")
        finally:
            curl.kill()


def test_web_socket(d):
    """The same messages under the same ids; GET /v1/events without a handshake is the stream."""
    def connect_ws(query="", key=d.key):
        return WebSocket(d.host, d.port, "/v1/events" + query, headers={"X-API-Key": key} if key else {})

    with Stream(d) as s, connect_ws() as ws, connect_ws(key=None) as late:
        first = ws.recv_json()
        equal((first["type"], set(first)), ("connected", {"type", "id", "data"}), "first message")
        late.send_json({"type": "auth", "token": d.key})
        equal(late.recv_json()["type"], "connected", "with the key in a message")
        sb = d.create()["id"]
        pause_resume(d, sb)
        d.delete(sb)
        seen = s.until("capsule.destroy", sb)
        for socket_ in (ws, late):
            equal([(m["type"], m["id"], m["data"]) for m in (socket_.recv_json() for _ in seen)], seen, "the same")
    with connect_ws(f"?last_event_id={seen[2][1]}&event=capsule.destroy&sandbox_id={sb}") as ws:
        equal(ws.recv_json()["type"], "connected", "first message")
        equal(ws.recv_json()["id"], seen[-1][1], "from there on, what is wanted")
    for message in ({"type": "auth", "token": "av_" + "0" * 40}, {"type": "hello"}, {}):
        with connect_ws(key=None) as ws:
            ws.send_json(message)
            equal((ws.recv_json()["type"], ws.recv_json()), ("error", None), f"{message} is no key")
    for query in ("?event=x", "?sandbox_id=x", "?last_event_id=" + "x" * 100):
        try:
            connect_ws(query).abort()
            ok(False, f"{query} was taken")
        except HandshakeError as error:
            equal(error.status, 400, query)
    with connect_ws("?last_event_id=nonsense") as ws:
        equal((ws.recv_json()["type"], ws.recv_json()), ("error", None), "no such id")
    key = d.expect(201, "POST", "/v1/api-keys", {"name": "short-lived"}).json()
    with connect_ws(key=key["key"]) as ws:
        ws.recv_json()
        d.expect(204, "DELETE", f"/v1/api-keys/{key['id']}")
        end = ws.recv_json()
        equal((end["type"], ws.recv_json()), ("end", None), "the key was deleted")
        contains(end["data"]["message"], "deleted", "why")
    conn = d.connection()
    conn.request("GET", "/v1/events", headers={"X-API-Key": d.key})
    answer = conn.getresponse()
    equal((answer.status, answer.headers["Content-Type"]), (200, "text/event-stream"), "without a handshake")
    conn.close()
    equal(d.request("GET", "/v1/events", key=False).status, 401, "no key")
    wait_for(lambda: d.metrics()["aviary_event_streams_open"] == 0, 10, "all are gone")


def deaf(d):
    """A reader that never reads."""
    s = connect(d, slow=True)
    s.sendall(f"GET {PATH} HTTP/1.1\r\nHost: x\r\nX-API-Key: {d.key}\r\n\r\n".encode())
    return s


def test_readers_that_do_not_read(d):
    """They cost the daemon little, others nothing, and are cut off; one that reads late is told what it missed, and
    where nothing of interest happens comes a sign of life."""
    sb = d.create(metadata={str(i): "x" * 4000 for i in range(14)})["id"]
    before = d.rss_kib()
    sockets = [deaf(d) for _ in range(40)]
    wait_for(lambda: d.metrics()["aviary_event_streams_open"] == 40, 10, "they are connected")
    with Stream(d, events=("capsule.resume",)) as reader, Stream(d, slow=True) as late, \
            Stream(d, events=("template.snapshot.delete",)) as quiet:
        for _ in range(60):
            pause_resume(d, sb)
            ok(reader.next()[0] == "capsule.resume", "who reads misses nothing")
        d.memory_within(before, 16384)
        equal(d.exec(sb, "echo fine")["stdout"], "fine\n", "others are served")
        seen = []
        while not seen or seen[-1][1] != reader.id:
            seen.append(late.next())
        gaps = [m[2] for m in seen if m[0] == "gap"]
        ok(gaps, "something was missed")
        told = [m for m in seen if m[0] != "gap"]
        equal(len(told) + sum(g["dropped"] for g in gaps), 240, f"what is missing is counted: {gaps}")
        ok(all("event" not in g and g["message"] for g in gaps), "a gap is no event of a thing")
        wait_for(lambda: d.metrics()["aviary_event_streams_open"] == 3, 60, "who does not read is cut off")
        at = b""
        while at != f"id: {reader.id}\n".encode():  # where the pauses take longer one comes between them
            equal(quiet.answer.readline()[:1], b":", "a comment")
            at = quiet.answer.readline()
            ok(at.startswith(b"id: "), f"and how far it is: {at}")
            equal(quiet.answer.readline(), b"\n", "its end")
    for s in sockets:
        s.close()
    d.delete(sb)


test_readers_that_do_not_read.timeout_s = 120


def test_what_is_gone_is_said(d):
    with Stream(d) as s:
        last = s.id
    sb = d.create(metadata={str(i): "x" * 4000 for i in range(14)})["id"]
    for _ in range(20):
        pause_resume(d, sb)
    with Stream(d, last=last) as s:
        event, at, data = s.next()
        equal(event, "gap", "first of all")
        first = s.next()
        equal((int(first[1].split("-")[1]) - int(last.split("-")[1]) - 1, at), (data["dropped"], f"{first[1].split('-')[0]}-{int(first[1].split('-')[1]) - 1}"),
              "as many as are missing")
        s.until("capsule.resume", sb)
    d.delete(sb)


def test_restart(_d):
    d = Daemon()
    try:
        d.start()
        sb = d.create()["id"]
        with Stream(d) as s:
            last = s.id
            pause_resume(d, sb)
            s.until("capsule.resume", sb)
            equal(d.stop(), 0, "it stops")
            event, _id, data = s.next()
            equal((event, "event" in data), ("end", False), "the last message")
            contains(data["message"], "shutting down", "why")
            equal(s.next(), None, "and then the end")
        d.start()
        with Stream(d, last=last) as s:
            event, _id, data = s.next()
            equal((event, data.get("dropped")), ("gap", None), "what was before is not known any more")
            contains(data["message"], "restarted", "why")
            d.delete(sb)
            s.until("capsule.destroy", sb)
        with Stream(d, last=s.id) as s:
            sb = d.create()["id"]
            equal(len(s.until("capsule.create", sb)), 2, "ids are good again")
        d.delete_all()
        d.stop()
        nothing_left(d)
    finally:
        d.sweep()
        d.remove_dir()


if __name__ == "__main__":
    main(dict(globals()))
