#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Hosts: the local one is there by itself; others are recorded, registered, kept in touch with and forgotten; tokens are good
for what they say and no longer; nothing is placed on another machine."""

import base64
import json
import os
import subprocess
import time

import people
from aviary_test import contains, equal, main, ok, program, short, wait_for

TYPES, STATES = {"regular", "byoc"}, {"pending", "online", "offline", "draining", "unreachable"}


def ask(d, status, method, path, body=None, token=None, **kw):
    headers = {"X-Host-Token": token} if token else {}
    r = d.expect(status, method, "/v1/hosts" + path, body, headers=headers, key=token is None, **kw)
    return r.json() if r.body else None


def local(d):
    return [h for h in ask(d, 200, "GET", "") if h["local"]][0]


def new(d, **body):
    return ask(d, 201, "POST", "", {"type": "regular", **body})


def register(d, token, status=201, **facts):
    body = {"token": token, "address": "192.0.2.7:50051", "arch": "arm64", "cpu_cores": 8, "memory_mb": 16384,
            "disk_gb": 200, **facts}
    r = d.expect(status, "POST", "/v1/hosts/register", body, key=False)
    return r.json()


def claims(token):
    part = token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))


def test_the_local_one_is_there(d):
    h = local(d)
    equal((h["type"], h["status"], h["created_by"], h["team_id"]), ("regular", "online", "system", None), "this machine")
    machine = os.uname().machine
    equal(h["arch"], {"x86_64": "amd64", "aarch64": "arm64"}.get(machine, machine), "arch")
    equal(h["address"], f"{d.host}:{d.port}", "address")
    ok(h["cpu_cores"] == os.cpu_count() and h["memory_mb"] > 100 and h["disk_gb"] > 0, f"real numbers: {h}")
    ok(h["last_heartbeat_at"] >= h["created_at"], "its heart beats")
    d.stop()
    d.start()
    again = local(d)
    equal(again["id"], h["id"], "it keeps its id")
    equal(len(ask(d, 200, "GET", "")), 1, "and is one")


def test_its_sandboxes_keep_it(d):
    h = local(d)["id"]
    running, paused = d.create()["id"], d.create()["id"]
    d.expect(200, "POST", f"/v1/sandboxes/{paused}/pause")
    preview = ask(d, 200, "GET", f"/{h}/delete-preview")
    equal((preview["host"]["id"], preview["sandbox_ids"]), (h, [running]), "what runs on it")
    r = d.expect(409, "DELETE", f"/v1/hosts/{h}")
    answer = r.json()
    equal(r.code, "host_has_sandboxes", "code")
    for where in (answer, answer["error"]):
        equal((where["sandbox_ids"], where["capsule_ids"]), ([running], [running]), "for both generations of clients")
    r = d.expect(409, "DELETE", f"/v1/hosts/{h}?force=true")
    equal(r.code, "invalid_state", "it cannot be taken away from itself")
    d.delete_all()
    equal(d.expect(409, "DELETE", f"/v1/hosts/{h}").code, "invalid_state", "nor without sandboxes")
    d.expect(400, "DELETE", f"/v1/hosts/{h}?force=perhaps")


def test_nothing_is_placed_elsewhere(d):
    sb = d.create(host_id=local(d)["id"])["id"]
    d.delete(sb)
    other = new(d)["host"]["id"]
    r = d.expect(501, "POST", "/v1/sandboxes", {"host_id": other})
    equal(r.code, "unsupported", "code")
    d.expect(404, "POST", "/v1/sandboxes", {"host_id": "ho" + "0" * 25})
    contains(d.expect(400, "POST", "/v1/sandboxes", {"host_id": "x"}).message, "host_id", "the message names it")
    equal(d.expect(200, "GET", "/v1/sandboxes").json(), [], "and nothing is made")
    ask(d, 204, "DELETE", f"/{other}")


def test_registration(d):
    made = new(d, provider="hetzner", availability_zone="fsn1")
    h, token = made["host"], made["registration_token"]
    equal((h["status"], h["provider"], h["availability_zone"], h["address"]), ("pending", "hetzner", "fsn1", None), "pending")
    ok(len(token) == 64 and set(token) <= set("0123456789abcdef"), "a token")
    second = ask(d, 201, "POST", f"/{h['id']}/token")["registration_token"]
    register(d, token, 401)
    for bad in ({"address": "example.com:1"}, {"address": "192.0.2.7"}, {"address": "192.0.2.7:0"}, {"address": "[::1]9"},
                {"address": None}, {"arch": "A/B"}, {"cpu_cores": -1}):
        register(d, second, 400, **bad)
    register(d, "x", 400)
    got = register(d, second, address="[2001:db8::7]:50051")
    h = got["host"]
    equal((h["status"], h["arch"], h["cpu_cores"], h["memory_mb"], h["disk_gb"], h["address"]),
          ("online", "arm64", 8, 16384, 200, "[2001:db8::7]:50051"), "registered")
    equal((got["cert_pem"], got["key_pem"], got["ca_cert_pem"]), (None, None, None), "no certificates yet")
    register(d, second, 404)
    ask(d, 400, "POST", f"/{h['id']}/token")
    c = claims(got["token"])
    equal((c["typ"], c["host_id"], c["sub"], c["exp"] - c["iat"]), ("host", h["id"], h["id"], 7 * 24 * 3600), "claims")
    ask(d, 204, "POST", f"/{h['id']}/heartbeat", token=got["token"])
    ok({x["status"] for x in ask(d, 200, "GET", "")} <= STATES and {x["type"] for x in ask(d, 200, "GET", "")} <= TYPES,
       "words that clients check")
    ask(d, 204, "DELETE", f"/{h['id']}")
    ask(d, 404, "POST", f"/{h['id']}/heartbeat", token=got["token"])
    d.expect(401, "POST", "/v1/hosts/auth/refresh", {"refresh_token": got["refresh_token"]}, key=False)
    ask(d, 404, "GET", f"/{h['id']}")


def test_tokens_are_of_one_kind(d):
    got = register(d, new(d)["registration_token"])
    h, token = got["host"]["id"], got["token"]
    other = local(d)["id"]
    ask(d, 403, "POST", f"/{other}/heartbeat", token=token)
    for headers in ({"Authorization": f"Bearer {token}"}, {"X-API-Key": token}):
        d.expect(401, "GET", "/v1/hosts", headers=headers, key=False)
    head, payload, mac = token.split(".")
    none = base64.urlsafe_b64encode(b'{"alg":"none","typ":"JWT"}').rstrip(b"=").decode()
    for bad in (d.key, "x", f"{head}.{payload}.", f"{none}.{payload}.", f"{head}.{payload[:-2]}AA.{mac}",
                f"{head}.{payload}.{mac[:-1]}", "." * 3000, got["refresh_token"]):
        d.expect(401, "POST", f"/v1/hosts/{h}/heartbeat", headers={"X-Host-Token": bad}, key=False)
    d.expect(401, "POST", f"/v1/hosts/{h}/heartbeat")
    ask(d, 204, "DELETE", f"/{h}")


def test_a_copied_refresh_token_voids_all(d):
    first = register(d, new(d)["registration_token"])
    h = first["host"]["id"]
    refresh = lambda t, status=200: d.expect(  # noqa: E731
        status, "POST", "/v1/hosts/auth/refresh", {"refresh_token": t}, key=False).json()
    second = refresh(first["refresh_token"])
    ok(second["refresh_token"] != first["refresh_token"], "it rotates")
    ask(d, 204, "POST", f"/{h}/heartbeat", token=first["token"])
    third = refresh(second["refresh_token"])
    refresh(first["refresh_token"], 401)
    refresh(third["refresh_token"], 401)
    ask(d, 401, "POST", f"/{h}/heartbeat", token=third["token"])
    equal(ask(d, 200, "GET", f"/{h}")["status"], "pending", "to be registered again")
    again = register(d, ask(d, 201, "POST", f"/{h}/token")["registration_token"])
    equal(again["host"]["id"], h, "as the same host")
    ask(d, 401, "POST", f"/{h}/heartbeat", token=third["token"])
    ask(d, 204, "POST", f"/{h}/heartbeat", token=again["token"])
    found = wait_for(lambda: d.expect(200, "GET", "/v1/admin/audit-logs?action=host.revoke").json()["items"], 5, "told")
    equal((found[0]["resource_id"], found[0]["actor_type"]), (h, "system"), "in the audit log")
    ask(d, 204, "DELETE", f"/{h}")
    with open(d.state + "/db/aviary.db", "rb") as f:
        data = f.read()
    wal = d.state + "/db/aviary.db-wal"
    if os.path.exists(wal):
        with open(wal, "rb") as f:
            data += f.read()
    for secret in (first["refresh_token"], again["refresh_token"], again["token"]):
        ok(secret.encode() not in data, "secrets are not in the database")


def test_tags(d):
    h = new(d)["host"]["id"]
    equal(ask(d, 200, "GET", f"/{h}/tags"), [], "none")
    for tag in ("gpu", "a100", "zone:eu", "gpu"):
        ask(d, 204, "POST", f"/{h}/tags", {"tag": tag})
    equal(ask(d, 200, "GET", f"/{h}/tags"), ["a100", "gpu", "zone:eu"], "in order, each once")
    for bad in ("", "a b", "a,b", "x" * 65, "\u00e9", None):
        ask(d, 400, "POST", f"/{h}/tags", {"tag": bad})
    ask(d, 204, "DELETE", f"/{h}/tags/zone%3Aeu")
    ask(d, 204, "DELETE", f"/{h}/tags/not-there")
    equal(ask(d, 200, "GET", f"/{h}/tags"), ["a100", "gpu"], "one less")
    for i in range(30):
        ask(d, 204, "POST", f"/{h}/tags", {"tag": f"t{i}"})
    contains(d.expect(400, "POST", f"/v1/hosts/{h}/tags", {"tag": "one-more"}).message, "32", "the bound")
    ask(d, 204, "DELETE", f"/{h}")


def test_hosts_of_a_team(d):
    alice, bob = people.add(d, "alice", "bob")
    made = alice.expect(403, "POST", "/v1/hosts", {"type": "byoc", "team_id": alice.team})
    contains(made.message, "administrator", "who can allow it")
    alice.expect(403, "POST", "/v1/hosts", {"type": "regular"})
    d.expect(204, "PUT", f"/v1/admin/teams/{alice.team}/byoc", {"enabled": True})
    h = alice.expect(201, "POST", "/v1/hosts", {"type": "byoc", "team_id": alice.team}).json()["host"]
    equal((h["type"], h["team_id"], h["created_by"]), ("byoc", alice.team, alice.user), "hers")
    equal([x["id"] for x in alice.expect(200, "GET", "/v1/hosts").json()], [h["id"]], "she sees hers only")
    equal(bob.expect(200, "GET", "/v1/hosts").json(), [], "he none")
    for method, path in (("GET", ""), ("DELETE", ""), ("GET", "/delete-preview"), ("POST", "/token"), ("GET", "/tags")):
        bob.expect(404, method, f"/v1/hosts/{h['id']}{path}")
    bob.expect(404, "POST", "/v1/hosts", {"type": "byoc", "team_id": alice.team})
    seen = [x for x in ask(d, 200, "GET", "") if x["id"] == h["id"]]
    equal((seen[0]["team_id"], "team_name" in seen[0]), (alice.team, True), "administrators see it, with the name")
    alice.expect(204, "POST", f"/v1/hosts/{h['id']}/tags", {"tag": "mine"})
    told = [r["action"] for r in alice.expect(200, "GET", "/v1/audit-logs?resource_id=" + h["id"]).json()["items"]]
    equal(told, ["host.tag", "host.create"], "in her log")
    alice.expect(204, "DELETE", f"/v1/hosts/{h['id']}")
    h = alice.expect(201, "POST", "/v1/hosts", {"type": "byoc", "team_id": alice.team}).json()["host"]
    alice.expect(204, "DELETE", f"/v1/teams/{alice.team}")
    wait_for(lambda: len(ask(d, 200, "GET", "")) == 1, 5, "a team's hosts go with it")


def cli(d, *args):
    env = {**os.environ, "AVIARY_URL": d.url, "AVIARY_API_KEY": d.key}
    return subprocess.run([program("aviary"), *args], env=env, capture_output=True, timeout=30, check=False)


def test_on_the_command_line(d):
    r = cli(d, "hosts", "ls")
    equal(r.returncode, 0, r.stderr.decode())
    contains(r.stdout.decode(), local(d)["id"], "ls")
    r = cli(d, "hosts", "create", "regular", "--provider", "metal", "--json")
    made = json.loads(r.stdout)
    h = made["host"]["id"]
    equal(json.loads(cli(d, "hosts", "show", h).stdout)["provider"], "metal", "show")
    contains(cli(d, "hosts", "create", "regular").stdout.decode(), "token", "what to do with it")
    token = cli(d, "hosts", "token", h, "--json")
    register(d, json.loads(token.stdout)["registration_token"])
    equal(cli(d, "hosts", "tag", h, "gpu", "fast").returncode, 0, "tag")
    equal(cli(d, "hosts", "tag", "--remove", h, "gpu").returncode, 0, "untag")
    equal(cli(d, "hosts", "tag", h).stdout.decode(), "fast\n", "tags")
    equal(cli(d, "hosts", "rm", h).returncode, 0, "rm")
    r = cli(d, "hosts", "rm", local(d)["id"])
    equal(r.returncode, 125, "the local one stays")
    equal(cli(d, "hosts", "frob").returncode, 2, "a verb that is none")
    for x in ask(d, 200, "GET", ""):
        if not x["local"]:
            ask(d, 204, "DELETE", f"/{x['id']}")


if __name__ == "__main__":
    main(dict(globals()))
