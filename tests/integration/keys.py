#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""API keys: what they are good for and until when, over HTTP and what is open meanwhile. T41."""
import json
import os
import sqlite3
import statistics
import time

import people
from aviary_test import contains, equal, main, ok, wait_for

K = "/v1/api-keys"


def head(secret):
    return {"X-API-Key": secret}


def works(d, secret, path="/v1/sandboxes"):
    return d.request("GET", path, headers=head(secret), key=False).status


def test_what_a_key_says(d):
    key = d.expect(201, "POST", K, {"name": "ci"}).json()
    ok(key["key"].startswith("av_") and len(key["key"]) == 43, "the secret")
    ok(key["key"].startswith(key["key_prefix"]) and len(key["key_prefix"]) == 10, "what to recognise it by")
    equal(key["scopes"], ["sandboxes:read", "sandboxes:write", "templates:read", "templates:write"], "usual scopes")
    equal((key["expires_at"], key["expired"], key["last_used"]), (None, False, None), "it lasts, and was not used")
    for prefix in ("av_", "wrn_", "e2b_", "cw_"):
        equal(works(d, prefix + key["key"][3:]), 200, f"valid as {prefix}")
    shown = d.expect(200, "GET", f"{K}/{key['id']}").json()
    ok("key" not in shown and shown["last_used"], "the secret is told once; its use is")
    listed = d.expect(200, "GET", K).json()
    equal([k["name"] for k in listed], ["ci", "admin"], "newest first")
    ok(key["key"] not in json.dumps(listed), "without secrets")
    equal(works(d, key["key"], K), 403, "it is not for keys")
    equal(d.expect(200, "PATCH", f"{K}/{key['id']}", {"name": "build"}).json()["name"], "build", "renamed")
    r = d.expect(400, "PATCH", f"{K}/{key['id']}", {"scopes": ["*"]})
    contains(r.message, "scopes", "nothing grows")
    d.expect(204, "DELETE", f"{K}/{key['id']}")
    d.expect(204, "DELETE", f"{K}/{key['id']}")
    equal(works(d, key["key"]), 401, "a deleted key")
    equal(d.expect(201, "POST", K, {}).json()["name"], "Unnamed API Key", "a key without a name")


def test_no_key_is_more_than_its_maker(d):
    small = d.expect(201, "POST", K, {"scopes": ["team:write", "sandboxes:read"], "expires_in_sec": 600}).json()
    mine = head(small["key"])

    def status(body):
        return d.request("POST", K, body, headers=mine, key=False).status
    equal(status({"scopes": ["sandboxes:read"]}), 201, "what it has")
    for more in ({}, {"scopes": ["sandboxes:write"]}, {"scopes": ["*"]}, {"scopes": ["admin"]},
                 {"scopes": ["sandboxes:read"], "expires_in_sec": 601}):
        equal(status(more), 403, f"more: {more}")
    made = d.request("POST", K, {"scopes": ["sandboxes:read"]}, headers=mine, key=False).json()
    equal(made["expires_at"], small["expires_at"], "what says no end ends with it")
    first = d.expect(200, "GET", K).json()[-1]["id"]
    equal(d.request("POST", f"{K}/{first}/rotate", {}, headers=mine, key=False).status, 403, "no rotating upwards")
    team = d.expect(200, "GET", "/v1/limits").json()["team_id"]
    for bound in ({"expires_in_sec": 600}, {"quota": {"sandboxes": 1}}):
        wide = d.expect(201, "POST", K, {"scopes": ["*"], **bound}).json()["key"]
        r = d.request("POST", "/v1/auth/switch-team", {"team_id": team}, headers=head(wide), key=False)
        equal(r.status, 403, f"no session, which would have no bounds, from a key with {bound}")
    for body in ({"expires_at": "2020-01-01T00:00:00Z"}, {"expires_at": "soon"}, {"expires_in_sec": 0}, {"scopes": []},
                 {"expires_in_sec": 5, "expires_at": "2099-01-01T00:00:00Z"}, {"quota": {"gpus": 1}}):
        d.expect(400, "POST", K, body)


