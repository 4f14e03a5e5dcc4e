#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Channels: signed events of a whole lifecycle in order, over outages of the receiver and of the daemon; chats;
addresses that are not called; secrets that are told to nobody; bad input."""

import collections
import hashlib
import hmac
import http.server
import json
import os
import re
import shutil
import signal
import socket
import ssl
import threading
import time
import uuid

import certs
import people
from aviary_test import Daemon, SLOW, contains, equal, main, nothing_left, ok, wait_for

EVENTS = ["capsule.created", "capsule.running", "capsule.paused", "capsule.destroyed", "template.snapshot.created",
          "template.snapshot.deleted", "host.up", "host.down"]
SECRET = "not-so-secret-" + "x" * 20
UNKNOWN = "ch" + "0" * 25


class Receiver:
    """A server that keeps what it is told. modes: what it does with the next requests for a path; then it answers 200."""

    def __init__(self):
        outer = self
        self.seen = collections.defaultdict(list)  # path: requests in their order
        self.modes = collections.defaultdict(list)
        self.stopping = threading.Event()

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self):
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                modes = outer.modes[self.path]
                mode = modes.pop(0) if modes else None
                outer.seen[self.path].append({"method": self.command, "headers": self.headers, "body": body,
                                              "mode": mode, "at": time.monotonic()})
                if mode is None:
                    self.answer(200, b"ok")
                elif isinstance(mode, int):
                    self.answer(mode, b"no")
                elif mode == "hang":
                    outer.stopping.wait(30)
                    self.close_connection = True
                elif mode == "redirect":
                    self.answer(302, b"", {"Location": f"{outer.url}/secret"})
                elif mode == "garbage":
                    self.wfile.write(b"\x00\xff garbage \r\n\r\n" * 20)
                    self.close_connection = True
                elif mode == "cut":
                    self.close_connection = True
                elif mode == "huge":
                    self.flood()
                else:
                    mode(self)

            do_POST = do_PUT = do_GET = handle_any  # pylint: disable=invalid-name

            def flood(self):
                self.send_response(200)
                self.send_header("Connection", "close")
                self.end_headers()
                try:
                    for _ in range(2000):
                        self.wfile.write(b"x" * 65536)
                except OSError:
                    pass
                self.close_connection = True

            def answer(self, status, body, headers=None):
                self.send_response(status)
                for k, v in (headers or {}).items():
                    self.send_header(k, v)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_args):  # pylint: disable=arguments-differ
                pass

        class Server(http.server.ThreadingHTTPServer):
            request_queue_size = 64

            def handle_error(self, *_args):
                pass

        self.server = Server(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.port = self.server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def events(self, path):
        """What was taken: an answer of 200, in order."""
        return [json.loads(r["body"]) for r in self.seen[path] if r["mode"] in (None, "huge")]


R = Receiver()


def make(d, name, config=None, events=EVENTS, provider="webhook", **more):
    config = config or {"url": f"{R.url}/{name}", "secret": SECRET}
    return d.expect(201, "POST", "/v1/channels",
                    {"name": name, "provider": provider, "config": config, "events": list(events), **more}).json()


def remove(d, channel):
    d.expect(204, "DELETE", f"/v1/channels/{channel['id']}")


def get(d, channel):
    return d.expect(200, "GET", f"/v1/channels/{channel['id']}").json()


def deliveries(d, channel, query=""):
    return d.expect(200, "GET", f"/v1/channels/{channel['id']}/deliveries{query}").json()


def told(path, n, timeout_s=20):
    """The first n events that arrived there."""
    wait_for(lambda: len(R.events(path)) >= n, timeout_s, f"{n} events at {path}, there are {R.events(path)}")
    return R.events(path)


def check_signature(request, secret=SECRET):
    h = request["headers"]
    at = h["X-Wrenn-Timestamp"]
    ok(abs(int(at) - time.time()) < 300, "the timestamp is of now")
    mac = hmac.new(secret.encode(), at.encode() + b"." + request["body"], hashlib.sha256).hexdigest()
    equal(h["X-WRENN-SIGNATURE"], f"sha256={mac}", "signature")
    for name in ("Signature", "Delivery", "Timestamp"):
        equal(h[f"X-Aviary-{name}"], h[f"X-Wrenn-{name}"], f"both names of {name}")
    equal(str(uuid.UUID(h["X-Wrenn-Delivery"])), h["X-Wrenn-Delivery"], "a UUID")
    contains(h["Content-Type"], "application/json", "type")


def test_a_whole_life_in_order(d):
    channel = make(d, "life")
    sb = d.create()
    d.expect(200, "POST", f"/v1/sandboxes/{sb['id']}/pause")
    d.expect(200, "POST", f"/v1/sandboxes/{sb['id']}/resume")
    d.expect(201, "POST", "/v1/snapshots", {"sandbox_id": sb["id"], "name": "chan-life"}, timeout=60)
    d.delete(sb["id"])
    d.expect(204, "DELETE", "/v1/snapshots/chan-life")
    got = told("/life", 8)
    names = [e["event"] for e in got]
    # A snapshot pauses the sandbox.
    equal(names, ["capsule.created", "capsule.running", "capsule.paused", "capsule.running", "capsule.paused",
                  "template.snapshot.created", "capsule.destroyed", "template.snapshot.deleted"], "a life")
    equal(len({r["headers"]["X-Wrenn-Delivery"] for r in R.seen["/life"]}), len(names), "ids are each one's own")
    me = d.expect(200, "GET", f"/v1/channels/{channel['id']}").json()["team_id"]
    for request, event in zip(R.seen["/life"], got):
        equal(request["method"], "POST", "method")
        check_signature(request)
        equal(request["headers"]["X-Aviary-Event"], event["event"], "event in the head")
        equal(event["team_id"], me, "team")
        equal((event["actor"]["type"], event["actor"]["name"]), ("api_key", "admin"), "actor")
        ok(re.fullmatch(r"ke[0-9a-z]{25}", event["actor"]["id"]), "its id")
        ok(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", event["timestamp"]), "timestamp")
        template = event["event"].startswith("template")
        equal(event["resource"], {"id": "chan-life" if template else sb["id"],
                                  "type": "template" if template else "capsule"}, "resource")
    equal(got[-2]["reason"], "deleted", "why it ended")
    log = deliveries(d, channel)
    equal([x["event"] for x in log["deliveries"]], names[::-1], "the log, newest first")
    for entry in log["deliveries"]:
        equal((entry["state"], entry["attempts"], entry["status"]), ("delivered", 1, 200), "an entry")
    remove(d, channel)


def test_by_itself(d):
    """What nobody asked for has no actor; only what is wanted is told."""
    channel = make(d, "few", events=["capsule.destroyed"])
    sb = d.create(max_lifetime_sec=1)
    event = told("/few", 1, 30)[0]
    equal((event["event"], event["actor"], event["resource"]["id"]),
          ("capsule.destroyed", {"type": "system"}, sb["id"]), "an end by itself")
    equal(event["reason"], "lifetime", "why")
    remove(d, channel)


def test_pooled(_d):
    own = Daemon(args=["--webhook-private", "127.0.0.0/8"], pool=1)
    try:
        own.start()
        wait_for(lambda: own.pool_ready() == 1, 30, "the pool")
        make(own, "pooled")
        sb = own.create()
        own.delete(sb["id"])
        equal([e["event"] for e in told("/pooled", 3)], ["capsule.created", "capsule.running", "capsule.destroyed"],
              "of one that was made ahead of time")
    finally:
        own.stop()
        own.sweep()
        own.remove_dir()


def test_outages(d):
    """Each receiver fails in its own way at first; nobody waits for another, nothing is lost or out of order."""
    ways = {"500": [500], "busy": [429], "hang": ["hang"], "cut": ["cut"], "garbage": ["garbage"],
            "redirect": ["redirect"], "huge": ["huge"]}
    R.seen.clear()
    for name, modes in ways.items():
        R.modes[f"/out-{name}"] = list(modes)
    channels = {name: make(d, f"out-{name}", events=EVENTS[:4]) for name in ways}
    with socket.socket() as s:  # nobody listens there
        s.bind(("127.0.0.1", 0))
        dead = make(d, "dead", {"url": f"http://127.0.0.1:{s.getsockname()[1]}/"})
        good = make(d, "good", events=EVENTS[:4])
        begin = time.monotonic()
        sb = d.create()
        d.expect(200, "POST", f"/v1/sandboxes/{sb['id']}/pause")
        d.delete(sb["id"])
        expected = ["capsule.created", "capsule.running", "capsule.paused", "capsule.destroyed"]
        equal([e["event"] for e in told("/good", 4)], expected, "who is well gets all")
        ok(time.monotonic() - begin < 8 * SLOW, "and waits for nobody")
        for name in ways:
            equal([e["event"] for e in told(f"/out-{name}", 4, 60)], expected, f"after {name}")
            ids = [r["headers"]["X-Wrenn-Delivery"] for r in R.seen[f"/out-{name}"]]
            failures = len(ways[name]) if name != "huge" else 0
            equal(len(ids), 4 + failures, f"attempts of {name}")
            equal(len(set(ids[:failures + 1])), 1, "an attempt again has the same id")
            times = [r["at"] for r in R.seen[f"/out-{name}"]]
            if failures:  # the ones that follow: unit/test_channels
                ok(times[1] - times[0] >= 9.9, f"10 s before the second attempt ({times[1] - times[0]})")
            for request in R.seen[f"/out-{name}"]:
                check_signature(request)
        equal(R.seen["/secret"], [], "redirects are not followed")
        log = deliveries(d, dead)["deliveries"]
        equal({x["state"] for x in log}, {"pending"}, "what waits")
        contains(log[-1]["error"], "cannot connect", "and why")
        equal([x["attempts"] for x in log[:-1]], [0] * (len(log) - 1), "strictly one after the other")
        failing = get(d, dead)
        ok(failing["failing_since"] and failing["pending"] == 4 and failing["enabled"], f"its record: {failing}")
        equal(get(d, channels["500"])["failing_since"], None, "over")
        text = deliveries(d, channels["hang"])["deliveries"]
        equal([x["attempts"] for x in text[::-1]], [2, 1, 1, 1], "counted")
    for channel in [*channels.values(), dead, good]:
        remove(d, channel)


test_outages.timeout_s = 120 * SLOW


def test_kill(d):
    """The daemon dies again and again while things happen: all is told, in order, at least once."""
    channel = make(d, "kill", events=EVENTS[:4])
    R.modes["/kill"] = [500]
    made = []
    for _ in range(3):
        sb = d.create()
        made.append(sb["id"])
        d.expect(200, "POST", f"/v1/sandboxes/{sb['id']}/pause")
        os.kill(d.pids()["daemon"], signal.SIGKILL)
        wait_for(lambda: ready(d), 30, "the daemon is back")
    for i in made:
        d.delete(i)
    wait_for(lambda: get(d, channel)["pending"] == 0, 60, "all is delivered")
    first, order = {}, []
    for request in R.seen["/kill"]:
        if request["mode"] is None and request["headers"]["X-Wrenn-Delivery"] not in first:
            event = json.loads(request["body"])
            first[request["headers"]["X-Wrenn-Delivery"]] = event
            order.append((made.index(event["resource"]["id"]), event["event"]))
    expected = [(n, e) for n in range(3) for e in EVENTS[:3]] + [(n, "capsule.destroyed") for n in range(3)]
    equal(order, expected, "in order, each under one id")
    remove(d, channel)


test_kill.timeout_s = 120 * SLOW


def test_killed_between_commit_and_word(_d):
    """The daemon dies when a pause is written and nobody was told: channels are."""
    own = Daemon(args=["--webhook-private", "127.0.0.0/8"], env={"AVIARY_FAILPOINT": "pause.committed=kill@1"})
    try:
        own.start()
        make(own, "between", events=EVENTS[:4])
        sb = own.create()
        try:
            own.request("POST", f"/v1/sandboxes/{sb['id']}/pause")
        except OSError:
            pass
        wait_for(lambda: ready(own), 30, "the daemon is back")
        equal(own.expect(200, "GET", f"/v1/sandboxes/{sb['id']}").json()["status"], "paused", "the pause holds")
        own.delete(sb["id"])
        seen = []
        for request in wait_for(lambda: R.seen["/between"] if any(b"destroyed" in r["body"] for r in R.seen["/between"]) else None,
                                30, "all is told"):
            if request["headers"]["X-Wrenn-Delivery"] not in [i for i, _ in seen]:
                seen.append((request["headers"]["X-Wrenn-Delivery"], json.loads(request["body"])["event"]))
        equal([e for _, e in seen], EVENTS[:4], "each once under its id, in order")
    finally:
        own.stop()
        own.sweep()
        own.remove_dir()


def test_hosts(d):
    channel = make(d, "hosts", events=["host.up", "host.down"])
    os.kill(d.pids()["daemon"], signal.SIGKILL)
    wait_for(lambda: ready(d), 30, "the daemon is back")
    event = told("/hosts", 1)[-1]
    equal((event["event"], event["actor"], event["resource"]["type"]), ("host.up", {"type": "system"}, "host"), "the host is up")
    remove(d, channel)


def test_a_team_goes(d):
    """With its channels, and what waits in them."""
    who = people.add(d, "chan-owner")[0]
    body = {"name": "gone", "provider": "webhook", "config": {"url": f"{R.url}/gone"}, "events": EVENTS}
    count = d.metrics()['aviary_table_entries{table="channels"}']
    made = who.expect(201, "POST", "/v1/channels", body).json()
    equal(made["team_id"], who.team, "of their team")
    equal([c["id"] for c in d.expect(200, "GET", "/v1/channels").json() if c["id"] == made["id"]], [], "not of ours")
    d.expect(404, "GET", f"/v1/channels/{made['id']}")
    sb = who.expect(201, "POST", "/v1/sandboxes", {}).json()["id"]
    d.ids.add(sb)
    event = told("/gone", 1)[0]
    equal(event["actor"]["type"], "user", "who did it with a session")
    R.modes["/gone"] = [500] * 100
    who.expect(204, "DELETE", f"/v1/teams/{who.team}")
    equal(d.metrics()['aviary_table_entries{table="channels"}'], count, "the channel is gone")


def ready(d):
    try:
        return d.request("GET", "/ready", key=False).status == 200
    except OSError:
        return False


def test_redelivery_and_pages(d):
    channel = make(d, "again", events=["capsule.created"])
    for _ in range(3):
        d.delete(d.create()["id"])
    first = R.seen["/again"]
    told("/again", 3)
    page = deliveries(d, channel, "?limit=2")
    rest = deliveries(d, channel, f"?limit=2&cursor={page['next_cursor']}")
    equal((len(page["deliveries"]), len(rest["deliveries"]), rest["next_cursor"]), (2, 1, None), "pages")
    oldest = rest["deliveries"][0]["id"]
    equal(oldest, first[0]["headers"]["X-Wrenn-Delivery"], "the oldest")
    path = f"/v1/channels/{channel['id']}/deliveries"
    d.expect(204, "POST", f"{path}/{oldest}/redeliver")
    told("/again", 4)
    equal(first[3]["body"], first[0]["body"], "the same body")
    equal(first[3]["headers"]["X-Wrenn-Delivery"], oldest, "under the same id")
    wait_for(lambda: get(d, channel)["pending"] == 0, 10, "recorded")
    equal(deliveries(d, channel)["deliveries"][0]["attempts"], 2, "attempts are counted")
    equal(d.expect(404, "POST", f"{path}/{uuid.uuid4()}/redeliver").code, "not_found", "no such one")
    d.expect(404, "POST", f"{path}/{'x' * 200}/redeliver")
    for query in ("?limit=0", "?limit=101", "?limit=x", "?cursor=-1", "?cursor=x", "?cursor="):
        equal(d.expect(400, "GET", path + query).code, "invalid_request", query)
    remove(d, channel)


def test_changes(d):
    channel = make(d, "  My Channel ", {"url": f"{R.url}/changes"}, ["capsule.created", "capsule.created"])
    ok(re.fullmatch("[0-9a-f]{64}", channel["secret"]), "a secret is made, and told once")
    equal((channel["name"], channel["events"], channel["provider"]), ("my-channel", ["capsule.created"], "webhook"), "it")
    path = f"/v1/channels/{channel['id']}"
    ok("secret" not in get(d, channel), "not again")
    listed = [c for c in d.expect(200, "GET", "/v1/channels").json() if c["id"] == channel["id"]]
    equal(len(listed), 1, "listed")
    body = {"name": "my channel", "provider": "webhook", "config": {"url": R.url}, "events": ["host.up"]}
    equal(d.expect(409, "POST", "/v1/channels", body).code, "conflict", "the name is taken")
    other = make(d, "other")
    equal(d.expect(409, "PATCH", path, {"name": "other", "events": ["host.up"]}).code, "conflict", "by another")
    changed = d.expect(200, "PATCH", path, {"name": "renamed", "events": ["capsule.destroyed"]}).json()
    equal((changed["name"], changed["events"]), ("renamed", ["capsule.destroyed"]), "changed")
    changed = d.expect(200, "PUT", f"{path}/config", {"config": {"url": f"{R.url}/moved"}}).json()
    ok("secret" not in changed, "not told")
    d.delete(d.create()["id"])
    told("/moved", 1)
    check_signature(R.seen["/moved"][0], channel["secret"])
    d.expect(200, "PUT", f"{path}/config", {"config": {"url": f"{R.url}/moved", "secret": "other"}})
    off = d.expect(200, "PATCH", path, {"name": "renamed", "events": ["capsule.destroyed"], "enabled": False}).json()
    equal(off["enabled"], False, "disabled")
    sb = d.create()
    d.delete(sb["id"])
    on = d.expect(200, "PATCH", path, {"name": "renamed", "events": ["capsule.destroyed"], "enabled": True}).json()
    equal((on["enabled"], on["disabled_at"], on["pending"]), (True, None, 0), "enabled; what was missed is missed")
    d.delete(d.create()["id"])
    told("/moved", 2)
    check_signature(R.seen["/moved"][1], "other")
    R.modes["/moved"] = [410]
    d.delete(d.create()["id"])
    wait_for(lambda: not get(d, channel)["enabled"], 10, "gone for good: disabled")
    contains(get(d, channel)["disabled_reason"], "410", "why")
    wait_for(lambda: "channel.disable" in d.expect(200, "GET", "/v1/audit-logs?action=channel.disable").body.decode(), 10,
             "the audit log tells of it")
    dropped = deliveries(d, channel)["deliveries"][0]
    equal(dropped["state"], "dropped", "what waited is dropped")
    equal(d.expect(409, "POST", f"{path}/deliveries/{dropped['id']}/redeliver").code, "invalid_state", "not now")
    d.expect(200, "PUT", f"{path}/config", {"config": {"url": f"{R.url}/moved"}})
    ok(get(d, channel)["enabled"], "a new configuration enables it")
    remove(d, other)
    remove(d, channel)
    for method, tail, b in (("GET", "", None), ("PATCH", "", {"name": "x", "events": ["host.up"]}), ("DELETE", "", None),
                            ("PUT", "/config", {"config": {"url": R.url}}), ("GET", "/deliveries", None)):
        equal(d.expect(404, method, path + tail, b).code, "not_found", f"{method} of one that is gone")
        d.expect(400, method, "/v1/channels/nonsense" + tail, b)


def test_chats(d):
    chats = {
        "discord": {"webhook_url": f"{R.url}/discord"}, "slack": {"webhook_url": f"{R.url}/slack"},
        "teams": {"webhook_url": f"{R.url}/teams"}, "googlechat": {"webhook_url": f"{R.url}/googlechat"},
        "telegram": {"bot_token": "123:ABC-def", "chat_id": "-100200"},
        "matrix": {"homeserver_url": f"{R.url}/", "access_token": "syt_token", "room_id": "!abc:example.com"},
    }
    key = d.expect(201, "POST", "/v1/api-keys", {"name": "<@everyone> [x](http://evil)"}).json()["key"]
    channels = [make(d, f"chat-{p}", c, ["capsule.created"], p) for p, c in chats.items()]
    sb = d.expect(201, "POST", "/v1/sandboxes", {}, headers={"X-API-Key": key}).json()
    d.ids.add(sb["id"])
    paths = {p: f"/{p}" for p in list(chats)[:4]}
    paths["telegram"] = "/tg/bot123:ABC-def/sendMessage"
    wait_for(lambda: all(R.seen[p] for p in paths.values()), 10, "chats are told")
    body = {p: json.loads(R.seen[path][0]["body"]) for p, path in paths.items()}
    for p in ("slack", "googlechat"):
        equal(set(body[p]), {"text"}, p)
    equal((body["discord"]["allowed_mentions"], set(body["discord"])), ({"parse": []}, {"content", "allowed_mentions"}), "discord")
    card = body["teams"]["attachments"][0]
    equal((body["teams"]["type"], card["contentType"], card["content"]["type"]),
          ("message", "application/vnd.microsoft.card.adaptive", "AdaptiveCard"), "teams")
    equal(body["telegram"]["chat_id"], "-100200", "telegram")
    texts = [body["slack"]["text"], body["googlechat"]["text"], body["discord"]["content"],
             card["content"]["body"][0]["text"], body["telegram"]["text"]]
    for text in texts:
        contains(text, "capsule.created", "text")
        contains(text, sb["id"], "text")
        ok(not set("<>@[]") & set(text), f"nothing of it is markup: {text}")
    matrix = wait_for(lambda: [p for p in R.seen if p.startswith("/_matrix")], 10, "matrix is told")[0]
    ok(re.fullmatch(r"/_matrix/client/v3/rooms/%21abc%3Aexample.com/send/m.room.message/[0-9a-f-]{36}", matrix), matrix)
    request = R.seen[matrix][0]
    equal((request["method"], request["headers"]["Authorization"]), ("PUT", "Bearer syt_token"), "matrix")
    equal(json.loads(request["body"])["msgtype"], "m.text", "its message")
    d.delete(sb["id"])
    for channel in channels:
        remove(d, channel)


def test_tries(d):
    def attempt(status, provider, config):
        return d.expect(status, "POST", "/v1/channels/test", {"provider": provider, "config": config}, timeout=40)
    equal(attempt(200, "webhook", {"url": f"{R.url}/try", "secret": SECRET}).json(), {"status": "ok"}, "it arrives")
    check_signature(R.seen["/try"][0])
    equal(json.loads(R.seen["/try"][0]["body"])["event"], "channel.test", "event")
    R.modes["/try"] = [500, "redirect", "garbage"]
    for text in ("answered 500", "answered 302", ""):
        r = attempt(502, "webhook", {"url": f"{R.url}/try"})
        equal(r.code, "upstream_error", "code")
        contains(r.message, text, "why")
    equal(attempt(502, "webhook", {"url": "http://127.0.0.1:1/"}).code, "upstream_error", "nobody there")
    equal(attempt(400, "webhook", {}).code, "invalid_request", "no URL")


def test_certificates_are_checked(d):
    """Nothing is sent to a server whose certificate nobody vouches for."""
    authority = certs.Authority()
    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*authority.server("receiver"))
        got = []
        with socket.create_server(("127.0.0.1", 0)) as server:
            def serve():
                conn = server.accept()[0]
                conn.settimeout(10)
                try:
                    with context.wrap_socket(conn, server_side=True) as tls:
                        got.append(tls.recv(65536))
                except OSError:
                    got.append(b"")
            threading.Thread(target=serve, daemon=True).start()
            url = f"https://127.0.0.1:{server.getsockname()[1]}/"
            r = d.expect(502, "POST", "/v1/channels/test", {"provider": "webhook", "config": {"url": url}}, timeout=40)
        contains(r.message.lower(), "certificate", "why")
        wait_for(lambda: got, 15, "the handshake is over")
        equal(got, [b""], "nothing was sent")
    finally:
        shutil.rmtree(authority.dir)


def test_addresses(_d):
    """Nothing of this machine or its network is called unless it is allowed."""
    own = Daemon()
    R.seen.clear()
    try:
        own.start()
        for url in (f"http://127.0.0.1:{R.port}/ssrf", f"http://2130706433:{R.port}/ssrf", f"http://0x7f000001:{R.port}/ssrf",
                    f"http://0177.1:{R.port}/ssrf", f"http://[::1]:{R.port}/ssrf", f"http://[::ffff:127.0.0.1]:{R.port}/",
                    "http://169.254.169.254/latest/meta-data", "http://[fd00:ec2::254]/", "http://10.1.2.3/", "http://0.0.0.0/",
                    "http://192.168.1.1/", "http://100.64.1.1/", "http://224.0.0.1/", "http://[fe80::1]/"):
            body = {"provider": "webhook", "config": {"url": url}}
            equal(own.expect(403, "POST", "/v1/channels/test", body).code, "forbidden", url)
            own.expect(403, "POST", "/v1/channels", {"name": "x", "events": ["host.up"], **body})
        # A name is judged where it leads to.
        body = {"provider": "webhook", "config": {"url": f"http://localhost:{R.port}/ssrf"}}
        r = own.expect(403, "POST", "/v1/channels/test", body)
        contains(r.message, "loopback", "why")
        channel = make(own, "name", {"url": f"http://localhost:{R.port}/ssrf"})
        own.delete(own.create()["id"])
        entry = wait_for(lambda: [x for x in deliveries(own, channel)["deliveries"] if x["attempts"]], 10, "an attempt")[0]
        contains(entry["error"], "loopback", "the log says why")
        equal([p for p in R.seen if "ssrf" in p], [], "nothing was called")
        # Tokens are not sent in clear.
        body = {"provider": "slack", "config": {"webhook_url": "http://example.com/x"}}
        contains(own.expect(400, "POST", "/v1/channels/test", body).message, "https://", "chats need https")
    finally:
        own.stop()
        own.sweep()
        own.remove_dir()


def test_secrets_are_told_to_nobody(d):
    token = "supersecrettoken0123456789"
    channels = [make(d, "s1", {"url": f"{R.url}/s1?{token}", "secret": token}),
                make(d, "s2", {"bot_token": token, "chat_id": "1"}, provider="telegram"),
                make(d, "s3", {"homeserver_url": R.url, "access_token": token, "room_id": "!a:b"}, provider="matrix")]
    R.modes[f"/s1?{token}"] = [500]
    d.delete(d.create()["id"])
    wait_for(lambda: R.seen[f"/s1?{token}"], 10, "told")
    for channel in channels:
        for path in ("", "/deliveries"):
            ok(token.encode() not in d.expect(200, "GET", f"/v1/channels/{channel['id']}{path}").body, "answers")
    ok(token.encode() not in d.expect(200, "GET", "/v1/channels").body, "the list")
    ok(token not in d.log_text(), "the log")
    for name in os.listdir(os.path.join(d.state, "db")):
        with open(os.path.join(d.state, "db", name), "rb") as f:
            ok(token.encode() not in f.read(), f"{name} on disk")
    for channel in channels:
        remove(d, channel)


def test_bad_input(d):
    good = {"name": "x", "provider": "webhook", "config": {"url": R.url}, "events": ["host.up"]}
    bad = [
        {"name": ""}, {"name": "-x"}, {"name": "a/b"}, {"name": "x" * 65}, {"name": "ä"}, {"name": None}, {"name": 1},
        {"provider": "pigeon"}, {"provider": None}, {"provider": 1}, {"provider": ""},
        {"events": []}, {"events": ["capsule.exploded"]}, {"events": "host.up"}, {"events": [1]}, {"events": None},
        {"events": ["host.up"] * 1000}, {"config": {}}, {"config": None}, {"config": "x"}, {"config": {"url": 1}},
        {"config": {"url": R.url, "extra": "x"}}, {"config": {"url": ""}}, {"config": {"url": "ftp://example.com/"}},
        {"config": {"url": "http://user:pw@example.com/"}}, {"config": {"url": "http://exa mple.com/"}},
        {"config": {"url": "http://example.com/\r\nX: y"}}, {"config": {"url": "http://" + "x" * 3000}},
        {"config": {"url": R.url, "secret": ""}}, {"config": {"url": R.url, "secret": "x" * 300}},
        {"provider": "telegram", "config": {"bot_token": "a/../b", "chat_id": "1"}},
        {"provider": "telegram", "config": {"bot_token": "a", "chat_id": "1 2"}},
        {"provider": "telegram", "config": {"bot_token": "a"}},
        {"provider": "matrix", "config": {"homeserver_url": R.url + "?x", "access_token": "x", "room_id": "!a"}},
        {"provider": "matrix", "config": {"homeserver_url": R.url, "access_token": "x\r\ny", "room_id": "!a"}},
        {"provider": "matrix", "config": {"homeserver_url": R.url, "access_token": "x", "room_id": "a"}},
    ]
    for change in bad:
        r = d.expect(400, "POST", "/v1/channels", {**good, **change})
        equal(r.code, "invalid_request", str(change)[:80])
    d.expect(413, "POST", "/v1/channels", {**good, "config": {"url": "x" * 70000}})
    for body in (b"", b"[]", b"{", b'{"name":"\xff"}'):
        d.expect(400, "POST", "/v1/channels", body)
    equal(d.expect(401, "GET", "/v1/channels", key=False).code, "unauthorized", "without a key")
    before = len(d.expect(200, "GET", "/v1/channels").json())
    many = [make(d, f"many{i}") for i in range(32 - before)]
    r = d.expect(429, "POST", "/v1/channels", {**good, "name": "toomany"})
    equal(r.code, "quota_exceeded", "bounded")
    for channel in many:
        remove(d, channel)


main(globals(), args=["--webhook-private", "127.0.0.0/8", "--telegram-url", f"{R.url}/tg"])
