#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The audit log: every change is in it once, with who, what and result; it can be read, filtered and exported, and nobody
can write into it what is not so."""

import json
import os
import re
import signal
import socket
import subprocess
import time

from aviary_test import contains, equal, main, ok, program, short, wait_for
from ws import WebSocket

ROUTES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "src", "api", "routes.def")
UNKNOWN = "sb" + "0" * 25
# Changes nothing that outlives the sandbox, or only inside of it, where the owner of the sandbox rules.
INSIDE = {"EXEC", "RUN_CODE", "PROCESS_KILL", "FILE_PUT", "FILE_WRITE", "FILE_READ", "FILE_STREAM_WRITE",
          "FILE_STREAM_READ", "FILE_STAT", "FILE_LIST", "FILE_MKDIR", "FILE_MOVE", "FILE_CHMOD", "FILE_REMOVE",
          "TAR_PUT", "FILE_SIGNED_PUT"}
NOTHING = {"SANDBOX_PING",      # says only that it is used
           "SWITCH_TEAM",       # gives a session for another team
           "RESET",             # sends a link, or nothing: who asks is not known; its use is told
           "HOST_HEARTBEAT"}    # every 30 s; changes of the state are in the log as host.up and host.down


def logs(d, query=""):
    return d.expect(200, "GET", f"/v1/audit-logs?limit=200{query}").json()["items"]


def wait_log(d, query, n=1):
    """n records, newest first."""
    wait_for(lambda: len(logs(d, query)) >= n, 10, f"{n} records for {query}")
    found = logs(d, query)
    equal(len(found), n, f"records for {query}: {short(found)}")
    return found


def test_every_route_that_changes_something_is_named(_d):
    with open(ROUTES, encoding="utf-8") as f:
        text = re.sub(r"/\*.*?\*/", "", f.read(), flags=re.S)
    rows = re.findall(r'API_ROUTE\(\s*(\w+),\s*(\w+),\s*"([^"]+)",\s*(\w+),\s*(\w+),\s*(\w+),\s*"([^"]*)"', text)
    ok(len(rows) > 50, f"{len(rows)} routes")
    for name, method, pattern, _handler, _auth, _scope, audit in rows:
        if method != "GET" and name not in INSIDE | NOTHING:
            ok(re.fullmatch(r"[a-z_]{2,20}\.[a-z_]{2,20}", audit), f"{method} {pattern}: {audit!r} names a change")
        if name in INSIDE | NOTHING:
            equal(audit, "", f"{method} {pattern} is not in the log")


def test_a_life_is_told(d):
    sb = d.create(metadata={"a": "b"})["id"]
    d.expect(200, "PATCH", f"/v1/sandboxes/{sb}", {"tags": ["t"]})
    d.expect(200, "POST", f"/v1/sandboxes/{sb}/url", {"port": 80})
    d.expect(200, "POST", f"/v1/sandboxes/{sb}/pause")
    d.expect(409, "POST", f"/v1/sandboxes/{sb}/pause")
    d.expect(200, "POST", f"/v1/capsules/{sb}/resume", headers={"X-Request-Id": "mine-1"})
    d.expect(201, "POST", "/v1/snapshots", {"sandbox_id": sb, "name": "audited"})
    d.expect(204, "DELETE", "/v1/snapshots/audited")
    d.expect(200, "POST", f"/v1/sandboxes/{sb}/resume")
    with WebSocket(d.host, d.port, f"/v1/sandboxes/{sb}/pty", {"X-API-Key": d.key}) as s:
        s.send_json({"type": "start", "cmd": "/bin/true"})
        s.recv_json()
    d.exec(sb, "true")
    d.delete(sb)
    found = wait_log(d, f"&resource_id={sb}", 9)
    found.reverse()
    equal([r["action"] for r in found],
          ["sandbox." + w for w in ("create", "update", "port_url", "pause", "pause", "resume", "resume", "terminal", "delete")],
          "each once, in order")
    equal([(r["status"], r["http_status"]) for r in found],
          [("success", 201), ("success", 200), ("success", 200), ("success", 200), ("failure", 409), ("success", 200),
           ("success", 200), ("success", 101), ("success", 204)], "how they came out")
    equal(found[4]["code"], "invalid_state", "why it was refused")
    equal(found[5]["request_id"], "mine-1", "request id")
    first = found[0]
    equal((first["actor_type"], first["actor_name"], first["user_name"], first["scope"], first["resource_type"]),
          ("api_key", "admin", "admin", "team", "sandbox"), "who")
    ok(first["actor_id"].startswith("ke") and first["user_id"].startswith("us"), "with ids")
    ok(first["peer"].startswith("127.0.0.1:"), f"from where: {first['peer']}")
    equal(first["metadata"], {"template": "minimal"}, "metadata")
    made, gone = wait_log(d, "&resource_id=audited", 2)[::-1]
    equal((made["action"], made["metadata"]["sandbox_id"], gone["action"]), ("snapshot.create", sb, "snapshot.delete"),
          "snapshots by name")


def test_what_was_refused_is_told(d):
    before = len(logs(d, "&status=failure"))
    d.expect(404, "DELETE", f"/v1/sandboxes/{UNKNOWN}")
    d.expect(404, "POST", "/v1/sandboxes", {"template": "no-such-template"})
    d.expect(400, "POST", "/v1/sandboxes", {"memory_mb": -1})
    d.expect(403, "DELETE", "/v1/snapshots/host")
    d.expect(501, "POST", "/v1/admin/builds")
    d.expect(413, "POST", "/v1/snapshots", {"x": "y" * 70000})
    wait_for(lambda: len(logs(d, "&status=failure")) >= before + 6, 10, "six failures")
    found = logs(d, "&status=failure")[:6][::-1]
    equal([(r["action"], r["http_status"], r["code"]) for r in found],
          [("sandbox.delete", 404, "not_found"), ("sandbox.create", 404, "not_found"),
           ("sandbox.create", 400, "invalid_request"), ("snapshot.delete", 403, "forbidden"),
           ("build.create", 501, "unsupported"), ("snapshot.create", 413, "too_large")], "refused")
    equal(found[0]["resource_id"], UNKNOWN, "what it was about")


def test_refused_keys_are_told_and_bounded(d):
    wrong = {"X-API-Key": "av_" + "0" * 40}
    d.expect(401, "POST", "/v1/sandboxes", {}, headers=wrong)
    d.expect(401, "GET", "/v1/sandboxes", key=False)
    admin = lambda q="": d.expect(200, "GET", "/v1/admin/audit-logs?limit=200" + q).json()["items"]  # noqa: E731
    wait_for(lambda: admin("&action=auth.refuse"), 10, "a refusal")
    found = admin("&action=auth.refuse")
    equal(len(found), 1, "one: without a key there is nobody to tell of")
    equal((found[0]["actor_type"], found[0]["code"], found[0]["metadata"]["route"], found[0]["scope"]),
          ("anonymous", "unauthorized", "POST /v1/sandboxes", "admin"), "refused")
    ok("team_id" not in found[0] and not logs(d, "&action=auth.refuse"), "it is of no team")
    for _ in range(400):
        d.expect(401, "GET", "/v1/sandboxes", headers=wrong)
    time.sleep(0.3)
    # 200 at once, then two a second.
    n = sum(len(admin(f"&action=refuse&actor={a}")) for a in ("",))
    ok(n == 200, f"a page of {n}")
    ok(d.metrics()["aviary_audit_omitted_total"] > 50, "the others are counted")
    sb = d.create()["id"]
    equal(len(wait_log(d, f"&resource_id={sb}")), 1, "what is done by others is written all the same")
    d.delete(sb)


def test_nobody_writes_between_the_lines(d):
    nasty = "a%0A%7B%22id%22:1%7D%1B%5B2J%E2%80%AEx%7F"
    d.expect(404, "DELETE", f"/v1/snapshots/{nasty}")
    d.expect(400, "DELETE", "/v1/snapshots/%FF%FE")
    d.expect(400, "PATCH", "/v1/sandboxes/%22%7D%0A", {"tags": []})
    d.expect(404, "DELETE", "/v1/snapshots/" + "%E2%82%AC" * 80)
    # A header that tries: the id is Aviary's own then.
    d.raw(f"DELETE /v1/sandboxes/{UNKNOWN} HTTP/1.1\r\nHost: x\r\nX-API-Key: {d.key}\r\nX-Request-Id: a b\"}}\r\n"
          "Connection: close\r\n\r\n".encode())
    d.create(metadata={"x": "\n\x1b[31m\u2028"})
    wait_for(lambda: logs(d, "&action=snapshot.delete&status=failure"), 10, "records")
    body = d.expect(200, "GET", "/v1/audit-logs/export").body
    lines = body.decode().split("\n")
    equal(lines.pop(), "", "it ends with a line's end")
    for line in lines:
        record = json.loads(line)
        for text in re.findall(r'"((?:[^"\\]|\\.)*)"', line):
            ok(not re.search("[\\x00-\\x1f\\x7f\\u2028\\u202e]|\\\\n|\\\\u00", text), f"plain text: {text!r}")
        ok(len(line) < 4096 and record["id"].startswith("lo"), "bounded")
    ids = [json.loads(line)["id"] for line in lines]
    equal(ids, sorted(set(ids)), "each once, oldest first")
    contains(json.dumps(logs(d)), 'a?{\\"id\\":1}?[2J?x?', "what was asked for, made harmless")
    d.delete_all()


def test_pages_and_filters(d):
    for _ in range(30):
        d.expect(404, "DELETE", f"/v1/sandboxes/{UNKNOWN}")
    wait_for(lambda: len(logs(d, f"&resource_id={UNKNOWN}&action=delete")) > 30, 10, "records")
    whole = logs(d)
    seen, query = [], ""
    while True:
        page = d.expect(200, "GET", "/v1/audit-logs?limit=7" + query).json()
        seen += page["items"]
        if "next_before_id" not in page or len(seen) >= len(whole):
            break
        query = f"&before={page['next_before']}&before_id={page['next_before_id']}"
    equal([r["id"] for r in seen[:len(whole)]], [r["id"] for r in whole], "pages hold what one page does")
    at = whole[10]["created_at"]
    ok(all(r["created_at"] < at for r in logs(d, f"&before={at}")), "before")
    ok(all(r["created_at"] >= at for r in logs(d, f"&since={at}")) and logs(d, f"&since={at}"), "since")
    ok(all(r["created_at"] <= at for r in logs(d, f"&until={at}")) and logs(d, f"&until={at}"), "until")
    types = {r["resource_type"] for r in logs(d, "&resource_type=snapshot,build")}
    equal(types, {"snapshot", "build"}, "types")
    ok(all(r["action"] == "sandbox.create" for r in logs(d, "&action=create&resource_type=sandbox")), "action")
    equal(logs(d, "&actor=nobody"), [], "actor")
    equal(len(logs(d, "&actor=admin")), len(logs(d, "&actor=" + whole[0]["user_id"])), "by name and id")
    for query in ("limit=0", "limit=201", "before=x", "before_id=x", "before_id=lo" + "z" * 25, "status=maybe", "since=1",
                  "resource_type=" + "x" * 200, "action=%00"):
        r = d.expect(400, "GET", "/v1/audit-logs?" + query)
        contains(r.message, query.split("=")[0], "the message names it")
    team = whole[0]["team_id"]
    every = d.expect(200, "GET", "/v1/admin/audit-logs?limit=200").json()["items"]
    ok(any("team_id" not in r for r in every) or len(every) == 200, "all teams'")
    ok(all(r.get("team_id") == team for r in
           d.expect(200, "GET", f"/v1/admin/audit-logs?team_id={team}").json()["items"]), "of one team")


def test_an_export_that_is_not_read_waits(d):
    before = d.rss_kib()
    with socket.create_connection((d.host, d.port), timeout=20) as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        s.sendall(f"GET /v1/audit-logs/export HTTP/1.1\r\nHost: x\r\nX-API-Key: {d.key}\r\n\r\n".encode())
        time.sleep(0.3)
        ok(s.recv(100).startswith(b"HTTP/1.1 200 "), "it began")
    d.memory_within(before, 8000)
    wait_for(lambda: logs(d, "&action=audit.export"), 10, "that it was exported is told as well")
    answers = []
    for _ in range(5):
        conn = d.connection()
        conn.connect()
        conn.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        answers.append(conn)
    for conn in answers:
        conn.close()


def test_what_aviary_does_by_itself(d):
    sb = d.create(timeout_sec=1, on_timeout="delete")["id"]
    found = []
    wait_for(lambda: found.extend(logs(d, f"&resource_id={sb}&action=sandbox.end")) or found, 15, "its end")
    equal((found[0]["actor_type"], found[0]["metadata"], found[0]["status"], found[0]["scope"]),
          ("system", {"reason": "timeout"}, "success", "team"), "by itself")
    sb = d.create(timeout_sec=1)["id"]
    wait_for(lambda: logs(d, f"&resource_id={sb}&action=pause"), 15, "its pause")
    equal(logs(d, f"&resource_id={sb}&action=pause")[0]["actor_type"], "system", "by itself")
    d.delete(sb)


def cli(d, *args):
    env = {**os.environ, "AVIARY_URL": d.url, "AVIARY_API_KEY": d.key}
    return subprocess.run([program("aviary"), *args], env=env, capture_output=True, timeout=30, check=False)


def test_on_the_command_line(d):
    sb = d.create()["id"]
    d.delete(sb)
    wait_log(d, f"&resource_id={sb}", 2)
    r = cli(d, "audit", "--since", "1h", "--action", "sandbox.delete")
    equal(r.returncode, 0, r.stderr.decode())
    contains(r.stdout.decode(), sb, "listed")
    lines = cli(d, "audit", "--json", "--resource", sb).stdout.decode().splitlines()
    equal([json.loads(line)["action"] for line in lines], ["sandbox.create", "sandbox.delete"], "as JSON lines, oldest first")
    equal(cli(d, "audit", "--since", "soon").returncode, 2, "a time that is none")
    env = {**os.environ, "AVIARY_URL": d.url, "AVIARY_API_KEY": d.key}
    with subprocess.Popen([program("aviary"), "audit", "-f", "--json", "--action", "sandbox.create"], env=env,
                          stdout=subprocess.PIPE) as p:
        try:
            time.sleep(0.5)
            sb = d.create()["id"]
            line = b""
            while sb.encode() not in line:
                line = p.stdout.readline()
                ok(line, "it goes on")
        finally:
            p.send_signal(signal.SIGTERM)
    d.delete(sb)


def test_a_killed_daemon_loses_nothing_old(d):
    sb = d.create()["id"]
    d.delete(sb)
    time.sleep(0.5)  # the stated lag is a tenth of a second
    os.kill(d.pids()["daemon"], signal.SIGKILL)
    wait_for(lambda: d_ready(d), 30, "it is back")
    equal([r["action"] for r in logs(d, f"&resource_id={sb}")], ["sandbox.delete", "sandbox.create"], "both are there")
    d.create()
    d.delete_all()
    d.stop()
    d.start()
    ok(logs(d, "&action=delete")[0]["created_at"] > logs(d, f"&resource_id={sb}")[0]["created_at"],
       "nothing is lost in an orderly stop")


def d_ready(d):
    try:
        return d.request("GET", "/ready", key=False).status == 200
    except OSError:
        return False


if __name__ == "__main__":
    main(dict(globals()))
