#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Quotas of teams and keys, exact also in a race (T42) and after kill -9; what GET /v1/limits tells of them."""
import collections
import concurrent.futures
import os
import signal
import threading

import death
from aviary_test import contains, equal, least, main, ok, short

TEAM = {}


def set_quota(d, **quota):
    if not TEAM:
        TEAM.update(d.expect(200, "GET", "/v1/teams").json()[0])
    d.expect(204, "PUT", f"/v1/admin/teams/{TEAM['id']}/quota", quota)


def limits(d, of="team", **kw):
    return {limit["name"]: limit for limit in d.expect(200, "GET", "/v1/limits", **kw).json()["limits"] if limit["of"] == of}


def race(d, n):
    """n creates that begin together: how many got which status."""
    go, seen = threading.Barrier(n), collections.Counter()

    def one():
        d.request("GET", "/health", key=False)  # a connection each, before
        go.wait(30)
        r = d.request("POST", "/v1/sandboxes", {"memory_mb": least(64, 128)})
        if r.status == 201:
            d.ids.add(r.json()["id"])
        else:
            contains(r.message, "quota 'sandboxes' of your team", "the answer names the limit")
        return r.status
    with concurrent.futures.ThreadPoolExecutor(max_workers=n) as pool:
        seen.update(f.result() for f in [pool.submit(one) for _ in range(n)])
    return dict(seen)


def test_one_place_a_hundred_creates(d):
    d.create()
    set_quota(d, sandboxes=2)
    equal(race(d, 100), {201: 1, 429: 99}, "one of a hundred gets the last place")
    metrics = d.metrics()
    equal(metrics['aviary_quota_rejections_total{of="team",quota="sandboxes"}'], 99, "and the others are counted")


def test_a_death_makes_no_room(d):
    os.kill(d.pids()["daemon"], signal.SIGKILL)
    death.ready(d)
    equal(race(d, 20), {429: 20}, "after kill -9 the team is as full as before")
    used = limits(d)["sandboxes"]
    equal((used["used"], used["value"], used["origin"]), (2, 2, "team"), "limits say so")
    d.delete(next(iter(d.ids & {s["id"] for s in d.expect(200, "GET", "/v1/sandboxes").json()})))
    equal(race(d, 20), {201: 1, 429: 19}, "a delete makes room for one")
    set_quota(d, sandboxes=None)
    equal(limits(d)["sandboxes"]["origin"], "server", "without an own bound the server's holds")


def test_what_is_named(d):
    sb = d.expect(200, "GET", "/v1/sandboxes").json()
    cpus, memory = sum(s["cpus"] for s in sb), sum(s["memory_mb"] for s in sb)
    for name, value, body in (("cpus", cpus + 0.5, {}), ("memory_mb", memory + 100, {"memory_mb": least(101, 130)}), ("disk_mb", 1, {})):
        set_quota(d, **{name: value})
        r = d.expect(429, "POST", "/v1/sandboxes", body)
        equal(r.code, "quota_exceeded", name)
        for part in (f"'{name}'", "in use", "allowed", "administrator"):
            contains(r.message, part, f"{name}: limit, use and cure")
        set_quota(d, **{name: None})
    set_quota(d, creates_per_minute=1)
    d.create()
    r = d.expect(429, "POST", "/v1/sandboxes", {})
    ok(30 <= int(r.headers["Retry-After"]) <= 60, f"Retry-After: {r.headers['Retry-After']}")
    equal(limits(d)["creates_per_minute"]["used"], 1, "what was used of the minute")
    set_quota(d, creates_per_minute=0)


def test_paused_sandboxes(d):
    d.delete_all()
    sb = d.create()["id"]
    d.expect(200, "POST", f"/v1/sandboxes/{sb}/pause")
    set_quota(d, cpus=1, memory_mb=1024)
    other = d.create()["id"]
    r = d.expect(429, "POST", f"/v1/sandboxes/{sb}/resume")
    contains(r.message, "'cpus'", "a resume needs processors")
    contains(d.expect(429, "POST", "/v1/sandboxes", {"cpus": 0.01}).message, "'cpus'", "as a create does")
    set_quota(d, cpus=None)
    contains(d.expect(429, "POST", "/v1/sandboxes", {}).message, "'memory_mb'", "paused ones keep their memory")
    d.delete(other)
    d.expect(200, "POST", f"/v1/sandboxes/{sb}/resume")
    set_quota(d, memory_mb=None)
    d.delete(sb)


def test_a_key_of_its_own(d):
    key = d.expect(201, "POST", "/v1/api-keys", {"quota": {"sandboxes": 1, "cpus": 0.5}, "scopes": ["*"]}).json()
    head = {"X-API-Key": key["key"]}
    d.ids.add(d.expect(201, "POST", "/v1/sandboxes", {"cpus": 0.25}, headers=head).json()["id"])
    contains(d.expect(429, "POST", "/v1/sandboxes", {}, headers=head).message, "this API key", "whose bound it is")
    d.create()
    mine = limits(d, "key", headers=head)
    equal({n: (v["value"], v["used"], v["origin"]) for n, v in mine.items()},
          {"sandboxes": (1, 1, "key"), "cpus": (0.5, 0.25, "key")}, "the limits of the key")
    equal(limits(d, "key"), {}, "another key has none")
    for method, path in (("POST", "/v1/api-keys"), ("PATCH", f"/v1/api-keys/{key['id']}"),
                         ("POST", f"/v1/api-keys/{key['id']}/rotate")):
        equal(d.request(method, path, {}, headers=head).status, 403, f"{method} {path}: no way out of its quota")


def test_limits_of_requests(d):
    every = d.expect(200, "GET", "/v1/limits").json()["limits"]
    names = [(limit["of"], limit["name"]) for limit in every]
    equal(len(names), len(set(names)), "each once")
    by = dict(zip(names, every))
    equal(by["request", "create_body"]["value"], 2097152, "of a body")
    for name, field in (("cpus_max", "cpus"), ("memory_mb_max", "memory_mb"), ("disk_mb_max", "disk_mb")):
        value = by["sandbox", name]["value"]
        r = d.request("POST", "/v1/sandboxes", {field: int(value) + 1})
        equal(r.status, 400, f"{field} beyond {value}: {short(r.body)}")


def test_options(d):
    """Bounds for teams that have none of their own; and one that is none is refused."""
    d.delete_all()
    d.stop()
    d.args += ["--quota-sandboxes", "1", "--quota-memory", "1G", "--quota-creates", "5"]
    d.start()
    of = limits(d)
    equal([(of[n]["value"], of[n]["origin"]) for n in ("sandboxes", "memory_mb", "creates_per_minute")],
          [(1, "server"), (1024, "server"), (5, "server")], "they are told")
    d.create()
    d.expect(429, "POST", "/v1/sandboxes", {})
    set_quota(d, sandboxes=2)
    d.create()


main(globals())
