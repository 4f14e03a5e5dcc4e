#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Create, look at, list, find again and delete sandboxes; both path generations; idempotency."""

import concurrent.futures
import datetime
import json
import re
import socket
import time

from aviary_test import IN_VM, contains, equal, main, ok, wait_for

STATUSES = {"pending", "starting", "running", "paused", "hibernated", "stopped", "missing", "error"}


def is_time(text):
    ok(datetime.datetime.fromisoformat(text.replace("Z", "+00:00")).tzinfo, f"{text} has a zone")


def test_health_and_readiness_need_no_key(d):
    health = d.expect(200, "GET", "/health", key=False).json()
    equal(health["status"], "ok", "health")
    ok(health["version"], "a version")
    ready = d.expect(200, "GET", "/ready", key=False).json()
    equal(ready["isolation"], "jail", "isolation")
    equal(d.expect(200, "HEAD", "/health", key=False).body, b"", "HEAD has no body")


def test_create_and_get(d):
    sb = d.create(metadata={"purpose": "täst"}, memory_mb=256, cpus=0.5, pids_max=200)
    ok(re.fullmatch(r"sb[0-9a-z]{25}", sb["id"]), "form of the id")
    equal(sb["status"], "running", "status in the answer to create")
    equal((sb["memory_mb"], sb["cpus"], sb["vcpus"], sb["pids_max"]), (256, 0.5, 1, 200), "limits")
    equal(sb["metadata"], {"purpose": "täst"}, "metadata")
    equal(sb["isolation"], "vm" if IN_VM else "jail", "isolation is named")
    is_time(sb["created_at"])
    is_time(sb["last_updated"])
    got = d.expect(200, "GET", f"/v1/sandboxes/{sb['id']}").json()
    equal({k: got[k] for k in ("id", "status", "template", "created_at", "metadata")},
          {k: sb[k] for k in ("id", "status", "template", "created_at", "metadata")}, "get")
    ok(got["status"] in STATUSES, "a status that clients know")
    d.delete(sb["id"])


def test_defaults(d):
    for body in (None, b"", b"{}", b'{"template":null,"vcpus":0,"memory_mb":0,"unknown":{"x":[]}}'):
        r = d.expect(201, "POST", "/v1/sandboxes", body)
        sb = r.json()
        d.ids.add(sb["id"])
        equal((sb["vcpus"], sb["memory_mb"], sb["timeout_sec"]), (1, 512, 0), f"defaults for {body}")
        d.delete(sb["id"])


def test_aliases_and_prefixes(d):
    sb = d.expect(201, "POST", "/api/v1/capsules", {}).json()
    d.ids.add(sb["id"])
    for prefix in ("/v1/sandboxes", "/v1/capsules", "/api/v1/sandboxes", "/api/v1/capsules"):
        equal(d.expect(200, "GET", f"{prefix}/{sb['id']}").json()["id"], sb["id"], prefix)
        ok(any(s["id"] == sb["id"] for s in d.expect(200, "GET", prefix).json()), f"listed at {prefix}")
    d.expect(204, "DELETE", f"/api/v1/capsules/{sb['id']}")


def test_key_in_either_header_and_under_every_prefix(d):
    digits = d.key.split("_")[1]
    for prefix in ("av_", "wrn_", "e2b_", "cw_"):
        d.expect(200, "GET", "/v1/sandboxes", headers={"X-API-Key": prefix + digits}, key=False)
        d.expect(200, "GET", "/v1/sandboxes", headers={"Authorization": f"Bearer {prefix}{digits}"},
                 key=False)
    d.expect(401, "GET", "/v1/sandboxes", key=False,
             headers={"X-API-Key": "av_" + "0" * 40, "Authorization": f"Bearer {d.key}"})


def test_delete_is_final_and_repeatable(d):
    sb = d.create()
    d.delete(sb["id"])
    got = d.expect(200, "GET", f"/v1/sandboxes/{sb['id']}").json()
    equal((got["status"], got["reason"]), ("stopped", "deleted"), "after delete")
    is_time(got["stopped_at"])
    d.delete(sb["id"])
    ok(all(s["id"] != sb["id"] for s in d.expect(200, "GET", "/v1/sandboxes").json()), "not listed")
    r = d.expect(409, "POST", f"/v1/sandboxes/{sb['id']}/exec", {"cmd": "true"})
    equal(r.code, "invalid_state", "exec in a stopped one")
    history = d.expect(200, "GET", "/v1/sandboxes?status=stopped").json()
    ok(any(s["id"] == sb["id"] for s in history), "in the history")


