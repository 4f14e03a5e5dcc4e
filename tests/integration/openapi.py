#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The OpenAPI document against routes.def and against a running daemon: every route is in it, every answer that it
promises is asked for and has the shape that it says, and every member of every body is sent with wrong values."""

import base64
import contextlib
import io
import json
import os
import re
import socket
import tarfile
import threading
import time
import urllib.parse

import github
import jsonschema
import people
import yaml
from aviary_test import contains, equal, main, ok, short, wait_for

ROUTES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "src", "api", "routes.def")
UNKNOWN = "sb" + "0" * 25
SEEN = set()  # (method, path, status) that were answered and fit
OWN = {}  # ids of the team and the user of the key
DOC = {}
# Answered by virtual machines only, which this test makes none of.
NEEDS_VM = {("POST", "/v1/sandboxes/{id}/fork", 201)}
HUB = github.GitHub()


def follow(value):
    while isinstance(value, dict) and "$ref" in value:
        at = DOC
        for key in value["$ref"][2:].split("/"):
            at = at[key]
        value = at
    return value


def operations():
    for path, methods in DOC["paths"].items():
        for method, op in methods.items():
            yield path, method.upper(), op


def check(method, path, response):
    """The answer fits what the document says about it."""
    what = f"{method} {path} {response.status}"
    documented = DOC["paths"][path][method.lower()]["responses"].get(str(response.status))
    ok(documented is not None, f"{what} is not documented: {short(response.body)}")
    content = follow(documented).get("content")
    if content:
        kind = response.headers["Content-Type"].split(";")[0]
        ok(kind in content, f"{what}: {kind}, not {list(content)}")
        if "schema" in content[kind]:
            schema = {**content[kind]["schema"], "components": DOC["components"]}
            try:
                jsonschema.validate(response.json(), schema, jsonschema.Draft202012Validator)
            except jsonschema.ValidationError as error:
                raise AssertionError(f"{what}: {error.message} at {list(error.path)}") from None
    else:
        equal(response.body, b"", f"{what} has no body")
    SEEN.add((method, path, response.status))
    return response


def ask(d, method, path, expected, body=None, query="", headers=None, key=True, **names):
    """Asks, and checks status and shape. names: values of {name} in the path."""
    real = re.sub(r"\{(\w+)\}", lambda m: urllib.parse.quote(str(names[m.group(1)])), path)
    r = d.request(method, real + query, body, headers=headers, key=key, timeout=90)
    equal(r.status, expected, f"{method} {real}{query}: {short(r.body)}")
    return check(method, path, r)


def test_it_is_served(d):
    r = d.expect(200, "GET", "/openapi.yaml", key=False)
    equal(r.headers["Content-Type"], "application/yaml", "type")
    DOC.update(yaml.safe_load(r.body))
    equal(d.expect(200, "GET", "/openapi.json", key=False).json(), DOC, "as JSON it is the same")
    ok(DOC["openapi"].startswith("3.1"), "version")
    key = d.expect(200, "GET", "/v1/api-keys").json()[0]
    OWN.update(team=key["team_id"], user=key["created_by"], api_key=key["id"])
    ids = [op["operationId"] for _, _, op in operations()]
    equal(len(ids), len(set(ids)), "names of operations are unique")

    def walk(value):
        if isinstance(value, dict):
            if "$ref" in value:
                follow(value)
            for v in value.values():
                walk(v)
        elif isinstance(value, list):
            for v in value:
                walk(v)
    walk(DOC)


def test_every_route_is_in_it_and_nothing_else(_d):
    with open(ROUTES, encoding="utf-8") as f:
        text = re.sub(r"/\*.*?\*/", "", f.read(), flags=re.S)
    routes = {(m, p) for m, p in re.findall(r'API_ROUTE\(\s*\w+,\s*(\w+),\s*"([^"]+)"', text)}
    documented = {(m, p) for p, m, _ in operations()}
    equal(sorted(routes - documented), [], "routes that are not documented")
    equal(sorted(documented - routes), [], "documented routes that do not exist")


def test_the_page_needs_nobody_else(d):
    page = d.expect(200, "GET", "/docs", key=False)
    contains(page.headers["Content-Security-Policy"], "default-src 'none'", "policy")
    ok("unsafe" not in page.headers["Content-Security-Policy"], "no inline script or style")
    for path in ("/docs", "/docs/page.js", "/docs/page.css"):
        r = d.expect(200, "GET", path, key=False)
        equal(re.findall(rb"(?:https?:)?//[a-z0-9.-]+\.[a-z]+", r.body), [], f"{path} names no other host")
        equal(r.headers["X-Content-Type-Options"], "nosniff", "no guessing")
    ok(b"innerHTML" not in d.expect(200, "GET", "/docs/page.js", key=False).body, "text is no markup")


def values(names):
    return {"id": UNKNOWN, "selector": "1", "name": "no-such-template", "build": "x", "api_key": "ke" + "0" * 25,
            "team": OWN["team"], "user": "us" + "0" * 25, "provider": "none", "channel": "ch" + "0" * 25,
            "delivery": "00000000-0000-4000-8000-000000000000", "sandbox": UNKNOWN,
            "host": "ho" + "0" * 25, "tag": "x", **names}


def body_for(op):
    """A well-formed body of required members only."""
    content = op.get("requestBody", {}).get("content", {}).get("application/json")
    if not content:
        return None
    schema = follow(content["schema"])
    samples = {"port": 80, "sandbox_id": UNKNOWN, "timeout_sec": 1, "name": "a-name", "email": "nobody@example.com",
               "config": {"url": "https://name.invalid/"}, "provider": "webhook", "events": ["host.up"],
               "role": "member", "enabled": True,
               "password": "correct horse", "new_password": "correct horse", "team_id": "te" + "0" * 25, "active": True,
               "type": "regular", "token": "0" * 64, "refresh_token": "0" * 64, "address": "192.0.2.7:50051", "tag": "x"}
    body = {name: samples.get(name, "/tmp/x") for name in schema.get("required", [])}
    return body or ({"timeout_sec": 1} if "timeout_sec" in schema["properties"] else {})


def query_for(op):
    wanted = [follow(p) for p in op.get("parameters", [])]
    pairs = {p["name"]: "/tmp" for p in wanted if p["in"] == "query" and p.get("required")}
    return "?" + urllib.parse.urlencode(pairs) if pairs else ""


def is_socket(op):
    return "101" in op["responses"]


def test_no_key_and_no_such_sandbox(d):
    for path, method, op in operations():
        errors = set(op["responses"])
        if "401" in errors and {} not in op.get("security", []):
            ask(d, method, path, 401, body_for(op), query_for(op), key=False, **values({}))
        if "404" in errors and path not in ("/v1/sandboxes", "/v1/hosts", "/v1/hosts/register") and \
                not path.endswith("/heartbeat"):
            body = body_for(op)
            headers = None
            if "multipart/form-data" in op.get("requestBody", {}).get("content", {}):
                body, headers = form("/tmp/x", b"x")
            team = {"team": "te" + "0" * 25} if path.startswith("/v1/admin/teams") else {}
            ask(d, method, path, 404, body, query_for(op), headers=headers, **values(team))
        if "400" in errors and "{id}" in path:
            ask(d, method, path, 400, body_for(op), query_for(op), **values({"id": "nonsense"}))
        if "413" in errors and "application/json" in op.get("requestBody", {}).get("content", {}):
            big = b'{"x":"' + b"y" * (5 << 20) + b'"}'
            ask(d, method, path, 413, big, **values({}))
        if "400" in errors and ("{api_key}" in path or "{team}" in path):
            nonsense = {"api_key": "nonsense", "team": "nonsense"}
            ask(d, method, path, 400, body_for(op), query_for(op), **values(nonsense))
        if "403" in errors and path.startswith("/v1/teams/{team}"):
            ask(d, method, path, 403, body_for(op), query_for(op), **values({"team": "te" + "0" * 25}))
        if "501" in errors:
            ask(d, method, path, 501, **values({}))


def form(path, data):
    boundary = "b0undary"
    body = (f'--{boundary}\r\nContent-Disposition: form-data; name="path"\r\n\r\n{path}\r\n--{boundary}\r\n'
            'Content-Disposition: form-data; name="file"; filename="upload"\r\n\r\n').encode() + data + \
        f"\r\n--{boundary}--\r\n".encode()
    return body, {"Content-Type": f"multipart/form-data; boundary={boundary}"}


def upgrade(d, path, query="", key=True, **names):
    real = re.sub(r"\{(\w+)\}", lambda m: str(names[m.group(1)]), path) + query
    head = (f"GET {real} HTTP/1.1\r\nHost: {d.host}:{d.port}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {base64.b64encode(os.urandom(16)).decode()}\r\n")
    head += f"X-API-Key: {d.key}\r\n" if key else ""
    with socket.create_connection((d.host, d.port), timeout=20) as s:
        s.sendall((head + "\r\n").encode())
        answer = s.recv(4096)
    ok(answer.startswith(b"HTTP/1.1 101 "), f"{real}: {answer[:80]!r}")
    SEEN.add(("GET", path, 101))


S, I, F = "/v1/sandboxes", "/v1/sandboxes/{id}", "/v1/sandboxes/{id}/files"


def test_system(d):
    for path in ("/health", "/ready", "/metrics", "/openapi.yaml", "/openapi.json", "/docs", "/docs/page.js",
                 "/docs/page.css"):
        ask(d, "GET", path, 200, key=False)


def test_metrics_are_for_this_machine(d):
    proxied = {"Via": "1.1 proxy"}
    ask(d, "GET", "/metrics", 401, key=False, headers=proxied)
    for scopes, status in ((["metrics"], 200), (["sandboxes:*", "admin"], 403)):
        key = d.expect(201, "POST", "/v1/api-keys", {"name": "monitor", "scopes": scopes}).json()
        ask(d, "GET", "/metrics", status, headers={**proxied, "X-API-Key": key["key"]}, key=False)
        d.expect(204, "DELETE", f"/v1/api-keys/{key['id']}")


def test_sandboxes(d):
    sb = ask(d, "POST", S, 201, {"metadata": {"a": "b"}, "tags": ["t"], "timeout_sec": 600}).json()["id"]
    d.ids.add(sb)
    ask(d, "POST", S, 400, {"memory_mb": -1})
    ask(d, "POST", S, 404, {"template": "no-such-template"})
    ask(d, "POST", S, 201, {}, headers={"Idempotency-Key": "openapi"})
    ask(d, "POST", S, 409, {"tags": []}, headers={"Idempotency-Key": "openapi"})
    ask(d, "GET", S, 200, query="?status=all&limit=10")
    ask(d, "GET", S, 400, query="?limit=0")
    ask(d, "GET", I, 200, id=sb)
    ask(d, "PATCH", I, 200, {"tags": ["u"], "metadata": {"a": None}}, id=sb)
    ask(d, "POST", I + "/ping", 204, id=sb)
    ask(d, "GET", I + "/usage", 200, id=sb)
    ask(d, "GET", I + "/metrics", 200, id=sb)
    ask(d, "GET", I + "/metrics", 400, query="?range=1y", id=sb)
    for path in (S + "/stats", S + "/usage"):
        ask(d, "GET", path, 200)
    ask(d, "GET", S + "/stats", 400, query="?range=1y")
    ask(d, "GET", S + "/usage", 400, query="?from=x")
    ask(d, "POST", I + "/url", 200, {"port": 8000}, id=sb)
    ask(d, "POST", I + "/stop", 409, {"snapshot": "minimal"}, id=sb)
    ask(d, "POST", I + "/resume", 409, id=sb)
    ask(d, "POST", I + "/pause", 200, id=sb)
    ask(d, "POST", I + "/pause", 409, id=sb)
    for path, method, op in operations():
        if "409" in op["responses"] and (method, path, 409) not in SEEN and "{id}" in path and method != "PATCH":
            body, headers = body_for(op), None
            if "multipart/form-data" in op.get("requestBody", {}).get("content", {}):
                body, headers = form("/tmp/x", b"x")
            if not path.endswith(("/resume", "/rollback")):
                ask(d, method, path, 409, body, query_for(op), headers=headers, id=sb, selector="1")
    ask(d, "POST", I + "/resume", 200, id=sb)
    ask(d, "POST", I + "/rollback", 404, {"snapshot": "no-such"}, id=sb)
    ask(d, "POST", I + "/rollback", 400, {}, id=sb)
    ask(d, "POST", I + "/rollback", 200, {"snapshot": "minimal"}, id=sb)
    contains(d.expect(501, "POST", I.format(id=sb) + "/fork", {}).json()["error"]["message"], "vm", "what can be forked")
    ask(d, "POST", I + "/fork", 400, {"count": 101}, id=sb)
    ask(d, "DELETE", I, 204, id=sb)
    ask(d, "GET", I, 200, id=sb)
    ask(d, "PATCH", I, 409, {"tags": []}, id=sb)
    sb = ask(d, "POST", S, 201, {"command": ["/bin/sh", "-c", "exec sleep 600"], "workdir": "/tmp", "user": "root",
             "files": [{"path": "/tmp/x", "content": "x", "mode": "600"}]}).json()["id"]
    ask(d, "GET", I + "/logs", 200, id=sb)
    ask(d, "POST", I + "/rollback", 409, {"snapshot": "minimal"}, id=sb)
    ended = ask(d, "POST", S, 201, {"command": "echo one; printf '\\377'; exit 3"}).json()["id"]
    schema = {**DOC["components"]["schemas"]["LogLine"], "components": DOC["components"]}
    for line in ask(d, "GET", I + "/logs", 200, query="?format=json&follow=true", id=ended).body.splitlines():
        jsonschema.validate(json.loads(line), schema, jsonschema.Draft202012Validator)
    ask(d, "GET", I + "/logs", 400, query="?tail=x", id=sb)
    ask(d, "POST", I + "/stop", 400, {"grace_sec": -1}, id=sb)
    ask(d, "POST", I + "/stop", 200, {"grace_sec": 5}, id=sb)
    ask(d, "GET", I, 200, id=sb)


def test_more_saved_logs_than_a_team_may_read(d):
    # Six times as much as JSON, so that it fits into no buffer on the way.
    sb, readers = d.expect(201, "POST", S, {"command": "head -c 1200000 /dev/zero | tr '\\0' '\\1'"}).json()["id"], []
    ok(d.request("GET", I.format(id=sb) + "/logs?follow=true").status == 200, "it has ended")
    wait_for(lambda: d.request("GET", I.format(id=sb)).json()["status"] == "stopped", 30, "its end")
    try:
        for _ in range(24):
            conn = d.connection()
            readers.append(conn)
            conn.sock = socket.socket()
            conn.sock.settimeout(30)
            conn.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            conn.sock.connect((d.host, d.port))
            conn.request("GET", I.format(id=sb) + "/logs?format=json", headers={"X-API-Key": d.key})
        for conn in readers:
            conn.getresponse()
        ask(d, "GET", I + "/logs", 429, id=sb)
    finally:
        for conn in readers:
            conn.close()


def test_commands(d):
    sb = d.create()["id"]
    ask(d, "POST", I + "/exec", 200, {"cmd": "echo", "args": ["x"]}, id=sb)
    tag = ask(d, "POST", I + "/exec", 202, {"cmd": "sleep", "args": ["100"], "background": True}, id=sb).json()["tag"]
    ask(d, "GET", I + "/processes", 200, id=sb)
    upgrade(d, I + "/processes/{selector}/stream", id=sb, selector=tag)
    ask(d, "DELETE", I + "/processes/{selector}", 400, query="?signal=SIGHUP", id=sb, selector=tag)
    ask(d, "DELETE", I + "/processes/{selector}", 204, id=sb, selector=tag)
    upgrade(d, I + "/exec/stream", id=sb)
    upgrade(d, I + "/pty", id=sb)
    upgrade(d, F + "/watch", query="?path=/tmp", id=sb)
    ask(d, "POST", I + "/run_code", 200, {"code": "1+1"}, id=sb)
    d.delete(sb)


def test_files(d):
    sb = d.create()["id"]
    ask(d, "PUT", F, 204, b"hello", query="?path=/tmp/a", id=sb)
    ask(d, "GET", F, 200, query="?path=/tmp/a", id=sb)
    for path in (F + "/write", F + "/stream/write"):
        body, headers = form("/tmp/b", b"data")
        ask(d, "POST", path, 204, body, headers=headers, id=sb)
    body, headers = form("/tmp/b", b"x" * (101 << 20))
    ask(d, "POST", F + "/write", 413, body, headers=headers, id=sb)
    for path in (F + "/read", F + "/stream/read"):
        ask(d, "POST", path, 200, {"path": "/tmp/a"}, id=sb)
    ask(d, "POST", F + "/stat", 200, {"path": "/tmp/a"}, id=sb)
    ask(d, "POST", F + "/mkdir", 200, {"path": "/tmp/dir/x"}, id=sb)
    ask(d, "POST", F + "/list", 200, {"path": "/tmp", "depth": 2}, id=sb)
    ask(d, "POST", F + "/move", 200, {"source": "/tmp/a", "destination": "/tmp/dir/a"}, id=sb)
    ask(d, "POST", F + "/chmod", 204, {"path": "/tmp/dir", "mode": "0700"}, id=sb)
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("x"), io.BytesIO(b""))
    ask(d, "PUT", F + "/tar", 200, archive.getvalue(), query="?path=/tmp/tree", id=sb)
    ask(d, "GET", F + "/tar", 200, query="?path=/tmp/tree", id=sb)
    for method, status, data in (("PUT", 204, b"signed"), ("GET", 200, None)):
        url = ask(d, "POST", F + "/url", 200, {"path": "/tmp/s", "method": method}, id=sb).json()["url"]
        query = "?" + urllib.parse.urlsplit(url).query
        ask(d, method, F + "/signed", status, data, query=query, key=False, id=sb)
        ask(d, method, F + "/signed", 403, data, query=query + "x", key=False, id=sb)
    ask(d, "POST", F + "/remove", 204, {"path": "/tmp/dir"}, id=sb)
    d.delete(sb)


def test_templates(d):
    sb = d.create()["id"]
    T = "/v1/snapshots/{name}"
    ask(d, "POST", "/v1/snapshots", 400, {"sandbox_id": "x"})
    ask(d, "POST", "/v1/snapshots", 201, {"sandbox_id": sb, "name": "openapi"})
    ask(d, "POST", "/v1/snapshots", 409, {"sandbox_id": sb, "name": "openapi"})
    ask(d, "GET", "/v1/snapshots", 200)
    ask(d, "GET", T, 200, name="openapi")
    ask(d, "DELETE", T, 403, name="host")
    ask(d, "DELETE", T, 204, name="openapi")
    for method in ("GET", "DELETE"):
        ask(d, method, T, 400, name="\0")
    d.delete(sb)


def test_keys_and_what_they_may_use(d):
    K, one = "/v1/api-keys", "/v1/api-keys/{api_key}"
    ask(d, "GET", "/v1/limits", 200)
    ask(d, "GET", "/v1/isolations", 200)
    made = ask(d, "POST", K, 201, {"name": "openapi", "expires_in_sec": 3600, "scopes": ["*"],
                                   "quota": {"sandboxes": 9, "cpus": 0.01, "creates_per_minute": 1}}).json()
    bounded = {"X-API-Key": made["key"]}
    ask(d, "POST", K, 400, {"scopes": ["sandboxes:fly"]})
    ask(d, "GET", K, 200)
    ask(d, "GET", one, 200, api_key=made["id"])
    key = ask(d, "POST", K, 201, {}).json()
    ask(d, "POST", K, 403, {}, headers=bounded)
    ask(d, "PATCH", one, 403, {"name": "x"}, headers=bounded, api_key=key["id"])
    ask(d, "POST", one + "/rotate", 403, {}, headers=bounded, api_key=key["id"])
    ask(d, "POST", S, 429, {}, headers=bounded)
    ask(d, "PATCH", one, 200, {"name": "renamed", "quota": {"cpus": 1}}, api_key=made["id"])
    sb = ask(d, "POST", S, 201, {"vcpus": 1}, headers=bounded).json()["id"]
    d.ids.add(sb)
    ask(d, "POST", I + "/pause", 200, id=sb)
    ask(d, "PATCH", one, 200, {"quota": {"cpus": 0.5}}, api_key=made["id"])
    ask(d, "POST", I + "/resume", 429, id=sb)
    ask(d, "DELETE", I, 204, id=sb)
    ask(d, "POST", one + "/rotate", 201, {"grace_sec": 0}, api_key=key["id"])
    ask(d, "POST", one + "/rotate", 409, {}, api_key=key["id"])
    ask(d, "DELETE", one, 204, api_key=key["id"])


def test_teams(d):
    T, A = "/v1/teams/{team}", "/v1/admin/teams/{team}"
    ask(d, "GET", "/v1/teams", 200)
    ask(d, "POST", "/v1/teams", 400, {"name": "a/b"})
    other = ask(d, "POST", "/v1/teams", 201, {"name": "another"}).json()["id"]
    ask(d, "GET", T, 200, team=OWN["team"])
    ask(d, "PATCH", T, 204, {"name": "ours"}, team=OWN["team"])
    ask(d, "GET", T + "/members", 200, team=OWN["team"])
    ask(d, "POST", T + "/leave", 403, team=OWN["team"])
    for method, body in (("PATCH", {"role": "member"}), ("DELETE", None)):
        ask(d, method, T + "/members/{user}", 403, body, team=OWN["team"], user=OWN["user"])
        ask(d, method, T + "/members/{user}", 400, body, team=OWN["team"], user="nobody")
    ask(d, "GET", "/v1/users/search", 200, query="?email=ann@")
    ask(d, "GET", "/v1/users/search", 400, query="?email=ann")
    ask(d, "GET", "/v1/admin/teams", 200)
    ask(d, "GET", "/v1/admin/teams", 400, query="?page=0")
    ask(d, "PUT", A + "/byoc", 204, {"enabled": True}, team=other)
    ask(d, "PUT", A + "/quota", 204, {"sandboxes": 5}, team=other)
    ask(d, "DELETE", A, 204, team=other)
    ask(d, "GET", "/v1/admin/templates", 200)
    ask(d, "DELETE", "/v1/admin/templates/{name}", 403, name="host")
    sb = d.create()["id"]
    ask(d, "POST", "/v1/snapshots", 201, {"sandbox_id": sb, "name": "for-all", "platform": True})
    ask(d, "DELETE", "/v1/admin/templates/{name}", 204, name="for-all")
    d.delete(sb)


def test_members(d):
    T, one = "/v1/teams/{team}", "/v1/teams/{team}/members/{user}"
    ann, bob = people.add(d, "ann", "bob")
    for who in (ann, bob):
        ask(d, "POST", T + "/members", 201, {"email": who.email}, team=OWN["team"])
    ask(d, "PATCH", one, 204, {"role": "admin"}, team=OWN["team"], user=ann.user)
    ask(d, "DELETE", one, 204, team=OWN["team"], user=bob.user)
    ask(d, "POST", T + "/leave", 204, headers=ann.head(OWN["team"]), key=False, team=OWN["team"])
    ask(d, "DELETE", T, 204, headers=ann.head(), key=False, team=ann.team)


def token_of(url):
    return urllib.parse.parse_qs(urllib.parse.urlsplit(url).query)["token"][0]


def test_accounts(d):
    auth, me, users, user = "/v1/auth", "/v1/me", "/v1/admin/users", "/v1/admin/users/{user}"
    ada = {"email": "Ada@Example.com", "password": "correct horse"}
    signed = ask(d, "POST", auth + "/signup", 201, ada, key=False).json()
    ask(d, "POST", auth + "/signup", 409, ada, key=False)
    ask(d, "POST", auth + "/signup", 400, {**ada, "password": "short"}, key=False)
    ask(d, "POST", auth + "/login", 403, ada, key=False)
    ask(d, "POST", auth + "/activate", 400, {"token": "x"}, key=False)
    url = ask(d, "POST", user + "/link", 201, user=signed["user_id"]).json()["url"]
    token = token_of(url)
    session = {"Authorization": "Bearer " + ask(d, "POST", auth + "/activate", 200, {"token": token}, key=False).json()["token"]}
    ask(d, "POST", auth + "/login", 400, {**ada, "email": "nobody"}, key=False)
    ask(d, "POST", auth + "/login", 200, ada, key=False)
    ask(d, "POST", auth + "/switch-team", 200, {"team_id": signed["team_id"]}, headers=session, key=False)
    ask(d, "POST", auth + "/switch-team", 400, {"team_id": "x"}, headers=session, key=False)
    admin = ask(d, "GET", me, 200).json()
    ask(d, "POST", auth + "/switch-team", 403, {"team_id": admin["team_id"]}, headers=session, key=False)
    ask(d, "PATCH", me, 200, {"name": "Ada L"}, headers=session, key=False)
    ask(d, "PATCH", me, 400, {"name": ""}, headers=session, key=False)
    ask(d, "DELETE", me, 400, {"confirmation": "somebody"}, headers=session, key=False)
    ask(d, "DELETE", me, 409, {"confirmation": admin["user_id"]})
    ask(d, "POST", me + "/password", 400, {"new_password": "short"}, headers=session, key=False)
    ask(d, "POST", me + "/password/reset", 204, {"email": ada["email"]}, key=False)
    ask(d, "POST", me + "/password/reset", 400, {"email": "x"}, key=False)
    ask(d, "POST", me + "/password/reset/confirm", 400, {"token": "x", "new_password": "correct horse"}, key=False)
    made = ask(d, "POST", users, 201, {"email": "dora@example.com"}).json()
    reset = token_of(made["link"]["url"])
    waiting = ask(d, "POST", auth + "/signup", 201, {**ada, "email": "emil@example.com"}, key=False).json()
    activate = token_of(ask(d, "POST", user + "/link", 201, user=waiting["user_id"]).json()["url"])
    for path, form_, token in (("/reset", "&new_password=correct+horse&confirm_password=correct+horse", reset),
                               ("/activate", "", activate)):
        ask(d, "GET", path, 200, query="?token=" + token, key=False)
        ask(d, "GET", path, 400, key=False)
        head = {"Content-Type": "application/x-www-form-urlencoded"}
        ask(d, "POST", path, 400, b"token=x" + form_.encode(), headers=head, key=False)
        ask(d, "POST", path, 200, b"token=" + token.encode() + form_.encode(), headers=head, key=False)
    ask(d, "POST", auth + "/login", 200, {"email": "dora@example.com", "password": "correct horse"}, key=False)
    ask(d, "GET", users, 200)
    ask(d, "GET", users, 400, query="?page=0")
    made = ask(d, "POST", users, 201, {"email": "cleo@example.com"}).json()
    ask(d, "POST", users, 409, {"email": "cleo@example.com"})
    ask(d, "PATCH", user, 200, {"name": "Cleo"}, user=made["id"])
    ask(d, "PATCH", user, 409, {"email": "ada@example.com"}, user=made["id"])
    ask(d, "PUT", user + "/active", 409, {"active": False}, user=admin["user_id"])
    ask(d, "PUT", user + "/active", 204, {"active": True}, user=made["id"])
    for path, method, op in operations():
        if path.startswith(users) and "400" in op["responses"] and method != "GET":
            ask(d, method, path, 400, {"email": 1, "new_password": 1, "active": 1}, **values({}))
        if path.startswith(users):
            ask(d, method, path, 403, body_for(op), headers=session, key=False, **values({}))
    token = token_of(made["link"]["url"])
    ask(d, "POST", me + "/password/reset/confirm", 204, {"token": token, "new_password": "correct horse"}, key=False)
    ask(d, "PUT", user + "/password", 204, {"new_password": "battery staple"}, user=made["id"])
    for _ in range(9):
        r = d.request("POST", auth + "/login", {"email": "cleo@example.com", "password": "wrong"}, key=False)
        if r.status == 429:
            check("POST", auth + "/login", r)
    ask(d, "POST", me + "/password", 204, {"current_password": ada["password"], "new_password": "battery staple"},
        headers=session, key=False)
    login = ask(d, "POST", auth + "/login", 200, {**ada, "password": "battery staple"}, key=False).json()
    ask(d, "DELETE", me, 204, {"confirmation": "ada@example.COM"}, headers={"Authorization": "Bearer " + login["token"]}, key=False)


def test_backup(d):
    sb, path = d.create()["id"], "/v1/admin/backup"
    weak = d.expect(201, "POST", "/v1/api-keys", {"name": "weak", "scopes": ["sandboxes:*"]}).json()
    ask(d, "GET", path, 403, headers={"X-API-Key": weak["key"]}, key=False)
    equal(d.exec(sb, "head -c 30000000 /dev/urandom >/root/big")["exit_code"], 0, "something that takes a while")
    ask(d, "POST", "/v1/snapshots", 201, {"sandbox_id": sb, "name": "big", "stop": True})
    with contextlib.closing(d.connection()) as conn:
        conn.request("GET", path, headers={"X-API-Key": d.key})
        first = conn.getresponse()
        equal(first.status, 200, "a backup")
        ask(d, "GET", path, 409)
    wait_for(lambda: d.request("GET", path).status == 200, 10, "the next one once nobody reads the first")
    body = ask(d, "GET", path, 200).body
    contains(body[-4096:].decode("latin1"), "aviary-backup-end 1", "a whole one")
    d.expect(204, "DELETE", "/v1/snapshots/big")


def test_github(d):
    hub, mine, back = {"provider": "github"}, "/v1/me/providers/{provider}", "/auth/oauth/{provider}/callback"

    def cookie(r):
        return {"Cookie": "; ".join(line.split(";")[0] for line in r.headers.get_all("Set-Cookie"))}

    r = ask(d, "GET", "/auth/oauth/{provider}", 302, query="?intent=signup", key=False, **hub)
    ask(d, "GET", "/auth/oauth/{provider}", 400, query="?intent=x", key=False, **hub)
    query = HUB.authorize(r.headers["Location"], github.person(1, "hub@example.com"))
    r = ask(d, "GET", back, 302, query="?" + query, headers=cookie(r), key=False, **hub)
    ask(d, "GET", "/auth/{provider}/callback", 200, key=False, **hub)
    token = next(v for v in r.headers.get_all("Set-Cookie") if v.startswith("wrenn_oauth_token="))
    session = {"Authorization": "Bearer " + token.split(";")[0].split("=", 1)[1]}
    ask(d, "GET", mine + "/connect", 200, headers=session, key=False, **hub)
    ask(d, "GET", mine + "/connect", 403, **hub)
    ask(d, "DELETE", mine, 400, headers=session, key=False, **hub)
    user = d.expect(200, "GET", "/v1/me", headers=session, key=False).json()["user_id"]
    d.expect(204, "PUT", f"/v1/admin/users/{user}/password", {"new_password": "correct horse"})
    login = d.expect(200, "POST", "/v1/auth/login", {"email": "hub@example.com", "password": "correct horse"}, key=False).json()
    ask(d, "DELETE", mine, 204, headers={"Authorization": "Bearer " + login["token"]}, key=False, **hub)


def test_events(d):
    path, streams = "/v1/events/stream", []
    ask(d, "GET", path, 400, query="?event=x")
    ask(d, "GET", "/v1/events", 400, query="?event=x")
    upgrade(d, "/v1/events")
    for n in range(64):
        conn = d.connection()
        conn.request("GET", "/v1/events" if n == 1 else path, headers={"X-API-Key": d.key})
        streams.append((conn, conn.getresponse()))
        equal(streams[-1][1].status, 200, "a stream")
    ask(d, "GET", path, 429)
    ask(d, "GET", "/v1/events", 429)
    SEEN.add(("GET", "/v1/events", 200))
    d.delete(d.create()["id"])
    answer = streams[0][1]
    content = DOC["paths"][path]["get"]["responses"]["200"]["content"]
    ok(answer.headers["Content-Type"] in content, "its type")
    seen = []
    while "capsule.destroy" not in seen:
        line = answer.readline().decode()
        if line.startswith("data: ") and '"connected"' not in line:
            event = json.loads(line[6:])
            schema = {"$ref": "#/components/schemas/Event", "components": DOC["components"]}
            jsonschema.validate(event, schema, jsonschema.Draft202012Validator)
            seen.append(event["event"])
    SEEN.add(("GET", path, 200))
    for conn, answer in streams:
        answer.close()
        conn.close()


def test_channels(d):
    C, one = "/v1/channels", "/v1/channels/{channel}"
    with socket.create_server(("127.0.0.1", 0)) as server:
        def serve():
            conn = server.accept()[0]
            conn.recv(65536)
            conn.sendall(b"HTTP/1.1 204 Fine\r\n\r\n")
            conn.close()
        threading.Thread(target=serve, daemon=True).start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}/"
        ask(d, "POST", C + "/test", 200, {"provider": "webhook", "config": {"url": url}})
    ask(d, "POST", C + "/test", 502, {"provider": "webhook", "config": {"url": "http://127.0.0.1:1/"}})
    ask(d, "POST", C + "/test", 403, {"provider": "webhook", "config": {"url": "http://10.1.1.1/"}})
    ask(d, "POST", C + "/test", 400, {"provider": "webhook", "config": {}})
    body = {"name": "one", "provider": "webhook", "config": {"url": "http://127.0.0.1:1/"}, "events": ["capsule.created"]}
    made = ask(d, "POST", C, 201, body).json()["id"]
    ask(d, "POST", C, 400, {**body, "name": "/"})
    ask(d, "POST", C, 409, body)
    ask(d, "POST", C, 403, {**body, "name": "two", "config": {"url": "http://10.1.1.1/"}})
    ask(d, "GET", C, 200)
    ask(d, "GET", one, 200, channel=made)
    two = ask(d, "POST", C, 201, {**body, "name": "two"}).json()["id"]
    ask(d, "PATCH", one, 409, {"name": "one", "events": ["host.up"]}, channel=two)
    ask(d, "PATCH", one, 200, {"name": "two", "events": ["host.up"]}, channel=two)
    ask(d, "PATCH", one, 400, {"name": "two", "events": []}, channel=two)
    ask(d, "PUT", one + "/config", 200, {"config": {"url": "http://127.0.0.1:2/"}}, channel=two)
    ask(d, "PUT", one + "/config", 400, {"config": {}}, channel=two)
    ask(d, "PUT", one + "/config", 403, {"config": {"url": "http://[::1]/"}}, channel=two)
    d.delete(d.create()["id"])
    found = ask(d, "GET", one + "/deliveries", 200, channel=made).json()["deliveries"]
    ask(d, "GET", one + "/deliveries", 400, query="?limit=0", channel=made)
    again = one + "/deliveries/{delivery}/redeliver"
    ask(d, "POST", again, 409, channel=made, delivery=found[0]["id"])
    ask(d, "PATCH", one, 200, {"name": "one", "events": ["host.up"], "enabled": False}, channel=made)
    ask(d, "PATCH", one, 200, {"name": "one", "events": ["host.up"], "enabled": True}, channel=made)
    ask(d, "POST", again, 204, channel=made, delivery=found[0]["id"])
    for method, path in (("GET", one), ("DELETE", one), ("GET", one + "/deliveries"), ("POST", again)):
        ask(d, method, path, 400, channel="nonsense", delivery="x")
    ask(d, "DELETE", one, 204, channel=two)
    for n in range(31):
        ask(d, "POST", C, 201, {**body, "name": f"c{n}", "events": ["host.up"]})
    ask(d, "POST", C, 429, {**body, "name": "too-many"})
    for channel in ask(d, "GET", C, 200).json():
        ask(d, "DELETE", one, 204, channel=channel["id"])


def test_hosts(d):
    T, G = "/v1/hosts", "/v1/hosts/{host}"
    local = ask(d, "GET", T, 200).json()[0]
    busy = d.create()["id"]
    ask(d, "DELETE", G, 409, host=local["id"])
    d.delete(busy)
    made = ask(d, "POST", T, 201, {"type": "regular", "provider": "metal"}).json()
    host, token = made["host"]["id"], made["registration_token"]
    ask(d, "POST", T, 400, {"type": "large"})
    ask(d, "POST", T, 404, {"type": "byoc", "team_id": "te" + "0" * 25})
    token = ask(d, "POST", G + "/token", 201, host=host).json()["registration_token"]
    facts = {"token": token, "address": "192.0.2.7:50051", "arch": "amd64", "cpu_cores": 4}
    ask(d, "POST", T + "/register", 401, {**facts, "token": "0" * 64}, key=False)
    ask(d, "POST", T + "/register", 400, {**facts, "address": "here"}, key=False)
    given = ask(d, "POST", T + "/register", 201, facts, key=False).json()
    ask(d, "POST", T + "/register", 404, facts, key=False)
    ask(d, "POST", T + "/auth/refresh", 400, {"refresh_token": "x"}, key=False)
    ask(d, "POST", T + "/auth/refresh", 401, {"refresh_token": "0" * 64}, key=False)
    given = ask(d, "POST", T + "/auth/refresh", 200, {"refresh_token": given["refresh_token"]}, key=False).json()
    mine = {"X-Host-Token": given["token"]}
    ask(d, "POST", G + "/heartbeat", 204, headers=mine, key=False, host=host)
    ask(d, "POST", G + "/heartbeat", 403, headers=mine, key=False, host=local["id"])
    ask(d, "GET", G, 200, host=host)
    ask(d, "GET", G + "/delete-preview", 200, host=host)
    ask(d, "POST", G + "/token", 400, host=host)
    ask(d, "POST", G + "/tags", 204, {"tag": "gpu"}, host=host)
    equal(ask(d, "GET", G + "/tags", 200, host=host).json(), ["gpu"], "tags")
    ask(d, "DELETE", G + "/tags/{tag}", 204, host=host, tag="gpu")
    for method, path in (("GET", G), ("DELETE", G), ("GET", G + "/delete-preview"), ("GET", G + "/tags"),
                         ("POST", G + "/tags"), ("DELETE", G + "/tags/{tag}")):
        ask(d, method, path, 400, {"tag": "x"} if method == "POST" else None, host="nonsense", tag="x")
    ask(d, "DELETE", G, 204, host=host)
    ask(d, "POST", G + "/heartbeat", 404, headers=mine, key=False, host=host)


def test_audit(d):
    for base in ("/v1/audit-logs", "/v1/admin/audit-logs"):
        ask(d, "GET", base, 200, query="?limit=5")
        ask(d, "GET", base, 400, query="?limit=201")
        lines = ask(d, "GET", base + "/export", 200).body.decode().splitlines()
        schema = {"$ref": "#/components/schemas/AuditRecord", "components": DOC["components"]}
        for line in lines:
            jsonschema.validate(json.loads(line), schema, jsonschema.Draft202012Validator)
        ask(d, "GET", base + "/export", 400, query="?since=yesterday")


def wrong_values(schema):
    """Values that the schema does not allow, each with what is wrong about it."""
    kinds = [schema["type"]] if isinstance(schema.get("type"), str) else schema.get("type", [])
    samples = {"string": "text", "integer": 5, "number": 5.5, "boolean": True, "array": [1], "object": {"a": 1}}
    for kind, value in samples.items():
        fits = kind in kinds or kind == schema.get("x-also") or (kind == "integer" and "number" in kinds)
        if not fits:
            yield value
    if "integer" in kinds and "number" not in kinds and "string" not in kinds:
        yield 1.5
        yield 10 ** 30
    if "minimum" in schema:
        yield schema["minimum"] - 1
    if "maximum" in schema:
        yield schema["maximum"] + 1
    if "enum" in schema:
        yield "no-such-value"
    if "string" in kinds:
        yield "a\0b"
    if "array" in kinds:
        yield [None]
        yield [{}]
    if "object" in kinds:
        yield {"a": []}


def test_wrong_values_everywhere(d):
    sb = d.create()["id"]
    tried = 0
    for path, method, op in operations():
        content = op.get("requestBody", {}).get("content", {}).get("application/json")
        if not content:
            continue
        schema = follow(content["schema"])
        real = re.sub(r"\{(\w+)\}", lambda m: values({**OWN, "id": sb})[m.group(1)], path)
        good = {k: sb if k == "sandbox_id" else v for k, v in (body_for(op) or {}).items()}
        for body in (b"[]", b"1", b"null", b"{", b'{"a":1}x', b'{"a":"\xff"}', b"\xff", b'{"a":1,"a":2}', b'{"a":NaN}',
                     b'{"a":' * 100 + b"1" + b"}" * 100):
            r = d.request(method, real, body)
            equal((r.status, r.code), (400, "invalid_request"), f"{method} {path} {body[:40]!r}")
            ok(len(r.message) > 10, "a message")
            tried += 1
        for name in schema.get("required", []):
            r = d.request(method, real, {k: v for k, v in good.items() if k != name})
            equal(r.status, 400, f"{method} {path} without {name}: {short(r.body)}")
            contains(r.message, name, f"{method} {path} without it")
        for name, member in schema["properties"].items():
            for value in wrong_values(follow(member)):
                r = d.request(method, real, {**good, name: value})
                equal(r.status, 400, f"{method} {path} {name}={short(json.dumps(value))}: {short(r.body)}")
                if "\\u0000" not in json.dumps(value) and value != 10 ** 30:
                    contains(r.message, name, f"{method} {path} {name}={value!r}: the message names it")
                tried += 1
    ok(tried > 300, f"{tried} wrong requests")
    equal(d.exec(sb, "echo fine")["stdout"], "fine\n", "the sandbox is as before")
    d.delete(sb)


test_wrong_values_everywhere.timeout_s = 120


def test_a_hundred_megabytes_where_a_kilobyte_is_expected(d):
    before = d.rss_kib()
    for path in (S, I.format(id=UNKNOWN) + "/exec", "/v1/snapshots"):
        with socket.create_connection((d.host, d.port), timeout=20) as s:
            s.sendall((f"POST {path} HTTP/1.1\r\nHost: x\r\nX-API-Key: {d.key}\r\n"
                       f"Content-Length: {100 << 20}\r\n\r\n").encode())
            answer = b""
            try:
                for _ in range(100):
                    s.sendall(b"x" * (1 << 20))
            except OSError:
                pass
            try:
                answer = s.recv(65536)
            except OSError:
                pass
        ok(answer.startswith(b"HTTP/1.1 413 ") or answer == b"", f"{path}: {answer[:60]!r}")
    time.sleep(0.2)
    d.memory_within(before, 20000)


def test_every_documented_answer_was_given(_d):
    documented = {(m, p, int(status)) for p, m, op in operations() for status in op["responses"]}
    equal(sorted(documented - SEEN - NEEDS_VM), [], "answers that no test here got")


if __name__ == "__main__":
    try:
        main(dict(globals()), args=["--webhook-private", "127.0.0.1", *HUB.options()])
    finally:
        HUB.stop()
