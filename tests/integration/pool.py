#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Sandboxes made ahead of time: given once, clean, counted for nobody, gone with the daemon."""

import concurrent.futures
import os
import signal
import time

from aviary_test import Daemon, contains, equal, main, nothing_left, ok, processes_of, wait_for

MEMBERS = 4


def filled(d, at_least=1):
    wait_for(lambda: d.pool_ready() >= at_least, 20, "the pool has a ready sandbox")


def hits(d):
    return d.metrics()['aviary_pool_creates_total{result="hit"}']


def members(d):
    """Ids that the machine has and the API does not show."""
    listed = {s["id"] for s in d.expect(200, "GET", "/v1/sandboxes?status=all").json()}
    return {entry for entry in os.listdir(d.run) if entry.startswith("sb")} - listed


def test_it_fills_by_itself_and_shows_nobody(d):
    filled(d)
    equal(d.expect(200, "GET", "/v1/sandboxes?status=all").json(), [], "no list shows it")
    equal(d.expect(200, "GET", "/v1/sandboxes/stats").json()["current"]["running_count"], 0, "no count")
    for member in members(d):
        for method, path in (("GET", ""), ("DELETE", ""), ("POST", "/ping"), ("GET", "/metrics"), ("GET", "/processes")):
            d.expect(404, method, f"/v1/sandboxes/{member}{path}")
        d.expect(404, "POST", f"/v1/sandboxes/{member}/exec", {"cmd": "true"})
    ok(members(d), "and it is there still")


def test_a_create_gets_it(d):
    filled(d)
    ready, before = members(d), hits(d)
    sb = d.create(envs={"WHO": "me"}, metadata={"a": "b"}, timeout_sec=600, tags=["x"])
    equal(hits(d), before + 1, "a hit")
    ok(sb["id"] in ready, "with the id that it had")
    equal((sb["status"], sb["metadata"], sb["timeout_sec"], sb["tags"]), ("running", {"a": "b"}, 600, ["x"]), "its own")
    r = d.exec(sb["id"], "echo $WHO $AVIARY_SANDBOX_ID $WRENN_TEMPLATE_ID; hostname")
    equal(r["stdout"], f"me {sb['id']} minimal\n{sb['id'][:12]}\n", "environment and host name")
    equal(d.expect(200, "GET", f"/v1/sandboxes/{sb['id']}").json()["started_at"], sb["started_at"], "recorded")
    d.delete(sb["id"])
    filled(d)


def test_what_is_given_was_never_used(d):
    seen = set()
    for _ in range(6):
        filled(d)
        sb = d.create()["id"]
        ok(sb not in seen, "never the same twice")
        seen.add(sb)
        r = d.exec(sb, "ls /tmp /home /var/tmp; touch /tmp/dirty; ps -e 2>/dev/null | grep -c sleep; "
                       "sleep 1000 >/dev/null 2>&1 & env | grep -c DIRTY", envs={"DIRTY": "1"})
        ok("dirty" not in r["stdout"], f"clean: {r['stdout']}")
        equal(d.expect(200, "GET", f"/v1/sandboxes/{sb}/processes").json()["processes"], [], "nothing runs")
        d.delete(sb)
        ok(sb not in members(d), "what was deleted does not come back")


def test_another_shape_is_made_for_it(d):
    filled(d)
    before = hits(d)
    sb = d.create(memory_mb=100, cpus=0.5, sudo=False)
    equal(hits(d), before, "no hit")
    equal((sb["memory_mb"], sb["cpus"]), (100, 0.5), "limits")
    contains(d.exec(sb["id"], "grep MemTotal /proc/meminfo")["stdout"], str(100 * 1024), "and it sees them")
    contains(d.exec(sb["id"], "grep NoNewPrivs /proc/self/status")["stdout"], "1", "without sudo")
    d.delete(sb["id"])
    found = []

    def is_hit():
        known = hits(d)
        found.append(d.create(memory_mb=100)["id"])
        return hits(d) > known

    wait_for(is_hit, 20, "a shape that is asked for again has one ready")
    contains(d.exec(found[-1], "grep MemTotal /proc/meminfo")["stdout"], str(100 * 1024), "with its limits")
    for sandbox in found:
        d.delete(sandbox)