def test_unknown_and_malformed_ids(d):
    for method in ("GET", "DELETE"):
        r = d.expect(404, method, "/v1/sandboxes/sb" + "0" * 25)
        equal(r.code, "not_found", "well-formed, unknown")
        for bad in ("x", "sb" + "0" * 24, "sb" + "0" * 26, "cl-nonexistent00000000000000000",
                    "SB" + "0" * 25, "sb%2F" + "0" * 24):
            r = d.expect(400, method, f"/v1/sandboxes/{bad}")
            equal(r.code, "invalid_request", f"malformed id {bad}")
    r = d.expect(400, "GET", "/v1/sandboxes/sb%00" + "0" * 24)
    equal(r.code, "invalid_request", "NUL in an id")


def test_list_is_newest_first(d):
    ids = [d.create()["id"] for _ in range(3)]
    listed = [s["id"] for s in d.expect(200, "GET", "/v1/sandboxes").json() if s["id"] in ids]
    equal(listed, ids[::-1], "order")
    for i in ids:
        d.delete(i)


def test_ping(d):
    sb = d.create()
    d.expect(204, "POST", f"/v1/sandboxes/{sb['id']}/ping")
    d.delete(sb["id"])
    equal(d.expect(409, "POST", f"/v1/sandboxes/{sb['id']}/ping").code, "invalid_state", "stopped")


def test_usage(d):
    sb = d.create()
    usage = d.expect(200, "GET", f"/v1/sandboxes/{sb['id']}/usage").json()
    equal(usage["sandbox_id"], sb["id"], "whose")
    ok("memory_bytes" in usage and "oom_kills" in usage, "numbers")
    d.delete(sb["id"])


def test_idempotency(d):
    headers = {"Idempotency-Key": f"k-{time.time_ns()}"}
    first = d.expect(201, "POST", "/v1/sandboxes", {"memory_mb": 128}, headers=headers).json()
    d.ids.add(first["id"])
    again = d.expect(201, "POST", "/v1/sandboxes", {"memory_mb": 128}, headers=headers).json()
    equal(again["id"], first["id"], "same key, same body")
    r = d.expect(409, "POST", "/v1/sandboxes", {"memory_mb": 130}, headers=headers)
    equal(r.code, "conflict", "same key, another body")
    for bad in ("x" * 256, "with space"):
        d.expect(400, "POST", "/v1/sandboxes", {}, headers={"Idempotency-Key": bad})
    d.delete(first["id"])


def test_idempotency_at_once(d):
    key = f"c-{time.time_ns()}"

    def create(_):
        return d.request("POST", "/v1/sandboxes", {}, headers={"Idempotency-Key": key})

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(create, range(8)))
    equal({a.status for a in answers}, {201}, "statuses")
    ids = {a.json()["id"] for a in answers}
    d.ids |= ids
    equal(len(ids), 1, "sandboxes made by eight requests with one key")
    d.delete(ids.pop())


def test_inactivity_timeout(d):
    sb = d.create(timeout_sec=1, on_timeout="delete")

    def gone():
        got = d.expect(200, "GET", f"/v1/sandboxes/{sb['id']}").json()
        return got if got["status"] == "stopped" else None

    got = wait_for(gone, 10, "stopped by its inactivity timeout")
    equal(got["reason"], "timeout", "reason")


def test_maximum_lifetime(d):
    sb = d.create(max_lifetime_sec=1)
    wait_for(lambda: d.expect(200, "GET", f"/v1/sandboxes/{sb['id']}").json()["status"] == "stopped",
             10, "stopped by its lifetime")
    equal(d.expect(200, "GET", f"/v1/sandboxes/{sb['id']}").json()["reason"], "lifetime", "reason")


def test_request_id(d):
    r = d.expect(200, "GET", "/health", key=False, headers={"X-Request-Id": "mine-1.x"})
    equal(r.headers["X-Request-Id"], "mine-1.x", "the client's own id")
    r = d.expect(200, "GET", "/health", key=False, headers={"X-Request-Id": "bad id\x01"[:6]})
    ok(re.fullmatch(r"[A-Za-z0-9._-]{1,64}", r.headers["X-Request-Id"]), "an id of the server's")