def test_rotation(d):
    key = d.expect(201, "POST", K, {"name": "rotating", "expires_in_sec": 3600}).json()
    d.expect(400, "POST", f"{K}/{key['id']}/rotate", {"grace_sec": -1})
    fresh = d.expect(201, "POST", f"{K}/{key['id']}/rotate", {"grace_sec": 4}).json()
    equal((fresh["name"], fresh["scopes"]), (key["name"], key["scopes"]), "the new one is like it")
    ok(fresh["id"] != key["id"] and fresh["key"] != key["key"] and not fresh["expired"], "and another")
    equal((works(d, key["key"]), works(d, fresh["key"])), (200, 200), "for a while both are good")
    wait_for(lambda: works(d, key["key"]) == 401, 20, "the old one ends")
    r = d.request("GET", "/v1/sandboxes", headers=head(key["key"]), key=False)
    contains(r.message, "expired", "and says why")
    equal(works(d, fresh["key"]), 200, "the new one goes on")
    equal(d.expect(200, "GET", f"{K}/{key['id']}").json()["expired"], True, "listed as expired")
    d.expect(409, "POST", f"{K}/{key['id']}/rotate", {})


def events_of(d, secret):
    conn = d.connection()
    conn.request("GET", "/v1/events/stream", headers=head(secret))
    answer = conn.getresponse()
    equal(answer.status, 200, "a stream of events")
    return conn, answer


def ends(conn, answer):
    data = b""
    while b"event: end" not in data:
        part = answer.read1(65536)
        if not part:
            break
        data += part
    conn.close()
    return data.decode()


def test_what_is_open_ends(d):
    """A stream of events ends with its key: deleted, rotated away, expired."""
    for how in ("delete", "rotate", "expire"):
        key = d.expect(201, "POST", K, {"expires_in_sec": 1} if how == "expire" else {}).json()
        conn, answer = events_of(d, key["key"])
        if how == "delete":
            d.expect(204, "DELETE", f"{K}/{key['id']}")
        elif how == "rotate":
            d.expect(201, "POST", f"{K}/{key['id']}/rotate", {})
        text = ends(conn, answer)
        contains(text, "event: end", f"{how}: the stream ends")
        contains(text, "API key", f"{how}: and says why")


def test_members_and_their_keys(d):
    ann, bob = people.add(d, "ann", "bob")
    owner = people.owner(d)
    for who in (ann, bob):
        d.expect(201, "POST", f"/v1/teams/{owner.team}/members", {"email": who.email})
    key = ann.expect(201, "POST", K, {}, team=owner.team).json()
    equal(key["creator_email"], ann.email, "whose it is")
    equal([k["id"] for k in ann.expect(200, "GET", K, team=owner.team).json()], [key["id"]], "a member sees the own")
    equal(bob.expect(200, "GET", K, team=owner.team).json(), [], "and no other's")
    ok(key["id"] in [k["id"] for k in d.expect(200, "GET", K).json()], "the owner sees all")
    equal(bob.ask("DELETE", f"{K}/{key['id']}", team=owner.team).status, 403, "nor deletes it")
    equal(d.request("POST", f"{K}/{key['id']}/rotate", {}).status, 403, "the owner gets no secret that acts for her")
    equal(works(d, key["key"]), 200, "it works")
    ann.expect(204, "POST", f"/v1/teams/{owner.team}/leave", team=owner.team)
    equal(works(d, key["key"]), 401, "until she leaves")


def test_nothing_tells_a_secret(d):
    """Only a hash is on disk; neither database nor log has the digits; wrong ones take as long whatever is wrong."""
    key = d.expect(201, "POST", K, {"name": "secret"}).json()
    digits = key["key"][3:]
    works(d, key["key"])
    d.request("GET", f"/v1/sandboxes?api_key={key['key']}", key=False)  # in a URL it is good for nothing, and not logged
    times = {}
    for name, wrong in (("far", "f" * 40), ("near", digits[:-1] + ("0" if digits[-1] != "0" else "1"))):
        taken = []
        for _ in range(15):
            start = time.perf_counter()
            equal(works(d, "av_" + wrong), 401, "a wrong key")
            taken.append(time.perf_counter() - start)
        times[name] = statistics.median(taken)
    ok(times["near"] < 5 * times["far"] + 0.005, f"how much of it is right does not show: {times}")
    d.stop()
    for top, _, names in os.walk(os.path.join(d.state, "db")):
        for name in names:
            with open(os.path.join(top, name), "rb") as f:
                ok(digits.encode() not in f.read(), f"{name} has no secret")
    ok(digits not in d.log_text(), "nor has the log")
    with people.database(d) as db:
        equal(db.execute("SELECT count(*) FROM api_keys WHERE length(hash) <> 32").fetchone()[0], 0, "hashes")
        old = int((time.time() - 31 * 86400) * 1000)
        db.execute("UPDATE api_keys SET expires_ms = ? WHERE name = 'rotating'", (old,))
        ok(isinstance(db, sqlite3.Connection), "the database")
    d.start()
    wait_for(lambda: "rotating" not in [k["name"] for k in d.expect(200, "GET", K).json()], 20,
             "keys that expired 30 days ago are forgotten")


main(globals())
