#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A client whose create breaks off asks again with the same Idempotency-Key, wherever the daemon died: there is one
sandbox, and it works. T43. The team may have one sandbox: so nothing that a death left behind counts, and what was made
is never refused to who asks for it again."""
import concurrent.futures
import http.client
import time

import aviary_test
import death
from aviary_test import SLOW, Daemon, Failure, equal, ok, short


def create(d, end):
    """As a client would: again until there is an answer that is one. What it is, and how often it broke off."""
    tries = 0
    while time.monotonic() < end:
        tries += 1
        try:
            r = d.request("POST", "/v1/sandboxes", {"metadata": {"a": "b"}}, headers={"Idempotency-Key": "one"}, timeout=20)
        except (OSError, http.client.HTTPException):
            time.sleep(0.05)
            continue
        if r.status == 503:
            time.sleep(0.05)
            continue
        return r, tries
    raise Failure("no answer in time")


def die_at(point, of):
    d = Daemon(args=["--quota-sandboxes", "1"], env={"AVIARY_FAILPOINT": f"{point}=kill@1"}, pool=2 if of == "pool" else 0)
    with death.dying(d, point):
        if of == "pool":
            aviary_test.wait_for(lambda: d.pool_ready() >= 1, 20, "a sandbox made ahead of time")
        before = death.generation(d)
        end = time.monotonic() + 40 * SLOW
        with concurrent.futures.ThreadPoolExecutor(max_workers=2) as clients:
            answers = [a.result() for a in [clients.submit(create, d, end) for _ in range(2)]]
        died = death.who_died(d, before)
        for r, _ in answers:
            equal(r.status, 201, f"the answer: {short(r.body)}")
        ids = {r.json()["id"] for r, _ in answers}
        d.ids |= ids
        listed = [s["id"] for s in d.expect(200, "GET", "/v1/sandboxes").json()]
        works = d.exec(listed[0], "echo works")["stdout"] if listed else None
        other = d.request("POST", "/v1/sandboxes", {}, headers={"Idempotency-Key": "two"})
        for sandbox in listed:
            d.delete(sandbox)
        after = d.expect(201, "POST", "/v1/sandboxes", {}, headers={"Idempotency-Key": "two"}).json()["id"]
        d.ids.add(after)
        d.delete(after)
        death.stops_clean(d)
        return died, ids, listed, works, other.status, max(t for _, t in answers)


def judge(point, _of, result):
    died, ids, listed, works, other, tries = result
    ok("daemon" in died, f"the daemon died at {point}: {died}")
    equal(len(ids), 1, f"both clients have one sandbox: {ids}")
    equal(listed, list(ids), "and it is the only one")
    equal(works, "works\n", "in which one can work")
    equal(other, 429, "another create finds no room")
    print(f"# {point}: {tries} tries")


points = [(p, "create") for p in death.failpoints("control") if p.startswith("create.")]
# From the pool the steps are others.
points += [("pool.taken", "pool")]
aviary_test.main(death.tests(points, die_at, judge))