def test_metrics(d):
    d.expect(200, "GET", "/v1/sandboxes")
    text = "\n" + d.expect(200, "GET", "/metrics", key=False).body.decode()
    for name in ("aviary_build_info", "aviary_http_requests_total", "aviary_sandboxes",
                 "aviary_http_request_duration_seconds_bucket", "aviary_loop_stall_seconds_bucket",
                 "process_resident_memory_bytes", "process_open_fds", "aviary_queue_length"):
        contains(text, "\n" + name, "metrics")
    for secret in [d.key, d.key[3:]] + list(d.ids):
        ok(secret not in text, "no key and no id in the metrics")
    for line in text.strip().splitlines():
        ok(line.startswith("#") or re.fullmatch(r'[a-z_]+(\{.*\})? [0-9.e+-]+', line),
           f"exposition format: {line}")


def test_log_has_no_secret(d):
    ok(d.key[3:] not in d.log_text(), "the key is not in the log")
    ok(json.dumps(d.key) not in d.log_text(), "nor quoted")


def test_lists_in_pages(d):
    made = [d.create(metadata={"list": "pages", "n": str(i)}, tags=["pages", f"n{i % 2}"])["id"] for i in range(6)]
    for sandbox in made[::3]:
        d.delete(sandbox)
    seen, query = [], "status=all&tag=pages&limit=2"
    cursor = ""
    while True:
        r = d.expect(200, "GET", f"/v1/sandboxes?{query}{cursor}")
        seen += [s["id"] for s in r.json()]
        ok(len(r.json()) <= 2, "a page has at most its limit")
        if "X-Next-Cursor" not in r.headers:
            break
        cursor = "&cursor=" + r.headers["X-Next-Cursor"]
    equal(seen, made[::-1], "all of them, newest first")

    def ids(text):
        return [s["id"] for s in d.expect(200, "GET", f"/v1/sandboxes?{text}").json()]

    equal(ids("tag=pages&tag=n0"), [i for i in made[::-1] if i in (made[2], made[4])], "all tags must be there")
    equal(ids("tag=pages&status=stopped,error"), [made[3], made[0]], "several states")
    equal(ids("tag=pages&status=stopped&status=running"), made[::-1], "in either way")
    equal(ids("metadata=list%3Dpages&metadata=n%3D5"), [made[5]], "metadata")
    equal(ids("metadata=list%3Dpages&metadata=n%3D5&tag=n0"), [], "all together")
    for text, part in (("status=sleeping", "status"), ("limit=0", "limit"), ("limit=1001", "limit"),
                       ("limit=x", "limit"), ("cursor=", "cursor"), ("cursor=1-x", "cursor"),
                       ("cursor=..%2F..", "cursor"), ("metadata=x", "metadata"), ("tag=", "tag"),
                       ("tag=%ff", "tag"), ("metadata=%3Dx", "metadata"), ("tag=%00", "tag")):
        r = d.expect(400, "GET", f"/v1/sandboxes?{text}")
        equal(r.code, "invalid_request", text)
        contains(r.message, part, text)
    for sandbox in made:
        d.delete(sandbox)


def test_client_leaves_before_the_answer(d):
    """What nobody was told about is deleted; what was answered in time, to whomever, stays."""
    listed = {s["id"] for s in d.expect(200, "GET", "/v1/sandboxes").json()}
    mark = len(d.log_text())
    head = f"POST /v1/sandboxes HTTP/1.1\r\nHost: x\r\nX-API-Key: {d.key}\r\nContent-Length: 2\r\n\r\n{{}}"
    for _ in range(8):
        with socket.create_connection((d.host, d.port)) as s:
            s.sendall(head.encode())

    def settled():
        text = d.log_text()[mark:]
        posts = re.findall(r'method="POST" .*?path="/v1/sandboxes" status="(\d+)"', text)
        left = {s["id"] for s in d.expect(200, "GET", "/v1/sandboxes").json()} - listed
        d.ids.update(left)
        return len(posts) == 8 and len(left) == posts.count("201") < 8 and \
            text.count("creator went away") == posts.count("0")

    wait_for(settled, 10, "only answered ones are left")


main(globals())