def test_many_at_once_get_different_ones(d):
    filled(d)
    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        made = list(threads.map(lambda _: d.create()["id"], range(24)))
        equal(len(set(made)), 24, "all different")
        ok(not members(d) & set(made), "none is in the pool any more")
        list(threads.map(lambda i: equal(d.exec(i, "echo $AVIARY_SANDBOX_ID")["stdout"], i + "\n", "its own name"), made))
        list(threads.map(d.delete, made))


def test_idempotency_gives_one(d):
    filled(d)
    first = d.expect(201, "POST", "/v1/sandboxes", {}, headers={"Idempotency-Key": "pool"}).json()["id"]
    d.ids.add(first)
    filled(d)
    again = d.expect(201, "POST", "/v1/sandboxes", {}, headers={"Idempotency-Key": "pool"}).json()["id"]
    equal(again, first, "the same")
    d.expect(409, "POST", "/v1/sandboxes", {"memory_mb": 64}, headers={"Idempotency-Key": "pool"})
    wait_for(lambda: len(members(d)) <= MEMBERS, 10, "what was taken for a replay is gone")
    d.delete(first)


def test_one_that_dies_is_replaced(d):
    filled(d)
    there, victims = members(d), set()  # one that is just being made has no process yet, and lives
    d.ids |= there
    for pid in processes_of(d):
        with open(f"/proc/{pid}/cmdline", "rb") as f:
            words = f.read().split(b"\0")
        if len(words) > 1 and words[1].decode() in there:
            os.kill(pid, signal.SIGKILL)
            victims.add(words[1].decode())
    ok(victims, "some died")
    wait_for(lambda: not victims & members(d), 20, "the dead are taken away")
    sb = d.create()["id"]
    ok(sb not in victims, "nobody gets a dead one")
    equal(d.exec(sb, "echo x")["stdout"], "x\n", "it works")
    d.delete(sb)
    filled(d)


def test_a_template_that_asks_for_it_has_its_kernel_warm(d):
    sb = d.create()["id"]
    d.expect(201, "POST", "/v1/snapshots", {"sandbox_id": sb, "name": "warm", "kernel_warm": True})
    d.delete(sb)
    found = []

    def is_hit():
        known = hits(d)
        found.append(d.create(template="warm", envs={"WHO": "me"})["id"])
        return hits(d) > known

    wait_for(is_hit, 40, "one of that template is ready")
    r = d.expect(200, "POST", f"/v1/sandboxes/{found[-1]}/run_code",
                 {"code": "import os; os.environ['WHO'] + os.environ['AVIARY_SANDBOX_ID']"}).json()
    equal((r["status"], r["results"][0]["data"]["text/plain"]), ("ok", f"'me{found[-1]}'"), "with its own environment")
    ok(r["duration_ms"] < 1000, f"warm: {r['duration_ms']} ms")
    for sandbox in found:
        d.delete(sandbox)
    d.expect(204, "DELETE", "/v1/snapshots/warm")
    wait_for(lambda: not [i for i in os.listdir(os.path.join(d.state, "templates")) if i.startswith("tp")], 20,
             "its files go, members or not")


def test_bounds(d):
    for _ in range(12):
        d.delete(d.create()["id"])
    filled(d, 2)
    for _ in range(20):
        ok(len(members(d)) <= MEMBERS, "never more than allowed")
        time.sleep(0.05)


def test_a_killed_daemon_gives_them_to_nobody(d):
    filled(d)
    before = members(d)
    os.kill(d.pids()["daemon"], signal.SIGKILL)
    wait_for(lambda: not os.path.exists(f"/proc/{d.process.pid}") or _ready(d), 30, "the next daemon")
    wait_for(lambda: _ready(d) and not before & members(d), 20, "destroyed by the next daemon")
    filled(d)


def _ready(d):
    try:
        return d.request("GET", "/ready", key=False).status == 200
    except OSError:
        return False


def test_off_and_refused(_d):
    for value in ("off", "0"):
        own = Daemon(pool=value)
        try:
            own.start()
            own.delete(own.create()["id"])
            time.sleep(0.3)
            equal(own.pool_ready(), 0, f"--pool {value}")
            own.stop()
        finally:
            own.sweep()
            own.remove_dir()


def test_stopping_takes_them_away(_d):
    own = Daemon(pool=3)
    try:
        own.start()
        filled(own)
        own.stop()
        nothing_left(own)
    finally:
        own.sweep()
        own.remove_dir()


if __name__ == "__main__":
    main(dict(globals()), pool=MEMBERS)
